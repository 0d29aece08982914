"""Reads the settings of providers.

What belongs here: which providers are enabled, and turning the rows of each into `ProviderSettings`. What
must never be here: the rows (catalogue.py, provider_rows.py), and what differs between providers otherwise,
which is data (_providers.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from entra_fast import _providers
from entra_fast._net import url_problem
from entra_fast._providers import BUILT_IN, Audience, Grant, ProviderKind
from entra_fast._settings import catalogue
from entra_fast._settings.kinds import FilePath, ProviderUrl, Setting
from entra_fast._settings.model import CredentialSettings, ProviderSettings
from entra_fast._settings.provider_rows import NO_AUDIENCE, NO_GRANT, ProviderRows, generic_rows
from entra_fast._settings.reader import D, Reader, missing
from entra_fast._settings.secret import Secret, signing_key
from entra_fast.errors import ConfigurationError

DISCOVERY_PATH = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""


def enabled_providers(read: Reader) -> tuple[ProviderSettings, ...]:
    """All providers that are enabled; none if the settings say so.

    Raises:
        ConfigurationError: a setting is missing or wrong, or nothing is said at all.
    """
    providers = []
    switches = []
    for kind in built_in_kinds(read):
        rows = catalogue.PROVIDER_ROWS[kind.name]
        switch = None if rows.enabled is None else read.get(rows.enabled)
        switches.append(switch)
        if is_enabled(read, kind, switch):
            providers.append(_provider_settings(read, kind, rows))
    names = generic_names(read)
    providers += [_generic_settings(read, name) for name in names]
    if not providers and False not in switches and not read.has_problems(catalogue.SWITCHES):
        read.refuse(_nothing_configured(read))
    return tuple(providers)


def built_in_kinds(read: Reader) -> tuple[ProviderKind, ...]:
    """The built-in providers, without one whose name a generic provider has.

    Raises:
        ConfigurationError: as `generic_names`.
    """
    names = generic_names(read)
    return tuple(kind for kind in BUILT_IN if kind.name not in names)


def is_enabled(read: Reader, kind: ProviderKind, switch: bool | None) -> bool:
    """Whether a built-in provider is enabled.

    Args:
        switch: the value of its `<X>_ENABLED`.
    """
    if switch is None and kind.enabled_by_client_id:
        # Platforms inject AZURE_CLIENT_ID and the like into every workload, so these complete a provider that
        # is enabled otherwise, and never enable one.
        return is_described(read, kind)
    return switch is True


def is_described(read: Reader, kind: ProviderKind) -> bool:
    """Whether there is the setting without which a built-in provider cannot be used."""
    rows = catalogue.PROVIDER_ROWS[kind.name]
    main = rows.client_id or rows.audience
    return main is not None and read.names(main)


def described_kinds(read: Reader) -> tuple[ProviderKind, ...]:
    """The providers besides Entra ID that the settings describe and that are not switched off, whether or not
    they are switched on: NAIS switches them on for the sidecar, not for the application."""
    kinds = []
    for kind in built_in_kinds(read):
        switch = catalogue.PROVIDER_ROWS[kind.name].enabled
        is_off = switch is not None and read.get(switch) is False
        if kind is not _providers.ENTRA_ID and not is_off and is_described(read, kind):
            kinds.append(kind)
    return (*kinds, *(_generic_kind(read, name) for name in generic_names(read)))


def generic_names(read: Reader) -> tuple[str, ...]:
    """The names of the generic providers.

    Raises:
        ConfigurationError: the list is wrong, two of them would share a setting, or an enabled built-in
            provider has the same name.
    """
    names = read.get(catalogue.PROVIDERS)
    setting = catalogue.PROVIDERS.name
    for kind in BUILT_IN:
        switch = catalogue.PROVIDER_ROWS[kind.name].enabled
        if kind.name in names and switch is not None and read.get(switch):
            message = (
                f"{setting} must not name {kind.name} while {switch.name} is true: remove one of the two"
            )
            read.refuse(ConfigurationError("setting_invalid", message, setting))
            return ()
    owners: dict[str, str] = {}
    for name in names:
        for row in generic_rows(name):
            if (other := owners.setdefault(row.name, name)) != name:
                message = f"{setting} must not name both {other} and {name}: {row.name} would belong to both"
                read.refuse(ConfigurationError("setting_invalid", message, setting))
                return ()
    return names


def named_provider(read: Reader, name: str, *, to_validate: bool = False) -> ProviderSettings:
    """The settings of the provider that a program names. Its switch may be left out: it is the sidecar's.

    Args:
        name: a value of `identity_provider`.
        to_validate: for validating tokens only, which needs neither a credential nor a token endpoint.

    Raises:
        ConfigurationError: a setting is missing or wrong, or there is no such provider.
    """
    generic = generic_names(read)
    if name in generic:
        return _generic_settings(read, name, to_validate=to_validate)
    kind = _providers.named(name)
    if kind is None:
        known = ", ".join([*(each for built_in in built_in_kinds(read) for each in built_in.names), *generic])
        raise ConfigurationError(
            "setting_invalid",
            f"provider must be one of: {known} ({catalogue.PROVIDERS.name} names further ones)",
            "provider",
        )
    rows = catalogue.PROVIDER_ROWS[kind.name]
    if rows.enabled is not None and read.get(rows.enabled) is False:
        raise ConfigurationError(
            "setting_invalid",
            f"{kind.title} is not enabled: {rows.enabled.name} is false. {_enabled_ones(read)}",
            rows.enabled.name,
        )
    described = (rows.client_id, rows.audience, rows.well_known_url, rows.issuer, rows.jwks_uri)
    if not any(row is not None and read.names(row) for row in described):
        main = kind.variables.main
        message = f"{kind.title} is not configured: {main} is not set. {_enabled_ones(read)}"
        raise ConfigurationError("setting_missing", message, main)
    return _provider_settings(read, kind, rows, to_validate=to_validate)


def _enabled_ones(read: Reader) -> str:
    names = [
        kind.name
        for kind in built_in_kinds(read)
        if (switch := catalogue.PROVIDER_ROWS[kind.name].enabled) is not None
        and (read.get(switch) or (read.get(switch) is None and is_described(read, kind)))
    ]
    names += generic_names(read)
    return f"Configured: {', '.join(names) or 'none'}"


def _nothing_configured(read: Reader) -> ConfigurationError:
    """The error if no provider is enabled, and none is switched off."""
    described = next((kind for kind in BUILT_IN if is_described(read, kind)), None)
    if described is not None and described.variables.enabled is not None:
        names = described.variables
        return ConfigurationError(
            "setting_missing",
            f"{names.enabled} is not set, so no provider is configured: set it to true to use "
            f"{described.title}, for which {names.main} is set, or to false to start without a provider",
            described.variables.enabled,
        )
    return missing(
        catalogue.AZURE_APP_CLIENT_ID,
        " is not set, so no provider is configured: set it, or AZURE_ENABLED=true with AZURE_CLIENT_ID, or "
        "enable another provider (MASKINPORTEN_ENABLED, TOKEN_X_ENABLED, IDPORTEN_ENABLED, "
        "ANSATTPORTEN_ENABLED, ENTRA_FAST_PROVIDERS), or AZURE_ENABLED=false to start without a provider",
    )


def _provider_settings(
    read: Reader, kind: ProviderKind, rows: ProviderRows, *, to_validate: bool = False
) -> ProviderSettings:
    """The settings of one provider.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    authenticates = kind.has_credential and not to_validate
    uses_client = rows.client_id is not None and (authenticates or kind.audience is Audience.CLIENT_ID)
    client_id = None if rows.client_id is None else read.get(rows.client_id)
    if rows.client_id is not None and client_id is None and uses_client:
        read.refuse(missing(rows.client_id, f" must be set {_when(rows)}"))
    audience = None if rows.audience is None else read.get(rows.audience)
    if rows.audience is not None and audience is None:
        hint = "" if rows.enabled is not None else f" ('{NO_AUDIENCE}' accepts any)"
        read.refuse(missing(rows.audience, f" must be set {_when(rows)}{hint}"))
    tenant_id = "" if rows.tenant_id is None else read.get(rows.tenant_id) or ""
    issuer = _provider_url(read, rows.issuer)
    jwks_uri = _provider_url(read, rows.jwks_uri)
    token_endpoint = None if rows.token_endpoint is None else _provider_url(read, rows.token_endpoint)
    complete = issuer and jwks_uri and (token_endpoint or not authenticates)
    well_known_url = _provider_url(read, rows.well_known_url)
    if well_known_url is None and not complete:
        well_known_url = _default_well_known_url(read, rows, tenant_id, issuer)
        urls = (rows.well_known_url, rows.issuer, rows.jwks_uri, rows.token_endpoint)
        if well_known_url is None and not read.has_problems(row for row in urls if row is not None):
            read.refuse(_no_endpoints(rows, needs_token_endpoint=authenticates))
    return ProviderSettings(
        client_id=client_id or "",
        tenant_id=tenant_id,
        well_known_url=well_known_url,
        issuer=issuer,
        jwks_uri=jwks_uri,
        token_endpoint=token_endpoint,
        credentials=CredentialSettings() if to_validate else _credential_settings(read, kind, rows),
        allowed_tenants=() if rows.allowed_tenants is None else read.get(rows.allowed_tenants),
        algorithms=read.get(rows.algorithms),
        client_capabilities=() if rows.client_capabilities is None else read.get(rows.client_capabilities),
        kind=kind,
        audience=None if audience == NO_AUDIENCE and kind.audience is Audience.ANY else audience,
        scopes=() if rows.scopes is None else read.get(rows.scopes),
    )


def _when(rows: ProviderRows) -> str:
    """When a setting must be set, as the end of a sentence."""
    return f"when {rows.enabled.name} is true" if rows.enabled is not None else "for this provider"


def _default_well_known_url(
    read: Reader, rows: ProviderRows, tenant_id: str, issuer: str | None
) -> str | None:
    """The URL of the discovery document that follows from other settings; None if there is none."""
    if rows.authority is not None:
        authority = _provider_url(read, rows.authority)
        return f"{authority}/{tenant_id}/v2.0{DISCOVERY_PATH}" if tenant_id else None
    if rows.enabled is None and issuer is not None:
        return f"{issuer.rstrip('/')}{DISCOVERY_PATH}"
    return None


def _no_endpoints(rows: ProviderRows, *, needs_token_endpoint: bool) -> ConfigurationError:
    tenant = "" if rows.tenant_id is None else f"{rows.tenant_id.name}, or "
    needed = [rows.issuer.name, rows.jwks_uri.name]
    if needs_token_endpoint and rows.token_endpoint is not None:
        needed.append(rows.token_endpoint.name)
    listed = f"{', '.join(needed[:-1])} and {needed[-1]}"
    sentence = f" must be set (or {tenant}{'all' if len(needed) > 2 else 'both'} of {listed})"
    if rows.enabled is None:
        sentence = f" or {rows.issuer.name} must be set: they name the discovery document"
    return missing(rows.well_known_url, sentence)


def _generic_settings(read: Reader, name: str, *, to_validate: bool = False) -> ProviderSettings:
    """The settings of a generic provider.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    rows, kind = generic_rows(name), _generic_kind(read, name)
    if not kind.has_credential:
        _ignore(read, _only_with_a_grant(rows), "it has no effect without a grant")
    elif kind.token_grant is Grant.JWT_BEARER:
        _ignore(read, list(_credential_rows(rows))[1:], "it has no effect: the grant jwt_bearer needs a JWK")
    return _provider_settings(read, kind, rows, to_validate=to_validate)


def _generic_kind(read: Reader, name: str) -> ProviderKind:
    """What the settings of a generic provider say about its kind.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    rows = generic_rows(name)
    token_grant, exchange_grant = read.get(rows.token_grant), read.get(rows.exchange_grant)
    return _providers.generic(
        name,
        title=read.get(rows.title) or name,
        token_grant=None if token_grant == NO_GRANT else Grant(token_grant),
        exchange_grant=None if exchange_grant == NO_GRANT else Grant(exchange_grant),
        assertion_audience_is_issuer=read.get(rows.assertion_audience) == "issuer",
        checks_audience=read.get(rows.audience) != NO_AUDIENCE,
        cool_down=read.get(rows.cool_down),
    )


def _ignore(read: Reader, rows: Iterable[Setting[Any, Any]], reason: str) -> None:
    """Say which of these settings are set and have no effect."""
    read.ignored += [f"{row.name} ({reason})" for row in rows if read.names(row)]


def _only_with_a_grant(rows: ProviderRows) -> Iterator[Setting[Any, Any]]:
    """The settings that matter to requests for tokens only."""
    ours = (rows.client_id, rows.token_endpoint, rows.assertion_audience, *_credential_rows(rows))
    return (row for row in ours if row is not None)


def _credential_rows(rows: ProviderRows) -> Iterator[Setting[Any, Any]]:
    """The settings that hold a credential, in order of preference, without those of a rotation."""
    kinds = (rows.jwk, rows.federated_token_file, rows.client_secret, rows.other_federated_token_file)
    return (row for row in kinds if row is not None)


def _provider_url(read: Reader, setting: ProviderUrl[D]) -> str | D:
    """A URL of the provider: https, or http on loopback or on a host that is named for that."""
    url = read.get(setting)
    if isinstance(url, str):
        problem = url_problem(url, read.get(catalogue.INSECURE_PROVIDER_HOSTS))
        if problem is not None:
            read.refuse(ConfigurationError("setting_invalid", f"{setting.name} {problem}", setting.name))
            return setting.default
    return url


def _credential_settings(read: Reader, kind: ProviderKind, rows: ProviderRows) -> CredentialSettings:
    if not kind.has_credential:
        return CredentialSettings()
    for row in filter(None, (rows.jwk, rows.next_jwk)):
        with read.reporting(row):
            secret = read.secret(row)
            if secret is not None:
                signing_key(secret.setting, secret.reveal())
    jwk = None if rows.jwk is None else read.secret(rows.jwk)
    client_secret = None if rows.client_secret is None else read.secret(rows.client_secret)
    federated_token = _file(read, rows.federated_token_file)
    if not (jwk or federated_token or client_secret):
        # Last, because it is there whether the application has registered it with Entra ID or not.
        federated_token = _file(read, rows.other_federated_token_file)
    if kind.token_grant is Grant.JWT_BEARER:
        federated_token = client_secret = None  # the application signs the grant itself
    credentials = CredentialSettings(
        jwk=jwk,
        next_jwk=None if rows.next_jwk is None else read.successor(rows.next_jwk, jwk),
        federated_token=federated_token,
        client_secret=client_secret,
        next_client_secret=None
        if rows.next_client_secret is None
        else read.successor(rows.next_client_secret, client_secret),
    )
    if not (credentials.jwk or credentials.federated_token or credentials.client_secret):
        read.refuse(_no_credential(kind, rows))
    return credentials


def _no_credential(kind: ProviderKind, rows: ProviderRows) -> ConfigurationError:
    first, *others = _credential_rows(rows)
    if kind.token_grant is Grant.JWT_BEARER or not others:
        return missing(first, f" must be set {_when(rows)}")
    names = [row.name for row in others]
    return missing(first, f", {', '.join(names[:-1])} or {names[-1]} must be set")


def _file(read: Reader, setting: FilePath[None] | None) -> Secret | None:
    """The file that a setting names, which is read at each use."""
    path = None if setting is None else read.get(setting)
    return None if setting is None or path is None else Secret(setting.name, path=path)
