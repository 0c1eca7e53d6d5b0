"""The listening socket and what happens on each accepted WebSocket.

Invariants: audio enters only through `Broadcasting.publish`; a peer's fault closes that peer's connection and nothing
else; stopping ends before its deadline, whatever the peers do.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Self, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from relay.hub.hub import Hub
from relay.limits.in_force import LimitsInForce
from relay.process.tasks import TaskRegistry
from relay.protocol.requests import ConnectRequest, Role
from relay.protocol.wire import MAX_BROADCAST_BYTES
from relay.server.addresses import check_apart, find_addresses, listen_on_one_port
from relay.server.broadcaster import serve_broadcaster
from relay.server.closing import tell_closing
from relay.server.connection import RelayConnection
from relay.server.departure import see_off
from relay.server.door import Door
from relay.server.endings import Endings
from relay.server.guarded import CLOSE_SECONDS
from relay.server.keepalive import keep_alive
from relay.server.kernel import (
    BROADCAST_RECEIVE_BYTES,
    bound_receive_buffer,
    notice_dead_peer,
    widen_backlog,
)
from relay.server.listener import serve_listener
from relay.server.rechecks import Rechecks
from relay.server.responses import SERVER_HEADER, secure_response
from relay.server.shutdown import ShutdownPlan
from relay.server.tls_handshake import TlsHandshake
from relay.server.writable import WritableSockets
from relay.settings.settings import ListenerSettings, ServerSettings
from relay.vocabulary.errors import CloseCode, ConfigurationError, PeerError

ACCEPT_BATCH = 4
"""Connections accepted in one turn of the event loop, so that a crowd at the door does not delay those inside."""

PENDING_CONNECTIONS = 4096
"""Connections that the kernel may hold until they are accepted; of more, a client's first try is lost for a second."""

DEAD_PEER_SECONDS = 5.0
"""How much later than the stall limit the kernel gives a peer up by itself, so that the log tells of a stall."""

MAX_LISTENER_MESSAGE_BYTES = 16 * 1024
"""A listener's messages are at most 4 KiB; what is no larger than this is still read, to say what was wrong with it."""

logger = logging.getLogger(__name__)


class RelayServer:
    """An async context manager: inside it, clients are served."""

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
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            hub: Where audio goes.
            door: Answers opening handshakes.
            rechecks: Asks again, while a connection is open, whether it may be.
            limits: What clients may.
            tasks: Runs closing handshakes, and looks after open connections.
            endings: Counts how requests and connections end.
            tls: What it speaks TLS by; None for none.
            plan: How long stopping may take.
            server: Where to listen.
            listener: How long an answer is waited for.
        """
        self._hub = hub
        self._door = door
        self._rechecks = rechecks
        self._limits = limits
        self._endings = endings
        self._tasks = tasks
        self._tls = tls
        self._plan = plan
        self._settings = server
        self._stall_limit_seconds = listener.stall_limit_seconds
        self._writable = WritableSockets()
        self._handshakes = TaskRegistry()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen.

        Raises:
            ConfigurationError: The address is in use, or can't be listened on, or two hosts have one in common.
        """
        hosts, port = self._settings.host, self._settings.port
        check_apart(hosts)
        addresses = find_addresses(hosts)
        self._door.allow_connections()
        self._writable.open()
        try:
            self._server = await listen_on_one_port(addresses, port, partial(self._listen, addresses))
        except OSError as error:
            self._writable.close()
            raise ConfigurationError(
                f"Can not listen on {', '.join(hosts)} port {port}: {_reason(error)}. "
                "Choose another with --port or --host."
            ) from error
        for listening in self._server.sockets:
            widen_backlog(listening.fileno(), PENDING_CONNECTIONS)
        alive = keep_alive(lambda: self._connections, self._stall_limit_seconds)
        self._tasks.start(alive, "keepalive", is_vital=True)
        self._door.is_open = True
        return self

    async def _listen(self, addresses: Sequence[str], port: int) -> Server:
        return await serve(
            self._handle,  # type: ignore[arg-type] # create_connection decides the class
            addresses,  # type: ignore[arg-type] # create_server takes several
            port,
            process_request=self._door.process_request,  # type: ignore[arg-type] # create_connection decides the class
            process_response=self._complete,
            compression=None,
            server_header=SERVER_HEADER,
            ping_interval=None,
            open_timeout=None,
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_BROADCAST_BYTES,
            write_limit=0,
            create_connection=self._make_protocol,  # type: ignore[arg-type] # a callable does
            backlog=ACCEPT_BATCH,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop accepting, tell everybody to go and come back, and cut off whoever is left when the time is over."""
        server = self._server
        if server is None:
            return
        try:
            await self._stop(server)
        finally:
            self._writable.close()
            await self._handshakes.close()

    async def _stop(self, server: Server) -> None:
        self._door.is_open = False
        logger.info("relay stopping", extra={"connections": len(server.connections)})
        await asyncio.sleep(self._settings.shutdown_delay_seconds)
        server.close(close_connections=False)
        plan = self._plan
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.closing):
                await see_off(self._connections, plan.window)
                self._door.cut_off_pending()
                await self._handshakes.join()
                await server.wait_closed()
                return
        left = self._connections
        logger.warning("clients that did not close in time are cut off", extra={"connections": len(left)})
        self._door.cut_off_pending()
        for connection in left:
            connection.cut_off("It did not close before the relay stopped.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.cut_off):
                await server.wait_closed()

    @property
    def _connections(self) -> Collection[RelayConnection]:
        """All that completed the opening handshake and are not gone."""
        assert self._server is not None  # noqa: S101 - asked inside the context only
        return cast("set[RelayConnection]", self._server.all_connections)

    @property
    def port(self) -> int:
        """The port that it listens on; useful when any free one was asked for."""
        assert self._server is not None  # noqa: S101 - asked inside the context only
        return int(self._server.sockets[0].getsockname()[1])

    def _make_protocol(self, *arguments: object, **options: object) -> asyncio.Protocol:
        """Make what the event loop tells of an accepted socket (called by the library, with options of its own)."""
        connect = partial(
            RelayConnection,
            *arguments,  # type: ignore[arg-type] # the library's
            **options,  # type: ignore[arg-type] # the library's
            limits=self._limits,
            writable=self._writable,
            tell_end=partial(tell_closing, self._endings),
        )
        if self._tls is None:
            return connect(attendance=self._door)
        return TlsHandshake(
            lambda attendance: connect(attendance=attendance), self._tls, self._door, self._limits, self._handshakes
        )

    def _complete(self, connection: ServerConnection, request: Request, response: Response) -> Response:
        self._endings.note_answer(response.status_code)
        return secure_response(connection, request, response)

    async def _handle(self, connection: RelayConnection) -> None:
        limit = self._stall_limit_seconds
        dead_after = None if limit is None else limit + DEAD_PEER_SECONDS
        notice_dead_peer(connection.transport.get_extra_info("socket"), dead_after)
        connection.forget_handshake()
        admission = connection.admission
        if not isinstance(admission, ConnectRequest):
            await connection.refuse(admission)
            return
        _settle_in(connection, admission)
        try:
            self._rechecks.watch(connection, connection.permit)
            if admission.role is Role.BROADCASTER:
                await serve_broadcaster(connection, admission, self._hub, self._tasks)
            else:
                await serve_listener(connection, admission, self._hub, self._tasks)
        except ConnectionClosed:
            return
        except PeerError as error:
            await connection.refuse(error)
        except Exception:
            logger.exception("a connection failed by our fault", extra={"connection": str(connection.id)})
            await connection.close_in_time(CloseCode.INTERNAL, CloseCode.INTERNAL.reason)
        finally:
            self._rechecks.forget(connection)


def _settle_in(connection: RelayConnection, request: ConnectRequest) -> None:
    """Fit what a connection may send to its role, and write down who came."""
    is_listener = request.role is Role.LISTENER
    if is_listener:
        connection.protocol.max_message_size = MAX_LISTENER_MESSAGE_BYTES
    else:
        bound_receive_buffer(connection.transport.get_extra_info("socket"), BROADCAST_RECEIVE_BYTES)
    logger.log(
        logging.DEBUG if is_listener else logging.INFO,
        "connection opened",
        extra={
            "connection": str(connection.id),
            "client": connection.client_address,
            "role": request.role,
            "session": request.address.session,
            "channel": request.address.channel,
        },
    )


def _reason(error: OSError) -> str:
    """Give the plain reason; asyncio wraps it in words about the address, which the sentence names already."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error)
    return os.strerror(error.errno).lower()
