"""Workloads: what the providers other than Entra ID know of an application or a job, from its manifest.

TokenX knows its name and its inbound rules; Maskinporten knows the organization it belongs to, the scopes
that it consumes, and those that it exposes to other organizations. Whether a request is granted belongs in
providers/; keys and tokens do not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from entra_fast.emulator.model import ids
from entra_fast.emulator.model.directory import Delegation, Directory, ForeignScope
from entra_fast.emulator.model.forms import is_organization_number
from entra_fast.emulator.model.manifests import Manifest, Notice
from entra_fast.emulator.model.wording import quoted

DEFAULT_ORGANIZATION: Final = "310000019"
"""Number of the organization that applications belong to, unless their manifest names another: synthetic, of
the series that Norway's test registry uses."""
BUILT_IN: Final = "built in"  # in place of a manifest's file and line
SCOPE_PREFIX: Final = "nav"
"""What the names of exposed scopes begin with. Each organization has its own in Maskinporten."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of Maskinporten.

    Attributes:
        owner: the application that exposes it; empty for one of an organization outside.
        consumers: numbers of the organizations that may use it; `for_all`: any may.
        lifetime: maximum lifetime of its tokens, in seconds; None for the default.
        delegation_source: where customers delegate it to suppliers; None if they cannot.
        location: `<file>:<line>`.
    """

    name: str
    owner: str
    consumers: frozenset[str]
    for_all: bool
    lifetime: int | None
    delegation_source: str | None
    location: str

    def admits(self, organization: str) -> bool:
        """Whether an organization may use it."""
        return self.for_all or organization in self.consumers


@dataclass(frozen=True, slots=True)
class MaskinportenClient:
    """An application's registration in Maskinporten.

    Attributes:
        client_id: GUID.
        organization: number of the organization that it belongs to.
        consumes: scopes by name, each with the line of the manifest that names it.
    """

    client_id: str
    organization: str
    consumes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Workload:
    """An application or a job.

    Attributes:
        name: `<cluster>:<namespace>:<name>`; in TokenX also its client id, and the `aud` of its tokens.
        location: `<file>:<line>` of its name.
        tokenx: whether it is registered in TokenX.
        admitted: consumers that its inbound rules name, each with the line of the first such rule. A name may
            have no application, and `*` is a name like any other.
        policy_location: where a rule would be added.
        maskinporten: None if it is not registered there.
        idporten: whether users log in to it at ID-porten.
    """

    name: str
    location: str
    tokenx: bool
    admitted: Mapping[str, str]
    policy_location: str
    maskinporten: MaskinportenClient | None
    idporten: bool = False

    @property
    def has_providers(self) -> bool:
        """Whether a provider other than Entra ID knows it."""
        return self.tokenx or self.idporten or self.maskinporten is not None


@dataclass(frozen=True, slots=True)
class Workloads:
    """All workloads.

    Attributes:
        by_name: by `<cluster>:<namespace>:<name>`.
        scopes: those of Maskinporten that are active, by name.
        delegations: of scopes, from customers to suppliers.
    """

    by_name: Mapping[str, Workload]
    scopes: Mapping[str, Scope]
    delegations: frozenset[Delegation]
    _by_maskinporten_id: Mapping[str, Workload]

    def maskinporten_client(self, client_id: str) -> Workload | None:
        """The workload with a client id in Maskinporten."""
        return self._by_maskinporten_id.get(client_id)

    def grants_in_tokenx(self, consumer: str, target: str) -> bool:
        """Whether a rule of `target` for `consumer` grants access in TokenX, whatever Entra ID knows."""
        return self.tokenx_client(consumer) is not None and self.tokenx_client(target) is not None

    def tokenx_client(self, client_id: str) -> Workload | None:
        """The workload with a client id in TokenX."""
        found = self.by_name.get(client_id)
        return found if found is not None and found.tokenx else None


NONE: Final = Workloads(MappingProxyType({}), MappingProxyType({}), frozenset(), MappingProxyType({}))


def tokenx_generator(cluster: str) -> str:
    """The name of the token generator for TokenX."""
    return f"{cluster}:nais:tokenx-token-generator"


def without_providers(name: str, location: str) -> Workload:
    """An application without a manifest: no other provider knows it."""
    return Workload(name, location, False, MappingProxyType({}), location, None)


def read(
    manifests: Sequence[Manifest], directories: Iterable[Directory], notices: list[Notice], cluster: str
) -> Workloads:
    """All workloads. What grants nothing, or never can, is added to `notices`.

    Args:
        cluster: that of the token generator for TokenX, which is built in unless a manifest describes it.
    """
    by_name = {manifest.application: _workload(manifest) for manifest in manifests}
    generator = tokenx_generator(cluster)
    by_name.setdefault(
        generator, Workload(generator, BUILT_IN, True, MappingProxyType({}), BUILT_IN, None, True)
    )
    scopes: dict[str, Scope] = {}
    delegations: set[Delegation] = set()
    for manifest in manifests:
        for scope in _exposed(manifest, notices):
            _add(scopes, scope, notices)
    for directory in directories:
        for outside in directory.scopes:
            _add(scopes, _foreign(outside), notices)
        delegations.update(directory.delegations)
    for manifest in manifests:
        notices.extend(_rule_notices(manifest, by_name))
    for workload in by_name.values():
        notices.extend(_scope_notices(workload, scopes))
    clients = {
        item.maskinporten.client_id: item for item in by_name.values() if item.maskinporten is not None
    }
    return Workloads(
        MappingProxyType(by_name), MappingProxyType(scopes), frozenset(delegations), MappingProxyType(clients)
    )


def _workload(manifest: Manifest) -> Workload:
    admitted: dict[str, str] = {}
    for index, rule in enumerate(manifest.spec.access_policy.inbound.rules):
        place = ("spec", "accessPolicy", "inbound", "rules", index, "application")
        admitted.setdefault(manifest.consumer(rule), manifest.location(*place))
    return Workload(
        name=manifest.application,
        location=manifest.location("metadata", "name"),
        tokenx=manifest.spec.tokenx.enabled,
        admitted=MappingProxyType(admitted),
        policy_location=manifest.location("spec", "accessPolicy", "inbound", "rules"),
        maskinporten=_client(manifest) if manifest.spec.maskinporten.enabled else None,
        idporten=manifest.spec.idporten.enabled,
    )


def _client(manifest: Manifest) -> MaskinportenClient:
    consumes = {
        scope.name: manifest.location("spec", "maskinporten", "scopes", "consumes", index, "name")
        for index, scope in enumerate(manifest.spec.maskinporten.scopes.consumes)
    }
    return MaskinportenClient(
        ids.maskinporten_client_id(manifest.application),
        manifest.metadata.annotations.organization or DEFAULT_ORGANIZATION,
        MappingProxyType(consumes),
    )


def _exposed(manifest: Manifest, notices: list[Notice]) -> Iterator[Scope]:
    section = manifest.spec.maskinporten
    if not section.enabled:
        return
    for index, entry in enumerate(section.scopes.exposes):
        place = ("spec", "maskinporten", "scopes", "exposes", index)
        for number, consumer in enumerate(entry.consumers):
            if not is_organization_number(consumer.orgno):
                text = (
                    f"no organization has the number {consumer.orgno}, because its last digit does not fit "
                    "the others: it grants nothing"
                )
                notices.append(Notice(manifest.location(*place, "consumers", number, "orgno"), text))
        if entry.enabled:
            yield Scope(
                name=f"{SCOPE_PREFIX}:{entry.subscope}",
                owner=manifest.application,
                consumers=frozenset(consumer.orgno for consumer in entry.consumers),
                for_all=entry.accessible_for_all,
                lifetime=entry.at_max_age,
                delegation_source=entry.delegation_source,
                location=manifest.location(*place, "name"),
            )


def _foreign(scope: ForeignScope) -> Scope:
    return Scope(
        name=scope.name,
        owner="",
        consumers=scope.consumers,
        for_all=scope.for_all,
        lifetime=scope.lifetime,
        delegation_source=scope.delegation_source,
        location=scope.location,
    )


def _add(scopes: dict[str, Scope], scope: Scope, notices: list[Notice]) -> None:
    first = scopes.setdefault(scope.name, scope)
    if first is not scope:
        text = (
            f"the scope {quoted(scope.name)} is exposed at {first.location} already: this one has no effect"
        )
        notices.append(Notice(scope.location, text))


def _rule_notices(manifest: Manifest, by_name: Mapping[str, Workload]) -> Iterator[Notice]:
    """About rules that grant nothing in TokenX; what has an identity in Entra ID has notices of its own."""
    azure = manifest.spec.azure.application
    if not manifest.spec.tokenx.enabled or (azure is not None and azure.enabled):
        return
    for consumer, location in by_name[manifest.application].admitted.items():
        if "*" in consumer.split(":"):
            yield Notice(location, "a rule with a wildcard grants no access in TokenX: name the application")
        elif consumer not in by_name:
            yield Notice(location, f"{consumer} does not exist, so the rule grants nothing until it appears")
        elif not by_name[consumer].tokenx:
            text = f"{consumer} is not registered in TokenX, so the rule grants nothing"
            yield Notice(location, f"{text} until its tokenx is enabled")


def _scope_notices(workload: Workload, scopes: Mapping[str, Scope]) -> Iterator[Notice]:
    client = workload.maskinporten
    if client is None:
        return
    for name, location in client.consumes.items():
        scope = scopes.get(name)
        if scope is None:
            text = (
                f"no manifest exposes the scope {quoted(name)}, so tokens for it are refused; name it in "
                "`scopes` of the directory file if it belongs to an organization outside"
            )
            yield Notice(location, text)
        elif not scope.admits(client.organization):
            text = (
                f"the scope {quoted(name)} is not granted to the organization {client.organization} "
                f"({scope.location}), so tokens for it are refused"
            )
            yield Notice(location, text)
