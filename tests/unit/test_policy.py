"""The conditions under which the sidecar reports a token as active, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from entra_fast import _native
from entra_fast._native import KeySet, Policy
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError, InvalidToken
from entra_fast.sidecar.policy import policy_for
from support.tokens import ABSENT, AUDIENCE, ISSUER, ISSUER_TEMPLATE, NOW, OTHER_TENANT, TENANT, jwks, signer

ENVIRON = {
    "AZURE_APP_CLIENT_ID": AUDIENCE,
    "AZURE_APP_TENANT_ID": TENANT,
    "AZURE_APP_CLIENT_SECRET": "not asked for",
    "AZURE_OPENID_CONFIG_JWKS_URI": "http://127.0.0.1:9/keys",
    "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "http://127.0.0.1:9/token",
}
TENANTS = "ENTRA_FAST_ALLOWED_TENANTS"


def policy(issuer: str = ISSUER, signatures: str | None = None, **changes: str) -> Policy:
    environ = {**ENVIRON, "AZURE_OPENID_CONFIG_ISSUER": issuer, **changes}
    (provider,) = Settings.from_environment(environ, None).providers
    return policy_for(issuer, provider, *([] if signatures is None else [signatures]))


def code(token: str, one: Policy, *signers: Any) -> str | None:
    """Why a token is rejected, or None."""
    keys = KeySet(jwks(*(signers or (signer(),))))
    try:
        _native.Validator(one, keys).validate(token, NOW)
    except InvalidToken as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("changes", "rejected"),
    [
        ({}, None),
        ({"iss": ISSUER + "/"}, "wrong_issuer"),
        ({"aud": "another"}, "wrong_audience"),
        ({"aud": ABSENT}, "claim_missing"),
        ({"iat": ABSENT}, "claim_missing"),
        ({"exp": ABSENT}, "claim_missing"),
        ({"nbf": ABSENT}, None),
        ({"sub": ABSENT}, None),
    ],
)
def test_claims(changes: dict[str, Any], rejected: str | None) -> None:
    """Issuer and audience are those of the settings; `iat` and `exp` must be there."""
    assert code(signer().token(**changes), policy()) == rejected


def test_a_token_must_name_its_key() -> None:
    """Also where there is only one."""
    assert code(signer().token(header={"kid": ABSENT}), policy()) == "unknown_key"


@pytest.mark.parametrize("algorithms", ["", "PS256", "RS256,ES256"])
def test_algorithms_are_those_of_the_settings(algorithms: str) -> None:
    """RS256 alone by default."""
    one = policy(**({"ENTRA_FAST_ALGORITHMS": algorithms} if algorithms else {}))
    for algorithm in ("RS256", "PS256", "ES256"):
        key = signer(f"key-{algorithm}", algorithm)
        accepted = code(key.token(), one, key) is None
        assert accepted is (algorithm in (algorithms or "RS256").split(","))


def test_tenants_are_those_of_the_settings() -> None:
    """Where the issuer stands for any: none, some, or all of them; the error names the setting."""
    issuers = {tenant: ISSUER_TEMPLATE.replace("{tenantid}", tenant) for tenant in (TENANT, OTHER_TENANT)}
    for allowed, accepted in ((TENANT, {TENANT}), ("*", {TENANT, OTHER_TENANT})):
        one = policy(ISSUER_TEMPLATE, **{TENANTS: allowed})
        tokens = {tenant: signer().token(iss=issuer, tid=tenant) for tenant, issuer in issuers.items()}
        assert {tenant for tenant, token in tokens.items() if code(token, one) is None} == accepted
    with pytest.raises(ConfigurationError) as caught:
        policy(ISSUER_TEMPLATE)
    assert (caught.value.code, caught.value.setting) == ("setting_missing", TENANTS)
    assert caught.value.message == (
        f"{TENANTS} is not set, and the issuer {ISSUER_TEMPLATE} stands for any tenant: set {TENANTS} to the "
        "ids of the tenants whose tokens are accepted, or to * for any"
    )


def test_tenants_mean_nothing_where_the_issuer_names_one() -> None:
    """The issuer is that of one tenant."""
    assert code(signer().token(), policy()) is None
    assert code(signer().token(), policy(**{TENANTS: TENANT})) is None


def test_the_library_that_verifies_is_chosen_by_name() -> None:
    """By default the fast one; a choice that there is not is refused."""
    for choice in (None, "fast", "aws-lc"):
        assert code(signer().token(), policy(signatures=choice)) is None
    with pytest.raises(ConfigurationError, match="signatures must be fast or aws-lc"):
        policy(signatures="other")


def test_the_fast_library_is_the_default() -> None:
    """What it has verified may be confirmed by AWS-LC, and only that is counted."""

    token, keys = signer().token(), KeySet(jwks(signer()))

    def agreed(signatures: str | None) -> int:
        before = _native.signature_figures()["agreed"]
        validator = _native.Validator(policy(signatures=signatures), keys)
        for serial in range(200):
            with pytest.raises(InvalidToken, match="signature"):
                validator.validate(f"{token[:-12]}{serial:08}AAAA", NOW)
        return _native.signature_figures()["agreed"] - before

    assert agreed("aws-lc") == 0
    assert agreed("fast") > 0
    assert agreed(None) > 0
