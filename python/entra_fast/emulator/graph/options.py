"""The query options of one request: `$select`, `$filter`, `$search`, `$top`, `$count` and `$skiptoken`."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.graph.conditions import Condition, parse_filter, parse_search
from entra_fast.emulator.graph.errors import GraphError, bad_request, unsupported
from entra_fast.emulator.graph.resources import Kind

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 999
MAX_SELECTED: Final = 100

ONE: Final = ("$select",)
"""The options of a request for one resource."""
COUNT: Final = ("$filter", "$search")
"""The options of `$count` as the last segment of a path."""
MANY: Final = ("$select", "$filter", "$search", "$top", "$count", "$skiptoken")
"""The options of a request for a list."""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options.

    Attributes:
        selected: the properties to return.
        narrowed: whether `$select` names them.
        conditions: all must hold.
        top: number of resources in a page.
        count: whether the total is asked for and may be.
        after: object id of the last resource of the page before; empty for the first page.
        sent: the options as they were sent, but for `$skiptoken`.
    """

    selected: tuple[str, ...]
    narrowed: bool
    conditions: tuple[Condition, ...]
    top: int
    count: bool
    after: str
    sent: tuple[tuple[str, str], ...]

    def next_page(self, address: str, last: str) -> str:
        """The value of `@odata.nextLink`: the same request for what follows the resource `last`."""
        token = base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")
        query = urllib.parse.urlencode(
            (*self.sent, ("$skiptoken", token)), quote_via=urllib.parse.quote, safe="$"
        )
        return f"{address}?{query}"


def parse_options(
    kind: Kind, sent: Sequence[tuple[str, str]], allowed: Collection[str], *, eventual: bool
) -> Options:
    """Check the options of a request.

    Args:
        sent: all parameters of the query.
        allowed: names of options; any other is refused.
        eventual: whether the header `ConsistencyLevel: eventual` was sent, which advanced queries need.

    Raises:
        GraphError: an option is unknown, malformed, repeated or out of bounds.
    """
    values: dict[str, str] = {}
    for name, value in sent:
        if name not in allowed:
            shown = name[:50] if name.lstrip("$").isalnum() else "?"
            raise unsupported(
                f"The query option '{shown}' is not supported by this request.",
                f"the options of this request are {', '.join(allowed) or 'none'}",
            )
        if name in values:
            raise bad_request(f"Query option '{name}' was specified more than once.")
        values[name] = value
    conditions: list[Condition] = []
    if "$filter" in values:
        conditions.append(parse_filter(kind, values["$filter"]))
    if "$search" in values:
        if not eventual:
            raise unsupported(
                "Request with $search query parameter only works through MSGraph with a special request "
                "header: 'ConsistencyLevel: eventual'",
                "send the header ConsistencyLevel: eventual",
            )
        conditions.append(parse_search(kind, values["$search"]))
    names = _selected(values)
    return Options(
        kind.selected(names),
        bool(names),
        tuple(conditions),
        _top(values),
        _count(values) and eventual,
        _after(values),
        tuple((name, value) for name, value in sent if name != "$skiptoken"),
    )


def _selected(values: dict[str, str]) -> tuple[str, ...]:
    if "$select" not in values:
        return ()
    names = tuple(name.strip() for name in values["$select"].split(","))
    if len(names) > MAX_SELECTED or not all(names):
        raise GraphError(
            400,
            "BadRequest",
            "Parsing OData Select and Expand failed: expected names of properties, separated by commas, at "
            f"most {MAX_SELECTED}.",
        )
    return () if names == ("*",) else names


def _top(values: dict[str, str]) -> int:
    text = values.get("$top", str(DEFAULT_PAGE))
    # Before the conversion, which takes long for a number with many digits.
    if len(text) > 4 or not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MAX_PAGE:
        raise bad_request(f"Invalid page size specified: '$top' must be a number from 1 to {MAX_PAGE}.")
    return int(text)


def _count(values: dict[str, str]) -> bool:
    text = values.get("$count", "false").lower()
    if text not in ("true", "false"):
        raise bad_request("Invalid value of the query option '$count': expected true or false.")
    return text == "true"


def _after(values: dict[str, str]) -> str:
    if "$skiptoken" not in values:
        return ""
    text = values["$skiptoken"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise expired_page() from None


def expired_page() -> GraphError:
    """400: the page token is not one of this Graph, or the resource that it names is gone."""
    return GraphError(
        400,
        "Directory_ExpiredPageToken",
        "The specified page token value has expired and can no longer be included in your request.",
        remedy="start with the first page again",
    )
