"""Identifiers derived from names, so that they are the same at every start and on every machine.

Only derivation belongs here. Nothing is stored, and nothing is secret.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Final

# Never changes: people write the derived ids into their own configuration.
_NAMESPACE: Final = uuid.UUID("6f3c1f5e-6d0a-5b52-9b57-1d2c5f0e7a11")


def _derive(kind: str, *names: str) -> str:
    # Lengths are part of the name, so that ("a:b", "c") and ("a", "b:c") differ.
    text = kind + "".join(f"|{len(name)}:{name}" for name in names)
    return str(uuid.uuid5(_NAMESPACE, text))


def tenant_id(tenant: str) -> str:
    """GUID of a tenant, from its domain name."""
    return _derive("tenant", tenant.lower())


def client_id(tenant: str, application: str) -> str:
    """Client id of an application, from its tenant's domain name and `<cluster>:<namespace>:<name>`."""
    return _derive("application", tenant.lower(), application)


def service_principal_id(tenant: str, application: str) -> str:
    """Object id of an application's service principal: `oid` and `sub` of its machine-to-machine tokens."""
    return _derive("service-principal", tenant.lower(), application)


def user_id(tenant: str, username: str) -> str:
    """Object id of a user, from the tenant's domain name and the user's sign-in name."""
    return _derive("user", tenant.lower(), username.lower())


def group_id(tenant: str, group: str) -> str:
    """Object id of a group whose directory entry does not state one."""
    return _derive("group", tenant.lower(), group)


def maskinporten_client_id(application: str) -> str:
    """Client id of an application in Maskinporten, from `<cluster>:<namespace>:<name>`."""
    return _derive("maskinporten-client", application)


def system_user_id(supplier: str, client_id: str, customer: str) -> str:
    """Id of the system user that a customer has given to a supplier's system (Altinn)."""
    return _derive("system-user", supplier, client_id, customer)


def pairwise_subject(tenant_id: str, client_id: str, user_id: str) -> str:
    """`sub` of a user for one application: stable, and useless for recognising the user elsewhere
    (OpenID Connect Core 1.0, section 8.1). 43 characters, like Entra's."""
    digest = hashlib.sha256(f"sub|{tenant_id}|{client_id}|{user_id}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
