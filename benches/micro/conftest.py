"""Order of the micro benchmarks: turn by turn, not benchmark by benchmark."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--floor", required=True, help="the program made of rust/core/examples/floor.rs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.callspec.params["turn"])  # type: ignore[attr-defined]
