INSTALLED_APPS = ["rest_framework"]
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None}


def urls() -> list[object]:
    from django.urls import path
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Cases(APIView):
        def get(self, request: Request) -> Response:
            return Response({"cases": "none"})

    return [path("cases", Cases.as_view())]
