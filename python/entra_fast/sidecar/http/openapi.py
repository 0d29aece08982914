"""The description of the API (OpenAPI 3.1), as served at /openapi.json.

What belongs here: what docs/endpoints.md says, for machines. What must never be here: anything computed from
settings: the document is the same for every sidecar of a version.
"""

from __future__ import annotations

from typing import Any

from entra_fast import _native
from entra_fast._native import PROVIDERS

Schema = dict[str, Any]

_PROVIDER: Schema = {
    "type": "string",
    "enum": list(PROVIDERS),
    "description": "The provider; both names mean the same one.",
}
_TARGET: Schema = {
    "type": "string",
    "examples": ["api://dev-gcp.my-team.my-app/.default", "dev-gcp:my-team:my-app"],
    "description": "The API that the token is for.",
}
_SKIP_CACHE: Schema = {
    "type": "boolean",
    "default": False,
    "description": "Fetch a new token, which replaces the cached one for every caller.",
}
_ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {"type": "string", "examples": ["invalid_request", "invalid_grant", "server_error"]},
        "error_description": {"type": "string"},
        "error_codes": {"type": "array", "items": {"type": "integer"}},
        **{
            name: {"type": "string"}
            for name in ("suberror", "claims", "correlation_id", "trace_id", "timestamp", "error_uri")
        },
    },
}
_TOKEN: Schema = {
    "type": "object",
    "required": ["access_token", "expires_in", "token_type"],
    "properties": {
        "access_token": {"type": "string"},
        "expires_in": {"type": "integer", "description": "Seconds that the token has left now."},
        "token_type": {"type": "string", "const": "Bearer"},
    },
}
_INTROSPECTION: Schema = {
    "type": "object",
    "required": ["active"],
    "properties": {
        "active": {"type": "boolean"},
        "error": {"type": "string", "description": "Why the token is not active."},
    },
    "additionalProperties": {"description": "When active: all claims of the token, verbatim."},
}


def _content(schema: Schema, *media_types: str) -> Schema:
    return {media_type: {"schema": schema} for media_type in media_types or ("application/json",)}


def _operation(summary: str, fields: Schema, required: list[str], answer: Schema, *, errors: bool) -> Schema:
    request = {"type": "object", "required": required, "properties": fields}
    responses: Schema = {"200": {"description": "The answer.", "content": _content(answer)}}
    refusals = {"403": "The caller appears to be a browser or a proxy.", "415": "The body is compressed."}
    if errors:
        refusals |= {
            "400": "The request is malformed, or the provider refused.",
            "413": "The body is too large.",
            "500": "The provider could not be reached, or sent an unusable response.",
            "default": "An error from the provider, with its own status.",
        }
    for status, description in refusals.items():
        responses[status] = {"description": description, "content": _content(_ERROR)}
    return {
        "post": {
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": _content(request, "application/json", "application/x-www-form-urlencoded"),
            },
            "responses": responses,
        }
    }


def _probe(summary: str, media_type: str, *, fails: bool = False) -> Schema:
    responses = {"200": {"description": "OK", "content": {media_type: {}}}}
    if fails:
        responses["503"] = {"description": "Not ready, with the reason.", "content": {media_type: {}}}
    return {"get": {"summary": summary, "responses": responses}}


def document() -> Schema:
    """The whole description."""
    provider = {"identity_provider": _PROVIDER}
    wanted = {**provider, "target": _TARGET, "skip_cache": _SKIP_CACHE}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "entra_fast sidecar",
            "version": _native.__version__,
            "description": "Tokens from Entra ID for an application, and introspection.",
        },
        "paths": {
            "/api/v1/token": _operation(
                "A token for the application itself (client credentials).",
                wanted,
                ["identity_provider", "target"],
                _TOKEN,
                errors=True,
            ),
            "/api/v1/token/exchange": _operation(
                "A token on behalf of a user.",
                {**wanted, "user_token": {"type": "string", "description": "The user's token."}},
                ["identity_provider", "target", "user_token"],
                _TOKEN,
                errors=True,
            ),
            "/api/v1/introspect": _operation(
                "Whether a token is valid for the application, and its claims.",
                {**provider, "token": {"type": "string"}},
                ["identity_provider", "token"],
                _INTROSPECTION,
                errors=False,
            ),
            "/healthz": _probe("The process is alive.", "application/json"),
            "/readyz": _probe("The sidecar is ready.", "application/json", fails=True),
            "/metrics": _probe("Metrics in the Prometheus text format.", "text/plain"),
            "/openapi.json": _probe("This document.", "application/json"),
        },
    }
