"""The records of the cluster's channels: what this node knows of them, and how it enters itself as a home.

The bus reports each change of a record, but some time after it happened. A node therefore reads a record before it
claims the channel.

A claim begins when its record is written, and ends when this node is the home or another node has a later claim. If the
bus fails between, the record may name this node, although it is not the home. Such a claim is unfinished, and counts as
a home that is gone.

Source: docs/architecture.md, "Several nodes".
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from relay.cluster.bus import Bus, BusDownError, ConflictError, Record
from relay.cluster.ownership import Ownership, RecordError, address_of, key_of
from relay.hub.channel_record import ChannelRecord
from relay.protocol.requests import Offer
from relay.vocabulary.clock import Clock
from relay.vocabulary.errors import ChannelBusyError, CloseCode, TakenOverError
from relay.vocabulary.names import ChannelAddress

MOST_ATTEMPTS = 5
"""How often a node tries to claim a channel when others are faster."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A record that this node wrote to become the home of a channel.

    Attributes:
        address: The channel.
        before: The record before that; None if there was none.
        after: The record.
        revision: Its revision.
        offer: The offer of the broadcaster that claims the channel; None if its home was gone.
    """

    address: ChannelAddress
    before: Ownership | None
    after: Ownership
    revision: int
    offer: Offer | None


class Records:
    """See the module's docstring.

    Args:
        bus: Keeps the records.
        export: Returns a channel as this node has it, with wall-clock times.
        wall_clock: The time of day.
    """

    def __init__(self, bus: Bus, export: Callable[[ChannelAddress], ChannelRecord], wall_clock: Clock) -> None:
        self._bus = bus
        self._export = export
        self._wall_clock = wall_clock
        self._known: dict[ChannelAddress, tuple[Ownership, int]] = {}
        self._claiming: dict[ChannelAddress, int] = {}

    def find(self, address: ChannelAddress) -> Ownership | None:
        """Return what is known of a channel's record; None if there is none."""
        known = self._known.get(address)
        return None if known is None else known[0]

    def learn(self, key: str, record: Record) -> Ownership | None:
        """Take in a record that was written, and return its content; None if this version can't read it."""
        try:
            known = Ownership.unpack(record.value)
        except RecordError as error:
            logger.warning("a record of the cluster can't be read", extra={"key": key, "reason": str(error)})
            return None
        address = address_of(key)
        self._known[address] = known, record.revision
        self.give_way(address, known.fence)
        return known

    def forget(self, address: ChannelAddress) -> Ownership | None:
        """Take in that a record was deleted, and return what was known of it."""
        known = self._known.pop(address, None)
        return None if known is None else known[0]

    def abandoned(self) -> set[ChannelAddress]:
        """Return the channels whose home is gone, and those that this node claims."""
        nodes = self._bus.nodes
        return {address for address, (known, _) in self._known.items() if known.home not in nodes} | {*self._claiming}

    async def claim(self, address: ChannelAddress, connection_id: str | None, offer: Offer | None) -> Claim:
        """Enter this node into a channel's record. Call `finish` when it is the home.

        Without an offer, a node takes only channels whose home is gone.

        Raises:
            ChannelBusyError: The channel has a broadcaster that the offer does not replace. Without an offer: it has a
                home, or it ended.
            BusDownError: The bus did not answer.
        """
        key = key_of(address)
        for _ in range(MOST_ATTEMPTS):
            stored = await self._bus.read(key)
            before = None if stored is None else Ownership.unpack(stored.value)
            if before is not None and not self._is_free(address, before, offer):
                self._claiming.pop(address, None)
                raise ChannelBusyError(f"The channel {address} already has a broadcaster; replace it with takeover=1.")
            fences = [each.fence for each in (before, self.find(address)) if each is not None]
            # After a record was deleted, the memory of the bus still has its entries. They must have lower fences.
            fence = 1 + max(fences, default=int(1000 * self._wall_clock()))
            channel = self._export(address) if before is None or before.has_ended else before.channel
            after = Ownership(fence, self._bus.node_id, connection_id, channel, (0, 0), None, self._wall_clock())
            if before is not None:
                after = replace(after, as_of=before.as_of, speaker=before.speaker, described_at=before.described_at)
            self._claiming[address] = fence
            try:
                revision = await self._bus.write(key, after.pack(), None if stored is None else stored.revision)
            except ConflictError:
                self._claiming.pop(address, None)
                continue
            return Claim(address, before, after, revision, offer)
        raise ChannelBusyError(f"Several broadcasters claim the channel {address} at once; try again.")

    def _is_free(self, address: ChannelAddress, before: Ownership, offer: Offer | None) -> bool:
        is_unfinished = before.home == self._bus.node_id and before.fence == self._claiming.get(address)
        has_home = before.home in self._bus.nodes and not is_unfinished
        if offer is None:
            return not has_home and not before.has_ended
        return offer.takeover or not has_home or before.has_ended or before.connection is None

    def check(self, claim: Claim) -> None:
        """Check that no other node has claimed the channel since.

        Raises:
            TakenOverError: Another node has.
        """
        if self._claiming.get(claim.address) != claim.after.fence:
            raise TakenOverError(CloseCode.TAKEN_OVER.reason)

    def give_way(self, address: ChannelAddress, fence: int) -> None:
        """Give up a claim of this node if another node has one with this higher fence."""
        if self._claiming.get(address, fence) < fence:
            del self._claiming[address]

    def finish(self, claim: Claim) -> None:
        """Take in that this node is the home that it claimed to be."""
        self._claiming.pop(claim.address, None)

    async def delete(self, address: ChannelAddress) -> None:
        """Delete the record of a channel that ended. Its home, which should do so, is gone."""
        known = self._known.get(address)
        with contextlib.suppress(BusDownError, ConflictError):
            if known is not None:
                await self._bus.delete(key_of(address), known[1])
