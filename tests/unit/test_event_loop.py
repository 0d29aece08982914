"""The servers on asyncio's own event loop, on a system that lacks what Windows lacks (support/windows.py)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from support.fast_path import fast_path_answers
from support.keys import Key
from support.process import Serve, inherited, served
from support.provider import Provider
from support.sidecars import StartSidecar, eventually
from support.windows import PROGRAM
from support.wire import request_bytes

SECONDS = 60.0
FREE = ("--emulator-port", "0", "--generator-port", "0", "--sidecar-port", "0")


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts `entra-fast serve` on such a system, with exactly the given environment."""
    async with served(PROGRAM) as starter:
        yield starter


@contextmanager
def started(
    last_line: str, *arguments: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A command on such a system, once it has printed a line that matches, with the lines so far."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**inherited(), "PYTHONUNBUFFERED": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if re.search(last_line, line):
                    break
            else:
                raise AssertionError("\n".join(lines))
            yield process, lines
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; the exit status, and what was printed since the start."""
    process.send_signal(number)
    printed, _ = process.communicate(timeout=SECONDS)
    return process.returncode, printed


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        return bytes(response.read())


async def test_serve_answers_and_drains(serve: Serve, provider: Provider) -> None:
    """One log line says that uvloop is missing. Tokens and introspection work, and SIGTERM drains."""
    process = await serve(provider.environment())
    caller = await process.listening()
    assert process.logged("uvloop is not available") == 1
    assert b"\nentra_fast_fast_path 1.0\n" in (await caller.get("/metrics")).body
    answers = [await caller.token() for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    token = answers[0].json["access_token"]
    assert answers[1].json["access_token"] == token
    assert (await caller.introspect(provider.mint())).json["active"] is True
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert json.loads(process.lines[-1])["every_request_answered"] is True


async def test_a_second_signal_stops_at_once(serve: Serve, provider: Provider) -> None:
    """Signals arrive without the event loop's own handlers, as often as they are sent."""
    process = await serve(provider.environment(ENTRA_FAST_DRAIN_DELAY_MILLIS="60000"))
    await process.listening()
    process.signal(signal.SIGINT)

    async def draining() -> bool:
        return process.logged("draining") == 1

    await eventually(draining)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    assert process.logged("second signal: stopping at once") == 1


async def test_several_workers_are_refused_in_one_line(serve: Serve, provider: Provider) -> None:
    """They share an address, which such a system does not allow; status 2."""
    process = await serve(provider.environment(), "--workers", "2")
    assert await process.ended() == 2
    assert process.lines == [
        "entra-fast: ENTRA_FAST_WORKERS must be 1: several workers need SO_REUSEPORT, which this system lacks"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_starts_and_stops(number: signal.Signals, tmp_path: Path) -> None:
    """The whole system, with its local Entra ID over https; a signal ends it with status 0."""
    with started(r"^Ctrl-C stops everything", "dev", *FREE, "--tls", str(tmp_path)) as (process, lines):
        exported = re.search(r"export NAIS_TOKEN_ENDPOINT=(http://\S+)", "\n".join(lines))
        assert exported is not None
        fields = {"identity_provider": "entra_id", "target": "api://dev-gcp.team-b.app-b/.default"}
        request = urllib.request.Request(
            exported[1], json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            assert json.load(response)["token_type"] == "Bearer"
        assert ended(process, number) == (0, "stopping\n")


def test_the_emulator_starts_and_stops_and_writes_an_environment(tmp_path: Path) -> None:
    """`emulator` serves discovery, `env` writes files, and SIGTERM ends with status 0."""
    with started(r"^http://", "emulator", "--port", "0", "--state", str(tmp_path / "state")) as (
        process,
        lines,
    ):
        variables = tmp_path / "variables"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "env", "dev-gcp:team-a:app-a", "--url", lines[-1],
             "--format", "files", "--output", str(variables)],
            env=inherited(), capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document = json.loads(fetched((variables / "AZURE_APP_WELL_KNOWN_URL").read_text()))
        assert document["jwks_uri"].startswith(lines[-1])
        assert ended(process, signal.SIGTERM) == (0, "")


_NOWHERE = "http://127.0.0.1:9/.well-known/openid-configuration"
_JWK = Key.generate().private_jwk()


@pytest.mark.parametrize(
    ("provider", "settings"),
    [
        (
            "entra_id",
            {
                "AZURE_APP_CLIENT_ID": "me",
                "AZURE_APP_CLIENT_SECRET": "secret",
                "AZURE_APP_WELL_KNOWN_URL": _NOWHERE,
            },
        ),
        (
            "tokenx",
            {
                "TOKEN_X_CLIENT_ID": "a:b:c",
                "TOKEN_X_PRIVATE_JWK": _JWK,
                "TOKEN_X_WELL_KNOWN_URL": _NOWHERE,
                "IDPORTEN_CLIENT_ID": "me",
                "IDPORTEN_CLIENT_JWK": _JWK,
                "IDPORTEN_WELL_KNOWN_URL": _NOWHERE,
            },
        ),
    ],
)
def test_the_token_generator_starts_and_stops(provider: str, settings: dict[str, str]) -> None:
    """`entra-fast token-generator` shows its start page, and SIGTERM ends it with status 0."""
    arguments = (
        "token-generator",
        "--provider",
        provider,
        "--bind",
        "127.0.0.1:0",
        "--settings",
        os.getcwd(),
    )
    with started(r"^token generator: ", *arguments, **settings) as (process, lines):
        assert b"<html" in fetched(lines[-1].removeprefix("token generator: "))
        assert ended(process, signal.SIGTERM) == (0, "")


async def test_the_fast_path_works_on_the_event_loop_of_asyncio(
    start: StartSidecar, provider: Provider
) -> None:
    """Native code answers from the token cache, and verifies tokens, as it does on uvloop."""
    assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
    sidecar = await start()
    assert (await sidecar.call.token()).status == 200
    before = fast_path_answers(sidecar)
    fields = {"identity_provider": "entra_id", "target": "api://c.n.a/.default"}
    token = request_bytes(
        "POST", "/api/v1/token", json.dumps(fields).encode(), {"Content-Type": "application/json"}
    )
    reader, writer = await sidecar.call.connect()
    for _ in range(3):
        writer.write(token)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        await reader.readexactly(int(length[1]))
    writer.close()
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert fast_path_answers(sidecar) - before == 4
