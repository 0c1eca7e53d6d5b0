"""A broadcaster's audio against real time: what is late, what is early, and when the broadcaster must wait."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio.ingest import (
    CATCH_UP_SECONDS,
    CLOCK_ALLOWANCE,
    FORGIVEN_SECONDS,
    Ingest,
    IngestLimits,
    LiveIngest,
    SpeechIngest,
    Timed,
    ingest_for,
    restore_ingest,
)
from relay.vocabulary.audio import FRAMES_PER_SECOND, AudioFormat, Pace, Piece

MONO = AudioFormat()
FRAME = MONO.measure(bytes(640))
SECONDS = 0.02
LIMITS = IngestLimits(ahead_seconds=2.0, lead_seconds=1.01, queue_seconds=10.0)


@pytest.fixture
def live() -> LiveIngest:
    return LiveIngest(LIMITS)


@pytest.fixture
def speech() -> SpeechIngest:
    return SpeechIngest(LIMITS)


def send(ingest: Ingest, seconds: float, now: float) -> list[Timed]:
    released = []
    for _ in range(round(seconds / SECONDS)):
        released += ingest.offer([FRAME], now)
    return released


def test_each_pace_has_its_own() -> None:
    assert isinstance(ingest_for(Pace.LIVE, LIMITS), LiveIngest)
    assert isinstance(ingest_for(Pace.SPEECH, LIMITS), SpeechIngest)


def test_live_audio_is_due_when_it_comes(live: LiveIngest) -> None:
    assert live.offer([FRAME, FRAME], 5.0) == [Timed(FRAME, 5.0), Timed(FRAME, 5.0)]
    assert live.next_release() is None
    assert live.queued_seconds() == 0


def test_a_microphone_is_never_held_back(live: LiveIngest) -> None:
    """An hour of audio from a sound card that runs half a percent fast."""
    now = 100.0
    for _ in range(180_000):
        live.offer([FRAME], now)
        assert live.must_wait(now) == 0
        now += SECONDS * 0.995


def test_what_comes_at_once_after_a_stall_is_not_ahead(live: LiveIngest) -> None:
    send(live, 1.0, 0.0)
    send(live, 3.0, 3.0)
    assert live.must_wait(3.0) == 0
    assert live.lead_seconds(3.0) < 1.0


def test_a_stall_of_an_hour_is_not_made_good(live: LiveIngest) -> None:
    send(live, 1.0, 0.0)
    send(live, CATCH_UP_SECONDS + 2.5, 3600.0)
    assert live.must_wait(3600.0) > 0


def test_who_sends_faster_than_real_time_waits(live: LiveIngest) -> None:
    send(live, 2.0, 0.0)
    assert live.must_wait(0.0) >= 0
    send(live, 10.0, 0.0)
    wait = live.must_wait(0.0)
    assert 0 < wait <= 10.0
    assert live.should_pause(0.0)
    assert live.is_far_ahead(0.0)
    assert live.must_wait(wait) == 0
    assert not live.is_far_ahead(wait + 1.1)


def test_a_sentence_in_one_burst_is_due_word_after_word(speech: SpeechIngest) -> None:
    released = send(speech, 3.0, 0.0)
    assert [timed.due for timed in released] == pytest.approx([n * SECONDS for n in range(51)])
    assert speech.next_release() == pytest.approx(51 * SECONDS - 1.01)
    assert speech.queued_seconds() == pytest.approx(3.0 - 51 * SECONDS)
    assert speech.lead_seconds(0.0) == pytest.approx(3.0)
    assert speech.release(0.0) == []
    assert len(speech.release(0.5)) == 25
    assert len(speech.release(100.0)) == 150 - 51 - 25
    assert speech.next_release() is None


@pytest.mark.parametrize("pace", list(Pace))
def test_nothing_is_due_before_what_another_left_is_over(pace: Pace) -> None:
    ingest = ingest_for(pace, LIMITS, not_before=6.0)
    assert [timed.due for timed in ingest.offer([FRAME], 5.0)] == [6.0]
    assert [timed.due for timed in ingest.offer([FRAME], 6.5)] == [6.5]
    cleared = ingest_for(pace, LIMITS, not_before=6.0)
    cleared.clear(5.0)
    assert [timed.due for timed in cleared.offer([FRAME], 5.0)] == [5.0]


@pytest.mark.parametrize(("now", "late_seconds"), [(1.0, 0.0), (20.0, 18.0)])
def test_speech_that_is_overdue_where_it_continues_moves_with_what_follows(
    speech: SpeechIngest, now: float, late_seconds: float
) -> None:
    send(speech, 5.0, 0.0)
    speech.release(0.99)
    waiting = speech.waiting
    assert waiting[0].due == pytest.approx(2.0)
    continued = restore_ingest(speech.export(), LIMITS, waiting, now)
    assert [each.piece for each in continued.waiting] == [each.piece for each in waiting]
    assert [each.due for each in continued.waiting] == pytest.approx([each.due + late_seconds for each in waiting])
    continued.offer([FRAME], now)
    assert continued.latest(1)[0].due == pytest.approx(5.0 + late_seconds)


def test_a_pause_of_the_speaker_moves_the_schedule(speech: SpeechIngest) -> None:
    send(speech, 0.1, 0.0)
    assert send(speech, SECONDS, 5.0)[0].due == 5.0


def test_the_queue_of_speech_holds_its_source_back(speech: SpeechIngest) -> None:
    send(speech, 11.04, 0.0)
    assert speech.must_wait(0.0) > 0
    assert speech.is_far_ahead(0.0)
    speech.release(1.5)
    assert speech.must_wait(1.5) == 0
    assert speech.should_pause(1.5)
    speech.release(3.0)
    assert not speech.should_pause(3.0)
    assert speech.is_far_ahead(3.0)
    speech.release(6.0)
    assert not speech.is_far_ahead(6.0)


def test_clearing_gives_what_was_thrown_away_and_begins_at_once(speech: SpeechIngest, live: LiveIngest) -> None:
    send(speech, 5.0, 0.0)
    dropped = speech.clear(0.5)
    assert dropped.seconds == pytest.approx(5.0 - 51 * SECONDS)
    assert (dropped.chunks, dropped.bytes) == (250 - 51, (250 - 51) * len(FRAME.audio))
    assert speech.queued_seconds() == 0
    assert send(speech, SECONDS, 0.5)[0].due == 0.5
    send(live, 10.0, 0.0)
    assert live.clear(0.0).chunks == 0
    assert live.must_wait(0.0) == 0


@pytest.mark.parametrize("pace", list(Pace))
@pytest.mark.parametrize("reset", ["clear", "return", "format"])
def test_a_broadcaster_that_resets_its_lead_again_and_again_sends_at_most_twice_real_time(
    pace: Pace, reset: str
) -> None:
    minute, released_seconds = 60.0, 0.0
    ingest = ingest_for(pace, LIMITS)
    for step in range(240):
        now = step * minute / 240
        while not ingest.must_wait(now):
            released_seconds += sum(timed.piece.seconds for timed in ingest.offer([FRAME], now))
        if reset == "return":
            ingest.note_return(now)
            continue
        ingest.clear(now)
        if reset == "format":
            ingest, before = ingest_for(pace, LIMITS), ingest
            ingest.follow(before, now)
    once_seconds = FORGIVEN_SECONDS + LIMITS.ahead_seconds + 1
    assert released_seconds <= 2 * CLOCK_ALLOWANCE * minute + once_seconds


@pytest.mark.parametrize("pace", list(Pace))
def test_a_speaker_who_interrupts_speech_twice_a_second_is_heard_at_once(pace: Pace) -> None:
    ingest = ingest_for(pace, LIMITS)
    for step in range(120):
        now = step / 2
        ingest.clear(now)
        assert ingest.offer([FRAME], now)[0].due == pytest.approx(now)
        send(ingest, 1.0, now)
        assert ingest.must_wait(now) == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 3)), max_size=40))
def test_speech_comes_out_as_it_went_in_and_never_too_early(bursts: list[tuple[int, float]]) -> None:
    speech, now = SpeechIngest(LIMITS), 0.0
    given_frames: list[Piece] = []
    released: list[Timed] = []
    for count, pause in bursts:
        audio = [MONO.measure(bytes([n % 251]) * 640) for n in range(len(given_frames), len(given_frames) + count)]
        given_frames += audio
        released += speech.offer(audio, now)
        assert all(timed.due <= now + LIMITS.lead_seconds for timed in released)
        now += pause
        released += speech.release(now)
    released += speech.release(now + 1000)
    assert [timed.piece for timed in released] == given_frames
    dues = [timed.due for timed in released]
    assert all(later - earlier >= SECONDS - 1e-9 for earlier, later in pairwise(dues))


def test_a_queue_of_samples_is_full_by_their_number(speech: SpeechIngest) -> None:
    """A frame may be one sample long, and 10 s of such frames would be 160 000 frames."""
    while not speech.must_wait(0.0):
        speech.offer([MONO.measure(b"\0\0")], 0.0)
        assert speech.queued_seconds() < 1
    assert round(10.0 * FRAMES_PER_SECOND) <= speech.clear(0.0).chunks <= round(10.0 * FRAMES_PER_SECOND) + 1
