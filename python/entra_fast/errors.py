"""Every exception that entra_fast raises, in one hierarchy with stable codes.

The code is the interface: programs compare it, metrics count it, `docs/reference/errors.md` explains it. The
sentence is for people. Neither ever contains bytes of a token, a secret or an assertion.
This module imports nothing else from the package, so that every layer can raise these errors.
"""

from __future__ import annotations

from typing import TypedDict

__all__ = [
    "ConfigurationError",
    "EntraFastError",
    "Forbidden",
    "InvalidToken",
    "KeysUnavailable",
    "ProviderDetails",
    "ProviderError",
    "StepUpRequired",
]


class EntraFastError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: stable machine-readable name, lower-case with underscores, listed in docs/reference/errors.md.
        message: one sentence for people: what was wrong and what was expected.
    """

    code: str
    message: str

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class InvalidToken(EntraFastError):
    """A token was refused. HTTP services answer 401 (RFC 6750, section 3.1: invalid_token).

    Attributes:
        expected: the accepted value or values, if two values were compared; else None.
        actual: the value in the token, if it can be given without repeating token bytes; else None.
    """

    expected: str | None
    actual: str | None

    def __init__(
        self, code: str, message: str, expected: str | None = None, actual: str | None = None
    ) -> None:
        super().__init__(code, message)
        self.args = (code, message, expected, actual)  # keeps the exception picklable
        self.expected = expected
        self.actual = actual


class Forbidden(EntraFastError):
    """A valid token does not have what the service requires. HTTP services answer 403
    (insufficient_scope)."""


class StepUpRequired(Forbidden):
    """A valid token has everything but the level of authentication. The user can sign in again and come back
    with another token: HTTP services answer 401 with a challenge (`entra_fast.challenge.for_step_up`), not
    403.

    Attributes:
        acr_at_least: the lowest accepted `acr`, if that is missing.
        auth_contexts: the missing authentication contexts of Conditional Access (`acrs`).
    """

    acr_at_least: str | None
    auth_contexts: tuple[str, ...]

    def __init__(
        self,
        code: str,
        message: str,
        acr_at_least: str | None = None,
        auth_contexts: tuple[str, ...] = (),
    ) -> None:
        super().__init__(code, message)
        self.args = (code, message, acr_at_least, auth_contexts)  # keeps the exception picklable
        self.acr_at_least = acr_at_least
        self.auth_contexts = auth_contexts


class KeysUnavailable(EntraFastError):
    """No usable key set is available, so no token can be verified. HTTP services respond with 503."""


class ConfigurationError(EntraFastError):
    """A setting is missing or wrong. The process exits with status 2.

    Attributes:
        setting: the name of the setting, as the user wrote it.
    """

    setting: str

    def __init__(self, code: str, message: str, setting: str = "") -> None:
        super().__init__(code, message)
        self.args = (code, message, setting)
        self.setting = setting


class ProviderDetails(TypedDict, total=False):
    """Members of the provider's error response that an application needs, each if the provider sent it."""

    error_codes: list[int]
    suberror: str
    claims: str
    correlation_id: str
    trace_id: str
    timestamp: str
    error_uri: str


class ProviderError(EntraFastError):
    """The provider refused, failed or could not be reached while a token was acquired or exchanged.

    Attributes:
        status: HTTP status that the sidecar answers with.
        error: OAuth error code (RFC 6749, section 5.2).
        retry_after: seconds after which a new attempt makes sense, where the provider said so.
        details: further members of the provider's answer: `error_codes` (the numbers of AADSTS codes),
            `suberror`, `claims` (what a new sign-in must ask for), `correlation_id`, `trace_id`, `timestamp`
            and `error_uri`.
    """

    status: int
    error: str
    retry_after: int | None
    details: ProviderDetails

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 500,
        error: str = "server_error",
        retry_after: int | None = None,
        details: ProviderDetails | None = None,
    ) -> None:
        super().__init__(code, message)
        self.args = (code, message, status, error, retry_after, details)
        self.status = status
        self.error = error
        self.retry_after = retry_after
        self.details = details if details is not None else {}
