"""Log lines: what they say of an exception, and what they never say."""

from __future__ import annotations

import json
import logging
import sys

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
