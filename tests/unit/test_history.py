"""What a channel remembers: the numbers it knows, and the frames it still has."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio.history import MAX_EXPORTED_STRETCHES, MAX_STRETCHES, History
from relay.audio.timeline import Timeline
from relay.protocol.wire import WORD_MASK
from relay.vocabulary.audio import EPOCH_STRIDE, FRAMES_PER_SECOND, AudioFormat, Frame, Place

MONO = AudioFormat()
STEREO = AudioFormat(rate=48_000, channels=2)
FRAME = bytes(640)


def release(channel: Timeline, audio: bytes, due: float) -> Frame:
    frame = channel.release((channel.audio_format or MONO).measure(audio), due)
    channel.keep(frame)
    return frame


def channel_with(frames: int, *, history_seconds: float = 1.0, first_epoch: int = 7) -> Timeline:
    channel = Timeline(first_epoch, bytes, history_seconds)
    channel.go_live(MONO)
    for _ in range(frames):
        release(channel, FRAME, 0.0)
    return channel


def place_of(channel: Timeline, epoch: int, seq: int) -> Place | None:
    known = channel.history.find(epoch, seq, channel.place)
    return None if known is None else known.place


def test_it_holds_no_more_audio_than_its_bound() -> None:
    history = channel_with(60).history
    assert len(history.frames) == 50
    assert [frame.start.seq for frame in history.since(58)] == [58, 59]
    assert [frame.start.seq for frame in history.since(3)] == list(range(10, 60)), "what is gone is not given"
    assert history.since(60) == []


def test_numbers_are_known_longer_than_their_audio() -> None:
    channel = channel_with(60)
    assert place_of(channel, 7, 3) == (3, 7, 3, 3 * 320)
    assert place_of(channel, 7, 60) is channel.place, "the number behind the last frame is a place"


def test_what_is_yet_to_come_or_of_another_numbering_is_unknown() -> None:
    channel = channel_with(60)
    assert place_of(channel, 7, 61) is None
    assert place_of(channel, 7, WORD_MASK) is None, "before the first"
    assert place_of(channel, 8, 3) is None
    assert Timeline(7, bytes, 1.0).history.find(7, 0, Place(0, 7, 0, 0)) is None, "nobody has said a format"


def test_frames_of_changing_length_have_exact_places() -> None:
    channel = channel_with(3)
    release(channel, bytes(320), 0.0)
    release(channel, bytes(320), 0.0)
    release(channel, FRAME, 0.0)
    assert [place_of(channel, 7, seq) for seq in range(7)] == [
        (seq, 7, seq, ticks) for seq, ticks in enumerate((0, 320, 640, 960, 1120, 1280, 1600))
    ]


def test_an_older_epoch_leads_to_the_present_one() -> None:
    channel = channel_with(5)
    channel.go_live(STEREO)
    release(channel, bytes(192), 0.0)
    known = channel.history.find(7, 5, channel.place)
    assert known is not None
    assert known.place == (5, 7, 5, 1600)
    (later,) = channel.history.epochs_after(known.epoch)
    assert (later.before, later.start, later.audio_format) == ((5, 7, 5, 1600), (EPOCH_STRIDE, 8, 0, 0), STEREO)
    assert place_of(channel, 7, 6) is None, "that epoch has no such frame"
    assert place_of(channel, 8, 1) is channel.place


def test_an_epoch_without_frames_is_known() -> None:
    channel = channel_with(0)
    channel.go_live(STEREO)
    channel.go_live(MONO)
    release(channel, FRAME, 0.0)
    for epoch in (7, 8):
        known = channel.history.find(epoch, 0, channel.place)
        assert known is not None
        assert known.place == ((epoch - 7) * EPOCH_STRIDE, epoch, 0, 0)
        assert len(channel.history.epochs_after(known.epoch)) == 9 - epoch
    assert place_of(channel, 8, 1) is None


def test_numbers_that_wrap_are_found() -> None:
    channel = channel_with(0)
    channel.place = Place(10, 7, WORD_MASK, 0)
    release(channel, FRAME, 0.0)
    release(channel, FRAME, 0.0)
    found = place_of(channel, 7, 0)
    assert found is not None
    assert (found.position, found.seq, found.media_time) == (11, WORD_MASK + 1, 320)


def test_what_was_cleared_is_not_given_but_known() -> None:
    channel = channel_with(5)
    channel.history.clear()
    release(channel, FRAME, 0.0)
    assert [frame.start.seq for frame in channel.history.since(0)] == [5]
    assert place_of(channel, 7, 2) == (2, 7, 2, 640)


@given(st.lists(st.integers(1, 3), max_size=MAX_STRETCHES * 2), st.data())
def test_every_place_it_gives_is_the_frames_own(lengths: list[int], data: st.DataObject) -> None:
    channel = Timeline(3, bytes, 0.01)
    channel.go_live(MONO)
    places = [channel.place]
    for length in lengths:
        release(channel, bytes(2 * length), 0.0)
        places.append(channel.place)
    seq = data.draw(st.integers(0, len(lengths)))
    found = place_of(channel, 3, seq)
    assert found == places[seq] or (found is None and len(lengths) - seq > MAX_STRETCHES // 2)


def test_frames_of_one_sample_are_bounded_in_number_and_bytes() -> None:
    channel = channel_with(0, history_seconds=1.0)
    for _ in range(1000):
        release(channel, b"\0\0", 0.0)
    frames = channel.history.frames
    assert len(frames) == FRAMES_PER_SECOND
    assert channel.history.held_bytes == sum(len(frame.wire) + len(frame.audio) for frame in frames)
    assert place_of(channel, 7, 3) == (3, 7, 3, 3), "numbers are known longer"
    release(channel, bytes(32_000), 0.0)
    assert len(frames) == 1
    channel.history.clear()
    assert channel.history.held_bytes == 0


def test_what_is_due_since_a_moment_is_found_without_looking_at_all() -> None:
    channel = channel_with(0)
    for number in range(50):
        release(channel, FRAME, number / 50)
    for oldest, count in ((-1.0, 50), (0.5, 25), (0.501, 24), (2.0, 0)):
        assert len(channel.history.since_due(oldest)) == count


def test_lost_frames_at_the_beginning_of_an_epoch_have_places() -> None:
    channel = channel_with(0)
    start, channel.place = channel.place, Place(4, 7, 4, 4 * 320)
    channel.history.know_hole(start, channel.place)
    release(channel, bytes(320), 0.0)
    restored = Timeline(7, bytes)
    restored.restore(channel.export())
    for each in (channel, restored):
        found = [place_of(each, 7, seq) for seq in (0, 3, 4, 5)]
        assert found == [(0, 7, 0, 0), (3, 7, 3, 960), (4, 7, 4, 1280), (5, 7, 5, 1440)]


def test_frames_behind_a_hole_are_found_by_their_places() -> None:
    whole = channel_with(8).history
    holed = History(10.0)
    first = whole.epochs[0]
    holed.begin_epoch(first.audio_format, first.before, first.start)
    frames = [frame for frame in whole.frames if frame.start.position not in {2, 3, 4}]
    for frame in frames:
        holed.add(frame)
    assert [holed.since(position) for position in (0, 2, 4, 6)] == [frames, frames[2:], frames[2:], frames[3:]]
    known = holed.find(first.start.epoch, 6, frames[-1].end)
    assert known is not None
    assert known.place == frames[3].start
    moment = holed.find_moment(first.start.epoch, frames[3].start.media_time / MONO.clock_rate, frames[-1].end)
    assert moment == known
    del frames[0:2]
    holed = History(10.0)
    holed.begin_epoch(first.audio_format, first.before, first.start)
    holed.add(frames[0])
    known = holed.find(first.start.epoch, 0, frames[0].end)
    assert known is not None
    assert known.place == first.start, "a listener that got nothing yet has a place"


@given(st.integers(1, MAX_STRETCHES * 4), st.integers(0, MAX_STRETCHES * 3), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_every_frame_that_is_held_is_found(count: int, cleared_after: int, random: Random) -> None:
    channel = Timeline(3, bytes, 10.0)
    channel.go_live(MONO)
    for index in range(count):
        release(channel, bytes(random.choice((2, 4, 6))), 0.0)
        if index == cleared_after:
            channel.clear()
    history, end = channel.history, channel.place
    for frame in history.frames:
        start = frame.start
        assert place_of(channel, start.epoch, start.seq) == start
        known = history.find_moment(start.epoch, (start.media_time + 0.5) / MONO.clock_rate, end)
        assert known is not None
        assert known.place == start
    held_from = history.frames[0].start.position if history.frames else end.position
    covered = sum(
        max(0, last.position - max(first.position, held_from)) for _, first, last, _ in history.stretches(end)
    )
    assert covered == len(history.frames)


def test_changes_of_length_are_bounded_by_what_is_held_and_what_is_exported() -> None:
    channel = channel_with(0, history_seconds=100.0)
    for number in range(5000):
        release(channel, FRAME[: 320 + 2 * (number % 2)], 0.0)
    assert len(channel.history.stretches(channel.place)) == 5000
    assert len(channel.history.export_numbers().stretches) == MAX_EXPORTED_STRETCHES
    release(channel, bytes(32_000 * 99), 0.0)
    release(channel, FRAME, 0.0)
    assert len(channel.history.stretches(channel.place)) < MAX_STRETCHES + 200
    channel.history.clear()
    for number in range(1000):
        release(channel, FRAME[: 320 + 2 * (number % 2)], 0.0)
    assert len(channel.history.stretches(channel.place)) <= MAX_STRETCHES + 1000


def test_a_restored_history_finds_each_frame_that_it_is_given() -> None:
    channel = channel_with(0, history_seconds=100.0)
    for number in range(3 * MAX_EXPORTED_STRETCHES):
        release(channel, FRAME[: 320 + 2 * (number % 2)], 0.0)
    restored = Timeline(7, bytes, 100.0)
    restored.restore(channel.export())
    restored.load(list(channel.history.frames))
    assert restored.place is channel.place
    assert all(place_of(restored, 7, frame.start.seq) == frame.start for frame in channel.history.frames)
