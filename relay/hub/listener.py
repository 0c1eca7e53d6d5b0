"""One listener as the hub sees it: its buffer, its place in the channel, and its pending notes.

Invariants: A listener receives the channel's frames from `place` on, in order. A gap message reports dropped frames
before anything that follows them. Notes keep their place between the frames.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, cast

from relay.audio.amounts import AudioAmount
from relay.audio.listener_buffer import ListenerBuffer
from relay.hub.framing import Framing
from relay.hub.port import ListenerPort
from relay.limits.names import Limit
from relay.protocol import messages
from relay.vocabulary.audio import AudioFormat, Frame, Pace, Place
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import CloseCode

MAX_NOTES = 64
"""The most notes that wait for one listener. Beyond it, the listener is disconnected: it has missed whole shows."""

LAGGING: Final = -1
"""The index of a listener that is not in step with its group."""

_NOTHING = AudioAmount()


@dataclass(frozen=True, slots=True)
class Note:
    """A message or change that belongs between two frames.

    Attributes:
        place: The note follows all frames before this place.
        text: A control message, or None.
        audio_format: The new format from `new_place` on; None if the format does not change.
        new_place: The place of the next frame; set together with `audio_format`.
        state: The state of the channel from here on; None if it does not change.
        silence: Why there is nothing to hear in that state; None if there is, or if unknown.
        pace: The pace of the channel in that state; None if it does not change.
        clears: Whether earlier frames that are not written yet are dropped.
        close: The code and reason with which the connection ends here; None if it continues.
    """

    place: Place
    text: str | None = None
    audio_format: AudioFormat | None = None
    new_place: Place | None = None
    state: ChannelState | None = None
    silence: Silence | None = None
    clears: bool = False
    close: tuple[CloseCode, str] | None = None
    pace: Pace | None = None


class Listener:
    """A connection that receives one channel.

    Attributes:
        connection_id: Its name in logs and metrics, and the name of its buffer.
        port: Its socket.
        sink: The port's `sink`.
        framing: The form of its binary messages.
        buffer: Its bounded queue of the frames that it is owed while it lags behind its group.
        place: Its first frame that was neither written nor reported lost; maintained while it lags.
        index: Its index among the group's listeners in step, or `LAGGING`.
        written_before: What its group had written when it came into step.
        notes: Pending notes, oldest first.
        blocked_since: When its socket stopped taking data, in seconds of the relay's clock; None while it takes data,
            and infinity if it never will again.
        bound_seconds: The maximum age of audio that is written to it.
        report: The last report of its player; None before the first.
    """

    __slots__ = (
        "_clears",
        "_clock_rate",
        "_dropped_told",
        "_missed_until",
        "_overflows_told",
        "blocked_since",
        "bound_seconds",
        "buffer",
        "connection_id",
        "framing",
        "index",
        "notes",
        "place",
        "port",
        "report",
        "sink",
        "written_before",
    )

    def __init__(
        self,
        connection_id: str,
        port: ListenerPort,
        framing: Framing,
        *,
        buffer: ListenerBuffer,
        place: Place,
        bound_seconds: float,
    ) -> None:
        self.connection_id = connection_id
        self.port = port
        self.sink = port.sink
        self.framing = framing
        self.buffer = buffer
        self.place = place
        self.index: int = LAGGING
        self.written_before = _NOTHING
        # Nearly always empty. An empty list takes a tenth of the memory of an empty deque.
        self.notes: list[Note] = []
        self.blocked_since: float | None = None
        self.bound_seconds = bound_seconds
        self.report: messages.ListenerReport | None = None
        self._clock_rate = buffer.audio_format.clock_rate
        self._overflows_told = 0
        self._missed_until = 0
        self._dropped_told = 0
        self._clears = 0
        port.fit_kernel(buffer.audio_format.bytes_per_second)

    @property
    def frames(self) -> deque[Frame]:
        """The buffer's chunks. They are all frames because only the group fills the buffer."""
        return cast("deque[Frame]", self.buffer.chunks)

    @property
    def media_seconds(self) -> float:
        """The media time of its place, exact while it lags."""
        return self.place.media_time / self._clock_rate

    def note_missed(self, place: Place) -> None:
        """Record that it missed frames before `place` while it was away. A gap that starts there gets this reason."""
        self._missed_until = place.position

    def add_note(self, note: Note) -> None:
        """Queue a note after all frames so far. Disconnect the listener if it already has `MAX_NOTES`."""
        if len(self.notes) >= MAX_NOTES:
            self.port.abort(f"The listener was {MAX_NOTES} control messages behind.", Limit.NOTES)
            return
        if note.clears:
            self.buffer.drop_before(math.inf)
            self._clears += 1
        if note.audio_format is not None:
            self.buffer.rebound(self.buffer.max_buffer_seconds, note.audio_format)
        self.notes.append(note)

    def tell_next_note(self) -> None:
        """Send the oldest note, after a gap message for any frames lost before it."""
        note = self.notes.pop(0)
        self.tell_gap(note.place)
        if note.clears:
            self._clears -= 1
        if note.text is not None:
            self._tell(note.text)
        if note.audio_format is not None and note.new_place is not None:
            self.place = note.new_place
            self._clock_rate = note.audio_format.clock_rate
            self.port.fit_kernel(note.audio_format.bytes_per_second)
        if note.close is not None:
            self.port.close(*note.close)

    def tell_gap(self, place: Place) -> None:
        """Report the frames up to `place`, in the present epoch, as lost. Send nothing if there are none."""
        lost_from, self.place = self.place, place
        if place.position == lost_from.position:
            return
        overflowed = self.buffer.overflows != self._overflows_told
        if self._clears:
            reason = "clear"
        elif lost_from.position < self._missed_until:
            reason = "resume"
        elif self.buffer.dropped_flicks == self._dropped_told:
            # It dropped nothing, so the stream itself has a hole.
            reason = "missing"
        else:
            reason = "overflow" if overflowed else "stale"
        self._overflows_told = self.buffer.overflows
        self._dropped_told = self.buffer.dropped_flicks
        self._tell(messages.Gap.between(lost_from, place, self._clock_rate, reason).text())

    def _tell(self, text: str) -> None:
        if self.framing.has_texts:
            self.port.send_text(text)
