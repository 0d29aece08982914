"""Names of persons, for callers that may see them: an API in Django."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from entra_fast import Require
from entra_fast.integrations.django import claims, require

PERSONS = {"p-1": "Edvard Munch", "p-2": "Sigrid Undset", "p-3": "Henrik Ibsen"}


@require(Require(user=True, scope="persons.read"))
def persons(request: HttpRequest) -> JsonResponse:
    user = claims(request)
    names = {person: PERSONS[person] for person in request.GET.getlist("id") if person in PERSONS}
    return JsonResponse({"names": names, "read_by": user.name if user else None})


def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [path("persons", persons), path("healthz", healthz)]
