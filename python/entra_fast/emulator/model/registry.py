"""The registry: what Entra ID knows after NAIS has processed all manifests. An immutable snapshot.

Connects manifests with directories: tenants, applications with their ids, and access rules. Rules name their
consumers, so that one for an application that appears later needs no update (policy 4). Whether a request is
granted belongs in protocol/policy.py; tokens and secrets do not belong here.
"""

from __future__ import annotations

import difflib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model import ids, workloads
from entra_fast.emulator.model.directory import Directory, User
from entra_fast.emulator.model.manifests import DEFAULT_CLUSTER, Manifest, Notice
from entra_fast.emulator.model.registrations import NOTHING, Registration
from entra_fast.emulator.model.wording import did_you_mean, quoted
from entra_fast.emulator.model.workloads import BUILT_IN, Workload, Workloads
from entra_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from entra_fast.emulator.model.manifest_schema import AzureApplication

GENERATOR_NAMESPACE: Final = "nais"
GENERATOR_NAME: Final = "azure-token-generator"
CALLBACK_PATH: Final = "/oauth2/callback"  # where naiserator sends logins, below each ingress
# Where wonderwall, the login proxy of NAIS, ends a session and where it returns to after that.
PROXY_LOGOUT_PATH: Final = "/oauth2/logout/frontchannel"
PROXY_LOGOUT_CALLBACK_PATH: Final = "/oauth2/logout/callback"
DEFAULT_ROLE: Final = "access_as_application"
DEFAULT_SCOPE: Final = "defaultaccess"
SHOWN: Final = 5  # at most this many names of applications in an error


@dataclass(frozen=True, slots=True)
class Rule:
    """One inbound rule, with namespace and cluster filled in (policy 3).

    Attributes:
        consumer: `<cluster>:<namespace>:<name>`.
        location: `<file>:<line>`, empty for the rules of a built-in application.
        shadowed_by: location of an earlier rule for the same consumer; this one's permissions are lost.
    """

    consumer: str
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    location: str = ""
    shadowed_by: str | None = None

    @property
    def is_wildcard(self) -> bool:
        """Wildcards apply to the network only; in Entra ID they grant nothing (policy 4)."""
        return "*" in self.consumer.split(":")


@dataclass(frozen=True, slots=True)
class Application:
    """An application as it is registered in Entra ID.

    Attributes:
        name: `<cluster>:<namespace>:<name>`, also the display name (policy 1).
        client_id: GUID, the `aud` of tokens for this application.
        object_id: GUID of its service principal.
        group_ids: groups that exist and are assigned to it, "all users" groups included (policy 5).
        token_version: 1 or 2, the version of tokens *for* this application.
        location: `<file>:<line>` of its manifest, or `built in`.
        graph_scopes: delegated permissions for Microsoft Graph beside those that every application has.
        graph_roles: its own permissions for Microsoft Graph.
        single_page: whether all of its redirect URIs are a single-page application's.
        single_page_urls: redirect URIs that are a single-page application's in any case.
        id_token_implicit: whether the authorization endpoint may return ID tokens.
        access_token_implicit: the same for access tokens.
        public_client: whether it may redeem codes without a credential; None: device codes only.
        logout_url: where its part of a user's session is ended, in a frame (OpenID Connect Front-Channel
            Logout 1.0); empty for nowhere.
        logout_callbacks: where signing out may return to, besides its redirect URIs.
        registration: what its manifest cannot say.
    """

    name: str
    tenant: str
    tenant_id: str
    client_id: str
    object_id: str
    rules: tuple[Rule, ...]
    group_ids: tuple[str, ...]
    allow_all_users: bool
    reply_urls: tuple[str, ...]
    single_page: bool
    token_version: int
    location: str
    groups_location: str
    graph_scopes: tuple[str, ...] = ()
    graph_roles: tuple[str, ...] = ()
    single_page_urls: tuple[str, ...] = ()
    id_token_implicit: bool = False
    access_token_implicit: bool = False
    public_client: bool | None = None
    logout_url: str = ""
    logout_callbacks: tuple[str, ...] = ()
    registration: Registration = NOTHING

    def groups_in_tokens(self, user: User) -> tuple[str, ...]:
        """Object ids of the user's groups that tokens for this application have."""
        match self.registration.group_membership:
            case "None":
                return ()
            case "ApplicationGroup":
                return tuple(group for group in user.groups if group in self.group_ids)
            case _:
                return user.groups

    def is_single_page_url(self, url: str) -> bool:
        """Whether a redirect URI is registered as a single-page application's."""
        return url in (self.reply_urls if self.single_page else self.single_page_urls)

    @property
    def single_page_origins(self) -> frozenset[str]:
        """Origins from which its codes may be redeemed in a browser."""
        return frozenset(origin(url) for url in self.reply_urls if self.is_single_page_url(url))

    @property
    def identifier_uris(self) -> tuple[str, str]:
        """The two App ID URIs (policy 1)."""
        return (f"api://{self.client_id}", f"api://{self.name.replace(':', '.')}")

    @property
    def audiences(self) -> tuple[str, str, str]:
        """Every `aud` that a token for this application can have."""
        return (self.client_id, *self.identifier_uris)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant, isolated from other tenants (policy 7)."""

    id: str
    name: str
    directory: Directory
    applications: Mapping[str, Application]
    """By `<cluster>:<namespace>:<name>`."""
    _by_client_id: Mapping[str, Application]
    _by_uri: Mapping[str, Application]

    def application(self, client_id: str) -> Application | None:
        """By client id."""
        return self._by_client_id.get(client_id.lower())

    def resource(self, identifier: str) -> Application | None:
        """By App ID URI, client id, or `<cluster>:<namespace>:<name>`."""
        return (
            self._by_uri.get(identifier)
            or self._by_client_id.get(identifier.lower())
            or self.applications.get(identifier)
        )

    def with_reply_urls(self, extra: Mapping[str, Sequence[str]]) -> Tenant:
        """The same tenant with more redirect URIs for some applications."""
        applications = {
            name: _with_reply_urls(item, extra[name]) if name in extra else item
            for name, item in self.applications.items()
        }
        return make_tenant(self.directory, applications)

    def similar(self, name: str) -> str | None:
        """The name of the application that was probably meant."""
        wanted = name.removeprefix("api://").replace(".", ":")
        guess = difflib.get_close_matches(wanted, self.applications, 1, 0.7)
        return guess[0] if guess else None


@dataclass(frozen=True, slots=True)
class Registry:
    """All tenants, and notices about entries that real NAIS skips silently."""

    tenants: tuple[Tenant, ...]
    notices: tuple[Notice, ...]
    without_identity: Mapping[str, str]
    """Applications that exist but have no `azure.application.enabled: true`: name to location."""
    workloads: Workloads = workloads.NONE
    """What the other providers know."""

    @property
    def default_tenant(self) -> Tenant:
        """The tenant of manifests that name none."""
        return self.tenants[0]

    def tenant(self, name: str) -> Tenant | None:
        """By GUID or domain name."""
        wanted = name.lower()
        return next((tenant for tenant in self.tenants if wanted in (tenant.id, tenant.name)), None)

    def find(self, application: str) -> Application:
        """An application in any tenant, by any of its names.

        Raises:
            ConfigurationError: there is none; the message has a suggestion.
        """
        for tenant in self.tenants:
            found = tenant.resource(application)
            if found is not None:
                return found
        text = f"there is no application {application!r}"
        if application in self.without_identity:
            text = (
                f"the application {application} has no identity in Entra ID: set "
                f"spec.azure.application.enabled "
                f"to true at {self.without_identity[application]}"
            )
        else:
            guesses = [guess for tenant in self.tenants if (guess := tenant.similar(application))]
            names = [name for tenant in self.tenants for name in tenant.applications]
            if guesses:
                text += f"; did you mean {guesses[0]}?"
            elif names:
                shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
                text += f"; expected <cluster>:<namespace>:<name>, such as {shown}"
        raise ConfigurationError("application_unknown", text, application)

    def find_workload(self, name: str) -> Workload:
        """An application as the other providers know it, by any of its names.

        Raises:
            ConfigurationError: there is none.
        """
        known = self.workloads
        found = known.by_name.get(name) or known.maskinporten_client(name)
        if found is not None:
            return found
        application = self.find(name)
        return known.by_name.get(application.name) or workloads.without_providers(
            application.name, application.location
        )


def build(
    manifests: Iterable[Manifest],
    tenants: Sequence[Directory] = (),
    *,
    generator_reply_urls: Sequence[str] = (),
    generator_cluster: str = DEFAULT_CLUSTER,
) -> Registry:
    """The registry for some manifests and directories.

    The token generator is an application like any other. Unless a manifest describes it, it is built in and
    every user may log in to it.
    """
    directory_list = list(tenants) or [directories.empty(directories.DEFAULT_TENANT)]
    default = directory_list[0].tenant
    notices: list[Notice] = []
    without_identity: dict[str, str] = {}
    by_tenant: dict[str, list[Manifest]] = {entry.tenant: [] for entry in directory_list}
    manifests = tuple(manifests)
    for manifest in manifests:
        azure = manifest.spec.azure.application
        if azure is None or not azure.enabled:
            without_identity[manifest.application] = manifest.location("spec", "azure")
            continue
        tenant = azure.tenant or default
        if tenant not in by_tenant:
            by_tenant[tenant] = []
            directory_list.append(directories.empty(tenant))
            location = manifest.location("spec", "azure", "application", "tenant")
            notices.append(
                Notice(location, f"the directory has no tenant {tenant!r}: it has no users and groups")
            )
        by_tenant[tenant].append(manifest)
    everything = {item.application: tenant for tenant, items in by_tenant.items() for item in items}
    built: list[Tenant] = []
    for entry in directory_list:
        applications = {
            manifest.application: _application(manifest, entry, notices)
            for manifest in by_tenant[entry.tenant]
        }
        generator = f"{generator_cluster}:{GENERATOR_NAMESPACE}:{GENERATOR_NAME}"
        if entry.tenant == default and generator not in everything and generator not in without_identity:
            applications[generator] = _generator(generator, entry, generator_reply_urls)
        built.append(make_tenant(entry, applications))
    others = workloads.read(manifests, directory_list, notices, generator_cluster)
    for tenant_built in built:
        notices.extend(_rule_notices(tenant_built, everything, without_identity, others))
    return Registry(tuple(built), tuple(notices), MappingProxyType(without_identity), others)


def origin(url: str) -> str:
    """Scheme, host and port of a URL, as browsers write an origin (RFC 6454, section 6.2)."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.lower()
    return f"{parts.scheme}://{host.removesuffix({'http': ':80', 'https': ':443'}.get(parts.scheme, ''))}"


def make_tenant(entry: Directory, applications: Mapping[str, Application]) -> Tenant:
    """A tenant with these applications, by name."""
    return Tenant(
        entry.tenant_id,
        entry.tenant,
        entry,
        MappingProxyType(applications),
        MappingProxyType({item.client_id: item for item in applications.values()}),
        MappingProxyType({uri: item for item in applications.values() for uri in item.identifier_uris}),
    )


def _with_reply_urls(application: Application, extra: Sequence[str]) -> Application:
    urls = tuple(dict.fromkeys((*application.reply_urls, *extra)))
    callbacks = _start_pages(urls) if application.location == BUILT_IN else application.logout_callbacks
    return replace(application, reply_urls=urls, logout_callbacks=callbacks)


def _start_pages(urls: Sequence[str]) -> tuple[str, ...]:
    """Where the token generator returns to after signing out."""
    return tuple(dict.fromkeys(f"{origin(url)}/" for url in urls))


def _azure(manifest: Manifest) -> AzureApplication:
    azure = manifest.spec.azure.application
    if azure is None:
        raise ValueError("not an application of Entra ID")  # `build` leaves those out
    return azure


def _application(manifest: Manifest, entry: Directory, notices: list[Notice]) -> Application:
    azure = _azure(manifest)
    annotations = manifest.metadata.annotations
    group_ids = _assigned_groups(manifest, entry, notices)
    notices.extend(_annotation_notices(manifest))
    reply_urls = azure.reply_urls or tuple(
        ingress.rstrip("/") + CALLBACK_PATH for ingress in manifest.spec.ingresses
    )
    single_page_urls = tuple(annotations.single_page_urls.split())
    behind_proxy = [
        url.removesuffix(CALLBACK_PATH)
        for url in reply_urls
        if manifest.spec.azure.sidecar.enabled and url.endswith(CALLBACK_PATH)
    ]
    logout_url = annotations.logout_url or (behind_proxy[0] + PROXY_LOGOUT_PATH if behind_proxy else "")
    return Application(
        name=manifest.application,
        tenant=entry.tenant,
        tenant_id=entry.tenant_id,
        client_id=ids.client_id(entry.tenant, manifest.application),
        object_id=ids.service_principal_id(entry.tenant, manifest.application),
        rules=_rules(manifest, notices),
        group_ids=group_ids,
        allow_all_users=azure.allow_all_users,
        reply_urls=tuple(dict.fromkeys((*reply_urls, *single_page_urls))),
        single_page=azure.single_page_application,
        token_version=int(annotations.token_version),
        location=manifest.location("metadata", "name"),
        groups_location=manifest.location("spec", "azure", "application"),
        graph_scopes=tuple(annotations.graph_scopes.split()),
        graph_roles=tuple(annotations.graph_roles.split()),
        single_page_urls=single_page_urls,
        id_token_implicit=annotations.id_token_implicit == "true",
        access_token_implicit=annotations.implicit == "true",
        public_client=None if annotations.public_client is None else annotations.public_client == "true",
        logout_url=logout_url,
        logout_callbacks=tuple(base + PROXY_LOGOUT_CALLBACK_PATH for base in behind_proxy),
        registration=manifest.registration,
    )


def _assigned_groups(manifest: Manifest, entry: Directory, notices: list[Notice]) -> tuple[str, ...]:
    """Ids of the groups that admit users to an application, in the order of its manifest."""
    azure = _azure(manifest)
    assigned: dict[str, None] = {}
    for index, reference in enumerate(azure.claims.groups):
        if reference.id.lower() in entry.groups:
            assigned[reference.id.lower()] = None
        else:
            location = manifest.location("spec", "azure", "application", "claims", "groups", index)
            notices.append(
                Notice(
                    location, f"the group {reference.id} does not exist in {entry.tenant}: it admits no one"
                )
            )
    if azure.allow_all_users:
        everyone = [group.id for group in entry.groups.values() if group.all_users]
        assigned.update(dict.fromkeys(everyone))
        if not everyone:
            location = manifest.location("spec", "azure", "application", "allowAllUsers")
            notices.append(
                Notice(
                    location,
                    f"{entry.tenant} has no group with 'allUsers: true', so tokens for this application "
                    "have no group that stands for all users; they are admitted nevertheless",
                )
            )
    return tuple(assigned)


def _annotation_notices(manifest: Manifest) -> Iterable[Notice]:
    annotations = manifest.metadata.annotations
    for name in annotations.model_extra or ():
        if name.startswith("entra-fast/"):
            location = manifest.location("metadata", "annotations", name)
            hint = did_you_mean(name, annotations.field_names())
            yield Notice(location, f"there is no annotation {quoted(name)}: it has no effect{hint}")


def _rules(manifest: Manifest, notices: list[Notice]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    first: dict[str, str] = {}
    for index, written in enumerate(manifest.spec.access_policy.inbound.rules):
        location = manifest.location("spec", "accessPolicy", "inbound", "rules", index, "application")
        consumer = manifest.consumer(written)
        rule = Rule(
            consumer, written.permissions.roles, written.permissions.scopes, location, first.get(consumer)
        )
        first.setdefault(consumer, location)
        if rule.is_wildcard:
            notices.append(
                Notice(location, "a rule with a wildcard grants no access in Entra ID: name the application")
            )
        elif rule.shadowed_by is not None:
            notices.append(
                Notice(
                    location,
                    f"a second rule for {consumer}: the first one ({rule.shadowed_by}) wins, "
                    "and the permissions of this one are lost",
                )
            )
        rules.append(rule)
    return tuple(rules)


def _rule_notices(
    tenant: Tenant, everything: Mapping[str, str], without_identity: Mapping[str, str], others: Workloads
) -> Iterable[Notice]:
    # The usual mistake is the right name in the wrong namespace or cluster. A search by similarity would take
    # a tenth of a second for each rule where there are a thousand applications.
    by_bare_name: dict[str, str] = {name.rpartition(":")[2]: name for name in tenant.applications}
    for application in tenant.applications.values():
        for rule in application.rules:
            if rule.is_wildcard or rule.consumer in tenant.applications:
                continue
            if others.grants_in_tokenx(rule.consumer, application.name):
                continue
            guess = by_bare_name.get(rule.consumer.rpartition(":")[2])
            yield Notice(rule.location, _unresolved(rule.consumer, guess, everything, without_identity))


def _unresolved(
    consumer: str, guess: str | None, everything: Mapping[str, str], without_identity: Mapping[str, str]
) -> str:
    """Why a rule's application cannot be found, as a sentence."""
    if consumer in everything:
        return f"{consumer} is in the tenant {everything[consumer]}; tenants are isolated, so the "
        "rule grants nothing"
    if consumer in without_identity:
        return (
            f"{consumer} has no identity in Entra ID ({without_identity[consumer]}), so the rule "
            f"grants nothing "
            "until its azure.application is enabled"
        )
    hint = f"; did you mean {guess}?" if guess else ""
    return f"{consumer} does not exist, so the rule grants nothing until it appears{hint}"


def _generator(name: str, entry: Directory, reply_urls: Sequence[str]) -> Application:
    everyone = tuple(group.id for group in entry.groups.values() if group.all_users)
    return Application(
        name=name,
        tenant=entry.tenant,
        tenant_id=entry.tenant_id,
        client_id=ids.client_id(entry.tenant, name),
        object_id=ids.service_principal_id(entry.tenant, name),
        rules=(),
        group_ids=everyone,
        allow_all_users=True,
        reply_urls=tuple(reply_urls),
        single_page=False,
        token_version=2,
        location=BUILT_IN,
        groups_location=BUILT_IN,
        logout_callbacks=_start_pages(reply_urls),
    )
