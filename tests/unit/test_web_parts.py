"""What pages are made of, as text and numbers: commands, claims and times, long lists; and their sizes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from entra_fast._web import commands
from entra_fast._web.paging import window
from entra_fast._web.token_contents import (
    CLAIM_MEANINGS,
    MAX_MEMBERS,
    MAX_VALUE_CHARACTERS,
    claim_members,
    distance,
    readable_time,
)
from entra_fast.generator import pages
from entra_fast.generator.settings import MAX_AUDIENCES
from support.local_entra import local_entra, manifest, served

AWKWARD = """it's "a" $value; `x` & ü"""
MAX_PAGE_BYTES = 200_000


def of(tool: str, found: tuple[commands.Command, ...]) -> str:
    return next(command.text for command in found if command.tool == tool)


def python_call(text: str) -> dict[str, Any]:
    """What a Python command passes to Requests."""

    class Requests:
        def __getattr__(self, method: str) -> Any:
            def call(url: str, **options: Any) -> Any:
                seen.update({"method": method, "url": url, **options})
                return self

            return call

    seen: dict[str, Any] = {}
    lines = text.replace("import requests", "").replace("print(response.json())", "")
    exec(lines, {"requests": Requests()})
    return seen


def test_forms_survive_the_shell() -> None:
    """curl, HTTPie and Python send the same form, whatever is in it."""
    fields = {"grant_type": "client_credentials", "client_secret": AWKWARD}
    found = commands.post_form("http://localhost:1/token", fields)
    curl = shlex.split(of("curl", found))
    assert curl[:3] == ["curl", "-s", "http://localhost:1/token"]
    assert curl[4::2] == [f"{name}={value}" for name, value in fields.items()]
    assert set(curl[3::2]) == {"--data-urlencode"}
    httpie = shlex.split(of("HTTPie", found))
    assert httpie[4:] == [f"{name}={value}" for name, value in fields.items()]
    assert python_call(of("Python", found)) == {
        "method": "post",
        "url": "http://localhost:1/token",
        "data": fields,
    }


def test_json_survives_the_shell() -> None:
    """The same for a JSON body."""
    body = {"consumer": AWKWARD, "user": "😀"}
    found = commands.post_json("http://localhost:1/x", body)
    assert json.loads(shlex.split(of("curl", found))[-1]) == body
    assert python_call(of("Python", found))["json"] == body


def test_calls_carry_the_token() -> None:
    """As a bearer token, in each tool's form."""
    found = commands.call_api("eyJ.x.y")
    assert shlex.split(of("curl", found))[-1] == "Authorization: Bearer eyJ.x.y"
    assert shlex.split(of("HTTPie", found))[-1] == "Authorization:Bearer eyJ.x.y"
    assert python_call(of("Python", found))["headers"] == {"Authorization": "Bearer eyJ.x.y"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (1, "in 1 second"),
        (-1, "1 second ago"),
        (119, "in 119 seconds"),
        (120, "in 2 minutes"),
        (-7199, "119 minutes ago"),
        (7200, "in 2 hours"),
        (3 * 86400, "in 3 days"),
    ],
)
def test_distances(seconds: float, text: str) -> None:
    """In the largest unit of which there are at least two."""
    assert distance(seconds) == text


@pytest.mark.parametrize("value", [True, None, "1", [], 1e300, -1e300, float("nan")])
def test_what_is_no_time_has_no_readable_form(value: object) -> None:
    """Claims are what anyone has written."""
    assert readable_time(value, 0.0) == ""
    assert claim_members({"exp": value}, 0.0)[0].note == ""


def test_claims_have_values_meanings_and_times() -> None:
    """Values as JSON, strings without quotes; long ones and many are cut."""
    claims = {"exp": 60, "roles": ["a"], "name": "Åse", "own": None, "long": "x" * 5000}
    rows = {row.name: row for row in claim_members(claims, 0.0)}
    assert rows["exp"].note == "1970-01-01 00:01:00 UTC, in 60 seconds"
    assert (rows["roles"].value, rows["name"].value, rows["own"].value) == ('["a"]', "Åse", "null")
    assert rows["roles"].meaning == CLAIM_MEANINGS["roles"]
    assert rows["own"].meaning == ""
    assert len(rows["long"].value) < MAX_VALUE_CHARACTERS + 30
    assert len(claim_members({str(number): 1 for number in range(500)}, 0.0)) == MAX_MEMBERS


@pytest.mark.parametrize(
    ("number", "rows", "shown"),
    [("1", (0, 1), 1), ("3", (4,), 3), ("9", (4,), 3), ("0", (0, 1), 1), ("-1", (0, 1), 1), ("x", (0, 1), 1)],
)
def test_windows(number: str, rows: tuple[int, ...], shown: int) -> None:
    """The page that was asked for, or the nearest."""
    found = window(range(5), number, 2)
    assert (found.rows, found.number, found.last, found.total) == (rows, shown, 3, 5)
    assert window([], number).rows == ()


def test_the_start_page_of_the_token_generator_stays_small() -> None:
    """2,000 audiences with long names: a search, and 100 on a page."""
    audiences = [f"dev-gcp:{'n' * 60}:{'a' * 55}{number}" for number in range(MAX_AUDIENCES)]
    visitor = pages.Visitor(None, 0)
    first = pages.start_page(visitor, issuer="x", base_url="http://x", audiences=audiences)
    assert len(first.encode()) < MAX_PAGE_BYTES
    assert 'href="/?page=2"' in first
    found = pages.start_page(visitor, issuer="x", base_url="http://x", audiences=audiences, search="A1999")
    assert found.count("Machine-to-machine, for") == 1
    none = pages.start_page(visitor, issuer="x", base_url="http://x", audiences=audiences, search="nothing")
    assert "No audience matches." in none


def test_a_token_that_cannot_be_read_is_shown_all_the_same() -> None:
    """Some APIs have tokens that only they can read."""
    page = pages.token_page(
        pages.Visitor("Ada", 1, "?to=obo&aud=a"),
        base_url="http://x",
        audience="https://graph.microsoft.com/.default",
        on_behalf=True,
        token="opaque",
        expires_in=120,
        now=0.0,
    )
    assert ">opaque</pre>" in page
    assert "only the audience can read this token" in page
    assert "1970-01-01 00:02:00 UTC, in 2 minutes" in page


async def test_pages_stay_small_with_many_users() -> None:
    """Users and groups, sign-in, and a form with suggestions."""
    groups = [f"  - {{name: {'g' * 80}{n}, id: 00000000-0000-4000-8000-{n:012}}}\n" for n in range(400)]
    members = ", ".join(f"{'g' * 80}{n}" for n in range(20))
    users = [
        f"  - {{name: {'N' * 60} {n}, username: {'u' * 60}{n}@trygdeetaten.no, groups: [{members}]}}\n"
        for n in range(2_000)
    ]
    directory = "tenant: trygdeetaten.no\ngroups:\n" + "".join(groups) + "users:\n" + "".join(users)
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(400)]
    callback = "http://localhost:1/callback"
    texts = [manifest("app", groups=ids, replyURLs=[callback])]
    async with served(local_entra(texts, directory)) as entra:
        login = entra.login_parameters("app", redirect_uri=callback)
        for path, query in (
            ("/", {}),
            ("/users", {}),
            ("/users", {"page": "20"}),
            ("/mint", {}),
            (entra.authorize_path("app"), login),
        ):
            answer = await entra.request("GET", path, params=query)
            assert answer.status == 200
            assert len(answer.text.encode()) < MAX_PAGE_BYTES, path
        last = await entra.request("GET", "/users", params={"q": "u1999", "page": "1"})
        assert "Users (1)" in last.text
