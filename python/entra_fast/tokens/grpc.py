"""Tokens for calls of gRPC.

    from entra_fast.tokens.grpc import GrpcAuth, GrpcRenewal

    auth = GrpcAuth(tokens, "dev-gcp:team-b:app-b", origins=["https://app-b.example"])
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(auth)
    )
    channel = grpc.secure_channel("app-b.example:443", credentials)
    channel = grpc.intercept_channel(channel, GrpcRenewal(auth))           # answers claims challenges

The plugin runs in a thread of gRPC, with `grpc.aio` too: both take a `TokenClient`. gRPC sends call
credentials through secure channels only. Needs grpcio, which is loaded with this module.
"""

from __future__ import annotations

import asyncio
import inspect
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

from entra_fast import _extras

with _extras.importing("grpc", "GrpcAuth"):
    import grpc
    import grpc.aio

from entra_fast.errors import EntraFastError
from entra_fast.tokens._authentication import Authentication, TokenSource, claims_challenge

__all__ = ["AioGrpcRenewal", "GrpcAuth", "GrpcRenewal"]


class GrpcAuth(grpc.AuthMetadataPlugin):
    """Attaches a token to calls.

    Args:
        tokens: a `TokenClient`; or what its `for_user` returns, for tokens on behalf of that user.
        target: `<cluster>:<namespace>:<app>`, or a scope.
        origins: the origins that get the token, such as `https://app-b.example` or
            `https://app-b.example:8443`.

    Raises:
        ConfigurationError: code `origin_invalid`.
        TypeError: `tokens` is asynchronous.
    """

    def __init__(self, tokens: TokenSource, target: str, *, origins: Iterable[str]) -> None:
        if inspect.iscoroutinefunction(tokens.token):
            raise TypeError("gRPC asks for tokens in a thread: pass a TokenClient, not an AsyncTokenClient")
        self._authentication = Authentication(tokens, target, origins)

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """See gRPC."""
        try:
            url = urllib.parse.urlsplit(context.service_url)
            if self._authentication.origins.allow(url.scheme, url.hostname, url.port):
                callback((("authorization", self._authentication.token().authorization),), None)
            else:
                callback((), None)
        except (EntraFastError, ValueError) as error:
            # The text becomes the status of the call, and no error of ours contains a secret.
            callback((), EntraFastError("token_unavailable", f"no token for the call: {error}"))

    def renew(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
        """Whether a refusal was a claims challenge and there is a new token for it, which the next call gets.

        Args:
            metadata: the trailing metadata of the refused call.

        Raises:
            ProviderError: the provider refused the new token; `details["claims"]` is the challenge.
        """
        fields = [
            value for name, value in metadata or () if name == "www-authenticate" and isinstance(value, str)
        ]
        claims = claims_challenge(fields)
        if claims is None:
            return False
        self._authentication.token(claims)
        return True


class GrpcRenewal(grpc.UnaryUnaryClientInterceptor):
    """Repeats a unary call once with a new token when its refusal has a claims challenge: status
    `UNAUTHENTICATED`, and `www-authenticate` in the trailing metadata. Waits for the response, also of calls
    made with `future`.

    Args:
        auth: what attaches the tokens.
    """

    def __init__(self, auth: GrpcAuth) -> None:
        self._auth = auth

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """See gRPC."""
        call = continuation(details, request)
        if call.code() is grpc.StatusCode.UNAUTHENTICATED and self._auth.renew(call.trailing_metadata()):
            return continuation(details, request)
        return call


class AioGrpcRenewal(grpc.aio.UnaryUnaryClientInterceptor):
    """`GrpcRenewal` for `grpc.aio`.

    Args:
        auth: what attaches the tokens.
    """

    def __init__(self, auth: GrpcAuth) -> None:
        self._auth = auth

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        """See gRPC."""
        call = await continuation(details, request)
        if await call.code() is grpc.StatusCode.UNAUTHENTICATED:
            metadata = await call.trailing_metadata()
            if await asyncio.to_thread(self._auth.renew, metadata):
                return await continuation(details, request)
        return call
