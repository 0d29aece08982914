"""Authorization requests, pushed or not: what is checked, and what the response to the application says.

A request with a wrong client or redirect URI never leads back to that URI (RFC 9700, section 4.11); every
other refusal does. Who logs in is decided on the login page.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.providers.idporten.clients import Client
from entra_fast.emulator.providers.idporten.errors import IdPortenError
from entra_fast.emulator.providers.idporten.levels import RequestedLevels

RESPONSE_MODES: Final = ("query", "form_post")
PROMPTS: Final = ("none", "login", "select_account", "consent")
LOCALES: Final = ("en", "nb", "nn", "se")
SCOPES: Final = ("openid", "profile")
MAX_PARAMETER_LENGTH: Final = 4096
_PARAMETERS: Final = (
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "resource",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "acr_values",
    "ui_locales",
    "login_hint",
    "prompt",
    "max_age",
)
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9\-_]{43}")
"""Of the method S256: 32 bytes in base64url (RFC 7636, section 4.2)."""
_RESOURCE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s#]+")
"""An absolute URI without fragment (RFC 8707, section 2)."""

Fields = list[tuple[str, str]]


class LoginError(Exception):
    """A refusal that goes back to the application (RFC 6749, section 4.1.2.1).

    Attributes:
        response_mode: how it goes there.
    """

    def __init__(self, redirect_uri: str, response_mode: str, state: str, error: IdPortenError) -> None:
        super().__init__(str(error))
        self.redirect_uri = redirect_uri
        self.response_mode = response_mode
        self.state = state
        self.error = error


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A checked authorization request.

    Attributes:
        resource: audience of the access token; empty for none.
        locale: language of the pages, and the claim `locale`.
        prompt: the words of `prompt`.
        max_age: seconds since the login; None for any.
    """

    client: Client
    redirect_uri: str
    response_mode: str
    scope: str
    resource: str
    state: str
    nonce: str
    challenge: str
    levels: RequestedLevels
    locale: str
    login_hint: str = ""
    prompt: frozenset[str] = frozenset()
    max_age: int | None = None

    def refusal(self, error: IdPortenError) -> LoginError:
        """A refusal of this request."""
        return LoginError(self.redirect_uri, self.response_mode, self.state, error)


def check(parameters: Mapping[str, str], find: Callable[[str], Client | None]) -> LoginRequest:
    """Check an authorization request.

    Args:
        find: the client with a client id.

    Raises:
        IdPortenError: client or redirect URI are wrong; to be shown, never to be sent anywhere.
        LoginError: something else is wrong; to be sent to the application.
    """
    for name in _PARAMETERS:
        if len(parameters.get(name, "")) > MAX_PARAMETER_LENGTH:
            text = f"The parameter {name} is longer than {MAX_PARAMETER_LENGTH} characters"
            raise IdPortenError("invalid_request", text)
    if not parameters.get("client_id"):
        raise IdPortenError("invalid_request", "Missing parameter: client_id")
    client = find(parameters["client_id"])
    if client is None:
        raise IdPortenError("invalid_client", "Unknown client_id: no such client is registered")
    redirect_uri = parameters.get("redirect_uri", "")
    if not redirect_uri:
        raise IdPortenError("invalid_request", "Missing parameter: redirect_uri")
    if redirect_uri not in client.redirect_uris:
        raise IdPortenError("invalid_request", "Invalid redirect_uri: it is not registered for the client")
    mode, state = parameters.get("response_mode") or "query", parameters.get("state", "")
    try:
        if mode not in RESPONSE_MODES:
            mode = "query"
            raise IdPortenError(
                "invalid_request", f"Unsupported response_mode: expected {' or '.join(RESPONSE_MODES)}"
            )
        return _checked(client, redirect_uri, mode, state, parameters)
    except IdPortenError as error:
        raise LoginError(redirect_uri, mode, state, error) from None


def _checked(
    client: Client, redirect_uri: str, mode: str, state: str, parameters: Mapping[str, str]
) -> LoginRequest:
    for name in ("request", "request_uri"):
        if name in parameters:
            raise IdPortenError(f"{name}_not_supported", f"Unsupported parameter: {name}")
    for name in ("response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method"):
        if not parameters.get(name):
            raise IdPortenError("invalid_request", f"Missing parameter: {name}")
    if parameters["response_type"] != "code":
        raise IdPortenError("unsupported_response_type", "Unsupported response_type: expected code")
    scope = parameters["scope"].split()
    if "openid" not in scope:
        raise IdPortenError("invalid_scope", "Invalid scope: openid is required")
    for name in scope:
        if name not in SCOPES:
            text = f"Invalid scope: the client may ask for {' and '.join(SCOPES)} only"
            raise IdPortenError("invalid_scope", text)
    if parameters["code_challenge_method"] != "S256":
        raise IdPortenError("invalid_request", "Unsupported code_challenge_method: expected S256")
    if not _CHALLENGE.fullmatch(parameters["code_challenge"]):
        text = "Invalid code_challenge: expected a SHA-256 digest in base64url, 43 characters"
        raise IdPortenError("invalid_request", text)
    resource = parameters.get("resource", "")
    if resource and not _RESOURCE.fullmatch(resource):
        raise IdPortenError("invalid_target", "Invalid resource: expected an absolute URI without fragment")
    prompt = frozenset(parameters.get("prompt", "").split())
    if not prompt <= set(PROMPTS) or ("none" in prompt and len(prompt) > 1):
        text = f"Invalid prompt: expected {', '.join(PROMPTS)}; none stands alone"
        raise IdPortenError("invalid_request", text)
    max_age = parameters.get("max_age", "")
    if max_age and not re.fullmatch(r"[0-9]{1,9}", max_age):
        raise IdPortenError("invalid_request", "Invalid max_age: expected a number of seconds")
    wanted = (locale for locale in parameters.get("ui_locales", "").split() if locale in LOCALES)
    return LoginRequest(
        client,
        redirect_uri,
        mode,
        " ".join(dict.fromkeys(scope)),
        resource,
        state,
        parameters["nonce"],
        parameters["code_challenge"],
        RequestedLevels.parse(parameters.get("acr_values", ""), client.level),
        next(wanted, client.locale),
        parameters.get("login_hint", ""),
        prompt,
        int(max_age) if max_age else None,
    )


def code_fields(request: LoginRequest, code: str, issuer: str) -> Fields:
    """The members of the response after a login (RFC 9207 for `iss`)."""
    return [("code", code), ("state", request.state), ("iss", issuer)]


def error_fields(refusal: LoginError, issuer: str) -> Fields:
    """The members of the response after a refusal."""
    error = refusal.error
    state = [("state", refusal.state)] if refusal.state else []
    return [("error", error.error), ("error_description", error.description), *state, ("iss", issuer)]


def redirect_target(redirect_uri: str, fields: Fields) -> str:
    """The redirect URI with members in its query."""
    return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urllib.parse.urlencode(fields)}"
