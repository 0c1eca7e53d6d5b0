"""A broadcaster that survives lost connections."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from relay.audio.amounts import AudioAmount
from relay.audio.timeline import Farewell
from relay.client.outbox import Dropping, Outbox
from relay.client.reconnect import PassingError, Reconnected, Reconnecting, Reconnector
from relay.client.send_queue import SendQueue
from relay.client.transport.broadcaster import BroadcasterConnection, connect_broadcaster
from relay.client.transport.connection import Endpoint
from relay.process.tasks import TaskRegistry
from relay.protocol.messages import Audience, Backpressure, BroadcasterEvent
from relay.protocol.requests import Offer
from relay.protocol.wire import split_audio
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import RelayError
from relay.vocabulary.names import ChannelAddress

END_TIMEOUT_SECONDS = 10.0
"""How long it may take to send all audio and to have the end confirmed, beyond the duration of the audio.

An outage may take as long. Then the time begins anew with the next connection, which has to send all of it.
"""

MAX_EVENTS = 64
"""Bound of the event queue. Beyond it the oldest are dropped, uncounted: the properties hold the current state."""

UNDER_WAY_SECONDS = 30.0
"""Maximum duration of audio that is sent but unconfirmed. It is kept, and sent again if it does not arrive.

This is more than a connection carries at full speed, and more than a microphone produces before a dead relay is
noticed. Only a stuck connection reaches it.
"""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The queue dropped audio that came too late, so that the rest is live again. The source cannot wait.

    Attributes:
        dropped_seconds: Duration of the dropped audio.
    """

    dropped_seconds: float


BroadcastingEvent = BroadcasterEvent | Reconnecting | Reconnected | CaughtUp
"""What the iteration over a broadcaster yields."""


@dataclass(frozen=True, slots=True)
class SendingStats:
    """What became of the audio.

    Attributes:
        sent: Audio handed to a connection. Audio that did not arrive when a connection broke is sent again, and counts
            once. If the relay restarted or forgot the channel meanwhile, it cannot say what arrived; then all counts.
        dropped: Audio of pace `live` that newer audio pushed out of the queue or that was too late to be live, and any
            audio left in the queue at the end.
        cleared: Audio that `clear` discarded before it was sent, or before it was sent again.
        queued_seconds: Duration of the audio that waits to be sent.
        reconnects: Number of connections after the first.
    """

    sent: AudioAmount
    dropped: AudioAmount
    cleared: AudioAmount
    queued_seconds: float
    reconnects: int


class Broadcaster:
    """Sends the audio of one channel; an async context manager, and within it an async iterator over events.

    Audio passes through a queue of at most `queue_seconds`; `dropping` says what happens when the queue is full. In
    pace `live`, audio leaves in real time, and late audio leaves four times as fast. Audio that did not arrive when a
    connection broke is sent first on the next one. All of it is sent if the source can wait, otherwise only what fits
    into the queue.

    If a token function raises when a reconnect calls it, the broadcast ends, and each method raises that error in place
    of a `RelayError`.

    Attributes:
        audience: The relay's latest report of the channel's listeners; None before the first.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: ChannelAddress,
        offer: Offer,
        reconnector: Reconnector,
        *,
        queue_seconds: float,
        dropping: Dropping,
    ) -> None:
        """Use `relay.client.broadcast` to create a broadcaster."""
        self.audience: Audience | None = None
        self._endpoint = endpoint
        self._address = address
        self._offer = offer
        self._reconnector = reconnector
        self._queue = SendQueue(queue_seconds, UNDER_WAY_SECONDS)
        self._outbox = Outbox(offer.pace, dropping, self._queue, relay_clock())
        self._reconnects = 0
        self._connection: BroadcasterConnection | None = None
        self._owes_clear = False
        self._is_muted = False
        self._farewell: Farewell | None = None
        # The farewell that the present connection, or the last one, has said.
        self._said: Farewell | None = None
        self._problem: Exception | None = None
        # Each event is set exactly while its condition holds; `_settle` updates them after every change.
        self._is_outage_over = asyncio.Event()
        self._may_put = asyncio.Event()
        self._may_send = asyncio.Event()
        self._is_over = asyncio.Event()
        self._events: deque[BroadcastingEvent] = deque(maxlen=MAX_EVENTS)
        self._has_events = asyncio.Event()
        self._tasks = TaskRegistry()

    async def __aenter__(self) -> Self:
        """Connect, and become the channel's broadcaster.

        Raises:
            UserError: Nothing at the address speaks `relay.v1`.
            RelayError: The relay refused; the text is the relay's own sentence.
        """
        connection = await connect_broadcaster(self._endpoint, self._address, self._offer)
        self._adopt(connection)
        self._tasks.start(self._run(connection), "broadcaster")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the channel. The session continues without a broadcaster, unless `end` or `pause` was called.

        If the body ended without an error, this first sends what is queued, and what may not have arrived. It waits at
        most 10 s beyond the audio's duration, then drops and counts the rest. Without a connection, it waits as long
        for one, and then for the audio.
        """
        try:
            if kind is None and (self.is_connected or self._queue or self._queue.under_way_seconds):
                with suppress(TimeoutError):
                    await self._finish(self._farewell or Farewell.NONE)
        finally:
            await self._tasks.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BroadcastingEvent:
        """Return the next event: from the relay, or about the connection.

        `end`, `pause` and leaving the context end the iteration. Iterating is optional: the latest 64 events are kept.

        Raises:
            RelayError: The connection is lost for good, or the session was ended at the relay.
        """
        await self._has_events.wait()
        if self._events:
            event = self._events.popleft()
            self._settle()
            return event
        if self._problem is not None:
            raise self._problem
        raise StopAsyncIteration

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    @property
    def is_held_back(self) -> bool:
        """Whether the relay wants no more audio for now."""
        return self._outbox.is_held_back

    @property
    def stats(self) -> SendingStats:
        """What became of the audio so far."""
        queue = self._queue
        return SendingStats(queue.taken, queue.dropped, queue.cleared, queue.held_seconds, self._reconnects)

    async def send(self, audio: bytes) -> None:
        """Queue whole samples of any length, or one Opus packet.

        If the queue is full, this waits or drops the oldest audio; see `Dropping`.

        While muted, this sends as much silence instead. If cancelled, it has queued as many samples as it could.

        Raises:
            PolicyError: The audio is not whole samples, or no well-formed packet; none of it is sent.
            RelayError: The connection is lost for good, or the session has ended.
        """
        audio_format = self._offer.audio_format
        for heard in split_audio(audio, audio_format):
            piece = audio_format.silence(heard) if self._is_muted else heard
            self._outbox.look(relay_clock())
            self._settle()
            await self._may_put.wait()
            self._check_open()
            now = relay_clock()
            self._outbox.put(piece, now)
            if late_seconds := self._outbox.take_late_seconds(now):
                self._tell(CaughtUp(late_seconds))
            self._settle()

    async def clear(self) -> None:
        """Discard all audio that listeners have not heard yet: here, at the relay and in the players.

        Without a connection, the relay receives this on the next one.

        Raises:
            RelayError: The connection is lost for good, or the session has ended.
        """
        self._check_open()
        self._outbox.clear(relay_clock())
        self._settle()
        if self._connection is not None:
            await self._send_clear(self._connection)

    async def mute(self, *, on: bool) -> None:
        """Send silence in place of audio from now on, or audio again. The relay informs listeners at once.

        Without a connection, the relay receives this on the next one.

        Raises:
            RelayError: The connection is lost for good, or the session has ended.
        """
        self._check_open()
        self._is_muted = on
        if self._connection is not None:
            await self._connection.mute(on=on)

    async def pause(self) -> None:
        """Send what is queued and leave, intending to return. Listeners are informed, and wait without a time limit.

        Without a connection, this waits for one as long as for the relay, before it sends.

        Raises:
            RelayError: The relay did not confirm within 10 s beyond the audio's duration, or the broadcast failed, or
                was over before.
        """
        await self._leave(Farewell.PAUSE)

    async def end(self) -> None:
        """Send what is queued and end the session. The relay informs listeners and closes the connection.

        Without a connection, this waits for one as long as for the relay, before it sends.

        Raises:
            RelayError: The relay did not confirm within 10 s beyond the audio's duration, or the broadcast failed, or
                was over before.
        """
        await self._leave(Farewell.END)

    async def _leave(self, farewell: Farewell) -> None:
        try:
            await self._finish(farewell)
        except TimeoutError as error:
            raise RelayError(
                f"The relay at {self._endpoint.url} did not confirm the {farewell} of {self._address} in time; check "
                "with `relay sessions`."
            ) from error
        if self._problem is not None:
            raise self._problem
        if self._said is not farewell:
            raise RelayError(
                f"The broadcast to {self._address} was over, so its {farewell} was not sent; connect again to send it."
            )

    async def _finish(self, farewell: Farewell) -> None:
        """Send the remaining audio, then `pause` or `end`, and wait until the relay closes the connection.

        Raises:
            TimeoutError: It took too long to get a connection, or to send and confirm everything on it.
        """
        self._farewell = farewell
        self._settle()
        for event in (self._is_outage_over, self._is_over):
            async with asyncio.timeout(END_TIMEOUT_SECONDS + self._lead_seconds):
                await event.wait()

    @property
    def _lead_seconds(self) -> float:
        """The longest time until the relay reads what is sent next.

        It holds back audio ahead of real time. What it has not confirmed may have to be sent again.
        """
        lead_seconds = 0.0 if self._connection is None else self._connection.lead_seconds
        return max(lead_seconds, self._queue.under_way_seconds) + self._queue.held_seconds

    async def _run(self, connection: BroadcasterConnection) -> None:
        """Serve one connection after another, until the session ends or the connection is lost for good."""
        try:
            while (lost := await self._serve(connection)) is not None:
                connection = await self._reconnect(lost)
        except Exception as error:  # noqa: BLE001 - the methods raise it, even an error of a token function
            self._problem = error
        finally:
            self._connection = None
            self._is_over.set()
            self._queue.drop()
            self._settle()
            await connection.close()

    async def _serve(self, connection: BroadcasterConnection) -> RelayError | None:
        """Send and read until the connection ends. Return the reason, or None if the session ended as requested."""
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(self._send_queued(connection), name="broadcaster's sender")
            try:
                await self._read(connection)
            except RelayError as error:
                return error
            finally:
                sender.cancel()
        return None

    async def _read(self, connection: BroadcasterConnection) -> None:
        while (event := await connection.receive()) is not None:
            match event:
                case Audience(accepted=accepted):
                    self.audience = event
                    self._queue.note_accepted(accepted)
                case Backpressure(on=on):
                    self._outbox.hold(relay_clock(), on=on)
            self._tell(event)
        if self._said is None:
            raise RelayError(f"The relay ended the broadcast to {self._address}.")

    async def _send_queued(self, connection: BroadcasterConnection) -> None:
        if self._owes_clear:
            await self._send_clear(connection)
        if self._is_muted:
            await connection.mute(on=True)
        while connection.is_open:
            await self._may_send.wait()
            # `clear` may have discarded the audio since the event was set.
            if self._owes_farewell:
                self._said = self._farewell or Farewell.NONE
                self._settle()
                await connection.leave(self._said)
            elif wait_seconds := self._outbox.wait_seconds(relay_clock()):
                await asyncio.sleep(wait_seconds)
            elif self._outbox.has_audio and connection.is_open:
                piece = self._outbox.take(relay_clock())
                self._settle()
                await connection.send_audio(piece)

    async def _send_clear(self, connection: BroadcasterConnection) -> None:
        # Even if this is cancelled, the clear is on its way. If it gets lost, the next connection owes it.
        self._owes_clear = False
        await connection.clear()

    async def _reconnect(self, lost: RelayError) -> BroadcasterConnection:
        """Try to connect until it succeeds.

        Raises:
            RelayError: There is no further attempt.
        """
        self._connection = None
        self._outbox.lose()
        while True:
            if not isinstance(lost, PassingError):
                raise lost
            self._tell(self._reconnector.lost(lost, relay_clock()))
            await asyncio.sleep(self._reconnector.wait_seconds(relay_clock()))
            try:
                connection = await connect_broadcaster(self._endpoint, self._address, self._offer)
            except PassingError as error:
                lost = error
                continue
            self._reconnects += 1
            self._adopt(connection)
            self._tell(Reconnected())
            return connection

    def _adopt(self, connection: BroadcasterConnection) -> None:
        self._reconnector.connected(relay_clock())
        self._connection = connection
        self._owes_clear = self._outbox.begin(connection.accepted, relay_clock())
        self._said = None
        # When this connection breaks, the relay may notice only after the next one has begun.
        self._offer = replace(self._offer, takeover=True, resume=connection.connection_id)
        self._settle()

    @property
    def _owes_farewell(self) -> bool:
        return self._farewell is not None and self._said is None and not self._queue

    def _tell(self, event: BroadcastingEvent) -> None:
        self._events.append(event)
        self._settle()

    def _check_open(self) -> None:
        if self._problem is not None:
            raise self._problem
        if self._is_over.is_set():
            raise RelayError(f"The broadcast to {self._address} is over.")

    def _settle(self) -> None:
        is_over = self._is_over.is_set()
        _keep(self._is_outage_over, is_over or self._connection is not None)
        may_send = self._connection is not None and (self._outbox.has_audio or self._owes_farewell)
        _keep(self._may_put, is_over or self._outbox.has_room)
        _keep(self._may_send, may_send)
        _keep(self._has_events, is_over or len(self._events) > 0)


def _keep(event: asyncio.Event, holds: bool) -> None:
    if holds:
        event.set()
    else:
        event.clear()
