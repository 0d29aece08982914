"""docs/guides/frameworks.md: every block of Python runs, as a service behind a real server if it is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from entra_fast.integrations import _validators
from support.bearer import (
    aiohttp_server,
    bearer,
    send,
    server_process,
    token,
    uvicorn_server,
    waitress_server,
)
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, jwks, signer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "frameworks.md").read_text()
GUIDES: dict[str, list[str]] = {
    section.partition("\n")[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")
}
CALLER = "cccccccc-0000-0000-0000-000000000000"

Serve = Callable[[Any], AbstractContextManager[str]]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What NAIS sets, with keys that are really fetched."""
    with KeyServer(jwks(signer())) as keys:
        monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
        monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", ISSUER)
        monkeypatch.setenv("AZURE_OPENID_CONFIG_JWKS_URI", keys.keys_url)
        monkeypatch.setenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "http://127.0.0.1:7164/api/v1/introspect")
        _validators._from_environment.cache_clear()
        yield
        _validators._from_environment.cache_clear()


def run(block: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a block, which runs as a module: frameworks look annotations up there."""
    module = types.ModuleType("service")
    monkeypatch.setitem(sys.modules, "service", module)
    exec(compile(block, "docs/guides/frameworks.md", "exec"), vars(module))
    return vars(module)


def fresh(**claims: Any) -> str:
    """A token that is valid now."""
    now = int(time.time())
    return token(iat=now, nbf=now, exp=now + 600, **claims)


def check(url: str, *, has_requirement: bool = True) -> None:
    """What every guide's service does."""
    assert send(url, "/healthz").status == 200
    refused = send(url, "/cases")
    assert refused.status == 401
    assert refused.challenge == {"realm": "api"}
    accepted = send(url, "/cases", bearer(fresh(roles=["case-reader"])))
    assert accepted.status == 200, accepted
    assert accepted.json == {"caller": CALLER}
    insufficient = send(url, "/cases", bearer(fresh()))
    assert insufficient.status == (403 if has_requirement else 200)


@pytest.mark.parametrize(
    ("guide", "name", "serve"),
    [
        ("FastAPI", "app", uvicorn_server),
        ("Starlette", "app", uvicorn_server),
        ("Litestar, Quart and other ASGI applications", "asgi", uvicorn_server),
        ("aiohttp", "app", lambda app: aiohttp_server(lambda: app)),
        ("Flask", "app", waitress_server),
    ],
)
@pytest.mark.usefixtures("environment")
def test_a_guide_is_a_service(guide: str, name: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands there."""
    (block,) = GUIDES[guide]
    with serve(run(block, monkeypatch)[name]) as url:
        check(url, has_requirement="Quart" not in guide)


def test_the_guide_for_tokenx_is_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling application and the level of assurance are required."""
    issuer, api = "https://tokenx.example", "dev-gcp:team:api"
    with KeyServer(jwks(signer())) as keys:
        monkeypatch.setenv("TOKEN_X_CLIENT_ID", api)
        monkeypatch.setenv("TOKEN_X_ISSUER", issuer)
        monkeypatch.setenv("TOKEN_X_JWKS_URI", keys.keys_url)

        def citizen(**claims: Any) -> tuple[str, str]:
            now = int(time.time())
            content = {"iss": issuer, "aud": api, "iat": now, "exp": now + 600, "acr": "Level4"}
            return bearer(signer().token({**content, "client_id": "dev-gcp:team:web", **claims}))

        (block,) = GUIDES["Accept tokens of TokenX"]
        with uvicorn_server(run(block, monkeypatch)["app"]) as url:
            assert send(url, "/healthz").status == 200
            assert send(url, "/cases", citizen()).json == {"caller": "dev-gcp:team:web"}
            assert send(url, "/cases", citizen(client_id="dev-gcp:team:other")).status == 403
            assert send(url, "/cases", citizen(aud="dev-gcp:team:other")).status == 401
            low = send(url, "/cases", citizen(acr="idporten-loa-substantial"))
            assert low.status == 401
            assert low.challenge["acr_values"] == "idporten-loa-high"
            assert send(url, "/cases", bearer(fresh())).status == 401


DJANGO = """
import django
from django.conf import settings

{settings}
names = [name for name in globals() if name.isupper()]
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, **{{name: globals()[name] for name in names}}
)
django.setup()

{views}
from django.core.asgi import get_asgi_application

application = get_asgi_application()
"""


@pytest.mark.parametrize("guide", ["Django", "Django REST framework"])
@pytest.mark.usefixtures("environment")
def test_a_guide_for_django_is_a_project(guide: str, tmp_path: Path) -> None:
    """Its settings and its views, in a process of their own."""
    settings, views = GUIDES[guide]
    (tmp_path / "guide.py").write_text(DJANGO.format(settings=settings, views=views))
    command = (
        "uvicorn",
        "--app-dir",
        str(tmp_path),
        "--port",
        "{port}",
        "--log-level",
        "error",
        "guide:application",
    )
    with server_process(command) as url:
        check(url)
        if guide == "Django":
            mine = send(url, "/mine", bearer(fresh(scp="x", idtyp="user")))
            assert set(mine.json) == {"user"}


@pytest.mark.usefixtures("environment")
async def test_the_guide_for_grpc_is_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coroutine serves until it is cancelled."""
    (block,) = GUIDES["gRPC"]
    names = run(block, monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = asyncio.ensure_future(names["serve"](address))
    channel: Any = grpc.aio.insecure_channel(address)
    codes = []
    for value in ("", f"Bearer {fresh()}", f"Bearer {fresh(roles=['case-reader'])}"):
        metadata = (("authorization", value),) if value else ()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/cases.v1.Cases/List")(b"", metadata=metadata, wait_for_ready=True)
        codes.append(caught.value.code())
    code = grpc.StatusCode
    assert codes == [code.UNAUTHENTICATED, code.PERMISSION_DENIED, code.UNIMPLEMENTED]
    await channel.close()
    server.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await server


OTHERS = (
    "Say what you require",
    "Tell clients where to get a token",
    "Write a challenge yourself",
    "Validate through the sidecar",
    "Test your service",
)


@pytest.mark.parametrize("guide", OTHERS)
@pytest.mark.usefixtures("environment")
def test_a_block_runs(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there; its assertions hold."""
    monkeypatch.chdir(ROOT)
    (block,) = GUIDES[guide]
    run(block, monkeypatch)


def test_no_block_is_left_out() -> None:
    """A new one needs a test."""
    tested = {
        "FastAPI",
        "Starlette",
        "Litestar, Quart and other ASGI applications",
        "aiohttp",
        "Flask",
        "Django",
        "Accept tokens of TokenX",
    }
    tested |= {"Django REST framework", "gRPC", *OTHERS}
    assert {guide for guide, blocks in GUIDES.items() if blocks} == tested


def test_the_guides_pass_a_strict_type_checker(tmp_path: Path) -> None:
    """mypy --strict on every block: types of the claims, decorators and dependencies are right."""
    pytest.importorskip("mypy")
    for number, (guide, blocks) in enumerate(GUIDES.items()):
        for part, block in enumerate(blocks):
            (tmp_path / f"guide_{number}_{part}.py").write_text(f"# {guide}\n{block}")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\npython_version = 3.11\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(config),
        "--cache-dir",
        str(ROOT / ".mypy_cache"),
        str(tmp_path),
    ]
    environ = {**os.environ, "MYPYPATH": str(ROOT / "python")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stdout
