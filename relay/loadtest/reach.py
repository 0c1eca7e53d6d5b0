"""Finding the one IP address that all listeners of a load test connect to."""

import socket

from relay.vocabulary.errors import UserError

CONNECT_SECONDS = 5.0
"""How long one address may take to answer."""


def reach(host: str, port: int) -> str:
    """Give the first IP address of a host that accepts a connection, so that thousands need not look for it.

    Raises:
        UserError: None does.
    """
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as probe:
            return str(probe.getpeername()[0])
    except OSError as error:
        raise UserError(
            f"Listeners can not connect to {host} port {port}: {error.strerror or error}. They connect directly, "
            "without a proxy."
        ) from error
