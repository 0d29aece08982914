"""`entra-fast completion`: the script with which a shell completes commands and options.

What belongs here: the command, and what shells complete for which kind of value. shtab writes the script from
the parser: pressing Tab starts no Python.
"""

from __future__ import annotations

import argparse

from entra_fast import _extras
from entra_fast._providers import BUILT_IN
from entra_fast.cli.sidecar_client import PROVIDER_METAVAR
from entra_fast.cli.terminal import OK, AddCommand

SHELLS = ("bash", "zsh", "fish")
_FILES = frozenset({"FILE", "[CLUSTER=]PATH"})
_DIRECTORIES = frozenset({"DIR", "[DIR]"})


def _completion(arguments: argparse.Namespace) -> int:
    _extras.need("completion")
    import shtab  # noqa: PLC0415 - an extra

    _complete_values(arguments.command_line, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(arguments.command_line, arguments.shell))
    return OK


def _complete_values(parser: argparse.ArgumentParser, files: object, directories: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_values(command, files, directories)
        elif action.metavar == PROVIDER_METAVAR:
            action.choices = [kind.name for kind in BUILT_IN]  # completed, but not the only ones
        elif action.metavar in _FILES:
            action.complete = files  # type: ignore[attr-defined]
        elif action.metavar in _DIRECTORIES:
            action.complete = directories  # type: ignore[attr-defined]


def add_commands(add: AddCommand) -> None:
    """Add `completion`."""
    parser = add(
        "completion",
        _completion,
        "print the script with which a shell completes these commands",
        """Print a script for bash, zsh or fish that completes commands, options and file names.

examples:
  entra-fast completion bash > ~/.local/share/bash-completion/completions/entra-fast
  entra-fast completion zsh > ~/.zfunc/_entra-fast         # a folder in $fpath
  entra-fast completion fish > ~/.config/fish/completions/entra-fast.fish
""",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
