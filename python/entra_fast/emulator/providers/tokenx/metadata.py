"""The addresses of the local TokenX, its discovery document (RFC 8414), and the variables of an
application."""

from __future__ import annotations

import json
from typing import Any, Final

from entra_fast.emulator.protocol.private_key import PrivateKey

PATH: Final = "/tokenx"
WELL_KNOWN: Final = "/.well-known/oauth-authorization-server"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"


def issuer(base_url: str) -> str:
    """`iss` of its tokens."""
    return f"{base_url}{PATH}"


def token_endpoint(base_url: str) -> str:
    """Where tokens are exchanged."""
    return f"{issuer(base_url)}/token"


def document(base_url: str) -> dict[str, Any]:
    """The discovery document. Nothing answers at its `authorization_endpoint`, as nothing does in TokenX."""
    own = issuer(base_url)
    return {
        "issuer": own,
        "authorization_endpoint": f"{own}/authorization",
        "token_endpoint": token_endpoint(base_url),
        "jwks_uri": f"{own}/jwks",
        "grant_types_supported": [GRANT_TYPE],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
        "subject_types_supported": ["public"],
    }


def environment(base_url: str, client_id: str, key: PrivateKey) -> dict[str, str]:
    """The variables that NAIS sets for an application that is registered (jwker's secret)."""
    found = document(base_url)
    return {
        "TOKEN_X_CLIENT_ID": client_id,
        "TOKEN_X_PRIVATE_JWK": json.dumps(key.private_jwk(), separators=(",", ":")),
        "TOKEN_X_WELL_KNOWN_URL": f"{found['issuer']}{WELL_KNOWN}",
        "TOKEN_X_ISSUER": found["issuer"],
        "TOKEN_X_JWKS_URI": found["jwks_uri"],
        "TOKEN_X_TOKEN_ENDPOINT": found["token_endpoint"],
    }
