"""The local TokenX: every check of tokendings, in its order, with its sentences, and the tokens it issues."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._native import unverified_header
from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.providers.tokenx.token_endpoint import TokenXService
from entra_fast.validate import Validator
from support.keys import Key
from support.local_entra import ASSERTION_TYPE, Clock, local_entra, manifest, served
from support.local_providers import JWT_TYPE, TokenXCaller, full, local_providers, workload

MANIFESTS = [
    workload("web"),
    workload("api", rules=[{"application": "web"}, {"application": "late"}, {"application": "*"}]),
    workload("api2", rules=[{"application": "api"}, {"application": "api2"}]),
    workload("closed"),
    workload("elsewhere", namespace="other", rules=[{"application": "web", "namespace": "team"}]),
    workload("off", tokenx=False, rules=[{"application": "web"}]),
    workload("without", tokenx=None),
    manifest("entra-only"),
]


@pytest_asyncio.fixture
async def tokenx(clock: Clock) -> AsyncIterator[TokenXCaller]:
    """A running TokenX with a chain of applications."""
    async with served(local_providers(MANIFESTS, clock=clock)) as caller:
        yield TokenXCaller(caller)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[TokenXCaller]:
    """The same, one for all tests of refusals; its clock stands."""
    async with served(local_providers(MANIFESTS, clock=Clock())) as caller:
        yield TokenXCaller(caller)


# Documents and keys


async def test_the_discovery_document_has_the_members_of_tokenx(tokenx: TokenXCaller) -> None:
    """At both places where clients look (RFC 8414, section 3), and only there."""
    expected = {
        "issuer": tokenx.issuer,
        "authorization_endpoint": f"{tokenx.issuer}/authorization",
        "token_endpoint": f"{tokenx.issuer}/token",
        "jwks_uri": f"{tokenx.issuer}/jwks",
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
        "subject_types_supported": ["public"],
    }
    for path in (
        "/tokenx/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/tokenx",
    ):
        answer = await tokenx.caller.request("GET", path)
        assert (answer.status, answer.json) == (200, expected)
    for path in ("/tokenx/.well-known/openid-configuration", "/tokenx/authorization", "/tokenx/x/y"):
        assert (await tokenx.caller.request("GET", path)).status == 404
    answer = await tokenx.caller.request("GET", "/tokenx/token")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    for path in ("/tokenx/jwks", "/tokenx/.well-known/oauth-authorization-server"):
        answer = await tokenx.caller.request("PUT", path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


async def test_the_key_set_has_the_current_and_the_previous_key(tokenx: TokenXCaller) -> None:
    """Without `alg` and `x5c`; the next key is not announced."""
    keys = (await tokenx.caller.request("GET", "/tokenx/jwks")).json["keys"]
    assert [set(key) for key in keys] == [{"kty", "e", "use", "kid", "n"}] * 2
    before = [key["kid"] for key in keys]
    answer = await tokenx.caller.request("POST", "/admin/api/providers/tokenx/keys/rotate")
    after = [key["kid"] for key in (await tokenx.caller.request("GET", "/tokenx/jwks")).json["keys"]]
    assert answer.json == {"kid": after[0]}
    assert after[0] not in before
    assert after[1] == before[0]


async def test_the_key_changes_every_day(tokenx: TokenXCaller, clock: Clock) -> None:
    """Without notice, after 24 hours of the provider's clock."""
    first = tokenx.local.providers.tokenx.keys.active.kid
    clock.now += 24 * 3600 - 1
    assert tokenx.local.providers.tokenx.keys.active.kid == first
    clock.now += 1
    assert tokenx.local.providers.tokenx.keys.active.kid != first
    assert first in tokenx.local.providers.tokenx.keys.key_set.kids


# Tokens


async def test_a_token_has_the_claims_of_the_subject_token(tokenx: TokenXCaller, clock: Clock) -> None:
    """All of them; those that TokenX writes are replaced, and `idp` names the issuer of the login."""
    subject = tokenx.login(custom={"a": [1, "æ"]}, amr=["TestID"])
    answer = await tokenx.exchange("web", "api", subject)
    now = int(clock.now)
    assert answer.status == 200, answer.text
    assert answer.json == {
        "access_token": answer.json["access_token"],
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 899,
    }
    claims = answer.claims
    assert claims.pop("jti") not in ("", "the-login")
    assert claims == {
        "sub": "a-person",
        "pid": "17858549949",
        "acr": "idporten-loa-high",
        "amr": ["TestID"],
        "custom": {"a": [1, "æ"]},
        "idp": f"{tokenx.caller.base_url}/idporten",
        "client_id": full("web"),
        "aud": full("api"),
        "iss": tokenx.issuer,
        "nbf": now,
        "iat": now,
        "exp": now + 900,
    }
    assert set(unverified_header(answer.json["access_token"])) == {"kid", "typ", "alg"}


async def test_tokens_verify_with_the_published_keys(tokenx: TokenXCaller, clock: Clock) -> None:
    """By the library itself, over HTTP."""
    answer = await tokenx.exchange("web", "api", tokenx.login())
    jwks = (await tokenx.caller.request("GET", "/tokenx/jwks")).text
    validator = Validator(issuer=tokenx.issuer, audience=full("api"), jwks=jwks, clock=clock)
    assert validator.validate(answer.json["access_token"])["pid"] == "17858549949"


async def test_a_chain_of_exchanges_keeps_the_first_issuer(tokenx: TokenXCaller) -> None:
    """web -> api -> api2: `idp` survives, `client_id` is the last consumer, and the lifetime begins again."""
    first = await tokenx.exchange("web", "api", tokenx.login())
    second = await tokenx.exchange("api", "api2", first.json["access_token"])
    assert second.claims["idp"] == f"{tokenx.caller.base_url}/idporten"
    assert (second.claims["client_id"], second.claims["aud"]) == (full("api"), full("api2"))
    third = await tokenx.exchange("api2", "api2", second.json["access_token"])
    assert third.claims["client_id"] == full("api2"), "its own rules name it"


async def test_a_token_lives_longer_than_its_subject_token(tokenx: TokenXCaller, clock: Clock) -> None:
    """900 s, whatever that has left; also within the leeway after its end."""
    subject = tokenx.login(exp=int(clock.now) - 59)
    answer = await tokenx.exchange("web", "api", subject)
    assert answer.claims["exp"] == int(clock.now) + 900


async def test_the_scope_is_returned_as_it_was_sent(tokenx: TokenXCaller) -> None:
    """TokenX does not look at it."""
    answer = await tokenx.exchange("web", "api", tokenx.login(), scope="a b")
    assert answer.json["scope"] == "a b"


async def test_idp_is_written_only_where_it_is_missing(tokenx: TokenXCaller) -> None:
    """The subject token's own counts."""
    answer = await tokenx.exchange("web", "api", tokenx.login(idp="https://first.example"))
    assert answer.claims["idp"] == "https://first.example"


async def test_an_assertion_can_be_used_again(tokenx: TokenXCaller) -> None:
    """TokenX does not remember `jti`."""
    form = tokenx.form("web", "api", tokenx.login())
    assert [(await tokenx.post(form)).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("audience", ["", "/token"])
async def test_both_audiences_of_an_assertion(tokenx: TokenXCaller, audience: str) -> None:
    """The issuer, and the token endpoint; also as a list of one."""
    for sent in (tokenx.issuer + audience, [tokenx.issuer + audience]):
        assertion = tokenx.assertion("web", aud=sent)
        answer = await tokenx.exchange("web", "api", tokenx.login(), client_assertion=assertion)
        assert answer.status == 200, answer.text


@pytest.mark.parametrize("typ", [None, "JWT", "jwt"])
async def test_types_of_tokens(tokenx: TokenXCaller, typ: str | None) -> None:
    """`typ` is absent or JWT, in any case, in assertions and in subject tokens."""
    assertion = tokenx.assertion("web", header={"typ": typ})
    subject = tokenx.login(header={"typ": typ})
    assert (await tokenx.exchange("web", "api", subject, client_assertion=assertion)).status == 200


@pytest.mark.parametrize("times", [{"exp": 120}, {"exp": -59}, {"nbf": 59}, {"iat": 59}])
async def test_the_limits_of_times(tokenx: TokenXCaller, clock: Clock, times: dict[str, Any]) -> None:
    """120 s for an assertion, and a leeway of 60 s for all times of both tokens."""
    changes: dict[str, Any] = {name: int(clock.now) + seconds for name, seconds in times.items()}
    assertion = tokenx.assertion("web", **changes)
    answer = await tokenx.exchange("web", "api", tokenx.login(**changes), client_assertion=assertion)
    assert answer.status == 200, answer.text


async def test_an_assertion_need_not_name_its_key(tokenx: TokenXCaller) -> None:
    """A client has one key: without `kid`, that is meant."""
    assertion = tokenx.assertion("web", header={"kid": None})
    answer = await tokenx.exchange("web", "api", tokenx.login(), client_assertion=assertion)
    assert answer.status == 200, answer.text


async def test_the_journal_keeps_a_part_of_long_texts(tokenx: TokenXCaller) -> None:
    """The response has all of it, as that of tokendings."""
    audience = "x" * 50_000
    answer = await tokenx.exchange("web", "api", tokenx.login(), audience=audience)
    assert answer.json["error_description"] == f"token exchange audience {audience} is invalid"
    entry = tokenx.local.journal.entries()[0]
    assert (len(entry.message), len(entry.reasons[-1].text), len(entry.target)) == (1000, 1000, 200)


async def test_an_error_of_its_own(
    tokenx: TokenXCaller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with a sentence as text, and the cause in the log."""
    monkeypatch.setattr(TokenXService, "answer", lambda *_: 1 / 0)
    answer = await tokenx.exchange("web", "api", tokenx.login())
    assert (answer.status, answer.text) == (500, "unknown internal server error")
    assert "ZeroDivisionError" in caplog.text


async def test_a_rule_for_a_late_application_works_once_it_is_there(tokenx: TokenXCaller) -> None:
    """Rules name applications, whether they exist or not."""
    assert full("late") not in tokenx.local.registry.workloads.by_name
    local = local_providers([*MANIFESTS, workload("late")], clock=tokenx.local.clock)
    async with served(local) as caller:
        other = TokenXCaller(caller)
        assert (await other.exchange("late", "api", other.login())).status == 200


@pytest.mark.parametrize(
    ("acr", "expected"),
    [("idporten-loa-substantial", "Level3"), ("idporten-loa-high", "Level4"), ("Level4", "Level4"), (7, 7)],
)
async def test_levels_of_assurance_can_have_their_older_names(clock: Clock, acr: Any, expected: Any) -> None:
    """For tokens straight from ID-porten, if the operator says so."""
    async with served(local_providers(MANIFESTS, clock=clock, level_names=True)) as caller:
        tokenx = TokenXCaller(caller)
        first = await tokenx.exchange("web", "api", tokenx.login(acr=acr))
        assert first.claims["acr"] == expected


# Refusals

Change = Callable[[TokenXCaller, Clock], Mapping[str, Any]]
STRANGER = Key.generate()
IR, IC, DENIED = (400, "invalid_request"), (401, "invalid_client"), (403, "access_denied")
FAILED = "token verification failed: "
NO_KEY = "Signed+JWT+rejected%3A+Another+algorithm+expected%2C+or+no+matching+key%28s%29+found"
BAD_SIGNATURE = "Signed+JWT+rejected%3A+Invalid+signature"
NOT_REGISTERED = "invalid client authentication for client_id={}, client not registered."
TOO_LONG = (
    f"invalid client authentication for client_id={full('web')}, "
    "client assertion exceeded max lifetime (120s)."
)


def _asserted(**changes: Any) -> Change:
    return lambda tokenx, clock: {
        "client_assertion": tokenx.assertion(
            "web", **{name: value(clock) if callable(value) else value for name, value in changes.items()}
        )
    }


def _subject(prefix: str = "", **changes: Any) -> Change:
    return lambda tokenx, clock: {
        "subject_token": tokenx.login(
            **{name: value(clock) if callable(value) else value for name, value in changes.items()}
        )
    }


def _in(seconds: float) -> Callable[[Clock], int]:
    return lambda clock: int(clock.now + seconds)


REFUSALS: dict[str, tuple[Change, tuple[int, str], str]] = {
    "no assertion type": (
        lambda *_: {"client_assertion_type": None},
        IR,
        "Parameter client_assertion_type missing",
    ),
    "no assertion": (lambda *_: {"client_assertion": None}, IR, "Parameter client_assertion missing"),
    "assertion is no JWT": (lambda *_: {"client_assertion": "x"}, IR, "invalid request, cannot parse token"),
    "assertion is empty": (lambda *_: {"client_assertion": ""}, IR, "invalid request, cannot parse token"),
    "assertion's times are no numbers": (_asserted(exp="soon"), IR, "invalid request, cannot parse token"),
    "assertion never ends": (_asserted(exp=math.inf), IR, "invalid request, cannot parse token"),
    "assertion type": (
        lambda *_: {"client_assertion_type": "x"},
        IC,
        "Client authentication failed: invalid client_assertion_type",
    ),
    "no sub": (_asserted(sub=None), IC, "Client authentication failed: sub must be present in assertion"),
    "client unknown": (_asserted(sub="dev-gcp:team:nobody"), IC, NOT_REGISTERED.format(full("nobody"))),
    "client not enabled": (_asserted(sub=full("off")), IC, NOT_REGISTERED.format(full("off"))),
    "client without the section": (
        _asserted(sub=full("without")),
        IC,
        NOT_REGISTERED.format(full("without")),
    ),
    "client of Entra ID": (_asserted(sub=full("entra-only")), IC, NOT_REGISTERED.format(full("entra-only"))),
    "unknown kid": (_asserted(header={"kid": "x"}), IR, FAILED + NO_KEY),
    "a client whose key was never used": (_asserted(sub=full("closed")), IR, FAILED + NO_KEY),
    "another key": (_asserted(key=STRANGER), IR, FAILED + BAD_SIGNATURE),
    "type of the assertion": (
        _asserted(header={"typ": "at+jwt"}),
        IR,
        FAILED + "JOSE+header+typ+%28type%29+at%2Bjwt+not+allowed",
    ),
    "iss": (
        _asserted(iss="x"),
        IR,
        FAILED + "JWT+iss+claim+has+value+x%2C+must+be+dev-gcp%3Ateam%3Aweb",
    ),
    **{
        f"no {name}": (_asserted(**{name: None}), IR, f"{FAILED}JWT+missing+required+claims%3A+%5B{name}%5D")
        for name in ("aud", "exp", "iat", "iss", "jti", "nbf")
    },
    "no jti and nbf": (
        _asserted(jti=None, nbf=None),
        IR,
        FAILED + "JWT+missing+required+claims%3A+%5Bjti%2C+nbf%5D",
    ),
    "expired": (_asserted(exp=_in(-60)), IR, FAILED + "Expired+JWT"),
    "not yet": (_asserted(nbf=_in(60)), IR, FAILED + "JWT+before+use+time"),
    "issued later": (_asserted(iat=_in(60)), IR, FAILED + "JWT+issue+time+ahead+of+current+time"),
    "lifetime": (_asserted(exp=_in(121)), IC, TOO_LONG),
    "no grant type": (
        lambda *_: {"grant_type": None},
        DENIED,
        "could not find authorizer for grant_type=null",
    ),
    "grant type": (
        lambda *_: {"grant_type": "password"},
        DENIED,
        "could not find authorizer for grant_type=password",
    ),
    "no subject token type": (
        lambda *_: {"subject_token_type": None},
        IR,
        f"Parameter subject_token_type must be {JWT_TYPE}",
    ),
    "no subject token": (lambda *_: {"subject_token": None}, IR, "Parameter subject_token missing"),
    "no audience": (lambda *_: {"audience": None}, IR, "Parameter audience missing"),
    "target unknown": (
        lambda *_: {"audience": "dev-gcp:team:x"},
        IR,
        "token exchange audience dev-gcp:team:x is invalid",
    ),
    "target not enabled": (
        lambda *_: {"audience": full("off")},
        IR,
        f"token exchange audience {full('off')} is invalid",
    ),
    "target with characters that no description has": (
        lambda *_: {"audience": 'a"\\\n\u00e6b'},
        IR,
        "token exchange audience ab is invalid",
    ),
    "not admitted": (
        lambda *_: {"audience": full("closed")},
        IR,
        f"client '{full('web')}' is not authorized to get token with aud={full('closed')}",
    ),
    "itself": (
        lambda *_: {"audience": full("web")},
        IR,
        f"client '{full('web')}' is not authorized to get token with aud={full('web')}",
    ),
    "subject is no JWT": (
        lambda *_: {"subject_token": "x.y.z"},
        IR,
        "invalid subject_token: invalid request, cannot parse token",
    ),
    "issuer of the subject": (
        _subject(iss="https://issuer.example"),
        IR,
        "invalid subject_token: invalid request, cannot validate token from issuer=https://issuer.example",
    ),
    "subject without issuer": (
        _subject(iss=None),
        IR,
        "invalid subject_token: invalid request, cannot validate token from issuer=null",
    ),
    "subject of Entra ID": (
        lambda tokenx, _: {
            "subject_token": tokenx.login(iss=f"{tokenx.caller.base_url}/x/v2.0"),
        },
        IR,
        "invalid subject_token: invalid request, cannot validate token from issuer={base_url}/x/v2.0",
    ),
    "expired subject": (_subject(exp=_in(-60)), IR, f"invalid subject_token: {FAILED}Expired+JWT"),
    "subject not yet": (_subject(nbf=_in(60)), IR, f"invalid subject_token: {FAILED}JWT+before+use+time"),
    "subject without exp": (
        _subject(exp=None),
        IR,
        f"invalid subject_token: {FAILED}JWT+missing+required+claims%3A+%5Bexp%5D",
    ),
    "kid of the subject": (_subject(header={"kid": "x"}), IR, f"invalid subject_token: {FAILED}{NO_KEY}"),
    "type of the subject": (
        _subject(header={"typ": "at+jwt"}),
        IR,
        f"invalid subject_token: {FAILED}JOSE+header+typ+%28type%29+at%2Bjwt+not+allowed",
    ),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", REFUSALS)
async def test_refusals(shared: TokenXCaller, clock: Clock, case: str) -> None:
    """Each check has its status, its error and its sentence; the journal says the same."""
    change, (status, error), description = REFUSALS[case]
    description = (
        description.format(base_url=shared.caller.base_url) if "{base" in description else description
    )
    answer = await shared.exchange("web", "api", **{"subject_token": shared.login(), **change(shared, clock)})
    assert (answer.status, answer.json) == (status, {"error": error, "error_description": description})
    entry = shared.local.journal.entries()[0]
    assert (entry.provider, entry.granted, entry.message) == ("tokenx", False, f"{error}: {description}")
    assert not entry.reasons[-1].passed


async def test_the_order_of_the_checks(tokenx: TokenXCaller, clock: Clock) -> None:
    """A request with every mistake is refused for the first; repairing one after the other meets them all."""
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"client_assertion": "x"}, "cannot parse"),
        (
            {"client_assertion": tokenx.assertion("web"), "client_assertion_type": "x"},
            "client_assertion_type",
        ),
        (
            {"client_assertion_type": ASSERTION_TYPE, "client_assertion": tokenx.assertion("web", sub=None)},
            "sub",
        ),
        ({"client_assertion": tokenx.assertion("web", sub="x")}, "not registered"),
        (
            {"client_assertion": tokenx.assertion("web", header={"typ": "x", "kid": "x"}, key=STRANGER)},
            "JOSE",
        ),
        ({"client_assertion": tokenx.assertion("web", key=STRANGER, header={"kid": "x"})}, "matching"),
        ({"client_assertion": tokenx.assertion("web", key=STRANGER, jti=None)}, "Invalid+signature"),
        ({"client_assertion": tokenx.assertion("web", jti=None, iss="x", exp=1)}, "required"),
        ({"client_assertion": tokenx.assertion("web", iss="x", exp=1)}, "iss"),
        ({"client_assertion": tokenx.assertion("web", exp=1, nbf=clock.now + 99)}, "Expired"),
        (
            {"client_assertion": tokenx.assertion("web", nbf=clock.now + 99, iat=clock.now + 99, aud="x")},
            "before",
        ),
        ({"client_assertion": tokenx.assertion("web", iat=clock.now + 99, aud="x")}, "ahead"),
        ({"client_assertion": tokenx.assertion("web", aud="x", exp=clock.now + 999)}, "aud+claim"),
        ({"client_assertion": tokenx.assertion("web", exp=clock.now + 999)}, "lifetime"),
        ({"client_assertion": tokenx.assertion("web")}, "grant_type=x"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token_type"),
        ({"subject_token_type": JWT_TYPE}, "subject_token missing"),
        ({"subject_token": "x"}, "audience missing"),
        ({"audience": "x"}, "audience x is invalid"),
        ({"audience": full("closed")}, "not authorized"),
        ({"audience": full("api")}, "invalid subject_token"),
    ]
    form: dict[str, Any] = {
        "client_assertion_type": "x",
        "grant_type": "x",
        "subject_token_type": "x",
    }
    for change, sentence in mistakes:
        form |= change
        answer = await tokenx.post(form)
        assert sentence in answer.json["error_description"], (sentence, answer.text)
    assert (await tokenx.post(form | {"subject_token": tokenx.login()})).status == 200


async def test_the_audience_of_an_assertion(tokenx: TokenXCaller) -> None:
    """Exactly one, and the sentence names both that are possible."""
    for sent, shown in (("x", "x"), (["x", tokenx.issuer], f"x, {tokenx.issuer}"), ([], "")):
        assertion = tokenx.assertion("web", aud=sent)
        answer = await tokenx.exchange("web", "api", tokenx.login(), client_assertion=assertion)
        expected = f"{tokenx.issuer}/token, {tokenx.issuer}"
        reason = f"JWT aud claim has value [{shown}], must be exactly one of [{expected}]"
        for character, written in ((":", "%3A"), ("/", "%2F"), (",", "%2C"), ("[", "%5B"), ("]", "%5D")):
            reason = reason.replace(character, written)
        assert answer.json["error_description"] == FAILED + reason.replace(" ", "+")


async def test_only_the_audience_of_an_own_token_may_exchange_it(tokenx: TokenXCaller) -> None:
    """The `aud` of a subject token counts if TokenX has issued it."""
    first = await tokenx.exchange("web", "api", tokenx.login())
    local = tokenx.local
    assert local.registry.workloads.by_name[full("api")].admitted[full("web")]
    answer = await tokenx.exchange("web", "api", first.json["access_token"])
    assert answer.status == 400
    assert answer.json["error_description"] == (
        f"invalid subject_token: audience does not match client_id={full('web')}"
    )


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"{}", "application/json", "the body must be application/x-www-form-urlencoded"),
        (b"audience=a&audience=b", "application/x-www-form-urlencoded", "has a field twice"),
    ],
)
async def test_bodies_that_are_no_form(
    tokenx: TokenXCaller, body: bytes, content_type: str, sentence: str
) -> None:
    """A clear error, and an entry of the journal."""
    answer = await tokenx.caller.request(
        "POST", "/tokenx/token", data=body, headers={"Content-Type": content_type}
    )
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert sentence in answer.json["error_description"]
    assert tokenx.local.journal.entries()[0].grant == "unreadable request"


# Issuers that the operator names


async def test_subject_tokens_of_an_issuer_that_is_configured(clock: Clock) -> None:
    """Here of another local Entra ID: its keys are fetched, and again for an unknown kid."""
    async with served(local_entra([manifest("api", all_users=True)], clock=clock)) as entra:
        tenant = entra.local.registry.default_tenant.id
        issuer = f"{entra.base_url}/{tenant}/v2.0"
        local = local_providers(
            MANIFESTS, clock=clock, subject_issuers=[f"{issuer}/.well-known/openid-configuration"]
        )
        async with served(local) as caller:
            tokenx = TokenXCaller(caller)

            def token() -> str:
                return entra.local.forge("dev-gcp:team:api", issuer=issuer, lifetime=600).token

            answer = await tokenx.exchange("web", "api", token())
            assert answer.claims["idp"] == issuer
            entra.local.rotate_keys(announced=False)
            refused = await tokenx.exchange("web", "api", token())
            assert "matching+key" in refused.json["error_description"], "keys were fetched a moment ago"
            for remote in local.providers.tokenx._remote:
                remote._fetched_at = -1000.0
            assert (await tokenx.exchange("web", "api", token())).status == 200


async def test_an_issuer_that_cannot_be_reached(clock: Clock) -> None:
    """The exchange fails with the sentence of tokendings, and works once the issuer is there."""
    local = local_providers(
        MANIFESTS,
        clock=clock,
        subject_issuers=["http://127.0.0.1:9/.well-known/oauth-authorization-server/x"],
    )
    async with served(local) as caller:
        tokenx = TokenXCaller(caller)
        answer = await tokenx.exchange("web", "api", tokenx.login(iss="http://127.0.0.1:9/x"))
        prefix = f"invalid subject_token: {FAILED}Couldn%27t+retrieve+remote+JWK+set%3A+"
        assert answer.json["error_description"].startswith(prefix)


@pytest.mark.parametrize(
    "url", ["", "https://issuer.example/keys", "file:///.well-known/x", "/.well-known/x"]
)
def test_what_is_no_discovery_document(url: str) -> None:
    """The URL is checked at the start."""
    with pytest.raises(Exception, match="not the URL of a discovery document") as caught:
        LocalEntraId(subject_issuers=[url]).providers  # noqa: B018
    assert getattr(caught.value, "code", "") == "subject_issuer_invalid"


# Journal and faults


async def test_the_journal_has_one_entry_per_request(tokenx: TokenXCaller) -> None:
    """With the checks that it went through, their lines, and the claims of the token."""
    await tokenx.exchange("web", "api", tokenx.login())
    (entry,) = (await tokenx.caller.request("GET", "/admin/api/journal?provider=tokenx")).json
    assert (entry["provider"], entry["client"], entry["target"]) == ("tokenx", full("web"), full("api"))
    assert (entry["granted"], entry["user"], entry["grant"]) == (True, "17858549949", "token exchange")
    assert [check["check"] for check in entry["checks"]] == ["client", "credential", "target", "rule", "user"]
    assert entry["checks"][3]["location"].startswith("1.yaml:")
    assert entry["claims"]["aud"] == full("api")
    assert (await tokenx.caller.request("GET", "/admin/api/journal?provider=entra_id")).json == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "throttle", "value": 7}, 429),
        ({"kind": "status", "value": 502}, 502),
        ({"kind": "status", "value": 502, "application": full("api")}, 200),
        ({"kind": "garbage"}, 200),
        ({"kind": "delay", "value": 0}, 200),
    ],
)
async def test_faults_of_the_transport(tokenx: TokenXCaller, fault: dict[str, Any], expected: int) -> None:
    """Planned for one provider, they leave the others alone."""
    planned = await tokenx.caller.request(
        "POST", "/admin/api/faults", json={"endpoint": "tokenx", "count": 1, **fault}
    )
    assert planned.status == 201, planned.text
    answer = await tokenx.exchange("web", "api", tokenx.login())
    assert answer.status == expected
    if expected == 429:
        assert answer.headers["Retry-After"] == "7"
    if fault["kind"] == "garbage":
        with pytest.raises(json.JSONDecodeError):
            answer.json  # noqa: B018
    assert len(tokenx.local.journal.entries()) == 1


@pytest.mark.parametrize(
    "kind", ["expired_token", "wrong_audience", "wrong_issuer", "wrong_signature", "unknown_key"]
)
async def test_faults_of_the_token(tokenx: TokenXCaller, clock: Clock, kind: str) -> None:
    """A token that no verifier accepts."""
    tokenx.local.faults.add(kind, endpoint="tokenx", application=full("web"), count=1)
    token = (await tokenx.exchange("web", "api", tokenx.login())).json["access_token"]
    jwks = (await tokenx.caller.request("GET", "/tokenx/jwks")).text
    validator = Validator(issuer=tokenx.issuer, audience=full("api"), jwks=jwks, clock=clock)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        validator.validate(token)
    expected = {
        "expired_token": "token_expired",
        "wrong_audience": "wrong_audience",
        "wrong_issuer": "wrong_issuer",
        "wrong_signature": "signature_invalid",
        "unknown_key": "unknown_key",
    }
    assert getattr(caught.value, "code", "") == expected[kind]


async def test_faults_of_documents(tokenx: TokenXCaller) -> None:
    """Keys and discovery have endpoints of their own."""
    tokenx.local.faults.add("status", endpoint="tokenx/keys", value=503, count=1)
    tokenx.local.faults.add("status", endpoint="tokenx/discovery", value=500, count=1)
    paths = ("/tokenx/jwks", "/tokenx/.well-known/oauth-authorization-server")
    for expected in ([503, 500], [200, 200]):
        assert [(await tokenx.caller.request("GET", path)).status for path in paths] == expected


# What applications and developers see


async def test_the_environment_of_an_application(tokenx: TokenXCaller) -> None:
    """The variables that NAIS sets, and which providers are enabled."""
    environment = tokenx.local.environment(full("web"))
    key = json.loads(environment.pop("TOKEN_X_PRIVATE_JWK"))
    assert environment == {
        "AZURE_ENABLED": "false",
        "IDPORTEN_ENABLED": "false",
        "MASKINPORTEN_ENABLED": "false",
        "TOKEN_X_ENABLED": "true",
        "TOKEN_X_CLIENT_ID": full("web"),
        "TOKEN_X_WELL_KNOWN_URL": f"{tokenx.issuer}/.well-known/oauth-authorization-server",
        "TOKEN_X_ISSUER": tokenx.issuer,
        "TOKEN_X_JWKS_URI": f"{tokenx.issuer}/jwks",
        "TOKEN_X_TOKEN_ENDPOINT": f"{tokenx.issuer}/token",
    }
    assert (key["kty"], key["alg"], key["use"], len(key["kid"])) == ("RSA", "RS256", "sig", 36)
    assert len(key["n"]) == 342  # 2048 bits
    assert tokenx.local.environment(full("entra-only"))["TOKEN_X_ENABLED"] == "false"
    with pytest.raises(Exception, match="no identity in Entra ID"):
        tokenx.local.environment(full("without"))


@pytest.mark.parametrize(
    ("consumer", "target", "granted", "text"),
    [
        ("web", "api", True, "admits"),
        (
            "web",
            "closed",
            False,
            "add to spec.accessPolicy.inbound.rules of dev-gcp:team:closed: - {application: web}",
        ),
        ("web", "web", False, "does not admit the API itself"),
        ("off", "api", False, "set spec.tokenx.enabled to true"),
        ("web", "off", False, "set spec.tokenx.enabled to true"),
        ("web", "nobody", False, "dev-gcp:team:nobody is invalid"),
        ("web", "dev-gcp:other:elsewhere", True, "admits"),
    ],
)
async def test_explanations(
    tokenx: TokenXCaller, consumer: str, target: str, granted: bool, text: str
) -> None:
    """What the token endpoint would decide, which line it depends on, and what to change."""
    path = f"/admin/api/explain?provider=tokenx&consumer={full(consumer)}&target={full(target)}"
    answer = await tokenx.caller.request("GET", path)
    assert (answer.json["granted"], answer.json["provider"]) == (granted, "tokenx")
    assert text in "\n".join(tokenx.local.providers.explain("tokenx", full(consumer), full(target)).lines())
    if granted:
        assert (await tokenx.exchange(consumer, target, tokenx.login())).status == 200
