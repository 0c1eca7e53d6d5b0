"""Blocking calls beside the event loop, for files and pipes that nobody can interrupt.

Invariants: one call runs at a time, in the order of asking; a call that never returns holds up neither the loop nor
the end of the process, which a thread of the loop's own executor would.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_GRACE_SECONDS = 0.2
"""How long leaving waits for a call under way: a file is done by then, a pipe may never be."""


class BlockingThread:
    """A daemon thread that runs one blocking call after another; a context manager."""

    def __init__(self, name: str) -> None:
        """Start the thread; `name` is for debuggers."""
        # Unbounded by itself; its callers wait for each call, so there are as many as they are.
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Give the thread."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the thread end after the call under way, and wait a moment for it."""
        self._calls.put(None)
        self._thread.join(_GRACE_SECONDS)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` and give its result, or raise what it raised.

        Cancelling the wait drops the result; a call under way goes on to its end.
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
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller
                future.set_exception(error)
            else:
                future.set_result(result)
