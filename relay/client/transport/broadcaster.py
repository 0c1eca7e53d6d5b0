"""A broadcaster's connection to a relay: audio one way, typed events the other, from one greeting to one close."""

from urllib.parse import quote, urlencode

from relay.audio.timeline import Farewell
from relay.client.transport.connection import Endpoint, RelaySocket, open_socket
from relay.protocol import messages
from relay.protocol.requests import Offer, Role
from relay.vocabulary.audio import Piece
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.names import ChannelAddress

SILENCE_SECONDS = 10.0
"""How long a relay may be silent that was asked: on a slow network the question waits behind much audio."""


class BroadcasterConnection:
    """A connection that may publish; made by `connect_broadcaster`.

    Attributes:
        connection_id: Of the relay, for a later connection to ask what became of this one.
        accepted: How much the relay took of the connection that the offer named, in ticks; None when nobody knows.
    """

    def __init__(self, socket: RelaySocket, hello: messages.BroadcasterHello) -> None:
        """Take over a connection that was greeted."""
        self.connection_id = hello.connection_id
        self.accepted = hello.accepted
        self._socket = socket
        # The relay may hold back all that was sent until it is due, which is when its audio is over at the latest.
        self._audio_ends_at = 0.0
        self._is_told_regularly = False

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return self._socket.is_open

    @property
    def lead_seconds(self) -> float:
        """How much of what was sent on this connection is yet to be heard, at the most."""
        return max(0.0, self._audio_ends_at - relay_clock())

    async def send_audio(self, piece: Piece) -> bool:
        """Send audio, at most 256 KiB; waits while the relay takes no more.

        Returns:
            Whether the connection is open; when it is not, `receive` knows why.
        """
        self._audio_ends_at = max(self._audio_ends_at, relay_clock()) + piece.seconds
        if not self._is_told_regularly:
            self._socket.answers_by = max(self._socket.answers_by, self._audio_ends_at)
        return await self._socket.send(piece.audio)

    async def clear(self) -> bool:
        """Have thrown away what was sent and not heard yet; tells whether the connection is open."""
        self._audio_ends_at = 0.0
        return await self._socket.send(messages.Clear().text())

    async def mute(self, *, on: bool) -> bool:
        """Have listeners told that silence is meant, or no longer is; tells whether the connection is open."""
        return await self._socket.send(messages.Mute(on).text())

    async def receive(self) -> messages.BroadcasterEvent | None:
        """Give what the relay tells next, or None when the session ended or paused; this must be asked all the while.

        Cancelling it loses nothing.

        Raises:
            ConnectionLostError: The connection ended, and another is welcome.
            RelayError: It ended, and another is not; or what came is not of the protocol.
        """
        while (message := await self._socket.receive()) is not None:
            event = messages.read_broadcaster_event(message)
            match event:
                case None:
                    continue
                case messages.Audience():
                    # It comes every few seconds, also while nothing is read, so silence is silence.
                    self._is_told_regularly = True
                    self._socket.answers_by = 0.0
                case messages.ErrorNotice():
                    self._socket.notice = event
                case messages.Goaway():
                    self._socket.retry_after_seconds = event.reconnect_after_ms / 1000
            return event
        return None

    async def leave(self, farewell: Farewell) -> None:
        """Leave when the relay has read all that was sent; unless it is to end, the session goes on."""
        if farewell is Farewell.NONE:
            await self._socket.close(self.lead_seconds)
        else:
            await self._socket.send((messages.End() if farewell is Farewell.END else messages.Pause()).text())

    async def close(self) -> None:
        """Leave at once, whatever the relay has not read; done twice, it does nothing."""
        await self._socket.close()


async def connect_broadcaster(endpoint: Endpoint, address: ChannelAddress, offer: Offer) -> BroadcasterConnection:
    """Become the broadcaster of a channel.

    Raises:
        UserError: Nothing that speaks `relay.v1` answers there; an `UnreachableError` when later something may.
        ConnectionLostError: The relay closed the connection, and another is welcome.
        RelayError: The relay refused; the text is its own sentence.
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
