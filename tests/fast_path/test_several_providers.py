"""Several providers on the fast path: it answers for each of them as the slow path does, and nothing of one
provider is another's: keys, cached tokens, what waits for keys, renewals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.fast_path import (
    EXCHANGE,
    INTROSPECT,
    TOKEN,
    Connection,
    body,
    connections,
    fast_path_answers,
    form_request,
    json_request,
    status,
)
from support.keys import Key
from support.provider import Provider, segment
from support.several import BY_NAME, KINDS, Kind, Several, several
from support.sidecars import Started, StartSidecar, eventually, sidecars

ANOTHER = Key.generate()
USER = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.c2ln"
DETAILS = '[{"type":"urn:altinn:systemuser","ids":["\\u00e6"]}]'

in_module = pytest.mark.asyncio(loop_scope="module")
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
exchanging = [kind.name for kind in KINDS if kind.exchanges]


class Both:
    """A sidecar with the fast path and one without, at the same providers, with the same stopped clock."""

    def __init__(self, providers: Several, fast: Started, slow: Started) -> None:
        self.providers = providers
        self.fast = fast
        self.slow = slow

    async def answers(self, request: bytes) -> tuple[bytes, bytes, int]:
        """Of both, and how many of them the fast path gave."""
        before = fast_path_answers(self.fast)
        answers = []
        for sidecar in (self.fast, self.slow):
            async with await Connection.to(sidecar) as connection:
                answers.append(await connection.ask(request))
        return answers[0], answers[1], fast_path_answers(self.fast) - before


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Both]:
    async with several() as providers, sidecars(Provider()) as start:
        providers.grant_alike()
        environ, now = providers.environment(), time.time()
        fast = await start(environ=environ)
        slow = await start(environ={**environ, "ENTRA_FAST_FAST_PATH": "false"})
        for sidecar in (fast, slow):
            sidecar.clock.stop(now)
        yield Both(providers, fast, slow)


def spellings(path: str, fields: dict[str, str]) -> dict[str, bytes]:
    """The same request in every spelling that the fast path reads."""
    escaped = "".join(f"\\u{ord(character):04x}" for character in fields["identity_provider"])
    return {
        "JSON": json_request(path, json.dumps(fields, separators=(",", ":")).encode()),
        "JSON, with spaces, null and more": json_request(
            path, {**fields, "skip_cache": None, "more": [{}], "claims": None}
        ),
        "JSON, escaped": json_request(
            path, json.dumps(fields).replace(fields["identity_provider"], escaped).encode()
        ),
        "form": form_request(path, fields),
        "form, escaped": form_request(
            path,
            "&".join(f"{n}=" + "".join(f"%{b:02x}" for b in v.encode()) for n, v in fields.items()).encode(),
        ),
    }


@in_module
@kinds
async def test_each_provider_is_served_on_the_fast_path_in_every_spelling(both: Both, kind: Kind) -> None:
    """Tokens from the cache, exchanged ones, and introspections; byte for byte as on the slow path."""
    own = {"identity_provider": kind.name}
    requests = [(INTROSPECT, own | {"token": both.providers.mint(kind.name)})]
    requests += [(INTROSPECT, own | {"token": both.providers.mint(kind.name, exp=1)})]
    requests += [(INTROSPECT, own | {"token": both.providers.mint(kind.name, aud="somebody else")})]
    requests += [(TOKEN, own | {"target": kind.target})] if kind.issues else []
    requests += [(EXCHANGE, own | {"target": kind.target, "user_token": USER})] if kind.exchanges else []
    for path, fields in requests:
        for name, request in spellings(path, fields).items():
            if path != INTROSPECT and name == "JSON":
                await both.answers(request)  # the provider is asked once
            fast, slow, counted = await both.answers(request)
            assert counted == 1, (path, name)
            assert fast == slow, (path, name)
            assert status(fast) == 200


@in_module
@pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.knows_details])
async def test_details_are_in_the_keys_of_both_paths(both: Both, name: str) -> None:
    """Each combination of `resource` and `authorization_details` is a cached token of its own, whatever its
    spelling; the bytes are the same."""
    own: dict[str, object] = {"identity_provider": name, "target": "a:b"}
    details = json.loads(DETAILS)
    alike: list[list[bytes]] = [
        [json_request(TOKEN, own), json_request(TOKEN, own | {"resource": []})],
        [
            json_request(TOKEN, own | {"resource": "r"}),
            json_request(TOKEN, own | {"resource": ["r"]}),
            form_request(TOKEN, {"identity_provider": name, "target": "a:b", "resource": "r"}),
        ],
        [json_request(TOKEN, own | {"resource": ["r", "s"]})],
        [json_request(TOKEN, own | {"resource": ["s", "r"]})],
        [json_request(TOKEN, own | {"resource": "rs"})],
        [
            json_request(TOKEN, own | {"authorization_details": DETAILS}),
            form_request(
                TOKEN, {"identity_provider": name, "target": "a:b", "authorization_details": DETAILS}
            ),
            json_request(
                TOKEN,
                f'{{"identity_provider":"{name}","target":"a:b","authorization_details":{DETAILS}}}'.encode(),
            ),
        ],
        [json_request(TOKEN, own | {"authorization_details": details, "resource": ["r"]})],
    ]
    seen: list[bytes] = []
    for requests in alike:
        before = len(both.providers[name].requests)
        await both.answers(requests[0])
        assert len(both.providers[name].requests) == before + 2, "both sidecars asked"
        for request in requests:
            fast, slow, counted = await both.answers(request)
            assert counted == 1
            assert fast == slow
            seen.append(body(fast))
        assert len(set(seen[-len(requests) :])) == 1
    assert len(set(seen)) == len(alike)


BY_SLOW_PATH: dict[str, tuple[str, dict[str, object]]] = {
    "no provider": (TOKEN, {"target": "t"}),
    "provider is null": (EXCHANGE, {"identity_provider": None, "target": "t", "user_token": USER}),
    "provider is empty": (TOKEN, {"identity_provider": "", "target": "t"}),
    "provider in capitals": (TOKEN, {"identity_provider": "TokenX", "target": "t"}),
    "unknown provider": (INTROSPECT, {"identity_provider": "nobody", "token": "a.b.c"}),
    "introspection without a provider": (INTROSPECT, {"token": "a.b.c"}),
    "no token requests": (TOKEN, {"identity_provider": "tokenx", "target": "t"}),
    "no exchange": (EXCHANGE, {"identity_provider": "maskinporten", "target": "t", "user_token": USER}),
    "neither": (TOKEN, {"identity_provider": "idporten", "target": "t"}),
    "resource is a number": (TOKEN, {"identity_provider": "maskinporten", "target": "t", "resource": 1}),
    "resource has a hole": (
        TOKEN,
        {"identity_provider": "maskinporten", "target": "t", "resource": ["a", ""]},
    ),
    "too many resources": (
        TOKEN,
        {"identity_provider": "maskinporten", "target": "t", "resource": ["a"] * 17},
    ),
    "details are no array": (
        TOKEN,
        {"identity_provider": "maskinporten", "target": "t", "authorization_details": {"type": "a"}},
    ),
    "details are too long": (
        TOKEN,
        {"identity_provider": "maskinporten", "target": "t", "authorization_details": [{"a": "x" * 8192}]},
    ),
    "a challenge": (TOKEN, {"identity_provider": "entra_id", "target": "t", "claims": "{}"}),
    "a wrong challenge": (TOKEN, {"identity_provider": "entra_id", "target": "t", "claims": "x"}),
}


@in_module
@pytest.mark.parametrize("name", BY_SLOW_PATH)
async def test_other_requests_take_the_slow_path(both: Both, name: str) -> None:
    """Byte for byte as without a fast path."""
    path, fields = BY_SLOW_PATH[name]
    fast, slow, counted = await both.answers(json_request(path, fields))
    assert counted == 0
    assert fast == slow


@in_module
async def test_the_same_user_and_target_are_another_token_at_every_provider(both: Both) -> None:
    """In JSON and in forms, from the provider and from the cache, with an older name as well."""
    fields = {"target": "shared", "user_token": USER}
    found: dict[str, set[bytes]] = {name: set() for name in exchanging}
    for _ in range(2):
        for name in [*exchanging, "azuread"]:
            of = found["entra_id" if name == "azuread" else name]
            named = {"identity_provider": name, **fields}
            for request in (json_request(EXCHANGE, named), form_request(EXCHANGE, named)):
                fast, slow, _ = await both.answers(request)
                of |= {body(fast), body(slow)}
    assert [len(bodies) for bodies in found.values()] == [1] * len(exchanging)
    assert len(set.union(*found.values())) == len(exchanging)
    for name, (token,) in found.items():
        assert json.loads(token)["access_token"].startswith(name)


# --- keys ---


def introspecting(kind: str, token: str) -> bytes:
    return json_request(INTROSPECT, {"identity_provider": kind, "token": token})


async def waiting(sidecar: Started, requests: int) -> None:
    async def enough() -> bool:
        return sum(c._waiting_since is not None for c in connections(sidecar)) == requests

    await eventually(enough)


@pytest_asyncio.fixture
async def running() -> AsyncIterator[Several]:
    async with several(*(BY_NAME[name] for name in ("entra_id", "tokenx", "maskinporten"))) as providers:
        yield providers


async def test_nothing_waits_for_the_keys_of_another_provider(start: StartSidecar, running: Several) -> None:
    """TokenX keeps its keys back: requests for its tokens wait below aiohttp. Those with known and with new
    keys of Entra ID are answered meanwhile, and requests that wait for Entra ID go on when its keys come."""
    sidecar = await start(environ=running.environment())
    held: dict[str, asyncio.Event] = {}
    crowds: dict[str, list[Connection]] = {}
    for number, name in enumerate(("tokenx", "entra_id"), 1):
        running[name].published = [running[name].key, ANOTHER]
        held[name] = running[name].keys_held = asyncio.Event()
        crowds[name] = first, *rest = [await Connection.to(sidecar) for _ in range(3)]
        first.send(introspecting(name, running.mint(name, key=ANOTHER)))
        await sidecar.received(number)  # it takes the slow path, and causes the fetch
        for connection in rest:
            connection.send(introspecting(name, running.mint(name, key=ANOTHER)))
        await waiting(sidecar, 2 * number)
        async with await Connection.to(sidecar) as connection:
            known = introspecting("entra_id", running.mint("entra_id"))
            assert b'"active":true' in await connection.ask(known)

    held["entra_id"].set()
    for connection in crowds["entra_id"]:
        assert b'"active":true' in await connection.answer()
    await waiting(sidecar, 2)
    held["tokenx"].set()
    for connection in crowds["tokenx"]:
        assert b'"active":true' in await connection.answer()
    assert [running[name].jwks_requests for name in ("entra_id", "tokenx", "maskinporten")] == [2, 2, 1]
    for connection in (*crowds["entra_id"], *crowds["tokenx"]):
        connection.close()


async def test_the_cool_down_of_one_provider_is_no_others(start: StartSidecar, running: Several) -> None:
    """A stranger's key spends the budget of TokenX. Then the fast path itself says no at TokenX, and a new
    key of Entra ID is fetched all the same."""
    sidecar = await start(environ=running.environment())
    assert not (await sidecar.call.introspect(running.mint("tokenx", key=ANOTHER), "tokenx")).json["active"]
    before = fast_path_answers(sidecar)
    assert not (await sidecar.call.introspect(running.mint("tokenx", key=ANOTHER), "tokenx")).json["active"]
    assert fast_path_answers(sidecar) == before + 1
    running["entra_id"].published = [ANOTHER]
    assert (await sidecar.call.introspect(running.mint("entra_id", key=ANOTHER), "entra_id")).json["active"]
    assert [running[name].jwks_requests for name in ("entra_id", "tokenx")] == [2, 2]


# --- renewals and turns ---


async def test_a_renewal_asks_the_provider_of_the_token_for_the_same(
    start: StartSidecar, running: Several
) -> None:
    """With `resource` and `authorization_details`, or the user's token; the caller gets the cached one."""
    sidecar = await start(environ=running.environment())
    machine: dict[str, object] = {
        "identity_provider": "maskinporten",
        "target": "a:b",
        "resource": ["r", "s"],
        "authorization_details": json.loads(DETAILS),
    }
    user = running.mint("entra_id", exp=4_000_000_000)
    exchange = {"identity_provider": "tokenx", "target": "dev-gcp:team:api", "user_token": user}
    asks: list[tuple[str, str, dict[str, object]]] = [
        ("maskinporten", TOKEN, machine),
        ("tokenx", EXCHANGE, dict(exchange)),
    ]
    old = {name: (await sidecar.call.json(path, fields)).json["access_token"] for name, path, fields in asks}
    sidecar.clock.advance(3400)
    before = fast_path_answers(sidecar)
    for name, path, fields in asks:
        assert (await sidecar.call.json(path, fields)).json["access_token"] == old[name]
    assert fast_path_answers(sidecar) == before + 2
    for name, _, _ in asks:
        await running[name].asked(2)
    first, second = (segment(each.form["assertion"], 1) for each in running["maskinporten"].requests)
    for claim in ("scope", "resource", "authorization_details"):
        assert first[claim] == second[claim]
    assert second["authorization_details"] == json.loads(DETAILS)
    assert [each.form["subject_token"] for each in running["tokenx"].requests] == [user, user]
    assert running["entra_id"].requests == []


async def test_tokens_of_all_providers_share_the_turns(start: StartSidecar, running: Several) -> None:
    """Hundreds of tokens that were not seen before, of several providers in turns on one connection: every
    answer is that of its request, and all count for the same limit."""
    sidecar = await start(environ=running.environment())
    names = [kind.name for kind in running.kinds]
    requests = [introspecting(names[number % 3], f"not.a.token{number}") for number in range(600)]
    valid = {name: running.mint(name) for name in names}
    for number in range(0, 600, 50):
        name = names[number // 50 % 3]
        requests[number] = introspecting(name, valid[name])
    native = sidecar.running.service.fast_path
    assert native is not None
    native.native.begin_turn()
    used = 0
    while not native.native.turn_is_over:
        used += native.native.serve(b"".join(requests[used : used + 40])).answered
    assert used == 128
    native.native.begin_turn()
    async with await Connection.to(sidecar) as connection:
        connection.send(b"".join(requests))
        for number in range(600):
            answered = json.loads(body(await connection.answer()))
            assert answered["active"] is (number % 50 == 0), number
            if answered["active"]:
                assert answered["iss"] == running[names[number // 50 % 3]].issuer
