"""SigningKey as Python sees it: what rust/py adds to rust/core. PyJWT verifies what it signs."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from entra_fast._native import SigningKey
from entra_fast.errors import ConfigurationError

CLAIMS = {"iss": "https://issuer.example", "sub": "someone"}


def foreign_jwk(kind: str) -> dict[str, str]:
    """A private JWK made by other software."""
    if kind == "P-256":
        return dict(json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()))))
    if kind == "P-384":
        return dict(json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()))))
    if kind == "Ed25519":
        return dict(json.loads(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate())))
    key = rsa.generate_private_key(public_exponent=65537, key_size=int(kind))
    return {**json.loads(RSAAlgorithm.to_jwk(key)), "key_ops": ["sign"]}


def public_key(jwk: dict[str, str], algorithm: str) -> jwt.PyJWK:
    """The public half, for PyJWT."""
    public = ("kty", "crv", "n", "e", "x", "y")
    return jwt.PyJWK({name: jwk[name] for name in public if name in jwk}, algorithm=algorithm)


def signed(key: SigningKey) -> str:
    header = {"typ": "JWT", "alg": key.algorithm} | ({} if key.kid is None else {"kid": key.kid})
    return key.sign(json.dumps(header).encode(), json.dumps(CLAIMS).encode())


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("2048", "RS256"),
        ("2048", "RS384"),
        ("2048", "RS512"),
        ("2048", "PS256"),
        ("2048", "PS384"),
        ("2048", "PS512"),
        ("3072", "RS256"),
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("Ed25519", "EdDSA"),
    ],
)
def test_other_software_verifies_what_a_foreign_key_signs(kind: str, algorithm: str) -> None:
    """What a JWK made by other software signs verifies with its public half in other software."""
    jwk = foreign_jwk(kind)
    key = SigningKey.from_jwk(json.dumps({**jwk, "alg": algorithm, "kid": "k"}))
    assert (key.algorithm, key.kid) == (algorithm, "k")
    assert jwt.decode(signed(key), public_key(jwk, algorithm), algorithms=[algorithm]) == CLAIMS


def test_an_rsa_key_signs_with_rs256_unless_it_says_otherwise() -> None:
    """A JWK without `alg` means RS256, and what it does not say is None."""
    jwk = foreign_jwk("2048")
    key = SigningKey.from_jwk(json.dumps(jwk))
    assert (key.algorithm, key.kid, key.x5t, key.x5t_s256) == ("RS256", None, None, None)
    assert jwt.decode(signed(key), public_key(jwk, "RS256"), algorithms=["RS256"]) == CLAIMS


def test_bytes_and_text_are_the_same_key() -> None:
    """A key is accepted as `str` (from environment variables) and as `bytes` (from files)."""
    text = json.dumps(foreign_jwk("Ed25519"))
    assert signed(SigningKey.from_jwk(text)) == signed(SigningKey.from_jwk(text.encode()))


@pytest.mark.parametrize(
    ("jwk", "sentence"),
    [
        ("", "expected a JSON object"),
        (b"\xff", "text that is not UTF-8"),
        ("\udc80", "a lone surrogate"),
        ("-----BEGIN PRIVATE KEY-----", "it is PEM"),
        ('{"keys":[]}', "it is a key set"),
        ('{"kty":"oct","k":"c2VjcmV0"}', "symmetric"),
    ],
)
def test_an_unusable_key_is_a_configuration_error(jwk: str | bytes, sentence: str) -> None:
    """One code, and a sentence that says what was expected."""
    with pytest.raises(ConfigurationError) as caught:
        SigningKey.from_jwk(jwk)
    assert caught.value.code == "signing_key_invalid"
    assert sentence in str(caught.value)


def test_a_key_that_is_neither_text_nor_bytes_is_a_type_error() -> None:
    """A parsed JWK is an easy mistake; its repr must not get into the message."""
    jwk = foreign_jwk("Ed25519")
    with pytest.raises(TypeError, match="jwk must be str or bytes, not dict"):
        SigningKey.from_jwk(jwk)  # type: ignore[arg-type]


def test_a_header_of_another_algorithm_is_refused() -> None:
    """The header must be JSON whose `alg` is the key's; the code says that it is not."""
    key = SigningKey.from_jwk(json.dumps(foreign_jwk("Ed25519")))
    for header in (b"", b"{}", b'{"alg":"none"}', b'{"alg":"RS256"}', b'{"alg":"RS256","alg":"EdDSA"}'):
        with pytest.raises(ConfigurationError) as refused:
            key.sign(header, b"{}")
        assert refused.value.code == "signing_header_invalid"


@pytest.mark.parametrize("kind", ["2048", "P-256", "Ed25519"])
def test_nothing_shows_the_secret(kind: str) -> None:
    """repr, str, format and every refusal: no private member, at no length that would help an attacker."""
    jwk = foreign_jwk(kind)
    key = SigningKey.from_jwk(json.dumps(jwk))
    shown = [repr(key), str(key), f"{key}", *map(str, vars(type(key)))]
    for name in jwk:
        for wrong in ("AAAA", 7, None, jwk["d"] + "=", [jwk["d"]], {jwk["d"]: jwk["d"]}):
            try:
                SigningKey.from_jwk(json.dumps({**jwk, name: wrong}))
            except ConfigurationError as error:
                shown.append(
                    "".join(traceback.format_exception(error, limit=0)) + repr(error) + repr(error.args)
                )
    assert len(shown) > 10
    for name in ("d", "p", "q", "dp", "dq", "qi"):
        assert not any(jwk.get(name, "absent")[:12] in text for text in shown), name


def test_a_key_cannot_be_copied_by_accident() -> None:
    """Pickling would write the secret wherever pickles go."""
    key = SigningKey.from_jwk(json.dumps(foreign_jwk("Ed25519")))
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.copy(key)
    with pytest.raises(AttributeError):
        key.kid = "other"  # type: ignore[misc]


def test_threads_share_a_key() -> None:
    """RSA signatures are made with the GIL released, on one key object."""
    jwk = foreign_jwk("2048")
    key, public = SigningKey.from_jwk(json.dumps(jwk)), public_key(jwk, "RS256")
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda _: signed(key), range(40)))
    assert len(set(tokens)) == 1, "PKCS #1 v1.5 is deterministic"
    assert jwt.decode(tokens[0], public, algorithms=["RS256"]) == CLAIMS
