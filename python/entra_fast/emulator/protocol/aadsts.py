"""Refusals with Entra ID's own texts: the exception, and the form of an error response.

The codes and their texts are rows of entra_fast._aadsts. Nothing here decides when an error applies.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from entra_fast._aadsts import KINDS

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class EntraError(Exception):
    """A refusal with Entra ID's own text.

    Args:
        error: the OAuth error, where it is not the one of the code's row.
        placeholders: values for the placeholders of the text.
        values: the same as a mapping, instead.

    Attributes:
        kind: the row of its AADSTS code.
        error: the OAuth error.
        text: the sentence, placeholders filled in.
        claims: a claims challenge as JSON text, for 50076.
        retry_after: seconds, for 429 and 503.
    """

    def __init__(
        self,
        code: int,
        *,
        claims: str | None = None,
        retry_after: int | None = None,
        error: str | None = None,
        values: Mapping[str, object] | None = None,
        **placeholders: object,
    ) -> None:
        kind = KINDS[code]
        # Values of the request may have control characters. A description is one line (RFC 6749, 5.2).
        text = _CONTROL.sub(" ", kind.text.format_map(values if values is not None else placeholders))
        super().__init__(f"AADSTS{code}: {text}")
        self.kind = kind
        self.error = error or kind.error
        self.text = text
        self.claims = claims
        self.retry_after = retry_after

    @property
    def code(self) -> int:
        """The AADSTS number."""
        return self.kind.code

    def body(self, now: float, base_url: str, trace_id: str, correlation_id: str) -> dict[str, Any]:
        """The JSON object of the token endpoint's answer. `now`: seconds since the epoch."""
        timestamp = format_time(now)
        body: dict[str, Any] = {
            "error": self.error,
            # On one line since 2023; before, each of the three began a new one.
            "error_description": f"AADSTS{self.code}: {self.text} Trace ID: {trace_id} "
            f"Correlation ID: {correlation_id} Timestamp: {timestamp}",
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }
        if self.kind.has_uri:
            body["error_uri"] = f"{base_url}/error?code={self.code}"
        if self.kind.suberror is not None:
            body["suberror"] = self.kind.suberror
        if self.claims is not None:
            body["claims"] = self.claims
        return body


def format_time(now: float) -> str:
    """Entra's timestamps: `YYYY-MM-DD HH:MM:SSZ`."""
    moment = datetime.datetime.fromtimestamp(max(0.0, min(now, 253402300799.0)), datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def new_trace_id() -> str:
    """An id for one answer."""
    return str(uuid.uuid4())
