"""Overflow episodes: what is logged when listeners lose audio, without a line for each frame.

A session's episode begins with its first overflow, and ends after one interval without any. Its begin and its end are
reported, and between them one report per interval.

Invariants: Time is an argument and does not run backwards. The reports of an episode add up to exactly what was
recorded, and the last one has the totals. At most `max_sessions` episodes are open; overflows of further sessions count
in `untracked_frames`. `note` is O(1).
"""

from dataclasses import asdict, dataclass
from enum import StrEnum

REPORT_INTERVAL_SECONDS = 10.0
"""The interval between two reports of an episode, by default the same as for samples of the utilization."""

MAX_SESSIONS = 1_000
"""The most open episodes. Nobody would read a log with more lines per interval."""


class Phase(StrEnum):
    """The position of a report in its episode."""

    BEGAN = "began"
    CONTINUES = "continues"
    ENDED = "ended"


_MESSAGES = {
    Phase.BEGAN: "listeners began to lose audio",
    Phase.CONTINUES: "listeners are losing audio",
    Phase.ENDED: "listeners stopped losing audio",
}


@dataclass(frozen=True, slots=True)
class OverflowReport:
    """One report for the log.

    Attributes:
        session: The session's id.
        phase: Begin, middle or end of the episode.
        overflowing_listeners: The most listeners that lost audio at one time since the previous report.
        dropped_frames: Frames lost since the previous report, counted once for each listener that lost them.
        dropped_seconds: Their duration.
        total_frames: Frames lost since the episode began.
        total_seconds: Their duration.
        episode_seconds: Time from the first to the last overflow.
    """

    session: str
    phase: Phase
    overflowing_listeners: int
    dropped_frames: int
    dropped_seconds: float
    total_frames: int
    total_seconds: float
    episode_seconds: float

    @property
    def message(self) -> str:
        """The text of the log line."""
        return _MESSAGES[self.phase]

    def fields(self) -> dict[str, str | int | float]:
        """Return the variable part for `extra` of a log call. Durations are rounded to milliseconds."""
        varying = {name: value for name, value in asdict(self).items() if name != "phase"}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in varying.items()}


@dataclass(slots=True)
class _Episode:
    began: float
    last_overflow: float
    last_report: float
    overflowing_listeners: int = 0
    dropped_frames: int = 0
    dropped_seconds: float = 0.0
    total_frames: int = 0
    total_seconds: float = 0.0

    def report(self, session: str, phase: Phase, now: float) -> OverflowReport:
        """Return the report, and reset the counts for the next one."""
        report = OverflowReport(
            session=session,
            phase=phase,
            overflowing_listeners=self.overflowing_listeners,
            dropped_frames=self.dropped_frames,
            dropped_seconds=self.dropped_seconds,
            total_frames=self.total_frames,
            total_seconds=self.total_seconds,
            episode_seconds=self.last_overflow - self.began,
        )
        self.last_report = now
        self.overflowing_listeners = self.dropped_frames = 0
        self.dropped_seconds = 0.0
        return report


class OverflowEpisodes:
    """Condenses overflows into a few reports.

    Args:
        interval_seconds: The interval between reports, and without overflows at the end of an episode.
        max_sessions: The most open episodes.

    Attributes:
        untracked_frames: Frames lost by sessions beyond `max_sessions`.
    """

    def __init__(self, *, interval_seconds: float = REPORT_INTERVAL_SECONDS, max_sessions: int = MAX_SESSIONS) -> None:
        self.untracked_frames = 0
        self._interval_seconds = interval_seconds
        self._max_sessions = max_sessions
        self._episodes: dict[str, _Episode] = {}

    def __len__(self) -> int:
        return len(self._episodes)

    def note(
        self,
        session: str,
        *,
        dropped_frames: int,
        dropped_seconds: float,
        overflowing_listeners: int,
        now: float,
    ) -> OverflowReport | None:
        """Count an overflow. Call it once for each frame that made listeners' buffers overflow.

        Args:
            session: The session's id.
            dropped_frames: Dropped frames of all listeners.
            dropped_seconds: Their duration.
            overflowing_listeners: How many listeners lost audio.
            now: Seconds of the relay's clock.

        Returns:
            The report that an episode began; None if one is already open or there is no room for another.
        """
        episode = self._episodes.get(session)
        begins = episode is None
        if episode is None:
            if len(self._episodes) >= self._max_sessions:
                self.untracked_frames += dropped_frames
                return None
            episode = self._episodes[session] = _Episode(began=now, last_overflow=now, last_report=now)
        episode.last_overflow = now
        episode.overflowing_listeners = max(episode.overflowing_listeners, overflowing_listeners)
        episode.dropped_frames += dropped_frames
        episode.dropped_seconds += dropped_seconds
        episode.total_frames += dropped_frames
        episode.total_seconds += dropped_seconds
        return episode.report(session, Phase.BEGAN, now) if begins else None

    def due(self, now: float) -> list[OverflowReport]:
        """Return the reports due at `now` (seconds), at most one per session, and close the episodes that ended."""
        reports = []
        for session, episode in list(self._episodes.items()):
            if now - episode.last_overflow >= self._interval_seconds:
                del self._episodes[session]
                reports.append(episode.report(session, Phase.ENDED, now))
            elif now - episode.last_report >= self._interval_seconds:
                reports.append(episode.report(session, Phase.CONTINUES, now))
        return reports
