"""The default paths of manifests, users and groups, and the circumstances in which they are read.

The emulator reads the files.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from entra_fast.emulator.model.manifests import Source
from entra_fast.errors import ConfigurationError


def find_sources(
    manifests: Sequence[str] = (), directory: str | None = None
) -> tuple[list[Source], Path | None]:
    """The manifests and the directory that were named, else those in ./examples, else the packaged examples.

    Raises:
        ConfigurationError: a path that was given does not exist.
    """
    sources = [Source.parse(text) for text in manifests]
    for source in sources:
        if not source.path.exists():
            raise ConfigurationError(
                "manifests_missing", f"--manifests: there is no file or folder '{source.path}'", "--manifests"
            )
    examples = _examples()
    if not sources:
        sources = [Source(examples / "manifests")]
    if directory is not None:
        if not Path(directory).is_file():
            raise ConfigurationError(
                "directory_missing", f"--directory: there is no file '{directory}'", "--directory"
            )
        return sources, Path(directory)
    # Without users, no one could sign in: manifests without a directory get the users of the examples.
    beside = Path(os.path.normpath(sources[0].path / ".." / "directory.yaml"))
    return sources, beside if beside.is_file() else examples / "directory.yaml"


def _examples() -> Path:
    local = Path("examples")
    if (local / "manifests").is_dir():
        return local
    return Path(str(resources.files("entra_fast"))) / "examples"


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For reading manifests: a thousand of them become a million objects, none of which is garbage, and
    looking for some takes a third of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
