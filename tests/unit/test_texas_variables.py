"""Every variable that Texas reads (config.rs, http/client.rs, telemetry.rs): what becomes of it here."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from entra_fast._settings.load import Settings
from entra_fast._settings.secret import Secret
from support.keys import Key

NOWHERE = Path(os.devnull)
JWK, OTHER_JWK = (Key.generate().private_jwk() for _ in range(2))

ENTRA_ID = {
    "AZURE_ENABLED": "true",
    "AZURE_APP_CLIENT_ID": "client",
    "AZURE_APP_JWK": JWK,
    "AZURE_OPENID_CONFIG_ISSUER": "https://entra.example/v2.0",
    "AZURE_OPENID_CONFIG_JWKS_URI": "https://entra.example/keys",
    "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "https://entra.example/token",
}
MASKINPORTEN = {
    "MASKINPORTEN_ENABLED": "true",
    "MASKINPORTEN_CLIENT_ID": "client",
    "MASKINPORTEN_CLIENT_JWK": JWK,
    "MASKINPORTEN_ISSUER": "https://maskinporten.example/",
    "MASKINPORTEN_JWKS_URI": "https://maskinporten.example/jwk",
    "MASKINPORTEN_TOKEN_ENDPOINT": "https://maskinporten.example/token",
}
TOKEN_X = {
    "TOKEN_X_ENABLED": "true",
    "TOKEN_X_CLIENT_ID": "dev-gcp:team:app",
    "TOKEN_X_PRIVATE_JWK": JWK,
    "TOKEN_X_ISSUER": "https://tokenx.example",
    "TOKEN_X_JWKS_URI": "https://tokenx.example/jwks",
    "TOKEN_X_TOKEN_ENDPOINT": "https://tokenx.example/token",
}
IDPORTEN = {
    "IDPORTEN_ENABLED": "true",
    "IDPORTEN_AUDIENCE": "audience",
    "IDPORTEN_ISSUER": "https://idporten.example",
    "IDPORTEN_JWKS_URI": "https://idporten.example/jwks",
}
ANSATTPORTEN = {
    "ANSATTPORTEN_ENABLED": "true",
    "ANSATTPORTEN_AUDIENCE": "audience",
    "ANSATTPORTEN_ISSUER": "https://ansattporten.example",
    "ANSATTPORTEN_JWKS_URI": "https://ansattporten.example/jwks",
}
PROVIDERS = {**ENTRA_ID, **MASKINPORTEN, **TOKEN_X, **IDPORTEN, **ANSATTPORTEN}

OTHERWISE = {
    **{name: "false" if value == "true" else f"{value}2" for name, value in PROVIDERS.items()},
    **{name: OTHER_JWK for name, value in PROVIDERS.items() if value == JWK},
    "BIND_ADDRESS": "127.0.0.1:7164",
    "PROBE_BIND_ADDRESS": "0.0.0.0:7165",
    "RUST_LOG": "debug",
    "TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS": "1234",
    "TEXAS_HTTP_READ_TIMEOUT_MILLIS": "1234",
    "TEXAS_HTTP_OVERALL_TIMEOUT_MILLIS": "1234",
    "TEXAS_HTTP_MAX_RETRIES": "7",
    "TEXAS_HTTP_POOL_MAX_IDLE": "7",
}
"""A value for each variable, other than that of `PROVIDERS` and other than the default."""


def read(**environ: str) -> Settings:
    return Settings.from_environment({**PROVIDERS, **environ}, NOWHERE)


def contents(value: object) -> object:
    """Settings with everything in them, as values that can be compared."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, tuple):
        return [contents(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: contents(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in ("kind", "unknown")
        }
    return repr(value)


@pytest.mark.parametrize("name", OTHERWISE)
def test_each_variable_is_honoured_or_named(name: str) -> None:
    """It changes the settings, or a warning names it."""
    before, after = read(), read(**{name: OTHERWISE[name]})
    assert before.unknown == ()
    named = any(line.startswith(name) for line in after.unknown)
    assert (contents(before) != contents(after)) is not named, name
    assert named == (name == "TEXAS_HTTP_POOL_MAX_IDLE")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("BIND_ADDRESS", ("127.0.0.1:0", "0.0.0.0:3000", "[::1]:3000", "localhost:3000", "::1:3000")),
        ("PROBE_BIND_ADDRESS", ("0.0.0.0:7165", "[::]:7165", "127.0.0.1:07165")),
        ("RUST_LOG", ("info", "texas=trace", "off", "no level at all", "=", "a[b{c=1}]=warn")),
        ("TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS", ("0", "18446744073709551615", "200ms", "-1")),
        ("TEXAS_HTTP_MAX_RETRIES", ("0", "4294967295", "ten")),
        ("TEXAS_HTTP_POOL_MAX_IDLE", ("0", "many")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ("http://collector:4317", "no URL")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", ("grpc", "carrier pigeon")),
        ("OTEL_RESOURCE_ATTRIBUTES", ("service.name=app,nais.x=y", "=,=,")),
        ("OTEL_SERVICE_NAME", ("app",)),
    ],
)
def test_what_texas_accepts_never_stops_the_start(name: str, values: tuple[str, ...]) -> None:
    """Its addresses, its numbers, and its directives, also those that it ignores itself."""
    for value in values:
        read(**{name: value})


@pytest.mark.parametrize("own", [ENTRA_ID, MASKINPORTEN, TOKEN_X, IDPORTEN, ANSATTPORTEN])
def test_each_provider_needs_no_more_than_texas_does(own: dict[str, str]) -> None:
    """The variables that Texas demands are enough."""
    settings = Settings.from_environment(own, NOWHERE)
    assert len(settings.providers) == 1
    assert not settings.providers[0].needs_discovery
    assert settings.unknown == ()
