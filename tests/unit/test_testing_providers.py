"""`entra_fast.testing` for TokenX, Maskinporten and ID-porten: their tokens, verified for real."""

from __future__ import annotations

from typing import Any

import pytest

from entra_fast import unverified_claims, unverified_header
from entra_fast.errors import Forbidden, InvalidToken
from entra_fast.require import Require
from entra_fast.testing import Clock, LocalAnsattporten, LocalIDPorten, LocalMaskinporten, LocalTokenX
from entra_fast.validate import ANY_AUDIENCE, Validator

WEB, API = "dev-gcp:team:web", "dev-gcp:team:api"
SCOPE = "nav:helse/x.read"
RESOURCE = "https://api.example"

CODES = {
    "expired": "token_expired",
    "malformed": "not_a_jwt",
    "not_yet_valid": "token_not_yet_valid",
    "wrong_audience": "wrong_audience",
    "wrong_issuer": "wrong_issuer",
    "wrong_key": "unknown_key",
    "wrong_signature": "signature_invalid",
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def local_tokenx(clock: Clock) -> LocalTokenX:
    return LocalTokenX(clock)


@pytest.fixture
def local_maskinporten(clock: Clock) -> LocalMaskinporten:
    return LocalMaskinporten(clock)


@pytest.fixture
def local_idporten(clock: Clock) -> LocalIDPorten:
    return LocalIDPorten(clock)


def test_a_token_of_tokenx(local_tokenx: LocalTokenX) -> None:
    """It has the claims of the person's token, and names the calling application."""
    claims = local_tokenx.validator(API).validate(local_tokenx.token(WEB, API))
    claims.require(Require(client=WEB, acr_at_least="Level4", issuer=local_tokenx.issuer))
    assert (claims.authorized_party, claims.pid, claims["idp"]) == (WEB, "17858549949", LocalIDPorten.issuer)
    assert claims.expires_at == claims["iat"] + 900
    changed = local_tokenx.token(WEB, API, pid="41819049910", acr="Level3", amr=None, extra=1)
    claims = local_tokenx.validator(API).validate(changed)
    assert (claims.pid, claims.acr, claims["extra"], "amr" in claims) == ("41819049910", "Level3", 1, False)
    assert unverified_header(changed).keys() == {"kid", "typ", "alg"}


async def test_a_token_of_maskinporten(local_maskinporten: LocalMaskinporten) -> None:
    """It names an organization and scopes, and an audience only if the caller asked for one."""
    token = local_maskinporten.token(f"{SCOPE} other")
    claims = local_maskinporten.validator().validate(token)
    claims.require(Require(scope=SCOPE, consumer_orgno="310000019"))
    assert (claims.supplier_orgno, "aud" in claims, "sub" in claims) == (None, False, False)
    with pytest.raises(InvalidToken):
        local_maskinporten.validator(RESOURCE).validate(token)
    details = [{"type": "urn:altinn:systemuser"}]
    delegated = local_maskinporten.token(
        SCOPE,
        consumer_orgno="310000027",
        supplier_orgno="310000019",
        resource=RESOURCE,
        authorization_details=details,
    )
    claims = await local_maskinporten.async_validator(RESOURCE).validate(delegated)
    assert (claims.consumer_orgno, claims.supplier_orgno) == ("310000027", "310000019")
    assert claims.authorization_details == tuple(details)
    several = local_maskinporten.token(SCOPE, resource=[RESOURCE, "https://other.example"])
    assert local_maskinporten.validator(RESOURCE).validate(several)["aud"] == [
        RESOURCE,
        "https://other.example",
    ]


async def test_tokens_of_idporten(local_idporten: LocalIDPorten) -> None:
    """Access tokens pass; an ID token passes validation if its audience does, and meets no requirement."""
    validator = local_idporten.async_validator(RESOURCE)
    claims = await validator.validate(
        local_idporten.token(RESOURCE, acr="idporten-loa-substantial", pid=None)
    )
    claims.require(scope="profile", acr_at_least="Level3")
    assert (claims.pid, claims.authorized_party) == (None, LocalIDPorten.PLATFORM)
    identity = await validator.validate(local_idporten.id_token(RESOURCE))
    assert {"nonce", "auth_time", "sid"} < set(identity)
    with pytest.raises(Forbidden) as caught:
        identity.require(Require.any_token())
    assert caught.value.code == "access_token_required"
    with pytest.raises(InvalidToken):
        await validator.validate(local_idporten.id_token(LocalIDPorten.PLATFORM))


def test_tokens_of_ansattporten(clock: Clock) -> None:
    """Like those of ID-porten, with levels of its own, and what a person represents; neither provider accepts
    the other's."""
    local_ansattporten = LocalAnsattporten(clock)
    details = [{"type": "ansattporten:altinn:resource", "resource": "urn:altinn:resource:x"}]
    validator = local_ansattporten.validator(RESOURCE)
    claims = validator.validate(local_ansattporten.token(RESOURCE, authorization_details=details))
    claims.require(scope="profile", acr_at_least="substantial")
    assert (claims.pid, claims.acr, claims.authorization_details) == ("17858549949", "high", tuple(details))
    low = validator.validate(local_ansattporten.token(RESOURCE, acr="low", pid=None))
    assert (low.pid, low.acr_at_least("substantial")) == (None, False)
    assert validator.validate(local_ansattporten.id_token(RESOURCE)).acr == "high"
    for kind, token in _all(local_ansattporten, RESOURCE).items():
        with pytest.raises(InvalidToken) as caught:
            validator.validate(token)
        assert caught.value.code == CODES[kind]
    with pytest.raises(InvalidToken) as caught:
        validator.validate(LocalIDPorten(clock).token(RESOURCE, iss=local_ansattporten.issuer))
    assert caught.value.code == "unknown_key"


def test_bad_tokens(
    local_tokenx: LocalTokenX, local_maskinporten: LocalMaskinporten, local_idporten: LocalIDPorten
) -> None:
    """Each kind is rejected for its own reason, by a validator that accepts the good one."""
    for validator, good, bad in (
        (local_tokenx.validator(API), local_tokenx.token(WEB, API), _all(local_tokenx, WEB, API)),
        (local_maskinporten.validator(), local_maskinporten.token(SCOPE), _all(local_maskinporten, SCOPE)),
        (local_idporten.validator(RESOURCE), local_idporten.token(RESOURCE), _all(local_idporten, RESOURCE)),
    ):
        validator.validate(good)
        for kind, token in bad.items():
            with pytest.raises(InvalidToken) as caught:
                validator.validate(token)
            assert caught.value.code == CODES[kind]
    assert _all(local_tokenx, WEB, API).keys() == CODES.keys()
    # Any audience passes where it is not checked.
    assert _all(local_maskinporten, SCOPE).keys() == CODES.keys() - {"wrong_audience"}
    other = local_maskinporten.token.wrong_audience(SCOPE)
    assert local_maskinporten.validator().validate(other)["aud"] != RESOURCE


def _all(provider: Any, *arguments: str) -> dict[str, str]:
    return {kind: make(*arguments) for kind, make in provider.token.each_bad().items()}


def test_one_validator_for_several(
    clock: Clock,
    local_tokenx: LocalTokenX,
    local_maskinporten: LocalMaskinporten,
    local_idporten: LocalIDPorten,
) -> None:
    """Each provider's tokens are verified with its own key and for its own audience, at one clock."""
    validator = Validator(
        issuers=[
            local_tokenx.accept(API),
            local_maskinporten.accept(),
            local_idporten.accept(RESOURCE),
        ],
        clock=clock,
    )
    tokens = [local_tokenx.token(WEB, API), local_maskinporten.token(SCOPE), local_idporten.token(RESOURCE)]
    assert [validator.validate(token)["iss"] for token in tokens] == [
        local_tokenx.issuer,
        local_maskinporten.issuer,
        local_idporten.issuer,
    ]
    for forged in (
        local_tokenx.token(WEB, API, iss=local_maskinporten.issuer),
        local_maskinporten.token(SCOPE, iss=local_tokenx.issuer, aud=API),
    ):
        with pytest.raises(InvalidToken) as caught:
            validator.validate(forged)
        assert caught.value.code == "unknown_key"
    with pytest.raises(InvalidToken) as swapped:
        validator.validate(local_tokenx.token(WEB, RESOURCE))
    assert swapped.value.code == "wrong_audience"
    clock.advance(1000)
    assert [type(result) for result in validator.validate_many(tokens)] == [InvalidToken] * 3


def test_a_provider_with_a_clock_of_its_own() -> None:
    """Without the plugin, for unittest."""
    tokenx = LocalTokenX()
    tokenx.clock.set(1_000_000.0)
    token = tokenx.token(WEB, API)
    assert unverified_claims(token)["iat"] == 1_000_000
    assert tokenx.validator(ANY_AUDIENCE, max_age=60).validate(token)["aud"] == API
    tokenx.clock.advance(901 + 60)
    with pytest.raises(InvalidToken):
        tokenx.validator(API).validate(token)
