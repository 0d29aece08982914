"""The decision that every integration makes: from a request to the claims of its token, or to a refusal.

What belongs here: the order of the steps (excluded? token? valid? sufficient?), what is logged and counted
about each outcome, and the check of the options when the application starts. What must never be here: a
framework.

A token is verified before anything is required of it, so a forged token learns nothing about requirements.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from entra_fast import Claims, challenge, metrics
from entra_fast._claims import ClaimsView, UnverifiedClaims
from entra_fast.errors import EntraFastError, InvalidToken, KeysUnavailable
from entra_fast.integrations import _validators
from entra_fast.integrations._bearer import Exclusions, Incoming, MalformedHeader, token_of
from entra_fast.integrations._metadata import ResourceMetadata
from entra_fast.integrations._refusal import Refusal, malformed, no_token, refusal_for
from entra_fast.require import Require

LOGGER: Final = logging.getLogger("entra_fast.bearer")

MAX_LINES_PER_SECOND: Final = 10
"""Limit of log lines about refused requests: anyone can cause them."""

MAX_LOGGED_PATH: Final = 200


def check_is_requirement(value: object, name: str) -> None:
    """Check the type of a requirement when it is named, and not at the first request.

    Args:
        name: what takes it, as the sentence begins: `require()`.

    Raises:
        TypeError: it is no `Require`.
    """
    if not isinstance(value, Require):
        raise TypeError(f"{name} takes a Require, not {type(value).__name__}")


class Guard:
    """The options of an integration, and the steps that are the same for threads and event loops.

    Args:
        framework: its name, for metrics.
        require: what every token must have; by default an access token.
        exclude: paths that need no token: see `Exclusions`.
        optional: let requests without a token through, too, with None for claims.
        realm: name of what is protected, for `WWW-Authenticate`.
        resource_metadata: what to serve as metadata of the API, and to name in challenges (RFC 9728).

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option has a wrong value.
    """

    validator: Any

    def __init__(
        self,
        framework: str,
        *,
        require: Require | None = None,
        exclude: Iterable[str] = (),
        optional: bool = False,
        realm: str = "api",
        resource_metadata: ResourceMetadata | None = None,
    ) -> None:
        if require is not None and not isinstance(require, Require):
            raise TypeError(f"require is a Require, not {type(require).__name__}")
        if not isinstance(optional, bool):
            raise TypeError(f"optional is True or False, not {type(optional).__name__}")
        if resource_metadata is not None and not isinstance(resource_metadata, ResourceMetadata):
            raise TypeError(
                f"resource_metadata is a ResourceMetadata, not {type(resource_metadata).__name__}"
            )
        self.framework = framework
        self.requirement = Require.any_token() if require is None else require
        self.is_required = require is not None
        self.exclusions = Exclusions(exclude)
        self.optional = optional
        self.realm = challenge.check_realm(realm)
        self.verified_only = True
        self.metadata = resource_metadata
        self.metadata_url = None if resource_metadata is None else resource_metadata.url

    def metadata_for(self, incoming: Incoming) -> bytes | None:
        """The metadata of the API in JSON, if the request is for them. They need no token."""
        metadata = self.metadata
        if metadata is None or incoming.path != metadata.path or incoming.method not in ("GET", "HEAD"):
            return None
        self._count("metadata")
        return metadata.body

    def exempt(self, incoming: Incoming, more: Exclusions | None = None) -> bool:
        """Whether the request needs no token: an excluded path, or a CORS preflight request.

        Args:
            more: further exclusions.
        """
        if incoming.preflight:
            self._count("preflight")
            return True
        every = (self.exclusions,) if more is None else (self.exclusions, more)
        if any(one.match(incoming.method, incoming.path) for one in every):
            self._count("excluded")
            return True
        return False

    def read_token(self, incoming: Incoming, optional: bool | None = None) -> str | None:
        """The token; None where there is none and none is needed.

        Args:
            optional: what holds for this request instead of the integration's own option.

        Raises:
            Refusal: there is none, or the header cannot be read.
        """
        try:
            token = token_of(incoming.authorization)
        except MalformedHeader as error:
            raise self._refused(malformed(self.realm, str(error), self.metadata_url), incoming.path) from None
        if token is None:
            if not (self.optional if optional is None else optional):
                raise self._refused(no_token(self.realm, self.metadata_url), incoming.path)
            self._count("anonymous")
            return None
        if not token.isascii():  # servers decode such bytes in different ways
            not_a_jwt = InvalidToken("not_a_jwt", "token is not a JWT: expected base64url characters")
            raise self.refuse(not_a_jwt, incoming.path)
        return token

    def check(self, claims: Claims | None, requirement: Require, path: str) -> None:
        """Check a requirement of a route.

        Args:
            claims: those of the verified token; None where none came.

        Raises:
            Refusal: the requirement is not met.
        """
        if claims is None:
            raise self._refused(no_token(self.realm, self.metadata_url), path)
        try:
            requirement.check(claims)
        except EntraFastError as error:
            raise self.refuse(error, path, requirement, claims) from None

    def refuse(
        self,
        error: EntraFastError,
        path: str,
        requirement: Require | None = None,
        claims: Claims | None = None,
    ) -> Refusal:
        """The refusal for an error, logged and counted."""
        reason = error.message if isinstance(error, KeysUnavailable) else None
        refusal = refusal_for(error, self.realm, requirement, claims, metadata=self.metadata_url)
        return self._refused(refusal, path, claims, reason)

    def admitted(self, claims: object, requirement: Require | None, path: str) -> Claims:
        """The claims of a verified token, if they meet the requirement.

        Raises:
            Refusal: they do not.
            TypeError: the validator returned something else than verified claims.
        """
        is_verified = isinstance(claims, Claims | ClaimsView) and not isinstance(claims, UnverifiedClaims)
        if self.verified_only and not is_verified:
            raise TypeError(f"the validator returned {type(claims).__name__} instead of verified claims")
        # What a test has installed by use() counts as verified.
        verified: Claims = claims  # type: ignore[assignment]
        self.check(verified, self.requirement if requirement is None else requirement, path)
        self._count("accepted")
        return verified

    @contextlib.contextmanager
    def use(self, validator: Any) -> Iterator[None]:
        """Use another validator for the time being, in the whole application: for tests.

        Args:
            validator: any object with `validate`, which may return or await claims of any kind.
        """
        before = self.validator, self.verified_only
        self.validator, self.verified_only = validator, False
        try:
            yield
        finally:
            self.validator, self.verified_only = before

    def _refused(
        self, refusal: Refusal, path: str, claims: Claims | None = None, reason: str | None = None
    ) -> Refusal:
        self._count(refusal.outcome)
        if _lines.admit():
            level = logging.WARNING if refusal.status == 503 else logging.INFO
            caller = None if claims is None else claims.authorized_party
            LOGGER.log(
                level,
                "request refused: %s%s path=%s%s",
                refusal.outcome,
                "" if reason is None else f" ({reason})",
                ascii(path[:MAX_LOGGED_PATH]),
                "" if caller is None else f" azp={caller[:64]!a}",
            )
        return refusal

    def _count(self, outcome: str) -> None:
        metrics.count(metrics.BEARER_DECISIONS, self.framework, outcome)


class SyncGuard(Guard):
    """For frameworks of threads.

    Args:
        validator: a `Validator` or a `SidecarClient`; by default one from the environment, made when it is
            first needed.
        provider: whose tokens are accepted, if it is from the environment: see `Validator.from_env`.
        options: as for `Guard`.
    """

    def __init__(
        self,
        framework: str,
        validator: _validators.TokenValidator | None,
        *,
        provider: str | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(framework, **options)
        self._source = _validators.Source.of(validator, provider, self.is_required)
        self._validator = None if validator is None else _validators.sync_validator(validator)
        self._has_begun = False

    @property
    def validator(self) -> Any:
        """The validator.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
        """
        if self._validator is None:
            self._validator = _validators.sync_validator(None, self._source)
        return self._validator

    @validator.setter
    def validator(self, validator: Any) -> None:
        self._validator = validator

    def begin(self) -> None:
        """Let the validator fetch its keys, at the first request of the process: a probe, as a rule."""
        if not self._has_begun:
            self._has_begun = True
            if hasattr(self.validator, "start"):
                self.validator.start()

    def admit(self, incoming: Incoming, requirement: Require | None = None) -> Claims | None:
        """The claims of the request's token; None where it needs none.

        Args:
            requirement: what to require instead of the integration's own requirement.

        Raises:
            Refusal: the request is refused.
        """
        if self.exempt(incoming):
            return None
        token = self.read_token(incoming)
        return None if token is None else self.verify(token, incoming, requirement)

    def verify(self, token: str, incoming: Incoming, requirement: Require | None = None) -> Claims:
        """The claims of a token that was read from a request.

        Raises:
            Refusal: the token is refused, or cannot be verified.
        """
        try:
            claims = self.validator.validate(token)
        except (InvalidToken, KeysUnavailable) as error:
            raise self.refuse(error, incoming.path) from None
        return self.admitted(claims, requirement, incoming.path)


class AsyncGuard(Guard):
    """For frameworks of an event loop.

    Args:
        validator: an `AsyncValidator` or an `AsyncSidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, if it is from the environment: see `Validator.from_env`.
        options: as for `Guard`.
    """

    def __init__(
        self,
        framework: str,
        validator: _validators.AsyncTokenValidator | None,
        *,
        provider: str | Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(framework, **options)
        source = _validators.Source.of(validator, provider, self.is_required)
        self.validator = _validators.async_validator(validator, source)

    async def admit(self, incoming: Incoming, requirement: Require | None = None) -> Claims | None:
        """See `SyncGuard.admit`."""
        if self.exempt(incoming):
            return None
        return await self.authenticate(incoming, requirement)

    async def authenticate(
        self, incoming: Incoming, requirement: Require | None = None, optional: bool | None = None
    ) -> Claims | None:
        """Like `admit`, but no path is excluded.

        Args:
            optional: what holds for this request instead of the integration's own option.
        """
        token = self.read_token(incoming, optional)
        if token is None:
            return None
        try:
            validated: Any = self.validator.validate(token)
            claims = await validated if inspect.isawaitable(validated) else validated
        except (InvalidToken, KeysUnavailable) as error:
            raise self.refuse(error, incoming.path) from None
        return self.admitted(claims, requirement, incoming.path)


# --- log lines ---


class _Lines:
    """Admits a number of log lines per second, and says how many were left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._second = 0
        self._written = 0
        self._left_out = 0

    def admit(self) -> bool:
        """Whether a line may be written now."""
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._written = second, 0
            left_out = 0
            if self._written >= MAX_LINES_PER_SECOND:
                self._left_out += 1
                return False
            self._written += 1
            left_out, self._left_out = self._left_out, 0
        if left_out:
            LOGGER.info("%d further refused requests were not logged", left_out)
        return True


_lines = _Lines()
