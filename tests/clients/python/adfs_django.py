"""A Django service that signs users in with django-auth-adfs, as its documentation shows."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command, execute_from_command_line

settings.configure(
    DEBUG=True,
    SECRET_KEY="s" * 32,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    LOGIN_URL="django_auth_adfs:login",
    LOGIN_REDIRECT_URL="/",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_auth_adfs",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    AUTHENTICATION_BACKENDS=["django_auth_adfs.backend.AdfsAuthCodeBackend"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["FOLDER"] + "/db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    AUTH_ADFS={
        "AUDIENCE": os.environ["CLIENT_ID"],
        "CLIENT_ID": os.environ["CLIENT_ID"],
        "CLIENT_SECRET": os.environ["CLIENT_SECRET"],
        "RELYING_PARTY_ID": os.environ["CLIENT_ID"],
        "TENANT_ID": os.environ["TENANT"],
        "VERSION": "v2.0",
        "SCOPES": [f"api://{os.environ['CLIENT_ID']}/.default"],
        "USERNAME_CLAIM": "preferred_username",
        "CLAIM_MAPPING": {"first_name": "name"},
        "GROUPS_CLAIM": "groups",
        "MIRROR_GROUPS": True,
    },
)
django.setup()

from django.contrib.auth.decorators import login_required  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django_auth_adfs import config  # noqa: E402

config.settings.SERVER = os.environ["SERVER"]  # with a tenant, only the public one is known


@login_required
def page(request: HttpRequest) -> JsonResponse:
    groups = [group.name for group in request.user.groups.all()]
    return JsonResponse({"user": request.user.get_username(), "groups": groups})


urlpatterns = [path("", page), path("oauth2/", include("django_auth_adfs.urls"))]

if __name__ == "__main__":
    sys.modules[settings.ROOT_URLCONF] = sys.modules["__main__"]
    call_command("migrate", verbosity=0)
    execute_from_command_line(["manage.py", "runserver", "--noreload", f"127.0.0.1:{os.environ['PORT']}"])
