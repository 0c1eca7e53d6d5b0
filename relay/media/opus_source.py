"""Sources that hold Opus in Ogg, whose packets pass through unchanged."""

from collections.abc import Iterator
from pathlib import Path

from relay.media.ogg import OggLinks
from relay.media.ogg_opus import HEAD_END, OggPackets, OpusHead, look_for_head, read_head
from relay.media.pipe import Pipe
from relay.media.source import AudioSource, Readable
from relay.media.wav import unreadable
from relay.vocabulary.audio import CHANNEL_COUNTS, OPUS_RATES, AudioFormat, Codec
from relay.vocabulary.errors import AudioFaultError, UserError

_HEADERS = 2
"""The packets before the audio: the head and the tags."""


def find_opus(beginning: bytes, rate: int | None, channels: int | None) -> OpusHead | None:
    """Return the head of Ogg Opus that can pass through unchanged; None for anything else.

    Args:
        beginning: The first `HEAD_END` bytes.
        rate: The rate to which the relay is to decode; None for any.
        channels: The channels that were asked for; None for any.
    """
    head = look_for_head(beginning)
    if head is None or head.family or head.channels not in CHANNEL_COUNTS:
        return None
    return head if rate in (None, *OPUS_RATES) and channels in (None, head.channels) else None


class _OpusSource(AudioSource):
    def __init__(self, name: str, label: str, head: OpusHead, rate: int | None) -> None:
        original = head.input_rate if head.input_rate in OPUS_RATES else OPUS_RATES[-1]
        self.name = name
        self.audio_format = AudioFormat(Codec.OPUS, rate or original, head.channels)
        self.duration_seconds: float | None = None
        self.damaged_packets = 0
        self.remark: str | None = None
        if head.gain_db:
            self.remark = f"{label} asks players for {head.gain_db:+.1f} dB, which listeners do not hear."
        self._label = label

    def _packets(self, file: Readable) -> Iterator[bytes]:
        """Yield the packets of all links.

        Raises:
            UserError: A link has another format.
        """
        has_audio = False
        for link in OggLinks(file):
            packets = OggPackets(link)
            for number, packet in enumerate(packets):
                if number == 0:
                    self._check(packet)
                if number < _HEADERS:
                    continue
                try:
                    self.audio_format.measure(packet)
                except AudioFaultError:
                    self.damaged_packets += 1
                else:
                    has_audio = True
                    yield packet
            self.damaged_packets += packets.damaged
        if not has_audio:
            raise UserError(f"{self._label} holds no audio.")

    def _check(self, packet: bytes) -> None:
        head = read_head(packet)
        if head is None or head.family or head.channels != self.audio_format.channels:
            raise UserError(
                f"{self._label} goes on in another format, which can not be passed on as it is; leave --codec opus out."
            )


class OpusFile(_OpusSource):
    """An Ogg file with Opus. Another file of the same format may replace it."""

    def __init__(self, path: Path, head: OpusHead, rate: int | None) -> None:
        """Open a file that begins with this head; `rate` is what the relay decodes to, None for the original's."""
        super().__init__(path.name, str(path), head, rate)
        self._path = path

    def blocks(self) -> Iterator[bytes]:
        """Read the packets from the beginning."""
        try:
            with self._path.open("rb") as file:
                yield from self._packets(file)
        except OSError as error:
            raise unreadable(self._path, error) from error


class OpusInput(_OpusSource):
    """Ogg with Opus from a pipe."""

    def __init__(self, pipe: Pipe, head: OpusHead, rate: int | None) -> None:
        """Read from `pipe`, which is at its first byte."""
        super().__init__("standard input as Ogg Opus", "Standard input", head, rate)
        self._pipe = pipe

    def blocks(self) -> Iterator[bytes]:
        """Read the packets as they come, once."""
        return self._packets(self._pipe)


def look_at_head(pipe: Pipe) -> bytes:
    """Return the beginning of a pipe as far as it says whether it holds Opus. Waits for it."""
    seen = b""
    while len(seen) < HEAD_END:
        more = pipe.look(len(seen), HEAD_END)
        if len(more) == len(seen):
            break
        seen = more
    return seen
