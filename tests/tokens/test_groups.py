"""`claims.groups_complete`: all groups of a user, from the token or from Microsoft Graph, never from the
address in the token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from aiohttp import web

from entra_fast import _clock, _groups
from entra_fast._claims import ClaimsView
from entra_fast._native import Claims
from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from entra_fast.testing import UnverifiedClaims
from entra_fast.tokens import AsyncTokenClient, AsyncUserTokens, TokenClient
from entra_fast.validate import Validator
from support.local_entra import Caller, local_entra, manifest, served

IDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(205)]
OTHER = "00000000-0000-4000-8000-00000000ffff"
APP = "app"


def directory() -> str:
    groups = [{"name": f"g{number}", "id": value} for number, value in enumerate([*IDS, OTHER])]
    users = [
        {"name": "Many", "username": "many@t.no", "groups": [group["name"] for group in groups]},
        {"name": "Few", "username": "few@t.no", "groups": ["g0", "g205"]},
    ]
    return json.dumps({"tenant": "t.no", "groups": groups, "users": users})


@pytest_asyncio.fixture
async def entra() -> AsyncIterator[Caller]:
    """A local Entra ID in which one user has too many groups for a token."""
    app = manifest(APP, groups=IDS, replyURLs=["http://localhost:3001/oauth2/callback"])
    async with served(local_entra([app], directory())) as caller:
        yield caller


class Service:
    """The application: it verifies a user's token, and has token clients."""

    def __init__(self, entra: Caller, token: str) -> None:
        self.entra = entra
        self.token = token
        environment = entra.local.environment("dev-gcp:team:app")
        self.client = AsyncTokenClient.from_env(environment)
        self.blocking = TokenClient.from_env(environment)
        keys = entra.local.keyring.key_set
        issuer, audience = environment["AZURE_OPENID_CONFIG_ISSUER"], environment["AZURE_APP_CLIENT_ID"]
        with Validator(issuer, audience, jwks=keys) as validator:
            self.claims: Claims = validator.validate(token)

    @property
    def tokens(self) -> AsyncUserTokens:
        return self.client.for_user(self.token)

    def journal(self) -> tuple[Any, ...]:
        return self.entra.local.journal.entries()

    async def close(self) -> None:
        await self.client.close()
        await asyncio.to_thread(self.blocking.close)


@pytest_asyncio.fixture
async def service(entra: Caller) -> AsyncIterator[Service]:
    """With the token of the user who has too many groups."""
    made = Service(entra, await entra.user_token(APP, "many"))
    yield made
    await made.close()


class Graph:
    """A Graph with scripted answers, one for each request."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = []
        self.seen: list[tuple[str, str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append((request.method, request.path, await request.text()))
        assert request.headers["Authorization"].startswith("Bearer ey")
        return self.answers.pop(0)

    def page(self, ids: list[Any], following: str | None = None) -> None:
        document: dict[str, Any] = {"value": ids}
        if following is not None:
            document["@odata.nextLink"] = following
        self.answers.append(web.json_response(document))


@pytest_asyncio.fixture
async def graph() -> AsyncIterator[Graph]:
    """It is served on a free port."""
    fake = Graph()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def test_groups_overage_is_resolved(service: Service) -> None:
    """By the Graph of the token's issuer: every group, also those that are not assigned to the application.
    By both clients, and for claims of an introspection."""
    assert service.claims.has_groups_overage
    assert service.claims.groups == ()
    groups = await service.claims.groups_complete(service.tokens)
    assert sorted(groups) == [*IDS, OTHER]
    blocking = service.blocking.for_user(service.token)
    assert sorted(await asyncio.to_thread(service.claims.groups_complete, blocking)) == [*IDS, OTHER]
    view = ClaimsView(service.claims.as_json())
    assert await view.groups_complete(service.tokens, security_enabled_only=True) == groups


async def test_groups_of_the_token_need_no_request(entra: Caller) -> None:
    """Without overage they are `groups`, whatever the tokens are; Graph and token endpoint are not asked."""
    service = Service(entra, await entra.user_token(APP, "few"))
    before = len(service.journal())
    assert await service.claims.groups_complete(service.tokens) == service.claims.groups == (IDS[0],)
    assert len(service.journal()) == before
    elsewhere = UnverifiedClaims(json.dumps({"iss": "https://issuer.example", "groups": ["x", 5]}))
    assert elsewhere.groups_complete(service.blocking.for_user("x")) == ("x",)
    await service.close()


async def test_groups_are_remembered_for_a_while(
    service: Service, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per user and token client, for `max_age`; 0 asks each time."""
    now = 1000.0
    monkeypatch.setattr(_clock, "monotonic", lambda: now)
    for number in range(4):
        graph.page([IDS[number]])
    claims, options = service.claims, cast("Any", {"graph": graph.url})
    assert await claims.groups_complete(service.tokens, **options) == (IDS[0],)
    assert await claims.groups_complete(service.tokens, **options) == (IDS[0],)
    assert await claims.groups_complete(service.tokens, security_enabled_only=True, **options) == (IDS[1],)
    assert await claims.groups_complete(service.tokens, max_age=0, **options) == (IDS[2],)
    now += 301
    assert await claims.groups_complete(service.tokens, **options) == (IDS[3],)
    assert [json.loads(body) for _, _, body in graph.seen] == [
        {"securityEnabledOnly": False},
        {"securityEnabledOnly": True},
        {"securityEnabledOnly": False},
        {"securityEnabledOnly": False},
    ]
    path = f"/v1.0/users/{claims.object_id}/getMemberObjects"
    assert {(method, where) for method, where, _ in graph.seen} == {("POST", path)}


async def test_the_address_in_the_token_is_never_called(entra: Caller, graph: Graph) -> None:
    """Nor is anything else that the token names; a forged token leads nowhere."""
    sources = {"src1": {"endpoint": f"{graph.url}/x/getMemberObjects"}}
    claims = {"_claim_names": {"groups": "src1"}, "_claim_sources": sources}
    forged = entra.local.forge("dev-gcp:team:app", user="few", claims={**claims, "groups": None})
    service = Service(entra, forged.token)
    assert sorted(await service.claims.groups_complete(service.tokens)) == [IDS[0], OTHER]
    assert graph.seen == []
    await service.close()


async def test_pages_are_followed_within_bounds(
    service: Service, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At Graph only; too many pages, and too many groups, are errors rather than a part of the groups."""
    graph.page(IDS[:2], f"{graph.url}/v1.0/more")
    graph.page([IDS[2].upper(), IDS[0]])
    ask: Any = {"graph": graph.url, "max_age": 0}
    assert await service.claims.groups_complete(service.tokens, **ask) == tuple(IDS[:3])
    assert graph.seen[1][:2] == ("GET", "/v1.0/more")
    graph.page(IDS[:2], "http://127.0.0.1:1/v1.0/more")
    with pytest.raises(ProviderError, match="next page is not at Microsoft Graph"):
        await service.claims.groups_complete(service.tokens, **ask)
    monkeypatch.setattr(_groups, "MAX_PAGES", 2)
    for _ in range(2):
        graph.page([], f"{graph.url}/v1.0/more")
    with pytest.raises(ProviderError) as caught:
        await service.claims.groups_complete(service.tokens, **ask)
    assert caught.value.code == "groups_too_many"
    monkeypatch.setattr(_groups, "MAX_GROUPS", 3)
    graph.page(IDS[:4])
    with pytest.raises(ProviderError) as caught:
        await service.claims.groups_complete(service.tokens, **ask)
    assert caught.value.code == "groups_too_many"


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (
            {"status": 403, "text": '{"error": {"code": "Authorization_RequestDenied"}}'},
            "graph_refused",
            "403 (Auth",
        ),
        (
            {"status": 400, "text": '{"error": {"code": "<script>"}}'},
            "graph_refused",
            "the user's groups: 400",
        ),
        ({"status": 503, "text": "<html>"}, "graph_unavailable", "answered 503"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, "graph_unavailable", "answered 429"),
        ({"text": "nonsense"}, "graph_response_invalid", "expected a JSON object"),
        ({"text": '{"value": ["x"]}'}, "graph_response_invalid", "expected a list of object ids"),
        ({"text": '{"value": {}}'}, "graph_response_invalid", "expected a list of object ids"),
        ({"text": '{"value": [], "@odata.nextLink": 5}'}, "graph_response_invalid", "is not a text"),
        (
            {"status": 302, "headers": {"Location": "https://elsewhere.invalid/"}},
            "graph_unavailable",
            "cannot be",
        ),
    ],
)
async def test_answers_that_cannot_be_used(
    service: Service, graph: Graph, answer: dict[str, Any], code: str, sentence: str
) -> None:
    """Each is an error with a stable code; nothing is remembered, and the next answer counts."""
    graph.answers.append(web.Response(**answer))
    with pytest.raises(ProviderError) as caught:
        await service.claims.groups_complete(service.tokens, graph=graph.url)
    assert caught.value.code == code
    assert sentence in str(caught.value)
    assert caught.value.retry_after == (7 if "headers" in answer and answer["status"] == 429 else None)
    assert service.token not in str(caught.value)
    graph.page([IDS[0]])
    assert await service.claims.groups_complete(service.tokens, graph=graph.url) == (IDS[0],)


async def test_a_graph_that_is_not_there(service: Service) -> None:
    """And a token that is not issued."""
    with pytest.raises(ProviderError) as caught:
        await service.claims.groups_complete(service.tokens, graph="http://127.0.0.1:1")
    assert (caught.value.code, caught.value.status) == ("graph_unavailable", 503)
    service.entra.local.faults.add("aadsts", value=50076, count=1)
    new = AsyncTokenClient.from_env(service.entra.local.environment("dev-gcp:team:app"))
    with pytest.raises(ProviderError) as caught:
        await service.claims.groups_complete(new.for_user(service.token))
    await new.close()
    assert caught.value.code == "provider_refused"


OVERAGE = {"_claim_names": {"groups": "src1"}, "oid": IDS[0], "tid": "t"}


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("https://login.microsoftonline.com/t/v2.0", "https://graph.microsoft.com"),
        ("https://sts.windows.net/t/", "https://graph.microsoft.com"),
        ("https://t.ciamlogin.com/t/v2.0", "https://graph.microsoft.com"),
        ("https://login.microsoftonline.us/t/v2.0", "https://graph.microsoft.us"),
        ("https://login.partner.microsoftonline.cn/t/v2.0", "https://microsoftgraph.chinacloudapi.cn"),
        ("http://127.0.0.1:8080/t/v2.0", "http://127.0.0.1:8080"),
        ("https://localhost/t/v2.0", "https://localhost"),
    ],
)
def test_the_graph_of_an_issuer(issuer: str, expected: str) -> None:
    """Public, national, or the local Entra ID's; a look-alike has none."""
    assert _groups._graph_of({"iss": issuer}) == expected
    with pytest.raises(ConfigurationError, match="graph is required"):
        _groups._graph_of({"iss": issuer.replace("/t", ".example/t", 1).replace(":8080", "")})


@pytest.mark.parametrize(
    ("claims", "options", "error", "sentence"),
    [
        (OVERAGE, {"graph": "graph.microsoft.com"}, ConfigurationError, "graph must be https://host"),
        (OVERAGE, {"graph": "http://graph"}, ConfigurationError, "graph must be https://host"),
        (OVERAGE, {"graph": "https://graph/beta"}, ConfigurationError, "graph must be https://host"),
        (OVERAGE, {"graph": 5}, ConfigurationError, "graph must be https://host"),
        (OVERAGE, {"max_age": -1}, ConfigurationError, "max_age must be seconds, from 0 to 3600"),
        (OVERAGE, {"max_age": 3601}, ConfigurationError, "max_age must be seconds"),
        (OVERAGE, {"url": "x"}, TypeError, "unexpected keyword argument 'url'"),
        ({**OVERAGE, "oid": "../me"}, {}, EntraFastError, "the token has no user"),
        ({**OVERAGE, "idtyp": "app"}, {}, EntraFastError, "the token has no user"),
    ],
)
def test_mistakes(
    claims: dict[str, Any], options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """Of the caller, before anything is requested."""
    tokens = TokenClient.from_provider(client_id="c", client_secret="s" * 16, tenant_id=IDS[0]).for_user("t")
    view = UnverifiedClaims(json.dumps({"iss": "http://127.0.0.1:1/t/v2.0", **claims}))
    with pytest.raises(error, match=sentence):
        view.groups_complete(tokens, **options)


def test_the_application_s_own_tokens_are_refused() -> None:
    """They would ask Graph with the rights of the application."""
    client: Any = TokenClient.from_provider(client_id="c", client_secret="s" * 16, tenant_id=IDS[0])
    with pytest.raises(TypeError, match="needs the tokens of the user"):
        UnverifiedClaims(json.dumps(OVERAGE)).groups_complete(client)
