"""Metrics of what happens below the application."""

from __future__ import annotations

from dataclasses import dataclass

from entra_fast._metrics import Metrics


@dataclass(frozen=True, slots=True)
class MetricsObserver:
    """Counts it."""

    metrics: Metrics

    def refused(self, status: int) -> None:
        self.metrics.requests.add("other", str(status))

    def connection_refused(self) -> None:
        self.metrics.connections_refused.add()

    def not_received_in_time(self) -> None:
        self.metrics.receive_timeouts.add()
