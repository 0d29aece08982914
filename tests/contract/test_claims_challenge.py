"""`claims` at the two token endpoints: a claims challenge goes to the provider, past the cache."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.provider import Provider, after, refuse
from support.sidecars import Started, StartSidecar

TARGET = "api://dev-gcp.team.app/.default"
CHALLENGE = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
OTHER = '{"access_token": {"nbf": {"essential": true, "value": "1604106651"}}}'


async def test_a_challenge_reaches_the_provider_and_its_token_replaces_the_cached_one(
    sidecar: Started, provider: Provider
) -> None:
    """The text goes out as it came in, the cached token is no answer, and later callers get the new one."""
    old = await sidecar.call.token(TARGET)
    new = await sidecar.call.token(TARGET, claims=CHALLENGE)
    assert (new.status, new.json["token_type"]) == (200, "Bearer")
    assert [request.form.get("claims") for request in provider.requests] == [None, CHALLENGE]
    for _ in range(3):
        later = await sidecar.call.token(TARGET)
        assert later.json["access_token"] == new.json["access_token"] != old.json["access_token"]
    again = await sidecar.call.token(TARGET, claims=CHALLENGE)
    assert again.json["access_token"] != new.json["access_token"]
    assert len(provider.requests) == 3


async def test_a_challenge_for_a_user_s_token(sidecar: Started, provider: Provider) -> None:
    """At the exchange endpoint the same, for that user only."""
    ada, ola = provider.mint(oid="ada"), provider.mint(oid="ola")
    olas = await sidecar.call.exchange(ola, TARGET)
    old = await sidecar.call.exchange(ada, TARGET)
    new = await sidecar.call.exchange(ada, TARGET, claims=OTHER)
    assert provider.requests[2].form["claims"] == OTHER
    assert provider.requests[2].form["assertion"] == ada
    assert (await sidecar.call.exchange(ada, TARGET)).json["access_token"] == new.json["access_token"]
    assert new.json["access_token"] != old.json["access_token"]
    assert (await sidecar.call.exchange(ola, TARGET)).json["access_token"] == olas.json["access_token"]
    assert len(provider.requests) == 3


async def test_a_challenge_in_a_form_and_null(sidecar: Started, provider: Provider) -> None:
    """A form field has the same text; `null` in JSON is no challenge."""
    fields = {"identity_provider": "azuread", "target": TARGET}
    assert (await sidecar.call.form("/api/v1/token", {**fields, "claims": OTHER})).status == 200
    assert provider.requests[0].form["claims"] == OTHER
    assert (await sidecar.call.token(TARGET, claims=None)).status == 200
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ("", "claims must not be empty"),
        ({"access_token": {}}, "claims must be a string"),
        (True, "claims must be a string"),
        ("[]", "claims must be the text of a JSON object"),
        ("eyJhY2Nlc3NfdG9rZW4iOnt9fQ==", "decoded from base64"),
        ('{"access_token":{}', "claims must be the text of a JSON object"),
        ('{"a":1,"a":2}', "claims must be the text of a JSON object"),
        (json.dumps({"access_token": "x" * 8192}), "of at most 8192 bytes"),
    ],
)
async def test_what_is_no_challenge_is_refused(
    sidecar: Started, provider: Provider, claims: object, sentence: str
) -> None:
    """Both endpoints name the field and what was expected, and the provider is not asked."""
    for answer in (
        await sidecar.call.token(TARGET, claims=claims),
        await sidecar.call.exchange(provider.mint(), TARGET, claims=claims),
    ):
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        assert sentence in answer.json["error_description"]
    assert provider.requests == []


async def test_a_challenge_is_given_once(sidecar: Started) -> None:
    """A second `claims` is refused, as of any field that matters."""
    body = f'{{"identity_provider":"entra_id","target":"{TARGET}","claims":"{{}}","claims":"{{}}"}}'
    answer = await sidecar.call.json("/api/v1/token", body.encode())
    assert (answer.status, answer.json["error_description"]) == (400, "claims must be given once")


async def test_the_provider_s_own_challenge_reaches_the_application(
    sidecar: Started, provider: Provider
) -> None:
    """interaction_required with `claims` is handed out as it came, although a valid token is cached: the API
    has refused that one."""
    cached = await sidecar.call.token(TARGET)
    details = {"error_codes": [50079], "suberror": "basic_action", "claims": OTHER}
    provider.then(refuse(400, "interaction_required", "AADSTS50079: enrol", **details))
    refused = await sidecar.call.token(TARGET, claims=CHALLENGE)
    assert refused.status == 400
    assert refused.json == {
        "error": "interaction_required", "error_description": "AADSTS50079: enrol", **details,
    }  # fmt: skip
    assert (await sidecar.call.token(TARGET)).json["access_token"] == cached.json["access_token"]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_failing_provider_does_not_bring_the_old_token_back(
    sidecar: Started, provider: Provider, status: int
) -> None:
    """The token that the API refused is no answer to its challenge, whatever the reason of the failure."""
    await sidecar.call.token(TARGET)
    provider.always = refuse(status, "temporarily_unavailable", "try later")
    assert (await sidecar.call.token(TARGET, claims=CHALLENGE)).status == status
    assert (await sidecar.call.token(TARGET)).status == 200


async def test_equal_challenges_are_one_request_and_different_ones_are_not(
    sidecar: Started, provider: Provider
) -> None:
    """The key of a request under way includes `claims`; the key of the token does not."""
    release = asyncio.Event()
    provider.then(*[after(release, provider)] * 3)
    asked = (CHALLENGE, CHALLENGE, OTHER, None, None)
    calls = [asyncio.create_task(sidecar.call.token(TARGET, claims=claims)) for claims in asked]
    await provider.asked(3)
    await sidecar.received(5)
    release.set()
    answers = [(await call).json["access_token"] for call in calls]
    assert answers[0] == answers[1]
    assert answers[3] == answers[4]
    assert len(set(answers)) == 3
    sent = [request.form.get("claims") for request in provider.requests]
    assert sorted(sent, key=str) == sorted([CHALLENGE, OTHER, None], key=str)


async def test_a_remembered_refusal_is_that_of_its_challenge(sidecar: Started, provider: Provider) -> None:
    """For a second, the same request gets the same refusal; the request without the challenge is made."""
    provider.then(refuse(400, "interaction_required", "AADSTS50079: enrol"))
    for _ in range(2):
        assert (await sidecar.call.token(TARGET, claims=CHALLENGE)).status == 400
    assert len(provider.requests) == 1
    assert (await sidecar.call.token(TARGET, claims=OTHER)).status == 200
    assert (await sidecar.call.token(TARGET)).status == 200
    assert len(provider.requests) == 2


async def test_capabilities_are_announced_only_where_the_operator_says_so(
    start: StartSidecar, provider: Provider
) -> None:
    """`cp1` goes with every request for a token, beside a challenge; by default nothing is announced."""
    announcing = await start(ENTRA_FAST_CLIENT_CAPABILITIES="cp1")
    await announcing.call.token(TARGET)
    await announcing.call.exchange(provider.mint(), TARGET)
    await announcing.call.token(TARGET, claims=CHALLENGE)
    capabilities = {"xms_cc": {"values": ["cp1"]}}
    sent = [json.loads(request.form["claims"]) for request in provider.requests]
    assert sent[:2] == [{"access_token": capabilities}] * 2
    assert sent[2] == {"access_token": {"acrs": {"essential": True, "value": "c1"}, **capabilities}}
