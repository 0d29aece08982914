"""entra_fast: validate, acquire and issue Microsoft Entra ID tokens, fast.

Import `entra_fast.validate` for the library. This module only holds what everything shares, and imports
nothing of the server's.
"""

from __future__ import annotations

try:
    from entra_fast._native import (
        ALGORITHMS,
        ERROR_CODES,
        Agent,
        Claims,
        __version__,
        cache_key,
        unverified_claims,
        unverified_header,
    )
except ImportError as error:
    if "subinterpreters" not in str(error):
        raise
    raise ImportError(
        "entra_fast supports one interpreter per process and cannot be imported into this one: run all code "
        "that uses it in the main interpreter (mod_wsgi: WSGIApplicationGroup %{GLOBAL})",
        name="entra_fast",
    ) from None
from entra_fast.errors import (
    ConfigurationError,
    EntraFastError,
    Forbidden,
    InvalidToken,
    KeysUnavailable,
    ProviderError,
    StepUpRequired,
)
from entra_fast.require import Require

__all__ = [
    "ALGORITHMS",
    "ERROR_CODES",
    "Agent",
    "Claims",
    "ConfigurationError",
    "EntraFastError",
    "Forbidden",
    "InvalidToken",
    "KeysUnavailable",
    "ProviderError",
    "Require",
    "StepUpRequired",
    "__version__",
    "cache_key",
    "unverified_claims",
    "unverified_header",
]
