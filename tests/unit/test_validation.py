"""What tokens may make a validator ask for new keys, for threads and on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from entra_fast import _validation
from entra_fast.validate import AsyncValidator, Claims, InvalidToken, RefreshRules, Validator
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, Clock, jwks, signer

KEY, NEW_KEY = signer(), signer("key-2")


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(jwks(KEY)) as running:
        yield running


@pytest.fixture(params=["threads", "asyncio"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "asyncio")


def made(server: KeyServer, *, asynchronous: bool, **options: Any) -> Any:
    """A validator of one kind, at `NOW`."""
    kind: Any = AsyncValidator if asynchronous else Validator
    return kind(ISSUER, AUDIENCE, **{"jwks_uri": server.keys_url, "clock": lambda: NOW} | options)


async def many(validator: Any, tokens: list[Any]) -> list[str]:
    """The `uti` of each token's claims, or the code of its error."""
    if isinstance(validator, AsyncValidator):
        results = await validator.validate_many(tokens)
    else:
        results = await asyncio.to_thread(validator.validate_many, tokens)
    return [each["uti"] if isinstance(each, Claims) else each.code for each in results]


async def closed(validator: Any) -> None:
    if isinstance(validator, AsyncValidator):
        await validator.aclose()
    else:
        validator.close()


async def test_tokens_of_a_new_key_among_others(server: KeyServer, *, asynchronous: bool) -> None:
    """One of many that is signed with an unknown key makes a validator with keys fetch them again, once. Each
    result stays in its place."""
    validator = made(server, asynchronous=asynchronous)
    assert await many(validator, [KEY.token(uti="first")]) == ["first"]
    server.publish(jwks(KEY, NEW_KEY))
    tokens = [KEY.token(uti="0"), NEW_KEY.token(uti="1"), "no token", NEW_KEY.token(uti="3").encode()]
    assert await many(validator, tokens) == ["0", "1", "not_a_jwt", "3"]
    assert server.fetches() == 2
    await closed(validator)


async def test_the_validator_s_clock_decides_what_could_pass(
    server: KeyServer, *, asynchronous: bool
) -> None:
    """A token that has expired by this clock causes no fetch, alone or among many, although it could pass by
    the wall clock, which is years behind; and one that is valid by this clock does."""
    clock = Clock(NOW + 10 * 365 * 86_400)
    validator = made(server, asynchronous=asynchronous, clock=clock)
    late = clock.now
    assert await many(validator, [KEY.token(iat=late, nbf=late, exp=late + 60, uti="first")]) == ["first"]
    server.publish(jwks(KEY, NEW_KEY))
    expired = NEW_KEY.token(iat=1, nbf=1, exp=late - 3600)
    assert await many(validator, [expired]) == ["unknown_key"]
    with pytest.raises(InvalidToken):
        await one(validator, expired)
    assert server.fetches() == 1
    assert await one(validator, NEW_KEY.token(iat=late, nbf=late, exp=late + 60, uti="new")) == "new"
    assert server.fetches() == 2
    await closed(validator)


async def one(validator: Any, token: str | bytes) -> str:
    """The `uti` of a token's claims."""
    if isinstance(validator, AsyncValidator):
        return str((await validator.validate(token))["uti"])
    return str((await asyncio.to_thread(validator.validate, token))["uti"])


@pytest.mark.parametrize("form", [str, str.encode], ids=["text", "bytes"])
async def test_a_single_token_of_a_new_key(
    server: KeyServer, form: Callable[[str], str | bytes], *, asynchronous: bool
) -> None:
    """As text and as bytes. Each kind of new key, with another name and with the same one."""
    validator = made(server, asynchronous=asynchronous, refresh=RefreshRules(cool_down=0.0))
    assert await one(validator, form(KEY.token(uti="1"))) == "1"
    server.publish(jwks(KEY, NEW_KEY))
    assert await one(validator, form(NEW_KEY.token(uti="2"))) == "2"
    replaced = signer("replaced").named(KEY.kid)
    server.publish(jwks(replaced))
    assert await one(validator, form(replaced.token(uti="3"))) == "3"
    assert server.fetches() == 3
    await closed(validator)


async def test_fixed_keys_are_asked_for_nothing(*, asynchronous: bool) -> None:
    """The error is the one that the token was rejected with, also for a key that a provider might publish."""
    kind: Any = AsyncValidator if asynchronous else Validator
    validator = kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: NOW)
    tokens = [NEW_KEY.token(), NEW_KEY.named(KEY.kid).token(), "x", KEY.token(uti="good")]
    assert await many(validator, tokens) == ["unknown_key", "signature_invalid", "not_a_jwt", "good"]
    with pytest.raises(InvalidToken) as caught:
        await one(validator, NEW_KEY.token())
    assert caught.value.code == "unknown_key"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("form", [str, str.encode], ids=["text", "bytes"])
def test_the_key_id_that_a_token_names(form: Callable[[str], str | bytes]) -> None:
    """Only of its header, however large the rest is. None where it has none, and where that is no text."""
    assert _validation.kid_of(form(KEY.token(more="x" * 300_000))) == KEY.kid
    assert _validation.kid_of(form(KEY.token(header={"kid": 7}))) is None
    assert _validation.kid_of(form(KEY.named(None).token())) is None
    for unreadable in ("", "x", "x.y.z"):
        with pytest.raises(InvalidToken):
            _validation.kid_of(form(unreadable))
    tokens = [form("x"), form(NEW_KEY.token()), form(KEY.token())]
    assert _validation.first_kid(tokens, [0, 2, 1]) == KEY.kid
    assert _validation.first_kid(tokens, [0]) is None
