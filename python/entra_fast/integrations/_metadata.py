"""OAuth 2.0 Protected Resource Metadata (RFC 9728): how a client that knows the API's address alone finds out
where to get a token for it.

What belongs here: the document, its address, and the check of what it says. What must never be here: a
framework.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import orjson

from entra_fast import challenge
from entra_fast._net import url_problem
from entra_fast.integrations._refusal import full_scope

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

HEADERS: Final = {
    "Cache-Control": "public, max-age=300",
    # Clients in browsers read it, too. It says nothing about the caller.
    "Access-Control-Allow-Origin": "*",
}
"""Of the response with the document, besides those of its body."""

# What every router and proxy reads alike.
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")


@dataclass(frozen=True, kw_only=True)
class ResourceMetadata:
    """What an API says about itself, without a token (RFC 9728, section 2).

    Args:
        resource: the https URL of the API as clients know it, such as `https://cases.example` or
            `https://example.com/cases` (http for loopback only).
        authorization_servers: issuers of the accepted tokens; by default `AZURE_OPENID_CONFIG_ISSUER`.
        scopes: what clients may ask for: `cases.read`, which stands for that scope of the application
            `AZURE_APP_CLIENT_ID`, or the whole scope.
        name: what people call the API.
        documentation: URL of a page for developers.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value, or there is no issuer.
    """

    resource: str
    authorization_servers: Iterable[str] | None = None
    scopes: Iterable[str] = ()
    name: str | None = None
    documentation: str | None = None

    def __post_init__(self) -> None:
        _check_url("resource", self.resource)
        address = urlsplit(self.resource)
        if address.query or address.fragment or "?" in self.resource or "#" in self.resource:
            raise ValueError("resource has neither a query nor a fragment")
        if not _PATH.fullmatch(address.path):
            raise ValueError("the path of resource has letters, digits and the characters - . _ ~ / only")
        challenge.bearer(realm="api", resource_metadata=self.url)  # mistakes are found now
        _ = self.body

    @property
    def path(self) -> str:
        """Where the document is: the well-known path in front of that of the resource (RFC 9728, section
        3.1)."""
        return WELL_KNOWN + urlsplit(self.resource).path.removesuffix("/")

    @property
    def url(self) -> str:
        """The same as a URL, for challenges."""
        address = urlsplit(self.resource)
        return f"{address.scheme}://{address.netloc}{self.path}"

    @functools.cached_property
    def body(self) -> bytes:
        """The document, in JSON."""
        servers = _strings("authorization_servers", self.authorization_servers or ())
        if self.authorization_servers is None:
            issuer = os.environ.get("AZURE_OPENID_CONFIG_ISSUER")
            servers = [issuer] if issuer else []
        if not servers:
            raise ValueError(
                "authorization_servers is missing: pass the issuer of the accepted tokens, or set "
                "AZURE_OPENID_CONFIG_ISSUER"
            )
        for server in servers:
            _check_url("authorization_servers", server)
        if self.documentation is not None:
            _check_url("documentation", self.documentation)
        client_id = os.environ.get("AZURE_APP_CLIENT_ID")
        document = {
            "resource": self.resource,
            "authorization_servers": servers,
            "scopes_supported": [
                scope if "://" in scope else full_scope(scope, client_id)
                for scope in _strings("scopes", self.scopes)
            ],
            "bearer_methods_supported": ["header"],
            "resource_name": self.name,
            "resource_documentation": self.documentation,
        }
        # RFC 9728, section 3.2: what has no value is left out.
        return orjson.dumps({name: value for name, value in document.items() if value})


def _strings(name: str, values: Iterable[str]) -> list[str]:
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else None
    if found is None or not all(isinstance(one, str) for one in found):
        raise TypeError(f"{name} is a list of strings, not {type(values).__name__}")
    return found


def _check_url(name: str, url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f"{name} is a URL, not {type(url).__name__}")
    if (problem := url_problem(url)) is not None:
        raise ValueError(f"{name} {problem}")
