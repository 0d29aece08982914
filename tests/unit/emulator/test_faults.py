"""Faults, time and keys on demand: a planned fault occurs where, for whom and as often as planned, then no
longer."""

from __future__ import annotations

import json

import aiohttp
import pytest

from entra_fast._native import KeySet, Policy, Validator
from entra_fast.emulator.protocol.faults import KINDS_OF_FAULT, MAX_FAULTS, Faults
from entra_fast.emulator.protocol.keyring import MAX_PUBLISHED_KEYS
from entra_fast.errors import ConfigurationError, InvalidToken
from support.local_entra import Caller, Clock

API = "/admin/api"


async def plan(entra: Caller, **fault: object) -> None:
    answer = await entra.request("POST", f"{API}/faults", json=fault)
    assert answer.status == 201, answer.text


async def verify(entra: Caller, token: str) -> None:
    """As app-b would."""
    tenant = entra.tenant_id("app-b")
    keys = KeySet((await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).text)
    policy = Policy(issuers=[f"{entra.base_url}/{tenant}/v2.0"], audiences=[entra.client_id("app-b")])
    Validator(policy, keys).validate(token, entra.local.now())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("expired_token", "token_expired"),
        ("wrong_audience", "wrong_audience"),
        ("wrong_issuer", "wrong_issuer"),
        ("wrong_signature", "signature_invalid"),
        ("unknown_key", "unknown_key"),
    ],
)
async def test_wrong_tokens(entra: Caller, kind: str, code: str) -> None:
    """A planned wrong token is wrong in exactly that way, once; the next one is right."""
    await plan(entra, kind=kind, count=1)
    wrong = (await entra.m2m("app-a", "app-b")).json["access_token"]
    with pytest.raises(InvalidToken) as caught:
        await verify(entra, wrong)
    assert caught.value.code == code
    await verify(entra, (await entra.m2m("app-a", "app-b")).json["access_token"])


@pytest.mark.parametrize("endpoint", ["token", "keys", "discovery", "any"])
async def test_statuses_at_each_endpoint(entra: Caller, endpoint: str) -> None:
    """A planned status occurs where it is planned and nowhere else."""
    await plan(entra, kind="status", endpoint=endpoint, value=503)
    tenant = entra.tenant_id("app-a")
    statuses = {
        "token": (await entra.m2m("app-a", "app-b")).status,
        "keys": (await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).status,
        "discovery": (await entra.request("GET", f"/{tenant}/v2.0/.well-known/openid-configuration")).status,
    }
    assert statuses == {name: 503 if endpoint in (name, "any") else 200 for name in statuses}


async def test_faults_for_one_application(entra: Caller) -> None:
    """Others are not affected."""
    await plan(entra, kind="aadsts", value=90033, application="dev-gcp:team:app-a")
    assert (await entra.m2m("app-a", "app-b")).code == 90033
    assert (await entra.m2m("app-b", "app-b")).status == 200


async def test_faults_for_a_while(entra: Caller, clock: Clock) -> None:
    """After its time a fault is gone."""
    await plan(entra, kind="aadsts", value=90033, seconds=60)
    assert (await entra.m2m("app-a", "app-b")).status == 503
    clock.now += 61
    assert (await entra.m2m("app-a", "app-b")).status == 200
    assert (await entra.request("GET", f"{API}/faults")).text == "[]"


@pytest.mark.parametrize("kind", ["reset", "truncate"])
async def test_cut_connections(entra: Caller, kind: str) -> None:
    """The client sees a broken connection, not an answer."""
    await plan(entra, kind=kind, count=1)
    with pytest.raises(aiohttp.ClientError):
        await entra.m2m("app-a", "app-b")
    assert (await entra.m2m("app-a", "app-b")).status == 200


async def test_garbage_and_redirects(entra: Caller) -> None:
    """200 with something that is not JSON; 302 to another host."""
    await plan(entra, kind="garbage", count=1)
    answer = await entra.m2m("app-a", "app-b")
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        assert answer.json
    await plan(entra, kind="redirect", count=1)
    answer = await entra.m2m("app-a", "app-b")
    assert (answer.status, answer.headers["Location"]) == (302, "https://elsewhere.invalid/")


async def test_a_delay_is_followed_by_the_answer(entra: Caller) -> None:
    """The request continues after the delay."""
    await plan(entra, kind="delay", value=0.001, count=1)
    assert (await entra.m2m("app-a", "app-b")).status == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "nonsense"},
        {"kind": "delay"},
        {"kind": "delay", "value": 1e6},
        {"kind": "status", "value": 99},
        {"kind": "aadsts", "value": 1},
        {"kind": "reset", "endpoint": "elsewhere"},
        {"kind": "wrong_issuer", "endpoint": "keys"},
        {"kind": "reset", "endpoint": "keys", "application": "dev-gcp:team:app-a"},
        {"kind": "reset", "application": "dev-gcp:team:unknown"},
        {"kind": "reset", "count": 0},
        {"kind": "reset", "seconds": -1},
        {"kind": "reset", "count": "three"},
        {"kind": "reset", "cuont": 3},
        {"kind": "reset", "probability": 0},
        {"kind": "reset", "probability": 1.1},
        {"kind": "reset", "seed": 1},
        {"kind": "reset", "probability": 0.5, "seed": 2**63},
        {"kind": "reset", "sequence": []},
        {"kind": "reset", "sequence": [0]},
        {"kind": "reset", "sequence": [2, 1_000_001]},
        {"kind": "reset", "sequence": list(range(1, 102))},
        {"kind": "reset", "sequence": ["2"]},
        {"kind": "reset", "sequence": [2], "count": 1},
        {"kind": "reset", "sequence": [2], "probability": 0.5},
        {"kind": "slow_down", "endpoint": "keys"},
        {},
    ],
)
async def test_faults_that_make_no_sense(entra: Caller, fault: dict[str, object]) -> None:
    """400 with a sentence, and nothing is planned."""
    answer = await entra.request("POST", f"{API}/faults", json=fault)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert entra.local.faults.planned() == ()


def test_faults_are_bounded() -> None:
    """At most a hundred at a time."""
    faults = Faults(Clock())
    for _ in range(MAX_FAULTS):
        faults.add("reset")
    with pytest.raises(ConfigurationError, match="planned already"):
        faults.add("reset")
    faults.clear()
    assert faults.planned() == ()


def test_every_kind_can_be_planned() -> None:
    """Each kind that is documented exists."""
    faults = Faults(Clock())
    values = {"delay": 1.0, "status": 500.0, "aadsts": 50076.0}
    for kind in KINDS_OF_FAULT:
        faults.add(kind, value=values.get(kind))


async def test_faults_by_sequence(entra: Caller) -> None:
    """The second and the third request fail, counted among those that the fault is about; then it is over."""
    await plan(entra, kind="aadsts", value=90033, application="dev-gcp:team:app-a", sequence=[3, 2])
    statuses = []
    for consumer in ("app-a", "app-b", "app-a", "app-a", "app-a"):
        statuses.append((await entra.m2m(consumer, consumer)).status)
        if len(statuses) == 3:
            (fault,) = (await entra.request("GET", f"{API}/faults")).json
            assert (fault["sequence"], fault["seen"]) == ([2, 3], 2)
    assert statuses == [200, 200, 503, 503, 200]
    assert (await entra.request("GET", f"{API}/faults")).json == []


async def test_faults_with_a_probability(entra: Caller) -> None:
    """The seed decides which requests are hit, and the same one hits the same; a count counts hits."""

    async def hits(**fields: object) -> list[bool]:
        await plan(entra, kind="aadsts", value=90033, probability=0.5, **fields)
        found = [(await entra.m2m("app-a", "app-b")).status == 503 for _ in range(12)]
        entra.local.faults.clear()
        return found

    first = await hits(seed=7)
    assert 0 < sum(first) < 12
    assert await hits(seed=7) == first
    assert sum(await hits(seed=7, count=2)) == 2
    await plan(entra, kind="aadsts", value=90033, probability=0.5)
    (fault,) = (await entra.request("GET", f"{API}/faults")).json
    again = Faults(Clock())
    again.add("reset", probability=0.5, seed=fault["seed"])
    assert [bool(again.take("token")) for _ in range(50)] == [
        bool(entra.local.faults.take("token")) for _ in range(50)
    ]


def test_a_probability_is_one() -> None:
    """About a tenth of the requests."""
    faults = Faults(Clock())
    faults.add("reset", probability=0.1, seed=1)
    assert 60 < sum(bool(faults.take("keys")) + bool(faults.take("token")) for _ in range(1000)) < 140


async def test_a_device_is_told_to_slow_down(entra: Caller) -> None:
    """Only requests with a device code are, by RFC 8628's error, which has no AADSTS code."""
    await plan(entra, kind="slow_down", count=1)
    assert (await entra.m2m("app-a", "app-b")).status == 200
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    form = {"grant_type": grant, "client_id": entra.client_id("app-a"), "device_code": "x"}
    answer = await entra.token(form)
    assert (answer.status, answer.json["error"]) == (400, "slow_down")
    assert (await entra.token(form)).json["error"] != "slow_down"


async def test_the_clock_can_stand(entra: Caller, clock: Clock) -> None:
    """All that is signed and checked has its time: tokens, expiry, the journal; until it moves or runs."""
    put = f"{API}/clock"
    answer = await entra.request("PUT", put, json={"time": "2026-01-31T12:00:00Z", "frozen": True})
    assert answer.json == {"offset": 1769860800 - clock.now, "now": 1769860800.0, "frozen": True}
    clock.now += 10_000
    first = await entra.m2m("app-a", "app-b")
    assert first.claims["iat"] == 1769860800 - 300
    assert entra.local.journal.entries()[0].time == 1769860800
    user = await entra.user_token("app-a", "ada")
    clock.now += 10_000
    assert (await entra.obo("app-a", "app-b", user)).status == 200
    answer = await entra.request("POST", f"{put}/advance", json={"seconds": 10_000})
    assert (answer.json["now"], answer.json["frozen"]) == (1769870800.0, True)
    assert (await entra.obo("app-a", "app-b", user)).code == 500133
    answer = await entra.request("PUT", put, json={"frozen": False})
    assert (answer.json["now"], answer.json["frozen"]) == (1769870800.0, False)
    clock.now += 5
    assert (await entra.request("GET", put)).json["now"] == 1769870805.0
    answer = await entra.request("DELETE", put)
    assert answer.json == {"offset": 0.0, "now": clock.now, "frozen": False}


async def test_the_clock_of_python(entra: Caller, clock: Clock) -> None:
    """The same by methods; a frozen clock can be set by its offset, too."""
    local = entra.local
    local.freeze_clock(1_700_000_000)
    clock.now += 1
    assert local.now() == 1_700_000_000
    local.advance_clock(-10)
    assert local.now() == 1_699_999_990
    local.set_clock_offset(60)
    assert (local.now(), local.clock_offset) == (clock.now + 60, 60)
    clock.now += 40
    assert (local.now(), local.clock_offset) == (clock.now + 20, 20)
    local.release_clock()
    local.freeze_clock()
    assert local.now() == clock.now
    with pytest.raises(ConfigurationError, match="at most"):
        local.freeze_clock(1e12)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("", {}, "pass 'offset', 'time' or 'frozen'"),
        ("", {"offset": 1, "time": 1}, "pass either 'offset' or 'time'"),
        ("", {"time": "noon"}, "time: 'noon' is neither a time such as"),
        ("", {"time": 1e12}, "at most"),
        ("", {"frozen": "yes"}, "frozen: expected true or false"),
        ("/advance", {}, "seconds: required, but missing"),
        ("/advance", {"seconds": 1e12}, "at most"),
    ],
)
async def test_a_clock_that_makes_no_sense(
    entra: Caller, clock: Clock, path: str, body: dict[str, object], sentence: str
) -> None:
    """400 with a sentence, and it stays where it was."""
    method = "POST" if path else "PUT"
    answer = await entra.request(method, f"{API}/clock{path}", json=body)
    assert answer.status == 400
    assert sentence in answer.json["error_description"]
    assert entra.local.now() == clock.now


async def test_the_clock_can_be_wrong(entra: Caller, clock: Clock) -> None:
    """Tokens are issued with the wrong time, until it is corrected."""
    answer = await entra.request("PUT", f"{API}/clock", json={"offset": 7200})
    assert answer.json == {"offset": 7200.0, "now": clock.now + 7200, "frozen": False}
    assert (await entra.m2m("app-a", "app-b")).claims["iat"] > clock.now
    assert (await entra.request("PUT", f"{API}/clock", json={"offset": 1e12})).status == 400
    await entra.request("PUT", f"{API}/clock", json={"offset": 0})
    assert (await entra.m2m("app-a", "app-b")).claims["iat"] < clock.now


async def test_announced_rotation(entra: Caller) -> None:
    """The next key was already published: a client with the old key set can verify new tokens, and old ones
    stay valid."""
    tenant = entra.tenant_id("app-b")
    before = (await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).json["keys"]
    old = (await entra.m2m("app-a", "app-b")).json["access_token"]
    await entra.request("POST", f"{API}/keys/rotate", json={})
    after = (await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).json["keys"]
    new = (await entra.m2m("app-a", "app-b")).json["access_token"]
    from entra_fast._native import unverified_header

    assert unverified_header(new)["kid"] != unverified_header(old)["kid"]
    assert unverified_header(new)["kid"] in [key["kid"] for key in before]
    assert len(after) == len(before) + 1
    await verify(entra, old)
    await verify(entra, new)


async def test_unannounced_rotation(entra: Caller) -> None:
    """The new key was not in the old set; the standby stays the next one."""
    from entra_fast._native import unverified_header

    before = dict(entra.local.keyring.describe())
    await entra.request("POST", f"{API}/keys/rotate", json={"announced": False})
    new = (await entra.m2m("app-a", "app-b")).json["access_token"]
    assert unverified_header(new)["kid"] not in before
    await verify(entra, new)
    await entra.request("POST", f"{API}/keys/rotate", json={"announced": True})
    assert entra.local.keyring.active.kid in before


async def test_withdrawal(entra: Caller) -> None:
    """Tokens of the withdrawn key no longer verify; another key takes over; an unknown kid is an error."""
    old = (await entra.m2m("app-a", "app-b")).json["access_token"]
    kid = entra.local.keyring.active.kid
    answer = await entra.request("DELETE", f"{API}/keys/{kid}")
    assert {"kid": kid, "state": "withdrawn"} in answer.json
    with pytest.raises(InvalidToken) as caught:
        await verify(entra, old)
    assert caught.value.code == "unknown_key"
    await verify(entra, (await entra.m2m("app-a", "app-b")).json["access_token"])
    assert (await entra.request("DELETE", f"{API}/keys/{kid}")).status == 400


async def test_published_keys_are_bounded(entra: Caller) -> None:
    """Rotating forever does not grow the key set."""
    for _ in range(MAX_PUBLISHED_KEYS + 3):
        entra.local.keyring.rotate()
    states = [state for _, state in entra.local.keyring.describe()]
    assert states.count("signs") == 1
    assert len([state for state in states if state != "withdrawn"]) <= MAX_PUBLISHED_KEYS
    await verify(entra, (await entra.m2m("app-a", "app-b")).json["access_token"])
