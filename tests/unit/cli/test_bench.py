"""`entra-fast bench`: what it sends, what it counts as right, its limits, and what it shows."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from entra_fast.cli.bench import load, report
from entra_fast.cli.bench.figures import Figures, Latencies
from entra_fast.cli.main import main
from entra_fast.cli.terminal import CommandError
from support.cli import address
from support.several import MASKINPORTEN, several
from support.sidecars import StartSidecar
from unit.cli.test_sidecar_client import peer  # noqa: F401 - a fixture

Answer = Callable[[int], bytes]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Answers the n-th request of a connection with `answer(n)`; an empty one closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while head := await _head(reader):
            assert b"POST /api HTTP/1.1\r\n" in head
            number += 1
            said = answer(number)
            writer.write(said)
            if said is OK or said.endswith(b"\r\n\r\nok"):
                continue
            break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api"
    finally:
        listening.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


async def measured(answer: Answer, *, connections: int = 2, seconds: float = 0.3) -> Figures:
    async with server(answer) as url:
        request = load.Request(url, b"a=bc", "application/x-www-form-urlencoded", lambda body: body == b"ok")
        return await load.run(request, connections, seconds, lambda _: None)


async def test_right_responses_are_counted_on_connections_that_stay() -> None:
    """Every response was right: a clean run, with latencies of each."""
    figures = await measured(lambda _: OK)
    assert figures.is_clean
    assert figures.right == figures.responses == figures.latencies.count > 2
    assert figures.per_second == pytest.approx(figures.right / figures.seconds)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "the connection was closed before the response was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "the connection was closed before"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "a response without a status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", "a response without a status"),
        (b"nonsense\r\n\r\n", "a response without a status"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", "a response whose header fields"),
    ],
)
async def test_what_is_no_response_is_a_failure_with_its_reason(said: bytes, reason: str) -> None:
    """Closed connections, other framings, and bodies and header fields without end."""
    figures = await measured(lambda _: said, connections=1, seconds=0.15)
    assert not figures.is_clean
    assert figures.responses == 0
    assert [name.startswith(reason) for name in figures.failures] == [True]


async def test_wrong_responses_are_counted_by_status_with_an_example() -> None:
    """A status other than 200, and a body that no working sidecar gives."""

    def answer(number: int) -> bytes:
        if number == 1:
            return b"HTTP/1.1 503 X\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndown"
        return OK

    figures = await measured(answer, connections=1)
    assert set(figures.wrong) == {"503"}
    assert figures.example == "down"
    assert not figures.failures
    other = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nko\r\n\r\nok"
    assert (await measured(lambda _: other, connections=1, seconds=0.1)).wrong["200"] > 0


async def test_a_connection_gives_up_when_nobody_listens() -> None:
    """After some attempts in a row: a sidecar that has gone is not asked for five minutes."""
    async with server(lambda _: OK) as url:
        pass
    request = load.Request(url, b"a=bc", "text/plain", lambda _: True)
    figures = await asyncio.wait_for(load.run(request, 1, 60, lambda _: None), 30)
    assert sum(figures.failures.values()) == 20
    assert figures.per_second == 0


def test_percentiles_are_known_to_a_twentieth() -> None:
    """The histogram does not grow with the number of responses, and keeps its promise of precision."""
    latencies = Latencies()
    durations = [0.0001 * 1.01**n for n in range(1000)]
    for duration in durations:
        latencies.add(duration)
    for percent in (50.0, 90.0, 99.0, 99.9):
        exact = durations[math.ceil(len(durations) * percent / 100) - 1]
        assert exact * 0.999 <= latencies.percentile(percent) <= exact * 1.045
    assert latencies.longest == durations[-1]
    assert sum(count for _, count in latencies.by_power_of_two()) == 1000
    assert Latencies().percentile(50) == 0
    assert Latencies().by_power_of_two() == []


def test_the_report_says_what_was_wrong_and_who_was_the_limit() -> None:
    """Counts by status, the first sentence with control characters escaped, failures, and the client."""
    figures = Figures(right=9, seconds=2.0, client_cpu=0.97, example="no\x1b[2J")
    figures.wrong["503"] = 1
    figures.failures["Connection refused"] = 3
    for duration in (0.0001, 0.002, 1.5):
        figures.latencies.add(duration)
    text = "\n".join(report.lines(figures, 0.0001, io.StringIO()))
    for expected in (
        "5 responses per second",
        "10.0 us of processor time of the sidecar",
        "wrong: 1 responses with status 503",
        "the first one: no\\x1b[2J",
        "failed: 3 requests: Connection refused",
        "97% of a processor",
        "1.50 s",
    ):
        assert expected in text
    assert "Every response" not in text
    assert figures.document()["limited_by_client"] is True


def test_progress_is_for_terminals_only() -> None:
    """A log file gets no line that is written again and again."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    figures = Figures(right=5, seconds=1.0)
    figures.wrong["500"] = 2
    for stream, expected in ((Terminal(), True), (io.StringIO(), False)):
        progress = report.Progress(10, stream)
        progress(figures)
        progress.ended()
        assert ("7 responses/s" in stream.getvalue()) is expected
        assert ("2 wrong" in stream.getvalue()) is expected


async def test_a_real_sidecar_is_measured(
    start: StartSidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token, form and JSON, with the processor time that its metrics state; exit status 0."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    url, target = f"{sidecar.running.base_url}/api/v1/token", "dev-gcp:team-b:app-b"
    options = ["--seconds", "1", "--connections", "2", "--url", url, "--probe-url", sidecar.running.probe_url]
    for form in ([], ["--form"]):
        run = ["bench", "token", target, *options, *form]
        assert await asyncio.to_thread(main, [*run, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["right"] == result["responses"] > 0
        assert result["server_cpu_seconds"] >= 0
    assert await asyncio.to_thread(main, run) == 0
    assert "Every response was right." in capsys.readouterr().out


async def test_another_provider_is_measured_with_its_fields(
    start: StartSidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--provider maskinporten` with `--resource` and `--authorization-details`, in JSON and in a form, which
    has one resource at most."""
    async with several(MASKINPORTEN) as providers:
        sidecar = await start(environ=providers.environment())
        url = f"{sidecar.running.base_url}/api/v1/token"
        token = ["bench", "token", "a:scope", "--provider", "maskinporten", "--seconds", "1", "--url", url]
        token += ["--authorization-details", '[{"type":"a"}]', "--resource", "https://a"]
        for form in ([], ["--form"]):
            assert await asyncio.to_thread(main, [*token, *form, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["right"] > 0
        assert len(providers["maskinporten"].requests) == 1
        assert await asyncio.to_thread(main, [*token, "--form", "--resource", "b"]) == 2
        assert "a form has one 'resource'" in capsys.readouterr().err


def test_nothing_is_loaded_that_does_not_work(
    peer: object,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first answer is looked at: an inactive token ends the command, with one request."""
    peer.body = b'{"active":false,"error":"token is expired"}'  # type: ignore[attr-defined]
    assert main(["bench", "introspect", "x", "--url", address(peer)]) == 1  # type: ignore[arg-type]
    assert "token is expired" in capsys.readouterr().err
    assert len(peer.seen) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--connections", "0"], "--connections must be from 1 to 1000"),
        (["--connections", "1001"], "--connections must be from 1 to 1000"),
        (["--seconds", "301"], "--seconds must be from 1 to 300"),
        (["--url", "http://sidecar.example/api"], "sidecar.example is another machine"),
        (["--url", "http://localhost.example/api"], "localhost.example is another machine"),
    ],
)
def test_the_load_is_bounded_and_stays_on_this_machine(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Limits are refused with their values, and another machine without --allow-remote."""
    assert main(["bench", "token", "dev-gcp:a:b", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_other_machines_must_be_named_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --allow-remote the first request is tried."""
    asked: list[str] = []

    def ask(arguments: object, *_: object) -> dict[str, object]:
        asked.append(str(getattr(arguments, "url", "")))
        raise CommandError(3, "no answer")

    monkeypatch.setattr("entra_fast.cli.bench.command.ask_sidecar", ask)
    url = "http://sidecar.example/api"
    assert main(["bench", "token", "dev-gcp:a:b", "--url", url, "--allow-remote"]) == 3
    assert asked == [url]
