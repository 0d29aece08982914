"""Tests without mocks: tokens of a local Entra ID that your validators verify for real, without a network.

    def test_cases(client, entra_token):                      # fixtures of the pytest plugin
        token = entra_token("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", user="ada")
        assert client.get("/cases", headers={"Authorization": f"Bearer {token}"}).status_code == 200

For tokens of TokenX, Maskinporten, ID-porten and Ansattporten there are the fixtures `local_tokenx`,
`local_maskinporten`, `local_idporten` and `local_ansattporten`. The plugin is active where entra-fast is
installed. For unittest there is `EntraTestCase`. Needs the extra `dev`, for tests only.

What belongs here: public names. The local Entra ID is imported when a test uses it: this module is imported
by pytest at every start.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson

from entra_fast._claims import UnverifiedClaims

if TYPE_CHECKING:
    from entra_fast.testing._clock import Clock
    from entra_fast.testing._local import LocalEntra
    from entra_fast.testing._providers import (
        LocalAnsattporten,
        LocalIDPorten,
        LocalMaskinporten,
        LocalTokenX,
        ProviderTokens,
    )
    from entra_fast.testing._tokens import TokenMaker
    from entra_fast.testing._unittest import EntraTestCase

__all__ = [
    "Clock",
    "EntraTestCase",
    "LocalAnsattporten",
    "LocalEntra",
    "LocalIDPorten",
    "LocalMaskinporten",
    "LocalTokenX",
    "ProviderTokens",
    "TokenMaker",
    "UnverifiedClaims",
    "claims",
]

_PLACES = {
    "Clock": "_clock",
    "EntraTestCase": "_unittest",
    "LocalAnsattporten": "_providers",
    "LocalEntra": "_local",
    "LocalIDPorten": "_providers",
    "LocalMaskinporten": "_providers",
    "LocalTokenX": "_providers",
    "ProviderTokens": "_providers",
    "TokenMaker": "_tokens",
}


def claims(**values: Any) -> UnverifiedClaims:
    """Claims for a unit test of code that gets them as an argument. No token stands behind them, and their
    type says so.

    Args:
        values: the claims. `iss`, `aud`, `sub`, `tid`, `iat` and `exp` have defaults; None leaves one out.
    """
    now = int(time.time())
    content: dict[str, Any] = {
        "iss": "https://unverified.test/v2.0",
        "aud": "unverified",
        "sub": "unverified",
        "tid": "00000000-0000-0000-0000-000000000000",
        "iat": now,
        "exp": now + 3600,
        **values,
    }
    kept = {name: value for name, value in content.items() if value is not None}
    return UnverifiedClaims(orjson.dumps(kept).decode())


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        import importlib  # noqa: PLC0415 - late, like what it imports

        return getattr(importlib.import_module(f"entra_fast.testing.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
