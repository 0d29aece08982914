"""What becomes of a validator's arguments: defaults, precedence, and how requests are made."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from entra_fast import _arguments, _memory
from entra_fast._provider.http_rules import HttpResponse
from entra_fast.validate import (
    ANY_AUDIENCE,
    AsyncValidator,
    ConfigurationError,
    EntraFastError,
    HttpOptions,
    InvalidToken,
    Issuer,
    KeysUnavailable,
    RefreshRules,
    Validator,
)
from support.key_server import DISCOVERY_PATH, KEYS_PATH, Answer, KeyServer
from support.tokens import ABSENT, AUDIENCE, ISSUER, NOW, OTHER_TENANT, TENANT, jwks, signer

KEY, OTHER_KEY = signer(), signer("key-1", bits=2049)
OURS, THEIRS = "https://ours.example", "https://theirs.example"
GATEWAY = HttpOptions(headers={"x-gateway": "validator"})
OWN = HttpOptions(headers={"x-gateway": "issuer"})
KINDS = pytest.mark.parametrize("kind", [Validator, AsyncValidator], ids=["threads", "asyncio"])


def clock() -> float:
    return NOW


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    """A provider with a discovery document, and an environment that names nothing but that and a client."""
    for name in ("ISSUER", "JWKS_URI"):
        monkeypatch.delenv(f"AZURE_OPENID_CONFIG_{name}", raising=False)
    with KeyServer(jwks(KEY)) as running:
        document = {
            "issuer": running.issuer,
            "jwks_uri": running.keys_url,
            "token_endpoint": running.base_url + "/token",
        }
        running.answers[DISCOVERY_PATH] = Answer(json.dumps(document))
        monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
        monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", running.discovery_url)
        yield running


class Lent:
    """An HTTP client of the caller's."""

    def __init__(self, server: KeyServer) -> None:
        self._server = server
        self.asked: list[str] = []

    async def get(self, url: str, *, accept: str = "") -> HttpResponse:
        self.asked.append(url.removeprefix(self._server.base_url))
        answer = self._server.answers[self.asked[-1]]
        assert isinstance(answer, Answer)
        return HttpResponse(200, {}, str(answer.body).encode())

    async def aclose(self) -> None:
        raise AssertionError("it belongs to the caller")


async def finished(value: Any) -> Any:
    """What was returned, or what it becomes."""
    return await value if inspect.isawaitable(value) else value


async def close(validator: Any) -> None:
    if isinstance(validator, Validator):
        validator.close()
    else:
        await validator.aclose()


def values(server: KeyServer) -> list[tuple[str, str | None]]:
    """The header field `x-gateway` of each request."""
    return [
        (path, headers["x-gateway"]) for path, headers in zip(server.requests, server.headers, strict=True)
    ]


async def code(validator: Any, token: str) -> str:
    """`ok`, or the code of the error."""
    try:
        await finished(validator.validate(token))
    except EntraFastError as error:
        return error.code
    return "ok"


WAYS: dict[str, Callable[[Any, KeyServer, Any], Any]] = {
    "keys": lambda kind, server, http: kind(
        server.issuer, AUDIENCE, jwks_uri=server.keys_url, http=http, clock=clock
    ),
    "from_env": lambda kind, server, http: kind.from_env(http=http, clock=clock),
    "from_discovery": lambda kind, server, http: kind.from_discovery(
        server.discovery_url, AUDIENCE, http=http, clock=clock
    ),
    "issuers": lambda kind, server, http: (
        kind.from_issuers
        if kind is AsyncValidator
        else lambda issuers, audience, **rest: kind(None, audience, issuers=issuers, **rest)
    )([Issuer(discovery=server.discovery_url)], AUDIENCE, http=http, clock=clock),
}


@KINDS
@pytest.mark.parametrize("way", WAYS)
async def test_options_of_requests_hold_for_documents_and_keys(
    server: KeyServer, kind: Any, way: str
) -> None:
    """However a validator is made: what a gateway demands of each request is sent with each."""
    validator = await finished(WAYS[way](kind, server, GATEWAY))
    assert await code(validator, KEY.token(iss=server.issuer)) == "ok"
    paths = [KEYS_PATH] if way == "keys" else [DISCOVERY_PATH, KEYS_PATH]
    assert values(server) == [(path, "validator") for path in paths]
    await close(validator)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_is_lent_makes_all_requests(server: KeyServer, way: str) -> None:
    """However a validator is made; and it is left open."""
    client = Lent(server)
    validator = await finished(WAYS[way](AsyncValidator, server, client))
    assert await code(validator, KEY.token(iss=server.issuer)) == "ok"
    assert client.asked == ([KEYS_PATH] if way == "keys" else [DISCOVERY_PATH, KEYS_PATH])
    assert server.requests == []
    await close(validator)


@KINDS
async def test_an_issuer_s_own_options_go_before_the_validator_s(server: KeyServer, kind: Any) -> None:
    """For its document and for its keys; other issuers of the same validator have the validator's."""
    with KeyServer(jwks(OTHER_KEY)) as second:
        document = {"issuer": second.issuer, "jwks_uri": second.keys_url}
        second.answers[DISCOVERY_PATH] = Answer(json.dumps(document))
        issuers = [
            Issuer(discovery=server.discovery_url, http=OWN),
            Issuer(discovery=second.discovery_url),
        ]
        if kind is Validator:
            validator: Any = Validator(None, AUDIENCE, issuers=issuers, http=GATEWAY, clock=clock)
        else:
            validator = await AsyncValidator.from_issuers(issuers, AUDIENCE, http=GATEWAY, clock=clock)
        assert await code(validator, KEY.token(iss=server.issuer)) == "ok"
        assert await code(validator, OTHER_KEY.token(iss=second.issuer)) == "ok"
        assert values(server) == [(DISCOVERY_PATH, "issuer"), (KEYS_PATH, "issuer")]
        assert values(second) == [(DISCOVERY_PATH, "validator"), (KEYS_PATH, "validator")]
        await close(validator)


@KINDS
async def test_an_issuer_that_is_named_takes_only_keys_from_its_document(
    server: KeyServer, kind: Any
) -> None:
    """Every name counts, and the document's own issuer, which may be any, is not accepted besides."""
    document = {"issuer": "https://elsewhere.example", "jwks_uri": server.keys_url}
    server.answers[DISCOVERY_PATH] = Answer(json.dumps(document))
    issuers = [Issuer(issuer=[OURS, THEIRS], discovery=server.discovery_url)]
    if kind is Validator:
        validator: Any = Validator(None, AUDIENCE, issuers=issuers, clock=clock)
    else:
        validator = await AsyncValidator.from_issuers(issuers, AUDIENCE, clock=clock)
    for issuer, expected in ((OURS, "ok"), (THEIRS, "ok"), (document["issuer"], "wrong_issuer")):
        assert await code(validator, KEY.token(iss=issuer)) == expected
    await close(validator)


@KINDS
@pytest.mark.parametrize("url", ["ftp://x.example", "http://x.example/keys", "", "x"])
async def test_a_document_that_must_not_be_requested(kind: Any, url: str) -> None:
    """Its URL is the setting that is wrong, and nothing is sent."""
    with pytest.raises(ConfigurationError) as caught:
        await finished(kind.from_discovery(url, AUDIENCE))
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", "url")
    assert caught.value.message.startswith("the URL of the discovery document ")


@KINDS
async def test_a_document_that_is_refused(server: KeyServer, kind: Any) -> None:
    """The sentence says which answer came from where."""
    server.answers[DISCOVERY_PATH] = Answer(status=404)
    with pytest.raises(KeysUnavailable, match="the discovery document's URL") as caught:
        await finished(kind.from_discovery(server.discovery_url, AUDIENCE))
    assert caught.value.code == "keys_unavailable"
    assert "404" in caught.value.message
    server.answers[DISCOVERY_PATH] = Answer("{}")
    with pytest.raises(KeysUnavailable) as unusable:
        await finished(kind.from_discovery(server.discovery_url, AUDIENCE))
    assert unusable.value.message.endswith(f" ({server.discovery_url})")


@KINDS
async def test_variables_that_are_wrong_show_when_a_validator_is_made(
    server: KeyServer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the thread or task that fetches would meet them; and not where nothing is fetched."""
    monkeypatch.setenv("ENTRA_FAST_CA_BUNDLE", "/nowhere/ca.pem")
    for way in WAYS.values():
        with pytest.raises(ConfigurationError) as caught:
            await finished(way(kind, server, None))
        assert caught.value.setting == "ENTRA_FAST_CA_BUNDLE"
    assert server.requests == []
    fixed = kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=clock)
    assert await code(fixed, KEY.token()) == "ok"


@KINDS
async def test_defaults(kind: Any) -> None:
    """A minute of leeway on each time; `iat` is required; any age; RS256 and nothing else."""
    validator = kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=clock)
    now = int(NOW)
    for changes, expected in (
        ({"exp": now - 59}, "ok"),
        ({"exp": now - 60}, "token_expired"),
        ({"nbf": now + 60}, "ok"),
        ({"nbf": now + 61}, "token_not_yet_valid"),
        ({"iat": now + 60}, "ok"),
        ({"iat": now + 61}, "issued_in_the_future"),
        ({"iat": ABSENT}, "claim_missing"),
        ({"sub": ABSENT, "nbf": ABSENT}, "ok"),
        ({"iat": 1, "nbf": 1}, "ok"),
    ):
        assert await code(validator, KEY.token(**changes)) == expected, changes
    assert await code(validator, KEY.using("PS256").token()) == "algorithm_not_allowed"
    assert await code(validator, KEY.using("RS384").token()) == "algorithm_not_allowed"


@KINDS
async def test_each_limit_is_the_caller_s(kind: Any) -> None:
    """Leeway, age, size and claims, to the second and to the byte."""
    now = int(NOW)

    def made(**options: Any) -> Any:
        return kind(ISSUER, AUDIENCE, jwks=jwks(KEY), clock=clock, **options)

    strict = made(leeway=0)
    assert await code(strict, KEY.token(exp=now + 1)) == "ok"
    assert await code(strict, KEY.token(exp=now)) == "token_expired"
    assert await code(strict, KEY.token(nbf=now + 1)) == "token_not_yet_valid"
    young = made(max_age=100, leeway=0)
    assert await code(young, KEY.token(iat=now - 100)) == "ok"
    assert await code(young, KEY.token(iat=now - 101)) == "token_too_old"
    token = KEY.token()
    assert await code(made(max_token_bytes=len(token)), token) == "ok"
    assert await code(made(max_token_bytes=len(token) - 1), token) == "token_too_large"
    demanding = made(required_claims=["sub"])
    assert await code(demanding, KEY.token(iat=ABSENT)) == "ok"
    assert await code(demanding, KEY.token(sub=ABSENT)) == "claim_missing"
    here = made(tenants=(tenant for tenant in [TENANT]))
    assert await code(here, KEY.token()) == "ok"
    assert await code(here, KEY.token(tid=OTHER_TENANT)) in ("tenant_not_allowed", "wrong_issuer")


@KINDS
async def test_each_issuer_s_own_tenants_go_before_the_validator_s(kind: Any) -> None:
    """And hold for that issuer alone."""
    issuers = [
        Issuer(issuer=f"{OURS}/{{tenantid}}", jwks=jwks(KEY), tenants=[OTHER_TENANT]),
        Issuer(issuer=f"{THEIRS}/{{tenantid}}", jwks=jwks(OTHER_KEY)),
    ]
    validator = kind(None, AUDIENCE, issuers=issuers, tenants=[TENANT], clock=clock)
    seen = {
        (issuer, tenant): await code(validator, key.token(iss=f"{issuer}/{tenant}", tid=tenant))
        for key, issuer in ((KEY, OURS), (OTHER_KEY, THEIRS))
        for tenant in (TENANT, OTHER_TENANT)
    }
    assert seen == {
        (OURS, TENANT): "tenant_not_allowed",
        (OURS, OTHER_TENANT): "ok",
        (THEIRS, TENANT): "ok",
        (THEIRS, OTHER_TENANT): "tenant_not_allowed",
    }


@pytest.mark.parametrize(
    ("algorithms", "verified"),
    [
        (["RS256", "PS256"], "RS256"),
        (["PS256", "RS256"], "PS256"),
        ({"RS256", "PS256"}, "RS256"),
        (frozenset({"PS384", "PS256"}), "PS256"),
        (("PS384", "PS256"), "PS384"),
        (dict.fromkeys(["PS256", "RS256"]).keys(), "RS256"),
    ],
    ids=["list", "turned list", "set", "frozen set", "tuple", "view"],
)
def test_a_key_without_an_algorithm_has_the_first_one(algorithms: Any, verified: str) -> None:
    """Of a set, which has no order, the first one in `ALGORITHMS`, whatever the hashes of its members are."""
    validator = Validator(ISSUER, AUDIENCE, jwks=jwks(KEY), algorithms=algorithms, clock=clock)
    accepted = []
    for name in ("RS256", "PS256", "PS384"):
        try:
            validator.validate(KEY.using(name).token())
        except InvalidToken:
            continue
        accepted.append(name)
    assert accepted == [verified]


def test_an_unknown_algorithm_in_a_set() -> None:
    """It is refused like one in a list."""
    for algorithms in ({"RS256", "HS256"}, ["RS256", "none"]):
        with pytest.raises(ConfigurationError) as caught:
            Validator(ISSUER, AUDIENCE, jwks=jwks(KEY), algorithms=algorithms)
        assert caught.value.setting == "algorithms"


@KINDS
def test_whether_every_token_has_an_audience(kind: Any) -> None:
    """Not where one issuer's tokens may be without, in whatever order the issuers are."""
    checked = Issuer(issuer=OURS, jwks=jwks(KEY))
    unchecked = Issuer(issuer=THEIRS, jwks=jwks(OTHER_KEY), audience=ANY_AUDIENCE)
    for issuers, expected in (
        ([checked], True),
        ([checked, unchecked], False),
        ([unchecked, checked], False),
    ):
        assert kind(None, AUDIENCE, issuers=issuers)._checks_audience is expected
    assert kind(OURS, ANY_AUDIENCE, jwks=jwks(KEY))._checks_audience is False
    assert kind(OURS, AUDIENCE, jwks=jwks(KEY))._checks_audience is True


@KINDS
def test_what_is_missing_is_named(kind: Any) -> None:
    """Code, setting and a sentence that names what to pass."""
    fixed = jwks(KEY)
    for arguments, setting, code in (
        ({"audience": AUDIENCE, "jwks": fixed}, "issuer", "setting_missing"),
        ({"issuer": ISSUER, "jwks": fixed}, "audience", "setting_missing"),
        ({"issuer": ISSUER, "audience": AUDIENCE}, "jwks_uri", "setting_missing"),
        ({"issuers": [Issuer(issuer=OURS, jwks=fixed)]}, "audience", "setting_missing"),
        ({"issuer": ISSUER, "audience": AUDIENCE, "jwks_uri": "ftp://x"}, "jwks_uri", "setting_invalid"),
        ({"issuer": 5, "audience": AUDIENCE, "jwks": fixed}, "issuer", "setting_invalid"),
        (
            {"issuer": ISSUER, "audience": AUDIENCE, "jwks": fixed, "cache_entries": "1"},
            "cache_entries",
            "setting_invalid",
        ),
        ({"issuer": ISSUER, "audience": ANY_AUDIENCE, "jwks": fixed}, "audience", "setting_invalid"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            kind(**arguments)
        assert (caught.value.code, caught.value.setting) == (code, setting)
        assert setting in caught.value.message


@KINDS
@pytest.mark.parametrize("setting", ["issuer", "audience", "algorithms", "tenants", "required_claims"])
def test_what_is_no_name_is_named(kind: Any, setting: str) -> None:
    """Of an issuer as of the validator: text, or several texts."""
    fixed: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks(KEY)}
    for wrong in (7, [None], [b"x"]):
        with pytest.raises(ConfigurationError) as of_validator:
            kind(**fixed | {setting: wrong})
        with pytest.raises(ConfigurationError) as of_issuer:
            kind(issuers=[Issuer(**fixed | {setting: wrong})])
        for error in (of_validator.value, of_issuer.value):
            assert (error.code, error.setting) == ("setting_invalid", setting)
            assert error.message == f"{setting} must be a string or several strings"


@KINDS
@pytest.mark.parametrize("name", ["jwks_uri", "jwks"])
async def test_keys_of_the_environment_are_not_replaced(server: KeyServer, kind: Any, name: str) -> None:
    """A provider of the environment has keys: others could be of another issuer."""
    with pytest.raises(ConfigurationError) as caught:
        await finished(kind.from_env(**{name: server.keys_url}))
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", name)
    assert "pass issuer as well" in caught.value.message


def test_the_size_of_the_cache_depends_on_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of its memory, and 128 MiB at most or where there is no limit."""
    mebibyte = 1 << 20
    for memory, size in ((None, 128), (256 * mebibyte, 32), (1024 * mebibyte, 128), (9000 * mebibyte, 128)):
        monkeypatch.setattr(_memory, "memory_limit", lambda memory=memory: memory)
        assert _arguments._default_cache_bytes.__wrapped__() == size * mebibyte


def test_limits_of_the_cache_are_shared_out() -> None:
    """Rounded up for each issuer, so that none is without a cache; 0 is none at all."""
    issuers = [Issuer(issuer=OURS, jwks=jwks(KEY)), Issuer(issuer=THEIRS, jwks=jwks(OTHER_KEY))]
    for limit, cached in ((0, 0), (1, 2), (2, 2), (3, 4), (4, 4)):
        validator = Validator(None, AUDIENCE, issuers=issuers, cache_entries=limit, clock=clock)
        for number in range(20):
            validator.validate(KEY.token(iss=OURS, uti=str(number)))
            validator.validate(OTHER_KEY.token(iss=THEIRS, uti=str(number)))
        assert validator.stats()["cache_entries"] == cached


async def test_rules_for_refreshing_are_the_issuer_s_or_the_validator_s(server: KeyServer) -> None:
    """The issuer's own go first."""
    with KeyServer(jwks(OTHER_KEY)) as second:
        issuers = [
            Issuer(issuer=OURS, jwks_uri=server.keys_url),
            Issuer(issuer=THEIRS, jwks_uri=second.keys_url, refresh=RefreshRules(cool_down=3600.0)),
        ]
        validator = Validator(
            None, AUDIENCE, issuers=issuers, refresh=RefreshRules(cool_down=0.0), clock=clock
        )
        for issuer, key in ((OURS, KEY), (THEIRS, OTHER_KEY)):
            await asyncio.to_thread(validator.validate, key.token(iss=issuer))
            for stray in ("a", "b", "c"):
                assert await code(validator, key.named(stray).token(iss=issuer)) == "unknown_key"
        assert (server.fetches(), second.fetches()) == (4, 2)
        validator.close()
