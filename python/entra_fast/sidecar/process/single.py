"""`entra-fast serve` as a process: signals, the exit status, and one process or several.

What belongs here: the life of the process. What must never be here: what happens to a request.

Exit statuses: 0 after a drain in which every request was answered; 1 when requests were aborted or a second
signal arrived; 2 when a setting is missing or wrong, or the sidecar cannot listen on an address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from entra_fast import _event_loop, _native, _net
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CacheSettings
from entra_fast.sidecar.logs import configure, logger
from entra_fast.sidecar.process.running import freeze_garbage_collector, start_sidecar


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of the sidecar.

    Returns:
        The exit status of the process.

    Raises:
        ConfigurationError: the sidecar cannot listen on an address.
    """
    configure(settings.server.log_level, settings.server.log_format)
    if settings.unknown:
        logger.warning("unknown settings ignored: %s", ", ".join(settings.unknown))
    _net.warn_of_insecure_hosts(settings.outbound.insecure_hosts)
    _log_memory(settings.caches)
    if _event_loop.WITHOUT_UVLOOP is not None:
        logger.info(_event_loop.WITHOUT_UVLOOP)
    if settings.server.workers > 1:
        from entra_fast.sidecar.process.supervisor import supervise  # noqa: PLC0415 - not needed for one process

        serve = supervise
    else:
        serve = _serve
    return _event_loop.run(serve(settings))


def _log_memory(caches: CacheSettings) -> None:
    """How large the caches may be in all processes together, where the container has a memory limit."""
    if caches.memory_limit is not None:
        fields = {
            "memory_limit": caches.memory_limit,
            "token_cache_bytes": caches.max_bytes,
            "verified_cache_bytes": caches.verified_bytes,
        }
        logger.info("memory limit", extra={"fields": fields})


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            logger.warning("second signal: stopping at once")
            logging.shutdown()
            os._exit(1)
        logger.info("draining", extra={"fields": {"signal": signal.Signals(number).name}})
        stop.set()

    _event_loop.on_stop_signals(on_signal)
    sidecar = await start_sidecar(settings)
    freeze_garbage_collector()
    fields = {"address": sidecar.address, "probes": sidecar.probe_address, "version": _native.__version__}
    logger.info("listening", extra={"fields": fields})
    await stop.wait()
    finished = await sidecar.stop(drain=True)
    logger.info("stopped", extra={"fields": {"every_request_answered": finished}})
    return 0 if finished else 1
