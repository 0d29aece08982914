"""Bearer tokens in aiohttp's web server.

    entra = EntraID(exclude=["/healthz"])
    entra.setup(app)

    @entra.require(Require(role="reader"))
    async def cases(request): return web.json_response({"caller": entra.claims(request).authorized_party})

What belongs here: a middleware, and the life cycle of an application. A middleware runs for unknown paths and
for websockets, too; those of an application and of its sub-applications both run.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import orjson

from entra_fast import _extras

with _extras.importing("aiohttp", "entra_fast.integrations.aiohttp"):
    from aiohttp import web

from entra_fast import Claims
from entra_fast.integrations import _validators
from entra_fast.integrations._bearer import Incoming, is_preflight
from entra_fast.integrations._guard import AsyncGuard, check_is_requirement
from entra_fast.integrations._metadata import HEADERS, ResourceMetadata
from entra_fast.integrations._refusal import Refusal
from entra_fast.integrations._validators import AsyncTokenValidator
from entra_fast.require import Require

__all__ = ["EntraID"]

# Typed keys came with aiohttp 3.14, which warns about strings.
_KEY = web.RequestKey("entra_fast.claims", object) if hasattr(web, "RequestKey") else None

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


class EntraID:
    """Requires a token of every request of an application.

    Args:
        validator: an `AsyncValidator` or an `AsyncSidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, where the validator is from the environment: `tokenx`,
            `["entra_id", "tokenx"]`: see `Validator.from_env`. Maskinporten needs `require`.
        require: what every token must have; by default any access token.
        exclude: paths that need no token, as they stand in the URL: `/healthz`, `/static/*`. For GET and
            HEAD.
        optional: let requests without a token through, too, with None for claims. A bad token is still
            refused.
        realm: name of what is protected, for `WWW-Authenticate`.
        resource_metadata: metadata of the API to serve without a token, and to name in challenges (RFC 9728).

    Attributes:
        CLAIMS: the key of the claims in a request: `request[entra.CLAIMS]`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value.
    """

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
            "aiohttp",
            validator,
            provider=provider,
            require=require,
            exclude=exclude,
            optional=optional,
            realm=realm,
            resource_metadata=resource_metadata,
        )
        # Another object may have another validator: its claims are not ours. aiohttp makes keys at the top
        # level of a module only, so this one is a copy.
        self.CLAIMS: Any = f"entra_fast.claims.{id(self)}" if _KEY is None else copy.copy(_KEY)

    def setup(self, app: web.Application) -> None:
        """Protect an application, and fetch keys while it runs.

        Args:
            app: the application, before it starts.
        """
        app.middlewares.append(self._middleware())
        app.cleanup_ctx.append(self._keys)

    def require(self, requirement: Require) -> Callable[[_Handler], _Handler]:
        """Require something more of the token at one handler: a function, or a method of a `web.View`.

        Args:
            requirement: what the token must have.

        Returns:
            A decorator. The request must pass the middleware first.

        Raises:
            TypeError: `requirement` is no `Require`.
        """
        check_is_requirement(requirement, "require()")

        def decorate(handler: _Handler) -> _Handler:
            @functools.wraps(handler)
            async def guarded(first: Any, *args: Any, **kwargs: Any) -> Any:
                request: web.Request = getattr(first, "request", first)
                try:
                    self._guard.check(self.claims(request), requirement, request.path)
                except Refusal as refusal:
                    return _response(refusal)
                return await handler(first, *args, **kwargs)

            return guarded  # type: ignore[return-value]

        return decorate

    def claims(self, request: web.Request) -> Claims | None:
        """The claims of the token of a request; None if none came: the path is excluded, or the token
        optional.

        Raises:
            RuntimeError: no token was checked for this request.
        """
        if self.CLAIMS not in request:
            raise RuntimeError("no token was checked for this request: call setup on the application")
        claims: Claims | None = request[self.CLAIMS]
        return claims

    def use(self, validator: Any) -> AbstractContextManager[None]:
        """Use another validator for the time being, in the whole application: for tests.

        Args:
            validator: any object with `validate`, which may return or await claims of any kind.
        """
        return self._guard.use(validator)

    def _middleware(self) -> Any:
        @web.middleware
        async def bearer(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            incoming = _incoming(request)
            if (metadata := self._guard.metadata_for(incoming)) is not None:
                return web.Response(body=metadata, content_type="application/json", headers=HEADERS)
            if self.CLAIMS not in request:  # else the application around this one has checked
                try:
                    request[self.CLAIMS] = await self._guard.admit(incoming)
                except Refusal as refusal:
                    return _response(refusal)
            return await handler(request)

        return bearer

    async def _keys(self, app: web.Application) -> AsyncIterator[None]:
        await _validators.start(self._guard.validator)
        yield
        await _validators.close(self._guard.validator)


def _incoming(request: web.Request) -> Incoming:
    headers = request.headers
    return Incoming(
        request.method,
        # As the router compares it. Decoded, "/static%2Fx" would look like a path below "/static/".
        request.rel_url.raw_path,
        headers.getall("Authorization", []),
        is_preflight(request.method, headers.get("Origin"), headers.get("Access-Control-Request-Method")),
    )


def _response(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status,
        body=orjson.dumps(refusal.body),
        content_type="application/json",
        headers=refusal.headers,
    )
