"""The fields of the directory file, for validating them with pydantic.

What belongs here: names, types and forms of fields. What they mean belongs in directory.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from entra_fast.emulator.model.provider_schema import DelegationSource, OrganizationNumber, ScopeName
from entra_fast.emulator.model.validation import List, Section
from entra_fast.emulator.model.wording import quoted

_USERNAME: Final = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")

LONGEST_LIFETIME: Final = 3600
"""Of tokens of Maskinporten, in seconds."""


def _domain(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a domain name in lower case")
    return value


def _guid(value: str) -> str:
    if not _GUID.fullmatch(value.lower()):
        raise ValueError(f"{quoted(value)} is not a GUID")
    return value.lower()


def _username(value: str) -> str:
    if not _USERNAME.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not of the form name@domain")
    return value


def _mail(value: str) -> str:
    if value and not _USERNAME.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not of the form name@domain, nor empty for no mailbox")
    return value


def _lifetime(value: int) -> int:
    if not 1 <= value <= LONGEST_LIFETIME:
        raise ValueError(f"must be seconds, from 1 to {LONGEST_LIFETIME}")
    return value


Guid = Annotated[str, AfterValidator(_guid)]


class GroupEntry(Section):
    """One entry of `groups`."""

    name: str
    id: Guid | None = None
    all_users: bool = False


class UserEntry(Section):
    """One entry of `users`."""

    name: str
    username: Annotated[str, AfterValidator(_username)]
    nav_ident: str | None = None
    mail: Annotated[str, AfterValidator(_mail)] | None = None
    groups: List[str] = ()
    id: Guid | None = None


class ScopeEntry(Section):
    """One entry of `scopes`: a scope of Maskinporten that no manifest exposes."""

    name: ScopeName
    consumers: List[OrganizationNumber] = ()
    accessible_for_all: bool = False
    at_max_age: Annotated[int, AfterValidator(_lifetime)] | None = None
    delegation_source: DelegationSource | None = None


class DelegationEntry(Section):
    """One entry of `delegations`: a customer lets a supplier use a scope on its behalf."""

    scope: ScopeName
    consumer: OrganizationNumber
    supplier: OrganizationNumber


class TenantEntry(Section):
    """One document."""

    tenant: Annotated[str, AfterValidator(_domain)]
    id: Guid | None = None
    groups: List[GroupEntry] = ()
    users: List[UserEntry] = ()
    scopes: List[ScopeEntry] = ()
    delegations: List[DelegationEntry] = ()
