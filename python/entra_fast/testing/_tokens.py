"""Tokens for tests: good ones, and bad ones of every kind by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.errors import EntraFastError
from entra_fast.testing import _keys

ERROR_CODES = {"token_refused": "the access policies of the test's manifests do not allow the token"}

LONG_AGO: Final = 86_400
"""Seconds by which the times of bad tokens are off: more than any lifetime and leeway."""

WRONG_AUDIENCE: Final = "ffffffff-ffff-4fff-bfff-ffffffffffff"
WRONG_ISSUER: Final = "https://issuer.test/v2.0"


class TokenMaker:
    """Makes access tokens as Entra ID would.

        entra_token("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b")                        # the application
        itself entra_token("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", user="ada")            # on behalf
        of a user entra_token.expired("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", user="ada")    # one
        that must be rejected

    Every method takes the same arguments:

    Args:
        consumer: the calling application, `<cluster>:<namespace>:<name>`.
        target: the API being called: the application under test.
        user: the user on whose behalf; None for the application itself.
        claims: further claims, or others in place of those that the token would have; None leaves one out.

    Raises:
        EntraFastError: code `token_refused`: the manifests do not allow it; the message has every check.
        ConfigurationError: the manifests or the directory have no such application or user.
    """

    def __init__(self, emulator: LocalEntraId, admit: Callable[[str, str, str | None], None]) -> None:
        self._emulator = emulator
        self._admit = admit

    def __call__(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """A valid token."""
        return self._signed(self._claims(consumer, target, user, claims))

    def expired(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Expired a day ago (`token_expired`)."""
        return self._signed(_shifted(self._claims(consumer, target, user, claims), -LONG_AGO))

    def not_yet_valid(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Valid from tomorrow (`token_not_yet_valid`)."""
        content = self._claims(consumer, target, user, claims)
        content |= {"nbf": content["iat"] + LONG_AGO, "exp": content["exp"] + LONG_AGO}
        return self._signed(content)

    def wrong_audience(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """For another API (`wrong_audience`)."""
        return self._signed(self._claims(consumer, target, user, claims) | {"aud": WRONG_AUDIENCE})

    def wrong_issuer(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """From another issuer (`wrong_issuer`)."""
        return self._signed(self._claims(consumer, target, user, claims) | {"iss": WRONG_ISSUER})

    def wrong_key(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Signed with a key that is not published (`unknown_key`)."""
        return token_claims.sign(_keys.stray(), self._claims(consumer, target, user, claims))

    def wrong_signature(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Changed after it was signed (`signature_invalid`)."""
        token = self(consumer, target, user, **claims)
        # A character in the middle of the signature: the last one has bits that do not count.
        place = token.rindex(".") + 40
        return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]

    def malformed(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Without its signature (`not_a_jwt`)."""
        return self(consumer, target, user, **claims).rpartition(".")[0]

    def each_bad(self) -> dict[str, Callable[..., str]]:
        """All kinds of bad tokens, by name: for a parametrized test."""
        return {name: getattr(self, name) for name in BAD}

    def _claims(
        self, consumer: str, target: str, user: str | None, changes: dict[str, Any]
    ) -> dict[str, Any]:
        self._admit(consumer, target, user)
        explanation = self._emulator.explain(consumer, target, user)
        if not explanation.decision.granted:
            raise EntraFastError("token_refused", "\n".join(["no token:", *explanation.lines()]))
        content = {**explanation.claims, **changes}
        return {name: value for name, value in content.items() if value is not None}

    def _signed(self, content: dict[str, Any]) -> str:
        return token_claims.sign(self._emulator.keyring.active, content)


BAD: Final = (
    "expired",
    "malformed",
    "not_yet_valid",
    "wrong_audience",
    "wrong_issuer",
    "wrong_key",
    "wrong_signature",
)
"""The methods that make tokens which must be rejected."""


def _shifted(content: dict[str, Any], seconds: int) -> dict[str, Any]:
    return content | {name: content[name] + seconds for name in ("iat", "nbf", "exp") if name in content}
