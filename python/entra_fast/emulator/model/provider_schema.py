"""The fields of NAIS manifests that concern the providers other than Entra ID, for validating them with
pydantic.

What belongs here: names, types and forms of fields. What they mean belongs in workloads.py
and providers/.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, model_validator

from entra_fast.emulator.model.forms import is_nine_digits
from entra_fast.emulator.model.validation import List, Section
from entra_fast.emulator.model.wording import quoted

SHORTEST_LIFETIME: Final = 30
LONGEST_LIFETIME: Final = 680

_PRODUCT: Final = re.compile(r"[a-z0-9]+")
_SUBSCOPE: Final = re.compile(r"[a-zæøå0-9][a-zæøå0-9/:._-]*")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3


def _product(value: str) -> str:
    if not _PRODUCT.fullmatch(value):
        raise ValueError(f"{quoted(value)} does not match ^[a-z0-9]+$")
    return value


def _subscope(value: str) -> str:
    if not _SUBSCOPE.fullmatch(value):
        raise ValueError(
            f"{quoted(value)} is not the name of a scope: lower-case letters, digits, '/', ':', '.', '_' "
            "and '-'"
        )
    return value


def _scope(value: str) -> str:
    if not _SCOPE.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a scope: printable characters without spaces")
    return value


def _organization(value: str) -> str:
    if not is_nine_digits(value):
        raise ValueError(f"{quoted(value)} is not an organization number: nine digits")
    return value


def _lifetime(value: int) -> int:
    if not SHORTEST_LIFETIME <= value <= LONGEST_LIFETIME:
        raise ValueError(f"must be seconds, from {SHORTEST_LIFETIME} to {LONGEST_LIFETIME}")
    return value


ScopeName = Annotated[str, AfterValidator(_scope)]
OrganizationNumber = Annotated[str, AfterValidator(_organization)]
DelegationSource = Literal["altinn"]
IdPortenLevel = Literal["Level3", "Level4", "idporten-loa-substantial", "idporten-loa-high"]


class TokenX(Section):
    """`spec.tokenx`."""

    ignored_fields = frozenset(["mountSecretsAsFilesOnly"])

    enabled: bool


class ConsumedScope(Section):
    """One entry of `spec.maskinporten.scopes.consumes`."""

    name: ScopeName


class ScopeConsumer(Section):
    """One entry of `consumers` of an exposed scope."""

    orgno: OrganizationNumber
    name: str = ""


class ExposedScopeEntry(Section):
    """One entry of `spec.maskinporten.scopes.exposes`."""

    enabled: bool
    product: Annotated[str, AfterValidator(_product)]
    name: Annotated[str, AfterValidator(_subscope)]
    separator: Literal["/", ":", "."] | None = None
    at_max_age: Annotated[int, AfterValidator(_lifetime)] = SHORTEST_LIFETIME
    consumers: List[ScopeConsumer] = ()
    accessible_for_all: bool = False
    allowed_integrations: List[str] = ()
    delegation_source: DelegationSource | None = None
    visibility: Literal["public", "private"] = "public"

    @property
    def subscope(self) -> str:
        """The scope without the prefix of the organization."""
        separator = self.separator or ("/" if "/" in self.name else ":")
        return f"{self.product}{separator}{self.name}"

    @model_validator(mode="after")
    def _delegated_by_slash(self) -> ExposedScopeEntry:
        if self.delegation_source is not None and not self.subscope.startswith(f"{self.product}/"):
            raise ValueError("delegationSource needs the separator '/'")
        return self


class MaskinportenScopes(Section):
    """`spec.maskinporten.scopes`."""

    consumes: List[ConsumedScope] = ()
    exposes: List[ExposedScopeEntry] = ()


class Maskinporten(Section):
    """`spec.maskinporten`."""

    enabled: bool
    scopes: MaskinportenScopes = MaskinportenScopes()


class IdPortenSidecar(Section, extra="ignore"):
    """`spec.idporten.sidecar`: the login proxy."""

    enabled: bool = False
    level: IdPortenLevel = "idporten-loa-high"
    locale: Literal["nb", "nn", "en", "se"] = "nb"
    auto_login: bool = False


class IdPorten(Section, extra="ignore"):
    """`spec.idporten`; older manifests have further fields, which NAIS ignores."""

    enabled: bool
    sidecar: IdPortenSidecar = IdPortenSidecar()
