"""The fields of the files beside manifests, for validating them with pydantic.

What belongs here: names, types and forms of fields. What they mean belongs in registrations.py.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, model_validator

from entra_fast.emulator.model.forms import GroupMembership
from entra_fast.emulator.model.manifest_schema import Name
from entra_fast.emulator.model.validation import List, Section
from entra_fast.emulator.model.wording import did_you_mean, quoted

LONGEST_LIFETIME: Final = 86_400  # as a token lifetime policy of Entra ID

WITH_VALUES: Final = frozenset(
    [
        "acct",
        "aud",
        "auth_time",
        "email",
        "family_name",
        "given_name",
        "groups",
        "idtyp",
        "ipaddr",
        "login_hint",
        "preferred_username",
        "sid",
        "tenant_region_scope",
        "upn",
        "verified_primary_email",
    ]
)
"""Optional claims that tokens of the local Entra ID can have."""

WITHOUT_VALUES: Final = frozenset(
    [
        "acrs",
        "ctry",
        "enfpolids",
        "fwd",
        "in_corp",
        "onprem_sid",
        "platf",
        "pwd_exp",
        "pwd_url",
        "signin_state",
        "tenant_ctry",
        "verified_secondary_email",
        "vnet",
        "xms_cc",
        "xms_edov",
        "xms_pdl",
        "xms_pl",
        "xms_tpl",
        "ztdid",
    ]
)
"""Optional claims of Entra ID about things that do not exist here."""

PROPERTIES: Final = {
    "aud": ["use_guid"],
    "groups": [
        "cloud_displayname",
        "dns_domain_and_sam_account_name",
        "emit_as_roles",
        "max_size_limit",
        "netbios_domain_and_sam_account_name",
        "sam_account_name",
    ],
    "idtyp": ["include_user_token"],
    "upn": ["include_externally_authenticated_upn", "include_externally_authenticated_upn_without_hash"],
}
"""Additional properties of each claim that has some."""


def _claim_name(value: str) -> str:
    known = WITH_VALUES | WITHOUT_VALUES
    if value not in known:
        hint = did_you_mean(value, known)
        raise ValueError(f"Entra ID has no optional claim {quoted(value)}{hint}")
    return value


def _lifetime(value: int) -> int:
    if not 1 <= value <= LONGEST_LIFETIME:
        raise ValueError(f"must be seconds, from 1 to {LONGEST_LIFETIME}")
    return value


class ClaimEntry(Section):
    """One entry of `idToken` or `accessToken`. `essential` has no effect, as in Entra ID."""

    ignored_fields = frozenset(["source"])

    name: Annotated[str, AfterValidator(_claim_name)]
    essential: bool = False
    additional_properties: List[str] = ()

    @model_validator(mode="after")
    def _known_properties(self) -> ClaimEntry:
        for value in self.additional_properties:
            known = PROPERTIES.get(self.name, [])
            if value not in known:
                listed = f"; there are {', '.join(known)}" if known else ""
                raise ValueError(f"{self.name} has no additional property {quoted(value)}{listed}")
        return self

    @property
    def has_no_value_here(self) -> bool:
        """Whether no token of the local Entra ID can have it."""
        return self.name in WITHOUT_VALUES


class OptionalClaims(Section):
    """`optionalClaims`."""

    ignored_fields = frozenset(["saml2Token"])

    id_token: List[ClaimEntry] = ()
    access_token: List[ClaimEntry] = ()


class RegistrationDocument(Section):
    """One document."""

    application: Name | None = None
    namespace: Name | None = None
    access_token_lifetime: Annotated[int, AfterValidator(_lifetime)] | None = None
    group_membership_claims: GroupMembership = "ApplicationGroup"
    optional_claims: OptionalClaims = OptionalClaims()
