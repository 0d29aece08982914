"""ID-porten's refusals: an OAuth error code and a sentence with a correlation id."""

from __future__ import annotations

import uuid


class IdPortenError(Exception):
    """A refusal. Its text never has bytes of a token, a code or a secret.

    Attributes:
        error: the OAuth error code (RFC 6749, sections 4.1.2.1 and 5.2).
        text: one sentence, without the correlation id.
    """

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error
        self.text = text
        self.correlation_id = str(uuid.uuid4())

    @property
    def description(self) -> str:
        """The sentence as ID-porten writes it."""
        return f"{self.text.rstrip('.')}. (correlation id: {self.correlation_id})"

    def body(self) -> dict[str, str]:
        """The response of the token endpoint."""
        return {"error": self.error, "error_description": self.description}


def failed_authentication(reason: str) -> IdPortenError:
    """A client that did not prove who it is."""
    return IdPortenError("invalid_client", f"Client authentication failed. {reason}")
