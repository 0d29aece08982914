"""What a service requires of a verified token, as one object: `Require`.

    readers = Require(scope="cases.read") | Require(app=True, role="case-reader")
    readers.check(claims)    # raises Forbidden: "needs scope 'cases.read' or an application's token with ..."

What belongs here: the conditions, how they combine, how they are said, and which of them a token fails. What
must never be here: verification (a requirement is checked after it), HTTP, and web frameworks.

A requirement is kept as alternatives, each a set of conditions that must all hold. There is no negation: what
a token may do follows from what it has.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, Never, TypedDict, Unpack, final

from entra_fast._assurance import LEVELS, higher, reaches
from entra_fast._native import Claims
from entra_fast.errors import Forbidden, StepUpRequired

__all__ = ["Alternative", "Require"]

MAX_ALTERNATIVES: Final = 64
"""Limit of a requirement's size: `&` multiplies alternatives."""

MAX_NAME: Final = 256
"""Limit of a name's length, in characters."""

ERROR_CODES = {
    "access_token_required": "the token is no access token",
    "app_required": "the token is not an application's",
    "user_required": "the token is not a user's",
    "issuer_required": "the token is of another issuer",
    "tenant_required": "the token is of another tenant",
    "client_required": "the token is another application's",
    "consumer_required": "the token is another organization's",
    "role_missing": "the token lacks a role",
    "scope_missing": "the token lacks a scope",
    "group_missing": "the token lacks a group",
    "groups_overage": "the token leaves its groups out because there are too many",
    "acr_too_low": "the user signed in at a lower level of authentication",
    "auth_context_missing": "the user did not satisfy an authentication context",
}
"""Every code that `Require.check` raises, in the order in which conditions are reported."""

# What may stand in a scope (RFC 6749, section 3.3), in an app role of Entra ID, and unescaped in a quoted
# string.
_NAME = re.compile(rf"[\x21\x23-\x5b\x5d-\x7e]{{1,{MAX_NAME}}}", re.ASCII)
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AUTH_CONTEXT = re.compile(r"c[1-9][0-9]?")  # Entra ID has c1 to c99
_ORGNO = re.compile(r"[0-9]{9}")
_URL = re.compile(r"https?://[\x21\x23-\x5b\x5d-\x7e]{1,2048}")

ORGANISATIONS: Final = "iso6523-actorid-upis"
_ORGANISATION_ID = re.compile(r"0192:([0-9]{9})")
"""How Maskinporten and ID-porten name organizations: the authority, and the id, which begins with Norway's
code in ISO 6523."""


class Conditions(TypedDict, total=False):
    """The keyword arguments of `Require` and of `Claims.require`."""

    app: Literal[True]
    user: Literal[True]
    role: str
    scope: str
    group: str
    tenant: str
    issuer: str
    client: str
    consumer_orgno: str
    acr_at_least: str
    auth_context: str
    any_of: Sequence[Require]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Conditions that must all hold.

    Attributes:
        kind: whose token it must be; None for any.
        issuer: the issuer.
        tenant: the tenant's id.
        client: client id of the calling application.
        consumer_orgno: number of the calling organization.
        roles: application roles.
        scopes: delegated permissions.
        groups: object ids of groups, in lower case.
        acr_at_least: the lowest accepted `acr`.
        auth_contexts: authentication contexts of Conditional Access (`acrs`).
    """

    kind: Literal["app", "user"] | None = None
    issuer: str | None = None
    tenant: str | None = None
    client: str | None = None
    consumer_orgno: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    acr_at_least: str | None = None
    auth_contexts: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The conditions as JSON, without those that are not set."""
        members = {
            "kind": self.kind,
            "issuer": self.issuer,
            "tenant": self.tenant,
            "client": self.client,
            "consumer_orgno": self.consumer_orgno,
            "roles": list(self.roles),
            "scopes": list(self.scopes),
            "groups": list(self.groups),
            "acr_at_least": self.acr_at_least,
            "auth_contexts": list(self.auth_contexts),
        }
        return {name: value for name, value in members.items() if value}

    def _words(self) -> list[str]:
        kind = {"app": ["an application's token"], "user": ["a user's token"], None: []}[self.kind]
        return kind + [
            f"{'at least ' if name == 'acr' else ''}{_named(name, value)}" for name, value in self._pairs()
        ]

    def _pairs(self) -> list[tuple[str, str]]:
        return [
            *([("issuer", self.issuer)] if self.issuer else []),
            *([("tenant", self.tenant)] if self.tenant else []),
            *([("client", self.client)] if self.client else []),
            *([("consumer", self.consumer_orgno)] if self.consumer_orgno else []),
            *(("role", role) for role in self.roles),
            *(("scope", scope) for scope in self.scopes),
            *(("group", group) for group in self.groups),
            *([("acr", self.acr_at_least)] if self.acr_at_least else []),
            *(("context", context) for context in self.auth_contexts),
        ]


@final
class Require:
    """What a token must have. All conditions that are named must hold; combine requirements by `|` and `&`.

    Every requirement needs an access token: one with `scp`, `roles` or `idtyp`. ID tokens of Entra ID have
    none of them. A token of another provider, which has no `tid`, is an access token also if it has
    `client_id` (RFC 9068, section 2.2) or `scope`: those of TokenX, Maskinporten and ID-porten do, ID tokens
    of ID-porten do not. If another provider writes these claims into ID tokens, too, they cannot be told
    apart: use an audience that ID tokens do not have.

    Args:
        app: True: a token of an application without a user (`idtyp` is `app`). NAIS registrations have the
            optional claim `idtyp`. Elsewhere add it to the registration, or no token passes.
        user: True: a token of an application on behalf of a user (`scp`, and `idtyp` is not `app`).
        role: an application role in `roles`. Users can have roles, too: add `app=True` for machines alone.
        scope: a delegated permission in `scp`, without the application's URI: `cases.read`. In tokens of
            other providers, one of `scope`: `nav:helse/sykepenger/afp.read` of Maskinporten.
        group: object id of a group in `groups`.
        tenant: id of the tenant (`tid`).
        issuer: the issuer (`iss`), compared exactly. Where a validator accepts several issuers, name the one
            whose clients, scopes or organizations you mean.
        client: client id of the calling application: `azp`, `appid`, or else `client_id`. From TokenX it is
            `<cluster>:<namespace>:<app>`. From ID-porten it is the platform: it identifies no application.
        consumer_orgno: number of the calling organization, from Maskinporten (`consumer`): nine digits. A
            supplier to which the organization has delegated the access passes, too: see
            `Claims.supplier_orgno`.
        acr_at_least: the lowest accepted level of authentication (`acr`): one of ID-porten
            (`idporten-loa-high`, or `Level4`), eIDAS or Ansattporten. Both spellings of a level are equal.
        auth_context: an authentication context of Conditional Access in `acrs`, `c1` to `c99`.
        any_of: requirements of which one must be met.

    Raises:
        TypeError: nothing is named, or a value has the wrong type. None is one: a name that is None because a
            setting is missing must not admit every token.
        ValueError: a value is no possible name, or no token can meet the conditions.
    """

    __slots__ = ("_alternatives", "_text")

    _alternatives: tuple[Alternative, ...]
    _text: str

    def __init__(self, **conditions: Unpack[Conditions]) -> None:
        alternatives = _alternatives_of(dict(conditions))
        object.__setattr__(self, "_alternatives", alternatives)
        object.__setattr__(self, "_text", _sentence(alternatives))

    @classmethod
    def any_token(cls) -> Require:
        """Any access token. Names no condition on purpose."""
        return _ANY_TOKEN

    @classmethod
    def _of(cls, alternatives: Sequence[Alternative]) -> Require:
        unique = tuple(dict.fromkeys(alternatives))
        if len(unique) > MAX_ALTERNATIVES:
            raise ValueError(
                f"a requirement can have at most {MAX_ALTERNATIVES} alternatives, not {len(unique)}"
            )
        made = object.__new__(cls)
        object.__setattr__(made, "_alternatives", unique)
        object.__setattr__(made, "_text", _sentence(unique))
        return made

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The alternatives, of which one must hold, from left to right."""
        return self._alternatives

    def check(self, claims: Mapping[str, Any]) -> None:
        """Raise unless the token has what is required.

        Args:
            claims: the claims of a verified token.

        Raises:
            Forbidden: it does not; `code` says which condition of the nearest alternative fails, the message
            what is
                needed. The message repeats nothing of the token.
            StepUpRequired: only the level of authentication is missing. The user can sign in again.
            TypeError: `claims` are no claims, such as None where a token is optional.
        """
        # Claims first: the question whether something is a mapping is a slow one.
        if not isinstance(claims, Claims) and not isinstance(claims, Mapping):
            raise TypeError(f"check() takes the claims of a verified token, not {type(claims).__name__}")
        token = _Token(claims)
        if not token.is_access_token:
            lacks = "neither client_id nor scope" if token.is_foreign else "none of scp, roles and idtyp"
            raise Forbidden(
                "access_token_required",
                f"{self}; this token has {lacks}, so it is no access token (an ID token?)",
            )
        missing = []
        for alternative in self._alternatives:
            lacking = token.missing(alternative)
            if not lacking:
                return
            missing.append(lacking)
        self._refuse(token, min(missing, key=token.distance))

    def describe(self) -> dict[str, Any]:
        """The requirement as JSON, for OpenAPI and other documentation: a sentence, and the alternatives."""
        return {"needs": str(self), "any_of": [one.describe() for one in self._alternatives]}

    def __or__(self, other: Require) -> Require:
        if not isinstance(other, Require):
            return NotImplemented
        return Require._of([*self._alternatives, *other._alternatives])

    def __and__(self, other: Require) -> Require:
        if not isinstance(other, Require):
            return NotImplemented
        return Require._of(_all_of(self._alternatives, other._alternatives))

    def __bool__(self) -> Never:
        raise TypeError(
            "a requirement is neither true nor false: combine by | and &, and ask by check(claims)"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Require):
            return NotImplemented
        return self._alternatives == other._alternatives

    def __hash__(self) -> int:
        return hash(self._alternatives)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Require: {self._text}>"

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a requirement cannot be changed")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("a requirement cannot be changed")

    def __copy__(self) -> Require:
        return self

    def __deepcopy__(self, _memo: object) -> Require:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Require._of, (self._alternatives,)

    def _refuse(self, token: _Token, nearest: list[_Missing]) -> Never:
        first = nearest[0]
        message = f"{self}; {self._lack(token, first)}"
        if first.code not in _STEP_UP:
            raise Forbidden(first.code, message)
        acr = next((one.value for one in nearest if one.code == "acr_too_low"), None)
        contexts = tuple(one.value for one in nearest if one.code == "auth_context_missing")
        raise StepUpRequired(first.code, message, acr_at_least=acr, auth_contexts=contexts)

    def _lack(self, token: _Token, first: _Missing) -> str:
        """What the token lacks, as the second half of a sentence that says what is needed."""
        if first.code == "groups_overage":
            return f"{token} leaves its groups out because there are too many"
        conditions = sum(len(one._words()) for one in self._alternatives)
        if conditions > len(self._alternatives):
            return f"{token} lacks {first.words}" if first.words else f"{token} is not one"
        if conditions == 1:
            return f"{token} does not have it" if first.words else f"{token} is not one"
        return f"{token} has {'neither' if conditions == 2 else 'none of them'}"


_STEP_UP: Final = ("acr_too_low", "auth_context_missing")


class _Missing(NamedTuple):
    """A condition that a token fails."""

    code: str
    words: str
    value: str = ""


class _Token:
    """The claims that conditions are compared with. A claim of an unexpected type counts as absent."""

    __slots__ = ("_get", "_scopes", "roles")

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._get = claims.get
        self._scopes: list[str] | None = None
        self.roles = self._strings("roles")

    @property
    def is_foreign(self) -> bool:
        """Whether it is of another provider than Entra ID, whose tokens all have a tenant."""
        return self._get("tid") is None

    @property
    def is_access_token(self) -> bool:
        """Whether it has what ID tokens do not have."""
        if self.roles or self.scopes:
            return True
        if (idtyp := self._get("idtyp")) and isinstance(idtyp, str):
            return True
        return self.is_foreign and isinstance(self._get("client_id"), str)

    @property
    def scopes(self) -> list[str]:
        """The words of `scp`; in tokens of other providers, of `scope` (RFC 9068, section 2.2.3)."""
        if self._scopes is None:
            self._scopes = self._words()
        return self._scopes

    def _words(self) -> list[str]:
        scopes = self._get("scp")
        if scopes is None and self.is_foreign:
            scopes = self._get("scope")
        return [word for word in scopes.split(" ") if word] if isinstance(scopes, str) else []

    @property
    def kind(self) -> str | None:
        """`app`, `user`, or None where it cannot be known."""
        if self._get("idtyp") == "app":
            return "app"
        # Other providers' machines have a `scope`, too.
        return "user" if self.scopes and self._get("scp") is not None else None

    def __str__(self) -> str:
        unknown = "this token" if self.is_foreign else "this token, with neither scp nor idtyp 'app',"
        return {"app": "this application's token", "user": "this user's token"}.get(self.kind or "", unknown)

    def missing(self, wanted: Alternative) -> list[_Missing]:
        """What of the alternative the token lacks, in the order in which conditions are reported."""
        missing: list[_Missing] = []
        if wanted.kind is not None and wanted.kind != self.kind:
            missing.append(_Missing(f"{wanted.kind}_required", ""))
        if wanted.issuer is not None and self._get("iss") != wanted.issuer:
            missing.append(_Missing("issuer_required", _named("issuer", wanted.issuer)))
        if wanted.tenant is not None and _lower(self._get("tid")) != wanted.tenant:
            missing.append(_Missing("tenant_required", _named("tenant", wanted.tenant)))
        if wanted.client is not None and self._client() != wanted.client:
            missing.append(_Missing("client_required", _named("client", wanted.client)))
        orgno = wanted.consumer_orgno
        if orgno is not None and organization_number(self._get("consumer")) != orgno:
            missing.append(_Missing("consumer_required", _named("consumer", orgno)))
        for role in wanted.roles:
            if role not in self.roles:
                missing.append(_Missing("role_missing", _named("role", role), role))
        for scope in wanted.scopes:
            if scope not in self.scopes:
                missing.append(_Missing("scope_missing", _named("scope", scope), scope))
        if wanted.groups:
            groups = [group.lower() for group in self._strings("groups")]
            code = "groups_overage" if not groups and self._has_groups_overage() else "group_missing"
            missing += [_Missing(code, _named("group", g), g) for g in wanted.groups if g not in groups]
        if wanted.acr_at_least is not None and not reaches(self._get("acr"), wanted.acr_at_least):
            missing.append(_Missing("acr_too_low", _named("acr", wanted.acr_at_least), wanted.acr_at_least))
        if wanted.auth_contexts:
            contexts = self._strings("acrs")
            lacking = (one for one in wanted.auth_contexts if one not in contexts)
            missing += [_Missing("auth_context_missing", _named("context", one), one) for one in lacking]
        return missing

    def distance(self, missing: list[_Missing]) -> tuple[int, int]:
        """How far the token is from an alternative. A step-up is nearest, because the user can mend it; what
        an application's token can never have is further."""
        step_up = sum(one.code in _STEP_UP for one in missing)
        never = self.kind == "app" and any(one.code in ("scope_missing", "group_missing") for one in missing)
        return len(missing) - step_up + never, step_up

    def _client(self) -> object:
        """As `Claims.authorized_party`."""
        values = (self._get(name) for name in ("azp", "appid", "client_id"))
        return next((value for value in values if isinstance(value, str)), None)

    def _strings(self, name: str) -> list[str]:
        value = self._get(name)
        return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def _has_groups_overage(self) -> bool:
        names = self._get("_claim_names")
        return (isinstance(names, Mapping) and "groups" in names) or self._get("hasgroups") is True


# --- words ---


_LABELS: Final = {
    "acr": "authentication level",
    "consumer": "consumer organization",
    "context": "authentication context",
}


def _named(name: str, value: str) -> str:
    return f"{_LABELS.get(name, name)} '{value}'"


def _sentence(alternatives: tuple[Alternative, ...]) -> str:
    said = [one._words() for one in alternatives]
    if any(not words for words in said):
        return "needs an access token"
    phrases = []
    for alternative, words in zip(alternatives, said, strict=True):
        if alternative.kind is not None and len(words) > 1:
            phrases.append(f"{words[0]} with {' and '.join(words[1:])}")
        else:
            phrases.append(" and ".join(words))
    compound = any(len(words) > 1 for words in said)
    return "needs " + (", or " if compound else " or ").join(phrases)


# --- construction ---


def _alternatives_of(given: dict[str, Any]) -> tuple[Alternative, ...]:
    unknown = next((name for name in given if name not in Conditions.__annotations__), None)
    if unknown is not None:
        raise TypeError(
            f"there is no condition {unknown!r}; there are {', '.join(Conditions.__annotations__)}"
        )
    if not given:
        raise TypeError("name a condition, such as role='reader'; Require.any_token() takes any access token")
    for name, value in given.items():
        if value is None:
            raise TypeError(
                f"{name} is None: is a setting missing? Leave the condition out if it is not wanted"
            )
    own: list[Alternative] = [
        _alternative({name: value for name, value in given.items() if name != "any_of"})
    ]
    if "any_of" in given:
        own = _all_of(own, _any_of(given["any_of"]))
    return tuple(dict.fromkeys(own))


def _any_of(value: object) -> list[Alternative]:
    if isinstance(value, str | Require) or not isinstance(value, Sequence):
        raise TypeError(f"any_of is a list of requirements, not {type(value).__name__}")
    for one in value:
        if not isinstance(one, Require):
            raise TypeError(
                f"any_of is a list of requirements, as Require(role='reader'), not of {type(one).__name__}"
            )
    if not value:
        raise ValueError("any_of is empty, so no token can meet it")
    found = [alternative for one in value for alternative in one.alternatives]
    if len(found) > MAX_ALTERNATIVES:
        raise ValueError(f"a requirement can have at most {MAX_ALTERNATIVES} alternatives, not {len(found)}")
    return found


def _alternative(given: dict[str, Any]) -> Alternative:
    kind: Literal["app", "user"] | None = None
    for name in ("app", "user"):
        if name not in given:
            continue
        if given[name] is not True:
            raise (ValueError if given[name] is False else TypeError)(
                f"{name} can only be True, as there is no negation: leave {name} out for any kind of token"
            )
        if kind is not None:
            raise ValueError(
                "app=True and user=True exclude each other: use Require(app=True) | Require(user=True)"
            )
        kind = "app" if name == "app" else "user"
    if kind == "app":
        for name in ("scope", "group"):
            if name in given:
                raise ValueError(f"app=True and {name} exclude each other: only a user's token has a {name}")
    named = {name: _name(name, given[name]) for name in ("role", "scope") if name in given}
    return Alternative(
        kind=kind,
        issuer=_issuer(given["issuer"]) if "issuer" in given else None,
        tenant=_guid("tenant", given["tenant"]) if "tenant" in given else None,
        client=_name("client", given["client"]) if "client" in given else None,
        consumer_orgno=_orgno(given["consumer_orgno"]) if "consumer_orgno" in given else None,
        roles=(named["role"],) if "role" in named else (),
        scopes=(named["scope"],) if "scope" in named else (),
        groups=(_guid("group", given["group"]),) if "group" in given else (),
        acr_at_least=_acr(given["acr_at_least"]) if "acr_at_least" in given else None,
        auth_contexts=(_auth_context(given["auth_context"]),) if "auth_context" in given else (),
    )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        hint = (
            f"; alternatives are Require({name}=...) | Require({name}=...)"
            if isinstance(value, list | tuple)
            else ""
        )
        raise TypeError(f"{name} is a string, not {type(value).__name__}{hint}")
    if not value:
        raise ValueError(f"{name} is empty: is a setting missing?")
    return value


def _name(name: str, value: object) -> str:
    text = _text(name, value)
    if " " in text:
        raise ValueError(f"{name} is one name, without spaces: combine several by | or &")
    if name == "scope" and "://" in text:
        raise ValueError(
            "scope is the permission's own name, as it stands in scp, without the URI: 'cases.read'"
        )
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{name} is at most {MAX_NAME} printable ASCII characters without quotes and backslashes"
        )
    return text


def _guid(name: str, value: object) -> str:
    text = _text(name, value)
    if not _GUID.fullmatch(text):
        what = "the object id of a group" if name == "group" else "the id of a tenant"
        raise ValueError(f"{name} is {what}: a GUID, not a name")
    return text.lower()


def _acr(value: object) -> str:
    text = _text("acr_at_least", value)
    if text not in LEVELS:
        raise ValueError(f"acr_at_least is one of {', '.join(LEVELS)}")
    return text


def _issuer(value: object) -> str:
    text = _text("issuer", value)
    if not _URL.fullmatch(text):
        raise ValueError("issuer is the URL in iss, as 'https://maskinporten.no/'")
    return text


def _orgno(value: object) -> str:
    text = _text("consumer_orgno", value)
    if not _ORGNO.fullmatch(text):
        raise ValueError("consumer_orgno is the number of an organization: nine digits")
    return text


def _auth_context(value: object) -> str:
    text = _text("auth_context", value)
    if not _AUTH_CONTEXT.fullmatch(text):
        raise ValueError("auth_context is the id of an authentication context: c1 to c99")
    return text


def _lower(value: object) -> str | None:
    return value.lower() if isinstance(value, str) else None


# --- combination ---


def _all_of(left: Sequence[Alternative], right: Sequence[Alternative]) -> list[Alternative]:
    """Every combination of an alternative of both sides, without those that no token can meet."""
    if len(left) * len(right) > MAX_ALTERNATIVES:
        raise ValueError(
            f"a requirement can have at most {MAX_ALTERNATIVES} alternatives, not {len(left) * len(right)}"
        )
    pairs = (_both(one, other) for one in left for other in right)
    possible = [pair for pair in pairs if pair is not None]
    if not possible:
        raise ValueError("no token can meet all of these conditions together")
    return possible


def _both(one: Alternative, other: Alternative) -> Alternative | None:
    """Both sets of conditions together; None where they exclude each other."""
    if None not in (one.kind, other.kind) and one.kind != other.kind:
        return None
    for name in ("issuer", "tenant", "client", "consumer_orgno"):  # of which a token has one
        values = getattr(one, name), getattr(other, name)
        if None not in values and values[0] != values[1]:
            return None
    acr = one.acr_at_least or other.acr_at_least
    if one.acr_at_least is not None and other.acr_at_least is not None:
        acr = higher(one.acr_at_least, other.acr_at_least)
        if acr is None:
            return None
    both = replace(
        one,
        kind=one.kind or other.kind,
        issuer=one.issuer or other.issuer,
        tenant=one.tenant or other.tenant,
        client=one.client or other.client,
        consumer_orgno=one.consumer_orgno or other.consumer_orgno,
        roles=_united(one.roles, other.roles),
        scopes=_united(one.scopes, other.scopes),
        groups=_united(one.groups, other.groups),
        acr_at_least=acr,
        auth_contexts=_united(one.auth_contexts, other.auth_contexts),
    )
    return None if both.kind == "app" and (both.scopes or both.groups) else both


def _united(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one + other))


_ANY_TOKEN: Final = Require._of([Alternative()])


# --- what Claims offers ---


def organization_number(claim: object) -> str | None:
    """The number in a claim that names an organization, such as Maskinporten's `consumer`; None if the claim
    has any other form."""
    if not isinstance(claim, Mapping) or claim.get("authority") != ORGANISATIONS:
        return None
    identifier = claim.get("ID")
    found = _ORGANISATION_ID.fullmatch(identifier) if isinstance(identifier, str) else None
    return None if found is None else found[1]


def acr_at_least(claims: Mapping[str, Any], level: object) -> bool:
    """What `Claims.acr_at_least` does: see there. Called by the native module."""
    return reaches(claims.get("acr"), _acr(level))


def check_claims(
    claims: Mapping[str, Any], requirement: Require | None, **conditions: Unpack[Conditions]
) -> None:
    """What `Claims.require` does: see there. Called by the native module."""
    if requirement is not None:
        if conditions:
            raise TypeError("require() takes a requirement or its conditions, not both")
        if not isinstance(requirement, Require):
            raise TypeError(f"require() takes a Require, not {type(requirement).__name__}")
        requirement.check(claims)
        return
    try:
        made = _made(**conditions)
    except TypeError:  # a value that is not hashable: a list, to be said by the constructor
        made = Require(**conditions)
    made.check(claims)


@functools.lru_cache(maxsize=1024, typed=True)  # typed: 1 is not True
def _made(**conditions: Unpack[Conditions]) -> Require:
    return Require(**conditions)
