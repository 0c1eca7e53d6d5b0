"""The listening socket, and the setup of each accepted WebSocket.

Invariants: audio enters only through `Broadcasting.publish`. A peer's fault closes only that peer's connection.
Stopping ends before its deadline, whatever the peers do.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Self

from websockets.server import ServerProtocol

from relay.access.rules import Permit
from relay.hub.framing import HttpFraming
from relay.hub.hub import Hub
from relay.limits.in_force import LimitsInForce
from relay.process.tasks import TaskRegistry
from relay.protocol.messages import Goaway
from relay.protocol.requests import ConnectRequest, Role
from relay.server.addresses import cannot_listen, open_sockets
from relay.server.admission import Admitted
from relay.server.broadcaster import BroadcasterConversation
from relay.server.connection import RelayConnection
from relay.server.door import Door
from relay.server.endings import Endings
from relay.server.http import HttpConnection
from relay.server.keepalive import keep_alive
from relay.server.kernel import (
    BROADCAST_RECEIVE_BYTES,
    bound_receive_buffer,
    notice_dead_peers,
    widen_backlog,
)
from relay.server.listener import ListenerConversation
from relay.server.rechecks import Rechecks
from relay.server.served import ServedConnection
from relay.server.shutdown import ShutdownPlan, plan_departures
from relay.server.stream import StreamConnection, StreamConversation
from relay.server.tls_handshake import TlsHandshake
from relay.server.writable import WritableSockets
from relay.settings.settings import ListenerSettings, ServerSettings
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import CloseCode, RelayError, TokenExpiredError

ACCEPT_BATCH = 4
"""Connections accepted per turn of the event loop, so that many new clients do not delay the connected ones."""

PENDING_CONNECTIONS = 4096
"""Number of connections that the kernel may hold until they are accepted. Beyond it, a client's first attempt is lost,
and it retries after a second."""

DEAD_PEER_SECONDS = 5.0
"""The kernel gives a peer up this much later than the stall limit, so that the log reports a stall first."""

STEP_SECONDS = 0.01
"""Clients that a stopping relay asks to leave within this time are asked at once."""

LEAVING_SECONDS = 0.01
"""Interval at which a stopping relay checks how far it is."""

MAX_LISTENER_MESSAGE_BYTES = 16 * 1024
"""A listener's messages may have at most 4 KiB. Longer ones up to this size are still read, so that the relay can
explain the error."""

logger = logging.getLogger(__name__)


class RelayServer:
    """Listens and serves clients. It is an async context manager: clients are served inside it.

    `plan` says how long stopping may take. `sockets` are bound already, and other processes may accept from them too;
    without them, the server binds its own.

    Attributes:
        tls: The TLS context for new connections. None for plain HTTP. May be replaced.
    """

    def __init__(
        self,
        hub: Hub,
        door: Door,
        rechecks: Rechecks,
        limits: LimitsInForce,
        tasks: TaskRegistry,
        *,
        endings: Endings,
        tls: ssl.SSLContext | None,
        plan: ShutdownPlan,
        server: ServerSettings,
        listener: ListenerSettings,
        sockets: Sequence[socket.socket] | None = None,
    ) -> None:
        self._hub = hub
        self._door = door
        self._rechecks = rechecks
        self._limits = limits
        self._endings = endings
        self._tasks = tasks
        self.tls = tls
        self._plan = plan
        self._settings = server
        self._sockets = sockets
        self._stall_limit_seconds = listener.stall_limit_seconds
        self._writable = WritableSockets()
        self._handshakes = TaskRegistry()
        self._connections: set[RelayConnection] = set()
        self._streams: set[StreamConnection] = set()
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        """Start listening.

        Raises:
            ConfigurationError: The address is in use or not available, or two hosts share an address.
        """
        settings = self._settings
        self._door.allow_connections()
        sockets = open_sockets(settings.host, settings.port) if self._sockets is None else self._sockets
        self._writable.open()
        loop = asyncio.get_running_loop()
        try:
            for sock in sockets:
                self._servers.append(await loop.create_server(self._make_protocol, sock=sock, backlog=ACCEPT_BATCH))
        except OSError as error:
            for sock in sockets:
                sock.close()
            self._writable.close()
            raise cannot_listen(settings.host, settings.port, error) from error
        limit = self._stall_limit_seconds
        for listening in sockets:
            widen_backlog(listening.fileno(), PENDING_CONNECTIONS)
            notice_dead_peers(listening.fileno(), None if limit is None else limit + DEAD_PEER_SECONDS)
        alive = keep_alive(lambda: self._connections, limit)
        self._tasks.start(alive, "keepalive", is_vital=True)
        self._door.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop accepting, ask all clients to reconnect later, and cut off those that remain at the deadline."""
        try:
            await self._stop()
        finally:
            self._writable.close()
            await self._handshakes.close()

    async def _stop(self) -> None:
        self._door.is_open = False
        logger.info("relay stopping", extra={"connections": len(self._connections) + len(self._streams)})
        await asyncio.sleep(self._settings.shutdown_delay_seconds)
        for server in self._servers:
            server.close()
        plan = self._plan
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.closing):
                await self._let_sessions_end(plan.ending)
                await self._see_all_off(plan.window)
                self._door.cut_off_pending()
                await self._handshakes.join()
                await self._everybody_has_gone()
                return
        left = [*self._connections, *self._streams]
        logger.warning("clients that did not disconnect in time were cut off", extra={"connections": len(left)})
        self._door.cut_off_pending()
        for connection in left:
            connection.cut_off("The client did not disconnect before the relay stopped.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.cut_off):
                await self._everybody_has_gone()

    async def _let_sessions_end(self, seconds: float) -> None:
        """Let listeners of sessions that ended learn so. Otherwise they would come back, and wait for nothing.

        Audio that still waits for its time is sent in half of the time. What could not even be encoded by then is
        discarded, so it is the end that is missing. In a cluster, another node continues with that audio.
        """
        broadcasting, directory, is_shared = self._hub.broadcasting, self._hub.directory, self._hub.gate.is_shared
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):
                while (not is_shared and broadcasting.end_early()) or directory.ending:  # noqa: ASYNC110 - as below
                    await asyncio.sleep(LEAVING_SECONDS)
        if not is_shared:
            broadcasting.end_now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):
                while directory.ending:  # noqa: ASYNC110 - leaving listeners share no event
                    await asyncio.sleep(LEAVING_SECONDS)

    async def _see_all_off(self, window_seconds: float) -> None:
        """Ask all clients to leave: listeners first, so that nobody hears silence.

        If other relays serve the same channels, broadcasters move there first, and listeners hear them from there.
        """
        gate = self._hub.gate
        if gate.is_shared:
            broadcasters = [each for each in self._connections if each.role is Role.BROADCASTER]
            await _see_off(broadcasters, 0.0, others_serve=True)
            await gate.leave()
        await _see_off([*self._connections, *self._streams], window_seconds, others_serve=gate.is_shared)

    async def _everybody_has_gone(self) -> None:
        while not self._door.is_deserted:  # noqa: ASYNC110 - pending and open connections share no event
            await asyncio.sleep(LEAVING_SECONDS)

    @property
    def port(self) -> int:
        """The port that the server listens on. Useful if the configured port is 0. Ask inside the context only."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    def _make_protocol(self) -> asyncio.Protocol:
        """Return the protocol of an accepted socket."""
        connect = partial(HttpConnection, self._door, self, self._endings, self._limits, tasks=self._tasks)
        if self.tls is None:
            return connect(self._door)
        return TlsHandshake(connect, self.tls, self._door, self._limits, self._handshakes)

    def take_in_stream(
        self, transport: asyncio.Transport, admitted: Admitted, head: bytes, *, is_chunked: bool
    ) -> StreamConnection:
        """Create the stream that takes over a transport, and start to serve it."""
        assert not isinstance(admitted.found, RelayError)  # noqa: S101 - a refusal is an ordinary response
        request, permit = admitted.found
        container = request.delivery.container
        assert container is not None  # noqa: S101 - the door admits it as a stream
        framing = HttpFraming(container, is_chunked)
        connection = StreamConnection(
            transport, admitted, self._limits, framing, writable=self._writable, tell_end=self._tell_stream_end
        )
        self._door.take_seat(admitted, connection)
        self._streams.add(connection)
        transport.set_protocol(connection)
        transport.write(head)
        _tell_opening(connection, request)
        if self._watch(connection, permit):
            connection.converse(StreamConversation(connection, container, request, self._hub))
        return connection

    def take_in(
        self, transport: asyncio.Transport, protocol: ServerProtocol, admitted: Admitted, accepted: bytes
    ) -> RelayConnection:
        """Create the WebSocket that takes over a transport, and start to serve it."""
        connection = RelayConnection(
            transport, protocol, admitted, accepted, self._limits, writable=self._writable, tell_end=self._tell_end
        )
        self._door.take_seat(admitted, connection)
        self._connections.add(connection)
        transport.set_protocol(connection)
        if isinstance(admitted.found, RelayError):
            connection.refuse(admitted.found)
        else:
            self._serve(connection, *admitted.found)
        connection.send_data()
        return connection

    def _watch(self, connection: ServedConnection, permit: Permit) -> bool:
        """Hold a connection to its permit. Return False and refuse it if the permit has expired."""
        try:
            self._rechecks.watch(connection, permit)
        except TokenExpiredError as error:
            connection.refuse(error)
            return False
        return True

    def _serve(self, connection: RelayConnection, request: ConnectRequest, permit: Permit) -> None:
        _settle_in(connection, request)
        if not self._watch(connection, permit):
            return
        if request.role is Role.BROADCASTER:
            connection.converse(BroadcasterConversation(connection, request, self._hub))
        else:
            connection.converse(ListenerConversation(connection, request, permit, self._hub))

    def _tell_stream_end(self, connection: StreamConnection, loss: Exception | None) -> None:
        self._streams.discard(connection)
        self._tell_closing(connection, loss)

    def _tell_end(self, connection: RelayConnection, loss: Exception | None) -> None:
        self._connections.discard(connection)
        self._tell_closing(connection, loss)

    def _tell_closing(self, connection: ServedConnection, loss: Exception | None) -> None:
        """Count and log the end of a connection. `loss` is the transport's error, if there was one."""
        self._rechecks.forget(connection)
        closing = connection.closing(loss)
        self._endings.note_closing(closing, connection.role)
        level = logging.WARNING if closing.is_fault else logging.DEBUG if closing.is_ordinary else logging.INFO
        if not logger.isEnabledFor(level):
            return
        address = connection.address
        logger.log(
            level,
            "connection closed",
            extra={
                "connection": connection.id,
                "client": connection.client_address,
                "role": connection.role,
                "session": address and address.session,
                "channel": address and address.channel,
                "code": int(closing.code),
                "reason": closing.reason,
                "by": closing.by,
                "may_repeat": f"{closing.code} {connection.role} by {closing.by}",
            },
        )


def _settle_in(connection: RelayConnection, request: ConnectRequest) -> None:
    """Fit the connection's receive limits to the client's role, and log who connected."""
    is_listener = request.role is Role.LISTENER
    if is_listener:
        connection.protocol.max_message_size = MAX_LISTENER_MESSAGE_BYTES
    else:
        bound_receive_buffer(connection.transport.get_extra_info("socket"), BROADCAST_RECEIVE_BYTES)
    _tell_opening(connection, request)


def _tell_opening(connection: ServedConnection, request: ConnectRequest) -> None:
    is_listener = request.role is Role.LISTENER
    logger.log(
        logging.DEBUG if is_listener else logging.INFO,
        "connection opened",
        extra={
            "connection": connection.id,
            "client": connection.client_address,
            "role": request.role,
            "session": request.address.session,
            "channel": request.address.channel,
            "is_ordinary": not is_listener,
        },
    )


async def _see_off(connections: Iterable[ServedConnection], window_seconds: float, *, others_serve: bool) -> None:
    """Ask all clients to leave within a window: listeners in random order, then broadcasters."""
    leaving = list(connections)
    random.shuffle(leaving)
    leaving.sort(key=lambda connection: connection.role is Role.BROADCASTER)
    departures = plan_departures(len(leaving), window_seconds, random.random, others_serve=others_serve)
    began = relay_clock()
    for connection, departure in zip(leaving, departures, strict=True):
        wait_seconds = began + departure.at_seconds - relay_clock()
        if wait_seconds > STEP_SECONDS:
            await asyncio.sleep(wait_seconds)
        connection.send_text(Goaway(departure.reconnect_after_ms).text())
        connection.close(CloseCode.RESTARTING, CloseCode.RESTARTING.reason)
