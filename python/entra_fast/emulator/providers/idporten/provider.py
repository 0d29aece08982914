"""IdPorten: the local ID-porten in one object, without HTTP.

Puts the parts together for the address, clock and manifests of a local Entra ID.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from entra_fast._native import Claims, Policy, Validator, unverified_claims
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.forms import is_reply_url
from entra_fast.emulator.model.manifests import Manifest
from entra_fast.emulator.model.wording import did_you_mean
from entra_fast.emulator.model.workloads import tokenx_generator
from entra_fast.emulator.protocol.idporten_logins import Grant, Identity, Session
from entra_fast.emulator.providers.idporten import discovery
from entra_fast.emulator.providers.idporten.authentication import Authenticator
from entra_fast.emulator.providers.idporten.authorize import LoginRequest
from entra_fast.emulator.providers.idporten.clients import Client, clients_of
from entra_fast.emulator.providers.idporten.errors import IdPortenError
from entra_fast.emulator.providers.idporten.levels import ACR_VALUES, EARLIER
from entra_fast.emulator.providers.idporten.store import Store
from entra_fast.emulator.providers.idporten.token_endpoint import TokenEndpoint
from entra_fast.emulator.providers.idporten.tokens import UNSPECIFIED, TokenIssuer
from entra_fast.errors import ConfigurationError

AUDIENCE: Final = "https://nav.no"
"""`IDPORTEN_AUDIENCE` of every application: the resource that the login proxies of the platform ask for."""
MAX_PID_CHARACTERS: Final = 200


class IdPorten:
    """The local ID-porten.

    Args:
        local: the local Entra ID that it is served beside.
    """

    name: Final = "idporten"

    def __init__(self, local: LocalProvider) -> None:
        self._local = local
        self.keys = local.provider_keys.signing["idporten"]
        self.store = self._new_store()
        self._further_redirect_uris: dict[str, tuple[str, ...]] = {}
        self._built_from: object = None
        self._clients: Mapping[str, Client] = MappingProxyType({})
        self._by_client_id: Mapping[str, Client] = MappingProxyType({})

    @property
    def issuer(self) -> str:
        """The issuer, without a slash at the end."""
        return f"{self._local.base_url}/idporten"

    @property
    def well_known(self) -> str:
        """The address of the discovery document."""
        return f"{self.issuer}/.well-known/openid-configuration"

    # Clients

    @property
    def clients(self) -> Mapping[str, Client]:
        """All clients by the name of their application."""
        manifests: tuple[Manifest, ...] = self._local.manifests
        if self._built_from is not manifests:
            self._clients = clients_of(manifests, self._local.generator_cluster, self._further_redirect_uris)
            self._by_client_id = {client.client_id: client for client in self._clients.values()}
            self._built_from = manifests
        return self._clients

    def client(self, client_id: str) -> Client | None:
        """By client id."""
        return self._by_client_id.get(client_id) if self.clients else None

    def find(self, application: str) -> Client:
        """The client of an application.

        Raises:
            ConfigurationError: there is none (code `application_unknown`).
        """
        client = self.clients.get(application)
        if client is None:
            known = any(manifest.application == application for manifest in self._local.manifests)
            text = f"the application {application} does not use ID-porten: set spec.idporten.enabled to true"
            if not known:
                hint = did_you_mean(application, self.clients)
                text = f"there is no application {application!r} that uses ID-porten{hint}"
            raise ConfigurationError("application_unknown", text, application)
        return client

    def add_redirect_uri(self, application: str, uri: str) -> None:
        """Register another redirect URI, e.g. of a program that was started on a free port.

        Raises:
            ConfigurationError: no such client, or not a redirect URI.
        """
        if not is_reply_url(uri):
            raise ConfigurationError("reply_url_invalid", f"{uri!r} is not a redirect URI", "redirect_uri")
        name = self.find(application).name
        self._further_redirect_uris[name] = (*self._further_redirect_uris.get(name, ()), uri)
        self._built_from = None

    # What applications see

    def environment(self, application: str) -> dict[str, str]:
        """What NAIS injects into an application."""
        if application not in self.clients:
            return {"IDPORTEN_ENABLED": "false"}
        return {
            "IDPORTEN_ENABLED": "true",
            "IDPORTEN_AUDIENCE": AUDIENCE,
            "IDPORTEN_WELL_KNOWN_URL": self.well_known,
            "IDPORTEN_ISSUER": self.issuer,
            "IDPORTEN_JWKS_URI": f"{self.issuer}/jwks.json",
        }

    def login_proxy_environment(self, application: str) -> dict[str, str]:
        """What NAIS injects into the login proxy (wonderwall) of an application: the client's registration
        and how it logs in. Raises ConfigurationError."""
        client = self.find(application)
        redirects = client.redirect_uris
        key = self._local.provider_keys.client("idporten", application)
        environment = {
            **self.environment(application),
            "IDPORTEN_CLIENT_ID": client.client_id,
            "IDPORTEN_CLIENT_JWK": json.dumps(key.private_jwk(), separators=(",", ":")),
            "IDPORTEN_TOKEN_ENDPOINT": f"{self.issuer}/token",
            "WONDERWALL_OPENID_PROVIDER": "idporten",
            "WONDERWALL_OPENID_ACR_VALUES": client.level,
            "WONDERWALL_OPENID_UI_LOCALES": client.locale,
            "WONDERWALL_OPENID_RESOURCE_INDICATOR": AUDIENCE,
        }
        if redirects:
            environment["IDPORTEN_REDIRECT_URI"] = redirects[0]
        if client.ingresses:
            environment["WONDERWALL_INGRESS"] = ",".join(client.ingresses)
        if client.auto_login:
            environment["WONDERWALL_AUTO_LOGIN"] = "true"
        self._local.save()
        return environment

    def registration(self, application: str) -> dict[str, Any] | None:
        """The registration of an application, for the console."""
        client = self.clients.get(application)
        if client is None:
            return None
        details = [("Level of assurance", [client.level]), ("Redirect URIs", list(client.redirect_uris))]
        return {
            "name": "ID-porten",
            "issuer": self.issuer,
            "client_id": client.client_id,
            "details": details,
        }

    def client_secret(self, application: str) -> str:
        """A secret of an application's client, for libraries that have no assertions. Raises
        ConfigurationError."""
        return self._local.credentials.secret(self.find(application))

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        return discovery.document(self.issuer)

    def key_set(self) -> dict[str, Any]:
        """The key set document."""
        return {"keys": self.keys.published()}

    # Logging in

    def authenticator(self) -> Authenticator:
        """Who verifies clients, for the address that this provider has now."""
        return Authenticator(
            self.client,
            lambda client: self._local.provider_keys.known_client("idporten", client.name),
            self._local.credentials.secret,
            self.store,
            (self.issuer, f"{self.issuer}/token"),
        )

    def token_endpoint(self) -> TokenEndpoint:
        """The token endpoint, for the address that this provider has now."""
        return TokenEndpoint(self.authenticator(), self.store, self._tokens())

    def new_code(self, request: LoginRequest, session: Session, cookie: str) -> str:
        """The code of a login. `cookie`: of the session."""
        self.store.use_session(cookie, request.client.client_id, request.redirect_uri)
        return self.store.new_code(
            Grant(
                client_id=request.client.client_id,
                redirect_uri=request.redirect_uri,
                scope=request.scope,
                resource=request.resource,
                nonce=request.nonce,
                challenge=request.challenge,
                locale=request.locale,
                identity=session.identity,
                session=session.id,
                auth_time=session.auth_time,
                family=str(uuid.uuid4()),
            )
        )

    def verified(self, access_token: str) -> Claims:
        """The claims of an access token of this provider, for any audience.

        Raises:
            InvalidToken: it is none, or has expired.
        """
        # Which audience a token is for, its client has chosen: userinfo takes any.
        audience = str(unverified_claims(access_token).get("aud", ""))
        policy = Policy(
            issuers=[self.issuer],
            audiences=[audience or UNSPECIFIED],  # a policy has one; a token without is rejected
            required_claims=["iat", "client_amr"],  # which ID tokens do not have
        )
        validator = Validator(policy, self.keys.key_set, cache_entries=1)
        return validator.validate(access_token, self._local.now())

    def token_without_login(self, pid: str, acr: str, client_id: str = "", *, resource: str = "") -> str:
        """An access token for a person who has not logged in, as NAV's fakedings issues it in its test
        environment. The number is not checked.

        Args:
            pid: number of the person.
            acr: level of assurance, also as it was written before 2023.
            client_id: the client that the token names; by default that of the token generator for TokenX.
            resource: the audience, as a login asks for it; empty for none.

        Raises:
            IdPortenError: an argument cannot be used.
        """
        if not pid or len(pid) > MAX_PID_CHARACTERS:
            text = f"Missing parameter: pid (at most {MAX_PID_CHARACTERS} characters)"
            raise IdPortenError("invalid_request", text)
        known = (*ACR_VALUES, *EARLIER)
        if acr not in known:
            raise IdPortenError("invalid_request", f"Unknown acr: expected one of {', '.join(known)}")
        identity = Identity(pid, pid, acr, "TestID")
        default = self.find(tokenx_generator(self._local.generator_cluster))
        return self._tokens().access_token(
            client_id or default.client_id, "private_key_jwt", identity, "openid", resource
        )

    def reset(self) -> None:
        """Forget open login pages and pushed requests. The rest is reset with the local Entra ID."""
        self.store = self._new_store()

    def _new_store(self) -> Store:
        return Store(self._local.now, lambda: self._local.store.idporten)

    def _tokens(self) -> TokenIssuer:
        return TokenIssuer(self.issuer, self.keys, self.store, self._local.now, self._local.stray_key)
