"""A browser and a relying party for the local ID-porten. The latter does what wonderwall, the login proxy of
NAIS, does: it pushes its requests, and checks discovery, callbacks and ID tokens in the same way.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt

from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.providers.idporten.provider import IdPorten
from support.keys import Key
from support.local_entra import ASSERTION_TYPE, Answer, Caller, local_entra, served, signing_keys
from support.pages import Form

APP = "dev-gcp:team:portal"
INGRESS = "https://portal.example"
CALLBACK = f"{INGRESS}/oauth2/callback"
PID = "17858549949"
HIGH, SUBSTANTIAL, LOW = "idporten-loa-high", "idporten-loa-substantial", "idporten-loa-low"
_WONDERWALL_ACCEPTS = {SUBSTANTIAL: (SUBSTANTIAL, HIGH), HIGH: (HIGH,)}


def idporten_manifest(name: str = "portal", *, annotations: Any = None, **changes: Any) -> str:
    """The text of a manifest with ID-porten (JSON is YAML). `changes`: fields of `spec`."""
    spec = {
        "image": "image",
        "ingresses": [f"https://{name}.example"],
        "idporten": {"enabled": True, "sidecar": {"enabled": True}},
        **changes,
    }
    metadata = {"name": name, "namespace": "team", "annotations": annotations or {}}
    return json.dumps(
        {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    )


@dataclass
class Browser:
    """Calls a running provider as a browser does, with its cookies, and as its clients do."""

    caller: Caller

    @property
    def provider(self) -> IdPorten:
        return self.caller.local.providers.idporten

    @property
    def issuer(self) -> str:
        return f"{self.caller.base_url}/idporten"

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        return await self.caller.request(method, path, **options)

    async def log_in(self, page: Answer, **fields: str) -> Answer:
        """Send the form of a login page: a number, unless `fields` says something else."""
        assert page.status == 200, page.text
        shown = Form(page.text).hidden
        lowest = re.findall(r'<option value="([^"]+)"', page.text) or [shown.get("level", "")]
        form = {"login": shown["login"], "level": lowest[0], **(fields or {"pid": PID})}
        return await self.request("POST", "/idporten/login", data=form)


@dataclass
class RelyingParty:
    """An application's login proxy.

    Attributes:
        key: what it signs its assertions with.
    """

    browser: Browser
    application: str
    client_id: str
    key: PrivateKey
    metadata: dict[str, Any] = field(default_factory=dict)
    verifier: str = ""
    sent: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def start(cls, browser: Browser, application: str = APP) -> RelyingParty:
        """Read its environment and the discovery document, which wonderwall checks before it starts."""
        environment = browser.provider.login_proxy_environment(application)
        key = PrivateKey(json.loads(environment["IDPORTEN_CLIENT_JWK"]))
        party = cls(browser, application, environment["IDPORTEN_CLIENT_ID"], key)
        party.metadata = (await browser.request("GET", environment["IDPORTEN_WELL_KNOWN_URL"])).json
        assert environment["WONDERWALL_OPENID_ACR_VALUES"] in party.metadata["acr_values_supported"]
        assert environment["WONDERWALL_OPENID_UI_LOCALES"] in party.metadata["ui_locales_supported"]
        assert "RS256" in party.metadata["id_token_signing_alg_values_supported"]
        return party

    def assertion(self, *, key: PrivateKey | Key | None = None, header: Any = None, **changes: Any) -> str:
        """A client assertion as wonderwall's: issued 5 s ago, without `nbf`. None removes a claim."""
        now = int(self.browser.caller.local.now())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.metadata["issuer"],
            "iat": now - 5,
            "exp": now + 25,
            "jti": str(uuid.uuid4()),
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        head = header or {"alg": "RS256", "kid": self.key.kid, "typ": "JWT"}
        return (key or self.key).sign(json.dumps(head).encode(), json.dumps(kept).encode())

    def credential(self, **changes: Any) -> dict[str, str]:
        return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self.assertion(**changes)}

    def parameters(self, **changes: str | None) -> dict[str, str]:
        """An authorization request as wonderwall's. None removes a parameter."""
        self.verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest())
        parameters: dict[str, str | None] = {
            "client_id": self.client_id,
            "redirect_uri": CALLBACK.replace("portal", self.application.rpartition(":")[2]),
            "response_type": "code",
            "response_mode": "query",
            "scope": "openid",
            "state": secrets.token_urlsafe(16),
            "nonce": secrets.token_urlsafe(16),
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "acr_values": HIGH,
            "ui_locales": "nb",
            "resource": "https://nav.no",
            **changes,
        }
        self.sent = {name: value for name, value in parameters.items() if value is not None}
        return self.sent

    async def push(self, **changes: str | None) -> Answer:
        """A pushed authorization request (RFC 9126)."""
        form = {**self.parameters(**changes), **self.credential()}
        return await self.browser.request(
            "POST", self.metadata["pushed_authorization_request_endpoint"], data=form
        )

    async def begin(self, **changes: str | None) -> Answer:
        """What the browser gets at the authorization endpoint, after the request was pushed."""
        pushed = await self.push(**changes)
        assert pushed.status == 201, pushed.text
        query = {"client_id": self.client_id, "request_uri": pushed.json["request_uri"]}
        return await self.browser.request("GET", self.metadata["authorization_endpoint"], params=query)

    async def begin_without_push(self, **changes: str | None) -> Answer:
        """The same without pushing."""
        query = self.parameters(**changes)
        return await self.browser.request("GET", self.metadata["authorization_endpoint"], params=query)

    def callback(self, answer: Answer) -> dict[str, str]:
        """The members of a callback, checked."""
        assert answer.status == 303, re.sub(r"<[^>]+>", " ", answer.text)[-1500:]
        assert answer.headers["Location"].startswith(self.sent["redirect_uri"] + "?")
        members = answer.location
        assert members["iss"] == self.metadata["issuer"]
        assert members["state"] == self.sent["state"]
        return members

    async def token(self, form: Mapping[str, str], **options: Any) -> Answer:
        return await self.browser.request("POST", self.metadata["token_endpoint"], data=form, **options)

    async def redeem(self, code: str, /, **changes: str | None) -> Answer:
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "code": code,
            "code_verifier": self.verifier,
            "redirect_uri": self.sent["redirect_uri"],
            **self.credential(),
            **changes,
        }
        return await self.token({name: value for name, value in form.items() if value is not None})

    async def refresh(self, token: str, /, **changes: str) -> Answer:
        form = {"grant_type": "refresh_token", "client_id": self.client_id, "refresh_token": token}
        return await self.token({**form, **self.credential(), **changes})

    async def verified(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token, by a library that is not ours."""
        keys = (await self.browser.request("GET", self.metadata["jwks_uri"])).json
        found = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(
            token,
            found,
            algorithms=["RS256"],
            audience=audience,
            issuer=self.metadata["issuer"],
            options={"verify_exp": False, "verify_iat": False},
        )
        return claims

    async def id_token(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """The claims of an ID token, after wonderwall's checks."""
        assert tokens["expires_in"] > 0
        claims = await self.verified(tokens["id_token"], self.client_id)
        assert claims["aud"] == self.client_id
        assert claims["nonce"] == self.sent["nonce"]
        if (
            self.metadata["frontchannel_logout_supported"]
            and self.metadata["frontchannel_logout_session_supported"]
        ):
            assert isinstance(claims["sid"], str)
        asked = self.sent.get("acr_values", "")
        assert claims["acr"] in _WONDERWALL_ACCEPTS.get(asked, (claims["acr"],))
        assert claims["iat"] - 5 <= self.browser.caller.local.now() < claims["exp"] + 5
        return claims

    async def logged_in(self, **changes: str | None) -> dict[str, Any]:
        """The response of the token endpoint after a login with a number."""
        answer = await self.begin(**changes)
        if answer.status == 200:
            answer = await self.browser.log_in(answer)
        tokens = await self.redeem(self.callback(answer)["code"])
        assert tokens.status == 200, tokens.text
        return dict(tokens.json)


def frames(page: str) -> list[str]:
    """The addresses of the frames of a page."""
    return [html.unescape(url) for url in re.findall(r'<iframe src="([^"]+)"', page)]


def query_of(url: str) -> dict[str, str]:
    """The members of an address's query."""
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))


@asynccontextmanager
async def idporten_served(*manifests: str, **options: Any) -> AsyncIterator[Browser]:
    """A local ID-porten on a free port, with one application unless there are manifests."""
    local = local_entra(list(manifests) or [idporten_manifest()], **options)
    keys = [entry["jwk"] for entry in signing_keys()]
    local.provider_keys.signing["idporten"].restore({"since": 0, "keys": keys})
    async with served(local) as caller:
        yield Browser(caller)
