"""Every setting of the sidecar. docs/reference/settings.md is checked against it.

What belongs here: one row for each setting, with everything that concerns only that setting. What must
never be here: a default or a bound that is written down anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from entra_fast import _net
from entra_fast._native import ALGORITHMS as OFFERED_ALGORITHMS
from entra_fast._providers import BUILT_IN, ENTRA_ID, ProviderKind
from entra_fast._settings.kinds import (
    Address,
    Authority,
    Boolean,
    Choice,
    Choices,
    FilePath,
    HostNames,
    HostPort,
    InsecureHosts,
    Integer,
    LogLevel,
    Milliseconds,
    ProviderNames,
    ProviderUrl,
    SecretText,
    Setting,
    Tenants,
    Text,
)
from entra_fast._settings.provider_rows import CLIENT_ID, ProviderRows, generic_rows, rows_of

# --- listeners ---

BIND_ADDRESS: Final = Address(
    "BIND_ADDRESS", HostPort("127.0.0.1", 3000), "Address of the API. NAIS uses `127.0.0.1:7164`."
)
PROBE_BIND_ADDRESS: Final = Address(
    "PROBE_BIND_ADDRESS",
    None,
    "Address of a second listener, for probes and metrics. Without it, the API's listener serves them. "
    "NAIS uses `0.0.0.0:7165`.",
)

# --- the application at Entra ID ---

AZURE_ENABLED: Final = Boolean(
    "AZURE_ENABLED",
    None,
    "Whether Entra ID is enabled. Without it, Entra ID is enabled if `AZURE_APP_CLIENT_ID` is set.",
)
AZURE_APP_CLIENT_ID: Final = Text(
    "AZURE_APP_CLIENT_ID",
    None,
    "Client id of the application; also the expected audience of introspected tokens.",
    aliases=("AZURE_CLIENT_ID",),
    pattern=CLIENT_ID,
    expected="must be a client id without spaces",
)
AZURE_APP_TENANT_ID: Final = Text(
    "AZURE_APP_TENANT_ID",
    None,
    "Tenant of the application: a GUID or a domain name. Without a well-known URL and endpoints, the public "
    "discovery document of this tenant is used.",
    aliases=("AZURE_TENANT_ID",),
    pattern=r"[A-Za-z0-9.-]{1,256}",
    expected="must be a tenant's GUID or domain name",
)
AZURE_APP_WELL_KNOWN_URL: Final = ProviderUrl(
    "AZURE_APP_WELL_KNOWN_URL",
    None,
    "Discovery document, which supplies the issuer and the endpoints that are not set.",
)
AZURE_AUTHORITY_HOST: Final = Authority(
    "AZURE_AUTHORITY_HOST",
    "https://login.microsoftonline.com",
    "Host of the discovery document, where a tenant is set without a well-known URL and endpoints.",
)
AZURE_OPENID_CONFIG_ISSUER: Final = ProviderUrl(
    "AZURE_OPENID_CONFIG_ISSUER", None, "Issuer of accepted tokens; takes precedence over discovery."
)
ALLOWED_TENANTS: Final = Tenants(
    "ENTRA_FAST_ALLOWED_TENANTS",
    tuple[str, ...](),
    "Tenants whose tokens are accepted; `*` means any. Required for introspection where the issuer stands "
    "for any tenant (`{tenantid}`, as in the discovery documents of `common` and `organizations`).",
)
ALGORITHMS: Final = Choices(
    "ENTRA_FAST_ALGORITHMS",
    ("RS256",),
    "Accepted signature algorithms of introspected tokens of Entra ID, the preferred ones first: a key "
    "without `alg` serves the first one of its type. Entra ID signs with RS256.",
    choices=OFFERED_ALGORITHMS,
)
CLIENT_CAPABILITIES: Final = Choices(
    "ENTRA_FAST_CLIENT_CAPABILITIES",
    tuple[str, ...](),
    "Capabilities of the application, which token requests announce. `cp1`: it handles claims challenges. "
    "Entra ID then issues tokens that live up to 28 hours for APIs with continuous access evaluation.",
    choices=("cp1",),
)
AZURE_OPENID_CONFIG_JWKS_URI: Final = ProviderUrl(
    "AZURE_OPENID_CONFIG_JWKS_URI",
    None,
    "Location of the provider's signing keys; takes precedence over discovery.",
)
AZURE_OPENID_CONFIG_TOKEN_ENDPOINT: Final = ProviderUrl(
    "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT",
    None,
    "Token endpoint of the provider; takes precedence over discovery.",
)
AZURE_APP_JWK: Final = SecretText(
    "AZURE_APP_JWK",
    None,
    "Private JWK for client assertions (`private_key_jwt`, RFC 7523). First choice of credential.",
)
AZURE_APP_NEXT_JWK: Final = SecretText(
    "AZURE_APP_NEXT_JWK",
    None,
    "Next private JWK during a rotation; used when the provider rejects the current one.",
)
AZURE_FEDERATED_TOKEN_FILE: Final = FilePath(
    "AZURE_FEDERATED_TOKEN_FILE",
    None,
    "File that holds a client assertion (workload identity); re-read at each use. Second choice of "
    "credential.",
)
AZURE_APP_CLIENT_SECRET: Final = SecretText(
    "AZURE_APP_CLIENT_SECRET", None, "Client secret (`client_secret_post`). Third choice of credential."
)
AZURE_APP_NEXT_CLIENT_SECRET: Final = SecretText(
    "AZURE_APP_NEXT_CLIENT_SECRET",
    None,
    "Next client secret during a rotation; used when the provider rejects the current one.",
)
NAIS_SERVICE_ACCOUNT_TOKEN_PATH: Final = FilePath(
    "NAIS_SERVICE_ACCOUNT_TOKEN_PATH",
    None,
    "File that NAIS mounts into every workload, used like `AZURE_FEDERATED_TOKEN_FILE`. Last choice of "
    "credential.",
)

# --- the application at other providers ---

PROVIDER_ROWS: Final = {
    ENTRA_ID.name: ProviderRows(
        enabled=AZURE_ENABLED,
        client_id=AZURE_APP_CLIENT_ID,
        tenant_id=AZURE_APP_TENANT_ID,
        well_known_url=AZURE_APP_WELL_KNOWN_URL,
        authority=AZURE_AUTHORITY_HOST,
        issuer=AZURE_OPENID_CONFIG_ISSUER,
        allowed_tenants=ALLOWED_TENANTS,
        algorithms=ALGORITHMS,
        client_capabilities=CLIENT_CAPABILITIES,
        jwks_uri=AZURE_OPENID_CONFIG_JWKS_URI,
        token_endpoint=AZURE_OPENID_CONFIG_TOKEN_ENDPOINT,
        jwk=AZURE_APP_JWK,
        next_jwk=AZURE_APP_NEXT_JWK,
        federated_token_file=AZURE_FEDERATED_TOKEN_FILE,
        client_secret=AZURE_APP_CLIENT_SECRET,
        next_client_secret=AZURE_APP_NEXT_CLIENT_SECRET,
        other_federated_token_file=NAIS_SERVICE_ACCOUNT_TOKEN_PATH,
    ),
    **{kind.name: rows_of(kind) for kind in BUILT_IN if kind is not ENTRA_ID},
}
"""The settings of each built-in provider, by its name."""


def provider_rows(kind: ProviderKind) -> ProviderRows:
    """The settings of a provider, built-in or generic."""
    return PROVIDER_ROWS[kind.name] if kind in BUILT_IN else generic_rows(kind.name)


PROVIDERS: Final = ProviderNames(
    "ENTRA_FAST_PROVIDERS",
    tuple[str, ...](),
    "Names of further providers, as `identity_provider` will name them. Each is described by the settings "
    "`ENTRA_FAST_PROVIDER_<NAME>_*`, with its name in upper case.",
)
SWITCHES: Final = (PROVIDERS, *(rows.enabled for rows in PROVIDER_ROWS.values() if rows.enabled is not None))
"""The settings that enable providers."""
GENERIC_ROWS: Final = tuple(generic_rows("<NAME>"))
"""The settings of a generic provider, for the documentation. `generic_rows` makes those of one."""
SETTINGS_DIRECTORY: Final = FilePath(
    "ENTRA_FAST_SETTINGS_DIRECTORY",
    Path("/var/run/secrets/nais.io"),
    "Directory of files that hold settings; each file is named after its setting. Its subdirectories "
    + ", ".join(f"`{kind.directory}`" for kind in BUILT_IN)
    + " are read, too. The environment takes precedence over a file.",
    environment_only=True,
)

# --- outbound HTTP ---

HTTP_CONNECT_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS",
    2.0,
    "Maximum time to connect to the provider, including name resolution and TLS.",
    aliases=("TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS",),
)
HTTP_READ_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS",
    3.0,
    "Maximum time between two reads of a provider response.",
    aliases=("TEXAS_HTTP_READ_TIMEOUT_MILLIS",),
)
HTTP_OVERALL_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS",
    5.0,
    "Maximum time to obtain a token from the provider, including retries.",
    aliases=("TEXAS_HTTP_OVERALL_TIMEOUT_MILLIS",),
)
HTTP_MAX_RETRIES: Final = Integer(
    "ENTRA_FAST_HTTP_MAX_RETRIES",
    1,
    "Maximum number of retries of a failed request to the provider, where repeating it is safe.",
    aliases=("TEXAS_HTTP_MAX_RETRIES",),
    low=0,
    high=10,
)
CA_BUNDLE: Final = FilePath(
    _net.CA_BUNDLE,
    None,
    "PEM file with certificate authorities to trust in addition to the system's, for outbound connections.",
)
INSECURE_PROVIDER_HOSTS: Final = InsecureHosts(
    _net.INSECURE_PROVIDER_HOSTS,
    frozenset[str](),
    "Hosts of providers that may be asked over plain http, by their exact names and without ports: for a "
    "local Entra ID in another container. Refused for hosts of real providers. Development only.",
    environment_only=True,
)
HTTPS_PROXY: Final = Text(
    "HTTPS_PROXY",
    None,
    "Web proxy for https URLs. The lower-case name takes precedence. Loopback addresses never use a proxy.",
    environment_only=True,
)
HTTP_PROXY: Final = Text(
    "HTTP_PROXY",
    None,
    "Web proxy for http URLs. It has no effect: hosts that are asked over plain http are reached directly.",
    environment_only=True,
)
NO_PROXY: Final = Text(
    "NO_PROXY",
    None,
    "Comma-separated hosts, domains, addresses and networks (CIDR) that are reached without a proxy; `*` "
    "means all.",
    environment_only=True,
)

# --- inbound HTTP ---

ALLOWED_HOSTS: Final = HostNames(
    "ENTRA_FAST_ALLOWED_HOSTS",
    frozenset[str](),
    "Names, without ports, that are accepted in a request's `Host` header in addition to loopback ones.",
)
MAX_CONNECTIONS: Final = Integer(
    "ENTRA_FAST_MAX_CONNECTIONS",
    4096,
    "Maximum number of open connections to the API. Further connections are refused.",
    low=1,
    high=1_000_000,
)
REQUEST_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_REQUEST_TIMEOUT_MILLIS",
    10.0,
    "Maximum time to receive a request, from its first byte to its last. Slower requests get status 408.",
)
IDLE_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_IDLE_TIMEOUT_MILLIS",
    120.0,
    "Time after which an idle connection is closed, or (on Linux) one whose client has stopped reading its "
    "responses.",
)
DRAIN_DELAY: Final = Milliseconds(
    "ENTRA_FAST_DRAIN_DELAY_MILLIS",
    0.5,
    "Time after SIGTERM during which new connections are still accepted while `/readyz` already fails.",
    low=0,
)
DRAIN_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_DRAIN_TIMEOUT_MILLIS",
    10.0,
    "Maximum time after SIGTERM for requests in progress to finish.",
    low=0,
)
WORKERS: Final = Integer(
    "ENTRA_FAST_WORKERS",
    1,
    "Number of processes that serve the API; if there are several, one more process talks to the "
    "provider. `entra-fast serve --workers N` overrides it ([workers](../guides/workers.md)).",
    low=1,
    high=64,
)
READINESS: Final = Choice(
    "ENTRA_FAST_READINESS",
    "latched",
    "When `/readyz` fails. `latched`: until each provider has once been ready. `live`: also while a provider "
    "has no keys or rejects the credential later.",
    choices=("latched", "live"),
)
FAST_PATH: Final = Boolean(
    "ENTRA_FAST_FAST_PATH",
    True,
    "Whether common requests are answered by native code. `false` sends every request through aiohttp, as "
    "does `entra-fast serve --no-fast-path`.",
    aliases=("ENTRA_FAST_FAST_LANE",),
)
SIGNATURES: Final = Choice(
    "ENTRA_FAST_SIGNATURES",
    "fast",
    "Libraries that verify signatures. `fast`: rind verifies RS256 and PS256 where the processor allows it, "
    "and AWS-LC confirms a sample of its results. `aws-lc`: AWS-LC verifies everything "
    "([rind](../../SECURITY.md#rind)).",
    choices=("fast", "aws-lc"),
)

# --- caches ---

CACHE_MAX_ENTRIES: Final = Integer(
    "ENTRA_FAST_CACHE_MAX_ENTRIES", 100_000, "Maximum number of cached tokens.", low=1, high=100_000_000
)
CACHE_MAX_BYTES: Final = Integer(
    "ENTRA_FAST_CACHE_MAX_BYTES",
    268_435_456,
    "Maximum size of the token cache, in bytes. If it is not set, it follows the container's [memory "
    "limit](../guides/kubernetes.md#memory).",
    low=65_536,
    high=1 << 40,
)
VERIFIED_CACHE_ENTRIES: Final = Integer(
    "ENTRA_FAST_VERIFIED_CACHE_ENTRIES",
    20_000,
    "Maximum number of tokens in the verification cache. Each enabled provider gets an equal part, of one "
    "token at least.",
    low=1,
    high=100_000_000,
)
VERIFIED_CACHE_BYTES: Final = Integer(
    "ENTRA_FAST_VERIFIED_CACHE_BYTES",
    134_217_728,
    "Maximum size of the verification cache, in bytes. Each enabled provider gets an equal part. If it is "
    "not set, it follows the container's [memory limit](../guides/kubernetes.md#memory).",
    low=65_536,
    high=1 << 40,
)

# --- the cache that replicas share ---

REDIS_URL: Final = SecretText(
    "ENTRA_FAST_REDIS_URL",
    None,
    "Redis or Valkey server of the shared cache: `redis://host:port/database`, or `rediss://` for TLS, "
    "optionally with user name and password. Setting it turns the shared cache on. Needs the `[redis]` "
    "extra ([shared cache](../guides/shared-cache.md)).",
)
REDIS_USERNAME: Final = Text(
    "ENTRA_FAST_REDIS_USERNAME", None, "User name for Redis; takes precedence over the one in the URL."
)
REDIS_PASSWORD: Final = SecretText(
    "ENTRA_FAST_REDIS_PASSWORD", None, "Password for Redis; takes precedence over the one in the URL."
)
REDIS_KEY: Final = SecretText(
    "ENTRA_FAST_REDIS_KEY",
    None,
    "256-bit key that encrypts tokens before they are sent to Redis, in base64 or hex "
    "(`openssl rand -base64 32`). All replicas use the same key. Required if there is a URL.",
)
REDIS_KEY_FILE: Final = FilePath(
    "ENTRA_FAST_REDIS_KEY_FILE", None, "File that holds that key, as an alternative to the key itself."
)
REDIS_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_REDIS_TIMEOUT_MILLIS",
    0.1,
    "Maximum time that a request waits for Redis before it proceeds without it.",
    high=10_000,
)
REDIS_CONNECT_TIMEOUT: Final = Milliseconds(
    "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS",
    1.0,
    "Maximum time to connect to Redis. No request waits for it.",
    high=60_000,
)

# --- logs ---

LOG_LEVEL: Final = LogLevel(
    "ENTRA_FAST_LOG_LEVEL",
    "info",
    "Lowest level of logged messages.",
    aliases=("RUST_LOG",),
    choices=("debug", "info", "warning", "error"),
)
LOG_FORMAT: Final = Choice(
    "ENTRA_FAST_LOG_FORMAT",
    "auto",
    "Log lines as JSON or as text. `auto`: text if standard error is a terminal. Lines of the access log are "
    "always JSON.",
    choices=("auto", "json", "text"),
)
ACCESS_LOG: Final = Boolean(
    "ENTRA_FAST_ACCESS_LOG",
    False,
    "Whether each request is logged (path, status, duration), within 0.1 s.",
)

# --- metrics ---

TEXAS_METRICS: Final = Boolean(
    "ENTRA_FAST_TEXAS_METRICS",
    False,
    "Whether metrics are also exported under Texas's names, for alerts and dashboards that use them "
    "([list](../guides/telemetry.md#texass-metric-names)).",
)


def _all_rows(values: list[object]) -> Iterator[Setting[Any, Any]]:
    for value in values:
        if isinstance(value, Setting):
            yield value
        if value is PROVIDER_ROWS:
            yield from (row for name, rows in PROVIDER_ROWS.items() if name != ENTRA_ID.name for row in rows)


SETTINGS: Final[tuple[Setting[Any, Any], ...]] = tuple(_all_rows(list(globals().values())))
"""All rows, in their order above. Those of generic providers are in `GENERIC_ROWS`."""
