"""The expected answers. What belongs here: what the provider issued, what each sidecar has handed out, when
an error is excused, and the check of every answer. What must never be here: sending anything."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from benches.chaos.plan import AFTERMATH
from benches.chaos.report import PartReport
from support.provider import Provider
from support.wire import Answer

TARGETS = [f"api://dev.team.app{i}/.default" for i in range(20)]
LIVES = (5, 8, 12, 20)
"""Seconds that tokens live: always the same for a target, so that a newer one never ends before an older one.
Short, so that as many come as go before memory is measured."""
SPENT = 3.0
"""Seconds before its end at which a token need not be handed out any more: answers count in whole seconds,
and its life is counted from when it was asked for, up to a second (the deadline) before it was issued."""

Key = tuple[str, str | None]
"""Scope and user's token: what makes two requests the same request."""


@dataclass(frozen=True, slots=True)
class Issued:
    """The truth about a token that the provider issued; `number`: how many it had issued then."""

    number: int
    scope: str
    assertion: str | None
    expires_at: float
    cacheable: bool = True


@dataclass(slots=True)
class Known:
    """What a sidecar must know, because it has shown that it does.

    Attributes:
        fetches_keys: whether an unknown key makes it fetch; not in the cool-down after a failure.
        handed_out: the end of the last token that was handed out and may be cached.
        floors: the number of a token that was got with `skip_cache`: no older one may follow.
    """

    has_keys: bool = False
    fetches_keys: bool = True
    handed_out: dict[Key, float] = field(default_factory=dict)
    floors: dict[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a token, as it was sent.

    Attributes:
        began: when, by the monotonic clock. floor: of `Known.floors`, at that time. issued: how many tokens
            there were then.
        user: the user's token and its end.
    """

    scope: str
    user: tuple[str, float] | None
    skip_cache: bool
    began: float
    floor: int
    issued: int

    @property
    def key(self) -> Key:
        return (self.scope, self.user[0] if self.user else None)


class Truth:
    """Judges. What is wrong ends up in the report.

    Args:
        one_asks: whether only one process asks the provider. Where two do, they may ask for the same token at
            the same moment, and the checker cannot tell which answer is newer: one that was issued after a
            request with `skip_cache` was sent is new enough for it.
    """

    def __init__(self, report: PartReport, *, one_asks: bool = True) -> None:
        self.report = report
        self._one_asks = one_asks
        self.issued: dict[str, Issued] = {}
        self._started = time.monotonic()
        self._excuses = 0
        self._excused_until = 0.0

    # --- what happened ---

    def issue(self, token: str, scope: str, assertion: str | None, expires_at: float) -> None:
        self.issued[token] = Issued(len(self.issued) + 1, scope, assertion, expires_at)

    def must_not_be_cached(self, token: str) -> None:
        self.issued[token] = replace(self.issued[token], cacheable=False)

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Something is going on that explains errors."""
        self._excuses += 1
        try:
            yield
        finally:
            self._excuses -= 1
            self._excused_until = time.monotonic() + AFTERMATH

    def wrong(self, what: str) -> None:
        self.report.wrong_answers += 1
        self.example(what)

    def example(self, what: str) -> None:
        if len(self.report.examples) < 20:
            self.report.examples.append(f"{time.monotonic() - self._started:.2f} s: {what}"[:3000])

    # --- judgement ---

    def judge_introspection(self, known: Known, truth: str, answer: Answer) -> None:
        """`truth`: why the token is not valid; empty if it is."""
        if answer.status != 200:
            self.wrong(f"introspection answered {answer.status}")
            return
        if not isinstance(answer.json.get("active"), bool):
            self.wrong(f"introspection answered without `active`: {answer}")
            return
        active, error = answer.json["active"], answer.json.get("error")
        if error is not None and error.startswith("keys of the token issuer are not available"):
            if known.has_keys:
                self._false_rejection(error)
            return
        known.has_keys = known.has_keys or active
        if truth == "" and not active:
            self._false_rejection(error)
        elif truth and (active or not _same_reason(truth, error)):
            self.wrong(f"introspection of a token for which '{truth}': {answer.json}")

    def judge_token(self, known: Known, asked: Asked, answer: Answer) -> None:
        now = time.time()
        if answer.status == 200:
            self._judge_handed_out(known, asked, answer, now)
            return
        user = asked.user
        refused = answer.status == 400 and answer.json["error"] == "invalid_grant"
        if user and user[1] <= now + 0.05 and refused:
            return
        if not (self._excuses or self._excused_until > asked.began):
            self.wrong(f"an error without a cause: {answer.status} {answer.json}")
        until = known.handed_out.get(asked.key, 0.0)
        if until > now + SPENT and (user is None or user[1] > now + SPENT):
            self.wrong(f"an error although a token is valid for {until - now:.1f} s: {answer.json}")

    def _judge_handed_out(self, known: Known, asked: Asked, answer: Answer, now: float) -> None:
        user, key = asked.user, asked.key
        token = self.issued.get(answer.json["access_token"])
        if token is None or (token.scope, token.assertion) != key:
            self.wrong("a token that was not issued for this")
            return
        sent = now - (time.monotonic() - asked.began)
        if token.expires_at <= sent or (user and user[1] <= sent):
            self.report.expired_tokens += 1
            self.example(f"expired: token {token.expires_at - now:.2f}, user {user and user[1] - now}")
        if answer.json["expires_in"] > token.expires_at - sent + 1:
            self.wrong("expires_in is more than the token has left")
        if asked.floor:
            self.report.checked_after_skip_cache += 1
            if token.number < asked.floor:
                self.wrong(f"token {token.number} of {asked.scope}, but {asked.floor} replaced it before")
        if token.cacheable:
            known.handed_out[key] = max(token.expires_at, known.handed_out.get(key, 0.0))
            if asked.skip_cache:
                oldest = token.number if self._one_asks else min(token.number, asked.issued + 1)
                known.floors[key] = max(oldest, known.floors.get(key, 0))

    def _false_rejection(self, error: str) -> None:
        self.report.false_rejections += 1
        self.example(f"false rejection: {error}")


def _same_reason(truth: str, error: str) -> bool:
    return error == truth or (truth == "token is not a JWT" and error.startswith(truth))


class KnownProvider(Provider):
    """A provider that tells the truth what it issues."""

    truth: Truth

    def grant(self, form: dict[str, str]) -> dict[str, Any]:
        self.lifetime = LIVES[TARGETS.index(form["scope"]) % len(LIVES)]
        document = super().grant(form)
        expires_at = time.time() + self.lifetime
        self.truth.issue(document["access_token"], form["scope"], form.get("assertion"), expires_at)
        return document
