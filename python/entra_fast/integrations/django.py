"""Bearer tokens in Django, for sync and async views.

    MIDDLEWARE = ["entra_fast.integrations.django.EntraIDMiddleware", ...]
    ENTRA_ID = {"exclude": ["/healthz"]}

    @require(Require(role="reader"))
    def cases(request): return JsonResponse({"caller": claims(request).authorized_party})

    class Cases(RequireMixin, View):
        requirement = Require(user=True)

What belongs here: settings, the middleware, and views with requirements of their own. Views that `require` or
`RequireMixin` protect need no CSRF token, because no other site can make a browser send theirs, and no login
in a session: `LoginRequiredMiddleware` leaves them alone.

`ENTRA_ID` can have `validator` (a `Validator` or a `SidecarClient`, a function that makes one, or its
dotted path), `provider`, `require`, `exclude`, `optional`, `realm` and `resource_metadata`: see
`entra_fast.integrations.flask.EntraID`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from entra_fast import _extras

with _extras.importing("django", "entra_fast.integrations.django"):
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.signals import setting_changed
    from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
    from django.http.response import HttpResponseBase
    from django.utils.html import escape
    from django.utils.module_loading import import_string
    from django.views.defaults import ERROR_PAGE_TEMPLATE

from entra_fast import Claims
from entra_fast.integrations._bearer import Incoming, is_preflight
from entra_fast.integrations._guard import SyncGuard, check_is_requirement
from entra_fast.integrations._metadata import HEADERS
from entra_fast.integrations._refusal import Refusal, prefers_html
from entra_fast.require import Require

__all__ = ["EntraIDMiddleware", "RequireMixin", "Verified", "claims", "require", "resource_metadata", "use"]

_OPTIONS = ("validator", "provider", "require", "exclude", "optional", "realm", "resource_metadata")

_View = TypeVar("_View", bound=Callable[..., Any])


class Verified:
    """What `request.entra` is.

    Attributes:
        claims: those of the token; None if none came: the path is excluded, or the token optional.
    """

    __slots__ = ("claims",)

    def __init__(self, claims: Claims | None) -> None:
        self.claims = claims


class EntraIDMiddleware:
    """Requires a token of every request. Place it above middleware that reads sessions, and below that for
    CORS.

    Args:
        get_response: the next middleware or the view.

    Raises:
        ImproperlyConfigured: `ENTRA_ID` is wrong.
        ConfigurationError: a variable is missing or wrong; `setting` names it.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        _ = guard().validator  # a missing setting is found now
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond(request)
        if (metadata := _metadata_for(request)) is not None:
            return metadata
        try:
            admit(request)
        except Refusal as refusal:
            return response(refusal, request)
        answer: HttpResponseBase = self._get_response(request)
        return answer

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        if (metadata := _metadata_for(request)) is not None:
            return metadata
        try:
            await asyncio.to_thread(admit, request)
        except Refusal as refusal:
            return response(refusal, request)
        answer: HttpResponseBase = await self._get_response(request)
        return answer


def claims(request: HttpRequest) -> Claims | None:
    """The claims of the token of a request, as `request.entra.claims`, with their type.

    Args:
        request: Django's or REST framework's request.

    Returns:
        None if none came: the path is excluded, or the token optional.

    Raises:
        RuntimeError: no token was checked for this request.
    """
    verified = getattr(request, "entra", None)
    if isinstance(verified, Verified):
        return verified.claims
    raise RuntimeError(
        "no token was checked for this request: add EntraIDMiddleware, or use require on the view"
    )


def require(requirement: Require) -> Callable[[_View], _View]:
    """Require something of the token at one view, also where there is no middleware.

    Args:
        requirement: what the token must have.

    Returns:
        A decorator for sync and async views.

    Raises:
        TypeError: `requirement` is no `Require`.
    """
    check_is_requirement(requirement, "require()")

    def decorate(view: _View) -> _View:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                admit(request, requirement)
            except Refusal as refusal:
                return response(refusal, request)
            return view(request, *args, **kwargs)

        @functools.wraps(view)
        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                await asyncio.to_thread(admit, request, requirement)
            except Refusal as refusal:
                return response(refusal, request)
            return await view(request, *args, **kwargs)

        made: Any = guarded_async if iscoroutinefunction(view) else guarded
        made.csrf_exempt, made.login_required = True, False
        return made  # type: ignore[no-any-return]

    return decorate


class RequireMixin:
    """Requires something of the token at a class-based view. Stands before `View` among the bases.

    Attributes:
        requirement: what the token must have.
    """

    requirement: ClassVar[Require]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "requirement" in vars(cls):
            check_is_requirement(cls.requirement, f"requirement of {cls.__name__}")

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """The view, protected."""
        if not isinstance(getattr(cls, "requirement", None), Require):
            raise ImproperlyConfigured(f"{cls.__name__} needs requirement = Require(...)")
        view = super().as_view(**initkwargs)  # type: ignore[misc]
        guarded: Any = require(cls.requirement)(view)
        return guarded


def resource_metadata(request: HttpRequest) -> HttpResponse:
    """A view of the metadata of the API (RFC 9728), where the middleware does not run: for the path
    `.well-known/oauth-protected-resource`, followed by the path of the resource if it has one.

    Args:
        request: Django's request.

    Raises:
        Http404: `ENTRA_ID` has no `resource_metadata`, or another path.
    """
    found = _metadata_for(request)
    if found is None:
        raise Http404
    return found


def _metadata_for(request: HttpRequest) -> HttpResponse | None:
    metadata = guard().metadata_for(incoming_of(request))
    if metadata is None:
        return None
    return HttpResponse(metadata, content_type="application/json", headers=HEADERS)


def use(validator: Any) -> AbstractContextManager[None]:
    """Use another validator for the time being, in the whole project: for tests.

    Args:
        validator: any object with `validate`.
    """
    return guard().use(validator)


@functools.cache
def guard() -> SyncGuard:
    """The guard that the settings describe, one for the whole project."""
    options = getattr(settings, "ENTRA_ID", {})
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"ENTRA_ID is a dict, not {type(options).__name__}")
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ImproperlyConfigured(f"ENTRA_ID has no option {unknown[0]!r}; it has {', '.join(_OPTIONS)}")
    others = {name: value for name, value in options.items() if name != "validator"}
    try:
        return SyncGuard("django", _validator(options.get("validator")), **others)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"ENTRA_ID: {error}") from None


def admit(request: HttpRequest, requirement: Require | None = None) -> None:
    """Let a request through, with `request.entra`, or raise `Refusal`. What was verified is not verified
    again."""
    guarding = guard()
    guarding.begin()
    verified = getattr(request, "entra", None)
    if not isinstance(verified, Verified):
        verified = Verified(guarding.admit(incoming_of(request), requirement))
        request.entra = verified  # type: ignore[attr-defined]
        if verified.claims is not None:
            request.csrf_processing_done = True  # type: ignore[attr-defined] # no other site can send the token
        if verified.claims is not None or requirement is None:
            return
    if requirement is not None and not incoming_of(request).preflight:
        guarding.check(verified.claims, requirement, request.path_info)


def response(refusal: Refusal, request: HttpRequest) -> HttpResponse:
    """A refusal: JSON, or a page for browsers."""
    headers = refusal.headers
    if prefers_html(request.headers.get("Accept", "")):
        title = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
        page = ERROR_PAGE_TEMPLATE % {"title": title, "details": escape(refusal.description)}
        return HttpResponse(page, status=refusal.status, headers=headers)
    return JsonResponse(refusal.body, status=refusal.status, headers=headers)


def incoming_of(request: HttpRequest) -> Incoming:
    authorization = request.META.get("HTTP_AUTHORIZATION")
    headers = request.headers
    method = request.method or "GET"
    return Incoming(
        method,
        request.path_info,
        () if authorization is None else (authorization,),
        is_preflight(method, headers.get("Origin"), headers.get("Access-Control-Request-Method")),
    )


def _validator(given: Any) -> Any:
    found = import_string(given) if isinstance(given, str) else given
    return found() if callable(found) else found


def _forget(*, setting: str, **_: object) -> None:
    """Tests change settings."""
    if setting == "ENTRA_ID":
        guard.cache_clear()


setting_changed.connect(_forget)
