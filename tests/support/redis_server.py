"""A real Redis server, started by the tests on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

PROGRAMS = ("redis-server", "valkey-server")


def program() -> str:
    """The server's program; skips the test where there is none."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs redis-server or valkey-server (Debian: apt-get install redis-server)")
    return found


class RedisServer:
    """A server that keeps nothing on disk. `client` speaks to it directly, with `options`.

    Attributes:
        port: where it listens. With TLS, `tls_port` too.
    """

    def __init__(self, directory: Path, *arguments: str, password: str | None = None) -> None:
        self._directory = directory
        self._arguments = arguments
        self._password = password
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()
        self.client: Redis = Redis(port=self.port, password=password, socket_timeout=5)

    async def start(self) -> None:
        command = [program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", str(self._directory)]
        if self._password is not None:
            command += ["--requirepass", self._password]
        nowhere = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *command, *self._arguments, stdout=nowhere, stderr=nowhere
        )
        async with asyncio.timeout(20):
            while not await self._answers():
                assert self._process.returncode is None, "the server ended at once"
                await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False

    async def stop(self) -> None:
        """Ends the server; it can be started again, and is empty then."""
        await self.client.aclose()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def everything(self) -> dict[bytes, bytes]:
        """All strings that it holds."""
        names = [name async for name in self.client.scan_iter()]
        return {name: value for name in names if isinstance(value := await self.client.get(name), bytes)}

    async def names(self, kind: str) -> list[bytes]:
        """The names of entries: `token` or `renewal`."""
        return sorted([name async for name in self.client.scan_iter(f"entra_fast:*:{kind}:*")])

    async def entry(self) -> tuple[bytes, bytes]:
        """The name and the value of the only token that is there; waits until it is."""
        async with asyncio.timeout(20):
            while not (names := await self.names("token")):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        (name,) = names
        value: Any = await self.client.get(name)
        return name, value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
