"""Whatever TokenX and Maskinporten are sent, they answer with a token or a refusal: no internal error."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entra_fast.emulator.providers.refusals import Refusal
from support.local_entra import Caller, Clock
from support.local_providers import (
    CUSTOMER,
    JWT_GRANT,
    MaskinportenCaller,
    TokenXCaller,
    full,
    local_providers,
    workload,
)

SCOPE = "a:b"
DIRECTORY = (
    f"tenant: nav.no\nscopes: [{{name: '{SCOPE}', accessibleForAll: true, delegationSource: altinn}}]\n"
)
NOW = int(Clock().now)

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([NOW, NOW + 30, 1e300, -1e300, 2**70, full("web"), CUSTOMER, SCOPE, "Level4"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CLAIMS = st.dictionaries(
    st.sampled_from(
        [
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "nbf",
            "jti",
            "acr",
            "idp",
            "client_id",
            "consumer_org",
            "resource",
            "pid",
            "authorization_details",
        ]
    ),
    ODD,
    max_size=3,
)
HEADERS = st.dictionaries(st.sampled_from(["kid", "typ", "cty", "x5c", "jku"]), ODD, max_size=2)


@cache
def callers() -> tuple[TokenXCaller, MaskinportenCaller]:
    """Callers of providers that are not served: only their addresses are needed."""
    texts = [workload("web", consumes=[SCOPE]), workload("api", rules=[{"application": "web"}])]
    local = local_providers(texts, DIRECTORY, clock=Clock())
    caller = cast(Caller, SimpleNamespace(local=local, base_url=local.base_url))
    return TokenXCaller(caller), MaskinportenCaller(caller)


def answer(service: Any, form: dict[str, str]) -> None:
    """A token, or a refusal that can be sent, and one entry of the journal without a token."""
    before, refused = service.journal.latest, None
    try:
        assert service.answer(form)["token_type"] == "Bearer"
    except Refusal as refusal:
        refused = refusal
    assert refused is None or refused.status in (400, 401, 403)
    assert refused is None or json.dumps(refused.body())
    (entry, *_) = service.journal.entries()
    assert service.journal.latest == before + 1
    for value in form.values():
        if value.count(".") == 2 and len(value) > 300:
            assert value.rpartition(".")[2] not in repr(entry)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CLAIMS, HEADERS, st.booleans())
def test_any_token_is_answered_by_tokenx(
    claims: dict[str, Any], header: dict[str, Any], as_subject: bool
) -> None:
    """As an assertion and as a subject token."""
    tokenx, _ = callers()
    form = (
        tokenx.form("web", "api", tokenx.login(header=header, **claims))
        if as_subject
        else tokenx.form(
            "web", "api", tokenx.login(), client_assertion=tokenx.assertion("web", header=header, **claims)
        )
    )
    answer(tokenx.local.providers.tokenx.token_service(), form)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CLAIMS, HEADERS, st.text(max_size=20) | st.just(SCOPE))
def test_any_grant_is_answered_by_maskinporten(
    claims: dict[str, Any], header: dict[str, Any], scope: str
) -> None:
    """With any scope, too."""
    _, maskinporten = callers()
    grant = maskinporten.grant("web", scope, header=header, **claims)
    form = {"grant_type": JWT_GRANT, "assertion": grant}
    answer(maskinporten.local.providers.maskinporten.token_service(), form)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "grant_type",
                "assertion",
                "client_assertion",
                "client_assertion_type",
                "subject_token",
                "subject_token_type",
                "audience",
                "scope",
            ]
        ),
        st.text(max_size=60)
        | st.sampled_from(["", "a.b.c", "eyJhbGciOiJub25lIn0..", JWT_GRANT, "e30.e30.e30"]),
    )
)
def test_any_form_is_answered(form: dict[str, str]) -> None:
    """By both."""
    tokenx, maskinporten = callers()
    answer(tokenx.local.providers.tokenx.token_service(), form)
    answer(maskinporten.local.providers.maskinporten.token_service(), form)
