"""Validation by a real sidecar, behind the interface of a validator."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from entra_fast import Claims, ConfigurationError, InvalidToken, KeysUnavailable, Require
from entra_fast.client import AsyncSidecarValidator, SidecarValidator
from support.key_server import Answer, KeyServer
from support.provider import CLIENT_ID, Provider
from support.sidecars import StartSidecar

Validate = Callable[[str], Awaitable[Claims]]


@pytest.fixture(params=["threads", "loop", "loop without aiohttp"])
def validating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Both classes, behind one function."""

    def make(endpoint: str) -> Validate:
        if request.param == "threads":
            blocking = SidecarValidator(endpoint)
            return lambda token: asyncio.to_thread(blocking.validate, token)
        if request.param == "loop without aiohttp":
            monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        return AsyncSidecarValidator(endpoint).validate

    return make


async def test_a_sidecar_validates(
    provider: Provider, start: StartSidecar, validating: Callable[[str], Any]
) -> None:
    """The claims are of the same type as those of the library, and meet the same requirements."""
    sidecar = await start()
    validate = validating(f"http://{sidecar.running.address}/api/v1/introspect")
    claims = await validate(provider.mint(roles=["reader"], idtyp="app", big=2**70))
    assert isinstance(claims, Claims)
    assert claims.roles == ("reader",)
    assert claims["big"] == 2**70
    assert claims.expires_at > time.time()
    assert "active" not in claims
    claims.require(Require(app=True, role="reader"))
    for token, code in (
        (provider.mint(aud="other"), "wrong_audience"),
        (provider.mint(exp=1, nbf=None, iat=1), "token_expired"),
        (provider.mint()[:-8] + "AAAAAAAA", "signature_invalid"),
        ("x.y.z", "not_a_jwt"),
        ("æ", "not_a_jwt"),
    ):
        with pytest.raises(InvalidToken) as caught:
            await validate(token)
        assert caught.value.code == code


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=404, body="not found"),
        Answer(body="{}"),
        Answer(body="[]"),
        Answer(body='{"active":"true","exp":9999999999}'),
        Answer(body='{"active":true,"active":true}'),
        Answer(body='{"active":false,"error":"keys of the token issuer are not available: x"}'),
    ],
    ids=["500", "404", "empty", "no object", "no boolean", "twice", "no keys"],
)
async def test_what_is_no_verdict_says_nothing_about_the_token(
    answer: Answer, validating: Callable[[str], Any]
) -> None:
    """A broken sidecar is 503, never a rejected token and never an accepted one."""
    with KeyServer() as server:
        server.answers["/introspect"] = answer
        with pytest.raises(KeysUnavailable):
            await validating(f"{server.base_url}/introspect")("a.b.c")


async def test_a_sidecar_that_is_not_there(validating: Callable[[str], Any]) -> None:
    """The error says so, without the token."""
    with pytest.raises(KeysUnavailable, match="the sidecar could not be asked") as caught:
        await validating("http://127.0.0.1:1/introspect")("secret-token-secret-token")
    assert caught.value.code == "introspection_failed"
    assert "secret" not in str(caught.value)


async def test_a_sentence_of_another_sidecar(validating: Callable[[str], Any]) -> None:
    """Texas has sentences of its own; their code is `token_inactive`."""
    with KeyServer() as server:
        body = json.dumps({"active": False, "error": "invalid: ExpiredSignature"})
        server.answers["/introspect"] = Answer(body)
        with pytest.raises(InvalidToken, match="invalid: ExpiredSignature") as caught:
            await validating(f"{server.base_url}/introspect")("a.b.c")
        assert caught.value.code == "token_inactive"


async def test_claims_without_an_expiry_are_not_accepted(validating: Callable[[str], Any]) -> None:
    """An active token without `exp` is no token that we would have accepted."""
    with KeyServer() as server:
        server.answers["/introspect"] = Answer('{"active":true,"aud":"x"}')
        with pytest.raises(InvalidToken) as caught:
            await validating(f"{server.base_url}/introspect")("a.b.c")
        assert caught.value.code == "claim_missing"


@pytest.mark.parametrize("kind", [SidecarValidator, AsyncSidecarValidator])
def test_the_endpoint_is_found_in_the_environment(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """NAIS names it. A missing or wrong one is found when the object is made."""
    monkeypatch.delenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match="NAIS_TOKEN_INTROSPECTION_ENDPOINT is not set"):
        kind()
    monkeypatch.setenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "http://sidecar.example/introspect")
    with pytest.raises(ConfigurationError, match="must be an https URL"):
        kind()
    monkeypatch.setenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "http://127.0.0.1:7164/api/v1/introspect")
    kind()


async def test_connections_are_closed_and_opened_again(provider: Provider, start: StartSidecar) -> None:
    """`aclose` belongs to the framework's life cycle; a token that comes later is validated all the same."""
    sidecar = await start()
    validator = AsyncSidecarValidator(f"http://{sidecar.running.address}/api/v1/introspect")
    for _ in range(2):
        assert (await validator.validate(provider.mint()))["aud"] == CLIENT_ID
        await validator.aclose()
