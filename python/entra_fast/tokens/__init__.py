"""Tokens for calling other APIs: for the application itself, and on behalf of a user.

    from entra_fast.tokens import AsyncTokenClient, TokenClient

    async with AsyncTokenClient() as tokens:
        token = await tokens.on_behalf_of("dev-gcp:team-b:app-b", users_token)

Authentication classes that attach the tokens to requests are in the modules `httpx`, `httpx2`, `requests`,
`aiohttp` and `grpc` of this package, one for each HTTP client. None of them is imported here.
"""

from __future__ import annotations

from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from entra_fast.tokens._clients import AsyncTokenClient, AsyncUserTokens, TokenClient, UserTokens
from entra_fast.tokens._token import AccessToken, Token

__all__ = [
    "AccessToken",
    "AsyncTokenClient",
    "AsyncUserTokens",
    "ConfigurationError",
    "EntraFastError",
    "ProviderError",
    "Token",
    "TokenClient",
    "UserTokens",
]
