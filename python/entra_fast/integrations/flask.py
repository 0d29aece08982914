"""Bearer tokens in Flask.

    entra = EntraID(app, exclude=["/healthz"])    # or EntraID(), and entra.init_app(app) in a factory

    @app.get("/cases")
    @entra.require(Require(role="reader"))
    def cases(): return {"caller": entra.claims.authorized_party}

What belongs here: hooks of an application and of blueprints, and refusals as exceptions of Werkzeug, so that
an application's own error handlers see them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from entra_fast import _extras

with _extras.importing("flask", "entra_fast.integrations.flask"):
    from flask import Blueprint, Flask, Response, current_app, g, request
    from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, ServiceUnavailable, Unauthorized

from entra_fast import Claims
from entra_fast.integrations._bearer import Incoming, is_preflight
from entra_fast.integrations._guard import SyncGuard, check_is_requirement
from entra_fast.integrations._metadata import HEADERS, ResourceMetadata
from entra_fast.integrations._refusal import Refusal, prefers_html
from entra_fast.integrations._validators import TokenValidator
from entra_fast.require import Require

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["EntraID"]

_View = TypeVar("_View", bound=Callable[..., Any])


class EntraID:
    """Requires a token of every request of an application, or of single routes.

    Without an application, only blueprints and routes are protected: those of `protect` and `require`.

    Args:
        app: an application to protect.
        validator: a `Validator` or a `SidecarClient`; by default one from the environment.
        provider: whose tokens are accepted, where the validator is from the environment: `tokenx`,
            `["entra_id", "tokenx"]`: see `Validator.from_env`. Maskinporten needs `require`.
        require: what every token must have; by default any access token.
        exclude: paths that need no token: `/healthz`, `/static/*`. For GET and HEAD.
        optional: let requests without a token through, too, with None for claims. A bad token is still
            refused.
        realm: name of what is protected, for `WWW-Authenticate`.
        resource_metadata: metadata of the API to serve without a token, and to name in challenges (RFC 9728).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a wrong value.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """

    def __init__(
        self,
        app: Flask | None = None,
        validator: TokenValidator | None = None,
        *,
        provider: str | Sequence[str] | None = None,
        require: Require | None = None,
        exclude: Iterable[str] = (),
        optional: bool = False,
        realm: str = "api",
        resource_metadata: ResourceMetadata | None = None,
    ) -> None:
        self._guard = SyncGuard(
            "flask",
            validator,
            provider=provider,
            require=require,
            exclude=exclude,
            optional=optional,
            realm=realm,
            resource_metadata=resource_metadata,
        )
        self._key = f"entra_fast_claims_{id(self)}"
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Protect an application: all of its paths, static files and unknown ones, too.

        Args:
            app: the application.

        Raises:
            ConfigurationError: a variable is missing or wrong; `setting` names it.
        """
        _ = self._guard.validator  # a missing setting is found now
        app.extensions["entra_fast"] = self
        if self._guard.metadata is not None:
            app.before_request(self._describe)
        app.before_request(self._admit)
        app.after_request(_keep_headers)

    def protect(self, blueprint: Blueprint, requirement: Require) -> None:
        """Require something more of the token for all routes of a blueprint.

        Args:
            blueprint: a blueprint that is not registered yet.
            requirement: what the token must have.

        Raises:
            TypeError: `requirement` is no `Require`.
        """
        check_is_requirement(requirement, "protect()")
        blueprint.before_request(functools.partial(self._admit, requirement))
        blueprint.after_request(_keep_headers)

    def require(self, requirement: Require) -> Callable[[_View], _View]:
        """Require something of the token at one route. Stands below `@app.route`.

        Args:
            requirement: what the token must have.

        Returns:
            A decorator.

        Raises:
            TypeError: `requirement` is no `Require`.
        """
        check_is_requirement(requirement, "require()")

        def decorate(view: _View) -> _View:
            @functools.wraps(view)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                self._admit(requirement)
                return current_app.ensure_sync(view)(*args, **kwargs)

            return guarded  # type: ignore[return-value]

        return decorate

    @property
    def claims(self) -> Claims | None:
        """The claims of the token of the current request; None if none came: the path is excluded, or the
        token optional.

        Raises:
            RuntimeError: no token was checked for this request, or there is no request.
        """
        if self._key not in g:
            raise RuntimeError(
                "no token was checked for this request: call init_app, or use require on the route"
            )
        claims: Claims | None = g.get(self._key)
        return claims

    def use(self, validator: Any) -> AbstractContextManager[None]:
        """Use another validator for the time being, in the whole application: for tests.

        Args:
            validator: any object with `validate`, which may return or await claims of any kind.
        """
        return self._guard.use(validator)

    def _describe(self) -> Response | None:
        """A hook: the metadata, if the request is for them."""
        metadata = self._guard.metadata_for(_incoming())
        if metadata is None:
            return None
        return Response(metadata, headers=HEADERS, mimetype="application/json")

    def _admit(self, requirement: Require | None = None) -> None:
        """A hook: raises for a request that is refused."""
        self._guard.begin()
        try:
            if g.get(self._key) is not None:
                if requirement is not None:
                    self._guard.check(g.get(self._key), requirement, request.path)
                return
            if requirement is not None and self._key in g and not _incoming().preflight:
                self._guard.check(None, requirement, request.path)
            setattr(g, self._key, self._guard.admit(_incoming(), requirement))
        except Refusal as refusal:
            g.entra_fast_refusal = refusal
            raise _CLASSES[refusal.status](refusal) from None


class _Refused(HTTPException):
    """A refusal as an exception of Werkzeug: JSON, or a page for browsers."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self._refusal = refusal
        self._is_page = prefers_html(request.headers.get("Accept", ""))

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        kind = "text/html; charset=utf-8" if self._is_page else "application/json"
        return [("Content-Type", kind), *self._refusal.headers.items()]

    def get_body(self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None) -> str:
        if self._is_page:
            return super().get_body(environ, scope)
        return orjson.dumps(self._refusal.body).decode()


class _BadRequest(_Refused, BadRequest): ...


class _Unauthorized(_Refused, Unauthorized): ...


class _Forbidden(_Refused, Forbidden): ...


class _Unavailable(_Refused, ServiceUnavailable): ...


# Flask finds handlers by the class, of which the status is an attribute.
_CLASSES = {400: _BadRequest, 401: _Unauthorized, 403: _Forbidden, 503: _Unavailable}


def _keep_headers(response: Response) -> Response:
    """An error handler of the application may have made another response: the challenge belongs to its
    status."""
    refusal: Refusal | None = g.get("entra_fast_refusal")
    if refusal is not None and response.status_code == refusal.status:
        for name, value in refusal.headers.items():
            response.headers.setdefault(name, value)
    return response


def _incoming() -> Incoming:
    # Each use of the proxy looks up the request: once is enough.
    environ, method = request.environ, request.method
    authorization = environ.get("HTTP_AUTHORIZATION")
    origin, wanted = environ.get("HTTP_ORIGIN"), environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
    return Incoming(
        method,
        request.path,
        () if authorization is None else (authorization,),
        is_preflight(method, origin, wanted),
    )
