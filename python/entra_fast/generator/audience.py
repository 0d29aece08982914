"""What a caller may send as `aud`, and the scope that it becomes.

Only text in, text out: no I/O, no settings. Whether the audience exists and allows this application is for
the provider to decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from entra_fast import _native
from entra_fast.errors import EntraFastError

MAX_AUDIENCE_CHARACTERS = 512
"""Longer audiences are refused: they end up in redirects, cookies and requests to the provider."""

FORMS = (
    "'<cluster>:<namespace>:<app>', '<cluster>.<namespace>.<app>', or another scope, as "
    "'api://<client id>/.default'"
)

_DOTTED = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
"""`<cluster>.<namespace>.<app>` is an additional spelling of ours, in front of what the contract accepts."""


class AudienceError(ValueError):
    """The audience is missing or cannot be one. The text says what was expected, never what was sent."""


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience as the caller wrote it, and the scope to ask the provider for."""

    text: str
    scope: str


def parse_audience(values: list[str]) -> Audience:
    """The one audience among the values of `aud`.

    Raises:
        AudienceError: none, several, or not one of the known forms.
    """
    if not values or not values[0]:
        raise AudienceError(f"the parameter 'aud' is missing; expected {FORMS}")
    if len(values) > 1:
        raise AudienceError("the parameter 'aud' must be given once")
    text = values[0].strip()
    if len(text) > MAX_AUDIENCE_CHARACTERS:
        raise AudienceError(f"the parameter 'aud' is longer than {MAX_AUDIENCE_CHARACTERS} characters")
    dotted = _DOTTED.fullmatch(text)
    try:
        scope = _native.scope_for(":".join(dotted.groups()) if dotted else text)
    except EntraFastError:
        scope = ""
    # A space would separate two scopes: `api://a/.default offline_access` would ask for more than one thing.
    if scope and " " not in scope:
        return Audience(text, scope)
    raise AudienceError(
        "the parameter 'aud' has a character that a scope cannot have (RFC 6749, section 3.3); "
        f"expected {FORMS}"
    )
