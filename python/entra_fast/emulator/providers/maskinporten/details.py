"""Authorization details (RFC 9396) of a grant: the system user of an organization, and nothing else.

Altinn knows which organization has given a system user to which supplier. Here every organization has given
one to every client, so that no registration is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from entra_fast.emulator.model import ids
from entra_fast.emulator.model.forms import is_organization_number
from entra_fast.emulator.model.workloads import MaskinportenClient
from entra_fast.emulator.providers.maskinporten import errors

SYSTEM_USER: Final = "urn:altinn:systemuser"
AUTHORITY: Final = "iso6523-actorid-upis"
PREFIX: Final = "0192:"  # of Norway's organization numbers (ISO 6523)

_FIELDS: Final = frozenset({"type", "systemuser_org", "externalRef"})
_ORGANIZATION_FIELDS: Final = frozenset({"authority", "ID"})


def organization(number: str) -> dict[str, str]:
    """An organization as claims name it."""
    return {"authority": AUTHORITY, "ID": f"{PREFIX}{number}"}


def granted(asked: object, client: MaskinportenClient, system: str) -> list[dict[str, Any]]:
    """`authorization_details` of the token for those of a grant.

    Args:
        system: name of the client's system.

    Raises:
        Refusal: MP-301 to MP-303.
    """
    if not isinstance(asked, list) or len(asked) != 1 or not isinstance(asked[0], Mapping):
        raise errors.refusal(errors.INVALID_DETAILS_VALUE, remedy="expected a list of one object")
    entry = asked[0]
    if entry.get("type") != SYSTEM_USER:
        raise errors.refusal(errors.UNKNOWN_DETAILS_TYPE, remedy=f"the only type is {SYSTEM_USER}")
    customer = entry.get("systemuser_org")
    named = customer if isinstance(customer, Mapping) else {}
    if not entry.keys() <= _FIELDS or not named.keys() <= _ORGANIZATION_FIELDS:
        text = f"its fields are {', '.join(sorted(_FIELDS))}; those of systemuser_org are authority and ID"
        raise errors.refusal(errors.UNKNOWN_DETAILS_FIELD, remedy=text)
    prefix, separator, number = str(named.get("ID", "")).partition(":")
    is_right = named.get("authority") == AUTHORITY and f"{prefix}{separator}" == PREFIX
    if not is_right or not is_organization_number(number):
        text = f"systemuser_org must be like {organization('310000019')}, with an organization number"
        raise errors.refusal(errors.INVALID_DETAILS_VALUE, remedy=text)
    if not isinstance(entry.get("externalRef", ""), str):
        raise errors.refusal(errors.INVALID_DETAILS_VALUE, remedy="externalRef must be text")
    return [
        {
            **entry,
            "systemuser_id": [ids.system_user_id(client.organization, client.client_id, number)],
            "system_id": f"{client.organization}_{system}",
        }
    ]
