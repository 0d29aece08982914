"""Which discovery documents are accepted."""

from __future__ import annotations

import json

import pytest

from entra_fast._provider.discovery_document import DiscoveryError, parse_discovery, parse_key_discovery

GUID = "12345678-1234-1234-1234-123456789abc"


def document(issuer: str, base: str, **changes: object) -> bytes:
    members = {"issuer": issuer, "jwks_uri": f"{base}/keys", "token_endpoint": f"{base}/token", **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def well_known(path: str, base: str = "https://login.example") -> str:
    return f"{base}{path}/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("path", "issuer"),
    [
        (f"/{GUID}/v2.0", f"https://login.example/{GUID}/v2.0"),
        ("/nav.no/v2.0", f"https://login.example/{GUID}/v2.0"),
        ("/organizations/v2.0", "https://login.example/{tenantid}/v2.0"),
        ("/default", "https://login.example/default"),
        ("", "https://login.example"),
        ("", "https://login.example/"),
    ],
)
def test_an_issuer_that_belongs_to_its_url(path: str, issuer: str) -> None:
    """Exactly the URL's beginning, or the tenant's GUID in place of its name."""
    found = parse_discovery(document(issuer, "https://login.example"), well_known(path))
    assert found.issuer == issuer
    assert found.jwks_uri == "https://login.example/keys"


@pytest.mark.parametrize(
    ("path", "issuer"),
    [
        (f"/{GUID}/v2.0", f"https://evil.example/{GUID}/v2.0"),
        (f"/{GUID}/v2.0", f"https://login.example/{GUID.replace('1', '2')}/v2.0"),
        (f"/{GUID}/v2.0", "https://login.example/{tenantid}/v2.0"),
        (f"/{GUID}/v2.0", f"https://login.example/{GUID}"),
        ("/nav.no/v2.0", "https://login.example/other.no/v2.0"),
        ("/nav.no/v2.0", f"https://login.example/{GUID}/v1.0"),
        ("/default", "https://login.example:444/default"),
        ("/default", "http://login.example/default"),
        ("/default", ""),
    ],
)
def test_an_issuer_that_does_not_belong_to_its_url(path: str, issuer: str) -> None:
    """A document of another issuer is refused."""
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(document(issuer, "https://login.example"), well_known(path))
    assert caught.value.code == "discovery_issuer_mismatch"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"jwks_uri": "https://evil.example/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "https://login.example:444/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "http://login.example/keys"}, "discovery_malformed"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "discovery_foreign_host"),
        ({"token_endpoint": "file:///token"}, "discovery_malformed"),
        ({"token_endpoint": None}, "discovery_malformed"),
        ({"jwks_uri": 5}, "discovery_malformed"),
        ({"authorization_endpoint": "https://evil.example/"}, "discovery_foreign_host"),
    ],
)
def test_a_document_with_foreign_endpoints_is_refused(changes: dict[str, object], code: str) -> None:
    """Endpoints must be on the document's own host and https."""
    body = document("https://login.example/t", "https://login.example", **changes)
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(body, well_known("/t"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b"{}", b'{"issuer":"a","issuer":"b"}']
)
def test_a_malformed_document_is_refused(body: bytes) -> None:
    """No crash, one code."""
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(body, well_known("/t"))
    assert caught.value.code == "discovery_malformed"


def test_validating_needs_fewer_endpoints() -> None:
    """Without a token endpoint a document suffices for validating tokens; a foreign one is refused all the
    same."""
    url = well_known("/t")
    alone = document("https://login.example/t", "https://login.example", token_endpoint=None)
    found = parse_key_discovery(alone, url)
    assert (found.issuer, found.jwks_uri) == ("https://login.example/t", "https://login.example/keys")
    with pytest.raises(DiscoveryError):
        parse_discovery(alone, url)
    foreign = document(
        "https://login.example/t", "https://login.example", token_endpoint="https://evil.example/token"
    )
    with pytest.raises(DiscoveryError) as caught:
        parse_key_discovery(foreign, url)
    assert caught.value.code == "discovery_foreign_host"


def test_an_issuer_that_is_no_url_is_refused() -> None:
    """A port that is no number does not stop the check."""
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(document("https://login.example:x/t", "https://login.example"), well_known("/t"))
    assert caught.value.code == "discovery_issuer_mismatch"


def test_a_document_under_another_name() -> None:
    """Of a URL without the well-known suffix only the host can be compared."""
    body = document("https://login.example/anything", "https://login.example")
    assert parse_discovery(body, "https://login.example/metadata").issuer == "https://login.example/anything"
