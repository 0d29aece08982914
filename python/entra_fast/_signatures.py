"""The fast signature library: what AWS-LC has confirmed, and notification when rind is no longer trusted.

The native core decides, for the rest of the process's life, whether that library is trusted
(rust/core/src/jose/confirmation.rs). What belongs here: reporting it. What must never be here: a decision.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from entra_fast import _native

logger = logging.getLogger("entra_fast.signatures")

_listeners: list[Callable[[], object]] = []


def log_distrust() -> None:
    """Log an error when the fast library is no longer trusted. Calling it again changes nothing."""
    _native.when_fast_signatures_are_distrusted(_distrusted)


def call_when_distrusted(listener: Callable[[], object]) -> None:
    """Call a function when the fast library is no longer trusted, on the thread that found the disagreement.
    The registration lasts as long as the process."""
    log_distrust()
    _listeners.append(listener)


def confirmations() -> dict[tuple[str, ...], float]:
    """Number of signatures that AWS-LC has verified after the fast library in this process, by outcome."""
    figures = _native.signature_figures()
    return {("agreed",): figures["agreed"], ("disagreed",): figures["disagreed"]}


def _distrusted() -> None:
    seen_here = _native.signature_figures()["disagreed"] > 0
    if seen_here:
        reason = "rind and AWS-LC disagreed about a signature, and the token was rejected"
    else:
        reason = "another process has reported that rind and AWS-LC disagree"
    logger.error("rind is no longer used, AWS-LC verifies all signatures: %s", reason)
    for listener in tuple(_listeners):
        listener()
