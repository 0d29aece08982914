"""Protected Resource Metadata (RFC 9728): the document, its address, and mistakes in it. The table of
tests/support/bearer.py has how each framework serves it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI

from entra_fast.integrations import ResourceMetadata
from entra_fast.integrations._bearer import Incoming
from entra_fast.integrations._guard import SyncGuard
from entra_fast.integrations.fastapi import EntraID
from support.bearer import METADATA, METADATA_DOCUMENT, METADATA_PATH, send, uvicorn_server
from support.tokens import AUDIENCE, ISSUER, validator


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://a.example", "https://a.example/.well-known/oauth-protected-resource"),
        ("https://a.example/", "https://a.example/.well-known/oauth-protected-resource"),
        ("https://a.example/b", "https://a.example/.well-known/oauth-protected-resource/b"),
        ("https://a.example:8443/b/c/", "https://a.example:8443/.well-known/oauth-protected-resource/b/c"),
        ("http://127.0.0.1:8000/mcp", "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"),
    ],
)
def test_the_address(resource: str, url: str) -> None:
    """The well-known part stands between host and path (RFC 9728, section 3.1)."""
    assert ResourceMetadata(resource=resource, authorization_servers=[ISSUER]).url == url


def test_what_the_environment_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer, and the application of a short scope. What has no value is left out."""
    monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", ISSUER)
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
    made = ResourceMetadata(resource="https://a.example", scopes=["cases.read", "https://b.example/x"])
    assert json.loads(made.body) == {
        "resource": "https://a.example",
        "authorization_servers": [ISSUER],
        "scopes_supported": [f"api://{AUDIENCE}/cases.read", "https://b.example/x"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resource": "http://a.example"}, "resource must be an https URL"),
        ({"resource": "a.example"}, "resource must be an https URL"),
        ({"resource": "https://a.example/?x=1"}, "neither a query nor a fragment"),
        ({"resource": "https://a.example/?"}, "neither a query nor a fragment"),
        ({"resource": "https://a.example/#"}, "neither a query nor a fragment"),
        ({"resource": "https://a.example/%2F"}, "the path of resource"),
        ({"resource": "https://a.example//b"}, "the path of resource"),
        ({"resource": 'https://a".example'}, "http or https URL in ASCII"),
        ({"resource": "https://user@a.example"}, "must not contain a user name"),
        ({"authorization_servers": []}, "authorization_servers is missing"),
        ({"authorization_servers": ["issuer"]}, "authorization_servers must be an https URL"),
        ({"documentation": "page"}, "documentation must be an https URL"),
    ],
)
def test_wrong_values(arguments: dict[str, Any], message: str) -> None:
    """Are errors when it is made."""
    good = {"resource": "https://a.example", "authorization_servers": [ISSUER]}
    with pytest.raises(ValueError, match=message):
        ResourceMetadata(**{**good, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"resource": None},
        {"authorization_servers": ISSUER},
        {"authorization_servers": [None]},
        {"scopes": "cases.read"},
        {"scopes": 1},
        {"documentation": 1},
    ],
)
def test_wrong_types(arguments: dict[str, Any]) -> None:
    """A string is no list of its letters."""
    good: dict[str, Any] = {"resource": "https://a.example", "authorization_servers": [ISSUER]}
    with pytest.raises(TypeError):
        ResourceMetadata(**{**good, **arguments})


def test_there_is_no_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither named nor in the environment."""
    monkeypatch.delenv("AZURE_OPENID_CONFIG_ISSUER", raising=False)
    with pytest.raises(ValueError, match="AZURE_OPENID_CONFIG_ISSUER"):
        ResourceMetadata(resource="https://a.example")


@pytest.mark.parametrize(
    ("method", "path", "served"),
    [
        ("GET", METADATA_PATH, True),
        ("HEAD", METADATA_PATH, True),
        ("POST", METADATA_PATH, False),
        ("OPTIONS", METADATA_PATH, False),
        ("GET", METADATA_PATH + "/", False),
        ("GET", "/.well-known/oauth-protected-resource", False),
    ],
)
def test_which_requests_are_for_it(method: str, path: str, served: bool) -> None:
    """Exactly its path, to read it. Others need a token."""
    guard = SyncGuard("metadata", validator(), resource_metadata=METADATA)
    assert (guard.metadata_for(Incoming(method, path, ())) is not None) is served
    with_none = SyncGuard("metadata", validator())
    assert with_none.metadata_for(Incoming(method, path, ())) is None


def test_an_option_that_is_none() -> None:
    """A dict would lack the checks."""
    with pytest.raises(TypeError, match="ResourceMetadata"):
        SyncGuard("metadata", validator(), resource_metadata={"resource": "https://a.example"})


def test_fastapi_serves_it_in_front_of_other_routes() -> None:
    """Also where a route matches any path; and once, however often the application starts."""
    entra = EntraID(resource_metadata=METADATA)
    app = FastAPI(lifespan=entra.lifespan)

    @app.get("/{anything:path}")
    async def anything() -> str:
        return "anything"

    entra._serve_metadata(app)
    before = len(app.routes)
    entra._serve_metadata(app)
    assert len(app.routes) == before
    with uvicorn_server(app, lifespan="off") as url:
        assert send(url, METADATA_PATH).json == METADATA_DOCUMENT
        assert send(url, "/other").json == "anything"
