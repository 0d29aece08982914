"""The rules of outbound HTTP without a socket: what may be requested, by which way, and what a failure says.
tests/faults/test_http_clients.py has both clients over real sockets."""

from __future__ import annotations

import errno
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from entra_fast._provider import http_rules
from entra_fast._provider.http_rules import (
    HttpFailure,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    Proxy,
    Route,
    form_request,
    get_request,
    json_request,
    not_ok,
    shown_url,
    trusting_context,
)
from entra_fast.errors import ConfigurationError

URL = "https://login.example/t/keys?canary=1"
DIRECT = Route(True, "login.example", 443, None)
THROUGH = Route(True, "login.example", 443, Proxy.at("http://u:canary@proxy.example:3128"))


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 5.0), (2.0, 2.0), (5.0, 5.0), (9.0, 5.0), (0.0, 0.001), (-3.0, 0.001)]
)
def test_a_caller_may_have_less_time_left(given: float | None, seconds: float) -> None:
    """Never more than the client allows, and never none at all: that would mean no limit."""
    assert HttpLimits().overall(given) == seconds
    assert (HttpLimits().connect_timeout, HttpLimits().read_timeout) == (2, 3)
    assert HttpLimits().max_response_bytes == 1 << 20


def test_what_requests_say() -> None:
    """No compression, a name, and what is wanted and sent."""
    both = {"Accept-Encoding": "identity", "User-Agent": "entra-fast"}
    assert get_request(URL, "text/x") == HttpRequest("GET", URL, both | {"Accept": "text/x"})
    form = form_request(URL, {"a": "b c", "ø": "&"}, {"X": "y"})
    assert (form.method, form.url, form.body) == ("POST", URL, b"a=b+c&%C3%B8=%26")
    sent = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    assert form.headers == both | sent | {"X": "y"}
    assert form_request(URL, {}).headers == both | sent
    document = json_request(URL, {"a": [1]})
    assert (document.method, document.url, document.body) == ("POST", URL, b'{"a":[1]}')
    assert document.headers == both | {"Accept": "application/json", "Content-Type": "application/json"}


def test_header_fields_of_the_user_replace_those_of_the_client() -> None:
    """Whatever their case; the rest of the request stays."""
    request = form_request(URL, {"a": "b"})
    changed = request.adding({"user-agent": "mine", "X-Key": "k"})
    assert changed.headers == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/x-www-form-urlencoded",
        "user-agent": "mine",
        "X-Key": "k",
    }
    assert (changed.method, changed.url, changed.body) == (request.method, request.url, request.body)
    assert request.adding({}) is request


@pytest.mark.parametrize(
    ("url", "tls", "port", "shown"),
    [
        ("http://proxy.example", False, 80, "proxy.example:80"),
        ("https://proxy.example", True, 443, "proxy.example:443"),
        ("https://u:p@proxy.example:8443", True, 8443, "proxy.example:8443"),
        ("http://[::1]:3128", False, 3128, "[::1]:3128"),
    ],
)
def test_where_a_web_proxy_is(url: str, tls: bool, port: int, shown: str) -> None:
    """Its user and password are in no text."""
    proxy = Proxy.at(url)
    assert (proxy.url, proxy.tls, proxy.port, str(proxy)) == (url, tls, port, shown)
    assert "u:p" not in repr(proxy)


PROXIES = {"https": "http://proxy.example:1", "http": "http://proxy.example:2"}


@pytest.mark.parametrize(
    ("url", "options", "route"),
    [
        ("https://h.example", {}, (True, "h.example", 443, 1)),
        ("https://h.example:8443/x", {}, (True, "h.example", 8443, 1)),
        ("https://h.example", {"proxies": {}}, (True, "h.example", 443, None)),
        ("http://127.0.0.1", {}, (False, "127.0.0.1", 80, None)),
        (
            "http://127.0.0.1:8080",
            {"proxies": {"always": "http://p.example:3"}},
            (False, "127.0.0.1", 8080, 3),
        ),
        ("http://named.example", {"insecure_hosts": {"named.example"}}, (False, "named.example", 80, None)),
        ("https://named.example", {"insecure_hosts": {"named.example"}}, (True, "named.example", 443, 1)),
        ("http://any.example", {"allow_plain_http": True}, (False, "any.example", 80, 2)),
        ("https://any.example", {"allow_plain_http": True}, (True, "any.example", 443, 1)),
        ("https://[::1]:8443", {"proxies": {}}, (True, "::1", 8443, None)),
    ],
)
def test_the_way_to_a_host(url: str, options: dict[str, Any], route: tuple[object, ...]) -> None:
    """Loopback and named hosts over http are asked directly, unless a proxy is for everything."""
    proxies = options.pop("proxies", PROXIES)
    found = Route.to(url, proxies, **options)
    assert (found.tls, found.host, found.port, found.proxy and found.proxy.port) == route


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://h.example", {}),
        ("http://h.example", {"insecure_hosts": {"named.example"}}),
        ("ftp://h.example", {"allow_plain_http": True}),
        ("httpx://h.example", {"allow_plain_http": True}),
        ("https://" + "x" * 64 + ".example", {}),
        ("https://a..example", {}),
        ("https://u:canary@h.example", {}),
    ],
)
def test_where_no_way_leads(url: str, options: dict[str, Any]) -> None:
    """The sentence does not repeat the URL."""
    with pytest.raises(HttpFailure) as caught:
        Route.to(url, {}, **options)
    assert caught.value.code == "url_not_allowed"
    assert caught.value.message.startswith("the URL ")
    assert "canary" not in caught.value.message


def test_a_route_names_host_and_proxy() -> None:
    """For a CONNECT request the host alone."""
    assert (str(DIRECT), DIRECT.authority) == ("login.example:443", "login.example:443")
    assert str(THROUGH) == "login.example:443 through the proxy proxy.example:3128"
    assert THROUGH.authority == "login.example:443"
    assert Route(True, "::1", 1, None).authority == "[::1]:1"


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (DIRECT.not_resolved(), "dns_failed", "no connection to login.example:443: the host name"),
        (
            THROUGH.not_resolved(),
            "dns_failed",
            "proxy.example:3128: the proxy's host name could not be resolved",
        ),
        (DIRECT.not_connected(OSError(errno.ECONNREFUSED, "canary")), "connect_failed", "Connection refused"),
        (DIRECT.not_connected(OSError("canary")), "connect_failed", "none of its addresses accepted"),
        (DIRECT.not_connected(OSError(-2, "canary")), "connect_failed", "none of its addresses accepted"),
        (DIRECT.not_connected(OSError(0, "canary")), "connect_failed", "none of its addresses accepted"),
        (DIRECT.not_connected(OSError(1, "canary")), "connect_failed", "Operation not permitted"),
        (DIRECT.handshake_cut_off(), "connect_failed", "closed during the TLS handshake"),
        (THROUGH.proxy_refused(407), "connect_failed", "status 407 (Proxy Authentication Required)"),
        (
            THROUGH.proxy_refused(499),
            "connect_failed",
            "proxy.example:3128 refused the connection to login.ex",
        ),
        (DIRECT.connecting_timed_out(2.0), "timed_out", "no connection to login.example:443 within 2 s"),
        (DIRECT.silent(0.0125), "timed_out", "no answer from login.example:443 for 0.0125 s"),
        (DIRECT.timed_out(5.0004), "timed_out", "no complete answer from login.example:443 within 5 s"),
        (DIRECT.redirected(302), "redirected", "(302)"),
        (DIRECT.too_large(1024), "answer_too_large", "more than 1024 bytes"),
        (DIRECT.cut_off(), "answer_incomplete", "closed the connection before its answer was complete"),
        (DIRECT.not_http(), "answer_incomplete", "well-formed HTTP"),
    ],
)
def test_what_a_failure_says(failure: HttpFailure, code: str, sentence: str) -> None:
    """Codes are for metrics, sentences for people: with host, port and proxy, and nothing that was sent."""
    assert failure.code == code
    assert code in http_rules.ERROR_CODES
    assert sentence in failure.message
    assert "canary" not in failure.message


def test_a_status_without_a_name_has_none() -> None:
    """A proxy may make one up."""
    assert THROUGH.proxy_refused(499).message.endswith("with status 499")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"AADSTS90002: no tenant", " (AADSTS90002)"),
        (b'{"x":"AADSTS1"}', " (AADSTS1)"),
        (b"AADSTS123456789", " (AADSTS12345678)"),
        (b"AADSTS", ""),
        (b"canary", ""),
    ],
)
def test_a_document_that_did_not_come(body: bytes, named: str) -> None:
    """Which status came from where, and Entra ID's code; nothing else of the body."""
    said = not_ok(URL, HttpResponse(404, {}, body))
    assert said == f"https://login.example/t/keys answered 404 instead of 200{named}"


def test_a_url_in_a_sentence_is_bounded() -> None:
    """200 characters of it, without query and fragment."""
    base = "https://h.example/"
    longest = base + "x" * (200 - len(base))
    assert shown_url(longest + "?canary#canary") == longest
    assert shown_url(longest + "y") == longest + "..."


def test_frames_of_a_failure_are_forgotten() -> None:
    """Those of its causes too: they hold what was sent."""

    def failing() -> None:
        try:
            try:
                raise ValueError
            except ValueError as inner:
                raise KeyError from inner
        except KeyError:
            raise HttpFailure("timed_out", "no")  # noqa: B904 - its context is a cause, too

    with pytest.raises(HttpFailure) as caught:
        failing()
    error: BaseException | None = caught.value
    http_rules.forget_frames(error)
    seen = []
    while error is not None:
        seen.append(type(error))
        assert error.__traceback__ is None
        error = error.__cause__ or error.__context__
    assert seen == [HttpFailure, KeyError, ValueError]


class _Wrapping(Exception):
    """As aiohttp wraps what OpenSSL says."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("canary")
        self.__dict__.update(attributes)


def _certificate_error(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "canary")
    error.verify_message = message
    return error


def _ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "canary")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_certificate_error("certificate has expired"), "certificate has expired"),
        (_certificate_error(""), "the certificate is not trusted"),
        (_ssl_error("WRONG_VERSION_NUMBER"), "wrong version number"),
        (_Wrapping(certificate_error=_certificate_error("self-signed")), "self-signed"),
        (_Wrapping(os_error=_ssl_error("NO_SHARED_CIPHER")), "no shared cipher"),
        (_Wrapping(), "the handshake failed"),
        (_Wrapping(reason="CANARY"), "the handshake failed"),
        (ssl.SSLError(1, "canary"), "the handshake failed"),
    ],
)
def test_why_tls_failed(error: BaseException, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenSSL says, in words; never the exception's own text."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    failure = DIRECT.tls_failed(error)
    assert failure.code == "tls_failed"
    assert failure.message == f"no TLS connection to login.example:443: {reason}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "{file}", False),
        ("SSL_CERT_FILE", "{directory}", True),
        ("SSL_CERT_FILE", "{directory}/none", True),
        ("SSL_CERT_FILE", "{file}:{file}", True),
        ("SSL_CERT_DIR", "{directory}", False),
        ("SSL_CERT_DIR", "{directory}/none:{directory}", False),
        ("SSL_CERT_DIR", "{directory}/none:{file}", True),
    ],
)
def test_certificates_of_the_environment_that_are_not_there(
    name: str, value: str, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL ignores them, so the sentence says so. One directory of several suffices; a file is one."""
    file = tmp_path / "bundle.pem"
    file.write_text("")
    for each in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value.format(file=file, directory=tmp_path).replace(":", os.pathsep))
    message = DIRECT.tls_failed(_ssl_error("X")).message
    assert message.endswith(f"; {name} names nothing that can be read") is said


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.pem", "No such file or directory"), ("text.pem", "it is not a PEM file of certificates")],
)
def test_a_ca_bundle_that_cannot_be_used(name: str, reason: str, tmp_path: Path) -> None:
    """A mistake in the configuration, which names the file."""
    (tmp_path / "text.pem").write_text("text")
    path = str(tmp_path / name)
    with pytest.raises(ConfigurationError) as caught:
        trusting_context(path)
    error = caught.value
    assert (error.code, error.setting) == ("setting_invalid", "ca_bundle")
    assert error.message == f"the CA bundle '{path}' cannot be used: {reason}"


def test_tls_verifies_names_and_certificates() -> None:
    """Without a bundle the system's authorities are trusted."""
    context = trusting_context(None)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
