"""Settings: read once from the environment and from files, checked, and frozen.

What belongs here: the names, defaults and meanings of all settings (`SETTINGS`, from which
docs/settings.md is made), the frozen classes they become, and the rule for which URLs may be spoken to.
What must never be here: network access, and secrets as bare strings. A secret is a `Secret`, which shows
only its name and re-reads its file at every use, because mounted secrets rotate without a restart.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib.util
import os
import re
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from entra_fast import _native
from entra_fast.errors import ConfigurationError

DEFAULT_DIRECTORY = Path("/var/run/secrets/nais.io/azure")
"""Where NAIS mounts the settings of the provider as files."""

MAX_SETTING_BYTES = 65_536
"""A setting's file longer than this is not a setting."""

MAX_WORKERS = 64

ERROR_CODES = {
    "setting_missing": "a setting that is needed is not there",
    "setting_invalid": "a setting does not have the expected form",
    "setting_unreadable": "a file that holds a setting cannot be read",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of docs/settings.md."""

    name: str
    default: str
    meaning: str
    aliases: tuple[str, ...] = ()
    environment_only: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "BIND_ADDRESS", "127.0.0.1:3000", "Where the API listens, as `host:port`. NAIS uses `127.0.0.1:7164`."
    ),
    Setting(
        "PROBE_BIND_ADDRESS",
        "",
        "A second listener for probes and metrics; without it they are on the main one. "
        "NAIS uses `0.0.0.0:7165`.",
    ),
    Setting(
        "AZURE_ENABLED",
        "",
        "`true` or `false`. When unset, the provider is enabled if `AZURE_APP_CLIENT_ID` is set.",
    ),
    Setting(
        "AZURE_APP_CLIENT_ID", "", "The application's client id; also the audience of tokens it introspects."
    ),
    Setting(
        "AZURE_APP_TENANT_ID",
        "",
        "The tenant. Without a well-known URL and endpoints, "
        "Entra ID's public discovery document for this tenant is used.",
    ),
    Setting("AZURE_APP_WELL_KNOWN_URL", "", "Discovery document; fills what the next three leave out."),
    Setting("AZURE_OPENID_CONFIG_ISSUER", "", "Issuer of the tokens to accept; wins over discovery."),
    Setting(
        "AZURE_OPENID_CONFIG_JWKS_URI", "", "Where the provider publishes its keys; wins over discovery."
    ),
    Setting("AZURE_OPENID_CONFIG_TOKEN_ENDPOINT", "", "The provider's token endpoint; wins over discovery."),
    Setting(
        "AZURE_APP_JWK",
        "",
        "Private JWK for client assertions (`private_key_jwt`, RFC 7523). First choice of credential.",
    ),
    Setting(
        "AZURE_APP_NEXT_JWK",
        "",
        "The next private JWK during a rotation; used when the provider rejects the current one.",
    ),
    Setting(
        "AZURE_FEDERATED_TOKEN_FILE",
        "",
        "Workload identity: a file whose content is the client assertion. Re-read on every use. "
        "Second choice.",
    ),
    Setting("AZURE_APP_CLIENT_SECRET", "", "Client secret (`client_secret_post`). Last choice."),
    Setting(
        "AZURE_APP_NEXT_CLIENT_SECRET",
        "",
        "The next client secret during a rotation; used when the provider rejects the current one.",
    ),
    Setting(
        "ENTRA_FAST_SETTINGS_DIRECTORY",
        str(DEFAULT_DIRECTORY),
        "Directory whose files hold settings: name of the file = name of the setting. "
        "The environment wins over a file.",
        environment_only=True,
    ),
    Setting(
        "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS",
        "2000",
        "Way out: longest time to connect to the provider, name look-up and TLS included.",
        aliases=("TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS",),
    ),
    Setting(
        "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS",
        "3000",
        "Way out: longest silence of the provider within an answer.",
        aliases=("TEXAS_HTTP_READ_TIMEOUT_MILLIS",),
    ),
    Setting(
        "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS",
        "5000",
        "Way out: longest time for a token, retries included.",
        aliases=("TEXAS_HTTP_OVERALL_TIMEOUT_MILLIS",),
    ),
    Setting(
        "ENTRA_FAST_HTTP_MAX_RETRIES",
        "1",
        "Way out: attempts after the first, where a repetition is safe (0 to 10).",
        aliases=("TEXAS_HTTP_MAX_RETRIES",),
    ),
    Setting(
        "ENTRA_FAST_CA_BUNDLE",
        "",
        "Way out: PEM file with certificate authorities to trust beside the system's.",
    ),
    Setting(
        "HTTPS_PROXY",
        "",
        "Way out: web proxy for https URLs. The lower-case spelling wins. "
        "Loopback addresses are never sent to a proxy.",
        environment_only=True,
    ),
    Setting(
        "HTTP_PROXY",
        "",
        "Way out: the same for http URLs (there are none but loopback).",
        environment_only=True,
    ),
    Setting(
        "NO_PROXY",
        "",
        "Way out: comma-separated hosts, domains, addresses and networks (CIDR) reached without the proxy; "
        "`*` is all.",
        environment_only=True,
    ),
    Setting(
        "ENTRA_FAST_ALLOWED_HOSTS",
        "",
        "Comma-separated names, beside loopback ones, that a request's `Host` may have (without port).",
    ),
    Setting("ENTRA_FAST_MAX_CONNECTIONS", "4096", "Most open connections to the API; more are refused."),
    Setting(
        "ENTRA_FAST_REQUEST_TIMEOUT_MILLIS",
        "10000",
        "Longest time from a request's first byte to its last; then 408.",
    ),
    Setting(
        "ENTRA_FAST_IDLE_TIMEOUT_MILLIS",
        "120000",
        "An idle connection is closed after this time; so is one whose client does not read, when nothing "
        "of what waits for it could be sent for this time (Linux).",
    ),
    Setting(
        "ENTRA_FAST_DRAIN_DELAY_MILLIS",
        "500",
        "After SIGTERM: how long new connections are still served while `/readyz` already fails.",
    ),
    Setting(
        "ENTRA_FAST_DRAIN_TIMEOUT_MILLIS",
        "10000",
        "After SIGTERM: longest time for requests under way to finish.",
    ),
    Setting(
        "ENTRA_FAST_WORKERS",
        "1",
        "Processes that serve the API as one, with a further one for the rest (1 to 64); see workers.md. "
        "`entra-fast serve --workers N` is the same.",
    ),
    Setting(
        "ENTRA_FAST_FAST_LANE",
        "true",
        "`false`: every request takes the full way through aiohttp. `entra-fast serve --no-fast-lane` is the "
        "same.",
    ),
    Setting("ENTRA_FAST_CACHE_MAX_ENTRIES", "100000", "Most tokens in the cache of acquired tokens."),
    Setting(
        "ENTRA_FAST_CACHE_MAX_BYTES", "268435456", "Most memory for the cache of acquired tokens, in bytes."
    ),
    Setting("ENTRA_FAST_VERIFIED_CACHE_ENTRIES", "20000", "Most tokens in the cache of verified tokens."),
    Setting(
        "ENTRA_FAST_REDIS_URL",
        "",
        "Turns on the cache that replicas share, in Redis or Valkey: `redis://host:port/database`, or "
        "`rediss://` for TLS; it may hold a user name and a password. Needs the `[redis]` extra. "
        "See shared-cache.md.",
    ),
    Setting("ENTRA_FAST_REDIS_USERNAME", "", "User name for Redis; wins over the one in the URL."),
    Setting("ENTRA_FAST_REDIS_PASSWORD", "", "Password for Redis; wins over the one in the URL."),
    Setting(
        "ENTRA_FAST_REDIS_KEY",
        "",
        "The 256-bit key that tokens are encrypted with before they are sent to Redis, in base64 or hex "
        "(`openssl rand -base64 32`); the same for all replicas. Needed where there is a URL.",
    ),
    Setting("ENTRA_FAST_REDIS_KEY_FILE", "", "A file that holds that key, instead."),
    Setting(
        "ENTRA_FAST_REDIS_TIMEOUT_MILLIS",
        "100",
        "Longest time that a request waits for Redis before it goes on without.",
    ),
    Setting(
        "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS",
        "1000",
        "Longest time to connect to Redis. No request waits for it.",
    ),
    Setting("ENTRA_FAST_LOG_LEVEL", "info", "`debug`, `info`, `warning` or `error`."),
    Setting(
        "ENTRA_FAST_ACCESS_LOG",
        "false",
        "`true`: one log line per request (path, status, duration), written within a tenth of a second.",
    ),
)


class Secret:
    """A secret's name and where to find it; never its text, except by `reveal()`.

    A secret from a file is read anew on each use: a mounted secret changes while the process runs.
    """

    __slots__ = ("_path", "_value", "setting")

    def __init__(self, setting: str, value: str | None = None, *, path: Path | None = None) -> None:
        self.setting = setting
        self._value = value
        self._path = path

    @property
    def path(self) -> Path | None:
        """The file that holds the secret, or None when it came from the environment."""
        return self._path

    def reveal(self) -> str:
        """The secret's text now.

        Raises:
            ConfigurationError: code `setting_unreadable` (or `setting_missing` when the file is empty).
        """
        if self._path is None:
            return self._value or ""
        text = _read_setting_file(self._path, self.setting)
        if not text:
            raise ConfigurationError(
                "setting_missing", f"{self.setting}: the file that holds it is empty", self.setting
            )
        return text

    def __repr__(self) -> str:
        return f"Secret({self.setting})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """How the application proves who it is, in order of preference; at least one is present."""

    jwk: Secret | None = None
    next_jwk: Secret | None = None
    federated_token_file: Path | None = None
    client_secret: Secret | None = None
    next_client_secret: Secret | None = None


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """The application at its provider. Endpoints that are None come from the discovery document."""

    client_id: str
    tenant_id: str
    well_known_url: str | None
    issuer: str | None
    jwks_uri: str | None
    token_endpoint: str | None
    credentials: CredentialSettings

    @property
    def needs_discovery(self) -> bool:
        """Whether the discovery document must be fetched before all work can be done."""
        return None in (self.issuer, self.jwks_uri, self.token_endpoint)


@dataclass(frozen=True, slots=True)
class OutboundSettings:
    """The way out to the provider. Times are seconds."""

    connect_timeout: float = 2.0
    read_timeout: float = 3.0
    overall_timeout: float = 5.0
    max_retries: int = 1
    ca_bundle: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # a proxy URL may hold a password


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The way in. Times are seconds."""

    host: str = "127.0.0.1"
    port: int = 3000
    probe_host: str | None = None
    probe_port: int = 0
    allowed_hosts: frozenset[str] = frozenset()
    max_connections: int = 4096
    request_timeout: float = 10.0
    idle_timeout: float = 120.0
    drain_delay: float = 0.5
    drain_timeout: float = 10.0
    workers: int = 1
    fast_lane: bool = True
    log_level: str = "info"
    access_log: bool = False


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Bounds of the caches."""

    max_entries: int = 100_000
    max_bytes: int = 268_435_456
    verified_entries: int = 20_000


@dataclass(frozen=True, slots=True, repr=False)
class RedisLocation:
    """What the URL of a Redis server says."""

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
    timeout: float = 0.1
    connect_timeout: float = 1.0

    def location(self) -> RedisLocation:
        """Where the server is, and who to be there; read anew, as its secrets may have changed.

        Raises:
            ConfigurationError: the URL or the password cannot be read, or the URL is not one of Redis.
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
            ConfigurationError: it cannot be read, or is no such key.
        """
        return _encryption_key(self.key.setting, self.key.reveal())


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a sidecar; complete and checked when it exists.

    Attributes:
        unknown: variables that look like settings of this program and are none: spelled wrongly, or of
            another version.
    """

    server: ServerSettings
    provider: ProviderSettings | None
    outbound: OutboundSettings
    caches: CacheSettings
    shared_cache: SharedCacheSettings | None = None
    unknown: tuple[str, ...] = ()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> Settings:
        """Read and check all settings.

        Args:
            environ: the environment; `os.environ` when None. An empty variable counts as unset.
            directory: files with settings; by default `ENTRA_FAST_SETTINGS_DIRECTORY`, or the place
                where NAIS mounts them, if that exists.

        Raises:
            ConfigurationError: with the setting's name; its message never contains the value of a secret.
        """
        environment = os.environ if environ is None else environ
        if directory is None:
            named = environment.get("ENTRA_FAST_SETTINGS_DIRECTORY")
            directory = Path(named) if named else DEFAULT_DIRECTORY
            if named and not directory.is_dir():
                raise ConfigurationError(
                    "setting_invalid",
                    "ENTRA_FAST_SETTINGS_DIRECTORY must be an existing directory",
                    "ENTRA_FAST_SETTINGS_DIRECTORY",
                )
        read = _Reader(environment, directory)
        return cls(
            server=_server_settings(read),
            provider=_provider_settings(read),
            outbound=_outbound_settings(read, environment),
            caches=CacheSettings(
                max_entries=read.integer("ENTRA_FAST_CACHE_MAX_ENTRIES", 1, 100_000_000),
                max_bytes=read.integer("ENTRA_FAST_CACHE_MAX_BYTES", 65_536, 1 << 40),
                verified_entries=read.integer("ENTRA_FAST_VERIFIED_CACHE_ENTRIES", 1, 100_000_000),
            ),
            shared_cache=_shared_cache_settings(read),
            unknown=tuple(sorted(filter(_OURS_BUT_UNKNOWN.fullmatch, environment.keys() - _DEFAULTS.keys()))),
        )


def signing_key(setting: str, jwk: str) -> _native.SigningKey:
    """The private key in the text of a setting.

    Raises:
        ConfigurationError: it is not usable; the sentence names the setting and holds no key material.
    """
    try:
        return _native.SigningKey.from_jwk(jwk)
    except ConfigurationError as exc:
        raise ConfigurationError(exc.code, f"{setting}: {exc.message}", setting) from None


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address (without port and brackets) is this machine's loopback."""
    return _native.is_loopback_host(host)


def url_problem(url: str) -> str | None:
    """Why a URL must not be requested, as the rest of a sentence ("must ..."), or None when it may be.

    https only, except for loopback: a token or a key set that travelled in clear text proves nothing.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        return "must be a URL without spaces or control characters"
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "must be a URL"
    if parts.scheme not in ("https", "http") or not host:
        return "must be an https URL (http is allowed for loopback addresses only)"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not have a fragment"
    if parts.scheme == "http" and not is_loopback_host(host):
        return "must be an https URL (http is allowed for loopback addresses only)"
    return None


def redis_location(setting: str, url: str) -> RedisLocation:
    """What the URL of a Redis server says. `valkey` and `valkeys` are other names of its schemes.

    Raises:
        ConfigurationError: it is not such a URL. The message never holds it: it may contain a password.
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


_DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
_ALIASES = {setting.name: setting.aliases for setting in SETTINGS}
_BASE64URL = str.maketrans("-_", "+/")
# Kubernetes sets the others for a service that is called entra-fast.
_OURS_BUT_UNKNOWN = re.compile(r"ENTRA_FAST_(?!SERVICE_|PORT(_|$))[A-Z0-9_]{1,100}", re.ASCII)
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,256}", re.ASCII)
_TENANT = re.compile(r"[A-Za-z0-9.-]{1,256}", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)


def _read_setting_file(path: Path, setting: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTING_BYTES + 1)
        if len(data) > MAX_SETTING_BYTES:
            raise ConfigurationError(
                "setting_invalid", f"{setting}: its file is larger than {MAX_SETTING_BYTES} bytes", setting
            )
        return data.decode("utf-8").strip()
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise ConfigurationError(
            "setting_unreadable", f"{setting}: its file cannot be read: {reason}", setting
        ) from None
    except UnicodeDecodeError:
        # The exception carries the file's bytes: not to be chained into a log.
        raise ConfigurationError(
            "setting_invalid", f"{setting}: its file is not text in UTF-8", setting
        ) from None


class _Reader:
    """Finds settings: environment first, then a file of that name, then the aliases, then the default."""

    def __init__(self, environ: Mapping[str, str], directory: Path | None) -> None:
        self._environ = environ
        self._directory = directory if directory is not None and directory.is_dir() else None

    def _file(self, name: str) -> Path | None:
        if self._directory is None:
            return None
        path = self._directory / name
        return path if path.is_file() else None

    def find(self, name: str) -> tuple[str, str]:
        """(the name under which the setting was found, its text); the text is empty when unset."""
        for candidate in (name, *_ALIASES[name]):
            value = self._environ.get(candidate, "").strip()
            if value:
                return candidate, value
            path = self._file(candidate)
            if path is not None:
                value = _read_setting_file(path, candidate)
                if value:
                    return candidate, value
        return name, _DEFAULTS[name]

    def text(self, name: str) -> str | None:
        return self.find(name)[1] or None

    def secret(self, name: str) -> Secret | None:
        value = self._environ.get(name, "").strip()
        if value:
            return Secret(name, value)
        path = self._file(name)
        if path is not None and _read_setting_file(path, name):
            return Secret(name, path=path)
        return None

    def successor(self, name: str, current: Secret | None) -> Secret | None:
        """The secret that follows `current` in a rotation. Where secrets are files, it may appear later."""
        found = self.secret(name)
        if found is None and current is not None and current.path is not None:
            return Secret(name, path=current.path.with_name(name))
        return found

    def integer(self, name: str, low: int, high: int) -> int:
        found, text = self.find(name)
        if not (text.isascii() and text.isdigit() and len(text) <= 15 and low <= int(text) <= high):
            raise ConfigurationError(
                "setting_invalid", f"{found} must be a whole number from {low} to {high}", found
            )
        return int(text)

    def seconds(self, name: str, low_millis: int = 1, high_millis: int = 3_600_000) -> float:
        return self.integer(name, low_millis, high_millis) / 1000

    def boolean(self, name: str) -> bool | None:
        found, text = self.find(name)
        if not text:
            return None
        if text not in ("true", "false"):
            raise ConfigurationError("setting_invalid", f"{found} must be 'true' or 'false'", found)
        return text == "true"

    def url(self, name: str) -> str | None:
        found, text = self.find(name)
        if not text:
            return None
        problem = url_problem(text)
        if problem is not None:
            raise ConfigurationError("setting_invalid", f"{found} {problem}", found)
        return text

    def address(self, name: str) -> tuple[str, int] | None:
        found, text = self.find(name)
        if not text:
            return None
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not (
            colon
            and _HOST_NAME.fullmatch(host)
            and port.isascii()
            and port.isdigit()
            and len(port) <= 5
            and int(port) <= 65535
        ):
            raise ConfigurationError(
                "setting_invalid", f"{found} must be an address as host:port, such as 127.0.0.1:3000", found
            )
        return host, int(port)


def _server_settings(read: _Reader) -> ServerSettings:
    address = read.address("BIND_ADDRESS") or ("127.0.0.1", 3000)
    probe = read.address("PROBE_BIND_ADDRESS")
    if probe is not None and probe == address and probe[1] != 0:
        raise ConfigurationError(
            "setting_invalid", "PROBE_BIND_ADDRESS must differ from BIND_ADDRESS", "PROBE_BIND_ADDRESS"
        )
    found, level = read.find("ENTRA_FAST_LOG_LEVEL")
    if level not in ("debug", "info", "warning", "error"):
        raise ConfigurationError(
            "setting_invalid", f"{found} must be 'debug', 'info', 'warning' or 'error'", found
        )
    return ServerSettings(
        host=address[0],
        port=address[1],
        probe_host=probe[0] if probe else None,
        probe_port=probe[1] if probe else 0,
        allowed_hosts=_host_names(read),
        max_connections=read.integer("ENTRA_FAST_MAX_CONNECTIONS", 1, 1_000_000),
        request_timeout=read.seconds("ENTRA_FAST_REQUEST_TIMEOUT_MILLIS"),
        idle_timeout=read.seconds("ENTRA_FAST_IDLE_TIMEOUT_MILLIS"),
        drain_delay=read.seconds("ENTRA_FAST_DRAIN_DELAY_MILLIS", 0),
        drain_timeout=read.seconds("ENTRA_FAST_DRAIN_TIMEOUT_MILLIS", 0),
        workers=_workers(read),
        fast_lane=read.boolean("ENTRA_FAST_FAST_LANE") is not False,
        log_level=level,
        access_log=bool(read.boolean("ENTRA_FAST_ACCESS_LOG")),
    )


def _workers(read: _Reader) -> int:
    workers = read.integer("ENTRA_FAST_WORKERS", 1, MAX_WORKERS)
    if workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
        message = "ENTRA_FAST_WORKERS must be 1: this system has no SO_REUSEPORT"
        raise ConfigurationError("setting_invalid", message, "ENTRA_FAST_WORKERS")
    return workers


def _host_names(read: _Reader) -> frozenset[str]:
    found, text = read.find("ENTRA_FAST_ALLOWED_HOSTS")
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigurationError(
                "setting_invalid", f"{found} must be comma-separated host names without ports", found
            )
    return frozenset(names)


def _outbound_settings(read: _Reader, environ: Mapping[str, str]) -> OutboundSettings:
    ca_name, ca_bundle = read.find("ENTRA_FAST_CA_BUNDLE")
    if ca_bundle:
        import ssl  # noqa: PLC0415 - only where a bundle is set: the library must import fast

        try:
            ssl.create_default_context(cafile=ca_bundle)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                "setting_invalid",
                f"{ca_name} must name a readable PEM file with CA certificates",
                ca_name,
            ) from None
    return OutboundSettings(
        connect_timeout=read.seconds("ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS"),
        read_timeout=read.seconds("ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS"),
        overall_timeout=read.seconds("ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS"),
        max_retries=read.integer("ENTRA_FAST_HTTP_MAX_RETRIES", 0, 10),
        ca_bundle=ca_bundle or None,
        proxies=proxies_from(environ),
    )


def _shared_cache_settings(read: _Reader) -> SharedCacheSettings | None:
    timeout = read.seconds("ENTRA_FAST_REDIS_TIMEOUT_MILLIS", 1, 10_000)
    connect_timeout = read.seconds("ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS", 1, 60_000)
    url = read.secret("ENTRA_FAST_REDIS_URL")
    if url is None:
        return None
    key, key_file = read.secret("ENTRA_FAST_REDIS_KEY"), read.text("ENTRA_FAST_REDIS_KEY_FILE")
    if key is None and key_file is not None:
        key = Secret("ENTRA_FAST_REDIS_KEY_FILE", path=Path(key_file))
    if key is None:
        raise ConfigurationError(
            "setting_missing",
            "ENTRA_FAST_REDIS_KEY or ENTRA_FAST_REDIS_KEY_FILE must be set, so that tokens are encrypted "
            "before they are sent to Redis",
            "ENTRA_FAST_REDIS_KEY",
        )
    settings = SharedCacheSettings(
        url=url,
        key=key,
        username=read.text("ENTRA_FAST_REDIS_USERNAME"),
        password=read.secret("ENTRA_FAST_REDIS_PASSWORD"),
        timeout=timeout,
        connect_timeout=connect_timeout,
    )
    settings.location()
    settings.encryption_key()
    if missing := [name for name in ("redis", "cryptography") if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(
            "setting_invalid",
            f"{url.setting} needs the [redis] extra, as {missing[0]} is missing: "
            "pip install 'entra-fast[redis]'",
            url.setting,
        )
    return settings


def _encryption_key(setting: str, text: str) -> bytes:
    key = b""
    with contextlib.suppress(ValueError):
        if len(text) == 64:
            key = bytes.fromhex(text)
        elif len(text) in (43, 44):
            key = base64.b64decode(text.rstrip("=").translate(_BASE64URL) + "=", validate=True)
    # A placeholder such as 32 zero bytes is no secret; 32 random bytes are as good as never so uniform.
    if len(key) != 32 or len(set(key)) < 16:
        raise ConfigurationError(
            "setting_invalid", f"{setting} must be 32 random bytes in base64 or hex", setting
        )
    return key


def proxies_from(environ: Mapping[str, str]) -> dict[str, str]:
    """The web proxies of an environment: `{"https": url, "http": url, "no": list}`, what is unset left out.

    Raises:
        ConfigurationError: a proxy is not an http URL. The message never holds the value: it may contain a
            password.
    """
    proxies = {}
    for scheme in ("https", "http"):
        upper = f"{scheme.upper()}_PROXY"
        value = (environ.get(upper.lower()) or environ.get(upper) or "").strip()
        if not value:
            continue
        if "://" not in value:
            value = f"http://{value}"  # curl and Go read a bare host:port this way
        try:
            parts = urllib.parse.urlsplit(value)
            valid = (
                value.isprintable()
                and " " not in value
                and parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and (parts.port or 1) > 0
            )
        except ValueError:
            valid = False
        if not valid:
            raise ConfigurationError(
                "setting_invalid", f"{upper} must be a URL such as http://proxy.example:8080", upper
            )
        proxies[scheme] = value
    excluded = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").strip()
    if excluded:
        proxies["no"] = excluded
    return proxies


def _provider_settings(read: _Reader) -> ProviderSettings | None:
    enabled = read.boolean("AZURE_ENABLED")
    client_id = read.text("AZURE_APP_CLIENT_ID")
    if enabled is False or (enabled is None and client_id is None):
        return None
    if client_id is None:
        raise ConfigurationError(
            "setting_missing", "AZURE_APP_CLIENT_ID must be set when AZURE_ENABLED is true",
            "AZURE_APP_CLIENT_ID",
        )  # fmt: skip
    if not _CLIENT_ID.fullmatch(client_id):
        raise ConfigurationError(
            "setting_invalid", "AZURE_APP_CLIENT_ID must be a client id without spaces", "AZURE_APP_CLIENT_ID"
        )
    tenant_id = read.text("AZURE_APP_TENANT_ID") or ""
    if tenant_id and not _TENANT.fullmatch(tenant_id):
        raise ConfigurationError(
            "setting_invalid", "AZURE_APP_TENANT_ID must be a tenant's GUID or domain name",
            "AZURE_APP_TENANT_ID",
        )  # fmt: skip
    issuer_name, issuer = read.find("AZURE_OPENID_CONFIG_ISSUER")
    if issuer and (problem := url_problem(issuer)):
        raise ConfigurationError("setting_invalid", f"{issuer_name} {problem}", issuer_name)
    well_known_url = read.url("AZURE_APP_WELL_KNOWN_URL")
    jwks_uri = read.url("AZURE_OPENID_CONFIG_JWKS_URI")
    token_endpoint = read.url("AZURE_OPENID_CONFIG_TOKEN_ENDPOINT")
    if well_known_url is None and not (issuer and jwks_uri and token_endpoint):
        if not tenant_id:
            raise ConfigurationError(
                "setting_missing",
                "AZURE_APP_WELL_KNOWN_URL must be set (or AZURE_APP_TENANT_ID, or all of "
                "AZURE_OPENID_CONFIG_ISSUER, _JWKS_URI and _TOKEN_ENDPOINT)",
                "AZURE_APP_WELL_KNOWN_URL",
            )
        well_known_url = (
            f"https://login.microsoftonline.com/{tenant_id}/v2.0/.well-known/openid-configuration"
        )
    return ProviderSettings(
        client_id=client_id,
        tenant_id=tenant_id,
        well_known_url=well_known_url,
        issuer=issuer or None,
        jwks_uri=jwks_uri,
        token_endpoint=token_endpoint,
        credentials=_credential_settings(read),
    )


def _credential_settings(read: _Reader) -> CredentialSettings:
    for name in ("AZURE_APP_JWK", "AZURE_APP_NEXT_JWK"):
        secret = read.secret(name)
        if secret is not None:
            signing_key(secret.setting, secret.reveal())
    federated = read.text("AZURE_FEDERATED_TOKEN_FILE")
    jwk, client_secret = read.secret("AZURE_APP_JWK"), read.secret("AZURE_APP_CLIENT_SECRET")
    credentials = CredentialSettings(
        jwk=jwk,
        next_jwk=read.successor("AZURE_APP_NEXT_JWK", jwk),
        federated_token_file=Path(federated) if federated else None,
        client_secret=client_secret,
        next_client_secret=read.successor("AZURE_APP_NEXT_CLIENT_SECRET", client_secret),
    )
    if not (credentials.jwk or credentials.federated_token_file or credentials.client_secret):
        raise ConfigurationError(
            "setting_missing",
            "AZURE_APP_JWK, AZURE_FEDERATED_TOKEN_FILE or AZURE_APP_CLIENT_SECRET must be set",
            "AZURE_APP_JWK",
        )
    return credentials
