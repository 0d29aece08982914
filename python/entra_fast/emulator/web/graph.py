"""Microsoft Graph's API over HTTP: requests become calls of graph/routes.py, and results become responses."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from entra_fast.emulator.graph import routes
from entra_fast.emulator.graph.errors import throttled
from entra_fast.emulator.model import graph
from entra_fast.emulator.web.endpoints import apply_faults
from entra_fast.emulator.web.handling import LOCAL, NO_STORE, correlation_id, json_response

# Tokens are sent in a header, which no page can make a browser add by itself.
_ANY_ORIGIN: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "request-id, client-request-id",
}
_PREFLIGHT: Final = {
    **_ANY_ORIGIN,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, content-type, client-request-id, consistencylevel, "
    "return-client-request-id, sdkversion, x-ms-client-request-id",
    "Access-Control-Max-Age": "600",
}


def add_routes(app: web.Application) -> None:
    """Add the API."""
    app.router.add_route("*", f"{routes.ROOT}/{{path:.*}}", _graph)


async def _graph(request: web.Request) -> web.StreamResponse:
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=_PREFLIGHT)
    local = request.app[LOCAL]
    sent = request.headers.getall("Authorization", [])
    asked = routes.Request(
        method=request.method,
        segments=tuple(part for part in request.match_info["path"].split("/") if part)[:20],
        query=tuple(request.query.items()),
        authorization=sent[0] if len(sent) == 1 else None,
        eventual=request.headers.get("ConsistencyLevel", "").strip().lower() == "eventual",
        body=await request.read(),
        client_request_id=correlation_id(request),
    )
    faults = local.faults.take("graph")
    throttle = next((fault for fault in faults if fault.kind == "throttle"), None)
    others = tuple(fault for fault in faults if fault is not throttle)
    if (broken := await apply_faults(request, others)) is not None:
        return broken
    answer = routes.answer(local, asked) if throttle is None else routes.refuse(local, asked, throttled())
    headers = {
        **NO_STORE,
        **_ANY_ORIGIN,
        "request-id": asked.request_id,
        "client-request-id": asked.client_request_id,
        "OData-Version": "4.0",
    }
    if throttle is not None:
        headers["Retry-After"] = str(int(throttle.value))
    if answer.status == 401:
        headers["WWW-Authenticate"] = (
            f'Bearer realm="", authorization_uri="{local.base_url}/common/oauth2/authorize", '
            f'client_id="{graph.CLIENT_ID}"'
        )
    if isinstance(answer.body, str):
        return web.Response(text=answer.body, status=answer.status, headers=headers)
    response = json_response(answer.body, answer.status, headers)
    response.headers["Content-Type"] = "application/json;odata.metadata=minimal;charset=utf-8"
    return response
