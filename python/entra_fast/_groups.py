"""The complete groups of a user whose token leaves them out ("overage"), from Microsoft Graph.

What belongs here: which Graph is asked, what it is asked, and what its answer may be. The address in the
token (`_claim_sources`) is never used: it names an older API, and a service must not send tokens to an
address that it was handed. How tokens for Graph are obtained belongs in tokens/.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import urllib.parse
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypedDict, Unpack, cast
from weakref import WeakKeyDictionary

from entra_fast import _clock
from entra_fast._net import is_loopback_host
from entra_fast._provider.expiring import ExpiringMap
from entra_fast._provider.http_options import HttpOptions
from entra_fast.errors import ConfigurationError, EntraFastError, ProviderError

PUBLIC_GRAPH: Final = "https://graph.microsoft.com"
GRAPHS: Final = {
    "login.microsoftonline.com": PUBLIC_GRAPH,
    "sts.windows.net": PUBLIC_GRAPH,
    "login.microsoftonline.us": "https://graph.microsoft.us",
    "login.partner.microsoftonline.cn": "https://microsoftgraph.chinacloudapi.cn",
    "login.chinacloudapi.cn": "https://microsoftgraph.chinacloudapi.cn",
    "sts.chinacloudapi.cn": "https://microsoftgraph.chinacloudapi.cn",
}
"""Microsoft Graph for each issuer's host (Microsoft, "National cloud deployments")."""

MAX_PAGES: Final = 20
MAX_GROUPS: Final = 50_000
MAX_AGE: Final = 300.0
LONGEST_AGE: Final = 3600.0
MAX_USERS: Final = 1000
"""Users whose groups are remembered, for each token client."""

ERROR_CODES = {
    "groups_need_user": "an application's own token belongs to no user, so there are no groups to look up",
    "graph_refused": "Microsoft Graph refused the request",
    "graph_unavailable": "Microsoft Graph could not be reached, or failed",
    "graph_response_invalid": "the response of Microsoft Graph is not a list of groups",
    "groups_too_many": "the user is in more groups than are read",
}

_GRAPH = re.compile(
    r"(?P<origin>(?P<scheme>https?)://(?:[a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?)"
    r"(?:/v1\.0)?/?",
    re.ASCII,
)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


class HasAccessToken(Protocol):
    """What token clients return."""

    @property
    def access_token(self) -> str: ...


class UserTokenSource(Protocol):
    """The tokens of a user: `TokenClient.for_user(...)`."""

    def token(self, target: str) -> HasAccessToken: ...


class AsyncUserTokenSource(Protocol):
    """The same for asyncio: `AsyncTokenClient.for_user(...)`."""

    def token(self, target: str) -> Coroutine[Any, Any, HasAccessToken]: ...


class GroupOptions(TypedDict, total=False):
    """The keyword arguments of `groups_complete`."""

    graph: str
    security_enabled_only: bool
    max_age: float
    http: HttpOptions


@dataclass(frozen=True, slots=True)
class _Question:
    """Whose groups, and where they are asked for."""

    graph: str
    user: str
    tenant: str
    security_enabled_only: bool

    @property
    def target(self) -> str:
        """The scope of the token. A Graph that is none of Microsoft's goes by the name of the public one."""
        return f"{self.graph if self.graph in GRAPHS.values() else PUBLIC_GRAPH}/.default"

    @property
    def url(self) -> str:
        return f"{self.graph}/v1.0/users/{self.user}/getMemberObjects"


@dataclass(slots=True)
class _Remembered:
    """The groups that one token client has looked up. Of each user, all ids are one text, which takes less
    memory."""

    groups: ExpiringMap[_Question, str] = field(
        default_factory=lambda: ExpiringMap(MAX_USERS, _clock.monotonic)
    )


_remembered: WeakKeyDictionary[object, _Remembered] = WeakKeyDictionary()
_lock = threading.Lock()


def groups_complete(
    claims: Mapping[str, Any],
    tokens: UserTokenSource | AsyncUserTokenSource,
    /,
    **options: Unpack[GroupOptions],
) -> Any:
    """See `Claims.groups_complete`."""
    unknown = options.keys() - GroupOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"groups_complete() got an unexpected keyword argument {min(unknown)!r}")
    if not callable(getattr(tokens, "token", None)) or not hasattr(tokens, "_subject_token"):
        raise TypeError("groups_complete() needs the tokens of the user: TokenClient.for_user(users_token)")
    if inspect.iscoroutinefunction(tokens.token):
        return _asynchronous(claims, cast("AsyncUserTokenSource", tokens), options)
    known, question, keep = _prepared(claims, tokens, options)
    if question is None:
        return known
    token = cast("UserTokenSource", tokens).token(question.target)
    return _looked_up(question, tokens, token.access_token, keep, options.get("http"))


async def _asynchronous(
    claims: Mapping[str, Any], tokens: AsyncUserTokenSource, options: GroupOptions
) -> tuple[str, ...]:
    known, question, keep = _prepared(claims, tokens, options)
    if question is None:
        return known
    token = await tokens.token(question.target)
    http = options.get("http")
    return await asyncio.to_thread(_looked_up, question, tokens, token.access_token, keep, http)


def _prepared(
    claims: Mapping[str, Any], tokens: object, options: GroupOptions
) -> tuple[tuple[str, ...], _Question | None, float]:
    """What is known already, or whom Graph has to be asked about and for how long the answer is kept."""
    keep = options.get("max_age", MAX_AGE)
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 <= keep <= LONGEST_AGE:
        text = f"max_age must be seconds, from 0 to {LONGEST_AGE:g}"
        raise ConfigurationError("setting_invalid", text, "max_age")
    named = options.get("graph")
    graph = None if named is None else _checked(named)
    if not _has_overage(claims):
        groups = claims.get("groups")
        listed = groups if isinstance(groups, list) else []
        return tuple(group for group in listed if isinstance(group, str)), None, keep
    user = claims.get("oid")
    if claims.get("idtyp") == "app" or not isinstance(user, str) or not _GUID.fullmatch(user):
        raise EntraFastError(
            "groups_need_user", "the token has no user (oid) whose groups could be looked up"
        )
    question = _Question(
        graph=graph or _graph_of(claims),
        user=user.lower(),
        tenant=str(claims.get("tid", "")),
        security_enabled_only=bool(options.get("security_enabled_only", False)),
    )
    if keep > 0:
        with _lock:
            remembered = _memory(tokens).groups.get(question)
        if remembered is not None:
            return tuple(remembered.split()), None, keep
    return (), question, keep


def _has_overage(claims: Mapping[str, Any]) -> bool:
    names = claims.get("_claim_names")
    return (isinstance(names, dict) and "groups" in names) or claims.get("hasgroups") is True


def _checked(graph: str) -> str:
    """Scheme, host and port of a Graph that the program names.

    Raises:
        ConfigurationError: it is no such address. In clear text, only host and port that the program names
            get a token, as in the authentication classes.
    """
    match = _GRAPH.fullmatch(graph.lower()) if isinstance(graph, str) else None
    if match is None or (match["scheme"] == "http" and match["port"] is None):
        text = "graph must be https://host, https://host:port or http://host:port"
        raise ConfigurationError("setting_invalid", text, "graph")
    return match["origin"]


def _graph_of(claims: Mapping[str, Any]) -> str:
    """The Graph of the token's issuer. Raises ConfigurationError where that is not known."""
    issuer = urllib.parse.urlsplit(str(claims.get("iss", "")))
    host = issuer.hostname or ""
    if host in GRAPHS:
        return GRAPHS[host]
    if host.endswith((".ciamlogin.com", ".b2clogin.com")):
        return PUBLIC_GRAPH
    if is_loopback_host(host):  # the local Entra ID, which has a Graph of its own
        return f"{issuer.scheme}://{issuer.netloc}"
    text = (
        f"graph is required: it is not known which Microsoft Graph belongs to the issuer's host {host[:200]}"
    )
    raise ConfigurationError("setting_missing", text, "graph")


def _memory(tokens: object) -> _Remembered:
    client = getattr(tokens, "_client", tokens)
    found = _remembered.get(client)
    if found is None:
        found = _remembered[client] = _Remembered()
    return found


def _looked_up(
    question: _Question, tokens: object, access_token: str, keep: float, http: HttpOptions | None
) -> tuple[str, ...]:
    groups = _fetched(question, access_token, http or HttpOptions())
    if keep > 0:
        with _lock:
            _memory(tokens).groups.put(question, " ".join(groups), _clock.monotonic() + keep)
    return groups


def _fetched(question: _Question, access_token: str, http: HttpOptions) -> tuple[str, ...]:
    from entra_fast._provider.blocking_http_client import BlockingHttpClient  # noqa: PLC0415 - few need it
    from entra_fast._provider.http_rules import HttpFailure, HttpLimits  # noqa: PLC0415 - the same

    client = BlockingHttpClient(
        HttpLimits(*http.seconds()),
        ca_bundle=http.trusted(),
        proxies=http.proxies(),
        headers={**http.headers, "Authorization": f"Bearer {access_token}"},
        allow_plain_http=question.graph.startswith("http:"),
    )
    groups: dict[str, None] = {}
    url = question.url
    for page in range(MAX_PAGES):
        try:
            if page == 0:
                body = {"securityEnabledOnly": question.security_enabled_only}
                response = client.post_json(url, body)
            else:
                response = client.get(url)
        except HttpFailure as failure:
            message = f"Microsoft Graph cannot be reached: {failure.message}"
            raise ProviderError("graph_unavailable", message, 503, "temporarily_unavailable") from None
        if response.status != 200:
            raise _refusal(response.status, response.headers.get("Retry-After"), response.body)
        ids, following = _page(response.body)
        groups.update(dict.fromkeys(ids))
        if len(groups) > MAX_GROUPS:
            break
        if following is None:
            return tuple(groups)
        if not following.startswith(f"{question.graph}/v1.0/"):
            raise _invalid("its next page is not at Microsoft Graph")
        url = following
    text = f"the user is in more groups than the {MAX_GROUPS} (on {MAX_PAGES} pages) that are read"
    raise ProviderError("groups_too_many", text)


def _page(body: bytes) -> tuple[list[str], str | None]:
    document = _json(body)
    ids, following = document.get("value"), document.get("@odata.nextLink")
    if not isinstance(ids, list) or not all(isinstance(item, str) and _GUID.fullmatch(item) for item in ids):
        raise _invalid("expected a list of object ids")
    if following is not None and not isinstance(following, str):
        raise _invalid("the address of its next page is not a text")
    return [item.lower() for item in ids], following


def _json(body: bytes) -> dict[str, Any]:
    from entra_fast._native import parse_json  # noqa: PLC0415 - it imports this module

    try:
        document = parse_json(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _invalid("expected a JSON object")
    return document


def _invalid(text: str) -> ProviderError:
    return ProviderError("graph_response_invalid", f"the response of Microsoft Graph cannot be used: {text}")


def _refusal(status: int, retry_after: str | None, body: bytes) -> ProviderError:
    """Graph's own code is told, its text is not: it may repeat what was sent."""
    try:
        error = _json(body).get("error")
        code = error.get("code") if isinstance(error, dict) else None
    except ProviderError:
        code = None
    named = f" ({code})" if isinstance(code, str) and re.fullmatch(r"[A-Za-z_]{1,100}", code) else ""
    wait = int(retry_after) if retry_after is not None and re.fullmatch(r"[0-9]{1,6}", retry_after) else None
    if status == 429 or status >= 500:
        message = f"Microsoft Graph answered {status}{named}"
        return ProviderError("graph_unavailable", message, 503, "temporarily_unavailable", wait)
    message = f"Microsoft Graph refused to list the user's groups: {status}{named}"
    if status == 403:
        message += "; the application needs the delegated permission User.Read of Microsoft Graph"
    return ProviderError("graph_refused", message)
