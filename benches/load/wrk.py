"""Runs wrk, and counts what it cost the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benches.load.processes import LOAD_CORE, Server

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Shot:
    """What is sent: a path, a content type, and a file with one body a line, cycled or each sent once; with
    one header line more, if any."""

    path: str
    content_type: str
    bodies: Path
    once: bool = False
    header: str | None = None


@dataclass(frozen=True)
class Run:
    """One run. Latencies are microseconds, as the generator saw them; `cpu` is the server's, per request."""

    requests: int
    per_second: float
    cpu: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


def available() -> bool:
    return shutil.which("wrk") is not None and shutil.which("taskset") is not None


def run(server: Server, shot: Shot, *, connections: int, seconds: int, think_ms: int = 0) -> Run:
    """Load a server for some seconds.

    Raises:
        RuntimeError: a request failed, or there were not enough distinct bodies.
    """
    before = server.cpu_seconds()
    finished = subprocess.run(
        [
            *("taskset", "-c", str(LOAD_CORE), "wrk", "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds}s", "--timeout", "5s", "--script", str(SCRIPT)),
            f"http://127.0.0.1:{server.port}",
            *("--", shot.path, shot.content_type, str(shot.bodies), "once" if shot.once else "cycle"),
            str(think_ms),
            *(() if shot.header is None else (shot.header,)),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    cpu = server.cpu_seconds() - before
    outcome = json.loads(finished.stdout.splitlines()[-1])
    if outcome["failures"] or outcome["exhausted"] or not outcome["requests"]:
        raise RuntimeError(f"a run went wrong: {outcome}")
    return Run(
        requests=outcome["requests"],
        per_second=outcome["requests"] / outcome["seconds"],
        cpu=cpu / outcome["requests"] * 1e6,
        **{name: outcome[name] for name in ("p50", "p90", "p99", "p99_9", "max")},
    )
