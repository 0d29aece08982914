"""Several issuers in one validator: what is configured for each, and which of them a token is for.

What belongs here: `Issuer`, and the choice by the `iss` of a token. That `iss` is not verified, and need not
be: each issuer has a native validator of its own, with its own policy, key set and cache, and the chosen one
verifies everything. A wrong choice can only reject a token. What must never be here: verification, keys.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, Self, TypeVar

from entra_fast._late_imports import importing
from entra_fast._native import ERROR_CODES, Claims, KeySet, Validator, unverified_issuer
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.jwks_schedule import RefreshRules
from entra_fast.errors import ConfigurationError, InvalidToken


class Part(Protocol):
    """What verifies the tokens of one key set."""

    @property
    def native(self) -> Validator: ...


P = TypeVar("P", bound=Part)

TENANT: Final = "{tenantid}"
"""What stands for the token's own tenant in an issuer."""

_ENTRA_ID: Final = "https://login.microsoftonline.com"
_OF_ANY_TENANT: Final = ("common", "organizations")


_TOKENX_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Names of clusters and tenants of NAIS, as they stand in a host name."""

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AnyAudience(enum.Enum):
    """The type of `ANY_AUDIENCE`."""

    ANY_AUDIENCE = "any audience"

    def __repr__(self) -> str:
        return self.name


ANY_AUDIENCE: Final = AnyAudience.ANY_AUDIENCE
"""As an audience: `aud` is not checked, and may be absent. Maskinporten's tokens name an audience only if the
caller asked for one (`resource`), so an API requires a scope of its own instead: without that, a token for
any other API passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer that a validator accepts, with its own key set. A key of one issuer's set never verifies a
    token of another.

    Attributes:
        issuer: accepted values of `iss` whose tokens are signed with this key set, compared exactly. A part
            `{tenantid}` stands for the token's own `tid`; it needs `tenants`. May be left out where the
            discovery document names it.
        jwks_uri: https URL at which the keys are published (http for loopback only).
        jwks: a fixed key set instead: its JSON text, the decoded object, or a `KeySet`.
        discovery: URL of a discovery document instead, which is fetched once, when the validator is made.
        audience: accepted audiences of its tokens, or `ANY_AUDIENCE`; by default those of the validator.
        algorithms: accepted signature algorithms of its tokens; by default those of the validator.
        tenants: allowed tenants of its tokens; by default those of the validator.
        required_claims: claims that its tokens must have; by default those of the validator.
        refresh: when its keys are fetched; by default as the validator says.
        http: how its keys are fetched; by default as the validator says.
    """

    issuer: str | Sequence[str] | None = None
    jwks_uri: str | None = None
    jwks: str | bytes | Mapping[str, Any] | KeySet | None = None
    discovery: str | None = None
    audience: str | Sequence[str] | AnyAudience | None = None
    algorithms: Iterable[str] | None = None
    tenants: Iterable[str] | None = None
    required_claims: Iterable[str] | None = None
    refresh: RefreshRules | None = None
    http: HttpOptions | None = None

    def __post_init__(self) -> None:
        sources = [self.jwks_uri, self.jwks, self.discovery]
        if sum(source is not None for source in sources) != 1:
            message = "an Issuer needs exactly one of jwks_uri, jwks and discovery"
            raise ConfigurationError("setting_missing", message, "jwks_uri")
        if self.issuer is None and self.discovery is None:
            message = "issuer is missing: an Issuer without a discovery document must name it"
            raise ConfigurationError("setting_missing", message, "issuer")

    @classmethod
    def entra_id(
        cls,
        tenant: str,
        *,
        audience: str | Sequence[str] | None = None,
        tenants: Iterable[str] | None = None,
        http: HttpOptions | None = None,
    ) -> Self:
        """Entra ID's tokens of both versions, v1.0 and v2.0, which it signs with the same keys.

        Args:
            tenant: the tenant's id (a GUID); or `organizations` or `common`, with `tenants`.
            audience: accepted audiences: the client id, and for v1.0 tokens also the App ID URI.
            tenants: allowed tenants, where it is not one.
            http: as in `Issuer`.

        Raises:
            ConfigurationError: it is not a tenant's id.
        """
        name = str(tenant).lower()
        several = name in _OF_ANY_TENANT
        if not several and not _GUID.fullmatch(name):
            message = f"tenant must be a tenant's id (a GUID), or one of {', '.join(_OF_ANY_TENANT)}"
            raise ConfigurationError("setting_invalid", message, "tenant")
        path = TENANT if several else name
        return cls(
            issuer=(f"{_ENTRA_ID}/{path}/v2.0", f"https://sts.windows.net/{path}/"),
            jwks_uri=f"{_ENTRA_ID}/{name}/discovery/v2.0/keys",
            audience=audience,
            tenants=tenants,
            http=http,
        )

    @classmethod
    def tokenx(
        cls,
        cluster: str,
        tenant: str,
        *,
        audience: str | Sequence[str] | None = None,
        http: HttpOptions | None = None,
    ) -> Self:
        """TokenX's tokens: those that an application on NAIS exchanged for a call on behalf of a citizen. An
        unknown `kid` may cause keys to be fetched every 30 seconds, because TokenX changes them every day,
        unannounced.

        Args:
            cluster: the cluster, such as `prod-gcp`.
            tenant: the tenant of NAIS, such as `nav`: the issuer is
                `https://tokenx.<cluster>.<tenant>.cloud.nais.io`.
            audience: accepted audiences: the name of the called application, `<cluster>:<namespace>:<app>`.
            http: as in `Issuer`.

        Raises:
            ConfigurationError: a name cannot be part of a host name.
        """
        for setting, name in (("cluster", cluster), ("tenant", tenant)):
            if not isinstance(name, str) or not _TOKENX_NAME.fullmatch(name):
                message = f"{setting} must be the name of a {setting} of NAIS, in lower case"
                raise ConfigurationError("setting_invalid", message, setting)
        with importing:
            from entra_fast import _providers  # noqa: PLC0415 - few services need it

        issuer = f"https://tokenx.{cluster}.{tenant}.cloud.nais.io"
        return cls(
            issuer=issuer,
            jwks_uri=f"{issuer}/jwks",
            audience=audience,
            refresh=RefreshRules(cool_down=_providers.TOKENX.cool_down),
            http=http,
        )

    @classmethod
    def idporten(
        cls,
        environment: Literal["production", "test"] = "production",
        *,
        audience: str | Sequence[str] | None = None,
        http: HttpOptions | None = None,
    ) -> Self:
        """ID-porten's access tokens.

        Args:
            environment: `production` (`https://idporten.no`) or `test` (`https://test.idporten.no`).
            audience: accepted audiences: what the login asked for as `resource` (on NAIS,
                `IDPORTEN_AUDIENCE`).
            http: as in `Issuer`.

        Raises:
            ConfigurationError: there is no such environment.
        """
        issuer = f"https://{_prefix(environment)}idporten.no"
        return cls(issuer=issuer, jwks_uri=f"{issuer}/jwks.json", audience=audience, http=http)

    @classmethod
    def maskinporten(
        cls,
        environment: Literal["production", "test"] = "production",
        *,
        audience: str | Sequence[str] | AnyAudience = ANY_AUDIENCE,
        http: HttpOptions | None = None,
    ) -> Self:
        """Maskinporten's access tokens, of organizations. Require a scope of your API, and the organization
        where not every one with the scope may call: `Require(scope=..., consumer_orgno=...)`.

        Args:
            environment: `production` (`https://maskinporten.no/`) or `test`
                (`https://test.maskinporten.no/`).
            audience: accepted audiences, if your callers must ask for one (`resource`). By default `aud` is
                not checked.
            http: as in `Issuer`.

        Raises:
            ConfigurationError: there is no such environment.
        """
        issuer = f"https://{_prefix(environment)}maskinporten.no/"
        return cls(issuer=issuer, jwks_uri=f"{issuer}jwk", audience=audience, http=http)


class IssuerChoice(Generic[P]):
    """Chooses among parts of a validator by the issuer that a token names.

    Args:
        parts: each with the issuers whose tokens it verifies.
        max_token_bytes: a larger token is rejected before it is parsed.

    Raises:
        ConfigurationError: two parts have the same issuer.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[str], P]], max_token_bytes: int) -> None:
        self.names = tuple(name for names, _ in parts for name in names)
        self._exact: dict[str, P] = {}
        self._templates: list[tuple[str, str, P]] = []
        self._max_token_bytes = max_token_bytes
        self._any = parts[0][1]
        for name in self.names:
            if self.names.count(name) > 1:
                message = f"issuers must name each issuer once: '{name}' is there several times"
                raise ConfigurationError("setting_invalid", message, "issuers")
        for names, part in parts:
            for name in names:
                before, placeholder, after = name.partition(TENANT)
                if placeholder:
                    self._templates.append((before, after, part))
                else:
                    self._exact[name] = part

    def of(self, token: str | bytes) -> P:
        """The part that verifies a token.

        Raises:
            InvalidToken: it is not a token, or of another issuer.
        """
        issuer = unverified_issuer(token, self._max_token_bytes)
        part = self._exact.get(issuer)
        if part is not None:
            return part
        for before, after, other in self._templates:  # the part itself compares the tenant
            if issuer.startswith(before) and issuer.endswith(after):
                return other
        raise self.rejected()

    def verify(self, token: str | bytes, now: float | None = None) -> Claims:
        """The claims of a token, verified by the part that it is for.

        Raises:
            InvalidToken: it is rejected.
            KeysUnavailable: there are no keys of its issuer.
        """
        return self.of(token).native.validate(token, now)

    def explain(self, token: str | bytes, now: float | None = None) -> list[dict[str, Any]]:
        """The checks by the part that a token is for. Another issuer has no policy and no key set, so most
        checks cannot be made."""
        try:
            return self.of(token).native.explain(token, now)
        except InvalidToken as error:
            rejected = error
        rows = self._any.native.explain(token, now)
        for row in rows if rejected.code == "wrong_issuer" else ():
            if row["check"] == "issuer":
                row |= {"passed": False, "value": "", "code": rejected.code, "message": rejected.message}
                row |= {"expected": rejected.expected, "actual": rejected.actual}
            elif row["check"] not in {"form", "header", "claims"}:
                row |= {"passed": None, "value": "", "code": None, "message": None}
                row |= {"expected": None, "actual": None}
        return rows

    def rejected(self) -> InvalidToken:
        """The error for a token of another issuer. What it names is not repeated: nobody has signed it."""
        return InvalidToken("wrong_issuer", ERROR_CODES["wrong_issuer"], " or ".join(self.names))

    def by_part(self, tokens: Sequence[str | bytes]) -> tuple[dict[int, InvalidToken], dict[P, list[int]]]:
        """Positions of tokens: with the error of those that no part verifies, and by part."""
        errors: dict[int, InvalidToken] = {}
        positions: dict[P, list[int]] = {}
        for index, token in enumerate(tokens):
            try:
                positions.setdefault(self.of(token), []).append(index)
            except InvalidToken as error:
                errors[index] = error.with_traceback(None)
        return errors, positions


def _prefix(environment: object) -> str:
    """What stands in front of a provider's domain."""
    if environment not in ("production", "test"):
        message = "environment must be 'production' or 'test'"
        raise ConfigurationError("setting_invalid", message, "environment")
    return "" if environment == "production" else "test."
