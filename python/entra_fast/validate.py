"""Validate access tokens of Microsoft Entra ID and other providers of OpenID Connect.

    from entra_fast.validate import Validator

    validator = Validator(issuer=..., audience=..., jwks_uri=...)   # or Validator() on NAIS
    claims = validator.validate(token)                              # raises InvalidToken
    claims.require(role="access_as_application")                    # raises Forbidden

What belongs here: `Validator` for threads, `AsyncValidator` for asyncio, and `validate()`, which is
configured by the environment. What must never be here: parsing, verification and caching (the native core),
or when to fetch keys (_provider/jwks.py). Importing this module loads nothing of the sidecar.

A token that was verified before costs less than one SHA-256 of it. Any other token costs one signature
verification.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from entra_fast import _background, metrics
from entra_fast._arguments import (
    Configured,
    Options,
    Part,
    checked_issuers,
    checked_options,
    completed,
    completed_async,
    configure,
    discovered_async,
    fetch_discovery,
    fetch_discovery_async,
    found_of,
    key_fetcher,
    of_environment,
)
from entra_fast._environment import described
from entra_fast._issuers import ANY_AUDIENCE, AnyAudience, Issuer, IssuerChoice, P
from entra_fast._native import Claims, KeySet, unverified_claims, unverified_header
from entra_fast._native import Validator as NativeValidator
from entra_fast._provider import transport
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.jwks import AsyncKeys, ThreadKeys, jitter
from entra_fast._provider.jwks_schedule import Cause, KeySchedule, RefreshRules
from entra_fast._sweeping import ThreadSweeps
from entra_fast._validation import AsyncValidation, ThreadValidation, inactive
from entra_fast.errors import (
    ConfigurationError,
    EntraFastError,
    Forbidden,
    InvalidToken,
    KeysUnavailable,
    StepUpRequired,
)
from entra_fast.require import Require

if TYPE_CHECKING:
    from entra_fast._provider.http_rules import AsyncHttpClient

__all__ = [
    "ANY_AUDIENCE",
    "AnyAudience",
    "AsyncValidator",
    "Claims",
    "ConfigurationError",
    "EntraFastError",
    "Forbidden",
    "HttpOptions",
    "InvalidToken",
    "Issuer",
    "KeySet",
    "KeysUnavailable",
    "RefreshRules",
    "Require",
    "StepUpRequired",
    "Validator",
    "unverified_claims",
    "unverified_header",
    "validate",
]


class Validator:
    """Validates tokens, from any number of threads.

    Threads that all validators of the process share fetch and refresh the keys; a caller waits only when the
    signing key of its token is unknown. Works after `os.fork`. Create one validator per issuer and audience,
    and keep it.

    Args:
        issuer: accepted issuers (`iss`), compared exactly. A part `{tenantid}` stands for the token's own
            `tid`; it needs `tenants`. When issuer, issuers, jwks_uri and jwks are left out, they come from
            the environment, as NAIS sets it (`AZURE_OPENID_CONFIG_ISSUER`, `AZURE_OPENID_CONFIG_JWKS_URI`, or
            `AZURE_APP_WELL_KNOWN_URL`, and `AZURE_APP_CLIENT_ID` as the audience; for other providers, see
            `from_env`). A key that is published for an issuer verifies tokens of that issuer only, with one
            exception: Entra ID's v2.0 keys also verify v1.0 tokens of the same tenant, if you accept their
            issuer, `https://sts.windows.net/<tenant id>/`, as well. An API that migrates names both.
        audience: accepted audiences (`aud`). For Entra ID's v2.0 tokens that is the application's client id.
            `ANY_AUDIENCE` does not check it, for providers whose tokens name none.
        issuers: several issuers, each with a key set of its own, instead of issuer, jwks_uri and jwks. The
            key set is chosen by the `iss` of a token, then the key by its `kid`. `audience`, `algorithms` and
            `tenants` hold for each `Issuer` that has none of its own, and the limits of the cache for all of
            them together.
        http: how keys are fetched: certificate authorities, web proxy, header fields, time limits.
        jwks_uri: https URL at which the provider publishes its keys (http for loopback only).
        jwks: a fixed key set instead of a URL: its JSON text, the decoded object, or a `KeySet`.
        algorithms: accepted signature algorithms (`entra_fast.ALGORITHMS`), the preferred ones first. A
            token's header only selects one of them. Each key verifies one algorithm: that of its `alg`, or
            without one the first of these that suits its type. `EdDSA` and `Ed25519` are two names of one
            algorithm; only names that are listed are accepted.
        tenants: allowed tenant ids, or `["*"]` for any (then check the tenant yourself). A token's `tid` must
            be one of them, and be the tenant in its issuer's path.
        leeway: clock skew allowed on `exp`, `nbf` and `iat`, in seconds from 0 to 600.
        required_claims: claims that a token must have besides `iss`, `aud` and `exp`.
        max_age: maximum time since `iat`, in seconds; None for no limit.
        max_token_bytes: maximum size of a token. A larger one is rejected before it is parsed.
        signatures: the libraries that verify signatures. `"fast"`: rind verifies RS256 and PS256 where the
            processor supports it, and AWS-LC confirms a sample of its results; after a disagreement AWS-LC
            alone verifies, until the process ends. `"aws-lc"`: AWS-LC alone.
        cache_entries: maximum number of verified tokens in the cache; 0 turns the cache off.
        cache_bytes: maximum size of the cache, in bytes; by default 128 MiB, or an eighth of the container's
            memory limit if that is less.
        refresh: when keys are fetched.
        clock: returns seconds since the epoch; for tests.

    Raises:
        ConfigurationError: an argument or a variable is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key; or only `AZURE_APP_WELL_KNOWN_URL` is set, and the
            document could not be fetched.
    """

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | AnyAudience | None = None,
        *,
        issuers: Sequence[Issuer] | None = None,
        http: HttpOptions | None = None,
        **options: Unpack[Options],
    ) -> None:
        configured = configure(issuer, audience, issuers, http, fetch_discovery, **options)
        self._clock = configured.clock
        self._checks_audience = configured.checks_audience  # the integrations look at it
        self._parts = [_thread_validation(part, configured) for part in configured.parts]
        self._choice = None if issuers is None else configured.choice(self._parts)
        verify = self._parts[0].native.validate if self._choice is None else self._choice.verify
        self._sweeps = ThreadSweeps([part.native for part in self._parts], configured.clock)
        self._verify: _Verify = _FirstVerify(self, verify, self._sweeps)

    @classmethod
    def from_env(
        cls,
        provider: str | Sequence[str] | None = None,
        *,
        audience: str | Sequence[str] | AnyAudience | None = None,
        http: HttpOptions | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for the application whose settings are in the environment, as NAIS puts them there.

            validator = Validator.from_env()                            # Entra ID, or the only other provider
            validator = Validator.from_env("tokenx")
            validator = Validator.from_env(["entra_id", "tokenx"])      # tokens of either

        Args:
            provider: whose tokens are accepted: `entra_id`, `tokenx`, `idporten`, `ansattporten`,
                `maskinporten`, or a name in `ENTRA_FAST_PROVIDERS`; or several. Without it: Entra ID; if
                Entra ID is not configured, the only other provider that is, if it is one whose audience is
                checked. A token never decides which one it is.
            audience: accepted audiences (`aud`), instead of what the settings say: the client id for Entra ID
                and TokenX, `IDPORTEN_AUDIENCE` for ID-porten, `ANSATTPORTEN_AUDIENCE` for Ansattporten. For
                Maskinporten, `aud` is not checked unless you pass this: require a scope. For one provider
                only.
            http: as for `Validator`.
            options: as for `Validator`.

        Raises:
            ConfigurationError: a variable is missing or wrong, or there is no such provider; `setting` names
                it.
            KeysUnavailable: a discovery document is needed, and could not be fetched.
        """
        fetch = checked_options(http)
        found = [completed(one, fetch, fetch_discovery) for one in described(os.environ, provider, audience)]
        return cls(http=http, **of_environment(found, options))

    @classmethod
    def from_discovery(
        cls,
        url: str,
        audience: str | Sequence[str] | AnyAudience,
        *,
        issuer: str | None = None,
        http: HttpOptions | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for the provider that a discovery document describes: OpenID Connect Discovery 1.0, or
        RFC 8414. Only issuer and `jwks_uri` are taken from it. Nothing is assumed of the tokens but `iss`,
        `aud`, `exp`, `iat` and RS256; other `required_claims` and `algorithms` are options.

        Args:
            url: URL of the document, such as `<issuer>/.well-known/openid-configuration` or
                `<issuer>/.well-known/oauth-authorization-server`. It is fetched once, now.
            audience: accepted audiences (`aud`), or `ANY_AUDIENCE`.
            issuer: the accepted issuer, where you know it. Then only `jwks_uri` is taken from the document,
                and its own issuer may be any. Without it, the document's issuer must be the one that the URL
                names (RFC 8414, section 3.3), with the exceptions that Entra ID's documents need.
            http: as for `Validator`.
            options: as for `Validator`.

        Raises:
            KeysUnavailable: the document could not be fetched, or names another issuer than its URL.
            ConfigurationError: the URL must not be requested.
        """
        found = fetch_discovery(url, issuer, checked_options(http))
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, http=http, **options)

    def validate(self, token: str | bytes) -> Claims:
        """Verify a token and return its claims.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; `code` and the message say why (docs/reference/errors.md).
            KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        """
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            claims = _part_for(token, self._parts, self._choice, error).validate_again(token, error)
            self._sweeps.begin()
            return claims

    def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """Verify many tokens, on all cores at once.

        Args:
            tokens: the tokens.

        Returns:
            The claims of each token, or the error as a value, in the order of the tokens. One bad token does
            not affect the others.

        Raises:
            TypeError: an item is neither str nor bytes.
        """
        if self._choice is None:
            every = self._parts[0].validate_many(tokens)
            self._sweeps.begin()
            return every
        results, by_part = _divided(tokens, self._choice)
        for part, positions in by_part.items():
            some = part.validate_many([tokens[position] for position in positions])
            results.update(zip(positions, some, strict=True))
        self._sweeps.begin()
        return [results[position] for position in range(len(tokens))]

    def explain(self, token: str | bytes) -> list[dict[str, Any]]:
        """Run every check on a token and report the values that were compared. For diagnostics only: never
        base a decision on it. Keys are not fetched.

        Args:
            token: the token.

        Returns:
            One row per check, with `check`, `passed` (None if the check could not be made), `value`, `code`,
            `message`, `expected` and `actual`.
        """
        now = None if self._clock is None else self._clock()
        explainer = self._parts[0].native if self._choice is None else self._choice
        return explainer.explain(token, now)

    def start(self) -> None:
        """Begin to fetch keys in the background now, instead of at the first token."""
        for part in self._parts:
            if part.keys is not None:
                part.keys.start()

    def close(self) -> None:
        """Stop refreshing keys. Tokens that are signed with a known key can still be validated."""
        for part in self._parts:
            if part.keys is not None:
                part.keys.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _use_keys(self, keys: KeySet | None) -> None:
        """Replace fixed keys: for `entra_fast.testing`."""
        for part in self._parts:
            part.native.set_keys(keys)

    def stats(self) -> dict[str, int]:
        """Figures of the cache (cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions) and,
        where keys are fetched, of the keys (keys, keys_dropped, key_fetches, key_fetch_failures,
        key_set_age_seconds). With several issuers: sums, and the age of the oldest key set."""
        return _summed([(part.native, part.keys) for part in self._parts])


class AsyncValidator:
    """Validates tokens on an event loop. When that loop has ended, the validator can be used on another one.

    Args:
        issuer: as for `Validator`.
        audience: as for `Validator`.
        issuers: as for `Validator`. Those with a discovery document need `from_issuers`.
        http: how keys are fetched, as for `Validator`; or an HTTP client to fetch them with. The validator
            creates and closes its own client, unless it gets one. That uses aiohttp where it is installed
            (3.9 or newer); else requests run in a thread.
        options: as for `Validator`.

    Raises:
        ConfigurationError: an argument or a variable is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key.
    """

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | AnyAudience | None = None,
        *,
        issuers: Sequence[Issuer] | None = None,
        http: HttpOptions | AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> None:
        own, client = (http, None) if http is None or isinstance(http, HttpOptions) else (None, http)
        configured = configure(issuer, audience, issuers, own, None, **options)
        self._clock = configured.clock
        self._checks_audience = configured.checks_audience  # the integrations look at it
        self._parts = [_LoopPart.of(part, configured, client) for part in configured.parts]
        self._choice = None if issuers is None else configured.choice(self._parts)
        verify = self._parts[0].native.validate if self._choice is None else self._choice.verify
        self._sweeps = ThreadSweeps([part.native for part in self._parts], configured.clock)
        self._verify: _Verify = _FirstVerify(self, verify, self._sweeps)

    @classmethod
    async def from_env(
        cls,
        provider: str | Sequence[str] | None = None,
        *,
        audience: str | Sequence[str] | AnyAudience | None = None,
        http: HttpOptions | AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for the application whose settings are in the environment: see `Validator.from_env`.

        Args:
            provider: as for `Validator.from_env`.
            audience: as for `Validator.from_env`.
            http: as for `AsyncValidator`.
            options: as for `Validator`.

        Raises:
            ConfigurationError: a variable is missing or wrong, or there is no such provider; `setting` names
                it.
            KeysUnavailable: a discovery document is needed, and could not be fetched.
        """
        named = described(os.environ, provider, audience)
        found = await asyncio.gather(*(completed_async(one, http) for one in named))
        return cls(http=http, **of_environment(found, options))

    @classmethod
    async def from_discovery(
        cls,
        url: str,
        audience: str | Sequence[str] | AnyAudience,
        *,
        issuer: str | None = None,
        http: HttpOptions | AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for the provider that a discovery document describes: see `Validator.from_discovery`.

        Args:
            url: URL of the document. It is fetched once, now.
            audience: accepted audiences (`aud`).
            issuer: as for `Validator.from_discovery`.
            http: as for `AsyncValidator`.
            options: as for `Validator`.

        Raises:
            KeysUnavailable: the document could not be fetched, or names another issuer than its URL.
            ConfigurationError: the URL must not be requested.
        """
        found = await fetch_discovery_async(url, http, issuer)
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, http=http, **options)

    @classmethod
    async def from_issuers(
        cls,
        issuers: Sequence[Issuer],
        audience: str | Sequence[str] | AnyAudience | None = None,
        *,
        http: HttpOptions | AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for several issuers, of which some are described by a discovery document.

        Args:
            issuers: as for `Validator`. Their documents are fetched once, now, all at the same time.
            audience: as for `Validator`.
            http: as for `AsyncValidator`.
            options: as for `Validator`.

        Raises:
            KeysUnavailable: a document could not be fetched, or names another issuer than its URL.
            ConfigurationError: an argument is missing or wrong; `setting` names it.
        """
        checked = checked_issuers(issuers)
        found = await asyncio.gather(*(discovered_async(each, http) for each in checked))
        return cls(audience=audience, issuers=found, http=http, **options)

    async def start(self) -> None:
        """Begin to fetch and refresh keys in the background. Does not fail when the provider is
        unavailable."""
        for part in self._parts:
            if part.keys is not None:
                part.keys.running()

    async def aclose(self) -> None:
        """Stop refreshing keys, and close the HTTP client if it is the validator's own."""
        for part in self._parts:
            if part.keys is not None:
                await part.keys.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def validate(self, token: str | bytes) -> Claims:
        """Verify a token and return its claims. Waits only when the signing key of the token is unknown.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; `code` and the message say why (docs/reference/errors.md).
            KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        """
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            part = _part_for(token, self._parts, self._choice, error)
            claims = await part.validation.validate_again(token, error)
            self._sweeps.begin()
            return claims

    async def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """Verify many tokens, on all cores at once. The event loop keeps running.

        Args:
            tokens: the tokens.

        Returns:
            The claims of each token, or the error as a value, in the order of the tokens.

        Raises:
            TypeError: an item is neither str nor bytes.
        """
        if self._choice is None:
            every = await self._parts[0].validation.validate_many(tokens)
            self._sweeps.begin()
            return every
        results, by_part = _divided(tokens, self._choice)
        for part, positions in by_part.items():
            some = await part.validation.validate_many([tokens[position] for position in positions])
            results.update(zip(positions, some, strict=True))
        self._sweeps.begin()
        return [results[position] for position in range(len(tokens))]

    async def introspect(self, token: str | bytes) -> bytes:
        """The JSON body of an introspection response (RFC 7662, section 2.2), as the sidecar sends it.

        Args:
            token: the token.

        Returns:
            The claims verbatim after `"active":true`, or `"active":false` with the reason. A bad token or the
            lack of keys raises nothing.
        """
        try:
            part = self._parts[0] if self._choice is None else self._choice.of(token)
        except InvalidToken as error:
            return inactive(error.message)
        body = await part.validation.introspect(token)
        self._sweeps.begin()
        return body

    def explain(self, token: str | bytes) -> list[dict[str, Any]]:
        """Run every check on a token and report the values: see `Validator.explain`.

        Args:
            token: the token.

        Returns:
            One row per check.
        """
        now = None if self._clock is None else self._clock()
        explainer = self._parts[0].native if self._choice is None else self._choice
        return explainer.explain(token, now)

    @property
    def ready(self) -> bool:
        """Whether there are keys to verify tokens with, of every issuer."""
        return all(part.native.keys is not None for part in self._parts)

    @property
    def not_ready_reason(self) -> str | None:
        """Why there are no keys; None when there are."""
        for part in self._parts:
            if part.native.keys is None:
                reason = "keys are not being fetched" if part.keys is None else part.keys.problem()
                return reason if self._choice is None else f"{part.issuers[0]}: {reason}"
        return None

    def _use_keys(self, keys: KeySet | None) -> None:
        """Replace fixed keys: for `entra_fast.testing`."""
        for part in self._parts:
            part.native.set_keys(keys)

    def stats(self) -> dict[str, int]:
        """Figures of the cache and of the keys: see `Validator.stats`."""
        return _summed([(part.native, part.keys) for part in self._parts])


_Verify = Callable[[str | bytes, float | None], Claims]


class _FirstVerify:
    """A validator's `_verify` until it has accepted a token: then it is the native one, and sweeps of the
    caches have begun. The constructor does not begin them, because the process may fork after that."""

    __slots__ = ("_sweeps", "_validator", "_verify")

    def __init__(self, validator: Validator | AsyncValidator, verify: _Verify, sweeps: ThreadSweeps) -> None:
        self._validator = weakref.ref(validator)  # a cycle would keep dropped validators alive
        self._verify = verify
        self._sweeps = sweeps

    def __call__(self, token: str | bytes, now: float | None) -> Claims:
        claims = self._verify(token, now)
        # The token may not have been cached: the cache is off, or another thread was using it.
        if self._sweeps.begin() and (validator := self._validator()) is not None:
            validator._verify = self._verify
        return claims


@dataclass(frozen=True, slots=True, eq=False)
class _LoopPart:
    """One key set of an `AsyncValidator`, and the issuers whose tokens it verifies."""

    issuers: Sequence[str]
    native: NativeValidator
    keys: _LoopKeys | None
    validation: AsyncValidation

    @classmethod
    def of(cls, part: Part, configured: Configured, client: AsyncHttpClient | None) -> _LoopPart:
        keys = None
        if part.jwks_uri is not None:
            keys = _LoopKeys(part, part.jwks_uri, None if part.has_own_http else client)
        return cls(part.issuers, part.native, keys, AsyncValidation(part.native, keys, configured.clock))


class _LoopKeys:
    """The keys of an `AsyncValidator`: a `KeySource` that starts fetching when it is first asked, and starts
    again on another event loop when its own has ended (`asyncio.run` twice)."""

    def __init__(self, part: Part, jwks_uri: str, http: AsyncHttpClient | None) -> None:
        self._jwks_uri = jwks_uri
        self._accept = part.native.set_keys
        self._rules = part.rules
        self._options = part.http
        self._http = http
        self._own_http: AsyncHttpClient | None = None
        self._keys: AsyncKeys | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._when_dropped: weakref.finalize[..., _LoopKeys] | None = None

    def running(self) -> AsyncKeys:
        """The keys that are being fetched on the running event loop."""
        self._forget_ended_loop()
        if self._keys is None:
            if self._http is None and self._own_http is None:
                self._own_http = transport.asynchronous(self._options)
            client = self._http or self._own_http
            assert client is not None  # noqa: S101 - for the type checker
            self._keys = AsyncKeys(
                self._jwks_uri,
                client,
                self._accept,
                rules=self._rules,
                counted=metrics.count_key_set_request,
            )
            self._keys.start()
            self._loop = asyncio.get_running_loop()
            # Tasks of the loop hold the keys, so a validator that is dropped would leave them running.
            self._when_dropped = weakref.finalize(
                self, _close_dropped, self._loop, self._keys, self._own_http
            )
            self._when_dropped.atexit = False
        return self._keys

    async def aclose(self) -> None:
        """Stop fetching."""
        self._forget_ended_loop()
        keys, self._keys = self._keys, None
        if self._when_dropped is not None:
            self._when_dropped.detach()
        if keys is not None:
            await keys.aclose()
        client, self._own_http = self._own_http, None
        if client is not None:
            await client.aclose()

    async def refresh_for(self, cause: Cause, kid: str | None) -> bool:
        """See `KeySource.refresh_for`."""
        return await self.running().refresh_for(cause, kid)

    def call_when_fetched(  # pragma: no cover - for callers without a task: only a sidecar has them
        self, resume: Callable[[], None]
    ) -> bool:
        """See `KeySource.call_when_fetched`."""
        return self.running().call_when_fetched(resume)

    def unavailable(self) -> KeysUnavailable:
        """See `KeySource.unavailable`."""
        return self.running().unavailable()

    def problem(self) -> str:
        """Why there are no keys, as a sentence."""
        return "keys are not being fetched" if self._keys is None else self._keys.unavailable().message

    def stats(self) -> dict[str, int]:
        """As `AsyncKeys.stats`; empty before the first fetch begins."""
        return {} if self._keys is None else self._keys.stats()

    def _forget_ended_loop(self) -> None:
        """Tasks and connections of a loop that has ended can neither be used nor closed."""
        if self._loop is not None and self._loop.is_closed():
            self._keys = self._own_http = self._loop = None


def _close_dropped(loop: asyncio.AbstractEventLoop, keys: AsyncKeys, http: AsyncHttpClient | None) -> None:
    """Stop fetching for a validator that was dropped. Called in any thread, at any point."""

    async def close() -> None:
        await keys.aclose()
        if http is not None:
            await http.aclose()

    def begin() -> None:
        task = _background.start(close(), "close of a dropped validator")
        _closing.add(task)  # the loop itself would not keep it
        task.add_done_callback(_closing.discard)

    with contextlib.suppress(RuntimeError):  # the loop has ended, and everything with it
        loop.call_soon_threadsafe(begin)


_closing: set[asyncio.Task[None]] = set()


def _thread_validation(part: Part, configured: Configured) -> ThreadValidation:
    keys = None
    if part.jwks_uri is not None:
        keys = ThreadKeys(
            part.jwks_uri,
            key_fetcher(part.http),
            part.native.set_keys,
            rules=part.rules,
            counted=metrics.count_key_set_request,
        )
    return ThreadValidation(part.native, keys, configured.clock)


def _part_for(
    token: str | bytes, parts: Sequence[P], choice: IssuerChoice[P] | None, error: EntraFastError
) -> P:
    """The part that rejected a token with `error`. If none was chosen, `error` says why, and is raised."""
    if choice is None:
        return parts[0]
    try:
        return choice.of(token)
    except InvalidToken:
        raise error from None


def _divided(
    tokens: Sequence[str | bytes], choice: IssuerChoice[P]
) -> tuple[dict[int, Claims | EntraFastError], dict[P, list[int]]]:
    """The results of tokens that no part verifies, and the positions of all others by part."""
    errors, by_part = choice.by_part(tokens)
    return dict(errors), by_part


def _summed(parts: Sequence[tuple[NativeValidator, ThreadKeys | _LoopKeys | None]]) -> dict[str, int]:
    figures: dict[str, int] = {}
    for native, keys in parts:
        for name, value in (native.stats() | ({} if keys is None else keys.stats())).items():
            known = figures.get(name)
            combine = max if name == "key_set_age_seconds" else int.__add__
            figures[name] = value if known is None else combine(known, value)
    return figures


class _SharedValidator:
    """One validator for all threads of the process, created from the environment when it is first needed.

    Creating it may fetch the discovery document, which may fail or hang. One thread fetches; the others wait
    for the same result. After a failure, callers get it at once until the next attempt is due.

    Args:
        monotonic: seconds of a clock that never jumps.
        provider: as for `Validator.from_env`.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, provider: str | Sequence[str] | None = None
    ) -> None:
        self._monotonic = monotonic
        self._provider = provider
        self._validator: Validator | None = None
        self._of_others: Validator | None = None  # of the providers that are found, while others are not
        self._found = 0  # the number of them
        self._schedule = KeySchedule(RefreshRules())
        self._failure: KeysUnavailable | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The thread that creates the validator does not exist in a child process."""
        self._lock = threading.Lock()
        self._creation: Future[Validator] | None = None

    def validate(self, token: str | bytes) -> Claims:
        """See `validate`. While a discovery document cannot be fetched, only tokens that may be of its
        provider are concerned."""
        tried: Validator | None = None
        while (validator := self._validator) is None:
            others = self._of_others
            if others is not None and others is not tried:
                tried = others
                try:
                    return others.validate(token)
                except InvalidToken as error:
                    if error.code != "wrong_issuer":
                        raise
            try:
                self.get()
            except KeysUnavailable:
                if self._of_others is tried:  # otherwise a provider has been found
                    raise
        return validator.validate(token)

    def get(self) -> Validator:
        """The validator.

        Raises:
            KeysUnavailable: the discovery document could not be fetched.
            ConfigurationError: a variable is missing or wrong; `setting` names it.
        """
        if self._validator is not None:
            return self._validator
        with self._lock:
            if self._validator is not None:
                return self._validator
            creation, own = self._creation, False
            if creation is None:
                if self._failure is not None and not self._schedule.claim_fetch(
                    Cause.NO_KEYS, self._monotonic()
                ):
                    raise KeysUnavailable(*self._failure.args)  # a new one: tracebacks would add up
                creation, own = Future(), True
                self._creation = creation
        if own:
            return self._create(creation)
        try:
            return creation.result()
        except EntraFastError as error:
            raise type(error)(*error.args) from None

    def _create(self, creation: Future[Validator]) -> Validator:
        try:
            found, failure = found_of(described(os.environ, self._provider), fetch_discovery)
            if failure is not None:
                if len(found) > self._found:
                    self._found = len(found)
                    self._of_others = Validator(issuers=[one.as_issuer() for one in found])
                raise failure
            validator = Validator(**of_environment(found, {}))
        except BaseException as error:
            with self._lock:
                if isinstance(error, KeysUnavailable):
                    self._failure = error
                    self._schedule.failed(self._monotonic(), jitter())
                self._creation = None
            creation.set_exception(error)
            raise
        with self._lock:
            self._validator, self._of_others, self._creation = validator, None, None
        creation.set_result(validator)
        return validator


_shared = _SharedValidator()
_shared_by_name: dict[str | tuple[str, ...], _SharedValidator] = {}


def _shared_of(provider: str | Sequence[str]) -> _SharedValidator:
    """That of a provider, or of several. What is no provider's name is not remembered."""
    key = provider if isinstance(provider, str) else tuple(provider)
    shared = _shared_by_name.get(key)
    if shared is None:
        described(os.environ, provider)
        shared = _shared_by_name.setdefault(key, _SharedValidator(provider=key))
    return shared


def _reset_after_fork() -> None:
    for shared in (_shared, *_shared_by_name.values()):
        shared.reset_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows
    os.register_at_fork(after_in_child=_reset_after_fork)


def validate(token: str | bytes, *, provider: str | Sequence[str] | None = None) -> Claims:
    """Verify a token with one shared validator, which is created from the environment at the first call.

    Args:
        token: the token, without `Bearer `.
        provider: whose tokens are accepted: see `Validator.from_env`. Each has a shared validator of its own.
            Of several providers, one whose discovery document cannot be fetched does not concern tokens of
            the others.

    Returns:
        Its claims.

    Raises:
        InvalidToken: the token is rejected; `code` and the message say why (docs/reference/errors.md).
        KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """
    return (_shared if provider is None else _shared_of(provider)).validate(token)
