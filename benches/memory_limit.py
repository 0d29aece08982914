"""Full caches in a sidecar that may use 256 MiB: PYTHONPATH=tests python -m benches.memory_limit [OUT.json]

A real control group limits the sidecar as a container's does: if it needs more, the kernel kills one of its
processes. Many callers at once acquire, exchange and introspect tokens of one size, until both caches have
evicted for some time. Printed for one process and for two workers, each with tokens of 1.8 KB and of 20 KB
(a user with hundreds of groups): the memory of each process when idle and at its peak, what the kernel
counted for the whole group at most, and what the caches hold.

Needs the right to make a control group (root, or a delegated one).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benches import memory
from support.cgroup import MemoryGroup, limited_group
from support.process import Process, served
from support.provider import Provider, granting
from support.wire import Caller, read_answer, request_bytes

LIMIT = 256 << 20
CALLERS = 64
LARGE = "20 KB"
SIZES = {"1.8 KB": 12, LARGE: 380}
"""The number of groups in a token of each size."""
PASSES = 1.1
"""How often as much as the caches can hold is sent."""
TELEMETRY = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
}
"""As NAIS sets it, with a collector that cannot be reached: what is to be sent waits."""
UNBOUNDED = "100000000"
"""The caches' limits of entries: their limits of bytes are what is tried here."""
MIB = 1 << 20


@dataclass
class Used:
    """Memory of one process: MiB.

    Attributes:
        idle: resident before the first request.
        peak: resident at most.
        proportional: resident at the end, where pages that n processes share count 1/n each (PSS).
    """

    pid: int
    idle: float
    peak: float = 0.0
    proportional: float = 0.0


@dataclass
class Run:
    """One sidecar with full caches. Sizes are MiB.

    Attributes:
        charged: what the kernel counted for the group at most, pages of files included.
        kills: processes that the kernel killed.
        token_cache: what cached tokens take in one process; each process has a copy.
        verified_cache: what cached verifications take in all processes.
    """

    workers: int
    size: str
    telemetry: bool
    processes: list[Used]
    charged: float
    kills: int
    token_cache: float
    token_evictions: int
    verified_cache: float
    verified_evictions: int
    requests: int


def mint(work: tuple[str, int, range]) -> list[str]:
    """Distinct tokens of an issuer with this many groups; in another process, because signing takes the
    time."""
    issuer, groups, serials = work
    provider = Provider()
    named = [str(uuid.UUID(int=number)) for number in range(groups)]
    return [provider.mint(iss=issuer, groups=named, jti=f"{serial:032}") for serial in serials]


def resident(pid: int, name: str) -> float:
    """`VmRSS` or `VmHWM` of a process."""
    return memory.status_kib(name, pid) / 1024


def proportional(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def processes_of(pid: int) -> list[int]:
    """A sidecar's process and its workers."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


class Load:
    """Callers that send requests over kept-alive connections; each response must be 200."""

    def __init__(self, call: Caller) -> None:
        self._call = call
        self.sent = 0

    async def send(self, requests: Iterator[bytes], expected: bytes) -> None:
        """Send all of them; each response contains some bytes."""
        await asyncio.gather(*(self._caller(requests, expected) for _ in range(CALLERS)))

    async def _caller(self, requests: Iterator[bytes], expected: bytes) -> None:
        reader, writer = await self._call.connect()
        for request in requests:
            writer.write(request)
            answer = await read_answer(reader)
            if answer.status != 200 or expected not in answer.body:
                raise RuntimeError(f"{answer.status} {answer.body[:200]!r}")
            self.sent += 1
        writer.close()


def post(path: str, fields: dict[str, str]) -> bytes:
    body = json.dumps({"identity_provider": "entra_id", **fields}).encode()
    return request_bytes("POST", f"/api/v1/{path}", body, {"Content-Type": "application/json"})


def acquiring(count: int, user_token: str) -> Iterator[bytes]:
    """Requests for distinct tokens, every second one on behalf of a user."""
    for serial in range(count):
        target = f"api://test.team.app{serial}/.default"
        if serial % 2:
            yield post("token/exchange", {"target": target, "user_token": user_token})
        else:
            yield post("token", {"target": target})


@asynccontextmanager
async def limited_sidecar(
    provider: Provider, group: MemoryGroup, workers: int, telemetry: bool
) -> AsyncIterator[Process]:
    async with served(group.program) as serve:
        environ = provider.environment(
            PROBE_BIND_ADDRESS="127.0.0.1:0",
            ENTRA_FAST_WORKERS=str(workers),
            ENTRA_FAST_CACHE_MAX_ENTRIES=UNBOUNDED,
            ENTRA_FAST_VERIFIED_CACHE_ENTRIES=UNBOUNDED,
            **(TELEMETRY if telemetry else {}),
        )
        process = await serve(environ)
        await process.listening()
        yield process


async def figures(process: Process) -> dict[str, float]:
    """Its metrics, without those that have labels."""
    text = (await process.probes().get("/metrics")).body.decode()
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def run(provider: Provider, pool: ProcessPoolExecutor, workers: int, size: str, telemetry: bool) -> Run:
    """Fill the caches of one sidecar."""
    groups = SIZES[size]
    example = provider.mint(groups=[str(uuid.UUID(int=number)) for number in range(groups)], jti="0" * 32)
    provider.always = granting(provider, access_token=example)
    with limited_group(LIMIT) as group:
        async with limited_sidecar(provider, group, workers, telemetry) as process:
            call = await process.listening()
            (limits,) = (json.loads(line) for line in process.lines if '"memory limit"' in line)
            used = [Used(pid, resident(pid, "VmRSS")) for pid in processes_of(process.process.pid)]
            tokens = int(limits["token_cache_bytes"] / len(used) / len(example) * PASSES)
            verified = int(limits["verified_cache_bytes"] / len(example) * PASSES)
            load = Load(call)
            await load.send(acquiring(tokens, example), b'"access_token"')
            for start in range(0, verified, 2000):
                chunks = [
                    (provider.issuer, groups, range(at, min(at + 500, verified)))
                    for at in range(start, min(start + 2000, verified), 500)
                ]
                loop = asyncio.get_running_loop()
                made = await asyncio.gather(*(loop.run_in_executor(pool, mint, chunk) for chunk in chunks))
                texts = itertools.chain.from_iterable(made)
                await load.send((post("introspect", {"token": text}) for text in texts), b'{"active":true')
            values = await figures(process)
            for each in used:
                each.peak, each.proportional = resident(each.pid, "VmHWM"), proportional(each.pid)
            replaced = processes_of(process.process.pid) != [each.pid for each in used]
            if replaced or process.logged("MemoryError"):
                last = "\n".join(process.lines[-9:])
                raise RuntimeError(f"a process was replaced, or lacked memory: {last}")
            return Run(
                workers=workers,
                size=size,
                telemetry=telemetry,
                processes=used,
                charged=group.peak / MIB,
                kills=group.kills,
                token_cache=values["entra_fast_token_cache_bytes"] / MIB,
                token_evictions=int(values["entra_fast_token_cache_evictions_total"]),
                verified_cache=values["entra_fast_verified_cache_bytes"] / MIB,
                verified_evictions=int(values["entra_fast_verified_cache_evictions_total"]),
                requests=load.sent,
            )


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def line(done: Run) -> str:
    """A row of a Markdown table."""
    of = done.processes
    sidecar = "one process" if done.workers == 1 else f"{done.workers} workers"
    return (
        f"| {sidecar}{', telemetry' if done.telemetry else ''} | {done.size} "
        f"| {listed([each.idle for each in of])} | {listed([each.peak for each in of])} "
        f"| {sum(each.proportional for each in of):.0f} | {done.charged:.0f} "
        f"| {done.token_cache:.0f} | {done.verified_cache:.0f} | {done.kills} |"
    )


async def measure() -> list[Run]:
    """All runs, each printed when it is over."""
    provider = Provider()
    await provider.start()
    done: list[Run] = []
    print(f"memory limit: {LIMIT // MIB} MiB; all figures but the last are MiB")
    print(
        "| sidecar | tokens | idle | peak | PSS at the end | peak of the group | cached tokens | verified "
        "| killed |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        for telemetry, workers, size in itertools.product((False, True), (1, 2), SIZES):
            if telemetry and size != LARGE:
                continue  # the sizes of tokens do not matter to it
            done.append(await run(provider, pool, workers, size, telemetry))
            print(line(done[-1]), flush=True)
    await provider.stop()
    return done


def main() -> None:
    done = uvloop.run(measure())
    if any(each.kills or not each.token_evictions or not each.verified_evictions for each in done):
        raise SystemExit("a process was killed, or a cache was never full")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps([asdict(each) for each in done], indent=1) + "\n")


if __name__ == "__main__":
    main()
