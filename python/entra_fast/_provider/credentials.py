"""The application's credential, which proves its identity.

What belongs here: choosing the kind of credential, reading it again for every use, switching to the next one
during a rotation, and recording whether the provider accepted it. What must never be here: caching of
assertions (each is used once) and anything that prints a credential.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from entra_fast import _clock, _native
from entra_fast._provider.oauth import (
    assertion_fields,
    grant_fields,
    provider_code,
    secret_fields,
    sign_client_assertion,
    sign_grant,
)
from entra_fast._provider.rejections import rejects, rejects_credential
from entra_fast._providers import ProviderKind
from entra_fast._settings.model import CredentialSettings
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError, ProviderError

ERROR_CODES = {"credential_unusable": "the application's credential cannot be read"}

_Result = TypeVar("_Result")

REJECTION_MEMORY = 300.0
"""Seconds for which a rejection counts if nothing tries the credential again (credential_try.py). Without
traffic there is no attempt that could show that it works again, so it must not count forever."""

CredentialState = Literal["accepted", "rejected", "unreadable", "unknown", "none"]
"""`none`: the application does not authenticate itself to this provider."""


class Credential(ABC):
    """One way to authenticate a client."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret

    @abstractmethod
    def fields(self, client_id: str, audience: str, now: float) -> dict[str, str]:
        """Form fields for one attempt.

        Args:
            audience: for which an assertion is.

        Raises:
            ConfigurationError: the credential cannot be read now.
        """

    def grant(self, client_id: str, audience: str, claims: Mapping[str, Any], now: float) -> dict[str, str]:
        """The form field for one attempt in which the client signs the grant itself.

        Args:
            claims: see `grant_claims`.

        Raises:
            ConfigurationError: the credential cannot be read now, or cannot sign.
        """
        message = f"{self.secret.setting}: this grant needs a private JWK"
        raise ConfigurationError("setting_invalid", message, self.secret.setting)

    def check(self) -> None:
        """
        Raises:
            ConfigurationError: the credential cannot be read now.
        """
        self.secret.reveal()


class PrivateKey(Credential):
    """`private_key_jwt`: an assertion signed with a private JWK, new for each attempt."""

    _parsed: tuple[bytes, _native.SigningKey] | None = None

    def fields(self, client_id: str, audience: str, now: float) -> dict[str, str]:
        return assertion_fields(sign_client_assertion(self._key(), client_id, audience, now))

    def grant(self, client_id: str, audience: str, claims: Mapping[str, Any], now: float) -> dict[str, str]:
        return grant_fields(sign_grant(self._key(), client_id, audience, claims, now))

    def check(self) -> None:
        self._key()

    def _key(self) -> _native.SigningKey:
        """The key, parsed again only when its text has changed."""
        text = self.secret.reveal()
        digest = _native.sha256(text.encode("utf-8"))
        if self._parsed is None or self._parsed[0] != digest:
            self._parsed = (digest, signing_key(self.secret.setting, text))
        return self._parsed[1]


class FederatedTokenFile(Credential):
    """Workload identity: the assertion is the content of a file that the platform rotates."""

    def fields(self, client_id: str, audience: str, now: float) -> dict[str, str]:
        return assertion_fields(self.secret.reveal())


class ClientSecret(Credential):
    """`client_secret_post`."""

    def fields(self, client_id: str, audience: str, now: float) -> dict[str, str]:
        return secret_fields(self.secret.reveal())


class Credentials:
    """The credential in use and, during a rotation, the one that comes next.

    When the provider rejects one (`invalid_client`), the other one is tried at once; the one that was
    accepted last is tried first from then on.

    Args:
        rejection_memory: see `REJECTION_MEMORY`.

    Attributes:
        have_been_accepted: whether the provider has ever accepted one.
        rejected_digests: those of the credentials that were rejected last.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        client_id: str,
        *,
        monotonic: Callable[[], float] = _clock.monotonic,
        rejection_memory: float = REJECTION_MEMORY,
    ) -> None:
        self._client_id = client_id
        candidates: list[Credential]
        if settings.jwk is not None:
            candidates = [PrivateKey(jwk) for jwk in (settings.jwk, settings.next_jwk) if jwk is not None]
        elif settings.federated_token is not None:
            candidates = [FederatedTokenFile(settings.federated_token)]
        else:
            # Neither, for a provider to which the application does not authenticate itself.
            secrets = (settings.client_secret, settings.next_client_secret)
            candidates = [ClientSecret(secret) for secret in secrets if secret is not None]
        self._candidates = candidates
        self._monotonic = monotonic
        self._rejection_memory = rejection_memory
        self._verdict: Literal["accepted", "rejected"] | None = None
        self._rejection = ""
        self._rejected_at = 0.0
        self._not_judged: str | None = None
        self._rejections = asyncio.Event()
        self.rejected_digests: list[bytes] = []
        self.have_been_accepted = False

    def in_order(self) -> tuple[Credential, ...]:
        """The credentials to try, the most likely one first."""
        return tuple(self._candidates)

    def fields(
        self, credential: Credential, audience: str, now: float, grant: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Form fields for one attempt.

        Args:
            audience: for which an assertion is.
            grant: what the client asks for, where it signs the grant itself (`grant_claims`).

        Raises:
            ConfigurationError: the credential cannot be read now.
        """
        if grant is not None:
            return credential.grant(self._client_id, audience, grant, now)
        return credential.fields(self._client_id, audience, now)

    # --- what the provider says about them ---

    def accepted(self, credential: Credential | None = None) -> None:
        """The provider accepted this one; None if it is not known which."""
        self._verdict = "accepted"
        self.have_been_accepted = True
        if credential is not None and self._candidates[0] is not credential:
            self._candidates.remove(credential)
            self._candidates.insert(0, credential)

    def rejected(self, error: ProviderError) -> None:
        """The provider accepted none of them, or does not know the application."""
        self._verdict = "rejected"
        self._rejection = provider_code(error)
        self._rejected_at = self._monotonic()
        self.rejected_digests = self.digests()
        self._rejections.set()

    def not_judged(self, reason: str) -> None:
        """An attempt whose answer says nothing about the credential."""
        self._not_judged = reason

    @property
    def are_accepted(self) -> bool:
        """Whether the provider accepted a credential last."""
        return self._verdict == "accepted"

    @property
    def rejection(self) -> str | None:
        """The code with which the provider rejected the current credential last; None if it accepted it
        since, if the credential has changed, and after `rejection_memory`."""
        if self._verdict != "rejected":
            return None
        age = self._monotonic() - self._rejected_at
        if age > self._rejection_memory or self.digests() != self.rejected_digests:
            self._verdict = self._not_judged = None
            return None
        return self._rejection

    async def until_rejected(self) -> None:
        """Return when the provider rejects a credential that it has accepted."""
        while self.are_accepted:
            self._rejections.clear()
            await self._rejections.wait()

    def digests(self) -> list[bytes]:
        """A digest of all readable credentials; it changes when a credential changes."""
        digests = []
        for candidate in self._candidates:
            with contextlib.suppress(ConfigurationError):
                digests.append(_native.sha256(candidate.secret.reveal().encode("utf-8")))
        return digests

    def state(self) -> tuple[CredentialState, str | None]:
        """What is known about the credential, and why it is not accepted."""
        if not self._candidates:
            return "none", None
        if (rejection := self.rejection) is not None:
            return "rejected", f"the provider rejects the application or its credential ({rejection})"
        try:
            self._candidates[0].check()
        except ConfigurationError as exc:
            return "unreadable", exc.message
        if self.are_accepted:
            return "accepted", None
        reason = self._not_judged or "it has not been tried yet"
        return (
            "unknown",
            f"the provider has neither accepted nor rejected the application's credential: {reason}",
        )

    def problem(self) -> str | None:
        """Why no token can be requested with this credential, or None."""
        state, reason = self.state()
        return reason if state in ("rejected", "unreadable") else None


async def authenticated(
    credentials: Credentials,
    kind: ProviderKind,
    audience: str,
    clock: Callable[[], float],
    attempt: Callable[[dict[str, str]], Awaitable[_Result]],
    grant: Mapping[str, Any] | None = None,
) -> _Result:
    """The result of a request that proves who the application is; during a rotation of credentials, of one
    attempt for each of them until one is accepted.

    Args:
        kind: which errors reject a credential.
        audience: for which an assertion is.
        clock: seconds since the epoch.
        attempt: sends the request with these form fields, which are new for each attempt.
        grant: see `Credentials.fields`.

    Raises:
        ProviderError: that of the attempt, or `credential_unusable` if no credential can be read.
    """
    failure: ProviderError | None = None
    for credential in credentials.in_order():
        try:
            fields = credentials.fields(credential, audience, clock(), *([] if grant is None else [grant]))
        except ConfigurationError as error:
            # A missing successor must not hide why the current credential was rejected.
            failure = failure or ProviderError("credential_unusable", error.message)
            continue
        try:
            result = await attempt(fields)
        except ProviderError as error:
            if not rejects_credential(kind, error):
                if rejects(kind, error):
                    credentials.rejected(error)
                raise
            failure = ProviderError(*error.args)
            continue
        credentials.accepted(credential)
        return result
    assert failure is not None, "there is always a credential"  # noqa: S101
    if rejects(kind, failure):
        credentials.rejected(failure)
    # A copy again: what is raised refers to this frame, which must not refer back to it. Such cycles keep the
    # user's token until the garbage collector runs.
    raise ProviderError(*failure.args)
