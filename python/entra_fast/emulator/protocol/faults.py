"""Planned faults: what goes wrong, at which endpoint, for which application, and for how long.

Faults are data here, matched and counted. The token endpoint and the web layer carry them out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from entra_fast._aadsts import KINDS
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.errors import ConfigurationError

ENDPOINTS: Final = ("token", "keys", "discovery", "authorize", "graph", "any")
MAX_FAULTS: Final = 100
MAX_DELAY: Final = 120.0

KINDS_OF_FAULT: Final[Mapping[str, str]] = {
    "delay": "respond 'value' seconds late",
    "throttle": "429 with Retry-After: 'value' seconds (AADSTS90055)",
    "status": "respond with the status 'value' and an HTML page, as an intermediate proxy would",
    "aadsts": "refuse with the AADSTS code 'value'",
    "slow_down": "400 with the OAuth error slow_down, for clients that poll with a device code",
    "reset": "close the connection without a response",
    "truncate": "close the connection in the middle of the response",
    "garbage": "200 with a body that is not JSON",
    "redirect": "302 to another host",
    "expired_token": "a token that expired an hour ago",
    "wrong_audience": "a token for another audience",
    "wrong_issuer": "a token from another issuer",
    "wrong_signature": "a token whose signature does not verify",
    "unknown_key": "a token signed with a key that is not published",
}
TOKEN_FAULTS: Final = frozenset(
    {"expired_token", "wrong_audience", "wrong_issuer", "wrong_signature", "unknown_key"}
)
MFA_CHALLENGE: Final = (
    '{"access_token":{"polids":{"essential":true,"values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}'
)
_NEEDS_VALUE: Final = frozenset({"delay", "status", "aadsts"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned fault.

    Attributes:
        endpoint: one of ENDPOINTS.
        kind: one of KINDS_OF_FAULT.
        application: the client it applies to (`<cluster>:<namespace>:<name>`); None for all. Only the token
            endpoint knows its client.
        value: seconds, status or code, by kind.
        remaining: number of requests that it will still affect; None for no limit.
        until: when it ends, seconds since the epoch; None for never.
    """

    id: str
    endpoint: str
    kind: str
    application: str | None
    value: float
    remaining: int | None
    until: float | None


class Faults:
    """The planned faults, bounded in number. A fault is removed after its last request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._faults: list[Fault] = []

    def add(
        self,
        kind: str,
        *,
        endpoint: str = "token",
        application: str | None = None,
        value: float | None = None,
        count: int | None = None,
        seconds: float | None = None,
    ) -> Fault:
        """Plan a fault, for `count` requests or `seconds` of time or until removed.

        Raises:
            ConfigurationError: a field has a wrong value; the message names it.
        """
        if kind not in KINDS_OF_FAULT:
            raise _wrong("kind", f"{kind!r} is not one of: {', '.join(KINDS_OF_FAULT)}")
        if endpoint not in ENDPOINTS:
            raise _wrong("endpoint", f"{endpoint!r} is not one of: {', '.join(ENDPOINTS)}")
        if kind in TOKEN_FAULTS and endpoint != "token":
            raise _wrong("endpoint", f"{kind} concerns the token endpoint only")
        if application is not None and endpoint != "token":
            raise _wrong("application", "only the token endpoint knows the application")
        if kind in _NEEDS_VALUE and value is None:
            raise _wrong("value", f"required: {KINDS_OF_FAULT[kind]}")
        number = 30.0 if value is None else value
        if not 0 <= number < 1e9:
            raise _wrong("value", "must be a number, not negative")
        if kind == "delay" and number > MAX_DELAY:
            raise _wrong("value", f"at most {MAX_DELAY:g} seconds")
        if kind == "status" and not 200 <= number <= 599:
            raise _wrong("value", "must be an HTTP status from 200 to 599")
        if kind == "aadsts" and number not in KINDS:
            raise _wrong("value", "is not an AADSTS code that this provider knows")
        if count is not None and count < 1:
            raise _wrong("count", "must be at least 1")
        if seconds is not None and not 0 < seconds < 1e9:
            raise _wrong("seconds", "must be more than 0")
        if len(self._live()) >= MAX_FAULTS:
            raise _wrong("", f"{MAX_FAULTS} faults are planned already")
        until = None if seconds is None else self._clock() + seconds
        fault = Fault(secrets.token_hex(4), endpoint, kind, application, number, count, until)
        self._faults.append(fault)
        return fault

    def remove(self, identifier: str) -> bool:
        """Remove a fault. False if no fault has that id."""
        before = len(self._faults)
        self._faults = [fault for fault in self._faults if fault.id != identifier]
        return len(self._faults) < before

    def clear(self) -> None:
        """Remove all faults."""
        self._faults = []

    def planned(self) -> tuple[Fault, ...]:
        """All faults that are planned now."""
        return tuple(self._live())

    def take(self, endpoint: str, application: str | None = None) -> tuple[Fault, ...]:
        """The faults that apply to this request; each is counted down."""
        if not self._faults:
            return ()
        hit: list[Fault] = []
        kept: list[Fault] = []
        for fault in self._live():
            if fault.endpoint in (endpoint, "any") and fault.application in (None, application):
                hit.append(fault)
                if fault.remaining == 1:
                    continue
                if fault.remaining is not None:
                    kept.append(replace(fault, remaining=fault.remaining - 1))
                    continue
            kept.append(fault)
        self._faults = kept
        return tuple(hit)

    def _live(self) -> list[Fault]:
        now = self._clock()
        self._faults = [fault for fault in self._faults if fault.until is None or fault.until > now]
        return self._faults


def planned_error(
    code: int, form: Mapping[str, str], client: Application | None, tenant: Tenant
) -> EntraError:
    """The error of an `aadsts` fault. Its text contains values from the request, or else names the fault."""
    values = _PlannedValues(tenant=tenant.name)
    if client is not None:
        values |= {"client_id": client.client_id, "client": client.name}
    if scope := form.get("scope", "")[:200]:
        values |= {"scope": scope, "resource": scope}
    return EntraError(code, claims=MFA_CHALLENGE if code == 50076 else None, values=values)


class _PlannedValues(dict[str, object]):
    """Values for the placeholders of a text, including placeholders without a known value."""

    def __missing__(self, name: str) -> str:
        return "(planned fault)"


def _wrong(field: str, text: str) -> ConfigurationError:
    return ConfigurationError("fault_invalid", f"{field}: {text}" if field else text, field)
