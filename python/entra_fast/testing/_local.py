"""The local Entra ID for one test: applications, validators for them, and a server where one is needed.

What belongs here: what a test configures and asks for. Tokens are made in _tokens.py, and policies are
decided by the emulator.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, Unpack
from weakref import WeakSet

from entra_fast._arguments import Options
from entra_fast._native import KeySet
from entra_fast.emulator import LocalEntraId, RunningEmulator, User
from entra_fast.emulator.model import ids
from entra_fast.emulator.model.registry import Application, Rule, make_tenant
from entra_fast.testing import _keys
from entra_fast.testing._clock import Clock
from entra_fast.testing._tokens import TokenMaker
from entra_fast.validate import AsyncValidator, Validator

BASE_URL: Final = "https://local-entra.test"
"""What the issuer is called while nothing is served. The name exists nowhere (RFC 6761, section 6.2)."""


V = TypeVar("V", Validator, AsyncValidator)


class LocalEntra:
    """A local Entra ID in this process, without a network.

    With manifests, their access policies decide which tokens there are. Without, every application and user
    that a test names exists, and may call every other one.

    Args:
        manifests: files and folders with NAIS manifests.
        directory: YAML file with users and groups.

    Attributes:
        emulator: the local Entra ID itself (docs/guides/emulator.md).
        clock: its clock, and that of the validators.
        token: makes tokens, as the fixture `entra_token`.
    """

    def __init__(self, manifests: Iterable[Path | str] = (), directory: Path | str | None = None) -> None:
        self.clock = Clock()
        files = list(manifests)
        self._open = not files
        if files:
            self.emulator = LocalEntraId.from_files(files, directory, clock=self.clock)
        else:
            self.emulator = LocalEntraId(clock=self.clock)
        self.emulator.base_url = BASE_URL
        self.emulator.keyring.restore(_keys.published())
        self.token = TokenMaker(self.emulator, self._admit_all)
        self._validators: WeakSet[Validator | AsyncValidator] = WeakSet()
        self._keys_down = False

    # --- what a service needs ---

    def validator(self, application: str, **options: Unpack[Options]) -> Validator:
        """A validator for an application: real, with the keys of this local Entra ID, and with its clock.

        Args:
            application: `<cluster>:<namespace>:<name>`.
            options: as for `Validator`.
        """
        issuer, audience = self._policy(application)
        return self._watched(Validator(issuer, audience, **self._options(options)))

    def async_validator(self, application: str, **options: Unpack[Options]) -> AsyncValidator:
        """`validator`, for asyncio.

        Args:
            application: `<cluster>:<namespace>:<name>`.
            options: as for `Validator`.
        """
        issuer, audience = self._policy(application)
        return self._watched(AsyncValidator(issuer, audience, **self._options(options)))

    def environment(self, application: str) -> dict[str, str]:
        """The variables that NAIS would inject into an application, for all providers that its manifest
        enables. Their URLs lead somewhere while it is served: `serve` starts all local providers.

        Args:
            application: `<cluster>:<namespace>:<name>`.

        Raises:
            ConfigurationError: the manifests have no such application, or it uses no provider.
        """
        if self._open:
            self._admit(application)
        return self.emulator.environment(application)

    def reset(self) -> None:
        """Back to the start, where several tests share one: see `LocalEntraId.reset`. Its clock, too."""
        self.emulator.reset()
        self.clock.reset()

    @contextlib.contextmanager
    def keys_down(self) -> Iterator[None]:
        """Within, no keys are available: validators raise KeysUnavailable, those that are made meanwhile
        too."""
        self._keys_down = True
        for validator in self._validators:
            validator._use_keys(None)
        try:
            yield
        finally:
            self._keys_down = False
            for validator in self._validators:
                validator._use_keys(self._key_set())

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Serve it over HTTP on loopback, in a thread: for code that fetches keys and tokens itself. The
        result is its address."""
        server = _Server(self.emulator)
        try:
            yield server.base_url
        finally:
            server.close()
            self.emulator.base_url = BASE_URL

    # --- applications and users ---

    def application(self, name: str) -> Application:
        """An application. Without manifests, it exists from now on.

        Args:
            name: `<cluster>:<namespace>:<name>`.

        Raises:
            ConfigurationError: the manifests have no such application.
        """
        if self._open:
            self._admit(name)
        return self.emulator.registry.find(name)

    def _admit_all(self, consumer: str, target: str, user: str | None) -> None:
        """Without manifests: let these applications and the user exist, and the one call the other."""
        if self._open:
            self._admit(consumer)
            self._admit(target, consumer)
            if user:
                self._sign_up(user)

    def _admit(self, name: str, consumer: str | None = None) -> None:
        tenant = self.emulator.registry.default_tenant
        known = tenant.applications.get(name)
        rules = known.rules if known is not None else ()
        if consumer is not None and all(rule.consumer != consumer for rule in rules):
            rules = (*rules, Rule(consumer))
        elif known is not None:
            return
        application = Application(
            name=name,
            tenant=tenant.name,
            tenant_id=tenant.id,
            client_id=ids.client_id(tenant.name, name),
            object_id=ids.service_principal_id(tenant.name, name),
            rules=rules,
            group_ids=(),
            allow_all_users=True,
            reply_urls=(),
            single_page=False,
            token_version=2,
            location="test",
            groups_location="test",
        )
        self._replace(make_tenant(tenant.directory, {**tenant.applications, name: application}))

    def _sign_up(self, user: str) -> None:
        tenant = self.emulator.registry.default_tenant
        directory = tenant.directory
        if directory.find_user(user) is not None:
            return
        username = user if "@" in user else f"{user}@{directory.tenant}"
        person = User(
            ids.user_id(directory.tenant, username),
            user.partition("@")[0].title(),
            username,
            None,
            (),
            username,
        )
        users = MappingProxyType({**directory.users, person.id: person})
        names = MappingProxyType({**directory.usernames, username.lower(): person})
        grown = replace(directory, users=users, usernames=names)
        self._replace(make_tenant(grown, tenant.applications))

    def _replace(self, tenant: Any) -> None:
        registry = self.emulator.registry
        self.emulator.registry = replace(registry, tenants=(tenant, *registry.tenants[1:]))

    # --- validators ---

    def _policy(self, application: str) -> tuple[str, str]:
        found = self.application(application)
        return f"{self.emulator.base_url}/{found.tenant_id}/v2.0", found.client_id

    def _options(self, options: Options) -> Options:
        found: Options = {"jwks": self._key_set(), "clock": self.clock}
        found.update(options)
        return found

    def _key_set(self) -> KeySet:
        return self.emulator.keyring.key_set

    def _watched(self, validator: V) -> V:
        if self._keys_down:
            validator._use_keys(None)
        self._validators.add(validator)
        return validator


class _Server:
    """The emulator on an event loop in a thread."""

    def __init__(self, emulator: LocalEntraId) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="local-entra", daemon=True)
        self._thread.start()
        self._running: RunningEmulator = self._run(emulator.start("127.0.0.1", 0))
        self.base_url = self._running.base_url

    def close(self) -> None:
        self._run(self._running.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
