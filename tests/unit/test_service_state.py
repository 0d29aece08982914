"""What a service makes of its settings: caches and their limits, clocks, the access log, and what metrics say
about itself."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from entra_fast import _native
from entra_fast._metric_kinds import DURATION_BUCKETS, TEXAS_BUCKETS
from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache, token_cache_key
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.service import Service, new_metrics, new_token_cache
from support.fast_path import (
    EXCHANGE,
    INTROSPECT,
    TARGET,
    TOKEN,
    introspection,
    json_request,
    token_request,
)
from support.keys import Key
from support.provider import CLIENT_ID, Provider
from support.several import ENTRA, MASKINPORTEN, several
from support.sidecars import StartSidecar, eventually


@dataclass
class Serving:
    """A service at real providers, and its parts."""

    service: Service
    clients: ProviderClients
    cache: TokenCache
    metrics: Metrics

    async def start(self) -> None:
        """Until there are keys of every provider."""
        await self.service.start()
        await eventually(self._has_keys)

    async def _has_keys(self) -> bool:
        return self.clients.have_keys


def serving(environ: dict[str, str], clocks: Clocks | None = None) -> Serving:
    settings = Settings.from_environment(environ, None)
    clocks = clocks or Clocks()
    cache, metrics = new_token_cache(settings.caches), new_metrics(settings.server)
    clients = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    service = Service(settings, clients, cache=cache, metrics=metrics, clocks=clocks)
    return Serving(service, clients, cache, metrics)


@pytest_asyncio.fixture
async def tidy() -> AsyncIterator[list[Serving]]:
    """Services that are closed at the end."""
    opened: list[Serving] = []
    yield opened
    for each in opened:
        await each.service.aclose()


async def test_closing_ends_everything_that_runs(provider: Provider) -> None:
    """No task stays behind: neither sweeps, nor those that fetch keys, endpoints or tokens."""

    def tasks() -> set[str]:
        coroutines = {str(task.get_coro()) for task in asyncio.all_tasks()}
        return {name for name in coroutines if "RequestHandler" not in name}  # those of the provider

    before = tasks()
    one = serving(provider.environment())
    await one.start()
    assert {name.split()[2] for name in tasks() - before} >= {
        "LoopSweeps._sweep_forever",
        "AsyncKeys._refresh_forever",
    }
    await one.service.aclose()
    assert tasks() == before
    provider.failing = True
    early = serving(provider.environment())
    await early.service.start()
    await asyncio.sleep(0)
    assert tasks() > before
    await early.service.aclose()
    assert tasks() == before
    for client in one.clients.clients.values():
        for http in (client._token_http, client._key_http):
            assert http._session is None or http._session.closed


@pytest.mark.parametrize(
    ("enabled", "level", "logged"),
    [("true", "info", True), ("true", "debug", True), ("true", "warning", False), ("false", "debug", False)],
)
def test_requests_are_logged_where_their_level_is(
    provider: Provider, enabled: str, level: str, logged: bool
) -> None:
    """The access log has the level `info`."""
    environ = provider.environment(ENTRA_FAST_ACCESS_LOG=enabled, ENTRA_FAST_LOG_LEVEL=level)
    assert (serving(environ).service.access_log.native is not None) is logged


async def test_a_token_is_judged_by_the_clock_that_the_service_was_given(
    provider: Provider, tidy: list[Serving]
) -> None:
    """Also where it is not the system's, on the slow path and in the caches."""
    now = 2_000_000_000.0
    one = serving(provider.environment(), Clocks(lambda: now, time.monotonic))
    tidy.append(one)
    await one.start()
    assert b'"active":false' in await one.service.introspect(0, provider.mint())  # it has expired by then
    token = provider.mint(iat=int(now), nbf=int(now), exp=int(now) + 600)
    assert b'"active":true' in await one.service.introspect(0, token)
    now += 700
    assert b'"active":false' in await one.service.introspect(0, token)


async def test_what_has_expired_is_removed_by_the_clocks_that_the_service_was_given(
    provider: Provider, tidy: list[Serving]
) -> None:
    """From both caches, part by part."""
    wall, monotonic = 2_000_000_000.0, 10.0
    one = serving(provider.environment(), Clocks(lambda: wall, lambda: monotonic))
    tidy.append(one)
    await one.start()
    await one.service.introspect(0, provider.mint(iat=int(wall), nbf=int(wall), exp=int(wall) + 600))
    one.cache.put(token_cache_key("x", ["a"]), "token", 600.0, monotonic=monotonic)

    def entries() -> tuple[int, int]:
        for _ in range(64):
            one.service._sweep_part()
        return one.service._verification_stats()["cache_entries"], one.cache.stats()["entries"]

    assert entries() == (1, 1)
    wall += 700
    assert entries() == (0, 1)
    monotonic += 700
    assert entries() == (0, 0)


async def test_providers_share_the_limits_of_the_verification_cache(tidy: list[Serving]) -> None:
    """Each has a part of the entries and of the bytes for itself."""
    async with several(ENTRA, MASKINPORTEN) as running:
        for limits, stays in (
            ({"ENTRA_FAST_VERIFIED_CACHE_ENTRIES": "64"}, 32),
            ({"ENTRA_FAST_VERIFIED_CACHE_ENTRIES": "1000"}, 100),
            ({"ENTRA_FAST_VERIFIED_CACHE_BYTES": "100000"}, None),
        ):
            one = serving(running.environment(**limits))
            tidy.append(one)
            await one.start()
            for _ in range(100):
                assert b'"active":true' in await one.service.introspect(0, running.mint("entra_id"))
            stats = one.service._verification_stats()
            if stays is None:
                assert 0 < stats["cache_bytes"] <= 50_000
            else:
                assert stays / 2 <= stats["cache_entries"] <= stays
            assert stats["cache_misses"] == 100


def test_the_token_cache_has_the_limits_of_the_settings(provider: Provider) -> None:
    """Entries, and bytes."""
    for limits, most in (
        ({"ENTRA_FAST_CACHE_MAX_ENTRIES": "20"}, 20),
        ({"ENTRA_FAST_CACHE_MAX_ENTRIES": "100000", "ENTRA_FAST_CACHE_MAX_BYTES": "1000000"}, 99),
    ):
        settings = Settings.from_environment(provider.environment(**limits), None)
        cache = new_token_cache(settings.caches)
        for number in range(200):
            key = token_cache_key("x", [str(number)])
            cache.put(key, f"{number}" + "x" * 10_000, 600.0, monotonic=10.0)
        assert most / 2 <= cache.stats()["entries"] <= most


@pytest.mark.parametrize(("wanted", "there"), [("true", True), ("false", False)])
def test_texas_s_metrics_are_there_on_request(provider: Provider, wanted: str, there: bool) -> None:
    """With the resource attributes as labels."""
    settings = Settings.from_environment(provider.environment(ENTRA_FAST_TEXAS_METRICS=wanted), None)
    metrics = new_metrics(settings.server)
    assert bool(metrics.texas) is there
    assert ("texas_handler_requests" in str([metric.name for metric, _ in metrics.merged()])) is there


async def test_metrics_say_how_the_service_is_set_up(provider: Provider) -> None:
    """The container's limit, hosts that may be asked over plain http, and whether the fast path is open."""
    host = "provider.example"
    for fast_path, is_open, signatures in (("true", True, "fast"), ("false", False, "aws-lc")):
        environ = provider.environment(
            ENTRA_FAST_INSECURE_PROVIDER_HOSTS=host,
            ENTRA_FAST_FAST_PATH=fast_path,
            ENTRA_FAST_SIGNATURES=signatures,
        )
        one = serving(environ)
        service, metrics = one.service, one.metrics
        assert metrics.insecure_hosts.read() == 1
        assert metrics.memory_limit.read() == (service.settings.caches.memory_limit or 0)
        assert metrics.fast_path.read() == is_open
        (labels,) = metrics.build_info.figures()
        names = [label.name for label in metrics.build_info.labels]
        assert dict(zip(names, labels, strict=True)) == {
            "version": _native.__version__,
            "python": platform.python_version(),
            "rust": _native.RUST_VERSION,
            "rsa": "rind" if signatures == "fast" and _native.signature_figures()["fast"] else "aws-lc",
            "fast_path": fast_path,
        }
        if service.fast_path is not None:
            service.fast_path.open = False
            assert metrics.fast_path.read() == 0
            (labels,) = metrics.build_info.figures()
            assert dict(zip(names, labels, strict=True))["fast_path"] == "false"


def test_the_policy_has_what_was_configured(provider: Provider) -> None:
    """A choice of library that there is not is refused: it reaches the policy."""
    settings = Settings.from_environment(provider.environment(), None)
    with pytest.raises(ConfigurationError, match="signatures must be fast or aws-lc"):
        policy_for(provider.issuer, settings.providers[0], "other")


@pytest.mark.parametrize(("signatures", "confirmed"), [("fast", True), ("aws-lc", False)])
async def test_signatures_are_verified_by_the_library_of_the_settings(
    provider: Provider, tidy: list[Serving], signatures: str, confirmed: bool
) -> None:
    """A sample of what the fast one rejects is confirmed by AWS-LC, which has nobody to confirm it."""
    one = serving(provider.environment(ENTRA_FAST_SIGNATURES=signatures))
    tidy.append(one)
    await one.start()
    before, token = _native.signature_figures()["agreed"], provider.mint()
    for serial in range(200):
        tampered = f"{token[:-12]}{serial:08}AAAA"
        assert b'"active":false' in await one.service.introspect(0, tampered)
    assert (_native.signature_figures()["agreed"] > before) is confirmed


async def test_a_token_must_say_when_it_was_issued(provider: Provider, tidy: list[Serving]) -> None:
    """`iat`, as Texas requires it; and which key has signed it."""
    one = serving(provider.environment())
    tidy.append(one)
    await one.start()
    assert b'"active":true' in await one.service.introspect(0, provider.mint())
    for wrong in (provider.mint(iat=None), provider.mint(header={"kid": None})):
        assert b'"active":false' in await one.service.introspect(0, wrong)


@pytest.mark.parametrize("cause", [Cause.UNKNOWN_KEY, Cause.FAILED_SIGNATURE])
async def test_the_fast_path_answers_while_keys_may_not_be_asked_for(
    cause: Cause, tidy: list[Serving]
) -> None:
    """For each cause of its own, and for each provider: an unknown key or a failed signature is answered in
    native code during the cool-down, and needs keys at any other time."""
    foreign = Key.generate()
    async with several(ENTRA, MASKINPORTEN) as running:
        one = serving(running.environment())
        tidy.append(one)
        await one.start()
        fast_path = one.service.fast_path
        assert fast_path is not None

        def answered(provider: str) -> dict[Cause, int]:
            found = {}
            for each, key in ((Cause.UNKNOWN_KEY, foreign), (Cause.FAILED_SIGNATURE, running[provider].key)):
                token = running.mint(provider, key=key)
                if each is Cause.FAILED_SIGNATURE:
                    token = token[:-8] + ("A" * 8 if not token.endswith("A" * 8) else "B" * 8)
                fields = {"identity_provider": provider, "token": token}
                found[each] = fast_path.native.serve(json_request(INTROSPECT, fields)).answered
            return found

        neither = {Cause.UNKNOWN_KEY: 0, Cause.FAILED_SIGNATURE: 0}
        assert answered("entra_id") == answered("maskinporten") == neither
        until = dict.fromkeys(Cause, 0.0) | {cause: Clocks().monotonic() + 100}
        one.service.cool_downs_changed("maskinporten", until)
        assert answered("entra_id") == neither
        assert answered("maskinporten") == {**neither, cause: 1}
        one.service.cool_downs_changed("maskinporten", dict.fromkeys(Cause, 0.0))
        assert answered("maskinporten") == neither


async def test_rejections_of_both_paths_are_counted_together(tidy: list[Serving]) -> None:
    """By provider and code, with an example of each for the log: what was expected, and what was received
    where the signature was verified. An example is given once."""
    async with several(ENTRA, MASKINPORTEN) as running:
        one = serving(running.environment())
        tidy.append(one)
        await one.start()
        service, metrics = one.service, one.metrics
        assert service.fast_path is not None

        def wrong(provider: str, **claims: object) -> str:
            return running.mint(provider, **claims)

        def by_fast_path(provider: str, token: str) -> None:
            request = json_request(INTROSPECT, {"identity_provider": provider, "token": token})
            assert service.fast_path is not None
            assert service.fast_path.native.serve(request).answered == 1

        by_fast_path("entra_id", wrong("entra_id", aud="other"))
        by_fast_path("entra_id", wrong("entra_id"))
        by_fast_path("maskinporten", wrong("maskinporten", iss="other"))
        by_fast_path("maskinporten", "no token")
        assert service.rejections.take_examples() == {
            "entra_id": {"wrong_audience": {"expected": CLIENT_ID, "received": "other"}},
            "maskinporten": {
                "wrong_issuer": {"expected": running["maskinporten"].issuer, "received": "other"},
                "not_a_jwt": {"expected": "three segments"},
            },
        }
        assert service.rejections.take_examples() == {}
        await service.introspect(0, wrong("entra_id", aud="another"))
        await service.introspect(0, wrong("entra_id"))
        await service.introspect(1, wrong("maskinporten", exp=1))
        service.rejections.add_code("invalid_request", "none")
        examples = service.rejections.take_examples()
        assert examples["entra_id"] == {"wrong_audience": {"expected": CLIENT_ID, "received": "another"}}
        assert "received" not in examples["maskinporten"]["token_expired"]
        assert examples.keys() == {"entra_id", "maskinporten"}
        assert service.rejections.take_examples() == {}
        assert {key: count for key, (count,) in metrics.introspections.figures().items()} == {
            ("true", "entra_id"): 2,
            ("false", "entra_id"): 2,
            ("false", "maskinporten"): 3,
            ("false", "none"): 1,
        }
        assert {key: count for key, (count,) in metrics.introspections_rejected.figures().items()} == {
            ("wrong_audience", "entra_id"): 2,
            ("wrong_issuer", "maskinporten"): 1,
            ("not_a_jwt", "maskinporten"): 1,
            ("token_expired", "maskinporten"): 1,
            ("invalid_request", "none"): 1,
        }


async def test_what_native_code_answers_is_counted_and_logged(
    provider: Provider, tidy: list[Serving], capfd: pytest.CaptureFixture[str]
) -> None:
    """Under our names and under Texas's: requests, cached tokens, and durations in the buckets of each."""
    one = serving(provider.environment(ENTRA_FAST_TEXAS_METRICS="true", ENTRA_FAST_ACCESS_LOG="true"))
    tidy.append(one)
    await one.start()
    assert one.service.fast_path is not None
    native = one.service.fast_path.native
    await one.clients.tokens["entra_id"].acquire(TARGET)
    user = provider.mint(exp=4_000_000_000)
    await one.clients.tokens["entra_id"].exchange(TARGET, user)
    exchange = {"identity_provider": "entra_id", "target": TARGET, "user_token": user}
    for request, count in (
        (token_request(), 3),
        (json_request(EXCHANGE, exchange), 2),
        (introspection(user), 1),
    ):
        for _ in range(count):
            assert native.serve(request).answered == 1
    figures = one.metrics.figures()
    assert dict(figures["entra_fast_requests_total"]) == {
        ("token", "200", "entra_id"): [3],
        ("exchange", "200", "entra_id"): [2],
        ("introspect", "200", "entra_id"): [1],
    }
    assert figures["entra_fast_token_cache_entries"] == [((), [2])]
    assert figures["entra_fast_verified_cache_entries"] == [((), [1])]
    cached = {("token", "entra_id"): [3], ("exchange", "entra_id"): [2]}
    assert dict(figures["entra_fast_tokens_from_cache_total"]) == cached
    durations = dict(figures["entra_fast_request_duration_seconds"])
    assert {key: sum(counts) for key, (*counts, _) in durations.items()} == {
        ("token",): 3,
        ("exchange",): 2,
        ("introspect",): 1,
    }
    assert {len(numbers) for numbers in durations.values()} == {len(DURATION_BUCKETS) + 2}
    metrics = one.metrics
    responses = metrics.texas_response_seconds.figures()
    assert {key: sum(counts) for key, (*counts, _) in responses.items()} == {
        ("200", TOKEN): 3,
        ("200", EXCHANGE): 2,
        ("200", INTROSPECT): 1,
    }
    assert {len(numbers) for numbers in responses.values()} == {len(TEXAS_BUCKETS) + 2}
    assert metrics.texas_requests.figures() == {
        (TOKEN, "entra_id", "token"): [3],
        (EXCHANGE, "entra_id", "token_exchange"): [2],
        (INTROSPECT, "entra_id", "token_introspection"): [1],
    }
    assert metrics.texas_cache_hits.figures() == {(TOKEN, "entra_id"): [3], (EXCHANGE, "entra_id"): [2]}
    one.service.access_log.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"path"' in line]
    assert [line["path"] for line in lines] == [TOKEN] * 3 + [EXCHANGE] * 2 + [INTROSPECT]


async def test_the_fast_path_checks_callers_by_the_settings(provider: Provider, tidy: list[Serving]) -> None:
    """A host that is not allowed is left to the slow path, which refuses it."""
    for allowed, answered in ((None, 0), ("sidecar.example", 1)):
        one = serving(provider.environment(ENTRA_FAST_ALLOWED_HOSTS=allowed))
        tidy.append(one)
        await one.start()
        assert one.service.fast_path is not None
        request = introspection("no token", Host="sidecar.example")
        assert one.service.fast_path.native.serve(request).answered == answered


async def test_rejections_without_a_fast_path(provider: Provider, tidy: list[Serving]) -> None:
    """Those of the slow path are all there are; a rejection without a token has no example."""
    one = serving(provider.environment(ENTRA_FAST_FAST_PATH="false"))
    tidy.append(one)
    assert b'"active":false' in await one.service.introspect(0, provider.mint())  # there are no keys yet
    assert one.service.rejections.take_examples() == {}
    assert one.metrics.introspections.figures() == {("false", "entra_id"): [1]}
    assert one.metrics.introspections_rejected.figures() == {("keys_unavailable", "entra_id"): [1]}
    await one.start()
    await one.service.introspect(0, provider.mint(aud="other"))
    examples = one.service.rejections.take_examples()
    assert examples == {"entra_id": {"wrong_audience": {"expected": CLIENT_ID, "received": "other"}}}
    assert one.service.rejections.take_examples() == {}


async def test_a_sidecar_without_a_fast_path_needs_no_cool_downs(start: StartSidecar) -> None:
    """They are told to native code only."""
    sidecar = await start(ENTRA_FAST_FAST_PATH="false")
    until = dict.fromkeys(Cause, 7.0)
    sidecar.running.service.cool_downs_changed("entra_id", until)
    assert (await sidecar.call.token()).status == 200
