"""What a service answers: the same requests to each.

What belongs here: requests, and how an answer is written in a table.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Final

from entra_fast.testing._tokens import TokenMaker

CONSUMER: Final = "dev-gcp:team-a:app-a"
TARGET: Final = "dev-gcp:team-b:app-b"
USER: Final = "ada"

Fields = list[str]


@dataclass(frozen=True)
class Situation:
    """A request.

    Attributes:
        name: for the table.
        fields: the values of `Authorization`.
        expected: what RFC 6750 asks for: the status, and the `error` in the challenge (section 3.1).
        keys: whether the service can fetch keys.
    """

    name: str
    fields: Callable[[TokenMaker], Fields]
    expected: str
    keys: bool = True


def _bearer(kind: str, **claims: object) -> Callable[[TokenMaker], Fields]:
    def fields(tokens: TokenMaker) -> Fields:
        make = tokens if kind == "valid" else getattr(tokens, kind)
        return [f"Bearer {make(CONSUMER, TARGET, USER, **claims)}"]

    return fields


SITUATIONS: Final = (
    Situation("a valid token", _bearer("valid"), "200"),
    Situation("no token", lambda _: [], "401"),
    Situation("another scheme", lambda _: ["Basic dXNlcjpwYXNz"], "401"),
    Situation("a malformed token", _bearer("malformed"), "401 invalid_token"),
    Situation("an expired token", _bearer("expired"), "401 invalid_token"),
    Situation("another audience", _bearer("wrong_audience"), "401 invalid_token"),
    Situation("another issuer", _bearer("wrong_issuer"), "401 invalid_token"),
    Situation("a key that is not published", _bearer("wrong_key"), "401 invalid_token"),
    Situation("a changed signature", _bearer("wrong_signature"), "401 invalid_token"),
    Situation("a missing scope", _bearer("valid", scp="other"), "403 insufficient_scope"),
    Situation("a missing scope, forged", _bearer("wrong_key", scp="other"), "401 invalid_token"),
    Situation("two Authorization fields", lambda t: 2 * _bearer("valid")(t), "400 invalid_request"),
    Situation("no keys", _bearer("valid"), "503", keys=False),
)


def answer(address: tuple[str, int], fields: Fields) -> str:
    """Status and, if the challenge has one, its error; `no answer` where nobody listens."""
    head = ["GET /cases HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Connection: close"]
    head += [f"Authorization: {value}" for value in fields]
    try:
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode("ascii"))
            response = HTTPResponse(connection)
            response.begin()
            response.read()
    except (OSError, HTTPException):
        return "no answer"
    challenge = response.getheader("WWW-Authenticate")
    if challenge is None:
        return f"{response.status}" if response.status in (200, 503) else f"{response.status}, no challenge"
    _, _, error = challenge.partition('error="')
    return f"{response.status} {error.partition(chr(34))[0]}".strip()
