"""Compares each framework's integration with the other libraries, and prints two tables.

    make bench-peers [ARGS="--turns 10 --seconds 3"]

All services run against the same local Entra ID over https and answer the same route, which needs the scope
`cases.read`. Requests per second: one valid token again and again, on 16 connections, with wrk on one core
and the service on the other. All services of a framework take turns, so that a drifting machine affects them
alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benches.peers.services import BARE, OURS, PEERS, Running, Service, running
from benches.peers.situations import CONSUMER, SITUATIONS, TARGET, USER, answer
from benches.resampling import Ratio
from entra_fast.emulator import LocalEntraId, tls
from entra_fast.testing._tokens import TokenMaker

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benches/results/peers.json"
LOAD_CORE, CONNECTIONS = 0, 16
_COUNT = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_WRONG = re.compile(r"Non-2xx|Socket errors", re.MULTILINE)


class Entra:
    """A local Entra ID over https in a thread, and tokens of it."""

    def __init__(self, folder: Path) -> None:
        prepared = tls.prepare(folder)
        local = LocalEntraId.from_files([ROOT / "examples/manifests"], ROOT / "examples/directory.yaml")
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        starting = local.start("localhost", 0, tls=prepared.context)
        self._running = asyncio.run_coroutine_threadsafe(starting, loop).result(30)
        self.tokens = TokenMaker(local, lambda *_: None)
        bundle, url = str(prepared.authority), self._running.base_url
        self.environment = {
            **self._running.environment(TARGET),
            "LOCAL_ENTRA_ID": url.removeprefix("https://"),
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ENTRA_FAST_CA_BUNDLE"), bundle),
        }
        self.without_keys = {
            name: value if name.endswith("_ISSUER") else value.replace(url, "https://localhost:1")
            for name, value in self.environment.items()
        }
        self.without_keys["LOCAL_ENTRA_ID"] = "localhost:1"


@dataclass(frozen=True)
class Turn:
    """What a service did in a turn.

    Attributes:
        rate: requests per second.
        cpu: microseconds of processor time of the service for each.
    """

    rate: float
    cpu: float


def _answers(service: Service, entra: Entra) -> dict[str, str]:
    found = {}
    for keys in (True, False):
        with running(service, entra.environment if keys else entra.without_keys) as served:
            for situation in SITUATIONS:
                if situation.keys is keys:
                    found[situation.name] = answer(served.address, situation.fields(entra.tokens))
    return found


def _load(served: Running, token: str, seconds: int) -> Turn:
    """
    Raises:
        RuntimeError: not every response was a success.
    """
    host, port = served.address
    before = served.cpu_seconds()
    said = subprocess.run(
        [
            *("taskset", "-c", str(LOAD_CORE), "wrk", "--threads", "1", "--connections", str(CONNECTIONS)),
            *("--duration", f"{seconds}s", "--timeout", "30s"),
            *("--header", f"Authorization: Bearer {token}", f"http://{host}:{port}/cases"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    cpu = served.cpu_seconds() - before
    rate, count = _RATE.search(said), _COUNT.search(said)
    if rate is None or count is None or int(count[1]) == 0 or _WRONG.search(said):
        raise RuntimeError(f"not every request succeeded:\n{said}")
    return Turn(float(rate[1]), cpu / int(count[1]) * 1e6)


def _turns(framework: str, entra: Entra, turns: int, seconds: int) -> dict[str, list[Turn]]:
    services = [BARE[framework], OURS[framework], *(peer for peer in PEERS if peer.framework == framework)]
    token = entra.tokens(CONSUMER, TARGET, USER)
    taken: dict[str, list[Turn]] = {service.file: [] for service in services}
    with ExitStack() as stack:
        served = {service: stack.enter_context(running(service, entra.environment)) for service in services}
        for each in served.values():
            _load(each, token, 1)
        for _ in range(turns):
            for service, each in served.items():
                taken[service.file].append(_load(each, token, seconds))
    return taken


def _compare(peer: Service, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """The ratio of requests per second, and the processor time of a request."""
    bare, ours = turns[BARE[peer.framework].file], turns[OURS[peer.framework].file]
    theirs = turns[peer.file]
    rate = Ratio.of(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True))
    none, mine, other = (statistics.median(turn.cpu for turn in taken) for taken in (bare, ours, theirs))
    lines = BARE[peer.framework].lines
    return {
        "peer": peer.name,
        "version": version(peer.name),
        "framework": peer.framework,
        "lines": {"ours": OURS[peer.framework].lines - lines, "theirs": peer.lines - lines},
        "requests_per_second": {"ratio": round(rate.median, 2), "interval": rate.interval},
        "cpu_microseconds": {"bare": round(none, 1), "ours": round(mine, 1), "theirs": round(other, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", choices=("situations", "load"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        entra = Entra(Path(folder))
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if arguments.only != "load":
            results["situations"] = _situations(entra)
        if arguments.only != "situations":
            results["comparisons"] = _comparisons(entra, arguments.turns, arguments.seconds)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    os._exit(0)  # the local Entra ID runs in a daemon thread


def _situations(entra: Entra) -> list[dict[str, Any]]:
    services = [*OURS.values(), *PEERS]
    answers = {service: _answers(service, entra) for service in services}
    rows = [
        {
            "situation": situation.name,
            "expected": situation.expected,
            **{f"{s.framework}: {s.name}": answers[s][situation.name] for s in services},
        }
        for situation in SITUATIONS
    ]
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")
    return rows


def _line(row: dict[str, Any]) -> str:
    rate, cpu, lines = row["requests_per_second"], row["cpu_microseconds"], row["lines"]
    cells = (
        f"{row['peer']} {row['version']} ({row['framework']})",
        f"{lines['theirs']}, ours {lines['ours']}",
        f"ours {rate['ratio']} times ({rate['interval'][0]} to {rate['interval'][1]})",
        f"{cpu['theirs'] - cpu['bare']:.0f}, ours {cpu['ours'] - cpu['bare']:.0f}; bare {cpu['bare']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _comparisons(entra: Entra, turns: int, seconds: int) -> list[dict[str, Any]]:
    rows = []
    print("\n| library | lines | requests/s | CPU added to a request, us |\n|---|---|---|---|")
    for framework in BARE:
        taken = _turns(framework, entra, turns, seconds)
        for peer in (peer for peer in PEERS if peer.framework == framework):
            row = _compare(peer, taken)
            rows.append(row)
            print(_line(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
