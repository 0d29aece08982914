"""Attacks on how a token is spelled and parsed. What can be signed is signed by the good key here, so that
the spelling alone is at fault."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from entra_fast import _native
from entra_fast.validate import InvalidToken, KeysUnavailable, Validator, unverified_claims, unverified_header
from support.tokens import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    NOW,
    b64,
    good_claims,
    jwks,
    refusal,
    segment,
    signer,
    validator,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def members(value: dict[str, Any]) -> str:
    """The members of an object as JSON text, without the braces."""
    return json.dumps(value)[1:-1]


# --- base64url -------------------------------------------------------------------------------------------


def other_spellings(segment: str) -> dict[str, str]:
    """The same bytes, in spellings that a lenient decoder accepts."""
    spellings = {
        "padding": segment + "=" * (-len(segment) % 4 or 4),
        "one pad": segment + "=",
        "line break": segment + "\n",
        "CRLF inside": segment[:8] + "\r\n" + segment[8:],
        "space in front": " " + segment,
        "space inside": segment[:4] + " " + segment[4:],
        "tab": segment + "\t",
        "NUL": segment + "\0",
        "no-break space": segment + "\u00a0",
        "percent-encoded": segment[:-1] + f"%{ord(segment[-1]):02x}",
        "full width": chr(ord(segment[0]) + 0xFEE0) + segment[1:],
        "junk that decoders skip": segment[:4] + "!" + segment[4:],
    }
    if "-" in segment or "_" in segment:
        spellings["+/"] = segment.replace("-", "+").replace("_", "/")
    if bits := {2: 4, 3: 2}.get(len(segment) % 4):  # unused bits of the last character
        last = ALPHABET.index(segment[-1])
        assert last & ((1 << bits) - 1) == 0
        spellings |= {f"trailing bits {n}": segment[:-1] + ALPHABET[last | n] for n in range(1, 1 << bits)}
    return spellings


def padded_header(length: int) -> str:
    """A good header segment of some length modulo 4, with the characters that + and / stand for."""
    for pad in range(6):
        candidate = segment({**signer().header(), "x": "\u00ff?>~" + "~" * pad})
        if len(candidate) % 4 == length:
            return candidate
    raise AssertionError


@pytest.mark.parametrize("length", [0, 2, 3])
@pytest.mark.parametrize("part", ["header", "payload", "signature"])
def test_second_spelling_of_a_segment(part: str, length: int) -> None:
    """Padding, `+/`, white space, non-zero trailing bits: a second spelling would be a second cache key."""
    one = validator()
    good = padded_header(length)
    if part == "header":
        variants = [signer().sign(text, segment(good_claims())) for text in other_spellings(good).values()]
        one.validate(signer().sign(good, segment(good_claims())))
    elif part == "payload":
        claims = next(
            text
            for pad in range(6)
            if len(text := segment({**good_claims(), "x": "\u00ff?>~" + "~" * pad})) % 4 == length
        )
        header = segment(signer().header())
        variants = [signer().sign(header, text) for text in other_spellings(claims).values()]
        one.validate(signer().sign(header, claims))
    else:
        # RSA signatures of 2048, 3072 and 4096 bits leave 2, 0 and 3 characters over.
        key = {2: signer(), 0: signer("3072", bits=3072), 3: signer("4096", bits=4096)}[length]
        one = validator(key)
        token = key.token(length=length)
        signed, signature = token.rsplit(".", 1)
        variants = [f"{signed}.{text}" for text in other_spellings(signature).values()]
        one.validate(token)
    for variant in variants:
        assert refusal(one, variant).code in ("not_a_jwt", "claims_not_an_object")
    assert one.stats()["cache_entries"] == 1


def test_white_space_around_a_token() -> None:
    """A token copied with a line break or its scheme is refused, not trimmed into a second spelling."""
    token, one = signer().token(), validator()
    for form in ("{}\n", " {}", "{} ", "\ufeff{}", "Bearer {}", '"{}"', "{}\0", "{},{}"):
        assert refusal(one, form.replace("{}", token)).code in ("not_a_jwt", "token_encrypted")
    # str and bytes are the same token.
    assert one.validate(token) == one.validate(token.encode())
    assert one.stats()["cache_entries"] == 1


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6, 60])
def test_number_of_segments(count: int) -> None:
    """Exactly three segments: a token with fewer or more is refused before anything is decoded."""
    good = signer().token().split(".")
    for parts in ((good * count)[:count], [""] * count, ["x"] * count):
        token = ".".join(parts)
        expected = "token_encrypted" if token.count(".") == 4 else "not_a_jwt"
        assert refusal(validator(), token).code == expected


def test_empty_segments() -> None:
    """Three segments some of which are empty are no token."""
    header, payload, signature = signer().token().split(".")
    one = validator()
    assert refusal(one, "..").code == "not_a_jwt"
    assert refusal(one, f".{payload}.{signature}").code == "not_a_jwt"
    assert refusal(one, f"{header}..{signature}").code == "signature_invalid"
    assert refusal(one, f"{header}.{payload}.").code == "signature_invalid"
    assert refusal(one, signer().sign(header, "")).code == "claims_not_an_object"


@pytest.mark.parametrize("token", ["\ud800", "a.b.\udfff", "\ud83d.\ude00.x"])
def test_text_that_cannot_be_encoded(token: str) -> None:
    """A str with half a surrogate pair has no bytes at all: a clean refusal, no UnicodeEncodeError."""
    error = refusal(validator(), token)
    assert (error.code, error.actual) == ("not_a_jwt", "a lone surrogate")


def test_other_types() -> None:
    """A value that is neither str nor bytes is a programming error, not an invalid token."""
    one = validator()
    for value in (None, 7, bytearray(b"a.b.c"), memoryview(b"a.b.c"), ["a.b.c"], object()):
        with pytest.raises(TypeError):
            one.validate(value)  # type: ignore[arg-type]


# --- duplicates and letter case --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    ['"alg":"RS256"', '"alg":"none"', '"kid":"key-1"', '"kid":"other"', '"typ":"JWT"', '"\\u0061lg":"RS256"'],
)
def test_duplicate_header_members(extra: str) -> None:
    """One parser takes the first `alg`, another the last: two are refused (RFC 7515, section 4)."""
    good = members(signer().header())
    for text in (f"{{{good},{extra}}}", f"{{{extra},{good}}}"):
        error = refusal(validator(), signer().token(header=text))
        assert (error.code, error.actual) == ("not_a_jwt", "a duplicate member")


@pytest.mark.parametrize(
    "extra",
    [
        '"exp":9999999999',
        '"\\u0065xp":9999999999',
        f'"aud":"{AUDIENCE}"',
        f'"iss":"{ISSUER}"',
        '"roles":["admin"]',
        '"tid":null',
        '"nested":{"a":1,"a":2}',
        '"nested":[[{"a":{"b":1,"c":2,"\\u0062":3}}]]',
    ],
)
def test_duplicate_claims(extra: str) -> None:
    """Two claims of one name at any depth, also spelled with escapes (RFC 7519, section 4): refused."""
    good = members(good_claims())
    for text in (f"{{{good},{extra}}}", f"{{{extra},{good}}}"):
        error = refusal(validator(), signer().token(text))
        assert (error.code, error.actual) == ("claims_not_an_object", "a duplicate member")


def test_duplicate_members_in_a_key_set() -> None:
    """A key set with two `keys`, or a key with two moduli, is ambiguous: nothing of it is taken."""
    first, second = jwks(signer())[1:-1], jwks(signer("key-2"))[1:-1]
    modulus = f'"n":"{signer("key-2").jwk()["n"]}"'
    twice = json.dumps({"keys": [signer().jwk()]}).replace('"kty"', f'{modulus}, "kty"')
    for text in (f"{{{first},{second}}}", twice):
        with pytest.raises(KeysUnavailable, match="duplicate member"):
            Validator(ISSUER, AUDIENCE, jwks=text)


def test_duplicate_members_in_a_request_body() -> None:
    """The parser of request bodies is the same strict one."""
    for text in ('{"token":"a","token":"b"}', '{"token":"a","\\u0074oken":"b"}'):
        with pytest.raises(ValueError, match="duplicate member"):
            _native.parse_json(text)


def test_letter_case_of_names() -> None:
    """Names are case-sensitive: `EXP` is not `exp`, in the header either."""
    one = validator()
    for name in ("exp", "iss", "aud", "iat"):
        claims = good_claims()
        claims[name.upper()] = claims.pop(name)
        error = refusal(one, signer().token(claims))
        assert (error.code, str(error)) == ("claim_missing", f"token is missing the required claim '{name}'")
    # A variant next to the real one is just another claim.
    shouting = one.validate(signer().token(Exp=0, AUD="x", Iss=None))
    assert (shouting["exp"], shouting["Exp"]) == (good_claims()["exp"], 0)
    assert refusal(one, signer().token(header={"alg": ABSENT, "Alg": "RS256"})).code == "not_a_jwt"
    two_keys = validator(signer(), signer("key-2"))
    assert refusal(two_keys, signer().token(header={"kid": ABSENT, "Kid": "key-1"})).code == "unknown_key"
    with pytest.raises(KeysUnavailable):
        validator({name.upper(): value for name, value in signer().jwk().items()})


# --- header parameters that change the meaning -----------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["x"], "x": 1},
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": ["alg"]},
        {"crit": []},
        {"crit": [""]},
        {"crit": "x"},
        {"crit": {"x": 1}},
        {"crit": None},
        {"crit": False},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
        {"b64": "false"},
        {"b64": None},
        {"b64": 0},
        {"zip": "DEF"},
        {"zip": None},
        {"enc": "A256GCM"},
        {"cty": "JWT"},
        {"cty": "application/jwt"},
    ],
    ids=repr,
)
def test_header_that_must_be_understood(header: dict[str, Any]) -> None:
    """`crit` (unknown, empty, not an array), `b64`: false (RFC 7797), `zip`, `enc`, `cty`: refused."""
    error = refusal(validator(), signer().token(header=header))
    assert error.code == "header_not_accepted"
    assert any(f"'{name}'" in str(error) for name in header)


def test_unencoded_payload() -> None:
    """A token with `b64`: false whose signature covers the raw payload (RFC 7797, section 3)."""
    header = segment(signer().header(b64=False, crit=["b64"]))
    payload = json.dumps(good_claims()).replace(".", "")
    assert refusal(validator(), signer().sign(header, payload)).code == "header_not_accepted"


def test_encrypted_token() -> None:
    """A JWE (five segments) is refused before any of it is decoded, however broken the segments are."""
    one = validator()
    header = segment({"alg": "dir", "enc": "A256GCM", "kid": "key-1"})
    jwe = f"{header}..{b64(b'iv')}.{b64(b'text')}.{b64(b'tag')}"
    for token in (
        jwe,
        "....",
        "!.!.!.!.!",
        "a" * 10_000 + "." + "." * 3,
        "\u00e9.\u00e9.\u00e9.\u00e9.\u00e9",
    ):
        error = refusal(one, token)
        assert (error.code, str(error)) == ("token_encrypted", "token is encrypted, which is not accepted")


def test_nested_token() -> None:
    """A token whose payload is a token, with and without saying so in `cty`."""
    inner = signer().token()
    assert refusal(validator(), signer().token(inner)).code == "claims_not_an_object"
    assert refusal(validator(), signer().token(inner, header={"cty": "JWT"})).code == "header_not_accepted"
    assert refusal(validator(), signer().token(json.dumps(inner))).code == "claims_not_an_object"


def test_compressed_payload() -> None:
    """Compressed claims, announced or not: nothing is ever inflated, so there is no decompression bomb."""
    bomb = zlib.compress(json.dumps({**good_claims(), "pad": " " * 10_000_000}).encode(), 9)
    assert refusal(validator(), signer().token(bomb)).code == "claims_not_an_object"
    assert refusal(validator(), signer().token(bomb, header={"zip": "DEF"})).code == "header_not_accepted"


# --- JSON ------------------------------------------------------------------------------------------------

DEPTH = 100_000
GOOD = members(good_claims())

BAD_JSON: dict[str, str | bytes] = {
    "arrays 10^5 deep": "[" * DEPTH + "]" * DEPTH,
    "arrays 10^5 deep, not closed": "[" * DEPTH,
    "objects 10^5 deep": '{"a":' * DEPTH + "1" + "}" * DEPTH,
    "nesting inside good members": f'{{{GOOD},"x":{"[" * 65}{"]" * 65}}}',
    "a lone high surrogate": f'{{{GOOD},"x":"\\ud800"}}',
    "a lone low surrogate": f'{{{GOOD},"x":"\\udc00"}}',
    "surrogates in the wrong order": f'{{{GOOD},"x":"\\ude00\\ud83d"}}',
    "a lone surrogate in a name": f'{{{GOOD},"\\ud800":1}}',
    "bad UTF-8": f'{{{GOOD},"x":"'.encode() + b'\xff"}',
    "overlong UTF-8": f'{{{GOOD},"x":"'.encode() + b'\xc0\xaf"}',
    "UTF-8 of a surrogate": f'{{{GOOD},"x":"'.encode() + b'\xed\xa0\x80"}',
    "Latin-1": f'{{{GOOD},"x":"\u00e9"}}'.encode("latin-1"),
    "UTF-16": f"{{{GOOD}}}".encode("utf-16"),
    "UTF-16 without a mark": f"{{{GOOD}}}".encode("utf-16-le"),
    "UTF-32": f"{{{GOOD}}}".encode("utf-32"),
    "a byte order mark": f"\ufeff{{{GOOD}}}",
    "NaN": f'{{{GOOD},"x":NaN}}',
    "Infinity": f'{{{GOOD},"x":Infinity}}',
    "-Infinity": f'{{{GOOD},"x":-Infinity}}',
    "trailing bytes": f"{{{GOOD}}}x",
    "a second object": f"{{{GOOD}}}{{}}",
    "a trailing NUL": f"{{{GOOD}}}\0",
    "a trailing comma": f"{{{GOOD},}}",
    "a comment": f"{{{GOOD}/* */}}",
    "single quotes": f"{{{GOOD},'x':1}}",
    "a bare name": f"{{{GOOD},x:1}}",
    "a control character": f'{{{GOOD},"x":"\n"}}',
    "an unknown escape": f'{{{GOOD},"x":"\\x41"}}',
    "a number with a leading zero": f'{{{GOOD},"x":01}}',
    "a hexadecimal number": f'{{{GOOD},"x":0x10}}',
    "a number of 60,000 digits": f'{{{GOOD},"x":{"1" * 60_000}}}',
    "not closed": f"{{{GOOD}",
    "nothing": "",
    "white space": "  ",
    "an array": f"[{{{GOOD}}}]",
    "a string": '"text"',
    "null": "null",
    "true": "true",
    "a number": "1",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_claims_that_are_not_a_strict_object(name: str) -> None:
    """Deep nesting, lone surrogates, bad UTF-8, a BOM, NaN, trailing bytes in signed claims: refused."""
    token = signer().token(BAD_JSON[name])
    assert refusal(validator(max_token_bytes=1 << 20), token).code == "claims_not_an_object"


@pytest.mark.parametrize("name", BAD_JSON)
def test_header_that_is_not_a_strict_object(name: str) -> None:
    """The same in the header, which is parsed before anything is verified."""
    text = BAD_JSON[name]
    good = members(signer().header())
    header = (
        text.replace(GOOD.encode(), good.encode()) if isinstance(text, bytes) else text.replace(GOOD, good)
    )
    token = signer().token(header=header)
    assert refusal(validator(max_token_bytes=1 << 20), token).code == "not_a_jwt"


def test_bad_json_in_a_key_set() -> None:
    """The same in a key set: an error, no crash, and nothing taken."""
    for text in BAD_JSON.values():
        with pytest.raises(KeysUnavailable) as caught:
            Validator(ISSUER, AUDIENCE, jwks=text)
        assert caught.value.code == "key_set_invalid"


def test_what_is_odd_but_good() -> None:
    """Unusual but valid JSON is accepted: white space, escapes, surrogate pairs, big numbers, 64 levels."""
    text = (
        f' \r\n\t{{ {GOOD} , "x" : {"[" * 63}{"]" * 63}, "pair":"\\ud83d\\ude00", "\\u0061\\/":"\\u0000",'
        ' "big":123456789012345678901234567890, "float":1.5e300 } \n'
    )
    claims = validator().validate(signer().token(text))
    assert claims.as_dict() == json.loads(text)
    assert claims.as_json() == text


# --- size ------------------------------------------------------------------------------------------------


def token_of(length: int) -> str:
    """A good token of exactly that many bytes."""
    for pad in range(4):
        header = segment({**signer().header(), "x": "x" * pad})
        room = length - len(header) - len("..") - 342  # the signature
        payload = segment(json.dumps(good_claims()).ljust(room * 3 // 4))
        if len(payload) == room:
            return signer().sign(header, payload)
    raise AssertionError


def test_size_limit() -> None:
    """Over the limit (64 KiB by default) a token is refused before it is parsed; at the limit it is good."""
    assert _native.MAX_TOKEN_BYTES == 65_536
    one = validator()
    one.validate(token_of(65_536))
    for junk in (token_of(65_537), "." * 65_537, "x" * 1_000_000, "\u00e9" * 40_000, b"\0" * 65_537):
        error = refusal(one, junk)
        assert (error.code, error.expected) == ("token_too_large", "at most 65536 bytes")
    small = validator(max_token_bytes=1500)
    small.validate(token_of(1500))
    assert refusal(small, token_of(1501)).code == "token_too_large"


# --- what is checked is what is returned -----------------------------------------------------------------


def test_the_returned_claims_are_the_checked_ones() -> None:
    """One parse feeds both: claims that another parser would read otherwise cannot slip through."""

    def spelled(name: str) -> str:
        return "".join(f"\\u{ord(character):04x}" for character in name)

    escaped = ",".join(f'"{spelled(name)}":{json.dumps(value)}' for name, value in good_claims().items())
    escaped = f"{{{escaped}}}"
    claims = validator().validate(signer().token(escaped))
    assert claims.as_dict() == good_claims()
    assert (claims["aud"], claims["exp"], claims.expires_at) == (AUDIENCE, NOW + 3900, NOW + 3900)
    assert claims.as_json() == escaped
    # Reading the same bytes unverified gives the same result.
    assert unverified_claims(signer().token(escaped)) == good_claims()
    assert unverified_header(signer().token()) == signer().header()


def test_unverified_looks_are_as_strict() -> None:
    """`unverified_header` and `unverified_claims` refuse what `validate` refuses to parse."""
    for token in ("", "a.b", "....", "\ud800", segment({"alg": "none"}) + "..", "x" * 70_000):
        with pytest.raises(InvalidToken):
            unverified_claims(token)
    assert unverified_header(f"{segment({'alg': 'none'})}.{segment({})}.") == {"alg": "none"}
    assert unverified_claims(f"{segment({'alg': 'none'})}.{segment({'a': [1]})}.") == {"a": [1]}
