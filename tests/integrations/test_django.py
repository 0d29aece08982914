"""Django on gunicorn (WSGI, forked workers) and on uvicorn (ASGI); REST framework on gunicorn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from support.bearer import (
    NON_ASCII,
    OID,
    SITUATIONS,
    USER,
    Services,
    Situation,
    bearer,
    keys,
    send,
    server_process,
    services,
    token,
)

TESTS = Path(__file__).parents[1]
GUNICORN = ("gunicorn", "-w", "1", "--threads", "4", "-b", "127.0.0.1:{port}", "--log-level", "error")
SERVERS = {
    "wsgi": (*GUNICORN, "--preload", "support.django_project:application"),
    "asgi": ("uvicorn", "--port", "{port}", "--log-level", "error", "support.django_project:asgi"),
    "drf": (*GUNICORN, "support.django_project:application"),
}


@contextmanager
def serve(server: str, service: str) -> Iterator[str]:
    environ = {"STYLE": "drf" if server == "drf" else "django"}
    if service == "optional":
        environ["OPTIONAL"] = "yes"
    with keys(service) as url, server_process(SERVERS[server], KEYS_URL=url, **environ) as address:
        yield address


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def running(request: pytest.FixtureRequest) -> Iterator[Services]:
    with services(partial(serve, request.param)) as all_of_them:
        yield all_of_them


@pytest.fixture(scope="module")
def drf() -> Iterator[Services]:
    with services(partial(serve, "drf"), no_store=False) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_situations(running: Services, situation: Situation) -> None:
    """Every situation of the table, with the middleware, a mixin and a decorator."""
    response = running.run(situation)
    if response.status in (400, 401, 403, 503) and situation.method != "HEAD":
        assert response.headers["Content-Type"] == "application/json"
        assert set(response.json) == {"error", "error_description"}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_situations_with_rest_framework(drf: Services, situation: Situation) -> None:
    """Every situation of the table, with authentication and permission classes. The body is the
    framework's."""
    response = drf.run(situation)
    if response.status in (400, 401, 403, 503) and situation.method != "HEAD":
        assert set(response.json) == {"detail"}


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, drf: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)
    drf.run_non_ascii(value)


@pytest.mark.parametrize("path", ["/nothing", "/healthz/", "/healthzx", "//healthz"])
def test_what_is_not_excluded_is_protected(running: Services, path: str) -> None:
    """Unknown paths, too."""
    assert send(running.urls["normal"], path).status == 401


@pytest.mark.parametrize("path", ["/reader-decorator", "/reader-async"])
def test_decorator_and_asynchronous_views(running: Services, path: str) -> None:
    """A function, and a class whose methods are coroutines."""
    assert send(running.urls["normal"], path).status == 401
    assert send(running.urls["normal"], path, bearer(token())).status == 403
    assert send(running.urls["normal"], path, bearer(token(roles=["reader"]))).json == {"oid": OID}


def test_a_post_with_a_token_needs_no_csrf_token(running: Services) -> None:
    """No other site can make a browser send a bearer token. Without one, Django's protection stays."""
    good = bearer(token(roles=["reader"]))
    assert send(running.urls["normal"], "/cases", good, method="POST").status == 200
    assert send(running.urls["normal"], "/reader", good, method="POST").status == 200
    unprotected = send(running.urls["optional"], "/cases", method="POST")
    assert unprotected.status == 403
    assert b"CSRF" in unprotected.body


def test_a_browser_gets_a_page(running: Services) -> None:
    """Its `Accept` names `text/html`."""
    response = send(running.urls["normal"], "/cases", ("Accept", "text/html,*/*;q=0.8"))
    assert response.headers["Content-Type"].startswith("text/html")
    assert "<h1>401 Unauthorized</h1>" in response.body.decode()
    assert response.challenge == {"realm": "api"}


def test_rest_framework_behind_the_middleware(running: Services) -> None:
    """The token is verified once; the views of the framework have the claims as `request.auth`."""
    assert send(running.urls["normal"], "/api", bearer(token())).json == {"oid": OID}
    assert send(running.urls["normal"], "/api").status == 401


def test_a_decorator_without_the_middleware(drf: Services) -> None:
    """It verifies the token itself."""
    assert send(drf.urls["normal"], "/reader-decorator").status == 401
    assert send(drf.urls["normal"], "/reader-decorator", bearer(token())).status == 403
    assert (
        send(drf.urls["normal"], "/reader-decorator", bearer(token(**USER, scp="cases.read"))).status == 200
    )


def test_settings_are_checked_and_tests_can_swap_the_validator() -> None:
    """In a process of its own, because Django's settings are global: tests/support/django_checks.py."""
    command = [sys.executable, "-m", "support.django_checks"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("done\n"), done.stderr
