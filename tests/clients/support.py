"""What tests of clients in several languages share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from .conftest import APP_A, APP_B, CALLBACK, SCOPE_B, Served


def client_assertion(entra: Served, application: str) -> str:
    """A client assertion for the token endpoint, signed with the application's key."""
    found = entra.local.registry.find(application)
    key = entra.local.credentials.key(found)
    now = int(entra.local.now())
    claims = {
        "iss": found.client_id,
        "sub": found.client_id,
        "aud": f"{entra.authority}/oauth2/v2.0/token",
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + 60,
    }
    return key.sign(json.dumps({"alg": "RS256", "kid": key.kid}).encode(), json.dumps(claims).encode())


def environment(entra: Served, **more: str) -> dict[str, str]:
    """What the programs in other languages read: APP_A is the client, APP_B the target."""
    return {
        **os.environ,
        "TENANT": entra.tenant,
        "ASSERTION": client_assertion(entra, APP_A),
        "ISSUER": entra.issuer,
        "AUTHORITY": entra.authority,
        "CLIENT_ID": entra.client_id(APP_A),
        "CLIENT_SECRET": entra.secret(APP_A),
        "AUDIENCE": entra.client_id(APP_B),
        "SCOPE": SCOPE_B,
        "USER": "ada",
        "REDIRECT_URI": CALLBACK,
        **more,
    }


_NO_NETWORK = ("dial tcp", "lookup", "timeout", "Could not transfer", "Unknown host", "network")


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Skips the tests if packages cannot be fetched: that is the machine's fault."""
    try:
        yield
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} could not be fetched in time")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode("utf-8", "replace")[-500:]
        if any(
            word in said
            for word in ("dial tcp", "lookup", "timeout", "Could not transfer", "Unknown host", "network")
        ):
            pytest.skip(f"{what} could not be fetched: no way to a package registry")
        raise AssertionError(said) from None


def sign_in(browser: requests.Session, url: str, user: str = "ada") -> requests.Response:
    """Fill in the sign-in page at this URL, and follow where it leads, also by a form that posts itself."""
    parts = urlsplit(url)
    page = parts._replace(query="").geturl()
    fields = {**dict(parse_qsl(parts.query)), "username": user}
    answer = browser.post(page, data=fields, timeout=20)
    if answer.url != page:
        return answer
    form = re.search(r'<form[^>]*\baction="([^"]+)"', answer.text)
    assert form is not None, re.findall(r"AADSTS[^<]*", answer.text)
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', answer.text)
    posted = {unescape(name): unescape(value) for name, value in hidden}
    return browser.post(unescape(form[1]), data=posted, timeout=20)


def until_it_answers(process: subprocess.Popen[bytes], url: str, seconds: float) -> None:
    """Wait until a service answers at this URL, its process has ended, or so many seconds have passed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            requests.get(url, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.2)
        else:
            return
