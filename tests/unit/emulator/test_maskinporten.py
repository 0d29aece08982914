"""The local Maskinporten: who gets a token with which scopes, for which organization, and each refusal."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._native import unverified_header
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.errors import InvalidToken
from entra_fast.validate import Validator
from support.keys import Key
from support.local_entra import Clock, served
from support.local_providers import (
    CUSTOMER,
    JWT_GRANT,
    OWN,
    STRANGER,
    MaskinportenCaller,
    full,
    local_providers,
    workload,
)

AFP = "nav:helse/sykepenger/afp.read"
PLAIN = "nav:arbeid:stillinger"
SHORT, LONG = "nav:tid:kort", "nav:tid:lang"
TAX, POLICE = "skatteetaten:inntekt", "politiet:vandel"
NOWHERE, OFF = "nowhere:scope", "nav:arbeid:av"


def exposed(product: str, name: str, *consumers: str, **fields: Any) -> dict[str, Any]:
    """One entry of `exposes`."""
    return {
        "enabled": True,
        "product": product,
        "name": name,
        "consumers": [{"orgno": number} for number in consumers],
        **fields,
    }


MANIFESTS = [
    workload(
        "owner",
        exposes=[
            exposed("helse", "sykepenger/afp.read", OWN, CUSTOMER, separator="/", delegationSource="altinn"),
            exposed("arbeid", "stillinger", accessibleForAll=True),
            exposed("arbeid", "av", OWN, enabled=False),
            exposed("tid", "kort", OWN, atMaxAge=30),
            exposed("tid", "lang", OWN, atMaxAge=680),
            exposed("lukket", "internt", CUSTOMER),
        ],
    ),
    workload("client", consumes=[AFP, PLAIN, SHORT, LONG, TAX, POLICE, NOWHERE, OFF, "nav:lukket:internt"]),
    workload("other", consumes=[AFP], organization=CUSTOMER),
    workload("closed", consumes=[PLAIN]),
    workload("without", tokenx=True),
]

DIRECTORY = f"""
tenant: trygdeetaten.no
scopes:
  - {{name: "{TAX}", consumers: ["{OWN}"], atMaxAge: 3600, delegationSource: altinn}}
  - {{name: "{POLICE}", accessibleForAll: true}}
delegations:
  - {{scope: "{AFP}", consumer: "{CUSTOMER}", supplier: "{OWN}"}}
"""


@pytest_asyncio.fixture
async def maskinporten(clock: Clock) -> AsyncIterator[MaskinportenCaller]:
    """A running Maskinporten with an application that exposes scopes, and some that consume them."""
    async with served(local_providers(MANIFESTS, DIRECTORY, clock=clock)) as caller:
        yield MaskinportenCaller(caller)


def organization(number: str) -> dict[str, str]:
    return {"authority": "iso6523-actorid-upis", "ID": f"0192:{number}"}


def system_user(number: str = CUSTOMER, **changes: Any) -> list[dict[str, Any]]:
    """`authorization_details` for the system user of an organization."""
    return [{"type": "urn:altinn:systemuser", "systemuser_org": organization(number), **changes}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[MaskinportenCaller]:
    """The same, one for all tests of refusals; its clock stands."""
    async with served(local_providers(MANIFESTS, DIRECTORY, clock=Clock())) as caller:
        yield MaskinportenCaller(caller)


# Documents and keys


async def test_the_discovery_document(maskinporten: MaskinportenCaller) -> None:
    """The issuer ends with a slash, and the addresses follow it."""
    issuer = maskinporten.issuer
    expected = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}token",
        "jwks_uri": f"{issuer}jwk",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "grant_types_supported": [JWT_GRANT],
    }
    name = ".well-known/oauth-authorization-server"
    for path in (f"/maskinporten/{name}", f"/{name}/maskinporten", f"/{name}/maskinporten/"):
        answer = await maskinporten.caller.request("GET", path)
        assert (answer.status, answer.json) == (200, expected)
    for path in ("/maskinporten/.well-known/openid-configuration", "/maskinporten/authorize"):
        assert (await maskinporten.caller.request("GET", path)).status == 404
    assert (await maskinporten.caller.request("GET", "/maskinporten/token")).status == 405
    for path in (f"/maskinporten/{name}", "/maskinporten/jwk", "/maskinporten/errors/MP-100"):
        answer = await maskinporten.caller.request("PUT", path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_keys_have_an_algorithm_and_can_be_replaced(maskinporten: MaskinportenCaller) -> None:
    """The new key is not announced; the previous one stays published."""
    before = (await maskinporten.caller.request("GET", "/maskinporten/jwk")).json["keys"]
    assert [set(key) for key in before] == [{"kty", "e", "use", "kid", "n", "alg"}] * 2
    await maskinporten.caller.request("POST", "/admin/api/providers/maskinporten/keys/rotate")
    after = (await maskinporten.caller.request("GET", "/maskinporten/jwk")).json["keys"]
    assert [key["kid"] for key in after][1] == before[0]["kid"]
    assert after[0] not in before
    listed = (await maskinporten.caller.request("GET", "/admin/api/providers")).json
    assert {item["name"]: item["issuer"] for item in listed} == {
        "tokenx": f"{maskinporten.caller.base_url}/tokenx",
        "maskinporten": maskinporten.issuer,
        "idporten": f"{maskinporten.caller.base_url}/idporten",
    }
    assert listed[1]["keys"] == [key["kid"] for key in after]
    unknown = await maskinporten.caller.request("POST", "/admin/api/providers/x/keys/rotate")
    assert (unknown.status, "only tokenx, maskinporten" in unknown.text) == (400, True)


# Tokens


async def test_a_token(maskinporten: MaskinportenCaller, clock: Clock) -> None:
    """Its claims name the client and its organization; there is no `sub`, and no `aud` without `resource`."""
    answer = await maskinporten.token("client", AFP)
    assert answer.status == 200, answer.text
    token = answer.json["access_token"]
    assert answer.json == {"access_token": token, "token_type": "Bearer", "expires_in": 30, "scope": AFP}
    claims, now = answer.claims, int(clock.now)
    assert claims.pop("jti")
    assert claims == {
        "iss": maskinporten.issuer,
        "client_id": maskinporten.client_id("client"),
        "client_amr": "private_key_jwt",
        "token_type": "Bearer",
        "scope": AFP,
        "consumer": organization(OWN),
        "iat": now,
        "exp": now + 30,
    }
    assert set(unverified_header(token)) == {"kid", "alg"}
    other = await maskinporten.token("other", AFP)
    assert other.claims["consumer"] == organization(CUSTOMER)


async def test_tokens_verify_with_the_published_keys(maskinporten: MaskinportenCaller, clock: Clock) -> None:
    """By the library itself; `resource` is the audience."""
    answer = await maskinporten.token("client", AFP, resource="https://api.example")
    jwks = (await maskinporten.caller.request("GET", "/maskinporten/jwk")).text
    validator = Validator(issuer=maskinporten.issuer, audience="https://api.example", jwks=jwks, clock=clock)
    assert validator.validate(answer.json["access_token"])["scope"] == AFP
    maskinporten.local.faults.add("expired_token", endpoint="maskinporten", application=full("client"))
    answer = await maskinporten.token("client", AFP, resource="https://api.example")
    with pytest.raises(InvalidToken) as caught:
        validator.validate(answer.json["access_token"])
    assert caught.value.code == "token_expired"


@pytest.mark.parametrize(
    ("scope", "lifetime"),
    [(POLICE, 120), (SHORT, 30), (LONG, 680), (TAX, 3600), (f"{LONG} {SHORT}", 30), (f"{TAX} {POLICE}", 120)],
)
async def test_lifetimes(maskinporten: MaskinportenCaller, scope: str, lifetime: int) -> None:
    """The scope's, 120 s if it has none; the shortest of several."""
    answer = await maskinporten.token("client", scope)
    assert (answer.json["expires_in"], answer.json["scope"]) == (lifetime, scope)
    assert answer.claims["exp"] - answer.claims["iat"] == lifetime


@pytest.mark.parametrize(
    ("resource", "audience"),
    [
        ("https://a.example", "https://a.example"),
        (["https://a.example"], "https://a.example"),
        (["https://a.example", "b"], ["https://a.example", "b"]),
    ],
)
async def test_resources(maskinporten: MaskinportenCaller, resource: Any, audience: Any) -> None:
    """Text or a list (RFC 8707)."""
    assert (await maskinporten.token("client", PLAIN, resource=resource)).claims["aud"] == audience


async def test_a_person_in_the_grant(maskinporten: MaskinportenCaller) -> None:
    """`pid` is passed on."""
    assert (await maskinporten.token("client", PLAIN, pid="17858549949")).claims["pid"] == "17858549949"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512"])
async def test_algorithms_of_grants(maskinporten: MaskinportenCaller, algorithm: str) -> None:
    """A registered key signs with any of three."""
    key = PrivateKey(maskinporten.key("client").private_jwk() | {"alg": algorithm})
    answer = await maskinporten.token("client", PLAIN, key=key, header={"alg": algorithm})
    assert answer.status == 200, answer.text


async def test_delegated_scopes(maskinporten: MaskinportenCaller) -> None:
    """`consumer` is the customer, who has delegated the scope to the client's organization."""
    claims = (await maskinporten.token("client", AFP, consumer_org=CUSTOMER)).claims
    assert claims["consumer"] == organization(CUSTOMER)
    assert claims["supplier"] == organization(OWN)
    assert claims["delegation_source"] == "altinn"


async def test_system_users(maskinporten: MaskinportenCaller) -> None:
    """The token says which system user of the organization it is, always the same one."""
    first, second = [
        (await maskinporten.token("client", PLAIN, authorization_details=system_user(externalRef="x"))).claims
        for _ in range(2)
    ]
    (entry,) = first["authorization_details"]
    assert first["authorization_details"] == second["authorization_details"]
    assert entry.pop("systemuser_id")[0]
    assert entry.pop("system_id") == f"{OWN}_client"
    assert [entry] == system_user(externalRef="x")
    assert first["consumer"] == organization(OWN)


# Refusals

OTHER_KEY = Key.generate()
FAILED = "Invalid assertion. Client authentication failed."
PARAMETER = (400, "invalid_request", "MP-011", "Invalid assertion. Invalid parameter value")
UNKNOWN_CLIENT = (400, "invalid_grant", "MP-100", FAILED)
EXPIRED = (400, "invalid_grant", "MP-130", "JWT is expired")
LATER = (400, "invalid_grant", "", "Issue time is after now")
DETAILS = {
    "type": (400, "invalid_request", "MP-301", "Invalid authorization_details. Unknown type"),
    "field": (400, "invalid_request", "MP-302", "Invalid authorization_details. Unknown field"),
    "value": (400, "invalid_request", "MP-303", "Invalid authorization_details. Invalid value"),
}
Expected = tuple[int, str, str, str]


def not_granted(scope: str) -> Expected:
    return (403, "forbidden", "MP-250", f"Consumer has not been granted access to the scope {scope}.")


def not_delegated(scope: str, consumer: str) -> Expected:
    text = f"Consumer {consumer} has not delegated access to the scope {scope} to supplier {OWN}."
    return (403, "forbidden", "MP-251", text)


def invalid_scopes(scope: str) -> Expected:
    text = f"Token request contains invalid scopes for client, {scope}"
    return (400, "invalid_scope", "MP-200", text)


def at(seconds: float) -> Any:
    """A time of the grant, from now."""
    return lambda now: now + seconds


REFUSALS: dict[str, tuple[str | None, Mapping[str, Any], Expected]] = {
    "unknown client": (PLAIN, {"iss": "x"}, UNKNOWN_CLIENT),
    "no issuer": (PLAIN, {"iss": None}, UNKNOWN_CLIENT),
    "audience": (PLAIN, {"aud": "x"}, (400, "invalid_grant", "MP-110", f"{FAILED} Invalid JWT claim aud.")),
    "no audience": (
        PLAIN,
        {"aud": None},
        (400, "invalid_grant", "MP-110", f"{FAILED} Invalid JWT claim aud."),
    ),
    "signature": (
        PLAIN,
        {"key": OTHER_KEY},
        (400, "invalid_grant", "MP-124", f"{FAILED} Invalid JWT signature."),
    ),
    "kid": (
        PLAIN,
        {"header": {"kid": "x"}},
        (400, "invalid_grant", "", f"{FAILED} Unknown key identifier (kid) for client."),
    ),
    "x5c in place of kid": (
        PLAIN,
        {"header": {"kid": None, "x5c": ["MIIB"]}},
        (
            400,
            "invalid_grant",
            "",
            f"{FAILED} Unknown key identifier (kid) for client: it has a registered key, so the header must "
            "have the kid of that key in place of x5c.",
        ),
    ),
    "no kid": (
        PLAIN,
        {"header": {"kid": None}},
        (400, "invalid_grant", "", f"{FAILED} Unknown key identifier (kid) for client."),
    ),
    "no exp": (PLAIN, {"exp": None}, PARAMETER),
    "no iat": (PLAIN, {"iat": None}, PARAMETER),
    "too long": (PLAIN, {"exp": at(121)}, PARAMETER),
    "expired": (PLAIN, {"iat": at(-10), "exp": at(0)}, EXPIRED),
    "too old": (PLAIN, {"iat": at(-11)}, EXPIRED),
    "issued later": (PLAIN, {"iat": at(11), "exp": at(30)}, LATER),
    "valid later": (PLAIN, {"nbf": at(11)}, LATER),
    "no scope": (None, {}, PARAMETER),
    "blank scope": ("  ", {}, PARAMETER),
    "scope of another client": ("nav:x:y", {}, invalid_scopes("nav:x:y")),
    "scopes of others": (f"{PLAIN} a:b c:d", {}, invalid_scopes("a:b c:d")),
    "granted to others": ("nav:lukket:internt", {}, not_granted("nav:lukket:internt")),
    "exposed by no one": (NOWHERE, {}, not_granted(NOWHERE)),
    "not active": (OFF, {}, not_granted(OFF)),
    "customer without access": (TAX, {"consumer_org": CUSTOMER}, not_granted(TAX)),
    "customer who has not delegated": (
        AFP,
        {"consumer_org": OWN},
        not_delegated(AFP, OWN),
    ),
    "scope that cannot be delegated": (
        PLAIN,
        {"consumer_org": CUSTOMER},
        not_delegated(PLAIN, CUSTOMER),
    ),
    "customer's number": (AFP, {"consumer_org": "12345678"}, PARAMETER),
    "customer's number as a number": (AFP, {"consumer_org": 310000027}, PARAMETER),
    "resource": (PLAIN, {"resource": 7}, PARAMETER),
    "resources": (PLAIN, {"resource": ["a", ""]}, PARAMETER),
    "no resources": (PLAIN, {"resource": []}, PARAMETER),
    "person": (PLAIN, {"pid": "1785854994"}, PARAMETER),
    "details are no list": (PLAIN, {"authorization_details": system_user()[0]}, DETAILS["value"]),
    "details are text": (PLAIN, {"authorization_details": json.dumps(system_user())}, DETAILS["value"]),
    "two details": (PLAIN, {"authorization_details": system_user() * 2}, DETAILS["value"]),
    "type of details": (PLAIN, {"authorization_details": system_user(type="x")}, DETAILS["type"]),
    "field of details": (PLAIN, {"authorization_details": system_user(x=1)}, DETAILS["field"]),
    "field of the organization": (
        PLAIN,
        {"authorization_details": system_user(systemuser_org={**organization(OWN), "x": 1})},
        DETAILS["field"],
    ),
    "organization's number": (PLAIN, {"authorization_details": system_user("123456789")}, DETAILS["value"]),
    "organization's authority": (
        PLAIN,
        {"authorization_details": system_user(systemuser_org={**organization(OWN), "authority": "x"})},
        DETAILS["value"],
    ),
    "reference of the details": (
        PLAIN,
        {"authorization_details": system_user(externalRef=math.inf)},
        DETAILS["value"],
    ),
    "no organization": (
        PLAIN,
        {"authorization_details": [{"type": "urn:altinn:systemuser"}]},
        DETAILS["value"],
    ),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", REFUSALS)
async def test_refusals(shared: MaskinportenCaller, clock: Clock, case: str) -> None:
    """Each check has its status, error, number and sentence, and an id of its own; the journal says why."""
    scope, changes, (status, error, code, text) = REFUSALS[case]
    fields = {name: value(clock.now) if callable(value) else value for name, value in changes.items()}
    answer = await shared.token("client", scope, **fields)
    assert (answer.status, answer.json["error"]) == (status, error)
    description = answer.json["error_description"]
    assert re.fullmatch(re.escape(text) + r" \(trace_id: [0-9a-f]{32}\)", description)
    assert answer.json.get("error_uri", "") == (f"{shared.issuer}errors/{code}" if code else "")
    entry = shared.local.journal.entries()[0]
    assert (entry.provider, entry.granted, entry.message) == ("maskinporten", False, f"{error}: {text}")
    if code:
        page = await shared.caller.request("GET", answer.json["error_uri"], headers={"Accept": "text/html"})
        assert (page.status, code in page.text) == (200, True)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "assertion": "x"}, "unsupported_grant_type"),
        ({"grant_type": JWT_GRANT}, "invalid_request"),
        ({"grant_type": JWT_GRANT, "assertion": "x"}, "invalid_request"),
        ({"grant_type": JWT_GRANT, "assertion": "e30.e30."}, "invalid_request"),
    ],
)
async def test_forms_that_are_no_grant(
    maskinporten: MaskinportenCaller, form: dict[str, str], error: str
) -> None:
    """A clear error for each."""
    answer = await maskinporten.post(form)
    assert (answer.status, answer.json["error"]) == (400, error)
    assert (await maskinporten.caller.request("POST", "/maskinporten/token", json=form)).status == 400


async def test_algorithms_that_no_grant_may_have(maskinporten: MaskinportenCaller) -> None:
    """Only those of three."""
    key = PrivateKey(maskinporten.key("client").private_jwk() | {"alg": "PS256"})
    answer = await maskinporten.token("client", PLAIN, key=key, header={"alg": "PS256"})
    assert answer.json["error_uri"].endswith("/errors/MP-011")


async def test_unknown_error_codes(maskinporten: MaskinportenCaller) -> None:
    """The page of errors knows only those that occur here."""
    assert (await maskinporten.caller.request("GET", "/maskinporten/errors/MP-999")).status == 404


async def test_a_certificate_beside_the_key_means_nothing(maskinporten: MaskinportenCaller) -> None:
    """The key that `kid` names counts."""
    assert (await maskinporten.token("client", PLAIN, header={"x5c": ["MIIB"]})).status == 200


async def test_a_client_whose_key_was_never_used(maskinporten: MaskinportenCaller) -> None:
    """A guess does not cost the time of generating a key."""
    grant = maskinporten.grant("client", PLAIN, iss=maskinporten.client_id("closed"))
    assert "Unknown key identifier" in (await maskinporten.send(grant)).text
    assert maskinporten.local.provider_keys.known_client("maskinporten", full("closed")) is None


@pytest.mark.parametrize(
    "times", [{"iat": -10, "exp": 110}, {"iat": 10, "exp": 130}, {"nbf": 10}, {"iat": -5, "exp": 1}]
)
async def test_the_limits_of_times(
    maskinporten: MaskinportenCaller, clock: Clock, times: dict[str, Any]
) -> None:
    """A grant lives 120 s at most, and the clocks may differ by 10 s."""
    changes: dict[str, Any] = {name: int(clock.now) + seconds for name, seconds in times.items()}
    answer = await maskinporten.token("client", PLAIN, **changes)
    assert answer.status == 200, answer.text


async def test_a_grant_is_usable_once(maskinporten: MaskinportenCaller, clock: Clock) -> None:
    """By its `jti`, per client, also where it was refused for its scope; without `jti` as a whole."""
    grant = maskinporten.grant("client", PLAIN)
    assert (await maskinporten.send(grant)).status == 200
    again = await maskinporten.send(grant)
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert again.json["error_description"].startswith("Grant is used before (trace_id: ")
    assert again.json["error_uri"] == f"{maskinporten.issuer}errors/MP-012"
    assert (await maskinporten.token("client", "nav:x:y", jti="one")).json["error"] == "invalid_scope"
    assert "used before" in (await maskinporten.token("client", PLAIN, jti="one")).text
    assert (await maskinporten.token("other", AFP, jti="one")).status == 200
    without = maskinporten.grant("client", PLAIN, jti=None)
    assert [(await maskinporten.send(without)).status for _ in range(2)] == [200, 400]
    maskinporten.local.reset()
    assert (await maskinporten.send(without)).status == 200
    clock.now += 200
    assert (await maskinporten.token("client", PLAIN, jti="one")).status == 200


async def test_of_two_requests_with_one_grant_one_gets_a_token(maskinporten: MaskinportenCaller) -> None:
    """Also at the same time."""
    grant = maskinporten.grant("client", PLAIN)
    answers = await asyncio.gather(*(maskinporten.send(grant) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 9


async def test_keys_of_clients_expire(maskinporten: MaskinportenCaller, clock: Clock) -> None:
    """A year after the registration; reading the environment registers a new one."""
    old = maskinporten.key("client")
    clock.now += 366 * 86_400
    known = maskinporten.local.provider_keys.known_client("maskinporten", full("client"))
    assert known is not None
    header = {"kid": old.kid}
    now = int(clock.now)
    claims = {"iss": maskinporten.client_id("client"), "aud": maskinporten.issuer, "scope": PLAIN}
    text = json.dumps({**claims, "iat": now, "exp": now + 30}).encode()
    answer = await maskinporten.send(old.sign(json.dumps({"alg": "RS256", **header}).encode(), text))
    assert answer.json["error_description"].startswith(f"{FAILED} Expired key. (trace_id: ")
    assert answer.json["error_uri"].endswith("/MP-121")
    fresh = json.loads(maskinporten.local.environment(full("client"))["MASKINPORTEN_CLIENT_JWK"])
    assert fresh["kid"] != old.kid
    assert (await maskinporten.token("client", PLAIN)).status == 200


# What applications and developers see


async def test_the_environment_of_an_application(maskinporten: MaskinportenCaller) -> None:
    """The variables that NAIS sets, and which providers are enabled."""
    environment = maskinporten.local.environment(full("other"))
    key = json.loads(environment["MASKINPORTEN_CLIENT_JWK"])
    assert {name: value for name, value in environment.items() if name.startswith("MASKINPORTEN_")} == {
        "MASKINPORTEN_ENABLED": "true",
        "MASKINPORTEN_CLIENT_ID": maskinporten.client_id("other"),
        "MASKINPORTEN_CLIENT_JWK": environment["MASKINPORTEN_CLIENT_JWK"],
        "MASKINPORTEN_SCOPES": AFP,
        "MASKINPORTEN_WELL_KNOWN_URL": f"{maskinporten.issuer}.well-known/oauth-authorization-server",
        "MASKINPORTEN_ISSUER": maskinporten.issuer,
        "MASKINPORTEN_JWKS_URI": f"{maskinporten.issuer}jwk",
        "MASKINPORTEN_TOKEN_ENDPOINT": f"{maskinporten.issuer}token",
    }
    assert (key["kty"], key["alg"], key["use"], len(key["kid"])) == ("RSA", "RS256", "sig", 36)
    assert maskinporten.local.environment(maskinporten.client_id("other")) == environment, "by client id"
    assert maskinporten.local.environment(full("without"))["MASKINPORTEN_ENABLED"] == "false"


@pytest.mark.parametrize(
    ("consumer", "scope", "customer", "granted", "text"),
    [
        ("client", PLAIN, None, True, f"{PLAIN} is granted to the organization {OWN}"),
        ("client", f"{PLAIN} {AFP}", None, True, AFP),
        ("client", AFP, CUSTOMER, True, f"{CUSTOMER} has delegated {AFP} to {OWN}"),
        (
            "client",
            "nav:x:y",
            None,
            False,
            "spec.maskinporten.scopes.consumes of dev-gcp:team:client: - {name: 'nav:x:y'}",
        ),
        ("client", NOWHERE, None, False, "in `scopes` of the directory file"),
        (
            "client",
            "nav:lukket:internt",
            None,
            False,
            f"scopes.exposes of {full('owner')}: - {{orgno: '{OWN}'}}",
        ),
        ("client", TAX, CUSTOMER, False, f"`consumers` of its entry: - '{CUSTOMER}'"),
        ("client", PLAIN, CUSTOMER, False, "set delegationSource of the scope"),
        ("client", AFP, OWN, False, f"delegations` of the directory file: - {{scope: '{AFP}'"),
        ("without", PLAIN, None, False, "set spec.maskinporten.enabled to true"),
    ],
)
async def test_explanations(
    maskinporten: MaskinportenCaller,
    consumer: str,
    scope: str,
    customer: str | None,
    granted: bool,
    text: str,
) -> None:
    """What the token endpoint would decide, and what to change."""
    query = {"provider": "maskinporten", "consumer": full(consumer), "target": scope}
    if customer is not None:
        query["organization"] = customer
    answer = await maskinporten.caller.request("GET", "/admin/api/explain", params=query)
    assert answer.json["granted"] is granted, answer.text
    explanation = maskinporten.local.providers.explain("maskinporten", full(consumer), scope, customer)
    assert text in "\n".join(explanation.lines())
    if consumer != "without":
        changes = {} if customer is None else {"consumer_org": customer}
        sent = await maskinporten.token(consumer, scope, **changes)
        assert (sent.status == 200) is granted
        if not granted:
            assert sent.json["error"] == answer.json["error"]["error"]
            assert sent.json["error_description"].startswith(answer.json["error"]["text"])


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"provider": "idontknow"}, "none of entra_id, tokenx and maskinporten"),
        ({"provider": "tokenx", "user": "ada"}, "does not depend on the user"),
        ({"provider": "tokenx", "organization": OWN}, "only Maskinporten"),
        ({"provider": "maskinporten", "organization": "1"}, "is not an organization number"),
        ({"provider": "maskinporten", "target": " "}, "expected scopes"),
        ({"provider": "maskinporten", "consumer": "nobody"}, "there is no application 'nobody'"),
    ],
)
async def test_explanations_of_nothing(
    maskinporten: MaskinportenCaller, query: dict[str, str], text: str
) -> None:
    """Bad parameters have a sentence each."""
    params = {"consumer": full("client"), "target": PLAIN, **query}
    answer = await maskinporten.caller.request("GET", "/admin/api/explain", params=params)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert text in answer.json["error_description"]


def test_notices_about_scopes() -> None:
    """What is refused at run time is said when the manifests are read."""
    local = local_providers(
        [
            *MANIFESTS,
            workload("twice", exposes=[exposed("arbeid", "stillinger", STRANGER, "123456789")]),
        ],
        DIRECTORY,
    )
    notices = "\n".join(str(notice) for notice in local.notices)
    assert f"no manifest exposes the scope '{NOWHERE}'" in notices
    assert f"the scope 'nav:lukket:internt' is not granted to the organization {OWN}" in notices
    assert f"the scope '{PLAIN}' is exposed at 0.yaml:1 already" in notices
    assert "no organization has the number 123456789" in notices
