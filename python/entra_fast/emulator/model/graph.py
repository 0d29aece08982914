"""Microsoft Graph as every tenant knows it: its identifiers, and the permissions that the local Graph has.

Which permissions an application gets belongs in protocol/graph_policy.py; the API itself is graph/.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from typing import Final

NAME: Final = "Microsoft Graph"
CLIENT_ID: Final = "00000003-0000-0000-c000-000000000000"
URL: Final = "https://graph.microsoft.com"

DEFAULT_SCOPES: Final = ("User.Read", "GroupMember.Read.All")
"""Delegated permissions that every application has: those that NAIS registers and consents to."""

USER_CONSENT: Final = ("User.Read", "User.ReadBasic.All")
"""Delegated permissions to which a user may consent. The local Entra ID takes that consent as given."""

ROLES: Final = ("User.Read.All", "GroupMember.Read.All", "Group.Read.All", "Directory.Read.All")
"""Application permissions. An administrator grants them; here, an annotation of the manifest does."""

SCOPES: Final = ("User.Read", "User.ReadBasic.All", *ROLES)
"""Delegated permissions. This Graph is read-only, so there are none for writing."""

SCOPES_ANNOTATION: Final = "entra-fast/graph-scopes"
ROLES_ANNOTATION: Final = "entra-fast/graph-roles"
"""Annotations of a manifest that grant an application further SCOPES, and ROLES."""

_SPELLINGS: Final = {name.lower(): name for name in SCOPES}


def known_scope(name: str) -> str | None:
    """A delegated permission in Graph's own spelling; Entra ID ignores its case."""
    return _SPELLINGS.get(name.lower())


def addresses(base_url: str) -> tuple[str, ...]:
    """Every identifier of Graph at a provider, none with a slash at its end.

    The last one lacks the port: that is what the Graph SDK asks for where no scopes are set.
    """
    parts = urllib.parse.urlsplit(base_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return (CLIENT_ID, URL, base_url, f"{parts.scheme}://{host}")


def is_graph(identifier: str | None, base_url: str) -> bool:
    """Whether a resource is Graph: by client id or address, the provider's own address included."""
    return identifier is not None and identifier.removesuffix("/") in addresses(base_url)


def audiences(base_url: str) -> Iterable[str]:
    """Every `aud` of tokens for Graph."""
    return [text for name in addresses(base_url) for text in (name, f"{name}/")]
