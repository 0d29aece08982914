"""Attacks on the claims of well-signed tokens: malformed is not absent, and comparison is exact."""

from __future__ import annotations

import json
from typing import Any

import pytest

from entra_fast import Agent
from entra_fast._claims import ClaimsView
from entra_fast.validate import ConfigurationError, Validator
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    ISSUER_TEMPLATE,
    NOW,
    OTHER_TENANT,
    TENANT,
    V1_ISSUER_TEMPLATE,
    good_claims,
    refusal,
    signer,
    validator,
)

TIMES = ("exp", "nbf", "iat")


def with_text(name: str, literal: str) -> str:
    """Good claims in which one claim has exactly this JSON text."""

    rest = json.dumps(good_claims(**{name: ABSENT}))[1:-1]
    return f'{{{rest},"{name}":{literal}}}'


# --- times -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "literal",
    [
        f'"{int(NOW)}"', '""', "true", "false", "null", "[]", "{}", f"[{int(NOW)}]",
        "1e400", "-1e400", "1180591620717411303424", "253402300800", "1e308", "9" * 200,
        "-1", "-0.5", "-1e-300", f"-{int(NOW)}",
    ],
)  # fmt: skip
def test_malformed_time(name: str, literal: str) -> None:
    """`exp`, `nbf` or `iat` as a string, a bool, null, 1e400, 2^70, a negative number: malformed, also
    where the claim could be left out."""
    error = refusal(validator(required_claims=[]), signer().token(with_text(name, literal)))
    assert (error.code, str(error)) == ("claim_malformed", f"token has a malformed claim '{name}'")


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "0x7f", "01", "1_000", "+1", ".5", "1."])
def test_time_that_is_no_json_number(name: str, literal: str) -> None:
    """NaN and the like are not JSON: the claims as a whole are rejected."""
    assert refusal(validator(), signer().token(with_text(name, literal))).code == "claims_not_an_object"


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "iat"])
def test_missing_claim(name: str) -> None:
    """A token without a checked claim is rejected; `iat` is optional if the policy says so."""
    token = signer().token(**{name: ABSENT})
    error = refusal(validator(), token)
    assert (error.code, str(error)) == ("claim_missing", f"token is missing the required claim '{name}'")
    if name == "iat":
        validator(required_claims=[]).validate(token)
    else:
        assert refusal(validator(required_claims=[]), token).code == "claim_missing"


def test_required_claims() -> None:
    """A claim that the policy asks for must be there, whatever its value; without `nbf` a token is good."""
    validator().validate(signer().token(nbf=ABSENT))
    strict = validator(required_claims=["nbf", "oid"])
    assert refusal(strict, signer().token(nbf=ABSENT)).code == "claim_missing"
    assert refusal(strict, signer().token(oid=ABSENT)).code == "claim_missing"
    strict.validate(signer().token(iat=ABSENT))
    assert refusal(strict, signer().token(nbf=None)).code == "claim_malformed"


def test_time_with_a_fraction() -> None:
    """A NumericDate may have a fraction of a second (RFC 7519, section 2), which counts."""
    claims = validator(leeway=0).validate(signer().token(exp=NOW + 0.25, iat=NOW - 0.5, nbf=NOW - 0.5))
    assert (claims.expires_at, claims.issued_at) == (NOW + 0.25, NOW - 0.5)
    assert refusal(validator(leeway=0), signer().token(exp=NOW - 0.25)).code == "token_expired"
    for literal in ("1800003600.0", "1.8000036e9", "18000036E2", "1800003600.000000001", "1800003600e0"):
        assert validator().validate(signer().token(with_text("exp", literal))).expires_at == pytest.approx(
            NOW + 3600
        )


@pytest.mark.parametrize("leeway", [0.0, 0.5, 60.0, 600.0])
def test_borders_of_time(leeway: float) -> None:
    """`exp` ends before the leeway is over; `nbf` and `iat` may lie ahead by the leeway, and no further."""
    one = validator(leeway=leeway)
    step = 1e-6 * 2
    one.validate(signer().token(exp=NOW - leeway + step))
    assert refusal(one, signer().token(exp=NOW - leeway)).code == "token_expired"
    one.validate(signer().token(nbf=NOW + leeway))
    assert refusal(one, signer().token(nbf=NOW + leeway + step)).code == "token_not_yet_valid"
    one.validate(signer().token(iat=NOW + leeway))
    assert refusal(one, signer().token(iat=NOW + leeway + step)).code == "issued_in_the_future"


def test_zero_is_a_time() -> None:
    """0 is the year 1970, not "no expiry"; so is -0."""
    for literal in ("0", "-0", "0.0", "-0.0", "0e5"):
        assert refusal(validator(), signer().token(with_text("exp", literal))).code == "token_expired"


def test_maximum_age() -> None:
    """With `max_age` an old token is refused though it is not expired, and `iat` is needed."""
    one = validator(max_age=300, required_claims=[], leeway=10)
    one.validate(signer().token(iat=NOW - 310))
    assert refusal(one, signer().token(iat=NOW - 311)).code == "token_too_old"
    assert refusal(one, signer().token(iat=ABSENT)).code == "claim_missing"


# --- issuer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        ISSUER[:-1],
        ISSUER[1:],
        ISSUER + "/",
        ISSUER + "x",
        ISSUER + "\0",
        ISSUER + " ",
        " " + ISSUER,
        ISSUER.upper(),
        ISSUER.replace("https", "http"),
        ISSUER.replace("microsoftonline", "microsoft\u043enline"),
        ISSUER.replace(".com", ".com."),
        ISSUER.replace(".com", ".com:443"),
        ISSUER.replace(".com", ".com.evil.example"),
        ISSUER.replace("https://", "https://evil.example/"),
        ISSUER.replace("https://", "https://evil@"),
        ISSUER.replace(TENANT, OTHER_TENANT),
        ISSUER.replace("/v2.0", ""),
        ISSUER.replace("v2.0", "%76%32.0"),
        ISSUER + "?" + ISSUER,
        ISSUER + "," + ISSUER,
        "",
        ".*",
        ISSUER_TEMPLATE,
    ],
)
def test_wrong_issuer(issuer: str) -> None:
    """A prefix, suffix, other spelling or neighbour of the issuer: the comparison is exact."""
    error = refusal(validator(), signer().token(iss=issuer))
    assert (error.code, error.expected) == ("wrong_issuer", ISSUER)


@pytest.mark.parametrize("issuer", [[ISSUER], [], {"iss": ISSUER}, None, True, 1, [ISSUER, "x"]], ids=repr)
def test_malformed_issuer(issuer: object) -> None:
    """`iss` as an array or anything other than a string is malformed, even if it contains the right
    issuer."""
    assert refusal(validator(), signer().token(iss=issuer)).code == "claim_malformed"


def test_several_issuers() -> None:
    """Each accepted issuer is accepted, and no mixture of them."""
    one = validator(issuer=["https://a.example/v2", "https://b.example/v2"])
    for issuer in ("https://a.example/v2", "https://b.example/v2"):
        one.validate(signer().token(iss=issuer))
    for issuer in ("https://a.example/", "https://a.example/v2 https://b.example/v2", ISSUER):
        error = refusal(one, signer().token(iss=issuer))
        assert error.expected == "https://a.example/v2 or https://b.example/v2"


# --- audience --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "audience",
    [
        AUDIENCE[:-1],
        AUDIENCE[1:],
        AUDIENCE + "x",
        AUDIENCE + " ",
        AUDIENCE.upper(),
        f"api://{AUDIENCE}",
        f"{AUDIENCE} other",
        f"other,{AUDIENCE}",
        "",
        "*",
        [],
        [""],
        ["other", AUDIENCE + "/"],
        [AUDIENCE[:18], AUDIENCE[18:]],
    ],
    ids=repr,
)
def test_wrong_audience(audience: object) -> None:
    """A part of the audience, or a text that contains it: only an equal string counts."""
    error = refusal(validator(), signer().token(aud=audience))
    assert (error.code, error.expected) == ("wrong_audience", AUDIENCE)


@pytest.mark.parametrize(
    "audience",
    [
        {AUDIENCE: 1},
        {"aud": AUDIENCE},
        None,
        True,
        1,
        [AUDIENCE, 1],
        [AUDIENCE, None],
        [1, AUDIENCE],
        [[AUDIENCE]],
        [AUDIENCE, [AUDIENCE]],
        [{"aud": AUDIENCE}],
    ],
    ids=repr,
)
def test_malformed_audience(audience: object) -> None:
    """`aud` as an object, or an array with anything but strings, even next to the right one (RFC 7519,
    section 4.1.3)."""
    assert refusal(validator(), signer().token(aud=audience)).code == "claim_malformed"


def test_good_audiences() -> None:
    """One of the token's audiences must be one of the accepted ones."""
    both = validator(audience=[AUDIENCE, "api://app"])
    for audience in (AUDIENCE, [AUDIENCE], "api://app", ["x", "api://app"], [AUDIENCE] * 3):
        both.validate(signer().token(aud=audience))


# --- tenants ---------------------------------------------------------------------------------------------


def multi_tenant(**options: Any) -> Validator:
    """Accepts tokens of every tenant that the options allow."""
    key = options.pop("key", None) or signer().jwk(issuer=ISSUER_TEMPLATE)
    settings: dict[str, Any] = {"issuer": ISSUER_TEMPLATE, "tenants": ["*"], **options}
    return validator(key, **settings)


def of_tenant(tenant: object, issuer_tenant: str | None = None, template: str = ISSUER_TEMPLATE) -> str:
    issuer = template.replace("{tenantid}", issuer_tenant or str(tenant))
    return signer().token(tid=tenant, iss=issuer)


def test_tenants_are_not_open_by_accident() -> None:
    """A template without `tenants`, or with "common" as a tenant, cannot be configured."""

    for tenants in (None, [], ["common"], ["organizations"], [TENANT[:-1]], ["*", TENANT], ["*", "*"]):
        with pytest.raises(ConfigurationError) as caught:
            multi_tenant(tenants=tenants)
        assert caught.value.setting == "tenants"


def test_token_of_another_tenant() -> None:
    """A genuine token from a tenant that is not on the list."""
    listed = multi_tenant(tenants=[TENANT.upper()])
    listed.validate(of_tenant(TENANT))
    error = refusal(listed, of_tenant(OTHER_TENANT))
    assert (error.code, error.actual) == ("tenant_not_allowed", OTHER_TENANT)
    assert error.expected == TENANT
    multi_tenant().validate(of_tenant(OTHER_TENANT))


@pytest.mark.parametrize(
    "tenant", ["common", "", "x", TENANT[:-1], TENANT + "0", f"{TENANT}/v2.0", f"{{{TENANT}}}", "{tenantid}"]
)
def test_tenant_that_is_no_guid(tenant: str) -> None:
    """`tid` must be a GUID: anything else could be made to fit the template."""
    assert refusal(multi_tenant(), of_tenant(tenant)).code == "claim_malformed"


def test_tenant_that_differs_from_the_issuer() -> None:
    """`iss` of one tenant with the `tid` of another (the confusion behind "nOAuth"): refused."""
    for one in (multi_tenant(), multi_tenant(tenants=[TENANT]), multi_tenant(tenants=[OTHER_TENANT])):
        assert refusal(one, of_tenant(TENANT, OTHER_TENANT)).code == "wrong_issuer"
        assert refusal(one, of_tenant(OTHER_TENANT, TENANT)).code == "wrong_issuer"
        assert refusal(one, of_tenant(TENANT, TENANT.replace("1", "1/2", 1))).code == "wrong_issuer"
    assert refusal(multi_tenant(), signer().token(tid=ABSENT)).code == "claim_missing"
    for tid in (None, 1, [TENANT], True):
        assert refusal(multi_tenant(), signer().token(tid=tid)).code == "claim_malformed"


def test_tenant_that_differs_from_an_issuer_named_in_full() -> None:
    """The same if each issuer is named and keys are bound to none: an application that decides by `tenant_id`
    must not see a tenant other than the one that issued the token."""
    issuers = [ISSUER_TEMPLATE.replace("{tenantid}", tenant) for tenant in (TENANT, OTHER_TENANT)]
    for tenants in (["*"], [TENANT, OTHER_TENANT]):
        one = multi_tenant(issuer=issuers, tenants=tenants, key=signer().jwk())
        assert one.validate(of_tenant(OTHER_TENANT)).tenant_id == OTHER_TENANT
        error = refusal(one, of_tenant(OTHER_TENANT, TENANT))
        assert (error.code, error.actual) == ("wrong_issuer", issuers[0])
        assert error.expected == f"an issuer with the tenant {OTHER_TENANT} in its path"


def test_issuer_bound_to_the_key() -> None:
    """A key that the provider publishes for one issuer verifies tokens of no other."""
    bound = signer().jwk(issuer=ISSUER)
    one = multi_tenant(key=bound)
    one.validate(of_tenant(TENANT))
    error = refusal(one, of_tenant(OTHER_TENANT))
    assert (error.code, error.expected) == ("wrong_issuer", ISSUER)
    # Also where only one tenant is accepted, and for a key of a template of another cloud.
    other = signer().jwk(issuer=ISSUER.replace(TENANT, OTHER_TENANT))
    assert refusal(validator(other), signer().token()).code == "wrong_issuer"
    foreign = signer().jwk(issuer="https://login.partner.example/{tenantid}/v2.0")
    assert refusal(multi_tenant(key=foreign), of_tenant(TENANT)).code == "wrong_issuer"


def test_v1_issuers() -> None:
    """v1.0 tokens have an issuer of another form. A key of the v2.0 issuer also verifies those of the same
    tenant, if the policy names that issuer; in every other respect, issuers are bound to their keys."""
    both = [ISSUER_TEMPLATE, V1_ISSUER_TEMPLATE]
    v1 = of_tenant(TENANT, template=V1_ISSUER_TEMPLATE)
    multi_tenant(issuer=both, key=signer().jwk()).validate(v1)
    multi_tenant(issuer=both, key=signer().jwk(issuer=V1_ISSUER_TEMPLATE)).validate(v1)
    validator(issuer=f"https://sts.windows.net/{TENANT}/").validate(v1)
    multi_tenant(issuer=both, key=signer().jwk(issuer=ISSUER_TEMPLATE)).validate(v1)
    other = signer().jwk(issuer=ISSUER.replace(TENANT, OTHER_TENANT))
    assert refusal(multi_tenant(issuer=both, key=other), v1).code == "wrong_issuer"
    assert refusal(multi_tenant(key=signer().jwk()), v1).code == "wrong_issuer"
    wrong = of_tenant(TENANT, OTHER_TENANT, V1_ISSUER_TEMPLATE)
    assert refusal(multi_tenant(issuer=both, key=signer().jwk()), wrong).code == "wrong_issuer"


# --- kinds of token --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typ",
    [
        "dpop+jwt", "logout+jwt", "token-introspection+jwt", "secevent+jwt", "client-authentication+jwt",
        "JWE", "JOSE", "jwt+x", "JWT ", " JWT", "", "at+jwt;v=1", "application/", "text/jwt", "x/at+jwt",
        None, 1, ["JWT"], {}, True,
    ],
    ids=repr,
)  # fmt: skip
def test_another_kind_of_token(typ: object) -> None:
    """A DPoP proof, a logout token and the like are signed by the same key (RFC 8725, section 3.11): refused
    by `typ`."""
    assert refusal(validator(), signer().token(header={"typ": typ})).code == "type_not_accepted"


@pytest.mark.parametrize(
    "typ", [ABSENT, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"]
)
def test_kinds_of_access_token(typ: object) -> None:
    """`typ` is compared as a media type (RFC 7515, section 4.1.9; RFC 9068, section 2.1)."""
    validator().validate(signer().token(header={"typ": typ}))


def test_id_token_as_access_token() -> None:
    """An ID token is a JWT by the same key: its audience is the client, not this application."""
    token = signer().token(aud="cccccccc-0000-0000-0000-000000000000", nonce="n", at_hash="h", roles=ABSENT)
    assert refusal(validator(), token).code == "wrong_audience"


# --- agents ----------------------------------------------------------------------------------------------


def test_the_agent_behind_a_token() -> None:
    """Microsoft's example of an agent that acts for itself, typed; a managed identity is none."""
    kinds = {"xms_act_fct": "3 9 11", "xms_sub_fct": "9 3 11"}
    key = signer()
    claims = validator(key).validate(key.token(**kinds, xms_par_app_azp="30cf4c22"))
    agent = claims.agent
    assert isinstance(agent, Agent)
    assert (agent.actor_kinds, agent.subject_kinds) == ((3, 9, 11), (9, 3, 11))
    assert (agent.blueprint_id, agent.is_subject, agent.is_user) == ("30cf4c22", True, False)
    assert agent == claims.agent == ClaimsView(claims.as_json()).agent
    assert repr(agent) == "<Agent: actor [3, 9, 11], subject [9, 3, 11]>"
    own_account = validator(key).validate(key.token(xms_act_fct="11", xms_sub_fct="13")).agent
    assert own_account is not None
    assert (own_account.is_user, own_account.blueprint_id) == (True, None)
    assert own_account != agent
    assert validator(key).validate(key.token()).agent is None
    assert ClaimsView(validator(key).validate(key.token()).as_json()).agent is None
    assert validator(key).validate(key.token(xms_act_fct="3 9", xms_sub_fct="9 3")).agent is None
    for junk in (11, ["11"], {"11": 11}, None, "", "x", "99999999999999999999", "1" * 10_000):
        assert validator(key).validate(key.token(xms_act_fct=junk, xms_sub_fct=junk)).agent is None
