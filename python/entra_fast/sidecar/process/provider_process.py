"""The hub: the one process of several that speaks to the provider and knows the whole.

What belongs here: what workers ask for and are told (tokens, keys, readiness, metrics), and the promise that
they behave as one. What must never be here: processes, sockets and signals (supervisor.py), and what a worker
does with what it is told (worker.py).

The hub fetches: one request per token and per key set, however many workers. What it gets it announces to all
of them, so that each answers from its own caches. A worker is a member from its `hello` on: it knows nothing
then, is told everything from then on, and serves only after that.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from entra_fast import _native
from entra_fast._metrics import Figures
from entra_fast._native import KeySet
from entra_fast._provider.endpoints import Endpoints
from entra_fast._provider.jwks import AsyncKeys
from entra_fast._provider.oauth import scope_for
from entra_fast._provider.tokens import TokenCache, token_key
from entra_fast._settings.load import Settings
from entra_fast.sidecar.http.fast_path import Lane
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields, frame
from entra_fast.sidecar.service import Clocks, Service

TICK = 0.05
"""Seconds. Patience with a worker is counted in ticks of the hub's own life: when the whole machine stood
still, the worker did too, and is not to blame."""
PATIENCE = 1.0
"""Seconds within which a worker must say that it has taken a replaced token; else it is taken to hang."""
HANGS_AFTER = 5.0
"""Seconds within which a worker must answer when it is asked how it is."""
ASKED_EVERY = 1.0
"""Seconds between such questions. What a worker has counted since the last answer is lost when it crashes."""
SCRAPE_PATIENCE = 0.5
"""Seconds for a worker's figures when metrics are read; then its last ones stand."""
NOT_DUE_PAUSE = 20.0
"""Seconds after which a worker asks again for a renewal that was not due."""


@dataclass(slots=True, eq=False)
class Member:
    """A worker, as the hub knows it.

    Attributes:
        number: of its place, from 0; its replacement has the same.
        end: ends the process for a reason, and returns when it is gone.
        greeted: whether it has said hello. serving: whether it accepts connections.
        finished: whether every request was answered when it drained, once it has said so.
        figures: its metrics when it was asked last.
    """

    number: int
    end: Callable[[str], Awaitable[None]]
    channel: Channel | None = None
    greeted: bool = False
    serving: bool = False
    finished: bool | None = None
    figures: Figures = field(default_factory=dict)


class HubService(Service):
    """The half of a `Service` that speaks to the provider, for all workers."""

    def __init__(self, settings: Settings, *, clocks: Clocks | None = None) -> None:
        self.members: list[Member] = []
        self.keys: AsyncKeys | None = None
        self._cool_down = -math.inf
        self._past: dict[int, Figures] = {}  # of workers that were replaced, by number
        self._tokens: AnnouncedTokens | None = None
        self._asking: asyncio.Task[None] | None = None
        super().__init__(settings, clocks=clocks)
        self.metrics.workers.read = lambda: sum(member.serving for member in self.members)
        self.metrics.worker_requests.include(self._requests_by_worker)
        self.metrics.token_cache.watch(dict)  # requests are answered from the workers' caches

    async def start(self) -> None:
        await super().start()
        self._asking = asyncio.get_running_loop().create_task(self._ask_how_they_are())

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self.keys is not None:
            await self.keys.aclose()
        await super().aclose()

    # --- members ---

    def left(self, member: Member) -> None:
        """A worker is gone; what it has counted stays."""
        if member in self.members:
            self.members.remove(member)
        earlier = self._past.get(member.number, {})
        self._past[member.number] = self.metrics.accumulated(earlier, member.figures)

    def handle(self, member: Member, name: str, fields: Fields) -> Fields | Awaitable[Fields] | None:
        """A message of a worker. Fields of a wrong type end the worker: it is not what it was started as."""
        match name:
            case "token":
                return self._token(member, *_wanted(fields), skip_cache=_flag(fields, "skip_cache"))
            case "renew":
                self._renew(member, *_wanted(fields))
            case "keys":
                return self._keys_for(_optional_text(fields, "kid"))
            case "readiness":
                return {"reason": self.not_ready_reason()}
            case "metrics":
                return self._metrics()
            case "hello":
                self._greet(member)
            case "serving":
                member.serving = True
            case "drained":
                member.finished = _flag(fields, "finished")
            case _:
                raise ValueError("no such message")
        return None

    def announce(self, name: str, **fields: object) -> None:
        """Tell all members."""
        if self.members:
            data = frame(name, fields)
            for member in self.members:
                assert member.channel is not None  # noqa: S101 - it has said hello through it
                member.channel.send_frame(data)

    def _greet(self, member: Member) -> None:
        if member.channel is None or member.greeted:
            raise ValueError("hello is said once")
        member.greeted = True
        self.members.append(member)
        if self._finder is not None and self._finder.endpoints is not None:
            member.channel.send("provider", **_endpoints(self._finder.endpoints))
        member.channel.send("keys", **self._key_set())
        member.channel.send("cool_down", until=self._cool_down)
        member.channel.send("go")

    # --- tokens ---

    def _token_cache(self) -> TokenCache:
        self._tokens = AnnouncedTokens(
            self.cache,
            self.settings.caches.max_entries,
            self._clocks,
            lambda fields: self.announce("grant", **fields),
            lambda fields: self.announce("renewal_failed", **fields),
        )
        return self._tokens

    async def _token(
        self, member: Member, target: str, subject_token: str | None, *, skip_cache: bool
    ) -> Fields:
        acquirer, provider, tokens = self.acquirer, self.settings.provider, self._tokens
        if acquirer is None or provider is None or tokens is None:
            raise ValueError("no provider is enabled")
        asked_at = tokens.announced
        if subject_token is None:
            token = await acquirer.acquire(target, skip_cache=skip_cache)
        else:
            token = await acquirer.exchange(target, subject_token, skip_cache=skip_cache)
        answered_at = self._clocks.monotonic()
        if skip_cache:
            await self._until_taken(member)
        elif member.channel is not None:
            known = tokens.known(token_key(provider, scope_for(target), subject_token), asked_at)
            if known is not None:  # the hub had it already, and this worker does not
                member.channel.send("grant", **known)
        return {"token": token.access_token, "expires_in": token.expires_in, "at": answered_at}

    async def _until_taken(self, but: Member) -> None:
        """Return when no worker has an older token than those announced so far. The one that asked reads the
        announcement before the answer."""
        others = [member for member in self.members if member is not but]
        taken = await asyncio.gather(*(self._answers(member, "sync", PATIENCE) for member in others))
        hanging = [member for member, answer in zip(others, taken, strict=True) if answer is None]
        await asyncio.gather(*(member.end("hung") for member in hanging))

    def _renew(self, member: Member, target: str, subject_token: str | None) -> None:
        provider, tokens = self.settings.provider, self._tokens
        if self.acquirer is None or provider is None or tokens is None or member.channel is None:
            return
        # Each worker finds the same renewal due; whoever comes first causes it.
        key = token_key(provider, scope_for(target), subject_token)
        now = self._clocks.monotonic()
        grant = self.cache.get(key, monotonic=now, now=self._clocks.wall())
        if grant is None or grant.renewal_due:
            self.acquirer.renew(target, subject_token)
        else:
            member.channel.send("renewal_failed", key=key.hex(), monotonic=now, retry_in=NOT_DUE_PAUSE)

    # --- keys ---

    async def _begin_validation(self, endpoints: Endpoints) -> None:
        if self._key_http is None:
            return
        self.announce("provider", **_endpoints(endpoints))
        self.keys = keys = AsyncKeys(endpoints.jwks_uri, self._key_http, self._announce_keys)
        self.metrics.watch_keys(keys.stats, lambda: keys.outcomes)
        self.keys.watch_cool_down(self._announce_cool_down)
        self.keys.start()

    def _announce_keys(self, _: KeySet | None) -> None:
        self.announce("keys", **self._key_set())

    def _announce_cool_down(self, until: float) -> None:
        self._cool_down = until
        self.announce("cool_down", until=until)

    def _key_set(self) -> Fields:
        text = None if self.keys is None or self.keys.text is None else self.keys.text.decode("utf-8")
        return {"text": text, "reason": self._keys_problem()}

    async def _keys_for(self, kid: str | None) -> Fields:
        if self.keys is None:
            return {"again": False, "reason": None if self._finder is None else self._finder.problem}
        again = await self.keys.refresh_for_unknown(kid)
        return {"again": again, "reason": self._keys_problem()}

    def _keys_problem(self) -> str | None:
        if self.keys is None:
            return "validation has not started yet"
        return self.keys.unavailable().message if self.keys.keys is None else None

    # --- the whole ---

    def _make_lane(self) -> Lane | None:
        return None  # no request for tokens comes here

    def not_ready_reason(self) -> str | None:
        reason = super().not_ready_reason()
        if reason is None and not any(member.serving for member in self.members):
            return "no worker is serving"
        return reason

    async def exposition(self) -> bytes:
        await asyncio.gather(*(self._ask(member, SCRAPE_PATIENCE) for member in self.members))
        workers = [member.figures for member in self.members]
        return self.metrics.render([*self._past.values(), *workers])

    async def _metrics(self) -> Fields:
        return {"text": (await self.exposition()).decode("utf-8")}

    def _requests_by_worker(self) -> dict[tuple[str, ...], float]:
        name = self.metrics.requests.name
        totals: dict[tuple[str, ...], float] = {}
        everybody = [*self._past.items(), *((member.number, member.figures) for member in self.members)]
        for number, figures in everybody:
            answered = sum(numbers[0] for _, numbers in figures.get(name, ()))
            totals[(str(number),)] = totals.get((str(number),), 0) + answered
        return totals

    # --- are they alive? ---

    async def _ask_how_they_are(self) -> None:
        asked: dict[Member, asyncio.Task[None]] = {}
        while True:
            asked = {member: task for member, task in asked.items() if not task.done()}
            for member in self.members:
                if member not in asked:
                    asked[member] = asyncio.get_running_loop().create_task(self._end_if_hanging(member))
            await asyncio.sleep(ASKED_EVERY)

    async def _end_if_hanging(self, member: Member) -> None:
        if not await self._ask(member, HANGS_AFTER) and member in self.members:
            await member.end("hung")

    async def _ask(self, member: Member, patience: float) -> bool:
        answer = await self._answers(member, "figures", patience)
        if answer is None or not isinstance(answer.get("figures"), dict):
            return False
        member.figures = answer["figures"]
        return True

    async def _answers(self, member: Member, name: str, patience: float) -> Fields | None:
        """The answer of a worker, or None when it takes too long or the worker is gone."""
        if member.channel is None:
            return None
        answer = member.channel.call(name)
        for _ in range(math.ceil(patience / TICK)):
            done, _ = await asyncio.wait((answer,), timeout=TICK)
            if done:
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
    """What a token was kept with, which the native cache does not tell; `number`: of its announcement."""

    number: int
    expires_in: float
    monotonic: float
    renew_in: float | None
    subject_expires_at: float | None

    def has_ended(self, now: float) -> bool:
        return self.monotonic + self.expires_in <= now


class AnnouncedTokens:
    """The hub's cache of tokens: a `TokenCache` whose changes are announced.

    Args:
        cache: where the tokens are.
        limit: most tokens whose terms are remembered; the oldest are forgotten, and then a worker that does
            not have such a token is not given it to keep.
        grant, renewal_failed: announce.
    """

    def __init__(
        self,
        cache: _native.TokenCache,
        limit: int,
        clocks: Clocks,
        grant: Callable[[Fields], None],
        renewal_failed: Callable[[Fields], None],
    ) -> None:
        self._cache = cache
        self._limit = limit
        self._clocks = clocks
        self._announce_grant = grant
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
        # Most users' tokens are never asked for again: their terms must not stay until there are too many.
        while self._terms and next(iter(self._terms.values())).has_ended(monotonic):
            self._terms.popitem(last=False)
        terms = _Terms(self.announced, expires_in, monotonic, renew_in, subject_expires_at)
        self._terms[key] = terms
        self._terms.move_to_end(key)
        if len(self._terms) > self._limit:
            self._terms.popitem(last=False)
        self._announce_grant(_grant(key, access_token, terms))

    def renewal_failed(self, key: bytes, *, monotonic: float, retry_in: float) -> None:
        self._cache.renewal_failed(key, monotonic=monotonic, retry_in=retry_in)
        self._announce_failure({"key": key.hex(), "monotonic": monotonic, "retry_in": retry_in})

    def known(self, key: bytes, since: int) -> Fields | None:
        """The announcement of the token that the key has now; None where there is none, or where it has been
        announced after `since`."""
        terms = self._terms.get(key)
        if terms is None or terms.number > since:
            return None
        monotonic, now = self._clocks.monotonic(), self._clocks.wall()
        grant = self._cache.get_stale(key, monotonic=monotonic, now=now)
        if grant is None:
            del self._terms[key]
            return None
        return _grant(key, grant.access_token, terms)


def _grant(key: bytes, access_token: str, terms: _Terms) -> Fields:
    # Times of the monotonic clock mean the same in all processes of a machine.
    return {
        "key": key.hex(),
        "token": access_token,
        "expires_in": terms.expires_in,
        "monotonic": terms.monotonic,
        "renew_in": terms.renew_in,
        "subject_expires_at": terms.subject_expires_at,
    }


def _endpoints(endpoints: Endpoints) -> Fields:
    return {"issuer": endpoints.issuer, "jwks_uri": endpoints.jwks_uri}


def _wanted(fields: Mapping[str, object]) -> tuple[str, str | None]:
    target = fields["target"]
    if not isinstance(target, str):
        raise TypeError("target must be a string")
    return target, _optional_text(fields, "subject_token")


def _optional_text(fields: Mapping[str, object], name: str) -> str | None:
    value = fields[name]
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or null")
    return value


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a boolean")
    return value
