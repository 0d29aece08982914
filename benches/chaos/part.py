"""One kind of pod under load, from its start to its end. What belongs here: the clients, the schedule, and
which faults each kind of pod meets. What must never be here: the judgement (truth.py)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.chaos import plan
from benches.chaos.faults import Making, ProcessFaults, RedisFaults, UpstreamFaults
from benches.chaos.pod import Pod, Sidecar
from benches.chaos.report import PartReport, Sample, slope
from benches.chaos.truth import TARGETS, Asked, KnownProvider, Truth
from support.keys import Key
from support.network import TcpProxy
from support.process import served
from support.provider import CLIENT_KEY
from support.redis_server import PROGRAMS, RedisServer
from support.wire import Answer, read_answer, request_bytes

SETTINGS = {
    "PROBE_BIND_ADDRESS": "127.0.0.1:0",
    "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS": "400",
    "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS": "400",
    "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS": "1000",
    "ENTRA_FAST_DRAIN_DELAY_MILLIS": "300",
    # Small enough to be full soon: what grows afterwards is a leak.
    "ENTRA_FAST_VERIFIED_CACHE_ENTRIES": "200",
    # Not as small: an error for a token that had to go would be counted as wrong. In a rush 48 clients have
    # four users each, and these have 20 targets.
    "ENTRA_FAST_CACHE_MAX_ENTRIES": "6000",
}
ANSWERED_WITHIN = 30.0
"""Seconds after which a request counts as lost."""
SAMPLED_EVERY = 0.25
FETCHES = "entra_fast_key_set_requests_total"
RUSH = 4
"""Factor by which the number of clients grows for a while."""
UNEXCUSED = ("worker killed", "worker hangs", "worker stalls")
"""Faults of processes that excuse no error: requests elsewhere must not be affected."""
PATHS = {"token": "/api/v1/token", "exchange": "/api/v1/token/exchange", "introspect": "/api/v1/introspect"}


@dataclass(frozen=True)
class Kind:
    """A kind of pod.

    Attributes:
        beside: faults that come beside those of the provider and the network. replacing: more of them, after
            which there are other processes than before. pause: seconds between two of them.
    """

    title: str
    replicas: int = 1
    workers: int = 1
    redis: bool = False
    beside: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()
    pause: tuple[float, float] = (1.0, 3.5)


KINDS = {
    "single": Kind("one process", beside=("throttled",), pause=(4.0, 10.0)),
    "workers": Kind(
        "two workers and their provider process",
        workers=2,
        beside=("throttled", "provider process hangs", "worker stalls"),
        replacing=("worker killed",) * 4 + ("worker hangs",),
    ),
    "replicas": Kind(
        "two replicas that share Redis", replicas=2, redis=True, beside=tuple(RedisFaults.NAMES)
    ),
}


def redis_is_missing() -> bool:
    """Whether no server program is installed."""
    return not any(map(shutil.which, PROGRAMS))


@dataclass(eq=False)
class Connection:
    """A client's connection to a sidecar."""

    sidecar: Sidecar
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int


class Part:
    """One run of one kind of pod."""

    def __init__(self, name: str, seed: int, seconds: float, clients: int = 12) -> None:
        self.kind = KINDS[name]
        self.report = PartReport(name, self.kind.title, seconds)
        self.truth = Truth(self.report, one_asks=self.kind.replicas == 1)
        self._seed = f"{seed}/{name}"
        self._clients = clients
        self._provider = KnownProvider()
        self._provider.truth = self.truth
        self._network = TcpProxy()
        self._seen: deque[str] = deque(maxlen=400)
        self._cut: set[int] = set()  # ports of connections to processes that were killed
        self._undisturbed = asyncio.Lock()  # held by what happens to processes
        self._over = False

    async def run(self) -> PartReport:
        """The whole part."""
        await self._network.start()
        await self._provider.start(public_url=f"http://127.0.0.1:{self._network.port}")
        self._network.target_port = self._provider.port
        try:
            async with self._shared_cache() as (environments, redis_faults), served() as serve:
                self._pod = Pod(serve, self.truth, environments, self.kind.workers)
                await self._pod.start()
                self._started = time.monotonic()
                upstream = UpstreamFaults(self._provider, self._network).all()
                processes = ProcessFaults(self._pod, self.truth, self._cut).all()
                clients = [asyncio.create_task(self._client(i)) for i in range(self._clients)]
                sampler = asyncio.create_task(self._sample())
                await asyncio.gather(
                    self._upstream(upstream), self._beside({**processes, **redis_faults}), self._rush()
                )
                sampler.cancel()
                for sidecar in self._pod.sidecars:
                    await self._look_at(sidecar)
                if self.kind.redis and not self.report.shared_cache_hits:
                    self.truth.wrong("the replicas have shared nothing")
                await self._pod.stop()  # also under load
                self._over = True
                await asyncio.gather(*clients)
        finally:
            await self._network.stop()
            await self._provider.stop()
        self.report.rss_slope_kib_per_10k = slope(self.report.memory, self.report.seconds)
        return self.report

    @asynccontextmanager
    async def _shared_cache(self) -> AsyncIterator[tuple[list[dict[str, str]], dict[str, Making]]]:
        """The environment of each replica, and the faults of what they share."""
        environment = self._provider.environment(**SETTINGS)
        if not self.kind.redis:
            yield [environment] * self.kind.replicas, {}
            return
        key = base64.b64encode(os.urandom(32)).decode()
        with tempfile.TemporaryDirectory() as directory:
            server = RedisServer(Path(directory))
            await server.start()
            ways = [TcpProxy(server.port) for _ in range(self.kind.replicas)]
            for way in ways:
                await way.start()
            try:
                yield (
                    [
                        {
                            **environment,
                            "ENTRA_FAST_REDIS_URL": f"redis://127.0.0.1:{way.port}/0",
                            "ENTRA_FAST_REDIS_KEY": key,
                        }
                        for way in ways
                    ],
                    RedisFaults(server, ways).all(),
                )
            finally:
                for way in ways:
                    await way.stop()
                await server.stop()

    async def _sample(self) -> None:
        while True:
            moment = time.monotonic() - self._started
            self.report.memory.append(Sample(moment, self.report.requests, self._pod.resident()))
            await asyncio.sleep(SAMPLED_EVERY)

    async def _look_at(self, sidecar: Sidecar) -> None:
        """The final checks of a sidecar before it ends."""
        if not await sidecar.is_whole():
            self.truth.wrong("a worker was not replaced")
        self.report.workers_replaced += int(await sidecar.metric("entra_fast_worker_restarts_total"))
        hits = 'entra_fast_shared_cache_requests_total{operation="get",outcome="hit"}'
        self.report.shared_cache_hits += int(await sidecar.metric(hits))

    # --- the faults ---

    async def _upstream(self, faults: dict[str, Making]) -> None:
        chance = random.Random(f"{self._seed}/upstream")
        for planned in plan.upstream(chance, self.report.seconds, list(faults)):
            await self._until(planned.at)
            if planned.name == plan.RESTART:
                for number in range(self.kind.replicas):
                    async with self._undisturbed:
                        await self._look_at(self._pod.sidecars[number])
                        with self._noted(planned.name):
                            await self._pod.restart(number)
            elif planned.name == plan.ROTATION:
                async with self._undisturbed:
                    await self._rotate_keys()
            else:
                with self.truth.excused():
                    await self._make(planned, faults)
        await self._until(self.report.seconds)

    async def _beside(self, faults: dict[str, Making]) -> None:
        chance = random.Random(f"{self._seed}/beside")
        kind = self.kind
        for planned in plan.beside(
            chance, self.report.seconds, kind.beside, kind.replacing, pause=kind.pause
        ):
            await self._until(planned.at)
            if planned.name in RedisFaults.NAMES:
                await self._make(planned, faults)  # explains nothing
                continue
            async with self._undisturbed:
                with contextlib.nullcontext() if planned.name in UNEXCUSED else self.truth.excused():
                    await self._make(planned, faults)

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, self._started + moment - time.monotonic()))

    async def _make(self, planned: plan.Planned, faults: dict[str, Making]) -> None:
        with self._noted(planned.name):
            await faults[planned.name](planned.seconds, planned.dice)

    @contextlib.contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        began = time.monotonic() - self._started
        yield
        self.report.faults.append((began, time.monotonic() - self._started, name))

    async def _rotate_keys(self) -> None:
        """The provider publishes a new key, as real ones do: well before it signs with it."""
        if not all(sidecar.known.has_keys and sidecar.known.fetches_keys for sidecar in self._pod.sidecars):
            return
        provider = self._provider
        new = Key.generate()
        provider.published = [*provider.published, new]  # old keys stay: their tokens are still valid
        for sidecar in self._pod.sidecars:
            failed = await self._failed_fetches(sidecar)
            answer = await sidecar.call.introspect(provider.mint(key=new))
            if not answer.json["active"]:
                provider.published.remove(new)
                if await self._failed_fetches(sidecar) == failed:
                    self.truth.wrong(f"a published key was not accepted: {answer.json}")
                # On a busy machine this provider may be too slow, and then there is no fetch for minutes.
                sidecar.known.fetches_keys = False
                return
        provider.key = new

    async def _failed_fetches(self, sidecar: Sidecar) -> float:
        return await sidecar.metric(FETCHES) - await sidecar.metric(f'{FETCHES}{{outcome="ok"}}')

    # --- the clients ---

    async def _rush(self) -> None:
        """Many more clients, for a while."""
        await self._until(self.report.seconds * plan.REPLACED_UNTIL)
        end = self._started + self.report.seconds * plan.RUSH_UNTIL
        many = range(self._clients, self._clients * RUSH)
        with self._noted("rush"):
            await asyncio.gather(*(self._client(number, end) for number in many))

    async def _client(self, number: int, end: float = math.inf) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        users = [self._user(rng) for _ in range(4)]
        while not self._over and time.monotonic() < end:
            connection = await self._connect(rng.choice(self._pod.sidecars))
            if connection is None:
                await asyncio.sleep(0.01)  # nothing was sent: nothing is lost
                continue
            with self._closing(connection):
                for _ in range(rng.randrange(1, 60)):
                    for i, (_, expires_at) in enumerate(users):
                        if expires_at < time.time() - 2:
                            users[i] = self._user(rng)
                    if self._over or not await self._one(rng, users, connection):
                        break

    async def _connect(self, sidecar: Sidecar) -> Connection | None:
        try:
            reader, writer = await sidecar.call.connect()
            return Connection(sidecar, reader, writer, writer.get_extra_info("sockname")[1])
        except OSError:
            return None

    @contextlib.contextmanager
    def _closing(self, connection: Connection) -> Iterator[None]:
        try:
            yield
        finally:
            connection.writer.close()
            self._cut.discard(connection.port)

    def _user(self, rng: random.Random) -> tuple[str, float]:
        expires_at = int(time.time()) + rng.choice((2, 5, 15))
        key = self._provider.published[0]
        return self._provider.mint(key=key, exp=expires_at, oid=str(rng.random())), expires_at

    async def _one(self, rng: random.Random, users: list[tuple[str, float]], connection: Connection) -> bool:
        """One request and its judgement; False when the connection ends."""
        kind = rng.choice(("token", "token", "exchange", "introspect", "introspect"))
        fields: dict[str, object] = {"identity_provider": rng.choice(("entra_id", "azuread"))}
        if kind == "introspect":
            truth, fields["token"] = self._introspected(rng)
            answer = await self._ask(connection, kind, fields)
            if answer is not None:
                self.truth.judge_introspection(connection.sidecar.known, truth, answer)
            return answer is not None and answer.header("Connection") != "close"
        user = rng.choice(users) if kind == "exchange" else None
        answer = await self._ask_token(connection, rng.choice(TARGETS), user, rng.random() < 0.05)
        return answer is not None and answer.header("Connection") != "close"

    async def _ask_token(
        self, connection: Connection, scope: str, user: tuple[str, float] | None, skip_cache: bool
    ) -> Answer | None:
        known = connection.sidecar.known
        fields: dict[str, object] = {
            "identity_provider": "entra_id",
            "target": scope,
            "skip_cache": skip_cache,
        }
        if user is not None:
            fields["user_token"] = user[0]
        floor = known.floors.get((scope, user[0] if user else None), 0)
        asked = Asked(scope, user, skip_cache, time.monotonic(), floor, len(self.truth.issued))
        answer = await self._ask(connection, "token" if user is None else "exchange", fields)
        if answer is None:
            return None
        self.truth.judge_token(known, asked, answer)
        if skip_cache and answer.status == 200:
            # At once, and elsewhere: that is where an old token would be.
            await asyncio.gather(*(self._ask_elsewhere(connection.sidecar, scope, user) for _ in range(2)))
        return answer

    async def _ask_elsewhere(self, sidecar: Sidecar, scope: str, user: tuple[str, float] | None) -> None:
        connection = await self._connect(sidecar)
        if connection is not None:
            with self._closing(connection):
                await self._ask_token(connection, scope, user, False)

    async def _ask(self, connection: Connection, kind: str, fields: dict[str, object]) -> Answer | None:
        """The answer, or None when there was none."""
        body = json.dumps(fields).encode()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                connection.writer.write(
                    request_bytes("POST", PATHS[kind], body, {"Content-Type": "application/json"})
                )
                answer = await read_answer(connection.reader)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            if connection.port in self._cut:
                self.report.cut_off_by_crashes += 1
            else:
                self.report.lost_requests += 1
                self.truth.example(f"lost: {kind}, {type(error).__name__}")
            return None
        self.report.requests += 1
        self.report.outcomes[f"{kind} {answer.status}"] += 1
        return answer

    def _introspected(self, rng: random.Random) -> tuple[str, str]:
        """Why it is not valid, and a token."""
        provider = self._provider
        kind = rng.choice(("valid", "valid", "valid", "expired", "tampered", "foreign", "audience", "junk"))
        now = int(time.time())
        if kind == "valid":
            if len(self._seen) < 200 or rng.random() < 0.3:
                key = rng.choice((provider.published[0], provider.key))
                self._seen.append(provider.mint(key=key, exp=now + 3600, roles=[str(rng.random())]))
            return "", rng.choice(self._seen)
        if kind == "expired":
            return "token is expired", provider.mint(exp=now - 3600, iat=now - 7200, nbf=None)
        if kind == "tampered":
            head, payload, signature = provider.mint(key=provider.published[0]).split(".")
            return "token signature is invalid", f"{head}.{payload}.{'A' * 8}{signature[8:]}"
        if kind == "foreign":
            # Under a known id: a flood of unknown ones would use up the cool-down that new keys need.
            header = {"kid": provider.published[0].kid}
            return "token signature is invalid", provider.mint(key=CLIENT_KEY, header=header)
        if kind == "audience":
            return "token has the wrong audience", provider.mint(key=provider.published[0], aud="other")
        return "token is not a JWT", "junk"
