"""Tokens for tests: good ones, and bad ones of every kind by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.errors import EntraFastError
from entra_fast.testing import _bad, _keys

ERROR_CODES = {"token_refused": "the access policies of the test's manifests do not allow the token"}


class TokenMaker:
    """Makes access tokens as Entra ID would.

        app_a, app_b = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"
        entra_token(app_a, app_b)                        # of the application itself
        entra_token(app_a, app_b, user="ada")            # on behalf of a user
        entra_token.expired(app_a, app_b, user="ada")    # one that must be rejected

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
        return self._signed(_bad.expired(self._claims(consumer, target, user, claims)))

    def not_yet_valid(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Valid from tomorrow (`token_not_yet_valid`)."""
        return self._signed(_bad.not_yet_valid(self._claims(consumer, target, user, claims)))

    def wrong_audience(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """For another API (`wrong_audience`)."""
        return self._signed(self._claims(consumer, target, user, claims) | {"aud": _bad.WRONG_AUDIENCE})

    def wrong_issuer(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """From another issuer (`wrong_issuer`)."""
        return self._signed(self._claims(consumer, target, user, claims) | {"iss": _bad.WRONG_ISSUER})

    def wrong_key(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Signed with a key that is not published (`unknown_key`)."""
        return token_claims.sign(_keys.stray(), self._claims(consumer, target, user, claims))

    def wrong_signature(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Changed after it was signed (`signature_invalid`)."""
        return _bad.tampered(self(consumer, target, user, **claims))

    def malformed(self, consumer: str, target: str, user: str | None = None, **claims: Any) -> str:
        """Without its signature (`not_a_jwt`)."""
        return _bad.unsigned(self(consumer, target, user, **claims))

    def each_bad(self) -> dict[str, Callable[..., str]]:
        """All kinds of bad tokens, by name: for a parametrized test."""
        return {name: getattr(self, name) for name in _bad.BAD}

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
