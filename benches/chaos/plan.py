"""Which fault comes when. What belongs here: chance, and nothing else has a part in it; what a fault is and
does, is not known here. The same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

AFTERMATH = 3.0
"""Seconds after a fault within which an error may still be its consequence (time-outs, `Retry-After: 1`)."""
ROTATION, RESTART = "keys rotated", "restarted"
RESTART_AT = 0.2
"""The part of the time after which the sidecars are restarted by SIGTERM, one after the other."""
REPLACED_UNTIL = 0.35
"""The part of the time after which faults replace no process any more, so that memory can be measured."""
RUSH_UNTIL = 0.5
"""From then to this part of the time there are many more clients, so that caches are as full as they get."""
TAIL = 0.65
"""The part of the time from which on memory is measured: when what came with the rush has ended (see
`truth.LIVES`), and every process is old enough that its allocators are as large as they need to be. After the
restart each fault of the provider comes once and briefly, because what the first of a kind needs is needed
once."""
BRIEF = 0.6
"""Seconds that a fault lasts at most until each has come once."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault. `at`: seconds since the start, or later if the one before takes that long. `dice`: 0 to 1, for
    what the fault itself leaves to chance."""

    at: float
    name: str
    seconds: float
    dice: float


class _Turns:
    """Each name once before any comes again."""

    def __init__(self, rng: random.Random, names: Sequence[str]) -> None:
        self._rng = rng
        self._names = sorted(names)
        self._queue: list[str] = []
        self._begun = False

    @property
    def all_had(self) -> bool:
        """Whether each has come as often as the others, and at least once."""
        return self._begun and not self._queue

    def next(self) -> str:
        self._begun = True
        if not self._queue:
            self._queue = self._rng.sample(self._names, len(self._names))
        return self._queue.pop()


def upstream(rng: random.Random, seconds: float, names: Sequence[str]) -> list[Planned]:
    """Faults of the provider and of the way to it, one after the other; between them new keys and a restart,
    which must succeed."""
    planned: list[Planned] = []
    turns = _Turns(rng, names)
    at, restarted, each_once = 0.0, False, False
    while True:
        brief = restarted and not each_once
        # Now and then long enough for all consequences to pass, so that errors without a cause show.
        at += 0.1 if brief else rng.choice((0.2, 0.4, 0.6, 0.8, 1.0, AFTERMATH + 2))
        if at > seconds:
            return planned
        if not restarted and at > seconds * RESTART_AT:
            restarted, turns = True, _Turns(rng, names)
            planned.append(Planned(at, RESTART, 0.0, rng.random()))
        if rng.random() < 0.2:
            planned.append(Planned(at, ROTATION, 0.0, rng.random()))
        lasts = rng.uniform(0.3, BRIEF if brief else 1.5)
        planned.append(Planned(at, turns.next(), lasts, rng.random()))
        at += planned[-1].seconds
        each_once = each_once or (restarted and turns.all_had)


def beside(
    rng: random.Random,
    seconds: float,
    names: Sequence[str],
    replacing: Sequence[str] = (),
    *,
    pause: tuple[float, float],
) -> list[Planned]:
    """Faults of processes or of Redis, which come whatever the provider does meanwhile.

    Args:
        replacing: faults after which there are other processes than before, in addition to `names`. They come
            before `REPLACED_UNTIL` only. A name may be there several times, to come more often.
        pause: between two of them, from and to.
    """
    planned: list[Planned] = []
    early, late = _Turns(rng, [*names, *replacing]), _Turns(rng, names)
    at = 0.0
    while True:
        at += rng.uniform(*pause)
        if at > seconds:
            return planned
        turns = early if at < seconds * REPLACED_UNTIL else late
        planned.append(Planned(at, turns.next(), rng.uniform(0.3, 1.5), rng.random()))
        at += planned[-1].seconds
