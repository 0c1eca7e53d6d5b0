"""A node's part in a cluster: which channels have their home here, which ones it follows, and how that changes.

A channel's record on the bus names its home. A node that wants to become the home writes the record with a higher
fence, and compare-and-set lets one node win. The winner voids what the loser still sends, brings the channel up to date
from the memory of the bus, and continues where the loser stopped.

Invariants: As far as it knows, a node numbers audio only of channels whose record names it. Nothing here delays the
audio of another channel.

Source: docs/architecture.md, "Several nodes".
"""

import asyncio
import contextlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial

from relay.audio.ingest import Timed
from relay.cluster.audience import Audience
from relay.cluster.bus import Bus, BusDownError, ConflictError, Record
from relay.cluster.follower import ClusterTally, Follower
from relay.cluster.home import Home
from relay.cluster.ownership import Ownership, address_of, key_of, shifted
from relay.cluster.records import Claim, Records
from relay.cluster.succession import brought_up_to_date
from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord
from relay.hub.following import LATE_SECONDS
from relay.hub.gate import Then, report
from relay.hub.hub import Hub
from relay.process.tasks import TaskRegistry
from relay.protocol.requests import Delivery, Offer, Resume
from relay.vocabulary.channel_states import ChannelState
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import ChannelBusyError, RelayError, TakenOverError
from relay.vocabulary.names import ChannelAddress

HOUSEKEEPING_SECONDS = 0.5
"""How often a node updates records and looks for abandoned channels."""

RECORD_SECONDS = 5.0
"""How often a node writes the record of a channel with a broadcaster. The memory of the bus covers the time between."""

HAND_OVER_SECONDS = 0.5
"""How long a new home waits for the old one to stop. After that, it takes the channel over without it."""

REPEAT_SECONDS = 3.0
"""How long a home may take to send again what the bus has not confirmed."""

JOIN_SECONDS = 2.0
"""How long a listener waits until this node has fetched a channel, and then until the channel reaches the last frame of
the listener. After that, the listener gets what this node has."""

JOIN_STEP_SECONDS = 0.1
"""How often a listener checks whether the channel has reached its last frame. Thousands may wait at once."""

UNUSED_SECONDS = 5.0
"""How long a node follows a channel without listeners: long enough for one to return after a lost connection."""

MOVE_SECONDS = 2.0
"""How long a node that stops waits for its broadcasters to claim their channels elsewhere."""

MOVE_STEP_SECONDS = 0.02

LEAVE_SECONDS = 2.5
"""How long a node that stops may take to leave its channels. By default, the server sees all clients off within 5.4 s,
and their goodbyes need up to 2.7 s of it."""

SETTLE_SECONDS = 5.0
"""How long nodes have, after the bus was down, to report that they are alive. Then others take over their channels."""

LEFT_SECONDS = 5.0
"""How long a node remembers the state in which it left a channel, for nodes that claim it at the same time."""

_NOT_REACHED = "The relay can't reach its cluster; try again in a few seconds."

logger = logging.getLogger(__name__)


class Cluster:
    """The channels of a hub as part of a cluster. It is the hub's gate; `run` is its task.

    Args:
        bus: Connects the nodes.
        hub: The channels of this node.
        tasks: Runs work that takes time.
        clock: The relay's clock.
        wall_clock: The time of day.
        history_seconds: How much audio a channel keeps.

    Attributes:
        tally: Counts what happened to this node's part in the cluster.
        is_shared: See `Gate`.
    """

    is_shared = True

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        tasks: TaskRegistry,
        *,
        clock: Clock,
        wall_clock: Clock,
        history_seconds: float,
    ) -> None:
        self._bus = bus
        self._hub = hub
        self._tasks = tasks
        self._clock = clock
        self._wall_offset = wall_clock() - clock()
        self._history_seconds = history_seconds
        self.tally = ClusterTally()
        self._records = Records(bus, self._export, wall_clock)
        self._homes: dict[ChannelAddress, Home] = {}
        self._followers: dict[ChannelAddress, Follower] = {}
        self._locks = defaultdict[ChannelAddress, asyncio.Lock](asyncio.Lock)
        self._left: dict[ChannelAddress, tuple[Ownership, float]] = {}
        self._adopting: set[ChannelAddress] = set()
        self._settles_at = clock() + SETTLE_SECONDS
        self._audience = Audience(bus, hub.directory)
        self._has_changes = asyncio.Event()
        self._is_draining = False
        bus.on_record = self._learn
        bus.on_up = self._go_on
        hub.gate = self
        hub.listening.late_seconds = LATE_SECONDS

    async def open(self) -> None:
        """Answer other nodes. Call it before the first client is served."""
        await self._bus.answer("release", self._release)
        await self._bus.answer("repeat", self._repeat)
        await self._audience.hear()

    async def run(self) -> None:
        """Write the records of the channels with their home here, and look for channels without a home, forever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING_SECONDS):
                    await self._has_changes.wait()
            self._has_changes.clear()
            if self._bus.is_up:
                async with asyncio.TaskGroup() as group:
                    for address, home in self._homes.items():
                        group.create_task(self._look_after(home), name=f"record of {address}")
            self._left = {
                address: left for address, left in self._left.items() if self._clock() - left[1] < LEFT_SECONDS
            }
            self._look_for_abandoned()
            self._leave_unused()
            self._forget_locks()
            self._audience.round(self._followers, [home.channel for home in self._homes.values()])

    def settle_now(self) -> None:
        """Stop waiting for other nodes, because all of them are known to be present."""
        self._settles_at = self._clock()

    # The gate

    def before_claim(self, address: ChannelAddress, offer: Offer, connection_id: str, then: Then) -> bool:
        """Become the home of a channel, for a broadcaster."""
        self._start(report(self._claim(address, offer, connection_id), then))
        return False

    def before_join(self, address: ChannelAddress, delivery: Delivery, then: Then) -> bool:
        """Follow a channel, for a listener. Wait until it has reached the last frame that the listener got.

        A channel that ended is of use only to a listener that resumes.
        """
        record, resume = self._records.find(address), delivery.resume
        if record is None or not self._bus.is_up:
            return True
        if record.has_ended and resume is None:
            return True
        if self._is_here(address) and (resume is None or not self._hub.listening.awaits(address, resume)):
            return True
        self._start(report(self._prepare_join(address, resume), then))
        return False

    def _is_here(self, address: ChannelAddress) -> bool:
        follower = self._followers.get(address)
        return address in self._homes or (follower is not None and follower.is_synced)

    async def _prepare_join(self, address: ChannelAddress, resume: Resume | None) -> None:
        if not self._is_here(address):
            await self._follow(address)
        until = self._clock() + JOIN_SECONDS
        while resume is not None and self._hub.listening.awaits(address, resume) and self._clock() < until:  # noqa: ASYNC110 - streams have no event
            await asyncio.sleep(JOIN_STEP_SECONDS)

    async def _claim(self, address: ChannelAddress, offer: Offer, connection_id: str) -> None:
        if not self._bus.is_up:
            raise BusDownError(_NOT_REACHED)
        async with self._locks[address]:
            try:
                home = await self._become_home(await self._records.claim(address, connection_id, offer))
            except BusDownError as error:
                raise BusDownError(_NOT_REACHED) from error
            home.note_change()

    async def _follow(self, address: ChannelAddress) -> None:
        """Follow a channel if the bus answers in time."""
        try:
            async with asyncio.timeout(JOIN_SECONDS), self._locks[address]:
                # Of hundreds that come here at once, the first fetches it.
                if not self._is_here(address):
                    await self._sync(address)
        except (TimeoutError, RelayError) as error:
            place, reason = {"session": address.session, "channel": address.channel}, str(error) or "It took too long."
            event = "a channel of the cluster could not be fetched"
            logger.warning(event, extra={**place, "reason": reason, "may_repeat": True})

    # Becoming the home

    async def _become_home(self, claim: Claim) -> Home:
        """Continue a channel where its last home stopped.

        A home that does not answer may use the next numbers for its own listeners. Another broadcaster therefore begins
        a new epoch. The same broadcaster keeps the epoch, because it repeats what the cluster lacks with the same
        numbers.

        Raises:
            BusDownError: The bus did not answer. The claim stays unfinished.
            TakenOverError: Another node has claimed the channel since.
        """
        address, before, after = claim.address, claim.before, claim.after
        present = self._homes.get(address)
        if present is not None and not present.is_over:
            present.revision = claim.revision
            connection = after.connection or ""
            present.begin_again(after.fence, connection, self._session_name(address))
            self._records.finish(claim)
            return present
        last, is_silent = before, False
        if before is not None and (before.home != self._bus.node_id or present is None):
            left = await self._ask_to_release(address, after.fence)
            last, is_silent = left or before, left is None
        home = Home(self._hub.directory.open(address), self._bus, self._clock, self._wall_offset, self._has_changes.set)
        await home.void_others(after.fence)
        if last is not None and not last.has_ended:
            follower = await self._sync(address, last, is_final=True)
            held, accepted = await follower.fetch_held()
            channel = follower.channel or self._hub.directory.open(address)
            waiting = [
                Timed(channel.audio_format.measure(each.audio), follower.local_time(each.due))
                for each in held
                if channel.audio_format is not None
            ]
            record = follower.localized(last.channel)
            if last is before:
                accepted = max(accepted, follower.accepted)
                record = brought_up_to_date(record, last, channel, waiting, accepted=accepted, begun=follower.begun)
            self._records.check(claim)
            is_disputed = is_silent and _is_disputed(last, claim.offer)
            self._hub.following.become_home(channel, record, waiting, is_disputed=is_disputed)
        else:
            if last is not None:
                self._forget_ended(address)
            channel = self._hub.directory.open(address)
        self._records.check(claim)
        self._drop_follower(address)
        channel.is_home = True
        home.channel = channel
        home.revision = claim.revision
        self._homes[address] = home
        self._records.finish(claim)
        home.begin(after.connection, self._session_name(address))
        home.hold_again()
        return home

    async def _ask_to_release(self, address: ChannelAddress, fence: int) -> Ownership | None:
        """Ask the present home to stop, and other nodes that claim the channel to give up.

        Return the state in which the home left the channel, or None if it does not answer.
        """
        question = json.dumps({"key": key_of(address), "fence": fence}).encode()
        answers = await self._bus.ask("release", question, HAND_OVER_SECONDS)
        left = [Ownership.unpack(answer) for answer in answers.values() if answer]
        return max(left, key=lambda each: each.as_of, default=None)

    async def _release(self, question: bytes) -> bytes:
        """Answer a node that is about to become the home of a channel: stop, and return the state of the channel."""
        asked = json.loads(question)
        address, fence = address_of(asked["key"]), asked["fence"]
        self._records.give_way(address, fence)
        home = self._homes.get(address)
        if home is not None and home.fence < fence:
            left = self._resign(home)
            await home.hand_over()
        elif (left_before := self._left.get(address)) is not None and left_before[0].fence < fence:
            # Several nodes may ask at the same time. The one with the highest fence wins.
            left = left_before[0]
            await Home(
                self._hub.directory.open(address), self._bus, self._clock, self._wall_offset, lambda: None
            ).hand_over()
        else:
            return b""
        return left.pack()

    def _resign(self, home: Home) -> Ownership:
        """Stop being a channel's home, and follow the channel. Return the state in which this home leaves it.

        The record of the new home may arrive before its question, so the answer is kept.
        """
        channel = home.channel
        address = channel.address
        left = home.ownership(self._session_name(address))
        self._left[address] = left, self._clock()
        del self._homes[address]
        channel.readers.pop(home, None)
        self._hub.following.resign(channel)
        self._make_follower(address).next = home.next
        channel.log("the channel has another home")
        return left

    # Following

    def _make_follower(self, address: ChannelAddress) -> Follower:
        follower = self._followers.get(address)
        if follower is None:
            follower = self._followers[address] = Follower(
                address,
                self._hub.following,
                self._hub.directory,
                self._bus,
                clock=self._clock,
                wall_offset=self._wall_offset,
                history_seconds=self._history_seconds,
                repair=self._start,
                ask_home=partial(self._ask_to_repeat, address),
                tally=self.tally,
            )
        return follower

    async def _ask_to_repeat(self, address: ChannelAddress) -> bool:
        """Ask a channel's home for what the bus may have lost. Return whether the memory has all that the home has."""
        record = self._records.find(address)
        if record is None or record.home == self._bus.node_id:
            return False
        try:
            return bool(await self._bus.ask_one(record.home, "repeat", b"", REPEAT_SECONDS))
        except BusDownError:
            return False

    async def _repeat(self, _question: bytes) -> bytes:
        """Answer a node that lacks entries: send again what the bus has not confirmed."""
        try:
            await self._bus.repeat()
        except BusDownError:
            return b""
        return b"stored"

    async def _sync(
        self, address: ChannelAddress, known: Ownership | None = None, *, is_final: bool = False
    ) -> Follower:
        follower = self._make_follower(address)
        await follower.sync(known or self._records.find(address), is_final=is_final)
        return follower

    def _drop_follower(self, address: ChannelAddress) -> None:
        follower = self._followers.pop(address, None)
        if follower is not None:
            follower.close()

    def _learn(self, key: str, record: Record | None) -> None:
        """Take in a record that was written or deleted."""
        address = address_of(key)
        if record is None:
            self._forget(address, self._records.forget(address))
        elif (known := self._records.learn(key, record)) is not None:
            self._apply_record(address, known)

    def _apply_record(self, address: ChannelAddress, known: Ownership) -> None:
        """Apply the record of a channel."""
        home = self._homes.get(address)
        if home is not None:
            if known.fence > home.fence and not self._is_busy(address):
                self._resign(home)
                self._start(self._follow(address))
            return
        if known.home == self._bus.node_id:
            return
        channel = self._hub.directory.find(address)
        follower = self._followers.get(address)
        if known.has_ended:
            if follower is None and not self._is_busy(address):
                self._forget_ended(address)
        elif follower is not None:
            follower.learn(known)
            if not follower.is_synced and not self._is_busy(address):
                self._start(self._follow(address))
        elif channel is not None and channel.has_subscribers:
            self._start(self._follow(address))
        elif known.channel.is_listed and not self._is_busy(address):
            self._list(address, channel, known)

    def _list(self, address: ChannelAddress, channel: Channel | None, known: Ownership) -> None:
        """Show a channel that nobody uses here in the list of its session."""
        record = shifted(known.channel, -self._wall_offset)
        if channel is not None and channel.state == record.timeline.state:
            if channel.describe_as(record):
                self._hub.directory.note_change(address.session)
            self._hub.directory.name_session(address.session, record.session_name)
            return
        self._hub.following.open(record)

    def _forget_ended(self, address: ChannelAddress) -> None:
        """Forget a channel that ended elsewhere, unless it is used here."""
        channel = self._hub.directory.find(address)
        if channel is not None and not channel.is_home and not channel.has_subscribers:
            self._hub.directory.forget(channel)

    def _forget(self, address: ChannelAddress, last: Ownership | None) -> None:
        """Forget a channel whose record was deleted. If it did not end and is used here, this node becomes its home."""
        channel = self._hub.directory.find(address)
        if channel is None:
            self._drop_follower(address)
        elif channel.is_home:
            return
        elif last is not None and last.has_ended and channel.audio_format is not None:
            # The end got lost on its way to this node.
            self._drop_follower(address)
            self._hub.following.catch_up(channel, shifted(last.channel, -self._wall_offset))
        elif channel.has_subscribers:
            self._start(self._adopt(address))
        else:
            self._drop_follower(address)
            self._hub.directory.forget(channel)

    def _leave_unused(self) -> None:
        """Stop following channels that have had no listener for a while."""
        now = self._clock()
        for address, follower in list(self._followers.items()):
            channel = follower.channel
            if channel is not None and channel.has_subscribers:
                follower.used_at = now
            elif now - follower.used_at >= UNUSED_SECONDS and not self._is_busy(address):
                self._drop_follower(address)

    # Housekeeping

    def _forget_locks(self) -> None:
        """Drop the locks of channels that the cluster doesn't know."""
        for address in [each for each, lock in self._locks.items() if not lock.locked()]:
            if self._records.find(address) is None and address not in self._homes:
                del self._locks[address]

    async def _look_after(self, home: Home) -> None:
        """Write the record of a channel if it changed or is old. Delete it once the channel is forgotten."""
        channel, now = home.channel, self._clock()
        address = channel.address
        if self._is_busy(address) or self._homes.get(address) is not home:
            return
        if channel.broadcaster is None and not home.is_over:
            home.connection = None
            self._hub.broadcasting.note_absence(channel)
        is_ended = channel.state is ChannelState.ENDED
        age_seconds = now - home.written_at
        is_old = age_seconds >= RECORD_SECONDS and channel.broadcaster is not None
        try:
            if home.is_over and (not is_ended or age_seconds >= self._history_seconds) and not home.is_changed:
                if home.revision is not None:
                    await self._bus.delete(key_of(address), home.revision)
                # Another node may have taken the channel meanwhile.
                if self._homes.get(address) is home:
                    del self._homes[address]
            elif home.is_changed or is_old:
                home.is_changed = False
                home.written_at = now
                record = home.ownership(self._session_name(address))
                home.revision = await self._bus.write(key_of(address), record.pack(), home.revision)
        except ConflictError:
            await self._reread(home)
        except BusDownError:
            home.is_changed = True

    async def _reread(self, home: Home) -> None:
        """Find out whether another node became the home. If the bus lost the record, write it again."""
        address = home.channel.address
        home.is_changed = True
        try:
            stored = await self._bus.read(key_of(address))
        except BusDownError:
            return
        if stored is None:
            home.revision = None
            return
        known = Ownership.unpack(stored.value)
        if known.fence <= home.fence:
            home.revision = stored.revision
        elif self._homes.get(address) is home and not self._is_busy(address):
            self._records.learn(key_of(address), stored)
            self._resign(home)
            await self._follow(address)

    def _go_on(self) -> None:
        """Repeat what the bus may have lost, and fetch what this node missed."""
        self._settles_at = self._clock() + SETTLE_SECONDS
        for home in self._homes.values():
            home.is_changed = True
        for address, follower in self._followers.items():
            follower.is_synced = False
            self._start(self._follow(address))

    def _look_for_abandoned(self) -> None:
        """Take over channels whose home is gone. Each node waits a random time, so that usually one of them does it.

        A channel that this node claimed without success counts as one of them.
        """
        if self._is_draining or not self._bus.is_up or self._clock() < self._settles_at:
            return
        for address in self._records.abandoned():
            if address in self._homes or address in self._adopting or self._is_busy(address):
                continue
            known = self._records.find(address)
            if known is not None and known.has_ended and known.home not in self._bus.nodes:
                self._start(self._records.delete(address))
            else:
                self._adopting.add(address)
                self._start(self._adopt(address))

    async def _adopt(self, address: ChannelAddress) -> None:
        """Become the home of a channel whose home is gone."""
        try:
            await asyncio.sleep(random.random() * HOUSEKEEPING_SECONDS)  # noqa: S311 - no secret
            async with self._locks[address]:
                if address in self._homes:
                    return
                home = await self._become_home(await self._records.claim(address, None, None))
                home.is_changed = True
                self._hub.broadcasting.note_absence(home.channel)
                self.tally.adoptions += 1
                home.channel.log("the channel lost its home, and has it here now")
        except (BusDownError, ChannelBusyError, TakenOverError):
            # Another node was faster, or the next round tries again.
            return
        finally:
            self._adopting.discard(address)

    async def leave(self) -> None:
        """Wait until broadcasters have claimed their channels on other nodes, and give up the remaining channels.

        While the bus is down, no other node can take them. Then this node serves them until its end.
        """
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._let_channels_move()
                if not self._bus.is_up:
                    return
                async with asyncio.TaskGroup() as group:
                    for home in [each for each in self._homes.values() if not each.is_over]:
                        group.create_task(
                            self._give_up(home, self._resign(home)), name=f"end of {home.channel.address}"
                        )

    async def _let_channels_move(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVE_SECONDS):
                while self._bus.is_up and not all(home.is_over for home in self._homes.values()):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(MOVE_STEP_SECONDS)

    async def _give_up(self, home: Home, left: Ownership) -> None:
        record = replace(left, home="", connection=None)
        with contextlib.suppress(BusDownError, ConflictError):
            await home.hand_over()
            await self._bus.write(key_of(home.channel.address), record.pack(), home.revision)

    def _is_busy(self, address: ChannelAddress) -> bool:
        """Whether this node is about to become the home of a channel, or to fetch it."""
        lock = self._locks.get(address)
        return lock is not None and lock.locked()

    def _start(self, work: Coroutine[object, object, None]) -> None:
        self._tasks.start(work, "cluster")

    def _session_name(self, address: ChannelAddress) -> str | None:
        return self._hub.directory.session_name(address.session)

    def _export(self, address: ChannelAddress) -> ChannelRecord:
        channel = self._hub.directory.open(address)
        return shifted(channel.export(self._session_name(address)), self._wall_offset)


def _is_disputed(last: Ownership, offer: Offer | None) -> bool:
    """Whether a home that did not answer may have released audio that nobody will send again."""
    if offer is None or last.home == "" or last.connection is None:
        return False
    return offer.resume not in (last.connection, last.speaker)
