"""The status log: since when and why the sidecar is not ready, and how the provider fails, in few lines.

What belongs here: comparing the current state with the one that was logged last. Metrics count everything;
the log is read afterwards. So a line reports a change, or everything since the last such line, and a lasting
problem is logged less and less often. What must never be here: values from requests.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from entra_fast import _background
from entra_fast._metrics import Metrics
from entra_fast.sidecar.logs import SHORTEST_SILENCE, Silence, logger

CHECK_INTERVAL = 1.0
"""Seconds."""
_Counts = dict[tuple[str, str], float]
"""Failed requests for tokens: by ("outcome", its name in metrics) and by ("code", of the provider)."""


class StatusLog:
    """Writes the status log.

    Args:
        metrics: what happened.
        not_ready_reason: why the sidecar is not ready, or None.
        monotonic: returns seconds of a clock that never jumps.
    """

    def __init__(
        self, metrics: Metrics, not_ready_reason: Callable[[], str | None], monotonic: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._not_ready_reason = not_ready_reason
        self._monotonic = monotonic
        self._reason: str | None = "not checked yet"
        self._next_reason_at = -math.inf
        self._logged: _Counts = {}
        self._seen: _Counts = {}
        self._failed_at = -math.inf
        self._tokens_then = 0.0  # tokens received until the last failure was seen
        self._failing = False
        self._silence = Silence()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check every second from now on, in the running event loop."""
        self._task = _background.start(self._check_forever(), "status log")

    async def aclose(self) -> None:
        """Stop checking."""
        await _background.cancel(self._task)

    def check(self) -> None:
        """Log any changes."""
        now = self._monotonic()
        self._check_readiness(now)
        self._check_provider(now)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            self.check()

    def _check_readiness(self, now: float) -> None:
        reason = self._not_ready_reason()
        if reason == self._reason or (reason is not None and now < self._next_reason_at):
            return
        self._reason = reason
        if reason is None:
            logger.info("ready")
        else:
            self._next_reason_at = now + SHORTEST_SILENCE  # reasons may alternate
            logger.warning("not ready", extra={"fields": {"reason": reason}})

    def _check_provider(self, now: float) -> None:
        counts, tokens = self._counts()
        if counts != self._seen:
            self._seen, self._failed_at, self._tokens_then = counts, now, tokens
        new = {kind: count - self._logged.get(kind, 0) for kind, count in counts.items()}
        new = {kind: count for kind, count in new.items() if count > 0}
        if new and (now >= self._silence.until or not new.keys() <= self._logged.keys()):
            self._silence.begin(now)
            self._logged, self._failing = counts, True
            fields = {
                f"{what}s": {name: int(count) for (kind, name), count in sorted(new.items()) if kind == what}
                for what in ("outcome", "code")
            }
            logger.warning("provider failing", extra={"fields": fields})
        elif self._failing and tokens > self._tokens_then and now >= self._failed_at + SHORTEST_SILENCE:
            self._failing = False
            logger.info("provider recovered")

    def _counts(self) -> tuple[_Counts, float]:
        """Failed requests for tokens, and how many succeeded."""
        failed: _Counts = {}
        succeeded = 0.0
        for (_, outcome), (count,) in self._metrics.upstream.figures().items():
            if outcome == "ok":
                succeeded += count
            elif outcome != "cancelled":
                failed[("outcome", outcome)] = failed.get(("outcome", outcome), 0) + count
        for (code,), (count,) in self._metrics.provider_errors.figures().items():
            failed[("code", code)] = count
        return failed, succeeded
