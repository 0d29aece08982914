"""An application that knows nothing of Entra ID, with the standard library only: an example for any language.

    GET /    with a bearer token: who called, and whether there is a token for app-b, on the user's behalf

It asks its sidecar three things: whether a token is valid, for a token of its own, and for one on behalf of a
user. The addresses are in NAIS_TOKEN_*.
"""

from __future__ import annotations

import http.server
import json
import os
import urllib.error
import urllib.request
from typing import Any

TARGET = "dev-gcp:team-b:app-b"


def ask(variable: str, **fields: str) -> dict[str, Any]:
    """What the sidecar answers at the address in a variable."""
    body = json.dumps({"identity_provider": "entra_id", **fields}).encode()
    request = urllib.request.Request(os.environ[variable], body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    return answer


class Application(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self.answer(401, {"error": "send a bearer token"})
        caller = ask("NAIS_TOKEN_INTROSPECTION_ENDPOINT", token=token)
        if not caller.get("active"):
            return self.answer(401, {"error": caller.get("error", "the token is not valid")})
        if caller.get("idtyp") == "app":
            acquired = ask("NAIS_TOKEN_ENDPOINT", target=TARGET)
        else:
            acquired = ask("NAIS_TOKEN_EXCHANGE_ENDPOINT", target=TARGET, user_token=token)
        if "access_token" not in acquired:
            return self.answer(502, acquired)
        who = {name: caller.get(name) for name in ("azp_name", "preferred_username", "idtyp")}
        return self.answer(200, {"caller": who, "target": TARGET, "expires_in": acquired["expires_in"]})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "3001"))), Application).serve_forever()
