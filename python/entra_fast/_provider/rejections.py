"""What a provider's refusal says about the application: that it is rejected, or nothing.

What belongs here: reading a refusal by the closed list of the provider's row (_providers.py). What must never
be here: the lists, and what follows from a rejection (credentials.py).
"""

from __future__ import annotations

from typing import Final

from entra_fast._provider.oauth import aadsts_codes, maskinporten_code
from entra_fast._providers import ProviderKind
from entra_fast.errors import ProviderError

_TEMPORARY: Final = frozenset({"server_error", "temporarily_unavailable"})
"""OAuth errors that say nothing about the client (RFC 6749, section 4.1.2.1), where a provider uses them at
its token endpoint."""


def rejects(kind: ProviderKind, error: ProviderError) -> bool:
    """Whether a provider of this kind rejects the application, or its credential, with this error."""
    if proves_nothing(error):
        return False
    return rejects_credential(kind, error) or not kind.rejections.isdisjoint(aadsts_codes(error))


def rejects_credential(kind: ProviderKind, error: ProviderError) -> bool:
    """Whether another credential of the application may be accepted instead. AADSTS codes do not say that of
    themselves: Entra ID answers `invalid_client` if it may."""
    if not kind.rejections.isdisjoint({error.error, maskinporten_code(error)}):
        return True
    return (
        kind.rejection_text is not None
        and error.error in ("invalid_request", "invalid_grant")
        and kind.rejection_text.match(error.message) is not None
    )


def proves_nothing(error: ProviderError) -> bool:
    """Whether the error says nothing about the application: no OAuth refusal, or a temporary one."""
    return (
        error.code != "provider_refused"
        or error.status in (408, 429)
        or error.status >= 500
        or error.error in _TEMPORARY
    )
