"""`$filter` and `$search`, parsed into conditions on a resource; bounded in length, depth and terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from entra_fast.emulator.graph.errors import GraphError, bad_request, unsupported
from entra_fast.emulator.graph.resources import Kind

Condition = Callable[[Any], bool]
"""Whether a user or a group is meant."""

MAX_LENGTH: Final = 2048
MAX_DEPTH: Final = 20
MAX_TERMS: Final = 50

_TOKEN: Final = re.compile(r"\s*('(?:[^']|'')*'|[(),]|[A-Za-z0-9_./@$:-]+)")
_CLAUSE: Final = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*')
_ABSENT: Final = object()
_WORD: Final = re.compile(r"\w+")
_ANOTHER_OPERATOR: Final = "use eq, in, startswith, and, or, with text in single quotes, true, false or null"


def parse_filter(kind: Kind, text: str) -> Condition:
    """The condition of a `$filter` of `eq`, `in`, `startswith`, `and`, `or` and brackets.

    Text is compared without regard to case, as Graph does.

    Raises:
        GraphError: the filter is malformed, too long, or uses something else.
    """
    _check_length("$filter", text)
    return _Filter(kind, text).parse()


class _Filter:
    def __init__(self, kind: Kind, text: str) -> None:
        self._kind = kind
        self._tokens: list[tuple[str, int]] = []
        self._next = 0
        self._terms = 0
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            if found is None:
                raise _syntax(place)
            self._tokens.append((found[1], found.start(1)))
            place = found.end()
        self._end = end

    def parse(self) -> Condition:
        condition = self._any(0)
        if self._next < len(self._tokens):
            self._unexpected()
        return condition

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self, *expected: str) -> str:
        token = self._peek()
        if not token or (expected and token.lower() not in expected):
            self._unexpected()
        self._next += 1
        return token

    def _unexpected(self) -> None:
        at_end = self._next >= len(self._tokens)
        raise _syntax(self._end if at_end else self._tokens[self._next][1])

    def _any(self, depth: int) -> Condition:
        parts = [self._all(depth)]
        while self._peek().lower() == "or":
            self._next += 1
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else lambda item: any(part(item) for part in parts)

    def _all(self, depth: int) -> Condition:
        parts = [self._term(depth)]
        while self._peek().lower() == "and":
            self._next += 1
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else lambda item: all(part(item) for part in parts)

    def _term(self, depth: int) -> Condition:
        self._terms += 1
        if depth > MAX_DEPTH or self._terms > MAX_TERMS:
            raise bad_request(
                f"Invalid filter clause: more than {MAX_TERMS} terms or {MAX_DEPTH} levels of brackets.",
                "ask in several requests",
            )
        token = self._take()
        if token == "(":
            condition = self._any(depth + 1)
            self._take(")")
            return condition
        if self._peek() == "(":
            return self._function(token)
        name = self._property(token)
        operator = self._take().lower()
        if operator == "in":
            self._take("(")
            wanted = [self._value()]
            while self._take(",", ")") == ",":
                wanted.append(self._value())
            return lambda item: _comparable(self._kind.value(item, name)) in wanted
        if operator != "eq":
            raise self._unsupported(name)
        value = self._value()
        return lambda item: bool(_comparable(self._kind.value(item, name)) == value)

    def _function(self, function: str) -> Condition:
        self._take("(")
        name = self._property(self._take())
        if function.lower() != "startswith":
            raise self._unsupported(name)
        self._take(",")
        prefix = self._value()
        self._take(")")
        if not isinstance(prefix, str):
            raise self._unsupported(name)

        def starts(item: Any) -> bool:
            value = self._kind.value(item, name)
            return isinstance(value, str) and value.lower().startswith(prefix)

        return starts

    def _property(self, token: str) -> str:
        name = self._kind.property_named(token)
        if name is None:
            # Whatever is no property: also an operator or a literal, which may be anything.
            raise self._unsupported(token if token.isalnum() else "?")
        return name

    def _value(self) -> Any:
        token = self._take()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'").lower()
        values = {"true": True, "false": False, "null": None}
        value = values.get(token.lower(), _ABSENT)
        if value is _ABSENT:
            self._next -= 1
            self._unexpected()
        return value

    def _unsupported(self, name: str) -> GraphError:
        return unsupported(
            f"Unsupported or invalid query filter clause specified for property '{name[:100]}' of resource "
            f"'{self._kind.label}'.",
            _ANOTHER_OPERATOR,
        )


def parse_search(kind: Kind, text: str) -> Condition:
    """The condition of a `$search` such as `"displayName:ada" AND "mail:a"`: AND binds closer than OR.

    Words of a name are compared by their beginnings, an address from its beginning.

    Raises:
        GraphError: the search is malformed, too long, or looks at another property.
    """
    _check_length("$search", text)
    alternatives: list[list[Condition]] = [[]]
    place = terms = 0
    while True:
        found = _CLAUSE.match(text, place)
        terms += 1
        if found is None or terms > MAX_TERMS:
            raise bad_request(
                f"Syntax error in the '$search' query option at position {place}: expected at most "
                f'{MAX_TERMS} clauses like "displayName:value" in double quotes, joined by AND or OR.'
            )
        alternatives[-1].append(_clause(kind, re.sub(r"\\(.)", r"\1", found[1])))
        place = found.end()
        if place >= len(text):
            break
        if text.startswith("OR", place):
            alternatives.append([])
            place += 2
        elif text.startswith("AND", place):
            place += 3
    return lambda item: any(all(part(item) for part in parts) for parts in alternatives)


def _clause(kind: Kind, clause: str) -> Condition:
    written, colon, value = clause.partition(":")
    name = kind.property_named(written.strip())
    if not colon or name not in kind.searchable:
        raise unsupported(
            f"Unsupported property in the '$search' query option for resource '{kind.label}'.",
            f"search {', '.join(kind.searchable)}",
        )
    wanted = value.strip().lower()
    if not wanted:
        raise bad_request("The '$search' query option has a clause without a value.")
    if name in ("displayName", "description"):
        return lambda item: _has_words(kind.value(item, name), _WORD.findall(wanted))
    return lambda item: (kind.value(item, name) or "").lower().startswith(wanted)


def _has_words(value: str | None, wanted: Sequence[str]) -> bool:
    words = _WORD.findall((value or "").lower())
    return bool(wanted) and all(any(word.startswith(part) for word in words) for part in wanted)


def _comparable(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _syntax(place: int) -> GraphError:
    return GraphError(
        400,
        "BadRequest",
        f"Invalid filter clause: Syntax error at position {place}.",
        remedy=_ANOTHER_OPERATOR,
    )


def _check_length(option: str, text: str) -> None:
    if len(text) > MAX_LENGTH:
        raise bad_request(f"The query option '{option}' is longer than {MAX_LENGTH} characters.")
