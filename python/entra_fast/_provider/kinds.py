"""What is particular to each kind of provider, as data: one row for each.

What belongs here: facts about a provider that change how it is spoken to and judged. What must never be
here: requests, and settings of an installation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from entra_fast._provider.oauth import aadsts_codes
from entra_fast.errors import ProviderError

_TEMPORARY: Final = frozenset({"server_error", "temporarily_unavailable"})
"""OAuth errors that say nothing about the client (RFC 6749, section 4.1.2.1), where a provider uses them at
its token endpoint."""


class ProviderKind(NamedTuple):
    """A kind of provider.

    Attributes:
        name: as `identity_provider` names it.
        tried_scope: the scope of the token that is requested to try the application's credential, for its
            client id. It must need no permission.
        rejections: the errors and codes with which the provider rejects the application or its credential.
            The list is closed: any other refusal is about the request.
        clock_tolerance: seconds by which the clocks may differ before a warning.
    """

    name: str
    tried_scope: Callable[[str], str]
    rejections: frozenset[str]
    clock_tolerance: float = 30.0

    def rejects(self, error: ProviderError) -> bool:
        """Whether the provider rejects the application, or its credential, with this error."""
        named = {error.error, *aadsts_codes(error)}
        return not proves_nothing(error) and not self.rejections.isdisjoint(named)


def proves_nothing(error: ProviderError) -> bool:
    """Whether the error says nothing about the application: no OAuth refusal, or a temporary one."""
    return (
        error.code != "provider_refused"
        or error.status in (408, 429)
        or error.status >= 500
        or error.error in _TEMPORARY
    )


ENTRA_ID: Final = ProviderKind(
    "entra_id",
    # The application's own token, which it may always have. The resource must be the GUID: AADSTS90009.
    tried_scope="{}/.default".format,
    rejections=frozenset(
        {
            "invalid_client",
            "AADSTS700016",  # no such application in this tenant
            "AADSTS90002",  # no such tenant
            "AADSTS7000112",  # the application is disabled
            "AADSTS7000215",  # wrong secret
            "AADSTS7000222",  # the secret has expired
            "AADSTS700027",  # unknown key, or the signature does not verify
            "AADSTS700024",  # the assertion is outside its time range: a clock is wrong
        }
    ),
)
