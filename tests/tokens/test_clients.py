"""`AsyncTokenClient` and `TokenClient`, straight from a provider and through a sidecar, over real sockets."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from entra_fast import _native, unverified_claims
from entra_fast.emulator import LocalEntraId
from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError
from entra_fast.tokens import AsyncTokenClient, Token, TokenClient, _background
from entra_fast.validate import HttpOptions, Validator
from support.background import ThreadLoop
from support.local_entra import EXAMPLES
from support.process import inherited
from support.provider import CLIENT_ID, CLIENT_KEY, TENANT, Provider, after, answer, raw, refuse

from .conftest import SCOPE, TARGET, Tokens

CHALLENGE = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'


async def test_a_token_for_the_application_itself(tokens: Tokens) -> None:
    """The target becomes a scope; the result has the token and its end, and does not show the token."""
    token = await tokens.m2m()
    (request,) = tokens.requests
    assert request.form["grant_type"] == "client_credentials"
    assert request.form["scope"] == SCOPE
    assert unverified_claims(token.access_token)["aud"] == SCOPE
    assert 3500 < token.expires_in <= 3600
    assert abs(token.expires_at - time.time() - 3600) < 60
    assert token.authorization == f"Bearer {token.access_token}"
    assert token.token_type == "Bearer"
    assert token.access_token not in repr(token)


async def test_a_token_on_behalf_of_a_user(tokens: Tokens) -> None:
    """The user's token is the assertion."""
    user = tokens.entra.mint(sub="ada")
    token = await tokens.obo(user)
    (request,) = tokens.requests
    assert request.form["requested_token_use"] == "on_behalf_of"
    assert request.form["assertion"] == user
    assert token.access_token != user


async def test_tokens_are_cached(tokens: Tokens) -> None:
    """Both spellings of a target share one entry, and so do all requests of one user; users share nothing."""
    first, second = tokens.entra.mint(sub="ada"), tokens.entra.mint(sub="grace")
    found = [await tokens.m2m(), await tokens.m2m(SCOPE), await tokens.obo(first), await tokens.obo(first)]
    other = await tokens.obo(second)
    assert found[0].access_token == found[1].access_token
    assert found[2].access_token == found[3].access_token
    assert len({found[0].access_token, found[2].access_token, other.access_token}) == 3
    assert len(tokens.requests) == 3
    assert tokens.client.stats()["entries"] == 3


async def test_concurrent_requests_for_one_token_are_one(tokens: Tokens) -> None:
    """A hundred callers for the application and for each of two users: three requests."""
    release = asyncio.Event()
    tokens.entra.always = after(release, tokens.entra)
    users = [tokens.entra.mint(sub=name) for name in ("ada", "grace")]
    calls = [tokens.m2m() for _ in range(20)] + [tokens.obo(user) for user in users for _ in range(40)]
    callers = [asyncio.ensure_future(call) for call in calls]
    await asyncio.to_thread(wait_until, lambda: len(tokens.requests) == 3)
    await asyncio.sleep(0.1)
    release_on_its_loop(release)
    found = {token.access_token for token in await asyncio.gather(*callers)}
    assert len(found) == len(tokens.requests) == 3


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "never became true"
        time.sleep(0.005)


def release_on_its_loop(event: asyncio.Event) -> None:
    """The servers' loop is another thread's."""
    event._loop.call_soon_threadsafe(event.set)  # type: ignore[attr-defined]


async def test_a_valid_token_is_preferred_to_a_failing_provider(tokens: Tokens) -> None:
    """A new token is asked for and none comes: the cached one serves."""
    first = await tokens.m2m()
    tokens.entra.failing = True
    assert (await tokens.m2m(skip_cache=True)).access_token == first.access_token


async def test_skip_cache_replaces_the_token(tokens: Tokens) -> None:
    """The new token is the cached one from then on."""
    first = await tokens.m2m()
    second = await tokens.m2m(skip_cache=True)
    third = await tokens.m2m()
    assert first.access_token != second.access_token == third.access_token
    assert len(tokens.requests) == 2


async def test_a_claims_challenge_gets_a_new_token(tokens: Tokens) -> None:
    """It replaces the cached one."""
    user = tokens.entra.mint(sub="ada")
    first = [await tokens.m2m(), await tokens.obo(user)]
    second = [await tokens.m2m(claims=CHALLENGE), await tokens.obo(user, claims=CHALLENGE)]
    third = [await tokens.m2m(), await tokens.obo(user)]
    assert not {token.access_token for token in first} & {token.access_token for token in second}
    assert [token.access_token for token in second] == [token.access_token for token in third]
    assert len(tokens.requests) == 4


async def test_the_provider_gets_the_claims(kind: Any, entra: Provider) -> None:
    """Verbatim, in the form."""
    tokens = Tokens(kind.from_env(entra.environment()), entra)
    await tokens.m2m(claims=CHALLENGE)
    assert tokens.requests[0].form["claims"] == CHALLENGE
    await tokens.m2m(skip_cache=True)
    assert "claims" not in tokens.requests[1].form
    await tokens.close()


async def test_a_failed_challenge_is_not_answered_with_the_old_token(kind: Any, entra: Provider) -> None:
    """The API has just refused that one."""
    tokens = Tokens(kind.from_env(entra.environment()), entra)
    await tokens.m2m()
    entra.failing = True
    with pytest.raises(ProviderError) as caught:
        await tokens.m2m(claims=CHALLENGE)
    assert caught.value.status == 503


@pytest.mark.parametrize("claims", ["", "[]", "no JSON", '{"a":' + '"b"' * 3000 + "}", "{" * 9000])
async def test_a_malformed_challenge_is_refused(tokens: Tokens, claims: str) -> None:
    """Before anything is sent."""
    with pytest.raises(EntraFastError) as caught:
        await tokens.m2m(claims=claims)
    assert caught.value.code == "claims_invalid"
    assert tokens.requests == []


async def test_a_refusal_says_why(tokens: Tokens) -> None:
    """With all that an application needs to react to it; equal requests are not repeated within a second."""
    details = {"error_codes": [50076], "suberror": "basic_action", "claims": CHALLENGE, "trace_id": "t"}
    tokens.entra.then(refuse(400, "invalid_grant", "AADSTS50076: Due to a configuration change", **details))
    user = tokens.entra.mint(sub="ada")
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await tokens.obo(user)
        error = caught.value
        assert (error.code, error.error, error.status) == ("provider_refused", "invalid_grant", 400)
        assert error.message.startswith("AADSTS50076")
        assert error.details == details
    assert len(tokens.requests) == 1


async def test_retry_after_is_passed_on(tokens: Tokens) -> None:
    """Of a provider that throttles."""
    tokens.entra.always = answer(429, {"error": "temporarily_unavailable"}, Retry_After="7")
    with pytest.raises(ProviderError) as caught:
        await tokens.m2m()
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 7


async def test_an_expired_user_gets_no_token(tokens: Tokens) -> None:
    """Nothing is sent, and the message uses the name of the argument."""
    with pytest.raises(ProviderError) as caught:
        await tokens.obo(tokens.entra.mint(exp=int(time.time()) - 1))
    assert caught.value.code == "subject_token_expired"
    assert caught.value.message == "subject_token has expired"
    assert tokens.requests == []


@pytest.mark.parametrize("subject", ["", "two words", "å", "x" * 70_000])
async def test_what_is_no_token_is_refused(tokens: Tokens, subject: str) -> None:
    """By its form."""
    with pytest.raises(EntraFastError) as caught:
        await tokens.obo(subject)
    assert caught.value.code == "subject_token_invalid"
    assert caught.value.message.startswith("subject_token must be")


async def test_a_malformed_target_is_refused(tokens: Tokens) -> None:
    """Before anything is sent."""
    with pytest.raises(EntraFastError) as caught:
        await tokens.m2m('"no target"')
    assert caught.value.code == "target_invalid"


async def test_an_answer_that_is_none(tokens: Tokens) -> None:
    """An error with a code, without what was received."""
    tokens.entra.always = raw(200, b'{"access_token": "secret-thing"}')
    with pytest.raises(ProviderError) as caught:
        await tokens.m2m()
    assert caught.value.code in ("provider_answer_malformed", "provider_refused")
    assert "secret-thing" not in str(caught.value)


async def test_bound_to_a_user(kind: Any, environment: dict[str, str], entra: Provider) -> None:
    """`for_user(...)` has the same interface, always on behalf of that user, and does not close the
    client."""
    client = kind.from_env(environment)
    user = entra.mint(sub="ada")
    bound = client.for_user(user)
    assert user not in repr(bound)
    if isinstance(client, AsyncTokenClient):
        async with bound:
            token = await bound.token(TARGET)
        assert (await client.on_behalf_of(TARGET, user)).access_token == token.access_token
        await client.aclose()
    else:

        def use() -> None:
            with bound:
                token = bound.token(TARGET)
            assert client.on_behalf_of(TARGET, user).access_token == token.access_token
            client.close()

        await asyncio.to_thread(use)
    assert len(entra.requests) == 1


async def test_a_closed_client_can_be_used_again(tokens: Tokens) -> None:
    """Its cached tokens are still there; others are fetched over new connections."""
    first = await tokens.m2m()
    await tokens.close()
    await tokens.close()
    assert (await tokens.m2m()).access_token == first.access_token
    await tokens.m2m("dev-gcp:team-b:another")


async def test_through_the_local_entra_id(servers: ThreadLoop, kind: Any) -> None:
    """The whole way: access policies decide, and the target's validator accepts the token."""
    local = LocalEntraId.from_files([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml")
    running = servers.run(local.start("127.0.0.1", 0))
    tokens = Tokens(kind.from_env(running.environment("dev-gcp:team-a:app-a")), Provider())
    target = running.environment(TARGET)
    validator = Validator(
        target["AZURE_OPENID_CONFIG_ISSUER"],
        target["AZURE_APP_CLIENT_ID"],
        jwks=local.key_set(target["AZURE_OPENID_CONFIG_ISSUER"]),
    )
    claims = validator.validate((await tokens.m2m()).access_token)
    assert claims.is_app
    _, user = local.mint("dev-gcp:team-a:app-a", "dev-gcp:team-a:app-a", "ada")
    assert user is not None
    claims = validator.validate((await tokens.obo(user)).access_token)
    assert "defaultaccess" in claims.scopes
    with pytest.raises(ProviderError) as caught:
        await tokens.m2m("dev-gcp:team-z:unknown")
    assert caught.value.details["error_codes"] == [500011]
    await tokens.close()
    servers.run(running.stop())


# --- configuration ---


def test_the_sidecar_takes_precedence(entra: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment has both."""
    monkeypatch.delenv("AZURE_APP_CLIENT_ID", raising=False)
    with pytest.raises(ConfigurationError, match="AZURE_APP_CLIENT_ID is not set"):
        TokenClient.from_provider()
    for name, value in entra.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NAIS_TOKEN_ENDPOINT", "http://127.0.0.1:1/api/v1/token")
    monkeypatch.setenv("NAIS_TOKEN_EXCHANGE_ENDPOINT", "http://127.0.0.1:1/api/v1/token/exchange")
    with pytest.raises(ProviderError, match="no token from the sidecar") as caught:
        TokenClient().client_credentials(TARGET)
    assert caught.value.code == "connect_failed"
    assert TokenClient.from_provider().client_credentials(TARGET)
    assert len(entra.requests) == 1


async def test_a_sidecar_can_be_forced(kind: Any, entra: Provider, sidecar: dict[str, str]) -> None:
    """By arguments, whatever the environment says."""
    urls = sidecar["NAIS_TOKEN_ENDPOINT"], sidecar["NAIS_TOKEN_EXCHANGE_ENDPOINT"]
    tokens = Tokens(kind.from_sidecar(*urls, timeout=20), entra)
    assert await tokens.m2m()
    await tokens.close()


async def test_a_refused_credential_is_not_tried_for_every_caller(tokens: Tokens) -> None:
    """Its refusal is remembered for a second, as others are."""
    tokens.entra.always = refuse(401, "invalid_client", "AADSTS7000215: wrong secret", error_codes=[7000215])
    for _ in range(3):
        with pytest.raises(ProviderError) as caught:
            await tokens.m2m()
        assert caught.value.error == "invalid_client"
    assert len(tokens.requests) == 1


SIDECAR = {
    "NAIS_TOKEN_ENDPOINT": "http://127.0.0.1:7164/api/v1/token",
    "NAIS_TOKEN_EXCHANGE_ENDPOINT": "http://127.0.0.1:7164/api/v1/token/exchange",
}


@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({}, "NAIS_TOKEN_ENDPOINT"),
        ({"NAIS_TOKEN_ENDPOINT": SIDECAR["NAIS_TOKEN_ENDPOINT"]}, "NAIS_TOKEN_EXCHANGE_ENDPOINT"),
        ({**SIDECAR, "NAIS_TOKEN_ENDPOINT": " "}, "NAIS_TOKEN_ENDPOINT"),
        ({**SIDECAR, "NAIS_TOKEN_ENDPOINT": "http://sidecar.example/token"}, "NAIS_TOKEN_ENDPOINT"),
        ({**SIDECAR, "NAIS_TOKEN_EXCHANGE_ENDPOINT": "token"}, "NAIS_TOKEN_EXCHANGE_ENDPOINT"),
        ({"AZURE_APP_CLIENT_ID": CLIENT_ID, "AZURE_APP_TENANT_ID": TENANT}, "AZURE_APP_JWK"),
        ({"AZURE_APP_CLIENT_ID": CLIENT_ID, "AZURE_APP_CLIENT_SECRET": "s"}, "AZURE_APP_WELL_KNOWN_URL"),
    ],
    ids=["nothing", "half", "other half", "clear text", "no URL", "no credential", "no tenant"],
)
def test_an_incomplete_environment(kind: Any, environ: dict[str, str], setting: str) -> None:
    """Is an error at construction that names the variable."""
    with pytest.raises(ConfigurationError) as caught:
        kind.from_env(environ)
    assert caught.value.setting == setting
    assert setting in caught.value.message


PROVIDER = {"client_id": "client", "tenant_id": TENANT}


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"tenant_id": TENANT}, "client_id"),
        ({"client_id": "", "tenant_id": TENANT, "client_secret": "s"}, "client_id"),
        ({"client_id": "client", "client_secret": "s"}, "tenant_id"),
        ({"client_id": "client", "tenant_id": "a/../b", "client_secret": "s"}, "tenant_id"),
        ({"client_id": "client", "tenant_id": "", "client_secret": "s"}, "tenant_id"),
        (PROVIDER, "client_secret"),
        ({**PROVIDER, "client_secret": "s", "jwk": CLIENT_KEY.private_jwk()}, "client_secret"),
        ({**PROVIDER, "client_secret": ""}, "client_secret"),
        ({**PROVIDER, "jwk": "{}"}, "jwk"),
        ({**PROVIDER, "client_secret": "s", "token_endpoint": "http://login.example/t"}, "token_endpoint"),
        ({**PROVIDER, "client_secret": "s", "well_known_url": "ftp://login.example"}, "well_known_url"),
        ({**PROVIDER, "client_secret": "s", "max_retries": 99}, "max_retries"),
    ],
)
def test_wrong_arguments(kind: Any, options: dict[str, Any], setting: str) -> None:
    """Are an error at construction that names the argument."""
    with pytest.raises(ConfigurationError) as caught:
        kind.from_provider(**options)
    assert caught.value.setting == setting


def test_what_the_environment_says_about_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is checked at construction."""
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    with pytest.raises(ConfigurationError) as caught:
        TokenClient.from_provider(client_id="c", tenant_id=TENANT, client_secret="s")
    assert caught.value.setting == "HTTPS_PROXY"


@pytest.mark.parametrize("seconds", [0, -1, 601])
def test_the_timeout_of_a_sidecar_is_bounded(kind: Any, seconds: float) -> None:
    """To ten minutes."""
    with pytest.raises(ConfigurationError) as caught:
        kind.from_sidecar(*SIDECAR.values(), timeout=seconds)
    assert caught.value.setting == "timeout"


@pytest.mark.parametrize("by", ["token_endpoint", "well_known_url"])
def test_every_credential(entra: Provider, tmp_path: Path, by: str) -> None:
    """Key, federated file and secret; the endpoint is given, or discovered once."""
    where: Any = {by: getattr(entra, by)}
    options = HttpOptions(timeout=10, headers={"X-Gateway": "key"})
    file = tmp_path / "token"
    file.write_text("federated-1")
    with TokenClient.from_provider(client_id="c", client_secret="the secret", **where) as client:
        client.client_credentials(TARGET)
        assert entra.requests[-1].form["client_secret"] == "the secret"
        assert "the secret" not in repr(client)
    with TokenClient.from_provider(client_id="c", federated_token_file=file, **where) as client:
        client.client_credentials(TARGET)
        assert entra.requests[-1].form["client_assertion"] == "federated-1"
        file.write_text("federated-2")
        client.client_credentials(TARGET, skip_cache=True)
        assert entra.requests[-1].form["client_assertion"] == "federated-2"
    for jwk in (CLIENT_KEY.private_jwk(), json.loads(CLIENT_KEY.private_jwk())):
        with TokenClient.from_provider(
            client_id="c", jwk=jwk, **where, http=options, max_retries=0
        ) as client:
            client.client_credentials(TARGET)
            assertion = unverified_claims(entra.requests[-1].form["client_assertion"])
            assert assertion["sub"] == "c"
            assert assertion["aud"] == entra.token_endpoint
            assert entra.requests[-1].headers["X-Gateway"] == "key"
    assert entra.discovery_requests == (0 if by == "token_endpoint" else 4)


def test_targets_of_other_providers_are_passed_on(servers: ThreadLoop, api: Any) -> None:
    """Only Entra ID's become scopes: a sidecar with TokenX knows `<cluster>:<namespace>:<app>`.
    What is no scope is refused before it is sent, by the rule of the contract."""
    client = TokenClient.from_sidecar(f"{api.origin}/t", f"{api.origin}/x", identity_provider="tokenx")
    with pytest.raises(ProviderError):
        client.on_behalf_of("dev-gcp:team-b:app-b", "opaque")
    sent = json.loads(api.received[0].body)
    assert sent == {"identity_provider": "tokenx", "target": "dev-gcp:team-b:app-b", "user_token": "opaque"}
    for target in ("", "x" * 4097, "line\nbreak", 'a"b'):
        with pytest.raises(EntraFastError) as caught:
            client.client_credentials(target)
        assert caught.value.code == "target_invalid"


# --- threads, processes, event loops ---


async def test_a_blocking_client_refuses_to_block_an_event_loop(entra: Provider) -> None:
    """With a sentence that names the other client."""
    client = TokenClient.from_env(entra.environment())
    with pytest.raises(RuntimeError, match="AsyncTokenClient"):
        client.client_credentials(TARGET)


def test_many_threads_cause_one_request(entra: Provider) -> None:
    """Also where all of them come first."""
    client = TokenClient.from_env(entra.environment())
    start, found = threading.Barrier(30), []

    def call() -> None:
        start.wait()
        found.append(client.client_credentials(TARGET).access_token)

    threads = [threading.Thread(target=call) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert len(set(found)) == len(entra.requests) == 1


def test_all_blocking_clients_share_one_thread(entra: Provider) -> None:
    """However many there are."""
    for _ in range(5):
        TokenClient.from_env(entra.environment()).client_credentials(TARGET)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("entra_fast-tokens") == 1


def test_a_renewal_that_is_due_happens_in_the_background(entra: Provider) -> None:
    """The caller gets the cached token at once, and later callers the new one."""
    entra.lifetime = 100  # handed out for 50 s, renewal is due after 30 to 40 s
    client = TokenClient.from_env(entra.environment())
    first = client.client_credentials(TARGET)
    (session,) = client._sessions.values()
    key = session.tokens._wanted(TARGET, None).key
    client._cache.put(key, first.access_token, 100.0, monotonic=_native.monotonic_clock() - 45, renew_in=30.0)
    assert client.client_credentials(TARGET).access_token == first.access_token
    wait_until(lambda: len(entra.requests) == 2)
    wait_until(lambda: client.client_credentials(TARGET).access_token != first.access_token)
    assert len(entra.requests) == 2


def test_after_a_fork(entra: Provider) -> None:
    """The child has the cached tokens, and fetches others on a thread of its own."""
    client = TokenClient.from_env(entra.environment())
    cached = client.client_credentials(TARGET).access_token
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            same = client.client_credentials(TARGET).access_token == cached
            other = client.client_credentials("dev-gcp:team-b:in-the-child").access_token
            os.write(writing, json.dumps([same, bool(other)]).encode())
        except BaseException as error:
            os.write(writing, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert json.loads(pipe.read()) == [True, True]
    os.waitpid(child, 0)
    assert len(entra.requests) == 2
    assert client.client_credentials("dev-gcp:team-b:in-the-parent")


def test_event_loops_share_the_cache(entra: Provider) -> None:
    """A client outlives the loop that it was first used on."""
    client = AsyncTokenClient.from_env(entra.environment())

    async def call(target: str) -> Token:
        async with client:
            return await client.client_credentials(target)

    first = asyncio.run(call(TARGET))
    assert asyncio.run(call(TARGET)).access_token == first.access_token
    asyncio.run(call("dev-gcp:team-b:another"))
    assert len(entra.requests) == 2


def test_a_request_without_end_is_given_up(entra: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread waits for the background loop only so long."""
    client = TokenClient.from_env(entra.environment())
    monkeypatch.setattr("entra_fast.tokens._clients.GRACE", -4.9)

    async def never(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    client.client_credentials(TARGET)
    (session,) = client._sessions.values()
    monkeypatch.setattr(session.tokens, "acquire", never)
    with pytest.raises(ProviderError) as caught:
        client.client_credentials(TARGET, skip_cache=True)
    assert caught.value.code == "timed_out"


def test_the_background_loop_ends() -> None:
    """With everything that runs on it, also for those who wait."""
    loop = _background.BackgroundLoop()
    failures = []

    def wait() -> None:
        try:
            loop.run(asyncio.sleep(60), 60)
        except TimeoutError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    loop.stop()
    waiting.join(10)
    assert len(failures) == 1


WITHOUT_AIOHTTP = """
import asyncio, json, sys
sys.modules["aiohttp"] = None
from entra_fast.client import AsyncSidecarClient, SidecarClient
from entra_fast.tokens import AsyncTokenClient, TokenClient

async def asynchronously():
    async with AsyncTokenClient() as tokens:
        found = await asyncio.gather(*(tokens.client_credentials("a:b:c") for _ in range(50)))
    assert len({token.access_token for token in found}) == 1
    async with AsyncSidecarClient(sys.argv[1]) as sidecar:
        assert not (await sidecar.introspect("x")).active

asyncio.run(asynchronously())
with TokenClient() as tokens:
    tokens.client_credentials("a:b:c")
assert not SidecarClient(sys.argv[1]).introspect("x").active
"""

WITH_AIOHTTP = """
import sys
from entra_fast.client import SidecarClient
from entra_fast.tokens import TokenClient
with TokenClient() as tokens:
    tokens.client_credentials("a:b:c")
assert not SidecarClient(sys.argv[1]).introspect("x").active
print([name for name in ("aiohttp", "prometheus_client", "requests", "httpx", "yaml") if name in sys.modules])
"""


def run(program: str, environ: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env={**inherited(), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_without_aiohttp(environment: dict[str, str], sidecar: dict[str, str], entra: Provider) -> None:
    """Everything works with the standard library, and the program ends in silence."""
    run(WITHOUT_AIOHTTP, environment, sidecar["NAIS_TOKEN_INTROSPECTION_ENDPOINT"])
    assert len(entra.requests) in (1, 2)


def test_the_blocking_clients_load_the_standard_library_only(
    environment: dict[str, str], sidecar: dict[str, str]
) -> None:
    """Even where aiohttp is installed."""
    assert run(WITH_AIOHTTP, environment, sidecar["NAIS_TOKEN_INTROSPECTION_ENDPOINT"]) == "[]"


@pytest.mark.parametrize("extra", ["grpc", "httpx", "httpx2", "requests"])
def test_a_missing_extra_is_one_sentence(extra: str) -> None:
    """With the command that installs it."""
    program = f"""
import sys
sys.modules["{extra}"] = None
from entra_fast.errors import ConfigurationError
try:
    import entra_fast.tokens.{extra}
except ConfigurationError as error:
    print(error)
"""
    assert f"pip install 'entra-fast[{extra}]'" in run(program, {})


def test_a_token_is_a_value() -> None:
    """Comparable and picklable, and it expires."""
    token = Token("text", time.time() + 10.5)
    assert pickle.loads(pickle.dumps(token)) == token == copy.copy(token)
    assert token.expires_in == 10
    assert Token("text", 1.0).expires_in == 0
