"""Processes under load: started on a core of their own, watched through /proc, and always stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
SERVER_CORE, LOAD_CORE = 0, 1
START_LIMIT = 20.0


class Server:
    """A process that serves on a loopback port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self._log_reader: subprocess.Popen[bytes] | None = None

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, to the nanosecond (/proc/<pid>/task/*/schedstat)."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def ask(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """The body of an answer, which must be 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, {} if body is None else {"Content-Type": content_type})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {answer[:200]!r}")
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels, among others."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        total = 0.0
        for line in self.ask("/metrics").decode().splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == name and wanted <= set(rest.removesuffix("}").split(",")):
                total += float(value)
        return total

    def read_log(self) -> None:
        """Have a process read its standard error from now on, as a container runtime does."""
        self._log_reader = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), "cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._log_reader is not None:
            self._log_reader.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_helper(module: str, *arguments: str, core: int, settings: dict[str, Any]) -> Server:
    """A server of this package that takes settings on its input and says its port on its output."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, "-m", f"benches.load.{module}", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{module} did not start")
    return Server(process, json.loads(line)["port"])


def start_sidecar(environ: dict[str, str], *arguments: str, python: str = sys.executable) -> Server:
    """`entra-fast serve` with exactly these settings, once it says that it listens."""
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), python, "-m", "entra_fast", "serve", *arguments],
        env={
            "PATH": os.environ["PATH"],
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
            "BIND_ADDRESS": "127.0.0.1:0",
            "ENTRA_FAST_SETTINGS_DIRECTORY": "/",
            "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",
            **environ,
        },
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = []
    for raw in process.stderr:
        said.append(raw.decode())
        with contextlib.suppress(ValueError, KeyError):
            line = json.loads(raw)
            if line["message"] == "listening":
                return Server(process, int(line["address"].rpartition(":")[2]))
    raise RuntimeError("the sidecar did not start: " + "".join(said))


def until_ready(server: Server, *, pause: float = 0.002) -> None:
    """Wait until `/readyz` answers 200."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            server.ask("/readyz")
        except (RuntimeError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
        else:
            return


@contextlib.contextmanager
def ready_sidecar(environ: dict[str, str], *arguments: str) -> Iterator[Server]:
    with start_sidecar(environ, *arguments) as server:
        until_ready(server)
        yield server
