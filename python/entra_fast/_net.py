"""Which URLs may be requested, which hosts are loopback, and which web proxy is used.

What belongs here: decisions about URLs and hosts that the sidecar, the library, the emulator and the token
generator share. What must never be here: connections.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import re
import urllib.parse
from collections.abc import Collection, Mapping
from typing import Final

from entra_fast import _native
from entra_fast.errors import ConfigurationError

CA_BUNDLE = "ENTRA_FAST_CA_BUNDLE"
"""The variable that names a file with further certificate authorities, for the sidecar and the library."""

INSECURE_PROVIDER_HOSTS = "ENTRA_FAST_INSECURE_PROVIDER_HOSTS"
"""The variable that names the hosts of providers that are asked over plain http, for the sidecar and the
library."""

MAX_INSECURE_HOSTS: Final = 32

ENTRA_ID: Final = (
    # The public cloud, and those of the United States, China and (until 2021) Germany.
    "microsoft.com",
    "microsoft.us",
    "windows.net",
    "microsoftonline.com",
    "microsoftonline-p.com",
    "microsoftonline.us",
    "usgovcloudapi.net",
    "microsoftonline.cn",
    "chinacloudapi.cn",
    "microsoftonline.de",
    "cloudapi.de",
    # Azure AD B2C, and Entra External ID.
    "b2clogin.com",
    "b2clogin.us",
    "b2clogin.cn",
    "ciamlogin.com",
    "ciamlogin.us",
    "ciamlogin.cn",
)
"""Domains of Entra ID."""

REAL_PROVIDERS: Final = (
    *ENTRA_ID,
    # TokenX: https://tokenx.<cluster>.<tenant>.cloud.nais.io
    "nais.io",
    # Maskinporten, ID-porten and Ansattporten, and their names at the agency that ran them before.
    "maskinporten.no",
    "idporten.no",
    "ansattporten.no",
    "difi.no",
)
"""Domains of providers that exist. They and every name below them are asked over https only, and nothing here
issues tokens in their name."""

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}", re.ASCII)
_HTTPS_ONLY = "must be an https URL (http is allowed for loopback addresses only)"
_HTTPS_OR_NAMED = (
    "must be an https URL (http is allowed for loopback addresses, and for hosts that "
    f"{INSECURE_PROVIDER_HOSTS} names)"
)

logger = logging.getLogger("entra_fast.provider")


def is_loopback_host(host: str) -> bool:
    """Whether a host name or an address (without port and brackets) is this machine's loopback."""
    return _native.is_loopback_host(host)


def is_real_provider(host: str) -> bool:
    """Whether a host name belongs to one of `REAL_PROVIDERS`."""
    name = host.strip(".").lower()
    return any(name == real or name.endswith(f".{real}") for real in REAL_PROVIDERS)


def insecure_hosts_in(text: str) -> frozenset[str]:
    """The hosts that a value of `INSECURE_PROVIDER_HOSTS` names.

    Raises:
        ValueError: with the rest of a sentence ("must ...").
    """
    names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
    if not all(map(_HOST_NAME.fullmatch, names)):
        raise ValueError("must be comma-separated host names, without ports and without wildcards")
    if len(names) > MAX_INSECURE_HOSTS:
        raise ValueError(f"must be at most {MAX_INSECURE_HOSTS} host names")
    if real := sorted(filter(is_real_provider, names)):
        raise ValueError(
            f"must not name {real[0]}: it belongs to a real provider, which is asked over https only"
        )
    return names


def insecure_provider_hosts(environ: Mapping[str, str] | None = None) -> frozenset[str]:
    """The hosts whose providers are asked over plain http, as the environment names them: for the library.
    The first call that finds some logs a warning.

    Raises:
        ConfigurationError: the value cannot be used.
    """
    text = (os.environ if environ is None else environ).get(INSECURE_PROVIDER_HOSTS, "")
    if not text.strip():
        return frozenset()
    try:
        hosts = insecure_hosts_in(text)
    except ValueError as problem:
        message = f"{INSECURE_PROVIDER_HOSTS} {problem}"
        raise ConfigurationError("setting_invalid", message, INSECURE_PROVIDER_HOSTS) from None
    warn_of_insecure_hosts(hosts)
    return hosts


@functools.cache
def warn_of_insecure_hosts(hosts: frozenset[str]) -> None:
    """Log once that these hosts are asked over plain http."""
    if hosts:
        logger.warning(
            "%s: these providers are asked over plain http, so anyone on the network can read credentials "
            "and tokens, and replace the keys that tokens are verified with: %s. For development only.",
            INSECURE_PROVIDER_HOSTS,
            ", ".join(sorted(hosts)),
        )


def provider_url_problem(url: str) -> str | None:
    """As `url_problem`, for a URL of a provider that a program names: for the library.

    Raises:
        ConfigurationError: `INSECURE_PROVIDER_HOSTS` has a value that cannot be used.
    """
    return url_problem(url, insecure_provider_hosts())


def url_problem(url: str, insecure_hosts: Collection[str] | None = None) -> str | None:
    """Why a URL must not be requested, as the rest of a sentence ("must ..."), or None if it may be.

    Only https is accepted, except for loopback: anyone on the network can change what is sent in clear text.

    Args:
        insecure_hosts: for a URL of a provider, the hosts that may be asked over plain http, too.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        return "must be a URL without spaces or control characters"
    try:
        parts = urllib.parse.urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "must be a URL"
    only = _HTTPS_ONLY if insecure_hosts is None else _HTTPS_OR_NAMED
    if parts.scheme not in ("https", "http") or not host:
        return only
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not have a fragment"
    if parts.scheme == "http" and not is_loopback_host(host) and not is_insecure(host, insecure_hosts):
        return only
    return None


def is_insecure(host: str, insecure_hosts: Collection[str] | None) -> bool:
    """Whether the provider on a host may be asked over plain http, because it is named."""
    return bool(insecure_hosts) and host in (insecure_hosts or ()) and not is_real_provider(host)


def proxies_from(environ: Mapping[str, str]) -> dict[str, str]:
    """The web proxies of an environment: `{"https": url, "http": url, "no": list}`, without those unset.

    Raises:
        ConfigurationError: a proxy is not an http URL. The message never contains the value, which may hold
            a password.
    """
    proxies = {}
    for scheme in ("https", "http"):
        upper = f"{scheme.upper()}_PROXY"
        value = (environ.get(upper.lower()) or environ.get(upper) or "").strip()
        if not value:
            continue
        proxies[scheme] = checked_proxy(upper, value)
    excluded = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").strip()
    if excluded:
        proxies["no"] = excluded
    return proxies


def checked_proxy(setting: str, value: str) -> str:
    """The URL of a web proxy.

    Raises:
        ConfigurationError: it is not an http URL. The message never contains it: it may hold a password.
    """
    try:
        if "://" not in value:
            value = f"http://{value}"  # curl and Go read a bare host:port this way
        parts = urllib.parse.urlsplit(value)
        valid = (
            value.isprintable()
            and " " not in value
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
        )
    except (TypeError, ValueError):
        valid = False
    if not valid:
        message = f"{setting} must be a URL such as http://proxy.example:8080"
        raise ConfigurationError("setting_invalid", message, setting)
    return value


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The web proxy for a URL, or None for a direct connection. Loopback is direct, as in Go. An entry
    `always` is what the user has chosen for every request, loopback included."""
    if (always := proxies.get("always")) is not None:
        return always
    parts = urllib.parse.urlsplit(url)
    proxy = proxies.get(parts.scheme)
    host = (parts.hostname or "").rstrip(".").lower()
    if proxy is None or is_loopback_host(host):
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for entry in proxies.get("no", "").split(","):
        if _excluded(entry.strip().lower(), host, port):
            return None
    return proxy


def _excluded(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY (`*`, address, network, or domain with its subdomains) covers a host."""
    if not entry:
        return False
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, colon, wanted_port = entry.rpartition(":")
    if colon and wanted_port.isdecimal():
        if int(wanted_port) != port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").removeprefix(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))
