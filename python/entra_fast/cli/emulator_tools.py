# ruff: noqa: PLC0415 - each command imports what it runs when it runs
"""The commands about the local Entra ID: explain, env.

What belongs here: their options, and how the environment of an application is written.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from entra_fast import _extras
from entra_fast._color import Style, painted
from entra_fast.cli.options import add_manifest_options
from entra_fast.cli.sidecar_client import Server
from entra_fast.cli.terminal import (
    OK,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    AddCommand,
    CommandError,
    print_json,
    printable,
    reason,
)

_EMULATOR = "http://127.0.0.1:8080"
_STYLES: dict[str, Style] = {"ok": "good", "granted": "good", "REFUSED": "bad", "refused": "bad"}
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
"""The name of an environment variable. Nothing else becomes shell code or the name of a file."""


def _explain(arguments: argparse.Namespace) -> int:
    _extras.need("dev")
    from entra_fast.cli.manifest_sources import find_sources
    from entra_fast.emulator import LocalEntraId

    local = LocalEntraId.from_files(*find_sources(arguments.manifests, arguments.directory))
    explanation = local.explain(arguments.consumer, arguments.target, arguments.user)
    if arguments.json:
        print_json(explanation.document())
    else:
        for line in explanation.lines():
            print(_painted(printable(line)))
    return OK if explanation.granted else REFUSED


def _painted(line: str) -> str:
    """A line of an explanation, with the word that says the outcome in colour."""
    outcome = line[:9] if line.startswith(" ") else line.partition(" ")[0]
    style = _STYLES.get(outcome.strip().rstrip(":"))
    return line if style is None else f"{painted(outcome, style, sys.stdout)}{line[len(outcome) :]}"


def _env(arguments: argparse.Namespace) -> int:
    if (arguments.format == "files") != (arguments.output is not None):
        raise CommandError(USAGE, "pass --format files and --output DIR together")
    application = quote(arguments.app, safe=":")
    answer = Server("local Entra ID", "--url", arguments.ca).get(
        f"{arguments.url.rstrip('/')}/admin/api/applications/{application}/environment"
    )
    if not all(isinstance(value, str) and _NAME.fullmatch(name) for name, value in answer.items()):
        raise CommandError(UNAVAILABLE, "the answer is not an environment: not a local Entra ID?")
    environment = {name: str(value) for name, value in sorted(answer.items())}
    if arguments.format == "json":
        print_json(environment)
    elif arguments.format == "files":
        _write_files(Path(arguments.output), environment)
    else:
        prefix = "export " if arguments.format == "shell" else ""
        for name, value in environment.items():
            print(printable(f"{prefix}{name}={shlex.quote(value)}"))
    return OK


def _write_files(folder: Path, environment: Mapping[str, str]) -> None:
    """Write a file for each variable, as NAIS mounts them. They are secrets: only the owner may read them."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)  # not on Windows
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in environment.items():
            handle = os.open(folder / name, flags, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
    except OSError as error:
        raise CommandError(USAGE, f"--output: cannot write to '{folder}': {reason(error)}") from None
    print(f"wrote {len(environment)} files to {folder}; use them with 'entra-fast serve --settings {folder}'")


def add_commands(add: AddCommand) -> None:
    _add_explain(add)
    _add_env(add)


def _add_explain(add: AddCommand) -> None:
    parser = add(
        "explain",
        _explain,
        "explain whether access policies allow a token",
        """Decide, by the rules of the local Entra ID, whether an application gets a token for an API:
for itself, or on behalf of a user. Shows each check with the line of the manifest that
decides it, and what to change. The exit status is 0 if a token would be issued, 1 if not.

examples:
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b --user ada@trygdeetaten.no
""",
    )
    parser.add_argument("consumer", help="the calling application: '<cluster>:<namespace>:<app>'")
    parser.add_argument("target", help="the API being called: '<cluster>:<namespace>:<app>'")
    parser.add_argument("--user", help="on behalf of this user: sign-in name, NAV ident or object id")
    parser.add_argument("--json", action="store_true", help="the decision as one JSON object")
    add_manifest_options(parser)


def _add_env(add: AddCommand) -> None:
    parser = add(
        "env",
        _env,
        "print an application's environment variables",
        """Print the variables that NAIS would inject into an application (AZURE_APP_CLIENT_ID,
AZURE_APP_JWK, ...), so that any program can use a running local Entra ID. The secrets among
them are valid for that local Entra ID only.

examples:
  eval "$(entra-fast env dev-gcp:team-a:app-a)" && ./my-program
  entra-fast env dev-gcp:team-a:app-a --format dotenv > .env
  entra-fast env dev-gcp:team-a:app-a --format files --output secrets/azure
""",
    )
    parser.add_argument("app", metavar="APP", help="'<cluster>:<namespace>:<app>' or a client id")
    parser.add_argument("--url", default=_EMULATOR, help="URL of the local Entra ID (default: %(default)s)")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificate authority to trust, for a local Entra ID with --tls"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("shell", "dotenv", "json", "files"),
        default="shell",
        help="form of the output (default: %(default)s, which prints export lines)",
    )
    output.add_argument("--output", metavar="DIR", help="directory for --format files")
