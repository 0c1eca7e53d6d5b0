"""Framings: the form in which a listener gets its frames.

A framing is a value: two listeners with equal framings get the same bytes. To serve another kind of listener, add a
framing here, and let the server ask for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from relay.protocol.wire import Header, pack_audio
from relay.vocabulary.audio import FLICKS_PER_SECOND, Frame
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.containers import Container

Serialize = Callable[[bytes], bytes]
"""Makes the complete WebSocket message of a binary payload."""


class Written(NamedTuple):
    """Frames as they are written.

    Attributes:
        messages: Messages that a socket gets whole or not at all.
        frames: The number of frames in each message.
    """

    messages: Sequence[bytes]
    frames: Sequence[int]


class Framing(Protocol):
    """The form of a listener's frames. Framings are compared and hashed by value."""

    @property
    def name(self) -> str:
        """Its name, for operators."""
        ...

    @property
    def has_texts(self) -> bool:
        """Whether the listener reads control messages."""
        ...

    @property
    def message_flicks(self) -> int:
        """How much audio a message gathers; 0 if each frame is a message."""
        ...

    def write(self, frames: Sequence[Frame], serialize: Serialize) -> Written:
        """Return the messages of consecutive frames of one epoch."""
        ...


@dataclass(frozen=True, slots=True)
class RelayFraming:
    """`relay.v1`: header and audio, with control messages.

    Attributes:
        packet_ms: How much audio frames may have that share one message; 0 if each has its own.
    """

    packet_ms: int = 0

    name: ClassVar = "relay.v1"
    has_texts: ClassVar = True

    @property
    def message_flicks(self) -> int:
        """How much audio a message gathers."""
        return self.packet_ms * FLICKS_PER_SECOND // 1000

    def write(self, frames: Sequence[Frame], serialize: Serialize) -> Written:
        """Return a message for each frame, or for several."""
        if not self.packet_ms:
            return Written([frame.wire for frame in frames], _ones(frames))
        groups = _gather(frames, self.message_flicks)
        messages = [group[0].wire if len(group) == 1 else serialize(_pack(group)) for group in groups]
        return Written(messages, list(map(len, groups)))


@dataclass(frozen=True, slots=True)
class RawFraming:
    """Audio without a header, and no control messages."""

    name: ClassVar = "raw"
    has_texts: ClassVar = False
    message_flicks: ClassVar = 0

    def write(self, frames: Sequence[Frame], serialize: Serialize) -> Written:
        """Return a message for each frame."""
        return Written([serialize(frame.audio) for frame in frames], _ones(frames))


@dataclass(frozen=True, slots=True)
class HttpFraming:
    """The body of an HTTP response that goes on: each frame is a chunk (RFC 9112, section 7.1).

    Attributes:
        container: What the frames are part of.
        is_chunked: Whether the client knows chunks. HTTP/1.0 does not, and gets bare audio.
    """

    container: Container
    is_chunked: bool = True

    name: ClassVar = "http"
    has_texts: ClassVar = False
    message_flicks: ClassVar = 0

    def write(self, frames: Sequence[Frame], serialize: Serialize) -> Written:  # noqa: ARG002 - a chunk is no WebSocket message
        """Return a chunk for each frame."""
        return Written([self.wrap(frame.audio) for frame in frames], _ones(frames))

    def wrap(self, data: bytes) -> bytes:
        """Return a part of the body as it is written."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked and data else data

    @property
    def end(self) -> bytes:
        """What ends the body."""
        return b"0\r\n\r\n" if self.is_chunked else b""


RELAY_V1 = RelayFraming()
"""The framing of a listener that speaks `relay.v1` and gets a message for each frame."""

RAW = RawFraming()
"""The framing of a listener that does not speak `relay.v1`."""


def _ones(frames: Sequence[Frame]) -> Sequence[int]:
    return [1] * len(frames)


def _gather(frames: Sequence[Frame], most_flicks: int) -> list[list[Frame]]:
    """Return the frames in groups that last at most `most_flicks`, but have one frame at least."""
    groups: list[list[Frame]] = []
    room = 0
    for frame in frames:
        room -= frame.duration
        if room < 0:
            groups.append([])
            room = most_flicks - frame.duration
        groups[-1].append(frame)
    return groups


def _pack(frames: Sequence[Frame]) -> bytes:
    first = frames[0]
    place = first.start
    header = Header(place.epoch, place.seq, place.media_time, wire_milliseconds(first.timestamp))
    return pack_audio(header, [frame.audio for frame in frames])
