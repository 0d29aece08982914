"""Wiring mistakes in a Django project, and a validator for tests. Run by
tests/integrations/test_django.py."""

from __future__ import annotations

import json
import os

os.environ["KEYS_URL"] = "http://127.0.0.1:1/"

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404
from django.test import Client, RequestFactory
from django.test.utils import override_settings
from django.views import View

from entra_fast import Claims, ConfigurationError
from entra_fast._claims import UnverifiedClaims
from entra_fast.integrations import django, drf
from support import bearer, django_project, tokens


def settings_are_checked() -> None:
    """Any mistake stops the project when it starts."""
    wrong: tuple[Any, ...] = (
        {"exclude": "/x"},
        {"realm": '"'},
        {"excluded": []},
        [],
        {"validator": object},
        {"require": "r"},
        {"provider": 7},
        {"provider": "tokenx", "validator": django_project.validator},
    )
    for options in wrong:
        with override_settings(ENTRA_ID=options), pytest.raises(ImproperlyConfigured, match="ENTRA_ID"):
            django.EntraIDMiddleware(lambda request: None)
    for options in ({}, {"provider": "nobody"}):
        with override_settings(ENTRA_ID=options), pytest.raises(ConfigurationError):
            django.EntraIDMiddleware(lambda request: None)


def views_are_checked() -> None:
    """A requirement that is none, a view without one, a request that nobody checked."""
    with pytest.raises(TypeError, match="requirement of Wrong"):
        type("Wrong", (django.RequireMixin, View), {"requirement": "reader"})
    missing: Any = type("Missing", (django.RequireMixin, View), {})
    with pytest.raises(ImproperlyConfigured, match="Missing needs requirement"):
        missing.as_view()
    wires: tuple[Any, ...] = (django.require, drf.needs)
    for wire in wires:
        with pytest.raises(TypeError, match="takes a Require"):
            wire("reader")
    with pytest.raises(RuntimeError, match="no token was checked"):
        django.claims(RequestFactory().get("/cases"))
    assert django_project.ReaderByMixin.as_view().login_required is False


def metadata_that_nobody_asked_for() -> None:
    """The view is 404 where `ENTRA_ID` has none."""
    with pytest.raises(Http404):
        django.resource_metadata(RequestFactory().get("/.well-known/oauth-protected-resource"))


def the_order_of_authentication_classes_is_checked() -> None:
    """The framework takes the challenge from the first."""
    assert drf.check_order(None) == []
    basic = "rest_framework.authentication.BasicAuthentication"
    classes = [basic, "entra_fast.integrations.drf.EntraIDAuthentication"]
    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        assert [one.id for one in drf.check_order(None)] == ["entra_fast.W001"]


class Accepting:
    """Accepts anything."""

    def validate(self, _: str) -> Claims:
        return tokens.validator().validate(bearer.token(preferred_username="ada@example"))


def another_validator_for_a_test() -> None:
    """`use` swaps it in the whole project, and undoes that."""
    client = Client(headers={"Authorization": "Bearer x"})
    assert client.get("/cases").status_code == 401
    with django.use(Accepting()):
        assert client.get("/cases").status_code == 200
    assert client.get("/cases").status_code == 401
    user = drf.EntraUser(Accepting().validate(""))
    assert (user.pk, str(user), user.is_authenticated) == (bearer.OID, "ada@example", True)


def users_of_other_providers() -> None:
    """Their tokens have no object id; a person's number is in no log."""
    for claims, pk, name in (
        ({"sub": "s", "pid": "17858549949", "client_id": "dev-gcp:team:web"}, "s", "dev-gcp:team:web"),
        ({"client_id": "c", "scope": "a:b"}, "c", "c"),
        ({"sub": 7}, None, ""),
    ):
        user = drf.EntraUser(UnverifiedClaims(json.dumps(claims)))  # type: ignore[arg-type]
        assert (user.pk, str(user)) == (pk, name)


if __name__ == "__main__":
    settings_are_checked()
    views_are_checked()
    metadata_that_nobody_asked_for()
    the_order_of_authentication_classes_is_checked()
    another_validator_for_a_test()
    users_of_other_providers()
    print("done")
