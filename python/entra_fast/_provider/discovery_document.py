"""The provider's discovery document (OpenID Connect Discovery 1.0), sans I/O.

What belongs here: which documents are accepted, and what is taken from them. What must never be here: when a
document is fetched (endpoints.py).
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from entra_fast import _native
from entra_fast._net import url_problem
from entra_fast.errors import EntraFastError

ERROR_CODES = {
    "discovery_malformed": "the discovery document is not a JSON object with the members it must have",
    "discovery_issuer_mismatch": "the discovery document's issuer does not belong to its URL",
    "discovery_foreign_host": "the discovery document points to another host",
    "discovery_failed": "the provider answered the request for the discovery document with an error status",
}


class DiscoveryError(EntraFastError):
    """The discovery document cannot be used."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """The metadata of a provider that token clients and logins need."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    end_session_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class KeyDiscovery:
    """The metadata of a provider that is needed to validate tokens."""

    issuer: str
    jwks_uri: str


_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_WELL_KNOWN = "/.well-known/openid-configuration"


def parse_discovery(body: bytes, url: str) -> Discovery:
    """Read a discovery document that was fetched from `url` (OpenID Connect Discovery 1.0, section 4).

    The issuer must be the URL without its well-known suffix. One difference is allowed: Entra ID answers
    under a tenant's domain name (or `organizations`, `common`) with the tenant's GUID (or `{tenantid}`).
    All endpoints must be on the host that the document came from.

    Raises:
        DiscoveryError: codes `discovery_*`.
    """
    document = _Document(body, url)
    return Discovery(
        issuer=document.issuer,
        jwks_uri=document.endpoint("jwks_uri"),
        token_endpoint=document.endpoint("token_endpoint"),
        authorization_endpoint=document.optional_endpoint("authorization_endpoint"),
        end_session_endpoint=document.optional_endpoint("end_session_endpoint"),
    )


def parse_key_discovery(body: bytes, url: str) -> KeyDiscovery:
    """Like `parse_discovery`, for validating tokens: the other endpoints may be absent. If one is on another
    host, the document is still refused.

    Raises:
        DiscoveryError: codes `discovery_*`.
    """
    document = _Document(body, url)
    for name in ("token_endpoint", "authorization_endpoint", "end_session_endpoint"):
        document.optional_endpoint(name)
    return KeyDiscovery(issuer=document.issuer, jwks_uri=document.endpoint("jwks_uri"))


class _Document:
    """A discovery document whose issuer belongs to the URL that it was fetched from."""

    def __init__(self, body: bytes, url: str) -> None:
        try:
            members = _native.parse_json(body)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            raise DiscoveryError("discovery_malformed", "the discovery document is not a JSON object")
        self._members = members
        self._url = urllib.parse.urlsplit(url)
        issuer = members.get("issuer")
        if not isinstance(issuer, str):
            raise DiscoveryError("discovery_malformed", "the discovery document's issuer is not a string")
        if not _issuer_belongs(issuer, self._url):
            raise DiscoveryError(
                "discovery_issuer_mismatch", "the discovery document's issuer does not belong to its URL"
            )
        self.issuer = issuer

    def endpoint(self, name: str) -> str:
        value = self._members.get(name)
        if not isinstance(value, str):
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} is not a string")
        problem = url_problem(value)
        if problem is not None:
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} {problem}")
        if _origin(urllib.parse.urlsplit(value)) != _origin(self._url):
            host = self._url.hostname
            raise DiscoveryError(
                "discovery_foreign_host",
                f"the discovery document's {name} is on another host than the document ({host})",
            )
        return value

    def optional_endpoint(self, name: str) -> str | None:
        return None if self._members.get(name) is None else self.endpoint(name)


def _origin(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _issuer_belongs(issuer: str, url: urllib.parse.SplitResult) -> bool:
    try:
        parts = urllib.parse.urlsplit(issuer)
        if _origin(parts) != _origin(url) or parts.query or parts.fragment:
            return False
    except ValueError:
        return False
    if not url.path.endswith(_WELL_KNOWN):
        # A document under another name, as some test providers have: only the host can be compared.
        return True
    expected = url.path.removesuffix(_WELL_KNOWN)
    if parts.path.rstrip("/") == expected.rstrip("/"):
        return True
    _, asked, *rest_asked = [*expected.split("/"), ""]
    _, named, *rest_named = [*parts.path.split("/"), ""]
    return (
        rest_asked == rest_named
        and not _GUID.fullmatch(asked)
        and (named == "{tenantid}" or _GUID.fullmatch(named) is not None)
    )
