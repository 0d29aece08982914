"""The provider process, as a worker sees it.

What belongs here: asking the provider process for tokens, keys, readiness and metrics, and applying what it
announces. What must never be here: the provider itself, its credentials, and any decision about when to fetch
(provider_process.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine

from entra_fast import _background, _native
from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import Waiters
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.oauth import scope_for
from entra_fast._provider.tokens import AcquiredToken, token_key
from entra_fast._settings.load import Settings
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import KeysUnavailable, ProviderError
from entra_fast.sidecar import tracing
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import ProviderChanges
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields
from entra_fast.sidecar.readiness import Readiness

ANSWER_TIMEOUT = 30.0
"""Seconds. The provider process enforces the usual deadlines; this one applies when that process hangs."""

ERROR_CODES = {"hub_unavailable": "the provider process does not respond"}


class ProviderChannel:
    """Represents the provider process in a worker: a `Provider`.

    Args:
        channel: to the provider process.
        settings: of this worker.
        cache: this worker's tokens.
        metrics: of this worker.
        clocks: where time comes from.
    """

    def __init__(
        self,
        channel: Channel,
        settings: Settings,
        *,
        cache: _native.TokenCache,
        metrics: Metrics,
        clocks: Clocks,
    ) -> None:
        self._channel = channel
        self._cache = cache
        self._changes: ProviderChanges | None = None
        self._keys = ChannelKeys(self, clocks)
        self.tokens: ChannelTokens | None = None
        if settings.provider is not None:
            self.tokens = ChannelTokens(self, settings.provider, cache, metrics, clocks)

    def tell(self, name: str, **fields: object) -> None:
        """Send a message that needs no answer."""
        self._channel.send(name, **fields)

    async def ask(self, name: str, **fields: object) -> Fields:
        """The answer of the provider process.

        Raises:
            EntraFastError: as the provider process raised it.
            ProviderError: code `hub_unavailable`.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await self._channel.call(name, **fields)
        except (ChannelLost, TimeoutError):
            raise ProviderError(
                "hub_unavailable",
                "the provider process does not respond",
                status=503,
                retry_after=1,
            ) from None

    # --- as a `Provider` ---

    async def start(self, changes: ProviderChanges) -> None:
        """Nothing has to be fetched from here: the provider process announces everything."""
        self._changes = changes

    async def aclose(self) -> None:
        """See `Provider.aclose`. The channel stays open."""
        await self._keys.aclose()

    async def readiness(self) -> Readiness:
        """See `Provider.readiness`."""
        try:
            return Readiness.from_fields(await self.ask("readiness"))
        except ProviderError as exc:
            return Readiness(ready=False, reason=exc.message)

    async def keys_problem(self) -> str | None:
        """See `Provider.keys_problem`."""
        try:
            answer = await self.ask("keys", cause=Cause.NO_KEYS.value, kid=None, seen=0)
        except ProviderError as exc:
            return exc.message
        return answer["reason"] or "the discovery document has not been fetched yet"

    async def exposition(self, own: Metrics) -> bytes:
        """See `Provider.exposition`. The provider process asks this one for its own metrics."""
        answer = await self.ask("metrics")
        text: str = answer["text"]
        return text.encode("utf-8")

    # --- announcements; each is applied when the method returns, because their order is guaranteed ---

    def handle(self, name: str, fields: Fields) -> bool:
        """Apply an announcement. False if the message is not one."""
        changes = self._changes
        assert changes is not None  # noqa: S101 - the worker starts its service before it says hello
        match name:
            case "token":
                self._cache.put(
                    bytes.fromhex(fields["key"]),
                    fields["token"],
                    fields["expires_in"],
                    monotonic=fields["monotonic"],
                    renew_in=fields["renew_in"],
                    subject_expires_at=fields["subject_expires_at"],
                )
            case "renewal_failed":
                self._cache.renewal_failed(
                    bytes.fromhex(fields["key"]), monotonic=fields["monotonic"], retry_in=fields["retry_in"]
                )
            case "provider":
                changes.provider_found(fields["issuer"], self._keys)
            case "keys":
                text = fields["text"]
                keys = None if text is None else KeySet(text)
                changes.keys_changed(keys)
                self._keys.announced(keys, fields["reason"], fields["version"])
            case "cool_downs":
                until = fields["until"]
                self._keys.cool_downs = {cause: until.get(cause.value, -math.inf) for cause in Cause}
                changes.cool_downs_changed(self._keys.cool_downs)
            case "signatures_distrusted":
                _native.distrust_fast_signatures()
            case _:
                return False
        return True


class ChannelTokens:
    """Hands out tokens from this worker's cache, or asks the provider process: an `Acquirer`."""

    in_flight = 0  # the provider process does the fetching

    def __init__(
        self,
        channel: ProviderChannel,
        provider: ProviderSettings,
        cache: _native.TokenCache,
        metrics: Metrics,
        clocks: Clocks,
    ) -> None:
        self._channel = channel
        self._provider = provider
        self._cache = cache
        self._metrics = metrics
        self._clocks = clocks

    async def acquire(
        self, target: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> AcquiredToken:
        """See `TokenClient.acquire`."""
        return await self._obtain(target, None, skip_cache, claims)

    async def exchange(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> AcquiredToken:
        """See `TokenClient.exchange`."""
        return await self._obtain(target, subject_token, skip_cache, claims)

    def renew(self, target: str, subject_token: str | None = None) -> None:
        """See `TokenClient.renew`."""
        self._channel.tell("renew", target=target, subject_token=subject_token)

    def sweep(self) -> None:
        """See `Acquirer.sweep`. Nothing is remembered here."""

    async def aclose(self) -> None:
        """Nothing runs in the background."""

    async def _obtain(
        self, target: str, subject_token: str | None, skip_cache: bool, claims: str | None
    ) -> AcquiredToken:
        key = token_key(self._provider, scope_for(target, self._provider.kind), subject_token)
        if not skip_cache and claims is None:
            cached = self._cache.get(key, **self._now())
            if cached is not None:
                if cached.renewal_due:
                    self.renew(target, subject_token)
                return AcquiredToken(cached.access_token, cached.expires_in, cached=True)
        try:
            answer = await self._channel.ask(
                "token",
                target=target,
                subject_token=subject_token,
                skip_cache=skip_cache,
                claims=claims,
                **tracing.current(),
            )
        except ProviderError as exc:
            # The provider process itself hands out a token that is still valid when the provider fails.
            if exc.code != "hub_unavailable" or claims is not None:
                raise
            stale = self._cache.get_stale(key, **self._now())
            if stale is None:
                raise
            self._metrics.stale_served.add()
            return AcquiredToken(stale.access_token, stale.expires_in, cached=True)
        elapsed = math.floor(self._clocks.monotonic() - answer["at"])
        left = max(0, answer["expires_in"] - elapsed)
        return AcquiredToken(answer["token"], left, cached=bool(answer.get("cached")))

    def _now(self) -> dict[str, float]:
        """Both clocks, in the form that the cache expects."""
        return {"monotonic": self._clocks.monotonic(), "now": self._clocks.wall()}


class _Question:
    """A question for new keys that is in flight, and the callers that wait for its answer."""

    def __init__(self, ask: Coroutine[object, object, bool]) -> None:
        self.waiters = Waiters()
        self.task = _background.start(ask, "question for keys")
        self.task.add_done_callback(lambda _: self.waiters.wake())


class ChannelKeys:
    """The keys that the provider process fetches: a `KeySource`. New key sets are announced without a
    request."""

    def __init__(self, channel: ProviderChannel, clocks: Clocks) -> None:
        self._channel = channel
        self._clocks = clocks
        self._questions: dict[Cause, _Question] = {}
        self._keys: KeySet | None = None
        self._reason: str | None = None
        self._version = 0
        self.cool_downs = dict.fromkeys(Cause, -math.inf)

    def announced(self, keys: KeySet | None, reason: str | None, version: int) -> None:
        """The provider process now has this key set, or none for this reason. `version` counts its key
        sets."""
        self._keys, self._reason, self._version = keys, reason, version

    async def aclose(self) -> None:
        """Stop asking."""
        await _background.cancel(*(question.task for question in self._questions.values()))

    async def refresh_for(self, cause: Cause, kid: str | None) -> bool:
        """See `AsyncKeys.refresh_for`. A flood of tokens costs one question at a time for each cause."""
        known = kid is not None and self._keys is not None and kid in self._keys.kids
        if known and cause is not Cause.FAILED_SIGNATURE:
            return True  # it arrived while the token was verified
        if self._clocks.monotonic() < self.cool_downs[cause]:
            return False
        question = self._questions.get(cause)
        if question is None or question.task.done():
            question = self._questions[cause] = _Question(self._ask(cause, kid, self._version))
        await question.waiters.wait()
        task = question.task
        return not task.cancelled() and task.exception() is None and task.result()

    def call_when_fetched(self, resume: Callable[[], None]) -> bool:
        """See `AsyncKeys.call_when_fetched`."""
        for question in self._questions.values():
            if not question.task.done():
                question.waiters.add(resume)
                return True
        return False

    def unavailable(self) -> KeysUnavailable:
        """See `KeySource.unavailable`."""
        reason = self._reason or "keys of the token issuer are not available: they have not been fetched yet"
        return KeysUnavailable("keys_unavailable", reason)

    async def _ask(self, cause: Cause, kid: str | None, seen: int) -> bool:
        # `seen` is an argument because this runs as a task: a new key set may be announced before it begins.
        try:
            answer = await self._channel.ask("keys", cause=cause.value, kid=kid, seen=seen)
        except ProviderError as exc:
            self._reason = f"keys of the token issuer are not available: {exc.message}"
            return False
        self._reason = answer["reason"]
        return bool(answer["again"])
