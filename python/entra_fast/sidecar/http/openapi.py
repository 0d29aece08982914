"""The description of the API (OpenAPI 3.1), as served at /openapi.json.

What belongs here: what docs/reference/endpoints.md says, for machines. What must never be here: anything
computed from settings: the document is the same for every sidecar of a version.
"""

from __future__ import annotations

from typing import Any

from entra_fast import _native
from entra_fast._providers import BUILT_IN
from entra_fast._settings.catalogue import BIND_ADDRESS

Schema = dict[str, Any]


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_PROVIDER = {
    "identity_provider": {
        "description": "May be left out, or null, where exactly one provider is enabled.",
        "anyOf": [_reference("IdentityProvider"), {"type": "null"}],
    }
}
_WANTED = {
    **_PROVIDER,
    "target": _reference("Target"),
    "skip_cache": {
        "type": "boolean",
        "default": False,
        "description": "Fetch a new token, which replaces the cached one for every caller.",
    },
    "claims": {
        "type": ["string", "null"],
        "contentMediaType": "application/json",
        "description": "A claims challenge of the API, decoded from base64: the text of a JSON object. It is "
        "passed to the provider, and the new token replaces the cached one. Ignored by providers without "
        "claims challenges.",
    },
}
_KNOWING_DETAILS = " and ".join(kind.title for kind in BUILT_IN if kind.accepts_details)
_DETAILS = {
    "resource": {
        "description": "The services that the token is for (RFC 8707). A form has one. "
        f"Only {_KNOWING_DETAILS} gets it; other providers ignore it.",
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "maxItems": _native.MAX_RESOURCES},
            {"type": "null"},
        ],
    },
    "authorization_details": {
        "description": "What the token is to allow (RFC 9396): an array of objects, or its text. "
        "For the same providers as `resource`.",
        "anyOf": [
            {"type": "array", "items": {"type": "object"}},
            {"type": "string", "contentMediaType": "application/json"},
            {"type": "null"},
        ],
    },
}
_SCHEMAS: dict[str, Schema] = {
    "IdentityProvider": {
        "type": "string",
        "examples": [name for kind in BUILT_IN for name in kind.names],
        "description": "A provider: one of these, or one that the operator has added. Older names: "
        + ", ".join(f"`{alias}` for `{kind.name}`" for kind in BUILT_IN for alias in kind.aliases)
        + ".",
    },
    "Target": {
        "type": "string",
        "examples": ["api://dev-gcp.my-team.my-app/.default", "dev-gcp:my-team:my-app"],
        "description": "The API that the token is for.",
    },
    "TokenRequest": {
        "type": "object",
        "required": ["target"],
        "properties": {**_WANTED, **_DETAILS},
    },
    "ExchangeRequest": {
        "type": "object",
        "required": ["target", "user_token"],
        "properties": {**_WANTED, "user_token": {"type": "string", "description": "The user's token."}},
    },
    "IntrospectionRequest": {
        "type": "object",
        "required": ["token"],
        "properties": {**_PROVIDER, "token": {"type": "string", "description": "The token to introspect."}},
    },
    "TokenResponse": {
        "type": "object",
        "required": ["access_token", "expires_in", "token_type"],
        "properties": {
            "access_token": {"type": "string"},
            "expires_in": {"type": "integer", "description": "Remaining lifetime in seconds."},
            "token_type": {"type": "string", "const": "Bearer"},
        },
    },
    "IntrospectionResponse": {
        "type": "object",
        "required": ["active"],
        "properties": {
            "active": {"type": "boolean"},
            "error": {"type": "string", "description": "Why the token is not active."},
        },
        "additionalProperties": {"description": "When active: all claims of the token, verbatim."},
    },
    "Error": {
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
    },
}
_REFUSALS = {
    "400": "The request is malformed.",
    "403": "The caller appears to be a browser or a proxy.",
    "408": "The request did not arrive in time.",
    "415": "The body is compressed.",
    "417": "`Expect` is anything but `100-continue`.",
    "431": "The header fields are too large together, or there are too many.",
    "501": "The transfer coding is not `chunked`.",
}
_TOKEN_REFUSALS = {
    **_REFUSALS,
    "400": "The request is malformed, or the provider refused.",
    "413": "The body is too large.",
    "500": "The provider could not be reached, or sent an unusable response.",
    "503": "The sidecar is overloaded.",
    "default": "An error from the provider, with its own status.",
}


def _content(schema: Schema, *media_types: str) -> Schema:
    return {media_type: {"schema": schema} for media_type in media_types or ("application/json",)}


def _operation(
    operation_id: str, summary: str, request: str, answer: str, refusals: dict[str, str]
) -> Schema:
    responses: Schema = {"200": {"description": "The answer.", "content": _content(_reference(answer))}}
    for status, description in sorted(refusals.items()):
        responses[status] = {"description": description, "content": _content(_reference("Error"))}
    return {
        "post": {
            "operationId": operation_id,
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": _content(
                    _reference(request), "application/json", "application/x-www-form-urlencoded"
                ),
            },
            "responses": responses,
        }
    }


def _probe(operation_id: str, summary: str, media_type: str, *, fails: str | None = None) -> Schema:
    responses = {"200": {"description": "OK", "content": {media_type: {}}}}
    if fails is not None:
        responses["503"] = {"description": fails, "content": {media_type: {}}}
    # The listener that serves this document.
    servers = [{"url": "/", "description": "PROBE_BIND_ADDRESS, or BIND_ADDRESS where that is not set."}]
    operation = {"operationId": operation_id, "summary": summary, "servers": servers, "responses": responses}
    return {"get": operation}


def document() -> Schema:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "entra_fast sidecar",
            "version": _native.__version__,
            "description": "Tokens for an application from its identity providers, and introspection.",
        },
        "servers": [
            {
                "url": "http://{address}",
                "variables": {
                    "address": {"default": str(BIND_ADDRESS.default), "description": "BIND_ADDRESS"}
                },
            }
        ],
        "paths": {
            "/api/v1/token": _operation(
                "token",
                "A token for the application itself.",
                "TokenRequest",
                "TokenResponse",
                _TOKEN_REFUSALS,
            ),
            "/api/v1/token/exchange": _operation(
                "exchange",
                "A token on behalf of a user.",
                "ExchangeRequest",
                "TokenResponse",
                _TOKEN_REFUSALS,
            ),
            "/api/v1/introspect": _operation(
                "introspect",
                "Whether a token is valid for the application, and its claims.",
                "IntrospectionRequest",
                "IntrospectionResponse",
                _REFUSALS,
            ),
            "/healthz": _probe("healthz", "The start is over.", "text/plain", fails="Still starting."),
            "/readyz": _probe(
                "readyz", "Every provider is ready.", "application/json", fails="Not ready, with the reason."
            ),
            "/metrics": _probe("metrics", "Metrics in the Prometheus text format.", "text/plain"),
            "/openapi.json": _probe("openapi", "This document.", "application/json"),
        },
        "components": {"schemas": _SCHEMAS},
    }
