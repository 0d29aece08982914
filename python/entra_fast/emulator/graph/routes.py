"""The paths of Graph's API: which resources each one answers with, and what the token needs for it.

A request becomes a response and an entry of the journal. HTTP itself belongs in web/graph.py.
"""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from entra_fast.emulator.graph import access
from entra_fast.emulator.graph.access import Access, Caller, authenticate
from entra_fast.emulator.graph.errors import GraphError, bad_request, no_segment, not_found
from entra_fast.emulator.graph.options import COUNT, MANY, ONE, Options, expired_page, parse_options
from entra_fast.emulator.graph.resources import GROUP, USER, Kind
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import Group, User
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Reason

ROOT: Final = "/v1.0"
MAX_GROUP_IDS: Final = 20
"""Graph's limit on `groupIds` of checkMemberGroups."""

_CASTS: Final = ("microsoft.graph.", "graph.")
_ACTIONS: Final = ("getmemberobjects", "getmembergroups", "checkmembergroups")


@dataclass(frozen=True, slots=True)
class Request:
    """A request without HTTP.

    Attributes:
        segments: of the path below ROOT, decoded.
        query: all parameters.
        authorization: the header of that name.
        eventual: whether the header `ConsistencyLevel: eventual` was sent.
        client_request_id: the client's own id for the request; ours if it sent none.
    """

    method: str
    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    authorization: str | None
    eventual: bool
    body: bytes
    client_request_id: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Response:
    """A response: JSON, or text where `body` is text."""

    status: int
    body: dict[str, Any] | str


def answer(local: LocalProvider, request: Request) -> Response:
    """The response to a request; the journal gets an entry with the checks that decided it."""
    call = _Call(local, request)
    try:
        response = Response(200, call.result())
    except GraphError as error:
        if not call.reasons or call.reasons[-1].passed:
            call.reasons.append(Reason("request", False, error.detail, remedy=error.remedy))
        _record(local, request, call, error)
        return refuse(local, request, error)
    _record(local, request, call, None)
    return response


def refuse(local: LocalProvider, request: Request, error: GraphError) -> Response:
    """The response to a request that is refused without being looked at."""
    return Response(error.status, error.body(local.now(), request.request_id, request.client_request_id))


def _record(local: LocalProvider, request: Request, call: _Call, error: GraphError | None) -> None:
    caller = call.caller
    person = caller.user if caller is not None else None
    local.journal.add(
        Entry(
            number=local.journal.next_number(),
            time=local.now(),
            tenant=caller.tenant.name if caller is not None else "",
            grant=graph.NAME,
            client=caller.client[:100] if caller is not None else "",
            target=f"{request.method} {ROOT}/{'/'.join(request.segments)}"[:200],
            user=person.username if person is not None else "",
            granted=error is None,
            code=None,
            message="" if error is None else f"{error.code}: {error.message}",
            reasons=tuple(call.reasons),
            correlation_id=request.client_request_id,
        )
    )


class _Call:
    """One request while it is processed."""

    def __init__(self, local: LocalProvider, request: Request) -> None:
        self._local = local
        self._request = request
        self._context = f"{local.base_url}{ROOT}/$metadata#"
        self.caller: Caller | None = None
        self.reasons: list[Reason] = []

    def result(self) -> dict[str, Any] | str:
        """The body of a successful response. Raises GraphError."""
        local, request = self._local, self._request
        self.caller = caller = authenticate(
            request.authorization, local.registry, local.base_url, local.keyring, local.now()
        )
        self.reasons.append(caller.check())
        segments = request.segments
        match tuple(segment.lower() for segment in segments):
            case ("me", *rest):
                if not caller.user_id:
                    raise GraphError(
                        400,
                        "BadRequest",
                        "/me request is only valid with delegated authentication flow.",
                        remedy="ask for a token on behalf of a user, or read /users/<id>",
                    )
                return self._about_user(caller, caller.user_id, segments, rest, own=True)
            case ("users",):
                return self._users(caller, [])
            case ("users", "$count"):
                return self._users(caller, ["$count"])
            case ("users", identifier, *rest):
                found = _find_user(caller, identifier)
                own = bool(caller.user_id) and found is not None and found.id == caller.user_id
                wanted = segments[1] if found is None else found.id
                return self._about_user(caller, wanted, segments, rest, own=own)
            case ("groups",):
                return self._groups(caller, [])
            case ("groups", "$count"):
                return self._groups(caller, ["$count"])
            case ("groups", identifier, *rest):
                return self._about_group(caller, identifier, segments, rest)
        raise no_segment(segments[0] if segments else "")

    # Users

    def _users(self, caller: Caller, tail: list[str]) -> dict[str, Any] | str:
        self._must_be("GET")
        self._need(caller, access.READ_USERS)
        return self._many(USER, caller.tenant.directory.users.values(), tail)

    def _about_user(
        self, caller: Caller, identifier: str, segments: tuple[str, ...], rest: Sequence[str], *, own: bool
    ) -> dict[str, Any] | str:
        user = caller.tenant.directory.users.get(identifier)
        if not rest:
            self._must_be("GET")
            self._need(caller, access.READ_ME if segments[0].lower() == "me" else access.READ_USERS, own=own)
            return self._one(USER, _present(user, identifier))
        first, *tail = rest
        if first in ("memberof", "transitivememberof"):
            tail, cast = self._cast(tail, GROUP, segments)
            self._must_be("GET")
            self._need(caller, access.READ_MEMBERSHIPS, own=own)
            groups = _groups_of(caller, _present(user, identifier))
            # Without a permission for groups, Graph tells no more than that they exist.
            hidden = not caller.may(access.READ_GROUPS).passed
            return self._many(GROUP, groups, tail, mixed=not cast, hidden=hidden)
        action = first
        for prefix in _CASTS:
            action = action.removeprefix(prefix)
        if action not in _ACTIONS or tail:
            raise no_segment(segments[-1])
        self._must_be("POST")
        check = action == "checkmembergroups"
        self._need(caller, access.CHECK_MEMBERSHIPS if check else access.LIST_MEMBERSHIPS, own=own)
        self._options(GROUP, ())
        return self._memberships(_present(user, identifier), check=check)

    def _memberships(self, user: User, *, check: bool) -> dict[str, Any]:
        body = self._body("groupIds" if check else "securityEnabledOnly")
        found = list(user.groups)
        if check:
            wanted = body.get("groupIds")
            if (
                not isinstance(wanted, list)
                or len(wanted) > MAX_GROUP_IDS
                or not all(isinstance(name, str) for name in wanted)
            ):
                raise bad_request(f"'groupIds' must be a list of at most {MAX_GROUP_IDS} object ids.")
            asked = {name.lower() for name in wanted}
            found = [name for name in found if name in asked]
        elif not isinstance(body.get("securityEnabledOnly", False), bool):
            raise bad_request("'securityEnabledOnly' must be true or false.")
        # Every group of the directory is a security group, and there are no directory roles.
        return {"@odata.context": f"{self._context}Collection(Edm.String)", "value": found}

    # Groups

    def _groups(self, caller: Caller, tail: list[str]) -> dict[str, Any] | str:
        self._must_be("GET")
        self._need(caller, access.READ_GROUPS)
        return self._many(GROUP, caller.tenant.directory.groups.values(), tail)

    def _about_group(
        self, caller: Caller, identifier: str, segments: tuple[str, ...], rest: Sequence[str]
    ) -> dict[str, Any] | str:
        tail: list[str] = []
        cast = False
        if rest:
            first, *tail = rest
            if first not in ("members", "transitivemembers"):
                raise no_segment(segments[2])
            tail, cast = self._cast(tail, USER, segments)
        self._must_be("GET")
        self._need(caller, access.READ_GROUPS)
        group = _present(caller.tenant.directory.groups.get(identifier), segments[1])
        if not rest:
            return self._one(GROUP, group)
        members = (user for user in caller.tenant.directory.users.values() if group.id in user.groups)
        return self._many(USER, members, tail, mixed=not cast)

    # What all paths share

    def _must_be(self, method: str) -> None:
        if self._request.method != method:
            raise GraphError(
                405,
                "Request_BadRequest",
                "Specified HTTP method is not allowed for the request target.",
                remedy=f"send a {method} request; the local Graph is read-only",
            )

    def _need(self, caller: Caller, wanted: Access, *, own: bool = False) -> None:
        reason = caller.may(wanted, own=own)
        self.reasons.append(reason)
        if not reason.passed:
            text = "Insufficient privileges to complete the operation."
            raise GraphError(403, "Authorization_RequestDenied", text)

    def _cast(self, tail: list[str], kind: Kind, segments: tuple[str, ...]) -> tuple[list[str], bool]:
        """What follows a cast such as `/microsoft.graph.group`, and whether there is one."""
        cast = bool(tail) and tail[0] in [f"{prefix}{kind.name}" for prefix in _CASTS]
        rest = tail[1:] if cast else tail
        if rest not in ([], ["$count"]):
            raise no_segment(segments[len(segments) - len(rest)])
        return rest, cast

    def _options(self, kind: Kind, allowed: Sequence[str]) -> Options:
        return parse_options(kind, self._request.query, allowed, eventual=self._request.eventual)

    def _one(self, kind: Kind, resource: User | Group) -> dict[str, Any]:
        options = self._options(kind, ONE)
        context = f"{self._context}{kind.collection}{_narrowed(options)}/$entity"
        return {"@odata.context": context, **kind.show(resource, options.selected)}

    def _many(
        self,
        kind: Kind,
        resources: Iterable[User | Group],
        tail: list[str],
        *,
        mixed: bool = False,
        hidden: bool = False,
    ) -> dict[str, Any] | str:
        """A page of resources, or their number.

        Args:
            mixed: whether the list may have several types, so that each resource states its own.
            hidden: show nothing but ids.
        """
        options = self._options(kind, COUNT if tail else MANY)
        if hidden and options.conditions:
            # Filtering would tell what is hidden.
            self._need_groups()
        found = [item for item in resources if all(condition(item) for condition in options.conditions)]
        if tail:
            if not self._request.eventual:
                raise bad_request(
                    "$count is not currently supported.", "send the header ConsistencyLevel: eventual"
                )
            return str(len(found))
        first = 0
        if options.after:
            place = next((place for place, item in enumerate(found) if item.id == options.after), None)
            if place is None:
                raise expired_page()
            first = place + 1
        page = found[first : first + options.top]
        name = "directoryObjects" if mixed else kind.collection
        body: dict[str, Any] = {"@odata.context": f"{self._context}{name}{_narrowed(options)}"}
        if options.count:
            body["@odata.count"] = len(found)
        if first + options.top < len(found):
            path = "/".join(urllib.parse.quote(segment, safe="$") for segment in self._request.segments)
            body["@odata.nextLink"] = options.next_page(f"{self._local.base_url}{ROOT}/{path}", page[-1].id)
        show = _show_id_only if hidden else kind.show
        marked = {"@odata.type": kind.type} if mixed else {}
        body["value"] = [{**marked, **show(item, options.selected)} for item in page]
        return body

    def _need_groups(self) -> None:
        if self.caller is not None:
            self._need(self.caller, access.READ_GROUPS)

    def _body(self, known: str) -> dict[str, Any]:
        if not self._request.body.strip():
            return {}
        try:
            body = orjson.loads(self._request.body)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            raise GraphError(400, "BadRequest", "Unable to read JSON request payload: expected an object.")
        if any(name != known for name in body):
            raise bad_request(f"The only parameter of this action is '{known}'.")
        return body


def _find_user(caller: Caller, identifier: str) -> User | None:
    directory = caller.tenant.directory
    return directory.users.get(identifier) or directory.usernames.get(identifier)


def _groups_of(caller: Caller, user: User) -> list[Group]:
    return [caller.tenant.directory.groups[name] for name in user.groups]


def _present(resource: Any, identifier: str) -> Any:
    if resource is None:
        raise not_found(identifier)
    return resource


def _narrowed(options: Options) -> str:
    return f"({','.join(options.selected)})" if options.narrowed else ""


def _show_id_only(resource: User | Group, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: resource.id if name == "id" else None for name in names}
