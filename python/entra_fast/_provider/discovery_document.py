"""The provider's discovery document (OpenID Connect Discovery 1.0, or RFC 8414), sans I/O.

What belongs here: which documents are accepted, and what is taken from them. What must never be here: when a
document is fetched (endpoints.py).
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from entra_fast import _native
from entra_fast._net import ENTRA_ID, is_loopback_host, url_problem
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
_WELL_KNOWN = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")

_V1 = frozenset({"login.microsoftonline.com", "sts.windows.net"})
"""Hosts of Entra ID's v1.0 documents. The issuer is on the second; the endpoints are on the first."""

_ISSUER_HOSTS = {"login.chinacloudapi.cn": "login.partner.microsoftonline.cn"}
"""Hosts of documents whose issuer is on another host of the same cloud."""

_ENDPOINT_HOSTS = {**_ISSUER_HOSTS, "sts.windows.net": "login.microsoftonline.com"}
"""Hosts of documents whose endpoints are on another host of the same cloud."""


def parse_discovery(body: bytes, url: str, *, issuer: str | None = None) -> Discovery:
    """Read a discovery document that was fetched from `url`: OpenID Connect Discovery 1.0, section 4, or
    RFC 8414, section 3.

    The issuer must be the one that the URL names, with the exceptions that Microsoft's documents need
    (`_Document`). The endpoints that are called, `jwks_uri` and `token_endpoint`, must be on the host of the
    document.

    Args:
        issuer: the issuer, where the user has named it. Then only the endpoints are taken from the document.

    Raises:
        DiscoveryError: codes `discovery_*`.
    """
    document = _Document(body, url, issuer)
    return Discovery(
        issuer=document.issuer,
        jwks_uri=document.endpoint("jwks_uri"),
        token_endpoint=document.endpoint("token_endpoint"),
        authorization_endpoint=document.page("authorization_endpoint"),
        end_session_endpoint=document.page("end_session_endpoint"),
    )


def parse_key_discovery(body: bytes, url: str, *, issuer: str | None = None) -> KeyDiscovery:
    """See `parse_discovery`, for validating tokens: the token endpoint may be absent. If it is on another
    host, the document is still refused.

    Raises:
        DiscoveryError: codes `discovery_*`.
    """
    document = _Document(body, url, issuer)
    if document.members.get("token_endpoint") is not None:
        document.endpoint("token_endpoint")
    return KeyDiscovery(issuer=document.issuer, jwks_uri=document.endpoint("jwks_uri"))


def parse_endpoints(
    body: bytes, url: str, called: Iterable[str], *, issuer: str | None = None
) -> tuple[str, dict[str, str]]:
    """See `parse_discovery`: the issuer, and the endpoints that are called. No other one matters.

    Args:
        called: their names in the document.

    Raises:
        DiscoveryError: codes `discovery_*`.
    """
    document = _Document(body, url, issuer)
    return document.issuer, {name: document.endpoint(name) for name in called}


class _Document:
    """A discovery document whose issuer belongs to the URL that it was fetched from."""

    def __init__(self, body: bytes, url: str, issuer: str | None) -> None:
        try:
            members = _native.parse_json(body)
        except ValueError:
            members = None
        if not isinstance(members, dict):
            raise DiscoveryError("discovery_malformed", "the discovery document is not a JSON object")
        self.members = members
        self._url = urllib.parse.urlsplit(url)
        # Allowing plain http for the document's host allows it for the endpoints on that host.
        self._insecure_hosts = {self._url.hostname or ""} if self._url.scheme == "http" else set[str]()
        if issuer is not None:
            self.issuer = issuer
            return
        named = members.get("issuer")
        if not isinstance(named, str):
            raise DiscoveryError("discovery_malformed", "the discovery document's issuer is not a string")
        if not self._is_issuer(named):
            raise DiscoveryError(
                "discovery_issuer_mismatch", "the discovery document's issuer does not belong to its URL"
            )
        self.issuer = named

    def endpoint(self, name: str) -> str:
        """An endpoint that is called."""
        value = self.members.get(name)
        if not isinstance(value, str):
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} is not a string")
        problem = url_problem(value, self._insecure_hosts)
        if problem is not None:
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} {problem}")
        origin, own = _origin(urllib.parse.urlsplit(value)), _origin(self._url)
        if origin not in (own, _moved(own, _ENDPOINT_HOSTS)):
            host = self._url.hostname
            raise DiscoveryError(
                "discovery_foreign_host",
                f"the discovery document's {name} is on another host than the document ({host})",
            )
        return value

    def page(self, name: str) -> str | None:
        """The address of a page that only a browser visits. It may be on any host."""
        value = self.members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} is not a string")
        if (problem := url_problem(value, self._insecure_hosts)) is not None:
            raise DiscoveryError("discovery_malformed", f"the discovery document's {name} {problem}")
        return value

    def _is_issuer(self, issuer: str) -> bool:
        try:
            named = urllib.parse.urlsplit(issuer)
            named_origin, own_origin = _origin(named), _origin(self._url)
        except ValueError:
            return False
        if named.query or named.fragment:
            return False
        asked = _issuer_path(self._url.path)
        if named_origin not in (own_origin, _moved(own_origin, _ISSUER_HOSTS)):
            return asked is not None and (
                self._is_v1_issuer(asked, named) or self._is_external_id_issuer(asked, named)
            )
        if asked is None:
            # A document under another name, as some test providers have: only the host can be compared.
            return named_origin == own_origin
        return self._is_v1_issuer(asked, named) or any(
            path == _segments(named.path) or self._is_path_of_entra_id(path, _segments(named.path))
            for path in self._paths(_segments(asked))
        )

    def _is_path_of_entra_id(self, asked: list[str], named: list[str]) -> bool:
        """Whether the issuer's path is, in Entra ID's way, the one that the document was asked for: ids of
        tenants and policies of B2C compare without case, a tenant's name stands for its id, and `common` and
        `organizations` for any tenant. Entra ID's documents can be on a host of the customer's own, but there
        they are of v2.0. Of any other provider, the issuer is exactly the one that the URL names."""
        tenant = 1 if asked[:1] == ["tfp"] else 0
        if len(asked) != len(named) or not asked:
            return False
        if asked[-1] != "v2.0" and (len(asked) > 1 or not self._may_be_v1()):
            return False
        return all(
            own == other
            or (index == tenant and _same_tenant(own, other))
            or (tenant == 1 and index == 2 and own.lower() == other.lower())
            for index, (own, other) in enumerate(zip(asked, named, strict=True))
        )

    def _may_be_v1(self) -> bool:
        """Whether a v1.0 document can be here: at Entra ID, or at a local one."""
        host = self._url.hostname or ""
        is_entra_id = any(host == domain or host.endswith(f".{domain}") for domain in ENTRA_ID)
        return is_entra_id or self._url.scheme == "http" or is_loopback_host(host)

    def _is_v1_issuer(self, asked: str, named: urllib.parse.SplitResult) -> bool:
        """Entra ID v1.0: `https://sts.windows.net/<tenant>/`, whatever the document's host of the two is."""
        return (
            {self._url.hostname, named.hostname} <= _V1
            and named.hostname == "sts.windows.net"
            and _is_default_https(named)
            and _is_default_https(self._url)
            and self._is_path_of_entra_id(_segments(asked), _segments(named.path))
            and len(_segments(asked)) == 1
        )

    def _is_external_id_issuer(self, asked: str, named: urllib.parse.SplitResult) -> bool:
        """Entra External ID: the issuer's host is the tenant's id, the document's host is its name. The id
        must be in the document's path; where that has a domain, in the endpoints."""
        tenant = (named.hostname or "").removesuffix(".ciamlogin.com")
        if not (
            (self._url.hostname or "").endswith(".ciamlogin.com")
            and _is_default_https(named)
            and _is_default_https(self._url)
            and _GUID.fullmatch(tenant)
            and named.hostname == f"{tenant}.ciamlogin.com"
            and [segment.lower() for segment in _segments(named.path)] == [tenant, "v2.0"]
        ):
            return False
        first, *rest = [*_segments(asked), ""]
        if rest[:1] != ["v2.0"] or len(rest) != 2:
            return False
        if _GUID.fullmatch(first):
            return first.lower() == tenant
        for name in ("jwks_uri", "token_endpoint"):
            endpoint = self.members.get(name)
            path = urllib.parse.urlsplit(endpoint).path if isinstance(endpoint, str) else ""
            if [*_segments(path), ""][0].lower() != tenant:
                return False
        return True

    def _paths(self, asked: list[str]) -> list[list[str]]:
        """The paths that the issuer may have. That of the URL; for Azure AD B2C, whose URL names a policy in
        the path or as `p`, also the one without the policy, and the one that begins with `tfp`."""
        tenant, *rest = (asked[1:] if asked[:1] == ["tfp"] else asked) or [""]
        policy = dict(urllib.parse.parse_qsl(self._url.query)).get("p")
        if len(rest) == 2 and rest[1] == "v2.0":
            policy, rest = rest[0], rest[1:]
        if policy is None or rest != ["v2.0"]:
            return [asked]
        on_b2c = (self._url.hostname or "").endswith(".b2clogin.com")
        if not on_b2c and not policy.lower().startswith("b2c_1"):  # a custom domain
            return [asked]
        return [asked, [tenant, "v2.0"], ["tfp", tenant, policy, "v2.0"]]


def _origin(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _moved(origin: tuple[str, str | None, int], hosts: Mapping[str, str]) -> tuple[str, str | None, int]:
    """The origin with its host replaced; itself where it is not one of them."""
    scheme, host, port = origin
    return (scheme, hosts.get(host or "", host), port) if (scheme, port) == ("https", 443) else origin


def _is_default_https(parts: urllib.parse.SplitResult) -> bool:
    return parts.scheme == "https" and (parts.port or 443) == 443


def _issuer_path(path: str) -> str | None:
    """The issuer's path in that of a document: without the well-known part, which stands at the end (OpenID
    Connect Discovery 1.0, section 4) or at the beginning (RFC 8414, section 3.1). None where there is no such
    part."""
    for well_known in _WELL_KNOWN:
        if path.endswith(well_known):
            return path.removesuffix(well_known)
        if path.startswith(f"{well_known}/"):
            return path.removeprefix(well_known)
    return None


def _segments(path: str) -> list[str]:
    """The parts of a path. A slash at the end makes no difference."""
    path = path.removesuffix("/")
    return path.removeprefix("/").split("/") if path else []


def _same_tenant(asked: str, named: str) -> bool:
    if _GUID.fullmatch(asked):
        return asked.lower() == named.lower()
    return _GUID.fullmatch(named) is not None or (
        asked in ("common", "organizations") and named == "{tenantid}"
    )
