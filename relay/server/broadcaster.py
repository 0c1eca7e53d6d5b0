"""The conversation with a broadcaster: a greeting, its audio, and its control messages.

Invariants: audio enters only through `Broadcasting.publish`. The relay stops reading from a broadcaster that is too far
ahead of real time, so TCP slows it down. However the conversation ends, the channel is released.
"""

import logging

from relay.hub.channel import Broadcaster
from relay.hub.gate import Then
from relay.hub.hub import Hub
from relay.protocol import messages
from relay.protocol.json_messages import ControlMessage
from relay.protocol.misplaced_audio import check_is_no_file, read_broadcaster_text
from relay.protocol.requests import ConnectRequest
from relay.protocol.wire import WORD_MASK
from relay.server.connection import RelayConnection, answer_common
from relay.server.guarded import Timer
from relay.server.ports import BroadcasterPort
from relay.server.served import Conversation
from relay.vocabulary.errors import AudioFaultError, BadRequestError, CloseCode

MAX_AUDIO_FAULTS = 5
"""Number of unsupported audio messages until the connection closes. Each one is answered with an error."""

LONGEST_HOLD_SECONDS = 0.25
"""How long reading pauses before the relay checks again whether the broadcaster may continue."""

logger = logging.getLogger(__name__)


class BroadcasterConversation(Conversation):
    """The conversation with a broadcaster."""

    __slots__ = ("_broadcaster", "_connection", "_faults", "_hub", "_is_first", "_request")

    def __init__(self, connection: RelayConnection, request: ConnectRequest, hub: Hub) -> None:
        self._connection = connection
        self._request = request
        self._hub = hub
        self._broadcaster: Broadcaster | None = None
        self._faults = 0
        self._is_first = True

    def prepare(self, then: Then) -> bool:
        """Make this relay the home of the channel."""
        request = self._request
        return self._hub.gate.before_claim(request.address, request.offer, self._connection.id, then)

    def begin(self) -> None:
        """Claim the channel and greet the broadcaster."""
        connection, address, offer = self._connection, self._request.address, self._request.offer
        port = BroadcasterPort(connection)
        broadcaster = self._broadcaster = self._hub.broadcasting.claim(address, offer, connection.id, port)
        hello = messages.BroadcasterHello(
            connection.id,
            broadcaster.accepted_before,
            session=address.session,
            channel=address.channel,
            pace=offer.pace,
            audio_format=offer.audio_format,
            epoch=broadcaster.start.epoch,
            next_seq=broadcaster.start.seq & WORD_MASK,
            clock_ms=self._hub.clock_ms,
            clock_id=self._hub.clock_id,
        )
        port.send_text(hello.text())

    def end(self) -> None:
        """Release the channel."""
        if self._broadcaster is not None:
            self._hub.broadcasting.release(self._broadcaster)

    def receive(self, message: str | bytes) -> None:
        """Handle a message. Messages after `end` and `pause` are ignored."""
        if self._broadcaster is None:
            return
        try:
            if isinstance(message, str):
                self._obey(self._broadcaster, read_broadcaster_text(message))
            else:
                self._publish(self._broadcaster, message)
        except AudioFaultError as error:
            self._faults += 1
            if self._faults == 1:
                _log_fault(self._broadcaster, error)
            if self._faults >= MAX_AUDIO_FAULTS:
                raise
            self._connection.send_text(messages.ErrorNotice(error.close_code, str(error)).text())

    def _publish(self, broadcaster: Broadcaster, message: bytes) -> None:
        is_first, self._is_first = self._is_first, False
        check_is_no_file(message, self._request.offer.audio_format.codec, is_first=is_first)
        self._hold_back(self._hub.broadcasting.publish(broadcaster, message))

    def _hold_back(self, seconds: float) -> None:
        if seconds and self._connection.is_open:
            self._connection.read_later(Timer.AHEAD, min(seconds, LONGEST_HOLD_SECONDS), self._go_on)

    def _go_on(self) -> None:
        if self._broadcaster is not None:
            self._hold_back(self._hub.broadcasting.wait_seconds(self._broadcaster))

    def _obey(self, broadcaster: Broadcaster, message: ControlMessage) -> None:
        broadcasting = self._hub.broadcasting
        match message["type"]:
            case "end":
                broadcasting.end(broadcaster)
                self._finish(CloseCode.SESSION_ENDED.reason)
            case "clear":
                broadcasting.clear(broadcaster)
            case "mute":
                try:
                    broadcasting.mute(broadcaster, on=messages.Mute.read(message).on)
                except BadRequestError as error:
                    self._connection.send_text(messages.ErrorNotice(error.close_code, str(error)).text())
            case "pause":
                broadcasting.pause(broadcaster)
                self._finish("The session continues when a broadcaster connects.")
            case _:
                answer_common(self._connection, self._hub, message)

    def _finish(self, reason: str) -> None:
        self.end()
        self._broadcaster = None
        self._connection.close(CloseCode.SESSION_ENDED, reason)


def _log_fault(broadcaster: Broadcaster, error: AudioFaultError) -> None:
    address = broadcaster.channel.address
    logger.warning(
        "a broadcaster sends audio that the relay cannot use",
        extra={
            "session": address.session,
            "channel": address.channel,
            "client": broadcaster.port.client_address,
            "reason": str(error),
            "may_repeat": True,
        },
    )
