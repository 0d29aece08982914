"""Background tasks: none of them fails unobserved."""

from __future__ import annotations

import asyncio
import logging

import pytest

from entra_fast import _background


async def test_a_failure_is_logged_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody awaits the task, so the log line is all there is; with the task and the exception."""

    async def fail() -> None:
        raise RuntimeError("surprise")

    task = _background.start(fail(), "example")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "background task failed")
    assert vars(record)["fields"] == {"task": "example", "error": "RuntimeError"}
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception()


async def test_cancelling_waits_for_the_end_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What a task does when it is cancelled is done when `cancel` returns."""
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    task = _background.start(work(), "example")
    await asyncio.sleep(0)
    await _background.cancel(None, task)
    assert done == ["cleaned up"]
    assert task.cancelled()
    assert caplog.records == []


async def test_a_result_is_returned(caplog: pytest.LogCaptureFixture) -> None:
    """A task that succeeds is an ordinary task."""

    async def work() -> str:
        return "result"

    assert await _background.start(work(), "example") == "result"
    assert caplog.records == []
