"""Settings: found, checked, frozen; errors name the setting and never a secret."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from entra_fast._provider.credentials import Credentials
from entra_fast._settings.catalogue import BIND_ADDRESS, GENERIC_ROWS, PROVIDERS, SETTINGS
from entra_fast._settings.kinds import Setting
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CacheSettings, OutboundSettings, ServerSettings
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError
from support.keys import Key

JWK = Key.generate().private_jwk()
BASE = {
    "AZURE_APP_CLIENT_ID": "client",
    "AZURE_APP_WELL_KNOWN_URL": "https://login.example/t/v2.0/.well-known/openid-configuration",
    "AZURE_APP_JWK": JWK,
}
NOWHERE = Path("/nonexistent")


def read(**changes: str | None) -> Settings:
    environ = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    return Settings.from_environment(environ, NOWHERE)


def refused(**changes: str | None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(**changes)
    return caught.value


def test_defaults_are_those_of_the_contract() -> None:
    """Without settings of its own a sidecar listens on 127.0.0.1:3000 and waits 2 s, 3 s, 5 s, 1 retry."""
    settings = read()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 3000)
    assert settings.server.probe_host is None
    out = settings.outbound
    assert (out.connect_timeout, out.read_timeout, out.overall_timeout, out.max_retries) == (2, 3, 5, 1)
    assert settings.providers
    assert settings.providers[0].needs_discovery


def test_a_misspelled_setting_is_named_with_the_one_that_was_meant() -> None:
    """Variables of this program that nothing reads, and near misses of the variables that NAIS sets."""
    names = (
        "ENTRA_FAST_MAX_CONECTIONS",
        "ENTRA_FAST_SOMETHING_ELSE_ENTIRELY",
        "AZURE_APP_CLIENTID",
    )
    assert read(**dict.fromkeys(names, "1")).unknown == (
        "AZURE_APP_CLIENTID (did you mean AZURE_APP_CLIENT_ID?)",
        "ENTRA_FAST_MAX_CONECTIONS (did you mean ENTRA_FAST_MAX_CONNECTIONS?)",
        "ENTRA_FAST_SOMETHING_ELSE_ENTIRELY",
    )


def test_variables_of_others_are_not_taken_for_misspelled_settings() -> None:
    """Variables that NAIS sets in addition to our settings, and those that Kubernetes sets for a service
    called entra-fast."""
    names = (
        "ENTRA_FAST_SERVICE_HOST",
        "ENTRA_FAST_PORT",
        "ENTRA_FAST_PORT_80_TCP",
        "AZURE_APP_JWKS",
        "AZURE_APP_PRE_AUTHORIZED_APPS",
        "AZURE_APP_CERTIFICATE_KEY_ID",
        "AZURE_APP_PASSWORD_KEY_ID",
        "PATH",
    )
    assert read(**dict.fromkeys(names, "1")).unknown == ()
    assert read(ENTRA_FAST_MAX_CONNECTIONS="1", TEXAS_HTTP_MAX_RETRIES="1").unknown == ()


def test_the_older_name_of_the_fast_path_still_works() -> None:
    """ENTRA_FAST_FAST_LANE is an alias; the new name takes precedence."""
    assert read().server.fast_path is True
    assert read(ENTRA_FAST_FAST_LANE="false").server.fast_path is False
    assert read(ENTRA_FAST_FAST_LANE="false", ENTRA_FAST_FAST_PATH="true").server.fast_path is True
    assert refused(ENTRA_FAST_FAST_LANE="no").setting == "ENTRA_FAST_FAST_LANE"


def test_texas_names_are_aliases_and_the_own_name_wins() -> None:
    """TEXAS_HTTP_* of the sidecar that this one replaces are honoured."""
    settings = read(
        TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS="1500",
        TEXAS_HTTP_MAX_RETRIES="3",
        ENTRA_FAST_HTTP_MAX_RETRIES="2",
    )
    assert settings.outbound.connect_timeout == 1.5
    assert settings.outbound.max_retries == 2


@pytest.mark.parametrize(
    ("text", "retries", "timeout"),
    [
        ("0", 0, 0.001),
        ("+3", 3, 0.003),
        ("4000000000", 10, 3600.0),
        ("18446744073709551615", 10, 3600.0),
        ("many", 1, 5.0),
        ("-1", 1, 5.0),
        ("1.5", 1, 5.0),
    ],
)
def test_no_value_of_a_texas_setting_stops_the_start(text: str, retries: int, timeout: float) -> None:
    """Out of bounds: the nearest value. Not a number: the default, as in Texas, and the log names it."""
    settings = read(TEXAS_HTTP_MAX_RETRIES=text, TEXAS_HTTP_OVERALL_TIMEOUT_MILLIS=text)
    assert (settings.outbound.max_retries, settings.outbound.overall_timeout) == (retries, timeout)
    ignored = ("TEXAS_HTTP_MAX_RETRIES (must be", "TEXAS_HTTP_OVERALL_TIMEOUT_MILLIS (must be")
    assert len(settings.unknown) == (0 if text.lstrip("+").isdigit() else 2)
    assert all(line.startswith(ignored) for line in settings.unknown)
    assert refused(ENTRA_FAST_HTTP_MAX_RETRIES="11").setting == "ENTRA_FAST_HTTP_MAX_RETRIES"
    assert BIND_ADDRESS.nearest(text) is None


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("debug", "debug"),
        ("trace", "debug"),
        ("WARN", "warning"),
        ("off", "error"),
        ("info,texas=debug", "debug"),
        ("texas=warn,info", "warning"),
        ("hyper=debug, error", "error"),
        ("hyper=debug", "info"),
        ("texas::oauth[span{field=1}]=debug", "info"),
        ("warning", "warning"),
        ("loud", "info"),
        (",", "info"),
    ],
)
def test_directives_of_texas_set_the_log_level(text: str, level: str) -> None:
    """RUST_LOG: the level of Texas itself, or else the general one. No text stops the start."""
    assert read(RUST_LOG=text).server.log_level == level
    assert read(RUST_LOG=text, ENTRA_FAST_LOG_LEVEL="error").server.log_level == "error"
    assert refused(ENTRA_FAST_LOG_LEVEL="trace").setting == "ENTRA_FAST_LOG_LEVEL"


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("TEXAS_HTTP_POOL_MAX_IDLE", "100", "TEXAS_HTTP_POOL_MAX_IDLE (has no effect: "),
        ("TEXAS_HTTP_NEW_SETTING", "1", "TEXAS_HTTP_NEW_SETTING"),
        ("AZUR_ENABLED", "true", "AZUR_ENABLED (did you mean AZURE_ENABLED?)"),
        ("FEIDE_ENABLED", "True", "FEIDE_ENABLED"),
        ("FEIDE_ENABLED", "false", None),
        ("TEXAS_PORT_3000_TCP", "tcp://10.0.0.1:3000", None),
    ],
)
def test_what_texas_may_be_told_is_never_ignored_in_silence(
    name: str, value: str, reported: str | None
) -> None:
    """Variables of Texas without effect, and providers that are switched on and not supported, are named."""
    unknown = read(**{name: value}).unknown
    if reported is None:
        assert unknown == ()
    else:
        (line,) = unknown
        assert line.startswith(reported)


def test_explicitly_none_may_be_said_of_any_provider() -> None:
    """At least one is switched off, and none on."""
    off = {"MASKINPORTEN_ENABLED": "false", "TOKEN_X_ENABLED": "false"}
    assert Settings.from_environment(off, NOWHERE).providers == ()
    assert Settings.from_environment({**off, "AZURE_CLIENT_ID": "client"}, NOWHERE).providers == ()
    with pytest.raises(ConfigurationError):
        Settings.from_environment({**off, "IDPORTEN_ENABLED": "true"}, NOWHERE)
    assert read(**off).providers


def test_a_key_needs_a_kid_and_no_alg() -> None:
    """Without `alg` it signs with RS256; without `kid` no provider finds its public key."""
    key = json.loads(JWK)
    del key["alg"]
    (provider,) = read(AZURE_APP_JWK=json.dumps(key)).providers
    assert provider.credentials.jwk is not None
    assert signing_key("AZURE_APP_JWK", provider.credentials.jwk.reveal()).algorithm == "RS256"
    del key["kid"]
    error = refused(AZURE_APP_JWK=json.dumps(key))
    assert (error.setting, "'kid'" in error.message) == ("AZURE_APP_JWK", True)


@pytest.mark.parametrize(
    ("enabled", "client_id", "expected"),
    [
        (None, "client", True),
        ("true", "client", True),
        ("false", "client", False),
        ("false", None, False),
    ],
)
def test_the_provider_is_enabled_by_its_switch_or_by_the_client_id(
    enabled: str | None, client_id: str | None, expected: bool
) -> None:
    """AZURE_ENABLED decides; when unset, whether there is a client id."""
    settings = read(AZURE_ENABLED=enabled, AZURE_APP_CLIENT_ID=client_id)
    assert bool(settings.providers) is expected


def test_nothing_configured_is_an_error() -> None:
    """Variables that a platform injects into every workload enable no provider either. The sentence says what
    enables one, and how to start without."""
    injected = {
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
        "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
        "NAIS_SERVICE_ACCOUNT_TOKEN_PATH": "/var/run/secrets/nais.io/token",
    }
    for environ in ({}, injected, {"AZURE_APP_CLIENT_SECRET": "secret"}):
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_environment(environ, NOWHERE)
        assert (caught.value.code, caught.value.setting) == ("setting_missing", "AZURE_APP_CLIENT_ID")
        for name in ("AZURE_ENABLED=true", "AZURE_ENABLED=false"):
            assert name in caught.value.message
    for environ in ({}, injected):
        assert Settings.from_environment({**environ, "AZURE_ENABLED": "false"}, NOWHERE).providers == ()


def test_what_aks_injects_completes_an_enabled_provider() -> None:
    """AZURE_ENABLED=true and the variables of workload identity are enough."""
    environ = {
        "AZURE_ENABLED": "true",
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/",
        "AZURE_FEDERATED_TOKEN_FILE": "/token",
    }
    (provider,) = Settings.from_environment(environ, NOWHERE).providers
    assert (provider.client_id, provider.tenant_id) == ("client", "tenant")
    assert provider.well_known_url == (
        "https://login.microsoftonline.us/tenant/v2.0/.well-known/openid-configuration"
    )
    assert provider.credentials.federated_token is not None
    assert provider.credentials.federated_token.path == Path("/token")


def test_the_own_names_take_precedence_over_those_of_other_platforms() -> None:
    """Client id, tenant and discovery document."""
    platform = {
        "AZURE_CLIENT_ID": "other",
        "AZURE_TENANT_ID": "other",
        "AZURE_AUTHORITY_HOST": "https://other.example",
    }
    (own,) = read(**platform, AZURE_APP_TENANT_ID="tenant").providers
    assert (own.client_id, own.tenant_id) == ("client", "tenant")
    assert own.well_known_url == BASE["AZURE_APP_WELL_KNOWN_URL"]
    (completed,) = read(**platform, AZURE_APP_WELL_KNOWN_URL=None).providers
    assert (completed.client_id, completed.tenant_id) == ("client", "other")
    assert completed.well_known_url == "https://other.example/other/v2.0/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("present", "used"),
    [
        (["AZURE_APP_JWK", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_APP_CLIENT_SECRET"], "AZURE_APP_JWK"),
        (["AZURE_FEDERATED_TOKEN_FILE", "AZURE_APP_CLIENT_SECRET"], "AZURE_FEDERATED_TOKEN_FILE"),
        (["AZURE_APP_CLIENT_SECRET"], "AZURE_APP_CLIENT_SECRET"),
        ([], "NAIS_SERVICE_ACCOUNT_TOKEN_PATH"),
    ],
)
def test_credentials_have_an_order(present: list[str], used: str) -> None:
    """The file that NAIS mounts into every workload is the last choice."""
    values = {"AZURE_APP_JWK": JWK, "AZURE_FEDERATED_TOKEN_FILE": "/a", "AZURE_APP_CLIENT_SECRET": "secret"}
    environ = {name: values[name] if name in present else None for name in values}
    (provider,) = read(**environ, NAIS_SERVICE_ACCOUNT_TOKEN_PATH="/b").providers
    (first, *_) = Credentials(provider.credentials, provider.client_id).in_order()
    assert first.secret.setting == used


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://login.microsoftonline.us/", "https://login.microsoftonline.us"),
        ("login.partner.microsoftonline.cn", "https://login.partner.microsoftonline.cn"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://login.example", None),
        ("https://login.example/tenant", None),
        ("https://login.example?x=1", None),
        ("https://user:hunter2@login.example", None),
        ("//", None),
    ],
)
def test_the_authority_is_a_host(text: str, host: str | None) -> None:
    """As azure-identity reads AZURE_AUTHORITY_HOST: with or without scheme and final slash, no path."""
    changes = {"AZURE_AUTHORITY_HOST": text, "AZURE_APP_WELL_KNOWN_URL": None, "AZURE_TENANT_ID": "t"}
    if host is None:
        error = refused(**changes)
        assert error.setting == "AZURE_AUTHORITY_HOST"
        assert "hunter2" not in error.message
    else:
        (provider,) = read(**changes).providers
        assert provider.well_known_url == f"{host}/t/v2.0/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"AZURE_ENABLED": "true", "AZURE_APP_CLIENT_ID": None}, "AZURE_APP_CLIENT_ID"),
        ({"AZURE_APP_CLIENT_ID": "a b"}, "AZURE_APP_CLIENT_ID"),
        ({"AZURE_APP_WELL_KNOWN_URL": None}, "AZURE_APP_WELL_KNOWN_URL"),
        ({"AZURE_APP_WELL_KNOWN_URL": "http://login.example/"}, "AZURE_APP_WELL_KNOWN_URL"),
        ({"AZURE_APP_WELL_KNOWN_URL": "file:///etc/passwd"}, "AZURE_APP_WELL_KNOWN_URL"),
        ({"AZURE_OPENID_CONFIG_JWKS_URI": "https://u:p@login.example/"}, "AZURE_OPENID_CONFIG_JWKS_URI"),
        ({"AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "login"}, "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT"),
        ({"AZURE_OPENID_CONFIG_ISSUER": "login"}, "AZURE_OPENID_CONFIG_ISSUER"),
        ({"AZURE_APP_TENANT_ID": "a/b"}, "AZURE_APP_TENANT_ID"),
        ({"AZURE_ENABLED": "yes"}, "AZURE_ENABLED"),
        ({"AZURE_APP_JWK": None}, "AZURE_APP_JWK"),
        ({"AZURE_APP_JWK": "{}"}, "AZURE_APP_JWK"),
        ({"AZURE_APP_JWK": "not json"}, "AZURE_APP_JWK"),
        ({"AZURE_APP_NEXT_JWK": "not json"}, "AZURE_APP_NEXT_JWK"),
        ({"BIND_ADDRESS": "3000"}, "BIND_ADDRESS"),
        ({"BIND_ADDRESS": ":3000"}, "BIND_ADDRESS"),
        ({"BIND_ADDRESS": "127.0.0.1:70000"}, "BIND_ADDRESS"),
        ({"BIND_ADDRESS": "127.0.0.1:+1"}, "BIND_ADDRESS"),
        ({"PROBE_BIND_ADDRESS": "127.0.0.1:3000"}, "PROBE_BIND_ADDRESS"),
        ({"ENTRA_FAST_HTTP_MAX_RETRIES": "-1"}, "ENTRA_FAST_HTTP_MAX_RETRIES"),
        ({"ENTRA_FAST_HTTP_MAX_RETRIES": "11"}, "ENTRA_FAST_HTTP_MAX_RETRIES"),
        ({"ENTRA_FAST_MAX_CONNECTIONS": "0"}, "ENTRA_FAST_MAX_CONNECTIONS"),
        ({"ENTRA_FAST_LOG_LEVEL": "loud"}, "ENTRA_FAST_LOG_LEVEL"),
        ({"ENTRA_FAST_ALLOWED_HOSTS": "http://x"}, "ENTRA_FAST_ALLOWED_HOSTS"),
        ({"ENTRA_FAST_ALLOWED_TENANTS": "contoso.com"}, "ENTRA_FAST_ALLOWED_TENANTS"),
        (
            {"ENTRA_FAST_ALLOWED_TENANTS": "*,12345678-1234-1234-1234-123456789abc"},
            "ENTRA_FAST_ALLOWED_TENANTS",
        ),
        ({"ENTRA_FAST_ALGORITHMS": "RS256,HS256"}, "ENTRA_FAST_ALGORITHMS"),
        ({"ENTRA_FAST_ALGORITHMS": "rs256"}, "ENTRA_FAST_ALGORITHMS"),
        ({"ENTRA_FAST_ALGORITHMS": ","}, "ENTRA_FAST_ALGORITHMS"),
        ({"ENTRA_FAST_CLIENT_CAPABILITIES": "cp2"}, "ENTRA_FAST_CLIENT_CAPABILITIES"),
        ({"ENTRA_FAST_CA_BUNDLE": "/nonexistent.pem"}, "ENTRA_FAST_CA_BUNDLE"),
        ({"HTTPS_PROXY": "socks5://user:hunter2@proxy"}, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://user:hunter2@proxy example:8080"}, "HTTPS_PROXY"),
    ],
)
def test_a_missing_or_wrong_setting_is_named(changes: dict[str, str | None], setting: str) -> None:
    """The error names the setting in one line."""
    error = refused(**changes)
    assert error.setting == setting
    assert setting in error.message
    assert "\n" not in error.message
    assert "hunter2" not in error.message


def test_algorithms_keep_their_order() -> None:
    """The first one that suits a key counts, so the order is that of the setting; spaces and repetitions are
    nothing."""
    (provider,) = read(ENTRA_FAST_ALGORITHMS=" PS256, RS256,PS256 ,ML-DSA-65").providers
    assert provider.algorithms == ("PS256", "RS256", "ML-DSA-65")
    (unset,) = read().providers
    assert (unset.algorithms, unset.client_capabilities) == (("RS256",), ())


def test_a_broken_key_is_refused_without_being_shown() -> None:
    """The sentence about AZURE_APP_JWK contains no bytes of it."""
    jwk = json.loads(JWK)
    jwk["d"] = "canary" + jwk["d"][6:-4]
    error = refused(AZURE_APP_JWK=json.dumps(jwk))
    assert error.setting == "AZURE_APP_JWK"
    for member in ("d", "n", "p", "q"):
        assert jwk[member][:12] not in repr(error)
    assert "canary" not in repr(error)


def test_the_tenant_alone_means_entra_id_s_own_discovery_document() -> None:
    """A tenant without a well-known URL is a tenant of the public cloud."""
    settings = read(AZURE_APP_WELL_KNOWN_URL=None, AZURE_APP_TENANT_ID="nav.no")
    assert settings.providers
    assert settings.providers[0].well_known_url == (
        "https://login.microsoftonline.com/nav.no/v2.0/.well-known/openid-configuration"
    )


def test_three_endpoints_need_no_discovery() -> None:
    """With issuer, keys and token endpoint nothing has to be looked up."""
    settings = read(
        AZURE_APP_WELL_KNOWN_URL=None,
        AZURE_OPENID_CONFIG_ISSUER="https://login.example/t/v2.0",
        AZURE_OPENID_CONFIG_JWKS_URI="https://login.example/keys",
        AZURE_OPENID_CONFIG_TOKEN_ENDPOINT="https://login.example/token",
    )
    assert settings.providers
    assert not settings.providers[0].needs_discovery


def test_files_hold_settings_and_the_environment_wins(tmp_path: Path) -> None:
    """NAIS mounts the settings as files, too; an empty variable counts as unset."""
    (tmp_path / "AZURE_APP_CLIENT_ID").write_text("from-file\n")
    (tmp_path / "AZURE_APP_TENANT_ID").write_text("tenant-from-file")
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("secret-from-file\n")
    environ = {"AZURE_APP_TENANT_ID": "tenant-from-environment", "AZURE_APP_CLIENT_ID": " "}
    settings = Settings.from_environment(environ, tmp_path)
    assert settings.providers
    assert settings.providers[0].client_id == "from-file"
    assert settings.providers[0].tenant_id == "tenant-from-environment"
    secret = settings.providers[0].credentials.client_secret
    assert secret is not None
    assert secret.reveal() == "secret-from-file"
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("rotated")
    assert secret.reveal() == "rotated"


def test_the_directory_can_be_named_by_a_variable(tmp_path: Path) -> None:
    """ENTRA_FAST_SETTINGS_DIRECTORY replaces the place where NAIS mounts files; it must exist."""
    for name, value in BASE.items():
        (tmp_path / name).write_text(value)
    assert Settings.from_environment({"ENTRA_FAST_SETTINGS_DIRECTORY": str(tmp_path)}).providers
    with pytest.raises(ConfigurationError, match="ENTRA_FAST_SETTINGS_DIRECTORY"):
        Settings.from_environment({"ENTRA_FAST_SETTINGS_DIRECTORY": str(tmp_path / "no")})


def test_a_file_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    """Too large or not text: named, not shown."""
    for content in (b"x" * 70_000, b"canary\xff"):
        (tmp_path / "AZURE_APP_CLIENT_ID").write_bytes(content)
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_environment({}, tmp_path)
        assert caught.value.setting == "AZURE_APP_CLIENT_ID"
        assert "canary" not in repr(caught.value)
        assert caught.value.__cause__ is None


def test_no_representation_shows_a_secret() -> None:
    """repr of settings, of a secret and of proxies (whose URL may hold a password)."""
    settings = read(AZURE_APP_CLIENT_SECRET="hunter2-secret", HTTPS_PROXY="http://u:hunter2-proxy@proxy:1")
    text = repr(settings)
    assert "hunter2" not in text
    assert json.loads(JWK)["d"][:20] not in text
    assert "Secret(AZURE_APP_CLIENT_SECRET)" in text
    with pytest.raises(TypeError):
        pickle.dumps(Secret("X", "hunter2"))


def test_ipv6_addresses() -> None:
    """[::1]:3000 is an address."""
    server = read(BIND_ADDRESS="[::1]:3001").server
    assert (server.host, server.port) == ("::1", 3001)


def test_the_page_of_settings_is_complete() -> None:
    """docs/reference/settings.md lists the settings that exist, with forms, defaults and descriptions."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text()
    rows = re.findall(r"^\| `([A-Z_<>]+)` \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    expected = []
    after = SETTINGS.index(PROVIDERS) + 1
    for setting in (*SETTINGS[:after], *GENERIC_ROWS, *SETTINGS[after:]):
        aliases = "".join(f" Also read as `{alias}`." for alias in setting.aliases)
        default = setting.shown_default()
        expected.append(
            (setting.name, setting.form, f"`{default}`" if default else "-", setting.description + aliases)
        )
    assert rows == expected


def test_each_setting_is_one_row() -> None:
    """No name or alias occurs twice."""
    names = [name for setting in SETTINGS for name in (setting.name, *setting.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_documented_default_means_the_same_as_no_setting(setting: Setting[Any, Any]) -> None:
    """Writing the default into the environment changes nothing."""
    if text := setting.shown_default():
        assert setting.parse(text) == setting.default


def test_settings_without_an_environment_are_the_defaults_of_the_classes() -> None:
    """The defaults of the classes and of the catalogue are the same values."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, NOWHERE)
    assert settings == Settings(ServerSettings(), (), OutboundSettings(), CacheSettings())


def test_several_workers_need_so_reuseport(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system lacks it, the setting is refused at start."""
    assert read(ENTRA_FAST_WORKERS="2").server.workers == 2
    monkeypatch.delattr("socket.SO_REUSEPORT")
    assert refused(ENTRA_FAST_WORKERS="2").setting == "ENTRA_FAST_WORKERS"
    assert read(ENTRA_FAST_WORKERS="1").server.workers == 1


def test_times_are_milliseconds_within_bounds() -> None:
    """The value is seconds; the error names the bounds."""
    assert read(ENTRA_FAST_DRAIN_DELAY_MILLIS="0").server.drain_delay == 0
    assert read(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="1500").server.request_timeout == 1.5
    for text in ("0", "3600001", "1.5", "-1", "1" * 16):
        error = refused(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS=text)
        assert error.message == ("ENTRA_FAST_REQUEST_TIMEOUT_MILLIS must be a whole number from 1 to 3600000")


def test_allowed_hosts_are_lower_case_names() -> None:
    """Comma-separated; white space and empty entries do not matter."""
    assert read(ENTRA_FAST_ALLOWED_HOSTS="A.example, ,b").server.allowed_hosts == {"a.example", "b"}


def test_a_secret_whose_file_is_gone_or_empty_is_an_error(tmp_path: Path) -> None:
    """Its code says which; a secret from the environment needs no file."""
    file = tmp_path / "AZURE_APP_CLIENT_SECRET"
    secret = Secret("AZURE_APP_CLIENT_SECRET", path=file)
    with pytest.raises(ConfigurationError) as caught:
        secret.reveal()
    assert caught.value.code == "setting_unreadable"
    file.write_text(" \n")
    with pytest.raises(ConfigurationError) as caught:
        secret.reveal()
    assert caught.value.code == "setting_missing"
    assert Secret("X", "text").reveal() == "text"


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    """Nor are line ends of any system: the provider would reject the credential and say no more."""
    file = tmp_path / "AZURE_APP_CLIENT_SECRET"
    file.write_bytes("\ufeffs\u00e9cret\r\n".encode())
    assert Secret("AZURE_APP_CLIENT_SECRET", path=file).reveal() == "s\u00e9cret"
    file.write_bytes("\ufeff\r\n".encode())
    with pytest.raises(ConfigurationError, match="empty"):
        Secret("AZURE_APP_CLIENT_SECRET", path=file).reveal()


def test_an_address_is_written_as_it_is_read() -> None:
    """With brackets around an IPv6 address."""
    for text in ("127.0.0.1:3000", "[::1]:0", "localhost:65535"):
        assert str(BIND_ADDRESS.parse(text)) == text


# --- everything that is wrong ---


def examined(changes: Mapping[str, str | None], directory: Path = NOWHERE) -> list[str]:
    """The sentences about everything that is wrong."""
    environ = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    return [problem.message for problem in Settings.examined(environ, directory)[1]]


def test_nothing_is_wrong_with_settings_that_can_be_served() -> None:
    """The settings are the same as those of a start."""
    settings, problems = Settings.examined(BASE, NOWHERE)
    assert problems == []
    assert (settings.server, settings.outbound, settings.caches) == (
        ServerSettings(),
        OutboundSettings(),
        CacheSettings(),
    )


def test_every_wrong_setting_is_reported() -> None:
    """Where a start ends with the first problem, `examined` goes on, in every group of settings."""
    wrong = {
        "BIND_ADDRESS": "nowhere",
        "ENTRA_FAST_WORKERS": "0",
        "AZURE_APP_WELL_KNOWN_URL": "http://login.example/",
        "AZURE_APP_JWK": "{}",
        "ENTRA_FAST_CA_BUNDLE": "/nonexistent.pem",
        "HTTPS_PROXY": "ftp://proxy.example",
        "HTTP_PROXY": "ftp://proxy.example",
        "ENTRA_FAST_CACHE_MAX_BYTES": "much",
        "ENTRA_FAST_REDIS_URL": "http://redis.example",
        "ENTRA_FAST_REDIS_KEY": "short",
    }
    found = examined(wrong)
    assert sorted(message.split()[0].rstrip(":") for message in found) == sorted(wrong)
    assert refused(**wrong).message == found[0]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"AZURE_APP_CLIENT_ID": None}, ["AZURE_APP_CLIENT_ID"]),
        (
            {"AZURE_APP_CLIENT_ID": None, "AZURE_ENABLED": "true", "AZURE_APP_JWK": None},
            ["AZURE_APP_CLIENT_ID", "AZURE_APP_JWK"],
        ),
        (
            {"AZURE_APP_WELL_KNOWN_URL": None, "AZURE_APP_JWK": None},
            ["AZURE_APP_WELL_KNOWN_URL", "AZURE_APP_JWK"],
        ),
        ({"ENTRA_FAST_REDIS_URL": "redis://redis.example"}, ["ENTRA_FAST_REDIS_KEY"]),
    ],
)
def test_every_missing_setting_is_reported(changes: dict[str, str | None], missing: list[str]) -> None:
    """Also where one of them alone would stop the start."""
    assert [message.split()[0].rstrip(",") for message in examined(changes)] == missing


def test_a_wrong_setting_is_not_missing_as_well() -> None:
    """It is reported once, under the name that the user wrote."""
    (message,) = examined(
        {"AZURE_ENABLED": "true", "AZURE_APP_CLIENT_ID": None, "AZURE_CLIENT_ID": "with a space"}
    )
    assert message == "AZURE_CLIENT_ID must be a client id without spaces"


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    """All of them, whatever they hold."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_APP_JWK", "ENTRA_FAST_LOG_LEVEL"):
        (tmp_path / name).write_bytes(b"\xff")
    found = examined({"AZURE_APP_CLIENT_ID": None, "AZURE_APP_JWK": None}, tmp_path)
    assert sorted(found) == [
        "AZURE_APP_CLIENT_ID: its file is not text in UTF-8",
        "AZURE_APP_JWK: its file is not text in UTF-8",
        "ENTRA_FAST_LOG_LEVEL: its file is not text in UTF-8",
    ]


def test_nothing_is_missing_from_a_directory_that_does_not_exist() -> None:
    """What it would hold is not known."""
    environ = {"ENTRA_FAST_SETTINGS_DIRECTORY": "/nonexistent", "ENTRA_FAST_WORKERS": "0"}
    _, problems = Settings.examined(environ)
    assert [problem.setting for problem in problems] == [
        "ENTRA_FAST_SETTINGS_DIRECTORY",
        "ENTRA_FAST_WORKERS",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "AZURE_APP_WELL_KNOWN_URL",
        "AZURE_OPENID_CONFIG_ISSUER",
        "AZURE_OPENID_CONFIG_JWKS_URI",
        "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT",
    ],
)
def test_a_provider_on_plain_http_must_be_named(name: str) -> None:
    """Every URL of the provider; the sentence says which setting names hosts."""
    url = "http://emulator:8080/t/v2.0"
    error = refused(**{name: url})
    assert (error.code, error.setting) == ("setting_invalid", name)
    assert error.message == (
        f"{name} must be an https URL (http is allowed for loopback addresses, and for hosts that "
        "ENTRA_FAST_INSECURE_PROVIDER_HOSTS names)"
    )
    assert refused(**{name: url, "ENTRA_FAST_INSECURE_PROVIDER_HOSTS": "other,emulator.test"}).setting == name
    settings = read(**{name: url, "ENTRA_FAST_INSECURE_PROVIDER_HOSTS": "other, Emulator"})
    assert url in repr(settings.providers[0])
    assert settings.outbound.insecure_hosts == {"other", "emulator"}


def test_an_authority_on_plain_http_must_be_named() -> None:
    """The host of AKS's variable, from which the URL of the discovery document is made."""
    changes = {
        "AZURE_APP_WELL_KNOWN_URL": None,
        "AZURE_APP_TENANT_ID": "t",
        "AZURE_AUTHORITY_HOST": "http://emulator:8080/",
    }
    assert refused(**changes).setting == "AZURE_AUTHORITY_HOST"
    (provider,) = read(**changes, ENTRA_FAST_INSECURE_PROVIDER_HOSTS="emulator").providers
    assert provider.well_known_url == "http://emulator:8080/t/v2.0/.well-known/openid-configuration"


def test_a_real_provider_stops_the_start_even_if_no_url_uses_it() -> None:
    """The list is wrong, wherever it came from; all that is wrong is reported at once."""
    error = refused(ENTRA_FAST_INSECURE_PROVIDER_HOSTS="login.microsoftonline.com")
    assert error.setting == "ENTRA_FAST_INSECURE_PROVIDER_HOSTS"
    environ = {
        **BASE,
        "AZURE_APP_WELL_KNOWN_URL": "http://emulator/t",
        "ENTRA_FAST_INSECURE_PROVIDER_HOSTS": "*",
        "ENTRA_FAST_WORKERS": "0",
    }
    _, problems = Settings.examined(environ, NOWHERE)
    assert {problem.setting for problem in problems} == {
        "AZURE_APP_WELL_KNOWN_URL",
        "ENTRA_FAST_INSECURE_PROVIDER_HOSTS",
        "ENTRA_FAST_WORKERS",
    }


def test_a_file_does_not_allow_plain_http(tmp_path: Path) -> None:
    """An attacker who can write the mounted secret cannot turn TLS off with it."""
    (tmp_path / "ENTRA_FAST_INSECURE_PROVIDER_HOSTS").write_text("emulator")
    environ = {**BASE, "AZURE_APP_WELL_KNOWN_URL": "http://emulator/t"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(environ, tmp_path)
    assert caught.value.setting == "AZURE_APP_WELL_KNOWN_URL"
