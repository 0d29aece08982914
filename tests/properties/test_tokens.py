"""What must hold for all tokens, policies, times and texts, not only for the examples of the other suites."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from entra_fast import _native
from entra_fast.validate import InvalidToken, KeySet, KeysUnavailable, Validator
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    ISSUER_TEMPLATE,
    NOW,
    OTHER_TENANT,
    TENANT,
    Clock,
    Signer,
    b64,
    good_claims,
    jwks,
    signer,
    validator,
)

many = settings(max_examples=100, deadline=None)
"""No deadline: how long an example takes says nothing about right or wrong."""

ED = signer("ed", "EdDSA")
KEYS = (ED, signer("rsa"), signer("ec", "ES256"))
ALGORITHMS = ["EdDSA", "RS256", "ES256"]

numbers = st.integers(-(10**200), 10**200) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
json_objects = st.dictionaries(st.text(max_size=10), json_values, max_size=12)


def outcome(one: Validator, token: str | bytes) -> str:
    """`ok`, or the code of the refusal."""
    try:
        one.validate(token)
    except (InvalidToken, KeysUnavailable) as error:
        return error.code
    return "ok"


# --- what is returned is what was signed -----------------------------------------------------------------

EVERY_KEY = validator(*KEYS, algorithms=ALGORITHMS)


RECURRING = ("azp", "scp", "ver", "roles", "groups", "idtyp")
"""Claims whose values are kept from one token for the next."""

recurring_values = (
    st.sampled_from(["a", "ab", "2.0", "caf\u00e9", 'a"b', "\U0001f600", "long" * 40]) | json_values
)
tokens_of_one_shape = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(RECURRING, recurring_values | st.lists(st.text(max_size=4), max_size=3))
    ),
    min_size=2,
    max_size=5,
)


@many
@given(extras=tokens_of_one_shape, ascii_only=st.booleans())
def test_no_claim_comes_from_another_token(extras: list[dict[str, Any]], ascii_only: bool) -> None:
    """Tokens with the same names and other values, whatever their types: each dict is that of its token, also
    after a caller has changed the one before."""
    for extra in extras:
        text = json.dumps({**extra, **good_claims()}, ensure_ascii=ascii_only)
        claims = EVERY_KEY.validate(ED.token(text))
        for _ in range(2):
            found = claims.as_dict()
            assert found == json.loads(text)
            for name in (*RECURRING, "iss"):
                if isinstance(found[name], list):
                    found[name].append("changed")
                found[name] = "changed"
            found["added"] = True


@many
@given(extra=json_objects, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3))
def test_claims_are_those_that_were_signed(
    extra: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    """Signed claims are returned as the json module reads them, by every accessor."""
    claims = {**extra, **good_claims()}
    text = json.dumps(claims, ensure_ascii=ascii_only, indent=indent)
    found = EVERY_KEY.validate(ED.token(text))
    assert found.as_json() == text
    assert found.as_dict() == json.loads(text)
    assert dict(found) == json.loads(text)
    assert list(found) == list(found.keys()) == list(claims)
    assert list(found.items()) == list(json.loads(text).items())
    assert len(found) == len(claims)
    assert all(name in found and found[name] == found.get(name) for name in claims)


@many
@given(json_objects)
def test_the_introspection_body_holds_the_claims_verbatim(extra: dict[str, Any]) -> None:
    """`active` first, then the claims' own text; one that is called `active` cannot contradict it."""
    text = json.dumps({**extra, **good_claims()})
    policy = _native.Policy(issuers=[ISSUER], audiences=[AUDIENCE], algorithms=["EdDSA"])
    body = _native.Validator(policy, KeySet(jwks(ED))).introspect(ED.token(text), NOW).decode()
    expected = json.loads(text)
    expected.pop("active", None)
    assert json.loads(body) == {"active": True, **expected}
    if "active" not in extra:
        assert body == '{"active":true,' + text[1:]


@many
@given(kid=st.text(min_size=1, max_size=128))
def test_a_key_is_found_by_its_name(kid: str) -> None:
    """Any `kid` that fits names its key, in every JSON spelling, and no other key."""
    key = ED.named(kid)
    one = validator(key, signer("other", "EdDSA"), algorithms=["EdDSA"])
    one.validate(key.token())
    one.validate(key.token(header=json.dumps(key.header(), ensure_ascii=False)))
    assert outcome(one, key.named(kid + "x").token()) == "unknown_key"


# --- one spelling per token ------------------------------------------------------------------------------

GOOD_TOKENS = [key.token() for key in KEYS]


@many
@given(token=st.sampled_from(GOOD_TOKENS), data=st.data())
def test_any_changed_character_is_refused(token: str, data: st.DataObject) -> None:
    """A token in which one character was replaced, inserted or taken out is no token of ours."""
    position = data.draw(st.integers(0, len(token) - 1))
    # All of the alphabet, its neighbours, and anything else.
    character = data.draw(st.sampled_from(b64(bytes(range(256))) + "=+/. \n") | st.characters(codec="utf-8"))
    kept = data.draw(st.integers(0, 1))
    changed = token[:position] + character + token[position + 1 - kept :]
    assume(changed != token)
    assert outcome(EVERY_KEY, changed) != "ok"
    assert outcome(EVERY_KEY, token[:position] + token[position + 1 :]) != "ok"
    assert outcome(EVERY_KEY, token) == "ok"


@many
@given(
    noise=st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from([*"= \n\t\r\0+/!.", "\u00a0", "\uff21"])), max_size=2
    )
)
@example(noise=[])
def test_one_spelling_per_token(noise: list[tuple[int, str]]) -> None:
    """A spelling that only a lenient decoder accepts is rejected, even if the signature covers it."""
    segments = b64(json.dumps(ED.header())) + "|" + b64(json.dumps(good_claims()))
    for position, text in noise:
        segments = segments[:position] + text + segments[position:]
    header, payload = segments.split("|")
    assert (outcome(EVERY_KEY, ED.sign(header, payload)) == "ok") == (noise == [])


# --- digests ---------------------------------------------------------------------------------------------

parts = st.lists(st.text("ab\0", max_size=4), max_size=4)


@many
@given(st.sampled_from(["token", "exchange"]), parts, st.sampled_from(["token", "exchange"]), parts)
def test_cache_keys_do_not_collide(
    purpose: str, one: list[str], other_purpose: str, other: list[str]
) -> None:
    """Two cache keys are equal only for the same purpose and the very same parts."""
    same = (purpose, one) == (other_purpose, other)
    assert (_native.token_cache_key(purpose, one) == _native.token_cache_key(other_purpose, other)) == same


@many
@given(st.text(), st.text())
def test_the_documented_cache_key(token: str, scope: str) -> None:
    """sha256(subject_token + scope), as anyone can compute it."""
    assert _native.cache_key(token, scope) == hashlib.sha256((token + scope).encode()).hexdigest()
    assert _native.sha256(token.encode()) == hashlib.sha256(token.encode()).digest()


# --- policies --------------------------------------------------------------------------------------------

ISSUERS = [ISSUER, ISSUER.replace(TENANT, OTHER_TENANT), "https://issuer.example"]
AUDIENCES = [AUDIENCE, "api://app", "x"]
near = st.integers(-700, 700).map(lambda seconds: NOW + seconds)


def mostly(good: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly good values: if each choice were as often bad as good, hardly any token would be accepted."""
    return st.one_of(*[st.just(good)] * 9, other)


claims_of_any_kind = st.fixed_dictionaries(
    {
        "iss": mostly(ISSUER, st.sampled_from([*ISSUERS, "y", None])),
        "aud": mostly(AUDIENCE, st.sampled_from([*AUDIENCES, "y", [AUDIENCE, "x"], ["x", 1], []])),
        "tid": mostly(TENANT, st.sampled_from([TENANT.upper(), OTHER_TENANT, "common", None, ABSENT])),
        "exp": mostly(NOW + 3600, near | st.just(ABSENT)),
        "nbf": mostly(NOW, near | st.sampled_from([ABSENT, None])),
        "iat": mostly(NOW, near | st.just(ABSENT)),
        "oid": mostly("o", st.sampled_from([None, ABSENT])),
    }
)


ages = st.none() | st.integers(1, 800)


def subset(values: list[str]) -> st.SearchStrategy[list[str]]:
    return mostly(values, st.lists(st.sampled_from(values), min_size=1, unique=True))


@st.composite
def nested_policies(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A policy, and one that is at least as strict in every respect."""
    lax: dict[str, Any] = {
        "issuer": draw(subset(ISSUERS)),
        "audience": draw(subset(AUDIENCES)),
        "algorithms": draw(subset(ALGORITHMS)),
        "tenants": draw(st.none() | st.just(["*"]) | subset([TENANT, OTHER_TENANT])),
        "leeway": draw(st.integers(0, 600)),
        "required_claims": draw(mostly(["iat"], st.lists(st.sampled_from(["nbf", "oid", "nonce"])))),
        "max_age": draw(ages),
        "max_token_bytes": draw(mostly(65_536, st.integers(900, 2000))),
    }
    if lax["tenants"] is None:
        tenants = draw(st.none() | st.just(["*"]) | subset([TENANT, OTHER_TENANT]))
    elif lax["tenants"] == ["*"]:
        tenants = draw(st.just(["*"]) | subset([TENANT, OTHER_TENANT]))
    else:
        tenants = draw(subset(lax["tenants"]))
    strict = {
        "issuer": draw(subset(lax["issuer"])),
        "audience": draw(subset(lax["audience"])),
        "algorithms": draw(subset(lax["algorithms"])),
        "tenants": tenants,
        "leeway": draw(st.integers(0, lax["leeway"])),
        "required_claims": lax["required_claims"]
        + draw(st.lists(st.sampled_from(["iat", "oid"]), max_size=1)),
        "max_age": draw(ages if lax["max_age"] is None else st.integers(1, lax["max_age"])),
        "max_token_bytes": draw(mostly(lax["max_token_bytes"], st.integers(700, lax["max_token_bytes"]))),
    }
    return lax, strict


bound_to = mostly(ABSENT, st.sampled_from([ISSUER, ISSUER_TEMPLATE, ISSUERS[1]]))


@settings(max_examples=250, deadline=None)
@given(nested_policies(), claims_of_any_kind, st.sampled_from(KEYS), bound_to)
def test_a_stricter_policy_never_accepts_more(
    policies: tuple[dict[str, Any], dict[str, Any]], claims: dict[str, Any], key: Signer, issuer: Any
) -> None:
    """Narrowing any setting of a policy can only turn acceptance into refusal."""
    lax, strict = policies
    token = key.token(**claims)
    keys = [each.jwk(issuer=issuer) for each in KEYS]
    narrow = outcome(validator(*keys, **strict), token)
    event(narrow)  # for --hypothesis-show-statistics: how often anything is accepted
    if narrow == "ok":
        assert outcome(validator(*keys, **lax), token) == "ok"


@many
@given(nested_policies(), claims_of_any_kind, st.sampled_from(KEYS))
def test_explaining_agrees_with_validating(
    policies: tuple[dict[str, Any], Any], claims: dict[str, Any], key: Signer
) -> None:
    """`explain` passes every check exactly when `validate` accepts, and otherwise reports the same error."""
    one, token = validator(*KEYS, **policies[0]), key.token(**claims)
    failures = [row["code"] for row in one.explain(token) if row["passed"] is not True]
    code = outcome(one, token)
    assert (code == "ok") == (not failures)
    if failures:
        assert code in failures


# --- the cache -------------------------------------------------------------------------------------------


@many
@given(
    claims=claims_of_any_kind,
    times=st.lists(near, min_size=1, max_size=12),
    leeway=st.integers(0, 600),
    max_age=st.none() | st.integers(1, 800),
)
def test_a_cached_verification_equals_a_new_one(
    claims: dict[str, Any], times: list[float], leeway: int, max_age: int | None
) -> None:
    """With and without the cache, a token gets the same result at every time, in any order of times."""
    clock = Clock()
    options: dict[str, Any] = {"algorithms": ALGORITHMS, "leeway": leeway, "max_age": max_age, "clock": clock}
    cached, fresh = validator(ED, **options), validator(ED, **options, cache_entries=0)
    token = ED.token(**claims)
    for now in times:
        clock.now = now
        assert outcome(cached, token) == outcome(fresh, token)


# --- JSON ------------------------------------------------------------------------------------------------


@many
@given(json_values, st.booleans(), st.none() | st.integers(0, 2))
def test_json_is_read_as_the_json_module_does(value: Any, ascii_only: bool, indent: int | None) -> None:
    """Round trip through the strict parser."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert _native.parse_json(text) == json.loads(text)
    assert _native.parse_json(text.encode()) == json.loads(text)


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from('[]{}:,"\\u0019aeE+-. \n\tntrf\0\u00e9'), max_size=30))
def test_nothing_is_accepted_that_the_json_module_refuses(text: str) -> None:
    """Everything that the strict parser accepts, the json module accepts too, with the same value."""
    try:
        value = _native.parse_json(text)
    except ValueError:
        return
    assert value == json.loads(text)


@many
@given(st.dictionaries(st.text(max_size=5), json_values, min_size=1, max_size=40), st.data())
def test_duplicate_members_are_always_refused(members: dict[str, Any], data: st.DataObject) -> None:
    """Wherever the second one stands, and however its name is spelled."""
    name = data.draw(st.sampled_from(sorted(members)))
    escaped = "".join(
        f"\\u{unit:04x}" for character in name for unit in memoryview(character.encode("utf-16-le")).cast("H")
    )
    items = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members.items()]
    spellings = [json.dumps(name), json.dumps(name, ensure_ascii=False), f'"{escaped}"']
    spelled = data.draw(st.sampled_from(spellings))
    items.insert(data.draw(st.integers(0, len(items))), f"{spelled}:1")
    with pytest.raises(ValueError, match=r"^a duplicate member$"):
        _native.parse_json("{" + ",".join(items) + "}")
