"""The validator that an integration uses when it gets none: made from the environment, in the framework's
life cycle.

What belongs here: when a validator is made, and when its keys begin to be fetched: not while a module is
imported.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from entra_fast import Claims
from entra_fast._claims import ClaimsView
from entra_fast.errors import ConfigurationError, InvalidToken, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._environment import Environment

PAUSE: Final = 5.0
"""Seconds between two attempts to fetch the discovery document."""


class TokenValidator(Protocol):
    """A `Validator` or a `SidecarClient`."""

    def validate(self, token: str | bytes) -> Claims | ClaimsView: ...


class AsyncTokenValidator(Protocol):
    """An `AsyncValidator` or an `AsyncSidecarClient`."""

    async def validate(self, token: str | bytes) -> Claims | ClaimsView: ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where a validator from the environment comes from.

    Attributes:
        provider: see `Validator.from_env`.
        is_required: whether the integration says what tokens must have.
    """

    provider: str | tuple[str, ...] | None = None
    is_required: bool = True

    @classmethod
    def of(cls, validator: object, provider: str | Sequence[str] | None, is_required: bool) -> Source:
        """Check the options of an integration.

        Raises:
            TypeError: both are given, or the provider has the wrong type.
            ConfigurationError: neither an audience nor a requirement would be checked.
        """
        if not is_required and not getattr(validator, "_checks_audience", True):
            raise _no_requirement("this validator")
        if provider is None:
            return cls()
        if validator is not None:
            raise TypeError("validator and provider exclude each other: a validator knows its providers")
        names = (provider,) if isinstance(provider, str) else provider
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"provider is a name, or a list of names, not {type(provider).__name__}")
        return cls(provider if isinstance(provider, str) else tuple(names), is_required)

    def described(self) -> list[Environment]:
        """The providers in the environment.

        Raises:
            ConfigurationError: a variable is missing or wrong, or there is no such provider; or neither an
                audience nor a requirement would be checked; `setting` names it.
        """
        from entra_fast._environment import described  # noqa: PLC0415 - not needed beside a sidecar
        from entra_fast._issuers import ANY_AUDIENCE  # noqa: PLC0415 - see above

        found = described(os.environ, self.provider)
        if not self.is_required and any(one.audience is ANY_AUDIENCE for one in found):
            raise _no_requirement(repr(self.provider))
        return found


def _no_requirement(whose: str) -> ConfigurationError:
    message = (
        f"require is missing: the audience is not checked for {whose}, so tokens for any other API would "
        "pass: say what they must have, as require=Require(scope=...)"
    )
    return ConfigurationError("setting_missing", message, "require")


def async_validator(given: AsyncTokenValidator | None, source: Source = Source()) -> AsyncTokenValidator:
    """The validator that was given, or one from the environment.

    Raises:
        TypeError: it does not validate on an event loop.
    """
    if given is None:
        return AsyncFromEnvironment(source)
    if not inspect.iscoroutinefunction(getattr(given, "validate", None)):
        raise TypeError(
            f"validator is an AsyncValidator or an AsyncSidecarClient, not {type(given).__name__}"
        )
    return given


def sync_validator(given: TokenValidator | None, source: Source = Source()) -> TokenValidator:
    """The validator that was given, or one from the environment.

    Raises:
        TypeError: it does not validate in threads.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """
    if given is None:
        # The discovery document must not be fetched while the application is imported.
        if any(one.well_known is not None for one in source.described()):
            return _Discovered(source.provider)
        return _from_environment(source.provider)
    validate = getattr(given, "validate", None)
    if not callable(validate) or inspect.iscoroutinefunction(validate):
        raise TypeError(f"validator is a Validator or a SidecarClient, not {type(given).__name__}")
    return given


async def start(validator: Any) -> None:
    """Let a validator begin to fetch its keys."""
    if hasattr(validator, "start"):
        await validator.start()


async def close(validator: Any) -> None:
    """Let a validator stop fetching its keys."""
    if hasattr(validator, "aclose"):
        await validator.aclose()


class AsyncFromEnvironment:
    """An `AsyncValidator` for the application whose settings are in the environment. It is made when the
    framework starts, or at the first token."""

    def __init__(self, source: Source = Source()) -> None:
        self._source = source
        self._validator: AsyncTokenValidator | None = None
        # Of the providers that are found, while others are not, and the number of them.
        self._of_others: AsyncTokenValidator | None = None
        self._found = 0
        self._creation: asyncio.Task[AsyncTokenValidator] | None = None
        self._failure: KeysUnavailable | None = None
        self._next_attempt = 0.0

    async def start(self) -> None:
        """Make the validator and let it begin. That the provider is unavailable is no reason not to start.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
        """
        try:
            await start(await self._get())
        except KeysUnavailable:
            return

    async def aclose(self) -> None:
        """Stop fetching keys. They are fetched again when another token comes."""
        made = (self._validator, self._of_others)
        self._validator = self._of_others = None
        self._found = 0
        for one in made:
            await close(one)

    async def validate(self, token: str | bytes) -> Claims | ClaimsView:
        """See `AsyncValidator.validate`."""
        tried: AsyncTokenValidator | None = None
        while (validator := self._validator) is None:
            others = self._of_others
            if others is not None and others is not tried:
                tried = others
                try:
                    return await others.validate(token)
                except InvalidToken as error:
                    if error.code != "wrong_issuer":
                        raise
            try:
                validator = await self._get()
            except KeysUnavailable:
                if self._of_others is tried:  # otherwise a provider has been found
                    raise
            else:
                break
        return await validator.validate(token)

    async def _get(self) -> AsyncTokenValidator:
        if self._validator is not None:
            return self._validator
        creation = self._creation
        if creation is None or creation.get_loop().is_closed():
            if self._failure is not None and time.monotonic() < self._next_attempt:
                raise KeysUnavailable(*self._failure.args)
            creation = self._creation = asyncio.ensure_future(self._create())
        # A caller that disconnects must not end what others wait for.
        return await asyncio.shield(creation)

    async def _create(self) -> AsyncTokenValidator:
        from entra_fast._arguments import found_of_async, of_environment  # noqa: PLC0415 - see below
        from entra_fast.validate import AsyncValidator  # noqa: PLC0415 - not needed beside a sidecar

        try:
            found, failure = await found_of_async(self._source.described())
            if failure is not None:
                if len(found) > self._found:
                    await close(self._of_others)
                    self._found = len(found)
                    self._of_others = AsyncValidator(issuers=[one.as_issuer() for one in found])
                raise failure
            self._validator = AsyncValidator(**of_environment(found, {}))
            others, self._of_others = self._of_others, None
            await close(others)
        except KeysUnavailable as error:
            self._failure, self._next_attempt = error, time.monotonic() + PAUSE
            raise
        finally:
            self._creation = None
        return self._validator


class _Discovered:
    """The shared validator of the process, whose first use fetches the discovery document."""

    def __init__(self, provider: str | tuple[str, ...] | None) -> None:
        self._provider = provider

    def validate(self, token: str | bytes) -> Claims:
        from entra_fast.validate import validate  # noqa: PLC0415 - see above

        return validate(token, provider=self._provider)


@functools.cache
def _from_environment(provider: str | tuple[str, ...] | None) -> TokenValidator:
    """One validator for all integrations of the process: middleware and views share its keys and its
    cache."""
    from entra_fast.validate import Validator  # noqa: PLC0415 - see above

    return Validator.from_env(provider)
