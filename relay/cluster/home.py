"""The home's side of a channel: it sends everything that the channel releases to the other nodes.

Invariants: Entries are sent in the order of their indexes, and never wait for the bus. Once a home knows that it was
replaced, it sends only its farewell.
"""

import math
from collections.abc import Callable, Sequence

from relay.audio.ingest import Timed
from relay.cluster.bus import Bus
from relay.cluster.entries import Audio, Body, Change, Entry, Farewell, Fence, Held, Snapshot, Void
from relay.cluster.ownership import Ownership, key_of, shifted
from relay.hub.channel import Channel
from relay.hub.listener import Note
from relay.vocabulary.audio import Frame, Pace
from relay.vocabulary.clock import Clock


class Home:
    """Sends a channel's entries. It reads the channel, and keeps accepted audio on the bus until it is released.

    Args:
        channel: The channel, whose home is this node.
        bus: Carries the entries.
        clock: The relay's clock.
        wall_offset: How much later the time of day is than the relay's clock.
        tell_change: Called when the channel's record should be written.

    Attributes:
        name: See `Reader`.
        is_passive: See `Reader`.
        channel: The channel.
        fence: The present fence.
        revision: The revision of the channel's record; None before it was written.
        is_changed: Whether the channel's record has to be written.
        written_at: When it was last written.
        is_over: Whether the channel ended or was forgotten.
        connection: The connection that has claimed the channel, and later that of its broadcaster; None without one.
    """

    name = "cluster"
    is_passive = True

    def __init__(
        self, channel: Channel, bus: Bus, clock: Clock, wall_offset: float, tell_change: Callable[[], None]
    ) -> None:
        self.channel = channel
        self.fence = 0
        self.revision: int | None = None
        self.is_changed = False
        self.written_at = -math.inf
        self.is_over = False
        self.connection: str | None = None
        self._bus = bus
        self._clock = clock
        self._wall_offset = wall_offset
        self._tell_change = tell_change
        self._index = 0
        self._accepted = 0
        self._audio_subject = f"audio.{key_of(channel.address)}"
        self._held_subject = f"held.{key_of(channel.address)}"

    async def void_others(self, fence: int) -> None:
        """Void all entries that earlier homes send from now on. Call `begin` next.

        Raises:
            BusDownError: The bus did not confirm it.
        """
        self.fence, self._index = fence, 0
        await self._bus.publish_stored(self._audio_subject, self._entry(Fence(self._bus.node_id)))

    def begin(self, connection: str | None, session_name: str | None) -> None:
        """Send the state of the channel, then everything that it releases."""
        self.connection = connection
        # What waits came from earlier broadcasters.
        self._accepted = -sum(timed.piece.ticks for timed in self.channel.waiting)
        record = shifted(self.channel.export(session_name), self._wall_offset)
        self._publish(Snapshot(record.to_json()))
        self.channel.readers[self] = None
        self.channel.held_log = self

    def begin_again(self, fence: int, connection: str, session_name: str | None) -> None:
        """Begin another fence, because another broadcaster claims the channel on this node."""
        self._publish(Farewell())
        self.fence, self._index = fence, 0
        self._publish(Fence(self._bus.node_id))
        self.begin(connection, session_name)

    @property
    def next(self) -> tuple[int, int]:
        """The fence and the index of its next entry."""
        return self.fence, self._index

    def put(self, item: Frame | Note) -> bool:
        """Send the channel's next frame or note."""
        if isinstance(item, Frame):
            start = item.start
            self._accepted += item.end.media_time - start.media_time
            self._publish(Audio(start, item.timestamp + self._wall_offset, max(0, self._accepted), item.audio))
        else:
            self._publish(Change(item))
            self.note_change()
        return True

    def note_change(self) -> None:
        """Request that the record is written soon."""
        self.is_changed = True
        self._tell_change()

    def finish(self) -> None:
        """Called when the channel ended or is forgotten."""
        self.is_over = True
        self.note_change()

    def keep(self, pieces: Sequence[Timed]) -> None:
        """Keep accepted audio of pace `speech` on the bus, until it is released."""
        if self.channel.pace is not Pace.SPEECH:
            return
        accepted = self._accepted_in_all - sum(timed.piece.ticks for timed in pieces)
        for timed in pieces:
            accepted += timed.piece.ticks
            self._keep(Held(timed.due + self._wall_offset, accepted, timed.piece.audio))

    def discard(self) -> None:
        """Discard the held audio, because nobody will hear it."""
        self._accepted = self._accepted_in_all
        self._void_held()

    def note_departure(self) -> None:
        """Have the record say how the broadcaster left."""
        self.note_change()

    def hold_again(self) -> None:
        """Replace the audio that the last home kept by the audio that still waits, with times of this node's clock.

        Call it after `begin`, which says how much was accepted, and before audio is released. The next home drops audio
        that is due no later than the last frame that it received, so both times must come from the same clock.
        """
        self._void_held()
        for timed in self.channel.waiting:
            self._keep(Held(timed.due + self._wall_offset, 0, timed.piece.audio))

    async def hand_over(self) -> None:
        """Send a farewell, and wait until the memory of the bus has every entry.

        The caller has already taken the channel from this home, so no other entry follows.

        Raises:
            BusDownError: The bus did not confirm it.
        """
        await self._bus.publish_stored(self._audio_subject, self._entry(Farewell()))

    def ownership(self, session_name: str | None) -> Ownership:
        """Return the record of the channel as it is now."""
        broadcaster = self.channel.broadcaster
        if broadcaster is not None:
            self.connection = broadcaster.connection_id
        elif self.is_over:
            self.connection = None
        record = shifted(self.channel.export(session_name), self._wall_offset)
        now = self._clock() + self._wall_offset
        return Ownership(self.fence, self._bus.node_id, self.connection, record, self.next, self.connection, now)

    @property
    def _accepted_in_all(self) -> int:
        """The ticks accepted from the present broadcaster, including those that wait."""
        return 0 if self.connection is None else self.channel.accepted.get(self.connection, 0)

    def _void_held(self) -> None:
        self._bus.replace(self._held_subject, self._entry(Void(), is_next=False))

    def _publish(self, body: Body) -> None:
        self._bus.publish(self._audio_subject, self._entry(body))

    def _keep(self, held: Held) -> None:
        self._bus.keep(self._held_subject, self._entry(held, is_next=False))

    def _entry(self, body: Body, *, is_next: bool = True) -> bytes:
        entry = Entry(self.fence, self._index, self._clock() + self._wall_offset, body)
        if is_next:
            self._index += 1
        return entry.pack()
