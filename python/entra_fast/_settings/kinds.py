"""The kinds of settings: the form that the text of each must have, and the value that it is parsed to.

What belongs here: parsing one text, without knowing where it came from. A kind raises `Unsuitable` with the
rest of a sentence that begins with the setting's name ("must be ...").

A kind without fields of its own is an ordinary subclass: it inherits what `dataclass` generated for
`Setting`. Generating it again would cost each start of the sidecar a millisecond per class.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from entra_fast._net import insecure_hosts_in, url_problem
from entra_fast._providers import RESERVED

V_co = TypeVar("V_co", covariant=True)
"""What a setting's text becomes."""
D_co = TypeVar("D_co", covariant=True)
"""The type of a setting's default: that of its value, or None."""

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,1024}", re.ASCII)
_MAX_PROVIDER_NAME = 32
_PROVIDER_NAME = re.compile(f"[a-z][a-z0-9_]{{0,{_MAX_PROVIDER_NAME - 1}}}", re.ASCII)
_MAX_DIGITS = 15

MAX_GENERIC_PROVIDERS = 16
"""Each has keys, connections and background tasks of its own."""


_RUST_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "off": "error",
}
"""Levels of Rust's `log`, and the nearest of ours."""


class Unsuitable(ValueError):
    """A text does not have the form of its setting. The message continues the setting's name."""


def _nearest(text: str, low: int, high: int) -> int | None:
    """The number within the bounds that is nearest to that of a text; None if the text is not one."""
    if not re.fullmatch(r"\+?[0-9]{1,20}", text, re.ASCII):
        return None
    return min(max(int(text), low), high)


def _whole_number(text: str, low: int, high: int) -> int:
    if not re.fullmatch(f"[0-9]{{1,{_MAX_DIGITS}}}", text) or not low <= int(text) <= high:
        raise Unsuitable(f"must be a whole number from {low} to {high}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Setting(ABC, Generic[V_co, D_co]):
    """One setting, and one row of docs/reference/settings.md.

    Attributes:
        default: the value when the setting is unset.
        description: what the setting means: a noun phrase, or the effect of a value.
        aliases: other names of the setting; its own name takes precedence.
        environment_only: whether files are ignored.
    """

    name: str
    default: D_co
    description: str
    aliases: tuple[str, ...] = ()
    environment_only: bool = False

    @property
    @abstractmethod
    def form(self) -> str:
        """The form that the text must have, for the documentation."""

    @abstractmethod
    def parse(self, text: str) -> V_co:
        """The value of a text that is not empty.

        Raises:
            Unsuitable: the text does not have the form of this setting.
        """

    def nearest(self, _text: str) -> V_co | None:
        """The value that is nearest to an unsuitable text; None if there is none."""
        return None

    def shown_default(self) -> str:
        """The default as it would be written in the environment; empty if there is none."""
        return "" if self.default is None else str(self.default)


@dataclass(frozen=True, slots=True)
class Text(Setting[str, D_co]):
    """Any text, or what matches a pattern."""

    pattern: str = ".*"
    expected: str = ""

    @property
    def form(self) -> str:
        return "text"

    def parse(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text, re.ASCII | re.DOTALL):
            raise Unsuitable(self.expected)
        return text


class SecretText(Text[D_co]):
    """A text that must not be shown. `Reader.secret` reads it."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "secret"


class FilePath(Setting[Path, D_co]):
    """The path of a file or directory, which need not exist."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "path"

    def parse(self, text: str) -> Path:
        return Path(text)


class Url(Setting[str, D_co]):
    """An https URL, or an http URL of a loopback address."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "URL"

    def parse(self, text: str) -> str:
        if (problem := url_problem(text)) is not None:
            raise Unsuitable(problem)
        return text


class ProviderUrl(Url[D_co]):
    """A URL of a provider. Whether plain http is allowed for its host is another setting, so `load` checks
    that."""

    __slots__ = ()

    def parse(self, text: str) -> str:
        # Not super(): see `Authority`.
        Url.parse(self, text.replace("http://", "https://", 1))
        return text


@dataclass(frozen=True, slots=True)
class Authority(ProviderUrl[D_co]):
    """The URL of a host that has tenants, without a path. The scheme may be left out: it is https."""

    @property
    def form(self) -> str:
        return "URL or host name"

    def parse(self, text: str) -> str:
        # Not super(): a class with slots is created a second time, and the short form has the wrong class.
        url = ProviderUrl.parse(self, text if "://" in text else f"https://{text}").rstrip("/")
        if url.count("/") != 2 or "?" in url:
            raise Unsuitable("must be the URL of a host without a path, such as https://login.example")
        return url


class HostPort(NamedTuple):
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Address(Setting[HostPort, D_co]):
    """A host and a port."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "`host:port`"

    def parse(self, text: str) -> HostPort:
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        valid_port = re.fullmatch("[0-9]{1,5}", port) is not None and int(port) <= 65535
        if not (colon and _HOST_NAME.fullmatch(host) and valid_port):
            raise Unsuitable("must be an address as host:port, such as 127.0.0.1:3000")
        return HostPort(host, int(port))


class HostNames(Setting[frozenset[str], D_co]):
    """Comma-separated host names without ports."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "comma-separated host names"

    def parse(self, text: str) -> frozenset[str]:
        names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
        if not all(map(_HOST_NAME.fullmatch, names)):
            raise Unsuitable("must be comma-separated host names without ports")
        return names

    def shown_default(self) -> str:
        return ",".join(sorted(self.default)) if isinstance(self.default, frozenset) else ""


class InsecureHosts(HostNames[D_co]):
    """Comma-separated host names of providers that are asked over plain http. Real providers are refused."""

    __slots__ = ()

    def parse(self, text: str) -> frozenset[str]:
        try:
            return insecure_hosts_in(text)
        except ValueError as problem:
            raise Unsuitable(str(problem)) from None


class Tenants(Setting[tuple[str, ...], D_co]):
    """Comma-separated tenant ids, or `*` for any tenant."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "comma-separated tenant ids, or `*`"

    def parse(self, text: str) -> tuple[str, ...]:
        tenants = tuple(sorted({name.strip().lower() for name in text.split(",") if name.strip()}))
        if tenants != ("*",) and not all(map(_GUID.fullmatch, tenants)):
            raise Unsuitable("must be comma-separated tenant ids (GUIDs), or * for any tenant")
        return tenants

    def shown_default(self) -> str:
        return ",".join(self.default) if isinstance(self.default, tuple) else ""


class Scopes(Setting[tuple[str, ...], D_co]):
    """Scopes, separated by spaces (RFC 6749, section 3.3)."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "space-separated scopes"

    def parse(self, text: str) -> tuple[str, ...]:
        scopes = tuple(dict.fromkeys(text.split()))
        if not all(map(_SCOPE.fullmatch, scopes)):
            raise Unsuitable("must be scopes, separated by spaces")
        return scopes

    def shown_default(self) -> str:
        return " ".join(self.default) if isinstance(self.default, tuple) else ""


class ProviderNames(Setting[tuple[str, ...], D_co]):
    """Comma-separated names of providers that other settings describe."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "comma-separated names"

    def parse(self, text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not all(map(_PROVIDER_NAME.fullmatch, names)):
            raise Unsuitable(
                f"must be comma-separated names of a-z, 0-9 and _ that begin with a letter, of at most "
                f"{_MAX_PROVIDER_NAME} characters"
            )
        if len(names) > MAX_GENERIC_PROVIDERS:
            raise Unsuitable(f"must be at most {MAX_GENERIC_PROVIDERS} names")
        if reserved := sorted(RESERVED.intersection(names)):
            raise Unsuitable(f"must not name {reserved[0]}, which is built in and has settings of its own")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise Unsuitable(f"must name each provider once, and names {repeated[0]} more often")
        return names

    def shown_default(self) -> str:
        return ",".join(self.default) if isinstance(self.default, tuple) else ""


@dataclass(frozen=True, slots=True)
class Integer(Setting[int, D_co]):
    """A whole number within bounds, both included."""

    low: int = 0
    high: int = 10**_MAX_DIGITS - 1

    @property
    def form(self) -> str:
        return f"number, {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        return _whole_number(text, self.low, self.high)

    def nearest(self, text: str) -> int | None:
        return _nearest(text, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Milliseconds(Setting[float, D_co]):
    """A time. The text is milliseconds, within bounds; default and value are seconds."""

    low: int = 1
    high: int = 3_600_000

    @property
    def form(self) -> str:
        return f"milliseconds, {self.low} to {self.high}"

    def parse(self, text: str) -> float:
        return _whole_number(text, self.low, self.high) / 1000

    def nearest(self, text: str) -> float | None:
        number = _nearest(text, self.low, self.high)
        return None if number is None else number / 1000

    def shown_default(self) -> str:
        return f"{self.default * 1000:.0f}" if isinstance(self.default, float) else ""


class Boolean(Setting[bool, D_co]):
    """`true` or `false`."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return "`true` or `false`"

    def parse(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise Unsuitable("must be 'true' or 'false'")
        return text == "true"

    def shown_default(self) -> str:
        return "" if self.default is None else str(self.default).lower()


@dataclass(frozen=True, slots=True)
class _OfWords(Setting[V_co, D_co]):
    """Words from a list."""

    choices: tuple[str, ...] = ()


class Choices(_OfWords[tuple[str, ...], D_co]):
    """Several words, separated by commas, in an order that may matter."""

    __slots__ = ()

    @property
    def form(self) -> str:
        listed = ", ".join(f"`{choice}`" for choice in self.choices)
        return f"comma-separated, of: {listed}" if len(self.choices) > 1 else listed

    def parse(self, text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if not words or not all(word in self.choices for word in words):
            listed = ", ".join(self.choices)
            raise Unsuitable(
                f"must be a comma-separated list of: {listed}"
                if len(self.choices) > 1
                else f"must be {listed}"
            )
        return words

    def shown_default(self) -> str:
        return ",".join(self.default) if isinstance(self.default, tuple) else ""


class Choice(_OfWords[str, D_co]):
    """One of several words."""

    __slots__ = ()

    @property
    def form(self) -> str:
        return ", ".join(f"`{choice}`" for choice in self.choices[:-1]) + f" or `{self.choices[-1]}`"

    def parse(self, text: str) -> str:
        if text not in self.choices:
            listed = ", ".join(f"'{choice}'" for choice in self.choices[:-1])
            raise Unsuitable(f"must be {listed} or '{self.choices[-1]}'")
        return text


class LogLevel(Choice[D_co]):
    """A level of log messages. `nearest` understands what Rust programs read from `RUST_LOG`."""

    __slots__ = ()

    def nearest(self, text: str) -> str | None:
        """The level of directives such as `info,texas=debug`: that for Texas, or else the general one."""
        found: dict[str, str] = {}
        for directive in text.lower().split(","):
            target, equals, level = directive.strip().rpartition("=")
            if level in _RUST_LEVELS and (target == "texas" or not equals):
                found[target] = _RUST_LEVELS[level]
        return found.get("texas", found.get(""))
