"""What is said about one provider names no variable that is read for another one only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from entra_fast._providers import BUILT_IN, ENTRA_ID, ProviderKind, generic
from entra_fast._settings import catalogue
from entra_fast._settings.load import Settings, provider_client_settings
from entra_fast._settings.model import ProviderSettings
from entra_fast.cli import remedies
from entra_fast.cli.doctor import command
from entra_fast.cli.doctor.provider import introspection_remedy
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.policy import policy_for
from entra_fast.validate import Validator
from support.keys import Key

NOWHERE = Path("/nonexistent")
PARTNER = generic("partner", title="Partner")
KINDS = (*BUILT_IN, PARTNER)
OWN = {
    kind.name: {name for row in catalogue.provider_rows(kind) for name in (row.name, *row.aliases)}
    for kind in KINDS
}
ALL = frozenset().union(*OWN.values())
CODES = (
    "algorithm_not_allowed",
    "issued_in_the_future",
    "signature_invalid",
    "tenant_not_allowed",
    "token_expired",
    "token_not_yet_valid",
    "unknown_key",
    "wrong_audience",
    "wrong_issuer",
)
TENANTS = "https://login.example/{tenantid}/v2.0"
JWK = Key.generate().private_jwk()

of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def foreign(kind: ProviderKind, text: str) -> set[str]:
    """The variables in a text that are another provider's."""
    return set(re.findall(r"[A-Z][A-Z0-9_]+", text)) & (ALL - OWN[kind.name])


def switched_on(kind: ProviderKind) -> dict[str, str]:
    """The variables that enable a provider, and nothing that it needs."""
    if kind.variables.enabled is None:
        return {"ENTRA_FAST_PROVIDERS": kind.name}
    return {kind.variables.enabled: "true"}


def described(kind: ProviderKind, issuer: str = "http://127.0.0.1:1/x") -> dict[str, str]:
    """All that a provider needs; nobody listens at its endpoints."""
    names = kind.variables
    values = {
        names.issuer: issuer,
        names.jwks_uri: "http://127.0.0.1:1/keys",
        names.token_endpoint: "http://127.0.0.1:1/token",
        names.client_id: "client",
        names.audience: "audience",
        names.jwk: JWK,
    }
    return switched_on(kind) | {name: value for name, value in values.items() if name is not None}


def wrong_settings(kind: ProviderKind) -> Iterator[str]:
    rows = catalogue.provider_rows(kind)
    environs = [switched_on(kind)]
    environs += [described(kind) | {row.name: "\x01 not a value"} for row in rows]
    environs += [{name: value for name, value in described(kind).items() if name != row.name} for row in rows]
    for environ in environs:
        settings, problems = Settings.examined({**environ, "BIND_ADDRESS": "127.0.0.1:0"}, NOWHERE)
        yield from (f"{problem.setting}: {problem.message}" for problem in problems)
        yield from settings.unknown


@of_each_kind
def test_what_is_wrong_with_the_settings(kind: ProviderKind) -> None:
    """Each missing and each wrong variable. Where no provider is left, the sentence names all of them."""
    said = [text for text in wrong_settings(kind) if "no provider is configured" not in text]
    assert len(said) > 5
    assert {text: found for text in said if (found := foreign(kind, text))} == {}


@of_each_kind
def test_what_a_program_is_told(kind: ProviderKind) -> None:
    """That names a provider which is not configured."""
    with pytest.raises(ConfigurationError) as caught:
        provider_client_settings({}, NOWHERE, provider=kind.name)
    assert foreign(kind, f"{caught.value.setting} {caught.value.message}") == set()


def settings_of(kind: ProviderKind, issuer: str = "https://issuer.example") -> ProviderSettings:
    (provider,) = Settings.from_environment(described(kind, issuer), NOWHERE).providers
    return provider


@of_each_kind
def test_an_issuer_that_stands_for_any_tenant(kind: ProviderKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the sidecar and in a validator: the setting with the tenants, or, where the provider has no such
    setting, that of the issuer."""
    tenants = catalogue.provider_rows(kind).allowed_tenants
    for name, value in described(kind, TENANTS).items():
        monkeypatch.setenv(name, value)
    for refuses in (
        lambda: policy_for(TENANTS, settings_of(kind)),
        lambda: Validator.from_env(kind.name),
    ):
        with pytest.raises(ConfigurationError) as caught:
            refuses()
        assert caught.value.setting == (kind.variables.issuer if tenants is None else tenants.name)
        assert caught.value.setting in caught.value.message
        assert foreign(kind, caught.value.message) == set()


@of_each_kind
def test_remedies(kind: ProviderKind) -> None:
    """Of refusals, and of what a sidecar does not do."""
    known = [advice for _, advice in remedies._ROWS.get(kind.name, ())]
    known += [advice for (name, _), advice in remedies._OF_SIDECAR.items() if name == kind.name]
    known.append(remedies.remedy(kind.name, "is not enabled") or "")
    assert {advice: found for advice in known if (found := foreign(kind, advice))} == {}


@of_each_kind
def test_remedies_for_a_token_that_doctor_got(kind: ProviderKind) -> None:
    """For each way in which it can be rejected."""
    said = {code: introspection_remedy(kind, code) for code in CODES}
    assert {code: found for code, advice in said.items() if (found := foreign(kind, advice))} == {}
    tenants = catalogue.provider_rows(kind).allowed_tenants
    assert tenants is None or tenants.name in said["tenant_not_allowed"]


@of_each_kind
def test_what_doctor_says_about_a_provider_that_cannot_be_reached(
    kind: ProviderKind, capsys: pytest.CaptureFixture[str]
) -> None:
    """With endpoints that are set, and with a discovery document."""
    alone = described(kind)
    document = {name: value for name, value in alone.items() if name != kind.variables.jwks_uri}
    document[kind.variables.well_known_url] = "http://127.0.0.1:1/.well-known/openid-configuration"
    for environ in (alone, document):
        assert command.run({**environ, "BIND_ADDRESS": "127.0.0.1:0"}, NOWHERE, as_json=True) == 1
        checks = json.loads(capsys.readouterr().out)["checks"]
        said = [
            " ".join(str(check.get(name)) for name in ("found", "expected", "remedy")) for check in checks
        ]
        assert {text: found for text in said if (found := foreign(kind, text))} == {}


def test_a_foreign_variable_is_found() -> None:
    """So that the other tests can fail."""
    assert foreign(PARTNER, "set ENTRA_FAST_ALLOWED_TENANTS") == {"ENTRA_FAST_ALLOWED_TENANTS"}
    assert foreign(ENTRA_ID, "set ENTRA_FAST_ALLOWED_TENANTS") == set()
