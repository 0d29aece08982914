"""Every AADSTS error: when it occurs, with which status and form. One test, or row, for each."""

from __future__ import annotations

import datetime
import json
import math
import re
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import entra_fast.emulator as package
from entra_fast._aadsts import KINDS
from support.keys import Key
from support.local_entra import ASSERTION_TYPE, Answer, Caller, Clock

FEDERATED = "api://AzureADTokenExchange"


def with_assertion(entra: Caller, assertion: str, **changes: str) -> dict[str, str]:
    """A client credentials request by app-a for app-b, authenticated by an assertion."""
    return {
        "grant_type": "client_credentials",
        "client_id": entra.client_id("app-a"),
        "client_assertion": assertion,
        "client_assertion_type": ASSERTION_TYPE,
        "scope": entra.scope("app-b"),
        **changes,
    }


def expect(answer: Answer, code: int, error: str, status: int) -> None:
    assert (answer.status, answer.code, answer.json["error"]) == (status, code, error)


async def test_the_shape_of_an_error(entra: Caller, clock: Clock) -> None:
    """An error has exactly Entra's members; the description ends with the ids and the time, on one line."""
    mine = str(uuid.uuid4())
    answer = await entra.m2m("app-c", "app-b")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "no-store" in answer.headers["Cache-Control"]
    assert set(answer.json) == {
        "error",
        "error_description",
        "error_codes",
        "timestamp",
        "trace_id",
        "correlation_id",
        "error_uri",
    }
    moment = datetime.datetime.fromtimestamp(clock.now, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    assert answer.json["timestamp"] == moment
    description = answer.json["error_description"]
    assert "\n" not in description
    assert description.endswith(
        f" Trace ID: {answer.json['trace_id']} Correlation ID: {answer.json['correlation_id']} "
        f"Timestamp: {moment}"
    )
    assert answer.headers["x-ms-request-id"] == answer.json["trace_id"]
    form = {"grant_type": "client_credentials", "client_id": "nobody", "scope": "x"}
    echoed = await entra.token(form, headers={"client-request-id": mine})
    assert echoed.json["correlation_id"] == mine


async def test_wrong_secret(entra: Caller) -> None:
    """7000215, and the secret is nowhere in the answer or the log."""
    answer = await entra.m2m("app-a", "app-b", client_secret="canary-secret")
    expect(answer, 7000215, "invalid_client", 401)
    assert "canary" not in answer.text
    assert "canary" not in repr(entra.local.journal.entries())


async def test_no_credential(entra: Caller) -> None:
    """7000218 names both ways to authenticate."""
    expect(await entra.m2m("app-a", "app-b", client_secret=""), 7000218, "invalid_client", 401)


async def test_assertions_of_foreign_keys(entra: Caller) -> None:
    """700027 for a signature that does not verify, a kid that is not the application's, and what is no
    JWT.
    """
    entra.local.environment("dev-gcp:team:app-a")
    stranger = Key.generate()
    forged = entra.assertion("app-a", key=stranger)
    expect(await entra.token(with_assertion(entra, forged)), 700027, "invalid_client", 401)
    unknown = entra.assertion("app-a", key=stranger, header={"alg": "RS256", "kid": stranger.kid})
    expect(await entra.token(with_assertion(entra, unknown)), 700027, "invalid_client", 401)
    expect(await entra.token(with_assertion(entra, "canary.canary.canary")), 700027, "invalid_client", 401)
    unsigned = "eyJhbGciOiJub25lIn0." + forged.split(".")[1] + "."
    expect(await entra.token(with_assertion(entra, unsigned)), 700027, "invalid_client", 401)


async def test_an_assertion_works_once(entra: Caller) -> None:
    """700027: a replayed `jti` is refused (RFC 7523, section 3)."""
    form = with_assertion(entra, entra.assertion("app-a"))
    first = await entra.token(form)
    assert first.claims["azpacr"] == "2"
    again = await entra.token(form)
    expect(again, 700027, "invalid_client", 401)
    assert "used before" in again.json["error_description"]


async def test_assertions_that_name_a_certificate_may_be_reused(entra: Caller) -> None:
    """MSAL sends one certificate assertion for nine minutes, and Entra ID accepts it."""
    found = entra.local.registry.find("dev-gcp:team:app-a")
    key = entra.local.credentials.key(found)
    form = with_assertion(entra, entra.assertion("app-a", header={"alg": "RS256", "x5t": key.x5t}))
    assert (await entra.token(form)).status == 200
    assert (await entra.token(form)).status == 200


@pytest.mark.parametrize(("name", "offset"), [("exp", -301), ("nbf", 301), ("exp", 2 * 86400)])
async def test_assertion_outside_its_time(entra: Caller, clock: Clock, name: str, offset: int) -> None:
    """700024: expired, not yet valid, or valid for days; five minutes of leeway."""
    times: dict[str, Any] = {name: int(clock.now) + offset}
    assertion = entra.assertion("app-a", **times)
    expect(await entra.token(with_assertion(entra, assertion)), 700024, "invalid_client", 401)


async def test_assertion_of_another_client(entra: Caller) -> None:
    """700021: `iss` and `sub` must be the client."""
    assertion = entra.assertion("app-a", sub=entra.client_id("app-c"))
    expect(await entra.token(with_assertion(entra, assertion)), 700021, "invalid_client", 401)


async def test_assertion_for_another_audience(entra: Caller) -> None:
    """700023: `aud` must be this provider; the token endpoint and the issuer both are."""
    assertion = entra.assertion("app-a", aud="https://elsewhere.example/token")
    expect(await entra.token(with_assertion(entra, assertion)), 700023, "invalid_client", 401)
    tenant = entra.tenant_id("app-a")
    accepted = entra.assertion("app-a", aud=f"{entra.base_url}/{tenant}/v2.0")
    assert (await entra.token(with_assertion(entra, accepted))).status == 200


@pytest.mark.parametrize("name", ["scope", "client_id"])
async def test_a_description_is_one_line(entra: Caller, name: str) -> None:
    """Whatever of the request it repeats: control characters become spaces."""
    form = {"grant_type": "client_credentials", "scope": "x", **entra.credentials("app-a")}
    answer = await entra.token({**form, name: "a\r\nb\x1b[31m\x85c"})
    assert answer.status == 400
    assert answer.json["error_description"].isprintable()
    assert "a b [31m c" in answer.json["error_description"]


async def test_assertions_without_iat(entra: Caller, clock: Clock) -> None:
    """MSAL for Java and Go leave `iat` out. Everything else is still checked: signature, audience, times."""
    now = int(clock.now)
    assert (await entra.token(with_assertion(entra, entra.assertion("app-a", iat=None)))).status == 200
    as_list = entra.assertion("app-a", iat=None, aud=[f"{entra.base_url}/{entra.tenant_id('app-a')}/v2.0"])
    assert (await entra.token(with_assertion(entra, as_list))).status == 200
    stranger = Key.generate()
    wrong: list[tuple[int, dict[str, object]]] = [
        (700027, {"key": stranger}),
        (700023, {"aud": "https://elsewhere.example"}),
        (700023, {"aud": None}),
        (700024, {"exp": now - 301}),
        (700024, {"nbf": now + 301}),
        (700024, {"exp": now + 10 * 86400}),
        (700027, {"exp": None}),
        (700027, {"exp": "soon"}),
        (700027, {"exp": True}),
        (700027, {"exp": math.inf}),
        (700021, {"iss": entra.client_id("app-c")}),
    ]
    for code, changes in wrong:
        assertion = entra.assertion("app-a", iat=None, **changes)  # type: ignore[arg-type]
        expect(await entra.token(with_assertion(entra, assertion)), code, "invalid_client", 401)


async def test_federated_credentials(entra: Caller) -> None:
    """A workload's own token is accepted; 700213 for another workload's."""
    own = entra.local.federated_token("dev-gcp:team:app-a")
    assert (await entra.token(with_assertion(entra, own))).claims["azpacr"] == "2"
    foreign = entra.local.federated_token("dev-gcp:team:app-c")
    expect(await entra.token(with_assertion(entra, foreign)), 700213, "invalid_client", 401)
    tampered = own[:-20] + ("A" if own[-20] != "A" else "B") + own[-19:]
    expect(await entra.token(with_assertion(entra, tampered)), 700027, "invalid_client", 401)


async def test_unknown_client(entra: Caller) -> None:
    """700016 for a client id that the tenant does not have."""
    answer = await entra.m2m("app-a", "app-b", client_id=str(uuid.uuid4()))
    expect(answer, 700016, "unauthorized_client", 400)


async def test_unknown_tenant(entra: Caller) -> None:
    """90002 for a tenant that does not exist, at every endpoint of a tenant."""
    form = {"grant_type": "client_credentials", "scope": entra.scope("app-b"), **entra.credentials("app-a")}
    expect(await entra.token(form, "unknown.example"), 90002, "invalid_request", 400)
    for path in (
        "/unknown.example/v2.0/.well-known/openid-configuration",
        "/unknown.example/discovery/v2.0/keys",
    ):
        expect(await entra.request("GET", path), 90002, "invalid_request", 400)


async def test_unknown_target(entra: Caller) -> None:
    """500011 names the target and the tenant."""
    answer = await entra.m2m("app-a", "app-b", scope="api://dev-gcp.team.unknown/.default")
    expect(answer, 500011, "invalid_resource", 400)
    assert "api://dev-gcp.team.unknown" in answer.json["error_description"]


@pytest.mark.parametrize("scope", ["/.default", "api:///.default", 'api://a"b/.default', "api://x/.default/"])
async def test_malformed_scope(entra: Caller, scope: str) -> None:
    """70011 on behalf of a user for a malformed scope."""
    token = await entra.user_token("app-a", "ada")
    expect(await entra.obo("app-a", "app-b", token, scope=scope), 70011, "invalid_scope", 400)


async def test_more_than_one_target(entra: Caller) -> None:
    """28000: one application at a time."""
    token = await entra.user_token("app-a", "ada")
    scope = f"{entra.scope('app-b')} {entra.scope('app-c')}"
    expect(await entra.obo("app-a", "app-b", token, scope=scope), 28000, "invalid_scope", 400)


async def test_a_refresh_token_takes_the_first_of_two_targets(entra: Caller) -> None:
    """28000 for a code, as on behalf of; a refresh token gets the first one."""
    two = f"{entra.scope('app-b')} {entra.scope('app-c')} openid"
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    expect(await entra.redeem("app-a", code, scope=two), 28000, "invalid_scope", 400)
    refresh = (await entra.login("app-a", "ada")).json["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh, "scope": two}
    answer = await entra.token({**form, **entra.credentials("app-a")})
    assert answer.claims["aud"] == entra.client_id("app-b")
    assert answer.json["scope"].startswith("api://dev-gcp.team.app-b/")


@pytest.mark.parametrize("other", ["api://dev-gcp.team.app-b/custom.scope", "openid", "offline_access"])
async def test_default_stands_alone(entra: Caller, other: str) -> None:
    """70011 for another permission beside it; OpenID Connect's may join."""
    token = await entra.user_token("app-a", "ada")
    answer = await entra.obo("app-a", "app-b", token, scope=f"{entra.scope('app-b')} {other}")
    if "/" in other:
        expect(answer, 70011, "invalid_scope", 400)
    else:
        assert answer.status == 200


async def test_requests_of_another_version(entra: Caller) -> None:
    """901002 for `resource` at v2.0, 700038 for the client id that empty configuration has."""
    expect(await entra.m2m("app-a", "app-b", resource="https://x"), 901002, "invalid_request", 400)
    nil = "00000000-0000-0000-0000-000000000000"
    expect(await entra.m2m("app-a", "app-b", client_id=nil), 700038, "unauthorized_client", 400)


@pytest.mark.parametrize("scope", ["api://dev-gcp.team.app-b/read", "api://dev-gcp.team.app-b", "openid"])
async def test_client_credentials_need_default_scope(entra: Caller, scope: str) -> None:
    """1002012: a machine asks for `/.default`."""
    expect(await entra.m2m("app-a", "app-b", scope=scope), 1002012, "invalid_scope", 400)


async def test_not_admitted_as_a_machine(entra: Caller) -> None:
    """501051 names consumer and target."""
    answer = await entra.m2m("app-c", "app-b")
    expect(answer, 501051, "invalid_grant", 400)
    text = answer.json["error_description"]
    assert f"Application '{entra.client_id('app-c')}'(dev-gcp:team:app-c) is not assigned to a role" in text
    assert "'api://dev-gcp.team.app-b'(dev-gcp:team:app-b)" in text


async def test_not_admitted_on_behalf_of(entra: Caller) -> None:
    """65001 with suberror consent_required."""
    token = await entra.user_token("app-a", "ada")
    answer = await entra.obo("app-a", "app-nobody", token)
    expect(answer, 65001, "invalid_grant", 400)
    assert answer.json["suberror"] == "consent_required"
    assert (
        f"with ID '{entra.client_id('app-a')}' named 'dev-gcp:team:app-a'" in answer.json["error_description"]
    )


async def test_a_scope_that_was_not_granted(entra: Caller) -> None:
    """65001, too, when a user's token is asked for with a permission that the rule does not give."""
    token = await entra.user_token("app-a", "ada")
    assert (
        await entra.obo("app-a", "app-b", token, scope="api://dev-gcp.team.app-b/custom.scope")
    ).status == 200
    expect(
        await entra.obo("app-a", "app-b", token, scope="api://dev-gcp.team.app-b/other"),
        65001,
        "invalid_grant",
        400,
    )


async def test_user_in_no_group(entra: Caller) -> None:
    """50105 names the target and hides the user."""
    answer = await entra.obo("app-a", "app-b", await entra.user_token("app-a", "ola"))
    expect(answer, 50105, "invalid_grant", 400)
    assert "'{EmailHidden}'" in answer.json["error_description"]
    assert "ola@" not in answer.text


async def test_subject_assertions_that_do_not_verify(entra: Caller) -> None:
    """50013: tampered, signed with another key, or no token at all."""
    token = await entra.user_token("app-a", "ada")
    head, body, signature = token.split(".")
    tampered = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    expect(await entra.obo("app-a", "app-b", tampered), 50013, "invalid_grant", 400)
    stranger = Key.generate()
    forged = stranger.sign(json.dumps({"alg": "RS256", "kid": stranger.kid}).encode(), b"{}")
    expect(await entra.obo("app-a", "app-b", forged), 50013, "invalid_grant", 400)
    answer = await entra.obo("app-a", "app-b", "canary-assertion")
    expect(answer, 50013, "invalid_grant", 400)
    assert "canary" not in answer.text


async def test_an_application_s_own_token_as_subject_assertion(entra: Caller) -> None:
    """7000114: there is no user on whose behalf the caller could act."""
    machine = (await entra.m2m("app-a", "app-a")).json["access_token"]
    answer = await entra.obo("app-a", "app-b", machine)
    expect(answer, 7000114, "unauthorized_client", 400)
    assert f"Application '{entra.client_id('app-a')}' is not allowed" in answer.json["error_description"]


async def test_an_id_token_as_subject_assertion(entra: Caller) -> None:
    """240002: it has the right audience, but no API may take it for access."""
    id_token = (await entra.login("app-a", "ada")).json["id_token"]
    expect(await entra.obo("app-a", "app-b", id_token), 240002, "invalid_grant", 400)


async def test_expired_subject_assertion(entra: Caller, clock: Clock) -> None:
    """500133 as soon as the user's token has expired."""
    token = await entra.user_token("app-a", "ada")
    clock.now += 5401
    expect(await entra.obo("app-a", "app-b", token), 500133, "invalid_grant", 400)


async def test_subject_assertion_for_another_client(entra: Caller) -> None:
    """500131: the user's token must be for the client that presents it."""
    token = await entra.user_token("app-a", "ada")
    answer = await entra.obo("app-c", "app-b", token)
    expect(answer, 500131, "invalid_grant", 400)
    assert entra.client_id("app-a") in answer.json["error_description"]


async def test_multi_factor_needed(entra: Caller) -> None:
    """50076 (planned) carries a claims challenge that is JSON in a string, and suberror basic_action."""
    token = await entra.user_token("app-a", "ada")
    entra.local.faults.add("aadsts", value=50076, application="dev-gcp:team:app-a", count=1)
    answer = await entra.obo("app-a", "app-b", token)
    expect(answer, 50076, "invalid_grant", 400)
    assert answer.json["suberror"] == "basic_action"
    assert "access_token" in json.loads(answer.json["claims"])
    assert (await entra.obo("app-a", "app-b", token)).status == 200


async def test_throttled(entra: Caller) -> None:
    """90055 (planned) is 429 with Retry-After."""
    entra.local.faults.add("throttle", value=17, count=1)
    answer = await entra.m2m("app-a", "app-b")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, 90055, "17")
    assert (await entra.m2m("app-a", "app-b")).status == 200


@pytest.mark.parametrize("missing", ["grant_type", "client_id", "scope"])
async def test_missing_parameters(entra: Caller, missing: str) -> None:
    """900144 names the parameter."""
    answer = await entra.m2m("app-a", "app-b", **{missing: ""})
    expect(answer, 900144, "invalid_request", 400)
    assert f"'{missing}'" in answer.json["error_description"]


async def test_unsupported_grant(entra: Caller) -> None:
    """70003 for any other grant type."""
    expect(await entra.m2m("app-a", "app-b", grant_type="password"), 70003, "unsupported_grant_type", 400)


async def test_only_post(entra: Caller) -> None:
    """900561 for a GET."""
    answer = await entra.request("GET", f"/{entra.tenant_id('app-a')}/oauth2/v2.0/token")
    expect(answer, 900561, "invalid_request", 405)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("grant_type=client_credentials&grant_type=x", "application/x-www-form-urlencoded"),
        ("{}", "application/json"),
        ("a=%ff", "application/x-www-form-urlencoded"),
        ("&".join(f"p{number}=x" for number in range(300)), "application/x-www-form-urlencoded"),
    ],
)
async def test_malformed_bodies(entra: Caller, body: str, content_type: str) -> None:
    """9002313 for a repeated parameter, another content type, bytes that are no text, and far too many
    fields.
    """
    path = f"/{entra.tenant_id('app-a')}/oauth2/v2.0/token"
    answer = await entra.request("POST", path, data=body, headers={"Content-Type": content_type})
    expect(answer, 9002313, "invalid_request", 400)


async def test_wrong_kind_of_use(entra: Caller) -> None:
    """9002313 when the jwt-bearer grant is not for on behalf of."""
    token = await entra.user_token("app-a", "ada")
    expect(await entra.obo("app-a", "app-b", token, requested_token_use="x"), 9002313, "invalid_request", 400)


async def test_secret_in_the_header(entra: Caller) -> None:
    """client_secret_basic works; a second authentication method in the same request does not (RFC 6749,
    section 2.3)."""
    sent = entra.credentials("app-a")
    header = {"Authorization": aiohttp.encode_basic_auth(sent["client_id"], sent["client_secret"])}
    form = {"grant_type": "client_credentials", "scope": entra.scope("app-b")}
    assert (await entra.token(form, headers=header)).status == 200
    twice = await entra.token({**form, **sent}, headers=header)
    expect(twice, 9002313, "invalid_request", 400)
    wrong = {"Authorization": aiohttp.encode_basic_auth(sent["client_id"], "wrong")}
    refused = await entra.token(form, headers=wrong)
    expect(refused, 7000215, "invalid_client", 401)
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    for broken in ("Basic", "Basic !", "Basic AAAA"):
        assert (await entra.token(form, headers={"Authorization": broken})).status in (400, 401)


async def test_more_than_one_way_to_authenticate(entra: Caller) -> None:
    """9002313 for every two of secret, assertion and header, whether right or wrong: one request, one method
    (RFC 6749, section 2.3). Nothing that was sent is in the answer."""
    sent = entra.credentials("app-a")
    basic = {"Authorization": aiohttp.encode_basic_auth(sent["client_id"], sent["client_secret"])}
    form = {"grant_type": "client_credentials", "scope": entra.scope("app-b")}
    for secret in (sent["client_secret"], "canary"):
        for assertion in (entra.assertion("app-a"), "canary.canary.canary"):
            both = await entra.token(with_assertion(entra, assertion, client_secret=secret))
            expect(both, 9002313, "invalid_request", 400)
            assert "canary" not in both.text
    with_header = [
        {"client_secret": "canary"},
        {"client_assertion": entra.assertion("app-a"), "client_assertion_type": ASSERTION_TYPE},
        {"client_assertion_type": ASSERTION_TYPE},
        {"client_id": entra.client_id("app-c")},
    ]
    for fields in with_header:
        answer = await entra.token({**form, **fields}, headers=basic)
        expect(answer, 9002313, "invalid_request", 400)
    two = [("Authorization", value) for value in (basic["Authorization"], "Basic Y2FuYXJ5OmNhbmFyeQ==")]
    expect(await entra.token(form, headers=two), 9002313, "invalid_request", 400)
    assert (await entra.token({**form, "client_id": sent["client_id"]}, headers=basic)).status == 200


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"client_assertion_type": ""}, 900144, "client_assertion_type"),
        ({"client_assertion": ""}, 900144, "client_assertion"),
        (
            {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
            9002313,
            "jwt",
        ),
        ({"client_assertion_type": ASSERTION_TYPE.upper()}, 9002313, "jwt"),
    ],
)
async def test_an_assertion_needs_its_type(
    entra: Caller, changes: dict[str, str], code: int, named: str
) -> None:
    """900144 names the missing one of the two; 9002313 for another type."""
    answer = await entra.token(with_assertion(entra, entra.assertion("app-a"), **changes))
    expect(answer, code, "invalid_request", 400)
    assert named in answer.json["error_description"]


async def test_credentials_and_scopes_are_bounded(entra: Caller) -> None:
    """700027 for an assertion, and 70011 for a scope, of absurd length."""
    long = await entra.token(with_assertion(entra, entra.assertion("app-a", padding="x" * 20_000)))
    expect(long, 700027, "invalid_client", 401)
    assert "longer than 16384 bytes" in long.json["error_description"]
    scope = await entra.m2m("app-a", "app-b", scope="openid " * 1000 + entra.scope("app-b"))
    expect(scope, 70011, "invalid_scope", 400)


async def test_on_behalf_of_needs_a_target(entra: Caller) -> None:
    """70011 for OpenID Connect scopes alone; extra blanks between scopes do not matter."""
    token = await entra.user_token("app-a", "ada")
    expect(await entra.obo("app-a", "app-b", token, scope="openid"), 70011, "invalid_scope", 400)
    spaced = await entra.obo("app-a", "app-b", token, scope=f"  openid   {entra.scope('app-b')} ")
    assert spaced.status == 200


@pytest.mark.parametrize("code", sorted(KINDS))
async def test_every_code_can_be_planned_and_looked_up(entra: Caller, code: int) -> None:
    """Every row of the catalogue can be asked for on purpose, has its status and error, and its page
    under error_uri, which is named except where Entra ID leaves it out.
    """
    entra.local.faults.add("aadsts", value=code)
    answer = await entra.m2m("app-a", "app-b")
    expect(answer, code, KINDS[code].error, KINDS[code].status)
    assert not re.search(r"[{}]", answer.json["error_description"].replace("{EmailHidden}", ""))
    assert ("error_uri" in answer.json) == (code not in (70003, 700038, 650053, 65001))
    reference = await entra.request("GET", answer.json.get("error_uri", f"/error?code={code}"))
    assert reference.status == 200
    assert f"AADSTS{code}" in reference.text


def test_the_catalogue_is_complete() -> None:
    """Every code that the emulator can raise is in the catalogue, and every row of the catalogue is
    raised somewhere.
    """
    folder = Path(package.__file__).parents[1]
    text = "".join(path.read_text() for path in folder.rglob("*.py") if path.name != "_aadsts.py")
    raised = {int(code) for code in re.findall(r"EntraError\(\s*(\d+)", text)}
    assert raised <= set(KINDS)
    assert set(KINDS) - raised == {
        50076,
        90033,
    }  # planned only: there is no second factor, and nothing fails on its own
