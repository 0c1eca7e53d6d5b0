"""Answers to the control messages that every role may send."""

from relay.hub.hub import Hub
from relay.protocol.json_messages import ControlMessage
from relay.protocol.messages import Ping
from relay.server.connection import RelayConnection


async def answer_common(connection: RelayConnection, hub: Hub, message: ControlMessage) -> None:
    """Answer a `ping`; messages of unknown types are ignored, so that newer clients can be served."""
    if message["type"] != Ping.TYPE:
        hub.ignored_messages += 1
    elif connection.speaks_relay:
        await connection.send(Ping.read(message).answer(hub.clock_ms))
