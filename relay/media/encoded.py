"""Encodes a source of PCM as Opus while it is read."""

from collections.abc import Iterator

from relay.media.libopus import OpusEncoder
from relay.media.resampling import Resampler, make_resampler
from relay.media.source import AudioSource
from relay.vocabulary.audio import OPUS_RATES, AudioFormat, Codec
from relay.vocabulary.errors import RelayError

PACKET_MS = (5, 10, 20, 40, 60)
"""The lengths of a packet that can be chosen, of those that libopus encodes at once."""

COMPLEXITY = 10
"""The best that libopus does. One stream takes a few per cent of a CPU."""

_RESAMPLER_SECONDS = 0.02
"""A resampler trails its input by less than this."""


class EncodedSource(AudioSource):
    """Opus packets of a source of PCM. Each block is one packet."""

    def __init__(self, source: AudioSource, *, bitrate: int, packet_ms: int) -> None:
        """Prepare to encode.

        Args:
            source: PCM of any format.
            bitrate: Average bits per second, for all channels together.
            packet_ms: The length of a packet, one of `PACKET_MS`.

        Raises:
            UserError: libopus, or what resamples for it, is missing. The text says how to get it.
        """
        pcm = source.audio_format
        rate = next(each for each in OPUS_RATES if each >= pcm.rate)
        self.name = source.name
        self.audio_format = AudioFormat(Codec.OPUS, rate, pcm.channels)
        self.duration_seconds = source.duration_seconds
        self.damaged_packets = source.damaged_packets
        self.remark = source.remark
        self._source = source
        self._bitrate = bitrate
        self._packet_samples = rate * packet_ms // 1000
        self._prepare()

    def blocks(self) -> Iterator[bytes]:
        """Encode the source from the beginning. The last packet is padded, so that all of the source is heard.

        Raises:
            UserError: The source cannot be read to its end. Everything before the fault was returned.
        """
        encoder, resampler = self._prepare()
        packet_bytes = self._packet_samples * self.audio_format.sample_bytes
        pcm = bytearray()
        problem: RelayError | None = None
        try:
            for block in self._source.blocks():
                pcm += block if resampler is None else resampler.resample(block)
                while len(pcm) >= packet_bytes:
                    yield encoder.encode(bytes(pcm[:packet_bytes]))
                    del pcm[:packet_bytes]
        except RelayError as error:
            problem = error
        self.damaged_packets, self.remark = self._source.damaged_packets, self._source.remark
        if resampler is not None:
            pcm += resampler.resample(bytes(self._source.audio_format.bytes_within(_RESAMPLER_SECONDS)))
        pcm += bytes(encoder.look_ahead * self.audio_format.sample_bytes)
        for start in range(0, len(pcm), packet_bytes):
            yield encoder.encode(bytes(pcm[start : start + packet_bytes]).ljust(packet_bytes, b"\0"))
        if problem is not None:
            raise problem

    def _prepare(self) -> tuple[OpusEncoder, Resampler | None]:
        pcm, rate = self._source.audio_format, self.audio_format.rate
        resampler = None if pcm.rate == rate else make_resampler(pcm.rate, rate, pcm.channels)
        return OpusEncoder(rate, pcm.channels, self._bitrate, COMPLEXITY), resampler
