"""The channel between the provider process and a worker: order, errors, limits, and an end for what is not
understood."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from entra_fast._provider.back_off import NotAsked
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.sidecar.process import channel as channel_module
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields, Handler, frame


class End:
    """One end, with what happened to it."""

    def __init__(self, handle: Handler) -> None:
        self.lost = asyncio.Event()
        self.channel = Channel(handle, self.lost.set)


@asynccontextmanager
async def ends(handle: Handler) -> AsyncIterator[tuple[End, End]]:
    """Two ends; the second one handles messages."""
    first, second = End(lambda name, fields: None), End(handle)
    for end, raw in zip((first, second), socket.socketpair(), strict=True):
        await end.channel.open(raw)
    try:
        yield first, second
    finally:
        first.channel.abort()
        await first.lost.wait()
        await second.lost.wait()


@asynccontextmanager
async def raw_end(handle: Handler) -> AsyncIterator[tuple[socket.socket, End]]:
    """An end, and the other one's bare socket."""
    ours, theirs = socket.socketpair()
    end = End(handle)
    await end.channel.open(ours)
    with theirs:
        yield theirs, end
        end.channel.abort()
        await end.lost.wait()


async def test_an_answer_proves_that_what_was_sent_before_was_handled() -> None:
    """The guarantee that a replaced token is never seen again depends on it."""
    handled: list[str] = []

    def handle(name: str, fields: Fields) -> Fields | None:
        handled.append(name)
        return {"so_far": list(handled)} if name == "sync" else None

    async with ends(handle) as (first, _):
        for number in range(100):
            first.channel.send(str(number))
        answer = await first.channel.call("sync")
    assert answer["so_far"] == [*map(str, range(100)), "sync"]


async def test_calls_are_answered_in_any_order() -> None:
    """Each caller gets its own answer, however long another takes."""
    gate = asyncio.Event()

    async def answer(fields: Fields) -> Fields:
        if fields["number"] == 1:
            await gate.wait()
        return {"echo": fields["number"]}

    async with ends(lambda name, fields: answer(fields)) as (first, _):
        slow = first.channel.call("echo", number=1)
        assert (await first.channel.call("echo", number=2))["echo"] == 2
        assert not slow.done()
        gate.set()
        assert (await slow)["echo"] == 1


async def test_errors_travel_with_all_that_they_say() -> None:
    """The provider's error reaches the application at every worker."""
    error = ProviderError("provider_refused", "no", 429, "slow_down", 7, {"error_codes": [1]})

    async def refuse() -> Fields:
        raise error

    async with ends(lambda name, fields: refuse()) as (first, _):
        with pytest.raises(ProviderError) as raised:
            await first.channel.call("token")
    assert raised.value.args == error.args
    assert (raised.value.retry_after, raised.value.details) == (7, {"error_codes": [1]})


async def test_a_refusal_without_a_request_is_the_provider_s_at_every_worker() -> None:
    """Inside a back-off window, a worker answers 429 with Retry-After as one process does, and not 400."""

    async def refuse() -> Fields:
        raise NotAsked("provider_refused", "slow down", 429, "slow_down", 7)

    async with ends(lambda name, fields: refuse()) as (first, _):
        with pytest.raises(ProviderError) as raised:
            await first.channel.call("token")
    assert (raised.value.status, raised.value.error, raised.value.retry_after) == (429, "slow_down", 7)


async def test_an_error_that_cannot_be_sent_is_answered_too() -> None:
    """No caller waits for an answer that was lost in a task."""

    async def refuse() -> Fields:
        raise ProviderError("provider_refused", "no", details={"error_codes": [10**30]})

    async with ends(lambda name, fields: refuse()) as (first, _):
        with pytest.raises(ProviderError, match="unexpected error"):
            await asyncio.wait_for(first.channel.call("token"), 10)


async def test_other_errors_travel_without_their_text() -> None:
    """The text of an exception may hold anything."""

    async def fail() -> Fields:
        raise RuntimeError("canary")

    async with ends(lambda name, fields: fail()) as (first, _):
        with pytest.raises(EntraFastError) as raised:
            await first.channel.call("token")
    assert "canary" not in str(raised.value.args)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", channel_module.MAX_MESSAGE_BYTES + 1),
        struct.pack("!I", 4) + b"nope",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 2) + b"{}",
        frame("answer", {}),
        frame("unknown", {}),
    ],
    ids=["too long", "no JSON", "no object", "no name", "answer to nothing", "handler raises"],
)
async def test_what_is_not_understood_ends_the_channel(data: bytes) -> None:
    """Nothing that follows could be trusted."""

    def handle(name: str, fields: Fields) -> None:
        raise ValueError("no such message")

    async with raw_end(handle) as (theirs, end):
        theirs.sendall(data)
        await asyncio.wait_for(end.lost.wait(), 10)


async def test_messages_may_arrive_in_pieces() -> None:
    """Split at any byte."""
    handled: list[Fields] = []
    arrived = asyncio.Event()

    def handle(name: str, fields: Fields) -> None:
        handled.append(fields)
        if len(handled) == 3:
            arrived.set()

    data = b"".join(frame("message", {"number": number}) for number in range(3))
    async with raw_end(handle) as (theirs, _):
        for index in range(len(data)):
            theirs.sendall(data[index : index + 1])
            await asyncio.sleep(0)
        await asyncio.wait_for(arrived.wait(), 10)
    assert handled == [{"number": 0}, {"number": 1}, {"number": 2}]


async def test_calls_end_with_the_other_side() -> None:
    """No caller waits for an answer that cannot arrive."""

    async def never() -> Fields:
        await asyncio.Event().wait()
        return {}

    async with ends(lambda name, fields: never()) as (first, second):
        waiting = first.channel.call("token")
        second.channel.abort()
        with pytest.raises(ChannelLost):
            await waiting
        with pytest.raises(ChannelLost):
            await first.channel.call("token")
        first.channel.send("anything")  # has no receiver


async def test_a_side_that_does_not_read_ends_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of filling the memory."""
    monkeypatch.setattr(channel_module, "MAX_UNSENT_BYTES", 100_000)
    async with raw_end(lambda name, fields: None) as (_, end):
        for _ in range(100):
            end.channel.send("grant", token="x" * 50_000)
        await asyncio.wait_for(end.lost.wait(), 10)


async def test_waiting_calls_are_bounded_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling side refuses at once; the called side answers that there are too many."""
    monkeypatch.setattr(channel_module, "MAX_CALLS", 2)
    gate = asyncio.Event()

    async def wait() -> Fields:
        await gate.wait()
        return {}

    handle: Callable[[str, Fields], object] = lambda name, fields: wait()  # noqa: E731
    async with ends(handle) as (first, _):  # type: ignore[arg-type]
        calls = [first.channel.call("token") for _ in range(2)]
        with pytest.raises(ChannelLost):
            await first.channel.call("token")
        gate.set()
        await asyncio.gather(*calls)
    gate.clear()
    async with raw_end(handle) as (theirs, end):  # type: ignore[arg-type]
        theirs.sendall(b"".join(frame("token", {"call": number}) for number in range(3)))
        theirs.setblocking(False)
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 1 << 16), 10)
        assert b'"to":2' in data
        assert b"too_many_fetches" in data
        assert end.channel.is_open


async def test_an_error_may_be_raised_at_once() -> None:
    """A handler that refuses without waiting is answered like one that waits first."""
    error = ProviderError("provider_refused", "no", 400)

    def refuse(name: str, fields: Fields) -> Fields:
        raise error

    async with ends(refuse) as (first, second):
        with pytest.raises(ProviderError) as raised:
            await first.channel.call("token")
        assert raised.value.args == error.args
        assert second.channel.is_open


async def test_the_answer_to_a_call_that_was_given_up_is_ignored() -> None:
    """The channel stays open, and the next call gets its own answer."""
    gate = asyncio.Event()

    async def answer(fields: Fields) -> Fields:
        await gate.wait()
        return {"echo": fields["number"]}

    async with ends(lambda name, fields: answer(fields)) as (first, _):
        given_up = first.channel.call("echo", number=1)
        second = first.channel.call("echo", number=2)
        given_up.cancel()
        gate.set()
        assert (await second)["echo"] == 2
        assert (await first.channel.call("echo", number=3))["echo"] == 3


async def test_the_other_side_may_be_lost_just_after_a_call_was_given_up() -> None:
    """The caller that gave up gets nothing; one that still waits learns of the loss."""

    async def never() -> Fields:
        await asyncio.Event().wait()
        return {}

    async with ends(lambda name, fields: never()) as (first, second):
        given_up, waiting = first.channel.call("token"), first.channel.call("token")
        given_up.cancel()
        first.channel.connection_lost(None)  # before the loop has run what the cancellation causes
        assert given_up.cancelled()
        with pytest.raises(ChannelLost):
            await waiting
        second.channel.abort()


async def test_a_future_that_is_too_much_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes later need not be a coroutine."""
    monkeypatch.setattr(channel_module, "MAX_CALLS", 0)
    later: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    async with raw_end(lambda name, fields: later) as (theirs, _):
        theirs.sendall(frame("token", {"call": 7}))
        theirs.setblocking(False)
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 1 << 16), 10)
        assert b'"to":7' in data
        assert b"too_many_fetches" in data
    later.cancel()
