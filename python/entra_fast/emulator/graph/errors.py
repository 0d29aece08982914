"""Graph's errors: the exception, and the form of an error response."""

from __future__ import annotations

import datetime
from typing import Any


class GraphError(Exception):
    """A refusal in Graph's own words.

    Args:
        code: Graph's, such as `Request_BadRequest`.
        message: Graph's sentence.
        detail: for the journal, which may say more than Graph does; the message if there is none.
        remedy: what to change, for the journal.
    """

    def __init__(self, status: int, code: str, message: str, *, detail: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail or message
        self.remedy = remedy

    def body(self, now: float, request_id: str, client_request_id: str) -> dict[str, Any]:
        """The JSON object of the response. `now`: seconds since the epoch."""
        date = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        inner = {"date": date, "request-id": request_id, "client-request-id": client_request_id}
        return {"error": {"code": self.code, "message": self.message, "innerError": inner}}


def throttled() -> GraphError:
    """429, a planned fault."""
    return GraphError(429, "TooManyRequests", "Too many requests.")


def bad_request(message: str, remedy: str = "") -> GraphError:
    """400: the request is malformed."""
    return GraphError(400, "Request_BadRequest", message, remedy=remedy)


def unsupported(message: str, remedy: str = "") -> GraphError:
    """400: a query that Graph does not answer."""
    return GraphError(400, "Request_UnsupportedQuery", message, remedy=remedy)


def no_segment(segment: str) -> GraphError:
    """400, as Graph has it: there is no such path."""
    return GraphError(400, "BadRequest", f"Resource not found for the segment '{segment[:100]}'.")


def not_found(identifier: str) -> GraphError:
    """404: there is no such user or group."""
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{identifier[:100]}' does not exist or one of its queried reference-property objects are "
        "not present.",
    )
