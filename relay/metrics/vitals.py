"""The relay's figures at a moment, as metrics are made from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from relay.metrics.distribution import Distribution
from relay.metrics.listener_reports import Heard
from relay.metrics.table import Metric, Reading, read_metrics


@dataclass(slots=True)
class Tally:
    """What became of a channel's frames, over all listeners, also those that left.

    Attributes:
        delivered_frames: Frames given to sockets, each counted for each listener.
        dropped_frames: The same of frames that were not, because a listener was too slow.
        released_frames: Frames that were to be given.
        lost_taps: Taps that were closed because their readers were too slow.
        delivery_ms: How old the first frame of each write was, in milliseconds, counted once for each frame of it.
    """

    delivered_frames: int = 0
    dropped_frames: int = 0
    released_frames: int = 0
    lost_taps: int = 0
    delivery_ms: Distribution = field(default_factory=Distribution)

    def deliver(self, frames: int, age_seconds: float) -> None:
        """Count frames that were given to sockets together, and the age of the first of them."""
        self.delivered_frames += frames
        self.delivery_ms.note(max(0.0, age_seconds) * 1000, frames)

    def __iadd__(self, other: "Tally") -> Self:
        """Add another channel's."""
        self.delivered_frames += other.delivered_frames
        self.dropped_frames += other.dropped_frames
        self.released_frames += other.released_frames
        self.lost_taps += other.lost_taps
        self.delivery_ms += other.delivery_ms
        return self


@dataclass(frozen=True, slots=True)
class Vitals:
    """All figures at a moment; counts are since the relay started.

    Attributes:
        frames: What became of the frames of all channels.
        listeners: Connected now.
        broadcasters: Connected now.
        sessions: That have channels now.
        ingest_lead_ms: Of each broadcaster that is there, how far its audio reaches into the future.
        loop_lag_ms: How late the event loop was, several times a second.
        listener_lag_ms: How old the oldest frame is that a listener owes, of all listeners every `SAMPLE_SECONDS`.
        heard: What listeners reported.
        holders: What has the metrics of the table that are not here.
    """

    frames: Tally
    listeners: int
    broadcasters: int
    sessions: int
    ingest_lead_ms: tuple[float, ...]
    loop_lag_ms: Distribution
    listener_lag_ms: Distribution
    heard: Heard
    holders: tuple[object, ...] = ()

    def readings(self) -> Iterator[tuple[Metric, Reading]]:
        """Give each metric with its present reading."""
        return read_metrics((self, self.frames, self.heard, *self.holders))
