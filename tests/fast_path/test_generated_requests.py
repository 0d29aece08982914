"""Generated requests for several providers: whatever the fields are and however they are spelled, a sidecar
with the fast path answers with the bytes of one without."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fast_path import (
    EXCHANGE,
    INTROSPECT,
    TOKEN,
    Connection,
    fast_path_answers,
    form_request,
    json_request,
)
from support.provider import Provider
from support.several import ENTRA, GENERIC, MASKINPORTEN, TOKENX, several
from support.sidecars import Started, sidecars

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS = [
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.c2ln",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2IiwiZXhwIjo5OTk5OTk5OTk5fQ.c2ln",
]
ENABLED = (ENTRA, MASKINPORTEN, TOKENX, GENERIC)
DETAILS = [[{"type": "a"}], [{"type": "b", "x": [1.50, "æ"]}, {}], []]

VALUES: dict[str, list[object]] = {
    "identity_provider": [*(kind.name for kind in ENABLED), "azuread"],
    "target": ["c:n:a", "api://c.n.a/.default", "nav:a/b.read", "a b"],
    "user_token": list(USERS),
    "token": ["TOKEN:entra_id", "TOKEN:tokenx", "TOKEN:maskinporten", "TOKEN:partner", "a.b.c"],
    "skip_cache": [False],
    "claims": ['{"access_token":{"nbf":{"essential":true}}}'],
    "resource": ["https://a.example", ["https://a.example"], ["a", "b"], []],
    "authorization_details": [*DETAILS, *(json.dumps(details) for details in DETAILS)],
}
"""What is right for most requests."""

ODD: list[object] = [
    *(None, True, 0, 1.5, [], [""], [None], [[]], {}, {"a": 1}, ["a"] * 16, ["a"] * 17),
    *("", "entra", "idporten", "Entra_id", "tokenx ", "æ", "a\u2028b", "true", "x" * 4096, "x" * 4097),
    *("[{}]", "[1]", "{}", '[{"a":1,"a":1}]'),
]

PATHS = {
    TOKEN: ("identity_provider", "target"),
    EXCHANGE: ("identity_provider", "target", "user_token"),
    INTROSPECT: ("identity_provider", "token"),
}


@dataclass(frozen=True)
class Body:
    """Names and values in their order, and how they are written."""

    path: str
    fields: tuple[tuple[str, object], ...]
    form: bool
    style: int


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    path = draw(st.sampled_from(sorted(PATHS)))
    names = list(PATHS[path])
    names += draw(st.lists(st.sampled_from([*VALUES, "other", "Target", "token_type_hint"]), max_size=2))
    names = draw(st.permutations(names))
    fields: list[tuple[str, object]] = []
    for name in names:
        how = draw(st.integers(0, 11))
        if how == 0:
            continue
        odd = how == 1 or name not in VALUES
        fields.append((name, draw(st.sampled_from(ODD if odd else VALUES[name]))))
    return Body(path, tuple(fields), draw(st.booleans()), draw(st.integers(0, 4)))


class Both:
    """A sidecar with the fast path and one without."""

    def __init__(self, tokens: dict[str, str], *of: Started) -> None:
        self.tokens = tokens
        self._sidecars = of

    async def answers(self, request: bytes) -> list[bytes]:
        found = []
        for sidecar in self._sidecars:
            async with await Connection.to(sidecar) as connection:
                found.append(await connection.ask(request))
        return found

    def written(self, body: Body) -> bytes:
        fields = [
            (name, self.tokens.get(value, value) if isinstance(value, str) else value)
            for name, value in body.fields
        ]
        if body.form:
            return form_request(body.path, _form(fields, body.style))
        return json_request(body.path, _json(fields, body.style))


def _json(fields: list[tuple[str, object]], style: int) -> bytes:
    def escaped(text: str) -> str:
        return '"' + "".join(f"\\u{ord(character):04X}" for character in text) + '"'

    def text(value: object) -> str:
        if style == 1 and isinstance(value, str):
            return escaped(value)
        return json.dumps(value, ensure_ascii=style == 2, separators=(",", ":") if style else None)

    members = [f"{escaped(name) if style == 3 else json.dumps(name)}:{text(value)}" for name, value in fields]
    between, around = (" ,\n", " ") if style == 4 else (",", "")
    return (around + "{" + between.join(members) + "}" + around).encode()


def _form(fields: list[tuple[str, object]], style: int) -> bytes:
    def escaped(text: str) -> str:
        return "".join(f"%{byte:02x}" for byte in text.encode())

    def text(value: object) -> str:
        plain = value if isinstance(value, str) else json.dumps(value)
        if style in (0, 1):
            return escaped(plain)
        safe = plain.replace("%", "%25").replace("&", "%26").replace("+", "%2B").replace(" ", "+")
        return safe + "%zz" * (style == 4 and len(plain) == 1)

    pairs = [f"{escaped(name) if style == 1 else name}={text(value)}" for name, value in fields]
    return ("&" * (style == 3) + ("&&" if style == 3 else "&").join(pairs)).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Both]:
    async with several(*ENABLED) as providers, sidecars(Provider()) as start:
        providers.grant_alike()
        environ, now = providers.environment(), time.time()
        fast = await start(environ=environ)
        slow = await start(environ={**environ, "ENTRA_FAST_FAST_PATH": "false"})
        for sidecar in (fast, slow):
            sidecar.clock.stop(now)
        tokens = {f"TOKEN:{kind.name}": providers.mint(kind.name) for kind in ENABLED}
        yield Both(tokens, fast, slow)
        assert fast_path_answers(fast) > 50, "hardly anything took the fast path"


@settings(max_examples=300, deadline=None)
@given(body=bodies())
async def test_generated_requests_are_answered_alike(both: Both, body: Body) -> None:
    """Twice, since the second time caches may answer. Absent, null, empty, older, unknown and disabled names
    of providers, wrong types, duplicates and escapes are among them."""
    request = both.written(body)
    for _ in range(2):
        fast, slow = await both.answers(request)
        assert fast == slow
