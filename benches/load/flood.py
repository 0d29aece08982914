"""A thousand requests a second in addition to the measured load.

    python -m benches.load.flood PORT FILE SECONDS

They are sent at that rate whether or not they are answered, each on a free connection, so that those that
wait for a key do not delay the rest. The outcome is one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from benches.load import wrk
from benches.load.processes import LOAD_CORE, ROOT, Server

RATE = 1000
SECONDS = 10
"""The key endpoint's two seconds are a fifth of it; the cool-down that follows lasts minutes."""
CONNECTIONS = 32
THINK_MS = 10
"""The measured load: this many clients with a pause of this length between two requests. The server is not
saturated, because the question is whether one request waits for another."""
MAX_CONNECTIONS = 2500
"""Opened beforehand: what is measured is requests. Those that wait for the key endpoint need 2,000."""


@dataclass(frozen=True)
class Outcome:
    """The measured load's run, and how many requests of the flood were sent and answered."""

    run: wrk.Run
    sent: int
    active: int
    inactive: int


def beside(server: Server, bodies: list[bytes], shot: wrk.Shot) -> Outcome:
    """Measure `shot` while the bodies arrive."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(bodies))
        file.flush()
        with subprocess.Popen(
            [
                *("nice", "-n", "19", "taskset", "-c", str(LOAD_CORE)),
                *(sys.executable, "-m", "benches.load.flood"),
                *(str(server.port), file.name, str(SECONDS + 2)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "started\n":
                raise RuntimeError("the flood did not start")
            run = wrk.run(server, shot, connections=CONNECTIONS, seconds=SECONDS, think_ms=THINK_MS)
            outcome = json.loads(process.stdout.readline())
    return Outcome(run, outcome["sent"], outcome["active"], outcome["inactive"])


class _Client(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, flood: _Flood) -> None:
        self._flood = flood
        self._received = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        if len(rest) >= length:
            self._received = b""
            self._flood.answered(self, rest)


class _Flood:
    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._free: list[_Client] = []
        self._all: list[_Client] = []
        self.sent = self.active = self.inactive = 0

    def answered(self, client: _Client, body: bytes) -> None:
        if body.startswith(b'{"active":true'):
            self.active += 1
        else:
            self.inactive += 1
        self._free.append(client)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(MAX_CONNECTIONS):
            _, client = await loop.create_connection(lambda: _Client(self), "127.0.0.1", self._port)
            self._all.append(client)
        self._free = list(self._all)

    async def run(self, settling: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (passed := loop.time() - began) < seconds:
            if settling and passed >= settling:
                settling = 0
                print("started", flush=True)
            for _ in range(min(int(passed * RATE), len(self._requests)) - self.sent):
                if not self._free:
                    break  # it catches up when an answer comes
                self._send(self._free.pop(), self._requests[self.sent])
                self.sent += 1
            await asyncio.sleep(0.001)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while self.active + self.inactive < self.sent:  # noqa: ASYNC110 - bounded, and nothing to wait on
                    await asyncio.sleep(0.01)
        for client in self._all:
            if client.transport is not None:
                client.transport.abort()

    @staticmethod
    def _send(client: _Client, request: bytes) -> None:
        assert client.transport is not None
        client.transport.write(request)


async def _main(port: int, bodies: list[bytes], seconds: float) -> None:
    head = (
        f"POST /api/v1/introspect HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    flood = _Flood(port, [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies])
    await flood.open()
    await flood.run(1, seconds)
    print(json.dumps({"sent": flood.sent, "active": flood.active, "inactive": flood.inactive}), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes().splitlines(), float(sys.argv[3])))
