"""What is sent: tokens signed for this run, and files of request bodies made of them."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benches import tokens as material
from benches.load.wrk import Shot
from entra_fast.emulator.protocol.private_key import PrivateKey

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
SEEN = 100
"""Tokens that are asked about again and again."""

INTROSPECT, TOKEN, EXCHANGE = "/api/v1/introspect", "/api/v1/token", "/api/v1/token/exchange"
ENTRA_ID, TOKENX, MASKINPORTEN = "entra_id", "tokenx", "maskinporten"
TARGETS = {
    ENTRA_ID: "api://test-cluster.test-namespace.test-app/.default",
    TOKENX: "test-cluster:test-namespace:test-app",
    MASKINPORTEN: "test:namespace/test-app.read",
}


def _sign(work: tuple[dict[str, str], range]) -> list[str]:
    key, serials = PrivateKey(work[0]), work[1]
    now = int(time.time()) - 30
    header = json.dumps({"typ": "JWT", "alg": key.algorithm, "kid": key.kid}, separators=(",", ":")).encode()
    return [
        key.sign(header, json.dumps(material.claims(serial, now), separators=(",", ":")).encode())
        for serial in serials
    ]


def sign(key: PrivateKey, count: int) -> list[str]:
    """This many distinct tokens, valid for an hour; made on all cores, because signing takes the time."""
    chunks = [(key.private_jwk(), range(at, min(at + 1000, count))) for at in range(0, count, 1000)]
    with ProcessPoolExecutor() as pool:
        return [token for part in pool.map(_sign, chunks) for token in part]


def of_unknown_key(token: str) -> str:
    """The token with an unknown key id, so that its signature is never verified."""
    header = json.dumps({"typ": "JWT", "alg": "RS256", "kid": uuid.uuid4().hex}).encode()
    encoded = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    return encoded + token[token.index(".") :]


def body(content_type: str, fields: dict[str, str], provider: str = ENTRA_ID) -> bytes:
    """Fields as clients of the NAIS sidecar send them."""
    fields = {"identity_provider": provider, **fields}
    if content_type == JSON:
        return json.dumps(fields, separators=(",", ":")).encode()
    return urllib.parse.urlencode(fields, safe=":/").encode()


class Traffic:
    """Files of bodies in a directory, made when they are first asked for."""

    def __init__(self, directory: Path, seen: Sequence[str], unseen: Sequence[str]) -> None:
        self._directory = directory
        self._seen = seen
        self._unseen = unseen

    def shot(self, subject: str, content_type: str, provider: str = ENTRA_ID) -> Shot:
        """What is sent to a subject: introspect_seen, introspect_unseen, token or exchange."""
        path = {"token": TOKEN, "exchange": EXCHANGE}.get(subject, INTROSPECT)
        file = self._directory / f"{subject}-{provider}-{content_type.rpartition('/')[2]}"
        if not file.exists():
            fields = self._fields(subject, TARGETS[provider])
            self._write(file, (body(content_type, each, provider) for each in fields))
        return Shot(path, content_type, file, once=subject == "introspect_unseen")

    def _fields(self, subject: str, target: str) -> Iterable[dict[str, str]]:
        match subject:
            case "introspect_seen":
                return ({"token": token} for token in self._seen)
            case "introspect_unseen":
                return ({"token": token} for token in self._unseen)
            case "token":
                return ({"target": target} for _ in range(1))
            case "exchange":
                return ({"target": target, "user_token": token} for token in self._seen)
        raise ValueError(subject)

    @staticmethod
    def _write(file: Path, bodies: Iterable[bytes]) -> None:
        with file.open("wb") as out:
            for line in bodies:
                out.write(line + b"\n")
