"""How a validator's outbound requests are made, as a caller of the library says it.

What belongs here: `HttpOptions`, checked when constructed, and what its defaults take from the environment.
What must never be here: connections (blocking_http_client.py, http_client.py), and the sidecar's settings.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from entra_fast._net import CA_BUNDLE, checked_proxy, insecure_provider_hosts, proxies_from
from entra_fast.errors import ConfigurationError

MAX_TIMEOUT = 300.0
MAX_HEADERS = 32
MAX_HEADER_BYTES = 8192
CONNECT_TIMEOUT, READ_TIMEOUT, TIMEOUT = 2.0, 3.0, 5.0

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
"""A field name: RFC 9110, section 5.6.2."""

_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
"""A field value without what RFC 9110, section 5.5, calls obsolete, and without space around it."""

_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Header fields that belong to the connection or to what is asked for."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How key sets and discovery documents are fetched. TLS certificates are always verified. Plain http is
    for loopback only, and for hosts that `ENTRA_FAST_INSECURE_PROVIDER_HOSTS` names.

    Attributes:
        ca_bundle: path of a PEM file with certificate authorities to trust in addition to the system's; by
            default the one that `ENTRA_FAST_CA_BUNDLE` names, if it is set. The system's are OpenSSL's, or
            those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set.
        proxy: URL of a web proxy, which may have a user name and a password. It is used for every request.
            By default `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` choose, and loopback is reached directly.
            False: no proxy, whatever the environment says.
        headers: header fields to add to each request, such as the key of a gateway. They are sent to the host
            that a URL names and to no other, because redirects are not followed.
        timeout: the maximum time of a whole request, in seconds; 5 by default.
        connect_timeout: the maximum time until the connection is ready (name, proxy and TLS included), in
            seconds; by default 2, or `timeout` where that is given.
        read_timeout: the maximum time between two reads of an answer, in seconds; by default 3, or `timeout`
            where that is given.

    Raises:
        ConfigurationError: a value cannot be used; `setting` names it. The sentence repeats neither the
            proxy's URL nor a header's value, which may be secrets.
    """

    ca_bundle: str | os.PathLike[str] | None = None
    proxy: str | Literal[False] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    timeout: float | None = None
    connect_timeout: float | None = None
    read_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.ca_bundle is not None:
            _check_bundle(self.ca_bundle, "ca_bundle")
        if self.proxy is not None and self.proxy is not False:
            checked_proxy("proxy", self.proxy)
        object.__setattr__(self, "headers", MappingProxyType(_checked_headers(self.headers)))
        for name in ("timeout", "connect_timeout", "read_timeout"):
            _check_seconds(name, getattr(self, name))

    def check_environment(self) -> None:
        """Check what the defaults take from the environment, so that a mistake shows at once and not in the
        thread that fetches.

        Raises:
            ConfigurationError: a variable has a value that cannot be used; `setting` names it.
        """
        if self.ca_bundle is None and (bundle := self.trusted()) is not None:
            _check_bundle(bundle, CA_BUNDLE)
        self.proxies()
        insecure_provider_hosts()

    def trusted(self) -> str | None:
        """The file with further certificate authorities, as of now."""
        if self.ca_bundle is not None:
            return os.fspath(self.ca_bundle)
        return os.environ.get(CA_BUNDLE, "").strip() or None

    def proxies(self) -> dict[str, str]:
        """The web proxies, as `proxy_for` reads them, as of now."""
        if self.proxy is None:
            return proxies_from(os.environ)
        return {"always": checked_proxy("proxy", self.proxy)} if self.proxy else {}

    def seconds(self) -> tuple[float, float, float]:
        """The time limits: to connect, between two reads, overall."""

        def limit(given: float | None, usual: float) -> float:
            return given or self.timeout or usual

        overall = self.timeout or max(TIMEOUT, self.connect_timeout or 0.0, self.read_timeout or 0.0)
        return limit(self.connect_timeout, CONNECT_TIMEOUT), limit(self.read_timeout, READ_TIMEOUT), overall


def _check_bundle(path: str | os.PathLike[str], setting: str) -> None:
    """Like `trusting_context`, without loading the system's certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (OSError, TypeError, ValueError) as error:
        plain = isinstance(error, ssl.SSLError) or not getattr(error, "strerror", None)
        reason = "it is not a PEM file of certificates" if plain else getattr(error, "strerror", None)
        raise ConfigurationError(
            "setting_invalid",
            f"{setting} must be the path of a PEM file with certificates: {reason}",
            setting,
        ) from None


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    def refused(expected: str) -> ConfigurationError:
        return ConfigurationError("setting_invalid", f"headers {expected}", "headers")

    if not isinstance(headers, Mapping):
        raise refused("must be a mapping of names to values")
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise refused("must have names of letters, digits and - only")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise refused(f"must have values of printable ASCII; that of '{name}' is not")
        if name.lower() in _OURS:
            raise refused(f"must not have '{name}', which the client sets itself")
    if len({name.lower() for name in headers}) != len(headers):
        raise refused("must have each name once; upper and lower case do not differ")
    size = sum(len(name) + len(value) for name, value in headers.items())
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise refused(f"must be at most {MAX_HEADERS} and {MAX_HEADER_BYTES} bytes")
    return dict(headers)


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_TIMEOUT:  # type: ignore[operator]
        message = f"{name} must be more than 0 and at most {MAX_TIMEOUT:g} seconds"
        raise ConfigurationError("setting_invalid", message, name)
