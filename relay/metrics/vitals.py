"""The relay's figures at one moment, from which metrics are created."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from relay.metrics.distribution import Distribution
from relay.metrics.listener_reports import Heard
from relay.metrics.table import Metric, Reading, read_metrics
from relay.vocabulary.audio import Codec
from relay.vocabulary.containers import Container


@dataclass(slots=True)
class Tally:
    """What became of a channel's frames, for all its present and past listeners.

    Attributes:
        delivered_frames: Frames given to sockets, once for each listener.
        delivered_bytes: Their bytes on the wire, by codec or container.
        dropped_frames: Frames that slow listeners did not get, once for each listener.
        released_frames: Frames released to listeners, while this relay was the channel's home.
        unmade_frames: Frames that streams lack because they were not made.
        transcoding_failures: Frames of broadcasters that could not be encoded or decoded.
        lost_taps: Taps that were closed because their readers were too slow.
        delivery_ms: Age of the first frame of each write, in milliseconds, counted once for each frame of the write.
    """

    delivered_frames: int = 0
    delivered_bytes: Counter[Codec | Container] = field(default_factory=Counter)
    dropped_frames: int = 0
    released_frames: int = 0
    unmade_frames: int = 0
    transcoding_failures: int = 0
    lost_taps: int = 0
    delivery_ms: Distribution = field(default_factory=Distribution)

    def deliver(self, frames: int, wire_bytes: int, age_seconds: float, codec: Codec | Container) -> None:
        """Count frames that were given to sockets together, their bytes, and the age of the first of them."""
        self.delivered_frames += frames
        self.delivered_bytes[codec] += wire_bytes
        self.delivery_ms.note(max(0.0, age_seconds) * 1000, frames)

    def __iadd__(self, other: "Tally") -> Self:
        self.delivered_frames += other.delivered_frames
        self.delivered_bytes += other.delivered_bytes
        self.dropped_frames += other.dropped_frames
        self.released_frames += other.released_frames
        self.unmade_frames += other.unmade_frames
        self.transcoding_failures += other.transcoding_failures
        self.lost_taps += other.lost_taps
        self.delivery_ms += other.delivery_ms
        return self


@dataclass(frozen=True, slots=True)
class Vitals:
    """All figures at one moment. Counts begin when the relay starts.

    Attributes:
        frames: What became of the frames of all channels.
        listeners: Connected listeners.
        codec_listeners: The same, by the codec or container that they get.
        broadcasters: Connected broadcasters.
        sessions: Sessions with channels.
        ingest_lead_ms: How far the audio of each connected broadcaster extends into the future.
        loop_lag_ms: How late the event loop was, several times a second.
        listener_lag_ms: Age of the oldest frame that a listener is owed, for all listeners every `SAMPLE_SECONDS`.
        heard: What listeners reported.
        holders: The objects with the other metrics of the table.
    """

    frames: Tally
    listeners: int
    codec_listeners: Mapping[Codec | Container, int]
    broadcasters: int
    sessions: int
    ingest_lead_ms: tuple[float, ...]
    loop_lag_ms: Distribution
    listener_lag_ms: Distribution
    heard: Heard
    holders: tuple[object, ...] = ()

    def readings(self) -> Iterator[tuple[Metric, Reading]]:
        """Yield each metric with its present reading."""
        return read_metrics((self, self.frames, self.heard, *self.holders))
