# ruff: noqa: PLC0415 - each command imports what it runs when it runs
"""The commands that send a request to a running sidecar: token, exchange, introspect, health.

What belongs here: their options, the request, and the exit status that follows from the response.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entra_fast.cli.json_client import SIDECAR, AnswerError, Server
from entra_fast.cli.terminal import (
    OK,
    REFUSED,
    TOKEN_HELP,
    UNAVAILABLE,
    USAGE,
    AddCommand,
    CommandError,
    fail,
    print_json,
    printable,
    read_token,
)

TARGET_HELP = "'<cluster>:<namespace>:<app>', or a scope such as 'api://.../.default'"
TOKEN_TARGET_HELP = f"{TARGET_HELP}; for Maskinporten, scopes separated by spaces"
PROVIDER_METAVAR = "PROVIDER"
_MAX_SHOWN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of a sidecar.

    Attributes:
        variable: the variable in which NAIS tells applications its URL.
        path: where it is at a sidecar.
    """

    variable: str
    path: str

    def url(self, given: str | None) -> str:
        """The URL of --url, that of the variable, or the usual one."""
        return given or os.environ.get(self.variable) or f"{SIDECAR}{self.path}"


TOKEN = Endpoint("NAIS_TOKEN_ENDPOINT", "/api/v1/token")
EXCHANGE = Endpoint("NAIS_TOKEN_EXCHANGE_ENDPOINT", "/api/v1/token/exchange")
INTROSPECTION = Endpoint("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "/api/v1/introspect")


def _token(arguments: argparse.Namespace) -> int:
    return _print_token(arguments, TOKEN, {**_wanted(arguments), **token_details(arguments)})


def token_details(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of --resource and --authorization-details, which the token endpoint alone has.

    Raises:
        CommandError: --authorization-details is not a JSON array of objects.
    """
    fields: dict[str, object] = {}
    if arguments.resource:
        fields["resource"] = arguments.resource
    if arguments.authorization_details is not None:
        fields["authorization_details"] = json_objects(arguments.authorization_details)
    return fields


def json_objects(text: str) -> list[dict[str, object]]:
    """The value of --authorization-details.

    Raises:
        CommandError: it is not a JSON array of objects.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        message = '--authorization-details must be a JSON array of objects, such as \'[{"type": "..."}]\''
        raise CommandError(USAGE, message)
    return found


def add_token_details(parser: argparse.ArgumentParser) -> None:
    """Options of requests for a token of the application itself."""
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="URI",
        help="audience of the token, for Maskinporten; may be repeated",
    )
    parser.add_argument(
        "--authorization-details",
        metavar="JSON",
        help="array of authorization details, for Maskinporten, such as a system user",
    )


def _exchange(arguments: argparse.Namespace) -> int:
    fields = {**_wanted(arguments), "user_token": read_token(arguments.token)}
    return _print_token(arguments, EXCHANGE, fields)


def _wanted(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields that both token endpoints have."""
    fields: dict[str, object] = {"target": arguments.target, "skip_cache": arguments.skip_cache}
    return fields if arguments.claims is None else {**fields, "claims": arguments.claims}


def _introspect(arguments: argparse.Namespace) -> int:
    from entra_fast._native import ERROR_CODES

    fields = {"token": read_token(arguments.token)}
    answer = ask_sidecar(arguments, INTROSPECTION, fields)
    print_json(answer)
    if answer.get("active") is not True:
        _print_remedy(arguments, answer)
    if str(answer.get("error", "")).startswith(ERROR_CODES["keys_unavailable"]):
        return UNAVAILABLE
    return OK if answer.get("active") is True else REFUSED


def _print_remedy(arguments: argparse.Namespace, answer: Mapping[str, Any]) -> None:
    """What to do about a refusal, on standard error, where that is known."""
    from entra_fast.cli.remedies import remedy_of_answer

    advice = remedy_of_answer(arguments.identity_provider, answer)
    if advice is not None:
        print(f"to do: {advice}", file=sys.stderr)


def _health(arguments: argparse.Namespace) -> int:
    path = "/readyz" if arguments.ready else "/healthz"
    named = "--url" if arguments.url else "PROBE_BIND_ADDRESS"
    response = Server("sidecar", named).probe((arguments.url or probe_address()).rstrip("/") + path)
    body = response.body[:_MAX_SHOWN_BYTES].decode("utf-8", "replace").strip()
    if arguments.json:
        print_json({"healthy": response.status == 200, "status": response.status, "body": _parsed(body)})
    else:
        print("\n".join(printable(line) for line in body.splitlines()))
    return OK if response.status == 200 else REFUSED


def _parsed(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def probe_address() -> str:
    """Where a sidecar with this environment has its probes: container and health check have the same."""
    from entra_fast._settings import catalogue
    from entra_fast._settings.reader import Reader

    settings = Reader(os.environ, None)
    address = settings.get(catalogue.PROBE_BIND_ADDRESS) or settings.get(catalogue.BIND_ADDRESS)
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to ask, not to listen on
    return f"http://{address._replace(host=wildcards.get(address.host, address.host))}"


def _print_token(arguments: argparse.Namespace, endpoint: Endpoint, fields: Mapping[str, object]) -> int:
    try:
        answer = ask_sidecar(arguments, endpoint, fields)
    except AnswerError as error:
        if arguments.json:
            print_json(error.answer)
        fail(error.status, str(error))
        _print_remedy(arguments, error.answer)
        return error.status
    if arguments.json:
        print_json(answer)
        return OK
    token = answer.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise CommandError(UNAVAILABLE, "the sidecar's answer has no usable 'access_token'")
    print(token)
    return OK


def ask_sidecar(
    arguments: argparse.Namespace, endpoint: Endpoint, fields: Mapping[str, object]
) -> dict[str, Any]:
    """POST to the sidecar at --url, at the address in the variable that NAIS sets, or at the usual one.

    Raises:
        CommandError: no usable answer was received.
        AnswerError: the answer is an error.
    """
    named = "--url" if arguments.url else endpoint.variable
    return Server("sidecar", named).post(
        endpoint.url(arguments.url), {"identity_provider": arguments.identity_provider, **fields}
    )


def add_sidecar_options(parser: argparse.ArgumentParser) -> None:
    """Which sidecar, and which of its identity providers."""
    parser.add_argument("--url", help="URL of the endpoint (default: that of the variable, or the usual one)")
    parser.add_argument(
        "--provider",
        "--identity-provider",
        dest="identity_provider",
        default="entra_id",
        metavar=PROVIDER_METAVAR,
        help="identity provider: entra_id, maskinporten, tokenx, idporten, ansattporten, or one that "
        "the sidecar's settings name (default: %(default)s)",
    )


def add_commands(add: AddCommand) -> None:
    """Add `token`, `exchange`, `introspect` and `health`."""
    _add_token(add)
    _add_exchange(add)
    _add_introspect(add)
    _add_health(add)


def _add_token(add: AddCommand) -> None:
    parser = add(
        "token",
        _token,
        "get a token from a running sidecar",
        """Get a machine-to-machine token from the sidecar at $NAIS_TOKEN_ENDPOINT (or at
http://127.0.0.1:7164/api/v1/token), and print it.

examples:
  entra-fast token dev-gcp:team-b:app-b
  entra-fast token nav:helse/sykepenger/afp.read --provider maskinporten
  curl -H "Authorization: Bearer $(entra-fast token dev-gcp:team-b:app-b)" http://127.0.0.1:9000/
""",
    )
    parser.add_argument("target", help=TOKEN_TARGET_HELP)
    _add_token_options(parser)
    add_token_details(parser)
    add_sidecar_options(parser)


def _add_exchange(add: AddCommand) -> None:
    parser = add(
        "exchange",
        _exchange,
        "exchange a user's token at a running sidecar",
        """Exchange a user's token for one on behalf of that user, at the sidecar at
$NAIS_TOKEN_EXCHANGE_ENDPOINT (or at http://127.0.0.1:7164/api/v1/token/exchange). The
audience of the user's token must be the sidecar's own application; TokenX takes those of
ID-porten as well.

examples:
  entra-fast exchange dev-gcp:team-b:app-b < user-token.txt
  entra-fast exchange dev-gcp:team-b:app-b --provider tokenx < citizen-token.txt
""",
    )
    parser.add_argument("target", help=TARGET_HELP)
    parser.add_argument("token", nargs="?", help=TOKEN_HELP)
    _add_token_options(parser)
    add_sidecar_options(parser)


def _add_introspect(add: AddCommand) -> None:
    parser = add(
        "introspect",
        _introspect,
        "ask a running sidecar whether a token is valid",
        """Introspect a token at the sidecar at $NAIS_TOKEN_INTROSPECTION_ENDPOINT (or at
http://127.0.0.1:7164/api/v1/introspect), and print the answer as JSON. The exit status is 0
if the token is active, 1 if it is not, and 3 if the sidecar has no keys to verify it with.

examples:
  entra-fast token dev-gcp:team-a:app-a | entra-fast introspect
  entra-fast introspect --provider tokenx < citizen-token.txt
""",
    )
    parser.add_argument("token", nargs="?", help=TOKEN_HELP)
    parser.add_argument("--json", action="store_true", help="print errors as JSON, too")
    add_sidecar_options(parser)


def _add_health(add: AddCommand) -> None:
    parser = add(
        "health",
        _health,
        "ask a running sidecar whether it is healthy",
        """Ask the sidecar at $PROBE_BIND_ADDRESS (or $BIND_ADDRESS) for /healthz, and print its
answer. The exit status is 0 if it is healthy, 1 if it says that it is not, and 3 if it does
not answer. For the health check of a container, which has no curl.

examples:
  entra-fast health
  entra-fast health --ready            # why is it not ready?
""",
    )
    parser.add_argument("--ready", action="store_true", help="ask /readyz, which says what is wrong")
    parser.add_argument("--json", action="store_true", help="one JSON object: healthy, status, body")
    parser.add_argument("--url", help="URL of the probe listener (default: see above)")


def _add_token_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that print a token."""
    parser.add_argument(
        "--skip-cache", action="store_true", help="fetch a new token, which replaces the cached one"
    )
    parser.add_argument(
        "--claims", metavar="JSON", help="fetch a new token that meets this claims challenge of the API"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the complete response of the sidecar, including errors"
    )
