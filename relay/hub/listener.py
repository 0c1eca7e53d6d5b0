"""One listener as the runtime sees it: its buffer, its place in the channel, and what must be told in order.

Invariants: what is written are the channel's frames from `place` on, in order; what was dropped is told by a gap
before whatever follows it; notes keep their place between the frames.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, cast

from relay.audio.amounts import AudioAmount
from relay.audio.listener_buffer import ListenerBuffer
from relay.hub.batch import Framing
from relay.hub.port import ListenerPort
from relay.limits.names import Limit
from relay.protocol import messages
from relay.vocabulary.audio import AudioFormat, Frame, Place
from relay.vocabulary.errors import CloseCode

MAX_NOTES = 64
"""Changes that wait to be told to one listener. One that is so far behind is cut off: it has missed whole shows."""

LAGGING: Final = -1
"""The index of a listener that is not in step with its group."""

_NOTHING = AudioAmount()


@dataclass(frozen=True, slots=True)
class Note:
    """Something that must be told between two frames.

    Attributes:
        place: It stands after all frames before this place.
        text: A control message; None when there is none.
        audio_format: A new format begins here, at the place `new_place`; None when the present one goes on.
        new_place: Where the frames after it begin; given with `audio_format`.
        clears: What was released before it and not written is not to be written any more.
        close: The connection ends here, with this code and reason; None when it goes on.
    """

    place: Place
    text: str | None = None
    audio_format: AudioFormat | None = None
    new_place: Place | None = None
    clears: bool = False
    close: tuple[CloseCode, str] | None = None


class Listener:
    """A connection that receives one channel.

    Attributes:
        connection_id: Names it in logs and metrics, and its buffer.
        port: Its socket.
        sink: The port's `sink`.
        framing: What its binary messages are.
        buffer: Its bounded queue, of what it is owed while it lags behind its group.
        place: The first frame that it has been neither written nor told lost; kept while it lags.
        index: Where it stands among the listeners in step of its group; `LAGGING` when it is none of them.
        written_before: What its group had written when it came into step.
        notes: What must be told in order, oldest first.
        blocked_since: When its socket stopped taking data, in seconds of the relay's clock; None while it takes it,
            and infinity when it never will again.
        bound_seconds: No audio older than this is written to it.
        report: What its player said last of what is heard; None while it said nothing.
    """

    __slots__ = (
        "_clears",
        "_clock_rate",
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
        """Make a listener that has got nothing yet; its account begins with the frame at `place`."""
        self.connection_id = connection_id
        self.port = port
        self.sink = port.sink
        self.framing = framing
        self.buffer = buffer
        self.place = place
        self.index: int = LAGGING
        self.written_before = _NOTHING
        # Nearly always empty, and a list costs a tenth of a deque then.
        self.notes: list[Note] = []
        self.blocked_since: float | None = None
        self.bound_seconds = bound_seconds
        self.report: messages.ListenerReport | None = None
        self._clock_rate = buffer.audio_format.clock_rate
        self._overflows_told = 0
        self._missed_until = 0
        self._clears = 0
        port.fit_kernel(buffer.audio_format.bytes_per_second)

    @property
    def frames(self) -> deque[Frame]:
        """The chunks of the buffer, which are frames: only its group fills it."""
        return cast("deque[Frame]", self.buffer.chunks)

    def note_missed(self, place: Place) -> None:
        """Note that frames before `place` were released while it was away; a gap that begins there says so."""
        self._missed_until = place.position

    def add_note(self, note: Note) -> None:
        """Have something told after all frames so far; one that is `MAX_NOTES` behind is cut off."""
        if len(self.notes) >= MAX_NOTES:
            self.port.abort(f"It was {MAX_NOTES} changes behind.", Limit.NOTES)
            return
        if note.clears:
            self.buffer.drop_before(math.inf)
            self._clears += 1
        if note.audio_format is not None:
            self.buffer.rebound(self.buffer.max_buffer_seconds, note.audio_format)
        self.notes.append(note)

    def tell_next_note(self) -> None:
        """Tell the oldest note now, and before it what was lost of the frames before it."""
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
        """Tell that the frames up to `place`, of the present epoch, are lost; nothing when none are."""
        lost_from, self.place = self.place, place
        if place.position == lost_from.position:
            return
        overflowed = self.buffer.overflows != self._overflows_told
        if self._clears:
            reason = "clear"
        elif lost_from.position < self._missed_until:
            reason = "resume"
        else:
            reason = "overflow" if overflowed else "stale"
        self._overflows_told = self.buffer.overflows
        self._tell(messages.Gap.between(lost_from, place, self._clock_rate, reason).text())

    def _tell(self, text: str) -> None:
        if self.framing is Framing.RELAY_V1:
            self.port.send_text(text)
