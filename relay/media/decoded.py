"""Audio that PyAV decodes, from a file or a pipe, converted to a format that a channel can carry."""

import contextlib
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from relay.media.ogg import MAGIC as OGG_MAGIC
from relay.media.ogg import OggLinks
from relay.media.pipe import Pipe
from relay.media.source import AudioSource, Readable
from relay.media.wav import unreadable
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError

if TYPE_CHECKING:
    import av

_FILE_OPTIONS = {"protocol_whitelist": "none"}
_PIPE_OPTIONS = {**_FILE_OPTIONS, "analyzeduration": "100000"}
"""FFmpeg examines up to 5 s of a stream before it returns any of it. For audio 0.1 s (in µs) is enough."""


_RATES = range(1_000, 1_000_000)
"""Accepted sample rates, in Hz, before conversion. A damaged header may name any, and building the filter for 2 GHz
takes minutes.
"""


class _Decoded(AudioSource):
    def __init__(self, label: str, name: str, options: dict[str, str]) -> None:
        self.name = name
        self.duration_seconds: float | None = None
        self.damaged_packets = 0
        self.remark: str | None = None
        self._label = label
        self._options = options

    def _choose_format(self, first: "av.AudioFrame | None", rate: int | None, channels: int | None) -> None:
        """Choose the output format from the first frame."""
        if first is None:
            raise UserError(f"{self._label} has no audio that FFmpeg can decode.")
        self.audio_format = AudioFormat(
            rate=rate or next((known for known in SAMPLE_RATES if known >= first.sample_rate), SAMPLE_RATES[-1]),
            channels=channels or min(first.layout.nb_channels, CHANNEL_COUNTS[-1]),
        )
        self._converted(self._resampler(), first)

    def _convert(self, frames: "Iterator[av.AudioFrame]") -> Iterator[bytes]:
        shape = None
        resampler = self._resampler()
        for frame in frames:
            previous, shape = shape, (frame.format.name, frame.layout.name, frame.sample_rate)
            if previous not in (None, shape):
                # Joined MP3s may change format in the middle, and a resampler takes one kind of input.
                yield from self._converted(resampler, None)
                resampler = self._resampler()
            yield from self._converted(resampler, frame)
        yield from self._converted(resampler, None)

    def _resampler(self) -> "av.AudioResampler":
        from av import AudioResampler  # noqa: PLC0415 - optional, and plain WAV needs none of its 30 MB

        layout = "mono" if self.audio_format.channels == 1 else "stereo"
        return AudioResampler(format="s16", layout=layout, rate=self.audio_format.rate)

    def _converted(self, resampler: "av.AudioResampler", frame: "av.AudioFrame | None") -> list[bytes]:
        """Convert a frame. None returns what the resampler still holds."""
        if frame is not None and frame.sample_rate not in _RATES:
            raise UserError(
                f"{self._label} cannot be read as audio: it declares a sample rate of {frame.sample_rate} Hz."
            )
        try:
            frames = resampler.resample(frame)
        except ValueError as error:  # FFmpeg's "invalid argument"
            count = "too many" if frame is None else frame.layout.nb_channels
            raise UserError(
                f"{self._label} has {count} channels of an unknown layout, which cannot be mixed; convert it to mono "
                "or stereo first."
            ) from error
        # Decoders pad, so a plane may be longer than its samples.
        return [bytes(frame.planes[0])[: frame.samples * self.audio_format.sample_bytes] for frame in frames]

    def _decode(self, file: Readable, *, is_ogg: bool) -> "Generator[av.AudioFrame]":
        """Decode all links of Ogg; treat anything else as one link."""
        is_first = True
        for link in OggLinks(file) if is_ogg else (file,):
            try:
                yield from self._decode_link(link)
            except UserError:
                if is_first:
                    raise
                self.damaged_packets += 1
            is_first = False

    def _decode_link(self, file: Readable) -> "Generator[av.AudioFrame]":
        import av  # noqa: PLC0415 - the same

        try:
            with av.open(file, "r", metadata_errors="replace", options=self._options) as container:
                if not container.streams.audio:
                    raise UserError(f"{self._label} has no audio.")
                for packet in container.demux(container.streams.audio[0]):
                    try:
                        yield from packet.decode()
                    except av.error.FFmpegError:
                        # Tags and torn packets are common in files that play well everywhere else.
                        self.damaged_packets += 1
        except av.error.FFmpegError as error:
            raise UserError(f"{self._label} cannot be read as audio: {error.strerror}.{self._advice()}") from error

    def _advice(self) -> str:
        return ""


class DecodedFile(_Decoded):
    """A file that PyAV decodes."""

    def __init__(self, path: Path, rate: int | None, channels: int | None) -> None:
        """Decode the first frame.

        Raises:
            UserError: The file cannot be read or is not audio, or PyAV is not installed.
        """
        super().__init__(str(path), path.name, _FILE_OPTIONS)
        self._path = path
        _need_pyav(f"{path} is not plain 16-bit WAV, or needs a conversion. Install PyAV to decode it")
        self.duration_seconds = self._declared_seconds()
        with contextlib.closing(self._frames()) as frames:
            first = next(frames, None)
        self.damaged_packets = 0
        self._choose_format(first, rate, channels)

    def blocks(self) -> Iterator[bytes]:
        """Decode the file from the beginning."""
        return self._convert(self._frames())

    def _frames(self) -> "Generator[av.AudioFrame]":
        try:
            with self._path.open("rb") as file:
                is_ogg = file.read(len(OGG_MAGIC)) == OGG_MAGIC
                file.seek(0)
                yield from self._decode(file, is_ogg=is_ogg)
        except OSError as error:
            raise unreadable(self._path, error) from error

    def _declared_seconds(self) -> float | None:
        """Read the duration, for which FFmpeg may examine the end of the file."""
        import av  # noqa: PLC0415 - the same

        try:
            with (
                self._path.open("rb") as file,
                av.open(file, "r", metadata_errors="replace", options=self._options) as container,
            ):
                return None if container.duration is None else container.duration / av.time_base
        except (av.error.FFmpegError, OSError):
            return None  # decoding reports the reason


class DecodedInput(_Decoded):
    """A pipe that PyAV decodes as data arrives."""

    def __init__(self, pipe: Pipe, found: str, rate: int | None, channels: int | None) -> None:
        """Decode the first frame.

        Args:
            pipe: At its first byte.
            found: The format that its first bytes indicate.
            rate: Convert to this sample rate, in Hz; None as for a file.
            channels: Convert to this many channels; None as for a file.

        Raises:
            UserError: The pipe cannot be read or holds no audio, or PyAV is not installed.
        """
        super().__init__("Standard input", f"standard input as {found}", _PIPE_OPTIONS)
        self._found = found
        _need_pyav(
            f"Standard input is {found}. Convert it in the pipe with "
            "`ffmpeg -i - -f s16le -ac 1 -ar 16000 - | relay broadcast SESSION - --raw`, or install PyAV"
        )
        self._frames = self._decode(pipe, is_ogg=found == "Ogg")
        first = next(self._frames, None)
        self._choose_format(first, rate, channels)
        self._first = first

    def blocks(self) -> Iterator[bytes]:
        """Decode the pipe to its end, once."""
        first = () if self._first is None else (self._first,)
        return self._convert(chain(first, self._frames))

    def _advice(self) -> str:
        return (
            f" It begins like {self._found}, which may not be readable from a pipe: give the file's name instead, or "
            "--raw if it is raw PCM."
        )


def _need_pyav(why: str) -> None:
    try:
        import av  # noqa: F401, PLC0415 - the same
    except ImportError as error:
        raise UserError(f"{why}: pip install 'audio-relay[media]'.") from error
