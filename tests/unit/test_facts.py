"""What a request turned out to be: the attributes of its span, and Texas's names for errors."""

from __future__ import annotations

import pytest

from entra_fast._metrics import NO_PROVIDER, Metrics
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.sidecar.http.facts import CLIENT_CLOSED, Facts
from entra_fast.sidecar.tracing import MAX_TARGET


def test_a_span_has_what_is_known() -> None:
    """Provider, target and cache, as far as the request got; a target only up to a limit."""
    facts = Facts()
    assert facts.attributes() == {}
    facts.identity_provider, facts.target, facts.cache_hit = "tokenx", "c:n:a", False
    assert facts.attributes() == {
        "entra_fast.identity_provider": "tokenx",
        "entra_fast.target": "c:n:a",
        "entra_fast.cache_hit": False,
    }
    facts.target, facts.cache_hit = "x" * MAX_TARGET + "y", True
    assert facts.attributes() == {
        "entra_fast.identity_provider": "tokenx",
        "entra_fast.target": "x" * MAX_TARGET,
        "entra_fast.cache_hit": True,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProviderError("provider_answer_malformed", "no"), "Json"),
        (ProviderError("credential_unusable", "no"), "Sign"),
        (ProviderError("subject_token_expired", "no"), "Upstream"),
        (ProviderError("provider_refused", "no"), "Upstream"),
        (ProviderError("provider_failed", "no"), "Upstream"),
        (ProviderError("timed_out", "no"), "UpstreamRequest"),
        (ProviderError("connection_failed", "no"), "UpstreamRequest"),
        (EntraFastError("subject_token_malformed", "no"), "UnprocessableContent"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.code,
)
def test_errors_have_the_kinds_of_texas(error: EntraFastError, kind: str) -> None:
    """What the provider said, what it said without sense, what never reached it, and what is the caller's."""
    facts = Facts()
    facts.failed(error)
    assert facts.error_kind == kind


@pytest.mark.parametrize(
    ("enabled", "endpoint", "kind", "served"),
    [
        (True, "exchange", "TokenExchangeUnsupported", "maskinporten"),
        (True, "token", "TokenRequestUnsupported", "maskinporten"),
        (False, "exchange", "IdentityProviderNotEnabled", NO_PROVIDER),
        (False, "introspect", "IdentityProviderNotEnabled", NO_PROVIDER),
    ],
)
def test_a_refusal_because_of_the_provider_has_a_kind(
    enabled: bool, endpoint: str, kind: str, served: str
) -> None:
    """Our own metrics know only enabled providers; Texas's know which one was asked for."""
    facts = Facts()
    facts.refused(("maskinporten", enabled), endpoint)
    assert (facts.identity_provider, facts.error_kind, facts.served) == ("maskinporten", kind, served)


def test_any_other_refusal_has_none() -> None:
    """The request is malformed: no provider is known."""
    facts = Facts()
    facts.refused(None, "token")
    assert (facts.identity_provider, facts.error_kind, facts.served) == ("", "", NO_PROVIDER)


def test_a_request_counts_with_its_cache_hit_and_its_error() -> None:
    """One response by status and path; the rest by provider, if one was found."""
    metrics, path = Metrics(texas={}), "/api/v1/token/exchange"
    unknown = Facts()
    unknown.cache_hit, unknown.error_kind = True, "UnprocessableContent"
    unknown.count(metrics, "exchange", 400, 0.25)
    assert metrics.texas_requests.figures() == metrics.texas_cache_hits.figures() == {}
    assert metrics.texas_errors.figures() == {}
    hit, failed = Facts(), Facts()
    hit.identity_provider, hit.cache_hit = "tokenx", True
    failed.identity_provider, failed.cache_hit, failed.error_kind = "tokenx", False, "Upstream"
    hit.count(metrics, "exchange", 200, 0.25)
    failed.count(metrics, "exchange", CLIENT_CLOSED, 0.5)
    assert metrics.texas_requests.figures() == {(path, "tokenx", "token_exchange"): [2]}
    assert metrics.texas_cache_hits.figures() == {(path, "tokenx"): [1]}
    assert metrics.texas_errors.figures() == {(path, "tokenx", "Upstream"): [1]}
    observed = metrics.texas_response_seconds.figures()
    assert {key: (sum(counts), total) for key, (*counts, total) in observed.items()} == {
        ("400", path): (1, 0.25),
        ("200", path): (1, 0.25),
    }
