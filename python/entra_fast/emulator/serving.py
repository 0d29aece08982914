"""LocalEntraId as users know it: the local Entra ID together with its web server.

Only the composition belongs here. The web server is imported when it is needed: `entra-fast explain` and
tests of policies never load it.
"""

from __future__ import annotations

import asyncio
import functools
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from entra_fast._net import is_loopback_host
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.providers import LocalProviders
from entra_fast.errors import ConfigurationError

_ADMIN_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~]{16,256}")


class LocalEntraId(LocalProvider):
    """A local Entra ID that can be served over HTTP, and the other local providers beside it. Its arguments
    are those of LocalProvider."""

    @functools.cached_property
    def providers(self) -> LocalProviders:
        """The other local providers."""
        return LocalProviders(self)

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS would inject into an application, for all of its providers.

        Args:
            application: `<cluster>:<namespace>:<name>`, client id or App ID URI.

        Raises:
            ConfigurationError: there is no such application, or no provider knows it.
        """
        found = self.registry.find_workload(application)
        environment = self.providers.environment(found.name)
        if found.has_providers and found.name in self.registry.without_identity:
            self.save()
            return {"AZURE_ENABLED": "false", **environment}
        return {"AZURE_ENABLED": "true", **super().environment(found.name), **environment}

    @property
    def issuers(self) -> dict[str, str]:
        """The issuer of each local provider, by its name in `identity_provider`. That of Entra ID is the
        default tenant's, for tokens of version 2."""
        return {
            "entra_id": Issuer(self.base_url, self.registry.default_tenant).v2,
            **self.providers.issuers,
        }

    def reset(self) -> None:
        """As for LocalProvider, and the same for the other providers."""
        super().reset()
        self.providers.reset()

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        tls: ssl.SSLContext | None = None,
        allow_remote: bool = False,
        admin_token: str | None = None,
        watch: float | None = None,
    ) -> RunningEmulator:
        """Serve on an address.

        Args:
            port: 0 for a free one.
            tls: serve https.
            allow_remote: allow an address that is not loopback. Anyone who can reach it can sign in as any
                user. The console and the admin API need a token then: see `RunningEmulator.admin_token`.
            admin_token: that token; by default a new one. On loopback it is needed if it is given.
            watch: seconds between two checks for changed files; None to never reload.

        Raises:
            ConfigurationError: the address is not loopback, or is in use, or the token is too weak.
        """
        from entra_fast.emulator.web.server import serve  # noqa: PLC0415  aiohttp is needed for serving only

        if not allow_remote and not is_loopback_host(host):
            raise ConfigurationError(
                "address_not_loopback",
                f"{host} is not a loopback address: anyone who can reach the local Entra ID can sign in as "
                "any user; allow it with --allow-remote (allow_remote=True) if that is intended",
                "host",
            )
        token = admin_token
        if token is None and (allow_remote or not is_loopback_host(host)):
            token = secrets.token_urlsafe(24)
        elif token is not None and not _ADMIN_TOKEN.fullmatch(token):
            text = "the admin token must have 16 to 256 letters, digits, '-', '.', '_' or '~'"
            raise ConfigurationError("admin_token_invalid", text, "admin_token")
        # Now, so that no request waits for a key, and a state that cannot be saved is an error at the start.
        await asyncio.to_thread(lambda: self.keyring.active)
        await asyncio.to_thread(self.save)
        server = await serve(
            self,
            self.providers,
            host,
            port,
            tls=tls,
            watch=watch,
            allow_remote=allow_remote,
            admin_token=token,
        )
        return RunningEmulator(self, server.address, server.stop, token)


class RunningEmulator:
    """A local Entra ID that is being served.

    Attributes:
        admin_token: what the console and the admin API demand (`Authorization: Bearer`, or `?token=` in a
            browser); None where they demand nothing.
    """

    def __init__(
        self,
        local: LocalEntraId,
        address: tuple[str, int],
        stop: Callable[[], Awaitable[None]],
        admin_token: str | None = None,
    ) -> None:
        self.local = local
        self.address = address
        self.admin_token = admin_token
        self._stop = stop

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return self.local.base_url

    @property
    def issuers(self) -> dict[str, str]:
        """See `LocalEntraId.issuers`."""
        return self.local.issuers

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS would inject into an application. Raises ConfigurationError when there is none of
        that name.
        """
        return self.local.environment(application)

    async def stop(self) -> None:
        """Stop serving; saves the state, if a state directory is set."""
        await self._stop()
