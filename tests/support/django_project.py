"""A Django project in one module, for servers in processes of their own: `support.django_project:application`
for WSGI, `:asgi` for ASGI.

Environment: `KEYS_URL`; `STYLE`, `django` (middleware and views) or `drf` (REST framework alone); `OPTIONAL`,
    whether
tokens are.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

import django
from django.conf import settings

from support.bearer import METADATA, METADATA_PATH, READER, STEP_UP

OPTIONAL = bool(os.environ.get("OPTIONAL"))
STYLE = os.environ.get("STYLE", "django")

settings.configure(
    SECRET_KEY="test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["rest_framework"],
    MIDDLEWARE=[
        *(["entra_fast.integrations.django.EntraIDMiddleware"] if STYLE == "django" else []),
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ENTRA_ID={
        "validator": f"{__name__}.validator",
        "exclude": ["/healthz"],
        "optional": OPTIONAL,
        "resource_metadata": METADATA if OPTIONAL else None,
    },
    REST_FRAMEWORK={
        "DEFAULT_AUTHENTICATION_CLASSES": ["entra_fast.integrations.drf.EntraIDAuthentication"],
        "UNAUTHENTICATED_USER": None,
    },
)
django.setup()

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views import View
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from entra_fast import Require
from entra_fast.integrations.django import RequireMixin, claims, require, resource_metadata
from entra_fast.integrations.drf import needs
from entra_fast.validate import Validator
from support.tokens import AUDIENCE, ISSUER, NOW


def validator() -> Validator:
    return Validator(ISSUER, AUDIENCE, jwks_uri=os.environ["KEYS_URL"], clock=lambda: NOW)


def oid(request: HttpRequest) -> JsonResponse:
    found = claims(request)
    return JsonResponse({"oid": None if found is None else found.object_id})


def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"oid": None})


@require(STEP_UP)
async def step_up(request: HttpRequest) -> JsonResponse:
    return oid(request)


@require(READER)
def reader_by_decorator(request: HttpRequest) -> JsonResponse:
    return oid(request)


class ReaderByMixin(RequireMixin, View):
    requirement = READER

    def get(self, request: HttpRequest) -> JsonResponse:
        return oid(request)

    post = get


class AsyncReader(RequireMixin, View):
    requirement = READER

    async def get(self, request: HttpRequest) -> JsonResponse:
        return oid(request)


class Api(APIView):
    permission_classes = (AllowAny if OPTIONAL else needs(Require.any_token()),)

    def get(self, request: Request) -> Response:
        mine = request.auth
        return Response({"oid": None if mine is None else mine["oid"]})  # type: ignore[index]

    head = post = get


class ReaderApi(Api):
    permission_classes = (needs(READER),)


class StepUpApi(Api):
    permission_classes = (needs(STEP_UP),)


if STYLE == "django":
    urlpatterns = [
        path("cases", oid),
        path("reader", ReaderByMixin.as_view()),
        path("reader-decorator", reader_by_decorator),
        path("reader-async", AsyncReader.as_view()),
        path("step-up", step_up),
        path("healthz", healthz),
        path("api", Api.as_view()),
    ]
else:
    urlpatterns = [
        path("cases", Api.as_view()),
        path("reader", ReaderApi.as_view()),
        path("step-up", StepUpApi.as_view()),
        path("healthz", healthz),
        path("reader-decorator", reader_by_decorator),
        path(METADATA_PATH.removeprefix("/"), resource_metadata),
    ]

application = get_wsgi_application()
asgi = get_asgi_application()
