"""What a caller may send as `aud`: the target of a token exchange. Text in, text out.

Which targets there are, TokenX decides: it gets them as they were sent.
"""

from __future__ import annotations

import re
from typing import Final

from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, AudienceError

_DOTTED: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
"""Another spelling, as the token generator for Entra ID has it."""


def parse_target(values: list[str], kind: str = "query") -> str:
    """The one target among the values of `aud`.

    Args:
        kind: of the parameters: query or form.

    Raises:
        AudienceError: none, several, or too long.
    """
    if not values or not values[0].strip():
        raise AudienceError(f"missing 'aud' {kind} parameter")
    if len(values) > 1:
        raise AudienceError(f"the {kind} parameter 'aud' must be given once")
    text = values[0].strip()
    if len(text) > MAX_AUDIENCE_CHARACTERS:
        raise AudienceError(
            f"the {kind} parameter 'aud' is longer than {MAX_AUDIENCE_CHARACTERS} characters; expected "
            "<cluster>:<namespace>:<app>"
        )
    dotted = _DOTTED.fullmatch(text)
    return ":".join(dotted.groups()) if dotted else text
