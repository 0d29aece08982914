"""Which tokens introspection has rejected, by error code, with examples for the log.

What belongs here: what the fast path and the slow path have counted, together, and what of an error may be
logged. What must never be here: when it is logged (status_log.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast.errors import EntraFastError, InvalidToken

INVALID_REQUEST: Final = "invalid_request"
"""The code of a request that has no token to verify."""

Example = dict[str, str]
"""What was `expected` of a token, and what was `received`, where each may be logged."""

_RECEIVED_IS_LOGGED: Final = frozenset({"wrong_issuer", "wrong_audience"})
"""Errors whose `actual` is a claim of a token with a verified signature. The core has cut and escaped it.
Everything else about a token may be an attacker's choice."""


def example_of(code: str, expected: str | None, actual: str | None) -> Example:
    """What may be logged of an error."""
    found = {"expected": expected, "received": actual if code in _RECEIVED_IS_LOGGED else None}
    return {name: value for name, value in found.items() if value is not None}


Examples = dict[str, dict[str, Example]]
"""By provider and by error code: a token that was rejected."""


class Rejections:
    """Counts rejected tokens. The fast path counts its own, without a step of Python."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._examples: Examples = {}
        self._fast_path: _native.FastPath | None = None
        self._providers: Sequence[str] = ()

    def add(self, error: EntraFastError, provider: str) -> None:
        """The slow path rejected a token of a provider."""
        self.add_code(error.code, provider)
        if isinstance(error, InvalidToken):
            example = example_of(error.code, error.expected, error.actual)
            self._examples.setdefault(provider, {})[error.code] = example

    def add_code(self, code: str, provider: str) -> None:
        """The slow path rejected a token, or a request for an introspection."""
        self._metrics.introspections.add("false", provider)
        self._metrics.introspections_rejected.add(code, provider)

    def include(self, fast_path: _native.FastPath, providers: Sequence[str]) -> None:
        """Include what the fast path has counted for these providers, which it knows by position."""
        self._fast_path, self._providers = fast_path, providers

        def answered() -> Mapping[tuple[str, ...], float]:
            counts = {}
            for position, provider in enumerate(providers):
                counts["true", provider] = fast_path.active(position)
                counts["false", provider] = sum(fast_path.rejections(position).values())
            return {labels: count for labels, count in counts.items() if count}

        self._metrics.introspections.include(answered)
        self._metrics.introspections_rejected.include(
            lambda: {
                (code, provider): count
                for position, provider in enumerate(providers)
                for code, count in fast_path.rejections(position).items()
            }
        )

    def take_examples(self) -> Examples:
        """Those of tokens that were rejected since the last call."""
        examples, self._examples = self._examples, {}
        if self._fast_path is not None:
            for position, provider in enumerate(self._providers):
                for code, (expected, actual) in self._fast_path.take_examples(position).items():
                    examples.setdefault(provider, {})[code] = example_of(code, expected, actual)
        return examples
