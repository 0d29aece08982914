"""Log lines: what they say of an exception, and what they never say."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from entra_fast.sidecar import logs, tracing
from entra_fast.sidecar.logs import (
    MAX_REPEATING,
    AccessLog,
    JsonLines,
    Repeats,
    Silence,
    TextLines,
    Trace,
    configure,
)
from entra_fast.sidecar.otlp import OFF


def test_an_exception_is_named_with_its_places_and_without_its_text() -> None:
    """The text of an exception may hold anything, a token for instance."""
    try:
        raise RuntimeError("canary")
    except RuntimeError:
        record = logging.LogRecord(
            "entra_fast.sidecar", logging.ERROR, __file__, 1, "it failed", None, sys.exc_info()
        )
    line = JsonLines(2).format(record)
    said = json.loads(line)
    assert (said["message"], said["exception"], said["worker"]) == ("it failed", "RuntimeError", 2)
    assert said["places"][-1].startswith(__file__)
    assert said["places"][-1].endswith(
        test_an_exception_is_named_with_its_places_and_without_its_text.__name__
    )
    assert "canary" not in line


@pytest.mark.parametrize(
    ("name", "message", "arguments", "expected"),
    [
        ("aiohttp.server", "Error handling request from %s", ("canary",), "Error handling request from %s"),
        ("asyncio", "Task failed\n<Task canary>", (), "Task failed"),
        ("redis", "%(value)s was rejected", ({"value": "canary"},), "%(value)s was rejected"),
        ("opentelemetry.exporter", "x" * 300 + "canary", (), "x" * 200),
        ("entra_fastened", "said %s", ("canary",), "said %s"),
    ],
)
def test_of_other_libraries_only_the_template_is_logged(
    name: str, message: str, arguments: tuple[object, ...], expected: str
) -> None:
    """They format their messages with what came from the wire: a header, a body, a token."""
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)
    line = JsonLines().format(record)
    assert json.loads(line)["message"] == expected
    assert "canary" not in line


def test_our_own_messages_are_logged_in_full() -> None:
    """They are never formatted with what came from the wire."""
    for name in ("entra_fast", "entra_fast.sidecar"):
        record = logging.LogRecord(name, logging.INFO, __file__, 1, "worker %d ended", (3,), None)
        assert json.loads(JsonLines().format(record))["message"] == "worker 3 ended"


def test_text_lines_have_the_same_members_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, level, message, then name=value; control characters escaped; colour where it is wanted."""
    record = logging.LogRecord("entra_fast", logging.WARNING, __file__, 1, "it %s\x1b[2J", ("failed",), None)
    record.fields = {"code": "timed_out", "sentence": 'two "words"', "n": 3, "empty": ""}
    monkeypatch.setenv("NO_COLOR", "1")
    line = TextLines(1).format(record)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} WARNING  it failed\\x1b\[2J worker=1 code=timed_out "
        r'sentence="two \\"words\\"" n=3 empty=""',
        line,
    )
    other = logging.LogRecord("redis", logging.ERROR, __file__, 1, "said %s", ("canary",), None)
    assert TextLines().format(other).endswith("ERROR    redis: said %s")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    painted = TextLines(1).format(record)
    assert "\x1b[33mWARNING \x1b[0m" in painted
    assert re.sub(r"\x1b\[[\d;]+m", "", painted) == line


@pytest.mark.parametrize(
    ("form", "terminal", "expected"),
    [
        ("auto", True, TextLines),
        ("auto", False, JsonLines),
        ("json", True, JsonLines),
        ("text", False, TextLines),
    ],
)
def test_the_form_follows_the_setting_and_then_the_terminal(
    form: str, terminal: bool, expected: type[logging.Formatter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ENTRA_FAST_LOG_FORMAT`: pods get JSON without any setting, and people get text."""

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    root, ours = logging.getLogger(), logging.getLogger("entra_fast")
    before = (root.handlers[:], root.level, ours.level)
    monkeypatch.setattr(sys, "stderr", Stream())
    try:
        configure("info", form)
        assert type(root.handlers[0].formatter) is expected
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


def test_a_line_has_its_time_level_logger_and_fields() -> None:
    """In UTC with milliseconds; what cannot be written as JSON is named by its type, never by its text."""
    record = logging.LogRecord("entra_fast.x", logging.WARNING, __file__, 1, "it failed", None, None)
    record.created = 1_700_000_000.1239
    record.fields = {"code": "timed_out", "value": object(), "count": 3}
    assert json.loads(JsonLines().format(record)) == {
        "time": "2023-11-14T22:13:20.123+00:00",
        "level": "warning",
        "logger": "entra_fast.x",
        "message": "it failed",
        "code": "timed_out",
        "value": "object",
        "count": 3,
    }
    record.fields = "no mapping"
    assert "fields" not in json.loads(JsonLines().format(record))
    record.exc_info = (None, None, None)  # `logger.exception` outside of a handler
    assert "exception" not in json.loads(JsonLines().format(record))


def test_the_innermost_places_of_an_exception_are_kept() -> None:
    """Twenty at most."""

    def deep(levels: int) -> None:
        if levels == 0:
            raise RuntimeError
        deep(levels - 1)

    try:
        deep(50)
    except RuntimeError:
        record = logging.LogRecord("entra_fast", logging.ERROR, __file__, 1, "x", None, sys.exc_info())
    places = json.loads(JsonLines().format(record))["places"]
    assert len(places) == 20
    assert all(re.fullmatch(rf"{re.escape(__file__)}:\d+ in deep", place) for place in places)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("", '""'),
        ("æ", "æ"),
        ("tab\t", '"tab\\t"'),
        ("bell\x07", '"bell\\u0007"'),
        ("\x9b2J", '"\\x9b2J"'),
        (5, "5"),
        (None, "null"),
        ({"a": [1, "b"]}, '{"a":[1,"b"]}'),
        (object(), '"object"'),
    ],
)
def test_values_for_people(value: object, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in JSON, a single word without quotes; a terminal gets no control character."""
    monkeypatch.setenv("NO_COLOR", "1")
    record = logging.LogRecord("entra_fast", logging.INFO, __file__, 1, "x", None, None)
    record.fields = {"value": value}
    assert TextLines().format(record).endswith(f" INFO     x value={shown}")


def test_each_level_has_its_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the time and the fields have the one of what matters less."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    styles = {}
    for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        number = getattr(logging, level)
        line = TextLines(1).format(logging.LogRecord("entra_fast", number, __file__, 1, "x", None, None))
        begin, end = r"(\x1b\[[\d;]+m)", r"\x1b\[0m"
        pattern = rf"{begin}[\d:.]{{12}}{end} {begin}{level:<8}{end} x{begin} worker=1{end}"
        found = re.fullmatch(pattern, line)
        assert found is not None
        assert found[1] == found[3]
        styles[level] = found[2]
        assert (level == "DEBUG") == (found[1] == found[2])
    assert styles["ERROR"] == styles["CRITICAL"]
    assert len(set(styles.values())) == 4


def test_a_problem_is_silent_for_longer_each_time_while_it_lasts() -> None:
    """A minute, two, four, up to an hour; a minute again when it was away for as long as the last silence."""
    silence = Silence()
    assert silence.until < 0
    now, lengths = 0.0, []
    for _ in range(8):
        silence.begin(now)
        lengths.append(silence.until - now)
        now = silence.until
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    silence.begin(now := silence.until + silence.length - 1)
    assert silence.until - now == 3600
    silence.begin(now := silence.until + silence.length)
    assert silence.until - now == 60


def test_what_is_withheld_is_counted_and_told_once() -> None:
    """By logger, message and kind of exception, which are told apart; the next line has the number."""
    now = 0.0
    repeats = Repeats(lambda: now)

    def passes(
        name: str = "exporter", message: str = "failed", error: type[Exception] | None = None
    ) -> object:
        info = None if error is None else (error, error("x"), None)
        record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, None, info)
        return getattr(record, "fields", {}) if repeats.filter(record) else None

    assert passes() == passes("other") == passes(message="again") == passes(error=ValueError) == {}
    assert passes(error=TypeError) == {}
    assert passes() is passes() is passes() is None
    assert passes("entra_fast.sidecar") == passes("entra_fast.sidecar") == {}
    now = 59.9
    assert passes() is None
    now = 60.0
    assert passes() == {"repeated": 4}
    assert passes("other") == {}
    now = 200.0
    assert passes() == {}


def test_a_filter_remembers_so_many_lines_at_most() -> None:
    """Beyond that it forgets all of them, and logs them once more."""
    repeats = Repeats(lambda: 0.0)

    def passes(number: int) -> bool:
        return repeats.filter(logging.LogRecord("x", logging.ERROR, __file__, 1, f"n{number}", None, None))

    for number in range(MAX_REPEATING):
        assert passes(number)
    assert not passes(0)
    assert passes(MAX_REPEATING)
    assert passes(0)
    assert not passes(MAX_REPEATING)


@pytest.mark.parametrize(
    ("level", "root_level", "own_level", "filtered"),
    [
        ("debug", logging.DEBUG, logging.DEBUG, False),
        ("info", logging.WARNING, logging.INFO, True),
        ("warning", logging.WARNING, logging.WARNING, True),
        ("error", logging.WARNING, logging.ERROR, True),
    ],
)
def test_other_libraries_are_logged_from_warnings_on(
    level: str, root_level: int, own_level: int, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without repetitions; with `debug`, everything of everyone. One handler, on standard error, whatever
    was there before; its lines have the number of the worker."""
    root, ours = logging.getLogger(), logging.getLogger("entra_fast")
    before = (root.handlers[:], root.level, ours.level)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        root.addHandler(logging.NullHandler())
        configure(level, "json", worker=7)
        (handler,) = root.handlers
        assert (root.level, ours.level) == (root_level, own_level)
        assert [type(each) for each in handler.filters] == ([Repeats] if filtered else [])
        logging.getLogger("redis").error("said %s", "canary")
        said = json.loads(written.getvalue())
        assert (said["worker"], said["message"]) == (7, "said %s")
        configure(level, "text", worker=7)
        logging.getLogger("redis").error("again")
        assert "redis: again" in written.getvalue()
        assert "worker=7" in written.getvalue()
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


def test_without_an_access_log_nothing_is_kept() -> None:
    """Neither lines nor a timer."""
    log = AccessLog(enabled=False, worker=3)
    log.log("GET", "/", 200, 0.1)
    log.start()
    log.close()
    assert (log.native, log._timer) == (None, None)


async def test_lines_of_the_access_log_are_written_soon_and_at_the_end(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tenth of a second, again and again, and the last ones when it is closed."""
    monkeypatch.setattr(logs, "WRITTEN_WITHIN", 0.001)
    log = AccessLog(enabled=True, worker=3)
    log.start()
    seen: list[dict[str, object]] = []
    async with asyncio.timeout(30):
        for number in range(3):
            log.log("GET", f"/{number}", 200, 0.25)
            while len(seen) <= number:
                await asyncio.sleep(0.001)
                seen += map(json.loads, capfd.readouterr().err.splitlines())
    log.close()
    assert [line["path"] for line in seen] == ["/0", "/1", "/2"]
    assert {(line["worker"], line["method"], line["status"]) for line in seen} == {(3, "GET", 200)}
    log.log("GET", "/last", 204, 0.25)
    await asyncio.sleep(0.01)
    assert capfd.readouterr().err == ""
    log.close()
    assert json.loads(capfd.readouterr().err)["path"] == "/last"


def test_a_line_within_a_span_names_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """`trace_id`, `span_id` and `trace_flags` at top level; none of them outside a span."""
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(Trace, "fields", Trace.fields)  # put back afterwards
    assert tracing.begin(OFF) is not None
    record = logging.LogRecord("entra_fast", logging.INFO, __file__, 1, "x", None, None)
    assert "trace_id" not in json.loads(JsonLines().format(record))
    with provider.get_tracer("test").start_as_current_span("span") as span:
        said = json.loads(JsonLines().format(record))
    context = span.get_span_context()
    assert said["trace_id"] == f"{context.trace_id:032x}"
    assert said["span_id"] == f"{context.span_id:016x}"
    assert said["trace_flags"] == f"{context.trace_flags:02x}"
