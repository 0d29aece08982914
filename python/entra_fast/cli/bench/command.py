# ruff: noqa: PLC0415 - what runs the load is imported when it runs
"""The command: its options, one request to see that it works, the load, the result, and the exit status."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from entra_fast.cli.json_client import Server
from entra_fast.cli.options import add_color_option
from entra_fast.cli.sidecar_client import (
    EXCHANGE,
    INTROSPECTION,
    TARGET_HELP,
    TOKEN,
    TOKEN_TARGET_HELP,
    Endpoint,
    add_sidecar_options,
    add_token_details,
    ask_sidecar,
    probe_address,
    token_details,
)
from entra_fast.cli.terminal import (
    OK,
    REFUSED,
    TOKEN_HELP,
    USAGE,
    AddCommand,
    CommandError,
    print_json,
    read_token,
)

if TYPE_CHECKING:
    from entra_fast.cli.bench.load import Request

_MAX_CONNECTIONS, _MAX_SECONDS = 1_000, 300
_CPU = re.compile(rb"^process_cpu_seconds_total (\S+)$", re.MULTILINE)


def _bench(arguments: argparse.Namespace) -> int:
    _check_bounds(arguments)
    endpoint, fields = _wanted(arguments)
    url = endpoint.url(arguments.url)
    if not arguments.allow_remote and not _is_loopback(url):
        raise CommandError(
            USAGE,
            f"{urlsplit(url).hostname} is another machine: if its sidecar is yours, pass --allow-remote",
        )
    # One request first: it fetches what is cached from then on. If it fails, a load would make no sense.
    answer = ask_sidecar(arguments, endpoint, fields)
    if endpoint is INTROSPECTION and answer.get("active") is not True:
        raise CommandError(REFUSED, f"the sidecar says that the token is not valid: {answer.get('error')}")
    return _measure(arguments, _request(arguments, endpoint, url, fields))


def _measure(arguments: argparse.Namespace, request: Request) -> int:
    from entra_fast import _event_loop
    from entra_fast.cli.bench import load, report

    progress = report.Progress(arguments.seconds)
    cpu_before = _server_cpu(arguments)
    try:
        figures = _event_loop.run(load.run(request, arguments.connections, arguments.seconds, progress))
    finally:
        progress.ended()
    cpu_after = _server_cpu(arguments)
    cpu = None if cpu_before is None or cpu_after is None else cpu_after - cpu_before
    if arguments.json:
        print_json({**figures.document(), "server_cpu_seconds": cpu})
    else:
        print("\n".join(report.lines(figures, cpu, sys.stdout)))
    return OK if figures.is_clean else REFUSED


def _check_bounds(arguments: argparse.Namespace) -> None:
    for name, most in (("connections", _MAX_CONNECTIONS), ("seconds", _MAX_SECONDS)):
        if not 1 <= getattr(arguments, name) <= most:
            raise CommandError(USAGE, f"--{name} must be from 1 to {most}")


def _wanted(arguments: argparse.Namespace) -> tuple[Endpoint, dict[str, object]]:
    match arguments.what:
        case "introspect":
            return INTROSPECTION, {"token": read_token(arguments.token)}
        case "token":
            return TOKEN, {"target": arguments.target, **token_details(arguments)}
        case _:
            return EXCHANGE, {"target": arguments.target, "user_token": read_token(arguments.token)}


def _request(
    arguments: argparse.Namespace, endpoint: Endpoint, url: str, fields: dict[str, object]
) -> Request:
    import orjson

    from entra_fast.cli.bench.load import Request

    sent = {"identity_provider": arguments.identity_provider, **fields}
    is_right: Callable[[bytes], bool] = _has_token
    if endpoint is INTROSPECTION:
        is_right = _is_active
    if arguments.form:
        form = {
            name: value if isinstance(value, str) else _in_form(name, value) for name, value in sent.items()
        }
        return Request(url, urlencode(form).encode("ascii"), "application/x-www-form-urlencoded", is_right)
    # As the first request was: a detail that is written differently is another token.
    return Request(url, orjson.dumps(sent), "application/json", is_right)


def _in_form(name: str, value: object) -> str:
    """A field of the request as a form has it: a list of resources has no such form."""
    if name == "resource" and isinstance(value, list):
        if len(value) > 1:
            raise CommandError(USAGE, "--form: a form has one 'resource'; leave --form out")
        return str(value[0])
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)  # as orjson writes it


def _has_token(body: bytes) -> bool:
    return b'"access_token"' in body


def _is_active(body: bytes) -> bool:
    return b'"active":true' in body or b'"active": true' in body


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _server_cpu(arguments: argparse.Namespace) -> float | None:
    """Seconds of processor time that the sidecar has used, if its metrics can be read and say so."""
    if arguments.url and not arguments.probe_url:
        return None  # the usual address may belong to another sidecar
    try:
        response = Server("sidecar", "--probe-url").probe(
            (arguments.probe_url or probe_address()) + "/metrics"
        )
    except CommandError:
        return None
    found = _CPU.search(response.body) if response.status == 200 else None
    return float(found[1]) if found else None


def add_commands(add: AddCommand) -> None:
    """Add `bench`."""
    parser = add(
        "bench",
        _bench,
        "load a running sidecar of your own, and show how fast it answers",
        """Send the same request to a sidecar over and over, on several connections for some seconds, and
show responses per second, latencies, and each response that was not right. The sidecar is
found as by the commands token, exchange and introspect. After the first request, everything
comes from its cache, so the provider is not loaded.

examples:
  entra-fast bench token dev-gcp:team-b:app-b
  entra-fast token dev-gcp:team-a:app-a | entra-fast bench introspect
  entra-fast bench token nav:helse/sykepenger/afp.read --provider maskinporten
  entra-fast bench exchange dev-gcp:team-b:app-b --seconds 30 --json < user-token.txt

The exit status is 0 if every response was right, 1 if one was not, 2 if the command line is
wrong, and 3 if the sidecar does not answer.
""",
    )
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="requests")
    for name, summary, arguments in (
        ("token", "get a token for the application itself", ("target",)),
        ("exchange", "exchange a user's token", ("target", "token")),
        ("introspect", "introspect a token", ("token",)),
    ):
        description = f"Send requests to {summary}, over and over."
        kind = kinds.add_parser(name, help=summary, description=description, allow_abbrev=False)
        if "target" in arguments:
            kind.add_argument("target", help=TOKEN_TARGET_HELP if name == "token" else TARGET_HELP)
        if "token" in arguments:
            kind.add_argument("token", nargs="?", help=TOKEN_HELP)
        if name == "token":
            add_token_details(kind)
        _add_options(kind)
        kind.set_defaults(parser=kind)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=int,
        default=16,
        metavar="N",
        help=f"requests in flight at the same time, at most {_MAX_CONNECTIONS:,} (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="N",
        help=f"duration, at most {_MAX_SECONDS} (default: %(default)g)",
    )
    parser.add_argument("--form", action="store_true", help="send forms instead of JSON")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.add_argument("--allow-remote", action="store_true", help="load a sidecar on another machine")
    parser.add_argument(
        "--probe-url", metavar="URL", help="URL of the listener with /metrics, to show processor time"
    )
    add_sidecar_options(parser)
    add_color_option(parser)
