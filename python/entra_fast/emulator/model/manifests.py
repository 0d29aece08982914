"""NAIS manifests: the applications and their access policies, as written.

Reads `Application` and `Naisjob` resources (nais.io) from files and folders and checks them strictly: unknown
fields, wrong types, duplicate keys and duplicate applications are mistakes that name file, line and field.
Which fields there are is defined in manifest_schema.py, which needs pydantic and is imported with the first
manifest, like yaml_source.py. What a rule *means*, and whether the applications and groups it names exist,
belongs in registry.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from entra_fast.emulator.model import registrations
from entra_fast.emulator.model.documents import Document, Mistakes, Place, SourceError, dotted
from entra_fast.emulator.model.forms import NAME
from entra_fast.emulator.model.registrations import NOTHING, Registration
from entra_fast.emulator.model.wording import did_you_mean, quoted, shown

if TYPE_CHECKING:
    from entra_fast.emulator.model.manifest_schema import InboundRule, Metadata, Spec

DEFAULT_CLUSTER: Final = "dev-gcp"

MAX_FILES: Final = 10_000

_KINDS: Final = ("Application", "Naisjob")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One application as its manifest describes it.

    Attributes:
        cluster: from the annotation `entra-fast/cluster`, else the cluster its source was loaded for.
        document: where it was read from, for messages that name file and line.
        registration: from the file beside it.
    """

    cluster: str
    metadata: Metadata
    spec: Spec
    document: Document
    registration: Registration = NOTHING

    @property
    def application(self) -> str:
        """`<cluster>:<namespace>:<name>` (policy 1)."""
        return f"{self.cluster}:{self.metadata.namespace}:{self.metadata.name}"

    def consumer(self, rule: InboundRule) -> str:
        """The application that an inbound rule names, with namespace and cluster filled in (policy 3)."""
        return ":".join(
            (rule.cluster or self.cluster, rule.namespace or self.metadata.namespace, rule.application)
        )

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
        if separator and NAME.fullmatch(cluster):
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
                found = _read(path, source.cluster, mistakes, warnings)
                for manifest in found:
                    with mistakes.collected():
                        _add(manifests, manifest)
            for path in _registrations(source.path):
                with mistakes.collected():
                    registrations.check_not_alone(path)
    return Manifests(tuple(manifests.values()), tuple(warnings))


def _read(path: Path, cluster: str, mistakes: Mistakes, warnings: list[Notice]) -> list[Manifest]:
    """The applications of one file, with what the file beside it says about them."""
    from entra_fast.emulator.model import yaml_source  # noqa: PLC0415 - see above

    found: list[Manifest] = []
    before = mistakes.total
    # A file is read to its end, unless it is not YAML any more.
    with mistakes.collected():
        for document in yaml_source.documents(yaml_source.read_text(path), yaml_source.label(path)):
            with mistakes.collected():
                if _is_nais_resource(document):
                    found.append(parse(document, cluster))
                else:
                    warnings.append(_skipped(document))
    complete = mistakes.total == before
    entries, notices = registrations.load(path, mistakes)
    warnings.extend(Notice(location, text) for location, text in notices)
    whose = [(manifest.metadata.namespace, manifest.metadata.name) for manifest in found]
    if complete:  # otherwise, the application of a registration may be the one that has a mistake
        for mistake in registrations.check(entries, whose, path.name):
            mistakes.add(mistake)
    return [
        replace(manifest, registration=registrations.chosen(entries, namespace, name))
        for manifest, (namespace, name) in zip(found, whose, strict=True)
    ]


def parse(document: Document, cluster: str = DEFAULT_CLUSTER) -> Manifest:
    """One manifest from a document.

    Raises:
        SourceError: with all mistakes of the document.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - see above

    from entra_fast.emulator.model.manifest_schema import Resource  # noqa: PLC0415 - see above
    from entra_fast.emulator.model.validation import findings  # noqa: PLC0415 - see above

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
    for place, text in resource.spec.refusals():
        mistakes.add(_error(document, ("spec", *place), text))
    mistakes.raise_if_any()
    cluster = resource.metadata.annotations.cluster or cluster
    if not NAME.fullmatch(cluster):  # of the source: the annotation's has been checked
        raise _error(document, ("metadata",), f"{quoted(cluster)} is not the name of a cluster")
    return Manifest(cluster, resource.metadata, resource.spec, document)


def files(path: Path) -> Iterator[Path]:
    """The manifest files of a source, in order. Raises SourceError when there are too many."""
    if not path.is_dir():
        yield path
        return
    yield from (file for file in _yaml_files(path) if not registrations.is_registration(file))


def watched(path: Path) -> Iterator[Path]:
    """The files of a source and those beside them. Raises SourceError when there are too many."""
    if path.is_dir():
        yield from _yaml_files(path)
    else:
        yield path
        yield from registrations.beside(path)


def _registrations(path: Path) -> list[Path]:
    return (
        [file for file in _yaml_files(path) if registrations.is_registration(file)] if path.is_dir() else []
    )


def _yaml_files(path: Path) -> list[Path]:
    found = sorted(file for suffix in ("*.yaml", "*.yml") for file in path.rglob(suffix) if file.is_file())
    if len(found) > MAX_FILES:
        raise SourceError("too_many_files", f"holds more than {MAX_FILES} YAML files", str(path), 1)
    return found


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
