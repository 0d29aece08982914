"""The providers that the environment describes, for validators.

What belongs here: which variables stand for the arguments of a validator, and which provider is meant where a
program names none. The settings of a provider that it does name are read as the sidecar reads them
(_settings). What must never be here: requests; who needs a discovery document fetches it (_arguments.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from entra_fast._issuers import ANY_AUDIENCE, TENANT, AnyAudience, Issuer
from entra_fast._late_imports import importing
from entra_fast._provider.jwks_schedule import RefreshRules
from entra_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from entra_fast._provider.discovery_document import KeyDiscovery
    from entra_fast._providers import ProviderKind

_ENTRA_ID: Final = (
    "AZURE_APP_CLIENT_ID",
    "AZURE_APP_WELL_KNOWN_URL",
    "AZURE_OPENID_CONFIG_ISSUER",
    "AZURE_OPENID_CONFIG_JWKS_URI",
)
"""Variables of which one means that Entra ID is configured."""

_ALLOWED_TENANTS: Final = "ENTRA_FAST_ALLOWED_TENANTS"
_NAMED_BY_CALLER: Final = "named-by-the-caller"


@dataclass(frozen=True, slots=True)
class Environment:
    """One provider, as the variables of NAIS describe it.

    Attributes:
        well_known: URL of the discovery document, if it is needed to fill in missing values.
        issuer_setting: the variable with the issuer.
        algorithms: accepted signature algorithms; None for the validator's.
        tenants: allowed tenants; None for the validator's.
        refresh: when keys are fetched; None for the validator's.
        tenants_setting: the variable that names the allowed tenants; None where there is none.
    """

    audience: str | Sequence[str] | AnyAudience
    issuer: str | None = None
    jwks_uri: str | None = None
    well_known: str | None = None
    algorithms: tuple[str, ...] | None = None
    tenants: tuple[str, ...] | None = None
    refresh: RefreshRules | None = None
    issuer_setting: str = "AZURE_OPENID_CONFIG_ISSUER"
    tenants_setting: str | None = _ALLOWED_TENANTS

    def completed(self, found: KeyDiscovery) -> Environment:
        """Completed by the discovery document. Variables take precedence, as in the sidecar."""
        return dataclasses.replace(
            self,
            issuer=self.issuer or found.issuer,
            jwks_uri=self.jwks_uri or found.jwks_uri,
            well_known=None,
        )

    def as_issuer(self, given: Collection[str] = ()) -> Issuer:
        """As an argument of a validator, once it is complete.

        Args:
            given: names of options that the program gave, which take precedence.

        Raises:
            ConfigurationError: the issuer stands for any tenant, and none is allowed.
        """
        if TENANT in (self.issuer or "") and self.tenants is None and "tenants" not in given:
            name = self.tenants_setting
            if name is None:
                name = self.issuer_setting
                message = (
                    f"the issuer {self.issuer} stands for any tenant, and its provider has none: set {name} "
                    "to the issuer in the tokens"
                )
                raise ConfigurationError("setting_invalid", message, name)
            message = (
                f"{name} is not set, and the issuer {self.issuer} stands for any tenant: set {name} to the "
                "ids of the tenants whose tokens are accepted, or to * for any, or pass tenants"
            )
            raise ConfigurationError("setting_missing", message, name)
        return Issuer(
            issuer=self.issuer,
            jwks_uri=self.jwks_uri,
            audience=self.audience,
            algorithms=None if "algorithms" in given else self.algorithms,
            tenants=None if "tenants" in given else self.tenants,
            refresh=None if "refresh" in given else self.refresh,
        )


def described(
    environ: Mapping[str, str],
    provider: str | Iterable[str] | None = None,
    audience: str | Sequence[str] | AnyAudience | None = None,
) -> list[Environment]:
    """The providers of a validator.

    Args:
        provider: values of `identity_provider`; None for Entra ID, or else for the only other one.
        audience: what `aud` must be, instead of what the settings say; for one provider.

    Raises:
        ConfigurationError: a variable is missing or wrong, or there is no such provider; `setting` names it.
    """
    if audience is ANY_AUDIENCE and provider in (None, "entra_id", "azuread"):
        message = "audience must be named for Entra ID; of any other provider, name the provider as well"
        raise ConfigurationError("setting_invalid", message, "audience")
    if provider is None:
        return [_unnamed(environ, audience)]
    names = [provider] if isinstance(provider, str) or not isinstance(provider, Iterable) else list(provider)
    if not names or not all(isinstance(name, str) for name in names):
        message = "provider must be the name of a provider, or several names"
        raise ConfigurationError("setting_invalid", message, "provider")
    if audience is not None and len(names) > 1:
        message = "audience is for one provider: with several, each has that of its own settings"
        raise ConfigurationError("setting_invalid", message, "audience")
    return [_named(environ, name, audience) for name in names]


def _named(
    environ: Mapping[str, str], name: str, audience: str | Sequence[str] | AnyAudience | None
) -> Environment:
    with importing:
        from entra_fast._settings.catalogue import provider_rows  # noqa: PLC0415 - loads slowly
        from entra_fast._settings.load import provider_client_settings  # noqa: PLC0415 - loads slowly

    if audience is not None:
        environ = {**environ, **_placeholder(environ, name)}
    settings, _ = provider_client_settings(environ, None, provider=name, to_validate=True)
    assert settings is not None  # noqa: S101 - for the type checker: it was named
    if audience is None:
        audience = ANY_AUDIENCE if settings.audiences is None else settings.audiences
    allowed = provider_rows(settings.kind).allowed_tenants
    is_complete = settings.issuer is not None and settings.jwks_uri is not None
    return Environment(
        audience=audience,
        issuer=settings.issuer,
        jwks_uri=settings.jwks_uri,
        well_known=None if is_complete else settings.well_known_url,
        algorithms=settings.algorithms,
        tenants=settings.allowed_tenants or None,
        refresh=RefreshRules(cool_down=settings.kind.cool_down),
        issuer_setting=settings.kind.variables.issuer,
        tenants_setting=None if allowed is None else allowed.name,
    )


def _placeholder(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """The variable with the audience, if it is not set: the program has named the audience instead."""
    with importing:
        from entra_fast import _providers  # noqa: PLC0415 - few programs need it
        from entra_fast._settings.load import settings_reader  # noqa: PLC0415 - loads slowly
        from entra_fast._settings.providers import built_in_kinds  # noqa: PLC0415 - loads slowly

    kind = _providers.named(name, built_in_kinds(settings_reader(environ)))
    variables = _providers.generic_variables(name) if kind is None else kind.variables
    variable = variables.audience or variables.client_id or ""
    return {} if environ.get(variable, "").strip() else {variable: _NAMED_BY_CALLER}


def _unnamed(environ: Mapping[str, str], audience: str | Sequence[str] | AnyAudience | None) -> Environment:
    """Entra ID; where it is not configured, the only other provider that is and whose audience is checked.

    It is never Maskinporten: without a requirement, tokens for any API of the country would pass.
    """
    is_entra_id = environ.get("AZURE_ENABLED") == "true" or any(
        environ.get(name, "").strip() for name in _ENTRA_ID
    )
    if not is_entra_id:
        with importing:
            from entra_fast._settings.load import settings_reader  # noqa: PLC0415 - loads slowly
            from entra_fast._settings.providers import described_kinds  # noqa: PLC0415 - loads slowly

        kinds = described_kinds(settings_reader(environ))
        checked = [kind for kind in kinds if kind.checks_audience]
        if len(checked) == 1:
            return _named(environ, checked[0].name, audience)
        if kinds:
            raise _which(kinds)
    return _entra_id(environ, audience)


def _which(kinds: Sequence[ProviderKind]) -> ConfigurationError:
    names = [kind.name for kind in kinds]
    listed = f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
    message = f"{listed} configured, and Entra ID is not: name the provider, as provider={names[0]!r}"
    return ConfigurationError("setting_missing", message, "provider")


def _entra_id(environ: Mapping[str, str], audience: str | Sequence[str] | AnyAudience | None) -> Environment:
    def value(name: str) -> str | None:
        return environ.get(name, "").strip() or None

    client_id = audience or value("AZURE_APP_CLIENT_ID")
    if client_id is None:
        raise _not_set("AZURE_APP_CLIENT_ID")
    tenants = None if value(_ALLOWED_TENANTS) is None else _allowed_tenants(environ)
    issuer, jwks_uri = value("AZURE_OPENID_CONFIG_ISSUER"), value("AZURE_OPENID_CONFIG_JWKS_URI")
    if issuer is not None and jwks_uri is not None:
        return Environment(client_id, issuer, jwks_uri, tenants=tenants)
    well_known = value("AZURE_APP_WELL_KNOWN_URL")
    if well_known is None:
        raise _not_set("AZURE_OPENID_CONFIG_ISSUER" if issuer is None else "AZURE_OPENID_CONFIG_JWKS_URI")
    return Environment(client_id, issuer, jwks_uri, well_known, tenants=tenants)


def _allowed_tenants(environ: Mapping[str, str]) -> tuple[str, ...]:
    with importing:
        from entra_fast._settings.catalogue import ALLOWED_TENANTS  # noqa: PLC0415 - loads slowly
        from entra_fast._settings.load import settings_reader  # noqa: PLC0415 - loads slowly

    return settings_reader(environ).get(ALLOWED_TENANTS)


def _not_set(name: str) -> ConfigurationError:
    message = (
        f"{name} is not set: set it (NAIS does where azure is enabled), name another provider "
        "(provider=...), or pass arguments"
    )
    return ConfigurationError("setting_missing", message, name)
