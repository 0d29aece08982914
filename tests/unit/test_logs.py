"""Log lines: what they say of an exception, and what they never say."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from entra_fast.sidecar import tracing
from entra_fast.sidecar.logs import JsonLines, TextLines, Trace, configure
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
    assert re.sub(r"\x1b\[\d+m", "", painted) == line


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
