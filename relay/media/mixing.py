"""Converts PCM of one format to another: the sample rate, and mono or stereo."""

import sys
from array import array

from relay.media.resampling import make_resampler
from relay.vocabulary.audio import AudioFormat


class PcmConverter:
    """Converts a stream of PCM piece by piece."""

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        """Begin at silence.

        Raises:
            UserError: What resamples is missing. The text says how to get it.
        """
        self._channels = source.channels, target.channels
        is_resampled = source.rate != target.rate
        self._resampler = make_resampler(source.rate, target.rate, source.channels) if is_resampled else None

    def convert(self, pcm: bytes) -> bytes:
        """Convert the next whole samples."""
        if self._resampler is not None:
            pcm = self._resampler.resample(pcm)
        match self._channels:
            case (1, 2):
                return _widen(pcm)
            case (2, 1):
                return _mix(pcm)
            case _:
                return pcm


def _widen(mono: bytes) -> bytes:
    stereo = bytearray(2 * len(mono))
    stereo[0::4] = stereo[2::4] = mono[0::2]
    stereo[1::4] = stereo[3::4] = mono[1::2]
    return bytes(stereo)


def _mix(stereo: bytes) -> bytes:
    samples = array("h", stereo)
    if sys.byteorder == "big":
        samples.byteswap()
    mixed = array("h", ((left + right) // 2 for left, right in zip(samples[0::2], samples[1::2], strict=True)))
    if sys.byteorder == "big":
        mixed.byteswap()
    return mixed.tobytes()
