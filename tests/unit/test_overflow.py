"""Overflow episodes: few reports, which still count every lost frame."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from relay.metrics.overflow import OverflowEpisodes, OverflowReport, Phase

INTERVAL = 10.0


def note(episodes: OverflowEpisodes, now: float, session: str = "ev1", frames: int = 1) -> OverflowReport | None:
    return episodes.note(
        session,
        dropped_frames=frames,
        dropped_seconds=frames * 0.02,
        overflowing_listeners=frames,
        now=now,
    )


def test_an_episode_begins_at_once_and_says_whose_it_is() -> None:
    report = note(OverflowEpisodes(), now=100.0, frames=3)
    assert report is not None
    assert report.phase is Phase.BEGAN
    assert report.message == "listeners began to lose audio"
    assert report.fields() == {
        "session": "ev1",
        "overflowing_listeners": 3,
        "dropped_frames": 3,
        "dropped_seconds": 0.06,
        "total_frames": 3,
        "total_seconds": 0.06,
        "episode_seconds": 0.0,
    }


def test_thousands_of_overflows_are_one_report_each_interval() -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL)
    reports = [note(episodes, now=step / 100) for step in range(2500)]  # 25 s, 100 overflows a second
    assert [report for report in reports if report is not None] == [reports[0]]
    assert episodes.due(9.99) == []
    (first,) = episodes.due(25.0)
    assert (first.phase, first.dropped_frames, first.total_frames) == (Phase.CONTINUES, 2499, 2500)
    assert episodes.due(25.0) == []


def test_the_last_report_comes_one_interval_after_the_last_overflow_and_has_the_totals() -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL)
    note(episodes, now=0, frames=2)
    note(episodes, now=4, frames=5)
    (middle,) = episodes.due(10)
    note(episodes, now=12, frames=3)
    assert episodes.due(19.9) == []
    (next_one,) = episodes.due(21)
    (last,) = episodes.due(22)
    assert [(each.phase, each.dropped_frames, each.overflowing_listeners) for each in (middle, next_one, last)] == [
        (Phase.CONTINUES, 5, 5),
        (Phase.CONTINUES, 3, 3),
        (Phase.ENDED, 0, 0),
    ]
    assert (last.total_frames, round(last.total_seconds, 9), last.episode_seconds) == (10, 0.2, 12.0)
    assert len(episodes) == 0
    assert episodes.due(100) == []


def test_an_overflow_after_the_end_begins_another_episode() -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL)
    note(episodes, now=0)
    assert [report.phase for report in episodes.due(10)] == [Phase.ENDED]
    again = note(episodes, now=11)
    assert again is not None
    assert again.total_frames == 1


def test_sessions_do_not_mix() -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL)
    assert note(episodes, now=0, session="a") is not None
    assert note(episodes, now=1, session="b") is not None
    assert [(report.session, report.phase) for report in episodes.due(10)] == [("a", Phase.ENDED)]


def test_the_number_of_sessions_is_bounded_and_the_rest_is_counted() -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL, max_sessions=2)
    for session in ("a", "b", "c", "d"):
        note(episodes, now=0, session=session, frames=3)
    assert len(episodes) == 2
    assert episodes.untracked_frames == 6
    episodes.due(10)
    assert note(episodes, now=11, session="c") is not None


STEPS = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=30),  # seconds since the previous step
        st.sampled_from(["a", "b", None]),  # an overflow in this session, or None for a check of what is due
        st.integers(min_value=1, max_value=9),
    )
)


@given(STEPS)
def test_reports_add_up_to_what_was_noted(steps: list[tuple[float, str | None, int]]) -> None:
    episodes = OverflowEpisodes(interval_seconds=INTERVAL)
    noted: defaultdict[str, int] = defaultdict(int)
    episode_sum: defaultdict[str, int] = defaultdict(int)
    reported: defaultdict[str, int] = defaultdict(int)
    now = 0.0

    def take(reports: list[OverflowReport]) -> None:
        for report in reports:
            assert round(report.dropped_seconds / 0.02) == report.dropped_frames
            reported[report.session] += report.dropped_frames
            episode_sum[report.session] += report.dropped_frames
            assert report.total_frames == episode_sum[report.session]
            if report.phase is Phase.ENDED:
                episode_sum[report.session] = 0

    for seconds, session, frames in steps:
        now += seconds
        if session is not None:
            noted[session] += frames
            began = note(episodes, now, session, frames)
            take([began] if began is not None else [])
        take(episodes.due(now))
    take(episodes.due(now + INTERVAL))
    assert reported == noted
    assert len(episodes) == 0
