"""The fields of NAIS manifests that concern the providers, for validating them with pydantic.

What belongs here: names, types and forms of fields. What they mean belongs in registry.py and workloads.py.
The sections of the other providers are in provider_schema.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.forms import NAME, is_organization_number, is_reply_url
from entra_fast.emulator.model.provider_schema import IdPorten, Maskinporten, TokenX
from entra_fast.emulator.model.validation import List, Section
from entra_fast.emulator.model.wording import quoted

DEFAULT_NAMESPACE: Final = "default"  # as naiserator does
CLUSTER_ANNOTATION: Final = "entra-fast/cluster"
TOKEN_VERSION_ANNOTATION: Final = "entra-fast/access-token-version"

# What a registration in Entra ID has and a NAIS manifest does not.
SINGLE_PAGE_ANNOTATION: Final = "entra-fast/single-page-reply-urls"
ID_TOKEN_IMPLICIT_ANNOTATION: Final = "entra-fast/allow-id-token-implicit-flow"
IMPLICIT_ANNOTATION: Final = "entra-fast/allow-implicit-flow"
PUBLIC_CLIENT_ANNOTATION: Final = "entra-fast/allow-public-client"
LOGOUT_ANNOTATION: Final = "entra-fast/front-channel-logout-url"

# For logins at ID-porten from a developer's machine: what its registration has and a NAIS manifest does not.
IDPORTEN_REDIRECT_ANNOTATION: Final = "entra-fast/idporten-redirect-uris"
IDPORTEN_PUBLIC_ANNOTATION: Final = "entra-fast/idporten-public-client"
# What a registration in Maskinporten has and a NAIS manifest does not: NAIS has one organization.
ORGANIZATION_ANNOTATION: Final = "entra-fast/organization-number"

_TENANT: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PERMISSION: Final = re.compile(r"[a-z0-9-_./]+")
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Fields of the real resources that have no bearing on a provider. They are accepted as they are.
_IGNORED_SPEC_FIELDS: Final = frozenset(
    [
        "activeDeadlineSeconds",
        "alerts",
        "backoffLimit",
        "command",
        "completions",
        "concurrencyPolicy",
        "elastic",
        "env",
        "envFrom",
        "failedJobsHistoryLimit",
        "filesFrom",
        "frontend",
        "gcp",
        "image",
        "influx",
        "kafka",
        "leaderElection",
        "liveness",
        "login",
        "logformat",
        "logtransform",
        "observability",
        "openSearch",
        "parallelism",
        "podMonitor",
        "port",
        "postgres",
        "preStopHook",
        "preStopHookPath",
        "prometheus",
        "readiness",
        "redis",
        "replicas",
        "resources",
        "restartPolicy",
        "schedule",
        "secureLogs",
        "securityContext",
        "service",
        "skipCaBundle",
        "startup",
        "strategy",
        "successfulJobsHistoryLimit",
        "terminationGracePeriodSeconds",
        "timeZone",
        "ttl",
        "ttlSecondsAfterFinished",
        "valkey",
        "vault",
        "webproxy",
    ]
)
_IGNORED_METADATA_FIELDS: Final = frozenset(
    [
        "clusterName",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]
)


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            f"{quoted(value)} is not a name: lower-case letters, digits and '-', at most 63 characters"
        )
    return value


def _name_or_wildcard(value: str) -> str:
    return value if value == "*" else _name(value)


def _domain(value: str) -> str:
    if not _TENANT.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a domain name")
    return value


def _group_id(value: str) -> str:
    if not _GUID.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a GUID; groups are named by their object id")
    return value


def _reply_url(value: str) -> str:
    if not is_reply_url(value):
        raise ValueError(
            f"{quoted(value)} is not a reply URL: https, or http on localhost, without fragment or wildcard"
        )
    return value


def _reply_urls(value: str) -> str:
    for url in value.split():
        _reply_url(url)
    return value


def _permission(value: str) -> str:
    if not _PERMISSION.fullmatch(value):
        raise ValueError(f"{quoted(value)} does not match ^[a-z0-9-_./]+$")
    return value


def _organization_number(value: str) -> str:
    if not is_organization_number(value):
        raise ValueError(
            f"{quoted(value)} is not an organization number: nine digits, the last of which checks the "
            "others, as in 310000019"
        )
    return value


def _one_of(known: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        for name in value.split():
            if name not in known:
                raise ValueError(f"{quoted(name)} is none of {', '.join(known)}")
        return value

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(_name)]
ConsumerName = Annotated[str, AfterValidator(_name_or_wildcard)]
Permission = Annotated[str, AfterValidator(_permission)]
Switch = Literal["true", "false"]


class Permissions(Section):
    """Custom permissions of one consumer (policy 6)."""

    roles: List[Permission] = ()
    scopes: List[Permission] = ()


class InboundRule(Section):
    """One entry of `spec.accessPolicy.inbound.rules`."""

    application: ConsumerName
    namespace: ConsumerName | None = None
    cluster: ConsumerName | None = None
    permissions: Permissions = Permissions()


class Inbound(Section):
    """`spec.accessPolicy.inbound`."""

    rules: List[InboundRule] = ()


class AccessPolicy(Section):
    """`spec.accessPolicy`; `outbound` concerns the network only."""

    ignored_fields = frozenset(["outbound"])

    inbound: Inbound = Inbound()


class GroupReference(Section):
    """One entry of `claims.groups`."""

    id: Annotated[str, AfterValidator(_group_id)]


class Claims(Section):
    """`spec.azure.application.claims`."""

    groups: List[GroupReference] = ()
    extra: List[str] = ()


class AzureApplication(Section):
    """`spec.azure.application`."""

    enabled: bool
    reply_urls: List[Annotated[str, AfterValidator(_reply_url)]] = Field((), alias="replyURLs")
    tenant: Annotated[str, AfterValidator(_domain)] | None = None
    claims: Claims = Claims()
    single_page_application: bool = False
    allow_all_users: bool = False


class LoginProxy(Section, extra="ignore"):
    """`spec.azure.sidecar`; its other fields do not matter here."""

    enabled: bool = False


class Azure(Section):
    """`spec.azure`."""

    application: AzureApplication | None = None
    sidecar: LoginProxy = LoginProxy()


class Spec(Section):
    """The part of `spec` that concerns the providers."""

    ignored_fields = _IGNORED_SPEC_FIELDS

    access_policy: AccessPolicy = AccessPolicy()
    azure: Azure = Azure()
    idporten: IdPorten = IdPorten(enabled=False)
    ingresses: List[str] = ()
    tokenx: TokenX = TokenX(enabled=False)
    maskinporten: Maskinporten = Maskinporten(enabled=False)

    def refusals(self) -> list[tuple[tuple[str, ...], str]]:
        """What NAIS refuses although each field is right: where, and why."""
        found: list[tuple[tuple[str, ...], str]] = []
        if self.idporten.enabled:
            if not self.idporten.sidecar.enabled:
                text = "logins at ID-porten go through the login proxy: set idporten.sidecar.enabled to true"
                found.append((("idporten",), text))
            elif self.azure.sidecar.enabled:
                text = "an application has one login proxy: enable either azure.sidecar or idporten.sidecar"
                found.append((("idporten", "sidecar"), text))
            if not self.ingresses:
                text = "ID-porten sends users back to an ingress: spec.ingresses must have one"
                found.append((("idporten",), text))
        return found


class Annotations(Section, extra="allow"):
    """`metadata.annotations`: ours, and any others; all values are text."""

    __pydantic_extra__: dict[str, str]

    cluster: Name | None = Field(None, alias=CLUSTER_ANNOTATION)
    token_version: Literal["1", "2"] = Field("2", alias=TOKEN_VERSION_ANNOTATION)
    graph_scopes: Annotated[str, _one_of(graph.SCOPES)] = Field("", alias=graph.SCOPES_ANNOTATION)
    graph_roles: Annotated[str, _one_of(graph.ROLES)] = Field("", alias=graph.ROLES_ANNOTATION)
    single_page_urls: Annotated[str, AfterValidator(_reply_urls)] = Field("", alias=SINGLE_PAGE_ANNOTATION)
    id_token_implicit: Switch = Field("false", alias=ID_TOKEN_IMPLICIT_ANNOTATION)
    implicit: Switch = Field("false", alias=IMPLICIT_ANNOTATION)
    public_client: Switch | None = Field(None, alias=PUBLIC_CLIENT_ANNOTATION)
    logout_url: Annotated[str, AfterValidator(_reply_url)] | None = Field(None, alias=LOGOUT_ANNOTATION)
    idporten_redirect_uris: Annotated[str, AfterValidator(_reply_urls)] = Field(
        "", alias=IDPORTEN_REDIRECT_ANNOTATION
    )
    idporten_public: Switch = Field("false", alias=IDPORTEN_PUBLIC_ANNOTATION)
    organization: Annotated[str, AfterValidator(_organization_number)] | None = Field(
        None, alias=ORGANIZATION_ANNOTATION
    )


class Metadata(Section):
    """The part of `metadata` that matters here."""

    ignored_fields = _IGNORED_METADATA_FIELDS

    name: Name
    namespace: Name = DEFAULT_NAMESPACE
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: Annotations = Annotations.model_validate({})


class Resource(Section):
    """An `Application` or `Naisjob`."""

    ignored_fields = frozenset(["apiVersion", "kind", "status"])

    metadata: Metadata
    spec: Spec = Spec()
