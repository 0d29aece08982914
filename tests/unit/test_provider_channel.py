"""A worker's service as the messages of the provider process change it, without a process or a socket."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.tokens import token_key
from entra_fast._settings.load import Settings
from entra_fast.errors import KeysUnavailable, ProviderError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process import provider_channel
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.provider_channel import ChannelKeys, ProviderChannel
from entra_fast.sidecar.readiness import Part, ProviderReadiness, Readiness
from entra_fast.sidecar.service import Service, new_token_cache
from support.fast_path import introspection
from support.tokens import AUDIENCE, ISSUER, TENANT, good_claims, jwks, signer

ENVIRON = {
    "AZURE_APP_CLIENT_ID": AUDIENCE,
    "AZURE_APP_TENANT_ID": TENANT,
    "AZURE_APP_CLIENT_SECRET": "not asked for",
}


async def test_during_the_cool_down_of_the_provider_process_the_fast_path_answers_for_unknown_keys() -> None:
    """A flood of such tokens must not take the slow path at workers, which do not fetch keys themselves."""
    settings = Settings.from_environment(ENVIRON, None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    provider = ProviderChannel(
        Channel(lambda *_: None, lambda: None), settings, cache=cache, metrics=metrics, clocks=clocks
    )
    service = Service(settings, provider, cache=cache, metrics=metrics, clocks=clocks)
    await service.start()
    assert provider.handle("provider", {"provider": "entra_id", "issuer": ISSUER})
    assert provider.handle(
        "keys", {"provider": "entra_id", "text": jwks(signer()), "reason": None, "version": 1}
    )
    assert service.fast_path is not None
    now = time.time()
    claims = good_claims(iat=now - 10, nbf=now - 10, exp=now + 600)
    unknown = introspection(signer("unknown").token(claims))
    forged = introspection(signer("unknown").named("key-1").token(claims))

    def answer(request: bytes) -> bytes:
        assert service.fast_path is not None
        return service.fast_path.native.serve(request).answers

    assert answer(unknown) == answer(forged) == b"", "they wait for the provider process to fetch keys"
    assert provider.handle(
        "cool_downs", {"provider": "entra_id", "until": {"unknown_key": time.monotonic() + 60}}
    )
    assert b"token was signed with an unknown key" in answer(unknown)
    assert answer(forged) == b"", "it has a cool-down of its own"
    assert provider.handle(
        "cool_downs", {"provider": "entra_id", "until": {"signature_invalid": time.monotonic() + 60}}
    )
    assert b"token signature is invalid" in answer(forged)
    assert answer(unknown) == b""
    assert provider.handle("cool_downs", {"provider": "entra_id", "until": {}})
    assert answer(unknown) == answer(forged) == b""
    assert not provider.handle("unheard of", {})
    await service.aclose()


Handler = Callable[[str, Fields], Fields | None]
MESSAGE: Fields = {
    "provider": "entra_id",
    "target": "api://c.n.a/.default",
    "subject_token": None,
    "resources": [],
    "authorization_details": None,
}


class Ends:
    """A worker's service, and the other end of its channel, on which a test plays the provider process."""

    def __init__(self) -> None:
        settings = Settings.from_environment(ENVIRON, None)
        self.answer: Handler = lambda *_: None
        self.lost: list[str] = []
        self.far = Channel(self._answer, lambda: None)
        self.near = Channel(lambda *_: None, lambda: self.lost.append("lost"))
        self.cache, self.metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
        self.provider = ProviderChannel(
            self.near, settings, cache=self.cache, metrics=self.metrics, clocks=clocks
        )
        self.service = Service(settings, self.provider, cache=self.cache, metrics=self.metrics, clocks=clocks)
        self.keys = ChannelKeys(self.provider, "entra_id", clocks)

    def _answer(self, name: str, fields: Fields) -> Fields | None:
        return self.answer(name, fields)


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    one, other = socket.socketpair()
    await both.near.open(one)
    await both.far.open(other)
    await both.service.start()
    yield both
    await both.keys.aclose()
    await both.service.aclose()
    both.near.abort()
    both.far.abort()


async def test_readiness_keys_and_metrics_are_those_of_the_provider_process(ends: Ends) -> None:
    """A worker asks for them, and adds only that it is shutting down."""
    keys, credential = Part("missing", "no keys"), Part("accepted")
    not_ready = Readiness.of(ProviderReadiness("entra_id", ready=False, keys=keys, credential=credential))
    answers: dict[str, Fields] = {
        "readiness": not_ready.fields(),
        "keys": {"again": False, "reason": None},
        "metrics": {"text": "all_workers 1\n"},
    }
    ends.answer = lambda name, _: answers[name]
    assert await ends.service.readiness() == not_ready
    assert b"the discovery document has not been fetched yet" in await ends.service.introspect(0, "any")
    assert await ends.service.exposition() == b"all_workers 1\n"
    ends.service.draining = True
    assert (await ends.service.readiness()).reason == "shutting down"


async def test_without_the_provider_process_the_reason_is_named(ends: Ends) -> None:
    """Readiness and introspection say so; a token that is not cached fails with 503, and may be retried."""
    ends.far.abort()
    async with asyncio.timeout(60):
        while not ends.lost:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    sentence = "the provider process does not respond"
    assert await ends.service.readiness() == Readiness(ready=False, reason=sentence)
    assert sentence.encode() in await ends.service.introspect(0, "any")
    with pytest.raises(ProviderError) as caught:
        await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default")
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("hub_unavailable", 503, 1)
    assert not await ends.keys.refresh_for(Cause.UNKNOWN_KEY, "new")
    assert sentence in ends.keys.unavailable().message


async def test_a_provider_process_that_hangs_does_not_hold_a_request_forever(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit a token that is still valid is returned; without one, the request fails."""
    monkeypatch.setattr(provider_channel, "ANSWER_TIMEOUT", 0.01)
    never = asyncio.get_running_loop().create_future()
    ends.answer = lambda *_: never  # type: ignore[assignment]
    with pytest.raises(ProviderError, match="does not respond"):
        await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default")
    key = token_key(ends.service.settings.providers[0], "api://c.n.a/.default")
    now = time.monotonic()
    announced = {"key": key.hex(), "token": "stale", "expires_in": 60.0, "monotonic": now - 45}
    assert ends.provider.handle("token", {**announced, "renew_in": None, "subject_expires_at": None})
    token = await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default")
    assert (token.access_token, token.expires_in <= 15) == ("stale", True)
    assert ends.metrics.stale_served.value("entra_id") == 1
    never.cancel()


async def test_a_token_that_is_due_is_renewed_by_the_provider_process(ends: Ends) -> None:
    """The worker serves it from its cache, and asks for a renewal once."""
    asked: list[tuple[str, Fields]] = []

    def answer(name: str, fields: Fields) -> None:
        asked.append((name, fields))

    ends.answer = answer
    key = token_key(ends.service.settings.providers[0], "api://c.n.a/.default")
    now = time.monotonic()
    announced = {"key": key.hex(), "token": "t", "expires_in": 3600.0, "monotonic": now, "renew_in": 0.0}
    assert ends.provider.handle("token", {**announced, "subject_expires_at": None})
    for _ in range(2):
        assert (await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default")).access_token == "t"
    async with asyncio.timeout(60):
        while not asked:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert asked == [("renew", MESSAGE)]
    assert ends.provider.tokens["entra_id"].in_flight == 0
    await ends.provider.tokens["entra_id"].aclose()


async def test_an_unknown_key_costs_one_question_at_a_time(ends: Ends) -> None:
    """Tokens that arrive in the meantime wait for the same answer; during the cool-down nothing is asked."""
    questions: list[Fields] = []
    answered: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()

    def answer(_: str, fields: Fields) -> asyncio.Future[Fields]:
        questions.append(fields)
        return answered

    ends.answer = answer  # type: ignore[assignment]
    resumed: list[str] = []
    assert not ends.keys.call_when_fetched(lambda: resumed.append("never"))
    waiting = [asyncio.ensure_future(ends.keys.refresh_for(Cause.UNKNOWN_KEY, "new")) for _ in range(3)]
    async with asyncio.timeout(60):
        while not questions:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert ends.keys.call_when_fetched(lambda: resumed.append("resumed"))
    answered.set_result({"again": True, "reason": None})
    assert await asyncio.gather(*waiting) == [True] * 3
    assert questions == [{"provider": "entra_id", "cause": "unknown_key", "kid": "new", "seen": 0}]
    await asyncio.sleep(0)
    assert resumed == ["resumed"]
    assert not ends.keys.call_when_fetched(lambda: resumed.append("never")), "no question is open any more"
    assert isinstance(ends.keys.unavailable(), KeysUnavailable)
    ends.keys.cool_downs[Cause.UNKNOWN_KEY] = math.inf
    assert not await ends.keys.refresh_for(Cause.UNKNOWN_KEY, "other")
    assert questions == [{"provider": "entra_id", "cause": "unknown_key", "kid": "new", "seen": 0}]
    ends.keys.announced(KeySet(jwks(signer())), None, 2)
    assert await ends.keys.refresh_for(Cause.UNKNOWN_KEY, "key-1"), "it was announced meanwhile"


async def test_a_user_token_is_exchanged_by_the_provider_process(ends: Ends) -> None:
    """The worker sends the user's token, and passes on the answer without the time that has passed since."""
    asked: list[tuple[str, Fields]] = []

    def answer(name: str, fields: Fields) -> Fields:
        asked.append((name, fields))
        return {"token": "exchanged", "expires_in": 60, "at": time.monotonic() - 15}

    ends.answer = answer
    token = await ends.provider.tokens["entra_id"].exchange("api://c.n.a/.default", "user", skip_cache=True)
    assert (token.access_token, token.expires_in <= 45) == ("exchanged", True)
    fields = {**MESSAGE, "subject_token": "user", "skip_cache": True, "claims": None}
    assert asked == [("token", fields)]


async def test_an_error_of_the_provider_reaches_the_caller(ends: Ends) -> None:
    """With its code and status, even where a token that is still valid is cached here: the provider process
    has decided that it must not be used."""

    async def refuse(_: str, __: Fields) -> Fields:
        raise ProviderError("invalid_scope", "the provider refused", status=400)

    ends.answer = refuse  # type: ignore[assignment]
    key = token_key(ends.service.settings.providers[0], "api://c.n.a/.default")
    announced = {"key": key.hex(), "token": "old", "expires_in": 60.0, "monotonic": time.monotonic()}
    assert ends.provider.handle("token", {**announced, "renew_in": None, "subject_expires_at": None})
    with pytest.raises(ProviderError) as caught:
        await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default", skip_cache=True)
    assert (caught.value.code, caught.value.status) == ("invalid_scope", 400)


async def test_a_challenge_is_answered_by_the_provider_process_alone(ends: Ends) -> None:
    """The token in this worker's cache is the one that the API refused: it answers neither a challenge nor
    its failure, but callers without one still get it."""
    asked: list[object] = []

    async def answer(_: str, fields: Fields) -> Fields:
        asked.append(fields["claims"])
        raise ProviderError("hub_unavailable", "the provider process does not respond", status=503)

    ends.answer = answer  # type: ignore[assignment]
    key = token_key(ends.service.settings.providers[0], "api://c.n.a/.default")
    announced = {"key": key.hex(), "token": "old", "expires_in": 3600.0, "monotonic": time.monotonic()}
    assert ends.provider.handle("token", {**announced, "renew_in": None, "subject_expires_at": None})
    tokens = ends.provider.tokens["entra_id"]
    with pytest.raises(ProviderError) as caught:
        await tokens.acquire("api://c.n.a/.default", claims="{}")
    assert caught.value.code == "hub_unavailable"
    assert (await tokens.acquire("api://c.n.a/.default")).access_token == "old"
    assert (await tokens.acquire("api://c.n.a/.default", skip_cache=True)).access_token == "old"
    assert asked == ["{}", None]


async def test_a_renewal_that_failed_is_not_asked_for_again_at_once(ends: Ends) -> None:
    """The provider process names the time; until then the worker serves the token from its cache."""
    asked: list[str] = []

    def answer(name: str, _: Fields) -> Fields:
        asked.append(name)
        return Readiness.of().fields()

    ends.answer = answer
    key = token_key(ends.service.settings.providers[0], "api://c.n.a/.default")
    now = time.monotonic()
    announced = {"key": key.hex(), "token": "t", "expires_in": 3600.0, "monotonic": now, "renew_in": 0.0}
    assert ends.provider.handle("token", {**announced, "subject_expires_at": None})
    assert ends.provider.handle("renewal_failed", {"key": key.hex(), "monotonic": now, "retry_in": 600.0})
    assert (await ends.provider.tokens["entra_id"].acquire("api://c.n.a/.default")).access_token == "t"
    await ends.provider.readiness()
    assert asked == ["readiness"]


async def test_without_a_provider_there_are_no_tokens() -> None:
    """A worker's sidecar that only has other features does not offer any."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
    channel = Channel(lambda *_: None, lambda: None)
    cache = new_token_cache(settings.caches)
    provider = ProviderChannel(channel, settings, cache=cache, metrics=Metrics(), clocks=Clocks())
    assert provider.tokens == {}


async def test_closing_while_a_question_is_open_releases_its_callers(ends: Ends) -> None:
    """A token that waits for the answer is not verified again, and its caller continues."""
    never: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    ends.answer = lambda *_: never  # type: ignore[assignment]
    waiting = asyncio.ensure_future(ends.keys.refresh_for(Cause.UNKNOWN_KEY, "new"))
    await asyncio.sleep(0)
    await ends.keys.aclose()
    assert not await waiting
    never.cancel()


async def test_causes_of_questions_are_apart(ends: Ends) -> None:
    """A cool-down after unknown keys does not keep a failed signature from asking, and vice versa."""
    questions: list[Fields] = []

    async def answer(_: str, fields: Fields) -> Fields:
        questions.append(fields)
        return {"again": True, "reason": None}

    ends.answer = answer  # type: ignore[assignment]
    ends.keys.announced(KeySet(jwks(signer())), None, 2)
    for cause in (Cause.UNKNOWN_KEY, Cause.FAILED_SIGNATURE):
        other = {Cause.UNKNOWN_KEY: Cause.FAILED_SIGNATURE}.get(cause, Cause.UNKNOWN_KEY)
        ends.keys.cool_downs = {cause: -math.inf, other: time.monotonic() + 600}
        assert await ends.keys.refresh_for(cause, "key-1" if cause is Cause.FAILED_SIGNATURE else "new")
        assert not await ends.keys.refresh_for(other, "another")
    assert [question["cause"] for question in questions] == ["unknown_key", "signature_invalid"]
