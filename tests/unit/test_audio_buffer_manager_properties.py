"""Compare the buffer manager with a simple model, in every order that Hypothesis finds."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from relay import AudioBufferManager
from relay.audio.amounts import AudioAmount
from relay.audio.listener_buffer import ListenerBuffer
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Chunk


@dataclass
class Model:
    """A list of `(audio, flicks, timestamp)`, with sums of what arrived and what was lost."""

    buffer: ListenerBuffer
    max_bytes: int
    max_flicks: int
    queue: list[tuple[bytes, int, float]] = field(default_factory=list)
    given: AudioAmount = field(default_factory=AudioAmount)
    taken: AudioAmount = field(default_factory=AudioAmount)
    dropped: AudioAmount = field(default_factory=AudioAmount)
    overflows: int = 0

    def fits(self, audio: bytes, flicks: int) -> bool:
        size = sum(len(held) for held, _, _ in self.queue) + len(audio)
        duration = sum(held for _, held, _ in self.queue) + flicks
        return size <= self.max_bytes and duration <= self.max_flicks

    def drop(self, count: int) -> None:
        for audio, flicks, _ in self.queue[:count]:
            self.dropped += AudioAmount(1, len(audio), flicks)
        del self.queue[:count]

    def add(self, audio: bytes, flicks: int, now: float) -> bool:
        """Add one chunk that cannot be cut. Return whether anything was lost."""
        self.given += AudioAmount(1, len(audio), flicks)
        lost = not self.fits(audio, flicks)
        while self.queue and not self.fits(audio, flicks):
            self.drop(1)
        self.queue.append((audio, flicks, now))
        if not self.fits(b"", 0):
            self.drop(1)
        self.overflows += lost
        return lost

    def cut_and_add(self, audio: bytes, audio_format: AudioFormat, now: float) -> bool:
        """Add plain audio. Keep only the newest whole samples that fit."""
        if len(audio) <= self.max_bytes:
            return self.add(audio, audio_format.flicks(len(audio)), now)
        newest = audio
        while len(newest) > self.max_bytes:
            newest = newest[audio_format.sample_bytes :]
        kept_flicks = audio_format.flicks(len(newest))
        self.drop(len(self.queue))
        self.given += AudioAmount(0, len(audio) - len(newest), audio_format.flicks(len(audio)) - kept_flicks)
        self.dropped += AudioAmount(0, len(audio) - len(newest), audio_format.flicks(len(audio)) - kept_flicks)
        self.add(newest, kept_flicks, now)
        self.overflows += 1
        return True


class BufferMachine(RuleBasedStateMachine):
    open_names = Bundle("open_names")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.manager = AudioBufferManager(max_buffer_seconds=0.01, clock=lambda: self.now)
        self.models: dict[str, Model] = {}
        self.closed: list[Model] = []

    @rule(
        target=open_names,
        rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
        channels=st.sampled_from([1, 2]),
        bound_ms=st.sampled_from([1, 10, 20]),
    )
    def open(self, rate: int, channels: int, bound_ms: int) -> str:
        name = f"c{len(self.models) + len(self.closed)}"
        buffer = self.manager.open_buffer(
            name, audio_format=AudioFormat(rate=rate, channels=channels), max_buffer_seconds=bound_ms / 1000
        )
        max_bytes = rate * bound_ms // 1000 * 2 * channels
        self.models[name] = Model(buffer, max_bytes, FLICKS_PER_SECOND * bound_ms // 1000)
        return name

    @rule(name=open_names, length=st.integers(0, 5_000), fill=st.integers(0, 255))
    def add(self, name: str, length: int, fill: int) -> None:
        self.now += 1
        audio = bytes((fill + n) % 256 for n in range(length))
        model = self.models[name]
        lost = bool(audio) and model.cut_and_add(audio, model.buffer.audio_format, self.now)
        assert self.manager.add_audio(name, audio) is not lost

    @rule(duration_ms=st.integers(1, 30), length=st.integers(1, 3_000))
    def fan_out(self, duration_ms: int, length: int) -> None:
        self.now += 1
        chunk = Chunk(bytes(length), self.now, duration_ms * FLICKS_PER_SECOND // 1000)
        before = sum((model.dropped for model in self.models.values()), AudioAmount())
        lost = [model.add(chunk.audio, chunk.duration, self.now) for model in self.models.values()]
        after = sum((model.dropped for model in self.models.values()), AudioAmount())
        everybody = [model.buffer for model in (*self.models.values(), *self.closed)]
        assert self.manager.fan_out(chunk, everybody) == (sum(lost), after - before)

    @rule(name=open_names, max_ms=st.one_of(st.none(), st.integers(1, 50)))
    def take(self, name: str, max_ms: int | None) -> None:
        queue = self.models[name].queue
        count = len(queue)
        if max_ms is not None:
            most = FLICKS_PER_SECOND * max_ms // 1000
            while count > 1 and sum(flicks for _, flicks, _ in queue[:count]) > most:
                count -= 1
        taken = self.manager.take_audio(name, None if max_ms is None else max_ms / 1000)
        assert taken == [audio for audio, _, _ in queue[:count]]
        for audio, flicks, _ in queue[:count]:
            self.models[name].taken += AudioAmount(1, len(audio), flicks)
        del queue[:count]

    @rule(name=open_names, age=st.integers(0, 10))
    def drop_stale(self, name: str, age: int) -> None:
        model = self.models[name]
        model.buffer.drop_before(self.now - age)
        model.drop(sum(timestamp < self.now - age for _, _, timestamp in model.queue))

    @rule(name=consumes(open_names))
    def clear(self, name: str) -> None:
        self.manager.clear_buffer(name)
        self.closed.append(self.models.pop(name))

    @invariant()
    def what_is_held_is_what_the_model_holds(self) -> None:
        for name, model in self.models.items():
            held = [(audio, flicks) for audio, flicks, _ in model.queue]
            assert [(chunk.audio, chunk.duration) for chunk in model.buffer.chunks] == held
            assert self.manager.get_buffered_audio(name) == [audio for audio, _ in held]
            assert self.manager.buffer_sizes[name] == sum(len(audio) for audio, _ in held) <= model.max_bytes
            assert model.buffer.held_flicks == sum(flicks for _, flicks in held) <= model.max_flicks

    @invariant()
    def in_is_out_and_dropped_and_held(self) -> None:
        for name, model in self.models.items():
            counters = self.manager.get_counters(name)
            assert counters.taken == model.taken
            assert counters.dropped == model.dropped
            assert counters.accepted == model.given

    @invariant()
    def overflows_are_counted(self) -> None:
        assert self.manager.overflow_count == sum(m.overflows for m in (*self.models.values(), *self.closed))

    @invariant()
    def the_cleared_stay_gone(self) -> None:
        assert set(self.manager.buffers) == set(self.models)
        assert all(model.buffer.closed and not model.buffer.chunks for model in self.closed)


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = settings(max_examples=150, stateful_step_count=40)
