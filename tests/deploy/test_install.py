"""From an empty virtual environment and the wheel to the first introspected token."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.containers import until

GOAL = 10.0
"""Seconds, on a machine with nothing else to do and an index that is near. Printed, not required."""
BOUND = 240.0
"""Seconds, whatever else the machine does: longer means that something waits for nothing."""
APPLICATION = "dev-gcp:team-a:app-a"


def test_the_first_token_takes_seconds(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Install, `entra-fast dev`, a token from its sidecar, introspected: the time is printed for each way to
    install. Without a wheelhouse, most of pip's time goes into the index's lists of files."""
    rows: list[tuple[str, float, float, float]] = []

    def measure(name: str, *command: str, **variables: str) -> None:
        """Run a command with `{python}` in it for an empty environment, and `entra-fast dev` from there."""
        environment = tmp_path / f"environment-{len(rows)}"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        python = str(environment / "bin/python")
        began, began_cpu = time.monotonic(), _cpu_of_children()
        subprocess.run(
            [part.format(python=python) for part in command], check=True, env={**os.environ, **variables}
        )
        installed, cpu = time.monotonic(), _cpu_of_children() - began_cpu
        ended = _first_token(environment / "bin", tmp_path)
        rows.append((name, installed - began, cpu, ended - installed))

    requirement = f"{wheel}[dev]"
    wheelhouse = str(tmp_path / "wheelhouse")
    cache = ("--cache-dir", str(tmp_path / "cache"))
    bundled, newest = _pip(tmp_path / "bundled"), _pip(tmp_path / "newest", "--upgrade-deps")
    measure(f"{bundled.name} of this Python, empty cache", *bundled.install, "--no-cache-dir", requirement)
    measure(f"{newest.name}, empty cache", *newest.install, *cache, requirement)
    measure(f"{newest.name}, warm cache", *newest.install, *cache, requirement)
    subprocess.run(
        [newest.program, "download", *QUIET, *cache, "--dest", wheelhouse, requirement], check=True
    )
    offline = ("--no-index", "--find-links", wheelhouse)
    measure(f"{newest.name}, local wheelhouse", *newest.install, *offline, requirement)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    for state in ("empty", "warm") if uv else ():
        command = (str(uv), "pip", "install", "--quiet", "--python", "{python}", requirement)
        measure(f"uv, {state} cache", *command, UV_CACHE_DIR=str(tmp_path / "uv-cache"))

    with capsys.disabled():
        print(f"\nfrom an empty environment to the first introspected token (goal: {GOAL:g} s):")
        for name, install, cpu, start in rows:
            met = "met" if install + start < GOAL else "missed"
            print(
                f"  {name:<38} {install + start:5.1f} s, {met}: "
                f"install {install:.1f} s ({cpu:.1f} s of CPU), dev {start:.1f} s"
            )
        if not uv:
            print("  uv: not measured, because it is not installed")
    assert all(install + start < BOUND for _, install, _, start in rows)


class Pip(NamedTuple):
    """A pip, and how it installs into another environment."""

    name: str
    program: str
    install: tuple[str, ...]


QUIET = ("--quiet", "--disable-pip-version-check")


def _pip(folder: Path, *options: str) -> Pip:
    """The pip of a new virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", *options, str(folder)], check=True)
    program = str(folder / "bin/pip")
    version = subprocess.check_output([program, "--version"], text=True).split()[1]
    return Pip(f"pip {version}", program, (program, "--python", "{python}", "install", *QUIET))


def _cpu_of_children() -> float:
    """Seconds of CPU that ended processes took: a busy machine changes them less than the clock's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first_token(programs: Path, folder: Path) -> float:
    """Start `entra-fast dev`, get a token from its sidecar, introspect it, and stop.

    Returns:
        When the token was introspected.
    """
    ports = _free_ports()
    dev = subprocess.Popen(
        [
            *(str(programs / "entra-fast"), "dev", "--app", APPLICATION),
            *("--emulator-port", str(ports[0]), "--generator-port", str(ports[1])),
            *("--sidecar-port", str(ports[2])),
        ],
        cwd=folder,  # away from the sources, where nothing but the installed package can be found
        stdout=subprocess.DEVNULL,
        env={"PATH": str(programs)},
    )
    try:
        api = f"http://127.0.0.1:{ports[2]}/api/v1"
        provider = {"identity_provider": "entra_id"}
        acquired = until(lambda: _posted(f"{api}/token", {**provider, "target": APPLICATION}), BOUND)
        checked = _posted(f"{api}/introspect", {**provider, "token": acquired["access_token"]})
        ended = time.monotonic()
    finally:
        dev.send_signal(signal.SIGINT)
        status = dev.wait(30)
    assert checked["active"] is True, checked
    assert status == 0
    return ended


def test_the_wheel_has_the_licences_and_the_bill_of_materials(wheel: Path) -> None:
    """Of the crates in its library: the texts, and a CycloneDX document that names the same crates."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (texts,) = (name for name in names if name.endswith(".dist-info/licenses/THIRD-PARTY-LICENSES.txt"))
        (bill,) = (name for name in names if ".dist-info/sboms/" in name)
        listed = archive.read(texts).decode()
        components = json.loads(archive.read(bill))["components"]
    shipped = {(each["name"], each["version"]) for each in components}
    lines = listed.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    crates = {(name, version) for name, version, _ in (line.split(" ", 2) for line in lines)}
    assert {"aws-lc-sys", "pyo3", "rind"} <= {name for name, _ in crates}
    assert crates <= shipped


def _posted(url: str, fields: dict[str, str]) -> Any:
    """The answer, or None if there is none yet."""
    request = urllib.request.Request(url, json.dumps(fields).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except OSError:
        return None


def _free_ports() -> tuple[int, int, int]:
    """Ports for the local Entra ID, the token generator and the sidecar, whose probes have the next one."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            with socket.create_server(("127.0.0.1", 0)) as three:
                ports = tuple(int(each.getsockname()[1]) for each in (one, two, three))
            try:
                with socket.create_server(("127.0.0.1", ports[2] + 1)):
                    return ports  # type: ignore[return-value]
            except OSError:
                continue
    raise AssertionError("no free ports")
