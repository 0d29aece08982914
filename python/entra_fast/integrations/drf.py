"""Bearer tokens in Django REST framework.

    REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["entra_fast.integrations.drf.EntraIDAuthentication"]}

    class Cases(APIView):
        permission_classes = [needs(Require(scope="cases.read"))]
        def get(self, request): return Response({"caller": claims(request).authorized_party})

What belongs here: authentication and permission classes. Settings are those of `django.py` (`ENTRA_ID`), and
where its middleware runs, too, a token is verified once.

The framework takes `WWW-Authenticate` of a request without a token from the **first** authentication class,
and makes 403 of 401 where that has none: `EntraIDAuthentication` stands first. A system check warns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from entra_fast import _extras

with _extras.importing("drf", "entra_fast.integrations.drf"):
    from django.core.checks import CheckMessage, Warning, register
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import APIException
    from rest_framework.permissions import BasePermission
    from rest_framework.request import Request
    from rest_framework.settings import api_settings

from entra_fast import Claims
from entra_fast.integrations import django
from entra_fast.integrations._bearer import is_preflight
from entra_fast.integrations._guard import check_is_requirement
from entra_fast.integrations._refusal import Refusal, no_token
from entra_fast.require import Require

__all__ = ["EntraIDAuthentication", "EntraUser", "claims", "needs"]


class EntraUser:
    """`request.user`: the subject of the token. There is no row in the database.

    Attributes:
        claims: those of the token.
    """

    is_authenticated = True
    is_anonymous = False
    is_active = True
    is_staff = False
    is_superuser = False

    def __init__(self, claims: Claims) -> None:
        self.claims = claims

    @property
    def pk(self) -> str | None:
        """What identifies the caller, for throttling: the object id; in tokens of other providers the
        subject, or the client."""
        subject = self.claims.object_id or self.claims.get("sub") or self.claims.authorized_party
        return subject if isinstance(subject, str) else None

    id = pk

    def get_username(self) -> str:
        """A name for logs: that of the user or of the application, or the object id; in tokens of other
        providers the client, never a person's number."""
        names = (self.claims.get("preferred_username"), self.claims.get("azp_name"), self.claims.object_id)
        return str(next((name for name in names if name), self.claims.authorized_party) or "")

    def __str__(self) -> str:
        return self.get_username()


class EntraIDAuthentication(BaseAuthentication):
    """Verifies the token, if one came. Permissions decide whether one is needed."""

    def authenticate(self, request: Request) -> tuple[EntraUser, Claims] | None:
        """The user and the claims, which the framework makes `request.user` and `request.auth`.

        Returns:
            None if no token came.

        Raises:
            APIException: the token is refused, or cannot be verified.
        """
        guard = django.guard()
        guard.begin()
        plain = request._request
        verified = getattr(plain, "entra", None)
        found: Claims | None = verified.claims if isinstance(verified, django.Verified) else None
        if found is None:
            incoming = django.incoming_of(plain)
            try:
                token = guard.read_token(incoming, optional=True)
                if token is None:
                    return None
                found = guard.verify(token, incoming)
            except Refusal as refusal:
                raise _Refused(refusal) from None
            plain.entra = django.Verified(found)  # type: ignore[attr-defined]
        return EntraUser(found), found

    def authenticate_header(self, request: Request) -> str:
        """The challenge for a request without a token."""
        guard = django.guard()
        return no_token(guard.realm, guard.metadata_url).challenge or ""


def claims(request: Request) -> Claims | None:
    """The claims of the token of a request: `request.auth`, with its type.

    Args:
        request: the framework's request.

    Returns:
        None if no token came, or another class has authenticated the request.
    """
    if not isinstance(request.successful_authenticator, EntraIDAuthentication):
        return None
    found: Any = request.auth
    return found  # type: ignore[no-any-return]


def needs(requirement: Require) -> type[BasePermission]:
    """A permission class: the token must meet a requirement.

    Args:
        requirement: what the token must have.

    Returns:
        A class for `permission_classes`.

    Raises:
        TypeError: `requirement` is no `Require`.
    """
    check_is_requirement(requirement, "needs()")

    class Needs(BasePermission):
        """See `needs`."""

        message = str(requirement)

        def has_permission(self, request: Request, view: Any) -> bool:
            headers = request.headers
            if is_preflight(
                request.method or "", headers.get("Origin"), headers.get("Access-Control-Request-Method")
            ):
                return True
            if claims(request) is None:
                return False
            try:
                django.guard().check(claims(request), requirement, request.path_info)
            except Refusal as refusal:
                raise _Refused(refusal) from None
            return True

    Needs.__name__ = Needs.__qualname__ = "Needs"
    return Needs


class _Refused(APIException):
    """A refusal as an exception of the framework, which makes headers of `auth_header` and `wait`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description, refusal.error)
        self.status_code = refusal.status
        if refusal.challenge is not None:
            self.auth_header = refusal.challenge
        if refusal.retry_after is not None:
            self.wait = refusal.retry_after


@register()
def check_order(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """A system check: `EntraIDAuthentication` stands first, or requests without a token get a wrong
    answer."""
    classes: list[Any] = list(api_settings.DEFAULT_AUTHENTICATION_CLASSES or ())
    place = next((i for i, one in enumerate(classes) if issubclass(one, EntraIDAuthentication)), 0)
    if place == 0:
        return []
    return [
        Warning(
            "EntraIDAuthentication is not the first of DEFAULT_AUTHENTICATION_CLASSES",
            hint="Place it first: the framework takes WWW-Authenticate, and whether to respond with 401, "
            "from the first class.",
            id="entra_fast.W001",
        )
    ]
