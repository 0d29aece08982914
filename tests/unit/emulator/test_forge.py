"""Forged tokens: wrong in exactly the ordered way, marked in the journal, and never of a real provider."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from entra_fast._native import KeySet, Policy, Validator, unverified_claims
from entra_fast.cli.main import main
from entra_fast.emulator.protocol.forge import FORGED_ALGORITHMS
from entra_fast.errors import ConfigurationError, InvalidToken
from support.local_entra import Answer, Caller, local_entra, served

from .conftest import DIRECTORY, GROUP_B, MANIFESTS, OTHER_GROUP
from .test_console import text_of

API = "/admin/api/forge"
A, B = "dev-gcp:team:app-a", "dev-gcp:team:app-b"
TOKEN = "a-token-of-the-admin"


async def forge(entra: Caller, **fields: Any) -> Answer:
    return await entra.request("POST", API, json={"application": A, "audience": B, **fields})


async def forged(entra: Caller, **fields: Any) -> dict[str, Any]:
    answer = await forge(entra, **fields)
    assert answer.status == 200, answer.text
    assert answer.json["forged"] is True
    return dict(answer.json)


async def finding(entra: Caller, token: str, *, version: int = 2) -> str:
    """What app-b's own validator says about a token: an error code, or `valid`."""
    tenant = entra.tenant_id("app-b")
    keys = KeySet((await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).text)
    issuer = f"{entra.base_url}/{tenant}/" + ("v2.0" if version == 2 else "")
    policy = Policy(issuers=[issuer], audiences=[entra.client_id("app-b")], leeway=0.0)
    try:
        Validator(policy, keys).validate(token, entra.local.now())
    except InvalidToken as error:
        return error.code
    return "valid"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "valid"),
        ({"user": "ola"}, "valid"),  # whom app-b does not admit: no policy is asked
        ({"application": "dev-gcp:elsewhere:outsider"}, "valid"),
        ({"lifetime": 60}, "valid"),
        ({"lifetime": 0}, "token_expired"),
        ({"lifetime": -1}, "token_expired"),
        ({"not_before": 1}, "token_not_yet_valid"),
        ({"not_before": 1_800_000_001}, "token_not_yet_valid"),
        ({"not_before": -86_400}, "valid"),
        ({"not_before": -86_400, "lifetime": -5}, "token_expired"),
        ({"audience": A}, "wrong_audience"),
        ({"audience": "api://elsewhere"}, "wrong_audience"),
        ({"issuer": "https://issuer.example/v2.0"}, "wrong_issuer"),
        ({"issuer": "https://login.microsoftonline.com.example/v2.0"}, "wrong_issuer"),
        ({"claims": {"iss": "https://issuer.example"}}, "wrong_issuer"),
        ({"claims": {"exp": None}}, "claim_missing"),
        ({"key": "unknown"}, "unknown_key"),
        ({"key": "wrong"}, "signature_invalid"),
        ({"key": "none"}, "not_a_jwt"),
        ({"algorithm": "none"}, "not_a_jwt"),
        ({"algorithm": "nOnE"}, "not_a_jwt"),
        ({"version": 1}, "wrong_issuer"),
    ],
)
async def test_a_token_is_wrong_in_the_ordered_way_only(
    entra: Caller, fields: dict[str, Any], code: str
) -> None:
    """This project's validator, with app-b's policy, says exactly that."""
    answer = await forged(entra, **fields)
    found = await finding(entra, answer["token"])
    assert (found == "valid") == (code == "valid")
    assert found == code or code in ("claim_missing", "not_a_jwt"), found
    if "issuer" in fields or fields.get("claims"):
        return
    assert (
        unverified_claims(answer["token"] if answer["token"][-1] != "." else answer["token"] + "AA")
        == answer["claims"]
    )


@pytest.mark.parametrize("algorithm", [name for name in FORGED_ALGORITHMS if name != "RS256"])
async def test_every_algorithm_can_be_had_and_is_rejected(entra: Caller, algorithm: str) -> None:
    """The header says it, the key is the active one's, and a validator of RS256 refuses it."""
    answer = await forged(entra, algorithm=algorithm)
    assert jwt.get_unverified_header(answer["token"]) == answer["header"]
    assert (answer["header"]["alg"], answer["header"]["kid"]) == (algorithm, entra.local.keyring.active.kid)
    assert await finding(entra, answer["token"]) != "valid"


async def test_the_public_key_as_a_shared_secret(entra: Caller) -> None:
    """A verifier that lets the header choose the algorithm accepts the HS256 token. The one with RSA-PSS
    verifies by the same key."""
    key: Any = RSAAlgorithm.from_jwk(entra.local.keyring.active.public_jwk())
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    naive = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signing_input, _, signature = (await forged(entra, algorithm="HS256"))["token"].rpartition(".")
    assert naive.verify(signing_input.encode(), pem, jwt.utils.base64url_decode(signature))
    token = (await forged(entra, algorithm="PS384"))["token"]
    jwt.decode(
        token,
        pem,
        ["PS384"],
        options={"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )


async def test_users_groups_and_versions(entra: Caller) -> None:
    """The claims are those of real tokens: of the user, 20 KB of groups with the user's own first, v1.0 with
    its issuer and names, and Graph."""
    user = (await forged(entra, user="ada", groups=512))["claims"]
    assert (user["scp"], user["preferred_username"]) == ("defaultaccess custom.scope", "ada@trygdeetaten.no")
    assert len(set(user["groups"])) == 512
    assert {GROUP_B, OTHER_GROUP} <= set(user["groups"][:3])
    assert (await forged(entra, user="ada", groups=0))["claims"]["groups"] == []
    old = await forged(entra, user="ada", version=1, audience=f"api://{B.replace(':', '.')}")
    claims = old["claims"]
    assert (claims["ver"], claims["iss"]) == ("1.0", f"{entra.base_url}/{claims['tid']}/")
    assert (claims["aud"], claims["appid"]) == (f"api://{B.replace(':', '.')}", entra.client_id("app-a"))
    assert old["header"]["x5t"] == old["header"]["kid"]
    for_graph = (await forged(entra, user="ada", audience="https://graph.microsoft.com"))["token"]
    answer = await entra.request("GET", "/v1.0/me", headers={"Authorization": f"Bearer {for_graph}"})
    assert answer.json["userPrincipalName"] == "ada@trygdeetaten.no"
    own = await entra.request("POST", API, json={"audience": B})
    assert own.json["claims"]["azp"] == own.json["claims"]["aud"] == entra.client_id("app-b")


async def test_agents(entra: Caller) -> None:
    """The library tells the three kinds of agents apart, and claims can be left out or changed."""
    tenant = entra.tenant_id("app-b")
    policy = Policy(issuers=[f"{entra.base_url}/{tenant}/v2.0"], audiences=[entra.client_id("app-b")])
    validator = Validator(policy, entra.local.keyring.key_set)
    found = []
    for fields in ({}, {"user": "ada"}):
        token = (await forged(entra, agent="identity", **fields))["token"]
        agent = validator.validate(token, entra.local.now()).agent
        assert agent is not None
        assert agent.blueprint_id is not None
        found.append((agent.is_subject, agent.is_user))
    token = (await forged(entra, agent="user", user="ada", claims={"xms_par_app_azp": None}))["token"]
    agent = validator.validate(token, entra.local.now()).agent
    assert agent is not None
    assert agent.blueprint_id is None
    found.append((agent.is_subject, agent.is_user))
    assert found == [(True, False), (False, False), (False, True)]
    assert validator.validate((await forged(entra))["token"], entra.local.now()).agent is None


REAL = [
    "https://login.microsoftonline.com/x/v2.0",
    "HTTPS://LOGIN.MICROSOFTONLINE.COM",
    "https://sts.windows.net/x/",
    "http://login.microsoftonline.com:8080/",
    "login.microsoftonline.com",
    "login.microsoftonline.com:443/x",
    "//login.microsoftonline.com/x",
    "https:login.microsoftonline.com",
    "https:\\\\login.microsoftonline.com\\x",
    "https:///login.microsoftonline.com",
    "https://login.microsoftonline.com./x",
    "https://user@login.microsoftonline.com/",
    "https://login.microsoftonline.com@issuer.example/",
    "https://login%2Emicrosoftonline%252Ecom/",
    "https://login.microsoftonline\uff0ecom/",
    "https://login.microsoftonline\u3002com/",
    " https://login.micro\tsoft\u00adonline.com/",
    "https://tenant.ciamlogin.com/",
    "https://x.b2clogin.com/",
    "https://login.microsoftonline.us/",
    "https://login.partner.microsoftonline.cn/",
    "https://login.chinacloudapi.cn/",
]


@pytest.mark.parametrize("issuer", REAL)
async def test_no_issuer_of_a_real_provider(entra: Caller, issuer: str) -> None:
    """However it is written, in `issuer`, in `claims`, and inside of lists and objects; in Python too."""
    before = len(entra.local.journal.entries())
    for fields in (
        {"issuer": issuer},
        {"claims": {"iss": issuer}},
        {"claims": {"iss": ["https://issuer.example", issuer]}},
        {"claims": {"iss": {"is": issuer}}},
    ):
        answer = await forge(entra, **fields)
        assert answer.status == 400
        assert "is on a host of a real provider" in answer.json["error_description"]
        with pytest.raises(ConfigurationError, match="real provider"):
            entra.local.forge(A, **fields)
    assert len(entra.local.journal.entries()) == before


def nested(levels: int) -> Any:
    """Lists in lists."""
    return [nested(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"application": "dev-gcp:team:app"}, "there is no application 'dev-gcp:team:app'; did you mean"),
        (
            {"application": None, "audience": None},
            "application: required, unless 'audience' is an application",
        ),
        (
            {"application": None, "audience": "api://x"},
            "application: required: the audience 'api://x' is no application",
        ),
        ({"user": "nobody"}, "there is no user 'nobody' in trygdeetaten.no"),
        ({"version": 3}, "version: must be 1 or 2"),
        ({"version": "2"}, "version: expected a whole number, got the text '2'"),
        ({"lifetime": "1h"}, "lifetime: expected a number, got the text '1h'"),
        ({"lifetime": 1e12}, "lifetime: must be seconds, at most 315360000 either way"),
        ({"not_before": 5e8}, "not_before: must be seconds from now"),
        ({"notBefore": 5}, "notBefore: unknown field; did you mean 'not_before'?"),
        ({"algorithm": "RS1"}, "algorithm: 'RS1' is none of: RS256,"),
        ({"key": "mine"}, "key: 'mine' is none of: active, unknown, wrong, none"),
        ({"agent": "robot"}, "agent: 'robot' is none of: identity, user"),
        ({"agent": "user"}, "agent: 'user' needs a user"),
        ({"groups": -1}, "groups: must be a number from 0 to 10000"),
        ({"groups": 10_001}, "groups: must be a number from 0 to 10000"),
        ({"issuer": "x" * 2049}, "issuer: at most 2048 characters"),
        ({"claims": ["x"]}, "claims: expected a mapping, got a list"),
        ({"claims": {"x": "\ud800"}}, "claims: must be values that JSON has"),
        ({"claims": {"x": nested(100)}}, "claims: nested more than 100 levels deep"),
    ],
)
async def test_mistakes_have_a_sentence(entra: Caller, fields: dict[str, Any], sentence: str) -> None:
    """400, and what was expected."""
    if fields.get("claims") == {"x": "\ud800"}:  # no client can send that as JSON; Python can
        with pytest.raises(ConfigurationError) as caught:
            entra.local.forge(A, **fields)
        assert sentence in str(caught.value)
        return
    answer = await forge(entra, **fields)
    assert answer.status == 400
    assert sentence in answer.json["error_description"]


async def test_the_journal_marks_it(entra: Caller) -> None:
    """As forged, with what was ordered and the claims, not the token; on the page of the log, too."""
    token = (await forged(entra, user="ada", lifetime=-60, algorithm="none"))["token"]
    (entry,) = (await entra.request("GET", "/admin/api/journal")).json
    assert (entry["forged"], entry["grant"], entry["client"], entry["target"]) == (True, "forged token", A, B)
    assert (
        entry["checks"][0]["text"]
        == "made to order; no access policy was checked; lifetime -60 s; algorithm none"
    )
    assert entry["claims"]["name"] == "Ada Lovelace"
    assert token.split(".")[1] not in (await entra.request("GET", "/admin/api/journal")).text
    assert "forged" in text_of((await entra.request("GET", "/log")).text)


async def test_the_page_forges(entra: Caller) -> None:
    """The form of the console does the same, keeps what was typed, and says what is wrong."""
    form = {
        "application": A,
        "audience": B,
        "lifetime": "-5",
        "key": "wrong",
        "claims": '{"roles": ["admin"]}',
    }
    answer = await entra.request("POST", "/forge", data=form)
    assert answer.status == 200
    page = text_of(answer.text)
    assert "forged claims roles; lifetime -5 s; key: a key that is published nowhere" in page
    assert '"roles": [ "admin" ]' in page
    assert 'value="-5"' in answer.text
    for wrong, sentence in (
        ({"claims": "{"}, "claims: this is not JSON"),
        ({"claims": "[]"}, "claims: expected a JSON object"),
        ({"lifetime": "soon"}, "lifetime: 'soon' is not a number"),
        ({"issuer": "https://sts.windows.net/"}, "is on a host of a real provider"),
    ):
        answer = await entra.request("POST", "/forge", data={**form, **wrong})
        assert (answer.status, sentence in text_of(answer.text)) == (400, True), sentence
    headers = {"Origin": "https://elsewhere.example"}
    assert (await entra.request("POST", "/forge", data=form, headers=headers)).status == 403


async def test_off_loopback_a_token_is_needed() -> None:
    """For the console and the admin API, not for Entra ID's own endpoints; as a header, and once in the
    address of a page, which sets a cookie."""
    local = local_entra(MANIFESTS, DIRECTORY)
    async with served(local, allow_remote=True) as entra:
        token = entra.running.admin_token
        assert token is not None
        assert len(token) >= 32
        for method, path in (
            ("GET", "/"),
            ("GET", f"/applications/{A}"),
            ("GET", "/log"),
            ("POST", "/mint"),
            ("POST", "/forge"),
            ("POST", API),
            ("GET", "/admin/api/journal"),
            ("GET", "/admin/api/journal/events"),
            ("GET", f"/admin/api/applications/{A}/environment"),
            ("GET", "/?token=wrong"),
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                answer = await entra.request(method, path, headers=headers)
                assert answer.status == 401, path
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert token not in answer.text
        assert (await entra.m2m("app-a", "app-b")).status == 200
        assert (await entra.request("GET", "/healthz")).status == 200
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await entra.request("POST", API, json={"audience": B}, headers=bearer)).status == 200
        html = {"Accept": "text/html"}
        assert "?token=" in (await entra.request("GET", "/", headers=html)).text
        answer = await entra.request("GET", f"/log?outcome=refused&token={token}")
        assert (answer.status, answer.headers["Location"]) == (303, "/log?outcome=refused")
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        assert "SameSite=Strict" in answer.headers["Set-Cookie"]
        assert (await entra.request("GET", "/log")).status == 200  # by the cookie
    async with served(local, admin_token=TOKEN) as entra:
        assert (await entra.request("GET", "/")).status == 401
    with pytest.raises(ConfigurationError, match="the admin token must have 16 to 256"):
        await local.start("127.0.0.1", 0, admin_token="short")


@pytest.mark.parametrize("header", [b"Authorization: Bearer \xff", b"Cookie: entra_fast_admin=\xff"])
async def test_a_token_that_is_no_text_is_wrong(header: bytes) -> None:
    """401, as for any other wrong one."""
    async with served(local_entra(MANIFESTS, DIRECTORY), admin_token=TOKEN) as entra:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(entra.base_url.rpartition(":")[2]))
        writer.write(b"GET /admin/api/journal HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_the_command_forges(capsys: pytest.CaptureFixture[str]) -> None:
    """`entra-fast forge` prints the token, or the sentence of the refusal; and it sends the admin's token."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(main, list(arguments))
        return (status, *capsys.readouterr())

    async with served(local_entra(MANIFESTS, DIRECTORY), admin_token=TOKEN) as entra:
        url = ["--url", entra.base_url, "--admin-token", TOKEN]
        claims = ["--claim", 'roles=["admin"]', "--claim", "idtyp=null", "--claim", "note=text"]
        status, token, _ = await run("forge", A, "--audience", B, "--lifetime=-60", *claims, *url)
        assert status == 0
        found = unverified_claims(token.strip())
        assert (found["roles"], found["note"], "idtyp" in found) == (["admin"], "text", False)
        assert await finding(entra, token.strip()) == "token_expired"
        status, _, error = await run("forge", A, "--issuer", "https://sts.windows.net/", *url)
        assert (status, "real provider" in error) == (1, True)
        status, _, error = await run("forge", A, "--claim", "x", *url)
        assert (status, "--claim: 'x' is not of the form NAME=VALUE" in error) == (2, True)
        status, _, error = await run("env", A, "--url", entra.base_url)
        assert (status, "Authorization: Bearer <token>" in error) == (1, True)
