"""Connections whose bytes and answers a test sees as they are, and the fast path's count of what it
answered."""

from __future__ import annotations

import asyncio
import json
import urllib.parse

from entra_fast.sidecar.http.fast_path import FastPathProtocol
from support.sidecars import Started
from support.wire import request_bytes

TOKEN, EXCHANGE, INTROSPECT = "/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"
TARGET = "api://c.n.a/.default"


def fast_path_answers(sidecar: Started) -> int:
    """The number of requests that the native fast path has answered."""
    fast_path = sidecar.running.service.fast_path
    return 0 if fast_path is None else sum(sum(counts) for counts, _ in fast_path.native.durations().values())


def connections(sidecar: Started) -> list[FastPathProtocol]:
    """The sidecar's ends of its connections."""
    return [c for c in sidecar.running.api.connections if isinstance(c, FastPathProtocol)]


def json_request(path: str, fields: object, headers: dict[str, str] | None = None) -> bytes:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return request_bytes("POST", path, body, {"Content-Type": "application/json", **(headers or {})})


def form_request(path: str, fields: dict[str, str] | bytes, headers: dict[str, str] | None = None) -> bytes:
    body = fields if isinstance(fields, bytes) else urllib.parse.urlencode(fields).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return request_bytes("POST", path, body, {**kind, **(headers or {})})


def introspection(token: str, **headers: str) -> bytes:
    """A request that the fast path answers, whatever the token is, if its key is known or it has none."""
    return json_request(INTROSPECT, {"identity_provider": "entra_id", "token": token}, headers)


def token_request(target: str = TARGET, **headers: str) -> bytes:
    return json_request(TOKEN, {"identity_provider": "entra_id", "target": target}, headers)


class Connection:
    """A connection to a sidecar."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, sidecar: Started) -> Connection:
        return cls(*await sidecar.call.connect())

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, to_head: bool = False) -> bytes:
        """One answer, byte for byte, but for the value of Date. One to HEAD has no body."""
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            named = dict(line.lower().split(b": ", 1) for line in lines[1:] if line)
            length = 0 if to_head else int(named.get(b"content-length", 0))
            body = await self.reader.readexactly(length)
        lines = [b"Date: *" if line.startswith(b"Date: ") else line for line in lines]
        return b"\r\n".join(lines) + body

    async def ask(self, data: bytes) -> bytes:
        self.send(data)
        return await self.answer(to_head=data.startswith(b"HEAD "))

    async def rest(self) -> list[bytes]:
        """All answers until the sidecar closes the connection."""
        answers = []
        while True:
            try:
                answers.append(await self.answer())
            except asyncio.IncompleteReadError as exc:
                if exc.partial:
                    raise
                return answers
            except ConnectionError:
                return answers

    async def closed(self) -> bool:
        """Wait until the sidecar has closed the connection, having said nothing more."""
        async with asyncio.timeout(20):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def status(answer: bytes) -> int:
    return int(answer[9:12])


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]
