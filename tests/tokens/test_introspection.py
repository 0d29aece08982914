"""`entra_fast.client`: introspection by a real sidecar, and by servers that are none."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import time
from typing import Any

import pytest
from aiohttp import web

from entra_fast import Claims
from entra_fast.client import AsyncSidecarClient, Introspection, SidecarClient
from entra_fast.errors import ConfigurationError, Forbidden, InvalidToken, KeysUnavailable
from entra_fast.validate import Validator
from support.background import Api
from support.keys import Key
from support.provider import CLIENT_ID, Provider

CLIENTS = [SidecarClient, AsyncSidecarClient]


class Sidecar:
    """A client of either kind, with one interface."""

    def __init__(self, client: SidecarClient | AsyncSidecarClient) -> None:
        self.client = client

    async def introspect(self, token: str | bytes) -> Introspection:
        if isinstance(self.client, AsyncSidecarClient):
            async with self.client as client:
                await client.start()
                return await client.introspect(token)
        with self.client as blocking:
            blocking.start()
            return await asyncio.to_thread(blocking.introspect, token)

    async def validate(self, token: str | bytes) -> Any:
        if isinstance(self.client, AsyncSidecarClient):
            async with self.client as client:
                return await client.validate(token)
        return await asyncio.to_thread(self.client.validate, token)


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[SidecarClient | AsyncSidecarClient]:
    """The class of the client."""
    found: type[SidecarClient | AsyncSidecarClient] = request.param
    return found


@pytest.fixture
def client(kind: Any, sidecar: dict[str, str]) -> Sidecar:
    """A client of a running sidecar."""
    return Sidecar(kind.from_env(sidecar))


@pytest.fixture
def server(kind: Any, api: Api) -> Sidecar:
    """A client of a server that answers from a script."""
    return Sidecar(kind(f"{api.origin}/introspect"))


GROUP = "aaaaaaaa-0000-0000-0000-00000000000"
CLAIMS: dict[str, Any] = {
    "azp": "consumer",
    "groups": [f"{GROUP}1", 2, f"{GROUP}2"],
    "name": "Ada",
    "oid": "user",
    "roles": ["reader"],
    "scp": "cases.read  defaultaccess",
    "tid": "tenant",
    "nested": {"list": [1, {"a": None}]},
    "huge": 12345678901234567890,
}


async def test_an_active_token_has_the_claims_of_a_validator(client: Sidecar, entra: Provider) -> None:
    """Every attribute is that of `Claims`, and so are the values."""
    token = entra.mint(**CLAIMS)
    answer = await client.introspect(token)
    assert (answer.active, answer.error, answer.code) == (True, None, None)
    verified = Validator(entra.issuer, CLIENT_ID, jwks_uri=entra.jwks_uri).validate(token)
    found = answer.require_active()
    assert found is answer.claims
    assert found == verified.as_dict()
    assert found.as_dict() == verified.as_dict()
    assert json.loads(found.as_json()) == verified.as_dict()
    compared = [
        name
        for name in vars(Claims)
        if not name.startswith("_") and not callable(getattr(Claims, name, None))
    ]
    assert len(compared) >= 11
    for name in compared:
        assert getattr(found, name) == getattr(verified, name), name
    assert dict(found.items()) == dict(verified.items())
    assert len(found) == len(verified)
    assert (await client.validate(token.encode())) == verified.as_dict()


def test_the_claims_have_every_member_that_claims_have(entra: Provider, sidecar: dict[str, str]) -> None:
    """So that they can take their place."""
    found = SidecarClient.from_env(sidecar).validate(entra.mint())
    assert [name for name in dir(Claims) if not name.startswith("_") and not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("required", "code"),
    [
        ({"role": "reader", "scope": "cases.read", "group": f"{GROUP}2"}, None),
        ({"role": "writer"}, "role_missing"),
        ({"scope": "cases.write"}, "scope_missing"),
        ({"group": f"{GROUP}3"}, "group_missing"),
    ],
)
async def test_what_may_be_required(
    client: Sidecar, entra: Provider, required: dict[str, str], code: str | None
) -> None:
    """As with `Claims.require`."""
    claims = await client.validate(entra.mint(**CLAIMS))
    if code is None:
        claims.require(**required)
        return
    with pytest.raises(Forbidden) as caught:
        claims.require(**required)
    assert caught.value.code == code


async def test_groups_that_were_left_out(client: Sidecar, entra: Provider) -> None:
    """Are not the same as groups that are missing; nothing required is a mistake."""
    claims = await client.validate(entra.mint(scp="x", _claim_names={"groups": "src1"}, iat=int(time.time())))
    assert claims.has_groups_overage
    with pytest.raises(Forbidden) as caught:
        claims.require(group=f"{GROUP}1")
    assert caught.value.code == "groups_overage"
    with pytest.raises(TypeError):
        claims.require()


async def test_claims_cannot_be_changed(client: Sidecar, entra: Provider) -> None:
    """Nor pickled, because unpickled claims would no longer be those of the sidecar."""
    claims = await client.validate(entra.mint(**CLAIMS))
    claims["groups"].append("forged")
    claims["nested"]["list"].append("forged")
    assert claims["groups"] == CLAIMS["groups"]
    assert claims["nested"] == CLAIMS["nested"]
    assert copy.copy(claims) is copy.deepcopy(claims) is claims
    with pytest.raises(TypeError):
        pickle.dumps(claims)
    assert "Ada" not in repr(claims)


async def test_why_a_token_is_not_active(client: Sidecar, entra: Provider) -> None:
    """The sentence of the sidecar, and the code that a validator would have."""
    now = int(time.time())
    cases: dict[str | bytes, str] = {
        entra.mint(exp=now - 3600): "token_expired",
        entra.mint(nbf=now + 3600): "token_not_yet_valid",
        entra.mint(iat=now + 3600): "issued_in_the_future",
        entra.mint(aud="another"): "wrong_audience",
        entra.mint(iss="https://another.example"): "wrong_issuer",
        entra.mint(iat=None): "claim_missing",
        entra.mint(header={"cty": "x"}): "header_not_accepted",
        entra.mint(key=Key.generate()): "unknown_key",
        "no token": "not_a_jwt",
        b"\xff\xfe": "not_a_jwt",
        "\ud800": "not_a_jwt",
        "x" * 70_000: "token_too_large",
    }
    for token, code in cases.items():
        answer = await client.introspect(token)
        assert not answer.active
        assert answer.claims is None
        assert answer.code == code, answer
        with pytest.raises(InvalidToken) as caught:
            await client.validate(token)
        assert (caught.value.code, caught.value.message) == (code, answer.error)


async def test_a_sidecar_without_keys(
    kind: Any, servers: Any, sidecar: dict[str, str], entra: Provider
) -> None:
    """Says nothing about the token."""
    entra.failing = True
    from entra_fast._settings.load import Settings
    from entra_fast.sidecar.process.running import start_sidecar

    running = servers.run(start_sidecar(Settings.from_environment(entra.environment())))
    client = Sidecar(kind(f"{running.base_url}/api/v1/introspect"))
    answer = await client.introspect(entra.mint())
    assert answer.code == "keys_unavailable"
    with pytest.raises(KeysUnavailable) as caught:
        await client.validate(entra.mint())
    assert caught.value.code == "keys_unavailable"
    servers.run(running.stop())


async def test_a_sidecar_that_is_not_there(kind: Any) -> None:
    """Says nothing about the token."""
    client = Sidecar(kind("http://127.0.0.1:1/api/v1/introspect"))
    with pytest.raises(KeysUnavailable, match="the sidecar did not introspect the token") as caught:
        await client.introspect("token")
    assert caught.value.code == "sidecar_unavailable"


async def test_one_client_serves_many_requests(sidecar: dict[str, str], entra: Provider) -> None:
    """At once, and one after the other; after it was closed, it can be used again."""
    client = AsyncSidecarClient.from_env(sidecar)
    for _ in range(2):
        async with client:
            found = await asyncio.gather(*(client.validate(entra.mint(sub=str(i))) for i in range(10)))
            assert [claims["sub"] for claims in found] == [str(i) for i in range(10)]


async def test_closing_a_client_that_was_not_used() -> None:
    """Does nothing."""
    await AsyncSidecarClient("http://127.0.0.1:1/").aclose()


async def test_waiting_is_bounded(kind: Any, api: Api) -> None:
    """By the timeout."""

    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    api.script = [never]
    with pytest.raises(KeysUnavailable) as caught:
        await Sidecar(kind(f"{api.origin}/", timeout=0.2)).introspect("token")
    assert caught.value.code == "sidecar_unavailable"


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="hello"),
        web.json_response([]),
        web.json_response({}),
        web.json_response({"active": "true"}),
        web.json_response({"active": True}),
        web.json_response({"active": True, "exp": "soon"}),
        web.json_response({"active": True, "exp": 1e10}, status=201),
        web.json_response({"error": "invalid_request", "error_description": "Origin is refused"}, status=403),
        web.json_response({"error_description": "not\nprintable"}, status=400),
        web.Response(status=307, headers={"Location": "/elsewhere"}),
    ],
)
async def test_answers_that_are_none(server: Sidecar, api: Api, answer: web.Response) -> None:
    """Nothing but 200 with `active` is believed."""
    copied = web.Response(status=answer.status, body=answer.body, headers={**answer.headers})
    api.script = [copied]
    with pytest.raises(KeysUnavailable) as caught:
        await server.introspect("the-token")
    assert caught.value.code == "sidecar_unavailable"
    assert ("Origin is refused" in caught.value.message) == (answer.status == 403)
    assert "the-token" not in caught.value.message
    assert len(api.received) == 1


@pytest.mark.parametrize("error", [None, "", 5, "a reason that nobody knows"])
async def test_reasons_without_a_code(server: Sidecar, api: Api, error: object) -> None:
    """A token is still not active."""
    api.script = [web.json_response({"active": False, "error": error})]
    answer = await server.introspect("token")
    assert answer.code == "token_inactive"
    assert answer.error == (error if isinstance(error, str) and error else "token is not active")
    with pytest.raises(InvalidToken):
        answer.require_active()


def test_an_address_is_needed(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or as an argument; clear text is for loopback."""
    monkeypatch.delenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", raising=False)
    for make in (kind, kind.from_env, lambda: kind.from_env({})):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert caught.value.setting == "NAIS_TOKEN_INTROSPECTION_ENDPOINT"
    with pytest.raises(ConfigurationError) as caught:
        kind("http://sidecar.example/introspect")
    assert caught.value.setting == "introspection_endpoint"
    with pytest.raises(ConfigurationError) as caught:
        kind("http://127.0.0.1/introspect", timeout=0)
    assert caught.value.setting == "timeout"
