"""What all commands share: exit statuses, errors, reading a token, and safe printing.

What belongs here: what several commands read from standard input, and formatting text for a terminal. Text
from a token or from another program is never printed raw: a control character could move the cursor, hide
lines or set the window's title.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from entra_fast._color import painted

OK = 0
REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130

Run = Callable[[argparse.Namespace], int]
AddCommand = Callable[[str, Run, str, str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, its line in the list of commands, and its help: a description, an
empty line, and examples."""

TOKEN_HELP = (
    "the token; '-' or no argument reads standard input, which keeps the token out of the process list and "
    "the shell history"
)
_MAX_INPUT_BYTES = 1 << 20
_LATEST_SHOWN = 253402300799.0  # 9999-12-31T23:59:59Z, the last moment that datetime can show


class CommandError(Exception):
    """Ends a command with one line on standard error.

    Attributes:
        status: the exit status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def fail(status: int, message: str) -> int:
    """Print an error. Returns the exit status."""
    print(f"{painted('entra-fast:', 'bad', sys.stderr)} {printable(message)}", file=sys.stderr)
    return status


def reason(error: Exception) -> str:
    """Why the operating system refused something, without paths or values."""
    return getattr(error, "strerror", None) or type(error).__name__


def discard_output() -> None:
    """Discard buffered output; otherwise Python reports the same error again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_token(argument: str | None) -> str:
    """The token in an argument or on standard input, without white space around it and without 'Bearer '.

    Raises:
        CommandError: there is none, or too much input.
    """
    if argument is None and sys.stdin.isatty():
        raise CommandError(USAGE, "missing token: pass it as an argument or on standard input")
    if argument is None or argument == "-":
        data = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
        if len(data) > _MAX_INPUT_BYTES:
            raise CommandError(USAGE, f"standard input has more than {_MAX_INPUT_BYTES} bytes: not a token")
        argument = data.decode("utf-8", "replace")
    token = argument.strip()
    scheme, _, rest = token.partition(" ")
    if scheme.lower() == "bearer":
        token = rest.strip()
    if not token:
        raise CommandError(USAGE, "missing token: the argument or standard input was empty")
    return token


def printable(text: str) -> str:
    """The text, with control and format characters escaped, because a terminal would interpret them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_json(value: object) -> None:
    """Print a value as indented JSON, with the same characters escaped as in `printable`."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    print("\n".join(_json_escaped(line) for line in text.split("\n")))


def _json_escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def readable_time(value: object, now: float) -> str:
    """`  2026-01-01 12:00:00 UTC, 5 min ago` for a NumericDate (RFC 7519, section 2), else nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST_SHOWN:
        return ""
    moment = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    distance = value - now
    return f"   {moment}, {'in ' + _span(distance) if distance >= 0 else _span(-distance) + ' ago'}"


def readable_time_text(text: object, now: float) -> str:
    """Like `readable_time`, for a number in a text."""
    try:
        return readable_time(float(str(text)), now)
    except ValueError:
        return ""


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
