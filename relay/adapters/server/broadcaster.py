"""What is said with a broadcaster: a greeting, its audio, its control messages.

Invariants: audio enters only through `Hub.publish`; whatever ends the conversation, the channel is released.
"""

from relay.adapters.server.answers import answer_common
from relay.adapters.server.connection import RelayConnection
from relay.core import messages
from relay.core.requests import ConnectRequest
from relay.runtime.hub import Hub
from relay.runtime.live_channel import LiveChannel
from relay.vocabulary.errors import CloseCode, PolicyError

MAX_AUDIO_FAULTS = 5
"""Messages that are not whole samples: each is told, the fifth closes."""


async def serve_broadcaster(connection: RelayConnection, request: ConnectRequest, hub: Hub) -> None:
    """Claim the channel for an open connection and publish what it sends, until it ends.

    Raises:
        PeerError: The peer did what it must not; the caller tells it and closes.
        ConnectionClosed: The connection ended otherwise than by `end`.
    """
    connection_id = str(connection.id)
    live = hub.claim(request.address, request.audio_format, connection_id)
    try:
        if connection.speaks_relay:
            hello = messages.broadcaster_hello(
                connection_id=connection_id,
                address=request.address,
                audio_format=request.audio_format,
                clock_ms=hub.clock_ms,
            )
            await connection.send(hello)
        await _read(connection, hub, live)
    finally:
        hub.release(live, connection_id)


async def _read(connection: RelayConnection, hub: Hub, live: LiveChannel) -> None:
    faults = 0
    async for message in connection:
        if isinstance(message, str):
            if await _obey(connection, hub, live, message):
                return
            continue
        try:
            hub.publish(live, message)
        except PolicyError as error:
            faults += 1
            if faults >= MAX_AUDIO_FAULTS:
                raise
            if connection.speaks_relay:
                await connection.send(messages.error_message(error.close_code, str(error)))


async def _obey(connection: RelayConnection, hub: Hub, live: LiveChannel, text: str) -> bool:
    """Do what a control message says; tell whether the session ended by it."""
    message = messages.decode(text)
    if message["type"] == "end":
        hub.end(live)
        await connection.close_in_time(CloseCode.SESSION_ENDED, "The session ended.")
        return True
    await answer_common(connection, hub, message)
    return False
