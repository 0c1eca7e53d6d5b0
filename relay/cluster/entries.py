"""Entries: what a channel's home sends to the other nodes, as bytes.

An entry names the fence of its home and its index, which counts the home's entries from 0. Both together order all
entries of a channel. From them, a node knows which entries it has, which it lacks, and which come from a replaced
home.

Invariants: Each entry can be read without earlier ones. All times are wall-clock seconds of the home. Nothing here
reads a clock. Audio is a named tuple, because a frozen dataclass takes longer to make, for each frame.

Source: docs/architecture.md, "Several nodes".
"""

import json
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from relay.hub.channel import ENDED
from relay.hub.listener import Note
from relay.vocabulary.audio import AudioFormat, Codec, Pace, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import RelayError

_VERSION = 1
_HEAD = struct.Struct("!BBQQd")
_AUDIO = struct.Struct("!QHQQdQ")
_HELD = struct.Struct("!dQ")


class EntryError(RelayError):
    """Bytes that are no entry of this version."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A node became the channel's home. This is the first entry of its fence; later ones of lower fences are void.

    Attributes:
        home: The id of the node.
    """

    home: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state with which a home begins.

    Attributes:
        record: A `ChannelRecord` as JSON, with wall-clock times.
    """

    record: str


class Audio(NamedTuple):
    """A released frame.

    Attributes:
        place: Its start.
        due: When it is due.
        accepted: The ticks accepted from the present broadcaster, including this frame.
        audio: The encoded audio.
    """

    place: Place
    due: float
    accepted: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A note: a change or message between two frames.

    Attributes:
        note: The note.
    """

    note: Note


@dataclass(frozen=True, slots=True)
class Farewell:
    """The home sends nothing more with this fence, so what comes before the next fence is complete."""


class Held(NamedTuple):
    """Accepted audio of pace `speech` that waits for its release.

    Attributes:
        due: When it is due.
        accepted: Ticks accepted from the present broadcaster, including this audio.
        audio: The encoded audio.
    """

    due: float
    accepted: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Void:
    """The home discarded all audio held so far."""


Body = Fence | Snapshot | Audio | Change | Farewell | Held | Void

_KINDS: tuple[type[Body], ...] = (Fence, Snapshot, Audio, Change, Farewell, Held, Void)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        fence: The fence of its home.
        index: Its number among the home's entries. Held audio has the number of the next entry.
        sent: When it was sent.
        body: Its content.
    """

    fence: int
    index: int
    sent: float
    body: Body

    @property
    def order(self) -> tuple[int, int]:
        """Its rank among the entries of its channel."""
        return self.fence, self.index

    def pack(self) -> bytes:
        """Return its bytes."""
        body = self.body
        head = _HEAD.pack(_VERSION, _KINDS.index(type(body)), self.fence, self.index, self.sent)
        if isinstance(body, Audio):
            return b"".join((head, _AUDIO.pack(*body.place, body.due, body.accepted), body.audio))
        if isinstance(body, Held):
            return b"".join((head, _HELD.pack(body.due, body.accepted), body.audio))
        if isinstance(body, Snapshot):
            return head + body.record.encode()
        if isinstance(body, Fence):
            return head + body.home.encode()
        if isinstance(body, Change):
            return head + json.dumps(_note_to_json(body.note), separators=(",", ":")).encode()
        return head

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read an entry.

        Raises:
            EntryError: The bytes are not an entry of this version.
        """
        try:
            version, kind, fence, index, sent = _HEAD.unpack_from(data)
            if version != _VERSION:
                raise EntryError(f"An entry has version {version}, but this node knows only version {_VERSION}.")
            return cls(fence, index, sent, _unpack_body(_KINDS[kind], data))
        except (struct.error, IndexError, ValueError, KeyError, TypeError) as error:
            raise EntryError(f"An entry of {len(data)} bytes is malformed: {error}.") from error


def _unpack_body(kind: type[Body], data: bytes) -> Body:
    at = _HEAD.size
    if kind is Audio:
        position, epoch, seq, media_time, due, accepted = _AUDIO.unpack_from(data, at)
        return Audio(Place(position, epoch, seq, media_time), due, accepted, data[at + _AUDIO.size :])
    if kind is Held:
        due, accepted = _HELD.unpack_from(data, at)
        return Held(due, accepted, data[at + _HELD.size :])
    if kind is Snapshot:
        return Snapshot(data[at:].decode())
    if kind is Change:
        return Change(_note_from_json(json.loads(data[at:])))
    if kind is Fence:
        return Fence(data[at:].decode())
    return Farewell() if kind is Farewell else Void()


def _note_to_json(note: Note) -> dict[str, Any]:
    new_format = note.audio_format
    members = {
        "place": note.place,
        "text": note.text,
        "format": None if new_format is None else (new_format.codec.value, new_format.rate, new_format.channels),
        "new_place": note.new_place,
        "state": note.state,
        "silence": note.silence,
        "pace": note.pace,
        "clears": note.clears,
        "ends": note.close is not None,
    }
    return {name: value for name, value in members.items() if value not in (None, False)}


def _note_from_json(members: dict[str, Any]) -> Note:
    new_format, new_place = members.get("format"), members.get("new_place")
    state, silence, pace = members.get("state"), members.get("silence"), members.get("pace")
    return Note(
        Place(*members["place"]),
        members.get("text"),
        None if new_format is None else AudioFormat(Codec(new_format[0]), new_format[1], new_format[2]),
        None if new_place is None else Place(*new_place),
        None if state is None else ChannelState(state),
        None if silence is None else Silence(silence),
        clears=members.get("clears", False),
        close=ENDED if members.get("ends") else None,
        pace=None if pace is None else Pace(pace),
    )
