"""Validates the values of a YAML document against a pydantic model, and describes mistakes in YAML's terms.

Only the translation of pydantic's errors into places and sentences belongs here. The fields are defined in
manifest_schema.py and directory_schema.py.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from entra_fast.emulator.model.documents import Place
from entra_fast.emulator.model.wording import did_you_mean, shown

MAX_FINDINGS: Final = 10_000


class Section(BaseModel):
    """A mapping with known fields; any other field is a mistake.

    Attributes:
        ignored_fields: fields of the real resource that do not concern Entra ID; their values are accepted
            unchecked.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)

    ignored_fields: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _without_ignored_fields(cls, value: Any) -> Any:
        if cls.ignored_fields and isinstance(value, dict):
            return {name: item for name, item in value.items() if name not in cls.ignored_fields}
        return value

    @classmethod
    def field_names(cls) -> list[str]:
        """Names of all fields that the mapping may have, as they are written in YAML."""
        known = (field.alias or name for name, field in cls.model_fields.items())
        return sorted({*known, *cls.ignored_fields})


T = TypeVar("T")
# Strict validation takes tuples only for tuples, and YAML has lists.
List = Annotated[tuple[T, ...], Strict(False)]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake in a value.

    Attributes:
        place: where it is, from the value that was validated.
        text: what is wrong and what was expected.
        unknown_field: whether the mistake is a field that does not exist.
    """

    place: Place
    text: str
    unknown_field: bool = False


def findings(kind: type[Section], error: ValidationError) -> list[Finding]:
    """All mistakes that pydantic has found in a value of `kind`."""
    if error.error_count() > MAX_FINDINGS:
        # Each takes about a kilobyte; a file with more mistakes is not a manifest at all.
        return [Finding((), f"has {error.error_count()} mistakes, too many to list them")]
    return [_finding(kind, details) for details in error.errors(include_url=False)]


_EXPECTED: Final = {
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
}


def _finding(kind: type[Section], details: ErrorDetails) -> Finding:
    place, value = details["loc"], details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "missing":
            return Finding(place, "required, but missing")
        case "extra_forbidden":
            text = "unknown field" + did_you_mean(str(place[-1]), _fields_around(kind, place))
            return Finding(place, text, unknown_field=True)
        case "value_error":
            return Finding(place, str(context["error"]))
        case "literal_error":
            return Finding(place, f"expected {context['expected']}, got {shown(value)}")
        case code:
            text = f"expected {_EXPECTED.get(code, details['msg'])}, got {shown(value)}"
            if code == "string_type" and isinstance(value, int | float):
                text += "; put it in quotes"
            return Finding(place, text)


def _fields_around(kind: type[Section], place: Place) -> list[str]:
    """Names of the fields that are allowed in place of the unknown field."""
    for step in place[:-1]:
        if isinstance(step, str):
            field = next(item for name, item in kind.model_fields.items() if (item.alias or name) == step)
            kind = _section_in(field.annotation) or kind
    return kind.field_names()


def _section_in(annotation: Any) -> type[Section] | None:
    """The Section that a field's type is made of: itself, the items of its list, or optional."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, typing.get_args(annotation))), None)
