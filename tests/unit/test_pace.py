"""A broadcaster's frames and their deadlines, in simulated time."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio.pace import MAX_CATCH_UP_SECONDS, Schedule, cut_frames
from relay.vocabulary.audio import SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError

MONO = AudioFormat()
START = 1_000.0


@given(rate=st.sampled_from(SAMPLE_RATES), channels=st.sampled_from([1, 2]), frame_ms=st.integers(5, 250))
def test_an_hour_of_frames_leaves_in_an_hour(rate: int, channels: int, frame_ms: int) -> None:
    audio_format = AudioFormat(rate=rate, channels=channels)
    frame_bytes = rate * frame_ms // 1000 * audio_format.sample_bytes
    frames = 3600 * audio_format.bytes_per_second // frame_bytes
    pace = Schedule()
    assert pace.wait_seconds(START) == 0
    for _ in range(frames // 1000):
        pace.sent(audio_format.measure(bytes(1000 * frame_bytes)))
    seconds = frames // 1000 * 1000 * frame_bytes / audio_format.bytes_per_second
    assert pace.sent_seconds == pytest.approx(seconds)
    assert pace.wait_seconds(START) == pytest.approx(seconds)


@given(delays=st.lists(st.floats(0, 0.9), min_size=1, max_size=200))
def test_late_wake_ups_never_add_up(delays: list[float]) -> None:
    audio_format = AudioFormat()
    pace = Schedule()
    now = START
    pace.wait_seconds(now)
    for count, delay in enumerate(delays, start=1):
        pace.sent(audio_format.measure(bytes(audio_format.bytes_per_second)))
        wait = pace.wait_seconds(now)
        assert now + wait == pytest.approx(START + count)
        now += wait + delay


def test_what_is_a_little_late_is_due_at_once_and_the_next_is_on_time() -> None:
    pace = Schedule(max_catch_up_seconds=1.0)
    assert pace.wait_seconds(START) == 0
    pace.sent(MONO.measure(bytes(3200)))
    assert pace.wait_seconds(START + 1.0) == 0
    pace.sent(MONO.measure(bytes(32_000)))
    assert pace.wait_seconds(START + 1.0) == pytest.approx(0.1)


def test_what_is_very_late_moves_the_schedule() -> None:
    pace = Schedule()
    assert pace.wait_seconds(START) == 0
    pace.sent(MONO.measure(bytes(3200)))
    resumed = START + 60
    assert pace.wait_seconds(resumed) == 0
    pace.sent(MONO.measure(bytes(3200)))
    assert pace.wait_seconds(resumed) == pytest.approx(0.1)
    assert MAX_CATCH_UP_SECONDS < 59


@given(blocks=st.lists(st.binary(max_size=50)), frame_bytes=st.integers(1, 20))
def test_frames_joined_are_the_blocks_and_only_the_last_is_shorter(blocks: list[bytes], frame_bytes: int) -> None:
    frames = list(cut_frames(blocks, frame_bytes))
    assert b"".join(frames) == b"".join(blocks)
    assert all(len(frame) == frame_bytes for frame in frames[:-1])
    assert all(0 < len(frame) <= frame_bytes for frame in frames)


def test_audio_before_a_problem_is_given_before_the_problem_is_told() -> None:
    def blocks() -> Iterator[bytes]:
        yield b"12345"
        raise UserError("torn")

    frames = cut_frames(blocks(), 2)
    assert [next(frames), next(frames), next(frames)] == [b"12", b"34", b"5"]
    with pytest.raises(UserError, match="torn"):
        next(frames)
