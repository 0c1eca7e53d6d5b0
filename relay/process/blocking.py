"""Runs blocking calls outside the event loop, for files and pipes that cannot be interrupted.

Invariants: one call runs at a time, in the order of the requests. A call that never returns blocks neither the event
loop nor the exit of the process. A thread of the loop's own executor would block the exit.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_SECONDS = 0.2
"""How long leaving waits for a call in progress. A file is done by then; a pipe may never be."""


class BlockingThread:
    """A daemon thread that runs blocking calls one after another; a context manager."""

    def __init__(self, name: str) -> None:
        """Start the thread; debuggers show `name`."""
        # The queue has no bound of its own. Each caller waits for its call, so it holds at most one call per caller.
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the thread end after the call in progress, and wait a moment for it."""
        self._calls.put(None)
        self._thread.join(_GRACE_SECONDS)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in the thread and return its result, or raise its error.

        Cancelling the wait discards the result; a call in progress runs to its end.
        """
        future: Future[T] = Future()
        self._calls.put((future, partial(function, *args, **kwargs)))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, function = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - every error belongs to the caller
                future.set_exception(error)
            else:
                future.set_result(result)
