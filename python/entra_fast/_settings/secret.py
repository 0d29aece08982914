"""Secrets, and files that hold a setting.

What belongs here: reading one bounded file, and hiding what it holds. What must never be here: a secret as a
bare string that outlives its use.
"""

from __future__ import annotations

from pathlib import Path

from entra_fast import _native
from entra_fast.errors import ConfigurationError

MAX_SETTING_BYTES = 65_536
"""Maximum size of a file that holds a setting."""


class Secret:
    """A secret's name and location. Its text is available through `reveal()` only.

    A secret that comes from a file is re-read at each use, because mounted secrets rotate without a restart.
    """

    __slots__ = ("_path", "_value", "setting")

    def __init__(self, setting: str, value: str | None = None, *, path: Path | None = None) -> None:
        self.setting = setting
        self._value = value
        self._path = path

    @property
    def path(self) -> Path | None:
        """The file that holds the secret, or None if it came from the environment."""
        return self._path

    def reveal(self) -> str:
        """The secret's current text.

        Raises:
            ConfigurationError: code `setting_unreadable` (or `setting_missing` if the file is empty).
        """
        if self._path is None:
            return self._value or ""
        text = read_setting_file(self._path, self.setting)
        if not text:
            raise ConfigurationError(
                "setting_missing", f"{self.setting}: the file that holds it is empty", self.setting
            )
        return text

    def __repr__(self) -> str:
        return f"Secret({self.setting})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret cannot be pickled")


def read_setting_file(path: Path, setting: str) -> str:
    """The text of a file that holds a setting, without white space around it, and without the byte order mark
    that some editors put in front.

    Raises:
        ConfigurationError: the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SETTING_BYTES + 1)
        if len(data) > MAX_SETTING_BYTES:
            raise ConfigurationError(
                "setting_invalid", f"{setting}: its file is larger than {MAX_SETTING_BYTES} bytes", setting
            )
        return data.decode("utf-8-sig").strip()
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise ConfigurationError(
            "setting_unreadable", f"{setting}: its file cannot be read: {reason}", setting
        ) from None
    except UnicodeDecodeError:
        # The exception carries the file's bytes: chained, they would reach a log.
        raise ConfigurationError(
            "setting_invalid", f"{setting}: its file is not text in UTF-8", setting
        ) from None


def signing_key(setting: str, jwk: str) -> _native.SigningKey:
    """The private key in the text of a setting.

    Raises:
        ConfigurationError: it is not usable; the sentence names the setting and contains no key material.
    """
    try:
        key = _native.SigningKey.from_jwk(jwk)
    except ConfigurationError as exc:
        raise ConfigurationError(exc.code, f"{setting}: {exc.message}", setting) from None
    if key.kid is None:
        message = f"{setting}: the key must have a 'kid', by which the provider finds the public key"
        raise ConfigurationError("setting_invalid", message, setting)
    return key
