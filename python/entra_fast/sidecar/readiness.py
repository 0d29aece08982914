"""Whether a sidecar is ready, and whether its start is over: what the probes answer.

What belongs here: the values, and how they are written. What must never be here: HTTP, and how they come
about (provider_client.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self

START_LIMIT = 10.0
"""Seconds after which the start is over, with or without keys. Kubernetes starts the application only then:
without a provider, it must not wait for ever."""


class Part(NamedTuple):
    """Something that a provider needs: its keys, or the application's credential.

    Attributes:
        status: `available` or `missing` for keys; `CredentialState` for a credential.
        reason: what is wrong; None if nothing is.
    """

    status: str
    reason: str | None = None

    @property
    def is_broken(self) -> bool:
        """Whether a credential cannot work now, as far as is known."""
        return self.status in ("rejected", "unreadable")


class ProviderReadiness(NamedTuple):
    """What works at one provider.

    Attributes:
        name: as `identity_provider` names it.
        ready: whether it counts as ready, see `ENTRA_FAST_READINESS`.
        keys: its key set, without which no token can be verified.
        credential: the application's credential, without which no token is issued; None where the
            application does not authenticate itself.
        clock_skew_seconds: by which this machine's clock is ahead of the provider's.
    """

    name: str
    ready: bool
    keys: Part
    credential: Part | None
    clock_skew_seconds: float = 0.0

    @property
    def reason(self) -> str | None:
        """What is wrong, whether it counts as ready or not; None if nothing is."""
        reason = self.keys.reason or (None if self.credential is None else self.credential.reason)
        return None if reason is None else f"{self.name}: {reason}"

    def fields(self) -> dict[str, Any]:
        """The same, to be written as JSON."""
        credential = None if self.credential is None else self.credential._asdict()
        return {**self._asdict(), "keys": self.keys._asdict(), "credential": credential}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """From what `fields` has returned, in another process."""
        keys, credential = fields["keys"], fields["credential"]
        parts = {"keys": Part(**keys), "credential": None if credential is None else Part(**credential)}
        return cls(**{**fields, **parts})


class Readiness(NamedTuple):
    """What `/readyz` answers.

    Attributes:
        ready: whether it answers 200.
        reason: what is wrong, also where something stopped working after the sidecar was ready; None if
            nothing is.
        providers: all that are enabled.
    """

    ready: bool
    reason: str | None = None
    providers: tuple[ProviderReadiness, ...] = ()

    @classmethod
    def of(cls, *providers: ProviderReadiness) -> Self:
        """That of a sidecar with these providers."""
        ready = all(provider.ready for provider in providers)
        # Those that are not ready first: they are why it answers 503.
        in_order = sorted(providers, key=lambda provider: provider.ready)
        reasons = [provider.reason for provider in in_order if provider.reason is not None]
        return cls(ready, "; ".join(reasons) or None, providers)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """From what `fields` has returned, in another process."""
        providers = map(ProviderReadiness.from_fields, fields["providers"])
        return cls(fields["ready"], fields["reason"], tuple(providers))

    def fields(self) -> dict[str, Any]:
        """The same, to be written as JSON."""
        return {**self._asdict(), "providers": [provider.fields() for provider in self.providers]}

    def document(self) -> dict[str, Any]:
        """The body of `/readyz`."""
        document: dict[str, Any] = {"status": "ready" if self.ready else "not ready"}
        if self.reason is not None:
            document["reason"] = self.reason
        return {**document, "providers": [_without_none(each.fields()) for each in self.providers]}


SHUTTING_DOWN: Final = Readiness(ready=False, reason="shutting down")
"""That of a sidecar that drains: new connections go elsewhere."""


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


class StartUp:
    """Whether the start is over: once it is, it stays so.

    Args:
        monotonic: seconds of a clock that never jumps.

    Attributes:
        began: when it began, by that clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._over = False
        self.began = monotonic()

    def is_over(self, *, has_keys: bool) -> bool:
        """
        Args:
            has_keys: whether every provider has its keys now.
        """
        self._over = self._over or has_keys or self._monotonic() - self.began >= START_LIMIT
        return self._over
