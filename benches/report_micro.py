"""Turns the micro benchmarks' raw figures into rows with ratios: a table to read, a JSON file to compare.

    python -m benches.report_micro RAW.json MEMORY.json IMPORTS.json benches/results/micro.json

A ratio says how many times as fast as its reference the subject is. It is the median over the turns of the
ratio within one turn, with an interval over the turns (resampling.py). Timings of one run are comparable
with each other and with nothing else.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benches.resampling import Ratio, conclusion

COUNT = 1000
"""Tokens that a benchmark goes through."""
TIMES = 5
"""How often each of two threads or processes does, so that it takes long enough."""
PER_ROUND = {
    "bench_pyjwt": COUNT // 4,
    "bench_joserfc": COUNT // 4,
    "bench_two_threads": 2 * TIMES * COUNT,
    "bench_two_processes": 2 * TIMES * COUNT,
}

IMPORT_MS = 60.0
"""CPU time that the import of the library may take."""

NAMES = {
    "bench_unseen": "entra_fast, not seen before",
    "bench_unseen_as_dict": "entra_fast, not seen before, claims as dict",
    "bench_unseen_aws_lc": "entra_fast, not seen before, AWS-LC alone",
    "bench_seen": "entra_fast, seen before",
    "bench_seen_of_several": "entra_fast, seen before, one of two issuers",
    "bench_unseen_of_several": "entra_fast, not seen before, one of two issuers",
    "bench_one_thread": "entra_fast, one thread, no cache",
    "bench_two_threads": "entra_fast, two threads, no cache",
    "bench_two_processes": "entra_fast, two processes, no cache",
    "bench_many": "entra_fast, validate_many, no cache",
    "bench_ryjwt": "ryjwt",
    "bench_pyjwt": "PyJWT",
    "bench_joserfc": "joserfc",
    "bench_cryptography_raw": "cryptography, signature only",
    "bench_floor[raw]": "AWS-LC from Rust, signature and hash only",
    "bench_floor[confirmed]": "rind with confirmation, from Rust, signature and hash only",
    "bench_floor[unconfirmed]": "rind without confirmation, from Rust, signature and hash only",
    "bench_floor[verify]": "the core from Rust, whole verification",
    "bench_floor[sha256]": "SHA-256 of the token, from Rust",
}

Figures = dict[str, dict[int, float]]
"""Microseconds for one token, by benchmark and turn."""


def read(raw: dict[str, Any]) -> Figures:
    figures: Figures = defaultdict(dict)
    for entry in raw["benchmarks"]:
        name, parameters = re.fullmatch(r"(\w+)\[(.+)\]", entry["name"]).groups()  # type: ignore[union-attr]
        *variant, turn = parameters.rsplit("-", 1)
        algorithm = variant[0] if variant else "RS256"
        label = f"{name}[{algorithm}]" if name == "bench_floor" or algorithm != "RS256" else name
        median = entry["stats"]["median"]
        figures[label][int(turn)] = median * 1e6 / PER_ROUND.get(name, COUNT)
    return figures


def ratio(figures: Figures, subject: str, reference: str) -> Ratio | None:
    ours, theirs = figures.get(subject, {}), figures.get(reference, {})
    turns = sorted(ours.keys() & theirs.keys())
    return Ratio.of(theirs[turn] / ours[turn] for turn in turns) if turns else None


def median(figures: Figures, name: str) -> float | None:
    return statistics.median(figures[name].values()) if figures.get(name) else None


def rows(figures: Figures) -> list[dict[str, Any]]:
    """The rows of P1, P2 and P6, and without targets the other algorithms."""
    plan: list[tuple[str, str, str, float | None]] = [
        ("P1", "bench_unseen", "bench_ryjwt", 1.1),
        ("P1", "bench_unseen_as_dict", "bench_ryjwt", 1.1),
        ("P1 moonshot", "bench_unseen", "bench_ryjwt", 1.25),
        ("P1", "bench_unseen", "bench_floor[raw]", allowance(figures)),
        ("P1", "bench_unseen", "bench_pyjwt", 6.0),
        ("P1", "bench_unseen_as_dict", "bench_pyjwt", 6.0),
        ("P1", "bench_unseen", "bench_joserfc", None),
        ("P1", "bench_unseen", "bench_cryptography_raw", None),
        ("P1 library", "bench_unseen", "bench_unseen_aws_lc", None),
        ("P1 library", "bench_floor[confirmed]", "bench_floor[raw]", None),
        ("P1 library", "bench_floor[confirmed]", "bench_floor[unconfirmed]", None),
        ("P2", "bench_seen", "bench_floor[sha256]", 1 / 1.25),
        ("P2", "bench_seen", "bench_ryjwt", 15.0),
        ("issuers", "bench_unseen_of_several", "bench_unseen", None),
        ("issuers", "bench_seen_of_several", "bench_seen", None),
        ("P6", "bench_two_threads", "bench_one_thread", 1.8),
        ("P6", "bench_two_threads", "bench_two_processes", None),
        ("P6", "bench_many", "bench_one_thread", None),
    ]
    for algorithm in ("PS256", "ES256", "EdDSA"):
        plan += [
            (algorithm, f"bench_unseen[{algorithm}]", f"bench_{peer}[{algorithm}]", None)
            for peer in ("ryjwt", "pyjwt", "joserfc")
        ]
    out = []
    for row, subject, reference, target in plan:
        reached = ratio(figures, subject, reference)
        if reached is not None:
            met = None if target is None else reached.reaches(target)
            out.append(
                {
                    "row": row,
                    "subject": label(subject),
                    "reference": label(reference),
                    "ratio": round(reached.median, 3),
                    "interval": reached.interval,
                    "target": None if target is None else round(target, 3),
                    "reached": met,
                    "subject_us": round(median(figures, subject) or 0, 3),
                    "reference_us": round(median(figures, reference) or 0, 3),
                }
            )
    return out


def allowance(figures: Figures) -> float | None:
    """The ratio that "at most 1.5 us on top of AWS-LC's raw verification" comes to in this run."""
    raw = median(figures, "bench_floor[raw]")
    return None if raw is None else raw / (raw + 1.5)


def label(name: str) -> str:
    base, _, algorithm = name.partition("[")
    return NAMES.get(name) or f"{NAMES[base]}, {algorithm.rstrip(']')}"


def main() -> int:
    raw_path, memory_path, imports_path, out_path = map(Path, sys.argv[1:5])
    raw = json.loads(raw_path.read_text())
    memory = json.loads(memory_path.read_text())
    imports = json.loads(imports_path.read_text())
    figures = read(raw)
    table = rows(figures)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    # Ratio: how many times as large as its reference the subject is.
    table.append(
        {
            "row": "memory",
            "subject": "a cached verification",
            "reference": "its token",
            "ratio": round(memory["bytes_per_token"] / memory["token_bytes"], 3),
            "interval": None,
            "target": None,
            "reached": None,
        }
    )
    allowed = IMPORT_MS / max(imports["import_ms"], 0.01)
    table.append(
        {
            "row": "import",
            "subject": "import of the library, on top of asyncio",
            "reference": f"{IMPORT_MS:.0f} ms",
            "ratio": round(allowed, 3),
            "target": 1.0,
            "reached": allowed >= 1.0,
            "subject_ms": imports["import_ms"],
        }
    )
    out_path.write_text(json.dumps(table, indent=1) + "\n")

    cpu = raw["machine_info"].get("cpu", {}).get("brand_raw", platform.machine())
    print(f"\nMicro benchmarks on {cpu}, CPython {raw['machine_info']['python_version']}")
    turns = len(figures["bench_unseen"])
    print(
        f"{COUNT} distinct tokens; medians of {turns} turns; ratio: how many times as fast as the reference\n"
    )
    print(f"{'microseconds per token':62}")
    for name in [*NAMES, *sorted(name for name in figures if name not in NAMES)]:
        figure = median(figures, name)
        if figure is not None:
            print(f"  {label(name):58} {figure:9.2f}")
    print(f"\n{'row':12} {'subject':44} {'reference':42} {'ratio':>7} {'95 % interval':>16} {'target':>7}")
    for row in table:
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        interval = "" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        names = f"{row['row']:12} {row['subject']:44} {row['reference']:42}"
        print(f"{names} {row['ratio']:7.2f} {interval:>16} {target:>7} {conclusion(row)}".rstrip())
    print(f"\n{memory['bytes_per_token']} bytes of memory for a cached verification")
    slope = memory["rss_slope_kib_per_10k"]
    print(f"{slope:+.2f} KiB of resident memory for 10,000 further tokens, over {memory['tokens']} tokens")
    print(f"\nwritten to {out_path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
