"""The fast path and the slow path answer with the same bytes: status line, header lines in their order, body.
Only the value of Date may differ.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest
import pytest_asyncio
from aiohttp import web

from support.fast_path import (
    EXCHANGE,
    INTROSPECT,
    TARGET,
    TOKEN,
    Connection,
    fast_path_answers,
    form_request,
    introspection,
    json_request,
    status,
    token_request,
)
from support.keys import Key
from support.provider import CLIENT_ID, Provider
from support.sidecars import Started, StartSidecar
from support.wire import request_bytes

ENTRA = {"identity_provider": "entra_id"}
USER = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.c2ln"
STRANGER = Key.generate()

Made = Callable[[Provider], bytes]


@pytest_asyncio.fixture
async def both(provider: Provider, start: StartSidecar) -> tuple[Started, Started]:
    """With the fast path and without, both with the same stopped clock and the same tokens in their
    caches."""
    now = time.time()

    async def granting(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        life = 240 if "brief" in form["scope"] else 3599
        return web.json_response(
            {"token_type": "Bearer", "expires_in": life, "access_token": f"token-for-{form['scope']}"}
        )

    provider.always = granting
    fast, slow = await start(), await start(ENTRA_FAST_FAST_PATH="false")
    for sidecar in (fast, slow):
        sidecar.clock.stop(now)
        for target in (TARGET, "api://c.n.brief/.default", "https://graph.microsoft.com/.default"):
            assert (await sidecar.call.token(target)).status == 200
            assert (await sidecar.call.exchange(USER, target)).status == 200
        sidecar.clock.advance(17.5)
    return fast, slow


async def ways(both: tuple[Started, Started], request: bytes) -> tuple[bytes, bytes, int]:
    """The answers of both ways, and how many of them the fast path gave."""
    fast, slow = both
    before = fast_path_answers(fast)
    answers = []
    for sidecar in (fast, slow):
        async with await Connection.to(sidecar) as connection:
            answers.append(await connection.ask(request))
    return answers[0], answers[1], fast_path_answers(fast) - before


def signed(provider: Provider, claims: str) -> str:
    header = json.dumps({"alg": "RS256", "kid": provider.key.kid}).encode()
    return provider.key.sign(header, claims.encode())


def tampered(token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[:-8]}{signature[-8:][::-1].replace('=', '')}"


def unsigned(header: dict[str, object], claims: str = "{}") -> str:
    def encoded(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    return f"{encoded(json.dumps(header))}.{encoded(claims)}.c2ln"


def verbatim(provider: Provider) -> str:
    now = int(time.time())
    return (
        f'{{ "iss":"{provider.issuer}","aud":["x","{CLIENT_ID}"],"iat":{now},"exp":{now + 600}.50,'
        '"nested":{"b":1.0,"a":[1e2,0.10,"æ\\u00f8 \\" \\\\"],"none":null},"big":12345678901234567890123}'
    )


def now() -> int:
    return int(time.time())


BY_FAST_PATH: dict[str, Made] = {
    "token, JSON": lambda _: token_request(),
    "token, JSON with escapes": lambda _: json_request(
        TOKEN,
        b'{"target":"api:\\/\\/c.n.a\\u002f.default", "identity_provider":"azuread","skip_cache":false}',
    ),
    "token, JSON with more": lambda _: json_request(
        TOKEN, {**ENTRA, "target": TARGET, "more": [1, {"a": None}]}
    ),
    "token, skip_cache null": lambda _: json_request(TOKEN, {**ENTRA, "target": TARGET, "skip_cache": None}),
    "token, three parts": lambda _: json_request(TOKEN, {**ENTRA, "target": "c:n:a"}),
    "token, form": lambda _: form_request(TOKEN, {**ENTRA, "target": TARGET}),
    "token, form, plain colons": lambda _: form_request(TOKEN, b"identity_provider=azuread&target=c:n:a&x="),
    "token, form, skip_cache=false": lambda _: form_request(
        TOKEN, {**ENTRA, "target": TARGET, "skip_cache": "false"}
    ),
    "token, brief": lambda _: token_request("api://c.n.brief/.default"),
    "token, https": lambda _: token_request("https://graph.microsoft.com/.default"),
    "token, content type with charset": lambda _: json_request(
        TOKEN, {**ENTRA, "target": TARGET}, {"Content-Type": "Application/JSON ; charset=utf-8"}
    ),
    "token, many headers": lambda _: token_request(**{f"X-Header-{i}": "value" * 5 for i in range(40)}),
    "token, keep-alive": lambda _: token_request(Connection="Keep-Alive"),
    "token, not a browser": lambda _: token_request(Host="[::1]:3000", Accept="*/*", Cookie="a=b"),
    "exchange, JSON": lambda _: json_request(EXCHANGE, {**ENTRA, "target": TARGET, "user_token": USER}),
    "exchange, form": lambda _: form_request(EXCHANGE, {**ENTRA, "target": "c:n:a", "user_token": USER}),
    "active": lambda p: introspection(p.mint()),
    "active, form": lambda p: form_request(INTROSPECT, {**ENTRA, "token": p.mint()}),
    "active, verbatim": lambda p: introspection(signed(p, verbatim(p))),
    "active, long": lambda p: introspection(p.mint(groups=[f"group-{i}" for i in range(2000)])),
    "active, few claims": lambda p: introspection(p.mint(nbf=None, sub=None, uti=None)),
    "expired": lambda p: introspection(p.mint(exp=now() - 3600, iat=now() - 7200, nbf=None)),
    "not yet": lambda p: introspection(p.mint(nbf=now() + 3600)),
    "from the future": lambda p: introspection(p.mint(iat=now() + 3600, nbf=None)),
    "other issuer": lambda p: introspection(p.mint(iss="https://evil.example")),
    "other audience": lambda p: introspection(p.mint(aud="else")),
    "no iat": lambda p: introspection(p.mint(iat=None)),
    "exp is text": lambda p: introspection(p.mint(exp="tomorrow")),
    "bad signature": lambda p: introspection(tampered(p.mint())),
    "signed by a stranger with the right kid": lambda p: introspection(
        p.mint(key=STRANGER, header={"kid": p.key.kid})
    ),
    "alg none": lambda _: introspection(unsigned({"alg": "none"})),
    "alg HS256": lambda p: introspection(unsigned({"alg": "HS256", "kid": p.key.kid})),
    "crit": lambda p: introspection(p.mint(header={"crit": ["x"], "x": 1})),
    "typ": lambda p: introspection(p.mint(header={"typ": "dpop+jwt"})),
    "not a token": lambda _: introspection("not a token"),
    "not a token, with an accent": lambda _: introspection("tøken\u2028\U0001f600"),
    "two segments": lambda _: introspection("a.b"),
    "five segments": lambda _: introspection("a.b.c.d.e"),
    "claims twice": lambda p: introspection(signed(p, '{"exp":1,"exp":2}')),
    "too large": lambda _: introspection("a" * 70_000),
    "no provider": lambda _: json_request(TOKEN, {"target": TARGET}),
    "no provider, form": lambda _: form_request(INTROSPECT, {"token": "a.b"}),
    "form, encoded spaces": lambda _: form_request(INTROSPECT, {**ENTRA, "token": "a b+c/d=é"}),
}
"""Requests that the fast path answers."""

BY_SLOW_PATH: dict[str, Made] = {
    "nowhere": lambda _: request_bytes("GET", "/nowhere"),
    "query": lambda _: json_request(TOKEN + "?x=1", {**ENTRA, "target": TARGET}),
    "GET": lambda _: request_bytes("GET", TOKEN),
    "PUT": lambda _: request_bytes("PUT", TOKEN, b"{}"),
    "HEAD": lambda _: request_bytes("HEAD", TOKEN),
    "empty": lambda _: json_request(TOKEN, b""),
    "broken JSON": lambda _: json_request(TOKEN, b"{"),
    "a field twice": lambda _: json_request(TOKEN, b'{"target":"a","target":"a"}'),
    "broken form": lambda _: form_request(TOKEN, b"identity_provider=entra_id&target=%zz"),
    "field twice in a form": lambda _: form_request(TOKEN, b"identity_provider=entra_id&target=a&target=a"),
    "an empty provider": lambda _: json_request(TOKEN, {"identity_provider": "", "target": TARGET}),
    "another provider": lambda _: json_request(TOKEN, {"identity_provider": "tokenx", "target": TARGET}),
    "no target": lambda _: json_request(TOKEN, ENTRA),
    "odd target": lambda _: json_request(TOKEN, {**ENTRA, "target": "a b"}),
    "no user_token": lambda _: json_request(EXCHANGE, {**ENTRA, "target": TARGET}),
    "user_token with a space": lambda _: json_request(
        EXCHANGE, {**ENTRA, "target": TARGET, "user_token": "a b"}
    ),
    "user_token expired": lambda p: json_request(
        EXCHANGE, {**ENTRA, "target": TARGET, "user_token": p.mint(exp=now() - 100)}
    ),
    "no token": lambda _: json_request(INTROSPECT, ENTRA),
    "introspection of nothing": lambda _: json_request(INTROSPECT, b""),
    "introspection by another provider": lambda _: json_request(
        INTROSPECT, {"identity_provider": "idporten", "token": "x"}
    ),
    "another content type": lambda _: json_request(
        TOKEN, {**ENTRA, "target": TARGET}, {"Content-Type": "text/plain"}
    ),
    "compressed": lambda _: token_request(**{"Content-Encoding": "gzip"}),
    "host": lambda _: token_request(Host="evil.example"),
    "host without a name": lambda _: token_request(Host=":3000"),
    "origin": lambda _: token_request(Origin="http://localhost"),
    "cross-site": lambda _: token_request(**{"Sec-Fetch-Site": "cross-site"}),
    "X-Forwarded-For": lambda _: token_request(**{"X-Forwarded-For": "10.0.0.1"}),
    "Forwarded": lambda _: token_request(Forwarded="for=10.0.0.1"),
    "too large": lambda _: json_request(TOKEN, b'{"x":"' + b"x" * 131_072 + b'"}'),
    "introspection too large": lambda _: json_request(INTROSPECT, b'{"x":"' + b"x" * 131_072 + b'"}'),
    "skip_cache": lambda _: json_request(TOKEN, {**ENTRA, "target": TARGET, "skip_cache": True}),
    "another target": lambda _: token_request("api://c.n.other/.default"),
    "unknown key": lambda p: introspection(p.mint(key=STRANGER)),
    "connection: close": lambda _: token_request(Connection="close"),
    "HTTP/1.0": lambda _: token_request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "bare LF": lambda _: token_request().replace(b"\r\n", b"\n"),
    "user agent twice": lambda _: token_request(**{"User-Agent": "a\r\nUser-Agent: b"}),
    "no host": lambda _: token_request().replace(b"Host: 127.0.0.1\r\n", b""),
}
"""Requests that the slow path answers, also where there is a fast path."""


@pytest.mark.parametrize("name", BY_FAST_PATH)
async def test_the_fast_path_answers_as_the_slow_path_does(
    both: tuple[Started, Started], provider: Provider, name: str
) -> None:
    """Byte for byte, and it was the fast path: twice, as the second time caches answer."""
    request = BY_FAST_PATH[name](provider)
    if name in ("bad signature", "signed by a stranger with the right kid"):
        await ways(
            both, request
        )  # on the slow path: a failed signature may cause a refresh of the key set once
    for _ in range(2):
        by_fast_path, in_full, counted = await ways(both, request)
        assert counted == 1, "the fast path declined"
        assert by_fast_path == in_full
        assert status(by_fast_path) == 200


@pytest.mark.parametrize("name", BY_SLOW_PATH)
async def test_what_the_fast_path_declines_is_answered_as_without_it(
    both: tuple[Started, Started], provider: Provider, name: str
) -> None:
    """Byte for byte, without a response from the fast path."""
    by_fast_path, in_full, counted = await ways(both, BY_SLOW_PATH[name](provider))
    assert counted == 0, "the fast path answered"
    assert by_fast_path == in_full


async def test_the_answers_are_what_they_should_be(both: tuple[Started, Started], provider: Provider) -> None:
    """Two equal wrong responses do not count: the whole text of one of each kind is compared."""
    expected = {
        "token, JSON": {"access_token": f"token-for-{TARGET}", "expires_in": 3581, "token_type": "Bearer"},
        "not a token": {"active": False, "error": "token is not a JWT"},
    }
    for name, members in expected.items():
        by_fast_path, _, counted = await ways(both, BY_FAST_PATH[name](provider))
        text = json.dumps(members, separators=(",", ":"))
        assert counted == 1
        assert by_fast_path.decode() == (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
            f"Content-Length: {len(text)}\r\nDate: *\r\n\r\n{text}"
        )


async def test_the_date_is_now(fast: Started) -> None:
    """Date is the one header that may differ, as it tells the time."""
    answer = await fast.call.introspect("x")
    assert fast_path_answers(fast) == 1
    date = answer.header("Date")
    assert date is not None
    seconds = time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(seconds - time.time()) < 30
