"""Device codes: the endpoint, the page where the user answers, polling, and everything that can go wrong."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._native import unverified_claims
from entra_fast.emulator.protocol.device_codes import MAX_DEVICE_CODES, DeviceCodes
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served
from support.pages import Form

from .conftest import CALLBACK, DIRECTORY, GROUP_B

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PAGE = "/devicelogin"


def texts() -> list[str]:
    strict = {"entra-fast/allow-public-client": "false"}
    return [
        manifest("tool", all_users=True),
        manifest("other", all_users=True, replyURLs=[CALLBACK]),
        manifest("strict", all_users=True, annotations=strict),
        manifest("api", groups=[GROUP_B], rules=[{"application": "tool"}]),
    ]


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    async with served(local_entra(texts(), DIRECTORY, clock=clock)) as caller:
        yield caller


async def begun(entra: Caller, application: str = "tool", **changes: str) -> dict[str, Any]:
    form = {"client_id": entra.client_id(application), "scope": f"openid offline_access {entra.scope('api')}"}
    answer = await begin(entra, {**form, **changes})
    assert answer.status == 200, answer.text
    return dict(answer.json)


async def begin(entra: Caller, form: dict[str, str], middle: str = "/v2.0") -> Answer:
    kept = {name: value for name, value in form.items() if value}
    return await entra.request("POST", f"/{entra.tenant_id('tool')}/oauth2{middle}/devicecode", data=kept)


async def poll(entra: Caller, code: str, application: str = "tool", /, **changes: str) -> Answer:
    form = {"grant_type": GRANT, "client_id": entra.client_id(application), "device_code": code}
    return await entra.token({**form, **changes})


async def typed(entra: Caller, code: str, **fields: str) -> Answer:
    return await entra.request("POST", PAGE, data={"code": code, **fields})


async def approved(entra: Caller, code: str, user: str = "ada") -> None:
    confirm = await typed(entra, code, username=user)
    assert "Confirm the sign-in" in confirm.text
    assert "You have signed in" in (await typed(entra, code, answer="continue")).text


async def test_the_whole_way(entra: Caller) -> None:
    """The device polls while the user enters the code, chooses an account and confirms, on pages that need no
    script; then it has tokens, which can be refreshed without a credential.
    """
    answer = await begun(entra)
    assert set(answer) == {
        "user_code",
        "device_code",
        "verification_uri",
        "expires_in",
        "interval",
        "message",
    }
    assert (answer["expires_in"], answer["interval"]) == (900, 5)
    assert re.fullmatch(r"[A-Z]{8,9}", answer["user_code"])
    assert answer["user_code"] in answer["message"]
    assert answer["verification_uri"] in answer["message"]
    pending = await poll(entra, answer["device_code"])
    assert (pending.status, pending.code, pending.json["error"]) == (400, 70016, "authorization_pending")

    page = await entra.request("GET", answer["verification_uri"])
    assert Form(page.text).action == PAGE
    choose = await typed(entra, answer["user_code"])
    form = Form(choose.text)
    assert "Ada Lovelace" in choose.text
    assert "✓ dev-gcp:team:api allows this user" in choose.text
    confirm = await entra.request("POST", form.action, data={**form.hidden, "username": "ada"})
    assert "dev-gcp:team:tool" in confirm.text
    assert (await poll(entra, answer["device_code"])).code == 70016
    form = Form(confirm.text)
    done = await entra.request("POST", form.action, data={**form.hidden, "answer": "continue"})
    assert "You have signed in" in done.text

    tokens = await poll(entra, answer["device_code"])
    assert (tokens.claims["aud"], tokens.claims["azpacr"]) == (entra.client_id("api"), "0")
    assert "id_token" in tokens.json
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    again = await entra.token({**refresh, "client_id": entra.client_id("tool")})
    assert again.claims["scp"] == tokens.claims["scp"]
    used = await poll(entra, answer["device_code"])
    assert (used.code, used.json["error"]) == (70019, "bad_verification_code")


async def test_every_spelling(entra: Caller) -> None:
    """MSAL for Node.js has a grant type of its own, MSAL for Python sends the code twice; people type codes
    in lower case and in groups.
    """
    for changes in ({"grant_type": "device_code"}, {"code": "same"}, {"device_code": "", "code": "same"}):
        answer = await begun(entra)
        code = answer["user_code"]
        await approved(entra, f" {code[:4].lower()}-{code[4:]} ")
        same = {name: answer["device_code"] if value == "same" else value for name, value in changes.items()}
        assert (await poll(entra, answer["device_code"], **same)).status == 200


async def test_the_older_endpoint(entra: Caller, clock: Clock) -> None:
    """`resource`, numbers as text, `verification_url`, and an error name of its own."""
    form = {"client_id": entra.client_id("tool"), "resource": f"api://{entra.client_id('api')}"}
    answer = (await begin(entra, form, "")).json
    assert (answer["expires_in"], answer["interval"]) == ("900", "5")
    assert answer["verification_url"].endswith(PAGE)
    await approved(entra, answer["user_code"])
    path = f"/{entra.tenant_id('tool')}/oauth2/token"
    ask = {"grant_type": "device_code", "client_id": form["client_id"], "resource": form["resource"]}
    tokens = await entra.request("POST", path, data={**ask, "code": answer["device_code"]})
    assert (tokens.claims["ver"], tokens.claims["aud"]) == ("1.0", form["resource"])
    late = (await begin(entra, form, "")).json
    clock.now += 901
    expired = await entra.request("POST", path, data={**ask, "code": late["device_code"]})
    assert (expired.code, expired.json["error"]) == (70020, "code_expired")


async def test_declining(entra: Caller) -> None:
    """The device learns it, and the code cannot be used any more."""
    answer = await begun(entra)
    await typed(entra, answer["user_code"], username="ada")
    page = await typed(entra, answer["user_code"], answer="cancel")
    assert "declined" in page.text
    for _ in range(2):
        told = await poll(entra, answer["device_code"])
        assert (told.status, told.json["error"]) == (400, "authorization_declined")
    assert "AADSTS90120" in (await typed(entra, answer["user_code"])).text


async def test_a_code_expires(entra: Caller, clock: Clock) -> None:
    """After 15 minutes, for the device and on the page; later it is unknown."""
    answer = await begun(entra)
    clock.now += 899
    assert (await poll(entra, answer["device_code"])).code == 70016
    clock.now += 1
    late = await poll(entra, answer["device_code"])
    assert (late.code, late.json["error"]) == (70020, "expired_token")
    assert "AADSTS70020" in (await typed(entra, answer["user_code"], username="ada")).text
    clock.now += 900
    assert (await poll(entra, answer["device_code"])).code == 70019


async def test_wrong_codes_on_the_page(entra: Caller) -> None:
    """None 90119, wrong 70018, used 90120; each is said at the field, and what was typed is escaped."""
    answer = await begun(entra)
    await approved(entra, answer["user_code"])
    attack = '"><script>alert(1)</script>'
    for code, number in (("", 90119), (" - ", 90119), ("WRONG", 70018), (attack, 70018)):
        page = await typed(entra, code)
        assert page.status == 400
        assert f"AADSTS{number}: " in page.text
        assert 'aria-describedby="message"' in page.text
        assert "<script>alert" not in page.text
    used = await typed(entra, answer["user_code"], answer="continue")
    assert "AADSTS90120" in used.text
    linked = await entra.request("GET", f"{PAGE}?otc={answer['user_code']}")
    assert f'value="{answer["user_code"]}"' in linked.text
    assert (await typed(entra, (await begun(entra))["user_code"], username="nobody")).status == 400


async def test_a_code_is_for_its_client(entra: Caller) -> None:
    """Another client is refused, and the right one still gets the tokens."""
    answer = await begun(entra)
    await approved(entra, answer["user_code"])
    assert (await poll(entra, answer["device_code"], "other")).code == 70000
    assert (await poll(entra, "unknown")).code == 70019
    assert (await poll(entra, "")).code == 900144
    assert (await poll(entra, answer["device_code"])).status == 200


async def test_credentials(entra: Caller) -> None:
    """A credential is verified if it is sent, needed if the manifest says so, and refused from a page."""
    answer = await begun(entra)
    await approved(entra, answer["user_code"])
    assert (await poll(entra, answer["device_code"], client_secret="wrong")).code == 7000215
    form = {"grant_type": GRANT, "client_id": entra.client_id("tool"), "device_code": answer["device_code"]}
    assert (await entra.token(form, headers={"Origin": "https://x.example"})).code == 9002326
    secret = entra.credentials("tool")["client_secret"]
    tokens = await poll(entra, answer["device_code"], client_secret=secret)
    assert tokens.claims["azpacr"] == "1"
    form = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    assert (await entra.token({**form, "client_id": entra.client_id("tool")})).code == 7000218
    strict = await begun(entra, "strict", scope="openid")
    assert (await poll(entra, strict["device_code"], "strict")).code == 7000218


async def test_policies_apply(entra: Caller) -> None:
    """A user whom the target does not admit sees why and cannot confirm; the journal has it. Another user
    can. What changes before the device asks counts, too.
    """
    answer = await begun(entra)
    refused = await typed(entra, answer["user_code"], username="ola")
    assert refused.status == 403
    assert "AADSTS50105" in refused.text
    assert "What to change" in refused.text
    (again,) = re.findall(r'href="([^"]*otc=[^"]+)"', refused.text)
    assert unescape(again) == f"{PAGE}?otc={answer['user_code']}"
    entry = entra.local.journal.entries()[0]
    assert (entry.grant, entry.code, entry.user) == ("device code", 50105, "ola@trygdeetaten.no")
    forced = await typed(entra, answer["user_code"], answer="continue")
    assert forced.status == 403
    assert (await poll(entra, answer["device_code"])).code == 70016
    await typed(entra, answer["user_code"], answer="other")
    await approved(entra, answer["user_code"])
    without = DIRECTORY.replace("groups: [group-b, other]", "groups: []")
    entra.local.registry = local_entra(texts(), without).registry
    assert (await poll(entra, answer["device_code"])).code == 50105


async def test_the_journal(entra: Caller) -> None:
    """The request, the answer and the tokens are in it; polls that say nothing are not."""
    answer = await begun(entra)
    for _ in range(3):
        await poll(entra, answer["device_code"])
    await approved(entra, answer["user_code"])
    await poll(entra, answer["device_code"])
    entries = entra.local.journal.entries()
    assert [entry.grant for entry in entries] == ["device code"] * 3
    assert [entry.user for entry in entries] == ["ada@trygdeetaten.no", "ada@trygdeetaten.no", ""]
    assert answer["device_code"] not in repr(entries)
    assert answer["user_code"] not in repr(entries)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": ""}, 900144),
        ({"client_id": "unknown"}, 700016),
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 700038),
        ({"scope": ""}, 900144),
        ({"scope": "api://dev-gcp.team.unknown/.default"}, 500011),
        ({"scope": "Mail.Read"}, 650053),
        ({"resource": "https://graph.microsoft.com"}, 901002),
        ({"claims": "[]"}, 9002313),
    ],
)
async def test_refused_requests(entra: Caller, changes: dict[str, str], code: int) -> None:
    """As JSON, and in the journal."""
    form = {"client_id": entra.client_id("tool"), "scope": "openid", **changes}
    assert (await begin(entra, form)).code == code
    assert entra.local.journal.entries()[0].code == code
    get = await entra.request("GET", f"/{entra.tenant_id('tool')}/oauth2/v2.0/devicecode")
    assert get.code == 900561


async def test_slow_down_is_a_planned_fault_only(entra: Caller) -> None:
    """However often the device asks; planned, it is RFC 8628's."""
    answer = await begun(entra)
    for _ in range(5):
        assert (await poll(entra, answer["device_code"])).code == 70016
    entra.local.faults.add("slow_down", count=1)
    slow = await poll(entra, answer["device_code"])
    assert (slow.status, slow.json["error"]) == (400, "slow_down")
    assert (await poll(entra, answer["device_code"])).code == 70016


async def test_foreign_pages_cannot_answer(entra: Caller) -> None:
    """A form on another site could confirm an attacker's code: it is refused."""
    answer = await begun(entra)
    await typed(entra, answer["user_code"], username="ada")
    fields = {"code": answer["user_code"], "answer": "continue"}
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert (await entra.request("POST", PAGE, data=fields, headers=headers)).status == 403
    assert (await poll(entra, answer["device_code"])).code == 70016


async def test_claims_and_sessions(entra: Caller) -> None:
    """`claims` of the request and of the poll both count; one's own session spares choosing the account."""
    context = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    await entra.sign_in("other", "ada", scope="openid")
    answer = await begun(entra, claims=context)
    assert "Confirm the sign-in" in (await typed(entra, answer["user_code"])).text
    await typed(entra, answer["user_code"], answer="continue")
    capable = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
    tokens = await poll(entra, answer["device_code"], claims=capable)
    assert (tokens.claims["acrs"], tokens.claims["xms_cc"]) == (["c1"], ["cp1"])
    assert "sid" in unverified_claims(tokens.json["id_token"])


def test_what_is_remembered_is_bounded() -> None:
    """The oldest requests are dropped, with their user codes."""
    codes = DeviceCodes(lambda: 0.0)
    begun = [codes.begin("t", "c", "openid", "", 2) for _ in range(MAX_DEVICE_CODES + 5)]
    assert len(codes.requests.items()) == MAX_DEVICE_CODES
    assert codes.requests.get(begun[4][0]) is None
    assert codes.typed(begun[5][1].user_code) == begun[5][1]
