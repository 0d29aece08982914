"""Flask on waitress, on Werkzeug's own server, and on gunicorn with forked workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.serving import make_server

from entra_fast import ConfigurationError, Require
from entra_fast.client import SidecarClient
from entra_fast.integrations.flask import EntraID
from entra_fast.validate import Validator
from support.bearer import (
    METADATA,
    NON_ASCII,
    OID,
    READER,
    SITUATIONS,
    STEP_UP,
    USER,
    Services,
    Situation,
    bearer,
    send,
    services,
    sync_validator,
    token,
    waitress_server,
)
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer


def application(entra: EntraID) -> Flask:
    app = Flask(__name__)
    entra.init_app(app)

    def oid() -> ResponseReturnValue:
        claims = entra.claims
        return jsonify({"oid": None if claims is None else claims.object_id})

    @app.route("/cases", methods=["GET", "POST"])
    def cases() -> ResponseReturnValue:
        return oid()

    @app.get("/reader")
    @entra.require(READER)
    def reader() -> ResponseReturnValue:
        return oid()

    @app.get("/step-up")
    @entra.require(STEP_UP)
    def step_up() -> ResponseReturnValue:
        return oid()

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        return oid()

    team = Blueprint("team", __name__, url_prefix="/team")
    entra.protect(team, READER)
    team.get("/cases")(oid)
    app.register_blueprint(team)
    return app


@contextmanager
def serve(service: str) -> Iterator[str]:
    with sync_validator(service) as validator:
        optional = service == "optional"
        metadata = METADATA if optional else None
        entra = EntraID(None, validator, exclude=["/healthz"], optional=optional, resource_metadata=metadata)
        with waitress_server(application(entra)) as url:
            yield url


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    with services(serve) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_situations(running: Services, situation: Situation) -> None:
    """Every situation of the table."""
    response = running.run(situation)
    if response.status in (400, 401, 403, 503) and situation.method != "HEAD":
        assert response.headers["Content-Type"] == "application/json"
        assert set(response.json) == {"error", "error_description"}


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)


def test_a_browser_gets_a_page(running: Services) -> None:
    """Its `Accept` names `text/html`; the challenge is the same."""
    accept = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    response = send(running.urls["normal"], "/cases", accept)
    assert response.status == 401
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>Unauthorized</h1>" in response.body.decode()
    assert "needs an access token" in response.body.decode()
    assert response.challenge == {"realm": "api"}


@pytest.mark.parametrize("path", ["/nothing", "/static/a.css", "/healthz/", "/healthzx"])
def test_what_is_not_excluded_is_protected(running: Services, path: str) -> None:
    """Static files and unknown paths, too."""
    assert send(running.urls["normal"], path).status == 401


def test_an_ordinary_options_request_is_protected(running: Services) -> None:
    """Only a CORS preflight request is let through."""
    assert send(running.urls["normal"], "/cases", method="OPTIONS").status == 401


def test_a_blueprint(running: Services) -> None:
    """Its requirement holds for all of its routes, on top of that of the application."""
    assert send(running.urls["normal"], "/team/cases").status == 401
    assert send(running.urls["normal"], "/team/cases", bearer(token())).status == 403
    assert send(running.urls["normal"], "/team/cases", bearer(token(roles=["reader"]))).json == {"oid": OID}


def test_only_single_routes() -> None:
    """Without `init_app`, a blueprint and a route are protected, and nothing else."""
    with sync_validator("normal") as validator:
        entra = EntraID(validator=validator)
        app, team = Flask(__name__), Blueprint("team", __name__, url_prefix="/team")
        entra.protect(team, READER)

        @team.get("/")
        def index() -> str:
            return entra.claims.object_id or "" if entra.claims else ""

        @app.get("/admin")
        @entra.require(Require(role="admin"))
        async def admin() -> str:
            return "in"

        @app.get("/open")
        def open_to_all() -> str:
            with pytest.raises(RuntimeError, match="no token was checked"):
                _ = entra.claims
            return "in"

        app.register_blueprint(team)
        with waitress_server(app) as url:
            assert send(url, "/open").status == 200
            assert send(url, "/team/").status == 401
            assert send(url, "/team/", bearer(token(roles=["reader"]))).body == OID.encode()
            assert send(url, "/admin").status == 401
            assert send(url, "/admin", bearer(token(roles=["reader"]))).status == 403


def test_error_handlers_of_the_application_keep_the_challenge() -> None:
    """They may make another body; what RFC 6750 demands stays."""
    with sync_validator("normal") as validator:
        app = application(EntraID(validator=validator))

        def own(error: Unauthorized | Forbidden) -> tuple[Response, int]:
            return jsonify({"own": error.description}), error.code or 500

        app.register_error_handler(401, own)
        app.register_error_handler(403, own)
        with waitress_server(app) as url:
            response = send(url, "/cases")
            assert set(response.json) == {"own"}
            assert response.challenge == {"realm": "api"}
            assert response.headers["Cache-Control"] == "no-store"
            assert send(url, "/reader", bearer(token())).challenge["error"] == "insufficient_scope"


def test_another_server() -> None:
    """Werkzeug's own, which joins two fields by a comma, as all do that follow CGI."""
    with sync_validator("normal") as validator:
        server = make_server("127.0.0.1", 0, application(EntraID(validator=validator)), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert send(url, "/cases", bearer(token())).json == {"oid": OID}
            assert send(url, "/cases", bearer(token()), bearer(token())).status == 400
            assert send(url, "/cases", ("Authorization", "Basic dTpw"), bearer(token())).status == 400
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_keys_are_fetched_at_the_first_request_of_any_kind() -> None:
    """A probe is enough, so that no caller waits; nothing is fetched when the application is made."""
    with KeyServer(jwks(signer())) as server:
        validator = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        app = application(EntraID(validator=validator, exclude=["/healthz"]))
        assert server.requests == []
        with waitress_server(app) as url:
            assert send(url, "/healthz").status == 200
            server.wait_for_fetches(1)
        validator.close()


GUNICORN_APP = """
import os
from flask import Flask, jsonify
from entra_fast.integrations.flask import EntraID

app = Flask(__name__)
entra = EntraID(app)

@app.get("/cases")
def cases():
    return jsonify({"oid": entra.claims.object_id, "pid": os.getpid()})
"""


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["workers", "preload"])
def test_forked_workers_fetch_keys_of_their_own(tmp_path: Path, options: list[str]) -> None:
    """gunicorn with several workers, also when the application is loaded before the fork; from the
    environment."""
    (tmp_path / "service.py").write_text(GUNICORN_APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    now = int(time.time())
    mine = token(iat=now, nbf=now, exp=now + 600)
    with KeyServer(jwks(signer())) as keys:
        environ = {
            **os.environ,
            "AZURE_APP_CLIENT_ID": AUDIENCE,
            "AZURE_OPENID_CONFIG_ISSUER": ISSUER,
            "AZURE_OPENID_CONFIG_JWKS_URI": keys.keys_url,
        }
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-w",
            "2",
            "-b",
            f"127.0.0.1:{port}",
            *options,
            "service:app",
        ]
        with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as gunicorn:
            try:
                pids: set[int] = set()
                deadline = time.monotonic() + 60
                while len(pids) < 2:
                    assert time.monotonic() < deadline
                    try:
                        response = send(f"http://127.0.0.1:{port}", "/cases", bearer(mine))
                    except ConnectionError:
                        time.sleep(0.1)
                        continue
                    assert response.status == 200, response
                    pids.add(response.json["pid"])
            finally:
                gunicorn.send_signal(signal.SIGTERM)
        assert gunicorn.pid not in pids


def test_a_missing_setting_is_found_when_the_application_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension itself can be made before its settings are there."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_APP_WELL_KNOWN_URL", "AZURE_OPENID_CONFIG_ISSUER"):
        monkeypatch.delenv(name, raising=False)
    entra = EntraID()
    with pytest.raises(ConfigurationError):
        entra.init_app(Flask(__name__))
    # Complete, but only with the discovery document: it is not fetched now.
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
    monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", "http://127.0.0.1:1/.well-known/openid-configuration")
    app = Flask(__name__)
    EntraID(app)
    response = app.test_client().get("/", headers=dict([bearer(token())]))
    assert response.status_code == 503
    assert json.loads(response.data)["error"] == "temporarily_unavailable"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"exclude": "/healthz"}, TypeError),
        ({"require": "reader"}, TypeError),
        ({"validator": object()}, TypeError),
    ],
)
def test_wiring_mistakes_are_found_at_once(arguments: dict[str, Any], kind: type[Exception]) -> None:
    """When the object is made, and when a route or a blueprint is wired."""
    with pytest.raises(kind):
        EntraID(**arguments)
    for wire in (EntraID().require, lambda one: EntraID().protect(Blueprint("b", __name__), one)):
        with pytest.raises(TypeError, match="takes a Require"):
            wire("reader")  # type: ignore[arg-type]


def test_another_validator_for_a_test_and_a_sidecar() -> None:
    """A sidecar is a validator, and `use` swaps one for the time being."""
    entra = EntraID(validator=SidecarClient("http://127.0.0.1:1/introspect"))
    client = application(entra).test_client()
    headers = dict([bearer(token(**USER, scp="x"))])
    assert client.get("/cases", headers=headers).status_code == 503
    with sync_validator("normal") as validator, entra.use(validator):
        assert client.get("/cases", headers=headers).status_code == 200
    assert client.get("/cases", headers=headers).status_code == 503
