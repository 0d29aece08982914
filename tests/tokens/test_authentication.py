"""The authentication classes, with the real HTTP clients over real sockets: who gets a token, and who never
does."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import httpx
import httpx2
import pytest
import requests
from aiohttp import web
from azure.core.pipeline import AsyncPipeline, Pipeline
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, BearerTokenCredentialPolicy
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.core.rest import HttpRequest

from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from entra_fast.tokens import AsyncTokenClient, TokenClient
from entra_fast.tokens._authentication import Origins, claims_challenge
from entra_fast.tokens.aiohttp import AiohttpAuth
from entra_fast.tokens.httpx import HttpxAuth
from entra_fast.tokens.httpx2 import Httpx2Auth
from entra_fast.tokens.requests import RequestsAuth
from support.background import Api
from support.provider import TENANT, Provider, refuse

from .conftest import SCOPE, TARGET

CLAIMS = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'


def encoded(claims: str) -> str:
    return base64.b64encode(claims.encode()).decode()


def challenge(claims: str = CLAIMS) -> web.Response:
    """What Microsoft's APIs answer when Conditional Access wants more."""
    value = (
        'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
        'client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", '
        f'claims="{encoded(claims)}"'
    )
    return web.Response(status=401, headers={"WWW-Authenticate": value})


def redirect(url: str, status: int = 307) -> web.Response:
    return web.Response(status=status, headers={"Location": url})


@dataclass
class Answer:
    status: int
    path: str


class Caller:
    """An HTTP client with an authentication class."""

    def __init__(self, environ: dict[str, str], origins: list[str]) -> None:
        self.environ = environ
        self.origins = origins

    async def call(self, url: str, method: str = "GET", body: Any = None) -> Answer:
        raise NotImplementedError


class HttpxSync(Caller):
    library: Any = httpx
    auth: Any = HttpxAuth

    async def call(self, url: str, method: str = "GET", body: Any = None) -> Answer:
        def call() -> Answer:
            with TokenClient.from_env(self.environ) as tokens:
                auth = self.auth(tokens, TARGET, origins=self.origins)
                with self.library.Client(auth=auth, follow_redirects=True) as client:
                    response = client.request(method, url, content=body)
                    return Answer(response.status_code, response.url.path)

        return await asyncio.to_thread(call)


class HttpxAsync(Caller):
    library: Any = httpx
    auth: Any = HttpxAuth

    async def call(self, url: str, method: str = "GET", body: Any = None) -> Answer:
        if isinstance(body, io.IOBase):
            pytest.skip("httpx's asynchronous client does not send files")
        if isinstance(body, Iterator):
            body = _asynchronous(body)
        async with AsyncTokenClient.from_env(self.environ) as tokens:
            auth = self.auth(tokens, TARGET, origins=self.origins)
            async with self.library.AsyncClient(auth=auth, follow_redirects=True) as client:
                response = await client.request(method, url, content=body)
                return Answer(response.status_code, response.url.path)


class Httpx2Sync(HttpxSync):
    library = httpx2
    auth = Httpx2Auth


class Httpx2Async(HttpxAsync):
    library = httpx2
    auth = Httpx2Auth


class Requests(Caller):
    async def call(self, url: str, method: str = "GET", body: Any = None) -> Answer:
        def call() -> Answer:
            with TokenClient.from_env(self.environ) as tokens, requests.Session() as session:
                session.auth = RequestsAuth(tokens, TARGET, origins=self.origins)
                response = session.request(method, url, data=body)
                return Answer(response.status_code, response.request.path_url)

        return await asyncio.to_thread(call)


class Aiohttp(Caller):
    async def call(self, url: str, method: str = "GET", body: Any = None) -> Answer:
        if isinstance(body, Iterator):
            body = _asynchronous(body)
        async with AsyncTokenClient.from_env(self.environ) as tokens:
            auth = AiohttpAuth(tokens, TARGET, origins=self.origins)
            async with (
                aiohttp.ClientSession(middlewares=[auth]) as session,
                session.request(method, url, data=body) as response,
            ):
                return Answer(response.status, response.url.path)


async def _asynchronous(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


CALLERS = [HttpxSync, HttpxAsync, Httpx2Sync, Httpx2Async, Requests, Aiohttp]


@pytest.fixture(params=CALLERS, ids=lambda caller: caller.__name__)
def caller(request: pytest.FixtureRequest, entra: Provider, api: Api) -> Caller:
    """Each HTTP client, which may send tokens to the API."""
    made: Caller = request.param(entra.environment(), [api.origin])
    return made


def issued(entra: Provider) -> int:
    return len(entra.requests)


async def test_requests_get_the_token(caller: Caller, api: Api, entra: Provider) -> None:
    """Of the API that is named, and the response comes back."""
    assert await caller.call(f"{api.origin}/cases") == Answer(200, "/cases")
    assert entra.requests[0].form["scope"] == SCOPE
    (token,) = api.tokens
    assert token is not None
    assert token.count(".") == 2


async def test_other_origins_get_no_token(
    caller: Caller, api: Api, foreign: Api, entra: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """None is even requested, and one warning names the origin."""
    assert (await caller.call(f"{foreign.origin}/")).status == 200
    assert foreign.tokens == [None]
    assert issued(entra) == 0
    warnings = [record for record in caplog.records if record.name == "entra_fast.tokens"]
    assert len(warnings) == 1
    assert warnings[0].levelno == logging.WARNING


async def test_redirects_within_the_origin_keep_the_token(caller: Caller, api: Api) -> None:
    """Such as those that add a slash."""
    api.script = [redirect("/cases/")]
    assert await caller.call(f"{api.origin}/cases") == Answer(200, "/cases/")
    first, second = api.tokens
    assert first == second is not None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_to_another_origin_lose_the_token(
    caller: Caller, api: Api, foreign: Api, status: int
) -> None:
    """Whatever the status."""
    api.script = [redirect(f"{foreign.origin}/elsewhere", status)]
    assert await caller.call(f"{api.origin}/cases") == Answer(200, "/elsewhere")
    assert api.tokens != [None]
    assert foreign.tokens == [None]


async def test_a_foreign_challenge_is_not_answered(
    caller: Caller, api: Api, foreign: Api, entra: Provider
) -> None:
    """A redirect leads to an origin that asks for a token: it gets none, and the provider is not asked."""
    api.script = [redirect(f"{foreign.origin}/elsewhere")]
    foreign.script = [challenge()]
    assert (await caller.call(f"{api.origin}/cases")).status == 401
    assert foreign.tokens == [None]
    assert issued(entra) == 1


@pytest.mark.parametrize("body", [None, b"content"], ids=["no body", "bytes"])
async def test_a_claims_challenge_is_answered_once(
    caller: Caller, api: Api, entra: Provider, body: bytes | None
) -> None:
    """A new token is requested with the challenge, and the request is repeated with its body."""
    api.script = [challenge()]
    answer = await caller.call(f"{api.origin}/cases?x=1", "POST" if body else "GET", body)
    assert answer.status == 200
    assert [one.body for one in api.received] == [body or b""] * 2
    assert [one.path for one in api.received] == ["/cases?x=1"] * 2
    first, second = api.tokens
    assert None not in (first, second)
    assert first != second
    assert [request.form.get("claims") for request in entra.requests] == [None, CLAIMS]


async def test_a_second_challenge_is_returned(caller: Caller, api: Api, entra: Provider) -> None:
    """There is one repetition, not a loop."""
    api.script = [challenge(), challenge(), challenge()]
    assert (await caller.call(f"{api.origin}/cases")).status == 401
    assert len(api.received) == 2
    assert issued(entra) == 2


@pytest.mark.parametrize(
    "field",
    [
        None,
        "Bearer",
        'Bearer error="invalid_token"',
        'Bearer error="insufficient_claims"',
        'Bearer error="insufficient_claims", claims="!!"',
        f'Bearer error="insufficient_claims", claims="{encoded("[]")}"',
        f'Basic realm="x", error="insufficient_claims", claims="{encoded(CLAIMS)}"',
    ],
)
async def test_other_refusals_are_returned(
    caller: Caller, api: Api, entra: Provider, field: str | None
) -> None:
    """At once: a new token would not help."""
    api.script = [web.Response(status=401, headers={} if field is None else {"WWW-Authenticate": field})]
    assert (await caller.call(f"{api.origin}/cases")).status == 401
    assert len(api.received) == issued(entra) == 1


async def test_a_challenge_of_another_status_is_no_challenge(
    caller: Caller, api: Api, entra: Provider
) -> None:
    """Only 401 asks for a token (RFC 9110, section 15.5.2)."""
    refused = challenge()
    refused.set_status(403)
    api.script = [refused]
    assert (await caller.call(f"{api.origin}/cases")).status == 403
    assert issued(entra) == 1


async def test_a_body_that_is_gone_is_not_repeated(caller: Caller, api: Api, entra: Provider) -> None:
    """A generator has been read: the refusal is returned."""
    api.script = [challenge()]
    assert (await caller.call(f"{api.origin}/cases", "POST", iter([b"a", b"b"]))).status == 401
    assert [one.body for one in api.received] == [b"ab"]
    assert issued(entra) == 1


async def test_a_file_is_sent_again_from_where_it_began(entra: Provider, api: Api) -> None:
    """Requests sends the rest of a file."""
    api.script = [challenge()]
    file = io.BytesIO(b"skipped content")
    file.seek(8)
    caller = Requests(entra.environment(), [api.origin])
    assert (await caller.call(f"{api.origin}/cases", "PUT", file)).status == 200
    assert [one.body for one in api.received] == [b"content", b"content"]


async def test_the_refusal_of_a_challenge_carries_it(caller: Caller, api: Api, entra: Provider) -> None:
    """The provider wants the user to sign in: the application needs the challenge for that."""
    api.script = [challenge()]
    await_token = entra.grant({"scope": SCOPE})
    entra.then(_granted(await_token), refuse(400, "interaction_required", "AADSTS50079: enrol"))
    with pytest.raises(ProviderError) as caught:
        await caller.call(f"{api.origin}/cases")
    assert caught.value.error == "interaction_required"
    assert caught.value.details["claims"] == CLAIMS


def _granted(document: dict[str, Any]) -> Callable[..., Awaitable[web.StreamResponse]]:
    async def script(*_: object) -> web.StreamResponse:
        return web.json_response(document)

    return script


async def test_a_redirect_after_the_renewal_has_the_new_token(
    caller: Caller, api: Api, entra: Provider
) -> None:
    """Not the one that was refused."""
    api.script = [challenge(), redirect("/cases/")]
    assert await caller.call(f"{api.origin}/cases") == Answer(200, "/cases/")
    first, second, third = api.tokens
    assert first != second == third


async def test_no_token_no_request(caller: Caller, api: Api, entra: Provider) -> None:
    """The provider's refusal is raised; the API is not called without a token."""
    entra.always = refuse(400, "invalid_grant")
    with pytest.raises(ProviderError):
        await caller.call(f"{api.origin}/cases")
    assert api.received == []


async def test_tokens_of_a_user(entra: Provider, api: Api) -> None:
    """What `for_user` returns takes the place of the client."""
    user = entra.mint(sub="ada")
    async with AsyncTokenClient.from_env(entra.environment()) as tokens:
        auth = HttpxAuth(tokens.for_user(user), TARGET, origins=[api.origin])
        async with httpx.AsyncClient(auth=auth) as client:
            await client.get(f"{api.origin}/")
    assert entra.requests[0].form["assertion"] == user
    assert api.tokens[0] not in (None, user)


async def test_the_wrong_kind_of_client(entra: Provider, api: Api) -> None:
    """Is an error that names the right one."""
    asynchronous = AsyncTokenClient.from_env(entra.environment())
    blocking = TokenClient.from_env(entra.environment())

    def call() -> None:
        auth = HttpxAuth(asynchronous, TARGET, origins=[api.origin])
        with httpx.Client(auth=auth) as client, pytest.raises(TypeError, match="pass a TokenClient"):
            client.get(api.origin)

    await asyncio.to_thread(call)
    async with httpx.AsyncClient(auth=HttpxAuth(blocking, TARGET, origins=[api.origin])) as client:
        with pytest.raises(RuntimeError, match="use AsyncTokenClient"):
            await client.get(api.origin)
    assert api.received == []


async def test_a_synchronous_source_for_an_asynchronous_client(api: Api) -> None:
    """Whatever it is."""

    class Source:
        def token(self, *_: object, **__: object) -> str:
            return "token"

    class Future:
        """Awaitable, and not a coroutine."""

        def token(self, *_: object, **__: object) -> Any:
            return asyncio.get_running_loop().create_future()

    auth: Any = HttpxAuth(Source(), TARGET, origins=[api.origin])  # type: ignore[arg-type]
    async with httpx.AsyncClient(auth=auth) as client:
        with pytest.raises(TypeError, match="pass an AsyncTokenClient"):
            await client.get(api.origin)
    future: Any = HttpxAuth(Future(), TARGET, origins=[api.origin])
    with pytest.raises(TypeError, match="pass a TokenClient"):
        next(future.sync_auth_flow(httpx.Request("GET", api.origin)))


async def test_the_headers_for_older_versions_of_aiohttp(entra: Provider, api: Api, foreign: Api) -> None:
    """For one URL, if its origin gets a token."""
    async with AsyncTokenClient.from_env(entra.environment()) as tokens:
        auth = AiohttpAuth(tokens, TARGET, origins=[api.origin])
        headers = await auth.headers(f"{api.origin}/cases")
        assert headers["Authorization"].startswith("Bearer ")
        assert await auth.headers(f"{foreign.origin}/cases") == {}


# --- from http to https on the same host, which httpx and Requests trust ---


class Upgrade(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Redirects to https, and calls the trace extension as httpcore does."""

    def __init__(self) -> None:
        self.seen: list[bytes | None] = []

    def _prepared(self, request: httpx.Request) -> tuple[Any, dict[str, Any]]:
        url = SimpleNamespace(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port)
        sent = SimpleNamespace(url=url, headers=list(request.headers.raw))
        return sent, {"request": sent}

    def _answer(self, request: httpx.Request, sent: Any) -> httpx.Response:
        self.seen.append({key.lower(): value for key, value in sent.headers}.get(b"authorization"))
        if request.url.scheme == "http":
            return httpx.Response(301, headers={"Location": "https://b.example/"})
        return httpx.Response(200)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent, info = self._prepared(request)
        for name in ("connection.connect_tcp.started", "http11.send_request_headers.started"):
            if (trace := request.extensions.get("trace")) is not None:
                trace(name, info if name.endswith("headers.started") else {})
        return self._answer(request, sent)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent, info = self._prepared(request)
        for name in ("connection.connect_tcp.started", "http11.send_request_headers.started"):
            if (trace := request.extensions.get("trace")) is not None:
                await trace(name, info if name.endswith("headers.started") else {})
        return self._answer(request, sent)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("origins", "kept"), [(["http://b.example"], False), (["http://b.example", "https://b.example"], True)]
)
async def test_httpx_does_not_take_the_token_along_to_https(
    entra: Provider, origins: list[str], kept: bool, traced: bool
) -> None:
    """Unless that origin is named as well. A trace of the program's own is called, too."""
    names: list[str] = []

    async def trace_async(name: str, _: dict[str, Any]) -> None:
        names.append(name)

    def trace(name: str, _: dict[str, Any]) -> None:
        names.append(name)

    transport = Upgrade()
    async with AsyncTokenClient.from_env(entra.environment()) as tokens:
        auth = HttpxAuth(tokens, TARGET, origins=origins)
        async with httpx.AsyncClient(auth=auth, transport=transport, follow_redirects=True) as client:
            await client.get("http://b.example/", extensions={"trace": trace_async} if traced else {})

    def call() -> None:
        with TokenClient.from_env(entra.environment()) as tokens:
            auth = HttpxAuth(tokens, TARGET, origins=origins)
            with httpx.Client(auth=auth, transport=transport, follow_redirects=True) as client:
                client.get("http://b.example/", extensions={"trace": trace} if traced else {})

    await asyncio.to_thread(call)
    assert [token is not None for token in transport.seen] == [True, kept, True, kept]
    assert len(names) == (8 if traced else 0)


class Plain(requests.adapters.BaseAdapter):
    """Redirects to https."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> requests.Response:
        self.seen.append(request.headers.get("Authorization"))
        response = requests.Response()
        response.request, response.url, response.raw = request, request.url or "", io.BytesIO()
        response.status_code = 200
        if response.url.startswith("http://"):
            response.status_code = 301
            response.headers["Location"] = "https://b.example/"
        cast(Any, response).connection = self
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("origins", "kept"), [(["http://b.example"], False), (["http://b.example", "https://b.example"], True)]
)
def test_requests_does_not_take_the_token_along_to_https(
    entra: Provider, origins: list[str], kept: bool
) -> None:
    """Unless that origin is named as well."""
    adapter = Plain()
    with TokenClient.from_env(entra.environment()) as tokens, requests.Session() as session:
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.auth = RequestsAuth(tokens, TARGET, origins=origins)
        session.get("http://b.example/")
    assert [token is not None for token in adapter.seen] == [True, kept]


# --- origins and challenges by themselves ---


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://b.example", ("https", "b.example", None)),
        ("https://b.example/", ("https", "B.Example", 443)),
        ("HTTPS://B.example:443", ("https", "b.example", None)),
        ("https://b.example:8443", ("https", "b.example", 8443)),
        ("http://app-b.team-b", ("http", "app-b.team-b", 80)),
        ("http://127.0.0.1:8080", ("http", "127.0.0.1", 8080)),
        ("http://[::1]:8080", ("http", "[::1]", 8080)),
        ("http://[::1]:8080", ("http", "::1", 8080)),
    ],
)
def test_origins_that_match(origin: str, url: tuple[str, str, int | None]) -> None:
    """Without regard to case; the default port may be written."""
    assert Origins(origin).allow(*url)


@pytest.mark.parametrize(
    "url",
    [
        ("http", "b.example", None),
        ("http", "b.example", 443),
        ("https", "b.example", 8443),
        ("https", "a.b.example", None),
        ("https", "b.example.evil.example", None),
        ("https", "b.example.", None),
        ("https", "", None),
        ("https", None, None),
        ("ftp", "b.example", None),
    ],
)
def test_origins_that_do_not_match(url: tuple[str, str | None, int | None]) -> None:
    """Scheme, host and port are all compared."""
    assert not Origins(["https://b.example"]).allow(*url)


def test_a_url_that_requests_cannot_read(api: Api) -> None:
    """Gets no token; Requests itself refuses it."""
    prepared = requests.PreparedRequest()
    prepared.url = "http://[::1"
    prepared.headers = requests.structures.CaseInsensitiveDict()
    source: Any = None
    assert RequestsAuth(source, TARGET, origins=[api.origin])(prepared).headers == {}


@pytest.mark.parametrize(
    "origins",
    [
        [],
        "",
        [""],
        ["b.example"],
        ["*"],
        ["https://*.example"],
        ["https://b.example/path"],
        ["https://b.example?x"],
        ["https://user@b.example"],
        ["https://b.example:0"],
        ["https://b.example:99999"],
        ["https://å.example"],
        ["ftp://b.example"],
        ["https://b.example\n"],
        [None],
    ],
)
def test_origins_that_are_none(origins: Any) -> None:
    """Are an error at construction."""
    with pytest.raises(ConfigurationError) as caught:
        Origins(origins)
    assert caught.value.code == "origin_invalid"
    assert caught.value.setting == "origins"


def test_warnings_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """One for each origin, and not for any number of them."""
    origins = Origins(["https://b.example"])
    for _ in range(2):
        for number in range(200):
            origins.allow("https", f"{number}.example", None)
    assert len(caplog.records) == 100


GOOD = f'error="insufficient_claims", claims="{encoded(CLAIMS)}"'


@pytest.mark.parametrize(
    "fields",
    [
        [f"Bearer {GOOD}"],
        [f"bearer   {GOOD}"],
        [f'Bearer realm="a, b=\\"c\\"", {GOOD}'],
        [f'Bearer claims="{encoded(CLAIMS).rstrip("=")}", error=insufficient_claims'],
        [f"Negotiate, Bearer {GOOD}"],
        [f"Negotiate YWJj==, Bearer {GOOD}"],
        [f"Bearer YWJj==, Bearer {GOOD}"],
        ["Negotiate YWJj==", f"Bearer {GOOD}"],
        [f'Basic realm="x", Bearer {GOOD}'],
        [f'Bearer error="invalid_token", Bearer {GOOD}'],
        ['Basic realm="x"', f"Bearer {GOOD}"],
        [f"Bearer {GOOD}, Basic realm=x"],
        [f", ,Bearer {GOOD},"],
        [f'Bearer error = "insufficient_claims" ,claims = "{encoded(CLAIMS)}"'],
    ],
)
def test_challenges_that_are_found(fields: list[str]) -> None:
    """In every form that RFC 9110 allows, and with the padding that is often left out."""
    assert claims_challenge(fields) == CLAIMS


def test_a_challenge_in_base64url() -> None:
    """Microsoft's documentation has both alphabets."""
    claims = '{"a":"???>>>~~~"}'
    text = base64.urlsafe_b64encode(claims.encode()).decode()
    assert "_" in text or "-" in text
    assert claims_challenge([f'Bearer error="insufficient_claims", claims="{text}"']) == claims


@pytest.mark.parametrize(
    "field",
    [
        "",
        ",,,",
        "Bearer",
        f"Bearer{GOOD}",
        f"Basic {GOOD}",
        f'Bearer claims="{encoded(CLAIMS)}"',
        'Bearer error="insufficient_claims", claims="e30',
        'Bearer error="insufficient_claims", claims="%%%"',
        'Bearer error="insufficient_claims", claims="AAAA"',
        f'Bearer error="insufficient_claims", claims="{encoded(json.dumps({"a": "x" * 9000}))}"',
        f'Bearer error="insufficient_claims", claims="{"A" * 20000}"',
        "Bearer " + "a=b, " * 20000,
        'Bearer "' * 20000,
    ],
)
def test_challenges_that_are_none(field: str) -> None:
    """Malformed, too large or of another kind: there is nothing to answer."""
    assert claims_challenge([field]) is None


# --- azure-core ---


async def test_clients_of_the_azure_sdk_take_it(entra: Provider, api: Api) -> None:
    """The real policy of azure-core gets tokens, answers a challenge with a new one, and closes the
    credential."""
    url = f"{api.origin}/blobs"

    def call() -> int:
        with TokenClient.from_env(entra.environment()) as tokens:
            policy: Any = BearerTokenCredentialPolicy(tokens, SCOPE)
            with Pipeline(RequestsTransport(), [policy]) as pipeline:
                request = HttpRequest("GET", url)
                return int(pipeline.run(request, enforce_https=False).http_response.status_code)

    api.script = [challenge()]
    assert await asyncio.to_thread(call) == 200
    assert [request.form.get("claims") for request in entra.requests] == [None, CLAIMS]
    assert api.tokens[0] != api.tokens[1]
    async with AsyncTokenClient.from_env(entra.environment()) as tokens:
        policy: Any = AsyncBearerTokenCredentialPolicy(tokens, SCOPE)
        async with AsyncPipeline(AioHttpTransport(), [policy]) as pipeline:
            api.script = [challenge()]
            answer = await pipeline.run(HttpRequest("GET", url), enforce_https=False)
            assert answer.http_response.status_code == 200
    assert [request.form.get("claims") for request in entra.requests[2:]] == [None, CLAIMS]


async def test_the_tenant_of_a_bound_user(entra: Provider) -> None:
    """Is that of the client, for threads too."""
    user = entra.mint(sub="ada")

    def call() -> None:
        with TokenClient.from_env(entra.environment()) as tokens, tokens.for_user(user) as bound:
            assert bound.get_token(SCOPE, tenant_id=TENANT).token
            with pytest.raises(EntraFastError) as caught:
                bound.get_token(SCOPE, tenant_id="another")
            assert caught.value.code == "tenant_mismatch"

    await asyncio.to_thread(call)


async def test_the_interface_of_azure_core(entra: Provider) -> None:
    """`get_token` and `get_token_info`, for the application and for a user; another tenant is refused."""
    async with AsyncTokenClient.from_env(entra.environment()) as tokens:
        first = await tokens.get_token(SCOPE, enable_cae=True, tenant_id=TENANT.upper())
        info = await tokens.get_token_info(SCOPE, options={"enable_cae": True, "tenant_id": TENANT})
        assert first.token == info.token
        # Whole seconds of the present time and of what is left, which pass a second at different moments.
        assert abs(first.expires_on - info.expires_on) <= 1
        assert info.refresh_on is not None
        assert info.expires_on > info.refresh_on > info.expires_on - 3600
        assert first.token not in repr(first) + repr(info)
        user = tokens.for_user(entra.mint(sub="ada"))
        assert (await user.get_token(SCOPE)).token != first.token
        for scopes in ((), (SCOPE, SCOPE)):
            with pytest.raises(EntraFastError) as caught:
                await tokens.get_token(*scopes)
            assert caught.value.code == "scopes_invalid"
        with pytest.raises(EntraFastError) as caught:
            await user.get_token_info(SCOPE, options={"tenant_id": "another"})
        assert caught.value.code == "tenant_mismatch"
        await tokens.close()


def test_the_tenant_behind_a_sidecar(sidecar: dict[str, str]) -> None:
    """Is known from the environment or by argument; else a client that asks for one is told so."""
    urls = sidecar["NAIS_TOKEN_ENDPOINT"], sidecar["NAIS_TOKEN_EXCHANGE_ENDPOINT"]
    with TokenClient.from_env(sidecar) as tokens:
        with pytest.raises(EntraFastError, match="pass tenant_id") as caught:
            tokens.get_token(SCOPE, tenant_id=TENANT)
        assert caught.value.code == "tenant_mismatch"
        assert tokens.for_user("x").get_token_info is not None
    with TokenClient.from_sidecar(*urls, tenant_id=TENANT) as tokens:
        assert tokens.get_token(SCOPE, tenant_id=TENANT).token
    with TokenClient.from_env({**sidecar, "AZURE_APP_TENANT_ID": TENANT}) as tokens:
        assert tokens.get_token_info(SCOPE, options={"tenant_id": TENANT}).token
