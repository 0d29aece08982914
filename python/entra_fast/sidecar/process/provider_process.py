"""The provider process: it talks to the providers for all workers, and coordinates them.

What belongs here: requests from workers and announcements to them (tokens, keys, readiness, metrics), and the
guarantee that they act as one sidecar. What must never be here: processes, sockets and signals
(supervisor.py), and how a worker applies announcements (provider_channel.py).

This process fetches: one request per token and per key set, however many workers there are. It announces
every result to all of them, so that each answers from its own caches. A worker sends `hello` when it starts
with empty caches, gets all announcements from then on, and serves only after the first ones.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from entra_fast import _background, _native
from entra_fast._metric_kinds import Figures, Merged
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.token_client import Acquirer
from entra_fast._settings.load import Settings
from entra_fast._sweeping import LOOP_PARTS, LoopSweeps
from entra_fast.sidecar import otlp, tracing
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.logs import AccessLog
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields, frame
from entra_fast.sidecar.process.messages import RequestedToken, count, flag, optional_text, text
from entra_fast.sidecar.provider_client import ProviderClient
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.readiness import SHUTTING_DOWN, Readiness, StartUp
from entra_fast.sidecar.rejections import Examples
from entra_fast.sidecar.service import new_metrics, new_token_cache
from entra_fast.sidecar.status_log import Introspections, StatusLog
from entra_fast.sidecar.telemetry import Telemetry, usable

TICK = 0.05
"""Seconds. Timeouts of workers are counted in ticks of this process's own run time: if the whole machine was
suspended, so was the worker, and it did not hang."""
SYNC_TIMEOUT = 1.0
"""Seconds without any work after which a worker that has not acknowledged a replaced token counts as hung."""
HANG_TIMEOUT = 5.0
"""Seconds without any work after which a worker that has not answered a check counts as hung."""
LONGEST_SILENCE = 60.0
"""Seconds after which a worker that has not answered counts as hung, whatever it does."""
CHECK_INTERVAL = 1.0
"""Seconds between two checks of a worker. Its counts since the last check are lost if it crashes."""
SCRAPE_TIMEOUT = 0.5
"""Seconds for a worker's figures when metrics are read; after that its last ones are used."""
LEAST_TOKEN_BYTES = 1024
"""No token of a provider takes less in the cache, so terms of more tokens need not be remembered."""
NOT_DUE_PAUSE = 20.0
"""Seconds after which a worker asks again for a renewal that was not due."""


@dataclass(slots=True, eq=False)
class ConnectedWorker:
    """A worker, from the point of view of this process.

    Attributes:
        number: of its slot, from 0. Its replacement has the same number.
        end: ends the process for a reason, and returns when it is gone.
        progress: returns a number that has changed if the worker has done any work.
        channel: to the process.
        greeted: whether it has said hello.
        serving: whether it accepts connections.
        finished: whether every request was answered when it drained, once it has reported that.
        figures: its metrics when it was last asked.
    """

    number: int
    end: Callable[[str], Awaitable[None]]
    progress: Callable[[], int]
    channel: Channel | None = None
    greeted: bool = False
    serving: bool = False
    finished: bool | None = None
    figures: Figures = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Announced:
    """What has been announced about a provider.

    Attributes:
        issuer: None until it is known.
        version: counts the key sets.
        cool_downs: by cause; only those that last.
    """

    issuer: str | None = None
    version: int = 0
    cool_downs: dict[str, float] = field(default_factory=dict)


class ProviderProcess:
    """Speaks to the providers for all workers: `ProviderChanges` and `Observed`. Belongs to one event loop.

    Args:
        settings: of the sidecar, with the cache limits of one process.
        clocks: where time comes from; for tests.
    """

    def __init__(self, settings: Settings, *, clocks: Clocks | None = None) -> None:
        self._settings = settings
        self._clocks = clocks or Clocks()
        server = settings.server
        self.access_log = AccessLog(server.access_log and server.log_level in ("debug", "info"))
        exported = usable(otlp.read())
        self.metrics = new_metrics(server)
        self.tracing = tracing.begin(exported)
        self._telemetry = Telemetry(exported, self.tracing, self.has_started, self.merged)
        self.draining = False
        self.workers: list[ConnectedWorker] = []
        self._past: dict[int, Figures] = {}  # of workers that were replaced, by number
        self._announced = {provider.name: _Announced() for provider in settings.providers}
        self._settings_of = {provider.name: provider for provider in settings.providers}
        self._signatures_distrusted = False
        self._cache = new_token_cache(settings.caches)
        self._tokens = AnnouncedTokens(
            self._cache,
            min(settings.caches.max_entries, max(1, settings.caches.max_bytes // LEAST_TOKEN_BYTES)),
            self._clocks,
            lambda fields: self.announce("token", **fields),
            lambda fields: self.announce("renewal_failed", **fields),
        )
        self._providers = ProviderClients(
            settings,
            cache=self._tokens,
            metrics=self.metrics,
            clocks=self._clocks,
            tracing=self.tracing,
            cached_bytes=lambda: self._cache.stats()["bytes"],
        )
        self._start_up = StartUp(self._clocks.monotonic)
        self._examples: Examples = {}
        self._status_log = StatusLog(
            self.metrics,
            [provider.name for provider in settings.providers],
            self.readiness_now,
            self._introspections,
            self._clocks.monotonic,
            clock_tolerance=settings.clock_tolerance,
        )
        self._checking: asyncio.Task[None] | None = None
        self._sweeps = LoopSweeps(self._sweep, self._tokens.sweep_part)
        # Requests are answered from the workers' caches, so the figures of this process's own cache do not
        # count, except where each token counts once.
        self.metrics.watch_texas_cache_size(self._cache.stats)
        self.metrics.memory_limit.read_from(lambda: settings.caches.memory_limit or 0)
        self.metrics.insecure_hosts.read_from(lambda: len(settings.outbound.insecure_hosts))
        self.metrics.ready.read_from(lambda: self.readiness_now().ready)
        self.metrics.workers.read_from(lambda: sum(worker.serving for worker in self.workers))
        self.metrics.worker_requests.include(self._requests_by_worker)

    async def start(self) -> None:
        """Begin to fetch in the background. Does not fail when a provider is unavailable."""
        await self._providers.start(self)
        if self._settings.providers:
            self._status_log.start()
        self.access_log.start()
        self._sweeps.start()
        self._checking = _background.start(self._check_workers(), "checks of workers")

    def start_telemetry(self) -> None:
        """Begin to export spans and metrics: after the start, which loading OpenTelemetry would delay."""
        self._telemetry.start()

    async def begin_draining(self) -> None:
        """Fail the readiness probe from now on."""
        self.draining = True
        await self._status_log.aclose()  # draining has log lines of its own

    async def aclose(self) -> None:
        """Stop everything that runs in the background, and close the connections to the providers."""
        await self._status_log.aclose()
        await self._sweeps.aclose()
        await _background.cancel(self._checking)
        await self._providers.aclose()
        self.access_log.close()
        await self._telemetry.aclose()

    def _sweep(self) -> None:
        self._tokens.sweep()
        self._providers.sweep()

    # --- workers ---

    def left(self, worker: ConnectedWorker) -> None:
        """A worker is gone. Its counts are kept."""
        if worker in self.workers:
            self.workers.remove(worker)
        earlier = self._past.get(worker.number, {})
        self._past[worker.number] = self.metrics.accumulated(earlier, worker.figures)

    def handle(self, worker: ConnectedWorker, name: str, fields: Fields) -> Fields | Awaitable[Fields] | None:
        """Handle a message from a worker. Fields of a wrong type, and the name of a provider that is not
        enabled, terminate the worker: it runs a different program."""
        match name:
            case "token":
                wanted = RequestedToken.from_fields(fields)
                return self._token(
                    worker,
                    self._providers.tokens[wanted.provider],
                    wanted,
                    skip_cache=flag(fields, "skip_cache"),
                    claims=optional_text(fields, "claims"),
                    trace=tracing.received(fields),
                )
            case "renew":
                self._renew(worker, RequestedToken.from_fields(fields))
            case "keys":
                provider = text(fields, "provider")
                return self._keys_for(
                    self._providers.clients[provider],
                    self._announced[provider],
                    Cause(fields["cause"]),
                    optional_text(fields, "kid"),
                    count(fields, "seen"),
                )
            case "readiness":
                return self.readiness_now().fields()
            case "metrics":
                return self._metrics()
            case "hello":
                self._greet(worker)
            case "serving":
                worker.serving = True
            case "drained":
                worker.finished = flag(fields, "finished")
                if isinstance(fields.get("figures"), dict):
                    worker.figures = fields["figures"]  # the last ones
            case "signatures_distrusted":
                self._distrust_signatures()
            case _:
                raise ValueError("unknown message")
        return None

    def announce(self, name: str, **fields: object) -> None:
        """Send a message to all workers."""
        if self.workers:
            data = frame(name, fields)
            for worker in self.workers:
                assert worker.channel is not None  # noqa: S101 - it has said hello through it
                worker.channel.send_frame(data)

    def _greet(self, worker: ConnectedWorker) -> None:
        if worker.channel is None or worker.greeted:
            raise ValueError("a worker says hello once")
        worker.greeted = True
        self.workers.append(worker)
        for provider, announced in self._announced.items():
            if announced.issuer is not None:
                worker.channel.send("provider", provider=provider, issuer=announced.issuer)
            worker.channel.send("keys", **self._key_set(provider))
            worker.channel.send("cool_downs", provider=provider, until=announced.cool_downs)
        if self._signatures_distrusted:
            worker.channel.send("signatures_distrusted")
        worker.channel.send("serve", began=self._start_up.began)

    def _distrust_signatures(self) -> None:
        """A worker has found that rind and AWS-LC disagree: no worker uses rind from now on, including those
        that start later. Each notified worker reports the same, which changes nothing."""
        if not self._signatures_distrusted:
            self._signatures_distrusted = True
            self.announce("signatures_distrusted")

    # --- tokens ---

    async def _token(
        self,
        worker: ConnectedWorker,
        tokens: Acquirer,
        wanted: RequestedToken,
        *,
        skip_cache: bool,
        claims: str | None,
        trace: dict[str, str],
    ) -> Fields:
        announced_before = self._tokens.announced
        with tracing.continued(trace):
            if wanted.subject_token is None:
                token = await tokens.acquire(
                    wanted.target,
                    skip_cache=skip_cache,
                    claims=claims,
                    resources=wanted.resources,
                    authorization_details=wanted.authorization_details,
                )
            else:
                token = await tokens.exchange(
                    wanted.target, wanted.subject_token, skip_cache=skip_cache, claims=claims
                )
        answered_at = self._clocks.monotonic()
        if skip_cache or claims is not None:
            await self._until_taken(worker)
        elif worker.channel is not None:
            known = self._tokens.known(wanted.key(self._settings_of[wanted.provider]), announced_before)
            if known is not None:  # it was in the cache here, and this worker does not have it
                worker.channel.send("token", **known)
        return {
            "token": token.access_token,
            "expires_in": token.expires_in,
            "cached": token.cached,
            "at": answered_at,
        }

    async def _until_taken(self, asking: ConnectedWorker) -> None:
        """Return when every worker has applied all tokens announced so far. The worker that asked reads the
        announcement before the answer."""
        others = [worker for worker in self.workers if worker is not asking]
        taken = await asyncio.gather(
            *(self._answer(worker, "sync", SYNC_TIMEOUT, LONGEST_SILENCE) for worker in others)
        )
        hanging = [worker for worker, answer in zip(others, taken, strict=True) if answer is None]
        await asyncio.gather(*(worker.end("hung") for worker in hanging))

    def _renew(self, worker: ConnectedWorker, wanted: RequestedToken) -> None:
        assert worker.channel is not None  # noqa: S101 - it has asked through it
        # The same renewal is due in each worker; the first request causes it.
        key = wanted.key(self._settings_of[wanted.provider])
        now = self._clocks.monotonic()
        cached = self._cache.get(key, monotonic=now, now=self._clocks.wall())
        if cached is None or cached.renewal_due:
            self._providers.tokens[wanted.provider].renew(
                wanted.target,
                wanted.subject_token,
                resources=wanted.resources,
                authorization_details=wanted.authorization_details,
            )
        else:
            worker.channel.send("renewal_failed", key=key.hex(), monotonic=now, retry_in=NOT_DUE_PAUSE)

    # --- what changes at the providers ---

    def provider_found(self, provider: str, issuer: str, _: KeySource) -> None:
        """See `ProviderChanges.provider_found`."""
        self._announced[provider].issuer = issuer
        self.announce("provider", provider=provider, issuer=issuer)

    def keys_changed(self, provider: str, _: KeySet | None) -> None:
        """See `ProviderChanges.keys_changed`."""
        self._announced[provider].version += 1
        self.announce("keys", **self._key_set(provider))

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        """See `ProviderChanges.cool_downs_changed`."""
        # JSON has no infinity: what is not named has no cool-down.
        cool_downs = {cause.value: end for cause, end in until.items() if math.isfinite(end)}
        self._announced[provider].cool_downs = cool_downs
        self.announce("cool_downs", provider=provider, until=cool_downs)

    def _key_set(self, provider: str) -> Fields:
        client, version = self._providers.clients[provider], self._announced[provider].version
        if client.keys is None or client.keys.text is None:
            jwks, reason = None, client.no_keys_reason()
        else:
            jwks, reason = client.keys.text.decode("utf-8"), None
        return {"provider": provider, "text": jwks, "reason": reason, "version": version}

    async def _keys_for(
        self, client: ProviderClient, announced: _Announced, cause: Cause, kid: str | None, seen: int
    ) -> Fields:
        """`seen`: the version of the key set that the worker verified with."""
        if cause is Cause.FAILED_SIGNATURE and seen != announced.version:
            again = True  # another worker's question has brought a new key set in the meantime
        else:
            again = False if client.keys is None else await client.keys.refresh_for(cause, kid)
        return {"again": again, "reason": client.no_keys_reason()}

    # --- the whole sidecar ---

    def readiness_now(self) -> Readiness:
        """Like `readiness`."""
        if self.draining:
            return SHUTTING_DOWN
        readiness = self._providers.readiness_now()
        if not any(worker.serving for worker in self.workers):
            reason = readiness.reason or "no worker is serving"
            return Readiness(ready=False, reason=reason, providers=readiness.providers)
        return readiness

    async def readiness(self) -> Readiness:
        """See `Observed.readiness`."""
        return self.readiness_now()

    def has_started(self) -> bool:
        """See `Observed.has_started`."""
        return self._start_up.is_over(has_keys=self._providers.have_keys)

    async def exposition(self) -> bytes:
        """See `Observed.exposition`."""
        return await self.metrics.exposition(await self._figures())

    async def merged(self) -> list[Merged]:
        """The metrics of the whole sidecar."""
        return self.metrics.merged(await self._figures())

    async def _figures(self) -> list[Figures]:
        """Those of all workers, including workers that were replaced."""
        await asyncio.gather(
            *(self._ask_for_figures(worker, SCRAPE_TIMEOUT, SCRAPE_TIMEOUT) for worker in self.workers)
        )
        return [*self._past.values(), *(worker.figures for worker in self.workers)]

    async def _metrics(self) -> Fields:
        return {"text": (await self.exposition()).decode("utf-8")}

    def _requests_by_worker(self) -> dict[tuple[str, ...], float]:
        name = self.metrics.requests.name
        totals: dict[tuple[str, ...], float] = {}
        every = [*self._past.items(), *((worker.number, worker.figures) for worker in self.workers)]
        for number, figures in every:
            answered = sum(numbers[0] for _, numbers in figures.get(name, ()))
            totals[(str(number),)] = totals.get((str(number),), 0) + answered
        return totals

    # --- hung workers ---

    async def _check_workers(self) -> None:
        checks: dict[ConnectedWorker, asyncio.Task[None]] = {}
        while True:
            checks = {worker: task for worker, task in checks.items() if not task.done()}
            for worker in self.workers:
                if worker not in checks:
                    checks[worker] = _background.start(self._end_if_hung(worker), "check of a worker")
            await asyncio.sleep(CHECK_INTERVAL)

    async def _end_if_hung(self, worker: ConnectedWorker) -> None:
        answered = await self._ask_for_figures(worker, HANG_TIMEOUT, LONGEST_SILENCE)
        if not answered and worker in self.workers:
            await worker.end("hung")

    async def _ask_for_figures(self, worker: ConnectedWorker, idle: float, silent: float) -> bool:
        answer = await self._answer(worker, "figures", idle, silent)
        if answer is None or not isinstance(answer.get("figures"), dict):
            return False
        worker.figures = answer["figures"]
        for provider, examples in answer.get("examples", {}).items():
            self._examples.setdefault(provider, {}).update(examples)
        return True

    def _introspections(self) -> dict[str, Introspections]:
        """Those that all workers have answered, the last second left out."""
        every = [*self._past.values(), *(worker.figures for worker in self.workers)]
        examples, self._examples = self._examples, {}
        return Introspections.of(self.metrics, every, examples)

    async def _answer(self, worker: ConnectedWorker, name: str, idle: float, silent: float) -> Fields | None:
        """The answer of a worker; None if the worker is gone, has done nothing for `idle` seconds, or has not
        answered for `silent` seconds. An overloaded worker answers late, but works all the time."""
        if worker.channel is None:
            return None
        answer = worker.channel.call(name)
        progress, idle_ticks = worker.progress(), 0
        for _ in range(math.ceil(silent / TICK)):
            done, _ = await asyncio.wait((answer,), timeout=TICK)
            before, progress = progress, worker.progress()
            idle_ticks = idle_ticks + 1 if progress == before else 0
            if done or idle_ticks >= idle / TICK:
                break
        if not answer.done():
            answer.cancel()
            return None
        try:
            return answer.result()
        except ChannelLost:
            return None


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms under which a token was cached, which the native cache does not return. `number` is the
    number of its announcement."""

    number: int
    expires_in: float
    monotonic: float
    renew_in: float | None
    subject_expires_at: float | None

    def has_ended(self, now: float) -> bool:
        return self.monotonic + self.expires_in <= now


class AnnouncedTokens:
    """The token cache of the provider process: a `TokenCache` whose changes are announced.

    Args:
        cache: where the tokens are.
        limit: maximum number of tokens whose terms are remembered. The oldest are forgotten; a worker without
            such a token then gets it without terms, and does not cache it.
        clocks: where time comes from.
        token: announces a new token.
        renewal_failed: announces that a renewal failed.
    """

    def __init__(
        self,
        cache: _native.TokenCache,
        limit: int,
        clocks: Clocks,
        token: Callable[[Fields], None],
        renewal_failed: Callable[[Fields], None],
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._clocks = clocks
        self._announce_token = token
        self._announce_failure = renewal_failed
        self._terms: OrderedDict[bytes, _Terms] = OrderedDict()
        self.announced = 0
        self.get = cache.get
        self.get_stale = cache.get_stale

    def put(
        self,
        key: bytes,
        access_token: str,
        expires_in: float,
        *,
        monotonic: float,
        renew_in: float | None = None,
        subject_expires_at: float | None = None,
    ) -> None:
        self._cache.put(
            key,
            access_token,
            expires_in,
            monotonic=monotonic,
            renew_in=renew_in,
            subject_expires_at=subject_expires_at,
        )
        self.announced += 1
        # Most users' tokens are never requested again: do not keep their terms until the limit is reached.
        self._forget_ended(monotonic)
        terms = _Terms(self.announced, expires_in, monotonic, renew_in, subject_expires_at)
        self._terms[key] = terms
        self._terms.move_to_end(key)
        if len(self._terms) > self._limit:
            self._terms.popitem(last=False)
        self._announce_token(_announcement(key, access_token, terms))

    def renewal_failed(self, key: bytes, *, monotonic: float, retry_in: float) -> None:
        self._cache.renewal_failed(key, monotonic=monotonic, retry_in=retry_in)
        self._announce_failure({"key": key.hex(), "monotonic": monotonic, "retry_in": retry_in})

    def sweep_part(self) -> None:
        """Remove expired tokens from a part of the cache."""
        now, wall = self._clocks.monotonic(), self._clocks.wall()
        self._cache.sweep(monotonic=now, now=wall, parts=LOOP_PARTS)

    def sweep(self) -> None:
        """Forget the terms of expired tokens."""
        self._forget_ended(self._clocks.monotonic())

    def _forget_ended(self, now: float) -> None:
        # The terms are nearly in the order of their ends.
        while self._terms and next(iter(self._terms.values())).has_ended(now):
            self._terms.popitem(last=False)

    def known(self, key: bytes, since: int) -> Fields | None:
        """The announcement of the key's current token; None if there is none, or if it was announced after
        `since`."""
        terms = self._terms.get(key)
        if terms is None or terms.number > since:
            return None
        monotonic, now = self._clocks.monotonic(), self._clocks.wall()
        cached = self._cache.get_stale(key, monotonic=monotonic, now=now)
        if cached is None:
            del self._terms[key]
            return None
        return _announcement(key, cached.access_token, terms)


def _announcement(key: bytes, access_token: str, terms: _Terms) -> Fields:
    # Times of the monotonic clock mean the same in all processes of a machine.
    return {
        "key": key.hex(),
        "token": access_token,
        "expires_in": terms.expires_in,
        "monotonic": terms.monotonic,
        "renew_in": terms.renew_in,
        "subject_expires_at": terms.subject_expires_at,
    }
