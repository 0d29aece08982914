"""The chaos run, small: that it finds nothing in a sidecar that is right, and that it finds what is wrong."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET

import pytest

from benches.chaos import Chaos, Issued, Report, picture, slope
from support.wire import Answer

SCOPE = "api://dev.team.app0/.default"


async def test_a_short_run_finds_nothing() -> None:
    """Some seconds of faults and a restart under load. `make chaos` runs longer."""
    report = await Chaos(seed=7, seconds=5, clients=4).run()
    assert report.requests > 100
    assert report.faults
    assert report.good, report.examples
    assert ET.fromstring(picture(report)).tag.endswith("svg")
    assert json.loads(json.dumps(report.as_json()))["seed"] == 7


@pytest.fixture
def checker() -> Chaos:
    """A checker that knows one token and sees no fault."""
    chaos = Chaos(seed=0, seconds=0, clients=0)
    chaos._issued["good"] = Issued(SCOPE, None, time.time() + 100)
    chaos._issued["old"] = Issued(SCOPE, None, time.time() - 5)
    chaos._has_keys = True
    return chaos


def token(name: str, expires_in: int = 50) -> Answer:
    return Answer(200, [], json.dumps({"access_token": name, "expires_in": expires_in}).encode())


def error(status: int) -> Answer:
    return Answer(status, [], b'{"error":"server_error"}')


def judge(
    chaos: Chaos, answer: Answer, *, scope: str = SCOPE, user: tuple[str, float] | None = None
) -> Report:
    chaos._judge_token(scope=scope, user=user, answer=answer, began=time.monotonic(), generation=0)
    return chaos.report


def test_the_checker_accepts_what_is_right(checker: Chaos) -> None:
    """A good token, and an error within a fault for a token that was never handed out."""
    assert judge(checker, token("good")).good
    checker._fault_active = True
    assert judge(checker, error(500), scope="api://dev.team.app1/.default").good


def test_the_checker_finds_wrong_tokens(checker: Chaos) -> None:
    """Of nobody, for another target, for another user, with too long a life."""
    judge(checker, token("made up"))
    judge(checker, token("good"), scope="api://dev.team.app1/.default")
    judge(checker, token("good"), user=("user", time.time() + 100))
    judge(checker, token("good", expires_in=500))
    assert checker.report.wrong_answers == 4


def test_the_checker_finds_expired_tokens(checker: Chaos) -> None:
    """Whose own end, or whose user's, has passed."""
    judge(checker, token("old", expires_in=-10))
    checker._issued["exchanged"] = Issued(SCOPE, "user", time.time() + 100)
    judge(checker, token("exchanged"), user=("user", time.time() - 1))
    assert checker.report.expired_tokens == 2


def test_the_checker_finds_errors_without_a_cause(checker: Chaos) -> None:
    """No fault was active, or a valid token was there."""
    judge(checker, error(500))
    checker._fault_active = True
    judge(checker, token("good"))
    judge(checker, error(500))
    assert checker.report.wrong_answers == 2


def test_the_checker_finds_false_verdicts(checker: Chaos) -> None:
    """A valid token rejected, an invalid one accepted, a wrong reason, no verdict at all."""
    checker._judge_introspection("", Answer(200, [], b'{"active":false,"error":"token is expired"}'))
    checker._judge_introspection(
        "", Answer(200, [], b'{"active":false,"error":"keys of the token issuer are not available: x"}')
    )
    assert checker.report.false_rejections == 2
    checker._judge_introspection("token is expired", Answer(200, [], b'{"active":true}'))
    checker._judge_introspection(
        "token is expired", Answer(200, [], b'{"active":false,"error":"token is not a JWT"}')
    )
    checker._judge_introspection("token is expired", Answer(200, [], b'{"access_token":"x"}'))
    checker._judge_introspection("token is expired", Answer(500, [], b"{}"))
    assert checker.report.wrong_answers == 4


def test_the_slope_is_of_the_longest_process_without_its_beginning() -> None:
    """KiB per 10,000 requests."""
    samples = [(float(i), 1, i * 100, 90_000) for i in range(5)]
    samples += [(5.0 + i, 2, 500 + i * 1000, 40_000 + (10 * i if i > 3 else 999)) for i in range(12)]
    assert slope(samples) == pytest.approx(100)
