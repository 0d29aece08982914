"""The authorization endpoint without HTTP: checking requests, the login page, codes, and signing out.

A request whose client or redirect URI is not exactly right never leads back to that URI (open redirect, RFC
9700, section 4.11); every other refusal does, or ends on a page that explains it, as in Entra ID.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.policy import Decision, admits_user, decide
from entra_fast.emulator.protocol.scope import Scope, parse_scope
from entra_fast.emulator.protocol.store import Login
from entra_fast.emulator.web import pages
from entra_fast.emulator.web.html import Html, join, tag

MAX_USERS_SHOWN: Final = 50
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
        target: the application that a token is wanted for; the client itself when only a login is wanted.
    """

    tenant: Tenant
    client: Application
    target: Application
    redirect_uri: str
    response_mode: str
    scope: Scope
    parameters: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """How much to ask."""
        return self.parameters.get("prompt", "")

    @property
    def hint(self) -> str:
        """Who is probably logging in."""
        return self.parameters.get("login_hint", "")

    def login(self, user: User, session: str) -> Login:
        """What a code for this request stands for."""
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
        if self.target is self.client:
            return decision
        return Decision(
            decision.granted,
            (own, *decision.reasons),
            decision.error,
            scopes=decision.scopes,
            groups=decision.groups,
        )


def check(tenant: Tenant, parameters: Mapping[str, str]) -> LoginRequest:
    """Check an authorization request.

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
        return _checked(draft)
    except EntraError as error:
        raise LoginError(draft, error) from None


def _checked(draft: LoginRequest) -> LoginRequest:
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
            9002313, reason="'code_challenge_method' must be S256 or plain, beside a 'code_challenge'"
        )
    if draft.client.single_page and method != "S256":
        raise EntraError(9002325)
    scope = parse_scope(parameters["scope"])
    target = draft.client
    if scope.resource is not None:
        found = tenant.resource(scope.resource)
        if found is None:
            raise EntraError(500011, resource=scope.resource[:200], tenant=tenant.name)
        target = found
    return LoginRequest(
        tenant, draft.client, target, draft.redirect_uri, draft.response_mode, scope, draft.parameters
    )


def redirect_target(request: LoginRequest, fields: Sequence[tuple[str, str]]) -> str:
    """The redirect URI with fields added in the way that the response mode asks for (not form_post)."""
    encoded = urllib.parse.urlencode(fields)
    if request.response_mode == "fragment":
        return f"{request.redirect_uri}#{encoded}"
    separator = "&" if "?" in request.redirect_uri else "?"
    return f"{request.redirect_uri}{separator}{encoded}"


def error_fields(request: LoginRequest, error: EntraError, description: str) -> list[tuple[str, str]]:
    """What the application is told about a refusal."""
    fields = [("error", _public_error(error)), ("error_description", description)]
    if "state" in request.parameters:
        fields.append(("state", request.parameters["state"]))
    return fields


def code_fields(request: LoginRequest, code: str, session: str) -> list[tuple[str, str]]:
    """What the application is told about a login."""
    fields = [("code", code)]
    if "state" in request.parameters:
        fields.append(("state", request.parameters["state"]))
    return [*fields, ("session_state", session)]


def _public_error(error: EntraError) -> str:
    # The token endpoint's invalid_grant has no meaning at the authorization endpoint (RFC 6749, section
    # 4.1.2.1).
    return "access_denied" if error.kind.error == "invalid_grant" else error.kind.error


def login_page(request: LoginRequest, action: str, unknown: str | None = None) -> str:
    """Choose or type a user. Shows what the target would say to each before anybody clicks.

    Args:
        action: where the form goes.
        unknown: what was typed, if there is no such user.
    """
    message = "" if unknown is None else f"There is no user {unknown[:100]!r} in {request.tenant.name}."
    directory = request.tenant.directory
    hinted = directory.find_user(request.hint) if request.hint else None
    users = list(directory.users.values())
    if hinted is not None:
        users = [hinted, *(user for user in users if user is not hinted)]
    shown = users[:MAX_USERS_SHOWN]
    hidden = [
        tag("input", type="hidden", name=name, value=value) for name, value in request.parameters.items()
    ]
    rest = len(users) - len(shown)
    typed = tag(
        "form",
        hidden,
        tag("label", "User name, NAV ident or object id", for_="username"),
        tag(
            "input",
            type="text",
            id="username",
            name="username",
            value=_first((unknown or "")[:100], hinted.username if hinted else None, request.hint),
            autocomplete="username",
            autocapitalize="none",
            spellcheck="false",
            required=True,
            aria_describedby="message" if message else None,
            aria_invalid="true" if message else None,
        ),
        tag("p", message, id="message", class_="bad", role="alert") if message else None,
        tag("p", tag("button", "Sign in", type="submit")),
        method="post",
        action=action,
        class_="card",
    )
    chosen = tag(
        "form",
        hidden,
        [_user_button(request, user) for user in shown],
        tag("p", f"{rest} more: type the name above.", class_="soft") if rest > 0 else None,
        method="post",
        action=action,
    )
    return pages.document(
        "Sign in",
        tag(
            "p",
            tag("strong", request.client.name),
            " asks you to sign in to ",
            tag("strong", request.tenant.name),
            ". There are no passwords here.",
        ),
        tag("p", "It wants a token for ", tag("strong", request.target.name), ".")
        if request.target is not request.client
        else None,
        typed,
        tag("h2", "Or choose a user") if shown else tag("p", "The directory of this tenant has no users."),
        chosen if shown else None,
        narrow=True,
    )


def _first(*values: str | None) -> str:
    return next((value for value in values if value), "")


def _user_button(request: LoginRequest, user: User) -> Html:
    decision = request.decide(user)
    groups = request.tenant.directory.groups
    names = ", ".join(groups[group].name for group in user.groups) or "no groups"
    verdict: Html
    if decision.granted:
        verdict = tag("span", f"✓ {request.target.name} admits this user", class_="good small")
    else:
        reason = next((item for item in decision.reasons if not item.passed), None)
        verdict = tag("span", f"✗ {reason.text if reason else 'refused'}", class_="bad small")
    return tag(
        "button",
        tag("strong", user.name),
        tag(
            "span", join(user.username, f" · {user.nav_ident}" if user.nav_ident else ""), class_="soft small"
        ),
        tag("br"),
        tag("span", names, class_="soft small"),
        tag("br"),
        verdict,
        type="submit",
        name="username",
        value=user.username,
        class_="user",
    )


def refusal_page(request: LoginRequest, user: User, decision: Decision) -> str:
    """The user may not. Entra ID shows a page, too, rather than sending the user back."""
    return pages.document(
        "You cannot sign in here",
        tag("p", str(decision.error), role="alert"),
        tag("section", tag("h2", "Why"), pages.checks(decision.reasons), class_="card"),
        tag("p", tag("a", "Sign in as somebody else", href=_again(request))),
        tag("p", f"Signed in as {user.username}.", class_="soft"),
        narrow=True,
    )


def _again(request: LoginRequest) -> str:
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
