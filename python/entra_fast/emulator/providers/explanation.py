"""The result of explaining one of the local providers: whether an application would get a token, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from entra_fast.emulator.protocol.explanation import check_lines
from entra_fast.emulator.protocol.policy import Reason
from entra_fast.emulator.providers.refusals import Refusal


@dataclass(frozen=True, slots=True)
class ProviderExplanation:
    """What would happen, and why.

    Attributes:
        provider: its name: `tokenx` or `maskinporten`.
        target: the API (`<cluster>:<namespace>:<app>`), or scopes of Maskinporten.
        refusal: None if a token would be issued.
    """

    provider: str
    consumer: str
    target: str
    reasons: Sequence[Reason]
    refusal: Refusal | None

    @property
    def granted(self) -> bool:
        """Whether a token would be issued."""
        return self.refusal is None

    def lines(self) -> list[str]:
        """For a terminal: one line for each check, then the outcome."""
        lines = [f"{self.consumer} -> {self.target} ({self.provider})", *check_lines(self.reasons)]
        if self.refusal is None:
            return [*lines, "granted"]
        code, error = self.refusal.code, self.refusal.error
        return [*lines, f"refused: {f'{code} ({error})' if code else error}: {self.refusal.text}"]

    def document(self) -> dict[str, Any]:
        """For programs: the output of `explain --json` and the response of `/admin/api/explain`."""
        refusal = self.refusal
        return {
            "granted": self.granted,
            "provider": self.provider,
            "consumer": self.consumer,
            "target": self.target,
            "checks": [dataclasses.asdict(reason) for reason in self.reasons],
            "error": None
            if refusal is None
            else {"code": refusal.code or None, "error": refusal.error, "text": refusal.text},
        }
