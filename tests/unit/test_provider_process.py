"""What the provider process remembers of the tokens that it has announced."""

from __future__ import annotations

from entra_fast._native import TokenCache
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.provider_process import AnnouncedTokens


def test_terms_of_tokens_that_have_ended_are_forgotten() -> None:
    """Nobody asks for most users' tokens again, and the limit is far away; what is valid stays."""
    now = 1000.0
    clocks = Clocks(wall=lambda: now, monotonic=lambda: now)
    tokens = AnnouncedTokens(TokenCache(), 100_000, clocks, lambda _: None, lambda _: None)
    keys = [bytes([number]) * 32 for number in range(100)]
    for key in keys:
        tokens.put(key, "token", 10.0, monotonic=now)
        now += 1
        assert len(tokens._terms) <= 10
    assert [key for key in keys if tokens.known(key, tokens.announced)] == keys[-9:]
