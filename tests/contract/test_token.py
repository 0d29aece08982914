"""POST /api/v1/token: client credentials, from the provider or the cache."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import pytest

from entra_fast._native import KeySet, Policy, Validator
from support.keys import Key
from support.provider import CLIENT_ID, CLIENT_KEY, Provider, after, answer, granting, refuse, segment
from support.sidecars import Started, StartSidecar, eventually
from support.wire import request_bytes

TARGET = "api://dev-gcp.team.app/.default"


async def test_gives_a_token_with_exactly_the_documented_answer(sidecar: Started, provider: Provider) -> None:
    """The answer is 200 with access_token, integer expires_in and token_type, and only the agreed headers."""
    answer = await sidecar.call.token(TARGET)
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "expires_in", "token_type"}
    assert answer.json["token_type"] == "Bearer"
    assert isinstance(answer.json["expires_in"], int)
    assert 3590 <= answer.json["expires_in"] <= 3600
    assert segment(answer.json["access_token"], 1)["aud"] == TARGET
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"
    assert {name.lower() for name, _ in answer.headers} == {
        "content-type", "cache-control", "content-length", "date",
    }  # fmt: skip


async def test_form_and_json_and_both_provider_names_share_an_entry(
    sidecar: Started, provider: Provider
) -> None:
    """The same request in either form, for either name of the provider, is answered from one entry."""
    answers = [
        await sidecar.call.json("/api/v1/token", {"identity_provider": "entra_id", "target": TARGET}),
        await sidecar.call.json("/api/v1/token", {"identity_provider": "azuread", "target": TARGET}),
        await sidecar.call.form("/api/v1/token", {"identity_provider": "entra_id", "target": TARGET}),
        await sidecar.call.form("/api/v1/token", {"identity_provider": "azuread", "target": TARGET}),
    ]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["access_token"] for answer in answers}) == 1
    assert len(provider.requests) == 1


async def test_content_type_may_have_parameters_and_any_case(sidecar: Started) -> None:
    """`application/json; charset=utf-8` is JSON."""
    body = json.dumps({"identity_provider": "entra_id", "target": TARGET}).encode()
    for value in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"):
        answer = await sidecar.call.request("POST", "/api/v1/token", body, {"Content-Type": value})
        assert answer.status == 200, value


async def test_both_spellings_of_a_target_share_an_entry(sidecar: Started, provider: Provider) -> None:
    """`<cluster>:<namespace>:<app>` becomes its scope before the cache is searched."""
    first = await sidecar.call.token("dev-gcp:team:app")
    second = await sidecar.call.token(TARGET)
    assert first.json["access_token"] == second.json["access_token"]
    assert [recorded.form["scope"] for recorded in provider.requests] == [TARGET]


@pytest.mark.parametrize(
    "target",
    [
        f"api://{CLIENT_ID}/.default",
        "https://graph.microsoft.com/.default",
        "api://something/else",
        "https://storage.azure.com//.default",
        "00000000-1111-4222-8333-444444444444/.default",
    ],
)
async def test_other_scopes_are_untouched(sidecar: Started, provider: Provider, target: str) -> None:
    """A target that is a scope reaches the provider unchanged."""
    assert (await sidecar.call.token(target)).status == 200
    assert provider.requests[0].form["scope"] == target


@pytest.mark.parametrize("target", ["User.Read", "a", "a:b", "a::c", "a:b:c:d", "urn:n:a", "a b:c:d"])
async def test_any_other_scope_reaches_the_provider_unchanged(
    sidecar: Started, provider: Provider, target: str
) -> None:
    """RFC 6749, section 3.3: only `<cluster>:<namespace>:<app>` means something else."""
    assert (await sidecar.call.token(target)).status == 200
    assert provider.requests[0].form["scope"] == target


@pytest.mark.parametrize("target", [" a", "a ", "a  b", "api://x\n", "a\tb", 'a"b', "a\\b", "æ", "a\x7f"])
async def test_a_target_that_is_no_scope_is_refused(
    sidecar: Started, provider: Provider, target: str
) -> None:
    """The refusal names the field and the accepted forms, and the provider is not asked."""
    answer = await sidecar.call.token(target)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert answer.json["error_description"].startswith("target must be 'api://<cluster>.<namespace>.<app>")
    assert provider.requests == []


async def test_the_private_key_signs_a_fresh_assertion(sidecar: Started, provider: Provider) -> None:
    """The assertion follows RFC 7523: for the token endpoint, short-lived, with the key's id, used once."""
    for _ in range(2):
        await sidecar.call.token(TARGET, skip_cache=True)
    forms = [recorded.form for recorded in provider.requests]
    assert forms[0]["grant_type"] == "client_credentials"
    assert forms[0]["client_id"] == CLIENT_ID
    assert forms[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in forms[0]
    assertion = forms[0]["client_assertion"]
    policy = Policy(
        issuers=[CLIENT_ID], audiences=[provider.token_endpoint], required_claims=["jti", "nbf", "iat"]
    )
    published = KeySet(json.dumps({"keys": [json.loads(CLIENT_KEY.public_jwk())]}))
    claims = Validator(policy, published).validate(assertion)
    assert claims["sub"] == CLIENT_ID
    assert claims["exp"] - claims["iat"] <= 300
    assert segment(assertion, 0)["kid"] == CLIENT_KEY.kid
    assert segment(forms[1]["client_assertion"], 1)["jti"] != claims["jti"]


async def test_the_assertion_names_the_certificate_where_the_key_has_one(
    start: StartSidecar, provider: Provider
) -> None:
    """x5t and x5t#S256 of the JWK are in the assertion's header."""
    x5t = base64.urlsafe_b64encode(hashlib.sha1(b"certificate").digest()).decode().rstrip("=")
    x5t_s256 = base64.urlsafe_b64encode(hashlib.sha256(b"certificate").digest()).decode().rstrip("=")
    jwk = {**json.loads(Key.generate().private_jwk()), "kid": "k1", "x5t": x5t, "x5t#S256": x5t_s256}
    sidecar = await start(AZURE_APP_JWK=json.dumps(jwk))
    assert (await sidecar.call.token(TARGET)).status == 200
    header = segment(provider.requests[0].form["client_assertion"], 0)
    assert (header["kid"], header["x5t"], header["x5t#S256"]) == ("k1", x5t, x5t_s256)


async def test_a_client_secret_is_posted(start: StartSidecar, provider: Provider) -> None:
    """Without a key, the secret goes into the form (client_secret_post)."""
    sidecar = await start(AZURE_APP_JWK=None, AZURE_APP_CLIENT_SECRET="s&cret=%")
    assert (await sidecar.call.token(TARGET)).status == 200
    assert provider.requests[0].form["client_secret"] == "s&cret=%"
    assert "client_assertion" not in provider.requests[0].form


async def test_a_federated_token_file_is_read_on_every_use(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """The file rotates: each request to the provider carries its content of that moment."""
    file = tmp_path / "token"
    file.write_text("first.federated.token\n")
    sidecar = await start(
        AZURE_APP_JWK=None, AZURE_FEDERATED_TOKEN_FILE=str(file), AZURE_APP_CLIENT_SECRET="last-choice"
    )
    await sidecar.call.token(TARGET)
    file.write_text("second.federated.token")
    await sidecar.call.token(TARGET, skip_cache=True)
    sent = [recorded.form["client_assertion"] for recorded in provider.requests]
    assert sent == ["first.federated.token", "second.federated.token"]
    assert "client_secret" not in provider.requests[0].form


async def test_skip_cache_replaces_the_cached_token(sidecar: Started, provider: Provider) -> None:
    """Every later caller gets the new token."""
    old = await sidecar.call.token(TARGET)
    new = await sidecar.call.token(TARGET, skip_cache=True)
    later = await sidecar.call.token(TARGET, skip_cache=False)
    assert old.json["access_token"] != new.json["access_token"] == later.json["access_token"]
    assert len(provider.requests) == 2


async def test_skip_cache_in_a_form(sidecar: Started, provider: Provider) -> None:
    """In a form skip_cache is `true` or `false`."""
    fields = {"identity_provider": "azuread", "target": TARGET}
    for value in ("true", "false"):
        assert (await sidecar.call.form("/api/v1/token", {**fields, "skip_cache": value})).status == 200
    assert len(provider.requests) == 1
    answer = await sidecar.call.form("/api/v1/token", {**fields, "skip_cache": "yes"})
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert "skip_cache" in answer.json["error_description"]


async def test_a_cached_token_is_handed_out_while_a_new_one_is_fetched(
    sidecar: Started, provider: Provider
) -> None:
    """skip_cache makes no other caller wait: they get the cached token until the new one is there."""
    old = await sidecar.call.token(TARGET)
    release = asyncio.Event()
    provider.then(after(release, provider))
    fetching = asyncio.create_task(sidecar.call.token(TARGET, skip_cache=True))
    await provider.asked(2)
    assert (await sidecar.call.token(TARGET)).json["access_token"] == old.json["access_token"]
    release.set()
    new = await fetching
    assert (await sidecar.call.token(TARGET)).json["access_token"] == new.json["access_token"]


async def test_skip_cache_joins_a_fetch_that_is_under_way(sidecar: Started, provider: Provider) -> None:
    """Concurrent callers that skip the cache make one upstream request, not one after the other."""
    release = asyncio.Event()
    provider.then(after(release, provider))
    first = asyncio.create_task(sidecar.call.token(TARGET, skip_cache=True))
    await provider.asked(1)
    calls = [first, *(asyncio.create_task(sidecar.call.token(TARGET, skip_cache=True)) for _ in range(5))]
    await sidecar.received(6)
    release.set()
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {200}
    assert len(provider.requests) == 1
    assert len({answer.json["access_token"] for answer in answers}) == 1


async def test_concurrent_requests_make_one_upstream_request(sidecar: Started, provider: Provider) -> None:
    """However many callers want the same token, the provider is asked once."""
    release = asyncio.Event()
    provider.then(after(release, provider))
    calls = [asyncio.create_task(sidecar.call.token(TARGET)) for _ in range(20)]
    await sidecar.received(20)
    release.set()
    answers = await asyncio.gather(*calls)
    assert len({answer.json["access_token"] for answer in answers}) == 1
    assert len(provider.requests) == 1


async def test_a_caller_that_goes_away_does_not_cancel_the_fetch(
    sidecar: Started, provider: Provider
) -> None:
    """The caller that started a fetch disconnects; the others, and the cache, still get the token."""
    release = asyncio.Event()
    provider.then(after(release, provider))
    _, writer = await sidecar.call.connect()
    body = json.dumps({"identity_provider": "entra_id", "target": TARGET}).encode()
    writer.write(request_bytes("POST", "/api/v1/token", body, {"Content-Type": "application/json"}))
    await provider.asked(1)
    waiting = asyncio.create_task(sidecar.call.token(TARGET))
    writer.transport.abort()
    await asyncio.sleep(0)
    release.set()
    assert (await waiting).status == 200
    assert len(provider.requests) == 1


async def test_expires_in_is_what_is_left_now(sidecar: Started, provider: Provider) -> None:
    """A cached token's expires_in counts down."""
    await sidecar.call.token(TARGET)
    sidecar.clock.advance(1000)
    answer = await sidecar.call.token(TARGET)
    assert 2590 <= answer.json["expires_in"] <= 2600
    assert len(provider.requests) == 1


async def test_a_token_is_not_handed_out_in_its_last_two_minutes(
    sidecar: Started, provider: Provider
) -> None:
    """120 s before a token expires, a new one is fetched."""
    first = await sidecar.call.token(TARGET)
    sidecar.clock.advance(3600 - 119)
    second = await sidecar.call.token(TARGET)
    assert first.json["access_token"] != second.json["access_token"]


async def test_a_short_token_is_handed_out_for_half_of_its_life(sidecar: Started, provider: Provider) -> None:
    """A token of 240 s or less is handed out for half of its lifetime."""
    provider.lifetime = 200
    first = await sidecar.call.token(TARGET)
    sidecar.clock.advance(95)
    assert (await sidecar.call.token(TARGET)).json["access_token"] == first.json["access_token"]
    sidecar.clock.advance(10)
    assert (await sidecar.call.token(TARGET)).json["access_token"] != first.json["access_token"]


async def test_renewal_happens_in_the_background(sidecar: Started, provider: Provider) -> None:
    """Late in its lifetime, a token is returned from the cache at once and renewed in the background."""
    first = await sidecar.call.token(TARGET)
    release = asyncio.Event()
    provider.then(after(release, provider))
    sidecar.clock.advance(3000)  # past the latest point at which renewal becomes due (0.8 of 3480 s)
    answers = [await sidecar.call.token(TARGET) for _ in range(3)]
    assert {answer.json["access_token"] for answer in answers} == {first.json["access_token"]}
    await provider.asked(2)
    release.set()

    async def renewed() -> bool:
        return bool((await sidecar.call.token(TARGET)).json["access_token"] != first.json["access_token"])

    await eventually(renewed)
    assert len(provider.requests) == 2


async def test_an_oauth_refusal_is_passed_through(sidecar: Started, provider: Provider) -> None:
    """Status, error, description and all that a claims challenge needs reach the application."""
    more = {
        "error_codes": [50076],
        "suberror": "basic_action",
        "claims": '{"access_token":{"polids":{"essential":true,"values":["x"]}}}',
        "correlation_id": "c",
        "trace_id": "t",
        "timestamp": "2026-01-01 00:00:00Z",
    }
    provider.then(refuse(400, "invalid_grant", "AADSTS50076: multi-factor", **more, internal="not for you"))
    answer = await sidecar.call.token(TARGET)
    assert answer.status == 400
    assert answer.json == {"error": "invalid_grant", "error_description": "AADSTS50076: multi-factor", **more}
    assert answer.header("Content-Type") == "application/json"
    assert len(provider.requests) == 1


async def test_retry_after_is_passed_through(sidecar: Started, provider: Provider) -> None:
    """A throttled application learns when to retry."""
    provider.then(answer(429, {"error": "temporarily_unavailable"}, Retry_After="17"))
    answered = await sidecar.call.token(TARGET)
    assert (answered.status, answered.header("Retry-After")) == (429, "17")


async def test_the_provider_s_token_type_may_have_any_case(sidecar: Started, provider: Provider) -> None:
    """RFC 6749, section 5.1: token_type is compared without case; the answer says Bearer."""
    provider.then(granting(provider, token_type="bearer"))
    assert (await sidecar.call.token(TARGET)).json["token_type"] == "Bearer"


async def test_a_disabled_provider_is_a_request_error(start: StartSidecar) -> None:
    """With AZURE_ENABLED=false the endpoints say so."""
    sidecar = await start(AZURE_ENABLED="false")
    answer = await sidecar.call.token(TARGET)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert "not enabled" in answer.json["error_description"]
    introspection = await sidecar.call.introspect("x")
    assert (introspection.status, introspection.json["active"]) == (200, False)
