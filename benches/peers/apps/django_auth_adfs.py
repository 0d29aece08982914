import os

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_auth_adfs",
    "rest_framework",
]
AUTHENTICATION_BACKENDS = ["django_auth_adfs.backend.AdfsAccessTokenBackend"]
AUTH_ADFS = {
    "AUDIENCE": os.environ["AZURE_APP_CLIENT_ID"],
    "CLIENT_ID": os.environ["AZURE_APP_CLIENT_ID"],
    "RELYING_PARTY_ID": os.environ["AZURE_APP_CLIENT_ID"],
    "TENANT_ID": os.environ["AZURE_APP_TENANT_ID"],
    "VERSION": "v2.0",
    "USERNAME_CLAIM": "oid",
    "CLAIM_MAPPING": {},
    "GROUPS_CLAIM": None,
}
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["django_auth_adfs.rest_framework.AdfsAccessTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}


def urls() -> list[object]:
    from django.urls import path
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Cases(APIView):
        def get(self, request: Request) -> Response:
            return Response({"cases": "none"})

    return [path("cases", Cases.as_view())]
