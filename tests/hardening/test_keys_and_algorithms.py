"""Attacks on the choice of the key and the algorithm, through the library's front door."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import logging
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from entra_fast import _native
from entra_fast.validate import ConfigurationError, InvalidToken, Issuer, KeySet, KeysUnavailable, Validator
from support.key_server import KEYS_PATH, KeyServer
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    NOW,
    MlDsaKey,
    Signer,
    b64,
    good_claims,
    jwks,
    number,
    refusal,
    segment,
    signer,
    unb64,
    validator,
)

EVERY_ALGORITHM = _native.ALGORITHMS
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_the_good_token_is_accepted() -> None:
    """Every token that is rejected below differs from this one in one respect."""
    for algorithm in EVERY_ALGORITHM:
        key = signer("key-1", algorithm)
        claims = validator(key, algorithms=[algorithm]).validate(key.token())
        assert dict(claims) == good_claims()


# --- alg: none -------------------------------------------------------------------------------------------

NONES = ["".join(letters) for letters in itertools.product("nN", "oO", "nN", "eE")]


@pytest.mark.parametrize("name", [*NONES, " none", "none ", "none\0", ""])
def test_alg_none(name: str) -> None:
    """An unsigned token (RFC 8725, section 3.1) in any letter case, with no, junk or borrowed signature."""
    key = signer()
    borrowed = key.token().rsplit(".", 1)[1]
    unsigned = f"{segment(key.header(alg=name))}.{segment(good_claims())}"
    strict, lax = validator(), validator(algorithms=EVERY_ALGORITHM)
    for signature in ("", "AA", b64(b"junk" * 64), borrowed):
        for one in (strict, lax):
            assert refusal(one, f"{unsigned}.{signature}").code == "algorithm_not_allowed"
    assert refusal(strict, unsigned).code == "not_a_jwt"


def test_alg_none_cannot_be_configured() -> None:
    """A policy that accepts unsigned or symmetric tokens cannot be made."""
    for name in ("none", "HS256", "HS384", "HS512", "dir", "", "rs256", "ES256K", "RS256 "):
        with pytest.raises(ConfigurationError) as caught:
            validator(algorithms=["RS256", name])
        assert (caught.value.code, caught.value.setting) == ("setting_invalid", "algorithms")


# --- symmetric confusion ---------------------------------------------------------------------------------


def public_key_spellings(key: Signer) -> dict[str, bytes]:
    """Every form in which an attacker may know the public key, for use as an HMAC secret."""
    encoding, form = serialization.Encoding, serialization.PublicFormat
    assert isinstance(key.key, rsa.RSAPrivateKey)
    modulus = key.key.public_key().public_numbers().n.to_bytes(256, "big")
    pem, jwk = key.pem(), json.dumps(key.jwk()).encode()
    return {
        "modulus": modulus,
        "modulus with the sign byte of DER": b"\0" + modulus,
        "modulus as in the key set": key.jwk()["n"].encode(),
        "PEM": pem,
        "PEM without its last line break": pem.rstrip(),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM with a byte order mark": b"\xef\xbb\xbf" + pem,
        "PEM with spaces in front": b"  \n" + pem,
        "PEM on one line": pem.replace(b"\n", b""),
        "PKCS#1 PEM": key.public_bytes(encoding.PEM, form.PKCS1),
        "DER": key.public_bytes(encoding.DER),
        "PKCS#1 DER": key.public_bytes(encoding.DER, form.PKCS1),
        "OpenSSH": key.public_bytes(encoding.OpenSSH, form.OpenSSH),
        "JWK text": jwk,
        "JWK text without spaces": json.dumps(key.jwk(), separators=(",", ":")).encode(),
        "JWK text with a byte order mark": b"\xef\xbb\xbf" + jwk,
        "key set text": jwks(key).encode(),
        "kid": b"key-1",
        "nothing": b"",
    }


@pytest.mark.parametrize("spelling", public_key_spellings(signer()))
def test_hmac_with_the_public_key(spelling: str) -> None:
    """HS* signed with the public key as the secret (CVE-2024-33663, CVE-2026-34950)."""
    key = signer()
    secret = public_key_spellings(key)[spelling]
    strict, lax = validator(), validator(algorithms=EVERY_ALGORITHM)
    for bits in ("256", "384", "512"):
        # The header may also claim an algorithm that is allowed while the signature is an HMAC.
        for name in (f"HS{bits}", f"RS{bits}"):
            signed = f"{segment(key.header(alg=name))}.{segment(good_claims())}"
            token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), f'sha{bits}'))}"
            # Of the algorithms that the lax one accepts, a key without `alg` serves the first of its type.
            known = "signature_invalid" if name == "RS256" else "algorithm_not_allowed"
            assert refusal(lax, token).code == refusal(strict, token).code == known


def test_a_symmetric_key_in_the_key_set() -> None:
    """A key set that holds a secret: the entry is dropped, and its HMAC tokens stay refused."""
    secret = b"s" * 32
    entry = {"kty": "oct", "kid": "secret", "k": b64(secret), "alg": "HS256"}
    signed = f"{segment({'typ': 'JWT', 'alg': 'HS256', 'kid': 'secret'})}.{segment(good_claims())}"
    token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"
    assert (
        refusal(validator(signer(), entry, algorithms=EVERY_ALGORITHM), token).code == "algorithm_not_allowed"
    )
    assert [kid for kid, _ in KeySet(jwks(signer(), entry)).dropped] == ["secret"]
    with pytest.raises(KeysUnavailable, match="symmetric"):
        validator(entry)


# --- who decides the algorithm ---------------------------------------------------------------------------


def test_the_header_cannot_widen_the_algorithms() -> None:
    """Entra ID's JWKs have no `alg` (CVE-2026-22817): configuration still decides, not the header."""
    key = signer()
    assert "alg" not in key.jwk()
    only_rs256 = validator(key)
    for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        token = key.using(algorithm).token()  # a good signature by the published key
        error = refusal(only_rs256, token)
        assert (error.code, error.expected, error.actual) == ("algorithm_not_allowed", "RS256", algorithm)
        validator(key, algorithms=[algorithm]).validate(token)


def test_an_allowed_algorithm_of_another_key_type() -> None:
    """A header that names an algorithm the policy allows, but for a key of another type."""
    rsa_key, ec_key, ed_key = signer("rsa"), signer("ec", "ES256"), signer("ed", "EdDSA")
    lax = validator(rsa_key, ec_key, ed_key, algorithms=EVERY_ALGORITHM)
    for actual, claimed in itertools.permutations((rsa_key, ec_key, ed_key), 2):
        token = actual.named(claimed.kid).token()
        assert refusal(lax, token).code == "algorithm_not_allowed"


@pytest.mark.parametrize("first", ["RS256", "PS256", "PS384"])
def test_one_key_one_algorithm(first: str) -> None:
    """An RSA key without `alg` verifies the first accepted algorithm and no other
    (draft-ietf-oauth-rfc8725bis, section 3.1), in whatever order its tokens come."""
    key = signer()
    order = [first, *(name for name in ("PS256", "RS256", "PS384", "RS512") if name != first)]
    one = validator(key, algorithms=["ES256", *order])
    for _ in range(2):
        for name in reversed(order):
            token = key.using(name).token()
            if name == first:
                one.validate(token)
                continue
            error = refusal(one, token)
            assert (error.code, error.expected, error.actual) == ("algorithm_not_allowed", first, name)
    for name in order:
        validator(key.jwk(alg=name), algorithms=order).validate(key.using(name).token())


def test_one_key_under_two_names_serves_one_algorithm() -> None:
    """Two entries of one key, for different algorithms: the first accepted one counts for both."""
    key = signer()
    entries = key.jwk(kid="rs", alg="RS256"), key.jwk(kid="ps", alg="PS256")
    rs, ps = key.named("rs").token(), key.named("ps").using("PS256").token()
    for keys in (entries, entries[::-1]):
        validator(*keys, algorithms=["RS256", "PS256"]).validate(rs)
        assert refusal(validator(*keys, algorithms=["RS256", "PS256"]), ps).code == "algorithm_not_allowed"
        validator(*keys, algorithms=["PS256", "RS256"]).validate(ps)
        assert refusal(validator(*keys, algorithms=["PS256", "RS256"]), rs).code == "algorithm_not_allowed"
        validator(*keys).validate(rs)  # the default accepts nothing but RS256


def test_algorithms_in_a_set_have_a_fixed_order() -> None:
    """A set has no order of its own, so the documented one counts: the same in every process."""
    key = signer()
    for algorithms in ({"PS256", "RS256"}, frozenset({"RS512", "PS256", "RS256"}), {"RS256": 1, "PS256": 2}):
        one = validator(key, algorithms=algorithms)
        one.validate(key.token())
        assert refusal(one, key.using("PS256").token()).code == "algorithm_not_allowed"
    issuer = Issuer(issuer=ISSUER, jwks=jwks(key), algorithms={"PS256", "RS256"})
    Validator(audience=AUDIENCE, issuers=[issuer], clock=lambda: NOW).validate(key.token())
    with pytest.raises(ConfigurationError, match="algorithms must be among RS256"):
        validator(key, algorithms={"RS256", "Ed448"})


def test_the_two_names_of_ed25519() -> None:
    """`Ed25519` (RFC 9864) and `EdDSA` are one algorithm: a key serves both, whichever its `alg` says. The
    configuration lists the names that a header may have."""
    key = signer("ed", "Ed25519")
    old, new = key.using("EdDSA").token(), key.token()
    for changes in ({}, {"alg": "EdDSA"}, {"alg": "Ed25519"}):
        jwk = key.jwk(**changes)
        both = validator(jwk, algorithms=["Ed25519", "EdDSA"])
        both.validate(old)
        both.validate(new)
        validator(jwk, algorithms=["Ed25519"]).validate(new)
        validator(jwk, algorithms=["EdDSA"]).validate(old)
        error = refusal(validator(jwk, algorithms=["Ed25519"]), old)
        assert (error.code, error.expected, error.actual) == ("algorithm_not_allowed", "Ed25519", "EdDSA")
        assert refusal(validator(jwk, algorithms=["EdDSA"]), new).actual == "Ed25519"


def test_ed448_is_not_offered() -> None:
    """Neither name of EdDSA ever means Ed448: not by configuration, by a header, or by a key."""
    key = signer("ed", "Ed25519")
    lax = validator(key, algorithms=EVERY_ALGORITHM)
    error = refusal(lax, key.token(header={"alg": "Ed448"}))
    assert (error.code, error.actual) == ("algorithm_not_allowed", "Ed448")
    with pytest.raises(ConfigurationError):
        validator(key, algorithms=["Ed448"])
    curve = ed448.Ed448PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed448", "kid": "ed", "x": b64(curve.public_key().public_bytes_raw())}
    for changes in ({}, {"alg": "EdDSA"}, {"alg": "Ed448"}, {"alg": "Ed25519"}):
        with pytest.raises(KeysUnavailable, match="curve"):
            validator({**jwk, **changes}, algorithms=EVERY_ALGORITHM)
        header = segment({"typ": "JWT", "kid": "ed", "alg": changes.get("alg", "EdDSA")})
        signed = f"{header}.{segment(good_claims())}"
        refusal(lax, f"{signed}.{b64(curve.sign(signed.encode()))}")
    with pytest.raises(KeysUnavailable, match="alg"):
        validator(key.jwk(alg="Ed448"), algorithms=EVERY_ALGORITHM)


# --- ML-DSA ----------------------------------------------------------------------------------------------

ML_DSA = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@pytest.mark.parametrize("algorithm", ML_DSA)
def test_ml_dsa(algorithm: str) -> None:
    """Tokens that OpenSSL has signed with ML-DSA (RFC 9964) are accepted where the algorithm is, and a change
    of any part is noticed."""
    key = signer("pq", algorithm)
    one = validator(key, algorithms=[algorithm, "RS256"])
    token = key.token()
    for _ in range(2):
        assert dict(one.validate(token)) == good_claims()
    assert one.stats()["cache_hits"] == 1
    assert dict(one.validate(key.token(groups=["g" * 36] * 1000))) == good_claims(groups=["g" * 36] * 1000)
    signed, signature = token.rsplit(".", 1)
    raw = unb64(signature)
    for wrong in (raw[:-1], raw + b"\0", b"", bytes(len(raw)), raw[:100] + bytes([raw[100] ^ 1]) + raw[101:]):
        assert refusal(one, f"{signed}.{b64(wrong)}").code == "signature_invalid"
    assert refusal(one, f"{signed}.{b64(bytes(10_000))}").code == "not_a_jwt"
    assert refusal(one, f"{key.token(jti='x').rsplit('.', 1)[0]}.{signature}").code == "signature_invalid"
    assert isinstance(key.key, MlDsaKey)
    context = key.key.sign(signed.encode(), b"context")
    assert refusal(one, f"{signed}.{b64(context)}").code == "signature_invalid"
    # Nothing accepts it that was not told to.
    error = refusal(validator(key), token)
    assert (error.code, error.expected, error.actual) == ("algorithm_not_allowed", "RS256", algorithm)


def test_ml_dsa_keys_are_for_their_own_algorithm() -> None:
    """An AKP key is what its `alg` says (RFC 9964, section 3): the header cannot choose another one."""
    keys = [signer(name, name) for name in ML_DSA]
    lax = validator(*keys, algorithms=EVERY_ALGORITHM)
    for actual, claimed in itertools.permutations(keys, 2):
        assert refusal(lax, actual.named(claimed.kid).token()).code == "algorithm_not_allowed"
        assert refusal(lax, actual.using(claimed.algorithm).token()).code == "algorithm_not_allowed"
    good = keys[0].jwk()
    for changes, reason in (
        ({"alg": ABSENT}, "lacks an alg"),
        ({"alg": "ML-DSA-65"}, "wrong length"),
        ({"alg": "ML-DSA-99"}, "alg"),
        ({"alg": "RS256"}, "alg"),
        ({"pub": ABSENT}, "parameter"),
        ({"pub": b64(unb64(good["pub"])[:-1])}, "wrong length"),
        ({"pub": b64(keys[0].public_bytes(serialization.Encoding.DER))}, "wrong length"),
        ({"priv": b64(bytes(32))}, "private"),
        ({"kty": "OKP"}, "curve"),
    ):
        with pytest.raises(KeysUnavailable, match=reason):
            validator(keys[0].jwk(**changes), algorithms=EVERY_ALGORITHM)


def test_the_alg_of_a_jwk_binds() -> None:
    """A JWK that says PS256 verifies no RS256, whatever the policy allows."""
    key = signer()
    lax = validator(key.jwk(alg="PS256"), algorithms=EVERY_ALGORITHM)
    assert refusal(lax, key.token()).code == "algorithm_not_allowed"
    lax.validate(key.using("PS256").token())


def test_a_header_seen_before_does_not_skip_the_policy() -> None:
    """Two policies on one key set: what one of them learned about a header must not serve the other."""
    key, keys = signer(), _native.KeySet(jwks(signer()))
    settings: dict[str, Any] = {"issuers": [ISSUER], "audiences": [AUDIENCE]}
    pss = _native.Validator(_native.Policy(**settings, algorithms=["PS256", "RS256"]), keys)
    others = [
        _native.Validator(_native.Policy(**settings, algorithms=algorithms), keys)
        for algorithms in (["RS256"], ["RS256", "PS256"])
    ]
    for count in range(3):
        token = key.using("PS256").token(count=count)
        pss.validate(token, NOW)
        for other in others:
            with pytest.raises(InvalidToken) as caught:
                other.validate(token, NOW)
            assert caught.value.code == "algorithm_not_allowed"


# --- keys that the token brings along --------------------------------------------------------------------


def test_keys_in_the_header_are_ignored() -> None:
    """`jwk`, `x5c`, `jku`, `x5u` of the attacker's key (CVE-2018-0114, CVE-2026-27962) are ignored, and no
    request is ever made for them."""
    key, attacker = signer(), signer("attacker")
    with KeyServer(jwks(key)) as provider, KeyServer(jwks(attacker)) as foreign:
        brought: list[dict[str, Any]] = [
            {"jwk": attacker.jwk()},
            {"jwk": attacker.jwk(), "kid": "attacker"},
            {"jku": foreign.keys_url, "kid": "attacker"},
            {"jku": foreign.keys_url, "kid": key.kid},
            {"x5u": foreign.keys_url},
            {"x5c": [b64(attacker.pem())]},
            {"x5t": b64(hashlib.sha1(attacker.pem()).digest())},
            {"x5t#S256": b64(hashlib.sha256(attacker.pem()).digest())},
        ]
        one = Validator(ISSUER, AUDIENCE, jwks_uri=provider.keys_url, clock=lambda: NOW)
        with one:
            for header in brought:
                stolen = attacker.token(header={"kid": key.kid, **header})
                assert refusal(one, stolen).code in ("signature_invalid", "unknown_key")
                # What is ignored does not make a good token bad either.
                one.validate(key.token(header={**header, "kid": key.kid}))
        assert foreign.requests == []
        assert set(provider.requests) == {KEYS_PATH}


# --- kid -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kid", [7, 0, -1, 1.5, True, None, ["key-1"], {"kid": "key-1"}, "k" * 513])
def test_kid_of_another_kind(kid: object) -> None:
    """`kid` as a number, null, an array, an object, or too long: refused, never converted or skipped."""
    assert refusal(validator(), signer().token(header={"kid": kid})).code == "not_a_jwt"


def test_kid_of_a_megabyte() -> None:
    """A huge `kid` meets the size limit before anything is parsed, and its own limit where that is high."""
    token = signer().token(header={"kid": "k" * 700_000})
    assert refusal(validator(), token).code == "token_too_large"
    assert refusal(validator(max_token_bytes=1 << 20), token).code == "not_a_jwt"


HOSTILE_KIDS = [
    "../../../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/keys",
    "' OR '1'='1",
    "key-1'; DROP TABLE keys; --",
    "key-1\n2030-01-01 INFO everything is fine",
    "key-1\r\nX-Injected: yes",
    "key-1\0",
    "\0",
    "",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "\u2028\u2029",
    "{{7*7}}${jndi:ldap://example.com}",
    "%s%s%n",
    "KEY-1",
    " key-1",
    "ke\u0443-1",
    "k" * 512,
]


@pytest.mark.parametrize("kid", HOSTILE_KIDS)
def test_hostile_kid(kid: str, caplog: pytest.LogCaptureFixture) -> None:
    """`kid` as path, SQL, line break, escape sequence: an unknown key, and safe in a log line."""
    caplog.set_level(logging.DEBUG)
    key = signer()
    with KeyServer(jwks(key)) as provider:
        one = Validator(ISSUER, AUDIENCE, jwks_uri=provider.keys_url, clock=lambda: NOW)
        with one:
            error = refusal(one, key.token(header={"kid": kid}))
            one.validate(key.token())
    assert error.code == "unknown_key"
    assert error.actual is not None
    assert len(error.actual) <= 512 + 3
    assert all(
        record.getMessage().isprintable() for record in caplog.records if record.name.startswith("entra_fast")
    )
    assert set(provider.requests) == {KEYS_PATH}


def test_a_missing_kid_is_ambiguous() -> None:
    """A token without `kid` is accepted only if one key could have signed it: keys are not tried in turn."""
    first, second = signer(), signer("key-2")
    token = first.named(None).token()
    validator(first).validate(token)
    assert refusal(validator(first, second), token).code == "unknown_key"


# --- ECDSA -----------------------------------------------------------------------------------------------


def ecdsa_forgeries(key: Signer, signed: bytes) -> dict[str, bytes]:
    """Signatures that some verifier has accepted."""
    good = key.signature(signed)
    size = len(good) // 2
    r, s = int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big")

    def raw(r: int, s: int) -> bytes:
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    der = encode_dss_signature(r, s)
    return {
        "r and s are 0 (CVE-2022-21449)": raw(0, 0),
        "r is 0": raw(0, s),
        "s is 0": raw(r, 0),
        "r and s are the order": raw(P256_ORDER, P256_ORDER),
        "r is the order": raw(P256_ORDER, s),
        "s is the order": raw(r, P256_ORDER),
        "r and s are 1": raw(1, 1),
        "all bits set": b"\xff" * (2 * size),
        "r and s swapped": raw(s, r),
        "DER instead of raw": der,
        "DER filled up": der.ljust(2 * size, b"\0"),
        "DER of zeros": encode_dss_signature(0, 0),
        "one byte short": good[:-1],
        "one byte long": good + b"\0",
        "a zero in front": b"\0" + good,
        "halves with a zero each": b"\0" + good[:size] + b"\0" + good[size:],
        "only r": good[:size],
        "twice": good + good,
        "empty": b"",
    }


@pytest.mark.parametrize("forgery", ecdsa_forgeries(signer("ec", "ES256"), b""))
def test_ecdsa_forgery(forgery: str) -> None:
    """ES256 with r or s of 0 (CVE-2022-21449), of a wrong length, or in DER (RFC 7518, section 3.4)."""
    key = signer("ec", "ES256")
    one = validator(key, algorithms=["ES256"])
    signed = f"{segment(key.header())}.{segment(good_claims())}"
    signature = ecdsa_forgeries(key, signed.encode())[forgery]
    assert refusal(one, f"{signed}.{b64(signature)}").code == "signature_invalid"


def test_curve_and_algorithm_must_match() -> None:
    """A P-384 key under ES256, and a P-256 key under ES384 (RFC 7518, section 3.4)."""
    small, large = signer("small", "ES256"), signer("large", "ES384")
    both = validator(small, large, algorithms=["ES256", "ES384"])
    both.validate(small.token())
    both.validate(large.token())
    for key, wrong in ((small, "ES384"), (large, "ES256")):
        assert refusal(both, key.using(wrong).token()).code == "algorithm_not_allowed"


def test_invalid_curve_points() -> None:
    """A public key off its curve, at infinity, or of another curve never gets into a set."""
    small = signer("small", "ES256")
    x, y = small.jwk()["x"], small.jwk()["y"]
    one_off = bytearray(unb64(y))
    one_off[-1] ^= 1
    zeros = b64(bytes(32))
    for bad in (
        small.jwk(y=b64(bytes(one_off))),
        small.jwk(x=zeros, y=zeros),
        small.jwk(crv="P-384"),
        small.jwk(crv="P-521"),
        small.jwk(crv="secp256k1"),
        small.jwk(x=b64(b"\0" + unb64(x))),
        small.jwk(y=b64(unb64(y)[1:])),
        small.jwk(crv="Ed25519", kty="OKP"),
    ):
        keys = KeySet(jwks(signer(), bad))
        assert (keys.kids, [kid for kid, _ in keys.dropped]) in (
            (("key-1",), ["small"]),
            (("key-1", "small"), []),
        )
        if not keys.dropped:
            # Only a 32-byte x can pass as Ed25519, where any bytes are a candidate; then nothing verifies.
            assert bad["kty"] == "OKP"
            one = validator(signer(), bad, algorithms=EVERY_ALGORITHM)
            assert refusal(one, small.token()).code == "algorithm_not_allowed"


# --- RSA -------------------------------------------------------------------------------------------------


def test_rsa_signature_length() -> None:
    """A signature of another length than the modulus, though the same number (RFC 8017, section 8.2.2)."""
    key = signer()
    one = validator(key)
    # Search for a signature that starts with a zero byte: without it, it is the same number in fewer bytes.
    for count in range(5000):
        header, payload = segment(key.header()), segment(good_claims(count=count))
        signed = f"{header}.{payload}"
        signature = key.signature(signed.encode())
        if signature[0] == 0:
            break
    else:
        pytest.fail("no signature with a leading zero in 5000")
    variants = {
        "short": signature[1:],
        "long": b"\0" + signature,
        "trailing": signature + b"\0",
        "double": signature * 2,
        "half": signature[:128],
        "zeros": bytes(256),
        "ones": b"\xff" * 256,
        "empty": b"",
        "larger than any key": b"\1" * 2000,
    }
    for variant in variants.values():
        error = refusal(one, f"{signed}.{b64(variant)}")
        assert error.code in ("signature_invalid", "not_a_jwt")
    one.validate(f"{signed}.{b64(signature)}")


def test_rsa_signature_plus_modulus() -> None:
    """s + n is the same number modulo n; only s below n is a signature (RFC 8017, section 5.2.2)."""
    key = signer()
    assert isinstance(key.key, rsa.RSAPrivateKey)
    modulus = key.key.public_key().public_numbers().n
    for count in range(200):
        signed = f"{segment(key.header())}.{segment(good_claims(count=count))}"
        larger = int.from_bytes(key.signature(signed.encode()), "big") + modulus
        if larger < 1 << 2048:
            assert (
                refusal(validator(key), f"{signed}.{b64(larger.to_bytes(256, 'big'))}").code
                == "signature_invalid"
            )
            return
    pytest.skip("the modulus is too close to 2^2048 for any of 200 signatures")


def test_weak_rsa_keys_are_dropped() -> None:
    """A modulus under 2048 bits, exponent 1, an even exponent, the structure of ROCA (CVE-2017-15361): such
    keys never get into a set, and other keys keep working."""
    weak = signer("weak", bits=1024)
    good = signer().jwk()
    modulus = int.from_bytes(unb64(good["n"]), "big")
    primes = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
    product = 2
    for prime in primes:
        product *= prime
    roca = product * ((1 << 2047) // product + 1) + 65537  # a power of 65537 modulo each of the primes
    bad: dict[str, dict[str, Any]] = {
        "2048": weak.jwk(),
        "more than 8192": {**good, "n": number((1 << 8200) + 1)},
        "even": {**good, "n": number(modulus + 1)},
        "ROCA": {**good, "n": number(roca)},
        "exponent": {**good, "e": number(1)},
        "exponent ": {**good, "e": number(2)},
        "exponent  ": {**good, "e": number((1 << 64) + 1)},
        "parameter": {**good, "e": ""} | {"e": "AQAB="},
        "parameter ": {**good, "n": good["n"][:-1] + "+"},
    }
    for reason, jwk in bad.items():
        keys = KeySet(jwks(signer("key-2"), {**jwk, "kid": "weak"}))
        assert keys.kids == ("key-2",), reason
        [(kid, said)] = keys.dropped
        assert kid == "weak"
        assert reason.strip() in said
    one = validator(signer(), weak.jwk())
    assert refusal(one, weak.token()).code == "unknown_key"
    one.validate(signer().token())


def test_ed25519_key_of_small_order() -> None:
    """For a point of small order anybody can sign: with R the neutral point and S = 0 every eighth message
    verifies, or more. Such keys never get into a set."""
    p = 2**255 - 19
    order_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    ys = [0, 1, p - 1, p, p + 1, int.from_bytes(order_8, "little"), p - int.from_bytes(order_8, "little")]
    good = signer("good", "EdDSA")
    for y in ys:
        for sign in (0, 1 << 255):
            weak = good.jwk(kid="weak", x=b64((y | sign).to_bytes(32, "little")))
            keys = KeySet(jwks(good, weak))
            assert (keys.kids, [kid for kid, _ in keys.dropped]) == (("good",), ["weak"])
            assert "small order" in keys.dropped[0][1]
            one = validator(good, weak, algorithms=["EdDSA"])
            head = segment({"alg": "EdDSA", "kid": "weak"})
            for count in range(16):
                token = f"{head}.{segment(good_claims(count=count))}.{b64(bytes([1]) + bytes(63))}"
                assert refusal(one, token).code == "unknown_key"
            one.validate(good.token())


def test_exponent_one_forgery() -> None:
    """With e = 1 the padded message is its own signature: anyone can make it, and it is never accepted."""
    key = signer()
    jwk = key.jwk(kid="one", e=number(1))
    signed = f"{segment(key.header(kid='one'))}.{segment(good_claims())}"
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(signed.encode()).digest()
    padded = b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info
    assert refusal(validator(key, jwk), f"{signed}.{b64(padded)}").code == "unknown_key"
    with pytest.raises(KeysUnavailable, match="exponent"):
        validator(jwk)


# --- the key set's entries -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": "SIG"},
        {"use": ""},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": ["sign"]},
        {"key_ops": ["encrypt", "wrapKey"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": None},
        {"use": "enc", "key_ops": ["verify"]},
        {"alg": "RS1"},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"alg": 256},
    ],
    ids=repr,
)
def test_keys_for_something_else(change: dict[str, Any]) -> None:
    """`use`, `key_ops` or `alg` not for verifying (RFC 7517, sections 4.2 to 4.4): the key is dropped."""
    other = signer("key-2")
    one = validator(signer(), other.jwk(**change))
    assert refusal(one, other.token()).code == "unknown_key"
    one.validate(signer().token())


def test_duplicate_kid() -> None:
    """Two keys under one `kid`: neither is trusted, whichever comes first; the same key twice is one key."""
    first, second, good = signer(), signer("key-2").named("key-1"), signer("key-3")
    for pair in ((first, second), (second, first)):
        one = validator(*pair, good)
        for key in pair:
            assert refusal(one, key.token()).code == "unknown_key"
        one.validate(good.token())
        assert len(KeySet(jwks(*pair, good)).dropped) == 2
    validator(first, first, good).validate(first.token())
    with pytest.raises(KeysUnavailable):
        validator(first, second)


def test_one_bad_entry_in_a_set() -> None:
    """Bad entries are dropped and counted; the good keys keep working."""
    bad: list[Any] = [
        None, 1, "key", [], {}, {"kty": "RSA"}, {"kty": "RSA", "n": 1, "e": 2}, {"kty": None},
        {"kty": "EC", "crv": "P-256"}, {"kty": "oct", "k": "AAAA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        signer("bad").jwk(kid=7), signer("bad").jwk(kid="k" * 1000), signer("bad").jwk(issuer=7),
        {**signer("bad").jwk(), "d": "AQAB"},
    ]  # fmt: skip
    text = json.dumps({"keys": [*bad, signer().jwk(), *bad]})
    keys = KeySet(text)
    assert (keys.kids, len(keys.dropped)) == (("key-1",), 2 * len(bad))
    with KeyServer(text) as provider:
        one = Validator(ISSUER, AUDIENCE, jwks_uri=provider.keys_url, clock=lambda: NOW)
        with one:
            one.validate(signer().token())
            stats = one.stats()
    assert (stats["keys"], stats["keys_dropped"]) == (1, 2 * len(bad))


def test_reasons_for_dropping_repeat_nothing() -> None:
    """The reasons for dropping a key are sentences that hold nothing of the key."""
    key = signer("secret-name")
    dropped = dict(
        KeySet(jwks(signer(), {**key.jwk(), "d": "c2VjcmV0"}, {**key.jwk(kid="x"), "use": "enc"})).dropped
    )
    assert dropped == {
        "secret-name": "contains a private key, so anyone who reads it can sign",
        "x": "is not for signatures (use)",
    }


def test_a_token_signed_by_an_ec_key_over_another_curve() -> None:
    """A secp256k1 signature is 64 bytes too; under ES256 it is refused, and ES256K is not offered."""
    key = Signer("ec", "ES256", ec.generate_private_key(ec.SECP256K1()))
    one = validator(signer("ec", "ES256"), algorithms=["ES256"])
    assert refusal(one, key.token()).code == "signature_invalid"
    assert refusal(one, key.token(header={"alg": "ES256K"})).code == "algorithm_not_allowed"
