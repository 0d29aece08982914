"""Discovery documents in Entra ID's form (OpenID Connect Discovery 1.0, section 3)."""

from __future__ import annotations

import urllib.parse
from typing import Any, Final

_ADDITIONS: Final = (
    "code_challenge_methods_supported",
    "grant_types_supported",
    "token_endpoint_auth_signing_alg_values_supported",
)
"""Members that Entra ID's document lacks. Strict clients need the first one."""

_CLAIMS: Final = (
    "sub",
    "iss",
    "cloud_instance_name",
    "cloud_instance_host_name",
    "cloud_graph_host_name",
    "msgraph_host",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "acr",
    "nonce",
    "preferred_username",
    "name",
    "tid",
    "ver",
    "at_hash",
    "c_hash",
    "email",
)
_OTHER_CLAIMS: Final = ("nbf", "oid", "sid", "groups")
"""Claims of this provider's tokens that Entra ID's document does not list."""

_GRANT_TYPES: Final = (
    "authorization_code",
    "implicit",
    "refresh_token",
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:device_code",
)

SHARED: Final = ("common", "organizations")
"""Names that are not tenants, but that Entra ID accepts in the same position."""


def document(
    base_url: str,
    path: str,
    issuer: str,
    version: int,
    algorithm: str = "RS256",
    *,
    exact: bool = False,
) -> dict[str, Any]:
    """A discovery document in Entra's form; what this provider does not support is not in it.

    Args:
        path: tenant id, or one of SHARED.
        issuer: the value of `issuer`.
        version: 1 or 2.
        algorithm: what the provider signs with.
        exact: leave out what Entra ID's document does not have.
    """
    root = f"{base_url}/{path}"
    middle = "/v2.0" if version == 2 else ""
    host = urllib.parse.urlsplit(base_url).netloc
    found = {
        "token_endpoint": f"{root}/oauth2{middle}/token",
        "token_endpoint_auth_methods_supported": [
            "client_secret_post",
            "private_key_jwt",
            "client_secret_basic",
        ],
        "jwks_uri": f"{root}/discovery{middle}/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": [algorithm],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
        "response_types_supported": [
            "code",
            "id_token",
            "code id_token",
            *(["id_token token"] if version == 2 else ["token id_token", "token"]),
        ],
        "grant_types_supported": list(_GRANT_TYPES),
        "scopes_supported": ["openid", "profile", "email", "offline_access"] if version == 2 else ["openid"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "issuer": issuer,
        "request_uri_parameter_supported": False,
        "userinfo_endpoint": f"{base_url}/oidc/userinfo",
        "authorization_endpoint": f"{root}/oauth2{middle}/authorize",
        "device_authorization_endpoint": f"{root}/oauth2{middle}/devicecode",
        "http_logout_supported": True,
        # Without `frontchannel_logout_session_supported`, as in Entra's, although frames get `sid`.
        "frontchannel_logout_supported": True,
        "end_session_endpoint": f"{root}/oauth2{middle}/logout",
        "claims_supported": [*_CLAIMS, *([] if exact else _OTHER_CLAIMS)],
        "kerberos_endpoint": f"{root}/kerberos",
        "tenant_region_scope": None if path in SHARED else "EU",
        # Hosts without a scheme, as in Entra's document. This provider is its own cloud and has its own
        # Graph, so that a client never sends a local token to Microsoft.
        "cloud_instance_name": host,
        "cloud_graph_host_name": host,
        "msgraph_host": host,
        "rbac_url": base_url,
    }
    if version == 1:
        found["microsoft_multi_refresh_token"] = True
    return {name: value for name, value in found.items() if not (exact and name in _ADDITIONS)}


def cluster_document(issuer: str) -> dict[str, Any]:
    """The discovery document of a cluster's issuer of workload identity tokens."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/keys",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


def instance_document(base_url: str, authorization_endpoint: str, api_version: str) -> dict[str, Any] | None:
    """The document that MSAL requests to check an authority; None for another provider's authority."""
    sent, own = urllib.parse.urlsplit(authorization_endpoint), urllib.parse.urlsplit(base_url)
    # MSAL for Python leaves the port out of its request.
    if sent.netloc not in (own.netloc, own.hostname):
        return None
    tenant = sent.path.strip("/").split("/")[0] or "common"
    return {
        "tenant_discovery_endpoint": f"{base_url}/{tenant}/v2.0/.well-known/openid-configuration",
        "api-version": api_version,
        "metadata": [
            {"preferred_network": own.netloc, "preferred_cache": own.netloc, "aliases": [own.netloc]}
        ],
    }
