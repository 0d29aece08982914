"""What a token says, whether its signature is this provider's, and what each application would say about it.

The checks are those of the library: an application gets the answer of a validator that trusts this provider
and accepts its own audience only. The token is neither kept nor logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from entra_fast._native import Policy, Validator, unverified_claims, unverified_header
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.registry import Registry
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring

Checks = Sequence[Mapping[str, Any]]

MAX_ANSWERS: Final = 30

_PREFIX: Final = re.compile(r"(authorization:\s*)?(bearer\s+)?", re.IGNORECASE)
_SIGNATURE_CHECKS: Final = ("form", "header", "key", "signature")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a check failed. `expected` and `actual` are empty where there is nothing to compare."""

    code: str
    message: str
    expected: str = ""
    actual: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application, or Microsoft Graph, would say; without `problems`, it would accept the token."""

    application: str
    problems: tuple[Problem, ...]

    @property
    def accepted(self) -> bool:
        """Whether the application would accept the token."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Inspection:
    """A token, taken apart.

    Attributes:
        unverified_header, unverified_claims: what it says; trust it only if the signature is valid.
        signature: why the signature is not valid; None if a key of this provider made it.
        answers: of the applications; those that accept it first, then those with the fewest problems.
        more: number of applications beyond MAX_ANSWERS.
        accepted: number of applications that would accept it.
    """

    unverified_header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]
    signature: Problem | None
    answers: tuple[Answer, ...]
    more: int
    accepted: int


def token_in(text: str) -> str:
    """The token in what people paste: without quotes, line breaks, `Authorization:` and `Bearer`."""
    return "".join(_PREFIX.sub("", text.strip().strip("'\"")).split())


def inspect(token: str, registry: Registry, base_url: str, keyring: Keyring, now: float) -> Inspection:
    """Take a token apart.

    Args:
        now: seconds since the epoch.

    Raises:
        InvalidToken: it is no token that can be read.
    """
    header, claims = unverified_header(token), unverified_claims(token)
    checks: Checks = ()
    answers: list[Answer] = []
    for name, issuer, audiences in _audiences(registry, base_url):
        policy = Policy(issuers=[issuer], audiences=audiences, algorithms=keyring.algorithms)
        checks = Validator(policy, keyring.key_set, cache_entries=1).explain(token, now)
        answers.append(Answer(name, tuple(map(_problem, filter(_failed, checks)))))
    answers.sort(key=lambda answer: len(answer.problems))
    return Inspection(
        header,
        claims,
        _problem_of_signature(checks),
        tuple(answers[:MAX_ANSWERS]),
        max(0, len(answers) - MAX_ANSWERS),
        sum(answer.accepted for answer in answers),
    )


def _audiences(registry: Registry, base_url: str) -> Iterable[tuple[str, str, Iterable[str]]]:
    """Name, issuer and audiences of everything that tokens of this provider can be for."""
    for tenant in registry.tenants:
        issuer = Issuer(base_url, tenant)
        for application in tenant.applications.values():
            if application.token_version == 2:
                yield application.name, issuer.v2, [application.client_id]
            else:  # a v1.0 token names its audience by what was asked for
                yield application.name, issuer.v1, application.audiences
        yield f"{graph.NAME} ({tenant.name})", issuer.v1, graph.audiences(base_url)


def _failed(check: Mapping[str, Any]) -> bool:
    return check["passed"] is False


def _problem_of_signature(checks: Checks) -> Problem | None:
    """The first check up to the signature that failed; they do not depend on the application."""
    failed = (c for c in checks if c["check"] in _SIGNATURE_CHECKS and c["passed"] is not True)
    first = next(failed, None)
    return None if first is None else _problem(first)


def _problem(check: Mapping[str, Any]) -> Problem:
    return Problem(
        str(check["code"] or check["check"]),
        str(check["message"] or f"the check of the {check['check']} could not be made"),
        str(check["expected"] or ""),
        str(check["actual"] or ""),
    )
