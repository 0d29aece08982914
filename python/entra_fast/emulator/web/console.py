"""The console: what this provider knows, what it has decided and why, and the means to try things.

Rendered here on the server; works without scripts. What its forms do goes through the same methods as the API
of admin.py; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from entra_fast._native import unverified_header
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.registry import Application, Rule, Tenant
from entra_fast.emulator.protocol.aadsts import format_time
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.explanation import Explanation
from entra_fast.emulator.protocol.faults import ENDPOINTS, KINDS_OF_FAULT
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.web import pages
from entra_fast.emulator.web.handling import LOCAL, page, read_form
from entra_fast.emulator.web.html import Child, Html, join, tag
from entra_fast.errors import ConfigurationError

MAX_ROWS: Final = 200
LIVE_SECONDS: Final = 3
NONE: Final = "-"


def add_routes(app: web.Application) -> None:
    """Add the console."""
    app.router.add_get("/", _overview)
    app.router.add_get("/applications/{name}", _application)
    app.router.add_get("/users", _users)
    app.router.add_get("/log", _log)
    app.router.add_get("/log/{number:\\d+}", _log_entry)
    app.router.add_get("/explain", _explain)
    app.router.add_get("/mint", _mint_form)
    app.router.add_post("/mint", _mint)
    app.router.add_get("/faults", _faults)
    app.router.add_post("/faults", _change_faults)
    app.router.add_get("/endpoints", _endpoints)
    app.router.add_post("/endpoints", _change_keys)
    app.router.add_post("/reload", _reload)


# Applications


async def _overview(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    parts: list[Child] = []
    if local.load_error is not None:
        parts.append(
            tag(
                "section",
                tag("h2", "The files on disk cannot be loaded", class_="bad"),
                tag("pre", local.load_error),
                tag("p", "What was loaded before stays in force."),
                class_="card",
                role="alert",
            )
        )
    parts.extend(_tenant_applications(tenant) for tenant in local.registry.tenants)
    if local.notices:
        items = [tag("li", str(notice)) for notice in local.notices[:MAX_ROWS]]
        parts.append(
            tag(
                "section",
                tag("h2", f"Worth a look ({len(local.notices)})"),
                tag("p", "Real NAIS skips these silently.", class_="soft"),
                tag("ul", items, class_="plain"),
            )
        )
    parts.append(
        tag(
            "form",
            tag("button", "Read the files again", type="submit", class_="plain"),
            method="post",
            action="/reload",
        )
    )
    return page(pages.document("Applications", parts, current="/"))


def _tenant_applications(tenant: Tenant) -> Html:
    rows = [
        (
            _link(application.name),
            tag("code", application.client_id),
            _callers(tenant, application),
            _user_policy(tenant, application),
        )
        for application in list(tenant.applications.values())[:MAX_ROWS]
    ]
    more = len(tenant.applications) - len(rows)
    return tag(
        "section",
        tag("h2", tenant.name),
        pages.table(
            ("Application", "Client id", "May call it", "Users"), rows, f"Applications of {tenant.name}"
        )
        if rows
        else tag("p", "No applications."),
        tag("p", f"and {more} more", class_="soft") if more > 0 else None,
    )


def _link(name: str) -> Html:
    return tag("a", name, href=f"/applications/{urllib.parse.quote(name)}")


def _callers(tenant: Tenant, application: Application) -> Child:
    resolved = dict.fromkeys(
        rule.consumer for rule in application.rules if rule.consumer in tenant.applications
    )
    waiting = sum(rule.consumer not in tenant.applications for rule in application.rules)
    if not resolved and not waiting:
        return "nobody but itself"
    return join(
        [join(tag("span", consumer), tag("br")) for consumer in resolved],
        tag("span", f"{waiting} not resolved", class_="warn small") if waiting else None,
    )


def _user_policy(tenant: Tenant, application: Application) -> str:
    names = [tenant.directory.groups[group].name for group in application.group_ids]
    if application.allow_all_users:
        return "all" + (f" ({', '.join(names)})" if names else "")
    return f"in {', '.join(names)}" if names else "none"


async def _application(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    try:
        application = local.registry.find(request.match_info["name"])
    except ConfigurationError as error:
        return page(pages.error_page("No such application", error.message), 404)
    tenant = local.registry.tenant(application.tenant_id) or local.registry.default_tenant
    environment = await asyncio.to_thread(local.environment, application.name)
    facts = [
        ("Client id", tag("code", application.client_id)),
        ("Object id", tag("code", application.object_id)),
        ("App ID URIs", join([join(tag("code", uri), tag("br")) for uri in application.identifier_uris])),
        ("Tenant", tenant.name),
        ("Users", _user_policy(tenant, application)),
        ("Reply URLs", join([join(tag("code", url), tag("br")) for url in application.reply_urls]) or "none"),
        ("Manifest", application.location),
    ]
    rules = [
        (
            rule.consumer,
            _rule_state(tenant, rule),
            " ".join(rule.roles) or NONE,
            " ".join(rule.scopes) or NONE,
            rule.location,
        )
        for rule in application.rules
    ]
    admitted_by = [
        other.name
        for other in tenant.applications.values()
        if other is not application and any(rule.consumer == application.name for rule in other.rules)
    ]
    return page(
        pages.document(
            application.name,
            tag("div", _facts(facts), class_="card"),
            tag("h2", "Inbound rules: who may call it"),
            pages.table(("Consumer", "State", "Roles", "Scopes", "Manifest"), rules, "Inbound rules")
            if rules
            else tag("p", "None: only the application itself gets tokens for it."),
            tag("h2", "It may call"),
            tag("ul", [tag("li", _link(name)) for name in admitted_by], class_="plain")
            if admitted_by
            else tag("p", "No application admits it."),
            tag(
                "p",
                tag(
                    "a", "Get a token as this application", href=f"/mint?{_query(consumer=application.name)}"
                ),
            ),
            tag("h2", "Environment"),
            tag("p", "What NAIS would inject. It contains secrets of this local provider.", class_="soft"),
            tag(
                "details",
                tag("summary", "Show the variables"),
                _code(
                    "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
                    "Environment",
                ),
            ),
            current="/",
        )
    )


def _rule_state(tenant: Tenant, rule: Rule) -> Html:
    if rule.is_wildcard:
        return tag("span", "✗ a wildcard grants nothing", class_="bad")
    if rule.consumer not in tenant.applications:
        return tag("span", "✗ not there, or in another tenant", class_="warn")
    if rule.shadowed_by is not None:
        return tag("span", f"✗ lost: the rule at {rule.shadowed_by} wins", class_="warn")
    return tag("span", "✓ admitted", class_="good")


# Users


async def _users(request: web.Request) -> web.Response:
    wanted = request.query.get("q", "").strip().lower()
    search = tag(
        "form",
        tag("label", "Name or user name contains", for_="q"),
        tag("input", id="q", name="q", type="search", value=request.query.get("q", "")),
        tag("p", tag("button", "Search", type="submit")),
        method="get",
        action="/users",
        class_="card",
    )
    parts = [_tenant_users(tenant, wanted) for tenant in request.app[LOCAL].registry.tenants]
    return page(pages.document("Users and groups", search, parts, current="/users"))


def _tenant_users(tenant: Tenant, wanted: str) -> Html:
    directory = tenant.directory
    groups = [
        (
            group.name,
            tag("code", group.id),
            "yes" if group.all_users else "no",
            _assigned_to(tenant, group.id),
        )
        for group in directory.groups.values()
    ]
    found = [user for user in directory.users.values() if wanted in f"{user.name} {user.username}".lower()]
    admissions = [(item.allow_all_users, frozenset(item.group_ids)) for item in tenant.applications.values()]
    users = [
        (
            user.name,
            user.username,
            user.nav_ident or NONE,
            ", ".join(directory.groups[group].name for group in user.groups) or NONE,
            str(sum(everyone or not assigned.isdisjoint(user.groups) for everyone, assigned in admissions)),
        )
        for user in found[:MAX_ROWS]
    ]
    return tag(
        "section",
        tag("h2", tenant.name),
        tag("p", tag("code", tenant.id), class_="soft"),
        tag("h3", f"Groups ({len(groups)})"),
        pages.table(
            ("Name", "Object id", "All users", "Assigned to"), groups[:MAX_ROWS], f"Groups of {tenant.name}"
        ),
        tag("h3", f"Users ({len(found)})"),
        pages.table(
            ("Name", "User name", "NAV ident", "Groups", "Applications that admit them"),
            users,
            f"Users of {tenant.name}",
        ),
        tag("p", f"and {len(found) - len(users)} more", class_="soft") if len(found) > len(users) else None,
    )


def _assigned_to(tenant: Tenant, group: str) -> str:
    names = [item.name for item in tenant.applications.values() if group in item.group_ids]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") or NONE


# Log


async def _log(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    live, refused = request.query.get("live") == "1", request.query.get("outcome") == "refused"
    entries = [entry for entry in local.journal.entries() if not (refused and entry.granted)][:MAX_ROWS]
    rows = [
        (
            tag("a", f"#{entry.number}", href=f"/log/{entry.number}"),
            format_time(entry.time)[11:19],
            _outcome(entry),
            entry.grant,
            entry.client or NONE,
            entry.target or NONE,
            entry.user or NONE,
        )
        for entry in entries
    ]

    def link(text: str, *, live: bool, refused: bool) -> Html:
        query = _query(live="1" if live else "", outcome="refused" if refused else "")
        return tag("a", text, href=f"/log?{query}")

    links = [
        link("Stop updating" if live else "Keep updating", live=not live, refused=refused),
        " · ",
        link("Show everything" if refused else "Refusals only", live=live, refused=not refused),
    ]
    return page(
        pages.document(
            "Log",
            tag("p", links),
            pages.table(
                ("No.", "Time", "Outcome", "Grant", "Consumer", "Target", "User"),
                rows,
                "Requests, newest first",
            )
            if rows
            else tag("p", "No requests yet."),
            current="/log",
            refresh=LIVE_SECONDS if live else None,
        )
    )


def _outcome(entry: Entry) -> Html:
    if entry.granted:
        return tag("span", "✓ granted", class_="good")
    return tag("span", f"✗ AADSTS{entry.code}" if entry.code is not None else "✗ fault", class_="bad")


async def _log_entry(request: web.Request) -> web.Response:
    number = request.match_info["number"]
    entry = request.app[LOCAL].journal.find(int(number)) if len(number) < 12 else None
    if entry is None:
        return page(pages.error_page("No such entry", "The log keeps the last 500 requests."), 404)
    facts = [
        ("Time", format_time(entry.time)),
        ("Grant", entry.grant),
        ("Consumer", entry.client),
        ("Target", entry.target or NONE),
        ("User", entry.user or NONE),
        ("Tenant", entry.tenant),
        ("Correlation ID", entry.correlation_id),
    ]
    return page(
        pages.document(
            f"Request #{entry.number}",
            tag("p", _outcome(entry)),
            tag("p", entry.message) if entry.message else None,
            tag("section", tag("h2", "What was checked"), pages.checks(entry.reasons), class_="card"),
            tag("div", _facts(facts), class_="card"),
            [tag("h2", "Claims of the token"), _code(_pretty(entry.claims), "Claims")]
            if entry.claims
            else None,
            current="/log",
        )
    )


# Explaining and minting


async def _explain(request: web.Request) -> web.Response:
    local, query = request.app[LOCAL], request.query
    result: Child = None
    if query.get("consumer") and query.get("target"):
        try:
            result = _explanation(local.explain(query["consumer"], query["target"], query.get("user")))
        except ConfigurationError as error:
            result = tag("p", error.message, class_="bad", role="alert")
    return page(
        pages.document(
            "Explain",
            tag("p", "Would a token be issued, and why?"),
            _who_form(local, query, "/explain", "get", "Explain"),
            result,
            current="/explain",
        )
    )


async def _mint_form(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    return page(
        pages.document(
            "Get a token",
            tag(
                "p",
                "As an application, for another one; on behalf of a user if you name one. The policies hold.",
            ),
            _who_form(local, request.query, "/mint", "post", "Get the token"),
            current="/mint",
        )
    )


async def _mint(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    consumer, target, user = form.get("consumer", ""), form.get("target", ""), form.get("user") or None
    try:
        explanation, token = local.mint(consumer, target, user)
    except ConfigurationError as error:
        message = tag("p", error.message, class_="bad", role="alert")
        body = [_who_form(local, form, "/mint", "post", "Get the token"), message]
        return page(pages.document("Get a token", body, current="/mint"), 400)
    parts: list[Child] = [_who_form(local, form, "/mint", "post", "Get the token"), _explanation(explanation)]
    if token is not None:
        parts += [
            tag("h2", "The token"),
            _code(token, "Token"),
            tag("h3", "Header"),
            _code(_pretty(unverified_header(token)), "Header"),
            tag("h3", "Claims"),
            _code(_pretty(explanation.claims), "Claims"),
            tag("h2", "The same on the command line"),
            _code(_curl(local, explanation), "Command"),
        ]
    return page(pages.document("Get a token", parts, current="/mint"), 200 if token is not None else 403)


def _who_form(local: LocalProvider, values: Mapping[str, str], action: str, method: str, button: str) -> Html:
    applications = [name for tenant in local.registry.tenants for name in tenant.applications][:MAX_ROWS]
    users = [user.username for tenant in local.registry.tenants for user in tenant.directory.users.values()][
        :MAX_ROWS
    ]
    fields = (
        ("consumer", "Consumer: who asks", "applications", True),
        ("target", "Target: for whom", "applications", True),
        ("user", "User: on whose behalf (leave empty for machine to machine)", "users", False),
    )
    return tag(
        "form",
        [
            join(
                tag("label", label, for_=name),
                tag(
                    "input",
                    id=name,
                    name=name,
                    value=values.get(name, ""),
                    list=source,
                    required=required,
                    autocomplete="off",
                    autocapitalize="none",
                    spellcheck="false",
                ),
            )
            for name, label, source, required in fields
        ],
        tag("datalist", [tag("option", value=name) for name in applications], id="applications"),
        tag("datalist", [tag("option", value=name) for name in users], id="users"),
        tag("p", tag("button", button, type="submit")),
        method=method,
        action=action,
        class_="card",
    )


def _explanation(explanation: Explanation) -> Html:
    error = explanation.decision.error
    verdict = (
        tag("strong", "✓ granted", class_="good")
        if error is None
        else tag("strong", f"✗ refused: AADSTS{error.code}", class_="bad")
    )
    return tag(
        "section",
        tag("h2", "Outcome"),
        tag("p", verdict, role="status"),
        tag("p", error.text) if error is not None else None,
        pages.checks(explanation.decision.reasons),
        class_="card",
    )


def _curl(local: LocalProvider, explanation: Explanation) -> str:
    if explanation.user:
        body = {"consumer": explanation.consumer, "target": explanation.target, "user": explanation.user}
        return f"curl -s {local.base_url}/admin/api/tokens -d {shlex.quote(json.dumps(body))}"
    client = local.registry.find(explanation.consumer)
    target = local.registry.find(explanation.target)
    fields = {
        "grant_type": "client_credentials",
        "client_id": client.client_id,
        "client_secret": local.credentials.secret(client),
        "scope": f"{target.identifier_uris[1]}/.default",
    }
    data = " ".join(f"-d {shlex.quote(f'{name}={value}')}" for name, value in fields.items())
    return f"curl -s {local.base_url}/{client.tenant_id}/oauth2/v2.0/token {data}"


# Faults, time, endpoints, keys


async def _faults(request: web.Request) -> web.Response:
    return page(_faults_page(request.app[LOCAL]))


def _faults_page(local: LocalProvider, message: str = "", values: Mapping[str, str] | None = None) -> str:
    sent = values or {}
    applications = [name for tenant in local.registry.tenants for name in tenant.applications][:MAX_ROWS]
    rows = [
        (
            fault.kind,
            f"{fault.value:g}",
            fault.endpoint,
            fault.application or "every application",
            "until removed"
            if fault.remaining is None and fault.until is None
            else " ".join(
                part
                for part in (
                    f"{fault.remaining} more requests" if fault.remaining is not None else "",
                    f"until {format_time(fault.until)[11:19]}" if fault.until is not None else "",
                )
                if part
            ),
            _button_form(
                "/faults", "Remove", {"action": "remove", "id": fault.id}, f"Remove the fault {fault.kind}"
            ),
        )
        for fault in local.faults.planned()
    ]
    planned = (
        pages.table(
            ("Kind", "Value", "Endpoint", "Application", "How long", "Action"), rows, "Planned faults"
        )
        if rows
        else tag("p", "Nothing is planned: everything works.")
    )
    add = tag(
        "form",
        tag("input", type="hidden", name="action", value="add"),
        tag(
            "div",
            _select(
                "kind", "What", [(kind, f"{kind}: {text}") for kind, text in KINDS_OF_FAULT.items()], sent
            ),
            _select("endpoint", "Where", [(name, name) for name in ENDPOINTS], sent),
            class_="row",
        ),
        tag(
            "div",
            _input("value", "Value", sent, "number"),
            _input("count", "For so many requests", sent, "number"),
            _input("seconds", "For so many seconds", sent, "number"),
            class_="row",
        ),
        _select(
            "application",
            "For which application",
            [("", "every application"), *((n, n) for n in applications)],
            sent,
        ),
        tag("p", message, class_="bad", role="alert") if message else None,
        tag("p", tag("button", "Plan it", type="submit")),
        method="post",
        action="/faults",
        class_="card",
    )
    clock = tag(
        "form",
        tag("input", type="hidden", name="action", value="clock"),
        tag("p", f"Here it is {format_time(local.now())}; {_offset(local.clock_offset)}."),
        _input("offset", "Seconds ahead (negative: behind)", {"offset": f"{local.clock_offset:g}"}, "number"),
        tag("p", tag("button", "Set the clock", type="submit")),
        method="post",
        action="/faults",
        class_="card",
    )
    return pages.document(
        "Faults and time",
        tag("h2", "Planned faults"),
        planned,
        tag("h2", "Plan a fault"),
        add,
        tag("h2", "The provider's clock"),
        clock,
        current="/faults",
    )


def _offset(seconds: float) -> str:
    if seconds == 0:
        return "the clock is right"
    return f"the clock is {abs(seconds):g} seconds {'ahead' if seconds > 0 else 'behind'}"


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
                )
            case "remove":
                local.faults.remove(form.get("id", ""))
            case "clock":
                local.set_clock_offset(_number(form, "offset") or 0.0)
    except ConfigurationError as error:
        return page(_faults_page(local, error.message, form), 400)
    return _see_other("/faults")


async def _endpoints(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    parts: list[Child] = []
    for tenant in local.registry.tenants:
        document = await asyncio.to_thread(local.discovery, tenant)
        names = (
            "issuer",
            "token_endpoint",
            "authorization_endpoint",
            "jwks_uri",
            "end_session_endpoint",
            "userinfo_endpoint",
        )
        well_known = f"{Issuer(local.base_url, tenant).v2}/.well-known/openid-configuration"
        facts: list[tuple[str, Child]] = [("discovery", tag("a", well_known, href=well_known))]
        facts += [(name, tag("code", str(document[name]))) for name in names]
        parts.append(tag("section", tag("h2", tenant.name), _facts(facts), class_="card"))
    keys = await asyncio.to_thread(local.keyring.describe)
    rows = [
        (
            tag("code", kid),
            state,
            _button_form(
                "/endpoints", "Withdraw", {"action": "withdraw", "kid": kid}, f"Withdraw the key {kid}"
            )
            if state != "withdrawn"
            else None,
        )
        for kid, state in keys
    ]
    parts += [
        tag("h2", "Signing keys"),
        pages.table(("kid", "State", "Action"), rows, "Signing keys"),
        tag(
            "div",
            _button_form("/endpoints", "Rotate as announced", {"action": "rotate"}),
            _button_form("/endpoints", "Rotate unannounced", {"action": "surprise"}),
            class_="row",
        ),
        tag(
            "p",
            "Announced: the key that has been published all along takes over. "
            "Unannounced: a new key signs at once, so that clients meet a kid that they do not know.",
            class_="soft",
        ),
    ]
    return page(pages.document("Endpoints and keys", parts, current="/endpoints"))


async def _change_keys(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    match form.get("action"):
        case "rotate" | "surprise" as action:
            await asyncio.to_thread(local.rotate_keys, announced=action == "rotate")
        case "withdraw":
            await asyncio.to_thread(local.withdraw_key, form.get("kid", ""))
    return _see_other("/endpoints")


async def _reload(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    try:
        await asyncio.to_thread(local.reload)
    except ConfigurationError as error:
        local.load_error = error.message
    return _see_other("/")


# Small parts


def _see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})


def _facts(facts: Iterable[tuple[str, Child]]) -> Html:
    return tag("dl", [join(tag("dt", name), tag("dd", value)) for name, value in facts])


def _code(text: str, label: str) -> Html:
    # Focusable, because a scrolling area must be reachable by keyboard; one click selects everything for
    # copying.
    return tag("pre", text, tabindex=0, aria_label=label, role="region", class_="copy")


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), indent=2, ensure_ascii=False)


def _query(**values: str) -> str:
    return urllib.parse.urlencode({name: value for name, value in values.items() if value})


def _button_form(action: str, text: str, fields: Mapping[str, str], label: str | None = None) -> Html:
    return tag(
        "form",
        [tag("input", type="hidden", name=name, value=value) for name, value in fields.items()],
        tag("button", text, type="submit", class_="plain", aria_label=label),
        method="post",
        action=action,
    )


def _select(name: str, label: str, options: Iterable[tuple[str, str]], values: Mapping[str, str]) -> Html:
    chosen = [tag("option", text, value=value, selected=values.get(name) == value) for value, text in options]
    return tag("div", tag("label", label, for_=name), tag("select", chosen, id=name, name=name))


def _input(name: str, label: str, values: Mapping[str, str], kind: str) -> Html:
    field = tag("input", id=name, name=name, type=kind, step="any", value=values.get(name) or None)
    return tag("div", tag("label", label, for_=name), field)


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
