"""A listener's connection to a relay: what the relay tells, as typed events, from one greeting to one close."""

from urllib.parse import urlencode

from relay.client.transport.connection import Endpoint, RelaySocket, open_socket
from relay.protocol.json_messages import Message
from relay.protocol.messages import ErrorNotice, Goaway, Hello, ListenerEvent, read_listener_event
from relay.protocol.requests import Role
from relay.vocabulary.names import ChannelAddress

SILENCE_SECONDS = 6.0
"""How long a relay may be silent that was asked; shorter than the audio that it keeps for those who return."""


class ListenerConnection:
    """A connection that receives a channel; made by `connect_listener`.

    Audio that nobody takes from here stays with the relay, whose bound on it applies.

    Attributes:
        hello: How the relay greeted.
    """

    def __init__(self, socket: RelaySocket, hello: Hello) -> None:
        """Take over a connection that was greeted."""
        self.hello = hello
        self._socket = socket

    async def receive(self) -> ListenerEvent | None:
        """Give what the relay tells next after its `hello`, or None when the session ended.

        Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and another is welcome.
            RelayError: It ended, and another is not; or what came is not of the protocol.
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
        """Send a control message; tells whether the connection is open."""
        return await self._socket.send(message.text())

    async def close(self) -> None:
        """Leave the channel; done twice, it does nothing."""
        await self._socket.close()


async def connect_listener(
    endpoint: Endpoint, address: ChannelAddress, **query: int | str | None
) -> ListenerConnection:
    """Become a listener of a channel, which need not have a broadcaster yet.

    Args:
        endpoint: The relay.
        address: The channel.
        query: What to ask for, by the names of the protocol; None leaves it to the relay.

    Raises:
        UserError: Nothing that speaks `relay.v1` answers there; an `UnreachableError` when later something may.
        ConnectionLostError: The relay closed the connection, and another is welcome.
        RelayError: The relay refused; the text is its own sentence.
    """
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    target = f"/v1/{Role.LISTENER}/{address}{'?' if asked else ''}{asked}"
    socket, hello = await open_socket(endpoint, target, Hello, SILENCE_SECONDS)
    return ListenerConnection(socket, hello)
