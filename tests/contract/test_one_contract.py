"""One contract for all: the fast path, the slow path, the emulator and the token generator agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from entra_fast.generator.audience import AudienceError, parse_audience
from entra_fast.generator.server import start_generator
from entra_fast.generator.settings import GeneratorSettings
from support.fast_path import fast_path_answers
from support.local_entra import local_entra, manifest, served
from support.provider import Provider
from support.provider import answer as answering
from support.sidecars import Started, sidecars
from support.wire import Answer, Caller

TARGET = "dev-gcp:team:app"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Servers:
    """One of each, and how to call it."""

    fast: Started
    slow: Started
    emulator: Caller
    generator: Caller
    token_path: str

    async def sidecar(self, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        """The response of both paths to a request for a token, which must be the same."""
        answers = []
        for started in (self.fast, self.slow):
            answers.append(
                await started.call.request(
                    "POST", "/api/v1/token", body, {"Content-Type": FORM, **(headers or {})}
                )
            )
        fast, slow = answers
        assert (fast.status, fast.body) == (slow.status, slow.body)
        return fast


@pytest_asyncio.fixture
async def servers(provider: Provider, tmp_path: Path) -> AsyncIterator[Servers]:
    """The sidecar with the fast path and without, an emulator, and a token generator in front of it."""
    provider.always = answering(
        200, {"token_type": "Bearer", "expires_in": 3600, "access_token": "the-token"}
    )
    local = local_entra([manifest("azure-token-generator", namespace="nais"), manifest("app")])
    async with sidecars(provider, "fast_path") as start, served(local) as entra:
        fast, slow = await start(), await start(ENTRA_FAST_FAST_PATH="false")
        for started in (fast, slow):
            started.clock.stop(1_800_000_000.0)
        settings = GeneratorSettings.from_environment(
            entra.running.environment("dev-gcp:nais:azure-token-generator"), tmp_path
        )
        generator = await start_generator(settings, port=0)
        yield Servers(
            fast,
            slow,
            Caller(urlsplit(entra.base_url).netloc, "slow_path"),
            Caller(urlsplit(generator.base_url).netloc, "slow_path"),
            f"/{local.registry.default_tenant.id}/oauth2/v2.0/token",
        )
        await generator.stop()


def token_form(target: str = TARGET) -> bytes:
    return b"identity_provider=entra_id&target=" + target.encode()


ACCEPTED_HOSTS = (
    "localhost",
    "LOCALHOST",
    "LocalHost:3000",
    "127.0.0.1",
    "127.8.9.1:7164",
    "[::1]",
    "[::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::FFFF:7f00:1]",
)
REFUSED_HOSTS = (
    "evil.example",
    "localhost.",
    "localhost:",
    "localhost:123456",
    "127.0.0.1.evil.example",
    "127.1",
    "10.0.0.1",
    "[::ffff:10.0.0.1]",
)
MALFORMED_HOSTS = (
    "localhost:80@evil.example",
    "evil.example@localhost",
    "localhost/",
    "localhost, evil.example",
    "",
    "::1",
    "[::1",
    "[127.0.0.1]",
    "[localhost]",
    "loc\xe6lhost",
)


async def test_hosts(servers: Servers) -> None:
    """Each Host header is accepted by all four, or refused by all with the same status."""
    await servers.sidecar(token_form())
    statuses = dict.fromkeys(ACCEPTED_HOSTS, 200) | dict.fromkeys(REFUSED_HOSTS, 403)
    for host, status in (statuses | dict.fromkeys(MALFORMED_HOSTS, 400)).items():
        before = fast_path_answers(servers.fast)
        assert (await servers.sidecar(token_form(), {"Host": host})).status == status, host
        assert fast_path_answers(servers.fast) - before == (status == 200), host
        for server in (servers.emulator, servers.generator):
            assert (await server.get("/", {"Host": host})).status == status, host


ACCEPTED_TARGETS = {
    TARGET: "api://dev-gcp.team.app/.default",
    "a.b:c_d:e-f": "api://a.b.c_d.e-f/.default",
    "apis:n:a": "api://apis.n.a/.default",
    "api://dev-gcp.team.app/.default": "api://dev-gcp.team.app/.default",
    "api://x/Some.Scope": "api://x/Some.Scope",
    "https://graph.microsoft.com/.default": "https://graph.microsoft.com/.default",
    "User.Read": "User.Read",
    "11111111-2222-3333-4444-555555555555": "11111111-2222-3333-4444-555555555555",
    "a": "a",
    "a::c": "a::c",
    "a:b:c:d": "a:b:c:d",
    "a:b/x:c": "a:b/x:c",
    "urn:n:a": "urn:n:a",
    "API:n:a": "API:n:a",
    "Https:n:a": "Https:n:a",
    "ftp://x": "ftp://x",
    "11111111-2222-3333-4444-555555555555/.default": "11111111-2222-3333-4444-555555555555/.default",
}
REFUSED_TARGETS = (
    "a\x7f",
    'api://"',
    "api://\\",
    "api://x  y",
)


async def test_targets(servers: Servers, provider: Provider) -> None:
    """Each target means the same scope to the fast path, the slow path and the token generator, or none."""
    for target, scope in ACCEPTED_TARGETS.items():
        for _ in range(2):  # the second is answered from the cache
            before = fast_path_answers(servers.fast)
            assert (await servers.sidecar(token_form(target))).status == 200, target
        assert fast_path_answers(servers.fast) - before == 1, target
        assert parse_audience([target]).scope == scope
    asked = [recorded.form["scope"] for recorded in provider.requests]
    assert set(asked) == set(ACCEPTED_TARGETS.values())
    for target in REFUSED_TARGETS:
        answer = await servers.sidecar(token_form(target))
        assert (answer.status, answer.json["error"]) == (400, "invalid_request"), target
        assert answer.json["error_description"].startswith("target must be "), target
        with pytest.raises(AudienceError):
            parse_audience([target])
    assert len(provider.requests) == len(asked)


def encoded(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode())


FORMS = {
    "{name}={value}": True,
    "{name}={value}&x=1": True,
    "{encoded}={value}": True,
    "{name}={value}&{upper}=other": True,
    "{name}={value}&{many}": True,
    "{name}={value}&{many}&y=1": False,
    "{name}={value}&{name}={value}": False,
    "{name}={value}&{encoded}={value}": False,
    "{name}=%zz": False,
    "{name}=%ff": False,
    "{name}=%c3%a": False,
    "{name}={value}&": True,
    "&&{name}={value}&&x=1": True,
    "{name}={value}&x": True,
    "{name}={value}&=": True,
    "{name}={value}&{name}": False,
}
"""Whether each form is accepted; `{many}` fills it up to the limit."""


@pytest.mark.parametrize("template", FORMS)
async def test_forms(servers: Servers, template: str) -> None:
    """Each form is read by all four, or refused by all four with 400."""

    def form(name: str, value: str, others: str = "") -> bytes:
        used = template.count("=") + others.count("=") - template.count("&y=")
        many = "&".join(f"x{number}=1" for number in range(256 - used))
        text = template.format(name=name, value=value, encoded=encoded(name), upper=name.upper(), many=many)
        return (others + text).encode()

    await servers.sidecar(token_form())
    before = fast_path_answers(servers.fast)
    answer = await servers.sidecar(form("target", TARGET, "identity_provider=entra_id&"))
    assert answer.status == (200 if FORMS[template] else 400), answer.body
    assert fast_path_answers(servers.fast) - before == FORMS[template]

    headers = {"Content-Type": FORM}
    body = form("grant_type", "client_credentials", "client_id=nobody&")
    answer = await servers.emulator.request("POST", servers.token_path, body, headers)
    assert answer.status == 400
    assert (answer.json["error_codes"] != [9002313]) is FORMS[template], answer.json

    body = form("aud", "dev-gcp:nais:missing")
    answer = await servers.generator.request("POST", "/api/public/m2m", body, headers)
    assert ("error_codes" in answer.json) is FORMS[template], answer.json  # those of the provider
    assert answer.status == 400


async def test_unknown_fields_are_ignored_whatever_they_are(servers: Servers) -> None:
    """Repeated, or not decodable; by the emulator too where OAuth does not forbid it."""
    for other in ("x=1&x=2", "x=%zz", "x=%ff", "%zz=1", "%ff=1"):
        assert (await servers.sidecar(token_form() + b"&" + other.encode())).status == 200, other
        body = f"aud=dev-gcp:nais:missing&{other}".encode()
        answer = await servers.generator.request("POST", "/api/public/m2m", body, {"Content-Type": FORM})
        assert "error_codes" in answer.json, other


FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://"},
    {"Origin": "http://["},
    {"Origin": "http://[::1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
)


@pytest.mark.parametrize("headers", FOREIGN)
async def test_requests_of_foreign_pages(servers: Servers, headers: dict[str, str]) -> None:
    """Refused by all four, and never with an internal error."""
    assert (await servers.sidecar(token_form(), headers)).status == 403
    for server, path in ((servers.emulator, "/mint"), (servers.generator, "/oauth2/logout")):
        assert (await server.request("POST", path, b"", headers)).status == 403


async def test_requests_of_own_pages(servers: Servers) -> None:
    """Accepted where there are pages, also under another name of this machine; the sidecar has none."""
    for server, path in ((servers.emulator, "/mint"), (servers.generator, "/oauth2/logout")):
        for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}"):
            headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
            assert (await server.request("POST", path, b"", headers)).status != 403, (path, host)
            assert (
                await server.request("POST", path, b"", headers | {"Origin": f"https://{host}"})
            ).status == 403
            assert (await servers.sidecar(token_form(), headers)).status == 403
