"""Bearer tokens for any ASGI application: a middleware without a framework.

    app.asgi_app = EntraID(exclude=["/healthz"]).middleware(app.asgi_app)    # Quart

What belongs here: the ASGI protocol. Starlette, FastAPI and Litestar build on this module.

The middleware is outside of the router, so it covers mounted applications, static files, websockets and
documentation, too. It handles `lifespan`, so keys are fetched when the server starts, also if the application
has no lifespan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any, Final

import orjson

from entra_fast import Claims
from entra_fast.errors import ConfigurationError
from entra_fast.integrations import _validators
from entra_fast.integrations._bearer import Exclusions, Incoming, is_preflight
from entra_fast.integrations._guard import AsyncGuard
from entra_fast.integrations._metadata import HEADERS, ResourceMetadata
from entra_fast.integrations._refusal import Refusal
from entra_fast.integrations._validators import AsyncTokenValidator
from entra_fast.require import Require

__all__ = ["EntraID", "Refusal"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""Frameworks have types of their own for the three arguments."""

_WEBSOCKET_DENIAL: Final = "websocket.http.response"
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1


class EntraID:
    """Requires a token of every request.

    Args:
        validator: an `AsyncValidator` or an `AsyncSidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, where the validator is from the environment: `tokenx`,
            `["entra_id", "tokenx"]`: see `Validator.from_env`. Maskinporten needs `require`.
        require: what every token must have; by default any access token.
        exclude: paths that need no token: `/healthz`, `/static/*`. For GET and HEAD.
        optional: let requests without a token through, too, with None for claims. A bad token is still
            refused.
        realm: name of what is protected, for `WWW-Authenticate`.
        resource_metadata: metadata of the API to serve without a token, and to name in challenges (RFC 9728).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value.
    """

    _framework = "asgi"

    def __init__(
        self,
        validator: AsyncTokenValidator | None = None,
        *,
        provider: str | Sequence[str] | None = None,
        require: Require | None = None,
        exclude: Iterable[str] = (),
        optional: bool = False,
        realm: str = "api",
        resource_metadata: ResourceMetadata | None = None,
    ) -> None:
        self._guard = AsyncGuard(
            self._framework,
            validator,
            provider=provider,
            require=require,
            exclude=exclude,
            optional=optional,
            realm=realm,
            resource_metadata=resource_metadata,
        )
        # Another object may have another validator: its claims are not ours.
        self._scope_key = f"entra_fast.claims.{id(self)}"

    def middleware(self, app: ASGIApp, exclude: Iterable[str] | None = None) -> ASGIApp:
        """The application, behind this middleware.

        Args:
            app: an ASGI application.
            exclude: paths that need no token, in addition to those of this object.
        """
        return _Middleware(self, app, () if exclude is None else exclude)

    def use(self, validator: Any) -> AbstractContextManager[None]:
        """Use another validator for the time being, in the whole application: for tests.

        Args:
            validator: any object with `validate`, which may return or await claims of any kind.
        """
        return self._guard.use(validator)

    def body(self, refusal: Refusal) -> dict[str, str]:
        """The JSON body of a refused request. Override it where clients expect another form."""
        return refusal.body

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Fetch keys while the application runs: for the framework's `lifespan`.

        Args:
            app: the application. Frameworks pass it.
        """
        await _validators.start(self._guard.validator)
        try:
            yield
        finally:
            await _validators.close(self._guard.validator)

    def claims(self, connection: Any) -> Claims | None:
        """The claims of the token of a request.

        Args:
            connection: the framework's request or websocket, or the ASGI scope.

        Returns:
            None if none came: the path is excluded, or the token optional.

        Raises:
            RuntimeError: the request did not pass the middleware.
        """
        scope: Scope = connection if isinstance(connection, dict) else connection.scope
        if self._scope_key not in scope:
            raise RuntimeError(
                "no token was checked for this request: add the middleware of EntraID to the application"
            )
        claims: Claims | None = scope[self._scope_key]
        return claims


class _Middleware:
    """An ASGI application in front of another."""

    def __init__(self, entra: EntraID, app: ASGIApp, exclude: Iterable[str]) -> None:
        self._entra = entra
        self._guard = entra._guard
        self._app = app
        self._exclusions = Exclusions(exclude)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, _Lifespan(self._entra, send))
            return
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        incoming = incoming_of(scope)
        if kind == "http" and (metadata := self._guard.metadata_for(incoming)) is not None:
            await _respond(200, HEADERS, metadata, scope, send)
            return
        try:
            exempt = self._guard.exempt(incoming, self._exclusions)
            scope[self._entra._scope_key] = None if exempt else await self._guard.authenticate(incoming)
        except Refusal as refusal:
            await respond(refusal, orjson.dumps(self._entra.body(refusal)), scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Lifespan:
    """Starts and stops the validator with the application behind it."""

    def __init__(self, entra: EntraID, send: Send) -> None:
        self._entra = entra
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            try:
                await _validators.start(self._entra._guard.validator)
            except ConfigurationError as error:
                message = {"type": "lifespan.startup.failed", "message": str(error)}
        elif message["type"] == "lifespan.shutdown.complete":
            with suppress(Exception):  # the server is ending in any case
                await _validators.close(self._entra._guard.validator)
        await self._send(message)


def incoming_of(scope: Scope) -> Incoming:
    """What the decision needs of an HTTP request or a websocket."""
    authorization: list[str] = []
    origin = requested = None
    for name, value in scope["headers"]:
        lower = name.lower()
        if lower == b"authorization":
            authorization.append(value.decode("latin-1"))
        elif lower == b"origin":
            origin = value.decode("latin-1")
        elif lower == b"access-control-request-method":
            requested = value.decode("latin-1")
    method = scope.get("method", "GET")
    return Incoming(method, router_path(scope), authorization, is_preflight(method, origin, requested))


def router_path(scope: Scope) -> str:
    """The path that the application's router compares: without the `root_path` of a mount or a proxy, at the
    boundary of a segment. Never from a URL that was put together with `Host` (CVE-2026-48710)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


async def respond(refusal: Refusal, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a refusal: as a response, or for a websocket before it is accepted.

    Args:
        body: the JSON body.
    """
    prefix = "http.response"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        if _WEBSOCKET_DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        prefix = _WEBSOCKET_DENIAL
    await _respond(refusal.status, refusal.headers, body, scope, send, prefix)


async def _respond(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    scope: Scope,
    send: Send,
    prefix: str = "http.response",
) -> None:
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in headers.items()),
    ]
    await send({"type": f"{prefix}.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.body", "body": b"" if scope.get("method") == "HEAD" else body})
