"""The cache that replicas share, in Redis or Valkey.

What belongs here: requests to that server. What must never be here: the content of entries
(redis_entries.py), and when a token is fetched or renewed (replication.py, renewal.py).

The server is not trusted. Tokens are encrypted with a key that it never sees; the names of its entries are
keyed digests, so that it cannot confirm a guess about which tokens exist; each entry is bound to its
name, so that entries cannot be swapped; an entry that is wrong in any way is a miss. The server is optional
at run time: a call waits for it no longer than a short timeout, nothing here raises, and after several
failures in a row it gets no requests for a while.

Needs the `[redis]` extra: nothing imports this module where no server is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.exceptions
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from entra_fast import _background, _clock
from entra_fast._metrics import SHARED_FAILURES, Metrics
from entra_fast._provider.http_rules import trusting_context
from entra_fast._provider.redis_entries import (
    CHANNEL,
    MAX_ENTRY_BYTES,
    EntryCipher,
    EntryRejected,
    pack,
    unpack,
)
from entra_fast._provider.replication import Replication
from entra_fast._provider.tokens import FetchedToken, Leader, Lookup
from entra_fast._settings.model import SharedCacheSettings

MIN_LEFT = 1.0
"""Seconds; a token that expires sooner is not written."""

MAX_CONNECTIONS = 16
"""Maximum number of connections from one process; one more listens."""
MAX_CALLS = 1024
"""Maximum number of calls in progress or waiting for a connection; a further one is a miss."""

FAILURES_IN_A_ROW = 5
PAUSE = (1.0, 30.0)
"""Seconds for which a failing server gets no requests: at first, and at most."""
LISTENER_PAUSE = (1.0, 30.0)
"""Seconds until a listener whose connection failed reconnects: at first, and at most."""
HEARTBEAT = 30.0
"""Seconds of silence after which a listener checks that its connection still works."""

LEASE = 1.0
"""Seconds after which the lead in fetching a token expires, unless its holder extends it."""
FAILURE_MEMORY = 1.0
"""Seconds for which replicas are told that the leader has failed, so that none waits for another one."""
FAILED = b"failed"

# Redis runs a script as one step, so a lead is only ever ended or extended by its holder.
_IF_OURS = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call("
_END = _IF_OURS + "'DEL', KEYS[1]) end"
_EXTEND = _IF_OURS + "'PEXPIRE', KEYS[1], ARGV[2]) end"
_FAIL = _IF_OURS + "'SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end"

logger = logging.getLogger("entra_fast._provider.redis_cache")
T = TypeVar("T")


@dataclass(slots=True, repr=False)
class _Lead:
    """The lead of this replica in fetching a token: an entry with a value that only this replica knows."""

    name: bytes
    secret: bytes
    extending: asyncio.Task[None] | None = None


class Breaker:
    """A circuit breaker: after several failures in a row the server gets no requests, for a longer time after
    each failed probe, until a probe succeeds."""

    def __init__(self, monotonic: Callable[[], float], uniform: Callable[[float, float], float]) -> None:
        self._monotonic = monotonic
        self._uniform = uniform
        self._failures = 0
        self._pause = PAUSE[0]
        self._paused_until: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether the server may be asked."""
        return self._paused_until is None

    def succeeded(self) -> None:
        self._failures = 0
        if self.closed:
            self._pause = PAUSE[0]

    def failed(self) -> bool:
        """True when this failure opens the breaker."""
        self._failures += 1
        if not self.closed or self._failures < FAILURES_IN_A_ROW:
            return False
        self._open()
        return True

    def begin_probe(self) -> bool:
        """True for the caller that is to find out whether the server has recovered."""
        if self._paused_until is None or self._probing or self._monotonic() < self._paused_until:
            return False
        self._probing = True
        return True

    def end_probe(self, *, recovered: bool) -> None:
        self._probing = False
        self._failures = 0
        if recovered:
            self._paused_until = None
        else:
            self._open()

    def _open(self) -> None:
        # With jitter, so that replicas do not return at the same moment.
        self._paused_until = self._monotonic() + self._pause * self._uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, PAUSE[1])


class SharedCache:
    """The tokens of all replicas. Belongs to one event loop; `start` before use, `aclose` after.

    No method raises because of the server. A call waits at most for the configured timeout. One that takes
    longer is a miss, and continues in the background with a limit of its own: a connection that is slow to
    open is then ready for the next call, instead of being closed and opened again.

    Args:
        ca_bundle: PEM file with certificate authorities to trust in addition to the system's.
        clock: seconds since the epoch. monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        settings: SharedCacheSettings,
        *,
        ca_bundle: str | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _clock.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._cipher = EntryCipher(settings.encryption_key())
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._uniform = uniform
        self._timeout = settings.timeout
        self._deadline = settings.connect_timeout + settings.timeout
        self._breaker = Breaker(monotonic, uniform)
        self._pool = _pool(settings, ca_bundle, self._deadline)
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._calls: set[asyncio.Task[Any]] = set()
        self._writes: dict[bytes, asyncio.Task[None]] = {}
        self._leads: dict[bytes, _Lead] = {}
        self._ends: set[asyncio.Task[Any]] = set()
        self._listening: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._sender = os.urandom(16)
        self.members: list[Replication] = []  # see `replication.Replicas`

    @property
    def available(self) -> bool:
        """False while the server gets no requests."""
        return self._breaker.closed

    def start(self) -> None:
        """Begin to listen to other replicas. Does not fail when the server is down."""
        self._listening = _background.start(self._listen(), "announcements of replicas")

    async def aclose(self) -> None:
        """Give the last writes a moment, then close everything."""
        if last := {*self._writes.values(), *self._ends}:
            await asyncio.wait(last, timeout=self._timeout)
        extending = (lead.extending for lead in self._leads.values())
        tasks = (self._listening, self._probing, *last, *self._calls, *extending)
        await _background.cancel(*tasks)
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            await self._pool.disconnect()

    # --- operations ---

    async def get(self, digest: bytes) -> Lookup:
        """See `Replicas.get`."""

        async def command() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                self._add_read(pipe, digest)
                return await pipe.execute(raise_on_error=False)

        outcome, answer = await self._ask("get", command)
        token = None
        if answer is not None:
            try:
                outcome, token = self._read(digest, answer)
            except EntryRejected as exc:
                self._metrics.shared_rejected.add(exc.reason)
                outcome = "rejected"
        self._metrics.shared.add("get", outcome)
        return Lookup(token, answer is not None and outcome != "refused")

    def put(self, digest: bytes, token: FetchedToken, *, announce: bool) -> None:
        """Store a token for the other replicas, in the background. See `Replicas.put`.

        Args:
            announce: tell replicas that have the previous token, because it was to be replaced.
        """
        if len(self._writes) >= MAX_CALLS:
            self._metrics.shared.add("put", "busy")
            self.end_lead(digest, failed=True)
            return
        work = self._write(digest, token, announce, self._take_lead(digest), self._writes.get(digest))
        task = _background.start(work, "write to the shared cache")
        self._writes[digest] = task

        def done(task: asyncio.Task[None]) -> None:
            if self._writes.get(digest) is task:
                del self._writes[digest]

        task.add_done_callback(done)

    def is_writing(self, digest: bytes) -> bool:
        """Whether a token of this replica is being written."""
        return digest in self._writes

    async def lead(self, digest: bytes, seconds: float) -> bool:
        """See `Replicas.lead`: False when another replica has said, less than `seconds` ago, that it renews
        it. Best effort: where the server cannot be asked, every replica renews."""
        name = self._cipher.name(b"renewal", digest)

        async def command() -> Any:
            return await self._redis.set(name, b"1", nx=True, px=max(1, int(seconds * 1000)))

        outcome, answer = await self._ask("lead", command)
        taken = outcome == "ok" and answer is None
        self._metrics.shared.add("lead", "taken" if taken else outcome)
        return not taken

    async def lead_fetch(self, digest: bytes) -> tuple[Leader, FetchedToken | None]:
        """See `Replicas.lead_fetch`. The lead expires soon, so that a leader that dies stops no one; while it
        lives, it extends its lead."""
        lead = _Lead(self._cipher.name(b"fetch", digest), os.urandom(16).hex().encode("ascii"))

        async def command() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                # In this order: a leader stores the token before it ends its lead, so if there is no leader
                # any more, its token is seen.
                pipe.set(lead.name, lead.secret, nx=True, px=int(LEASE * 1000))
                pipe.getrange(lead.name, 0, len(FAILED))
                self._add_read(pipe, digest)
                return await pipe.execute(raise_on_error=False)

        outcome, answer = await self._ask("lock", command)
        leader, token = Leader.NONE, None
        if answer is not None and len(answer) == 4:
            taken, value = answer[:2]
            with contextlib.suppress(EntryRejected):  # `get` has counted it
                outcome, token = self._read(digest, answer[2:])
            if taken is True:
                leader = Leader.THIS
                self._begin_lead(digest, lead)
            elif taken is None and value != FAILED:
                leader = Leader.ANOTHER
            if _is_refusal(taken):
                outcome = "refused"
            elif token is None and leader is not Leader.NONE:
                outcome = "ok" if leader is Leader.THIS else "taken"
        self._metrics.shared.add("lock", outcome)
        return leader, token

    def end_lead(self, digest: bytes, *, failed: bool) -> None:
        """See `Replicas.end_lead`. In the background."""
        lead = self._take_lead(digest)
        if lead is not None:
            script, arguments = (_FAIL, (FAILED, int(FAILURE_MEMORY * 1000))) if failed else (_END, ())
            task = _background.start(self._call(lambda: self._run(lead, script, *arguments)), "end of a lead")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    def _begin_lead(self, digest: bytes, lead: _Lead) -> None:
        lead.extending = _background.start(self._extend(lead), "extension of a lead")
        self._leads[digest] = lead

    def _take_lead(self, digest: bytes) -> _Lead | None:
        lead = self._leads.pop(digest, None)
        if lead is not None and lead.extending is not None:
            lead.extending.cancel()
        return lead

    async def _extend(self, lead: _Lead) -> None:
        while True:
            await self._sleep(LEASE / 3)
            await self._call(lambda: self._run(lead, _EXTEND, int(LEASE * 1000)))

    async def _run(self, lead: _Lead, script: str, *arguments: bytes | int) -> Any:
        return await self._redis.eval(script, 1, lead.name, lead.secret, *arguments)

    # --- entries ---

    def _add_read(self, pipe: Pipeline, digest: bytes) -> None:
        """Ask for what `_read` takes."""
        name = self._cipher.name(b"token", digest)
        # A range, so that a value of any size costs no more than the largest entry that is written.
        pipe.getrange(name, 0, MAX_ENTRY_BYTES)
        pipe.pttl(name)

    def _read(self, digest: bytes, answer: list[Any]) -> tuple[str, FetchedToken | None]:
        """(outcome, token) of the answers to GETRANGE and PTTL.

        Raises:
            EntryRejected: the entry is not what a replica has written there.
        """
        if any(_is_refusal(each) for each in answer):
            return "refused", None
        entry, left_millis = answer if len(answer) == 2 else (None, None)
        if entry == b"" or left_millis == -2:
            return "miss", None
        if not isinstance(entry, bytes) or not isinstance(left_millis, int):
            raise EntryRejected("type")
        content = self._cipher.open(digest, entry)
        token = unpack(content, now=self._clock(), monotonic=self._monotonic(), left_millis=left_millis)
        return ("miss" if token is None else "hit"), token

    async def _write(
        self,
        digest: bytes,
        token: FetchedToken,
        announce: bool,
        lead: _Lead | None,
        earlier: asyncio.Task[None] | None,
    ) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})  # the later one must win

        async def command() -> None:
            now, monotonic = self._clock(), self._monotonic()
            left = min(token.end - monotonic, (token.subject_expires_at or math.inf) - now)
            if left < MIN_LEFT:
                return
            millis = int(left * 1000)
            async with self._redis.pipeline(transaction=False) as pipe:
                content = pack(token, now=now, monotonic=monotonic, expiry_millis=millis)
                entry = self._cipher.seal(digest, content)
                pipe.set(self._cipher.name(b"token", digest), entry, px=millis)
                if announce:
                    pipe.publish(CHANNEL, self._cipher.seal_announcement(self._sender, digest))
                needed = 2 if announce else 1
                if lead is not None:
                    # Whether it ends now is not important: it expires soon.
                    pipe.eval(_END, 1, lead.name, lead.secret)
                for answer in (await pipe.execute(raise_on_error=False))[:needed]:
                    if isinstance(answer, Exception):
                        raise answer

        outcome, _ = await self._ask("put", command, patience=self._deadline)
        self._metrics.shared.add("put", outcome)

    # --- asking the server ---

    async def _ask(
        self, operation: str, command: Callable[[], Awaitable[T]], *, patience: float | None = None
    ) -> tuple[str, T | None]:
        """(outcome, answer); the answer is None unless the outcome is `ok`. Never raises."""
        if not self._breaker.closed:
            if self._breaker.begin_probe():
                self._probing = _background.start(self._probe(), "probe of the shared cache")
            return "paused", None
        if len(self._calls) >= MAX_CALLS:
            return "busy", None
        started = self._monotonic()
        call = _background.start(self._call(command), "call to the shared cache")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        # The call continues if it is late, and if its caller is cancelled.
        await asyncio.wait({call}, timeout=self._timeout if patience is None else patience)
        late = not call.done() or call.cancelled()
        outcome, answer = ("timed_out", None) if late else call.result()
        took = self._monotonic() - started
        self._metrics.shared_seconds.observe(took, operation)
        if outcome not in SHARED_FAILURES:
            # A write may take longer, but a slow write does not prove that the server is fast enough.
            if took <= self._timeout:
                self._breaker.succeeded()
        elif self._breaker.failed():
            self._metrics.shared_interruptions.add()
            logger.warning("shared cache paused after failures", extra={"fields": {"because": outcome}})
        return outcome, answer

    async def _call(self, command: Callable[[], Awaitable[T]]) -> tuple[str, T | None]:
        try:
            async with asyncio.timeout(self._deadline), self._slots:
                return "ok", await command()
        except redis.exceptions.ReadOnlyError:
            # Since a failover the connections lead to a read-only replica: reconnect, to the new primary.
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                await self._pool.disconnect(inuse_connections=False)
            return "refused", None
        except Exception as exc:
            return _outcome_of(exc), None

    async def _probe(self) -> None:
        """Find out whether the server has recovered; no caller waits for it."""

        async def pings() -> None:
            await self._redis.ping()  # may have to connect
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()

        outcome = "timed_out"
        try:
            outcome, _ = await self._call(pings)
        finally:
            self._breaker.end_probe(recovered=outcome not in SHARED_FAILURES)
        self._metrics.shared.add("ping", outcome)
        if (
            self._breaker.closed
        ):  # pragma: no branch - CPython 3.11 traces nothing after a timeout in an await
            logger.info("shared cache recovered")

    # --- announcements ---

    async def _listen(self) -> None:
        pause = LISTENER_PAUSE[0]
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    async with asyncio.timeout(self._deadline):
                        await subscription.subscribe(CHANNEL)
                        await subscription.get_message(timeout=None)  # the confirmation
                    pause = LISTENER_PAUSE[0]
                    await self._receive(subscription)
            except Exception as exc:
                logger.debug("not listening to replicas", extra={"fields": {"because": _outcome_of(exc)}})
            await self._sleep(pause * self._uniform(0.8, 1.2))
            pause = min(2 * pause, LISTENER_PAUSE[1])

    async def _receive(self, subscription: Any) -> None:
        """Returns when the connection no longer answers; one that is closed raises an exception."""
        asked = False
        while True:
            message = await subscription.get_message(timeout=self._deadline if asked else HEARTBEAT)
            if message is None:  # pragma: no cover - CPython 3.11 traces nothing after a timeout in an await
                if asked:
                    return
                asked = True
                await subscription.ping()
                continue
            asked = False
            if message["type"] == "message":
                self._announced(message["data"])

    def _announced(self, data: object) -> None:
        try:
            if not isinstance(data, bytes):
                raise EntryRejected("type")
            sender, digest = self._cipher.open_announcement(data)
        except EntryRejected:
            self._metrics.shared_announcements.add("rejected")
            return
        if sender != self._sender and self.members:
            self.members[0].take_over_later(digest)


class _Login(CredentialProvider):
    """User name and password, read again for each connection: mounted passwords rotate."""

    def __init__(self, settings: SharedCacheSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        location = self._settings.location()
        password = location.password or ""
        return (location.username, password) if location.username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def _pool(settings: SharedCacheSettings, ca_bundle: str | None, deadline: float) -> ConnectionPool:
    location = settings.location()
    options: dict[str, Any] = {}
    kind: type[Connection] = Connection
    if location.tls:
        # Made once: reading the system's authorities takes milliseconds, and each connection would do it.
        context = trusting_context(ca_bundle)

        class TlsConnection(SSLConnection):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.ssl_context.context = context

        kind = TlsConnection
    if location.username or location.password:
        options["credential_provider"] = _Login(settings)
    return ConnectionPool(
        connection_class=kind,
        max_connections=MAX_CONNECTIONS + 1,
        host=location.host,
        port=location.port,
        db=location.database,
        protocol=2,  # needs no HELLO: one round trip less
        driver_info=None,
        socket_timeout=deadline,
        socket_connect_timeout=settings.connect_timeout,
        retry=Retry(NoBackoff(), 0),  # no caller waits for a second attempt
        **options,
    )


def _is_refusal(answer: object) -> bool:
    """Whether the server refused a command. That an entry has another type than ours is no refusal."""
    return isinstance(answer, redis.exceptions.ResponseError) and "WRONGTYPE" not in str(answer)


def _outcome_of(exc: Exception) -> str:
    """How the server failed. The text of the exception is never used: it may quote what was sent."""
    cause = exc.__cause__ or exc.__context__
    if isinstance(exc, TimeoutError | redis.exceptions.TimeoutError):
        return "timed_out"
    if isinstance(exc, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError):
        return "auth_failed"
    if isinstance(exc, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        return "tls_failed"
    if isinstance(exc, OSError | redis.exceptions.ConnectionError):
        return "connect_failed"
    if isinstance(exc, redis.exceptions.ResponseError):
        return "refused"
    return "malformed"
