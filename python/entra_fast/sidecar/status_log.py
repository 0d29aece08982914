"""What went on, in few log lines: since when the sidecar was not ready and why, and how the provider failed.

What belongs here: comparing what is with what was said last. Metrics count everything; a log is read by
somebody who was asleep. So a line tells of a change, or of all that came since the last such line, and
trouble that lasts is mentioned less and less often. What must never be here: values from requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from entra_fast._metrics import Metrics
from entra_fast.sidecar.logs import SHORTEST_SILENCE, Silence, logger

LOOKS_EVERY = 1.0
"""Seconds."""
_Counts = dict[tuple[str, str], float]
"""Requests for tokens that failed: by ("outcome", its name in metrics), by ("code", of the provider)."""


class Story:
    """Tells it. `look` is to be called every now and then."""

    def __init__(
        self, metrics: Metrics, not_ready_reason: Callable[[], str | None], monotonic: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._not_ready_reason = not_ready_reason
        self._monotonic = monotonic
        self._reason: str | None = "not looked at yet"
        self._reasons_from = -math.inf
        self._told: _Counts = {}
        self._seen: _Counts = {}
        self._failed_at = -math.inf
        self._answered = 0.0  # when the last failure was seen
        self._failing = False
        self._silence = Silence()

    def look(self) -> None:
        """Log what has changed."""
        now = self._monotonic()
        self._look_at_readiness(now)
        self._look_at_provider(now)

    def _look_at_readiness(self, now: float) -> None:
        reason = self._not_ready_reason()
        if reason == self._reason or (reason is not None and now < self._reasons_from):
            return
        self._reason = reason
        if reason is None:
            logger.info("ready")
        else:
            self._reasons_from = now + SHORTEST_SILENCE  # reasons may take turns
            logger.warning("not ready", extra={"fields": {"reason": reason}})

    def _look_at_provider(self, now: float) -> None:
        counts, answered = self._counts()
        if counts != self._seen:
            self._seen, self._failed_at, self._answered = counts, now, answered
        new = {kind: count - self._told.get(kind, 0) for kind, count in counts.items()}
        new = {kind: count for kind, count in new.items() if count > 0}
        if new and (now >= self._silence.until or not new.keys() <= self._told.keys()):
            self._silence.begin(now)
            self._told, self._failing = counts, True
            fields = {
                f"{what}s": {name: int(count) for (kind, name), count in sorted(new.items()) if kind == what}
                for what in ("outcome", "code")
            }
            logger.warning("no token from the provider", extra={"fields": fields})
        elif self._failing and answered > self._answered and now >= self._failed_at + SHORTEST_SILENCE:
            self._failing = False
            logger.info("tokens from the provider again")

    def _counts(self) -> tuple[_Counts, float]:
        failed: _Counts = {}
        answered = 0.0
        for (_, outcome), (count,) in self._metrics.upstream.figures().items():
            if outcome == "ok":
                answered += count
            elif outcome != "cancelled":
                failed[("outcome", outcome)] = failed.get(("outcome", outcome), 0) + count
        for (code,), (count,) in self._metrics.provider_errors.figures().items():
            failed[("code", code)] = count
        return failed, answered
