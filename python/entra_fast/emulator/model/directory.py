"""The directory: tenants with their users and groups, from a YAML file with one document for each tenant.

    tenant: trygdeetaten.no
    groups:
      - {name: team-b, id: 11111111-2222-4333-8444-555555555555}
      - {name: everyone, allUsers: true}
    users:
      - {name: Ada Lovelace, username: ada@trygdeetaten.no, navIdent: A100001, groups: [team-b]}
    scopes:
      - {name: "skatteetaten:inntekt", consumers: ["310000019"]}
    delegations:
      - {scope: "skatteetaten:inntekt", consumer: "310000027", supplier: "310000019"}

A user's `mail` is the username unless the entry has another one, or an empty one for no mailbox.
Membership is direct: groups have no member groups, because Entra ID ignores nested groups when it assigns
users to applications. Scopes and delegations are Maskinporten's: scopes of organizations outside, and which
customer has let which supplier use a scope; they count for all tenants. The fields are defined in
directory_schema.py, which needs pydantic and is imported with the first document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from entra_fast.emulator.model import ids
from entra_fast.emulator.model.documents import Document, Mistakes, Place, SourceError, dotted
from entra_fast.emulator.model.wording import quoted

if TYPE_CHECKING:
    from entra_fast.emulator.model.directory_schema import GroupEntry, ScopeEntry, UserEntry

DEFAULT_TENANT: Final = "trygdeetaten.no"  # NAV's tenant for development clusters


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
        mail: address of the mailbox, if the user has one.
        groups: object ids of the groups the user is a direct member of, "all users" groups included.
    """

    id: str
    name: str
    username: str
    nav_ident: str | None
    groups: tuple[str, ...]
    mail: str | None = None

    @property
    def given_name(self) -> str:
        """All names but the last one; the only one, if there is one."""
        given, _, family = self.name.rpartition(" ")
        return given or family

    @property
    def family_name(self) -> str:
        """The last name."""
        return self.name.rpartition(" ")[2]


@dataclass(frozen=True, slots=True)
class ForeignScope:
    """A scope of Maskinporten that no manifest exposes.

    Attributes:
        consumers: numbers of the organizations that may use it; `for_all`: any may.
        lifetime: of its tokens, in seconds; None for the default.
        delegation_source: where customers delegate it to suppliers; None if they cannot.
        location: `<file>:<line>`.
    """

    name: str
    consumers: frozenset[str]
    for_all: bool
    lifetime: int | None
    delegation_source: str | None
    location: str


@dataclass(frozen=True, slots=True)
class Delegation:
    """A customer (`consumer`) lets a supplier use a scope. Both are numbers of organizations."""

    scope: str
    consumer: str
    supplier: str


@dataclass(frozen=True, slots=True)
class Directory:
    """One tenant's users and groups, and what is known about Maskinporten's other organizations."""

    tenant: str
    tenant_id: str
    groups: Mapping[str, Group]
    users: Mapping[str, User]
    """By object id."""
    usernames: Mapping[str, User]
    """By sign-in name in lower case."""
    scopes: tuple[ForeignScope, ...] = ()
    delegations: tuple[Delegation, ...] = ()

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


def load(path: Path | None, mistakes: Mistakes) -> tuple[Directory, ...]:
    """All tenants of a file, the first being the default one; without a file, one tenant without users.

    Mistakes are added to `mistakes`; the result is then incomplete.
    """
    tenants: tuple[Directory, ...] = ()
    if path is not None:
        from entra_fast.emulator.model import yaml_source  # noqa: PLC0415 - see above

        with mistakes.collected():
            tenants = parse(yaml_source.documents(yaml_source.read_text(path), yaml_source.label(path)))
    return tenants or (empty(DEFAULT_TENANT),)


def parse(documents: Iterable[Document]) -> tuple[Directory, ...]:
    """Tenants from documents.

    Raises:
        SourceError: with all mistakes of all documents.
    """
    tenants: dict[str, Directory] = {}
    mistakes = Mistakes()
    with mistakes.collected():  # the rest of the file is not YAML
        for document in documents:
            with mistakes.collected():
                tenant = _Tenant(document).read()
                if tenant.tenant in tenants or any(
                    tenant.tenant_id == other.tenant_id for other in tenants.values()
                ):
                    raise _error(document, ("tenant",), f"the tenant {tenant.tenant!r} is defined twice")
                tenants[tenant.tenant] = tenant
    mistakes.raise_if_any()
    return tuple(tenants.values())


def _error(document: Document, place: Place, text: str) -> SourceError:
    return SourceError("directory_invalid", text, document.file, document.line(place), dotted(place))


class _Tenant:
    """Reads one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._mistakes = Mistakes()
        self._groups: dict[str, Group] = {}
        self._groups_by_name: dict[str, Group] = {}
        self._users: dict[str, User] = {}
        self._usernames: dict[str, User] = {}

    def read(self) -> Directory:
        """The tenant. Raises SourceError with all mistakes of the document."""
        from pydantic import ValidationError  # noqa: PLC0415 - see above

        from entra_fast.emulator.model.directory_schema import TenantEntry  # noqa: PLC0415 - see above
        from entra_fast.emulator.model.validation import findings  # noqa: PLC0415 - see above

        try:
            entry = TenantEntry.model_validate(self._document.value)
        except ValidationError as error:
            for finding in findings(TenantEntry, error):
                self._wrong(finding.place, finding.text)
            self._mistakes.raise_if_any()
            raise  # pragma: no cover - a validation error has at least one finding
        for index, group in enumerate(entry.groups):
            self._add_group(("groups", index), entry.tenant, group)
        for index, user in enumerate(entry.users):
            self._add_user(("users", index), entry.tenant, user)
        self._mistakes.raise_if_any()
        return Directory(
            entry.tenant,
            entry.id or ids.tenant_id(entry.tenant),
            MappingProxyType(self._groups),
            MappingProxyType(self._users),
            MappingProxyType(self._usernames),
            tuple(self._scope(index, item) for index, item in enumerate(entry.scopes)),
            tuple(Delegation(item.scope, item.consumer, item.supplier) for item in entry.delegations),
        )

    def _scope(self, index: int, entry: ScopeEntry) -> ForeignScope:
        return ForeignScope(
            entry.name,
            frozenset(entry.consumers),
            entry.accessible_for_all,
            entry.at_max_age,
            entry.delegation_source,
            f"{self._document.file}:{self._document.line(('scopes', index, 'name'))}",
        )

    def _wrong(self, place: Place, text: str) -> None:
        self._mistakes.add(_error(self._document, place, text))

    def _add_group(self, place: Place, tenant: str, entry: GroupEntry) -> None:
        group = Group(entry.id or ids.group_id(tenant, entry.name), entry.name, entry.all_users)
        if group.name in self._groups_by_name:
            self._wrong((*place, "name"), f"the group {quoted(group.name)} is defined twice")
        elif group.id in self._groups:
            owner = quoted(self._groups[group.id].name)
            self._wrong((*place, "id"), f"the id already belongs to the group {owner}")
        else:
            self._groups[group.id] = self._groups_by_name[group.name] = group

    def _add_user(self, place: Place, tenant: str, entry: UserEntry) -> None:
        member = {group.id: None for group in self._groups.values() if group.all_users}
        for index, name in enumerate(entry.groups):
            if name in self._groups_by_name:
                member[self._groups_by_name[name].id] = None
            else:
                self._wrong((*place, "groups", index), f"there is no group {quoted(name)} in this tenant")
        identifier = entry.id or ids.user_id(tenant, entry.username)
        mail = entry.username if entry.mail is None else entry.mail or None
        user = User(identifier, entry.name, entry.username, entry.nav_ident, tuple(member), mail)
        if user.username.lower() in self._usernames:
            self._wrong((*place, "username"), f"the user {quoted(user.username)} is defined twice")
        elif user.id in self._users:
            owner = quoted(self._users[user.id].username)
            self._wrong((*place, "id"), f"the id already belongs to {owner}")
        else:
            self._users[user.id] = self._usernames[user.username.lower()] = user
