"""The enabled providers, as the contract of the endpoints needs them.

What belongs here: which facts of a provider's row the native contract gets. What must never be here: any
provider by its name, and the rules themselves (rust/core/src/sidecar/providers.rs).
"""

from __future__ import annotations

from collections.abc import Sequence

from entra_fast import _native
from entra_fast._providers import BUILT_IN
from entra_fast._settings.model import ProviderSettings


def contract_of(providers: Sequence[ProviderSettings]) -> _native.Providers:
    """These providers in their order, among all names that are known: those of this version and of the
    operator's settings."""
    # By name: a worker's row of a built-in provider is a copy that lacks what a worker does not need, and a
    # generic provider may have the name of a built-in one.
    kinds = {kind.name: kind for kind in (*BUILT_IN, *(provider.kind for provider in providers))}
    return _native.Providers(
        [_row(provider) for provider in providers], [(kind.name, kind.aliases) for kind in kinds.values()]
    )


def _row(provider: ProviderSettings) -> _native.Provider:
    kind = provider.kind
    return _native.Provider(
        kind.name,
        aliases=kind.aliases,
        issues=kind.token_grant is not None,
        exchanges=kind.exchange_grant is not None,
        rewrites_targets=kind.rewrites_targets,
        accepts_claims=kind.accepts_claims,
        accepts_details=kind.accepts_details,
        tenant=provider.tenant_id,
        client_id=provider.client_id,
    )
