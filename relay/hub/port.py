"""What the hub needs from a client's socket. The server implements it."""

from collections.abc import Callable
from typing import Any, Protocol

from relay.limits.names import Limit
from relay.vocabulary.errors import CloseCode

Send = Callable[[Any, bytes], int]
"""Writes complete WebSocket messages to the sink of an open socket that is not blocked. Returns how many bytes it took.

It raises BlockingIOError if the socket takes none now, and another OSError if it never will. All listeners share one
function so that a C loop can call it for one sink after the other."""


class Port(Protocol):
    """A client's socket, as the hub sees it. No method blocks or raises."""

    @property
    def client_address(self) -> str:
        """The address of the person or program at the other end; empty if unknown."""

    def send_text(self, text: str) -> None:
        """Write one control message. Do nothing if the peer reads none or the connection is closing."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Start the closing handshake. A peer that does not answer in time is disconnected."""


class ListenerPort(Port, Protocol):
    """A listener's socket, which takes audio."""

    @property
    def sink(self) -> object:
        """The object that `Send` writes to."""

    @property
    def takes_parts(self) -> bool:
        """Whether `Send` may write a part and leave the rest. Otherwise it makes room for all that it is given."""

    def complete(self, rest: bytes) -> None:
        """Write the rest of a partly written frame. The kernel makes room for it."""

    def await_room(self) -> None:
        """Report the socket as full: `Listening.block` is called, and `unblock` when it takes data again."""

    def fit_kernel(self, bytes_per_second: int) -> None:
        """Limit how much the kernel buffers for this socket, for audio of that rate."""

    def abort(self, because: str | OSError, limit: Limit | None = None) -> None:
        """Close the connection at once, and count the limit that caused it. `because` is for the log."""
