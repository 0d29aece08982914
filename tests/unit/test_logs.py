"""Log lines: what they say of an exception, and what they never say."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from entra_fast.sidecar.logs import JsonLines


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
