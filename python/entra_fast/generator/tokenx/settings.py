"""Settings of the token generator for TokenX: those of an application at TokenX, of a client at ID-porten,
and those of its own.

What belongs here: reading and checking. What must never be here: network access.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entra_fast._net import is_loopback_host, url_problem
from entra_fast._providers import IDPORTEN, TOKENX
from entra_fast._settings import catalogue
from entra_fast._settings.kinds import HostPort, ProviderUrl, SecretText, Setting, Text
from entra_fast._settings.load import Settings, provider_client_settings, settings_reader
from entra_fast._settings.model import (
    CredentialSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
)
from entra_fast._settings.reader import Reader, missing
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError
from entra_fast.generator.settings import TOKEN_GENERATOR_URL, listed_audiences

DEFAULT_BIND_ADDRESS: Final = HostPort("127.0.0.1", 8082)
"""The default of BIND_ADDRESS for the token generator for TokenX."""

IDPORTEN_CLIENT_ID: Final = Text("IDPORTEN_CLIENT_ID", None, "Client id at ID-porten, for the login.")
IDPORTEN_CLIENT_JWK: Final = SecretText(
    "IDPORTEN_CLIENT_JWK", None, "Private JWK with which the client authenticates at ID-porten."
)
LOGIN_URL: Final = ProviderUrl(
    "TOKEN_GENERATOR_FAKE_LOGIN_URL",
    None,
    "Address that returns a token of ID-porten for any person without a login: `/idporten/fake` of the local "
    "ID-porten, or `/fake/idporten` of fakedings. Without it, there is no `POST /api/public/obo`.",
)
LOGIN_TOKEN: Final = SecretText(
    "TOKEN_GENERATOR_FAKE_LOGIN_TOKEN",
    None,
    "Token that this address demands: the one that an emulator prints at its start if others can reach it.",
)


@dataclass(frozen=True, slots=True)
class TokenXGeneratorSettings:
    """All settings of a token generator for TokenX; complete and checked when they exist.

    Attributes:
        url: its origin as browsers see it (`https://host`), without a trailing slash; None for the address
            that it listens on.
        fake_login_url: what returns tokens without a login; None for nothing.
        fake_login_token: what it demands; None for nothing.
        audiences: listed on the start page; other audiences can be requested, too.
    """

    server: ServerSettings
    tokenx: ProviderSettings
    idporten: ProviderSettings
    outbound: OutboundSettings
    url: str | None = None
    fake_login_url: str | None = None
    fake_login_token: Secret | None = None
    audiences: tuple[str, ...] = ()

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, directory: Path | None = None
    ) -> TokenXGeneratorSettings:
        """Read and check the settings: TOKEN_X_*, IDPORTEN_*, TOKEN_GENERATOR_* and those of every server.

        Raises:
            ConfigurationError: with the setting's name.
        """
        environment = dict(os.environ if environ is None else environ)
        name = catalogue.BIND_ADDRESS.name
        environment[name] = environment.get(name) or str(DEFAULT_BIND_ADDRESS)
        read = settings_reader(environment, directory)
        server = _server_settings(environment, directory)
        tokenx, outbound = provider_client_settings(environment, directory, provider=TOKENX.name)
        if tokenx is None:  # pragma: no cover - a provider that is named is there, or an error
            raise missing(LOGIN_URL, "")
        url = read.get(TOKEN_GENERATOR_URL)
        if url is None and not is_loopback_host(server.host):
            raise missing(
                TOKEN_GENERATOR_URL,
                " must be set when BIND_ADDRESS is not a loopback address: logins return to it",
            )
        return cls(
            server=server,
            tokenx=tokenx,
            idporten=_login_settings(read),
            outbound=outbound,
            url=url,
            fake_login_url=_url(read, LOGIN_URL),
            fake_login_token=read.secret(LOGIN_TOKEN),
            audiences=tuple(dict.fromkeys(listed_audiences(read))),
        )


def _server_settings(environment: Mapping[str, str], directory: Path | None) -> ServerSettings:
    """Those settings that do not concern a provider."""
    without = {
        name: value for name, value in environment.items() if not name.startswith(("TOKEN_X_", "IDPORTEN_"))
    }
    return Settings.from_environment({**without, "AZURE_ENABLED": "false"}, directory).server


def _login_settings(read: Reader) -> ProviderSettings:
    """The client at ID-porten."""
    client_id, key = read.get(IDPORTEN_CLIENT_ID), read.secret(IDPORTEN_CLIENT_JWK)
    row = catalogue.PROVIDER_ROWS[IDPORTEN.name].well_known_url
    well_known_url = _url(read, row)
    for value, setting in (
        (client_id, IDPORTEN_CLIENT_ID),
        (key, IDPORTEN_CLIENT_JWK),
        (well_known_url, row),
    ):
        if value is None:
            raise missing(setting, " must be set: users log in to the token generator at ID-porten")
    if key is not None:
        signing_key(key.setting, key.reveal())
    return ProviderSettings(
        client_id=client_id or "",
        tenant_id="",
        well_known_url=well_known_url,
        issuer=None,
        jwks_uri=None,
        token_endpoint=None,
        credentials=CredentialSettings(jwk=key),
        kind=IDPORTEN,
    )


def _url(read: Reader, setting: Setting[str, None]) -> str | None:
    """https, or http on loopback or on a host that is named for that."""
    url = read.get(setting)
    problem = None if url is None else url_problem(url, read.get(catalogue.INSECURE_PROVIDER_HOSTS))
    if problem is not None:
        raise ConfigurationError("setting_invalid", f"{setting.name} {problem}", setting.name)
    return url
