"""ID-porten's tokens: their claims, and the response of the token endpoint that has them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from entra_fast.emulator.model import ids
from entra_fast.emulator.model.workloads import DEFAULT_ORGANIZATION
from entra_fast.emulator.protocol import faulty_tokens
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.idporten_logins import Grant, Identity
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.provider_keys import SigningKeys
from entra_fast.emulator.providers.idporten.clients import Client
from entra_fast.emulator.providers.idporten.store import Store

ID_TOKEN_LIFETIME: Final = 120
ACCESS_TOKEN_LIFETIME: Final = 3600
"""As digdirator registers NAIS's clients; ID-porten's own default is 120."""
UNSPECIFIED: Final = "unspecified"
"""The audience of an access token of a login that names no resource."""


class TokenIssuer:
    """Issues tokens."""

    def __init__(
        self,
        issuer: str,
        keys: SigningKeys,
        store: Store,
        clock: Callable[[], float],
        stray_key: Callable[[], PrivateKey],
    ) -> None:
        """Args:
        stray_key: makes a key that is not published.
        """
        self._issuer = issuer
        self._stray_key = stray_key
        self._keys = keys
        self._store = store
        self._clock = clock

    def respond(
        self, client: Client, method: str, grant: Grant, scope: str, faults: Sequence[Fault] = ()
    ) -> dict[str, Any]:
        """The response of the token endpoint (RFC 6749, section 5.1).

        Args:
            method: of client authentication.
            scope: of the access token. That of the refresh token is the grant's (RFC 6749, section 6).
            faults: what to corrupt in the access token.
        """
        return {
            "access_token": self.access_token(
                client.client_id,
                method,
                grant.identity,
                scope,
                grant.resource,
                faults,
                organization=client.organization,
            ),
            "id_token": self._id_token(client, grant),
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_LIFETIME,
            "refresh_token": self._store.new_refresh_token(grant),
            "scope": scope,
        }

    def access_token(
        self,
        client_id: str,
        method: str,
        identity: Identity,
        scope: str,
        resource: str,
        faults: Sequence[Fault] = (),
        *,
        organization: str = DEFAULT_ORGANIZATION,
    ) -> str:
        """A signed access token.

        Args:
            organization: number of the client's owner.
            method: how the client has authenticated.
            resource: the audience; empty for none.
            faults: what to corrupt in it.
        """
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject(client_id, identity),
            "aud": resource or UNSPECIFIED,
            "acr": identity.acr,
            "client_id": client_id,
            "client_amr": method,
            "consumer": {"authority": "iso6523-actorid-upis", "ID": f"0192:{organization}"},
            "scope": scope,
            **_pid(identity),
            "iat": now,
            "exp": now + ACCESS_TOKEN_LIFETIME,
            "jti": secrets.token_urlsafe(16),
        }
        return faulty_tokens.signed(claims, self._keys.active, faults, stray_key=self._stray_key, sign=_sign)

    def _id_token(self, client: Client, grant: Grant) -> str:
        """OpenID Connect Core 1.0, section 2; without `at_hash`, as ID-porten's."""
        now, identity = int(self._clock()), grant.identity
        email = {} if identity.email is None else {"email": identity.email}
        return _sign(
            self._keys.active,
            {
                "iss": self._issuer,
                "sub": subject(client.client_id, identity),
                "aud": client.client_id,
                "exp": now + ID_TOKEN_LIFETIME,
                "iat": now,
                "auth_time": int(grant.auth_time),
                "nonce": grant.nonce,
                "jti": secrets.token_urlsafe(16),
                "acr": identity.acr,
                "amr": [identity.amr],
                "locale": grant.locale,
                "sid": grant.session,
                **_pid(identity),
                **email,
            },
        )


def subject(client_id: str, identity: Identity) -> str:
    """`sub` of a person for one client (pairwise)."""
    return ids.pairwise_subject("idporten", client_id, identity.key)


def _pid(identity: Identity) -> dict[str, str]:
    return {} if identity.pid is None else {"pid": identity.pid}


def _sign(key: PrivateKey, claims: Mapping[str, Any]) -> str:
    header = {"kid": key.kid, "typ": "JWT", "alg": key.algorithm}
    return key.sign(_json(header), _json(claims))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
