"""Planned faults: what goes wrong, at which endpoint, for which application, and for how long.

Faults are data here, matched and counted. The token endpoint and the web layer carry them out.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from entra_fast._aadsts import KINDS
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.errors import ConfigurationError

PROVIDERS: Final = ("tokenx", "maskinporten", "idporten")
"""Whose token endpoint has their name here. Those of their keys and documents are `<name>/keys` and so on."""
ENDPOINTS: Final = (
    "token",
    "keys",
    "discovery",
    "authorize",
    "graph",
    *(f"{provider}{path}" for provider in PROVIDERS for path in ("", "/keys", "/discovery")),
    "any",
)
TOKEN_ENDPOINTS: Final = ("token", *PROVIDERS)
MAX_FAULTS: Final = 100
MAX_DELAY: Final = 120.0
MAX_SEQUENCE: Final = 100
MAX_PLACE: Final = 1_000_000

KINDS_OF_FAULT: Final[Mapping[str, str]] = {
    "delay": "respond 'value' seconds late",
    "throttle": "429 with Retry-After: 'value' seconds (AADSTS90055)",
    "status": "respond with the status 'value' and an HTML page, as an intermediate proxy would",
    "aadsts": "refuse with the AADSTS code 'value'",
    "slow_down": "tell a device that polls for its token to poll less often (RFC 8628, section 3.5)",
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
DEVICE_GRANTS: Final = ("urn:ietf:params:oauth:grant-type:device_code", "device_code")
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
        probability: of affecting a request; None for every one.
        seed: of the random numbers that decide; the same seed hits the same requests.
        sequence: places of the requests that it affects, counted from 1 when it was planned; None for all.
        seen: number of requests that it could have affected so far.
    """

    id: str
    endpoint: str
    kind: str
    application: str | None
    value: float
    remaining: int | None
    until: float | None
    probability: float | None = None
    seed: int | None = None
    sequence: tuple[int, ...] | None = None
    seen: int = 0


@dataclass(slots=True)
class _Plan:
    """A fault, as far as it is now."""

    fault: Fault
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.fault.seed)  # noqa: S311 - to be repeated, not to be secret

    def meets(self, endpoint: str, application: str | None, grant: str) -> bool:
        fault = self.fault
        return (
            fault.endpoint in (endpoint, "any")
            and fault.application in (None, application)
            and not (fault.kind == "aadsts" and endpoint.partition("/")[0] in PROVIDERS)
            and (fault.kind != "slow_down" or grant in DEVICE_GRANTS)
        )

    def hits(self) -> bool:
        """Whether the next request is affected; counts it."""
        fault = replace(self.fault, seen=self.fault.seen + 1)
        hit = (fault.sequence is None or fault.seen in fault.sequence) and (
            fault.probability is None or self.random.random() < fault.probability
        )
        if hit and fault.remaining is not None:
            fault = replace(fault, remaining=fault.remaining - 1)
        self.fault = fault
        return hit

    def is_over(self, now: float) -> bool:
        fault = self.fault
        return (
            fault.remaining == 0
            or (fault.until is not None and fault.until <= now)
            or (fault.sequence is not None and fault.seen >= fault.sequence[-1])
        )


class Faults:
    """The planned faults, bounded in number. A fault is removed after its last request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._plans: list[_Plan] = []

    def add(
        self,
        kind: str,
        *,
        endpoint: str = "token",
        application: str | None = None,
        value: float | None = None,
        count: int | None = None,
        seconds: float | None = None,
        probability: float | None = None,
        seed: int | None = None,
        sequence: Sequence[int] | None = None,
    ) -> Fault:
        """Plan a fault, for `count` requests or `seconds` of time or until removed.

        Args:
            probability: affect each request with this probability, more than 0 and at most 1.
            seed: for the same requests in every run; by default a new one, which the fault names.
            sequence: affect only these requests, counted from 1: `[2, 3]` for the second and the third.

        Raises:
            ConfigurationError: a field has a wrong value; the message names it.
        """
        _check_place(kind, endpoint, application)
        number = _value_of(kind, value)
        _check_extent(count, seconds, probability, seed, sequence)
        places = None if sequence is None else _places(sequence)
        if len(self._live()) >= MAX_FAULTS:
            raise _wrong("", f"{MAX_FAULTS} faults are planned already")
        fault = Fault(
            id=secrets.token_hex(4),
            endpoint=endpoint,
            kind=kind,
            application=application,
            value=number,
            remaining=count,
            until=None if seconds is None else self._clock() + seconds,
            probability=probability,
            seed=secrets.randbelow(2**32) if seed is None and probability is not None else seed,
            sequence=places,
        )
        self._plans.append(_Plan(fault))
        return fault

    def remove(self, identifier: str) -> bool:
        """Remove a fault. False if no fault has that id."""
        before = len(self._plans)
        self._plans = [plan for plan in self._plans if plan.fault.id != identifier]
        return len(self._plans) < before

    def clear(self) -> None:
        """Remove all faults."""
        self._plans = []

    def planned(self) -> tuple[Fault, ...]:
        """All faults that are planned now."""
        return tuple(plan.fault for plan in self._live())

    def take(self, endpoint: str, application: str | None = None, *, grant: str = "") -> tuple[Fault, ...]:
        """The faults that apply to this request; each is counted down.

        Args:
            grant: the `grant_type` of a request to the token endpoint.
        """
        if not self._plans:
            return ()
        hit = [
            plan.fault for plan in self._live() if plan.meets(endpoint, application, grant) and plan.hits()
        ]
        self._live()
        return tuple(hit)

    def _live(self) -> list[_Plan]:
        now = self._clock()
        self._plans = [plan for plan in self._plans if not plan.is_over(now)]
        return self._plans


def _check_place(kind: str, endpoint: str, application: str | None) -> None:
    """Check what goes wrong, and where."""
    if kind not in KINDS_OF_FAULT:
        raise _wrong("kind", f"{kind!r} is not one of: {', '.join(KINDS_OF_FAULT)}")
    if endpoint not in ENDPOINTS:
        raise _wrong("endpoint", f"{endpoint!r} is not one of: {', '.join(ENDPOINTS)}")
    if kind in TOKEN_FAULTS and endpoint not in TOKEN_ENDPOINTS:
        raise _wrong("endpoint", f"{kind} concerns the token endpoint only")
    if kind == "slow_down" and endpoint != "token":
        raise _wrong("endpoint", f"{kind} concerns the token endpoint only")
    if kind == "aadsts" and endpoint in PROVIDERS:
        raise _wrong("endpoint", f"{endpoint} has no AADSTS codes")
    if application is not None and endpoint not in TOKEN_ENDPOINTS:
        raise _wrong("application", "only the token endpoint knows the application")


def _value_of(kind: str, value: float | None) -> float:
    """The value of a fault, checked for its kind."""
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
    return number


def _check_extent(
    count: int | None,
    seconds: float | None,
    probability: float | None,
    seed: int | None,
    sequence: Sequence[int] | None,
) -> None:
    """Check which requests are affected, and for how long."""
    if count is not None and count < 1:
        raise _wrong("count", "must be at least 1")
    if seconds is not None and not 0 < seconds < 1e9:
        raise _wrong("seconds", "must be more than 0")
    if probability is not None and not 0 < probability <= 1:
        raise _wrong("probability", "must be more than 0, and at most 1")
    if seed is not None and probability is None:
        raise _wrong("seed", "only a fault with a probability has one")
    if seed is not None and abs(seed) >= 2**63:
        raise _wrong("seed", "must be a whole number of at most 63 bits")
    if sequence is not None and (count is not None or probability is not None):
        raise _wrong("sequence", "says which requests are affected, so there is no count or probability")


def _places(sequence: Sequence[int]) -> tuple[int, ...]:
    places = tuple(sorted(set(sequence)))
    if not places or len(places) > MAX_SEQUENCE or not 1 <= places[0] <= places[-1] <= MAX_PLACE:
        text = f"must name 1 to {MAX_SEQUENCE} requests, each by its place from 1 to {MAX_PLACE}"
        raise _wrong("sequence", text)
    return places


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
