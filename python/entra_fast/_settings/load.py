"""Reads all settings from the environment and from files.

What belongs here: turning the catalogue's rows into `Settings`, and the checks that concern several settings
at once. What must never be here: network access, and defaults or bounds, which are the catalogue's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entra_fast import _extras
from entra_fast._memory import memory_limit
from entra_fast._net import proxies_from
from entra_fast._providers import ENTRA_ID
from entra_fast._settings import catalogue
from entra_fast._settings.cache_sizes import cache_settings
from entra_fast._settings.model import (
    CacheSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
    SharedCacheSettings,
)
from entra_fast._settings.providers import enabled_providers, is_enabled, named_provider
from entra_fast._settings.reader import Reader, missing
from entra_fast._settings.secret import Secret
from entra_fast._settings.unknown import unknown_settings
from entra_fast.errors import ConfigurationError

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a sidecar; complete and checked when it exists.

    Attributes:
        unknown: variables that look like settings but are not, each with the setting that was probably meant;
            and those that have no effect, with the reason.
    """

    server: ServerSettings
    providers: tuple[ProviderSettings, ...]
    outbound: OutboundSettings
    caches: CacheSettings
    shared_cache: SharedCacheSettings | None = None
    unknown: tuple[str, ...] = ()

    @property
    def clock_tolerance(self) -> float:
        """Seconds by which this machine's clock may differ from the providers' before a warning."""
        return min((provider.kind.clock_tolerance for provider in self.providers), default=30.0)

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
            directory: files with settings, see `setting_directories`; by default
                `ENTRA_FAST_SETTINGS_DIRECTORY`, or the directory where NAIS mounts them, if it exists.
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
            providers=enabled_providers(read),
            outbound=_outbound_settings(read),
            caches=cache_settings(read, server.workers, memory_limit(root)),
            shared_cache=_shared_cache_settings(read),
            unknown=(*unknown_settings(read), *read.ignored),
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
    environ: Mapping[str, str],
    directory: Path | None,
    *,
    provider: str | None = None,
    to_validate: bool = False,
) -> tuple[ProviderSettings | None, OutboundSettings]:
    """The settings that a client of a provider needs, without those of a sidecar. Arguments as for
    `Settings.from_environment`.

    Args:
        provider: a value of `identity_provider`. None for Entra ID, whose settings are None if it is not
            enabled.
        to_validate: for validating tokens only, which needs neither a credential nor a token endpoint.

    Raises:
        ConfigurationError: a setting is missing or wrong, or there is no such provider.
    """
    read = settings_reader(environ, directory)
    if provider is None:
        if not is_enabled(read, ENTRA_ID, read.get(catalogue.AZURE_ENABLED)):
            return None, _outbound_settings(read)
        provider = ENTRA_ID.name
    return named_provider(read, provider, to_validate=to_validate), _outbound_settings(read)


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
