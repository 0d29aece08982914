"""`entra-fast doctor` with several providers: real faults at the local ones, each named with its provider and
with what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from entra_fast.cli.doctor import command
from entra_fast.emulator import LocalEntraId, RunningEmulator
from support.local_entra import EXAMPLES
from support.provider import granting, refuse
from support.several import ENTRA, GENERIC, IDPORTEN, MASKINPORTEN, TOKENX, several

APP = "dev-gcp:team-a:app-a"
SCOPE = "nav:helse/sykepenger/afp.read"
CHECKS = ["discovery", "keys", "credential", "clock", "introspection"]

Check = dict[str, Any]
Doctor = Callable[[dict[str, str]], Awaitable[dict[tuple[str | None, str], Check]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[RunningEmulator]:
    """All local providers, with the examples."""
    providers = LocalEntraId.from_files([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml")
    running = await providers.start(port=0)
    yield running
    await running.stop()


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs it; results by provider and check. No key is printed."""

    async def run(environ: dict[str, str]) -> dict[tuple[str | None, str], Check]:
        capsys.readouterr()
        environ = {"BIND_ADDRESS": "127.0.0.1:0", **environ}
        status = await asyncio.to_thread(command.run, environ, None, as_json=True)
        output = capsys.readouterr()
        assert output.err == ""
        assert '"d"' not in output.out
        document = json.loads(output.out)
        assert document["ok"] is (status == 0)
        return {(check["provider"], check["id"]): check for check in document["checks"]}

    return run


def troubles(found: dict[tuple[str | None, str], Check]) -> dict[tuple[str | None, str], str]:
    """The status of each check that is not right."""
    return {name: check["status"] for name, check in found.items() if check["status"] != "ok"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_each_provider_has_its_checks(doctor: Doctor, local: RunningEmulator) -> None:
    """All four: a credential is tried where a token can be requested for that; ID-porten needs none. The
    host that they share is checked once."""
    found = await doctor(local.environment(APP))
    skipped = {("tokenx", "introspection"): "skip", ("idporten", "introspection"): "skip"}
    assert troubles(found) == skipped
    for provider in ("entra_id", "maskinporten", "tokenx", "idporten"):
        assert {name for of, name in found if of == provider} >= set(CHECKS)
    assert [of for of, name in found if name == "tls"] == ["entra_id"]
    assert "accepted MASKINPORTEN_CLIENT_JWK" in found["maskinporten", "credential"]["found"]
    assert "its first use shows" in found["tokenx", "credential"]["found"]
    assert found["idporten", "credential"]["found"].startswith("none is needed")
    assert "the URL of the keys" in found["idporten", "discovery"]["found"]


async def test_each_line_names_its_provider(
    local: RunningEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """As people call it; one that the operator describes, by its name in the settings."""
    async with several(GENERIC) as others:
        environ = {**local.environment(APP), **others.environment()}
        assert await asyncio.to_thread(command.run, environ, None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    for title in ("Entra ID", "Maskinporten", "TokenX", "ID-porten", "partner"):
        assert sum(f"  {title}: " in line for line in lines) >= len(CHECKS)


@pytest.mark.parametrize(
    ("change", "found", "remedy"),
    [
        ({"MASKINPORTEN_CLIENT_ID": "someone"}, "Client authentication failed", "MASKINPORTEN_CLIENT_ID"),
        ({"MASKINPORTEN_CLIENT_JWK": "tokenx"}, "Unknown key identifier", "mount the current"),
        ({"MASKINPORTEN_ISSUER": "https://other.example/"}, "Invalid JWT claim aud", "ends with a slash"),
    ],
)
async def test_a_registration_that_maskinporten_rejects(
    doctor: Doctor, local: RunningEmulator, change: dict[str, str], found: str, remedy: str
) -> None:
    """Its sentence, and what to do; the other providers are judged for themselves."""
    environ = local.environment(APP)
    if change.get("MASKINPORTEN_CLIENT_JWK") == "tokenx":
        change = {"MASKINPORTEN_CLIENT_JWK": environ["TOKEN_X_PRIVATE_JWK"]}
    results = await doctor(environ | change)
    check = results["maskinporten", "credential"]
    assert check["status"] == "fail"
    assert found in check["found"]
    assert remedy in check["remedy"]
    assert {of for (of, _), status in troubles(results).items() if status == "fail"} == {"maskinporten"}


async def test_a_scope_that_maskinporten_does_not_give(doctor: Doctor, local: RunningEmulator) -> None:
    """The credential is right, but the application cannot get what it consumes: a warning."""
    results = await doctor(local.environment(APP) | {"MASKINPORTEN_SCOPES": "skatteetaten:inntekt"})
    check = results["maskinporten", "credential"]
    assert check["status"] == "warn"
    assert check["expected"] == "a token with the scope skatteetaten:inntekt"
    assert "maskinporten.scopes.consumes" in check["remedy"]
    none = await doctor(local.environment(APP) | {"MASKINPORTEN_SCOPES": ""})
    assert "MASKINPORTEN_SCOPES names no scope" in none["maskinporten", "credential"]["found"]


async def test_a_clock_that_maskinporten_does_not_accept(doctor: Doctor, local: RunningEmulator) -> None:
    """The sentence of its refusal is about the grant; the remedy is about the clock."""
    local.local.set_clock_offset(-60)
    try:
        check = (await doctor(local.environment(APP)))["maskinporten", "credential"]
    finally:
        local.local.release_clock()
    assert check["status"] == "fail"
    assert "this machine's clock" in check["remedy"]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (3.0, {"entra_id": "ok", "maskinporten": "ok", "tokenx": "ok"}),
        (8.0, {"entra_id": "ok", "maskinporten": "warn", "tokenx": "ok"}),
        (15.0, {"entra_id": "ok", "maskinporten": "fail", "tokenx": "ok"}),
        (90.0, {"entra_id": "warn", "maskinporten": "fail", "tokenx": "fail"}),
    ],
)
async def test_how_far_clocks_may_differ_depends_on_the_provider(
    doctor: Doctor, offset: float, expected: dict[str, str]
) -> None:
    """Maskinporten wants `iat` within 10 s, TokenX within 60 s, Entra ID within five minutes."""
    async with several(ENTRA, MASKINPORTEN, TOKENX) as providers:
        for name in expected:
            providers[name].clock_offset = offset
        results = await doctor(providers.environment())
    assert {name: results[name, "clock"]["status"] for name in expected} == expected


@pytest.mark.parametrize(
    ("provider", "change", "check", "remedy"),
    [
        ("idporten", {"IDPORTEN_JWKS_URI": "{base}/none"}, "keys", "check IDPORTEN_JWKS_URI"),
        ("tokenx", {"TOKEN_X_JWKS_URI": "{base}/none"}, "keys", "check TOKEN_X_JWKS_URI"),
        (
            "idporten",
            {"IDPORTEN_WELL_KNOWN_URL": "{base}/none", "IDPORTEN_ISSUER": ""},
            "discovery",
            "check IDPORTEN_WELL_KNOWN_URL",
        ),
        (
            "maskinporten",
            {"ENTRA_FAST_MASKINPORTEN_ALGORITHMS": "ES256"},
            "introspection",
            "add the algorithm to ENTRA_FAST_MASKINPORTEN_ALGORITHMS if the provider is meant to use it",
        ),
    ],
)
async def test_a_remedy_names_the_setting_of_its_provider(
    doctor: Doctor, local: RunningEmulator, provider: str, change: dict[str, str], check: str, remedy: str
) -> None:
    """Not that of Entra ID."""
    changes = {name: value.format(base=local.base_url) for name, value in change.items()}
    results = await doctor(local.environment(APP) | changes)
    assert [name for name, status in troubles(results).items() if status == "fail"] == [(provider, check)]
    assert results[provider, check]["remedy"] == remedy


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        ({"TOKEN_X_ISSUER": "http://tokenx.example"}, "discovery"),
        ({"TOKEN_X_CLIENT_ID": ""}, "credential"),
    ],
)
async def test_a_wrong_setting_skips_the_checks_of_its_provider_alone(
    doctor: Doctor, local: RunningEmulator, change: dict[str, str], skipped: str
) -> None:
    """What needs the setting is skipped, and names the reason; the others go on."""
    results = await doctor(local.environment(APP) | change)
    assert results[None, "settings"]["status"] == "fail"
    assert results["tokenx", skipped]["premise"] == "settings"
    assert results["maskinporten", "introspection"]["status"] == "ok"


async def test_a_wrong_setting_of_a_provider_of_the_operators(doctor: Doctor) -> None:
    """No catalogue has its rows; the check says what was expected all the same."""
    async with several(GENERIC) as providers:
        environ = providers.environment(ENTRA_FAST_PROVIDER_PARTNER_ALGORITHMS="RS1")
        results = await doctor(environ)
        assert results[None, "settings"]["expected"] is not None
        assert (await doctor(providers.environment()))["partner", "credential"]["status"] == "ok"
        no_credential = providers.environment(
            ENTRA_FAST_PROVIDER_PARTNER_JWK=None,
            ENTRA_FAST_PROVIDER_PARTNER_FEDERATED_TOKEN_FILE="/nonexistent",
        )
        unreadable = (await doctor(no_credential))["partner", "credential"]
    assert unreadable["status"] == "fail"
    assert unreadable["remedy"] == "mount ENTRA_FAST_PROVIDER_PARTNER_FEDERATED_TOKEN_FILE"


async def test_providers_that_refuse_in_other_ways(doctor: Doctor) -> None:
    """Without a code: what Maskinporten says. A token that does not come back names the setting."""
    async with several(MASKINPORTEN, IDPORTEN) as providers:
        environ = providers.environment(MASKINPORTEN_SCOPES=SCOPE)
        providers["maskinporten"].script = [refuse(400, "unsupported_grant_type", "no such grant")]
        refused = (await doctor(environ))["maskinporten", "credential"]
        assert refused["status"] == "ok"
        assert "issues no token for it (unsupported_grant_type)" in refused["found"]
        other = providers["maskinporten"].mint(iss="https://other.example/")
        providers["maskinporten"].script = [granting(providers["maskinporten"], access_token=other)]
        wrong = (await doctor(environ))["maskinporten", "introspection"]
    assert wrong["remedy"] == "set MASKINPORTEN_ISSUER to the issuer in the tokens"
