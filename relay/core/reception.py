"""What one listener has got of its channel, over all its connections.

Invariants: each frame is passed on once and in order, whatever the connections were; what is not passed on was told
as a gap by the relay, or is told here: nothing is missing silently.

Source: docs/protocol.md, the accounting rule.
"""

from dataclasses import dataclass, field

from relay.core.amounts import AudioAmount
from relay.core.channel import ChannelState, Silence
from relay.core.listener_events import (
    Audio,
    Channels,
    FormatChange,
    Gap,
    Hello,
    ListenerEvent,
    StateChange,
    UnknownLoss,
)
from relay.core.reconnect import Reconnected
from relay.core.wire import WORD_MASK, serial_difference
from relay.vocabulary.audio import AudioFormat
from relay.vocabulary.errors import PolicyError

ReceptionEvent = ListenerEvent | UnknownLoss | Reconnected


@dataclass(slots=True)
class ReceptionStats:
    """What was received and what was not.

    Attributes:
        received: What was passed on; a chunk is a frame.
        duplicate_frames: Frames that came again and were not passed on; a relay does not send any.
        gaps: Losses of a known size.
        lost_frames: Frames named in them.
        lost_ms: The audio in them.
        unknown_losses: Losses of an unknown size.
        reconnects: Connections after the first.
    """

    received: AudioAmount = field(default_factory=AudioAmount)
    duplicate_frames: int = 0
    gaps: int = 0
    lost_frames: int = 0
    lost_ms: float = 0.0
    unknown_losses: int = 0
    reconnects: int = 0


class Reception:
    """The place of a listener in its channel, and what is known of the channel.

    Attributes:
        hello: The greeting that the place counts from.
        state: Of the channel.
        silence: Why there is nothing to hear; None when there is, or when nobody said.
        audio_format: Of the frames at the place; None before the first broadcaster.
        channels: All channels of the session.
        stats: What was received and what was not.
    """

    def __init__(self, hello: Hello) -> None:
        """Begin at the place that the relay's first greeting names."""
        self.hello = hello
        self.state: ChannelState = hello.state
        self.silence: Silence | None = hello.silence
        self.audio_format: AudioFormat | None = hello.audio_format
        self.channels = hello.channels
        self.stats = ReceptionStats()
        self._go_to(hello.epoch, hello.next_seq)

    @property
    def resume_point(self) -> tuple[int, int]:
        """The epoch and the last seq of it that is accounted for, which is one before the first when none is yet."""
        return self._epoch, (self._next_seq - 1) & WORD_MASK

    def resume(self, hello: Hello) -> list[ReceptionEvent]:
        """Go on with another connection, which the relay greeted like this, on the same channel.

        Returns:
            `Reconnected`, then what became different meanwhile.
        """
        self.stats.reconnects += 1
        events: list[ReceptionEvent] = [Reconnected(hello.resumed)]
        is_here = (hello.epoch, hello.next_seq) == (self._epoch, self._next_seq)
        if not hello.resumed and not is_here:
            events.append(self._lose("restart"))
            self._go_to(hello.epoch, hello.next_seq)
        self.hello = hello
        if hello.channels != self.channels:
            self.channels = hello.channels
            events.append(Channels(hello.channels))
        if hello.audio_format is not None and hello.audio_format != self.audio_format:
            self.audio_format = hello.audio_format
            events.append(FormatChange(hello.audio_format, hello.epoch))
        if (hello.state, hello.silence) != (self.state, self.silence):
            self.state, self.silence = hello.state, hello.silence
            events.append(StateChange(hello.state, hello.pace, hello.silence))
        return events

    def take(self, event: ListenerEvent) -> list[ReceptionEvent]:
        """Take what the relay told; give what is to be passed on.

        Raises:
            PolicyError: It is audio, and the relay never said in which format.
        """
        match event:
            case Audio():
                return self._take_audio(event)
            case Gap():
                return self._take_gap(event)
            case FormatChange():
                self.audio_format = event.audio_format
                if event.epoch != self._epoch:
                    self._go_to(event.epoch, 0)
            case StateChange():
                self.state, self.silence = event.state, event.silence
            case Channels():
                self.channels = event.channels
            case Hello():
                # Another channel: the account of the one before ended at its last frame.
                self.hello, self.state, self.silence = event, event.state, event.silence
                self.audio_format, self.channels = event.audio_format, event.channels
                self._go_to(event.epoch, event.next_seq)
            case _:
                pass
        return [event]

    def _go_to(self, epoch: int, seq: int) -> None:
        self._epoch = epoch
        self._next_seq = seq
        # Where the next frame begins; unknown until one told it.
        self._media_time: int | None = 0 if seq == 0 else None

    def _take_audio(self, event: Audio) -> list[ReceptionEvent]:
        if self.audio_format is None:
            raise PolicyError("The relay sent audio without saying its format.")
        header = event.header
        events: list[ReceptionEvent] = []
        if header.epoch != self._epoch:
            events.append(self._lose("untold"))
        else:
            ahead = serial_difference(header.seq, self._next_seq)
            if ahead < 0:
                self.stats.duplicate_frames += 1
                return []
            if ahead > 0:
                events.append(self._tell_hole(header.seq, header.media_time))
        size = len(event.payload)
        self._go_to(header.epoch, (header.seq + 1) & WORD_MASK)
        self._media_time = (header.media_time + self.audio_format.samples(size)) & WORD_MASK
        self.stats.received += AudioAmount(1, size, self.audio_format.flicks(size))
        events.append(event)
        return events

    def _take_gap(self, gap: Gap) -> list[ReceptionEvent]:
        events: list[ReceptionEvent] = []
        if gap.epoch != self._epoch or serial_difference(gap.from_seq, self._next_seq) > 0:
            events.append(self._lose("untold"))
        elif serial_difference(gap.to_seq, self._next_seq) < 0:
            return []
        events.append(self._count(gap))
        self._go_to(gap.epoch, (gap.to_seq + 1) & WORD_MASK)
        return events

    def _tell_hole(self, seq: int, media_time: int) -> Gap | UnknownLoss:
        """Tell what is missing before a frame, whose media time tells how long it is."""
        if self._media_time is None or self.audio_format is None:
            return self._lose("untold")
        ticks = (media_time - self._media_time) & WORD_MASK
        duration_ms = ticks * 1000 / self.audio_format.clock_rate
        return self._count(Gap(self._epoch, self._next_seq, (seq - 1) & WORD_MASK, duration_ms, "untold"))

    def _count(self, gap: Gap) -> Gap:
        self.stats.gaps += 1
        self.stats.lost_frames += ((gap.to_seq - gap.from_seq) & WORD_MASK) + 1
        self.stats.lost_ms += gap.duration_ms
        return gap

    def _lose(self, reason: str) -> UnknownLoss:
        self.stats.unknown_losses += 1
        return UnknownLoss(reason)
