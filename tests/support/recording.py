"""A recording of the ruler signal from a player, and the page's events, on one time axis.

Times are in seconds from the recording's first sample, as a person at the loudspeaker hears it. Names or docstrings say
where a time is of the relay's clock or of the wall clock.
"""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relay.vocabulary.clock import relay_clock
from tests.support.live_source import LiveSource
from tests.support.ruler import PERIOD_SECONDS, TONE, Jump, Path, follow
from tests.support.tone import Samples, Verdict, judge

_BLOCK = 128
"""Samples in a block of the Web Audio API."""

_CHUNK_BLOCKS = 32
"""The number of blocks in each message of the tap; the last message is shorter."""

_AROUND_SECONDS = 0.1

_SKIP_SECONDS = 0.08
"""A longer omission is a skip. To catch up, a player omits one pitch period at a time, at most about 20 ms. In a pause
of the sound, the omission is known to within 50 ms.
"""

_LATE_SECONDS = 0.03
"""The machine caused any longer delay. Blocks are rendered a few at a time, every 10 ms; a timer and a broadcaster are
normally one or two milliseconds late.
"""


@dataclass(frozen=True, repr=False)
class Recording:
    """Everything that was played between the player's first output and the request for the recording.

    Attributes:
        rate: Samples per second.
        left: The tone.
        right: The noise of the ruler.
        heard: When the first sample left the speaker, in seconds of the relay's clock.
        output_seconds: How long before that the sample was rendered.
        events: The page's events, each with `type` and `at`.
        hiccups: When the machine, not the player, was late, each with a description.
        source: The broadcaster.
    """

    rate: int
    left: Samples
    right: Samples
    heard: float
    output_seconds: float
    events: list[dict[str, Any]]
    hiccups: list[tuple[float, str]]
    source: LiveSource

    @property
    def seconds(self) -> float:
        return len(self.left) / self.rate

    def onset(self) -> float:
        """Return when the first sound began; fail if there is none."""
        sounding = np.flatnonzero(self.left)
        assert len(sounding), "nothing was heard"
        return float(sounding[0] / self.rate)

    def at(self, relay_seconds: float) -> float:
        """Convert a time of the relay's clock to a time of the recording."""
        return relay_seconds - self.heard

    def between(self, start: float, end: float) -> "Piece":
        first, last = round(start * self.rate), round(end * self.rate)
        assert 0 <= first < last <= len(self.left), f"{start:.2f} to {end:.2f} s of {self.seconds:.2f} s"
        return Piece(self, first / self.rate, self.left[first:last], self.right[first:last])

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type, in order."""
        return [event for event in self.events if event["type"] == kind]

    def stats(self, at: float) -> dict[str, Any]:
        """Return the player's last `stats` before a time."""
        return [event for event in self.of("stats") if event["at"] <= at][-1]


@dataclass(frozen=True, repr=False)
class Piece:
    """A part of a recording that begins at `start`."""

    recording: Recording
    start: float
    left: Samples
    right: Samples

    @property
    def end(self) -> float:
        return self.start + len(self.left) / self.recording.rate

    @cached_property
    def verdict(self) -> Verdict:
        """Judge the tone; clicks and silences count from the start of the piece."""
        return judge(self.left, self.recording.rate, TONE)

    @cached_property
    def path(self) -> Path:
        """Return which part of the ruler was heard when; times count from the start of the piece."""
        return follow(self.right, self.recording.rate)

    def skips(self) -> list[Jump]:
        """Return the places that leave out more than the player skips while it catches up inaudibly."""
        return [jump for jump in self.path.jumps if jump.left_out > _SKIP_SECONDS]

    def rise(self, name: str) -> float:
        """Return by how much a counter of the player's `stats` grew during the piece."""
        return float(self.recording.stats(self.end)[name] - self.recording.stats(self.start)[name])

    def delays(self) -> NDArray[np.float64]:
        """Return, for every 10 ms, the delay between speaking and hearing; NaN where the ruler was not recognized."""
        began = self.recording.source.began
        delays = self.recording.heard + self.start + self.path.times - began - self.path.places
        # The ruler repeats; every delay is shorter than its period.
        return np.mod(delays + PERIOD_SECONDS / 2, PERIOD_SECONDS) - PERIOD_SECONDS / 2

    def delay(self, at: float | None = None) -> float:
        """Return the median of `delays`, over all of them or over the 200 ms around a time of the recording."""
        times = self.start + self.path.times
        near = np.ones(len(times), bool) if at is None else np.abs(times - at) < _AROUND_SECONDS
        return float(np.nanmedian(self.delays()[near]))


def read_recording(raw: dict[str, Any], source: LiveSource) -> Recording:
    """Read the result of the page of `tests/browser/ear_page`, right after the page returned it."""
    wall_ahead = datetime.now(UTC).timestamp() - relay_clock()
    rate = int(raw["rate"])
    frames: list[int] = raw["frames"]
    left, right = (decode_floats(raw[side]) for side in ("left", "right"))
    made = np.frombuffer(base64.b64decode(raw["walls"]), np.float64) / 1000
    # Blocks may be missing before a context runs steadily; the recording begins after them.
    chunk = _CHUNK_BLOCKS * _BLOCK
    holes = np.flatnonzero(np.diff(frames[:-1]) != chunk)
    first = int(holes[-1]) + 1 if len(holes) else 0
    frames, left, right, made = (
        frames[first:],
        left[first * chunk :],
        right[first * chunk :],
        made[first * _CHUNK_BLOCKS :],
    )
    began = frames[0] / rate
    # The wall clock and the context's clock differ by a constant: it tells when a block is heard.
    heard_wall = began + float(np.median([wall - context for context, wall in raw["clocks"]]))
    events = [event | {"at": event["at"] - heard_wall} for event in raw["events"]]
    # The context renders a few blocks in a row; only the first of them is rendered when it is due.
    output_seconds = heard_wall - float(np.min(made - np.arange(len(made)) * (_BLOCK / rate)))
    hiccups = _late_blocks(made, rate)
    delays = [(wall, late, "a timer of the browser") for wall, late in raw["stalls"]]
    delays += [(due + wall_ahead, late, "the broadcaster") for due, late in source.delays]
    hiccups += [(at, f"{who} was {late * 1000:.0f} ms late") for at, late, who in delays if late > _LATE_SECONDS]
    hiccups = [(wall - heard_wall, sentence) for wall, sentence in hiccups]
    if len(holes):
        hiccups.append((0.0, "the audio thread left out blocks"))
    return Recording(rate, left, right, heard_wall - wall_ahead, output_seconds, events, sorted(hiccups), source)


def decode_floats(text: str) -> Samples:
    """Decode a Float32Array that a page encoded."""
    return np.frombuffer(base64.b64decode(text), np.float32).astype(np.float64)


def _late_blocks(walls: NDArray[np.float64], rate: int) -> list[tuple[float, str]]:
    """Find when rendering fell behind the context's clock, by the wall time of each block."""
    late = walls - np.arange(len(walls)) * (_BLOCK / rate)
    late -= np.minimum.accumulate(late)
    begins = np.flatnonzero(np.diff((late > _LATE_SECONDS).astype(np.int8), prepend=0) == 1)
    return [(float(walls[block]), f"the audio thread was {late[block] * 1000:.0f} ms late") for block in begins]
