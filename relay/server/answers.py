"""Answers to the control messages that every role may send."""

from relay.hub.hub import Hub
from relay.protocol import messages
from relay.server.connection import RelayConnection


async def answer_common(connection: RelayConnection, hub: Hub, message: messages.ControlMessage) -> None:
    """Answer a `ping`; messages of unknown types are ignored, so that newer clients can be served."""
    if message["type"] != "ping":
        hub.ignored_messages += 1
    elif connection.speaks_relay:
        await connection.send(messages.pong_message(message, hub.clock_ms))
