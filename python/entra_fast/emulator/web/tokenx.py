"""The endpoints of the local TokenX over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from entra_fast._http.responses import describe
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.providers.tokenx import metadata
from entra_fast.emulator.web.handling import PROVIDERS
from entra_fast.emulator.web.provider_requests import Endpoints, add_end_of, claim_of

_log = logging.getLogger(__name__)


def add_routes(app: web.Application) -> None:
    """Add the endpoints."""
    routes, path = app.router, metadata.PATH
    routes.add_get(f"{path}{metadata.WELL_KNOWN}", _discovery)
    routes.add_get(f"{metadata.WELL_KNOWN}{path}", _discovery)  # RFC 8414, section 3
    routes.add_get(f"{path}/jwks", _keys)
    routes.add_post(f"{path}/token", _token)
    add_end_of(routes, path)


def _endpoints(request: web.Request) -> Endpoints:
    return Endpoints("tokenx", request.app[PROVIDERS].tokenx.keys, Refusal.body)


async def _discovery(request: web.Request) -> web.Response:
    return await _endpoints(request).discovery(request, request.app[PROVIDERS].tokenx.discovery)


async def _keys(request: web.Request) -> web.Response:
    return await _endpoints(request).key_set(request, request.app[PROVIDERS].tokenx.key_set)


async def _token(request: web.Request) -> web.Response:
    service = request.app[PROVIDERS].tokenx.token_service()

    async def answer(form: Mapping[str, str], faults: tuple[Fault, ...]) -> Mapping[str, Any]:
        try:
            # In a thread: it may fetch the keys of an issuer.
            return await asyncio.to_thread(service.answer, form, faults)
        except Refusal:
            raise
        except Exception as error:
            raise _Failed(describe(error)) from None

    try:
        return await _endpoints(request).token(request, _client, answer)
    except _Failed as failure:
        _log.error("a request to TokenX failed: %s", failure)
        return web.Response(status=500, text="unknown internal server error")


class _Failed(Exception):
    """The token endpoint has failed; the text says where. What HTTP itself refuses is no failure."""


def _client(form: Mapping[str, str]) -> str | None:
    return claim_of(form.get("client_assertion", ""), "sub")
