"""Users and groups as Graph's JSON: their properties, the default selection, and types in mixed lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.emulator.graph.errors import GraphError
from entra_fast.emulator.model.directory import Group, User


def _nick(address: str) -> str:
    return address.partition("@")[0]


_USER: Final[Mapping[str, Callable[[User], Any]]] = {
    "businessPhones": lambda _: [],
    "displayName": lambda user: user.name,
    "givenName": lambda user: user.given_name,
    "jobTitle": lambda _: None,
    "mail": lambda user: user.mail,
    "mobilePhone": lambda _: None,
    "officeLocation": lambda _: None,
    "preferredLanguage": lambda _: None,
    "surname": lambda user: user.family_name,
    "userPrincipalName": lambda user: user.username,
    "id": lambda user: user.id,
    # From here on, only where `$select` names them.
    "accountEnabled": lambda _: True,
    "mailNickname": lambda user: _nick(user.username),
    "onPremisesSamAccountName": lambda user: user.nav_ident,
    "otherMails": lambda _: [],
    "proxyAddresses": lambda user: [f"SMTP:{user.mail}"] if user.mail else [],
    "userType": lambda _: "Member",
    **dict.fromkeys(
        (
            "city",
            "companyName",
            "country",
            "createdDateTime",
            "department",
            "employeeId",
            "onPremisesExtensionAttributes",
            "onPremisesImmutableId",
            "onPremisesUserPrincipalName",
            "postalCode",
            "state",
            "streetAddress",
            "usageLocation",
        ),
        lambda _: None,
    ),
}
_GROUP: Final[Mapping[str, Callable[[Group], Any]]] = {
    "id": lambda group: group.id,
    "createdDateTime": lambda _: None,
    "description": lambda _: None,
    "displayName": lambda group: group.name,
    "groupTypes": lambda _: [],
    "mail": lambda _: None,
    "mailEnabled": lambda _: False,
    "mailNickname": lambda group: group.name,
    "onPremisesSamAccountName": lambda _: None,
    "onPremisesSyncEnabled": lambda _: None,
    "proxyAddresses": lambda _: [],
    "securityEnabled": lambda _: True,
    "visibility": lambda _: None,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of resource.

    Attributes:
        name: as in Graph's addresses and types: `user`, `group`.
        label: as in Graph's sentences: `User`, `Group`.
        collection: as in Graph's contexts: `users`, `groups`.
        default: the properties that are returned without `$select`.
        searchable: the properties that `$search` looks at.
    """

    name: str
    label: str
    properties: Mapping[str, Callable[[Any], Any]]
    default: tuple[str, ...]
    searchable: tuple[str, ...]

    @property
    def collection(self) -> str:
        """The name of all resources of this type together."""
        return f"{self.name}s"

    @property
    def type(self) -> str:
        """The value of `@odata.type`."""
        return f"#microsoft.graph.{self.name}"

    def property_named(self, name: str) -> str | None:
        """A property in Graph's own spelling, whose case does not matter."""
        return self._spellings().get(name.lower())

    def selected(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The properties to return.

        Raises:
            GraphError: there is no property of that name.
        """
        if not names:
            return self.default
        found: dict[str, None] = {}
        for name in names:
            spelled = self.property_named(name)
            if spelled is None:
                text = (
                    f"Could not find a property named '{name[:100]}' on type 'microsoft.graph.{self.name}'."
                )
                raise GraphError(400, "BadRequest", f"Parsing OData Select and Expand failed: {text}")
            found[spelled] = None
        return tuple(found)

    def value(self, resource: User | Group, name: str) -> Any:
        """One property of a resource."""
        return self.properties[name](resource)

    def show(self, resource: User | Group, names: tuple[str, ...]) -> dict[str, Any]:
        """A resource as JSON."""
        return {name: self.properties[name](resource) for name in names}

    def _spellings(self) -> Mapping[str, str]:
        return _SPELLINGS[self.name]


USER: Final = Kind("user", "User", _USER, tuple(_USER)[:11], ("displayName", "mail", "userPrincipalName"))
GROUP: Final = Kind("group", "Group", _GROUP, tuple(_GROUP), ("displayName", "description"))
_SPELLINGS: Final = {kind.name: {name.lower(): name for name in kind.properties} for kind in (USER, GROUP)}
