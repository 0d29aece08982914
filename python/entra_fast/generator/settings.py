"""Settings of the token generator: those of an application at the provider, and two of its own.

What belongs here: reading and checking. What must never be here: network access.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from entra_fast._net import is_loopback_host
from entra_fast._providers import ENTRA_ID
from entra_fast._settings import catalogue
from entra_fast._settings.kinds import HostPort, Text, Unsuitable, Url
from entra_fast._settings.load import Settings, settings_reader
from entra_fast._settings.model import OutboundSettings, ProviderSettings, ServerSettings
from entra_fast._settings.reader import Reader, missing
from entra_fast.errors import ConfigurationError
from entra_fast.generator.audience import AudienceError, parse_audience

DEFAULT_BIND_ADDRESS: Final = HostPort("127.0.0.1", 8081)
"""The default of BIND_ADDRESS for the token generator."""
CALLBACK_PATH = "/oauth2/callback"
MAX_AUDIENCES = 2000
"""Maximum number of audiences on the start page."""


@dataclass(frozen=True, slots=True)
class _Origin(Url[None]):
    """A URL without path and query; a trailing slash is dropped."""

    def parse(self, text: str) -> str:
        origin = Url.parse(self, text.rstrip("/"))
        parts = urlsplit(origin)
        if parts.path or parts.query:
            raise Unsuitable("must not have a path or a query")
        return origin


TOKEN_GENERATOR_URL: Final = _Origin(
    "TOKEN_GENERATOR_URL",
    None,
    "Address of the token generator as browsers see it: scheme and host, without a path. Required if "
    "`BIND_ADDRESS` is not a loopback address.",
)
TOKEN_GENERATOR_AUDIENCES: Final = Text(
    "TOKEN_GENERATOR_AUDIENCES", None, "Audiences on the start page, separated by white space or commas."
)


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """All settings of a token generator; complete and checked when they exist.

    Attributes:
        url: its origin as browsers see it (`https://host`), without a trailing slash; None for the address
            that it listens on.
        audiences: listed on the start page; other audiences can be requested, too.
    """

    server: ServerSettings
    provider: ProviderSettings
    outbound: OutboundSettings
    url: str | None = None
    audiences: tuple[str, ...] = ()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> GeneratorSettings:
        """Read and check the settings: those of the sidecar, and TOKEN_GENERATOR_URL and _AUDIENCES.

        Raises:
            ConfigurationError: with the setting's name.
        """
        environment = dict(os.environ if environ is None else environ)
        bind_address = catalogue.BIND_ADDRESS.name
        environment[bind_address] = environment.get(bind_address) or str(DEFAULT_BIND_ADDRESS)
        common = Settings.from_environment(environment, directory)
        read = settings_reader(environment, directory)
        provider = next((each for each in common.providers if each.kind is ENTRA_ID), None)
        if provider is None:
            raise missing(
                catalogue.AZURE_APP_CLIENT_ID, " must be set: the token generator is an application"
            )
        if provider.well_known_url is None:
            raise missing(
                catalogue.AZURE_APP_WELL_KNOWN_URL,
                " must be set: the address of the login is in the discovery document",
            )
        url = read.get(TOKEN_GENERATOR_URL)
        if url is None and not is_loopback_host(common.server.host):
            raise missing(
                TOKEN_GENERATOR_URL,
                " must be set when BIND_ADDRESS is not a loopback address: logins return to it",
            )
        return cls(
            server=common.server,
            provider=provider,
            outbound=common.outbound,
            url=url,
            audiences=_audiences(read),
        )


def _audiences(read: Reader) -> tuple[str, ...]:
    names = listed_audiences(read)
    try:
        return tuple(dict.fromkeys(parse_audience([name]).text for name in names))
    except AudienceError as error:
        sentence = str(error).replace("the parameter 'aud'", "an entry")
        raise ConfigurationError(
            "setting_invalid", f"TOKEN_GENERATOR_AUDIENCES: {sentence}", "TOKEN_GENERATOR_AUDIENCES"
        ) from None


def listed_audiences(read: Reader) -> list[str]:
    """The words of TOKEN_GENERATOR_AUDIENCES. Raises ConfigurationError if there are too many."""
    names = [name for name in re.split(r"[\s,]+", read.get(TOKEN_GENERATOR_AUDIENCES) or "") if name]
    if len(names) > MAX_AUDIENCES:
        raise ConfigurationError(
            "setting_invalid",
            f"TOKEN_GENERATOR_AUDIENCES has more than {MAX_AUDIENCES} entries",
            "TOKEN_GENERATOR_AUDIENCES",
        )
    return names
