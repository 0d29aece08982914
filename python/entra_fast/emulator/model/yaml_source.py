"""Strict YAML with positions: turns text into plain values, and remembers the line of each of them.

Stricter than PyYAML's own loaders, because these files decide which application may call which: duplicate
keys are an error (PyYAML silently keeps the last one), merge keys and explicit tags are not supported, and
depth and size are bounded (aliases make exponential growth cheap: "billion laughs"). It is built on parser
events rather than on composed nodes, because libyaml's composer recurses without a limit.
What the values mean belongs in manifests.py and directory.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from entra_fast.emulator.model.documents import Document, Place, SourceError, dotted

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 1_000_000

# The loader in C is about ten times faster; PyYAML may have been built without libyaml, though.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEMPLATE_HINT: Final = "; if this file is a template ({{...}}), render it first"
_BOOLEANS: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}

# What follows the two opening braces of "{{name}}": name, no value, end of the key, no value, end.
_PLACEHOLDER: Final = [
    yaml.ScalarEvent,
    yaml.ScalarEvent,
    yaml.MappingEndEvent,
    yaml.ScalarEvent,
    yaml.MappingEndEvent,
]


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else int(event.start_mark.line) + 1


def _integer(text: str) -> Any:
    try:
        return int(text.replace("_", ""), 0) if len(text) <= 32 else text
    except ValueError:
        return text  # octal and base 60 of YAML 1.1: none of these files need them


def _number(text: str) -> Any:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return text


_CONVERSIONS: Final[dict[str, Callable[[str], Any]]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: _BOOLEANS[text.lower()],
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _number,
}
# PyYAML's own rules (YAML 1.1, as Kubernetes reads it), by first character; dates and the like stay text.
_RESOLVERS: Final[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
    first: kept
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [rule for rule in rules if rule[0] in _CONVERSIONS])
}


def label(path: Path) -> str:
    """A file's name for messages: from the working directory where it is below that, as people would type
    it.
    """
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_text(path: Path) -> str:
    """The text of a file. Raises SourceError when it cannot be read, is too large or is not UTF-8."""
    name = label(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SourceError("file_unreadable", f"cannot be read: {error.strerror}", name, 1) from None
    if len(data) > MAX_FILE_BYTES:
        raise SourceError("file_too_large", f"is larger than {MAX_FILE_BYTES} bytes", name, 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError("file_not_utf8", "is not UTF-8 text", name, line) from None


def documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a YAML text, empty ones left out. Raises SourceError."""
    loader: Any = None
    try:
        loader = _Loader(text)
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                document = _Builder(loader, file).build()
                if document.value is not None:
                    yield document
    except yaml.YAMLError as error:
        raise _syntax_error(error, file) from None
    except ValueError as error:  # a date or number that Python cannot represent, a lone surrogate
        raise SourceError("yaml_invalid", f"is not valid YAML: {error}", file, 1) from None
    finally:
        if loader is not None:
            loader.dispose()


def _syntax_error(error: yaml.YAMLError, file: str) -> SourceError:
    line, problem = 1, "is not valid YAML"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        if mark is not None:
            line = mark.line + 1
        if error.problem:
            problem = f"is not valid YAML: {error.problem}"
    elif isinstance(error, yaml.reader.ReaderError):
        problem = "contains a character that YAML does not allow"
    return SourceError("yaml_invalid", problem + _TEMPLATE_HINT, file, line)


class _Builder:
    """Builds one document from parser events."""

    def __init__(self, loader: Any, file: str) -> None:
        self._loader = loader
        self._file = file
        self._lines: dict[Place, int] = {}
        self._anchors: dict[str, Any] = {}
        self._nodes = 0

    def build(self) -> Document:
        value = self._value(self._loader.get_event(), (), 0)
        return Document(self._file, value, self._lines)

    def _fail(self, code: str, text: str, event: Any, place: Place) -> SourceError:
        return SourceError(code, text, self._file, _line(event), dotted(place))

    def _value(self, event: Any, place: Place, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._fail("yaml_too_large", f"has more than {MAX_NODES} values", event, place)
        if depth > MAX_DEPTH:
            raise self._fail("yaml_too_deep", f"is nested deeper than {MAX_DEPTH} levels", event, place)
        self._lines[place] = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if event.tag is not None and event.tag != "!":
            raise self._fail("yaml_tag", f"has the tag {event.tag!r}; tags are not supported", event, place)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := self._loader.get_event(), yaml.SequenceEndEvent):
                value.append(self._value(item, (*place, len(value)), depth + 1))
        else:
            value = self._mapping(place, depth)
        if event.anchor is not None:
            # Kept only once complete: an alias inside its own anchor is unknown, so no value contains
            # itself.
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, place: Place, depth: int) -> dict[str, Any] | str:
        mapping: dict[str, Any] = {}
        seen: set[str] = set()
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            if isinstance(event, yaml.MappingStartEvent) and not seen:
                return self._placeholder(event, place)
            if not isinstance(event, yaml.ScalarEvent):
                raise self._fail("yaml_key", "has a key that is not a string" + _TEMPLATE_HINT, event, place)
            key = event.value
            inner = (*place, key)
            if key == "<<" and event.implicit[0]:
                raise self._fail("yaml_merge_key", "merge keys (<<) are not supported", event, inner)
            if key in seen:
                first = self._lines.get(inner, 0)
                raise self._fail(
                    "yaml_duplicate_key", f"is defined twice (first on line {first})", event, inner
                )
            seen.add(key)
            value = self._value(self._loader.get_event(), inner, depth + 1)
            # The line of the key, where people look; its value may begin further down.
            self._lines[inner] = _line(event)
            if value is not None:
                mapping[key] = value
        return mapping

    def _placeholder(self, start: Any, place: Place) -> str:
        """`{{name}}` as text. To YAML it is a mapping inside a mapping's key; but NAIS manifests are often
        templates, and an unrendered image tag must not prevent a manifest from being read.
        """
        events = [self._loader.get_event() for _ in range(5)]
        name = events[0]
        if [type(event) for event in events] != _PLACEHOLDER or events[1].value or events[3].value:
            raise self._fail("yaml_key", "has a key that is not a string" + _TEMPLATE_HINT, start, place)
        return "{{" + str(name.value) + "}}"

    def _alias(self, event: Any, place: Place) -> Any:
        if event.anchor not in self._anchors:
            raise self._fail("yaml_alias", f"refers to the unknown anchor {event.anchor!r}", event, place)
        value = self._anchors[event.anchor]
        self._nodes += _size(value, MAX_NODES - self._nodes)
        if self._nodes > MAX_NODES:
            raise self._fail(
                "yaml_too_large", f"has more than {MAX_NODES} values, aliases expanded", event, place
            )
        return value

    def _scalar(self, event: Any) -> Any:
        text = event.value
        if not event.implicit[0]:
            return text  # quoted: always a string
        for tag, pattern in _RESOLVERS.get(text[:1], ()):
            if pattern.match(text):
                return _CONVERSIONS[tag](text)
        return text


def _size(value: Any, limit: int) -> int:
    """Number of values in a value, counted to just above `limit`."""
    count, pending = 0, [value]
    while pending and count <= limit:
        item = pending.pop()
        count += 1
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return count
