"""Watch full sockets, and report when they accept data again.

A transport reports this only while it holds bytes of the connection, which cannot be taken back. So one selector
watches these sockets beside their transports, and the event loop watches the selector.

Invariant: a socket is reported once, and never after it was forgotten. It is forgotten before another one with the same
descriptor is watched.
"""

import asyncio
import select
import selectors
from collections.abc import Callable


class WritableSockets:
    """Reports when sockets accept data again. Usable between `open` and `close`."""

    def __init__(self) -> None:
        self._selector: selectors.DefaultSelector | None = None
        self._poll = select.poll()

    def open(self) -> None:
        """Start watching, in the running event loop."""
        self._selector = selectors.DefaultSelector()
        asyncio.get_running_loop().add_reader(self._selector.fileno(), self._tell)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        selector, self._selector = self._selector, None
        if selector is not None:
            asyncio.get_running_loop().remove_reader(selector.fileno())
            selector.close()

    def is_writable(self, descriptor: int) -> bool:
        """Whether a socket accepts data now: at least half of the bytes that the kernel lets wait in it."""
        self._poll.register(descriptor, select.POLLOUT)
        try:
            return bool(self._poll.poll(0))
        finally:
            self._poll.unregister(descriptor)

    def wait(self, descriptor: int, tell: Callable[[], None]) -> None:
        """Call `tell` once when a socket accepts data. The socket must not be watched already."""
        if self._selector is not None:
            self._selector.register(descriptor, selectors.EVENT_WRITE, tell)

    def forget(self, descriptor: int) -> None:
        """Stop watching a socket that is watched."""
        if self._selector is not None:
            self._selector.unregister(descriptor)

    def _tell(self) -> None:
        if self._selector is None:
            return
        for key, _ in self._selector.select(0):
            self._selector.unregister(key.fd)
            key.data()
