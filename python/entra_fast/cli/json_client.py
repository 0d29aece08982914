# ruff: noqa: PLC0415 - the HTTP client is imported when something is sent
"""A client for servers that answer with JSON objects: sidecars, and the local Entra ID.

What belongs here: sending a request, and turning an answer that cannot be used into an error of the command
line. What must never be here: what is asked for, and options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from entra_fast.cli.terminal import REFUSED, UNAVAILABLE, USAGE, CommandError
from entra_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from entra_fast._provider.http_rules import HttpResponse

SIDECAR = "http://127.0.0.1:7164"
"""Where `entra-fast dev` and NAIS have the sidecar."""
_TIMEOUT_SECONDS = 15.0
"""Longer than the sidecar's own deadline for the provider, retries included."""


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
        """The answer to a request.

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
                message = f"{self.named} must be a URL such as {SIDECAR}, without user name and fragment"
                raise CommandError(USAGE, message) from None
            advice = f": not a {self.what}?"
            if failure.code in {"connect_failed", "dns_failed"}:
                advice = "; start one with 'entra-fast dev', or pass its address with --url"
            elif failure.code in {"timed_out", "tls_failed"}:
                advice = ""
            raise CommandError(
                UNAVAILABLE, f"no answer from a {self.what}: {failure.message}{advice}"
            ) from None
