"""Keeps account of what a listener has received of its channel, over all its connections.

Invariants: each frame is passed on once and in order, over any number of connections. The relay reports missing frames
as gaps, and what it does not report is reported here. So nothing goes missing silently.

Source: docs/protocol.md, the accounting rule.
"""

from dataclasses import dataclass, field

from relay.audio.amounts import AudioAmount
from relay.client.reconnect import Reconnected
from relay.protocol.messages import Channels, FormatChange, Gap, Hello, ListenerEvent, StateChange
from relay.protocol.wire import WORD_MASK, Audio, serial_difference, unpack_audio
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.channel_states import ChannelState, Silence
from relay.vocabulary.errors import PolicyError


@dataclass(frozen=True, slots=True)
class UnknownLoss:
    """An unknown number of frames may be missing here.

    Attributes:
        reason: `restart`: the relay does not know what this listener received, because it restarted or forgot the
            channel. `untold`: the frame numbers have a hole that the relay did not report.
    """

    reason: str


ReceptionEvent = ListenerEvent | UnknownLoss | Reconnected


@dataclass(slots=True)
class ReceptionStats:
    """What was received and what was lost.

    Attributes:
        received: Audio passed on; a chunk is a frame.
        duplicate_frames: Frames that arrived again and were not passed on. A relay does not send any.
        gaps: Losses of known size.
        lost_frames: Frames in these gaps.
        lost_ms: Duration of these gaps, in milliseconds.
        unknown_losses: Losses of unknown size.
        reconnects: Number of connections after the first.
    """

    received: AudioAmount = field(default_factory=AudioAmount)
    duplicate_frames: int = 0
    gaps: int = 0
    lost_frames: int = 0
    lost_ms: float = 0.0
    unknown_losses: int = 0
    reconnects: int = 0


class Reception:
    """A listener's place in its channel, and the known state of the channel.

    Attributes:
        hello: The greeting from which the place is counted.
        state: State of the channel's source.
        silence: Why the channel is silent; None if it is not, or if the reason is unknown.
        audio_format: Format of the frames at the place; None before the first broadcaster.
        channels: All channels of the session.
        stats: What was received and what was lost.
    """

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.state: ChannelState = hello.state
        self.silence: Silence | None = hello.silence
        self.audio_format: AudioFormat | None = hello.audio_format
        self.channels = hello.channels
        self.stats = ReceptionStats()
        self._go_to(hello.epoch, hello.next_seq)

    @property
    def resume_point(self) -> tuple[int, int]:
        """The epoch and the last seq accounted for in it; before its first frame, one less than that frame's seq."""
        return self._epoch, (self._next_seq - 1) & WORD_MASK

    @property
    def codec(self) -> Codec:
        """The codec whose frames are counted. Each codec of a channel has its own numbers."""
        return Codec.PCM_S16LE if self.audio_format is None else self.audio_format.codec

    def resume(self, hello: Hello) -> list[ReceptionEvent]:
        """Continue on the same channel with another connection, which the relay greeted with `hello`.

        Returns:
            `Reconnected`, then everything that changed meanwhile.
        """
        self.stats.reconnects += 1
        events: list[ReceptionEvent] = [Reconnected(hello.resumed)]
        is_new_format = hello.audio_format is not None and hello.audio_format != self.audio_format
        is_here = (hello.epoch, hello.next_seq) == (self._epoch, self._next_seq)
        if is_new_format and hello.audio_format is not None:
            is_here = is_here and hello.audio_format.codec is self.codec
            self.audio_format = hello.audio_format
        if not hello.resumed and not is_here:
            events.append(self._lose("restart"))
            self._go_to(hello.epoch, hello.next_seq)
        self.hello = hello
        if hello.channels != self.channels:
            self.channels = hello.channels
            events.append(Channels(hello.channels, hello.session_name))
        if is_new_format and hello.audio_format is not None:
            events.append(FormatChange(hello.audio_format, hello.epoch))
        if (hello.state, hello.silence) != (self.state, self.silence):
            self.state, self.silence = hello.state, hello.silence
            events.append(StateChange(hello.state, hello.pace, hello.silence))
        return events

    def take(self, event: ListenerEvent) -> list[ReceptionEvent]:
        """Account for an event from the relay, and return the events to pass on.

        Raises:
            PolicyError: The event is audio, but the relay never named its format, or the audio does not have it.
        """
        match event:
            case Audio():
                return self._take_message(event)
            case Gap():
                return self._take_gap(event)
            case FormatChange():
                self.audio_format = event.audio_format
                self._go_to(event.epoch, self._next_seq if event.epoch == self._epoch else 0)
            case StateChange():
                self.state, self.silence = event.state, event.silence
            case Channels():
                self.channels = event.channels
            case Hello():
                # Another channel: the account of the previous one ended at its last frame.
                self.hello, self.state, self.silence = event, event.state, event.silence
                self.audio_format, self.channels = event.audio_format, event.channels
                self._go_to(event.epoch, event.next_seq)
            case _:
                pass
        return [event]

    def _go_to(self, epoch: int, seq: int) -> None:
        self._epoch = epoch
        self._next_seq = seq
        # Media time at which the next frame begins; None until a frame reveals it. Encoded audio may begin before 0.
        self._media_time: int | None = 0 if seq == 0 and self.codec is Codec.PCM_S16LE else None

    def _take_message(self, message: Audio) -> list[ReceptionEvent]:
        audio_format = self.audio_format
        if audio_format is None:
            raise PolicyError("The relay sent audio before its format.")
        if not message.header.is_packed:
            return self._take_frame(message, audio_format)
        frames = unpack_audio(message.header.pack() + message.payload, audio_format)
        return [event for frame in frames for event in self._take_frame(frame, audio_format)]

    def _take_frame(self, event: Audio, audio_format: AudioFormat) -> list[ReceptionEvent]:
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
        piece = audio_format.measure(event.payload)
        self._go_to(header.epoch, (header.seq + 1) & WORD_MASK)
        self._media_time = (header.media_time + piece.ticks) & WORD_MASK
        self.stats.received += AudioAmount(1, len(piece.audio), piece.flicks)
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
        """Report the frames missing before this one, whose media time reveals their duration."""
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
