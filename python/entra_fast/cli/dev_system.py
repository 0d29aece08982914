"""The whole system on one machine: the local providers, token generators and sidecars in one process, on one
event loop.

What belongs here: choosing applications and ports, starting the parts in order, and stopping them. The parts
talk to each other over real HTTP and get the environment that NAIS would give them, so they do not depend on
this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entra_fast._net import is_loopback_host
from entra_fast._settings.kinds import HostPort
from entra_fast._settings.load import Settings
from entra_fast.cli.manifest_sources import find_sources, no_garbage_collection
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.model.workloads import Workload, tokenx_generator
from entra_fast.emulator.tls import LocalTls
from entra_fast.emulator.tls import prepare as prepare_tls
from entra_fast.errors import ConfigurationError
from entra_fast.generator import (
    GeneratorSettings,
    RunningGenerator,
    TokenXGeneratorSettings,
    start_generator,
    start_tokenx_generator,
)
from entra_fast.generator.settings import CALLBACK_PATH
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar

TOKEN_GENERATOR = "azure-token-generator"
TOKENX_TOKEN_GENERATOR = "tokenx-token-generator"
MAX_SIDECARS = 100
RELOAD_SECONDS = 1.0
"""Time between two checks for changed manifests."""
READY_SECONDS = 10.0
"""Maximum time to wait until the sidecars have fetched keys."""
STOP_SECONDS = 10.0
"""Maximum time for each part to stop."""

NO_APPLICATION = (
    "--manifests: no manifest has an application with spec.azure.application, tokenx, maskinporten or "
    "idporten enabled"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to start. Ports: 0 takes free ones.

    Attributes:
        manifests: `[<cluster>=]<path>` each; none for the examples.
        apps: `<cluster>:<namespace>:<name>` of those that get a sidecar; none for the first one.
        generator_port: of the token generator; the one for TokenX takes the next port.
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
    """A running sidecar and the application that it belongs to.

    Attributes:
        identity: the application in Entra ID; None if it has none there.
    """

    application: Workload
    identity: Application | None
    running: RunningSidecar


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """The running parts. There is no token generator for TokenX where no application uses TokenX."""

    emulator: RunningEmulator
    generator: RunningGenerator
    tokenx_generator: RunningGenerator | None
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
    chosen = _choose(local, options.apps)
    with_tokenx = any(workload.tokenx for workload in usable(local))
    _check_ports(options, len(chosen), 2 if with_tokenx else 1)
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
        environments = await _environments(local, [workload.name for workload in chosen], with_tokenx)
        sidecars = []
        for number, (workload, environment) in enumerate(zip(chosen, environments.sidecars, strict=True)):
            port = options.sidecar_port + 2 * number if options.sidecar_port else 0
            sidecars.append(await _sidecar(local, workload, environment | extra, options.host, port))
            stack.push_async_callback(_stop, sidecars[-1].running)
        generator = await _generator(local, environments.generator | extra, options)
        stack.push_async_callback(_stop, generator)
        for_tokenx = None
        if environments.tokenx_generator is not None:
            for_tokenx = await _tokenx_generator(local, environments.tokenx_generator | extra, options)
            stack.push_async_callback(_stop, for_tokenx)
        await _until_ready(sidecars)
        yield LocalSystem(emulator, generator, for_tokenx, tuple(sidecars), tls)


def local_tls(folder: str | None, names: Sequence[str] = ()) -> LocalTls | None:
    if folder is None:
        return None
    if folder:
        return prepare_tls(Path(folder), names)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return prepare_tls(cache / "entra-fast" / "tls", names)


def _choose(local: LocalEntraId, names: Sequence[str]) -> list[Workload]:
    """The applications that get a sidecar."""
    if len(names) > MAX_SIDECARS:
        raise ConfigurationError("too_many_sidecars", f"--app: at most {MAX_SIDECARS} sidecars", "--app")
    if names:
        found = {workload.name: workload for workload in map(local.registry.find_workload, names)}
        return list(found.values())
    first = next(usable(local), None)
    if first is None:
        raise ConfigurationError("no_application", NO_APPLICATION, "--manifests")
    return [first]


def usable(local: LocalEntraId) -> Iterator[Workload]:
    """All applications of the manifests that some provider knows, those of Entra ID first."""
    registry = local.registry
    for application in applications(local):
        if not is_generator(application.name):
            yield registry.find_workload(application.name)
    for workload in registry.workloads.by_name.values():
        is_elsewhere = workload.name in registry.without_identity and workload.has_providers
        if is_elsewhere and not is_generator(workload.name):
            yield workload


def applications(local: LocalEntraId) -> Iterator[Application]:
    """All applications in Entra ID."""
    for tenant in local.registry.tenants:
        yield from tenant.applications.values()


def is_generator(name: str) -> bool:
    """Whether an application is one of the token generators."""
    return name.rpartition(":")[2] in (TOKEN_GENERATOR, TOKENX_TOKEN_GENERATOR)


# --- what the parts get ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Environments:
    """What NAIS would inject into each part."""

    sidecars: Sequence[dict[str, str]]
    generator: dict[str, str]
    tokenx_generator: dict[str, str] | None


async def _environments(local: LocalEntraId, names: Sequence[str], with_tokenx: bool) -> _Environments:
    """All environments. Each needs keys that take a tenth of a second, so they are made at the same time."""
    makers: list[Callable[[], dict[str, str]]] = [
        functools.partial(local.environment, name) for name in names
    ]
    makers.append(functools.partial(local.environment, _generator_application(local).name))
    if with_tokenx:
        makers.append(local.providers.tokenx_generator_environment)
    made = await asyncio.gather(*(asyncio.to_thread(make) for make in makers))
    count = len(names)
    return _Environments(made[:count], made[count], made[count + 1] if with_tokenx else None)


async def _sidecar(
    local: LocalEntraId, workload: Workload, environment: Mapping[str, str], host: str, port: int
) -> SidecarOf:
    probe_port = port + 1 if port else 0
    environment = {
        **environment,
        "BIND_ADDRESS": str(HostPort(host, port)),
        "PROBE_BIND_ADDRESS": str(HostPort(host, probe_port)),
        "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",  # there is no load balancer to inform first
    }
    # Neither the environment of this process nor mounted files: they may hold settings of a real tenant.
    settings = Settings.from_environment(environment, Path(os.devnull))
    identity = next((found for found in applications(local) if found.name == workload.name), None)
    return SidecarOf(workload, identity, await start_sidecar(settings))


async def _generator(
    local: LocalEntraId, environment: Mapping[str, str], options: Options
) -> RunningGenerator:
    own = _generator_application(local)
    tenant = local.registry.tenant(own.tenant_id)
    environment = {
        **environment,
        "BIND_ADDRESS": str(HostPort(options.host, options.generator_port)),
        "TOKEN_GENERATOR_AUDIENCES": " ".join(_audiences(tenant, own)) if tenant is not None else "",
    }
    settings = GeneratorSettings.from_environment(environment, Path(os.devnull))
    running = await start_generator(settings)
    local.add_reply_url(own.name, running.base_url + CALLBACK_PATH)
    return running


async def _tokenx_generator(
    local: LocalEntraId, environment: Mapping[str, str], options: Options
) -> RunningGenerator:
    own = tokenx_generator(local.generator_cluster)
    port = options.generator_port
    environment = {
        **environment,
        "BIND_ADDRESS": str(HostPort(options.host, port + 1 if port else 0)),
        "TOKEN_GENERATOR_AUDIENCES": " ".join(_tokenx_audiences(local, own)),
    }
    settings = TokenXGeneratorSettings.from_environment(environment, Path(os.devnull))
    running = await start_tokenx_generator(settings)
    local.providers.idporten.add_redirect_uri(own, running.base_url + CALLBACK_PATH)
    return running


def _generator_application(local: LocalEntraId) -> Application:
    for application in applications(local):
        if application.name.rpartition(":")[2] == TOKEN_GENERATOR:
            return application
    raise ConfigurationError(
        "generator_disabled",
        f"--manifests: the manifest of {TOKEN_GENERATOR} must have azure.application.enabled: true",
        "--manifests",
    )


def _audiences(tenant: Tenant, own: Application) -> list[str]:
    """All applications of the tenant; first those whose policies allow the token generator."""
    admits = {
        target.name: any(rule.consumer == own.name for rule in target.rules)
        for target in tenant.applications.values()
        if target.name != own.name
    }
    return sorted(admits, key=lambda name: not admits[name])


def _tokenx_audiences(local: LocalEntraId, own: str) -> list[str]:
    """All applications in TokenX; first those that admit the token generator for TokenX."""
    admits = {
        workload.name: own in workload.admitted
        for workload in local.registry.workloads.by_name.values()
        if workload.tokenx and workload.name != own
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


def _check_ports(options: Options, sidecars: int, generators: int) -> None:
    """Refuse a port that is not available, before anything starts."""
    wanted = [(options.emulator_port, "--emulator-port")]
    for first, count, option in (
        (options.generator_port, generators, "--generator-port"),
        (options.sidecar_port, 2 * sidecars, "--sidecar-port"),
    ):
        wanted += [(port, option) for port in range(first, first + count) if first]
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
