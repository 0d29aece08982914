"""When the application's credential is tried. tests/faults has the same with a sidecar and a provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.credentials import Credentials
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


class Trying:
    """A try whose requests are noted by the time since its start."""

    def __init__(self, *script: HttpResponse | HttpFailure, chance: float = 0.5) -> None:
        self.world = world = World(uniform=lambda low, high: low + chance * (high - low))
        world.http.script = list(script)
        self.times: list[float] = []
        self.deadlines: list[float] = []
        self.wanted: list[WantedToken] = []
        original = world.endpoint.request

        async def request(wanted: WantedToken, deadline: float, **options: Any) -> FetchedToken:
            self.wanted.append(wanted)
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
    (wanted,) = trying.wanted
    assert (wanted.grant, wanted.scope, wanted.subject_token) == ("credential_try", "client/.default", None)
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


@pytest.mark.parametrize(("chance", "first", "last"), [(0.0, 0.75, 45.0), (1.0, 1.25, 75.0)])
async def test_sidecars_do_not_try_in_step(chance: float, first: float, last: float) -> None:
    """Each pause is a quarter shorter to a quarter longer, but never than the provider wants."""
    trying = Trying(*[failed(503)] * 8, failed(503, "200"), granted(), chance=chance)
    await trying.run()
    await trying.tried.aclose()
    pauses = [later - earlier for earlier, later in zip(trying.times, trying.times[1:], strict=False)]
    assert (pauses[0], pauses[-2], pauses[-1]) == (first, last, 200)


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
        "the provider has neither accepted nor rejected the application's credential: "
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
    file = tmp_path / "secret"
    file.write_text("wrong")
    secret = Secret("AZURE_APP_CLIENT_SECRET", path=file)
    credentials = Credentials(CredentialSettings(client_secret=secret), "client")
    trying = Trying(INVALID_CLIENT, granted())
    trying.credentials = trying.world.endpoint._credentials = trying.tried._credentials = credentials
    sleep = trying.world._sleep

    async def changed_meanwhile(seconds: float) -> None:
        await sleep(seconds)
        if trying.world.monotonic >= 1010:
            file.write_text("changed")

    object.__setattr__(trying.world.endpoint._timing, "sleep", changed_meanwhile)
    await trying.run()
    assert trying.times == [0, 10]
    assert trying.world.http.forms[-1]["client_secret"] == "changed"
    assert credentials.are_accepted
    await trying.tried.aclose()
