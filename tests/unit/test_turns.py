"""Whose turn it is when more tokens have to be verified than one pass of the event loop may verify."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from entra_fast.sidecar.http.turns import Turns


class Native:
    """Stands for the native fast path, which counts verifications: here each connection uses one up."""

    def __init__(self, per_turn: int) -> None:
        self.begun = 0
        self._per_turn = per_turn
        self._left = 0

    def begin_turn(self) -> None:
        self.begun += 1
        self._left = self._per_turn

    def verify(self) -> None:
        self._left -= 1

    @property
    def turn_is_over(self) -> bool:
        return self._left <= 0


def turns_of(native: Any) -> Turns:
    return Turns(native)


async def passes(count: int) -> None:
    """Let the event loop go round so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_connections_are_served_in_their_order_as_many_as_fit_into_a_turn() -> None:
    """The others follow in the next turns, one turn for each pass of the event loop; then there is none."""
    native, served = Native(2), list[int]()
    turns = turns_of(native)

    def connection(number: int) -> None:
        native.verify()
        served.append(number)

    for number in range(5):
        turns.wait(functools.partial(connection, number))
    assert served == []
    for expected in ([0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4]):
        await passes(1)
        assert served == expected
    await passes(5)
    assert native.begun == 3


async def test_a_connection_that_waits_again_comes_behind_the_others() -> None:
    """Also where its turn is not used up: otherwise one connection would keep the event loop busy."""
    native, served = Native(100), list[str]()
    turns = turns_of(native)

    def greedy() -> None:
        served.append("greedy")
        if len(served) < 4:
            turns.wait(greedy)

    turns.wait(greedy)
    turns.wait(lambda: served.append("modest"))
    await passes(1)
    assert served == ["greedy", "modest"]
    await passes(1)
    assert served == ["greedy", "modest", "greedy"]
    await passes(5)
    assert served == ["greedy", "modest", "greedy", "greedy"]
    assert native.begun == 3


async def test_a_turn_that_is_due_begins_once() -> None:
    """However many connections ask for it, and also where none waits: native code begins a new count."""
    native = Native(2)
    turns = turns_of(native)
    turns.due()
    turns.due()
    assert native.begun == 0
    await passes(3)
    assert native.begun == 1
    turns.due()
    await passes(3)
    assert native.begun == 2


async def test_a_defect_of_one_connection_does_not_keep_the_others_waiting() -> None:
    """The event loop reports it, and the next turn is theirs."""
    native, served = Native(5), list[str]()
    turns, reported = turns_of(native), list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken() -> None:
        raise RuntimeError("defect")

    turns.wait(broken)
    turns.wait(lambda: served.append("other"))
    await passes(2)
    assert served == ["other"]
    assert [str(each["exception"]) for each in reported] == ["defect"]
    assert native.begun == 2
