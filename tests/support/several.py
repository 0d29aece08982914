"""A provider of each kind, and the settings with which a sidecar serves all of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from support.keys import Key
from support.provider import CLIENT_ID, CLIENT_KEY, Provider, Script, segment


@dataclass(frozen=True)
class Kind:
    """What a test has to know of a kind of provider.

    Attributes:
        name: as `identity_provider` names it.
        audience: that of tokens for the application; None where it is not checked.
        issues: whether `/api/v1/token` has it.
        exchanges: whether `/api/v1/token/exchange` has it.
        target: one that the sidecar sends as `scope`.
        knows_details: whether `resource` and `authorization_details` are passed on.
    """

    name: str
    audience: str | None
    issues: bool
    exchanges: bool
    prefix: str
    variables: tuple[tuple[str, str], ...]
    target: str = "scope"
    knows_details: bool = False

    def environment(self, provider: Provider) -> dict[str, str]:
        """What the platform injects for it."""
        endpoints = {
            f"{self.prefix}ISSUER": provider.issuer,
            f"{self.prefix}JWKS_URI": provider.jwks_uri,
        }
        if self.issues or self.exchanges:
            endpoints[f"{self.prefix}TOKEN_ENDPOINT"] = provider.token_endpoint
        return {**endpoints, **dict(self.variables)}

    def mint(self, provider: Provider, *, key: Key | None = None, **claims: Any) -> str:
        """A token of it for the application."""
        return provider.mint(key=key, **{"aud": self.audience, **claims})


_JWK = CLIENT_KEY.private_jwk()
ENTRA = Kind(
    "entra_id",
    CLIENT_ID,
    True,
    True,
    "AZURE_OPENID_CONFIG_",
    (("AZURE_ENABLED", "true"), ("AZURE_APP_CLIENT_ID", CLIENT_ID), ("AZURE_APP_JWK", _JWK)),
    target="api://c.n.a/.default",
)
MASKINPORTEN = Kind(
    "maskinporten",
    None,
    True,
    False,
    "MASKINPORTEN_",
    (
        ("MASKINPORTEN_ENABLED", "true"),
        ("MASKINPORTEN_CLIENT_ID", "machine"),
        ("MASKINPORTEN_CLIENT_JWK", _JWK),
    ),
    target="nav:helse/x.read",
    knows_details=True,
)
TOKENX = Kind(
    "tokenx",
    "dev-gcp:team:app",
    False,
    True,
    "TOKEN_X_",
    (
        ("TOKEN_X_ENABLED", "true"),
        ("TOKEN_X_CLIENT_ID", "dev-gcp:team:app"),
        ("TOKEN_X_PRIVATE_JWK", _JWK),
    ),
    target="dev-gcp:team:api",
)
IDPORTEN = Kind(
    "idporten",
    "https://app.example",
    False,
    False,
    "IDPORTEN_",
    (("IDPORTEN_ENABLED", "true"), ("IDPORTEN_AUDIENCE", "https://app.example")),
)
ANSATTPORTEN = Kind(
    "ansattporten",
    "https://employees.example",
    False,
    False,
    "ANSATTPORTEN_",
    (("ANSATTPORTEN_ENABLED", "true"), ("ANSATTPORTEN_AUDIENCE", "https://employees.example")),
)
GENERIC = Kind(
    "partner",
    "our-api",
    True,
    True,
    "ENTRA_FAST_PROVIDER_PARTNER_",
    (
        ("ENTRA_FAST_PROVIDERS", "partner"),
        ("ENTRA_FAST_PROVIDER_PARTNER_AUDIENCE", "our-api"),
        ("ENTRA_FAST_PROVIDER_PARTNER_CLIENT_ID", "us"),
        ("ENTRA_FAST_PROVIDER_PARTNER_JWK", _JWK),
        ("ENTRA_FAST_PROVIDER_PARTNER_TOKEN_GRANT", "client_credentials"),
        ("ENTRA_FAST_PROVIDER_PARTNER_EXCHANGE_GRANT", "token_exchange"),
    ),
)
KINDS = (ENTRA, MASKINPORTEN, TOKENX, IDPORTEN, ANSATTPORTEN, GENERIC)
BY_NAME = {kind.name: kind for kind in KINDS}


class Several:
    """Running providers, by name."""

    def __init__(self, kinds: Iterable[Kind] = KINDS) -> None:
        self.kinds = tuple(kinds)
        self.providers = {kind.name: Provider() for kind in self.kinds}

    def __getitem__(self, name: str) -> Provider:
        return self.providers[name]

    def grant_alike(self) -> None:
        """From now on, a provider answers requests for the same with the same token, and no other provider
        does so."""
        for name, provider in self.providers.items():
            provider.always = _granting_alike(name)

    def mint(self, name: str, **changes: Any) -> str:
        """A token for the application, of the provider with this name."""
        return BY_NAME[name].mint(self.providers[name], **changes)

    def environment(self, **changes: str | None) -> dict[str, str]:
        """The settings of a sidecar that serves all of them. A change of None leaves a variable out."""
        environ: dict[str, str | None] = {"BIND_ADDRESS": "127.0.0.1:0", "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0"}
        for kind in self.kinds:
            environ |= kind.environment(self.providers[kind.name])
        return {name: value for name, value in {**environ, **changes}.items() if value is not None}


def _granting_alike(name: str) -> Script:
    proofs = ("client_assertion", "client_assertion_type")

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        asked: dict[str, object] = {field: value for field, value in form.items() if field not in proofs}
        if form["grant_type"].endswith(":jwt-bearer") and "requested_token_use" not in form:
            claims = segment(form["assertion"], 1)
            asked["assertion"] = [
                claims.get(claim) for claim in ("scope", "resource", "authorization_details")
            ]
        digest = hashlib.sha256(json.dumps([name, asked], sort_keys=True).encode()).hexdigest()
        issued = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
        return web.json_response(
            {"token_type": "Bearer", "expires_in": 3599, "access_token": f"{name}-{digest}", **issued}
        )

    return script


@asynccontextmanager
async def several(*kinds: Kind) -> AsyncIterator[Several]:
    """One provider of each of these kinds, or of all."""
    running = Several(kinds or KINDS)
    await asyncio.gather(*(provider.start() for provider in running.providers.values()))
    try:
        yield running
    finally:
        await asyncio.gather(*(provider.stop() for provider in running.providers.values()))
