"""Private parts of aiohttp that this package uses: every name, and what it is for.

What belongs here: the complete list, and the check at start that this aiohttp has all of it. What must never
be here: any use of these names (protocol.py, and the sidecar's fast_path.py).
tests/unit/test_private_names.py proves that the list is complete and that no other module uses private parts
of aiohttp, uvloop or asyncio.

aiohttp promises nothing about these names, so its minor version is pinned, and servers work without them:
without those that only the fast path needs, every request takes the slow path; without any other, plain
aiohttp serves.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web
from aiohttp.web import RequestHandler, Server


@dataclass(frozen=True, slots=True)
class PrivateName:
    """A private attribute or method of a class of aiohttp.

    Attributes:
        owner: the class that has it.
        name: of the attribute.
        purpose: what it is used for here.
        fast_path_only: whether only the fast path needs it.
    """

    owner: type
    name: str
    purpose: str
    fast_path_only: bool = False


PRIVATE_NAMES = (
    PrivateName(RequestHandler, "_buffer_paused", "aiohttp itself has paused reading"),
    PrivateName(RequestHandler, "_close", "the connection closes after the responses that are owed"),
    PrivateName(RequestHandler, "_force_close", "the connection closes now"),
    PrivateName(RequestHandler, "_handle_request", "override: close after answering a half-closed client"),
    PrivateName(RequestHandler, "_keepalive_timeout", "the idle limit of a connection"),
    PrivateName(RequestHandler, "_lingering_time", "do not wait for the rest of a body that came too late"),
    PrivateName(RequestHandler, "_loop", "the event loop, for timers"),
    PrivateName(RequestHandler, "_messages", "parsed requests that wait for the handler"),
    PrivateName(RequestHandler, "_next_keepalive_close_time", "when the idle limit is reached"),
    PrivateName(RequestHandler, "_process_keepalive", "override: a request that is arriving is not idle"),
    PrivateName(RequestHandler, "_request_count", "how many requests began in the bytes that were parsed"),
    PrivateName(RequestHandler, "_request_in_progress", "whether a request is being answered"),
    PrivateName(RequestHandler, "_task_handler", "the task that answers; cancelled with its connection"),
    PrivateName(RequestHandler, "_waiter", "the future of the idle handler: then it is the fast path's turn"),
    PrivateName(
        RequestHandler, "_pause_transport_reading", "stop reading while too much waits", fast_path_only=True
    ),
    PrivateName(RequestHandler, "_paused", "the client does not read its responses", fast_path_only=True),
    PrivateName(
        RequestHandler, "_reading_paused", "aiohttp has paused reading for a handler", fast_path_only=True
    ),
    PrivateName(
        RequestHandler,
        "_resume_transport_reading",
        "override: reading resumes only when both aiohttp and the fast path want it",
        fast_path_only=True,
    ),
    PrivateName(Server, "_connections", "the open connections, for the limit on them"),
    PrivateName(Server, "_kwargs", "the arguments of each connection's handler"),
    PrivateName(Server, "_loop", "the event loop of each connection's handler"),
    PrivateName(web.AppRunner, "_make_server", "override: connections get this package's protocol"),
    PrivateName(web.Response, "_prepare_headers", "override: responses do not name the server's version"),
)

OVERRIDDEN = (
    "close",
    "connection_lost",
    "connection_made",
    "data_received",
    "eof_received",
    "force_close",
    "handle_error",
    "log_exception",
    "pause_writing",
    "resume_writing",
    "start",
)
"""Public methods of `RequestHandler` that are overridden here, or whose behaviour is relied on."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What this aiohttp lacks, by name.

    Attributes:
        for_protocol: without any of these, plain aiohttp serves.
        for_fast_path: without any of these, every request takes the slow path.
    """

    for_protocol: tuple[str, ...]
    for_fast_path: tuple[str, ...]


def missing_parts() -> Missing:
    """Check that this aiohttp has every name in the list. Must be called in a running event loop."""
    server = web.Server(_never_called)  # its attributes exist in instances only
    owners: dict[type, object] = {Server: server}
    lacking = [each for each in PRIVATE_NAMES if not _has(owners.get(each.owner, each.owner), each.name)]
    methods = [name for name in OVERRIDDEN if not hasattr(RequestHandler, name)]
    return Missing(
        for_protocol=(*(each.name for each in lacking if not each.fast_path_only), *methods),
        for_fast_path=tuple(each.name for each in lacking if each.fast_path_only),
    )


def _has(owner: object, name: str) -> bool:
    return hasattr(owner, name) or (isinstance(owner, type) and name in _slots(owner))


def _slots(owner: type) -> set[str]:
    return {name for kind in owner.__mro__ for name in getattr(kind, "__slots__", ())}


async def _never_called(_: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError  # pragma: no cover - never called
