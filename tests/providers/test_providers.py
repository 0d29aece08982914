"""Every provider through the sidecar, in each mode, at a provider that was not written here."""

from __future__ import annotations

import json
import subprocess
import time
import uuid

import pytest

from support.keys import Key
from support.node_packages import FOLDER, install_packages

from .conftest import (
    APPLICATION,
    ENTRA_CLIENT,
    EXCHANGE,
    FORM,
    GENERIC,
    GENERIC_AUDIENCE,
    INTROSPECT,
    JSON,
    PROVIDERS,
    SCOPE,
    TOKEN,
    Sidecar,
    payload,
    serving,
    signed_in,
)

BOTH = pytest.mark.parametrize("encoding", [JSON, FORM])
SYSTEM_USER = [
    {
        "type": "urn:altinn:systemuser",
        "systemuser_org": {"authority": "iso6523-actorid-upis", "ID": "0192:310000019"},
    }
]


def new(prefix: str = "api://dev-gcp.team.") -> str:
    """A target that no test has used."""
    return f"{prefix}{uuid.uuid4().hex}"


def of(token: str) -> dict[str, object]:
    """The claims of a token."""
    claims: dict[str, object] = json.loads(payload(token))
    return claims


def verbatim(token: str) -> str:
    """The text of the response for an active token: its claims, untouched."""
    return '{"active":true,' + payload(token).decode()[1:]


# --- tokens ---


@BOTH
def test_entra_id_issues_tokens(sidecar: Sidecar, encoding: str) -> None:
    """Client credentials. Both names of the provider and both spellings of a target share a cached token."""
    name = uuid.uuid4().hex
    target = f"api://dev-gcp.team.{name}/.default"
    first = sidecar.acquired(TOKEN, encoding, identity_provider="entra_id", target=target)
    assert of(first)["asked"] == target
    for provider, same in (("azuread", target), ("entra_id", f"dev-gcp:team:{name}")):
        assert sidecar.acquired(TOKEN, encoding, identity_provider=provider, target=same) == first
    assert sidecar.call(INTROSPECT, encoding, identity_provider="azuread", token=first).text == verbatim(
        first
    )


@BOTH
def test_maskinporten_issues_tokens(sidecar: Sidecar, encoding: str) -> None:
    """The JWT bearer grant; the token has the scope that was asked for, and introspection ignores `aud`."""
    scope = new("nav:helse/")
    first = sidecar.acquired(TOKEN, encoding, identity_provider="maskinporten", target=scope)
    assert of(first)["scope"] == scope
    assert sidecar.acquired(TOKEN, encoding, identity_provider="maskinporten", target=scope) == first
    answer = sidecar.call(INTROSPECT, encoding, identity_provider="maskinporten", token=first)
    assert answer.text == verbatim(first)


@BOTH
@pytest.mark.parametrize(
    "resource", ["https://api.example", ["https://api.example", "https://other.example"]]
)
def test_maskinporten_takes_resources(sidecar: Sidecar, encoding: str, resource: object) -> None:
    """One as a string, or several (RFC 8707): they reach the provider, and a token is cached for each."""
    if encoding == FORM and not isinstance(resource, str):
        pytest.skip("a form has one resource")
    scope = new("nav:helse/")
    plain = sidecar.acquired(TOKEN, encoding, identity_provider="maskinporten", target=scope)
    fields = {"identity_provider": "maskinporten", "target": scope, "resource": resource}
    bound = sidecar.acquired(TOKEN, encoding, **fields)
    assert of(bound)["resource"] in (resource, [resource])
    assert bound != plain
    assert sidecar.acquired(TOKEN, encoding, **fields) == bound


@BOTH
@pytest.mark.parametrize("written", ["array", "string"])
def test_maskinporten_takes_authorization_details(sidecar: Sidecar, encoding: str, written: str) -> None:
    """An array, or the same as a JSON string (RFC 9396): it reaches the provider, and is part of the cache
    key."""
    details = SYSTEM_USER if written == "array" else json.dumps(SYSTEM_USER)
    scope = new("nav:helse/")
    plain = sidecar.acquired(TOKEN, encoding, identity_provider="maskinporten", target=scope)
    fields = {"identity_provider": "maskinporten", "target": scope, "authorization_details": details}
    bound = sidecar.acquired(TOKEN, encoding, **fields)
    assert of(bound)["authorization_details"] == SYSTEM_USER
    assert bound != plain
    assert sidecar.acquired(TOKEN, encoding, **fields) == bound


@pytest.mark.parametrize(
    "details", [{"type": "x"}, '{"type":"x"}', "no JSON", 1, ["x"], '["x"]', [1], "[", True]
)
def test_authorization_details_must_be_an_array_of_objects(sidecar: Sidecar, details: object) -> None:
    """Anything else is refused with the name of the field, and nothing is sent."""
    answer = sidecar.call(
        TOKEN, identity_provider="maskinporten", target=SCOPE, authorization_details=details
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert "authorization_details" in answer.json()["error_description"]


# --- exchanges ---


@BOTH
def test_tokenx_exchanges(sidecar: Sidecar, encoding: str, citizen: str) -> None:
    """RFC 8693: the target is sent as it is, and the user's claims are in the new token."""
    fields = {"identity_provider": "tokenx", "user_token": citizen}
    first = sidecar.acquired(EXCHANGE, encoding, target="dev-gcp:other:api", **fields)
    claims = of(first)
    assert (claims["aud"], claims["sub"]) == ("dev-gcp:other:api", of(citizen)["sub"])
    assert sidecar.acquired(EXCHANGE, encoding, target="dev-gcp:other:api", **fields) == first
    # For another application, it is not valid here.
    wrong = sidecar.introspected("tokenx", first, encoding)
    assert wrong == {"active": False, "error": "token has the wrong audience"}
    own = sidecar.acquired(EXCHANGE, encoding, target=APPLICATION, **fields)
    answer = sidecar.call(INTROSPECT, encoding, identity_provider="tokenx", token=own)
    assert answer.text == verbatim(own)


@BOTH
def test_entra_id_exchanges(sidecar: Sidecar, encoding: str, employee: str) -> None:
    """On behalf of: the target in both spellings."""
    name = uuid.uuid4().hex
    fields = {"identity_provider": "entra_id", "user_token": employee}
    first = sidecar.acquired(EXCHANGE, encoding, target=f"dev-gcp:team:{name}", **fields)
    assert of(first)["asked"] == f"api://dev-gcp.team.{name}/.default"
    target = f"api://dev-gcp.team.{name}/.default"
    assert sidecar.acquired(EXCHANGE, encoding, target=target, **fields) == first
    assert sidecar.introspected("entra_id", first, encoding)["active"] is True


def test_each_user_has_a_token(sidecar: Sidecar, server: str) -> None:
    """A cached exchange belongs to one user's token."""
    fields = {"identity_provider": "tokenx", "target": new("dev-gcp:team:")}
    one, other = (signed_in(server, "idporten") for _ in range(2))
    assert of(one)["sub"] != of(other)["sub"] or one != other
    first = sidecar.acquired(EXCHANGE, **fields, user_token=one)
    second = sidecar.acquired(EXCHANGE, **fields, user_token=other)
    assert first != second
    assert sidecar.acquired(EXCHANGE, **fields, user_token=one) == first


@pytest.mark.parametrize("provider", ["tokenx", "entra_id"])
def test_an_expired_user_token_is_not_exchanged(
    sidecar: Sidecar, keys: dict[str, Key], provider: str
) -> None:
    """It is refused before the provider is asked."""
    key = keys["tokenx"]
    header = json.dumps({"alg": "RS256", "kid": key.kid}).encode()
    expired = key.sign(header, json.dumps({"exp": int(time.time()) - 300, "sub": "x"}).encode())
    answer = sidecar.call(EXCHANGE, identity_provider=provider, target=APPLICATION, user_token=expired)
    assert 400 <= answer.status_code < 500
    assert "expired" in answer.json()["error_description"]


# --- a provider that only the settings describe ---


@BOTH
def test_a_generic_provider(sidecar: Sidecar, encoding: str, citizen: str) -> None:
    """Its endpoints come from discovery; tokens, exchanges and introspection are as for the others."""
    fields = {"identity_provider": GENERIC, "target": GENERIC_AUDIENCE}
    first = sidecar.acquired(TOKEN, encoding, **fields)
    assert sidecar.acquired(TOKEN, encoding, **fields) == first
    exchanged = sidecar.acquired(EXCHANGE, encoding, **fields, user_token=citizen)
    assert of(exchanged)["sub"] == of(citizen)["sub"]
    for token in (first, exchanged):
        answer = sidecar.call(INTROSPECT, encoding, identity_provider=GENERIC, token=token)
        assert answer.text == verbatim(token)
    other = sidecar.acquired(TOKEN, encoding, identity_provider=GENERIC, target=new())
    refused = {"active": False, "error": "token has the wrong audience"}
    assert sidecar.introspected(GENERIC, other, encoding) == refused


# --- the cache ---


@BOTH
@pytest.mark.parametrize("provider", ["entra_id", "maskinporten"])
def test_skip_cache_replaces_the_token_for_everyone(sidecar: Sidecar, provider: str, encoding: str) -> None:
    """Every later request gets the new token, at every worker."""
    fields = {"identity_provider": provider, "target": new("scope:")}
    first = sidecar.acquired(TOKEN, encoding, **fields)
    second = sidecar.acquired(TOKEN, encoding, **fields, skip_cache=True)
    assert first != second
    for _ in range(10):
        assert sidecar.acquired(TOKEN, encoding, **fields) == second


def test_providers_share_no_cached_tokens(sidecar: Sidecar, employee: str) -> None:
    """The same target, and the same user's token, at two providers."""
    target = new("scope:")
    fields = {"target": target, "skip_cache": False}
    first = sidecar.acquired(TOKEN, identity_provider="entra_id", **fields)
    second = sidecar.acquired(TOKEN, identity_provider="maskinporten", **fields)
    assert first != second
    assert of(first)["iss"] != of(second)["iss"]
    exchanged = {
        str(of(sidecar.acquired(EXCHANGE, identity_provider=name, user_token=employee, **fields))["iss"])
        for name in ("entra_id", "tokenx")
    }
    assert len(exchanged) == 2


# --- introspection ---


@BOTH
@pytest.mark.parametrize("provider", ["idporten", "ansattporten"])
def test_tokens_of_logins_are_introspected(
    sidecar: Sidecar, server: str, provider: str, encoding: str
) -> None:
    """All claims, byte for byte; seen before and not."""
    token = signed_in(server, provider)
    for _ in range(3):
        answer = sidecar.call(INTROSPECT, encoding, identity_provider=provider, token=token)
        assert (answer.status_code, answer.text) == (200, verbatim(token))
    tampered = token[:-8] + "AAAAAAAA"
    refused = {"active": False, "error": "token signature is invalid"}
    assert sidecar.introspected(provider, tampered, encoding) == refused


@BOTH
def test_keys_are_never_shared(sidecar: Sidecar, server: str, encoding: str) -> None:
    """A token of one provider is valid at no other, however often it was valid at its own."""
    tokens = {name: signed_in(server, name) for name in ("entra_id", "idporten", "ansattporten")}
    tokens["maskinporten"] = sidecar.acquired(TOKEN, identity_provider="maskinporten", target=SCOPE)
    tokens["tokenx"] = sidecar.acquired(
        EXCHANGE, identity_provider="tokenx", target=APPLICATION, user_token=tokens["idporten"]
    )
    for own, token in tokens.items():
        assert sidecar.introspected(own, token, encoding)["active"] is True, own
        for other in set(PROVIDERS) - {own}:
            refused = sidecar.introspected(other, token, encoding)
            assert set(refused) == {"active", "error"}, (own, other)
            assert refused["active"] is False
            assert refused["error"] in (
                "token has the wrong issuer",
                "token was signed with an unknown key",
            )


# --- what does not exist ---


@BOTH
@pytest.mark.parametrize(
    ("endpoint", "provider", "sentence"),
    [
        (TOKEN, "tokenx", "identity provider 'tokenx' does not support token requests"),
        (TOKEN, "idporten", "identity provider 'idporten' does not support token requests"),
        (EXCHANGE, "maskinporten", "identity provider 'maskinporten' does not support token exchange"),
        (EXCHANGE, "idporten", "identity provider 'idporten' does not support token exchange"),
        (TOKEN, "ansattporten", "identity provider 'ansattporten' does not support token requests"),
        (EXCHANGE, "ansattporten", "identity provider 'ansattporten' does not support token exchange"),
    ],
)
def test_pairs_that_do_not_exist(
    sidecar: Sidecar, encoding: str, endpoint: str, provider: str, sentence: str, citizen: str
) -> None:
    """400 with exactly this sentence."""
    answer = sidecar.call(endpoint, encoding, identity_provider=provider, target=SCOPE, user_token=citizen)
    assert answer.status_code == 400
    assert answer.json() == {"error": "invalid_request", "error_description": sentence}


@BOTH
def test_unknown_providers_are_refused(sidecar: Sidecar, encoding: str, citizen: str) -> None:
    """By a sentence that lists the known ones."""
    answer = sidecar.call(TOKEN, encoding, identity_provider="feide", target=SCOPE)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    for name in PROVIDERS:
        assert name in answer.json()["error_description"]
    introspected = sidecar.introspected("feide", citizen, encoding)
    assert introspected["active"] is False
    assert all(name in introspected["error"] for name in PROVIDERS)


@BOTH
def test_a_provider_must_be_named_among_several(sidecar: Sidecar, encoding: str, citizen: str) -> None:
    """It follows from nothing else; the sentence names the enabled ones."""
    answer = sidecar.call(TOKEN, encoding, target=SCOPE)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert all(name in answer.json()["error_description"] for name in PROVIDERS)
    exchanged = sidecar.call(EXCHANGE, encoding, target=SCOPE, user_token=citizen)
    assert exchanged.status_code == 400
    introspected = sidecar.call(INTROSPECT, encoding, token=citizen).json()
    assert introspected["active"] is False
    assert all(name in introspected["error"] for name in PROVIDERS)


@BOTH
def test_one_provider_need_not_be_named(settings: dict[str, str], encoding: str, citizen: str) -> None:
    """With one enabled provider, off-the-shelf introspectors work, and all others are not enabled."""
    off = {"AZURE_ENABLED": "false", "MASKINPORTEN_ENABLED": "false", "TOKEN_X_ENABLED": "false"}
    off["ANSATTPORTEN_ENABLED"] = "false"
    with serving(settings | off | {"ENTRA_FAST_PROVIDERS": ""}) as sidecar:
        hinted = sidecar.call(INTROSPECT, encoding, token=citizen, token_type_hint="access_token")
        assert hinted.text == verbatim(citizen)
        for name in ("entra_id", "maskinporten", "tokenx", "ansattporten"):
            sentence = f"identity provider '{name}' is not enabled"
            assert sidecar.introspected(name, citizen, encoding) == {"active": False, "error": sentence}
            endpoint = EXCHANGE if name == "tokenx" else TOKEN
            answer = sidecar.call(
                endpoint, encoding, identity_provider=name, target=SCOPE, user_token=citizen
            )
            assert answer.status_code == 400
            assert answer.json() == {"error": "invalid_request", "error_description": sentence}


# --- what operators see ---


def test_every_provider_is_ready_and_counted(sidecar: Sidecar, citizen: str) -> None:
    """`/readyz` lists all of them, and metrics have the provider as a label."""
    listed = sidecar.probe("/readyz").json()["providers"]
    assert sorted(each["name"] for each in listed) == sorted([*PROVIDERS, GENERIC])
    assert all(each["ready"] and each["keys"]["status"] == "available" for each in listed)
    sidecar.introspected("idporten", citizen)
    metrics = sidecar.probe("/metrics").text
    for name in PROVIDERS:
        assert f'identity_provider="{name}"' in metrics, name
    for secret in (ENTRA_CLIENT, citizen):
        assert secret not in metrics


def test_services_in_node(sidecar: Sidecar, server: str, citizen: str) -> None:
    """A service that verifies, exchanges and introspects as NAV's packages for Node.js do: JSON with members
    that are null."""
    install_packages()
    given = {
        "sidecar": f"http://{sidecar.address}",
        "issuer": f"{server}/idporten",
        "jwks": f"{server}/idporten/jwks",
        "audience": "default",
        "token": citizen,
        "target": APPLICATION,
    }
    command = ["node", "texas.mjs", json.dumps(given)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    results = json.loads(done.stdout)
    exchanged = results["oasis"]
    assert (exchanged["ok"], exchanged["user"], exchanged["type"]) == (True, of(citizen)["sub"], "number")
    assert 0 < exchanged["seconds"] <= 3600
    assert of(exchanged["token"])["aud"] == APPLICATION
    assert results["idporten"] == {"ok": True, "active": True, **of(citizen)}
    assert results["tokenx"] == {"ok": True, "active": True, **of(exchanged["token"])}
    assert results["refused"] == {
        "ok": False,
        "status": 400,
        "description": "identity provider 'tokenx' does not support token requests",
    }
    assert (results["forgotten"]["ok"], results["forgotten"]["status"]) == (False, 400)
    assert "user_token" in results["forgotten"]["description"]
