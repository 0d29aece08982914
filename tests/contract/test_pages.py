"""The pages about the sidecar agree with the code: each test fails when the two differ."""

from __future__ import annotations

import re
from pathlib import Path

from entra_fast._http.limits import MAX_FIELDS, MAX_FIELDS_BYTES, MAX_LINE_BYTES
from entra_fast._metrics import Metrics
from entra_fast._provider import oauth
from entra_fast._provider.token_client import MAX_FETCHES, MAX_SUBJECT_TOKEN_BYTES
from entra_fast._provider.tokens import LONG_MARGIN
from entra_fast.sidecar.http import openapi, requests

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_metrics_lists_exactly_what_is_rendered() -> None:
    """Name, kind, labels with their values, meaning."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*) \| (.*) \|$",
        (DOCS / "reference" / "metrics.md").read_text(),
        re.MULTILINE,
    )
    expected = []
    on_request = (family for family in Metrics(texas={}).families() if family.texas)
    for family in (*Metrics().families(), *on_request):
        labels = []
        for label in family.labels:
            values = ", ".join(label.values) or f"at most {label.limit} values, then `other`"
            labels.append(f"`{label.name}` ({values})")
        expected.append((family.name, family.kind, ", ".join(labels) or "-", family.help))
    assert rows == expected


def test_the_page_of_endpoints_lists_exactly_the_operations() -> None:
    """Methods and paths are those of /openapi.json, which another test compares with the routes."""
    page = (DOCS / "reference" / "endpoints.md").read_text()
    rows = set(re.findall(r"^\| (POST|GET) \| `(/[^`]*)` \|", page, re.MULTILINE))
    described = {
        (method.upper(), path)
        for path, operations in openapi.document()["paths"].items()
        for method in operations
    }
    assert rows == described


def test_the_page_of_endpoints_lists_exactly_the_fields() -> None:
    """Each field at the endpoints that take it."""
    page = (DOCS / "reference" / "endpoints.md").read_text()
    section = page.partition("## Requests")[2].partition("## Tokens")[0]
    rows = {
        name: set(places.split(", "))
        for name, places in re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", section, re.MULTILINE)
    }
    described: dict[str, set[str]] = {}
    for path, operations in openapi.document()["paths"].items():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
                for field in openapi.document()["components"]["schemas"][name]["properties"]:
                    described.setdefault(field, set()).add(path.rpartition("/")[2])
    everywhere = {"token", "exchange", "introspect"}
    assert {name: {"all"} if at == everywhere else at for name, at in described.items()} == rows


def test_the_limits_on_the_page_of_endpoints_are_the_code_s() -> None:
    """Numbers that people rely on."""
    page = (DOCS / "reference" / "endpoints.md").read_text()
    assert f"at most {requests.MAX_BODY_BYTES} bytes" in page
    assert f"larger than {requests.MAX_BODY_BYTES} bytes" in page
    assert f"1 to {MAX_SUBJECT_TOKEN_BYTES} characters" in page
    assert f"the request line is larger than {MAX_LINE_BYTES} bytes" in page
    assert (
        f"larger than {MAX_FIELDS_BYTES} bytes together, or there are more than {MAX_FIELDS} of them" in page
    )
    assert f"more than {MAX_FETCHES} different tokens" in page
    assert f"until {LONG_MARGIN:.0f} s before it expires" in page
    assert f"if that is {2 * LONG_MARGIN:.0f} s or less" in page
    assert f"more than {oauth.MAX_EXPIRES_IN // 86_400} days" in page
    assert oauth.RETRY_AFTER_RANGE == (1, 3600)
    assert "`Retry-After` (1 s to 1 h" in page


def test_members_that_are_passed_through_are_on_the_page() -> None:
    """What an application can rely on in the provider's refusals."""
    page = (DOCS / "reference" / "endpoints.md").read_text()
    schemas = openapi.document()["components"]["schemas"]
    passed = set(schemas["Error"]["properties"]) - {"error", "error_description"}
    document = dict.fromkeys(passed, "x") | {"error": "e", "error_codes": [1]}
    assert set(oauth.refusal(400, document, None).details) == passed
    for name in passed:
        assert f"`{name}`" in page


def test_each_status_that_a_request_can_be_refused_with_is_on_the_page() -> None:
    """The table of errors has a row for each status in the description, and the description for each of
    introspection's (docs/reference/endpoints.md)."""
    page = (DOCS / "reference" / "endpoints.md").read_text()
    rows = set()
    for statuses in re.findall(r"^\| ([0-9, ]+) \| `", page.partition("## Errors")[2], re.MULTILINE):
        rows |= set(statuses.split(", "))
    operations = openapi.document()["paths"]
    described = {
        status for each in operations.values() for status in each.get("post", {}).get("responses", ())
    }
    assert described - {"200", "default"} <= rows
    assert rows - described == {"404", "405"}
    introspection = set(operations["/api/v1/introspect"]["post"]["responses"])
    sentence = re.search(r"not admitted: then the status is ([^(]*)\(see", page)
    assert sentence is not None
    assert set(re.findall(r"\d{3}", sentence[1])) == introspection - {"200"} | {"405"}
