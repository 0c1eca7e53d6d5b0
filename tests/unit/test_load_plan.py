from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.loadtest.plan import CHURN_STAY_SECONDS, LoadPlan, Profile, Visit, frame_count, plan_visits, send_seconds

PLAN = LoadPlan("ws://relay", listeners=40, sessions=3, duration_seconds=30.0)


def visits_of(profile: Profile, **changes: object) -> list[Visit]:
    return plan_visits(replace(PLAN, profile=profile, **changes))  # type: ignore[arg-type] # each test names a field


@pytest.mark.parametrize("profile", [Profile.STEADY, Profile.BURST])
def test_all_are_there_from_the_beginning_to_the_end(profile: Profile) -> None:
    visits = visits_of(profile)
    assert len(visits) == 40
    assert all(visit.join_at is None and visit.leave_at is None and visit.reads for visit in visits)
    assert [sum(visit.target == target for visit in visits) for target in range(3)] == [14, 13, 13]


def test_a_ramp_is_even_and_takes_two_thirds() -> None:
    times = [visit.join_at for visit in visits_of(Profile.RAMP)]
    assert times == pytest.approx([0.5 * number for number in range(40)])


def test_a_storm_comes_while_the_audio_plays() -> None:
    visits = visits_of(Profile.STORM)
    assert [(visit.join_at, visit.leave_at, visit.reads) for visit in visits] == [(1.0, None, True)] * 40


@given(st.integers(0, 1000), st.floats(1, 100))
def test_with_churn_as_many_leave_as_come(seed: int, duration: float) -> None:
    visits = visits_of(Profile.CHURN, seed=seed, duration_seconds=duration)
    comings = sorted(visit.join_at for visit in visits if visit.join_at is not None)
    leavings = sorted(visit.leave_at for visit in visits if visit.leave_at is not None)
    assert comings == leavings
    assert sum(visit.join_at is None for visit in visits) == 40
    for visit in visits:
        stay = (duration if visit.leave_at is None else visit.leave_at) - (visit.join_at or 0.0)
        assert 0.5 <= stay <= CHURN_STAY_SECONDS[1] + 0.5


def test_churn_moves_everybody_in_time() -> None:
    visits = visits_of(Profile.CHURN)
    assert sum(visit.leave_at is not None for visit in visits) >= 2 * 40
    whole = [visit for visit in visits if visit.join_at is not None and visit.leave_at is not None]
    assert all(5.0 <= (visit.leave_at or 0.0) - (visit.join_at or 0.0) <= 15.0 for visit in whole)


@pytest.mark.parametrize(("percent", "slow"), [(10.0, 4), (0.1, 1), (100.0, 40)])
def test_as_many_do_not_read_as_asked_for(percent: float, slow: int) -> None:
    visits = visits_of(Profile.SLOW, slow_percent=percent)
    assert sum(not visit.reads for visit in visits) == slow
    assert len(visits) == 40


def test_the_same_plan_is_the_same_test() -> None:
    for profile in Profile:
        assert visits_of(profile) == visits_of(profile)
    assert visits_of(Profile.CHURN) != visits_of(Profile.CHURN, seed=2)


def test_frames_are_sent_evenly_or_a_second_at_once() -> None:
    assert [send_seconds(PLAN, frame) for frame in (0, 1, 49, 50)] == [0.0, 0.02, 0.98, 1.0]
    burst = replace(PLAN, profile=Profile.BURST)
    assert [send_seconds(burst, frame) for frame in (0, 1, 49, 50)] == [0.0, 0.0, 0.0, 1.0]
    assert frame_count(PLAN) == 1500
    assert frame_count(replace(PLAN, duration_seconds=0.001)) == 1
