"""Starlette on uvicorn: the middleware, endpoints with requirements of their own, websockets, life cycle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from entra_fast import Require
from entra_fast.integrations import _guard, asgi
from entra_fast.integrations.starlette import EntraID
from support.bearer import (
    METADATA,
    NON_ASCII,
    OID,
    READER,
    SITUATIONS,
    STEP_UP,
    USER,
    Services,
    Situation,
    async_validator,
    bearer,
    send,
    services,
    token,
    uvicorn_server,
)


def application(entra: EntraID) -> Starlette:
    async def cases(request: Request) -> JSONResponse:
        claims = entra.claims(request)
        return JSONResponse({"oid": None if claims is None else claims.object_id})

    @entra.require(STEP_UP)
    def step_up(request: Request) -> JSONResponse:
        claims = entra.claims(request)
        return JSONResponse({"oid": claims and claims["oid"]})

    class Reader(HTTPEndpoint):
        @entra.require(READER)
        async def get(self, request: Request) -> JSONResponse:
            return await cases(request)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        claims = entra.claims(websocket)
        await websocket.send_text(claims.object_id or "" if claims else "")
        await websocket.close()

    async def lists(request: Request) -> PlainTextResponse:
        return PlainTextResponse("listed")

    routes = [
        Route("/cases", cases, methods=["GET", "POST"]),
        Route("/reader", Reader),
        Route("/step-up", step_up),
        Route("/healthz", cases),
        WebSocketRoute("/ws", echo),
        WebSocketRoute("/ws-reader", entra.require(READER)(echo)),
        Mount("/mounted", Starlette(routes=[Route("/cases", cases), Route("/healthz", lists)])),
        Route("/static/{path:path}", lists),
    ]
    cors = Middleware(
        CORSMiddleware, allow_origins=["https://other.example"], expose_headers=["WWW-Authenticate"]
    )
    guard = Middleware(entra.middleware, exclude=["/static/*"])
    return Starlette(routes=routes, lifespan=entra.lifespan, middleware=[cors, guard])


@contextmanager
def serve(service: str) -> Iterator[str]:
    with async_validator(service) as validator:
        optional = service == "optional"
        metadata = METADATA if optional else None
        entra = EntraID(validator, exclude=["/healthz"], optional=optional, resource_metadata=metadata)
        with uvicorn_server(application(entra)) as url:
            yield url


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    with services(serve) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_situations(running: Services, situation: Situation) -> None:
    """Every situation of the table."""
    response = running.run(situation)
    if response.status in (400, 401, 403, 503) and situation.method != "HEAD":
        assert response.headers["Content-Type"] == "application/json"
        assert set(response.json) == {"error", "error_description"}


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 401),
        ("/mounted/cases", 401),
        ("/mounted/healthz", 401),  # what is excluded is the path of this application, not of another
        ("/healthz/", 401),
        ("/healthzx", 401),
        ("/static/a/b.css", 200),
        ("/static", 401),
        ("/staticx/a", 401),
        ("/static/../cases", 401),
        ("/static/%2e%2e/cases", 401),
        ("/static/..", 401),
        ("//healthz", 401),
        ("/cases?/healthz", 401),
    ],
)
def test_exclusions_end_at_a_segment(running: Services, path: str, status: int) -> None:
    """A path is excluded exactly, or below an excluded one; another application's path is not."""
    assert send(running.urls["normal"], path).status == status


def test_host_does_not_decide(running: Services) -> None:
    """A forged `Host` cannot make a path look excluded (CVE-2026-48710)."""
    assert send(running.urls["normal"], "/cases", ("Host", "x/healthz?")).status in (400, 401)


def test_an_ordinary_options_request_is_protected(running: Services) -> None:
    """Only a CORS preflight request is let through: others can reach handlers."""
    assert send(running.urls["normal"], "/cases", method="OPTIONS").status == 401
    half = ("Origin", "https://other.example")
    assert send(running.urls["normal"], "/cases", half, method="OPTIONS").status == 401


def test_a_browser_can_read_a_refusal(running: Services) -> None:
    """With the middleware for CORS in front."""
    response = send(running.urls["normal"], "/cases", ("Origin", "https://other.example"))
    assert response.status == 401
    assert response.headers["Access-Control-Allow-Origin"] == "https://other.example"
    assert response.headers["Access-Control-Expose-Headers"] == "WWW-Authenticate"


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        ("/ws", None, 401),
        ("/ws", "Bearer abc", 401),
        ("/ws", "Bearer a b", 400),
        ("/ws-reader", f"Bearer {token()}", 403),
    ],
)
def test_a_websocket_is_refused_before_it_is_accepted(
    running: Services, path: str, value: str | None, status: int
) -> None:
    """By a denial response with the same challenge as for HTTP."""
    headers = {} if value is None else {"Authorization": value}
    url = running.urls["normal"].replace("http", "ws") + path
    with pytest.raises(InvalidStatus) as caught, connect(url, additional_headers=headers):
        pass
    assert caught.value.response.status_code == status
    assert caught.value.response.headers["WWW-Authenticate"].startswith('Bearer realm="api"')


def test_a_websocket_with_a_token(running: Services) -> None:
    """The claims are at hand as in a request."""
    headers = dict([bearer(token(roles=["reader"]))])
    for path in ("/ws", "/ws-reader"):
        url = running.urls["normal"].replace("http", "ws") + path
        with connect(url, additional_headers=headers) as websocket:
            assert websocket.recv() == OID


async def test_a_server_without_denial_responses_closes_the_websocket() -> None:
    """Before it is accepted, so the server responds with 403."""
    with async_validator("normal") as validator:
        app = EntraID(validator).middleware(application(EntraID(validator)))
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send_message(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/ws", "headers": [], "root_path": ""}
        await app(scope, receive, send_message)
        assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/healthz", "", "/healthz"),
        ("/api/healthz", "/api", "/healthz"),
        ("/apis/healthz", "/api", "/apis/healthz"),
        ("/healthz", "/api", "/healthz"),
        ("/api", "/api", ""),
    ],
)
def test_the_path_is_that_of_the_router(path: str, root: str, expected: str) -> None:
    """`root_path` ends at a segment."""
    assert asgi.router_path({"path": path, "root_path": root}) == expected


def test_the_middleware_alone_fetches_keys_when_the_server_starts() -> None:
    """It handles `lifespan` itself: keys are there before the first request, and fetching ends with the
    server."""
    with async_validator("normal") as validator:
        entra = EntraID(validator)

        async def ready(request: Request) -> JSONResponse:
            return JSONResponse({"ready": validator.ready})

        app = entra.middleware(Starlette(routes=[Route("/", ready)]))
        with uvicorn_server(app) as url:
            assert send(url, "/", bearer(token())).json == {"ready": True}


def test_a_missing_setting_is_found_when_the_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when a module is imported, and not at the first request."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_APP_WELL_KNOWN_URL", "AZURE_OPENID_CONFIG_ISSUER"):
        monkeypatch.delenv(name, raising=False)
    entra = EntraID()
    with pytest.raises(AssertionError, match="did not start"), uvicorn_server(application(entra)):
        pass


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"exclude": "/healthz"}, TypeError),
        ({"exclude": ["healthz"]}, ValueError),
        ({"exclude": ["/*"]}, ValueError),
        ({"exclude": ["/a*"]}, ValueError),
        ({"exclude": ["/*/a"]}, ValueError),
        ({"exclude": [None]}, TypeError),
        ({"require": "reader"}, TypeError),
        ({"optional": 1}, TypeError),
        ({"realm": 'a"b'}, ValueError),
        ({"validator": object()}, TypeError),
    ],
)
def test_wiring_mistakes_are_found_at_once(arguments: dict[str, Any], kind: type[Exception]) -> None:
    """When the object is made."""
    with pytest.raises(kind):
        EntraID(**arguments)


def test_a_request_that_passed_no_middleware() -> None:
    """Its claims are not None, as if none were needed, but an error that says what is missing."""
    with pytest.raises(RuntimeError, match="add the middleware"):
        EntraID().claims({"type": "http"})
    with pytest.raises(TypeError, match="takes a Require"):
        EntraID().require("reader")  # type: ignore[arg-type]


def test_nothing_of_a_token_is_logged(
    running: Services, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line has the outcome, the path and the calling application."""
    monkeypatch.setattr(_guard, "_lines", _guard._Lines())
    caplog.set_level(logging.DEBUG)
    refused = token(**USER, scp="cases.write")
    send(running.urls["normal"], "/reader", bearer(refused))
    send(running.urls["normal"], "/cases", bearer(refused[:-8] + "AAAAAAAA"))
    ours = [record.getMessage() for record in caplog.records if record.name == "entra_fast.bearer"]
    azp = "azp='cccccccc-0000-0000-0000-000000000000'"
    assert f"request refused: scope_missing path='/reader' {azp}" in ours
    assert any(line.startswith("request refused: signature_invalid path='/cases'") for line in ours)
    everything = "".join(record.getMessage() for record in caplog.records)
    assert not any(part in everything for part in refused.split("."))


def test_another_validator_for_a_test() -> None:
    """`use` swaps it in the whole application, and undoes that."""
    with async_validator("down") as down, async_validator("normal") as normal:
        entra = EntraID(down)
        with uvicorn_server(application(entra)) as url:
            assert send(url, "/cases", bearer(token())).status == 503
            with entra.use(normal):
                assert send(url, "/cases", bearer(token())).status == 200
            assert send(url, "/cases", bearer(token())).status == 503


def test_a_requirement_for_every_route() -> None:
    """`require` of the integration holds wherever no endpoint has more."""
    with async_validator("normal") as validator:
        entra = EntraID(validator, require=Require(app=True))
        with uvicorn_server(application(entra)) as url:
            assert send(url, "/cases", bearer(token())).status == 200
            assert send(url, "/cases", bearer(token(**USER, scp="x"))).status == 403
