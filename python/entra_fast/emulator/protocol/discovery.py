"""Discovery documents in Entra ID's form (OpenID Connect Discovery 1.0, section 3)."""

from __future__ import annotations

import urllib.parse
from typing import Any

from entra_fast.emulator.protocol.claims import Issuer


def document(
    base_url: str, path: str, issuer: Issuer | str, version: int, algorithm: str = "RS256"
) -> dict[str, Any]:
    """A discovery document in Entra's form.

    Args:
        path: tenant id, or `common`.
        version: 1 or 2.
        algorithm: what the provider signs with.
    """
    root = f"{base_url}/{path}"
    middle = "/v2.0" if version == 2 else ""
    name = issuer if isinstance(issuer, str) else (issuer.v2 if version == 2 else issuer.v1)
    return {
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
        "response_types_supported": ["code"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "issuer": name,
        "request_uri_parameter_supported": False,
        "userinfo_endpoint": f"{base_url}/oidc/userinfo",
        "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
        "http_logout_supported": True,
        "frontchannel_logout_supported": False,
        "end_session_endpoint": f"{root}/oauth2/v2.0/logout",
        "claims_supported": [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "nbf",
            "nonce",
            "preferred_username",
            "name",
            "tid",
            "ver",
            "oid",
            "sid",
        ],
        "tenant_region_scope": "EU",
        "cloud_instance_name": urllib.parse.urlsplit(base_url).netloc,
    }


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
