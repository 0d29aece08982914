"""TokenX: the local one in one object, without HTTP.

Puts the parts together for the address, clock and manifests of a local Entra ID.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.workloads import Workload
from entra_fast.emulator.providers.explanation import ProviderExplanation
from entra_fast.emulator.providers.tokenx import metadata, policy
from entra_fast.emulator.providers.tokenx.remote_issuers import RemoteIssuer
from entra_fast.emulator.providers.tokenx.token_endpoint import SubjectIssuer, TokenXService

LEVEL_NAMES: Final = {"idporten-loa-substantial": "Level3", "idporten-loa-high": "Level4"}
"""Older names of ID-porten's levels of assurance."""


class TokenX:
    """The local TokenX.

    Args:
        local: the local Entra ID that it is served beside.
        issuers: returns the issuers of the same server whose tokens it exchanges.

    Raises:
        ConfigurationError: one of `subject_issuers` is not the URL of a discovery document.
    """

    name: Final = "tokenx"

    def __init__(self, local: LocalProvider, issuers: Callable[[], Sequence[SubjectIssuer]]) -> None:
        self._local = local
        self._issuers = issuers
        self._remote = [RemoteIssuer(url, time.monotonic) for url in local.subject_issuers]
        self._acr = LEVEL_NAMES if local.level_names else {}
        self.keys = local.provider_keys.signing["tokenx"]

    @property
    def issuer(self) -> str:
        """The issuer, without a slash at the end."""
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

    def token_service(self) -> TokenXService:
        """The token endpoint for the address and the manifests that there are now."""
        local = self._local
        remote = [SubjectIssuer(issuer.name, issuer.keys) for issuer in self._remote]
        return TokenXService(
            base_url=local.base_url,
            workloads=local.registry.workloads,
            keys=local.provider_keys,
            issuers=(*self._issuers(), *remote),
            acr=self._acr,
            journal=local.journal,
            clock=local.now,
            stray_key=local.stray_key,
        )

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS injects into an application."""
        local = self._local
        if local.registry.workloads.tokenx_client(application) is None:
            return {"TOKEN_X_ENABLED": "false"}
        key = local.provider_keys.client("tokenx", application)
        return {"TOKEN_X_ENABLED": "true", **metadata.environment(local.base_url, application, key)}

    def explain(self, consumer: Workload, target: str) -> ProviderExplanation:
        """Whether an application may exchange tokens for an API."""
        return policy.explain(self._local.registry.workloads, consumer.name, target)

    def registration(self, application: str) -> dict[str, Any] | None:
        """The registration of an application, for the console."""
        if self._local.registry.workloads.tokenx_client(application) is None:
            return None
        return {"name": "TokenX", "issuer": self.issuer, "client_id": application, "details": []}
