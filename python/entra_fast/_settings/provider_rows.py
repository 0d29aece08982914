"""The settings of one provider, as rows of the catalogue.

What belongs here: the rows that follow from a provider's kind (_providers.py), for the built-in providers and
for generic ones. What must never be here: reading them (providers.py), and the rows that only Entra ID has
(catalogue.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from entra_fast._native import ALGORITHMS
from entra_fast._providers import Audience, ProviderKind, generic_variables
from entra_fast._settings.kinds import (
    Authority,
    Boolean,
    Choice,
    Choices,
    FilePath,
    Milliseconds,
    ProviderUrl,
    Scopes,
    SecretText,
    Setting,
    Tenants,
    Text,
)

CLIENT_ID: Final = r"[\x21-\x7e]{1,256}"
AUDIENCE: Final = r"[\x21-\x7e]{1,1024}"

NO_AUDIENCE: Final = "none"
"""The value of a generic provider's audience for tokens whose `aud` is not checked."""
NO_GRANT: Final = "none"


# Without the methods that no one uses, the class costs each start less.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProviderRows:
    """The settings of one provider, in the order of the documentation. None: it has no such setting.

    Attributes:
        other_federated_token_file: the last choice of credential.
        authority: the host of the discovery document of a tenant.
    """

    enabled: Boolean[None] | None = None
    title: Text[None] | None = None
    client_id: Text[None] | None = None
    tenant_id: Text[None] | None = None
    audience: Text[None] | None = None
    well_known_url: ProviderUrl[None]
    authority: Authority[str] | None = None
    issuer: ProviderUrl[None]
    allowed_tenants: Tenants[tuple[str, ...]] | None = None
    algorithms: Choices[tuple[str, ...]]
    client_capabilities: Choices[tuple[str, ...]] | None = None
    jwks_uri: ProviderUrl[None]
    cool_down: Milliseconds[float] | None = None
    token_endpoint: ProviderUrl[None] | None = None
    token_grant: Choice[str] | None = None
    exchange_grant: Choice[str] | None = None
    assertion_audience: Choice[str] | None = None
    jwk: SecretText[None] | None = None
    next_jwk: SecretText[None] | None = None
    federated_token_file: FilePath[None] | None = None
    client_secret: SecretText[None] | None = None
    next_client_secret: SecretText[None] | None = None
    other_federated_token_file: FilePath[None] | None = None
    scopes: Scopes[tuple[str, ...]] | None = None

    def __iter__(self) -> Iterator[Setting[Any, Any]]:
        for field in fields(self):
            row = getattr(self, field.name)
            if row is not None:
                yield row


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GenericRows(ProviderRows):
    """The settings of a generic provider, which has all of these."""

    title: Text[None]
    audience: Text[None]
    cool_down: Milliseconds[float]
    token_grant: Choice[str]
    exchange_grant: Choice[str]
    assertion_audience: Choice[str]


def rows_of(kind: ProviderKind) -> ProviderRows:
    """The settings of a built-in provider."""
    names, title = kind.variables, kind.title
    return ProviderRows(
        enabled=None
        if names.enabled is None
        else Boolean(
            names.enabled,
            None,
            f"Whether {title} is enabled. Without it, {title} is not enabled, as in Texas.",
        ),
        client_id=None
        if names.client_id is None
        else Text(
            names.client_id,
            None,
            f"Client id of the application at {title}; also the expected audience of introspected tokens."
            if kind.audience is Audience.CLIENT_ID
            else f"Client id of the application at {title}.",
            pattern=CLIENT_ID,
            expected="must be a client id without spaces",
        ),
        audience=None
        if names.audience is None
        else Text(
            names.audience,
            None,
            "Expected audience of introspected tokens.",
            pattern=AUDIENCE,
            expected="must be an audience without spaces",
        ),
        well_known_url=ProviderUrl(
            names.well_known_url,
            None,
            "Discovery document, which supplies the issuer and the endpoints that are not set.",
        ),
        issuer=ProviderUrl(names.issuer, None, "Issuer of accepted tokens; takes precedence over discovery."),
        algorithms=Choices(
            names.algorithms,
            ("RS256",),
            f"Accepted signature algorithms of introspected tokens. {title} signs with RS256.",
            choices=ALGORITHMS,
        ),
        jwks_uri=ProviderUrl(
            names.jwks_uri,
            None,
            f"Location of the signing keys of {title}; takes precedence over discovery.",
        ),
        token_endpoint=None
        if names.token_endpoint is None
        else ProviderUrl(
            names.token_endpoint, None, f"Token endpoint of {title}; takes precedence over discovery."
        ),
        jwk=None
        if names.jwk is None
        else SecretText(
            names.jwk,
            None,
            f"Private JWK that signs the assertions for {title} (RFC 7523). It must have a `kid`.",
        ),
        next_jwk=None
        if names.next_jwk is None
        else SecretText(
            names.next_jwk,
            None,
            "Next private JWK during a rotation; used when the provider rejects the current one.",
        ),
        scopes=None
        if names.scopes is None
        else Scopes(
            names.scopes,
            tuple[str, ...](),
            "Scopes that the application consumes. The credential is tried with a token for the first one.",
        ),
    )


def generic_rows(name: str) -> GenericRows:
    """The settings of a generic provider.

    Args:
        name: of the provider, or a placeholder for it.
    """
    names = generic_variables(name)
    prefix = names.issuer.removesuffix("ISSUER")
    return GenericRows(
        title=Text(
            f"{prefix}TITLE",
            None,
            "Name of the provider in messages for people. Without it, the name in `identity_provider`.",
            pattern=r"[ -~]{1,64}",
            expected="must be at most 64 printable ASCII characters",
        ),
        client_id=Text(
            f"{prefix}CLIENT_ID",
            None,
            "Client id of the application. Required with a grant.",
            pattern=CLIENT_ID,
            expected="must be a client id without spaces",
        ),
        audience=Text(
            f"{prefix}AUDIENCE",
            None,
            "Expected audience of introspected tokens. Required; `none` means that `aud` is not checked.",
            pattern=AUDIENCE,
            expected="must be an audience without spaces, or 'none'",
        ),
        well_known_url=ProviderUrl(
            names.well_known_url,
            None,
            "Discovery document (OpenID Connect Discovery or RFC 8414), which supplies the issuer and the "
            "endpoints that are not set. Without it, `/.well-known/openid-configuration` below the issuer.",
        ),
        issuer=ProviderUrl(names.issuer, None, "Issuer of accepted tokens; takes precedence over discovery."),
        allowed_tenants=Tenants(
            f"{prefix}ALLOWED_TENANTS",
            tuple[str, ...](),
            "Tenants whose tokens are accepted (`tid`), for providers with Entra ID's tenants; `*`: any.",
        ),
        algorithms=Choices(
            names.algorithms,
            ("RS256",),
            "Accepted signature algorithms of introspected tokens, the preferred ones first.",
            choices=ALGORITHMS,
        ),
        jwks_uri=ProviderUrl(
            names.jwks_uri,
            None,
            "Location of the provider's signing keys; takes precedence over discovery.",
        ),
        cool_down=Milliseconds(
            f"{prefix}COOL_DOWN_MILLIS",
            300.0,
            "Minimum time between two fetches of the keys because of tokens that the known keys do not "
            "verify. For this long, a new key may be rejected while someone sends forged tokens.",
            low=1000,
        ),
        token_endpoint=ProviderUrl(
            f"{prefix}TOKEN_ENDPOINT",
            None,
            "Token endpoint of the provider; takes precedence over discovery.",
        ),
        token_grant=Choice(
            f"{prefix}TOKEN_GRANT",
            NO_GRANT,
            "Grant for the application's own tokens (`/api/v1/token`): RFC 6749, section 4.4, or RFC 7523, "
            "section 2.1.",
            choices=("client_credentials", "jwt_bearer", NO_GRANT),
        ),
        exchange_grant=Choice(
            f"{prefix}EXCHANGE_GRANT",
            NO_GRANT,
            "Grant for exchanging a user's token (`/api/v1/token/exchange`): RFC 8693, or Entra ID's "
            "on-behalf-of flow.",
            choices=("token_exchange", "on_behalf_of", NO_GRANT),
        ),
        assertion_audience=Choice(
            f"{prefix}ASSERTION_AUDIENCE",
            "issuer",
            "Audience of the assertions that the application signs.",
            choices=("issuer", "token_endpoint"),
        ),
        jwk=SecretText(
            f"{prefix}JWK",
            None,
            "Private JWK that signs assertions (`private_key_jwt`, RFC 7523). It must have a `kid`. First "
            "choice of credential, and the only one for `jwt_bearer`.",
        ),
        next_jwk=SecretText(
            f"{prefix}NEXT_JWK",
            None,
            "Next private JWK during a rotation; used when the provider rejects the current one.",
        ),
        federated_token_file=FilePath(
            f"{prefix}FEDERATED_TOKEN_FILE",
            None,
            "File that holds a client assertion; re-read at each use. Second choice of credential.",
        ),
        client_secret=SecretText(
            f"{prefix}CLIENT_SECRET",
            None,
            "Client secret (`client_secret_post`). Third choice of credential.",
        ),
        next_client_secret=SecretText(
            f"{prefix}NEXT_CLIENT_SECRET",
            None,
            "Next client secret during a rotation; used when the provider rejects the current one.",
        ),
    )
