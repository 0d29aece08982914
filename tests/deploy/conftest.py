"""What is shipped: the wheel, installed as an image has it. `make test-deploy` builds the wheel and runs this
suite; elsewhere it is skipped, because that takes longer than all other tests may."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import containers

TIMEOUT = 600
"""Seconds for a test with its fixtures: the first one installs everything."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel to test."""
    path = os.environ.get("ENTRA_FAST_WHEEL")
    if not path:
        pytest.skip("needs a wheel: `make test-deploy` builds one (ENTRA_FAST_WHEEL)")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, as the Containerfile makes it."""
    if reason := containers.unavailable():
        pytest.skip(f"NOT TESTED as a container: {reason}")
    return containers.install(wheel, "server,dev", tmp_path_factory.mktemp("image"))


@pytest.fixture
def machine() -> Iterator[containers.Machine]:
    """A machine for containers."""
    with containers.machine() as made:
        yield made
