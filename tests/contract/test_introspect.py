"""POST /api/v1/introspect: always 200, with all claims verbatim or one sentence."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from support.keys import Key
from support.provider import CLIENT_ID, TENANT, Provider
from support.sidecars import Started, StartSidecar
from support.tokens import jwks, signer

PATH = "/api/v1/introspect"


async def test_a_valid_token_is_active_with_its_claims_verbatim(sidecar: Started, provider: Provider) -> None:
    """Numbers, order and nesting are the token's own text."""
    now = int(time.time())
    claims = (
        f'{{"iss":"{provider.issuer}","aud":["x","{CLIENT_ID}"],"iat":{now},"exp":{now + 600}.50,'
        '"nested":{"b":1.0,"a":[1e2,0.10,"æ\\u00f8"]},"big":123456789012345678901234567890}'
    )
    header = json.dumps({"alg": "RS256", "kid": provider.key.kid}).encode()
    token = provider.key.sign(header, claims.encode())
    for _ in range(2):  # verified, then remembered
        answer = await sidecar.call.introspect(token)
        assert answer.status == 200
        assert answer.body.decode() == '{"active":true,' + claims[1:]
        assert answer.header("Content-Type") == "application/json"
        assert answer.header("Cache-Control") == "no-store"


async def test_json_and_form_and_both_provider_names(sidecar: Started, provider: Provider) -> None:
    """All forms of the request give the same response."""
    token = provider.mint()
    bodies = set()
    for name in ("entra_id", "azuread"):
        fields = {"identity_provider": name, "token": token}
        bodies.add((await sidecar.call.json(PATH, fields)).body)
        bodies.add((await sidecar.call.form(PATH, fields)).body)
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["active"] is True


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200, "nbf": None}, "token is expired"),
        ({"nbf": int(time.time()) + 3600}, "token is not yet valid"),
        ({"iat": int(time.time()) + 3600, "nbf": None}, "token was issued in the future"),
        ({"iss": "https://login.microsoftonline.com/other/v2.0"}, "token has the wrong issuer"),
        ({"aud": "someone-else"}, "token has the wrong audience"),
        ({"iat": None}, "token is missing the required claim 'iat'"),
        ({"exp": None}, "token is missing the required claim 'exp'"),
        ({"iss": None}, "token is missing the required claim 'iss'"),
        ({"aud": None}, "token is missing the required claim 'aud'"),
    ],
)
async def test_a_token_with_wrong_claims_is_not_active(
    sidecar: Started, provider: Provider, claims: dict[str, Any], sentence: str
) -> None:
    """`error` is the only other member, and is the documented sentence."""
    answer = await sidecar.call.introspect(provider.mint(**claims))
    assert answer.status == 200
    assert answer.json == {"active": False, "error": sentence}


async def test_a_minute_of_leeway(sidecar: Started, provider: Provider) -> None:
    """Time claims may be off by 60 s."""
    now = int(time.time())
    assert (await sidecar.call.introspect(provider.mint(exp=now - 50))).json["active"] is True
    assert (await sidecar.call.introspect(provider.mint(nbf=now + 50, iat=now + 50))).json["active"] is True
    assert (await sidecar.call.introspect(provider.mint(exp=now - 61))).json["active"] is False


async def test_a_tampered_token(sidecar: Started, provider: Provider) -> None:
    """A changed signature or payload is detected."""
    header, payload, signature = provider.mint().split(".")
    _, other, _ = provider.mint(roles=["admin"]).split(".")
    for token in (f"{header}.{other}.{signature}", f"{header}.{payload}.{signature[:-8]}AAAAAAAA"):
        answer = await sidecar.call.introspect(token)
        assert answer.json == {"active": False, "error": "token signature is invalid"}


async def test_a_foreign_key(sidecar: Started, provider: Provider) -> None:
    """A token whose key the provider does not publish."""
    answer = await sidecar.call.introspect(provider.mint(key=Key.generate()))
    assert answer.json == {"active": False, "error": "token was signed with an unknown key"}


async def test_foreign_keys_while_asking_for_keys_is_pointless(sidecar: Started, provider: Provider) -> None:
    """After one fetch that did not bring such a key: the same response, and no further fetch."""
    answers = [await sidecar.call.introspect(provider.mint(key=Key.generate())) for _ in range(4)]
    assert {answer.body for answer in answers} == {
        b'{"active":false,"error":"token was signed with an unknown key"}'
    }
    assert provider.jwks_requests == 2, "at the start, and for the first of them"


async def test_alg_none_in_any_letter_case(sidecar: Started, provider: Provider) -> None:
    """RFC 8725: an unsigned token is never accepted."""
    import base64

    _, payload, _ = provider.mint().split(".")
    for name in ("none", "None", "NONE"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": name}).encode()).decode().rstrip("=")
        answer = await sidecar.call.introspect(f"{header}.{payload}.")
        assert answer.json["active"] is False
        assert answer.status == 200


@pytest.mark.parametrize("token", ["x", "a.b", "a.b.c", "....", "\u00e6.b.c", " ", "a.b.c.d.e"])
async def test_what_is_no_token_is_not_active(sidecar: Started, token: str) -> None:
    """Junk gets 200 and a sentence that repeats none of it."""
    answer = await sidecar.call.introspect(token)
    assert answer.status == 200
    assert answer.json["active"] is False
    assert set(answer.json) == {"active", "error"}
    assert answer.json["error"] == answer.json["error"].lower().replace("jwt", "JWT")


async def test_a_token_that_is_too_large(sidecar: Started) -> None:
    """Over 64 KiB a token is not even parsed."""
    answer = await sidecar.call.introspect("a" * 65_537)
    assert answer.json == {"active": False, "error": "token is too large"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"token":"x"}',
        b'{"identity_provider":"entra_id"}',
        b'{"identity_provider":"entra_id","token":5}',
        b'{"identity_provider":"entra_id","token":null}',
        b'{"identity_provider":"maskinporten","token":"x"}',
        b'{"identity_provider":"entra_id","token":"a","token":"b"}',
        b'{"identity_provider":"entra_id","token":"\xff"}',
        b"[" * 50_000,
    ],
)
async def test_whatever_is_sent_the_status_is_200(sidecar: Started, body: bytes) -> None:
    """A body that cannot be parsed, a missing field, an unknown provider: 200, not active, one sentence."""
    for content_type in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        answer = await sidecar.call.request("POST", PATH, body, {"Content-Type": content_type})
        assert answer.status == 200
        assert set(answer.json) == {"active", "error"}
        assert answer.json["active"] is False


async def test_a_body_that_is_too_large_is_200_as_well(sidecar: Started) -> None:
    """Callers need only one way to learn that a token is not valid."""
    answer = await sidecar.call.json(PATH, {"identity_provider": "entra_id", "token": "a" * 140_000})
    assert answer.status == 200
    assert answer.json == {"active": False, "error": "request body is larger than 131072 bytes"}


async def test_keys_that_cannot_be_fetched(start: StartSidecar, provider: Provider) -> None:
    """Without keys no token is active, and the response names missing keys as the reason."""
    provider.failing = True
    sidecar = await start(ready=False)
    answer = await sidecar.call.introspect(provider.mint())
    assert answer.status == 200
    assert answer.json["active"] is False
    assert answer.json["error"].startswith("keys of the token issuer are not available: ")


async def test_a_new_key_is_accepted_at_once(sidecar: Started, provider: Provider) -> None:
    """The provider rotates: the first token of the new key makes the sidecar fetch the key set."""
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    new = Key.generate()
    provider.published = [provider.key, new]
    assert (await sidecar.call.introspect(provider.mint(key=new))).json["active"] is True


OTHER_TENANT = "99999999-8888-7777-6666-555555555555"


@pytest.mark.parametrize("allowed", [TENANT.upper(), f"{OTHER_TENANT}, {TENANT}", "*"])
async def test_an_application_for_several_tenants(
    start: StartSidecar, provider: Provider, allowed: str
) -> None:
    """The discovery document of `common` names no tenant; the setting says which are accepted."""
    common = f"{provider.base_url}/common/v2.0/.well-known/openid-configuration"
    sidecar = await start(AZURE_APP_WELL_KNOWN_URL=common, ENTRA_FAST_ALLOWED_TENANTS=allowed)
    answer = await sidecar.call.introspect(provider.mint(tid=TENANT))
    assert answer.json["active"] is True, answer.json
    other = f"{provider.base_url}/{OTHER_TENANT}/v2.0"
    foreign = (await sidecar.call.introspect(provider.mint(iss=other, tid=OTHER_TENANT))).json
    expected = {"active": False, "error": "token is from a tenant that is not allowed"}
    assert foreign["active"] is True if allowed != TENANT.upper() else foreign == expected
    mixed = (await sidecar.call.introspect(provider.mint(iss=other, tid=TENANT))).json
    assert mixed == {"active": False, "error": "token has the wrong issuer"}
    assert (await sidecar.call.introspect(provider.mint())).json["error"] == (
        "token is missing the required claim 'tid'"
    )


async def test_an_application_for_several_tenants_without_tenants(
    start: StartSidecar, provider: Provider
) -> None:
    """Readiness and introspection name the setting that is missing. Tokens can still be acquired."""
    common = f"{provider.base_url}/common/v2.0/.well-known/openid-configuration"
    sidecar = await start(ready=False, AZURE_APP_WELL_KNOWN_URL=common)
    assert (await sidecar.call.token()).status == 200  # so the document has been read
    ready = await sidecar.call.get("/readyz")
    assert ready.status == 503
    assert b"set ENTRA_FAST_ALLOWED_TENANTS to the ids of the tenants" in ready.body
    answer = (await sidecar.call.introspect(provider.mint(tid=TENANT))).json
    assert answer["active"] is False
    assert "ENTRA_FAST_ALLOWED_TENANTS" in answer["error"]


async def test_a_token_must_name_its_key(sidecar: Started, provider: Provider) -> None:
    """Even where the provider publishes one key only."""
    assert len(provider.published) == 1
    answer = await sidecar.call.introspect(provider.mint(header={"kid": None}))
    assert answer.json["active"] is False
    head = {"typ": "JWT", "alg": "RS256"}
    claims = {"iss": provider.issuer, "aud": CLIENT_ID, "iat": int(time.time()), "exp": int(time.time()) + 60}
    nameless = provider.key.sign(json.dumps(head).encode(), json.dumps(claims).encode())
    for _ in range(2):
        assert (await sidecar.call.introspect(nameless)).json == {
            "active": False,
            "error": "token was signed with an unknown key",
        }


async def test_rejected_tokens_are_counted_by_error_code(sidecar: Started, provider: Provider) -> None:
    """However a request is served. The counts by code add up to the responses that were not active."""
    now = int(time.time())
    valid = provider.mint()
    _, payload, _ = valid.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    tokens = {
        "wrong_audience": provider.mint(aud="other"),
        "wrong_issuer": provider.mint(iss="https://login.example/other"),
        "token_expired": provider.mint(exp=now - 100),
        "token_not_yet_valid": provider.mint(nbf=now + 100),
        "issued_in_the_future": provider.mint(iat=now + 100),
        "claim_missing": provider.mint(iat=None),
        "claim_malformed": provider.mint(exp="soon"),
        "unknown_key": provider.mint(key=Key.generate()),
        "signature_invalid": provider.mint(key=Key.generate(), header={"kid": provider.key.kid}),
        "algorithm_not_allowed": f"{unsigned}.{payload}.",
        "not_a_jwt": "junk",
        "token_too_large": "a" * 65_537,
    }
    for code, token in tokens.items():
        for _ in range(2):
            assert (await sidecar.call.introspect(token)).json["active"] is False, code
    assert (await sidecar.call.form(PATH, {"identity_provider": "entra_id"})).json["active"] is False
    assert (await sidecar.call.introspect(valid)).json["active"] is True
    counted = {
        code: await sidecar.metric(f'entra_fast_introspections_rejected_total{{code="{code}"}}')
        for code in (*tokens, "invalid_request")
    }
    assert counted == {**dict.fromkeys(tokens, 2.0), "invalid_request": 1.0}
    assert await sidecar.metric('entra_fast_introspections_total{active="false"}') == 2 * len(tokens) + 1
    assert await sidecar.metric('entra_fast_introspections_total{active="true"}') == 1


async def test_without_keys_introspections_are_counted_as_such(
    start: StartSidecar, provider: Provider
) -> None:
    """Before the provider's endpoints are known."""
    provider.failing = True
    sidecar = await start(ready=False)
    for _ in range(2):
        assert (await sidecar.call.introspect(provider.mint())).json["active"] is False
    assert await sidecar.metric('entra_fast_introspections_rejected_total{code="keys_unavailable"}') == 2


async def rejections_logged(
    sidecar: Started, caplog: pytest.LogCaptureFixture, token: str
) -> list[dict[str, Any]]:
    """What the log says after a minute with this token and nothing else."""

    def lines() -> list[dict[str, Any]]:
        message = "most introspections reject the token"
        return [vars(record)["fields"] for record in caplog.records if record.getMessage() == message]

    for _ in range(6):
        assert (await sidecar.call.introspect(token)).json["active"] is False
    async with asyncio.timeout(30):
        while not lines():
            sidecar.clock.monotonic_offset += 30  # the status log looks once a second
            await asyncio.sleep(0.5)
    return lines()


async def test_a_wrong_issuer_in_the_settings_is_logged_with_both(
    start: StartSidecar, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """The line says what the settings expect and what the tokens have: their signature is valid."""
    issuer = "https://login.example/tenant/v2.0"
    sidecar = await start(AZURE_OPENID_CONFIG_ISSUER=issuer)
    assert await rejections_logged(sidecar, caplog, provider.mint()) == [
        {
            "code": "wrong_issuer",
            "rejected": 6,
            "introspections": 6,
            "expected": issuer,
            "received": provider.issuer,
        }
    ]


async def test_a_received_audience_is_escaped_and_cut(
    sidecar: Started, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Who registers an application chooses it: it must not write lines of its own into the log."""
    (fields,) = await rejections_logged(sidecar, caplog, provider.mint(aud='a\n\x1b[31m{"' + "x" * 10_000))
    assert (fields["code"], fields["expected"]) == ("wrong_audience", CLIENT_ID)
    assert fields["received"].startswith('a\\n\\u{1b}[31m{\\"xxx')
    assert len(fields["received"]) < 200


async def test_nothing_of_a_token_that_was_not_verified_is_logged(
    sidecar: Started, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an unknown key only what was expected, whatever `kid`, issuer and audience it names."""
    other = Key.generate()
    token = provider.mint(key=other, header={"kid": "canary"}, iss="canary", aud="canary")
    assert await rejections_logged(sidecar, caplog, token) == [
        {"code": "unknown_key", "rejected": 6, "introspections": 6, "expected": "one of 1 known keys"}
    ]
    assert "canary" not in "".join(str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("algorithm", ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87", "Ed25519", "PS256"])
async def test_other_algorithms_are_accepted_where_the_operator_says_so(
    start: StartSidecar, provider: Provider, algorithm: str
) -> None:
    """ENTRA_FAST_ALGORITHMS lists them, the preferred ones first; signatures of 6 KB fit in both bodies."""
    key = signer("other", algorithm)
    provider.key_set = jwks(key).encode()
    now = int(time.time())
    claims = {"iss": provider.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 600, "x": "y" * 20_000}
    token = key.token(claims)
    sidecar = await start(ENTRA_FAST_ALGORITHMS=f"{algorithm},RS256")
    for _ in range(2):
        assert (await sidecar.call.introspect(token)).json == {"active": True, **claims}
        answer = await sidecar.call.form("/api/v1/introspect", {"token": token})
        assert answer.json["active"] is True
    forged = key.token({**claims, "sub": "other"}).rsplit(".", 1)[0] + "." + token.rsplit(".", 1)[1]
    assert (await sidecar.call.introspect(forged)).json == {
        "active": False, "error": "token signature is invalid",
    }  # fmt: skip
    if algorithm == "PS256":  # the key has no `alg`: it serves the first one only
        refused = (await sidecar.call.introspect(key.using("RS256").token(claims))).json
        assert refused["error"] == "token algorithm 'RS256' is not allowed"


async def test_by_default_nothing_but_rs256_is_accepted(start: StartSidecar, provider: Provider) -> None:
    """Whatever the key set holds."""
    keys = [signer(name, name) for name in ("ML-DSA-44", "Ed25519", "PS256", "ES256")]
    provider.key_set = jwks(*keys).encode()
    sidecar = await start()
    now = int(time.time())
    claims = {"iss": provider.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 600}
    for key in keys:
        answer = (await sidecar.call.introspect(key.token(claims))).json
        assert answer == {"active": False, "error": f"token algorithm '{key.algorithm}' is not allowed"}
