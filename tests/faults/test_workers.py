"""Several processes as one sidecar: what one of them knows all know, and what happens to one hurts no other.

Real processes, real connections. The kernel spreads connections over the workers by their ports; with as many
as are opened here, each worker gets some (that all 24 land in one of two has a probability of 2**-23).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.exposition import Exposition
from support.fast_path import EXCHANGE, form_request, json_request
from support.keys import Key
from support.process import Process, Serve, children, inherited
from support.provider import CLIENT_KEY, Provider, after, segment
from support.several import KINDS, Several, several
from support.sidecars import eventually
from support.wire import Answer, Caller, Crowd, read_answer, request_bytes

CONNECTIONS = 24
JSON = {"Content-Type": "application/json"}


def token_request(**more: object) -> bytes:
    fields = {"identity_provider": "entra_id", "target": "api://c.n.a/.default", **more}
    return request_bytes("POST", "/api/v1/token", json.dumps(fields).encode(), JSON)


def introspection(token: str) -> bytes:
    body = json.dumps({"identity_provider": "entra_id", "token": token}).encode()
    return request_bytes("POST", "/api/v1/introspect", body, JSON)


class Connection:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> Answer:
        self._writer.write(request)
        return await read_answer(self._reader)

    def close(self) -> None:
        self._writer.close()


class Workers:
    """`entra-fast serve --workers N`, seen from outside."""

    def __init__(self, process: Process, address: str, probes: str) -> None:
        self.process = process
        self.call = Caller(address)
        self.probe = Caller(probes)
        self.pid = process.process.pid

    def pids(self) -> list[int]:
        """The workers' process ids."""
        return children(self.pid)

    async def metrics(self) -> Exposition:
        return Exposition((await self.probe.get("/metrics")).body.decode())

    async def until(self, condition: Callable[[Exposition], bool]) -> Exposition:
        """Wait until the metrics are so."""
        found = Exposition("")

        async def so() -> bool:
            found.text = (await self.metrics()).text
            return condition(found)

        await eventually(so)
        return found

    async def all_serve(self, workers: int = 2) -> None:
        await self.until(lambda m: m["entra_fast_workers"] == workers and m["entra_fast_ready"] == 1)

    @asynccontextmanager
    async def connections(self, count: int = CONNECTIONS) -> AsyncIterator[list[Connection]]:
        opened = [Connection(*await self.call.connect()) for _ in range(count)]
        try:
            yield opened
        finally:
            for connection in opened:
                connection.close()

    async def by_worker(self, connections: list[Connection]) -> dict[int, list[Connection]]:
        """Which worker has which connection: sends a request over each, and looks which count increases."""
        found: dict[int, list[Connection]] = {0: [], 1: []}
        for connection in connections:
            before = await self.metrics()
            await connection.ask(token_request())
            now = await self.metrics()
            (number,) = (n for n in found if requests_of(now, n) > requests_of(before, n))
            found[number].append(connection)
        return found

    def logged(self, message: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.process.lines]
        return [line for line in parsed if line["message"] == message]

    def pid_of(self, number: int) -> int:
        """The process id of the worker with this number, which is an argument of the process."""
        for pid in self.pids():
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if arguments[arguments.index(b"-m") + 2] == str(number).encode():
                return pid
        raise AssertionError(f"no worker {number}")


def requests_of(metrics: Exposition, number: int) -> float:
    return metrics.get(f'entra_fast_worker_requests_total{{worker="{number}"}}', 0)


def given(pid: int) -> bytes:
    """What a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def gone(*pids: int) -> None:
    async def all_gone() -> bool:
        return not any(map(alive, pids))

    await eventually(all_gone)


async def start(
    serve: Serve, provider: Provider | Several, workers: int = 2, **changes: str | None
) -> Workers:
    process = await serve(
        provider.environment(PROBE_BIND_ADDRESS="127.0.0.1:0", **changes), "--workers", str(workers)
    )
    await process.listening()
    (line,) = [line for line in map(json.loads, process.lines) if line["message"] == "listening"]
    sidecar = Workers(process, line["address"], line["probes"])
    await sidecar.all_serve(workers)
    return sidecar


def counting(provider: Provider) -> None:
    """From now on the provider numbers the tokens that it issues."""
    granted = 0

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        nonlocal granted
        granted += 1
        token = provider.mint(aud=form["scope"], number=granted)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": provider.lifetime, "access_token": token}
        )

    provider.always = script


def number_of(answer: Answer) -> int:
    assert answer.status == 200, answer
    number: int = segment(answer.json["access_token"], 1)["number"]
    return number


# --- as one ---


async def test_requests_spread_and_the_provider_is_asked_once(serve: Serve, provider: Provider) -> None:
    """Under concurrent load on all workers: one request for the token, one for the key set, one for the
    discovery document; afterwards every worker answers from its own cache."""
    sidecar = await start(serve, provider)
    release = asyncio.Event()
    provider.then(after(release, provider))
    async with sidecar.connections() as connections:
        asked = [asyncio.create_task(connection.ask(token_request())) for connection in connections]
        await provider.asked(1)
        release.set()
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {200}
        assert len({answer.json["access_token"] for answer in answers}) == 1
        mine = [provider.mint() for _ in connections]
        results = await asyncio.gather(
            *(connection.ask(introspection(t)) for connection, t in zip(connections, mine, strict=True))
        )
        assert all(answer.json["active"] for answer in results)
        for connection in connections:
            assert (await connection.ask(token_request())).status == 200
    metrics = await sidecar.metrics()
    assert (len(provider.requests), provider.jwks_requests, provider.discovery_requests) == (1, 1, 1)
    assert all(requests_of(metrics, number) > 0 for number in (0, 1))


async def test_every_worker_serves_every_provider(serve: Serve) -> None:
    """Tokens of each kind of provider are verified with its own keys, and its tokens are fetched once for all
    workers, with everything that the request for them has."""

    def request(path: str, **fields: object) -> bytes:
        return request_bytes("POST", path, json.dumps(fields).encode(), JSON)

    async with several() as providers:
        sidecar = await start(serve, providers)
        details = [{"type": "urn:altinn:systemuser"}]
        async with sidecar.connections() as connections:
            for kind in KINDS:
                for connection in connections:
                    token = providers.mint(kind.name)
                    body = {"identity_provider": kind.name, "token": token}
                    assert (await connection.ask(request("/api/v1/introspect", **body))).json["active"]
                    body = {"identity_provider": kind.name, "target": kind.target}
                    if kind.issues:
                        more = {"authorization_details": details} if kind.knows_details else {}
                        answered = await connection.ask(request("/api/v1/token", **body, **more))
                        assert answered.status == 200, answered.body
                user = providers.mint("idporten")
                if kind.exchanges:
                    for connection in connections:
                        exchange = request("/api/v1/token/exchange", **body, user_token=user)
                        assert (await connection.ask(exchange)).status == 200
                asked = len(providers[kind.name].requests)
                assert asked == kind.issues + kind.exchanges, kind.name
        (request_of_details,) = providers["maskinporten"].requests
        assert segment(request_of_details.form["assertion"], 1)["authorization_details"] == details
        readiness = (await sidecar.probe.get("/readyz")).json
        assert [each["name"] for each in readiness["providers"]] == [kind.name for kind in KINDS]
        metrics = await sidecar.metrics()
        for kind in KINDS:
            of = f'identity_provider="{kind.name}"'
            assert metrics[f"entra_fast_introspections_total{{{of}}}"] == CONNECTIONS
            assert metrics[f"entra_fast_key_set_keys{{{of}}}"] == 1
            tokens = CONNECTIONS * (kind.issues + kind.exchanges)
            for endpoint in ("token", "exchange"):
                series = f'{{{of},endpoint="{endpoint}",status="200"}}'
                offered = kind.issues if endpoint == "token" else kind.exchanges
                assert metrics.get(f"entra_fast_requests_total{series}") == CONNECTIONS * offered
            fetched = kind.issues + kind.exchanges
            assert metrics.get(f"entra_fast_tokens_from_cache_total{{{of}}}") == tokens - fetched


async def test_workers_never_share_a_token_between_providers(serve: Serve) -> None:
    """The same target and user at several providers, in JSON and in forms, twice at every worker: each
    provider is asked once, and its token goes to those who named it."""
    async with several(*(kind for kind in KINDS if kind.exchanges)) as providers:
        providers.grant_alike()
        sidecar = await start(serve, providers)
        fields = {"target": "shared", "user_token": providers.mint("entra_id")}
        async with sidecar.connections() as connections:
            for _ in range(2):
                for connection in connections:
                    for kind in providers.kinds:
                        named = {"identity_provider": kind.name, **fields}
                        for request in (json_request(EXCHANGE, named), form_request(EXCHANGE, named)):
                            token = (await connection.ask(request)).json["access_token"]
                            assert token.startswith(f"{kind.name}-")
        assert {len(providers[kind.name].requests) for kind in providers.kinds} == {1}


async def test_metrics_are_of_the_whole(serve: Serve, provider: Provider) -> None:
    """Counters, gauges and histograms are sums over the workers; each request counts once."""
    sidecar = await start(serve, provider)
    token = provider.mint()
    async with sidecar.connections() as connections:
        for connection in connections:
            assert (await connection.ask(token_request())).status == 200
            assert (await connection.ask(introspection(token))).json["active"]
            assert not (await connection.ask(introspection("nonsense"))).json["active"]
        metrics = await sidecar.metrics()
        assert metrics["entra_fast_connections"] == CONNECTIONS
    assert (await sidecar.call.get("/metrics")).status == 404  # there is a listener for them
    assert metrics['entra_fast_requests_total{endpoint="token",status="200"}'] == CONNECTIONS
    assert metrics['entra_fast_requests_total{endpoint="introspect",status="200"}'] == 2 * CONNECTIONS
    assert metrics['entra_fast_introspections_total{active="true"}'] == CONNECTIONS
    assert metrics['entra_fast_introspections_total{active="false"}'] == CONNECTIONS
    assert metrics['entra_fast_introspections_rejected_total{code="not_a_jwt"}'] == CONNECTIONS
    assert metrics['entra_fast_request_duration_seconds_count{endpoint="token"}'] == CONNECTIONS
    assert metrics['entra_fast_request_duration_seconds_bucket{endpoint="token",le="+Inf"}'] == CONNECTIONS
    assert metrics['entra_fast_upstream_requests_total{grant="client_credentials",outcome="ok"}'] == 1
    assert requests_of(metrics, 0) + requests_of(metrics, 1) == 3 * CONNECTIONS
    assert metrics["entra_fast_workers"] == 2
    assert metrics["entra_fast_fast_path"] == 1
    assert metrics["entra_fast_token_cache_entries"] == 2  # a copy in each worker
    assert metrics["entra_fast_key_set_keys"] == 1
    assert metrics['entra_fast_key_set_requests_total{outcome="ok"}'] == 1


async def test_a_worker_answers_probes_for_the_whole(serve: Serve, provider: Provider) -> None:
    """Without a probe listener, the worker that gets a probe asks the provider process."""
    alone = await serve(provider.environment(ENTRA_FAST_WORKERS="2"))
    call = await alone.listening()

    async def ready() -> bool:
        return (await call.get("/readyz")).status == 200

    await eventually(ready)
    for _ in range(CONNECTIONS):
        assert (await call.token()).status == 200
    found = Exposition((await call.get("/metrics")).body.decode())
    assert found['entra_fast_requests_total{endpoint="token",status="200"}'] == CONNECTIONS
    assert found["entra_fast_workers"] == 2
    assert (await call.get("/healthz")).status == 200


async def test_a_replaced_token_is_never_seen_again(serve: Serve, provider: Provider) -> None:
    """Once skip_cache has been answered at one worker, no connection of any worker gets the older token,
    while all of them ask all the time."""
    sidecar = await start(serve, provider)
    counting(provider)
    replaced = 0
    async with sidecar.connections() as connections, sidecar.connections(4) as skipping:
        done = False
        asked = 0

        async def keep_asking(connection: Connection) -> None:
            nonlocal asked
            while not done:
                known = replaced
                assert number_of(await connection.ask(token_request())) >= known
                asked += 1

        asking = [asyncio.create_task(keep_asking(connection)) for connection in connections]
        for round_ in range(40):
            skipped = await skipping[round_ % 4].ask(token_request(skip_cache=True))
            replaced = number_of(skipped)
            # Every request from now on, even before this task continues, gets it or a newer one.
        done = True
        await asyncio.gather(*asking)
    assert len(provider.requests) == replaced >= 40
    assert asked > 100


async def test_skip_cache_waits_for_every_worker(serve: Serve, provider: Provider) -> None:
    """A worker that does not acknowledge the new token does not keep the old one: it is terminated and
    replaced before skip_cache is answered."""
    sidecar = await start(serve, provider)
    counting(provider)
    async with sidecar.connections() as connections:
        owned = await sidecar.by_worker(connections)
        assert owned[0]
        assert owned[1]
        stopped = sidecar.pid_of(1)
        os.kill(stopped, signal.SIGSTOP)
        late = asyncio.create_task(owned[1][0].ask(token_request()))  # it would give the old token
        assert number_of(await owned[0][0].ask(token_request(skip_cache=True))) == 2
        assert not alive(stopped)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await late
        assert number_of(await owned[0][1].ask(token_request())) == 2
    metrics = await sidecar.until(lambda m: m["entra_fast_workers"] == 2)
    assert metrics['entra_fast_worker_restarts_total{reason="hung"}'] == 1
    for _ in range(CONNECTIONS):  # at the replacement, too
        assert number_of(await sidecar.call.token()) == 2
    assert len(provider.requests) == 2


async def test_a_rotation_costs_one_fetch(serve: Serve, provider: Provider) -> None:
    """A new key that all workers see at once is fetched once, and no token is refused for it."""
    sidecar = await start(serve, provider)
    rotated = Key.generate()
    provider.published.append(rotated)
    async with sidecar.connections() as connections:
        asked = [connection.ask(introspection(provider.mint(key=rotated))) for connection in connections]
        answers = await asyncio.gather(*asked)
    assert all(answer.json["active"] for answer in answers), [answer.json for answer in answers]
    assert provider.jwks_requests == 2


async def test_a_new_key_under_an_old_kid_costs_one_fetch(serve: Serve, provider: Provider) -> None:
    """All workers see it at once: one refresh, and no token is rejected. Forged signatures at every worker
    cause one more."""
    sidecar = await start(serve, provider)
    old, rotated = provider.key, Key.generate().named(provider.key.kid)
    async with sidecar.connections() as connections:
        asked = [connection.ask(introspection(provider.mint())) for connection in connections]
        assert all(answer.json["active"] for answer in await asyncio.gather(*asked))
        provider.published = [rotated]
        asked = [connection.ask(introspection(provider.mint(key=rotated))) for connection in connections]
        answers = await asyncio.gather(*asked)
        assert all(answer.json["active"] for answer in answers), [answer.json for answer in answers]
        assert provider.jwks_requests == 2
        for _ in range(3):
            asked = [connection.ask(introspection(provider.mint(key=old))) for connection in connections]
            answers = await asyncio.gather(*asked)
            assert {answer.json["error"] for answer in answers} == {"token signature is invalid"}
    assert provider.jwks_requests == 3


async def test_the_cool_down_holds_for_the_machine(serve: Serve, provider: Provider) -> None:
    """Unknown keys at every worker, repeatedly: one fetch."""
    sidecar = await start(serve, provider)
    strange = Key.generate()
    async with sidecar.connections() as connections:
        for _ in range(3):
            asked = [connection.ask(introspection(provider.mint(key=strange))) for connection in connections]
            answers = await asyncio.gather(*asked)
            assert {answer.json["error"] for answer in answers} == {"token was signed with an unknown key"}
    assert provider.jwks_requests == 2


async def test_a_renewal_is_made_once(serve: Serve, provider: Provider) -> None:
    """The same renewal is due in each worker; the provider is asked once for it, and all get the token."""
    provider.lifetime = 4
    sidecar = await start(serve, provider)
    counting(provider)
    seen: set[int] = set()
    async with sidecar.connections() as connections:
        while len(seen) < 3:
            answers = await asyncio.gather(*(connection.ask(token_request()) for connection in connections))
            seen.update(map(number_of, answers))
            assert all(answer.json["expires_in"] >= 1 for answer in answers)
    assert seen == {1, 2, 3}  # one that was fetched twice would leave a gap
    assert len(provider.requests) == 3


async def test_users_tokens_are_shared_and_end_with_the_users(serve: Serve, provider: Provider) -> None:
    """An exchanged token is fetched once for all; all refuse an expired user's token."""
    sidecar = await start(serve, provider)
    user = provider.mint(exp=2**33)
    async with sidecar.connections() as connections:
        fields = {"identity_provider": "entra_id", "target": "api://c.n.a/.default", "user_token": user}
        request = request_bytes("POST", "/api/v1/token/exchange", json.dumps(fields).encode(), JSON)
        answers = await asyncio.gather(*(connection.ask(request) for connection in connections))
        assert len({answer.json["access_token"] for answer in answers}) == 1
        fields["user_token"] = provider.mint(exp=1)
        request = request_bytes("POST", "/api/v1/token/exchange", json.dumps(fields).encode(), JSON)
        for answer in await asyncio.gather(*(connection.ask(request) for connection in connections)):
            assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert len(provider.requests) == 1


async def test_errors_are_those_of_one_process(serve: Serve, provider: Provider) -> None:
    """Refusals, Retry-After and errors in a request reach the caller unchanged through the provider
    process."""
    sidecar = await start(serve, provider)

    async def busy(_: web.Request, __: dict[str, str]) -> web.StreamResponse:
        body = {
            "error": "temporarily_unavailable",
            "error_description": "AADSTS90033",
            "error_codes": [90033],
        }
        return web.json_response(body, status=429, headers={"Retry-After": "77"})

    provider.then(busy)
    answers = [await sidecar.call.token() for _ in range(CONNECTIONS)]
    assert {(answer.status, answer.json["error_codes"][0]) for answer in answers} == {(429, 90033)}
    assert {answer.header("Retry-After") for answer in answers} <= {"75", "76", "77"}
    # Nor is a request that nobody remembers sent inside the window.
    inside = await sidecar.call.token(claims="{}")
    assert (inside.status, inside.json["error"]) == (429, "temporarily_unavailable")
    assert inside.header("Retry-After") in {"75", "76", "77"}
    assert len(provider.requests) == 1
    wrong = await sidecar.call.token(target='"nonsense"')
    assert (wrong.status, wrong.json["error"]) == (400, "invalid_request")
    assert "target" in wrong.json["error_description"]


async def test_starts_while_the_provider_is_down(serve: Serve, provider: Provider) -> None:
    """Workers serve at once; the probes and introspection say why they are not ready; they recover without a
    restart."""
    provider.failing = True
    process = await serve(provider.environment(PROBE_BIND_ADDRESS="127.0.0.1:0", ENTRA_FAST_WORKERS="2"))
    await process.listening()
    (line,) = [line for line in map(json.loads, process.lines) if line["message"] == "listening"]
    sidecar = Workers(process, line["address"], line["probes"])
    answer = await sidecar.probe.get("/readyz")
    assert answer.status == 503
    assert "503" in answer.json["reason"]
    error = (await sidecar.call.introspect(provider.mint())).json["error"]
    assert error.startswith("keys of the token issuer are not available")
    provider.failing = False
    await sidecar.all_serve()
    assert (await sidecar.call.introspect(provider.mint())).json["active"]


# --- faults ---


async def test_a_crashed_worker_is_replaced_while_the_others_serve(serve: Serve, provider: Provider) -> None:
    """Under load: connections of the other worker are not affected; new ones are served; the replacement
    needs nothing from the provider, and the counts of the crashed worker are kept."""
    sidecar = await start(serve, provider)
    async with sidecar.connections() as connections:
        owned = await sidecar.by_worker(connections)
        killed = sidecar.pid_of(0)
        before = await sidecar.metrics()
        done = False

        async def keep_asking(connection: Connection) -> int:
            answered = 0
            while not done:
                assert (await connection.ask(token_request())).status == 200
                answered += 1
            return answered

        asking = [asyncio.create_task(keep_asking(connection)) for connection in owned[1]]
        os.kill(killed, signal.SIGKILL)
        # A connection that is not accepted yet waits for the replacement: none is refused or reset.
        fresh = await asyncio.gather(*(sidecar.call.token() for _ in range(CONNECTIONS)))
        assert {answer.status for answer in fresh} == {200}
        now = await sidecar.until(
            lambda m: (
                m.get('entra_fast_worker_restarts_total{reason="ended"}') == 1
                and m["entra_fast_workers"] == 2
            )
        )
        done = True
        assert all(await asyncio.gather(*asking))
    assert not alive(killed)
    assert sidecar.pid_of(0) != killed
    assert requests_of(now, 0) >= requests_of(before, 0)
    assert len(provider.requests) == 1
    assert provider.jwks_requests == 1
    for _ in range(CONNECTIONS):
        assert (await sidecar.call.introspect(provider.mint())).json["active"]
    (line,) = sidecar.logged("worker ended")
    assert (line["number"], line["status"]) == (0, -signal.SIGKILL)


async def test_a_worker_that_hangs_is_replaced(serve: Serve, provider: Provider) -> None:
    """Even if no token is replaced: the provider process checks its workers."""
    sidecar = await start(serve, provider)
    stopped = sidecar.pid_of(0)
    os.kill(stopped, signal.SIGSTOP)
    await sidecar.until(
        lambda m: (
            m.get('entra_fast_worker_restarts_total{reason="hung"}') == 1 and m["entra_fast_workers"] == 2
        )
    )
    assert not alive(stopped)
    assert sidecar.pid_of(0) != stopped


def without_signature(provider: Provider, count: int) -> list[str]:
    """Distinct tokens that only their signature invalidates, each different."""
    header, payload, signature = provider.mint(padding="x" * 600).split(".")
    length = len(base64.urlsafe_b64decode(signature + "=="))
    random = [base64.urlsafe_b64encode(os.urandom(length)).rstrip(b"=").decode() for _ in range(count)]
    return [f"{header}.{payload}.{each}" for each in random]


@pytest.mark.parametrize(("connections", "fast_path"), [(200, "true"), (40, "false")], ids=["fast", "slow"])
async def test_overload_is_no_hang(
    serve: Serve, provider: Provider, connections: int, fast_path: str
) -> None:
    """Hundreds of connections that send 150 invalid signatures each at once: each gets 150 answers, all
    right; no connection is reset, no worker is replaced; a cached token and skip_cache are answered
    meanwhile."""
    requests = 150
    sidecar = await start(serve, provider, ENTRA_FAST_FAST_PATH=fast_path)
    assert (await sidecar.call.token()).status == 200
    pids = sidecar.pids()
    forged = [introspection(token) for token in without_signature(provider, 500)]
    valid = introspection(provider.mint())
    attacking, beside = True, []

    async def attack(number: int) -> None:
        chosen = [forged[(number * requests + each) % len(forged)] for each in range(requests - 1)]
        reader, writer = await sidecar.call.connect()
        writer.write(b"".join(chosen[:100]) + valid + b"".join(chosen[100:]))
        active = [(await read_answer(reader)).json["active"] for _ in range(requests)]
        assert [position for position, is_active in enumerate(active) if is_active] == [100]
        writer.close()

    async def keep_asking(*, skip_cache: bool) -> None:
        while attacking:
            answer = await sidecar.call.token(skip_cache=skip_cache)
            beside.append(answer.status)

    asking = [asyncio.create_task(keep_asking(skip_cache=skip_cache)) for skip_cache in (False, True)]
    async with asyncio.timeout(120):
        await asyncio.gather(*map(attack, range(connections)))
        attacking = False
        await asyncio.gather(*asking)
    assert set(beside) == {200}
    assert sidecar.pids() == pids
    assert not sidecar.logged("worker does not respond")
    metrics = await sidecar.metrics()
    assert metrics['entra_fast_introspections_total{active="true"}'] == connections


# A worker that never comes back from one kind of request. It uses all of its processor.
SPINNING_WORKER = """#!{python}
import runpy, sys
from entra_fast.sidecar.service import Service
answer = Service.introspect
async def introspect(self, position, token):
    while token == "spin":
        pass
    return await answer(self, position, token)
Service.introspect = introspect
module, sys.argv[1:] = sys.argv[3], sys.argv[4:]  # python -P -m MODULE ...
runpy.run_module(module, run_name="__main__")
"""


async def test_a_worker_that_spins_is_replaced(provider: Provider, tmp_path: Path) -> None:
    """A worker in an endless loop uses its processor like an overloaded one, but does no work."""
    program = tmp_path / "python"
    program.write_text(SPINNING_WORKER.format(python=sys.executable))
    program.chmod(0o755)
    sidecar = await start_with(
        provider,
        f"import sys; sys.executable = {str(program)!r}",
        ENTRA_FAST_FAST_PATH="false",
    )
    assert not (await sidecar.call.introspect("no spin")).json["active"]
    pids = sidecar.pids()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await sidecar.call.introspect("spin")
    hung = 'entra_fast_worker_restarts_total{reason="hung"}'
    metrics = await sidecar.until(lambda m: m.get(hung) > 0 and m["entra_fast_workers"] == 2)
    assert metrics[hung] == 1
    assert len(set(pids) & set(sidecar.pids())) == 1
    assert (await sidecar.call.token()).status == 200
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 0


async def test_sigterm_under_load_loses_nothing(serve: Serve, provider: Provider) -> None:
    """Clients that keep calling get a response to every request that they sent, whichever worker serves
    them."""
    sidecar = await start(serve, provider, ENTRA_FAST_DRAIN_DELAY_MILLIS="300")
    crowd = Crowd(sidecar.call, token_request(), CONNECTIONS, requests_each=7)

    async def enough() -> bool:
        return crowd.answered > 500

    await eventually(enough)
    pids = sidecar.pids()
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 0
    await crowd.gone()
    assert crowd.lost == 0
    assert not any(map(alive, pids))


async def test_sigterm_loses_nothing_while_a_crashed_worker_awaits_its_replacement(
    serve: Serve, provider: Provider
) -> None:
    """A last worker, which drains like the others, answers the connections that wait in its socket."""
    sidecar = await start(serve, provider, ENTRA_FAST_DRAIN_DELAY_MILLIS="300")
    assert (await sidecar.call.token()).status == 200
    for crashes in (1, 2, 3):  # the third time, the pause is 0.4 seconds
        await sidecar.all_serve()
        os.kill(sidecar.pid_of(0), signal.SIGKILL)

        async def noticed(crashes: int = crashes) -> bool:
            return len(sidecar.logged("worker ended")) == crashes

        await eventually(noticed)
    async with sidecar.connections() as connections:
        asked = [asyncio.create_task(connection.ask(token_request())) for connection in connections]
        sidecar.process.signal(signal.SIGTERM)
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
    assert await sidecar.process.ended() == 0


async def test_sigterm_lets_requests_under_way_finish(serve: Serve, provider: Provider) -> None:
    """A request that waits for the provider is answered; /readyz fails meanwhile."""
    sidecar = await start(serve, provider)
    release = asyncio.Event()
    provider.then(after(release, provider))
    waiting = asyncio.create_task(sidecar.call.token())
    await provider.asked(1)
    # A signal to all processes of the group has the same effect.
    for pid in (*sidecar.pids(), sidecar.pid):
        os.kill(pid, signal.SIGTERM)
    await eventually(lambda: _draining(sidecar))
    assert (await sidecar.probe.get("/readyz")).json["reason"] == "shutting down"
    release.set()
    assert (await waiting).status == 200
    assert await sidecar.process.ended() == 0


async def test_what_takes_too_long_is_cut_off(serve: Serve, provider: Provider) -> None:
    """The drain time applies to the whole sidecar; exit status 1 says that a request was lost."""
    sidecar = await start(serve, provider, ENTRA_FAST_DRAIN_TIMEOUT_MILLIS="200")
    provider.then(after(asyncio.Event(), provider))
    waiting = asyncio.create_task(sidecar.call.token())
    await provider.asked(1)
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 1
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await waiting


async def test_a_second_signal_is_immediate(serve: Serve, provider: Provider) -> None:
    """It ends all processes."""
    sidecar = await start(serve, provider, ENTRA_FAST_DRAIN_DELAY_MILLIS="600000")
    pids = sidecar.pids()
    sidecar.process.signal(signal.SIGTERM)
    await eventually(lambda: _draining(sidecar))
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 1
    await gone(*pids)


async def test_no_worker_outlives_the_supervisor(serve: Serve, provider: Provider) -> None:
    """Not even one that hangs."""
    sidecar = await start(serve, provider)
    pids = sidecar.pids()
    assert len(pids) == 2
    os.kill(pids[0], signal.SIGSTOP)
    os.kill(sidecar.pid, signal.SIGKILL)
    await sidecar.process.ended()
    await gone(*pids)


async def test_cached_answers_do_not_need_the_provider_process(serve: Serve, provider: Provider) -> None:
    """While the provider process is stopped, cached tokens are served, and no worker is terminated for it
    afterwards."""
    sidecar = await start(serve, provider)
    async with sidecar.connections() as connections:
        token = provider.mint()
        for connection in connections:
            assert (await connection.ask(token_request())).status == 200
        os.kill(sidecar.pid, signal.SIGSTOP)
        try:
            for connection in connections:
                assert (await connection.ask(token_request())).status == 200
                assert (await connection.ask(introspection(token))).json["active"]
            waiting = asyncio.create_task(sidecar.call.token("api://c.n.other/.default"))
        finally:
            os.kill(sidecar.pid, signal.SIGCONT)
        assert (await waiting).status == 200
    metrics = await sidecar.metrics()
    assert metrics.get("entra_fast_worker_restarts_total") == 0


# --- start ---


async def test_workers_hold_no_secret(serve: Serve, provider: Provider) -> None:
    """Neither the environment nor the arguments of a worker has the credential; the supervisor's does."""
    sidecar = await start(serve, provider)
    secret = CLIENT_KEY.private_jwk().encode()
    assert secret in given(sidecar.pid)
    for pid in sidecar.pids():
        seen = given(pid)
        assert b"AZURE_" not in seen
        assert secret not in seen


@pytest.mark.parametrize("workers", ["0", "65", "many", "-1"])
async def test_a_wrong_number_of_workers_stops_the_start(
    serve: Serve, provider: Provider, workers: str
) -> None:
    """One line that names the setting, exit status 2."""
    process = await serve(provider.environment(), f"--workers={workers}")
    assert await process.ended() == 2
    assert len(process.lines) == 1
    assert "ENTRA_FAST_WORKERS" in process.lines[0]


async def test_an_address_is_not_shared_with_another_sidecar(serve: Serve, provider: Provider) -> None:
    """SO_REUSEPORT would let two of them share it, and each get half of the requests."""
    sidecar = await start(serve, provider)
    address = f"127.0.0.1:{sidecar.call.port}"
    other = await serve(provider.environment(BIND_ADDRESS=address), "--workers", "2")
    assert await other.ended() == 2
    assert len(other.lines) == 1
    assert "BIND_ADDRESS" in other.lines[0]
    assert "in use" in other.lines[0]


async def run_python(code: str, environ: dict[str, str]) -> Process:
    return Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            env={**inherited(), **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )


async def given_up(provider: Provider, python: str) -> list[dict[str, Any]]:
    """The log of a supervisor whose workers would run on a Python that does not work: it ends with
    exit status 1."""
    code = (
        "import sys\n"
        f"sys.executable = {python!r}\n"
        "from entra_fast.cli.main import main\n"
        "sys.exit(main(['serve']))\n"
    )
    process = await run_python(code, provider.environment(ENTRA_FAST_WORKERS="2"))
    assert await process.ended() == 1
    return [json.loads(line) for line in process.lines]


async def test_gives_up_when_no_worker_can_be_started(provider: Provider) -> None:
    """Exit status 1, instead of running without serving."""
    lines = await given_up(provider, "/bin/false")
    assert "stopping: no worker could be started" in [line["message"] for line in lines]
    assert {line["reason"] for line in lines if line["message"] == "worker ended"} == {"not_started"}


async def test_says_why_a_worker_cannot_be_started(provider: Provider) -> None:
    """With the file that is missing or must not be run, and not only with the kind of exception."""
    lines = await given_up(provider, "/nowhere/python")
    said = {line["because"] for line in lines if line["message"] == "worker could not be started"}
    assert said == {"[Errno 2] No such file or directory: '/nowhere/python'"}
    assert "worker ended" not in [line["message"] for line in lines]


async def start_with(provider: Provider, limits: str, **changes: str) -> Workers:
    """A sidecar of two workers whose supervisor has other limits."""
    code = (
        "import sys\n"
        "from entra_fast.sidecar.process import supervisor\n"
        f"{limits}\n"
        "from entra_fast.cli.main import main\n"
        "sys.exit(main(['serve']))\n"
    )
    environ = provider.environment(ENTRA_FAST_WORKERS="2", PROBE_BIND_ADDRESS="127.0.0.1:0", **changes)
    process = await run_python(code, environ)
    call, probe = await process.listening(), process.probes()
    sidecar = Workers(process, f"{call.host}:{call.port}", f"{probe.host}:{probe.port}")
    await sidecar.all_serve()
    return sidecar


async def test_a_worker_that_does_not_finish_draining_is_killed(provider: Provider) -> None:
    """Once its own drain time and the slack are over: exit status 1 says that a request was lost."""
    sidecar = await start_with(
        provider,
        "supervisor.DRAIN_SLACK, supervisor.KILL_TIMEOUT = -60, 3600",
        ENTRA_FAST_DRAIN_TIMEOUT_MILLIS="60000",
    )
    pids = sidecar.pids()
    provider.then(after(asyncio.Event(), provider))
    waiting = asyncio.create_task(sidecar.call.token())
    await provider.asked(1)
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 1
    assert not any(map(alive, pids))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await waiting


async def test_a_replacement_after_a_long_pause_listens_again(provider: Provider) -> None:
    """The slot has no listener during such a pause. Afterwards it has a new one at the same address, and
    the replacement gets its share of the connections."""
    sidecar = await start_with(provider, "supervisor.LONG_PAUSE = 0.0")
    os.kill(sidecar.pid_of(0), signal.SIGKILL)
    await sidecar.until(
        lambda m: (
            m.get('entra_fast_worker_restarts_total{reason="ended"}') == 1 and m["entra_fast_workers"] == 2
        )
    )
    before = await sidecar.metrics()
    async with sidecar.connections() as connections:
        for connection in connections:
            assert (await connection.ask(token_request())).status == 200
        now = await sidecar.metrics()
    assert all(requests_of(now, number) > requests_of(before, number) for number in (0, 1))
    sidecar.process.signal(signal.SIGTERM)
    assert await sidecar.process.ended() == 0


async def test_orphans_are_reaped(provider: Provider) -> None:
    """As PID 1 of a container it gets the orphans of others (here: as a subreaper); none stays a zombie,
    whether it ends before the sidecar has started or after."""
    code = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER
        "os.system('sleep 0.01 & sleep 1.5 &')\n"
        "from entra_fast.cli.main import main\n"
        "sys.exit(main(['serve']))\n"
    )
    process = await run_python(code, provider.environment(ENTRA_FAST_WORKERS="2"))
    await process.listening()

    async def only_workers() -> bool:
        return len(children(process.process.pid)) == 2

    await eventually(only_workers)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def _draining(sidecar: Workers) -> bool:
    return bool(sidecar.logged("draining"))
