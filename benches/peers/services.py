"""The services that are compared: which files, and how a process serves one.

What belongs here: starting and stopping, and counting lines.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
APPS: Final = Path(__file__).with_name("apps")
SERVER_CORE: Final = 1
START_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Service:
    """A service.

    Attributes:
        file: its module in `apps/`.
        name: the library, for people.
        framework: `fastapi`, `flask` or `drf`.
    """

    file: str
    name: str
    framework: str

    @property
    def lines(self) -> int:
        """Lines of code, without blank ones and comments."""
        source = (APPS / f"{self.file}.py").read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        kinds = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
        used: set[int] = set()
        for token in tokens:
            if token.type not in kinds and token.type != tokenize.ENDMARKER:
                used.update(range(token.start[0], token.end[0] + 1))
        return len(used)


BARE: Final = {
    "fastapi": Service("bare_fastapi", "no authentication", "fastapi"),
    "flask": Service("bare_flask", "no authentication", "flask"),
    "drf": Service("bare_drf", "no authentication", "drf"),
}
OURS: Final = {
    "fastapi": Service("ours_fastapi", "entra_fast", "fastapi"),
    "flask": Service("ours_flask", "entra_fast", "flask"),
    "drf": Service("ours_drf", "entra_fast", "drf"),
}
PEERS: Final = (
    Service("fastapi_azure_auth", "fastapi-azure-auth", "fastapi"),
    Service("authlib_flask", "Authlib", "flask"),
    Service("flask_jwt_extended", "flask-jwt-extended", "flask"),
    Service("django_auth_adfs", "django-auth-adfs", "drf"),
)


@dataclass(frozen=True)
class Running:
    """A served service.

    Attributes:
        address: host and port. The service may have failed to start: nobody answers then.
        process: the server's first process.
    """

    address: tuple[str, int]
    process: int

    def cpu_seconds(self) -> float:
        """Processor time of the server, its workers included."""
        ticks = os.sysconf("SC_CLK_TCK")
        total = 0
        for process in (self.process, *_children(self.process)):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / ticks


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in listed]


@contextmanager
def running(service: Service, environment: Mapping[str, str]) -> Iterator[Running]:
    """Serve it on a free port of loopback, on one core: uvicorn, or granian with one thread."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if service.framework == "fastapi":
        server = ["uvicorn", "--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        server += ["--log-level", "critical"]
    else:
        server = ["granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
        server += ["--workers", "1", "--blocking-threads", "1", "--no-access-log", "--log-level", "critical"]
    application = f"benches.peers.loading:{service.file}"
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", *server, application],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until_it_answers(process, port)
        yield Running(("127.0.0.1", port), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    """granian listens before its worker is there: only an answer says that the service has started."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        try:
            connection.request("GET", "/cases")
            connection.getresponse().read()
        except (OSError, HTTPException):
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
