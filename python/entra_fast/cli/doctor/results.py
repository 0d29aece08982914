"""What a check finds, and how checks are run: one after the other, each within its time, and none whose
premise has failed.

What belongs here: results, and what follows from them. What must never be here: what is checked, and how
results are shown (report.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail", "skip"]

TIME_LIMIT = 2.0
"""Seconds for one check."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check has found.

    Attributes:
        status: `fail` where the sidecar does not work like this, `warn` where it works with a risk, `skip`
            where nothing could be checked.
        found: what is there, for people. Never a secret.
        expected: what should be there; None where the status is `ok`.
        remedy: what to do; None where there is nothing to do.
    """

    status: Status
    found: str
    expected: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a check. Several may have the same id: one for each host, or for each wrong setting.

    Attributes:
        id: stable name of the check.
        docs: page of the documentation, with its section.
        ms: milliseconds that it took.
        premise: id of the check whose failure is why this one was skipped.
        provider: name of the provider that it is about; None where it is about none.
    """

    id: str
    status: Status
    found: str
    expected: str | None
    remedy: str | None
    docs: str
    ms: float
    premise: str | None = None
    provider: str | None = None

    @property
    def holds(self) -> bool:
        """Whether what was checked can be built upon."""
        return self.status in ("ok", "warn")

    def fields(self) -> dict[str, Any]:
        """The same, to be written as JSON."""
        return asdict(self)


class Examination:
    """Runs checks, and keeps their results in order.

    Args:
        began: called with the id of each check that begins.
        ended: called with each result.

    Attributes:
        provider: name of the provider that is being examined; None for none.
    """

    def __init__(self, began: Callable[[str], None], ended: Callable[[Result], None]) -> None:
        self.results: list[Result] = []
        self.provider: str | None = None
        self._began = began
        self._ended = ended

    async def check(
        self,
        name: str,
        run: Callable[[], Awaitable[Outcome]],
        *,
        docs: str,
        needs: tuple[Result | None, ...] = (),
        late: Outcome | None = None,
    ) -> Result:
        """Run a check, unless something that it needs does not hold.

        Args:
            name: its id.
            run: the check.
            docs: see `Result`.
            needs: results that must hold. None is something that need not be checked.
            late: the outcome if there is none within `TIME_LIMIT`.
        """
        self._began(name)
        missing = next((need for need in needs if need is not None and not need.holds), None)
        if missing is not None:
            return self.skip(name, missing, docs=docs)
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIME_LIMIT):
                outcome = await run()
        except TimeoutError:
            outcome = late or Outcome(
                "fail", f"no result within {TIME_LIMIT:g} s", f"a result within {TIME_LIMIT:g} s"
            )
        except Exception as error:
            outcome = Outcome(
                "fail",
                f"the check itself failed with {type(error).__name__}",
                "a result",
                "report it as a defect of entra-fast doctor",
            )
        return self.add(name, outcome, docs=docs, ms=1000 * (time.monotonic() - started))

    def skip(self, name: str, missing: Result, *, docs: str) -> Result:
        """Skip a check, because `missing` does not hold."""
        premise = missing.premise or missing.id
        outcome = Outcome("skip", f"not checked: '{premise}' has to be right first")
        return self.add(name, outcome, docs=docs, premise=premise)

    def add(
        self, name: str, outcome: Outcome, *, docs: str, ms: float = 0.0, premise: str | None = None
    ) -> Result:
        """Keep the outcome of a check."""
        result = Result(
            id=name,
            status=outcome.status,
            found=outcome.found,
            expected=outcome.expected,
            remedy=outcome.remedy,
            docs=docs,
            ms=round(ms, 1),
            premise=premise,
            provider=self.provider,
        )
        self.results.append(result)
        self._ended(result)
        return result
