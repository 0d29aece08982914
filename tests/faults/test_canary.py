"""Secrets go in on every path, at debug level, and nothing of them comes out where it should not.

Distinctive tokens, secrets and assertions are sent through every error path; then all that the process has
said (log lines, error answers, probes, metrics) and the representations of the objects that hold them are
searched for pieces of them.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from entra_fast._settings.load import Settings
from entra_fast.errors import EntraFastError
from entra_fast.sidecar.process.running import start_sidecar
from support.network import TcpProxy, black_hole, reset_at_once, truncate_after
from support.process import Serve
from support.provider import CLIENT_KEY, Provider, raw, refuse
from support.sidecars import StartSidecar
from support.wire import Answer, Caller, read_answer

PIECE = 12
"""Characters: a shorter piece of a secret may occur by chance."""
HEX = "0123456789abcdef"


def canary(name: str) -> str:
    """A text in which no piece is repeated elsewhere."""
    return "".join(f"{name}{i:03d}" for i in range(8))


def leaked(secrets: dict[str, str], said: str) -> list[str]:
    """Names of secrets that appear in part."""
    return [
        name
        for name, secret in secrets.items()
        if any(secret[i : i + PIECE] in said for i in range(len(secret) - PIECE + 1))
    ]


def secret_parts(token: str) -> str:
    """The secret part of a token, which no other token shares."""
    return token.rpartition(".")[2]


def test_the_search_itself_finds_what_it_should() -> None:
    """The search finds secrets where they are: a canary test that cannot fail would be useless."""
    secret = canary("s")
    assert leaked({"s": secret}, f"x{secret[5:20]}y") == ["s"]
    assert leaked({"s": secret}, secret[: PIECE - 1]) == []


def echo() -> object:
    """A provider that returns everything that it was sent."""

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        body = {"error": "invalid_request", "error_description": json.dumps(form), "trace_id": str(form)}
        return web.json_response(body, status=400)

    return script


def echo_of_what_matters() -> object:
    """A refusal that quotes the assertions in the members that are passed through."""

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        quoted = form.get("assertion", "") + " " + form.get("client_assertion", "")
        body = {"error": "invalid_grant", "error_description": f"AADSTS50013: {quoted}", "claims": quoted}
        return web.json_response(body, status=400)

    return script


async def every_error_path(
    call: Caller, provider: Provider, network: TcpProxy, user: str, stranger: str
) -> list[Answer]:
    """Error answers of all kinds."""
    said = []
    introspected = [user + "x", stranger, user[:-20], user.replace(".", ".."), canary("introspect")]
    for token in introspected:
        said.append(await call.introspect(token))
        said.append(await call.form("/api/v1/introspect", {"identity_provider": "entra_id", "token": token}))
    for fields in (
        {"identity_provider": user, "target": "api://a/.default"},
        {"identity_provider": "entra_id", "target": user},
        {"identity_provider": "entra_id", "target": "api://a/.default", "skip_cache": user},
        {"identity_provider": "entra_id", "target": "api://a/.default", "user_token": [user]},
        {"identity_provider": "entra_id", "target": "api://a/.default", "user_token": user + " "},
        {user: user},
        user,
    ):
        for path in ("/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"):
            said.append(await call.json(path, fields))
    for body in (
        f'{{"{user}"',
        f'{{"token":"{user}","token":"{user}"}}',
        f'{{"a":"{user}\\ud800"}}',
        user * 90,
    ):
        for path in ("/api/v1/token", "/api/v1/introspect"):
            said.append(await call.json(path, body.encode()))
            said.append(await call.form(path, body.encode() + b"%ff"))
    said.append(await call.get(f"/{user}?{user}"))
    said.append(await call.request("PUT", "/api/v1/token", user.encode(), {"Origin": user}))
    said.append(await call.json("/api/v1/token", {}, {"Host": user[:200], "X-Forwarded-For": user}))
    said.append(await call.json("/api/v1/token", {}, {"Content-Type": user, "Content-Encoding": user}))
    for line in (
        f"POST /api/v1/token HTTP/1.1\r\n{user}\r\n\r\n",
        f"{user} / HTTP/1.1\r\n\r\n",
        f"GET {user}\r\n\r\n",
    ):
        reader, writer = await call.connect()
        writer.write(line.encode())
        said.append(await read_answer(reader))
        writer.close()

    async def fails() -> None:
        said.append(await call.exchange(user, skip_cache=True))
        said.append(await call.token("api://fails/.default"))

    for script in (
        echo(),
        refuse(401, "invalid_client", "AADSTS7000215: no", error_codes=[7000215]),
        echo_of_what_matters(),
        raw(200, user.encode()),
        raw(500, user.encode(), "text/plain"),
        raw(302, b"", Location=f"https://evil.example/{user}"),
        raw(200, json.dumps({"access_token": user, "token_type": user}).encode()),
    ):
        provider.script = [script] * 4  # type: ignore[list-item]
        await fails()
    provider.script = []
    for fault in (reset_at_once, black_hole):
        await network.stop()
        await network.start()
        network.always = fault
        await fails()
    network.always = None
    return said


async def test_no_piece_of_a_secret_is_ever_said(
    serve: Serve, provider: Provider, network: TcpProxy, tmp_path: Path
) -> None:
    """Log lines at debug level (also of asyncio and aiohttp), every error answer, readiness, metrics."""
    jwk = json.loads(CLIENT_KEY.private_jwk())
    user = provider.mint(oid="user", note=canary("claim"))
    stranger = CLIENT_KEY.sign(
        json.dumps({"alg": "RS256", "kid": canary("kid")}).encode(),
        json.dumps({"x": canary("alien")}).encode(),
    )
    secrets = {
        "client secret": canary("secret"),
        "next client secret": canary("nextsecret"),
        "user token": secret_parts(user),
        "claims": base64.urlsafe_b64encode(canary("claim").encode()).decode()[2:-4],
        "stranger's token": secret_parts(stranger),
        "introspected": canary("introspect"),
        "key id of a stranger": canary("kid"),
        "proxy password": canary("password"),
        "private key": jwk["d"],
        "private prime": jwk["p"],
    }
    common = {
        "AZURE_APP_NEXT_CLIENT_SECRET": secrets["next client secret"],
        "HTTPS_PROXY": f"http://user:{secrets['proxy password']}@127.0.0.1:1",
        "ENTRA_FAST_LOG_LEVEL": "debug",
        "ENTRA_FAST_ACCESS_LOG": "true",
        "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS": "150",
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONDEVMODE": "1",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    federated = tmp_path / "federated"
    federated.write_text(stranger)
    for credential in (
        {"AZURE_APP_JWK": CLIENT_KEY.private_jwk()},
        {"AZURE_APP_JWK": None, "AZURE_APP_CLIENT_SECRET": secrets["client secret"]},
        {"AZURE_APP_JWK": None, "AZURE_FEDERATED_TOKEN_FILE": str(federated)},
    ):
        provider.requests.clear()
        process = await serve(provider.environment(**common, **credential))
        call = await process.listening()
        while (await call.get("/readyz")).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        granted = await call.exchange(user)
        assert granted.status == 200
        said = await every_error_path(call, provider, network, user, stranger)
        said += [await call.get(path) for path in ("/readyz", "/metrics")]
        process.signal(signal.SIGTERM)
        await process.ended()
        sent = [r.form.get("client_assertion", "") for r in provider.requests]
        wanted = secrets | {f"assertion {i}": secret_parts(a) for i, a in enumerate(sent) if a}
        wanted["access token"] = secret_parts(granted.json["access_token"])
        log = "\n".join(process.lines)
        assert len(process.lines) > 50
        assert leaked(wanted, log) == []
        assert not any(answer.status == 200 and b'"active":true' in answer.body for answer in said)
        answers = "\n".join(
            f"{answer.headers} {answer.body.decode()}" for answer in said if answer.status != 200
        )
        answers += "\n".join(
            a.body.decode() for a in said if a.status == 200 and b"access_token" not in a.body
        )
        assert leaked(wanted, answers) == []


def inside(thing: object, depth: int = 4) -> list[str]:
    """Representations of the objects that the provider client holds, directly or indirectly."""
    said = [repr(vars(thing))]
    for value in vars(thing).values():
        if depth and type(value).__module__.startswith("entra_fast._") and hasattr(value, "__dict__"):
            said += inside(value, depth - 1)
    return said


async def test_no_representation_and_no_exception_holds_a_secret(
    provider: Provider, network: TcpProxy
) -> None:
    """repr of what holds secrets, and the text, arguments and traceback of what is raised."""
    user = provider.mint(oid="user")
    secrets = {"user token": secret_parts(user), "client secret": canary("secret")}
    environ = provider.environment(AZURE_APP_JWK=None, AZURE_APP_CLIENT_SECRET=secrets["client secret"])
    settings = Settings.from_environment(environ)
    sidecar = await start_sidecar(settings)
    acquirer = sidecar.service.served[0].tokens
    assert acquirer is not None
    token = await acquirer.exchange("api://a/.default", user)
    secrets["access token"] = secret_parts(token.access_token)
    said = [repr(settings), repr(token), repr(vars(sidecar.service)), *inside(acquirer)]
    for script in (echo(), raw(200, user.encode()), refuse(400, "invalid_grant", user, claims=user)):
        provider.then(script)  # type: ignore[arg-type]
        task = asyncio.ensure_future(acquirer.exchange("api://b/.default", user))
        await provider.asked(len(provider.requests))
        said += [repr(task), *inside(acquirer)]
        try:
            await task
        except EntraFastError as exc:
            said += [repr(exc), str(exc), repr(exc.args), repr(vars(exc))]
            said += traceback.format_exception(exc)
        said.append(repr(task))
    await sidecar.stop()
    assert len(said) > 20
    assert leaked(secrets, "\n".join(said)) == []


async def test_a_form_that_is_echoed_as_it_was_sent_holds_no_secret(
    provider: Provider, start: StartSidecar
) -> None:
    """Also a secret whose characters have another spelling in a form, and a token behind a long text."""
    secrets = {
        "client secret": "p+a/s:" * 8,
        "in the form": "p%2Ba%2Fs%3A" * 8,
        "user": provider.mint(x="u" * 20_000),
    }

    async def script(request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        quoted = " ".join([await request.text(), form["client_secret"], "x" * 9_000, form["assertion"]])
        return web.json_response({"error": "invalid_grant", "error_description": quoted}, status=400)

    sidecar = await start(AZURE_APP_JWK=None, AZURE_APP_CLIENT_SECRET=secrets["client secret"])
    provider.then(script)
    refused = await sidecar.call.exchange(secrets["user"])
    assert refused.json["error"] == "invalid_grant"
    assert leaked(secrets, refused.body.decode()) == []


def holds(token: str) -> Callable[[object], bool]:
    """Whether a text or bytes contain a secret."""
    encoded = token.encode()
    return lambda text: (
        token in text if isinstance(text, str) else isinstance(text, bytes) and encoded in text
    )


@pytest.mark.parametrize("fault", ["reset", "truncated", "connection refused", "credential rejected"])
async def test_what_fails_holds_no_secret_afterwards(
    start: StartSidecar, provider: Provider, network: TcpProxy, fault: str
) -> None:
    """A failed request leaves the user's token in no reference cycle: otherwise it would stay in memory until
    the garbage collector runs."""
    sidecar = await start()
    await network.stop()
    if fault == "credential rejected":
        provider.always = refuse(401, "invalid_client")
    network.always = {"reset": reset_at_once, "truncated": truncate_after(250)}.get(fault)
    if fault != "connection refused":
        await network.start()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        token = provider.mint()
        assert (await sidecar.call.exchange(token)).status in (401, 500)
        gc.collect()
        kept = [found for found in gc.garbage if any(map(holds(token), gc.get_referents(found)))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert [type(found) for found in kept] == []
