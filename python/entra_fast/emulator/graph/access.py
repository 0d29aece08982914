"""Who calls, and may they? This project's own validator verifies the tokens; the permissions are Graph's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from entra_fast._native import Policy, Validator
from entra_fast.emulator.graph.errors import GraphError
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Registry, Tenant
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.policy import Reason
from entra_fast.errors import InvalidToken

_USER: Final = frozenset({"User.Read"})
_BASIC: Final = frozenset({"User.ReadBasic.All"})
_USERS: Final = frozenset({"User.Read.All"})
_GROUPS: Final = frozenset({"GroupMember.Read.All"})
_DIRECTORY: Final = frozenset({"Directory.Read.All"})


@dataclass(frozen=True, slots=True)
class Access:
    """What a request needs: all permissions of any one set.

    Attributes:
        own: of a user who asks about himself or herself.
        delegated: of any user's token.
        app: of an application's own token.
    """

    own: tuple[frozenset[str], ...]
    delegated: tuple[frozenset[str], ...]
    app: tuple[frozenset[str], ...]


READ_ME: Final = Access((_USER, _USERS, _DIRECTORY), (), ())
READ_USERS: Final = Access((_USER,), (_BASIC, _USERS, _DIRECTORY), (_USERS, _DIRECTORY))
READ_MEMBERSHIPS: Final = Access((_USER,), (_GROUPS, _DIRECTORY), (_GROUPS, _DIRECTORY, _USERS))
READ_GROUPS: Final = Access((), (_GROUPS, _DIRECTORY), (_GROUPS, _DIRECTORY))
LIST_MEMBERSHIPS: Final = Access((_USER,), (_USERS, _DIRECTORY), (_USERS, _DIRECTORY))
CHECK_MEMBERSHIPS: Final = Access(
    (), (_USERS | _GROUPS, _BASIC | _GROUPS, _DIRECTORY), (_USERS | _GROUPS, _DIRECTORY)
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a verified token speaks for.

    Attributes:
        client: name of the application.
        user_id: object id of the user; empty in an application's own token.
        permissions: scopes of a user's token, roles of an application's own.
    """

    tenant: Tenant
    client: str
    user_id: str
    permissions: frozenset[str]

    @property
    def user(self) -> User | None:
        """The user, if there is one and the directory still has it."""
        return self.tenant.directory.users.get(self.user_id)

    def check(self) -> Reason:
        """What the journal says about the token."""
        person = self.user
        who = person.username if person is not None else self.user_id
        text = f"a token for {graph.NAME}, issued to {self.client}"
        return Reason("token", True, f"{text} on behalf of {who}" if who else f"{text} itself")

    def may(self, access: Access, *, own: bool = False) -> Reason:
        """Whether the permissions suffice, as a check for the journal.

        Args:
            own: whether the request is about the user of the token.
        """
        alternatives = access.app
        if self.user_id:
            alternatives = (*access.own, *access.delegated) if own else access.delegated
        # A caller that may read groups may read their members.
        held = self.permissions | (_GROUPS if "Group.Read.All" in self.permissions else frozenset())
        sufficient = next((names for names in alternatives if names <= held), None)
        if sufficient is not None:
            return Reason("permission", True, f"the token has {' and '.join(sorted(sufficient))}")
        wanted = " or ".join(" and ".join(sorted(names)) for names in alternatives)
        has = " ".join(sorted(self.permissions)) or "none"
        return Reason(
            "permission",
            False,
            f"needs {wanted}; the token has {has}",
            remedy=f"request the scope {wanted}"
            if self.user_id
            else f"add {wanted} to the annotation {graph.ROLES_ANNOTATION} of {self.client}",
        )


def authenticate(
    authorization: str | None, registry: Registry, base_url: str, keyring: Keyring, now: float
) -> Caller:
    """Verify the token of a request. Raises GraphError 401; its detail is the validator's own finding."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthenticated("Access token is empty.", "the request has no bearer token")
    issuers = [
        name
        for tenant in registry.tenants
        for name in (Issuer(base_url, tenant).v1, Issuer(base_url, tenant).v2)
    ]
    policy = Policy(
        issuers=issuers, audiences=graph.audiences(base_url), algorithms=keyring.algorithms, leeway=0.0
    )
    try:
        claims = Validator(policy, keyring.key_set, cache_entries=1).validate(token.strip(), now)
    except InvalidToken as error:
        text = {
            "wrong_audience": "Access token validation failure. Invalid audience.",
            "token_expired": "Lifetime validation failed, the token is expired.",
            "token_not_yet_valid": "Lifetime validation failed, the token is not yet valid.",
            "not_a_jwt": "CompactToken parsing failed with error code: 80049217",
        }.get(error.code, "Access token validation failure.")
        raise _unauthenticated(text, error.message) from None
    tenant = registry.tenant(str(claims.get("tid", "")))
    if tenant is None or not (claims.is_app or claims.scopes):
        text = "Access token validation failure."
        raise _unauthenticated(text, "the token has neither scopes nor roles of this tenant")
    client_id = str(claims.get("appid", ""))
    client = tenant.application(client_id)
    return Caller(
        tenant,
        client_id if client is None else client.name,
        "" if claims.is_app else str(claims.get("oid", "")),
        frozenset(claims.roles if claims.is_app else claims.scopes),
    )


def _unauthenticated(message: str, detail: str) -> GraphError:
    return GraphError(
        401,
        "InvalidAuthenticationToken",
        message,
        detail=detail,
        remedy=f"send a token for {graph.NAME}: scope=User.Read on behalf of a user, or "
        f"scope={graph.URL}/.default",
    )
