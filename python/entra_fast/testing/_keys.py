"""The signing keys of tests. They are published with this package, because making new ones takes longer than
most tests: anyone can sign with them, and a validator accepts them only if a test gives them to it."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entra_fast.emulator.protocol.private_key import PrivateKey


def published() -> list[dict[str, Any]]:
    """The keys of the local Entra ID, as `Keyring.restore` takes them."""
    keys: list[dict[str, Any]] = _keys()["published"]
    return keys


@cache
def stray() -> PrivateKey:
    """A key that the local Entra ID does not publish."""
    from entra_fast.emulator.protocol.private_key import PrivateKey  # noqa: PLC0415 - loads slowly

    return PrivateKey(_keys()["stray"])


def provider(name: str) -> dict[str, str]:
    """The private key of a provider beside Entra ID; as `stray`, one that none of them publishes."""
    found: dict[str, str] = _keys()["stray"] if name == "stray" else _keys()["providers"][name]
    return found


@cache
def _keys() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((resources.files("entra_fast.testing") / "keys.json").read_bytes())
    return found
