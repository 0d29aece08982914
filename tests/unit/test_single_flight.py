"""Coalesced requests: one for each key, whatever its callers do."""

from __future__ import annotations

import asyncio
import logging

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
