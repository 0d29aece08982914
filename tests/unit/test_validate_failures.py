"""What validators do without anything to fetch, and when discovery fails."""

from __future__ import annotations

import socket

import pytest

from entra_fast.validate import AsyncValidator, ConfigurationError, KeysUnavailable, Validator
from support.tokens import AUDIENCE, ISSUER, good_claims, jwks, signer

KEY = signer()


def test_a_validator_with_fixed_keys_has_nothing_to_start_or_close() -> None:
    """Both do nothing, and tokens are validated before, between and after."""
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(KEY))
    token = KEY.token(good_claims())
    one.start()
    one.close()
    assert one.explain(token)


async def test_explain_is_the_same_for_asyncio() -> None:
    """One row per check, as from `Validator.explain`."""
    token = KEY.token(good_claims())
    one = AsyncValidator(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: 1_800_000_000.0)
    two = Validator(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: 1_800_000_000.0)
    assert one.explain(token) == two.explain(token)
    # By the wall clock, which goes on between the two.
    rows = AsyncValidator(ISSUER, AUDIENCE, jwks=jwks(KEY)).explain(token)
    others = Validator(ISSUER, AUDIENCE, jwks=jwks(KEY)).explain(token)
    assert [row["passed"] for row in rows] == [row["passed"] for row in others]


async def test_discovery_that_cannot_be_fetched() -> None:
    """KeysUnavailable with the reason, for threads and for asyncio."""
    with socket.socket() as taken:  # bound, and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/.well-known/openid-configuration"
        with pytest.raises(KeysUnavailable, match="fetching failed: ") as blocking:
            Validator.from_discovery(url, AUDIENCE)
        with pytest.raises(KeysUnavailable, match="fetching failed: ") as asynchronous:
            await AsyncValidator.from_discovery(url, AUDIENCE)
    assert blocking.value.code == asynchronous.value.code == "keys_unavailable"


async def test_discovery_from_something_that_is_no_url() -> None:
    """A ConfigurationError before anything is fetched."""
    with pytest.raises(ConfigurationError, match="the URL of the discovery document"):
        Validator.from_discovery("ftp://example", AUDIENCE)
    with pytest.raises(ConfigurationError, match="the URL of the discovery document"):
        await AsyncValidator.from_discovery("ftp://example", AUDIENCE)


def test_keys_from_two_places() -> None:
    """A key set and a URL for one contradict each other."""
    with pytest.raises(ConfigurationError, match="exactly one of jwks_uri and jwks"):
        Validator(ISSUER, AUDIENCE, jwks=jwks(KEY), jwks_uri="https://login.example/keys")
