"""The conditions under which the sidecar reports a token as active.

What belongs here: the policy of introspection (docs/reference/endpoints.md). What must never be here:
verification itself.
"""

from __future__ import annotations

from entra_fast._native import Policy
from entra_fast._settings import catalogue
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ConfigurationError


def policy_for(issuer: str, provider: ProviderSettings, signatures: str = "fast") -> Policy:
    """The policy for tokens of an issuer that are meant for this application.

    Raises:
        ConfigurationError: tokens of this issuer cannot be verified, because it stands for any tenant and no
            tenants are allowed, or the provider has none.
    """
    if "{tenantid}" in issuer and not provider.allowed_tenants:
        setting = catalogue.provider_rows(provider.kind).allowed_tenants
        if setting is None:
            name = provider.kind.variables.issuer
            raise ConfigurationError(
                "setting_invalid",
                f"the issuer {issuer} stands for any tenant, and {provider.kind.title} has none: set {name} "
                "to the issuer in its tokens",
                name,
            )
        name = setting.name
        raise ConfigurationError(
            "setting_missing",
            f"{name} is not set, and the issuer {issuer} stands for any tenant: set {name} to the ids of the "
            "tenants whose tokens are accepted, or to * for any",
            name,
        )
    return Policy(
        issuers=[issuer],
        audiences=provider.audiences,
        algorithms=provider.algorithms,
        tenants=provider.allowed_tenants or None,
        required_claims=["iat"],
        signatures=signatures,
        kid_required=True,
    )
