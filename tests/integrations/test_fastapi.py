"""FastAPI on uvicorn: dependencies, what OpenAPI says about them, and the middleware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from entra_fast import Claims, Require
from entra_fast.client import AsyncSidecarClient
from entra_fast.integrations.fastapi import BearerToken, EntraID
from entra_fast.validate import AsyncValidator
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
    async_validator,
    bearer,
    send,
    services,
    token,
    uvicorn_server,
)
from support.key_server import Answer, KeyServer
from support.tokens import ABSENT, AUDIENCE, ISSUER, NOW, jwks, signer

SCOPE = f"api://{AUDIENCE}/cases.read"


def application(entra: EntraID, *, optional: bool = False) -> FastAPI:
    anyone = Annotated[Claims | None, entra(optional=optional)]
    reader = Annotated[Claims, entra(READER)]

    def oid(claims: Claims | None) -> dict[str, str | None]:
        return {"oid": None if claims is None else claims.object_id}

    app = FastAPI(lifespan=entra.lifespan, **entra.swagger())
    router = APIRouter(prefix="/v1")

    # The names of this function's locals cannot be resolved from strings: see the end.
    def cases(who: Any) -> Any:
        return oid(who)

    def reading(who: Any) -> Any:
        return oid(who)

    def step_up(who: Any) -> Any:
        return oid(who)

    async def exchange(who: Any, mine: Any) -> Any:
        return {"oid": who.object_id, "length": len(mine)}

    async def echo(websocket: WebSocket, who: Any) -> None:
        await websocket.accept()
        await websocket.send_text(who.object_id)
        await websocket.close()

    cases.__annotations__ = {"who": anyone}
    reading.__annotations__ = {"who": reader}
    step_up.__annotations__ = {"who": Annotated[Claims, entra(STEP_UP)]}
    exchange.__annotations__ = {"who": reader, "mine": Annotated[BearerToken, entra.token]}
    echo.__annotations__ = {"websocket": WebSocket, "who": reader}

    app.get("/cases")(cases)
    app.head("/cases", include_in_schema=False)(cases)
    app.post("/cases")(cases)
    app.get("/reader")(reading)
    app.get("/step-up")(step_up)
    app.get("/exchange")(exchange)
    router.get("/reader")(reading)
    app.include_router(router)
    app.websocket("/ws")(echo)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, None]:
        return {"oid": None}

    return app


@contextmanager
def serve(service: str) -> Iterator[str]:
    with async_validator(service) as validator:
        optional = service == "optional"
        entra = EntraID(
            validator,
            scopes={"cases.read": "Read cases"},
            client_id=AUDIENCE,
            resource_metadata=METADATA if optional else None,
        )
        with uvicorn_server(application(entra, optional=optional)) as url:
            yield url


@pytest.fixture(scope="module")
def running() -> Iterator[Services]:
    with services(serve) as all_of_them:
        yield all_of_them


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.name)
def test_situations(running: Services, situation: Situation) -> None:
    """Every situation of the table, with dependencies. The body is that of an `HTTPException`."""
    response = running.run(situation)
    if response.status in (400, 401, 403, 503) and situation.method != "HEAD":
        assert set(response.json) == {"detail"}


@pytest.mark.parametrize("value", NON_ASCII)
def test_bytes_that_no_token_has(running: Services, value: bytes) -> None:
    """They are refused and cause no error of ours."""
    running.run_non_ascii(value)


def test_openapi_shows_what_an_operation_requires(running: Services) -> None:
    """An entry of `security` for each alternative, roles in an extension, and the refusals, also in
    routers."""
    document = send(running.urls["normal"], "/openapi.json").json
    for path in ("/reader", "/v1/reader"):
        operation = document["paths"][path]["get"]
        assert operation["security"] == [
            {"EntraID": [SCOPE]},
            {"EntraIDApplication": [f"api://{AUDIENCE}/.default"]},
        ]
        assert operation["x-entra-require"] == READER.describe()
        assert {"200", "401", "403", "503"} <= set(operation["responses"])
        assert operation.get("parameters", []) == []
    assert "security" not in document["paths"]["/healthz"]["get"]
    optional = send(running.urls["optional"], "/openapi.json").json["paths"]["/cases"]["get"]
    assert {} in optional["security"]


def test_openapi_has_a_scheme_for_users_and_one_for_applications(running: Services) -> None:
    """With the scopes as clients ask for them, and no secret."""
    schemes = send(running.urls["normal"], "/openapi.json").json["components"]["securitySchemes"]
    user = schemes["EntraID"]["flows"]["authorizationCode"]
    assert user["scopes"] == {SCOPE: "Read cases"}
    assert user["authorizationUrl"].endswith("/oauth2/v2.0/authorize")
    assert set(schemes["EntraIDApplication"]["flows"]) == {"clientCredentials"}
    page = send(running.urls["normal"], "/docs").body.decode()
    assert '"usePkceWithAuthorizationCodeGrant": true' in page
    assert AUDIENCE in page
    assert "secret" not in page.lower()


def test_openapi_takes_the_addresses_from_the_discovery_document() -> None:
    """Where the provider's paths are others than Entra ID's."""
    document = (
        b'{"authorization_endpoint":"https://login.example/a","token_endpoint":"https://login.example/t"}'
    )
    with KeyServer(jwks(signer())) as server:
        server.answers["/tenant/v2.0/.well-known/openid-configuration"] = Answer(document)
        validator = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        entra = EntraID(validator, discovery_url=server.discovery_url)
        with uvicorn_server(application(entra)) as url:
            server.wait_for_fetches(1, "/tenant/v2.0/.well-known/openid-configuration")
            for _ in range(100):
                flow = entra._user_model().flows.authorizationCode
                assert flow is not None
                if "login.example" in str(flow.authorizationUrl):
                    break
                send(url, "/healthz")
            assert flow is not None
            assert (flow.authorizationUrl, flow.tokenUrl) == (
                "https://login.example/a",
                "https://login.example/t",
            )


def test_the_token_for_on_behalf_of(running: Services) -> None:
    """A dependency gives the verified token itself; without one it refuses."""
    mine = token(roles=["reader"])
    assert send(running.urls["normal"], "/exchange", bearer(mine)).json == {"oid": OID, "length": len(mine)}
    assert send(running.urls["normal"], "/exchange").status == 401


def test_websockets(running: Services) -> None:
    """A dependency refuses a websocket before it is accepted, with a challenge."""
    url = running.urls["normal"].replace("http", "ws") + "/ws"
    with connect(url, additional_headers=dict([bearer(token(roles=["reader"]))])) as websocket:
        assert websocket.recv() == OID
    with pytest.raises(InvalidStatus) as caught, connect(url):
        pass
    assert caught.value.response.status_code == 401
    assert caught.value.response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_the_middleware_covers_documentation_and_mounts() -> None:
    """Dependencies do not. What the middleware has verified is required, not verified again."""
    with async_validator("normal") as validator:
        entra = EntraID(validator, exclude=["/healthz"])
        app = application(entra)
        app.mount("/files", FastAPI())
        app.add_middleware(entra.middleware)
        with uvicorn_server(app) as url:
            for path in ("/docs", "/openapi.json", "/files/a"):
                response = send(url, path)
                assert response.status == 401
                assert set(response.json) == {"detail"}
            assert send(url, "/healthz").status == 200
            assert send(url, "/reader", bearer(token())).status == 403
            assert send(url, "/reader", bearer(token(roles=["reader"]))).json == {"oid": OID}


def test_claims_of_another_object_are_not_reused() -> None:
    """Two objects in one application verify each for themselves: they may trust different providers."""
    with async_validator("normal") as one, async_validator("down") as other:
        first, second = EntraID(one), EntraID(other)
        app = FastAPI()

        async def both(a: Any, b: Any) -> None: ...

        both.__annotations__ = {"a": Annotated[Claims, first()], "b": Annotated[Claims, second()]}
        app.get("/")(both)
        with uvicorn_server(app) as url:
            assert send(url, "/", bearer(token())).status == 503


def test_a_dependency_of_a_whole_application() -> None:
    """`dependencies=[...]` of the application or a router."""
    with async_validator("normal") as validator:
        entra = EntraID(validator)
        app = FastAPI(dependencies=[entra(Require(app=True))])

        @app.get("/")
        async def index() -> str:
            return "in"

        with uvicorn_server(app) as url:
            assert send(url, "/").status == 401
            assert send(url, "/", bearer(token(**USER, scp="x"))).status == 403
            assert send(url, "/", bearer(token())).status == 200


def test_keys_are_fetched_when_the_application_starts() -> None:
    """Not at the first request."""
    with KeyServer(jwks(signer())) as server:
        validator = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        with uvicorn_server(application(EntraID(validator))):
            server.wait_for_fetches(1)


def test_mistakes() -> None:
    """A dependency takes a requirement, and scopes are checked like those of a requirement."""
    with pytest.raises(TypeError, match="takes a Require"):
        EntraID()("reader")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without the URI"):
        EntraID(scopes={"api://x/cases.read": "Read"})


def test_a_sidecar_is_a_validator() -> None:
    """By one argument. See tests/integrations/test_sidecar.py for its answers."""
    entra = EntraID(AsyncSidecarClient("http://127.0.0.1:1/api/v1/introspect"))
    with uvicorn_server(application(entra)) as url:
        assert send(url, "/cases", bearer(token())).status == 503


STRAY = signer("key-2")
READING: dict[str, Any] = {"scp": "cases.read", "idtyp": ABSENT, "roles": ABSENT}
CHECKLIST: dict[str, tuple[Callable[[], str], int, int]] = {
    "a user with the scope": (lambda: token(**READING), 200, 200),
    "no token": (lambda: "", 401, 401),
    "not a token": (lambda: "whatever", 401, 401),
    "a token without a key id": (lambda: signer().token(None, {"kid": ABSENT}, **READING), 401, 200),
    "a key that is not in the key set": (lambda: STRAY.token(**READING), 401, 401),
    "another audience": (lambda: token(**READING, aud="Someone else"), 401, 401),
    "another issuer": (lambda: token(**READING, iss="https://issuer.example"), 401, 401),
    "expired": (lambda: token(**READING, exp=NOW - 3600), 401, 401),
    "not yet valid": (lambda: token(**READING, nbf=NOW + 3600), 401, 401),
    "without an expiry": (lambda: token(**READING, exp=ABSENT), 401, 401),
    "a scope that does not suffice": (lambda: token(**{**READING, "scp": "user_impersonation"}), 403, 403),
    "scopes as a list": (lambda: token(**{**READING, "scp": ["cases.read"]}), 403, 403),
    "an application's own token": (lambda: token(idtyp="app", scp=ABSENT, roles=ABSENT), 403, 403),
    "forged, without the scope": (lambda: STRAY.token(**{**READING, "scp": "other"}), 403, 401),
}
"""What the tests of fastapi-azure-auth expect: a token, their status, and ours. The two differ where theirs
judges claims before the signature, and for a key set of one key, which needs no id."""


@pytest.mark.parametrize("situation", CHECKLIST)
def test_the_checklist_of_a_peer(running: Services, situation: str) -> None:
    """The situations that fastapi-azure-auth tests, with a challenge in each refusal."""
    make, _, expected = CHECKLIST[situation]
    value = make()
    response = send(running.urls["normal"], "/reader", *([bearer(value)] if value else []))
    assert response.status == expected, response.body
    assert (response.headers["WWW-Authenticate"] is None) is (expected == 200)
