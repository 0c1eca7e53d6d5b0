"""Silence in place of lost audio, so that a recording keeps time."""

from collections.abc import Iterator

from relay.vocabulary import opus_packet
from relay.vocabulary.audio import AudioFormat, Codec

_MAX_SECONDS = 0.1
"""The most silence in one piece."""

_OPUS_STEP_TICKS = opus_packet.CLOCK_RATE // 400
"""Opus packets last a multiple of 2.5 ms."""


class LostTime:
    """Makes the silence. What is too short for a sample or a packet adds to the next loss."""

    def __init__(self) -> None:
        self._owed_seconds = 0.0

    def silence(self, seconds: float, audio_format: AudioFormat) -> Iterator[bytes]:
        """Yield silence in pieces, each of which can be recorded: whole samples, or one Opus packet."""
        self._owed_seconds += seconds
        step_ticks = _OPUS_STEP_TICKS if audio_format.codec is Codec.OPUS else 1
        while True:
            # A sum of such seconds may be a little less than the ticks that it stands for.
            owed_ticks = int(min(self._owed_seconds, _MAX_SECONDS) * audio_format.clock_rate + 1e-6)
            ticks = owed_ticks - owed_ticks % step_ticks
            if ticks <= 0:
                return
            self._owed_seconds -= ticks / audio_format.clock_rate
            if audio_format.codec is Codec.OPUS:
                yield opus_packet.silence(ticks, audio_format.channels)
            else:
                yield bytes(ticks * audio_format.sample_bytes)
