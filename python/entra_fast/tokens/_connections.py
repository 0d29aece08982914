"""Where tokens come from: the provider itself, or a sidecar. Found in the environment or given by the
program.

What belongs here: checking what was given, and making the parts of a token client from it. What must never be
here: the clients themselves (_clients.py), and requests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict

import orjson

from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache
from entra_fast._net import provider_url_problem, url_problem, warn_of_insecure_hosts
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.http_rules import TokenTransport
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing
from entra_fast._settings.load import provider_client_settings
from entra_fast._settings.model import CredentialSettings, OutboundSettings, ProviderSettings
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError
from entra_fast.tokens._sidecar import SidecarEndpoint

TOKEN_ENDPOINT: Final = "NAIS_TOKEN_ENDPOINT"
EXCHANGE_ENDPOINT: Final = "NAIS_TOKEN_EXCHANGE_ENDPOINT"
"""The variables that NAIS sets in an application with a sidecar."""

SIDECAR_TIMEOUT: Final = 10.0
"""Seconds. The sidecar itself asks the provider for at most 5 s by default."""

SUBJECT: Final = "subject_token"
"""What messages call the user's token: the name of the argument."""


class ProviderOptions(TypedDict, total=False):
    """The keyword arguments of `from_provider`."""

    client_id: str
    tenant_id: str | None
    client_secret: str | None
    jwk: str | Mapping[str, Any] | None
    federated_token_file: str | Path | None
    token_endpoint: str | None
    well_known_url: str | None
    http: HttpOptions | None
    max_retries: int | None


class Connection(Protocol):
    """What a client is configured with.

    Attributes:
        tenant_id: the tenant of the application; empty if it is not known.
        outbound: how long a token may take, and how often requests are retried.
        http: how requests are made.
    """

    @property
    def tenant_id(self) -> str: ...

    @property
    def outbound(self) -> OutboundSettings: ...

    @property
    def http(self) -> HttpOptions | OutboundSettings: ...

    def open(self, http: TokenTransport, cache: TokenCache) -> Session: ...


class Session:
    """The token client of one event loop, with its HTTP client.

    Args:
        finder: finds the token endpoint; None if it is known.
    """

    def __init__(self, tokens: TokenClient, http: TokenTransport, finder: EndpointFinder | None) -> None:
        self.tokens = tokens
        self._http = http
        self._finder = finder

    async def aclose(self) -> None:
        """Cancel requests in flight, stop renewing, and close the HTTP client."""
        await self.tokens.aclose()
        if self._finder is not None:
            await self._finder.aclose()
        await self._http.aclose()


@dataclass(frozen=True, slots=True)
class ProviderConnection:
    """Straight to the provider, with the application's own credential."""

    provider: ProviderSettings
    outbound: OutboundSettings
    http: HttpOptions | OutboundSettings

    @property
    def tenant_id(self) -> str:
        """See `Connection`."""
        return self.provider.tenant_id

    def open(self, http: TokenTransport, cache: TokenCache) -> Session:
        """See `Connection`."""
        metrics, timing = Metrics(), Timing()
        finder = EndpointFinder(self.provider, http, metrics)
        credentials = Credentials(self.provider.credentials, self.provider.client_id)
        endpoint = TokenEndpoint(
            self.provider,
            finder=finder,
            http=http,
            credentials=credentials,
            metrics=metrics,
            timing=timing,
        )
        tokens = TokenClient(
            endpoint, cache, self.outbound, metrics=metrics, timing=timing, subject_name=SUBJECT
        )
        return Session(tokens, http, finder)


@dataclass(frozen=True, slots=True)
class SidecarConnection:
    """Through a sidecar, which has the credential."""

    token_endpoint: str
    exchange_endpoint: str
    identity_provider: str
    tenant_id: str
    outbound: OutboundSettings

    @property
    def http(self) -> OutboundSettings:
        """See `Connection`."""
        return self.outbound

    def open(self, http: TokenTransport, cache: TokenCache) -> Session:
        """See `Connection`."""
        timing = Timing()
        endpoint = SidecarEndpoint(
            self.token_endpoint, self.exchange_endpoint, self.identity_provider, http=http, timing=timing
        )
        tokens = TokenClient(
            endpoint, cache, self.outbound, metrics=Metrics(), timing=timing, subject_name=SUBJECT
        )
        return Session(tokens, http, None)


def from_environment(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Connection:
    """The sidecar that `NAIS_TOKEN_*` name, else the provider that `AZURE_*` describe.

    Raises:
        ConfigurationError: neither is there, one is there in part, or a value is wrong.
    """
    environment = os.environ if environ is None else environ
    if any(environment.get(name, "").strip() for name in (TOKEN_ENDPOINT, EXCHANGE_ENDPOINT)):
        return from_sidecar(environ=environment)
    provider, outbound = provider_client_settings(environment, directory)
    if provider is None:
        raise ConfigurationError(
            "setting_missing",
            f"no source of tokens is configured: set {TOKEN_ENDPOINT} and {EXCHANGE_ENDPOINT} "
            "(NAIS does with a sidecar), or AZURE_APP_CLIENT_ID and the other AZURE_* variables, or use "
            "from_provider() or from_sidecar()",
            TOKEN_ENDPOINT,
        )
    warn_of_insecure_hosts(outbound.insecure_hosts)
    return ProviderConnection(provider, outbound, outbound)


def from_sidecar(
    token_endpoint: str | None = None,
    exchange_endpoint: str | None = None,
    *,
    identity_provider: str = "entra_id",
    tenant_id: str | None = None,
    timeout: float = SIDECAR_TIMEOUT,
    environ: Mapping[str, str] | None = None,
) -> SidecarConnection:
    """A sidecar, at the given addresses or those in the environment.

    Raises:
        ConfigurationError: an address is missing or wrong.
    """
    environment = os.environ if environ is None else environ
    token_url = _sidecar_url("token_endpoint", token_endpoint, TOKEN_ENDPOINT, environment)
    exchange_url = _sidecar_url("exchange_endpoint", exchange_endpoint, EXCHANGE_ENDPOINT, environment)
    tenant = environment.get("AZURE_APP_TENANT_ID", "").strip() if tenant_id is None else tenant_id
    _check_seconds("timeout", timeout)
    outbound = OutboundSettings(
        connect_timeout=min(2.0, timeout),
        read_timeout=timeout,
        overall_timeout=timeout,
        max_retries=0,  # the sidecar has retried
        proxies={},
    )
    return SidecarConnection(token_url, exchange_url, identity_provider, tenant, outbound)


def _sidecar_url(argument: str, given: str | None, variable: str, environ: Mapping[str, str]) -> str:
    url, name = (given, argument) if given is not None else (environ.get(variable, "").strip(), variable)
    if not url:
        raise ConfigurationError(
            "setting_missing",
            f"{variable} is not set: a sidecar needs both {TOKEN_ENDPOINT} and {EXCHANGE_ENDPOINT} "
            f"(or pass {argument})",
            variable,
        )
    if (problem := url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"{name} {problem}", name)
    return url


def from_provider(
    *,
    client_id: str | None = None,
    tenant_id: str | None = None,
    client_secret: str | None = None,
    jwk: str | Mapping[str, Any] | None = None,
    federated_token_file: str | Path | None = None,
    token_endpoint: str | None = None,
    well_known_url: str | None = None,
    http: HttpOptions | None = None,
    max_retries: int | None = None,
) -> ProviderConnection:
    """The provider, as the arguments describe it; without a client id, as the environment does.

    Raises:
        ConfigurationError: something is missing or wrong; `setting` names it.
    """
    provider_named = (tenant_id, client_secret, jwk, federated_token_file, token_endpoint, well_known_url)
    if client_id is None:
        if any(value is not None for value in provider_named):
            raise ConfigurationError(
                "setting_missing", "client_id is missing: pass your client id", "client_id"
            )
        provider, outbound = provider_client_settings(os.environ, None)
        if provider is None:
            raise ConfigurationError(
                "setting_missing",
                "AZURE_APP_CLIENT_ID is not set: set it (NAIS does where azure is enabled), or pass "
                "arguments",
                "AZURE_APP_CLIENT_ID",
            )
        warn_of_insecure_hosts(outbound.insecure_hosts)
    else:
        _check_text("client_id", client_id)
        provider = _provider(client_id, tenant_id, token_endpoint, well_known_url)
        provider = replace(provider, credentials=_credential(client_secret, jwk, federated_token_file))
        outbound = OutboundSettings()
        http = http or HttpOptions()
    if http is not None:
        http.check_environment()
        outbound = replace(outbound, overall_timeout=http.seconds()[2])
    if max_retries is not None:
        if not 0 <= max_retries <= 10:
            raise ConfigurationError("setting_invalid", "max_retries must be from 0 to 10", "max_retries")
        outbound = replace(outbound, max_retries=max_retries)
    return ProviderConnection(provider, outbound, http or outbound)


def _provider(
    client_id: str, tenant_id: str | None, token_endpoint: str | None, well_known_url: str | None
) -> ProviderSettings:
    for name, url in (("token_endpoint", token_endpoint), ("well_known_url", well_known_url)):
        if url is not None and (problem := provider_url_problem(url)) is not None:
            raise ConfigurationError("setting_invalid", f"{name} {problem}", name)
    if tenant_id is not None:
        _check_text("tenant_id", tenant_id)
    if token_endpoint is None and well_known_url is None:
        if tenant_id is None:
            raise ConfigurationError(
                "setting_missing", "pass one of tenant_id, token_endpoint and well_known_url", "tenant_id"
            )
        if not tenant_id.replace("-", "").replace(".", "").isalnum():
            raise ConfigurationError(
                "setting_invalid", "tenant_id must be a tenant's GUID or domain name", "tenant_id"
            )
        well_known_url = (
            f"https://login.microsoftonline.com/{tenant_id}/v2.0/.well-known/openid-configuration"
        )
    return ProviderSettings(
        client_id=client_id,
        tenant_id=tenant_id or "",
        well_known_url=well_known_url,
        issuer=None,
        jwks_uri=None,
        token_endpoint=token_endpoint,
        credentials=CredentialSettings(),
    )


def _credential(
    client_secret: str | None, jwk: str | Mapping[str, Any] | None, federated_token_file: str | Path | None
) -> CredentialSettings:
    if sum(value is not None for value in (client_secret, jwk, federated_token_file)) != 1:
        raise ConfigurationError(
            "setting_missing",
            "pass exactly one of client_secret, jwk and federated_token_file",
            "client_secret",
        )
    if client_secret is not None:
        _check_text("client_secret", client_secret)
        return CredentialSettings(client_secret=Secret("client_secret", client_secret))
    if jwk is not None:
        text = jwk if isinstance(jwk, str) else orjson.dumps(jwk, default=dict).decode()
        signing_key("jwk", text)
        return CredentialSettings(jwk=Secret("jwk", text))
    assert federated_token_file is not None  # noqa: S101 - for the type checker
    return CredentialSettings(federated_token=Secret("federated_token_file", path=Path(federated_token_file)))


def _check_text(name: str, value: str) -> None:
    if not (isinstance(value, str) and value and value.isprintable()):
        raise ConfigurationError("setting_invalid", f"{name} must be a string that is not empty", name)


def _check_seconds(name: str, value: float) -> None:
    if not 0 < value <= 600:
        raise ConfigurationError(
            "setting_invalid", f"{name} must be more than 0 and at most 600 seconds", name
        )
