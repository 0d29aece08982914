"""One validator for several issuers, each with a key set of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from entra_fast._provider.http_rules import HttpResponse
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken, KeysUnavailable
from entra_fast.validate import (
    ANY_AUDIENCE,
    AsyncValidator,
    Claims,
    HttpOptions,
    Issuer,
    KeySet,
    RefreshRules,
    Validator,
)
from support.key_server import Answer, KeyServer
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    ISSUER_TEMPLATE,
    NOW,
    OTHER_TENANT,
    TENANT,
    V1_ISSUER_TEMPLATE,
    Signer,
    jwks,
    signer,
)

OURS, THEIRS = "https://ours.example", "https://theirs.example"
SAME_KID = signer("key-1"), signer("key-1", bits=2049)
"""Keys of two issuers under one id."""


def clock() -> float:
    return NOW


def two(**options: Any) -> list[Issuer]:
    """Two issuers whose keys have the same id."""
    own, other = SAME_KID
    return [
        Issuer(issuer=OURS, jwks=jwks(own), **options),
        Issuer(issuer=THEIRS, jwks=jwks(other), **options),
    ]


Validate = Callable[[str], Awaitable[Claims]]
Make = Callable[..., Any]


class InThread:
    """A `Validator` with the methods of an `AsyncValidator`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.validator = Validator(*arguments, **options)

    async def validate(self, token: str) -> Claims:
        return await asyncio.to_thread(self.validator.validate, token)

    async def validate_many(self, tokens: list[str]) -> list[Claims | EntraFastError]:
        return await asyncio.to_thread(self.validator.validate_many, tokens)

    async def start(self) -> None:
        self.validator.start()

    async def aclose(self) -> None:
        self.validator.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.validator, name)


@pytest_asyncio.fixture(params=[AsyncValidator, InThread], ids=["asyncio", "threads"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes validators of one kind, at `NOW`."""
    made: list[Any] = []

    def one(**options: Any) -> Any:
        made.append(request.param(**{"audience": AUDIENCE, "clock": clock} | options))
        return made[-1]

    yield one
    for each in made:
        await each.aclose()


async def code(validator: Any, token: str) -> str:
    """The code of the error that a token is rejected with."""
    with pytest.raises(EntraFastError) as caught:
        await validator.validate(token)
    return caught.value.code


async def test_each_issuer_has_its_own_keys(make: Make) -> None:
    """The key set is chosen by `iss`, then the key by `kid`."""
    validator = make(issuers=two())
    own, other = SAME_KID
    for _ in range(2):  # the second time from the cache
        assert (await validator.validate(own.token(iss=OURS)))["iss"] == OURS
        assert (await validator.validate(other.token(iss=THEIRS)))["iss"] == THEIRS
    assert validator.stats()["cache_hits"] == 2


async def test_a_key_of_one_issuer_never_verifies_a_token_of_another(make: Make) -> None:
    """Whatever id it has, also where it is in the other set under another id, and also from the cache."""
    own, other = SAME_KID
    named = other.named("only-theirs")
    validator = make(
        issuers=[Issuer(issuer=OURS, jwks=jwks(own)), Issuer(issuer=THEIRS, jwks=jwks(other, named))]
    )
    assert await code(validator, other.token(iss=OURS)) == "signature_invalid"
    assert await code(validator, own.token(iss=THEIRS)) == "signature_invalid"
    assert await code(validator, named.token(iss=OURS)) == "unknown_key"
    await validator.validate(named.token(iss=THEIRS))
    assert await code(validator, named.token(iss=OURS)) == "unknown_key"


async def test_another_issuer_is_named_by_what_was_expected(make: Make) -> None:
    """Code `wrong_issuer`. What the token names is not repeated, because nobody has signed it."""
    validator = make(issuers=two())
    with pytest.raises(InvalidToken) as caught:
        await validator.validate(SAME_KID[0].token(iss="https://canary.example"))
    error = caught.value
    assert (error.code, error.message) == ("wrong_issuer", "token has the wrong issuer")
    assert (error.expected, error.actual) == (f"{OURS} or {THEIRS}", None)
    assert error.__context__ is None or error.__suppress_context__


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"iss": ABSENT}, "claim_missing"),
        ({"iss": 7}, "claim_malformed"),
        ({"iss": None}, "claim_malformed"),
        ({"iss": [OURS]}, "claim_malformed"),
        ({"iss": f"{OURS}/"}, "wrong_issuer"),
        ({"iss": OURS.upper()}, "wrong_issuer"),
        ({"iss": ""}, "wrong_issuer"),
    ],
)
async def test_issuers_compare_exactly(make: Make, changes: dict[str, Any], expected: str) -> None:
    """A token without an issuer, or with another spelling of it, is for none of them."""
    assert await code(make(issuers=two()), SAME_KID[0].token(**changes)) == expected


async def test_a_token_that_cannot_be_read(make: Make) -> None:
    """The same codes as with one issuer; the size is checked before anything is parsed."""
    validator = make(issuers=two(), max_token_bytes=5000)
    assert await code(validator, "a.b.c") == "not_a_jwt"
    assert await code(validator, "") == "not_a_jwt"
    assert await code(validator, SAME_KID[0].token(iss=OURS, more="x" * 5000)) == "token_too_large"
    own = SAME_KID[0]
    await make(issuers=two(), max_token_bytes=100_000).validate(own.token(iss=OURS, more="x" * 70_000))


async def test_a_token_must_be_text(make: Make) -> None:
    """As with one issuer: a `TypeError`."""
    validator = make(issuers=two())
    for token in (None, 7):
        with pytest.raises(TypeError):
            await validator.validate(token)
        with pytest.raises(TypeError):
            await validator.validate_many([token])


async def test_each_issuer_has_its_own_rules(make: Make) -> None:
    """Audience, algorithms and tenants are those of the issuer; what it leaves out is the validator's."""
    elliptic = signer("key-1", "ES256")
    validator = make(
        issuers=[
            Issuer(issuer=OURS, jwks=jwks(SAME_KID[0])),
            Issuer(issuer=THEIRS, jwks=jwks(elliptic), audience="theirs", algorithms=["ES256"]),
        ],
    )
    await validator.validate(SAME_KID[0].token(iss=OURS))
    await validator.validate(elliptic.token(iss=THEIRS, aud="theirs"))
    assert await code(validator, elliptic.token(iss=THEIRS)) == "wrong_audience"
    assert await code(validator, SAME_KID[0].token(iss=OURS, aud="theirs")) == "wrong_audience"
    assert await code(validator, elliptic.token(iss=OURS)) == "algorithm_not_allowed"


async def test_other_options_hold_for_all(make: Make) -> None:
    """For instance the leeway, and the size of the caches together."""
    validator = make(issuers=two(), leeway=0, cache_entries=3)
    assert await code(validator, SAME_KID[1].token(iss=THEIRS, exp=NOW - 1)) == "token_expired"
    for number in range(20):
        for own, issuer in zip(SAME_KID, (OURS, THEIRS), strict=True):
            await validator.validate(own.token(iss=issuer, uti=str(number)))
    assert validator.stats()["cache_entries"] <= 4
    uncached = make(issuers=two(), cache_entries=0)
    await uncached.validate(SAME_KID[0].token(iss=OURS))
    assert uncached.stats()["cache_entries"] == 0


async def test_many_tokens_of_several_issuers(make: Make) -> None:
    """Results are in the order of the tokens, errors are values."""
    validator = make(issuers=two())
    own, other = SAME_KID
    tokens = [
        other.token(iss=THEIRS, uti="0"),
        own.token(iss=OURS, uti="1"),
        own.token(iss="https://nobody.example"),
        other.token(iss=OURS),
        "no token",
        other.token(iss=THEIRS, uti="5"),
    ]
    results = await validator.validate_many(tokens)
    seen = [result["uti"] if isinstance(result, Claims) else result.code for result in results]
    assert seen == ["0", "1", "wrong_issuer", "signature_invalid", "not_a_jwt", "5"]
    assert await validator.validate_many([]) == []


async def test_introspection_of_several_issuers() -> None:
    """As the sidecar says it."""
    validator = AsyncValidator(audience=AUDIENCE, issuers=two(), clock=clock)
    assert json.loads(await validator.introspect(SAME_KID[1].token(iss=THEIRS)))["active"] is True
    for token, sentence in (
        (SAME_KID[0].token(iss="https://nobody.example"), "token has the wrong issuer"),
        (SAME_KID[0].token(iss=THEIRS), "token signature is invalid"),
        ("x", "token is not a JWT"),
    ):
        assert json.loads(await validator.introspect(token)) == {"active": False, "error": sentence}


async def test_an_explanation_is_the_chosen_issuer_s(make: Make) -> None:
    """For another issuer, the checks that need its policy or its keys could not be made."""
    validator = make(issuers=two())
    assert all(row["passed"] for row in validator.explain(SAME_KID[1].token(iss=THEIRS)))
    rows = {row["check"]: row for row in validator.explain(SAME_KID[1].token(iss="https://nobody.example"))}
    assert (rows["issuer"]["passed"], rows["issuer"]["code"]) == (False, "wrong_issuer")
    assert rows["issuer"]["expected"] == f"{OURS} or {THEIRS}"
    assert {name for name, row in rows.items() if row["passed"]} == {"form", "header", "claims"}
    assert {row["passed"] for row in rows.values()} == {True, False, None}
    assert rows["issuer"] == {
        "check": "issuer",
        "passed": False,
        "value": "",
        "code": "wrong_issuer",
        "message": "token has the wrong issuer",
        "expected": f"{OURS} or {THEIRS}",
        "actual": None,
    }
    nothing = {"passed": None, "value": "", "code": None, "message": None, "expected": None, "actual": None}
    for name in rows.keys() - {"form", "header", "claims", "issuer"}:
        assert rows[name] == {"check": name, **nothing}
    alone = make(issuer=OURS, jwks=jwks(SAME_KID[0]))
    for unreadable in ("x", SAME_KID[0].token(iss=ABSENT), SAME_KID[0].token(iss=7)):
        assert validator.explain(unreadable) == alone.explain(unreadable)  # there is no issuer to choose by


async def test_tenants_and_templates(make: Make) -> None:
    """An issuer that is named in full goes before a template; a template stands for one tenant's id."""
    own, other = SAME_KID
    validator = make(
        issuers=[
            Issuer(issuer=ISSUER_TEMPLATE, jwks=jwks(other), tenants=["*"]),
            Issuer(issuer=ISSUER, jwks=jwks(own)),
        ]
    )
    await validator.validate(own.token())
    assert await code(validator, other.token()) == "signature_invalid"
    foreign = ISSUER_TEMPLATE.format(tenantid=OTHER_TENANT)
    await validator.validate(other.token(iss=foreign, tid=OTHER_TENANT))
    assert await code(validator, other.token(iss=foreign)) == "wrong_issuer"  # another tenant's `tid`
    for elsewhere in ("https://sts.example/{}/v2.0", "https://login.microsoftonline.com/{}/v1.0"):
        issuer = elsewhere.format(OTHER_TENANT)  # the start or the end is another
        assert await code(validator, other.token(iss=issuer, tid=OTHER_TENANT)) == "wrong_issuer"
    for tenant in ("", "common", f"{OTHER_TENANT}/x", "{tenantid}"):
        issuer = ISSUER_TEMPLATE.format(tenantid=tenant)
        assert await code(validator, other.token(iss=issuer, tid=OTHER_TENANT)) == "wrong_issuer"


async def test_templates_of_several_key_sets(make: Make) -> None:
    """A token is verified with the keys of the template that its issuer fits, wherever that stands."""
    own, other = SAME_KID
    validator = make(
        issuers=[
            Issuer(issuer=ISSUER_TEMPLATE, jwks=jwks(own), tenants=["*"]),
            Issuer(issuer=V1_ISSUER_TEMPLATE, jwks=jwks(other), tenants=["*"]),
        ]
    )
    first_version = V1_ISSUER_TEMPLATE.format(tenantid=TENANT)
    await validator.validate(own.token())
    await validator.validate(other.token(iss=first_version, ver="1.0"))
    assert await code(validator, own.token(iss=first_version, ver="1.0")) == "signature_invalid"


async def test_both_versions_of_entra_id_in_one_line(make: Make) -> None:
    """`Issuer.entra_id` accepts v1.0 and v2.0 tokens of one tenant; a v1.0 token's audience may be a URI."""
    issuer = Issuer.entra_id(TENANT.upper(), audience=[AUDIENCE, "api://app"])
    assert issuer.jwks_uri == f"https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys"
    with KeyServer(jwks({**SAME_KID[0].jwk(), "issuer": ISSUER})) as server:
        assert issuer.issuer is not None
        local = Issuer(issuer=issuer.issuer, audience=issuer.audience, jwks_uri=server.keys_url)
        validator = make(issuers=[local])
        await validator.validate(SAME_KID[0].token())
        await validator.validate(
            SAME_KID[0].token(iss=V1_ISSUER_TEMPLATE.format(tenantid=TENANT), aud="api://app", ver="1.0")
        )
        foreign = V1_ISSUER_TEMPLATE.format(tenantid=OTHER_TENANT)
        assert await code(validator, SAME_KID[0].token(iss=foreign, tid=OTHER_TENANT)) == "wrong_issuer"
        assert server.fetches() == 1
    several = Issuer.entra_id("organizations", tenants=[TENANT])
    assert several.issuer == (ISSUER_TEMPLATE, V1_ISSUER_TEMPLATE)
    for tenant in ("contoso.example", "", "consumers", f"{TENANT}x", f" {TENANT}"):
        with pytest.raises(ConfigurationError) as caught:
            Issuer.entra_id(tenant)
        assert caught.value.setting == "tenant"


async def test_each_key_set_is_fetched_and_refreshed_alone(make: Make) -> None:
    """One provider that is down keeps no token of the other waiting, and a new key asks its own issuer."""
    own, other = SAME_KID
    with KeyServer(jwks(own)) as ours, KeyServer(jwks(other)) as theirs:
        theirs.fail(Answer(status=503))
        issuers = [
            Issuer(issuer=OURS, jwks_uri=ours.keys_url),
            Issuer(issuer=THEIRS, jwks_uri=theirs.keys_url),
        ]
        validator = make(issuers=issuers)
        await validator.start()
        await validator.validate(own.token(iss=OURS))
        with pytest.raises(KeysUnavailable, match="503"):
            await validator.validate(other.token(iss=THEIRS))
        rotated = signer("key-2", bits=2049)
        ours.publish(jwks(own, rotated))
        await validator.validate(rotated.token(iss=OURS))
        assert ours.fetches() == 2
        results = await validator.validate_many([own.token(iss=OURS), other.token(iss=THEIRS)])
        assert isinstance(results[0], Claims)
        assert isinstance(results[1], KeysUnavailable)
        assert "503" in results[1].message
        stats = validator.stats()
        assert stats["keys"] == 2
        assert stats["key_fetch_failures"] >= 1


async def test_a_token_of_another_issuer_causes_no_request(make: Make) -> None:
    """Nobody can make a validator fetch keys with a token that it would not accept with any key."""
    with KeyServer(jwks(SAME_KID[0])) as server:
        validator = make(issuers=[Issuer(issuer=OURS, jwks_uri=server.keys_url)])
        assert await code(validator, SAME_KID[0].token(iss=THEIRS)) == "wrong_issuer"
        assert server.requests == []


async def test_a_client_is_for_issuers_without_options_of_their_own() -> None:
    """What an `Issuer` says about its requests holds also where the validator gets an HTTP client."""

    class Client:
        asked: ClassVar[list[str]] = []

        async def get(self, url: str, *, accept: str = "") -> HttpResponse:
            self.asked.append(url)
            return HttpResponse(200, {}, jwks(SAME_KID[0]).encode())

        async def aclose(self) -> None:
            raise AssertionError("it belongs to the caller")

    with KeyServer(jwks(SAME_KID[1])) as theirs:
        issuers = [
            Issuer(issuer=OURS, jwks_uri="https://keys.example"),
            Issuer(issuer=THEIRS, jwks_uri=theirs.keys_url, http=HttpOptions()),
        ]
        async with AsyncValidator(
            audience=AUDIENCE, issuers=issuers, http=Client(), clock=clock
        ) as validator:
            await validator.validate(SAME_KID[0].token(iss=OURS))
            await validator.validate(SAME_KID[1].token(iss=THEIRS))
        assert (Client.asked, theirs.fetches()) == (["https://keys.example"], 1)


async def test_readiness_of_several_issuers() -> None:
    """Ready with the keys of all of them; the reason names the issuer."""
    with KeyServer(jwks(SAME_KID[0])) as ours, KeyServer() as theirs:
        issuers = [
            Issuer(issuer=OURS, jwks_uri=ours.keys_url),
            Issuer(issuer=THEIRS, jwks_uri=theirs.keys_url),
        ]
        theirs.fail(Answer(status=500))
        async with AsyncValidator(audience=AUDIENCE, issuers=issuers, clock=clock) as validator:
            with pytest.raises(KeysUnavailable):
                await validator.validate(SAME_KID[1].token(iss=THEIRS))
            await validator.validate(SAME_KID[0].token(iss=OURS))
            assert validator.ready is False
            assert (validator.not_ready_reason or "").startswith(f"{THEIRS}: ")
    fixed = AsyncValidator(audience=AUDIENCE, issuers=two(), clock=clock)
    assert (fixed.ready, fixed.not_ready_reason) == (True, None)


def discovery(server: KeyServer, issuer: str | None = None) -> None:
    """Publish a discovery document."""
    document = {"issuer": issuer or server.issuer, "jwks_uri": server.keys_url}
    server.answers["/tenant/v2.0/.well-known/openid-configuration"] = Answer(json.dumps(document))


async def test_issuers_by_discovery() -> None:
    """The document names the issuer and the keys; an issuer that is named takes only the keys from it."""
    own, other = SAME_KID
    with KeyServer(jwks(own)) as ours, KeyServer(jwks(other)) as theirs:
        discovery(ours)
        discovery(theirs)
        issuers = [
            Issuer(discovery=ours.discovery_url),
            Issuer(issuer=[THEIRS], discovery=theirs.discovery_url),
            Issuer(issuer="https://fixed.example", jwks=jwks(own)),
        ]
        threads = await asyncio.to_thread(Validator, None, AUDIENCE, issuers=issuers, clock=clock)
        tokens = [own.token(iss=ours.issuer), other.token(iss=THEIRS), other.token(iss=theirs.issuer)]
        seen = await asyncio.to_thread(threads.validate_many, tokens)
        assert [isinstance(each, Claims) for each in seen] == [True, True, False]
        threads.close()
        with pytest.raises(ConfigurationError, match="from_issuers") as caught:
            AsyncValidator(audience=AUDIENCE, issuers=issuers)
        assert caught.value.setting == "discovery"
        async with await AsyncValidator.from_issuers(issuers, AUDIENCE, clock=clock) as validator:
            results = await validator.validate_many(tokens)
            assert [isinstance(each, Claims) for each in results] == [True, True, False]
        theirs.answers.clear()
        with pytest.raises(KeysUnavailable):
            await AsyncValidator.from_issuers(issuers, AUDIENCE)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"issuers": []}, "issuers"),
        ({"issuers": "https://x.example"}, "issuers"),
        ({"issuers": 7}, "issuers"),
        ({"issuers": ["https://x.example"]}, "issuers"),
        ({"issuers": None, "issuer": OURS}, "jwks_uri"),
        ({"issuers": two(), "issuer": OURS}, "issuers"),
        ({"issuers": two(), "jwks_uri": "https://x.example"}, "issuers"),
        ({"issuers": two(), "jwks": "{}"}, "issuers"),
        ({"issuers": two() + two()[:1]}, "issuers"),
        ({"issuers": [Issuer(issuer=[OURS, OURS], jwks=jwks(SAME_KID[0]))]}, "issuers"),
        ({"issuers": two(), "audience": None}, "audience"),
        ({"issuers": [Issuer(issuer=[], jwks=jwks(SAME_KID[0]))]}, "issuer"),
        ({"issuers": [Issuer(issuer=OURS, jwks_uri="http://x.example")]}, "jwks_uri"),
        ({"issuers": [Issuer(issuer=ISSUER_TEMPLATE, jwks=jwks(SAME_KID[0]))]}, "tenants"),
        ({"issuers": two(), "http": "http://proxy.example"}, "http"),
        ({"issuers": two(http="http://proxy.example")}, "http"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], setting: str) -> None:
    """A mistake is an error at construction that names the argument."""
    with pytest.raises(ConfigurationError) as caught:
        Validator(**{"audience": AUDIENCE} | options)
    assert caught.value.setting == setting
    assert caught.value.code in ("setting_invalid", "setting_missing")
    assert setting in caught.value.message


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({}, "jwks_uri"),
        ({"issuer": OURS}, "jwks_uri"),
        ({"issuer": OURS, "jwks": "{}", "jwks_uri": "https://x.example"}, "jwks_uri"),
        ({"jwks_uri": "https://x.example"}, "issuer"),
        ({"discovery": "https://x.example", "jwks": "{}"}, "jwks_uri"),
    ],
)
def test_an_issuer_that_is_not_complete(options: dict[str, Any], setting: str) -> None:
    """It needs exactly one source of keys, and a name unless the document has it."""
    with pytest.raises(ConfigurationError) as caught:
        Issuer(**options)
    assert (caught.value.code, caught.value.setting) == ("setting_missing", setting)
    assert setting in caught.value.message


@pytest.mark.parametrize("tenant", ["", "contoso.example", "consumers", "{tenantid}", None, 7])
def test_a_tenant_that_is_no_id(tenant: Any) -> None:
    """Domains and names would be compared with ids, and never match."""
    with pytest.raises(ConfigurationError) as caught:
        Issuer.entra_id(tenant)
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", "tenant")
    assert "a GUID" in caught.value.message


def test_what_one_line_for_entra_id_stands_for() -> None:
    """Ids in any case; everything else is what the caller says."""
    options = HttpOptions(timeout=1)
    one = Issuer.entra_id("AAAAAAAA-0000-0000-0000-00000000000A", audience="a", tenants=("t",), http=options)
    path = "aaaaaaaa-0000-0000-0000-00000000000a"
    assert one == Issuer(
        issuer=(f"https://login.microsoftonline.com/{path}/v2.0", f"https://sts.windows.net/{path}/"),
        jwks_uri=f"https://login.microsoftonline.com/{path}/discovery/v2.0/keys",
        audience="a",
        tenants=("t",),
        http=options,
    )
    many = Issuer.entra_id("Common", tenants=["t"])
    assert many.issuer == (
        "https://login.microsoftonline.com/{tenantid}/v2.0",
        "https://sts.windows.net/{tenantid}/",
    )
    assert many.jwks_uri == "https://login.microsoftonline.com/common/discovery/v2.0/keys"
    assert (many.tenants, many.audience, many.http) == (["t"], None, None)


@pytest.mark.parametrize(
    ("make_issuer", "expected"),
    [
        (
            lambda: Issuer.tokenx(
                "prod-gcp", "nav", audience="prod-gcp:team:api", http=HttpOptions(timeout=1)
            ),
            Issuer(
                issuer="https://tokenx.prod-gcp.nav.cloud.nais.io",
                jwks_uri="https://tokenx.prod-gcp.nav.cloud.nais.io/jwks",
                audience="prod-gcp:team:api",
                refresh=RefreshRules(cool_down=30.0),
                http=HttpOptions(timeout=1),
            ),
        ),
        (
            lambda: Issuer.idporten(audience=["https://api.example"]),
            Issuer(
                issuer="https://idporten.no",
                jwks_uri="https://idporten.no/jwks.json",
                audience=["https://api.example"],
            ),
        ),
        (
            lambda: Issuer.idporten("test", http=HttpOptions(timeout=1)),
            Issuer(
                issuer="https://test.idporten.no",
                jwks_uri="https://test.idporten.no/jwks.json",
                http=HttpOptions(timeout=1),
            ),
        ),
        (
            Issuer.maskinporten,
            Issuer(
                issuer="https://maskinporten.no/",
                jwks_uri="https://maskinporten.no/jwk",
                audience=ANY_AUDIENCE,
            ),
        ),
        (
            lambda: Issuer.maskinporten("test", audience="https://api.example", http=HttpOptions(timeout=1)),
            Issuer(
                issuer="https://test.maskinporten.no/",
                jwks_uri="https://test.maskinporten.no/jwk",
                audience="https://api.example",
                http=HttpOptions(timeout=1),
            ),
        ),
    ],
    ids=["TokenX", "ID-porten", "ID-porten's test", "Maskinporten", "Maskinporten's test"],
)
def test_what_one_line_for_other_providers_stands_for(
    make_issuer: Callable[[], Issuer], expected: Issuer
) -> None:
    """The issuers as they are: Maskinporten's ends in a slash, and TokenX's keys change unannounced."""
    assert make_issuer() == expected


@pytest.mark.parametrize(
    ("make_issuer", "setting"),
    [
        (lambda: Issuer.idporten("prod"), "environment"),  # type: ignore[arg-type]
        (lambda: Issuer.maskinporten(None), "environment"),  # type: ignore[arg-type]
        (lambda: Issuer.tokenx("prod-gcp", "nav.evil.example/"), "tenant"),
        (lambda: Issuer.tokenx("Prod", "nav"), "cluster"),
        (lambda: Issuer.tokenx("", "nav"), "cluster"),
        (lambda: Issuer.tokenx(None, "nav"), "cluster"),  # type: ignore[arg-type]
        (lambda: Issuer.tokenx("a" * 64, "nav"), "cluster"),
    ],
)
def test_a_provider_that_does_not_exist(make_issuer: Callable[[], Issuer], setting: str) -> None:
    """A misspelled environment is not another host."""
    with pytest.raises(ConfigurationError) as caught:
        make_issuer()
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", setting)
    assert setting in caught.value.message


async def test_an_audience_that_is_not_checked(make: Make) -> None:
    """For one issuer, any audience and none pass; the others of the same validator keep theirs."""
    own, other = SAME_KID
    issuers = [
        Issuer(issuer=OURS, jwks=jwks(own), audience=ANY_AUDIENCE),
        Issuer(issuer=THEIRS, jwks=jwks(other)),
    ]
    validator = make(issuers=issuers)
    for aud in ("unspecified", ["a", "b"], ABSENT):
        assert (await validator.validate(own.token(iss=OURS, aud=aud)))["iss"] == OURS
    for aud, code in ((ABSENT, "claim_missing"), ("unspecified", "wrong_audience")):
        with pytest.raises(InvalidToken) as caught:
            await validator.validate(other.token(iss=THEIRS, aud=aud))
        assert caught.value.code == code
    rows = {row["check"]: row for row in validator.explain(own.token(iss=OURS, aud="x"))}
    assert (rows["audience"]["passed"], rows["audience"]["value"]) == (True, "not checked")
    alone = make(issuer=OURS, audience=ANY_AUDIENCE, jwks=jwks(own))
    assert (await alone.validate(own.token(iss=OURS, aud=ABSENT)))["iss"] == OURS


@pytest.mark.parametrize(
    "issuer",
    [
        ISSUER,
        "https://sts.windows.net/x/",
        "https://x.ciamlogin.com/x/v2.0",
        ISSUER_TEMPLATE,
        "https://[/{tenantid}",
    ],
)
def test_the_audience_of_entra_id_is_always_checked(issuer: str) -> None:
    """Any application of the tenant can get a token for some other API."""
    with pytest.raises(ConfigurationError) as caught:
        Validator(issuer, ANY_AUDIENCE, jwks=jwks(SAME_KID[0]), tenants=[TENANT])
    assert (caught.value.setting, caught.value.code) == ("audience", "setting_invalid")


def test_an_issuer_that_is_no_url_is_not_entra_id() -> None:
    """Such issuers exist, and are compared like any other."""
    token = SAME_KID[0].token(iss="https://[", aud=ABSENT)
    made = Validator("https://[", ANY_AUDIENCE, jwks=jwks(SAME_KID[0]), clock=clock)
    assert made.validate(token)["iss"] == "https://["


async def test_each_issuer_has_required_claims_of_its_own(make: Make) -> None:
    """Those of the validator hold where an issuer names none."""
    own, other = SAME_KID
    issuers = [
        Issuer(issuer=OURS, jwks=jwks(own), required_claims=["client_id"]),
        Issuer(issuer=THEIRS, jwks=jwks(other)),
    ]
    validator = make(issuers=issuers, required_claims=["jti"])
    assert await validator.validate(own.token(iss=OURS, client_id="c", jti=ABSENT, iat=ABSENT))
    assert await validator.validate(other.token(iss=THEIRS, jti="j"))
    for key, issuer, lacking in ((own, OURS, "client_id"), (other, THEIRS, "jti")):
        with pytest.raises(InvalidToken) as caught:
            await validator.validate(key.token(iss=issuer, client_id=ABSENT, jti=ABSENT))
        assert (caught.value.code, lacking in caught.value.message) == ("claim_missing", True)


async def test_each_issuer_has_a_cool_down_of_its_own(make: Make) -> None:
    """Unknown keys of one issuer cause fetches as often as its own rules say."""
    own, other = SAME_KID
    with KeyServer(jwks(own)) as first, KeyServer(jwks(other)) as second:
        issuers = [
            Issuer(issuer=OURS, jwks_uri=first.keys_url, refresh=RefreshRules(cool_down=0.0)),
            Issuer(issuer=THEIRS, jwks_uri=second.keys_url),
        ]
        validator = make(issuers=issuers)
        assert await validator.validate(own.token(iss=OURS))
        assert await validator.validate(other.token(iss=THEIRS))
        for stray in ("a", "b"):
            for key, issuer in ((own, OURS), (other, THEIRS)):
                with pytest.raises(InvalidToken):
                    await validator.validate(key.named(stray).token(iss=issuer))
        assert (first.fetches(), second.fetches()) == (3, 2)


def test_a_validator_that_is_dropped_is_gone() -> None:
    """Nothing refers back to it."""
    validator = Validator(audience=AUDIENCE, issuers=two(http=HttpOptions()), clock=clock)
    validator.validate(SAME_KID[0].token(iss=OURS))
    reference = weakref.ref(validator)
    gc.disable()
    try:
        del validator
        assert reference() is None
    finally:
        gc.enable()


def test_a_key_set_object_serves_several_issuers() -> None:
    """A `KeySet` may be shared where two issuers sign with the same keys."""
    keys = KeySet(jwks(SAME_KID[0]))
    issuers = [Issuer(issuer=OURS, jwks=keys), Issuer(issuer=THEIRS, jwks=keys)]
    validator = Validator(audience=AUDIENCE, issuers=issuers, clock=clock)
    key: Signer = SAME_KID[0]
    assert {validator.validate(key.token(iss=name))["iss"] for name in (OURS, THEIRS)} == {OURS, THEIRS}
