"""Other ASGI frameworks behind the middleware of `integrations.asgi`: Litestar and Quart, on uvicorn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from litestar import Litestar, Request, get, post
from litestar.middleware import DefineMiddleware
from quart import Quart
from quart import request as quart_request

from entra_fast.integrations.asgi import EntraID, Refusal
from entra_fast.validate import AsyncValidator
from support.bearer import (
    METADATA,
    METADATA_PATH,
    NON_ASCII,
    SITUATIONS,
    Services,
    Situation,
    async_validator,
    bearer,
    send,
    services,
    token,
    uvicorn_server,
)
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer

# Requirements of routes are not part of a middleware.
MIDDLEWARE_ONLY = [
    one
    for one in SITUATIONS
    if one.path in ("/cases", "/healthz", METADATA_PATH) or "access_token" in one.path
]


def litestar_application(entra: EntraID) -> Any:
    def oid(request: Request[Any, Any, Any]) -> dict[str, str | None]:
        claims = entra.claims(request.scope)
        return {"oid": None if claims is None else claims.object_id}

    @get(["/cases", "/healthz"], sync_to_thread=False)
    def cases(request: Request[Any, Any, Any]) -> dict[str, str | None]:
        return oid(request)

    @post("/cases", sync_to_thread=False)
    def add(request: Request[Any, Any, Any]) -> dict[str, str | None]:
        return oid(request)

    app = Litestar([cases, add], lifespan=[entra.lifespan], openapi_config=None)
    return app, entra.middleware(app)


def quart_application(entra: EntraID) -> Any:
    app = Quart(__name__)

    @app.route("/cases", methods=["GET", "POST"])
    @app.route("/healthz", endpoint="healthz")
    async def cases() -> dict[str, str | None]:
        claims = entra.claims(quart_request.scope)
        return {"oid": None if claims is None else claims.object_id}

    app.asgi_app = entra.middleware(app.asgi_app)  # type: ignore[method-assign, assignment]
    return app, app


MAKE = {"litestar": litestar_application, "quart": quart_application}


@contextmanager
def serve(make: Callable[[EntraID], Any], service: str) -> Iterator[str]:
    with async_validator(service) as validator:
        optional = service == "optional"
        metadata = METADATA if optional else None
        entra = EntraID(validator, exclude=["/healthz"], optional=optional, resource_metadata=metadata)
        with uvicorn_server(make(entra)[1]) as url:
            yield url


@pytest.fixture(scope="module", params=list(MAKE))
def running(request: pytest.FixtureRequest) -> Iterator[Services]:
    with services(lambda service: serve(MAKE[request.param], service)) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("situation", MIDDLEWARE_ONLY, ids=lambda one: one.name)
def test_situations(running: Services, situation: Situation) -> None:
    """Every situation of the table that needs no route."""
    if situation.method == "HEAD" and situation.status == 200:
        pytest.skip("whether a route has HEAD is the framework's business")
    running.run(situation)


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)


def test_litestar_knows_the_middleware_as_one_of_its_own() -> None:
    """In `middleware=[...]`, which is inside of its router: unknown paths are its own 404."""
    with KeyServer(jwks(signer())) as server:
        validator = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        entra = EntraID(validator)

        @get("/cases", sync_to_thread=False)
        def cases(request: Request[Any, Any, Any]) -> str:
            claims = entra.claims(request.scope)
            return claims.object_id or "" if claims else ""

        app = Litestar([cases], lifespan=[entra.lifespan], middleware=[DefineMiddleware(entra.middleware)])
        with uvicorn_server(app) as url:
            server.wait_for_fetches(1)
            assert send(url, "/cases").status == 401
            assert send(url, "/cases", bearer(token())).status == 200


def test_the_body_can_be_another() -> None:
    """Where clients expect one: RFC 9457, for instance."""

    class Problem(EntraID):
        def body(self, refusal: Refusal) -> dict[str, str]:
            return {"title": refusal.error, "detail": refusal.description}

    with (
        async_validator("normal") as validator,
        uvicorn_server(quart_application(Problem(validator))[1]) as url,
    ):
        assert set(send(url, "/cases").json) == {"title", "detail"}
