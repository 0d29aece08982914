"""OAuth with the provider: forms, answers, Retry-After."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entra_fast._provider.oauth import (
    MAX_EXPIRES_IN,
    parse_retry_after,
    parse_token_response,
    provider_code,
    scope_for,
)
from entra_fast.errors import EntraFastError, ProviderError

NOW = 1_800_000_000.0
JSON = {"Content-Type": "application/json; charset=utf-8"}
GUID = "12345678-1234-1234-1234-123456789abc"


@pytest.mark.parametrize(
    ("target", "scope"),
    [
        ("dev-gcp:team:app", "api://dev-gcp.team.app/.default"),
        ("api://dev-gcp.team.app/.default", "api://dev-gcp.team.app/.default"),
        (f"api://{GUID}/.default", f"api://{GUID}/.default"),
        ("api://x/Some.Scope", "api://x/Some.Scope"),
        ("api://a/.default offline_access", "api://a/.default offline_access"),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com/.default"),
        (f"{GUID}/.default", f"{GUID}/.default"),
    ],
)
def test_targets_and_their_scopes(target: str, scope: str) -> None:
    """The three-part form becomes a scope; scopes stay as they are."""
    assert scope_for(target) == scope


@given(st.text())
def test_no_target_becomes_a_scope_with_characters_that_no_scope_has(target: str) -> None:
    """Whatever is sent: a scope in RFC 6749's alphabet, or a refusal that does not repeat it."""
    try:
        scope = scope_for(target)
    except EntraFastError:
        return
    assert scope.isascii()
    assert scope.isprintable()
    assert not set(scope) & {'"', "\\"}


def token_body(**changes: object) -> bytes:
    members = {"token_type": "Bearer", "expires_in": 3599, "access_token": "opaque", **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def parse(body: bytes, status: int = 200, headers: Mapping[str, str] = JSON) -> object:
    return parse_token_response(status, headers, body, now=NOW)


@pytest.mark.parametrize(("value", "seconds"), [(3599, 3599), ("3599", 3599), (3599.5, 3599.5), (1, 1)])
def test_a_plausible_expires_in(value: object, seconds: float) -> None:
    """A number, or a string of digits as some versions of the provider send."""
    answer = parse_token_response(200, JSON, token_body(expires_in=value), now=NOW)
    assert (answer.expires_in, answer.cacheable) == (seconds, True)


@pytest.mark.parametrize(
    "value",
    [None, 0, -1, True, False, "0", "-5", "1e3", "", " 60", "٣", [], {}, 10**9, 2**70, 1e300, "9" * 400],
)
def test_a_token_without_a_plausible_expires_in_is_not_cached(value: object) -> None:
    """The token is handed out, and not cached."""
    answer = parse_token_response(200, JSON, token_body(expires_in=value), now=NOW)
    assert not answer.cacheable
    assert answer.access_token == "opaque"


def test_nan_is_no_json() -> None:
    """NaN and Infinity make the whole response malformed."""
    for value in (b"NaN", b"Infinity", b"-Infinity"):
        body = b'{"token_type":"Bearer","access_token":"x","expires_in":' + value + b"}"
        with pytest.raises(ProviderError) as caught:
            parse(body)
        assert caught.value.code == "provider_answer_malformed"


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2ln"


def test_a_token_that_has_expired_on_arrival_is_refused() -> None:
    """Whatever expires_in says: by the provider's own clock the token has ended."""
    with pytest.raises(ProviderError, match="already expired"):
        parse(token_body(access_token=jwt(exp=NOW - 1)))


def test_the_token_s_own_end_limits_its_lifetime() -> None:
    """A token does not outlive its own exp, whatever expires_in says."""
    answer = parse_token_response(200, JSON, token_body(access_token=jwt(exp=NOW + 60)), now=NOW)
    assert answer.expires_in == 60


@pytest.mark.parametrize(("seconds", "stated"), [(600, 600), (1e12, MAX_EXPIRES_IN)])
def test_the_token_s_own_end_stands_in_for_a_missing_expires_in(seconds: float, stated: float) -> None:
    """An application learns when the token ends, within reason; it is not cached all the same."""
    body = token_body(access_token=jwt(exp=NOW + seconds), expires_in=None)
    answer = parse_token_response(200, JSON, body, now=NOW)
    assert (answer.expires_in, answer.cacheable) == (stated, False)


def test_the_provider_s_clock_counts_and_not_the_local_one() -> None:
    """A local clock that is an hour ahead does not kill fresh tokens: the Date header counts."""
    headers = {**JSON, "Date": "Fri, 15 Jan 2027 08:00:00 GMT"}  # NOW
    answer = parse_token_response(200, headers, token_body(access_token=jwt(exp=NOW + 3599)), now=NOW + 7200)
    assert (answer.expires_in, answer.cacheable) == (3599, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": "a b"},
        {"access_token": "a\n"},
        {"access_token": "æ"},
        {"access_token": "x" * 70_000},
        {"token_type": None},
        {"token_type": "mac"},
        {"token_type": 1},
    ],
)
def test_an_answer_without_a_usable_token_is_malformed(changes: dict[str, object]) -> None:
    """server_error with status 500, and nothing of the answer in it."""
    with pytest.raises(ProviderError) as caught:
        parse(token_body(**changes))
    assert (caught.value.code, caught.value.status, caught.value.error) == (
        "provider_answer_malformed", 500, "server_error",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html", token_body()),
        (200, "", token_body()),
        (200, "application/json", b"<html>"),
        (200, "application/json", b"[]"),
        (200, "application/json", b'{"access_token":"a","access_token":"b","token_type":"Bearer"}'),
        (201, "application/json", token_body()),
        (204, "application/json", b""),
        (302, "application/json", b""),
        (600, "application/json", b"{}"),
        (0, "application/json", b"{}"),
    ],
)
def test_a_malformed_answer_is_a_server_error(status: int, content_type: str, body: bytes) -> None:
    """Wrong type, wrong status, wrong JSON: 500 server_error."""
    with pytest.raises(ProviderError) as caught:
        parse(body, status, {"Content-Type": content_type})
    assert (caught.value.code, caught.value.status) == ("provider_answer_malformed", 500)


def test_a_refusal_passes_only_what_is_known_and_well_typed() -> None:
    """Known members of the right type; nothing else of what the provider wrote."""
    body = json.dumps(
        {
            "error": "invalid_grant",
            "error_description": "AADSTS65001: consent",
            "error_codes": [65001],
            "suberror": "consent_required",
            "claims": {"not": "a string"},
            "trace_id": 7,
            "secret_internal": "x",
        }
    ).encode()
    with pytest.raises(ProviderError) as caught:
        parse(body, 400)
    error = caught.value
    assert (error.status, error.error, error.message) == (400, "invalid_grant", "AADSTS65001: consent")
    assert error.details == {"error_codes": [65001], "suberror": "consent_required"}
    assert provider_code(error) == "AADSTS65001"


@pytest.mark.parametrize(
    "codes", [[2**53], [-(10**30)], [1.5], [True], ["65001"], [65001, None], [1] * 33, 65001]
)
def test_error_codes_that_are_none_are_left_out(codes: object) -> None:
    """A number that not every JSON parser reads would make the answer to the application impossible."""
    with pytest.raises(ProviderError) as caught:
        parse(json.dumps({"error": "invalid_grant", "error_codes": codes}).encode(), 400)
    assert caught.value.details == {}
    assert provider_code(caught.value) == "invalid_grant"


@pytest.mark.parametrize("words", [3, 100_000])
def test_a_long_description_ends_between_words(words: int) -> None:
    """A quoted token is complete or absent: half a token could not be found and removed."""
    description = " ".join(f"word{i:06}" for i in range(words))
    with pytest.raises(ProviderError) as caught:
        parse(json.dumps({"error": "x", "error_description": description}).encode(), 400)
    assert len(caught.value.message) <= 16_384
    assert description.startswith(caught.value.message)
    assert caught.value.message.split(" ")[-1] in description.split(" ")


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, JSON, b"{}"),
        (401, JSON, b'{"error":5}'),
        (401, JSON, b'{"error":"a\\u0000b"}'),
        (429, {"Content-Type": "text/plain"}, b'{"error":"x"}'),
        (503, {"Content-Type": "text/html"}, b"<h1>sorry</h1>"),
        (500, JSON, b""),
    ],
)
def test_an_error_status_without_an_oauth_body(status: int, headers: dict[str, str], body: bytes) -> None:
    """The status stays, the error is server_error, the body is not repeated."""
    with pytest.raises(ProviderError) as caught:
        parse(body, status, headers)
    error = caught.value
    assert (error.code, error.status, error.error) == ("provider_failed", status, "server_error")
    assert "sorry" not in error.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("0", 1),
        ("7200", 3600),
        ("9" * 500, 3600),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 1),
        ("Fri, 15 Jan 2028 08:00:00 GMT", 3600),
        ("Fri, 99 Foo 2027 08:02:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: int | None) -> None:
    """Seconds or an HTTP date, from 1 s to 1 h; what is neither is ignored."""
    assert parse_retry_after(value, NOW) == seconds


def test_a_retry_after_date_is_one_of_the_provider_s_clock() -> None:
    """A local clock that is an hour ahead does not end the window before it began: the Date header counts."""
    headers = {"Date": "Fri, 15 Jan 2027 08:00:00 GMT", "Retry-After": "Fri, 15 Jan 2027 08:02:00 GMT"}
    with pytest.raises(ProviderError) as caught:
        parse_token_response(429, headers, b"", now=NOW + 3600)
    assert caught.value.retry_after == 120


@given(st.text(max_size=80))
def test_retry_after_never_fails(value: str) -> None:
    """Any header value gives None or a bounded number."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 1 <= seconds <= 3600


@given(st.binary(max_size=200), st.integers(0, 999))
def test_any_answer_is_a_token_or_a_provider_error(body: bytes, status: int) -> None:
    """No input crashes the reading of an answer."""
    with suppress(ProviderError):
        parse(body, status)


def test_a_token_that_only_looks_like_a_jwt_is_opaque() -> None:
    """Its end is what expires_in says; no representation of the answer holds the token."""
    answer = parse_token_response(200, JSON, token_body(access_token="a.!.c", expires_in=60), now=NOW)
    assert (answer.expires_in, answer.cacheable) == (60, True)
    assert repr(answer) == "TokenResponse(expires_in=60.0, cacheable=True)"


@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "x" * 65, "nonsense"])
def test_a_date_that_is_none_is_ignored(date: str) -> None:
    """The local clock counts then."""
    headers = JSON | {"Date": date}
    answer = parse_token_response(200, headers, token_body(access_token=jwt(exp=NOW + 60)), now=NOW)
    assert answer.expires_in == 60
