"""Socket options that bound what the kernel holds for a listener.

Linux takes megabytes into a TCP socket before a write fails, which is minutes of audio that no buffer of ours
knows of. `TCP_NOTSENT_LOWAT` bounds what is not sent yet, `SO_SNDBUF` everything that is not acknowledged.
"""

import socket

UNSENT_SECONDS = 0.2
"""Audio that may wait in the kernel for the network; less would let a fast network run dry between passes."""

MIN_UNSENT_BYTES = 4096
"""Below this the kernel wakes the relay for every segment."""

SEND_BUFFER_BYTES = 64 * 1024
"""Enough for 48 kHz stereo over a round trip of 300 ms. Linux books twice this for its own bookkeeping."""


def bound_kernel_buffer(sock: socket.socket, bytes_per_second: int) -> None:
    """Bound what the kernel holds for a listener's socket.

    Args:
        sock: A connected TCP socket; of other kinds nothing is set.
        bytes_per_second: Rate of the audio that it carries.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    unsent = max(MIN_UNSENT_BYTES, int(bytes_per_second * UNSENT_SECONDS))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)
