"""Settings of the providers: which are enabled, what each needs, and what is said about the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from entra_fast import _providers
from entra_fast._providers import (
    ANSATTPORTEN,
    BUILT_IN,
    ENTRA_ID,
    IDPORTEN,
    MASKINPORTEN,
    TOKENX,
    Audience,
    Grant,
    ProviderKind,
)
from entra_fast._settings import catalogue
from entra_fast._settings.load import Settings, provider_client_settings
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ConfigurationError
from support.keys import Key

NOWHERE = Path("/nonexistent")
KEY, NEXT_KEY = Key.generate(), Key.generate()
JWK = KEY.private_jwk()

AZURE = {
    "AZURE_ENABLED": "true",
    "AZURE_APP_CLIENT_ID": "azure-client",
    "AZURE_APP_WELL_KNOWN_URL": "https://login.example/t/v2.0/.well-known/openid-configuration",
    "AZURE_APP_JWK": JWK,
}
MASKINPORTEN_ENV = {
    "MASKINPORTEN_ENABLED": "true",
    "MASKINPORTEN_CLIENT_ID": "17b3e4e8-8203-4463-a947-5c24021b7742",
    "MASKINPORTEN_CLIENT_JWK": JWK,
    "MASKINPORTEN_SCOPES": "nav:helse/sykepenger/afp.read nav:other.read",
    "MASKINPORTEN_WELL_KNOWN_URL": "https://test.maskinporten.no/.well-known/oauth-authorization-server",
    "MASKINPORTEN_ISSUER": "https://test.maskinporten.no/",
    "MASKINPORTEN_JWKS_URI": "https://test.maskinporten.no/jwk",
    "MASKINPORTEN_TOKEN_ENDPOINT": "https://test.maskinporten.no/token",
}
TOKENX_ENV = {
    "TOKEN_X_ENABLED": "true",
    "TOKEN_X_CLIENT_ID": "dev-gcp:team:app",
    "TOKEN_X_PRIVATE_JWK": JWK,
    "TOKEN_X_WELL_KNOWN_URL": "https://tokenx.dev-gcp.nav.cloud.nais.io/.well-known/oauth-authorization-server",
    "TOKEN_X_ISSUER": "https://tokenx.dev-gcp.nav.cloud.nais.io",
    "TOKEN_X_JWKS_URI": "https://tokenx.dev-gcp.nav.cloud.nais.io/jwks",
    "TOKEN_X_TOKEN_ENDPOINT": "https://tokenx.dev-gcp.nav.cloud.nais.io/token",
}
IDPORTEN_ENV = {
    "IDPORTEN_ENABLED": "true",
    "IDPORTEN_AUDIENCE": "https://app.intern.dev.nav.no",
    "IDPORTEN_WELL_KNOWN_URL": "https://test.idporten.no/.well-known/openid-configuration",
    "IDPORTEN_ISSUER": "https://test.idporten.no",
    "IDPORTEN_JWKS_URI": "https://test.idporten.no/jwks.json",
}
ANSATTPORTEN_ENV = {
    "ANSATTPORTEN_ENABLED": "true",
    "ANSATTPORTEN_AUDIENCE": "https://app.example",
    "ANSATTPORTEN_WELL_KNOWN_URL": "https://test.ansattporten.no/.well-known/openid-configuration",
    "ANSATTPORTEN_ISSUER": "https://test.ansattporten.no",
    "ANSATTPORTEN_JWKS_URI": "https://test.ansattporten.no/jwks",
}
OF_KIND = {
    ENTRA_ID: AZURE,
    MASKINPORTEN: MASKINPORTEN_ENV,
    TOKENX: TOKENX_ENV,
    IDPORTEN: IDPORTEN_ENV,
    ANSATTPORTEN: ANSATTPORTEN_ENV,
}
ALL = {name: value for environ in OF_KIND.values() for name, value in environ.items()}

FEIDE = {
    "ENTRA_FAST_PROVIDERS": "feide",
    "ENTRA_FAST_PROVIDER_FEIDE_ISSUER": "https://feide.example",
    "ENTRA_FAST_PROVIDER_FEIDE_AUDIENCE": "https://app.example",
}
PREFIX = "ENTRA_FAST_PROVIDER_FEIDE_"


def read(environ: Mapping[str, str], **changes: str | None) -> Settings:
    return Settings.from_environment(changed(environ, changes), NOWHERE)


def changed(environ: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**environ, **changes}.items() if value is not None}


def refused(environ: Mapping[str, str], **changes: str | None) -> ConfigurationError:
    """The error, which is one line that names the setting, and the only thing that is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        read(environ, **changes)
    _, problems = Settings.examined(changed(environ, changes), NOWHERE)
    assert [problem.message for problem in problems] == [caught.value.message]
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(caught.value.setting)
    return caught.value


def only(settings: Settings) -> ProviderSettings:
    (provider,) = settings.providers
    return provider


# --- the built-in providers ---


def test_several_providers_at_once_are_the_normal_case() -> None:
    """In the order of the table, each with its own client id, endpoints and credential."""
    settings = read(ALL)
    assert [provider.kind for provider in settings.providers] == list(BUILT_IN)
    assert [provider.client_id for provider in settings.providers] == [
        "azure-client",
        "17b3e4e8-8203-4463-a947-5c24021b7742",
        "dev-gcp:team:app",
        "",
        "",
    ]
    assert [provider.audiences for provider in settings.providers] == [
        ("azure-client",),
        None,
        ("dev-gcp:team:app",),
        ("https://app.intern.dev.nav.no",),
        ("https://app.example",),
    ]
    named = [provider.credentials.jwk and provider.credentials.jwk.setting for provider in settings.providers]
    assert named == ["AZURE_APP_JWK", "MASKINPORTEN_CLIENT_JWK", "TOKEN_X_PRIVATE_JWK", None, None]
    assert [provider.needs_discovery for provider in settings.providers] == [True, False, False, False, False]
    assert settings.unknown == ()


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
def test_each_provider_can_be_the_only_one(kind: ProviderKind) -> None:
    """With the settings that NAIS injects for it."""
    provider = only(read(OF_KIND[kind]))
    assert (provider.kind, provider.name, provider.algorithms) == (kind, kind.name, ("RS256",))


def test_scopes_are_separated_by_spaces() -> None:
    """The first consumed one is what the credential of Maskinporten is tried with; without one it is not."""
    assert only(read(MASKINPORTEN_ENV)).scopes == ("nav:helse/sykepenger/afp.read", "nav:other.read")
    assert only(read(MASKINPORTEN_ENV)).tried_scope == "nav:helse/sykepenger/afp.read"
    assert only(read(MASKINPORTEN_ENV, MASKINPORTEN_SCOPES=None)).tried_scope is None
    assert only(read(TOKENX_ENV)).tried_scope is None
    assert refused(MASKINPORTEN_ENV, MASKINPORTEN_SCOPES='a "b').message == (
        "MASKINPORTEN_SCOPES must be scopes, separated by spaces"
    )


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("text", ["yes", "True", "1", "on"])
def test_a_switch_is_exactly_true_or_false(kind: ProviderKind, text: str) -> None:
    """Anything else stops the start, also where another provider is enabled."""
    switch = kind.variables.enabled or ""
    for environ in (OF_KIND[kind], {switch: text}, {**ALL, switch: text}):
        assert refused(environ, **{switch: text}).message == f"{switch} must be 'true' or 'false'"


def test_only_entra_id_is_enabled_without_its_switch() -> None:
    """By its client id. Texas demands the switch; settings of the others are named in a warning."""
    settings = read({name: value for name, value in ALL.items() if not name.endswith("_ENABLED")})
    assert only(settings).kind is ENTRA_ID
    assert (
        "MASKINPORTEN_CLIENT_ID (Maskinporten is not enabled: set MASKINPORTEN_ENABLED=true)"
        in settings.unknown
    )
    assert "TOKEN_X_PRIVATE_JWK (TokenX is not enabled: set TOKEN_X_ENABLED=true)" in settings.unknown
    assert "IDPORTEN_AUDIENCE (ID-porten is not enabled: set IDPORTEN_ENABLED=true)" in settings.unknown
    assert (
        "ANSATTPORTEN_ISSUER (Ansattporten is not enabled: set ANSATTPORTEN_ENABLED=true)" in settings.unknown
    )
    assert JWK not in repr(settings.unknown)


def test_a_provider_that_is_switched_off_is_no_mistake() -> None:
    """Its settings need no warning."""
    settings = read(ALL, TOKEN_X_ENABLED="false", AZURE_ENABLED="false")
    assert [provider.name for provider in settings.providers] == ["maskinporten", "idporten", "ansattporten"]
    assert settings.unknown == ()


def test_where_nothing_is_enabled_the_error_says_what_is_near() -> None:
    """The provider whose settings are there; Entra ID where none are."""
    error = refused(TOKENX_ENV, TOKEN_X_ENABLED=None)
    assert (error.code, error.setting) == ("setting_missing", "TOKEN_X_ENABLED")
    assert "TOKEN_X_CLIENT_ID is set" in error.message
    error = refused({})
    assert error.setting == "AZURE_APP_CLIENT_ID"
    for kind in BUILT_IN:
        assert (kind.variables.enabled or "") in error.message
    assert "ENTRA_FAST_PROVIDERS" in error.message


def test_explicitly_none() -> None:
    """At least one switch is false, and none is true; settings of others enable nothing."""
    assert read(TOKENX_ENV, TOKEN_X_ENABLED="false").providers == ()
    assert read(TOKENX_ENV, TOKEN_X_ENABLED=None, IDPORTEN_ENABLED="false").providers == ()


@pytest.mark.parametrize(
    ("kind", "missing", "named"),
    [
        (MASKINPORTEN, "MASKINPORTEN_CLIENT_ID", "MASKINPORTEN_ENABLED is true"),
        (MASKINPORTEN, "MASKINPORTEN_CLIENT_JWK", "MASKINPORTEN_ENABLED is true"),
        (TOKENX, "TOKEN_X_CLIENT_ID", "TOKEN_X_ENABLED is true"),
        (TOKENX, "TOKEN_X_PRIVATE_JWK", "TOKEN_X_ENABLED is true"),
        (IDPORTEN, "IDPORTEN_AUDIENCE", "IDPORTEN_ENABLED is true"),
        (ANSATTPORTEN, "ANSATTPORTEN_AUDIENCE", "ANSATTPORTEN_ENABLED is true"),
    ],
    ids=lambda value: value.name if isinstance(value, ProviderKind) else value,
)
def test_what_an_enabled_provider_must_have(kind: ProviderKind, missing: str, named: str) -> None:
    """Its client id or audience, and its credential where it has one."""
    error = refused(OF_KIND[kind], **{missing: None})
    assert (error.code, error.message) == ("setting_missing", f"{missing} must be set when {named}")


@pytest.mark.parametrize(
    ("kind", "prefix", "count"),
    [
        (MASKINPORTEN, "MASKINPORTEN", "all"),
        (TOKENX, "TOKEN_X", "all"),
        (IDPORTEN, "IDPORTEN", "both"),
        (ANSATTPORTEN, "ANSATTPORTEN", "both"),
    ],
    ids=["maskinporten", "tokenx", "idporten", "ansattporten"],
)
def test_the_discovery_document_fills_what_is_left_out(kind: ProviderKind, prefix: str, count: str) -> None:
    """It has the endpoints; without it, those that are called must be set: not ID-porten's token endpoint."""
    endpoints = dict.fromkeys((f"{prefix}_ISSUER", f"{prefix}_JWKS_URI", f"{prefix}_TOKEN_ENDPOINT"))
    provider = only(read(OF_KIND[kind], **endpoints))
    assert (provider.issuer, provider.jwks_uri, provider.token_endpoint) == (None, None, None)
    assert provider.needs_discovery
    assert not only(read(OF_KIND[kind], **{f"{prefix}_WELL_KNOWN_URL": None})).needs_discovery
    error = refused(OF_KIND[kind], **{f"{prefix}_WELL_KNOWN_URL": None, f"{prefix}_JWKS_URI": None})
    assert error.message.startswith(f"{prefix}_WELL_KNOWN_URL must be set (or {count} of {prefix}_ISSUER")


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        ("MASKINPORTEN_CLIENT_JWK", MASKINPORTEN_ENV),
        ("TOKEN_X_PRIVATE_JWK", TOKENX_ENV),
        ("AZURE_APP_JWK", AZURE),
    ],
)
def test_a_key_is_private_and_has_a_kid(setting: str, environ: dict[str, str]) -> None:
    """Without `alg` it signs with RS256. No sentence repeats it."""
    for wrong in (KEY.public_jwk(), "not json", "{}", f"[{JWK}]"):
        error = refused(environ, **{setting: wrong})
        assert error.setting == setting
        assert json.loads(JWK)["n"][:12] not in error.message
    key = json.loads(JWK)
    del key["alg"]
    assert only(read(environ, **{setting: json.dumps(key)})).credentials.jwk is not None
    del key["kid"]
    assert "'kid'" in refused(environ, **{setting: json.dumps(key)}).message


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        ("MASKINPORTEN_CLIENT_NEXT_JWK", MASKINPORTEN_ENV),
        ("TOKEN_X_PRIVATE_NEXT_JWK", TOKENX_ENV),
        ("AZURE_APP_NEXT_JWK", AZURE),
    ],
)
def test_the_next_key_of_a_rotation(setting: str, environ: dict[str, str]) -> None:
    """For each provider with a key."""
    following = only(read(environ, **{setting: NEXT_KEY.private_jwk()})).credentials.next_jwk
    assert following is not None
    assert following.setting == setting
    assert refused(environ, **{setting: NEXT_KEY.public_jwk()}).setting == setting


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        ("ENTRA_FAST_MASKINPORTEN_ALGORITHMS", MASKINPORTEN_ENV),
        ("ENTRA_FAST_TOKENX_ALGORITHMS", TOKENX_ENV),
        ("ENTRA_FAST_IDPORTEN_ALGORITHMS", IDPORTEN_ENV),
        ("ENTRA_FAST_ANSATTPORTEN_ALGORITHMS", ANSATTPORTEN_ENV),
        ("ENTRA_FAST_ALGORITHMS", AZURE),
    ],
)
def test_algorithms_are_a_setting_of_each_provider(setting: str, environ: dict[str, str]) -> None:
    """One provider's algorithms are not another's."""
    assert only(read(environ, **{setting: "PS256,ES256"})).algorithms == ("PS256", "ES256")
    assert refused(environ, **{setting: "HS256"}).setting == setting
    others = [provider.algorithms for provider in read(ALL, **{setting: "ES256"}).providers]
    assert sorted(others) == [("ES256",), *[("RS256",)] * (len(BUILT_IN) - 1)]


@pytest.mark.parametrize(
    "name",
    [
        *(f"MASKINPORTEN_{name}" for name in ("WELL_KNOWN_URL", "ISSUER", "JWKS_URI", "TOKEN_ENDPOINT")),
        *(f"TOKEN_X_{name}" for name in ("WELL_KNOWN_URL", "ISSUER", "JWKS_URI", "TOKEN_ENDPOINT")),
        *(f"IDPORTEN_{name}" for name in ("WELL_KNOWN_URL", "ISSUER", "JWKS_URI")),
    ],
)
def test_plain_http_only_for_hosts_that_are_named(name: str) -> None:
    """The same rule for every URL of every provider; wrong URLs stop the start."""
    for wrong in ("http://emulator:8080/x", "ftp://emulator", "https://u:hunter2@x/", "nothing"):
        error = refused(ALL, **{name: wrong})
        assert error.setting == name
        assert "hunter2" not in error.message
    allowed = read(ALL, **{name: "http://emulator:8080/x"}, ENTRA_FAST_INSECURE_PROVIDER_HOSTS="emulator")
    assert "http://emulator:8080/x" in repr(allowed.providers)
    assert read(ALL, **{name: "http://127.0.0.1:8080/x"}).unknown == ()


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    """Of all providers."""
    wrong = {
        "MASKINPORTEN_CLIENT_ID": "with a space",
        "MASKINPORTEN_TOKEN_ENDPOINT": "http://token.example",
        "TOKEN_X_PRIVATE_JWK": KEY.public_jwk(),
        "IDPORTEN_AUDIENCE": "a b",
        "ENTRA_FAST_IDPORTEN_ALGORITHMS": "none",
        "AZURE_APP_JWK": "{}",
    }
    _, problems = Settings.examined({**ALL, **wrong}, NOWHERE)
    assert sorted(problem.setting for problem in problems) == sorted(wrong)


def test_the_strictest_provider_sets_the_tolerance_of_clocks() -> None:
    """Maskinporten wants `iat` within 10 seconds of its own clock."""
    assert read(ALL).clock_tolerance == 5
    assert read(ALL, MASKINPORTEN_ENABLED="false").clock_tolerance == 30
    assert read({}, AZURE_ENABLED="false").clock_tolerance == 30


# --- files ---


def test_files_lie_where_nais_mounts_them(tmp_path: Path) -> None:
    """One directory for each provider, below the directory for all; the environment takes precedence."""
    for kind, environ in OF_KIND.items():
        directory = tmp_path / (kind.directory or "")
        directory.mkdir()
        for name, value in environ.items():
            (directory / name).write_text(value + "\n")
    environ = {"ENTRA_FAST_SETTINGS_DIRECTORY": str(tmp_path)}
    settings = Settings.from_environment(environ)
    assert [provider.name for provider in settings.providers] == [kind.name for kind in BUILT_IN]
    off = Settings.from_environment({**environ, "TOKEN_X_ENABLED": "false"})
    assert [provider.name for provider in off.providers] == [
        "entra_id",
        "maskinporten",
        "idporten",
        "ansattporten",
    ]
    (tmp_path / "jwker" / "TOKEN_X_ENABLED").unlink()
    (warning,) = [
        line for line in Settings.from_environment(environ).unknown if line.startswith("TOKEN_X_CLIENT_ID")
    ]
    assert warning == "TOKEN_X_CLIENT_ID (TokenX is not enabled: set TOKEN_X_ENABLED=true)"


def test_one_provider_s_directory_may_be_named(tmp_path: Path) -> None:
    """As before there were others: the files of Entra ID alone."""
    for name, value in AZURE.items():
        (tmp_path / name).write_text(value)
    assert only(Settings.from_environment({"ENTRA_FAST_SETTINGS_DIRECTORY": str(tmp_path)})).kind is ENTRA_ID


def test_keys_in_files_are_read_again(tmp_path: Path) -> None:
    """Also the next one, which may appear later, beside the current one."""
    directory = tmp_path / "maskinporten"
    directory.mkdir()
    (directory / "MASKINPORTEN_CLIENT_JWK").write_text(JWK)
    environ = changed(MASKINPORTEN_ENV, {"MASKINPORTEN_CLIENT_JWK": None})
    credentials = only(Settings.from_environment(environ, tmp_path)).credentials
    assert credentials.jwk is not None
    assert credentials.next_jwk is not None
    assert credentials.next_jwk.path == directory / "MASKINPORTEN_CLIENT_NEXT_JWK"
    (directory / "MASKINPORTEN_CLIENT_JWK").write_text(NEXT_KEY.private_jwk())
    assert credentials.jwk.reveal() == NEXT_KEY.private_jwk()


# --- generic providers ---


def test_a_generic_provider_needs_an_issuer_and_an_audience() -> None:
    """Its discovery document is that of its issuer. It issues no tokens unless a grant is named."""
    provider = only(read(FEIDE))
    assert (provider.name, provider.kind.title) == ("feide", "feide")
    assert provider.well_known_url == "https://feide.example/.well-known/openid-configuration"
    assert provider.audiences == ("https://app.example",)
    assert (provider.kind.token_grant, provider.kind.exchange_grant) == (None, None)
    assert (provider.algorithms, provider.kind.cool_down) == (("RS256",), 300.0)
    assert not provider.kind.has_credential


def test_every_setting_of_a_generic_provider() -> None:
    """All that can differ between providers."""
    settings = {
        "TITLE": "Feide (test)",
        "CLIENT_ID": "client",
        "WELL_KNOWN_URL": "https://feide.example/metadata",
        "JWKS_URI": "https://keys.example/jwks",
        "TOKEN_ENDPOINT": "https://feide.example/token",
        "ALLOWED_TENANTS": "12345678-1234-1234-1234-123456789abc",
        "ALGORITHMS": "ES256,RS256",
        "COOL_DOWN_MILLIS": "30000",
        "TOKEN_GRANT": "client_credentials",
        "EXCHANGE_GRANT": "token_exchange",
        "ASSERTION_AUDIENCE": "token_endpoint",
        "CLIENT_SECRET": "hunter2",
        "NEXT_CLIENT_SECRET": "hunter3",
    }
    read_settings = read(FEIDE, **{PREFIX + name: value for name, value in settings.items()})
    provider, kind = only(read_settings), only(read_settings).kind
    assert (kind.title, provider.client_id) == ("Feide (test)", "client")
    assert provider.well_known_url == "https://feide.example/metadata"
    assert (provider.issuer, provider.jwks_uri, provider.token_endpoint) == (
        "https://feide.example",
        "https://keys.example/jwks",
        "https://feide.example/token",
    )
    assert provider.allowed_tenants == ("12345678-1234-1234-1234-123456789abc",)
    assert (provider.algorithms, kind.cool_down) == (("ES256", "RS256"), 30.0)
    assert (kind.token_grant, kind.exchange_grant) == (Grant.CLIENT_CREDENTIALS, Grant.TOKEN_EXCHANGE)
    assert not kind.assertion_audience_is_issuer
    assert provider.credentials.client_secret is not None
    assert provider.credentials.next_client_secret is not None
    assert "hunter" not in repr(read_settings)
    assert read_settings.unknown == ()


def test_an_audience_is_left_out_only_explicitly() -> None:
    """`none` is a decision; nothing is a mistake."""
    assert refused(FEIDE, **{f"{PREFIX}AUDIENCE": None}).message == (
        f"{PREFIX}AUDIENCE must be set for this provider ('none' accepts any)"
    )
    provider = only(read(FEIDE, **{f"{PREFIX}AUDIENCE": "none"}))
    assert (provider.kind.audience, provider.audiences) == (Audience.ANY, None)
    assert only(read(FEIDE, **{f"{PREFIX}AUDIENCE": "None"})).audiences == ("None",)


@pytest.mark.parametrize(
    ("changes", "setting", "sentence"),
    [
        ({"ISSUER": None}, "WELL_KNOWN_URL",
         f" or {PREFIX}ISSUER must be set: they name the discovery document"),
        ({"ISSUER": "http://x.example"}, "ISSUER", " must be an https URL"),
        ({"TOKEN_GRANT": "password"}, "TOKEN_GRANT", " must be 'client_credentials', 'jwt_bearer' or 'none'"),
        ({"EXCHANGE_GRANT": "refresh_token"}, "EXCHANGE_GRANT",
         " must be 'token_exchange', 'on_behalf_of' or 'none'"),
        ({"TOKEN_GRANT": "client_credentials", "JWK": JWK}, "CLIENT_ID", " must be set for this provider"),
        ({"EXCHANGE_GRANT": "token_exchange", "CLIENT_ID": "c"}, "JWK",
         f", {PREFIX}FEDERATED_TOKEN_FILE or {PREFIX}CLIENT_SECRET must be set"),
        ({"TOKEN_GRANT": "jwt_bearer", "CLIENT_ID": "c", "CLIENT_SECRET": "s"}, "JWK",
         " must be set for this provider"),
        ({"TOKEN_GRANT": "jwt_bearer", "CLIENT_ID": "c", "JWK": KEY.public_jwk()}, "JWK", ": "),
        ({"ASSERTION_AUDIENCE": "both"}, "ASSERTION_AUDIENCE", " must be 'issuer' or 'token_endpoint'"),
        ({"ALGORITHMS": "HS256"}, "ALGORITHMS", " must be a comma-separated list of: "),
        ({"COOL_DOWN_MILLIS": "1"}, "COOL_DOWN_MILLIS", " must be a whole number from 1000 to "),
        ({"TITLE": "x" * 65}, "TITLE", " must be at most 64 printable ASCII characters"),
        ({"AUDIENCE": "a b"}, "AUDIENCE", " must be an audience without spaces, or 'none'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_wrong_with_a_generic_provider(
    changes: dict[str, str | None], setting: str, sentence: str
) -> None:
    """One line each."""
    error = refused(FEIDE, **{PREFIX + name: value for name, value in changes.items()})
    assert error.message.startswith(f"{PREFIX}{setting}{sentence}")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Ansattporten", "comma-separated names of a-z, 0-9 and _"),
        ("1st", "comma-separated names of a-z, 0-9 and _"),
        ("a-b", "comma-separated names of a-z, 0-9 and _"),
        ("a b", "comma-separated names of a-z, 0-9 and _"),
        ("ä", "comma-separated names of a-z, 0-9 and _"),
        ("x" * 33, "comma-separated names of a-z, 0-9 and _"),
        ("tokenx", "must not name tokenx, which is built in"),
        ("feide,azuread", "must not name azuread, which is built in"),
        ("a,b,a", "must name each provider once, and names a more often"),
        (",".join(f"p{number}" for number in range(17)), "must be at most 16 names"),
        ("a,a_next", "must not name both a and a_next: ENTRA_FAST_PROVIDER_A_NEXT_JWK would belong to both"),
    ],
)
def test_names_of_generic_providers(names: str, expected: str) -> None:
    """Lower case, not reserved, each once, and few; no setting belongs to two of them."""
    error = refused({}, ENTRA_FAST_PROVIDERS=names)
    assert error.setting == "ENTRA_FAST_PROVIDERS"
    assert expected in error.message


def test_several_generic_providers_beside_the_built_in_ones() -> None:
    """In the order of the list, after the others."""
    second = {
        "ENTRA_FAST_PROVIDER_B_2_ISSUER": "https://b.example/x/",
        "ENTRA_FAST_PROVIDER_B_2_AUDIENCE": "none",
    }
    settings = read({**ALL, **FEIDE, **second}, ENTRA_FAST_PROVIDERS=" b_2, feide ,")
    assert [provider.name for provider in settings.providers][len(BUILT_IN) :] == ["b_2", "feide"]
    assert settings.providers[-2].well_known_url == "https://b.example/x/.well-known/openid-configuration"
    assert settings.unknown == ()


def test_a_federated_token_file_is_a_credential_of_generic_providers() -> None:
    """It holds a client assertion."""
    changes = {"TOKEN_GRANT": "client_credentials", "CLIENT_ID": "c", "FEDERATED_TOKEN_FILE": "/token"}
    provider = only(read(FEIDE, **{PREFIX + name: value for name, value in changes.items()}))
    assert provider.credentials.federated_token is not None
    assert provider.credentials.federated_token.path == Path("/token")


def test_settings_without_effect_are_named() -> None:
    """Credentials of a provider without a grant, and those that its grant cannot use."""
    without = {"CLIENT_ID": "c", "JWK": JWK, "CLIENT_SECRET": "s", "TOKEN_ENDPOINT": "https://x.example/"}
    settings = read(FEIDE, **{PREFIX + name: value for name, value in without.items()})
    assert settings.unknown == tuple(
        f"{PREFIX}{name} (it has no effect without a grant)"
        for name in ("CLIENT_ID", "TOKEN_ENDPOINT", "JWK", "CLIENT_SECRET")
    )
    signs = {"TOKEN_GRANT": "jwt_bearer", "CLIENT_ID": "c", "JWK": JWK, "CLIENT_SECRET": "s"}
    settings = read(FEIDE, **{PREFIX + name: value for name, value in signs.items()})
    assert settings.unknown == (
        f"{PREFIX}CLIENT_SECRET (it has no effect: the grant jwt_bearer needs a JWK)",
    )
    assert only(settings).credentials.client_secret is None
    assert only(settings).kind.accepts_details


# --- what looks like a setting ---


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("MASKINPORTN_ENABLED", "did you mean MASKINPORTEN_ENABLED?"),
        ("TOKENX_ENABLED", "did you mean TOKEN_X_ENABLED?"),
        ("ENTRA_ID_ENABLED", "did you mean AZURE_ENABLED?"),
        ("FEIDE_ENABLED", "no such provider; ENTRA_FAST_PROVIDERS names further ones"),
        ("TOKEN_X_PRIVATE_JWKK", "did you mean TOKEN_X_PRIVATE_JWK?"),
        (
            "ENTRA_FAST_PROVIDER_OTHER_THING",
            "ENTRA_FAST_PROVIDERS names no such provider, or it has no such setting",
        ),
        (f"{PREFIX}ISUER", f"did you mean {PREFIX}ISSUER?"),
        ("ENTRA_FAST_PROVIDER", "did you mean ENTRA_FAST_PROVIDERS?"),
    ],
)
def test_what_looks_like_a_setting_of_a_provider_is_named(variable: str, said: str) -> None:
    """A misspelled or unknown switch, and settings of providers that are not listed."""
    assert read({**AZURE, **FEIDE}, **{variable: "true"}).unknown == (f"{variable} ({said})",)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FEIDE_ENABLED", "false"),
        ("FEIDE_ENABLED", ""),
        ("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED", "true"),
        ("ENABLED", "true"),
        ("IDPORTEN_CLIENT_ID", "client"),
        ("IDPORTEN_REDIRECT_URI", "https://app.example"),
        ("TOKEN_X_TOKEN_URL", "x"),
    ],
)
def test_variables_of_other_programs_are_not_named(variable: str, value: str) -> None:
    """Such as those that NAIS injects for Wonderwall, and a switch that is off."""
    assert read(AZURE, **{variable: value}).unknown == ()


def test_a_wrong_list_of_providers_is_one_problem() -> None:
    """Their settings are not reported as unknown names of providers that are meant."""
    _, problems = Settings.examined({**AZURE, "ENTRA_FAST_PROVIDERS": "A"}, NOWHERE)
    assert [problem.setting for problem in problems] == ["ENTRA_FAST_PROVIDERS"]


# --- Ansattporten, which was a generic provider ---

GENERIC_ANSATTPORTEN = {
    "ENTRA_FAST_PROVIDERS": "ansattporten",
    "ENTRA_FAST_PROVIDER_ANSATTPORTEN_ISSUER": "https://ansattporten.example",
    "ENTRA_FAST_PROVIDER_ANSATTPORTEN_AUDIENCE": "https://api.example",
    "ENTRA_FAST_PROVIDER_ANSATTPORTEN_ALLOWED_TENANTS": "*",
}


def test_a_generic_provider_may_have_the_name_of_ansattporten() -> None:
    """Its own settings count, and those of the built-in provider do not; nor is that one counted twice."""
    provider = only(read(GENERIC_ANSATTPORTEN))
    assert (provider.name, provider.kind.title) == ("ansattporten", "ansattporten")
    assert (provider.issuer, provider.audiences) == ("https://ansattporten.example", ("https://api.example",))
    rows = catalogue.provider_rows(provider.kind)
    assert rows.audience is not None
    assert rows.audience.name == "ENTRA_FAST_PROVIDER_ANSATTPORTEN_AUDIENCE"
    described = {**ANSATTPORTEN_ENV, **GENERIC_ANSATTPORTEN, "ANSATTPORTEN_ENABLED": ""}
    assert only(read(described)).audiences == ("https://api.example",)
    with pytest.raises(ConfigurationError) as caught:
        provider_client_settings(described, NOWHERE, provider="token_x")
    assert caught.value.message.count("ansattporten") == 1


def test_the_name_of_ansattporten_is_that_of_one_provider() -> None:
    """Which of them is meant must be said; a switch that is off is no contradiction."""
    assert refused({**ANSATTPORTEN_ENV, **GENERIC_ANSATTPORTEN}).message == (
        "ENTRA_FAST_PROVIDERS must not name ansattporten while ANSATTPORTEN_ENABLED is true: remove one of "
        "the two"
    )
    assert (
        only(read(GENERIC_ANSATTPORTEN, ANSATTPORTEN_ENABLED="false")).issuer
        == "https://ansattporten.example"
    )


# --- for programs ---


@pytest.mark.parametrize("name", [name for kind in BUILT_IN for name in kind.names])
def test_a_program_can_name_any_provider(name: str) -> None:
    """By each of its names, and without its switch, which is the sidecar's."""
    kind = _providers.named(name)
    assert kind is not None
    environ = {key: value for key, value in ALL.items() if not key.endswith("_ENABLED")}
    provider, _ = provider_client_settings(environ, NOWHERE, provider=name)
    assert provider is not None
    assert provider.kind is kind


def test_a_program_can_name_a_generic_provider() -> None:
    """That the settings describe."""
    provider, _ = provider_client_settings(FEIDE, NOWHERE, provider="feide")
    assert provider is not None
    assert provider.issuer == "https://feide.example"


def test_a_program_that_names_no_provider_gets_entra_id() -> None:
    """If it is enabled."""
    provider, _ = provider_client_settings(ALL, NOWHERE)
    assert provider is not None
    assert provider.kind is ENTRA_ID
    for environ in (TOKENX_ENV, {**ALL, "AZURE_ENABLED": "false"}):
        assert provider_client_settings(environ, NOWHERE)[0] is None


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    """Built-in and generic; and the setting that names further ones."""
    with pytest.raises(ConfigurationError) as caught:
        provider_client_settings(FEIDE, NOWHERE, provider="token_x")
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", "provider")
    assert caught.value.message == (
        "provider must be one of: entra_id, azuread, maskinporten, tokenx, idporten, ansattporten, feide "
        "(ENTRA_FAST_PROVIDERS names further ones)"
    )


def test_a_provider_that_is_switched_off_is_refused_by_name() -> None:
    """The error names the switch, and the providers that can be used."""
    environ = {**ALL, **FEIDE, "TOKEN_X_ENABLED": "false"}
    with pytest.raises(ConfigurationError) as caught:
        provider_client_settings(environ, NOWHERE, provider="tokenx")
    assert caught.value.message == (
        "TokenX is not enabled: TOKEN_X_ENABLED is false. "
        "Configured: entra_id, maskinporten, idporten, ansattporten, feide"
    )


def test_a_provider_that_is_not_described_is_missing() -> None:
    """The error names the first setting that it needs."""
    with pytest.raises(ConfigurationError) as caught:
        provider_client_settings(AZURE, NOWHERE, provider="tokenx")
    assert (caught.value.code, caught.value.setting) == ("setting_missing", "TOKEN_X_CLIENT_ID")


def test_validating_tokens_needs_no_credential() -> None:
    """And no token endpoint."""
    environ = {
        "TOKEN_X_CLIENT_ID": "dev-gcp:team:app",
        "TOKEN_X_ISSUER": "https://tokenx.example",
        "TOKEN_X_JWKS_URI": "https://tokenx.example/jwks",
    }
    provider, _ = provider_client_settings(environ, NOWHERE, provider="tokenx", to_validate=True)
    assert provider is not None
    assert provider.audiences == ("dev-gcp:team:app",)
    with pytest.raises(ConfigurationError):
        provider_client_settings(environ, NOWHERE, provider="tokenx")
