"""Validation of tokens on an event loop, over any source of keys.

What belongs here: how to handle a token with an unknown signing key: ask the source of keys, then verify
once more. What must never be here: verification itself (the native core), when to fetch keys
(_provider/jwks.py), and settings. The public classes are in validate.py; the sidecar uses this class
directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import orjson

from entra_fast import _native
from entra_fast._native import Claims
from entra_fast._provider.jwks import KeySource
from entra_fast.errors import EntraFastError, InvalidToken, KeysUnavailable

_Result = TypeVar("_Result")

NEED_KEYS = frozenset({"unknown_key", "keys_unavailable"})
"""Error codes of tokens that newly fetched keys may verify."""


class AsyncValidation:
    """A native validator and the source of its keys. Belongs to one event loop.

    Args:
        native: verifies tokens. The owner of the keys gives them to it.
        keys: asked for new keys when a token needs one; None if the key set is fixed.
        clock: seconds since the epoch; by default the native module reads the wall clock.
    """

    __slots__ = ("_clock", "_keys", "native")

    def __init__(
        self, native: _native.Validator, keys: KeySource | None, clock: Callable[[], float] | None = None
    ) -> None:
        self.native = native
        self._keys = keys
        self._clock = clock

    async def validate_again(self, token: str | bytes, error: EntraFastError) -> Claims:
        """The claims of a token that `native.validate` rejected with `error`, after asking for new keys.

        Raises:
            InvalidToken: the token is still rejected; this is `error` itself if new keys cannot help.
            KeysUnavailable: there are no keys, with the reason.
        """
        await self._ask_for_keys(token, error)
        try:
            return self.native.validate(token, self._now())
        except KeysUnavailable as second:
            raise self._with_reason(second) from None

    async def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """The claims of each token, or the error as a value. Verifies in a thread; the event loop
        continues."""
        loop = asyncio.get_running_loop()
        verify = self.native.validate_many
        results = await loop.run_in_executor(None, verify, tokens, self._now())
        waiting = [index for index, result in enumerate(results) if needs_keys(result)]
        if waiting and self._keys is not None:
            # One refresh serves all tokens that need a key.
            await self._keys.refresh_for_unknown(first_kid(tokens[index] for index in waiting))
            retried = [tokens[index] for index in waiting]
            again = await loop.run_in_executor(None, verify, retried, self._now())
            for index, result in zip(waiting, again, strict=True):
                results[index] = result
        return [self._with_reason(result) for result in results]

    async def introspect(self, token: str | bytes) -> bytes:
        """The JSON body of an introspection response (RFC 7662, section 2.2). Never raises for a bad token or
        for the lack of keys."""
        try:
            try:
                return self.native.introspect(token, self._now())
            except (InvalidToken, KeysUnavailable) as error:
                await self._ask_for_keys(token, error)
            return self.native.introspect(token, self._now())
        except (InvalidToken, KeysUnavailable) as error:
            return orjson.dumps({"active": False, "error": self._with_reason(error).message})

    def _now(self) -> float | None:
        """None lets the native module read the wall clock, which is faster."""
        return None if self._clock is None else self._clock()

    async def _ask_for_keys(self, token: str | bytes, error: EntraFastError) -> None:
        """Returns when verifying once more makes sense; raises the error otherwise."""
        keys = self._keys if error.code in NEED_KEYS else None
        if keys is None or not await keys.refresh_for_unknown(kid_of(token)):
            raise self._with_reason(error) from None

    def _with_reason(self, result: _Result) -> _Result | KeysUnavailable:
        """The result. If there are no keys, it has the reason."""
        if isinstance(result, KeysUnavailable) and self._keys is not None:
            return self._keys.unavailable()
        return result


def needs_keys(result: Claims | EntraFastError) -> bool:
    """Whether newly fetched keys may change this result."""
    return isinstance(result, EntraFastError) and result.code in NEED_KEYS


def kid_of(token: str | bytes) -> str | None:
    """The key id that a token names.

    Raises:
        InvalidToken: its header cannot be read.
    """
    # Only the header is read, so that no size limit other than the policy's applies.
    header = token.partition(".")[0] + ".." if isinstance(token, str) else token.partition(b".")[0] + b".."
    kid = _native.unverified_header(header).get("kid")
    return kid if isinstance(kid, str) else None


def first_kid(tokens: Iterable[str | bytes]) -> str | None:
    """The key id of the first token whose header can be read."""
    for token in tokens:
        try:
            return kid_of(token)
        except InvalidToken:
            continue
    return None
