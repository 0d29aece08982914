"""A client that controls every byte: the same request sent in several ways must get the same answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

WAYS = ("fast_path", "slow_path", "pipelined", "byte_by_byte")
"""How a request travels: in one piece to a sidecar with the fast path or to one without, right behind another
request, or in single bytes."""


@dataclass
class Answer:
    """An HTTP response as it was received."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None


def request_bytes(
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
) -> bytes:
    """An HTTP/1.1 request; a header of the given ones replaces the usual."""
    lines = {"Host": host}
    if body or method == "POST":
        lines["Content-Length"] = str(len(body))
    lines.update(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer, framed by Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in head[1:] if line]
    answer = Answer(int(head[0].split(" ")[1]), headers, b"")  # type: ignore[arg-type]
    if 100 <= answer.status < 200:
        return answer
    answer.body = await reader.readexactly(int(answer.header("Content-Length") or 0))
    return answer


def _pieces(data: bytes) -> Iterator[bytes]:
    """Single bytes; the middle of what is long in larger pieces."""
    single, start = 4096, 0
    while start < len(data):
        size = 1 if start < single or start >= len(data) - 256 else min(1024, len(data) - 256 - start)
        yield data[start : start + size]
        start += size


class Caller:
    """Calls a sidecar in one of the `WAYS`."""

    def __init__(self, address: str, way: str = "fast_path") -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.way = way

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, limit=1 << 20)

    async def send(self, data: bytes) -> Answer:
        """The answer to exactly these bytes, on a connection of their own."""
        reader, writer = await self.connect()
        try:
            if self.way == "pipelined":
                writer.write(request_bytes("GET", "/nowhere") + data)
                first = await read_answer(reader)
                assert first.status == 404
            if self.way == "byte_by_byte":
                # As a real client does, look for an answer while sending: it may come early.
                answer = asyncio.ensure_future(read_answer(reader))
                for piece in _pieces(data):
                    if answer.done():
                        break
                    writer.write(piece)
                    await asyncio.sleep(0)
                return await answer
            if self.way in ("fast_path", "slow_path"):
                writer.write(data)
            return await read_answer(reader)
        finally:
            writer.close()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        return await self.send(request_bytes(method, path, body, headers))

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return await self.request("GET", path, headers=headers)

    async def json(self, path: str, fields: object, headers: dict[str, str] | None = None) -> Answer:
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        return await self.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    async def form(self, path: str, fields: dict[str, str] | bytes) -> Answer:
        body = fields if isinstance(fields, bytes) else urllib.parse.urlencode(fields).encode()
        return await self.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    # The three endpoints, as most tests use them.

    async def token(self, target: str = "api://c.n.a/.default", **more: object) -> Answer:
        return await self.json("/api/v1/token", {"identity_provider": "entra_id", "target": target, **more})

    async def exchange(self, user_token: str, target: str = "api://c.n.a/.default", **more: object) -> Answer:
        fields = {"identity_provider": "entra_id", "target": target, "user_token": user_token, **more}
        return await self.json("/api/v1/token/exchange", fields)

    async def introspect(self, token: str, provider: str = "entra_id") -> Answer:
        return await self.json("/api/v1/introspect", {"identity_provider": provider, "token": token})


class Crowd:
    """Clients that keep calling over kept-alive connections until no one listens any more.

    Args:
        requests_each: a client opens a new connection after this many requests.
    """

    def __init__(
        self, caller: Caller, request: bytes, clients: int, *, requests_each: int | None = None
    ) -> None:
        self._caller = caller
        self._request = request
        self._requests_each = requests_each
        self._clients = [asyncio.create_task(self._client()) for _ in range(clients)]
        self.answered = 0
        self.lost = 0

    async def gone(self) -> None:
        """Return when no one listens any more."""
        await asyncio.gather(*self._clients)

    async def _client(self) -> None:
        while True:
            try:
                reader, writer = await self._caller.connect()
            except ConnectionRefusedError:
                return  # nothing was sent: nothing is lost
            try:
                await self._talk(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.lost += 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in itertools.count(1):
            writer.write(self._request)
            answer = await read_answer(reader)
            assert answer.status == 200
            self.answered += 1
            if answer.header("Connection") == "close" or number == self._requests_each:
                return
