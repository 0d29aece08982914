"""Times token clients against MSAL for Python, and counts the requests that they make to the provider.

    make bench-tokens                  # or: python -m benches.token_clients

Both get tokens from the same local Entra ID over https. Times: microseconds for one cached token, in rounds
that measure everything once, so that a drifting machine affects all rows alike; the ratio is the median of
the rounds' ratios. Requests: how many reach the provider's token endpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msal

from entra_fast.emulator import LocalEntraId, RunningEmulator, tls
from entra_fast.tokens import AsyncTokenClient, TokenClient
from entra_fast.validate import HttpOptions

ROOT: Final = Path(__file__).parents[1]
APP_A: Final = "dev-gcp:team-a:app-a"
TARGET: Final = "dev-gcp:team-b:app-b"
SCOPE: Final = "api://dev-gcp.team-b.app-b/.default"
USERS: Final = 100


class Bench:
    """A provider in a thread, and a client of each kind for it."""

    def __init__(self, folder: Path) -> None:
        prepared = tls.prepare(folder)
        self.local = LocalEntraId.from_files([ROOT / "examples/manifests"], ROOT / "examples/directory.yaml")
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        starting = self.local.start("localhost", 0, tls=prepared.context)
        self.running: RunningEmulator = asyncio.run_coroutine_threadsafe(starting, loop).result(30)
        self.bundle = str(prepared.authority)
        os.environ["REQUESTS_CA_BUNDLE"] = self.bundle
        found = self.local.registry.find(APP_A)
        self.client_id, self.tenant = found.client_id, found.tenant_id
        self.secret = self.local.credentials.secret(found)

    def msal(self) -> Any:
        return msal.ConfidentialClientApplication(
            self.client_id,
            authority=f"{self.running.base_url}/{self.tenant}",
            client_credential=self.secret,
            instance_discovery=False,
        )

    def options(self) -> Any:
        return {
            "client_id": self.client_id,
            "tenant_id": self.tenant,
            "client_secret": self.secret,
            "well_known_url": f"{self.running.base_url}/{self.tenant}/v2.0/.well-known/openid-configuration",
            "http": HttpOptions(ca_bundle=self.bundle, timeout=60.0),
        }

    def user_token(self) -> str:
        _, token = self.local.mint(APP_A, APP_A, "ada")
        assert token is not None
        return token

    def requests(self, work: Callable[[], object]) -> int:
        """How many requests reach the token endpoint meanwhile. (`mint` is recorded, too, so not within.)"""
        before = self.local.journal.next_number()
        work()
        return self.local.journal.next_number() - before - 1


def each(seconds: float, call: Callable[[], object]) -> float:
    """Microseconds for one call."""
    count, end, started = 0, time.perf_counter() + seconds, time.perf_counter()
    while time.perf_counter() < end:
        for _ in range(20):
            call()
        count += 20
    return (time.perf_counter() - started) / count * 1e6


async def each_async(seconds: float, call: Callable[[], Any]) -> float:
    count, end, started = 0, time.perf_counter() + seconds, time.perf_counter()
    while time.perf_counter() < end:
        for _ in range(20):
            await call()
        count += 20
    return (time.perf_counter() - started) / count * 1e6


def together(call: Callable[[int], object], times: int) -> None:
    """Call from this many threads at once."""
    start = threading.Barrier(times)

    def one(number: int) -> object:
        start.wait()
        return call(number)

    with ThreadPoolExecutor(times) as pool:
        list(pool.map(one, range(times)))


def times(bench: Bench, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds for one cached token, and the ratio to MSAL."""
    theirs, user = bench.msal(), bench.user_token()
    measured: dict[str, list[float]] = {}
    with TokenClient.from_provider(**bench.options()) as ours:
        asynchronous = AsyncTokenClient.from_provider(**bench.options())

        async def asynchronously() -> dict[str, float]:
            async with asynchronous as client:
                await client.client_credentials(TARGET)
                await client.on_behalf_of(TARGET, user)
                return {
                    "client credentials, asyncio": await each_async(
                        seconds, lambda: client.client_credentials(TARGET)
                    ),
                    "on behalf of, asyncio": await each_async(
                        seconds, lambda: client.on_behalf_of(TARGET, user)
                    ),
                }

        ours.client_credentials(TARGET)
        ours.on_behalf_of(TARGET, user)
        theirs.acquire_token_for_client([SCOPE])
        for _ in range(rounds):
            figures = {
                "client credentials, MSAL": each(seconds, lambda: theirs.acquire_token_for_client([SCOPE])),
                "client credentials, threads": each(seconds, lambda: ours.client_credentials(TARGET)),
                "on behalf of, MSAL": each(seconds, lambda: theirs.acquire_token_on_behalf_of(user, [SCOPE])),
                "on behalf of, threads": each(seconds, lambda: ours.on_behalf_of(TARGET, user)),
                **asyncio.run(asynchronously()),
            }
            for name, figure in figures.items():
                measured.setdefault(name, []).append(figure)
    return {
        name: {
            "microseconds": round(statistics.median(figures), 1),
            "ratio": round(
                statistics.median(
                    reference / own
                    for reference, own in zip(
                        measured[f"{name.partition(',')[0]}, MSAL"], figures, strict=True
                    )
                ),
                1,
            ),
        }
        for name, figures in measured.items()
    }


def requests(bench: Bench) -> dict[str, dict[str, int]]:
    """Requests to the provider for tokens that many callers want at once, none of them cached."""
    user, users = bench.user_token(), [bench.user_token() for _ in range(USERS)]
    found: dict[str, dict[str, int]] = {}
    for name in ("MSAL", "threads", "asyncio"):
        found[name] = {
            "100 callers, the application's token": bench.requests(callers(bench, name, [None] * USERS)),
            "100 callers of one user": bench.requests(callers(bench, name, [user] * USERS)),
            "3 callers of one user, one after the other": bench.requests(
                callers(bench, name, [user] * 3, at_once=False)
            ),
            "100 users, one call each": bench.requests(callers(bench, name, list(users))),
        }
    return found


def callers(
    bench: Bench, name: str, subjects: list[str | None], *, at_once: bool = True
) -> Callable[[], object]:
    """Calls of a new client, for each subject token, or for the application where it is None."""
    if name == "asyncio":

        async def run() -> None:
            async with AsyncTokenClient.from_provider(**bench.options()) as client:

                async def one(subject: str | None) -> object:
                    if subject is None:
                        return await client.client_credentials(TARGET)
                    return await client.on_behalf_of(TARGET, subject)

                if at_once:
                    await asyncio.gather(*map(one, subjects))
                else:
                    for subject in subjects:
                        await one(subject)

        return lambda: asyncio.run(run())

    def threads() -> None:
        call: Callable[[str | None], object]
        if name == "MSAL":
            theirs = bench.msal()

            def call(subject: str | None) -> object:
                if subject is None:
                    return theirs.acquire_token_for_client([SCOPE])
                return theirs.acquire_token_on_behalf_of(subject, [SCOPE])
        else:
            ours = TokenClient.from_provider(**bench.options())

            def call(subject: str | None) -> object:
                return ours.token(TARGET) if subject is None else ours.on_behalf_of(TARGET, subject)

        if at_once:
            together(lambda number: call(subjects[number]), len(subjects))
        else:
            for subject in subjects:
                call(subject)

    return threads


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each row of each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        timed, counted = times(bench, options.rounds, options.seconds), requests(bench)
    print("| a cached token | µs | times as fast as MSAL |\n|---|---|---|")
    for name, row in timed.items():
        print(f"| {name} | {row['microseconds']} | {row['ratio']} |")
    names = list(counted)
    print(f"\n| requests to the provider | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for case in counted[names[0]]:
        print(f"| {case} | {' | '.join(str(counted[name][case]) for name in names)} |")
    if options.json is not None:
        options.json.write_text(json.dumps({"times": timed, "requests": counted}, indent=1) + "\n")


if __name__ == "__main__":
    main()
