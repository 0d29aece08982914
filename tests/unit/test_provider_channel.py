"""A worker's service as the messages of the provider process change it, without a process or a socket."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.tokens import token_key
from entra_fast._settings.load import Settings
from entra_fast.errors import EntraFastError, KeysUnavailable, ProviderError
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

    def __init__(self, clocks: Clocks | None = None) -> None:
        settings = Settings.from_environment(ENVIRON, None)
        self.answer: Handler = lambda *_: None
        self.lost: list[str] = []
        self.far = Channel(self._answer, lambda: None)
        self.near = Channel(lambda *_: None, lambda: self.lost.append("lost"))
        self.cache, self.metrics = new_token_cache(settings.caches), Metrics()
        clocks = clocks or Clocks()
        self.provider = ProviderChannel(
            self.near, settings, cache=self.cache, metrics=self.metrics, clocks=clocks
        )
        self.service = Service(settings, self.provider, cache=self.cache, metrics=self.metrics, clocks=clocks)
        self.keys = ChannelKeys(self.provider, "entra_id", clocks)

    def _answer(self, name: str, fields: Fields) -> Fields | None:
        return self.answer(name, fields)


@asynccontextmanager
async def running(both: Ends) -> AsyncIterator[Ends]:
    one, other = socket.socketpair()
    await both.near.open(one)
    await both.far.open(other)
    await both.service.start()
    yield both
    await both.keys.aclose()
    await both.service.aclose()
    both.near.abort()
    both.far.abort()


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    async with running(Ends()) as both:
        yield both


@pytest_asyncio.fixture
async def still() -> AsyncIterator[Ends]:
    """With clocks that stand still: 1000 seconds, and 1,800,000,000 since the epoch."""
    async with running(Ends(Clocks(wall=lambda: 1_800_000_000.0, monotonic=lambda: 1000.0))) as both:
        yield both


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


TARGET = "api://c.n.a/.default"


class Recorded:
    """Answers every message with the same fields, and keeps what it was."""

    def __init__(self, ends: Ends, **answer: Any) -> None:
        self.messages: list[tuple[str, Fields]] = []
        self.answer = answer
        ends.answer = self

    def __call__(self, name: str, fields: Fields) -> Fields:
        self.messages.append((name, fields))
        return self.answer


def announced(ends: Ends, subject: str | None = None, **changes: Any) -> None:
    """A token that the provider process announces: one hour from now on, by clocks that stand still."""
    key = token_key(ends.service.settings.providers[0], TARGET, subject)
    fields: Fields = {"token": "cached", "expires_in": 3600.0, "monotonic": 1000.0, "renew_in": None}
    fields |= {"key": key.hex(), "subject_expires_at": None, **changes}
    assert ends.provider.handle("token", fields)


async def test_all_of_a_request_reaches_the_provider_process(still: Ends) -> None:
    """Whatever a caller may say, with its trace; requests for one token say the same in the same words."""
    asked = Recorded(still, token="t", expires_in=60, at=1000.0)
    tokens = still.provider.tokens["entra_id"]
    details = {"resources": ("https://a", "https://b"), "authorization_details": "[{}]"}
    await tokens.acquire(TARGET, skip_cache=True, claims="{}", **details)  # type: ignore[arg-type]
    await tokens.acquire(TARGET)
    await tokens.exchange(TARGET, "user", claims="{}")
    tokens.renew(TARGET, "user", **details)  # type: ignore[arg-type]
    tokens.renew(TARGET)
    await tokens.acquire("api://c.n.b/.default")
    detailed = {**MESSAGE, "resources": ["https://a", "https://b"], "authorization_details": "[{}]"}
    assert asked.messages == [
        ("token", {**detailed, "skip_cache": True, "claims": "{}"}),
        ("token", {**MESSAGE, "skip_cache": False, "claims": None}),
        ("token", {**MESSAGE, "subject_token": "user", "skip_cache": False, "claims": "{}"}),
        ("renew", {**detailed, "subject_token": "user"}),
        ("renew", MESSAGE),
        ("token", {**MESSAGE, "target": "api://c.n.b/.default", "skip_cache": False, "claims": None}),
    ]


@pytest.mark.parametrize(
    ("answer", "left", "cached"),
    [
        ({"expires_in": 60, "at": 1000.0}, 60, False),
        ({"expires_in": 60, "at": 984.1, "cached": False}, 45, False),
        ({"expires_in": 60, "at": 1.0, "cached": True}, 0, True),
    ],
)
async def test_an_answer_may_have_taken_its_time(
    still: Ends, answer: Fields, left: int, cached: bool
) -> None:
    """The whole seconds since it was given are not left, and never fewer than none."""
    Recorded(still, token="t", **answer)
    token = await still.provider.tokens["entra_id"].acquire(TARGET)
    assert (token.access_token, token.expires_in, token.cached) == ("t", left, cached)


async def test_a_cached_token_is_one_that_nobody_was_asked_for(still: Ends) -> None:
    """That of the application, and that of a user until the user's token has expired."""
    asked = Recorded(still, token="fetched", expires_in=60, at=1000.0)
    tokens = still.provider.tokens["entra_id"]
    announced(still)
    announced(still, "user", expires_in=50.0, subject_expires_at=1_800_000_050.0)
    own, users = await tokens.acquire(TARGET), await tokens.exchange(TARGET, "user")
    assert (own.access_token, own.expires_in, own.cached) == ("cached", 3600, True)
    assert (users.access_token, users.expires_in, users.cached) == ("cached", 50, True)
    assert asked.messages == []
    announced(still, "user", subject_expires_at=1_800_000_000.0)
    assert (await tokens.exchange(TARGET, "user")).access_token == "fetched"


async def test_a_token_in_its_last_seconds_beats_a_provider_process_that_is_gone(still: Ends) -> None:
    """As it would beat an error of the provider; a user's token that has expired ends it as well."""
    still.far.abort()
    async with asyncio.timeout(60):
        while not still.lost:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    tokens = still.provider.tokens["entra_id"]
    announced(still, monotonic=1000.0 - 3590)
    token = await tokens.acquire(TARGET)
    assert (token.access_token, token.expires_in, token.cached) == ("cached", 10, True)
    announced(still, "user", monotonic=1000.0 - 3590, subject_expires_at=1_800_000_000.0)
    with pytest.raises(ProviderError) as caught:
        await tokens.exchange(TARGET, "user")
    assert (caught.value.code, caught.value.message) == (
        "hub_unavailable",
        "the provider process does not respond",
    )


async def test_why_there_are_no_keys_is_asked_of_the_provider_process(still: Ends) -> None:
    """Which may know a reason."""
    asked = Recorded(still, again=False, reason="the host did not answer")
    assert await still.provider.keys_problem("entra_id") == "the host did not answer"
    question = {"provider": "entra_id", "cause": "keys_unavailable", "kid": None, "seen": 0}
    assert asked.messages == [("keys", question)]


async def test_why_a_token_cannot_be_verified(still: Ends) -> None:
    """The last that is known: from an announcement, or from an answer."""
    keys = still.keys
    assert (keys.unavailable().code, keys.unavailable().message) == (
        "keys_unavailable",
        "keys of the token issuer are not available: they have not been fetched yet",
    )
    keys.announced(None, "no keys: announced", 1)
    assert keys.unavailable().message == "no keys: announced"
    Recorded(still, again=False, reason="no keys: answered")
    assert await keys.refresh_for(Cause.NO_KEYS, None) is False
    assert keys.unavailable().message == "no keys: answered"


async def test_which_tokens_cause_a_question(still: Ends) -> None:
    """Not one whose key is there, unless its signature has failed; and none during the cool-down, which ends
    at its end. The question names the key set that the token was verified with."""
    asked = Recorded(still, again=True, reason=None)
    keys = still.keys
    keys.announced(KeySet(jwks(signer())), None, 7)
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, "key-1")
    assert asked.messages == []
    keys.cool_downs[Cause.UNKNOWN_KEY] = 1000.1
    assert not await keys.refresh_for(Cause.UNKNOWN_KEY, "new")
    assert not await keys.refresh_for(Cause.UNKNOWN_KEY, None)
    assert asked.messages == []
    keys.cool_downs[Cause.UNKNOWN_KEY] = 1000.0
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, None)
    assert await keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    both = {"provider": "entra_id", "seen": 7}
    assert asked.messages == [
        ("keys", {**both, "cause": "unknown_key", "kid": None}),
        ("keys", {**both, "cause": "signature_invalid", "kid": "key-1"}),
    ]


async def test_those_that_wait_are_called_by_the_question_that_is_open(still: Ends) -> None:
    """Whatever its cause, and although another one has been answered."""
    open_question: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    answered: Fields = {"again": True, "reason": None}
    causes = {"unknown_key": answered, "signature_invalid": open_question}
    still.answer = lambda _, fields: causes[fields["cause"]]  # type: ignore[assignment, return-value]
    assert await still.keys.refresh_for(Cause.UNKNOWN_KEY, "new")
    waiting = asyncio.ensure_future(still.keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1"))
    await asyncio.sleep(0)
    called: list[bool] = []
    assert still.keys.call_when_fetched(lambda: called.append(True))
    assert called == []
    open_question.set_result({"again": False, "reason": None})
    assert not await waiting
    await asyncio.sleep(0)
    assert called == [True]


async def test_a_question_that_fails_brings_no_key(still: Ends) -> None:
    """Whatever the provider process says."""

    async def fail(_: str, __: Fields) -> Fields:
        raise EntraFastError("unheard_of", "no")

    still.answer = fail  # type: ignore[assignment]
    assert not await still.keys.refresh_for(Cause.UNKNOWN_KEY, "new")


async def test_what_is_announced_is_applied(still: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's issuer and keys, that it has none and why, and that a faster way to verify signatures is
    not to be trusted."""
    changes: list[tuple[object, ...]] = []

    class Changes:
        def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
            changes.append((provider, issuer, type(keys)))

        def keys_changed(self, provider: str, keys: KeySet | None) -> None:
            changes.append((provider, None if keys is None else keys.kids))

        def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
            changes.append((provider, dict(until)))

    await still.provider.start(Changes())
    monkeypatch.setattr(_native, "distrust_fast_signatures", lambda: changes.append(("distrusted",)))
    keys = still.provider._keys["entra_id"]
    for name, fields in (
        ("provider", {"provider": "entra_id", "issuer": ISSUER}),
        ("keys", {"provider": "entra_id", "text": jwks(signer()), "reason": None, "version": 1}),
        ("keys", {"provider": "entra_id", "text": None, "reason": "gone", "version": 2}),
        ("cool_downs", {"provider": "entra_id", "until": {"unknown_key": 1060.0}}),
        ("signatures_distrusted", {}),
    ):
        assert still.provider.handle(name, fields)
    until = {Cause.NO_KEYS: -math.inf, Cause.UNKNOWN_KEY: 1060.0, Cause.FAILED_SIGNATURE: -math.inf}
    assert changes == [
        ("entra_id", ISSUER, ChannelKeys),
        ("entra_id", ("key-1",)),
        ("entra_id", None),
        ("entra_id", until),
        ("distrusted",),
    ]
    assert (keys.unavailable().message, keys._version, keys.cool_downs) == ("gone", 2, until)
    await still.provider.start(still.service)


async def test_closing_a_worker_closes_its_questions() -> None:
    """The callers that wait for their answer go on."""
    async with running(Ends()) as ends:
        never: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        ends.answer = lambda *_: never  # type: ignore[assignment]
        keys = ends.provider._keys["entra_id"]
        waiting = asyncio.ensure_future(keys.refresh_for(Cause.UNKNOWN_KEY, "new"))
        await asyncio.sleep(0)
        await ends.provider.aclose()
        assert not await waiting
        assert ends.near.is_open
        never.cancel()
