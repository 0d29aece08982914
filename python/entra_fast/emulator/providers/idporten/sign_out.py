"""Signing out without HTTP (OpenID Connect RP-Initiated Logout 1.0 and Front-Channel Logout 1.0)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final, Literal

from entra_fast._native import Policy, Validator, unverified_claims
from entra_fast.emulator.protocol.idporten_logins import Session
from entra_fast.emulator.protocol.provider_keys import SigningKeys
from entra_fast.emulator.providers.idporten.clients import Client
from entra_fast.errors import InvalidToken

Problem = Literal["", "no_client", "wrong_hint", "not_registered"]
"""Why the browser does not go back to the application, if so."""

NOWHERE: Final = ""


def return_address(
    fields: Mapping[str, str], find: Callable[[str], Client | None], issuer: str, keys: SigningKeys
) -> tuple[str, Problem]:
    """Where the browser goes after signing out, and why not where the request wanted.

    Args:
        find: the client with a client id.
    """
    uri = fields.get("post_logout_redirect_uri", "")
    if not uri:
        return NOWHERE, ""
    client_id = fields.get("client_id", "")
    if hint := fields.get("id_token_hint", ""):
        audience = _audience(hint, find, issuer, keys)
        if audience is None or client_id not in ("", audience):
            return NOWHERE, "wrong_hint"
        client_id = audience
    client = find(client_id)
    if client is None:
        return NOWHERE, "no_client"
    if uri not in client.post_logout_redirect_uris:
        return NOWHERE, "not_registered"
    if "state" in fields:
        uri += ("&" if "?" in uri else "?") + urllib.parse.urlencode({"state": fields["state"]})
    return uri, ""


def frames(session: Session, find: Callable[[str], Client | None], issuer: str) -> list[str]:
    """The address at each client of a session that ends the client's part of it, also at the one that
    asks."""
    urls: dict[str, None] = {}
    for client_id, redirect_uri in session.clients:
        client = find(client_id)
        if client is not None:
            urls[client.logout_uri(redirect_uri)] = None
    query = urllib.parse.urlencode({"iss": issuer, "sid": session.id})
    return [f"{url}{'&' if '?' in url else '?'}{query}" for url in urls if url]


def _audience(token: str, find: Callable[[str], Client | None], issuer: str, keys: SigningKeys) -> str | None:
    """The client of an ID token of this provider, which may have expired; None if it is none."""
    try:
        sent = unverified_claims(token)
        client = find(str(sent.get("aud", "")))
        if client is None:
            return None
        policy = Policy(issuers=[issuer], audiences=[client.client_id])
        # At a time when it was valid: RP-Initiated Logout 1.0, section 2 wants expired ones accepted.
        moment = float(sent.get("exp", 0)) - 1
        Validator(policy, keys.key_set, cache_entries=1).validate(token, moment)
    except (InvalidToken, TypeError, ValueError):
        return None
    return client.client_id
