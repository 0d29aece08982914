"""The provider: discovery document, signing keys, clock, credential, and a token that comes back.

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
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import CREDENTIAL_TRY, Timing, WantedToken
from entra_fast._provider.verdicts import proves_nothing, rejects
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.cli.doctor.network import Way
from entra_fast.cli.doctor.results import TIME_LIMIT, Examination, Outcome, Result
from entra_fast.errors import ConfigurationError, EntraFastError, KeysUnavailable, ProviderError
from entra_fast.sidecar.policy import policy_for

DOCS = "docs/guides/troubleshooting.md#find-out-what-is-wrong"
TROUBLESHOOTING = "docs/guides/troubleshooting.md#symptoms"
INTROSPECTION = "docs/reference/endpoints.md#introspection"

CHECKS = ("dns", "tcp", "proxy", "tls", "discovery", "keys", "credential", "clock", "introspection")
"""All checks of a provider, in their order."""

WRONG_CLOCK = 300.0
"""Seconds of clock skew from which Entra ID rejects assertions, and valid tokens look expired or too new."""

_SAME_ENVIRONMENT = "check that AZURE_APP_CLIENT_ID and AZURE_APP_TENANT_ID belong to the same environment"
_REMEDIES: Final = {
    "AADSTS700016": _SAME_ENVIRONMENT,
    "AADSTS90002": _SAME_ENVIRONMENT,
    "AADSTS7000112": "let an administrator of the tenant enable the application",
    "AADSTS7000215": "mount the current client secret: its value, not its id",
    "AADSTS7000222": "create a new client secret, and mount it",
    "AADSTS700027": "register the certificate of the key with the application, or mount the current key",
    "AADSTS700024": "check this machine's clock; check that the file with the federated token rotates",
    "AADSTS700213": "compare issuer and subject of the federated token with the application's registration",
}
"""By the codes in _providers.py. docs/guides/troubleshooting.md has the same in its table of symptoms."""


class ProviderChecks:
    """The checks of one provider. Belongs to one event loop; `aclose` after use.

    Args:
        provider: its settings.
        outbound: those of outbound HTTP.
    """

    def __init__(self, provider: ProviderSettings, outbound: OutboundSettings) -> None:
        self._kind = provider.kind
        self._provider = provider
        self._outbound = outbound
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
        ways = _Ways(examination, self._outbound)
        provider = self._provider
        found = await examination.check(
            "discovery",
            self._discover,
            docs=DOCS,
            needs=(await ways.to(provider.well_known_url if provider.needs_discovery else None),),
            late=_late("the discovery document", provider.well_known_url),
        )
        endpoints = self._finder.endpoints
        jwks_uri = None if endpoints is None else endpoints.jwks_uri
        token_endpoint = None if endpoints is None else endpoints.token_endpoint
        keys = await examination.check(
            "keys",
            self._fetch_keys,
            docs=DOCS,
            needs=(found, await ways.to(jwks_uri)),
            late=_late("the key set", jwks_uri),
        )
        tried = await examination.check(
            "credential",
            self._try_credential,
            docs=TROUBLESHOOTING,
            needs=(credential, found, await ways.to(token_endpoint)),
            late=_late("a token", token_endpoint),
        )
        await examination.check("clock", self._compare_clocks, docs=DOCS, needs=ways.results)
        await examination.check(
            "introspection", self._introspect, docs=INTROSPECTION, needs=(policy, keys, tried)
        )

    # --- checks ---

    async def _discover(self) -> Outcome:
        url = shown_url(self._provider.well_known_url or "")
        try:
            endpoints = await self._finder.find()
        except ProviderError as error:
            code = _AADSTS.search(error.message)
            remedy = _REMEDIES.get(code[0] if code else "") or _advice(
                error, "check AZURE_APP_WELL_KNOWN_URL, or the tenant in AZURE_APP_TENANT_ID"
            )
            return Outcome("fail", error.message, f"a discovery document at {url}", remedy)
        if not self._provider.needs_discovery:
            return Outcome(
                "ok", f"not needed: the settings have issuer {endpoints.issuer} and both endpoints"
            )
        return Outcome("ok", f"the document names issuer {endpoints.issuer}")

    async def _fetch_keys(self) -> Outcome:
        url = self._known.jwks_uri
        try:
            self._keys = read_key_set(url, await self._http.get(url, accept=MEDIA_TYPES))
        except (KeysUnavailable, HttpFailure) as error:
            advice = "ask the operator of the provider: its discovery document names this URL"
            if self._provider.jwks_uri:
                advice = "check AZURE_OPENID_CONFIG_JWKS_URI"
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

    async def _try_credential(self) -> Outcome:
        named = self._credentials.in_order()[0].secret
        source = f"{named.setting} ({'a file' if named.path is not None else 'the environment'})"
        if (unreadable := self._credentials.problem()) is not None:
            return Outcome("fail", unreadable, "a credential that can be read", f"mount {named.setting}")
        scope = self._kind.tried_scope(self._provider.client_id, self._provider.scopes) or ""
        deadline = _clock.monotonic() + TIME_LIMIT
        try:
            token = await self._endpoint.request(WantedToken(b"", CREDENTIAL_TRY, scope), deadline)
        except ProviderError as error:
            return self._refused(error, source)
        self._token = token.access_token
        accepted = self._credentials.in_order()[0].secret.setting
        successor = "" if accepted == named.setting else f", and rejected {named.setting}"
        if successor:
            return Outcome(
                "warn",
                f"the provider accepted {accepted}{successor}",
                f"that {named.setting} is accepted",
                f"finish the rotation: move {accepted} to {named.setting}",
            )
        return Outcome("ok", f"the provider accepted {source}")

    def _refused(self, error: ProviderError, source: str) -> Outcome:
        expected = f"a token for the application itself, with {source}"
        code = provider_code(error)
        if rejects(self._kind, error):
            remedy = _REMEDIES.get(code, f"compare {source} and AZURE_APP_CLIENT_ID with the registration")
            found = f"the provider rejects the application or its credential, {source}: {_sentence(error)}"
            return Outcome("fail", found, expected, remedy)
        if not proves_nothing(error):
            # As in credential_try.py: the application has proved who it is, and only the token is refused.
            return Outcome("ok", f"the provider accepted {source}, and issues no token for it ({code})")
        if error.status in (408, 429) or error.code in ("provider_refused", "provider_failed"):
            return Outcome(
                "warn",
                f"the provider has not judged the credential: {_sentence(error)}",
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
        return Outcome(
            "fail" if abs(seconds) >= WRONG_CLOCK else "warn",
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
                _INTROSPECTION_REMEDIES.get(
                    wrong["code"], "run entra-fast validate --explain with a token that callers send"
                ),
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
    "wrong_issuer": "set AZURE_OPENID_CONFIG_ISSUER to the issuer in the tokens, or change their version in "
    "the application's registration (accessTokenAcceptedVersion)",
    "unknown_key": "check that the key set and the token endpoint belong to the same tenant",
    "algorithm_not_allowed": "add the algorithm to ENTRA_FAST_ALGORITHMS if the provider is meant to use it",
    "tenant_not_allowed": "add the tenant to ENTRA_FAST_ALLOWED_TENANTS if its tokens are to be accepted",
    "issued_in_the_future": "check this machine's clock",
    "token_expired": "check this machine's clock",
    "token_not_yet_valid": "check this machine's clock",
}


_AADSTS = re.compile(r"AADSTS[0-9]{1,8}", re.ASCII)
_NOT_NOW = re.compile(r" answered (429|5[0-9][0-9]) ", re.ASCII)
"""In the sentences of `http_rules.not_ok`."""


class _Ways:
    """Checks the way to each host once, whichever check needs it first."""

    def __init__(self, examination: Examination, outbound: OutboundSettings) -> None:
        self._examination = examination
        self._outbound = outbound
        self._known: dict[tuple[bool, str, int], Result] = {}

    @property
    def results(self) -> tuple[Result, ...]:
        """Those of all hosts so far."""
        return tuple(self._known.values())

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
