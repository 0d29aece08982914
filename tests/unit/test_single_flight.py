"""Coalesced requests: one for each key, whatever its callers do."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from entra_fast._single_flight import SingleFlight
from entra_fast.errors import EntraFastError


class Request:
    """A request that is answered when the test says so, and counts how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.made += 1
        return await asyncio.shield(self.answer)


async def test_callers_share_a_request() -> None:
    """As long as it is in flight; the next caller makes a new one. Other keys have their own."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    request, other = Request(), Request()
    callers = [asyncio.ensure_future(flights.join("a", request)) for _ in range(3)]
    callers.append(asyncio.ensure_future(flights.join("b", other)))
    await asyncio.sleep(0)
    assert (len(flights), "a" in flights, "c" in flights) == (2, True, False)
    in_flight = flights.in_flight("a")
    assert in_flight is not None
    assert flights.start("a", request) is in_flight
    request.answer.set_result("one")
    other.answer.set_result("two")
    assert await asyncio.gather(*callers) == ["one", "one", "one", "two"]
    assert (request.made, other.made) == (1, 1)
    assert (len(flights), flights.in_flight("a")) == (0, None)
    assert await flights.join("a", request) == "one"
    assert request.made == 2


async def test_a_caller_that_goes_away_cancels_nothing() -> None:
    """The others get the response; without others the request continues."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    request = Request()
    leaving, staying = (asyncio.ensure_future(flights.join("a", request)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    request.answer.set_result("one")
    assert await staying == "one"


@pytest.mark.parametrize(
    ("failure", "waiting", "logged"),
    [
        (ValueError("cause"), False, True),
        (ValueError("cause"), True, False),
        (EntraFastError("code", "expected"), False, False),
    ],
)
async def test_no_failure_is_lost(
    failure: Exception, waiting: bool, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller that waits gets it. Where none does, an unexpected one is logged once, with its cause."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    request = Request()
    with caplog.at_level(logging.ERROR):
        task = flights.start("a", request)
        caller = asyncio.ensure_future(flights.join("a", request)) if waiting else None
        await asyncio.sleep(0)
        request.answer.set_exception(failure)
        await asyncio.wait({task})
        await asyncio.sleep(0)
        if caller is not None:
            with pytest.raises(ValueError, match="cause"):
                await caller
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [failure] * logged


async def test_closing_cancels_callers_too(caplog: pytest.LogCaptureFixture) -> None:
    """Also a request that has not begun; nothing of it is logged."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    request = Request()
    caller = asyncio.ensure_future(flights.join("a", request))
    await asyncio.sleep(0)  # the caller has begun
    await asyncio.sleep(0)  # so has its request
    flights.start("b", request)
    await flights.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (len(flights), request.made, caplog.records) == (0, 1, [])


async def test_the_failure_of_an_abandoned_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """All callers have gone away before it fails: nobody else gets to know of it. The line names the
    request."""
    flights: SingleFlight[str, str] = SingleFlight("fetching a test")
    request = Request()
    callers = [asyncio.ensure_future(flights.join("a", request)) for _ in range(3)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "fetching a test")
    request.answer.set_exception(ValueError("cause"))
    await asyncio.wait({task})
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert vars(record)["fields"] == {"task": "fetching a test", "error": "ValueError"}


async def test_one_caller_that_still_waits_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """It gets the failure, so the failure is not logged as well."""
    flights: SingleFlight[str, str] = SingleFlight("test")
    request = Request()
    callers = [asyncio.ensure_future(flights.join("a", request)) for _ in range(4)]
    await asyncio.sleep(0)
    for caller in callers[1:]:
        caller.cancel()
    await asyncio.wait(callers[1:])
    request.answer.set_exception(ValueError("cause"))
    with pytest.raises(ValueError, match="cause"):
        await callers[0]
    await asyncio.sleep(0)
    assert caplog.records == []


async def test_what_is_expected_to_fail_is_the_users_choice(caplog: pytest.LogCaptureFixture) -> None:
    """Of the failures that nobody waits for, those are not logged."""
    flights: SingleFlight[str, str] = SingleFlight("test", expected=(LookupError,))
    for failure, logged in ((KeyError("cause"), 0), (EntraFastError("code", "expected"), 1)):
        request = Request()
        task = flights.start("a", request)
        await asyncio.sleep(0)
        request.answer.set_exception(failure)
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert len(caplog.records) == logged


class Failure(Exception):
    """Can be referred to weakly."""


async def test_a_failure_that_was_handled_is_gone() -> None:
    """Its traceback has frames that hold users' tokens: nothing keeps it until the garbage collector runs."""
    flights: SingleFlight[str, str] = SingleFlight("test")

    async def fail() -> str:
        raise Failure

    async def caller() -> weakref.ref[Failure]:
        try:
            await flights.join("a", fail)
        except Failure as failure:
            return weakref.ref(failure)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        gone = await caller()
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
