"""Records Opus packets as they are to Ogg files (RFC 7845)."""

import secrets
from pathlib import Path

from relay.media.ogg_opus import OggOpusStream, OpusHead
from relay.media.recorder import Recorder
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import UserError

PAGE_TICKS = opus_packet.CLOCK_RATE
"""A page has a second of audio. That much is missing when the machine loses its power."""

_PAGE_SEGMENTS = 200
_SILENCE_TICKS = opus_packet.CLOCK_RATE // 50
_STEP_TICKS = opus_packet.CLOCK_RATE // 400
"""The length of every packet is a multiple of 2.5 ms."""


class OggOpusPages:
    """Joins the packets of one stream to pages. One packet waits for the next, so that the last page has audio."""

    def __init__(self, channels: int, input_rate: int) -> None:
        self._stream = OggOpusStream(OpusHead(channels, input_rate=input_rate), secrets.randbits(32))
        self._packets: list[bytes] = []
        self._segments = 0
        self._ticks = 0

    def begin(self) -> bytes:
        """Return the first pages."""
        return self._stream.begin()

    def add(self, packet: bytes, ticks: int) -> bytes:
        """Add a packet. Return the page before it, if that is complete."""
        segments = len(packet) // 255 + 1
        is_complete = self._ticks >= PAGE_TICKS or self._segments + segments > _PAGE_SEGMENTS
        page = self.flush() if is_complete else b""
        self._packets.append(packet)
        self._segments += segments
        self._ticks += ticks
        return page

    def flush(self, *, is_last: bool = False) -> bytes:
        """Return a page with the packets that wait, if any. The last page ends the stream."""
        if not self._packets:
            return b""
        page = self._stream.add(self._packets, self._ticks, is_last=is_last)
        self._packets, self._segments, self._ticks = [], 0, 0
        return page


def check_opus(audio_format: AudioFormat) -> None:
    """Check that audio is Opus. An older relay sends PCM, whatever it is asked for.

    Raises:
        UserError: It is not.
    """
    if audio_format.codec is not Codec.OPUS:
        raise UserError(
            f"The relay sends {audio_format.codec} and no Opus; leave --codec out, or record to a .wav file."
        )


class OpusRecorder(Recorder):
    """Writes the packets that a listener receives. Stereo after mono goes to a new file."""

    FILES = "Ogg"

    def __init__(self, path: Path) -> None:
        """Open the file. An existing file keeps its contents until the first audio.

        Args:
            path: Where to write. Further files are named `NAME-2.opus` and so on, with the first free number.

        Raises:
            UserError: The file cannot be written.
        """
        self._audio_format = AudioFormat(Codec.OPUS, opus_packet.CLOCK_RATE)
        self._has_audio = False
        self._owed_ticks = 0.0
        super().__init__(path)

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows. It goes to a new file if this one has other channels.

        Raises:
            UserError: The audio is not Opus, or the next file cannot be written.
        """
        check_opus(audio_format)
        before, self._audio_format = self._audio_format, audio_format
        if not self._has_audio and self._is_begun:
            self._restart()
        elif self._has_audio and audio_format.channels != before.channels:
            self._open_next()

    def write(self, audio: bytes) -> None:
        """Append one packet.

        Raises:
            UserError: It cannot be written, for example because the disk is full.
            AudioFaultError: It is not a well-formed packet.
        """
        ticks = self._audio_format.measure(audio).ticks
        self._begin_before_audio()
        self._has_audio = True
        with self._explained():
            if page := self._pages.add(audio, ticks):
                self._file.write(page)
                self._file.flush()

    def write_silence(self, seconds: float) -> None:
        """Append silent packets in place of lost audio, so that what follows keeps its time.

        Raises:
            UserError: They cannot be written.
        """
        self._owed_ticks += seconds * opus_packet.CLOCK_RATE
        while self._owed_ticks >= _STEP_TICKS:
            ticks = min(_SILENCE_TICKS, int(self._owed_ticks) // _STEP_TICKS * _STEP_TICKS)
            self.write(opus_packet.silence(ticks, self._audio_format.channels))
            self._owed_ticks -= ticks

    def _begin(self) -> None:
        self._has_audio = False
        self._pages = OggOpusPages(self._audio_format.channels, self._audio_format.rate)
        self._file.write(self._pages.begin())

    def _finish(self) -> None:
        self._file.write(self._pages.flush(is_last=True))
