"""When the provider is asked: retries, renewal, bounds. With scripted HTTP and clocks that stand still.

The same over real sockets is in tests/contract and tests/faults; here is what would need hours, thousands of
requests or chance there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from typing import Any

import pytest

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._provider import back_off, renewal, token_client
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure, HttpResponse
from entra_fast._provider.tokens import FetchedToken, WantedToken
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from support.token_client import TIMED_OUT, ScriptedHttp, World, failed, granted

REFUSED = HttpResponse(400, {"Content-Type": "application/json"}, b'{"error":"invalid_grant"}')
CHALLENGE = '{"access_token":{"acrs":{"value":"c1"}}}'


async def test_a_retry_is_jittered_and_gets_the_time_that_is_left() -> None:
    """The pause is drawn from a range; the second attempt may take what remains of the whole."""
    world = World()
    world.http.script = [TIMED_OUT]
    await world.client.acquire("a:b:c")
    assert world.pauses == [pytest.approx(0.15)]
    assert world.http.allowed == [pytest.approx(5.0), pytest.approx(4.85)]


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
async def test_retries_are_bounded_by_the_setting(max_retries: int, attempts: int) -> None:
    """ENTRA_FAST_HTTP_MAX_RETRIES counts attempts after the first."""
    world = World(max_retries=max_retries)
    world.http.script = [TIMED_OUT] * 10
    with pytest.raises(ProviderError):
        await world.client.acquire("a:b:c")
    assert len(world.http.forms) == attempts


@pytest.mark.parametrize("code", ["tls_failed", "redirected", "answer_too_large", "url_not_allowed"])
async def test_what_would_fail_again_is_not_repeated(code: str) -> None:
    """Only failures that may pass are retried."""
    world = World()
    world.http.script = [HttpFailure(code, "no")]
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c")
    assert (caught.value.code, caught.value.status) == (code, 500)
    assert len(world.http.forms) == 1


async def test_a_retry_after_that_does_not_fit_is_not_waited_for() -> None:
    """The caller learns at once when to retry."""
    world = World()
    world.http.script = [failed(503, "10")]
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c")
    assert caught.value.retry_after == 10
    assert world.pauses == []


async def test_windows_are_bounded() -> None:
    """Throttling of millions of users does not use more and more memory."""
    world = World()
    for i in range(back_off.MAX_WINDOWS + 50):
        world.http.script = [failed(429, "3600")]
        with pytest.raises(ProviderError):
            await world.client.exchange(f"api://a{i}/.default", f"opaque-{i}")
    assert len(world.windows) == len(world.windows._targets) == back_off.MAX_WINDOWS
    assert len(world.client._failures) == token_client.MAX_REFUSALS
    assert not world.windows._queues
    # A traceback would keep frames alive, and with them the users' tokens.
    kept = [window._error for _, window in world.windows._tokens._entries.values()]
    kept += [error for _, error in world.client._failures._entries.values()]
    assert all(error.__traceback__ is None for error in kept)


async def test_windows_that_have_ended_are_forgotten() -> None:
    """Even if the same token is never requested again; open ones stay."""
    world = World()
    for i in range(100):
        world.http.script = [failed(429, "1" if i % 2 else "10")] * 2
        with pytest.raises(ProviderError):
            await world.client.exchange(f"api://a{i}/.default", f"opaque-{i}")
        world.pass_time(1)
        assert len(world.windows) <= 11
        assert len(world.windows._targets) <= 11
    assert sum(end > world.monotonic for end, _ in world.windows._tokens._entries.values()) >= 2


async def test_fetches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More different tokens at once than the limit are refused, and are served when there is room."""
    monkeypatch.setattr(token_client, "MAX_FETCHES", 5)
    world = World()
    world.http.gate = asyncio.Event()
    waiting = [
        asyncio.ensure_future(world.client.acquire(f"api://a{i}/.default"))
        for i in range(token_client.MAX_FETCHES)
    ]
    await asyncio.sleep(0)
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("api://one-more/.default")
    error = caught.value
    assert (error.code, error.status, error.retry_after) == ("too_many_fetches", 503, 1)
    joined = asyncio.ensure_future(world.client.acquire("api://a0/.default"))
    world.http.gate.set()
    await asyncio.gather(*waiting, joined)
    assert (await world.client.acquire("api://one-more/.default")).access_token


async def test_cancelled_callers_leave_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    """All callers are cancelled: the fetch completes without them, and its failure is not an unhandled
    exception."""
    world = World()
    world.http.gate = asyncio.Event()
    world.http.script = [failed(400)]
    callers = [asyncio.ensure_future(world.client.acquire("a:b:c")) for _ in range(3)]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert world.client.in_flight == 1
    world.http.gate.set()
    await world.settle()
    assert world.client.in_flight == 0
    assert caplog.records == []


async def test_a_seldom_used_token_is_renewed_unasked() -> None:
    """An application that asks once an hour never waits; one that has stopped asking is forgotten."""
    world = World()
    await world.client.acquire("a:b:c")
    for renewals in (1, 2):
        delay, fire = world.later.due.pop()
        assert delay == pytest.approx(0.9 * 3480)
        world.pass_time(delay)
        fire()
        await world.settle()
        assert len(world.http.forms) == 1 + renewals
    assert (await world.client.acquire("a:b:c")).access_token == "token-3"  # from the cache; counts as asking
    for renewals in (3, 4):
        delay, fire = world.later.due.pop()
        world.pass_time(delay)
        fire()
        await world.settle()
        assert len(world.http.forms) == 1 + renewals
    delay, fire = world.later.due.pop()
    world.pass_time(delay)
    fire()
    await world.settle()
    assert len(world.http.forms) == 5
    assert len(world.client._renewals) == 0


@pytest.mark.parametrize("way", ["acquire", "cached", "renew"])
async def test_every_way_of_asking_keeps_a_token_in_use(way: str) -> None:
    """The token of an application that asks once in a while is renewed unasked for as long as it asks."""
    world = World()
    await world.client.acquire("a:b:c")
    for renewals in range(1, 6):
        _, fire = world.later.due.pop()
        world.pass_time(0.9 * 3480)
        fire()
        await world.settle()
        assert len(world.http.forms) == 1 + renewals
        if way == "acquire":
            await world.client.acquire("a:b:c")
        elif way == "cached":
            assert world.client.cached("a:b:c") is not None
        else:
            world.http.gate = asyncio.Event()
            world.client.renew("a:b:c")
            await asyncio.sleep(0)
            world.http.script = [failed(400)]
            world.http.forms.clear()
            world.http.forms += [{}] * (1 + renewals)
            world.http.gate.set()
            await world.settle()
            world.pass_time(token_client.REFUSAL_MEMORY)
            world.http.gate = None


async def test_a_thousand_tokens_are_not_renewed_unasked_at_once() -> None:
    """An application that fetches a thousand tokens at its start and asks for none of them again: the
    provider is asked a few times a second, over minutes."""
    chance = random.Random(5)
    world = World(uniform=chance.uniform)
    for i in range(renewal.MAX_UNASKED):
        await world.client.acquire(f"api://a{i}/.default")
    due = Counter(int(delay) for delay, _ in world.later.due)
    assert sum(due.values()) == renewal.MAX_UNASKED
    assert max(due.values()) <= 10
    assert 3480 * renewal.RENEWAL_SPREAD[1] < min(due) < max(due) < 3480


async def test_finding_the_endpoints_is_bounded_by_the_overall_timeout() -> None:
    """The discovery document never comes: the caller gets an error when its time is over, and the request for
    the document continues for the next caller."""
    held = asyncio.Event()
    documents: list[str] = []

    class HoldsDocumentBack(ScriptedHttp):
        async def get(self, url: str, **_: Any) -> HttpResponse:
            documents.append(url)
            await held.wait()
            return HttpResponse(503, {}, b"")

    def unknown(provider: ProviderSettings, _: HttpClient, metrics: Metrics) -> EndpointFinder:
        well_known = "https://login.example/discovery"
        changed = dataclasses.replace(provider, token_endpoint=None, well_known_url=well_known)
        return EndpointFinder(changed, HoldsDocumentBack(), metrics)

    world = World(overall_timeout=0.01, finder=unknown)
    async with asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                await world.client.acquire("a:b:c")
            assert (caught.value.code, caught.value.status) == ("endpoints_unknown", 500)
    assert len(documents) == 1
    held.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_users_tokens_are_not_renewed_unasked() -> None:
    """No user's token is kept for later."""
    world = World()
    await world.client.exchange("a:b:c", "opaque")
    assert world.later.due == []


async def test_a_renewal_that_fails_is_tried_again_after_a_while() -> None:
    """Neither at once nor never."""
    world = World()
    await world.client.acquire("a:b:c")
    world.pass_time(3000)
    world.http.script = [failed(400)]
    for _ in range(5):
        assert (await world.client.acquire("a:b:c")).access_token == "token-1"
        await world.settle()
    assert len(world.http.forms) == 2
    world.pass_time(renewal.RENEWAL_RETRY_PAUSE[1])
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    await world.settle()
    assert (await world.client.acquire("a:b:c")).access_token == "token-3"


async def test_a_renewal_waits_for_as_long_as_the_provider_wants() -> None:
    """No probe is made for a token that is still valid."""
    world = World()
    await world.client.acquire("a:b:c")
    world.pass_time(2500)
    world.http.script = [failed(503, "100")]
    requests = []
    for seconds in (0, 99, 1):
        world.pass_time(seconds)
        assert (await world.client.acquire("a:b:c")).access_token == "token-1"
        await world.settle()
        requests.append(len(world.http.forms))
    assert requests == [2, 2, 3]


async def test_a_renewal_that_closing_ends_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """In the metrics; nothing is logged about it."""
    world = World()
    await world.client.acquire("a:b:c")
    world.http.gate = asyncio.Event()
    world.client.renew("a:b:c")
    await asyncio.sleep(0)
    await world.client.aclose()
    await world.settle()
    assert world.metrics.renewals.value("failed", "entra_id") == 1
    assert caplog.records == []


async def test_renewal_from_outside() -> None:
    """The fast path answers from the cache without the client, and can have a token renewed."""
    world = World()
    await world.client.acquire("a:b:c")
    world.client.renew("api://a.b.c/.default")
    world.client.renew("a:b:c")  # the same token: one fetch
    world.client.renew('"no target"')
    world.client.renew("a:b:c", "no token ")
    await world.settle()
    assert (await world.client.acquire("a:b:c")).access_token == "token-2"
    assert world.metrics.renewals.value("ok", "entra_id") == 1


async def test_the_lifetime_of_a_token_is_counted_from_its_request() -> None:
    """A slow answer does not extend it."""
    world = World()

    async def slow(*_: object, **__: object) -> HttpResponse:
        world.pass_time(3)
        return granted(expires_in=100)

    world.http.post_form = slow  # type: ignore[method-assign]
    assert (await world.client.acquire("a:b:c")).expires_in == 97


async def test_what_identifies_a_token() -> None:
    """A table of what is the same request and what is not."""
    same = [("a:b:c", "a:b:c"), ("a:b:c", "api://a.b.c/.default")]
    different = [("a:b:c", "a:b:d"), ("api://x/.default", "https://x/.default"), ("api://x/a", "api://x/A")]
    for first, second in same:
        world = World()
        await world.client.acquire(first)
        await world.client.acquire(second)
        assert len(world.http.forms) == 1
    for first, second in different:
        world = World()
        await world.client.acquire(first)
        await world.client.acquire(second)
        assert len(world.http.forms) == 2


async def test_closing_ends_what_is_under_way() -> None:
    """Callers that still wait are cancelled, nothing is left behind."""
    world = World()
    world.http.gate = asyncio.Event()
    caller = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    await world.client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert world.client.in_flight == 0


async def test_closing_ends_renewals() -> None:
    """No timer asks for a token after that."""
    world = World()
    await world.client.acquire("a:b:c")
    assert len(world.client._renewals) == 1
    await world.client.aclose()
    assert len(world.client._renewals) == 0


async def test_closing_forgets_a_fetch_that_has_not_begun() -> None:
    """It does not count towards the limit of fetches for ever."""
    world = World()
    caller = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)  # the caller has begun, its fetch has not
    assert len(world.client._under_way) == 1
    await world.client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert world.client._under_way == {}
    assert world.http.forms == []


async def test_a_fetch_that_begins_while_the_client_closes_ends_like_any_other() -> None:
    """Its caller gets the token; those before it are cancelled."""
    world = World()
    world.http.gate = asyncio.Event()
    first = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(world.client.aclose())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await closing
    world.http.gate.set()
    assert (await second).access_token == "token-2"
    assert first.cancelled()


async def test_what_a_request_may_be_answered_with() -> None:
    """A sidecar is told whether a token from its cache does."""
    world = World()
    told: list[bool] = []
    original = world.endpoint.request

    async def request(wanted: WantedToken, deadline: float, *, new: bool) -> FetchedToken:
        told.append(new)
        return await original(wanted, deadline, new=new)

    world.endpoint.request = request  # type: ignore[method-assign, assignment]
    await world.client.acquire("a:b:c")
    await world.client.acquire("a:b:c", skip_cache=True)
    await world.client.acquire("a:b:c", claims=CHALLENGE)
    world.client.renew("a:b:c")
    await world.settle()
    assert told == [False, True, True, False]


async def test_each_grant_is_counted_as_what_it_is() -> None:
    """In the metrics, and in the form that is sent: a challenge goes with either."""
    world = World()
    await world.client.acquire("a:b:c")
    await world.client.exchange("a:b:c", "opaque", claims=CHALLENGE)
    await world.client.exchange("a:b:c", "opaque")
    assert world.metrics.upstream.value("client_credentials", "ok", "entra_id") == 1
    assert world.metrics.upstream.value("on_behalf_of", "ok", "entra_id") == 2
    assert [form.get("claims") for form in world.http.forms] == [None, CHALLENGE, None]
    assert [form.get("assertion") for form in world.http.forms] == [None, "opaque", "opaque"]
    assert {form["scope"] for form in world.http.forms} == {"api://a.b.c/.default"}
    assert {(form["client_id"], form["client_secret"]) for form in world.http.forms} == {("client", "secret")}


async def test_expires_in_counts_from_the_request() -> None:
    """Of a token that was fetched just now, and of one from the cache."""
    world = World()
    assert (await world.client.acquire("a:b:c")).expires_in == 3600
    world.pass_time(10.5)
    assert (await world.client.acquire("a:b:c")).expires_in == 3589
    assert world.http.forms[1:] == []


async def test_equal_challenges_are_one_request() -> None:
    """Callers that come while it is under way share its answer; other challenges are asked for by themselves,
    and each time again."""
    world = World()
    challenges = (CHALLENGE, CHALLENGE, '{"userinfo":{}}')
    tokens = await asyncio.gather(*(world.client.acquire("a:b:c", claims=claims) for claims in challenges))
    assert tokens[0] == tokens[1] != tokens[2]
    assert [form["claims"] for form in world.http.forms] == [CHALLENGE, '{"userinfo":{}}']
    await world.client.acquire("a:b:c", claims=CHALLENGE)
    assert len(world.http.forms) == 3


@pytest.mark.parametrize("claims", ["", "[]", "null", "{", '"text"', '{"a":"' + "x" * 20_000 + '"}'])
async def test_a_challenge_that_is_no_json_object_is_not_sent(claims: str) -> None:
    """The caller learns what is expected."""
    world = World()
    for attempt in (
        world.client.acquire("a:b:c", claims=claims),
        world.client.exchange("a:b:c", "u", claims=claims),
    ):
        with pytest.raises(EntraFastError) as caught:
            await attempt
        assert caught.value.code == "claims_invalid"
        assert "must be a JSON object of at most" in caught.value.message
    assert world.http.forms == []


async def test_a_challenge_of_the_greatest_size_is_sent() -> None:
    """The bound is part of what is allowed."""
    world = World()
    largest = '{"a":"' + "x" * (_native.MAX_CLAIMS_BYTES - 8) + '"}'
    await world.client.acquire("a:b:c", claims=largest)
    assert world.http.forms[0]["claims"] == largest
    with pytest.raises(EntraFastError):
        await world.client.acquire("a:b:c", claims=largest + " ")


async def test_a_window_repeats_the_providers_own_error() -> None:
    """Code, sentence, status and OAuth error are those of the answer that opened it; the time is what is
    left."""
    world = World()
    body = (
        b'{"error":"temporarily_unavailable","error_description":"AADSTS90055: busy","error_codes":[90055]}'
    )
    world.http.script = [HttpResponse(429, {"Content-Type": "application/json", "Retry-After": "60"}, body)]
    errors = []
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await world.client.acquire("a:b:c")
        errors.append(caught.value)
        world.pass_time(5.5)
    first, second = errors
    assert (first.error, first.status, first.retry_after, second.retry_after) == (
        "temporarily_unavailable",
        429,
        60,
        55,
    )
    for name in ("code", "message", "status", "error", "details"):
        assert getattr(second, name) == getattr(first, name)
    assert second.details
    assert isinstance(second, back_off.NotAsked)
    assert len(world.http.forms) == 1


async def test_a_renewal_for_which_there_is_no_room_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached token does not justify exceeding the limit of fetches."""
    world = World()
    await world.client.acquire("a:b:c")
    world.pass_time(3000)
    monkeypatch.setattr(token_client, "MAX_FETCHES", 0)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    monkeypatch.undo()
    world.pass_time(renewal.RENEWAL_RETRY_PAUSE[1])
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    await world.settle()
    assert (await world.client.acquire("a:b:c")).access_token == "token-2"


async def test_a_refusal_of_a_new_token_is_not_hidden_by_an_old_one() -> None:
    """skip_cache asks for a new token; other failures leave the valid one."""
    world = World()
    await world.client.acquire("a:b:c")
    refused = HttpResponse(400, {"Content-Type": "application/json"}, b'{"error":"invalid_grant"}')
    world.http.script = [refused, failed(400)]
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c", skip_cache=True)
    assert caught.value.error == "invalid_grant"
    world.pass_time(token_client.REFUSAL_MEMORY)
    token = await world.client.acquire("a:b:c", skip_cache=True)
    assert token.access_token == "token-1"
    assert "token-1" not in repr(token)


@pytest.mark.parametrize(
    ("status", "served"), [(400, False), (403, False), (499, False), (429, True), (500, True), (503, True)]
)
@pytest.mark.parametrize("skip_cache", [True, False])
async def test_which_refusals_a_valid_token_hides(status: int, served: bool, skip_cache: bool) -> None:
    """Those that say nothing about the request; all of them, where no new token was asked for."""
    world = World()
    await world.client.acquire("a:b:c")
    if not skip_cache:
        world.pass_time(3490)  # the token is about to end
    answer = HttpResponse(status, {"Content-Type": "application/json"}, b'{"error":"invalid_grant"}')
    world.http.script = [answer] * 2
    if served or not skip_cache:
        assert (await world.client.acquire("a:b:c", skip_cache=skip_cache)).access_token == "token-1"
        assert world.metrics.stale_served.value("entra_id") == 1
    else:
        with pytest.raises(ProviderError) as caught:
            await world.client.acquire("a:b:c", skip_cache=skip_cache)
        assert (caught.value.status, caught.value.error) == (status, "invalid_grant")
        assert world.metrics.stale_served.value("entra_id") == 0


@pytest.mark.parametrize(
    ("answer", "requests"),
    [(REFUSED, 1), (failed(404), 1), (failed(429), 2), (failed(503), 2), (TIMED_OUT, 2)],
    ids=["refusal", "no OAuth error", "throttled", "5xx", "no answer"],
)
async def test_a_failure_is_remembered_for_a_second(
    answer: HttpResponse | HttpFailure, requests: int
) -> None:
    """Equal requests get the same error, `skip_cache` too; other requests are made, and then this one."""
    world = World()
    world.http.script = [answer] * requests
    errors = []
    for skip_cache in (False, True, False):
        with pytest.raises(ProviderError) as caught:
            await world.client.acquire("a:b:c", skip_cache=skip_cache)
        errors.append(caught.value)
    assert len({(error.code, error.status, error.message) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3
    assert len(world.http.forms) == requests
    await world.client.acquire("a:b:other")
    await world.client.exchange("a:b:c", "opaque")
    world.pass_time(1)
    await world.client.acquire("a:b:c")
    assert len(world.http.forms) == requests + 3


async def test_a_sweep_forgets_what_no_longer_counts() -> None:
    """Refusals, tokens for which callers no longer wait, and challenges that were met: nobody asks for them
    again, and they must not stay for that."""
    world = World()
    world.http.script = [granted(expires_in=1000), failed(400)]
    await world.client.acquire("a:b:c", claims=CHALLENGE)
    world.pass_time(900)
    await world.client.acquire("a:b:c")
    kept = (world.client._failures, world.client._impatient, world.client._challenged)
    world.client.sweep()
    assert [len(entries) for entries in kept] == [1, 1, 1]
    world.pass_time(100)
    world.client.sweep()
    assert [len(entries) for entries in kept] == [0, 0, 0]


async def test_endpoints_that_were_unknown_are_no_failure_of_the_request() -> None:
    """As soon as they are known, the request is made."""
    known: list[str] = []

    class Finds(EndpointFinder):
        async def token_endpoint(self) -> str:
            if not known:
                raise ProviderError("endpoints_unknown", "not known yet")
            return known[0]

    world = World(finder=Finds)
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c")
    assert caught.value.code == "endpoints_unknown"
    known.append("https://login.example/token")
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"


async def test_a_request_that_was_not_sent_is_no_failure() -> None:
    """A credential that could not be read is read again at once."""
    world = World()
    world.endpoint._credentials = _Unreadable(world.endpoint._credentials)  # type: ignore[assignment]
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c")
    assert caught.value.code == "credential_unusable"
    world.endpoint._credentials = world.endpoint._credentials.readable  # type: ignore[attr-defined]
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"


async def test_a_token_that_meets_a_challenge_is_renewed_without_it() -> None:
    """What the cache hands out is renewed as for any caller: the challenge was that of one request."""
    world = World()
    await world.client.acquire("a:b:c", claims=CHALLENGE)
    (_, fire) = world.later.due.pop()
    world.pass_time(0.9 * 3480)
    fire()
    await world.settle()
    assert [form.get("claims") for form in world.http.forms] == [CHALLENGE, None]
    assert (await world.client.acquire("a:b:c")).access_token == "token-2"


async def test_a_refused_challenge_does_not_disturb_the_cached_token() -> None:
    """A renewal that is due is not put off."""
    world = World()
    await world.client.acquire("a:b:c")
    world.pass_time(0.75 * 3480)
    world.http.script = [REFUSED]
    with pytest.raises(ProviderError):
        await world.client.acquire("a:b:c", claims=CHALLENGE)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    await world.settle()
    assert [form.get("claims") for form in world.http.forms] == [None, CHALLENGE, None]
    assert (await world.client.acquire("a:b:c")).access_token == "token-3"


async def test_an_older_request_does_not_replace_the_token_that_meets_a_challenge() -> None:
    """A request without the challenge that began earlier and ends later serves its own callers only."""
    world = World()
    slow, world.http.gate = asyncio.Event(), None
    world.http.gate = slow
    plain = asyncio.ensure_future(world.client.acquire("a:b:c", skip_cache=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(world.http.forms) == 1
    world.pass_time(1)
    world.http.gate = None
    world.http.script = [granted("challenged")]
    assert (await world.client.acquire("a:b:c", claims=CHALLENGE)).access_token == "challenged"
    slow.set()
    assert (await plain).access_token == "token-2"
    assert (await world.client.acquire("a:b:c")).access_token == "challenged"


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_later_request_replaces_the_token_that_meets_a_challenge(seconds: int) -> None:
    """The newest token is the one that everybody gets, even if the clock has not moved on in between."""
    world = World()
    await world.client.acquire("a:b:c", claims=CHALLENGE)
    world.pass_time(seconds)
    new = await world.client.acquire("a:b:c", skip_cache=True)
    assert (await world.client.acquire("a:b:c")).access_token == new.access_token == "token-2"


class _Unreadable:
    def __init__(self, readable: Credentials) -> None:
        self.readable = readable

    def in_order(self) -> tuple[object, ...]:
        return self.readable.in_order()

    def fields(self, *_: object) -> dict[str, str]:
        raise ConfigurationError("setting_unreadable", "the file is gone")


async def test_a_renewal_is_not_tried_within_that_second() -> None:
    """Nor by the fast path's wish, nor by its own timer."""
    world = World()
    await world.client.acquire("a:b:c")
    world.http.script = [REFUSED]
    for _ in range(3):
        world.client.renew("a:b:c")
        await world.settle()
    assert len(world.http.forms) == 2
    world.pass_time(1)
    world.client.renew("a:b:c")
    await world.settle()
    assert len(world.http.forms) == 3


class Stale(World):
    """A client with a token that has 110 s left; the provider is silent."""

    async def begin(self) -> None:
        await self.client.acquire("a:b:c")
        self.pass_time(3490)
        self.http.gate = asyncio.Event()


async def test_a_valid_token_waits_for_no_silent_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller gives the provider a moment; no other one waits, and the fetch goes on behind them."""
    monkeypatch.setattr(token_client, "PATIENCE", 0.01)
    world = Stale()
    await world.begin()
    async with asyncio.timeout(20):
        assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    for _ in range(100):
        with _NoWaiting():
            token = await world.client.acquire("a:b:c")
        assert (token.access_token, token.expires_in) == ("token-1", 110)
    assert len(world.http.forms) == 2
    assert world.metrics.stale_served.value("entra_id") == 101
    assert world.client.in_flight == 1
    assert world.http.gate is not None
    world.http.gate.set()
    await world.settle()
    assert (await world.client.acquire("a:b:c")).access_token == "token-2"


async def test_the_first_caller_waits_for_300_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a provider that answers, and short enough for a caller with a deadline of its own."""
    world = Stale()
    await world.begin()
    limits: list[float | None] = []
    real = asyncio.timeout

    def timeout(seconds: float | None) -> asyncio.Timeout:
        limits.append(seconds)
        return real(0 if len(limits) == 1 else seconds)

    monkeypatch.setattr(asyncio, "timeout", timeout)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert limits[0] == 0.3
    await world.client.aclose()


async def test_the_first_caller_waits_again_once_a_new_token_has_come() -> None:
    """What was seen of the provider before says nothing any more, even if the new token is soon about to
    end."""
    world = Stale()
    await world.begin()
    world.http.gate = None
    world.http.script = [REFUSED, granted("short", expires_in=10), granted("next")]
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    world.pass_time(token_client.REFUSAL_MEMORY)
    assert (await world.client.acquire("a:b:c", skip_cache=True)).access_token == "short"
    world.pass_time(6)
    assert (await world.client.acquire("a:b:c")).access_token == "next"


async def test_callers_that_come_together_do_not_wait_either() -> None:
    """Only the first one does, and gets the new token if it comes in time."""
    world = Stale()
    await world.begin()
    first = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    with _NoWaiting():
        assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert world.http.gate is not None
    world.http.gate.set()
    assert (await first).access_token == "token-2"
    assert len(world.http.forms) == 2


async def test_a_failing_provider_is_asked_again_after_the_retry_pause() -> None:
    """The valid token serves, without a request per caller; then one caller tries again."""
    world = Stale()
    await world.begin()
    world.http.gate = None
    world.http.script = [failed(500)] * 4
    for _ in range(10):
        assert (await world.client.acquire("a:b:c")).access_token == "token-1"
        world.pass_time(1)
    assert len(world.http.forms) == 3
    world.pass_time(renewal.RENEWAL_RETRY_PAUSE[1])
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert len(world.http.forms) == 5
    world.pass_time(renewal.RENEWAL_RETRY_PAUSE[1])
    assert (await world.client.acquire("a:b:c")).access_token == "token-6"


async def test_a_token_that_ends_in_the_meantime_is_waited_for() -> None:
    """Nothing that has ended is handed out: the caller gets the new token, however long it takes."""
    world = Stale()
    await world.begin()
    first = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    world.pass_time(111)
    second = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    assert world.http.gate is not None
    world.http.gate.set()
    assert (await second).access_token == (await first).access_token == "token-2"


async def test_a_token_that_ends_while_its_caller_is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller has waited for its moment in vain; now it waits for the same fetch, for there is nothing
    else."""
    monkeypatch.setattr(token_client, "PATIENCE", 0.01)
    world = Stale()
    await world.begin()
    caller = asyncio.ensure_future(world.client.acquire("a:b:c"))
    await asyncio.sleep(0)
    world.pass_time(111)
    patience_ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, patience_ended.set)
    await patience_ended.wait()
    assert not caller.done()
    assert world.http.gate is not None
    world.http.gate.set()
    assert (await caller).access_token == "token-2"
    assert len(world.http.forms) == 2


class _NoWaiting:
    """What is awaited within must not give way to the event loop."""

    def __enter__(self) -> None:
        self._passed = False
        self._handle = asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._passed = True

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()
        assert not self._passed


async def test_whether_a_token_came_from_the_cache_is_known() -> None:
    """For metrics and the access log: also where the provider fails, and one in its last minute is used."""
    world = World()
    cached = [(await world.client.acquire("a:b:c", skip_cache=skip)).cached for skip in (False, False, True)]
    world.http.script = [failed(400)] * 3
    world.pass_time(3590)
    cached.append((await world.client.acquire("a:b:c")).cached)
    world.pass_time(11)
    world.http.script = []
    cached.append((await world.client.acquire("a:b:c")).cached)
    assert cached == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("check", "last", "first"),
    [
        ("_check_resources", ("x",) * 16, ("x",) * 17),
        ("_check_resources", ("x" * 4096,), ("x" * 4097,)),
        ("_check_resources", ("a", "b"), ("a", "")),
        ("_check_claims", '{"a":"' + "x" * 8_184 + '"}', '{"a":"' + "x" * 8_185 + '"}'),
        ("_check_claims", "{}", "[]"),
        ("_check_authorization_details", "[{}]", "[{},1]"),
        ("_check_authorization_details", "[]", "{}"),
        ("_check_authorization_details", "[]", "["),
    ],
)
def test_the_bounds_of_fields(check: str, last: object, first: object) -> None:
    """Of those that a caller's request has, whatever the provider: the last that passes, and the first that
    does not."""
    checking = getattr(token_client, check)
    checking(last)
    with pytest.raises(EntraFastError) as caught:
        checking(first)
    assert caught.value.code == {"_check_resources": "resource_invalid"}.get(
        check, f"{check.removeprefix('_check_')}_invalid"
    )


def test_what_has_no_form_in_utf_8_does_not_fit() -> None:
    """A lone surrogate, which JSON may escape."""
    assert token_client._fits("\ud800", 100) is False
