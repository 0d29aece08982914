"""LocalProvider: the local Entra ID in one object, without HTTP.

Puts the parts together and owns what changes: the registry (replaced when manifests change), the clock, the
planned faults. HTTP belongs in web/; serving.py joins the two.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from entra_fast.emulator import snapshot, state
from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model import graph
from entra_fast.emulator.model import manifests as manifest_files
from entra_fast.emulator.model.directory import Directory, User
from entra_fast.emulator.model.documents import Mistakes
from entra_fast.emulator.model.forms import is_reply_url
from entra_fast.emulator.model.manifests import DEFAULT_CLUSTER, Manifest, Notice, Source
from entra_fast.emulator.model.registry import Application, Registry, Tenant, build
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.emulator.protocol import discovery, policy
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.base_url import check_base_url
from entra_fast.emulator.protocol.claims import Issuer, issuer_url
from entra_fast.emulator.protocol.client_assertion import AssertionVerifier
from entra_fast.emulator.protocol.client_auth import ClientVerifier
from entra_fast.emulator.protocol.clock import ProviderClock
from entra_fast.emulator.protocol.credentials import Credentials, cluster_issuer
from entra_fast.emulator.protocol.explanation import Explanation
from entra_fast.emulator.protocol.faults import Faults
from entra_fast.emulator.protocol.forge import AgentKind, Forge, ForgedToken, ForgeRequest, KeyChoice
from entra_fast.emulator.protocol.grant_types import GrantTypes
from entra_fast.emulator.protocol.graph_policy import decide_graph
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.policy import Decision, Reason
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.protocol.scope import DEFAULT, Scope
from entra_fast.emulator.protocol.store import Store
from entra_fast.emulator.protocol.token_endpoint import TokenService
from entra_fast.emulator.protocol.token_response import TokenIssuer
from entra_fast.errors import ConfigurationError


class LocalProvider:
    """A local Entra ID, in process.

    Args:
        manifests: the applications; see `from_files` for reading them.
        directories: the tenants with their users and groups; the first one is the default tenant.
        clock: seconds since the epoch; for tests.
        generator_reply_urls: where the built-in token generator receives its logins.
        strict_assertions: refuse a client assertion that is used twice also from clients that do so by design
            (MSAL).
        signing_algorithm: what the provider signs with: `RS256`, as Entra ID does, `ML-DSA-44`, `ML-DSA-65`
            or `ML-DSA-87`.
        exact_discovery: leave out of the discovery document what Entra ID's does not have.
        state_directory: keep keys, codes and sessions there; None keeps them in memory.
        public_url: the address that clients use for this provider, if it differs from the one it listens on
            (containers): scheme, host and port, without a path.
        subject_issuers: URLs of the discovery documents of further issuers whose tokens the local TokenX
            exchanges, besides the local ID-porten and itself.
        level_names: whether the local TokenX writes `Level3` and `Level4` in place of ID-porten's
            `idporten-loa-substantial` and `idporten-loa-high`.
    """

    def __init__(
        self,
        manifests: Iterable[Manifest] = (),
        directories: Sequence[Directory] = (),
        *,
        clock: Callable[[], float] = time.time,
        generator_reply_urls: Sequence[str] = (),
        strict_assertions: bool = False,
        signing_algorithm: str = "RS256",
        exact_discovery: bool = False,
        state_directory: Path | None = None,
        public_url: str | None = None,
        subject_issuers: Sequence[str] = (),
        level_names: bool = False,
    ) -> None:
        self._wall_clock = clock
        self.clock = ProviderClock(clock)
        self._generator_reply_urls = tuple(generator_reply_urls)
        self._strict_assertions = strict_assertions
        self.exact_discovery = exact_discovery
        self.subject_issuers = tuple(subject_issuers)
        self.level_names = level_names
        self._state_directory = state_directory
        self._sources: tuple[Source, ...] = ()
        self._directory_file: Path | None = None
        self.generator_cluster = DEFAULT_CLUSTER
        """The cluster of the built-in token generators."""
        self._extra_reply_urls: dict[str, tuple[str, ...]] = {}
        self._stray_key: PrivateKey | None = None
        self._lock = threading.Lock()
        self.public_url = check_base_url(public_url) if public_url is not None else None
        self.base_url = self.public_url or "http://127.0.0.1:8080"
        self.loaded_files: dict[str, tuple[int, int]] = {}
        """The result of `watched_files` when the registry was loaded."""
        self.load_error: str | None = None
        """Why the manifests on disk could not be loaded; the last good ones stay in effect."""
        self.keyring = Keyring(self.now, signing_algorithm)
        self.provider_keys = ProviderKeys(self.now)
        self.store = Store(self.now)
        self.credentials = Credentials(self.now)
        self.journal = Journal()
        self.faults = Faults(self._wall_clock)
        self._manifests: tuple[Manifest, ...] = tuple(manifests)
        self._tenants: tuple[Directory, ...] = tuple(directories)
        self._imported: tuple[Directory, ...] | None = None
        self.registry: Registry = self._built()
        self._skipped: tuple[Notice, ...] = ()
        if state_directory is not None:
            state.load(
                state_directory,
                self.keyring,
                self.credentials,
                self.store,
                provider_keys=self.provider_keys,
            )

    @classmethod
    def from_files(
        cls,
        sources: Iterable[Source | Path | str],
        directory: Path | str | None = None,
        *,
        cluster: str = DEFAULT_CLUSTER,
        **options: Any,
    ) -> Self:
        """From manifests (files, folders) and a directory file.

        Args:
            sources: paths, or `<cluster>=<path>`.
            directory: YAML file with tenants, users and groups; None for one tenant without users.
            cluster: the default, for sources that do not name one.
            options: as for the class.

        Raises:
            SourceError: the files have mistakes; the message has a line for each, with file, line and field.
        """
        local = cls(**options)
        local._sources = tuple(_source(source, cluster) for source in sources)
        local._directory_file = Path(directory) if directory is not None else None
        local.generator_cluster = cluster
        local.reload()
        return local

    # Time, registry, reload

    def now(self) -> float:
        """Seconds since the epoch as this provider sees it."""
        return self.clock()

    @property
    def clock_offset(self) -> float:
        """Seconds by which the provider's clock is ahead."""
        return self.clock.offset

    def set_clock_offset(self, seconds: float) -> None:
        """Move the provider's clock. Raises ConfigurationError when the offset is too large."""
        self.clock.set_offset(seconds)

    def freeze_clock(self, moment: float | None = None) -> None:
        """Stop the provider's clock: everything that it signs and checks has the same time.

        Args:
            moment: seconds since the epoch; by default where the clock is.

        Raises:
            ConfigurationError: the moment is more than ten years away (code `offset_invalid`).
        """
        if moment is not None:
            self.clock.set(moment)
        self.clock.freeze()

    def advance_clock(self, seconds: float) -> None:
        """Move the provider's clock on, whether it runs or stands; back, if negative.

        Raises:
            ConfigurationError: that is more than ten years away (code `offset_invalid`).
        """
        self.clock.advance(seconds)

    def release_clock(self) -> None:
        """Run with the system's clock again."""
        self.clock.release()

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The applications, with or without an identity in Entra ID. Another tuple after each reload."""
        return self._manifests

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Notices about entries that real NAIS skips silently."""
        return (*self._skipped, *self.registry.notices)

    def reload(self) -> None:
        """Read manifests and directory again, if they come from files. Raises SourceError; the registry then
        stays as it was."""
        if not self._sources and self._directory_file is None:
            return
        # Before they are read, so that a change in the meantime is noticed afterwards.
        files = self.watched_files()
        mistakes = Mistakes()
        loaded = manifest_files.load(self._sources, mistakes)
        tenants = directories.load(self._directory_file, mistakes)
        mistakes.raise_if_any()
        with self._lock:
            self.loaded_files = files
            self._skipped = loaded.warnings
            self._manifests, self._tenants = loaded.manifests, tenants
            self.registry = self._built()
            self.load_error = None

    def _built(self) -> Registry:
        registry = build(
            self._manifests,
            self._tenants if self._imported is None else self._imported,
            generator_reply_urls=self._generator_reply_urls,
            generator_cluster=self.generator_cluster,
        )
        return _with_reply_urls(registry, self._extra_reply_urls)

    def watched_files(self) -> dict[str, tuple[int, int]]:
        """Every file that `reload` would read, with its time of change and its size."""
        paths = [path for source in self._sources for path in manifest_files.watched(source.path)]
        if self._directory_file is not None:
            paths.append(self._directory_file)
        found: dict[str, tuple[int, int]] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                status = path.stat()
                found[str(path)] = (status.st_mtime_ns, status.st_size)
        return found

    def add_reply_url(self, application: str, url: str) -> None:
        """Register another redirect URI, e.g. of a program that was started on a free port.

        Raises:
            ConfigurationError: no such application, or not a reply URL.
        """
        if not is_reply_url(url):
            raise ConfigurationError("reply_url_invalid", f"{url!r} is not a reply URL", "replyURLs")
        name = self.registry.find(application).name
        with self._lock:
            known = self._extra_reply_urls.get(name, ())
            self._extra_reply_urls[name] = (*known, url)
            self.registry = _with_reply_urls(self.registry, {name: (url,)})

    # What the applications see

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS would inject into an application (azurerator's secret).

        Args:
            application: `<cluster>:<namespace>:<name>`, client id or App ID URI.

        Raises:
            ConfigurationError: there is no such application.
        """
        found = self.registry.find(application)
        tenant = self._tenant_of(found)
        issuer = Issuer(self.base_url, tenant)
        endpoints = f"{self.base_url}/{tenant.id}"
        environment = {
            "AZURE_APP_CLIENT_ID": found.client_id,
            "AZURE_APP_CLIENT_SECRET": self.credentials.secret(found),
            "AZURE_APP_JWK": json.dumps(self.credentials.key(found).private_jwk(), separators=(",", ":")),
            "AZURE_APP_PRE_AUTHORIZED_APPS": json.dumps(self.pre_authorized(found), separators=(",", ":")),
            "AZURE_APP_TENANT_ID": tenant.id,
            "AZURE_APP_WELL_KNOWN_URL": f"{issuer.v2}/.well-known/openid-configuration",
            "AZURE_OPENID_CONFIG_ISSUER": issuer.v2,
            "AZURE_OPENID_CONFIG_JWKS_URI": f"{endpoints}/discovery/v2.0/keys",
            "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": f"{endpoints}/oauth2/v2.0/token",
        }
        self.save()
        return environment

    def federated_token(self, application: str) -> str:
        """What Kubernetes would write into the application's AZURE_FEDERATED_TOKEN_FILE; lives an hour."""
        token = self.credentials.federated_token(self.registry.find(application), self.base_url)
        self.save()
        return token

    def pre_authorized(self, application: Application) -> list[dict[str, str]]:
        """Consumers that the application admits and that exist, and itself (policy 8)."""
        tenant = self._tenant_of(application)
        consumers = dict.fromkeys([application.name, *(rule.consumer for rule in application.rules)])
        return [
            {"name": name, "clientId": tenant.applications[name].client_id}
            for name in consumers
            if name in tenant.applications
        ]

    def explain(self, consumer: str, target: str, user: str | None = None) -> Explanation:
        """What would happen if `consumer` asked for a token for `target`, on behalf of `user` if there is
        one.

        Raises:
            ConfigurationError: the consumer, or the user, does not exist.
        """
        client = self.registry.find(consumer)
        tenant = self._tenant_of(client)
        person = self._person(tenant, user)
        resource = tenant.resource(target)
        username = person.username if person is not None else ""
        if graph.is_graph(target, self.base_url):
            return self._explain_graph(tenant, client, target, person)
        if resource is None:
            return Explanation(client.name, target, username, self._unknown_target(tenant, target), {})
        decision = policy.decide(tenant, client, resource, person)
        claims: dict[str, Any] = {}
        if decision.granted:
            claims = token_claims.access_token(
                Issuer(self.base_url, tenant),
                client,
                resource,
                person,
                decision,
                azpacr="2",
                now=int(self.now()),
                lifetime=token_claims.lifetime_for(resource),
                version=resource.token_version,
            )
        return Explanation(client.name, resource.name, username, decision, claims)

    def _explain_graph(
        self, tenant: Tenant, client: Application, audience: str, person: User | None
    ) -> Explanation:
        decision = decide_graph(client, Scope(frozenset(), audience, (DEFAULT,)), person)
        claims = token_claims.graph_token(
            Issuer(self.base_url, tenant),
            client,
            person,
            scopes=decision.scopes,
            roles=decision.roles,
            audience=audience,
            azpacr="2",
            now=int(self.now()),
            lifetime=token_claims.random_lifetime(),
        )
        return Explanation(
            client.name, graph.NAME, person.username if person is not None else "", decision, claims
        )

    def mint(self, consumer: str, target: str, user: str | None = None) -> tuple[Explanation, str | None]:
        """The result of `explain`, and the token itself if one is issued."""
        explanation = self.explain(consumer, target, user)
        error = explanation.decision.error
        self.journal.add(
            Entry(
                number=self.journal.next_number(),
                time=self.now(),
                tenant=self.registry.find(explanation.consumer).tenant,
                grant="console",
                client=explanation.consumer,
                target=explanation.target[:200],
                user=explanation.user,
                granted=error is None,
                code=None if error is None else error.code,
                message="" if error is None else error.text,
                reasons=explanation.decision.reasons,
                correlation_id=new_trace_id(),
                claims=explanation.claims,
            )
        )
        if error is not None:
            return explanation, None
        return explanation, token_claims.sign(self.keyring.active, dict(explanation.claims))

    def forge(
        self,
        application: str | None = None,
        *,
        user: str | None = None,
        audience: str | None = None,
        version: int | None = None,
        claims: Mapping[str, Any] | None = None,
        lifetime: float | None = None,
        not_before: float | None = None,
        algorithm: str | None = None,
        key: KeyChoice = "active",
        issuer: str | None = None,
        groups: int | None = None,
        agent: AgentKind | None = None,
    ) -> ForgedToken:
        """Any token, valid or not, for testing what verifies tokens. No access policy is checked; the journal
        has it as forged.

        Args:
            application: the client that the token names; by default the audience.
            user: on whose behalf; None for the application itself.
            audience: an application, Microsoft Graph, or any text for `aud`; by default the client.
            version: 1 or 2; by default the audience's.
            claims: further claims, or others in place of those; None leaves one out.
            lifetime: seconds until it expires, from now or from `not_before`; negative: it has expired.
            not_before: seconds from now until it becomes valid, or that moment in seconds since the epoch.
            algorithm: `alg`: any that this package knows, `none`, or `HS256` (`HS384`, `HS512`) keyed with
                the public key.
            key: `active`; `unknown`, which is published nowhere; `wrong`, which is that key under the kid of
                the active one; or `none`, for no signature.
            issuer: `iss`. Hosts of real providers are refused.
            groups: number of group ids in `groups`.
            agent: `identity` or `user`: the claims of an agent identity (Microsoft Entra Agent ID).

        Raises:
            ConfigurationError: an argument cannot be used (code `forge_invalid`, `issuer_is_real`, or that
                of an unknown application or user).
        """
        wanted = ForgeRequest(
            application=application,
            user=user,
            audience=audience,
            version=version,
            claims=claims or {},
            lifetime=lifetime,
            not_before=not_before,
            algorithm=algorithm,
            key=key,
            issuer=issuer,
            groups=groups,
            agent=agent,
        )
        forged = Forge(self.base_url, self.registry, self.keyring, self.now, self.stray_key).make(wanted)
        text = "made to order; no access policy was checked"
        self.journal.add(
            Entry(
                number=self.journal.next_number(),
                time=self.now(),
                tenant=forged.tenant,
                grant="forged token",
                client=forged.client,
                target=forged.target,
                user=forged.user,
                granted=True,
                code=None,
                message="",
                reasons=(Reason("forged", True, "; ".join((text, *forged.forged))),),
                correlation_id=new_trace_id(),
                claims=forged.claims,
                forged=True,
            )
        )
        return forged

    def _person(self, tenant: Tenant, user: str | None) -> User | None:
        if not user:
            return None
        person = tenant.directory.find_user(user)
        if person is None:
            raise ConfigurationError("user_unknown", f"there is no user {user!r} in {tenant.name}", user)
        return person

    def _unknown_target(self, tenant: Tenant, target: str) -> Decision:
        text = f"there is no application {target!r} in {tenant.name}"
        try:
            other = self.registry.find(target)
        except ConfigurationError as error:
            remedy = error.message
        else:
            text += f"; it is in the tenant {other.tenant}, and tenants are isolated"
            remedy = "give both applications the same tenant"
        failure = EntraError(500011, resource=target[:200], tenant=tenant.name)
        return Decision(False, (Reason("target", False, text, remedy=remedy),), failure)

    def _tenant_of(self, application: Application) -> Tenant:
        # Applications come from the registry, so their tenant is there, unless a reload has just removed it.
        return self.registry.tenant(application.tenant_id) or self.registry.default_tenant

    # The token endpoint and its surroundings

    def token_service(self) -> TokenService:
        """The token endpoint for the address that this provider has now."""
        base_url, keyring, store, clock = self.base_url, self.keyring, self.store, self.now
        assertions = AssertionVerifier(self.credentials, store, clock, base_url, self._strict_assertions)
        return TokenService(
            clients=ClientVerifier(assertions),
            grant_types=GrantTypes(base_url, keyring, store, clock),
            issuer=TokenIssuer(base_url, keyring, store, clock, self.stray_key),
            journal=self.journal,
            clock=clock,
        )

    def stray_key(self) -> PrivateKey:
        """A key that is published nowhere."""
        if self._stray_key is None:
            self._stray_key = PrivateKey.generate(self.keyring.algorithm)
        return self._stray_key

    def discovery(self, tenant: Tenant, version: int = 2) -> dict[str, Any]:
        """The discovery document of a tenant (OpenID Connect Discovery 1.0, section 3)."""
        issuer = issuer_url(self.base_url, tenant.id, version)
        return discovery.document(
            self.base_url, tenant.id, issuer, version, self.keyring.algorithm, exact=self.exact_discovery
        )

    def key_set(self, issuer: str) -> dict[str, Any]:
        """The key set document."""
        return {"keys": self.keyring.published(issuer)}

    def cluster_discovery(self, cluster: str) -> dict[str, Any]:
        """The discovery document of a cluster's issuer of workload identity tokens."""
        return discovery.cluster_document(cluster_issuer(self.base_url, cluster))

    def clusters(self) -> tuple[str, ...]:
        """Clusters that have applications."""
        return tuple(
            dict.fromkeys(
                name.partition(":")[0] for tenant in self.registry.tenants for name in tenant.applications
            )
        )

    # State

    def export_state(self, *, secrets: bool = False) -> dict[str, Any]:
        """Directory and sessions as one JSON document, for `import_state`.

        Args:
            secrets: include private keys, and the seed of the applications' secrets.
        """
        tenants = [tenant.directory for tenant in self.registry.tenants]
        return snapshot.write(
            tenants, self.store, self.keyring, self.credentials, self.provider_keys, secrets=secrets
        )

    def import_state(self, document: Mapping[str, Any]) -> None:
        """Take over an exported state in place of directory and sessions, until `reset`. Users who were
        signed in then are signed in again. Manifests stay as they are.

        Args:
            document: the result of `export_state`, of any provider.

        Raises:
            ConfigurationError: it cannot be used (code `snapshot_invalid`); nothing has changed then.
        """
        store, keyring = Store(self.now), Keyring(self.now, self.keyring.algorithm)
        read = snapshot.read(document, store, keyring, Credentials(self.now), ProviderKeys(self.now))
        with self._lock:
            before, self._imported = self._imported, read.tenants
            try:
                self.registry = self._built()
            except Exception:
                self._imported = before
                raise
            self.store = read.store
        if read.secrets is not None:
            self.keyring.restore(read.secrets[0])
            self.credentials.restore(read.secrets[1])
            self.provider_keys.restore(read.secrets[2])

    def reset(self) -> None:
        """Forget what has happened since the start, for test suites: sessions, codes and tokens, planned
        faults, the journal, an imported state, and where the clock was moved to. Keys and secrets stay, so
        that clients need no new ones.
        """
        with self._lock:
            self._imported = None
            self.registry = self._built()
            self.store = Store(self.now)
        self.faults.clear()
        self.clock.release()
        self.journal.clear()

    def rotate_keys(self, *, announced: bool = True) -> str:
        """Sign with another key from now on; see Keyring.rotate."""
        kid = self.keyring.rotate(announced=announced)
        self.save()
        return kid

    def withdraw_key(self, kid: str) -> None:
        """Stop publishing a key; see Keyring.withdraw."""
        self.keyring.withdraw(kid)
        self.save()

    def save(self) -> None:
        """Save the state, if a state directory is set. Raises ConfigurationError when that fails."""
        if self._state_directory is not None:
            state.save(
                self._state_directory,
                self.keyring,
                self.credentials,
                self.store,
                self.provider_keys,
            )


def _source(source: Source | Path | str, cluster: str) -> Source:
    if isinstance(source, Source):
        return source
    return Source(source, cluster) if isinstance(source, Path) else Source.parse(source, cluster)


def _with_reply_urls(registry: Registry, extra: Mapping[str, Sequence[str]]) -> Registry:
    if not extra:
        return registry
    return replace(registry, tenants=tuple(tenant.with_reply_urls(extra) for tenant in registry.tenants))
