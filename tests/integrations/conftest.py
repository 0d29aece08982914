"""Fixtures of the integrations' tests."""

from __future__ import annotations

import pytest

from entra_fast.integrations import _guard


@pytest.fixture(autouse=True)
def lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of log lines per second is limited for the process: one test must not use up another's."""
    monkeypatch.setattr(_guard, "_lines", _guard._Lines())
