"""Finds variables that look like settings and are none, or have no effect.

What belongs here: names that are misspelled, and settings of providers that are not enabled. What must never
be here: a reason not to start: such variables are only logged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from entra_fast import _providers
from entra_fast._providers import GENERIC_PREFIX
from entra_fast._settings import catalogue
from entra_fast._settings.provider_rows import ProviderRows, generic_rows
from entra_fast._settings.providers import built_in_kinds, generic_names, is_enabled
from entra_fast._settings.reader import Reader

_KNOWN: Final = frozenset(name for row in catalogue.SETTINGS for name in (row.name, *row.aliases))
_SWITCHES: Final = [row.name for row in catalogue.SWITCHES]
# Kubernetes sets the excluded ones for a service called entra-fast.
_OURS: Final = re.compile(r"ENTRA_FAST_(?!SERVICE_|PORT(_|$))[A-Z0-9_]{1,100}", re.ASCII)
_SHARED_PREFIXES: Final = (
    "AZURE_APP_",
    "AZURE_OPENID_CONFIG_",
    "MASKINPORTEN_",
    "TOKEN_X_",
    "IDPORTEN_",
    "ANSATTPORTEN_",
)
"""Other programs have variables with these prefixes, so only a near miss of a setting is reported."""
_NEAR_MISS: Final = 0.9
_TEXAS_PREFIX: Final = "TEXAS_HTTP_"
_WITHOUT_EFFECT: Final = {
    "TEXAS_HTTP_POOL_MAX_IDLE": "has no effect: the number of connections that are kept is not limited",
}
"""Variables that Texas reads, and this sidecar does not need."""
_NOT_MISSPELLED: Final = frozenset({"AZURE_APP_JWKS"})
"""Variables of NAIS that resemble a setting."""
_SWITCH: Final = re.compile(r"(?!OTEL_)[A-Z][A-Z0-9_]{0,100}_ENABLED", re.ASCII)
"""The form of the switches of providers. OpenTelemetry has variables of the same form."""


def unknown_settings(read: Reader) -> Iterator[str]:
    """The variables that have no effect, each with the reason or the setting that was probably meant."""
    listed = generic_names(read) if not read.has_problems([catalogue.PROVIDERS]) else ()
    known = _KNOWN.union(row.name for name in listed for row in generic_rows(name))
    found = dict(_of_disabled_providers(read))
    for name, value in read.environ.items():
        if value.strip() and name not in known and name not in _NOT_MISSPELLED:
            reason = _reason(name, value.strip(), known)
            if reason is not None:
                found[name] = reason
    for name, reason in sorted(found.items()):
        yield f"{name} ({reason})" if reason else name


def _reason(name: str, value: str, known: frozenset[str]) -> str | None:
    """Why a variable that is not known has no effect: empty if nothing more can be said.

    Returns None if it belongs to another program.
    """
    if value.lower() == "true" and _SWITCH.fullmatch(name):
        return _reason_for_switch(name)
    if name in _WITHOUT_EFFECT:
        return _WITHOUT_EFFECT[name]
    ours = name.startswith(_TEXAS_PREFIX) or _OURS.fullmatch(name) is not None
    if not (ours or name.startswith(_SHARED_PREFIXES)):
        return None
    meant = _nearest(name, known, 0.8 if ours else _NEAR_MISS)
    if meant is not None:
        return f"did you mean {meant}?"
    if name.startswith(GENERIC_PREFIX):
        return f"{catalogue.PROVIDERS.name} names no such provider, or it has no such setting"
    return "" if ours else None


def _reason_for_switch(name: str) -> str:
    kind = _providers.named(name.removesuffix("_ENABLED").lower())
    meant = None if kind is None else kind.variables.enabled
    meant = meant or _nearest(name, _SWITCHES, _NEAR_MISS)
    if meant is not None:
        return f"did you mean {meant}?"
    return f"no such provider; {catalogue.PROVIDERS.name} names further ones"


def _nearest(name: str, known: Collection[str], cutoff: float) -> str | None:
    import difflib  # noqa: PLC0415 - for mistakes only

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def _of_disabled_providers(read: Reader) -> Iterator[tuple[str, str]]:
    """The settings of providers that nothing enables, with the reason; not where a switch is false."""
    for kind in built_in_kinds(read):
        rows = catalogue.PROVIDER_ROWS[kind.name]
        if rows.enabled is None or read.get(rows.enabled) is not None or is_enabled(read, kind, None):
            continue
        for name in filter(read.is_there, _own_names(rows)):
            yield name, f"{kind.title} is not enabled: set {rows.enabled.name}=true"


def _own_names(rows: ProviderRows) -> Iterator[str]:
    """The names of a provider's settings that no other program has: without aliases, and without those that
    other platforms inject."""
    for row in (rows.client_id, rows.audience, rows.jwk, rows.issuer, rows.well_known_url, rows.jwks_uri):
        if row is not None:
            yield row.name
