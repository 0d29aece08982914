"""ID-porten's clients: what NAIS registers for each manifest with `idporten.enabled`.

Like every application on NAIS, a client sits behind the login proxy (wonderwall), which fixes its redirect
URIs. An annotation adds those of a developer's machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from entra_fast.emulator.model import ids
from entra_fast.emulator.model.manifests import Manifest
from entra_fast.emulator.model.registry import (
    CALLBACK_PATH,
    PROXY_LOGOUT_CALLBACK_PATH,
    PROXY_LOGOUT_PATH,
    origin,
)
from entra_fast.emulator.model.workloads import BUILT_IN, DEFAULT_ORGANIZATION, tokenx_generator
from entra_fast.emulator.providers.idporten.levels import current_spelling


@dataclass(frozen=True, slots=True)
class Client:
    """A client.

    Attributes:
        name: `<cluster>:<namespace>:<name>` of the application.
        ingresses: where its login proxy is, without a slash at the end; none for a built-in client.
        further_redirect_uris: those that do not follow from the ingresses.
        level: `acr` of a login that asks for none.
        auto_login: whether its login proxy sends users to the login by itself.
        organization: number of its owner.
        public: whether it may redeem codes with PKCE alone.
        location: `<file>:<line>` of its manifest, or `built in`.
    """

    name: str
    client_id: str
    ingresses: tuple[str, ...] = ()
    further_redirect_uris: tuple[str, ...] = ()
    level: str = "idporten-loa-high"
    locale: str = "nb"
    auto_login: bool = False
    organization: str = DEFAULT_ORGANIZATION
    public: bool = False
    location: str = BUILT_IN

    @property
    def redirect_uris(self) -> tuple[str, ...]:
        """Where a login may return to."""
        own = (ingress + CALLBACK_PATH for ingress in self.ingresses)
        return tuple(dict.fromkeys((*own, *self.further_redirect_uris)))

    @property
    def post_logout_redirect_uris(self) -> tuple[str, ...]:
        """Where signing out may return to: the login proxy's own path, else the start page."""
        return tuple(
            dict.fromkeys(
                f"{origin(uri)}/" if (base := self._proxy(uri)) is None else base + PROXY_LOGOUT_CALLBACK_PATH
                for uri in self.redirect_uris
            )
        )

    def logout_uri(self, redirect_uri: str) -> str:
        """Where the part of a session that returned to `redirect_uri` is ended, in a frame (OpenID Connect
        Front-Channel Logout 1.0); empty for nowhere.

        A registration has one such address, at the first ingress. One of a developer's machine has its own,
        so that no frame leads away from there.
        """
        base = self._proxy(redirect_uri)
        if self.ingresses and redirect_uri not in self.further_redirect_uris:
            base = self.ingresses[0]
        return "" if base is None else base + PROXY_LOGOUT_PATH

    def _proxy(self, redirect_uri: str) -> str | None:
        """Where the login proxy with this redirect URI is; None if it is none of a login proxy."""
        base = redirect_uri.removesuffix(CALLBACK_PATH)
        return None if self.location == BUILT_IN or base == redirect_uri else base

    @property
    def origins(self) -> frozenset[str]:
        """Origins from which its codes may be redeemed in a browser."""
        return frozenset(origin(uri) for uri in self.redirect_uris) if self.public else frozenset()


def clients_of(
    manifests: Iterable[Manifest], cluster: str, further: Mapping[str, Iterable[str]]
) -> Mapping[str, Client]:
    """All clients by name.

    Args:
        cluster: where the built-in token generator is.
        further: more redirect URIs, by the name of their client.
    """
    clients = {item.application: _client(item) for item in manifests if item.spec.idporten.enabled}
    generator = tokenx_generator(cluster)
    clients.setdefault(generator, Client(generator, client_id(generator)))
    for name, uris in further.items():
        if name in clients:
            known = clients[name].further_redirect_uris
            clients[name] = replace(clients[name], further_redirect_uris=(*known, *uris))
    return MappingProxyType(clients)


def client_id(application: str) -> str:
    """Client id of an application, from its name."""
    return ids.client_id("idporten", application)


def _client(manifest: Manifest) -> Client:
    annotations, sidecar = manifest.metadata.annotations, manifest.spec.idporten.sidecar
    return Client(
        name=manifest.application,
        client_id=client_id(manifest.application),
        ingresses=tuple(ingress.rstrip("/") for ingress in manifest.spec.ingresses),
        further_redirect_uris=tuple(annotations.idporten_redirect_uris.split()),
        level=current_spelling(sidecar.level),
        locale=sidecar.locale,
        auto_login=sidecar.auto_login,
        organization=annotations.organization or DEFAULT_ORGANIZATION,
        public=annotations.idporten_public == "true",
        location=manifest.location("spec", "idporten"),
    )
