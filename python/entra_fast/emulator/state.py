"""Keeps keys, codes, refresh tokens and sessions across restarts, in a file that only its owner can read."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from entra_fast.emulator.protocol.credentials import Credentials
from entra_fast.emulator.protocol.device_codes import DeviceRequest
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.store import Session, Store
from entra_fast.errors import ConfigurationError

FILE_NAME: Final = "local-entra-id.json"
FORMAT: Final = 1


def save(directory: Path, keyring: Keyring, credentials: Credentials, store: Store) -> None:
    """Write everything, atomically. Raises ConfigurationError when the directory cannot be written."""
    content = {
        "format": FORMAT,
        "keyring": keyring.export(),
        "credentials": credentials.export(),
        "codes": _entries(store.codes),
        "redeemed": [[key, end, value] for key, end, value in store.redeemed.items()],
        "refresh_tokens": _entries(store.refresh_tokens),
        "sessions": _entries(store.sessions),
        "device_codes": _entries(store.device_codes.requests),
        "assertion_ids": [[key, end, True] for key, end, _ in store.assertion_ids.items()],
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


def load(directory: Path, keyring: Keyring, credentials: Credentials, store: Store) -> bool:
    """Read what `save` has written; False when there is nothing.

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
        if content["format"] != FORMAT:
            raise ConfigurationError(
                "state_unreadable", f"{path} has another format; remove it to start from scratch", "state"
            )
        keyring.restore(content["keyring"])
        credentials.restore(content["credentials"])
        clock = store.clock
        for key, end, value in content["codes"]:
            store.codes.put(key, Login(**value), end - clock())
        for key, end, value in content["redeemed"]:
            store.redeemed.put(key, str(value), end - clock())
        for key, end, value in content["refresh_tokens"]:
            store.refresh_tokens.put(key, Login(**value), end - clock())
        for key, end, value in content["sessions"]:
            value["clients"] = tuple(value.get("clients", ()))
            store.sessions.put(key, Session(**value), end - clock())
        for key, _, value in content.get("device_codes", []):  # a file of an earlier release has none
            login = value["login"]
            value["login"] = None if login is None else Login(**login)
            store.device_codes.put(key, DeviceRequest(**value))
        for key, end, _ in content["assertion_ids"]:
            store.assertion_ids.put(key, True, end - clock())
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigurationError(
            "state_unreadable", f"{path} is damaged; remove it to start from scratch", "state"
        ) from None
    return True


def _entries(entries: ExpiringMap[Any]) -> list[list[Any]]:
    return [[key, end, dataclasses.asdict(value)] for key, end, value in entries.items()]
