"""The result of `explain`: whether an application would get a token, and why; as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from entra_fast.emulator.protocol.policy import Decision, Reason


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen, and why.

    Attributes:
        user: on whose behalf; empty for machine-to-machine.
        claims: of the token that would be issued; empty if none would.
    """

    consumer: str
    target: str
    user: str
    decision: Decision
    claims: Mapping[str, Any]

    @property
    def granted(self) -> bool:
        """Whether a token would be issued."""
        return self.decision.granted

    def lines(self) -> list[str]:
        """For a terminal: one line for each check, then the outcome."""
        behalf = f" on behalf of {self.user}" if self.user else ""
        lines = [f"{self.consumer} -> {self.target}{behalf}", *check_lines(self.decision.reasons)]
        error = self.decision.error
        lines.append(
            "granted" if error is None else f"refused: AADSTS{error.code} ({error.kind.error}): {error.text}"
        )
        return lines

    def document(self) -> dict[str, Any]:
        """For programs: the output of `explain --json` and the response of `/admin/api/explain`."""
        error = self.decision.error
        return {
            "granted": self.granted,
            "consumer": self.consumer,
            "target": self.target,
            "user": self.user or None,
            "checks": [dataclasses.asdict(reason) for reason in self.decision.reasons],
            "error": None
            if error is None
            else {"code": error.code, "error": error.kind.error, "text": error.text},
            "claims": dict(self.claims),
        }


def check_lines(reasons: Iterable[Reason]) -> Iterator[str]:
    """Each check for a terminal, and after a failed one what would change its result."""
    for reason in reasons:
        place = f" ({reason.location})" if reason.location else ""
        yield f"  {'ok    ' if reason.passed else 'REFUSED'} {reason.check}: {reason.text}{place}"
        if reason.remedy:
            yield f"          to change it: {reason.remedy}"
