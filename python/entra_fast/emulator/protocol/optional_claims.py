"""Optional claims: what a token has because the registration of its audience asks for it.

Which ones are asked for is model/registrations.py.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registrations import OptionalClaim
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.login import Login

REGION: Final = "EU"
_NAMES_OF_GROUPS: Final = frozenset(
    [
        "cloud_displayname",
        "sam_account_name",
        "dns_domain_and_sam_account_name",
        "netbios_domain_and_sam_account_name",
    ]
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the claims are taken from.

    Attributes:
        audience: the application that the token is for.
        user: None for an application's own token.
        login: what the user has agreed to; None if there was no login.
    """

    tenant: Tenant
    audience: Application
    user: User | None
    login: Login | None


def extended(claims: dict[str, Any], wanted: Iterable[OptionalClaim], facts: Facts) -> dict[str, Any]:
    """The claims of a token together with the optional ones that are wanted and have a value."""
    result = dict(claims)
    for claim in wanted:
        if claim.name == "groups":
            _shape_groups(result, claim, facts.tenant)
        elif (value := _value(claim, result, facts)) is not None:
            result[claim.name] = value
    return result


def _value(claim: OptionalClaim, claims: dict[str, Any], facts: Facts) -> Any:
    match claim.name:
        case "aud":
            return facts.audience.client_id if "use_guid" in claim.properties else None
        case "idtyp" if facts.user is not None:
            return "user" if "include_user_token" in claim.properties else None
        case "idtyp":
            return "app" if "scp" not in claims else None
        case "tenant_region_scope":
            return REGION
        case _ if facts.user is not None:
            return _user_value(claim.name, facts.user, facts)
        case _:
            return None


def _user_value(name: str, user: User, facts: Facts) -> Any:
    login = facts.login
    match name:
        case "acct":
            return 0  # a member of the tenant; there are no guests
        case "auth_time":
            return (int(login.auth_time) or None) if login is not None else None
        case "email":
            return user.mail
        case "verified_primary_email":
            return [user.mail] if user.mail else None
        case "given_name":
            return user.given_name
        case "family_name":
            return user.family_name
        case "upn" | "preferred_username":
            return user.username
        case "ipaddr":
            return (login.address or None) if login is not None else None
        case "sid":
            return (login.session or None) if login is not None else None
        case "login_hint":
            return login_hint(facts.tenant, user)
        case _:
            return None


def login_hint(tenant: Tenant, user: User) -> str:
    """The claim `login_hint`: opaque to clients, who send it back as `login_hint` or `logout_hint`."""
    data = uuid.UUID(tenant.id).bytes + uuid.UUID(user.id).bytes
    return "O." + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _shape_groups(claims: dict[str, Any], claim: OptionalClaim, tenant: Tenant) -> None:
    """Names in place of ids, and groups as roles."""
    groups = claims.get("groups")
    if groups is None:
        return
    if claim.properties & _NAMES_OF_GROUPS:
        known = tenant.directory.groups
        groups = [known[group].name if group in known else group for group in groups]
    if "emit_as_roles" in claim.properties:
        del claims["groups"]
        claims["roles"] = groups
    else:
        claims["groups"] = groups
