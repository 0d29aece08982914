"""The library's front door: construction, claims, `validate_many`, explaining, errors."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import entra_fast.validate
from entra_fast._claims import ClaimsView
from entra_fast._provider.discovery_document import DiscoveryError
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast.errors import ProviderError
from entra_fast.validate import (
    AsyncValidator,
    Claims,
    ConfigurationError,
    EntraFastError,
    Forbidden,
    InvalidToken,
    KeySet,
    KeysUnavailable,
    RefreshRules,
    Require,
    Validator,
    _SharedValidator,
    unverified_claims,
    unverified_header,
)
from support.key_server import DISCOVERY_PATH, Answer, KeyServer
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    ISSUER_TEMPLATE,
    NOW,
    TENANT,
    V1_ISSUER_TEMPLATE,
    Clock,
    Signer,
    good_claims,
    jwks,
    segment,
    signer,
    validator,
)

KEY = signer()
GROUP = "aaaaaaaa-0000-0000-0000-000000000001"
VARIABLES = (
    "AZURE_APP_CLIENT_ID",
    "AZURE_APP_WELL_KNOWN_URL",
    "AZURE_OPENID_CONFIG_ISSUER",
    "AZURE_OPENID_CONFIG_JWKS_URI",
)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(jwks(KEY)) as running:
        document = {
            "issuer": running.issuer,
            "jwks_uri": running.keys_url,
            "token_endpoint": running.base_url + "/token",
        }
        running.answers[DISCOVERY_PATH] = Answer(json.dumps(document))
        yield running


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, server: KeyServer) -> pytest.MonkeyPatch:
    """What NAIS sets, pointing at the key server; without the well-known URL."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
    monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", ISSUER)
    monkeypatch.setenv("AZURE_OPENID_CONFIG_JWKS_URI", server.keys_url)
    return monkeypatch


def claims_of(**changes: Any) -> Claims:
    """Verified claims."""
    return validator().validate(KEY.token(**changes))


def _code(one: Validator, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        one.validate(token)
    return caught.value.code


# --- construction ----------------------------------------------------------------------------------------


def test_from_the_environment(environ: pytest.MonkeyPatch) -> None:
    """`Validator()` is for the application whose settings NAIS put into the environment."""
    for make in (Validator, Validator.from_env):
        with make(clock=lambda: NOW) as one:
            assert one.validate(KEY.token())["aud"] == AUDIENCE
    with Validator(audience="api://other", clock=lambda: NOW) as one:
        one.validate(KEY.token(aud="api://other"))


async def test_from_the_environment_on_a_loop(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """The same for asyncio, and with only the discovery document's URL."""
    async with await AsyncValidator.from_env(clock=lambda: NOW) as one:
        await one.validate(KEY.token())
    async with AsyncValidator(clock=lambda: NOW) as one:
        await one.validate(KEY.token())
    environ.delenv("AZURE_OPENID_CONFIG_ISSUER")
    environ.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
    async with await AsyncValidator.from_env(clock=lambda: NOW) as one:
        await one.validate(KEY.token(iss=server.issuer))
    with pytest.raises(ConfigurationError, match="use `await AsyncValidator"):
        AsyncValidator()


@pytest.mark.parametrize("blank", ["", "   "])
@pytest.mark.parametrize(
    "name", ["AZURE_APP_CLIENT_ID", "AZURE_OPENID_CONFIG_ISSUER", "AZURE_OPENID_CONFIG_JWKS_URI"]
)
def test_a_missing_variable_is_named(name: str, blank: str, environ: pytest.MonkeyPatch) -> None:
    """A variable that is not set, or blank, stops the construction and is named."""
    environ.setenv(name, blank)
    with pytest.raises(ConfigurationError, match=name) as caught:
        Validator()
    assert (caught.value.code, caught.value.setting) == ("setting_missing", name)


def test_from_the_well_known_url(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """With only the discovery document's URL, the document is fetched in the constructor."""
    environ.delenv("AZURE_OPENID_CONFIG_ISSUER")
    environ.delenv("AZURE_OPENID_CONFIG_JWKS_URI")
    environ.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
    with Validator(clock=lambda: NOW) as one:
        one.validate(KEY.token(iss=server.issuer))


async def test_a_variable_wins_over_discovery(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """The discovery document supplies only what no variable sets, as in the sidecar."""
    environ.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
    environ.delenv("AZURE_OPENID_CONFIG_JWKS_URI")
    with Validator(clock=lambda: NOW) as one:
        one.validate(KEY.token())
        assert _code(one, KEY.token(iss=server.issuer)) == "wrong_issuer"
    async with await AsyncValidator.from_env(clock=lambda: NOW) as other:
        await other.validate(KEY.token())
    environ.delenv("AZURE_OPENID_CONFIG_ISSUER")
    environ.setenv("AZURE_OPENID_CONFIG_JWKS_URI", server.base_url + "/own")
    server.answers["/own"] = Answer(jwks(KEY))
    with Validator(clock=lambda: NOW) as one:
        one.validate(KEY.token(iss=server.issuer))
    assert server.fetches("/own") == 1


async def test_from_discovery(server: KeyServer) -> None:
    """Issuer and keys come from the document of a URL."""
    token = KEY.token(iss=server.issuer)
    with Validator.from_discovery(server.discovery_url, AUDIENCE, clock=lambda: NOW) as one:
        one.validate(token)
    http = HttpClient()
    async with await AsyncValidator.from_discovery(
        server.discovery_url, AUDIENCE, http=http, clock=lambda: NOW
    ) as other:
        await other.validate(token)
    await http.aclose()


async def test_discovery_for_keys_alone(server: KeyServer) -> None:
    """Validating tokens needs only an issuer and its keys: the other endpoints may be absent."""
    document = {"issuer": server.issuer, "jwks_uri": server.keys_url}
    server.answers[DISCOVERY_PATH] = Answer(json.dumps(document))
    with Validator.from_discovery(server.discovery_url, AUDIENCE, clock=lambda: NOW) as one:
        one.validate(KEY.token(iss=server.issuer))
    async with await AsyncValidator.from_discovery(
        server.discovery_url, AUDIENCE, clock=lambda: NOW
    ) as other:
        await other.validate(KEY.token(iss=server.issuer))


async def test_discovery_that_cannot_be_reached(server: KeyServer) -> None:
    """A provider that is down is `KeysUnavailable` in both ways."""
    url = server.discovery_url.replace(str(server.base_url.rsplit(":", 1)[1]), "1")
    with pytest.raises(KeysUnavailable):
        Validator.from_discovery(url, AUDIENCE)
    with pytest.raises(KeysUnavailable):
        await AsyncValidator.from_discovery(url, AUDIENCE)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_event_loop_after_another(server: KeyServer) -> None:
    """A validator that outlives its event loop fetches keys on the next one: tests and scripts do that."""
    one = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
    asyncio.run(one.validate(KEY.token()))
    server.publish(jwks(KEY, signer("key-2")))
    asyncio.run(one.validate(signer("key-2").token()))
    assert server.fetches() == 2
    asyncio.run(one.aclose())  # on a third one: there is nothing left to close
    asyncio.run(one.validate(KEY.token()))
    del one
    gc.collect()  # here, where connections that could not be closed may warn


@pytest.mark.parametrize("lent", [False, True], ids=["own client", "the caller's"])
async def test_a_dropped_validator_fetches_no_more(server: KeyServer, *, lent: bool) -> None:
    """It closes the HTTP client that it has made. One that it was given stays open."""
    given = HttpClient() if lent else None
    one = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, http=given, clock=lambda: NOW)
    await one.validate(KEY.token())
    keys = one._parts[0].keys
    assert keys is not None
    client = given or keys._own_http
    assert client is not None

    def names() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    assert "key set refresh" in names()
    del one, keys
    gc.collect()
    async with asyncio.timeout(60):
        while names() & {"key set refresh", "close of a dropped validator"}:  # noqa: ASYNC110
            await asyncio.sleep(0)
    if lent:
        assert (await client.get(server.keys_url)).status == 200
        await client.aclose()
    else:
        with pytest.raises(HttpFailure, match="the HTTP client is closed"):
            await client.get(server.keys_url)


def test_fixed_key_set() -> None:
    """A key set can be given as text, as bytes, decoded (as any mapping), or ready."""
    text = jwks(KEY)
    proxy = MappingProxyType({"keys": [MappingProxyType(KEY.jwk())]})
    for keys in (text, text.encode(), json.loads(text), proxy, KeySet(text)):
        one = Validator(ISSUER, AUDIENCE, jwks=keys, clock=lambda: NOW)
        one.validate(KEY.token())
        assert "key_fetches" not in one.stats()


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        ({"issuer": ISSUER, "audience": AUDIENCE}, "jwks_uri"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": "{}", "jwks_uri": "https://x/"}, "jwks_uri"),
        ({"issuer": ISSUER, "jwks": jwks(KEY)}, "audience"),
        ({"audience": AUDIENCE, "jwks": jwks(KEY)}, "issuer"),
        ({"issuer": [], "audience": AUDIENCE, "jwks": jwks(KEY)}, "issuer"),
        ({"issuer": "", "audience": AUDIENCE, "jwks": jwks(KEY)}, "issuer"),
        ({"issuer": ISSUER, "audience": [], "jwks": jwks(KEY)}, "audience"),
        ({"issuer": ISSUER, "audience": [""], "jwks": jwks(KEY)}, "audience"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "algorithms": []}, "algorithms"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "leeway": -1}, "leeway"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "leeway": 601}, "leeway"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "leeway": float("nan")}, "leeway"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "max_age": 0}, "max_age"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "max_age": float("inf")}, "max_age"),
        (
            {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), "max_token_bytes": 63},
            "max_token_bytes",
        ),
        *(
            ({"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY), **wrong}, *wrong)
            for wrong in (
                {"issuer": 5},
                {"issuer": ISSUER.encode()},
                {"audience": [AUDIENCE, None]},
                {"algorithms": None},
                {"algorithms": "HS256"},
                {"tenants": 5},
                {"required_claims": None},
                {"max_token_bytes": -1},
                {"max_token_bytes": 2**70},
                {"max_token_bytes": 1e4},
                {"cache_entries": -1},
                {"cache_bytes": -1},
                {"cache_bytes": None},
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_incomplete_settings(arguments: dict[str, Any], setting: str) -> None:
    """A validator without an issuer to trust, or with a wrong one, cannot be constructed."""
    for kind in (Validator, AsyncValidator):
        with pytest.raises(ConfigurationError) as caught:
            kind(**arguments)
        assert caught.value.setting == setting


def test_a_text_is_one_name() -> None:
    """Where several names are possible, a text is one of them, and not the list of its letters."""
    one = validator(algorithms="RS256", tenants=TENANT, required_claims="sub")
    one.validate(KEY.token())
    assert _code(one, KEY.token(sub=ABSENT)) == "claim_missing"


def test_one_validator_for_the_process(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """`validate(token)` makes one validator from the environment, at the first call."""
    environ.setattr(entra_fast.validate, "_shared", shared := _SharedValidator())
    for _ in range(3):
        with pytest.raises(InvalidToken) as caught:  # the tests' tokens are of another time
            entra_fast.validate.validate(KEY.token())
        assert caught.value.code == "token_not_yet_valid"
    assert server.fetches() == 1
    shared.get().close()


def test_threads_share_one_discovery_that_hangs(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """With the well-known URL alone, six threads wait for one request and get its failure. Until the pause is
    over, callers get it at once; then one asks again."""
    environ.delenv("AZURE_OPENID_CONFIG_ISSUER")
    environ.delenv("AZURE_OPENID_CONFIG_JWKS_URI")
    environ.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
    clock = Clock(0)
    environ.setattr(entra_fast.validate, "_shared", shared := _SharedValidator(clock))
    document = server.answers[DISCOVERY_PATH]
    server.answers[DISCOVERY_PATH] = Answer(status=503)
    server.hold()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(entra_fast.validate.validate, KEY.token()) for _ in range(6)]
        server.wait_for_fetches(1, DISCOVERY_PATH)
        server.release()
        errors = [future.exception(60) for future in waiting]
    assert [type(error) for error in errors] == [KeysUnavailable] * 6
    assert {str(error) for error in errors} == {str(errors[0])}
    assert server.fetches(DISCOVERY_PATH) == 1, "threads that came late got the failure at once"
    server.answers[DISCOVERY_PATH] = document
    clock.now = 0.4
    with pytest.raises(KeysUnavailable, match="answered 503"):
        entra_fast.validate.validate(KEY.token())
    assert server.fetches(DISCOVERY_PATH) == 1
    clock.now = 1
    assert shared.get().explain("x")
    assert server.fetches(DISCOVERY_PATH) == 2
    shared.get().close()


class _Door:
    """A lock before which the first thread that comes waits until a test lets it in."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(60)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_two_threads_create_one_validator(environ: pytest.MonkeyPatch) -> None:
    """A thread that found no validator, and is overtaken by one that creates it, gets that one."""
    shared = _SharedValidator()
    environ.setattr(shared, "_lock", door := _Door())
    with ThreadPoolExecutor(1) as pool:
        overtaken = pool.submit(shared.get)
        assert door.reached.wait(60)
        try:
            created = shared.get()
        finally:
            door.opened.set()
        assert overtaken.result(60) is created
    created.close()


def test_a_thread_that_waited_gets_the_validator(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """Of several that need one at once, one fetches the discovery document, and all get the same
    validator."""
    environ.delenv("AZURE_OPENID_CONFIG_ISSUER")
    environ.delenv("AZURE_OPENID_CONFIG_JWKS_URI")
    environ.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
    shared = _SharedValidator()
    server.hold()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(shared.get)
        server.wait_for_fetches(1, DISCOVERY_PATH)
        others = [pool.submit(shared.get) for _ in range(2)]
        assert not wait([first, *others], timeout=0.05).done
        server.release()
        created = first.result(60)
        assert [other.result(60) for other in others] == [created] * 2
    assert isinstance(created, Validator)
    assert server.fetches(DISCOVERY_PATH) == 1
    created.close()


IN_A_CHILD = """
import os
from entra_fast import validate
validate._shared_by_name["tokenx"] = validate._SharedValidator(provider="tokenx")
shared = [validate._shared, validate._shared_by_name["tokenx"]]
for one in shared:
    one._lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if all(one._lock.acquire(timeout=1) for one in shared) else 1)
print(os.waitpid(child, 0)[1])
"""


def test_a_child_does_not_wait_for_threads_of_its_parent() -> None:
    """A process may fork while another thread creates a shared validator: that thread, which holds the
    lock, does not exist in the child."""
    command = [sys.executable, "-W", "ignore", "-c", IN_A_CHILD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_setting_that_is_missing_is_not_remembered(environ: pytest.MonkeyPatch) -> None:
    """Once it is set, the next call works: there is nothing to wait for."""
    shared = _SharedValidator()
    environ.delenv("AZURE_APP_CLIENT_ID")
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            shared.get()
    environ.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
    shared.get().close()


def test_an_api_that_migrates_has_one_validator() -> None:
    """A key of a v2.0 issuer verifies v1.0 tokens of the same tenant, where both issuers are accepted."""
    v1 = f"https://sts.windows.net/{TENANT}/"
    other = "99999999-8888-7777-6666-555555555555"
    for published in (ISSUER, ISSUER_TEMPLATE):
        key = KEY.jwk(issuer=published)
        for options in (
            {"issuer": [ISSUER, v1]},
            {"issuer": [ISSUER_TEMPLATE, V1_ISSUER_TEMPLATE], "tenants": ["*"]},
        ):
            both = validator(key, **options)
            assert both.validate(KEY.token())["iss"] == ISSUER
            assert both.validate(KEY.token(iss=v1, ver="1.0"))["iss"] == v1
            assert _code(both, KEY.token(iss=f"https://sts.windows.net/{other}/")) == "wrong_issuer"
        assert _code(validator(key), KEY.token(iss=v1)) == "wrong_issuer", "it is not accepted"
        assert _code(validator(key, issuer=v1), KEY.token()) == "wrong_issuer"
    assert _code(validator(KEY.jwk(issuer=v1), issuer=[ISSUER, v1]), KEY.token()) == "wrong_issuer"


@pytest.mark.parametrize("turned", [False, True])
def test_a_key_that_is_listed_twice_serves_both_issuers(*, turned: bool) -> None:
    """Independent of the order in the set."""
    issuers = [ISSUER, "https://login.example/a", "https://login.example/b"]
    entries = [KEY.jwk(issuer=issuer) for issuer in issuers[:2]]
    both = validator(*(reversed(entries) if turned else entries), issuer=issuers)
    assert [both.validate(KEY.token(iss=issuer))["iss"] for issuer in issuers[:2]] == issuers[:2]
    assert _code(both, KEY.token(iss=issuers[2])) == "wrong_issuer"


def test_importing_loads_no_server() -> None:
    """`import entra_fast.validate` stays light: no aiohttp, no uvloop, no emulator."""
    script = "import sys, entra_fast.validate; print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "uvloop", "pydantic", "cryptography", "yaml"} & set(eval(run.stdout))


# --- claims ----------------------------------------------------------------------------------------------


def test_claims_of_an_application() -> None:
    """A machine-to-machine token."""
    claims = claims_of(roles=["access_as_application", "writer"])
    assert claims.is_app
    assert claims.roles == ("access_as_application", "writer")
    assert (claims.scopes, claims.groups, claims.name) == ((), (), None)
    assert (claims.expires_at, claims.issued_at) == (NOW + 3900, NOW)
    assert (claims.tenant_id, claims.object_id) == (TENANT, "dddddddd-0000-0000-0000-000000000000")
    assert claims.authorized_party == "cccccccc-0000-0000-0000-000000000000"


def test_claims_of_a_user() -> None:
    """An on-behalf-of token."""
    claims = claims_of(
        idtyp=ABSENT, roles=ABSENT, scp="defaultaccess  custom", groups=["g1", "g2"], name="Kari"
    )
    assert not claims.is_app
    assert claims.scopes == ("defaultaccess", "custom")
    assert (claims.roles, claims.groups, claims.name) == ((), ("g1", "g2"), "Kari")
    assert not claims.has_groups_overage


def test_claims_of_a_v1_token() -> None:
    """v1.0 tokens say `appid` where v2.0 tokens say `azp`."""
    assert claims_of(azp=ABSENT, appid="v1-client").authorized_party == "v1-client"
    assert claims_of(appid="v1-client").authorized_party == "cccccccc-0000-0000-0000-000000000000"
    assert claims_of(azp=ABSENT).authorized_party is None


def test_helpers_do_not_trust_types() -> None:
    """A claim of an unexpected type is treated as absent; it is not converted."""
    odd = claims_of(
        roles="admin", scp=["admin"], groups={"g": 1}, name=7, oid=None, tid=["t"], idtyp=["app"], azp=True
    )
    assert (odd.roles, odd.scopes, odd.groups) == ((), (), ())
    assert (odd.name, odd.object_id, odd.tenant_id, odd.authorized_party) == (None, None, None, None)
    assert not odd.is_app
    assert claims_of(roles=["a", 1, None, ["b"]]).roles == ("a",)
    for role in ("admin", "a", "d"):
        with pytest.raises(Forbidden):
            odd.require(role=role)


@pytest.mark.parametrize(
    "overage",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}},
        {"hasgroups": True},
    ],
    ids=["names", "implicit"],
)
def test_groups_overage(overage: dict[str, Any]) -> None:
    """Too many groups to list: recognised, and a missing group is not reported as missing."""
    claims = claims_of(groups=ABSENT, **overage)
    assert (claims.groups, claims.has_groups_overage) == ((), True)
    assert ClaimsView(json.dumps(overage)).has_groups_overage
    assert not ClaimsView(json.dumps(dict.fromkeys(overage))).has_groups_overage
    with pytest.raises(Forbidden) as caught:
        claims.require(group=GROUP)
    assert caught.value.code == "groups_overage"


@pytest.mark.parametrize("nothing", [{}, {"role": None}, {"role": None, "scope": "read"}, {"role": ""}])
def test_requiring_nothing_is_a_mistake(nothing: dict[str, Any]) -> None:
    """`require(role=settings.role)` without the setting must not allow every caller, whatever else is
    named."""
    with pytest.raises((TypeError, ValueError), match=r"name a condition|is a setting missing"):
        claims_of(roles=["reader"], scp="read").require(**nothing)


def test_claims_can_be_copied_and_not_pickled() -> None:
    """They are immutable; and what is unpickled has not been verified."""
    claims = claims_of(roles=["reader"])
    assert copy.copy(claims) is copy.deepcopy(claims) is claims
    with pytest.raises(TypeError, match="as_dict"):
        pickle.dumps(claims)


def test_require() -> None:
    """All that is named must be there; the code says what was missing, and a framework answers 403. A whole
    requirement is accepted, too (tests/unit/test_require.py)."""
    claims = claims_of(roles=["reader"], scp="read write", groups=[GROUP], idtyp=ABSENT)
    other = GROUP.replace("a", "b")
    claims.require(role="reader", scope="write", group=GROUP)
    claims.require(Require(role="writer") | Require(scope="read"))
    claims.require(any_of=[Require(role="writer"), Require(scope="read")])
    wanted: tuple[tuple[dict[str, Any], str], ...] = (
        ({"role": "writer"}, "role_missing"),
        ({"role": "read"}, "role_missing"),
        ({"scope": "rea"}, "scope_missing"),
        ({"group": other}, "group_missing"),
        ({"role": "reader", "scope": "admin"}, "scope_missing"),
        ({"role": "reader", "scope": "read", "group": other}, "group_missing"),
        ({"any_of": [Require(role="writer"), Require(scope="admin")]}, "role_missing"),
    )
    for conditions, code in wanted:
        with pytest.raises(Forbidden) as caught:
            claims.require(**conditions)
        assert caught.value.code == code
    with pytest.raises(TypeError):
        claims.require(Require(role="reader"), role="reader")
    with pytest.raises(TypeError):
        claims.require(role="reader", user=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        claims.require("reader")  # type: ignore[arg-type]


def test_claims_are_a_mapping() -> None:
    """All that a read-only dict can do."""
    claims, good = claims_of(), good_claims()
    assert isinstance(claims, Mapping)
    assert dict(claims) == good == {**claims}
    assert claims == good
    assert claims == claims_of()
    assert claims != {**good, "x": 1}
    assert claims != object()
    assert (list(claims), len(claims)) == (list(good), len(good))
    assert (claims.keys(), list(claims.values())) == (good.keys(), list(good.values()))
    assert list(claims.items()) == list(good.items())
    assert "aud" in claims
    assert "x" not in claims
    assert (claims.get("x"), claims.get("x", 1), claims.get("aud")) == (None, 1, AUDIENCE)
    for missing in ("x", "AUD", "", "\ud800"):
        assert missing not in claims
        with pytest.raises(KeyError):
            claims[missing]
    with pytest.raises(TypeError):
        hash(claims)


def test_pattern_matching() -> None:
    """`match` sees a mapping."""
    match claims_of():
        case {"idtyp": "app", "roles": [*roles], **rest}:
            assert (roles, rest["tid"]) == (["access_as_application"], TENANT)
        case _:
            pytest.fail("no mapping")


def test_claims_cannot_be_changed() -> None:
    """Claims are shared with the cache and between callers, so no returned value gives access to the
    original."""
    one, token = validator(), KEY.token(nested={"list": [1, {"a": 2}]})
    claims = one.validate(token)
    with pytest.raises(TypeError):
        claims["aud"] = "x"  # type: ignore[index]
    with pytest.raises(TypeError):
        del claims["aud"]  # type: ignore[attr-defined]
    for attribute in ("roles", "is_app", "expires_at", "anything"):
        with pytest.raises(AttributeError):
            setattr(claims, attribute, ("admin",))
    claims["nested"]["list"].append("x")
    claims["nested"]["list"][1]["a"] = "x"
    claims["roles"].append("admin")
    claims.as_dict()["roles"].append("admin")
    dict(claims)["nested"]["list"].clear()
    again = one.validate(token)
    assert one.stats()["cache_hits"] == 1
    for found in (claims, again):
        assert found["nested"] == {"list": [1, {"a": 2}]}
        assert found.roles == ("access_as_application",)
        with pytest.raises(Forbidden):
            found.require(role="admin")


def test_tokens_share_what_recurs_and_nothing_of_a_user() -> None:
    """Strings that the tokens of an application have in common exist once: issuer, audience, roles, names of
    claims. What belongs to a user does not outlive the dict."""
    key = signer()
    one = validator(key)
    made = {"roles": ["reader", "writer"], "oid": "some user", "custom": "some value"}
    first, second = (
        one.validate(key.token({**good_claims(), **made, "uti": str(number)})).as_dict()
        for number in range(2)
    )
    assert first["iss"] is second["iss"]
    assert first["aud"] is second["aud"]
    assert first["roles"] is not second["roles"]
    assert [a is b for a, b in zip(first["roles"], second["roles"], strict=True)] == [True, True]
    assert next(name for name in first if name == "custom") is next(
        name for name in second if name == "custom"
    )
    for name in ("oid", "custom"):
        assert first[name] == second[name]
        assert first[name] is not second[name]


def test_what_recurs_is_bounded_and_comes_from_verified_tokens_only() -> None:
    """Hundreds of other values and shapes displace a value that was kept. Tokens that were not verified
    neither add to what is kept nor get any of it."""
    key = signer()
    one = validator(key)

    def roles(*names: str) -> list[str]:
        token = key.token({**good_claims(), "roles": list(names)})
        found: list[str] = one.validate(token).as_dict()["roles"]
        return found

    kept = roles("kept role")[0]
    assert roles("kept role")[0] is kept
    many = [f"role {number}" for number in range(2000)]
    unverified = key.token({**good_claims(), "roles": many, "iss": "someone"})
    assert unverified_claims(unverified)["roles"] == many
    assert unverified_claims(unverified)["roles"][0] is not unverified_claims(unverified)["roles"][0]
    assert roles("kept role")[0] is kept, "a token that was not verified has displaced it"
    for start in range(0, len(many), 100):
        roles(*many[start : start + 100])
    assert roles("kept role")[0] is not kept
    assert roles("x" * 129)[0] is not roles("x" * 129)[0], "a long value is kept"
    for number in range(100):  # more shapes than are kept
        token = key.token({**good_claims(), f"claim {number}": number})
        assert one.validate(token).as_dict()[f"claim {number}"] == number
    wide = {f"claim {number}": number for number in range(100)}
    assert one.validate(key.token({**good_claims(), **wide})).as_dict() == {**good_claims(), **wide}


def test_threads_that_want_claims_at_once_get_the_right_ones() -> None:
    """None waits for another, and none gets another's values."""
    key = signer()
    one = validator(key)
    made = [one.validate(key.token({**good_claims(), "azp": f"client {number}"})) for number in range(8)]

    def work(number: int) -> bool:
        return all(made[number].as_dict()["azp"] == f"client {number}" for _ in range(2000))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_repr_of_claims_holds_no_values() -> None:
    """Claims are personal data, and reprs end in logs."""
    text = repr(claims_of(name="Kari Nordmann", **{"x\n\x1b[31m": 1}))
    assert "name" in text
    assert "Kari" not in text
    assert AUDIENCE not in text
    assert text.isprintable()
    assert "Kari" not in str(claims_of(name="Kari Nordmann"))


# --- many tokens -----------------------------------------------------------------------------------------


def kinds(results: list[Claims | EntraFastError]) -> list[Any]:
    return [result.code if isinstance(result, EntraFastError) else result["n"] for result in results]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 1001])
def test_validate_many(count: int) -> None:
    """Results come in the order of the tokens; a failure is a value and loses nothing."""
    special: dict[int, tuple[str | bytes, str]] = {
        3: ("junk", "not_a_jwt"),
        4: (_expired(), "token_expired"),
        5: (b"\xff.b.c", "not_a_jwt"),
        6: ("\ud800", "not_a_jwt"),
    }
    tokens: list[str | bytes] = []
    expected: list[Any] = []
    for n in range(count):
        token, outcome = special.get(n % 10) or (_numbered(n % 50), n % 50)
        tokens.append(token)
        expected.append(outcome)
    one = validator()
    assert kinds(one.validate_many(tokens)) == expected
    assert kinds(one.validate_many(tuple(tokens))) == expected


@functools.cache
def _numbered(n: int) -> str:
    return KEY.token(n=n)


@functools.cache
def _expired() -> str:
    return KEY.token(exp=1)


def test_validate_many_refuses_other_types() -> None:
    """A value that is neither str nor bytes is a mistake of the program."""
    for tokens in ([None], [KEY.token(), 7], "a.b.c", None, 7):
        with pytest.raises(TypeError):
            validator().validate_many(tokens)  # type: ignore[arg-type]


async def test_validate_many_fetches_keys_once(server: KeyServer) -> None:
    """One refresh serves all tokens that wait for a key, whatever else is among them."""
    junk = ["", "junk", "a.b.c"]
    tokens = [*junk, *(_numbered(n) for n in range(20)), KEY.token(header={"kid": "x"})]
    expected = ["not_a_jwt"] * 3 + [*range(20)] + ["unknown_key"]
    with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
        assert kinds(one.validate_many(tokens)) == expected
        assert kinds(one.validate_many(tokens)) == expected
        assert server.fetches() <= 2
    async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as other:
        assert kinds(await other.validate_many(tokens)) == expected
        assert kinds(await other.validate_many(tokens)) == expected
    assert server.fetches() <= 4


def _forged() -> Signer:
    """Another key under the name of the published one."""
    return signer("forged").named(KEY.kid)


async def test_a_new_key_under_an_old_kid(server: KeyServer) -> None:
    """A provider that was deployed again uses the same key id: one refresh, and its tokens are accepted. A
    forged signature after that causes one more, and no further ones."""
    with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
        one.validate(KEY.token())
        server.publish(jwks(_forged()))
        assert one.validate(_forged().token())["iss"] == ISSUER
        assert server.fetches() == 2
        assert [_code(one, KEY.token(uti=str(n))) for n in range(5)] == ["signature_invalid"] * 5
        assert server.fetches() == 3
    server.publish(jwks(KEY))
    async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as other:
        await other.validate(KEY.token())
        server.publish(jwks(_forged()))
        assert (await other.validate(_forged().token()))["iss"] == ISSUER
        assert server.fetches() == 5
        for number in range(5):
            with pytest.raises(InvalidToken, match="signature is invalid"):
                await other.validate(KEY.token(uti=str(number)))
        assert server.fetches() == 6


async def test_one_new_key_after_another(server: KeyServer) -> None:
    """A fetch that has brought the key of its token does not delay the next one."""
    known = [KEY]
    server.publish(jwks(*known))
    with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as other:
            for name in ("key-2", "key-3", "key-4"):
                one.validate(KEY.token())
                await other.validate(KEY.token())
                known.append(signer(name))
                server.publish(jwks(*known))
                one.validate(known[-1].token())
                await other.validate(known[-1].token())
    assert server.fetches() == 8


async def test_only_tokens_that_could_pass_cause_a_fetch(server: KeyServer) -> None:
    """For another audience, of another issuer or expired, a token spends nothing, whatever signed it."""
    tokens = [
        key.token(**changes)
        for key in (_forged(), signer("unknown"))
        for changes in ({"aud": "other"}, {"iss": "https://other"}, {"exp": int(NOW) - 61}, {"exp": ABSENT})
    ]
    server.publish(jwks(KEY))
    with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
        one.validate(KEY.token())
        codes = [_code(one, token) for token in tokens]
        assert codes == ["signature_invalid"] * 4 + ["unknown_key"] * 4
        assert [
            error.code for error in one.validate_many(tokens) if isinstance(error, EntraFastError)
        ] == codes
        assert server.fetches() == 1
        server.publish(jwks(_forged(), signer("unknown")))
        passing = one.validate_many([_forged().token(), *tokens, signer("unknown").token()])
        assert [isinstance(result, Claims) for result in passing] == [True, *[False] * 8, True]
        assert server.fetches() == 2, "one fetch brought both keys"
    async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as other:
        await other.validate(_forged().token())
        before = server.fetches()
        for token in (KEY.token(aud="other"), signer("stranger").token(exp=1)):
            with pytest.raises(InvalidToken):
                await other.validate(token)
        assert server.fetches() == before


def test_a_flood_of_failed_signatures_leaves_the_budget_of_unknown_keys(server: KeyServer) -> None:
    """And the other way round: each kind of attack can delay only its own kind of new key."""
    with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
        one.validate(KEY.token())
        assert _code(one, _forged().token()) == "signature_invalid"
        server.publish(jwks(KEY, signer("key-2")))
        one.validate(signer("key-2").token())
        assert _code(one, signer("stranger").token()) == "unknown_key"
        assert _code(one, _forged().token(uti="2")) == "signature_invalid"
        assert server.fetches() == 4
        assert _code(one, signer("stranger").token(uti="2")) == "unknown_key"
        assert server.fetches() == 4


async def test_validate_many_without_keys(server: KeyServer) -> None:
    """Without keys every result says so, with the reason, also where no token is readable."""
    server.fail(Answer(status=500))
    rules = RefreshRules(first_retry=3600, last_retry=3600)
    for tokens in (["junk", ""], ["junk", _numbered(1)], [_numbered(1)]):
        with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, refresh=rules) as one:
            results = one.validate_many(tokens)
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, refresh=rules) as other:
            results += await other.validate_many(tokens)
        assert all(isinstance(result, KeysUnavailable) for result in results)
        assert all("answered 500" in str(result) for result in results)


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Validator, AsyncValidator])
async def test_after_the_first_token_the_native_function_verifies(kind: Any) -> None:
    """What the first accepted token has to begin is not asked about again: that would cost each token time. A
    rejected one begins nothing."""
    one = kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: NOW)
    native = one._parts[0].native.validate
    for token, expected in ((KEY.token(aud="other"), False), (KEY.token(), True), (KEY.token(n=1), True)):
        with contextlib.suppress(InvalidToken):
            claims = one.validate(token)
            assert (await claims if inspect.isawaitable(claims) else claims)["aud"] == AUDIENCE
        assert (one._verify == native) is expected


@pytest.mark.parametrize("kind", [Validator, AsyncValidator])
async def test_fixed_keys_can_be_taken_away(kind: Any) -> None:
    """As `entra_fast.testing` does: without keys no token passes, not even one that has been verified."""
    one = kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: NOW)

    async def code(key: Signer) -> str:
        try:
            claims = one.validate(key.token())
            return str((await claims if inspect.isawaitable(claims) else claims)["aud"])
        except EntraFastError as error:
            return error.code

    assert await code(KEY) == AUDIENCE
    one._use_keys(None)
    assert await code(KEY) == "keys_unavailable"
    one._use_keys(KeySet(jwks(signer("key-2"))))
    assert [await code(KEY), await code(signer("key-2"))] == ["unknown_key", AUDIENCE]


def test_many_threads() -> None:
    """One validator for all threads."""
    one = validator(cache_entries=10)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: one.validate(_numbered(n % 50))["n"], range(1000)))
    assert results == [n % 50 for n in range(1000)]


def test_a_large_token_of_an_unknown_key(server: KeyServer) -> None:
    """Larger tokens than by default, where the policy allows them, refresh the keys like any other."""
    late = signer("key-2")
    with Validator(
        ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW, max_token_bytes=200_000
    ) as one:
        one.validate(KEY.token())
        server.publish(jwks(KEY, late))
        one.validate(late.token(pad="x" * 100_000))


def test_closed_validator(server: KeyServer) -> None:
    """After `close` tokens of known keys are still verified; others are rejected at once, and keys are no
    longer fetched for them."""
    with Validator(
        ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW, refresh=RefreshRules(max_wait=1e6)
    ) as one:
        one.validate(KEY.token())
    one.validate(KEY.token(n=1))
    server.publish(jwks(KEY, signer("key-2")))
    with pytest.raises(InvalidToken) as caught:
        one.validate(signer("key-2").token())
    assert caught.value.code == "unknown_key"
    assert server.fetches() == 1


async def test_introspection(server: KeyServer) -> None:
    """The body of an introspection answer; it never raises, and `ready` says whether there are keys."""
    server.fail(Answer(status=500))
    one = AsyncValidator(
        ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW, refresh=RefreshRules(first_retry=0.01)
    )
    assert (one.ready, one.not_ready_reason) == (False, "keys are not being fetched")
    async with one:
        body = json.loads(await one.introspect(KEY.token()))
        assert (body["active"], list(body)) == (False, ["active", "error"])
        assert "keys of the token issuer are not available: " in body["error"]
        assert "answered 500" in body["error"]
        assert not one.ready
        assert "answered 500" in (one.not_ready_reason or "")
        server.publish(jwks(KEY))
        while not json.loads(await one.introspect(KEY.token()))["active"]:
            pass  # a retry in the background is under way
        assert one.not_ready_reason is None
        assert json.loads(await one.introspect(KEY.token())) == {"active": True, **good_claims()}
        assert json.loads(await one.introspect("junk")) == {"active": False, "error": "token is not a JWT"}
        assert one.stats()["keys"] == 1


async def test_a_fixed_key_set_on_a_loop() -> None:
    """Nothing is fetched, and it is ready from the start."""
    async with AsyncValidator(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=lambda: NOW) as one:
        assert one.ready
        await one.validate(KEY.token())
        with pytest.raises(InvalidToken):
            await one.validate(signer("key-2").token())


# --- looking and explaining ------------------------------------------------------------------------------


def test_explain_a_good_token() -> None:
    """Each check in turn, with its value."""
    rows = validator().explain(KEY.token())
    assert [row["check"] for row in rows] == [
        "form", "header", "key", "signature", "claims", "issuer", "audience", "required claims", "expiry",
        "not before", "issued at", "age",
    ]  # fmt: skip
    assert all(row["passed"] is True for row in rows)
    values = {row["check"]: row["value"] for row in rows}
    assert (values["issuer"], values["audience"]) == (ISSUER, AUDIENCE)
    assert "key-1" in values["key"]


def test_explain_blames_the_claim_that_is_wrong() -> None:
    """A malformed time fails its own check, and the others are made."""
    for claim, check in (("exp", "expiry"), ("nbf", "not before"), ("iat", "issued at")):
        rows = {row["check"]: row for row in validator().explain(KEY.token(**{claim: "x"}))}
        assert {name for name, row in rows.items() if row["passed"] is False} == {check}
        assert (rows[check]["code"], rows[check]["message"]) == (
            "claim_malformed",
            f"token has a malformed claim '{claim}'",
        )
        assert rows["age"]["passed"] is (None if claim == "iat" else True)


def test_explain_goes_on_after_a_failure() -> None:
    """Every failure is listed, not only the first one, with both values that were compared."""
    token = KEY.token(aud="other", iss="https://evil.example", exp=1)
    rows = {row["check"]: row for row in validator().explain(token[:-4] + "AAAA")}
    assert rows["signature"]["code"] == "signature_invalid"
    assert (rows["issuer"]["expected"], rows["issuer"]["actual"]) == (ISSUER, "https://evil.example")
    assert (rows["audience"]["expected"], rows["audience"]["actual"]) == (AUDIENCE, "other")
    assert rows["expiry"]["code"] == "token_expired"
    assert rows["age"]["passed"] is True


@pytest.mark.parametrize("token", ["", "junk", "a.b.c", "....", "\ud800", "x" * 70_000, b"\xff\xfe"])
def test_explain_what_is_no_token(token: str | bytes) -> None:
    """Checks that could not be made are marked as such, and nothing passes."""
    rows = validator().explain(token)
    assert any(row["passed"] is False for row in rows)
    assert any(row["passed"] is None for row in rows)
    assert all(row["passed"] is not True or row["check"] == "form" for row in rows)


def test_explain_without_keys(server: KeyServer) -> None:
    """Explaining fetches nothing."""
    one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url)
    rows = {row["check"]: row for row in one.explain(KEY.token())}
    assert rows["key"]["code"] == "keys_unavailable"
    assert server.requests == []


def test_unverified_looks() -> None:
    """Header and claims of an unverified token, for display only."""
    token = f"{segment({'alg': 'none'})}.{segment({'a': 1})}."
    assert (unverified_header(token), unverified_claims(token)) == ({"alg": "none"}, {"a": 1})
    assert unverified_claims(token.encode()) == {"a": 1}
    for bad in ("", "a.b", f"{segment('[]')}.{segment('[]')}."):
        for look in (unverified_header, unverified_claims):
            with pytest.raises(InvalidToken):
                look(bad)


# --- errors ----------------------------------------------------------------------------------------------

ERRORS = [
    InvalidToken("wrong_issuer", "token has the wrong issuer", "a", "b"),
    InvalidToken("token_expired", "token is expired"),
    Forbidden("role_missing", "token lacks the role 'x'"),
    KeysUnavailable("keys_unavailable", "a sentence"),
    ConfigurationError("setting_missing", "a sentence", "AZURE_APP_CLIENT_ID"),
    ProviderError("provider_refused", "a sentence", 400, "invalid_grant", 5, {"error_codes": [1]}),
    HttpFailure("dns_failed", "a sentence"),
    DiscoveryError("discovery_failed", "a sentence"),
    EntraFastError("target_invalid", "a sentence"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_can_be_pickled(error: EntraFastError) -> None:
    """An error survives the way back from another process, with all that it says."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert (vars(other), other.args, str(other)) == (vars(error), error.args, str(error))


def test_errors_of_the_native_module_can_be_pickled() -> None:
    """Those that really were raised, too."""
    with pytest.raises(InvalidToken) as caught:
        validator().validate(KEY.token(iss="x"))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.code, error.expected, error.actual) == ("wrong_issuer", ISSUER, "x")
    with pytest.raises(KeysUnavailable) as no_keys:
        KeySet("{}")
    assert pickle.loads(pickle.dumps(no_keys.value)).code == "key_set_invalid"
    with pytest.raises(Forbidden) as forbidden:
        claims_of().require(role="x")
    assert pickle.loads(pickle.dumps(forbidden.value)).code == "role_missing"


def test_every_code_of_the_table_can_be_met() -> None:
    """Each code that is documented for tokens is raised by some token."""
    good, strict = validator(), validator(max_age=10, tenants=["99999999-8888-7777-6666-555555555555"])
    met = {
        "token_too_large": (good, "x" * 70_000),
        "not_a_jwt": (good, "x"),
        "token_encrypted": (good, "...."),
        "header_not_accepted": (good, KEY.token(header={"crit": []})),
        "type_not_accepted": (good, KEY.token(header={"typ": "x"})),
        "algorithm_not_allowed": (good, KEY.token(header={"alg": "none"})),
        "unknown_key": (good, signer("key-2").token()),
        "signature_invalid": (good, KEY.token()[:-4] + "AAAA"),
        "claims_not_an_object": (good, KEY.token("[]")),
        "claim_missing": (good, KEY.token(aud=ABSENT)),
        "claim_malformed": (good, KEY.token(exp="x")),
        "wrong_issuer": (good, KEY.token(iss="x")),
        "wrong_audience": (good, KEY.token(aud="x")),
        "token_expired": (good, KEY.token(exp=1)),
        "token_not_yet_valid": (good, KEY.token(nbf=NOW + 100)),
        "issued_in_the_future": (good, KEY.token(iat=NOW + 100)),
        "token_too_old": (validator(max_age=10), KEY.token(iat=NOW - 100)),
        "tenant_not_allowed": (strict, KEY.token()),
    }
    for code, (one, token) in met.items():
        with pytest.raises(InvalidToken) as caught:
            one.validate(token)
        assert caught.value.code == code
        template = entra_fast._native.ERROR_CODES[code].split("{}", maxsplit=1)[0].rstrip(" '")
        assert str(caught.value).startswith(template)
    assert met.keys() | {"keys_unavailable"} == entra_fast._native.ERROR_CODES.keys()


def test_the_stub_says_what_the_module_says() -> None:
    """Editors read the stub, `help()` reads the module: each docstring of `Claims` is the same in both."""
    stub = ast.parse(Path(entra_fast._native.__file__).with_name("_native.pyi").read_text())
    declared = next(node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "Claims")
    own = {
        node.name: " ".join((ast.get_docstring(node) or "").split())
        for node in declared.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and node.name not in {"get", "keys"}
    }
    assert len(own) == 23
    for name, text in own.items():
        assert text == " ".join(getattr(Claims, name).__doc__.split()), name


@pytest.mark.parametrize("issued", [None, True, "1", [1], {}], ids=repr)
def test_an_issued_at_that_is_no_time_is_none(issued: object) -> None:
    """The claim is optional, and of no type in particular where nobody has verified it."""
    assert ClaimsView(json.dumps({"exp": 1.0, "iat": issued})).issued_at is None
    assert ClaimsView(json.dumps({"exp": 1.0})).issued_at is None
