"""What is said with a listener: it is greeted and served by the hub; here it is only read.

Invariant: whatever ends the conversation, the listener leaves the hub.
"""

import asyncio

from websockets.protocol import State

from relay.hub.batch import Framing
from relay.hub.hub import Hub
from relay.hub.listener import Listener
from relay.limits.names import SWITCHES, Limit
from relay.process.tasks import TaskRegistry
from relay.protocol import messages
from relay.protocol.json_messages import ControlMessage, decode
from relay.protocol.requests import ConnectRequest
from relay.server.answers import answer_common
from relay.server.connection import RelayConnection, SocketPort, TlsPort
from relay.server.guarded import BURST_SECONDS
from relay.vocabulary.errors import BadRequestError, NotAllowedError, PolicyError
from relay.vocabulary.names import ChannelAddress

LONGEST_WAIT_SECONDS = 0.25
"""How late a listener that has to wait may notice that its connection has ended."""


async def serve_listener(connection: RelayConnection, request: ConnectRequest, hub: Hub, tasks: TaskRegistry) -> None:
    """Join an open connection to its channel, and read what it says until it ends.

    Raises:
        PeerError: The peer did what it must not; the caller tells it and closes.
        ConnectionClosed: The connection ended.
    """
    framing = Framing.RELAY_V1 if connection.speaks_relay else Framing.RAW
    is_tls = connection.transport.get_extra_info("ssl_object") is not None
    port = (TlsPort if is_tls else SocketPort)(connection, tasks)
    listener = hub.listening.join(request.address, str(connection.id), port, framing, request.delivery)
    connection.attach(hub.listening, listener)
    try:
        # Always reading also keeps the library's receive queue empty, without which it notices no close.
        async for message in connection:
            if not isinstance(message, str):
                raise PolicyError("A listener must not send audio; broadcast at /v1/broadcast/SESSION.")
            control = decode(message)
            if control["type"] == "switch" and connection.speaks_relay:
                if await _may_switch(connection):
                    listener = _switch(connection, hub, listener, control)
            elif control["type"] == "stats" and connection.speaks_relay:
                listener.report = hub.reports.note(connection.permit.address, control, listener.report)
            else:
                await answer_common(connection, hub, control)
    finally:
        hub.listening.leave(listener)


async def _may_switch(connection: RelayConnection) -> bool:
    """Wait until the address may switch once more; False when the connection ends by that, or meanwhile."""
    if connection.spend(Limit.SWITCH_RATE, BURST_SECONDS):
        connection.end_over(Limit.SWITCH_RATE)
        return False
    wait_seconds = connection.limits.overdraw(SWITCHES, connection.client_group)
    while wait_seconds > 0 and connection.state is State.OPEN:
        await asyncio.sleep(min(wait_seconds, LONGEST_WAIT_SECONDS))
        wait_seconds -= LONGEST_WAIT_SECONDS
    return connection.state is State.OPEN


def _switch(connection: RelayConnection, hub: Hub, listener: Listener, control: ControlMessage) -> Listener:
    """Move a listener to the channel that it names; when that can not be, it is told why and stays where it is."""
    permit = connection.permit
    try:
        address = ChannelAddress(permit.address.session, messages.Switch.read(control).channel)
        permit.check_move(address)
        moved = hub.listening.switch(listener, address.channel)
    except (BadRequestError, NotAllowedError) as error:
        listener.port.send_text(messages.ErrorNotice(error.close_code, str(error)).text())
        return listener
    permit.address = connection.address = address
    connection.attach(hub.listening, moved)
    return moved
