"""The settings of a worker, as they are sent to it.

What belongs here: which settings a worker gets, and its share of limits that apply to the whole sidecar. What
must never be here: a secret.
"""

from __future__ import annotations

import dataclasses
import math

from entra_fast._providers import Audience, Grant, ProviderKind, Variables
from entra_fast._settings.load import Settings
from entra_fast._settings.model import (
    CacheSettings,
    CredentialSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
)
from entra_fast.sidecar.process.channel import Fields

_OF_A_KIND = (
    "name",
    "title",
    "aliases",
    "token_grant",
    "exchange_grant",
    "audience",
    "rewrites_targets",
    "accepts_claims",
    "accepts_details",
)
"""What a worker needs of a provider's row, which may be one that the operator has written. The rest is about
requests to the provider."""
_OF_A_PROVIDER = ("client_id", "tenant_id", "allowed_tenants", "algorithms", "audience")
_NO_VARIABLES = Variables(well_known_url="", issuer="", jwks_uri="", algorithms="")
"""A worker reads no settings from the environment."""


def for_worker(settings: Settings) -> Fields:
    """The settings that a worker needs, without secrets. Limits of the whole sidecar are divided."""
    server, caches = settings.server, settings.caches
    return {
        "server": {
            **dataclasses.asdict(server),
            "allowed_hosts": sorted(server.allowed_hosts),
            "max_connections": math.ceil(server.max_connections / server.workers),
        },
        "providers": [
            {
                "kind": {name: getattr(provider.kind, name) for name in _OF_A_KIND},
                **{name: getattr(provider, name) for name in _OF_A_PROVIDER},
            }
            for provider in settings.providers
        ],
        "caches": {
            **dataclasses.asdict(share_of_each(caches, server.workers)),
            "verified_entries": math.ceil(caches.verified_entries / server.workers),
            "verified_bytes": max(1, caches.verified_bytes // server.workers),
        },
    }


def settings_from(fields: Fields) -> Settings:
    """The settings in what `for_worker` returned."""
    server = fields["server"]
    return Settings(
        server=ServerSettings(**{**server, "allowed_hosts": frozenset(server["allowed_hosts"])}),
        providers=tuple(map(_provider_from, fields["providers"])),
        outbound=OutboundSettings(),
        caches=CacheSettings(**fields["caches"]),
    )


def _provider_from(fields: Fields) -> ProviderSettings:
    kind, others = fields["kind"], {**fields}
    del others["kind"]
    for name in ("allowed_tenants", "algorithms"):
        others[name] = tuple(others[name])
    return ProviderSettings(
        **others,
        well_known_url=None,
        issuer=None,
        jwks_uri=None,
        token_endpoint=None,
        credentials=CredentialSettings(),
        kind=ProviderKind(
            **{
                **kind,
                "aliases": tuple(kind["aliases"]),
                "audience": Audience(kind["audience"]),
                "token_grant": kind["token_grant"] and Grant(kind["token_grant"]),
                "exchange_grant": kind["exchange_grant"] and Grant(kind["exchange_grant"]),
            },
            variables=_NO_VARIABLES,
        ),
    )


def share_of_each(caches: CacheSettings, workers: int) -> CacheSettings:
    """The limits of each process: the provider process and every worker have a copy of each token."""
    return dataclasses.replace(caches, max_bytes=max(1, caches.max_bytes // (workers + 1)))
