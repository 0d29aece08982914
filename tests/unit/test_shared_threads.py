"""The threads that all blocking validators of a process share: how many there are, and when they end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from entra_fast import _shared_threads
from entra_fast._shared_threads import MAX_PAUSE, MAX_REQUESTS, MAX_THREADS, Requests, Schedule

TESTS = Path(__file__).parents[1]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


class Work:
    """Work that is due after each of `pauses`, and then never again."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)
        self.runs = 0
        self.asked = threading.Semaphore(0)

    def due_in(self) -> float | None:
        self.asked.release()
        return self.pauses[0] if self.pauses else None

    def run(self) -> None:
        self.runs += 1
        self.pauses.pop(0)


# --- the schedule ----------------------------------------------------------------------------------------


def test_work_runs_when_it_is_due_and_the_thread_ends_after_the_last() -> None:
    """Two pieces of work share one thread, which exists no longer than they need it; more work starts it
    again."""
    schedule = Schedule()
    for _ in range(2):
        first, second = Work(0, 0, 0), Work(0)
        schedule.look_at(first)
        schedule.look_at(second)
        eventually(lambda: first.runs == 3 and second.runs == 1)  # noqa: B023 - called in this turn
        eventually(lambda: schedule._thread is None)


def test_no_thread_keeps_the_process_alive() -> None:
    """A program ends when its own work is done, whatever is scheduled or under way."""
    schedule, requests = Schedule(), Requests()
    schedule.look_at(work := Work(3600))
    daemons: list[bool] = []
    owner = Owner()
    requests.start("a", owner, lambda _: daemons.append(threading.current_thread().daemon))
    eventually(lambda: bool(daemons))
    assert daemons == [True]
    assert schedule._thread is not None
    assert schedule._thread.daemon
    schedule.forget(work)
    schedule.stop()


def test_work_that_is_not_due_waits_until_something_changes() -> None:
    """The thread asks again when it is told to, not all the time."""
    schedule = Schedule()
    work = Work(3600)
    schedule.look_at(work)
    assert work.asked.acquire(timeout=60)
    assert not work.asked.acquire(timeout=0.05)
    work.pauses[:] = [0]
    schedule.look_at(work)
    eventually(lambda: work.runs == 1)
    eventually(lambda: schedule._thread is None)


def test_a_clock_that_jumps_ahead_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept: the thread's own clock stood still, but the work's has not."""
    assert MAX_PAUSE == 30
    monkeypatch.setattr(_shared_threads, "MAX_PAUSE", 0.01)
    schedule = Schedule()
    work = Work(3600)
    schedule.look_at(work)
    assert work.asked.acquire(timeout=60)
    work.pauses[:] = [0]
    eventually(lambda: work.runs == 1)


def test_dropped_work_ends_the_thread_at_once() -> None:
    """The thread holds work weakly, and learns of its end without waiting for it to be due."""
    schedule = Schedule()
    works = [Work(3600) for _ in range(300)]
    for work in works:
        schedule.look_at(work)
        schedule.look_at(work)
    thread = schedule._thread
    assert thread is not None
    eventually(schedule._changed.empty)
    del works, work
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_forgotten_work_starts_no_thread() -> None:
    """To close what was never started costs nothing; to close what was ends the thread."""
    schedule = Schedule()
    work = Work()
    schedule.forget(work)
    assert schedule._thread is None
    work.pauses[:] = [3600]
    schedule.look_at(work)
    thread = schedule._thread
    assert thread is not None
    work.pauses.clear()
    schedule.forget(work)
    thread.join(60)
    assert not thread.is_alive()


def test_work_that_fails_does_not_end_other_work(caplog: pytest.LogCaptureFixture) -> None:
    """The failure is logged, and the work is tried again later."""

    class Failing(Work):
        def run(self) -> None:
            raise RuntimeError("canary")

    schedule = Schedule()
    failing, other = Failing(0), Work(0, 0)
    schedule.look_at(failing)
    schedule.look_at(other)
    eventually(lambda: other.runs == 2)
    logged = ("entra_fast.threads", "background work failed")
    eventually(lambda: logged in [(record.name, record.message) for record in caplog.records])


def test_a_schedule_that_was_stopped_runs_nothing() -> None:
    """The interpreter ends: the thread is gone when `stop` returns, and none is started any more."""
    schedule = Schedule()
    work = Work(3600)
    schedule.look_at(work)
    thread = schedule._thread
    assert thread is not None
    schedule.stop()
    assert not thread.is_alive()
    work.pauses[:] = [0]
    schedule.look_at(work)
    schedule.stop()
    assert work.runs == 0
    idle = Schedule()
    idle.stop()  # no thread has been needed yet
    idle.look_at(work)
    assert idle._thread is None


# --- requests --------------------------------------------------------------------------------------------


class Owner:
    """What requests are for."""


def test_few_requests_run_at_once_and_all_run() -> None:
    """However many validators need keys at the same moment. No thread is left after the last one."""
    requests = Requests()
    lock, gate = threading.Lock(), threading.Event()
    running, most, done = 0, 0, 0

    def request(_: Owner) -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        assert gate.wait(60)
        with lock:
            running, done = running - 1, done + 1

    owners = [Owner() for _ in range(50)]
    for owner in owners:
        requests.start("a", owner, request)
    eventually(lambda: running == MAX_REQUESTS)
    gate.set()
    eventually(lambda: done == 50 and requests._threads == 0)
    assert most == MAX_REQUESTS


def test_a_server_that_hangs_delays_no_other() -> None:
    """A validator of several issuers, and several validators, share the threads. What waits for one server
    goes on as soon as one of its requests has ended, and in the order of the servers."""
    requests = Requests()
    gate, asked = threading.Event(), []

    def hang(_: Owner) -> None:
        asked.append("hung")
        assert gate.wait(60)

    def answered(_: Owner) -> None:
        asked.append("answered")

    owners = [Owner() for _ in range(4 * MAX_REQUESTS)]
    for owner in owners:
        requests.start("a", owner, hang)
    eventually(lambda: len(asked) == MAX_REQUESTS)
    for _ in range(2):
        requests.start("b", owners[0], answered)
    eventually(lambda: asked.count("answered") == 2)
    assert asked.count("hung") == MAX_REQUESTS
    gate.set()
    eventually(lambda: requests._threads == 0)
    assert asked.count("hung") == len(owners)
    assert not requests._waiting
    assert not requests._running


def test_requests_to_all_servers_are_bounded_together() -> None:
    """Each server has its turn, however many hang."""
    requests = Requests()
    gate, asked = threading.Event(), []

    def hang(owner: Owner) -> None:
        asked.append(owner)
        assert gate.wait(60)

    owners = [Owner() for _ in range(MAX_THREADS + 5)]
    for number, owner in enumerate(owners):
        requests.start(str(number), owner, hang)
    eventually(lambda: len(asked) == MAX_THREADS)
    assert requests._threads == MAX_THREADS
    gate.set()
    eventually(lambda: requests._threads == 0)
    assert sorted(map(id, asked)) == sorted(map(id, owners))


def test_nothing_is_requested_for_what_was_dropped() -> None:
    """A validator that waits for its turn and is dropped meanwhile sends nothing."""
    requests = Requests()
    gate, asked = threading.Event(), []

    def request(owner: Owner) -> None:
        asked.append(id(owner))
        assert gate.wait(60)

    kept = [Owner() for _ in range(MAX_REQUESTS)]
    for owner in kept:
        requests.start("a", owner, request)
    eventually(lambda: len(asked) == MAX_REQUESTS)
    dropped = Owner()
    gone = weakref.ref(dropped)
    requests.start("a", dropped, request)
    del dropped
    gc.collect()
    assert gone() is None
    gate.set()
    eventually(lambda: requests._threads == 0)
    assert len(asked) == MAX_REQUESTS


# --- validators ------------------------------------------------------------------------------------------


def in_process(code: str) -> str:
    """What a program prints that counts its threads. The tests' own process has others."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    program = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_COUNTING) + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    assert "Traceback" not in program.stderr, program.stderr
    return program.stdout


_COUNTING = """
    import asyncio, gc, sys, threading, time
    from entra_fast.validate import AsyncValidator, Validator
    from support.key_server import KeyServer
    from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer

    token = signer().token()

    def ours():
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("entra_fast")]

    def left_are(count):
        deadline = time.monotonic() + 20
        while len(ours()) != count and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(ours()) == count
"""


def test_a_validator_per_request_leaves_no_threads() -> None:
    """300 validators, each used once and dropped, never need more than a handful of threads, and leave none
    without `close`."""
    printed = in_process("""
        with KeyServer(jwks(signer())) as server:
            most = 0
            for _ in range(300):
                one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
                one.validate(token)
                most = max(most, len(ours()))
            del one
            print(most <= 9, left_are(0))
    """)
    assert printed == "True True\n"


def test_300_validators_at_once_share_their_threads() -> None:
    """All of them are in use at the same time, in as many threads of the application, and all validate."""
    printed = in_process("""
        from concurrent.futures import ThreadPoolExecutor

        most = 0

        def request(_):
            global most
            one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
            claims = one.validate(token)
            most = max(most, len(ours()))
            return one

        with KeyServer(jwks(signer())) as server:
            with ThreadPoolExecutor(50) as pool:
                held = list(pool.map(request, range(300)))
            # One for the schedule, three for requests, each of which resolves a name in another one.
            print(len(held), most <= 9, left_are(1))
            for one in held[:150]:
                one.close()
            del held, one
            gc.collect()
            print(left_are(0))
    """)
    assert printed == "300 True True\nTrue\n"


def test_a_validator_that_is_not_used_starts_no_thread() -> None:
    """A module may create one before its process forks."""
    printed = in_process("""
        with KeyServer(jwks(signer())) as server:
            held = [
                Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url),
                Validator(ISSUER, AUDIENCE, jwks=jwks(signer())),
                AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url),
            ]
            for one in held[:2]:
                one.close()
            print(ours())
    """)
    assert printed == "[]\n"


def test_an_async_validator_per_request_leaves_no_tasks() -> None:
    """300 of them, dropped without `aclose`: their tasks and connections end."""
    printed = in_process("""
        async def main():
            for _ in range(300):
                one = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
                await one.validate(token)
            kept = one
            del one
            for _ in range(100):
                gc.collect()
                await asyncio.sleep(0.01)
            print(len(asyncio.all_tasks()) <= 2, await kept.validate(token) is not None)
            await kept.aclose()
            del kept

        with KeyServer(jwks(signer())) as server:
            asyncio.run(main())
            print(left_are(0))
    """)
    assert printed == "True True\nTrue\n"


def test_a_dropped_validator_of_a_loop_that_has_ended_is_nothing_to_close() -> None:
    """It is dropped after its event loop, in another thread: nothing fails."""
    printed = in_process("""
        async def main():
            one = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
            await one.validate(token)
            return one

        with KeyServer(jwks(signer())) as server:
            held = [asyncio.run(main())]
            dropping = threading.Thread(target=lambda: (held.clear(), gc.collect()))
            dropping.start()
            dropping.join()
            print("dropped")
    """)
    assert printed == "dropped\n"
