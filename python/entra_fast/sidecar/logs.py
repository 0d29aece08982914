"""Log lines: one JSON object per line on standard error.

What belongs here: the format. What must never be here: the text of exceptions. An exception may quote what
it failed on (a header, a body, a key), so only its type and the places it passed through are logged.
"""

from __future__ import annotations

import datetime
import logging
import sys
import traceback
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger("entra_fast")


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
    """One line per request, when it is asked for. Never the query, the headers or the body."""

    __slots__ = ("enabled",)

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def log(self, request: web.BaseRequest, path: str, status: int, seconds: float) -> None:
        self.line(request.method[:16], path, status, seconds)

    def line(self, method: str, path: str, status: int, seconds: float) -> None:
        """As `log`, for whoever has no request object."""
        fields = {
            "method": method,
            "path": path,
            "status": status,
            "milliseconds": round(seconds * 1000, 3),
        }
        logger.info("request", extra={"fields": fields})


def configure(level: str, *, worker: int | None = None) -> None:
    """Send the log lines of this package and of the libraries below it to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logger.setLevel(level.upper())
