"""The three endpoints with several providers: each kind, alone and beside the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.exposition import Exposition
from support.keys import Key
from support.provider import answer, refuse, segment
from support.several import ENTRA, KINDS, MASKINPORTEN, TOKENX, Kind, Several, several
from support.sidecars import Started, StartSidecar
from support.wire import Answer

TOKEN, EXCHANGE, INTROSPECT = "/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"
BUILT_IN_NAMES = "'entra_id' (or its older name 'azuread'), 'maskinporten', 'tokenx'"
ALL_NAMES = f"{BUILT_IN_NAMES}, 'idporten' or 'partner'"

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest_asyncio.fixture
async def all_of_them() -> AsyncIterator[Several]:
    async with several() as running:
        yield running


@pytest_asyncio.fixture
async def sidecar(start: StartSidecar, all_of_them: Several) -> Started:
    """A ready sidecar with a provider of each kind."""
    return await start(environ=all_of_them.environment())


def refused(answered: Answer, sentence: str) -> None:
    assert answered.status == 400
    assert answered.json == {"error": "invalid_request", "error_description": sentence}


async def ask(sidecar: Started, path: str, fields: dict[str, object], *, form: bool) -> Answer:
    if form:
        return await sidecar.call.form(path, {name: str(value) for name, value in fields.items()})
    return await sidecar.call.json(path, fields)


@kinds
async def test_a_token_is_active_at_its_own_provider_and_inactive_at_every_other(
    sidecar: Started, all_of_them: Several, kind: Kind
) -> None:
    """Although all of them sign with the same key, under the same `kid`."""
    token = all_of_them.mint(kind.name, sub="me")
    for other in KINDS:
        for _ in range(2):  # verified, and from the cache
            found = (await sidecar.call.introspect(token, other.name)).json
            assert found["active"] is (other is kind), other.name
            if other is not kind:
                assert found == {"active": False, "error": "token has the wrong issuer"}
    assert found["sub"] == "me" if kind is KINDS[-1] else True


async def test_keys_of_providers_are_never_shared(sidecar: Started, all_of_them: Several) -> None:
    """A provider whose key has the `kid` of another's signs a token as that one: the signature is wrong."""
    stranger = Key.generate().named(all_of_them["tokenx"].key.kid)
    forged = all_of_them.mint("tokenx", key=stranger)
    all_of_them["idporten"].published = [stranger]
    assert (await sidecar.call.introspect(forged, "tokenx")).json == {
        "active": False,
        "error": "token signature is invalid",
    }


@kinds
async def test_the_audience_is_that_of_the_provider(
    sidecar: Started, all_of_them: Several, kind: Kind
) -> None:
    """The client id, a setting, or not checked at all: then it may be anything, or absent."""
    for audience in ("somebody else", None, ["a", "b"]):
        found = (await sidecar.call.introspect(all_of_them.mint(kind.name, aud=audience), kind.name)).json
        assert found["active"] is (kind.audience is None), (audience, found)


@pytest.mark.parametrize("form", [False, True])
@kinds
async def test_tokens_are_issued_where_the_provider_issues_them(
    sidecar: Started, all_of_them: Several, kind: Kind, form: bool
) -> None:
    """And from the cache the second time; other pairs are refused before anything is asked."""
    fields: dict[str, object] = {"identity_provider": kind.name, "target": kind.target}
    first = await ask(sidecar, TOKEN, fields, form=form)
    if not kind.issues:
        refused(first, f"identity provider '{kind.name}' does not support token requests")
        assert all_of_them[kind.name].requests == []
        return
    assert first.status == 200, first.body
    again = await ask(sidecar, TOKEN, fields, form=form)
    assert again.json["access_token"] == first.json["access_token"]
    assert len(all_of_them[kind.name].requests) == 1
    assert [len(all_of_them[other.name].requests) for other in KINDS if other is not kind] == [0] * 4


@pytest.mark.parametrize("form", [False, True])
@kinds
async def test_tokens_are_exchanged_where_the_provider_exchanges_them(
    sidecar: Started, all_of_them: Several, kind: Kind, form: bool
) -> None:
    """And from the cache the second time."""
    user = all_of_them.mint("idporten", sub="user")
    fields: dict[str, object] = {
        "identity_provider": kind.name,
        "target": kind.target,
        "user_token": user,
    }
    first = await ask(sidecar, EXCHANGE, fields, form=form)
    if not kind.exchanges:
        refused(first, f"identity provider '{kind.name}' does not support token exchange")
        assert all_of_them[kind.name].requests == []
        return
    assert first.status == 200, first.body
    again = await ask(sidecar, EXCHANGE, fields, form=form)
    assert again.json["access_token"] == first.json["access_token"]
    assert len(all_of_them[kind.name].requests) == 1


async def test_caches_of_providers_are_never_shared(sidecar: Started, all_of_them: Several) -> None:
    """The same target and user at several providers are different tokens."""
    user = all_of_them.mint("idporten")
    tokens = [
        (await sidecar.call.json(TOKEN, {"identity_provider": kind.name, "target": "same"})).json[
            "access_token"
        ]
        for kind in KINDS
        if kind.issues
        for _ in range(2)
    ] + [
        (
            await sidecar.call.json(
                EXCHANGE, {"identity_provider": kind.name, "target": "same", "user_token": user}
            )
        ).json["access_token"]
        for kind in KINDS
        if kind.exchanges
        for _ in range(2)
    ]
    assert len(tokens) == 12
    assert len(set(tokens)) == 6


async def test_only_entra_id_rewrites_targets(sidecar: Started, all_of_them: Several) -> None:
    """Everything else reaches its provider verbatim."""
    user, target = all_of_them.mint("idporten"), "dev-gcp:team:api"
    await sidecar.call.json(EXCHANGE, {"identity_provider": "tokenx", "target": target, "user_token": user})
    await sidecar.call.json(EXCHANGE, {"identity_provider": "entra_id", "target": target, "user_token": user})
    await sidecar.call.json(TOKEN, {"identity_provider": "maskinporten", "target": target})
    assert all_of_them["tokenx"].requests[0].form["audience"] == target
    assert all_of_them["entra_id"].requests[0].form["scope"] == "api://dev-gcp.team.api/.default"
    assert segment(all_of_them["maskinporten"].requests[0].form["assertion"], 1)["scope"] == target


# --- metrics ---


async def test_metrics_have_the_provider(sidecar: Started, all_of_them: Several) -> None:
    """Whichever path answered: each request is counted for its provider, or for none if it is not known."""
    user = all_of_them.mint("idporten")
    for kind in KINDS:
        fields = {"identity_provider": kind.name, "target": kind.target}
        for _ in range(3):
            await sidecar.call.introspect(all_of_them.mint(kind.name), kind.name)
            await sidecar.call.json(TOKEN, fields)
            await sidecar.call.json(EXCHANGE, {**fields, "user_token": user})
        await sidecar.call.introspect("nonsense", kind.name)
    await sidecar.call.json(TOKEN, {"target": "t"})
    await sidecar.call.json(TOKEN, {"target": "t", "identity_provider": "unheard_of"})
    await sidecar.call.introspect("nonsense", "unheard_of")
    found = Exposition((await sidecar.probe.get("/metrics")).body.decode())

    def of(name: str, provider: str, **labels: str) -> float:
        pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
        return found.get(f'entra_fast_{name}{{identity_provider="{provider}",{pairs}}}')

    for kind in KINDS:
        name = kind.name
        for endpoint, offered in (("token", kind.issues), ("exchange", kind.exchanges)):
            assert of("requests_total", name, endpoint=endpoint, status="200") == (3 if offered else 0)
            assert of("requests_total", name, endpoint=endpoint, status="400") == (0 if offered else 3)
            assert of("tokens_from_cache_total", name, endpoint=endpoint) == (2 if offered else 0)
        assert of("requests_total", name, endpoint="introspect") == 4
        assert of("introspections_total", name, active="true") == 3
        assert of("introspections_total", name, active="false") == 1
        assert of("introspections_rejected_total", name, code="not_a_jwt") == 1
        asked = of("upstream_requests_total", name, outcome="ok") - of(
            "upstream_requests_total", name, grant="credential_try"
        )
        assert asked == kind.issues + kind.exchanges
        assert of("key_set_keys", name) == of("key_set_requests_total", name, outcome="ok") == 1
        # Only of a provider that issues tokens.
        for gauge in ("credential_rejected", "upstream_requests_in_flight", "stale_tokens_served_total"):
            assert (f'{gauge}{{identity_provider="{name}"}} 0.0' in found.text) == (name != "idporten")
    assert of("requests_total", "none", endpoint="token", status="400") == 2
    assert of("requests_total", "none", endpoint="introspect", status="200") == 1
    assert of("introspections_rejected_total", "none", code="invalid_request") == 1
    assert "unheard_of" not in found.text


async def test_a_provider_that_is_known_but_not_enabled_is_none_in_metrics(start: StartSidecar) -> None:
    """Only names of enabled providers are values of the label."""
    async with several(MASKINPORTEN) as only:
        sidecar = await start(environ=only.environment())
        await sidecar.call.json(TOKEN, {"target": "t", "identity_provider": "entra_id"})
        await sidecar.call.introspect("nonsense", "tokenx")
        for endpoint, status in (("token", 400), ("introspect", 200)):
            series = f'endpoint="{endpoint}",identity_provider="none",status="{status}"'
            assert await sidecar.metric(f"entra_fast_requests_total{{{series}}}") == 1


async def test_what_goes_wrong_at_one_provider_is_counted_there(
    sidecar: Started, all_of_them: Several
) -> None:
    """In metrics and at /readyz, a rejected credential is that of one provider; the others are well."""
    all_of_them["maskinporten"].then(refuse(400, "invalid_client", "MP-110: no such client"))
    await sidecar.call.json(TOKEN, {"identity_provider": "maskinporten", "target": "scope"})
    found = Exposition((await sidecar.probe.get("/metrics")).body.decode())
    rejected = {
        kind.name: found.get(f'entra_fast_credential_rejected{{identity_provider="{kind.name}"}}')
        for kind in KINDS
    }
    assert rejected == {kind.name: float(kind is MASKINPORTEN) for kind in KINDS}
    errors = 'entra_fast_provider_errors_total{identity_provider="maskinporten"}'
    assert found.get(errors) == found.get("entra_fast_provider_errors_total") == 1
    document = (await sidecar.probe.get("/readyz")).json
    assert document["reason"] == "maskinporten: credential rejected (invalid_client)"
    unwell = [each["name"] for each in document["providers"] if "reason" in each.get("credential", {})]
    assert unwell == ["maskinporten"]


# --- which provider is meant ---


async def test_a_provider_that_is_left_out_is_never_guessed(sidecar: Started, all_of_them: Several) -> None:
    """Several are enabled: the answer names them, whatever the token is."""
    sentence = (
        "identity_provider is missing: expected 'entra_id', 'maskinporten', 'tokenx', 'idporten' or 'partner'"
    )
    token = all_of_them.mint("tokenx")
    for more in ({}, {"identity_provider": None}):
        refused(await sidecar.call.json(TOKEN, {"target": "t", **more}), sentence)
        refused(await sidecar.call.json(EXCHANGE, {"target": "t", "user_token": token, **more}), sentence)
        found = await sidecar.call.json(INTROSPECT, {"token": token, **more})
        assert (found.status, found.json) == (200, {"active": False, "error": sentence})
    refused(await sidecar.call.form(TOKEN, {"target": "t"}), sentence)


@kinds
async def test_the_only_provider_may_be_left_out(start: StartSidecar, kind: Kind) -> None:
    """Each kind serves alone, in JSON (where null is the same) and in forms; an empty name is wrong."""
    async with several(kind) as only:
        sidecar = await start(environ=only.environment())
        token = only.mint(kind.name)
        for fields in ({"token": token}, {"token": token, "identity_provider": None}):
            assert (await sidecar.call.json(INTROSPECT, fields)).json["active"]
        assert (await sidecar.call.form(INTROSPECT, {"token": token, "token_type_hint": "x"})).json["active"]
        empty = (await sidecar.call.form(INTROSPECT, {"token": token, "identity_provider": ""})).json
        assert empty == {"active": False, "error": "identity_provider must not be empty"}
        if kind.issues:
            assert (await sidecar.call.json(TOKEN, {"target": kind.target})).status == 200
        if kind.exchanges:
            fields = {"target": kind.target, "user_token": token}
            assert (await sidecar.call.form(EXCHANGE, fields)).status == 200


async def test_a_provider_that_is_known_and_not_enabled_is_named(start: StartSidecar) -> None:
    """With the same sentence everywhere; an older name is that of its provider."""
    async with several(TOKENX) as only:
        sidecar = await start(environ=only.environment())
        for name, known in (("maskinporten", "maskinporten"), ("azuread", "entra_id")):
            sentence = f"identity provider '{known}' is not enabled"
            refused(await sidecar.call.json(TOKEN, {"identity_provider": name, "target": "t"}), sentence)
            found = await sidecar.call.introspect("a.b.c", name)
            assert (found.status, found.json) == (200, {"active": False, "error": sentence})
        unknown = await sidecar.call.json(TOKEN, {"identity_provider": "partner", "target": "t"})
        refused(unknown, f"identity_provider must be {BUILT_IN_NAMES} or 'idporten'")


async def test_an_unknown_provider_is_answered_with_the_known_ones(sidecar: Started) -> None:
    """Those of the operator's settings among them; the comparison is exact."""
    for name in ("foo", "Entra_id", "tokenx "):
        refused(
            await sidecar.call.json(EXCHANGE, {"identity_provider": name, "target": "t", "user_token": "u"}),
            f"identity_provider must be {ALL_NAMES}",
        )
        found = (await sidecar.call.introspect("a.b.c", name)).json
        assert found == {"active": False, "error": f"identity_provider must be {ALL_NAMES}"}


async def test_without_any_provider_each_is_not_enabled(start: StartSidecar) -> None:
    """The sidecar starts and is ready: it was told so explicitly."""
    sidecar = await start(environ={"BIND_ADDRESS": "127.0.0.1:0", "TOKEN_X_ENABLED": "false"})
    sentence = "identity provider 'tokenx' is not enabled"
    refused(await sidecar.call.json(TOKEN, {"identity_provider": "tokenx", "target": "t"}), sentence)
    assert (await sidecar.call.introspect("a", "tokenx")).json == {"active": False, "error": sentence}
    refused(
        await sidecar.call.json(TOKEN, {"target": "t"}), "identity_provider is missing: expected a string"
    )


# --- fields that only some providers know ---


@pytest.mark.parametrize("form", [False, True])
async def test_details_are_part_of_the_request_and_of_the_key(start: StartSidecar, form: bool) -> None:
    """`resource` and `authorization_details` reach the provider, and each combination is a token of its
    own, from the cache the second time."""
    details = '[{"type":"urn:altinn:systemuser"}]'
    async with several(MASKINPORTEN) as only:
        sidecar = await start(environ=only.environment())
        tokens = []
        for more in (
            {},
            {"resource": "https://api.example"},
            {"resource": "https://other.example"},
            {"authorization_details": details},
            {"resource": "https://api.example", "authorization_details": details},
        ):
            for _ in range(2):
                answered = await ask(sidecar, TOKEN, {"target": "a:b", **more}, form=form)
                assert answered.status == 200, answered.body
                tokens.append(answered.json["access_token"])
        assert tokens[::2] == tokens[1::2]
        assert len(set(tokens)) == 5
        claims = [segment(request.form["assertion"], 1) for request in only["maskinporten"].requests]
        assert [claim.get("resource") for claim in claims] == [
            None,
            "https://api.example",
            "https://other.example",
            None,
            "https://api.example",
        ]
        assert [claim.get("authorization_details") for claim in claims] == [None] * 3 + [
            json.loads(details)
        ] * 2


async def test_the_same_details_in_another_spelling_are_the_same_request(start: StartSidecar) -> None:
    """An array and its text; a resource and an array with it alone."""
    details = [{"type": "a"}]
    async with several(MASKINPORTEN) as only:
        sidecar = await start(environ=only.environment())
        for resource in ("r", ["r"]):
            for text in (json.dumps(details), details):
                fields = {"target": "t", "resource": resource, "authorization_details": text}
                assert (await sidecar.call.json(TOKEN, fields)).status == 200
        assert len(only["maskinporten"].requests) == 1
        several_resources = {"target": "t", "resource": ["r", "s"]}
        assert (await sidecar.call.json(TOKEN, several_resources)).status == 200
        assert segment(only["maskinporten"].requests[1].form["assertion"], 1)["resource"] == ["r", "s"]


@pytest.mark.parametrize("value", ["{}", '"x"', "1", "[1]", '"[1]"', '"{}"', '""'])
async def test_authorization_details_that_are_no_array_of_objects_are_refused(
    start: StartSidecar, value: str
) -> None:
    """With a sentence that names the field and both forms."""
    async with several(MASKINPORTEN) as only:
        sidecar = await start(environ=only.environment())
        body = f'{{"target":"t","authorization_details":{value}}}'.encode()
        refused(
            await sidecar.call.json(TOKEN, body),
            "authorization_details must be a JSON array of objects, or a string with the text of one, of at "
            "most 8192 bytes",
        )
        assert only["maskinporten"].requests == []


async def test_fields_that_a_provider_does_not_know_are_ignored(start: StartSidecar) -> None:
    """As unknown fields are, whatever is in them; and not a part of the key."""
    wrong = {"resource": 1, "authorization_details": "no array", "claims": 5}
    async with several(ENTRA, TOKENX, MASKINPORTEN) as running:
        sidecar = await start(environ=running.environment())
        user = running.mint("entra_id")
        exchange = {"identity_provider": "tokenx", "target": "t", "user_token": user}
        first = await sidecar.call.json(EXCHANGE, {**exchange, **wrong})
        assert first.status == 200
        assert (await sidecar.call.json(EXCHANGE, exchange)).json["access_token"] == first.json[
            "access_token"
        ]
        machine = {"identity_provider": "maskinporten", "target": "t"}
        first = await sidecar.call.json(TOKEN, {**machine, "claims": "no challenge"})
        assert first.status == 200
        assert (await sidecar.call.json(TOKEN, machine)).json["access_token"] == first.json["access_token"]
        own = {"identity_provider": "entra_id", "target": "api://a/.default"}
        del wrong["claims"]
        assert (await sidecar.call.json(TOKEN, {**own, **wrong})).status == 200
        assert [len(running[name].requests) for name in ("entra_id", "tokenx", "maskinporten")] == [1, 1, 1]


# --- providers do not disturb each other ---


async def test_a_provider_that_fails_disturbs_no_other(start: StartSidecar, all_of_them: Several) -> None:
    """Its keys are missing, and readiness says so; the others serve."""
    all_of_them["maskinporten"].failing = True
    sidecar = await start(environ=all_of_them.environment(), ready=False)

    for kind in (ENTRA, TOKENX):
        assert (await sidecar.call.introspect(all_of_them.mint(kind.name), kind.name)).json["active"]
    user = all_of_them.mint("entra_id")
    exchange = {"identity_provider": "tokenx", "target": "t", "user_token": user}
    assert (await sidecar.call.json(EXCHANGE, exchange)).status == 200
    readiness = await sidecar.call.get("/readyz")
    assert readiness.status == 503
    assert readiness.json["reason"].startswith("maskinporten: keys of the token issuer are not available")
    states = {each["name"]: each["ready"] for each in readiness.json["providers"]}
    assert states["maskinporten"] is False
    assert states["tokenx"] is states["idporten"] is True


async def test_readiness_lists_what_each_provider_has(sidecar: Started) -> None:
    """ID-porten has no credential; that of TokenX is judged by the first use."""
    states = {each["name"]: each for each in (await sidecar.call.get("/readyz")).json["providers"]}
    assert list(states) == [kind.name for kind in KINDS]
    assert states["entra_id"]["credential"] == {"status": "accepted"}
    assert "credential" not in states["idporten"]
    assert states["tokenx"]["credential"] == {"status": "unknown"}
    assert {state["keys"]["status"] for state in states.values()} == {"available"}


async def test_a_rejected_credential_is_named_with_its_provider(start: StartSidecar) -> None:
    """In readiness, after the first use."""
    async with several(TOKENX, ENTRA) as running:
        sidecar = await start(environ=running.environment())
        running["tokenx"].then(
            answer(401, {"error": "invalid_client", "error_description": "client not registered."})
        )
        exchange = {"identity_provider": "tokenx", "target": "t", "user_token": running.mint("entra_id")}
        refusal = await sidecar.call.json(EXCHANGE, exchange)
        assert (refusal.status, refusal.json["error"]) == (401, "invalid_client")
        readiness = await sidecar.call.get("/readyz")
        assert (readiness.status, readiness.json["reason"]) == (
            200,
            "tokenx: credential rejected (invalid_client)",
        )
