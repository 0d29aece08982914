"""Validation by a real sidecar, in a framework of threads and in one of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from flask import Flask

from entra_fast import Claims, Require
from entra_fast.client import AsyncSidecarClient, SidecarClient
from entra_fast.integrations import fastapi, flask
from support.bearer import bearer, send, uvicorn_server, waitress_server
from support.provider import Provider
from support.sidecars import StartSidecar


@contextmanager
def with_flask(endpoint: str) -> Iterator[str]:
    app = Flask(__name__)
    entra = flask.EntraID(app, SidecarClient(endpoint))

    @app.get("/cases")
    @entra.require(Require(app=True, role="reader"))
    def cases() -> dict[str, Any]:
        return {"roles": entra.claims and entra.claims.roles}

    with waitress_server(app) as url:
        yield url


@contextmanager
def with_fastapi(endpoint: str) -> Iterator[str]:
    entra = fastapi.EntraID(AsyncSidecarClient(endpoint))
    app = FastAPI(lifespan=entra.lifespan)

    async def cases(who: Any) -> dict[str, Any]:
        return {"roles": who.roles}

    cases.__annotations__ = {"who": Annotated[Claims, entra(Require(app=True, role="reader"))]}
    app.get("/cases")(cases)
    with uvicorn_server(app) as url:
        yield url


@pytest.mark.parametrize("serve", [with_flask, with_fastapi])
async def test_a_sidecar_validates(
    provider: Provider, start: StartSidecar, serve: Callable[[str], Any]
) -> None:
    """The same responses as with a validator, and claims with the same interface; the sidecar has the
    keys."""
    sidecar = await start()
    good = provider.mint(roles=["reader"], idtyp="app")
    expected = (
        (good, 200, None),
        (provider.mint(roles=["other"], idtyp="app"), 403, "insufficient_scope"),
        (provider.mint(nonce="an ID token"), 403, "insufficient_scope"),
        (provider.mint(aud="other"), 401, "invalid_token"),
        (good[:-8] + "AAAAAAAA", 401, "invalid_token"),
        ("x.y.z", 401, "invalid_token"),
    )
    with serve(f"http://{sidecar.running.address}/api/v1/introspect") as url:
        for token, status, error in expected:
            response = await asyncio.to_thread(send, url, "/cases", bearer(token))
            assert response.status == status, response
            if error is None:
                assert response.json == {"roles": ["reader"]}
            else:
                assert response.challenge["error"] == error


@pytest.mark.parametrize("serve", [with_flask, with_fastapi])
def test_a_sidecar_that_is_not_there(serve: Callable[[str], Any]) -> None:
    """503, which says nothing about the token."""
    with serve("http://127.0.0.1:1/api/v1/introspect") as url:
        response = send(url, "/cases", bearer("a.b.c"))
        assert response.status == 503
        assert response.headers["Retry-After"]
