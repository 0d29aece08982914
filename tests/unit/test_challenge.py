"""`WWW-Authenticate` for bearer tokens, read back by a parser of another library, and kept free of
injection."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import WWWAuthenticate

from entra_fast import challenge
from entra_fast.errors import StepUpRequired


def read(value: str) -> dict[str, str | None]:
    """The parameters, as werkzeug reads them."""
    assert value.isascii()
    assert value.isprintable()
    parsed = WWWAuthenticate.from_header(value)
    assert parsed is not None
    assert parsed.type == "bearer"
    return dict(parsed.parameters)


def test_a_challenge_without_an_error() -> None:
    """Where no token came there is no error code (RFC 6750, section 3.1), but a parameter (section 3)."""
    assert challenge.bearer(realm="cases") == 'Bearer realm="cases"'


def test_all_parameters() -> None:
    """In this order, each quoted."""
    value = challenge.bearer(
        realm="cases",
        error="insufficient_scope",
        description='needs "x" \\ y',
        scope=["api://app/cases.read", "api://app/cases.write"],
        authorization_uri="https://login.example/authorize",
        claims={"access_token": {"acrs": {"essential": True, "value": "c1"}}},
        resource_metadata="https://api.example/.well-known/oauth-protected-resource",
    )
    assert value.startswith('Bearer realm="cases", error="insufficient_scope", error_description="needs ')
    found = read(value)
    assert found["error_description"] == "needs 'x' / y"
    assert found["scope"] == "api://app/cases.read api://app/cases.write"
    assert json.loads(base64.b64decode(found["claims"] or "", validate=True)) == {
        "access_token": {"acrs": {"essential": True, "value": "c1"}}
    }
    assert found["resource_metadata"] == "https://api.example/.well-known/oauth-protected-resource"


def test_claims_as_text_are_kept_as_they_are() -> None:
    """A challenge that another API sent is passed on byte by byte."""
    text = '{"access_token": {"nbf":{"essential":true, "value":"1604106651"}}}'
    assert base64.b64decode(read(challenge.bearer(realm="r", claims=text))["claims"] or "") == text.encode()


def test_a_step_up_by_authentication_context() -> None:
    """Entra ID: `insufficient_claims`, with what the client passes to the provider."""
    error = StepUpRequired("auth_context_missing", "needs authentication context 'c1'", auth_contexts=("c1",))
    found = read(challenge.for_step_up(error, realm="r", authorization_uri="https://login.example/authorize"))
    assert found["error"] == "insufficient_claims"
    assert found["authorization_uri"] == "https://login.example/authorize"
    assert json.loads(base64.b64decode(found["claims"] or "")) == {
        "access_token": {"acrs": {"essential": True, "value": "c1"}}
    }
    assert challenge.claims_for_auth_contexts(["c1", "c2"])["access_token"]["acrs"]["values"] == ["c1", "c2"]


def test_a_step_up_by_level() -> None:
    """RFC 9470, section 3."""
    error = StepUpRequired("acr_too_low", "needs more", acr_at_least="idporten-loa-high")
    found = read(challenge.for_step_up(error, realm="r"))
    assert found["error"] == "insufficient_user_authentication"
    assert found["acr_values"] == "idporten-loa-high"
    assert "claims" not in found


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"realm": ""}, ValueError),
        ({"realm": 'a"b'}, ValueError),
        ({"realm": "a\\"}, ValueError),
        ({"realm": "a\r\nSet-Cookie: x=1"}, ValueError),
        ({"realm": "rålm"}, ValueError),
        ({"realm": None}, TypeError),
        ({"realm": b"r"}, TypeError),
        ({"realm": "r", "error": "x\n"}, ValueError),
        ({"realm": "r", "scope": "cases.read"}, TypeError),
        ({"realm": "r", "scope": ["a b"]}, ValueError),
        ({"realm": "r", "scope": ['a"']}, ValueError),
        ({"realm": "r", "scope": [None]}, TypeError),
        ({"realm": "r", "authorization_uri": "javascript:alert(1)"}, ValueError),
        ({"realm": "r", "authorization_uri": 'https://a/"'}, ValueError),
        ({"realm": "r", "authorization_uri": 1}, TypeError),
        ({"realm": "r", "claims": "[]"}, ValueError),
        ({"realm": "r", "claims": "no JSON"}, ValueError),
        ({"realm": "r", "claims": 1}, TypeError),
        ({"realm": "r", "claims": {"x": "y" * 5000}}, ValueError),
        ({"realm": "r", "description": b"x"}, TypeError),
    ],
)
def test_what_cannot_stand_in_a_challenge(arguments: dict[str, Any], kind: type[Exception]) -> None:
    """What the service names itself is refused where it is wrong."""
    with pytest.raises(kind):
        challenge.bearer(**arguments)


def test_a_realm_is_checked_when_a_service_starts() -> None:
    """By the same rule."""
    assert challenge.check_realm("cases") == "cases"
    with pytest.raises(ValueError, match="realm"):
        challenge.check_realm("")


@given(st.text(max_size=700))
def test_a_description_injects_nothing(text: str) -> None:
    """Whatever an error says, it stays within its quotes and the header, in ASCII."""
    found = read(challenge.bearer(realm="r", error="invalid_token", description=f"x{text}"))
    assert set(found) == {"realm", "error", "error_description"}
    assert len(found["error_description"] or "") <= challenge.MAX_DESCRIPTION
