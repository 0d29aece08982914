"""Settings of an app registration in Entra ID for which NAIS manifests have no field: optional claims, the
lifetime of access tokens, and which groups they have; from a file beside the manifest.

    # my-app.entra.yaml, beside my-app.yaml
    accessTokenLifetime: 600
    groupMembershipClaims: SecurityGroup
    optionalClaims:
      idToken: [{name: auth_time}]
      accessToken: [{name: email}, {name: groups, additionalProperties: [cloud_displayname]}]

Its fields are those of Microsoft's application manifest, where that has them. They are defined in
registration_schema.py, which needs pydantic and is imported with the first file. What the claims contain
belongs in protocol/optional_claims.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from entra_fast.emulator.model.documents import Document, Mistakes, Place, SourceError, dotted
from entra_fast.emulator.model.forms import GroupMembership
from entra_fast.emulator.model.wording import quoted

if TYPE_CHECKING:
    from entra_fast.emulator.model.registration_schema import ClaimEntry, RegistrationDocument

SUFFIXES: Final = (".entra.yaml", ".entra.yml")


@dataclass(frozen=True, slots=True)
class OptionalClaim:
    """One optional claim. `properties`: its additional properties."""

    name: str
    properties: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Registration:
    """What the file says about an application.

    Attributes:
        id_token: optional claims of ID tokens for the application.
        access_token: optional claims of access tokens for the application.
        access_token_lifetime: of tokens for the application, in seconds; None for 60 to 90 minutes.
        group_membership: which of a user's groups are in tokens for it: those that are assigned to it
            (`ApplicationGroup`), every one (`SecurityGroup`, `All`), or none.
        location: `<file>:<line>`; empty where there is no such file.
    """

    id_token: tuple[OptionalClaim, ...] = ()
    access_token: tuple[OptionalClaim, ...] = ()
    access_token_lifetime: int | None = None
    group_membership: GroupMembership = "ApplicationGroup"
    location: str = ""


NOTHING: Final = Registration()
"""Of an application without such a file."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document of a file: a registration, and whose it is (None: the manifest's only application)."""

    application: str | None
    namespace: str | None
    registration: Registration
    document: Document

    def fits(self, namespace: str, name: str) -> bool:
        """Whether it is about that application of the manifest."""
        return self.application in (None, name) and self.namespace in (None, namespace)

    def mistake(self, text: str) -> SourceError:
        """A mistake about whose registration this is."""
        place: Place = ("application",) if self.application is not None else ()
        return _error(self.document, place, text)


def is_registration(path: Path) -> bool:
    """Whether a file is one of these, by its name."""
    return path.name.endswith(SUFFIXES)


def beside(manifest: Path) -> Iterator[Path]:
    """The files for a manifest that exist: one, unless somebody has made two."""
    if not is_registration(manifest):
        for suffix in SUFFIXES:
            path = manifest.with_name(manifest.stem + suffix)
            if path.is_file():
                yield path


def check_not_alone(path: Path) -> None:
    """Raise SourceError for a registration without a manifest beside it."""
    stem = next(path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix))
    if not any(path.with_name(f"{stem}.{ending}").is_file() for ending in ("yaml", "yml")):
        from entra_fast.emulator.model import yaml_source  # noqa: PLC0415 - see above

        text = f"there is no manifest {stem}.yaml beside it"
        raise SourceError("registration_invalid", text, yaml_source.label(path), 1)


def load(manifest: Path, mistakes: Mistakes) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The registrations beside a manifest, and notices as (location, text). Mistakes are added to
    `mistakes`."""
    from entra_fast.emulator.model import yaml_source  # noqa: PLC0415 - see above

    entries: list[Entry] = []
    notices: list[tuple[str, str]] = []
    found = list(beside(manifest))
    for path in found:
        label = yaml_source.label(path)
        with mistakes.collected():
            if len(found) > 1:
                text = f"there are two files for {manifest.name}; remove one"
                raise SourceError("registration_invalid", text, label, 1)
            for document in yaml_source.documents(yaml_source.read_text(path), label):
                with mistakes.collected():
                    entries.append(_entry(document, notices))
    return entries, notices


def chosen(entries: Sequence[Entry], namespace: str, name: str) -> Registration:
    """The registration of an application."""
    fitting = (entry.registration for entry in entries if entry.fits(namespace, name))
    return next(fitting, NOTHING)


def check(
    entries: Sequence[Entry], applications: Sequence[tuple[str, str]], file: str
) -> Iterator[SourceError]:
    """Mistakes about whose registrations these are.

    Args:
        applications: (namespace, name) of each application of the manifest.
    """
    owners: set[tuple[str, str]] = set()
    for entry in entries:
        fitting = [whose for whose in applications if entry.fits(*whose)]
        names = ", ".join(f"{namespace}:{name}" for namespace, name in applications[:5])
        if not fitting:
            yield entry.mistake(f"{file} has no application {quoted(entry.application or '')}, only {names}")
        elif len(fitting) > 1:
            yield entry.mistake(f"'application' must say (with 'namespace') which one is meant: {names}")
        elif fitting[0] in owners:
            yield entry.mistake(f"a second registration of {':'.join(fitting[0])}")
        owners.update(fitting)


def _entry(document: Document, notices: list[tuple[str, str]]) -> Entry:
    from pydantic import ValidationError  # noqa: PLC0415 - see above

    from entra_fast.emulator.model.registration_schema import RegistrationDocument  # noqa: PLC0415 - see above
    from entra_fast.emulator.model.validation import findings  # noqa: PLC0415 - see above

    try:
        read = RegistrationDocument.model_validate(document.value)
    except ValidationError as error:
        mistakes = Mistakes()
        for finding in sorted(
            findings(RegistrationDocument, error), key=lambda item: document.line(item.place)
        ):
            mistakes.add(_error(document, finding.place, finding.text))
        mistakes.raise_if_any()
        raise  # pragma: no cover - a validation error has at least one finding
    for kind in ("idToken", "accessToken"):
        for index, claim in enumerate(_claims(read, kind)):
            if claim.has_no_value_here:
                line = document.line(("optionalClaims", kind, index, "name"))
                text = f"the optional claim {quoted(claim.name)} has no value here, so no token has it"
                notices.append((f"{document.file}:{line}", text))
    registration = Registration(
        id_token=_optional(_claims(read, "idToken")),
        access_token=_optional(_claims(read, "accessToken")),
        access_token_lifetime=read.access_token_lifetime,
        group_membership=read.group_membership_claims,
        location=f"{document.file}:{document.line(())}",
    )
    return Entry(read.application, read.namespace, registration, document)


def _claims(read: RegistrationDocument, kind: str) -> Sequence[ClaimEntry]:
    return read.optional_claims.id_token if kind == "idToken" else read.optional_claims.access_token


def _optional(claims: Sequence[ClaimEntry]) -> tuple[OptionalClaim, ...]:
    return tuple(OptionalClaim(claim.name, frozenset(claim.additional_properties)) for claim in claims)


def _error(document: Document, place: Place, text: str) -> SourceError:
    return SourceError("registration_invalid", text, document.file, document.line(place), dotted(place))
