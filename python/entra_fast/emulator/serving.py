"""LocalEntraId as users know it: the local Entra ID together with its web server.

Only the composition belongs here. The web server is imported when it is needed: `entra-fast explain` and
tests of policies never load it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from entra_fast._net import is_loopback_host
from entra_fast.emulator.local import LocalProvider
from entra_fast.errors import ConfigurationError


class LocalEntraId(LocalProvider):
    """A local Entra ID that can be served over HTTP. Its arguments are those of LocalProvider."""

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        tls: ssl.SSLContext | None = None,
        allow_remote: bool = False,
        watch: float | None = None,
    ) -> RunningEmulator:
        """Serve on an address.

        Args:
            port: 0 for a free one.
            tls: serve https.
            allow_remote: allow an address that is not loopback. Anyone who can reach it can sign in as any
                user.
            watch: seconds between two checks for changed files; None to never reload.

        Raises:
            ConfigurationError: the address is not loopback, or is in use.
        """
        from entra_fast.emulator.web.server import serve  # noqa: PLC0415  aiohttp is needed for serving only

        if not allow_remote and not is_loopback_host(host):
            raise ConfigurationError(
                "address_not_loopback",
                f"{host} is not a loopback address: anyone who can reach the local Entra ID can sign in as "
                "any user; allow it with --allow-remote (allow_remote=True) if that is intended",
                "host",
            )
        # Now, so that no request waits for a key, and a state that cannot be saved is an error at the start.
        await asyncio.to_thread(lambda: self.keyring.active)
        await asyncio.to_thread(self.save)
        server = await serve(self, host, port, tls=tls, watch=watch, allow_remote=allow_remote)
        return RunningEmulator(self, server.address, server.stop)


class RunningEmulator:
    """A local Entra ID that is being served."""

    def __init__(
        self, local: LocalEntraId, address: tuple[str, int], stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.local = local
        self.address = address
        self._stop = stop

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return self.local.base_url

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS would inject into an application. Raises ConfigurationError when there is none of
        that name.
        """
        return self.local.environment(application)

    async def stop(self) -> None:
        """Stop serving; saves the state, if a state directory is set."""
        await self._stop()
