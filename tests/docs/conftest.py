"""The servers that the documentation talks about: those of `entra-fast dev`, and an API in app-b's place."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from entra_fast.cli.dev_system import LocalSystem, Options, local_system
from entra_fast.integrations import _validators
from support.background import Api, ThreadLoop
from support.local_entra import EXAMPLES
from support.pages_that_run import World
from support.process import inherited

APP = "dev-gcp:team-a:app-a"
ID_PORTEN = {
    "IDPORTEN_ENABLED": "true",
    "IDPORTEN_AUDIENCE": "https://api.example",
    "IDPORTEN_ISSUER": "https://idporten.example",
    "IDPORTEN_JWKS_URI": "https://idporten.example/jwks.json",
}
"""For an application of the examples that signs no citizen in itself."""
OTHER_TENANT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="session")
def servers() -> Iterator[ThreadLoop]:
    """The loop that servers run on."""
    loop = ThreadLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def system(servers: ThreadLoop) -> Iterator[LocalSystem]:
    """What `entra-fast dev` starts, on free ports."""
    started: list[LocalSystem] = []
    running, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        options = Options((str(EXAMPLES / "manifests"),), emulator_port=0, generator_port=0, sidecar_port=0)
        async with local_system(options) as system:
            started.append(system)
            running.set()
            await end.wait()

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(serve())

    async def stop() -> None:
        end.set()
        await task

    task = servers.run(start())
    assert running.wait(60)
    yield started[0]
    servers.run(stop())


@pytest.fixture(scope="session")
def api(servers: ThreadLoop) -> Iterator[Api]:
    """The API that the pages call at http://app-b.team-b."""
    api = Api()
    servers.run(api.start())
    yield api
    servers.run(api.stop())


@pytest.fixture
def world(system: LocalSystem, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A folder with the examples, the variables that NAIS would set for app-a, and tokens."""
    emulator, sidecar = system.emulator, system.sidecars[0].running
    for name, target in {
        "examples": EXAMPLES,
        ".nais": EXAMPLES / "manifests",
        "nais": EXAMPLES,
        "users.yaml": EXAMPLES / "directory.yaml",
    }.items():
        (tmp_path / name).symlink_to(target)
    program = tmp_path / "my-program"
    program.write_text('#!/bin/sh\ntest -n "$AZURE_APP_CLIENT_ID"\n')
    program.chmod(0o755)
    authority = tmp_path / "company.pem"
    authority.write_text(_authority())
    own = emulator.environment(APP)
    environment = {
        **inherited(),
        **own,
        **({} if own.get("IDPORTEN_ENABLED") == "true" else ID_PORTEN),
        "HOME": str(tmp_path),
        "LOCAL_ENTRA_ID": emulator.base_url,
        "SERVERS_SEEN": str(tmp_path.parent / "servers-seen"),
        "TOKEN_GENERATOR_AUDIENCES": APP,
        "NAIS_TOKEN_ENDPOINT": f"{sidecar.base_url}/api/v1/token",
        "NAIS_TOKEN_EXCHANGE_ENDPOINT": f"{sidecar.base_url}/api/v1/token/exchange",
        "NAIS_TOKEN_INTROSPECTION_ENDPOINT": f"{sidecar.base_url}/api/v1/introspect",
        "PYTHONPATH": os.pathsep.join(path for path in [str(EXAMPLES.parent / "python"), *_paths()]),
    }
    for name, value in environment.items():
        if name.startswith(("AZURE_", "NAIS_", "TOKEN_X_", "IDPORTEN_", "MASKINPORTEN_")):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    _validators._from_environment.cache_clear()
    local = emulator.local
    tenant = local.registry.default_tenant.id
    _, token = local.mint(APP, APP)
    _, users = local.mint(APP, APP, "ada")
    environment["TOKEN"] = str(token)
    names: dict[str, Any] = {
        "token": token,
        "user_token": users,
        "users_token": users,
        "issuer": own["AZURE_OPENID_CONFIG_ISSUER"],
        "audience": own["AZURE_APP_CLIENT_ID"],
        "client_id": own["AZURE_APP_CLIENT_ID"],
        "jwks_uri": own["AZURE_OPENID_CONFIG_JWKS_URI"],
    }
    addresses = {
        "https://other.example/.well-known": f"{emulator.base_url}/{tenant}/v2.0/.well-known",
        "http://127.0.0.1:8080": emulator.base_url,
        "http://127.0.0.1:8081": system.generator.base_url,
        "http://127.0.0.1:8082": system.tokenx_generator.base_url if system.tokenx_generator else "",
        "http://127.0.0.1:7164": sidecar.base_url,
        "localhost:7165": sidecar.probe_url.removeprefix("http://"),
        "http://app-b.team-b": api.origin,
        "/etc/ssl/company.pem": str(authority),
    }
    placeholders = {
        r"<tenant id>|<another>": tenant,
        r"<tenant id of [\w ]+>": OTHER_TENANT,
        r"<client id[\w ]*>": own["AZURE_APP_CLIENT_ID"],
        r"<audience there>": own["AZURE_APP_CLIENT_ID"],
    }
    yield World(tmp_path, environment, names, addresses, placeholders)
    _validators._from_environment.cache_clear()


def _paths() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _authority() -> str:
    """Some certificate authority: one that the local Entra ID makes for --tls."""
    import tempfile

    from entra_fast.emulator.tls import prepare

    with tempfile.TemporaryDirectory() as folder:
        return prepare(Path(folder)).authority.read_text()


Runs = Callable[[Path], None]
