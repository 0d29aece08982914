"""`entra-fast doctor` names each thing that is wrong, and says what to do about it: real faults of settings,
network and provider, one at a time."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entra_fast.cli.doctor import command, machine, results
from entra_fast.cli.doctor.examination import examine
from support.network import Authority, ConnectProxy, TcpProxy, black_hole
from support.process import PROGRAM, inherited
from support.provider import CLIENT_ID, CLIENT_KEY, TENANT, Provider, granting, refuse, reset
from support.redis_server import RedisServer
from support.sidecars import StartSidecar

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-client-secret-that-nobody-may-see"
PROVIDER_CHECKS = ["dns", "tcp", "proxy", "tls", "discovery", "keys", "credential", "clock", "introspection"]


@dataclass
class Findings:
    """What `doctor` has found.

    Attributes:
        status: the exit status.
        checks: all results.
        printed: the JSON as it was printed.
    """

    status: int
    checks: list[dict[str, Any]]
    printed: str

    def of(self, status: str) -> list[str]:
        """The ids of the checks with this status."""
        return [check["id"] for check in self.checks if check["status"] == status]

    def the(self, name: str) -> dict[str, Any]:
        """The only result with this id."""
        (check,) = (check for check in self.checks if check["id"] == name)
        return check


Doctor = Callable[[dict[str, str]], Awaitable[Findings]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs it with exactly this environment. Whatever is wrong, no secret is printed."""

    async def run(environ: dict[str, str]) -> Findings:
        capsys.readouterr()
        status = await asyncio.to_thread(command.run, environ, None, as_json=True)
        output = capsys.readouterr()
        assert output.err == ""
        document = json.loads(output.out)
        assert document["ok"] is (status == 0)
        for secret in (SECRET, json.loads(CLIENT_KEY.private_jwk())["d"], "eyJ"):
            assert secret not in output.out
        return Findings(status, document["checks"], output.out)

    return run


@pytest_asyncio.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    yield Authority(tmp_path)


async def printed(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Status and output of the command as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        env={**inherited(), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> None:
    """Neither HTTP nor TLS."""
    writer.write(b"\x05\x00hello\r\n\r\n")
    await writer.drain()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# --- all is well ---


@pytest.mark.parametrize("arguments", [("doctor",), ("serve", "--check")])
async def test_if_all_is_well_it_says_so(provider: Provider, arguments: tuple[str, ...]) -> None:
    """A line for each check, and one calm sentence."""
    status, out, err = await printed(provider.environment(), *arguments)
    assert (status, err) == (0, "")
    *lines, empty, last = out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", name] for name in ("settings", "ports", "caches", *PROVIDER_CHECKS)
    ]
    assert (empty, last) == ("", "All is well: the sidecar can work with these settings.")
    assert len(provider.tries) == 1


async def test_plain_http_to_a_named_host_is_a_warning(doctor: Doctor, provider: Provider) -> None:
    """Everything works, and `tls` says that nobody should run this in production."""
    provider.base_url = f"http://0.0.0.0:{provider.port}"  # this machine, but no loopback address
    found = await doctor(provider.environment(ENTRA_FAST_INSECURE_PROVIDER_HOSTS="0.0.0.0"))
    assert (found.status, found.of("warn")) == (0, ["tls"])
    assert "asked over plain http" in found.the("tls")["found"]
    assert "ENTRA_FAST_INSECURE_PROVIDER_HOSTS" in found.the("tls")["remedy"]


async def test_each_result_has_the_same_fields(doctor: Doctor, provider: Provider) -> None:
    """Scripts find them in every result, and time and page of the documentation too."""
    found = await doctor(provider.environment())
    assert found.status == 0
    for check in found.checks:
        fields = ["id", "status", "found", "expected", "remedy", "docs", "ms", "premise", "provider"]
        assert list(check) == fields
        assert check["provider"] == ("entra_id" if check["id"] in PROVIDER_CHECKS else None)
        assert (check["expected"], check["remedy"]) == (None, None)
        assert 0 <= check["ms"] < 2000


async def test_an_audience_of_the_token_for_itself_is_explained(doctor: Doctor, provider: Provider) -> None:
    """A provider may write another one than that of callers' tokens: everything else has been verified."""
    found = (await doctor(provider.environment())).the("introspection")
    assert found["status"] == "ok"
    assert f"{CLIENT_ID}/.default" in found["found"]
    provider.on_try = granting(provider, access_token=provider.mint(aud=CLIENT_ID))
    found = (await doctor(provider.environment())).the("introspection")
    assert found["found"] == "a token that the provider has just issued is accepted"


# --- settings ---


async def test_every_wrong_setting_is_reported_and_the_rest_is_checked(
    doctor: Doctor, provider: Provider
) -> None:
    """A start would end with the first one. What does not depend on them is checked all the same."""
    environ = provider.environment(
        ENTRA_FAST_WORKERS="many", ENTRA_FAST_LOG_LEVEL="loud", ENTRA_FAST_MAX_CONECTIONS="1"
    )
    found = await doctor(environ)
    assert found.status == 1
    assert found.of("fail") == ["settings", "settings"]
    assert [check["found"] for check in found.checks[:3]] == [
        "ENTRA_FAST_WORKERS must be a whole number from 1 to 64",
        "ENTRA_FAST_LOG_LEVEL must be 'debug', 'info', 'warning' or 'error'",
        "ignored: ENTRA_FAST_MAX_CONECTIONS (did you mean ENTRA_FAST_MAX_CONNECTIONS?)",
    ]
    assert found.of("warn") == ["settings"]
    assert found.of("ok") == ["ports", *PROVIDER_CHECKS]
    assert found.the("caches")["premise"] == "settings"


@pytest.mark.parametrize(
    ("wrong", "skipped"),
    [
        ({"AZURE_APP_WELL_KNOWN_URL": "http://login.example/"}, PROVIDER_CHECKS),
        ({"HTTPS_PROXY": f"ftp://user:{SECRET}@proxy.example"}, PROVIDER_CHECKS),
        ({"AZURE_APP_CLIENT_ID": None}, PROVIDER_CHECKS),
        ({"AZURE_APP_JWK": '{"kty":"RSA","d":"' + SECRET + '"}'}, ["credential", "introspection"]),
        ({"AZURE_APP_JWK": None}, ["credential", "introspection"]),
        ({"ENTRA_FAST_ALGORITHMS": "none"}, ["introspection"]),
        ({"BIND_ADDRESS": "everywhere"}, ["ports"]),
    ],
)
async def test_a_check_is_skipped_if_its_setting_is_wrong(
    doctor: Doctor, provider: Provider, wrong: dict[str, str | None], skipped: list[str]
) -> None:
    """It names its premise; the other checks are made."""
    found = await doctor(provider.environment(**wrong))
    assert found.status == 1
    assert found.of("fail") == ["settings"]
    (name,) = wrong
    assert found.checks[0]["found"].startswith(name)
    assert name in found.checks[0]["remedy"]
    assert found.of("skip") == skipped
    assert {check["premise"] for check in found.checks if check["status"] == "skip"} == {"settings"}


async def test_without_a_provider_there_is_nothing_to_check(doctor: Doctor, provider: Provider) -> None:
    """AZURE_ENABLED=false is no fault."""
    found = await doctor(provider.environment(AZURE_ENABLED="false"))
    assert found.status == 0
    assert found.of("skip") == PROVIDER_CHECKS


# --- network ---


async def test_a_name_without_an_address(doctor: Doctor, provider: Provider) -> None:
    """Everything after it is skipped, and names it."""
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL="https://nowhere.invalid/t/v2.0"))
    assert found.status == 1
    assert found.of("fail") == ["dns"]
    assert "nowhere.invalid:443" in found.the("dns")["found"]
    assert found.of("skip") == PROVIDER_CHECKS[1:]
    assert {check["premise"] for check in found.checks if check["status"] == "skip"} == {"dns"}


async def test_a_closed_port(doctor: Doctor, provider: Provider) -> None:
    """The network policy, or the wrong port."""
    url = f"https://127.0.0.1:{closed_port()}/t/v2.0"
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL=url))
    assert found.of("fail") == ["tcp"]
    assert "Connection refused" in found.the("tcp")["found"]
    assert found.of("skip") == PROVIDER_CHECKS[2:]


async def test_a_host_that_never_speaks_tls_ends_in_time(
    doctor: Doctor, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check is bounded."""
    monkeypatch.setattr(results, "TIME_LIMIT", 0.2)
    silent = TcpProxy()
    silent.always = black_hole
    await silent.start()
    url = f"https://127.0.0.1:{silent.port}/t/v2.0"
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL=url))
    await silent.stop()
    assert found.of("fail") == ["tls"]
    assert "no TLS connection" in found.the("tls")["found"]


@pytest.mark.parametrize(
    ("trusted", "name", "days", "reason", "remedy"),
    [
        (False, "localhost", 30, "", "ENTRA_FAST_CA_BUNDLE"),
        (True, "localhost", -1, r"expired; that of localhost ends at \d{4}-\d\d-\d\d", "clock"),
        (True, "elsewhere.example", 30, "match", "host name"),
    ],
)
async def test_a_certificate_that_is_not_accepted(
    doctor: Doctor,
    authority: Authority,
    trusted: bool,
    name: str,
    days: float,
    reason: str,
    remedy: str,
) -> None:
    """Unknown authority, past its end, or of another host."""
    provider = Provider()
    await provider.start(tls=authority.server(name, days=days))
    changes = {"ENTRA_FAST_CA_BUNDLE": str(authority.bundle)} if trusted else {}
    found = await doctor(provider.environment(**changes))
    await provider.stop()
    assert found.status == 1
    assert found.of("fail") == ["tls"]
    assert re.search(reason, found.the("tls")["found"])
    assert remedy in found.the("tls")["remedy"]
    assert found.of("skip") == PROVIDER_CHECKS[4:]
    assert provider.tries == []


@pytest.mark.parametrize(("days", "status"), [(30, "ok"), (2, "warn")])
async def test_the_end_of_the_certificate_is_shown(
    doctor: Doctor, authority: Authority, days: float, status: str
) -> None:
    """It is a warning if it comes soon, which does not change the exit status."""
    provider = Provider()
    await provider.start(tls=authority.server("localhost", days=days + 0.1))
    found = await doctor(provider.environment(ENTRA_FAST_CA_BUNDLE=str(authority.bundle)))
    await provider.stop()
    assert found.status == 0
    assert found.the("tls")["status"] == status
    assert re.search(rf"ends at \d{{4}}-\d\d-\d\d .* UTC, in {days} days", found.the("tls")["found"])
    assert found.the("introspection")["status"] == "ok"


async def through(proxy: ConnectProxy, authority: Authority, doctor: Doctor, user: str = "") -> Findings:
    """The findings where a provider with a public name is behind a proxy."""
    provider = Provider()
    await provider.start(tls=authority.server("login.example", days=30), public_url="https://login.example")
    proxy.target_port = provider.port
    await proxy.start()
    found = await doctor(
        provider.environment(
            ENTRA_FAST_CA_BUNDLE=str(authority.bundle), HTTPS_PROXY=f"http://{user}127.0.0.1:{proxy.port}"
        )
    )
    await proxy.stop()
    await provider.stop()
    return found


async def test_through_a_web_proxy(doctor: Doctor, authority: Authority) -> None:
    """The provider's name is the proxy's affair."""
    proxy = ConnectProxy(0, credentials=f"user:{SECRET}")
    found = await through(proxy, authority, doctor, f"user:{SECRET}@")
    assert found.status == 0
    assert found.the("proxy")["found"] == f"127.0.0.1:{proxy.port} connects to login.example:443"
    assert set(proxy.asked_for) == {"CONNECT login.example:443"}


async def test_a_web_proxy_that_refuses(doctor: Doctor, authority: Authority) -> None:
    """Its status says why."""
    found = await through(ConnectProxy(0, credentials="user:other"), authority, doctor, f"user:{SECRET}@")
    assert found.status == 1
    assert found.of("fail") == ["proxy"]
    assert "407" in found.the("proxy")["found"]
    assert "password" in found.the("proxy")["remedy"]
    assert found.of("skip") == PROVIDER_CHECKS[3:]


async def test_what_is_no_web_proxy(doctor: Doctor, provider: Provider) -> None:
    """A server that does not know CONNECT."""
    environ = provider.environment(
        AZURE_APP_WELL_KNOWN_URL="https://login.example/t/v2.0",
        HTTPS_PROXY=f"http://127.0.0.1:{provider.port}",
    )
    found = await doctor(environ)
    assert found.of("fail") == ["proxy"]
    assert "refused" in found.the("proxy")["found"]


async def test_through_a_web_proxy_with_tls(doctor: Doctor, tmp_path: Path) -> None:
    """The connection to the proxy is encrypted, and the one through it as well."""
    (tmp_path / "proxy").mkdir()
    authority, of_proxy = Authority(tmp_path), Authority(tmp_path / "proxy")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.bundle.read_bytes() + of_proxy.bundle.read_bytes())
    provider = Provider()
    await provider.start(tls=authority.server("login.example", days=30), public_url="https://login.example")
    proxy = ConnectProxy(provider.port)
    await proxy.start(tls=of_proxy.server("localhost"))
    environ = provider.environment(HTTPS_PROXY=f"https://localhost:{proxy.port}")
    trusted = await doctor(environ | {"ENTRA_FAST_CA_BUNDLE": str(both)})
    unknown = await doctor(environ | {"ENTRA_FAST_CA_BUNDLE": str(authority.bundle)})
    await proxy.stop()
    await provider.stop()
    assert trusted.status == 0
    assert unknown.of("fail") == ["proxy"]
    assert "no TLS connection" in unknown.the("proxy")["found"]


async def test_a_web_proxy_that_does_not_speak_http(doctor: Doctor, provider: Provider) -> None:
    """Such as one for SOCKS."""
    other = TcpProxy()
    other.always = garbage
    await other.start()
    environ = provider.environment(
        AZURE_APP_WELL_KNOWN_URL="https://login.example/t/v2.0", HTTPS_PROXY=f"http://127.0.0.1:{other.port}"
    )
    found = await doctor(environ)
    await other.stop()
    assert found.of("fail") == ["proxy"]
    assert "well-formed" in found.the("proxy")["found"]


async def test_a_host_that_closes_the_connection_instead_of_tls(doctor: Doctor, provider: Provider) -> None:
    """A firewall, or another service."""
    other = TcpProxy()
    other.always = garbage
    await other.start()
    url = f"https://127.0.0.1:{other.port}/t/v2.0"
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL=url))
    await other.stop()
    assert found.of("fail") == ["tls"]
    assert "speaks TLS" in found.the("tls")["remedy"]


# --- provider ---


async def test_an_unknown_tenant(doctor: Doctor, provider: Provider) -> None:
    """The provider has no such document."""
    url = f"{provider.base_url}/unknown/v2.0/.well-known/openid-configuration"
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL=url))
    assert found.status == 1
    assert found.of("fail") == ["discovery"]
    assert "404" in found.the("discovery")["found"]
    assert "AZURE_APP_TENANT_ID" in found.the("discovery")["remedy"]
    assert found.of("skip") == ["keys", "credential", "introspection"]


async def test_a_key_set_that_is_not_there(doctor: Doctor, provider: Provider) -> None:
    """The credential is tried all the same."""
    jwks_uri = f"{provider.base_url}/no-such-keys"
    found = await doctor(provider.environment(AZURE_OPENID_CONFIG_JWKS_URI=jwks_uri))
    assert found.of("fail") == ["keys"]
    assert "404" in found.the("keys")["found"]
    assert found.the("keys")["expected"] == f"a key set at {jwks_uri}"
    assert found.of("skip") == ["introspection"]
    assert found.the("introspection")["premise"] == "keys"


async def test_a_provider_that_is_down(doctor: Doctor, provider: Provider) -> None:
    """There is nothing to correct in the settings."""
    provider.failing = True
    discovery = (await doctor(provider.environment())).the("discovery")
    assert discovery["status"] == "fail"
    assert "503" in discovery["found"]
    assert discovery["remedy"].startswith("try again later")
    endpoints = {
        "AZURE_OPENID_CONFIG_ISSUER": provider.issuer,
        "AZURE_OPENID_CONFIG_JWKS_URI": provider.jwks_uri,
        "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": provider.token_endpoint,
    }
    found = await doctor(provider.environment(**endpoints))
    assert found.the("discovery")["found"].startswith("not needed")
    assert found.of("fail") == ["keys"]
    assert found.the("keys")["remedy"].startswith("try again later")
    assert found.of("warn") == ["credential"]


async def test_a_token_endpoint_that_breaks_off(doctor: Doctor, provider: Provider) -> None:
    """No answer is not the provider's judgement."""
    provider.on_try = reset()
    found = await doctor(provider.environment())
    assert found.of("fail") == ["credential"]
    assert "token endpoint" in found.the("credential")["remedy"]


async def test_unusable_keys_are_a_warning(doctor: Doctor, provider: Provider) -> None:
    """Tokens that are signed with them are rejected."""
    keys = [json.loads(provider.key.public_jwk()), {"kty": "RSA", "kid": "broken"}]
    provider.key_set = json.dumps({"keys": keys}).encode()
    found = await doctor(provider.environment())
    assert found.status == 0
    assert found.of("warn") == ["keys"]


@pytest.mark.parametrize(
    ("status", "error", "code", "remedy"),
    [
        (401, "invalid_client", 7000215, "mount the current client secret"),
        (401, "invalid_client", 7000222, "create a new client secret"),
        (401, "invalid_client", 700027, "register the certificate"),
        (400, "unauthorized_client", 700016, "AZURE_APP_TENANT_ID"),
        (400, "invalid_request", 90002, "AZURE_APP_TENANT_ID"),
    ],
)
async def test_a_credential_that_the_provider_rejects(
    doctor: Doctor, provider: Provider, status: int, error: str, code: int, remedy: str
) -> None:
    """The code, where the credential comes from, and what to do about this code."""
    provider.on_try = refuse(status, error, f"AADSTS{code}: no {SECRET}.\r\nTrace ID: 1", error_codes=[code])
    environ = provider.environment(AZURE_APP_JWK=None, AZURE_APP_CLIENT_SECRET=SECRET)
    found = await doctor(environ)
    assert found.status == 1
    assert found.of("fail") == ["credential"]
    assert f"AADSTS{code}" in found.the("credential")["found"]
    assert "AZURE_APP_CLIENT_SECRET (the environment)" in found.the("credential")["found"]
    assert remedy in found.the("credential")["remedy"]
    assert found.of("skip") == ["introspection"]


async def test_a_provider_that_does_not_judge_the_credential(doctor: Doctor, provider: Provider) -> None:
    """It throttles or fails: a warning, because nothing is known to be wrong."""
    provider.on_try = refuse(429, "temporarily_unavailable", "AADSTS90055: wait", error_codes=[90055])
    found = await doctor(provider.environment())
    assert found.status == 0
    assert found.of("warn") == ["credential"]
    assert found.of("skip") == ["introspection"]


async def test_a_refused_token_for_itself_proves_the_credential(doctor: Doctor, provider: Provider) -> None:
    """As in the sidecar: the provider has authenticated the application."""
    provider.on_try = refuse(400, "invalid_grant", "AADSTS501051: not assigned", error_codes=[501051])
    found = await doctor(provider.environment())
    assert found.status == 0
    assert found.the("credential")["status"] == "ok"
    assert found.the("introspection")["status"] == "skip"


async def test_a_credential_that_cannot_be_read(doctor: Doctor, provider: Provider, tmp_path: Path) -> None:
    """The file of a federated token may be missing."""
    environ = provider.environment(AZURE_APP_JWK=None, AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "none"))
    found = await doctor(environ)
    assert found.of("fail") == ["credential"]
    assert "AZURE_FEDERATED_TOKEN_FILE" in found.the("credential")["found"]


async def test_a_rotation_that_is_not_finished(doctor: Doctor, provider: Provider) -> None:
    """The next secret works, the current one does not."""

    async def only_the_next(request: Any, form: dict[str, str]) -> Any:
        if form["client_secret"] == "the-next-secret":
            return await granting(provider)(request, form)
        return await refuse(401, "invalid_client", "AADSTS7000222: expired", error_codes=[7000222])(
            request, form
        )

    provider.on_try = only_the_next
    found = await doctor(
        provider.environment(
            AZURE_APP_JWK=None, AZURE_APP_CLIENT_SECRET=SECRET, AZURE_APP_NEXT_CLIENT_SECRET="the-next-secret"
        )
    )
    assert found.status == 0
    assert found.of("warn") == ["credential"]
    assert "AZURE_APP_NEXT_CLIENT_SECRET" in found.the("credential")["found"]


async def test_a_token_endpoint_that_answers_something_else(doctor: Doctor, provider: Provider) -> None:
    """A page of a web proxy, or a wrong URL."""
    endpoint = f"{provider.base_url}/no-such-endpoint"
    found = await doctor(provider.environment(AZURE_OPENID_CONFIG_TOKEN_ENDPOINT=endpoint))
    assert "credential" in found.of("fail") + found.of("warn")


@pytest.mark.parametrize(
    ("offset", "status", "shown"),
    [(10.0, "ok", ""), (-60.0, "warn", "ahead of"), (60.0, "warn", "behind"), (400.0, "fail", "behind")],
)
async def test_a_clock_that_differs_from_the_providers(
    doctor: Doctor, provider: Provider, offset: float, status: str, shown: str
) -> None:
    """By the Date of its answers; from the difference that Entra ID does not accept on, it is a failure."""
    provider.clock_offset = offset
    found = await doctor(provider.environment())
    assert found.the("clock")["status"] == status
    assert shown in found.the("clock")["found"]
    assert found.status == (status == "fail")


async def test_a_token_that_does_not_come_back(doctor: Doctor, provider: Provider) -> None:
    """Tokens of another issuer than that of the settings: the version of tokens in the registration."""
    provider.on_try = granting(provider, access_token=provider.mint(iss="https://sts.example/"))
    found = await doctor(provider.environment())
    assert found.of("fail") == ["introspection"]
    assert "wrong issuer" in found.the("introspection")["found"]
    assert "https://sts.example/" in found.the("introspection")["found"]
    assert "accessTokenAcceptedVersion" in found.the("introspection")["remedy"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ENTRA_FAST_ALLOWED_TENANTS", "11111111-2222-3333-4444-555555555555"),
        ("ENTRA_FAST_ALGORITHMS", "ES256"),
    ],
)
async def test_a_token_of_another_tenant_or_algorithm(
    doctor: Doctor, provider: Provider, setting: str, value: str
) -> None:
    """The remedy names the setting that would accept it."""
    provider.on_try = granting(provider, access_token=provider.mint(tid=TENANT))
    found = await doctor(provider.environment(**{setting: value}))
    assert found.of("fail") == ["introspection"]
    assert setting in found.the("introspection")["remedy"]


async def test_an_issuer_for_any_tenant_needs_tenants(doctor: Doctor, provider: Provider) -> None:
    """As at a start: introspection is not possible, and the setting is named."""
    url = f"{provider.base_url}/common/v2.0/.well-known/openid-configuration"
    found = await doctor(provider.environment(AZURE_APP_WELL_KNOWN_URL=url))
    assert found.of("fail") == ["introspection"]
    assert found.the("introspection")["remedy"] == "set ENTRA_FAST_ALLOWED_TENANTS"


async def test_a_provider_that_hangs_ends_in_time(
    doctor: Doctor, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks that follow are made or skipped."""
    monkeypatch.setattr(results, "TIME_LIMIT", 0.3)
    provider.keys_held = asyncio.Event()
    began = time.monotonic()
    found = await doctor(provider.environment())
    provider.keys_held.set()
    assert time.monotonic() - began < 30
    assert found.of("fail") == ["keys"]
    assert found.of("skip") == ["introspection"]


# --- ports ---


async def test_a_port_that_another_program_uses(doctor: Doctor, provider: Provider) -> None:
    """The remedy names the setting; the other address is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = await doctor(
            provider.environment(BIND_ADDRESS="127.0.0.1:0", PROBE_BIND_ADDRESS=f"127.0.0.1:{port}")
        )
    assert found.status == 1
    free, used = (check for check in found.checks if check["id"] == "ports")
    assert (free["status"], used["status"]) == ("ok", "fail")
    assert "the address is in use" in used["found"]
    assert "PROBE_BIND_ADDRESS" in used["remedy"]


async def test_a_sidecar_that_runs_may_use_its_ports(
    doctor: Doctor, provider: Provider, start: StartSidecar
) -> None:
    """`kubectl exec` into a running pod: the addresses are in use, by the right program."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    found = await doctor(
        provider.environment(
            BIND_ADDRESS=f"127.0.0.1:{sidecar.call.port}",
            PROBE_BIND_ADDRESS=f"127.0.0.1:{sidecar.probe.port}",
        )
    )
    assert found.status == 0
    assert all("a sidecar is running" in check["found"] for check in found.checks if check["id"] == "ports")


async def test_an_address_of_another_machine(doctor: Doctor, provider: Provider) -> None:
    """TEST-NET-1 (RFC 5737) is nobody's."""
    found = await doctor(provider.environment(BIND_ADDRESS="192.0.2.1:7164"))
    assert found.of("fail") == ["ports"]
    assert found.the("ports")["remedy"] == "set BIND_ADDRESS to an address of this machine"


async def test_a_port_that_needs_a_privilege(
    doctor: Doctor, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's answer to a user who is not root; tests may run as root."""

    def refuse_to_bind(*_: object) -> socket.socket:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(machine, "bind", refuse_to_bind)
    found = await doctor(provider.environment(BIND_ADDRESS="127.0.0.1:80"))
    assert found.of("fail") == ["ports"]
    assert "1024" in found.the("ports")["remedy"]


async def test_a_check_that_is_broken_does_not_end_the_others(
    doctor: Doctor, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of one check is reported as such."""

    def break_it(*_: object) -> socket.socket:
        raise OverflowError(SECRET)

    monkeypatch.setattr(machine, "compared_with_memory", break_it)
    found = await doctor(provider.environment())
    assert found.of("fail") == ["caches"]
    assert "OverflowError" in found.the("caches")["found"]
    assert found.of("ok") == ["settings", "ports", *PROVIDER_CHECKS]


# --- memory, and the shared cache ---


def limited(root: Path, limit: int) -> Path:
    """A container with this memory limit."""
    for name, text in (("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", str(limit))):
        file = root / name
        file.parent.mkdir(parents=True)
        file.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("limit", "sizes", "name", "status"),
    [
        (256 << 20, {}, "caches", "ok"),
        (32 << 20, {}, "caches", "warn"),
        (256 << 20, {"ENTRA_FAST_CACHE_MAX_BYTES": str(1 << 30)}, "settings", "fail"),
    ],
)
async def test_caches_are_compared_with_the_memory_limit(
    tmp_path: Path, limit: int, sizes: dict[str, str], name: str, status: str
) -> None:
    """Sizes that are set and do not fit stop a start; a limit that is too low for anything does not."""
    found: list[results.Result] = []
    environ = {"AZURE_ENABLED": "false", "BIND_ADDRESS": "127.0.0.1:0", **sizes}
    await examine(environ, None, lambda _: None, found.append, root=limited(tmp_path, limit))
    (check,) = (check for check in found if check.id == name)
    assert check.status == status
    assert "limit" in check.found
    if name == "settings":
        assert next(each for each in found if each.id == "caches").premise == "settings"


def with_redis(provider: Provider, url: str) -> dict[str, str]:
    return provider.environment(
        ENTRA_FAST_REDIS_URL=url, ENTRA_FAST_REDIS_KEY=base64.b64encode(bytes(range(32))).decode()
    )


@pytest.mark.parametrize(
    ("url", "status", "shown"),
    [
        (f"redis://:{SECRET}@127.0.0.1:{{port}}", "ok", "answers"),
        ("redis://:wrong-password@127.0.0.1:{port}", "fail", "password"),
        ("redis://127.0.0.1:{closed}", "warn", "no connection"),
        ("redis://127.0.0.1:{provider}", "fail", "Redis"),
    ],
)
async def test_the_shared_cache_is_asked(
    doctor: Doctor, provider: Provider, tmp_path: Path, url: str, status: str, shown: str
) -> None:
    """It is optional at run time: that it cannot be reached is a warning, a wrong credential a failure."""
    server = RedisServer(tmp_path, password=SECRET)
    await server.start()
    url = url.format(port=server.port, closed=closed_port(), provider=provider.port)
    found = (await doctor(with_redis(provider, url))).the("shared_cache")
    await server.stop()
    assert found["status"] == status
    assert shown in found["found"]


async def test_a_shared_cache_with_a_certificate_that_is_not_trusted(
    doctor: Doctor, provider: Provider, authority: Authority
) -> None:
    """The setting that names the authority is the same as for the provider."""
    other = Provider()
    await other.start(tls=authority.server("localhost"))
    found = (await doctor(with_redis(provider, f"rediss://localhost:{other.port}"))).the("shared_cache")
    await other.stop()
    assert found["status"] == "fail"
    assert "ENTRA_FAST_CA_BUNDLE" in found["remedy"]


async def test_a_shared_cache_that_never_answers_ends_in_time(
    doctor: Doctor, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the sidecar, nothing waits for it for long."""
    monkeypatch.setattr(results, "TIME_LIMIT", 1.0)
    silent = TcpProxy()
    silent.always = black_hole
    await silent.start()
    found = await doctor(with_redis(provider, f"redis://127.0.0.1:{silent.port}"))
    await silent.stop()
    assert found.the("shared_cache")["status"] == "warn"
    assert "in time" in found.the("shared_cache")["found"]


async def test_a_shared_cache_with_a_wrong_setting_is_skipped(doctor: Doctor, provider: Provider) -> None:
    """Without one, there is no such check."""
    found = await doctor(with_redis(provider, "http://redis.example"))
    assert found.the("shared_cache")["premise"] == "settings"
    found = await doctor(provider.environment())
    assert "shared_cache" not in [check["id"] for check in found.checks]


# --- the command ---


async def test_each_failure_is_printed_with_what_to_do(provider: Provider) -> None:
    """Marked, with what was expected; the exit status says that something failed."""
    environ = provider.environment(AZURE_APP_WELL_KNOWN_URL="https://nowhere.invalid/t/v2.0")
    status, out, err = await printed(environ, "doctor")
    assert (status, err) == (1, "")
    lines = out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("FAIL  dns"))
    assert [line.split(":")[0].strip() for line in lines[at + 1 : at + 4]] == ["expected", "to do", "see"]
    assert lines[-1] == "1 check failed."


async def test_settings_may_come_from_files(provider: Provider, tmp_path: Path) -> None:
    """`--settings` is the same as for `serve`; the result says how many there are."""
    environ = provider.environment(BIND_ADDRESS=None)
    for name in ("AZURE_APP_JWK", "AZURE_APP_CLIENT_ID"):
        (tmp_path / name).write_text(environ.pop(name))
    status, out, _ = await printed(environ, "doctor", "--settings", str(tmp_path), "--json")
    assert status == 0
    checks = {check["id"]: check["found"] for check in json.loads(out)["checks"]}
    assert checks["settings"].endswith(f", 2 from files in {tmp_path}")
    assert "AZURE_APP_JWK (a file)" in checks["credential"]


async def test_warnings_alone_are_counted(provider: Provider) -> None:
    """They do not change the exit status."""
    status, out, _ = await printed(provider.environment(ENTRA_FAST_MAX_CONECTIONS="1"), "doctor")
    assert status == 0
    assert out.splitlines()[-1] == "The sidecar can work with these settings. 1 warning."


async def test_options_of_serve_are_checked_with_it(provider: Provider) -> None:
    """`--check` judges the settings as `serve` would have them."""
    status, out, _ = await printed(provider.environment(), "serve", "--check", "--json", "--workers", "0")
    assert status == 1
    assert json.loads(out)["checks"][0]["found"].startswith("ENTRA_FAST_WORKERS must be")


@pytest.mark.parametrize("arguments", [("doctor", "--jsn"), ("doctor", "--settings", "/nonexistent")])
async def test_a_wrong_command_line_is_2(arguments: tuple[str, ...]) -> None:
    """It is not a check that failed."""
    status, out, err = await printed({}, *arguments)
    assert (status, out) == (2, "")
    assert "entra-fast" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("doctor", "--json", "--jsn"), "usage"),
        (("doctor", "--json", "--settings", "/nonexistent"), "command_failed"),
        (("serve", "--json"), "command_failed"),
    ],
)
async def test_with_json_errors_are_json_too(arguments: tuple[str, ...], code: str) -> None:
    """A script that reads standard output needs nothing else."""
    status, out, err = await printed({}, *arguments)
    assert status == 2
    error = json.loads(out)["error"]
    assert error["code"] == code
    assert error["message"] in err


async def test_the_documentation_exists(doctor: Doctor, provider: Provider) -> None:
    """Each result names a page and a section that are there."""
    for check in (await doctor(provider.environment())).checks:
        page, _, section = check["docs"].partition("#")
        headings = re.findall(r"^#+ (.*)", (ROOT / page).read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not section or section in slugs


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_terminal_shows_the_check_in_progress(
    provider: Provider, as_json: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, so that standard output can be piped; each line is cleared again."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    environ = provider.environment()
    assert await asyncio.to_thread(command.run, environ, None, as_json=as_json) == 0
    output = capsys.readouterr()
    assert [part.split()[1] for part in output.err.split("\r\x1b[K") if part] == [
        "ports",
        "caches",
        *PROVIDER_CHECKS,
    ]
    assert "checking" not in output.out
