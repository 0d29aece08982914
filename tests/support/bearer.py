"""The table of situations that every integration is tested with, over a socket: docs/guides/frameworks.md in
executable form.

A test module of a framework serves one application with these routes, and runs `SITUATIONS` against it:

| route | requires |
|---|---|
| `/cases` | any access token |
| `/reader` | `READER` |
| `/step-up` | `STEP_UP` |
| `/healthz` | nothing: it is excluded |

Each responds with JSON `{"oid": ...}`, null where there are no claims. The service in which tokens are
optional has `METADATA`, too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from werkzeug.datastructures import WWWAuthenticate

from entra_fast import Require
from entra_fast.integrations import ResourceMetadata
from entra_fast.validate import AsyncValidator, Validator
from support.key_server import KeyServer
from support.tokens import ABSENT, AUDIENCE, ISSUER, NOW, jwks, signer

READER = Require(scope="cases.read") | Require(app=True, role="reader")
STEP_UP = Require(auth_context="c1")
OID = "dddddddd-0000-0000-0000-000000000000"

METADATA = ResourceMetadata(
    resource="https://example.com/cases",
    authorization_servers=[ISSUER],
    scopes=[f"api://{AUDIENCE}/cases.read"],
    name="Cases",
)
METADATA_PATH = "/.well-known/oauth-protected-resource/cases"
METADATA_DOCUMENT = {
    "resource": "https://example.com/cases",
    "authorization_servers": [ISSUER],
    "scopes_supported": [f"api://{AUDIENCE}/cases.read"],
    "bearer_methods_supported": ["header"],
    "resource_name": "Cases",
}

USER: dict[str, Any] = {"idtyp": ABSENT, "roles": ABSENT}


@dataclass(frozen=True)
class Response:
    """A response, read from a socket."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def challenge(self) -> dict[str, str | None]:
        """The parameters of `WWW-Authenticate`, of which there must be one."""
        parsed = WWWAuthenticate.from_header(self.headers["WWW-Authenticate"])
        assert parsed is not None
        assert parsed.type == "bearer"
        return dict(parsed.parameters)


def send(url: str, path: str, *fields: tuple[str, str | bytes], method: str = "GET") -> Response:
    """Send exactly these header fields, and read the response."""
    address = urllib.parse.urlsplit(url)
    head = [f"{method} {path} HTTP/1.1".encode(), f"Host: {address.netloc}".encode(), b"Connection: close"]
    for name, value in fields:
        head.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("utf-8")))
    if method == "POST":
        head.append(b"Content-Length: 0")
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=30) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        response = HTTPResponse(connection, method=method)
        response.begin()
        headers = response.headers
        assert len(headers.get_all("WWW-Authenticate", [])) <= 1
        return Response(response.status, headers, response.read())


def token(**claims: Any) -> str:
    """An access token of an application, by default without a role that matters."""
    return signer().token(**claims)


def bearer(value: str, scheme: str = "Bearer") -> tuple[str, str]:
    return "Authorization", f"{scheme} {value}"


@dataclass(frozen=True)
class Situation:
    """A request and what every framework responds with.

    Attributes:
        fields: the header fields.
        service: `normal`, `optional` (tokens are), or `down` (keys are not available).
        status: the expected status; 0 where the router decides, which must not be a refusal.
        challenge: expected parameters of `WWW-Authenticate` besides `realm`; None where there must be none.
        oid: the expected claims of a request that is let through.
        document: the expected metadata of the API.
    """

    name: str
    fields: Callable[[], tuple[tuple[str, str | bytes], ...]] = tuple
    path: str = "/cases"
    method: str = "GET"
    service: str = "normal"
    status: int = 401
    challenge: dict[str, str] | None = field(default_factory=lambda: {"error": "invalid_token"})
    oid: str | None = None
    document: dict[str, Any] | None = None


def _with(value: str | Callable[[], str], *more: tuple[str, str | bytes]) -> Callable[[], Any]:
    return lambda: (("Authorization", value if isinstance(value, str) else f"Bearer {value()}"), *more)


_INVALID_REQUEST: dict[str, Any] = {"status": 400, "challenge": {"error": "invalid_request"}}
_OK: dict[str, Any] = {"status": 200, "challenge": None, "oid": OID}
_ANONYMOUS: dict[str, Any] = {"status": 200, "challenge": None}
_NO_TOKEN: dict[str, Any] = {"status": 401, "challenge": {}}
_FORBIDDEN: dict[str, Any] = {"status": 403, "challenge": {"error": "insufficient_scope"}}
_PREFLIGHT = (("Origin", "https://other.example"), ("Access-Control-Request-Method", "GET"))

SITUATIONS = (
    Situation("no_token", **_NO_TOKEN),
    Situation("empty_header", _with(""), **_NO_TOKEN),
    Situation("another_scheme", _with("Basic dXNlcjpwYXNz"), **_NO_TOKEN),
    Situation("a_scheme_that_begins_alike", _with("BearerX abc"), **_NO_TOKEN),
    Situation("token_in_the_query", path=f"/cases?access_token={token()}", **_NO_TOKEN),
    Situation("scheme_alone", _with("Bearer"), **_INVALID_REQUEST),
    Situation("scheme_and_spaces", _with("Bearer   "), **_INVALID_REQUEST),
    Situation("space_inside", _with("Bearer abc def"), **_INVALID_REQUEST),
    Situation("comma_inside", _with("Bearer abc,def"), **_INVALID_REQUEST),
    Situation("two_fields", lambda: (bearer(token()), bearer(token())), **_INVALID_REQUEST),
    Situation("two_schemes", lambda: (("Authorization", "Basic dTpw"), bearer(token())), **_INVALID_REQUEST),
    Situation("malformed", _with("Bearer abc")),
    Situation("three_parts_of_nothing", _with("Bearer a.b.c")),
    Situation("expired", _with(lambda: token(exp=int(NOW) - 3600))),
    Situation("not_yet_valid", _with(lambda: token(nbf=int(NOW) + 3600))),
    Situation("wrong_audience", _with(lambda: token(aud="00000000-0000-0000-0000-000000000000"))),
    Situation("wrong_issuer", _with(lambda: token(iss="https://login.example/v2.0"))),
    Situation("forged", _with(lambda: signer("key-1", exponent=3).token()), path="/reader"),
    Situation("valid", _with(token), **_OK),
    Situation("lower_case_scheme", lambda: (bearer(token(), "bearer"),), **_OK),
    Situation("upper_case_scheme", lambda: (bearer(token(), "BEARER"),), **_OK),
    Situation("lower_case_field", lambda: (("authorization", f"Bearer {token()}"),), **_OK),
    Situation("more_spaces", lambda: (bearer(token(), "Bearer  "),), **_OK),
    Situation("user", _with(lambda: token(**USER, scp="x")), **_OK),
    Situation("id_token", _with(lambda: token(**USER, nonce="n")), **_FORBIDDEN),
    Situation(
        "missing_scope",
        _with(lambda: token(**USER, scp="cases.write")),
        path="/reader",
        status=403,
        challenge={"error": "insufficient_scope", "scope": f"api://{AUDIENCE}/cases.read"},
    ),
    Situation("missing_role", _with(token), path="/reader", **_FORBIDDEN),
    Situation("scope", _with(lambda: token(**USER, scp="x cases.read")), path="/reader", **_OK),
    Situation("role", _with(lambda: token(roles=["reader"])), path="/reader", **_OK),
    Situation("no_token_for_a_requirement", path="/reader", **_NO_TOKEN),
    Situation(
        "step_up",
        _with(lambda: token(**USER, scp="x")),
        path="/step-up",
        challenge={
            "error": "insufficient_claims",
            "authorization_uri": ISSUER.removesuffix("/v2.0") + "/oauth2/v2.0/authorize",
            "claims": base64.b64encode(b'{"access_token":{"acrs":{"essential":true,"value":"c1"}}}').decode(),
        },
    ),
    Situation("stepped_up", _with(lambda: token(**USER, scp="x", acrs=["c1"])), path="/step-up", **_OK),
    Situation("keys_down", _with(token), service="down", status=503, challenge=None),
    Situation("keys_down_and_no_token", service="down", **_NO_TOKEN),
    Situation("keys_down_and_malformed", _with("Bearer abc def"), service="down", **_INVALID_REQUEST),
    Situation("excluded", path="/healthz", **_ANONYMOUS),
    Situation("excluded_and_down", path="/healthz", service="down", **_ANONYMOUS),
    Situation("excluded_with_a_bad_token", _with("Bearer abc def"), path="/healthz", **_ANONYMOUS),
    Situation("excluded_head", path="/healthz", method="HEAD", **_ANONYMOUS),
    Situation("optional", service="optional", **_ANONYMOUS),
    Situation("optional_with_another_scheme", _with("Basic dTpw"), service="optional", **_ANONYMOUS),
    Situation("optional_with_a_token", _with(token), service="optional", **_OK),
    Situation("optional_with_a_bad_token", _with("Bearer abc"), service="optional"),
    Situation("optional_for_a_requirement", path="/reader", service="optional", **_NO_TOKEN),
    Situation("head", method="HEAD", **_NO_TOKEN),
    Situation("head_with_a_token", _with(token), method="HEAD", **_OK),
    Situation("post", method="POST", **_NO_TOKEN),
    Situation("metadata", path=METADATA_PATH, service="optional", document=METADATA_DOCUMENT, **_ANONYMOUS),
    Situation("metadata_head", path=METADATA_PATH, method="HEAD", service="optional", **_ANONYMOUS),
    Situation(
        "metadata_with_a_bad_token",
        _with("Bearer abc def"),
        path=METADATA_PATH,
        service="optional",
        document=METADATA_DOCUMENT,
        **_ANONYMOUS,
    ),
    Situation("optional_with_two_tokens", _with("Bearer abc def"), service="optional", **_INVALID_REQUEST),
    Situation(
        "optional_and_not_sufficient",
        _with(lambda: token(**USER, scp="x")),
        path="/reader",
        service="optional",
        **_FORBIDDEN,
    ),
    Situation(
        "optional_step_up",
        _with(lambda: token(**USER, scp="x")),
        path="/step-up",
        service="optional",
        challenge={
            "error": "insufficient_claims",
            "authorization_uri": ISSUER.removesuffix("/v2.0") + "/oauth2/v2.0/authorize",
            "claims": base64.b64encode(b'{"access_token":{"acrs":{"essential":true,"value":"c1"}}}').decode(),
        },
    ),
    Situation("preflight", lambda: _PREFLIGHT, method="OPTIONS", status=0, challenge=None),
)

# What a server itself may refuse.
NON_ASCII = (b"Bearer \xc3\xa6\xc3\xb8\xc3\xa5.b.c", b"Bearer \xff\xfe", b"Bearer a\x80b")


@dataclass(frozen=True)
class Services:
    """The running applications of a framework, by the names that situations use.

    Attributes:
        no_store: whether the framework lets us set `Cache-Control` of a refusal.
    """

    urls: Mapping[str, str]
    no_store: bool = True

    def run(self, situation: Situation) -> Response:
        """Send the request of a situation, and check what is the same everywhere."""
        fields = situation.fields()
        response = send(self.urls[situation.service], situation.path, *fields, method=situation.method)
        if situation.status == 0:
            assert response.status not in (400, 401, 403, 500, 503), response
        else:
            assert response.status == situation.status, response
        if situation.challenge is None:
            assert "WWW-Authenticate" not in response.headers
        else:
            found = response.challenge
            assert found.pop("realm") == "api"
            # RFC 9728, section 5.1: in every challenge of a service that has metadata, and in no other.
            address = f"https://example.com{METADATA_PATH}" if situation.service == "optional" else None
            assert found.pop("resource_metadata", None) == address
            described = found.pop("error_description", None)
            # RFC 6750, section 3.1: nothing about an error where no token came.
            assert bool(described) == bool(situation.challenge)
            if "scope" not in situation.challenge:
                found.pop("scope", None)
            assert found == situation.challenge
        if situation.status in (400, 401, 403, 503) and self.no_store:
            assert response.headers["Cache-Control"] == "no-store"
        if situation.status == 503:
            assert int(response.headers["Retry-After"]) > 0
        if situation.method == "HEAD":
            assert response.body == b""
        elif situation.document is not None:
            assert response.json == situation.document
            assert response.headers["Content-Type"] == "application/json"
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        elif situation.status == 200:
            assert response.json == {"oid": situation.oid}
        repeats_nothing(response, fields)
        return response

    def run_non_ascii(self, value: bytes) -> None:
        """Bytes that no token has are refused, by the server or as a bad token, and never an error of
        ours."""
        response = send(self.urls["normal"], "/cases", ("Authorization", value))
        assert response.status in (400, 401), response
        if response.status == 401:
            assert response.challenge["error"] == "invalid_token"


def repeats_nothing(response: Response, fields: tuple[tuple[str, str | bytes], ...]) -> None:
    """No part of a token is in the response."""
    said = response.body.decode("utf-8", "replace") + str(response.headers)
    for _, value in fields:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        for part in text.replace(".", " ").split():
            assert len(part) < 16 or part not in said


Serve = Callable[[str], AbstractContextManager[str]]
"""Serves the application in the way that `normal`, `optional` or `down` names, and gives its URL."""


@contextmanager
def services(serve: Serve, *, no_store: bool = True) -> Iterator[Services]:
    """All three, running."""
    with serve("normal") as normal, serve("optional") as optional, serve("down") as down:
        yield Services({"normal": normal, "optional": optional, "down": down}, no_store)


@contextmanager
def keys(service: str) -> Iterator[str]:
    """The URL of a provider's keys; for `down`, where nobody listens."""
    if service == "down":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{unused.getsockname()[1]}/keys"
        return
    with KeyServer(jwks(signer())) as server:
        yield server.keys_url


@contextmanager
def sync_validator(service: str) -> Iterator[Validator]:
    """A real validator that fetches its keys."""
    with keys(service) as url:
        validator = Validator(ISSUER, AUDIENCE, jwks_uri=url, clock=lambda: NOW)
        yield validator
        validator.close()


@contextmanager
def async_validator(service: str) -> Iterator[AsyncValidator]:
    """The same for an event loop; the application closes it."""
    with keys(service) as url:
        yield AsyncValidator(ISSUER, AUDIENCE, jwks_uri=url, clock=lambda: NOW)


@contextmanager
def uvicorn_server(app: Any, **options: Any) -> Iterator[str]:
    """An ASGI application on uvicorn, in a thread."""
    import uvicorn

    config = uvicorn.Config(app, log_level="error", **{"port": 0, "lifespan": "on", **options})
    server = uvicorn.Server(config)

    def run() -> None:
        with suppress(SystemExit):  # the application did not start
            server.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the application did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def waitress_server(app: Any) -> Iterator[str]:
    """A WSGI application on waitress, in threads."""
    import waitress.server

    server: Any = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        # Its loop ends when it has no socket left. It may be awake already, and close the trigger's pipe
        # before the trigger is pulled.
        with suppress(OSError):
            server.trigger.pull_trigger(server.close)
        thread.join()
        server.task_dispatcher.shutdown()


@contextmanager
def server_process(command: Sequence[str], **environ: str) -> Iterator[str]:
    """A server in a process of its own, which finds the modules of `tests/`.

    Args:
        command: the module to run and its arguments; `{port}` is replaced.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", *(part.format(port=port) for part in command)]
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(arguments, env={**os.environ, **path, **environ}) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def aiohttp_server(make: Callable[[], Any]) -> Iterator[str]:
    """An application on its own loop, in a thread."""
    from aiohttp import web

    loop = asyncio.new_event_loop()
    started: Any = threading.Event()
    url: list[str] = []
    stop = asyncio.Event()

    async def run() -> None:
        runner = web.AppRunner(make())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(30)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
