"""The response of the authorization endpoint: its members, and the redirect URI that carries them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.authorize import LoginRequest
from entra_fast.emulator.protocol.claims import client_info, half_hash, random_lifetime
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Decision
from entra_fast.emulator.protocol.token_request import Authorized, TokenRequest
from entra_fast.emulator.protocol.token_response import TokenIssuer

Fields = list[tuple[str, str]]

_WITHOUT_A_PAGE: Final = {50105: "interaction_required", 65001: "consent_required"}
"""OAuth errors where `prompt=none` forbids the page that explains the refusal."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response to the application. `claims`: of the access token in it, for the journal."""

    fields: Fields
    claims: Mapping[str, Any]


def response(
    issuer: TokenIssuer, request: LoginRequest, user: User, login: Login, decision: Decision, trace: str
) -> Response:
    """The response after a login that was granted.

    Args:
        trace: correlation id.
    """
    kinds, fields = request.response_types, Fields()
    # What a token request would be that asks for the same.
    asked = TokenRequest(
        request.tenant, {}, request.version, trace, client=request.client, user=user, requested=request.claims
    )
    hashes: dict[str, str] = {}
    if "code" in kinds:
        code = issuer.store.new_code(login)
        fields.append(("code", code))
        hashes["c_hash"] = half_hash(code)
    if "token" in kinds:
        # No refresh token: this response is part of a URL (RFC 6749, section 4.2.2).
        scope = replace(request.scope, openid=request.scope.openid - {"offline_access"})
        only_login = scope.resource is None
        target = None if only_login or request.graph else request.target
        authorized = Authorized(scope, target, None if only_login else decision, login)
        answer = issuer.respond(asked, request.client, authorized)
        names = ("access_token", "token_type", "expires_in", "scope")
        fields += [(name, str(answer[name])) for name in names]
        hashes["at_hash"] = half_hash(answer["access_token"])
    if "id_token" in kinds:
        now, lifetime = int(issuer.clock()), random_lifetime()
        openid = request.scope.openid
        token = issuer.id_token(asked, request.client, user, login, openid, now, lifetime, hashes)
        fields.append(("id_token", token))
    if request.parameters.get("client_info") == "1":
        fields.append(("client_info", client_info(request.tenant, user)))
    return Response([*fields, *_state(request), ("session_state", login.session)], asked.claims)


def error_fields(request: LoginRequest, error: EntraError, description: str) -> Fields:
    """The members of the response after a refusal."""
    return [("error", _public_error(error)), ("error_description", description), *_state(request)]


def redirect_target(request: LoginRequest, fields: Sequence[tuple[str, str]]) -> str:
    """The redirect URI with members added as the response mode requires (not form_post)."""
    encoded = urllib.parse.urlencode(fields)
    if request.response_mode == "fragment":
        return f"{request.redirect_uri}#{encoded}"
    separator = "&" if "?" in request.redirect_uri else "?"
    return f"{request.redirect_uri}{separator}{encoded}"


def _state(request: LoginRequest) -> Fields:
    return [("state", request.parameters["state"])] if "state" in request.parameters else []


def _public_error(error: EntraError) -> str:
    # The token endpoint's invalid_grant has no meaning at the authorization endpoint (RFC 6749, section
    # 4.1.2.1).
    return _WITHOUT_A_PAGE.get(error.code) or (
        "access_denied" if error.error == "invalid_grant" else error.error
    )
