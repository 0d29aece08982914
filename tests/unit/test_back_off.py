"""Back-off windows: whom a `Retry-After` stops, and who may try nevertheless. Clocks stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from entra_fast._provider import back_off
from entra_fast._provider.expiring import ExpiringMap
from entra_fast._provider.http_rules import HttpResponse
from entra_fast._provider.tokens import AcquiredToken, WantedToken
from entra_fast.errors import ProviderError
from support.token_client import World, failed, granted

TARGET = "api://dev.team.app/.default"
OTHER = "api://dev.team.other/.default"


class Throttled(World):
    """A client whose provider refuses for `seconds`, or issues tokens where that is None; or holds the
    answers back until the test gives them."""

    def __init__(self, seconds: int | None = 60, **outbound: Any) -> None:
        super().__init__(**outbound)
        self.seconds = seconds
        self.holds = False
        self.held: list[asyncio.Future[HttpResponse]] = []
        self._asked = 0
        self.http.post_form = self._post_form  # type: ignore[method-assign]

    async def _post_form(self, *_: object, **__: object) -> HttpResponse:
        self._asked += 1
        if self.holds:
            self.held.append(asyncio.get_running_loop().create_future())
            return await self.held[-1]
        return granted() if self.seconds is None else failed(429, str(self.seconds))

    @property
    def asked(self) -> int:
        """The number of requests since this was last read."""
        count, self._asked = self._asked, 0
        return count

    def call(self, user: str, target: str = TARGET) -> asyncio.Task[AcquiredToken]:
        return asyncio.ensure_future(self.client.exchange(target, user))

    async def refuse(self, *users: str, target: str = TARGET) -> ProviderError:
        """The error that the last of them gets."""
        for user in users:
            error = await refusal(self.client.exchange(target, user))
        return error


async def refusal(call: Awaitable[AcquiredToken]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


async def turns() -> None:
    """Let the event loop do what it can do now."""
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.fixture
def world() -> Throttled:
    return Throttled()


async def test_three_hundred_users_of_a_throttled_target_cause_twelve_requests(world: Throttled) -> None:
    """The first one is refused for a minute. In that minute, all of them ask at once, every second."""
    await world.refuse("user-0")
    for _ in range(60):
        errors = await asyncio.gather(*(refusal(world.call(f"user-{i}")) for i in range(300)))
        assert {error.status for error in errors} == {429}
        assert all(0 < (error.retry_after or 0) <= 60 for error in errors)
        world.pass_time(1)
    assert 8 <= world.asked <= 12


async def test_a_window_widens_to_the_target_with_the_third_token(world: Throttled) -> None:
    """Two throttled users stop no other one; three do. Another target, and the application's own token, are
    not concerned."""
    await world.refuse("a", "b", "a", "b")
    assert world.asked == 2
    await world.refuse("c")
    assert world.asked == 1
    error = await world.refuse("d")
    assert (error.status, error.retry_after) == (429, 60)
    assert world.asked == 0
    world.seconds = None
    await world.client.exchange(OTHER, "d")
    await world.client.acquire(TARGET)
    assert world.asked == 2


async def test_only_tokens_inside_their_windows_count(world: Throttled) -> None:
    """Four refusals, but never three at once."""
    await world.refuse("a", "b")
    world.pass_time(61)
    await world.refuse("c", "d")
    assert world.asked == 4
    world.seconds = None
    await world.client.exchange(TARGET, "e")
    assert world.asked == 1


async def test_a_target_is_stopped_while_three_tokens_are(world: Throttled) -> None:
    """One user's hour does not stop the target for an hour."""
    world.seconds = 3600
    await world.refuse("a")
    world.seconds = 20
    await world.refuse("b", "c")
    assert (await world.refuse("d")).retry_after == 20
    assert world.asked == 3
    world.pass_time(20)
    world.holds = True
    calls = [world.call(user) for user in "de"]  # the second one would not be made as a probe
    await turns()
    assert len(world.held) == 2
    for held in world.held:
        held.set_result(granted())
    await asyncio.gather(*calls)
    assert (await world.refuse("a")).retry_after == 3580


@pytest.mark.parametrize(("seconds", "pause"), [(60, 10), (300, 30), (3600, 360)])
async def test_probes_are_spaced(world: Throttled, seconds: int, pause: int) -> None:
    """One for each tenth of a window, never closer than 10 s, whichever window it is."""
    world.seconds = seconds
    await world.refuse("a")
    world.pass_time(pause - 1)
    await world.refuse("a")
    assert world.asked == 1
    world.pass_time(1)
    await world.refuse("a", "a", "b", "c")
    assert world.asked == 3
    for user in ("d", "a"):
        world.pass_time(pause - 1)
        await world.refuse("x", user)
        assert world.asked == 0
        world.pass_time(1)
        await world.refuse(user, "x", "y")
        assert world.asked == 1


async def test_a_probe_that_succeeds_opens_the_target(world: Throttled) -> None:
    """Tokens that were refused themselves keep their windows, and refusals are counted again."""
    await world.refuse("a", "b", "c")
    world.pass_time(10)
    world.seconds = None
    await world.client.exchange(TARGET, "d")
    await world.client.exchange(TARGET, "e")
    assert world.asked == 5
    world.seconds = 60
    await world.refuse("f", "g", "h", "i")
    assert world.asked == 3


async def test_a_probe_that_succeeds_ends_the_tokens_own_window(world: Throttled) -> None:
    """The next request for it is made at once, and a later refusal of others does not count it."""
    await world.refuse("a", "b")
    world.pass_time(10)
    world.seconds = None
    for _ in range(2):
        await world.client.exchange(TARGET, "a")
    assert world.asked == 4
    world.seconds = 60
    await world.refuse("c")
    world.seconds = None
    await world.client.exchange(TARGET, "d")
    assert world.asked == 2


async def test_four_are_in_flight_for_as_long_as_a_refused_token_is_inside_its_window(
    world: Throttled,
) -> None:
    """Also after a probe has opened the target, whose other tokens were refused."""
    await world.refuse("a", "b", "c")
    world.pass_time(10)
    world.seconds = None
    await world.client.exchange(TARGET, "d")
    assert world.asked == 4
    world.holds = True
    world.pass_time(49)
    calls = [world.call(f"user-{i}") for i in range(7)]
    await turns()
    assert len(world.held) == back_off.MAX_IN_FLIGHT
    world.pass_time(1)
    world.held[0].set_result(granted())
    await turns()
    assert len(world.held) == 7
    for held in world.held[1:]:
        held.set_result(granted())
    await asyncio.gather(*calls)


async def test_a_request_that_was_sent_before_proves_nothing(world: Throttled) -> None:
    """Of four in flight three are refused, and the fourth succeeds: the target stays closed."""
    world.holds = True
    calls = [world.call(user) for user in "abcd"]
    await turns()
    for held in world.held[:3]:
        held.set_result(failed(429, "60"))
    await turns()
    world.held[3].set_result(granted())
    await asyncio.gather(*calls, return_exceptions=True)
    assert world.asked == 4
    await world.refuse("e")
    assert world.asked == 0


async def test_four_requests_are_in_flight_while_a_token_is_inside_a_window(world: Throttled) -> None:
    """The others wait for their turn. Requests for another target do not."""
    await world.refuse("a")
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(10)]
    await turns()
    assert len(world.held) == back_off.MAX_IN_FLIGHT
    elsewhere = world.call("a", OTHER)
    await turns()
    assert len(world.held) == back_off.MAX_IN_FLIGHT + 1
    for i in range(11):
        world.held[i].set_result(granted())
        await turns()
        assert sum(not held.done() for held in world.held) <= back_off.MAX_IN_FLIGHT + (i < 4)
    await asyncio.gather(*calls, elsewhere)
    assert world.asked == 12
    assert not world.windows._queues


async def test_a_request_that_ends_makes_room_for_one(world: Throttled) -> None:
    """The next one that waits has taken its place, so that one that comes later waits as well."""
    await world.refuse("a")
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(back_off.MAX_IN_FLIGHT + 1)]
    await turns()
    world.held[0].set_result(granted())
    await turns()
    assert len(world.held) == back_off.MAX_IN_FLIGHT + 1
    calls.append(world.call("late"))
    await turns()
    assert len(world.held) == back_off.MAX_IN_FLIGHT + 1
    for i in range(1, len(calls)):
        world.held[i].set_result(granted())
        await turns()
    await asyncio.gather(*calls)


async def test_those_that_wait_are_refused_when_the_window_widens(world: Throttled) -> None:
    """Nobody waits for a turn that no longer comes."""
    await world.refuse("a")
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(100)]
    await turns()
    for held in world.held[:2]:
        held.set_result(failed(429, "60"))
    async with asyncio.timeout(20):
        errors = [await refusal(call) for call in calls if call not in calls[2:4]]
    assert {error.status for error in errors} == {429}
    for held in world.held[2:]:
        held.set_result(granted())
    await asyncio.gather(*calls, return_exceptions=True)
    assert world.asked == 5


async def test_all_go_on_when_the_window_has_ended(world: Throttled) -> None:
    """The limit ends with the window."""
    await world.refuse("a")
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(50)]
    await turns()
    world.pass_time(60)
    world.held[0].set_result(granted())
    await turns()
    await turns()
    assert len(world.held) == 50
    for held in world.held[1:]:
        held.set_result(granted())
    await asyncio.gather(*calls)


async def test_the_limit_ends_with_the_last_window_that_is_left(world: Throttled) -> None:
    """The longest one has ended early, because its token was issued in a probe."""
    world.seconds = 100
    await world.refuse("a")
    world.seconds = 60
    await world.refuse("b")
    world.pass_time(10)
    world.seconds = None
    await world.client.exchange(TARGET, "a")
    world.pass_time(50)
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(back_off.MAX_IN_FLIGHT + 2)]
    await turns()
    assert len(world.held) == len(calls)
    for held in world.held:
        held.set_result(granted())
    await asyncio.gather(*calls)


async def test_waiting_for_a_turn_is_bounded() -> None:
    """By the overall timeout, like everything that a caller waits for; those that went away take no turn."""
    world = Throttled(overall_timeout=0.01)
    await world.refuse("a")
    world.holds = True
    calls = [world.call(f"user-{i}") for i in range(6)]
    async with asyncio.timeout(20):
        errors = [await refusal(call) for call in calls[4:]]
    assert {(error.code, error.status, error.retry_after) for error in errors} == {
        ("too_many_fetches", 503, 1)
    }
    for held in world.held:
        held.set_result(granted())
    await asyncio.gather(*calls[:4])
    assert world.asked == 5
    assert not world.windows._queues


async def test_three_throttled_targets_stop_the_client(world: Throttled) -> None:
    """No request at all, but for the probes; one that succeeds opens what was not refused itself."""
    for name in "abc":
        await refusal(world.client.acquire(f"api://{name}/.default"))
    assert world.asked == 3
    await refusal(world.client.acquire("api://d/.default"))
    await world.refuse("user")
    assert world.asked == 0
    world.pass_time(10)
    world.seconds = None
    await world.client.acquire("api://d/.default")
    await world.client.exchange(TARGET, "user")
    assert world.asked == 2
    world.seconds = 60
    for name in "efg":
        await refusal(world.client.acquire(f"api://{name}/.default"))
    assert world.asked == 3
    await refusal(world.client.acquire("api://h/.default"))
    assert world.asked == 0


async def test_two_throttled_targets_do_not_stop_the_client(world: Throttled) -> None:
    """A third one is asked; and one that recovers no longer counts."""
    for name in "ab":
        await refusal(world.client.acquire(f"api://{name}/.default"))
    world.pass_time(10)
    world.seconds = None
    await world.client.acquire("api://a/.default")
    world.seconds = 60
    await refusal(world.client.acquire("api://c/.default"))
    world.seconds = None
    await world.client.acquire("api://d/.default")
    assert world.asked == 5


def for_customer(scope: str, customer: str | None) -> WantedToken:
    """A token of Maskinporten: for a customer, or for the application itself."""
    details = None if customer is None else f'[{{"customer":"{customer}"}}]'
    key = f"{scope} {customer}".encode()
    return WantedToken(key, "jwt_bearer", scope, authorization_details=details)


async def test_one_customers_trouble_stops_no_other_customer_of_the_scope() -> None:
    """An application's own tokens differ by resource and authorization details: the third one that is
    refused stops the scope, and one stops itself alone."""
    now = 1000.0
    windows = back_off.BackOffWindows(lambda: now)
    asked = []

    async def ask(wanted: WantedToken, *, refused: bool = False) -> None:
        async def attempt(_: float) -> None:
            asked.append(wanted.key)
            if refused:
                raise ProviderError("provider_failed", "slow down", 429, retry_after=60)

        await windows.run(wanted, now + 5, attempt)

    with pytest.raises(ProviderError):
        await ask(for_customer("a", "1"), refused=True)
    for customer in ("2", None):
        await ask(for_customer("a", customer))
    for customer in ("2", None):
        with pytest.raises(ProviderError):
            await ask(for_customer("a", customer), refused=True)
    assert len(asked) == 5
    with pytest.raises(back_off.NotAsked):
        await ask(for_customer("a", "3"))
    await ask(for_customer("b", "3"))
    assert len(asked) == 6


async def test_the_application_s_own_refusal_is_one_of_the_target() -> None:
    """Three scopes whose only token is refused stop the client; tokens for customers of three scopes do
    not."""
    now = 1000.0
    windows = back_off.BackOffWindows(lambda: now)

    async def throttled(_: float) -> None:
        raise ProviderError("provider_failed", "slow down", 429, retry_after=60)

    async def issued(_: float) -> None:
        pass

    for scope in "abc":
        with pytest.raises(ProviderError):
            await windows.run(for_customer(scope, "1"), now + 5, throttled)
    await windows.run(for_customer("d", None), now + 5, issued)
    for scope in "efg":
        with pytest.raises(ProviderError):
            await windows.run(for_customer(scope, None), now + 5, throttled)
    with pytest.raises(back_off.NotAsked):
        await windows.run(for_customer("d", None), now + 5, issued)


async def test_one_users_trouble_stops_no_other_user(world: Throttled) -> None:
    """Not even at all targets at once."""
    for i in range(10):
        await world.refuse("a", target=f"api://a{i}/.default")
    world.seconds = None
    await world.client.exchange("api://a0/.default", "b")
    await world.client.exchange("api://new/.default", "a")
    assert world.asked == 12


def test_a_whole_is_stopped_for_as_long_as_enough_members_are() -> None:
    """Those that are stopped for the longest time count, whatever their names and order."""
    refusals: back_off._Refusals[int] = back_off._Refusals(3)
    for member, end in ((1, 100.0), (2, 50.0), (3, 10.0), (4, 40.0)):
        refusals.add(member, ProviderError("provider_refused", "no"), end, now=0.0)
    assert refusals.window is not None
    assert refusals.window.end == 40.0
    assert refusals.end == 100.0


def test_a_refusal_that_asks_for_no_pause_does_not_reopen_the_whole() -> None:
    """`Retry-After: 0` for one of three members: it is stopped no longer, and the others' window stays."""
    refusals: back_off._Refusals[int] = back_off._Refusals(3)
    error = ProviderError("provider_refused", "no")
    for member, end in ((1, 100.0), (2, 50.0), (3, 40.0)):
        refusals.add(member, error, end, now=0.0)
    refusals.add(3, error, 10.0, now=10.0)
    assert refusals.window is not None
    assert refusals.window.end == 40.0


def test_an_expiring_map_is_bounded_and_forgets() -> None:
    """Expired entries are not found, and go when others come; of too many, the oldest goes."""
    now = 0.0
    entries: ExpiringMap[str, int] = ExpiringMap(3, lambda: now)
    for name, end in (("a", 10.0), ("b", 1.0), ("c", 20.0)):
        entries.put(name, 1, end)
    now = 1.0
    assert entries.get("b") is None
    assert len(entries) == 2
    for name in ("d", "e"):
        entries.put(name, 2, 30.0)
    assert (entries.get("a"), entries.get("c"), entries.get("e"), len(entries)) == (None, 1, 2, 3)
    now = 20.0
    entries.put("f", 3, 40.0)
    assert len(entries) == 3
    entries.discard("f")
    entries.discard("f")
    assert entries.get("f") is None


def test_an_expiring_map_drops_what_was_put_first() -> None:
    """An entry that is put again counts as new, whatever its end; what ends now has ended."""
    now = 0.0
    entries: ExpiringMap[str, int] = ExpiringMap(2, lambda: now)
    for name, end in (("a", 9.0), ("b", 20.0), ("a", 10.0), ("c", 20.0)):
        entries.put(name, 1, end)
    assert (entries.get("a"), entries.get("b"), entries.get("c")) == (1, None, 1)
    now = 10.0
    entries.put("d", 1, 30.0)
    assert len(entries) == 2
    assert entries.get("c") == 1


def test_what_ends_now_makes_room_at_once() -> None:
    """An entry that nobody asks for again does not stay until there are too many."""
    now = 0.0
    entries: ExpiringMap[str, int] = ExpiringMap(10, lambda: now)
    for name, end in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        entries.put(name, 1, end)
    now = 2.0
    entries.put("d", 1, 4.0)
    assert len(entries) == 2


def test_a_sweep_of_an_expiring_map_leaves_what_has_not_ended() -> None:
    """In whatever order the ends are."""
    now = 0.0
    entries: ExpiringMap[str, int] = ExpiringMap(10, lambda: now)
    for name, end in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        entries.put(name, 1, end)
    now = 2.0
    entries.sweep()
    assert len(entries) == 1
    assert entries.get("a") == 1


async def test_a_sweep_forgets_windows_that_have_ended(world: Throttled) -> None:
    """Those of tokens and those of targets; an open one still stops its token."""
    await world.refuse("a")
    world.pass_time(55)
    await world.refuse("b", target=OTHER)
    world.pass_time(5)
    world.client.sweep()
    assert (len(world.windows), len(world.windows._targets)) == (1, 1)
    assert world.asked == 2
    await world.refuse("b", target=OTHER)
    assert world.asked == 0
    world.pass_time(55)
    world.client.sweep()
    assert (len(world.windows), len(world.windows._targets)) == (0, 0)
