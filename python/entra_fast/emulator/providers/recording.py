"""One request to a token endpoint of a local provider, as the journal keeps it: the checks it went through,
and what came out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from entra_fast.emulator.protocol.aadsts import new_trace_id
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.protocol.policy import Reason
from entra_fast.emulator.providers.refusals import Refusal

MAX_NAME: Final = 200
MAX_TEXT: Final = 1000
"""Characters that the journal keeps: what was sent may be part of a name or a sentence."""


@dataclass(slots=True)
class Recording:
    """A request while a provider processes it.

    Attributes:
        provider: its name.
        grant: the kind of request, in words.
        client: name of the calling application once it is known; before, what was sent in its place.
        target: what a token is requested for.
        user: on whose behalf: `pid` or `sub` of the user's token.
        claims: of the token, once it is issued.
    """

    provider: str
    grant: str
    client: str = ""
    target: str = ""
    user: str = ""
    reasons: list[Reason] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)

    def passed(self, check: str, text: str, location: str = "") -> None:
        """Record a check that passed."""
        self.reasons.append(Reason(check, True, text, location))

    def outcome(self, refusal: Refusal | None) -> tuple[Reason, ...]:
        """All checks, the one that failed at the end."""
        if refusal is None:
            return tuple(self.reasons)
        return (
            *self.reasons,
            Reason(
                refusal.check,
                False,
                refusal.text[:MAX_TEXT],
                refusal.location,
                refusal.remedy[:MAX_TEXT],
            ),
        )

    def finish(self, journal: Journal, now: float, refusal: Refusal | None) -> None:
        """Add the entry to the journal. `now`: seconds since the epoch."""
        journal.add(
            Entry(
                number=journal.next_number(),
                time=now,
                tenant="",
                grant=self.grant,
                client=self.client[:MAX_NAME],
                target=self.target[:MAX_NAME],
                user=self.user[:MAX_NAME],
                granted=refusal is None,
                code=None,
                message="" if refusal is None else str(refusal)[:MAX_TEXT],
                reasons=self.outcome(refusal),
                correlation_id=new_trace_id(),
                claims={} if refusal is not None else self.claims,
                provider=self.provider,
            )
        )
