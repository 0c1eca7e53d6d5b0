"""Continues a channel after a home that could not report the state in which it left the channel."""

import math
from collections.abc import Mapping
from dataclasses import replace

from relay.audio.ingest import IngestRecord, Timed
from relay.cluster.ownership import Ownership
from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord


def brought_up_to_date(
    record: ChannelRecord,
    last: Ownership,
    channel: Channel,
    waiting: list[Timed],
    *,
    accepted: tuple[int, int],
    begun: tuple[int, Mapping[str, int]],
) -> ChannelRecord:
    """Return the last record of a home that is gone, updated with what other nodes know.

    `accepted` is the fence of the last audio, and the ticks accepted from that fence's broadcaster. `begun` is the
    fence with which a home last began, and the ticks accepted from each connection until then. It is newer than the
    record if that home was gone before it wrote one.
    """
    counts, fence, broadcaster = record.accepted, last.as_of[0], last.speaker
    if begun[0] > fence:
        fence, counts = begun
        broadcaster = last.connection if fence == last.fence else None
    if broadcaster is not None and fence == accepted[0]:
        counts = {**counts, broadcaster: accepted[1]}
    record = replace(record, accepted=counts)
    if channel.ingest is None:
        return record
    not_before = waiting[-1].due + waiting[-1].piece.seconds if waiting else channel.timeline.over_at
    covered_until = None if record.ingest is None else record.ingest.covered_until
    ingest = IngestRecord(channel.pace.value, None if not_before == -math.inf else not_before, covered_until)
    return replace(record, ingest=ingest)
