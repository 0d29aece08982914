"""What tokens of TokenX, Maskinporten and ID-porten say, and what a service can require of it.

Each case is asked of both classes of claims: of verified ones, which are native, and of those that a sidecar
has verified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from entra_fast import Claims, challenge
from entra_fast._assurance import LEVELS
from entra_fast._claims import ClaimsView
from entra_fast.errors import Forbidden, StepUpRequired
from entra_fast.require import Require
from entra_fast.validate import Validator
from support.tokens import AUDIENCE, NOW, TENANT, jwks, signer

ORGANISATION: Final = {"authority": "iso6523-actorid-upis", "ID": "0192:310000019"}
SUPPLIER: Final = {"authority": "iso6523-actorid-upis", "ID": "0192:310000027"}

TOKENX: Final[dict[str, Any]] = {
    "iss": "https://tokenx.dev-gcp.nav.cloud.nais.io",
    "sub": "p3xU",
    "pid": "17858549949",
    "acr": "Level4",
    "amr": ["TestID"],
    "idp": "https://test.idporten.no",
    "client_id": "dev-gcp:team:web",
}
MASKINPORTEN: Final[dict[str, Any]] = {
    "iss": "https://test.maskinporten.no/",
    "client_id": "5b8ad8d4-8c5b-4f0e-8b4b-0d6f0d6f0d6f",
    "client_amr": "private_key_jwt",
    "token_type": "Bearer",
    "scope": "nav:helse/x.read nav:helse/x.write",
    "consumer": ORGANISATION,
}
ID_PORTEN: Final[dict[str, Any]] = {
    "iss": "https://test.idporten.no",
    "sub": "pairwise",
    "pid": "17858549949",
    "acr": "idporten-loa-substantial",
    "client_id": "platform",
    "client_amr": "private_key_jwt",
    "scope": "openid profile",
    "consumer": ORGANISATION,
}
ID_TOKEN_OF_ID_PORTEN: Final[dict[str, Any]] = {
    "iss": "https://test.idporten.no",
    "sub": "pairwise",
    "pid": "17858549949",
    "acr": "idporten-loa-high",
    "amr": ["TestID"],
    "auth_time": 1,
    "nonce": "n",
    "locale": "nb",
    "sid": "s",
}
ENTRA_ID: Final[dict[str, Any]] = {"iss": "https://entra.test/v2.0", "tid": TENANT, "azp": "client"}


def verified(claims: Mapping[str, Any]) -> Claims:
    """The claims of a token that has just these, with an audience and times."""
    content = {"aud": AUDIENCE, "iat": NOW, "exp": NOW + 900, **claims}
    own = Validator(content["iss"], AUDIENCE, jwks=jwks(signer()), clock=lambda: NOW)
    return own.validate(signer().token(content))


def both(**claims: Any) -> list[Any]:
    """The same claims, verified by this process and by a sidecar."""
    native = verified({"iss": "https://issuer.test", **claims})
    return [native, ClaimsView(native.as_json())]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (TOKENX, {"pid": "17858549949", "acr": "Level4", "authorized_party": "dev-gcp:team:web"}),
        (TOKENX, {"scopes": (), "consumer_orgno": None, "authorization_details": ()}),
        (TOKENX, {"is_app": False, "is_user": False}),
        (MASKINPORTEN, {"scopes": ("nav:helse/x.read", "nav:helse/x.write"), "consumer_orgno": "310000019"}),
        (MASKINPORTEN, {"supplier_orgno": None, "pid": None, "acr": None, "is_app": False, "is_user": False}),
        (MASKINPORTEN | {"supplier": SUPPLIER}, {"supplier_orgno": "310000027"}),
        (ID_PORTEN, {"authorized_party": "platform", "acr": "idporten-loa-substantial", "is_user": False}),
        (ENTRA_ID | {"idtyp": "app"}, {"is_app": True, "is_user": False}),
        (ENTRA_ID | {"scp": "a b"}, {"is_app": False, "is_user": True, "scopes": ("a", "b")}),
        (ENTRA_ID | {"scp": ["a"]}, {"is_app": False, "is_user": False, "scopes": ()}),
        (ENTRA_ID | {"scope": "a"}, {"scopes": ()}),
        (ENTRA_ID | {"client_id": "other"}, {"authorized_party": "client"}),
        ({"azp": None, "appid": "v1", "client_id": "x"}, {"authorized_party": "v1"}),
        ({"scp": "a", "scope": "b"}, {"scopes": ("a",)}),
        ({"scp": None, "tid": None, "scope": "a"}, {"scopes": ("a",), "is_user": False}),
        ({"pid": 17858549949, "acr": ["Level4"], "client_id": 7}, {"pid": None, "acr": None}),
        ({"client_id": 7}, {"authorized_party": None}),
        (
            {"authorization_details": [{"type": "x", "n": [1]}, "y"]},
            {"authorization_details": ({"type": "x", "n": [1]},)},
        ),
        ({"authorization_details": {"type": "x"}}, {"authorization_details": ()}),
    ],
    ids=repr,
)
def test_what_a_token_says(claims: dict[str, Any], expected: dict[str, Any]) -> None:
    """The helpers give what each provider writes, and nothing where it cannot be told."""
    for one in both(**claims):
        assert {name: getattr(one, name) for name in expected} == expected


@pytest.mark.parametrize(
    "claim",
    [
        "0192:310000019",
        ["0192:310000019"],
        {"ID": "0192:310000019"},
        {"authority": "iso6523-actorid-upis"},
        {"authority": "other", "ID": "0192:310000019"},
        {"authority": "iso6523-actorid-upis", "ID": "0193:310000019"},
        {"authority": "iso6523-actorid-upis", "ID": "310000019"},
        {"authority": "iso6523-actorid-upis", "ID": "0192:31000001"},
        {"authority": "iso6523-actorid-upis", "ID": "0192:3100000199"},
        {"authority": "iso6523-actorid-upis", "ID": "0192:310000019\n"},
        {"authority": "iso6523-actorid-upis", "ID": "0192:٣10000019"},
        {"authority": "iso6523-actorid-upis", "ID": 310000019},
        None,
    ],
    ids=repr,
)
def test_an_organization_has_one_spelling(claim: Any) -> None:
    """A consumer in any other form has no number, and meets no requirement."""
    for one in both(client_id="c", consumer=claim, supplier=claim):
        assert (one.consumer_orgno, one.supplier_orgno) == (None, None)
        with pytest.raises(Forbidden) as caught:
            one.require(consumer_orgno="310000019")
        assert caught.value.code == "consumer_required"


def test_details_are_copies() -> None:
    """Nothing that a caller does to an object reaches the next one."""
    for one in both(authorization_details=[{"type": "x", "list": []}]):
        one.authorization_details[0]["list"].append(1)
        assert one.authorization_details == ({"type": "x", "list": []},)


@pytest.mark.parametrize(
    ("acr", "reached"),
    [
        ("idporten-loa-low", {"idporten-loa-low"}),
        ("Level3", {"idporten-loa-low", "idporten-loa-substantial", "Level3"}),
        ("idporten-loa-substantial", {"idporten-loa-low", "idporten-loa-substantial", "Level3"}),
        ("idporten-loa-high", {name for name in LEVELS if name.startswith(("idporten", "Level"))}),
        ("Level4", {name for name in LEVELS if name.startswith(("idporten", "Level"))}),
        ("eidas-loa-substantial", {"eidas-loa-low", "eidas-loa-substantial"}),
        ("high", {"low", "substantial", "high"}),
        ("level4", set()),
        ("", set()),
        (4, set()),
        (["Level4"], set()),
        (None, set()),
    ],
    # Not the sets, whose order differs from process to process.
    ids=lambda value: "" if isinstance(value, set) else repr(value),
)
def test_levels_of_assurance(acr: Any, reached: set[str]) -> None:
    """Both spellings of a level are equal, a higher level reaches a lower one, and levels of different
    providers do not compare."""
    for one in both(client_id="c", acr=acr):
        assert {level for level in LEVELS if one.acr_at_least(level)} == reached
        required = {level: _outcome(one, Require(acr_at_least=level)) for level in LEVELS}
        assert required == {level: "ok" if level in reached else "acr_too_low" for level in LEVELS}


def _outcome(claims: Any, requirement: Require) -> str:
    """`ok`, or the code that the claims are refused with."""
    try:
        claims.require(requirement)
    except Forbidden as error:
        return error.code
    return "ok"


@pytest.mark.parametrize(
    ("level", "kind"), [("Level5", ValueError), ("", ValueError), (None, TypeError), (4, TypeError)]
)
def test_a_level_that_does_not_exist(level: Any, kind: type[Exception]) -> None:
    """A misspelled level is a mistake, not a level that everybody or nobody reaches."""
    for one in both(acr="Level4"):
        with pytest.raises(kind, match="acr_at_least"):
            one.acr_at_least(level)


@pytest.mark.parametrize(
    ("requirement", "claims", "expected"),
    [
        (Require.any_token(), TOKENX, "ok"),
        (Require.any_token(), MASKINPORTEN, "ok"),
        (Require.any_token(), ID_PORTEN, "ok"),
        (Require.any_token(), ID_TOKEN_OF_ID_PORTEN, "access_token_required"),
        (Require(client="dev-gcp:team:web"), TOKENX, "ok"),
        (Require(client="dev-gcp:team:other"), TOKENX, "client_required"),
        (Require(client="dev-gcp:team:we"), TOKENX, "client_required"),
        (Require(client="client"), ENTRA_ID | {"scp": "a"}, "ok"),
        (Require(client="x"), ENTRA_ID | {"scp": "a", "client_id": "x"}, "client_required"),
        (Require(client="x"), ENTRA_ID | {"scp": "a", "azp": None}, "client_required"),
        (Require(scope="nav:helse/x.read"), MASKINPORTEN, "ok"),
        (Require(scope="nav:helse/x"), MASKINPORTEN, "scope_missing"),
        (Require(scope="nav:helse/x.read", consumer_orgno="310000019"), MASKINPORTEN, "ok"),
        (Require(consumer_orgno="310000027"), MASKINPORTEN, "consumer_required"),
        # The customer counts, not the supplier who acts.
        (Require(consumer_orgno="310000019"), MASKINPORTEN | {"supplier": SUPPLIER}, "ok"),
        (Require(consumer_orgno="310000027"), MASKINPORTEN | {"supplier": SUPPLIER}, "consumer_required"),
        (Require(consumer_orgno="310000019") | Require(consumer_orgno="310000027"), MASKINPORTEN, "ok"),
        (Require(issuer="https://test.maskinporten.no/", scope="nav:helse/x.read"), MASKINPORTEN, "ok"),
        (Require(issuer="https://test.maskinporten.no"), MASKINPORTEN, "issuer_required"),
        (Require(issuer="https://test.idporten.no", acr_at_least="Level3"), ID_PORTEN, "ok"),
        (Require(issuer="https://test.idporten.no", acr_at_least="Level3"), TOKENX, "issuer_required"),
        (Require(acr_at_least="idporten-loa-high"), ID_PORTEN, "acr_too_low"),
        # It is not known whose tokens these are.
        (Require(app=True), MASKINPORTEN, "app_required"),
        (Require(user=True), TOKENX, "user_required"),
        (Require(user=True), ID_PORTEN, "user_required"),
        # The order in which conditions are reported.
        (
            Require(issuer="https://x.test", client="x", consumer_orgno="000000000", role="x"),
            TOKENX,
            "issuer_required",
        ),
        (Require(client="x", consumer_orgno="000000000", role="x"), TOKENX, "client_required"),
        (Require(consumer_orgno="000000000", role="x"), TOKENX, "consumer_required"),
    ],
    ids=repr,
)
def test_what_a_service_can_require(requirement: Require, claims: dict[str, Any], expected: str) -> None:
    """Clients, organizations, issuers and levels, besides scopes."""
    for one in both(**claims):
        assert _outcome(one, requirement) == expected


@pytest.mark.parametrize(
    ("requirement", "claims", "text"),
    [
        (Require(client="c:n:a"), TOKENX, "needs client 'c:n:a'; this token does not have it"),
        (
            Require(consumer_orgno="310000027", scope="s"),
            MASKINPORTEN,
            "needs consumer organization '310000027' and scope 's'; "
            "this token lacks consumer organization '310000027'",
        ),
        (
            Require(issuer="https://i.test", client="c"),
            TOKENX,
            "needs issuer 'https://i.test' and client 'c'; this token lacks issuer 'https://i.test'",
        ),
        (Require(app=True), MASKINPORTEN, "needs an application's token; this token is not one"),
        (
            Require.any_token(),
            ID_TOKEN_OF_ID_PORTEN,
            "needs an access token; this token has neither client_id nor scope, so it is no access token "
            "(an ID token?)",
        ),
    ],
)
def test_what_a_token_of_another_provider_is_told(
    requirement: Require, claims: dict[str, Any], text: str
) -> None:
    """The sentences name claims that the provider has, and nothing of the token."""
    for one in both(**claims):
        with pytest.raises(Forbidden) as caught:
            one.require(requirement)
        assert caught.value.message == text


def test_the_description_of_a_requirement() -> None:
    """As JSON, for OpenAPI."""
    requirement = Require(issuer="https://i.test", client="c", consumer_orgno="310000019")
    assert requirement.describe()["any_of"] == [
        {"issuer": "https://i.test", "client": "c", "consumer_orgno": "310000019"}
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Require(issuer="https://a.test"), Require(issuer="https://b.test")),
        (Require(client="a"), Require(client="b")),
        (Require(consumer_orgno="310000019"), Require(consumer_orgno="310000027")),
        (Require(acr_at_least="high"), Require(acr_at_least="eidas-loa-high")),
    ],
)
def test_what_no_token_can_have(left: Require, right: Require) -> None:
    """A token has one issuer, one client and one consumer."""
    with pytest.raises(ValueError, match="no token can meet"):
        _ = left & right
    assert left & left == left
    assert (left & Require(role="r")).alternatives[0].roles == ("r",)
    assert Require(role="r") & left == left & Require(role="r")


@pytest.mark.parametrize(
    ("conditions", "kind", "text"),
    [
        ({"client": None}, TypeError, "client is None: is a setting missing"),
        ({"client": ""}, ValueError, "client is empty"),
        ({"client": "a b"}, ValueError, "without spaces"),
        ({"client": ["a", "b"]}, TypeError, "alternatives are"),
        ({"issuer": "maskinporten"}, ValueError, "issuer is the URL in iss"),
        ({"issuer": "https://a.test b"}, ValueError, "issuer is the URL in iss"),
        ({"consumer_orgno": "31000001"}, ValueError, "nine digits"),
        ({"consumer_orgno": "0192:310000019"}, ValueError, "nine digits"),
        ({"consumer_orgno": "31000001\n9"}, ValueError, "nine digits"),
        ({"consumer_orgno": "310000019\n"}, ValueError, "nine digits"),
        ({"consumer_orgno": 310000019}, TypeError, "consumer_orgno is a string"),
    ],
)
def test_mistakes(conditions: dict[str, Any], kind: type[Exception], text: str) -> None:
    """Found when the requirement is made."""
    with pytest.raises(kind, match=text):
        Require(**conditions)


@pytest.mark.parametrize(
    ("level", "asked"),
    [
        ("Level3", "idporten-loa-substantial"),
        ("Level4", "idporten-loa-high"),
        ("idporten-loa-high", "idporten-loa-high"),
        ("substantial", "substantial"),
        ("1", "1"),
    ],
)
def test_a_step_up_asks_in_the_spelling_of_requests(level: str, asked: str) -> None:
    """The challenge of RFC 9470 has the value that the client sends to ID-porten, which knows no `Level4`."""
    for one in both(client_id="c"):
        with pytest.raises(StepUpRequired) as caught:
            one.require(acr_at_least=level)
        value = challenge.for_step_up(caught.value, realm="cases")
        assert value.startswith('Bearer realm="cases", error="insufficient_user_authentication", ')
        assert value.endswith(f', acr_values="{asked}"')


def test_a_step_up_to_a_level_of_somebody_else() -> None:
    """An error that a service raises itself can name any level."""
    error = StepUpRequired("acr_too_low", "sign in again", acr_at_least="urn:example:gold")
    assert challenge.for_step_up(error, realm="r").endswith('acr_values="urn:example:gold"')


def test_the_claims_of_a_sidecar_are_the_same() -> None:
    """Every helper of `Claims` is one of `ClaimsView`, with the same values."""
    names = {name for name in vars(Claims) if not name.startswith("_")}
    assert names - set(dir(ClaimsView)) == set()
    for claims in (TOKENX, MASKINPORTEN, ID_PORTEN, ID_TOKEN_OF_ID_PORTEN, ENTRA_ID):
        native, view = both(**claims)
        for name in sorted(names):
            if not callable(getattr(native, name)):
                assert getattr(native, name) == getattr(view, name), name
        assert json.loads(native.as_json()) == view.as_dict()
