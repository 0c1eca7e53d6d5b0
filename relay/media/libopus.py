"""Binds libopus: encodes 16-bit PCM to Opus packets, and decodes them.

The library comes from the system (`libopus0` on Debian). Without it, the copy in PyAV's wheel serves. Calls release the
interpreter's lock, so an encoder in a thread stops nobody else.
"""

import ctypes
import functools
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_int32, c_void_p
from importlib import metadata

from relay.vocabulary.errors import RelayError, UserError

_NAMES = ("libopus.so.0", "libopus.0.dylib", "opus.dll")
_APPLICATION_VOIP = 2048
_SET_BITRATE, _SET_COMPLEXITY, _GET_LOOKAHEAD = 4002, 4010, 4027
_MAX_PACKET_BYTES = 4000
"""More than 60 ms at 510 kb/s."""


class OpusError(RelayError):
    """libopus refuses its input, which for a decoder is a damaged packet."""


@functools.cache
def load_libopus() -> ctypes.CDLL:
    """Load the library.

    Raises:
        UserError: It is nowhere on this machine. The text says how to get it.
    """
    for path in (*_NAMES, *_paths_in_pyav()):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.opus_strerror.restype = c_char_p
        # The state is memory of Python's own, so nothing has to be destroyed.
        library.opus_encoder_init.argtypes = [c_void_p, c_int32, c_int, c_int]
        library.opus_encoder_ctl.argtypes = [c_void_p, c_int]  # and one more, which is variadic
        library.opus_encode.argtypes = [c_void_p, c_char_p, c_int, POINTER(c_char), c_int32]
        library.opus_encode.restype = c_int32
        library.opus_decoder_init.argtypes = [c_void_p, c_int32, c_int]
        library.opus_decode.argtypes = [c_void_p, c_char_p, c_int32, POINTER(c_char), c_int, c_int]
        return library
    raise UserError("Opus needs libopus: apt-get install libopus0, or pip install 'audio-relay[media]'.")


def _paths_in_pyav() -> list[str]:
    try:
        files = metadata.files("av") or []
    except metadata.PackageNotFoundError:
        return []
    return [str(file.locate()) for file in files if file.name.startswith(("libopus-", "libopus."))]


class OpusEncoder:
    """Encodes speech with a variable bit rate, without error correction and without silence detection.

    TCP loses no packets, and a stream without packets in silence would look like a lost source.

    Attributes:
        look_ahead: The first samples of the output that come before the first of the input.
    """

    def __init__(self, rate: int, channels: int, bitrate: int, complexity: int) -> None:
        """Create an encoder.

        Args:
            rate: Of the PCM, in Hz: 8000, 12000, 16000, 24000 or 48000.
            channels: 1 or 2.
            bitrate: Average bits per second, in all.
            complexity: From 0 to 10. Higher values take more CPU and sound better.

        Raises:
            UserError: libopus is missing.
        """
        library = self._library = load_libopus()
        self._sample_bytes = 2 * channels
        self._state = ctypes.create_string_buffer(library.opus_encoder_get_size(channels))
        self._packet = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
        _check(library, library.opus_encoder_init(self._state, rate, channels, _APPLICATION_VOIP))
        # A variable bit rate, no FEC and no DTX are what libopus begins with.
        _check(library, library.opus_encoder_ctl(self._state, _SET_BITRATE, c_int32(bitrate)))
        _check(library, library.opus_encoder_ctl(self._state, _SET_COMPLEXITY, c_int32(complexity)))
        look_ahead = c_int32()
        _check(library, library.opus_encoder_ctl(self._state, _GET_LOOKAHEAD, byref(look_ahead)))
        self.look_ahead = look_ahead.value

    def encode(self, pcm: bytes) -> bytes:
        """Encode 2.5, 5, 10, 20, 40 or 60 ms of interleaved 16-bit PCM into one packet.

        Raises:
            OpusError: No packet has this duration.
        """
        size = self._library.opus_encode(
            self._state, pcm, len(pcm) // self._sample_bytes, self._packet, _MAX_PACKET_BYTES
        )
        _check(self._library, size)
        return ctypes.string_at(self._packet, size)


class OpusDecoder:
    """Decodes packets to interleaved 16-bit PCM."""

    def __init__(self, rate: int, channels: int) -> None:
        """Create a decoder; `rate` is one of 8000, 12000, 16000, 24000 and 48000 Hz, `channels` 1 or 2.

        Raises:
            UserError: libopus is missing.
        """
        library = self._library = load_libopus()
        self._sample_bytes = 2 * channels
        self._state = ctypes.create_string_buffer(library.opus_decoder_get_size(channels))
        _check(library, library.opus_decoder_init(self._state, rate, channels))

    def decode(self, packet: bytes | None, samples: int) -> bytes:
        """Decode one packet of `samples` samples a channel. None conceals one that was lost.

        Raises:
            OpusError: The packet is damaged.
        """
        pcm = ctypes.create_string_buffer(samples * self._sample_bytes)
        size = 0 if packet is None else len(packet)
        decoded = self._library.opus_decode(self._state, packet, size, pcm, samples, 0)
        _check(self._library, decoded)
        return ctypes.string_at(pcm, decoded * self._sample_bytes)


def _check(library: ctypes.CDLL, result: int) -> None:
    if result < 0:
        raise OpusError(f"libopus: {library.opus_strerror(result).decode()}.")
