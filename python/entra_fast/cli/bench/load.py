"""Sends the same request over and over on several connections, and measures each response.

What belongs here: connections, framing of responses, and time. What must never be here: what is sent, and
text for people.

The client of a load test must cost less than the server, or it measures itself. So this is no general HTTP
client: it knows HTTP/1.1 responses with a `Content-Length` (RFC 9112, section 6.2), which is what sidecars
send, and reports anything else as a failure.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from entra_fast.cli.bench.figures import Figures

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n", re.IGNORECASE)
_CLOSES: Final = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})[ \r]")
_MAX_HEAD, _MAX_BODY = 32 * 1024, 1 << 20
RESPONSE_SECONDS: Final = 15.0
"""How long a response may take: longer than the sidecar's own deadline for the provider."""
_CONNECT_SECONDS: Final = 5.0
_MAX_FAILURES: Final = 20
"""Failures in a row after which no further connection is tried."""
_PAUSE_AFTER_FAILURE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Attributes:
        url: where to.
        body: the form or JSON.
        content_type: of the body.
        is_right: whether the body of a response with status 200 is what a working sidecar gives.
    """

    url: str
    body: bytes
    content_type: str
    is_right: Callable[[bytes], bool]

    def encoded(self) -> bytes:
        """The request as it goes over the wire."""
        parts = urlsplit(self.url)
        head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\n"
            f"Host: {parts.netloc.rpartition('@')[2]}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Accept: application/json\r\n\r\n"
        )
        return head.encode("ascii") + self.body


class _Failure(Exception):
    """A request got no usable response."""


async def run(
    request: Request, connections: int, seconds: float, progress: Callable[[Figures], None]
) -> Figures:
    """Send the request on all connections for some seconds.

    Args:
        request: what to send.
        connections: how many requests are in flight at the same time.
        seconds: for how long. Responses to requests that are in flight at the end are awaited, and count.
        progress: called four times a second with what was measured so far.
    """
    figures = Figures()
    began, cpu = time.perf_counter(), time.process_time()
    end = began + seconds

    def update() -> None:
        figures.seconds = time.perf_counter() - began
        figures.client_cpu = (time.process_time() - cpu) / figures.seconds

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.25)
            update()
            progress(figures)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(_repeat(request, figures, end))
    finally:
        watching.cancel()
    update()
    return figures


async def _repeat(request: Request, figures: Figures, end: float) -> None:
    """One connection at a time until the end, and a new one where the server has closed it."""
    in_a_row = 0
    while time.perf_counter() < end and in_a_row < _MAX_FAILURES:
        before = figures.responses
        try:
            await _on_one_connection(request, figures, end)
        except (_Failure, OSError, TimeoutError) as error:
            figures.failures[_reason(error)] += 1
            in_a_row = in_a_row + 1 if figures.responses == before else 1
            await asyncio.sleep(min(_PAUSE_AFTER_FAILURE, max(0.0, end - time.perf_counter())))


def _reason(error: Exception) -> str:
    if isinstance(error, _Failure):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {RESPONSE_SECONDS:g} s"
    return getattr(error, "strerror", None) or type(error).__name__


async def _on_one_connection(request: Request, figures: Figures, end: float) -> None:
    parts = urlsplit(request.url)
    is_https = parts.scheme == "https"
    port = parts.port or (443 if is_https else 80)
    encoded, is_right, add = request.encoded(), request.is_right, figures.latencies.add
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            port,
            limit=_MAX_HEAD,
            ssl=ssl.create_default_context() if is_https else None,
        )
    try:
        while (began := time.perf_counter()) < end:
            writer.write(encoded)
            async with asyncio.timeout(RESPONSE_SECONDS):
                status, body, closes = await _response(reader)
            add(time.perf_counter() - began)
            if status == b"200" and is_right(body):
                figures.right += 1
            else:
                figures.wrong[status.decode("ascii")] += 1
                if figures.example is None:
                    figures.example = body[:300].decode("utf-8", "replace")
            if closes:
                return
    finally:
        writer.close()


async def _response(reader: asyncio.StreamReader) -> tuple[bytes, bytes, bool]:
    """Status, body, and whether the server closes the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None or int(length[1]) > _MAX_BODY:
            raise _Failure("a response without a status or a Content-Length that this client understands")
        body = await reader.readexactly(int(length[1]))
    except asyncio.IncompleteReadError:
        raise _Failure("the connection was closed before the response was complete") from None
    except asyncio.LimitOverrunError:
        raise _Failure("a response whose header fields are too long") from None
    return status[1], body, _CLOSES.search(head) is not None
