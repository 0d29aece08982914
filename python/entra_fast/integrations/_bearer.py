"""Reads a request: the bearer token in `Authorization`, excluded paths, CORS preflight requests.

What belongs here: what can be said about a request before its token is verified. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

# The scheme's name has no case (RFC 9110, section 11.1).
_BEARER = re.compile(r"bearer(?![^ \t])[ \t]*", re.IGNORECASE)
_SECOND_BEARER = re.compile(r",[ \t]*bearer(?![^ \t])", re.IGNORECASE)
_SAFE_METHODS: Final = ("GET", "HEAD")


class MalformedHeader(Exception):
    """`Authorization` cannot be read. The message says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True, repr=False)
class Incoming:
    """What the decision needs of a request.

    Attributes:
        method: the HTTP method.
        path: the path as the framework's router compares it.
        authorization: the values of all `Authorization` fields.
        preflight: whether it is a CORS preflight request: see `is_preflight`.
    """

    method: str
    path: str
    authorization: Sequence[str]
    preflight: bool = False


def is_preflight(method: str, origin: str | None, requested_method: str | None) -> bool:
    """Whether a browser asks for permission to send a request. It sends no credentials (Fetch standard, 4.9).

    Args:
        origin: the value of `Origin`.
        requested_method: the value of `Access-Control-Request-Method`.
    """
    return method == "OPTIONS" and bool(origin) and bool(requested_method)


def token_of(authorization: Sequence[str]) -> str | None:
    """The bearer token (RFC 6750, section 2.1); None where there is none, or credentials of another scheme.

    Raises:
        MalformedHeader: there are two fields, or the one has no token or something after it.
    """
    if not authorization:
        return None
    if len(authorization) > 1:
        raise MalformedHeader("the request has more than one Authorization header field")
    value = authorization[0].strip(" \t")
    scheme = _BEARER.match(value)
    if scheme is None:
        # WSGI servers join two fields by a comma.
        if _SECOND_BEARER.search(value):
            raise MalformedHeader("the request has more than one Authorization header field")
        return None
    token = value[scheme.end() :]
    if not token:
        raise MalformedHeader("the Authorization header field has the scheme Bearer, but no token")
    if any(one in token for one in ", \t"):
        raise MalformedHeader("the Authorization header field has more than 'Bearer' and one token")
    return token


class Exclusions:
    """Paths that need no token, for GET and HEAD.

    Args:
        paths: `/healthz` is that path, `/static/*` is every path below `/static/`.

    Raises:
        TypeError: `paths` is no list of strings.
        ValueError: a path has another form, or would exclude everything.
    """

    __slots__ = ("_below", "_exact")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):
            raise TypeError(f"exclude is a list of paths, not {type(paths).__name__}")
        exact, below = set(), []
        for path in paths:
            if not isinstance(path, str):
                raise TypeError(f"exclude is a list of paths, not of {type(path).__name__}")
            if not path.startswith("/") or "*" in path.removesuffix("/*") or "?" in path:
                raise ValueError(
                    f"exclude: {path!r} is neither a path such as '/healthz' nor one such as '/static/*'"
                )
            if path == "/*":
                raise ValueError(
                    "exclude: '/*' would need no token anywhere; use optional=True if that is meant"
                )
            if path.endswith("/*"):
                below.append(path.removesuffix("*"))
            else:
                exact.add(path)
        self._exact, self._below = frozenset(exact), tuple(below)

    def match(self, method: str, path: str) -> bool:
        """Whether a request needs no token."""
        if method not in _SAFE_METHODS:
            return False
        if path in self._exact:
            return True
        # What a proxy, a file system or a router further in may read as another path is not below.
        return path.startswith(self._below) and not _is_ambiguous(path)


def _is_ambiguous(path: str) -> bool:
    parts = path.split("/")[1:]
    return "\\" in path or "%" in path or "" in parts[:-1] or any(part in (".", "..") for part in parts)
