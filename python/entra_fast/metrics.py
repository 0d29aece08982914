"""Metrics of the library in a service: what it counts goes to a callback.

    from entra_fast import metrics

    metrics.set_callback(lambda name, labels: statsd.increment(name, tags=labels))

Without a callback, prometheus-client counts in its default registry, if the service has loaded it.

What belongs here: one row for each counter of the library (docs/reference/metrics.md is checked against
them), and where counts go. The metrics of a sidecar are in _metrics.py.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["set_callback"]

LOGGER: Final = logging.getLogger("entra_fast.metrics")

Callback = Callable[[str, Mapping[str, str]], object]
"""Called with the name of a counter and its labels when it goes up by one."""


class Counter(NamedTuple):
    """A counter of the library.

    Attributes:
        name: ends with `_total`.
        labels: their names, in order. Each has a closed set of values.
        help: what it counts.
    """

    name: str
    labels: tuple[str, ...]
    help: str


BEARER_DECISIONS: Final = Counter(
    "entra_fast_bearer_decisions_total",
    ("framework", "outcome"),
    "Decisions about requests with or without a bearer token, by framework and outcome.",
)
KEY_SET_REQUESTS: Final = Counter(
    "entra_fast_key_set_requests_total",
    ("outcome",),
    "Requests for the provider's key set, by outcome (`ok` or an error code).",
)
COUNTERS: Final = (BEARER_DECISIONS, KEY_SET_REQUESTS)

_callback: Callback | None = None
_failed = False
_lock = threading.Lock()
_prometheus: dict[str, Any] = {}
"""By name: the counter of prometheus-client, or None where the name is taken."""


def set_callback(callback: Callback | None) -> None:
    """Choose where the library's metrics go, in the whole process.

    Args:
        callback: called as `callback(name, labels)` for each event, in the thread or on the event loop where
            it happens, so it must not block. What it raises is logged once, and has no effect on requests.
            None restores the default: prometheus-client, if it is loaded.

    Raises:
        TypeError: `callback` cannot be called, or is a coroutine function.
    """
    global _callback, _failed
    if callback is not None and (not callable(callback) or inspect.iscoroutinefunction(callback)):
        raise TypeError(f"callback is a function that is not async, not {type(callback).__name__}")
    _callback, _failed = callback, False


def count(counter: Counter, *values: str) -> None:
    """Count an event. Never raises.

    Args:
        values: those of the labels, in order.
    """
    callback = _callback
    if callback is not None:
        try:
            callback(counter.name, dict(zip(counter.labels, values, strict=True)))
        except Exception:
            _log_failure()
    elif sys.modules.get("prometheus_client") is not None:
        found = _prometheus.get(counter.name) or _registered(counter)
        if found is not None:
            found.labels(*values).inc()


def count_key_set_request(outcome: str) -> None:
    """Count a request for a key set."""
    count(KEY_SET_REQUESTS, outcome)


def _log_failure() -> None:
    global _failed  # noqa: PLW0603 - see above
    if not _failed:
        _failed = True
        LOGGER.exception("the metrics callback failed; further failures are not logged")


def _registered(counter: Counter) -> Any:
    """prometheus-client's counter; None if the service itself has registered one of that name."""
    with _lock:
        if counter.name not in _prometheus:
            import prometheus_client  # noqa: PLC0415 - loaded by the service, or not needed

            try:
                made = prometheus_client.Counter(counter.name, counter.help, counter.labels)
            except ValueError:
                LOGGER.warning("%s is not counted: the name is registered already", counter.name)
                made = None
            _prometheus[counter.name] = made
        return _prometheus[counter.name]
