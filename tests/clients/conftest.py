"""Clients that were not written here, against the local Entra ID with the example manifests, over https."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from entra_fast.emulator import LocalEntraId, RunningEmulator, tls
from support.idporten import idporten_manifest
from support.local_entra import EXAMPLES, manifest

APP_A = "dev-gcp:team-a:app-a"
APP_B = "dev-gcp:team-b:app-b"
HYBRID = "dev-gcp:team:hybrid"
WEB = "dev-gcp:team:web"
"""A service that signs users in, at one of these addresses."""
WEB_PATHS = ("/login/oauth2/code/entra", "/callback", "/auth/redirect", "/oauth2/callback", "/redirect")
CALLBACK = "http://localhost:3001/oauth2/callback"
SCOPE_A = "api://dev-gcp.team-a.app-a/.default"
SCOPE_B = "api://dev-gcp.team-b.app-b/.default"
SCOPE_NOBODY = "api://dev-gcp.team-c.app-nobody/.default"


@dataclass(frozen=True)
class Served:
    """A provider in a thread of its own: these clients block."""

    running: RunningEmulator
    authority_file: Path
    web_ports: tuple[int, ...]

    @property
    def local(self) -> LocalEntraId:
        return self.running.local

    @property
    def base_url(self) -> str:
        return self.running.base_url

    @property
    def tenant(self) -> str:
        return self.local.registry.default_tenant.id

    @property
    def authority(self) -> str:
        return f"{self.base_url}/{self.tenant}"

    @property
    def issuer(self) -> str:
        return f"{self.authority}/v2.0"

    def client_id(self, application: str) -> str:
        return self.local.registry.find(application).client_id

    def secret(self, application: str) -> str:
        return self.local.credentials.secret(self.local.registry.find(application))

    def enter_device_code(self, code: str, answer: str = "continue") -> None:
        """What the user Ada does at the page for device codes."""
        browser, page = requests.Session(), f"{self.base_url}/devicelogin"
        for fields in ({"username": "ada"}, {"answer": answer}):
            assert browser.post(page, data={"code": code, **fields}, timeout=10).status_code == 200

    def user_token(self, user: str, application: str = APP_A) -> str:
        """A user's token for an application, without the login that other tests cover."""
        _, token = self.local.mint(application, application, user)
        assert token is not None
        return token


def _free_ports(number: int) -> tuple[int, ...]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in taken)


@pytest.fixture(scope="session")
def entra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The provider, and its certificate authority trusted by whatever reads the environment."""
    prepared = tls.prepare(tmp_path_factory.mktemp("tls"))
    own = tmp_path_factory.mktemp("manifests")
    switches = {"entra-fast/allow-id-token-implicit-flow": "true"}
    text = manifest("hybrid", all_users=True, replyURLs=[CALLBACK], annotations=switches)
    (own / "hybrid.yaml").write_text(text)
    ports = _free_ports(3)
    addresses = [f"http://localhost:{port}{path}" for port in ports for path in WEB_PATHS]
    text = manifest("web", all_users=True, replyURLs=addresses, annotations=switches)
    (own / "web.yaml").write_text(text)
    (own / "portal.yaml").write_text(idporten_manifest())
    local = LocalEntraId.from_files([EXAMPLES / "manifests", own], EXAMPLES / "directory.yaml")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = local.start("localhost", 0, tls=prepared.context)
    running = asyncio.run_coroutine_threadsafe(starting, loop).result(30)
    before = {
        name: os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    }
    os.environ.update(dict.fromkeys(before, str(prepared.authority)))
    yield Served(running, prepared.authority, ports)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    asyncio.run_coroutine_threadsafe(running.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture(autouse=True)
def no_planned_faults(entra: Served) -> Iterator[None]:
    """Each test begins and ends with a provider that works."""
    yield
    entra.local.faults.clear()
    entra.local.set_clock_offset(0.0)
