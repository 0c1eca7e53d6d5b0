"""What is said with a listener: it is greeted and served by the hub; here it is only read.

Invariant: whatever ends the conversation, the listener leaves the hub.
"""

from relay.adapters.server.answers import answer_common
from relay.adapters.server.connection import RelayConnection, SocketPort
from relay.core import messages
from relay.core.requests import ConnectRequest
from relay.runtime.hub import Hub
from relay.runtime.listener import Framing
from relay.runtime.tasks import TaskRegistry
from relay.vocabulary.errors import PolicyError


async def serve_listener(connection: RelayConnection, request: ConnectRequest, hub: Hub, tasks: TaskRegistry) -> None:
    """Join an open connection to its channel, and read what it says until it ends.

    Raises:
        PeerError: The peer did what it must not; the caller tells it and closes.
        ConnectionClosed: The connection ended.
    """
    framing = Framing.RELAY_V1 if connection.speaks_relay else Framing.RAW
    port = SocketPort(connection, tasks)
    listener = hub.join(request.address, str(connection.id), port, framing, request.delivery)
    connection.attach(hub, listener)
    try:
        # Always reading also keeps the library's receive queue empty, without which it notices no close.
        async for message in connection:
            if not isinstance(message, str):
                raise PolicyError("A listener must not send audio; broadcast at /v1/broadcast/SESSION.")
            await answer_common(connection, hub, messages.decode(message))
    finally:
        hub.leave(listener)
