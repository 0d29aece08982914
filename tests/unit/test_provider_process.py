"""The provider process: what it remembers of announced tokens, and what it tells workers of each other."""

from __future__ import annotations

import socket

from entra_fast._native import TokenCache
from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.channel import Channel
from entra_fast.sidecar.process.provider_process import AnnouncedTokens, ConnectedWorker, ProviderProcess


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


async def test_when_one_worker_distrusts_rind_all_do() -> None:
    """A disagreement that one worker has seen is announced to every worker, once, and to workers that start
    later before they serve."""
    process = ProviderProcess(Settings.from_environment({"AZURE_ENABLED": "false"}, None))
    channels: list[Channel] = []

    async def connect(number: int) -> tuple[Channel, list[str]]:
        ours, theirs = socket.socketpair()
        heard: list[str] = []

        async def end(_: str) -> None:
            raise AssertionError("no worker has done anything wrong")

        worker = ConnectedWorker(number, end)
        worker.channel = Channel(lambda name, fields: process.handle(worker, name, fields), list)
        channel = Channel(lambda name, _: heard.append(name), list)
        await worker.channel.open(ours)
        await channel.open(theirs)
        channels.append(channel)
        channel.send("hello")
        await channel.call("readiness")  # what was announced before the answer has been heard by then
        return channel, heard

    (first, heard_by_first), (second, heard_by_second) = await connect(1), await connect(2)
    assert "signatures_distrusted" not in heard_by_first + heard_by_second
    for channel in (first, second, first):
        channel.send("signatures_distrusted")
        await channel.call("readiness")
    assert heard_by_first.count("signatures_distrusted") == 1
    assert heard_by_second.count("signatures_distrusted") == 1
    _, heard_by_third = await connect(3)
    assert heard_by_third[-2:] == ["signatures_distrusted", "serve"]
    for channel in channels:
        channel.abort()
