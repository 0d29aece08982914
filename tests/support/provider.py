"""A provider that does what the test says: a real HTTP server that signs real tokens.

It is no emulator: it enforces no policy. It records what it was sent and answers from a script.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web

from entra_fast._providers import ProviderKind
from support.keys import Key

TENANT = "00000000-1111-2222-3333-444444444444"
CLIENT_ID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
CLIENT_KEY = Key.generate()
PROVIDER_KEY = Key.generate()  # making keys takes the time

Script = Callable[[web.Request, dict[str, str]], Awaitable[web.StreamResponse]]


class Paths(NamedTuple):
    """Where a provider has what: the path of its issuer, and of its documents and endpoints."""

    issuer: str
    well_known: str
    token: str
    keys: str


PATHS = {
    "entra_id": Paths(
        f"/{TENANT}/v2.0",
        f"/{TENANT}/v2.0/.well-known/openid-configuration",
        f"/{TENANT}/oauth2/v2.0/token",
        f"/{TENANT}/discovery/v2.0/keys",
    ),
    "maskinporten": Paths("/", "/.well-known/oauth-authorization-server", "/token", "/jwk"),
    "tokenx": Paths("", "/.well-known/oauth-authorization-server", "/token", "/jwks"),
    "idporten": Paths("", "/.well-known/openid-configuration", "/token", "/jwks.json"),
}


@dataclass
class Recorded:
    """One request to the token endpoint."""

    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class Provider:
    """The running provider. `script` holds answers for the next token requests, `always` one for all that
    follow; without either it grants. Tries of the sidecar's credential are no such `requests`: they are in
    `tries`, and `on_try` answers them; without it they are granted. `key_set` replaces the key set that it
    publishes, `keys_held` keeps it back for so long. Its clock is `clock_offset` ahead. `paths` are those of
    Entra ID, or of another provider."""

    paths: Paths = PATHS["entra_id"]
    base_url: str = ""
    port: int = 0
    key: Key = PROVIDER_KEY
    published: list[Key] = field(default_factory=list)
    requests: list[Recorded] = field(default_factory=list)
    tries: list[Recorded] = field(default_factory=list)
    on_try: Script | None = None
    script: list[Script] = field(default_factory=list)
    always: Script | None = None
    key_set: bytes | None = None
    keys_held: asyncio.Event | None = None
    clock_offset: float = 0.0
    jwks_requests: int = 0
    discovery_requests: int = 0
    lifetime: int = 3600
    failing: bool = False
    _runner: web.AppRunner | None = None

    @property
    def issuer(self) -> str:
        return self.base_url + self.paths.issuer

    @property
    def well_known_url(self) -> str:
        return self.base_url + self.paths.well_known

    @property
    def token_endpoint(self) -> str:
        return self.base_url + self.paths.token

    @property
    def jwks_uri(self) -> str:
        return self.base_url + self.paths.keys

    async def start(
        self, port: int = 0, *, tls: ssl.SSLContext | None = None, public_url: str | None = None
    ) -> None:
        """`public_url`: what it calls itself, where clients reach it by another address than its own."""
        self.published = self.published or [self.key]
        app = web.Application()
        app.router.add_get(self.paths.well_known, self._discovery)
        app.on_response_prepare.append(self._date)
        app.router.add_get("/common/v2.0/.well-known/openid-configuration", self._common_discovery)
        app.router.add_get(self.paths.keys, self._keys)
        app.router.add_post(self.paths.token, self._token)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]
        own = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        self.base_url = public_url or own

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def environment(self, **changes: str | None) -> dict[str, str]:
        """What NAIS would inject. A change of None leaves a variable out."""
        environ: dict[str, str | None] = {
            "BIND_ADDRESS": "127.0.0.1:0",
            "AZURE_APP_CLIENT_ID": CLIENT_ID,
            "AZURE_APP_TENANT_ID": TENANT,
            "AZURE_APP_WELL_KNOWN_URL": self.well_known_url,
            "AZURE_APP_JWK": CLIENT_KEY.private_jwk(),
            "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",
            **changes,
        }
        return {name: value for name, value in environ.items() if value is not None}

    def variables(self, kind: ProviderKind, **changes: str | None) -> dict[str, str]:
        """What NAIS would inject for a provider of this kind, with the discovery document alone for its
        endpoints. A change of None leaves a variable out."""
        names = kind.variables
        own: dict[str | None, str | None] = {
            names.enabled: "true",
            names.client_id: CLIENT_ID,
            names.audience: CLIENT_ID,
            names.jwk: CLIENT_KEY.private_jwk(),
            names.well_known_url: self.well_known_url,
        }
        environ = {name: value for name, value in own.items() if name is not None} | changes
        return {name: value for name, value in environ.items() if value is not None}

    def mint(self, *, key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for the sidecar's application; a claim of None is left out."""
        key = key or self.key
        now = int(time.time())
        content = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "subject",
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
            "uti": uuid.uuid4().hex,
            **claims,
        }
        content = {name: value for name, value in content.items() if value is not None}
        head = {"typ": "JWT", "alg": key.algorithm, "kid": key.kid, **(header or {})}
        return key.sign(json.dumps(head).encode(), json.dumps(content).encode())

    def then(self, *answers: Script) -> None:
        """Respond like this to the next token requests."""
        self.script.extend(answers)

    def grant(self, form: dict[str, str]) -> dict[str, Any]:
        answer = {"token_type": "Bearer", "expires_in": self.lifetime}
        if form.get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange":
            subject = segment(form["subject_token"], 1)
            token = self.mint(**{**subject, "iss": self.issuer, "aud": form["audience"]})
            issued = "urn:ietf:params:oauth:token-type:access_token"
            return {**answer, "access_token": token, "issued_token_type": issued}
        if "requested_token_use" not in form and "assertion" in form:
            asked = segment(form["assertion"], 1)
            token = self.mint(
                sub=None, aud=asked.get("resource"), scope=asked["scope"], client_id=asked["iss"]
            )
            return {**answer, "access_token": token, "scope": asked["scope"]}
        token = self.mint(aud=form.get("scope", ""), azp=form.get("client_id"))
        return {**answer, "access_token": token}

    async def asked(self, times: int) -> None:
        """Wait until the token endpoint was called this many times."""
        async with asyncio.timeout(20):
            while len(self.requests) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        """`Date` by the provider's own clock."""
        response.headers["Date"] = email.utils.formatdate(time.time() + self.clock_offset, usegmt=True)

    async def _discovery(self, _: web.Request) -> web.StreamResponse:
        self.discovery_requests += 1
        if self.failing:
            return web.Response(status=503)
        return web.json_response(
            {"issuer": self.issuer, "jwks_uri": self.jwks_uri, "token_endpoint": self.token_endpoint}
        )

    async def _common_discovery(self, _: web.Request) -> web.StreamResponse:
        """For applications of any tenant, as Entra ID has it."""
        issuer = f"{self.base_url}/{{tenantid}}/v2.0"
        return web.json_response(
            {"issuer": issuer, "jwks_uri": self.jwks_uri, "token_endpoint": self.token_endpoint}
        )

    async def _keys(self, _: web.Request) -> web.StreamResponse:
        self.jwks_requests += 1
        if self.keys_held is not None:
            await self.keys_held.wait()
        if self.failing:
            return web.Response(status=503)
        if self.key_set is not None:
            return web.Response(body=self.key_set, content_type="application/json")
        return web.json_response({"keys": [json.loads(key.public_jwk()) for key in self.published]})

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = dict(urllib.parse.parse_qsl(await request.text(), strict_parsing=True))
        recorded = Recorded(form, dict(request.headers))
        if form.get("scope") == f"{form.get('client_id')}/.default":
            self.tries.append(recorded)
            if self.failing:
                return web.Response(status=503)
            return await (self.on_try or granting(self))(request, form)
        self.requests.append(recorded)
        if self.failing:
            return web.Response(status=503)
        if self.script:
            return await self.script.pop(0)(request, form)
        if self.always is not None:
            return await self.always(request, form)
        return web.json_response(self.grant(form))


def answer(status: int, body: object, **headers: str) -> Script:
    """Answer with JSON."""

    async def script(_: web.Request, __: dict[str, str]) -> web.StreamResponse:
        return web.json_response(
            body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return script


def raw(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Script:
    """Answer with these bytes."""

    async def script(_: web.Request, __: dict[str, str]) -> web.StreamResponse:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return web.Response(status=status, body=body, headers={"Content-Type": content_type, **named})

    return script


def refuse(status: int, error: str, description: str = "refused", **more: object) -> Script:
    """Answer with an OAuth error."""
    return answer(status, {"error": error, "error_description": description, **more})


def reset() -> Script:
    """Close the connection without an answer."""

    async def script(request: web.Request, _: dict[str, str]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    return script


def truncate() -> Script:
    """Promise more bytes than are sent."""

    async def script(request: web.Request, _: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "500"})
        await response.prepare(request)
        await response.write(b'{"access_token":"')
        assert request.transport is not None
        request.transport.close()
        return response

    return script


def after(event: asyncio.Event, provider: Provider, then: Script | None = None) -> Script:
    """Issue a token, or do what `then` says, once the event is set."""

    async def script(request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        await event.wait()
        return web.json_response(provider.grant(form)) if then is None else await then(request, form)

    return script


def granting(provider: Provider, **changes: object) -> Script:
    """Issue a token, with changed members in the response; None leaves one out."""

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        document = {**provider.grant(form), **changes}
        return web.json_response({name: value for name, value in document.items() if value is not None})

    return script


def segment(token: str, index: int) -> Any:
    """A decoded segment of a token."""
    part = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
