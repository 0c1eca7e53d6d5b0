"""Encodes PCM to MP3, frame by frame, with LAME (extra `mp3`)."""

from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import UserError

MP3_FORMAT = AudioFormat(rate=48_000, channels=2)
"""The format of all MP3. Every decoder knows it, and a listener of any source keeps it. A mono source costs no more in
joint stereo, and a frame lasts exactly 24 ms."""

FRAME_SAMPLES = 1152

_QUALITY = 5
"""LAME's figure, from 0 (slow) to 9. It is LAME's own default for a constant bit rate."""

_HEADER_BYTES = 4


class Mp3Encoder:
    """Encodes with a constant bit rate, so that each frame has a known length."""

    def __init__(self, bitrate: int) -> None:
        """Create an encoder for `MP3_FORMAT`; `bitrate` is in bits per second.

        Raises:
            UserError: LAME is missing. The text says how to get it.
        """
        try:
            import lameenc  # noqa: PLC0415 - optional
        except ImportError as error:
            raise UserError("MP3 needs LAME: pip install 'audio-relay[mp3]'.") from error
        self._frame_bytes = FRAME_SAMPLES // 8 * bitrate // MP3_FORMAT.rate
        self._encoded = bytearray()
        self._encoder = lameenc.Encoder()
        self._encoder.silence()
        self._encoder.set_bit_rate(bitrate // 1000)
        self._encoder.set_in_sample_rate(MP3_FORMAT.rate)
        self._encoder.set_out_sample_rate(MP3_FORMAT.rate)
        self._encoder.set_channels(MP3_FORMAT.channels)
        self._encoder.set_quality(_QUALITY)

    def encode(self, pcm: bytes) -> list[bytes]:
        """Return the frames that are complete with these samples."""
        return self._cut(self._encoder.encode(pcm))

    def flush(self) -> list[bytes]:
        """Return the frames with the last samples. Encode nothing afterwards."""
        return self._cut(self._encoder.flush())

    def _cut(self, encoded: bytes) -> list[bytes]:
        self._encoded += encoded
        frames = []
        # At 48 kHz, no frame of a constant bit rate is padded.
        while len(self._encoded) >= self._frame_bytes:
            frames.append(bytes(self._encoded[: self._frame_bytes]))
            del self._encoded[: self._frame_bytes]
        return frames
