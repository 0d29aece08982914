"""The token endpoint, without HTTP: a form in; the answer's JSON object, or an EntraError, out.

Client credentials, on behalf of (RFC 7523 as Microsoft uses it), authorization code with PKCE (RFC 7636),
refresh token. Every request ends up in the journal with the checks that it went through.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from entra_fast._native import Policy, Validator, unverified_claims
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.policy import Decision, Reason, admits_user, decide
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.emulator.protocol.aadsts import EntraError, format_time
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.client_auth import Authentication, ClientVerifier
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.store import CODE_LIFETIME, Login, Store
from entra_fast.errors import InvalidToken

CLIENT_CREDENTIALS: Final = "client_credentials"
ON_BEHALF_OF: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"
GRANT_NAMES: Final = {
    CLIENT_CREDENTIALS: "client credentials",
    ON_BEHALF_OF: "on behalf of",
    AUTHORIZATION_CODE: "authorization code",
    REFRESH_TOKEN: "refresh token",
}

OPENID_SCOPES: Final = frozenset({"openid", "profile", "email", "offline_access"})
MAX_SCOPE_LENGTH: Final = 4096
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749, section 3.3
_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636, section 4.1
MFA_CHALLENGE: Final = (
    '{"access_token":{"polids":{"essential":true,"values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}'
)


@dataclass(frozen=True, slots=True)
class Scope:
    """A parsed `scope` parameter.

    Attributes:
        openid: the OpenID Connect scopes in it.
        resource: App ID URI or client id of the one application asked for; None when there is none.
        permissions: what is asked of it; `.default` for everything granted.
    """

    openid: frozenset[str]
    resource: str | None
    permissions: tuple[str, ...]


def parse_scope(text: str) -> Scope:
    """Take a `scope` parameter apart. Raises EntraError 70011 or 28000."""
    shown = text[:200]
    if len(text) > MAX_SCOPE_LENGTH:
        raise EntraError(70011, scope=shown)
    openid: set[str] = set()
    resource: str | None = None
    permissions: list[str] = []
    for item in text.split(" "):
        if not item:
            continue
        if item in OPENID_SCOPES:
            openid.add(item)
            continue
        # "api://host//.default" names the resource "api://host/": whatever precedes the last slash.
        name, slash, permission = item.rpartition("/")
        if (
            not slash
            or not name
            or not permission
            or not _SCOPE_TOKEN.fullmatch(item)
            or name.rstrip("/").endswith(":")
        ):
            raise EntraError(70011, scope=shown)
        if resource is not None and resource != name:
            raise EntraError(28000, scope=shown)
        resource = name
        permissions.append(permission)
    if resource is None and not openid:
        raise EntraError(70011, scope=shown)
    return Scope(frozenset(openid), resource, tuple(permissions))


@dataclass(slots=True)
class _Request:
    """One request on its way, with what the journal will say about it."""

    tenant: Tenant
    form: Mapping[str, str]
    version: int
    correlation_id: str
    faults: tuple[Fault, ...] = ()
    client: Application | None = None
    target: str = ""
    user: User | None = None
    azpacr: str = "0"
    reasons: list[Reason] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)

    def passed(self, check: str, text: str) -> None:
        self.reasons.append(Reason(check, True, text))

    def required(self, name: str) -> str:
        value = self.form.get(name, "")
        if not value:
            raise EntraError(900144, parameter=name)
        return value


@dataclass(frozen=True, slots=True)
class TokenService:
    """The token endpoint of all tenants.

    Attributes:
        base_url: of the provider, without a slash at the end.
        clock: seconds since the epoch.
        stray_key: makes the key for tokens that nobody can verify (a planned fault).
    """

    base_url: str
    keyring: Keyring
    clients: ClientVerifier
    store: Store
    journal: Journal
    clock: Callable[[], float]
    stray_key: Callable[[], PrivateKey]

    def answer(
        self,
        tenant: Tenant,
        form: Mapping[str, str],
        *,
        version: int,
        correlation_id: str,
        faults: tuple[Fault, ...] = (),
    ) -> dict[str, Any]:
        """The JSON object of a successful answer.

        Args:
            version: 2 for the v2.0 endpoint, 1 for the older one, which takes `resource` and gives v1.0
                tokens.
            faults: planned ones that concern the token or the refusal.

        Raises:
            EntraError: the request is refused.
        """
        request = _Request(tenant, form, version, correlation_id, faults)
        try:
            answer = self._answer(request)
        except EntraError as error:
            if not request.reasons or request.reasons[-1].passed:
                request.reasons.append(Reason(check_of(error), False, error.text, remedy=remedy_for(error)))
            self._record(request, error)
            raise
        self._record(request, None)
        return answer

    def _answer(self, request: _Request) -> dict[str, Any]:
        grant = request.required("grant_type")
        if grant not in GRANT_NAMES:
            raise EntraError(70003, grant_type=grant[:100])
        client = self._client(request)
        for fault in request.faults:
            if fault.kind == "aadsts":
                request.reasons.append(Reason("fault", False, f"fault {fault.id} was planned"))
                raise planned_error(int(fault.value), request.form, client, request.tenant)
        if (
            grant in (AUTHORIZATION_CODE, REFRESH_TOKEN)
            and client.single_page
            and not _has_credential(request.form)
        ):
            authentication = Authentication("0", "public client: none needed")
        else:
            authentication = self.clients.authenticate(request.tenant, client, request.form)
        request.azpacr = authentication.azpacr
        request.passed("credential", authentication.text)
        match grant:
            case "client_credentials":
                return self._client_credentials(request, client)
            case "authorization_code":
                return self._code(request, client)
            case "refresh_token":
                return self._refresh(request, client)
            case _:
                return self._on_behalf_of(request, client)

    def _client(self, request: _Request) -> Application:
        client_id = request.form.get("client_id", "")
        if not client_id and request.form.get("client_assertion"):
            # RFC 7521, section 4.2: client_id is optional beside an assertion; its subject names the client.
            try:
                client_id = str(unverified_claims(request.form["client_assertion"]).get("sub", ""))
            except InvalidToken:
                client_id = ""
        if not client_id:
            raise EntraError(900144, parameter="client_id")
        client = request.tenant.application(client_id)
        if client is None:
            raise EntraError(700016, client_id=client_id[:100], tenant=request.tenant.name)
        request.client = client
        request.passed("client", f"{client.name} is registered in {request.tenant.name}")
        return client

    def _scope(self, request: _Request) -> Scope:
        if request.version == 1 and "scope" not in request.form:
            return parse_scope(f"{request.required('resource')}/.default openid")
        return parse_scope(request.required("scope"))

    def _target(self, request: _Request, resource: str) -> Application:
        request.target = resource
        target = request.tenant.resource(resource)
        if target is None:
            raise EntraError(500011, resource=resource[:200], tenant=request.tenant.name)
        request.target = target.name
        return target

    def _decide(self, request: _Request, client: Application, target: Application, scope: Scope) -> Decision:
        decision = decide(request.tenant, client, target, request.user)
        request.reasons.extend(decision.reasons)
        if decision.error is not None:
            raise decision.error
        for permission in scope.permissions:
            if request.user is not None and permission not in (".default", *decision.scopes):
                request.reasons.append(
                    Reason(
                        "scope",
                        False,
                        f"{target.name} has not granted the scope {permission!r} to {client.name}",
                        remedy=f"add it to permissions.scopes of its rule for {client.name}, or ask for "
                        f"/.default",
                    )
                )
                raise EntraError(65001, client_id=client.client_id, client=client.name)
        return decision

    def _client_credentials(self, request: _Request, client: Application) -> dict[str, Any]:
        if request.version == 1:
            scope = self._scope(request)
        else:
            text = request.required("scope")
            if len(text.split()) == 1 and not text.strip().endswith("/.default"):
                raise EntraError(1002012, scope=text[:200])
            scope = parse_scope(text)
        if scope.resource is None or scope.permissions != (".default",):
            raise EntraError(1002012, scope=request.form.get("scope", "")[:200])
        target = self._target(request, scope.resource)
        decision = self._decide(request, client, target, scope)
        return self._respond(request, client, scope, target=target, decision=decision)

    def _on_behalf_of(self, request: _Request, client: Application) -> dict[str, Any]:
        use = request.required("requested_token_use")
        if use != "on_behalf_of":
            raise EntraError(9002313, reason="'requested_token_use' must be 'on_behalf_of'")
        assertion = request.required("assertion")
        scope = self._scope(request)
        claims = self._user_assertion(request, client, assertion)
        request.user = self._user(request, str(claims.get("oid", "")))
        request.passed("assertion", f"a token of {request.user.username} for {client.name}")
        if scope.resource is None:
            raise EntraError(70011, scope=request.form.get("scope", "")[:200])
        target = self._target(request, scope.resource)
        decision = self._decide(request, client, target, scope)
        login = Login(
            request.tenant.id,
            client.client_id,
            request.user.id,
            request.form.get("scope", ""),
            str(claims.get("sid", "")),
        )
        return self._respond(request, client, scope, target=target, decision=decision, login=login)

    def _user_assertion(self, request: _Request, client: Application, assertion: str) -> Mapping[str, Any]:
        issuer = Issuer(self.base_url, request.tenant)
        now = self.clock()
        try:
            policy = Policy(issuers=[issuer.v2, issuer.v1], audiences=client.audiences, leeway=0.0)
            claims = Validator(policy, self.keyring.key_set, cache_entries=1).validate(assertion, now)
        except InvalidToken as error:
            raise self._assertion_error(error, client, assertion) from None
        if claims.get("idtyp") == "app" or "scp" not in claims:
            raise EntraError(50013, reason="The assertion is an application's own token; a user's is needed.")
        return claims

    def _assertion_error(self, error: InvalidToken, client: Application, assertion: str) -> EntraError:
        match error.code:
            case "wrong_audience":
                audience = str(unverified_claims(assertion).get("aud", ""))[:100]
                return EntraError(
                    500131,
                    audience=audience,
                    expected=client.client_id,
                    client_id=client.client_id,
                    client=client.name,
                )
            case "token_expired" | "token_not_yet_valid":
                end = unverified_claims(assertion).get("exp", 0)
                return EntraError(500133, now=format_time(self.clock()), valid_to=format_time(end))
            case "unknown_key":
                return EntraError(50013, reason="The key was not found.")
            case "signature_invalid":
                return EntraError(
                    50013, reason="Key was found, but use of the key to verify the signature failed."
                )
            case _:
                return EntraError(50013, reason=f"The {error.message}.")

    def _code(self, request: _Request, client: Application) -> dict[str, Any]:
        code = request.required("code")
        redirect_uri = request.required("redirect_uri")
        known = self.store.codes.get(code)
        if known is None:
            came_of_it = self.store.redeemed.get(code)
            if came_of_it is None:
                raise EntraError(70008)
            # Somebody else has the code: what came of it ends, too (RFC 6749, section 4.1.2).
            self.store.refresh_tokens.remove(came_of_it)
            raise EntraError(54005)
        if known.client_id != client.client_id or known.tenant_id != request.tenant.id:
            raise EntraError(70000, reason="The code was issued to another client.")
        if known.redirect_uri != redirect_uri:
            raise EntraError(
                70000, reason="The 'redirect_uri' differs from the one of the authorization request."
            )
        self._check_verifier(request, client, known)
        self.store.redeem(code)
        request.passed("code", "the authorization code is valid")
        answer = self._login_answer(request, client, known, request.form.get("scope") or known.scope)
        self.store.redeemed.put(code, answer.get("refresh_token", ""), CODE_LIFETIME)
        return answer

    def _check_verifier(self, request: _Request, client: Application, login: Login) -> None:
        verifier = request.form.get("code_verifier", "")
        if not login.challenge:
            if client.single_page:
                raise EntraError(9002325)
            if verifier:
                # RFC 9700, section 4.8.2: a verifier without challenge shows a downgrade.
                raise EntraError(501481)
            return
        if not _VERIFIER.fullmatch(verifier):
            raise EntraError(501481)
        computed = verifier
        if login.challenge_method == "S256":
            digest = hashlib.sha256(verifier.encode()).digest()
            computed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if not hmac.compare_digest(computed, login.challenge):
            raise EntraError(501481)

    def _refresh(self, request: _Request, client: Application) -> dict[str, Any]:
        login = self.store.refresh_tokens.get(request.required("refresh_token"))
        if login is None:
            raise EntraError(70008)
        if login.client_id != client.client_id or login.tenant_id != request.tenant.id:
            raise EntraError(70000, reason="The refresh token was issued to another client.")
        request.passed("refresh token", "the refresh token is valid")
        text = request.form.get("scope") or login.scope
        return self._login_answer(request, client, replace(login, nonce=""), text)

    def _login_answer(
        self,
        request: _Request,
        client: Application,
        login: Login,
        scope_text: str,
    ) -> dict[str, Any]:
        scope = parse_scope(scope_text)
        granted = parse_scope(login.scope)
        # What was agreed to at the login page holds, whatever is repeated here (MSAL leaves some out).
        scope = replace(scope, openid=scope.openid | granted.openid)
        resource = scope.resource or granted.resource
        request.user = self._user(request, login.user_id)
        # Who may no longer log in to the client does not get fresh tokens from it either.
        admission = admits_user(request.tenant, client, request.user)
        request.reasons.append(admission)
        if not admission.passed:
            raise EntraError(50105, target=client.name, target_id=client.client_id)
        if resource is None:
            return self._respond(request, client, scope, login=login)
        target = self._target(request, resource)
        decision = self._decide(request, client, target, replace(scope, resource=resource))
        return self._respond(request, client, scope, target=target, decision=decision, login=login)

    def _user(self, request: _Request, user_id: str) -> User:
        user = request.tenant.directory.users.get(user_id)
        if user is None:
            raise EntraError(50034, tenant=request.tenant.name)
        return user

    def _respond(
        self,
        request: _Request,
        client: Application,
        scope: Scope,
        *,
        target: Application | None = None,
        decision: Decision | None = None,
        login: Login | None = None,
    ) -> dict[str, Any]:
        issuer = Issuer(self.base_url, request.tenant)
        now = int(self.clock())
        lifetime = token_claims.random_lifetime()
        user = request.user
        if target is None or decision is None:
            if user is None:
                raise EntraError(70011, scope=request.form.get("scope", "")[:200])
            request.target = "userinfo"
            request.claims = token_claims.graph_token(
                issuer, client, user, azpacr=request.azpacr, now=now, lifetime=lifetime
            )
        else:
            version = 1 if request.version == 1 else target.token_version
            request.claims = token_claims.access_token(
                issuer,
                client,
                target,
                user,
                decision,
                azpacr=request.azpacr,
                now=now,
                lifetime=lifetime,
                version=version,
                audience=scope.resource,
                session=login.session if login is not None else "",
            )
        answer: dict[str, Any] = {
            "token_type": "Bearer",
            "expires_in": lifetime - 1,
            "ext_expires_in": lifetime - 1,
            "access_token": self._signed(request),
        }
        if request.version == 1:
            # The older endpoint writes numbers as strings.
            times = {"expires_in": lifetime - 1, "ext_expires_in": lifetime - 1}
            times |= {"expires_on": now + lifetime, "not_before": now - token_claims.BACKDATING}
            answer |= {name: str(value) for name, value in times.items()} | {"resource": scope.resource}
        if user is None or login is None:
            return answer
        if target is not None and decision is not None:
            # Entra repeats `.default` among what it has granted; MSAL would not find the token in its cache
            # otherwise.
            granted = (*decision.scopes, *([".default"] if ".default" in scope.permissions else []))
            prefix = scope.resource or target.identifier_uris[0]
            answer["scope"] = " ".join(f"{prefix}/{name}" for name in granted)
        else:
            answer["scope"] = "openid profile email"
        if "openid" in scope.openid:
            claims = token_claims.id_token(
                issuer, client, user, nonce=login.nonce, session=login.session, now=now, lifetime=lifetime
            )
            answer["id_token"] = token_claims.sign(self.keyring.active, claims)
        if "offline_access" in scope.openid:
            answer["refresh_token"] = self.store.new_refresh_token(replace(login, nonce=""))
            answer["refresh_token_expires_in"] = 86399
        if request.form.get("client_info") == "1":
            answer["client_info"] = token_claims.client_info(request.tenant, user)
        return answer

    def _signed(self, request: _Request) -> str:
        key, claims = self.keyring.active, request.claims
        for fault in request.faults:
            match fault.kind:
                case "expired_token":
                    claims |= {name: claims[name] - 9000 for name in ("iat", "nbf", "exp")}
                case "wrong_audience":
                    claims["aud"] = "ffffffff-ffff-4fff-bfff-ffffffffffff"
                case "wrong_issuer":
                    claims["iss"] = "https://issuer.invalid/v2.0"
                case "unknown_key":
                    key = self.stray_key()
        token = token_claims.sign(key, claims)
        if any(fault.kind == "wrong_signature" for fault in request.faults):
            # The middle of the signature: its last character has bits that do not count.
            place = token.rindex(".") + 40
            token = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        return token

    def _record(self, request: _Request, error: EntraError | None) -> None:
        grant = request.form.get("grant_type", "")
        client = (
            request.client.name if request.client is not None else request.form.get("client_id", "")[:100]
        )
        self.journal.add(
            Entry(
                number=self.journal.next_number(),
                time=self.clock(),
                tenant=request.tenant.name,
                grant=GRANT_NAMES.get(grant, "unknown grant"),
                client=client,
                target=request.target[:200],
                user=request.user.username if request.user is not None else "",
                granted=error is None,
                code=None if error is None else error.code,
                message="" if error is None else error.text,
                reasons=tuple(request.reasons),
                correlation_id=request.correlation_id,
                claims={} if error is not None else request.claims,
            )
        )


def planned_error(
    code: int, form: Mapping[str, str], client: Application | None, tenant: Tenant
) -> EntraError:
    """The error of a planned fault, with whatever the request says filled in."""
    values: dict[str, object] = dict.fromkeys(
        [
            "reason",
            "now",
            "valid_from",
            "valid_to",
            "token_endpoint",
            "issuer",
            "subject",
            "parameter",
            "method",
            "grant_type",
            "scope",
            "resource",
            "target",
            "target_id",
            "audience",
            "expected",
            "redirect_uri",
            "response_type",
            "client_id",
            "client",
            "tenant",
        ],
        "(planned fault)",
    )
    values["tenant"] = tenant.name
    if client is not None:
        values |= {"client_id": client.client_id, "client": client.name}
    values["scope"] = values["resource"] = form.get("scope", "(planned fault)")[:200]
    challenge = MFA_CHALLENGE if code == 50076 else None
    return EntraError(code, claims=challenge, values=values)


def _has_credential(form: Mapping[str, str]) -> bool:
    return bool(form.get("client_secret") or form.get("client_assertion"))


def check_of(error: EntraError) -> str:
    """The name of the check that an error comes from."""
    match error.code:
        case 7000215 | 7000218 | 700027 | 700024 | 700021 | 700023 | 700213:
            return "credential"
        case 700016:
            return "client"
        case 70011 | 1002012 | 28000:
            return "scope"
        case 500011:
            return "target"
        case 50013 | 500133 | 500131 | 50034:
            return "assertion"
        case 54005 | 70008 | 70000 | 501481 | 9002325:
            return "code"
        case _:
            return "request"


def remedy_for(error: EntraError) -> str:
    """What to do about a refusal that no manifest can change; empty where nothing helps."""
    return _REMEDIES.get(error.code, "")


_REMEDIES: Final = {
    90002: "use the tenant's GUID or domain name as the page of tenants shows them",
    700016: "use the client id that the environment of the application says "
    "(AZURE_APP_CLIENT_ID); the application "
    "needs a manifest with azure.application.enabled: true",
    7000215: "use AZURE_APP_CLIENT_SECRET of the application's environment; without --state it "
    "changes at every start",
    7000218: "send client_secret, or client_assertion with client_assertion_type",
    700027: "sign with AZURE_APP_JWK of the application's environment, name its kid in the "
    "header, and make a new "
    "assertion for each request",
    700024: "sign the assertion anew for each request with a short life; compare the clocks",
    700021: "set iss and sub of the assertion to the client id",
    700023: "set aud of the assertion to the token endpoint or the issuer",
    700213: "use the federated token of this very application",
    70011: "send scope=api://<cluster>.<namespace>.<application>/.default",
    1002012: "end the scope in /.default",
    28000: "ask for one application at a time",
    500011: "check the spelling of the target; it needs a manifest with "
    "azure.application.enabled: true in this tenant",
    50013: "send an access token that this provider has issued, to a user, for the calling application",
    500133: "get a new token for the user",
    500131: "send the token that was issued for the calling application, not one for the target "
    "or for somebody else",
    54005: "start a new login; a code works once",
    70008: "start a new login",
    501481: "send the code_verifier that belongs to the code_challenge",
}
