"""The console: shows the provider's data and decisions with their reasons, and lets users try things.

Works without scripts. This module has the routes and their forms. The data comes from model and local.py, the
templates present it, and nothing is decided here.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote, urlencode

import orjson
from aiohttp import web

from entra_fast._web import commands
from entra_fast._web.paging import window
from entra_fast._web.responses import page, see_other
from entra_fast._web.token_contents import claim_members, header_members
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model import graph, overview
from entra_fast.emulator.protocol import inspection
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.explanation import Explanation
from entra_fast.emulator.protocol.faults import ENDPOINTS, KINDS_OF_FAULT
from entra_fast.emulator.protocol.forge import AGENTS, FORGED_ALGORITHMS, KEYS, ForgedToken
from entra_fast.emulator.web.handling import LOCAL, PROVIDERS, read_form
from entra_fast.emulator.web.pages import PAGES, error_page
from entra_fast.errors import ConfigurationError, InvalidToken

if TYPE_CHECKING:
    from entra_fast.emulator.protocol.forge import AgentKind, KeyChoice

MAX_QUERY_CHARACTERS: Final = 200
MAX_NOTICES: Final = 50
_EXPLAINED: Final = (
    ("entra_id", "Entra ID"),
    ("tokenx", "TokenX, on behalf of a citizen"),
    ("maskinporten", "Maskinporten; the target is a scope"),
)
_SHOWN_ENDPOINTS: Final = (
    "issuer",
    "token_endpoint",
    "authorization_endpoint",
    "jwks_uri",
    "end_session_endpoint",
    "userinfo_endpoint",
)


def add_routes(app: web.Application) -> None:
    """Add the console."""
    app.router.add_get("/", _overview)
    app.router.add_get("/applications/{name}", _application)
    app.router.add_get("/users", _users)
    app.router.add_get("/explain", _explain)
    app.router.add_get("/mint", _mint_form)
    app.router.add_post("/mint", _mint)
    app.router.add_get("/forge", _forge_form)
    app.router.add_post("/forge", _forge)
    app.router.add_get("/inspect", _inspect_form)
    app.router.add_post("/inspect", _inspect)
    app.router.add_get("/faults", _faults)
    app.router.add_post("/faults", _change_faults)
    app.router.add_get("/endpoints", _endpoints)
    app.router.add_post("/endpoints", _change_keys)
    app.router.add_post("/reload", _reload)


# Applications, users and groups


async def _overview(request: web.Request) -> web.Response:
    local, text = request.app[LOCAL], request.query.get("q", "")[:MAX_QUERY_CHARACTERS]
    html = PAGES.render(
        "applications.html",
        load_error=local.load_error,
        text=text,
        tenants=overview.applications(local.registry, text),
        others=overview.without_identity(local.registry, text),
        window_of=lambda rows: window(rows, request.query.get("page", "1")),
        here=urlencode({"q": text} if text else {}),
        notices=local.notices[:MAX_NOTICES],
        notice_count=len(local.notices),
    )
    return page(html)


async def _application(request: web.Request) -> web.Response:
    local, name = request.app[LOCAL], request.match_info["name"]
    try:
        workload = local.registry.find_workload(name)
        # Of one that Entra ID does not know, only this is known.
        only_others = workload.has_providers and workload.name in local.registry.without_identity
        details = None if only_others else overview.application(local.registry, name)
    except ConfigurationError as error:
        return page(error_page("Application not found", error.message), 404)
    environment = await asyncio.to_thread(local.environment, workload.name)
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    providers = request.app[PROVIDERS].of(workload.name)
    if details is None:
        html = PAGES.render("workload.html", workload=workload, providers=providers, environment=exports)
        return page(html)
    return page(
        PAGES.render(
            "application.html",
            application=details.application,
            providers=providers,
            users=details.users,
            rules=window(details.rules, request.query.get("page", "1")),
            targets=details.targets[: overview.MAX_ROWS],
            more_targets=max(0, len(details.targets) - overview.MAX_ROWS),
            path=f"/applications/{quote(details.application.name, safe=':')}",
            environment=exports,
        )
    )


async def _users(request: web.Request) -> web.Response:
    text = request.query.get("q", "")[:MAX_QUERY_CHARACTERS]
    number = request.query.get("page", "1")
    tenants = [
        (tenant, window(tenant.users, number))
        for tenant in overview.members(request.app[LOCAL].registry, text)
    ]
    here = urlencode({"q": text} if text else {})
    return page(PAGES.render("users.html", text=text, tenants=tenants, here=here))


# Explaining, minting, inspecting


async def _explain(request: web.Request) -> web.Response:
    local, query = request.app[LOCAL], request.query
    explanation, other, problem = None, None, ""
    provider = query.get("provider") or "entra_id"
    if query.get("consumer") and query.get("target"):
        try:
            if provider == "entra_id":
                explanation = local.explain(query["consumer"], query["target"], query.get("user"))
            else:  # whose decisions do not depend on the user
                other = request.app[PROVIDERS].explain(provider, query["consumer"], query["target"])
        except ConfigurationError as error:
            problem = error.message
    html = PAGES.render(
        "explain.html",
        explanation=explanation,
        other=other,
        problem=problem,
        providers=_EXPLAINED,
        **_suggestions(local),
        values=query,
    )
    return page(html)


async def _mint_form(request: web.Request) -> web.Response:
    return page(_mint_page(request.app[LOCAL], request.query))


async def _mint(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    consumer, target, user = form.get("consumer", ""), form.get("target", ""), form.get("user") or None
    try:
        explanation, token = local.mint(consumer, target, user)
    except ConfigurationError as error:
        return page(_mint_page(local, form, problem=error.message), 400)
    html = _mint_page(local, form, explanation=explanation, token=token)
    return page(html, 200 if token is not None else 403)


def _mint_page(
    local: LocalProvider,
    values: Mapping[str, str],
    *,
    problem: str = "",
    explanation: Explanation | None = None,
    token: str | None = None,
) -> str:
    return PAGES.render(
        "mint.html",
        values=values,
        problem=problem,
        explanation=explanation,
        token=token,
        claims=() if token is None or explanation is None else claim_members(explanation.claims, local.now()),
        call=() if token is None else commands.call_api(token),
        commands=() if token is None or explanation is None else _commands(local, explanation),
        **_suggestions(local),
    )


async def _inspect_form(request: web.Request) -> web.Response:
    return page(PAGES.render("inspect.html", token="", problem="", inspection=None))


async def _inspect(request: web.Request) -> web.Response:
    """The token comes in a form: in an address, it would be kept by browsers and proxies."""
    local = request.app[LOCAL]
    token = inspection.token_in((await read_form(request)).get("token", ""))
    if not token:
        html = PAGES.render("inspect.html", token="", problem="paste a token first", inspection=None)
        return page(html, 400)
    now = local.now()
    try:
        found = await asyncio.to_thread(
            inspection.inspect, token, local.registry, local.base_url, local.keyring, now
        )
    except InvalidToken as error:
        expected = f" (expected {error.expected}, found {error.actual})" if error.expected else ""
        html = PAGES.render("inspect.html", token=token, problem=error.message + expected, inspection=None)
        return page(html, 400)
    html = PAGES.render(
        "inspect.html",
        token=token,
        problem="",
        inspection=found,
        header=header_members(found.unverified_header),
        claims=claim_members(found.unverified_claims, now),
    )
    return page(html)


def _suggestions(local: LocalProvider) -> dict[str, object]:
    registry = local.registry
    return {
        "application_names": sorted({*overview.application_names(registry), *registry.workloads.by_name}),
        "user_names": overview.user_names(registry),
    }


def _commands(local: LocalProvider, explanation: Explanation) -> tuple[commands.Command, ...]:
    """What gets the same kind of token in a shell."""
    if explanation.user or explanation.target == graph.NAME:
        body = {"consumer": explanation.consumer, "target": explanation.target}
        if explanation.target == graph.NAME:
            body["target"] = graph.URL
        if explanation.user:
            body["user"] = explanation.user
        return commands.post_json(f"{local.base_url}/admin/api/tokens", body)
    client = local.registry.find(explanation.consumer)
    target = local.registry.find(explanation.target)
    fields = {
        "grant_type": "client_credentials",
        "client_id": client.client_id,
        "client_secret": local.credentials.secret(client),
        "scope": f"{target.identifier_uris[1]}/.default",
    }
    return commands.post_form(f"{local.base_url}/{client.tenant_id}/oauth2/v2.0/token", fields)


# Forging


async def _forge_form(request: web.Request) -> web.Response:
    return page(_forge_page(request.app[LOCAL], request.query))


async def _forge(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    try:
        claims = orjson.loads(form.get("claims", "").strip() or b"{}")
    except orjson.JSONDecodeError:
        return page(_forge_page(local, form, problem="claims: this is not JSON"), 400)
    if not isinstance(claims, dict):
        return page(_forge_page(local, form, problem="claims: expected a JSON object"), 400)
    try:
        forged = await asyncio.to_thread(  # it may generate a key
            local.forge,
            form.get("application") or None,
            user=form.get("user") or None,
            audience=form.get("audience") or None,
            version=_whole_number(form, "version"),
            claims=claims,
            lifetime=_number(form, "lifetime"),
            not_before=_number(form, "not_before"),
            algorithm=form.get("algorithm") or None,
            key=cast("KeyChoice", form.get("key") or "active"),
            issuer=form.get("issuer") or None,
            groups=_whole_number(form, "groups"),
            agent=cast("AgentKind | None", form.get("agent") or None),
        )
    except ConfigurationError as error:
        return page(_forge_page(local, form, problem=error.message), 400)
    return page(_forge_page(local, form, forged=forged))


def _forge_page(
    local: LocalProvider, values: Mapping[str, str], *, problem: str = "", forged: ForgedToken | None = None
) -> str:
    return PAGES.render(
        "forge.html",
        values=values,
        problem=problem,
        forged=forged,
        version_options=[("", "as the API has it"), ("2", "2.0"), ("1", "1.0")],
        algorithm_options=[("", local.keyring.algorithm), *((name, name) for name in FORGED_ALGORITHMS)],
        key_options=[(name, f"{name}: {text}") for name, text in KEYS.items()],
        agent_options=[("", "no agent"), *((name, f"{name}: {text}") for name, text in AGENTS.items())],
        **_suggestions(local),
    )


# Faults and time


async def _faults(request: web.Request) -> web.Response:
    return page(_faults_page(request.app[LOCAL], {}))


def _faults_page(local: LocalProvider, values: Mapping[str, str], problem: str = "") -> str:
    """`values`: what was typed, if `problem` says that it cannot be used."""
    applications = overview.application_names(local.registry)
    return PAGES.render(
        "faults.html",
        faults=local.faults.planned(),
        fault_options=[(kind, f"{kind}: {text}") for kind, text in KINDS_OF_FAULT.items()],
        endpoint_options=[(name, name) for name in ENDPOINTS],
        application_options=[("", "every application"), *((name, name) for name in applications)],
        values=values,
        problem=problem,
        now=local.now(),
        offset=local.clock.offset,
        frozen=local.clock.frozen,
    )


async def _change_faults(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    try:
        match form.get("action"):
            case "add":
                local.faults.add(
                    form.get("kind", ""),
                    endpoint=form.get("endpoint", ""),
                    application=form.get("application") or None,
                    value=_number(form, "value"),
                    count=_whole_number(form, "count"),
                    seconds=_number(form, "seconds"),
                    probability=_number(form, "probability"),
                    seed=_whole_number(form, "seed"),
                    sequence=_places(form),
                )
            case "remove":
                local.faults.remove(form.get("id", ""))
            case "clock":
                local.clock.set_offset(_number(form, "offset") or 0.0)
            case "freeze":
                local.clock.freeze()
            case "advance":
                local.clock.advance(_number(form, "advance") or 0.0)
            case "release":
                local.clock.release()
    except ConfigurationError as error:
        return page(_faults_page(local, form, error.message), 400)
    return see_other("/faults")


# Endpoints and keys


async def _endpoints(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    tenants = []
    for tenant in local.registry.tenants:
        document = await asyncio.to_thread(local.discovery, tenant)
        well_known = f"{Issuer(local.base_url, tenant).v2}/.well-known/openid-configuration"
        tenants.append((tenant.name, well_known, [(name, str(document[name])) for name in _SHOWN_ENDPOINTS]))
    keys = await asyncio.to_thread(local.keyring.describe)
    return page(PAGES.render("endpoints.html", tenants=tenants, keys=keys))


async def _change_keys(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    match form.get("action"):
        case "rotate" | "surprise" as action:
            await asyncio.to_thread(local.rotate_keys, announced=action == "rotate")
        case "withdraw":
            await asyncio.to_thread(local.withdraw_key, form.get("kid", ""))
    return see_other("/endpoints")


async def _reload(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    try:
        await asyncio.to_thread(local.reload)
    except ConfigurationError as error:
        local.load_error = error.message
    return see_other("/")


# Numbers in forms


def _places(form: Mapping[str, str]) -> list[int] | None:
    words = form.get("sequence", "").replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
        text = "sequence: expected whole numbers separated by commas, such as 2, 3"
        raise ConfigurationError("form_invalid", text, "sequence")
    return [int(word) for word in words] or None


def _number(form: Mapping[str, str], name: str) -> float | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError("form_invalid", f"{name}: {text[:50]!r} is not a number", name) from None


def _whole_number(form: Mapping[str, str], name: str) -> int | None:
    number = _number(form, name)
    if number is None:
        return None
    if not abs(number) < 1e9 or number != int(number):
        raise ConfigurationError("form_invalid", f"{name}: must be a whole number", name)
    return int(number)
