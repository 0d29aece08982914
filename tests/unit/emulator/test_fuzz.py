"""Whatever is sent, the response is a token or a refusal with Entra ID's text: never an internal error."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.protocol import authorize as login
from entra_fast.emulator.protocol import claims_request, front_channel, sign_out
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.authorize import LoginError
from entra_fast.emulator.web.signin import sign_in_page
from support.local_entra import ASSERTION_TYPE, CHALLENGE, ON_BEHALF_OF, Clock, local_entra

from .conftest import CALLBACK, DIRECTORY, MANIFESTS

NASTY = st.text(max_size=60) | st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "..",
        "'\"<>&",
        "%0d%0a",
        "a.b.c",
        "eyJhbGciOiJub25lIn0..",
        "{}",
        "-1",
        "1e999",
        "null",
    ]
)


@cache
def provider() -> LocalEntraId:
    return local_entra(MANIFESTS, DIRECTORY, clock=Clock())


@cache
def good_values() -> dict[str, list[str]]:
    """Values that get a request past each of the checks, to be mixed with bad ones."""
    local = provider()
    client = local.registry.find("dev-gcp:team:app-a")
    _, token = local.mint("dev-gcp:team:app-a", "dev-gcp:team:app-a", "ada")
    assert token is not None
    key = local.credentials.key(client)
    expiries: tuple[Any, ...] = (1e300, -1, "soon", None, [], True)
    audiences: tuple[Any, ...] = ({}, [[]], 7)
    odd_claims: list[dict[str, Any]] = [
        {"iss": client.client_id, "sub": client.client_id, "exp": exp, "jti": jti, "aud": aud, "iat": 1}
        for exp in expiries
        for jti in (1, None, "x" * 5000)
        for aud in audiences
    ]
    header = json.dumps({"alg": "RS256", "kid": key.kid}).encode()
    odd = [key.sign(header, json.dumps(claims).encode()) for claims in odd_claims]
    return {
        "grant_type": ["client_credentials", ON_BEHALF_OF, "authorization_code", "refresh_token"],
        "client_id": [client.client_id],
        "client_secret": [local.credentials.secret(client)],
        "client_assertion": odd,
        "client_assertion_type": [ASSERTION_TYPE],
        "scope": ["api://dev-gcp.team.app-b/.default", "openid", f"{client.client_id}/.default"],
        "assertion": [token, *odd[:5]],
        "requested_token_use": ["on_behalf_of"],
        "code": ["1.x"],
        "redirect_uri": [CALLBACK],
        "refresh_token": ["1.x"],
        "resource": ["api://dev-gcp.team.app-b"],
        "client_info": ["1"],
    }


@st.composite
def forms(draw: st.DrawFn) -> dict[str, str]:
    form: dict[str, str] = {}
    for name, good in good_values().items():
        kind = draw(st.integers(0, 3))
        if kind == 0:
            form[name] = draw(NASTY)
        elif kind > 1:
            form[name] = draw(st.sampled_from(good))
    return form


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(forms(), st.sampled_from([1, 2]))
def test_any_form_is_answered(form: dict[str, str], version: int) -> None:
    """A token, or an error with a code of the catalogue."""
    local = provider()
    tenant = local.registry.default_tenant
    try:
        answer = local.token_service().answer(tenant, form, version=version, correlation_id="c")
    except EntraError as error:
        json.dumps(error.body(local.now(), local.base_url, "t", "c"))
    else:
        assert answer["token_type"] == "Bearer"
    entry = repr(local.journal.entries()[0])
    assert good_values()["client_secret"][0] not in entry
    assert good_values()["assertion"][0].rpartition(".")[2] not in entry


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["response_type", "response_mode", "scope", "state", "nonce", "code_challenge",
                         "code_challenge_method", "prompt", "login_hint"]),
        NASTY | st.sampled_from(["code", "query", "openid", CHALLENGE, "S256", "none"]),
    ),
    st.booleans(),
    NASTY,
)  # fmt: skip
def test_any_login_leads_nowhere_else(parameters: dict[str, str], exact: bool, uri: str) -> None:
    """However a request is made, the only address that it can lead to is the registered one."""
    local = provider()
    client = local.registry.find("dev-gcp:team:app-a")
    sent = {**parameters, "client_id": client.client_id, "redirect_uri": CALLBACK if exact else uri}
    try:
        wanted = login.check(local.registry.default_tenant, sent, local.base_url)
    except EntraError:
        assert not exact or any(len(value) > 4096 for value in sent.values()) or "response_mode" in parameters
        return
    except LoginError as refusal:
        wanted = refusal.request
    target = front_channel.redirect_target(wanted, [("state", wanted.parameters.get("state", ""))])
    assert target.startswith((f"{CALLBACK}?", f"{CALLBACK}#"))
    sign_in_page(wanted, "/")


@settings(deadline=None)
@given(st.text(max_size=80))
def test_signing_out_leads_nowhere_else(uri: str) -> None:
    """Whatever is requested, the redirect is to a registered redirect URI."""
    local = provider()
    tenant = local.registry.default_tenant
    fields = {"post_logout_redirect_uri": uri}
    found = sign_out.check(tenant, fields, None, local.base_url, local.keyring)
    assert found.return_to in ("", CALLBACK, "http://localhost:3002/")


@settings(deadline=None)
@given(NASTY | st.text(max_size=200))
def test_any_claims_parameter_is_parsed_or_refused(text: str) -> None:
    """With AADSTS9002313, never with another error."""
    for document in (text, json.dumps({"access_token": {"acrs": text}}), f'{{"access_token":{text}}}'):
        try:
            claims_request.parse(document)
        except EntraError as error:
            code = error.code
        else:
            continue
        assert code == 9002313
