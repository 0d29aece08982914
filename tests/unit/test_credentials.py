"""What is known about the application's credential. tests/faults has it with a sidecar and a provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from entra_fast import _native
from entra_fast._provider.credentials import Credentials, authenticated
from entra_fast._providers import ENTRA_ID
from entra_fast._settings.model import CredentialSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import ConfigurationError, ProviderError

REJECTION = ProviderError("provider_refused", "no", 401, "invalid_client", details={"error_codes": [7000215]})
ASSIGNMENT = ProviderError("provider_refused", "no", 400, "invalid_grant", details={"error_codes": [501051]})
UNKNOWN_APPLICATION = ProviderError(
    "provider_refused", "no", 400, "unauthorized_client", details={"error_codes": [700016]}
)


class Files:
    """Two secrets in files, the second one for the time after a rotation."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.current, self.next = directory / "current", directory / "next"
        self.current.write_text("one")
        self.credentials = Credentials(
            CredentialSettings(
                client_secret=Secret("AZURE_APP_CLIENT_SECRET", path=self.current),
                next_client_secret=Secret("AZURE_APP_NEXT_CLIENT_SECRET", path=self.next),
            ),
            "client",
            monotonic=lambda: self.now,
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_nothing_is_known_at_first(files: Files) -> None:
    """Neither that it is accepted, nor that it is not."""
    credentials = files.credentials
    assert not credentials.have_been_accepted
    assert not credentials.are_accepted
    assert credentials.rejection is None
    assert credentials.state() == (
        "unknown",
        "the provider has neither accepted nor rejected the application's credential: "
        "it has not been tried yet",
    )
    assert credentials.problem() is None


def test_what_has_been_accepted_once_stays_so(files: Files) -> None:
    """Readiness latches, whatever is rejected later."""
    credentials = files.credentials
    credentials.accepted()
    assert credentials.state() == ("accepted", None)
    credentials.rejected(REJECTION)
    assert credentials.have_been_accepted
    assert not credentials.are_accepted
    state, reason = credentials.state()
    assert state == "rejected"
    assert reason == "the provider rejects the application or its credential (AADSTS7000215)"
    assert credentials.problem() == reason


def test_a_rejection_counts_for_five_minutes(files: Files) -> None:
    """Without traffic, nothing could show that the credential works again."""
    credentials = files.credentials
    files.now = 100.0
    credentials.not_judged("the provider is down")
    credentials.rejected(REJECTION)
    files.now = 400.0
    assert credentials.rejection == "AADSTS7000215"
    files.now += 0.1
    assert credentials.rejection is None
    # What was in the way before the rejection is no longer the reason.
    assert credentials.state()[1] == (
        "the provider has neither accepted nor rejected the application's credential: "
        "it has not been tried yet"
    )
    files.now = 100.0
    assert credentials.rejection is None


def test_a_rejection_is_one_of_the_credential_that_was_sent(files: Files) -> None:
    """One that has changed since has not been judged."""
    credentials = files.credentials
    credentials.rejected(REJECTION)
    assert credentials.rejected_digests == credentials.digests() == [_native.sha256(b"one")]
    files.next.write_text("two")
    assert credentials.rejection is None
    assert credentials.digests() == [_native.sha256(b"one"), _native.sha256(b"two")]


def test_a_credential_that_cannot_be_read_is_a_problem(files: Files) -> None:
    """The sentence names the setting; an answer of the provider about it is older."""
    files.current.unlink()
    credentials = files.credentials
    credentials.accepted()
    assert credentials.state() == (
        "unreadable",
        "AZURE_APP_CLIENT_SECRET: its file cannot be read: No such file or directory",
    )
    assert credentials.problem() == credentials.state()[1]


def test_a_provider_without_credentials() -> None:
    """There is nothing to be accepted, and no problem."""
    credentials = Credentials(CredentialSettings(), "")
    assert credentials.state() == ("none", None)
    assert credentials.problem() is None


def test_the_one_that_was_accepted_is_tried_first(files: Files) -> None:
    """From then on; one that is first already stays there, and nothing is said where it is not known which
    one it was."""
    credentials = files.credentials
    first, second = credentials.in_order()
    credentials.accepted(second)
    assert credentials.in_order() == (second, first)
    credentials.accepted(second)
    credentials.accepted()
    assert credentials.in_order() == (second, first)


@pytest.mark.parametrize(
    ("refusals", "sent", "rejection"),
    [
        ([REJECTION], ["one", "two"], None),
        ([REJECTION, REJECTION], ["one", "two"], "AADSTS7000215"),
        ([UNKNOWN_APPLICATION], ["one"], "AADSTS700016"),
        ([ASSIGNMENT], ["one"], None),
        ([REJECTION, ASSIGNMENT], ["one", "two"], None),
    ],
)
async def test_the_next_credential_is_tried_if_it_may_be_accepted(
    files: Files, refusals: list[ProviderError], sent: list[str], rejection: str | None
) -> None:
    """Not where the provider does not know the application, or refuses something else."""
    files.next.write_text("two")
    tried: list[str] = []

    async def attempt(fields: dict[str, str]) -> str:
        tried.append(fields["client_secret"])
        if len(tried) <= len(refusals):
            raise refusals[len(tried) - 1]
        return "token"

    request = authenticated(files.credentials, ENTRA_ID, "audience", lambda: 1.0, attempt)
    if len(refusals) < len(sent):
        assert await request == "token"
        assert files.credentials.are_accepted
    else:
        with pytest.raises(ProviderError) as caught:
            await request
        assert caught.value.args == refusals[-1].args
        assert not files.credentials.are_accepted
    assert tried == sent
    assert files.credentials.rejection == rejection


@pytest.mark.parametrize("current", [True, False])
async def test_a_successor_that_is_missing_hides_no_reason(files: Files, current: bool) -> None:
    """Why the current one was rejected, or cannot be read, is what somebody must know."""
    if not current:
        files.current.unlink()

    async def attempt(fields: dict[str, str]) -> None:
        raise REJECTION

    with pytest.raises(ProviderError) as caught:
        await authenticated(files.credentials, ENTRA_ID, "audience", lambda: 1.0, attempt)
    if current:
        assert caught.value.args == REJECTION.args
        assert files.credentials.rejection == "AADSTS7000215"
    else:
        assert caught.value.code == "credential_unusable"
        assert caught.value.message.startswith("AZURE_APP_CLIENT_SECRET: ")
        assert files.credentials.rejection is None


async def test_a_credential_that_cannot_be_read_hides_no_other(files: Files) -> None:
    """During a rotation the old file may be gone before the sidecar is told."""
    files.current.unlink()
    files.next.write_text("two")

    async def attempt(fields: dict[str, str]) -> str:
        return fields["client_secret"]

    assert await authenticated(files.credentials, ENTRA_ID, "audience", lambda: 1.0, attempt) == "two"
    assert files.credentials.are_accepted


def test_a_secret_signs_no_grant(files: Files) -> None:
    """The error names the setting that would have to hold a key."""
    (credential, _) = files.credentials.in_order()
    with pytest.raises(ConfigurationError) as caught:
        credential.grant("client", "audience", {}, 1.0)
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", "AZURE_APP_CLIENT_SECRET")
    assert caught.value.message == "AZURE_APP_CLIENT_SECRET: this grant needs a private JWK"


async def test_a_grant_is_for_the_credential_to_sign(files: Files) -> None:
    """One that cannot is not sent instead."""

    async def attempt(fields: dict[str, str]) -> None:
        raise AssertionError(fields)

    with pytest.raises(ProviderError) as caught:
        await authenticated(files.credentials, ENTRA_ID, "audience", lambda: 1.0, attempt, {"scope": "x"})
    assert caught.value.code == "credential_unusable"
    assert caught.value.message == "AZURE_APP_CLIENT_SECRET: this grant needs a private JWK"
