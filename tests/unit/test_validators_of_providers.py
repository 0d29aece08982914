"""Validators for the providers that the environment describes, over real connections."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import pytest
import pytest_asyncio

import entra_fast.validate
from entra_fast._environment import described
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken, KeysUnavailable
from entra_fast.validate import ANY_AUDIENCE, AsyncValidator, RefreshRules, Validator
from support.key_server import Answer, KeyServer
from support.tokens import ABSENT, NOW, Signer, jwks, signer

ENTRA_KEY, TOKENX_KEY, MASKINPORTEN_KEY, ID_PORTEN_KEY, OTHER_KEY = (
    signer("same-kid", bits=2048 + n) for n in range(5)
)
"""Keys of five providers, under one id."""

CLIENT, API, RESOURCE = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "dev-gcp:team:api", "https://api.example"
DISCOVERY: Final = "/.well-known/oauth-authorization-server"

Make = Callable[..., Awaitable[Any]]


def clock() -> float:
    return NOW


def content(issuer: str, **claims: Any) -> dict[str, Any]:
    """The claims of a token."""
    found = {"iss": issuer, "iat": NOW, "exp": NOW + 100, **claims}
    return {name: value for name, value in found.items() if value is not ABSENT}


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """The discovery documents and key sets of five providers."""
    with KeyServer() as one:
        base = one.base_url
        for name, key in (
            ("entra", ENTRA_KEY),
            ("tokenx", TOKENX_KEY),
            ("maskinporten", MASKINPORTEN_KEY),
            ("idporten", ID_PORTEN_KEY),
            ("other", OTHER_KEY),
        ):
            issuer = f"{base}/{name}" + ("/" if name == "maskinporten" else "")
            document = {
                "issuer": issuer,
                "jwks_uri": f"{base}/{name}/jwks",
                "token_endpoint": f"{base}/{name}/token",
            }
            one.answers[f"/{name}{DISCOVERY}"] = Answer(json.dumps(document))
            one.answers[f"/{name}/jwks"] = Answer(jwks(key))
        yield one


@pytest.fixture
def environ(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """All of them configured."""
    base = server.base_url
    for name in list(os.environ):
        if name.startswith(
            ("AZURE_", "TOKEN_X_", "MASKINPORTEN_", "IDPORTEN_", "ANSATTPORTEN_", "ENTRA_FAST_")
        ):
            monkeypatch.delenv(name)
    for name, value in {
        "AZURE_APP_CLIENT_ID": CLIENT,
        "AZURE_OPENID_CONFIG_ISSUER": f"{base}/entra",
        "AZURE_OPENID_CONFIG_JWKS_URI": f"{base}/entra/jwks",
        "TOKEN_X_CLIENT_ID": API,
        "TOKEN_X_WELL_KNOWN_URL": f"{base}/tokenx{DISCOVERY}",
        "MASKINPORTEN_CLIENT_ID": "5b8ad8d4",
        "MASKINPORTEN_WELL_KNOWN_URL": f"{base}/maskinporten{DISCOVERY}",
        "IDPORTEN_AUDIENCE": RESOURCE,
        "IDPORTEN_WELL_KNOWN_URL": f"{base}/idporten{DISCOVERY}",
        "ENTRA_FAST_PROVIDERS": "other",
        "ENTRA_FAST_PROVIDER_OTHER_WELL_KNOWN_URL": f"{base}/other{DISCOVERY}",
        "ENTRA_FAST_PROVIDER_OTHER_AUDIENCE": "other-api",
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def only(environ: pytest.MonkeyPatch, *prefixes: str) -> None:
    """Leave the settings of these providers alone."""
    for name in list(os.environ):
        described_ = name.startswith(
            ("AZURE_", "TOKEN_X_", "MASKINPORTEN_", "IDPORTEN_", "ENTRA_FAST_PROVIDER")
        )
        if described_ and not name.startswith(prefixes):
            environ.delenv(name)


class InThread:
    """A `Validator` whose methods can be awaited."""

    def __init__(self, validator: Validator) -> None:
        self.validator = validator

    async def validate(self, token: str) -> Any:
        return await asyncio.to_thread(self.validator.validate, token)

    async def aclose(self) -> None:
        self.validator.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.validator, name)


@pytest_asyncio.fixture(params=["asyncio", "threads"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """`from_env` of one kind of validators."""
    made: list[Any] = []

    async def one(*arguments: Any, **options: Any) -> Any:
        options = {"clock": clock, **options}
        if request.param == "asyncio":
            made.append(await AsyncValidator.from_env(*arguments, **options))
        else:
            made.append(InThread(await asyncio.to_thread(Validator.from_env, *arguments, **options)))
        return made[-1]

    yield one
    for each in made:
        await each.aclose()


async def code(validator: Any, token: str) -> str:
    """`ok`, or the code that a token is rejected with."""
    try:
        await validator.validate(token)
    except InvalidToken as error:
        return error.code
    return "ok"


@pytest.mark.parametrize(
    ("provider", "path", "key", "audience"),
    [
        ("entra_id", "entra", ENTRA_KEY, CLIENT),
        ("azuread", "entra", ENTRA_KEY, CLIENT),
        ("tokenx", "tokenx", TOKENX_KEY, API),
        ("maskinporten", "maskinporten/", MASKINPORTEN_KEY, ABSENT),
        ("idporten", "idporten", ID_PORTEN_KEY, RESOURCE),
        ("other", "other", OTHER_KEY, "other-api"),
    ],
)
async def test_a_provider_by_its_name(
    environ: pytest.MonkeyPatch,
    server: KeyServer,
    make: Make,
    provider: str,
    path: str,
    key: Signer,
    audience: Any,
) -> None:
    """Its own issuer, keys and audience, and no other's."""
    validator = await make(provider)
    issuer = f"{server.base_url}/{path}"
    assert await code(validator, key.token(content(issuer, aud=audience))) == "ok"
    other = "ok" if provider == "maskinporten" else "wrong_audience"
    assert await code(validator, key.token(content(issuer, aud="stranger"))) == other
    assert (
        await code(validator, key.token(content(f"{server.base_url}/stranger", aud=audience)))
        == "wrong_issuer"
    )
    stranger = ENTRA_KEY if key is not ENTRA_KEY else TOKENX_KEY
    assert await code(validator, stranger.token(content(issuer, aud=audience))) == "signature_invalid"
    assert server.fetches(f"/{path.strip('/')}/jwks") >= 1
    elsewhere = {"/tokenx", "/maskinporten", "/idporten", "/other", "/entra"} - {f"/{path.strip('/')}"}
    assert not [asked for asked in server.requests if asked.startswith(tuple(elsewhere))]


async def test_several_providers_in_one_validator(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """One call accepts the tokens of either; a key of one never verifies a token of another."""
    validator = await make(["entra_id", "tokenx", "maskinporten"])
    base = server.base_url
    assert await code(validator, ENTRA_KEY.token(content(f"{base}/entra", aud=CLIENT))) == "ok"
    assert await code(validator, TOKENX_KEY.token(content(f"{base}/tokenx", aud=API))) == "ok"
    assert await code(validator, MASKINPORTEN_KEY.token(content(f"{base}/maskinporten/"))) == "ok"
    assert (
        await code(validator, TOKENX_KEY.token(content(f"{base}/entra", aud=CLIENT))) == "signature_invalid"
    )
    assert await code(validator, TOKENX_KEY.token(content(f"{base}/tokenx", aud=CLIENT))) == "wrong_audience"
    assert await code(validator, ENTRA_KEY.token(content(f"{base}/entra"))) == "claim_missing"
    assert (
        await code(validator, ID_PORTEN_KEY.token(content(f"{base}/idporten", aud=RESOURCE)))
        == "wrong_issuer"
    )


async def test_without_a_name_it_is_entra_id(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """As always, whatever else is configured."""
    for validator in (await make(), await make(audience=CLIENT)):
        token = ENTRA_KEY.token(content(f"{server.base_url}/entra", aud=CLIENT))
        assert await code(validator, token) == "ok"
        token = TOKENX_KEY.token(content(f"{server.base_url}/tokenx", aud=API))
        assert await code(validator, token) == "signature_invalid"
    assert not [path for path in server.requests if not path.startswith("/entra")]


@pytest.mark.parametrize(
    ("left", "key", "path", "audience"),
    [
        (("TOKEN_X_", "MASKINPORTEN_"), TOKENX_KEY, "tokenx", API),
        (("IDPORTEN_",), ID_PORTEN_KEY, "idporten", RESOURCE),
        (("ENTRA_FAST_",), OTHER_KEY, "other", "other-api"),
    ],
)
async def test_without_a_name_it_is_the_only_other_one(
    environ: pytest.MonkeyPatch,
    server: KeyServer,
    make: Make,
    left: tuple[str, ...],
    key: Signer,
    path: str,
    audience: str,
) -> None:
    """If Entra ID is not configured. A provider whose audience is not checked does not count."""
    only(environ, *left)
    validator = await make()
    assert await code(validator, key.token(content(f"{server.base_url}/{path}", aud=audience))) == "ok"


@pytest.mark.parametrize(
    ("left", "named"),
    [
        (("TOKEN_X_", "IDPORTEN_"), "tokenx and idporten are configured"),
        (("TOKEN_X_", "IDPORTEN_", "MASKINPORTEN_"), "maskinporten, tokenx and idporten are configured"),
        (
            ("MASKINPORTEN_",),
            "maskinporten is configured, and Entra ID is not: name the provider, as provider='maskinporten'",
        ),
    ],
)
def test_a_provider_that_must_be_named(
    environ: pytest.MonkeyPatch, left: tuple[str, ...], named: str
) -> None:
    """It is never chosen by a token; and Maskinporten, whose tokens have no audience, never by chance."""
    only(environ, *left)
    for make_one in (Validator, Validator.from_env, AsyncValidator):
        with pytest.raises(ConfigurationError, match=named) as caught:
            make_one()
        assert (caught.value.code, caught.value.setting) == ("setting_missing", "provider")


def test_a_generic_provider_without_an_audience_must_be_named(
    environ: pytest.MonkeyPatch, server: KeyServer
) -> None:
    """As Maskinporten."""
    only(environ, "ENTRA_FAST_")
    environ.setenv("ENTRA_FAST_PROVIDER_OTHER_AUDIENCE", "none")
    with pytest.raises(ConfigurationError, match="other is configured"):
        Validator()
    validator = Validator.from_env("other", clock=clock)
    assert validator.validate(OTHER_KEY.token(content(f"{server.base_url}/other")))
    validator.close()


@pytest.mark.parametrize("left", [("AZURE_",), ("TOKEN_X_",)])
def test_any_audience_is_not_for_entra_id_and_not_by_chance(
    environ: pytest.MonkeyPatch, left: tuple[str, ...]
) -> None:
    """Also of a local Entra ID, whose host says nothing; a provider that is not named keeps its audience."""
    only(environ, *left)
    for make_one in (Validator, Validator.from_env):
        with pytest.raises(ConfigurationError, match="audience must be named for Entra ID"):
            make_one(audience=ANY_AUDIENCE)
    for named in ("entra_id", "azuread"):
        with pytest.raises(ConfigurationError, match="audience must be named for Entra ID"):
            Validator.from_env(named, audience=ANY_AUDIENCE)


def test_nothing_is_configured(environ: pytest.MonkeyPatch) -> None:
    """The error names the variable of Entra ID, and that there are others."""
    only(environ)
    with pytest.raises(ConfigurationError, match=r"AZURE_APP_CLIENT_ID is not set.*provider=") as caught:
        Validator()
    assert caught.value.setting == "AZURE_APP_CLIENT_ID"


def test_entra_id_that_is_switched_on_and_not_complete(environ: pytest.MonkeyPatch) -> None:
    """Another provider does not take its place."""
    only(environ, "TOKEN_X_")
    environ.setenv("AZURE_ENABLED", "true")
    with pytest.raises(ConfigurationError, match="AZURE_APP_CLIENT_ID is not set"):
        Validator()


def test_a_provider_that_is_switched_off(environ: pytest.MonkeyPatch) -> None:
    """Texas's switch, set to false, is a statement. Left out, it says nothing: it is the sidecar's."""
    only(environ, "TOKEN_X_")
    environ.setenv("TOKEN_X_ENABLED", "false")
    with pytest.raises(ConfigurationError, match="TokenX is not enabled: TOKEN_X_ENABLED is false"):
        Validator.from_env("tokenx")
    with pytest.raises(ConfigurationError, match="AZURE_APP_CLIENT_ID is not set"):
        Validator()


@pytest.mark.parametrize(
    ("provider", "missing", "text"),
    [
        (
            "token_x",
            None,
            "provider must be one of: entra_id, azuread, maskinporten, tokenx, idporten, ansattporten, other",
        ),
        ("", None, "provider must be one of"),
        ([], None, "provider must be the name of a provider, or several names"),
        (7, None, "provider must be the name of a provider"),
        (["tokenx", None], None, "provider must be the name of a provider"),
        (["tokenx", "tokenx"], None, "issuers must name each issuer once"),
        ("tokenx", "TOKEN_X_CLIENT_ID", "TOKEN_X_CLIENT_ID must be set"),
        ("tokenx", "TOKEN_X_WELL_KNOWN_URL", "TOKEN_X_WELL_KNOWN_URL must be set"),
        ("idporten", "IDPORTEN_AUDIENCE", "IDPORTEN_AUDIENCE must be set"),
        ("maskinporten", "MASKINPORTEN_WELL_KNOWN_URL", "MASKINPORTEN_WELL_KNOWN_URL must be set"),
        ("other", "ENTRA_FAST_PROVIDER_OTHER_AUDIENCE", "ENTRA_FAST_PROVIDER_OTHER_AUDIENCE must be set"),
    ],
)
def test_what_is_wrong_is_named(
    environ: pytest.MonkeyPatch, provider: Any, missing: str | None, text: str
) -> None:
    """A wrong name lists the known ones, and a missing setting is named."""
    if missing is not None:
        environ.delenv(missing)
    with pytest.raises(ConfigurationError) as caught:
        Validator.from_env(provider)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        ("tokenx", "TokenX is not configured: TOKEN_X_CLIENT_ID is not set. Configured: idporten, other"),
        ("maskinporten", "Maskinporten is not configured: MASKINPORTEN_CLIENT_ID is not set."),
        ("entra_id", "Entra ID is not configured: AZURE_APP_CLIENT_ID is not set."),
    ],
)
def test_a_provider_that_is_not_configured(environ: pytest.MonkeyPatch, provider: str, text: str) -> None:
    """The error names the variable to set, and the providers that are there."""
    only(environ, "IDPORTEN_", "ENTRA_FAST_")
    with pytest.raises(ConfigurationError) as caught:
        Validator.from_env(provider)
    assert caught.value.message.startswith(text)
    assert (caught.value.code, caught.value.setting in text) == ("setting_missing", True)


def test_no_credential_is_needed_to_validate(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """Neither a key, nor a usable one, nor, for Maskinporten, a client id."""
    environ.delenv("MASKINPORTEN_CLIENT_ID")
    environ.setenv("MASKINPORTEN_CLIENT_JWK", "{}")
    validator = Validator.from_env("maskinporten", clock=clock)
    assert validator.validate(MASKINPORTEN_KEY.token(content(f"{server.base_url}/maskinporten/")))
    validator.close()


async def test_an_audience_in_code(environ: pytest.MonkeyPatch, server: KeyServer, make: Make) -> None:
    """It replaces that of the settings, which may be missing then."""
    issuer = f"{server.base_url}/maskinporten/"
    validator = await make("maskinporten", audience=RESOURCE)
    assert await code(validator, MASKINPORTEN_KEY.token(content(issuer, aud=RESOURCE))) == "ok"
    assert await code(validator, MASKINPORTEN_KEY.token(content(issuer))) == "claim_missing"
    environ.delenv("IDPORTEN_AUDIENCE")
    environ.delenv("TOKEN_X_CLIENT_ID")
    environ.delenv("ENTRA_FAST_PROVIDER_OTHER_AUDIENCE")
    for provider, key in (("idporten", ID_PORTEN_KEY), ("tokenx", TOKENX_KEY), ("other", OTHER_KEY)):
        validator = await make(provider, audience=["x", "y"])
        issuer = f"{server.base_url}/{provider}"
        assert await code(validator, key.token(content(issuer, aud="y"))) == "ok"
        assert (
            await code(validator, key.token(content(issuer, aud="named-by-the-caller"))) == "wrong_audience"
        )
    validator = await make("idporten", audience=ANY_AUDIENCE)
    assert await code(validator, ID_PORTEN_KEY.token(content(f"{server.base_url}/idporten"))) == "ok"
    with pytest.raises(ConfigurationError, match="audience is for one provider"):
        await make(["tokenx", "idporten"], audience="x")


async def test_an_audience_in_code_for_a_generic_provider_with_the_name_of_ansattporten(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """It stands for the audience of the provider that is meant."""
    environ.setenv("ENTRA_FAST_PROVIDERS", "ansattporten")
    environ.setenv("ENTRA_FAST_PROVIDER_ANSATTPORTEN_WELL_KNOWN_URL", f"{server.base_url}/other{DISCOVERY}")
    validator = await make("ansattporten", audience=RESOURCE)
    token = OTHER_KEY.token(content(f"{server.base_url}/other", aud=RESOURCE))
    assert await code(validator, token) == "ok"


async def test_options_in_code_take_precedence(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """Over the algorithms, tenants and cool-down of the settings, for one provider and for several."""
    environ.setenv("ENTRA_FAST_TOKENX_ALGORITHMS", "PS256")
    environ.setenv("ENTRA_FAST_PROVIDER_OTHER_ALLOWED_TENANTS", CLIENT)
    rules = RefreshRules(cool_down=7.0)
    tokenx = TOKENX_KEY.token(content(f"{server.base_url}/tokenx", aud=API))
    other = OTHER_KEY.token(content(f"{server.base_url}/other", aud="other-api", tid=CLIENT))
    for named in ("tokenx", ["tokenx", "other"]):
        assert await code(await make(named), tokenx) == "algorithm_not_allowed"
        assert await code(await make(named, algorithms=["RS256"]), tokenx) == "ok"
    for named in ("other", ["tokenx", "other"]):
        assert await code(await make(named), other) == "wrong_issuer"  # the tenant is not in its path
    assert [one.refresh for one in described(os.environ, ["entra_id", "tokenx"])] == [
        RefreshRules(cool_down=300.0),
        RefreshRules(cool_down=30.0),
    ]
    (one,) = described(os.environ, "entra_id")
    assert (one.as_issuer().refresh, one.as_issuer(["refresh"]).refresh) == (RefreshRules(), None)
    validator = await make("tokenx", refresh=rules, algorithms=["RS256"])
    assert await code(validator, tokenx) == "ok"
    for stray in ("a", "b"):
        token = TOKENX_KEY.named(stray).token(content(f"{server.base_url}/tokenx", aud=API))
        assert await code(validator, token) == "unknown_key"


async def test_keys_in_code_are_not_for_the_environment(environ: pytest.MonkeyPatch, make: Make) -> None:
    """A program that names keys names their issuer, too."""
    for option in ({"jwks": jwks(TOKENX_KEY)}, {"jwks_uri": "https://keys.example"}):
        with pytest.raises(ConfigurationError) as caught:
            await make("tokenx", **option)
        assert caught.value.setting == next(iter(option))


async def test_the_constructor_finds_the_only_other_one(
    environ: pytest.MonkeyPatch, server: KeyServer
) -> None:
    """With its options; and it cannot await a discovery document."""
    only(environ, "TOKEN_X_")
    with pytest.raises(ConfigurationError, match="cannot fetch the discovery document") as caught:
        AsyncValidator()
    assert caught.value.setting == "TOKEN_X_ISSUER"
    environ.setenv("TOKEN_X_ISSUER", f"{server.base_url}/tokenx")
    environ.setenv("TOKEN_X_JWKS_URI", f"{server.base_url}/tokenx/jwks")
    environ.setenv("ENTRA_FAST_TOKENX_ALGORITHMS", "PS256")
    token = TOKENX_KEY.token(content(f"{server.base_url}/tokenx", aud=API))
    async with AsyncValidator(clock=clock) as validator:
        assert await code(validator, token) == "algorithm_not_allowed"
    options: dict[str, Any] = {"algorithms": ["RS256"], "refresh": RefreshRules(), "clock": clock}
    async with AsyncValidator(**options) as validator:
        assert await code(validator, token) == "ok"
    async with AsyncValidator(tenants=[CLIENT], **options) as validator:
        assert await code(validator, token) == "claim_missing"
    assert server.fetches(f"/tokenx{DISCOVERY}") == 0


async def test_a_variable_takes_precedence_over_discovery(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """Whichever of the two is set."""
    environ.setenv("TOKEN_X_JWKS_URI", f"{server.base_url}/other/jwks")
    token = OTHER_KEY.token(content(f"{server.base_url}/tokenx", aud=API))
    assert await code(await make("tokenx"), token) == "ok"
    environ.delenv("TOKEN_X_JWKS_URI")
    environ.setenv("TOKEN_X_ISSUER", "https://tokenx.example")
    token = TOKENX_KEY.token(content("https://tokenx.example", aud=API))
    assert await code(await make("tokenx"), token) == "ok"


async def test_a_document_that_cannot_be_fetched(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """Says nothing about tokens."""
    server.answers[f"/tokenx{DISCOVERY}"] = Answer(status=503)
    for named in ("tokenx", ["entra_id", "tokenx"]):
        with pytest.raises(KeysUnavailable, match="503"):
            await make(named)


def test_shared_validators(environ: pytest.MonkeyPatch, server: KeyServer) -> None:
    """`validate(token, provider=...)` has one validator for each provider, made at the first call."""
    environ.setattr(entra_fast.validate, "_shared_by_name", {})
    shared = entra_fast.validate._shared_by_name
    token = TOKENX_KEY.token(content(f"{server.base_url}/tokenx", aud=API, iat=1, exp=2))
    for _ in range(2):
        with pytest.raises(InvalidToken, match="expired"):
            entra_fast.validate.validate(token, provider="tokenx")
    with pytest.raises(InvalidToken, match="expired"):
        entra_fast.validate.validate(token, provider=["tokenx", "entra_id"])
    assert shared.pop(("tokenx", "entra_id")).get().stats()["key_fetches"] == 1
    assert server.fetches("/tokenx/jwks") == server.fetches(f"/tokenx{DISCOVERY}") == 2
    for unknown in ("nobody", "nobody"):
        with pytest.raises(ConfigurationError):
            entra_fast.validate.validate(token, provider=unknown)
    assert list(shared) == ["tokenx"]
    lock = shared["tokenx"]._lock
    entra_fast.validate._reset_after_fork()  # another thread of the parent may have held it
    assert shared["tokenx"]._lock is not lock
    shared["tokenx"].get().close()


def test_a_document_that_cannot_be_fetched_concerns_no_other_provider(
    environ: pytest.MonkeyPatch, server: KeyServer
) -> None:
    """Where a shared validator is for several, tokens of those that are known are validated meanwhile; other
    tokens may be of the missing one."""
    names = ("tokenx", "entra_id", "idporten", "other")
    seconds = [100.0]
    shared = entra_fast.validate._SharedValidator(lambda: seconds[0], provider=names)
    environ.setattr(entra_fast.validate, "_shared_by_name", {names: shared})
    missing = [f"/{name}{DISCOVERY}" for name in ("tokenx", "idporten")]
    good = [server.answers[path] for path in missing]
    for path in missing:
        server.answers[path] = Answer(status=503)
    times = {"iat": int(time.time()) - 10, "exp": int(time.time()) + 600}

    def outcome(token: str) -> str:
        try:
            return str(entra_fast.validate.validate(token, provider=names)["iss"]).rpartition("/")[2]
        except EntraFastError as error:
            return error.code

    tokenx = TOKENX_KEY.token(content(f"{server.base_url}/tokenx", aud=API, **times))
    entra = ENTRA_KEY.token(content(f"{server.base_url}/entra", aud=CLIENT, **times))
    other = OTHER_KEY.token(content(f"{server.base_url}/other", aud="other-api", **times))
    nobodys = TOKENX_KEY.token(content("https://nobody.example", aud=API, **times))
    assert outcome(entra) == "entra"
    assert outcome(other) == "other"
    assert outcome(ENTRA_KEY.token(content(f"{server.base_url}/entra", aud=API, **times))) == "wrong_audience"
    assert [outcome(tokenx), outcome(nobodys)] == ["keys_unavailable"] * 2
    assert server.fetches(missing[0]) == 1
    of_others = shared._of_others
    seconds[0] += 60
    assert outcome(tokenx) == "keys_unavailable"
    assert server.fetches(missing[0]) == 2
    assert shared._of_others is of_others  # with its keys
    server.answers[missing[0]] = good[0]
    seconds[0] += 60
    assert [outcome(tokenx), outcome(other), outcome(nobodys)] == ["tokenx", "other", "keys_unavailable"]
    server.answers[missing[1]] = good[1]
    seconds[0] += 60
    assert [outcome(tokenx), outcome(nobodys), outcome(tokenx)] == ["tokenx", "wrong_issuer", "tokenx"]
    assert shared._of_others is None
    shared.get().close()


async def test_a_provider_by_its_discovery_document(server: KeyServer) -> None:
    """Its tokens need no claim of Entra ID, and the helpers read what they have (RFC 9068)."""
    url, issuer = f"{server.base_url}/other{DISCOVERY}", f"{server.base_url}/other"
    token = OTHER_KEY.token(content(issuer, aud="other-api", client_id="c", scope="a b", sub="s"))
    threads = Validator.from_discovery(url, "other-api", clock=clock)
    loop = await AsyncValidator.from_discovery(url, ANY_AUDIENCE, clock=clock)
    for claims in (threads.validate(token), await loop.validate(token)):
        claims.require(scope="b", client="c", issuer=issuer)
        assert (claims.scopes, claims.authorized_party, claims.tenant_id) == (("a", "b"), "c", None)
        assert (claims.is_app, claims.is_user) == (False, False)
    with pytest.raises(InvalidToken) as caught:
        threads.validate(OTHER_KEY.token(content(issuer, aud="other")))
    assert caught.value.expected == "other-api"
    threads.close()
    await loop.aclose()
    server.answers[f"/other{DISCOVERY}"] = Answer(json.dumps({"issuer": f"{issuer}2", "jwks_uri": url}))
    with pytest.raises(KeysUnavailable) as mismatch:
        Validator.from_discovery(url, "other-api")
    assert mismatch.value.code == "discovery_issuer_mismatch"


async def test_an_issuer_for_any_tenant_needs_the_setting(
    environ: pytest.MonkeyPatch, server: KeyServer, make: Make
) -> None:
    """Whether the provider is named or not. Without it, the sentence names it: `validate` has no argument for
    tenants."""
    own, setting = f"{server.base_url}/{CLIENT}", "ENTRA_FAST_ALLOWED_TENANTS"
    environ.setenv("AZURE_OPENID_CONFIG_ISSUER", f"{server.base_url}/{{tenantid}}")
    environ.setenv("ENTRA_FAST_PROVIDER_OTHER_ISSUER", f"{server.base_url}/{{tenantid}}")
    token = ENTRA_KEY.token(content(own, aud=CLIENT, tid=CLIENT))
    for name, missing in (
        (None, setting),
        ("entra_id", setting),
        ("other", "ENTRA_FAST_PROVIDER_OTHER_ALLOWED_TENANTS"),
    ):
        with pytest.raises(ConfigurationError, match=f"{missing} is not set") as caught:
            await make(name)
        assert caught.value.setting == missing
    assert await code(await make(None, tenants=[CLIENT]), token) == "ok"
    for tenants, expected in ((CLIENT.upper(), "ok"), ("*", "ok"), (f"{CLIENT[:-1]}0", "tenant_not_allowed")):
        environ.setenv(setting, tenants)
        for name in (None, "entra_id"):
            assert await code(await make(name), token) == expected
    environ.setenv(setting, "contoso")
    for name in (None, "entra_id"):
        with pytest.raises(ConfigurationError, match=setting):
            await make(name)
