"""All faults at once: a sidecar under load, a provider and a network that break at random, and a checker that
knows the truth of every answer.

    python -m benches.chaos [--seed N] [--seconds S] [--clients N] [--out benches/results]

The run is bounded in time; its seed is printed and repeats the schedule of faults. The report is a table,
`chaos.json`, and a picture, `chaos.svg`. Exit status 1 when any answer was wrong.

What is checked, of every answer:
- a token is one that the provider issued for that target and that user, and has not ended;
- an error has a cause: a fault that is active or was a moment ago; and it is never given for a token of which
  a valid one was handed out before;
- nothing is exchanged for a user whose token has ended;
- what is introspected is judged as the checker knows it, once the sidecar has keys;
- every request that was sent is answered, also over SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from entra_fast._native import SigningKey
from support.network import TcpProxy, black_hole, reset_after, reset_at_once, truncate_after
from support.process import Process, Serve, served
from support.provider import CLIENT_KEY, Provider, granting, raw
from support.wire import Answer, Caller, read_answer, request_bytes

AFTERMATH = 3.0
"""Seconds after a fault within which an error may still be its consequence (time-outs, `Retry-After: 1`)."""
TARGETS = [f"api://dev.team.app{i}/.default" for i in range(20)]
SETTINGS = {
    "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS": "400",
    "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS": "400",
    "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS": "1000",
    "ENTRA_FAST_DRAIN_DELAY_MILLIS": "300",
    # Small enough to be full soon: what grows afterwards is a leak.
    "ENTRA_FAST_VERIFIED_CACHE_ENTRIES": "200",
    "ENTRA_FAST_CACHE_MAX_ENTRIES": "2000",
}


@dataclass
class Report:
    """What the run came to."""

    seed: int
    seconds: float
    requests: int = 0
    wrong_answers: int = 0
    expired_tokens: int = 0
    false_rejections: int = 0
    lost_requests: int = 0
    rss_slope_kib_per_10k: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    memory: list[tuple[float, int, int, int]] = field(default_factory=list)
    """(seconds since start, process, requests so far, resident KiB)"""
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.wrong_answers or self.expired_tokens or self.false_rejections or self.lost_requests)

    def as_json(self) -> dict[str, object]:
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "requests": self.requests,
            "wrong_answers": self.wrong_answers,
            "expired_tokens": self.expired_tokens,
            "false_rejections": self.false_rejections,
            "lost_requests": self.lost_requests,
            "rss_slope_kib_per_10k": round(self.rss_slope_kib_per_10k, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "faults": dict(sorted(Counter(name for _, _, name in self.faults).items())),
        }


@dataclass(frozen=True)
class Issued:
    """The truth about a token that the provider issued."""

    scope: str
    assertion: str | None
    expires_at: float
    cacheable: bool = True


class Chaos:
    """One run."""

    def __init__(self, seed: int, seconds: float, clients: int) -> None:
        self.report = Report(seed, seconds)
        self._rng = random.Random(seed)  # the schedule; clients have their own, so that it repeats
        self._clients = clients
        self._provider = Provider()
        self._network = TcpProxy()
        self._seen: deque[str] = deque(maxlen=400)
        self._issued: dict[str, Issued] = {}
        self._handed_out: dict[tuple[str, str | None], float] = {}
        self._fault_ended = -AFTERMATH
        self._fault_active = False
        self._process: Process | None = None
        self._caller: Caller | None = None
        self._has_keys = False
        self._generation = 0
        self._started = 0.0
        self._over = False

    async def run(self) -> Report:
        """The whole run."""
        await self._network.start()
        await self._provider.start(public_url=f"http://127.0.0.1:{self._network.port}")
        self._network.target_port = self._provider.port
        grant = self._provider.grant

        def remembering(form: dict[str, str]) -> dict[str, Any]:
            # Always the same for a target, so that a newer token never ends before an older one.
            self._provider.lifetime = (5, 8, 15, 30)[TARGETS.index(form["scope"]) % 4]
            document = grant(form)
            expires_at = time.time() + self._provider.lifetime
            self._issued[document["access_token"]] = Issued(form["scope"], form.get("assertion"), expires_at)
            return document

        self._provider.grant = remembering  # type: ignore[method-assign]
        self._started = time.monotonic()
        try:
            async with served() as serve:
                await self._start_sidecar(serve)
                clients = [asyncio.create_task(self._client(i)) for i in range(self._clients)]
                sampler = asyncio.create_task(self._sample())
                await self._schedule(serve)
                self._over = True
                await asyncio.gather(*clients)
                sampler.cancel()
                if self._process is not None:
                    self._process.signal(signal.SIGTERM)
                    await self._process.ended()
        finally:
            await self._network.stop()
            await self._provider.stop()
        self.report.rss_slope_kib_per_10k = slope(self.report.memory)
        return self.report

    # --- the sidecar ---

    async def _start_sidecar(self, serve: Serve) -> None:
        process = await serve(self._provider.environment(**SETTINGS))
        self._caller = await process.listening()
        self._process = process
        self._has_keys = False
        self._handed_out.clear()
        self._generation += 1

    async def _restart_sidecar(self, serve: Serve) -> None:
        assert self._process is not None
        old, self._process, self._caller = self._process, None, None
        # Clients with a connection go on using it: that is what draining is about.
        old.signal(signal.SIGTERM)
        if await old.ended() != 0:
            self._wrong("the sidecar did not end with 0 after SIGTERM")
        await self._start_sidecar(serve)

    async def _sample(self) -> None:
        while True:
            process = self._process
            if process is not None and process.process.returncode is None:
                try:
                    with open(f"/proc/{process.process.pid}/statm", encoding="ascii") as file:  # noqa: ASYNC230
                        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
                except OSError:
                    resident = 0
                if resident:
                    moment = time.monotonic() - self._started
                    self.report.memory.append((moment, self._generation, self.report.requests, resident))
            await asyncio.sleep(0.25)

    # --- the faults ---

    async def _schedule(self, serve: Serve) -> None:
        end = self._started + self.report.seconds
        restart_at = self._started + self.report.seconds * 0.6
        names = sorted(self._network_faults() | self._provider_faults())
        queue: list[str] = []
        while time.monotonic() < end:
            # Now and then long enough for all consequences to pass, so that errors without a cause show.
            await asyncio.sleep(self._rng.choice((0.2, 0.4, 0.6, 0.8, 1.0, AFTERMATH + 2)))
            if restart_at and time.monotonic() > restart_at:
                restart_at = 0
                await self._restart_sidecar(serve)
            if self._rng.random() < 0.2:
                await self._rotate_keys()
            if not queue:  # each fault once before any comes again
                queue = self._rng.sample(names, len(names))
            await self._fault(queue.pop(), self._rng.uniform(0.3, 1.5))

    def _network_faults(self) -> dict[str, Callable[[], None]]:
        network = self._network

        def always(fault: Any) -> Callable[[], None]:
            return lambda: setattr(network, "always", fault)

        return {
            "reset": always(reset_at_once),
            "reset in mid-answer": always(reset_after(self._rng.randrange(1, 1500))),
            "truncated": always(truncate_after(self._rng.randrange(0, 1500))),
            "black hole": always(black_hole),
            "connection refused": lambda: None,  # the port is closed while any network fault begins
        }

    def _provider_faults(self) -> dict[str, Callable[[], None]]:
        provider = self._provider

        def answers(script: Any) -> Callable[[], None]:
            return lambda: setattr(provider, "always", script)

        past = {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600, "nbf": None}
        return {
            "429 with Retry-After": answers(raw(429, b"slow down", "text/plain", Retry_After="1")),
            "503": answers(raw(503, b"<h1>sorry</h1>", "text/html")),
            "500 with garbage": answers(raw(500, b"\xff\x00{")),
            "html instead of JSON": answers(raw(200, b"<html>", "text/html")),
            "cut JSON": answers(raw(200, b'{"access_token":"x"')),
            "redirect": answers(raw(302, b"", Location="https://evil.example/")),
            "oversized answer": answers(raw(200, b'{"x":"' + b"x" * 2_000_000 + b'"}')),
            "expired tokens": answers(granting(provider, access_token=provider.mint(**past))),
            "expires_in nonsense": answers(self._uncacheable),
            "slow": answers(self._slow),
            "no keys": lambda: setattr(provider, "key_set", b'{"keys":[]}'),
            "garbage keys": lambda: setattr(provider, "key_set", b"\x00garbage"),
        }

    async def _uncacheable(self, _: web.Request, form: dict[str, str]) -> web.StreamResponse:
        document = self._provider.grant(form)
        token = document["access_token"]
        self._issued[token] = replace(self._issued[token], cacheable=False)
        return web.json_response({**document, "expires_in": "soon"})

    async def _slow(self, _: web.Request, form: dict[str, str]) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.json_response(self._provider.grant(form))

    async def _fault(self, name: str, seconds: float) -> None:
        began = time.monotonic() - self._started
        self._fault_active = True
        network_faults = self._network_faults()
        if name in network_faults:
            await self._network.stop()  # also cuts the connections that exist
            network_faults[name]()
            if name != "connection refused":
                await self._network.start()
        else:
            self._provider_faults()[name]()
        await asyncio.sleep(seconds)
        if name in network_faults:
            await self._network.stop()
            self._network.always = None
            await self._network.start()
        self._provider.always = self._provider.key_set = None
        self._fault_active = False
        self._fault_ended = time.monotonic()
        self.report.faults.append((began, time.monotonic() - self._started, name))

    async def _rotate_keys(self) -> None:
        """The provider publishes a new key, as real ones do: well before the next fault."""
        if self._caller is None or not self._has_keys:
            return
        provider = self._provider
        new = SigningKey.generate()
        provider.published = [*provider.published, new]  # old keys stay: their tokens are still valid
        answer = await self._caller.introspect(provider.mint(key=new))
        if answer.json["active"]:
            provider.key = new
        else:
            provider.published.remove(new)
            self._wrong(f"a published key was not accepted: {answer.json}")

    # --- the clients ---

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self.report.seed}/{number}")
        users = [self._user(rng) for _ in range(4)]
        while not self._over:
            caller = self._caller
            if caller is None:
                await asyncio.sleep(0.01)
                continue
            try:
                reader, writer = await caller.connect()
            except ConnectionError:
                await asyncio.sleep(0.01)  # nothing was sent: nothing is lost
                continue
            generation = self._generation
            try:
                for _ in range(rng.randrange(1, 60)):
                    for i, (_, expires_at) in enumerate(users):
                        if expires_at < time.time() - 2:
                            users[i] = self._user(rng)
                    if self._over or not await self._one(rng, users, reader, writer, generation):
                        break
            finally:
                writer.close()

    def _user(self, rng: random.Random) -> tuple[str, float]:
        expires_at = int(time.time()) + rng.choice((2, 5, 30))
        return self._provider.mint(
            key=self._provider.published[0], exp=expires_at, oid=str(rng.random())
        ), expires_at

    async def _one(
        self,
        rng: random.Random,
        users: list[tuple[str, float]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        generation: int,
    ) -> bool:
        """One request and its judgement; False when the connection ends."""
        kind = rng.choice(("token", "token", "exchange", "introspect", "introspect"))
        fields: dict[str, object] = {"identity_provider": rng.choice(("entra_id", "azuread"))}
        user, truth = None, ""
        if kind == "introspect":
            truth, fields["token"] = self._introspected(rng)
        else:
            fields["target"] = rng.choice(TARGETS)
            fields["skip_cache"] = rng.random() < 0.05
            if kind == "exchange":
                user = rng.choice(users)
                fields["user_token"] = user[0]
        path = {
            "token": "/api/v1/token",
            "exchange": "/api/v1/token/exchange",
            "introspect": "/api/v1/introspect",
        }
        body = json.dumps(fields).encode()
        began = time.monotonic()
        try:
            writer.write(request_bytes("POST", path[kind], body, {"Content-Type": "application/json"}))
            answer = await read_answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.report.lost_requests += 1
            self._example(f"lost: {kind} {generation=}")
            return False
        self.report.requests += 1
        self.report.outcomes[f"{kind} {answer.status}"] += 1
        if kind == "introspect":
            self._judge_introspection(truth, answer)
        else:
            self._judge_token(
                scope=str(fields["target"]), user=user, answer=answer, began=began, generation=generation
            )
        return answer.header("Connection") != "close"

    def _introspected(self, rng: random.Random) -> tuple[str, str]:
        provider = self._provider
        kind = rng.choice(("valid", "valid", "valid", "expired", "tampered", "foreign", "audience", "junk"))
        now = int(time.time())
        if kind == "valid":
            if len(self._seen) < 200 or rng.random() < 0.3:
                key = rng.choice((provider.published[0], provider.key))
                self._seen.append(provider.mint(key=key, roles=[str(rng.random())]))
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

    def _judge_introspection(self, truth: str, answer: Answer) -> None:
        if answer.status != 200:
            self._wrong(f"introspection answered {answer.status}")
            return
        if not isinstance(answer.json.get("active"), bool):
            self._wrong(f"introspection answered without a verdict: {answer}")
            return
        active, error = answer.json["active"], answer.json.get("error")
        if error is not None and error.startswith("keys of the token issuer are not available"):
            if self._has_keys:
                self.report.false_rejections += 1
                self._example(f"false rejection: {error}")
            return
        self._has_keys = self._has_keys or active
        if truth == "" and not active:
            self.report.false_rejections += 1
            self._example(f"false rejection: {error}")
        elif truth and (active or not _same_reason(truth, error)):
            self._wrong(f"introspection of a token for which '{truth}': {answer.json}")

    def _judge_token(
        self,
        *,
        scope: str,
        user: tuple[str, float] | None,
        answer: Answer,
        began: float,
        generation: int,
    ) -> None:
        now = time.time()
        key = (scope, user[0] if user else None)
        if answer.status == 200:
            token = self._issued.get(answer.json["access_token"])
            if token is None or (token.scope, token.assertion) != key:
                self._wrong("a token that was not issued for this")
                return
            took = time.monotonic() - began
            if token.expires_at <= now - took or (user and user[1] <= now - took):
                self.report.expired_tokens += 1
                self._example(f"expired: token {token.expires_at - now:.2f}, user {user and user[1] - now}")
            if answer.json["expires_in"] > token.expires_at - (now - took) + 1:
                self._wrong("expires_in is more than the token has left")
            if generation == self._generation and token.cacheable:
                self._handed_out[key] = max(token.expires_at, self._handed_out.get(key, 0.0))
            return
        if (
            user
            and user[1] <= now + 0.05
            and answer.status == 400
            and answer.json["error"] == "invalid_grant"
        ):
            return
        if not self._uncertain(began):
            self._wrong(f"an error without a cause: {answer.status} {answer.json}")
        known = self._handed_out.get(key, 0.0) if generation == self._generation else 0.0
        # Times in tokens and in the provider's answers are whole seconds: up to two are lost in rounding.
        if known > now + 2 and (user is None or user[1] > now + 2):
            self._wrong(f"an error although a token is valid for {known - now:.1f} s: {answer.json}")

    def _uncertain(self, began: float) -> bool:
        """Whether a fault may have had to do with a request that began then."""
        return self._fault_active or self._fault_ended + AFTERMATH > began

    def _wrong(self, what: str) -> None:
        self.report.wrong_answers += 1
        self._example(what)

    def _example(self, what: str) -> None:
        if len(self.report.examples) < 20:
            self.report.examples.append(f"{time.monotonic() - self._started:.2f} s: {what}"[:300])


def _same_reason(truth: str, error: str) -> bool:
    return error == truth or (truth == "token is not a JWT" and error.startswith(truth))


def slope(samples: list[tuple[float, int, int, int]]) -> float:
    """KiB per 10,000 requests, by least squares, of the process that served longest, without its first third
    (caches fill, the allocator warms up)."""
    by_process: dict[int, list[tuple[int, int]]] = {}
    for _, process, requests, resident in samples:
        by_process.setdefault(process, []).append((requests, resident))
    if not by_process:
        return 0.0
    longest = max(by_process.values(), key=len)
    points = longest[len(longest) // 3 :]
    if len(points) < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 10_000 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def picture(report: Report) -> str:
    """Memory and requests over time, with the faults behind them."""
    width, height, left, top = 960, 420, 70, 60
    plot_w, plot_h = width - left - 80, height - top - 70
    seconds = max([report.seconds, *(moment for moment, *_ in report.memory)])
    highest = max([1, *(resident for *_, resident in report.memory)]) * 1.15
    most = max(1, report.requests)

    def x(moment: float) -> float:
        return left + plot_w * moment / seconds

    bands = "".join(
        f'<rect x="{x(begin):.1f}" y="{top}" width="{max(1.0, x(end) - x(begin)):.1f}" height="{plot_h}">'
        f"<title>{name}, {begin:.1f} s to {end:.1f} s</title></rect>"
        for begin, end, name in report.faults
    )
    lines = {1: "", 2: ""}
    for generation in sorted({process for _, process, _, _ in report.memory}):
        own = [sample for sample in report.memory if sample[1] == generation]
        memory = " ".join(f"{x(m):.1f},{top + plot_h * (1 - kib / highest):.1f}" for m, _, _, kib in own)
        served_so_far = " ".join(f"{x(m):.1f},{top + plot_h * (1 - n / most):.1f}" for m, _, n, _ in own)
        lines[1] += f'<polyline class="memory" points="{memory}"/>'
        lines[2] += f'<polyline class="requests" points="{served_so_far}"/>'
    ticks = "".join(
        f'<text x="{left - 8}" y="{top + plot_h * (1 - part) + 4:.1f}" text-anchor="end">'
        f"{highest * part / 1024:.0f}</text>"
        f'<text x="{left + plot_w + 8}" y="{top + plot_h * (1 - part) + 4:.1f}">'
        f"{most * part / 1000:.1f}k</text>"
        f'<text x="{x(seconds * part):.1f}" y="{top + plot_h + 18}" text-anchor="middle">'
        f"{seconds * part:.0f} s</text>"
        for part in (0, 0.25, 0.5, 0.75, 1)
    )
    summary = (
        f"{report.requests} requests, {len(report.faults)} faults: {report.wrong_answers} wrong answers, "
        f"{report.expired_tokens} expired tokens, {report.false_rejections} false rejections, "
        f"{report.lost_requests} lost"
    )
    style = (
        "svg {background: #fff; fill: #1f2933} rect {fill: #f2994a; opacity: .22} "
        "polyline {fill: none; stroke-width: 2} .memory {stroke: #1f5fae} "
        ".requests {stroke: #3b8a3e; stroke-dasharray: 5 3} .frame {fill: none; opacity: 1; stroke: #9aa5b1}"
    )
    legend = (
        (
            0,
            "#1f5fae",
            f"memory, MiB (slope {report.rss_slope_kib_per_10k:.0f} KiB per 10,000 requests)",
        ),
        (400, "#3b8a3e", "requests answered (right)"),
        (590, "#b06a1f", "shaded: a fault is active"),
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f"<style>{style}</style>",
            f'<text x="{left}" y="24" font-size="16" font-weight="bold">'
            f"A sidecar under faults (seed {report.seed})</text>",
            f'<text x="{left}" y="44">{summary}</text>',
            bands,
            f'<rect class="frame" x="{left}" y="{top}" width="{plot_w}" height="{plot_h}"/>',
            lines[1] + lines[2] + ticks,
            *(
                f'<text x="{left + at}" y="{height - 18}" style="fill: {color}">{text}</text>'
                for at, color, text in legend
            ),
            "</svg>\n",
        )
    )


def table(report: Report) -> str:
    """The report for people."""
    figures = report.as_json()
    rows = [f"{name:>24}  {figures[name]}" for name in figures if name not in ("outcomes", "faults")]
    rows += [f"{name:>24}  {count}" for name, count in sorted(report.outcomes.items())]
    rows += [
        f"{'fault: ' + name:>24}  {count}" for name, count in Counter(n for *_, n in report.faults).items()
    ]
    return "\n".join([*rows, *(f"  {example}" for example in report.examples)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Throw all faults at a sidecar under load.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benches/results"))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}: repeat this run with --seed {arguments.seed}", flush=True)
    report = asyncio.run(Chaos(arguments.seed, arguments.seconds, arguments.clients).run())
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "chaos.json").write_text(json.dumps(report.as_json(), indent=2) + "\n")
    (arguments.out / "chaos.svg").write_text(picture(report))
    print(table(report))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
