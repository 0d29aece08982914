"""Reads the stages of the Containerfile: what a container starts, and with which variables."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from support.containers import Image

FILE = Path(__file__).resolve().parents[2] / "deploy" / "container" / "Containerfile"


def image(target: str, environment: Path) -> Image:
    """The image of a stage, with those that it stands on."""
    stages: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    text = FILE.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if found := re.fullmatch(r"FROM (\S+)(?: AS (\S+))?", line):
            parent = stages.get(found[1], {})
            current = {name: list(values) for name, values in parent.items()}
            stages[found[2]] = current
        elif found := re.fullmatch(r"(ENTRYPOINT|CMD) (\[.*\])", line):
            current[found[1]] = json.loads(found[2])
        elif found := re.fullmatch(r"HEALTHCHECK .*?CMD (\[.*\])", line):
            current["HEALTHCHECK"] = json.loads(found[1])
        elif line.startswith("ENV "):
            current.setdefault("ENV", []).extend(shlex.split(line)[1:])
    stage = stages[target]
    variables = dict(pair.split("=", 1) for pair in stage["ENV"])
    variables["PATH"] = variables["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    return Image(
        environment,
        entrypoint=tuple(stage["ENTRYPOINT"]),
        command=tuple(stage.get("CMD", ())),
        variables=variables,
        health=tuple(stage.get("HEALTHCHECK", ())),
    )
