"""Reads all settings from the environment and from files.

What belongs here: turning the catalogue's rows into `Settings`, and the checks that concern several settings
at once. What must never be here: network access, and defaults or bounds, which are the catalogue's.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from entra_fast import _extras
from entra_fast._memory import memory_limit
from entra_fast._net import proxies_from, url_problem
from entra_fast._settings import catalogue
from entra_fast._settings.cache_sizes import cache_settings
from entra_fast._settings.kinds import FilePath, ProviderUrl
from entra_fast._settings.model import (
    CacheSettings,
    CredentialSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
    SharedCacheSettings,
)
from entra_fast._settings.reader import D, Reader, missing
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError

_KNOWN = frozenset(name for row in catalogue.SETTINGS for name in (row.name, *row.aliases))
# Kubernetes sets the excluded ones for a service called entra-fast.
_OURS = re.compile(r"ENTRA_FAST_(?!SERVICE_|PORT(_|$))[A-Z0-9_]{1,100}", re.ASCII)
_SHARED_PREFIXES = ("AZURE_APP_", "AZURE_OPENID_CONFIG_", "TEXAS_HTTP_")
"""Other programs have variables with these prefixes, so only a near miss of a setting is reported."""
_NEAR_MISS = 0.9
ROOT = Path("/")
_OTHER_PROVIDERS = ("IDPORTEN_ENABLED", "MASKINPORTEN_ENABLED", "TOKEN_X_ENABLED")
"""Switches of providers that Texas has, and this sidecar has not."""
_NOT_MISSPELLED = frozenset({"AZURE_APP_JWKS"})
"""Variables of NAIS that resemble a setting."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a sidecar; complete and checked when it exists.

    Attributes:
        unknown: variables that look like settings but are not, each with the setting that was probably meant;
            and those whose value is ignored, with what it must be.
    """

    server: ServerSettings
    providers: tuple[ProviderSettings, ...]
    outbound: OutboundSettings
    caches: CacheSettings
    shared_cache: SharedCacheSettings | None = None
    unknown: tuple[str, ...] = ()

    @property
    def provider(self) -> ProviderSettings | None:
        """The only provider that there can be so far."""
        return self.providers[0] if self.providers else None

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        *,
        root: Path = ROOT,
    ) -> Settings:
        """Read and check all settings.

        Args:
            environ: the environment; `os.environ` when None. An empty variable counts as unset.
            directory: files with settings; by default `ENTRA_FAST_SETTINGS_DIRECTORY`, or the directory
                where NAIS mounts them, if it exists.
            root: where the container's memory limit is looked up; for tests.

        Raises:
            ConfigurationError: with the setting's name; its message never contains the value of a secret.
        """
        return cls._read(settings_reader(environ, directory), root)

    @classmethod
    def examined(
        cls,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        *,
        root: Path = ROOT,
    ) -> tuple[Settings, list[ConfigurationError]]:
        """All settings with everything that is wrong with them, where `from_environment` raises the first
        problem. A setting that is wrong has its default here: do not serve with it.

        Args:
            environ: as for `from_environment`.
            directory: as for `from_environment`.
            root: as for `from_environment`.
        """
        problems: list[ConfigurationError] = []
        try:
            read = settings_reader(environ, directory, problems)
        except ConfigurationError as error:
            # What the directory holds is not known, so nothing can be said to be missing.
            read = Reader(os.environ if environ is None else environ, None, problems)
            settings = cls._read(read, root)
            return settings, [error, *(each for each in problems if each.code != "setting_missing")]
        return cls._read(read, root), problems

    @classmethod
    def _read(cls, read: Reader, root: Path) -> Settings:
        server = _server_settings(read)
        return cls(
            server=server,
            providers=_enabled_providers(read),
            outbound=_outbound_settings(read),
            caches=cache_settings(read, server.workers, memory_limit(root)),
            shared_cache=_shared_cache_settings(read),
            unknown=(*_unknown(read.environ), *read.ignored),
        )


def settings_reader(
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    problems: list[ConfigurationError] | None = None,
) -> Reader:
    """A reader of an environment and of the directory that holds settings as files.

    Args:
        problems: see `Reader`.

    Raises:
        ConfigurationError: ENTRA_FAST_SETTINGS_DIRECTORY is not a directory.
    """
    environment = os.environ if environ is None else environ
    if directory is None:
        row = catalogue.SETTINGS_DIRECTORY
        directory = Reader(environment, None).get(row)
        if environment.get(row.name) and not directory.is_dir():
            raise ConfigurationError("setting_invalid", f"{row.name} must be an existing directory", row.name)
    return Reader(environment, directory, problems)


def provider_client_settings(
    environ: Mapping[str, str], directory: Path | None, *, provider: str | None = None
) -> tuple[ProviderSettings | None, OutboundSettings]:
    """The settings that a client of the provider needs, without those of a sidecar: None if no provider is
    enabled. Arguments as for `Settings.from_environment`.

    Args:
        provider: a value of `identity_provider`; None for Entra ID.

    Raises:
        ConfigurationError: a setting is missing or wrong, or there is no such provider.
    """
    read = settings_reader(environ, directory)
    is_named = read.get(catalogue.AZURE_ENABLED) is not None or read.names(catalogue.AZURE_APP_CLIENT_ID)
    return _provider_settings(read) if is_named else None, _outbound_settings(read)


def _unknown(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        if name in _KNOWN or name in _NOT_MISSPELLED:
            continue
        ours = _OURS.fullmatch(name) is not None
        if ours or name.startswith(_SHARED_PREFIXES):
            meant = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.8 if ours else _NEAR_MISS)
            if meant:
                yield f"{name} (did you mean {meant[0]}?)"
            elif ours:
                yield name


def _server_settings(read: Reader) -> ServerSettings:
    address = read.get(catalogue.BIND_ADDRESS)
    probe = read.get(catalogue.PROBE_BIND_ADDRESS)
    if probe is not None and probe == address and probe.port != 0:
        read.refuse(
            ConfigurationError(
                "setting_invalid", "PROBE_BIND_ADDRESS must differ from BIND_ADDRESS", "PROBE_BIND_ADDRESS"
            )
        )
    return ServerSettings(
        host=address.host,
        port=address.port,
        probe_host=probe.host if probe else None,
        probe_port=probe.port if probe else 0,
        allowed_hosts=read.get(catalogue.ALLOWED_HOSTS),
        max_connections=read.get(catalogue.MAX_CONNECTIONS),
        request_timeout=read.get(catalogue.REQUEST_TIMEOUT),
        idle_timeout=read.get(catalogue.IDLE_TIMEOUT),
        drain_delay=read.get(catalogue.DRAIN_DELAY),
        drain_timeout=read.get(catalogue.DRAIN_TIMEOUT),
        workers=_workers(read),
        readiness=read.get(catalogue.READINESS),
        fast_path=read.get(catalogue.FAST_PATH),
        signatures=read.get(catalogue.SIGNATURES),
        log_level=read.get(catalogue.LOG_LEVEL),
        log_format=read.get(catalogue.LOG_FORMAT),
        access_log=read.get(catalogue.ACCESS_LOG),
        texas_metrics=read.get(catalogue.TEXAS_METRICS),
    )


def _workers(read: Reader) -> int:
    workers = read.get(catalogue.WORKERS)
    if workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
        message = "ENTRA_FAST_WORKERS must be 1: several workers need SO_REUSEPORT, which this system lacks"
        read.refuse(ConfigurationError("setting_invalid", message, "ENTRA_FAST_WORKERS"))
    return workers


def _outbound_settings(read: Reader) -> OutboundSettings:
    ca_bundle = read.get(catalogue.CA_BUNDLE)
    if ca_bundle is not None:
        with read.reporting():
            _check_ca_bundle(ca_bundle)
    return OutboundSettings(
        connect_timeout=read.get(catalogue.HTTP_CONNECT_TIMEOUT),
        read_timeout=read.get(catalogue.HTTP_READ_TIMEOUT),
        overall_timeout=read.get(catalogue.HTTP_OVERALL_TIMEOUT),
        max_retries=read.get(catalogue.HTTP_MAX_RETRIES),
        ca_bundle=None if ca_bundle is None else str(ca_bundle),
        insecure_hosts=read.get(catalogue.INSECURE_PROVIDER_HOSTS),
        proxies=_proxies(read),
    )


def _check_ca_bundle(path: Path) -> None:
    import ssl  # noqa: PLC0415 - needed only if there is a bundle, and slow to import

    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        name = catalogue.CA_BUNDLE.name
        raise ConfigurationError(
            "setting_invalid", f"{name} must name a readable PEM file with CA certificates", name
        ) from None


def _proxies(read: Reader) -> dict[str, str]:
    proxies: dict[str, str] = {}
    for name in ("https_proxy", "http_proxy", "no_proxy"):  # one at a time: each may be wrong
        with read.reporting():
            proxies |= proxies_from(
                {key: value for key, value in read.environ.items() if key.lower() == name}
            )
    return proxies


def _shared_cache_settings(read: Reader) -> SharedCacheSettings | None:
    timeout, connect_timeout = read.get(catalogue.REDIS_TIMEOUT), read.get(catalogue.REDIS_CONNECT_TIMEOUT)
    url = read.secret(catalogue.REDIS_URL)
    if url is None:
        return None
    key, key_file = read.secret(catalogue.REDIS_KEY), read.get(catalogue.REDIS_KEY_FILE)
    if key is None and key_file is not None:
        key = Secret(catalogue.REDIS_KEY_FILE.name, path=key_file)
    if key is None:
        read.refuse(
            missing(
                catalogue.REDIS_KEY,
                f" or {catalogue.REDIS_KEY_FILE.name} must be set, so that tokens are encrypted before they "
                "are sent to Redis",
            )
        )
        return None
    settings = SharedCacheSettings(
        url=url,
        key=key,
        username=read.get(catalogue.REDIS_USERNAME),
        password=read.secret(catalogue.REDIS_PASSWORD),
        timeout=timeout,
        connect_timeout=connect_timeout,
    )
    for check in (settings.location, settings.encryption_key):
        with read.reporting():
            check()
    if (package := _extras.absent("redis")) is not None:
        message = _extras.sentence("redis", package, url.setting)
        read.refuse(ConfigurationError("setting_invalid", message, url.setting))
    return settings


def _enabled_providers(read: Reader) -> tuple[ProviderSettings, ...]:
    """All providers that are enabled; none if the environment says so.

    Raises:
        ConfigurationError: a setting is missing or wrong, or nothing is said at all.
    """
    provider = _provider_settings(read)
    return () if provider is None else (provider,)


def _provider_settings(read: Reader) -> ProviderSettings | None:
    """None if the environment says that there is none.

    Raises:
        ConfigurationError: a setting is missing or wrong, or nothing is said at all.
    """
    enabled = read.get(catalogue.AZURE_ENABLED)
    if enabled is False:
        return None
    # Platforms inject AZURE_CLIENT_ID and the like into every workload, so these complete a provider that is
    # enabled otherwise, and never enable one.
    if enabled is None and not read.names(catalogue.AZURE_APP_CLIENT_ID):
        others = {read.environ.get(name) for name in _OTHER_PROVIDERS}
        if "false" in others and "true" not in others:
            return None  # a statement about other providers: this one was not forgotten
        read.refuse(
            missing(
                catalogue.AZURE_APP_CLIENT_ID,
                " is not set, so no provider is configured: set it, or AZURE_ENABLED=true with "
                "AZURE_CLIENT_ID, or AZURE_ENABLED=false to start without a provider",
            )
        )
        return None
    client_id = read.get(catalogue.AZURE_APP_CLIENT_ID)
    if client_id is None:
        read.refuse(missing(catalogue.AZURE_APP_CLIENT_ID, " must be set when AZURE_ENABLED is true"))
    tenant_id = read.get(catalogue.AZURE_APP_TENANT_ID) or ""
    issuer = _provider_url(read, catalogue.AZURE_OPENID_CONFIG_ISSUER)
    well_known_url = _provider_url(read, catalogue.AZURE_APP_WELL_KNOWN_URL)
    jwks_uri = _provider_url(read, catalogue.AZURE_OPENID_CONFIG_JWKS_URI)
    token_endpoint = _provider_url(read, catalogue.AZURE_OPENID_CONFIG_TOKEN_ENDPOINT)
    if well_known_url is None and not (issuer and jwks_uri and token_endpoint):
        if not tenant_id:
            read.refuse(
                missing(
                    catalogue.AZURE_APP_WELL_KNOWN_URL,
                    " must be set (or AZURE_APP_TENANT_ID, or all of AZURE_OPENID_CONFIG_ISSUER, _JWKS_URI "
                    "and _TOKEN_ENDPOINT)",
                )
            )
        authority = _provider_url(read, catalogue.AZURE_AUTHORITY_HOST)
        well_known_url = f"{authority}/{tenant_id}/v2.0/.well-known/openid-configuration"
    return ProviderSettings(
        client_id=client_id or "",
        tenant_id=tenant_id,
        well_known_url=well_known_url,
        issuer=issuer,
        jwks_uri=jwks_uri,
        token_endpoint=token_endpoint,
        credentials=_credential_settings(read),
        allowed_tenants=read.get(catalogue.ALLOWED_TENANTS),
        algorithms=read.get(catalogue.ALGORITHMS),
        client_capabilities=read.get(catalogue.CLIENT_CAPABILITIES),
    )


def _provider_url(read: Reader, setting: ProviderUrl[D]) -> str | D:
    """A URL of the provider: https, or http on loopback or on a host that is named for that."""
    url = read.get(setting)
    if isinstance(url, str):
        problem = url_problem(url, read.get(catalogue.INSECURE_PROVIDER_HOSTS))
        if problem is not None:
            read.refuse(ConfigurationError("setting_invalid", f"{setting.name} {problem}", setting.name))
            return setting.default
    return url


def _credential_settings(read: Reader) -> CredentialSettings:
    for row in (catalogue.AZURE_APP_JWK, catalogue.AZURE_APP_NEXT_JWK):
        with read.reporting(row):
            secret = read.secret(row)
            if secret is not None:
                signing_key(secret.setting, secret.reveal())
    jwk, client_secret = read.secret(catalogue.AZURE_APP_JWK), read.secret(catalogue.AZURE_APP_CLIENT_SECRET)
    federated_token = _file(read, catalogue.AZURE_FEDERATED_TOKEN_FILE)
    if not (jwk or federated_token or client_secret):
        # Last, because it is there whether the application has registered it with Entra ID or not.
        federated_token = _file(read, catalogue.NAIS_SERVICE_ACCOUNT_TOKEN_PATH)
    credentials = CredentialSettings(
        jwk=jwk,
        next_jwk=read.successor(catalogue.AZURE_APP_NEXT_JWK, jwk),
        federated_token=federated_token,
        client_secret=client_secret,
        next_client_secret=read.successor(catalogue.AZURE_APP_NEXT_CLIENT_SECRET, client_secret),
    )
    if not (credentials.jwk or credentials.federated_token or credentials.client_secret):
        read.refuse(
            missing(
                catalogue.AZURE_APP_JWK,
                ", AZURE_FEDERATED_TOKEN_FILE, AZURE_APP_CLIENT_SECRET or NAIS_SERVICE_ACCOUNT_TOKEN_PATH "
                "must be set",
            )
        )
    return credentials


def _file(read: Reader, setting: FilePath[None]) -> Secret | None:
    """The file that a setting names, which is read at each use."""
    path = read.get(setting)
    return None if path is None else Secret(setting.name, path=path)
