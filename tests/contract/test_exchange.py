"""POST /api/v1/token/exchange: on behalf of a user."""

from __future__ import annotations

import time

import pytest
from aiohttp import web

from support.provider import Provider, granting
from support.sidecars import Started

TARGET = "api://dev-gcp.team.app/.default"


async def test_exchanges_a_user_s_token(sidecar: Started, provider: Provider) -> None:
    """The provider is asked on behalf of the user, with Entra ID's parameters."""
    user = provider.mint(oid="u1")
    answer = await sidecar.call.exchange(user, TARGET)
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "expires_in", "token_type"}
    form = provider.requests[0].form
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert form["requested_token_use"] == "on_behalf_of"
    assert form["assertion"] == user
    assert form["scope"] == TARGET
    assert form["client_assertion"]


async def test_an_exchanged_token_is_cached_per_user_and_target(sidecar: Started, provider: Provider) -> None:
    """Each (user token, target) has an entry of its own, apart from the application's own tokens."""
    one, two = provider.mint(oid="u1"), provider.mint(oid="u2")
    answers = [
        await sidecar.call.exchange(one, TARGET),
        await sidecar.call.exchange(two, TARGET),
        await sidecar.call.exchange(one, "api://dev-gcp.team.other/.default"),
        await sidecar.call.token(TARGET),
    ]
    assert len({answer.json["access_token"] for answer in answers}) == 4
    again = await sidecar.call.form(
        "/api/v1/token/exchange",
        {"identity_provider": "azuread", "target": "dev-gcp:team:app", "user_token": one},
    )
    assert again.json["access_token"] == answers[0].json["access_token"]
    assert len(provider.requests) == 4


async def test_two_users_who_take_turns_get_their_own_tokens(sidecar: Started, provider: Provider) -> None:
    """Whatever is remembered about a request, the user is a part of it: from the first answer to the last, in
    both formats, and for the application's own token between them."""
    users = [provider.mint(oid="u1"), provider.mint(oid="u2")]
    own: dict[str | None, set[str]] = {user: set() for user in (*users, None)}
    for _ in range(3):
        for user in users:
            answer = await sidecar.call.exchange(user, TARGET)
            own[user].add(answer.json["access_token"])
            fields = {"identity_provider": "azuread", "target": TARGET, "user_token": user}
            own[user].add((await sidecar.call.form("/api/v1/token/exchange", fields)).json["access_token"])
        own[None].add((await sidecar.call.token(TARGET)).json["access_token"])
    assert [len(tokens) for tokens in own.values()] == [1, 1, 1]
    assert len(set().union(*own.values())) == 3
    assert len(provider.requests) == 3


async def test_a_user_s_token_that_ends_while_the_provider_is_asked(
    sidecar: Started, provider: Provider
) -> None:
    """The provider's answer comes too late: nothing is handed out, and nothing is cached."""
    user = provider.mint(exp=int(time.time()) + 60)

    async def late(request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        sidecar.clock.advance(61)
        return await granting(provider)(request, form)

    provider.script.append(late)
    for _ in range(2):
        answer = await sidecar.call.exchange(user, TARGET)
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
        assert answer.json["error_description"] == "user_token has expired"
        assert "access_token" not in answer.json
    assert len(provider.requests) == 1


async def test_an_expired_user_token_is_refused_without_asking(sidecar: Started, provider: Provider) -> None:
    """Nothing is acquired for a user whose token has expired."""
    answer = await sidecar.call.exchange(provider.mint(exp=int(time.time()) - 1), TARGET)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert answer.json["error_description"] == "user_token has expired"
    assert provider.requests == []


async def test_a_cached_exchange_ends_with_the_user_s_token(sidecar: Started, provider: Provider) -> None:
    """The exchanged token is still valid, but is not handed out after the user's own token has expired."""
    user = provider.mint(exp=int(time.time()) + 600)
    assert (await sidecar.call.exchange(user, TARGET)).status == 200
    sidecar.clock.advance(601)
    answer = await sidecar.call.exchange(user, TARGET)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert len(provider.requests) == 1


async def test_skip_cache_replaces_the_exchanged_token(sidecar: Started, provider: Provider) -> None:
    """The same as for the application's own tokens."""
    user = provider.mint()
    old = await sidecar.call.exchange(user, TARGET)
    new = await sidecar.call.exchange(user, TARGET, skip_cache=True)
    later = await sidecar.call.exchange(user, TARGET)
    assert old.json["access_token"] != new.json["access_token"] == later.json["access_token"]


async def test_a_token_without_a_readable_end_is_exchanged_but_not_cached(
    sidecar: Started, provider: Provider
) -> None:
    """Without a known expiry, the provider is asked each time."""
    for user in (provider.mint(exp=None), "opaque-token", provider.mint(exp="soon")):
        before = len(provider.requests)
        for _ in range(2):
            assert (await sidecar.call.exchange(user, TARGET)).status == 200
        assert len(provider.requests) == before + 2


@pytest.mark.parametrize("user_token", ["a b", "tøken", "x\n", "x" * 65_537])
async def test_a_user_token_that_no_token_can_be_is_refused(
    sidecar: Started, provider: Provider, user_token: str
) -> None:
    """The refusal names the field and not its content."""
    answer = await sidecar.call.exchange(user_token, TARGET)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert answer.json["error_description"].startswith("user_token must be a token of 1 to 65536 characters")
    assert provider.requests == []


async def test_concatenations_do_not_collide(sidecar: Started, provider: Provider) -> None:
    """Two (token, scope) pairs with the same concatenation are two entries."""
    user = provider.mint()
    first = await sidecar.call.exchange(user, "api://a/.default")
    second = await sidecar.call.token("api://a/.default")
    assert first.json["access_token"] != second.json["access_token"]
    head, tail = user, "api://a/.default"
    other = await sidecar.call.exchange(head + tail[0], "https://" + tail)
    assert other.status == 200
    assert len(provider.requests) == 3
