"""A broadcaster's connection to a relay: it sends audio and receives typed events, from one greeting to one close."""

from urllib.parse import quote, urlencode

from relay.audio.timeline import Farewell
from relay.client.transport.connection import Endpoint, RelaySocket, open_socket
from relay.protocol import messages
from relay.protocol.requests import Offer, Role
from relay.vocabulary.audio import Piece
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.names import ChannelAddress

SILENCE_SECONDS = 10.0
"""How long a relay may leave a ping unanswered. On a slow network, the ping waits behind much audio."""


class BroadcasterConnection:
    """A connection that may broadcast; created by `connect_broadcaster`.

    Attributes:
        connection_id: The relay's name of this connection. A later connection names it to learn how much arrived.
        accepted: How much audio the relay took from the connection that the offer named, in ticks; None if unknown.
    """

    def __init__(self, socket: RelaySocket, hello: messages.BroadcasterHello) -> None:
        self.connection_id = hello.connection_id
        self.accepted = hello.accepted
        self._socket = socket
        # The relay may hold back everything sent until it is due, which is at the latest when its audio ends.
        self._audio_ends_at = 0.0
        self._is_told_regularly = False

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self._socket.is_open

    @property
    def lead_seconds(self) -> float:
        """The greatest possible duration of audio sent on this connection and not heard yet."""
        return max(0.0, self._audio_ends_at - relay_clock())

    async def send_audio(self, piece: Piece) -> bool:
        """Send at most 256 KiB of audio. Waits while the relay takes no more.

        Returns:
            Whether the connection is open. If it is not, `receive` raises the reason.
        """
        self._audio_ends_at = max(self._audio_ends_at, relay_clock()) + piece.seconds
        if not self._is_told_regularly:
            self._socket.answers_by = max(self._socket.answers_by, self._audio_ends_at)
        return await self._socket.send(piece.audio)

    async def clear(self) -> bool:
        """Ask the relay to discard audio that is not heard yet. Return whether the connection is open."""
        self._audio_ends_at = 0.0
        return await self._socket.send(messages.Clear().text())

    async def mute(self, *, on: bool) -> bool:
        """Announce intended silence to listeners, or its end. Return whether the connection is open."""
        return await self._socket.send(messages.Mute(on).text())

    async def receive(self) -> messages.BroadcasterEvent | None:
        """Return the relay's next event, or None if the session ended or paused. Must be called continuously.

        Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and the client may reconnect.
            RelayError: The connection ended, and the client must not reconnect; or the relay broke the protocol.
        """
        while (message := await self._socket.receive()) is not None:
            event = messages.read_broadcaster_event(message)
            match event:
                case None:
                    continue
                case messages.Audience():
                    # It arrives every few seconds, even while the relay reads nothing. From now on, silence means loss.
                    self._is_told_regularly = True
                    self._socket.answers_by = 0.0
                case messages.ErrorNotice():
                    self._socket.notice = event
                case messages.Goaway():
                    self._socket.retry_after_seconds = event.reconnect_after_ms / 1000
            return event
        return None

    async def leave(self, farewell: Farewell) -> None:
        """Leave once the relay has read everything. The session continues, unless the farewell is to end it."""
        if farewell is Farewell.NONE:
            await self._socket.close(self.lead_seconds)
        else:
            await self._socket.send((messages.End() if farewell is Farewell.END else messages.Pause()).text())

    async def close(self) -> None:
        """Leave at once, even if the relay has not read everything. A second call does nothing."""
        await self._socket.close()


async def connect_broadcaster(endpoint: Endpoint, address: ChannelAddress, offer: Offer) -> BroadcasterConnection:
    """Connect, and become the broadcaster of a channel.

    Raises:
        UserError: Nothing there speaks `relay.v1`. It is an `UnreachableError` if a later attempt may succeed.
        ConnectionLostError: The relay closed the connection, and the client may reconnect.
        RelayError: The relay refused; the text is the relay's own sentence.
    """
    target = f"/v1/{Role.BROADCASTER}/{address}?{_query(offer)}"
    socket, hello = await open_socket(endpoint, target, messages.BroadcasterHello, SILENCE_SECONDS)
    return BroadcasterConnection(socket, hello)


def _query(offer: Offer) -> str:
    members = {
        "codec": offer.audio_format.codec,
        "rate": offer.audio_format.rate,
        "channels": offer.audio_format.channels,
        "pace": offer.pace,
        "name": offer.label.name,
        "lang": offer.label.lang,
        "session_name": offer.session_name,
        "takeover": 1 if offer.takeover else None,
        "resume": offer.resume,
    }
    return urlencode({name: value for name, value in members.items() if value is not None}, quote_via=quote)
