"""aiohttp's own server: the middleware, handlers with requirements of their own, sub-applications, life
cycle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from aiohttp import web

from entra_fast import Claims, Require
from entra_fast.integrations.aiohttp import EntraID
from entra_fast.validate import AsyncValidator
from support.bearer import (
    METADATA,
    NON_ASCII,
    OID,
    READER,
    SITUATIONS,
    STEP_UP,
    Services,
    Situation,
    aiohttp_server,
    async_validator,
    bearer,
    send,
    services,
    token,
)
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer


def application(entra: EntraID) -> web.Application:
    async def cases(request: web.Request) -> web.Response:
        claims: Claims | None = request[entra.CLAIMS]
        assert claims is entra.claims(request)
        return web.json_response({"oid": None if claims is None else claims.object_id})

    class Reader(web.View):
        @entra.require(READER)
        async def get(self) -> web.Response:
            return await cases(self.request)

    async def socket(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str(OID)
        await response.close()
        return response

    async def preflight(_: web.Request) -> web.Response:
        return web.Response(headers={"Access-Control-Allow-Origin": "https://other.example"})

    app = web.Application()
    entra.setup(app)
    app.router.add_get("/cases", cases)
    app.router.add_post("/cases", cases)
    app.router.add_options("/cases", preflight)
    app.router.add_view("/reader", Reader)
    app.router.add_get("/step-up", entra.require(STEP_UP)(cases))
    app.router.add_get("/healthz", cases)
    app.router.add_get("/ws", socket)
    app.router.add_get("/{anything}", cases)
    return app


@contextmanager
def serve(service: str) -> Iterator[str]:
    with async_validator(service) as validator:
        optional = service == "optional"
        metadata = METADATA if optional else None
        entra = EntraID(
            validator, exclude=["/healthz", "/static/*"], optional=optional, resource_metadata=metadata
        )
        with aiohttp_server(lambda: application(entra)) as url:
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
        assert response.headers["Content-Type"].startswith("application/json")
        assert set(response.json) == {"error", "error_description"}


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)


@pytest.mark.parametrize("path", ["/nothing/x", "/healthz/", "/static%2Fcases", "/healthz%2F"])
def test_what_is_not_excluded_is_protected(running: Services, path: str) -> None:
    """Unknown paths, too. An encoded slash makes no path of another one: the router does not decode it
    either."""
    assert send(running.urls["normal"], path).status == 401


def test_an_ordinary_options_request_is_protected(running: Services) -> None:
    """Only a CORS preflight request is let through."""
    assert send(running.urls["normal"], "/cases", method="OPTIONS").status == 401


async def test_websockets(running: Services) -> None:
    """They are refused before the upgrade."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(running.urls["normal"] + "/ws")
        assert caught.value.status == 401
        async with session.ws_connect(
            running.urls["normal"] + "/ws", headers=dict([bearer(token())])
        ) as socket:
            assert await socket.receive_str() == OID


def test_a_sub_application() -> None:
    """The middlewares of both run. The same object checks once; another one has its own requirement."""
    with async_validator("normal") as validator, async_validator("normal") as other:
        entra, stricter = EntraID(validator), EntraID(other, require=Require(role="reader"))

        def make() -> web.Application:
            app, same, more = application(entra), application(entra), application(stricter)
            app.add_subapp("/same/", same)
            app.add_subapp("/more/", more)
            return app

        with aiohttp_server(make) as url:
            for path, status in (("/same/cases", 200), ("/more/cases", 403)):
                assert send(url, path).status == 401
                assert send(url, path, bearer(token())).status == status
            assert send(url, "/more/cases", bearer(token(roles=["reader"]))).json == {"oid": OID}


def test_keys_are_fetched_when_the_application_starts() -> None:
    """In `cleanup_ctx`, and no longer when it has ended."""
    with KeyServer(jwks(signer())) as server:
        validator = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        with aiohttp_server(lambda: application(EntraID(validator))):
            server.wait_for_fetches(1)


def test_a_request_that_passed_no_middleware() -> None:
    """Its claims are not None, as if none were needed."""
    entra = EntraID()

    async def cases(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="call setup"):
            entra.claims(request)
        return web.Response()

    def make() -> web.Application:
        app = web.Application()
        app.router.add_get("/cases", cases)
        return app

    with aiohttp_server(make) as url:
        assert send(url, "/cases").status == 200
    with pytest.raises(TypeError, match="takes a Require"):
        entra.require("reader")  # type: ignore[arg-type]
