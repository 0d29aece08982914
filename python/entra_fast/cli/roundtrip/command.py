# ruff: noqa: PLC0415 - what starts the local system is imported when it runs
"""The command: its options, where its inputs come from, what is printed, and the exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entra_fast._color import Style, painted
from entra_fast.cli.json_client import Server
from entra_fast.cli.sidecar_client import TARGET_HELP, TOKEN, json_objects
from entra_fast.cli.terminal import (
    OK,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    AddCommand,
    CommandError,
    fail,
    print_json,
    printable,
    reason,
)

if TYPE_CHECKING:
    from entra_fast.cli.roundtrip.steps import Inputs, Result

_USERS = {"entra_id_user": "ENTRA_ID_USER_TOKEN", "idporten_user": "IDPORTEN_USER_TOKEN"}
"""The variables that hold user tokens."""
_SHOWN_CLAIMS = (
    "iss",
    "aud",
    "azp_name",
    "idtyp",
    "scp",
    "client_id",
    "idp",
    "acr",
    "scope",
    "consumer",
    "authorization_details",
)
"""Claims that are shown with their values; of all others, which may be about a person, only the names."""
_MAX_FILE_BYTES = 1 << 20
_WORDS: Mapping[str, tuple[str, Style]] = {
    "ok": ("ok     ", "good"),
    "failed": ("FAILED ", "bad"),
    "skipped": ("skipped", "aside"),
}


def _roundtrip(arguments: argparse.Namespace) -> int:
    if arguments.local:
        if arguments.url is not None:
            raise CommandError(USAGE, "pass either --url or --local")
        from entra_fast import _extras
        from entra_fast.cli.roundtrip.local import with_local_system

        _extras.need("dev")
        given = _inputs(arguments, {})
        return with_local_system(given, lambda url, inputs: _run(arguments, url, inputs))
    return _run(arguments, _url(arguments.url), _inputs(arguments, os.environ))


def _url(given: str | None) -> str:
    """The sidecar's URL without a path: that of --url, or where the application finds its tokens."""
    return TOKEN.url(given).rstrip("/").removesuffix(TOKEN.path)


def _inputs(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Inputs:
    """What the options say, or else the environment."""
    from entra_fast.cli.roundtrip.steps import SYSTEM_USER, Inputs

    own = environ.get("AZURE_APP_CLIENT_ID")
    scopes = environ.get("MASKINPORTEN_SCOPES", "").split()
    return Inputs(
        entra_id_target=arguments.entra_id_target or (f"api://{own}/.default" if own else None),
        maskinporten_scope=arguments.maskinporten_scope or next(iter(scopes), None),
        tokenx_target=arguments.tokenx_target or environ.get("TOKEN_X_CLIENT_ID"),
        authorization_details=SYSTEM_USER
        if arguments.authorization_details is None
        else json_objects(arguments.authorization_details),
        **{
            name: _token_in(getattr(arguments, name), name) or environ.get(variable, "").strip() or None
            for name, variable in _USERS.items()
        },
    )


def _token_in(file: str | None, name: str) -> str | None:
    """The token in a file; `-` is standard input."""
    if file is None:
        return None
    option = "--" + name.replace("_", "-")
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CommandError(USAGE, f"{option}: '{file}' cannot be read: {reason(error)}") from None
    token = data.decode("utf-8", "replace").strip()
    if not token or len(data) > _MAX_FILE_BYTES:
        raise CommandError(USAGE, f"{option}: '{file}' does not hold a token")
    return token


def _run(arguments: argparse.Namespace, url: str, given: Inputs) -> int:
    from entra_fast.cli.roundtrip import steps

    server = Server("sidecar", "--url" if arguments.url else TOKEN.variable)
    known = [step.name for step in steps.STEPS]
    if unknown := [name for name in arguments.only if name not in known]:
        raise CommandError(USAGE, f"--only: '{unknown[0]}' is none of {', '.join(known)}")
    chosen = [step for step in steps.STEPS if not arguments.only or step.name in arguments.only]
    if not arguments.json:
        print(f"Round trips at {printable(url)}", flush=True)
    results = []
    for step in chosen:
        options = {"skip_cache": arguments.skip_cache, "show_tokens": arguments.show_tokens}
        results.append(steps.run(step, server, url, given, **options))
        if not arguments.json:
            print(_text(results[-1]), flush=True)
    counts = {name: sum(each.outcome.value == name for each in results) for name in _WORDS}
    if arguments.json:
        print_json({"url": url, "steps": [_document(each) for each in results], **counts})
    else:
        print("\n" + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["failed"] or (arguments.all and counts["skipped"]):
        return REFUSED
    return OK if counts["ok"] else fail(UNAVAILABLE, "nothing was tried: every round trip was skipped")


def _text(result: Result) -> str:
    word, style = _WORDS[result.outcome.value]
    took = f"  {result.seconds * 1000:.1f} ms" if result.requests else ""
    lines = [f"\n{painted(word, style, sys.stdout)} {result.title}{took}"]
    if result.reason is not None:
        lines.append(f"  {printable(result.reason)}")
    for request in result.requests:
        fields = " ".join(f"{name}={_value(value)}" for name, value in request.fields.items())
        lines.append(f"  POST {request.path}  {fields}")
    if result.claims:
        lines += [f"  {name}: {_value(value)}" for name, value in _shown(result).items()]
        if others := _others(result):
            lines.append(f"  and {', '.join(map(printable, others))}")
    if result.token is not None:
        lines.append(f"  token: {printable(result.token)}")
    return "\n".join(lines)


def _value(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shown(result: Result) -> dict[str, Any]:
    return {name: result.claims[name] for name in _SHOWN_CLAIMS if name in result.claims}


def _others(result: Result) -> list[str]:
    return sorted(name for name in result.claims if name not in _SHOWN_CLAIMS)


def _document(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": result.name,
        "outcome": result.outcome.value,
        "reason": result.reason,
        "ms": round(result.seconds * 1000, 1),
        "requests": [
            {"path": each.path, "fields": dict(each.fields), "ms": round(each.seconds * 1000, 1)}
            for each in result.requests
        ],
        "verified": result.verified,
        "claims": _shown(result),
        "other_claims": _others(result),
    }
    return document if result.token is None else {**document, "token": result.token}


def add_commands(add: AddCommand) -> None:
    parser = add(
        "roundtrip",
        _roundtrip,
        "try every identity provider of a running sidecar",
        """Make up to six round trips at a sidecar (or at Texas, which has the same API): a token or an
exchange, and its introspection, at each identity provider. A step whose provider is not
enabled, or that lacks its input, is skipped with the reason. User tokens come from files or
from $ENTRA_ID_USER_TOKEN and $IDPORTEN_USER_TOKEN. Neither tokens nor claims about persons
are shown.

The exit status is 0 if no step has failed, 1 if one has, and 3 if the sidecar does not
answer or every step was skipped.

examples:
  entra-fast roundtrip --local                       # against a local system
  entra-fast roundtrip --url http://127.0.0.1:3000 --entra-id-target dev-gcp:team-b:app-b
  entra-fast roundtrip --idporten-user citizen.txt --tokenx-target dev-gcp:team-b:app-b
""",
    )
    where = parser.add_argument_group("sidecar")
    where.add_argument(
        "--url", help="URL of the sidecar (default: that of $NAIS_TOKEN_ENDPOINT, or http://127.0.0.1:7164)"
    )
    where.add_argument(
        "--local", action="store_true", help="start a local system with the example applications, and use it"
    )
    inputs = parser.add_argument_group("what to ask for")
    scope = "a scope that the application may have (default: the first of $MASKINPORTEN_SCOPES)"
    for option, metavar, text in (
        ("--entra-id-target", "TARGET", f"{TARGET_HELP} (default: the application itself)"),
        ("--entra-id-user", "FILE", "file with a user's token for the application; '-' is standard input"),
        ("--idporten-user", "FILE", "file with the token of a user of ID-porten"),
        ("--maskinporten-scope", "SCOPE", scope),
        ("--authorization-details", "JSON", "JSON array (default: a system user of Altinn)"),
        ("--tokenx-target", "TARGET", "'<cluster>:<namespace>:<app>' (default: the application itself)"),
    ):
        inputs.add_argument(option, metavar=metavar, help=text)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="make only this round trip, such as 'tokenx'; may be repeated",
    )
    parser.add_argument("--skip-cache", action="store_true", help="fetch new tokens")
    parser.add_argument("--all", action="store_true", help="count a skipped step as failed")
    parser.add_argument("--show-tokens", action="store_true", help="show tokens, which are secrets")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
