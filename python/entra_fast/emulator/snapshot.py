"""The provider's state as one JSON document: the directory and sessions, and secrets if they are asked for.

For carrying a state to another run or another machine. state.py keeps everything across restarts of one
provider instead. Which registry follows from a directory is decided in local.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model.directory import Directory
from entra_fast.emulator.model.documents import Document, SourceError
from entra_fast.emulator.protocol import idporten_logins
from entra_fast.emulator.protocol.credentials import Credentials
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.protocol.store import Session, Store
from entra_fast.errors import ConfigurationError

FORMAT: Final = "entra-fast local Entra ID"
VERSION: Final = 1
MAX_TENANTS: Final = 100

_MEMBERS: Final = ("format", "version", "time", "directory", "sessions", "secrets")
_KINDS: Final[Mapping[str, type]] = {
    "sessions": Session,
    "codes": Login,
    "refresh_tokens": Login,
    "redeemed_codes": str,
    "used_grants": bool,
    "idporten_sessions": idporten_logins.Session,
    "idporten_codes": idporten_logins.Grant,
    "idporten_refresh_tokens": idporten_logins.Grant,
    "idporten_used": str,
}
"""What is remembered about sign-ins, logins and grants. Each under the digest of the code, token, cookie or
grant: a client that has one can go on with it, and the document gives it to no one."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A document that has been read.

    Attributes:
        store: with its sessions.
        secrets: private keys and seeds, as `Keyring`, `Credentials` and `ProviderKeys` export them; None
            without.
    """

    tenants: tuple[Directory, ...]
    store: Store
    secrets: tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]] | None


def write(
    tenants: Sequence[Directory],
    store: Store,
    keyring: Keyring,
    credentials: Credentials,
    provider_keys: ProviderKeys,
    *,
    secrets: bool,
) -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "time": store.clock(),
        "directory": [_tenant(tenant) for tenant in tenants],
        "sessions": {kind: _entries(entries) for kind, entries in _maps(store).items()},
    }
    if secrets:
        document["secrets"] = {
            "keys": keyring.export(),
            "credentials": credentials.export(),
            "providers": provider_keys.export(),
        }
    return document


def read(
    document: object, store: Store, keyring: Keyring, credentials: Credentials, provider_keys: ProviderKeys
) -> Snapshot:
    """Read a document.

    Args:
        store: a new one, which gets the sessions.
        keyring: a new one, which gets the keys if there are some; likewise `credentials` and `provider_keys`.

    Raises:
        ConfigurationError: it cannot be used (code `snapshot_invalid`); the message names the member.
    """
    if not isinstance(document, Mapping):
        raise _wrong("", "expected a JSON object")
    for name in document:
        if name not in _MEMBERS:
            raise _wrong(str(name)[:50], f"unknown member; there are {', '.join(_MEMBERS)}")
    if document.get("format") != FORMAT:
        raise _wrong("format", f"must be '{FORMAT}'")
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        raise _wrong("version", f"must be {VERSION}, the version that this release can read")
    tenants = _tenants(document.get("directory"))
    _read_sessions(document.get("sessions", {}), store)
    secrets = _read_secrets(document.get("secrets"), keyring, credentials, provider_keys)
    return Snapshot(tenants, store, secrets)


def _maps(store: Store) -> dict[str, ExpiringMap[Any]]:
    return {
        "sessions": store.sessions,
        "codes": store.codes,
        "refresh_tokens": store.refresh_tokens,
        "redeemed_codes": store.redeemed,
        "used_grants": store.used_grants,
        "idporten_sessions": store.idporten.sessions,
        "idporten_codes": store.idporten.codes,
        "idporten_refresh_tokens": store.idporten.refresh_tokens,
        "idporten_used": store.idporten.used,
    }


def _tenant(tenant: Directory) -> dict[str, Any]:
    """As in the directory file, with all ids."""
    groups = tenant.groups
    return {
        "tenant": tenant.tenant,
        "id": tenant.tenant_id,
        "groups": [
            {"name": group.name, "id": group.id, "allUsers": group.all_users} for group in groups.values()
        ],
        "users": [
            {
                "name": user.name,
                "username": user.username,
                "id": user.id,
                **({"navIdent": user.nav_ident} if user.nav_ident is not None else {}),
                "mail": user.mail or "",
                "groups": [groups[name].name for name in user.groups if not groups[name].all_users],
            }
            for user in tenant.users.values()
        ],
        "scopes": [
            {
                "name": scope.name,
                "consumers": sorted(scope.consumers),
                "accessibleForAll": scope.for_all,
                **({"atMaxAge": scope.lifetime} if scope.lifetime is not None else {}),
                **({"delegationSource": scope.delegation_source} if scope.delegation_source else {}),
            }
            for scope in tenant.scopes
        ],
        "delegations": [dataclasses.asdict(delegation) for delegation in tenant.delegations],
    }


def _tenants(value: object) -> tuple[Directory, ...]:
    if not isinstance(value, list) or not value or len(value) > MAX_TENANTS:
        raise _wrong("directory", f"expected a list of 1 to {MAX_TENANTS} tenants")
    try:
        return directories.parse(
            Document(f"directory[{place}]", item, {}) for place, item in enumerate(value)
        )
    except SourceError as error:
        sentences = (sentence.replace(":1: ", ": ", 1) for sentence in error.message.splitlines())
        raise ConfigurationError("snapshot_invalid", "\n".join(sentences), "directory") from None


def _entries(entries: ExpiringMap[Any]) -> list[dict[str, Any]]:
    return [
        {
            "digest": digest,
            "ends": end,
            "value": value if isinstance(value, str | bool) else dataclasses.asdict(value),
        }
        for digest, end, value in entries.items()
    ]


def _read_sessions(value: object, store: Store) -> None:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - as for manifests

    if not isinstance(value, Mapping):
        raise _wrong("sessions", "expected an object")
    for kind, entries in value.items():
        if kind not in _KINDS:
            raise _wrong(f"sessions.{str(kind)[:50]}", f"unknown member; there are {', '.join(_KINDS)}")
        if not isinstance(entries, list):
            raise _wrong(f"sessions.{kind}", "expected a list")
        adapter: TypeAdapter[Any] = TypeAdapter(_KINDS[kind])
        for place, entry in enumerate(entries):
            where = f"sessions.{kind}[{place}]"
            if not isinstance(entry, Mapping) or entry.keys() != {"digest", "ends", "value"}:
                raise _wrong(where, "expected an object with digest, ends and value")
            digest, ends = entry["digest"], entry["ends"]
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise _wrong(f"{where}.digest", "must be a SHA-256 digest in hexadecimal")
            if not isinstance(ends, int | float) or isinstance(ends, bool) or not abs(ends) < 1e12:
                raise _wrong(f"{where}.ends", "must be seconds since 1970")
            try:
                item = adapter.validate_python(entry["value"])
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place_in = "".join(f".{step}" for step in first["loc"])
                raise _wrong(f"{where}.value{place_in}", f"cannot be used: {first['msg']}") from None
            if ends > store.clock():
                _maps(store)[kind].restore(digest, item, ends - store.clock())


def _read_secrets(
    value: object, keyring: Keyring, credentials: Credentials, provider_keys: ProviderKeys
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]] | None:
    if value is None:
        return None
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        keys, seeds = value["keys"], value["credentials"]
        keyring.restore(keys)
        credentials.restore(seeds)
        others = value.get("providers", {"signing": {}, "clients": {}})  # earlier releases have written none
        provider_keys.restore(others)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigurationError):
        raise _wrong("secrets", "cannot be used; export them again, or leave them out") from None
    return keys, seeds, others


def _wrong(member: str, text: str) -> ConfigurationError:
    return ConfigurationError("snapshot_invalid", f"{member}: {text}" if member else text, member)
