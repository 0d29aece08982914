"""Finding the provider's endpoints despite unexpected failures."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable

import pytest

from entra_fast._metrics import Metrics
from entra_fast._provider import endpoints
from entra_fast._provider.discovery_document import DiscoveryError
from entra_fast._provider.endpoints import COOL_DOWN, FIRST_PAUSE, EndpointFinder, Endpoints, fetch_document
from entra_fast._provider.http_rules import HttpFailure, HttpResponse
from entra_fast._providers import IDPORTEN
from entra_fast._settings.model import CredentialSettings, ProviderSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import ProviderError

URL = "https://login.example/t/.well-known/openid-configuration"
DOCUMENT = (
    b'{"issuer":"https://login.example/t","jwks_uri":"https://login.example/k",'
    b'"token_endpoint":"https://login.example/token"}'
)


class Http:
    """Answers with a document, or fails."""

    def __init__(self) -> None:
        self.failure: Exception | None = RuntimeError("defect")
        self.answer = HttpResponse(200, {}, DOCUMENT)

    async def get(self, url: str, *, accept: str = "") -> HttpResponse:
        assert (url, accept) == (URL, "")
        if self.failure is not None:
            raise self.failure
        return self.answer

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.fixture
def http() -> Http:
    return Http()


@pytest.fixture
def finder(http: Http, monkeypatch: pytest.MonkeyPatch) -> EndpointFinder:
    monkeypatch.setattr(endpoints, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(endpoints, "COOL_DOWN", 0.0)
    settings = ProviderSettings(
        client_id="client",
        tenant_id="t",
        well_known_url=URL,
        issuer=None,
        jwks_uri=None,
        token_endpoint=None,
        credentials=CredentialSettings(client_secret=Secret("AZURE_APP_CLIENT_SECRET", "secret")),
    )
    return EndpointFinder(settings, http, Metrics())


async def test_a_defect_is_logged_once_and_shown(
    finder: EndpointFinder, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    """With its cause; attempts continue, and the endpoints are found once they are available."""
    found: list[Endpoints] = []
    with caplog.at_level(logging.ERROR):
        finder.start(found.append)
        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await finder.find()
            assert caught.value.code == "endpoints_unknown"
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["defect"]
    assert finder.problem == "the provider's endpoints are not known: fetching failed with RuntimeError"
    http.failure = None
    async with asyncio.timeout(10):
        while not found:  # noqa: ASYNC110 - found in the background
            await asyncio.sleep(0)
    assert finder.problem is None
    assert (await finder.find()).token_endpoint == "https://login.example/token"
    await finder.aclose()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            b'{"error":"invalid_tenant","error_description":"AADSTS90002: Tenant \'t\' not found."}',
            " (AADSTS90002)",
        ),
        (b"<html>canary</html>", ""),
    ],
)
async def test_a_tenant_that_does_not_exist_is_named_by_its_code(
    finder: EndpointFinder, http: Http, body: bytes, shown: str
) -> None:
    """Entra ID refuses the discovery document; nothing else of its answer is repeated."""
    http.failure, http.answer = None, HttpResponse(400, {}, body)
    with pytest.raises(ProviderError) as caught:
        await finder.find()
    assert caught.value.message.endswith(f"answered 400 instead of 200{shown}")
    assert "canary" not in caught.value.message


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that were made, the longest that chance allows; none takes any time."""
    made: list[float] = []
    pass_turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            made.append(seconds)
        await pass_turn(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", max)
    return made


async def test_a_request_without_an_answer_is_repeated_once_after_a_pause(
    finder: EndpointFinder, http: Http, pauses: list[float]
) -> None:
    """The connection may work again in a moment. A refusal would be the same."""
    http.failure = HttpFailure("connect_failed", "no")
    with pytest.raises(ProviderError):
        await finder.find()
    assert pauses == [0.25]
    http.failure, http.answer = None, HttpResponse(404, {}, b"")
    with pytest.raises(ProviderError):
        await finder.find()
    assert pauses == [0.25]


@pytest.mark.parametrize(("chance", "share"), [(max, 1.0), (min, 0.5)])
async def test_pauses_in_the_background_are_doubled_up_to_half_a_minute(
    finder: EndpointFinder,
    http: Http,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    chance: Callable[[float, float], float],
    share: float,
) -> None:
    """Until the endpoints are found; by chance they are up to a half shorter, so that processes do not ask in
    step."""
    monkeypatch.setattr(random, "uniform", chance)
    monkeypatch.setattr(endpoints, "FIRST_PAUSE", FIRST_PAUSE)
    http.failure, http.answer = None, HttpResponse(503, {}, b"")
    found = asyncio.Event()
    finder.start(lambda _: found.set())
    async with asyncio.timeout(5):
        while len(pauses) < 8:  # noqa: ASYNC110 - made in the background
            await asyncio.sleep(0)
        http.answer = HttpResponse(200, {}, DOCUMENT)
        await found.wait()
    assert pauses[:8] == [share * pause for pause in (0.5, 1, 2, 4, 8, 16, 30, 30)]
    await finder.aclose()


async def test_an_issuer_from_the_settings_is_the_one_that_counts(finder: EndpointFinder, http: Http) -> None:
    """A document that names another one, as behind a proxy, is read for its endpoints only."""
    finder._settings = dataclasses.replace(finder._settings, issuer="https://named.example")
    http.failure = None
    http.answer = HttpResponse(200, {}, DOCUMENT.replace(b'login.example/t"', b'other.example/t"'))
    found = await finder.find()
    assert (found.issuer, found.jwks_uri) == ("https://named.example", "https://login.example/k")


async def test_a_failure_answers_for_a_second(
    finder: EndpointFinder, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that come then ask for no further document, and each gets an error of its own."""
    now = 1000.0
    monkeypatch.setattr(endpoints, "COOL_DOWN", COOL_DOWN)
    monkeypatch.setattr(finder, "_monotonic", lambda: now)
    http.failure, http.answer = None, HttpResponse(503, {}, b"")
    failures = []
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await finder.find()
        failures.append(caught.value)
        http.answer = HttpResponse(200, {}, DOCUMENT)
    assert str(failures[0]) == str(failures[1])
    assert failures[0] is not failures[1]
    now += 1
    assert (await finder.find()).jwks_uri == "https://login.example/k"


@pytest.mark.parametrize(
    ("failure", "answer", "counted"),
    [
        (None, HttpResponse(200, {}, DOCUMENT), {"ok": 1}),
        (None, HttpResponse(503, {}, b""), {"discovery_failed": 1}),
        (None, HttpResponse(200, {}, b"{}"), {"discovery_malformed": 1}),
        (HttpFailure("dns_failed", "no"), None, {"dns_failed": 2}),
    ],
)
async def test_each_attempt_is_counted(
    finder: EndpointFinder,
    http: Http,
    pauses: list[float],
    failure: Exception | None,
    answer: HttpResponse,
    counted: dict[str, int],
) -> None:
    """By its outcome and provider; a request that is repeated counts twice."""
    http.failure, http.answer = failure, answer
    with contextlib.suppress(ProviderError):
        await finder.find()
    expected = {(outcome, "entra_id"): [count] for outcome, count in counted.items()}
    assert finder._metrics.discovery.figures() == expected


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"issuer": "i", "jwks_uri": "k", "token_endpoint": "t"}, False),
        ({"issuer": "i", "jwks_uri": "k"}, True),
        ({"jwks_uri": "k", "token_endpoint": "t"}, True),
        ({"issuer": "i", "token_endpoint": "t"}, True),
    ],
)
async def test_settings_that_name_everything_need_no_document(
    finder: EndpointFinder, http: Http, given: dict[str, str], asked: bool
) -> None:
    """Each that is set counts, and the document says the rest."""
    settings = dataclasses.replace(finder._settings, **given)  # type: ignore[arg-type]
    one = EndpointFinder(settings, http, Metrics())
    assert (one.endpoints is None) is asked
    assert one.problem == ("the discovery document has not been fetched yet" if asked else None)
    if asked:
        http.failure = None
    found = await one.find()
    assert found == Endpoints(
        given.get("issuer", "https://login.example/t"),
        given.get("jwks_uri", "https://login.example/k"),
        given.get("token_endpoint", "https://login.example/token"),
    )
    assert (await one.issuer(), await one.token_endpoint()) == (found.issuer, found.token_endpoint)


async def test_a_provider_that_issues_no_tokens_needs_no_token_endpoint(
    finder: EndpointFinder, http: Http
) -> None:
    """ID-porten: its document may leave it out."""
    settings = dataclasses.replace(finder._settings, kind=IDPORTEN)
    http.failure = None
    http.answer = HttpResponse(200, {}, DOCUMENT.replace(b"token_endpoint", b"another"))
    assert (await EndpointFinder(settings, http, Metrics()).find()).token_endpoint == ""
    settings = dataclasses.replace(settings, issuer="i", jwks_uri="k")
    assert EndpointFinder(settings, http, Metrics()).endpoints == Endpoints("i", "k", "")


async def test_closing_ends_the_search(
    finder: EndpointFinder, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not it has begun; its request, too."""
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(url: str, *, accept: str = "") -> HttpResponse:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    monkeypatch.setattr(http, "get", hang)
    await finder.aclose()
    finder.start(lambda _: None)
    await asked.wait()
    await finder.aclose()
    assert finder._until_known is not None
    assert finder._until_known.cancelled()
    assert cancelled.is_set()


async def test_the_whole_document_in_one_attempt(http: Http) -> None:
    """For logins, which need the pages for browsers, too; a failure is the caller's."""
    http.failure = None
    http.answer = HttpResponse(
        200, {}, DOCUMENT[:-1] + b',"authorization_endpoint":"https://login.example/authorize"}'
    )
    found = await fetch_document(http, URL, None)
    assert (found.issuer, found.jwks_uri) == ("https://login.example/t", "https://login.example/k")
    assert found.authorization_endpoint == "https://login.example/authorize"
    assert (await fetch_document(http, URL, "https://named.example")).issuer == "https://named.example"
    http.answer = HttpResponse(503, {}, b"")
    with pytest.raises(DiscoveryError) as caught:
        await fetch_document(http, URL, None)
    assert caught.value.code == "discovery_failed"
    assert caught.value.message == f"the discovery document's URL {URL} answered 503 instead of 200"
    http.failure = HttpFailure("dns_failed", "no")
    with pytest.raises(HttpFailure):
        await fetch_document(http, URL, None)
