"""How a provider refuses a request: the exception, and the JSON object of the response (RFC 6749, section
5.2).

When which refusal applies, and its sentence, belongs in the package of the provider.
"""

from __future__ import annotations

import re
from typing import Final

_NOT_ALLOWED: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")  # RFC 6749, section 5.2


class Refusal(Exception):
    """A refusal of a request.

    Args:
        status: of the response.
        error: the OAuth error.
        text: `error_description`.
        check: short name of the check that failed, for the journal.
        location: `<file>:<line>` that it depends on, if any.
        remedy: what to change, for the journal and the console.
        code: the provider's own code, such as `MP-250`; empty where it has none.
    """

    def __init__(
        self,
        status: int,
        error: str,
        text: str,
        *,
        check: str,
        location: str = "",
        remedy: str = "",
        code: str = "",
    ) -> None:
        # Values of the request may be part of the text. What a description must not have is left out.
        text = _NOT_ALLOWED.sub("", text)
        super().__init__(f"{error}: {text}")
        self.status = status
        self.error = error
        self.text = text
        self.check = check
        self.location = location
        self.remedy = remedy
        self.code = code

    def body(self) -> dict[str, str]:
        """The JSON object of the response."""
        return {"error": self.error, "error_description": self.text}
