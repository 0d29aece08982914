"""What a caller may write after `aud=`, and the scope that it becomes.

Only text in, text out: no I/O, no settings. Whether the audience exists and admits this application is for
the provider to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_AUDIENCE_CHARACTERS = 512
"""Longer audiences are refused: they end up in redirects, cookies and requests to the provider."""

FORMS = (
    "'<cluster>:<namespace>:<app>', '<cluster>.<namespace>.<app>', or a scope that starts with "
    "'api://' or 'https://'"
)

# RFC 6749, section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). White space would separate two
# scopes, so that `aud=api://a/.default offline_access` would ask for more than one thing.
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
# Both spellings have exactly three parts, as in api://<cluster>.<namespace>.<app>.
_PART = r"[A-Za-z0-9_-]+"
_NAME = re.compile(rf"({_PART})([:.])({_PART})\2({_PART})")


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
    if text.startswith(("api://", "https://")):
        if not _SCOPE_TOKEN.fullmatch(text):
            raise AudienceError(
                "the parameter 'aud' has a character that a scope cannot have (RFC 6749, section 3.3)"
            )
        return Audience(text, text)
    name = _NAME.fullmatch(text)
    if name is None:
        raise AudienceError(f"the parameter 'aud' is not an audience; expected {FORMS}")
    cluster, _, namespace, app = name.groups()
    return Audience(text, f"api://{cluster}.{namespace}.{app}/.default")
