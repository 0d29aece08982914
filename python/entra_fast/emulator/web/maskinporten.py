"""The endpoints of the local Maskinporten over HTTP, and the pages that its errors refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from entra_fast._web.responses import page
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.providers.maskinporten import errors, metadata
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.web.handling import LOCAL, PROVIDERS
from entra_fast.emulator.web.pages import error_page
from entra_fast.emulator.web.provider_requests import Endpoints, add_end_of, claim_of


def add_routes(app: web.Application) -> None:
    """Add the endpoints."""
    routes, path = app.router, metadata.PATH
    routes.add_get(f"{path}/{metadata.WELL_KNOWN}", _discovery)
    routes.add_get(f"/{metadata.WELL_KNOWN}{path}{{slash:/?}}", _discovery)  # RFC 8414, section 3
    routes.add_get(f"{path}/jwk", _keys)
    routes.add_post(f"{path}/token", _token)
    routes.add_get(f"{path}/errors/{{code}}", _error_reference)
    add_end_of(routes, path)


def _endpoints(request: web.Request) -> Endpoints:
    def body(refusal: Refusal) -> Mapping[str, str]:
        return errors.body(refusal, request.app[LOCAL].base_url)

    return Endpoints("maskinporten", request.app[PROVIDERS].maskinporten.keys, body)


async def _discovery(request: web.Request) -> web.Response:
    return await _endpoints(request).discovery(request, request.app[PROVIDERS].maskinporten.discovery)


async def _keys(request: web.Request) -> web.Response:
    return await _endpoints(request).key_set(request, request.app[PROVIDERS].maskinporten.key_set)


async def _token(request: web.Request) -> web.Response:
    provider = request.app[PROVIDERS].maskinporten

    def client(form: Mapping[str, str]) -> str | None:
        client_id = claim_of(form.get("assertion", ""), "iss") or ""
        found = request.app[LOCAL].registry.workloads.maskinporten_client(client_id)
        return None if found is None else found.name

    async def answer(form: Mapping[str, str], faults: tuple[Fault, ...]) -> Mapping[str, Any]:
        # Not in a thread: of two requests with the same grant, only one may find it unused.
        return provider.token_service().answer(form, faults)

    return await _endpoints(request).token(request, client, answer)


async def _error_reference(request: web.Request) -> web.Response:
    """Where `error_uri` leads."""
    code = request.match_info["code"]
    row = next((row for row in errors.ROWS if row.code == code), None)
    if row is None:
        return page(error_page("Unknown error code", "Maskinporten does not have that code here."), 404)
    html = error_page(
        row.code,
        row.text.replace("{", "<").replace("}", ">"),
        advice=["The log names what to change for each refused request."],
        details=[("OAuth error", row.error), ("Status", str(row.status))],
        actions=[("Open the log", "/log"), ("Open the console", "/")],
    )
    return page(html)
