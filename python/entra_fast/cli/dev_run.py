"""Runs the local system, or the local Entra ID alone, until a signal ends it.

What belongs here: signals, and the messages for the terminal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from entra_fast import _event_loop
from entra_fast.cli.dev_failures import printed
from entra_fast.cli.dev_system import (
    NO_APPLICATION,
    RELOAD_SECONDS,
    Options,
    local_system,
    local_tls,
    usable,
)
from entra_fast.cli.dev_welcome import addresses, describe
from entra_fast.cli.manifest_sources import find_sources, no_garbage_collection
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.model.forms import is_reply_url
from entra_fast.emulator.protocol.private_key import SIGNING_ALGORITHMS
from entra_fast.emulator.tls import LocalTls
from entra_fast.errors import ConfigurationError
from entra_fast.generator.settings import CALLBACK_PATH
from entra_fast.sidecar.logs import TextLines


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How to run the local Entra ID alone.

    Attributes:
        generator_url: the address of a token generator, which is allowed as redirect URI.
        signing_algorithm: what the provider signs with.
        exact_discovery: leave out of the discovery document what Entra ID's does not have.
        subject_issuers, level_names: as for `LocalEntraId`.
        state: a directory that keeps keys, secrets and sessions; None keeps them in memory.
        tls: as in `Options`.
        public_url: the address that clients use, if it differs from the one it listens on (containers).
        allow_remote: allow an address other than loopback.
        admin_token: what the console and the admin API demand; None for a new one where they need one.
    """

    manifests: tuple[str, ...] = ()
    directory: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    generator_url: str = "http://127.0.0.1:8081"
    signing_algorithm: str = "RS256"
    exact_discovery: bool = False
    subject_issuers: tuple[str, ...] = ()
    level_names: bool = False
    state: str | None = None
    tls: str | None = None
    public_url: str | None = None
    allow_remote: bool = False
    admin_token: str | None = None


def run(options: Options, *, as_json: bool = False) -> int:
    """Run the whole system until SIGINT or SIGTERM. Returns the exit status: 0.

    Args:
        options: what to start.
        as_json: print the addresses as JSON instead of the welcome.

    Raises:
        ConfigurationError: a manifest, an option or a port is not usable.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines())  # warnings of the sidecars say in their fields what is wrong
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return _event_loop.run(_run(options, as_json))


def run_emulator(options: EmulatorOptions) -> int:
    """Run the local Entra ID alone until SIGINT or SIGTERM. Returns the exit status: 0.

    Raises:
        ConfigurationError: a manifest or an option is not usable.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return _event_loop.run(_run_emulator(options))


async def _run(options: Options, as_json: bool) -> int:
    stop = _stop_signal()
    async with local_system(options) as system:
        _warn(system.emulator)
        print(json.dumps(addresses(system)) if as_json else describe(system), flush=True)
        async with printed(system.emulator, system.sidecars):
            await stop.wait()
        print("stopping", file=sys.stderr, flush=True)
    return 0


async def _run_emulator(options: EmulatorOptions) -> int:
    stop = _stop_signal()
    local = _loaded(options)
    host_name = urlsplit(options.public_url).hostname if options.public_url is not None else None
    tls = local_tls(options.tls, [host_name] if host_name else [])
    emulator = await local.start(
        options.host,
        options.port,
        tls=tls.context if tls is not None else None,
        allow_remote=options.allow_remote,
        admin_token=options.admin_token,
        watch=RELOAD_SECONDS,
    )
    _announce(emulator, tls)
    async with printed(emulator):
        await stop.wait()
    await emulator.stop()
    return 0


def _loaded(options: EmulatorOptions) -> LocalEntraId:
    """The local Entra ID that the options describe, before it is served."""
    if not is_reply_url(options.generator_url):
        raise ConfigurationError(
            "reply_url_invalid",
            "--generator-url must be an https URL (http is allowed for loopback addresses only)",
            "--generator-url",
        )
    if options.signing_algorithm not in SIGNING_ALGORITHMS:
        listed = ", ".join(SIGNING_ALGORITHMS)
        raise ConfigurationError(
            "setting_invalid", f"--signing-algorithm must be one of {listed}", "--signing-algorithm"
        )
    with no_garbage_collection():
        return LocalEntraId.from_files(
            *find_sources(options.manifests, options.directory),
            generator_reply_urls=[options.generator_url.rstrip("/") + CALLBACK_PATH],
            signing_algorithm=options.signing_algorithm,
            exact_discovery=options.exact_discovery,
            subject_issuers=options.subject_issuers,
            level_names=options.level_names,
            state_directory=Path(options.state) if options.state is not None else None,
            public_url=options.public_url,
        )


def _announce(emulator: RunningEmulator, tls: LocalTls | None) -> None:
    """Print the address on standard output, for scripts, and everything else on standard error."""
    _warn(emulator)
    if not any(usable(emulator.local)):
        print(f"warning: {NO_APPLICATION}", file=sys.stderr)
    if tls is not None:
        print(tls.instructions(), file=sys.stderr)
    print("local Entra ID, for development only: anyone can sign in as any user", file=sys.stderr)
    if emulator.admin_token is not None:
        print(f"console: {emulator.base_url}/?token={emulator.admin_token}", file=sys.stderr)
        print(f"admin API: send 'Authorization: Bearer {emulator.admin_token}'", file=sys.stderr, flush=True)
    print(emulator.base_url, flush=True)


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM. A second one has its usual effect: the process ends at once."""
    stop = asyncio.Event()

    def on_signal(_: int) -> None:
        _event_loop.restore_stop_signals()
        stop.set()

    _event_loop.on_stop_signals(on_signal)
    return stop


def _warn(emulator: RunningEmulator) -> None:
    for notice in emulator.local.notices:
        print(f"warning: {notice}", file=sys.stderr)
