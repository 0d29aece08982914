"""What a user has agreed to by signing in: the content of codes, device codes and refresh tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Login:
    """What a user has agreed to.

    Attributes:
        scope: as requested at the authorization endpoint.
        session: `sid` of the user's session.
        family: of the code and of all refresh tokens that descend from it; empty where there was no code.
        challenge: PKCE `code_challenge`, with its method.
        claims: the `claims` parameter, as requested.
        auth_time: when the user signed in, seconds since the epoch.
        started: when this login was requested: later than auth_time where a session spared the user a click.
        address: of the browser in which the user signed in.
        public: whether it belongs to a client without a credential.
    """

    tenant_id: str
    client_id: str
    user_id: str
    scope: str
    session: str
    redirect_uri: str = ""
    nonce: str = ""
    challenge: str = ""
    challenge_method: str = ""
    amr: str = "pwd"
    family: str = ""
    claims: str = ""
    auth_time: float = 0.0
    started: float = 0.0
    address: str = ""
    public: bool = False
