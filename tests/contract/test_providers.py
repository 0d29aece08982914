"""The three endpoints with several providers: each kind, alone and beside the others.

Most tests share the providers, and one sidecar for each way of serving: see `sidecar`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.exposition import Exposition
from support.keys import Key
from support.provider import Provider, answer, refuse, segment
from support.several import ANSATTPORTEN, ENTRA, IDPORTEN, KINDS, MASKINPORTEN, TOKENX, Kind, Several, several
from support.sidecars import Started, StartSidecar, sidecars
from support.wire import WAYS, Answer

TOKEN, EXCHANGE, INTROSPECT = "/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"
BUILT_IN_NAMES = "'entra_id' (or its older name 'azuread'), 'maskinporten', 'tokenx', 'idporten'"
ALL_NAMES = f"{BUILT_IN_NAMES}, 'ansattporten' or 'partner'"

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


shared = pytest.mark.asyncio(loop_scope="module")
numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def providers_of_the_module() -> AsyncIterator[Several]:
    async with several() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS)
async def sidecar(request: pytest.FixtureRequest, providers_of_the_module: Several) -> AsyncIterator[Started]:
    """A ready sidecar with a provider of each kind. What it has cached is of earlier tests: see `new`."""
    async with sidecars(Provider(), str(request.param)) as start:
        yield await start(environ=providers_of_the_module.environment())


@pytest.fixture
def all_of_them(providers_of_the_module: Several) -> Several:
    """The providers, which no request has reached yet."""
    for provider in providers_of_the_module.providers.values():
        provider.requests.clear()
    return providers_of_the_module


@pytest_asyncio.fixture
async def unused() -> AsyncIterator[Several]:
    """Providers of a single test."""
    async with several() as running:
        yield running


@pytest_asyncio.fixture
async def fresh(start: StartSidecar, unused: Several) -> Started:
    """A ready sidecar of a single test, with a provider of each kind."""
    return await start(environ=unused.environment())


def new(target: str) -> str:
    """A target that no test has used."""
    return f"{target}{next(numbers)}"


def refused(answered: Answer, sentence: str) -> None:
    assert answered.status == 400
    assert answered.json == {"error": "invalid_request", "error_description": sentence}


async def ask(sidecar: Started, path: str, fields: dict[str, object], *, form: bool) -> Answer:
    if form:
        return await sidecar.call.form(path, {name: str(value) for name, value in fields.items()})
    return await sidecar.call.json(path, fields)


@shared
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


async def test_keys_of_providers_are_never_shared(start: StartSidecar) -> None:
    """ID-porten has another key under the `kid` of TokenX's key. It signs a token as TokenX: the signature is
    wrong there, although the sidecar knows the key."""
    async with several(TOKENX, IDPORTEN) as running:
        stranger = Key.generate().named(running["tokenx"].key.kid)
        running["idporten"].published = [stranger]
        sidecar = await start(environ=running.environment())
        own = running.mint("idporten", key=stranger)
        assert (await sidecar.call.introspect(own, "idporten")).json["active"]
        forged = running.mint("tokenx", key=stranger)
        assert (await sidecar.call.introspect(forged, "tokenx")).json == {
            "active": False,
            "error": "token signature is invalid",
        }


@shared
@kinds
async def test_the_audience_is_that_of_the_provider(
    sidecar: Started, all_of_them: Several, kind: Kind
) -> None:
    """The client id, a setting, or not checked at all: then it may be anything, or absent."""
    for audience in ("somebody else", None, ["a", "b"]):
        found = (await sidecar.call.introspect(all_of_them.mint(kind.name, aud=audience), kind.name)).json
        assert found["active"] is (kind.audience is None), (audience, found)


@shared
@pytest.mark.parametrize("form", [False, True])
@kinds
async def test_tokens_are_issued_where_the_provider_issues_them(
    sidecar: Started, all_of_them: Several, kind: Kind, form: bool
) -> None:
    """And from the cache the second time; other pairs are refused before anything is asked."""
    fields: dict[str, object] = {"identity_provider": kind.name, "target": new(kind.target)}
    first = await ask(sidecar, TOKEN, fields, form=form)
    if not kind.issues:
        refused(first, f"identity provider '{kind.name}' does not support token requests")
        assert all_of_them[kind.name].requests == []
        return
    assert first.status == 200, first.body
    again = await ask(sidecar, TOKEN, fields, form=form)
    assert again.json["access_token"] == first.json["access_token"]
    assert len(all_of_them[kind.name].requests) == 1
    assert [len(all_of_them[other.name].requests) for other in KINDS if other is not kind] == [0] * 5


@shared
@pytest.mark.parametrize("form", [False, True])
@kinds
async def test_tokens_are_exchanged_where_the_provider_exchanges_them(
    sidecar: Started, all_of_them: Several, kind: Kind, form: bool
) -> None:
    """And from the cache the second time."""
    user = all_of_them.mint("idporten", sub="user")
    fields: dict[str, object] = {
        "identity_provider": kind.name,
        "target": new(kind.target),
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


@shared
async def test_caches_of_providers_are_never_shared(sidecar: Started, all_of_them: Several) -> None:
    """The same target and user at several providers are different tokens, in JSON and in forms, however often
    they are asked for."""
    common = {"target": new("same"), "user_token": all_of_them.mint("idporten")}
    pairs = [(TOKEN, kind) for kind in KINDS if kind.issues]
    pairs += [(EXCHANGE, kind) for kind in KINDS if kind.exchanges]
    tokens: dict[tuple[str, str], set[str]] = {}
    for form in (False, True, False, True):
        for path, kind in pairs:
            answered = await ask(sidecar, path, {"identity_provider": kind.name, **common}, form=form)
            tokens.setdefault((path, kind.name), set()).add(answered.json["access_token"])
    assert [len(each) for each in tokens.values()] == [1] * 6
    assert len(set.union(*tokens.values())) == 6


@shared
async def test_only_entra_id_rewrites_targets(sidecar: Started, all_of_them: Several) -> None:
    """Everything else reaches its provider verbatim."""
    user, target = all_of_them.mint("idporten"), new("dev-gcp:team:api")
    await sidecar.call.json(EXCHANGE, {"identity_provider": "tokenx", "target": target, "user_token": user})
    await sidecar.call.json(EXCHANGE, {"identity_provider": "entra_id", "target": target, "user_token": user})
    await sidecar.call.json(TOKEN, {"identity_provider": "maskinporten", "target": target})
    assert all_of_them["tokenx"].requests[0].form["audience"] == target
    assert all_of_them["entra_id"].requests[0].form["scope"] == f"api://{target.replace(':', '.')}/.default"
    assert segment(all_of_them["maskinporten"].requests[0].form["assertion"], 1)["scope"] == target


# --- metrics ---


async def test_metrics_have_the_provider(fresh: Started, unused: Several) -> None:
    """Whichever path answered: each request is counted for its provider, or for none if it is not known."""
    user = unused.mint("idporten")
    for kind in KINDS:
        fields = {"identity_provider": kind.name, "target": kind.target}
        for _ in range(3):
            await fresh.call.introspect(unused.mint(kind.name), kind.name)
            await fresh.call.json(TOKEN, fields)
            await fresh.call.json(EXCHANGE, {**fields, "user_token": user})
        await fresh.call.introspect("nonsense", kind.name)
    await fresh.call.json(TOKEN, {"target": "t"})
    await fresh.call.json(TOKEN, {"target": "t", "identity_provider": "unheard_of"})
    await fresh.call.introspect("nonsense", "unheard_of")
    found = Exposition((await fresh.probe.get("/metrics")).body.decode())

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
        # Only of a provider that gives tokens.
        for gauge in ("credential_rejected", "upstream_requests_in_flight", "stale_tokens_served_total"):
            assert (f'{gauge}{{identity_provider="{name}"}} 0.0' in found.text) == (
                kind.issues or kind.exchanges
            )
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


async def test_each_provider_has_a_place_in_the_verification_cache(start: StartSidecar) -> None:
    """Also where the setting allows fewer tokens than there are providers: each token is verified once."""
    async with several(TOKENX, IDPORTEN, ANSATTPORTEN) as few:
        sidecar = await start(environ=few.environment(ENTRA_FAST_VERIFIED_CACHE_ENTRIES="2"))
        tokens = {kind.name: few.mint(kind.name) for kind in few.kinds}
        for _ in range(2):
            for name, token in tokens.items():
                assert (await sidecar.call.introspect(token, name)).json["active"]
        assert await sidecar.metric("entra_fast_verified_cache_entries") == 3
        assert await sidecar.metric("entra_fast_verified_cache_hits_total") == 3


async def test_what_goes_wrong_at_one_provider_is_counted_there(fresh: Started, unused: Several) -> None:
    """In metrics and at /readyz, a rejected credential is that of one provider; the others are well."""
    unused["maskinporten"].then(refuse(400, "invalid_client", "MP-110: no such client"))
    await fresh.call.json(TOKEN, {"identity_provider": "maskinporten", "target": "scope"})
    found = Exposition((await fresh.probe.get("/metrics")).body.decode())
    rejected = {
        kind.name: found.get(f'entra_fast_credential_rejected{{identity_provider="{kind.name}"}}')
        for kind in KINDS
    }
    assert rejected == {kind.name: float(kind is MASKINPORTEN) for kind in KINDS}
    errors = 'entra_fast_provider_errors_total{identity_provider="maskinporten"}'
    assert found.get(errors) == found.get("entra_fast_provider_errors_total") == 1
    document = (await fresh.probe.get("/readyz")).json
    assert document["reason"] == "maskinporten: credential rejected (invalid_client)"
    unwell = [each["name"] for each in document["providers"] if "reason" in each.get("credential", {})]
    assert unwell == ["maskinporten"]


# --- which provider is meant ---


@shared
async def test_a_provider_that_is_left_out_is_never_guessed(sidecar: Started, all_of_them: Several) -> None:
    """Several are enabled: the answer names them, whatever the token is."""
    sentence = (
        "identity_provider is missing: expected 'entra_id', 'maskinporten', 'tokenx', 'idporten', "
        "'ansattporten' or 'partner'"
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
        refused(unknown, f"identity_provider must be {BUILT_IN_NAMES} or 'ansattporten'")


@shared
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


@shared
async def test_authorization_details_that_are_no_array_of_objects_are_refused(
    sidecar: Started, all_of_them: Several
) -> None:
    """With a sentence that names the field and both forms."""
    for value in ("{}", '"x"', "1", "[1]", '"[1]"', '"{}"', '""'):
        body = f'{{"identity_provider":"maskinporten","target":"t","authorization_details":{value}}}'.encode()
        refused(
            await sidecar.call.json(TOKEN, body),
            "authorization_details must be a JSON array of objects, or a string with the text of one, of at "
            "most 8192 bytes",
        )
    assert all_of_them["maskinporten"].requests == []


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


async def test_a_provider_that_fails_disturbs_no_other(start: StartSidecar) -> None:
    """Its keys are missing, and readiness says so; the others serve. ID-porten has no credential; that of
    TokenX is judged by its first use."""
    async with several() as running:
        running["maskinporten"].failing = True
        sidecar = await start(environ=running.environment(), ready=False)
        for kind in (ENTRA, TOKENX):
            assert (await sidecar.call.introspect(running.mint(kind.name), kind.name)).json["active"]
        readiness = await sidecar.call.get("/readyz")
        assert readiness.status == 503
        assert readiness.json["reason"].startswith("maskinporten: keys of the token issuer are not available")
        states = {each["name"]: each for each in readiness.json["providers"]}
        assert list(states) == [kind.name for kind in KINDS]
        assert [states[name]["ready"] for name in ("maskinporten", "tokenx", "idporten")] == [
            False,
            True,
            True,
        ]
        assert "credential" not in states["idporten"]
        assert states["tokenx"]["credential"] == {"status": "unknown"}
        exchange = {"identity_provider": "tokenx", "target": "t", "user_token": running.mint("entra_id")}
        assert (await sidecar.call.json(EXCHANGE, exchange)).status == 200


@shared
async def test_readiness_lists_what_each_provider_has(sidecar: Started) -> None:
    """In the order of the settings."""
    states = {each["name"]: each for each in (await sidecar.call.get("/readyz")).json["providers"]}
    assert list(states) == [kind.name for kind in KINDS]
    assert states["entra_id"]["credential"] == {"status": "accepted"}
    assert "credential" not in states["idporten"]
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
