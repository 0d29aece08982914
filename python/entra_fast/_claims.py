"""Claims that this process has not verified itself, with the interface of `Claims`.

What belongs here: the read-only mapping and its typed helpers, as the native `Claims` has them
(rust/py/src/claims.rs; a test compares the two). Where the claims come from, and whether they can be trusted,
belongs to the subclasses.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, Unpack, overload

import orjson

from entra_fast._native import Agent, unverified_agent
from entra_fast.require import Conditions, Require, acr_at_least, check_claims, organization_number

if TYPE_CHECKING:
    from entra_fast._groups import AsyncUserTokenSource, GroupOptions, UserTokenSource

_PARTIES: Final = ("azp", "appid", "client_id")
"""Claims that name the application that asked for the token, the first ones first."""


class ClaimsView(Mapping[str, Any]):
    """A read-only mapping over claims.

    Args:
        text: a JSON object. Values are converted each time they are asked for, so that nothing a caller does
            to a list reaches another caller.
    """

    __slots__ = ("_claims", "_text")

    def __init__(self, text: str) -> None:
        claims = orjson.loads(text)
        if not isinstance(claims, dict):
            raise TypeError("claims must be a JSON object")
        self._text = text
        self._claims: dict[str, Any] = claims

    def __getitem__(self, name: str) -> Any:
        value = self._claims[name]
        return orjson.loads(orjson.dumps(value)) if isinstance(value, list | dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    @property
    def is_app(self) -> bool:
        """Whether the token is an application's own, without a user: see `Claims.is_app`."""
        return self._claims.get("idtyp") == "app"

    @property
    def is_user(self) -> bool:
        """Whether the token is an application's on behalf of a user: see `Claims.is_user`."""
        return not self.is_app and self._string("scp") is not None and bool(self.scopes)

    @property
    def roles(self) -> tuple[str, ...]:
        """Application roles (`roles`)."""
        return self._strings("roles")

    @property
    def scopes(self) -> tuple[str, ...]:
        """Delegated permissions (the words of `scp`). In tokens of other providers, which have no `tid`, the
        words of `scope` where there is no `scp`."""
        is_entra_id = self._claims.get("scp") is not None or self._claims.get("tid") is not None
        name = "scp" if is_entra_id else "scope"
        return tuple(word for word in (self._string(name) or "").split(" ") if word)

    @property
    def groups(self) -> tuple[str, ...]:
        """Object ids of the user's groups (`groups`). Empty also where there were too many: see
        `has_groups_overage`."""
        return self._strings("groups")

    @property
    def has_groups_overage(self) -> bool:
        """True where Entra ID left the groups out because there are too many."""
        names = self._claims.get("_claim_names")
        return (isinstance(names, dict) and "groups" in names) or self._claims.get("hasgroups") is True

    @property
    def expires_at(self) -> float:
        """`exp`, in seconds since the epoch."""
        return float(self._claims["exp"])

    @property
    def issued_at(self) -> float | None:
        """`iat`, in seconds since the epoch."""
        issued = self._claims.get("iat")
        return float(issued) if isinstance(issued, int | float) and not isinstance(issued, bool) else None

    @property
    def tenant_id(self) -> str | None:
        """The tenant (`tid`)."""
        return self._string("tid")

    @property
    def object_id(self) -> str | None:
        """The user or service principal (`oid`)."""
        return self._string("oid")

    @property
    def authorized_party(self) -> str | None:
        """Client id of the application that asked for the token (`azp`, `appid` or `client_id`): see
        `Claims.authorized_party`."""
        return next((text for name in _PARTIES if (text := self._string(name)) is not None), None)

    @property
    def pid(self) -> str | None:
        """The person's national identity number (`pid`): see `Claims.pid`."""
        return self._string("pid")

    @property
    def acr(self) -> str | None:
        """The level of assurance of the sign-in (`acr`), as the token spells it."""
        return self._string("acr")

    def acr_at_least(self, level: str, /) -> bool:
        """Whether the user signed in at this level of assurance or a higher one: see `Claims.acr_at_least`.

        Raises:
            ValueError: there is no such level.
        """
        return acr_at_least(self, level)

    @property
    def consumer_orgno(self) -> str | None:
        """Number of the organization that calls (`consumer`): see `Claims.consumer_orgno`."""
        return organization_number(self._claims.get("consumer"))

    @property
    def supplier_orgno(self) -> str | None:
        """Number of the organization that calls on behalf of the consumer (`supplier`); None where nothing is
        delegated."""
        return organization_number(self._claims.get("supplier"))

    @property
    def authorization_details(self) -> tuple[dict[str, Any], ...]:
        """The objects in `authorization_details` (RFC 9396, section 9.1)."""
        value = self._claims.get("authorization_details")
        details = value if isinstance(value, list) else []
        return tuple(orjson.loads(orjson.dumps(one)) for one in details if isinstance(one, dict))

    @property
    def agent(self) -> Agent | None:
        """The agent identity behind the token (Microsoft Entra Agent ID); None if there is none."""
        return unverified_agent(self._text)

    @property
    def name(self) -> str | None:
        """The user's display name (`name`). For display, never for decisions."""
        return self._string("name")

    def require(self, requirement: Require | None = None, /, **conditions: Unpack[Conditions]) -> None:
        """Raise Forbidden unless the claims have what is required: see `Claims.require`.

        Raises:
            Forbidden: they do not; `code` says what is missing.
            TypeError: nothing is named, or a value is None.
        """
        check_claims(self, requirement, **conditions)

    @overload
    def groups_complete(
        self, tokens: UserTokenSource, /, **options: Unpack[GroupOptions]
    ) -> tuple[str, ...]: ...

    @overload
    def groups_complete(
        self, tokens: AsyncUserTokenSource, /, **options: Unpack[GroupOptions]
    ) -> Coroutine[Any, Any, tuple[str, ...]]: ...

    def groups_complete(
        self, tokens: UserTokenSource | AsyncUserTokenSource, /, **options: Unpack[GroupOptions]
    ) -> Any:
        """The ids of all groups of the user: see `Claims.groups_complete`."""
        from entra_fast._groups import groups_complete  # noqa: PLC0415 - few services need it

        return groups_complete(self, tokens, **options)

    def as_dict(self) -> dict[str, Any]:
        """All claims as a new dict."""
        return dict(orjson.loads(self._text))

    def as_json(self) -> str:
        """The claims' JSON text."""
        return self._text

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{type(self).__name__} cannot be pickled: use as_dict()")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(self._claims)}>"

    def _string(self, name: str) -> str | None:
        value = self._claims.get(name)
        return value if isinstance(value, str) else None

    def _strings(self, name: str) -> tuple[str, ...]:
        value = self._claims.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


class UnverifiedClaims(ClaimsView):
    """Claims that no one has verified, for unit tests: see `entra_fast.testing.claims`. Integrations refuse
    them, unless a test has installed them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<UnverifiedClaims, for tests only: {', '.join(self)}>"
