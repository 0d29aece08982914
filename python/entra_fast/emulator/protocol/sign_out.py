"""Signing out without HTTP (OpenID Connect RP-Initiated Logout 1.0 and Front-Channel Logout 1.0).

Whether the user has to be asked, where the browser may return to, and which applications are told.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entra_fast._native import Policy, Validator, unverified_claims
from entra_fast.emulator.model import ids
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.claims import Issuer, hinted_user
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.store import Session
from entra_fast.errors import InvalidToken

NOT_REGISTERED = (
    "You were not sent back to the application: 'post_logout_redirect_uri' must be one of its registered "
    "redirect URIs."
)
WRONG_HINT = (
    "You were not sent back to the application: 'id_token_hint' is not an ID token that this provider issued "
    "to that client."
)


@dataclass(frozen=True, slots=True)
class SignOut:
    """A checked request to sign out.

    Attributes:
        user: who is signed in; None if no one is.
        confirmed: whether the request itself says that it is about this user; otherwise the user is asked.
        return_to: where the browser goes afterwards; empty for the provider's own page.
        problem: why it does not go where the request wanted, if so.
    """

    user: User | None
    confirmed: bool
    return_to: str
    problem: str


def check(
    tenant: Tenant, fields: Mapping[str, str], session: Session | None, base_url: str, keyring: Keyring
) -> SignOut:
    """Check a request to sign out. `session`: of the browser; None if no one is signed in."""
    hint = fields.get("id_token_hint", "")
    claims = _verified(hint, Issuer(base_url, tenant), keyring) if hint else {}
    client_id = fields.get("client_id", "")
    wrong_hint = claims is None or client_id.lower() not in ("", str(claims.get("aud", client_id)))
    known = claims if claims is not None and not wrong_hint else {}
    user = tenant.directory.users.get(session.user_id) if session is not None else None
    confirmed = session is None or user is None or _names(tenant, fields, known, session, user)
    uri = fields.get("post_logout_redirect_uri", "")
    if uri and wrong_hint:
        return SignOut(user, confirmed, "", WRONG_HINT)
    if uri and not _is_registered(tenant, uri, client_id or str(known.get("aud", ""))):
        return SignOut(user, confirmed, "", NOT_REGISTERED)
    if uri and "state" in fields:
        uri += ("&" if "?" in uri else "?") + urllib.parse.urlencode({"state": fields["state"]})
    return SignOut(user, confirmed, uri, "")


def frames(tenant: Tenant, session: Session) -> list[str]:
    """The address at each application of a session that ends the application's part of it.

    Entra ID sends `sid` only: no `iss`, which the specification would add.
    """
    clients = (tenant.application(client_id) for client_id in session.clients)
    urls = dict.fromkeys(client.logout_url for client in clients if client is not None)
    sid = urllib.parse.urlencode({"sid": session.id})
    return [f"{url}{'&' if '?' in url else '?'}{sid}" for url in urls if url]


def _names(
    tenant: Tenant, fields: Mapping[str, str], claims: Mapping[str, Any], session: Session, user: User
) -> bool:
    if hinted_user(tenant, fields.get("logout_hint", "")) is user:
        return True
    subject = ids.pairwise_subject(tenant.id, str(claims.get("aud", "")), user.id)
    return bool(claims) and (claims.get("sid") == session.id or claims.get("sub") == subject)


def _verified(token: str, issuer: Issuer, keyring: Keyring) -> Mapping[str, Any] | None:
    """The claims of an ID token of this provider, which may have expired; None if it is none."""
    try:
        sent = unverified_claims(token)
        application = issuer.tenant.application(str(sent.get("aud", "")))
        if application is None:
            return None
        policy = Policy(
            issuers=[issuer.v2, issuer.v1],
            audiences=[application.client_id],
            algorithms=keyring.algorithms,
        )
        # At a time when it was valid: RP-Initiated Logout 1.0, section 2 wants expired ones accepted.
        moment = float(sent.get("exp", 0)) - 1
        return Validator(policy, keyring.key_set, cache_entries=1).validate(token, moment)
    except (InvalidToken, TypeError, ValueError):
        return None


def _is_registered(tenant: Tenant, uri: str, client_id: str) -> bool:
    candidates: list[Application | None] = list(tenant.applications.values())
    if client_id:
        candidates = [tenant.application(client_id)]
    return any(
        uri in (*candidate.reply_urls, *candidate.logout_callbacks)
        for candidate in candidates
        if candidate is not None
    )
