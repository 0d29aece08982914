"""Bearer tokens in FastAPI: a dependency, and *Authorize* in Swagger UI.

    entra = EntraID(scopes={"cases.read": "Read cases"})
    app = FastAPI(lifespan=entra.lifespan, **entra.swagger())
    Reader = Annotated[Claims, entra(Require(scope="cases.read") | Require(app=True, role="reader"))]

    @app.get("/cases")
    async def cases(who: Reader) -> list[Case]: ...

What belongs here: dependencies, security schemes, and what a requirement looks like in OpenAPI. Dependencies
do not cover mounted applications, `/docs` and `/openapi.json`: for those there is the middleware of
`asgi.py`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, NewType

from entra_fast import _extras

with _extras.importing("fastapi", "entra_fast.integrations.fastapi"):
    from fastapi import FastAPI, HTTPException, Security, params
    from fastapi.openapi.models import (
        HTTPBearer,
        OAuth2,
        OAuthFlowAuthorizationCode,
        OAuthFlowClientCredentials,
        OAuthFlows,
    )
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.routing import Route

import orjson

from entra_fast import Claims
from entra_fast._net import provider_url_problem
from entra_fast._provider import transport
from entra_fast._provider.http_options import HttpOptions
from entra_fast._providers import ENTRA_ID
from entra_fast.errors import EntraFastError
from entra_fast.integrations import asgi
from entra_fast.integrations._bearer import Incoming, token_of
from entra_fast.integrations._guard import check_is_requirement
from entra_fast.integrations._metadata import HEADERS, ResourceMetadata
from entra_fast.integrations._refusal import Refusal, full_scope
from entra_fast.integrations._validators import AsyncTokenValidator
from entra_fast.require import Alternative, Require

__all__ = ["BearerToken", "EntraID"]

BearerToken = NewType("BearerToken", str)
"""The verified token itself, to be exchanged for one on behalf of the user. It is a secret: never log it."""

USER_SCHEME: Final = "EntraID"
APP_SCHEME: Final = "EntraIDApplication"
BEARER_SCHEME: Final = "BearerToken"
"""For tokens of other providers, which Swagger UI cannot request."""

_METADATA_ROUTE: Final = "entra_fast_resource_metadata"
_WELL_KNOWN: Final = "/v2.0/.well-known/openid-configuration"
_RESPONSES: Final = {
    400: "The Authorization header cannot be read.",
    401: "The access token is missing or not valid.",
    403: "The access token is valid, but not sufficient.",
    503: "Tokens cannot be verified at the moment.",
}


class EntraID(asgi.EntraID):
    """Requires tokens of operations, and describes them in OpenAPI.

    Args:
        validator: an `AsyncValidator` or an `AsyncSidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, where the validator is from the environment: `tokenx`,
            `["entra_id", "tokenx"]`: see `Validator.from_env`. Maskinporten needs `require`.
        scopes: the application's scopes with their descriptions, for *Authorize* in Swagger UI.
        require: what every token must have, unless an operation names its own requirement; by default any
            access token.
        exclude: paths that need no token, for the middleware.
        optional: let requests without a token through the middleware, with None for claims.
        realm: name of what is protected, for `WWW-Authenticate`.
        resource_metadata: metadata of the API to serve without a token, and to name in challenges (RFC 9728).
        client_id: the application's client id, for the names of its scopes and for *Authorize*; by default
            `AZURE_APP_CLIENT_ID`.
        discovery_url: URL of the provider's discovery document, which says where users sign in; by default
            from `AZURE_APP_WELL_KNOWN_URL` or `AZURE_OPENID_CONFIG_ISSUER`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value.
    """

    _framework = "fastapi"

    def __init__(
        self,
        validator: AsyncTokenValidator | None = None,
        *,
        provider: str | Sequence[str] | None = None,
        scopes: Mapping[str, str] | None = None,
        require: Require | None = None,
        exclude: Iterable[str] = (),
        optional: bool = False,
        realm: str = "api",
        resource_metadata: ResourceMetadata | None = None,
        client_id: str | None = None,
        discovery_url: str | None = None,
    ) -> None:
        super().__init__(
            validator,
            provider=provider,
            require=require,
            exclude=exclude,
            optional=optional,
            realm=realm,
            resource_metadata=resource_metadata,
        )
        self._scopes = dict(scopes or {})
        for scope in self._scopes:
            Require(scope=scope)  # the same rules
        self._client_id = client_id or os.environ.get("AZURE_APP_CLIENT_ID")
        named = (provider,) if isinstance(provider, str) or provider is None else provider
        self._is_entra_id = bool({None, *ENTRA_ID.names} & set(named))
        self._sign_in = _SignIn(discovery_url or _discovery_url(os.environ))
        self._user_scheme = _Scheme(USER_SCHEME, self._user_model)
        self._app_scheme = _Scheme(APP_SCHEME, self._app_model)
        self._bearer_scheme = _Scheme(BEARER_SCHEME, _bearer_model)

    def __call__(self, require: Require | None = None, *, optional: bool = False) -> Any:
        """A dependency that gives the claims of the token: `Annotated[Claims,
        entra(Require(role="reader"))]`.

        Args:
            require: what the token must have; by default what this object requires.
            optional: give None where no token came. A bad token is still refused.

        Returns:
            What `Annotated` takes. Use one for each operation: OpenAPI would show two as alternatives.

        Raises:
            TypeError: an argument has the wrong type.
        """
        if require is not None:
            check_is_requirement(require, "a dependency")
        guarded = _Guarded(self, self._guard.requirement if require is None else require, optional)
        return params.Security(guarded, scopes=guarded.scopes)

    @property
    def token(self) -> Any:
        """A dependency that gives the verified token: `Annotated[BearerToken, entra.token]`."""
        guarded = _Guarded(self, self._guard.requirement, optional=False)

        async def token(
            connection: HTTPConnection, _: Annotated[Claims, params.Security(guarded, scopes=guarded.scopes)]
        ) -> BearerToken:
            return BearerToken(token_of(connection.headers.getlist("authorization")) or "")

        # FastAPI reads annotations; as strings it could not resolve the names of this function.
        token.__annotations__ = {
            "connection": HTTPConnection,
            "_": Annotated[Any, params.Security(guarded, scopes=guarded.scopes)],
            "return": str,
        }
        return params.Depends(token)

    def swagger(self, path: str = "/docs/oauth2-redirect") -> dict[str, Any]:
        """Keyword arguments of `FastAPI`, so that *Authorize* in Swagger UI signs a user in.

        Register the redirect URI (`https://<host>/docs/oauth2-redirect`) as one of a single-page application:
        for others Entra ID redeems no code without a secret (AADSTS9002326).

        Args:
            path: path of the page that the provider redirects to.
        """
        init: dict[str, Any] = {"usePkceWithAuthorizationCodeGrant": True}
        if self._client_id is not None:
            init |= {"clientId": self._client_id, "scopes": " ".join(self._described_scopes())}
        return {"swagger_ui_oauth2_redirect_url": path, "swagger_ui_init_oauth": init}

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Fetch keys while the application runs, describe requirements in its OpenAPI document, and serve
        its metadata: for `lifespan`.

        Args:
            app: the application. FastAPI passes it.
        """
        if isinstance(app, FastAPI) and not isinstance(app.openapi, functools.partial):
            app.openapi = functools.partial(_documented, app, app.openapi)  # type: ignore[method-assign]
        if isinstance(app, FastAPI):
            self._serve_metadata(app)
        async with super().lifespan(app):
            discovery = asyncio.ensure_future(self._sign_in.discover())
            try:
                yield
            finally:
                discovery.cancel()

    def body(self, refusal: Refusal) -> dict[str, str]:
        """The JSON body of a request that the middleware refuses: as that of an `HTTPException`."""
        return {"detail": refusal.description}

    def security(self, requirement: Require) -> list[dict[str, list[str]]]:
        """A requirement as `security` of an OpenAPI operation: an entry for each alternative."""
        if not self._is_entra_id:
            return [{self._bearer_scheme.scheme_name: []}]
        entries: list[dict[str, list[str]]] = []
        for alternative in requirement.alternatives:
            if _is_for_users(alternative):
                scopes = [full_scope(scope, self._client_id) for scope in alternative.scopes]
                entries.append({self._user_scheme.scheme_name: scopes})
            if _is_for_applications(alternative):
                entries.append({self._app_scheme.scheme_name: self._default_scope()})
        return [entry for index, entry in enumerate(entries) if entry not in entries[:index]]

    async def _admit(self, connection: HTTPConnection, requirement: Require, optional: bool) -> Claims | None:
        """The claims of a request or a websocket; those that the middleware has verified are not verified
        again.

        Raises:
            HTTPException: the request is refused. FastAPI sends it for websockets, too, before they are
                accepted.
        """
        scope = connection.scope
        path = asgi.router_path(scope)
        authorization = connection.headers.getlist("authorization")
        try:
            verified: Claims | None = scope.get(self._scope_key)
            if verified is not None:
                self._guard.check(verified, requirement, path)
                return verified
            incoming = Incoming(scope.get("method", "GET"), path, authorization)
            claims = await self._guard.authenticate(incoming, requirement, optional)
        except Refusal as refusal:
            raise HTTPException(refusal.status, refusal.description, refusal.headers) from None
        scope[self._scope_key] = claims
        return claims

    def _serve_metadata(self, app: FastAPI) -> None:
        """A route for the metadata: dependencies cover no path of their own."""
        metadata = self._guard.metadata
        if metadata is None or any(getattr(route, "name", "") == _METADATA_ROUTE for route in app.routes):
            return

        async def serve(request: Request) -> Response:
            body = self._guard.metadata_for(asgi.incoming_of(request.scope))
            return Response(body, headers=HEADERS, media_type="application/json")

        # In front: a route of the application may match any path.
        app.router.routes.insert(0, Route(metadata.path, serve, name=_METADATA_ROUTE))

    def _default_scope(self) -> list[str]:
        """What applications ask for on their own behalf: all that they were granted."""
        return [] if self._client_id is None else [full_scope(".default", self._client_id)]

    def _described_scopes(self) -> dict[str, str]:
        return {full_scope(name, self._client_id): text for name, text in self._scopes.items()}

    def _user_model(self) -> OAuth2:
        flow = OAuthFlowAuthorizationCode(
            authorizationUrl=self._sign_in.authorization_url,
            tokenUrl=self._sign_in.token_url,
            scopes=self._described_scopes(),
        )
        return OAuth2(flows=OAuthFlows(authorizationCode=flow), description="A user signs in.")

    def _app_model(self) -> OAuth2:
        scopes = dict.fromkeys(self._default_scope(), "The roles that were granted to the application")
        flow = OAuthFlowClientCredentials(tokenUrl=self._sign_in.token_url, scopes=scopes)
        return OAuth2(
            flows=OAuthFlows(clientCredentials=flow), description="An application on its own behalf."
        )


def _bearer_model() -> HTTPBearer:
    return HTTPBearer(bearerFormat="JWT", description="An access token.")


class _Scheme(SecurityBase):
    """A security scheme of OpenAPI. It checks nothing: `_Guarded` does."""

    def __init__(self, name: str, model: Callable[[], OAuth2 | HTTPBearer]) -> None:
        self.scheme_name = name
        self._model = model

    @property
    def model(self) -> OAuth2 | HTTPBearer:  # type: ignore[override]
        """Made when the document is rendered: only then are the addresses known."""
        return self._model()

    async def __call__(self) -> None:
        """Nothing: see the class."""


class _Guarded(SecurityBase):
    """The dependency of an operation, and for OpenAPI the first scheme that suffices. A second one is a
    dependency of it: FastAPI solves each at every request, which takes longer than verifying the token.

    Attributes:
        scheme_name: name of the scheme.
        scopes: what it is asked for.
    """

    def __init__(self, entra: EntraID, requirement: Require, optional: bool) -> None:
        self.entra = entra
        self.requirement = requirement
        self.optional = optional
        schemes = _sufficient_schemes(entra, requirement)
        self._scheme, self.scopes = schemes[0]
        self.scheme_name = self._scheme.scheme_name
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("connection", keyword, annotation=HTTPConnection)]
        for scheme, scopes in schemes[1:]:
            annotation: Any = Annotated[None, Security(scheme, scopes=scopes)]
            parameters.append(inspect.Parameter("other", keyword, annotation=annotation))
        self.__signature__ = inspect.Signature(parameters)

    @property
    def model(self) -> OAuth2 | HTTPBearer:  # type: ignore[override]
        """That of the scheme."""
        return self._scheme.model

    async def __call__(self, connection: HTTPConnection, **_: None) -> Claims | None:
        return await self.entra._admit(connection, self.requirement, self.optional)


def _sufficient_schemes(entra: EntraID, requirement: Require) -> list[tuple[_Scheme, list[str]]]:
    """The schemes whose tokens can meet a requirement, with the scopes to ask for: that of users first."""
    if not entra._is_entra_id:
        return [(entra._bearer_scheme, [])]
    found = []
    if users := [one for one in requirement.alternatives if _is_for_users(one)]:
        scopes = dict.fromkeys(full_scope(scope, entra._client_id) for one in users for scope in one.scopes)
        found.append((entra._user_scheme, list(scopes)))
    if any(_is_for_applications(one) for one in requirement.alternatives):
        found.append((entra._app_scheme, entra._default_scope()))
    return found


def _is_for_users(alternative: Alternative) -> bool:
    return alternative.kind != "app"


def _is_for_applications(alternative: Alternative) -> bool:
    """Whether a token without a user can meet it."""
    of_users = (
        alternative.scopes or alternative.groups or alternative.auth_contexts or alternative.acr_at_least
    )
    return alternative.kind != "user" and not of_users


class _SignIn:
    """Where users sign in. Known from the discovery document, and until that is fetched by Entra ID's
    pattern."""

    def __init__(self, discovery_url: str) -> None:
        self._discovery_url = discovery_url
        base = discovery_url.removesuffix(_WELL_KNOWN)
        self.authorization_url = f"{base}/oauth2/v2.0/authorize"
        self.token_url = f"{base}/oauth2/v2.0/token"

    async def discover(self) -> None:
        """Fetch the document. Without it, the pattern stays."""
        try:
            if provider_url_problem(self._discovery_url) is not None:
                return
            http = transport.threaded(HttpOptions())
            try:
                document = orjson.loads((await http.get(self._discovery_url)).body)
            finally:
                await http.aclose()
        except (EntraFastError, ValueError):
            return
        if not isinstance(document, dict):
            return
        found = [document.get(name) for name in ("authorization_endpoint", "token_endpoint")]
        if all(isinstance(url, str) and provider_url_problem(url) is None for url in found):
            self.authorization_url, self.token_url = map(str, found)


def _discovery_url(variables: Mapping[str, str]) -> str:
    issuer = variables.get("AZURE_OPENID_CONFIG_ISSUER", "").removesuffix("/")
    own = f"{issuer}/.well-known/openid-configuration"
    common = f"https://login.microsoftonline.com/organizations{_WELL_KNOWN}"
    return variables.get("AZURE_APP_WELL_KNOWN_URL") or (own if issuer else common)


# --- the OpenAPI document ---


def _documented(app: FastAPI, render: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document, with what FastAPI cannot know about each operation: its requirement and its
    refusals."""
    is_new = app.openapi_schema is None
    document = render()
    if not is_new:
        return document
    for route in _routes(app):
        guarded = _guarded_of(getattr(route, "dependant", None))
        if guarded is None:
            continue
        for method in getattr(route, "methods", None) or ():
            operation = document["paths"].get(getattr(route, "path_format", ""), {}).get(method.lower())
            if operation is None:
                continue
            needs = guarded.entra.security(guarded.requirement)
            operation["security"] = [*needs, {}] if guarded.optional else needs
            operation["x-entra-require"] = guarded.requirement.describe()
            for status, description in _RESPONSES.items():
                operation["responses"].setdefault(str(status), {"description": description})
    return document


def _routes(app: FastAPI) -> Iterator[Any]:
    """The routes as FastAPI documents them: those of included routers with their whole path."""
    from fastapi import routing  # noqa: PLC0415

    contexts = getattr(routing, "iter_route_contexts", None)
    if contexts is None:  # pragma: no cover - releases before it copy included routes into the application
        yield from app.routes
        return
    yield from contexts(app.routes)


def _guarded_of(dependant: Any) -> _Guarded | None:
    if dependant is None:
        return None
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, _Guarded):
            return dependency.call
        if (found := _guarded_of(dependency)) is not None:
            return found
    return None
