"""The providers as data: one row for each kind, with everything in which it differs from the others.

What belongs here: facts about a provider that change how it is configured, asked and judged. A generic OpenID
Connect provider is a row that the operator's settings make. What must never be here: requests, and the
settings of an installation.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final


class Grant(enum.Enum):
    """How a token is requested. The values are names of grants in metrics."""

    CLIENT_CREDENTIALS = "client_credentials"
    """RFC 6749, section 4.4."""
    ON_BEHALF_OF = "on_behalf_of"
    """Entra ID's form of RFC 7523, section 2.1: the assertion is the user's token."""
    JWT_BEARER = "jwt_bearer"
    """RFC 7523, section 2.1: the assertion is signed by the client, and authenticates it as well."""
    TOKEN_EXCHANGE = "token_exchange"
    """RFC 8693."""


class Audience(enum.Enum):
    """Which `aud` an introspected token must have."""

    CLIENT_ID = "client_id"
    """The client id of the application."""
    SETTING = "setting"
    """What a setting of the provider says."""
    ANY = "any"
    """It is not checked: tokens of this provider have none, or one that says nothing."""


@dataclass(frozen=True, slots=True)
class Variables:
    """The names of a provider's settings. None: the provider has no such setting."""

    well_known_url: str
    issuer: str
    jwks_uri: str
    algorithms: str
    enabled: str | None = None
    client_id: str | None = None
    jwk: str | None = None
    token_endpoint: str | None = None
    audience: str | None = None
    scopes: str | None = None

    @property
    def next_jwk(self) -> str | None:
        """The key that follows `jwk` in a rotation."""
        return None if self.jwk is None else f"{self.jwk.removesuffix('JWK')}NEXT_JWK"

    @property
    def main(self) -> str:
        """The setting without which the provider cannot be used."""
        return self.client_id or self.audience or self.issuer


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """A kind of provider.

    Attributes:
        name: as `identity_provider` names it; also the label of metrics.
        title: its name in sentences for people.
        variables: names of its settings.
        directory: where the settings are as files, below /var/run/secrets/nais.io: NAIS mounts them there.
            None if nowhere.
        aliases: further values of `identity_provider` that mean it.
        enabled_by_client_id: whether a client id enables it where its switch is not set. Texas demands the
            switch.
        token_grant: how the application's own token is requested; None if it cannot be.
        exchange_grant: how a user's token is exchanged; None if it cannot be.
        assertion_audience_is_issuer: whether `aud` of an assertion is the issuer; else it is the token
            endpoint.
        audience: which `aud` an introspected token must have.
        rewrites_targets: whether `<cluster>:<namespace>:<app>` becomes a scope of Entra ID; else targets
            reach the provider untouched.
        accepts_claims: whether a claims challenge is passed on.
        accepts_details: whether `resource` (RFC 8707) and `authorization_details` (RFC 9396) are passed on.
        rejections: the errors and codes with which the provider rejects the application or its credential.
            The list is closed: any other refusal is about the request.
        rejection_text: the descriptions that mean the same, where the provider has no code for it.
        tried_scope: from client id and consumed scopes, the scope of the token that is requested to try the
            credential, which must need no permission; None if there is no such token.
        clock_tolerance: seconds by which the clocks may differ before a warning.
        cool_down: seconds between two fetches of keys because of tokens that the known keys do not verify.
    """

    name: str
    title: str
    variables: Variables
    directory: str | None = None
    aliases: tuple[str, ...] = ()
    enabled_by_client_id: bool = False
    token_grant: Grant | None = None
    exchange_grant: Grant | None = None
    assertion_audience_is_issuer: bool = True
    audience: Audience = Audience.CLIENT_ID
    rewrites_targets: bool = False
    accepts_claims: bool = False
    accepts_details: bool = False
    rejections: frozenset[str] = frozenset({"invalid_client"})
    rejection_text: re.Pattern[str] | None = None
    tried_scope: Callable[[str, tuple[str, ...]], str | None] = lambda _client_id, _scopes: None
    clock_tolerance: float = 30.0
    cool_down: float = 300.0

    @property
    def names(self) -> tuple[str, ...]:
        """All values of `identity_provider` that mean it."""
        return (self.name, *self.aliases)

    @property
    def checks_audience(self) -> bool:
        """Whether an introspected token must have some audience."""
        return self.audience is not Audience.ANY

    @property
    def has_credential(self) -> bool:
        """Whether the application authenticates itself to it."""
        return self.token_grant is not None or self.exchange_grant is not None


ENTRA_ID: Final = ProviderKind(
    "entra_id",
    "Entra ID",
    Variables(
        algorithms="ENTRA_FAST_ALGORITHMS",
        enabled="AZURE_ENABLED",
        well_known_url="AZURE_APP_WELL_KNOWN_URL",
        issuer="AZURE_OPENID_CONFIG_ISSUER",
        jwks_uri="AZURE_OPENID_CONFIG_JWKS_URI",
        client_id="AZURE_APP_CLIENT_ID",
        jwk="AZURE_APP_JWK",
        token_endpoint="AZURE_OPENID_CONFIG_TOKEN_ENDPOINT",
    ),
    directory="azure",
    aliases=("azuread",),
    enabled_by_client_id=True,
    token_grant=Grant.CLIENT_CREDENTIALS,
    exchange_grant=Grant.ON_BEHALF_OF,
    assertion_audience_is_issuer=False,
    rewrites_targets=True,
    accepts_claims=True,
    # The application's own token, which it may always have. The resource must be the GUID: AADSTS90009.
    tried_scope=lambda client_id, _: f"{client_id}/.default",
    rejections=frozenset(
        {
            "invalid_client",
            "AADSTS700016",  # no such application in this tenant
            "AADSTS90002",  # no such tenant
            "AADSTS7000112",  # the application is disabled
            "AADSTS7000215",  # wrong secret
            "AADSTS7000222",  # the secret has expired
            "AADSTS700027",  # unknown key, or the signature does not verify
            "AADSTS700024",  # the assertion is outside its time range: a clock is wrong
        }
    ),
)

MASKINPORTEN: Final = ProviderKind(
    "maskinporten",
    "Maskinporten",
    Variables(
        algorithms="ENTRA_FAST_MASKINPORTEN_ALGORITHMS",
        enabled="MASKINPORTEN_ENABLED",
        well_known_url="MASKINPORTEN_WELL_KNOWN_URL",
        issuer="MASKINPORTEN_ISSUER",
        jwks_uri="MASKINPORTEN_JWKS_URI",
        client_id="MASKINPORTEN_CLIENT_ID",
        jwk="MASKINPORTEN_CLIENT_JWK",
        token_endpoint="MASKINPORTEN_TOKEN_ENDPOINT",
        scopes="MASKINPORTEN_SCOPES",
    ),
    directory="maskinporten",
    token_grant=Grant.JWT_BEARER,
    audience=Audience.ANY,
    accepts_details=True,
    rejections=frozenset({"invalid_client", "MP-100", "MP-110", "MP-121", "MP-124"}),
    rejection_text=re.compile(r".*Unknown key identifier \(kid\) for client"),
    tried_scope=lambda _, scopes: next(iter(scopes), None),
    clock_tolerance=5.0,  # it wants `iat` within 10 s of its own clock
)

TOKENX: Final = ProviderKind(
    "tokenx",
    "TokenX",
    Variables(
        algorithms="ENTRA_FAST_TOKENX_ALGORITHMS",
        enabled="TOKEN_X_ENABLED",
        well_known_url="TOKEN_X_WELL_KNOWN_URL",
        issuer="TOKEN_X_ISSUER",
        jwks_uri="TOKEN_X_JWKS_URI",
        client_id="TOKEN_X_CLIENT_ID",
        jwk="TOKEN_X_PRIVATE_JWK",
        token_endpoint="TOKEN_X_TOKEN_ENDPOINT",
    ),
    directory="jwker",
    exchange_grant=Grant.TOKEN_EXCHANGE,
    # About the assertion. The other refusals are about the request, and repeat what was asked for.
    rejection_text=re.compile(
        r"token verification failed"
        r"|(?!invalid subject_token|token exchange audience|client '|Parameter ).*\bnot registered\b"
    ),
    cool_down=30.0,  # it rotates its keys every day and publishes none in advance
)

IDPORTEN: Final = ProviderKind(
    "idporten",
    "ID-porten",
    Variables(
        algorithms="ENTRA_FAST_IDPORTEN_ALGORITHMS",
        enabled="IDPORTEN_ENABLED",
        well_known_url="IDPORTEN_WELL_KNOWN_URL",
        issuer="IDPORTEN_ISSUER",
        jwks_uri="IDPORTEN_JWKS_URI",
        audience="IDPORTEN_AUDIENCE",
    ),
    directory="idporten",
    audience=Audience.SETTING,
)

ANSATTPORTEN: Final = ProviderKind(
    "ansattporten",
    "Ansattporten",
    Variables(
        algorithms="ENTRA_FAST_ANSATTPORTEN_ALGORITHMS",
        enabled="ANSATTPORTEN_ENABLED",
        well_known_url="ANSATTPORTEN_WELL_KNOWN_URL",
        issuer="ANSATTPORTEN_ISSUER",
        jwks_uri="ANSATTPORTEN_JWKS_URI",
        audience="ANSATTPORTEN_AUDIENCE",
    ),
    directory="ansattporten",
    audience=Audience.SETTING,
)

BUILT_IN: Final = (ENTRA_ID, MASKINPORTEN, TOKENX, IDPORTEN, ANSATTPORTEN)
"""The providers of Texas."""

RESERVED: Final = frozenset(name for kind in BUILT_IN if kind is not ANSATTPORTEN for name in kind.names)
"""Names that no generic provider can have. Ansattporten was a generic provider before it was built in, so its
name may still be that of one, in its place."""

GENERIC_PREFIX: Final = "ENTRA_FAST_PROVIDER_"
"""What the settings of all generic providers begin with."""


def generic_variables(name: str) -> Variables:
    """The names of the settings of a generic provider."""
    prefix = f"{GENERIC_PREFIX}{name.upper()}_"
    return Variables(
        well_known_url=f"{prefix}WELL_KNOWN_URL",
        issuer=f"{prefix}ISSUER",
        jwks_uri=f"{prefix}JWKS_URI",
        algorithms=f"{prefix}ALGORITHMS",
        client_id=f"{prefix}CLIENT_ID",
        jwk=f"{prefix}JWK",
        token_endpoint=f"{prefix}TOKEN_ENDPOINT",
        audience=f"{prefix}AUDIENCE",
    )


def generic(
    name: str,
    *,
    title: str,
    token_grant: Grant | None = None,
    exchange_grant: Grant | None = None,
    assertion_audience_is_issuer: bool = True,
    checks_audience: bool = True,
    cool_down: float = 300.0,
) -> ProviderKind:
    """The kind of a provider that the operator's settings describe. Arguments as for `ProviderKind`."""
    return ProviderKind(
        name,
        title,
        generic_variables(name),
        token_grant=token_grant,
        exchange_grant=exchange_grant,
        assertion_audience_is_issuer=assertion_audience_is_issuer,
        audience=Audience.SETTING if checks_audience else Audience.ANY,
        accepts_details=token_grant is Grant.JWT_BEARER,
        cool_down=cool_down,
    )


def named(name: str, kinds: Iterable[ProviderKind] = BUILT_IN) -> ProviderKind | None:
    """The kind that a value of `identity_provider` means, or None."""
    return next((kind for kind in kinds if name in kind.names), None)
