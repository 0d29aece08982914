"""The command: one part after the other, with progress, and the report at the end. Exit status 1 when
anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

import uvloop

from benches.chaos.part import KINDS, Part, redis_is_missing
from benches.chaos.report import PartReport, Report, table

PROGRESS_EVERY = 5.0
NO_REDIS = "needs redis-server or valkey-server (Debian: apt-get install redis-server)"


async def run(seed: int, seconds: float, clients: int, names: list[str]) -> Report:
    """All parts, which share the time."""
    report = Report(seed, [])
    for name in KINDS:
        skipped = None
        if name not in names:
            skipped = "not asked for"
        elif KINDS[name].redis and redis_is_missing():
            skipped = NO_REDIS
            print(f"WARNING: {name}: NOT RUN, {NO_REDIS}", file=sys.stderr, flush=True)
        if skipped is not None:
            report.parts.append(PartReport(name, KINDS[name].title, 0.0, skipped))
            continue
        part = Part(name, seed, seconds / len(names), clients)
        progress = asyncio.create_task(_progress(part.report))
        report.parts.append(await part.run())
        progress.cancel()
    return report


async def _progress(report: PartReport) -> None:
    print(f"{report.name}: {report.title}, {report.seconds:.0f} s", flush=True)
    while True:
        await asyncio.sleep(PROGRESS_EVERY)
        moment = report.memory[-1].moment if report.memory else 0.0
        print(
            f"  {moment:5.0f} s  {report.requests:8,} requests  {len(report.faults):3} faults  "
            f"{'all well' if report.good else report.examples[0]}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benches.chaos", description="Throw all faults at sidecars under load."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=240.0, help="for all parts together")
    parser.add_argument("--part", action="append", choices=list(KINDS), help="only this one (repeatable)")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benches/results"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}: SEED={arguments.seed} repeats the schedule of faults", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        names = arguments.part or list(KINDS)
        report = runner.run(run(arguments.seed, arguments.seconds, arguments.clients, names))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "chaos.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    from benches import pictures  # noqa: PLC0415 - after measuring: it is large

    pictures.draw(arguments.out / "chaos.json", pictures.chaos_picture)
    print(table(report))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
