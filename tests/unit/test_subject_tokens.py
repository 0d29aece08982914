"""The user's token that is exchanged: which one is sent, and what its end means. Clocks stand still."""

from __future__ import annotations

import base64
import json
import math

import pytest

from entra_fast._provider.token_client import MAX_SUBJECT_TOKEN_BYTES
from entra_fast.errors import EntraFastError, ProviderError
from support.token_client import World


def users_token(end: object) -> str:
    """A token with this `exp`, which nobody has signed."""
    parts = ({"alg": "RS256", "typ": "JWT"}, {"sub": "user", "exp": end})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


async def refusals(world: World, token: str) -> list[EntraFastError]:
    """What both ways of asking raise."""
    with pytest.raises(EntraFastError) as exchanging:
        await world.client.exchange("a:b:c", token)
    with pytest.raises(EntraFastError) as looking_up:
        world.client.cached("a:b:c", token)
    return [exchanging.value, looking_up.value]


@pytest.mark.parametrize(
    "token",
    ["", "a" * (MAX_SUBJECT_TOKEN_BYTES + 1), "a b", "a\n", "å", "a\x7f"],
    ids=lambda text: repr(text[:5]),
)
async def test_what_is_no_token_is_not_sent(token: str) -> None:
    """The error names the field, as callers of the sidecar know it, and what is expected."""
    world = World()
    for error in await refusals(world, token):
        assert error.code == "subject_token_invalid"
        assert error.message == "user_token must be a token of 1 to 65536 characters, without spaces"
    assert world.http.forms == []


@pytest.mark.parametrize("token", ["a", "a" * MAX_SUBJECT_TOKEN_BYTES], ids=["1", "65536"])
async def test_tokens_of_every_size_in_between_are_sent(token: str) -> None:
    """Nothing is known about their end, so nothing is cached for them."""
    world = World()
    for _ in range(2):
        await world.client.exchange("a:b:c", token)
    assert [form["assertion"] for form in world.http.forms] == [token, token]


@pytest.mark.parametrize("end", [True, False, "1900000000", None, [1_900_000_000], math.inf, math.nan])
async def test_an_end_that_is_no_time_is_none(end: object) -> None:
    """The provider decides about the token. What it issues is not cached: it could outlive the user's."""
    world = World()
    for _ in range(2):
        await world.client.exchange("a:b:c", users_token(end))
    assert len(world.http.forms) == 2
    assert world.client.cached("a:b:c", users_token(end)) is None


@pytest.mark.parametrize("end", [1_800_000_060, 1_800_000_060.5], ids=["integer", "fraction"])
async def test_a_users_token_is_exchanged_once_until_it_ends(end: float) -> None:
    """Both ways of asking find what was exchanged; from the second on which it ends, neither does."""
    world = World()
    token = users_token(end)
    for _ in range(2):
        assert (await world.client.exchange("a:b:c", token)).access_token == "token-1"
    cached = world.client.cached("a:b:c", token)
    assert cached is not None
    assert cached.access_token == "token-1"
    assert world.client.cached("a:b:c") is None  # the application's own token is another one
    world.wall = end
    for error in await refusals(world, token):
        assert isinstance(error, ProviderError)
        assert (error.code, error.status, error.error) == ("subject_token_expired", 400, "invalid_grant")
        assert error.message == "user_token has expired"
    assert len(world.http.forms) == 1


async def test_a_users_token_that_ends_while_the_provider_is_asked() -> None:
    """The caller does not get what was issued for it."""
    world = World()
    asked = world.http.post_form

    async def slow(*args: object, **named: object) -> object:
        world.pass_time(3)
        return await asked(*args, **named)  # type: ignore[arg-type]

    world.http.post_form = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(ProviderError) as caught:
        await world.client.exchange("a:b:c", users_token(world.wall + 2))
    assert caught.value.code == "subject_token_expired"
    assert (await world.client.exchange("a:b:c", users_token(world.wall + 4))).access_token == "token-2"


async def test_a_new_token_for_a_user_replaces_the_cached_one() -> None:
    """`skip_cache` concerns this user and target only."""
    world = World()
    token, other = users_token(world.wall + 3000), users_token(world.wall + 2000)
    for user in (token, other):
        await world.client.exchange("a:b:c", user)
    assert (await world.client.exchange("a:b:c", token, skip_cache=True)).access_token == "token-3"
    assert (await world.client.exchange("a:b:c", token)).access_token == "token-3"
    assert (await world.client.exchange("a:b:c", other)).access_token == "token-2"


async def test_a_users_token_is_renewed_for_the_fast_path() -> None:
    """The wish names the user's token, so it is not the application's own that is renewed."""
    world = World()
    token = users_token(world.wall + 3000)
    await world.client.exchange("a:b:c", token)
    world.client.renew("a:b:c", token)
    await world.settle()
    assert world.http.forms[1]["assertion"] == token
    assert (await world.client.exchange("a:b:c", token)).access_token == "token-2"
