"""The command: its options, the order of the checks, and the exit status.

What belongs here: which check needs which. What must never be here: the checks themselves.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from entra_fast import _extras
from entra_fast.cli.options import add_settings_option, settings_directory
from entra_fast.cli.terminal import OK, REFUSED, AddCommand


def _doctor(arguments: argparse.Namespace) -> int:
    return run(os.environ, settings_directory(arguments.settings), as_json=arguments.json)


def run(environ: Mapping[str, str], directory: Path | None, *, as_json: bool) -> int:
    """Check a sidecar with this environment and this directory of settings.

    Args:
        environ: the environment.
        directory: files with settings; None for the usual one.
        as_json: whether to print JSON.

    Returns:
        The exit status: 1 if a check has failed.
    """
    _extras.need("server")
    from entra_fast.sidecar.process.aiohttp_import import import_aiohttp  # noqa: PLC0415 - when it runs

    import_aiohttp()
    import asyncio  # noqa: PLC0415

    from entra_fast.cli.doctor.examination import examine  # noqa: PLC0415
    from entra_fast.cli.doctor.report import Json, Text  # noqa: PLC0415

    logging.getLogger("entra_fast").addHandler(logging.NullHandler())  # the results say the same
    report = Json() if as_json else Text()
    results = asyncio.run(examine(environ, directory, report.began, report.ended))
    report.finish(results)
    return REFUSED if any(result.status == "fail" for result in results) else OK


def add_commands(add: AddCommand) -> None:
    """Add `doctor`."""
    parser = add(
        "doctor",
        _doctor,
        "find out what is wrong with a sidecar's settings, network and provider",
        """Check everything that the sidecar needs, with its own settings: the settings themselves,
ports, caches, the shared cache, and for each enabled provider the connection (DNS, TCP, web
proxy, TLS), discovery document, keys, credential, clock, and introspection of a token. Prints
what to do about each failure. Changes nothing, and prints no secrets. "entra-fast serve
--check" does the same, with the options of "serve".

examples:
  entra-fast doctor
  entra-fast doctor --settings /var/run/secrets/nais.io/azure
  entra-fast doctor --json | jq '.checks[] | select(.status == "fail")'
  kubectl exec <pod> -c entra-fast -- entra-fast doctor

The exit status is 0 if no check fails, also with warnings, 1 if one fails, and 2 if the
command line is wrong.
""",
    )
    add_settings_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object: ok, summary, checks")
