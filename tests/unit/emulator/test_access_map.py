"""The access map: what is drawn of the manifests, where it goes, what it leads to, and how much of it."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.model.calls import MAX_PLACES, Calls, Picture
from entra_fast.emulator.web.drawing import BOX_HEIGHT, BOX_WIDTH, draw
from support.local_entra import Caller, local_entra, manifest, served

from .test_console import text_of

MAX_PAGE_BYTES = 200_000
LONG = "n" * 53 + "-"


def many(applications: int, namespaces: int, rules: int, prefix: str = "") -> list[str]:
    """Manifests of applications that call each other at random, but always in the same way."""
    choose = random.Random(applications)
    names = [(f"{prefix}ns-{number % namespaces}", f"{prefix}app-{number}") for number in range(applications)]
    return [
        manifest(
            name,
            namespace=namespace,
            rules=[
                {"namespace": other, "application": caller}
                for other, caller in choose.sample(names, min(rules, len(names)))
            ],
        )
        for namespace, name in names
    ]


def picture_of(texts: list[str], **last: bool) -> Picture:
    """The picture of everything. `last`: by `consumer__target`, whether the last request was granted."""
    pairs = {tuple(f"dev-gcp:team:{n}" for n in pair.split("__")): granted for pair, granted in last.items()}
    return Calls(local_entra(texts).registry, pairs).everything()  # type: ignore[arg-type]


def states(picture: Picture) -> set[tuple[str, str, str, bool]]:
    """Consumer, target, state of the rule, and whether the last request was refused."""
    return {(c.consumer.label, c.target.label, c.state, c.refused) for c in picture.calls}


def test_every_rule_is_an_arrow_of_its_kind() -> None:
    """Rules, rules that name no application or a wildcard, refused requests with a rule and without one."""
    rules = [{"application": name} for name in ("a", "gone", "*", "a", "b", "c")]
    found = picture_of(
        [manifest("a"), manifest("b", rules=rules), manifest("c")],
        a__b=False,
        c__b=True,
        b__a=False,
        a__c=True,
    )
    assert states(found) == {
        ("a", "b", "rule", True),
        ("gone", "b", "missing", False),
        ("*", "b", "missing", False),
        ("c", "b", "rule", False),
        ("b", "a", "none", True),
    }
    assert sorted(call.number for call in found.calls) == [0, 1, 2, 3, 6]


def test_an_application_is_shown_with_its_neighbours() -> None:
    """Consumers on the left, targets on the right, and nothing else."""
    texts = [
        manifest("a", rules=[{"application": "x"}]),
        manifest("b", rules=[{"application": "a"}]),
        manifest("c", rules=[{"application": "b"}]),
        manifest("d", rules=[{"application": "b"}, {"application": "a"}]),
    ]
    calls = Calls(local_entra(texts).registry, {})
    found = calls.of_application("dev-gcp:team:b")
    assert found is not None
    assert [[place.label for place in column] for column in found.columns] == [["a"], ["b"], ["c", "d"]]
    assert states(found) == {("a", "b", "rule", False), ("b", "c", "rule", False), ("b", "d", "rule", False)}
    assert calls.of_application("dev-gcp:team:unknown") is None
    assert calls.of_namespace("dev-gcp:unknown") is None


def test_a_namespace_is_shown_with_the_namespaces_around_it() -> None:
    """Its own applications one by one, all others as namespaces with the number of their applications."""
    texts = [
        manifest("a", namespace="left"),
        manifest("b", namespace="left"),
        manifest("c", rules=[{"namespace": "left", "application": name} for name in ("a", "b")]),
        manifest("d", namespace="right", rules=[{"namespace": "team", "application": "c"}]),
    ]
    found = Calls(local_entra(texts).registry, {}).of_namespace("dev-gcp:team")
    assert found is not None
    assert [[place.label for place in column] for column in found.columns] == [
        ["left (2)"],
        ["c"],
        ["right (1)"],
    ]
    assert [(call.consumer.label, call.target.label, call.count) for call in found.calls] == [
        ("c", "right (1)", 1),
        ("left (2)", "c", 2),
    ]


@pytest.mark.parametrize("applications", [1, 10, 60, 1000])
def test_nothing_overlaps_and_everything_fits(applications: int) -> None:
    """Boxes lie in their frames and on no other box; arrows begin and end at boxes; the same every time."""
    texts = many(applications, max(1, applications // 8), 3)
    drawing = draw(picture_of(texts))
    assert drawing == draw(picture_of(texts))
    assert 1 <= len(drawing.boxes) <= max(MAX_PLACES, applications)
    for number, box in enumerate(drawing.boxes):
        assert any(
            frame.x <= box.x
            and box.x + BOX_WIDTH <= frame.x + frame.width
            and frame.y <= box.y
            and box.y + BOX_HEIGHT <= frame.y + frame.height
            for frame in drawing.frames
        )
        assert box.x + BOX_WIDTH <= drawing.width
        assert 0 <= box.y <= drawing.height - BOX_HEIGHT
        for other in drawing.boxes[:number]:
            assert box.x != other.x or abs(box.y - other.y) >= BOX_HEIGHT
    for arrow in drawing.arrows:
        points = [int(value) for value in re.findall(r"-?\d+", arrow.path)]
        assert all(0 <= x <= drawing.width for x in points[::2])
        assert all(0 <= y <= drawing.height for y in points[1::2])


def test_many_applications_are_shown_as_namespaces() -> None:
    """60 applications one by one; 1,000 as their namespaces."""
    assert not picture_of(many(60, 8, 3)).of_namespaces
    found = picture_of(many(1000, 50, 3))
    assert found.of_namespaces
    assert "ns-1 (20)" in {place.label for column in found.columns for place in column}
    assert sum(call.count for call in found.calls) + found.more_calls > 0


@pytest.mark.parametrize(
    ("applications", "namespaces", "prefix"),
    [(60, 8, ""), (60, 8, LONG), (1000, 80, LONG), (1000, 1, LONG), (1000, 1000, LONG)],
    ids=["60", "60-long", "1000-long", "one-namespace", "each-its-own-namespace"],
)
async def test_no_page_grows_with_the_manifests(applications: int, namespaces: int, prefix: str) -> None:
    """Below 200 KB, however long names are and whichever part is shown."""
    texts = many(applications, namespaces, 5, prefix)
    texts.append(manifest("all", rules=[{"namespace": "other", "application": "*"}]))
    first = f"dev-gcp:{prefix}ns-0"
    async with served(local_entra(texts)) as entra:
        for path in (
            "/",
            "/map",
            f"/map?application={first}:{prefix}app-0",
            f"/map?namespace={first}",
            f"/applications/{first}:{prefix}app-0",
            "/mint",
            "/users",
            "/faults",
        ):
            answer = await entra.request("GET", path)
            assert answer.status == 200, path
            assert len(answer.text.encode()) < MAX_PAGE_BYTES, path


async def test_an_arrow_leads_to_the_line_of_its_rule(tmp_path: Path) -> None:
    """The page of the rule shows the file around the line; only files that were loaded are shown."""
    (tmp_path / "a.yaml").write_text(
        "apiVersion: nais.io/v1alpha1\n"
        "kind: Application\n"
        "metadata: {name: api, namespace: team}\n"
        "spec:\n"
        "  image: x\n"
        "  azure: {application: {enabled: true}}\n"
        "  accessPolicy:\n"
        "    inbound:\n"
        "      rules:\n"
        "        - application: caller  # <b>the rule</b>\n"
    )
    async with served(LocalEntraId.from_files([tmp_path])) as entra:
        page = (await entra.request("GET", "/map")).text
        assert "missing" in page
        (link,) = set(re.findall(r'href="(/applications/[^"]+/rules/\d+)"', page))
        rule = (await entra.request("GET", link)).text
        assert '<li class="here" aria-current="true"><code>10</code>' in rule
        assert "&lt;b&gt;the rule" in rule
        assert "a.yaml:10" in text_of(rule)
        (tmp_path / "a.yaml").unlink()
        assert "cannot be shown" in (await entra.request("GET", link)).text
        assert (await entra.request("GET", f"{link}0")).status == 404
        assert (await entra.request("GET", "/applications/unknown/rules/1")).status == 404


async def test_the_map_shows_what_was_refused(entra: Caller) -> None:
    """The last request decides; the table says the same as the picture and leads to the request."""
    await entra.m2m("app-c", "app-b")
    page = (await entra.request("GET", "/map")).text
    assert 'class="edge refused unasked"' in page
    assert "dev-gcp:team:app-c the request ✗ last request refused no rule" in text_of(page)
    assert page.count('href="/log/1"') == 2
    unknown = await entra.request("GET", "/map?application=nothing")
    assert unknown.status == 404
    assert "There is no application" in text_of(unknown.text)
