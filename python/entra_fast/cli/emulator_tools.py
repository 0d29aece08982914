# ruff: noqa: PLC0415 - each command imports what it runs when it runs
"""The commands about the local Entra ID: explain, env, forge.

What belongs here: their options, and how the environment of an application is written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from entra_fast import _extras
from entra_fast._color import Style, painted
from entra_fast.cli.json_client import Server
from entra_fast.cli.options import add_manifest_options
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

if TYPE_CHECKING:
    from entra_fast.emulator import Explanation
    from entra_fast.emulator.providers.explanation import ProviderExplanation

_EMULATOR = "http://127.0.0.1:8080"
_FORGE_FIELDS = (
    "application",
    "audience",
    "user",
    "version",
    "lifetime",
    "not_before",
    "algorithm",
    "key",
    "issuer",
    "groups",
    "agent",
)
_STYLES: dict[str, Style] = {"ok": "good", "granted": "good", "REFUSED": "bad", "refused": "bad"}
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
"""The name of an environment variable. Nothing else becomes shell code or the name of a file."""


def _explain(arguments: argparse.Namespace) -> int:
    _extras.need("dev")
    from entra_fast.cli.manifest_sources import find_sources
    from entra_fast.emulator import LocalEntraId

    if arguments.user is not None and arguments.provider != "entra_id":
        raise CommandError(USAGE, f"--user: the decision of {arguments.provider} does not depend on the user")
    if arguments.organization is not None and arguments.provider != "maskinporten":
        raise CommandError(
            USAGE, "--organization: only Maskinporten gives tokens on behalf of an organization"
        )
    local = LocalEntraId.from_files(*find_sources(arguments.manifests, arguments.directory))
    explanation: Explanation | ProviderExplanation
    if arguments.provider == "entra_id":
        explanation = local.explain(arguments.consumer, arguments.target, arguments.user)
    else:
        explanation = local.providers.explain(
            arguments.provider, arguments.consumer, arguments.target, arguments.organization
        )
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
    if arguments.json:
        if arguments.format not in ("shell", "json"):
            raise CommandError(USAGE, "pass either --json or --format")
        arguments.format = "json"
    if (arguments.format == "files") != (arguments.output is not None):
        raise CommandError(USAGE, "pass --format files and --output DIR together")
    application = quote(arguments.app, safe=":")
    kind = "login-proxy" if arguments.login_proxy else "environment"
    answer = _server(arguments).get(
        f"{arguments.url.rstrip('/')}/admin/api/applications/{application}/{kind}"
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


def _server(arguments: argparse.Namespace) -> Server:
    return Server("local Entra ID", "--url", arguments.ca, arguments.admin_token)


def _forge(arguments: argparse.Namespace) -> int:
    fields = {name: getattr(arguments, name) for name in _FORGE_FIELDS}
    wanted: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
    if arguments.claim:
        wanted["claims"] = dict(map(_claim, arguments.claim))
    answer = _server(arguments).post(f"{arguments.url.rstrip('/')}/admin/api/forge", wanted)
    if arguments.json:
        print_json(answer)
    else:
        print(printable(str(answer.get("token", ""))))
    return OK


def _claim(text: str) -> tuple[str, object]:
    """A claim from `NAME=VALUE`, whose value is JSON, or else text."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise CommandError(USAGE, f"--claim: '{text}' is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


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
    _add_forge(add)


def _add_explain(add: AddCommand) -> None:
    parser = add(
        "explain",
        _explain,
        "explain whether access policies allow a token",
        """Decide, by the rules of a local provider, whether an application gets a token: from Entra ID for an
API, for itself or on behalf of a user; from TokenX for an API, on behalf of a citizen; from
Maskinporten with scopes. Shows each check with the line of the manifest that decides it, and
what to change. The exit status is 0 if a token would be issued, 1 if not.

examples:
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b --user ada@trygdeetaten.no
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b --provider tokenx
  entra-fast explain dev-gcp:team-a:app-a nav:helse/sykepenger/afp.read --provider maskinporten
""",
    )
    parser.add_argument("consumer", help="the calling application: '<cluster>:<namespace>:<app>'")
    parser.add_argument(
        "target", help="the API being called: '<cluster>:<namespace>:<app>'; for Maskinporten, scopes"
    )
    parser.add_argument(
        "--provider",
        choices=("entra_id", "tokenx", "maskinporten"),
        default="entra_id",
        metavar="NAME",
        help="entra_id, tokenx or maskinporten (default: %(default)s)",
    )
    parser.add_argument("--user", help="on behalf of this user: sign-in name, NAV ident or object id")
    parser.add_argument(
        "--organization", metavar="NUMBER", help="on behalf of this customer, for Maskinporten"
    )
    parser.add_argument("--json", action="store_true", help="the decision as one JSON object")
    add_manifest_options(parser)


def _add_env(add: AddCommand) -> None:
    parser = add(
        "env",
        _env,
        "print an application's environment variables",
        """Print the variables that NAIS would inject into an application (AZURE_APP_CLIENT_ID,
TOKEN_X_CLIENT_ID, ...), for all providers of its manifest, so that any program can use a running
local Entra ID and the providers beside it. The secrets among them are valid there only.

examples:
  eval "$(entra-fast env dev-gcp:team-a:app-a)" && ./my-program
  entra-fast env dev-gcp:team-a:app-a --format dotenv > .env
  entra-fast env dev-gcp:team-a:app-a --format files --output secrets/azure
""",
    )
    parser.add_argument("app", metavar="APP", help="'<cluster>:<namespace>:<app>' or a client id")
    parser.add_argument(
        "--login-proxy",
        action="store_true",
        help="the variables of the application's login proxy at ID-porten (wonderwall) instead",
    )
    _add_server_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format",
        choices=("shell", "dotenv", "json", "files"),
        default="shell",
        help="form of the output (default: %(default)s, which prints export lines)",
    )
    output.add_argument("--output", metavar="DIR", help="directory for --format files")
    output.add_argument("--json", action="store_true", help="the same as --format json; errors are JSON, too")


def _add_forge(add: AddCommand) -> None:
    parser = add(
        "forge",
        _forge,
        "make any token, valid or not, with a running local Entra ID",
        """Print any token that you ask for, signed by a running local Entra ID: expired, for another
audience, with another algorithm, with too many groups... to test what verifies tokens. No access
policy is checked. The log of the local Entra ID shows the token as forged. An issuer on a host
of a real provider is refused.

examples:
  entra-fast forge dev-gcp:team-a:app-a --audience dev-gcp:team-b:app-b --user ada --lifetime=-60
  entra-fast forge dev-gcp:team-a:app-a --algorithm HS256      # keyed with the public key
  entra-fast forge dev-gcp:team-a:app-a --claim 'roles=["admin"]' --claim idtyp=null --groups 512
""",
    )
    parser.add_argument(
        "application",
        metavar="APP",
        nargs="?",
        help="the client: '<cluster>:<namespace>:<app>' or a client id (default: the audience)",
    )
    parser.add_argument("--audience", help="the API: an application, or any text (default: the client)")
    parser.add_argument("--user", help="on behalf of this user: sign-in name, NAV ident or object id")
    parser.add_argument("--version", type=int, help="token version, 1 or 2 (default: the API's)")
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a claim, as JSON or text; null leaves it out; may be repeated",
    )
    parser.add_argument(
        "--lifetime",
        type=float,
        metavar="SECONDS",
        help="seconds until the token expires; negative for one that has expired",
    )
    parser.add_argument(
        "--not-before", type=float, metavar="SECONDS", help="seconds from now until the token becomes valid"
    )
    parser.add_argument(
        "--algorithm", help="such as RS256, PS256, ES256, none, or HS256 with the public key as secret"
    )
    parser.add_argument(
        "--key",
        help="active; unknown: not published; wrong: not published, under the kid of the active one; none "
        "(default: active)",
    )
    parser.add_argument("--issuer", help="any text, except an issuer on a host of a real provider")
    parser.add_argument("--groups", type=int, metavar="N", help="number of groups in the token")
    parser.add_argument("--agent", help="identity or user: the claims of an agent identity")
    parser.add_argument("--json", action="store_true", help="token, header and claims as one JSON object")
    _add_server_options(parser)


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=_EMULATOR, help="URL of the local Entra ID (default: %(default)s)")
    parser.add_argument(
        "--ca", metavar="FILE", help="certificate authority to trust, for a local Entra ID with --tls"
    )
    parser.add_argument(
        "--admin-token",
        metavar="TOKEN",
        help="admin token, which a local Entra ID with --allow-remote prints at its start",
    )
