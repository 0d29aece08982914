"""Log lines: one JSON object per line on standard error.

What belongs here: the format. What must never be here: the text of exceptions. An exception may quote what
it failed on (a header, a body, a key), so only its type and the places it passed through are logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import sys
import traceback

import orjson

from entra_fast import _native

logger = logging.getLogger("entra_fast")

WRITTEN_WITHIN = 0.1
"""Seconds within which lines of the access log are written."""


class JsonLines(logging.Formatter):
    """A record as one line. Fields given as `extra={"fields": {...}}` become members.

    Args:
        worker: the number of this process, where several serve as one.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            # Messages of other libraries may be formatted with values from the wire; ours never are.
            "message": record.getMessage() if record.name.startswith("entra_fast") else _template(record),
        }
        if self._worker is not None:
            line["worker"] = self._worker
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["places"] = [
                f"{frame.filename}:{frame.lineno} in {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])[-20:]
            ]
        return orjson.dumps(line, default=lambda value: type(value).__name__).decode("utf-8")


def _template(record: logging.LogRecord) -> str:
    # The first line only: asyncio puts reprs of objects below it.
    return str(record.msg).partition("\n")[0][:200]


class AccessLog:
    """One line per request, when it is asked for. Never the query, the headers or the body.

    Lines are put together by native code, for both ways, and written many at a time, or after
    `WRITTEN_WITHIN` seconds: so they cost the fast lane next to nothing.

    Args:
        enabled: whether it is asked for.
        worker: the number of this process, where several serve as one.
    """

    __slots__ = ("_timer", "native")

    def __init__(self, enabled: bool, worker: int | None = None) -> None:
        self.native = _native.AccessLog(_write_to_standard_error, worker=worker) if enabled else None
        self._timer: asyncio.TimerHandle | None = None

    def log(self, method: str, path: str, status: int, seconds: float) -> None:
        if self.native is not None:
            self.native.add(method, path, status, seconds)

    def start(self) -> None:
        """From now on no line waits for long. In the running event loop."""
        if self.native is not None:
            self._timer = asyncio.get_running_loop().call_later(WRITTEN_WITHIN, self._flush)

    def close(self) -> None:
        """Write what waits, for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        if self.native is not None:
            self.native.flush()

    def _flush(self) -> None:
        if self.native is not None:
            self.native.flush()
            self.start()


def _write_to_standard_error(lines: bytes) -> None:
    # Nobody who asks for a token shall suffer because nobody reads the log.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.buffer.write(lines)
        sys.stderr.buffer.flush()


def configure(level: str, *, worker: int | None = None) -> None:
    """Send the log lines of this package and of the libraries below it to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logger.setLevel(level.upper())
