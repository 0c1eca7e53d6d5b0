"""Stopping a command that runs until it is told to end: by a signal, or after a while."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Cancels the body of `until_stopped`, once."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        """Take the task whose present step is the body."""
        self.requested = False
        self._task = task
        self._loop = task.get_loop()
        self._timer: asyncio.TimerHandle | None = None
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        """Stop now. A second signal then has its ordinary effect, in case that stopping hangs."""
        self.disarm()
        self.requested = True
        self._task.cancel()

    def after(self, seconds: float) -> None:
        """Stop this much later."""
        self._timer = self._loop.call_later(seconds, self.request)

    def disarm(self) -> None:
        """Let signals and time have no effect on the body any more."""
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def until_stopped() -> Iterator[Stop]:
    """Run the body until it ends, SIGINT or SIGTERM arrives, or the time given to `Stop.after` is over.

    Stopping cancels the body and is no error: like `asyncio.timeout`, this swallows the cancellation that it asked
    for itself, and no other.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("until_stopped is for a task")
    before = task.cancelling()
    stop = Stop(task)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.requested or task.uncancel() > before:
            raise
    finally:
        stop.disarm()
