"""The token clients: `AsyncTokenClient` for asyncio, `TokenClient` for threads.

What belongs here: the public classes, and which event loop their requests run on. What must never be here:
how a token is obtained (`_provider/token_client.py`), and from where (_connections.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, Unpack
from weakref import WeakKeyDictionary

from entra_fast._native import TokenCache
from entra_fast._provider import transport
from entra_fast._sweeping import ThreadTokenSweeps
from entra_fast.errors import ProviderError
from entra_fast.tokens import _background, _connections
from entra_fast.tokens._azure import AsyncAzureCredential, AzureCredential
from entra_fast.tokens._connections import Connection, ProviderOptions, Session
from entra_fast.tokens._token import Token, public

CACHED_TOKENS: Final = 100_000
CACHE_BYTES: Final = 256 << 20
"""Limits of the cache of one client."""

GRACE: Final = 5.0
"""Seconds that a thread waits for its request beyond the time that the request may take."""


class AsyncTokenClient(AsyncAzureCredential):
    """Gets tokens for calling other APIs, on any event loop.

        async with AsyncTokenClient() as tokens:
            token = await tokens.client_credentials("dev-gcp:team-b:app-b")
            token = await tokens.on_behalf_of("dev-gcp:team-b:app-b", users_token)

    It is configured by the environment: through the sidecar that `NAIS_TOKEN_ENDPOINT` and
    `NAIS_TOKEN_EXCHANGE_ENDPOINT` name, else straight from the provider, as the `AZURE_*` variables describe
    it (docs/reference/settings.md). Create one client and keep it: it holds the cache. Tokens are renewed
    before they expire, concurrent requests for one token are one request, and while the provider fails a
    token that is still valid is handed out. Users' tokens are cached per user, and none is handed out after
    the user's own token has expired.

    It is also a credential for the clients of the Azure SDK: `BlobServiceClient(url, credential=tokens)`.

    Raises:
        ConfigurationError: nothing is configured, or a variable is missing or wrong; `setting` names it.
    """

    def __init__(self) -> None:
        self._configure(_connections.from_environment())

    @classmethod
    def _with(cls, connection: Connection) -> Self:
        client = cls.__new__(cls)
        client._configure(connection)
        return client

    def _configure(self, connection: Connection) -> None:
        self._connection = connection
        self._cache = TokenCache(max_entries=CACHED_TOKENS, max_bytes=CACHE_BYTES)
        self._sweeps = ThreadTokenSweeps(self._cache)
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, Session] = WeakKeyDictionary()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, directory: Path | None = None) -> Self:
        """A client for the application whose settings are in the environment. The same as the constructor.

        Args:
            environ: the environment; that of the process when None.
            directory: files with settings; by default as for the sidecar (docs/reference/settings.md).

        Raises:
            ConfigurationError: nothing is configured, or a variable is missing or wrong; `setting` names it.
        """
        return cls._with(_connections.from_environment(environ, directory))

    @classmethod
    def from_provider(cls, **options: Unpack[ProviderOptions]) -> Self:
        """A client that gets tokens straight from the provider.

        Args:
            options: see `TokenClient.from_provider`.

        Raises:
            ConfigurationError: something is missing or wrong; `setting` names it.
        """
        return cls._with(_connections.from_provider(**options))

    @classmethod
    def from_sidecar(
        cls,
        token_endpoint: str | None = None,
        exchange_endpoint: str | None = None,
        *,
        identity_provider: str = "entra_id",
        tenant_id: str | None = None,
        timeout: float = _connections.SIDECAR_TIMEOUT,
    ) -> Self:
        """A client that gets tokens from a sidecar. Arguments as for `TokenClient.from_sidecar`.

        Raises:
            ConfigurationError: an address is missing or wrong; `setting` names it.
        """
        connection = _connections.from_sidecar(
            token_endpoint,
            exchange_endpoint,
            identity_provider=identity_provider,
            tenant_id=tenant_id,
            timeout=timeout,
        )
        return cls._with(connection)

    async def client_credentials(
        self, target: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> Token:
        """A token for the application itself (OAuth 2.0 client credentials; RFC 6749, section 4.4).

        Args:
            target: `<cluster>:<namespace>:<app>`, or a scope such as `api://<client id>/.default`.
            skip_cache: request a new token, which replaces the cached one.
            claims: the claims challenge of an API, as JSON; a new token is requested with it.

        Raises:
            EntraFastError: codes `target_invalid` and `claims_invalid`.
            ProviderError: no token was issued; `error`, `status`, `retry_after` and `details` say why.
        """
        tokens = self._session().tokens
        if not skip_cache and claims is None:
            cached = tokens.cached(target)
            if cached is not None and not cached.renewal_due:
                return public(cached)
        return public(await tokens.acquire(target, skip_cache=skip_cache, claims=claims))

    async def on_behalf_of(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> Token:
        """A token on behalf of the user who has called the application (Entra ID's on-behalf-of flow).

        Args:
            target: as for `client_credentials`.
            subject_token: the user's token for this application, without `Bearer `. Verify it first.
            skip_cache: as for `client_credentials`.
            claims: as for `client_credentials`.

        Raises:
            EntraFastError: codes `target_invalid`, `subject_token_invalid` and `claims_invalid`.
            ProviderError: as for `client_credentials`; also code `subject_token_expired`.
        """
        tokens = self._session().tokens
        if not skip_cache and claims is None:
            cached = tokens.cached(target, subject_token)
            if cached is not None and not cached.renewal_due:
                return public(cached)
        return public(await tokens.exchange(target, subject_token, skip_cache=skip_cache, claims=claims))

    async def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """`client_credentials`, under the name that `for_user` has for it too: what authentication classes
        call."""
        return await self.client_credentials(target, skip_cache=skip_cache, claims=claims)

    def for_user(self, subject_token: str) -> AsyncUserTokens:
        """The tokens of one user: the same methods, always on behalf of that user.

        Args:
            subject_token: as for `on_behalf_of`.
        """
        return AsyncUserTokens(self, subject_token)

    async def aclose(self) -> None:
        """Cancel requests of the running event loop, and close its connections. Cached tokens stay, and the
        client can be used again."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()

    async def close(self) -> None:
        """`aclose`, under the name that azure-core has for it."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def stats(self) -> dict[str, int]:
        """Figures of the cache: entries, bytes, hits, misses, evictions."""
        return self._cache.stats()

    @property
    def _tenant_id(self) -> str:
        return self._connection.tenant_id

    def _session(self) -> Session:
        """The requests of the running event loop. Tasks and connections of another loop cannot be used on it;
        the cached tokens can."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            http = transport.asynchronous(self._connection.http)
            session = self._sessions[loop] = self._connection.open(http, self._cache)
            self._sweeps.begin()
        return session


class AsyncUserTokens(AsyncAzureCredential):
    """The tokens of one user: see `AsyncTokenClient.for_user`."""

    def __init__(self, client: AsyncTokenClient, subject_token: str) -> None:
        self._client = client
        self._subject_token = subject_token

    async def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """See `AsyncTokenClient.on_behalf_of`."""
        return await self._client.on_behalf_of(
            target, self._subject_token, skip_cache=skip_cache, claims=claims
        )

    async def close(self) -> None:
        """Nothing: the client belongs to the caller that made it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.close()

    @property
    def _tenant_id(self) -> str:
        return self._client._tenant_id


class TokenClient(AzureCredential):
    """Gets tokens for calling other APIs, from any number of threads. See `AsyncTokenClient` for what it does
    and how the environment configures it.

        with TokenClient() as tokens:
            token = tokens.client_credentials("dev-gcp:team-b:app-b")

    A cached token is returned without waiting. Requests run on an event loop in one background thread of the
    process. Works after `os.fork`: a child has the tokens that were cached, and starts a thread of its own.

    Raises:
        ConfigurationError: nothing is configured, or a variable is missing or wrong; `setting` names it.
    """

    def __init__(self) -> None:
        self._configure(_connections.from_environment())

    @classmethod
    def _with(cls, connection: Connection) -> Self:
        client = cls.__new__(cls)
        client._configure(connection)
        return client

    def _configure(self, connection: Connection) -> None:
        self._connection = connection
        self._cache = TokenCache(max_entries=CACHED_TOKENS, max_bytes=CACHE_BYTES)
        self._sweeps = ThreadTokenSweeps(self._cache)
        self._sessions: dict[_background.BackgroundLoop, Session] = {}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, directory: Path | None = None) -> Self:
        """A client for the application whose settings are in the environment: see
        `AsyncTokenClient.from_env`.

        Args:
            environ: the environment; that of the process when None.
            directory: files with settings; by default as for the sidecar (docs/reference/settings.md).

        Raises:
            ConfigurationError: nothing is configured, or a variable is missing or wrong; `setting` names it.
        """
        return cls._with(_connections.from_environment(environ, directory))

    @classmethod
    def from_provider(cls, **options: Unpack[ProviderOptions]) -> Self:
        """A client that gets tokens straight from the provider, even where a sidecar is configured.

        Args:
            options: `client_id`; `tenant_id`, `well_known_url` (a discovery document) or `token_endpoint`;
                one credential: `jwk` (a private JWK, with `x5t` for a certificate), `federated_token_file`
                (workload identity; re-read for each request) or `client_secret`; `http`, how requests are
                made (its `timeout` is for a token, retries included); and `max_retries` (1). Without
                `client_id`, the `AZURE_*` variables apply.

        Raises:
            ConfigurationError: something is missing or wrong; `setting` names it.
        """
        return cls._with(_connections.from_provider(**options))

    @classmethod
    def from_sidecar(
        cls,
        token_endpoint: str | None = None,
        exchange_endpoint: str | None = None,
        *,
        identity_provider: str = "entra_id",
        tenant_id: str | None = None,
        timeout: float = _connections.SIDECAR_TIMEOUT,
    ) -> Self:
        """A client that gets tokens from a sidecar.

        Args:
            token_endpoint: URL of `/api/v1/token`; by default `NAIS_TOKEN_ENDPOINT`.
            exchange_endpoint: URL of `/api/v1/token/exchange`; by default `NAIS_TOKEN_EXCHANGE_ENDPOINT`.
            identity_provider: as the sidecar calls it. For other providers than Entra ID, targets are passed
                on unchanged.
            tenant_id: the application's tenant, which some clients of the Azure SDK ask for; by default
                `AZURE_APP_TENANT_ID`.
            timeout: seconds for a token.

        Raises:
            ConfigurationError: an address is missing or wrong; `setting` names it.
        """
        connection = _connections.from_sidecar(
            token_endpoint,
            exchange_endpoint,
            identity_provider=identity_provider,
            tenant_id=tenant_id,
            timeout=timeout,
        )
        return cls._with(connection)

    def client_credentials(
        self, target: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> Token:
        """A token for the application itself: see `AsyncTokenClient.client_credentials`.

        Args:
            target: `<cluster>:<namespace>:<app>`, or a scope such as `api://<client id>/.default`.
            skip_cache: request a new token, which replaces the cached one.
            claims: the claims challenge of an API, as JSON; a new token is requested with it.

        Raises:
            EntraFastError: codes `target_invalid` and `claims_invalid`.
            ProviderError: no token was issued; `error`, `status`, `retry_after` and `details` say why.
            RuntimeError: an event loop runs in this thread, which would stand still.
        """
        return self._obtain(target, None, skip_cache, claims)

    def on_behalf_of(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> Token:
        """A token on behalf of the user who has called the application: see `AsyncTokenClient.on_behalf_of`.

        Args:
            target: as for `client_credentials`.
            subject_token: the user's token for this application, without `Bearer `. Verify it first.
            skip_cache: as for `client_credentials`.
            claims: as for `client_credentials`.

        Raises:
            EntraFastError: codes `target_invalid`, `subject_token_invalid` and `claims_invalid`.
            ProviderError: as for `client_credentials`; also code `subject_token_expired`.
            RuntimeError: an event loop runs in this thread, which would stand still.
        """
        return self._obtain(target, subject_token, skip_cache, claims)

    def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """`client_credentials`, under the name that `for_user` has for it too: what authentication classes
        call."""
        return self._obtain(target, None, skip_cache, claims)

    def for_user(self, subject_token: str) -> UserTokens:
        """The tokens of one user: the same methods, always on behalf of that user.

        Args:
            subject_token: as for `on_behalf_of`.
        """
        return UserTokens(self, subject_token)

    def close(self) -> None:
        """Cancel requests, and stop renewing tokens. Cached tokens stay, and the client can be used again."""
        if not self._sessions:
            return  # for which no thread is started
        background = _background.current()
        session = self._sessions.pop(background, None)
        if session is not None:  # pragma: no branch - a child process has none of its own yet
            background.run(session.aclose(), GRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    def stats(self) -> dict[str, int]:
        """Figures of the cache: entries, bytes, hits, misses, evictions."""
        return self._cache.stats()

    @property
    def _tenant_id(self) -> str:
        return self._connection.tenant_id

    def _obtain(self, target: str, subject_token: str | None, skip_cache: bool, claims: str | None) -> Token:
        _refuse_running_loop()
        background = _background.current()
        session = self._sessions.get(background) or self._open(background)
        if not skip_cache and claims is None:
            cached = session.tokens.cached(target, subject_token)
            if cached is not None:
                if cached.renewal_due:
                    background.call(session.tokens.renew, target, subject_token)
                return public(cached)
        if subject_token is None:
            request = session.tokens.acquire(target, skip_cache=skip_cache, claims=claims)
        else:
            request = session.tokens.exchange(target, subject_token, skip_cache=skip_cache, claims=claims)
        try:
            return public(background.run(request, self._connection.outbound.overall_timeout + GRACE))
        except TimeoutError:
            raise ProviderError("timed_out", "no token in time") from None

    def _open(self, background: _background.BackgroundLoop) -> Session:
        """The requests of this process: those of a parent process cannot be used after `os.fork`."""
        http = transport.threaded(self._connection.http)
        new = self._connection.open(http, self._cache)
        self._sweeps.begin()
        # Of two threads, one wins: the other one's session has started nothing.
        session = self._sessions.setdefault(background, new)
        for other in [loop for loop in self._sessions if loop is not background]:
            self._sessions.pop(other, None)
        return session


class UserTokens(AzureCredential):
    """The tokens of one user: see `TokenClient.for_user`."""

    def __init__(self, client: TokenClient, subject_token: str) -> None:
        self._client = client
        self._subject_token = subject_token

    def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token:
        """See `TokenClient.on_behalf_of`."""
        return self._client.on_behalf_of(target, self._subject_token, skip_cache=skip_cache, claims=claims)

    def close(self) -> None:
        """Nothing: the client belongs to the caller that made it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.close()

    @property
    def _tenant_id(self) -> str:
        return self._client._tenant_id


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "TokenClient would block the event loop that runs in this thread: use AsyncTokenClient, or call it "
        "in another thread (asyncio.to_thread)"
    )
