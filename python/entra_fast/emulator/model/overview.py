"""A view of the registry as plain data: applications, rules and their state, users, groups.

No HTTP and no HTML: the console renders this, and decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Registry, Rule, Tenant

MAX_ROWS: Final = 100
MAX_GROUPS: Final = 100
MAX_NAMES: Final = 5
"""Maximum number of names in a cell."""

RuleState = Literal["in force", "wildcard", "unknown consumer", "for TokenX", "shadowed"]


@dataclass(frozen=True, slots=True)
class ApplicationRow:
    """An application in a list.

    Attributes:
        consumers: applications that exist and that it allows, the first MAX_NAMES; `more`: how many others.
        unresolved: number of rules for applications that do not exist in the tenant.
        users: who may use it, in words.
    """

    name: str
    client_id: str
    consumers: tuple[str, ...]
    more: int
    unresolved: int
    users: str


@dataclass(frozen=True, slots=True)
class Applications:
    """The applications of a tenant that match; `total`: of all."""

    tenant: str
    rows: Sequence[ApplicationRow]
    total: int


@dataclass(frozen=True, slots=True)
class RuleRow:
    """An inbound rule, and whether it has an effect. `shadowed_by`: location of the rule that precedes it."""

    consumer: str
    state: RuleState
    shadowed_by: str | None
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    location: str


@dataclass(frozen=True, slots=True)
class ApplicationDetails:
    """One application. `targets`: other applications that allow it."""

    application: Application
    users: str
    rules: tuple[RuleRow, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group. `applications`: those that it is assigned to, the first MAX_NAMES; `more`: how many others."""

    name: str
    id: str
    all_users: bool
    applications: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user.

    Attributes:
        groups: the first MAX_NAMES; `more`: how many others.
        applications: number of applications that the user may use.
    """

    name: str
    username: str
    nav_ident: str | None
    groups: tuple[str, ...]
    more: int
    applications: int


@dataclass(frozen=True, slots=True)
class Members:
    """Groups of a tenant, the first MAX_GROUPS of `group_count`; and its users that match."""

    tenant: str
    tenant_id: str
    groups: tuple[GroupRow, ...]
    group_count: int
    users: Sequence[User]
    _of: Tenant

    def row(self, user: User) -> UserRow:
        """A user in the list."""
        return _user(self._of, user)


def without_identity(registry: Registry, text: str) -> list[str]:
    """Names of the applications that only other providers know, and that match; at most MAX_ROWS."""
    names = [
        workload.name
        for workload in registry.workloads.by_name.values()
        if workload.has_providers
        and workload.name in registry.without_identity
        and text.lower() in workload.name
    ]
    return names[:MAX_ROWS]


def applications(registry: Registry, text: str = "") -> tuple[Applications, ...]:
    """The applications of every tenant. `text`: only those whose name or client id contains it."""
    wanted = text.strip().lower()
    return tuple(
        Applications(
            tenant.name,
            tuple(
                _row(registry, tenant, item)
                for item in tenant.applications.values()
                if wanted in f"{item.name} {item.client_id}".lower()
            ),
            len(tenant.applications),
        )
        for tenant in registry.tenants
    )


def application(registry: Registry, name: str) -> ApplicationDetails:
    """One application.

    Args:
        name: `<cluster>:<namespace>:<name>`, client id or App ID URI.

    Raises:
        ConfigurationError: there is no such application.
    """
    found = registry.find(name)
    tenant = registry.tenant(found.tenant_id) or registry.default_tenant
    targets = tuple(
        other.name
        for other in tenant.applications.values()
        if other is not found and any(rule.consumer == found.name for rule in other.rules)
    )
    rules = tuple(
        RuleRow(
            rule.consumer,
            _state(registry, tenant, found.name, rule),
            rule.shadowed_by,
            rule.roles,
            rule.scopes,
            rule.location,
        )
        for rule in found.rules
    )
    return ApplicationDetails(found, _user_policy(tenant, found), rules, targets)


def members(registry: Registry, text: str = "") -> tuple[Members, ...]:
    """Groups and users of every tenant. `text`: only users whose name or user name contains it."""
    return tuple(_members(tenant, text.strip().lower()) for tenant in registry.tenants)


def application_names(registry: Registry) -> tuple[str, ...]:
    """Names to suggest in forms."""
    return tuple(name for tenant in registry.tenants for name in tenant.applications)[:MAX_ROWS]


def user_names(registry: Registry) -> tuple[str, ...]:
    """User names to suggest in forms."""
    return tuple(user.username for tenant in registry.tenants for user in tenant.directory.users.values())[
        :MAX_ROWS
    ]


def _row(registry: Registry, tenant: Tenant, item: Application) -> ApplicationRow:
    consumers = dict.fromkeys(rule.consumer for rule in item.rules if rule.consumer in tenant.applications)
    unresolved = sum(
        rule.consumer not in tenant.applications
        and not registry.workloads.grants_in_tokenx(rule.consumer, item.name)
        for rule in item.rules
    )
    shown = tuple(consumers)[:MAX_NAMES]
    more = len(consumers) - len(shown)
    return ApplicationRow(item.name, item.client_id, shown, more, unresolved, _user_policy(tenant, item))


def _user_policy(tenant: Tenant, item: Application) -> str:
    names = ", ".join(tenant.directory.groups[group].name for group in item.group_ids[:MAX_NAMES])
    if len(item.group_ids) > MAX_NAMES:
        names += f" and {len(item.group_ids) - MAX_NAMES} more"
    if item.allow_all_users:
        return f"all users ({names})" if names else "all users"
    return f"members of {names}" if names else "no users"


def _state(registry: Registry, tenant: Tenant, target: str, rule: Rule) -> RuleState:
    if rule.is_wildcard:
        return "wildcard"
    if rule.consumer not in tenant.applications:
        in_tokenx = registry.workloads.grants_in_tokenx(rule.consumer, target)
        return "for TokenX" if in_tokenx else "unknown consumer"
    return "in force" if rule.shadowed_by is None else "shadowed"


def _members(tenant: Tenant, wanted: str) -> Members:
    directory = tenant.directory
    found = [user for user in directory.users.values() if wanted in f"{user.name} {user.username}".lower()]
    return Members(
        tenant.name,
        tenant.id,
        tuple(
            _group(tenant, group.id, group.name, group.all_users)
            for group in list(directory.groups.values())[:MAX_GROUPS]
        ),
        len(directory.groups),
        found,
        tenant,
    )


def _group(tenant: Tenant, identifier: str, name: str, all_users: bool) -> GroupRow:
    assigned = tuple(item.name for item in tenant.applications.values() if identifier in item.group_ids)
    return GroupRow(name, identifier, all_users, assigned[:MAX_NAMES], max(0, len(assigned) - MAX_NAMES))


def _user(tenant: Tenant, user: User) -> UserRow:
    allowed = sum(
        item.allow_all_users or not set(item.group_ids).isdisjoint(user.groups)
        for item in tenant.applications.values()
    )
    groups = tuple(tenant.directory.groups[group].name for group in user.groups[:MAX_NAMES])
    more = max(0, len(user.groups) - MAX_NAMES)
    return UserRow(user.name, user.username, user.nav_ident, groups, more, allowed)
