"""Which URLs may be requested, which hosts are loopback, and which web proxy is used.

What belongs here: decisions about URLs and hosts that the sidecar, the library, the emulator and the token
generator share. What must never be here: connections.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Mapping

from entra_fast import _native
from entra_fast.errors import ConfigurationError

CA_BUNDLE = "ENTRA_FAST_CA_BUNDLE"
"""The variable that names a file with further certificate authorities, for the sidecar and the library."""


def is_loopback_host(host: str) -> bool:
    """Whether a host name or an address (without port and brackets) is this machine's loopback."""
    return _native.is_loopback_host(host)


def url_problem(url: str) -> str | None:
    """Why a URL must not be requested, as the rest of a sentence ("must ..."), or None if it may be.

    Only https is accepted, except for loopback: anyone on the network can change what is sent in clear text.
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
