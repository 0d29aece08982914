"""Settings of the token generator: those of any application at the provider, and two of its own.

Only reading and checking; nothing is fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from entra_fast._settings.load import (
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
    Settings,
    is_loopback_host,
    url_problem,
)
from entra_fast.errors import ConfigurationError
from entra_fast.generator.audience import AudienceError, parse_audience

DEFAULT_BIND_ADDRESS = "127.0.0.1:8081"
CALLBACK_PATH = "/oauth2/callback"
MAX_AUDIENCES = 2000
"""Maximum number of audiences on the start page."""


@dataclass(frozen=True, slots=True)
class GeneratorSettings:
    """The settings of the token generator.

    Attributes:
        url: its origin as browsers see it (`https://host`), without a trailing slash; None: where it listens.
        audiences: listed on the start page; any other audience can be asked for as well.
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
        """Read and check the settings: those of `config.Settings`, and TOKEN_GENERATOR_URL and _AUDIENCES.

        Raises:
            ConfigurationError: with the setting's name.
        """
        environment = dict(os.environ if environ is None else environ)
        environment["BIND_ADDRESS"] = environment.get("BIND_ADDRESS") or DEFAULT_BIND_ADDRESS
        common = Settings.from_environment(environment, directory)
        if common.provider is None:
            raise ConfigurationError(
                "setting_missing", "AZURE_APP_CLIENT_ID must be set: the token generator is an application",
                "AZURE_APP_CLIENT_ID",
            )  # fmt: skip
        if common.provider.well_known_url is None:
            raise ConfigurationError(
                "setting_missing",
                "AZURE_APP_WELL_KNOWN_URL must be set: the address of the login is in the discovery document",
                "AZURE_APP_WELL_KNOWN_URL",
            )
        url = environment.get("TOKEN_GENERATOR_URL", "").strip().rstrip("/") or None
        if url is None and not is_loopback_host(common.server.host):
            raise ConfigurationError(
                "setting_missing",
                "TOKEN_GENERATOR_URL must be set when BIND_ADDRESS is not a loopback address: "
                "the login sends browsers back there",
                "TOKEN_GENERATOR_URL",
            )
        if url is not None:
            problem = url_problem(url)
            if problem is None and (urlsplit(url).path or urlsplit(url).query):
                problem = "must not have a path or a query"
            if problem is not None:
                raise ConfigurationError(
                    "setting_invalid", f"TOKEN_GENERATOR_URL {problem}", "TOKEN_GENERATOR_URL"
                )
        return cls(
            server=common.server,
            provider=common.provider,
            outbound=common.outbound,
            url=url,
            audiences=_audiences(environment.get("TOKEN_GENERATOR_AUDIENCES", "")),
        )


def _audiences(text: str) -> tuple[str, ...]:
    names = [name for name in re.split(r"[\s,]+", text) if name]
    if len(names) > MAX_AUDIENCES:
        raise ConfigurationError(
            "setting_invalid",
            f"TOKEN_GENERATOR_AUDIENCES has more than {MAX_AUDIENCES} entries",
            "TOKEN_GENERATOR_AUDIENCES",
        )
    try:
        return tuple(dict.fromkeys(parse_audience([name]).text for name in names))
    except AudienceError as error:
        sentence = str(error).replace("the parameter 'aud'", "an entry")
        raise ConfigurationError(
            "setting_invalid", f"TOKEN_GENERATOR_AUDIENCES: {sentence}", "TOKEN_GENERATOR_AUDIENCES"
        ) from None
