"""The whole system on one machine: local Entra ID, token generator and sidecars in one process, on one
event loop.

What belongs here: choosing applications and ports, starting the parts in order, and stopping them. The parts
talk to each other over real HTTP and get the environment that NAIS would give them, so they do not depend on
this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entra_fast._net import is_loopback_host
from entra_fast._settings.load import Settings
from entra_fast.cli.manifest_sources import find_sources, no_garbage_collection
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.tls import LocalTls
from entra_fast.emulator.tls import prepare as prepare_tls
from entra_fast.errors import ConfigurationError
from entra_fast.generator import GeneratorSettings, RunningGenerator, start_generator
from entra_fast.generator.settings import CALLBACK_PATH
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar

TOKEN_GENERATOR = "azure-token-generator"
MAX_SIDECARS = 100
RELOAD_SECONDS = 1.0
"""Time between two checks for changed manifests."""
READY_SECONDS = 10.0
"""Maximum time to wait until the sidecars have fetched keys."""
STOP_SECONDS = 10.0
"""Maximum time for each part to stop."""

NO_APPLICATION = "--manifests: no manifest has an application with spec.azure.application.enabled: true"


@dataclass(frozen=True, slots=True)
class Options:
    """What to start. Ports: 0 takes free ones.

    Attributes:
        manifests: `[<cluster>=]<path>` each; none for the examples.
        apps: `<cluster>:<namespace>:<name>` of those that get a sidecar; none for the first one.
        sidecar_port: of the first sidecar; its probes take the next port, further sidecars the ports after.
        tls: folder of the local certificate authority, to serve the local Entra ID over https; empty for the
            default one.
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
class SidecarOf:
    """A running sidecar and the application that it belongs to."""

    application: Application
    running: RunningSidecar


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """The running parts."""

    emulator: RunningEmulator
    generator: RunningGenerator
    sidecars: tuple[SidecarOf, ...]
    tls: LocalTls | None = None


@contextlib.asynccontextmanager
async def local_system(options: Options) -> AsyncIterator[LocalSystem]:
    """The whole system, started in order and stopped in reverse order.

    Raises:
        ConfigurationError: a manifest, an option or a port is not usable.
    """
    if not is_loopback_host(options.host):
        raise ConfigurationError(
            "address_not_loopback",
            f"--host: {options.host} is not a loopback address: anyone could sign in as any user",
            "--host",
        )
    with no_garbage_collection():
        local = LocalEntraId.from_files(*find_sources(options.manifests, options.directory))
    applications = _choose(local, options.apps)
    _check_ports(options, len(applications))
    async with contextlib.AsyncExitStack() as stack:
        tls = local_tls(options.tls)
        emulator = await local.start(
            options.host,
            options.emulator_port,
            tls=tls.context if tls is not None else None,
            watch=RELOAD_SECONDS,
        )
        # The parts trust the local certificate authority in addition to the system's.
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


def local_tls(folder: str | None, names: Sequence[str] = ()) -> LocalTls | None:
    if folder is None:
        return None
    if folder:
        return prepare_tls(Path(folder), names)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return prepare_tls(cache / "entra-fast" / "tls", names)


def _choose(local: LocalEntraId, names: Sequence[str]) -> list[Application]:
    """The applications that get a sidecar."""
    if len(names) > MAX_SIDECARS:
        raise ConfigurationError("too_many_sidecars", f"--app: at most {MAX_SIDECARS} sidecars", "--app")
    if names:
        found = {application.name: application for application in map(local.registry.find, names)}
        return list(found.values())
    for application in applications(local):
        if not is_generator(application):
            return [application]
    raise ConfigurationError("no_application", NO_APPLICATION, "--manifests")


def applications(local: LocalEntraId) -> Iterator[Application]:
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
        "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",  # there is no load balancer to inform first
    }
    # Neither the environment of this process nor mounted files: they may hold settings of a real tenant.
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
    for application in applications(local):
        if is_generator(application):
            return application
    raise ConfigurationError(
        "generator_disabled",
        f"--manifests: the manifest of {TOKEN_GENERATOR} must have azure.application.enabled: true",
        "--manifests",
    )


def is_generator(application: Application) -> bool:
    return application.name.rpartition(":")[2] == TOKEN_GENERATOR


def _audiences(tenant: Tenant, own: Application) -> list[str]:
    """All applications of the tenant; first those whose policies allow the token generator."""
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
    """Wait until the sidecars have fetched keys, so that the first pasted command succeeds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            for sidecar in sidecars:
                while not (await sidecar.running.service.readiness()).ready:  # noqa: ASYNC110 - a question
                    await asyncio.sleep(0.01)


async def _stop(part: _Stoppable) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(part.stop(), STOP_SECONDS)


def _check_ports(options: Options, sidecars: int) -> None:
    """Refuse a port that is not available, before anything starts."""
    first = options.sidecar_port
    wanted = [(options.emulator_port, "--emulator-port"), (options.generator_port, "--generator-port")]
    wanted += [(port, "--sidecar-port") for port in range(first, first + 2 * sidecars) if first]
    seen: dict[int, str] = {}
    for port, option in wanted:
        if port == 0:
            continue
        problem = f"is also used by {seen[port]}" if port in seen else _problem_with(options.host, port)
        if problem is not None:
            raise ConfigurationError(
                "port_taken", f"port {port} on {options.host} {problem}; choose another with {option}", option
            )
        seen[port] = option


def _problem_with(host: str, port: int) -> str | None:
    """Why a port is not available, or None."""
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
