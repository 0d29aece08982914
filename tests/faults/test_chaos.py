"""A short chaos run: it finds nothing in correct sidecars, and its checker finds what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

from benches import pictures
from benches.chaos import plan
from benches.chaos.__main__ import run
from benches.chaos.faults import UpstreamFaults
from benches.chaos.part import KINDS, Part, redis_is_missing
from benches.chaos.pod import children, freeze, peers
from benches.chaos.report import PartReport, Report, Sample, slope, table
from benches.chaos.truth import Asked, Issued, Known, KnownProvider, Truth
from support.network import TcpProxy
from support.process import Serve
from support.provider import Provider
from support.wire import Answer

SCOPE, OTHER = "api://dev.team.app0/.default", "api://dev.team.app1/.default"


@pytest.mark.parametrize("name", KINDS)
async def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    """Some seconds of faults and a restart under load. `make chaos` runs longer."""
    if KINDS[name].redis and redis_is_missing():
        pytest.skip("needs redis-server or valkey-server")
    report = await Part(name, seed=7, seconds=6, clients=4).run()
    assert report.good, report.examples
    assert report.requests > 100
    assert report.checked_after_skip_cache
    assert report.faults
    assert report.memory
    if name == "workers":
        assert report.workers_replaced
    whole = Report(7, [report, PartReport("other", "skipped", 0, skipped="why")])
    assert "NOT RUN: other: why" in table(whole)
    figures = json.loads(json.dumps(whole.as_json()))
    result = tmp_path / "chaos.json"
    result.write_text(json.dumps(figures))
    assert ET.parse(pictures.draw(result, pictures.chaos_picture)).getroot().tag.endswith("svg")
    assert figures["seed"] == 7
    assert figures["requests"] == report.requests
    assert figures["skipped"] == ["other"]
    assert figures["parts"]["other"] == {"title": "skipped", "skipped": "why"}


async def test_without_redis_only_its_part_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The report and the output say so."""
    monkeypatch.setattr("benches.chaos.__main__.redis_is_missing", lambda: True)
    report = await run(seed=1, seconds=1, clients=1, names=["replicas"])
    assert "NOT RUN" in capfd.readouterr().err
    assert report.as_json()["skipped"] == list(KINDS)
    assert "redis-server" in str(report.parts[-1].skipped)


def test_a_seed_repeats_the_schedule() -> None:
    """Another seed gives another one."""

    def planned(seed: int) -> tuple[list[plan.Planned], list[plan.Planned]]:
        rng = random.Random(seed)
        return (
            plan.upstream(rng, 60, ["a", "b", "c"]),
            plan.beside(rng, 60, ["d"], ["e", "e"], pause=(1, 2)),
        )

    assert planned(1) == planned(1)
    assert planned(1) != planned(2)
    upstream, beside = planned(1)
    assert {"a", "b", "c", plan.RESTART, plan.ROTATION} == {each.name for each in upstream}
    assert all(each.name == "d" for each in beside if each.at >= 60 * plan.REPLACED_UNTIL)
    assert any(each.name == "e" for each in beside)


@pytest.mark.parametrize("seed", range(5))
def test_memory_is_measured_when_each_fault_has_come_once(seed: int) -> None:
    """Memory is measured between the restart and the end of the extra load, so that one-time allocations do
    not count as growth."""
    names = list(UpstreamFaults(KnownProvider(), TcpProxy()).all())
    planned = plan.upstream(random.Random(seed), 80, names)
    restarted = next(each.at for each in planned if each.name == plan.RESTART)
    in_time = {each.name for each in planned if restarted <= each.at < 80 * plan.RUSH_UNTIL}
    assert set(names) <= in_time
    quiet = [later.at - each.at - each.seconds for each, later in pairwise(planned)]
    assert max(quiet) > plan.AFTERMATH, "errors without a cause would not show"


async def test_it_is_known_whose_connections_are_whose(serve: Serve, provider: Provider) -> None:
    """Those that a worker has accepted, and not those that wait for it while it is stopped."""
    process = await serve(provider.environment(PROBE_BIND_ADDRESS="127.0.0.1:0"), "--workers", "2")
    call = await process.listening()
    workers = children(process.process.pid)

    async def connect() -> tuple[int, asyncio.StreamWriter]:
        _, writer = await call.connect()
        return writer.get_extra_info("sockname")[1], writer

    early = [await connect() for _ in range(20)]
    while len({*peers(workers[0]), *peers(workers[1])} & {port for port, _ in early}) < 20:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not peers(workers[0]) & peers(workers[1])
    for worker in workers:
        await freeze(worker)
    late = [await connect() for _ in range(20)]
    assert not {*peers(workers[0]), *peers(workers[1])} & {port for port, _ in late}
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    for _, writer in (*early, *late):
        writer.close()


@pytest.fixture
def truth() -> Truth:
    """A checker that knows some tokens and sees no fault."""
    truth = Truth(PartReport("part", "a part", 0))
    truth.issued["good"] = Issued(2, SCOPE, None, time.time() + 100)
    truth.issued["old"] = Issued(1, SCOPE, None, time.time() - 5)
    return truth


def token(name: str, expires_in: int = 50) -> Answer:
    return Answer(200, [], json.dumps({"access_token": name, "expires_in": expires_in}).encode())


def error(status: int) -> Answer:
    return Answer(status, [], b'{"error":"server_error"}')


def check(
    truth: Truth,
    answer: Answer,
    *,
    known: Known | None = None,
    scope: str = SCOPE,
    user: tuple[str, float] | None = None,
    skip_cache: bool = False,
    issued: int | None = None,
) -> PartReport:
    known = known or Known()
    floor = known.floors.get((scope, user[0] if user else None), 0)
    issued = len(truth.issued) if issued is None else issued
    truth.judge_token(known, Asked(scope, user, skip_cache, time.monotonic(), floor, issued), answer)
    return truth.report


def test_the_checker_accepts_what_is_right(truth: Truth) -> None:
    """A good token, and an error within a fault for a token that was never handed out."""
    known = Known()
    assert check(truth, token("good"), known=known).good
    with truth.excused():
        assert check(truth, error(500), known=known, scope=OTHER).good
    assert check(truth, error(500), known=known, scope=OTHER).good  # its aftermath


def test_the_checker_finds_wrong_tokens(truth: Truth) -> None:
    """An unknown user, another target, another user, too long a lifetime."""
    check(truth, token("made up"))
    check(truth, token("good"), scope=OTHER)
    check(truth, token("good"), user=("user", time.time() + 100))
    check(truth, token("good", expires_in=500))
    assert truth.report.wrong_answers == 4


def test_the_checker_finds_expired_tokens(truth: Truth) -> None:
    """The token's own expiry, or that of the user's token, has passed."""
    check(truth, token("old", expires_in=-10))
    truth.issued["exchanged"] = Issued(3, SCOPE, "user", time.time() + 100)
    check(truth, token("exchanged"), user=("user", time.time() - 1))
    assert truth.report.expired_tokens == 2


def test_the_checker_finds_errors_without_a_cause(truth: Truth) -> None:
    """No fault was active, or a valid token was there."""
    known = Known()
    check(truth, error(500), known=known)
    with truth.excused():
        check(truth, token("good"), known=known)
        check(truth, error(500), known=known)
    assert truth.report.wrong_answers == 2


def test_the_checker_finds_tokens_that_were_replaced(truth: Truth) -> None:
    """After `skip_cache` the old token is wrong at that sidecar, and only then; a token that must not be
    cached replaces nothing."""
    known = Known()
    truth.issued["newer"] = Issued(3, SCOPE, None, time.time() + 100)
    truth.issued["once"] = Issued(4, SCOPE, None, time.time() + 100, cacheable=False)
    check(truth, token("newer"), known=known)
    check(truth, token("good"), known=known)
    check(truth, token("once"), known=known, skip_cache=True)
    check(truth, token("good"), known=known)
    assert check(truth, token("newer"), known=known, skip_cache=True).good
    assert check(truth, token("newer"), known=known).checked_after_skip_cache == 1
    check(truth, token("good"), known=Known())
    assert truth.report.good
    check(truth, token("good"), known=known)
    assert truth.report.wrong_answers == 1


def test_the_checker_knows_that_two_replicas_may_ask_at_once(truth: Truth) -> None:
    """Then the token that arrives second may be the older one, but none issued before the request."""
    replicas = Truth(truth.report, one_asks=False)
    replicas.issued |= truth.issued  # one and two
    replicas.issued["other's"] = Issued(3, SCOPE, None, time.time() + 100)
    replicas.issued["own"] = Issued(4, SCOPE, None, time.time() + 100)
    known = Known()
    check(replicas, token("own"), known=known, skip_cache=True, issued=2)
    assert check(replicas, token("other's"), known=known).good
    assert not check(replicas, token("good"), known=known).good


def test_the_checker_finds_wrong_introspections(truth: Truth) -> None:
    """A valid token rejected, an invalid one accepted, a wrong reason, no answer at all."""
    known = Known(has_keys=True)
    for body in (
        b'{"active":false,"error":"token is expired"}',
        b'{"active":false,"error":"keys of the token issuer are not available: x"}',
    ):
        truth.judge_introspection(known, "", Answer(200, [], body))
    assert truth.report.false_rejections == 2
    for status, body in (
        (200, b'{"active":true}'),
        (200, b'{"active":false,"error":"token is not a JWT"}'),
        (200, b'{"access_token":"x"}'),
        (500, b"{}"),
    ):
        truth.judge_introspection(known, "token is expired", Answer(status, [], body))
    assert truth.report.wrong_answers == 4


def test_the_slope_is_of_the_tail_and_of_all_processes() -> None:
    """KiB per 10,000 requests; what comes before, or before a process was replaced, is not counted."""
    samples = [Sample(float(i), i * 100, {1: 40_000 + 500 * i, 2: 9}) for i in range(10)]
    samples += [Sample(10.0 + i, 1000 + i * 1000, {1: 40_000 + 10 * i, 2: 5 * i}) for i in range(10)]
    assert slope(samples, 20) == pytest.approx(150)
    samples = [Sample(s.moment, s.requests, {1: 1, 3: s.requests}) for s in samples[:15]] + samples[15:]
    assert slope(samples, 20) == pytest.approx(150)
