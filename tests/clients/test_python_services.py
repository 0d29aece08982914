"""Python services that sign users in: `identity` (MSAL for web applications) and django-auth-adfs.

Their packages are in requirements/clients.txt, which `make clients` installs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
import requests

from .conftest import WEB, Served
from .support import sign_in, until_it_answers

FOLDER = Path(__file__).parent / "python"
START_SECONDS = 60


@pytest.fixture(params=["identity_flask", "adfs_django"])
def service(request: pytest.FixtureRequest, entra: Served, tmp_path: Path) -> Iterator[str]:
    """A service that signs users in with one of these libraries."""
    module = {"identity_flask": "identity", "adfs_django": "django_auth_adfs"}[request.param]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: run make clients")
    port = entra.web_ports[2]
    environment = {
        **os.environ,
        "ISSUER": entra.issuer,
        "SERVER": entra.base_url.removeprefix("https://"),
        "TENANT": entra.tenant,
        "CLIENT_ID": entra.client_id(WEB),
        "CLIENT_SECRET": entra.secret(WEB),
        "PORT": str(port),
        "FOLDER": str(tmp_path),
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, f"{request.param}.py"],
            cwd=FOLDER,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until_it_answers(process, f"http://127.0.0.1:{port}/nowhere", START_SECONDS)
        assert process.poll() is None, log.read_text()[-2000:]
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_python_service_signs_a_user_in(entra: Served, service: str) -> None:
    """Discovery, authorization code, tokens: the page knows the user, and a second visit needs no sign-in."""
    browser = requests.Session()
    asked = browser.get(service, timeout=20)
    if not asked.url.startswith(entra.base_url):  # identity shows a page that leads there
        (link,) = re.findall(rf"URL=({re.escape(entra.base_url)}[^']*)'", asked.text)
        asked = browser.get(unescape(link), timeout=20)
    page = sign_in(browser, asked.url)
    assert page.ok, page.text[-2000:]
    assert page.json()["user"] == "ada@trygdeetaten.no"
    assert browser.get(service, timeout=20).json() == page.json()
