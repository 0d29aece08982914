"""What is known about the application's credential, and when it is tried. tests/faults has the same with a
sidecar and a provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entra_fast import _native
from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.credentials import REJECTION_MEMORY, Credentials, authenticated
from entra_fast._provider.http_rules import HttpFailure, HttpResponse
from entra_fast._provider.tokens import FetchedToken, WantedToken
from entra_fast._providers import ENTRA_ID
from entra_fast._settings.model import CredentialSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import ProviderError
from support.token_client import World, failed, granted

INVALID_CLIENT = HttpResponse(
    401, {"Content-Type": "application/json"}, b'{"error":"invalid_client","error_codes":[7000215]}'
)
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
        "the provider has not judged the application's credential: it has not been tried yet",
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
    files.now = 100.0 + REJECTION_MEMORY
    assert credentials.rejection == "AADSTS7000215"
    files.now += 0.1
    assert credentials.rejection is None
    # What was in the way before the rejection is no longer the reason.
    assert credentials.state()[1] == (
        "the provider has not judged the application's credential: it has not been tried yet"
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


# --- trying it ---


class Trying:
    """A try whose requests are noted by the time since its start."""

    def __init__(self, *script: HttpResponse | HttpFailure) -> None:
        self.world = world = World()
        world.http.script = list(script)
        self.times: list[float] = []
        self.deadlines: list[float] = []
        original = world.endpoint.request

        async def request(wanted: WantedToken, deadline: float, **options: Any) -> FetchedToken:
            self.times.append(world.monotonic - 1000)
            self.deadlines.append(deadline - world.monotonic)
            return await original(wanted, deadline, **options)

        world.endpoint.request = request  # type: ignore[method-assign]
        self.credentials = world.endpoint._credentials
        self.tried = CredentialTry(ENTRA_ID, world.endpoint, self.credentials, 4.5, world.endpoint._timing)

    async def run(self) -> None:
        self.tried.start()
        await self.world.settle()


async def test_a_try_has_the_time_of_a_request() -> None:
    """It is over at the first acceptance, and a closed one does not begin again."""
    trying = Trying(granted())
    await trying.run()
    assert (trying.times, trying.deadlines) == ([0], [4.5])
    assert trying.credentials.are_accepted
    await trying.tried.aclose()
    trying.credentials.rejected(REJECTION)
    await trying.world.settle()
    assert trying.times == [0]


async def test_a_credential_that_a_caller_finds_rejected_is_tried_five_minutes_later() -> None:
    """Although the first try had ended for good; the look at a changed credential is every second."""
    trying = Trying(granted())
    await trying.run()
    trying.credentials.rejected(REJECTION)
    await trying.world.settle()
    assert trying.times == [0, 300]
    assert trying.world.pauses == [1.0] * 300
    await trying.tried.aclose()


async def test_pauses_after_what_proves_nothing() -> None:
    """Doubled to a minute; a provider that names a time is left alone for so long. What it says is the reason
    that the credential is not judged."""
    answers = [failed(503)] * 8 + [failed(503, "200")]
    trying = Trying(*answers, granted())
    await trying.run()
    await trying.tried.aclose()
    pauses = [later - earlier for earlier, later in zip(trying.times, trying.times[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 200]


async def test_what_is_in_the_way_of_a_judgement() -> None:
    """The sentence about the credential has the provider's failure, until it has been judged."""
    trying = Trying(failed(503), granted())
    seen: list[str | None] = []
    sleep = trying.world._sleep

    async def look(seconds: float) -> None:
        seen.append(trying.credentials.state()[1])
        await sleep(seconds)

    object.__setattr__(trying.world.endpoint._timing, "sleep", look)
    await trying.run()
    await trying.tried.aclose()
    assert seen == [
        "the provider has not judged the application's credential: "
        "the provider answered with status 503 and no OAuth error"
    ]
    assert trying.credentials.state() == ("accepted", None)


async def test_a_refusal_of_something_else_accepts_the_credential() -> None:
    """The provider has authenticated the application; nothing more is tried."""
    refused = HttpResponse(
        400, {"Content-Type": "application/json"}, b'{"error":"invalid_grant","error_codes":[501051]}'
    )
    trying = Trying(refused)
    await trying.run()
    assert trying.times == [0]
    assert trying.credentials.are_accepted
    await trying.tried.aclose()


async def test_a_rejected_credential_that_a_caller_finds_accepted_is_not_tried() -> None:
    """The wait for the next try ends with the acceptance."""
    trying = Trying(INVALID_CLIENT)
    sleep = trying.world._sleep

    async def accepted_meanwhile(seconds: float) -> None:
        await sleep(seconds)
        if trying.world.monotonic >= 1010:
            trying.credentials.accepted()

    object.__setattr__(trying.world.endpoint._timing, "sleep", accepted_meanwhile)
    await trying.run()
    assert trying.times == [0]
    assert len(trying.world.pauses) == 10
    await trying.tried.aclose()


async def test_a_rejected_credential_that_changes_is_tried_at_once(tmp_path: Path) -> None:
    """At the next look at it, in a second at most."""
    files = Files(tmp_path)
    trying = Trying(INVALID_CLIENT, granted())
    trying.credentials = trying.world.endpoint._credentials = trying.tried._credentials = files.credentials
    sleep = trying.world._sleep

    async def changed_meanwhile(seconds: float) -> None:
        await sleep(seconds)
        if trying.world.monotonic >= 1010:
            files.current.write_text("changed")

    object.__setattr__(trying.world.endpoint._timing, "sleep", changed_meanwhile)
    await trying.run()
    assert trying.times == [0, 10]
    assert trying.world.http.forms[-1]["client_secret"] == "changed"
    assert files.credentials.are_accepted
    await trying.tried.aclose()
