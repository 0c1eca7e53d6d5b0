"""A listener's connection to a relay: it receives typed events, from one greeting to one close."""

from urllib.parse import urlencode

from relay.client.transport.connection import Endpoint, RelaySocket, open_socket
from relay.protocol.json_messages import Message
from relay.protocol.messages import ErrorNotice, Goaway, Hello, ListenerEvent, read_listener_event
from relay.protocol.requests import Role
from relay.vocabulary.names import ChannelAddress

SILENCE_SECONDS = 6.0
"""How long a relay may leave a ping unanswered. The relay keeps more audio for listeners that return."""


class ListenerConnection:
    """A connection that receives a channel; created by `connect_listener`.

    Audio that is not received yet stays with the relay, whose bound applies.

    Attributes:
        hello: The relay's greeting.
    """

    def __init__(self, socket: RelaySocket, hello: Hello) -> None:
        self.hello = hello
        self._socket = socket

    async def receive(self) -> ListenerEvent | None:
        """Return the relay's next event after its `hello`, or None if the session ended.

        Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and the client may reconnect.
            RelayError: The connection ended, and the client must not reconnect; or the relay broke the protocol.
        """
        while (message := await self._socket.receive()) is not None:
            event = read_listener_event(message)
            match event:
                case None:
                    continue
                case ErrorNotice():
                    self._socket.notice = event
                case Goaway():
                    self._socket.retry_after_seconds = event.reconnect_after_ms / 1000
            return event
        return None

    async def tell(self, message: Message) -> bool:
        """Send a control message. Return whether the connection is open."""
        return await self._socket.send(message.text())

    async def close(self) -> None:
        """Leave the channel. A second call does nothing."""
        await self._socket.close()


async def connect_listener(
    endpoint: Endpoint, address: ChannelAddress, **query: int | str | None
) -> ListenerConnection:
    """Connect, and become a listener of a channel, which need not have a broadcaster yet.

    Args:
        endpoint: The relay.
        address: The channel.
        query: Parameters by their names in the protocol; None leaves one to the relay.

    Raises:
        UserError: Nothing there speaks `relay.v1`. It is an `UnreachableError` if a later attempt may succeed.
        ConnectionLostError: The relay closed the connection, and the client may reconnect.
        RelayError: The relay refused; the text is the relay's own sentence.
    """
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    target = f"/v1/{Role.LISTENER}/{address}{'?' if asked else ''}{asked}"
    socket, hello = await open_socket(endpoint, target, Hello, SILENCE_SECONDS)
    return ListenerConnection(socket, hello)
