"""What `entra-fast dev` prints of failures: once each, in order, bounded, and safe for a terminal."""

from __future__ import annotations

import dataclasses

from entra_fast.cli.dev_failures import MAX_LINES, Failures
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.protocol.policy import Reason

URL = "http://127.0.0.1:8080"


def add(journal: Journal, code: int | None, **changes: str) -> None:
    """An entry of the journal; without a code of a refusal, it was granted or it is a planned fault."""
    names = {"grant": "client credentials", "client": "a", "target": "b", "user": "", **changes}
    journal.add(
        Entry(
            number=journal.next_number(),
            time=0.0,
            tenant="t",
            granted=code is None and names["grant"] != "planned fault",
            code=code,
            message="",
            reasons=(),
            correlation_id="",
            grant=names["grant"],
            client=names["client"],
            target=names["target"],
            user=names["user"],
        )
    )


def test_each_failure_is_one_line_once() -> None:
    """Refusals oldest first with code and address, granted requests not at all."""
    journal = Journal()
    failures = Failures(URL, journal, {})
    add(journal, 501051)
    add(journal, None)
    add(journal, 50105, grant="login", user="ola@nav.no")
    add(journal, None, grant="planned fault", target="")
    assert list(failures.lines()) == [
        f"refused: AADSTS501051: client credentials: a -> b ({URL}/log/1)",
        f"refused: AADSTS50105: login: a -> b, ola@nav.no ({URL}/log/3)",
        f"refused: planned fault: a ({URL}/log/4)",
    ]
    assert list(failures.lines()) == []
    add(journal, 700016, client="", target="")
    assert list(failures.lines()) == [
        f"refused: AADSTS700016: client credentials: unknown application ({URL}/log/5)"
    ]


def test_refusals_of_other_providers_say_what_to_change() -> None:
    """They have no codes to look up: the provider, the check that failed, the rule to add and where."""
    journal = Journal()
    passed = Reason("client", True, "a is registered in TokenX", "a.yaml:6")
    missing = Reason("rule", False, "client 'a' is not authorized", "b.yaml:14", "add the rule")
    unreadable = Reason("request", False, "Parameter audience missing")
    for provider, grant, target, reasons in (
        ("tokenx", "token exchange", "b", (passed, missing)),
        ("tokenx", "token exchange", "", (unreadable,)),
        ("maskinporten", "planned fault", "", ()),
        ("idporten", "ID-porten login", "", (unreadable,)),
    ):
        add(journal, None, grant="planned fault", target=target)
        (entry,) = journal.entries()[:1]
        journal.clear()
        journal.add(dataclasses.replace(entry, provider=provider, grant=grant, reasons=reasons))
        failures = Failures(URL, journal, {})
        (line,) = failures.lines()
        said, _, _ = line.removeprefix("refused: ").partition(f" ({URL}/log/")
        assert said == SAID[provider, target]


SAID = {
    (
        "tokenx",
        "b",
    ): "TokenX: token exchange: a -> b: client 'a' is not authorized; add the rule at b.yaml:14",
    ("tokenx", ""): "TokenX: token exchange: a: Parameter audience missing",
    ("maskinporten", ""): "Maskinporten: planned fault: a",
    ("idporten", ""): "ID-porten login: a: Parameter audience missing",
}


def test_many_refusals_are_counted() -> None:
    """The latest ones have a line each, the others one line together."""
    journal = Journal()
    failures = Failures(URL, journal, {})
    for _ in range(MAX_LINES + 5):
        add(journal, 501051)
    lines = list(failures.lines())
    assert lines[0] == f"refused: 5 more requests: {URL}/log?outcome=refused"
    assert len(lines) == MAX_LINES + 1
    assert lines[-1].endswith(f"/log/{MAX_LINES + 5})")


def test_names_cannot_write_to_the_terminal() -> None:
    """What was sent in place of a name is escaped."""
    journal = Journal()
    add(journal, 700016, client="\x1b[2J\nnew line")
    (line,) = Failures(URL, journal, {}).lines()
    assert "\\x1b[2J\\nnew line" in line


def test_rejected_tokens_are_counted_by_code() -> None:
    """Only what is new since the last time."""
    counts = {"token_expired": 1.0}
    failures = Failures(URL, Journal(), {"app": lambda: counts})
    assert list(failures.lines()) == ["rejected: token_expired: a token at the sidecar of app"]
    assert list(failures.lines()) == []
    counts.update(token_expired=4.0, not_a_jwt=1.0)
    assert list(failures.lines()) == [
        "rejected: token_expired: a token at the sidecar of app (3 times)",
        "rejected: not_a_jwt: a token at the sidecar of app",
    ]
