"""The frozen classes that the settings become.

What belongs here: values that are complete and checked once they exist. Their defaults are those of the
catalogue. What must never be here: the environment.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from entra_fast._providers import ENTRA_ID, Audience, ProviderKind
from entra_fast._settings import catalogue
from entra_fast._settings.secret import Secret
from entra_fast.errors import ConfigurationError

_BASE64URL = str.maketrans("-_", "+/")
_MIN_DIFFERENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """The application's credentials, in order of preference; none for a provider that needs none."""

    jwk: Secret | None = None
    next_jwk: Secret | None = None
    federated_token: Secret | None = None
    client_secret: Secret | None = None
    next_client_secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The application at one provider. Endpoints that are None come from the discovery document.

    Attributes:
        client_id: empty where the application does not authenticate itself.
        tenant_id: empty for providers without tenants.
        audience: that of introspected tokens, where a setting names it.
        scopes: that the application consumes, where the platform names them.
    """

    client_id: str
    tenant_id: str
    well_known_url: str | None
    issuer: str | None
    jwks_uri: str | None
    token_endpoint: str | None
    credentials: CredentialSettings
    allowed_tenants: tuple[str, ...] = catalogue.ALLOWED_TENANTS.default
    algorithms: tuple[str, ...] = catalogue.ALGORITHMS.default
    client_capabilities: tuple[str, ...] = catalogue.CLIENT_CAPABILITIES.default
    kind: ProviderKind = ENTRA_ID
    audience: str | None = None
    scopes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `identity_provider` names it."""
        return self.kind.name

    @property
    def audiences(self) -> tuple[str, ...] | None:
        """What `aud` of an introspected token may be; None if it is not checked."""
        match self.kind.audience:
            case Audience.CLIENT_ID:
                return (self.client_id,)
            case Audience.SETTING if self.audience is not None:
                return (self.audience,)
            case _:
                return None

    @property
    def needs_discovery(self) -> bool:
        """Whether the discovery document is needed to answer all requests."""
        needed = [self.issuer, self.jwks_uri]
        if self.kind.has_credential:
            needed.append(self.token_endpoint)
        return None in needed

    @property
    def tried_scope(self) -> str | None:
        """The scope of the token that is requested to try the credential. None: its first use judges it."""
        return self.kind.tried_scope(self.client_id, self.scopes)


@dataclass(frozen=True, slots=True)
class OutboundSettings:
    """Outbound HTTP: connections to the provider. Times are seconds."""

    connect_timeout: float = catalogue.HTTP_CONNECT_TIMEOUT.default
    read_timeout: float = catalogue.HTTP_READ_TIMEOUT.default
    overall_timeout: float = catalogue.HTTP_OVERALL_TIMEOUT.default
    max_retries: int = catalogue.HTTP_MAX_RETRIES.default
    ca_bundle: str | None = None
    insecure_hosts: frozenset[str] = catalogue.INSECURE_PROVIDER_HOSTS.default
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # a proxy URL may hold a password


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Inbound HTTP: listeners, limits and processes. Times are seconds."""

    host: str = catalogue.BIND_ADDRESS.default.host
    port: int = catalogue.BIND_ADDRESS.default.port
    probe_host: str | None = None
    probe_port: int = 0
    allowed_hosts: frozenset[str] = catalogue.ALLOWED_HOSTS.default
    max_connections: int = catalogue.MAX_CONNECTIONS.default
    request_timeout: float = catalogue.REQUEST_TIMEOUT.default
    idle_timeout: float = catalogue.IDLE_TIMEOUT.default
    drain_delay: float = catalogue.DRAIN_DELAY.default
    drain_timeout: float = catalogue.DRAIN_TIMEOUT.default
    workers: int = catalogue.WORKERS.default
    readiness: str = catalogue.READINESS.default
    fast_path: bool = catalogue.FAST_PATH.default
    signatures: str = catalogue.SIGNATURES.default
    log_level: str = catalogue.LOG_LEVEL.default
    log_format: str = catalogue.LOG_FORMAT.default
    access_log: bool = catalogue.ACCESS_LOG.default
    texas_metrics: bool = catalogue.TEXAS_METRICS.default


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Limits of the caches.

    Attributes:
        memory_limit: of the container, in bytes; None if there is none.
        idle_bytes: what the processes take without anything in their caches.
    """

    max_entries: int = catalogue.CACHE_MAX_ENTRIES.default
    max_bytes: int = catalogue.CACHE_MAX_BYTES.default
    verified_entries: int = catalogue.VERIFIED_CACHE_ENTRIES.default
    verified_bytes: int = catalogue.VERIFIED_CACHE_BYTES.default
    memory_limit: int | None = None
    idle_bytes: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class RedisLocation:
    """The parts of a Redis URL."""

    host: str
    port: int
    database: int
    tls: bool
    username: str | None
    password: str | None


@dataclass(frozen=True, slots=True)
class SharedCacheSettings:
    """The cache that replicas share, in Redis or Valkey. Times are seconds."""

    url: Secret
    key: Secret
    username: str | None = None
    password: Secret | None = None
    timeout: float = catalogue.REDIS_TIMEOUT.default
    connect_timeout: float = catalogue.REDIS_CONNECT_TIMEOUT.default

    def location(self) -> RedisLocation:
        """The server's address and credentials. Secrets are re-read, because they may have changed.

        Raises:
            ConfigurationError: the URL or the password cannot be read, or the URL is not a Redis URL.
        """
        location = redis_location(self.url.setting, self.url.reveal())
        return dataclasses.replace(
            location,
            username=self.username or location.username,
            password=self.password.reveal() if self.password is not None else location.password,
        )

    def encryption_key(self) -> bytes:
        """The 32 bytes of the key.

        Raises:
            ConfigurationError: the key cannot be read, or does not have the expected form.
        """
        return _encryption_key(self.key.setting, self.key.reveal())


def redis_location(setting: str, url: str) -> RedisLocation:
    """The parts of a Redis URL. `valkey` and `valkeys` are other names of its schemes.

    Raises:
        ConfigurationError: it is not such a URL. The message never contains the URL, which may hold a
            password.
    """

    def problem(expected: str) -> ConfigurationError:
        return ConfigurationError("setting_invalid", f"{setting} must {expected}", setting)

    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise problem("be a URL such as rediss://redis.example:6379") from None
    if parts.scheme not in ("redis", "rediss", "valkey", "valkeys") or not parts.hostname or port == 0:
        raise problem("be a URL such as rediss://redis.example:6379")
    if parts.query or parts.fragment:
        raise problem("not have a query or a fragment: there are settings for timeouts and TLS")
    if not re.fullmatch(r"/?[0-9]{0,5}", parts.path, re.ASCII):
        raise problem("have nothing but the number of a database as its path")
    return RedisLocation(
        host=parts.hostname,
        port=port or 6379,
        database=int(parts.path.strip("/") or "0"),
        tls=parts.scheme in ("rediss", "valkeys"),
        username=urllib.parse.unquote(parts.username) if parts.username else None,
        password=urllib.parse.unquote(parts.password) if parts.password else None,
    )


def _encryption_key(setting: str, text: str) -> bytes:
    key = b""
    with contextlib.suppress(ValueError):
        if len(text) == 64:
            key = bytes.fromhex(text)
        elif len(text) in (43, 44):
            key = base64.b64decode(text.rstrip("=").translate(_BASE64URL) + "=", validate=True)
    # Rejects placeholders such as 32 zero bytes. 32 random bytes practically never repeat this much.
    if len(key) != 32 or len(set(key)) < _MIN_DIFFERENT_BYTES:
        raise ConfigurationError(
            "setting_invalid", f"{setting} must be 32 random bytes in base64 or hex", setting
        )
    return key
