"""The pages of the log: filters, pages, and the form in which they stay live."""

from __future__ import annotations

import re

import pytest

from support.local_entra import Caller, local_entra, manifest, served

from .test_console import text_of

MAX_PAGE_BYTES = 200_000


def numbers(page: str) -> list[int]:
    """The entries that a page lists."""
    return [int(number) for number in re.findall(r'href="/log/(\d+)"', page)]


@pytest.fixture
async def busy(entra: Caller) -> Caller:
    """1 granted, 2 refused by a policy, 3 refused for its secret, 4 granted to another application."""
    await entra.m2m("app-a", "app-b")
    await entra.m2m("app-c", "app-b")
    await entra.m2m("app-a", "app-b", client_secret="wrong")
    await entra.m2m("app-c", "app-c")
    return entra


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [4, 3, 2, 1]),
        ("outcome=granted", [4, 1]),
        ("outcome=refused", [3, 2]),
        ("outcome=all", [4, 3, 2, 1]),
        ("outcome=nonsense", [4, 3, 2, 1]),
        ("code=501051", [2]),
        ("code=AADSTS7000215", [3]),
        ("code=1", []),
        ("application=app-a", [3, 1]),
        ("application=APP-B", [2, 1]),
        ("application=dev-gcp:team:app-c", [4, 2]),
        ("application=app-c&outcome=granted", [4]),
        ("application=app-c&outcome=granted&code=501051", []),
    ],
)
async def test_filters(busy: Caller, query: str, expected: list[int]) -> None:
    """By application (consumer or target), outcome and code; together, all of them count."""
    page = (await busy.request("GET", f"/log?{query}")).text
    assert numbers(page) == expected
    assert ("No request matches." in page) == (not expected)


async def test_the_form_keeps_what_was_filtered(busy: Caller) -> None:
    """Values stay in the fields, and in the link that makes the log live."""
    page = (await busy.request("GET", '/log?application="app"&outcome=refused&code=5')).text
    assert 'value="&#34;app&#34;"' in page
    assert '<option value="refused" selected>' in page
    assert "?application=%22app%22&amp;outcome=refused&amp;code=5&amp;live=1" in page
    live = (await busy.request("GET", "/log?outcome=refused&live=1")).text
    assert 'name="live" value="1"' in live
    assert 'href="/log?outcome=refused"' in live
    assert "Reload the page to see new requests." in text_of(live)  # what is there without scripts


async def test_a_long_log_has_pages() -> None:
    """500 entries with long names: 100 on a page, and none above 200 KB."""
    async with served(local_entra([manifest("a")])) as entra:
        long = "x" * 300
        for _ in range(501):
            await entra.m2m("a", "a", scope=f"api://{long}/.default")
        first = (await entra.request("GET", "/log")).text
        assert numbers(first) == list(range(501, 401, -1))
        assert len(first.encode()) < MAX_PAGE_BYTES
        assert 'href="/log?page=2"' in first
        last = (await entra.request("GET", "/log?outcome=refused&page=99")).text
        assert numbers(last)[-1] == 2
        assert 'href="/log?outcome=refused&amp;page=4"' in last


async def test_error_pages_have_no_placeholders(entra: Caller) -> None:
    """Neither before such an error happened, nor after it; then they lead to the last request that had it."""
    before = (await entra.request("GET", "/error?code=50105")).text
    assert not set(text_of(before)) & set("{}<>`")
    token = await entra.user_token("app-a", "ola")
    assert (await entra.obo("app-a", "app-b", token)).code == 50105
    after = (await entra.request("GET", "/error?code=50105")).text
    assert not set(text_of(after)) & set("{}<>`")
    (number,) = re.findall(r'href="/log/(\d+)"', after)
    assert "AADSTS50105" in text_of((await entra.request("GET", f"/log/{number}")).text)
