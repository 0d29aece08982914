"""The arguments of a validator: checked, and completed from the environment and by discovery documents.

What belongs here: what each argument may be, and the requests for discovery documents. The variables that
stand for missing arguments are in _environment.py. What must never be here: keys that change, and tokens. The
public classes are in validate.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypedDict

from entra_fast import _signatures
from entra_fast._environment import Environment, described
from entra_fast._issuers import ANY_AUDIENCE, TENANT, AnyAudience, Issuer, IssuerChoice, P
from entra_fast._late_imports import importing
from entra_fast._native import ALGORITHMS, MAX_TOKEN_BYTES, KeySet, Policy
from entra_fast._native import Validator as NativeValidator
from entra_fast._net import ENTRA_ID, provider_url_problem
from entra_fast._provider import transport
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.jwks import MEDIA_TYPES as KEY_SET_MEDIA_TYPES
from entra_fast._provider.jwks_schedule import RefreshRules
from entra_fast.errors import ConfigurationError, EntraFastError, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._provider.discovery_document import KeyDiscovery
    from entra_fast._provider.http_rules import AsyncHttpClient, HttpResponse

    Discover = Callable[[str, str | None, HttpOptions], KeyDiscovery]


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


@dataclass(frozen=True, slots=True)
class Part:
    """One key set, with the policy of the tokens that it verifies: the arguments of a validator, checked."""

    issuers: Sequence[str]
    native: NativeValidator
    jwks_uri: str | None
    rules: RefreshRules
    http: HttpOptions
    has_own_http: bool
    """Whether `http` is the issuer's own, rather than the validator's."""


@dataclass(frozen=True, slots=True)
class Configured:
    """The arguments of a validator, checked."""

    parts: list[Part]
    checks_audience: bool
    """Whether every token must have some audience."""
    clock: Callable[[], float] | None
    max_token_bytes: int

    def choice(self, parts: Sequence[P]) -> IssuerChoice[P]:
        """The choice among what was made from each of `self.parts`."""
        named = [(part.issuers, made) for part, made in zip(self.parts, parts, strict=True)]
        return IssuerChoice(named, self.max_token_bytes)


def configure(
    issuer: str | Sequence[str] | None,
    audience: str | Sequence[str] | AnyAudience | None,
    issuers: Sequence[Issuer] | None,
    http: HttpOptions | None,
    discover: Discover | None,
    *,
    jwks_uri: str | None = None,
    jwks: str | bytes | Mapping[str, Any] | KeySet | None = None,
    algorithms: Iterable[str] | EllipsisType = ...,
    tenants: Iterable[str] | None = None,
    leeway: float = 60.0,
    required_claims: Iterable[str] = ("iat",),
    max_age: float | None = None,
    max_token_bytes: int = MAX_TOKEN_BYTES,
    signatures: str = "fast",
    cache_entries: int = 20_000,
    cache_bytes: int | EllipsisType = ...,
    refresh: RefreshRules | None = None,
    clock: Callable[[], float] | None = None,
) -> Configured:
    """Check the arguments of a validator, completed from the environment.

    Args:
        discover: fetches the discovery document at a URL, given the issuer where it is known already. None
            where that is impossible: in a constructor for asyncio.

    Raises:
        ConfigurationError: an argument or a variable is missing or wrong; `setting` names it.
        KeysUnavailable: a fixed key set has no usable key.
    """
    options = checked_options(http)
    if issuers is not None:
        if issuer is not None or jwks_uri is not None or jwks is not None:
            message = "issuers replaces issuer, jwks_uri and jwks: each Issuer has its own"
            raise ConfigurationError("setting_invalid", message, "issuers")
        sources = [_discovered(each, options, discover) for each in checked_issuers(issuers)]
    elif issuer is None and jwks_uri is None and jwks is None:
        given = {
            *(() if isinstance(algorithms, EllipsisType) else ("algorithms",)),
            *(() if tenants is None else ("tenants",)),
            *(() if refresh is None else ("refresh",)),
        }
        (found,) = described(os.environ, None, audience)
        sources = [completed(found, options, discover).as_issuer(given)]
    else:
        sources = [_one_issuer(issuer, audience, jwks_uri, jwks)]
    size = _count("max_token_bytes", max_token_bytes)
    # The limits hold for all parts together: each gets its share, rounded up so that none is without a cache.
    if cache_bytes is ...:
        cache_bytes = _default_cache_bytes()
    shares = [
        -(-_count(name, value) // len(sources))
        for name, value in (("cache_entries", cache_entries), ("cache_bytes", cache_bytes))
    ]
    names_of_algorithms = ["RS256"] if isinstance(algorithms, EllipsisType) else _in_order(algorithms)
    tenants = tenants and list(_names("tenants", tenants))
    required = _names("required_claims", required_claims)
    _signatures.log_distrust()
    parts = []
    checks_audience = True
    for source in sources:
        if source.jwks_uri is not None and (problem := provider_url_problem(source.jwks_uri)) is not None:
            raise ConfigurationError("setting_invalid", f"jwks_uri {problem}", "jwks_uri")
        accepted = audience if source.audience is None else source.audience
        if accepted is None:
            raise _no_audience()
        allowed = tenants if source.tenants is None else source.tenants
        names = _names("issuer", source.issuer or ())
        if accepted is ANY_AUDIENCE and any(_is_entra_id(name) for name in names):
            message = "audience must be the application's client id: every token of Entra ID has an audience"
            raise ConfigurationError("setting_invalid", message, "audience")
        checks_audience = checks_audience and accepted is not ANY_AUDIENCE
        policy = Policy(
            issuers=names,
            audiences=None if isinstance(accepted, AnyAudience) else _names("audience", accepted),
            algorithms=names_of_algorithms if source.algorithms is None else _in_order(source.algorithms),
            tenants=None if allowed is None else _names("tenants", allowed),
            leeway=leeway,
            required_claims=(
                required
                if source.required_claims is None
                else _names("required_claims", source.required_claims)
            ),
            max_age=max_age,
            max_token_bytes=size,
            signatures=signatures,
        )
        native = NativeValidator(
            policy,
            None if source.jwks is None else _fixed_keys(source.jwks),
            cache_entries=shares[0],
            cache_bytes=shares[1],
        )
        fetching = options if source.http is None else checked_options(source.http)
        if source.jwks_uri is not None:
            fetching.check_environment()
        rules = source.refresh or refresh or RefreshRules()
        parts.append(Part(names, native, source.jwks_uri, rules, fetching, source.http is not None))
    return Configured(parts, checks_audience, clock, size)


def _one_issuer(
    issuer: str | Sequence[str] | None,
    audience: str | Sequence[str] | AnyAudience | None,
    jwks_uri: str | None,
    jwks: str | bytes | Mapping[str, Any] | KeySet | None,
) -> Issuer:
    if issuer is None:
        message = "issuer is missing: pass the issuer whose tokens are accepted"
        raise ConfigurationError("setting_missing", message, "issuer")
    if audience is None:
        raise _no_audience()
    if (jwks_uri is None) == (jwks is None):
        raise ConfigurationError("setting_missing", "pass exactly one of jwks_uri and jwks", "jwks_uri")
    return Issuer(issuer=issuer, jwks_uri=jwks_uri, jwks=jwks)


def _is_entra_id(issuer: str) -> bool:
    """Whether an issuer is one of Entra ID, by the host in its URL; only Entra ID has issuers with a
    placeholder."""
    try:
        host = urllib.parse.urlsplit(issuer).hostname or ""
    except ValueError:
        host = ""
    return TENANT in issuer or any(host == name or host.endswith(f".{name}") for name in ENTRA_ID)


def _no_audience() -> ConfigurationError:
    message = "audience is missing: pass the audience that tokens must have, such as your client id"
    return ConfigurationError("setting_missing", message, "audience")


def checked_options(http: HttpOptions | None) -> HttpOptions:
    if http is None:
        return HttpOptions()
    if not isinstance(http, HttpOptions):
        raise ConfigurationError("setting_invalid", "http must be an HttpOptions", "http")
    return http


def checked_issuers(issuers: Sequence[Issuer]) -> list[Issuer]:
    found = list(issuers) if isinstance(issuers, Iterable) else []
    if not found or not all(isinstance(each, Issuer) for each in found):
        raise ConfigurationError("setting_invalid", "issuers must be at least one Issuer(...)", "issuers")
    return found


def _first_name(issuer: str | Sequence[str] | None) -> str | None:
    return issuer if issuer is None or isinstance(issuer, str) else next(iter(issuer), None)


def _discovered(issuer: Issuer, http: HttpOptions, discover: Discover | None) -> Issuer:
    """The issuer, completed by its discovery document if it has one."""
    if issuer.discovery is None:
        return issuer
    if discover is None:
        raise _not_in_a_constructor("discovery")
    return _completed(issuer, discover(issuer.discovery, _first_name(issuer.issuer), issuer.http or http))


async def discovered_async(issuer: Issuer, http: HttpOptions | AsyncHttpClient | None) -> Issuer:
    """As `_discovered`."""
    if issuer.discovery is None:
        return issuer
    named = _first_name(issuer.issuer)
    return _completed(issuer, await fetch_discovery_async(issuer.discovery, issuer.http or http, named))


def completed(found: Environment, http: HttpOptions, discover: Discover | None) -> Environment:
    """A provider of the environment, completed by its discovery document if it needs one."""
    if found.well_known is None:
        return found
    if discover is None:
        raise _not_in_a_constructor(found.issuer_setting)
    return found.completed(discover(found.well_known, found.issuer, http))


async def completed_async(found: Environment, http: HttpOptions | AsyncHttpClient | None) -> Environment:
    """As `completed`."""
    if found.well_known is None:
        return found
    return found.completed(await fetch_discovery_async(found.well_known, http, found.issuer))


def found_of(
    described: Sequence[Environment], discover: Callable[[str, str | None, HttpOptions], KeyDiscovery]
) -> tuple[list[Environment], KeysUnavailable | None]:
    """The providers of the environment whose discovery documents could be fetched, and the last failure."""
    found, failure = [], None
    for one in described:
        try:
            found.append(completed(one, HttpOptions(), discover))
        except KeysUnavailable as error:
            failure = error
    return found, failure


async def found_of_async(
    described: Sequence[Environment],
) -> tuple[list[Environment], KeysUnavailable | None]:
    """As `found_of`, with one of the failures."""
    found: list[Environment] = []
    failures: list[KeysUnavailable] = []

    async def complete(one: Environment) -> None:
        try:
            found.append(await completed_async(one, None))
        except KeysUnavailable as error:
            failures.append(error)

    await asyncio.gather(*map(complete, described))
    return found, failures[0] if failures else None


def of_environment(found: Sequence[Environment], options: Options) -> dict[str, Any]:
    """The arguments of a validator for providers of the environment that are complete.

    Args:
        options: what the program gave, which takes precedence.

    Raises:
        ConfigurationError: the program names keys, which a provider of the environment has.
    """
    for name in ("jwks_uri", "jwks"):
        if options.get(name) is not None:
            message = f"{name} is not for a provider of the environment, which has keys: pass issuer as well"
            raise ConfigurationError("setting_invalid", message, name)
    issuers = [one.as_issuer(options.keys()) for one in found]
    if len(issuers) > 1:
        return {"issuers": issuers, **options}
    # Without a choice among issuers, a token costs less.
    (one,) = issuers
    own = {name: getattr(one, name) for name in ("algorithms", "tenants", "refresh")}
    arguments = {"issuer": one.issuer, "audience": one.audience, **options, "jwks_uri": one.jwks_uri}
    return arguments | {name: value for name, value in own.items() if value is not None}


def _completed(issuer: Issuer, found: KeyDiscovery) -> Issuer:
    named = issuer.issuer or found.issuer
    return dataclasses.replace(issuer, issuer=named, jwks_uri=found.jwks_uri, discovery=None)


def _names(setting: str, value: Iterable[str]) -> list[str]:
    """One name or several. A string is one name, not a list of characters."""
    names = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise ConfigurationError("setting_invalid", f"{setting} must be a string or several strings", setting)
    return names


def _in_order(algorithms: Iterable[str]) -> list[str]:
    """The names of algorithms. A set has no order, but the first one counts: it gets that of `ALGORITHMS`."""
    names = _names("algorithms", algorithms)
    if isinstance(algorithms, Set):
        names.sort(key=lambda name: ALGORITHMS.index(name) if name in ALGORITHMS else -1)
    return names


@functools.cache
def _default_cache_bytes() -> int:
    with importing:
        from entra_fast._memory import memory_limit  # noqa: PLC0415 - needs pathlib, which takes time to load

    return min(128 << 20, (memory_limit() or sys.maxsize) // 8)


def _count(setting: str, value: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= sys.maxsize:
        raise ConfigurationError(
            "setting_invalid", f"{setting} must be a whole number of at least 0", setting
        )
    return value


def _fixed_keys(jwks: str | bytes | Mapping[str, Any] | KeySet) -> KeySet:
    if isinstance(jwks, KeySet):
        return jwks
    if not isinstance(jwks, Mapping):
        return KeySet(jwks)
    import orjson  # noqa: PLC0415 - few programs have keys as objects

    return KeySet(orjson.dumps(jwks, default=dict))


def _not_in_a_constructor(setting: str) -> ConfigurationError:
    """A constructor cannot await the discovery document."""
    message = (
        "a constructor cannot fetch the discovery document that names the issuer or its keys: use "
        "`await AsyncValidator.from_env()` or `from_issuers()`"
    )
    return ConfigurationError("setting_missing", message, setting)


def key_fetcher(options: HttpOptions) -> Callable[[str], HttpResponse]:
    # Imported here, not in the thread that fetches: a fork while it imports would leave its locks held.
    with importing:
        from entra_fast._provider.blocking_http_client import BlockingHttpClient  # noqa: PLC0415 - see above

    def fetch(url: str) -> HttpResponse:
        return BlockingHttpClient.from_options(options).get(url, accept=KEY_SET_MEDIA_TYPES)

    return fetch


def fetch_discovery(url: str, issuer: str | None, http: HttpOptions) -> KeyDiscovery:
    with importing:
        from entra_fast._provider.blocking_http_client import BlockingHttpClient  # noqa: PLC0415 - loads slowly

    _check_discovery_url(url)
    http.check_environment()
    try:
        answer = BlockingHttpClient.from_options(http).get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None
    return _discovery(answer, url, issuer)


async def fetch_discovery_async(
    url: str, http: HttpOptions | AsyncHttpClient | None, issuer: str | None = None
) -> KeyDiscovery:
    _check_discovery_url(url)
    if http is None or isinstance(http, HttpOptions):
        options = checked_options(http)
        options.check_environment()
        own = transport.asynchronous(options)
        try:
            answer = await _get(own, url)
        finally:
            await own.aclose()
    else:
        answer = await _get(http, url)
    return _discovery(answer, url, issuer)


async def _get(client: AsyncHttpClient, url: str) -> HttpResponse:
    try:
        return await client.get(url)
    except EntraFastError as error:
        raise _not_fetched(error) from None


def _check_discovery_url(url: str) -> None:
    if (problem := provider_url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"the URL of the discovery document {problem}", "url")


def _not_fetched(error: EntraFastError) -> KeysUnavailable:
    return KeysUnavailable("keys_unavailable", f"fetching failed: {error.message}")


def _discovery(answer: HttpResponse, url: str, issuer: str | None) -> KeyDiscovery:
    with importing:
        from entra_fast._provider.discovery_document import DiscoveryError, parse_key_discovery  # noqa: PLC0415
        from entra_fast._provider.http_rules import not_ok, shown_url  # noqa: PLC0415 - something was fetched

    if answer.status != 200:
        raise KeysUnavailable("keys_unavailable", f"the discovery document's URL {not_ok(url, answer)}")
    try:
        return parse_key_discovery(answer.body, url, issuer=issuer)
    except DiscoveryError as error:
        raise KeysUnavailable(error.code, f"{error.message} ({shown_url(url)})") from None
