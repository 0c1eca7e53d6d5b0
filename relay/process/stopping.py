"""Stops a long-running command on a signal or after a time."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from relay.process.early_signals import STOP_SIGNALS, let_end, take_signal


class _StopSignals:
    """Handles SIGINT and SIGTERM: the first signal calls `stop`, and any later one ends the process, or calls `again`.

    Signals that arrive before the first one is handled count as one, because GNU timeout sends two.
    """

    def __init__(self, stop: Callable[[], None], again: Callable[[int], None] | None = None) -> None:
        self._stop: Callable[[], None] | None = stop
        self._again = again
        self._has_stopped = False
        self._loop = asyncio.get_running_loop()
        # Not with `add_signal_handler`, whose removal makes SIGINT raise an exception wherever the program is.
        for number in STOP_SIGNALS:
            signal.signal(number, self._call_soon)

    def take_kept(self) -> None:
        """Handle the signals that arrived while the process started."""
        for number in STOP_SIGNALS:
            if take_signal(number):
                self._take(number)

    def forget(self) -> None:
        """Let the signals end the process from now on."""
        for number in STOP_SIGNALS:
            let_end(number)

    def _call_soon(self, number: int, _: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._take, number)

    def _take(self, number: int) -> None:
        stop, self._stop = self._stop, None
        if self._again is None:
            self.forget()
        if stop is not None:
            stop()
            # A signal that waits already is handled in the present turn of the loop.
            self._loop.call_soon(self._note_stop)
        elif self._again is not None and self._has_stopped:
            self._again(number)

    def _note_stop(self) -> None:
        self._has_stopped = True


@contextmanager
def stop_signals(again: Callable[[int], None] | None = None) -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets.

    A second signal ends the process at once, as usual, or calls `again` with its number.
    """
    asked = asyncio.Event()
    signals = _StopSignals(asked.set, again)
    signals.take_kept()
    try:
        yield asked
    finally:
        signals.forget()


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@contextmanager
def reload_signal(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` for each SIGHUP, including one that arrived during startup. Afterwards, SIGHUP has no effect."""
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
        self.requested = False
        self._task = task
        self._signals = _StopSignals(self.request)
        self._timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Stop now. From then on signals have their ordinary effect, in case stopping hangs."""
        self.disarm()
        self.requested = True
        self._task.cancel()

    def after(self, seconds: float) -> None:
        """Stop after `seconds`."""
        self._timer = self._task.get_loop().call_later(seconds, self.request)

    def disarm(self) -> None:
        """Detach signals and timer from the body."""
        self._signals.forget()
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def until_stopped() -> Iterator[Stop]:
    """Run the body until it ends, SIGINT or SIGTERM arrives, or the time set by `Stop.after` is over.

    Stopping cancels the body and is not an error. Like `asyncio.timeout`, this swallows only the cancellation that it
    requested itself.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("until_stopped must be called within a task")
    before = task.cancelling()
    stop = Stop(task)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.requested or task.uncancel() > before:
            raise
    finally:
        stop.disarm()
