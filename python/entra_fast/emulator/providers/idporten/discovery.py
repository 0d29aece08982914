"""The discovery document of the local ID-porten: that of the real one, less what is not built."""

from __future__ import annotations

from typing import Any

from entra_fast.emulator.providers.idporten.authentication import METHODS
from entra_fast.emulator.providers.idporten.authorize import LOCALES, PROMPTS, RESPONSE_MODES, SCOPES
from entra_fast.emulator.providers.idporten.levels import ACR_VALUES
from entra_fast.emulator.providers.idporten.token_endpoint import GRANT_TYPES


def document(issuer: str) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0, section 3; RFC 8414 has the same members."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "pushed_authorization_request_endpoint": f"{issuer}/par",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "end_session_endpoint": f"{issuer}/logout",
        "jwks_uri": f"{issuer}/jwks.json",
        "scopes_supported": list(SCOPES),
        "acr_values_supported": list(ACR_VALUES),
        "ui_locales_supported": list(LOCALES),
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": list(PROMPTS),
        "subject_types_supported": ["public", "pairwise"],
        "token_endpoint_auth_methods_supported": list(METHODS),
        "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "frontchannel_logout_supported": True,
        "frontchannel_logout_session_supported": True,
        "authorization_response_iss_parameter_supported": True,
        "require_pushed_authorization_requests": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
