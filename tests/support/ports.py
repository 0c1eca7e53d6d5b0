"""The ports of tests: no two tests of a run get the same one, and the kernel gives none of them to anybody else.

A client that reconnects remembers the port of a relay that has gone. Had the kernel given that port, it could give it
next to another test's server, which would then meet a stranger.
"""

import itertools
import os
import secrets
import socket

FIRST_PORT, PORTS_PER_WORKER, WORKERS = 20_000, 3_000, 4
"""Below the range from which Linux takes ports by itself."""


def _start() -> int:
    """Return the first port of this process's part of the range; pytest-xdist numbers its workers gw0, gw1, …"""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return FIRST_PORT + worker % WORKERS * PORTS_PER_WORKER


_turns = itertools.count(secrets.randbelow(PORTS_PER_WORKER))


def free_port() -> int:
    """Return a loopback port that nobody uses and that this run has not used before."""
    while True:
        port = _start() + next(_turns) % PORTS_PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
