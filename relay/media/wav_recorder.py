"""Records what a listener hears to WAV files, which stay below the 4 GiB that WAV can declare."""

import wave
from pathlib import Path

from relay.media.recorder import Recorder
from relay.vocabulary.audio import BYTES_PER_SAMPLE, AudioFormat

_MAX_DATA_BYTES = 0xFFFF_FFFF - 36
"""The most audio that the RIFF header can declare: its 32-bit length includes 36 bytes of the header."""

_SILENT_SECONDS = 1.0
"""How much silence is written at once."""


class WavRecorder(Recorder):
    """Writes 16-bit PCM."""

    FILES = "WAV"

    def __init__(self, path: Path, *, max_data_bytes: int = _MAX_DATA_BYTES) -> None:
        """Open the file. An existing file keeps its contents until the first audio.

        Args:
            path: Where to write. Further files are named `NAME-2.wav` and so on, with the first free number.
            max_data_bytes: Bytes of audio after which the next file begins.

        Raises:
            UserError: The file cannot be written.
        """
        self._max_data_bytes = max_data_bytes
        self._audio_format = AudioFormat()
        self._data_bytes = 0
        self._owed_seconds = 0.0
        super().__init__(path)

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows. It goes to a new file if this one holds another format.

        Raises:
            UserError: The next file cannot be written.
        """
        if audio_format != self._audio_format:
            self._audio_format = audio_format
            if self._data_bytes:
                self._open_next()
            elif self._is_begun:
                self._restart()

    def write(self, audio: bytes) -> None:
        """Append whole samples.

        Raises:
            UserError: They cannot be written, for example because the disk is full.
        """
        if self._data_bytes + len(audio) > self._max_data_bytes:
            self._open_next()
        self._begin_before_audio()
        with self._explained():
            self._writer.writeframes(audio)
        self._data_bytes += len(audio)

    def write_silence(self, seconds: float) -> None:
        """Append silence in place of lost audio, so that what follows keeps its time.

        Raises:
            UserError: It cannot be written.
        """
        self._owed_seconds += seconds
        while self._owed_seconds * self._audio_format.rate >= 1:
            silent_bytes = self._audio_format.bytes_within(min(self._owed_seconds, _SILENT_SECONDS))
            self.write(bytes(silent_bytes))
            self._owed_seconds -= silent_bytes / self._audio_format.bytes_per_second

    def _begin(self) -> None:
        self._data_bytes = 0
        self._writer = wave.open(self._file, "wb")  # noqa: SIM115 - closed by _finish
        self._writer.setnchannels(self._audio_format.channels)
        self._writer.setsampwidth(BYTES_PER_SAMPLE)
        self._writer.setframerate(self._audio_format.rate)
        # Writing no frames makes the writer write the header now, not with the first frame.
        self._writer.writeframes(b"")

    def _finish(self) -> None:
        self._writer.close()
