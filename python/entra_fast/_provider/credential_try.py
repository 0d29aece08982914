"""Tries the application's credential, so that a wrong one is noticed before a caller needs a token.

What belongs here: when it is tried. What must never be here: the request (token_endpoint.py), what the answer
means (rejections.py), and what follows from it (credentials.py).

The try is a request for a token that bypasses all caches and whose token is thrown away. It ends for good as
soon as the provider accepts the credential, in a try or for a caller; a later rejection begins it again.
"""

from __future__ import annotations

import asyncio

from entra_fast import _background
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.rejections import proves_nothing, rejects
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import CREDENTIAL_TRY, Timing, WantedToken
from entra_fast._providers import ProviderKind
from entra_fast.errors import ProviderError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until the next try after an answer that proves nothing: doubled each time, with jitter."""
REJECTED_PAUSE = 300.0
"""Seconds until the next try of a credential that the provider rejects. A changed one is tried at once."""
CHECK_INTERVAL = 1.0
"""Seconds between two looks at the credential, which may be a file, while a try is pending."""


class CredentialTry:
    """Tries until the provider has judged the credential. Belongs to one event loop.

    Args:
        kind: of the provider.
        endpoint: makes the request.
        credentials: that the provider judges.
        timeout: seconds for one try.
        timing: time and chance.
    """

    def __init__(
        self,
        kind: ProviderKind,
        endpoint: TokenEndpoint,
        credentials: Credentials,
        timeout: float,
        timing: Timing,
    ) -> None:
        self._kind = kind
        scope = endpoint.provider.tried_scope
        self._wanted = None if scope is None else WantedToken(b"", CREDENTIAL_TRY, scope)
        self._endpoint = endpoint
        self._credentials = credentials
        self._timeout = timeout
        self._timing = timing
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to try in the background; not at a provider that has no token for that. There, the first
        request of a caller judges the credential."""
        if self._wanted is not None:
            self._task = _background.start(self._try_forever(self._wanted), "credential try")

    async def aclose(self) -> None:
        """Stop trying."""
        await _background.cancel(self._task)

    async def _try_forever(self, wanted: WantedToken) -> None:
        credentials, pause = self._credentials, FIRST_PAUSE
        while True:
            if credentials.are_accepted:
                await credentials.until_rejected()
                await self._wait(REJECTED_PAUSE, credentials.rejected_digests)
                continue
            digests = credentials.digests()
            retry_after = await self._try(wanted)
            if retry_after is None:
                pause = FIRST_PAUSE
                await self._wait(REJECTED_PAUSE, digests)
            else:
                jitter = self._timing.uniform(0.75, 1.25)  # so that many sidecars do not try in step
                await self._wait(max(pause * jitter, retry_after), digests)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _try(self, wanted: WantedToken) -> int | None:
        """Try once. None if the provider has judged the credential; otherwise the seconds for which it wants
        to be left alone."""
        try:
            await self._endpoint.request(wanted, self._timing.monotonic() + self._timeout)
        except ProviderError as error:
            if proves_nothing(error):
                self._credentials.not_judged(error.message)
                return error.retry_after or 0
            if not rejects(self._kind, error):
                # The provider has authenticated the application, and refuses something else: a token for
                # itself, where it requires an assignment (AADSTS501051), or a scope that was withdrawn.
                self._credentials.accepted()
        return None

    async def _wait(self, seconds: float, digests: list[bytes]) -> None:
        """Return after some time, or when the credential differs from these digests, or has been accepted."""
        end = self._timing.monotonic() + seconds
        while (left := end - self._timing.monotonic()) > 0:
            if self._credentials.are_accepted or self._credentials.digests() != digests:
                return
            await self._timing.sleep(min(left, CHECK_INTERVAL))
