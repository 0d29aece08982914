"""The licences of what is shipped: `make licences`.

    licences.py wheel                   the texts that go with the wheel, whose library has these crates in it
    licences.py environment PYTHON      a table of the packages that an interpreter has

The first is THIRD-PARTY-LICENSES.txt, which every wheel and the source distribution have; a test compares it
with Cargo.lock. The image has the second. deny.toml decides which licences may be used.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BINDING = "entra-py"
_TEXT = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|COPYRIGHT|UNLICENSE)", re.IGNORECASE)
_MAX_DEPTH = 4


def crates() -> list[dict[str, Any]]:
    """The crates that are linked into the library on any platform, without our own, by name and version.
    Macros run in the compiler and are not in it."""
    platforms = tomllib.loads((ROOT / "deny.toml").read_text())["graph"]["targets"]
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    for platform in platforms:
        command += ["--filter-platform", platform]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603
    metadata = json.loads(done.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    links = {
        node["id"]: [
            each["pkg"] for each in node["deps"] if any(kind["kind"] is None for kind in each["dep_kinds"])
        ]
        for node in metadata["resolve"]["nodes"]
    }
    waiting = [identity for identity, package in packages.items() if package["name"] == BINDING]
    reached: set[str] = set()
    while waiting:
        identity = waiting.pop()
        is_macro = any("proc-macro" in target["kind"] for target in packages[identity]["targets"])
        if identity not in reached and not is_macro:
            reached.add(identity)
            waiting += links[identity]
    foreign = (packages[identity] for identity in reached if packages[identity]["source"] is not None)
    return sorted(foreign, key=lambda package: (package["name"], package["version"]))


def title(crate: dict[str, Any]) -> str:
    """How a crate is named in the list."""
    return f"{crate['name']} {crate['version']} ({crate['license'] or 'see its text'})"


def texts(crate: dict[str, Any]) -> list[str]:
    """The licence texts in a crate's package, which may contain the sources of a library."""
    folder = Path(crate["manifest_path"]).parent
    found = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        named = _TEXT.match(file.name) and file.suffix.lstrip(".").lower() not in ("rs", "c", "h", "go", "py")
        if named and len(parts) <= _MAX_DEPTH and file.is_file() and "tests" not in parts:
            text = file.read_text(encoding="utf-8", errors="replace")
            found.append("\n".join(line.rstrip() for line in text.strip().splitlines()))
    return found


def wheel() -> str:
    """The texts, each once, under the crates that they belong to."""
    listed = crates()
    owners: dict[str, list[str]] = defaultdict(list)
    for crate in listed:
        own = texts(crate) or [f"No text is in this package: {crate['license']}, {crate['repository']}"]
        for text in dict.fromkeys(own):
            owners[text].append(f"{crate['name']} {crate['version']}")
    lines = [
        "The library in this package contains the following crates, with these licences. Written by",
        "`make licences` from Cargo.lock; it covers all platforms, so one platform has a part of them.",
        "",
        *(title(crate) for crate in listed),
    ]
    for text, names in owners.items():
        lines += ["", "=" * 100, *names, "=" * 100, "", text]
    return "\n".join(lines) + "\n"


def environment(python: str) -> str:
    """Name, version and licence of each package that an interpreter has."""
    program = (
        "import importlib.metadata as m, json; print(json.dumps([[d.metadata['Name'], d.version, "
        "d.metadata.get('License-Expression') or '', d.metadata.get('License') or '', "
        "d.metadata.get_all('Classifier') or []] for d in m.distributions()]))"
    )
    done = subprocess.run([python, "-c", program], check=True, stdout=subprocess.PIPE)  # noqa: S603
    rows = []
    for name, version, expression, licence, classifiers in json.loads(done.stdout):
        classified = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
        short = licence.strip() if licence and "\n" not in licence.strip() else ""
        rows.append((name, version, expression or short or ", ".join(classified) or "not stated"))
    lines = ["| package | version | licence |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in sorted(set(rows), key=lambda row: row[0].lower())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    what, *more = sys.argv[1:]
    sys.stdout.write(wheel() if what == "wheel" else environment(*more))
