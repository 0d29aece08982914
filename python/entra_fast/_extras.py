"""The extras: what each installs, and the sentence for one that is missing.

What belongs here: one row for each extra of pyproject.toml (a test compares them). What must never be here:
an import of any of these packages. Whether one is there is found out without loading it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from entra_fast.errors import ConfigurationError

_SERVER: Final = {"aiohttp": "aiohttp", "prometheus-client": "prometheus_client"}

EXTRAS: Final[Mapping[str, Mapping[str, str]]] = {
    "server": _SERVER,  # without uvloop, servers run on asyncio's own event loop
    "aiohttp": {"aiohttp": "aiohttp"},
    "dev": {
        **_SERVER,
        "pydantic": "pydantic",
        "pyyaml": "yaml",
        "cryptography": "cryptography",
        "jinja2": "jinja2",
        "shtab": "shtab",
    },
    "completion": {"shtab": "shtab"},
    "redis": {"redis": "redis", "cryptography": "cryptography"},
    "otel": {
        "opentelemetry-api": "opentelemetry.trace",
        "opentelemetry-sdk": "opentelemetry.sdk",
        "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
        "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry.exporter.otlp.proto.grpc",
    },
    "fastapi": {"fastapi": "fastapi"},
    "starlette": {"starlette": "starlette"},
    "flask": {"flask": "flask"},
    "django": {"django": "django"},
    "drf": {"django": "django", "djangorestframework": "rest_framework"},
    "grpc": {"grpcio": "grpc"},
    "litestar": {"litestar": "litestar"},
    "requests": {"requests": "requests"},
    "httpx": {"httpx": "httpx"},
    "httpx2": {"httpx2": "httpx2"},
}
"""For each extra the packages that must be there, with a module of each."""


class ExtraMissing(ConfigurationError, ImportError):
    """A package of an extra is not installed. The message has the command that installs it."""


def absent(extra: str, *, dispensable: Collection[str] = ()) -> str | None:
    """The first package of an extra that is not installed; None if all are but the `dispensable` ones."""
    needed = (package for package in EXTRAS[extra] if package not in dispensable)
    return next((package for package in needed if not _is_there(EXTRAS[extra][package])), None)


def sentence(extra: str, package: str, what: str) -> str:
    """What needs which package, and how to install it."""
    return f"{what} needs the package '{package}': pip install 'entra-fast[{extra}]'"


def need(extra: str, what: str = "this command") -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: its name in pyproject.toml.
        what: what needs it, as the subject of the sentence.

    Raises:
        ExtraMissing: one is not.
    """
    if (package := absent(extra)) is not None:
        raise ExtraMissing("extra_missing", sentence(extra, package, what))


@contextlib.contextmanager
def importing(extra: str, what: str) -> Iterator[None]:
    """For the imports of a module that needs an extra. Arguments as for `need`.

    Raises:
        ExtraMissing: an import failed because a package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        for package, module in EXTRAS[extra].items():
            if error.name is not None and (error.name == module or module.startswith(f"{error.name}.")):
                raise ExtraMissing("extra_missing", sentence(extra, package, what)) from None
        raise


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of the package that it would be part of
        return False
