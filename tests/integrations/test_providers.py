"""Integrations for tokens of TokenX, Maskinporten and ID-porten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask, jsonify

from entra_fast import Claims, ConfigurationError, InvalidToken, KeysUnavailable, Require
from entra_fast.client import AsyncSidecarClient, SidecarClient
from entra_fast.integrations import aiohttp as for_aiohttp
from entra_fast.integrations import asgi as for_asgi
from entra_fast.integrations import fastapi as for_fastapi
from entra_fast.integrations import flask as for_flask
from entra_fast.integrations import grpc as for_grpc
from entra_fast.integrations._guard import AsyncGuard, SyncGuard
from entra_fast.integrations._refusal import refusal_for
from entra_fast.integrations._validators import PAUSE, AsyncFromEnvironment, Source, _from_environment
from entra_fast.validate import ANY_AUDIENCE, AsyncValidator, Validator
from support.key_server import Answer, KeyServer
from support.tokens import NOW, jwks, signer

KEY: Final = signer("key-1")
SIDECAR: Final = "http://127.0.0.1:7164/api/v1/introspect"
API, WEB, SCOPE = "dev-gcp:team:api", "dev-gcp:team:web", "nav:helse/x.read"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    """TokenX and Maskinporten, configured as on NAIS, without Entra ID."""
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    with KeyServer(jwks(KEY)) as one:
        for name, issuer in (("TOKEN_X", "tokenx"), ("MASKINPORTEN", "maskinporten")):
            path = f"/{issuer}/.well-known/oauth-authorization-server"
            document = {"issuer": f"{one.base_url}/{issuer}", "jwks_uri": one.keys_url}
            one.answers[path] = Answer(json.dumps(document))
            monkeypatch.setenv(f"{name}_CLIENT_ID", API)
            monkeypatch.setenv(f"{name}_WELL_KNOWN_URL", one.base_url + path)
        yield one
    _from_environment.cache_clear()


def tokenx_token(server: KeyServer, **claims: Any) -> str:
    """A token of TokenX that is valid now."""
    now = int(time.time())
    content = {"iss": f"{server.base_url}/tokenx", "aud": API, "iat": now, "exp": now + 900, "client_id": WEB}
    return KEY.token({**content, "acr": "Level3", **claims})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_fastapi(server: KeyServer) -> None:
    """A level of assurance that is too low is a challenge in ID-porten's words, and OpenAPI promises no
    sign-in at Entra ID."""
    entra = for_fastapi.EntraID(provider="tokenx")
    app = FastAPI(lifespan=entra.lifespan, **entra.swagger())
    web = entra(Require(client=WEB) | Require(app=True))
    high = entra(Require(acr_at_least="Level4"))

    @app.get("/cases")
    async def cases(who: Claims = web) -> dict[str, Any]:
        return {"client": who.authorized_party}

    @app.get("/secret")
    async def secret(who: Claims = high) -> dict[str, Any]:
        return {"pid": who.pid}

    async with (
        entra.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        answer = await client.get("/cases", headers=bearer(tokenx_token(server)))
        assert (answer.status_code, answer.json()) == (200, {"client": WEB})
        answer = await client.get(
            "/cases", headers=bearer(tokenx_token(server, client_id="dev-gcp:other:web"))
        )
        assert answer.status_code == 403
        answer = await client.get("/secret", headers=bearer(tokenx_token(server)))
        assert answer.status_code == 401
        challenge = answer.headers["WWW-Authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'acr_values="idporten-loa-high"' in challenge
        assert "authorization_uri" not in challenge
        document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"] == {
        "BearerToken": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token.",
        }
    }
    assert document["paths"]["/cases"]["get"]["security"] == [{"BearerToken": []}]


def test_a_mixed_fastapi_application_lets_users_sign_in_at_entra_id() -> None:
    """Swagger UI can request tokens there."""
    for provider in (["entra_id", "tokenx"], "azuread", None):
        entra = for_fastapi.EntraID(provider=provider)
        assert list(entra.security(Require(scope="x"))[0]) == [for_fastapi.USER_SCHEME]


def test_flask(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a discovery document, which is fetched at the first token, and without."""
    for discovered in (True, False):
        if not discovered:
            monkeypatch.setenv("TOKEN_X_ISSUER", f"{server.base_url}/tokenx")
            monkeypatch.setenv("TOKEN_X_JWKS_URI", server.keys_url)
        app = Flask("test")
        entra = for_flask.EntraID(app, provider=["tokenx"])

        @app.get("/cases")
        def cases() -> Any:
            assert entra.claims is not None  # noqa: B023 - called within the loop
            return jsonify({"client": entra.claims.authorized_party})  # noqa: B023 - see above

        with app.test_client() as client:
            assert client.get("/cases", headers=bearer(tokenx_token(server))).json == {"client": WEB}
            assert client.get("/cases", headers=bearer(tokenx_token(server, aud="x"))).status_code == 401


MAKERS: Final[list[Callable[..., Any]]] = [
    for_asgi.EntraID,
    for_aiohttp.EntraID,
    for_fastapi.EntraID,
    for_flask.EntraID,
    for_grpc.EntraIDInterceptor,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__module__)
def test_every_integration_takes_a_provider(make: Callable[..., Any], server: KeyServer) -> None:
    """A validator knows its own."""
    assert make(provider="tokenx")
    validator = Validator("https://i.test", "a", jwks=jwks(KEY))
    with pytest.raises(TypeError, match="validator and provider exclude each other"):
        make(validator=validator, provider="tokenx")
    for wrong in (7, ["tokenx", None], {"tokenx"}):
        with pytest.raises(TypeError, match="provider is a name, or a list of names"):
            make(provider=wrong)


async def test_tokens_without_an_audience_need_a_requirement(server: KeyServer) -> None:
    """A token for any other API of the country would pass."""
    for provider in ("maskinporten", ["tokenx", "maskinporten"]):
        with pytest.raises(ConfigurationError, match=r"require is missing.*Require\(scope=") as caught:
            _ = SyncGuard("test", None, provider=provider).validator
        assert caught.value.setting == "require"
        with pytest.raises(ConfigurationError, match="require is missing"):
            await AsyncGuard("test", None, provider=provider).validator.start()
        for requirement in (Require(scope=SCOPE), Require.any_token()):
            assert SyncGuard("test", None, provider=provider, require=requirement).validator
            validator = AsyncGuard("test", None, provider=provider, require=requirement).validator
            await validator.start()
            await validator.aclose()
    async_validator = AsyncValidator("https://i.test", ANY_AUDIENCE, jwks=jwks(KEY))
    for make in (
        lambda **options: SyncGuard("test", Validator.from_env("maskinporten"), **options),
        lambda **options: AsyncGuard("test", async_validator, **options),
        lambda **options: SyncGuard(
            "test", SidecarClient(SIDECAR, identity_provider="maskinporten"), **options
        ),
        lambda **options: AsyncGuard(
            "test", AsyncSidecarClient(SIDECAR, identity_provider="maskinporten"), **options
        ),
    ):
        with pytest.raises(ConfigurationError, match="the audience is not checked for this validator"):
            make()
        assert make(require=Require(scope=SCOPE)).requirement == Require(scope=SCOPE)
    for checked in ("tokenx", "of-the-operator"):
        guard = SyncGuard("test", SidecarClient(SIDECAR, identity_provider=checked))
        assert guard.requirement == Require.any_token()
    with pytest.raises(ConfigurationError, match="provider must be one of"):
        await AsyncGuard("test", None, provider="nobody").validator.start()


@pytest.mark.parametrize("kind", [SidecarClient, AsyncSidecarClient])
def test_the_sidecar_is_asked_about_the_provider(kind: Any) -> None:
    """Of a client from the environment, too."""
    client = kind.from_env({"NAIS_TOKEN_INTROSPECTION_ENDPOINT": SIDECAR}, identity_provider="tokenx")
    assert client._requests.document("t") == {"identity_provider": "tokenx", "token": "t"}


@pytest.mark.parametrize(
    ("requirement", "scope"),
    [
        (Require(scope=SCOPE), f'scope="{SCOPE}"'),
        (Require(scope=SCOPE, consumer_orgno="310000019"), None),
        (Require(scope=SCOPE, client="c"), None),
        (Require(scope=SCOPE, issuer="https://i.test"), None),
    ],
)
def test_scopes_of_other_providers_name_no_application(requirement: Require, scope: str | None) -> None:
    """A challenge has them as the token has them, if they alone suffice."""
    content = {"iss": "https://i.test", "client_id": "x", "aud": "unspecified", "iat": NOW, "exp": NOW + 1}
    claims = Validator("https://i.test", ANY_AUDIENCE, jwks=jwks(KEY), clock=lambda: NOW).validate(
        KEY.token(content)
    )
    with pytest.raises(Exception, match="needs") as caught:
        requirement.check(claims)
    challenge = refusal_for(caught.value, "r", requirement, claims).challenge  # type: ignore[arg-type]
    assert challenge is not None
    assert ("scope=" in challenge) == (scope is not None)
    assert (scope or "") in challenge


async def test_a_document_that_cannot_be_fetched_concerns_no_other_provider(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of the provider that is known are validated meanwhile; any other may be of the missing one."""
    seconds = [100.0]
    monkeypatch.setattr("entra_fast.integrations._validators.time.monotonic", lambda: seconds[0])
    path = "/maskinporten/.well-known/oauth-authorization-server"
    good, server.answers[path] = server.answers[path], Answer(status=503)
    made = AsyncFromEnvironment(Source(("maskinporten", "tokenx")))
    now = int(time.time())
    organisation = KEY.token({"iss": f"{server.base_url}/maskinporten", "iat": now, "exp": now + 900})
    for _ in range(2):
        assert (await made.validate(tokenx_token(server)))["aud"] == API
    asked = server.fetches(path)
    with pytest.raises(InvalidToken, match="audience"):
        await made.validate(tokenx_token(server, aud="other"))
    for token in (organisation, tokenx_token(server, iss="https://nobody.example")):
        with pytest.raises(KeysUnavailable):
            await made.validate(token)
    assert server.fetches(path) == asked
    of_others = made._of_others
    seconds[0] += PAUSE
    with pytest.raises(KeysUnavailable):
        await made.validate(organisation)
    assert made._of_others is of_others  # with its keys
    server.answers[path] = good
    seconds[0] += PAUSE
    assert (await made.validate(organisation))["iss"] == f"{server.base_url}/maskinporten"
    with pytest.raises(InvalidToken, match="issuer"):
        await made.validate(tokenx_token(server, iss="https://nobody.example"))
    assert made._of_others is None
    assert (await made.validate(tokenx_token(server)))["aud"] == API
    await made.aclose()
