"""What a provider's discovery document leads to, fetched once and remembered. Belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from entra_fast import _clock
from entra_fast.errors import EntraFastError, ProviderError

T = TypeVar("T")

ENDPOINTS_SECONDS: Final = 24 * 3600.0
"""How long a discovery document is used; Entra ID sends `max-age=86400`."""


class Remembered(Generic[T]):
    """A value that is fetched when it is first needed, and again after ENDPOINTS_SECONDS.

    Args:
        fetch: fetches it; raises EntraFastError.
        discard: closes one that is no longer used.
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        discard: Callable[[T], Awaitable[None]],
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        self._fetch = fetch
        self._discard = discard
        self._monotonic = monotonic
        self._fetching = asyncio.Lock()
        self._known: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The value. An outdated one is used while no newer one is available. Raises ProviderError."""
        known = self._known
        if known is not None and self._until > self._monotonic():
            return known
        async with self._fetching:
            if self._known is not known and self._known is not None:
                return self._known
            try:
                self._known = await self._fetch()
            except EntraFastError as error:
                if known is None:
                    raise ProviderError(
                        error.code, f"the provider's endpoints are not known: {error.message}"
                    ) from None
                return known
            self._until = self._monotonic() + ENDPOINTS_SECONDS
            if known is not None:
                await self._discard(known)
            return self._known

    async def aclose(self) -> None:
        """Close what is known."""
        if self._known is not None:
            await self._discard(self._known)
