"""Help for tests of the command line: tokens, standard input, and a server with scripted responses."""

from __future__ import annotations

import base64
import io
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def unsigned(claims: dict[str, Any]) -> str:
    return f"{segment({'alg': 'RS256', 'typ': 'JWT', 'kid': 'k'})}.{segment(claims)}.{segment('sig')}"


def feed_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


class Recorder(HTTPServer):
    """A server with scripted responses; the contract tests cover the responses of a real sidecar."""

    status, body = 200, b"{}"
    seen: list[tuple[str, dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, request: dict[str, Any]) -> None:
        self.server.seen.append((self.path, request))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


def address(peer: Recorder, path: str = "/api") -> str:
    return f"http://127.0.0.1:{peer.server_port}{path}"
