"""Checks an installed wheel in a clean environment, with the standard library only: `make test-environments`.

    python check.py PACKAGE=VERSION-PREFIX ...

The arguments are what must be installed besides the library and orjson; without any, nothing else may be.
Then the library validates tokens over a real socket in every way that this environment allows, each of its
failures has its sentence, and what needs an extra says which.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from entra_fast import _extras
from entra_fast._native import SigningKey
from entra_fast._provider import transport
from entra_fast.validate import AsyncValidator, HttpOptions, InvalidToken, KeysUnavailable, Validator

# RFC 8037, appendix A.1.
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "rfc8037", "x": X}
PRIVATE = {**KEY, "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}
E = TypeVar("E", bound=Exception)
ISSUER, AUDIENCE = "https://issuer.example", "audience"


def b64(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def token() -> str:
    key = SigningKey.from_jwk(json.dumps(PRIVATE))
    now = int(time.time())
    header = json.dumps({"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}).encode()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600}
    return key.sign(header, json.dumps(claims).encode())


class _Keys(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"keys": [KEY]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def key_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/keys"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def options(url: str, **more: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "audience": AUDIENCE, "jwks_uri": url, "algorithms": ["EdDSA"], **more}


def in_threads(url: str, **more: Any) -> None:
    with Validator(**options(url, **more)) as validator:
        validator.validate(token())


def on_asyncio(url: str, **more: Any) -> None:
    async def main() -> None:
        async with AsyncValidator(**options(url, **more)) as validator:
            await validator.validate(token())

    asyncio.run(main())


def on_uvloop(url: str, **more: Any) -> None:
    import uvloop

    async def main() -> None:
        async with AsyncValidator(**options(url, **more)) as validator:
            await validator.validate(token())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def check_installed(expected: dict[str, str]) -> None:
    """The environment is the one that is meant."""
    installed = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    for name, version in expected.items():
        assert installed.get(name, "").startswith(version), (name, version, installed)
    if not expected:
        assert set(installed) - {"pip", "setuptools"} == {"entra-fast", "orjson"}, installed


def raised(kind: type[E], call: Callable[[], object]) -> E:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_validation(validate: Callable[..., None]) -> None:
    """Tokens are validated, and each failure to fetch keys has its sentence."""
    with key_server() as url, silent_server() as port:
        validate(url)
        hasty = HttpOptions(connect_timeout=0.3, read_timeout=0.3, proxy=False)
        for bad, sentence in (
            ("http://127.0.0.1:1/keys", "no connection to 127.0.0.1:1: Connection refused"),
            ("https://nowhere.invalid/keys", "nowhere.invalid:443: the host name could not be resolved"),
            (f"http://127.0.0.1:{port}/", f"no answer from 127.0.0.1:{port} for 0.3 s"),
            (f"https://127.0.0.1:{port}/", f"no connection to 127.0.0.1:{port} within 0.3 s"),
        ):
            error = raised(KeysUnavailable, functools.partial(validate, bad, http=hasty))
            assert sentence in error.message, error.message
        assert (
            raised(InvalidToken, functools.partial(validate, url, audience="another")).code
            == "wrong_audience"
        )


def entra_fast(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command, with text on its standard input."""
    command = [sys.executable, "-m", "entra_fast", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=said)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def check_commands() -> None:
    """A command works, or says in one line which extra it needs."""
    with tempfile.TemporaryDirectory() as folder, key_server() as url:
        path = os.path.join(folder, "keys.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"keys": [KEY]}, file)
        common = ["--issuer", ISSUER, "--audience", AUDIENCE, "--algorithm", "EdDSA"]
        for source in (["--jwks", path], ["--jwks-uri", url]):
            done = entra_fast("validate", *common, *source, said=token())
            assert done.returncode == 0, done.stderr
    assert entra_fast("inspect", said=token()).returncode == 0
    assert entra_fast("--version").returncode == 0
    assert entra_fast("--help").returncode == 0
    assert entra_fast("token", "a:b:c", "--url", "http://127.0.0.1:1/").returncode == 3
    for command, extra in (
        (["serve"], "server"),
        (["dev"], "dev"),
        (["emulator"], "dev"),
        (["token-generator"], "dev"),
        (["explain", "a:b:c", "a:b:d"], "dev"),
    ):
        if _extras.absent(extra) is not None:
            done = entra_fast(*command)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert f"pip install 'entra-fast[{extra}]'" in done.stderr, done.stderr


def check_modules() -> None:
    """A module can be imported, or says which extra it needs."""
    for name, extra in (
        ("entra_fast", None),
        ("entra_fast.validate", None),
        ("entra_fast.errors", None),
        ("entra_fast.client", None),
        ("entra_fast.tokens", None),
        ("entra_fast.tokens.aiohttp", None),
        ("entra_fast.tokens.grpc", "grpc"),
        ("entra_fast.tokens.httpx", "httpx"),
        ("entra_fast.tokens.httpx2", "httpx2"),
        ("entra_fast.tokens.requests", "requests"),
        ("entra_fast.testing", None),
        ("entra_fast.testing._local", "dev"),
        ("entra_fast.sidecar", None),
        ("entra_fast.generator", "dev"),
        ("entra_fast.emulator", "dev"),
    ):
        try:
            importlib.import_module(name)
        except ImportError as error:
            needed = f"pip install 'entra-fast[{extra}]'"
            if extra is None or _extras.absent(extra) is None or needed not in str(error):
                raise


def check_sidecar() -> None:
    """`entra-fast serve` answers."""
    with key_server() as url, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        environ = {
            **os.environ,
            "BIND_ADDRESS": f"127.0.0.1:{port}",
            "AZURE_APP_CLIENT_ID": AUDIENCE,
            "AZURE_APP_CLIENT_SECRET": "secret",
            "AZURE_OPENID_CONFIG_ISSUER": ISSUER,
            "AZURE_OPENID_CONFIG_JWKS_URI": url,
            "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "http://127.0.0.1:1/token",
        }
        command = [sys.executable, "-m", "entra_fast", "serve"]
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                body = None
                for _ in range(200):
                    with contextlib.suppress(OSError):
                        body = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
                        break
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    time.sleep(0.1)
                assert body is not None
                assert b"\nentra_fast_fast_path 1.0\n" in body
            finally:
                process.terminate()
                _, logged = process.communicate(timeout=30)
        assert process.returncode == 0, logged
        assert "Traceback" not in logged, logged


def check_emulator() -> None:
    """A token of the local Entra ID, validated: all of it without a network."""
    from entra_fast.emulator import LocalEntraId

    examples = os.path.join(os.path.dirname(importlib.import_module("entra_fast").__file__ or ""), "examples")
    local = LocalEntraId.from_files([f"{examples}/manifests"], f"{examples}/directory.yaml")
    settings = local.environment("dev-gcp:team-b:app-b")
    issuer = settings["AZURE_OPENID_CONFIG_ISSUER"]
    validator = Validator(issuer, settings["AZURE_APP_CLIENT_ID"], jwks=local.key_set(issuer))
    _, minted = local.mint("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b")
    assert minted is not None
    assert validator.validate(minted).is_app


def main() -> None:
    logging.getLogger("entra_fast").addHandler(logging.NullHandler())
    check_installed(dict(argument.split("=") for argument in sys.argv[1:]))
    has = {name: importlib.util.find_spec(name) is not None for name in ("aiohttp", "uvloop")}
    kinds = [in_threads, on_asyncio, *([on_uvloop] if has["uvloop"] else [])]
    for kind in kinds:
        check_validation(kind)
    assert not has["aiohttp"] or "aiohttp" in sys.modules
    client = type(transport.asynchronous(HttpOptions())).__name__
    assert client == ("HttpClient" if has["aiohttp"] else "ThreadedHttpClient")
    check_commands()
    check_modules()
    if _extras.absent("server") is None:
        check_sidecar()
    if _extras.absent("dev") is None:
        check_emulator()


if __name__ == "__main__":
    main()
