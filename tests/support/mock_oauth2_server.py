"""A provider that was not written here: NAV's mock-oauth2-server, which is every issuer that its path names.

Skips the tests that need it where there is no Java or Maven, or no way to fetch it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

POM = Path(__file__).parents[1] / "clients/java/pom.xml"
MAIN = "no.nav.security.mock.oauth2.StandaloneMockOAuth2ServerKt"


def class_path(folder: Path) -> str:
    """The server and its dependencies, fetched by Maven once."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        pytest.skip("Java or Maven is not installed")
    found = folder / "class-path"
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={found}"]
    try:
        command = [maven, "-q", "-B", "-f", str(POM), *goal]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("mock-oauth2-server could not be fetched in time")
    if done.returncode != 0:
        pytest.skip("mock-oauth2-server could not be fetched: no way to a package registry")
    return found.read_text().strip()


@contextmanager
def mock_oauth2_server(folder: Path, configuration: Mapping[str, Any]) -> Iterator[str]:
    """The running server's URL. Append `/<name>` for an issuer.

    Args:
        folder: for what Maven says.
        configuration: as its documentation describes `JSON_CONFIG`.
    """
    jars = class_path(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "SERVER_PORT": str(port),
        "SERVER_HOSTNAME": "127.0.0.1",
        "JSON_CONFIG": json.dumps(configuration),
    }
    with subprocess.Popen(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", jars, MAIN],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        base = f"http://127.0.0.1:{port}"
        try:
            _until_up(process, f"{base}/any/.well-known/openid-configuration")
            yield base
        finally:
            process.terminate()


def _until_up(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "mock-oauth2-server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("mock-oauth2-server did not start")
