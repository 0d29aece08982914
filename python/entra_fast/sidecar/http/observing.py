"""Metrics of what happens below the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from entra_fast._metric_kinds import OTHER
from entra_fast._metrics import NO_PROVIDER, Metrics


def unobserved() -> None:
    """Nobody has to know that a connection has been worked on."""


@dataclass(frozen=True, slots=True)
class MetricsObserver:
    """Counts it.

    Attributes:
        metrics: where.
        worked: called whenever bytes of a connection have been handled.
    """

    metrics: Metrics
    worked: Callable[[], None] = unobserved

    def refused(self, status: int) -> None:
        self.metrics.requests.add(OTHER, str(status), NO_PROVIDER)

    def connection_refused(self) -> None:
        self.metrics.connections_refused.add()

    def not_received_in_time(self) -> None:
        self.metrics.receive_timeouts.add()
