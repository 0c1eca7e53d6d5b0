"""A listener that survives lost connections."""

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from relay.client.reception import Reception, ReceptionEvent, ReceptionStats
from relay.client.reconnect import PassingError, Reconnecting, Reconnector
from relay.client.transport.connection import Endpoint
from relay.client.transport.listener import ListenerConnection, connect_listener
from relay.process.tasks import TaskRegistry
from relay.protocol.messages import (
    ChannelEntry,
    DeliveryChange,
    ErrorNotice,
    Hello,
    ListenerEvent,
    Ping,
    Pong,
    Switch,
)
from relay.protocol.wire import WORD_MASK, Audio, serial_difference
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.clock_offset import ClockOffset
from relay.vocabulary.errors import CloseCode, RelayError
from relay.vocabulary.names import ChannelAddress

CodecName = Codec | Literal["pcm_s16le", "opus"]

MAX_QUESTIONS = 16
"""Bound of the unanswered pings. Beyond it, the oldest is forgotten, uncounted, and its answer has no effect."""

AskedCodecs = CodecName | Sequence[CodecName]
"""The codec that a program plays, or several, the best first."""

ListeningEvent = ReceptionEvent | Reconnecting
"""What the iteration over a listener yields."""


class Listener:
    """Receives one channel of a session; an async context manager, and within it an async iterator over events.

    The iteration does all the work: it receives, reconnects, and ends with the session. Audio that the program has not
    taken stays with the relay, whose bound applies. Cancelling a step of the iteration loses nothing.

    Each frame arrives once and in order, whatever happens to the connection. Lost audio is reported: as a `Gap` if the
    amount is known, otherwise as an `UnknownLoss`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        address: ChannelAddress,
        query: Mapping[str, int | str | None],
        reconnector: Reconnector,
    ) -> None:
        """Use `relay.client.listen` to create a listener."""
        self._endpoint = endpoint
        self._address = address
        self._query = dict(query)
        self._reconnector = reconnector
        self._connection: ListenerConnection | None = None
        # An attempt to connect continues when its step is cancelled. Otherwise, short steps would never succeed.
        self._tasks = TaskRegistry()
        self._trying: asyncio.Task[None] | None = None
        self._outcome: ListenerConnection | RelayError | None = None
        self._reception: Reception | None = None
        # Bound: the events of one message, because a step adds events only when there are none.
        self._events: deque[ListeningEvent] = deque()
        # The switches that the relay has not answered, in order. Bound: the relay disconnects a client that sends too
        # many, and the next connection asks for all of them with one.
        self._unanswered: deque[Switch] = deque()
        self._has_ended = False
        self._clock = ClockOffset()
        self._clock_id: str | None = None
        # When the last attempt began and when its greeting had arrived.
        self._attempt_ms = (0.0, 0.0)
        self._ping_ids = itertools.count()
        self._asked_ms: dict[int, float] = {}

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UserError: Nothing at the address speaks `relay.v1`.
            RelayError: The relay refused; the text is the relay's own sentence.
        """
        await self._try()
        hello = self._adopt_outcome()
        self._reception = Reception(hello)
        self._events.append(hello)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._has_ended = True
        await self._tasks.close()
        for connection in (self._connection, self._outcome):
            if isinstance(connection, ListenerConnection):
                await connection.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ListeningEvent:
        """Return the next event; the first is the `Hello`.

        Raises:
            RelayError: The connection is lost for good, or the relay broke the protocol.
        """
        while not self._events:
            if self._has_ended:
                raise StopAsyncIteration
            try:
                await self._step()
            except PassingError as error:
                self._connection = None
                self._events.append(self._reconnector.lost(error, relay_clock()))
        return self._events.popleft()

    @property
    def hello(self) -> Hello:
        """The relay's latest greeting."""
        return self._known.hello

    @property
    def address(self) -> ChannelAddress:
        """The session, and the channel that is received."""
        return self._address

    @property
    def channels(self) -> tuple[ChannelEntry, ...]:
        """All channels of the session, by the relay's latest report."""
        return self._known.channels

    @property
    def state(self) -> ChannelState:
        """The state of the channel's source."""
        return self._known.state

    @property
    def silence(self) -> Silence | None:
        """Why the channel is silent; None if it is not, or if the reason is unknown."""
        return self._known.silence

    @property
    def audio_format(self) -> AudioFormat | None:
        """The format of the audio; None before the first broadcaster."""
        return self._known.audio_format

    @property
    def stats(self) -> ReceptionStats:
        """What was received and what was lost, up to the last event that the iteration returned."""
        return self._known.stats

    @property
    def clock_offset_ms(self) -> float:
        """The relay's clock minus this machine's monotonic clock, in milliseconds modulo 2**32; see `ping`.

        The estimate continues after a reconnect if the relay says that its clock is the same one, and begins anew
        otherwise.
        """
        return self._clock.milliseconds % (WORD_MASK + 1)

    def age_ms(self, audio: Audio) -> float:
        """Return how many milliseconds ago a frame was due, as exact as `clock_offset_ms`; negative if it is early.

        Ask before the next step of the iteration, which may reconnect to a relay with another clock.
        """
        relay_ms = relay_clock() * 1000 + self._clock.milliseconds
        return serial_difference(relay_ms, audio.header.due_ms)

    async def switch(self, channel: str | None = None, *, codec: AskedCodecs | None = None) -> None:
        """Ask for another channel of the session, or for another codec, or for both.

        The answer is a `Hello`; no event from before the switch follows it. If the relay has no such channel or codec,
        the answer is an `ErrorNotice`, and nothing changes. If the connection is lost before the answer, the next one
        asks again.

        With another codec of the same channel, the first frame holds the moment that was reached, and may begin before
        it; the media times of both frames say by how much.

        Args:
            channel: Id of the channel; None stays with the present one.
            codec: As for `relay.client.listen`; None stays with the present one.

        Raises:
            BadRequestError: The id of the channel is not valid.
            ValueError: There is no such codec, or there is neither a channel nor a codec.
        """
        if channel is None and codec is None:
            raise ValueError("A switch needs a channel or a codec.")
        if channel is not None:
            ChannelAddress(self._address.session, channel)
        switch = Switch(channel, None if codec is None else name_codecs(codec))
        self._unanswered.append(switch)
        if self._connection is not None:
            await self._connection.tell(switch)

    async def set_delivery(self, *, coalesce_ms: int | None = None, packet_ms: int | None = None) -> None:
        """Change how the relay delivers the audio, now and on later connections. No frame is lost or repeated.

        The answer is a `DeliveryChange` with what the relay grants.

        Args:
            coalesce_ms: How long the relay may hold frames to send them together, in milliseconds; None leaves it.
            packet_ms: How much Opus may share a message, in milliseconds; None leaves it.

        Raises:
            ValueError: A time is negative.
        """
        if min(coalesce_ms or 0, packet_ms or 0) < 0:
            raise ValueError("The times of a delivery must not be negative.")
        change = {"coalesce_ms": coalesce_ms, "packet_ms": packet_ms}
        self._query |= {name: value for name, value in change.items() if value is not None}
        if self._connection is not None:
            await self._connection.tell(DeliveryChange(coalesce_ms, packet_ms))

    async def ping(self) -> None:
        """Ask for the relay's clock. The answer is a `Pong`, which makes `clock_offset_ms` more exact.

        A greeting has the clock, too, but may be as old as connecting takes. Without a connection, it does nothing.
        """
        if self._connection is None:
            return
        if len(self._asked_ms) >= MAX_QUESTIONS:
            del self._asked_ms[next(iter(self._asked_ms))]
        ping_id = next(self._ping_ids)
        self._asked_ms[ping_id] = relay_clock() * 1000
        await self._connection.tell(Ping({"id": ping_id}))

    @property
    def _known(self) -> Reception:
        if self._reception is None:
            raise RuntimeError("A listener must be connected with `async with` before its state is known.")
        return self._reception

    async def _step(self) -> None:
        """Receive one message, or make one attempt to reconnect."""
        if self._connection is None:
            # A step that follows a cancelled one waits for the rest.
            await asyncio.sleep(self._reconnector.wait_seconds(relay_clock()))
            if self._trying is None:
                self._trying = self._tasks.start(self._try(), "listener's try to connect")
            await asyncio.shield(self._trying)
            self._trying = None
            self._events.extend(self._known.resume(self._adopt_outcome()))
            await self._ask_again()
            return
        event = await self._connection.receive()
        if event is None:
            self._has_ended = True
            return
        self._note(event)
        self._events.extend(self._known.take(event))

    async def _try(self) -> None:
        """Try to connect. The outcome is a connection or an error."""
        resume: dict[str, int | str] = {}
        if self._reception is not None:
            resume["epoch"], resume["after"] = self._reception.resume_point
            if self._reception.codec is not Codec.PCM_S16LE:
                resume["after_codec"] = self._reception.codec
        asked_ms = relay_clock() * 1000
        try:
            connection = await connect_listener(self._endpoint, self._address, **self._query, **resume)
        except RelayError as error:
            self._outcome = error
            return
        self._outcome = connection
        self._attempt_ms = asked_ms, relay_clock() * 1000

    def _adopt_outcome(self) -> Hello:
        """Make the connection of the last attempt the present one.

        Raises:
            RelayError: The attempt failed.
        """
        outcome, self._outcome = self._outcome, None
        if not isinstance(outcome, ListenerConnection):
            raise outcome or RuntimeError("an attempt to connect ended without a result")
        self._connection = outcome
        self._reconnector.connected(relay_clock())
        self._follow_clock(outcome.hello)
        return outcome.hello

    def _follow_clock(self, hello: Hello) -> None:
        """Continue the estimate of the relay's clock, or begin another one if it may be another clock."""
        if hello.clock_id is None or hello.clock_id != self._clock_id:
            self._clock = ClockOffset()
        self._clock_id = hello.clock_id
        self._clock.note(*self._attempt_ms, hello.clock_ms)
        self._asked_ms.clear()

    async def _ask_again(self) -> None:
        """Ask the present connection for what earlier ones have not answered."""
        if self._connection is not None and self._unanswered:
            switch = Switch()
            while self._unanswered:
                later = self._unanswered.popleft()
                switch = Switch(later.channel or switch.channel, later.codec or switch.codec)
            self._unanswered.append(switch)
            await self._connection.tell(switch)

    def _note(self, event: ListenerEvent) -> None:
        """Update the state that an answer changes. The relay answers in order."""
        match event:
            case Hello():
                self._address = ChannelAddress(self._address.session, event.channel)
                if self._unanswered:
                    self._query["codec"] = self._unanswered.popleft().codec or self._query.get("codec")
            case ErrorNotice(code=CloseCode.BAD_REQUEST | CloseCode.NOT_ALLOWED) if self._unanswered:
                self._unanswered.popleft()
            case Pong(ping_id=ping_id, clock_ms=clock_ms) if ping_id in self._asked_ms:
                self._clock.note(self._asked_ms.pop(ping_id), relay_clock() * 1000, clock_ms)


def name_codecs(codec: AskedCodecs) -> str:
    """Return codecs as the protocol names them.

    Raises:
        ValueError: There is no such codec.
    """
    return ",".join(Codec(name) for name in ((codec,) if isinstance(codec, str) else codec))
