"""When tokens are renewed: the ranges that chance draws from, the bound, and what a failure changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from entra_fast import _native
from entra_fast._provider import renewal
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.renewal import Renewals
from entra_fast._provider.tokens import (
    CLIENT_CREDENTIALS,
    ON_BEHALF_OF,
    FetchedToken,
    TimedCache,
    Timing,
    WantedToken,
)
from entra_fast.errors import ProviderError
from support.token_client import Later, World, failed

KEY = b"k" * 32
WANTED = WantedToken(KEY, CLIENT_CREDENTIALS, "scope")


class Scene:
    """Renewals of a token that was fetched at 1000 and is valid for an hour.

    Args:
        draw: what chance does: the lowest or the highest value of a range.
    """

    def __init__(self, draw: Callable[[float, float], float] = min) -> None:
        self.now = 1000.0
        self.later = Later()
        timing = Timing(
            clock=lambda: 1_800_000_000.0,
            monotonic=lambda: self.now,
            uniform=draw,
            call_later=self.later,
        )
        self.cache = TimedCache(_native.TokenCache(), timing)
        self.renewed: list[WantedToken] = []
        self.renewals = Renewals(self.cache, timing, self.renewed.append)
        self.token = FetchedToken("token", 3600.0, self.now)

    def due_at(self, after: float) -> float:
        """The first half of a second after `after` in which renewal is due."""
        self.now = after
        while (token := self.cache.get(KEY)) is not None and not token.renewal_due:
            self.now += 0.5
        return self.now


@pytest.mark.parametrize(("draw", "share"), [(min, 0.6), (max, 0.8)])
def test_a_token_is_renewed_within_its_last_two_fifths(draw: Any, share: float) -> None:
    """At a random point, so that tokens that were fetched together are not renewed together."""
    scene = Scene(draw)
    scene.renewals.cache(KEY, scene.token)
    assert scene.due_at(1000.0) == pytest.approx(1000 + share * 3480, abs=0.5)


@pytest.mark.parametrize(("draw", "share"), [(min, 0.84), (max, 0.96)])
def test_an_unasked_renewal_comes_after_those_that_callers_ask_for(draw: Any, share: float) -> None:
    """The timer counts from now, the share from when the token was fetched."""
    scene = Scene(draw)
    scene.now += 100
    scene.renewals.schedule(WANTED, scene.token)
    ((delay, fire),) = scene.later.due
    assert delay == pytest.approx(share * 3480 - 100)
    fire()
    assert scene.renewed == [WANTED]


def test_a_token_that_is_overdue_is_renewed_at_once() -> None:
    """Another replica's may be old already; a timer has no negative delay. Users' tokens have none."""
    scene = Scene()
    scene.now += 4000
    scene.renewals.schedule(WANTED, scene.token)
    scene.renewals.schedule(WantedToken(b"u" * 32, ON_BEHALF_OF, "scope", "user", 2e9), scene.token)
    assert [delay for delay, _ in scene.later.due] == [0.0]


@pytest.mark.parametrize(("draw", "pause"), [(min, 15.0), (max, 30.0)])
@pytest.mark.parametrize(
    ("error", "least"),
    [
        (None, 0.0),
        (TimeoutError(), 0.0),
        (ProviderError("provider_refused", "no"), 0.0),
        (ProviderError("provider_refused", "no", retry_after=20), 20.0),
        (ProviderError("provider_refused", "no", retry_after=100), 100.0),
    ],
    ids=["unknown", "other", "refused", "throttled", "throttled for longer"],
)
def test_a_failed_renewal_is_due_again(
    draw: Any, pause: float, error: BaseException | None, least: float
) -> None:
    """After 15 to 30 seconds, and not before the provider wants to be asked again."""
    scene = Scene(draw)
    scene.renewals.cache(KEY, scene.token)
    began = scene.due_at(1000.0)
    scene.renewals.failed(WANTED, error)
    assert scene.due_at(began) == pytest.approx(began + max(pause, least), abs=0.5)


@pytest.mark.parametrize(("draw", "pause"), [(min, 2.0), (max, 5.0)])
def test_a_renewal_that_another_replica_makes_is_checked_soon(draw: Any, pause: float) -> None:
    """By the next caller or by the timer, in 2 to 5 seconds; it does not count as unasked."""
    scene = Scene(draw)
    scene.renewals.cache(KEY, scene.token)
    scene.renewals.schedule(WANTED, scene.token)
    began = scene.due_at(1000.0)
    for _ in range(5):
        _, fire = scene.later.due.pop()
        fire()
        scene.renewals.left_to_another(WANTED)
        (delay, _) = scene.later.due[-1]
        assert delay == pause
        began, before = scene.due_at(began), began
        assert began == before + pause
    assert len(scene.renewed) == 5
    for _ in range(2):
        scene.later.due[-1][1]()
    assert len(scene.renewed) == 7
    assert len(scene.renewals) == 1


def test_a_renewal_that_another_replica_makes_takes_nothing_else_from_the_row() -> None:
    """Only that one does not count as unasked; those before it still do."""
    scene = Scene()
    scene.renewals.cache(KEY, scene.token)
    scene.renewals.schedule(WANTED, scene.token)
    renewed = []
    for left_to_another in (False, False, True, False):
        if left_to_another:
            scene.renewals.left_to_another(WANTED)
        scene.later.due[-1][1]()
        renewed.append(len(scene.renewed))
    assert renewed == [1, 2, 3, 3]
    assert len(scene.renewals) == 0


def test_the_number_of_unasked_renewals_in_a_row_is_bounded() -> None:
    """Two; then the token may end, until somebody asks for it again."""
    scene = Scene()
    for _ in range(4):
        scene.renewals.schedule(WANTED, scene.token)
        if scene.later.due:
            scene.later.due.pop()[1]()
    # The third is not made, and what is fetched later begins a new row.
    assert len(scene.renewed) == 3


def test_the_number_of_tokens_that_are_renewed_unasked_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is not, and those that are stay so."""
    monkeypatch.setattr(renewal, "MAX_UNASKED", 2)
    scene = Scene()
    for name in (b"a", b"b", b"c", b"a"):
        scene.renewals.schedule(WantedToken(name * 32, CLIENT_CREDENTIALS, "scope"), scene.token)
    assert len(scene.renewals) == 2
    assert len(scene.later.due) == 3


class Cancellable(Later):
    """Timers of which it is known whether they were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_token_has_one_timer() -> None:
    """A new one replaces the old; closing cancels the rest."""
    scene = Scene()
    timers = Cancellable()
    scene.renewals._timing = Timing(monotonic=lambda: scene.now, uniform=min, call_later=timers)
    for name in (b"a", b"b", b"a"):
        scene.renewals.schedule(WantedToken(name * 32, CLIENT_CREDENTIALS, "scope"), scene.token)
    assert timers.cancelled == 1
    scene.renewals.close()
    assert timers.cancelled == 3
    assert len(scene.renewals) == 0


@pytest.mark.parametrize("code", ["dns_failed", "connect_failed", "timed_out", "answer_incomplete"])
async def test_a_request_that_may_succeed_now_is_repeated(code: str) -> None:
    """Every way in which a connection fails for a moment; after a pause that chance draws."""
    for draw, pause in ((min, 0.05), (max, 0.25)):
        world = World(uniform=draw)
        world.http.script = [HttpFailure(code, "no")]
        assert (await world.client.acquire("a:b:c")).access_token == "token-2"
        assert world.pauses == [pause]


@pytest.mark.parametrize(
    ("status", "requests"), [(400, 1), (401, 1), (407, 1), (408, 2), (409, 1), (428, 1), (429, 2), (430, 1)]
)
async def test_which_statuses_are_worth_another_request(status: int, requests: int) -> None:
    """408, 429, and all from 500 on (below)."""
    world = World()
    world.http.script = [failed(status)] * 2
    with pytest.raises(ProviderError):
        await world.client.acquire("a:b:c")
    assert len(world.http.forms) == requests


@pytest.mark.parametrize(("status", "requests"), [(499, 1), (500, 2), (501, 2), (599, 2)])
async def test_every_failure_of_the_server_is_worth_another_request(status: int, requests: int) -> None:
    """From 500 on, and not before."""
    await test_which_statuses_are_worth_another_request(status, requests)


@pytest.mark.parametrize(("overall", "requests"), [(0.51, 2), (0.5, 1), (0.3, 1)])
async def test_another_request_needs_time(overall: float, requests: int) -> None:
    """The pause, and at least a quarter of a second after it."""
    world = World(overall_timeout=overall, uniform=max)
    world.http.script = [failed(503)] * 2
    with pytest.raises(ProviderError):
        await world.client.acquire("a:b:c")
    assert len(world.http.forms) == requests
