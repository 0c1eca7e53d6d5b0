"""The conversation with a listener: this module reads its messages, and the hub greets and serves it.

Invariants: however the connection ends, the listener leaves the hub at the moment when writing becomes forbidden. The
hub knows immediately when the socket accepts no more data, and when it accepts data again.
"""

from functools import partial

from relay.access.rules import Permit
from relay.hub.framing import RAW, RELAY_V1
from relay.hub.gate import Then
from relay.hub.hub import Hub
from relay.hub.listener import Listener
from relay.limits.names import SWITCHES, Limit
from relay.protocol.json_messages import ControlMessage, decode
from relay.protocol.messages import DeliveryChange, ErrorNotice, Switch
from relay.protocol.requests import ConnectRequest, read_codecs
from relay.server.connection import BURST_SECONDS, RelayConnection, answer_common
from relay.server.guarded import Timer
from relay.server.ports import SocketPort, TlsPort
from relay.server.served import Conversation
from relay.vocabulary.audio import Codec
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import BadRequestError, NotAllowedError, PolicyError
from relay.vocabulary.names import ChannelAddress

WAITED_SECONDS = 0.05
"""If a socket took nothing for longer and then everything, its peer reads. After a shorter time, only the kernel or TLS
may have taken the data."""


class ListenerConversation(Conversation):
    """The conversation with a listener. `permit` says which other channels it may switch to."""

    __slots__ = ("_address", "_connection", "_delivery", "_hub", "_listener", "_permit")

    _listener: Listener

    def __init__(self, connection: RelayConnection, request: ConnectRequest, permit: Permit, hub: Hub) -> None:
        self._connection = connection
        self._address, self._delivery = request.address, request.delivery
        self._permit = permit
        self._hub = hub

    def prepare(self, then: Then) -> bool:
        """Bring the channel here."""
        return self._hub.gate.before_join(self._address, self._delivery, then)

    def begin(self) -> None:
        """Join the channel."""
        connection = self._connection
        port = (TlsPort if connection.is_over_tls else SocketPort)(connection)
        framing = RELAY_V1 if connection.speaks_relay else RAW
        self._serve(self._hub.listening.join(self._address, connection.id, port, framing, self._delivery))

    def _serve(self, listener: Listener) -> None:
        self._listener = listener
        if self._connection.is_full:
            self.block()

    def receive(self, message: str | bytes) -> None:
        """Handle a message."""
        connection = self._connection
        if not isinstance(message, str):
            raise PolicyError("A listener must not send audio; to broadcast, connect to /v1/broadcast/SESSION.")
        control = decode(message)
        if control["type"] == "switch" and connection.speaks_relay:
            self._switch_in_time(control)
        elif control["type"] == "delivery" and connection.speaks_relay:
            self._change_delivery(control)
        elif control["type"] == "stats" and connection.speaks_relay:
            self._listener.report = self._hub.reports.note(self._permit.address, control, self._listener.report)
        else:
            answer_common(connection, self._hub, control)

    def block(self) -> None:
        """Stop writing to the listener."""
        self._hub.listening.block(self._listener)

    def unblock(self) -> None:
        """Resume writing audio. A peer that kept the relay waiting has shown that it reads."""
        blocked_since = self._listener.blocked_since
        if blocked_since is not None and relay_clock() - blocked_since > WAITED_SECONDS:
            self._connection.intake.note_life()
        self._hub.listening.unblock(self._listener)

    def leave(self) -> None:
        """Leave the hub."""
        self._hub.listening.leave(self._listener)

    def _change_delivery(self, control: ControlMessage) -> None:
        connection = self._connection
        try:
            granted = self._hub.listening.change_delivery(self._listener, DeliveryChange.read(control))
        except BadRequestError as error:
            connection.send_text(ErrorNotice(error.close_code, str(error)).text())
        else:
            connection.send_text(granted.text())

    def _switch_in_time(self, control: ControlMessage) -> None:
        """Switch as soon as the rate limit of the address allows."""
        connection = self._connection
        if connection.spend(Limit.SWITCH_RATE, BURST_SECONDS):
            connection.end_over(Limit.SWITCH_RATE)
            return
        wait_seconds = connection.limits.overdraw(SWITCHES, connection.client_group)
        if wait_seconds:
            connection.read_later(Timer.SWITCH, wait_seconds, partial(self._switch, control))
        else:
            self._switch(control)

    def _switch(self, control: ControlMessage) -> None:
        """Move to the named channel and codec. A listener that may not, or that cannot be served, gets an `error`."""
        connection, permit = self._connection, self._permit
        if not connection.is_open:
            return
        try:
            wanted = Switch.read(control)
            address = permit.address
            if wanted.channel is not None:
                address = ChannelAddress(address.session, wanted.channel)
                permit.check_move(address)
            codecs = None if wanted.codec is None else read_codecs(wanted.codec)
        except (BadRequestError, NotAllowedError) as error:
            connection.send_text(ErrorNotice(error.close_code, str(error)).text())
        else:
            prepare = partial(self._hub.gate.before_join, address, self._delivery)
            connection.when_ready(prepare, partial(self._move, address, codecs))

    def _move(self, address: ChannelAddress, codecs: tuple[Codec, ...] | None) -> None:
        connection = self._connection
        try:
            moved = self._hub.listening.switch(self._listener, address.channel, codecs)
        except BadRequestError as error:
            connection.send_text(ErrorNotice(error.close_code, str(error)).text())
        else:
            self._permit.address = connection.address = address
            self._serve(moved)
