"""What the hub needs of a client's socket; the server has what does it."""

from collections.abc import Callable
from typing import Any, Protocol

from relay.limits.names import Limit
from relay.vocabulary.errors import CloseCode

Send = Callable[[Any, bytes], int]
"""Writes complete WebSocket messages to the sink of an open socket that is not blocked; gives how many bytes it took.

It raises BlockingIOError when the socket takes none now, and another OSError when it never will. One function for all
listeners, so that a C loop can call it for one sink after the other.
"""


class Port(Protocol):
    """A client's socket, seen from the hub; nothing here blocks or raises."""

    @property
    def client_address(self) -> str:
        """Of the person or program behind it; empty when it is unknown."""
        ...

    def send_text(self, text: str) -> None:
        """Write one control message; nothing when the peer reads none, or the connection is closing."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake; a peer that does not answer in time is cut off."""
        ...


class ListenerPort(Port, Protocol):
    """A listener's socket, which takes audio."""

    @property
    def sink(self) -> object:
        """What `Send` writes to."""
        ...

    @property
    def takes_parts(self) -> bool:
        """Whether `Send` may write a part and leave the rest; else it makes room for whatever it is given."""
        ...

    def complete(self, rest: bytes) -> None:
        """Write the rest of a frame that the socket took in part; the kernel makes room for it."""
        ...

    def await_room(self) -> None:
        """Note that the socket takes no more: `Listening.block` is called, and `unblock` when it takes data again."""
        ...

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Bound what the kernel holds for this socket, for audio of that rate."""
        ...

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        """Cut the connection off at once, and count the limit by which it is; `because` is for the log."""
        ...
