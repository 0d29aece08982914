"""How results are shown: a marked line for each check, or JSON.

What belongs here: text. What must never be here: what is checked.
"""

from __future__ import annotations

import sys
from typing import Any

from entra_fast._color import Style, painted
from entra_fast._providers import named
from entra_fast.cli.doctor.results import Result
from entra_fast.cli.terminal import print_json, printable

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL", "skip": "skip"}
_STYLES: dict[str, Style] = {"ok": "good", "warn": "warning", "fail": "bad", "skip": "aside"}
_WIDTH = len("introspection")


class Progress:
    """Names the check in progress on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def began(self, name: str) -> None:
        """A check begins."""
        if self._terminal:
            print(f"checking {name} ...", end="", file=sys.stderr, flush=True)

    def ended(self) -> None:
        """It has ended: clear the line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Text:
    """Prints each result as soon as it is known."""

    def __init__(self) -> None:
        self._progress = Progress()
        self.began = self._progress.began

    def ended(self, result: Result) -> None:
        """A check has ended."""
        self._progress.ended()
        mark = painted(_MARKS[result.status], _STYLES[result.status], sys.stdout)
        print(f"{mark}  {printable(f'{result.id:<{_WIDTH}}  {_subject(result)}{result.found}')}")
        if result.status in ("warn", "fail"):
            for title, text in (
                ("expected", result.expected),
                ("to do", result.remedy),
                ("see", result.docs),
            ):
                if text:
                    print(printable(f"      {title + ':':<{_WIDTH}}  {text}"))

    def finish(self, results: list[Result]) -> None:
        """The sentence at the end."""
        count = counted(results)
        if count["fail"]:
            sentence = f"{_number(count['fail'], 'check')} failed"
            if count["warn"]:
                sentence += f", {_number(count['warn'], 'warning')}"
            sentence += "."
        elif count["warn"]:
            sentence = f"The sidecar can work with these settings. {_number(count['warn'], 'warning')}."
        else:
            sentence = "All is well: the sidecar can work with these settings."
        print(f"\n{sentence}")


def _subject(result: Result) -> str:
    """Which provider a result is about."""
    if result.provider is None:
        return ""
    kind = named(result.provider)
    return f"{result.provider if kind is None else kind.title}: "


class Json:
    """Prints one object at the end."""

    def __init__(self) -> None:
        self._progress = Progress()
        self.began = self._progress.began

    def ended(self, _: Result) -> None:
        """A check has ended."""
        self._progress.ended()

    def finish(self, results: list[Result]) -> None:
        """Print all of them."""
        print_json(document(results))


def document(results: list[Result]) -> dict[str, Any]:
    """The JSON of all results."""
    count = counted(results)
    return {
        "ok": count["fail"] == 0,
        "summary": count,
        "checks": [result.fields() for result in results],
    }


def counted(results: list[Result]) -> dict[str, int]:
    """How many results have which status."""
    return {status: sum(result.status == status for result in results) for status in _MARKS}


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
