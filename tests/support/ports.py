"""Ports for tests: no two tests get the same port, and the kernel assigns none of them to another program.

A client that reconnects remembers the port of a relay that has stopped. If the kernel had chosen that port, it could
assign it next to another test's relay, and the client would reach the wrong relay.

Each process takes a block of ports at a time. It holds a block by keeping the block's first port bound, so other
workers, and test runs in other checkouts, choose other blocks.
"""

import random
import socket
from collections.abc import Iterator

FIRST_PORT, PORTS_PER_BLOCK, BLOCKS = 20_000, 250, 48
"""These ports lie below the range from which Linux assigns ports."""

_gates: list[socket.socket] = []


def _hold(port: int) -> socket.socket | None:
    """Bind a port, and return its socket; None if another process uses the port."""
    gate = socket.socket()
    try:
        gate.bind(("127.0.0.1", port))
    except OSError:
        gate.close()
        return None
    return gate


def _ports() -> Iterator[int]:
    """Yield the ports of one block after another, each once."""
    # A generator of its own leaves the seeds of tests and hypothesis alone.
    for block in random.SystemRandom().sample(range(BLOCKS), BLOCKS):
        first = FIRST_PORT + block * PORTS_PER_BLOCK
        gate = _hold(first)
        if gate is not None:
            _gates.append(gate)
            yield from range(first + 1, first + PORTS_PER_BLOCK)


_left = _ports()


def free_port() -> int:
    """Return a loopback port that nobody uses and that no test of this run has used before."""
    for port in _left:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"All {BLOCKS} blocks of ports are taken. Are many test runs active on this machine?")
