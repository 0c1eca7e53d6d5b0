"""Continues a channel after a home that could not report the state in which it left the channel."""

import math
from dataclasses import replace

from relay.audio.ingest import IngestRecord, Timed
from relay.cluster.ownership import Ownership
from relay.hub.channel import Channel
from relay.hub.channel_record import ChannelRecord


def brought_up_to_date(
    record: ChannelRecord, last: Ownership, channel: Channel, waiting: list[Timed], accepted: tuple[int, int]
) -> ChannelRecord:
    """Return the last record of a home that is gone, updated with what other nodes know.

    `accepted` is the fence of the last audio, and the ticks accepted from that fence's broadcaster.
    """
    fence, ticks = accepted
    if last.speaker is not None and fence == last.as_of[0]:
        record = replace(record, accepted={**record.accepted, last.speaker: ticks})
    if channel.ingest is None:
        return record
    not_before = waiting[-1].due + waiting[-1].piece.seconds if waiting else channel.timeline.over_at
    covered_until = None if record.ingest is None else record.ingest.covered_until
    ingest = IngestRecord(channel.pace.value, None if not_before == -math.inf else not_before, covered_until)
    return replace(record, ingest=ingest)
