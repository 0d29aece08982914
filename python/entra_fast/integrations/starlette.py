"""Bearer tokens in Starlette.

    entra = EntraID()
    guard = Middleware(entra.middleware, exclude=["/healthz"])
    app = Starlette(routes=routes, lifespan=entra.lifespan, middleware=[guard])

What belongs here: requirements of single endpoints. The middleware is that of `asgi.py`. Add middleware for
CORS in front of it: the browser must be able to read a refusal.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from entra_fast import _extras

with _extras.importing("starlette", "entra_fast.integrations.starlette"):
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocket

from entra_fast.integrations import asgi
from entra_fast.integrations._guard import check_is_requirement
from entra_fast.integrations._refusal import Refusal
from entra_fast.require import Require

__all__ = ["EntraID"]

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


class EntraID(asgi.EntraID):
    """Requires a token of every request of an application. See `entra_fast.integrations.asgi.EntraID`."""

    _framework = "starlette"

    def require(self, requirement: Require) -> Callable[[_Endpoint], _Endpoint]:
        """Require something more of the token at one endpoint: a function, or a method of an `HTTPEndpoint`.

        Args:
            requirement: what the token must have.

        Returns:
            A decorator. The request must pass the middleware first.

        Raises:
            TypeError: `requirement` is no `Require`.
        """
        check_is_requirement(requirement, "require()")

        def decorate(endpoint: _Endpoint) -> _Endpoint:
            @functools.wraps(endpoint)
            async def guarded(*args: Any, **kwargs: Any) -> Any:
                found = (one for one in (*args, *kwargs.values()) if isinstance(one, HTTPConnection))
                connection = next(found, None)
                if connection is None:
                    raise TypeError("the endpoint was called without a request or a websocket")
                try:
                    self._guard.check(
                        self.claims(connection), requirement, asgi.router_path(connection.scope)
                    )
                except Refusal as refusal:
                    response = JSONResponse(self.body(refusal), refusal.status, refusal.headers)
                    if isinstance(connection, WebSocket):
                        return await _deny(connection, response)
                    return response
                if inspect.iscoroutinefunction(endpoint):
                    return await endpoint(*args, **kwargs)
                return await run_in_threadpool(endpoint, *args, **kwargs)

            return guarded  # type: ignore[return-value]

        return decorate


def _deny(websocket: WebSocket, response: JSONResponse) -> Awaitable[None]:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        return websocket.send_denial_response(response)
    return websocket.close(1008)
