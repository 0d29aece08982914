"""Validation of tokens with one key set: in threads, and on an event loop over any source of keys.

What belongs here: what to do when the known keys do not verify a token: ask the source of keys if new ones
may help, then verify once more. What must never be here: verification itself (the native core), when to fetch
keys (_provider/jwks.py), and settings. The public classes are in validate.py; the sidecar uses
`AsyncValidation` directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from entra_fast import _native
from entra_fast._native import Claims
from entra_fast._provider.jwks import KeySource, ThreadKeys
from entra_fast._provider.jwks_schedule import Cause
from entra_fast.errors import EntraFastError, InvalidToken, KeysUnavailable

_Result = TypeVar("_Result")


class ThreadValidation:
    """A native validator and the owner of its keys, for any number of threads.

    Args:
        native: verifies tokens. The owner of the keys gives them to it.
        keys: asked for new keys when a token needs one; None if the key set is fixed.
        clock: seconds since the epoch; by default the native module reads the wall clock.
    """

    __slots__ = ("_clock", "keys", "native")

    def __init__(
        self, native: _native.Validator, keys: ThreadKeys | None, clock: Callable[[], float] | None = None
    ) -> None:
        self.native = native
        self.keys = keys
        self._clock = clock

    def validate_again(self, token: str | bytes, error: EntraFastError) -> Claims:
        """The claims of a token that `native.validate` rejected with `error`, after asking for new keys.

        Raises:
            InvalidToken: the token is still rejected; this is `error` itself if new keys cannot help.
            KeysUnavailable: there are no keys, with the reason.
        """
        if self.keys is None or (cause := cause_of(self.native, token, error, self._now())) is None:
            raise error
        if not self.keys.refresh_for(cause, kid_of(token)):
            raise self._with_reason(error) from None
        try:
            return self.native.validate(token, self._now())
        except KeysUnavailable as second:
            raise self._with_reason(second) from None

    def validate_many(self, tokens: Sequence[str | bytes]) -> list[Claims | EntraFastError]:
        """The claims of each token, or the error as a value."""
        results = self.native.validate_many(tokens, self._now())
        if self.keys is not None and has_errors(results):
            for cause in Cause:
                waiting = waiting_for_keys(self.native, tokens, results, self._now())
                # One refresh serves all tokens that wait for keys, whatever else they wait for.
                if cause in waiting and self.keys.refresh_for(cause, first_kid(tokens, waiting[cause])):
                    every = [index for positions in waiting.values() for index in positions]
                    again = self.native.validate_many([tokens[index] for index in every], self._now())
                    for index, result in zip(every, again, strict=True):
                        results[index] = result
        return [self._with_reason(result) for result in results]

    def _now(self) -> float | None:
        """None lets the native module read the wall clock, which is faster."""
        return None if self._clock is None else self._clock()

    def _with_reason(self, result: _Result) -> _Result | KeysUnavailable:
        """The result. If there are no keys, it has the reason."""
        if isinstance(result, KeysUnavailable) and self.keys is not None:
            return self.keys.unavailable()
        return result


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
        if self._keys is not None and has_errors(results):
            for cause in Cause:
                waiting = waiting_for_keys(self.native, tokens, results, self._now())
                # One refresh serves all tokens that wait for keys, whatever else they wait for.
                if cause in waiting and await self._keys.refresh_for(
                    cause, first_kid(tokens, waiting[cause])
                ):
                    every = [index for positions in waiting.values() for index in positions]
                    retried = [tokens[index] for index in every]
                    again = await loop.run_in_executor(None, verify, retried, self._now())
                    for index, result in zip(every, again, strict=True):
                        results[index] = result
        return [self._with_reason(result) for result in results]

    async def introspect(self, token: str | bytes) -> bytes:
        """The JSON body of an introspection response (RFC 7662, section 2.2). Never raises for a bad token or
        for the lack of keys."""
        return (await self.introspect_with_error(token))[0]

    async def introspect_with_error(self, token: str | bytes) -> tuple[bytes, EntraFastError | None]:
        """Like `introspect`, and why the token is not active."""
        try:
            try:
                return self.native.introspect(token, self._now()), None
            except (InvalidToken, KeysUnavailable) as error:
                await self._ask_for_keys(token, error)
            return self.native.introspect(token, self._now()), None
        except (InvalidToken, KeysUnavailable) as error:
            rejected = self._with_reason(error)
            return inactive(rejected.message), rejected

    def _now(self) -> float | None:
        """None lets the native module read the wall clock, which is faster."""
        return None if self._clock is None else self._clock()

    async def _ask_for_keys(self, token: str | bytes, error: EntraFastError) -> None:
        """Returns when verifying once more makes sense; raises the error otherwise."""
        if (
            self._keys is None
            or (cause := cause_of(self.native, token, error, self._now())) is None
            or not await self._keys.refresh_for(cause, kid_of(token))
        ):
            raise self._with_reason(error) from None

    def _with_reason(self, result: _Result) -> _Result | KeysUnavailable:
        """The result. If there are no keys, it has the reason."""
        if isinstance(result, KeysUnavailable) and self._keys is not None:
            return self._keys.unavailable()
        return result


_CAUSES = {cause.value: cause for cause in Cause}


def cause_of(
    native: _native.Validator, token: str | bytes, error: EntraFastError, now: float | None
) -> Cause | None:
    """Why this error of a token may be a reason to fetch keys; None where new keys cannot help. Anyone can
    make up a token, so one that would not pass with any key is none."""
    cause = _CAUSES.get(error.code)
    if cause is None or cause is Cause.NO_KEYS:
        return cause
    return cause if native.unverified_could_pass(token, now) else None


def has_errors(results: Sequence[Claims | EntraFastError]) -> bool:
    """Whether any token was rejected."""
    return any(isinstance(result, EntraFastError) for result in results)


def waiting_for_keys(
    native: _native.Validator,
    tokens: Sequence[str | bytes],
    results: Sequence[Claims | EntraFastError],
    now: float | None,
) -> dict[Cause, list[int]]:
    """The positions of tokens that new keys may verify, by cause."""
    waiting: dict[Cause, list[int]] = {}
    for index, (token, result) in enumerate(zip(tokens, results, strict=True)):
        if isinstance(result, EntraFastError) and (cause := cause_of(native, token, result, now)) is not None:
            waiting.setdefault(cause, []).append(index)
    return waiting


def kid_of(token: str | bytes) -> str | None:
    """The key id that a token names.

    Raises:
        InvalidToken: its header cannot be read.
    """
    # Only the header is read, so that no size limit other than the policy's applies.
    header = token.partition(".")[0] + ".." if isinstance(token, str) else token.partition(b".")[0] + b".."
    kid = _native.unverified_header(header).get("kid")
    return kid if isinstance(kid, str) else None


def first_kid(tokens: Sequence[str | bytes], positions: Sequence[int]) -> str | None:
    """The key id of the first of these tokens whose header can be read."""
    for position in positions:
        try:
            return kid_of(tokens[position])
        except InvalidToken:
            continue
    return None


def inactive(reason: str) -> bytes:
    """The body of an introspection response for an invalid token."""
    import orjson  # noqa: PLC0415 - the library does not need it to validate tokens

    return orjson.dumps({"active": False, "error": reason})
