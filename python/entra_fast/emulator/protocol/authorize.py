"""The authorization endpoint without HTTP: checking requests, sign-in, codes, and sign-out.

A request with a wrong client or redirect URI never leads back to that URI (open redirect, RFC 9700, section
4.11); every other refusal does, or ends on a page that explains it, as in Entra ID.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Registry, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.graph_policy import decide_graph
from entra_fast.emulator.protocol.policy import Decision, admits_user, decide
from entra_fast.emulator.protocol.scope import Scope, parse_scope
from entra_fast.emulator.protocol.store import Login

MAX_USERS_SHOWN: Final = 50
MAX_GROUPS_SHOWN: Final = 10
MAX_PARAMETER_LENGTH: Final = 4096
RESPONSE_MODES: Final = ("query", "fragment", "form_post")
PROMPTS: Final = ("", "none", "login", "select_account", "consent")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")
_PARAMETERS: Final = [
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "login_hint",
    "domain_hint",
    "prompt",
    "client_info",
    "entra_fast_target",
]


class LoginError(Exception):
    """A refusal that goes back to the application (RFC 6749, section 4.1.2.1)."""

    def __init__(self, request: LoginRequest, error: EntraError) -> None:
        super().__init__(str(error))
        self.request = request
        self.error = error


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A checked authorization request.

    Attributes:
        target: the application that a token is requested for; the client itself for a login only, and for
            one with permissions of Microsoft Graph.
        graph: whether a token for Microsoft Graph is requested.
    """

    tenant: Tenant
    client: Application
    target: Application
    redirect_uri: str
    response_mode: str
    scope: Scope
    parameters: Mapping[str, str]
    graph: bool = False

    @property
    def prompt(self) -> str:
        """The value of `prompt`."""
        return self.parameters.get("prompt", "")

    @property
    def final_target(self) -> Application | None:
        """What the client will exchange the user's token for afterwards, if it says so and there is such an
        application. Entra ID ignores parameters that it does not know. It decides nothing: the sign-in page
        warns of users whom that target will refuse.
        """
        scope = self.parameters.get("entra_fast_target", "")
        found = self.tenant.resource(scope.removesuffix("/.default")) if scope else None
        return None if found in (self.client, self.target) else found

    @property
    def hint(self) -> str:
        """The value of `login_hint`."""
        return self.parameters.get("login_hint", "")

    def login(self, user: User, session: str) -> Login:
        """The content of a code for this request."""
        return Login(
            tenant_id=self.tenant.id,
            client_id=self.client.client_id,
            user_id=user.id,
            scope=self.parameters["scope"],
            session=session,
            redirect_uri=self.redirect_uri,
            nonce=self.parameters.get("nonce", ""),
            challenge=self.parameters.get("code_challenge", ""),
            challenge_method=self.parameters.get("code_challenge_method", "") or "plain",
        )

    def decide(self, user: User) -> Decision:
        """Whether this user may log in here: to the client, and to the target if that is another
        application.
        """
        own = admits_user(self.tenant, self.client, user)
        if not own.passed:
            error = EntraError(50105, target=self.client.name, target_id=self.client.client_id)
            return Decision(False, (own,), error)
        decision = decide(self.tenant, self.client, self.target, user)
        reasons = decision.reasons
        if self.graph and decision.granted:
            decision = decide_graph(self.client, self.scope, user)
            reasons = (*reasons, *decision.reasons)
        elif self.target is self.client:
            return decision
        else:
            reasons = (own, *reasons)
        return Decision(
            decision.granted,
            reasons,
            decision.error,
            scopes=decision.scopes,
            groups=decision.groups,
        )


def check(tenant: Tenant, parameters: Mapping[str, str], base_url: str) -> LoginRequest:
    """Check an authorization request. `base_url`: of the provider.

    Raises:
        EntraError: client or redirect URI are wrong; to be shown, never to be sent anywhere.
        LoginError: something else is wrong; to be sent to the application.
    """
    parameters = {name: parameters[name] for name in _PARAMETERS if name in parameters}
    for name in ("client_id", "redirect_uri"):
        if not parameters.get(name):
            raise EntraError(900144, parameter=name)
    for name, value in parameters.items():
        if len(value) > MAX_PARAMETER_LENGTH:
            raise EntraError(9002313, reason=f"{name!r} is longer than {MAX_PARAMETER_LENGTH} characters")
    client = tenant.application(parameters["client_id"])
    if client is None:
        raise EntraError(700016, client_id=parameters["client_id"][:100], tenant=tenant.name)
    redirect_uri = parameters["redirect_uri"]
    if redirect_uri not in client.reply_urls:
        raise EntraError(50011, redirect_uri=redirect_uri[:300], client_id=client.client_id)
    mode = parameters.get("response_mode", "query")
    if mode not in RESPONSE_MODES:
        raise EntraError(9002313, reason=f"'response_mode' must be one of {', '.join(RESPONSE_MODES)}")
    draft = LoginRequest(tenant, client, client, redirect_uri, mode, Scope(frozenset(), None, ()), parameters)
    try:
        return _checked(draft, base_url)
    except EntraError as error:
        raise LoginError(draft, error) from None


def _checked(draft: LoginRequest, base_url: str) -> LoginRequest:
    parameters, tenant = draft.parameters, draft.tenant
    response_type = parameters.get("response_type", "")
    if response_type != "code":
        raise EntraError(700054, response_type=response_type[:100])
    if not parameters.get("scope"):
        raise EntraError(900144, parameter="scope")
    if parameters.get("prompt", "") not in PROMPTS:
        raise EntraError(9002313, reason=f"'prompt' must be one of {', '.join(PROMPTS[1:])}")
    challenge, method = parameters.get("code_challenge", ""), parameters.get("code_challenge_method", "")
    if challenge and not _CHALLENGE.fullmatch(challenge):
        raise EntraError(
            9002313, reason="'code_challenge' must have 43 to 128 characters of the base64url alphabet"
        )
    if (method and method not in ("S256", "plain")) or (method and not challenge):
        raise EntraError(
            9002313, reason="'code_challenge_method' must be S256 or plain, with a 'code_challenge'"
        )
    if draft.client.single_page and method != "S256":
        raise EntraError(9002325)
    scope = parse_scope(parameters["scope"])
    target = draft.client
    for_graph = graph.is_graph(scope.resource, base_url)
    if scope.resource is not None and not for_graph:
        found = tenant.resource(scope.resource)
        if found is None:
            raise EntraError(500011, resource=scope.resource[:200], tenant=tenant.name)
        target = found
    return LoginRequest(
        tenant,
        draft.client,
        target,
        draft.redirect_uri,
        draft.response_mode,
        scope,
        draft.parameters,
        for_graph,
    )


def redirect_target(request: LoginRequest, fields: Sequence[tuple[str, str]]) -> str:
    """The redirect URI with fields added as the response mode requires (not form_post)."""
    encoded = urllib.parse.urlencode(fields)
    if request.response_mode == "fragment":
        return f"{request.redirect_uri}#{encoded}"
    separator = "&" if "?" in request.redirect_uri else "?"
    return f"{request.redirect_uri}{separator}{encoded}"


def error_fields(request: LoginRequest, error: EntraError, description: str) -> list[tuple[str, str]]:
    """The fields of the response to the application after a refusal."""
    fields = [("error", _public_error(error)), ("error_description", description)]
    if "state" in request.parameters:
        fields.append(("state", request.parameters["state"]))
    return fields


def code_fields(request: LoginRequest, code: str, session: str) -> list[tuple[str, str]]:
    """The fields of the response to the application after a login."""
    fields = [("code", code)]
    if "state" in request.parameters:
        fields.append(("state", request.parameters["state"]))
    return [*fields, ("session_state", session)]


def _public_error(error: EntraError) -> str:
    # The token endpoint's invalid_grant has no meaning at the authorization endpoint (RFC 6749, section
    # 4.1.2.1).
    return "access_denied" if error.kind.error == "invalid_grant" else error.kind.error


@dataclass(frozen=True, slots=True)
class Candidate:
    """A user who may be chosen at sign-in.

    Attributes:
        groups: names of the user's groups, the first MAX_GROUPS_SHOWN; `more_groups`: how many others.
        allowed: whether the sign-in would succeed, and the exchange for the final target after it.
        reason: why it would be refused; empty when it would not.
    """

    name: str
    username: str
    nav_ident: str | None
    groups: tuple[str, ...]
    more_groups: int
    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """The choices at sign-in.

    Attributes:
        candidates: users, the hinted one first; at most MAX_USERS_SHOWN.
        more: number of users beyond those.
        suggested: the user name in the request's hint; empty without a hint.
    """

    candidates: tuple[Candidate, ...]
    more: int
    suggested: str


def sign_in_choices(request: LoginRequest) -> SignIn:
    """The users to choose from for a request, and the decision about each."""
    directory = request.tenant.directory
    hinted = directory.find_user(request.hint) if request.hint else None
    users = list(directory.users.values())
    if hinted is not None:
        users = [hinted, *(user for user in users if user is not hinted)]
    shown = users[:MAX_USERS_SHOWN]
    return SignIn(
        tuple(_candidate(request, user) for user in shown),
        len(users) - len(shown),
        hinted.username if hinted is not None else request.hint,
    )


def _candidate(request: LoginRequest, user: User) -> Candidate:
    decision = request.decide(user)
    final = request.final_target
    if decision.granted and final is not None:
        decision = decide(request.tenant, request.client, final, user)
    failed = (reason.text for reason in decision.reasons if not reason.passed)
    groups = request.tenant.directory.groups
    return Candidate(
        user.name,
        user.username,
        user.nav_ident,
        tuple(groups[group].name for group in user.groups[:MAX_GROUPS_SHOWN]),
        max(0, len(user.groups) - MAX_GROUPS_SHOWN),
        decision.granted,
        "" if decision.granted else next(failed, "refused"),
    )


def as_another_user(request: LoginRequest) -> str:
    """The path that begins the same sign-in again and asks for the user."""
    parameters = {**request.parameters, "prompt": "select_account"}
    return f"/{request.tenant.id}/oauth2/v2.0/authorize?{urllib.parse.urlencode(parameters)}"


def may_return_to(tenant: Tenant, uri: str, client_id: str = "") -> bool:
    """Whether signing out may lead to a URI: one on an origin that an application of the tenant is
    registered for.
    """
    try:
        wanted = urllib.parse.urlsplit(uri)
        origin = (wanted.scheme, wanted.hostname, wanted.port)
    except ValueError:
        return False
    if (
        wanted.scheme not in ("http", "https")
        or wanted.username is not None
        or any(ord(c) <= 32 for c in uri)
    ):
        return False
    client = tenant.application(client_id) if client_id else None
    candidates = [client] if client is not None else list(tenant.applications.values())
    for application in candidates:
        for registered in application.reply_urls:
            parts = urllib.parse.urlsplit(registered)
            if (parts.scheme, parts.hostname, parts.port) == origin:
                return True
    return False


def is_single_page_origin(registry: Registry, origin: str) -> bool:
    """Whether an origin is that of a single-page application, which redeems its codes in the browser."""
    return any(
        application.single_page and any(_origin(url) == origin for url in application.reply_urls)
        for tenant in registry.tenants
        for application in tenant.applications.values()
    )


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
