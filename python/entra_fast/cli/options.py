"""Options that several modules of commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from entra_fast import _color
from entra_fast.cli.terminal import USAGE, CommandError


def add_color_option(parser: argparse.ArgumentParser) -> None:
    """Whether the output has colour."""
    parser.add_argument(
        "--color",
        choices=_color.WHEN,
        default=argparse.SUPPRESS,  # before and after the command's name
        metavar="WHEN",
        help="'always', 'never' or 'auto': for terminals, unless NO_COLOR is set (default: auto)",
    )


def add_manifest_options(parser: argparse.ArgumentParser) -> None:
    """Where manifests, users and groups are."""
    group = parser.add_argument_group("applications and users")
    group.add_argument(
        "--manifests",
        action="append",
        default=[],
        metavar="[CLUSTER=]PATH",
        help="file or directory of NAIS Application manifests; may be repeated "
        "(default: ./examples/manifests, or the packaged examples)",
    )
    group.add_argument(
        "--directory",
        metavar="FILE",
        help="users and groups (default: directory.yaml next to the manifests, or the packaged example)",
    )


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    """Where files with settings are."""
    parser.add_argument(
        "--settings",
        metavar="DIR",
        help="directory with files for settings that are not in the environment (default: "
        "$ENTRA_FAST_SETTINGS_DIRECTORY, or /var/run/secrets/nais.io)",
    )


def settings_directory(given: str | None) -> Path | None:
    """The directory of --settings; None leaves the choice to the settings themselves.

    Raises:
        CommandError: it is no directory.
    """
    if given is not None and not Path(given).is_dir():
        raise CommandError(USAGE, f"--settings: '{given}' is not a directory")
    return None if given is None else Path(given)
