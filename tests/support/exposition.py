"""Figures in the Prometheus text format."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def total(text: str, wanted: str) -> float | None:
    """The sum of the series that have the name and the labels of `wanted`, which is written like one of them,
    whatever other labels they have; None if there is none."""
    name, labels = _parts(wanted)
    found = []
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if not line.startswith("#") and series.partition("{")[0] == name:
            own = _parts(series)[1]
            if labels.items() <= own.items():
                found.append(float(value))
    return sum(found) if found else None


def _parts(series: str) -> tuple[str, Mapping[str, str]]:
    name, _, labels = series.partition("{")
    return name, dict(_LABEL.findall(labels))


class Exposition:
    """What was scraped."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __getitem__(self, series: str) -> float:
        """See `total`."""
        found = total(self.text, series)
        if found is None:
            raise KeyError(series)
        return found

    def get(self, series: str, default: float = 0.0) -> float:
        """See `total`."""
        found = total(self.text, series)
        return default if found is None else found
