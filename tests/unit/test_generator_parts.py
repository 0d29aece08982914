"""The token generator's parts without HTTP: audiences, content negotiation, sessions, logins, pages."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entra_fast._web.negotiation import preferred
from entra_fast.generator import pages
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, AudienceError, parse_audience
from entra_fast.generator.login import TICKET_SECONDS, LoginError, Logins
from entra_fast.generator.sessions import MAX_SESSION_SECONDS, SessionStore

TEXT, JSON, HTML = "text/plain", "application/json", "text/html"


class Clock:
    """Time that moves when told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("dev-gcp:team:app", "api://dev-gcp.team.app/.default"),
        ("dev-gcp.team.app", "api://dev-gcp.team.app/.default"),
        ("  dev-gcp:team:app\n", "api://dev-gcp.team.app/.default"),
        ("api://dev-gcp.team.app/.default", "api://dev-gcp.team.app/.default"),
        ("api://dev-gcp.team.app", "api://dev-gcp.team.app"),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com/.default"),
        ("User.Read", "User.Read"),
        ("a:b", "a:b"),
        ("a:b:c:d", "a:b:c:d"),
        ("a:b.c", "a:b.c"),
        ("a::c", "a::c"),
    ],
)
def test_every_spelling_of_an_audience_becomes_its_scope(text: str, scope: str) -> None:
    """Both names become api://<cluster>.<namespace>.<app>/.default; any other scope stays as it is."""
    assert parse_audience([text]).scope == scope


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], "'aud' is missing"),
        ([""], "'aud' is missing"),
        (["a:b:c", "d:e:f"], "given once"),
        (["a b"], "expected"),
        (['javascript:alert("1"):x'], "expected"),
        (["api://\u00e6"], "expected"),
        (["api://a/.default offline_access"], "character"),
        (["api://a/.default\r\nSet-Cookie: x"], "character"),
        (["https://a/" + "x" * MAX_AUDIENCE_CHARACTERS], "longer than"),
    ],
)
def test_a_malformed_audience_is_refused_with_what_was_expected(values: list[str], expected: str) -> None:
    """A second scope, a header or a script cannot be slipped in, and the text never repeats the input."""
    with pytest.raises(AudienceError, match=expected) as caught:
        parse_audience(values)
    for value in values:
        assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("accept", "offers", "expected"),
    [
        (None, [TEXT, JSON], TEXT),
        ("*/*", [TEXT, JSON], TEXT),
        ("application/json", [TEXT, JSON], JSON),
        ("Application/JSON; charset=utf-8", [TEXT, JSON], JSON),
        ("application/json, text/plain, */*", [TEXT, JSON], JSON),
        ("text/plain, application/json", [TEXT, JSON], TEXT),
        ("text/plain;q=0.5, application/json", [TEXT, JSON], JSON),
        ("application/json;q=0, */*", [JSON, HTML], HTML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", [JSON, HTML], HTML),
        ("application/*", [TEXT, JSON], JSON),
        ("image/png", [TEXT, JSON], TEXT),
        ("application/json;q=nan", [TEXT, JSON], TEXT),
        ("application/json;q=1e9, text/plain;q=0.1", [TEXT, JSON], TEXT),
        ("", [TEXT, JSON], TEXT),
    ],
)
def test_the_caller_chooses_the_media_type(accept: str | None, offers: list[str], expected: str) -> None:
    """RFC 9110, section 12.5.1: quality first, then what is named first, then what is offered first."""
    assert preferred(accept, offers) == expected


@given(st.text(max_size=200))
def test_no_accept_header_breaks_the_negotiation(accept: str) -> None:
    """Whatever a caller sends, one of the offers is chosen."""
    assert preferred(accept, [TEXT, JSON]) in {TEXT, JSON}


def test_a_session_is_found_by_its_cookie_only() -> None:
    """Another value, an empty one or none at all finds no session."""
    store = SessionStore()
    cookie = store.create("Kari", "token", 60)
    session = store.find(cookie)
    assert session is not None
    assert session.name == "Kari"
    assert [store.find(wrong) for wrong in (None, "", cookie + "x", cookie[:-1], "\udcff")] == [None] * 5


def test_a_session_ends_with_its_token_and_at_the_latest_after_a_working_day() -> None:
    """The lifetime is the token's, bounded; an expired session is forgotten."""
    clock = Clock()
    store = SessionStore(clock=clock)
    short, long = store.create("Kari", "token", 60), store.create("Ola", "token", 1e9)
    clock.now += 60
    assert store.find(short) is None
    assert store.find(long) is not None
    clock.now += MAX_SESSION_SECONDS
    assert store.find(long) is None
    assert len(store) == 0


def test_sessions_are_bounded_and_the_oldest_goes_first() -> None:
    """A flood of logins costs the oldest logins, not memory."""
    store = SessionStore(max_sessions=3)
    cookies = [store.create(f"user {n}", "token", 60) for n in range(5)]
    assert len(store) == 3
    assert [store.find(cookie) is not None for cookie in cookies] == [False, False, True, True, True]


def test_a_session_does_not_show_its_token() -> None:
    """A session in a log line or a traceback must not hand out the user's token."""
    store = SessionStore()
    assert "canary-token" not in repr(store.find(store.create("Kari", "canary-token", 60)))


def test_a_login_comes_back_with_what_was_asked() -> None:
    """The ticket and its state restore destination, audience, nonce and verifier."""
    logins = Logins(clock=Clock())
    login = logins.begin("obo", "dev-gcp:team:app")
    assert logins.resume(login.ticket, login.state) == login


def test_the_challenge_is_the_hash_of_the_verifier() -> None:
    """RFC 7636, sections 4.1 and 4.2: 43 to 128 unreserved characters, S256."""
    login = Logins().begin("start")
    assert 43 <= len(login.verifier) <= 128
    digest = hashlib.sha256(login.verifier.encode()).digest()
    assert login.challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_logins_share_nothing() -> None:
    """Two logins have different tickets, states, nonces and verifiers, and no two of these are alike."""
    logins = Logins()
    values = [
        v
        for login in (logins.begin("obo"), logins.begin("obo"))
        for v in (login.ticket, login.state, login.nonce, login.verifier)
    ]
    assert len(set(values)) == len(values)


def test_a_callback_needs_the_ticket_of_its_own_login() -> None:
    """Login CSRF (RFC 6749, section 10.12): another browser's state, no state, no ticket."""
    logins = Logins()
    mine, theirs = logins.begin("obo"), logins.begin("obo")
    for ticket, state in [
        (mine.ticket, theirs.state),
        (mine.ticket, None),
        (mine.ticket, ""),
        (mine.ticket, "\udcff"),
        (None, mine.state),
        ("", mine.state),
        ("\udcff", mine.state),
    ]:
        with pytest.raises(LoginError):
            logins.resume(ticket, state)


def test_a_changed_ticket_no_longer_fits_its_state() -> None:
    """The destination cannot be rewritten in the cookie, not even by the browser's owner."""
    logins = Logins(clock=Clock())
    login = logins.begin("obo", "dev-gcp:team:app")
    content = json.loads(base64.urlsafe_b64decode(login.ticket + "=="))
    content[3] = "https://evil.example/"
    forged = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    with pytest.raises(LoginError):
        logins.resume(forged, login.state)
    with pytest.raises(LoginError):
        Logins().resume(login.ticket, login.state)  # a key of another process


def test_a_login_must_be_finished_in_time() -> None:
    """A ticket that is older is useless."""
    clock = Clock()
    logins = Logins(clock=clock)
    login = logins.begin("obo", "a:b:c")
    clock.now += TICKET_SECONDS - 1
    assert logins.resume(login.ticket, login.state) == login
    clock.now += 2
    with pytest.raises(LoginError, match="longer than 10 minutes"):
        logins.resume(login.ticket, login.state)


def test_the_ticket_reveals_neither_nonce_nor_verifier() -> None:
    """The cookie and the redirect together are not enough to redeem the code."""
    login = Logins().begin("obo", "a:b:c")
    content = base64.urlsafe_b64decode(login.ticket + "==").decode()
    assert login.verifier not in content
    assert login.nonce not in content
    assert login.state not in content


def unsigned(claims: dict[str, str]) -> str:
    """A token that nobody has signed."""
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "none"}, claims)
    )
    return ".".join([*(part.rstrip("=") for part in parts), ""])


NASTY = """<script>alert(1)</script>"'&"""


def test_pages_escape_everything_that_comes_from_outside() -> None:
    """HTML injection through names, audiences, errors and descriptions."""
    visitor = pages.Visitor(NASTY, 1, f"?{NASTY}")
    shown = [
        pages.start_page(visitor, issuer=NASTY, base_url=NASTY, audiences=[NASTY], audience=NASTY),
        pages.start_page(visitor, issuer=NASTY, base_url=NASTY, audiences=[NASTY], search=NASTY),
        pages.error_page(visitor, title=NASTY, error=NASTY, description=NASTY, again=NASTY, audience=NASTY),
        pages.token_page(
            visitor,
            base_url=NASTY,
            audience=NASTY,
            on_behalf=True,
            token=unsigned({NASTY: NASTY}),
            expires_in=60,
            now=0.0,
        ),
    ]
    for page in shown:
        assert "<script>alert" not in page
        assert "alert(1)</script" not in page
        assert "\"'&" not in page


def test_a_refusal_says_what_to_change() -> None:
    """A known AADSTS code comes with advice, in addition to the provider's own text."""
    page = pages.error_page(
        pages.Visitor(None, 0),
        title="Refused",
        error="invalid_grant",
        description="AADSTS501051: ...",
        codes=[501051],
    )
    assert "accessPolicy.inbound.rules" in page
    assert "AADSTS501051: ..." in page
    assert "invalid_grant" in page
