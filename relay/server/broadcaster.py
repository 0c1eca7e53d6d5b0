"""What is said with a broadcaster: a greeting, its audio, its control messages.

Invariants: audio enters only through `Broadcasting.publish`; a broadcaster that is too far ahead of real time is not
read, so that TCP slows it down; whatever ends the conversation, the channel is released.
"""

import asyncio
import logging

from websockets.protocol import State

from relay.hub.channel import Broadcaster
from relay.hub.hub import Hub
from relay.process.tasks import TaskRegistry
from relay.protocol import messages
from relay.protocol.json_messages import ControlMessage
from relay.protocol.misplaced_audio import check_is_pcm, read_broadcaster_text
from relay.protocol.requests import ConnectRequest
from relay.protocol.wire import WORD_MASK
from relay.server.answers import answer_common
from relay.server.connection import BroadcasterPort, RelayConnection
from relay.vocabulary.errors import AudioFaultError, BadRequestError, CloseCode

MAX_AUDIO_FAULTS = 5
"""Messages with audio that the relay can't take: each is told, the fifth closes."""

LONGEST_HOLD_SECONDS = 0.25
"""How late a broadcaster that is held back may notice that it was replaced, or that it may go on."""


logger = logging.getLogger(__name__)


async def serve_broadcaster(
    connection: RelayConnection, request: ConnectRequest, hub: Hub, tasks: TaskRegistry
) -> None:
    """Claim the channel for an open connection and publish what it sends, until it ends.

    Raises:
        PeerError: The peer did what it must not; the caller tells it and closes.
        ConnectionClosed: The connection ended otherwise than by `end` or `pause`.
    """
    connection_id, offer = str(connection.id), request.offer
    port = BroadcasterPort(connection, tasks)
    broadcaster = hub.broadcasting.claim(request.address, offer, connection_id, port)
    try:
        place = broadcaster.start
        hello = messages.BroadcasterHello(
            connection_id,
            broadcaster.accepted_before,
            session=request.address.session,
            channel=request.address.channel,
            pace=offer.pace,
            audio_format=offer.audio_format,
            epoch=place.epoch,
            next_seq=place.seq & WORD_MASK,
            clock_ms=hub.clock_ms,
        )
        port.send_text(hello.text())
        await _read(connection, hub, broadcaster)
    finally:
        hub.broadcasting.release(broadcaster)


async def _read(connection: RelayConnection, hub: Hub, broadcaster: Broadcaster) -> None:
    faults = 0
    is_first = True
    async for message in connection:
        wait_seconds = 0.0
        try:
            if isinstance(message, str):
                if await _obey(connection, hub, broadcaster, read_broadcaster_text(message)):
                    return
            else:
                check_is_pcm(message, is_first=is_first)
                is_first = False
                wait_seconds = hub.broadcasting.publish(broadcaster, message)
        except AudioFaultError as error:
            faults += 1
            if faults == 1:
                _log_fault(broadcaster, error)
            if faults >= MAX_AUDIO_FAULTS:
                raise
            broadcaster.port.send_text(messages.ErrorNotice(error.close_code, str(error)).text())
        while wait_seconds and connection.state is State.OPEN:
            await asyncio.sleep(min(wait_seconds, LONGEST_HOLD_SECONDS))
            wait_seconds = hub.broadcasting.wait_seconds(broadcaster)


def _log_fault(broadcaster: Broadcaster, error: AudioFaultError) -> None:
    address = broadcaster.address
    logger.warning(
        "a broadcaster sends audio that is not taken",
        extra={
            "session": address.session,
            "channel": address.channel,
            "client": broadcaster.port.client_address,
            "reason": str(error),
            "may_repeat": True,
        },
    )


async def _obey(connection: RelayConnection, hub: Hub, broadcaster: Broadcaster, message: ControlMessage) -> bool:
    """Do what a control message says; tell whether the broadcast ended by it."""
    match message["type"]:
        case "end":
            hub.broadcasting.end(broadcaster)
            await connection.close_in_time(CloseCode.SESSION_ENDED, CloseCode.SESSION_ENDED.reason)
            return True
        case "clear":
            hub.broadcasting.clear(broadcaster)
        case "mute":
            try:
                hub.broadcasting.mute(broadcaster, on=messages.Mute.read(message).on)
            except BadRequestError as error:
                broadcaster.port.send_text(messages.ErrorNotice(error.close_code, str(error)).text())
        case "pause":
            hub.broadcasting.pause(broadcaster)
            await connection.close_in_time(CloseCode.SESSION_ENDED, "The session goes on when a broadcaster comes.")
            return True
        case _:
            await answer_common(connection, hub, message)
    return False
