"""Requirements: what can be required, what a token that fails is told, and mistakes that must not go
unnoticed."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

import entra_fast
from entra_fast.errors import Forbidden, StepUpRequired
from entra_fast.require import MAX_ALTERNATIVES, Require
from support.tokens import ABSENT, TENANT, signer, validator

GROUP = "aaaaaaaa-0000-0000-0000-000000000001"
OTHER = "bbbbbbbb-0000-0000-0000-000000000002"

APP: dict[str, Any] = {"idtyp": "app", "roles": ["reader"]}
USER: dict[str, Any] = {"idtyp": ABSENT, "roles": ABSENT, "scp": "cases.read cases.write"}
ID_TOKEN: dict[str, Any] = {"idtyp": ABSENT, "roles": ABSENT, "nonce": "n"}
TOKENX: dict[str, Any] = {
    "idtyp": ABSENT,
    "roles": ABSENT,
    "tid": ABSENT,
    "azp": ABSENT,
    "client_id": "c:n:a",
}


def outcome(requirement: Require, **claims: Any) -> str:
    """`ok`, or the code that a verified token is refused with."""
    try:
        requirement.check(validator().validate(signer().token(**claims)))
    except Forbidden as error:
        return error.code
    return "ok"


def sentence(requirement: Require, **claims: Any) -> str:
    with pytest.raises(Forbidden) as caught:
        requirement.check(validator().validate(signer().token(**claims)))
    return caught.value.message


@pytest.mark.parametrize(
    ("requirement", "claims", "expected"),
    [
        (Require.any_token(), APP, "ok"),
        (Require.any_token(), USER, "ok"),
        (Require.any_token(), USER | {"scp": ABSENT, "roles": ["admin"]}, "ok"),
        (Require.any_token(), USER | {"scp": ABSENT, "idtyp": "user"}, "ok"),
        (Require.any_token(), ID_TOKEN, "access_token_required"),
        (Require.any_token(), ID_TOKEN | {"scp": ""}, "access_token_required"),
        (Require.any_token(), ID_TOKEN | {"scp": " "}, "access_token_required"),
        (Require.any_token(), ID_TOKEN | {"roles": []}, "access_token_required"),
        (Require.any_token(), ID_TOKEN | {"roles": "reader", "idtyp": ["app"]}, "access_token_required"),
        # RFC 9068, section 2.2. An ID token of Entra ID has no client_id, and a tid does not go with it.
        (Require.any_token(), TOKENX, "ok"),
        (Require.any_token(), TOKENX | {"tid": TENANT}, "access_token_required"),
        (Require.any_token(), TOKENX | {"client_id": ABSENT}, "access_token_required"),
        (Require(app=True), APP, "ok"),
        (Require(app=True), USER, "app_required"),
        (Require(app=True), USER | {"scp": ABSENT, "roles": ["reader"]}, "app_required"),
        (Require(user=True), USER, "ok"),
        (Require(user=True), USER | {"idtyp": "user"}, "ok"),
        (Require(user=True), APP, "user_required"),
        (Require(user=True), APP | {"scp": "cases.read"}, "user_required"),
        (Require(user=True), USER | {"scp": ABSENT, "roles": ["reader"]}, "user_required"),
        (Require(role="reader"), APP, "ok"),
        (Require(role="reader"), USER | {"roles": ["reader"]}, "ok"),
        (Require(role="reader"), APP | {"roles": ["Reader", "reader2"]}, "role_missing"),
        (Require(role="reader"), APP | {"roles": "reader"}, "role_missing"),
        (Require(role="a"), USER | {"roles": "reader"}, "role_missing"),
        (Require(scope="cases.read"), USER, "ok"),
        (Require(scope="cases"), USER, "scope_missing"),
        (Require(scope="cases.read"), USER | {"scp": ["cases.read"], "roles": ["x"]}, "scope_missing"),
        (Require(scope="cases.read"), APP, "scope_missing"),
        (Require(scope="nav:helse/a.read"), TOKENX | {"scope": "x nav:helse/a.read"}, "ok"),
        (Require(scope="cases.read"), USER | {"scp": "x", "scope": "cases.read"}, "scope_missing"),
        (Require(group=GROUP), USER | {"groups": [OTHER, GROUP]}, "ok"),
        (Require(group=GROUP.upper()), USER | {"groups": [GROUP]}, "ok"),
        (Require(group=GROUP), USER | {"groups": [GROUP.upper()]}, "ok"),
        (Require(group=GROUP), USER | {"groups": [OTHER]}, "group_missing"),
        (Require(group=GROUP), USER, "group_missing"),
        (Require(group=GROUP), USER | {"hasgroups": True}, "groups_overage"),
        (Require(group=GROUP), USER | {"_claim_names": {"groups": "src1"}}, "groups_overage"),
        (Require(group=GROUP) | Require(scope="cases.read"), USER | {"hasgroups": True}, "ok"),
        (Require(tenant=TENANT), APP, "ok"),
        (Require(tenant=TENANT.upper()), APP, "ok"),
        (Require(tenant=OTHER), APP, "tenant_required"),
        (Require(tenant=OTHER), APP | {"tid": ABSENT}, "tenant_required"),
        (Require(acr_at_least="Level3"), TOKENX | {"acr": "idporten-loa-high"}, "ok"),
        (Require(acr_at_least="idporten-loa-high"), TOKENX | {"acr": "Level4"}, "ok"),
        (
            Require(acr_at_least="idporten-loa-high"),
            TOKENX | {"acr": "idporten-loa-substantial"},
            "acr_too_low",
        ),
        (Require(acr_at_least="high"), TOKENX | {"acr": "idporten-loa-high"}, "acr_too_low"),
        (Require(acr_at_least="high"), TOKENX | {"acr": ["high"]}, "acr_too_low"),
        (Require(acr_at_least="high"), TOKENX | {"acr": "constructor"}, "acr_too_low"),
        (Require(acr_at_least="high"), TOKENX, "acr_too_low"),
        (Require(auth_context="c1"), USER | {"acrs": ["c1", "c2"]}, "ok"),
        (Require(auth_context="c1"), USER | {"acrs": ["c11"]}, "auth_context_missing"),
        (Require(auth_context="c1"), USER | {"acrs": "c1"}, "auth_context_missing"),
        (Require(user=True, scope="cases.read", group=GROUP), USER | {"groups": [GROUP]}, "ok"),
        (Require(app=True, role="reader"), APP, "ok"),
        (Require(app=True, role="writer"), USER, "app_required"),  # the kind first
        (Require(role="writer", group=GROUP), USER, "role_missing"),  # then the role
        (Require(any_of=[Require(role="x"), Require(scope="cases.read")]), USER, "ok"),
        (Require(any_of=[Require(role="x"), Require(scope="y")]), USER, "role_missing"),
        (Require(tenant=OTHER, any_of=[Require(role="reader")]), APP, "tenant_required"),
        (Require(role="reader") & Require(tenant=TENANT), APP, "ok"),
        (Require(role="reader") & Require(role="writer"), APP, "role_missing"),
        # The nearest alternative is reported, and a step-up is nearest: the user can mend it.
        (Require(scope="x", group=GROUP) | Require(role="writer"), APP, "role_missing"),
        (Require(role="x") | Require(auth_context="c1"), USER, "auth_context_missing"),
        (Require(scope="x") | Require(app=True, role="writer"), APP, "role_missing"),
    ],
)
def test_what_a_token_must_have(requirement: Require, claims: dict[str, Any], expected: str) -> None:
    """A condition holds by the claim of its own, of the expected type; ID tokens meet no requirement."""
    assert outcome(requirement, **claims) == expected


@pytest.mark.parametrize(
    ("requirement", "text"),
    [
        (Require.any_token(), "needs an access token"),
        (
            Require(role="case-reader") | Require(scope="cases.read"),
            "needs role 'case-reader' or scope 'cases.read'",
        ),
        (Require(role="a", scope="b"), "needs role 'a' and scope 'b'"),
        (Require(app=True), "needs an application's token"),
        (
            Require(scope="cases.read") | Require(app=True, role="reader"),
            "needs scope 'cases.read', or an application's token with role 'reader'",
        ),
        (Require(user=True, group=GROUP), f"needs a user's token with group '{GROUP}'"),
        (Require(tenant=TENANT), f"needs tenant '{TENANT}'"),
        (Require(acr_at_least="Level4"), "needs at least authentication level 'Level4'"),
        (Require(auth_context="c2"), "needs authentication context 'c2'"),
        (Require(role="a") | Require(role="b") | Require(role="a"), "needs role 'a' or role 'b'"),
        (Require(role="a") | Require.any_token(), "needs an access token"),
    ],
)
def test_a_requirement_can_be_read(requirement: Require, text: str) -> None:
    """In logs, OpenAPI and errors it is a sentence."""
    assert str(requirement) == text
    assert repr(requirement) == f"<Require: {text}>"
    assert requirement.describe()["needs"] == text
    json.dumps(requirement.describe())


def test_the_description_for_openapi() -> None:
    """The alternatives with their conditions; what is not required is left out."""
    requirement = Require(scope="cases.read") | Require(app=True, role="reader")
    assert requirement.describe()["any_of"] == [
        {"scopes": ["cases.read"]},
        {"kind": "app", "roles": ["reader"]},
    ]


@pytest.mark.parametrize(
    ("requirement", "claims", "ending"),
    [
        (Require(role="x") | Require(scope="y"), APP, "this application's token has neither"),
        (
            Require(role="x") | Require(scope="y") | Require(role="z"),
            APP,
            "this application's token has none of them",
        ),
        (Require(role="x"), USER, "this user's token does not have it"),
        (Require(app=True), USER, "this user's token is not one"),
        (Require(app=True, role="x"), APP, "this application's token lacks role 'x'"),
        (
            Require(user=True),
            USER | {"scp": ABSENT, "roles": ["r"]},
            "with neither scp nor idtyp 'app', is not one",
        ),
        (
            Require(group=GROUP),
            USER | {"hasgroups": True},
            "leaves its groups out because there are too many",
        ),
        (Require(role="x"), ID_TOKEN, "so it is no access token (an ID token?)"),
    ],
)
def test_a_refusal_says_what_is_needed(requirement: Require, claims: dict[str, Any], ending: str) -> None:
    """First what is needed, then what the token lacks; nothing of the token is repeated."""
    message = sentence(requirement, **claims)
    assert message.startswith(f"{requirement}; this ")
    assert message.endswith(ending)
    for secret in ("reader", "cases.write"):
        assert secret not in message


def test_a_step_up_says_how_to_sign_in() -> None:
    """Where only the level of authentication is missing, the error has what the challenge needs."""
    user = validator().validate(signer().token(**USER))
    with pytest.raises(StepUpRequired) as caught:
        (Require(auth_context="c1") & Require(auth_context="c3")).check(user)
    assert caught.value.auth_contexts == ("c1", "c3")
    with pytest.raises(StepUpRequired) as level:
        Require(scope="cases.read", acr_at_least="Level4").check(user)
    assert (level.value.code, level.value.acr_at_least) == ("acr_too_low", "Level4")
    assert pickle.loads(pickle.dumps(caught.value)).auth_contexts == ("c1", "c3")
    with pytest.raises(Forbidden) as both:
        Require(scope="x", acr_at_least="Level4").check(user)
    assert not isinstance(both.value, StepUpRequired)


MISTAKES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, TypeError, "name a condition"),
    ({"rol": "x"}, TypeError, "there is no condition 'rol'"),
    ({"role": None}, TypeError, "role is None: is a setting missing"),
    ({"role": None, "scope": "x"}, TypeError, "role is None"),
    ({"app": None}, TypeError, "app is None"),
    ({"any_of": None}, TypeError, "any_of is None"),
    ({"role": ""}, ValueError, "role is empty"),
    ({"role": "a b"}, ValueError, "without spaces"),
    ({"scope": " cases.read"}, ValueError, "without spaces"),
    ({"scope": "cases.read\n"}, ValueError, "printable ASCII"),
    ({"role": "rôle"}, ValueError, "printable ASCII"),
    ({"role": 'a"b'}, ValueError, "printable ASCII"),
    ({"role": "a\\b"}, ValueError, "printable ASCII"),
    ({"role": "a" * 257}, ValueError, "at most 256"),
    ({"role": ["a", "b"]}, TypeError, "alternatives are"),
    ({"role": 7}, TypeError, "role is a string, not int"),
    ({"role": b"a"}, TypeError, "role is a string, not bytes"),
    ({"scope": "api://app/cases.read"}, ValueError, "without the URI"),
    ({"scope": "https://graph.example/User.Read"}, ValueError, "without the URI"),
    ({"group": "admins"}, ValueError, "a GUID, not a name"),
    ({"group": GROUP + "\n"}, ValueError, "a GUID"),
    ({"tenant": "nav.no"}, ValueError, "a GUID, not a name"),
    ({"app": False}, ValueError, "can only be True"),
    ({"app": 1}, TypeError, "can only be True"),
    ({"user": "yes"}, TypeError, "can only be True"),
    ({"app": True, "user": True}, ValueError, "exclude each other"),
    ({"app": True, "scope": "x"}, ValueError, "exclude each other"),
    ({"app": True, "group": GROUP}, ValueError, "exclude each other"),
    ({"acr_at_least": "Level5"}, ValueError, "is one of"),
    ({"acr_at_least": 4}, TypeError, "is a string"),
    ({"auth_context": "c0"}, ValueError, "c1 to c99"),
    ({"auth_context": "c100"}, ValueError, "c1 to c99"),
    ({"any_of": []}, ValueError, "any_of is empty"),
    ({"any_of": "role"}, TypeError, "a list of requirements"),
    ({"any_of": ["role"]}, TypeError, "not of str"),
    ({"any_of": {"role": "x"}}, TypeError, "a list of requirements"),
    ({"any_of": Require(role="x")}, TypeError, "a list of requirements"),
    ({"any_of": [Require(role=str(n)) for n in range(65)]}, ValueError, "at most 64"),
    ({"app": True, "any_of": [Require(scope="x"), Require(user=True)]}, ValueError, "no token can meet"),
]


@pytest.mark.parametrize(("conditions", "kind", "text"), MISTAKES)
def test_mistakes_are_found_at_construction(
    conditions: dict[str, Any], kind: type[Exception], text: str
) -> None:
    """A wrong type, a missing setting, an empty list: none of them may end as a door that stands open."""
    with pytest.raises(kind, match=text):
        Require(**conditions)
    claims = validator().validate(signer().token())
    with pytest.raises(kind, match=text):
        claims.require(**conditions)


def test_no_positional_conditions() -> None:
    """`Require("reader")` does not say what a reader is."""
    make: Any = Require
    with pytest.raises(TypeError):
        make("reader")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Require(app=True), Require(user=True)),
        (Require(app=True), Require(scope="x")),
        (Require(tenant=TENANT), Require(tenant=OTHER)),
        (Require(acr_at_least="high"), Require(acr_at_least="Level4")),
    ],
)
def test_what_no_token_can_meet(left: Require, right: Require) -> None:
    """A contradiction is a mistake, unless another alternative is left."""
    with pytest.raises(ValueError, match="no token can meet"):
        _ = left & right
    assert (left | Require(role="r")) & right == Require(role="r") & right


def test_combinations() -> None:
    """`&` distributes over `|`, a level of authentication takes the higher, and doubles count once."""
    reader, writer, user = Require(role="reader"), Require(role="writer"), Require(user=True)
    assert (reader | writer) & user == (reader & user) | (writer & user)
    assert Require(acr_at_least="Level3") & Require(acr_at_least="Level4") == Require(acr_at_least="Level4")
    assert reader | reader == reader == reader & reader
    assert reader & Require.any_token() == reader
    assert hash(reader | writer) == hash(Require(any_of=[reader, writer]))
    assert len({reader, Require(role="reader"), writer}) == 2
    many = Require(any_of=[Require(role=f"r{n}") for n in range(9)])
    assert len(many.alternatives) <= MAX_ALTERNATIVES
    assert many != "needs role 'r0'"
    with pytest.raises(ValueError, match="at most 64"):
        _ = many | Require(any_of=[Require(scope=f"s{n}") for n in range(60)])
    with pytest.raises(ValueError, match="at most 64"):
        _ = many & Require(any_of=[Require(scope=f"s{n}") for n in range(9)])


@pytest.mark.parametrize("other", ["role", None, True, {"role": "x"}])
def test_only_requirements_combine(other: Any) -> None:
    """`Require(...) | None` is a mistake and not an open door."""
    with pytest.raises(TypeError):
        _ = Require(role="x") | other
    with pytest.raises(TypeError):
        _ = Require(role="x") & other


def test_a_requirement_is_neither_true_nor_false() -> None:
    """`a or b` would silently be `a`."""
    with pytest.raises(TypeError, match="combine by"):
        _ = Require(role="a") or Require(role="b")
    with pytest.raises(TypeError, match="combine by"):
        _ = not Require(role="a")


def test_a_requirement_cannot_be_changed() -> None:
    """It may be shared by all routes and threads; a copy is the same, and it can be pickled."""
    requirement = Require(role="a")
    with pytest.raises(AttributeError):
        requirement._alternatives = ()
    with pytest.raises(AttributeError):
        del requirement._text
    assert copy.copy(requirement) is copy.deepcopy(requirement) is requirement
    assert pickle.loads(pickle.dumps(requirement)) == requirement
    assert Require is entra_fast.Require


@pytest.mark.parametrize("claims", [None, "token", [("roles", ["reader"])], 7])
def test_only_claims_are_checked(claims: Any) -> None:
    """None, where a token is optional, is no token with everything."""
    with pytest.raises(TypeError, match="check\\(\\) takes the claims"):
        Require.any_token().check(claims)
