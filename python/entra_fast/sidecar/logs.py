"""Log lines on standard error: one JSON object per line, or a line for people.

What belongs here: the format, and how often a line may repeat. What must never be here: the text of
exceptions. An exception may quote what it failed on (a header, a body, a key), so only its type and the lines
of code it passed through are logged.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import sys
import traceback
from collections.abc import Callable, Mapping

import orjson

from entra_fast import _clock, _color, _native

logger = logging.getLogger("entra_fast")

WRITTEN_WITHIN = 0.1
"""Seconds within which lines of the access log are written."""
SHORTEST_SILENCE, LONGEST_SILENCE = 60.0, 3600.0
"""Seconds between two lines about the same problem: doubled each time, while it lasts."""
MAX_REPEATING = 256
"""Maximum number of lines of other libraries that are remembered."""


class Silence:
    """When to log the same problem again."""

    __slots__ = ("length", "until")

    def __init__(self) -> None:
        self.length, self.until = SHORTEST_SILENCE, -math.inf

    def begin(self, now: float) -> None:
        """It has just been logged."""
        lasts = now < self.until + self.length
        self.length = min(2 * self.length, LONGEST_SILENCE) if lasts else SHORTEST_SILENCE
        self.until = now + self.length


class Trace:
    """The trace that a line belongs to. Tracing sets `fields` when it begins.

    Attributes:
        fields: gives `trace_id`, `span_id` and `trace_flags` of the current span, in lower-case hexadecimal
            as OpenTelemetry's logs in JSON have them; nothing outside a span.
    """

    fields: Callable[[], Mapping[str, str]] = staticmethod(dict)


class JsonLines(logging.Formatter):
    """A record as one line. Fields given as `extra={"fields": {...}}` become members.

    Args:
        worker: the number of this process, where several serve as one.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line = self._members(record)
        return orjson.dumps(line, default=lambda value: type(value).__name__).decode("utf-8")

    def _members(self, record: logging.LogRecord) -> dict[str, object]:
        line: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            # Messages of other libraries may be formatted with values from the wire; ours never are.
            "message": record.getMessage() if _is_ours(record) else _template(record),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        line.update(Trace.fields())
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["places"] = [
                f"{frame.filename}:{frame.lineno} in {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])[-20:]
            ]
        return line


class TextLines(JsonLines):
    """The same members for people: time, level and message, then `name=value` for the others."""

    def format(self, record: logging.LogRecord) -> str:
        line = self._members(record)
        level = str(line.pop("level"))
        time = _color.painted(str(line.pop("time"))[11:23], "aside", sys.stderr)
        mark = _color.painted(f"{level.upper():<8}", _STYLES.get(level, "aside"), sys.stderr)
        if line.pop("logger") == logger.name:
            message = line.pop("message")
        else:
            message = f"{record.name}: {line.pop('message')}"
        fields = "".join(f" {name}={_shown(value)}" for name, value in line.items())
        return f"{time} {mark} {_printable(str(message))}{_color.painted(fields, 'aside', sys.stderr)}"


_STYLES: dict[str, _color.Style] = {"info": "good", "warning": "warning", "error": "bad", "critical": "bad"}


def _shown(value: object) -> str:
    """A value as in JSON, but a single word without quotes."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(' "='):
        return value
    text = orjson.dumps(value, default=lambda value: type(value).__name__).decode("utf-8")
    return _printable(text)


def _printable(text: str) -> str:
    # A terminal would interpret control characters.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == logger.name


def _template(record: logging.LogRecord) -> str:
    # The first line only: asyncio puts reprs of objects below it.
    return str(record.msg).partition("\n")[0][:200]


class Repeats(logging.Filter):
    """Keeps other libraries from filling the log: a trace exporter logs an error every second while its
    collector is unavailable. A repeated line is written less and less often, with the number of lines that
    were suppressed."""

    def __init__(self, monotonic: Callable[[], float] = _clock.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._known: dict[tuple[object, ...], tuple[Silence, list[int]]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_ours(record):
            return True
        what = (record.name, _template(record), record.exc_info and record.exc_info[0])
        if what not in self._known and len(self._known) >= MAX_REPEATING:
            self._known.clear()
        silence, withheld = self._known.setdefault(what, (Silence(), [0]))
        now = self._monotonic()
        if now < silence.until:
            withheld[0] += 1
            return False
        silence.begin(now)
        if withheld[0]:
            record.fields = {"repeated": withheld[0]}
            withheld[0] = 0
        return True


class AccessLog:
    """One line per request, if enabled. Never the query, the headers or the body.

    Native code composes and writes the lines for both paths, many at a time, or after `WRITTEN_WITHIN`
    seconds. So they cost the fast path little.

    Args:
        enabled: whether lines are written.
        worker: the number of this process, where several serve as one.
    """

    __slots__ = ("_timer", "native")

    def __init__(self, enabled: bool, worker: int | None = None) -> None:
        self.native = _native.AccessLog(worker=worker) if enabled else None
        self._timer: asyncio.TimerHandle | None = None

    def log(self, method: str, path: str, status: int, seconds: float) -> None:
        if self.native is not None:
            self.native.add(method, path, status, seconds)

    def start(self) -> None:
        """Write waiting lines regularly from now on, in the running event loop."""
        if self.native is not None:
            self._timer = asyncio.get_running_loop().call_later(WRITTEN_WITHIN, self._flush, self.native)

    def close(self) -> None:
        """Write the waiting lines, for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        if self.native is not None:
            self.native.flush()

    def _flush(self, native: _native.AccessLog) -> None:
        native.flush()
        self.start()


def configure(level: str, form: str = "auto", *, worker: int | None = None) -> None:
    """Send the log lines of this package and of the libraries below it to standard error.

    Args:
        level: the lowest that is logged.
        form: `json`, `text`, or `auto`: text for a terminal.
        worker: the number of this process, where several serve as one.
    """
    handler = logging.StreamHandler(sys.stderr)
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines(worker) if is_text else JsonLines(worker))
    if level != "debug":
        handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logger.setLevel(level.upper())
