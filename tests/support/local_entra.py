"""A local Entra ID for tests: real, on a free port, with a clock that the test moves, and a caller for
its endpoints.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import RSAAlgorithm

from entra_fast._native import unverified_claims
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model import manifests as manifest_files
from entra_fast.emulator.model import yaml_source
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.private_key import PrivateKey
from support.keys import Key

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ON_BEHALF_OF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()

EXAMPLES = Path(__file__).parents[2] / "examples"


def manifest(
    name: str,
    *,
    namespace: str = "team",
    rules: list[dict[str, Any]] | None = None,
    groups: list[str] | None = None,
    all_users: bool = False,
    cluster: str | None = None,
    **azure: Any,
) -> str:
    """The text of an Application manifest (JSON is YAML)."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "annotations": azure.pop("annotations", {}),
    }
    if cluster is not None:
        metadata["annotations"]["entra-fast/cluster"] = cluster
    application = {"enabled": True, "allowAllUsers": all_users, **azure}
    if groups is not None:
        application["claims"] = {"groups": [{"id": group} for group in groups]}
    spec: dict[str, Any] = {"image": "image", "azure": {"application": application}}
    if rules is not None:
        spec["accessPolicy"] = {"inbound": {"rules": rules}}
    return json.dumps(
        {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    )


class Clock:
    """Seconds since the epoch, set by the test."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@cache
def signing_keys() -> list[dict[str, Any]]:
    """Keys of a provider, generated once for all tests."""
    keyring = Keyring(Clock())
    return keyring.export()


def pem_of(key: PrivateKey) -> str:
    """A private key for clients that want PEM."""
    private: Any = RSAAlgorithm.from_jwk(key.private_jwk())
    return str(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def hex_of(thumbprint: str | None) -> str:
    """A base64url thumbprint for clients that want hex."""
    text = thumbprint or ""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()


def local_entra(texts: list[str], directory: str = "", **options: Any) -> LocalEntraId:
    """From texts instead of files; the file names in messages are `0.yaml`, `1.yaml`..."""
    read = [
        manifest_files.parse(document)
        for place, text in enumerate(texts)
        for document in yaml_source.documents(text, f"{place}.yaml")
    ]
    tenants = directories.parse(yaml_source.documents(directory, "directory.yaml"))
    local = LocalEntraId(read, tenants, **options)
    local.keyring.restore(signing_keys())
    return local


@dataclass
class Answer:
    """An answer of the provider."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)

    @property
    def claims(self) -> dict[str, Any]:
        """Claims of the access token."""
        assert self.status == 200, self.text
        return unverified_claims(self.json["access_token"])

    @property
    def code(self) -> int:
        """AADSTS number of a refusal, which must be the only one and must also be in the description."""
        (code,) = self.json["error_codes"]
        assert self.json["error_description"].startswith(f"AADSTS{code}: ")
        return int(code)

    @property
    def location(self) -> dict[str, str]:
        """Fields in the query of the redirect."""
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.headers["Location"]).query))


class Caller:
    """Calls a running provider as its clients do. Applications are named without their cluster."""

    def __init__(self, running: RunningEmulator, session: aiohttp.ClientSession) -> None:
        self.running = running
        self.local = running.local
        self.session = session

    @property
    def base_url(self) -> str:
        return self.running.base_url

    def name(self, application: str) -> str:
        return application if application.count(":") == 2 else f"dev-gcp:team:{application}"

    def client_id(self, application: str) -> str:
        return self.local.registry.find(self.name(application)).client_id

    def scope(self, application: str) -> str:
        return f"api://{self.name(application).replace(':', '.')}/.default"

    def tenant_id(self, application: str) -> str:
        return self.local.registry.find(self.name(application)).tenant_id

    def credentials(self, application: str) -> dict[str, str]:
        found = self.local.registry.find(self.name(application))
        return {"client_id": found.client_id, "client_secret": self.local.credentials.secret(found)}

    def assertion(
        self, application: str, *, key: Key | PrivateKey | None = None, header: Any = None, **changes: Any
    ) -> str:
        """A client assertion as the sidecar would make it; `changes` replace claims, None removes them."""
        found = self.local.registry.find(self.name(application))
        key = key or self.local.credentials.key(found)
        now = int(self.local.now())
        claims = {
            "iss": found.client_id,
            "sub": found.client_id,
            "aud": f"{self.base_url}/{found.tenant_id}/oauth2/v2.0/token",
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + 60,
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        head = header or {"alg": "RS256", "kid": self.local.credentials.key(found).kid}
        # JSON has no infinity, but a number that is read as one.
        payload = json.dumps(kept).replace("Infinity", "1e400").encode()
        return key.sign(json.dumps(head).encode(), payload)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        url = path if path.startswith("http") else self.base_url + path
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            return Answer(response.status, response.headers, await response.text())

    async def token(self, form: Mapping[str, str], tenant: str | None = None, **options: Any) -> Answer:
        tenant = tenant or self.local.registry.default_tenant.id
        return await self.request("POST", f"/{tenant}/oauth2/v2.0/token", data=form, **options)

    def origin(self, application: str) -> dict[str, str]:
        """The header that a browser sends for a page of a single-page application."""
        (url, *_) = self.local.registry.find(self.name(application)).reply_urls
        return {"Origin": "/".join(url.split("/")[:3])}

    async def m2m(self, consumer: str, target: str, **changes: str) -> Answer:
        form = {
            "grant_type": "client_credentials",
            "scope": self.scope(target),
            **self.credentials(consumer),
            **changes,
        }
        return await self.token(form, self.tenant_id(consumer))

    async def obo(self, consumer: str, target: str, assertion: str, **changes: str) -> Answer:
        form = {
            "grant_type": ON_BEHALF_OF,
            "requested_token_use": "on_behalf_of",
            "assertion": assertion,
            "scope": self.scope(target),
            **self.credentials(consumer),
            **changes,
        }
        return await self.token(form, self.tenant_id(consumer))

    def login_parameters(self, application: str, **changes: str | None) -> dict[str, str]:
        found = self.local.registry.find(self.name(application))
        parameters: dict[str, str | None] = {
            "client_id": found.client_id,
            "redirect_uri": found.reply_urls[0] if found.reply_urls else None,
            "response_type": "code",
            "scope": f"openid profile offline_access {self.scope(application)}",
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def authorize_path(self, application: str) -> str:
        return f"/{self.tenant_id(application)}/oauth2/v2.0/authorize"

    async def sign_in(self, application: str, user: str, **changes: str | None) -> Answer:
        """What the browser sends when a user has been chosen at the login page."""
        fields = {**self.login_parameters(application, **changes), "username": user}
        return await self.request("POST", self.authorize_path(application), data=fields)

    async def redeem(self, application: str, code: str, **changes: str | None) -> Answer:
        found = self.local.registry.find(self.name(application))
        own = {"client_id": found.client_id} if found.single_page else self.credentials(application)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": found.reply_urls[0],
            "code_verifier": VERIFIER,
            **own,
            **changes,
        }
        kept = {name: value for name, value in form.items() if value is not None}
        # A browser redeems it, from a page of the application.
        headers = self.origin(application) if found.single_page else {}
        return await self.token(kept, found.tenant_id, headers=headers)

    async def login(self, application: str, user: str, **changes: str | None) -> Answer:
        """The tokens of a login."""
        answer = await self.sign_in(application, user, **changes)
        assert answer.status == 303, re.sub(r"<[^>]+>", " ", answer.text)[-2000:]
        return await self.redeem(application, answer.location["code"])

    async def user_token(self, application: str, user: str) -> str:
        """A user's token for an application."""
        answer = await self.login(application, user)
        return str(answer.json["access_token"])


@asynccontextmanager
async def served(local: LocalEntraId, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Caller]:
    """Serve on a free port."""
    running = await local.start(host, 0, **options)
    # A browser's jar keeps cookies of 127.0.0.1 only when told to.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        try:
            yield Caller(running, session)
        finally:
            await running.stop()
