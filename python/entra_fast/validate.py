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
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import orjson

from entra_fast import _signatures
from entra_fast._native import (
    MAX_TOKEN_BYTES,
    Claims,
    KeySet,
    Policy,
    unverified_claims,
    unverified_header,
)
from entra_fast._native import (
    Validator as NativeValidator,
)
from entra_fast._net import url_problem
from entra_fast._provider.blocking_http_client import BlockingHttpClient, ThreadedHttpClient
from entra_fast._provider.discovery_document import DiscoveryError, KeyDiscovery, parse_key_discovery
from entra_fast._provider.http_rules import AsyncHttpClient, HttpResponse
from entra_fast._provider.jwks import MEDIA_TYPES as KEY_SET_MEDIA_TYPES
from entra_fast._provider.jwks import AsyncKeys, ThreadKeys
from entra_fast._provider.jwks_schedule import Cause, KeySchedule, RefreshRules
from entra_fast._validation import AsyncValidation, cause_of, first_kid, has_errors, kid_of, waiting_for_keys
from entra_fast.errors import (
    ConfigurationError,
    EntraFastError,
    Forbidden,
    InvalidToken,
    KeysUnavailable,
    StepUpRequired,
)
from entra_fast.require import Require

__all__ = [
    "AsyncValidator",
    "Claims",
    "ConfigurationError",
    "EntraFastError",
    "Forbidden",
    "InvalidToken",
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


class Options(TypedDict, total=False):
    """The keyword arguments that both validators take: see `Validator`."""

    jwks_uri: str | None
    jwks: str | bytes | Mapping[str, Any] | KeySet | None
    algorithms: Iterable[str]
    tenants: Iterable[str] | None
    leeway: float
    required_claims: Iterable[str]
    max_age: float | None
    max_token_bytes: int
    signatures: str
    cache_entries: int
    cache_bytes: int
    refresh: RefreshRules | None
    clock: Callable[[], float] | None


_Result = TypeVar("_Result")


class Validator:
    """Validates tokens, from any number of threads.

    A background thread fetches and refreshes the keys; a caller waits only when the signing key of its token
    is unknown. Works after `os.fork`. Create one validator per issuer and audience, and keep it.

    Args:
        issuer: accepted issuers (`iss`), compared exactly. A part `{tenantid}` stands for the token's own
            `tid`; it needs `tenants`. When issuer, jwks_uri and jwks are left out, they come from the
            environment, as NAIS sets it (`AZURE_OPENID_CONFIG_ISSUER`, `AZURE_OPENID_CONFIG_JWKS_URI`, or
            `AZURE_APP_WELL_KNOWN_URL`, and `AZURE_APP_CLIENT_ID` as the audience). A key that is published
            for an issuer verifies tokens of that issuer only, with one exception: Entra ID's v2.0 keys also
            verify v1.0 tokens of the same tenant, if you accept their issuer,
            `https://sts.windows.net/<tenant id>/`, as well. An API that migrates names both.
        audience: accepted audiences (`aud`). For Entra ID's v2.0 tokens that is the application's client id.
        jwks_uri: https URL at which the provider publishes its keys (http for loopback only).
        jwks: a fixed key set instead of a URL: its JSON text, the decoded object, or a `KeySet`.
        algorithms: accepted signature algorithms. A token's header only selects one of them.
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
        cache_bytes: maximum size of the cache, in bytes.
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
        audience: str | Sequence[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        configured = _configured(issuer, audience, _fetch_discovery, **options)
        self._native = configured.native
        self._verify = configured.native.validate
        self._clock = configured.clock
        self._keys: ThreadKeys | None = None
        if configured.jwks_uri is not None:
            self._keys = ThreadKeys(
                configured.jwks_uri, _fetch_keys, configured.native.set_keys, rules=configured.rules
            )

    @classmethod
    def from_env(cls, **options: Unpack[Options]) -> Self:
        """A validator for the application whose settings are in the environment, as NAIS puts them there. The
        same as `Validator()`.

        Args:
            options: as for `Validator`.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
            KeysUnavailable: only `AZURE_APP_WELL_KNOWN_URL` is set, and the document could not be fetched.
        """
        return cls(**options)

    @classmethod
    def from_discovery(
        cls,
        url: str,
        audience: str | Sequence[str],
        *,
        issuer: str | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """A validator for the provider that a discovery document describes (OpenID Connect Discovery 1.0, or
        RFC 8414).

        Args:
            url: URL of the document, such as `<issuer>/.well-known/openid-configuration`. It is fetched once,
                now.
            audience: accepted audiences (`aud`).
            issuer: the accepted issuer, where you know it. Then only `jwks_uri` is taken from the document,
                and its own issuer may be any.
            options: as for `Validator`.

        Raises:
            KeysUnavailable: the document could not be fetched, or names another issuer than its URL.
            ConfigurationError: the URL must not be requested.
        """
        found = _fetch_discovery(url, issuer)
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, **options)

    def validate(self, token: str | bytes) -> Claims:
        """Verify a token and return its claims.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; `code` and the message say why (docs/errors.md).
            KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        """
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            if self._keys is None:
                raise
            cause = cause_of(self._native, token, error, self._now())
            if cause is None:
                raise
            if not self._keys.refresh_for(cause, kid_of(token)):
                raise self._with_reason(error) from None
        try:
            return self._verify(token, self._now())
        except KeysUnavailable as error:
            raise self._with_reason(error) from None

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
        results = self._native.validate_many(tokens, self._now())
        if self._keys is not None and has_errors(results):
            for cause in Cause:
                waiting = waiting_for_keys(self._native, tokens, results, self._now())
                # One refresh serves all tokens that wait for keys, whatever else they wait for.
                if cause in waiting and self._keys.refresh_for(cause, first_kid(tokens, waiting[cause])):
                    every = [index for positions in waiting.values() for index in positions]
                    again = self._native.validate_many([tokens[index] for index in every], self._now())
                    for index, result in zip(every, again, strict=True):
                        results[index] = result
        return [self._with_reason(result) for result in results]

    def explain(self, token: str | bytes) -> list[dict[str, Any]]:
        """Run every check on a token and report the values that were compared. For diagnostics only: never
        base a decision on it. Keys are not fetched.

        Args:
            token: the token.

        Returns:
            One row per check, with `check`, `passed` (None if the check could not be made), `value`, `code`,
            `message`, `expected` and `actual`.
        """
        return self._native.explain(token, self._now())

    def start(self) -> None:
        """Begin to fetch keys in the background now, instead of at the first token."""
        if self._keys is not None:
            self._keys.start()

    def close(self) -> None:
        """Stop refreshing keys. Tokens that are signed with a known key can still be validated."""
        if self._keys is not None:
            self._keys.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> dict[str, int]:
        """Figures of the cache (cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions) and,
        where keys are fetched, of the keys (keys, keys_dropped, key_fetches, key_fetch_failures,
        key_set_age_seconds)."""
        return self._native.stats() | ({} if self._keys is None else self._keys.stats())

    def _now(self) -> float | None:
        """None lets the native module read the wall clock, which is faster."""
        return None if self._clock is None else self._clock()

    def _with_reason(self, result: _Result) -> _Result | KeysUnavailable:
        """The result. If there are no keys, it has the reason."""
        if isinstance(result, KeysUnavailable) and self._keys is not None:
            return self._keys.unavailable()
        return result


class AsyncValidator:
    """Validates tokens on an event loop. When that loop has ended, the validator can be used on another one.

    Args:
        issuer: as for `Validator`.
        audience: as for `Validator`.
        http: the HTTP client for fetching keys; by default the validator creates and closes one of its own.
        options: as for `Validator`.

    Raises:
        ConfigurationError: an argument or a variable is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key.
    """

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        *,
        http: AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> None:
        configured = _configured(issuer, audience, _refuse_discovery, **options)
        self._native = configured.native
        self._verify = configured.native.validate
        self._clock = configured.clock
        self._keys = None if configured.jwks_uri is None else _LoopKeys(configured, configured.jwks_uri, http)
        self._validation = AsyncValidation(configured.native, self._keys, configured.clock)

    @classmethod
    async def from_env(cls, *, http: AsyncHttpClient | None = None, **options: Unpack[Options]) -> Self:
        """A validator for the application whose settings are in the environment: see `Validator.from_env`.

        Args:
            http: as for `AsyncValidator`.
            options: as for `Validator`.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
            KeysUnavailable: only `AZURE_APP_WELL_KNOWN_URL` is set, and the document could not be fetched.
        """
        found = _Environment.read(os.environ)
        if found.well_known is not None:
            found = found.completed(await _fetch_discovery_async(found.well_known, http, found.issuer))
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, found.audience, http=http, **options)

    @classmethod
    async def from_discovery(
        cls,
        url: str,
        audience: str | Sequence[str],
        *,
        issuer: str | None = None,
        http: AsyncHttpClient | None = None,
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
        found = await _fetch_discovery_async(url, http, issuer)
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, http=http, **options)

    async def start(self) -> None:
        """Begin to fetch and refresh keys in the background. Does not fail when the provider is
        unavailable."""
        if self._keys is not None:
            self._keys.running()

    async def aclose(self) -> None:
        """Stop refreshing keys, and close the HTTP client if it is the validator's own."""
        if self._keys is not None:
            await self._keys.aclose()

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
            InvalidToken: the token is rejected; `code` and the message say why (docs/errors.md).
            KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        """
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            return await self._validation.validate_again(token, error)

    async def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """Verify many tokens, on all cores at once. The event loop keeps running.

        Args:
            tokens: the tokens.

        Returns:
            The claims of each token, or the error as a value, in the order of the tokens.

        Raises:
            TypeError: an item is neither str nor bytes.
        """
        return await self._validation.validate_many(tokens)

    async def introspect(self, token: str | bytes) -> bytes:
        """The JSON body of an introspection response (RFC 7662, section 2.2), as the sidecar sends it.

        Args:
            token: the token.

        Returns:
            The claims verbatim after `"active":true`, or `"active":false` with the reason. A bad token or the
            lack of keys raises nothing.
        """
        return await self._validation.introspect(token)

    def explain(self, token: str | bytes) -> list[dict[str, Any]]:
        """Run every check on a token and report the values: see `Validator.explain`.

        Args:
            token: the token.

        Returns:
            One row per check.
        """
        return self._native.explain(token, None if self._clock is None else self._clock())

    @property
    def ready(self) -> bool:
        """Whether there are keys to verify tokens with."""
        return self._native.keys is not None

    @property
    def not_ready_reason(self) -> str | None:
        """Why there are no keys; None when there are."""
        if self.ready:
            return None
        return "keys are not being fetched" if self._keys is None else self._keys.problem()

    def stats(self) -> dict[str, int]:
        """Figures of the cache and of the keys: see `Validator.stats`."""
        return self._native.stats() | ({} if self._keys is None else self._keys.stats())


class _LoopKeys:
    """The keys of an `AsyncValidator`: a `KeySource` that starts fetching when it is first asked, and starts
    again on another event loop when its own has ended (`asyncio.run` twice)."""

    def __init__(self, configured: _Configured, jwks_uri: str, http: AsyncHttpClient | None) -> None:
        self._jwks_uri = jwks_uri
        self._accept = configured.native.set_keys
        self._rules = configured.rules
        self._http = http
        self._own_http: AsyncHttpClient | None = None
        self._keys: AsyncKeys | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def running(self) -> AsyncKeys:
        """The keys that are being fetched on the running event loop."""
        self._forget_ended_loop()
        if self._keys is None:
            if self._http is None and self._own_http is None:
                self._own_http = _new_http_client()
            client = self._http or self._own_http
            assert client is not None  # noqa: S101 - for the type checker
            self._keys = AsyncKeys(self._jwks_uri, client, self._accept, rules=self._rules)
            self._keys.start()
            self._loop = asyncio.get_running_loop()
        return self._keys

    async def aclose(self) -> None:
        """Stop fetching."""
        self._forget_ended_loop()
        keys, self._keys = self._keys, None
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


@dataclass(frozen=True, slots=True)
class _Configured:
    """The arguments of a validator, checked."""

    native: NativeValidator
    jwks_uri: str | None
    rules: RefreshRules
    clock: Callable[[], float] | None


def _configured(
    issuer: str | Sequence[str] | None,
    audience: str | Sequence[str] | None,
    discover: Callable[[str, str | None], KeyDiscovery],
    *,
    jwks_uri: str | None = None,
    jwks: str | bytes | Mapping[str, Any] | KeySet | None = None,
    algorithms: Iterable[str] = ("RS256",),
    tenants: Iterable[str] | None = None,
    leeway: float = 60.0,
    required_claims: Iterable[str] = ("iat",),
    max_age: float | None = None,
    max_token_bytes: int = MAX_TOKEN_BYTES,
    signatures: str = "fast",
    cache_entries: int = 20_000,
    cache_bytes: int = 128 << 20,
    refresh: RefreshRules | None = None,
    clock: Callable[[], float] | None = None,
) -> _Configured:
    """Check the arguments of a validator, completed from the environment.

    Args:
        discover: fetches the discovery document at a URL, given the issuer where it is known already.

    Raises:
        ConfigurationError: an argument or a variable is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key.
    """
    if issuer is None and jwks_uri is None and jwks is None:
        found = _Environment.read(os.environ, audience)
        if found.well_known is not None:
            found = found.completed(discover(found.well_known, found.issuer))
        audience, issuer, jwks_uri = found.audience, found.issuer, found.jwks_uri
    if issuer is None:
        message = "issuer is missing: pass the issuer whose tokens are accepted"
        raise ConfigurationError("setting_missing", message, "issuer")
    if audience is None:
        message = "audience is missing: pass the audience that tokens must have, such as your client id"
        raise ConfigurationError("setting_missing", message, "audience")
    if (jwks_uri is None) == (jwks is None):
        raise ConfigurationError("setting_missing", "pass exactly one of jwks_uri and jwks", "jwks_uri")
    if jwks_uri is not None and (problem := url_problem(jwks_uri)) is not None:
        raise ConfigurationError("setting_invalid", f"jwks_uri {problem}", "jwks_uri")
    policy = Policy(
        issuers=_names("issuer", issuer),
        audiences=_names("audience", audience),
        algorithms=_names("algorithms", algorithms),
        tenants=None if tenants is None else _names("tenants", tenants),
        leeway=leeway,
        required_claims=_names("required_claims", required_claims),
        max_age=max_age,
        max_token_bytes=_count("max_token_bytes", max_token_bytes),
        signatures=signatures,
    )
    _signatures.log_distrust()
    native = NativeValidator(
        policy,
        None if jwks is None else _fixed_keys(jwks),
        cache_entries=_count("cache_entries", cache_entries),
        cache_bytes=_count("cache_bytes", cache_bytes),
    )
    return _Configured(native, jwks_uri, refresh or RefreshRules(), clock)


def _new_http_client() -> AsyncHttpClient:
    try:
        from entra_fast._provider.http_client import HttpClient  # noqa: PLC0415 - aiohttp is not needed for threads
    except ImportError:
        return ThreadedHttpClient()
    return HttpClient()


def _names(setting: str, value: Iterable[str]) -> list[str]:
    """One name or several. A string is one name, not a list of characters."""
    names = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError("setting_invalid", f"{setting} must be a string or several strings", setting)
    return names


def _count(setting: str, value: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= sys.maxsize:
        raise ConfigurationError(
            "setting_invalid", f"{setting} must be a whole number of at least 0", setting
        )
    return value


def _fixed_keys(jwks: str | bytes | Mapping[str, Any] | KeySet) -> KeySet:
    if isinstance(jwks, KeySet):
        return jwks
    return KeySet(orjson.dumps(jwks, default=dict) if isinstance(jwks, Mapping) else jwks)


def _refuse_discovery(_: str, __: str | None) -> KeyDiscovery:
    """A constructor cannot await the discovery document."""
    message = "only AZURE_APP_WELL_KNOWN_URL names the issuer: use `await AsyncValidator.from_env()`"
    raise ConfigurationError("setting_missing", message, "AZURE_OPENID_CONFIG_ISSUER")


def _fetch_keys(url: str) -> HttpResponse:
    return BlockingHttpClient().get(url, accept=KEY_SET_MEDIA_TYPES)


def _fetch_discovery(url: str, issuer: str | None = None) -> KeyDiscovery:
    _check_discovery_url(url)
    try:
        answer = BlockingHttpClient().get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None
    return _discovery(answer.status, answer.body, url, issuer)


async def _fetch_discovery_async(
    url: str, http: AsyncHttpClient | None, issuer: str | None = None
) -> KeyDiscovery:
    _check_discovery_url(url)
    client = http or _new_http_client()
    try:
        answer = await client.get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None
    finally:
        if http is None:
            await client.aclose()
    return _discovery(answer.status, answer.body, url, issuer)


def _check_discovery_url(url: str) -> None:
    if (problem := url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"the URL of the discovery document {problem}", "url")


def _not_fetched(error: EntraFastError) -> KeysUnavailable:
    return KeysUnavailable("keys_unavailable", f"fetching failed: {error.message}")


def _discovery(status: int, body: bytes, url: str, issuer: str | None) -> KeyDiscovery:
    if status != 200:
        raise KeysUnavailable("keys_unavailable", f"the discovery document's URL answered {status}, not 200")
    try:
        return parse_key_discovery(body, url, issuer=issuer)
    except DiscoveryError as error:
        raise KeysUnavailable(error.code, error.message) from None


@dataclass(frozen=True, slots=True)
class _Environment:
    """The issuer, its key set and the audience, as the variables of NAIS name them."""

    audience: str | Sequence[str]
    issuer: str | None = None
    jwks_uri: str | None = None
    well_known: str | None = None
    """URL of the discovery document, if it is needed to fill in missing values."""

    @classmethod
    def read(cls, environ: Mapping[str, str], audience: str | Sequence[str] | None = None) -> Self:
        """Read the environment.

        Raises:
            ConfigurationError: a variable is missing; `setting` names it.
        """

        def value(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        client_id = audience or value("AZURE_APP_CLIENT_ID")
        if client_id is None:
            raise _not_set("AZURE_APP_CLIENT_ID")
        issuer, jwks_uri = value("AZURE_OPENID_CONFIG_ISSUER"), value("AZURE_OPENID_CONFIG_JWKS_URI")
        if issuer is not None and jwks_uri is not None:
            return cls(client_id, issuer, jwks_uri)
        well_known = value("AZURE_APP_WELL_KNOWN_URL")
        if well_known is None:
            raise _not_set("AZURE_OPENID_CONFIG_ISSUER" if issuer is None else "AZURE_OPENID_CONFIG_JWKS_URI")
        return cls(client_id, issuer, jwks_uri, well_known)

    def completed(self, found: KeyDiscovery) -> _Environment:
        """Completed by the discovery document. Variables take precedence, as in the sidecar."""
        return _Environment(self.audience, self.issuer or found.issuer, self.jwks_uri or found.jwks_uri)


def _not_set(name: str) -> ConfigurationError:
    message = f"{name} is not set: set it (NAIS does where azure is enabled), or pass arguments"
    return ConfigurationError("setting_missing", message, name)


class _SharedValidator:
    """One validator for all threads of the process, created from the environment when it is first needed.

    Creating it may fetch the discovery document, which may fail or hang. One thread fetches; the others wait
    for the same result. After a failure, callers get it at once until the next attempt is due.

    Args:
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._validator: Validator | None = None
        self._schedule = KeySchedule(RefreshRules())
        self._failure: KeysUnavailable | None = None
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """The thread that creates the validator does not exist in a child process."""
        self._lock = threading.Lock()
        self._creation: Future[Validator] | None = None

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
            validator = Validator.from_env()
        except BaseException as error:
            with self._lock:
                if isinstance(error, KeysUnavailable):
                    self._failure = error
                    jitter = random.random()  # noqa: S311 - spreads load, guards nothing
                    self._schedule.failed(self._monotonic(), jitter)
                self._creation = None
            creation.set_exception(error)
            raise
        with self._lock:
            self._validator, self._creation = validator, None
        creation.set_result(validator)
        return validator


_shared = _SharedValidator()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows
    os.register_at_fork(after_in_child=_shared.reset_after_fork)


def validate(token: str | bytes) -> Claims:
    """Verify a token with one shared validator, which is created from the environment at the first call.

    Args:
        token: the token, without `Bearer `.

    Returns:
        Its claims.

    Raises:
        InvalidToken: the token is rejected; `code` and the message say why (docs/errors.md).
        KeysUnavailable: there are no keys to verify it with, which says nothing about the token.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """
    return _shared.get().validate(token)
