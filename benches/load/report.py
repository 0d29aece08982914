"""Figures become rows with ratios, and a table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from benches.load.flood import RATE, Outcome
from benches.load.wrk import Run
from benches.resampling import Ratio, both, conclusion

IDLE_BYTES, START_SECONDS, P99_FACTOR = 60e6, 0.4, 1.1
MOST_LEFT = 0.97
"""What metrics and the access log must leave of the throughput."""
AS_FAST, UNNOTICED = 0.97, 0.98
"""How fast another provider must be beside Entra ID, and Entra ID beside others."""

NAMES = {
    "introspect_seen": "introspect, seen",
    "introspect_unseen": "introspect, never seen",
    "token": "token from the cache",
    "exchange": "exchange from the cache",
    "bare": "bare uvloop protocol, fixed answer",
    "aiohttp_fixed": "bare aiohttp handler, fixed answer",
    "aiohttp_pyjwt": "aiohttp handler with PyJWT",
    "slow_path": "entra_fast without its fast path",
    "access_log": "introspect, seen, with an access log",
    "no_access_log": "entra_fast without an access log",
    "token_maskinporten": "Maskinporten token from the cache",
    "exchange_tokenx": "TokenX exchange from the cache",
    "entra_id": "the same at Entra ID",
    "one_provider": "the same without three more providers",
    "untraced": "the same without telemetry",
    "slow_traced": "the same on the slow path, with the SDK's spans",
}


KINDS = {
    "json": "JSON",
    "urlencoded": "form",
    "traced": "sampled",
    "traced_paced": "sampled, at a pace",
}


@dataclass(frozen=True)
class Flooded:
    """One turn of P5."""

    attack: bool
    p50: float
    p99: float
    p99_9: float
    sent: int
    refused: int
    accepted: int
    fetches: int


@dataclass
class Results:
    """What one session measured: by name, by server, the runs in order."""

    runs: dict[str, dict[str, list[Run]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    verification_us: float | None = None
    counting_us: float | None = None
    floods: list[Flooded] = field(default_factory=list)
    idle_bytes: list[int] = field(default_factory=list)
    bytes_per_token: list[float] = field(default_factory=list)
    token_bytes: int = 0
    start_seconds: list[float] = field(default_factory=list)

    def add(self, name: str, server: str, run: Run) -> None:
        self.runs[name][server].append(run)

    def flood(self, attack: bool, outcome: Outcome, *, refused: int, fetches: int) -> None:
        run = outcome.run
        self.floods.append(
            Flooded(attack, run.p50, run.p99, run.p99_9, outcome.sent, refused, outcome.active, fetches)
        )


def middle(runs: list[Run]) -> Run:
    """The median of each figure."""
    names = ("per_second", "cpu", "p50", "p90", "p99", "p99_9", "max")
    figures = {name: statistics.median(getattr(run, name) for run in runs) for name in names}
    return Run(requests=sum(run.requests for run in runs), **figures)


def rows(results: Results) -> list[dict[str, Any]]:
    """One row for each comparison. `reached` says whether the interval of `ratio` is at or above `target`;
    None also where more turns are needed to tell."""
    out = [row for name, servers in results.runs.items() for row in _throughput(results, name, servers)]
    if results.counting_us is not None:
        counting = results.counting_us
        each = [run.cpu for run in results.runs["introspect_seen/others"]["sidecar"]]
        fast = statistics.median(each)
        out.append(
            _row(
                "log",
                f"CPU without what counting takes, {counting * 1e3:.0f} ns",
                f"a request on the fast path, {fast:.1f} us",
                Ratio.of((cpu - counting) / cpu for cpu in each),
                MOST_LEFT,
            )
        )
    if results.floods:
        out += _flood_rows(results)
    if results.idle_bytes:
        idle, grown = statistics.median(results.idle_bytes), statistics.median(results.bytes_per_token)
        allowed = results.token_bytes + 1024
        out.append(
            _row(
                "P7",
                "resident memory when idle",
                "60 MB",
                Ratio.of(IDLE_BYTES / one for one in results.idle_bytes),
                1.0,
            )
            | {"subject_mb": round(idle / 1e6, 1)}
        )
        out.append(
            _row(
                "P7",
                "memory per cached token",
                "size of the token + 1 KB",
                Ratio.of(allowed / one for one in results.bytes_per_token),
                1.0,
            )
            | {"subject_bytes": round(grown), "reference_bytes": allowed}
        )
    if results.start_seconds:
        seconds = statistics.median(results.start_seconds)
        out.append(
            _row(
                "P8",
                "start to ready",
                "400 ms",
                Ratio.of(START_SECONDS / one for one in results.start_seconds),
                1.0,
            )
            | {"subject_ms": round(seconds * 1e3), "slowest_ms": round(max(results.start_seconds) * 1e3)}
        )
    return sorted(out, key=lambda row: row["row"])


def _throughput(results: Results, name: str, servers: dict[str, list[Run]]) -> list[dict[str, Any]]:
    subject, kind, *rest = name.split("/")
    ours = servers["sidecar"]
    if subject == "access_log":
        reference = servers["no_access_log"]
        # Throughput is what must be left.
        return [
            _pair(
                "log",
                subject,
                "json",
                64,
                ours,
                "no_access_log",
                reference,
                MOST_LEFT,
                by_throughput_only=True,
            )
        ]
    if kind == "entra_id":
        return [_pair("P9", subject, "json", 64, ours, kind, servers[kind], AS_FAST)]
    if kind == "alone":
        return [_pair("P9", subject, "json", 64, ours, "one_provider", servers["one_provider"], UNNOTICED)]
    if kind in ("traced", "traced_paced"):
        return [
            _pair("otel", subject, kind, 64, ours, label, theirs, None)
            for label, theirs in servers.items()
            if label != "sidecar"
        ]
    if not rest:
        return [
            _pair("P3", subject, "json", 64, ours, label, theirs, 20.0 if label == "aiohttp_pyjwt" else None)
            for label, theirs in servers.items()
            if label != "sidecar"
        ]
    connections, bare = int(rest[0]), servers["bare"]
    if subject == "introspect_unseen":
        more = results.verification_us
        if more is None:
            return []
        row = _pair("P3", subject, kind, connections, ours, "bare", bare, 0.8, added_us=more)
        row["reference"] += f" + one verification ({more:.1f} us)"
        return [row]
    row_name, target = ("P3", 0.85) if subject == "introspect_seen" else ("P4", 0.8)
    return [_pair(row_name, subject, kind, connections, ours, "bare", bare, target)]


def _pair(
    row: str,
    subject: str,
    kind: str,
    connections: int,
    ours: list[Run],
    label: str,
    theirs: list[Run],
    target: float | None,
    added_us: float = 0.0,
    *,
    by_throughput_only: bool = False,
) -> dict[str, Any]:
    turns = list(zip(ours, theirs, strict=True))
    ratio = Ratio.of(a.per_second * (1e6 / b.per_second + added_us) / 1e6 for a, b in turns)
    cpu = Ratio.of((b.cpu + added_us) / a.cpu for a, b in turns)
    plural = "" if connections == 1 else "s"
    conditions = f"{KINDS[kind]}, {connections} connection{plural}"
    made = _row(row, f"{NAMES[subject]}, {conditions}", NAMES[label], ratio, target)
    if target is not None and connections > 1 and not by_throughput_only:
        # With one connection both mostly wait for the client, and their CPU time is mostly that of waking.
        made["reached"] = both(ratio.reaches(target), cpu.reaches(target))
    return made | {
        "cpu_ratio": round(cpu.median, 3),
        "cpu_interval": cpu.interval,
        "connections": connections,
        "subject_figures": _figures(middle(ours)),
        "reference_figures": _figures(middle(theirs)),
    }


def _figures(run: Run) -> dict[str, float]:
    """Latencies in microseconds. `core_share`: how much of its core the server got. Under full load it is
    near 1; less means that other processes used the machine, and then CPU time says more than throughput."""
    names = ("p50", "p90", "p99", "p99_9")
    share = round(run.per_second * run.cpu / 1e6, 2)
    return {"per_second": round(run.per_second), "cpu_us": round(run.cpu, 2), "core_share": share} | {
        name: round(getattr(run, name)) for name in names
    }


def _flood_rows(results: Results) -> list[dict[str, Any]]:
    steady = [turn for turn in results.floods if not turn.attack]
    attacks = [turn for turn in results.floods if turn.attack]
    ratio = Ratio.of(a.p99 / b.p99 for a, b in zip(steady, attacks, strict=True))
    # An attack follows a second of known tokens.
    wrong = sum(turn.refused for turn in steady) + sum(abs(turn.accepted - RATE) for turn in attacks)
    wrong += sum(abs(turn.refused + RATE - turn.sent) for turn in attacks)
    most = max(turn.fetches for turn in attacks)
    return [
        _row(
            "P5",
            "p99 of known keys, 1,000 unknown a second",
            "the same with 1,000 known",
            ratio,
            1 / P99_FACTOR,
        )
        | {
            "subject_figures": {name: round(_median(attacks, name)) for name in ("p50", "p99", "p99_9")},
            "reference_figures": {name: round(_median(steady, name)) for name in ("p50", "p99", "p99_9")},
        },
        _row("P5", f"fetches in an attack: {most}", "1", Ratio.of([1 / max(most, 1)]), 1.0),
        _row("P5", f"wrong answers: {wrong}", "0", Ratio.of([1.0 if wrong == 0 else 0.0]), 1.0),
    ]


def _median(turns: list[Flooded], name: str) -> float:
    return float(statistics.median(getattr(turn, name) for turn in turns))


def _row(row: str, subject: str, reference: str, ratio: Ratio, target: float | None) -> dict[str, Any]:
    return {
        "row": row,
        "subject": subject,
        "reference": reference,
        "ratio": round(ratio.median, 3),
        "interval": ratio.interval,
        "target": None if target is None else round(target, 3),
        "reached": None if target is None else ratio.reaches(target),
    }


def show(table: list[dict[str, Any]]) -> None:
    """Print the rows, with the 95 % interval of each ratio."""
    head = f"{'row':4} {'subject':48} {'reference':54} {'ratio':>22} {'by CPU':>22} {'target':>7}"
    print(f"\n{head} {'':9} core share")
    for row in table:
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        ratio = _with_interval(row["ratio"], row["interval"])
        cpu = _with_interval(row["cpu_ratio"], row["cpu_interval"]) if "cpu_ratio" in row else ""
        share = row.get("subject_figures", {}).get("core_share", "") if row.get("connections") == 64 else ""
        names = f"{row['row']:4} {row['subject']:48} {row['reference']:54}"
        print(f"{names} {ratio:>22} {cpu:>22} {target:>7} {conclusion(row):9} {share}".rstrip())
    if any(row["subject_figures"]["core_share"] < 0.9 for row in table if row.get("connections") == 64):
        print("\nThe machine was busy: the server did not get its whole core with 64 connections.")


def _with_interval(ratio: float, interval: list[float]) -> str:
    return f"{ratio:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
