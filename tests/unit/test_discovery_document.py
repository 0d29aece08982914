"""Which discovery documents are accepted."""

from __future__ import annotations

import json

import pytest

from entra_fast._provider.discovery_document import (
    DiscoveryError,
    parse_discovery,
    parse_endpoints,
    parse_key_discovery,
)

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
        ("/nav.no/v2.0", "https://login.example/{tenantid}/v2.0"),
        (f"/{GUID}/v2.0", f"https://login.example/{GUID}/V2.0"),
        # That a name stands for an id is Entra ID's way, and that of no other provider.
        ("/acme", f"https://login.example/{GUID}"),
        ("/common", "https://login.example/{tenantid}"),
        (f"/{GUID}", f"https://login.example/{GUID.upper()}"),
        ("/realms/acme", f"https://login.example/realms/{GUID}"),
        ("/default", "https://login.example:444/default"),
        ("/default", "http://login.example/default"),
        ("/default", "https://login.example/default?tenant=other"),
        ("/default", "https://login.example/default#other"),
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
        ({"authorization_endpoint": "javascript:alert(1)"}, "discovery_malformed"),
        ({"end_session_endpoint": 5}, "discovery_malformed"),
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


TENANT_B = "99999999-1234-1234-1234-123456789abc"
MICROSOFT = "https://login.microsoftonline.com"
B2C, CIAM = "https://contoso.b2clogin.com", "https://contoso.ciamlogin.com"
CHINA, CHINA_ALIAS = "https://login.partner.microsoftonline.cn", "https://login.chinacloudapi.cn"


@pytest.mark.parametrize(
    ("url", "issuer", "endpoints"),
    [
        (f"{MICROSOFT}/{GUID.upper()}/v2.0", f"{MICROSOFT}/{GUID}/v2.0", MICROSOFT),
        (f"{MICROSOFT}/contoso.com/v2.0", f"{MICROSOFT}/{GUID}/v2.0", MICROSOFT),
        (f"{MICROSOFT}/common/v2.0", f"{MICROSOFT}/{{tenantid}}/v2.0", MICROSOFT),
        (f"{MICROSOFT}/organizations/v2.0", f"{MICROSOFT}/{{tenantid}}/v2.0", MICROSOFT),
        (f"{MICROSOFT}/{GUID}", f"https://sts.windows.net/{GUID}/", MICROSOFT),
        (f"{MICROSOFT}/contoso.com", f"https://sts.windows.net/{GUID}/", MICROSOFT),
        (f"{MICROSOFT}/common", "https://sts.windows.net/{tenantid}/", MICROSOFT),
        (f"https://sts.windows.net/{GUID}", f"https://sts.windows.net/{GUID}/", MICROSOFT),
        (f"{CIAM}/{GUID}/v2.0", f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", f"{CIAM}/{GUID}"),
        (f"{CIAM}/contoso.com/v2.0", f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", f"{CIAM}/{GUID}"),
        (f"{B2C}/{GUID}/B2C_1_sign_in/v2.0", f"{B2C}/{GUID}/v2.0/", B2C),
        (f"{B2C}/contoso.onmicrosoft.com/B2C_1_sign_in/v2.0", f"{B2C}/{GUID}/v2.0/", B2C),
        (f"{B2C}/contoso.onmicrosoft.com/B2C_1_x/v2.0", f"{B2C}/tfp/{GUID}/b2c_1_x/v2.0/", B2C),
        (f"{B2C}/tfp/contoso.onmicrosoft.com/B2C_1_x/v2.0", f"{B2C}/tfp/{GUID}/b2c_1_x/v2.0/", B2C),
        (f"{B2C}/tfp/contoso.onmicrosoft.com/B2C_1_x/v2.0", f"{B2C}/{GUID}/v2.0/", B2C),
        (
            f"https://login.contoso.com/{GUID}/B2C_1A_X/v2.0",
            f"https://login.contoso.com/{GUID}/v2.0",
            "https://login.contoso.com",
        ),
        (
            "https://login.microsoftonline.us/common/v2.0",
            "https://login.microsoftonline.us/{tenantid}/v2.0",
            "https://login.microsoftonline.us",
        ),
        (f"{CHINA}/{GUID}/v2.0", f"{CHINA}/{GUID}/v2.0", CHINA),
        (f"{CHINA_ALIAS}/{GUID}/v2.0", f"{CHINA}/{GUID}/v2.0", CHINA),
        (f"{CHINA_ALIAS}/{GUID}/v2.0", f"{CHINA}/{GUID}/v2.0", CHINA_ALIAS),
        ("https://contoso.auth0.com", "https://contoso.auth0.com/", "https://contoso.auth0.com"),
    ],
)
def test_documents_as_they_really_are(url: str, issuer: str, endpoints: str) -> None:
    """Entra ID v2.0 and v1.0, External ID, B2C and the national clouds, as Microsoft publishes them."""
    found = parse_discovery(document(issuer, endpoints), f"{url}/.well-known/openid-configuration")
    assert (found.issuer, found.jwks_uri) == (issuer, f"{endpoints}/keys")


@pytest.mark.parametrize("policy", ["B2C_1_sign_in", "b2c_1_SIGN_IN"])
@pytest.mark.parametrize("path", [f"/{GUID}/v2.0/", f"/{GUID}/v2.0", f"/tfp/{GUID}/b2c_1_sign_in/v2.0/"])
def test_the_policy_of_b2c_may_be_a_parameter(policy: str, path: str) -> None:
    """`?p=<policy>` is the older form of the URL."""
    url = f"{B2C}/contoso.onmicrosoft.com/v2.0/.well-known/openid-configuration?p={policy}"
    assert parse_discovery(document(B2C + path, B2C), url).issuer == B2C + path


@pytest.mark.parametrize(
    ("url", "issuer", "endpoints"),
    [
        (f"{MICROSOFT}/{GUID}/v2.0", f"https://sts.windows.net/{GUID}/", MICROSOFT),
        (f"{MICROSOFT}/{GUID}", f"https://sts.windows.net/{TENANT_B}/", MICROSOFT),
        (f"https://login.example/{GUID}", f"https://sts.windows.net/{GUID}/", "https://login.example"),
        (f"https://sts.windows.net/{GUID}", f"{MICROSOFT}/{GUID}/", MICROSOFT),
        (f"http://sts.windows.net/{GUID}", f"https://sts.windows.net/{GUID}/", MICROSOFT),
        (f"{CIAM}/{GUID}/v2.0", f"https://{TENANT_B}.ciamlogin.com/{TENANT_B}/v2.0", f"{CIAM}/{GUID}"),
        (f"{CIAM}/{GUID}/v2.0", f"https://{GUID}.ciamlogin.com/{TENANT_B}/v2.0", f"{CIAM}/{GUID}"),
        (f"{CIAM}/contoso.com/v2.0", f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", f"{CIAM}/{TENANT_B}"),
        (f"{CIAM}/contoso.com/v2.0", f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", CIAM),
        (f"{CIAM}/{GUID}/v2.0", f"https://other.ciamlogin.com/{GUID}/v2.0", f"{CIAM}/{GUID}"),
        (f"{CIAM}/{GUID}", f"https://{GUID}.ciamlogin.com/{GUID}/v2.0", f"{CIAM}/{GUID}"),
        (
            f"https://evilciamlogin.com/{GUID}/v2.0",
            f"https://{GUID}.ciamlogin.com/{GUID}/v2.0",
            f"https://evilciamlogin.com/{GUID}",
        ),
        (f"{B2C}/{GUID}/B2C_1_a/v2.0", f"{B2C}/tfp/{GUID}/B2C_1_b/v2.0/", B2C),
        (f"{B2C}/{GUID}/B2C_1_a/v2.0", f"{B2C}/{TENANT_B}/v2.0/", B2C),
        (f"{B2C}/{GUID}/B2C_1_a/v2.0", f"https://other.b2clogin.com/{GUID}/v2.0/", B2C),
        (
            f"https://login.example/{GUID}/anything/v2.0",
            f"https://login.example/{GUID}/v2.0",
            "https://login.example",
        ),
        (f"{CHINA}/{GUID}/v2.0", f"{CHINA_ALIAS}/{GUID}/v2.0", CHINA),
    ],
)
def test_documents_that_only_resemble_real_ones(url: str, issuer: str, endpoints: str) -> None:
    """Another tenant, another policy, another host, or the hosts the other way round."""
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(document(issuer, endpoints), f"{url}/.well-known/openid-configuration")
    assert caught.value.code == "discovery_issuer_mismatch"


@pytest.mark.parametrize(
    "url",
    [
        "https://as.example/.well-known/oauth-authorization-server/tenant/a",
        "https://as.example/tenant/a/.well-known/oauth-authorization-server",
        "https://as.example/.well-known/openid-configuration/tenant/a",
    ],
)
def test_documents_of_rfc_8414(url: str) -> None:
    """The well-known part stands between host and path (section 3.1), or behind it as in Entra ID."""
    found = parse_discovery(document("https://as.example/tenant/a", "https://as.example"), url)
    assert found.issuer == "https://as.example/tenant/a"
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(document("https://as.example/tenant/b", "https://as.example"), url)
    assert caught.value.code == "discovery_issuer_mismatch"


def test_pages_for_browsers_may_be_anywhere() -> None:
    """Nothing here calls them: B2C with a custom domain has its sign-in pages there."""
    pages = {
        "authorization_endpoint": "https://login.other/a",
        "end_session_endpoint": "https://login.other/e",
    }
    found = parse_discovery(
        document("https://login.example/t", "https://login.example", **pages), well_known("/t")
    )
    assert (found.authorization_endpoint, found.end_session_endpoint) == tuple(pages.values())


def test_an_issuer_that_the_user_names() -> None:
    """Only the endpoints are taken from the document then, and they must still be on its host."""
    body = document("https://any.example/x", "https://login.example")
    found = parse_discovery(body, well_known("/t"), issuer="https://named.example")
    assert (found.issuer, found.jwks_uri) == ("https://named.example", "https://login.example/keys")
    assert (
        parse_key_discovery(body, well_known("/t"), issuer="https://named.example").issuer
        == "https://named.example"
    )
    with pytest.raises(DiscoveryError) as caught:
        parse_discovery(body, well_known("/t", "https://other.example"), issuer="https://named.example")
    assert caught.value.code == "discovery_foreign_host"


def test_a_document_over_plain_http_names_endpoints_over_plain_http() -> None:
    """Allowing it for a host of a private network allows it for the endpoints there, and no others."""
    base = "http://idp.internal:8080"
    body = document(f"{base}/t", base, authorization_endpoint=f"{base}/authorize")
    found = parse_discovery(body, well_known("/t", base))
    assert (found.jwks_uri, found.authorization_endpoint) == (f"{base}/keys", f"{base}/authorize")
    for changes in ({"jwks_uri": "http://other.internal/keys"}, {"authorization_endpoint": "http://other/a"}):
        with pytest.raises(DiscoveryError) as caught:
            parse_discovery(document(f"{base}/t", base, **changes), well_known("/t", base))
        assert caught.value.code == "discovery_malformed"


@pytest.mark.parametrize(
    ("base", "accepted"),
    [
        ("http://idp.internal:8080", True),
        ("http://localhost:8080", True),
        ("https://localhost:8443", True),
        ("https://login.microsoftonline.us", True),
        ("https://idp.internal", False),
        ("https://notmicrosoftonline.us", False),
    ],
)
def test_where_a_v1_document_may_name_a_tenant_by_its_id(base: str, accepted: bool) -> None:
    """At Entra ID and at a local one: nowhere else does an id stand for a name."""
    body, url = document(f"{base}/{GUID}", base), well_known("/contoso.com", base)
    if accepted:
        assert parse_discovery(body, url).issuer == f"{base}/{GUID}"
    else:
        with pytest.raises(DiscoveryError) as caught:
            parse_discovery(body, url)
        assert caught.value.code == "discovery_issuer_mismatch"


def test_only_endpoints_that_are_called_must_be_on_the_document_s_host() -> None:
    """Others may be anywhere, absent or wrong: no request is sent there."""
    body = json.dumps(
        {
            "issuer": "https://idporten.example",
            "jwks_uri": "https://idporten.example/jwks.json",
            "token_endpoint": "https://elsewhere.example/token",
            "authorization_endpoint": "https://login.idporten.example/authorize",
        }
    ).encode()
    url = "https://idporten.example/.well-known/openid-configuration"
    issuer, found = parse_endpoints(body, url, ["jwks_uri"])
    assert issuer == "https://idporten.example"
    assert found == {"jwks_uri": "https://idporten.example/jwks.json"}
    assert parse_endpoints(b'{"issuer":"https://idporten.example","jwks_uri":5}', url, []) == (issuer, {})
    for called, code in ((["token_endpoint"], "foreign_host"), (["jwks_uri", "other"], "malformed")):
        with pytest.raises(DiscoveryError) as caught:
            parse_endpoints(body, url, called)
        assert caught.value.code == f"discovery_{code}"


@pytest.mark.parametrize("host", ["https://maskinporten.no", "https://test.maskinporten.no"])
def test_maskinporten_s_issuer_keeps_its_slash(host: str) -> None:
    """It is compared with tokens as it stands (RFC 8414, section 3.3, for the URL)."""
    body = json.dumps(
        {"issuer": f"{host}/", "jwks_uri": f"{host}/jwk", "token_endpoint": f"{host}/token"}
    ).encode()
    url = f"{host}/.well-known/oauth-authorization-server"
    issuer, found = parse_endpoints(body, url, ["jwks_uri", "token_endpoint"])
    assert (issuer, found["token_endpoint"]) == (f"{host}/", f"{host}/token")


@pytest.mark.parametrize(
    ("url", "issuer"),
    [
        ("https://maskinporten.no/.well-known/oauth-authorization-server", "https://maskinporten.no/"),
        (
            "https://tokenx.dev-gcp.nav.cloud.nais.io/.well-known/oauth-authorization-server",
            "https://tokenx.dev-gcp.nav.cloud.nais.io",
        ),
        ("https://idporten.no/.well-known/openid-configuration", "https://idporten.no"),
        (
            "http://localhost:8080/tokenx/.well-known/oauth-authorization-server",
            "http://localhost:8080/tokenx",
        ),
        ("https://as.example/.well-known/oauth-authorization-server/tenant/a", "https://as.example/tenant/a"),
        ("https://as.example/.well-known/openid-configuration/tenant", "https://as.example/tenant"),
    ],
)
def test_documents_of_other_providers(url: str, issuer: str) -> None:
    """At either of the two places where RFC 8414 and OpenID Connect Discovery put the well-known part. The
    issuer is that of the URL (RFC 8414, section 3.3)."""
    base = issuer.rstrip("/")
    assert parse_key_discovery(document(issuer, base, token_endpoint=None), url).issuer == issuer
    for other in (f"{base}/other", f"{base}x", base.replace("://", "://evil.")):
        with pytest.raises(DiscoveryError) as caught:
            parse_key_discovery(document(other, base), url)
        assert caught.value.code == "discovery_issuer_mismatch"


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:8080", "https://localhost", "https://login.microsoftonline.us"]
)
def test_a_v1_document_of_a_tenants_name(base: str) -> None:
    """At Entra ID and at a local one, a name stands for the id."""
    found = parse_discovery(document(f"{base}/{GUID}/", base), well_known("/contoso.com", base))
    assert found.issuer == f"{base}/{GUID}/"
