"""The `scope` parameter: parsed and checked. Which scopes are granted belongs in policy.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model import graph
from entra_fast.emulator.protocol.aadsts import EntraError

OPENID_SCOPES: Final = frozenset({"openid", "profile", "email", "offline_access"})
MAX_SCOPE_LENGTH: Final = 4096
DEFAULT: Final = ".default"
"""The permission that stands for everything granted."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749, section 3.3


@dataclass(frozen=True, slots=True)
class Scope:
    """A parsed `scope` parameter.

    Attributes:
        openid: the OpenID Connect scopes in it.
        resource: App ID URI or client id of the one application that is requested; None if there is none.
        permissions: the permissions that are requested for it.
    """

    openid: frozenset[str]
    resource: str | None
    permissions: tuple[str, ...]


def parse_scope(text: str, *, first: bool = False) -> Scope:
    """Parse a `scope` parameter.

    Args:
        first: take the first of several resources, as Entra ID does for refresh tokens.

    Raises:
        EntraError: 70011, or 28000 for several resources.
    """
    shown = text[:200]
    if len(text) > MAX_SCOPE_LENGTH:
        raise EntraError(70011, scope=shown)
    openid: set[str] = set()
    resource: str | None = None
    permissions: list[str] = []
    for item in text.split(" "):
        if not item:
            continue
        if item in OPENID_SCOPES:
            openid.add(item)
            continue
        # "api://host//.default" names the resource "api://host/": everything before the last slash.
        name, _, permission = item.rpartition("/")
        if "/" not in item and item != DEFAULT:
            name = graph.CLIENT_ID  # a bare scope is Microsoft Graph's
        if not _is_scope(item, name, permission):
            raise EntraError(70011, scope=shown)
        if resource is not None and not _same(resource, name):
            if first:
                continue
            raise EntraError(28000, scope=shown)
        resource = resource or name
        permissions.append(permission)
    if resource is None and not openid:
        raise EntraError(70011, scope=shown)
    if DEFAULT in permissions and set(permissions) != {DEFAULT}:
        # It stands for everything that was granted in advance, so nothing can be named beside it.
        raise EntraError(70011, scope=shown)
    return Scope(frozenset(openid), resource, tuple(permissions))


def _same(resource: str, other: str) -> bool:
    names = {resource.removesuffix("/"), other.removesuffix("/")}
    return resource == other or names <= {graph.CLIENT_ID, graph.URL}


def _is_scope(item: str, resource: str, permission: str) -> bool:
    return (
        bool(resource and permission and _SCOPE_TOKEN.fullmatch(item))
        # "api://x" would otherwise ask the resource "api:/" for the permission "x".
        and not resource.rstrip("/").endswith(":")
    )
