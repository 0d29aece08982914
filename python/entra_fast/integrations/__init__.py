"""Bearer tokens in web frameworks: a module for each framework, over one decision.

    from entra_fast.integrations.fastapi import EntraID    # pip install 'entra-fast[fastapi]'

What belongs here: translation. A framework's module hands the request to `_guard.py`, which decides, and
turns the refusal into that framework's response. What must never be here: a decision that depends on the
framework, and an import of one framework by the module of another.
"""

from __future__ import annotations

from entra_fast.integrations._metadata import ResourceMetadata

__all__ = ["ResourceMetadata"]
