"""Stopping a command that runs until it is told to end: by a signal, or after a while."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from relay.process.early_signals import STOP_SIGNALS, let_end, take_signal


class _StopSignals:
    """SIGINT and SIGTERM: the first calls something, every further one ends the process.

    Signals that arrive before the first one was handled count as one: GNU timeout sends two.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """Have the first call `stop`."""
        self._stop: Callable[[], None] | None = stop
        self._loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._take)

    def take_kept(self) -> None:
        """Count those that came while the process started."""
        for number in STOP_SIGNALS:
            if take_signal(number):
                self._take()

    def forget(self) -> None:
        """Let them end the process now."""
        for number in STOP_SIGNALS:
            self._loop.remove_signal_handler(number)
            let_end(number)

    def _take(self) -> None:
        self.forget()
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Give what is set by SIGTERM or SIGINT; a second one ends the process at once, as it would without this."""
    asked = asyncio.Event()
    signals = _StopSignals(asked.set)
    signals.take_kept()
    try:
        yield asked
    finally:
        signals.forget()


@contextmanager
def reload_signal(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` for each SIGHUP, also for one that came while the process started; afterwards it does nothing."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    if take_signal(signal.SIGHUP):
        reload()
    try:
        yield
    finally:
        loop.add_signal_handler(signal.SIGHUP, lambda: None)


class Stop:
    """Cancels the body of `until_stopped`, once."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        """Take the task whose present step is the body."""
        self.requested = False
        self._task = task
        self._signals = _StopSignals(self.request)
        self._timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Stop now. A signal then has its ordinary effect, in case that stopping hangs."""
        self.disarm()
        self.requested = True
        self._task.cancel()

    def after(self, seconds: float) -> None:
        """Stop this much later."""
        self._timer = self._task.get_loop().call_later(seconds, self.request)

    def disarm(self) -> None:
        """Let signals and time have no effect on the body any more."""
        self._signals.forget()
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
