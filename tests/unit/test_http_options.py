"""How a caller of the library may have requests made: the bounds of each option. tests/faults has the same
with real requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entra_fast._net import CA_BUNDLE
from entra_fast._provider.http_options import HttpOptions
from entra_fast.errors import ConfigurationError


@pytest.fixture(autouse=True)
def silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing about requests."""
    for name in ("https_proxy", "http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv(CA_BUNDLE, raising=False)


def refused(**options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions(**options)
    assert caught.value.code == "setting_invalid"
    return caught.value


@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "read_timeout"])
def test_bounds_of_times(name: str) -> None:
    """More than none, and at most 300 seconds."""
    for value in (0.001, 1, 300):
        options: dict[str, Any] = {name: value}
        HttpOptions(**options)
    for wrong in (0, -1, 300.1, True, "1", float("nan")):
        error = refused(**{name: wrong})
        assert error.setting == name
        assert error.message == f"{name} must be more than 0 and at most 300 seconds"


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, (2.0, 3.0, 5.0)),
        ({"timeout": 1}, (1, 1, 1)),
        ({"timeout": 60}, (60, 60, 60)),
        ({"timeout": 9, "connect_timeout": 4}, (4, 9, 9)),
        ({"timeout": 9, "read_timeout": 4}, (9, 4, 9)),
        ({"connect_timeout": 7}, (7, 3.0, 7)),
        ({"read_timeout": 8}, (2.0, 8, 8)),
        ({"connect_timeout": 1, "read_timeout": 1}, (1, 1, 5.0)),
    ],
)
def test_the_limits_that_follow(options: dict[str, float], seconds: tuple[float, ...]) -> None:
    """To connect, between two reads, overall: one that is long is no longer than the whole."""
    assert HttpOptions(**options).seconds() == seconds  # type: ignore[arg-type]


def test_bounds_of_header_fields() -> None:
    """32 of them, and 8,192 bytes of names and values together."""
    HttpOptions(headers={f"x{i}": "v" for i in range(32)})
    HttpOptions(headers={"x": "v" * 8191})
    for headers in ({f"x{i}": "v" for i in range(33)}, {"x": "v" * 8192}, {"xy": "v" * 8191}):
        error = refused(headers=headers)
        assert (error.setting, error.message) == ("headers", "headers must be at most 32 and 8192 bytes")


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ([("x", "y")], "must be a mapping of names to values"),
        ({1: "y"}, "must have names of letters, digits and - only"),
        ({"": "y"}, "must have names of letters, digits and - only"),
        ({"a b": "y"}, "must have names of letters, digits and - only"),
        ({"ø": "y"}, "must have names of letters, digits and - only"),
        ({"x": 1}, "must have values of printable ASCII; that of 'x' is not"),
        ({"x": ""}, "must have values of printable ASCII; that of 'x' is not"),
        ({"x": " y"}, "must have values of printable ASCII; that of 'x' is not"),
        ({"x": "y\n"}, "must have values of printable ASCII; that of 'x' is not"),
        ({"x": "ø"}, "must have values of printable ASCII; that of 'x' is not"),
        ({"Host": "y"}, "must not have 'Host', which the client sets itself"),
        ({"x": "y", "X": "z"}, "must have each name once; upper and lower case do not differ"),
    ],
)
def test_header_fields_that_are_refused(headers: Any, sentence: str) -> None:
    """The sentence names the field, and never its value."""
    error = refused(headers=headers)
    assert (error.setting, error.message) == ("headers", f"headers {sentence}")


OURS = [
    *("Accept", "Accept-Encoding", "Connection", "Content-Length", "Content-Type", "Expect", "Host", "TE"),
    *("Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Trailer", "Transfer-Encoding", "Upgrade"),
]


@pytest.mark.parametrize("name", OURS)
def test_header_fields_of_the_client_itself(name: str) -> None:
    """They belong to the connection, or to what is asked for."""
    assert f"'{name}'" in refused(headers={name: "x"}).message


def test_header_fields_are_kept_as_they_are() -> None:
    """A later change of the caller's mapping changes nothing, and nobody can change the options'."""
    given = {"X-Key": "a b\tc", "!#$%&'*+.^_`|~0aZ-": "y"}
    options = HttpOptions(headers=given)
    kept = dict(given)
    given["other"] = "z"
    assert options.headers == kept
    with pytest.raises(TypeError):
        options.headers["other"] = "z"  # type: ignore[index]
    assert HttpOptions().headers == {}
    assert len({options, HttpOptions(headers=kept), HttpOptions()}) == 2


def test_authorities_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, as text or as a path, or else the variable without white space around it."""
    assert HttpOptions().trusted() is None
    monkeypatch.setenv(CA_BUNDLE, "  ")
    assert HttpOptions().trusted() is None
    HttpOptions().check_environment()
    monkeypatch.setenv(CA_BUNDLE, f" {tmp_path}/none.pem ")
    assert HttpOptions().trusted() == f"{tmp_path}/none.pem"
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions().check_environment()
    assert (caught.value.code, caught.value.setting) == ("setting_invalid", CA_BUNDLE)
    assert caught.value.message == (
        f"{CA_BUNDLE} must be the path of a PEM file with certificates: No such file or directory"
    )
    (tmp_path / "text.pem").write_text("text")
    error = refused(ca_bundle=tmp_path / "text.pem")
    assert error.setting == "ca_bundle"
    assert error.message.endswith(": it is not a PEM file of certificates")
    assert refused(ca_bundle=7).message.endswith(": it is not a PEM file of certificates")


def test_web_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment, or the argument for everything, or none."""
    monkeypatch.setenv("HTTPS_PROXY", "http://env.example:1")
    assert HttpOptions().proxies() == {"https": "http://env.example:1"}
    assert HttpOptions(proxy="http://mine.example:2").proxies() == {"always": "http://mine.example:2"}
    assert HttpOptions(proxy=False).proxies() == {}
    error = refused(proxy="canary://h")
    assert error.setting == "proxy"
    assert "canary" not in error.message
    monkeypatch.setenv("HTTPS_PROXY", "canary://h")
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions().check_environment()
    assert caught.value.setting == "HTTPS_PROXY"


def test_hosts_over_plain_http_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in that variable shows when a validator is made."""
    monkeypatch.setenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", "login.microsoftonline.com")
    with pytest.raises(ConfigurationError) as caught:
        HttpOptions().check_environment()
    assert caught.value.setting == "ENTRA_FAST_INSECURE_PROVIDER_HOSTS"
