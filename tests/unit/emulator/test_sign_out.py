"""The end-session endpoint: hints, the account picker, frames of the front channel, and where it leads."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import AsyncIterator
from html import unescape

import pytest
import pytest_asyncio

from entra_fast._native import unverified_claims
from support.keys import Key
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served
from support.pages import Form

from .conftest import CALLBACK, DIRECTORY

PROXY = "https://proxied.example"


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    """`told` and `proxied` have a front-channel logout URL, `plain` has none."""
    logout = {"entra-fast/front-channel-logout-url": "http://localhost:3003/end?x=1"}
    proxied = json.loads(manifest("proxied", all_users=True))
    proxied["spec"]["azure"]["sidecar"] = {"enabled": True}
    proxied["spec"]["ingresses"] = [PROXY]
    texts = [
        manifest("plain", all_users=True, replyURLs=[CALLBACK]),
        manifest("told", all_users=True, replyURLs=["http://localhost:3003/cb"], annotations=logout),
        json.dumps(proxied),
    ]
    async with served(local_entra(texts, DIRECTORY, clock=clock)) as caller:
        yield caller


def path(entra: Caller) -> str:
    return f"/{entra.tenant_id('plain')}/oauth2/v2.0/logout"


async def sign_out(entra: Caller, **fields: str) -> Answer:
    return await entra.request("GET", path(entra), params=fields)


async def signed_in(entra: Caller) -> bool:
    parameters = entra.login_parameters("plain", prompt="none")
    answer = await entra.request("GET", entra.authorize_path("plain"), params=parameters)
    return "code" in answer.location


def frames(page: str) -> list[str]:
    return [unescape(url) for url in re.findall(r'<iframe src="([^"]+)"', page)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_a_hint_the_user_is_asked(entra: Caller, method: str) -> None:
    """The session stays until the account is picked; the rest of the request is kept."""
    await entra.sign_in("plain", "ada")
    wanted = {"post_logout_redirect_uri": CALLBACK, "state": "s&t"}
    options = {"params": wanted} if method == "GET" else {"data": wanted}
    asked = await entra.request(method, path(entra), **options)
    assert asked.status == 200
    assert "Ada Lovelace" in asked.text
    assert await signed_in(entra)
    form = Form(asked.text)
    (hint,) = re.findall(r'name="logout_hint" value="([^"]+)"', asked.text)
    answer = await entra.request("POST", form.action, data={**form.hidden, "logout_hint": hint})
    assert answer.headers["Location"] == f"{CALLBACK}?state=s%26t"
    assert not await signed_in(entra)


async def test_a_logout_hint(entra: Caller) -> None:
    """The claim `login_hint` or a user name spares the click; that of another user does not."""
    requested = '{"id_token":{"login_hint":null}}'
    for named in (False, True):
        tokens = (await entra.login("plain", "ada", claims=requested)).json
        hint = "ada@trygdeetaten.no" if named else unverified_claims(tokens["id_token"])["login_hint"]
        assert "Sign out" in (await sign_out(entra, logout_hint="ola")).text
        assert await signed_in(entra)
        answer = await sign_out(entra, logout_hint=hint, post_logout_redirect_uri=CALLBACK)
        assert answer.headers["Location"] == CALLBACK
        assert not await signed_in(entra)


async def test_an_id_token_hint(entra: Caller, clock: Clock) -> None:
    """The ID token of this session or of this user, also an expired one, spares the click, and names the
    client; `state` comes back.
    """
    token = (await entra.login("plain", "ada", scope="openid")).json["id_token"]
    clock.now += 7200
    fields = {"post_logout_redirect_uri": CALLBACK, "state": "s"}
    answer = await sign_out(entra, id_token_hint=token, **fields)
    assert answer.headers["Location"] == f"{CALLBACK}?state=s"
    assert not await signed_in(entra)
    await entra.sign_in("plain", "ola")
    other = await sign_out(entra, id_token_hint=token, **fields)
    assert "Ola Nordmann" in other.text
    assert await signed_in(entra)


async def test_hints_that_are_no_id_tokens(entra: Caller) -> None:
    """Forged, damaged, or another client's: the user is asked, and the browser returns nowhere."""
    token = (await entra.login("plain", "ada")).json["id_token"]
    stranger = Key.generate()
    claims = unverified_claims(token)
    header = json.dumps({"alg": "RS256", "kid": entra.local.keyring.active.kid}).encode()
    forged = stranger.sign(header, json.dumps(dict(claims)).encode())
    for hint, client in (
        (forged, "plain"),
        (token[:-8] + "AAAAAAAA", "plain"),
        ("x", "plain"),
        (token, "told"),
    ):
        fields = {"post_logout_redirect_uri": CALLBACK, "client_id": entra.client_id(client)}
        asked = await sign_out(entra, id_token_hint=hint, **fields)
        assert (asked.status, "Location" in asked.headers) == (200, False)
        assert await signed_in(entra)
        ended = await sign_out(entra, id_token_hint=hint, logout_hint="ada", **fields)
        assert "id_token_hint" in ended.text
        assert not await signed_in(entra)
        await entra.sign_in("plain", "ada")


async def test_where_it_may_return_to(entra: Caller) -> None:
    """A registered redirect URI of the client that is named, of any application if none is; behind the login
    proxy also its own address.
    """
    cases = [
        (CALLBACK, "", True),
        (CALLBACK, entra.client_id("plain"), True),
        (CALLBACK, entra.client_id("told"), False),
        (CALLBACK, "unknown", False),
        (f"{PROXY}/oauth2/callback", "", True),
        (f"{PROXY}/oauth2/logout/callback", entra.client_id("proxied"), True),
        (f"{PROXY}/", "", False),
        ("http://localhost:3001/oauth2/logout/callback", "", False),
        ("https://evil.example/", "", False),
    ]
    for uri, client, allowed in cases:
        answer = await sign_out(entra, post_logout_redirect_uri=uri, client_id=client)
        assert (answer.headers.get("Location") == uri) == allowed, (uri, client)
        assert allowed or "registered redirect URIs" in unescape(answer.text)


async def test_every_application_of_the_session_is_told(entra: Caller) -> None:
    """A frame each with `sid` and nothing else, which the policy of the page allows; then the browser
    returns, without a script. Applications of another session are left alone.
    """
    answer = await entra.sign_in("told", "ada")
    sid = answer.location["session_state"]
    parameters = entra.login_parameters("plain")
    await entra.request("GET", entra.authorize_path("plain"), params=parameters)
    only = await sign_out(entra, logout_hint="ada")
    assert frames(only.text) == [f"http://localhost:3003/end?x=1&sid={sid}"]
    assert "http-equiv" not in only.text

    sid = (await entra.sign_in("told", "ada")).location["session_state"]
    proxied = entra.login_parameters("proxied")
    again = await entra.request("GET", entra.authorize_path("proxied"), params=proxied)
    assert dict(urllib.parse.parse_qsl(again.headers["Location"].partition("?")[2]))["session_state"] == sid
    both = await sign_out(entra, logout_hint="ada", post_logout_redirect_uri=CALLBACK, state="s")
    assert frames(both.text) == [
        f"http://localhost:3003/end?x=1&sid={sid}",
        f"{PROXY}/oauth2/logout/frontchannel?sid={sid}",
    ]
    policy = both.headers["Content-Security-Policy"]
    assert policy.endswith(f"; frame-src http://localhost:3003 {PROXY}")
    assert f'content="0; url={CALLBACK}?state=s"' in both.text
    assert not await signed_in(entra)


async def test_the_form_of_an_application(entra: Caller) -> None:
    """Posted from another site, the request comes without the cookie: it is repeated in a way that has it,
    and nothing is ended before.
    """
    await entra.sign_in("plain", "ada")
    fields = {"post_logout_redirect_uri": CALLBACK, "logout_hint": "ada"}
    entra.session.cookie_jar.clear()
    headers = {"Origin": "http://localhost:3001", "Sec-Fetch-Site": "cross-site"}
    answer = await entra.request("POST", path(entra), data=fields, headers=headers)
    assert answer.status == 303
    assert answer.headers["Location"] == f"{path(entra)}?{urllib.parse.urlencode(fields)}"


async def test_without_a_session_there_is_nothing_to_ask(entra: Caller) -> None:
    """It returns at once; other methods and repeated parameters are refused."""
    answer = await sign_out(entra, post_logout_redirect_uri=CALLBACK)
    assert answer.headers["Location"] == CALLBACK
    assert "Signed out" in (await sign_out(entra)).text
    assert (await entra.request("PUT", path(entra))).status in (403, 405)
    twice = [("post_logout_redirect_uri", CALLBACK), ("post_logout_redirect_uri", "https://evil.example/")]
    assert (await entra.request("GET", path(entra), params=twice)).code == 9002313
