"""NAIS manifests: the applications and their access policies, as written.

Reads `Application` and `Naisjob` resources (nais.io) from files and folders and checks them strictly: unknown
fields, wrong types, duplicate keys and duplicate applications are mistakes that name file, line and field.
What a rule *means*, and whether the applications and groups it names exist, belongs in registry.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from entra_fast.emulator.model import yaml_source
from entra_fast.emulator.model.validation import List, Section, did_you_mean, findings, quoted, shown
from entra_fast.emulator.model.yaml_source import Document, Mistakes, Place, SourceError, dotted

DEFAULT_CLUSTER: Final = "dev-gcp"
DEFAULT_NAMESPACE: Final = "default"  # as naiserator does
CLUSTER_ANNOTATION: Final = "entra-fast/cluster"
TOKEN_VERSION_ANNOTATION: Final = "entra-fast/access-token-version"

MAX_FILES: Final = 10_000

_KINDS: Final = ("Application", "Naisjob")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TENANT: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PERMISSION: Final = re.compile(r"[a-z0-9-_./]+")
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Fields of the real resources that have no bearing on Entra ID. They are accepted as they are.
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
        "idporten",
        "image",
        "influx",
        "kafka",
        "leaderElection",
        "liveness",
        "login",
        "logformat",
        "logtransform",
        "maskinporten",
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
        "tokenx",
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
    if not _NAME.fullmatch(value):
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


def _permission(value: str) -> str:
    if not _PERMISSION.fullmatch(value):
        raise ValueError(f"{quoted(value)} does not match ^[a-z0-9-_./]+$")
    return value


def is_reply_url(url: str) -> bool:
    """Whether Entra ID would accept a redirect URI: https, or http on this machine."""
    return bool(
        re.fullmatch(
            r"(https://[^\s#*/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?)(/[^\s#*]*)?", url
        )
    )


Name = Annotated[str, AfterValidator(_name)]
ConsumerName = Annotated[str, AfterValidator(_name_or_wildcard)]
Permission = Annotated[str, AfterValidator(_permission)]


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
    """The part of `spec` that concerns Entra ID."""

    ignored_fields = _IGNORED_SPEC_FIELDS

    access_policy: AccessPolicy = AccessPolicy()
    azure: Azure = Azure()
    ingresses: List[str] = ()


class Annotations(Section, extra="allow"):
    """`metadata.annotations`: two of ours, and any others; all values are text."""

    __pydantic_extra__: dict[str, str]

    cluster: Name | None = Field(None, alias=CLUSTER_ANNOTATION)
    token_version: Literal["1", "2"] = Field("2", alias=TOKEN_VERSION_ANNOTATION)


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """One application as its manifest describes it.

    Attributes:
        cluster: from the annotation `entra-fast/cluster`, else the cluster its source was loaded for.
        document: where it was read from, for messages that name file and line.
    """

    cluster: str
    metadata: Metadata
    spec: Spec
    document: Document

    @property
    def application(self) -> str:
        """`<cluster>:<namespace>:<name>` (policy 1)."""
        return f"{self.cluster}:{self.metadata.namespace}:{self.metadata.name}"

    def location(self, *place: str | int) -> str:
        """`<file>:<line>` of a place in the document."""
        return f"{self.document.file}:{self.document.line(place)}"


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a folder with manifests, and the cluster that they belong to."""

    path: Path
    cluster: str = DEFAULT_CLUSTER

    @classmethod
    def parse(cls, text: str, default_cluster: str = DEFAULT_CLUSTER) -> Source:
        """From `[<cluster>=]<path>`."""
        cluster, separator, path = text.partition("=")
        if separator and _NAME.fullmatch(cluster):
            return cls(Path(path), cluster)
        return cls(Path(text), default_cluster)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that real NAIS would silently skip.

    Attributes:
        location: `<file>:<line>`.
        text: what is skipped, and what to do about it.
    """

    location: str
    text: str

    def __str__(self) -> str:
        return f"{self.location}: {self.text}"


@dataclass(frozen=True, slots=True)
class Manifests:
    """All manifests of some sources, and notices about what was skipped."""

    manifests: tuple[Manifest, ...]
    warnings: tuple[Notice, ...]


def load(sources: Iterable[Source], mistakes: Mistakes) -> Manifests:
    """Read all manifests. Mistakes are added to `mistakes`; the result is then incomplete."""
    manifests: dict[str, Manifest] = {}
    warnings: list[Notice] = []
    for source in sources:
        with mistakes.collected():  # a folder with too many files
            for path in files(source.path):
                # A file is read to its end, unless it is not YAML any more.
                with mistakes.collected():
                    for document in yaml_source.documents(
                        yaml_source.read_text(path), yaml_source.label(path)
                    ):
                        with mistakes.collected():
                            if _is_nais_resource(document):
                                _add(manifests, parse(document, source.cluster))
                            else:
                                warnings.append(_skipped(document))
    return Manifests(tuple(manifests.values()), tuple(warnings))


def parse(document: Document, cluster: str = DEFAULT_CLUSTER) -> Manifest:
    """One manifest from a document.

    Raises:
        SourceError: with all mistakes of the document.
    """
    mistakes = Mistakes()
    try:
        resource = Resource.model_validate(document.value)
    except ValidationError as error:
        for finding in sorted(findings(Resource, error), key=lambda item: document.line(item.place)):
            mistakes.add(
                _error(
                    document,
                    finding.place,
                    finding.text,
                    "manifest_unknown_field" if finding.unknown_field else "manifest_invalid",
                )
            )
        mistakes.raise_if_any()
        raise  # pragma: no cover - a validation error has at least one finding, so the line above has raised
    cluster = resource.metadata.annotations.cluster or cluster
    if not _NAME.fullmatch(cluster):  # of the source: the annotation's has been checked
        raise _error(document, ("metadata",), f"{quoted(cluster)} is not the name of a cluster")
    return Manifest(cluster, resource.metadata, resource.spec, document)


def files(path: Path) -> Iterator[Path]:
    """The files of a source, in order. Raises SourceError when there are too many."""
    if not path.is_dir():
        yield path
        return
    found = sorted(file for suffix in ("*.yaml", "*.yml") for file in path.rglob(suffix) if file.is_file())
    if len(found) > MAX_FILES:
        raise SourceError("too_many_files", f"holds more than {MAX_FILES} YAML files", str(path), 1)
    yield from found


def _is_nais_resource(document: Document) -> bool:
    """Whether this is an application. Folders with manifests hold other kinds of resources too, but a
    document without a kind is a mistake, not another kind.
    """
    root = document.value
    if not isinstance(root, dict):
        raise _error(document, (), f"expected a mapping, got {shown(root)}")
    mistakes = Mistakes()
    for name in ("apiVersion", "kind"):
        if name not in root:
            mistakes.add(_error(document, (name,), "required, but missing"))
        elif not isinstance(root[name], str):
            mistakes.add(_error(document, (name,), f"expected text, got {shown(root[name])}"))
    mistakes.raise_if_any()
    kind, version = root["kind"], root["apiVersion"]
    if not version.startswith("nais.io/"):
        return False
    if kind not in _KINDS and (hint := did_you_mean(kind, _KINDS, 0.75)):
        raise _error(document, ("kind",), f"unknown kind {quoted(kind)}{hint}")
    return kind in _KINDS


def _skipped(document: Document) -> Notice:
    kind = document.value["kind"]
    return Notice(
        f"{document.file}:{document.line(())}", f"skipped: {quoted(kind)} is neither Application nor Naisjob"
    )


def _add(manifests: dict[str, Manifest], manifest: Manifest) -> None:
    other = manifests.setdefault(manifest.application, manifest)
    if other is not manifest:
        place = ("metadata", "name")
        text = f"the application {manifest.application} is already defined at {other.location(*place)}"
        raise _error(manifest.document, place, text, "application_duplicate")


def _error(document: Document, place: Place, text: str, code: str = "manifest_invalid") -> SourceError:
    return SourceError(code, text, document.file, document.line(place), dotted(place))
