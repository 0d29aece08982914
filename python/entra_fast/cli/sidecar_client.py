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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from entra_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from entra_fast._provider.http_rules import HttpResponse

_SIDECAR = "http://127.0.0.1:7164"
TARGET_HELP = "'<cluster>:<namespace>:<app>', or a scope such as 'api://.../.default'"
TOKEN_TARGET_HELP = f"{TARGET_HELP}; for Maskinporten, scopes separated by spaces"
PROVIDER_METAVAR = "PROVIDER"
_MAX_SHOWN_BYTES = 4096
_TIMEOUT_SECONDS = 15.0
"""Longer than the sidecar's own deadline for the provider, retries included."""


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
        return given or os.environ.get(self.variable) or f"{_SIDECAR}{self.path}"


TOKEN = Endpoint("NAIS_TOKEN_ENDPOINT", "/api/v1/token")
EXCHANGE = Endpoint("NAIS_TOKEN_EXCHANGE_ENDPOINT", "/api/v1/token/exchange")
INTROSPECTION = Endpoint("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "/api/v1/introspect")


class AnswerError(CommandError):
    """A server answered with an error.

    Attributes:
        answer: its JSON.
    """

    def __init__(self, status: int, message: str, answer: dict[str, Any]) -> None:
        super().__init__(status, message)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers with JSON objects.

    Attributes:
        what: the kind of server, for errors.
        named: the option or variable that its URL came from.
        ca: a file with certificate authorities to trust in addition to the system's.
        token: a bearer token to send.
    """

    what: str
    named: str
    ca: str | None = None
    token: str | None = None

    def probe(self, url: str) -> HttpResponse:
        """The response to a GET, whatever it is.

        Raises:
            CommandError: there is none.
        """
        return self._send(url, None)

    def get(self, url: str) -> dict[str, Any]:
        """The answer to a GET: see `_ask`."""
        return self._ask(url, None)

    def post(self, url: str, fields: Mapping[str, object]) -> dict[str, Any]:
        """The answer to a POST of a JSON object: see `_ask`."""
        return self._ask(url, fields)

    def _ask(self, url: str, fields: Mapping[str, object] | None) -> dict[str, Any]:
        """
        Raises:
            CommandError: no usable answer was received.
            AnswerError: the answer is an error.
        """
        response = self._send(url, fields)
        parts = urlsplit(url)
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise CommandError(
                UNAVAILABLE,
                f"{parts.netloc} answered {response.status} without a JSON object: not a {self.what}?",
            )
        # A 404 of the provider is passed on as `server_error`.
        if response.status in {404, 405} and answer.get("error") != "server_error":
            raise CommandError(
                UNAVAILABLE,
                f"{parts.netloc} answered {response.status} for {parts.path or '/'}: not a {self.what}?",
            )
        if response.status != 200:
            sentence = ": ".join(
                str(answer[name]) for name in ("error", "error_description") if name in answer
            )
            # From 500 on, a status says nothing about the request. Sentences of Entra ID have line breaks.
            status = UNAVAILABLE if response.status >= 500 else REFUSED
            raise AnswerError(status, f"{response.status} {' '.join(sentence.split())}", answer)
        return answer

    def _send(self, url: str, fields: Mapping[str, object] | None) -> HttpResponse:
        from entra_fast._provider.blocking_http_client import BlockingHttpClient
        from entra_fast._provider.http_rules import HttpFailure, HttpLimits

        # No web proxy: the server runs in the same pod or on the same machine.
        client = BlockingHttpClient(
            HttpLimits(_TIMEOUT_SECONDS, _TIMEOUT_SECONDS, _TIMEOUT_SECONDS),
            ca_bundle=self.ca,
            proxies={},
            allow_plain_http=True,
            headers={} if self.token is None else {"Authorization": f"Bearer {self.token}"},
        )
        try:
            return client.get(url) if fields is None else client.post_json(url, fields)
        except ConfigurationError as error:
            raise CommandError(USAGE, f"--ca: {error.message}") from None
        except HttpFailure as failure:
            if failure.code == "url_not_allowed":
                message = f"{self.named} must be a URL such as {_SIDECAR}, without user name and fragment"
                raise CommandError(USAGE, message) from None
            advice = f": not a {self.what}?"
            if failure.code in {"connect_failed", "dns_failed"}:
                advice = "; start one with 'entra-fast dev', or pass its address with --url"
            elif failure.code in {"timed_out", "tls_failed"}:
                advice = ""
            raise CommandError(
                UNAVAILABLE, f"no answer from a {self.what}: {failure.message}{advice}"
            ) from None


def _token(arguments: argparse.Namespace) -> int:
    return _print_token(arguments, TOKEN, {**_wanted(arguments), **token_details(arguments)})


def token_details(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of --resource and --authorization-details, which the token endpoint alone has.

    Raises:
        CommandError: --authorization-details is not a JSON array.
    """
    fields: dict[str, object] = {}
    if arguments.resource:
        fields["resource"] = arguments.resource
    if arguments.authorization_details is not None:
        try:
            details = json.loads(arguments.authorization_details)
        except (ValueError, RecursionError):
            details = None
        if not isinstance(details, list):
            text = '--authorization-details must be a JSON array of objects, such as \'[{"type": "..."}]\''
            raise CommandError(USAGE, text)
        fields["authorization_details"] = details
    return fields


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
    token = add(
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
    exchange = add(
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
    introspect = add(
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
    health = add(
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
    health.add_argument("--ready", action="store_true", help="ask /readyz, which says what is wrong")
    health.add_argument("--json", action="store_true", help="one JSON object: healthy, status, body")
    health.add_argument("--url", help="URL of the probe listener (default: see above)")
    token.add_argument("target", help=TOKEN_TARGET_HELP)
    exchange.add_argument("target", help=TARGET_HELP)
    for parser in (exchange, introspect):
        parser.add_argument("token", nargs="?", help=TOKEN_HELP)
    for parser in (token, exchange):
        parser.add_argument(
            "--skip-cache", action="store_true", help="fetch a new token, which replaces the cached one"
        )
        parser.add_argument(
            "--claims", metavar="JSON", help="fetch a new token that meets this claims challenge of the API"
        )
        parser.add_argument(
            "--json", action="store_true", help="print the complete response of the sidecar, including errors"
        )
    add_token_details(token)
    introspect.add_argument("--json", action="store_true", help="print errors as JSON, too")
    for parser in (token, exchange, introspect):
        add_sidecar_options(parser)
