"""Prints what fails while the local system runs: refusals of the local Entra ID, tokens that sidecars reject.

What belongs here: noticing failures and one line for each. Names in these lines may be what anyone has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Final

from entra_fast._providers import ENTRA_ID, named
from entra_fast.cli.dev_system import SidecarOf
from entra_fast.cli.terminal import printable
from entra_fast.emulator import RunningEmulator
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.sidecar.status_log import Introspections

CHECK_SECONDS: Final = 0.5
MAX_LINES: Final = 20
"""Maximum number of refusals that are printed at once; the console has the others."""


class Failures:
    """What has failed since it was last asked.

    Args:
        base_url: of the local Entra ID.
        journal: its requests.
        rejected: for applications with a sidecar, returns how many tokens it has rejected, by error code.
    """

    def __init__(
        self,
        base_url: str,
        journal: Journal,
        rejected: Mapping[str, Callable[[], Mapping[str, float]]],
    ) -> None:
        self._base_url = base_url
        self._journal = journal
        self._rejected = rejected
        self._seen = 0
        self._counted: dict[tuple[str, str], float] = {}

    def lines(self) -> Iterator[str]:
        """A line for each new failure, oldest first."""
        entries = self._journal.entries()
        refused = [entry for entry in entries if entry.number > self._seen and not entry.granted]
        self._seen = max([self._seen, *(entry.number for entry in entries[:1])])
        if len(refused) > MAX_LINES:
            more = f"refused: {len(refused) - MAX_LINES} more requests: {self._base_url}/log?outcome=refused"
            yield more
        for entry in reversed(refused[:MAX_LINES]):
            yield self._refusal(entry)
        for application, counts in self._rejected.items():
            for code, count in counts().items():
                new = count - self._counted.get((application, code), 0)
                self._counted[application, code] = count
                if new > 0:
                    times = f" ({new:.0f} times)" if new > 1 else ""
                    yield f"rejected: {code}: a token at the sidecar of {application}{times}"

    def _refusal(self, entry: Entry) -> str:
        code = f"AADSTS{entry.code}: " if entry.code is not None else _provider(entry)
        names = " -> ".join(name for name in (entry.client, entry.target) if name)
        user = f", {entry.user}" if entry.user else ""
        place = f"({self._base_url}/log/{entry.number})"
        reason = "" if entry.provider == ENTRA_ID.name else _reason(entry)
        line = f"refused: {code}{entry.grant}: {names or 'unknown application'}{user}{reason} {place}"
        return printable(line)


def _provider(entry: Entry) -> str:
    """Which provider refused, where neither its code nor the kind of request says so."""
    kind = named(entry.provider)
    if kind is None or kind is ENTRA_ID or entry.grant.startswith(kind.title):
        return ""
    return f"{kind.title}: "


def _reason(entry: Entry) -> str:
    """Which check failed and what would change that: the other providers have no codes to look up."""
    failed = next((reason for reason in entry.reasons if not reason.passed), None)
    if failed is None:
        return ""
    where = f" at {failed.location}" if failed.location else ""
    return f": {failed.text}" + (f"; {failed.remedy}{where}" if failed.remedy else "")


@contextlib.asynccontextmanager
async def printed(emulator: RunningEmulator, sidecars: Sequence[SidecarOf] = ()) -> AsyncIterator[None]:
    """Within, failures are printed to standard error as they happen."""
    rejected = {sidecar.application.name: _counter(sidecar) for sidecar in sidecars}
    failures = Failures(emulator.base_url, emulator.local.journal, rejected)
    task = asyncio.create_task(_print_forever(failures))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        _print(failures)


def _counter(sidecar: SidecarOf) -> Callable[[], Mapping[str, float]]:
    metrics = sidecar.running.service.metrics

    def rejected() -> Mapping[str, float]:
        total: Counter[str] = Counter()
        for introspections in Introspections.of(metrics, (), {}).values():
            total.update(introspections.rejected)
        return total

    return rejected


async def _print_forever(failures: Failures) -> None:
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        _print(failures)


def _print(failures: Failures) -> None:
    for line in failures.lines():
        print(line, file=sys.stderr, flush=True)
