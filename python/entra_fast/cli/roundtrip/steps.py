"""The six round trips: what each asks for, and when it has succeeded.

What belongs here: requests and how their responses are judged. What must never be here: options, printing,
and where user tokens come from.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from entra_fast.cli.json_client import AnswerError, Server
from entra_fast.cli.sidecar_client import EXCHANGE, INTROSPECTION, TOKEN, Endpoint

SYSTEM_USER: Sequence[Mapping[str, object]] = (
    {
        "type": "urn:altinn:systemuser",
        "systemuser_org": {"authority": "iso6523-actorid-upis", "ID": "0192:310000019"},
    },
)
"""`authorization_details` of Altinn's system users, for a synthetic organization."""
TOKENS = ("user_token", "token")
"""Fields that are never shown unless asked for."""
HIDDEN = "(not shown)"


class Outcome(enum.Enum):
    """How a round trip ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to ask for. A step without its input is skipped.

    Attributes:
        entra_id_target: of the two round trips at Entra ID.
        entra_id_user: a user's token for the application that the sidecar belongs to.
        idporten_user: the token of a user who has signed in at ID-porten.
        maskinporten_scope: that the application may have.
        authorization_details: as Maskinporten expects them.
        tokenx_target: `<cluster>:<namespace>:<app>`.
    """

    entra_id_target: str | None = None
    entra_id_user: str | None = None
    idporten_user: str | None = None
    maskinporten_scope: str | None = None
    authorization_details: Sequence[Mapping[str, object]] = SYSTEM_USER
    tokenx_target: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was answered.

    Attributes:
        fields: without tokens, unless they are wanted.
        seconds: until the response was there.
    """

    path: str
    fields: Mapping[str, object]
    seconds: float


@dataclass(slots=True)
class Result:
    """What came of a round trip.

    Attributes:
        reason: why it failed or was skipped, or what is special about its success.
        claims: of the last token.
        verified: whether the sidecar says that these claims are those of a valid token for its application.
        token: the last token, if tokens are wanted.
    """

    name: str
    title: str
    outcome: Outcome = Outcome.OK
    reason: str | None = None
    requests: list[Request] = field(default_factory=list)
    claims: Mapping[str, Any] = field(default_factory=dict)
    verified: bool = False
    token: str | None = None

    @property
    def seconds(self) -> float:
        """For all requests together."""
        return sum(request.seconds for request in self.requests)


class _Ended(Exception):
    """A round trip cannot go on."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Trip:
    """One round trip in progress.

    Args:
        url: of the sidecar, without a path.
        result: what has come of it so far.
        skip_cache: whether new tokens are fetched.
        show_tokens: whether the result has tokens.
    """

    def __init__(
        self, server: Server, url: str, result: Result, *, skip_cache: bool, show_tokens: bool
    ) -> None:
        self._server = server
        self._url = url
        self._result = result
        self._skip_cache = skip_cache
        self._show_tokens = show_tokens

    def need_enabled(self, provider: str) -> None:
        """End the round trip if the sidecar says that a provider is not enabled."""
        try:
            answer = self._server.post(
                self._url + INTROSPECTION.path, {"identity_provider": provider, "token": "none"}
            )
        except AnswerError as error:
            answer = {"error": str(error)}
        sentence = str(answer.get("error", ""))
        if _outcome_of(sentence) is Outcome.SKIPPED:
            raise _Ended(Outcome.SKIPPED, sentence)

    def acquire(self, endpoint: Endpoint, provider: str, **fields: object) -> str:
        """Ask for a token."""
        if self._skip_cache:
            fields["skip_cache"] = True
        answer = self._ask(endpoint, {"identity_provider": provider, **fields})
        token = answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise _Ended(Outcome.FAILED, "the response has no 'access_token'")
        if self._show_tokens:
            self._result.token = token
        return token

    def introspect(self, provider: str, token: str, *, of_another: bool = False) -> Mapping[str, Any]:
        """The claims of a token that must be valid.

        Args:
            of_another: whether it may be one for another application. Then everything else must be right,
                and its claims are returned as it has them.
        """
        answer = self._ask(INTROSPECTION, {"identity_provider": provider, "token": token})
        error = str(answer.get("error", ""))
        claims: Mapping[str, Any]
        if answer.get("active") is True:
            claims = {name: value for name, value in answer.items() if name != "active"}
            self._result.verified = True
        elif of_another and "audience" in error.lower():
            claims = _claims_of(token)
            self._result.reason = "the token is for another application, as its introspection says"
        else:
            raise _Ended(_outcome_of(error), error or "the token is not active")
        self._result.claims = claims
        return claims

    def _ask(self, endpoint: Endpoint, fields: Mapping[str, object]) -> dict[str, Any]:
        hidden = () if self._show_tokens else TOKENS
        shown = {name: HIDDEN if name in hidden else value for name, value in fields.items()}
        before = time.perf_counter()
        try:
            return self._server.post(self._url + endpoint.path, fields)
        except AnswerError as error:
            raise _Ended(_outcome_of(str(error)), str(error)) from None
        finally:
            seconds = time.perf_counter() - before
            self._result.requests.append(Request(endpoint.path, shown, seconds))


def _outcome_of(sentence: str) -> Outcome:
    """A provider that is not enabled is no failure."""
    return Outcome.SKIPPED if "not enabled" in sentence else Outcome.FAILED


def _claims_of(token: str) -> Mapping[str, Any]:
    from entra_fast import _native  # noqa: PLC0415 - loaded when it is used
    from entra_fast.errors import InvalidToken  # noqa: PLC0415

    try:
        return dict(_native.unverified_claims(token))
    except InvalidToken:
        return {}


def _need(value: str | None, what: str) -> str:
    if value is None:
        raise _Ended(Outcome.SKIPPED, f"no {what}")
    return value


def _entra_id(trip: Trip, given: Inputs) -> None:
    target = _need(given.entra_id_target, "target: pass --entra-id-target")
    token = trip.acquire(TOKEN, "entra_id", target=target)
    trip.introspect("entra_id", token, of_another=True)


def _on_behalf_of(trip: Trip, given: Inputs) -> None:
    target = _need(given.entra_id_target, "target: pass --entra-id-target")
    user = _need(given.entra_id_user, "user token: pass --entra-id-user, or set ENTRA_ID_USER_TOKEN")
    token = trip.acquire(EXCHANGE, "entra_id", target=target, user_token=user)
    trip.introspect("entra_id", token, of_another=True)


def _idporten(trip: Trip, given: Inputs) -> None:
    user = _need(given.idporten_user, "user token: pass --idporten-user, or set IDPORTEN_USER_TOKEN")
    trip.introspect("idporten", user)


def _maskinporten(trip: Trip, given: Inputs, **fields: object) -> Mapping[str, Any]:
    scope = _need(given.maskinporten_scope, "scope: pass --maskinporten-scope, or set MASKINPORTEN_SCOPES")
    claims = trip.introspect("maskinporten", trip.acquire(TOKEN, "maskinporten", target=scope, **fields))
    granted = str(claims.get("scope", "")).split()
    if missing := [each for each in scope.split() if each not in granted]:
        raise _Ended(Outcome.FAILED, f"the token lacks the scope {' '.join(missing)}")
    return claims


def _authorization_details(trip: Trip, given: Inputs) -> None:
    asked = list(given.authorization_details)
    claims = _maskinporten(trip, given, authorization_details=asked)
    details = claims.get("authorization_details")
    granted = (
        [each.get("type") for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    )
    if missing := [str(each.get("type")) for each in asked if each.get("type") not in granted]:
        raise _Ended(Outcome.FAILED, f"the token has no authorization_details of type {', '.join(missing)}")


def _tokenx(trip: Trip, given: Inputs) -> None:
    target = _need(given.tokenx_target, "target: pass --tokenx-target")
    user = _need(given.idporten_user, "user token: pass --idporten-user, or set IDPORTEN_USER_TOKEN")
    token = trip.acquire(EXCHANGE, "tokenx", target=target, user_token=user)
    claims = trip.introspect("tokenx", token, of_another=True)
    if claims.get("aud") not in (target, [target]):
        raise _Ended(Outcome.FAILED, "the token is not for the target")


@dataclass(frozen=True, slots=True)
class Step:
    """One of the round trips."""

    name: str
    title: str
    provider: str
    act: Callable[[Trip, Inputs], object]


STEPS: Sequence[Step] = (
    Step("entra-id", "Entra ID: client credentials", "entra_id", _entra_id),
    Step("entra-id-obo", "Entra ID: on behalf of a user", "entra_id", _on_behalf_of),
    Step("idporten", "ID-porten: introspection", "idporten", _idporten),
    Step("maskinporten", "Maskinporten", "maskinporten", _maskinporten),
    Step(
        "maskinporten-details",
        "Maskinporten with authorization_details",
        "maskinporten",
        _authorization_details,
    ),
    Step("tokenx", "TokenX: token exchange", "tokenx", _tokenx),
)


def run(
    step: Step,
    server: Server,
    url: str,
    given: Inputs,
    *,
    skip_cache: bool = False,
    show_tokens: bool = False,
) -> Result:
    """Make one round trip.

    Raises:
        CommandError: the sidecar cannot be reached.
    """
    result = Result(step.name, step.title)
    trip = Trip(server, url, result, skip_cache=skip_cache, show_tokens=show_tokens)
    try:
        trip.need_enabled(step.provider)
        step.act(trip, given)
    except _Ended as ended:
        result.outcome, result.reason = ended.outcome, ended.reason
    return result
