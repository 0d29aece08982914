"""NAIS manifests: which applications there are, and whom their access policies admit, as written.

Reads `Application` and `Naisjob` resources (nais.io) from files and folders and checks them strictly: unknown
fields, wrong types, duplicate keys and duplicate applications are errors that name file, line and field.
What a rule *means*, and whether the applications and groups it names exist, is decided in registry.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from entra_fast.emulator.model import yaml_source
from entra_fast.emulator.model.yaml_source import Document, SourceError

DEFAULT_CLUSTER: Final = "dev-gcp"
DEFAULT_NAMESPACE: Final = "default"  # as naiserator does
CLUSTER_ANNOTATION: Final = "entra-fast/cluster"
TOKEN_VERSION_ANNOTATION: Final = "entra-fast/access-token-version"

MAX_FILES: Final = 10_000
MAX_ERRORS: Final = 20  # a folder of unrelated YAML must not flood the terminal

_KINDS: Final = ("Application", "Naisjob")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TENANT: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PERMISSION: Final = re.compile(r"[a-z0-9-_./]+")
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Fields of the real resources that have no bearing on Entra ID. They are accepted as they are.
_OPAQUE_SPEC_FIELDS: Final = frozenset(
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
_OPAQUE_METADATA_FIELDS: Final = frozenset(
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


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class Permissions(_Struct, frozen=True):
    """Custom permissions of one consumer (policy 6)."""

    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


class InboundRule(_Struct, frozen=True):
    """One entry of `spec.accessPolicy.inbound.rules`."""

    application: str
    namespace: str | None = None
    cluster: str | None = None
    permissions: Permissions = Permissions()


class Inbound(_Struct, frozen=True):
    """`spec.accessPolicy.inbound`."""

    rules: tuple[InboundRule, ...] = ()


class AccessPolicy(_Struct, frozen=True):
    """`spec.accessPolicy`; `outbound` concerns the network only."""

    inbound: Inbound = Inbound()
    outbound: Any = None


class GroupReference(_Struct, frozen=True):
    """One entry of `claims.groups`."""

    id: str


class Claims(_Struct, frozen=True):
    """`spec.azure.application.claims`."""

    groups: tuple[GroupReference, ...] = ()
    extra: tuple[str, ...] = ()


class AzureApplication(_Struct, frozen=True):
    """`spec.azure.application`."""

    enabled: bool
    reply_urls: tuple[str, ...] = msgspec.field(default=(), name="replyURLs")
    tenant: str | None = None
    claims: Claims = Claims()
    single_page_application: bool = False
    allow_all_users: bool = False


class Sidecar(msgspec.Struct, frozen=True):
    """`spec.azure.sidecar`, the login proxy; its other fields have no bearing here."""

    enabled: bool = False


class Azure(_Struct, frozen=True):
    """`spec.azure`."""

    application: AzureApplication | None = None
    sidecar: Sidecar = Sidecar()


class Spec(_Struct, frozen=True):
    """The part of `spec` that has a bearing on Entra ID."""

    access_policy: AccessPolicy = AccessPolicy()
    azure: Azure = Azure()
    ingresses: tuple[str, ...] = ()


class Metadata(_Struct, frozen=True):
    """The part of `metadata` that has a bearing."""

    name: str
    namespace: str = DEFAULT_NAMESPACE
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One application as its manifest describes it.

    Attributes:
        cluster: from the annotation `entra-fast/cluster`, else the cluster its source was loaded for.
        document: where it stands, for messages that name file and line.
    """

    cluster: str
    metadata: Metadata
    spec: Spec
    document: Document

    @property
    def application(self) -> str:
        """`<cluster>:<namespace>:<name>` (policy 1)."""
        return f"{self.cluster}:{self.metadata.namespace}:{self.metadata.name}"

    def location(self, path: str = "$") -> str:
        """`<file>:<line>` of a path."""
        return f"{self.document.file}:{self.document.line(path)}"


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
    """All manifests of some sources, and what was noticed on the way."""

    manifests: tuple[Manifest, ...]
    warnings: tuple[Notice, ...]


def load(sources: Iterable[Source]) -> Manifests:
    """Read all manifests.

    Raises:
        SourceError: one or more files are wrong; the message has a line for each problem (the first 20).
    """
    manifests: dict[str, Manifest] = {}
    warnings: list[Notice] = []
    errors: list[SourceError] = []
    for source in sources:
        for path in files(source.path):
            try:
                for document in yaml_source.documents(yaml_source.read_text(path), yaml_source.label(path)):
                    if not _is_nais_resource(document):
                        warnings.append(_skipped(document))
                        continue
                    try:
                        manifest = parse(document, source.cluster)
                        _add(manifests, manifest)
                    except SourceError as error:
                        errors.append(error)
            except SourceError as error:
                errors.append(error)
            if len(errors) >= MAX_ERRORS:
                raise _combined(errors)
    if errors:
        raise _combined(errors)
    return Manifests(tuple(manifests.values()), tuple(warnings))


def parse(document: Document, cluster: str = DEFAULT_CLUSTER) -> Manifest:
    """One manifest from a document. Raises SourceError."""
    root = _mapping(document)
    for name in root:
        if name not in ("apiVersion", "kind", "metadata", "spec", "status"):
            raise _unknown(document, f"$.{name}", ("apiVersion", "kind", "metadata", "spec", "status"))
    metadata = _convert(document, "metadata", Metadata, _OPAQUE_METADATA_FIELDS)
    spec = _convert(document, "spec", Spec, _OPAQUE_SPEC_FIELDS)
    cluster_path = "$.metadata"
    if CLUSTER_ANNOTATION in metadata.annotations:
        cluster = metadata.annotations[CLUSTER_ANNOTATION]
        cluster_path = f"$.metadata.annotations.{CLUSTER_ANNOTATION}"
    manifest = Manifest(cluster, metadata, spec, document)
    _check_names(manifest, cluster_path)
    _check_azure(manifest)
    _check_rules(manifest)
    return manifest


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
    """Whether this is for us. Folders with manifests hold other kinds of resources too; but a document
    that has no kind at all is a mistake, not another kind.
    """
    root = _mapping(document)
    for name in ("apiVersion", "kind"):
        if not isinstance(root.get(name), str):
            raise SourceError(
                "manifest_invalid",
                "expected a string; it is required",
                document.file,
                document.line(f"$.{name}"),
                name,
            )
    kind, version = root["kind"], root["apiVersion"]
    if version.startswith("nais.io/") and kind not in _KINDS:
        guess = difflib.get_close_matches(kind, _KINDS, 1, 0.75)
        if guess:
            text = f"unknown kind {kind!r}; did you mean {guess[0]!r}?"
            raise SourceError("manifest_invalid", text, document.file, document.line("$.kind"), "kind")
    return version.startswith("nais.io/") and kind in _KINDS


def _mapping(document: Document) -> dict[str, Any]:
    if not isinstance(document.value, dict):
        raise SourceError("manifest_invalid", "expected a mapping", document.file, document.line("$"))
    return document.value


def _skipped(document: Document) -> Notice:
    kind = document.value["kind"]
    return Notice(
        f"{document.file}:{document.line('$')}", f"skipped: {kind!r} is neither Application nor Naisjob"
    )


def _add(manifests: dict[str, Manifest], manifest: Manifest) -> None:
    other = manifests.setdefault(manifest.application, manifest)
    if other is not manifest:
        raise SourceError(
            "application_duplicate",
            f"the application {manifest.application} is already defined at "
            f"{other.location('$.metadata.name')}",
            manifest.document.file,
            manifest.document.line("$.metadata.name"),
            "metadata.name",
        )


def _combined(errors: Sequence[SourceError]) -> SourceError:
    first = errors[0]
    if len(errors) > 1:
        first.message = "\n".join(error.message for error in errors)
    return first


_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")


_KNOWN: Final = {
    kind: frozenset(field.encode_name for field in msgspec.structs.fields(kind)) for kind in (Metadata, Spec)
}


def _convert(document: Document, section: str, kind: type[Any], opaque: frozenset[str]) -> Any:
    path = f"$.{section}"
    value = document.value.get(section, {})
    known = _KNOWN[kind]
    if isinstance(value, dict):
        for name in value:
            if name not in known and name not in opaque:
                raise _unknown(document, f"{path}.{name}", known | opaque)
        value = {name: item for name, item in value.items() if name in known}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise conversion_error(document, path, error, kind) from None


def conversion_error(document: Document, root: str, error: Exception, kind: type[Any]) -> SourceError:
    """A sentence of msgspec's with file, line and field in front; `root` is the path that was converted."""
    text, _, place = str(error).partition(" - at `")
    path = root + place.removeprefix("key in ").removeprefix("$").removesuffix("`")
    if unknown := _UNKNOWN.fullmatch(text):
        return _unknown(document, f"{path}.{unknown['name']}", _fields_at(kind, path.removeprefix(root)))
    if missing := _MISSING.fullmatch(text):
        return _error(document, f"{path}.{missing['name']}", "required, but missing")
    return _error(document, path, text[0].lower() + text[1:].replace("`", "'"))


def _fields_at(kind: Any, path: str) -> set[str]:
    """Names of the fields that the structure at a path may have."""
    for step in re.findall(r"\.([^.\[]+)|\[", path):
        if step:
            kind = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}[step]
        for argument in getattr(kind, "__args__", ()):
            if isinstance(argument, type) and issubclass(argument, msgspec.Struct):
                kind = argument
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def _error(document: Document, path: str, text: str, code: str = "manifest_invalid") -> SourceError:
    return SourceError(code, text, document.file, document.line(path), path.removeprefix("$").lstrip("."))


def _unknown(document: Document, path: str, known: Iterable[str]) -> SourceError:
    name = path.rpartition(".")[2]
    guess = difflib.get_close_matches(name, sorted(known), 1)
    hint = f"; did you mean {guess[0]!r}?" if guess else ""
    return _error(document, path, f"unknown field{hint}", "manifest_unknown_field")


def _check_names(manifest: Manifest, cluster_path: str) -> None:
    for path, value in (
        ("$.metadata.name", manifest.metadata.name),
        ("$.metadata.namespace", manifest.metadata.namespace),
        (cluster_path, manifest.cluster),
    ):
        if not _NAME.fullmatch(value):
            raise _error(
                manifest.document,
                path,
                f"{value!r} is not a name: lower-case letters, digits and '-', at most 63",
            )
    version = manifest.metadata.annotations.get(TOKEN_VERSION_ANNOTATION, "2")
    if version not in ("1", "2"):
        path = f"$.metadata.annotations.{TOKEN_VERSION_ANNOTATION}"
        raise _error(manifest.document, path, f"expected '1' or '2', not {version!r}")


def _check_azure(manifest: Manifest) -> None:
    azure = manifest.spec.azure.application
    if azure is None:
        return
    path = "$.spec.azure.application"
    if azure.tenant is not None and not _TENANT.fullmatch(azure.tenant):
        raise _error(manifest.document, f"{path}.tenant", f"{azure.tenant!r} is not a domain name")
    for index, group in enumerate(azure.claims.groups):
        if not _GUID.fullmatch(group.id):
            text = f"{group.id!r} is not a GUID; groups are named by their object id"
            raise _error(manifest.document, f"{path}.claims.groups[{index}].id", text)
    for index, url in enumerate(azure.reply_urls):
        if not is_reply_url(url):
            text = f"{url!r} is not a reply URL: https, or http on localhost, without fragment or wildcard"
            raise _error(manifest.document, f"{path}.replyURLs[{index}]", text)


def is_reply_url(url: str) -> bool:
    """Whether Entra ID would take a redirect URI: https, or http on the own machine."""
    return bool(
        re.fullmatch(
            r"(https://[^\s#*/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?)(/[^\s#*]*)?", url
        )
    )


def _check_rules(manifest: Manifest) -> None:
    for index, rule in enumerate(manifest.spec.access_policy.inbound.rules):
        path = f"$.spec.accessPolicy.inbound.rules[{index}]"
        for name in ("application", "namespace", "cluster"):
            value = getattr(rule, name)
            if value is not None and value != "*" and not _NAME.fullmatch(value):
                raise _error(manifest.document, f"{path}.{name}", f"{value!r} is not a name")
        for kind in ("roles", "scopes"):
            for place, permission in enumerate(getattr(rule.permissions, kind)):
                if not _PERMISSION.fullmatch(permission):
                    text = f"{permission!r} does not match ^[a-z0-9-_./]+$"
                    raise _error(manifest.document, f"{path}.permissions.{kind}[{place}]", text)
