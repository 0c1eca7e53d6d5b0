"""The only place that starts tasks: each has a name, its crash is logged, and closing the registry joins it.

Invariants: no task outlives its registry. A cancelled task is not a crash. `CancelledError` is never swallowed.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

CANCEL_AGAIN_SECONDS = 1.0
"""How long a cancelled task may take to end before it is cancelled again."""

logger = logging.getLogger(__name__)


class TaskRegistry:
    """Tasks that run beside their owner; `close` joins them.

    Attributes:
        broken: Set when a vital task crashed. The owner no longer works without it.
    """

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[object, object, None], name: str, *, is_vital: bool = False) -> asyncio.Task[None]:
        """Run `work` in a task called `name`. If `is_vital`, its crash sets `broken`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, is_vital))
        return task

    async def close(self) -> None:
        """Cancel all tasks, including those that they start meanwhile, and wait until they end.

        A library can swallow a cancellation, so tasks that go on are cancelled again. If this wait is cancelled, the
        tasks stay cancelled.
        """
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_AGAIN_SECONDS)

    async def join(self) -> None:
        """Wait until all tasks have ended by themselves. Cancelling the wait leaves them running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _finished(self, is_vital: bool, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task crashed", extra={"task": task.get_name()}, exc_info=error)
            if is_vital:
                self.broken.set()
