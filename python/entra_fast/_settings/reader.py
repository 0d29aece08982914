"""Finds the text of a setting and parses it.

What belongs here: the order of sources (environment, files, aliases, default), and errors that name the
setting as the user wrote it. What must never be here: the meaning of a setting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from entra_fast._providers import BUILT_IN
from entra_fast._settings.kinds import SecretText, Setting, Unsuitable
from entra_fast._settings.secret import Secret, read_setting_file
from entra_fast.errors import ConfigurationError

V = TypeVar("V")
D = TypeVar("D")

ERROR_CODES = {
    "setting_missing": "a setting that is needed is not there",
    "setting_invalid": "a setting does not have the expected form",
    "setting_unreadable": "a file that holds a setting cannot be read",
}


TEXAS = ("TEXAS_", "RUST_")
"""How the names of Texas's settings begin. Texas replaces a value that it cannot use by its default, so they
never stop a start: what is out of bounds here is replaced by the nearest value, and what is no value is
ignored."""


class Reader:
    """Reads settings from an environment and, if they are missing there, from the files of a directory and of
    its subdirectories for providers.

    Attributes:
        environ: the environment.
        ignored: settings that were read and have no effect, with the reason.
        problems: collects what is wrong, in the order in which it is found; None where the first problem is
            raised.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        directory: Path | None,
        problems: list[ConfigurationError] | None = None,
    ) -> None:
        self.environ = environ
        self.ignored: list[str] = []
        self.problems = problems
        self._wrong: set[str] = set()
        self._directories = () if directory is None else setting_directories(directory)

    def get(self, setting: Setting[V, D]) -> V | D:
        """A setting's value; its default if the setting is unset. An empty text counts as unset.

        Raises:
            ConfigurationError: code `setting_invalid` or `setting_unreadable`, unless problems are collected.
        """
        value = self.explicit(setting)
        return setting.default if value is None else value

    def explicit(self, setting: Setting[V, D]) -> V | None:
        """A setting's value if it is set.

        Raises:
            ConfigurationError: as for `get`.
        """
        for name in (setting.name, *setting.aliases):
            with self.reporting(setting):
                text = self.environ.get(name, "").strip() if setting.environment_only else self._text(name)
                if text:
                    try:
                        return setting.parse(text)
                    except Unsuitable as problem:
                        if not name.startswith(TEXAS):
                            raise ConfigurationError("setting_invalid", f"{name} {problem}", name) from None
                        if (value := setting.nearest(text)) is not None:
                            return value
                        self.ignored.append(f"{name} ({problem})")
        return None

    def refuse(self, error: ConfigurationError, setting: Setting[Any, Any] | None = None) -> None:
        """Raise the error, or collect it where problems are collected: then the setting counts as unset. What
        follows from a setting that is already known to be wrong is not collected.

        Args:
            setting: that is wrong, where the error may name it by an alias.
        """
        if self.problems is None:
            raise error
        name = error.setting if setting is None else setting.name
        if name not in self._wrong:
            self._wrong.add(name)
            self.problems.append(error)

    def is_there(self, name: str) -> bool:
        """Whether there is a variable or a file of this name. Its value may be wrong."""
        return bool(self.environ.get(name, "").strip()) or self._file(name) is not None

    def has_problems(self, settings: Iterable[Setting[Any, Any]]) -> bool:
        """Whether one of these settings is wrong."""
        return not self._wrong.isdisjoint(setting.name for setting in settings)

    @contextlib.contextmanager
    def reporting(self, setting: Setting[Any, Any] | None = None) -> Iterator[None]:
        """Pass a ConfigurationError of the block to `refuse`."""
        try:
            yield
        except ConfigurationError as error:
            self.refuse(error, setting)

    def names(self, setting: Setting[Any, Any]) -> bool:
        """Whether the setting is set under its own name; other names do not count."""
        with self.reporting(setting):
            return bool(self._text(setting.name))
        return True  # it is there, and cannot be read

    def secret(self, setting: SecretText[None]) -> Secret | None:
        """A secret, which is re-read at each use if it comes from a file; None if it is unset."""
        for name in (setting.name, *setting.aliases):
            value = self.environ.get(name, "").strip()
            if value:
                return Secret(name, value)
            path = self._file(name)
            with self.reporting(setting):
                if path is not None and read_setting_file(path, name):
                    return Secret(name, path=path)
        return None

    def successor(self, setting: SecretText[None], current: Secret | None) -> Secret | None:
        """The secret that follows `current` in a rotation. As a file, it may appear later."""
        found = self.secret(setting)
        if found is None and current is not None and current.path is not None:
            return Secret(setting.name, path=current.path.with_name(setting.name))
        return found

    def _text(self, name: str) -> str:
        value = self.environ.get(name, "").strip()
        if value:
            return value
        path = self._file(name)
        return "" if path is None else read_setting_file(path, name)

    def _file(self, name: str) -> Path | None:
        paths = (directory / name for directory in self._directories)
        return next((path for path in paths if path.is_file()), None)


def setting_directories(directory: Path) -> tuple[Path, ...]:
    """The directories in which a setting is looked up, in this order: one, and its subdirectories for
    providers, named as NAIS names them. Without those that do not exist."""
    below = (directory / kind.directory for kind in BUILT_IN if kind.directory is not None)
    return tuple(each for each in (directory, *below) if each.is_dir())


def missing(setting: Setting[Any, Any], sentence: str) -> ConfigurationError:
    """The error for a setting that must be set; `sentence` continues the setting's name."""
    return ConfigurationError("setting_missing", f"{setting.name}{sentence}", setting.name)
