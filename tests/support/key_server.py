"""A provider's key set endpoint over a real socket, with scripted responses, in its own threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

KEYS_PATH = "/keys"
DISCOVERY_PATH = "/tenant/v2.0/.well-known/openid-configuration"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. `promised`: a Content-Length that is more than what is sent."""

    body: bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None


class KeyServer:
    """`answers` maps a path to what is answered from now on; `requests` lists the paths that were asked for,
    and `headers` the header fields of each of these requests.

    `hold()` makes requests wait, so that a test decides what happens while one is under way.
    """

    def __init__(self, keys: str | bytes = "") -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = {KEYS_PATH: Answer(keys)}
        self.requests: list[str] = []
        self.headers: list[Message] = []
        self._arrived = threading.Condition()
        self._open = threading.Event()
        self._open.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def keys_url(self) -> str:
        return self.base_url + KEYS_PATH

    @property
    def discovery_url(self) -> str:
        return self.base_url + DISCOVERY_PATH

    @property
    def issuer(self) -> str:
        return f"{self.base_url}/tenant/v2.0"

    def publish(self, keys: str | bytes, **headers: str) -> None:
        """Answer with this key set from now on."""
        self.answers[KEYS_PATH] = Answer(keys, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def fail(self, answer: Answer) -> None:
        """Respond like this from now on."""
        self.answers[KEYS_PATH] = answer

    def fetches(self, path: str = KEYS_PATH) -> int:
        """How often a path was asked for."""
        return self.requests.count(path)

    def wait_for_fetches(self, count: int, path: str = KEYS_PATH) -> None:
        """Return as soon as a path was asked for this often."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.fetches(path) >= count, timeout=60), (
                f"{path} was not fetched"
            )

    def hold(self) -> None:
        """Let requests arrive but not be answered, until `release`."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(outer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with outer._arrived:
                    outer.requests.append(self.path)
                    outer.headers.append(self.headers)
                    outer._arrived.notify_all()
                assert outer._open.wait(60)
                answer = outer.answers.get(self.path, Answer(status=404))
                answer = answer() if callable(answer) else answer
                body = answer.body.encode() if isinstance(answer.body, str) else answer.body
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(answer.promised or len(body)))
                self.send_header("Connection", "close")
                with contextlib.suppress(ConnectionError):  # the client may have given up
                    self.end_headers()
                    self.wfile.write(body)
                self.close_connection = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def finish(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().finish()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler
