"""The pages of the local Entra ID and of the token generator: one frame, one policy, all values escaped."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

import entra_fast
from entra_fast._web.caller_check import CallerCheck
from entra_fast._web.responses import PAGE_HEADERS, POPUP_HEADERS
from entra_fast.generator import GeneratorSettings, RunningGenerator, start_generator
from support.local_entra import Answer, Caller, local_entra, manifest, served

PACKAGE = Path(entra_fast.__file__).parent
TEMPLATES = sorted(PACKAGE.rglob("templates/*.html"))
CANARY = "<b>\"'&"
BROWSER = {"Accept": "text/html"}
CALLBACK = "http://localhost:3001/oauth2/callback"
GENERATOR = "dev-gcp:nais:azure-token-generator"
APP, TARGET = "dev-gcp:team:app", "dev-gcp:team:target"
ENTRA_PAGES = [
    "/",
    "/map",
    "/map?application=nothing",
    f"/applications/{APP}",
    f"/applications/{TARGET}/rules/1",
    f"/applications/{TARGET}/rules/2",
    "/inspect",
    "/users",
    "/log",
    "/log?live=1&outcome=refused",
    "/log/1",
    "/explain",
    "/mint",
    "/faults",
    "/endpoints",
    "/error?code=501051",
    "/nothing",
]
GENERATOR_PAGES = ["/", "/api/obo", "/nothing", "/oauth2/callback"]

QUOTED = CANARY.replace("'", "''")  # in YAML
DIRECTORY = f"""
tenant: trygdeetaten.no
groups: [{{name: '{QUOTED} group', id: 00000000-0000-4000-8000-0000000000a1, allUsers: true}}]
users: [{{name: '{QUOTED} user', username: ada@trygdeetaten.no}}]
"""


class Elements(HTMLParser):
    """The elements of a page as a browser parses it: text, attributes, elements, and the contents of styles
    and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.attributes: list[tuple[str, str, str]] = []
        self.names: set[str] = set()
        self.inline: list[tuple[str, str]] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.names.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._inside in {"style", "script"} and data.strip():
            self.inline.append((self._inside, data))
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def sources(policy: str, directive: str) -> list[str]:
    """The source expressions of a directive."""
    found = [part.split() for part in policy.split(";")]
    return next(part[1:] for part in found if part[0] == directive)


def check_page(html: str, headers: object) -> None:
    """Nothing is inline but what the policy names by digest; nothing is loaded; nothing runs."""
    policy = headers["Content-Security-Policy"]  # type: ignore[index]
    page = Elements(html)
    assert sources(policy, "default-src") == ["'none'"]
    assert "unsafe" not in policy
    for kind, text in page.inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert sources(policy, f"{kind}-src") == [f"'sha256-{digest}'"]
    assert sorted(kind for kind, _ in page.inline) == ["script", "style"]
    for tag, name, value in page.attributes:
        assert name != "style", tag
        assert not name.startswith("on"), (tag, name)
        if name in {"href", "src", "action", "formaction"}:
            scheme = urllib.parse.urlsplit(value).scheme
            assert scheme in {"", "http"} or (tag, scheme) == ("link", "data"), value
        assert name != "src", tag
    assert "b" not in page.names  # the element of the canary: no template has one


@pytest_asyncio.fixture
async def entra() -> AsyncIterator[Caller]:
    """A provider whose users and groups have names that break pages that forget to escape."""
    texts = [
        manifest("app", all_users=True, replyURLs=[CALLBACK]),
        manifest("target", rules=[{"application": "app"}]),
    ]
    async with served(local_entra(texts, DIRECTORY)) as caller:
        await caller.m2m("app", "target")
        yield caller


@pytest_asyncio.fixture
async def generator(entra: Caller, tmp_path: Path) -> AsyncIterator[RunningGenerator]:
    """A token generator in front of it."""
    environment = {**entra.running.environment(GENERATOR), "TOKEN_GENERATOR_AUDIENCES": TARGET}
    running = await start_generator(GeneratorSettings.from_environment(environment, tmp_path), port=0)
    yield running
    await running.stop()


@pytest.mark.parametrize("path", ENTRA_PAGES)
async def test_pages_of_the_local_entra_id_keep_to_the_policy(entra: Caller, path: str) -> None:
    """One style sheet and one script by digest, no inline style, nothing from elsewhere."""
    answer = await entra.request("GET", path, headers=BROWSER)
    check_page(answer.text, answer.headers)
    for name, value in PAGE_HEADERS.items():
        assert answer.headers[name] == value


async def test_sign_in_pages_keep_to_the_policy(entra: Caller) -> None:
    """Without an opener policy, because applications open them in windows of their own."""
    parameters = entra.login_parameters("app", redirect_uri=CALLBACK)
    path = entra.authorize_path("app")
    pages: list[Answer] = [
        await entra.request("GET", path, params=parameters),
        await entra.request("GET", path, params={**parameters, "redirect_uri": "http://localhost:9/"}),
        await entra.sign_in("app", "nobody", redirect_uri=CALLBACK),
        await entra.sign_in("app", "ada", redirect_uri=CALLBACK, scope=f"openid {entra.scope('target')}"),
        await entra.sign_in("app", "ada", redirect_uri=CALLBACK, response_mode="form_post"),
        await entra.request("GET", path.replace("/authorize", "/logout")),
    ]
    assert [page.status for page in pages] == [200, 400, 400, 403, 200, 200]
    for page in pages:
        check_page(page.text, page.headers)
        assert "Cross-Origin-Opener-Policy" not in page.headers
        for name, value in POPUP_HEADERS.items():
            assert page.headers[name] == value


@pytest.mark.parametrize("path", GENERATOR_PAGES)
async def test_pages_of_the_token_generator_keep_to_the_policy(
    generator: RunningGenerator, path: str
) -> None:
    """The same frame, style sheet, policy and headers as the local Entra ID's."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(generator.base_url + path, headers=BROWSER) as answer,
    ):
        html = await answer.text()
        check_page(html, answer.headers)
        for name, value in PAGE_HEADERS.items():
            assert answer.headers[name] == value


async def test_what_users_write_is_text_on_every_page(entra: Caller) -> None:
    """Names of users and groups, what is typed into forms, parameters of requests, paths: each comes back as
    text or as the value of an attribute, and never as markup.
    """
    encoded = urllib.parse.quote(CANARY)
    who = {"consumer": CANARY, "target": CANARY, "user": CANARY}
    tenant = entra.tenant_id("app")
    await entra.token({"grant_type": CANARY, "client_id": CANARY, "scope": CANARY}, tenant)
    login = entra.login_parameters("app", redirect_uri=CALLBACK)
    path = entra.authorize_path("app")
    fault = {"action": "add", "kind": "status", "endpoint": "token", "value": CANARY, "count": CANARY}
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("GET", f"/users?q={encoded}", {}),
        ("GET", "/users", {}),
        ("GET", f"/applications/{APP}", {}),
        ("GET", f"/applications/{encoded}", {}),
        ("GET", "/log", {}),
        ("GET", "/log/2", {}),
        ("GET", f"/explain?{urllib.parse.urlencode(who)}", {}),
        ("GET", f"/explain?{urllib.parse.urlencode({**who, 'consumer': APP})}", {}),
        ("GET", f"/explain?{urllib.parse.urlencode({**who, 'consumer': APP, 'user': ''})}", {}),
        ("POST", "/mint", {"data": who}),
        ("POST", "/faults", {"data": fault}),
        ("POST", "/faults", {"data": {"action": "clock", "offset": CANARY}}),
        ("GET", path, {"params": login}),
        ("GET", path, {"params": {**login, "login_hint": CANARY}}),
        ("GET", path, {"params": {**login, "state": CANARY, "nonce": CANARY}}),
        ("GET", path, {"params": {**login, "client_id": CANARY}}),
        ("GET", path, {"params": {**login, "redirect_uri": CANARY}}),
        ("POST", path, {"data": {**login, "username": CANARY}}),
        ("POST", path, {"data": {**login, "username": "ada", "response_mode": "form_post", "state": CANARY}}),
    ]
    for method, target, options in requests:
        answer = await entra.request(method, target, headers=BROWSER, **options)
        assert answer.headers["Content-Type"].startswith("text/html"), target
        check_page(answer.text, answer.headers)
        assert "<b>" not in answer.text, target
        page = Elements(answer.text)
        quoted = repr(CANARY)[1:-1]
        values = [page.text, *(value for _, _, value in page.attributes)]
        assert any(CANARY in value or quoted in value for value in values), target


async def test_the_token_generator_escapes_what_comes_from_the_provider(generator: RunningGenerator) -> None:
    """Parameters of the callback are text on its page of errors."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.get(f"{generator.base_url}/oauth2/login", allow_redirects=False) as begun:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(begun.headers["Location"]).query)
        callback = {"error": CANARY, "error_description": CANARY, "state": query["state"][0]}
        url = f"{generator.base_url}/oauth2/callback"
        async with http.get(url, params=callback, headers=BROWSER) as answer:
            html = await answer.text()
            assert answer.status == 400
            check_page(html, answer.headers)
    assert Elements(html).text.count(CANARY) == 2


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_templates_leave_escaping_to_the_environment(template: Path) -> None:
    """No template marks text as safe, none changes autoescape, and each value of an attribute is quoted."""
    text = template.read_text()
    assert not re.search(r"\|\s*safe|autoescape|Markup|tojson", text)
    assert not re.search(r"=\s*\{\{", text)
    assert not re.search(r"\son\w+=|\sstyle=", text)


def test_markup_is_made_in_one_place() -> None:
    """Only style sheet, script and logo, constants of the package, are markup without being templates."""
    found = [path for path in PACKAGE.rglob("*.py") if re.search(r"\bMarkup\(", path.read_text())]
    assert found == [PACKAGE / "_web" / "rendering.py"]
    assert len(re.findall(r"\bMarkup\(", found[0].read_text())) == 3


def test_templates_are_found() -> None:
    """The three folders of templates, so that the tests above see them all."""
    assert {path.parent.relative_to(PACKAGE).as_posix() for path in TEMPLATES} == {
        "_web/templates",
        "emulator/web/templates",
        "generator/templates",
    }


# --- Jinja2 is loaded for the first page only ------------------------------------------------------------


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True, text=True, timeout=60
    )


def test_the_token_generator_starts_without_loading_jinja2() -> None:
    """Its token routes need no page."""
    done = _python(
        "import sys, entra_fast.generator.app, entra_fast.emulator.web.server; print('jinja2' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


async def test_a_missing_jinja2_is_one_sentence_with_the_command() -> None:
    """Exit status 2 at start, before anything listens."""
    code = (
        "import sys; sys.modules['jinja2'] = None; from entra_fast.cli.main import main; "
        "sys.exit(main(['token-generator', '--bind', '127.0.0.1:0']))"
    )
    environment = {
        "AZURE_APP_CLIENT_ID": "11111111-1111-4111-8111-111111111111",
        "AZURE_APP_CLIENT_SECRET": "secret",
        "AZURE_APP_TENANT_ID": "22222222-2222-4222-8222-222222222222",
    }
    done = await asyncio.to_thread(_python, code, **environment)
    assert done.returncode == 2
    assert "pip install 'entra-fast[dev]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


# --- the caller check ------------------------------------------------------------------------------------

OWN = "http://127.0.0.1:8080"


def _request(*headers: tuple[str, str]) -> web.Request:
    return make_mocked_request("POST", "/", CIMultiDict(headers))


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ([("Host", "127.0.0.1:8080")], True),
        ([("Host", "localhost:1")], True),
        ([("Host", "known.example")], True),
        ([("Host", "evil.example")], False),
        ([("Host", "127.0.0.1.evil.example")], False),
        ([("Host", "")], False),
        ([], False),
        ([("Host", "localhost"), ("Host", "localhost")], False),
        ([("Host", "127.0.0.1:8080"), ("Origin", OWN)], True),
        ([("Host", "localhost:8080"), ("Origin", "http://localhost:8080")], True),
        ([("Host", "localhost:8080"), ("Origin", "https://localhost:8080")], False),
        ([("Host", "127.0.0.1:8080"), ("Origin", "http://127.0.0.1:9090")], False),
        ([("Host", "127.0.0.1:8080"), ("Origin", "null")], False),
        ([("Host", "127.0.0.1:8080"), ("Sec-Fetch-Site", "same-origin")], True),
        ([("Host", "127.0.0.1:8080"), ("Sec-Fetch-Site", "same-site")], False),
        ([("Host", "127.0.0.1:8080"), ("Sec-Fetch-Site", "cross-site")], False),
    ],
)
def test_the_caller_check(headers: list[tuple[str, str]], accepted: bool) -> None:
    """Foreign names (DNS rebinding) and pages of other origins (cross-site request forgery) are refused."""
    check = CallerCheck(OWN, {"known.example"}, "the advice")
    problem = check.refusal(_request(*headers), changes=True)
    assert (problem is None) is accepted


def test_a_read_may_come_from_any_page() -> None:
    """The browser keeps the response from it; but the name of the host still counts, and the refusal says how
    to add one.
    """
    check = CallerCheck(OWN, set(), "the advice")
    foreign = ("Origin", "https://evil.example")
    assert check.refusal(_request(("Host", "localhost"), foreign), changes=False) is None
    problem = check.refusal(_request(("Host", "evil.example")), changes=False)
    assert problem is not None
    assert "the advice" in problem
    assert CallerCheck(OWN, None, "").refusal(_request(("Host", "any.example")), changes=True) is None
