"""Sockets that took no more: which of them take data again.

A transport tells it only while bytes of the connection wait in it, where they can't be taken back. So these sockets
are watched beside their transports, by one selector that the event loop watches in turn.

Invariant: a socket is told of once, and not after it was forgotten; it is forgotten before it is closed.
"""

import asyncio
import select
import selectors
from collections.abc import Callable


class WritableSockets:
    """Tells when sockets take data again; of use between `open` and `close`."""

    def __init__(self) -> None:
        """Make it; it takes no descriptor yet."""
        self._selector: selectors.DefaultSelector | None = None
        self._poll = select.poll()

    def open(self) -> None:
        """Begin to watch, in the running event loop."""
        self._selector = selectors.DefaultSelector()
        asyncio.get_running_loop().add_reader(self._selector.fileno(), self._tell)

    def close(self) -> None:
        """Watch no more; done twice, it changes nothing."""
        selector, self._selector = self._selector, None
        if selector is not None:
            asyncio.get_running_loop().remove_reader(selector.fileno())
            selector.close()

    def is_writable(self, descriptor: int) -> bool:
        """Whether a socket takes data now: at least half of what the kernel lets wait in it."""
        self._poll.register(descriptor, select.POLLOUT)
        try:
            return bool(self._poll.poll(0))
        finally:
            self._poll.unregister(descriptor)

    def wait(self, descriptor: int, tell: Callable[[], None]) -> None:
        """Have `tell` called once when a socket takes data; it must not be waited for already."""
        if self._selector is not None:
            self._selector.register(descriptor, selectors.EVENT_WRITE, tell)

    def forget(self, descriptor: int) -> None:
        """Wait no more for a socket that is waited for."""
        if self._selector is not None:
            self._selector.unregister(descriptor)

    def _tell(self) -> None:
        if self._selector is None:
            return
        for key, _ in self._selector.select(0):
            self._selector.unregister(key.fd)
            key.data()
