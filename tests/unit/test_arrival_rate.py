"""How fast audio arrives: which sources announced a wrong rate, and which only appear to."""

import random
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio.arrival_rate import LONGEST_DEBT_SECONDS, ArrivalRate, looks_like
from relay.audio.ingest import CATCH_UP_SECONDS, IngestLimits, LiveIngest
from relay.vocabulary.audio import AudioFormat

MONO = AudioFormat()
HOUSEKEEPING_SECONDS = 0.5

Message = tuple[float, float]
"""When the message is sent, and its duration, both in seconds."""


class Held(Enum):
    """How a source reacts when the relay tells it to stop or does not read its socket."""

    DROPS = auto()
    QUEUES = auto()
    DOES_NOT_CARE = auto()


class Play:
    """A source and the relay's limit, which holds it back.

    Attributes:
        verdicts: Time and value of each new verdict.
        holds: How often the relay held the source back.
    """

    def __init__(self, messages: Iterable[Message], held: Held = Held.QUEUES, owed_seconds: float = 0.0) -> None:
        self.verdicts: list[tuple[float, float | None]] = []
        self.holds = 0
        self.arrival = ArrivalRate(owed_seconds)
        ingest = LiveIngest(IngestLimits())
        if owed_seconds:
            ingest.note_return(0.0)
        is_held, looked_at, free_at = False, 0.0, 0.0
        for sent_at, seconds in messages:
            now = sent_at if held is Held.DOES_NOT_CARE else max(sent_at, free_at)
            while looked_at < now - HOUSEKEEPING_SECONDS:
                looked_at += HOUSEKEEPING_SECONDS
                is_held = is_held and ingest.is_far_ahead(looked_at)
            if is_held and held is Held.DROPS:
                continue
            ingest.offer([MONO.measure(bytes(MONO.sample_bytes * round(seconds * MONO.rate)))], now)
            is_ahead = ingest.should_pause(now)
            self.holds += is_ahead and not is_held
            is_held = is_held or is_ahead
            if self.arrival.note(seconds, now, is_held=is_ahead):
                self.verdicts.append((now, self.arrival.ratio))
            free_at = now + ingest.must_wait(now)


def steady(
    ratio: float, span: float, message: float = 0.02, *, jitter: float = 0.0, begin: float = 0.0
) -> Iterator[Message]:
    """Messages of equal length, each up to `jitter` seconds late."""
    chance, at = random.Random(1), 0.0  # noqa: S311 - not a secret
    for number in range(1, int(span * ratio / message)):
        at = max(at, number * message / ratio + chance.random() * jitter)
        yield begin + at, message


WRONG = (1 / 3, 0.5, 2 / 3, 0.689, 44.1 / 48, 48 / 44.1, 1.378, 1.5, 2.0, 2.75625, 3.0)
RIGHT = (0.96, 0.99, 0.998, 1.0, 1.002, 1.01, 1.04)
FASTEST_CLOCK = 1.01


def ways(ratios: Iterable[float]) -> list[tuple[float, Held]]:
    """Combine ratios with the reactions of a held source. A source that is not too fast is never held."""
    return [(ratio, held) for ratio in ratios for held in (Held if ratio > FASTEST_CLOCK else [Held.QUEUES])]


@pytest.mark.parametrize("message", [0.02, 0.1])
@pytest.mark.parametrize(("ratio", "held"), ways(WRONG))
def test_a_wrong_rate_is_known_after_ten_seconds(ratio: float, message: float, held: Held) -> None:
    for jitter in (0.0, 0.02):
        (verdict,) = Play(steady(ratio, 20, message, jitter=jitter), held).verdicts
        at, found = verdict
        assert 10 <= at <= 15
        assert found == pytest.approx(ratio, rel=0.05 if jitter else 0.01)


@pytest.mark.parametrize(("ratio", "held"), ways(RIGHT))
def test_a_clock_that_is_not_exact_is_right(ratio: float, held: Held) -> None:
    for message in (0.02, 0.25):
        assert Play(steady(ratio, 60, message, jitter=0.1), held).verdicts == []


def in_clumps(messages: Iterable[Message], together: int, spread: float) -> Iterator[Message]:
    """Send messages in clumps. Each clump waits for its last message, then goes out within `spread` seconds."""
    messages = list(messages)
    for first in range(0, len(messages), together):
        clump = messages[first : first + together]
        for number, (_, seconds) in enumerate(clump):
            yield clump[-1][0] + spread * number / together, seconds


@pytest.mark.parametrize(("together", "spread"), [(5, 0.0), (5, 0.02), (5, 0.05), (10, 0.1)])
@pytest.mark.parametrize("ratio", [0.5, 2 / 3, 44.1 / 48])
def test_a_slow_source_is_known_however_it_comes_together(ratio: float, together: int, spread: float) -> None:
    ((at, found),) = Play(in_clumps(steady(ratio, 25), together, spread)).verdicts
    assert 10 <= at <= 16
    assert found == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_short_messages_are_taken_together(ratio: float) -> None:
    assert Play(steady(ratio, 20, 0.005)).arrival.ratio == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_long_messages_need_longer(ratio: float) -> None:
    ((at, found),) = Play(steady(ratio, 120, 0.5)).verdicts
    assert 10 <= at <= 50
    assert found == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("ratio", [0.7, 1.3])
def test_what_is_right_again_is_told_once(ratio: float) -> None:
    wrong = list(steady(ratio, 30))
    verdicts = Play([*wrong, *steady(1.0, 60, begin=30.0)], Held.DROPS).verdicts
    assert [found for _, found in verdicts] == [pytest.approx(ratio, rel=0.02), None]
    assert 40 <= verdicts[1][0] < 45


def test_a_broadcaster_that_returns_may_bring_what_it_kept() -> None:
    late = [*steady(1.5, 20), *steady(1.0, 60, begin=20.0)]
    assert Play(late, owed_seconds=CATCH_UP_SECONDS).verdicts == []
    ((at, found),) = Play(steady(1.5, 60), owed_seconds=CATCH_UP_SECONDS).verdicts
    assert at == pytest.approx(30, abs=3)
    assert found == pytest.approx(1.5, rel=0.01)


def test_an_hour_of_silence_does_not_hide_a_wrong_rate_for_an_hour() -> None:
    arrival = ArrivalRate()
    told = [at for at, seconds in [*steady(1.0, 10), *steady(1.5, 200, begin=3600)] if arrival.note(seconds, at)]
    assert told == [pytest.approx(3600 + LONGEST_DEBT_SECONDS / 0.5 + 10, abs=3)]
    assert arrival.ratio == pytest.approx(1.5, rel=0.01)


def in_turn(spans: Iterable[tuple[float, float, float]], message: float, jitter: float) -> list[Message]:
    """Return the messages of several spans. Each span has a duration, a speed relative to real time, and a pause."""
    chance, begin, messages = random.Random(1), 0.0, list[Message]()  # noqa: S311 - not a secret
    for seconds, speed, pause in spans:
        for number in range(1, max(2, round(seconds / message))):
            messages.append((begin + number * message / speed + chance.random() * jitter, message))
        begin += seconds / speed + pause
    messages.sort()
    return messages


SHORT = 0.02
MESSAGES = st.sampled_from([SHORT, 0.06, 0.1])
MANY = settings(max_examples=20, deadline=None)


@MANY
@given(
    st.lists(st.tuples(st.floats(0.4, 8.0), st.just(1.0), st.floats(0.03, 5.0)), min_size=4, max_size=30),
    MESSAGES,
    st.sampled_from([0.0, 0.003]),
    st.sampled_from([(1, 0.0), (5, 0.02)]),
)
def test_a_source_that_sends_only_speech_is_right(
    speech: list[tuple[float, float, float]], message: float, jitter: float, clumps: tuple[int, float]
) -> None:
    messages = in_turn(speech * 2, message, jitter)
    assert Play(in_clumps(messages, *clumps) if message == SHORT else messages).verdicts == []


@MANY
@given(
    st.lists(st.tuples(st.floats(0.2, 10.0), st.floats(2.0, 200.0), st.floats(0.0, 5.0)), min_size=1, max_size=12),
    MESSAGES,
    st.sampled_from(Held),
)
def test_sentences_that_come_in_bursts_are_right(
    sentences: list[tuple[float, float, float]], message: float, held: Held
) -> None:
    """Each sentence starts after the previous one has been heard."""
    spans = [(seconds, speed, seconds - seconds / speed + pause) for seconds, speed, pause in sentences]
    assert Play(in_turn(spans * 2, message, 0.0), held).verdicts == []


@MANY
@given(
    st.lists(st.tuples(st.floats(0.1, 30.0), st.floats(1.2, 30.0), st.floats(1.0, 15.0)), min_size=1, max_size=5),
    MESSAGES,
    st.sampled_from(Held),
)
def test_a_stall_that_is_made_up_for_is_right(
    stalls: list[tuple[float, float, float]], message: float, held: Held
) -> None:
    """Each stall has a duration, a speed of catching up, and a stretch of even audio after it."""
    spans = [(12.0, 1.0, 0.0)]
    for seconds, speed, even in stalls:
        before, speed_of, _ = spans[-1]
        spans[-1] = (before, speed_of, seconds)
        spans += [(seconds * speed / (speed - 1), speed, 0.0), (even, 1.0, 0.0)]
    assert Play(in_turn(spans, message, 0.0), held).verdicts == []


@MANY
@given(st.floats(0.0, 30.0), st.floats(1.0, 100.0), MESSAGES, st.sampled_from(Held))
def test_what_had_come_before_a_source_began_is_right(late: float, speed: float, message: float, held: Held) -> None:
    backlog = [(number * message / 100 / speed, message) for number in range(round(late / message))]
    messages = sorted([*backlog, *steady(1.0, 60, message)])
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(messages))
    assert Play(messages, held).verdicts == []


@MANY
@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.001, 8.0)), max_size=200))
def test_whatever_comes_it_has_an_answer(messages: list[tuple[float, float]]) -> None:
    at, play = 0.0, []
    for gap, seconds in messages:
        at += gap
        play.append((at, seconds))
    Play(play)


@pytest.mark.parametrize(
    ("announced", "ratio", "name"),
    [
        (MONO, 1.5, "24000 Hz, mono"),
        (MONO, 2.76, "44100 Hz, mono"),
        (AudioFormat(rate=24_000), 0.667, "16000 Hz, mono"),
        (AudioFormat(rate=24_000), 2.0, "48000 Hz, mono or 24000 Hz, stereo"),
        (AudioFormat(channels=2), 0.5, "8000 Hz, stereo or 16000 Hz, mono"),
        (MONO, 1.45, ""),
        (MONO, 6.0, ""),
    ],
)
def test_names_the_formats_that_would_come_so_fast(announced: AudioFormat, ratio: float, name: str) -> None:
    assert looks_like(announced, ratio) == name


@pytest.mark.parametrize("seed", range(20))
def test_frames_that_a_pipe_fills_in_other_steps_are_slow_throughout(seed: int) -> None:
    """A pipe fills frames of 960 bytes in steps of 640, so frames arrive alternately after 20 and 40 ms."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    rate, held_bytes = ArrivalRate(), 0
    for number in range(750):
        now = number * 0.02 + chance.uniform(0, 0.002)
        held_bytes += 640
        while held_bytes >= 960:
            held_bytes -= 960
            rate.note(0.02, now, is_held=False)
    assert rate.ratio == pytest.approx(2 / 3, rel=0.05)
