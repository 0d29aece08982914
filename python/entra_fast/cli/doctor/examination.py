"""All checks in order, and which needs which.

What belongs here: the settings, and what follows from a wrong one. What must never be here: how the other
checks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from entra_fast._settings import catalogue
from entra_fast._settings.kinds import Setting
from entra_fast._settings.load import ROOT, Settings
from entra_fast._settings.provider_rows import ProviderRows
from entra_fast._settings.reader import Reader
from entra_fast.cli.doctor.machine import check_caches, check_ports
from entra_fast.cli.doctor.provider import CHECKS, ProviderChecks, Ways
from entra_fast.cli.doctor.results import Examination, Outcome, Result
from entra_fast.cli.doctor.shared_cache import check_shared_cache
from entra_fast.errors import ConfigurationError

DOCS = "docs/reference/settings.md"

_ROWS: Final = {name: row for row in catalogue.SETTINGS for name in (row.name, *row.aliases)}

_NETWORK: Final = (
    catalogue.SETTINGS_DIRECTORY,
    catalogue.CA_BUNDLE,
    catalogue.HTTPS_PROXY,
    catalogue.HTTP_PROXY,
)
_PROVIDER: Final = (catalogue.SETTINGS_DIRECTORY, *catalogue.SWITCHES, catalogue.AZURE_APP_CLIENT_ID)
"""What decides whether there is a provider."""
_PORTS: Final = (catalogue.SETTINGS_DIRECTORY, catalogue.BIND_ADDRESS, catalogue.PROBE_BIND_ADDRESS)
_CACHES: Final = (
    catalogue.SETTINGS_DIRECTORY,
    catalogue.WORKERS,
    catalogue.CACHE_MAX_BYTES,
    catalogue.VERIFIED_CACHE_BYTES,
)
_SHARED_CACHE: Final = (
    catalogue.SETTINGS_DIRECTORY,
    catalogue.REDIS_URL,
    catalogue.REDIS_KEY,
    catalogue.REDIS_KEY_FILE,
    catalogue.REDIS_USERNAME,
    catalogue.REDIS_PASSWORD,
    catalogue.CA_BUNDLE,
)


async def examine(
    environ: Mapping[str, str],
    directory: Path | None,
    began: Callable[[str], None],
    ended: Callable[[Result], None],
    *,
    root: Path = ROOT,
) -> list[Result]:
    """Run all checks.

    Args:
        environ: the environment.
        directory: files with settings; None for the usual one.
        began: called with the id of each check that begins.
        ended: called with each result.
        root: where the container's memory limit is looked up; for tests.
    """
    examination = Examination(began, ended)
    settings, problems = Settings.examined(environ, directory, root=root)
    results = _SettingsResults(
        examination,
        environ,
        directory or Reader(environ, None, []).get(catalogue.SETTINGS_DIRECTORY),
        settings,
        problems,
    )
    await check_ports(examination, settings.server, results.wrong(_PORTS))
    await check_caches(examination, settings.caches, results.wrong(_CACHES))
    await check_shared_cache(examination, settings, results.wrong(_SHARED_CACHE))
    if settings.providers:
        await _check_providers(examination, settings, results)
        return examination.results
    wrong = results.wrong(_PROVIDER)
    for name in CHECKS:
        if wrong is not None:
            examination.skip(name, wrong, docs=DOCS)
        else:
            examination.add(name, Outcome("skip", "not checked: no provider is enabled"), docs=DOCS)
    return examination.results


async def _check_providers(examination: Examination, settings: Settings, results: _SettingsResults) -> None:
    ways = Ways(examination, settings.outbound)
    for provider in settings.providers:
        examination.provider = provider.name
        rows = catalogue.provider_rows(provider.kind)
        wrong = results.wrong((*_NETWORK, *_network_rows(rows)))
        if wrong is not None:
            for name in CHECKS:
                examination.skip(name, wrong, docs=DOCS)
            continue
        checks = ProviderChecks(provider, settings.outbound, ways)
        try:
            await checks.check(
                examination, results.wrong(_credential_rows(rows)), results.wrong(_policy_rows(rows))
            )
        finally:
            await checks.aclose()


def _network_rows(rows: ProviderRows) -> Iterator[Setting[Any, Any]]:
    """What decides where a provider is."""
    urls = (rows.well_known_url, rows.tenant_id, rows.authority, rows.issuer, rows.jwks_uri)
    return _present(rows.enabled, *urls, rows.token_endpoint)


def _credential_rows(rows: ProviderRows) -> Iterator[Setting[Any, Any]]:
    """What the application proves its identity with."""
    secrets = (rows.jwk, rows.next_jwk, rows.federated_token_file, rows.client_secret)
    more = (rows.next_client_secret, rows.other_federated_token_file, rows.client_capabilities, rows.scopes)
    return _present(rows.client_id, *secrets, *more, rows.token_grant, rows.exchange_grant)


def _policy_rows(rows: ProviderRows) -> Iterator[Setting[Any, Any]]:
    """What decides which tokens are accepted."""
    return _present(rows.allowed_tenants, rows.algorithms, rows.audience)


def _present(*rows: Setting[Any, Any] | None) -> Iterator[Setting[Any, Any]]:
    return (row for row in rows if row is not None)


class _SettingsResults:
    """The results of the settings: one for each that is wrong or ignored, or one if nothing is.

    Args:
        examination: gets them.
        environ: the environment.
        directory: files with settings.
        settings: that were read.
        problems: what is wrong with them.
    """

    def __init__(
        self,
        examination: Examination,
        environ: Mapping[str, str],
        directory: Path,
        settings: Settings,
        problems: Sequence[ConfigurationError],
    ) -> None:
        self._wrong: dict[str, Result] = {}
        # Settings of generic providers are in no catalogue.
        rows = _ROWS | {
            row.name: row for provider in settings.providers for row in catalogue.provider_rows(provider.kind)
        }
        for problem in problems:
            row = rows.get(problem.setting)
            named = environ.get(problem.setting) or environ.get(problem.setting.lower())
            where = "the environment" if named else "its file"
            remedy = f"correct {problem.setting} in {where}"
            if problem.code == "setting_missing":
                remedy = f"set {problem.setting}, in the environment or as a file"
            expected = None
            if row is not None:
                first, _, _ = row.description.partition(". ")
                expected = (first if problem.code == "setting_missing" else row.form).replace("`", "")
            outcome = Outcome("fail", problem.message, expected, remedy)
            result = examination.add("settings", outcome, docs=DOCS)
            self._wrong[row.name if row else problem.setting] = result
        for text in settings.unknown:
            outcome = Outcome(
                "warn", f"ignored: {text}", "a setting of the sidecar", "correct the name, or remove it"
            )
            examination.add("settings", outcome, docs=DOCS)
        if not problems and not settings.unknown:
            found = f"all can be used: {sum(bool(environ.get(name)) for name in rows)} from the environment"
            if directory.is_dir():
                files = Reader({}, directory)
                count = sum(files.is_there(name) and not environ.get(name) for name in rows)
                found += f", {count} from files in {directory}"
            examination.add("settings", Outcome("ok", found), docs=DOCS)

    def wrong(self, rows: Iterable[Setting[Any, Any]]) -> Result | None:
        """The result of the first of these settings that is wrong."""
        return next((self._wrong[row.name] for row in rows if row.name in self._wrong), None)
