"""The whole system on one machine: local Entra ID, token generator and sidecars in one process, on one
event loop.

What belongs here: choosing manifests and ports, starting the parts in order, saying where they are,
stopping them. The parts talk to each other over real HTTP and get the environment that NAIS would give
them, so nothing in them knows of this module.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import uvloop

from entra_fast._net import is_loopback_host
from entra_fast._settings.load import Settings
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.model.manifests import Source, is_reply_url
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.tls import LocalTls
from entra_fast.emulator.tls import prepare as prepare_tls
from entra_fast.errors import ConfigurationError
from entra_fast.generator import GeneratorSettings, RunningGenerator, start_generator
from entra_fast.generator.settings import CALLBACK_PATH
from entra_fast.sidecar import RunningSidecar, start_sidecar

TOKEN_GENERATOR = "azure-token-generator"
MAX_SIDECARS = 100
RELOAD_SECONDS = 1.0
"""How often the manifests are looked at for changes."""
READY_SECONDS = 10.0
"""Longest time to wait for the sidecars' keys; `/readyz` tells the truth in any case."""
STOP_SECONDS = 10.0
"""Longest time for each part to stop."""

_NO_APPLICATION = "--manifests: no manifest has an application with spec.azure.application.enabled: true"


@dataclass(frozen=True, slots=True)
class Options:
    """What to start. Ports: 0 takes free ones.

    Attributes:
        manifests: `[<cluster>=]<path>` each; none for the examples.
        apps: `<cluster>:<namespace>:<name>` of those that get a sidecar; none for the first one.
        sidecar_port: of the first sidecar; its probes take the next port, further sidecars the ports after.
        tls: folder of the local certificate authority, if the local Entra ID is to be served over https;
            empty for the usual one.
    """

    manifests: tuple[str, ...] = ()
    directory: str | None = None
    apps: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    emulator_port: int = 8080
    generator_port: int = 8081
    sidecar_port: int = 7164
    tls: str | None = None


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """What to start when the local Entra ID runs alone.

    Attributes:
        generator_url: where the token generator, if there is one, receives its logins.
        state: a folder that keeps keys, secrets and sessions; None forgets them.
        tls: as in `Options`.
        public_url: its address as clients know it, where that is not where it listens (containers).
        allow_remote: allow an address other than loopback.
    """

    manifests: tuple[str, ...] = ()
    directory: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    generator_url: str = "http://127.0.0.1:8081"
    state: str | None = None
    tls: str | None = None
    public_url: str | None = None
    allow_remote: bool = False


@dataclass(frozen=True, slots=True)
class SidecarOf:
    """A running sidecar and the application that it belongs to."""

    application: Application
    running: RunningSidecar


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """Everything that runs."""

    emulator: RunningEmulator
    generator: RunningGenerator
    sidecars: tuple[SidecarOf, ...]
    tls: LocalTls | None = None


def options_from(arguments: argparse.Namespace) -> Options:
    """Options from the command line's arguments."""
    return Options(
        manifests=tuple(arguments.manifests),
        directory=arguments.directory,
        apps=tuple(arguments.app),
        host=arguments.host,
        emulator_port=arguments.emulator_port,
        generator_port=arguments.generator_port,
        sidecar_port=arguments.sidecar_port,
        tls=arguments.tls,
    )


def run(options: Options) -> int:
    """Start everything, say where it is, and serve until SIGINT or SIGTERM. Returns the exit status: 0.

    Raises:
        ConfigurationError: a manifest, an option or a port is not usable.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return uvloop.run(_run(options))


def run_emulator(options: EmulatorOptions) -> int:
    """Start the local Entra ID alone, and serve until SIGINT or SIGTERM. Returns the exit status: 0.

    Raises:
        ConfigurationError: a manifest or an option is not usable.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return uvloop.run(_run_emulator(options))


async def _run(options: Options) -> int:
    stop = _stop_signal()
    async with local_system(options) as system:
        _warn(system.emulator)
        print(describe(system), flush=True)
        await stop.wait()
        print("stopping", file=sys.stderr, flush=True)
    return 0


async def _run_emulator(options: EmulatorOptions) -> int:
    stop = _stop_signal()
    if not is_reply_url(options.generator_url):
        raise ConfigurationError(
            "reply_url_invalid",
            "--generator-url must be an https URL (http is allowed for loopback addresses only)",
            "--generator-url",
        )
    local = LocalEntraId.from_files(
        *find_sources(options.manifests, options.directory),
        generator_reply_urls=[options.generator_url.rstrip("/") + CALLBACK_PATH],
        state_directory=Path(options.state) if options.state is not None else None,
        public_url=options.public_url,
    )
    host_name = urlsplit(options.public_url).hostname if options.public_url is not None else None
    tls = _tls(options.tls, [host_name] if host_name else [])
    emulator = await local.start(
        options.host,
        options.port,
        tls=tls.context if tls is not None else None,
        allow_remote=options.allow_remote,
        watch=RELOAD_SECONDS,
    )
    _warn(emulator)
    if all(_is_generator(application) for application in _applications(local)):
        print(f"warning: {_NO_APPLICATION}", file=sys.stderr)
    if tls is not None:
        print(tls.instructions(), file=sys.stderr)
    print("local Entra ID, for development only: anybody can log in as anybody", file=sys.stderr)
    print(emulator.base_url, flush=True)
    await stop.wait()
    await emulator.stop()
    return 0


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM. A second one has its usual effect: the process ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    return stop


def _warn(emulator: RunningEmulator) -> None:
    for notice in emulator.local.notices:
        print(f"warning: {notice}", file=sys.stderr)


@contextlib.asynccontextmanager
async def local_system(options: Options) -> AsyncIterator[LocalSystem]:
    """Everything, started in order and stopped in the opposite one.

    Raises:
        ConfigurationError: a manifest, an option or a port is not usable.
    """
    if not is_loopback_host(options.host):
        raise ConfigurationError(
            "address_not_loopback",
            f"--host: {options.host} is not a loopback address: whoever reached it could log in as anybody",
            "--host",
        )
    local = LocalEntraId.from_files(*find_sources(options.manifests, options.directory))
    applications = _choose(local, options.apps)
    _check_ports(options, len(applications))
    async with contextlib.AsyncExitStack() as stack:
        tls = _tls(options.tls)
        emulator = await local.start(
            options.host,
            options.emulator_port,
            tls=tls.context if tls is not None else None,
            watch=RELOAD_SECONDS,
        )
        # Beside the system's own authorities, the parts trust the local one; nobody else needs to.
        extra = {"ENTRA_FAST_CA_BUNDLE": str(tls.authority)} if tls is not None else {}
        stack.push_async_callback(_stop, emulator)
        sidecars = []
        for number, application in enumerate(applications):
            port = options.sidecar_port + 2 * number if options.sidecar_port else 0
            sidecars.append(await _sidecar(emulator, application, options.host, port, extra))
            stack.push_async_callback(_stop, sidecars[-1].running)
        generator = await _generator(emulator, options, extra)
        stack.push_async_callback(_stop, generator)
        await _until_ready(sidecars)
        yield LocalSystem(emulator, generator, tuple(sidecars), tls)


def find_sources(
    manifests: Sequence[str] = (), directory: str | None = None
) -> tuple[list[Source], Path | None]:
    """Where manifests and directory are: what was named, else ./examples, else the examples in the package.

    Raises:
        ConfigurationError: something that was named is not there.
    """
    sources = [Source.parse(text) for text in manifests]
    for source in sources:
        if not source.path.exists():
            raise ConfigurationError(
                "manifests_missing", f"--manifests: there is no file or folder '{source.path}'", "--manifests"
            )
    examples = _examples()
    if not sources:
        sources = [Source(examples / "manifests")]
    if directory is not None:
        if not Path(directory).is_file():
            raise ConfigurationError(
                "directory_missing", f"--directory: there is no file '{directory}'", "--directory"
            )
        return sources, Path(directory)
    # Without users nobody could log in: manifests that bring no directory get the users of the examples.
    beside = Path(os.path.normpath(sources[0].path / ".." / "directory.yaml"))
    return sources, beside if beside.is_file() else examples / "directory.yaml"


def _examples() -> Path:
    local = Path("examples")
    if (local / "manifests").is_dir():
        return local
    return Path(str(resources.files("entra_fast"))) / "examples"


def _tls(folder: str | None, names: Sequence[str] = ()) -> LocalTls | None:
    if folder is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return prepare_tls(Path(folder) if folder else cache / "entra-fast" / "tls", names)


def _choose(local: LocalEntraId, names: Sequence[str]) -> list[Application]:
    """The applications that get a sidecar."""
    if len(names) > MAX_SIDECARS:
        raise ConfigurationError("too_many_sidecars", f"--app: at most {MAX_SIDECARS} sidecars", "--app")
    if names:
        found = {application.name: application for application in map(local.registry.find, names)}
        return list(found.values())
    for application in _applications(local):
        if not _is_generator(application):
            return [application]
    raise ConfigurationError("no_application", _NO_APPLICATION, "--manifests")


def _applications(local: LocalEntraId) -> Iterator[Application]:
    for tenant in local.registry.tenants:
        yield from tenant.applications.values()


async def _sidecar(
    emulator: RunningEmulator, application: Application, host: str, port: int, extra: Mapping[str, str]
) -> SidecarOf:
    probe_port = port + 1 if port else 0
    environment = {
        **emulator.environment(application.name),
        **extra,
        "BIND_ADDRESS": _address(host, port),
        "PROBE_BIND_ADDRESS": _address(host, probe_port),
        "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",  # nothing here takes the sidecar out of a load balancer first
    }
    # Not the process's own environment or mounted files: a laptop may hold settings of a real tenant.
    settings = Settings.from_environment(environment, Path(os.devnull))
    return SidecarOf(application, await start_sidecar(settings))


async def _generator(
    emulator: RunningEmulator, options: Options, extra: Mapping[str, str]
) -> RunningGenerator:
    local = emulator.local
    own = _generator_application(local)
    tenant = local.registry.tenant(own.tenant_id)
    environment = {
        **emulator.environment(own.name),
        **extra,
        "BIND_ADDRESS": _address(options.host, options.generator_port),
        "TOKEN_GENERATOR_AUDIENCES": " ".join(_audiences(tenant, own)) if tenant is not None else "",
    }
    settings = GeneratorSettings.from_environment(environment, Path(os.devnull))
    running = await start_generator(settings)
    local.add_reply_url(own.name, running.base_url + CALLBACK_PATH)
    return running


def _generator_application(local: LocalEntraId) -> Application:
    for application in _applications(local):
        if _is_generator(application):
            return application
    raise ConfigurationError(
        "generator_disabled",
        f"--manifests: the manifest of {TOKEN_GENERATOR} must have azure.application.enabled: true",
        "--manifests",
    )


def _is_generator(application: Application) -> bool:
    return application.name.rpartition(":")[2] == TOKEN_GENERATOR


def _audiences(tenant: Tenant, own: Application) -> list[str]:
    """All applications of the tenant, those that admit the token generator first."""
    admits = {
        target.name: any(rule.consumer == own.name for rule in target.rules)
        for target in tenant.applications.values()
        if target.name != own.name
    }
    return sorted(admits, key=lambda name: not admits[name])


# --- starting and stopping ---------------------------------------------------------------------------------


class _Stoppable(Protocol):
    def stop(self) -> Coroutine[Any, Any, object]: ...


async def _until_ready(sidecars: Sequence[SidecarOf]) -> None:
    """Wait until the sidecars have fetched keys, so that the first command that is pasted works."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            for sidecar in sidecars:
                while await sidecar.running.service.readiness() is not None:  # noqa: ASYNC110 - a question
                    await asyncio.sleep(0.01)


async def _stop(part: _Stoppable) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(part.stop(), STOP_SECONDS)


def _check_ports(options: Options, sidecars: int) -> None:
    """Say which port is taken, and by which option to change it, before anything starts."""
    first = options.sidecar_port
    wanted = [(options.emulator_port, "--emulator-port"), (options.generator_port, "--generator-port")]
    wanted += [(port, "--sidecar-port") for port in range(first, first + 2 * sidecars) if first]
    seen: dict[int, str] = {}
    for port, option in wanted:
        if port == 0:
            continue
        problem = f"is wanted by {seen[port]} as well" if port in seen else _problem_with(options.host, port)
        if problem is not None:
            raise ConfigurationError(
                "port_taken", f"port {port} on {options.host} {problem}; choose another with {option}", option
            )
        seen[port] = option


def _problem_with(host: str, port: int) -> str | None:
    """Why a port cannot be listened on, or None."""
    if port > 65535:
        return "does not exist"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server((str(address[0]), port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "is already in use"
        return f"cannot be used ({error.strerror or type(error).__name__})"
    return None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- what the newcomer reads -------------------------------------------------------------------------------


def describe(system: LocalSystem) -> str:
    """Addresses, environment and commands to paste, as text for a terminal."""
    rows = [
        (
            "local Entra ID",
            system.emulator.base_url,
            "open it: who may call whom, and why a request was refused",
        ),
        ("token generator", system.generator.base_url, "open it: get a token by clicking"),
    ]
    rows += [
        (
            "sidecar",
            sidecar.running.base_url,
            f"for {sidecar.application.name}, probes at {sidecar.running.probe_url}/readyz",
        )
        for sidecar in system.sidecars
    ]
    width = max(len(url) for _, url, _ in rows)
    lines = ["entra_fast: the local system is up (for development: anybody can log in as anybody)", ""]
    lines += [f"  {what:<16} {url:<{width}}  {note}".rstrip() for what, url, note in rows]
    first = system.sidecars[0]
    lines += ["", f"The environment of {first.application.name}, as NAIS sets it:", ""]
    lines += [
        f"  export {name}={shlex.quote(url)}" for name, url in endpoints(first.running.base_url).items()
    ]
    lines += ["", "Try it, in another terminal:"]
    for title, command in commands(system):
        lines += ["", f"  # {title}", f"  {command}"]
    if system.tls is not None:
        lines += ["", *system.tls.instructions().splitlines()]
    lines += ["", "Ctrl-C stops everything."]
    return "\n".join(lines)


def endpoints(url: str) -> dict[str, str]:
    """The variables by which an application finds its sidecar."""
    return {
        "NAIS_TOKEN_ENDPOINT": f"{url}/api/v1/token",
        "NAIS_TOKEN_EXCHANGE_ENDPOINT": f"{url}/api/v1/token/exchange",
        "NAIS_TOKEN_INTROSPECTION_ENDPOINT": f"{url}/api/v1/introspect",
    }


def commands(system: LocalSystem) -> list[tuple[str, str]]:
    """(what it shows, a command on one line for a POSIX shell) for the first sidecar."""
    first = system.sidecars[0]
    own = first.application.name
    granted, refused = _targets(system.emulator.local, first.application)
    token, _, introspect = endpoints(first.running.base_url).values()

    def ask(target: str) -> str:
        return f"curl -s {token} -d identity_provider=entra_id -d target={shlex.quote(target)}"

    # No jq: a newcomer may not have it. The answer's shape is fixed, so sed is enough.
    extract = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""
    return [
        (f"a token for {granted}", ask(granted)),
        (
            f"a token for {own} itself, and what introspection says about it",
            f'curl -s {introspect} -d identity_provider=entra_id -d token="$({ask(own)} | {extract})"',
        ),
        (f"a policy refuses: {refused} does not admit {own}", ask(refused)),
    ]


def _targets(local: LocalEntraId, consumer: Application) -> tuple[str, str]:
    """A target that the application gets a token for, and one that it does not."""
    tenant = local.registry.tenant(consumer.tenant_id)
    names = [
        application.name
        for application in (tenant.applications.values() if tenant is not None else ())
        if application.name != consumer.name and not _is_generator(application)
    ]
    outcome = {name: local.explain(consumer.name, name).granted for name in names}
    granted = next((name for name, yes in outcome.items() if yes), consumer.name)
    refused = next((name for name, yes in outcome.items() if not yes), f"{consumer.name}-that-does-not-exist")
    return granted, refused
