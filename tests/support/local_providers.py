"""The local TokenX and the local Maskinporten for tests: manifests, assertions and grants, and a caller for
their endpoints.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.protocol.private_key import PrivateKey
from support.keys import Key
from support.local_entra import ASSERTION_TYPE, Answer, Caller, local_entra

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"

CLUSTER = "dev-gcp"
OWN, CUSTOMER, STRANGER = "310000019", "310000027", "974760673"
"""Numbers of organizations; the first is the default of every application."""


def workload(
    name: str,
    *,
    namespace: str = "team",
    tokenx: bool | None = True,
    rules: list[dict[str, Any]] | None = None,
    consumes: list[str] | None = None,
    exposes: list[dict[str, Any]] | None = None,
    organization: str | None = None,
    azure: bool = False,
) -> str:
    """The text of a manifest (JSON is YAML). `tokenx`: None leaves the section out."""
    spec: dict[str, Any] = {"image": "image", "accessPolicy": {"inbound": {"rules": rules or []}}}
    if tokenx is not None:
        spec["tokenx"] = {"enabled": tokenx}
    if consumes is not None or exposes is not None:
        scopes = {"consumes": [{"name": scope} for scope in consumes or []], "exposes": exposes or []}
        spec["maskinporten"] = {"enabled": True, "scopes": scopes}
    if azure:
        spec["azure"] = {"application": {"enabled": True, "allowAllUsers": True}}
    annotations = {} if organization is None else {"entra-fast/organization-number": organization}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return json.dumps(
        {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    )


@cache
def _keys() -> list[dict[str, str]]:
    """Generated once for all tests: two that providers sign with, three of clients."""
    return [PrivateKey.generate().private_jwk() | {"kid": str(uuid.uuid4())} for _ in range(5)]


def local_providers(texts: list[str], directory: str = "", **options: Any) -> LocalEntraId:
    """From texts instead of files. Every application has its keys already, but for `closed`."""
    local = local_entra(texts, directory, **options)
    signing = {"since": local.now(), "keys": _keys()[:2]}
    names = [name for name in local.registry.workloads.by_name if not name.endswith(":closed")]
    clients = {
        name: {"jwk": _keys()[2 + place % 3], "since": local.now()} for place, name in enumerate(names)
    }
    providers = ("tokenx", "maskinporten", "idporten")
    local.provider_keys.restore(
        {"signing": dict.fromkeys(providers, signing), "clients": dict.fromkeys(providers, clients)}
    )
    return local


def full(name: str) -> str:
    """The name of an application in full."""
    return name if name.count(":") == 2 else f"{CLUSTER}:team:{name}"


def signed(key: Key | PrivateKey, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A compact JWS. Claims and header fields that are None are left out."""
    parts = ({name: value for name, value in part.items() if value is not None} for part in (header, claims))
    # JSON has no infinity, but a number that is read as one.
    head, payload = (json.dumps(part).replace("Infinity", "1e400").encode() for part in parts)
    return key.sign(head, payload)


class TokenXCaller:
    """Calls the local TokenX as applications do."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.local = caller.local

    @property
    def issuer(self) -> str:
        return f"{self.caller.base_url}/tokenx"

    def key(self, application: str) -> PrivateKey:
        """The key that an application is registered with."""
        return self.local.provider_keys.client("tokenx", full(application))

    def assertion(
        self,
        application: str,
        *,
        key: Key | PrivateKey | None = None,
        header: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A client assertion as the sidecar would make it; `changes` replace claims, None removes them."""
        name, now = full(application), int(self.local.now())
        claims = {
            "iss": name,
            "sub": name,
            "aud": self.issuer,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 30,
            **changes,
        }
        head = {"alg": "RS256", "typ": "JWT", "kid": self.key(application).kid, **(header or {})}
        return signed(key or self.key(application), head, claims)

    def login(self, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """An access token of a person's login at the local ID-porten."""
        now, key = int(self.local.now()), self.local.provider_keys.signing["idporten"].active
        claims = {
            "iss": f"{self.caller.base_url}/idporten",
            "sub": "a-person",
            "pid": "17858549949",
            "acr": "idporten-loa-high",
            "aud": "https://nav.no",
            "client_id": "the-platform",
            "iat": now,
            "exp": now + 120,
            "jti": "the-login",
            **changes,
        }
        return signed(key, {"alg": "RS256", "typ": "JWT", "kid": key.kid, **(header or {})}, claims)

    def form(self, consumer: str, target: str, subject_token: str, **changes: str | None) -> dict[str, str]:
        """A request for an exchange; `changes` replace fields, None removes them."""
        fields = {
            "grant_type": TOKEN_EXCHANGE,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(consumer),
            "subject_token_type": JWT_TYPE,
            "subject_token": subject_token,
            "audience": full(target),
            **changes,
        }
        return {name: value for name, value in fields.items() if value is not None}

    async def post(self, form: Mapping[str, str]) -> Answer:
        return await self.caller.request("POST", f"{self.issuer}/token", data=form)

    async def exchange(self, consumer: str, target: str, subject_token: str, **changes: str | None) -> Answer:
        return await self.post(self.form(consumer, target, subject_token, **changes))


class MaskinportenCaller:
    """Calls the local Maskinporten as applications do."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.local = caller.local

    @property
    def issuer(self) -> str:
        return f"{self.caller.base_url}/maskinporten/"

    def key(self, application: str) -> PrivateKey:
        """The key that an application is registered with."""
        return self.local.provider_keys.client("maskinporten", full(application))

    def client_id(self, application: str) -> str:
        found = self.local.registry.find_workload(full(application)).maskinporten
        assert found is not None
        return found.client_id

    def grant(
        self,
        application: str,
        scope: str | None,
        *,
        key: Key | PrivateKey | None = None,
        header: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """A grant as the sidecar would make it; `changes` replace claims, None removes them."""
        now = int(self.local.now())
        claims = {
            "iss": self.client_id(application),
            "aud": self.issuer,
            "scope": scope,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 30,
            **changes,
        }
        head = {"alg": "RS256", "kid": self.key(application).kid, **(header or {})}
        return signed(key or self.key(application), head, claims)

    async def post(self, form: Mapping[str, str]) -> Answer:
        return await self.caller.request("POST", f"{self.issuer}token", data=form)

    async def send(self, grant: str) -> Answer:
        return await self.post({"grant_type": JWT_GRANT, "assertion": grant})

    async def token(self, application: str, scope: str | None, **changes: Any) -> Answer:
        return await self.send(self.grant(application, scope, **changes))
