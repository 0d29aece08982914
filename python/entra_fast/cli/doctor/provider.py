"""One provider: discovery document, signing keys, clock, credential, and a token that comes back.

What belongs here: one request for each, with the parts of the sidecar, and what to do about each failure.
What must never be here: retries (a check says what is wrong now), and tokens in a result.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Final

from entra_fast import _clock
from entra_fast._metrics import Metrics
from entra_fast._native import KeySet, Validator
from entra_fast._provider.clock_skew import ClockSkew
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure, shown_url
from entra_fast._provider.jwks import MEDIA_TYPES, read_key_set
from entra_fast._provider.oauth import provider_code
from entra_fast._provider.rejections import proves_nothing, rejects
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import CREDENTIAL_TRY, Timing, WantedToken
from entra_fast._providers import ENTRA_ID, MASKINPORTEN, TOKENX, ProviderKind
from entra_fast._settings import catalogue
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.cli.doctor.network import Way
from entra_fast.cli.doctor.results import TIME_LIMIT, Examination, Outcome, Result
from entra_fast.cli.remedies import remedy
from entra_fast.errors import ConfigurationError, EntraFastError, KeysUnavailable, ProviderError
from entra_fast.sidecar.policy import policy_for

DOCS = "docs/guides/troubleshooting.md#find-out-what-is-wrong"
TROUBLESHOOTING = "docs/guides/troubleshooting.md#symptoms"
INTROSPECTION = "docs/reference/endpoints.md#introspection"

CHECKS = ("dns", "tcp", "proxy", "tls", "discovery", "keys", "credential", "clock", "introspection")
"""All checks of a provider, in their order."""

WRONG_CLOCK: Final = 300.0
"""Seconds of clock skew from which Entra ID rejects assertions, and valid tokens look expired or too new."""
_STRICT_CLOCKS: Final = {MASKINPORTEN.name: 10.0, TOKENX.name: 60.0}
"""The same where a provider allows less."""


class ProviderChecks:
    """The checks of one provider. Belongs to one event loop; `aclose` after use.

    Args:
        provider: its settings.
        outbound: those of outbound HTTP.
        ways: those to the hosts of all providers.
    """

    def __init__(self, provider: ProviderSettings, outbound: OutboundSettings, ways: Ways) -> None:
        self._kind = provider.kind
        self._variables = provider.kind.variables
        self._provider = provider
        self._ways = ways
        self._skew = ClockSkew(time.time)
        self._dated = False
        self._http = HttpClient.from_settings(outbound, answered=self._answered)
        metrics = Metrics()
        self._finder = EndpointFinder(provider, self._http, metrics)
        self._credentials = Credentials(provider.credentials, provider.client_id)
        self._endpoint = TokenEndpoint(
            provider,
            finder=self._finder,
            http=self._http,
            credentials=self._credentials,
            metrics=metrics,
            timing=Timing(time.time, _clock.monotonic),
        )
        self._keys: KeySet | None = None
        self._token: str | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._finder.aclose()
        await self._http.aclose()

    async def check(self, examination: Examination, credential: Result | None, policy: Result | None) -> None:
        """Check everything.

        Args:
            examination: that runs the checks.
            credential: what is wrong with the settings of the application and its credential, or None.
            policy: the same for the settings about accepted tokens.
        """
        provider, ways = self._provider, self._ways
        to_discovery = await ways.to(provider.well_known_url if provider.needs_discovery else None)
        found = await examination.check(
            "discovery",
            self._discover,
            docs=DOCS,
            needs=(to_discovery,),
            late=_late("the discovery document", provider.well_known_url),
        )
        endpoints = self._finder.endpoints
        jwks_uri = None if endpoints is None else endpoints.jwks_uri
        token_endpoint = None
        if endpoints is not None and self._kind.has_credential:
            token_endpoint = endpoints.token_endpoint
        to_keys = await ways.to(jwks_uri)
        keys = await examination.check(
            "keys",
            self._fetch_keys,
            docs=DOCS,
            needs=(found, to_keys),
            late=_late("the key set", jwks_uri),
        )
        to_tokens = await ways.to(token_endpoint)
        tried = await self._check_credential(examination, token_endpoint, (credential, found, to_tokens))
        hosts = tuple(host for host in (to_discovery, to_keys, to_tokens) if host is not None)
        await examination.check("clock", self._compare_clocks, docs=DOCS, needs=hosts)
        await examination.check(
            "introspection", self._introspect, docs=INTROSPECTION, needs=(policy, keys, tried)
        )

    async def _check_credential(
        self, examination: Examination, token_endpoint: str | None, needs: tuple[Result | None, ...]
    ) -> Result:
        if not self._kind.has_credential:
            outcome = Outcome("ok", "none is needed, because no tokens are requested")
            return examination.add("credential", outcome, docs=TROUBLESHOOTING)
        return await examination.check(
            "credential",
            self._read_credential if self._provider.tried_scope is None else self._try_credential,
            docs=TROUBLESHOOTING,
            needs=needs,
            late=_late("a token", token_endpoint),
        )

    # --- checks ---

    async def _discover(self) -> Outcome:
        url = shown_url(self._provider.well_known_url or "")
        try:
            endpoints = await self._finder.find()
        except ProviderError as error:
            tenant = ", or the tenant in AZURE_APP_TENANT_ID" if self._kind is ENTRA_ID else ""
            usual = f"check {self._variables.well_known_url}{tenant}"
            to_do = remedy(self._kind.name, error.message) or _advice(error, usual)
            return Outcome("fail", error.message, f"a discovery document at {url}", to_do)
        if not self._provider.needs_discovery:
            others = "both endpoints" if self._kind.has_credential else "the URL of the keys"
            return Outcome("ok", f"not needed: the settings have issuer {endpoints.issuer} and {others}")
        return Outcome("ok", f"the document names issuer {endpoints.issuer}")

    async def _fetch_keys(self) -> Outcome:
        url = self._known.jwks_uri
        try:
            self._keys = read_key_set(url, await self._http.get(url, accept=MEDIA_TYPES))
        except (KeysUnavailable, HttpFailure) as error:
            advice = "ask the operator of the provider: its discovery document names this URL"
            if self._provider.jwks_uri:
                advice = f"check {self._variables.jwks_uri}"
            return Outcome("fail", error.message, f"a key set at {shown_url(url)}", _advice(error, advice))
        count = len(self._keys)
        found = f"{count} key{'' if count == 1 else 's'} from {shown_url(url)}"
        if ignored := len(self._keys.dropped):
            return Outcome(
                "warn",
                f"{found}; {ignored} unusable ignored",
                "a key set in which every key can be used",
                "tokens that are signed with an ignored key are rejected: ask the operator of the provider",
            )
        return Outcome("ok", found)

    def _source(self) -> tuple[str, str]:
        """(setting, setting and where it comes from) of the credential."""
        named = self._credentials.in_order()[0].secret
        place = "a file" if named.path is not None else "the environment"
        return named.setting, f"{named.setting} ({place})"

    def _unreadable(self, setting: str) -> Outcome | None:
        problem = self._credentials.problem()
        if problem is None:
            return None
        return Outcome("fail", problem, "a credential that can be read", f"mount {setting}")

    async def _read_credential(self) -> Outcome:
        """Where no token can be requested to try the credential."""
        setting, source = self._source()
        found = f"{source} can be read; its first use shows whether the provider accepts it"
        if self._variables.scopes is not None:
            found += f": {self._variables.scopes} names no scope to try it with"
        return self._unreadable(setting) or Outcome("ok", found)

    async def _try_credential(self) -> Outcome:
        setting, source = self._source()
        if (unreadable := self._unreadable(setting)) is not None:
            return unreadable
        scope = self._provider.tried_scope or ""
        deadline = _clock.monotonic() + TIME_LIMIT
        try:
            token = await self._endpoint.request(WantedToken(b"", CREDENTIAL_TRY, scope), deadline)
        except ProviderError as error:
            return self._refused(error, source)
        self._token = token.access_token
        accepted = self._credentials.in_order()[0].secret.setting
        if accepted != setting:
            return Outcome(
                "warn",
                f"the provider accepted {accepted}, and rejected {setting}",
                f"that {setting} is accepted",
                f"finish the rotation: move {accepted} to {setting}",
            )
        return Outcome("ok", f"the provider accepted {source}")

    def _refused(self, error: ProviderError, source: str) -> Outcome:
        expected = f"a token for the application itself, with {source}"
        code = provider_code(error)
        to_do = remedy(self._kind.name, code, error.message)
        if rejects(self._kind, error):
            usual = f"compare {source} and {self._variables.client_id} with the registration"
            found = f"the provider rejects the application or its credential, {source}: {_sentence(error)}"
            return Outcome("fail", found, expected, to_do or usual)
        if not proves_nothing(error):
            if self._kind is MASKINPORTEN and to_do is not None:
                # A scope that the application consumes, and will ask for. Where none is named, no token of
                # this application can be had.
                is_about_scope = code in _ABOUT_SCOPES
                found = f"the provider refuses a token: {_sentence(error)}"
                wanted = f"a token with the scope {self._provider.tried_scope}"
                return Outcome("warn" if is_about_scope else "fail", found, wanted, to_do)
            # As in credential_try.py: the application has proved who it is, and only the token is refused.
            return Outcome("ok", f"the provider accepted {source}, and issues no token for it ({code})")
        if error.status in (408, 429) or error.code in ("provider_refused", "provider_failed"):
            return Outcome(
                "warn",
                f"the provider has neither accepted nor rejected the credential: {_sentence(error)}",
                expected,
                "try again later; the provider is overloaded, throttles or fails",
            )
        return Outcome(
            "fail", _sentence(error), expected, "check the token endpoint, and any web proxy on the way to it"
        )

    async def _compare_clocks(self) -> Outcome:
        if not self._dated:
            return Outcome("skip", "not checked: no answer of the provider had a Date")
        seconds = self._skew.seconds
        if abs(seconds) < self._kind.clock_tolerance:
            return Outcome("ok", f"differs from the provider's by less than {self._kind.clock_tolerance:g} s")
        direction = "ahead of" if seconds > 0 else "behind"
        wrong = _STRICT_CLOCKS.get(self._kind.name, WRONG_CLOCK)
        return Outcome(
            "fail" if abs(seconds) >= wrong else "warn",
            f"this machine's clock is {abs(seconds):.0f} s {direction} the provider's",
            f"a difference of less than {self._kind.clock_tolerance:g} s",
            "set the machine's clock, and let NTP keep it right; in a pod, the node's clock",
        )

    async def _introspect(self) -> Outcome:
        if self._token is None:
            return Outcome("skip", "not checked: the provider issues no token for the application itself")
        expected = "a token of the provider that introspection accepts"
        try:
            policy = policy_for(self._known.issuer, self._provider)
        except EntraFastError as error:
            setting = error.setting if isinstance(error, ConfigurationError) else ""
            return Outcome("fail", error.message, expected, f"set {setting}")
        failed = [row for row in Validator(policy, self._keys).explain(self._token) if not row["passed"]]
        wrong = next((row for row in failed if row["code"] not in (None, "wrong_audience")), None)
        if wrong is not None:
            return Outcome(
                "fail",
                f"a token that the provider has just issued is rejected: {wrong['message']}"
                + _compared(wrong["expected"], wrong["actual"]),
                expected,
                introspection_remedy(self._kind, wrong["code"]),
            )
        if failed:
            return Outcome(
                "ok",
                "a token that the provider has just issued is right in all but its audience, "
                f"{failed[0]['actual']}: the application requested it for itself. A caller's token must have "
                f"{self._provider.client_id}",
            )
        return Outcome("ok", "a token that the provider has just issued is accepted")

    # --- what they share ---

    @property
    def _known(self) -> Endpoints:
        assert self._finder.endpoints is not None  # noqa: S101 - a check that needs them comes after discovery
        return self._finder.endpoints

    def _answered(self, headers: Mapping[str, str], took: float) -> None:
        self._dated = self._dated or "Date" in headers
        self._skew.observe(headers, took)


_INTROSPECTION_REMEDIES: Final = {
    "unknown_key": "check that the key set and the token endpoint belong to the same tenant or environment",
    "issued_in_the_future": "check this machine's clock",
    "token_expired": "check this machine's clock",
    "token_not_yet_valid": "check this machine's clock",
}


def introspection_remedy(kind: ProviderKind, code: str) -> str:
    """What to do about a token of the provider's own that is rejected."""
    if code == "wrong_issuer":
        version = (
            ", or change their version in the application's registration (accessTokenAcceptedVersion)"
            if kind is ENTRA_ID
            else ""
        )
        return f"set {kind.variables.issuer} to the issuer in the tokens{version}"
    if code == "algorithm_not_allowed":
        return f"add the algorithm to {kind.variables.algorithms} if the provider is meant to use it"
    tenants = catalogue.provider_rows(kind).allowed_tenants
    if code == "tenant_not_allowed" and tenants is not None:
        return f"add the tenant to {tenants.name} if its tokens are to be accepted"
    usual = "run entra-fast validate --explain with a token that callers send"
    return _INTROSPECTION_REMEDIES.get(code, usual)


_ABOUT_SCOPES: Final = frozenset({"MP-200", "MP-250", "MP-251"})
_NOT_NOW = re.compile(r" answered (429|5[0-9][0-9]) ", re.ASCII)
"""In the sentences of `http_rules.not_ok`."""


class Ways:
    """Checks the connection to each host once, whichever check of whichever provider needs it first."""

    def __init__(self, examination: Examination, outbound: OutboundSettings) -> None:
        self._examination = examination
        self._outbound = outbound
        self._known: dict[tuple[bool, str, int], Result] = {}

    async def to(self, url: str | None) -> Result | None:
        """Whether the host of this URL can be reached. None for no URL."""
        if url is None:
            return None
        try:
            way = Way(url, self._outbound)
        except HttpFailure as error:
            outcome = Outcome("fail", error.message, "a URL of a host", "check the provider's URLs")
            return self._examination.add("dns", outcome, docs=DOCS)
        host = (way.route.tls, way.route.host, way.route.port)
        if host not in self._known:
            self._known[host] = await way.check(self._examination)
        return self._known[host]


def _late(what: str, url: str | None) -> Outcome:
    return Outcome(
        "fail",
        f"no answer within {TIME_LIMIT:g} s",
        f"{what} from {shown_url(url or '')}",
        "find out why the provider, or a web proxy on the way to it, is slow",
    )


def _advice(error: EntraFastError, usual: str) -> str:
    """What to do about an answer without the document."""
    if _NOT_NOW.search(error.message):
        return "try again later; the provider is overloaded, throttles or fails"
    return usual


def _sentence(error: ProviderError) -> str:
    """The provider's first line: Entra ID appends ids and times."""
    return error.message.splitlines()[0][:300] if error.message else error.error


def _compared(expected: object, actual: object) -> str:
    pairs = [f"{name} {value}" for name, value in (("expected", expected), ("actual", actual)) if value]
    return f" ({', '.join(pairs)})" if pairs else ""
