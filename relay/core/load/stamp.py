"""Audio for servers that add no header of their own: the sender's header stands where the samples would begin."""

from relay.core.wire import HEADER_BYTES, Header
from relay.vocabulary.clock import wire_milliseconds


def stamp(seq: int, now: float, audio: bytes) -> bytes:
    """Give `audio` with its first 16 bytes replaced by a header, for `Expect.STAMPED`.

    Args:
        seq: Consecutive from 0 in each channel.
        now: Of this machine's clock, in seconds: when the frame leaves, which its latency counts from.
        audio: At least 16 bytes.
    """
    return Header(0, seq, 0, wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]
