"""The clients of the sidecar at the local providers: with the variables of an application, and over HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache, unverified_claims
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing
from entra_fast._settings.load import Settings
from entra_fast._settings.model import OutboundSettings
from entra_fast.errors import ProviderError
from support.local_entra import Caller, served
from support.local_providers import CUSTOMER, OWN, full, local_providers, workload

SCOPE = "nav:helse/sykepenger/afp.read"
EXPOSED = {
    "enabled": True,
    "product": "helse",
    "name": "sykepenger/afp.read",
    "atMaxAge": 300,
    "consumers": [{"orgno": OWN}],
}
MANIFESTS = [
    workload("web", consumes=[SCOPE, "nav:not:granted"], azure=True),
    workload("api", rules=[{"application": "web"}], exposes=[EXPOSED]),
    workload("api2", rules=[{"application": "api"}]),
]


@contextlib.asynccontextmanager
async def client(caller: Caller, application: str, provider: str) -> AsyncIterator[TokenClient]:
    """The client that a sidecar of the application would have, with the well-known URL alone."""
    environment = {
        name: value
        for name, value in caller.local.environment(full(application)).items()
        if not name.endswith(("_ISSUER", "_JWKS_URI", "_TOKEN_ENDPOINT"))
    }
    settings = Settings.from_environment(environment, Path("/nonexistent"))
    found = next(item for item in settings.providers if item.kind.name == provider)
    metrics, timing, http = Metrics(), Timing(), HttpClient(proxies={})
    credentials = Credentials(found.credentials, found.client_id)
    finder = EndpointFinder(found, http, metrics)
    endpoint = TokenEndpoint(
        found, finder=finder, http=http, credentials=credentials, metrics=metrics, timing=timing
    )
    tokens = TokenClient(endpoint, TokenCache(), OutboundSettings(), metrics=metrics, timing=timing)
    try:
        yield tokens
    finally:
        await tokens.aclose()
        await http.aclose()


async def test_a_chain_of_exchanges() -> None:
    """From a citizen's token of ID-porten to a token for the second API."""
    async with served(local_providers(MANIFESTS)) as caller:
        citizens = caller.local.providers.idporten.token_without_login("17858549949", "idporten-loa-high")
        async with client(caller, "web", "tokenx") as web, client(caller, "api", "tokenx") as api:
            first = await web.exchange(full("api"), citizens)
            second = await api.exchange(full("api2"), first.access_token)
        claims = unverified_claims(second.access_token)
        assert (claims["pid"], claims["client_id"]) == ("17858549949", full("api"))
        assert claims["idp"] == f"{caller.base_url}/idporten"


async def test_a_refusal_of_tokenx() -> None:
    """Reaches the application with the provider's sentence."""
    async with served(local_providers(MANIFESTS)) as caller:
        citizens = caller.local.providers.idporten.token_without_login("17858549949", "idporten-loa-high")
        async with client(caller, "web", "tokenx") as web:
            with pytest.raises(ProviderError, match="is not authorized to get token with aud="):
                await web.exchange(full("api2"), citizens)


async def test_tokens_of_maskinporten() -> None:
    """Plain, for a resource, and for the system user of a customer; each request has a grant of its own."""
    details = json.dumps(
        [
            {
                "type": "urn:altinn:systemuser",
                "systemuser_org": {"authority": "iso6523-actorid-upis", "ID": f"0192:{CUSTOMER}"},
            }
        ]
    )
    async with served(local_providers(MANIFESTS)) as caller, client(caller, "web", "maskinporten") as web:
        plain = await web.acquire(SCOPE)
        assert 295 < plain.expires_in <= 300
        for resource in (("https://a.example",), ("https://a.example", "https://b.example")):
            token = await web.acquire(SCOPE, resources=resource)
            expected = resource[0] if len(resource) == 1 else list(resource)
            assert unverified_claims(token.access_token)["aud"] == expected
        system = await web.acquire(SCOPE, authorization_details=details)
        (entry,) = unverified_claims(system.access_token)["authorization_details"]
        assert entry["systemuser_id"]
        with pytest.raises(ProviderError, match="has not been granted access"):
            await web.acquire("nav:not:granted")
