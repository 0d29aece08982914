"""Tasks that run in the background of an event loop.

What belongs here: making sure that none of them fails unobserved. A task whose result is never awaited would
keep its exception to itself until Python collects it, if at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger("entra_fast.background")

_Result = TypeVar("_Result")


def start(work: Coroutine[Any, Any, _Result], name: str) -> asyncio.Task[_Result]:
    """Run a coroutine as a task of the running event loop, and log its failure once, with the cause.

    Args:
        work: what the task does.
        name: what the log line calls the task, such as `key set refresh`.

    Returns:
        The task. The caller keeps it and cancels it.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(log_failure)
    return task


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they have ended. None stands for a task that was never started."""
    started = [task for task in tasks if task is not None]
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


def log_failure(task: asyncio.Task[Any]) -> None:
    """Log the failure of a task that has ended, with its cause."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fields = {"task": task.get_name(), "error": type(error).__name__}
        logger.error("background task failed", exc_info=error, extra={"fields": fields})
