"""The other providers of NAIS beside the local Entra ID, made of the same manifests: what they know and
decide.

No HTTP: their endpoints and pages are in web/.
"""

from __future__ import annotations

from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.providers.idporten.provider import IdPorten


class LocalProviders:
    """All of them, for one local Entra ID, whose address, clock and manifests they share."""

    def __init__(self, local: LocalProvider) -> None:
        self.idporten = IdPorten(local)

    def reset(self) -> None:
        """Forget what has happened since the start: sessions, codes and tokens."""
        self.idporten.reset()
