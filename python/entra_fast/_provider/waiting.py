"""How many callers may wait for tokens at the same time: as many as there is memory for.

What belongs here: what a caller takes while it waits, and the refusal of one for which nothing is left. What
must never be here: how much is left (provider_clients.py knows the limit of the container).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from entra_fast.errors import ProviderError

CALLER_BYTES: Final = 32_768
"""What a caller takes, without its token: connection, request, and the request to the provider."""
COPIES: Final = 3
"""How often its token is in memory meanwhile: in its request, as text, and in the request to the provider
(docs/explanation/performance.md, "Full caches within 256 MiB")."""


class Waiting:
    """Callers that wait for tokens, of all providers together. Belongs to one event loop.

    Args:
        room: bytes that all of them may take now.
    """

    def __init__(self, room: Callable[[], float]) -> None:
        self._room = room
        self._taken = 0

    @contextlib.contextmanager
    def caller(self, token_bytes: int) -> Iterator[None]:
        """Within, a caller waits.

        Args:
            token_bytes: size of what it sends.

        Raises:
            ProviderError: code `too_many_fetches`.
        """
        needed = CALLER_BYTES + COPIES * token_bytes
        if self._taken + needed > self._room():
            raise ProviderError(
                "too_many_fetches",
                "too many requests wait for tokens: the container's memory limit leaves no room for more",
                status=503,
                retry_after=1,
            )
        self._taken += needed
        try:
            yield
        finally:
            self._taken -= needed
