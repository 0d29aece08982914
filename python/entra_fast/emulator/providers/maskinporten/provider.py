"""Maskinporten: the local one in one object, without HTTP.

Puts the parts together for the address, clock and manifests of a local Entra ID.
"""

from __future__ import annotations

from typing import Any, Final

from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.forms import is_nine_digits
from entra_fast.emulator.model.workloads import MaskinportenClient, Workload
from entra_fast.emulator.providers.explanation import ProviderExplanation
from entra_fast.emulator.providers.maskinporten import metadata, policy
from entra_fast.emulator.providers.maskinporten.token_endpoint import MaskinportenService
from entra_fast.errors import ConfigurationError


class Maskinporten:
    """The local Maskinporten.

    Args:
        local: the local Entra ID that it is served beside.
    """

    name: Final = "maskinporten"

    def __init__(self, local: LocalProvider) -> None:
        self._local = local
        self.keys = local.provider_keys.signing["maskinporten"]

    @property
    def issuer(self) -> str:
        """The issuer, with a slash at the end."""
        return metadata.issuer(self._local.base_url)

    @property
    def well_known(self) -> str:
        """The address of the discovery document."""
        return f"{self.issuer}{metadata.WELL_KNOWN}"

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        return metadata.document(self._local.base_url)

    def key_set(self) -> dict[str, Any]:
        """The key set document."""
        return {"keys": self.keys.published()}

    def token_service(self) -> MaskinportenService:
        """The token endpoint for the address and the manifests that there are now."""
        local = self._local
        return MaskinportenService(
            base_url=local.base_url,
            workloads=local.registry.workloads,
            keys=local.provider_keys,
            used=local.store.used_grants,
            journal=local.journal,
            clock=local.now,
            stray_key=local.stray_key,
        )

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS injects into an application."""
        client = self._client(application)
        if client is None:
            return {"MASKINPORTEN_ENABLED": "false"}
        local = self._local
        key = local.provider_keys.client("maskinporten", application)
        return {"MASKINPORTEN_ENABLED": "true", **metadata.environment(local.base_url, client, key)}

    def explain(self, consumer: Workload, target: str, organization: str | None) -> ProviderExplanation:
        """Whether an application would get a token with some scopes. Raises ConfigurationError."""
        scopes = target.split()
        if not scopes:
            raise ConfigurationError("explain_invalid", "target: expected scopes", "target")
        if organization is not None and not is_nine_digits(organization):
            text = f"organization: {organization[:50]!r} is not an organization number: nine digits"
            raise ConfigurationError("explain_invalid", text, "organization")
        return policy.explain(self._local.registry.workloads, consumer, scopes, organization)

    def registration(self, application: str) -> dict[str, Any] | None:
        """The registration of an application, for the console."""
        client = self._client(application)
        if client is None:
            return None
        scopes = self._local.registry.workloads.scopes.values()
        return {
            "name": "Maskinporten",
            "issuer": self.issuer,
            "client_id": client.client_id,
            "details": [
                ("Organization number", [client.organization]),
                ("Scopes that it consumes", list(client.consumes)),
                ("Scopes that it exposes", [scope.name for scope in scopes if scope.owner == application]),
            ],
        }

    def _client(self, application: str) -> MaskinportenClient | None:
        workload = self._local.registry.workloads.by_name.get(application)
        return None if workload is None else workload.maskinporten
