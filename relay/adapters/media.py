"""Audio for a broadcaster: files of any kind and raw PCM from a pipe, as blocks of 16-bit PCM.

Invariants: a file is never held in memory as a whole; blocks are whole samples, and joined they are the audio of
the file exactly once; 16-bit WAV is passed on untouched and needs no outside library, everything else is decoded by
PyAV; no other file is opened and no address asked, whatever a file names; what can not be read is a `UserError` with
one sentence.
"""

import contextlib
import os
import stat
import wave
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from relay.vocabulary.audio import BYTES_PER_SAMPLE, CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError

if TYPE_CHECKING:
    import av

_BLOCK_SECONDS = 0.25
"""Length of a block of WAV; a decoder's blocks are as long as its frames."""

_RAW_BLOCK_BYTES = 16 * 1024
"""The most that is read from a pipe at once."""

_STREAMED_WAV_BYTES = 0x7FFF_0000
"""Programs that write WAV to a pipe do not know the length and declare this or more."""

_FILE_MAGICS = (b"RIFF", b"fLaC", b"OggS")
"""First bytes of files that people pipe by mistake where raw PCM is meant; as PCM they are a click and noise."""


class AudioSource(Protocol):
    """Audio that can be read in blocks.

    Attributes:
        name: For a person.
        audio_format: Of the blocks.
        duration_seconds: As a file declares it; None when nobody knows.
        damaged_packets: How many pieces could not be decoded and were left out so far.
    """

    name: str
    audio_format: AudioFormat
    duration_seconds: float | None
    damaged_packets: int

    def blocks(self) -> Iterator[bytes]:
        """Read from the beginning; a file as often as one likes, a pipe once. Reading blocks.

        Raises:
            UserError: It can not be read to its end; what came before was given.
        """
        ...


def open_audio(path: Path, rate: int | None = None, channels: int | None = None) -> AudioSource:
    """Find out what a file holds, reading no more than its beginning.

    Args:
        path: A regular file.
        rate: Convert to this sample rate, in Hz; None keeps the file's, or takes the next higher supported one.
        channels: Convert to 1 or 2 channels; None keeps the file's, and makes stereo of more than two.

    Raises:
        UserError: The file is not there, not readable, empty, truncated or not audio, or it needs PyAV and that is
            not installed.
    """
    wav = _read_wav_header(path)
    plain = None if wav is None else wav.plain_format
    if wav is not None and plain is not None and rate in (None, plain.rate) and channels in (None, plain.channels):
        return _WavFile(path, plain, wav.sample_count)
    return _DecodedFile(path, rate, channels)


class RawInput(AudioSource):
    """Raw 16-bit PCM from standard input, given in whole samples, at most 16 KiB at once."""

    def __init__(self, descriptor: int, audio_format: AudioFormat) -> None:
        """Take an open file descriptor, and what its bytes are."""
        self.name = "standard input"
        self.audio_format = audio_format
        self.duration_seconds: float | None = None
        self.damaged_packets = 0
        self._descriptor = descriptor

    def blocks(self) -> Iterator[bytes]:
        """Read until the other end closes.

        Raises:
            UserError: It can not be read, has no byte, begins like a file that is not raw, or ends in the middle of
                a sample.
        """
        sample_bytes = self.audio_format.sample_bytes
        total_bytes = 0
        rest = b""
        while data := self._read():
            if total_bytes == 0 and data.startswith(_FILE_MAGICS):
                raise UserError(
                    "Standard input must be raw 16-bit PCM, and this begins like an audio file: give the file's "
                    "name, or decode it with `ffmpeg -i FILE -f s16le -ac 1 -ar 16000 -`."
                )
            total_bytes += len(data)
            data = rest + data
            whole_bytes = len(data) - len(data) % sample_bytes
            rest = data[whole_bytes:]
            if whole_bytes:
                yield data[:whole_bytes]
        if total_bytes == 0:
            raise UserError("Standard input holds no audio.")
        if rest:
            raise UserError(
                f"Standard input ended in the middle of a sample: {total_bytes} bytes are not a multiple of "
                f"{sample_bytes} (16-bit, {self.audio_format.channels} channel(s)); all whole samples were sent."
            )

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _RAW_BLOCK_BYTES)
        except OSError as error:
            raise UserError(f"Standard input can not be read: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class _WavHeader:
    """What a WAV file says it holds."""

    rate: int
    channels: int
    sample_width: int
    sample_count: int

    @property
    def plain_format(self) -> AudioFormat | None:
        """What a channel can carry as it is; None when it must be converted."""
        if (
            self.sample_width != BYTES_PER_SAMPLE
            or self.rate not in SAMPLE_RATES
            or self.channels not in CHANNEL_COUNTS
        ):
            return None
        return AudioFormat(rate=self.rate, channels=self.channels)


class _WavFile(AudioSource):
    """A WAV file that a channel can carry as it is; another may take its place, if it is of the same format."""

    def __init__(self, path: Path, audio_format: AudioFormat, sample_count: int) -> None:
        self.name = path.name
        self.audio_format = audio_format
        self.duration_seconds: float | None = sample_count / audio_format.rate
        self.damaged_packets = 0
        self._path = path

    def blocks(self) -> Iterator[bytes]:
        header = _read_wav_header(self._path)
        if header is None or header.plain_format != self.audio_format:
            raise UserError(
                f"{self._path} was replaced by another file, which is not 16-bit WAV of {self.audio_format.rate} Hz "
                f"and {self.audio_format.channels} channel(s)."
            )
        left = header.sample_count
        block_samples = int(self.audio_format.rate * _BLOCK_SECONDS)
        try:
            with self._path.open("rb") as file, wave.open(file) as reader:
                while left and (block := reader.readframes(min(block_samples, left))):
                    left -= len(block) // self.audio_format.sample_bytes
                    yield block
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if left:
            raise UserError(f"{self._path} is damaged: its last {left / self.audio_format.rate:.2f} s can not be read.")


class _DecodedFile(AudioSource):
    """A file that PyAV decodes and converts to what a channel can carry."""

    def __init__(self, path: Path, rate: int | None, channels: int | None) -> None:
        self.name = path.name
        self.duration_seconds: float | None = None
        self.damaged_packets = 0
        self._path = path
        with contextlib.closing(self._frames()) as frames:
            first = next(frames, None)
        if first is None:
            raise UserError(f"{path} holds no audio that can be decoded.")
        self.damaged_packets = 0
        self.audio_format = AudioFormat(
            rate=rate or next((known for known in SAMPLE_RATES if known >= first.sample_rate), SAMPLE_RATES[-1]),
            channels=channels or min(first.layout.nb_channels, CHANNEL_COUNTS[-1]),
        )
        self._converted(self._resampler(), first)

    def blocks(self) -> Iterator[bytes]:
        shape = None
        resampler = self._resampler()
        for frame in self._frames():
            previous, shape = shape, (frame.format.name, frame.layout.name, frame.sample_rate)
            if previous not in (None, shape):
                # MP3s that were joined may change in the middle; a resampler takes one kind of input.
                yield from self._converted(resampler, None)
                resampler = self._resampler()
            yield from self._converted(resampler, frame)
        yield from self._converted(resampler, None)

    def _resampler(self) -> "av.AudioResampler":
        from av import AudioResampler  # noqa: PLC0415 - optional, and 30 MB that plain WAV does without

        layout = "mono" if self.audio_format.channels == 1 else "stereo"
        return AudioResampler(format="s16", layout=layout, rate=self.audio_format.rate)

    def _converted(self, resampler: "av.AudioResampler", frame: "av.AudioFrame | None") -> list[bytes]:
        """Convert a frame; None gives what the resampler still holds."""
        try:
            frames = resampler.resample(frame)
        except ValueError as error:  # FFmpeg's "invalid argument"
            count = "too many" if frame is None else frame.layout.nb_channels
            raise UserError(
                f"{self._path} has {count} channels, which can not be mixed without knowing what they are; make it "
                "mono or stereo where it comes from."
            ) from error
        # A plane may be longer than its samples: decoders pad.
        return [bytes(frame.planes[0])[: frame.samples * self.audio_format.sample_bytes] for frame in frames]

    def _frames(self) -> "Generator[av.AudioFrame]":
        try:
            import av  # noqa: PLC0415 - the same
        except ImportError as error:
            raise UserError(
                f"{self._path} is not plain 16-bit WAV, or is to be converted, and that needs PyAV: "
                "pip install 'audio-relay[media]'."
            ) from error
        try:
            with (
                self._path.open("rb") as file,
                av.open(file, "r", metadata_errors="replace", options={"protocol_whitelist": "none"}) as container,
            ):
                if not container.streams.audio:
                    raise UserError(f"{self._path} has no audio in it.")
                stream = container.streams.audio[0]
                if container.duration is not None:
                    self.duration_seconds = container.duration / av.time_base
                for packet in container.demux(stream):
                    try:
                        yield from packet.decode()
                    except av.error.FFmpegError:
                        # Tags and torn packets are common in files that play well everywhere else.
                        self.damaged_packets += 1
        except av.error.FFmpegError as error:
            raise UserError(f"{self._path} can not be read as audio: {error.strerror}.") from error
        except OSError as error:
            raise _unreadable(self._path, error) from error


def _check_readable(path: Path) -> int:
    """Give the size of a regular file that can be opened, in bytes."""
    try:
        # Looking before opening: opening a named pipe would wait for its other end.
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a directory, not an audio file.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file; raw PCM from a pipe is read with - as the file's name.")
    if status.st_size == 0:
        raise UserError(f"{path} is empty.")
    return status.st_size


def _read_wav_header(path: Path) -> _WavHeader | None:
    """Read the header of integer WAV; None when it is something else, which is PyAV's to judge."""
    size = _check_readable(path)
    try:
        with path.open("rb") as file, wave.open(file) as reader:
            start = file.tell()
            declared = reader.getparams()
    except (wave.Error, EOFError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    if declared.framerate == 0:
        return None
    sample_bytes = declared.sampwidth * declared.nchannels
    sample_count = declared.nframes
    present = (size - start) // sample_bytes
    if sample_count > present:
        if sample_count * sample_bytes < _STREAMED_WAV_BYTES:
            raise UserError(
                f"{path} is truncated: its header declares {sample_count / declared.framerate:.2f} s of audio, and "
                f"{present / declared.framerate:.2f} s are there; copy it again, or repair it with "
                f"`ffmpeg -i FILE REPAIRED.wav`."
            )
        sample_count = present
    if sample_count == 0:
        raise UserError(f"{path} holds no audio: it is a WAV file of 0 samples.")
    return _WavHeader(declared.framerate, declared.nchannels, declared.sampwidth, sample_count)


def _unreadable(path: Path, error: OSError | ValueError) -> UserError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UserError(f"{path} can not be read: {reason}.")
