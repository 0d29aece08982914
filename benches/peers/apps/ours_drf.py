INSTALLED_APPS = ["rest_framework"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["entra_fast.integrations.drf.EntraIDAuthentication"],
    "UNAUTHENTICATED_USER": None,
}


def urls() -> list[object]:
    from django.urls import path
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.views import APIView

    from entra_fast import Require
    from entra_fast.integrations.drf import needs

    class Cases(APIView):
        permission_classes = [needs(Require(scope="cases.read"))]

        def get(self, request: Request) -> Response:
            return Response({"cases": "none"})

    return [path("cases", Cases.as_view())]
