"""The conditions under which the sidecar reports a token as active.

What belongs here: the policy of introspection (docs/endpoints.md). What must never be here: verification
itself.
"""

from __future__ import annotations

from entra_fast._native import Policy


def policy_for(issuer: str, client_id: str, signatures: str = "fast") -> Policy:
    """The policy for tokens of an issuer that are meant for this application.

    Raises:
        ConfigurationError: tokens of this issuer cannot be verified, for instance because it has a
            placeholder.
    """
    return Policy(
        issuers=[issuer],
        audiences=[client_id],
        algorithms=["RS256"],
        required_claims=["iat"],
        signatures=signatures,
    )
