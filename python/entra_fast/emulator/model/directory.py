"""The directory: tenants, and their users and groups, as written in a YAML file. One document for each
tenant.

    tenant: trygdeetaten.no
    groups:
      - {name: team-b, id: 11111111-2222-4333-8444-555555555555}
      - {name: everyone, allUsers: true}
    users:
      - {name: Ada Lovelace, username: ada@trygdeetaten.no, navIdent: A100001, groups: [team-b]}

Membership is direct; groups have no groups, because Entra ID does not look into them either when it assigns
users to applications.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from entra_fast.emulator.model import ids, yaml_source
from entra_fast.emulator.model.manifests import conversion_error
from entra_fast.emulator.model.yaml_source import Document, SourceError

DEFAULT_TENANT: Final = "trygdeetaten.no"  # NAV's tenant for development clusters

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class _GroupEntry(_Struct, frozen=True):
    name: str
    id: str | None = None
    all_users: bool = False


class _UserEntry(_Struct, frozen=True):
    name: str
    username: str
    nav_ident: str | None = msgspec.field(default=None, name="navIdent")
    groups: tuple[str, ...] = ()
    id: str | None = None


class _TenantEntry(_Struct, frozen=True):
    tenant: str
    id: str | None = None
    groups: tuple[_GroupEntry, ...] = ()
    users: tuple[_UserEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A group. `all_users` marks those that `allowAllUsers: true` assigns; every user is a member of them."""

    id: str
    name: str
    all_users: bool


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    Attributes:
        id: object id, the `oid` of the user's tokens.
        username: sign-in name, `preferred_username`.
        nav_ident: the `NAVident` claim, if the user has one.
        groups: object ids of the groups the user is a direct member of, "all users" groups included.
    """

    id: str
    name: str
    username: str
    nav_ident: str | None
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """One tenant's users and groups."""

    tenant: str
    tenant_id: str
    groups: Mapping[str, Group]
    users: Mapping[str, User]
    """By object id."""
    usernames: Mapping[str, User]
    """By sign-in name in lower case."""

    def find_user(self, name: str) -> User | None:
        """A user by sign-in name, its part before the `@`, NAV ident, or object id."""
        wanted = name.strip().lower()
        found = self.usernames.get(wanted) or self.usernames.get(f"{wanted}@{self.tenant}")
        return (
            found
            or self.users.get(wanted)
            or next(
                (user for user in self.users.values() if (user.nav_ident or "").lower() == wanted != ""), None
            )
        )


def empty(tenant: str) -> Directory:
    """A tenant without users."""
    nothing: Mapping[str, Any] = MappingProxyType({})
    return Directory(tenant, ids.tenant_id(tenant), nothing, nothing, nothing)


def load(path: Path | None) -> tuple[Directory, ...]:
    """All tenants of a file, the first being the default one; without a file, one tenant without users.

    Raises:
        SourceError: with file, line and field.
    """
    if path is None:
        return (empty(DEFAULT_TENANT),)
    return parse(yaml_source.documents(yaml_source.read_text(path), yaml_source.label(path))) or (
        empty(DEFAULT_TENANT),
    )


def parse(documents: Iterable[Document]) -> tuple[Directory, ...]:
    """Tenants from documents. Raises SourceError."""
    tenants: dict[str, Directory] = {}
    for document in documents:
        try:
            entry = msgspec.convert(document.value, _TenantEntry)
        except msgspec.ValidationError as error:
            raise conversion_error(document, "$", error, _TenantEntry) from None
        tenant = _tenant(document, entry)
        if any(
            tenant.tenant == other.tenant or tenant.tenant_id == other.tenant_id for other in tenants.values()
        ):
            raise _error(document, "$.tenant", f"the tenant {entry.tenant!r} is there twice")
        tenants[tenant.tenant] = tenant
    return tuple(tenants.values())


def _error(document: Document, path: str, text: str) -> SourceError:
    return SourceError(
        "directory_invalid", text, document.file, document.line(path), path.removeprefix("$").lstrip(".")
    )


def _tenant(document: Document, entry: _TenantEntry) -> Directory:
    if not _DOMAIN.fullmatch(entry.tenant):
        raise _error(document, "$.tenant", f"{entry.tenant!r} is not a domain name in lower case")
    groups: dict[str, Group] = {}
    by_name: dict[str, Group] = {}
    for index, item in enumerate(entry.groups):
        path = f"$.groups[{index}]"
        identifier = _identifier(document, f"{path}.id", item.id) or ids.group_id(entry.tenant, item.name)
        group = Group(identifier, item.name, item.all_users)
        if item.name in by_name:
            raise _error(document, f"{path}.name", f"the group {item.name!r} is there twice")
        if identifier in groups:
            raise _error(
                document, f"{path}.id", f"the id belongs to the group {groups[identifier].name!r} already"
            )
        groups[identifier] = by_name[item.name] = group
    everyone = tuple(group.id for group in groups.values() if group.all_users)
    users: dict[str, User] = {}
    usernames: dict[str, User] = {}
    for index, person in enumerate(entry.users):
        path = f"$.users[{index}]"
        user = _user(document, path, person, tenant=entry.tenant, groups=by_name, everyone=everyone)
        if user.username.lower() in usernames:
            raise _error(document, f"{path}.username", f"the user {person.username!r} is there twice")
        if user.id in users:
            raise _error(document, f"{path}.id", f"the id belongs to {users[user.id].username!r} already")
        users[user.id] = usernames[user.username.lower()] = user
    return Directory(
        entry.tenant,
        _identifier(document, "$.id", entry.id) or ids.tenant_id(entry.tenant),
        MappingProxyType(groups),
        MappingProxyType(users),
        MappingProxyType(usernames),
    )


def _user(
    document: Document,
    path: str,
    entry: _UserEntry,
    *,
    tenant: str,
    groups: Mapping[str, Group],
    everyone: tuple[str, ...],
) -> User:
    if not re.fullmatch(r"[^\s@]{1,64}@[^\s@]{1,255}", entry.username):
        raise _error(document, f"{path}.username", f"{entry.username!r} is not of the form name@domain")
    member: dict[str, None] = dict.fromkeys(everyone)
    for index, name in enumerate(entry.groups):
        if name not in groups:
            raise _error(document, f"{path}.groups[{index}]", f"there is no group {name!r} in this tenant")
        member[groups[name].id] = None
    identifier = _identifier(document, f"{path}.id", entry.id) or ids.user_id(tenant, entry.username)
    return User(identifier, entry.name, entry.username, entry.nav_ident, tuple(member))


def _identifier(document: Document, path: str, value: str | None) -> str | None:
    if value is not None and not _GUID.fullmatch(value.lower()):
        raise _error(document, path, f"{value!r} is not a GUID")
    return value.lower() if value is not None else None
