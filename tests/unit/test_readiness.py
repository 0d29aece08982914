"""What a provider's refusals, clocks and states mean, without a network."""

from __future__ import annotations

import asyncio
import email.utils
from pathlib import Path

import pytest

from entra_fast._provider.clock_skew import ClockSkew
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.rejections import proves_nothing, rejects
from entra_fast._providers import ENTRA_ID
from entra_fast._settings.model import CredentialSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import ProviderError
from entra_fast.sidecar.readiness import SHUTTING_DOWN, Part, ProviderReadiness, Readiness, StartUp
from entra_fast.sidecar.rejections import example_of

AVAILABLE, ACCEPTED = Part("available"), Part("accepted")


def refusal(status: int, error: str, *codes: int, code: str = "provider_refused") -> ProviderError:
    return ProviderError(code, "no", status, error, details={"error_codes": list(codes)} if codes else {})


@pytest.mark.parametrize(
    ("error", "rejected"),
    [
        (refusal(401, "invalid_client"), True),
        (refusal(401, "invalid_client", 7000218), True),
        (refusal(400, "unauthorized_client", 700016), True),
        (refusal(400, "invalid_request", 90002), True),
        (refusal(400, "unauthorized_client", 7000112), True),
        (refusal(400, "invalid_request", 900, 700024), True),
        (refusal(400, "unauthorized_client", 700511), False),
        (refusal(400, "invalid_grant", 65001), False),
        (refusal(400, "invalid_request"), False),
        (refusal(400, "unauthorized_client"), False),
        (refusal(503, "invalid_client", 7000215), False),
        (refusal(429, "invalid_client"), False),
        (refusal(408, "invalid_client"), False),
        (refusal(401, "invalid_client", code="provider_failed"), False),
        (ProviderError("timed_out", "no answer"), False),
    ],
)
def test_the_list_of_rejections_is_closed(error: ProviderError, rejected: bool) -> None:
    """Everything that is not in it says nothing about the credential, or that it was accepted."""
    assert rejects(ENTRA_ID, error) is rejected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(400, "invalid_grant", 501051), False),
        (refusal(401, "invalid_client"), False),
        (refusal(400, "temporarily_unavailable"), True),
        (refusal(400, "server_error"), True),
        (refusal(500, "invalid_grant"), True),
        (refusal(407, "server_error", code="provider_failed"), True),
        (ProviderError("credential_unusable", "no file"), True),
        (ProviderError("provider_answer_malformed", "no token"), True),
    ],
)
def test_some_answers_prove_nothing(error: ProviderError, expected: bool) -> None:
    """Overload, proxies, and whatever is no OAuth refusal."""
    assert proves_nothing(error) is expected


@pytest.mark.parametrize(
    ("provider", "headers", "took", "skew"),
    [
        (1000.0, {}, 0.0, 0.0),
        (999.0, {}, 0.0, 0.0),  # its clock may show 999.9
        (995.0, {}, 4.5, 0.0),  # the answer took that long
        (995.0, {}, 0.0, 4.0),
        (1100.0, {}, 0.5, -100.0),
        (875.0, {}, 0.0, 124.0),
        (400.0, {"Age": "600"}, 0.0, 0.0),  # from a cache in between
        (400.0, {"Age": "soon"}, 0.0, 599.0),
    ],
)
def test_the_clock_s_difference_is_what_nothing_else_explains(
    provider: float, headers: dict[str, str], took: float, skew: float
) -> None:
    """A `Date` has whole seconds, was written while the answer was on its way, and may come from a cache."""
    clock = ClockSkew(lambda: 1000.0)
    clock.observe({"Date": email.utils.formatdate(provider, usegmt=True), **headers}, took)
    assert clock.seconds == skew


def test_an_answer_without_a_usable_date_changes_nothing() -> None:
    """What was known before stays."""
    clock = ClockSkew(lambda: 1000.0)
    clock.observe({"Date": email.utils.formatdate(0, usegmt=True)}, 0.0)
    for headers in ({}, {"Date": "yesterday"}, {"Date": ""}):
        clock.observe(headers, 0.0)
        assert clock.seconds == 999.0


def test_all_providers_must_be_ready_and_the_first_reason_is_of_one_that_is_not() -> None:
    """Trouble of a provider that is ready comes second, and each reason says whose it is."""
    ready = ProviderReadiness("a", True, AVAILABLE, Part("rejected", "is rejected"))
    other = ProviderReadiness("b", False, Part("missing", "no keys"), ACCEPTED)
    without_credential = ProviderReadiness("c", True, AVAILABLE, None)
    assert Readiness.of() == Readiness(ready=True)
    assert Readiness.of(without_credential) == Readiness(True, None, (without_credential,))
    assert Readiness.of(ready) == Readiness(True, "a: is rejected", (ready,))
    both = Readiness.of(ready, other)
    assert (both.ready, both.reason) == (False, "b: no keys; a: is rejected")
    assert both.providers == (ready, other)
    assert Readiness.from_fields(both.fields()) == both
    assert Readiness.from_fields(Readiness.of(without_credential).fields()).providers == (without_credential,)
    assert SHUTTING_DOWN.document() == {"status": "not ready", "reason": "shutting down", "providers": []}
    (first, second) = both.document()["providers"]
    assert first["credential"] == {"status": "rejected", "reason": "is rejected"}
    assert second["credential"] == {"status": "accepted"}


def test_the_start_is_over_with_keys_or_after_ten_seconds_and_stays_so() -> None:
    """Whichever comes first."""
    now = 0.0
    start = StartUp(lambda: now)
    now = 9.9
    assert not start.is_over(has_keys=False)
    assert start.is_over(has_keys=True)
    assert start.is_over(has_keys=False)
    other = StartUp(lambda: now)
    now = 20.0
    assert other.is_over(has_keys=False)


def test_a_received_value_is_logged_only_where_the_signature_was_verified() -> None:
    """Issuer and audience; the others only with what was expected."""
    assert example_of("wrong_issuer", "a", "b") == {"expected": "a", "received": "b"}
    assert example_of("wrong_audience", "a", "b") == {"expected": "a", "received": "b"}
    assert example_of("unknown_key", "one of 2 known keys", "canary") == {"expected": "one of 2 known keys"}
    assert example_of("tenant_not_allowed", "a", "canary") == {"expected": "a"}
    assert example_of("signature_invalid", None, None) == {}


async def test_a_credential_is_known_by_what_the_provider_said_last(tmp_path: Path) -> None:
    """Unknown, accepted, rejected; unknown again when the file has another content; unreadable without it."""
    file = tmp_path / "AZURE_APP_CLIENT_SECRET"
    file.write_text("first")
    secret = Secret("AZURE_APP_CLIENT_SECRET", path=file)
    credentials = Credentials(CredentialSettings(client_secret=secret), "client")
    assert credentials.state()[0] == "unknown"
    credentials.not_judged("no answer")
    state, reason = credentials.state()
    assert (state, reason) == (
        "unknown",
        "the provider has neither accepted nor rejected the application's credential: no answer",
    )
    credentials.accepted()
    assert credentials.state() == ("accepted", None)
    waiting = asyncio.create_task(credentials.until_rejected())
    await asyncio.sleep(0)
    assert not waiting.done()
    credentials.rejected(refusal(401, "invalid_client", 7000222))
    await waiting
    state, reason = credentials.state()
    assert (state, "AADSTS7000222" in (reason or "")) == ("rejected", True)
    file.write_text("second")
    assert credentials.state()[0] == "unknown"
    assert credentials.have_been_accepted
    file.unlink()
    assert credentials.state()[0] == "unreadable"
