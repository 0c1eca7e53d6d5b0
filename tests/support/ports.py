"""Ports that must be known before somebody listens at them, or must stay free while nobody does."""

import secrets
import socket

_FIRST, _COUNT = 20_000, 10_000
"""Below the ports that Linux gives to whoever asks for any, so nobody else's connection or server takes one."""


def free_port() -> int:
    """Give a loopback port that nobody uses; the range is large, so two who ask at once get different ones."""
    while True:
        port = _FIRST + secrets.randbelow(_COUNT)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
