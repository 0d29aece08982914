"""One request to the token endpoint: what it counts, and how long it may take."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_rules import HttpFailure, HttpResponse
from entra_fast._provider.tokens import FetchedToken, WantedToken
from entra_fast._providers import ENTRA_ID
from entra_fast.errors import ProviderError
from support.token_client import World, failed, granted

WANTED = WantedToken(b"k" * 32, "client_credentials", "api://a/.default")


def refused(body: dict[str, Any], status: int = 400) -> HttpResponse:
    return HttpResponse(status, {"Content-Type": "application/json"}, json.dumps(body).encode())


def observed(world: World, grant: str = "client_credentials") -> tuple[float, float]:
    """How many requests were timed, and their seconds together."""
    *counts, seconds = world.metrics.upstream_seconds.figures()[grant, "entra_id"]
    return sum(counts), seconds


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (granted(), "ok", None),
        (HttpFailure("timed_out", "no"), "timed_out", None),
        (HttpFailure("tls_failed", "no"), "tls_failed", None),
        (failed(503), "http_503", ""),
        (refused({"error": "invalid_grant"}), "http_400", "invalid_grant"),
        (refused({"error": "invalid_grant", "error_codes": [50013]}), "http_400", "AADSTS50013"),
        (HttpResponse(200, {"Content-Type": "application/json"}, b"{}"), "provider_answer_malformed", None),
    ],
    ids=["ok", "no answer", "TLS", "5xx", "OAuth error", "AADSTS code", "no token"],
)
async def test_every_outcome_is_counted_once(
    answer: HttpResponse | HttpFailure, outcome: str, code: str | None
) -> None:
    """By its code, or the status of what the provider answered; answers also by the provider's own code."""
    world = World()

    async def slow(*_: object, **__: object) -> HttpResponse:
        world.pass_time(0.5)
        if isinstance(answer, HttpFailure):
            raise answer
        return answer

    world.http.post_form = slow  # type: ignore[method-assign]
    try:
        token = await world.endpoint.request(WANTED, world.monotonic + 5)
        assert (token.fetched_at, token.lifetime) == (1000.0, 3600)
        assert outcome == "ok"
    except ProviderError:
        assert outcome != "ok"
    assert world.metrics.upstream.figures() == {("client_credentials", outcome, "entra_id"): [1]}
    assert observed(world) == (1, 0.5)
    *counts, seconds = world.metrics.texas_provider_seconds.figures()[("entra_id",)]
    assert (sum(counts), seconds) == (1, 0.5)  # the same under Texas's name, which has no grant
    if code:
        assert world.metrics.provider_errors.value(code, "entra_id") == 1


async def test_a_cancelled_request_is_counted_as_one() -> None:
    """It has reached the provider."""
    world = World()
    world.http.gate = asyncio.Event()
    request = asyncio.ensure_future(world.endpoint.request(WANTED, world.monotonic + 5))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait({request})
    assert world.metrics.upstream.value("client_credentials", "cancelled", "entra_id") == 1
    assert observed(world)[0] == 1


async def test_the_endpoint_and_the_request_share_the_time() -> None:
    """What finding the endpoint took is not left for the request."""
    passing: list[World] = []

    class Slow(EndpointFinder):
        async def token_endpoint(self) -> str:
            passing[0].pass_time(2)
            return "https://login.example/slow"

    world = World(finder=Slow)
    passing.append(world)
    await world.endpoint.request(WANTED, world.monotonic + 5)
    assert world.http.allowed == [3.0]


async def test_whether_a_token_may_be_cached_depends_on_both() -> None:
    """On the answer, which may not say how long it is valid, and on the user's token."""
    world = World()
    user = WantedToken(b"k" * 32, "on_behalf_of", "api://a/.default", "user", 2e9)
    opaque = WantedToken(b"k" * 32, "on_behalf_of", "api://a/.default", "user")
    silent = HttpResponse(
        200, {"Content-Type": "application/json"}, b'{"access_token":"t","token_type":"Bearer"}'
    )
    kept = []
    for wanted in (WANTED, user, opaque):
        for answer in (granted(), silent):
            world.http.script = [answer]
            token = await world.endpoint.request(wanted, world.monotonic + 5)
            kept.append(token.cacheable)
            assert token.subject_expires_at == wanted.subject_expires_at
    assert kept == [True, False, True, False, False, False]
    assert world.metrics.upstream.value("on_behalf_of", "ok", "entra_id") == 4


async def test_the_credential_is_made_for_this_endpoint_and_now() -> None:
    """A client assertion names the endpoint as its audience, and ends soon (RFC 7523, section 3)."""
    world = World()
    made: list[tuple[str, float]] = []
    original = world.endpoint._credentials

    class Recording:
        rejection = None
        in_order = original.in_order
        accepted = original.accepted

        def fields(self, credential: object, endpoint: str, now: float) -> dict[str, str]:
            made.append((endpoint, now))
            return {"client_secret": "of " + str(len(made))}

    world.endpoint._credentials = Recording()  # type: ignore[assignment]
    await world.endpoint.request(WANTED, world.monotonic + 5)
    assert made == [("https://login.example/token", world.wall)]
    assert world.http.forms[0]["client_secret"] == "of 1"
    assert not world.endpoint.credential_rejected


async def test_what_was_sent_is_not_in_the_error() -> None:
    """A provider that echoes the request, and a proxy in front of it, do not bring secrets into logs."""
    world = World()
    user = WantedToken(b"k" * 32, "on_behalf_of", "api://a/.default", "the-users-token", 2e9)
    world.http.script = [refused({"error": "invalid_grant", "error_description": "not the-users-token"})]
    with pytest.raises(ProviderError) as caught:
        await world.endpoint.request(user, world.monotonic + 5)
    assert "the-users-token" not in str(caught.value.args)
    assert "[removed]" in caught.value.message


async def test_a_retry_after_that_is_a_date_counts_from_now() -> None:
    """RFC 9110, section 10.2.3."""
    world = World()
    world.http.script = [failed(503, "Fri, 15 Jan 2027 08:01:00 GMT")]
    with pytest.raises(ProviderError) as caught:
        await world.endpoint.request(WANTED, world.monotonic + 5)
    assert caught.value.retry_after == 60


async def test_a_rejected_credential_is_known_as_such_until_it_is_accepted() -> None:
    """A caller that remembers a rejection can tell whether it still counts."""
    world = World()
    world.http.script = [refused({"error": "invalid_client", "error_codes": [7000215]}, 401)]
    known = [world.endpoint.credential_rejected]
    with pytest.raises(ProviderError):
        await world.endpoint.request(WANTED, world.monotonic + 5)
    known.append(world.endpoint.credential_rejected)
    await world.endpoint.request(WANTED, world.monotonic + 5)
    known.append(world.endpoint.credential_rejected)
    assert known == [False, True, False]


@pytest.mark.parametrize(
    ("challenge", "sent"),
    [
        (None, {"access_token": {"xms_cc": {"values": ["cp1"]}}}),
        ('{"userinfo":{}}', {"userinfo": {}, "access_token": {"xms_cc": {"values": ["cp1"]}}}),
    ],
)
async def test_each_request_names_what_the_application_can_handle(
    challenge: str | None, sent: dict[str, Any]
) -> None:
    """With a claims challenge and without one: only then do APIs send challenges to it."""
    world = World()
    world.endpoint.provider = dataclasses.replace(world.provider, client_capabilities=("cp1",))
    await world.endpoint.request(dataclasses.replace(WANTED, claims=challenge), world.monotonic + 5)
    assert json.loads(world.http.forms[0]["claims"]) == sent


async def test_a_try_of_the_credential_is_counted_as_such() -> None:
    """Not as a request for a token that a caller wants."""
    world = World()
    tried = CredentialTry(ENTRA_ID, world.endpoint, world.endpoint._credentials, 5.0, world.endpoint._timing)
    tried.start()
    await world.settle()
    await tried.aclose()
    assert world.metrics.upstream.figures() == {("credential_try", "ok", "entra_id"): [1]}
    assert observed(world, "credential_try")[0] == 1
    assert sum(sum(row) for row in world.metrics.texas_provider_seconds.figures().values()) == 0


async def test_pauses_between_tries_begin_anew_once_the_provider_has_judged() -> None:
    """They grow while its answers prove nothing; a rejected credential is tried five minutes later."""
    world = World()
    rejected = refused({"error": "invalid_client", "error_codes": [7000215]}, 401)
    world.http.script = [failed(503), failed(503), rejected, failed(503), failed(503), granted()]
    times: list[float] = []
    original = world.endpoint.request

    async def request(wanted: WantedToken, deadline: float) -> FetchedToken:
        times.append(world.monotonic - 1000)
        return await original(wanted, deadline)

    world.endpoint.request = request  # type: ignore[method-assign, assignment]
    tried = CredentialTry(ENTRA_ID, world.endpoint, world.endpoint._credentials, 5.0, world.endpoint._timing)
    tried.start()
    await world.settle()
    await tried.aclose()
    assert times == [0, 1, 3, 303, 304, 306]
