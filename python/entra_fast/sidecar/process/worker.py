"""A worker: one of several processes that answer requests as one sidecar.

What belongs here: the life of the process from start to exit, and its initial settings. What must never be
here: the messages in between (provider_channel.py).

Started by supervisor.py as a process of its own, with two sockets: a listening one, and one to the provider
process; and with memory in which it shows its progress. It does not outlive the process that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from typing import NoReturn

from entra_fast import _event_loop, _signatures
from entra_fast._http.server import Way, best_way
from entra_fast.sidecar import otlp, tracing
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.logs import configure, logger
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.progress import Progress
from entra_fast.sidecar.process.provider_channel import ProviderChannel
from entra_fast.sidecar.process.running import RunningSidecar, freeze_garbage_collector, start_api
from entra_fast.sidecar.process.worker_settings import settings_from
from entra_fast.sidecar.service import Service, new_metrics, new_token_cache
from entra_fast.sidecar.telemetry import Telemetry, usable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Worker:
    """The worker process, controlled by the provider process from start to exit."""

    def __init__(self, number: int, progress: Progress) -> None:
        self._number = number
        self._progress = progress
        self._channel = Channel(self._handle, _die)
        self._provider: ProviderChannel | None = None
        self._service: Service | None = None
        self._way = best_way()
        self._exported = usable(otlp.read())
        self._started = asyncio.Event()
        self._may_serve = asyncio.Event()
        self._drain = asyncio.Event()

    async def serve(self, provider_process: socket.socket, listener: socket.socket) -> None:
        """Serve until the provider process says to drain, and tell it whether every request was answered."""
        await self._channel.open(provider_process)
        await self._started.wait()
        service = self._service
        assert service is not None  # noqa: S101 - it has been started
        await service.start()
        self._report_distrust()
        self._channel.send("hello")
        await self._may_serve.wait()
        server = service.settings.server
        api = await start_api(
            service,
            listener,
            self._way,
            probes=server.probe_host is None,
            worked=self._progress.worked,
        )
        running = RunningSidecar(server, service, api, listener)
        freeze_garbage_collector()
        self._channel.send("serving")
        telemetry = Telemetry(self._exported, service.tracing, service.has_started)
        telemetry.start()
        await self._drain.wait()
        finished = await running.stop(drain=True)
        await self._channel.call("drained", finished=finished, figures=service.metrics.figures())
        await telemetry.aclose()

    def _report_distrust(self) -> None:
        """When rind and AWS-LC disagree here, no other worker may continue to trust rind."""
        loop = asyncio.get_running_loop()
        _signatures.call_when_distrusted(
            lambda: loop.call_soon_threadsafe(self._channel.send, "signatures_distrusted")
        )

    def _handle(self, name: str, fields: Fields) -> Fields | None:
        if name == "start":
            self._start(fields)
            return None
        service, provider = self._service, self._provider
        if service is None or provider is None:
            raise ValueError("the first message must be 'start'")
        match name:
            case "figures":
                examples = service.rejections.take_examples()
                return {"figures": service.metrics.figures(), "examples": examples}
            case "sync":
                pass  # the answer itself says that everything before it has been applied
            case "serve":
                service.start_up.began = fields["began"]  # that of the whole sidecar
                self._may_serve.set()
            case "drain":
                self._drain.set()
            case _:
                if not provider.handle(name, fields):
                    raise ValueError("unknown message")
        return None

    def _start(self, fields: Fields) -> None:
        settings = settings_from(fields)
        configure(settings.server.log_level, settings.server.log_format, worker=self._number)
        metrics, cache = new_metrics(settings.server), new_token_cache(settings.caches)
        clocks = Clocks()
        self._provider = ProviderChannel(self._channel, settings, cache=cache, metrics=metrics, clocks=clocks)
        self._service = Service(
            settings,
            self._provider,
            cache=cache,
            metrics=metrics,
            clocks=clocks,
            tracing=tracing.begin(self._exported),
            worker=self._number,
            fast_path=self._way is Way.FAST_PATH,
        )
        self._started.set()


def main(arguments: list[str]) -> NoReturn:
    """The process.

    Args:
        arguments: its number, the supervisor's process id, and the file descriptors of the two sockets and of
            the shared memory.
    """
    number, supervisor, provider_process, listener, memory = map(int, arguments)
    configure("info", worker=number)
    for name in (signal.SIGINT, signal.SIGTERM):
        # Terminals and service managers send these to all processes at once; the provider process says when
        # to end.
        signal.signal(name, signal.SIG_IGN)
    _die_with(supervisor)
    try:
        _event_loop.run(_serve(number, provider_process, listener, memory))
    except Exception:
        logger.exception("worker failed")
    _leave(1)


async def _serve(number: int, provider_process: int, listener: int, memory: int) -> None:
    listening = socket.socket(fileno=listener)
    listening.setblocking(False)
    await Worker(number, Progress(memory)).serve(socket.socket(fileno=provider_process), listening)
    _leave(0)  # without closing the channel first, which the provider process would take for a crash


def _die_with(supervisor: int) -> None:
    """Exit when the supervisor does, even if this process hangs. On systems without this feature, the end of
    the channel has to suffice."""
    if sys.platform == "linux":  # pragma: no branch - other operating systems
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        _die()


def _die() -> NoReturn:
    """The provider process is gone: this process no longer gets updates."""
    _leave(1)


def _leave(status: int) -> NoReturn:
    logging.shutdown()
    os._exit(status)
