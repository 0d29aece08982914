"""The `entra-fast` command: parses arguments, runs one command, and turns errors into exit statuses.

What belongs here: the parser, the list of commands, and the mapping from exceptions to exit statuses. The
commands are in the other modules of this package. Each imports what it needs only when it runs, so that
`entra-fast inspect` loads no web server and `entra-fast serve` no emulator.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from entra_fast import _color
from entra_fast.cli import servers
from entra_fast.cli.options import add_color_option
from entra_fast.cli.terminal import (
    INTERRUPTED,
    OK,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    CommandError,
    Run,
    discard_output,
    fail,
    print_json,
    reason,
)
from entra_fast.errors import ConfigurationError, EntraFastError, Forbidden, InvalidToken

_EXIT_STATUSES = """\
exit status:
  0    success; for a check: the token is valid
  1    refused: the token is not valid, or the provider or the sidecar refused the request
  2    the command line, a setting or a manifest is wrong
  3    undecided: the provider or the sidecar could not be reached
  130  interrupted (Ctrl-C)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; an expected error is one line, never a traceback."""
    _prepare_streams()
    given = sys.argv[1:] if argv is None else argv
    parser = _parser(next(iter(given), None))
    if not given:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        arguments, unknown = parser.parse_known_args(given)
        if unknown:
            _refuse_unknown(arguments.parser, unknown)
    except _UsageError as error:
        if "--json" in given:
            _print_error("usage", _with_suggestion(str(error)))
        error.parser.print_usage(sys.stderr)
        error.parser.exit(USAGE, f"{error.parser.prog}: error: {_with_suggestion(str(error))}\n")
    _color.choose(getattr(arguments, "color", "auto"))
    try:
        status = _run(arguments.run, arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `entra-fast inspect | head -1`
        discard_output()
        return REFUSED
    except OSError as error:
        discard_output()
        return fail(USAGE, f"{error.filename or 'the output cannot be written'}: {reason(error)}")
    return status


def _run(run: Run, arguments: argparse.Namespace) -> int:
    try:
        return _with_json_errors(run, arguments)
    except (InvalidToken, Forbidden) as error:
        return fail(REFUSED, str(error))
    except ConfigurationError as error:
        for line in str(error).split("\n"):  # several mistakes in manifests: a line for each
            fail(USAGE, line)
        return USAGE
    except EntraFastError as error:
        return fail(UNAVAILABLE, str(error))
    except CommandError as error:
        return fail(error.status, str(error))


def _with_json_errors(run: Run, arguments: argparse.Namespace) -> int:
    """Run the command. With --json, an error is an object on standard output as well."""
    try:
        return run(arguments)
    except (EntraFastError, CommandError) as error:
        if getattr(arguments, "json", False):
            _print_error(error.code if isinstance(error, EntraFastError) else "command_failed", str(error))
        raise


def _print_error(code: str, message: str) -> None:
    print_json({"error": {"code": code, "message": message}})


def _prepare_streams() -> None:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell; the next opened file must not take its number
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals without UTF-8


def _refuse_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Ends with the usage of the command itself; argparse alone would show that of `entra-fast`."""
    import difflib  # noqa: PLC0415 - for mistakes only

    known = re.findall(r"--[a-z-]+", parser.format_help())
    hints = []
    for argument in unknown:
        near = difflib.get_close_matches(argument.partition("=")[0], known, n=1, cutoff=0.8)
        hints.append(f"{argument} (did you mean {near[0]}?)" if near else argument)
    parser.error(f"unrecognized arguments: {' '.join(hints)}")


def _with_suggestion(message: str) -> str:
    """Adds the nearest word to argparse's refusal of a word that is none of several, as argparse itself does
    from CPython 3.14 on."""
    import difflib  # noqa: PLC0415 - for mistakes only

    refused = re.search(r"invalid choice: '([^']*)'.*\(choose from (.*)\)$", message)
    if refused is None or "maybe you meant" in message:
        return message
    choices = re.findall(r"[\w-]+", refused[2])
    near = difflib.get_close_matches(refused[1], choices, n=1)
    return f"{message}; did you mean '{near[0]}'?" if near else message


class _UsageError(Exception):
    """A wrong command line, and the parser that has found it."""

    def __init__(self, parser: argparse.ArgumentParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` how an error is shown."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(self, message)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps descriptions and examples as they are written, with room for the longest command's name."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22)


class _Version(argparse.Action):
    """Prints the version of the native module that actually runs, and that of Python."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from entra_fast import _native  # noqa: PLC0415 - for this option only

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"entra-fast {_native.__version__} ({sys.implementation.name} {python})")
        parser.exit(OK)


def _parser(first: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        first: the first argument. A sidecar runs for months, so it loads no other commands.
    """
    parser = _Parser(
        prog="entra-fast",
        description="Validate Entra ID tokens, serve tokens to NAIS applications, and run a local Entra ID\n"
        "for development.",
        epilog="examples:\n"
        "  entra-fast dev                      run the whole system on this machine\n"
        "  entra-fast validate < token.txt     check a token\n"
        "  entra-fast COMMAND --help           show the options and examples of a command\n\n"
        + _EXIT_STATUSES,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_color_option(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add_command(name: str, run: Run, summary: str, text: str) -> argparse.ArgumentParser:
        description, _, epilog = text.partition("\n\n")
        added = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=epilog,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        add_color_option(added)
        added.set_defaults(run=run, parser=added, command_line=parser)
        return added

    servers.add_commands(add_command)
    if first != "serve":
        from entra_fast.cli import (  # noqa: PLC0415 - see above
            bench,
            completion,
            emulator_tools,
            roundtrip,
            sidecar_client,
            token_tools,
        )
        from entra_fast.cli.doctor import command as doctor  # noqa: PLC0415

        for module in (doctor, token_tools, sidecar_client, roundtrip, emulator_tools, bench, completion):
            module.add_commands(add_command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
