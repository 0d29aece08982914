"""Keeps keys, codes, refresh tokens and sessions of all local providers across restarts, in a file that only
its owner can read."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from entra_fast.emulator.protocol.credentials import Credentials
from entra_fast.emulator.protocol.device_codes import DeviceRequest
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.idporten_logins import Grant, Identity, IdPortenLogins
from entra_fast.emulator.protocol.idporten_logins import Session as IdPortenSession
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.protocol.store import Session, Store
from entra_fast.errors import ConfigurationError

V = TypeVar("V")

FILE_NAME: Final = "local-entra-id.json"
FORMAT: Final = 2
_WITH_SECRET_KEYS: Final = 1
"""The earlier format, which has codes, tokens and cookies where this one has their digests."""


def save(
    directory: Path,
    keyring: Keyring,
    credentials: Credentials,
    store: Store,
    provider_keys: ProviderKeys,
) -> None:
    """Write everything, atomically. Raises ConfigurationError when the directory cannot be written.

    Args:
        provider_keys: the keys of the other local providers and of their clients.
    """
    content = {
        "format": FORMAT,
        "keyring": keyring.export(),
        "provider_keys": provider_keys.export(),
        "credentials": credentials.export(),
        "codes": _entries(store.codes),
        "redeemed": [[key, end, value] for key, end, value in store.redeemed.items()],
        "refresh_tokens": _entries(store.refresh_tokens),
        "sessions": _entries(store.sessions),
        "device_codes": _entries(store.device_codes.requests),
        "assertion_ids": [[key, end, True] for key, end, _ in store.assertion_ids.items()],
        "used_grants": [[key, end, True] for key, end, _ in store.used_grants.items()],
        "idporten": {
            "codes": _entries(store.idporten.codes),
            "refresh_tokens": _entries(store.idporten.refresh_tokens),
            "used": [[key, end, value] for key, end, value in store.idporten.used.items()],
            "sessions": _entries(store.idporten.sessions),
            "assertion_ids": [[key, end, True] for key, end, _ in store.idporten.assertion_ids.items()],
        },
    }
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # mkstemp makes the file with mode 0600, and the rename keeps it.
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=FILE_NAME)
        with os.fdopen(handle, "w") as file:
            json.dump(content, file)
        Path(temporary).replace(directory / FILE_NAME)
    except OSError as error:
        text = f"the state directory {directory} cannot be written: {error.strerror}"
        raise ConfigurationError("state_unwritable", text, "state") from None


def load(
    directory: Path,
    keyring: Keyring,
    credentials: Credentials,
    store: Store,
    *,
    provider_keys: ProviderKeys,
) -> bool:
    """Read what `save` has written; False when there is nothing.

    Args:
        provider_keys: as for `save`.

    Raises:
        ConfigurationError: the file is damaged; it is not overwritten.
    """
    path = directory / FILE_NAME
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        raise ConfigurationError(
            "state_unreadable", f"{path} cannot be read; remove it to start from scratch", "state"
        ) from None
    try:
        if content["format"] not in (FORMAT, _WITH_SECRET_KEYS):
            raise ConfigurationError(
                "state_unreadable", f"{path} has another format; remove it to start from scratch", "state"
            )
        keyring.restore(content["keyring"])
        if "provider_keys" in content:  # earlier releases have written none
            provider_keys.restore(content["provider_keys"])
        credentials.restore(content["credentials"])
        clock = store.clock
        secret = content["format"] == _WITH_SECRET_KEYS
        _restore(store.codes, content["codes"], lambda value: Login(**value), clock, secret)
        _restore(store.redeemed, content["redeemed"], str, clock, secret)
        _restore(store.refresh_tokens, content["refresh_tokens"], lambda value: Login(**value), clock, secret)
        _restore(store.sessions, content["sessions"], _session, clock, secret)
        for key, _, value in content.get("device_codes", []):  # a file of an earlier release has none
            login = value["login"]
            value["login"] = None if login is None else Login(**login)
            store.device_codes.put(key, DeviceRequest(**value))
        for key, end, _ in content["assertion_ids"]:
            store.assertion_ids.put(key, True, end - clock())
        for key, end, _ in content.get("used_grants", []):
            store.used_grants.put(key, True, end - clock())
        if "idporten" in content:  # earlier releases have written none
            _restore_logins(store.idporten, content["idporten"], clock)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigurationError(
            "state_unreadable", f"{path} is damaged; remove it to start from scratch", "state"
        ) from None
    return True


def _entries(entries: ExpiringMap[Any]) -> list[list[Any]]:
    return [[key, end, dataclasses.asdict(value)] for key, end, value in entries.items()]


def _restore_logins(
    logins: IdPortenLogins, saved: dict[str, list[list[Any]]], clock: Callable[[], float]
) -> None:
    _restore(logins.codes, saved["codes"], _grant, clock, False)
    _restore(logins.refresh_tokens, saved["refresh_tokens"], _grant, clock, False)
    _restore(logins.used, saved["used"], str, clock, False)
    _restore(logins.sessions, saved["sessions"], _idporten_session, clock, False)
    _restore(logins.assertion_ids, saved["assertion_ids"], bool, clock, False)


def _grant(value: dict[str, Any]) -> Grant:
    return Grant(**{**value, "identity": Identity(**value["identity"])})


def _idporten_session(value: dict[str, Any]) -> IdPortenSession:
    clients = tuple((client, uri) for client, uri in value["clients"])
    return IdPortenSession(**{**value, "identity": Identity(**value["identity"]), "clients": clients})


def _session(value: dict[str, Any]) -> Session:
    return Session(**{**value, "clients": tuple(value.get("clients", ()))})


def _restore(
    entries: ExpiringMap[V],
    saved: list[list[Any]],
    read: Callable[[Any], V],
    clock: Callable[[], float],
    secret: bool,
) -> None:
    for key, end, value in saved:
        (entries.put if secret else entries.restore)(key, read(value), end - clock())
