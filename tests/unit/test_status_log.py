"""The status log, and what keeps other lines from filling the log."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from entra_fast._metrics import NO_PROVIDER, Metrics
from entra_fast.sidecar import status_log
from entra_fast.sidecar.logs import LONGEST_SILENCE, MAX_REPEATING, Repeats
from entra_fast.sidecar.readiness import Readiness
from entra_fast.sidecar.status_log import MINUTE, Introspections, StatusLog

M2M = "client_credentials"
ROOT = Path(__file__).resolve().parents[2]


class Recorded:
    """A status log, its clock, and the lines that it has written."""

    def __init__(
        self, caplog: pytest.LogCaptureFixture, *providers: str, clock_tolerance: float = 30.0
    ) -> None:
        caplog.set_level(logging.INFO, "entra_fast")
        self._caplog = caplog
        self.metrics = Metrics()
        self.reason: str | None = None
        self.now = 1000.0
        self.ready = False
        self.introspections = Introspections()
        self.others: dict[str, Introspections] = {}
        self._status_log = StatusLog(
            self.metrics,
            providers or ["entra_id"],
            lambda: Readiness(self.ready or self.reason is None, self.reason),
            lambda: {**self.others, "entra_id": self.introspections},
            lambda: self.now,
            clock_tolerance=clock_tolerance,
        )

    def lines(self, seconds: float = 1.0) -> list[tuple[str, dict[str, object]]]:
        """What is logged after some time."""
        self.now += seconds
        self._caplog.clear()
        self._status_log.check()
        return [(record.getMessage(), getattr(record, "fields", {})) for record in self._caplog.records]

    def fail(self, outcome: str, code: str | None = None, provider: str = "entra_id") -> None:
        self.metrics.upstream.add(M2M, outcome, provider)
        if code is not None:
            self.metrics.provider_errors.add(code, provider)


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


def test_a_start_that_takes_some_seconds_is_no_problem(recorded: Recorded) -> None:
    """There is a line if it takes longer than that."""
    recorded.reason = "no keys yet"
    assert recorded.lines() == recorded.lines() == []
    assert recorded.lines() == [("not ready", {"reason": "no keys yet"})]


def test_reasons_that_alternate_do_not_fill_the_log(recorded: Recorded) -> None:
    """Not ready for an hour, with another reason each second: at most a line a minute."""
    logged = 0
    for second in range(3600):
        recorded.reason = f"reason {second}"
        logged += len(recorded.lines())
    assert 50 <= logged <= 61


def test_trouble_after_the_start_is_logged_although_the_sidecar_counts_as_ready(recorded: Recorded) -> None:
    """Another line than before it was ready, with the reason; one line when it is over."""
    recorded.lines()
    recorded.ready, recorded.reason = True, "no keys"
    assert recorded.lines() == [("ready, but in trouble", {"reason": "no keys"})]
    assert recorded.lines() == []
    recorded.reason = None
    assert recorded.lines() == [("ready", {})]


def introspect(recorded: Recorded, active: int, **rejected: int) -> None:
    """Add these introspections to those before."""
    before = recorded.introspections
    codes = {code: before.rejected.get(code, 0) + count for code, count in rejected.items()}
    recorded.introspections = Introspections(
        before.answered + active + sum(rejected.values()), {**before.rejected, **codes}
    )


def test_introspections_that_mostly_fail_for_one_reason_are_logged(recorded: Recorded) -> None:
    """After a minute: the code, how many of how many, and what was expected and received."""
    recorded.lines()
    introspect(recorded, 1, wrong_audience=5, token_expired=2)
    recorded.introspections = recorded.introspections._replace(
        examples={"wrong_audience": {"expected": "mine", "received": "other"}}
    )
    assert recorded.lines() == []
    recorded.introspections = recorded.introspections._replace(examples={})
    assert recorded.lines(MINUTE - 2) == []
    counts = {"rejected": 5, "introspections": 8}
    fields = {"code": "wrong_audience", **counts, "expected": "mine", "received": "other"}
    assert recorded.lines(2) == [("most introspections reject the token", fields)]
    assert recorded.lines(2 * MINUTE) == []


@pytest.mark.parametrize(
    ("active", "rejected"),
    [
        (100, {}),
        (5, {"wrong_issuer": 5}),
        (0, {"wrong_issuer": 2}),
        (0, {"wrong_issuer": 4, "token_expired": 4}),
    ],
)
def test_introspections_that_do_not_mostly_fail_for_one_reason_are_not_logged(
    recorded: Recorded, active: int, rejected: dict[str, int]
) -> None:
    """Half of them, too few, or different reasons."""
    recorded.lines()
    introspect(recorded, active, **rejected)
    assert recorded.lines() == []
    assert recorded.lines(MINUTE) == []


def test_a_minute_with_many_rejections_is_judged_by_itself(recorded: Recorded) -> None:
    """A day of accepted tokens before it does not hide it."""
    recorded.lines()
    introspect(recorded, 100_000)
    recorded.lines()
    assert recorded.lines(MINUTE) == []
    introspect(recorded, 1, unknown_key=3)
    recorded.lines()
    (line,) = recorded.lines(MINUTE)
    assert line[1] == {"code": "unknown_key", "rejected": 3, "introspections": 4}


def test_introspections_that_fail_all_day_do_not_fill_the_log(recorded: Recorded) -> None:
    """The same reason is logged less and less often; another one at once."""
    recorded.lines()
    logged = 0
    for _ in range(24 * 60):
        introspect(recorded, 0, wrong_issuer=10)
        logged += len(recorded.lines()) + len(recorded.lines(MINUTE))
    assert 8 <= logged <= 40
    introspect(recorded, 0, wrong_audience=10)
    recorded.lines()
    ((_, fields),) = recorded.lines(MINUTE)
    assert fields["code"] == "wrong_audience"


def test_a_clock_that_is_off_is_logged_with_the_number(recorded: Recorded) -> None:
    """Once in each direction, and when it is over."""
    recorded.lines()
    skew = 29.0
    recorded.metrics.clock_skew.read_from(lambda: skew, "entra_id")
    assert recorded.lines() == []
    skew = 125.4
    fields: dict[str, object] = {"clock_skew_seconds": 125.4}
    assert recorded.lines() == [("the clock is 125 s ahead of the provider's", fields)]
    assert recorded.lines() == []
    skew = 0.0
    assert recorded.lines() == [("the clock agrees with the provider's again", {})]
    skew = -3600.0
    ((message, _),) = recorded.lines()
    assert message == "the clock is 3600 s behind the provider's"


def test_a_failing_provider_is_logged_with_outcomes_and_codes(recorded: Recorded) -> None:
    """The first failure at once, with the names in metrics; then the recovery."""
    recorded.lines()
    recorded.fail("http_401", "AADSTS7000215")
    fields = {"outcomes": {"http_401": 1}, "codes": {"AADSTS7000215": 1}}
    assert recorded.lines() == [("provider failing", fields)]
    recorded.metrics.upstream.add(M2M, "ok", "entra_id")
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
        recorded.metrics.upstream.add(M2M, "ok", "entra_id")
        logged += len(recorded.lines(118))
    assert logged <= 120


def test_a_cancelled_request_is_no_failure(recorded: Recorded) -> None:
    """It says nothing about the provider."""
    recorded.lines()
    recorded.fail("cancelled")
    assert recorded.lines() == []


# --- with several providers ---


@pytest.fixture
def several(caplog: pytest.LogCaptureFixture) -> Recorded:
    recorded = Recorded(caplog, "entra_id", "maskinporten", "tokenx", clock_tolerance=5.0)
    recorded.lines()
    return recorded


def test_each_provider_fails_and_recovers_by_itself(several: Recorded) -> None:
    """Tokens of one say nothing about another, and the first failure of each is logged at once."""
    several.fail("http_400", "invalid_client", "maskinporten")
    fields: dict[str, object] = {"outcomes": {"http_400": 1}, "codes": {"invalid_client": 1}}
    assert several.lines() == [("provider failing", {"provider": "maskinporten", **fields})]
    several.metrics.upstream.add(M2M, "ok", "entra_id")
    assert several.lines(60) == []
    several.fail("http_400", "invalid_client", "tokenx")
    assert several.lines() == [("provider failing", {"provider": "tokenx", **fields})]
    several.metrics.upstream.add(M2M, "ok", "maskinporten")
    assert several.lines(60) == [("provider recovered", {"provider": "maskinporten"})]
    several.metrics.upstream.add(M2M, "ok", "tokenx")
    assert several.lines(60) == [("provider recovered", {"provider": "tokenx"})]


def test_rejections_are_judged_for_each_provider(several: Recorded) -> None:
    """A thousand accepted tokens of one do not hide that every token of another is rejected."""
    example = {"wrong_issuer": {"expected": "this", "received": "that"}}
    several.others = {"tokenx": Introspections(4, {"wrong_issuer": 4}, example)}
    introspect(several, 1000)
    assert several.lines() == []
    fields = {"code": "wrong_issuer", "rejected": 4, "introspections": 4, **example["wrong_issuer"]}
    line = ("most introspections reject the token", {"provider": "tokenx", **fields})
    assert several.lines(MINUTE) == [line]


def test_requests_without_a_provider_are_compared_with_all_introspections(several: Recorded) -> None:
    """A few of them among many others are not worth a line; if they are most, there is one."""
    metrics = several.metrics

    def line() -> list[tuple[str, dict[str, object]]]:
        metrics.introspections.add("false", NO_PROVIDER, amount=4)
        metrics.introspections_rejected.add("invalid_request", NO_PROVIDER, amount=4)
        several.others = dict(Introspections.of(metrics, (), {}))
        return several.lines() + several.lines(MINUTE)

    assert line() == [
        (
            "most introspections reject the token",
            {"code": "invalid_request", "rejected": 4, "introspections": 4},
        )
    ]
    metrics.introspections.add("true", "tokenx", amount=5)
    assert line() == []


def test_a_clock_that_is_off_is_one_line(several: Recorded) -> None:
    """However many providers say so: it names the one whose clock differs most."""
    skews = {"entra_id": 6.0, "maskinporten": 4.0}
    several.metrics.clock_skew.read_from(lambda: skews["entra_id"], "entra_id")
    several.metrics.clock_skew.read_from(lambda: skews["maskinporten"], "maskinporten")
    fields: dict[str, object] = {"provider": "entra_id", "clock_skew_seconds": 6.0}
    assert several.lines() == [("the clock is 6 s ahead of the provider's", fields)]
    skews["maskinporten"] = -7.0
    assert several.lines() == []
    skews = {"entra_id": 1.0, "maskinporten": -4.9}
    assert several.lines() == [("the clock agrees with the provider's again", {})]


def test_the_clock_that_differs_most_is_named_in_either_direction(several: Recorded) -> None:
    """One that is far behind counts for more than one that is a little ahead."""
    several.metrics.clock_skew.read_from(lambda: 6.0, "entra_id")
    several.metrics.clock_skew.read_from(lambda: -8.26, "maskinporten")
    fields: dict[str, object] = {"provider": "maskinporten", "clock_skew_seconds": -8.3}
    assert several.lines() == [("the clock is 8 s behind the provider's", fields)]


def test_a_clock_is_off_from_the_tolerance_on(recorded: Recorded) -> None:
    """Exactly as far counts."""
    recorded.lines()
    recorded.metrics.clock_skew.read_from(lambda: 30.0, "entra_id")
    assert recorded.lines() == [("the clock is 30 s ahead of the provider's", {"clock_skew_seconds": 30.0})]


def test_of_two_providers_each_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """With one there is no need."""
    recorded = Recorded(caplog, "entra_id", "maskinporten")
    recorded.lines()
    recorded.fail("timed_out", provider="maskinporten")
    fields = {"provider": "maskinporten", "outcomes": {"timed_out": 1}, "codes": {}}
    assert recorded.lines() == [("provider failing", fields)]


def test_a_recovery_needs_a_token_and_a_minute_without_failures(recorded: Recorded) -> None:
    """Both count from the last failure: a token before it, or a minute too short, is no recovery."""
    recorded.lines()
    recorded.fail("timed_out")
    assert len(recorded.lines()) == 1
    recorded.metrics.upstream.add(M2M, "ok", "entra_id")
    assert recorded.lines(59) == []
    recorded.fail("timed_out")
    assert len(recorded.lines(1)) == 1
    assert recorded.lines(600) == []  # there was no token since
    recorded.metrics.upstream.add(M2M, "ok", "entra_id")
    assert recorded.lines() == [("provider recovered", {})]
    recorded.fail("timed_out")
    assert len(recorded.lines(600)) == 1
    recorded.metrics.upstream.add(M2M, "ok", "entra_id")
    assert recorded.lines(59) == []
    assert recorded.lines(1) == [("provider recovered", {})]


def test_the_same_failure_of_different_grants_is_counted_together(recorded: Recorded) -> None:
    """The line has the outcomes of a provider, whatever the request was for."""
    recorded.lines()
    recorded.metrics.upstream.add(M2M, "timed_out", "entra_id", amount=2)
    recorded.metrics.upstream.add("on_behalf_of", "timed_out", "entra_id", amount=3)
    recorded.metrics.upstream.add("on_behalf_of", "http_500", "entra_id")
    fields = {"outcomes": {"http_500": 1, "timed_out": 5}, "codes": {}}
    assert recorded.lines() == [("provider failing", fields)]


def test_a_lasting_failure_is_told_after_each_silence(recorded: Recorded) -> None:
    """After one minute, then two, then four: each line has what came since the last one."""
    recorded.lines()
    told = []
    for second in range(500):
        recorded.fail("timed_out")
        told += [(second, fields["outcomes"]) for _, fields in recorded.lines()]
    assert told == [
        (0, {"timed_out": 1}),
        (60, {"timed_out": 60}),
        (180, {"timed_out": 120}),
        (420, {"timed_out": 240}),
    ]


def test_the_reason_is_logged_again_when_it_has_changed_for_a_minute(recorded: Recorded) -> None:
    """Not before; and a recovery is logged at once."""
    recorded.lines()
    recorded.reason = "first"
    assert recorded.lines() == [("not ready", {"reason": "first"})]
    recorded.reason = "second"
    assert recorded.lines(59) == []
    assert recorded.lines(1) == [("not ready", {"reason": "second"})]
    recorded.reason = None
    assert recorded.lines(1) == [("ready", {})]


def test_a_start_with_trouble_that_counts_as_ready_is_logged_at_once(recorded: Recorded) -> None:
    """The time that a start may take is for what is not ready yet."""
    recorded.ready, recorded.reason = True, "is rejected"
    assert recorded.lines(0) == [("ready, but in trouble", {"reason": "is rejected"})]


def test_a_minute_of_introspections_begins_with_the_first_of_them(recorded: Recorded) -> None:
    """Three are enough, if more than half of them were rejected for one reason; those of an earlier minute
    and their examples do not count."""
    recorded.lines()
    examples = {"wrong_issuer": {"expected": "mine", "received": "old"}}
    introspect(recorded, 2, wrong_issuer=1)
    recorded.introspections = recorded.introspections._replace(examples=examples)
    assert recorded.lines() == []
    recorded.introspections = recorded.introspections._replace(examples={})
    assert recorded.lines(MINUTE) == []  # one of three
    introspect(recorded, 1, wrong_issuer=2)
    assert recorded.lines(10) == []
    assert recorded.lines(MINUTE - 0.5) == []
    fields = {"code": "wrong_issuer", "rejected": 2, "introspections": 3}
    assert recorded.lines(0.5) == [("most introspections reject the token", fields)]


def test_introspections_of_all_processes_are_counted_together() -> None:
    """By provider: this process's and those of workers, with the examples that were taken."""
    own, worker = Metrics(), Metrics()
    for metrics, name, active, rejected in (
        (own, "entra_id", 3, 2),
        (worker, "entra_id", 10, 20),
        (worker, "tokenx", 1, 0),
        (worker, NO_PROVIDER, 0, 4),
    ):
        metrics.introspections.add("true", name, amount=active)
        if rejected:
            metrics.introspections.add("false", name, amount=rejected)
            metrics.introspections_rejected.add("wrong_issuer", name, amount=rejected)
    examples = {"entra_id": {"wrong_issuer": {"expected": "mine"}}}
    assert Introspections.of(own, [worker.figures()], examples) == {
        "entra_id": Introspections(35, {"wrong_issuer": 22}, examples["entra_id"]),
        "tokenx": Introspections(1, {}, {}),
        NO_PROVIDER: Introspections(40, {"wrong_issuer": 4}, {}),
    }
    assert Introspections.of(Metrics(), [{}], {}) == {}


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

    written = StatusLog(Metrics(), [], Readiness.of, dict, monotonic, clock_tolerance=30.0)
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
    """Every log line that docs/guides/troubleshooting.md names is written somewhere."""
    page = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text()
    table = page.partition("| log line | meaning |")[2].partition("\n\n")[0]
    quoted = [line for row in table.splitlines() for line in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(quoted) >= 12
    source = "".join(path.read_text() for path in (ROOT / "python" / "entra_fast").rglob("*.py"))
    assert [line for line in quoted if f'"{line}' not in source] == []
