"""Background tasks: none of them fails unobserved."""

from __future__ import annotations

import asyncio
import logging

import pytest

from entra_fast import _background


async def test_a_failure_is_logged_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """No one awaits the task, so the log line is the only trace; it has the task and the exception."""

    async def fail() -> None:
        raise RuntimeError("surprise")

    task = _background.start(fail(), "example")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("entra_fast.background", logging.ERROR)
    assert record.getMessage() == "background task failed"
    assert vars(record)["fields"] == {"task": "example", "error": "RuntimeError"}
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception()


async def test_cancelling_waits_for_the_end_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A task's clean-up is complete when `cancel` returns."""
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
