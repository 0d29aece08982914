"""Loads a service of `apps/` for a server: `uvicorn benches.peers.loading:ours_fastapi`.

What belongs here: what the libraries need around a service on this machine: the local Entra ID in place of
the public address that some have built in, and Django's settings, which are a module of their own elsewhere.
"""
# ruff: noqa: PLC0415 - each service has its own libraries

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

APPS = Path(__file__).with_name("apps")


def __getattr__(name: str) -> Any:
    path = APPS / f"{name}.py"
    if not path.exists():
        raise AttributeError(name)
    if name == "fastapi_azure_auth":
        _use_the_local_entra_id_for_fastapi_azure_auth()
    module = _load(name, path)
    return _django(module) if hasattr(module, "urls") else module.app


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"service_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _use_the_local_entra_id_for_fastapi_azure_auth() -> None:
    """It has an argument for this, which is meant for other tenants than those of this class."""
    from fastapi_azure_auth.openid_config import OpenIdConfig

    load = OpenIdConfig._load_openid_config

    async def from_local(self: OpenIdConfig) -> None:
        self.config_url = os.environ["AZURE_APP_WELL_KNOWN_URL"]
        await load(self)

    OpenIdConfig._load_openid_config = from_local


def _database() -> dict[str, Any]:
    """A database that lives as long as the process (one in memory would belong to one thread), as fast as
    SQLite can be: what a library writes at each request should not wait for a disk."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(folder.name) / "database"),
        "CONN_MAX_AGE": None,
        "OPTIONS": {"init_command": "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY;"},
    }


def _django(service: ModuleType) -> Any:
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    urls = ModuleType("service_urls")
    sys.modules["service_urls"] = urls
    given = {name: value for name, value in vars(service).items() if name.isupper()}
    settings.configure(
        **given,
        ROOT_URLCONF="service_urls",
        SECRET_KEY="not a secret",
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": _database()},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    if "AUTH_ADFS" in given:
        from django_auth_adfs import config

        config.settings.SERVER = os.environ["LOCAL_ENTRA_ID"]
    if "django.contrib.auth" in given["INSTALLED_APPS"]:
        call_command("migrate", verbosity=0)
    urls.urlpatterns = service.urls()  # type: ignore[attr-defined]
    return get_wsgi_application()
