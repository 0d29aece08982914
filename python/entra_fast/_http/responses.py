"""Responses that are the same on every listener: JSON with few headers, errors, and what the log says of a
failure."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

import orjson
from aiohttp import hdrs, web

_MAX_PLACES = 5


class JsonResponse(web.Response):
    """A response with the few headers that all responses have. The sidecar's fast path sends the same."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            status=status,
            body=body,
            # Exactly this type: a widely used client compares the whole value.
            headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
        )

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)  # do not reveal the version of the server


def error_body(error: str, description: str, details: Mapping[str, object] | None = None) -> bytes:
    """RFC 6749, section 5.2."""
    return orjson.dumps({"error": error, "error_description": description, **(details or {})})


def error_response(status: int, description: str, *, error: str = "invalid_request") -> JsonResponse:
    """An error that the server itself reports (RFC 6749, section 5.2)."""
    return JsonResponse(status, error_body(error, description))


_Response = TypeVar("_Response", bound=web.StreamResponse)


def closing_if_unread(request: web.BaseRequest, response: _Response) -> _Response:
    """The response; it closes the connection if the rest of a body is still arriving, which no handler
    reads."""
    if request.can_read_body and not request.content.is_eof():
        response.force_close()
    return response


def describe(error: BaseException) -> str:
    """The type of an exception and where it came from, innermost first: all that the log may say of it. Its
    text may quote what it failed on: a header, a body, a key."""
    frames = traceback.extract_tb(error.__traceback__)[: -_MAX_PLACES - 1 : -1]
    places = " <- ".join(f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__} in {places or 'no frame'}"
