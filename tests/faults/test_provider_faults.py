"""The provider is slow, broken, throttling or wrong: one test for each behaviour that must follow.

Connections to the provider are kept alive, so a fault of the next connection is set after those that exist
have been cut (`cut`).
"""

from __future__ import annotations

import asyncio
import email.utils
import time

import pytest

from support.network import TcpProxy, black_hole, reset_after, reset_at_once, truncate_after
from support.provider import Provider, Script, after, granting, raw, refuse, reset, segment
from support.sidecars import Started, StartSidecar, eventually

TARGET = "api://dev-gcp.team.app/.default"
OTHER = "api://dev-gcp.team.other/.default"
QUICK = {
    "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS": "150",
    "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS": "150",
    "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS": "1500",
}


async def cut(network: TcpProxy) -> None:
    """End all connections to the provider, and count from now on."""
    await network.stop()
    await network.start()
    network.connections = 0


async def ready(start: StartSidecar, network: TcpProxy, **changes: str) -> Started:
    sidecar = await start(**{**QUICK, **changes})
    await cut(network)
    return sidecar


@pytest.mark.parametrize(
    "fault",
    [reset_at_once, reset_after(1), reset_after(250), truncate_after(0), truncate_after(250), black_hole],
    ids=["reset", "reset in the head", "reset in mid-body", "closed", "truncated in mid-body", "black hole"],
)
async def test_one_fault_is_retried_with_a_new_assertion(
    start: StartSidecar, provider: Provider, network: TcpProxy, fault: object
) -> None:
    """A connection that breaks at any point costs one retry, and the application notices nothing."""
    sidecar = await ready(start, network)
    network.faults.append(fault)  # type: ignore[arg-type]
    assert (await sidecar.call.token(TARGET)).status == 200
    assert network.connections == 2
    ids = [segment(recorded.form["client_assertion"], 1)["jti"] for recorded in provider.requests]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (reset_at_once, "answer_incomplete"),
        (truncate_after(250), "answer_incomplete"),
        (black_hole, "timed_out"),
    ],
)
async def test_a_lasting_fault_is_an_error_after_one_retry(
    start: StartSidecar, provider: Provider, network: TcpProxy, fault: object, outcome: str
) -> None:
    """500 server_error after two attempts, and the metric says what went wrong."""
    sidecar = await ready(start, network)
    network.always = fault  # type: ignore[assignment]
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert network.connections == 2
    series = f'entra_fast_upstream_requests_total{{grant="client_credentials",outcome="{outcome}"}}'
    assert await sidecar.metric(series) == 2


async def test_a_refused_connection_is_an_error_that_says_so(start: StartSidecar, network: TcpProxy) -> None:
    """The provider is down."""
    sidecar = await ready(start, network)
    await network.stop()
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert "Connection refused" in answered.json["error_description"]


async def test_the_overall_deadline_bounds_all_attempts(
    start: StartSidecar, provider: Provider, network: TcpProxy
) -> None:
    """When the first attempt used up the time, there is no second one."""
    sidecar = await ready(
        start,
        network,
        ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS="5000",
        ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS="300",
        ENTRA_FAST_HTTP_MAX_RETRIES="5",
    )
    network.always = black_hole
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert network.connections == 1


async def test_waiters_share_the_retry(start: StartSidecar, provider: Provider, network: TcpProxy) -> None:
    """Twenty callers, one fault: two attempts, twenty answers."""
    sidecar = await ready(start, network)
    network.faults.append(black_hole)
    answers = await asyncio.gather(*(sidecar.call.token(TARGET) for _ in range(20)))
    assert {answered.status for answered in answers} == {200}
    assert network.connections == 2


async def test_waiters_share_the_failure(start: StartSidecar, provider: Provider, network: TcpProxy) -> None:
    """Twenty callers of a dead provider: two attempts, not forty."""
    sidecar = await ready(start, network)
    network.always = black_hole
    answers = await asyncio.gather(*(sidecar.call.token(TARGET) for _ in range(20)))
    assert {answered.status for answered in answers} == {500}
    assert network.connections == 2


@pytest.mark.parametrize("skip_cache", [False, True])
async def test_a_valid_cached_token_beats_an_error(
    start: StartSidecar, provider: Provider, network: TcpProxy, skip_cache: bool
) -> None:
    """In its last two minutes a token is still returned; after its expiry it is not."""
    sidecar = await start(**QUICK)
    first = await sidecar.call.token(TARGET)
    await cut(network)
    network.always = reset_at_once
    sidecar.clock.advance(3600 - 60)
    stale = await sidecar.call.token(TARGET, skip_cache=skip_cache)
    assert stale.json["access_token"] == first.json["access_token"]
    assert 0 < stale.json["expires_in"] <= 60
    assert await sidecar.metric("entra_fast_stale_tokens_served_total") == 1
    sidecar.clock.advance(61)
    assert (await sidecar.call.token(TARGET, skip_cache=skip_cache)).status == 500


async def test_a_failed_renewal_leaves_the_cached_token(
    start: StartSidecar, provider: Provider, network: TcpProxy
) -> None:
    """Callers do not notice failing renewals, and one failure does not cause a storm of them."""
    sidecar = await start(**QUICK)
    first = await sidecar.call.token(TARGET)
    await cut(network)
    network.always = reset_at_once
    sidecar.clock.advance(3000)
    for _ in range(20):
        assert (await sidecar.call.token(TARGET)).json["access_token"] == first.json["access_token"]

    async def idle() -> bool:
        return sidecar.running.service.metrics.flights.read("entra_id") == 0

    await eventually(idle)
    for _ in range(20):
        assert (await sidecar.call.token(TARGET)).json["access_token"] == first.json["access_token"]
    assert network.connections == 2
    assert await sidecar.metric('entra_fast_renewals_total{outcome="failed"}') == 1


async def test_5xx_in_a_row_are_bounded_and_cached_tokens_serve(
    start: StartSidecar, provider: Provider
) -> None:
    """Each request costs at most two attempts; other tokens are untouched."""
    sidecar = await start()
    cached = await sidecar.call.token(OTHER)
    provider.then(*[raw(503, b"<h1>canary</h1>", "text/html")] * 2)
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (503, "server_error")
    assert b"canary" not in answered.body
    assert len(provider.requests) == 3
    assert (await sidecar.call.token(OTHER)).json == {**cached.json, "expires_in": _any_int()}


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_not_retried(start: StartSidecar, provider: Provider, status: int) -> None:
    """4xx is final, and is passed through."""
    sidecar = await start()
    provider.then(refuse(status, "invalid_grant", "AADSTS50105: no"))
    answered = await sidecar.call.token(TARGET)
    assert answered.status == status
    assert answered.json == {"error": "invalid_grant", "error_description": "AADSTS50105: no"}
    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_error_status_is_retried_once(
    start: StartSidecar, provider: Provider, status: int
) -> None:
    """408, 429 and 5xx may be temporary."""
    sidecar = await start()
    provider.then(raw(status, b"later", "text/plain"))
    assert (await sidecar.call.token(TARGET)).status == 200
    assert len(provider.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_opens_a_back_off_window(
    start: StartSidecar, provider: Provider, status: int, as_date: bool
) -> None:
    """Inside the window only probes are made, and callers get the same error with the time that is left; then
    a request is made again. Seconds and HTTP dates are understood."""
    sidecar = await start()
    value = email.utils.formatdate(time.time() + 300, usegmt=True) if as_date else "300"
    provider.then(raw(status, b"slow down", "text/plain", Retry_After=value))
    first = await sidecar.call.token(TARGET)
    assert first.status == status
    assert 299 <= int(first.header("Retry-After") or 0) <= 301
    sidecar.clock.advance(25)
    for skip_cache in (False, True):
        inside = await sidecar.call.token(TARGET, skip_cache=skip_cache)
        assert inside.status == status
        assert 273 <= int(inside.header("Retry-After") or 0) <= 276
    assert len(provider.requests) == 1
    sidecar.clock.advance(10)
    provider.then(raw(status, b"slow down", "text/plain", Retry_After="20"))
    for _ in range(2):
        inside = await sidecar.call.token(TARGET)  # the first one is a probe
        assert inside.status == status
        assert 18 <= int(inside.header("Retry-After") or 0) <= 20
    assert len(provider.requests) == 2
    sidecar.clock.advance(20)
    assert (await sidecar.call.token(TARGET)).status == 200
    assert len(provider.requests) == 3


async def test_a_throttled_target_is_asked_about_twelve_times_a_minute(
    start: StartSidecar, provider: Provider
) -> None:
    """300 users want a token for it, again and again; other targets are served as always."""
    sidecar = await start()
    sidecar.clock.stop(time.time())
    users = [provider.mint(oid=f"user-{i}") for i in range(300)]
    provider.always = raw(429, b"", "text/plain", Retry_After="60")
    assert (await sidecar.call.exchange(users[0], TARGET)).status == 429
    for _ in range(6):
        answers = await asyncio.gather(*(sidecar.call.exchange(user, TARGET) for user in users))
        assert {answer.status for answer in answers} == {429}
        assert all(0 < int(answer.header("Retry-After") or 0) <= 60 for answer in answers)
        sidecar.clock.advance(9)
    assert 5 <= len(provider.requests) <= 12
    provider.always = None
    assert (await sidecar.call.exchange(users[0], OTHER)).status == 200


@pytest.mark.parametrize("skip_cache", [False, True])
@pytest.mark.parametrize(
    ("answer", "requests"),
    [(refuse(400, "invalid_grant"), 1), (raw(503, b"", "text/plain"), 2), (reset(), 2)],
    ids=["refusal", "5xx", "reset"],
)
async def test_a_failure_answers_equal_requests_for_a_second(
    start: StartSidecar, provider: Provider, answer: Script, requests: int, skip_cache: bool
) -> None:
    """The provider is not asked for the same thing again and again; afterwards it is."""
    sidecar = await start()
    sidecar.clock.stop(time.time())
    provider.always = answer
    bodies = {(await sidecar.call.token(TARGET, skip_cache=skip_cache)).body for _ in range(5)}
    assert len(bodies) == 1
    assert len(provider.requests) == requests
    provider.always = None
    sidecar.clock.advance(1)
    assert (await sidecar.call.token(TARGET)).status == 200


async def test_a_valid_token_does_not_wait_for_a_silent_provider(
    start: StartSidecar, provider: Provider
) -> None:
    """It is in its last two minutes, and serves all callers while the provider says nothing; the fetch goes
    on, and its token is the next one."""
    sidecar = await start()
    first = await sidecar.call.token(TARGET)
    sidecar.clock.advance(3490)
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    for _ in range(20):
        stale = await sidecar.call.token(TARGET)
        assert stale.json["access_token"] == first.json["access_token"]
        assert 0 < stale.json["expires_in"] <= 110
    assert len(provider.requests) == 2
    answers.set()

    async def renewed() -> bool:
        answer = await sidecar.call.token(TARGET)
        return bool(answer.json["access_token"] != first.json["access_token"])

    await eventually(renewed)
    assert len(provider.requests) == 2


async def test_a_suspended_machine_hands_out_no_token_that_has_ended(
    start: StartSidecar, provider: Provider
) -> None:
    """Two hours of sleep count, for tokens and for the age of the key set."""
    sidecar = await start()
    first = await sidecar.call.token(TARGET)
    sidecar.clock.advance(7200)
    later = await sidecar.call.token(TARGET)
    assert later.json["access_token"] != first.json["access_token"]
    assert await sidecar.metric("entra_fast_key_set_age_seconds") >= 7200


async def test_retry_after_is_per_target_and_per_user(start: StartSidecar, provider: Provider) -> None:
    """A back-off window for one target or user affects no other."""
    sidecar = await start()
    throttled, other = provider.mint(oid="u1"), provider.mint(oid="u2")
    provider.then(raw(429, b"", "text/plain", Retry_After="300"))
    assert (await sidecar.call.exchange(throttled, TARGET)).status == 429
    assert (await sidecar.call.exchange(throttled, TARGET)).status == 429
    assert (await sidecar.call.exchange(other, TARGET)).status == 200
    assert (await sidecar.call.exchange(throttled, OTHER)).status == 200
    assert (await sidecar.call.token(TARGET)).status == 200


async def test_inside_a_window_the_cached_token_serves(start: StartSidecar, provider: Provider) -> None:
    """Throttling does not withhold a token that is still valid."""
    sidecar = await start()
    first = await sidecar.call.token(TARGET)
    provider.then(raw(429, b"", "text/plain", Retry_After="300"))
    for _ in range(3):
        again = await sidecar.call.token(TARGET, skip_cache=True)
        assert again.json["access_token"] == first.json["access_token"]
    assert len(provider.requests) == 2


async def test_a_short_retry_after_is_waited_for(start: StartSidecar, provider: Provider) -> None:
    """One second fits into the time that a caller waits anyway."""
    sidecar = await start()
    provider.then(raw(503, b"", "text/plain", Retry_After="1"))
    assert (await sidecar.call.token(TARGET)).status == 200
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    "nonsense",
    [
        raw(200, b"canary <html>", "text/html"),
        raw(200, b'{"access_token":"canary"'),
        raw(200, b"[]"),
        raw(200, b'{"access_token":"canary","expires_in":3600}'),
        raw(200, b'{"access_token":"canary","token_type":"Bearer","expires_in":NaN}'),
        raw(200, b'{"access_token":"canary\\n","token_type":"Bearer","expires_in":3600}'),
        raw(200, b'{"x":"' + b"canary" * 200_000 + b'"}'),
        raw(302, b"canary", Location="https://evil.example/canary"),
        raw(307, b"canary", Location="/canary"),
    ],
    ids=["html", "cut JSON", "array", "no type", "NaN", "line end", "oversized", "302", "307"],
)
async def test_a_malformed_answer_is_a_server_error_and_never_echoed(
    start: StartSidecar, provider: Provider, nonsense: object
) -> None:
    """500 server_error after one attempt, without a byte of the answer."""
    sidecar = await start()
    provider.then(nonsense)  # type: ignore[arg-type]
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert b"canary" not in answered.body
    assert len(provider.requests) == 1


@pytest.mark.parametrize("expires_in", ["3599", 3599])
async def test_expires_in_as_digits_is_a_number(
    start: StartSidecar, provider: Provider, expires_in: object
) -> None:
    """A string of digits is accepted, and the token cached."""
    sidecar = await start()
    provider.then(granting(provider, expires_in=expires_in))
    for _ in range(2):
        answered = await sidecar.call.token(TARGET)
        assert 3590 <= answered.json["expires_in"] <= 3599
    assert len(provider.requests) == 1


@pytest.mark.parametrize("expires_in", [None, 0, -1, 10**12, "soon", True])
async def test_a_token_without_a_plausible_expires_in_is_not_cached(
    start: StartSidecar, provider: Provider, expires_in: object
) -> None:
    """The token is handed out once; the next caller causes a new request."""
    sidecar = await start()
    provider.then(*[granting(provider, expires_in=expires_in)] * 2)
    tokens = set()
    for _ in range(2):
        answered = await sidecar.call.token(TARGET)
        assert answered.status == 200
        assert isinstance(answered.json["expires_in"], int)
        tokens.add(answered.json["access_token"])
    assert len(tokens) == len(provider.requests) == 2


async def test_an_expired_token_from_the_provider_is_not_handed_out(
    start: StartSidecar, provider: Provider
) -> None:
    """Whatever expires_in says."""
    sidecar = await start()
    now = int(time.time())
    provider.then(granting(provider, access_token=provider.mint(iat=now - 7200, nbf=None, exp=now - 3600)))
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.json["error"]) == (500, "server_error")


@pytest.mark.parametrize("jump", [3600, -3600])
async def test_a_jump_of_the_wall_clock_changes_no_lifetime(
    start: StartSidecar, provider: Provider, jump: int
) -> None:
    """A cached token neither expires nor becomes valid again, and a new one is accepted."""
    sidecar = await start()
    first = await sidecar.call.token(TARGET)
    sidecar.clock.wall_offset += jump
    again = await sidecar.call.token(TARGET)
    assert again.json["access_token"] == first.json["access_token"]
    assert 3590 <= again.json["expires_in"] <= 3600
    assert 3590 <= (await sidecar.call.token(OTHER)).json["expires_in"] <= 3600
    sidecar.clock.monotonic_offset += 3601
    later = await sidecar.call.token(TARGET)
    assert later.json["access_token"] != first.json["access_token"]


async def test_down_at_start(start: StartSidecar, provider: Provider, network: TcpProxy) -> None:
    """Starting, not ready with the reason; introspection says that keys are missing, tokens are an error;
    everything recovers without a restart."""
    await network.stop()
    sidecar = await start(ready=False, **QUICK)
    assert (await sidecar.call.get("/healthz")).status == 503
    unready = await sidecar.call.get("/readyz")
    assert unready.status == 503
    introspection = await sidecar.call.introspect(provider.mint())
    assert introspection.status == 200
    assert introspection.json["active"] is False
    assert "keys of the token issuer are not available" in introspection.json["error"]
    assert (await sidecar.call.token(TARGET)).status == 500
    await network.start()
    await sidecar.until_ready()
    assert (await sidecar.call.get("/healthz")).status == 200
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert (await sidecar.call.token(TARGET)).status == 200


async def test_many_requests_while_the_provider_is_down_ask_it_rarely(
    start: StartSidecar, provider: Provider, network: TcpProxy
) -> None:
    """Requests for different tokens share the failure to find the endpoints while its cool-down lasts: they
    cause no attempt. Only the search in the background continues, with growing pauses."""
    network.always = reset_at_once
    sidecar = await start(ready=False, **QUICK)
    sidecar.clock.stop(time.time())  # the cool-down does not end
    for i in range(200):
        assert (await sidecar.call.token(f"api://a.b.c{i}/.default")).status == 500
    # In the two minutes that a test may take, the background makes fewer than 20 attempts, of two requests.
    assert network.connections <= 40


class _any_int:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    def __hash__(self) -> int:
        return 0
