"""The application's credential, which proves its identity.

What belongs here: choosing the kind of credential, reading it again for every use, switching to the next one
during a rotation, and recording whether the provider accepted it. What must never be here: caching of
assertions (each is used once) and anything that prints a credential.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from entra_fast import _clock, _native
from entra_fast._provider.oauth import aadsts_code, assertion_fields, secret_fields, sign_client_assertion
from entra_fast._settings.model import CredentialSettings
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError, ProviderError

ERROR_CODES = {"credential_unusable": "the application's credential cannot be read"}

_Result = TypeVar("_Result")

REJECTION_MEMORY = 300.0
"""Seconds for which a rejection counts if no attempt follows it. A pod that gets no traffic because of the
rejection makes no attempt that could show that the credential works again, so it must not count forever."""


class Credential(ABC):
    """One way to authenticate a client."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret

    @abstractmethod
    def fields(self, client_id: str, token_endpoint: str, now: float) -> dict[str, str]:
        """Form fields for one attempt.

        Raises:
            ConfigurationError: the credential cannot be read now.
        """

    def check(self) -> None:
        """
        Raises:
            ConfigurationError: the credential cannot be read now.
        """
        self.secret.reveal()


class PrivateKey(Credential):
    """`private_key_jwt`: an assertion signed with AZURE_APP_JWK, new for each attempt."""

    _parsed: tuple[bytes, _native.SigningKey] | None = None

    def fields(self, client_id: str, token_endpoint: str, now: float) -> dict[str, str]:
        return assertion_fields(sign_client_assertion(self._key(), client_id, token_endpoint, now))

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

    def __init__(self, path: Path) -> None:
        super().__init__(Secret("AZURE_FEDERATED_TOKEN_FILE", path=path))

    def fields(self, client_id: str, token_endpoint: str, now: float) -> dict[str, str]:
        return assertion_fields(self.secret.reveal())


class ClientSecret(Credential):
    """`client_secret_post`."""

    def fields(self, client_id: str, token_endpoint: str, now: float) -> dict[str, str]:
        return secret_fields(self.secret.reveal())


class Credentials:
    """The credential in use and, during a rotation, the one that comes next.

    When the provider rejects one (`invalid_client`), the other one is tried at once; the one that was
    accepted last is tried first from then on.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        client_id: str,
        *,
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        self._client_id = client_id
        candidates: list[Credential]
        if settings.jwk is not None:
            candidates = [PrivateKey(jwk) for jwk in (settings.jwk, settings.next_jwk) if jwk is not None]
        elif settings.federated_token_file is not None:
            candidates = [FederatedTokenFile(settings.federated_token_file)]
        else:
            secrets = (settings.client_secret, settings.next_client_secret)
            candidates = [ClientSecret(secret) for secret in secrets if secret is not None]
        self._candidates = candidates
        self._rejection: str | None = None
        self._rejected_at = 0.0
        self._rejected: list[bytes] = []
        self._monotonic = monotonic

    def in_order(self) -> tuple[Credential, ...]:
        """The credentials to try, the most likely one first."""
        return tuple(self._candidates)

    def fields(self, credential: Credential, token_endpoint: str, now: float) -> dict[str, str]:
        """Form fields for one attempt.

        Raises:
            ConfigurationError: the credential cannot be read now.
        """
        return credential.fields(self._client_id, token_endpoint, now)

    def accepted(self, credential: Credential) -> None:
        self._rejection = None
        if self._candidates[0] is not credential:
            self._candidates.remove(credential)
            self._candidates.insert(0, credential)

    def rejected(self, error: ProviderError) -> None:
        """The provider accepted none of them."""
        self._rejection = aadsts_code(error) or error.error
        self._rejected_at = self._monotonic()
        self._rejected = self._digests()

    @property
    def rejection(self) -> str | None:
        """The AADSTS code with which the provider rejected the current credential within the last
        `REJECTION_MEMORY` seconds, or None."""
        if self._rejection is not None and (
            self._monotonic() - self._rejected_at > REJECTION_MEMORY or self._digests() != self._rejected
        ):
            self._rejection = None
        return self._rejection

    def _digests(self) -> list[bytes]:
        """A digest of all readable credentials; it changes when a credential changes."""
        digests = []
        for candidate in self._candidates:
            with contextlib.suppress(ConfigurationError):
                digests.append(_native.sha256(candidate.secret.reveal().encode("utf-8")))
        return digests

    def problem(self) -> str | None:
        """Why no token can be requested with this credential, or None."""
        if (rejection := self.rejection) is not None:
            return f"the provider rejects the application's credential ({rejection})"
        try:
            self._candidates[0].check()
        except ConfigurationError as exc:
            return exc.message
        return None


async def authenticated(
    credentials: Credentials,
    token_endpoint: str,
    clock: Callable[[], float],
    attempt: Callable[[dict[str, str]], Awaitable[_Result]],
) -> _Result:
    """The result of a request that proves who the application is; during a rotation of credentials, of one
    attempt for each of them until one is accepted.

    Args:
        clock: seconds since the epoch.
        attempt: sends the request with these form fields, which are new for each attempt.

    Raises:
        ProviderError: that of the attempt, or `credential_unusable` if no credential can be read.
    """
    failure: ProviderError | None = None
    for credential in credentials.in_order():
        try:
            fields = credentials.fields(credential, token_endpoint, clock())
        except ConfigurationError as error:
            # A missing successor must not hide why the current credential was rejected.
            failure = failure or ProviderError("credential_unusable", error.message)
            continue
        try:
            result = await attempt(fields)
        except ProviderError as error:
            if error.error != "invalid_client":
                raise
            failure = ProviderError(*error.args)
            continue
        credentials.accepted(credential)
        return result
    assert failure is not None, "there is always a credential"  # noqa: S101
    if failure.error == "invalid_client":
        credentials.rejected(failure)
    # A copy again: what is raised refers to this frame, which must not refer back to it. Such cycles keep the
    # user's token until the garbage collector runs.
    raise ProviderError(*failure.args)
