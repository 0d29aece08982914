"""HTML by construction: text is escaped unless it was built here, so that nothing can be forgotten.

Elements only, no page of its own; pages.py, login.py and console.py are made of these.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from typing import Final, TypeAlias

Child: TypeAlias = "str | int | Iterable[Child] | None"

_VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta"})


class Html(str):
    """Markup. Only `tag`, `join` and `document` make it from anything that came from outside."""

    __slots__ = ()


def render(child: Child) -> str:
    """A child as markup: Html as it is, text escaped, None as nothing, sequences one after the other."""
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    if isinstance(child, str | int):
        return html.escape(str(child), quote=True)
    return "".join(render(item) for item in child)


def tag(name: str, /, *children: Child, **attributes: str | bool | int | None) -> Html:
    """An element. `class_` and `for_` stand for `class` and `for`; other underscores become hyphens; True
    is an attribute without value; None and False leave it out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(
            f" {attribute}" if value is True else f' {attribute}="{html.escape(str(value), quote=True)}"'
        )
    parts.append(">")
    if name not in _VOID:
        parts.append(render(children))
        parts.append(f"</{name}>")
    return Html("".join(parts))


def join(*children: Child) -> Html:
    """Children without an element around them."""
    return Html(render(children))


def raw_element(name: str, text: str) -> Html:
    """A style or script element, whose content is not escaped; for constants of this package only."""
    return Html(f"<{name}>{text}</{name}>")


def csp_hash(text: str) -> str:
    """The content security policy's source expression for an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
