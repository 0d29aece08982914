"""Runs the load benchmarks: `make bench-load`, or `python -m benches.load --help`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from benches import tokens as material
from benches.load import flood, report, wrk
from benches.load.processes import (
    LOAD_CORE,
    ROOT,
    SERVER_CORE,
    Server,
    ready_sidecar,
    start_helper,
    start_sidecar,
    until_ready,
)
from benches.load.traffic import (
    FORM,
    INTROSPECT,
    JSON,
    MASKINPORTEN,
    SEEN,
    TOKENX,
    Traffic,
    body,
    of_unknown_key,
    sign,
)
from entra_fast.emulator.protocol.private_key import PrivateKey

UNSEEN = 100_000
"""Distinct tokens for one run of one second. More than a core can verify in that time."""
FLOOR = ROOT / "target" / "release" / "examples" / "floor"
SUBJECTS = ("introspect_seen", "introspect_unseen", "token", "exchange")
CONNECTIONS = (64, 1)
ACCESS_LOG = "access_log/costs"
SAMPLED = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PACED_MS = 16
"""Between two requests of a connection, on average: 64 connections send some 4,000 a second."""
INTROSPECTIONS, WORDS = "entra_fast_introspections_total", ("true", "false")


class Bench:
    """One session: a provider, tokens, and what was measured."""

    def __init__(self, directory: Path, *, runs: int, seconds: int) -> None:
        self.runs = runs
        self.seconds = seconds
        self.results = report.Results()
        self.directory = directory
        self.key = PrivateKey.generate()
        self.seen = sign(self.key, SEEN)
        self._unseen: list[str] = []

    @property
    def unseen(self) -> list[str]:
        if not self._unseen:
            progress(f"signing {UNSEEN} distinct tokens")
            self._unseen = sign(self.key, SEEN + UNSEEN)[SEEN:]
        return self._unseen

    @contextlib.contextmanager
    def provider(self, *, key_delay: float = 0.0) -> Iterator[Server]:
        settings = {"key": self.key.private_jwk(), "key_delay": key_delay}
        with start_helper("provider", core=LOAD_CORE, settings=settings) as provider:
            yield provider

    def environment(self, provider: Server) -> dict[str, str]:
        tenant = f"http://127.0.0.1:{provider.port}/{material.TENANT}"
        return {
            "AZURE_APP_CLIENT_ID": material.AUDIENCE,
            "AZURE_APP_TENANT_ID": material.TENANT,
            "AZURE_OPENID_CONFIG_ISSUER": material.ISSUER,
            "AZURE_OPENID_CONFIG_JWKS_URI": f"{tenant}/discovery/v2.0/keys",
            "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": f"{tenant}/oauth2/v2.0/token",
            "AZURE_APP_CLIENT_SECRET": "of the benchmark only",
        }

    def several(self, provider: Server) -> dict[str, str]:
        """The settings with three more providers beside Entra ID."""
        root = f"http://127.0.0.1:{provider.port}"
        tenant, jwk = f"{root}/{material.TENANT}", json.dumps(PrivateKey.generate().private_jwk())

        def endpoints(prefix: str) -> dict[str, str]:
            return {
                f"{prefix}ISSUER": f"{root}/{prefix.lower()}",
                f"{prefix}JWKS_URI": f"{tenant}/discovery/v2.0/keys",
                f"{prefix}TOKEN_ENDPOINT": f"{tenant}/oauth2/v2.0/token",
            }

        idporten = endpoints("IDPORTEN_")
        del idporten["IDPORTEN_TOKEN_ENDPOINT"]
        return {
            **self.environment(provider),
            "AZURE_ENABLED": "true",
            "IDPORTEN_ENABLED": "true",
            "MASKINPORTEN_ENABLED": "true",
            "TOKEN_X_ENABLED": "true",
            **endpoints("TOKEN_X_"),
            "TOKEN_X_CLIENT_ID": "test-cluster:test-namespace:us",
            "TOKEN_X_PRIVATE_JWK": jwk,
            **endpoints("MASKINPORTEN_"),
            "MASKINPORTEN_CLIENT_ID": material.AUDIENCE,
            "MASKINPORTEN_CLIENT_JWK": jwk,
            **idporten,
            "IDPORTEN_AUDIENCE": "https://test.example",
        }

    # --- P3 and P4 ---

    def throughput(self, rows: set[str]) -> None:
        with self.provider() as provider, contextlib.ExitStack() as stack:
            environ = self.environment(provider)
            subjects = [s for s in SUBJECTS if ("P3" if s.startswith("introspect") else "P4") in rows]
            traffic = Traffic(
                self.directory, self.seen, self.unseen if "introspect_unseen" in subjects else []
            )
            sidecar = stack.enter_context(ready_sidecar(environ))
            slow_path = stack.enter_context(ready_sidecar(environ, "--no-fast-path"))
            bare, answers = {}, {}
            for subject in subjects:
                answers[subject] = raw_answer(sidecar, traffic.shot(subject, JSON))
                bare[subject] = stack.enter_context(reference("bare", answer=answers[subject]))
            for connections in CONNECTIONS:
                for content_type in (JSON, FORM):
                    for subject in subjects:
                        servers = {"sidecar": sidecar, "bare": bare[subject]}
                        self._pair(environ, servers, traffic, subject, content_type, connections)
            if "P3" in rows:
                shot = traffic.shot("introspect_seen", JSON)
                answer = answers["introspect_seen"]
                others = {
                    "aiohttp_fixed": stack.enter_context(reference("aiohttp", answer=answer)),
                    "aiohttp_pyjwt": stack.enter_context(
                        reference(
                            "pyjwt",
                            jwk=self.key.public_jwk() | {"alg": "RS256"},
                            audience=material.AUDIENCE,
                            issuer=material.ISSUER,
                        )
                    ),
                    "slow_path": slow_path,
                }
                self._alternate("introspect_seen/others", {"sidecar": sidecar, **others}, shot, 64)
                logging = stack.enter_context(ready_sidecar(environ | {"ENTRA_FAST_ACCESS_LOG": "true"}))
                logging.read_log()
                self._alternate(ACCESS_LOG, {"sidecar": logging, "no_access_log": sidecar}, shot, 64)
                self._counting_alone()
                self._verification_alone()

    def _pair(
        self,
        environ: dict[str, str],
        servers: dict[str, Server],
        traffic: Traffic,
        subject: str,
        content_type: str,
        connections: int,
    ) -> None:
        shot = traffic.shot(subject, content_type)
        name = f"{subject}/{content_type.rpartition('/')[2].rpartition('-')[2]}/{connections}"
        if subject != "introspect_unseen":
            self._alternate(name, servers, shot, connections)
            return
        # Each run meets a sidecar that has never seen any of these tokens.
        seen = traffic.shot("introspect_seen", content_type)
        for turn in range(self.runs):
            with ready_sidecar(environ) as fresh:
                warm_up(fresh, seen)
                self._measure(name, "sidecar", fresh, shot, connections, 1)
                hits = fresh.metric("entra_fast_verified_cache_hits_total")
                warmed = fresh.metric(INTROSPECTIONS, active="true")
            # It answers more than there are tokens, and does not look at them: others of the same size.
            self._measure(name, "bare", servers["bare"], seen, connections, 1)
            told(turn, name, f"{hits:.0f} of {warmed:.0f} from the cache, the warm-up's")
        progress_of(self.results, name)

    def _alternate(self, name: str, servers: dict[str, Server], shot: wrk.Shot, connections: int) -> None:
        self._alternate_all(name, {label: (server, shot) for label, server in servers.items()}, connections)

    def _alternate_all(
        self, name: str, subjects: dict[str, tuple[Server, wrk.Shot]], connections: int, think_ms: int = 0
    ) -> None:
        for server, shot in subjects.values():
            warm_up(server, shot)
        for _ in range(self.runs):
            for label, (server, shot) in subjects.items():
                self._measure(name, label, server, shot, connections, self.seconds, think_ms)
        progress_of(self.results, name)

    def _measure(
        self,
        name: str,
        label: str,
        server: Server,
        shot: wrk.Shot,
        connections: int,
        seconds: int,
        think_ms: int = 0,
    ) -> None:
        is_sidecar = label in ("sidecar", "slow_path") and shot.path == INTROSPECT
        before = [server.metric(INTROSPECTIONS, active=word) for word in WORDS] if is_sidecar else [0.0, 0.0]
        outcome = wrk.run(server, shot, connections=connections, seconds=seconds, think_ms=think_ms)
        if is_sidecar:
            active = server.metric(INTROSPECTIONS, active="true") - before[0]
            if active < outcome.requests or server.metric(INTROSPECTIONS, active="false") != before[1]:
                raise RuntimeError(f"{name}: a valid token was called invalid")
        self.results.add(name, label, outcome)

    def _verification_alone(self) -> None:
        """Microseconds of one RS256 verification with AWS-LC, hash included, called from Rust."""
        self.results.verification_us = self._floor("raw")

    def _counting_alone(self) -> None:
        """Microseconds of what one request on the fast path adds to the metrics, its clocks included."""
        self.results.counting_us = self._floor("counting")

    def _floor(self, work: str) -> float | None:
        """Microseconds that a work of the floor program takes for one token."""
        if not FLOOR.exists():
            progress("no floor program (make bench-load builds it): the rows that need it are left out")
            return None
        jwks, file = self.directory / "jwks", self.directory / "tokens"
        jwks.write_text(json.dumps({"keys": [self.key.public_jwk() | {"alg": "RS256"}]}))
        sample = self.unseen[:2000]
        file.write_text("\n".join(sample) + "\n")
        with subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), str(FLOOR), str(jwks), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            figures = []
            for _ in range(2 * self.runs + 1):
                started = time.perf_counter()
                process.stdin.write(f"{work}\n")
                if process.stdout.readline() != "done\n":
                    raise RuntimeError("the floor program failed")
                figures.append((time.perf_counter() - started) / len(sample) * 1e6)
            process.stdin.close()
        took = statistics.median(figures[1:])
        progress(f"{work}: {took:.3f} us")
        return took

    # --- P9 ---

    def providers(self) -> None:
        """Other providers and Entra ID in one sidecar; and that sidecar against one with Entra ID alone."""
        with self.provider() as provider, contextlib.ExitStack() as stack:
            several = stack.enter_context(ready_sidecar(self.several(provider)))
            alone = stack.enter_context(ready_sidecar(self.environment(provider)))
            traffic = Traffic(self.directory, self.seen, [])
            for subject, name in (("token", MASKINPORTEN), ("exchange", TOKENX)):
                shots = {
                    "sidecar": traffic.shot(subject, JSON, name),
                    "entra_id": traffic.shot(subject, JSON),
                }
                self._alternate_all(
                    f"{subject}_{name}/entra_id",
                    {label: (several, shot) for label, shot in shots.items()},
                    64,
                )
            for subject in ("introspect_seen", "token", "exchange"):
                shot = traffic.shot(subject, JSON)
                self._alternate(f"{subject}/alone", {"sidecar": several, "one_provider": alone}, shot, 64)

    # --- traces ---

    def traces(self) -> None:
        """Requests whose trace is sampled: at a sidecar that exports their spans, at one without telemetry,
        and on the slow path, whose spans are the SDK's. As many as can be, and so few that every span is
        exported: what is dropped costs less."""
        with (
            self.provider() as provider,
            start_helper("collector", core=LOAD_CORE, settings={}) as collector,
            contextlib.ExitStack() as stack,
        ):
            environ = self.environment(provider)
            exporting = environ | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{int(collector.ask('/grpc'))}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_BSP_SCHEDULE_DELAY": "500",
            }
            servers = {
                "sidecar": stack.enter_context(ready_sidecar(exporting)),
                "untraced": stack.enter_context(ready_sidecar(environ)),
                "slow_traced": stack.enter_context(ready_sidecar(exporting, "--no-fast-path")),
            }
            traffic = Traffic(self.directory, self.seen, [])
            for subject in ("introspect_seen", "token"):
                shot = dataclasses.replace(traffic.shot(subject, JSON), header=SAMPLED)
                for label in ("sidecar", "slow_traced"):
                    until_traced(servers[label], shot, collector)
                for think_ms in (0, PACED_MS):
                    name = f"{subject}/traced{'_paced' if think_ms else ''}"
                    dropped = servers["sidecar"].metric("entra_fast_spans_dropped_total")
                    self._alternate_all(
                        name, {label: (server, shot) for label, server in servers.items()}, 64, think_ms
                    )
                    dropped = servers["sidecar"].metric("entra_fast_spans_dropped_total") - dropped
                    sent = sum(run.requests for run in self.results.runs[name]["sidecar"])
                    progress(f"{name}: {100 * dropped / sent:.1f} % of the spans were dropped")

    # --- which interpreter, which event loop ---

    def runtime(self) -> None:
        """The three ways of serving on whatever runs this: see runtimes.py."""
        with self.provider() as provider, contextlib.ExitStack() as stack:
            environ = self.environment(provider)
            shot = Traffic(self.directory, self.seen, []).shot("introspect_seen", JSON)
            sidecar = stack.enter_context(ready_sidecar(environ))
            servers = {
                "sidecar": sidecar,
                "slow_path": stack.enter_context(ready_sidecar(environ, "--no-fast-path")),
                "bare": stack.enter_context(reference("bare", answer=raw_answer(sidecar, shot))),
            }
            self.results.idle_bytes.append(sidecar.resident_bytes())
            self._alternate("introspect_seen/others", servers, shot, 64)

    # --- P5 ---

    def unknown_keys(self) -> None:
        """Steady state and attack in turns, each on a sidecar of its own, because the cool-down lasts."""
        known = Traffic(self.directory, self.seen, []).shot("introspect_seen", JSON)
        for _ in range(self.runs):
            for attack in (False, True):
                tokens = [self.seen[n % SEEN] for n in range(flood.RATE * (flood.SECONDS + 3))]
                if attack:  # it begins with the measurement
                    tokens[flood.RATE :] = [of_unknown_key(token) for token in tokens[flood.RATE :]]
                bodies = [body(JSON, {"token": token}) for token in tokens]
                with (
                    self.provider(key_delay=2.0) as provider,
                    ready_sidecar(self.environment(provider)) as sidecar,
                ):
                    warm_up(sidecar, known)
                    fetched = int(provider.ask("/fetches"))
                    refused = sidecar.metric(INTROSPECTIONS, active="false")
                    outcome = flood.beside(sidecar, bodies, known)
                    refused = sidecar.metric(INTROSPECTIONS, active="false") - refused
                    fetches = int(provider.ask("/fetches")) - fetched
                self.results.flood(attack, outcome, refused=int(refused), fetches=fetches)
        progress_of_flood(self.results)

    # --- P7 and P8 ---

    def memory(self) -> None:
        with self.provider() as provider:
            traffic = Traffic(self.directory, self.seen, self.unseen)
            for _ in range(3):
                with ready_sidecar(self.environment(provider)) as sidecar:
                    sidecar.ask("/metrics")
                    time.sleep(2)
                    self.results.idle_bytes.append(sidecar.resident_bytes())
                    shot = traffic.shot("introspect_seen", JSON)
                    warm_up(sidecar, shot)
                    before = sidecar.resident_bytes()
                    entries = 10_000
                    for token in self.unseen[:entries]:
                        sidecar.ask(INTROSPECT, body(JSON, {"token": token}))
                    held = sidecar.metric("entra_fast_verified_cache_entries")
                    if held < entries:
                        raise RuntimeError(f"only {held} of {entries} tokens are cached")
                    grown = sidecar.resident_bytes() - before
                    self.results.bytes_per_token.append(grown / entries)
        self.results.token_bytes = len(self.unseen[0])
        progress(f"idle {[round(b / 2**20, 1) for b in self.results.idle_bytes]} MiB")
        progress(f"per cached token {[round(b) for b in self.results.bytes_per_token]} bytes")

    def start(self) -> None:
        """From the start of the process to the first 200 of `/readyz`, with discovery and keys to fetch."""
        with self.provider() as provider:
            environ = {
                "AZURE_APP_CLIENT_ID": material.AUDIENCE,
                "AZURE_APP_TENANT_ID": material.TENANT,
                "AZURE_APP_WELL_KNOWN_URL": f"http://127.0.0.1:{provider.port}/{material.TENANT}"
                "/v2.0/.well-known/openid-configuration",
                "AZURE_APP_JWK": json.dumps(PrivateKey.generate().private_jwk()),
            }
            for turn in range(2 * self.runs + 1):
                started = time.perf_counter()
                with start_sidecar(environ) as sidecar:
                    until_ready(sidecar)
                    if turn:  # the first one finds cold files
                        self.results.start_seconds.append(time.perf_counter() - started)
        progress(f"start to ready {statistics.median(self.results.start_seconds) * 1e3:.0f} ms")


def reference(kind: str, **settings: object) -> Server:
    return start_helper("references", kind, core=SERVER_CORE, settings=settings)


def until_traced(server: Server, shot: wrk.Shot, collector: Server) -> None:
    """Wait until the collector gets spans of a server."""
    before = int(collector.ask("/spans"))
    while int(collector.ask("/spans")) == before:
        wrk.run(server, shot, connections=1, seconds=1)


def raw_answer(server: Server, shot: wrk.Shot) -> str:
    """A whole answer as it comes, so that a fixed one can have the same size."""
    return warm_up(server, shot, most=1)


def warm_up(server: Server, shot: wrk.Shot, *, most: int = SEEN) -> str:
    """Send bodies once, so that caches hold what they should. Each request goes out in one piece, as it
    does from wrk. Returns the last answer."""
    answer = b""
    with (
        shot.bodies.open("rb") as file,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        for line in itertools.islice(file, most):
            content = line.rstrip(b"\n")
            head = (
                f"POST {shot.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {shot.content_type}\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            connection.sendall(head.encode() + content)
            answer = b""
            while not _is_whole(answer):
                received = connection.recv(65_536)
                if not received:
                    raise RuntimeError(f"{shot.path}: the connection was closed")
                answer += received
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"{shot.path}: {answer[:300]!r}")
    return answer.decode("latin-1")


def _is_whole(answer: bytes) -> bool:
    head, found, rest = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(found) and len(rest) >= int(length)


def progress(text: str) -> None:
    print(f"  {text}", flush=True)


def told(turn: int, name: str, text: str) -> None:
    if turn == 0:
        progress(f"{name}: {text}")


def progress_of(results: report.Results, name: str) -> None:
    for label, runs in results.runs[name].items():
        middle = report.middle(runs)
        progress(
            f"{name:32} {label:14} {middle.per_second:9.0f}/s  {middle.cpu:6.2f} us CPU  "
            f"p50 {middle.p50:6.0f}  p99 {middle.p99:6.0f}  p99.9 {middle.p99_9:6.0f} us"
        )


def progress_of_flood(results: report.Results) -> None:
    for turn in results.floods:
        progress(f"{'attack' if turn.attack else 'steady':8} {turn}")


def machine() -> str:
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(": ")[2]
            break
    versions = [f"{name} {metadata.version(name)}" for name in ("uvloop", "aiohttp", "PyJWT")]
    return ", ".join([f"{cpu}, {os.cpu_count()} cores", f"CPython {platform.python_version()}", *versions])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.load")
    parser.add_argument("--seconds", type=int, default=2, help="of one run")
    parser.add_argument("--runs", type=int, default=5, help="of each subject and each reference, in turns")
    parser.add_argument("--only", default="P3,P4,P5,P7,P8,P9,traces", help="rows, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results" / "load.json")
    arguments = parser.parse_args()
    if not wrk.available():
        print("bench-load needs wrk and taskset: apt-get install wrk util-linux", file=sys.stderr)
        return 2
    if (os.cpu_count() or 1) < 2:
        print("bench-load needs two cores: one for the server, one for the generator", file=sys.stderr)
        return 2
    rows = set(arguments.only.split(","))
    with tempfile.TemporaryDirectory(prefix="entra-fast-load-") as directory:
        bench = Bench(Path(directory), runs=arguments.runs, seconds=arguments.seconds)
        if "P8" in rows:
            bench.start()
        if "P7" in rows:
            bench.memory()
        if rows & {"P3", "P4"}:
            bench.throughput(rows)
        if "P9" in rows:
            bench.providers()
        if "traces" in rows:
            bench.traces()
        if "P5" in rows:
            bench.unknown_keys()
    table = report.rows(bench.results)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "rows": table}, indent=1) + "\n")
    print(
        f"\n{machine()}; medians of {arguments.runs} turns with 95 % intervals; a ratio says how many "
        "times as good as the reference"
    )
    report.show(table)
    print(f"\nwritten to {arguments.out}")
    if rows >= {"P3", "P4"}:
        from benches import pictures  # noqa: PLC0415 - after measuring: it is large

        pictures.draw(arguments.out, pictures.load_picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
