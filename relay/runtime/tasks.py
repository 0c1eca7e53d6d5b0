"""The one place where tasks begin: each has a name, its crash is logged, and whoever closes the registry joins it.

Invariants: no task outlives its registry; a cancelled task is not a crash; `CancelledError` is never swallowed.
"""

import asyncio
import logging
from collections.abc import Coroutine

logger = logging.getLogger(__name__)


class TaskRegistry:
    """Tasks that run beside their owner and are joined by `close`."""

    def __init__(self) -> None:
        """Make an empty registry."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Give how many tasks are running."""
        return len(self._tasks)

    def start(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run `work` in a task called `name`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self) -> None:
        """Cancel all tasks and wait until they are gone. Cancelling this wait leaves them cancelled."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def join(self) -> None:
        """Wait until all tasks ended by themselves; cancelling the wait leaves them running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task crashed", extra={"task": task.get_name()}, exc_info=error)
