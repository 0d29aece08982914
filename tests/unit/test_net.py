"""URLs, loopback hosts and web proxies."""

from __future__ import annotations

import logging

import pytest

from entra_fast import _net
from entra_fast._net import (
    INSECURE_PROVIDER_HOSTS,
    insecure_provider_hosts,
    is_loopback_host,
    proxies_from,
    proxy_for,
    url_problem,
)
from entra_fast.errors import ConfigurationError


def test_proxies_prefer_lower_case_and_accept_bare_hosts() -> None:
    """As curl and Go read them."""
    assert (
        proxies_from({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://high:1"})["https"]
        == "http://low:1"
    )
    assert proxies_from({"HTTPS_PROXY": "proxy.example:8080"}) == {"https": "http://proxy.example:8080"}
    assert proxies_from({"NO_PROXY": "a,b"}) == {"no": "a,b"}


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://login.microsoftonline.com/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://localhost/x", True),
        ("http://[::1]:1/x", True),
        ("http://login.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://localhost.evil.example/", False),
        ("https://user:password@login.example/", False),
        ("https://login.example/#x", False),
        ("https:///x", False),
        ("https://login.example:99999/", False),
        ("https://login.example/a b", False),
        ("https://login.example/\n", False),
        ("https://løgin.example/", False),
        ("ftp://login.example/", False),
        ("file:///etc/passwd", False),
        ("", False),
        ("https://[::1/", False),
    ],
)
def test_which_urls_may_be_requested(url: str, allowed: bool) -> None:
    """https for any host, http for loopback only; no credentials, fragments or control characters."""
    assert (url_problem(url) is None) is allowed


def test_loopback() -> None:
    """All of 127/8, ::1, their IPv4-mapped forms and localhost; nothing that merely looks like them."""
    loopback = ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")
    assert all(map(is_loopback_host, loopback))
    assert not any(
        map(
            is_loopback_host,
            ("localhost.example", "0.0.0.0", "10.0.0.1", "", "127.1", "::2", "::ffff:10.0.0.1"),
        )
    )


@pytest.mark.parametrize(
    "value",
    [
        "socks5://proxy.example",
        "http://",
        "http://user:hunter2@proxy example:8080",
        "http://proxy.example:99999",
        "http://hunter2:0",
        "http://[::1",
        "hunter2\x07",
    ],
)
def test_a_proxy_that_is_not_an_http_url_is_refused(value: str) -> None:
    """The error names the variable and does not repeat its value, which may hold a password."""
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY must be a URL") as caught:
        proxies_from({"HTTPS_PROXY": value})
    assert caught.value.setting == "HTTPS_PROXY"
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://login.example/", "", True),
        ("https://login.example/", "*", False),
        ("https://login.example/", "login.example", False),
        ("https://login.example/", "LOGIN.example", False),
        ("https://login.example/", "example", False),
        ("https://login.example/", ".example", False),
        ("https://login.example/", "*.example", False),
        ("https://login.example/", "gin.example", True),
        ("https://login.example/", "login.example:443", False),
        ("https://login.example/", "login.example:444", True),
        ("https://login.example:444/", "login.example:444", False),
        ("https://10.1.2.3/", "10.0.0.0/8", False),
        ("https://11.1.2.3/", "10.0.0.0/8, 11.1.2.3", False),
        ("https://11.1.2.4/", "10.0.0.0/8, 11.1.2.3", True),
        ("https://[fd00::1]/", "fd00::/8", False),
        ("https://[fd00::1]/", "[fd00::1]", False),
        ("https://[fd00::1]/", "[fd00::1]:443", False),
        ("https://[fd00::1]/", "[fd00::2]", True),
        ("https://127.0.0.1/", "", False),
        ("https://localhost/", "", False),
        ("http://login.example/", "", False),
        ("https://login.example/", "login.example:²", True),
        ("https://login.example/", ", ,", True),
    ],
)
def test_which_hosts_go_through_the_proxy(url: str, no_proxy: str, proxied: bool) -> None:
    """NO_PROXY: names with their subdomains, ports, addresses, networks. Loopback is always direct."""
    proxies = {"https": "http://proxy.example:8080", "no": no_proxy}
    assert (proxy_for(url, proxies) is not None) is proxied


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://emulator/x", True),
        ("http://emulator:8080/x", True),
        ("http://EMULATOR:8080/x", True),
        ("https://emulator/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://entra.internal:8080/x", True),
        ("http://emulator./x", False),
        ("http://other/x", False),
        ("http://emulator.other/x", False),
        ("http://a.entra.internal/x", False),
        ("http://internal/x", False),
        ("http://emulator@other/x", False),
        ("ftp://emulator/x", False),
    ],
)
def test_plain_http_is_for_the_named_hosts_only(url: str, allowed: bool) -> None:
    """By their exact names, whatever the port; no suffix and no prefix of a name."""
    problem = url_problem(url, insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: "emulator, Entra.Internal"}))
    assert (problem is None) is allowed
    if not allowed and "@" not in url:
        assert problem is not None
        assert INSECURE_PROVIDER_HOSTS in problem


@pytest.mark.parametrize(
    "host",
    [
        "login.microsoftonline.com",
        "LOGIN.microsoftonline.com",
        "login.windows.net",
        "sts.windows.net",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "login.chinacloudapi.cn",
        "contoso.b2clogin.com",
        "contoso.ciamlogin.com",
        "graph.microsoft.com",
        "tokenx.prod-gcp.nav.cloud.nais.io",
        "maskinporten.no",
        "test.maskinporten.no",
        "idporten.no",
        "login.test.idporten.no",
    ],
)
def test_real_providers_are_never_asked_over_plain_http(host: str) -> None:
    """Neither by the setting, which is an error, nor by code that names them past it."""
    with pytest.raises(ConfigurationError) as caught:
        insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: f"emulator,{host}"})
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", INSECURE_PROVIDER_HOSTS)
    assert caught.value.message == (
        f"{INSECURE_PROVIDER_HOSTS} must not name {host.lower()}: it belongs to a real provider, which is "
        "asked over https only"
    )
    for name in (host, f"{host}."):
        assert url_problem(f"http://{name}/x", {name.lower()}) is not None


@pytest.mark.parametrize(
    "text", ["*", "*.internal", ".internal", "emulator:8080", "http://emulator", "a b", "emul\u00e4tor", "-a"]
)
def test_insecure_hosts_are_exact_names(text: str) -> None:
    """No wildcard, no suffix, no port, no URL."""
    with pytest.raises(ConfigurationError) as caught:
        insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: text})
    assert caught.value.message == (
        f"{INSECURE_PROVIDER_HOSTS} must be comma-separated host names, without ports and without wildcards"
    )


def test_insecure_hosts_are_bounded() -> None:
    """Who needs more should use TLS."""
    with pytest.raises(ConfigurationError, match="at most 32 host names"):
        insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: ",".join(f"h{index}" for index in range(33))})


def test_a_program_with_insecure_hosts_logs_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    """It names the setting and the hosts; without the setting there is nothing to say."""
    _net.warn_of_insecure_hosts.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert insecure_provider_hosts({}) == insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: " "}) == set()
        assert caplog.records == []
        for _ in range(3):
            insecure_provider_hosts({INSECURE_PROVIDER_HOSTS: "entra,emulator"})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{INSECURE_PROVIDER_HOSTS}: ")
    assert "emulator, entra. For development only." in record.getMessage()
