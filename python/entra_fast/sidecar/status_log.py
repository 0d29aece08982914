"""The status log: since when and why the sidecar is not ready, and how the provider fails, in few lines.

What belongs here: comparing the current state with the one that was logged last. Metrics count everything;
the log is read afterwards. So a line reports a change, or everything since the last such line, and a lasting
problem is logged less and less often. What must never be here: values from requests.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self

from entra_fast import _background
from entra_fast._metric_kinds import Figures, Metric
from entra_fast._metrics import NO_PROVIDER, Metrics
from entra_fast.sidecar.logs import SHORTEST_SILENCE, Silence, logger
from entra_fast.sidecar.readiness import Readiness
from entra_fast.sidecar.rejections import Example, Examples

CHECK_INTERVAL = 1.0
"""Seconds."""
START_TIME = 3.0
"""Seconds that a start may take: what is missing until then is not worth a line."""
MINUTE = 60.0
"""Seconds over which introspections are judged."""
MIN_INTROSPECTIONS = 3
"""Minimum number of introspections in a minute that say something."""
_Counts = dict[tuple[str, str], float]
"""Failed requests for tokens: by ("outcome", its name in metrics) and by ("code", of the provider)."""


class Introspections(NamedTuple):
    """The introspections for one provider until now.

    Attributes:
        answered: how many there were.
        rejected: how many tokens were rejected, by error code.
        examples: by error code: a token that was rejected since this was last asked for.
    """

    answered: float = 0
    rejected: Mapping[str, float] = MappingProxyType({})
    examples: Mapping[str, Example] = MappingProxyType({})

    @classmethod
    def of(cls, metrics: Metrics, workers: Sequence[Figures], examples: Examples) -> dict[str, Self]:
        """Those of a process and of its workers, by provider. Requests that were refused before their
        provider was known are compared with all introspections."""

        def counts(metric: Metric) -> dict[str, dict[str, float]]:
            found: dict[str, dict[str, float]] = {}
            for (label, provider), (count,) in metric.merged(
                [figures.get(metric.name, ()) for figures in workers]
            ).items():
                found.setdefault(provider, {})[label] = count
            return found

        answered = {
            provider: sum(by_state.values()) for provider, by_state in counts(metrics.introspections).items()
        }
        if NO_PROVIDER in answered:
            answered[NO_PROVIDER] = sum(answered.values())
        rejected = counts(metrics.introspections_rejected)
        return {
            provider: cls(count, rejected.get(provider, {}), examples.get(provider, {}))
            for provider, count in answered.items()
        }


class StatusLog:
    """Writes the status log. Where several providers are enabled, its lines name the one that they are about.

    Args:
        metrics: what happened.
        providers: the names of the enabled ones.
        readiness: returns whether the sidecar is ready.
        introspections: returns those that were answered until now, by provider.
        monotonic: returns seconds of a clock that never jumps.
        clock_tolerance: see `Settings.clock_tolerance`.
    """

    def __init__(
        self,
        metrics: Metrics,
        providers: Sequence[str],
        readiness: Callable[[], Readiness],
        introspections: Callable[[], Mapping[str, Introspections]],
        monotonic: Callable[[], float],
        *,
        clock_tolerance: float,
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._introspections = introspections
        self._monotonic = monotonic
        self._began = monotonic()
        self._logged_state: tuple[bool, str | None] | None = None
        self._next_reason_at = -math.inf
        # With one, lines need no name: there is only one that they can be about.
        named = {name: {"provider": name} if len(providers) > 1 else {} for name in providers}
        self._names: Mapping[str, Mapping[str, str]] = named
        self._requests = {provider: _Requests(name) for provider, name in named.items()}
        self._minutes = {provider: _Minutes(name) for provider, name in {**named, NO_PROVIDER: {}}.items()}
        self._clock_tolerance = clock_tolerance
        self._skew_logged = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check every second from now on, in the running event loop."""
        self._task = _background.start(self._check_forever(), "status log")

    async def aclose(self) -> None:
        """Stop checking."""
        await _background.cancel(self._task)

    def check(self) -> None:
        """Log any changes."""
        now = self._monotonic()
        self._check_readiness(now)
        self._check_providers(now)
        self._check_introspections(now)
        self._check_clock()

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            self.check()

    def _check_readiness(self, now: float) -> None:
        readiness = self._readiness()
        state = (readiness.ready, readiness.reason)
        if self._logged_state is None and not readiness.ready and now < self._began + START_TIME:
            return
        if state == self._logged_state or (readiness.reason is not None and now < self._next_reason_at):
            return
        self._logged_state = state
        if readiness.reason is None:
            logger.info("ready")
            return
        self._next_reason_at = now + SHORTEST_SILENCE  # reasons may alternate
        fields = {"reason": readiness.reason}
        if readiness.ready:
            logger.warning("ready, but in trouble", extra={"fields": fields})
        else:
            logger.warning("not ready", extra={"fields": fields})

    def _check_providers(self, now: float) -> None:
        upstream = list(self._metrics.upstream.figures().items())
        errors = list(self._metrics.provider_errors.figures().items())
        for name, requests in self._requests.items():
            failed: _Counts = {}
            succeeded = 0.0
            for (_, outcome, provider), (count,) in upstream:
                if provider != name:
                    continue
                if outcome == "ok":
                    succeeded += count
                elif outcome != "cancelled":
                    failed["outcome", outcome] = failed.get(("outcome", outcome), 0) + count
            failed |= {("code", code): count for (code, provider), (count,) in errors if provider == name}
            requests.check(now, failed, succeeded)

    def _check_introspections(self, now: float) -> None:
        for provider, current in self._introspections().items():
            self._minutes[provider].check(now, current)

    def _check_clock(self) -> None:
        """Whether this machine's clock differs from a provider's."""
        skews = [(skew, provider) for (provider,), (skew,) in self._metrics.clock_skew.figures().items()]
        skew, provider = max(skews, key=lambda each: abs(each[0]), default=(0.0, ""))
        if (abs(skew) >= self._clock_tolerance) == self._skew_logged:
            return
        self._skew_logged = not self._skew_logged
        if self._skew_logged:
            direction = "ahead of" if skew > 0 else "behind"
            message = f"the clock is {abs(skew):.0f} s {direction} the provider's"
            fields = {**self._names[provider], "clock_skew_seconds": round(skew, 1)}
            logger.warning(message, extra={"fields": fields})
        else:
            logger.info("the clock agrees with the provider's again")


class _Requests:
    """Whether requests for tokens to one provider fail.

    Args:
        name: the fields that name the provider.
    """

    def __init__(self, name: Mapping[str, str]) -> None:
        self._name = name
        self._logged: _Counts = {}
        self._seen: _Counts = {}
        self._failed_at = -math.inf
        self._tokens_then = 0.0  # tokens received until the last failure was seen
        self._failing = False
        self._silence = Silence()

    def check(self, now: float, failed: _Counts, tokens: float) -> None:
        """Log any change.

        Args:
            failed: failures until now.
            tokens: how many requests succeeded until now.
        """
        if failed != self._seen:
            self._seen, self._failed_at, self._tokens_then = failed, now, tokens
        new = {kind: count - self._logged.get(kind, 0) for kind, count in failed.items()}
        new = {kind: count for kind, count in new.items() if count > 0}
        if new and (now >= self._silence.until or not new.keys() <= self._logged.keys()):
            self._silence.begin(now)
            self._logged, self._failing = failed, True
            fields = {
                f"{what}s": {name: int(count) for (kind, name), count in sorted(new.items()) if kind == what}
                for what in ("outcome", "code")
            }
            logger.warning("provider failing", extra={"fields": {**self._name, **fields}})
        elif self._failing and tokens > self._tokens_then and now >= self._failed_at + SHORTEST_SILENCE:
            self._failing = False
            logger.info("provider recovered", extra={"fields": dict(self._name)})


class _Minutes:
    """Whether most of a minute's introspections for one provider were rejected for the same reason: then the
    reason is rather in the settings than in the tokens.

    Args:
        name: the fields that name the provider.
    """

    def __init__(self, name: Mapping[str, str]) -> None:
        self._name = name
        self._ends: float | None = None  # None while there are no introspections
        self._began_with = Introspections()
        self._examples: dict[str, Example] = {}
        self._silence = Silence()
        self._logged: str | None = None

    def check(self, now: float, current: Introspections) -> None:
        """Log that, when the minute is over.

        Args:
            current: the introspections until now.
        """
        self._examples |= current.examples
        if self._ends is None:
            if current.answered > self._began_with.answered:
                self._ends = now + MINUTE
            return
        if now < self._ends:
            return
        before, self._began_with, self._ends = self._began_with, current, None
        examples, self._examples = self._examples, {}
        answered = current.answered - before.answered
        new = {code: count - before.rejected.get(code, 0) for code, count in current.rejected.items()}
        code = max(new, key=new.__getitem__, default="")
        if answered < MIN_INTROSPECTIONS or new.get(code, 0) <= answered / 2:
            return
        if code == self._logged and now < self._silence.until:
            return
        self._silence.begin(now)
        self._logged = code
        counts = {"rejected": int(new[code]), "introspections": int(answered)}
        fields = {**self._name, "code": code, **counts, **examples.get(code, {})}
        logger.warning("most introspections reject the token", extra={"fields": fields})
