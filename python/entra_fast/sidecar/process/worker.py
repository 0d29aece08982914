"""A worker: one of several processes that answer requests as one sidecar.

What belongs here: answering from its own caches, asking the hub for the rest, and doing what the hub says.
What must never be here: the provider, its credentials, and any decision about when to fetch (hub.py).

Started by supervisor.py as `python -m entra_fast.sidecar.process.worker`, with two sockets: a listening one, and
one to the hub. It lives no longer than the process that started it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import dataclasses
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import uvloop

from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource, Waiters
from entra_fast._provider.oauth import scope_for
from entra_fast._provider.token_client import Acquirer
from entra_fast._provider.tokens import AcquiredToken, token_key
from entra_fast._settings.load import (
    CacheSettings,
    CredentialSettings,
    OutboundSettings,
    ProviderSettings,
    ServerSettings,
    Settings,
)
from entra_fast.errors import KeysUnavailable, ProviderError
from entra_fast.sidecar.logs import configure, logger
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields
from entra_fast.sidecar.process.single import RunningSidecar, spare_the_collector, start_api
from entra_fast.sidecar.service import Service
from entra_fast.validate import AsyncValidator

HUB_PATIENCE = 30.0
"""Seconds for the hub's answer. The hub keeps the deadlines that matter; this is for one that hangs."""

ERROR_CODES = {"hub_unavailable": "the process that speaks to the provider for all workers does not answer"}

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Hub:
    """The way to the hub."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def tell(self, name: str, **fields: object) -> None:
        """Say something that needs no answer."""
        self._channel.send(name, **fields)

    async def ask(self, name: str, **fields: object) -> Fields:
        """The hub's answer.

        Raises:
            EntraFastError: as the hub raised it.
            ProviderError: code `hub_unavailable`.
        """
        try:
            async with asyncio.timeout(HUB_PATIENCE):
                return await self._channel.call(name, **fields)
        except (ChannelLost, TimeoutError):
            raise ProviderError(
                "hub_unavailable",
                "the process that speaks to the provider for all workers does not answer",
                status=503,
                retry_after=1,
            ) from None


class HubAcquirer:
    """Hands out tokens from this worker's cache, or asks the hub: an `Acquirer`."""

    in_flight = 0  # it is the hub that fetches

    def __init__(self, service: WorkerService, provider: ProviderSettings) -> None:
        self._service = service
        self._provider = provider

    async def acquire(self, target: str, *, skip_cache: bool = False) -> AcquiredToken:
        """As `TokenClient.acquire`."""
        return await self._obtain(target, None, skip_cache)

    async def exchange(self, target: str, subject_token: str, *, skip_cache: bool = False) -> AcquiredToken:
        """As `TokenClient.exchange`."""
        return await self._obtain(target, subject_token, skip_cache)

    def renew(self, target: str, subject_token: str | None = None) -> None:
        """As `TokenClient.renew`."""
        self._service.hub.tell("renew", target=target, subject_token=subject_token)

    async def aclose(self) -> None:
        """Nothing runs in the background."""

    async def _obtain(self, target: str, subject_token: str | None, skip_cache: bool) -> AcquiredToken:
        service = self._service
        key = token_key(self._provider, scope_for(target), subject_token)
        if not skip_cache:
            grant = service.cache.get(key, **service.now())
            if grant is not None:
                if grant.renewal_due:
                    self.renew(target, subject_token)
                return AcquiredToken(grant.access_token, grant.expires_in)
        try:
            answer = await service.hub.ask(
                "token", target=target, subject_token=subject_token, skip_cache=skip_cache
            )
        except ProviderError as exc:
            # The hub itself hands out what is still valid when the provider fails.
            if exc.code != "hub_unavailable":
                raise
            stale = service.cache.get_stale(key, **service.now())
            if stale is None:
                raise
            service.metrics.stale_served.add()
            return AcquiredToken(stale.access_token, stale.expires_in)
        elapsed = math.floor(service.now()["monotonic"] - answer["at"])
        return AcquiredToken(answer["token"], max(0, answer["expires_in"] - elapsed))


class HubKeys:
    """Keys that the hub fetches: a `KeySource`. New sets come without being asked for."""

    def __init__(self, service: WorkerService) -> None:
        self._service = service
        self._asking: asyncio.Task[bool] | None = None
        self._waiters = Waiters()
        self.keys: KeySet | None = None
        self.reason: str | None = None
        self.cool_down_ends = -math.inf

    def start(self) -> None:
        """The hub has started already."""

    async def aclose(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def refresh_for_unknown(self, kid: str | None) -> bool:
        """As `AsyncKeys.refresh_for_unknown`. A flood of unknown ids costs the hub one question at a time."""
        if kid is not None and self.keys is not None and kid in self.keys.kids:
            return True  # it came while the token was judged
        if self._service.now()["monotonic"] < self.cool_down_ends:
            return False
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(kid))
            self._asking.add_done_callback(lambda _: self._waiters.wake())
        asking = self._asking
        await self._waiters.wait()
        return not asking.cancelled() and asking.result()

    def call_when_fetched(self, go_on: Callable[[], None]) -> bool:
        """As `AsyncKeys.call_when_fetched`."""
        if self._asking is None or self._asking.done():
            return False
        self._waiters.add(go_on)
        return True

    async def _ask(self, kid: str | None) -> bool:
        try:
            answer = await self._service.hub.ask("keys", kid=kid)
        except ProviderError as exc:
            self.reason = f"keys of the token issuer are not available: {exc.message}"
            return False
        self.reason = answer["reason"]
        return bool(answer["again"])

    def unavailable(self) -> KeysUnavailable:
        reason = self.reason or "keys of the token issuer are not available: they have not been fetched yet"
        return KeysUnavailable("keys_unavailable", reason)

    def stats(self) -> dict[str, int]:
        """The hub's figures are the hub's."""
        return {}


class HubValidator(AsyncValidator):
    """A validator whose keys come from the hub."""

    def __init__(
        self, keys: KeySource, issuer: str, audience: str, jwks_uri: str, cache_entries: int
    ) -> None:
        super().__init__(
            issuer, audience, jwks_uri=jwks_uri, required_claims=("iat",), cache_entries=cache_entries
        )
        self._keys = keys


class WorkerService(Service):
    """The half of a `Service` that answers requests. The hub's messages change it: see `handle`."""

    def __init__(self, settings: Settings, hub: Hub, number: int | None = None) -> None:
        self.hub = hub
        self.keys = HubKeys(self)
        super().__init__(settings, worker=number)
        self.metrics.ready.read = lambda: 0  # the hub's to say

    def now(self) -> dict[str, float]:
        """Both clocks, as the cache wants them."""
        return {"monotonic": self._clocks.monotonic(), "now": self._clocks.wall()}

    async def start(self) -> None:
        """Nothing has to be fetched from here."""

    async def aclose(self) -> None:
        await self.keys.aclose()
        await super().aclose()

    def _make_acquirer(self, provider: ProviderSettings) -> Acquirer:
        return HubAcquirer(self, provider)

    async def readiness(self) -> str | None:
        if self.draining:
            return "shutting down"
        try:
            answer = await self.hub.ask("readiness")
        except ProviderError as exc:
            return exc.message
        reason: str | None = answer["reason"]
        return reason

    async def exposition(self) -> bytes:
        answer = await self.hub.ask("metrics")
        text: str = answer["text"]
        return text.encode("utf-8")

    async def _undiscovered(self) -> str | None:
        try:
            answer = await self.hub.ask("keys", kid=None)
        except ProviderError as exc:
            return exc.message
        return answer["reason"] or "the discovery document has not been fetched yet"

    # --- what the hub says; each is done when the method returns, for its order is a promise ---

    def on_grant(self, fields: Fields) -> None:
        self.cache.put(
            bytes.fromhex(fields["key"]),
            fields["token"],
            fields["expires_in"],
            monotonic=fields["monotonic"],
            renew_in=fields["renew_in"],
            subject_expires_at=fields["subject_expires_at"],
        )

    def on_renewal_failed(self, fields: Fields) -> None:
        self.cache.renewal_failed(
            bytes.fromhex(fields["key"]), monotonic=fields["monotonic"], retry_in=fields["retry_in"]
        )

    def on_provider(self, fields: Fields) -> None:
        provider = self.settings.provider
        if self.validator is None and provider is not None:
            validator = HubValidator(
                self.keys,
                fields["issuer"],
                provider.client_id,
                fields["jwks_uri"],
                self.settings.caches.verified_entries,
            )
            validator.verifier.set_keys(self.keys.keys)
            self._judge_by(validator)

    def on_keys(self, fields: Fields) -> None:
        text, self.keys.reason = fields["text"], fields["reason"]
        keys = None if text is None else KeySet(text)
        if self.validator is not None:
            self.validator.verifier.set_keys(keys)
        self.keys.keys = keys

    def on_cool_down(self, fields: Fields) -> None:
        until = fields["until"]
        self.keys.cool_down_ends = -math.inf if until is None else until  # JSON has no infinity
        if self.lane is not None:
            self.lane.native.refuse_unknown_keys_until(self.keys.cool_down_ends)


class Worker:
    """The process: does what the hub says, from its start to its end."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._channel = Channel(self._handle, _die)
        self._service: WorkerService | None = None
        self._started = asyncio.Event()
        self._may_serve = asyncio.Event()
        self._drain = asyncio.Event()

    async def serve(self, hub: socket.socket, listener: socket.socket) -> None:
        """Serve until the hub says that it is enough, and tell it whether every request was answered."""
        await self._channel.open(hub)
        await self._started.wait()
        service = self._service
        assert service is not None  # noqa: S101 - it has been started
        self._channel.send("hello")
        await self._may_serve.wait()
        server = service.settings.server
        api = await start_api(service.settings, service, listener, probes=server.probe_host is None)
        running = RunningSidecar(server, service, api, listener, None)
        spare_the_collector()
        self._channel.send("serving")
        await self._drain.wait()
        await self._channel.call("drained", finished=await running.stop(drain=True))

    def _handle(self, name: str, fields: Fields) -> Fields | None:
        if name == "start":
            settings = settings_from(fields)
            configure(settings.server.log_level, worker=self._number)
            self._service = WorkerService(settings, Hub(self._channel), self._number)
            self._started.set()
            return None
        service = self._service
        if service is None:
            raise ValueError("the first message must be 'start'")
        match name:
            case "grant":
                service.on_grant(fields)
            case "renewal_failed":
                service.on_renewal_failed(fields)
            case "provider":
                service.on_provider(fields)
            case "keys":
                service.on_keys(fields)
            case "cool_down":
                service.on_cool_down(fields)
            case "figures":
                return {"figures": service.metrics.figures()}
            case "sync":
                pass  # the answer itself says that everything before it has been done
            case "go":
                self._may_serve.set()
            case "drain":
                self._drain.set()
            case _:
                raise ValueError("no such message")
        return None


def for_worker(settings: Settings) -> Fields:
    """What a worker needs to know: no secret. Limits that hold for the whole are divided."""
    server, caches, provider = settings.server, settings.caches, settings.provider
    return {
        "server": {
            **dataclasses.asdict(server),
            "allowed_hosts": sorted(server.allowed_hosts),
            "max_connections": math.ceil(server.max_connections / server.workers),
        },
        "provider": None
        if provider is None
        else {"client_id": provider.client_id, "tenant_id": provider.tenant_id},
        "caches": {
            **dataclasses.asdict(shared(caches, server.workers)),
            "verified_entries": math.ceil(caches.verified_entries / server.workers),
        },
    }


def settings_from(fields: Fields) -> Settings:
    """What `for_worker` made."""
    server, provider = fields["server"], fields["provider"]
    return Settings(
        server=ServerSettings(**{**server, "allowed_hosts": frozenset(server["allowed_hosts"])}),
        provider=None
        if provider is None
        else ProviderSettings(
            client_id=provider["client_id"],
            tenant_id=provider["tenant_id"],
            well_known_url=None,
            issuer=None,
            jwks_uri=None,
            token_endpoint=None,
            credentials=CredentialSettings(),
        ),
        outbound=OutboundSettings(),
        caches=CacheSettings(**fields["caches"]),
    )


def shared(caches: CacheSettings, workers: int) -> CacheSettings:
    """The part of each process: the hub and each worker have a copy of each token, in limited memory."""
    return dataclasses.replace(caches, max_bytes=max(1, caches.max_bytes // (workers + 1)))


def main(arguments: list[str]) -> NoReturn:
    """The process: number, the supervisor's process id, and the file descriptors of the two sockets."""
    number, supervisor, hub, listener = map(int, arguments)
    configure("info", worker=number)
    for name in (signal.SIGINT, signal.SIGTERM):
        # Terminals and service managers send these to all processes at once; the hub says when to go.
        signal.signal(name, signal.SIG_IGN)
    _die_with(supervisor)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(number, hub, listener))
    except Exception:
        logger.exception("worker failed")
    _leave(1)


async def _serve(number: int, hub: int, listener: int) -> None:
    listening = socket.socket(fileno=listener)
    listening.setblocking(False)
    await Worker(number).serve(socket.socket(fileno=hub), listening)
    # What would run at the end of Python, such as sending the last spans.
    atexit._run_exitfuncs()
    _leave(0)  # without closing the channel first, which the hub would take for a crash


def _die_with(supervisor: int) -> None:
    """End when the supervisor does, even if this process hangs. Its end of the channel closes too, which is
    enough where the system does not have this."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        _die()


def _die() -> NoReturn:
    """The hub is gone: what this process knows is not kept up to date any more."""
    _leave(1)


def _leave(status: int) -> NoReturn:
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
