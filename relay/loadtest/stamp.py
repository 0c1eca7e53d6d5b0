"""Audio that carries the sender's time: a header of its own stands where the samples would begin."""

from relay.protocol.wire import HEADER_BYTES, Header
from relay.vocabulary.clock import wire_milliseconds

STREAM_EPOCH = 0x5EED
"""The epoch of stamps in a stream; quiet audio has nothing that looks like it."""

STREAM_MARK = Header(STREAM_EPOCH, 0, 0, 0).pack()[:4]
"""How each frame of a stream begins."""


def stamp(seq: int, now: float, audio: bytes) -> bytes:
    """Give `audio` with its first 16 bytes replaced by a header, for the stamped kinds of `Expect`.

    Args:
        seq: Consecutive from 0 in each channel.
        now: Of this machine's clock, in seconds: when the frame leaves, which its latency counts from.
        audio: At least 16 bytes.
    """
    return Header(0, seq, 0, wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]


def stamp_for_stream(seq: int, now: float, audio: bytes) -> bytes:
    """Do the same so that a receiver finds frames in a stream; their length stands where the media time would."""
    return Header(STREAM_EPOCH, seq, len(audio), wire_milliseconds(now)).pack() + audio[HEADER_BYTES:]
