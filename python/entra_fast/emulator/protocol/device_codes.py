"""Device codes (RFC 8628): what a device has asked for, and what its user has answered to it.

What is remembered is bounded in number and in time. HTTP and pages belong in web/, tokens in
token_response.py; whether a user may sign in is decided where every login is (sign_in.py, grant_types.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.login import Login

DEVICE_CODE_LIFETIME: Final = 900.0  # seconds
POLLING_INTERVAL: Final = 5  # seconds
MAX_DEVICE_CODES: Final = 10_000

_REMEMBERED: Final = 2 * DEVICE_CODE_LIFETIME  # so that a late poll learns that the code has expired
_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628, section 6.1: no vowels, so that no words appear
_LENGTH: Final = 9

State = Literal["pending", "approved", "declined", "used"]


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What a device has asked for.

    Attributes:
        user_code: what the user types, without separators.
        scope: as requested.
        claims: the `claims` parameter as requested.
        version: 2 for the v2.0 endpoint, 1 for the older one.
        ends: when the code expires, seconds since the epoch.
        login: what the user has agreed to, once approved.
    """

    tenant_id: str
    client_id: str
    user_code: str
    scope: str
    claims: str
    version: int
    ends: float
    state: State = "pending"
    login: Login | None = None


class DeviceCodes:
    """All device codes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.requests: ExpiringMap[DeviceRequest] = ExpiringMap(MAX_DEVICE_CODES, clock)
        """By device code."""
        self._device_codes: ExpiringMap[str] = ExpiringMap(MAX_DEVICE_CODES, clock)
        """By user code."""

    def begin(
        self, tenant_id: str, client_id: str, scope: str, claims: str, version: int
    ) -> tuple[str, DeviceRequest]:
        """(device code, request) for a device."""
        user_code = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        ends = self._clock() + DEVICE_CODE_LIFETIME
        request = DeviceRequest(tenant_id, client_id, user_code, scope, claims, version, ends)
        device_code = "1." + secrets.token_urlsafe(48)
        self.put(device_code, request)
        return device_code, request

    def put(self, device_code: str, request: DeviceRequest) -> None:
        """Remember a request."""
        lifetime = request.ends - DEVICE_CODE_LIFETIME + _REMEMBERED - self._clock()
        self.requests.put(device_code, request, lifetime)
        self._device_codes.put(request.user_code, device_code, lifetime)

    def typed(self, user_code: str) -> DeviceRequest:
        """The pending request whose code a user has typed, in upper or lower case, with or without
        separators.

        Raises:
            EntraError: 90119 nothing was typed, 70018 there is no such code, 90120 it was used, 70020 it has
                expired.
        """
        return self._typed(user_code)[1]

    def approve(self, user_code: str, login: Login) -> None:
        """The user agrees. Raises EntraError as `typed` does."""
        self._answer(user_code, "approved", login)

    def decline(self, user_code: str) -> None:
        """The user declines. Raises EntraError as `typed` does."""
        self._answer(user_code, "declined", None)

    def polled(self, device_code: str, tenant_id: str, client_id: str) -> Login:
        """What the user has agreed to.

        Raises:
            EntraError: 70016 nothing yet, 70017 declined, 70019 unknown or used, 70020 expired, 70000 the
                code is another client's.
        """
        request = self.requests.get(device_code)
        if request is None or request.state == "used":
            raise EntraError(70019)
        if (request.tenant_id, request.client_id) != (tenant_id, client_id):
            raise EntraError(70000, reason="The device code was issued to another client.")
        if request.state == "declined":
            raise EntraError(70017)
        if request.ends <= self._clock():
            raise EntraError(70020, error="code_expired" if request.version == 1 else None)
        if request.login is None:
            raise EntraError(70016)
        return request.login

    def use_up(self, device_code: str) -> None:
        """Tokens are issued once."""
        request = self.requests.get(device_code)
        if request is not None:
            self.put(device_code, replace(request, state="used", login=None))

    def _typed(self, user_code: str) -> tuple[str, DeviceRequest]:
        typed = "".join(character for character in user_code.upper() if character.isalnum())
        if not typed:
            raise EntraError(90119)
        device_code = self._device_codes.get(typed) or ""
        request = self.requests.get(device_code)
        if request is None:
            raise EntraError(70018)
        if request.state != "pending":
            raise EntraError(90120)
        if request.ends <= self._clock():
            raise EntraError(70020)
        return device_code, request

    def _answer(self, user_code: str, state: State, login: Login | None) -> None:
        device_code, request = self._typed(user_code)
        self.put(device_code, replace(request, state=state, login=login))
