"""The settings of a worker, as they are sent to it.

What belongs here: which settings a worker gets, and its share of limits that apply to the whole sidecar. What
must never be here: a secret.
"""

from __future__ import annotations

import dataclasses
import math

from entra_fast._settings.load import Settings
from entra_fast._settings.model import (
    CacheSettings,
    CredentialSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
)
from entra_fast.sidecar.process.channel import Fields


def for_worker(settings: Settings) -> Fields:
    """The settings that a worker needs, without secrets. Limits of the whole sidecar are divided."""
    server, caches, provider = settings.server, settings.caches, settings.provider
    return {
        "server": {
            **dataclasses.asdict(server),
            "allowed_hosts": sorted(server.allowed_hosts),
            "max_connections": math.ceil(server.max_connections / server.workers),
        },
        "provider": None
        if provider is None
        else {
            "client_id": provider.client_id,
            "tenant_id": provider.tenant_id,
            "allowed_tenants": provider.allowed_tenants,
            "algorithms": provider.algorithms,
        },
        "caches": {
            **dataclasses.asdict(share_of_each(caches, server.workers)),
            "verified_entries": math.ceil(caches.verified_entries / server.workers),
            "verified_bytes": max(1, caches.verified_bytes // server.workers),
        },
    }


def settings_from(fields: Fields) -> Settings:
    """The settings in what `for_worker` returned."""
    server, provider = fields["server"], fields["provider"]
    return Settings(
        server=ServerSettings(**{**server, "allowed_hosts": frozenset(server["allowed_hosts"])}),
        providers=()
        if provider is None
        else (
            ProviderSettings(
                client_id=provider["client_id"],
                tenant_id=provider["tenant_id"],
                well_known_url=None,
                issuer=None,
                jwks_uri=None,
                token_endpoint=None,
                credentials=CredentialSettings(),
                allowed_tenants=tuple(provider["allowed_tenants"]),
                algorithms=tuple(provider["algorithms"]),
            ),
        ),
        outbound=OutboundSettings(),
        caches=CacheSettings(**fields["caches"]),
    )


def share_of_each(caches: CacheSettings, workers: int) -> CacheSettings:
    """The limits of each process: the provider process and every worker have a copy of each token."""
    return dataclasses.replace(caches, max_bytes=max(1, caches.max_bytes // (workers + 1)))
