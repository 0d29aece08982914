"""The admin API: everything that the console can do, as JSON, for tests and scripts.

Below `/admin/api`. Bodies are checked strictly; errors are `{"error": "invalid_request", "error_description":
...}`. It hands out secrets of applications: it is for this machine, and pages of other origins are refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web
from pydantic import ValidationError

from entra_fast._web.negotiation import preferred
from entra_fast.emulator.model.documents import MAX_MISTAKES, dotted
from entra_fast.emulator.model.validation import Section, findings
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.web.handling import LOCAL, json_response
from entra_fast.errors import EntraFastError

ROOT: Final = "/admin/api"

_TEXT: Final = "text/plain"


class FaultRequest(Section):
    """Body of `POST /admin/api/faults`."""

    kind: str
    endpoint: str = "token"
    application: str | None = None
    value: float | None = None
    count: int | None = None
    seconds: float | None = None


class ClockRequest(Section):
    """Body of `PUT /admin/api/clock`. `offset`: seconds by which the provider's clock is ahead."""

    offset: float


class RotateRequest(Section):
    """Body of `POST /admin/api/keys/rotate`. `announced`: take the key that was published in advance."""

    announced: bool = True


class TokenRequest(Section):
    """Body of `POST /admin/api/tokens`. `user`: on whose behalf; none for machine to machine."""

    consumer: str
    target: str
    user: str | None = None


def add_routes(app: web.Application) -> None:
    """Add the API."""
    routes = app.router
    routes.add_get(f"{ROOT}/applications", _applications)
    routes.add_get(f"{ROOT}/applications/{{name}}/environment", _environment)
    routes.add_get(f"{ROOT}/applications/{{name}}/federated-token", _federated_token)
    routes.add_get(f"{ROOT}/explain", _explain)
    routes.add_post(f"{ROOT}/tokens", _mint)
    routes.add_get(f"{ROOT}/faults", _faults)
    routes.add_post(f"{ROOT}/faults", _add_fault)
    routes.add_delete(f"{ROOT}/faults", _clear_faults)
    routes.add_delete(f"{ROOT}/faults/{{id}}", _remove_fault)
    routes.add_get(f"{ROOT}/clock", _clock)
    routes.add_put(f"{ROOT}/clock", _set_clock)
    routes.add_get(f"{ROOT}/keys", _keys)
    routes.add_post(f"{ROOT}/keys/rotate", _rotate)
    routes.add_delete(f"{ROOT}/keys/{{kid}}", _withdraw)
    routes.add_get(f"{ROOT}/log", _log)
    routes.add_delete(f"{ROOT}/log", _clear_log)
    routes.add_post(f"{ROOT}/reload", _reload)


T = TypeVar("T", bound=Section)


async def _body(request: web.Request, kind: type[T]) -> T:
    data = await request.read()
    try:
        return kind.model_validate(orjson.loads(data or b"{}"))
    except orjson.JSONDecodeError:
        raise _Invalid("the body is not JSON") from None
    except ValidationError as error:
        mistakes = [f"{dotted(item.place)}: {item.text}".lstrip(": ") for item in findings(kind, error)]
        raise _Invalid("; ".join(mistakes[:MAX_MISTAKES])) from None


class _Invalid(EntraFastError):
    def __init__(self, message: str) -> None:
        super().__init__("request_invalid", message)


async def _applications(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    return json_response(
        [
            {
                "name": application.name,
                "tenant": tenant.name,
                "clientId": application.client_id,
                "objectId": application.object_id,
                "identifierUris": application.identifier_uris,
                "replyUrls": application.reply_urls,
                "preAuthorizedApplications": local.pre_authorized(application),
            }
            for tenant in local.registry.tenants
            for application in tenant.applications.values()
        ]
    )


async def _environment(request: web.Request) -> web.Response:
    local, name = request.app[LOCAL], request.match_info["name"]
    return json_response(await asyncio.to_thread(local.environment, name))


async def _federated_token(request: web.Request) -> web.Response:
    local, name = request.app[LOCAL], request.match_info["name"]
    token = await asyncio.to_thread(local.federated_token, name)
    return web.Response(text=token, headers={"Cache-Control": "no-store"})


async def _explain(request: web.Request) -> web.Response:
    query = request.query
    for name in ("consumer", "target"):
        if not query.get(name):
            raise _Invalid(f"the parameter {name!r} is missing")
    explanation = request.app[LOCAL].explain(query["consumer"], query["target"], query.get("user"))
    return json_response(explanation.document())


async def _mint(request: web.Request) -> web.Response:
    wanted = await _body(request, TokenRequest)
    explanation, token = request.app[LOCAL].mint(wanted.consumer, wanted.target, wanted.user)
    if token is not None and preferred(request.headers.get("Accept"), ("application/json", _TEXT)) == _TEXT:
        return web.Response(text=token, headers={"Cache-Control": "no-store"})
    answer = explanation.document()
    return json_response(answer | {"access_token": token}, 200 if token is not None else 403)


async def _faults(request: web.Request) -> web.Response:
    return json_response([_fault_json(fault) for fault in request.app[LOCAL].faults.planned()])


async def _add_fault(request: web.Request) -> web.Response:
    local, wanted = request.app[LOCAL], await _body(request, FaultRequest)
    application = None if wanted.application is None else local.registry.find(wanted.application).name
    fault = local.faults.add(
        wanted.kind,
        endpoint=wanted.endpoint,
        application=application,
        value=wanted.value,
        count=wanted.count,
        seconds=wanted.seconds,
    )
    return json_response(_fault_json(fault), 201)


async def _clear_faults(request: web.Request) -> web.Response:
    request.app[LOCAL].faults.clear()
    return web.Response(status=204)


async def _remove_fault(request: web.Request) -> web.Response:
    if not request.app[LOCAL].faults.remove(request.match_info["id"]):
        raise web.HTTPNotFound
    return web.Response(status=204)


async def _clock(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    return json_response({"offset": local.clock_offset, "now": local.now()})


async def _set_clock(request: web.Request) -> web.Response:
    request.app[LOCAL].set_clock_offset((await _body(request, ClockRequest)).offset)
    return await _clock(request)


async def _keys(request: web.Request) -> web.Response:
    return json_response(
        [{"kid": kid, "state": state} for kid, state in request.app[LOCAL].keyring.describe()]
    )


async def _rotate(request: web.Request) -> web.Response:
    wanted = await _body(request, RotateRequest)
    await asyncio.to_thread(request.app[LOCAL].rotate_keys, announced=wanted.announced)
    return await _keys(request)


async def _withdraw(request: web.Request) -> web.Response:
    await asyncio.to_thread(request.app[LOCAL].withdraw_key, request.match_info["kid"])
    return await _keys(request)


async def _log(request: web.Request) -> web.Response:
    return json_response([entry_json(entry) for entry in request.app[LOCAL].journal.entries()])


async def _clear_log(request: web.Request) -> web.Response:
    request.app[LOCAL].journal.clear()
    return web.Response(status=204)


async def _reload(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    await asyncio.to_thread(local.reload)
    return json_response({"notices": [str(notice) for notice in local.notices]})


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry of the journal as JSON."""
    return {
        "number": entry.number,
        "time": entry.time,
        "granted": entry.granted,
        "grant": entry.grant,
        "tenant": entry.tenant,
        "client": entry.client,
        "target": entry.target,
        "user": entry.user or None,
        "code": entry.code,
        "message": entry.message,
        "checks": [dataclasses.asdict(reason) for reason in entry.reasons],
        "correlation_id": entry.correlation_id,
        "claims": dict(entry.claims),
    }


def _fault_json(fault: Fault) -> dict[str, Any]:
    return dataclasses.asdict(fault)
