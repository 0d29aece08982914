"""The provider process, as a worker sees it.

What belongs here: asking the provider process for tokens, keys, readiness and metrics, and applying what it
announces. What must never be here: the providers themselves, their credentials, and any decision about when
to fetch (provider_process.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence

from entra_fast import _background, _native
from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import Waiters
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.tokens import AcquiredToken
from entra_fast._settings.load import Settings
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import KeysUnavailable, ProviderError
from entra_fast.sidecar import tracing
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import ProviderChanges
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields
from entra_fast.sidecar.process.messages import RequestedToken
from entra_fast.sidecar.readiness import Readiness

ANSWER_TIMEOUT = 30.0
"""Seconds. The provider process enforces the usual deadlines; this one applies when that process hangs."""

ERROR_CODES = {"hub_unavailable": "the provider process does not respond"}


class ProviderChannel:
    """Represents the provider process in a worker: a `Providers`.

    Args:
        channel: to the provider process.
        settings: of this worker.
        cache: this worker's tokens.
        metrics: of this worker.
        clocks: where time comes from.

    Attributes:
        tokens: see `Providers`.
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
        self._keys = {
            provider.name: ChannelKeys(self, provider.name, clocks) for provider in settings.providers
        }
        self.tokens: Mapping[str, ChannelTokens] = {
            provider.name: ChannelTokens(self, provider, cache, metrics, clocks)
            for provider in settings.providers
            if provider.kind.has_credential
        }

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

    # --- as a `Providers` ---

    async def start(self, changes: ProviderChanges) -> None:
        """Nothing has to be fetched from here: the provider process announces everything."""
        self._changes = changes

    async def aclose(self) -> None:
        """See `Providers.aclose`. The channel stays open."""
        for keys in self._keys.values():
            await keys.aclose()

    async def readiness(self) -> Readiness:
        """See `Providers.readiness`."""
        try:
            return Readiness.from_fields(await self.ask("readiness"))
        except ProviderError as exc:
            return Readiness(ready=False, reason=exc.message)

    async def keys_problem(self, provider: str) -> str | None:
        """See `Providers.keys_problem`."""
        try:
            answer = await self.ask("keys", provider=provider, cause=Cause.NO_KEYS.value, kid=None, seen=0)
        except ProviderError as exc:
            return exc.message
        return answer["reason"] or "the discovery document has not been fetched yet"

    async def exposition(self, own: Metrics) -> bytes:
        """See `Providers.exposition`. The provider process asks this one for its own metrics."""
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
                provider = fields["provider"]
                changes.provider_found(provider, fields["issuer"], self._keys[provider])
            case "keys":
                provider, text = fields["provider"], fields["text"]
                keys = None if text is None else KeySet(text)
                changes.keys_changed(provider, keys)
                self._keys[provider].announced(keys, fields["reason"], fields["version"])
            case "cool_downs":
                provider, until = fields["provider"], fields["until"]
                cool_downs = {cause: until.get(cause.value, -math.inf) for cause in Cause}
                self._keys[provider].cool_downs = cool_downs
                changes.cool_downs_changed(provider, cool_downs)
            case "signatures_distrusted":
                _native.distrust_fast_signatures()
            case _:
                return False
        return True


class ChannelTokens:
    """Hands out tokens of a provider from this worker's cache, or asks the provider process: an
    `Acquirer`."""

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
        self,
        target: str,
        *,
        skip_cache: bool = False,
        claims: str | None = None,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> AcquiredToken:
        """See `TokenClient.acquire`."""
        wanted = RequestedToken(self._provider.name, target, None, tuple(resources), authorization_details)
        return await self._obtain(wanted, skip_cache, claims)

    async def exchange(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> AcquiredToken:
        """See `TokenClient.exchange`."""
        return await self._obtain(
            RequestedToken(self._provider.name, target, subject_token), skip_cache, claims
        )

    def renew(
        self,
        target: str,
        subject_token: str | None = None,
        *,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> None:
        """See `TokenClient.renew`."""
        self._renew(
            RequestedToken(
                self._provider.name, target, subject_token, tuple(resources), authorization_details
            )
        )

    def sweep(self) -> None:
        """See `Acquirer.sweep`. Nothing is remembered here."""

    async def aclose(self) -> None:
        """Nothing runs in the background."""

    def _renew(self, wanted: RequestedToken) -> None:
        self._channel.tell("renew", **wanted.fields())

    async def _obtain(self, wanted: RequestedToken, skip_cache: bool, claims: str | None) -> AcquiredToken:
        key = wanted.key(self._provider)
        if not skip_cache and claims is None:
            cached = self._cache.get(key, **self._now())
            if cached is not None:
                if cached.renewal_due:
                    self._renew(wanted)
                return AcquiredToken(cached.access_token, cached.expires_in, cached=True)
        try:
            answer = await self._channel.ask(
                "token",
                **wanted.fields(),
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
            self._metrics.stale_served.add(self._provider.name)
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
    """The keys of a provider that the provider process fetches: a `KeySource`. New key sets are announced
    without a request."""

    def __init__(self, channel: ProviderChannel, provider: str, clocks: Clocks) -> None:
        self._channel = channel
        self._provider = provider
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
            answer = await self._channel.ask(
                "keys", provider=self._provider, cause=cause.value, kid=kid, seen=seen
            )
        except ProviderError as exc:
            self._reason = f"keys of the token issuer are not available: {exc.message}"
            return False
        self._reason = answer["reason"]
        return bool(answer["again"])
