"""The committed results of the benchmarks can be drawn: `make bench-pictures`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benches import pictures


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_committed_result_can_be_drawn(name: str, tmp_path: Path) -> None:
    """Its labels are in the drawing, as text."""
    result = Path(shutil.copy(pictures.RESULTS / f"{name}.json", tmp_path))
    drawing = pictures.draw(result, pictures.PICTURES[name]).read_text()
    assert {"load": "aiohttp handler with PyJWT", "soak": "p99", "chaos": "seconds"}[name] in drawing
