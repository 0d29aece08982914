"""Requests for tokens to each provider, over real sockets: the exact forms, assertions and answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache
from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.credentials import ClientSecret, Credentials
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing, WantedToken
from entra_fast._providers import BUILT_IN, TOKENX
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CredentialSettings, OutboundSettings, ProviderSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from entra_fast.tokens._sidecar import SidecarEndpoint
from support.keys import Key
from support.provider import CLIENT_ID, CLIENT_KEY, PATHS, Provider, answer, granting, raw, refuse, segment

SCOPE = "nav:helse/sykepenger/afp.read"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
NEXT_KEY = Key.generate()
DETAILS = (
    '[{"type":"urn:altinn:systemuser","systemuser_org":'
    '{"authority":"iso6523-actorid-upis","ID":"0192:310000019"}, "n":123456789012345678901234567890}]'
)


@dataclass
class Scene:
    """A provider and a client of it, with the settings that NAIS would inject."""

    provider: Provider
    settings: ProviderSettings
    endpoint: TokenEndpoint
    tokens: TokenClient
    credentials: Credentials
    metrics: Metrics

    def credential_try(self) -> CredentialTry:
        return CredentialTry(self.settings.kind, self.endpoint, self.credentials, 5.0, Timing())

    def user_token(self, **claims: Any) -> str:
        return self.provider.mint(**claims)


@contextlib.asynccontextmanager
async def scene(name: str, **changes: str | None) -> AsyncIterator[Scene]:
    """The provider of this name; for another name, a generic one that the variables describe."""
    provider = Provider(paths=PATHS.get(name, PATHS["idporten"]))
    await provider.start()
    kind = next((kind for kind in BUILT_IN if kind.name == name), None)
    if kind is None:
        prefix = f"ENTRA_FAST_PROVIDER_{name.upper()}_"
        values = {"ISSUER": provider.issuer, "AUDIENCE": "none", "CLIENT_ID": CLIENT_ID, **changes}
        environ = {f"{prefix}{key}": value for key, value in values.items() if value is not None}
        environ["ENTRA_FAST_PROVIDERS"] = name
    else:
        environ = provider.variables(kind, **changes)
    (settings,) = Settings.from_environment(environ, Path("/nonexistent")).providers
    metrics, timing = Metrics(), Timing(uniform=lambda low, _: low)
    http = HttpClient(proxies={})
    credentials = Credentials(settings.credentials, settings.client_id)
    endpoint = TokenEndpoint(
        settings,
        finder=EndpointFinder(settings, http, metrics),
        http=http,
        credentials=credentials,
        metrics=metrics,
        timing=timing,
    )
    tokens = TokenClient(endpoint, TokenCache(), OutboundSettings(), metrics=metrics, timing=timing)
    try:
        yield Scene(provider, settings, endpoint, tokens, credentials, metrics)
    finally:
        await tokens.aclose()
        await http.aclose()
        await provider.stop()


def check_assertion(assertion: str, audience: str, *, sub: str | None, key: Key = CLIENT_KEY) -> None:
    """RFC 7523, section 3: who, for whom, and for 30 seconds from now."""
    header, claims = segment(assertion, 0), segment(assertion, 1)
    assert (header["alg"], header["kid"], header["typ"]) == ("RS256", key.kid, "JWT")
    assert (claims["iss"], claims.get("sub"), claims["aud"]) == (CLIENT_ID, sub, audience)
    assert claims["iat"] == claims["nbf"] == claims["exp"] - 30
    assert abs(claims["iat"] - time.time()) < 5
    assert len(claims["jti"]) >= 20


# --- Maskinporten ---


async def test_maskinporten_gets_a_signed_grant_and_nothing_else() -> None:
    """RFC 7523, section 2.1. Its issuer ends with a slash, and comes from an RFC 8414 document."""
    async with scene("maskinporten") as here:
        token = await here.tokens.acquire(SCOPE)
        (request,) = here.provider.requests
    assert request.form.keys() == {"grant_type", "assertion"}
    assert request.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    check_assertion(request.form["assertion"], here.provider.base_url + "/", sub=None)
    claims = segment(request.form["assertion"], 1)
    assert claims["scope"] == SCOPE
    assert claims.keys() == {"scope", "iss", "aud", "jti", "iat", "nbf", "exp"}
    assert segment(token.access_token, 1)["scope"] == SCOPE
    assert here.metrics.upstream.figures() == {("jwt_bearer", "ok", here.settings.name): [1]}


@pytest.mark.parametrize(
    ("resources", "claim"),
    [
        (("https://api.example",), "https://api.example"),
        (("https://a", "https://b"), ["https://a", "https://b"]),
    ],
)
async def test_maskinporten_gets_resources_and_authorization_details(
    resources: tuple[str, ...], claim: object
) -> None:
    """One resource as a string, as Texas sends it. The details are sent as they came."""
    async with scene("maskinporten") as here:
        await here.tokens.acquire(SCOPE, resources=resources, authorization_details=DETAILS)
        (request,) = here.provider.requests
    claims = segment(request.form["assertion"], 1)
    assert claims["resource"] == claim
    assert claims["authorization_details"] == json.loads(DETAILS)


async def test_different_resources_and_details_are_different_tokens() -> None:
    """Each combination is requested once, and is cached by itself."""
    wanted: list[dict[str, object]] = [
        {},
        {"resources": ("https://a",)},
        {"resources": ("https://a", "https://b")},
        {"resources": ("https://b",)},
        {"authorization_details": "[]"},
        {"authorization_details": '[{"type":"x"}]'},
        {"resources": ("https://a",), "authorization_details": '[{"type":"x"}]'},
    ]
    async with scene("maskinporten") as here:
        first = [(await here.tokens.acquire(SCOPE, **each)).access_token for each in wanted]  # type: ignore[arg-type]
        again = [(await here.tokens.acquire(SCOPE, **each)).access_token for each in wanted]  # type: ignore[arg-type]
        assert len(here.provider.requests) == len(wanted)
    assert first == again
    assert len(set(first)) == len(wanted)


async def test_a_renewal_asks_for_the_same_token() -> None:
    """With its resource and details."""
    async with scene("maskinporten") as here:
        before = await here.tokens.acquire(SCOPE, resources=("https://a",), authorization_details="[]")
        here.tokens.renew(SCOPE, resources=("https://a",), authorization_details="[]")
        await here.provider.asked(2)
        while here.tokens.in_flight:  # noqa: ASYNC110 - until the answer has been read
            await asyncio.sleep(0.005)
        after = await here.tokens.acquire(SCOPE, resources=("https://a",), authorization_details="[]")
        claims = [segment(request.form["assertion"], 1) for request in here.provider.requests]
    assert before.access_token != after.access_token
    assert {(each["resource"], str(each["authorization_details"])) for each in claims} == {
        ("https://a", "[]")
    }


@pytest.mark.parametrize(
    "failure", [answer(503, {}), raw(500, b"unknown internal server error", "text/plain")]
)
async def test_no_assertion_is_sent_twice(failure: object) -> None:
    """Maskinporten accepts each once, so a retry signs a new one."""
    async with scene("maskinporten") as here:
        here.provider.then(failure)  # type: ignore[arg-type]
        await here.tokens.acquire(SCOPE)
        one, two = (request.form["assertion"] for request in here.provider.requests)
    assert segment(one, 1)["jti"] != segment(two, 1)["jti"]


async def test_a_token_of_30_seconds_is_cached_for_15() -> None:
    """That is what NAIS's own scopes have."""
    async with scene("maskinporten") as here:
        here.provider.lifetime = 30
        first = await here.tokens.acquire(SCOPE)
        second = await here.tokens.acquire(SCOPE)
        assert len(here.provider.requests) == 1
    assert first.access_token == second.access_token
    assert 28 <= second.expires_in <= 30


@pytest.mark.parametrize(
    ("status", "error", "code", "description", "rejection"),
    [
        (400, "invalid_grant", 100, "Invalid assertion. Client authentication failed.", "MP-100"),
        (400, "invalid_grant", 110, "... Invalid JWT claim aud.", "MP-110"),
        (400, "invalid_grant", 121, "... Expired key.", "MP-121"),
        (400, "invalid_grant", 124, "... Invalid JWT signature.", "MP-124"),
        (400, "invalid_grant", None,
         "Client authentication failed. Unknown key identifier (kid) for client. (trace_id: 01234567)",
         "invalid_grant"),
        (401, "invalid_client", None, "x", "invalid_client"),
        (400, "invalid_grant", 130, "JWT is expired", None),
        (400, "invalid_request", 11, "Invalid assertion. Invalid parameter value", None),
        (400, "invalid_scope", 200, "Token request contains invalid scopes for client, x", None),
        (403, "forbidden", 250, "Consumer has not been granted access to the scope x.", None),
        (403, "forbidden", 251, "Consumer 1 has not delegated access to the scope x to supplier 2.", None),
        (400, "invalid_grant", 1000, "something new", None),
    ],
)  # fmt: skip
async def test_refusals_of_maskinporten(
    status: int, error: str, code: int | None, description: str, rejection: str | None
) -> None:
    """Passed on with `error_uri`, never retried. A closed list rejects the application or its key."""
    uri = {} if code is None else {"error_uri": f"https://test.maskinporten.no/errors/MP-{code:03}"}
    async with scene("maskinporten") as here:
        here.provider.always = refuse(status, error, description, **uri)
        with pytest.raises(ProviderError) as caught:
            await here.tokens.acquire(SCOPE)
        assert len(here.provider.requests) == 1
        state, reason = here.credentials.state()
    refusal = caught.value
    assert (refusal.status, refusal.error, refusal.message) == (status, error, description)
    assert refusal.details == uri
    assert here.credentials.rejection == rejection
    if rejection is None:
        assert state == "unknown"
    else:
        assert (state, reason) == (
            "rejected",
            f"the provider rejects the application or its credential ({rejection})",
        )


async def test_the_next_key_is_tried_when_maskinporten_rejects_the_current_one() -> None:
    """Its refusals of a key are `invalid_grant`."""
    async with scene("maskinporten", MASKINPORTEN_CLIENT_NEXT_JWK=NEXT_KEY.private_jwk()) as here:
        here.provider.then(
            refuse(400, "invalid_grant", "x Unknown key identifier (kid) for client. (trace_id: y)")
        )
        await here.tokens.acquire(SCOPE)
        await here.tokens.acquire(SCOPE, skip_cache=True)
        kids = [segment(request.form["assertion"], 0)["kid"] for request in here.provider.requests]
    assert kids == [CLIENT_KEY.kid, NEXT_KEY.kid, NEXT_KEY.kid]
    assert here.credentials.are_accepted


async def test_a_changed_key_is_tried_at_once(tmp_path: Path) -> None:
    """A refusal is remembered for a second, but not beyond the key that it was about, whatever its code."""
    key = tmp_path / "MASKINPORTEN_CLIENT_JWK"
    key.write_text(CLIENT_KEY.private_jwk())
    async with scene("maskinporten") as maskinporten:
        credentials = Credentials(
            CredentialSettings(jwk=Secret("MASKINPORTEN_CLIENT_JWK", path=key)),
            maskinporten.settings.client_id,
        )
        maskinporten.endpoint._credentials = credentials
        text = "Invalid assertion. Client authentication failed. Invalid JWT signature."
        uri = "https://maskinporten.example/errors/MP-124"
        maskinporten.provider.then(refuse(400, "invalid_grant", text, error_uri=uri))
        for _ in range(2):
            with pytest.raises(ProviderError):
                await maskinporten.tokens.acquire(SCOPE)
        assert len(maskinporten.provider.requests) == 1
        key.write_text(NEXT_KEY.private_jwk())
        await maskinporten.tokens.acquire(SCOPE)


async def test_what_maskinporten_was_sent_is_not_in_an_error() -> None:
    """Not the assertion, and no part of it."""

    async with scene("maskinporten") as here:

        async def echo(request: object, form: dict[str, str]) -> object:
            echoed = form["assertion"] + " " + form["assertion"].split(".")[2]
            return await refuse(400, "invalid_request", echoed)(request, form)  # type: ignore[arg-type]

        here.provider.then(echo)  # type: ignore[arg-type]
        with pytest.raises(ProviderError) as caught:
            await here.tokens.acquire(SCOPE)
    assert caught.value.message == "[removed] [removed]"


async def test_the_credential_is_tried_with_the_first_consumed_scope() -> None:
    """Its result is thrown away. A refusal of the scope shows that the credential is accepted."""
    for refusal in (None, refuse(403, "forbidden", "Consumer has not been granted access to the scope x.")):
        async with scene("maskinporten", MASKINPORTEN_SCOPES=f"{SCOPE} other") as here:
            here.provider.always = refusal
            tried = here.credential_try()
            tried.start()
            await here.provider.asked(1)
            while not here.credentials.are_accepted:  # noqa: ASYNC110 - until the answer has been read
                await asyncio.sleep(0.005)
            await tried.aclose()
            assert here.tokens.cached(SCOPE) is None
            (request,) = here.provider.requests
        assert segment(request.form["assertion"], 1)["scope"] == SCOPE


@pytest.mark.parametrize("name", ["maskinporten", "tokenx", "idporten"])
async def test_no_credential_is_tried_where_no_token_is_known(name: str) -> None:
    """TokenX and ID-porten have none for that, and Maskinporten only if it is named. The first use judges."""
    async with scene(name) as here:
        tried = here.credential_try()
        tried.start()
        await asyncio.sleep(0)
        await tried.aclose()
        assert here.provider.requests == []


async def test_only_a_jwk_can_sign_a_grant() -> None:
    """The settings refuse anything else; so does the credential itself."""
    credential = ClientSecret(Secret("SECRET", "hunter2"))
    with pytest.raises(ConfigurationError) as caught:
        credential.grant("client", "audience", {}, 0.0)
    assert caught.value.message == "SECRET: this grant needs a private JWK"


# --- TokenX ---


async def test_tokenx_exchanges_for_the_target_as_it_is_named() -> None:
    """RFC 8693, with a client assertion for the issuer and without a client id."""
    async with scene("tokenx") as here:
        user = here.user_token(pid="17858549949")
        token = await here.tokens.exchange("dev-gcp:team:api", user)
        (request,) = here.provider.requests
    assertion = request.form.pop("client_assertion")
    assert request.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "client_assertion_type": ASSERTION_TYPE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": user,
        "audience": "dev-gcp:team:api",
    }
    check_assertion(assertion, here.provider.base_url, sub=CLIENT_ID)
    assert segment(token.access_token, 1)["aud"] == "dev-gcp:team:api"
    assert segment(token.access_token, 1)["pid"] == "17858549949"
    assert here.metrics.upstream.figures() == {("token_exchange", "ok", here.settings.name): [1]}


async def test_an_exchanged_token_is_cached_for_its_user_and_target() -> None:
    """And not handed out once the user's token has expired, although TokenX's token lives on."""
    async with scene("tokenx") as here:
        one, two = here.user_token(sub="a"), here.user_token(sub="b")
        for _ in range(2):
            for user in (one, two):
                for target in ("dev-gcp:team:a", "dev-gcp:team:b"):
                    await here.tokens.exchange(target, user)
        assert len(here.provider.requests) == 4
        ending = here.user_token(exp=int(time.time()) + 1)
        await here.tokens.exchange("dev-gcp:team:a", ending)
        here.tokens._timing = Timing(clock=lambda: time.time() + 2)
        with pytest.raises(ProviderError) as caught:
            await here.tokens.exchange("dev-gcp:team:a", ending)
    assert caught.value.code == "subject_token_expired"


@pytest.mark.parametrize(
    ("status", "error", "description", "rejected"),
    [
        (
            401,
            "invalid_client",
            "invalid client authentication for client_id=x, client not registered.",
            True,
        ),
        (401, "invalid_client", "Client authentication failed: sub must be present in assertion", True),
        (400, "invalid_request", "token verification failed: Signed+JWT+rejected%3A+Invalid+signature", True),
        (
            400,
            "invalid_request",
            "invalid client authentication for client_id=x, client not registered.",
            True,
        ),
        (400, "invalid_request", "invalid subject_token: token verification failed: Expired+JWT", False),
        (400, "invalid_request", "invalid subject_token: not registered", False),
        (400, "invalid_request", "token exchange audience dev-gcp:team:none is invalid", False),
        (400, "invalid_request", "client 'x' is not authorized to get token with aud=y", False),
        (400, "invalid_request", "Parameter audience missing", False),
        (403, "access_denied", "could not find authorizer for grant_type=null", False),
        (400, "invalid_scope", "token verification failed", False),
    ],
)
async def test_refusals_of_tokenx(status: int, error: str, description: str, rejected: bool) -> None:
    """Passed on as they are. What is wrong with one user's token condemns no credential."""
    async with scene("tokenx") as here:
        here.provider.always = refuse(status, error, description)
        with pytest.raises(ProviderError) as caught:
            await here.tokens.exchange("dev-gcp:team:api", here.user_token())
        assert len(here.provider.requests) == 1
    assert (caught.value.status, caught.value.error, caught.value.message) == (status, error, description)
    assert (here.credentials.rejection is not None) is rejected


async def test_an_internal_error_of_tokenx_is_text() -> None:
    """Status 500, retried, and then passed on as `server_error`."""
    async with scene("tokenx") as here:
        here.provider.always = raw(500, b"unknown internal server error", "text/plain")
        with pytest.raises(ProviderError) as caught:
            await here.tokens.exchange("dev-gcp:team:api", here.user_token())
        assert len(here.provider.requests) == 2
    assert (caught.value.code, caught.value.status, caught.value.error) == (
        "provider_failed", 500, "server_error",
    )  # fmt: skip


async def test_the_issuer_may_come_from_discovery_although_the_endpoint_is_set() -> None:
    """An assertion names it, so the document is asked for."""
    async with scene("tokenx") as here:
        endpoint = {"TOKEN_X_TOKEN_ENDPOINT": here.provider.token_endpoint}
        environ = here.provider.variables(TOKENX, **endpoint)
        (settings,) = Settings.from_environment(environ, Path("/nonexistent")).providers
        finder = EndpointFinder(settings, HttpClient(proxies={}), Metrics())
        assert await finder.token_endpoint() == here.provider.token_endpoint
        assert here.provider.discovery_requests == 0
        assert await finder.issuer() == here.provider.issuer
        assert here.provider.discovery_requests == 1


# --- Entra ID ---


async def test_entra_id_gets_an_assertion_for_its_token_endpoint() -> None:
    """And `claims` where a caller has a challenge."""
    async with scene("entra_id") as here:
        await here.tokens.acquire("dev-gcp:team:api", claims="{}")
        await here.tokens.exchange("dev-gcp:team:api", here.user_token())
        for request in here.provider.requests:
            check_assertion(request.form["client_assertion"], here.provider.token_endpoint, sub=CLIENT_ID)
            assert request.form["scope"] == "api://dev-gcp.team.api/.default"
    assert here.metrics.upstream.figures() == {
        ("client_credentials", "ok", here.settings.name): [1],
        ("on_behalf_of", "ok", here.settings.name): [1],
    }


# --- generic providers ---


@pytest.mark.parametrize(
    ("audience", "expected"), [(None, "issuer"), ("issuer", "issuer"), ("token_endpoint", "token_endpoint")]
)
async def test_a_generic_provider_with_client_credentials(audience: str | None, expected: str) -> None:
    """An assertion for its issuer, or for its token endpoint; the target is the scope."""
    changes = {
        "TOKEN_GRANT": "client_credentials",
        "JWK": CLIENT_KEY.private_jwk(),
        "ASSERTION_AUDIENCE": audience,
    }
    async with scene("other", **changes) as here:
        await here.tokens.acquire("dev-gcp:team:api")
        (request,) = here.provider.requests
    assertion = request.form.pop("client_assertion")
    check_assertion(assertion, getattr(here.provider, expected), sub=CLIENT_ID)
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_assertion_type": ASSERTION_TYPE,
        "scope": "dev-gcp:team:api",
    }


async def test_a_generic_provider_with_a_client_secret() -> None:
    """`client_secret_post`, with the client id in every request."""
    changes = {
        "TOKEN_GRANT": "client_credentials",
        "EXCHANGE_GRANT": "token_exchange",
        "CLIENT_SECRET": "hunter2",
    }
    async with scene("other", **changes) as here:
        await here.tokens.acquire("api.read")
        await here.tokens.exchange("api", user := here.user_token())
        own, exchanged = (request.form for request in here.provider.requests)
    assert own == {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_secret": "hunter2",
        "scope": "api.read",
    }
    assert exchanged == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "client_id": CLIENT_ID,
        "client_secret": "hunter2",
        "subject_token": user,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "api",
    }


async def test_a_generic_provider_with_a_federated_token(tmp_path: Path) -> None:
    """The assertion of the platform does not name the client, so the form does."""
    (tmp_path / "token").write_text("platform.issued.token")
    changes = {"EXCHANGE_GRANT": "token_exchange", "FEDERATED_TOKEN_FILE": str(tmp_path / "token")}
    async with scene("other", **changes) as here:
        await here.tokens.exchange("api", here.user_token())
        (request,) = here.provider.requests
    assert request.form["client_assertion"] == "platform.issued.token"
    assert request.form["client_id"] == CLIENT_ID


async def test_a_generic_provider_with_a_signed_grant() -> None:
    """Like Maskinporten, with the audience of its assertions."""
    changes = {
        "TOKEN_GRANT": "jwt_bearer",
        "JWK": CLIENT_KEY.private_jwk(),
        "ASSERTION_AUDIENCE": "token_endpoint",
    }
    async with scene("other", **changes) as here:
        await here.tokens.acquire("x.read", resources=("https://a",))
        (request,) = here.provider.requests
    assert request.form.keys() == {"grant_type", "assertion"}
    check_assertion(request.form["assertion"], here.provider.token_endpoint, sub=None)
    assert segment(request.form["assertion"], 1)["resource"] == "https://a"


async def test_a_generic_provider_with_entra_id_s_exchange() -> None:
    """On behalf of a user."""
    changes = {"EXCHANGE_GRANT": "on_behalf_of", "JWK": CLIENT_KEY.private_jwk()}
    async with scene("other", **changes) as here:
        await here.tokens.exchange("api.read", user := here.user_token())
        (request,) = here.provider.requests
    assert (request.form["requested_token_use"], request.form["assertion"]) == ("on_behalf_of", user)
    check_assertion(request.form["client_assertion"], here.provider.issuer, sub=CLIENT_ID)


# --- what a provider does not support ---


@pytest.mark.parametrize(
    ("name", "exchange", "sentence"),
    [
        ("tokenx", False, "identity provider 'tokenx' does not support token requests"),
        ("maskinporten", True, "identity provider 'maskinporten' does not support token exchange"),
        ("idporten", False, "identity provider 'idporten' does not support token requests"),
        ("idporten", True, "identity provider 'idporten' does not support token exchange"),
        ("ansattporten", False, "identity provider 'ansattporten' does not support token requests"),
        ("ansattporten", True, "identity provider 'ansattporten' does not support token exchange"),
        ("other", False, "identity provider 'other' does not support token requests"),
        ("other", True, "identity provider 'other' does not support token exchange"),
    ],
)
async def test_requests_that_a_provider_does_not_support(name: str, exchange: bool, sentence: str) -> None:
    """In the words of Texas; nothing is sent."""
    async with scene(name) as here:
        tokens = here.tokens
        request = tokens.exchange("no target", "") if exchange else tokens.acquire("no target")
        with pytest.raises(EntraFastError) as caught:
            await request
        assert (here.provider.requests, here.provider.discovery_requests) == ([], 0)
    assert (caught.value.code, caught.value.message) == ("grant_unsupported", sentence)


@pytest.mark.parametrize(
    ("name", "field", "fields"),
    [
        ("entra_id", "resource", {"resources": ("https://a",)}),
        ("entra_id", "authorization_details", {"authorization_details": "[]"}),
        ("maskinporten", "claims", {"claims": "{}"}),
    ],
)
async def test_fields_that_a_provider_does_not_support(
    name: str, field: str, fields: dict[str, object]
) -> None:
    """A field that would be dropped is refused, because the token would mean something else."""
    async with scene(name) as here:
        with pytest.raises(EntraFastError) as caught:
            await here.tokens.acquire(SCOPE, **fields)  # type: ignore[arg-type]
        assert here.provider.requests == []
    assert (caught.value.code, caught.value.message) == (
        "field_unsupported",
        f"identity provider '{name}' does not support the field '{field}'",
    )


async def test_a_claims_challenge_is_refused_at_the_exchange_of_tokenx() -> None:
    """It has none."""
    async with scene("tokenx") as here:
        with pytest.raises(EntraFastError) as caught:
            await here.tokens.exchange("dev-gcp:team:api", here.user_token(), claims="{}")
    assert caught.value.code == "field_unsupported"


@pytest.mark.parametrize(
    "details",
    [
        "",
        "{}",
        '{"type":"x"}',
        "null",
        "42",
        "[1]",
        '["x"]',
        "[",
        "[{}],{}",
        '[{"a":1,"a":2}]',
        "[" + "{}," * 9000 + "{}]",
    ],
    ids=lambda text: text[:12],
)
async def test_authorization_details_are_an_array_of_objects(details: str) -> None:
    """Nothing else reaches the assertion, and no error repeats them."""
    async with scene("maskinporten") as here:
        with pytest.raises(EntraFastError) as caught:
            await here.tokens.acquire(SCOPE, authorization_details=details)
        assert here.provider.requests == []
    assert caught.value.code == "authorization_details_invalid"


@pytest.mark.parametrize("resources", [("",), ("a", ""), ("x" * 2048, "x" * 2049), ("x",) * 17, ("\ud800",)])
async def test_resources_are_few_and_short(resources: tuple[str, ...]) -> None:
    """The bounds are those of the contract: at most 16, of at most 4096 bytes together."""
    async with scene("maskinporten") as here:
        with pytest.raises(EntraFastError) as caught:
            await here.tokens.acquire(SCOPE, resources=resources)
    assert caught.value.code == "resource_invalid"


@pytest.mark.parametrize("resources", [("x" * 4096,), ("æ" * 1024, "x" * 2048), ("a b",), ("x",) * 16])
async def test_any_text_is_a_resource(resources: tuple[str, ...]) -> None:
    """The sidecar's contract accepts it, so the client behind it does; the provider decides."""
    async with scene("maskinporten") as here:
        await here.tokens.acquire(SCOPE, resources=resources)
        (request,) = here.provider.requests
    sent = segment(request.form["assertion"], 1)["resource"]
    assert sent == (resources[0] if len(resources) == 1 else list(resources))


async def test_an_answer_that_is_no_access_token_is_refused() -> None:
    """RFC 8693, section 2.2.1: `N_A` means that it is no access token."""
    async with scene("tokenx") as here:
        here.provider.then(granting(here.provider, token_type="N_A"))
        with pytest.raises(ProviderError) as caught:
            await here.tokens.exchange("dev-gcp:team:api", here.user_token())
    assert caught.value.code == "provider_answer_malformed"


# --- endpoints ---


async def test_a_provider_without_grants_needs_no_token_endpoint() -> None:
    """Its document may lack one."""
    async with scene("idporten") as here:
        finder = EndpointFinder(here.settings, HttpClient(proxies={}), Metrics())
        endpoints = await finder.find()
    assert (endpoints.issuer, endpoints.jwks_uri, endpoints.token_endpoint) == (
        here.provider.base_url,
        here.provider.jwks_uri,
        "",
    )
    assert here.credentials.state() == ("none", None)


async def test_an_endpoint_that_is_set_is_not_taken_from_the_document() -> None:
    """There, it may be on another host: only the others are asked for."""
    async with scene("maskinporten", MASKINPORTEN_JWKS_URI="https://keys.example/jwk") as here:
        endpoints = await EndpointFinder(here.settings, HttpClient(proxies={}), Metrics()).find()
    assert endpoints.jwks_uri == "https://keys.example/jwk"
    assert (endpoints.issuer, endpoints.token_endpoint) == (
        here.provider.issuer,
        here.provider.token_endpoint,
    )


@pytest.mark.parametrize(
    ("resources", "sent"),
    [(("https://a",), "https://a"), (("https://a", "https://b"), ["https://a", "https://b"])],
)
async def test_a_sidecar_is_asked_with_resources_and_details(
    resources: tuple[str, ...], sent: str | list[str]
) -> None:
    """One resource is a string, as Texas knows it, and several are an array."""
    requests: list[dict[str, Any]] = []

    async def token(request: web.Request) -> web.Response:
        requests.append(await request.json())
        return web.json_response({"access_token": "token", "expires_in": 60, "token_type": "Bearer"})

    app = web.Application()
    app.router.add_post("/token", token)
    async with TestServer(app) as server, contextlib.aclosing(HttpClient(proxies={})) as http:
        url, timing = str(server.make_url("/token")), Timing()
        endpoint = SidecarEndpoint(url, url, "maskinporten", http=http, timing=timing)
        wanted = WantedToken(b"", "jwt_bearer", "scope", resources=resources, authorization_details="[{}]")
        fetched = await endpoint.request(wanted, timing.monotonic() + 5)
    assert fetched.access_token == "token"
    assert requests == [
        {
            "identity_provider": "maskinporten",
            "target": "scope",
            "resource": sent,
            "authorization_details": "[{}]",
        }
    ]
