"""The status log, and what keeps other lines from filling the log."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from entra_fast._metrics import Metrics
from entra_fast.sidecar import status_log
from entra_fast.sidecar.logs import LONGEST_SILENCE, MAX_REPEATING, Repeats
from entra_fast.sidecar.status_log import StatusLog

M2M = "client_credentials"
ROOT = Path(__file__).resolve().parents[2]


class Recorded:
    """A status log, its clock, and the lines that it has written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "entra_fast")
        self._caplog = caplog
        self.metrics = Metrics()
        self.reason: str | None = None
        self.now = 1000.0
        self._status_log = StatusLog(self.metrics, lambda: self.reason, lambda: self.now)

    def lines(self, seconds: float = 1.0) -> list[tuple[str, dict[str, object]]]:
        """What is logged after some time."""
        self.now += seconds
        self._caplog.clear()
        self._status_log.check()
        return [(record.getMessage(), getattr(record, "fields", {})) for record in self._caplog.records]

    def fail(self, outcome: str, code: str | None = None) -> None:
        self.metrics.upstream.add(M2M, outcome)
        if code is not None:
            self.metrics.provider_errors.add(code)


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Recorded:
    return Recorded(caplog)


def test_readiness_is_logged_when_it_changes(recorded: Recorded) -> None:
    """Ready, not ready with the reason, ready again: one line each, however long it lasts."""
    assert recorded.lines() == [("ready", {})]
    assert recorded.lines() == []
    recorded.reason = "no keys"
    assert recorded.lines() == [("not ready", {"reason": "no keys"})]
    assert recorded.lines() == []
    recorded.reason = None
    assert recorded.lines() == [("ready", {})]


def test_reasons_that_alternate_do_not_fill_the_log(recorded: Recorded) -> None:
    """Not ready for an hour, with another reason each second: at most a line a minute."""
    logged = 0
    for second in range(3600):
        recorded.reason = f"reason {second}"
        logged += len(recorded.lines())
    assert 50 <= logged <= 61


def test_a_failing_provider_is_logged_with_outcomes_and_codes(recorded: Recorded) -> None:
    """The first failure at once, with the names in metrics; then the recovery."""
    recorded.lines()
    recorded.fail("http_401", "AADSTS7000215")
    fields = {"outcomes": {"http_401": 1}, "codes": {"AADSTS7000215": 1}}
    assert recorded.lines() == [("provider failing", fields)]
    recorded.metrics.upstream.add(M2M, "ok")
    assert recorded.lines() == []
    assert recorded.lines(60) == [("provider recovered", {})]
    assert recorded.lines(60) == []


def test_a_new_kind_of_failure_is_logged_at_once(recorded: Recorded) -> None:
    """Also right after another one; with what came in between."""
    recorded.lines()
    recorded.fail("timed_out")
    recorded.lines()
    recorded.fail("timed_out")
    assert recorded.lines() == []
    recorded.fail("tls_failed")
    fields = {"outcomes": {"timed_out": 1, "tls_failed": 1}, "codes": {}}
    assert recorded.lines() == [("provider failing", fields)]


def test_a_night_of_failures_fits_on_a_page(recorded: Recorded) -> None:
    """Eight hours with failures every second: some lines, which count every one of them."""
    recorded.lines()
    logged: list[dict[str, Any]] = []
    for _ in range(8 * 3600):
        recorded.fail("timed_out")
        logged += [fields for _, fields in recorded.lines()]
    assert 8 <= len(logged) <= 20
    logged += [fields for _, fields in recorded.lines(LONGEST_SILENCE)]
    assert sum(fields["outcomes"]["timed_out"] for fields in logged) == 8 * 3600


def test_one_refused_target_does_not_fill_the_log(recorded: Recorded) -> None:
    """A refusal every two minutes between tokens, for a day: no line for each."""
    recorded.lines()
    logged = 0
    for _ in range(720):
        recorded.fail("http_400", "AADSTS501051")
        logged += len(recorded.lines())
        recorded.metrics.upstream.add(M2M, "ok")
        logged += len(recorded.lines(118))
    assert logged <= 120


def test_a_cancelled_request_is_no_failure(recorded: Recorded) -> None:
    """It says nothing about the provider."""
    recorded.lines()
    recorded.fail("cancelled")
    assert recorded.lines() == []


async def test_the_status_log_checks_by_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once started it logs without being called, until it is closed."""
    monkeypatch.setattr(status_log, "CHECK_INTERVAL", 0.0)
    caplog.set_level(logging.INFO, "entra_fast")
    checks: list[float] = []

    def monotonic() -> float:
        checks.append(0.0)
        return float(len(checks))

    written = StatusLog(Metrics(), lambda: None, monotonic)
    await written.aclose()
    written.start()
    async with asyncio.timeout(60):
        while len(checks) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await written.aclose()
    done = len(checks)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(checks) == done
    assert [record.getMessage() for record in caplog.records] == ["ready"]


def test_other_libraries_do_not_fill_the_log() -> None:
    """The same line every second for a night: some lines that say how often; another one at once."""
    now = 0.0
    repeats = Repeats(lambda: now)

    def passes(message: str, name: str = "exporter") -> logging.LogRecord | None:
        record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (now,), None)
        return record if repeats.filter(record) else None

    shown = 0
    counted = 0
    for second in range(8 * 3600):
        now = float(second)
        if (record := passes("failed after %s")) is not None:
            shown += 1
            counted += getattr(record, "fields", {}).get("repeated", 0) + 1
        assert passes("own", "entra_fast") is not None
    assert 8 <= shown <= 20
    assert counted > 7 * 3600
    assert passes("failed otherwise") is not None
    for number in range(10 * MAX_REPEATING):
        assert passes(f"never the same {number}") is not None
    assert len(repeats._known) <= MAX_REPEATING


def test_the_operators_page_quotes_lines_that_exist() -> None:
    """Every log line that docs/operating.md names is written somewhere."""
    page = (ROOT / "docs" / "operating.md").read_text()
    table = page.partition("| log line | meaning |")[2].partition("\n\n")[0]
    quoted = [line for row in table.splitlines() for line in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(quoted) >= 12
    source = "".join(path.read_text() for path in (ROOT / "python" / "entra_fast").rglob("*.py"))
    assert [line for line in quoted if f'"{line}' not in source] == []
