"""This machine: whether the sidecar can listen on its addresses, and whether its caches fit into the memory.

What belongs here: what needs no provider. What must never be here: requests that change anything.
"""

from __future__ import annotations

import errno
import functools
import json

from entra_fast._http.listener import bind, reason
from entra_fast._provider.blocking_http_client import BlockingHttpClient
from entra_fast._provider.http_rules import HttpFailure, HttpLimits
from entra_fast._settings.kinds import HostPort
from entra_fast._settings.model import CacheSettings, ServerSettings
from entra_fast.cli.doctor.network import in_thread
from entra_fast.cli.doctor.results import TIME_LIMIT, Examination, Outcome, Result

DOCS = "docs/reference/settings.md"
CACHES_DOCS = "docs/guides/kubernetes.md#memory"

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to ask, not to listen on
_ANSWER_LIMIT = TIME_LIMIT / 2


async def check_ports(examination: Examination, server: ServerSettings, settings: Result | None) -> None:
    """Whether each address is free, or used by a sidecar that runs."""
    addresses = [("BIND_ADDRESS", server.host, server.port)]
    if server.probe_host is not None:
        addresses.append(("PROBE_BIND_ADDRESS", server.probe_host, server.probe_port))
    for setting, host, port in addresses:
        check = functools.partial(_check_port, setting, host, port)
        await examination.check("ports", check, docs=DOCS, needs=(settings,))


async def check_caches(examination: Examination, caches: CacheSettings, settings: Result | None) -> None:
    """Whether full caches fit into the memory limit."""

    async def compare() -> Outcome:
        return compared_with_memory(caches)

    await examination.check("caches", compare, docs=CACHES_DOCS, needs=(settings,))


def compared_with_memory(caches: CacheSettings) -> Outcome:
    """The sizes of the caches, and whether they fit."""
    found = f"token cache {_mib(caches.max_bytes)}, verification cache {_mib(caches.verified_bytes)}"
    if caches.memory_limit is None:
        return Outcome("ok", f"{found}; there is no memory limit")
    idle = caches.idle_bytes
    found += f"; idle processes {_mib(idle)}; memory limit {_mib(caches.memory_limit)}"
    if (needed := idle + caches.max_bytes + caches.verified_bytes) > caches.memory_limit:
        return Outcome(
            "warn",
            found,
            f"a memory limit of at least {_mib(needed)}",
            "raise the container's memory limit, or use fewer workers",
        )
    return Outcome("ok", found)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.4g} MiB"


async def _check_port(setting: str, host: str, port: int) -> Outcome:
    return await in_thread(lambda: _port(setting, host, port))


def _port(setting: str, host: str, port: int) -> Outcome:
    address = HostPort(host, port)
    try:
        bind(host, port).close()
    except OSError as error:
        found = f"{setting}: cannot listen on {address}: {reason(error)}"
        if error.errno == errno.EADDRINUSE:
            if _is_sidecar(setting, host, port):
                return Outcome("ok", f"{setting}: a sidecar is running on {address}")
            remedy = f"stop the program that listens on this port, or set {setting} to another port"
            return Outcome("fail", found, "a free address, or a sidecar that is running", remedy)
        remedy = f"set {setting} to an address of this machine"
        if error.errno == errno.EACCES:
            remedy = f"set {setting} to a port from 1024 on"
        return Outcome("fail", found, "an address to listen on", remedy)
    return Outcome("ok", f"{setting}: {address} is free" if port else f"{setting}: any free port of {host}")


def _is_sidecar(setting: str, host: str, port: int) -> bool:
    """Whether what listens there answers like a sidecar, to a GET that no sidecar counts as a request of an
    application."""
    limits = HttpLimits(_ANSWER_LIMIT, _ANSWER_LIMIT, _ANSWER_LIMIT, max_response_bytes=65_536)
    http = BlockingHttpClient(limits, proxies={}, allow_plain_http=True)
    base = f"http://{HostPort(_WILDCARDS.get(host, host), port)}"
    try:
        if setting == "BIND_ADDRESS":
            response = http.get(f"{base}/api/v1/introspect")
            return response.status == 405 and response.headers.get("Allow") == "POST"
        return "status" in json.loads(http.get(f"{base}/readyz").body)
    except (HttpFailure, ValueError, RecursionError, TypeError):
        return False
