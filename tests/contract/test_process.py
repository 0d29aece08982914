"""The process: start, refusal to start, signals, exit statuses, log lines."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from entra_fast import _native
from support.process import Process, Serve, served
from support.provider import CLIENT_KEY, Provider, after
from support.sidecars import eventually
from support.wire import Crowd, request_bytes


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts `entra-fast serve` with exactly the given environment."""
    async with served() as starter:
        yield starter


async def test_serves_until_sigterm_and_exits_with_0(serve: Serve, provider: Provider) -> None:
    """Start, work, drain, exit status 0; standard output stays empty, log lines are JSON."""
    process = await serve(provider.environment())
    caller = await process.listening()
    assert json.loads(process.lines[0])["version"] == _native.__version__

    async def ready() -> bool:
        return (await caller.get("/readyz")).status == 200

    await eventually(ready)
    assert (await caller.token()).status == 200

    async def said_so() -> bool:
        return process.logged('"ready"') == 1

    await eventually(said_so)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    assert await process.printed() == b""
    messages = [json.loads(line)["message"] for line in process.lines]
    assert messages == ["listening", "ready", "draining", "stopped"]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_application_starts_when_its_tokens_can_be_verified(
    serve: Serve, provider: Provider, workers: str
) -> None:
    """The start-up probe is refused until there are keys, and both of its paths answer alike."""
    provider.keys_held = asyncio.Event()
    process = await serve(provider.environment(ENTRA_FAST_WORKERS=workers, PROBE_BIND_ADDRESS="127.0.0.1:0"))
    caller = await process.listening()

    async def probed() -> set[tuple[int, bytes]]:
        answers = [await process.probes().get(path) for path in ("/healthz", "/")]
        return {(answer.status, answer.body) for answer in answers}

    assert await probed() == {(503, b"starting")}
    provider.keys_held.set()

    async def started() -> bool:
        return await probed() == {(200, b"ok")}

    await eventually(started)
    assert (await caller.introspect(provider.mint())).json["active"] is True


async def test_a_setting_that_does_not_exist_is_a_warning(serve: Serve, provider: Provider) -> None:
    """A misspelled name is reported; its value is not shown."""
    process = await serve(provider.environment(ENTRA_FAST_MAX_CONECTIONS="canary"))
    await process.listening()
    line = json.loads(process.lines[0])
    assert line["level"] == "warning"
    assert line["message"].startswith("unknown settings ignored: ENTRA_FAST_MAX_CONECTIONS")
    assert not process.logged("canary")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"AZURE_APP_JWK": '{"kty":"RSA","d":"canary"}'}, "AZURE_APP_JWK"),
        ({"AZURE_APP_JWK": None}, "AZURE_APP_JWK"),
        ({"BIND_ADDRESS": "nonsense"}, "BIND_ADDRESS"),
        ({"AZURE_APP_CLIENT_ID": None, "AZURE_ENABLED": "true"}, "AZURE_APP_CLIENT_ID"),
    ],
)
async def test_a_wrong_setting_stops_the_start(
    serve: Serve, provider: Provider, changes: dict[str, str | None], setting: str
) -> None:
    """One line that names the setting, exit status 2, nothing else printed, no secret in it."""
    process = await serve(provider.environment(**changes))
    assert await process.ended() == 2
    assert len(process.lines) == 1
    assert setting in process.lines[0]
    assert "canary" not in process.lines[0]
    assert await process.printed() == b""


JWK = json.loads(CLIENT_KEY.private_jwk())
PUBLIC_JWK = {name: JWK[name] for name in ("kty", "n", "e", "kid", "use", "alg")}
WITHOUT_KID = {name: value for name, value in JWK.items() if name != "kid"}
WITHOUT_PROVIDER = {"AZURE_ENABLED": "false"}
MASKINPORTEN = {
    "MASKINPORTEN_ENABLED": "true",
    "MASKINPORTEN_CLIENT_ID": "client",
    "MASKINPORTEN_CLIENT_JWK": json.dumps(JWK),
    "MASKINPORTEN_WELL_KNOWN_URL": "http://127.0.0.1:1/.well-known/oauth-authorization-server",
}
TOKEN_X = {
    "TOKEN_X_ENABLED": "true",
    "TOKEN_X_CLIENT_ID": "c:n:a",
    "TOKEN_X_PRIVATE_JWK": json.dumps(JWK),
    "TOKEN_X_WELL_KNOWN_URL": "http://127.0.0.1:1/.well-known/oauth-authorization-server",
}
IDPORTEN = {
    "IDPORTEN_ENABLED": "true",
    "IDPORTEN_AUDIENCE": "audience",
    "IDPORTEN_WELL_KNOWN_URL": "http://127.0.0.1:1/.well-known/openid-configuration",
}
GENERIC = {
    "ENTRA_FAST_PROVIDERS": "feide",
    "ENTRA_FAST_PROVIDER_FEIDE_ISSUER": "http://127.0.0.1:1",
    "ENTRA_FAST_PROVIDER_FEIDE_AUDIENCE": "audience",
}


def changed(base: dict[str, str], **changes: str | None) -> dict[str, str]:
    """The settings with some changed; None leaves one out."""
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("environ", "setting", "said"),
    [
        (changed(MASKINPORTEN, MASKINPORTEN_ENABLED="yes"), "MASKINPORTEN_ENABLED", "'true' or 'false'"),
        (changed(TOKEN_X, TOKEN_X_ENABLED="True"), "TOKEN_X_ENABLED", "'true' or 'false'"),
        (changed(IDPORTEN, IDPORTEN_ENABLED="1"), "IDPORTEN_ENABLED", "'true' or 'false'"),
        (changed(MASKINPORTEN, MASKINPORTEN_CLIENT_JWK=None), "MASKINPORTEN_CLIENT_JWK", "must be set"),
        (changed(TOKEN_X, TOKEN_X_PRIVATE_JWK=None), "TOKEN_X_PRIVATE_JWK", "must be set"),
        (changed(MASKINPORTEN, MASKINPORTEN_CLIENT_ID=None), "MASKINPORTEN_CLIENT_ID", "must be set"),
        (changed(IDPORTEN, IDPORTEN_AUDIENCE=None), "IDPORTEN_AUDIENCE", "must be set"),
        (changed(IDPORTEN, IDPORTEN_WELL_KNOWN_URL=None), "IDPORTEN_WELL_KNOWN_URL", "must be set"),
        (
            changed(MASKINPORTEN, MASKINPORTEN_CLIENT_JWK=json.dumps(WITHOUT_KID)),
            "MASKINPORTEN_CLIENT_JWK",
            "kid",
        ),
        (changed(TOKEN_X, TOKEN_X_PRIVATE_JWK=json.dumps(WITHOUT_KID)), "TOKEN_X_PRIVATE_JWK", "kid"),
        (
            changed(MASKINPORTEN, MASKINPORTEN_CLIENT_JWK=json.dumps(PUBLIC_JWK)),
            "MASKINPORTEN_CLIENT_JWK",
            "private",
        ),
        (changed(TOKEN_X, TOKEN_X_PRIVATE_JWK=json.dumps(PUBLIC_JWK)), "TOKEN_X_PRIVATE_JWK", "private"),
        (changed(TOKEN_X, TOKEN_X_PRIVATE_JWK="{canary"), "TOKEN_X_PRIVATE_JWK", "JWK"),
        (changed(GENERIC, ENTRA_FAST_PROVIDERS="x,x"), "ENTRA_FAST_PROVIDERS", "x"),
        (changed(GENERIC, ENTRA_FAST_PROVIDERS="tokenx"), "ENTRA_FAST_PROVIDERS", "tokenx"),
        (changed(GENERIC, ENTRA_FAST_PROVIDERS="azuread"), "ENTRA_FAST_PROVIDERS", "azuread"),
        (changed(GENERIC, ENTRA_FAST_PROVIDERS="Not-A-Name"), "ENTRA_FAST_PROVIDERS", "names of a-z"),
        (
            changed(GENERIC, ENTRA_FAST_PROVIDER_FEIDE_AUDIENCE=None),
            "ENTRA_FAST_PROVIDER_FEIDE_AUDIENCE",
            "none",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_setting_of_a_provider_stops_the_start(
    serve: Serve, environ: dict[str, str], setting: str, said: str
) -> None:
    """One line that names the setting and says what was expected, exit status 2, and no secret in it."""
    process = await serve({"BIND_ADDRESS": "127.0.0.1:0", **WITHOUT_PROVIDER, **environ})
    assert await process.ended() == 2
    assert await process.printed() == b""
    (line,) = process.lines
    assert line.startswith("entra-fast: ")
    assert setting in line
    assert said in line
    assert not [secret for secret in ("canary", JWK["d"], JWK["n"]) if secret in line]


async def test_the_environment_of_texas_starts_it(serve: Serve, provider: Provider) -> None:
    """All providers at once, with values that Texas takes or ignores; what has no effect is one warning."""
    process = await serve(
        {
            **provider.environment(),
            **MASKINPORTEN,
            **TOKEN_X,
            **IDPORTEN,
            "AZURE_ENABLED": "true",
            "PROBE_BIND_ADDRESS": "127.0.0.1:0",
            "RUST_LOG": "debug,hyper=off",
            "TEXAS_HTTP_CONNECT_TIMEOUT_MILLIS": "18446744073709551615",
            "TEXAS_HTTP_READ_TIMEOUT_MILLIS": "5s",
            "TEXAS_HTTP_MAX_RETRIES": "10",
            "TEXAS_HTTP_POOL_MAX_IDLE": "100",
        }
    )
    await process.listening()
    (line,) = (json.loads(line) for line in process.lines if "unknown settings" in line)
    assert "TEXAS_HTTP_POOL_MAX_IDLE (has no effect" in line["message"]
    assert "TEXAS_HTTP_READ_TIMEOUT_MILLIS (must be" in line["message"]
    assert line["level"] == "warning"
    answer = (await process.probes().get("/readyz")).json
    names = [each["name"] for each in answer["providers"]]
    assert names == ["entra_id", "maskinporten", "tokenx", "idporten"]
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    "environ",
    [{}, {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_APP_CLIENT_SECRET": "canary"}],
)
async def test_nothing_configured_stops_the_start(
    serve: Serve, environ: dict[str, str], workers: str
) -> None:
    """Also with variables of other platforms, which enable no provider: one line that says what does, exit
    status 2."""
    process = await serve({"BIND_ADDRESS": "127.0.0.1:0", "ENTRA_FAST_WORKERS": workers, **environ})
    assert await process.ended() == 2
    (line,) = process.lines
    assert "AZURE_APP_CLIENT_ID" in line
    assert "AZURE_ENABLED=false" in line
    assert "canary" not in line
    assert await process.printed() == b""


async def test_explicitly_no_provider_starts(serve: Serve) -> None:
    """AZURE_ENABLED=false: it listens, is ready, and refuses requests for tokens."""
    process = await serve({"BIND_ADDRESS": "127.0.0.1:0", "AZURE_ENABLED": "false"})
    caller = await process.listening()
    assert (await caller.get("/readyz")).status == 200
    assert (await caller.get("/healthz")).status == 200
    assert (await caller.token()).status == 400


async def test_a_taken_port_is_one_line(serve: Serve, provider: Provider) -> None:
    """The line names the setting and the address; exit status 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await serve(provider.environment(BIND_ADDRESS=address))
        assert await process.ended() == 2
    assert len(process.lines) == 1
    assert "BIND_ADDRESS" in process.lines[0]
    assert address in process.lines[0]
    assert "in use" in process.lines[0]


async def test_sigterm_lets_requests_under_way_finish(serve: Serve, provider: Provider) -> None:
    """A request that waits for the provider when SIGTERM comes is answered; exit status 0."""
    process = await serve(provider.environment())
    caller = await process.listening()
    release = asyncio.Event()
    provider.then(after(release, provider))
    waiting = asyncio.create_task(caller.token())
    await provider.asked(1)
    process.signal(signal.SIGTERM)
    await eventually(lambda: _has(process, "draining"))
    release.set()
    assert (await waiting).status == 200
    assert await process.ended() == 0


async def test_what_takes_longer_than_the_drain_time_is_cut_off(serve: Serve, provider: Provider) -> None:
    """The process ends within the drain time, with exit status 1 because a request was lost."""
    process = await serve(provider.environment(ENTRA_FAST_DRAIN_TIMEOUT_MILLIS="200"))
    caller = await process.listening()
    provider.then(after(asyncio.Event(), provider))
    waiting = asyncio.create_task(caller.token())
    await provider.asked(1)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await waiting


async def test_a_second_signal_is_immediate(serve: Serve, provider: Provider) -> None:
    """A second signal ends the process at once."""
    process = await serve(provider.environment(ENTRA_FAST_DRAIN_DELAY_MILLIS="600000"))
    await process.listening()
    process.signal(signal.SIGTERM)
    await eventually(lambda: _has(process, "draining"))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1


async def test_no_request_is_lost_over_sigterm(serve: Serve, provider: Provider) -> None:
    """Clients that keep calling over kept-alive connections get a response to every request that they
    sent."""
    process = await serve(provider.environment(ENTRA_FAST_DRAIN_DELAY_MILLIS="300"))
    caller = await process.listening()
    assert (await caller.token()).status == 200
    body = json.dumps({"identity_provider": "entra_id", "target": "api://c.n.a/.default"}).encode()
    request = request_bytes("POST", "/api/v1/token", body, {"Content-Type": "application/json"})
    crowd = Crowd(caller, request, 8)

    async def enough() -> bool:
        return crowd.answered >= 200

    await eventually(enough)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    await crowd.gone()
    assert crowd.lost == 0


async def test_an_access_log_is_written_when_asked_for(serve: Serve, provider: Provider) -> None:
    """One line per request with method, path, status and duration, and nothing that was sent."""
    process = await serve(provider.environment(ENTRA_FAST_ACCESS_LOG="true", ENTRA_FAST_LOG_LEVEL="debug"))
    caller = await process.listening()
    await caller.introspect("canary-token")
    await caller.get("/canary-path?canary-query")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    lines = [json.loads(line) for line in process.lines if json.loads(line)["message"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/api/v1/introspect", 200),
        ("GET", "other", 404),
    ]
    assert not any("canary" in line or CLIENT_KEY.private_jwk()[40:80] in line for line in process.lines)


async def _has(process: Process, message: str) -> bool:
    return any(json.loads(line)["message"] == message for line in process.lines)
