"""The decision: may this consumer have a token for that target, and with which permissions? (policies 2-6)

One pure function, `decide`, is used by the token endpoint, the login page, the console and `explain`, so that
the explanation always matches the decision. Each check is recorded as a reason, with the line of the manifest
that it depends on and, where it failed, the change that makes it pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import DEFAULT_ROLE, DEFAULT_SCOPE, Application, Rule, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.scope import DEFAULT as DEFAULT_PERMISSION

MAX_GROUPS_IN_TOKEN: Final = 200
"""Maximum number of groups in a token; above it, Entra ID refers to Microsoft Graph instead ("overage")."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One check and its result.

    Attributes:
        check: a short stable name: `application`, `rule`, `user`, `group`, `credential`, `scope`,
            `request`...
        location: `<file>:<line>` that it depends on, if any.
        remedy: what to change so that it passes, if it failed.
    """

    check: str
    passed: bool
    text: str
    location: str = ""
    remedy: str = ""


def failed(error: EntraError) -> Reason:
    """The failed check behind a refusal that no check has explained yet."""
    return Reason(error.kind.check, False, error.text, remedy=error.kind.remedy)


@dataclass(frozen=True, slots=True)
class Decision:
    """The result for one consumer, target and user.

    Attributes:
        granted: whether a token is issued.
        error: Entra ID's refusal, when not granted.
        roles: of a machine-to-machine token.
        scopes: of a user's token.
        groups: object ids for the `groups` claim.
    """

    granted: bool
    reasons: tuple[Reason, ...]
    error: EntraError | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def groups_overage(self) -> bool:
        """Whether there are too many groups for the token."""
        return len(self.groups) > MAX_GROUPS_IN_TOKEN


@dataclass(slots=True)
class _Trail:
    reasons: list[Reason] = field(default_factory=list)

    def passed(self, check: str, text: str, location: str = "") -> None:
        self.reasons.append(Reason(check, True, text, location))

    def refuse(self, error: EntraError, reason: Reason) -> Decision:
        self.reasons.append(reason)
        return Decision(False, tuple(self.reasons), error)


def decide(tenant: Tenant, consumer: Application, target: Application, user: User | None = None) -> Decision:
    """Decide whether `consumer` gets a token for `target`: on behalf of `user`, or as itself when there
    is none.
    """
    trail = _Trail()
    if consumer.client_id == target.client_id:
        rule = Rule(consumer.name, location=target.location)
        trail.passed("rule", "an application may always call itself", target.location)
    else:
        found = _matching_rule(consumer, target)
        if found is None:
            return trail.refuse(
                _not_admitted(consumer, target, user), _missing_rule(tenant, consumer, target)
            )
        rule = found
        trail.passed("rule", f"{target.name} admits {consumer.name}", rule.location)
    if user is None:
        roles = (DEFAULT_ROLE, *dict.fromkeys(role for role in rule.roles if role != DEFAULT_ROLE))
        trail.passed("roles", "roles: " + " ".join(roles), rule.location)
        return Decision(True, tuple(trail.reasons), roles=roles)
    admission = admits_user(tenant, target, user)
    trail.reasons.append(admission)
    if not admission.passed:
        error = EntraError(50105, target=target.name, target_id=target.client_id)
        return Decision(False, tuple(trail.reasons), error)
    scopes = (DEFAULT_SCOPE, *dict.fromkeys(scope for scope in rule.scopes if scope != DEFAULT_SCOPE))
    trail.passed("scopes", "scopes: " + " ".join(scopes), rule.location)
    groups = target.groups_in_tokens(user)
    return Decision(True, tuple(trail.reasons), scopes=scopes, groups=groups)


def with_permissions(
    decision: Decision, consumer: Application, target: Application, permissions: Sequence[str]
) -> Decision:
    """The same decision, refused if the target has not granted one of the permissions that are requested on
    behalf of a user.
    """
    if not decision.granted:
        return decision
    known = {scope.lower() for scope in (DEFAULT_PERMISSION, *decision.scopes)}  # Entra ID ignores their case
    for permission in permissions:
        if permission.lower() not in known:
            text = f"{target.name} has not granted the scope {permission[:100]!r} to {consumer.name}"
            remedy = (
                f"add it to permissions.scopes of its rule for {consumer.name}, or ask for "
                f"/{DEFAULT_PERMISSION}"
            )
            error = EntraError(65001, client_id=consumer.client_id, client=consumer.name)
            return Decision(
                False, (*decision.reasons, Reason("scope", False, text, target.location, remedy)), error
            )
    return decision


def admits_user(tenant: Tenant, target: Application, user: User) -> Reason:
    """Whether a user may use an application at all (policy 5)."""
    place = target.groups_location
    if target.allow_all_users:
        return Reason("group", True, f"{target.name} allows all users of {tenant.name}", place)
    names = {group: tenant.directory.groups[group].name for group in target.group_ids}
    for group in user.groups:
        if group in names:
            return Reason("group", True, f"{user.username} is a direct member of {names[group]!r}", place)
    if not names:
        return Reason(
            "group",
            False,
            f"{target.name} admits no users: it has neither groups nor allowAllUsers",
            place,
            "add a group of the user's to spec.azure.application.claims.groups, or set allowAllUsers to true",
        )
    listed = ", ".join(repr(name) for name in names.values())
    return Reason(
        "group",
        False,
        f"{user.username} is a direct member of none of the groups of {target.name}: {listed}",
        place,
        f"add the user to one of these groups in the directory, or a group of the user's to "
        f"spec.azure.application.claims.groups of {target.name}",
    )


def _matching_rule(consumer: Application, target: Application) -> Rule | None:
    # The first rule for a consumer wins (policy 3). A wildcard can never equal a name.
    return next((rule for rule in target.rules if rule.consumer == consumer.name), None)


def _not_admitted(consumer: Application, target: Application, user: User | None) -> EntraError:
    if user is not None:
        return EntraError(65001, client_id=consumer.client_id, client=consumer.name)
    return EntraError(
        501051,
        client_id=consumer.client_id,
        client=consumer.name,
        resource=target.identifier_uris[1],
        target=target.name,
    )


def _missing_rule(tenant: Tenant, consumer: Application, target: Application) -> Reason:
    text = f"{consumer.name} is in none of the inbound rules of {target.name}"
    wildcard = next((rule for rule in target.rules if rule.is_wildcard), None)
    if wildcard is not None:
        text += f"; the wildcard rule at {wildcard.location} grants nothing in Entra ID"
    else:
        near = _near_miss(consumer, target, tenant)
        if near is not None:
            text += f"; the rule at {near.location} names {near.consumer}, which is another application"
    return Reason(
        "rule",
        False,
        text,
        target.location,
        add_rule(consumer.name, target.name),
    )


def add_rule(consumer: str, target: str) -> str:
    """The remedy for a missing rule: which one to add, as a manifest writes it."""
    cluster, namespace, name = consumer.split(":")
    own_cluster, own_namespace, _ = target.split(":")
    rule = f"application: {name}"
    if (cluster, namespace) != (own_cluster, own_namespace):
        rule += f", namespace: {namespace}"
    if cluster != own_cluster:
        rule += f", cluster: {cluster}"
    return f"add to spec.accessPolicy.inbound.rules of {target}: - {{{rule}}}"


def _near_miss(consumer: Application, target: Application, tenant: Tenant) -> Rule | None:
    """A rule with the right name in another namespace or cluster: the usual mistake."""
    name = consumer.name.rpartition(":")[2]
    return next((rule for rule in target.rules if rule.consumer.rpartition(":")[2] == name), None)
