"""How a validator fetches keys: certificate authorities, web proxies, header fields and time limits, with a
real authority, TLS server and proxy, by each of its HTTP clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._settings import catalogue
from entra_fast.errors import ConfigurationError, EntraFastError, KeysUnavailable
from entra_fast.validate import AsyncValidator, HttpOptions, Issuer, Validator
from support.network import Authority, ConnectProxy
from support.provider import Provider
from support.sidecars import sidecars
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer

NAME = "keys.example.test"
"""A name that no resolver knows: only the proxy can reach it."""

TOKEN = signer().token()
VARIABLES = ("ENTRA_FAST_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


class KeyHost:
    """A key set over TLS. `heard` has the heads of the requests."""

    def __init__(self, context: ssl.SSLContext, *, silent: bool = False) -> None:
        self.heard: list[str] = []
        self._context, self._silent = context, silent

    async def __aenter__(self) -> KeyHost:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if self._silent:
                await reader.read()
            body = jwks(signer()).encode()
            if "openid-configuration" in self.heard[-1]:
                authority = self.heard[-1].partition("Host: ")[2].partition("\r\n")[0]
                issuer = {"issuer": f"https://{authority}", "jwks_uri": f"https://{authority}/keys"}
                body = json.dumps(issuer).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()


class ByThreads:
    """Validates by a `Validator`."""

    async def validate(self, **options: Any) -> str:
        def run() -> str:
            with Validator(ISSUER, AUDIENCE, clock=lambda: NOW, **options) as validator:
                return str(validator.validate(TOKEN)["iss"])

        return await asyncio.to_thread(run)

    async def discover(self, url: str, http: HttpOptions) -> None:
        (await asyncio.to_thread(Validator.from_discovery, url, AUDIENCE, http=http)).close()


class ByLoop:
    """Validates by an `AsyncValidator`."""

    async def validate(self, **options: Any) -> str:
        async with AsyncValidator(ISSUER, AUDIENCE, clock=lambda: NOW, **options) as validator:
            return str((await validator.validate(TOKEN))["iss"])

    async def discover(self, url: str, http: HttpOptions) -> None:
        await (await AsyncValidator.from_discovery(url, AUDIENCE, http=http)).aclose()


@pytest.fixture(params=["threads", "aiohttp", "without aiohttp"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ByThreads | ByLoop:
    """Each way of fetching keys, in an environment that says nothing about it."""
    for name in (*VARIABLES, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "without aiohttp":
        monkeypatch.setitem(sys.modules, "entra_fast._provider.http_client", None)
    return ByThreads() if request.param == "threads" else ByLoop()


@pytest_asyncio.fixture
async def host(authority: Authority) -> AsyncIterator[KeyHost]:
    """A key set on loopback whose certificate only the test's authority has issued."""
    async with KeyHost(authority.server("localhost")) as host:
        yield host


def hashed(authority: Authority, directory: Path) -> str:
    """A directory with the authority's certificate, as OpenSSL looks for it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl")
    command = [openssl, "x509", "-noout", "-subject_hash", "-in", str(authority.bundle)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    directory.mkdir()
    (directory / f"{name}.0").write_bytes(authority.bundle.read_bytes())
    return str(directory)


# --- certificate authorities -----------------------------------------------------------------------------


async def test_an_authority_as_argument(by: ByThreads | ByLoop, authority: Authority, host: KeyHost) -> None:
    """`ca_bundle` is trusted; without it the same server is not."""
    url = f"https://localhost:{host.port}/keys"
    for path in (authority.bundle, str(authority.bundle)):
        assert await by.validate(jwks_uri=url, http=HttpOptions(ca_bundle=path)) == ISSUER
    with pytest.raises(KeysUnavailable, match="unable to get local issuer certificate"):
        await by.validate(jwks_uri=url)
    assert len(host.heard) == 2


async def test_the_discovery_document_is_fetched_the_same_way(
    by: ByThreads | ByLoop, authority: Authority, host: KeyHost
) -> None:
    """`from_discovery` takes the same options."""
    url = f"https://localhost:{host.port}/.well-known/openid-configuration"
    await by.discover(url, HttpOptions(ca_bundle=authority.bundle, headers={"X-Gateway": "key"}))
    assert "X-Gateway: key\r\n" in host.heard[0]


@pytest.mark.parametrize("variable", VARIABLES)
async def test_an_authority_in_the_environment(
    by: ByThreads | ByLoop,
    authority: Authority,
    host: KeyHost,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each of the three variables is enough, as of the time of the fetch."""
    value = hashed(authority, tmp_path / "ca") if variable == "SSL_CERT_DIR" else str(authority.bundle)
    monkeypatch.setenv(variable, value)
    assert await by.validate(jwks_uri=f"https://localhost:{host.port}/keys") == ISSUER


async def test_the_order_of_the_sources(
    by: ByThreads | ByLoop,
    authority: Authority,
    host: KeyHost,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The argument replaces `ENTRA_FAST_CA_BUNDLE`; both add to `SSL_CERT_FILE`."""
    url = f"https://localhost:{host.port}/keys"
    (tmp_path / "other").mkdir()
    other = str(Authority(tmp_path / "other").bundle)
    monkeypatch.setenv("ENTRA_FAST_CA_BUNDLE", str(authority.bundle))
    with pytest.raises(KeysUnavailable, match="local issuer"):
        await by.validate(jwks_uri=url, http=HttpOptions(ca_bundle=other))
    monkeypatch.setenv("ENTRA_FAST_CA_BUNDLE", other)
    assert await by.validate(jwks_uri=url, http=HttpOptions(ca_bundle=authority.bundle)) == ISSUER
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
    assert await by.validate(jwks_uri=url) == ISSUER
    assert await by.validate(jwks_uri=url, http=HttpOptions(ca_bundle=other)) == ISSUER


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_a_variable_that_names_nothing(
    by: ByThreads | ByLoop, host: KeyHost, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL ignores it without a word. The sentence about the certificate says so."""
    monkeypatch.setenv(variable, "/nowhere")
    with pytest.raises(KeysUnavailable, match=f"certificate; {variable} names nothing that can be read"):
        await by.validate(jwks_uri=f"https://localhost:{host.port}/keys")


def test_a_bundle_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake at construction, which names the argument or the variable."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (tmp_path / "absent.pem", empty, tmp_path, 7, "a\0b"):
        with pytest.raises(ConfigurationError) as caught:
            HttpOptions(ca_bundle=path)  # type: ignore[arg-type]
        assert caught.value.setting == "ca_bundle"
    monkeypatch.setenv("ENTRA_FAST_CA_BUNDLE", str(empty))
    for kind in (Validator, AsyncValidator):
        with pytest.raises(ConfigurationError) as caught:
            kind(ISSUER, AUDIENCE, jwks_uri="https://keys.example/")
        assert caught.value.setting == "ENTRA_FAST_CA_BUNDLE" == catalogue.CA_BUNDLE.name
        kind(ISSUER, AUDIENCE, jwks=jwks(signer()))  # fetches nothing


async def test_a_bundle_of_the_environment_that_is_none(
    by: ByThreads | ByLoop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also for a discovery document: a mistake in the configuration, not keys that are unavailable."""
    monkeypatch.setenv("ENTRA_FAST_CA_BUNDLE", str(tmp_path / "absent.pem"))
    with pytest.raises(ConfigurationError) as caught:
        await by.discover("https://keys.example/.well-known/openid-configuration", HttpOptions())
    assert caught.value.setting == "ENTRA_FAST_CA_BUNDLE"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_the_variables_work_in_the_sidecar(
    authority: Authority, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside `ENTRA_FAST_CA_BUNDLE`, which has a test in test_outbound_http.py."""
    value = hashed(authority, tmp_path / "ca") if variable == "SSL_CERT_DIR" else str(authority.bundle)
    monkeypatch.setenv(variable, value)
    provider = Provider()
    await provider.start(tls=authority.server("localhost"))
    async with sidecars(provider) as start:
        sidecar = await start()
        assert (await sidecar.call.token()).status == 200
    await provider.stop()


# --- web proxies -----------------------------------------------------------------------------------------


async def test_a_web_proxy_as_argument(by: ByThreads | ByLoop, authority: Authority) -> None:
    """With its password, for every host: also for loopback, and whatever NO_PROXY says."""
    async with KeyHost(authority.server(NAME, "localhost")) as host:
        proxy = ConnectProxy(host.port, credentials="user:p@ss")
        await proxy.start()
        http = HttpOptions(ca_bundle=authority.bundle, proxy=f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "*")
            patch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
            for name in (NAME, "localhost"):
                assert await by.validate(jwks_uri=f"https://{name}/keys", http=http) == ISSUER
        assert proxy.asked_for == [f"CONNECT {NAME}:443", "CONNECT localhost:443"]
        await proxy.stop()


async def test_no_web_proxy_as_argument(
    by: ByThreads | ByLoop, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False: a direct connection. Without the argument, the environment's proxy is asked."""
    proxy = ConnectProxy(1)
    await proxy.start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    url = f"https://{NAME}/keys"
    with pytest.raises(KeysUnavailable, match="the host name could not be resolved"):
        await by.validate(jwks_uri=url, http=HttpOptions(proxy=False))
    assert proxy.asked_for == []
    with pytest.raises(KeysUnavailable, match=f"through the proxy 127.0.0.1:{proxy.port}|closed"):
        await by.validate(jwks_uri=url)
    assert proxy.asked_for[0] == f"CONNECT {NAME}:443"
    await proxy.stop()


async def test_a_proxy_that_refuses_is_named(by: ByThreads | ByLoop, authority: Authority) -> None:
    """By host and port, without the credentials."""
    proxy = ConnectProxy(1, credentials="user:right")
    await proxy.start()
    http = HttpOptions(proxy=f"http://user:canary@127.0.0.1:{proxy.port}")
    with pytest.raises(KeysUnavailable) as caught:
        await by.validate(jwks_uri=f"https://{NAME}/keys", http=http)
    assert f"the proxy 127.0.0.1:{proxy.port} refused the connection to {NAME}:443" in caught.value.message
    assert "407" in caught.value.message
    assert "canary" not in repr(caught.value) + repr(http)
    await proxy.stop()


@pytest.mark.parametrize(
    "proxy", ["", "ftp://x", "http://", "http://x:port", "http://x y", 7, True, "http://x:0"]
)
def test_a_proxy_that_is_none(proxy: Any) -> None:
    """A mistake at construction; the sentence does not repeat it, for it may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions(proxy=proxy)
    assert (caught.value.setting, caught.value.message) == (
        "proxy",
        "proxy must be a URL such as http://proxy.example:8080",
    )


def test_a_proxy_of_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows when the validator is made, not in the thread that fetches."""
    monkeypatch.setenv("HTTPS_PROXY", "ftp://canary")
    for kind in (Validator, AsyncValidator):
        with pytest.raises(ConfigurationError) as caught:
            kind(ISSUER, AUDIENCE, jwks_uri="https://keys.example/")
        assert caught.value.setting == "HTTPS_PROXY"
        assert "canary" not in str(caught.value)


# --- header fields ---------------------------------------------------------------------------------------


async def test_header_fields(by: ByThreads | ByLoop, authority: Authority, host: KeyHost) -> None:
    """They are added to the client's own, and replace its User-Agent."""
    headers = {"X-Gateway-Key": "canary", "user-agent": "mine/1"}
    http = HttpOptions(ca_bundle=authority.bundle, headers=headers)
    await by.validate(jwks_uri=f"https://localhost:{host.port}/keys", http=http)
    head = host.heard[0]
    assert "X-Gateway-Key: canary\r\n" in head
    assert "mine/1" in head
    assert head.lower().count("user-agent:") == 1
    assert "Accept-Encoding: identity\r\n" in head
    assert "canary" not in repr(http)
    headers["X-Gateway-Key"] = "changed\r\nlater"  # what was checked is what is sent
    assert http.headers["X-Gateway-Key"] == "canary"


async def test_header_fields_of_one_issuer_go_to_no_other(
    by: ByThreads | ByLoop, authority: Authority, host: KeyHost
) -> None:
    """An `Issuer` has options of its own."""
    async with KeyHost(authority.server("localhost")) as second:
        keyed = HttpOptions(ca_bundle=authority.bundle, headers={"X-Key": "secret"})
        issuers = [
            Issuer(issuer="https://a.example", jwks_uri=f"https://localhost:{host.port}/keys", http=keyed),
            Issuer(issuer=ISSUER, jwks_uri=f"https://localhost:{second.port}/keys"),
        ]
        options: dict[str, Any] = {"issuers": issuers, "clock": lambda: NOW}
        options["http"] = HttpOptions(ca_bundle=authority.bundle)
        for token in (signer().token(iss="https://a.example"), TOKEN):
            if isinstance(by, ByThreads):
                threads = Validator(audience=AUDIENCE, **options)
                await asyncio.to_thread(threads.validate, token)
                threads.close()
            else:
                async with AsyncValidator(audience=AUDIENCE, **options) as validator:
                    await validator.validate(token)
        assert any("X-Key" in head for head in host.heard)
        assert second.heard
        assert not any("X-Key" in head for head in second.heard)


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "a\n"},
        {"X": "\x00"},
        {"X": "naïve"},
        {"X": ""},
        {"X": " a"},
        {"X": 7},
        {"": "a"},
        {"X Y": "a"},
        {"X:": "a"},
        {"Host": "a"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Accept-Encoding": "gzip"},
        {"Proxy-Authorization": "Basic canary"},
        {"X-A": "1", "x-a": "2"},
        {f"X-{number}": "1" for number in range(33)},
        {"X": "a" * 8192},
        [("X", "a")],
    ],
)
def test_header_fields_that_are_none(headers: Any) -> None:
    """A mistake at construction; nothing can smuggle a second header or request."""
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions(headers=headers)
    assert caught.value.setting == "headers"
    assert "canary" not in str(caught.value)


# --- time limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"read_timeout": 0.2}, "no answer from localhost:{port} for 0.2 s"),
        ({"timeout": 0.2, "read_timeout": 9}, "no complete answer from localhost:{port} within 0.2 s"),
    ],
)
async def test_time_limits(
    by: ByThreads | ByLoop, authority: Authority, limits: dict[str, Any], sentence: str
) -> None:
    """A silent server is given up in time, and the sentence says after which."""
    async with KeyHost(authority.server("localhost"), silent=True) as host:
        http = HttpOptions(ca_bundle=authority.bundle, connect_timeout=30, **limits)
        with pytest.raises(EntraFastError) as caught:
            await by.validate(jwks_uri=f"https://localhost:{host.port}/keys", http=http)
        assert sentence.format(port=host.port) in str(caught.value)


def test_defaults_of_the_time_limits() -> None:
    """To connect, between two reads, overall. `timeout` alone is the limit of everything."""
    assert HttpOptions().seconds() == (2.0, 3.0, 5.0)
    assert HttpOptions(timeout=20).seconds() == (20, 20, 20)
    assert HttpOptions(timeout=20, connect_timeout=1).seconds() == (1, 20, 20)
    assert HttpOptions(read_timeout=9).seconds() == (2.0, 9, 9)


@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "read_timeout"])
@pytest.mark.parametrize("value", [0, -1, 301, float("nan"), float("inf"), "5", True])
def test_time_limits_that_are_none(name: str, value: Any) -> None:
    """A mistake at construction that names the argument."""
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions(**{name: value})
    assert caught.value.setting == name
