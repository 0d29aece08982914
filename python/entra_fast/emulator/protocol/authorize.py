"""The authorization endpoint without HTTP: checking requests, who may sign in, and whom to choose from.

A request with a wrong client or redirect URI never leads back to that URI (open redirect, RFC 9700, section
4.11); every other refusal does, or ends on a page that explains it, as in Entra ID. What the response says
belongs in front_channel.py, signing out in sign_out.py.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol import claims_request
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.claims import hinted_user
from entra_fast.emulator.protocol.claims_request import NOTHING, ClaimsRequest
from entra_fast.emulator.protocol.client_auth import known_client
from entra_fast.emulator.protocol.graph_policy import decide_graph
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Decision, admits_user, decide, with_permissions
from entra_fast.emulator.protocol.scope import DEFAULT, Scope, parse_scope
from entra_fast.emulator.protocol.store import Session

MAX_USERS_SHOWN: Final = 50
MAX_GROUPS_SHOWN: Final = 10
MAX_PARAMETER_LENGTH: Final = 4096
RESPONSE_MODES: Final = ("query", "fragment", "form_post")
PROMPTS: Final = ("", "none", "login", "select_account", "consent")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")
_LOOPBACK: Final = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?(?=/|$)")
_RESPONSE_TYPES: Final = tuple(
    frozenset(kinds.split()) for kinds in ("code", "id_token", "code id_token", "id_token token")
)
_RESPONSE_TYPES_OF_V1: Final = (*_RESPONSE_TYPES, frozenset({"token"}))
_PARAMETERS: Final = [
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
    "login_hint",
    "domain_hint",
    "prompt",
    "max_age",
    "claims",
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
    """A checked authorization request, or a device's.

    Attributes:
        target: the application that a token is requested for; the client itself for a login only, and for
            one with permissions of Microsoft Graph.
        response_types: what the response consists of: `code`, `id_token`, `token`.
        scope_text: as requested; made of `resource` at the v1.0 endpoint.
        version: 2 for the v2.0 endpoint, 1 for the older one.
        graph: whether a token for Microsoft Graph is requested.
        claims: what the parameter `claims` requests.
    """

    tenant: Tenant
    client: Application
    target: Application
    redirect_uri: str
    response_mode: str
    response_types: frozenset[str]
    scope: Scope
    scope_text: str
    parameters: Mapping[str, str]
    version: int = 2
    graph: bool = False
    claims: ClaimsRequest = NOTHING

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

    @property
    def hinted(self) -> User | None:
        """The user whom `login_hint` names."""
        return hinted_user(self.tenant, self.hint)

    def is_too_old(self, session: Session, now: float) -> bool:
        """Whether a session began longer ago than `max_age` allows (OpenID Connect Core 1.0, section
        3.1.2.1).
        """
        limit = self.parameters.get("max_age", "")
        return bool(limit) and now - session.auth_time > int(limit)

    def login(self, user: User, session: Session, *, now: float, address: str) -> Login:
        """What a user agrees to by signing in here.

        Args:
            now: seconds since the epoch.
            address: of the browser.
        """
        return Login(
            tenant_id=self.tenant.id,
            client_id=self.client.client_id,
            user_id=user.id,
            scope=self.scope_text,
            session=session.id,
            redirect_uri=self.redirect_uri,
            nonce=self.parameters.get("nonce", ""),
            challenge=self.parameters.get("code_challenge", ""),
            challenge_method=self.parameters.get("code_challenge_method", "") or "plain",
            claims=self.claims.text(),
            auth_time=session.auth_time,
            started=now,
            address=address,
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
        if self.graph and decision.granted:
            found = decide_graph(self.client, self.scope, user)
            return replace(found, reasons=(*decision.reasons, *found.reasons))
        if self.scope.resource is not None:
            decision = with_permissions(decision, self.client, self.target, self.scope.permissions)
        if self.target is self.client:
            return decision
        return replace(decision, reasons=(own, *decision.reasons))


def check(tenant: Tenant, parameters: Mapping[str, str], base_url: str, version: int = 2) -> LoginRequest:
    """Check an authorization request.

    Args:
        base_url: of the provider.
        version: 2 for the v2.0 endpoint, 1 for the older one.

    Raises:
        EntraError: client or redirect URI are wrong; to be shown, never to be sent anywhere.
        LoginError: something else is wrong; to be sent to the application.
    """
    parameters = {name: parameters[name] for name in _PARAMETERS if name in parameters}
    for name, value in parameters.items():
        if len(value) > MAX_PARAMETER_LENGTH:
            raise EntraError(9002313, reason=f"{name!r} is longer than {MAX_PARAMETER_LENGTH} characters")
    if not parameters.get("client_id"):
        raise EntraError(900144, parameter="client_id")
    client = known_client(tenant, parameters["client_id"])
    redirect_uri = parameters.get("redirect_uri", "")
    if not redirect_uri:
        raise EntraError(900971)
    if not _is_registered(client, redirect_uri):
        raise EntraError(50011, redirect_uri=redirect_uri[:300], client_id=client.client_id)
    kinds = frozenset(parameters.get("response_type", "").split())
    # OAuth 2.0 Multiple Response Type Encoding Practices, section 5: tokens are not sent in a query.
    default = "fragment" if "id_token" in kinds or (version == 1 and "token" in kinds) else "query"
    mode = parameters.get("response_mode") or default
    if mode not in RESPONSE_MODES:
        raise EntraError(9002313, reason=f"'response_mode' must be one of {', '.join(RESPONSE_MODES)}")
    nothing = Scope(frozenset(), None, ())
    draft = LoginRequest(
        tenant, client, client, redirect_uri, mode, kinds, nothing, "", parameters, version=version
    )
    try:
        if mode == "query" != default:
            draft = replace(draft, response_mode=default)
            raise EntraError(70007, response_mode=mode)
        return _checked(draft, base_url)
    except EntraError as error:
        raise LoginError(draft, error) from None


def device_request(
    tenant: Tenant, client: Application, scope: str, claims: str, base_url: str, version: int
) -> LoginRequest:
    """Check what a device asks for. Raises EntraError."""
    draft = LoginRequest(
        tenant,
        client,
        client,
        "",
        "",
        frozenset(),
        Scope(frozenset(), None, ()),
        scope,
        {"claims": claims},
        version=version,
    )
    return _with_target(draft, base_url)


def _is_registered(client: Application, redirect_uri: str) -> bool:
    if redirect_uri in client.reply_urls:
        return True
    # RFC 8252, section 7.3: a native application listens on any free port.
    if not client.public_client or not _LOOPBACK.match(redirect_uri):
        return False
    wanted = _LOOPBACK.sub(r"http://\1", redirect_uri)
    return any(_LOOPBACK.sub(r"http://\1", url) == wanted for url in client.reply_urls)


def _checked(draft: LoginRequest, base_url: str) -> LoginRequest:
    parameters, client, kinds = draft.parameters, draft.client, draft.response_types
    if draft.version == 2 and parameters.get("resource"):
        raise EntraError(901002)
    if (
        kinds not in (_RESPONSE_TYPES if draft.version == 2 else _RESPONSE_TYPES_OF_V1)
        or ("id_token" in kinds and not client.id_token_implicit)
        or ("token" in kinds and not client.access_token_implicit)
    ):
        raise EntraError(700054, response_type=parameters.get("response_type", "")[:100])
    scope = _scope_text(draft)
    if not scope:
        raise EntraError(900144, parameter="scope")
    if "id_token" in kinds:
        if "openid" not in scope.split():
            raise EntraError(70005, response_type=parameters["response_type"])
        if not parameters.get("nonce"):
            raise EntraError(90014, field="nonce")
    if draft.prompt not in PROMPTS:
        raise EntraError(9002313, reason=f"'prompt' must be one of {', '.join(PROMPTS[1:])}")
    max_age = parameters.get("max_age", "")
    if max_age and not re.fullmatch(r"[0-9]{1,9}", max_age):
        raise EntraError(9002313, reason="'max_age' must be a number of seconds")
    if "code" in kinds:
        _check_challenge(draft)
    return _with_target(replace(draft, scope_text=scope), base_url)


def _scope_text(draft: LoginRequest) -> str:
    parameters = draft.parameters
    if draft.version == 2 or (parameters.get("scope") and not parameters.get("resource")):
        return parameters.get("scope", "")
    # The older endpoint has one resource, and always identifies the user.
    resource = parameters.get("resource", "")
    return f"openid profile offline_access {resource and f'{resource}/{DEFAULT}'}".strip()


def _check_challenge(draft: LoginRequest) -> None:
    parameters = draft.parameters
    challenge, method = parameters.get("code_challenge", ""), parameters.get("code_challenge_method", "")
    if challenge and not _CHALLENGE.fullmatch(challenge):
        raise EntraError(
            9002313, reason="'code_challenge' must have 43 to 128 characters of the base64url alphabet"
        )
    if (method and method not in ("S256", "plain")) or (method and not challenge):
        raise EntraError(
            9002313, reason="'code_challenge_method' must be S256 or plain, with a 'code_challenge'"
        )
    if draft.client.is_single_page_url(draft.redirect_uri) and method != "S256":
        raise EntraError(9002325)


def _with_target(draft: LoginRequest, base_url: str) -> LoginRequest:
    tenant, scope = draft.tenant, parse_scope(draft.scope_text)
    target = draft.client
    for_graph = graph.is_graph(scope.resource, base_url)
    if for_graph:
        unknown = (name for name in scope.permissions if name != DEFAULT and graph.known_scope(name) is None)
        for name in unknown:
            raise EntraError(650053, client=draft.client.name, scope=name[:100], resource=graph.CLIENT_ID)
    elif scope.resource is not None:
        found = tenant.resource(scope.resource)
        if found is None:
            raise EntraError(500011, resource=scope.resource[:200], tenant=tenant.name)
        target = found
    requested = claims_request.parse(draft.parameters.get("claims", ""))
    if draft.parameters.get("max_age"):
        requested = replace(requested, id_token={**requested.id_token, "auth_time": ()})
    return replace(draft, target=target, scope=scope, graph=for_graph, claims=requested)


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
    hinted = request.hinted
    users = list(request.tenant.directory.users.values())
    if domain := request.parameters.get("domain_hint", "").lower():
        users = [user for user in users if user.username.lower().endswith(f"@{domain}")] or users
    if hinted is not None:
        users = [hinted, *(user for user in users if user is not hinted)]
    shown = users[:MAX_USERS_SHOWN]
    return SignIn(
        tuple(_candidate(request, user) for user in shown),
        len(users) - len(shown),
        hinted.username if hinted is not None else "" if request.hint.startswith("O.") else request.hint,
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
    middle = "/v2.0" if request.version == 2 else ""
    return f"/{request.tenant.id}/oauth2{middle}/authorize?{urllib.parse.urlencode(parameters)}"
