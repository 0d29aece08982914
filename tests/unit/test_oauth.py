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
    JWT_BEARER_ASSERTION,
    MAX_EXPIRES_IN,
    assertion_fields,
    claims_field,
    client_credentials_form,
    grant_fields,
    http_date,
    jwt_bearer_form,
    maskinporten_code,
    on_behalf_of_form,
    parse_retry_after,
    parse_token_response,
    provider_code,
    refusal,
    scope_for,
    secret_fields,
    token_exchange_form,
    without_secrets,
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


# --- requests ---


def test_the_forms_of_all_grants() -> None:
    """As the RFCs and Entra ID's on-behalf-of flow name their fields, and with the credential's own."""
    credential = {"client_secret": "s"}
    assert client_credentials_form("me", "scope", credential) == {
        "grant_type": "client_credentials",
        "client_id": "me",
        "scope": "scope",
        "client_secret": "s",
    }
    assert on_behalf_of_form("me", "scope", "user", credential) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "requested_token_use": "on_behalf_of",
        "assertion": "user",
        "client_id": "me",
        "scope": "scope",
        "client_secret": "s",
    }
    exchange = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": "user",
        "audience": "target",
        "client_secret": "s",
    }
    assert token_exchange_form("target", "user", credential) == exchange
    assert token_exchange_form("target", "user", credential, client_id="me") == exchange | {"client_id": "me"}
    assert jwt_bearer_form(grant_fields("signed")) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": "signed",
    }


def test_the_fields_of_credentials() -> None:
    """`client_secret_post`, and an assertion with its type."""
    assert secret_fields("s") == {"client_secret": "s"}
    assert assertion_fields("signed") == {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "signed",
    }


# --- limits of what is passed on ---


def refused(**members: object) -> ProviderError:
    """The error that a document with these members means."""
    return refusal(400, {"error": "x", **members}, None)


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ({"suberror": "x" * 16_384}, {"suberror": "x" * 16_385}),
        ({"error_codes": [1] * 32}, {"error_codes": [1] * 33}),
        ({"error_codes": [1]}, {"error_codes": [True]}),
        ({"error_codes": [1]}, {"error_codes": [1, "2"]}),
        ({"error_codes": [1]}, {"error_codes": (1,)}),
    ],
)
def test_the_bounds_of_details(last: dict[str, object], first: dict[str, object]) -> None:
    """What is longer, or of another type, is left out."""
    assert (refused(**last).details, refused(**first).details) == (last, {})


@pytest.mark.parametrize(
    "name", ["suberror", "claims", "correlation_id", "trace_id", "timestamp", "error_uri"]
)
def test_texts_that_are_passed_on(name: str) -> None:
    """Those that Entra ID and Maskinporten document."""
    assert refused(**{name: "text"}).details == {name: "text"}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("a b", "a b"),
        ("x" * 16_384, "x" * 16_384),
        ("a " + "x" * 16_383, "a"),
        ("x" * 16_385, "the provider gave no description"),
        ("", "the provider gave no description"),
        (None, "the provider gave no description"),
        (7, "the provider gave no description"),
    ],
    ids=["short", "longest", "cut", "one long word", "empty", "none", "a number"],
)
def test_a_description_is_bounded(description: object, message: str) -> None:
    """By 16,384 characters, between two words."""
    assert refused(error_description=description).message == message


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("x" * 128, True),
        ("x" * 129, False),
        (" !#[]~", True),
        ("", False),
        ('"', False),
        ("\\", False),
        ("\x7f", False),
        ("\x1f", False),
    ],
)
def test_which_codes_are_oauth_errors(code: str, known: bool) -> None:
    """RFC 6749, section 5.2; anything else is no OAuth error, and is not repeated."""
    error = refusal(400, {"error": code}, 7)
    assert (error.code, error.error) == (
        ("provider_refused", code) if known else ("provider_failed", "server_error")
    )
    assert (error.status, error.retry_after) == (400, 7)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"error_codes": [7000215, 1]}, "AADSTS7000215"),
        ({"error_codes": [1]}, "AADSTS1"),
        ({"error_codes": [99_999_999]}, "AADSTS99999999"),
        ({"error_codes": [100_000_000], "error_description": "AADSTS5: no"}, "AADSTS5"),
        ({"error_codes": [0], "error_description": "AADSTS50013: no"}, "AADSTS50013"),
        ({"error_codes": [], "error_description": "AADSTS50013: no"}, "AADSTS50013"),
        ({"error_description": "not AADSTS50013"}, "x"),
        ({"error_uri": "https://maskinporten.no/errors/MP-250"}, "MP-250"),
        ({"error_uri": "https://maskinporten.no/errors/MP-250/"}, "x"),
        ({"error_uri": "https://maskinporten.no/errors/MP-12345"}, "x"),
        ({}, "x"),
    ],
)
def test_what_names_a_refusal_most_exactly(members: dict[str, object], code: str) -> None:
    """The first of Entra ID's codes, or Maskinporten's, or the OAuth error."""
    assert provider_code(refused(**members)) == code


def test_a_refusal_without_a_uri_has_no_code_of_maskinporten() -> None:
    """Nothing is looked for in it."""
    assert maskinporten_code(refused()) is None


@pytest.mark.parametrize(
    ("status", "code"),
    [(399, "provider_answer_malformed"), (400, "provider_failed"), (599, "provider_failed")],
)
def test_which_statuses_are_errors(status: int, code: str) -> None:
    """400 to 599; the sentence names the status."""
    with pytest.raises(ProviderError) as caught:
        parse(b"{}", status)
    assert caught.value.code == code
    assert str(status) in caught.value.message


@pytest.mark.parametrize(
    ("media_type", "is_json"),
    [
        ("application/json", True),
        (" Application/JSON ; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/json", False),
        ("application/jsonp", False),
        ("text/plain; x=application/json", False),
    ],
)
def test_which_media_types_are_json(media_type: str, is_json: bool) -> None:
    """By their names, without parameters (RFC 6839, section 3.1)."""
    with pytest.raises(ProviderError) as caught:
        parse(b'{"error":"x"}', 400, {"Content-Type": media_type})
    assert (caught.value.code == "provider_refused") is is_json


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (1, True),
        (0, False),
        (0.5, True),
        (MAX_EXPIRES_IN, True),
        (MAX_EXPIRES_IN + 1, False),
        ("000000000003600", True),
        ("0000000000003600", False),
        ("٣", False),
        (True, False),
        (None, False),
    ],
)
def test_the_bounds_of_expires_in(value: object, stated: bool) -> None:
    """A token of an opaque form that does not say how long it lives is not cached."""
    answer = parse_token_response(200, JSON, token_body(access_token="t", expires_in=value), now=NOW)
    assert answer.cacheable is stated


@pytest.mark.parametrize(("size", "accepted"), [(65_536, True), (65_537, False)])
def test_the_largest_token_that_is_accepted(size: int, accepted: bool) -> None:
    """64 KiB."""
    body = token_body(access_token="x" * size)
    if accepted:
        assert len(parse_token_response(200, JSON, body, now=NOW).access_token) == size
    else:
        with pytest.raises(ProviderError):
            parse(body)


@pytest.mark.parametrize(
    ("value", "seconds"), [("000000060", 60), ("0000000060", 3600), (" 60 ", 60), ("3600", 3600)]
)
def test_the_bounds_of_retry_after(value: str, seconds: int) -> None:
    """More than nine digits are as long as allowed."""
    assert parse_retry_after(value, NOW) == seconds


def test_the_longest_date() -> None:
    """64 characters; a date in its plain form has 29."""
    date = "Fri, 15 Jan 2027 08:00:00 GMT"
    assert http_date(date) == NOW
    assert http_date(date + " " * 35) == NOW
    assert http_date(date + " " * 36) is None
    assert http_date("") is None


@pytest.mark.parametrize(
    ("challenge", "capabilities", "sent"),
    [
        (None, (), None),
        ('{"a": 1}', (), '{"a": 1}'),
        (None, ("cp1",), '{"access_token":{"xms_cc":{"values":["cp1"]}}}'),
        (
            '{"userinfo": {}, "access_token": {"acrs": {"value": "c1"}}}',
            ("cp1", "x"),
            '{"userinfo":{},"access_token":{"acrs":{"value":"c1"},"xms_cc":{"values":["cp1","x"]}}}',
        ),
        ('{"access_token": 7}', ("cp1",), '{"access_token":{"xms_cc":{"values":["cp1"]}}}'),
        (
            '{"n":123456789012345678901234567890}',
            ("cp1",),
            '{"n":123456789012345678901234567890,"access_token":{"xms_cc":{"values":["cp1"]}}}',
        ),
        (
            '{"n":[1e400,-1e400,0.5]}',
            ("cp1",),
            '{"n":[1.7976931348623157e+308,-1.7976931348623157e+308,0.5],'
            '"access_token":{"xms_cc":{"values":["cp1"]}}}',
        ),
    ],
)
def test_the_claims_parameter(challenge: str | None, capabilities: tuple[str, ...], sent: str | None) -> None:
    """A challenge as it came, or joined with what the application can handle."""
    assert claims_field(challenge, capabilities) == ({} if sent is None else {"claims": sent})


def test_nothing_that_was_sent_stays_in_an_error() -> None:
    """Not in the sentence, the code or a detail, whole, in part or as a form has it; what is shorter than a
    secret stays, and so do numbers and the type of the assertion."""
    token, secret = "header12.payload12.signature12", "se/ret+1"
    echoed = f"no {token}, header12, signature12, {secret}, se%2Fret%2B1, shorter, {JWT_BEARER_ASSERTION}"
    error = ProviderError(
        "provider_refused", echoed, 401, f"x {secret}", 7, {"error_codes": [1], "suberror": f"of {secret}"}
    )
    clean = without_secrets(error, (token, secret, "shorter", JWT_BEARER_ASSERTION))
    gone = "[removed]"
    assert clean.message == f"no {gone}, {gone}, {gone}, {gone}, {gone}, shorter, {JWT_BEARER_ASSERTION}"
    assert (clean.code, clean.status, clean.error, clean.retry_after) == (
        "provider_refused",
        401,
        f"x {gone}",
        7,
    )
    assert clean.details == {"error_codes": [1], "suberror": f"of {gone}"}
