"""What the kernel is told about the relay's sockets.

Linux takes megabytes into a TCP socket before a write fails, which is minutes of audio that no buffer of ours
knows of. `TCP_NOTSENT_LOWAT` bounds what is not sent yet, `SO_SNDBUF` everything that is not acknowledged.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

UNSENT_SECONDS = 0.2
"""Audio that may wait in the kernel for the network; less would let a fast network run dry between passes."""

MIN_UNSENT_BYTES = 4096
"""Below this the kernel wakes the relay for every segment."""

SEND_BUFFER_BYTES = 64 * 1024
"""Enough for 48 kHz stereo over a round trip of 300 ms. Linux books twice this for its own bookkeeping."""

_UNBOUNDED = 0x7FFF_FFFF
"""Of `TCP_NOTSENT_LOWAT`: no bound."""

RECEIVE_BUFFER_BYTES = 8 * 1024
"""Who is no broadcaster has little to say; this bounds what a flood makes the relay hold."""

BROADCAST_RECEIVE_BYTES = 256 * 1024
"""A second or more of any audio, for networks that deliver in bursts; of a broadcaster that is too far ahead, no more
than this waits unread. Linux books twice this for its own bookkeeping."""

KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
"""A peer that is gone without a word is noticed in half a minute, even when nothing is being sent to it."""


def bound_kernel_buffer(sock: socket.socket, bytes_per_second: int) -> None:
    """Bound what the kernel holds for a listener's socket.

    Args:
        sock: A connected TCP socket; of other kinds nothing is set.
        bytes_per_second: Rate of the audio that it carries.
    """
    if not _is_tcp(sock):
        return
    unsent = _unsent_bytes(bytes_per_second)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)


def room_bytes(bytes_per_second: int) -> int:
    """Give how much a listener's socket takes for certain, of that audio, when it says that it is writable.

    Linux says so when less than half of `TCP_NOTSENT_LOWAT` waits, and takes data until all of it does.
    """
    return _unsent_bytes(bytes_per_second) // 2


def _unsent_bytes(bytes_per_second: int) -> int:
    return max(MIN_UNSENT_BYTES, int(bytes_per_second * UNSENT_SECONDS))


@contextlib.contextmanager
def without_bound(sock: socket.socket, bytes_per_second: int) -> Iterator[None]:
    """Have the kernel take whatever is written in this block, up to some 200 KiB.

    What is begun must be completed, and waits here or in the kernel. In the kernel it can't grow old unnoticed.

    Args:
        sock: As `bound_kernel_buffer` was given.
        bytes_per_second: Likewise.
    """
    with contextlib.suppress(OSError):
        if _is_tcp(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNBOUNDED)
    yield
    with contextlib.suppress(OSError):
        bound_kernel_buffer(sock, bytes_per_second)


def bound_receive_buffer(sock: socket.socket, size: int) -> None:
    """Bound what the kernel holds of what a peer sent and the relay did not read yet.

    Args:
        sock: A connected TCP socket; of other kinds nothing is set.
        size: In bytes.
    """
    if _is_tcp(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def notice_dead_peer(sock: socket.socket, unacknowledged_seconds: float | None) -> None:
    """Have the kernel end a connection whose other end is gone.

    Args:
        sock: A connected TCP socket; of other kinds nothing is set.
        unacknowledged_seconds: How long data may stay unacknowledged, or the peer's window closed; None for ever.
    """
    if not _is_tcp(sock):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not hasattr(socket, "TCP_USER_TIMEOUT"):  # only Linux has all of them
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    if unacknowledged_seconds is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged_seconds * 1000))


def discard_unsent(sock: socket.socket) -> None:
    """Have the kernel throw away what was not sent when the socket is closed, instead of keeping it for minutes.

    Args:
        sock: A socket that is about to be closed; its peer sees a reset. Nothing when it is closed already.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def widen_backlog(descriptor: int, connections: int) -> None:
    """Let a listening socket hold more connections until they are accepted.

    Event loops use one number for the kernel's queue and for how many they accept in one turn; this sets the first
    alone.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.listen(connections)


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)
