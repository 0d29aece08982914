"""The requests of the token generator for TokenX: the login at ID-porten, and the exchange at TokenX.

Requests and responses are `oauth`'s, the credentials are `credentials`', `validate` verifies ID tokens. Every
request for a token gets a new one, so that a changed policy shows at once.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import orjson

from entra_fast import _clock, _native
from entra_fast._provider.credentials import Credentials, authenticated
from entra_fast._provider.discovery_document import Discovery
from entra_fast._provider.endpoints import fetch_document
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.oauth import parse_token_response, token_exchange_form, without_secrets
from entra_fast._settings.model import ProviderSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import InvalidToken, KeysUnavailable, ProviderError
from entra_fast.generator.login import Login, LoginError
from entra_fast.generator.provider import MAX_NAME_CHARACTERS, Token
from entra_fast.generator.remembered import Remembered
from entra_fast.generator.site import LoggedIn
from entra_fast.validate import AsyncValidator

_SECRET_FIELDS: Final = ("code", "code_verifier", "subject_token")
"""Fields of a form that a provider's errors must not repeat, besides the credential."""


class TokenRequests:
    """Token requests of one client, which authenticates with assertions for the issuer."""

    def __init__(self, settings: ProviderSettings, http: HttpClient, clock: Callable[[], float]) -> None:
        self._kind = settings.kind
        self._http = http
        self._clock = clock
        self.credentials = Credentials(settings.credentials, settings.client_id)

    async def send(self, discovery: Discovery, form: dict[str, str]) -> tuple[Token, bytes]:
        """(token, whole response). Raises ProviderError."""
        secrets = [form[name] for name in _SECRET_FIELDS if name in form]

        async def attempt(proof: dict[str, str]) -> tuple[Token, bytes]:
            try:
                response = await self._http.post_form(discovery.token_endpoint, {**form, **proof})
                answer = parse_token_response(
                    response.status, response.headers, response.body, now=self._clock()
                )
            except HttpFailure as error:
                text = f"no answer from {self._kind.title}: {error.message}"
                raise ProviderError(error.code, text) from None
            except ProviderError as error:
                raise without_secrets(error, (*proof.values(), *secrets)) from None
            return Token(answer.access_token, int(answer.expires_in)), response.body

        return await authenticated(self.credentials, self._kind, discovery.issuer, self._clock, attempt)


@dataclass(frozen=True, slots=True)
class _Login:
    """What is known about ID-porten."""

    discovery: Discovery
    authorization_endpoint: str
    validator: AsyncValidator

    async def aclose(self) -> None:
        await self.validator.aclose()


class IdPortenLogin:
    """Logs users in at ID-porten. Belongs to one event loop.

    Args:
        http: for all requests.
        fake_login_url: what returns a token of ID-porten without a login; None for nothing.
        fake_login_token: what that demands; None for nothing.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        http: HttpClient,
        *,
        fake_login_url: str | None = None,
        fake_login_token: Secret | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        self._settings = settings
        self._http = http
        self._fake_login_url = fake_login_url
        self._fake_login_token = fake_login_token
        self._requests = TokenRequests(settings, http, clock)
        self._endpoints = Remembered(self._discover, _Login.aclose, monotonic)

    async def aclose(self) -> None:
        """Close what verifies ID tokens."""
        await self._endpoints.aclose()

    async def not_ready_reason(self) -> str | None:
        """Why no one can log in now, or None."""
        try:
            await self._endpoints.get()
        except ProviderError as error:
            return f"ID-porten: {error.message}"
        return self._requests.credentials.problem()

    async def issuer(self) -> str:
        """What `iss` in a callback must be. Raises ProviderError."""
        return (await self._endpoints.get()).discovery.issuer

    async def authorization_url(self, login: Login, redirect_uri: str, *, prompt: str | None = None) -> str:
        """Where to send the browser (OpenID Connect Core, section 3.1.2.1). Raises ProviderError."""
        query = {
            "client_id": self._settings.client_id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": "openid profile",
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": login.challenge,
            "code_challenge_method": "S256",
            # The lowest level, so that the user can choose: TokenX passes it on to the target.
            "acr_values": "idporten-loa-substantial",
        }
        if prompt is not None:
            query["prompt"] = prompt
        return f"{(await self._endpoints.get()).authorization_endpoint}?{urlencode(query)}"

    async def logout_url(self, return_to: str, _hint: str = "") -> str | None:
        """Where to send the browser to end its session (OpenID Connect RP-Initiated Logout 1.0)."""
        try:
            endpoint = (await self._endpoints.get()).discovery.end_session_endpoint
        except ProviderError:
            return None
        query = {"post_logout_redirect_uri": return_to, "client_id": self._settings.client_id}
        return None if endpoint is None else f"{endpoint}?{urlencode(query)}"

    async def redeem(self, login: Login, code: str, redirect_uri: str) -> LoggedIn:
        """Redeem an authorization code, and check the ID token that comes with it.

        Raises:
            ProviderError: ID-porten refused or failed.
            LoginError: the ID token is not valid or belongs to another login.
        """
        known = await self._endpoints.get()
        form = {
            "grant_type": "authorization_code",
            "client_id": self._settings.client_id,
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": login.verifier,
        }
        token, body = await self._requests.send(known.discovery, form)
        id_token = orjson.loads(body).get("id_token")
        if not isinstance(id_token, str):
            raise LoginError("ID-porten sent no ID token. Sign in again.")
        try:
            claims = await known.validator.validate(id_token)
        except InvalidToken as error:
            text = f"The ID token of ID-porten is not valid: {error.message}. Sign in again."
            raise LoginError(text) from None
        except KeysUnavailable as error:
            raise ProviderError(error.code, error.message, status=502) from None
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(
            nonce.encode(errors="replace"), login.nonce.encode()
        ):
            raise LoginError("The ID token of ID-porten belongs to another sign-in. Sign in again.")
        names = (claims.get(claim) for claim in ("pid", "email", "sub"))
        name = next((name for name in names if isinstance(name, str) and name), "unknown")
        return LoggedIn(name[:MAX_NAME_CHARACTERS], token.access_token, float(token.expires_in))

    @property
    def gives_tokens_without_login(self) -> bool:
        """Whether `without_login` can be used."""
        return self._fake_login_url is not None

    async def without_login(self, pid: str, acr: str) -> str:
        """A token of ID-porten for any number, which is not checked. Raises ProviderError."""
        # In the query, because fakedings reads that; posted, because it makes something.
        url = f"{self._fake_login_url}?{urlencode({'pid': pid, 'acr': acr})}"
        secret = self._fake_login_token
        headers = {} if secret is None else {"Authorization": f"Bearer {secret.reveal()}"}
        try:
            response = await self._http.post_form(url, {}, headers=headers)
        except HttpFailure as error:
            raise ProviderError(error.code, f"no token without a login: {error.message}") from None
        token = response.body.decode(errors="replace").strip()
        try:
            _native.unverified_claims(token)
        except InvalidToken:
            text = f"{self._fake_login_url} answered {response.status} and no token"
            raise ProviderError("provider_answer_malformed", text, status=502) from None
        return token

    async def _discover(self) -> _Login:
        discovery = await fetch_document(self._http, self._settings.well_known_url or "", None)
        if discovery.authorization_endpoint is None:
            raise ProviderError("discovery_malformed", "the discovery document has no authorization_endpoint")
        validator = AsyncValidator(
            discovery.issuer, self._settings.client_id, jwks_uri=discovery.jwks_uri, http=self._http
        )
        await validator.start()
        return _Login(discovery, discovery.authorization_endpoint, validator)


class TokenXExchange:
    """Exchanges tokens of users at TokenX. Belongs to one event loop."""

    def __init__(
        self,
        settings: ProviderSettings,
        http: HttpClient,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        self._settings = settings
        self._http = http
        self._requests = TokenRequests(settings, http, clock)
        self._endpoints = Remembered(self._discover, _nothing, monotonic)

    @property
    def client_id(self) -> str:
        """The name by which targets admit the token generator."""
        return self._settings.client_id

    async def not_ready_reason(self) -> str | None:
        """Why no token can be exchanged now, or None."""
        try:
            await self._endpoints.get()
        except ProviderError as error:
            return f"TokenX: {error.message}"
        return self._requests.credentials.problem()

    async def exchange(self, target: str, subject_token: str) -> Token:
        """A fresh token for a target on behalf of the user (RFC 8693). Raises ProviderError."""
        form = token_exchange_form(target, subject_token, {})
        return (await self._requests.send(await self._endpoints.get(), form))[0]

    async def _discover(self) -> Discovery:
        known = self._settings
        if known.well_known_url is None:
            return Discovery(known.issuer or "", known.jwks_uri or "", known.token_endpoint or "")
        return await fetch_document(self._http, known.well_known_url, known.issuer)


async def _nothing(_: Discovery) -> None:
    """Nothing has to be closed."""
