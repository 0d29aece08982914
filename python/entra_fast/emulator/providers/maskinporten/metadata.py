"""The addresses of the local Maskinporten, its discovery document (RFC 8414), and the variables of an
application."""

from __future__ import annotations

import json
from typing import Any, Final

from entra_fast.emulator.model.workloads import MaskinportenClient
from entra_fast.emulator.protocol.private_key import PrivateKey

PATH: Final = "/maskinporten"
WELL_KNOWN: Final = ".well-known/oauth-authorization-server"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ALGORITHMS: Final = ("RS256", "RS384", "RS512")


def issuer(base_url: str) -> str:
    """`iss` of its tokens; it ends with a slash."""
    return f"{base_url}{PATH}/"


def document(base_url: str) -> dict[str, Any]:
    """The discovery document."""
    own = issuer(base_url)
    return {
        "issuer": own,
        "token_endpoint": f"{own}token",
        "jwks_uri": f"{own}jwk",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "grant_types_supported": [GRANT_TYPE],
    }


def environment(base_url: str, client: MaskinportenClient, key: PrivateKey) -> dict[str, str]:
    """The variables that NAIS sets for an application that is registered (digdirator's secret)."""
    found = document(base_url)
    return {
        "MASKINPORTEN_CLIENT_ID": client.client_id,
        "MASKINPORTEN_CLIENT_JWK": json.dumps(key.private_jwk(), separators=(",", ":")),
        "MASKINPORTEN_SCOPES": " ".join(client.consumes),
        "MASKINPORTEN_WELL_KNOWN_URL": f"{found['issuer']}{WELL_KNOWN}",
        "MASKINPORTEN_ISSUER": found["issuer"],
        "MASKINPORTEN_JWKS_URI": found["jwks_uri"],
        "MASKINPORTEN_TOKEN_ENDPOINT": found["token_endpoint"],
    }
