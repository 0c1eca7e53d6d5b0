"""Converts the sample rate of a stream of 16-bit PCM, for codecs that take only some rates.

The first sample of the output is at the time of the first sample of the input. The output trails the input by the few
milliseconds that the filter looks ahead.

The resampler is that of Speex (`libspeexdsp1` on Debian). Without it, PyAV's serves.
"""

import ctypes
import functools
import weakref
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_uint32, c_void_p
from typing import Protocol

from relay.vocabulary.errors import UserError

_NAMES = ("libspeexdsp.so.1", "libspeexdsp.1.dylib")
_QUALITY = 5
"""From 0 to 10; 5 is what Speex calls "desktop"."""


class Resampler(Protocol):
    """Converts a stream piece by piece."""

    def resample(self, pcm: bytes) -> bytes:
        """Convert the next whole samples of interleaved 16-bit PCM."""


def make_resampler(rate: int, to_rate: int, channels: int) -> Resampler:
    """Return a resampler from `rate` to `to_rate`, in Hz.

    Raises:
        UserError: No library for it is on this machine. The text says how to get one.
    """
    library = load_speex()
    if library is not None:
        return _SpeexResampler(library, rate, to_rate, channels)
    try:
        return _PyavResampler(rate, to_rate, channels)
    except ImportError as error:
        raise UserError(
            f"Opus from audio of {rate} Hz needs a resampler: apt-get install libspeexdsp1, or "
            "pip install 'audio-relay[media]'."
        ) from error


@functools.cache
def load_speex() -> ctypes.CDLL | None:
    """Load the library of Speex; None if it is nowhere on this machine."""
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.speex_resampler_init.argtypes = [c_uint32, c_uint32, c_uint32, c_int, POINTER(c_int)]
        library.speex_resampler_init.restype = c_void_p
        library.speex_resampler_skip_zeros.argtypes = [c_void_p]
        library.speex_resampler_destroy.argtypes = [c_void_p]
        library.speex_resampler_process_interleaved_int.argtypes = [
            *(c_void_p, c_char_p, POINTER(c_uint32)),
            *(POINTER(c_char), POINTER(c_uint32)),
        ]
        return library
    return None


class _SpeexResampler(Resampler):
    def __init__(self, library: ctypes.CDLL, rate: int, to_rate: int, channels: int) -> None:
        self._process = library.speex_resampler_process_interleaved_int
        self._rates = rate, to_rate
        self._sample_bytes = 2 * channels
        self._state = library.speex_resampler_init(channels, rate, to_rate, _QUALITY, None)
        weakref.finalize(self, library.speex_resampler_destroy, self._state)
        library.speex_resampler_skip_zeros(self._state)

    def resample(self, pcm: bytes) -> bytes:
        samples = len(pcm) // self._sample_bytes
        rate, to_rate = self._rates
        taken, made = c_uint32(samples), c_uint32(samples * to_rate // rate + 2)
        converted = ctypes.create_string_buffer(made.value * self._sample_bytes)
        self._process(self._state, pcm, byref(taken), converted, byref(made))
        if taken.value != samples:
            raise AssertionError(f"speex left {samples - taken.value} samples of {samples}")
        return ctypes.string_at(converted, made.value * self._sample_bytes)


class _PyavResampler(Resampler):
    def __init__(self, rate: int, to_rate: int, channels: int) -> None:
        import av  # noqa: PLC0415 - optional, and not needed where Speex is

        self._rate, self._layout = rate, "mono" if channels == 1 else "stereo"
        self._sample_bytes = 2 * channels
        self._new_frame = av.AudioFrame
        self._resampler = av.AudioResampler("s16", self._layout, to_rate)

    def resample(self, pcm: bytes) -> bytes:
        if not pcm:
            return b""
        frame = self._new_frame("s16", self._layout, len(pcm) // self._sample_bytes)
        frame.sample_rate = self._rate
        [plane] = frame.planes
        plane.update(pcm.ljust(plane.buffer_size, b"\0"))
        frames = self._resampler.resample(frame)
        return b"".join(bytes(each.planes[0])[: each.samples * self._sample_bytes] for each in frames)
