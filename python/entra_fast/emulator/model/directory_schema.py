"""The fields of the directory file, for validating them with pydantic.

What belongs here: names, types and forms of fields. What they mean belongs in directory.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from entra_fast.emulator.model.validation import List, Section
from entra_fast.emulator.model.wording import quoted

_USERNAME: Final = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")
_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


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
    groups: List[str] = ()
    id: Guid | None = None


class TenantEntry(Section):
    """One document."""

    tenant: Annotated[str, AfterValidator(_domain)]
    id: Guid | None = None
    groups: List[GroupEntry] = ()
    users: List[UserEntry] = ()
