"""A provider that was not written here: NAV's mock-oauth2-server, with this project's sidecar and library.

Skipped where there is no Java or Maven, or no way to fetch it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from entra_fast._settings.load import Settings
from entra_fast.errors import InvalidToken
from entra_fast.sidecar.process.running import start_sidecar
from entra_fast.validate import Validator
from support.mock_oauth2_server import mock_oauth2_server
from support.sidecars import eventually
from support.wire import Caller

CLIENT_ID = "7f3c1f6e-4a39-4d0a-9a52-7d4f5f0c2b11"
CONFIGURATION = {
    "interactiveLogin": False,
    "tokenCallbacks": [
        {
            "issuerId": "azuread",
            "requestMappings": [
                {
                    "requestParam": "grant_type",
                    "match": "*",
                    "claims": {"aud": [CLIENT_ID], "azp_name": "dev-gcp:team:app", "sub": "${clientId}"},
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's issuer `azuread`, as a URL."""
    with mock_oauth2_server(tmp_path_factory.mktemp("java"), CONFIGURATION) as base:
        yield f"{base}/azuread"


@pytest_asyncio.fixture
async def sidecar(issuer: str) -> AsyncIterator[Caller]:
    """A sidecar that is configured only with the discovery document."""
    settings = Settings.from_environment(
        {
            "BIND_ADDRESS": "127.0.0.1:0",
            "AZURE_APP_CLIENT_ID": CLIENT_ID,
            "AZURE_APP_TENANT_ID": "azuread",
            "AZURE_APP_CLIENT_SECRET": "some secret",
            "AZURE_APP_WELL_KNOWN_URL": f"{issuer}/.well-known/openid-configuration",
        }
    )
    running = await start_sidecar(settings)
    caller = Caller(running.address)

    async def ready() -> bool:
        return (await caller.get("/readyz")).status == 200

    await eventually(ready)
    yield caller
    await running.stop()


async def test_the_sidecar_acquires_exchanges_and_introspects(sidecar: Caller) -> None:
    """Discovery, client credentials, on behalf of, and introspection, at a provider of another kind."""
    answer = await sidecar.token("api://dev-gcp.team.app/.default")
    assert answer.status == 200, answer.body
    token = answer.json["access_token"]
    introspected = (await sidecar.introspect(token)).json
    assert introspected["active"] is True
    assert introspected["azp_name"] == "dev-gcp:team:app"
    exchanged = await sidecar.exchange(token, "api://dev-gcp.team.other/.default")
    assert exchanged.status == 200, exchanged.body
    assert (await sidecar.introspect(exchanged.json["access_token"])).json["active"] is True
    tampered = (await sidecar.introspect(token[:-8] + "AAAAAAAA")).json
    assert tampered == {"active": False, "error": "token signature is invalid"}


async def test_the_library_validates_its_tokens(sidecar: Caller, issuer: str) -> None:
    """The validator finds issuer and keys by discovery, and refuses a token for another audience."""
    token = (await sidecar.token("api://dev-gcp.team.app/.default")).json["access_token"]
    url = f"{issuer}/.well-known/openid-configuration"
    with Validator.from_discovery(url, CLIENT_ID) as validator:
        assert validator.validate(token)["iss"] == issuer
    with Validator.from_discovery(url, "somebody else") as validator:
        with pytest.raises(InvalidToken) as refused:
            validator.validate(token)
        assert refused.value.code == "wrong_audience"
