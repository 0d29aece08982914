"""All checks in order, and which needs which.

What belongs here: the settings, and what follows from a wrong one. What must never be here: how the other
checks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from entra_fast._settings import catalogue
from entra_fast._settings.kinds import Setting
from entra_fast._settings.load import ROOT, Settings
from entra_fast._settings.reader import Reader
from entra_fast.cli.doctor.machine import check_caches, check_ports
from entra_fast.cli.doctor.provider import CHECKS, ProviderChecks
from entra_fast.cli.doctor.results import Examination, Outcome, Result
from entra_fast.cli.doctor.shared_cache import check_shared_cache
from entra_fast.errors import ConfigurationError

DOCS = "docs/reference/settings.md"

_ROWS: Final = {name: row for row in catalogue.SETTINGS for name in (row.name, *row.aliases)}

_NETWORK: Final = (
    catalogue.SETTINGS_DIRECTORY,
    catalogue.AZURE_ENABLED,
    catalogue.AZURE_APP_WELL_KNOWN_URL,
    catalogue.AZURE_APP_TENANT_ID,
    catalogue.AZURE_AUTHORITY_HOST,
    catalogue.AZURE_OPENID_CONFIG_ISSUER,
    catalogue.AZURE_OPENID_CONFIG_JWKS_URI,
    catalogue.AZURE_OPENID_CONFIG_TOKEN_ENDPOINT,
    catalogue.CA_BUNDLE,
    catalogue.HTTPS_PROXY,
    catalogue.HTTP_PROXY,
)
_PROVIDER: Final = (catalogue.SETTINGS_DIRECTORY, catalogue.AZURE_ENABLED, catalogue.AZURE_APP_CLIENT_ID)
"""What decides whether there is a provider."""
_CREDENTIAL: Final = (
    catalogue.AZURE_APP_CLIENT_ID,
    catalogue.AZURE_APP_JWK,
    catalogue.AZURE_APP_NEXT_JWK,
    catalogue.AZURE_FEDERATED_TOKEN_FILE,
    catalogue.AZURE_APP_CLIENT_SECRET,
    catalogue.AZURE_APP_NEXT_CLIENT_SECRET,
    catalogue.NAIS_SERVICE_ACCOUNT_TOKEN_PATH,
    catalogue.CLIENT_CAPABILITIES,
)
_POLICY: Final = (catalogue.ALLOWED_TENANTS, catalogue.ALGORITHMS)
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
    wrong = results.wrong(_NETWORK if settings.providers else _PROVIDER)
    if wrong is not None:
        for name in CHECKS:
            examination.skip(name, wrong, docs=DOCS)
    elif not settings.providers:
        for name in CHECKS:
            examination.add(name, Outcome("skip", "not checked: no provider is enabled"), docs=DOCS)
    else:
        checks = ProviderChecks(settings.providers[0], settings.outbound)
        try:
            await checks.check(examination, results.wrong(_CREDENTIAL), results.wrong(_POLICY))
        finally:
            await checks.aclose()
    return examination.results


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
        for problem in problems:
            row = _ROWS.get(problem.setting)
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
            found = f"all can be used: {sum(bool(environ.get(name)) for name in _ROWS)} from the environment"
            if directory.is_dir():
                files = Reader({}, directory)
                count = sum(files.is_there(name) and not environ.get(name) for name in _ROWS)
                found += f", {count} from files in {directory}"
            examination.add("settings", Outcome("ok", found), docs=DOCS)

    def wrong(self, rows: Iterable[Setting[Any, Any]]) -> Result | None:
        """The result of the first of these settings that is wrong."""
        return next((self._wrong[row.name] for row in rows if row.name in self._wrong), None)
