"""The comparison with other libraries: the page says what the services and the results say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benches.peers.services import BARE, OURS, PEERS

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"fastapi": "FastAPI", "flask": "Flask", "drf": "Django REST framework"}


def page() -> str:
    (found,) = (ROOT / "docs").rglob("peers.md")
    return found.read_text(encoding="utf-8")


def test_the_page_counts_lines_as_they_are() -> None:
    """The table of lines is that of the files, without blank lines and comments."""
    for peer in PEERS:
        bare, ours = BARE[peer.framework].lines, OURS[peer.framework].lines
        row = f"| {FRAMEWORKS[peer.framework]} | {ours - bare} | {peer.name} | {peer.lines - bare} |"
        assert row in page()
    assert BARE["flask"].lines == 5


def test_the_page_has_the_measured_answers_and_figures() -> None:
    """Its tables are those of benches/results/peers.json."""
    results = json.loads((ROOT / "benches/results/peers.json").read_text(encoding="utf-8"))
    text = page()
    for row in results["situations"]:
        assert "| " + " | ".join(row.values()) + " |" in text
        mine = {value for name, value in row.items() if name.endswith("entra_fast")}
        assert mine == {row["expected"]}
    for row in results["comparisons"]:
        assert re.search(
            rf"^\| {row['peer']} {re.escape(row['version'])} .*"
            rf"{re.escape(str(row['requests_per_second']['ratio']))}",
            text,
            re.MULTILINE,
        )
