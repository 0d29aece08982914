"""What the messages between the provider process and a worker are about, and how their fields are read.

What belongs here: values that both sides build and read, with the checks of their types. What must never be
here: sending messages (channel.py), and what follows from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from entra_fast._provider.oauth import scope_for
from entra_fast._provider.tokens import token_key
from entra_fast._settings.model import ProviderSettings


class RequestedToken(NamedTuple):
    """A token of a provider, by the request for it."""

    provider: str
    target: str
    subject_token: str | None = None
    resources: tuple[str, ...] = ()
    authorization_details: str | None = None

    def fields(self) -> dict[str, object]:
        """The fields of a message."""
        return self._asdict()

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Self:
        """From the fields of a message.

        Raises:
            KeyError, TypeError: the message is another one.
        """
        return cls(
            text(fields, "provider"),
            text(fields, "target"),
            optional_text(fields, "subject_token"),
            texts(fields, "resources"),
            optional_text(fields, "authorization_details"),
        )

    def key(self, provider: ProviderSettings) -> bytes:
        """The key of the token in a cache.

        Args:
            provider: the settings of the provider that is named.
        """
        return token_key(
            provider,
            scope_for(self.target, provider.kind),
            self.subject_token,
            resources=self.resources,
            authorization_details=self.authorization_details,
        )


def text(fields: Mapping[str, object], name: str) -> str:
    """A string. Raises KeyError or TypeError, as the others, where it is none."""
    value = fields[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string")
    return value


def optional_text(fields: Mapping[str, object], name: str) -> str | None:
    """A string or None."""
    return None if fields[name] is None else text(fields, name)


def texts(fields: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Any number of strings."""
    value = fields[name]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{name} must be a list of strings")
    return tuple(value)


def count(fields: Mapping[str, object], name: str) -> int:
    """A whole number."""
    value = fields[name]
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number")
    return value


def flag(fields: Mapping[str, object], name: str) -> bool:
    """A boolean."""
    value = fields[name]
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a boolean")
    return value
