"""Settings of the API for persons. It has no pages and no database: bearer tokens are all it needs."""

import os
import secrets

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe()
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "persons", "persons.team-persons"]
ROOT_URLCONF = "persons.urls"

MIDDLEWARE = ["entra_fast.integrations.django.EntraIDMiddleware"]
ENTRA_ID = {"exclude": ["/healthz"]}
