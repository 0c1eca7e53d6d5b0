"""Socket options of the relay.

Linux accepts megabytes into a TCP socket before a write fails. That is minutes of audio that no buffer of the relay
knows of. `TCP_NOTSENT_LOWAT` bounds the unsent data, and `SO_SNDBUF` bounds all unacknowledged data.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

UNSENT_SECONDS = 0.2
"""Audio that may wait in the kernel for the network. With less, a fast network would run dry between passes."""

MIN_UNSENT_BYTES = 1024
"""The least such bound. At the bit rate of speech in Opus, it is a quarter of a second."""

SEND_BUFFER_BYTES = 64 * 1024
"""Enough for 48 kHz stereo over a round trip of 300 ms. Linux doubles it for its own bookkeeping."""

_UNBOUNDED = 0x7FFF_FFFF
"""The value of `TCP_NOTSENT_LOWAT` for no bound."""

RECEIVE_BUFFER_BYTES = 8 * 1024
"""Clients other than broadcasters send little. This bounds how much of a flood the kernel holds."""

BROADCAST_RECEIVE_BYTES = 256 * 1024
"""At least a second of any audio, for networks that deliver in bursts. A broadcaster that is too far ahead has at most
this much waiting unread. Linux doubles it for its own bookkeeping."""

KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 3
"""A peer that vanished is noticed within half a minute, even if the relay sends nothing to it."""

_MOST_MS = 0x7FFF_FFFF
"""The greatest `TCP_USER_TIMEOUT`, about 25 days."""


def bound_kernel_buffer(sock: socket.socket, bytes_per_second: int) -> None:
    """Bound what the kernel holds for a listener's socket whose audio has this rate.

    Sockets other than TCP stay unchanged.
    """
    if not _is_tcp(sock):
        return
    unsent = _unsent_bytes(bytes_per_second)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)


def room_bytes(bytes_per_second: int) -> int:
    """Return how many bytes a writable listener socket with this audio accepts for certain.

    Linux reports a socket as writable while less than half of `TCP_NOTSENT_LOWAT` waits, and accepts data until all of
    it does.
    """
    return _unsent_bytes(bytes_per_second) // 2


def _unsent_bytes(bytes_per_second: int) -> int:
    return max(MIN_UNSENT_BYTES, int(bytes_per_second * UNSENT_SECONDS))


@contextlib.contextmanager
def without_bound(sock: socket.socket, bytes_per_second: int) -> Iterator[None]:
    """Let the kernel accept whatever is written in this block, up to about 200 KiB.

    A frame that has begun must be completed, so its rest waits here or in the kernel. The kernel notices if it waits
    too long. The arguments are those of `bound_kernel_buffer`.
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
    """Bound the bytes that the kernel holds of a peer's data until the relay reads them.

    Sockets other than TCP stay unchanged.
    """
    if _is_tcp(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def notice_dead_peers(descriptor: int, unacknowledged_seconds: float | None) -> None:
    """Let the kernel end connections whose other end is gone.

    Args:
        descriptor: A listening socket. The sockets that it accepts inherit these options.
        unacknowledged_seconds: How long data may stay unacknowledged or the peer's window closed. None means forever.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not hasattr(socket, "TCP_USER_TIMEOUT"):  # only Linux has all four options
            return
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        if unacknowledged_seconds is not None:
            most_ms = int(min(unacknowledged_seconds * 1000, _MOST_MS))
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, most_ms)


def discard_unsent(sock: socket.socket | None) -> None:
    """Make the kernel discard unsent data when the socket is closed, instead of keeping it for minutes.

    Call this just before closing. The peer sees a reset. A closed socket is ignored, and so is None: asyncio's
    transport over TLS has no socket between the loss of its connection and the call of `connection_lost`.
    """
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def widen_backlog(descriptor: int, connections: int) -> None:
    """Let a listening socket queue more connections until they are accepted.

    Event loops use one number for the kernel's queue and for how many connections they accept per turn. This changes
    only the queue.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.listen(connections)


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)
