"""The library validates what the local TokenX and the local Maskinporten issue, by the variables that they
give an application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from entra_fast import Forbidden, Require
from entra_fast.errors import InvalidToken
from entra_fast.validate import AsyncValidator
from support.local_entra import Clock, served
from support.local_providers import (
    CUSTOMER,
    OWN,
    MaskinportenCaller,
    TokenXCaller,
    full,
    local_providers,
    workload,
)

SCOPE: Final = "nav:helse/x.read"
MANIFESTS: Final = [
    workload(
        "api",
        rules=[{"application": "web"}],
        azure=True,
        consumes=[],
        exposes=[
            {
                "enabled": True,
                "product": "helse",
                "name": "x.read",
                "separator": "/",
                "consumers": [{"orgno": CUSTOMER}],
            }
        ],
    ),
    workload("web"),
    workload("partner", consumes=[SCOPE], organization=CUSTOMER),
]


@pytest_asyncio.fixture
async def tokenx(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenXCaller]:
    """A running system, with the variables of the called application."""
    async with served(local_providers(MANIFESTS, clock=clock)) as caller:
        for name, value in caller.local.environment(full("api")).items():
            monkeypatch.setenv(name, value)
        yield TokenXCaller(caller)


async def test_a_citizen_and_an_organization(tokenx: TokenXCaller, clock: Clock) -> None:
    """One validator for both, which knows who calls in each case."""
    exchanged = (await tokenx.exchange("web", "api", tokenx.login())).json["access_token"]
    partner = MaskinportenCaller(tokenx.caller)
    granted = (await partner.token("partner", SCOPE)).json["access_token"]
    validator = await AsyncValidator.from_env(["entra_id", "tokenx", "maskinporten"], clock=clock)
    async with validator:
        citizen, organization = [await validator.validate(token) for token in (exchanged, granted)]
    required = Require(issuer=tokenx.issuer, client=full("web"), acr_at_least="Level4")
    required |= Require(issuer=partner.issuer, scope=SCOPE, consumer_orgno=CUSTOMER)
    for claims in (citizen, organization):
        claims.require(required)
    assert (citizen.authorized_party, citizen.pid, citizen.consumer_orgno) == (
        full("web"),
        "17858549949",
        None,
    )
    assert (organization.scopes, organization.consumer_orgno, organization.pid) == ((SCOPE,), CUSTOMER, None)
    with pytest.raises(Forbidden):
        organization.require(consumer_orgno=OWN)


async def test_a_token_for_another_application(tokenx: TokenXCaller, clock: Clock) -> None:
    """TokenX's audience is the application's name."""
    exchanged = (await tokenx.exchange("web", "api", tokenx.login())).json["access_token"]
    async with await AsyncValidator.from_env("tokenx", audience=full("web"), clock=clock) as validator:
        with pytest.raises(InvalidToken) as caught:
            await validator.validate(exchanged)
    assert caught.value.code == "wrong_audience"
