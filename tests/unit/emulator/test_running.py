"""Running it: addresses, reloading, state over restarts, TLS, and what is refused at the start."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from entra_fast._net import is_loopback_host
from entra_fast.emulator import LocalEntraId, SourceError, tls
from entra_fast.emulator.protocol.base_url import check_base_url
from entra_fast.emulator.state import FILE_NAME
from entra_fast.errors import ConfigurationError
from support.local_entra import VERIFIER, Clock, local_entra, manifest, served, signing_keys

from .conftest import CALLBACK, DIRECTORY, MANIFESTS


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
async def test_only_loopback_addresses(host: str) -> None:
    """Anyone who can reach it can sign in as any user, so other addresses must be allowed explicitly."""
    with pytest.raises(ConfigurationError) as caught:
        await LocalEntraId().start(host, 0)
    assert caught.value.code == "address_not_loopback"


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False)]
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    """Addresses that only this machine can reach."""
    assert is_loopback_host(host) is expected


@pytest.mark.parametrize(
    "url",
    [
        "https://login.microsoftonline.com",
        "https://sts.windows.net/",
        "https://LOGIN.MicrosoftOnline.com:443",
        "https://x.login.microsoftonline.us",
        "https://login.microsoftonline.com.",
    ],
)
def test_it_never_signs_for_the_real_one(url: str) -> None:
    """A public URL on a host of the real Entra ID is refused."""
    with pytest.raises(ConfigurationError) as caught:
        LocalEntraId(public_url=url)
    assert caught.value.code == "issuer_is_real"


@pytest.mark.parametrize(
    "url",
    [
        "entra:8080",
        "ftp://entra",
        "http://entra/path",
        "http://u@entra",
        "http://",
        "http://e?x",
        "http://e#x",
        "http://[e",
        "http://e:x",
        "http://e:0",
    ],
)
def test_public_urls_are_origins(url: str) -> None:
    """Scheme, host, port; nothing else."""
    with pytest.raises(ConfigurationError):
        check_base_url(url)


async def test_a_public_url_is_the_issuer() -> None:
    """In a container network, tokens name the address that clients use."""
    local = local_entra(MANIFESTS, DIRECTORY, public_url="http://entra:8080")
    running = await local.start("127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{running.address[1]}/trygdeetaten.no/v2.0/.well-known/openid-configuration"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Host": "entra:8080"}) as answer,
        ):
            document = await answer.json()
        assert document["issuer"].startswith("http://entra:8080/")
        assert running.environment("dev-gcp:team:app-a")["AZURE_OPENID_CONFIG_ISSUER"] == document["issuer"]
    finally:
        await running.stop()


async def test_a_taken_port_is_one_clear_line() -> None:
    """The error names address and reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            await local_entra([]).start("127.0.0.1", port)
    assert str(caught.value) == (
        f"the address 127.0.0.1:{port} is taken by another program; choose another port"
    )


async def test_manifests_are_reloaded_while_running(tmp_path: Path) -> None:
    """A new application is loaded; a broken file changes nothing and is shown on the console; once corrected,
    it is loaded."""
    (tmp_path / "target.yaml").write_text(manifest("target", rules=[{"application": "late"}]))
    local = LocalEntraId.from_files([tmp_path])
    local.keyring.restore(signing_keys())

    async def until(condition: str, present: bool) -> None:
        for _ in range(3000):
            if (condition in await page()) is present:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{condition!r} did not {'appear' if present else 'vanish'}")

    async with served(local, watch=0.01) as entra:

        async def page() -> str:
            return (await entra.request("GET", "/")).text

        await until("late does not exist", True)
        (tmp_path / "late.yaml").write_text(manifest("late"))
        await until("late does not exist", False)
        assert (await entra.m2m("late", "target")).status == 200
        (tmp_path / "target.yaml").write_text("kind: [")
        await until("could not be loaded", True)
        assert (await entra.m2m("late", "target")).status == 200
        (tmp_path / "target.yaml").write_text(manifest("target"))
        await until("could not be loaded", False)
        assert (await entra.m2m("late", "target")).code == 501051


async def test_a_change_before_the_first_look_is_not_missed(tmp_path: Path) -> None:
    """A change between loading and watching is also loaded."""
    (tmp_path / "a.yaml").write_text(manifest("a"))
    local = LocalEntraId.from_files([tmp_path])
    local.keyring.restore(signing_keys())
    (tmp_path / "b.yaml").write_text(manifest("b"))
    async with served(local, watch=0.01):
        for _ in range(3000):
            if "dev-gcp:team:b" in local.registry.default_tenant.applications:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the new file was never loaded")


def test_a_failed_reload_keeps_what_was(tmp_path: Path) -> None:
    """The error comes out; the registry stays."""
    file = tmp_path / "a.yaml"
    file.write_text(manifest("a"))
    local = LocalEntraId.from_files([file])
    file.write_text("nonsense")
    with pytest.raises(SourceError):
        local.reload()
    assert local.registry.find("dev-gcp:team:a")


async def test_state_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    """Keys, secrets, codes, sessions and refresh tokens are kept; only the owner can read the file."""
    first = local_entra(MANIFESTS, DIRECTORY, clock=clock, state_directory=tmp_path)
    async with served(first) as entra:
        login = await entra.login("app-a", "ada")
        signed_in = (await entra.sign_in("app-a", "ada")).location
        code = signed_in["code"]
        wanted = {"client_id": entra.client_id("app-a"), "scope": "openid"}
        path = f"/{entra.tenant_id('app-a')}/oauth2/v2.0/devicecode"
        device = (await entra.request("POST", path, data=wanted)).json
        cookies = [(cookie.key, cookie.value) for cookie in entra.session.cookie_jar]
        environment = entra.running.environment("dev-gcp:team:app-a")
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    second = LocalEntraId(clock=clock, state_directory=tmp_path)
    second.registry = first.registry
    assert second.keyring.active.kid == first.keyring.active.kid
    async with served(second) as entra:
        again = entra.running.environment("dev-gcp:team:app-a")
        for name in ("AZURE_APP_CLIENT_SECRET", "AZURE_APP_JWK"):
            assert again[name] == environment[name]
        assert (await entra.redeem("app-a", code, code_verifier=VERIFIER)).status == 200
        form = {"grant_type": "refresh_token", "refresh_token": login.json["refresh_token"]}
        assert (await entra.token({**form, **entra.credentials("app-a")})).status == 200
        entra.session.cookie_jar.update_cookies(cookies, URL(entra.base_url))
        fields = {"code": device["user_code"], "answer": "continue"}
        await entra.request("POST", "/devicelogin", data=fields)
        poll = {**wanted, "grant_type": "device_code", "device_code": device["device_code"]}
        tokens = await entra.token(poll)
        assert tokens.claims["sid"] == signed_in["session_state"]


@pytest.mark.parametrize(
    "content", ["", "{}", '{"format": 2}', '{"format": 1, "keyring": [{}]}', "[]", "null"]
)
def test_damaged_state_is_not_overwritten(tmp_path: Path, content: str) -> None:
    """It is an error that says what to remove."""
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ConfigurationError, match="remove it to start from scratch"):
        LocalEntraId(state_directory=tmp_path)
    assert (tmp_path / FILE_NAME).read_text() == content


async def test_tls(tmp_path: Path) -> None:
    """A client that trusts the local authority can connect, by name and by address; any other cannot."""
    prepared = tls.prepare(tmp_path)
    trusting = ssl.create_default_context(cafile=str(prepared.authority))
    async with served(local_entra(MANIFESTS, DIRECTORY), tls=prepared.context) as entra:
        port = entra.running.address[1]
        for host in ("localhost", "127.0.0.1"):
            answer = await entra.request("GET", f"https://{host}:{port}/healthz", ssl=trusting)
            assert answer.text == "ok\n"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await entra.request("GET", f"https://localhost:{port}/healthz")
        cookie = await entra.request(
            "POST",
            entra.authorize_path("app-a"),
            data={**entra.login_parameters("app-a"), "username": "ada"},
            ssl=trusting,
        )
        # As Entra ID's: single-page applications renew their sign-in in a frame.
        assert all(part in cookie.headers["Set-Cookie"] for part in ("Secure", "SameSite=None", "HttpOnly"))


def test_the_authority_is_kept_and_private(tmp_path: Path) -> None:
    """Trusting it once is enough; its key is its owner's only; it is replaced for further names."""
    first = tls.prepare(tmp_path).authority.read_bytes()
    assert stat.S_IMODE((tmp_path / "ca-key.pem").stat().st_mode) == 0o600
    assert tls.prepare(tmp_path).authority.read_bytes() == first
    assert tls.prepare(tmp_path, ["entra"]).authority.read_bytes() != first
    (tmp_path / "ca.pem").write_text("damaged")
    with pytest.raises(ConfigurationError, match="damaged"):
        tls.prepare(tmp_path)


def test_the_authority_can_sign_for_this_machine_only(tmp_path: Path) -> None:
    """Name constraints: a stolen key cannot sign for other host names."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(tls.prepare(tmp_path).authority.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    permitted = {str(item.value) for item in extension.value.permitted_subtrees or []}
    assert permitted == {"localhost", "127.0.0.1/32", "::1/128"}


async def test_an_extra_reply_url(clock: Clock) -> None:
    """A program on a free port can be registered while running; nonsense cannot."""
    local = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    local.add_reply_url("dev-gcp:team:app-a", "http://127.0.0.1:45678/cb")
    async with served(local) as entra:
        assert (await entra.sign_in("app-a", "ada", redirect_uri="http://127.0.0.1:45678/cb")).status == 303
        assert (await entra.sign_in("app-a", "ada", redirect_uri=CALLBACK)).status == 303
    for url in ("http://evil.example/", "https://*.example/", "javascript:x"):
        with pytest.raises(ConfigurationError):
            local.add_reply_url("dev-gcp:team:app-a", url)


def test_unknown_applications_get_a_suggestion() -> None:
    """`find` says what was probably meant."""
    local = local_entra(MANIFESTS, DIRECTORY)
    with pytest.raises(ConfigurationError, match="did you mean dev-gcp:team:app-nobody"):
        local.registry.find("dev-gcp:team:app-nobdy")


def test_the_state_directory_must_be_writable(tmp_path: Path) -> None:
    """One clear error otherwise."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    local = local_entra(MANIFESTS, DIRECTORY, state_directory=None)
    local._state_directory = blocked / "below"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        local.save()


async def test_localhost_is_both_addresses() -> None:
    """Some clients try ::1 first, some 127.0.0.1."""
    running = await local_entra(MANIFESTS, DIRECTORY).start("localhost", 0)
    try:
        port = running.address[1]
        assert running.base_url == f"http://localhost:{port}"
        async with aiohttp.ClientSession() as session:
            for host in ("127.0.0.1", "[::1]"):
                if host == "[::1]" and not has_ipv6_loopback():
                    continue
                async with session.get(f"http://{host}:{port}/healthz") as answer:
                    assert answer.status == 200
    finally:
        await running.stop()


@pytest.mark.parametrize("host", ["LOCALHOST", "127.1.2.3", "::ffff:127.0.0.1"])
async def test_every_spelling_of_a_loopback_address_is_served(host: str) -> None:
    """It starts there, and answers requests for the address that it calls its own."""
    async with served(local_entra(MANIFESTS, DIRECTORY), host) as entra:
        assert (await entra.request("GET", "/")).status == 200


def has_ipv6_loopback() -> bool:
    """Containers often have none."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
