"""What happens to a key set that cannot be refreshed for too long."""

from __future__ import annotations

import logging

import pytest

from entra_fast._native import KeySet
from entra_fast._provider.http_rules import HttpResponse
from entra_fast._provider.jwks import ThreadKeys
from entra_fast._provider.jwks_schedule import RefreshRules
from support.tokens import Clock, jwks, signer

GOOD = HttpResponse(200, {}, jwks(signer()).encode())


def test_a_key_set_that_could_not_be_refreshed_for_too_long_is_discarded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise a withdrawn key would verify tokens for as long as the provider is down. One line is logged,
    the reason can be asked for, and the next good key set is used."""
    answers = [GOOD]
    accepted: list[KeySet | None] = []
    clock = Clock(0)
    rules = RefreshRules(first_retry=3600, last_retry=3600)
    keys = ThreadKeys("https://x/keys", lambda _: answers[-1], accepted.append, rules=rules, monotonic=clock)
    keys.refresh()
    answers.append(HttpResponse(500, {}, b""))
    clock.now = rules.max_age - 1
    keys.refresh()
    assert [keys.keys is None, len(accepted)] == [False, 1]
    clock.now = rules.max_age + 1
    with caplog.at_level(logging.ERROR, "entra_fast"):
        keys.refresh()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["discarded the key set: not refreshed for 24 h"]
    assert (keys.keys, keys.text, accepted[-1]) == (None, None, None)
    assert "answered 500" in str(keys.unavailable())
    answers.append(GOOD)
    keys.refresh()
    assert keys.keys is not None
    assert accepted[-1] is keys.keys
    keys.close()
