"""The library's front door: is this token acceptable?

    from entra_fast.validate import Validator

    validator = Validator(issuer=..., audience=..., jwks_uri=...)   # or Validator() on NAIS
    claims = validator.validate(token)                              # raises InvalidToken
    claims.require(role="access_as_application")                    # raises Forbidden

What belongs here: `Validator` for threads, `AsyncValidator` for asyncio, `validate()` from the environment.
What must never be here: parsing, verification and caching (the native core), or when to fetch keys (keys.py).
Importing this loads nothing of the server's.

On a token seen before, one call costs less than one SHA-256 of it. Otherwise it costs one signature
verification.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import orjson

from entra_fast import _native
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
from entra_fast._provider.blocking_http_client import BlockingHttpClient, ThreadedHttpClient
from entra_fast._provider.discovery_document import DiscoveryError, KeyDiscovery, parse_key_discovery
from entra_fast._provider.http_rules import AsyncHttpClient, HttpResponse
from entra_fast._provider.jwks import MEDIA_TYPES as KEY_SET_MEDIA_TYPES
from entra_fast._provider.jwks import AsyncKeys, KeySource, RefreshRules, ThreadKeys
from entra_fast._settings.load import url_problem
from entra_fast.errors import (
    ConfigurationError,
    EntraFastError,
    Forbidden,
    InvalidToken,
    KeysUnavailable,
)

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
    cache_entries: int
    cache_bytes: int
    refresh: RefreshRules | None
    clock: Callable[[], float] | None


_Result = TypeVar("_Result")


class _Validation:
    """What both validators share: settings become a complete policy, or a ConfigurationError."""

    _keys: ThreadKeys | KeySource | None = None

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        *,
        jwks_uri: str | None = None,
        jwks: str | bytes | Mapping[str, Any] | KeySet | None = None,
        algorithms: Iterable[str] = ("RS256",),
        tenants: Iterable[str] | None = None,
        leeway: float = 60.0,
        required_claims: Iterable[str] = ("iat",),
        max_age: float | None = None,
        max_token_bytes: int = MAX_TOKEN_BYTES,
        cache_entries: int = 20_000,
        cache_bytes: int = 128 << 20,
        refresh: RefreshRules | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if issuer is None and jwks_uri is None and jwks is None:
            found = _Environment.read(os.environ, audience)
            if found.well_known is not None:
                found = found.completed(self._discover(found.well_known))
            audience, issuer, jwks_uri = found.audience, found.issuer, found.jwks_uri
        if issuer is None:
            raise ConfigurationError(
                "setting_missing", "issuer is missing: whose tokens are accepted?", "issuer"
            )
        if audience is None:
            message = "audience is missing: for whom must the tokens be meant?"
            raise ConfigurationError("setting_missing", message, "audience")
        if (jwks_uri is None) == (jwks is None):
            message = "exactly one of jwks_uri and jwks must say where the keys come from"
            raise ConfigurationError("setting_missing", message, "jwks_uri")
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
        )
        fixed = None if jwks is None else _fixed_keys(jwks)
        self._verifier = NativeValidator(
            policy,
            fixed,
            cache_entries=_count("cache_entries", cache_entries),
            cache_bytes=_count("cache_bytes", cache_bytes),
        )
        self._verify = self._verifier.validate
        self._clock = clock
        self._jwks_uri = jwks_uri
        self._rules = refresh or RefreshRules()

    def _now(self) -> float | None:
        """None lets the native module read the wall clock, which is cheaper."""
        return None if self._clock is None else self._clock()

    def _discover(self, url: str) -> KeyDiscovery:
        """Fetch the discovery document, in the course of a constructor."""
        raise NotImplementedError

    def _explained(self, result: _Result) -> _Result | KeysUnavailable:
        """The result; where it is that there are no keys, with the reason for that."""
        if isinstance(result, KeysUnavailable) and self._keys is not None:
            return self._keys.unavailable()
        return result

    def explain(self, token: str | bytes) -> list[dict[str, Any]]:
        """Every check of a token in turn, with the values: for people who wonder why.

        Returns rows with check, passed (None: could not be made), value, code, message, expected, actual.
        Keys are not fetched for it. Never decide anything by it: that is what `validate` is for.
        """
        return self._verifier.explain(token, self._now())


class Validator(_Validation):
    """Validates tokens, from any number of threads.

    Keys are fetched and refreshed by a background thread; a caller waits only when the key it needs is
    unknown. Works after `os.fork`. Make one validator for an issuer and audience, and keep it.

    Args:
        issuer: accepted issuers (`iss`), compared exactly. A part `{tenantid}` stands for the token's own
            `tid`; then `tenants` is needed. When issuer, jwks_uri and jwks are left out, they come from the
            environment, as NAIS sets it (`AZURE_OPENID_CONFIG_ISSUER`, `AZURE_OPENID_CONFIG_JWKS_URI`, or
            `AZURE_APP_WELL_KNOWN_URL`, and `AZURE_APP_CLIENT_ID` as the audience). With `tenants`, keys vouch
            for the issuer only that they are published for: Entra ID's v2.0 keys not for v1.0 tokens, which
            need a validator of their own, with issuer `https://sts.windows.net/{tenantid}/` and jwks_uri
            `https://login.microsoftonline.com/common/discovery/keys`.
        audience: accepted audiences (`aud`); for Entra ID's v2.0 tokens the application's client id.
        jwks_uri: where the provider publishes its keys; https, or http on loopback.
        jwks: a fixed key set instead: its text, the decoded object, or a `KeySet`.
        algorithms: accepted signature algorithms; a token's header only selects among them.
        tenants: allowed tenant ids, or `["*"]` for any (then check the tenant yourself). A token's `tid` must
            then be there, and be the tenant in its issuer's path.
        leeway: seconds of clock skew allowed on exp, nbf and iat; 0 to 600.
        required_claims: claims that must be there besides iss, aud and exp.
        max_age: seconds since `iat` after which a token is refused.
        max_token_bytes: longer tokens are refused before they are parsed.
        cache_entries, cache_bytes: bounds of the cache of verified tokens; 0 entries turn it off.
        refresh: when keys are fetched.
        clock: seconds since the epoch; for tests.

    Raises:
        ConfigurationError: a setting is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key.
    """

    _keys: ThreadKeys | None = None

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(issuer, audience, **options)
        if self._jwks_uri is not None:
            self._keys = ThreadKeys(self._jwks_uri, _fetch_keys, self._verifier.set_keys, rules=self._rules)

    @classmethod
    def from_env(cls, **options: Unpack[Options]) -> Self:
        """A validator for the application whose settings NAIS put into the environment: `Validator()`.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
            KeysUnavailable: only `AZURE_APP_WELL_KNOWN_URL` is set, and the document could not be fetched.
        """
        return cls(**options)

    @classmethod
    def from_discovery(cls, url: str, audience: str | Sequence[str], **options: Unpack[Options]) -> Self:
        """A validator for the provider that a discovery document describes (OpenID Connect Discovery 1.0).

        Args:
            url: of the document, ending in `/.well-known/openid-configuration`. It is fetched now, once.

        Raises:
            KeysUnavailable: the document could not be fetched, or is not one of this URL's issuer.
            ConfigurationError: the URL must not be requested.
        """
        found = _fetch_discovery(url)
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, **options)

    def _discover(self, url: str) -> KeyDiscovery:
        return _fetch_discovery(url)

    def validate(self, token: str | bytes) -> Claims:
        """The claims of the token, which is acceptable now.

        Raises:
            InvalidToken: it is not; `code` and the sentence say why (docs/errors.md).
            KeysUnavailable: there are no keys to judge it by, which says nothing about the token.
        """
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            if self._keys is None or error.code not in _KEYS_MAY_HELP:
                raise
            if not self._keys.refresh_for_unknown(_kid(token)):
                raise self._explained(error) from None
        try:
            return self._verify(token, self._now())
        except KeysUnavailable as error:
            raise self._explained(error) from None

    def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """Validate on all cores at once.

        Returns the claims, or the error as a value, in the order of the tokens: one bad token does not lose
        the others. Raises nothing but TypeError for what is neither str nor bytes.
        """
        results = self._verifier.validate_many(tokens, self._now())
        if self._keys is not None:
            # One refresh serves all tokens that wait for a key.
            waiting = [index for index, result in enumerate(results) if _wants_keys(result)]
            if waiting and self._keys.refresh_for_unknown(_first_kid(tokens[index] for index in waiting)):
                again = self._verifier.validate_many([tokens[index] for index in waiting], self._now())
                for index, result in zip(waiting, again, strict=True):
                    results[index] = result
        return [self._explained(result) for result in results]

    def start(self) -> None:
        """Begin to fetch keys now, in the background, instead of at the first token."""
        if self._keys is not None:
            self._keys.start()

    def close(self) -> None:
        """Stop refreshing keys. Tokens of known keys can still be validated."""
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
        """Figures: cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions, and of the keys."""
        return self._verifier.stats() | ({} if self._keys is None else self._keys.stats())


class AsyncValidator(_Validation):
    """Validates tokens on one event loop; on another only after that has ended. The arguments are those of
    `Validator`, and:

    Args:
        http: the way out for fetching keys; by default one of its own.
    """

    def __init__(
        self,
        issuer: str | Sequence[str] | None = None,
        audience: str | Sequence[str] | None = None,
        *,
        http: AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(issuer, audience, **options)
        self._http = http
        self._own_http: AsyncHttpClient | None = None
        self._keys: KeySource | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    async def from_env(cls, *, http: AsyncHttpClient | None = None, **options: Unpack[Options]) -> Self:
        """As `Validator.from_env`."""
        found = _Environment.read(os.environ)
        if found.well_known is not None:
            found = found.completed(await _fetch_discovery_async(found.well_known, http))
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, found.audience, http=http, **options)

    @classmethod
    async def from_discovery(
        cls,
        url: str,
        audience: str | Sequence[str],
        *,
        http: AsyncHttpClient | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """As `Validator.from_discovery`."""
        found = await _fetch_discovery_async(url, http)
        options["jwks_uri"] = found.jwks_uri
        return cls(found.issuer, audience, http=http, **options)

    def _discover(self, url: str) -> KeyDiscovery:
        message = (
            "only AZURE_APP_WELL_KNOWN_URL says who the issuer is: use `await AsyncValidator.from_env()`"
        )
        raise ConfigurationError("setting_missing", message, "AZURE_OPENID_CONFIG_ISSUER")

    async def start(self) -> None:
        """Begin to fetch and refresh keys in the background. Does not fail when the provider is down."""
        self._running_keys()

    async def aclose(self) -> None:
        """Stop refreshing keys."""
        self._forget_ended_loop()
        keys, self._keys = self._keys, None
        if keys is not None:
            await keys.aclose()
        client, self._own_http = self._own_http, None
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def validate(self, token: str | bytes) -> Claims:
        """As `Validator.validate`. Waits only when the key it needs is unknown."""
        try:
            return self._verify(token, None if self._clock is None else self._clock())
        except (InvalidToken, KeysUnavailable) as error:
            await self._bring_keys(token, error)
        try:
            return self._verify(token, self._now())
        except KeysUnavailable as error:
            raise self._explained(error) from None

    async def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """As `Validator.validate_many`; the loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        judge = self._verifier.validate_many
        results = await loop.run_in_executor(None, judge, tokens, self._now())
        waiting = [index for index, result in enumerate(results) if _wants_keys(result)]
        if waiting and (keys := self._running_keys()) is not None:
            await keys.refresh_for_unknown(_first_kid(tokens[index] for index in waiting))
            again = await loop.run_in_executor(None, judge, [tokens[index] for index in waiting], self._now())
            for index, result in zip(waiting, again, strict=True):
                results[index] = result
        return [self._explained(result) for result in results]

    async def introspect(self, token: str | bytes) -> bytes:
        """The JSON body of an introspection answer (RFC 7662, section 2.2), as of the sidecar: the claims
        verbatim behind `"active":true`, or `"active":false` with the reason. Never raises for a bad token or
        for the lack of keys."""
        try:
            try:
                return self._verifier.introspect(token, self._now())
            except (InvalidToken, KeysUnavailable) as error:
                await self._bring_keys(token, error)
            return self._verifier.introspect(token, self._now())
        except (InvalidToken, KeysUnavailable) as error:
            return orjson.dumps({"active": False, "error": self._explained(error).message})

    @property
    def verifier(self) -> NativeValidator:
        """The native verifier, for whoever answers without this class. It does not fetch keys."""
        return self._verifier

    @property
    def ready(self) -> bool:
        """Are there keys to judge tokens by?"""
        return self._verifier.keys is not None

    @property
    def not_ready_reason(self) -> str | None:
        """Why there are no keys; None when there are."""
        if self.ready:
            return None
        return self._keys.unavailable().message if self._keys is not None else "keys are not being fetched"

    def stats(self) -> dict[str, int]:
        """Figures: cache_entries, cache_bytes, cache_hits, cache_misses, cache_evictions, and of the keys."""
        return self._verifier.stats() | ({} if self._keys is None else self._keys.stats())

    @property
    def fetch_outcomes(self) -> Mapping[str, int]:
        """How often keys were fetched, by outcome: `ok` or an error code. Nothing where they come from
        somewhere else."""
        return self._keys.outcomes if isinstance(self._keys, AsyncKeys) else {}

    def watch_cool_down(self, watcher: Callable[[float], None]) -> None:
        """As `AsyncKeys.watch_cool_down`; does nothing where keys come from somewhere else."""
        if isinstance(self._keys, AsyncKeys):
            self._keys.watch_cool_down(watcher)

    def call_when_fetched(self, go_on: Callable[[], None]) -> bool:
        """As `AsyncKeys.call_when_fetched`."""
        return self._keys is not None and self._keys.call_when_fetched(go_on)

    def _forget_ended_loop(self) -> None:
        """Tasks and connections of an ended loop can neither be used nor closed: `asyncio.run` twice."""
        if self._loop is not None and self._loop.is_closed():
            self._keys = self._own_http = self._loop = None

    def _running_keys(self) -> KeySource | None:
        self._forget_ended_loop()
        if self._keys is None and self._jwks_uri is not None:
            if self._http is None and self._own_http is None:
                self._own_http = _new_http_client()
            client = self._http or self._own_http
            assert client is not None  # noqa: S101 - for the type checker
            self._keys = AsyncKeys(self._jwks_uri, client, self._verifier.set_keys, rules=self._rules)
            self._keys.start()
            self._loop = asyncio.get_running_loop()
        return self._keys

    async def _bring_keys(self, token: str | bytes, error: EntraFastError) -> None:
        """Returns when a new try makes sense, else raises the error."""
        keys = self._running_keys() if error.code in _KEYS_MAY_HELP else None
        if keys is None or not await keys.refresh_for_unknown(_kid(token)):
            raise self._explained(error) from None


_KEYS_MAY_HELP = frozenset({"unknown_key", "keys_unavailable"})


def _wants_keys(result: Claims | EntraFastError) -> bool:
    return isinstance(result, EntraFastError) and result.code in _KEYS_MAY_HELP


def _kid(token: str | bytes) -> str | None:
    """The key id that a token names. Raises InvalidToken where not even its header can be read."""
    # Only the header is looked at, so that no other size limit than the policy's counts.
    header = token.partition(".")[0] + ".." if isinstance(token, str) else token.partition(b".")[0] + b".."
    kid = _native.unverified_header(header).get("kid")
    return kid if isinstance(kid, str) else None


def _first_kid(tokens: Iterable[str | bytes]) -> str | None:
    """The key id of the first token that can be read."""
    for token in tokens:
        try:
            return _kid(token)
        except InvalidToken:
            continue
    return None


def _new_http_client() -> AsyncHttpClient:
    try:
        from entra_fast._provider.http_client import HttpClient  # noqa: PLC0415 - aiohttp is not needed for threads
    except ImportError:
        return ThreadedHttpClient()
    return HttpClient()


def _names(setting: str, value: Iterable[str]) -> list[str]:
    """One name or several. A text is one name, and not the list of its letters."""
    names = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError("setting_invalid", f"{setting} must be a text, or several", setting)
    return names


def _count(setting: str, value: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= sys.maxsize:
        raise ConfigurationError(
            "setting_invalid", f"{setting} must be a whole number, not negative", setting
        )
    return value


def _fixed_keys(jwks: str | bytes | Mapping[str, Any] | KeySet) -> KeySet:
    if isinstance(jwks, KeySet):
        return jwks
    return KeySet(orjson.dumps(jwks, default=dict) if isinstance(jwks, Mapping) else jwks)


def _fetch_keys(url: str) -> HttpResponse:
    return BlockingHttpClient().get(url, accept=KEY_SET_MEDIA_TYPES)


def _fetch_discovery(url: str) -> KeyDiscovery:
    _check_discovery_url(url)
    try:
        answer = BlockingHttpClient().get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None
    return _discovery(answer.status, answer.body, url)


async def _fetch_discovery_async(url: str, http: AsyncHttpClient | None) -> KeyDiscovery:
    _check_discovery_url(url)
    client = http or _new_http_client()
    try:
        answer = await client.get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None
    finally:
        if http is None:
            await client.aclose()
    return _discovery(answer.status, answer.body, url)


def _check_discovery_url(url: str) -> None:
    if (problem := url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"the URL of the discovery document {problem}", "url")


def _not_fetched(error: EntraFastError) -> KeysUnavailable:
    return KeysUnavailable("keys_unavailable", f"fetching failed: {error.message}")


def _discovery(status: int, body: bytes, url: str) -> KeyDiscovery:
    if status != 200:
        raise KeysUnavailable("keys_unavailable", f"the discovery document's URL answered {status}, not 200")
    try:
        return parse_key_discovery(body, url)
    except DiscoveryError as error:
        raise KeysUnavailable(error.code, error.message) from None


@dataclass(frozen=True, slots=True)
class _Environment:
    """Whose tokens to accept, by the variables of NAIS: the issuer and its key set, or where to find them."""

    audience: str | Sequence[str]
    issuer: str | None = None
    jwks_uri: str | None = None
    well_known: str | None = None
    """Of the discovery document that says what is missing; None where nothing is."""

    @classmethod
    def read(cls, environ: Mapping[str, str], audience: str | Sequence[str] | None = None) -> Self:
        """Raises ConfigurationError naming the variable that is missing."""

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
        """With what the discovery document says; a variable that is set wins, as in the sidecar."""
        return _Environment(self.audience, self.issuer or found.issuer, self.jwks_uri or found.jwks_uri)


def _not_set(name: str) -> ConfigurationError:
    message = f"{name} is not set; NAIS sets it where azure is enabled. Or pass arguments"
    return ConfigurationError("setting_missing", message, name)


_default: Validator | None = None
_default_lock = threading.Lock()


def validate(token: str | bytes) -> Claims:
    """Validate with one shared validator, made from the environment at the first call.

    Raises:
        InvalidToken, KeysUnavailable: as `Validator.validate`.
        ConfigurationError: as `Validator.from_env`.
    """
    global _default  # noqa: PLW0603 - one per process is the point
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = Validator.from_env()
    return _default.validate(token)
