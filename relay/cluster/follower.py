"""Follows a channel whose home is another node: puts its entries in order, and fetches missing ones.

Invariants: Each entry is applied once, in the order of its home. Entries with a lower fence than the highest seen are
dropped. Entries that the home and the memory of the bus no longer have become a gap.

Bound: while entries are fetched, `MAX_WAITING` later ones wait. Drops: the oldest, which the memory of the bus has.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay.cluster.bus import Bus, BusDownError, Subscription
from relay.cluster.clock_difference import ClockDifference
from relay.cluster.entries import Audio, Change, Entry, EntryError, Farewell, Fence, Held, Snapshot, Void
from relay.cluster.ownership import Ownership, key_of, shifted
from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord
from relay.hub.directory import Directory
from relay.hub.following import LATE_SECONDS, Following, Past
from relay.protocol.messages import Goaway
from relay.vocabulary.audio import Place
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import CloseCode, RelayError
from relay.vocabulary.names import ChannelAddress

MAX_WAITING = 4000
"""The most frames that ten seconds of audio, the length of a listener's buffer, can have."""

MARGIN_SECONDS = 3.0
"""How much earlier than necessary a fetch begins. It exceeds the travel time of a message and the difference of
synchronized clocks."""

ANSWERS = 2
"""After this many answers of the home that the memory has all that the home has, what is missing is lost. The bus may
have lost part of what the home sent before the first one, if its memory began to work meanwhile."""

PATIENCE_SECONDS = 3.0
"""How long missing entries may take to come into the memory of the bus while the bus works and the home doesn't
answer. A home sends what the bus did not confirm again, at most 2 s after the bus is back."""

REPAIR_STEP_SECONDS = 0.2

RECENT_SECONDS = 2.0
"""When a channel begins for listeners that came before its broadcaster, they hear audio up to this old. A node needs
less time to follow a channel."""


@dataclass(slots=True)
class ClusterTally:
    """What happened to this node's part in the cluster since it started.

    Attributes:
        repairs: How often entries of a channel were missing, or may have been, and were fetched.
        lost_entries: How often entries were missing for good.
        adoptions: How often this node took over a channel whose home was gone.
    """

    repairs: int = 0
    lost_entries: int = 0
    adoptions: int = 0


logger = logging.getLogger(__name__)


class Follower:
    """Follows one channel.

    Args:
        address: The channel.
        following: Applies the entries.
        directory: The channels of this node.
        bus: Delivers the entries.
        clock: The relay's clock.
        wall_offset: How much later the time of day is than the relay's clock.
        history_seconds: How much audio the channel keeps.
        repair: Runs the work that fetches missing entries, in a task.
        ask_home: Has the home send again what the bus did not confirm. Returns whether the memory then has all of it.
        tally: Counts repairs, and entries that are lost.

    Attributes:
        next: The fence and the index of the next entry.
        last_due: The fence of the last frame, and when that is due, in its home's time of day.
        accepted: The fence of the last frame, and the ticks that were accepted with it.
        begun: The fence with which a home last began, and the ticks accepted from each connection until then.
        is_synced: Whether it is up to date with the cluster.
        used_at: When the channel last had a listener here, or when following began.
    """

    def __init__(
        self,
        address: ChannelAddress,
        following: Following,
        directory: Directory,
        bus: Bus,
        *,
        clock: Clock,
        wall_offset: float,
        history_seconds: float,
        repair: Callable[[Coroutine[object, object, None]], None],
        ask_home: Callable[[], Awaitable[bool]],
        tally: ClusterTally,
    ) -> None:
        self.address = address
        self.next = (0, 0)
        self.last_due = (0, 0.0)
        self.accepted = (0, 0)
        self.begun: tuple[int, Mapping[str, int]] = (0, {})
        self.is_synced = False
        self.used_at = clock()
        self._following = following
        self._directory = directory
        self._bus = bus
        self._clock = clock
        self._wall_offset = wall_offset
        self._history_seconds = history_seconds
        self._repair_later = repair
        self._ask_home = ask_home
        self._tally = tally
        self._difference = ClockDifference(-wall_offset)
        self._waiting: deque[Entry] | None = deque(maxlen=MAX_WAITING)
        self._subscription: Subscription | None = None
        self._is_closed = False
        self._lock = asyncio.Lock()
        self._in_order_at = -1.0
        self._is_complete = False
        self._met = 0
        self._is_repairing = self._is_asking = False
        self._answers = 0
        self._lost_at: tuple[int, int] | None = None
        self._known: Ownership | None = None

    @property
    def channel(self) -> Channel | None:
        """The channel as this node has it; None after it ended."""
        return self._directory.find(self.address)

    def close(self) -> None:
        """Stop following. Entries that arrive or are fetched later are ignored."""
        self._is_closed = True
        if self._subscription is not None:
            self._subscription.close()

    async def sync(self, known: Ownership | None, *, is_final: bool = False) -> None:
        """Bring the channel up to date from its record, the memory of the bus, and entries that arrive meanwhile.

        A channel without users here starts again, with its recent audio. If no home will send more, this is final:
        entries that the memory lacks count as lost.

        Raises:
            BusDownError: The bus did not answer. Entries that arrive wait for the next attempt.
        """
        async with self._lock:
            self._known = known or self._known
            if self._waiting is None:
                self._waiting = deque(maxlen=MAX_WAITING)
            if self._subscription is None:
                self._subscription = await self._bus.subscribe(f"audio.{key_of(self.address)}", self._receive)
                if self._is_closed:
                    self.close()
            try:
                entries = await self._fetch(is_final=is_final)
            except (BusDownError, asyncio.CancelledError):
                if self.is_synced:
                    # Or the waiting entries would stay there.
                    self._start_repair()
                raise
            if known is not None and known.as_of > self.next:
                self._begin(known, entries)
            if not self._catch_up(entries, is_final=is_final):
                self._start_repair()

    def learn(self, known: Ownership) -> None:
        """Apply a newer record: its label, and its state if entries were lost."""
        self._known = known
        channel = self.channel
        if channel is None:
            return
        if channel.describe_as(known.channel):
            self._directory.note_change(self.address.session)
        self._directory.name_session(self.address.session, known.channel.session_name)
        if self._lost_at is not None and known.as_of >= self._lost_at:
            self._lost_at = None
            self._following.catch_up(channel, self.localized(known.channel))

    async def fetch_held(self) -> tuple[list[Held], tuple[int, int]]:
        """Return the accepted audio that is not released yet, and the fence and ticks of the last that was accepted.

        A home keeps all audio that waits again before it releases any. What it kept is therefore released up to its own
        last frame. The due times of different homes can't be compared, because their clocks differ.

        Raises:
            BusDownError: The bus did not answer.
        """
        held: list[tuple[int, Held]] = []
        accepted = (0, 0)
        for data in await self._bus.fetch(f"held.{key_of(self.address)}"):
            entry = Entry.unpack(data)
            if isinstance(entry.body, Void):
                held.clear()
            elif isinstance(entry.body, Held):
                held.append((entry.fence, entry.body))
                accepted = entry.fence, entry.body.accepted
        last_fence, last_due = self.last_due
        return [each for fence, each in held if fence > last_fence or each.due > last_due], accepted

    def local_time(self, wall: float) -> float:
        """Return the time of this relay's clock at a time of day of the home."""
        return wall + self._difference.seconds

    def localized(self, record: ChannelRecord) -> ChannelRecord:
        """Return a record of the home with times of this relay's clock."""
        return shifted(record, self._difference.seconds)

    async def _fetch(self, *, is_final: bool = False) -> list[Entry]:
        since = self._oldest_missing(is_final=is_final) + self._wall_offset - MARGIN_SECONDS
        entries = []
        for data in await self._bus.fetch(f"audio.{key_of(self.address)}", since):
            try:
                entries.append(Entry.unpack(data))
            except EntryError as error:
                self._log("an entry of the cluster can't be read", reason=str(error))
        return self._put_in_order(entries)

    def _oldest_missing(self, *, is_final: bool) -> float:
        """Return when the oldest entry that may be missing was sent, in seconds of this relay's clock.

        A home numbers the next audio, so its last word is needed however old it is. Others need only what is of use to
        a listener.
        """
        since = self._clock() - self._history_seconds
        if self._in_order_at < 0:
            return since if self._known is None else min(since, self._known.described_at - self._wall_offset)
        if is_final:
            return self._in_order_at
        since -= LATE_SECONDS
        return max(since, self._in_order_at) if self.is_synced else since

    def _put_in_order(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return each valid entry once, in the order of the home.

        The bus may deliver entries twice and late, because a home repeats unconfirmed ones. Entries of a lower fence
        that follow a higher one are void.
        """
        highest = self.next[0]
        valid: dict[tuple[int, int], Entry] = {}
        for entry in entries:
            if isinstance(entry.body, Fence):
                highest = max(highest, entry.fence)
            if entry.fence >= highest:
                valid[entry.order] = entry
        return sorted(valid.values(), key=lambda entry: entry.order)

    def _begin(self, known: Ownership, entries: Sequence[Entry]) -> None:
        """Begin with a record and the audio before it. If the channel has users here, continue with the record.

        Those who wait for the first broadcaster of a channel go on waiting if the record is of one that ended.
        """
        channel, record = self.channel, self.localized(known.channel)
        cleared = max((each.order for each in entries if _clears(each) and each.order < known.as_of), default=(0, 0))
        frames = [(each.order, each.body) for each in entries if isinstance(each.body, Audio) and each.order > cleared]
        past = (Past(frame.place, self.local_time(frame.due), frame.audio) for _, frame in frames)
        if channel is not None and channel.has_subscribers and channel.audio_format is not None:
            # The entries between are in the memory, or become a gap.
            channel.is_home = False
            return
        if channel is not None and channel.has_subscribers and not known.has_ended:
            # Listeners that wait for the first broadcaster hear it from its first frame on.
            recent = self._clock() - RECENT_SECONDS
            self._following.catch_up(channel, record, (each for each in past if each.due >= recent))
        else:
            self._following.open(record, past)
        self.next = known.as_of
        self.last_due = max(((order[0], frame.due) for order, frame in frames if order < self.next), default=(0, 0.0))

    def _catch_up(self, entries: Iterable[Entry] | None, *, is_final: bool = False) -> bool:
        """Apply the fetched entries, if the memory of the bus gave them, then those that arrived meanwhile.

        Return False if an entry is missing; the rest then waits. If this is final, missing entries count as lost.
        """
        left = deque(self._put_in_order((*(entries or ()), *(self._waiting or ()))))
        self._waiting = None
        self.is_synced = True
        while left:
            hides_loss = entries is None and not is_final and self._may_hide_loss(left[0])
            if hides_loss or not self._apply(left[0]):
                if not is_final:
                    self._waiting = deque(left, maxlen=MAX_WAITING)
                    return False
                self._force(left[0])
            left.popleft()
        return True

    def _receive(self, data: bytes) -> None:
        try:
            entry = Entry.unpack(data)
        except EntryError as error:
            self._log("an entry of the cluster can't be read", reason=str(error))
            return
        now = self._clock()
        is_own = isinstance(entry.body, Fence) and entry.body.home == self._bus.node_id
        if entry.fence >= self.next[0] and not is_own:
            self._meet(entry.fence)
            self._difference.note(entry.sent, now)
        before = self.next
        if self._waiting is not None:
            self._waiting.append(entry)
        elif self._may_hide_loss(entry) or not self._apply(entry):
            self._waiting = deque((entry,), maxlen=MAX_WAITING)
            self._start_repair()
        elif self.next != before:
            self._in_order_at = now

    def _may_hide_loss(self, entry: Entry) -> bool:
        """Whether another home begins, and the last one may have sent more than arrived here."""
        return isinstance(entry.body, Fence) and entry.fence > self.next[0] > 0 and not self._is_complete

    def _start_repair(self) -> None:
        if not self._is_repairing:
            self._is_repairing = True
            self._tally.repairs += 1
            self._repair_later(self._repair())

    async def _repair(self) -> None:
        """Fetch missing entries until they are there, or until they are too old or the home lacks them, too."""
        began, up_since, has_asked = self._clock(), None, False
        self._answers = 0
        try:
            while not self._is_closed and self._waiting is not None:
                if not self._bus.is_up:
                    up_since = None
                elif up_since is None:
                    up_since = self._clock()
                now = self._clock()
                is_over = now - began >= self._history_seconds + LATE_SECONDS or (
                    up_since is not None and now - up_since >= PATIENCE_SECONDS
                )
                has_all = self._answers >= ANSWERS
                async with self._lock:
                    try:
                        entries = None if up_since is None else await self._fetch()
                    except BusDownError:
                        entries, has_all = None, False
                    if self._waiting is None or self._catch_up(entries, is_final=is_over or has_all):
                        return
                if not self._is_asking and (up_since is not None or not has_asked):
                    # Before the memory works, once is enough: what the home sends again comes live.
                    self._is_asking = has_asked = True
                    self._repair_later(self._ask())
                await asyncio.sleep(REPAIR_STEP_SECONDS)
        finally:
            self._is_repairing = False

    async def _ask(self) -> None:
        """Ask the home once."""
        try:
            self._answers += await self._ask_home()
        finally:
            self._is_asking = False

    def _apply(self, entry: Entry) -> bool:
        """Apply the next entry, or ignore one that is old. Return False if entries before it are missing."""
        if self._is_closed or entry.order < self.next:
            return True
        body = entry.body
        if isinstance(body, Fence):
            self._meet(entry.fence)
            self.next = entry.fence, 1
            self._is_complete = False
            return True
        if entry.order != self.next:
            return False
        if isinstance(body, Snapshot):
            return self._take_snapshot(entry, body)
        channel = self.channel
        if channel is not None and isinstance(body, Audio):
            if not self._following.take(channel, body.place, body.audio, self.local_time(body.due)):
                return False
            self.last_due = entry.fence, body.due
            self.accepted = entry.fence, body.accepted
        elif channel is not None and isinstance(body, Change):
            if body.note.clears:
                self.last_due = entry.fence, 0.0
            self._following.apply(channel, body.note)
        self.next = entry.fence, entry.index + 1
        self._is_complete = isinstance(body, Farewell)
        return True

    def _meet(self, fence: int) -> None:
        """Measure the difference of the clocks anew for a new home. Only live entries show it."""
        if fence > self._met:
            self._met = fence
            self._difference = ClockDifference(self._difference.seconds)

    def _take_snapshot(self, entry: Entry, body: Snapshot, *, is_forced: bool = False) -> bool:
        record = self.localized(ChannelRecord.from_json(body.record))
        channel, place = self.channel, Place(*record.timeline.place)
        if channel is None:
            self._following.open(record)
        elif _begins_behind(record) > channel.place.position and channel.audio_format is not None and not is_forced:
            return False
        elif place.position < channel.place.position:
            self._start_over(channel, record)
        else:
            self._following.catch_up(channel, record)
        self.begun = entry.fence, record.accepted
        self.next = entry.fence, entry.index + 1
        return True

    def _force(self, entry: Entry) -> None:
        """Apply an entry although earlier ones are lost."""
        self._tally.lost_entries += 1
        self._log("entries of the cluster were lost", expected=self.next, got=entry.order)
        body, channel = entry.body, self.channel
        if isinstance(body, Snapshot):
            self._take_snapshot(entry, body, is_forced=True)
            return
        self._lost_at = entry.order
        known = self._known
        if isinstance(body, Audio) and channel is not None and known is not None:
            record = known.channel
            if record.timeline.place[1] == body.place.epoch != channel.place.epoch:
                self._following.catch_up(channel, self.localized(record))
        self.next = entry.order
        if not self._apply(entry):
            # The format of this frame is not known yet. A later record contains it.
            self.next = entry.fence, entry.index + 1

    def _start_over(self, channel: Channel, record: ChannelRecord) -> None:
        """Begin the channel with new numbers, because this node released frames that the cluster never received."""
        self._log("a channel begins again, because its home was cut off from the cluster")
        for listener in list(channel.listeners):
            listener.port.send_text(Goaway(0).text())
            listener.port.close(CloseCode.RESTARTING, CloseCode.RESTARTING.reason)
        self._directory.forget(channel)
        try:
            self._following.open(record)
        except RelayError as error:
            self._log("a channel could not begin again", reason=str(error))

    def _log(self, event: str, **fields: object) -> None:
        names = {"session": self.address.session, "channel": self.address.channel}
        logger.warning(event, extra={**names, "may_repeat": True, **fields})


def _clears(entry: Entry) -> bool:
    return isinstance(entry.body, Change) and entry.body.note.clears


def _begins_behind(record: ChannelRecord) -> int:
    """Return the position that the cluster had reached when a home began. Its first frame may begin an epoch."""
    position, epochs = record.timeline.place[0], record.timeline.numbers.epochs
    if epochs:
        _, _, _, before, start = epochs[-1]
        if start[0] == position:
            return before[0]
    return position
