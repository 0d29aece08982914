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
from typing import Any, Final, Protocol

from entra_fast import Claims
from entra_fast._claims import ClaimsView
from entra_fast.errors import KeysUnavailable

__all__ = [
    "AsyncFromEnvironment",
    "AsyncTokenValidator",
    "TokenValidator",
    "async_validator",
    "sync_validator",
]

PAUSE: Final = 5.0
"""Seconds between two attempts to fetch the discovery document."""


class TokenValidator(Protocol):
    """A `Validator` or a `SidecarClient`."""

    def validate(self, token: str | bytes) -> Claims | ClaimsView: ...


class AsyncTokenValidator(Protocol):
    """An `AsyncValidator` or an `AsyncSidecarClient`."""

    async def validate(self, token: str | bytes) -> Claims | ClaimsView: ...


def async_validator(given: AsyncTokenValidator | None) -> AsyncTokenValidator:
    """The validator that was given, or one from the environment.

    Raises:
        TypeError: it does not validate on an event loop.
    """
    if given is None:
        return AsyncFromEnvironment()
    if not inspect.iscoroutinefunction(getattr(given, "validate", None)):
        raise TypeError(
            f"validator is an AsyncValidator or an AsyncSidecarClient, not {type(given).__name__}"
        )
    return given


def sync_validator(given: TokenValidator | None) -> TokenValidator:
    """The validator that was given, or one from the environment.

    Raises:
        TypeError: it does not validate in threads.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """
    if given is None:
        from entra_fast._environment import described  # noqa: PLC0415 - not needed beside a sidecar

        # The discovery document must not be fetched while the application is imported.
        needs_discovery = any(one.well_known is not None for one in described(os.environ))
        return _Discovered() if needs_discovery else _from_environment()
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

    def __init__(self) -> None:
        self._validator: AsyncTokenValidator | None = None
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
        validator, self._validator = self._validator, None
        if validator is not None:
            await close(validator)

    async def validate(self, token: str | bytes) -> Claims | ClaimsView:
        """See `AsyncValidator.validate`."""
        validator = self._validator
        return await (await self._get() if validator is None else validator).validate(token)

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
        from entra_fast.validate import AsyncValidator  # noqa: PLC0415 - not needed beside a sidecar

        try:
            self._validator = await AsyncValidator.from_env()
        except KeysUnavailable as error:
            self._failure, self._next_attempt = error, time.monotonic() + PAUSE
            raise
        finally:
            self._creation = None
        return self._validator


class _Discovered:
    """The shared validator of the process, whose first use fetches the discovery document."""

    def validate(self, token: str | bytes) -> Claims:
        from entra_fast.validate import validate  # noqa: PLC0415 - see above

        return validate(token)


@functools.cache
def _from_environment() -> TokenValidator:
    """One validator for all integrations of the process: middleware and views share its keys and its
    cache."""
    from entra_fast.validate import Validator  # noqa: PLC0415 - see above

    return Validator.from_env()
