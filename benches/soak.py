"""A long mixed load on one sidecar, by a client that knows the correct answer for every token: `make soak`.

    python -m benches.soak [--requests 10000000]

It is bounded by a count. The client is also the provider, so it knows which keys are published, which tokens
were issued and when each ends; every answer is compared with that, byte for byte where it can be. Requests
are pipelined over several connections, JSON and form. Tokens change all the time. In the first half keys are
rotated, and each new one must be accepted at once; in the second half there are also tokens of withdrawn and
unknown keys, which must cause exactly one fetch. The run writes resident memory, latencies and rate over its
course to results/soak.json and results/soak.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import json
import os
import random
import statistics
import sys
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop
from aiohttp import web

from benches import tokens as material
from benches.load.__main__ import machine
from benches.load.processes import LOAD_CORE, ROOT, Server, start_sidecar, until_ready
from benches.load.traffic import FORM, JSON, body
from entra_fast.emulator.protocol.private_key import PrivateKey

CONNECTIONS, DEEPEST_PIPELINE = 16, 16
HOT, POOL, FRESH = 200, 6000, 200
"""Tokens that are asked about all the time; tokens of one key that are asked about in turn; and tokens that
replace older ones at a time."""
VERIFIED_CACHE, GRANT_CACHE = 4000, 2000
"""Smaller than what passes through, so that both caches are full and evict."""
ROTATIONS = 4
LIFETIME = 90
"""Of what the token endpoint issues: short, so that tokens are renewed in the course of a run."""
LEEWAY, DOUBT = 60, 1.0
"""The sidecar's leeway, and how long around its end a token may be called either; seconds."""
TARGETS = tuple(f"api://test.team.app{number}/.default" for number in range(3))
WINDOWS = 100

MIX: dict[str, float] = {
    "seen": 44,
    "unseen": 17,
    "ending": 2,
    "expired": 3,
    "tampered": 4,
    "wrong_audience": 2,
    "not_a_jwt": 1,
    "token": 12,
    "exchange": 12,
    "exchange_new": 0.05,
    "skip_cache": 0.05,
    "withdrawn_key": 1.5,
    "unknown_key": 1.5,
}
SECOND_HALF_ONLY = ("withdrawn_key", "unknown_key")

Expected = Callable[[bytes], bool]


def inactive(reason: str) -> bytes:
    return b'{"active":false,"error":"%b"}' % reason.encode()


EXPIRED, TAMPERED = inactive("token is expired"), inactive("token signature is invalid")
UNKNOWN, AUDIENCE = inactive("token was signed with an unknown key"), inactive("token has the wrong audience")


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the text of its claims."""

    text: str
    claims: bytes
    ends: float

    @property
    def active(self) -> bytes:
        return b'{"active":true,' + self.claims[1:]


def sign(work: tuple[dict[str, str], list[dict[str, object]]]) -> list[Token]:
    """Sign claims; in another process, because it takes most of a millisecond each."""
    key = PrivateKey(work[0])
    header = json.dumps({"typ": "JWT", "alg": key.algorithm, "kid": key.kid}, separators=(",", ":")).encode()
    out = []
    for claims in work[1]:
        text = json.dumps(claims, separators=(",", ":")).encode()
        out.append(Token(key.sign(header, text), text, float(cast("int", claims["exp"]))))
    return out


class World:
    """Which keys and tokens there are: the truth."""

    def __init__(self, signers: ProcessPoolExecutor) -> None:
        self._signers = signers
        self._serials = itertools.count()
        self.keys: list[PrivateKey] = [PrivateKey.generate()]
        self.published: list[PrivateKey] = list(self.keys)
        self.pool: dict[str, collections.deque[Token]] = {}
        self.hot: list[Token] = []
        self.ending: list[Token] = []
        self.expired: list[Token] = []
        self.wrong_audience: list[Token] = []
        self.withdrawn: list[Token] = []
        self.unknown: list[Token] = []
        self.issued: dict[tuple[str, str], collections.deque[str]] = {}
        self.unseen: list[Token] = []
        self.turn = 0
        self.fetches = 0
        self.grants = 0

    async def made(self, key: PrivateKey, count: int, **changes: object) -> list[Token]:
        now = int(time.time()) - 30
        claims = [material.claims(next(self._serials), now) | changes for _ in range(count)]
        chunks = [(key.private_jwk(), claims[at : at + 250]) for at in range(0, count, 250)]
        loop = asyncio.get_running_loop()
        done = await asyncio.gather(*(loop.run_in_executor(self._signers, sign, chunk) for chunk in chunks))
        return [token for part in done for token in part]

    async def begin(self) -> None:
        """The first tokens."""
        key = self.keys[0]
        now = int(time.time())
        self.expired = await self.made(key, 50, exp=now - 120, iat=now - 4000, nbf=now - 4000)
        self.wrong_audience = await self.made(key, 50, aud="11111111-0000-4000-8000-000000000000")
        self.unknown = await self.made(PrivateKey.generate(), 200)
        await self.adopt(key)

    async def adopt(self, key: PrivateKey) -> None:
        """Make many tokens of a key, and a new hot set."""
        self.pool[key.kid] = collections.deque(await self.made(key, POOL))
        self.hot = await self.made(key, HOT)
        self._gather()

    async def refresh(self) -> None:
        """Some new tokens for old ones, and some that end soon."""
        key = self.published[-1]
        pool = self.pool[key.kid]
        fresh = await self.made(key, FRESH)
        pool.extend(fresh)
        for _ in fresh:
            pool.popleft()
        at = self.turn % HOT
        self.hot[at : at + 10] = fresh[: len(self.hot[at : at + 10])]
        self.ending = await self.made(key, 20, exp=int(time.time()) - LEEWAY + 5)
        self._gather()

    def publish(self, key: PrivateKey) -> None:
        """Rotate: publish a new key in addition to the current one, and withdraw the previous one."""
        self.keys.append(key)
        for old in self.published[:-1]:
            self.withdrawn.extend(itertools.islice(self.pool.pop(old.kid), 500))
        self.published = [self.published[-1], key]
        self.expired, self.wrong_audience = self.expired[:0], self.wrong_audience[:0]

    def _gather(self) -> None:
        self.unseen = [token for pool in self.pool.values() for token in pool]


class Provider:
    """Publishes the world's keys and issues tokens, on the client's own event loop."""

    def __init__(self, world: World) -> None:
        self.world = world
        app = web.Application()
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _keys(self, _: web.Request) -> web.Response:
        self.world.fetches += 1
        return web.json_response({"keys": [key.public_jwk() for key in self.world.published]})

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(urllib.parse.parse_qsl(await request.text()))
        self.world.grants += 1
        # Opaque to the sidecar: it hands out what it was given. The number makes each one different.
        token = f"granted.{self.world.grants}.{'x' * 1200}"
        of = (form["scope"], form.get("assertion", ""))
        # Those in flight, and the one before, which may be handed out until its end.
        self.world.issued.setdefault(of, collections.deque(maxlen=4)).append(token)
        return web.json_response({"token_type": "Bearer", "expires_in": LIFETIME, "access_token": token})


class Source:
    """Chooses what is sent next, and says how the answer must be."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._kinds: list[str] = []
        self.second_half = False
        self._spelled: dict[str, tuple[bytes, bytes]] = {}

    def next(self) -> tuple[str, bytes, Expected]:
        if not self._kinds:
            chosen = [kind for kind in MIX if self.second_half or kind not in SECOND_HALF_ONLY]
            self._kinds = self._random.choices(chosen, [MIX[kind] for kind in chosen], k=5000)
        kind = self._kinds.pop()
        make = getattr(self, f"_{kind}", None)
        request, expected = make() if make is not None else self._fixed(kind)
        return kind, request, expected

    def _seen(self) -> tuple[bytes, Expected]:
        token = self._random.choice(self._world.hot)
        spelled = self._spelled.get(token.text)
        if spelled is None:
            if len(self._spelled) > 4 * HOT:
                self._spelled.clear()
            fields = {"token": token.text}
            spelled = (introspection(JSON, fields), introspection(FORM, fields))
            self._spelled[token.text] = spelled
        return spelled[self._random.getrandbits(1)], token.active.__eq__

    def _unseen(self) -> tuple[bytes, Expected]:
        world = self._world
        world.turn += 1
        token = world.unseen[world.turn % len(world.unseen)]
        return self._asked(token.text), token.active.__eq__

    def _ending(self) -> tuple[bytes, Expected]:
        """Valid until a moment in the course of the run."""
        if not self._world.ending:
            return self._seen()
        token = self._random.choice(self._world.ending)
        asked_at = time.time()

        def fits(answer: bytes) -> bool:
            end = token.ends + LEEWAY
            return (answer == token.active and asked_at < end + DOUBT) or (
                answer == EXPIRED and time.time() > end - DOUBT
            )

        return self._asked(token.text), fits

    def _fixed(self, kind: str) -> tuple[bytes, Expected]:
        world = self._world
        tokens, answer = {
            "expired": (world.expired, EXPIRED),
            "wrong_audience": (world.wrong_audience, AUDIENCE),
            "withdrawn_key": (world.withdrawn, UNKNOWN),
            "unknown_key": (world.unknown, UNKNOWN),
        }[kind]
        if not tokens:
            return self._unseen()
        return self._asked(self._random.choice(tokens).text), answer.__eq__

    def _tampered(self) -> tuple[bytes, Expected]:
        header, claims, signature = self._random.choice(self._world.hot).text.split(".")
        at = self._random.randrange(10, len(signature) - 10)
        other = "A" if signature[at] != "A" else "B"
        return self._asked(f"{header}.{claims}.{signature[:at]}{other}{signature[at + 1 :]}"), TAMPERED.__eq__

    def _not_a_jwt(self) -> tuple[bytes, Expected]:
        text = self._random.choice(("nonsense", "a.b", "a.b.c", "..", "e30.e30.e30", "%" * 50))
        return self._asked(text), lambda answer: answer.startswith(b'{"active":false,"error":"')

    def _token(self) -> tuple[bytes, Expected]:
        return self._granted("token", self._random.choice(TARGETS), "")

    def _skip_cache(self) -> tuple[bytes, Expected]:
        return self._granted("token", self._random.choice(TARGETS), "", skip_cache=True)

    def _exchange(self) -> tuple[bytes, Expected]:
        # Few users, most of whose tokens are in the cache.
        user = self._world.hot[self._random.randrange(HOT // 4)]
        return self._granted("token/exchange", TARGETS[0], user.text)

    def _exchange_new(self) -> tuple[bytes, Expected]:
        user = self._random.choice(self._world.unseen)
        return self._granted("token/exchange", self._random.choice(TARGETS), user.text)

    def _granted(
        self, path: str, target: str, user: str, *, skip_cache: bool = False
    ) -> tuple[bytes, Expected]:
        fields = {"target": target} | ({"user_token": user} if user else {})
        content_type = JSON if self._random.getrandbits(1) else FORM
        content = body(content_type, fields)
        if skip_cache:
            content = (
                content[:-1] + b',"skip_cache":true}'
                if content_type == JSON
                else content + b"&skip_cache=true"
            )
        issued = self._world.issued

        def fits(answer: bytes) -> bool:
            document = json.loads(answer)
            return (
                document["token_type"] == "Bearer"
                and 0 < document["expires_in"] <= LIFETIME
                and document["access_token"] in issued.get((target, user), ())
            )

        return request_bytes(path, content_type, content), fits

    def _asked(self, token: str) -> bytes:
        return introspection(JSON if self._random.getrandbits(1) else FORM, {"token": token})


def request_bytes(path: str, content_type: str, content: bytes) -> bytes:
    return (
        b"POST /api/v1/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
    ) % (path.encode(), content_type.encode(), len(content), content)


def introspection(content_type: str, fields: dict[str, str]) -> bytes:
    return request_bytes("introspect", content_type, body(content_type, fields))


@dataclass
class Tally:
    """What came back."""

    answers: int = 0
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    errors: int = 0
    samples: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """Sends a random number of requests at once, checks all answers in order, and starts over."""

    def __init__(self, source: Source, tally: Tally, more: Callable[[], int]) -> None:
        self._source = source
        self._tally = tally
        self._more = more
        self._awaited: collections.deque[tuple[str, Expected]] = collections.deque()
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.idle = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.idle.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._tally.errors += len(self._awaited)
        self._awaited.clear()
        self._transport = None
        self.idle.set()

    def go(self) -> None:
        """Send the next requests, unless the run is complete."""
        if self._transport is None:
            raise RuntimeError("the sidecar closed a connection")
        count = self._more()
        if not count:
            self.idle.set()
            return
        self.idle.clear()
        out = []
        for _ in range(count):
            kind, request, expected = self._source.next()
            out.append(request)
            self._awaited.append((kind, expected))
        self._sent_at = time.perf_counter()
        self._transport.write(b"".join(out))

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        at = 0
        tally = self._tally
        passed = (time.perf_counter() - self._sent_at) * 1e6
        while True:
            end = received.find(b"\r\n\r\n", at)
            if end < 0:
                break
            start = received.find(b"Content-Length: ", at, end) + 16
            length = int(received[start : received.find(b"\r\n", start)])
            if len(received) < end + 4 + length:
                break
            answer = received[end + 4 : end + 4 + length]
            kind, expected = self._awaited.popleft()
            tally.answers += 1
            tally.kinds[kind] += 1
            tally.latencies.append(passed)
            if not received.startswith(b"HTTP/1.1 200 OK\r\n", at) or not expected(answer):
                self._wrong(kind, received[at : at + 15], answer)
            at = end + 4 + length
        self._received = received[at:]
        if not self._awaited:
            self.go()

    def _wrong(self, kind: str, status: bytes, answer: bytes) -> None:
        self._tally.wrong[kind] += 1
        if len(self._tally.samples) < 10:
            told = answer[:90] if answer.startswith(b'{"active":false') else answer[:16]
            self._tally.samples.append(f"{kind}: {status.decode()} {told.decode()}")


class Soak:
    """One run."""

    def __init__(self, requests: int, seed: int, signers: ProcessPoolExecutor) -> None:
        self.requests = requests
        self.tally = Tally()
        self.world = World(signers)
        self.source = Source(self.world, seed)
        self.windows: list[dict[str, float]] = []
        self._random = random.Random(seed + 1)
        self._left = 0
        self._connections: list[Connection] = []
        self._refreshing: asyncio.Task[None] | None = None
        self.rotated = 0

    def _more(self) -> int:
        count = min(self._left, self._random.randint(1, DEEPEST_PIPELINE))
        self._left -= count
        return count

    async def run(self) -> dict[str, Any]:
        provider = Provider(self.world)
        base_url = await provider.start()
        progress(f"signing the first {POOL + HOT} tokens")
        await self.world.begin()
        environ = {
            "AZURE_APP_CLIENT_ID": material.AUDIENCE,
            "AZURE_APP_TENANT_ID": material.TENANT,
            "AZURE_OPENID_CONFIG_ISSUER": material.ISSUER,
            "AZURE_OPENID_CONFIG_JWKS_URI": f"{base_url}/keys",
            "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": f"{base_url}/token",
            "AZURE_APP_CLIENT_SECRET": "of the soak only",
            "ENTRA_FAST_VERIFIED_CACHE_ENTRIES": str(VERIFIED_CACHE),
            "ENTRA_FAST_CACHE_MAX_ENTRIES": str(GRANT_CACHE),
        }
        sidecar = await asyncio.to_thread(start_sidecar, environ)
        try:
            await asyncio.to_thread(until_ready, sidecar)
            return await self._load(sidecar)
        finally:
            sidecar.stop()
            await provider.stop()

    async def _load(self, sidecar: Server) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: Connection(self.source, self.tally, self._more), "127.0.0.1", sidecar.port
            )
            self._connections.append(connection)
        cpu = sidecar.cpu_seconds()
        loading = 0.0
        rotations = {(number + 1) * WINDOWS // 2 // (ROTATIONS + 1) for number in range(ROTATIONS)}
        for window in range(WINDOWS):
            if window in rotations:
                await self._rotate()
            self.source.second_half = window >= WINDOWS // 2
            target = self.requests * (window + 1) // WINDOWS
            before = self.tally.answers
            began = time.perf_counter()
            await self._send(target - before)
            took = time.perf_counter() - began
            loading += took
            latencies = sorted(self.tally.latencies)
            self.tally.latencies.clear()
            self.windows.append(
                {
                    "requests": self.tally.answers,
                    "resident_bytes": sidecar.resident_bytes(),
                    "p50_us": round(latencies[len(latencies) // 2]),
                    "p99_us": round(latencies[len(latencies) * 99 // 100]),
                    "per_second": round((self.tally.answers - before) / took),
                    "wrong": sum(self.tally.wrong.values()),
                }
            )
            if window % 10 == 9:
                last = self.windows[-1]
                progress(
                    f"{self.tally.answers:>9} answers, {last['per_second']:.0f}/s, p99 {last['p99_us']} us, "
                    f"{last['resident_bytes'] / 2**20:.1f} MiB, {last['wrong']} wrong"
                )
        if self._refreshing is not None:
            await self._refreshing
        return self._summary(sidecar, loading, sidecar.cpu_seconds() - cpu)

    async def _send(self, count: int) -> None:
        """Send this many requests; new tokens are made in the meantime."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self.world.refresh())
        self._left = count
        for connection in self._connections:
            connection.go()
        for connection in self._connections:
            await connection.idle.wait()

    async def _rotate(self) -> None:
        """While no request is in flight: a new key, whose first token must be accepted at once."""
        if self._refreshing is not None:
            await self._refreshing
        key = await asyncio.to_thread(PrivateKey.generate)
        self.world.publish(key)
        await self.world.adopt(key)
        now = int(time.time())
        # Of the older key: no key is fetched for tokens that could not pass.
        known = self.world.published[0]
        self.world.expired = await self.world.made(known, 50, exp=now - 120, iat=now - 4000, nbf=now - 4000)
        self.world.wrong_audience = await self.world.made(
            known, 50, aud="11111111-0000-4000-8000-000000000000"
        )
        self.rotated += 1

    def _summary(self, sidecar: Server, seconds: float, cpu: float) -> dict[str, Any]:
        tally = self.tally
        quarter = self.windows[len(self.windows) // 4 :]
        slope = statistics.linear_regression(
            [window["requests"] / 1e6 for window in quarter], [window["resident_bytes"] for window in quarter]
        ).slope
        return {
            "requests": tally.answers,
            "wrong_answers": sum(tally.wrong.values()),
            "wrong_by_kind": dict(tally.wrong),
            "errors": tally.errors,
            "samples_of_wrong_answers": tally.samples,
            "by_kind": dict(sorted(tally.kinds.items())),
            "seconds": round(seconds, 1),
            "per_second": round(tally.answers / seconds),
            "cpu_us_per_request": round(cpu / tally.answers * 1e6, 2),
            "resident_bytes_at_a_quarter": quarter[0]["resident_bytes"],
            "resident_bytes_at_the_end": quarter[-1]["resident_bytes"],
            "slope_bytes_per_million_requests": round(slope),
            "p99_us_median_of_windows": round(statistics.median(w["p99_us"] for w in self.windows)),
            "p99_us_worst_window": max(w["p99_us"] for w in self.windows),
            "keys_rotated": self.rotated,
            "key_fetches": self.world.fetches,
            "tokens_issued_by_provider": self.world.grants,
            "renewals": sidecar.metric("entra_fast_renewals_total", outcome="ok"),
            "verified_cache_evictions": sidecar.metric("entra_fast_verified_cache_evictions_total"),
            "windows": self.windows,
        }


def progress(text: str) -> None:
    print(f"  {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.soak")
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results" / "soak.json")
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {LOAD_CORE})
    with ProcessPoolExecutor(1) as signers:
        result = uvloop.run(Soak(arguments.requests, arguments.seed, signers).run())
    result["machine"] = machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    from benches import pictures  # noqa: PLC0415 - after measuring: it is large

    pictures.draw(arguments.out, pictures.soak_picture)
    for name, value in result.items():
        if name != "windows":
            print(f"{name:34} {value}")
    good = result["wrong_answers"] == 0 and result["errors"] == 0
    print(f"\n{'every answer was right' if good else 'THERE WERE WRONG ANSWERS'}; written to {arguments.out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
