"""Requests that no application sees: which status and which sentence they get.

What belongs here: what aiohttp's parser refuses, and what it accepts although RFC 9112 forbids it. What must
never be here: sockets, and who may call. No sentence repeats a byte of what was sent, because any of them may
be part of a token or secret.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong

from entra_fast import _native
from entra_fast._http.limits import MAX_FIELDS, MAX_FIELDS_BYTES, MAX_LINE_BYTES
from entra_fast._http.responses import JsonResponse, error_response

NOT_HTTP: Final = (400, "the request is not well-formed HTTP")
NOT_THIS_VERSION: Final = (400, "the version of HTTP must be 1.0 or 1.1")
NOT_FRAMED: Final = (400, "request body is not framed as its headers say")
NOT_A_PATH: Final = (400, "the request target must be a path")
BAD_ESCAPE: Final = (400, "the path has a '%' that is not followed by two hexadecimal digits")
COMPRESSED: Final = (415, "compressed request bodies are not accepted")
NOT_IN_TIME: Final = (408, "the request did not arrive in time")
EXPECTATION: Final = (417, "the only expectation that can be met is 100-continue")
LINE_TOO_LONG: Final = (431, f"the request line is larger than {MAX_LINE_BYTES} bytes")
FIELDS_TOO_LARGE: Final = (431, f"the header fields are larger than {MAX_FIELDS_BYTES} bytes together")
TOO_MANY_FIELDS: Final = (431, f"the request has more than {MAX_FIELDS} header fields")

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AROUND_FIELD: Final = len(b":\r\n")


class RequestTimedOut(Exception):
    """The request's body did not arrive in time."""


class BodyCutShort(web.RequestPayloadError, TimeoutError):
    """The client closed its side in the middle of a body. Also a TimeoutError, because aiohttp may be waiting
    for a body that no handler reads, and treats that error as its end."""


def is_compressed(request: web.BaseRequest) -> bool:
    """Whether a body is encoded in any way, which applications refuse: a small one may become a large one."""
    encodings = request.headers.getall(hdrs.CONTENT_ENCODING, [])
    return any(encoding.strip().lower() not in ("", "identity") for encoding in encodings)


def body_refusal(request: web.BaseRequest) -> tuple[int, str] | None:
    """Why a body is refused before any of it is read, or None."""
    if is_compressed(request):
        return COMPRESSED
    limit = request.client_max_size
    return too_large(limit) if (request.content_length or 0) > limit else None


def too_large(limit: int) -> tuple[int, str]:
    """The refusal of a body of more than `limit` bytes."""
    return 413, f"request body is larger than {limit} bytes"


def refusal_of_malformed(exc: BaseException | None, head: bytes) -> tuple[int, str]:
    """Status and sentence for what aiohttp's parser refuses. Its own text repeats the offending bytes, so
    only the beginning of that is looked at.

    Args:
        exc: the parser's error.
        head: the bytes of the request, as far as they were kept.
    """
    reason = exc.message if isinstance(exc, HttpProcessingError) else ""
    if isinstance(exc, LineTooLong):
        return LINE_TOO_LONG if MAX_LINE_BYTES in exc.args else FIELDS_TOO_LARGE
    if reason.startswith("Too many headers"):
        return TOO_MANY_FIELDS
    if reason.startswith(("Missing 'Host'", "Duplicate 'Host'")):
        several = _native.head_refusal(hosts=["", ""], transfer_encodings=[])
        return several or NOT_HTTP
    if reason.startswith(("Request has invalid `Transfer-Encoding`", "Invalid `Transfer-Encoding`")):
        return _native.transfer_coding_refusal(head) or NOT_HTTP
    return NOT_HTTP


def head_refusal(request: web.BaseRequest) -> JsonResponse | None:
    """The answer to a request whose head aiohttp accepts and this server does not, or None. It closes the
    connection: where the body ends may be in doubt."""
    refusal = _refusal(request)
    if refusal is None:
        return None
    response = error_response(*refusal)
    response.force_close()
    return response


def _refusal(request: web.BaseRequest) -> tuple[int, str] | None:
    if request.version not in (HttpVersion10, HttpVersion11):
        return NOT_THIS_VERSION
    fields = request.raw_headers
    if sum(len(name) + len(value) for name, value in fields) + _AROUND_FIELD * len(fields) > MAX_FIELDS_BYTES:
        return FIELDS_TOO_LARGE
    headers = request.headers
    if request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in headers:
        return NOT_FRAMED  # RFC 9112, section 6.1: a proxy may have read the length alone
    if any(value.strip().lower() != "100-continue" for value in headers.getall(hdrs.EXPECT, [])[1:]):
        return EXPECTATION  # of several fields aiohttp sees the first only
    refusal = _native.head_refusal(
        hosts=headers.getall(hdrs.HOST, []),
        transfer_encodings=headers.getall(hdrs.TRANSFER_ENCODING, []),
    )
    if refusal is not None:
        return refusal
    target = request.raw_path
    if not target.startswith("/") or "#" in target:
        return NOT_A_PATH  # nor an absolute URL: Host decides; nor a fragment (RFC 9112, section 3.2.1)
    if "%" in target and _BAD_ESCAPE.search(target.partition("?")[0]):
        return BAD_ESCAPE  # RFC 3986, section 2.1
    return None
