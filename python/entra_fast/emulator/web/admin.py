"""The admin API: everything that the console can do, as JSON, for tests and scripts.

Below `/admin/api`. Bodies are checked strictly; errors are `{"error": "invalid_request", "error_description":
...}`. It hands out secrets of applications: it is for this machine, and pages of other origins are refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import orjson
from aiohttp import web
from pydantic import Field, ValidationError

from entra_fast._web.negotiation import preferred
from entra_fast.emulator.model.documents import MAX_MISTAKES, dotted
from entra_fast.emulator.model.validation import List, Section, findings
from entra_fast.emulator.protocol.clock import parse_moment
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.web.handling import LOCAL, PROVIDERS, json_response
from entra_fast.errors import EntraFastError

if TYPE_CHECKING:
    from entra_fast.emulator.protocol.forge import AgentKind, ForgedToken, KeyChoice

ROOT: Final = "/admin/api"
MAX_STATE_BYTES: Final = 16 << 20
"""Maximum size of an imported state: 50,000 users or so."""

_TEXT: Final = "text/plain"


class FaultRequest(Section):
    """Body of `POST /admin/api/faults`."""

    kind: str
    endpoint: str = "token"
    application: str | None = None
    value: float | None = None
    count: int | None = None
    seconds: float | None = None
    probability: float | None = None
    seed: int | None = None
    sequence: List[int] | None = None


class ClockRequest(Section):
    """Body of `PUT /admin/api/clock`.

    Attributes:
        offset: seconds by which the provider's clock is ahead.
        time: where it is instead: seconds since the epoch, or a date and time (RFC 3339).
        frozen: whether it stands; None leaves that as it is.
    """

    offset: float | None = None
    time: float | str | None = None
    frozen: bool | None = None


class AdvanceRequest(Section):
    """Body of `POST /admin/api/clock/advance`: seconds, backwards if negative."""

    seconds: float


class RotateRequest(Section):
    """Body of `POST /admin/api/keys/rotate`. `announced`: take the key that was published in advance."""

    announced: bool = True


class TokenRequest(Section):
    """Body of `POST /admin/api/tokens`. `user`: on whose behalf; none for machine to machine."""

    consumer: str
    target: str
    user: str | None = None


class ForgeBody(Section):
    """Body of `POST /admin/api/forge`: the fields of `ForgeRequest`."""

    application: str | None = None
    user: str | None = None
    audience: str | None = None
    version: int | None = None
    claims: dict[str, Any] = Field(default_factory=dict)
    lifetime: float | None = None
    not_before: float | None = Field(None, alias="not_before")
    algorithm: str | None = None
    key: str = "active"
    issuer: str | None = None
    groups: int | None = None
    agent: str | None = None


def with_own_limit(request: web.Request) -> web.Request:
    """The request, with the limit of its body that its path has."""
    is_state = request.method == "PUT" and request.path == f"{ROOT}/state"
    return request.clone(client_max_size=MAX_STATE_BYTES) if is_state else request


def add_routes(app: web.Application) -> None:
    """Add the API."""
    routes = app.router
    routes.add_get(f"{ROOT}/applications", _applications)
    routes.add_get(f"{ROOT}/applications/{{name}}/environment", _environment)
    routes.add_get(f"{ROOT}/applications/{{name}}/login-proxy", _login_proxy)
    routes.add_get(f"{ROOT}/applications/{{name}}/federated-token", _federated_token)
    routes.add_get(f"{ROOT}/explain", _explain)
    routes.add_post(f"{ROOT}/tokens", _mint)
    routes.add_post(f"{ROOT}/forge", _forge)
    routes.add_get(f"{ROOT}/faults", _faults)
    routes.add_post(f"{ROOT}/faults", _add_fault)
    routes.add_delete(f"{ROOT}/faults", _clear_faults)
    routes.add_delete(f"{ROOT}/faults/{{id}}", _remove_fault)
    routes.add_get(f"{ROOT}/clock", _clock)
    routes.add_put(f"{ROOT}/clock", _set_clock)
    routes.add_delete(f"{ROOT}/clock", _release_clock)
    routes.add_post(f"{ROOT}/clock/advance", _advance_clock)
    routes.add_get(f"{ROOT}/keys", _keys)
    routes.add_post(f"{ROOT}/keys/rotate", _rotate)
    routes.add_delete(f"{ROOT}/keys/{{kid}}", _withdraw)
    routes.add_get(f"{ROOT}/providers", _providers)
    routes.add_post(f"{ROOT}/providers/{{provider}}/keys/rotate", _rotate_provider)
    routes.add_post(f"{ROOT}/reload", _reload)
    routes.add_get(f"{ROOT}/state", _export)
    routes.add_put(f"{ROOT}/state", _import)
    routes.add_post(f"{ROOT}/reset", _reset)


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


async def _login_proxy(request: web.Request) -> web.Response:
    name = request.app[LOCAL].registry.find_workload(request.match_info["name"]).name
    idporten = request.app[PROVIDERS].idporten
    return json_response(await asyncio.to_thread(idporten.login_proxy_environment, name))


async def _federated_token(request: web.Request) -> web.Response:
    local, name = request.app[LOCAL], request.match_info["name"]
    token = await asyncio.to_thread(local.federated_token, name)
    return web.Response(text=token, headers={"Cache-Control": "no-store"})


async def _explain(request: web.Request) -> web.Response:
    query = request.query
    for name in ("consumer", "target"):
        if not query.get(name):
            raise _Invalid(f"the parameter {name!r} is missing")
    consumer, target, provider = query["consumer"], query["target"], query.get("provider", "entra_id")
    if provider == "entra_id":
        return json_response(request.app[LOCAL].explain(consumer, target, query.get("user")).document())
    if query.get("user"):
        raise _Invalid(f"the decision of {provider[:50]} does not depend on the user")
    organization = query.get("organization") or None
    return json_response(request.app[PROVIDERS].explain(provider, consumer, target, organization).document())


async def _mint(request: web.Request) -> web.Response:
    wanted = await _body(request, TokenRequest)
    explanation, token = request.app[LOCAL].mint(wanted.consumer, wanted.target, wanted.user)
    if token is not None and preferred(request.headers.get("Accept"), ("application/json", _TEXT)) == _TEXT:
        return web.Response(text=token, headers={"Cache-Control": "no-store"})
    answer = explanation.document()
    return json_response(answer | {"access_token": token}, 200 if token is not None else 403)


async def _forge(request: web.Request) -> web.Response:
    wanted = await _body(request, ForgeBody)
    # The names of keys and agents are checked there, together with everything else.
    key, agent = cast("KeyChoice", wanted.key), cast("AgentKind | None", wanted.agent)
    fields = dict(wanted) | {"key": key, "agent": agent}
    forged = await asyncio.to_thread(request.app[LOCAL].forge, **fields)  # it may generate a key
    return json_response(forge_document(forged))


def forge_document(forged: ForgedToken) -> dict[str, Any]:
    """A forged token for programs."""
    return {
        "token": forged.token,
        "header": dict(forged.header),
        "claims": dict(forged.claims),
        "forged": True,
        "ordered": list(forged.forged),
    }


async def _faults(request: web.Request) -> web.Response:
    return json_response([_fault_json(fault) for fault in request.app[LOCAL].faults.planned()])


async def _add_fault(request: web.Request) -> web.Response:
    local, wanted = request.app[LOCAL], await _body(request, FaultRequest)
    named = wanted.application
    application = None if named is None else local.registry.find_workload(named).name
    fault = local.faults.add(
        wanted.kind,
        endpoint=wanted.endpoint,
        application=application,
        value=wanted.value,
        count=wanted.count,
        seconds=wanted.seconds,
        probability=wanted.probability,
        seed=wanted.seed,
        sequence=wanted.sequence,
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
    clock = request.app[LOCAL].clock
    return json_response({"offset": clock.offset, "now": clock(), "frozen": clock.frozen})


async def _set_clock(request: web.Request) -> web.Response:
    clock, wanted = request.app[LOCAL].clock, await _body(request, ClockRequest)
    if wanted.offset is not None and wanted.time is not None:
        raise _Invalid("pass either 'offset' or 'time'")
    if wanted.offset is None and wanted.time is None and wanted.frozen is None:
        raise _Invalid("pass 'offset', 'time' or 'frozen'")
    if wanted.frozen is False:
        clock.thaw()
    if wanted.offset is not None:
        clock.set_offset(wanted.offset)
    if wanted.time is not None:
        clock.set(_moment(wanted.time))
    if wanted.frozen:
        clock.freeze()
    return await _clock(request)


def _moment(time: float | str) -> float:
    try:
        return parse_moment(time) if isinstance(time, str) else time
    except (ValueError, OverflowError):
        text = f"time: {str(time)[:50]!r} is neither a time such as 2026-01-31T12:00:00Z nor a number"
        raise _Invalid(text) from None


async def _advance_clock(request: web.Request) -> web.Response:
    request.app[LOCAL].clock.advance((await _body(request, AdvanceRequest)).seconds)
    return await _clock(request)


async def _release_clock(request: web.Request) -> web.Response:
    request.app[LOCAL].clock.release()
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


async def _providers(request: web.Request) -> web.Response:
    return json_response(await asyncio.to_thread(request.app[PROVIDERS].describe))


async def _rotate_provider(request: web.Request) -> web.Response:
    kid = await asyncio.to_thread(request.app[PROVIDERS].rotate, request.match_info["provider"])
    return json_response({"kid": kid})


async def _reload(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    await asyncio.to_thread(local.reload)
    return json_response({"notices": [str(notice) for notice in local.notices]})


async def _export(request: web.Request) -> web.Response:
    wanted = request.query.get("secrets", "false")
    if wanted not in ("true", "false"):
        raise _Invalid(f"secrets: expected true or false, got {wanted[:50]!r}")
    return json_response(request.app[LOCAL].export_state(secrets=wanted == "true"))


async def _import(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    try:
        document = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise _Invalid("the body is not JSON") from None
    await asyncio.to_thread(local.import_state, document)
    return json_response({"notices": [str(notice) for notice in local.notices]})


async def _reset(request: web.Request) -> web.Response:
    request.app[LOCAL].reset()
    return web.Response(status=204)


def _fault_json(fault: Fault) -> dict[str, Any]:
    return dataclasses.asdict(fault)
