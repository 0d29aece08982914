"""Single-page applications: codes that a browser redeems, who may read the response, and refresh tokens that
end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from entra_fast.emulator import SourceError
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served

from .conftest import CALLBACK, DIRECTORY

PAGE = "http://localhost:3002/"
ORIGIN = {"Origin": "http://localhost:3002"}
OTHER = {"Origin": "https://other.example"}


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    """`mixed` has redirect URIs of both kinds, `other` is another single-page application, `web` is none."""
    mixed = {"entra-fast/single-page-reply-urls": f"{PAGE} https://mixed.example:443/x"}
    texts = [
        manifest("mixed", all_users=True, replyURLs=[CALLBACK], annotations=mixed),
        manifest("other", all_users=True, singlePageApplication=True, replyURLs=["https://other.example/"]),
        manifest("web", all_users=True, replyURLs=[CALLBACK]),
    ]
    async with served(local_entra(texts, DIRECTORY, clock=clock)) as caller:
        yield caller


async def redeemed(entra: Caller, redirect_uri: str, headers: dict[str, str], **changes: str) -> Answer:
    answer = await entra.sign_in("mixed", "ada", redirect_uri=redirect_uri)
    form = {
        "grant_type": "authorization_code",
        "client_id": entra.client_id("mixed"),
        "code": answer.location["code"],
        "redirect_uri": redirect_uri,
        "code_verifier": "v" * 64,
        **changes,
    }
    return await entra.token(form, headers=headers)


async def refreshed(entra: Caller, token: str, headers: dict[str, str], **changes: str) -> Answer:
    form = {"grant_type": "refresh_token", "client_id": entra.client_id("mixed"), "refresh_token": token}
    return await entra.token({**form, **changes}, headers=headers)


async def test_the_redirect_uri_decides(entra: Caller) -> None:
    """One application: its page redeems in the browser without a credential, its server with one and without
    an origin.
    """
    secret = entra.credentials("mixed")
    page = await redeemed(entra, PAGE, ORIGIN)
    assert page.claims["azpacr"] == "0"
    server = await redeemed(entra, CALLBACK, {}, **secret)
    assert server.claims["azpacr"] == "1"
    refusals = [
        (await redeemed(entra, PAGE, {}), 9002327),
        (await redeemed(entra, CALLBACK, ORIGIN), 9002326),
        (await redeemed(entra, CALLBACK, ORIGIN, **secret), 9002326),
        (await redeemed(entra, PAGE, ORIGIN, **secret), 700025),
        (await redeemed(entra, CALLBACK, {}), 7000218),
        (await refreshed(entra, page.json["refresh_token"], {}), 9002327),
        (await refreshed(entra, server.json["refresh_token"], ORIGIN), 9002326),
        (await refreshed(entra, server.json["refresh_token"], {}), 7000218),
    ]
    for answer, code in refusals:
        assert answer.code == code
        if code in (9002326, 9002327):
            assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert (await refreshed(entra, page.json["refresh_token"], ORIGIN)).status == 200
    assert (await refreshed(entra, server.json["refresh_token"], {}, **secret)).status == 200


async def test_no_credential_is_taken_from_a_page(entra: Caller) -> None:
    """In any flow: client credentials with an origin are refused, and the origin is named."""
    form = {"grant_type": "client_credentials", "scope": entra.scope("web"), **entra.credentials("web")}
    answer = await entra.token(form, headers=ORIGIN)
    assert answer.code == 9002326
    assert "Request origin: 'http://localhost:3002'." in answer.json["error_description"]
    assert (await entra.token(form)).status == 200


async def test_who_may_read_the_response(entra: Caller) -> None:
    """Pages of that client's own origins, refusals included; not those of another application."""
    allowed = "Access-Control-Allow-Origin"
    answer = await redeemed(entra, PAGE, ORIGIN)
    assert answer.headers[allowed] == ORIGIN["Origin"]
    refused = await redeemed(entra, PAGE, ORIGIN, code="unknown")
    assert (refused.code, refused.headers[allowed]) == (70008, ORIGIN["Origin"])
    entra.local.faults.add("throttle", count=1)
    throttled = await redeemed(entra, PAGE, ORIGIN)
    assert (throttled.status, throttled.headers[allowed]) == (429, ORIGIN["Origin"])
    foreign = await redeemed(entra, PAGE, OTHER)
    assert allowed not in foreign.headers
    assert "Origin" in foreign.headers["Vary"]
    unknown = await refreshed(entra, "x", OTHER, client_id="unknown")
    assert (unknown.code, unknown.headers[allowed]) == (700016, OTHER["Origin"])
    path = f"/{entra.tenant_id('web')}/oauth2/v2.0/token"
    for origin, readable in (
        ("http://localhost:3002", True),
        ("https://mixed.example", True),
        ("http://localhost:3001", False),
        ("https://evil.example", False),
        ("null", False),
    ):
        preflight = await entra.request("OPTIONS", path, headers={"Origin": origin})
        assert (preflight.headers.get(allowed) == origin) == readable, origin


async def test_pkce_is_demanded(entra: Caller) -> None:
    """With S256, at the page's redirect URI only."""
    without: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None}
    refused = await entra.sign_in("mixed", "ada", redirect_uri=PAGE, **without)
    assert refused.location["error_description"].startswith("AADSTS9002325: ")
    assert "code" in (await entra.sign_in("mixed", "ada", redirect_uri=CALLBACK, **without)).location


async def test_refresh_tokens_end_a_day_after_the_login(entra: Caller, clock: Clock) -> None:
    """Each new one inherits the end of its predecessor, also in `refresh_token_expires_in`; then it is
    AADSTS700084 for all of them. Those of a server are renewed.
    """
    tokens = [(await redeemed(entra, PAGE, ORIGIN)).json["refresh_token"]]
    clock.now += 80_000
    answer = await refreshed(entra, tokens[0], ORIGIN)
    assert answer.json["refresh_token_expires_in"] == 86_400 - 80_000 - 1
    tokens.append(answer.json["refresh_token"])
    clock.now += 6_399
    assert (await refreshed(entra, tokens[1], ORIGIN)).status == 200
    clock.now += 1
    for token in tokens:
        late = await refreshed(entra, token, ORIGIN)
        assert (late.code, late.json["error"]) == (700084, "invalid_grant")
        assert "1.00:00:00" in late.json["error_description"]


def test_a_misspelled_annotation_is_noticed() -> None:
    """It would have no effect; other annotations are none of ours."""
    names = dict.fromkeys(("entra-fast/single-page-reply-url", "example.com/entra-fast/x"), "https://x/")
    local = local_entra([manifest("app", annotations=names)])
    (notice,) = (str(one) for one in local.notices if "annotation" in one.text)
    assert notice.startswith("0.yaml:1: ")
    assert "did you mean 'entra-fast/single-page-reply-urls'?" in notice


def test_malformed_redirect_uris_in_the_annotation() -> None:
    """A mistake with its field, like one in `replyURLs`."""
    text = manifest("app", annotations={"entra-fast/single-page-reply-urls": "https://ok.example/ http://x/"})
    with pytest.raises(SourceError, match=r"single-page-reply-urls.*'http://x/' is not a reply URL"):
        local_entra([text])
