"""Bearer tokens in gRPC servers on asyncio.

    entra = EntraIDInterceptor({"/cases.v1.Cases/*": Require(app=True)}, exclude=["/grpc.health.v1.Health/*"])
    async with entra.lifespan():
        server = grpc.aio.server(interceptors=[entra])

What belongs here: metadata, status codes and method names. The table of docs/guides/frameworks.md holds with
these codes: 400 and 401 are `UNAUTHENTICATED`, 403 is `PERMISSION_DENIED`, 503 is `UNAVAILABLE`; the
challenge is in the trailing metadata, as `www-authenticate`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from entra_fast import _extras

with _extras.importing("grpc", "entra_fast.integrations.grpc"):
    import grpc
    import grpc.aio

from entra_fast import Claims
from entra_fast.integrations import _validators
from entra_fast.integrations._bearer import Exclusions, Incoming
from entra_fast.integrations._guard import AsyncGuard
from entra_fast.integrations._refusal import Refusal
from entra_fast.integrations._validators import AsyncTokenValidator
from entra_fast.require import Require

__all__ = ["EntraIDInterceptor", "claims"]

_CODES = {
    400: grpc.StatusCode.UNAUTHENTICATED,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}

_claims: ContextVar[Claims | None] = ContextVar("entra_fast_claims")


def claims() -> Claims | None:
    """The claims of the token of the current call; None if none came: the method is excluded, or the token
    optional.

    Raises:
        RuntimeError: no token was checked for this call, or there is no call.
    """
    try:
        return _claims.get()
    except LookupError:
        raise RuntimeError(
            "no token was checked: add EntraIDInterceptor to the server's interceptors"
        ) from None


class EntraIDInterceptor(grpc.aio.ServerInterceptor):
    """Requires a token of every call.

    Args:
        methods: what to require, by method (`/cases.v1.Cases/Get`) or service (`/cases.v1.Cases/*`). A method
            wins over its service. Other methods need what `require` says.
        validator: an `AsyncValidator` or an `AsyncSidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, where the validator is from the environment: `tokenx`,
            `["entra_id", "tokenx"]`: see `Validator.from_env`. Maskinporten needs `require`.
        require: what every token must have where `methods` has nothing; by default any access token.
        exclude: methods or services that need no token, in the same forms.
        optional: let calls without a token through, too, with None for claims. A bad token is still refused.
        realm: name of what is protected, for the challenge.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value.
    """

    def __init__(
        self,
        methods: Mapping[str, Require] | None = None,
        validator: AsyncTokenValidator | None = None,
        *,
        provider: str | Sequence[str] | None = None,
        require: Require | None = None,
        exclude: Iterable[str] = (),
        optional: bool = False,
        realm: str = "api",
    ) -> None:
        self._guard = AsyncGuard(
            "grpc",
            validator,
            provider=provider,
            require=require,
            exclude=exclude,
            optional=optional,
            realm=realm,
        )
        self._methods = dict(methods or {})
        Exclusions(self._methods)  # the same forms
        for method, requirement in self._methods.items():
            if not isinstance(requirement, Require):
                raise TypeError(f"methods: {method} has {type(requirement).__name__} instead of a Require")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        authorization = [
            value if isinstance(value, str) else value.decode("latin-1")
            for name, value in metadata
            if name.lower() == "authorization"
        ]
        incoming = Incoming("GET", method, authorization)  # exclusions are for GET
        requirement = self.requirement_of(method)
        # What names a requirement of its own needs a token, also where tokens are optional.
        optional = self._guard.optional and requirement is self._guard.requirement
        try:
            exempt = self._guard.exempt(incoming)
            found = None if exempt else await self._guard.authenticate(incoming, requirement, optional)
        except Refusal as refusal:
            return _denying(refusal)
        # Interceptors and the method's handler run in one task.
        _claims.set(found)
        return await continuation(handler_call_details)

    def requirement_of(self, method: str) -> Require:
        """What a method requires.

        Args:
            method: its full name, as `/cases.v1.Cases/Get`.
        """
        service = f"{method.rpartition('/')[0]}/*"
        return self._methods.get(method, self._methods.get(service, self._guard.requirement))

    def use(self, validator: Any) -> AbstractContextManager[None]:
        """Use another validator for the time being, in the whole server: for tests.

        Args:
            validator: any object with `validate`, which may return or await claims of any kind.
        """
        return self._guard.use(validator)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Fetch keys while the server runs, instead of at the first call."""
        await _validators.start(self._guard.validator)
        try:
            yield
        finally:
            await _validators.close(self._guard.validator)


def _denying(refusal: Refusal) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that ends the call. On asyncio one for unary calls serves streams, too."""
    trailing = [(name.lower(), value) for name, value in refusal.headers.items() if name != "Cache-Control"]

    async def deny(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(_CODES[refusal.status], refusal.description, trailing_metadata=tuple(trailing))

    return grpc.unary_unary_rpc_method_handler(deny)
