"""The buffer manager's contract: first the original test cases, then the cases that they left open."""

from typing import Any

import pytest

from relay import AudioBufferManager
from relay.audio.amounts import AudioAmount
from relay.vocabulary.audio import FLICKS_PER_SECOND, FRAMES_PER_SECOND, AudioFormat, Chunk


class RecordingClient:
    """Records the calls of CloudWatch's one method."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[dict[str, Any]]]] = []

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803
        self.calls.append((Namespace, MetricData))

    @property
    def data(self) -> list[dict[str, Any]]:
        return [datum for _, data in self.calls for datum in data]


@pytest.fixture
def client() -> RecordingClient:
    return RecordingClient()


@pytest.fixture
def manager() -> AudioBufferManager:
    return AudioBufferManager()


def seconds(count: float) -> bytes:
    """Return `count` seconds of audio in the default format."""
    return bytes(int(count * AudioBufferManager.BYTES_PER_SECOND))


class TestInitialization:
    def test_default_values(self, manager: AudioBufferManager) -> None:
        assert manager.max_buffer_seconds == 10
        assert manager.max_buffer_bytes == 320_000
        assert manager.cloudwatch_client is None
        assert manager.buffers == {}
        assert manager.buffer_sizes == {}
        assert manager.overflow_count == 0

    def test_custom_max_buffer(self) -> None:
        manager = AudioBufferManager(max_buffer_seconds=5)
        assert manager.max_buffer_seconds == 5
        assert manager.max_buffer_bytes == 160_000

    def test_cloudwatch_client(self, client: RecordingClient) -> None:
        assert AudioBufferManager(cloudwatch_client=client).cloudwatch_client is client

    @pytest.mark.parametrize("bound", [0, -1, float("inf"), float("nan"), 0.00001])
    def test_bound_that_is_no_duration_is_refused(self, bound: float) -> None:
        with pytest.raises(ValueError, match="max_buffer_seconds"):
            AudioBufferManager(max_buffer_seconds=bound)


class TestAddAudio:
    def test_new_connection(self, manager: AudioBufferManager) -> None:
        assert manager.add_audio("a", b"12345678") is True
        assert list(manager.buffers) == ["a"]
        assert manager.buffer_sizes["a"] == 8

    def test_existing_connection(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", b"1234")
        assert manager.add_audio("a", b"567890") is True
        assert len(manager.buffers["a"]) == 2
        assert manager.buffer_sizes["a"] == 10

    def test_session_id(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1, cloudwatch_client=client)
        assert manager.add_audio("a", seconds(1), session_id="event") is True
        assert manager.add_audio("a", seconds(1), session_id="event") is False
        assert client.data[0]["Dimensions"] == [{"Name": "SessionId", "Value": "event"}]

    def test_overflow_trigger(self, manager: AudioBufferManager) -> None:
        assert manager.add_audio("a", seconds(6)) is True
        assert manager.add_audio("a", seconds(6)) is False
        assert manager.overflow_count == 1
        assert manager.buffer_sizes["a"] == 192_000

    def test_entries_are_pairs_of_audio_and_timestamp(self) -> None:
        manager = AudioBufferManager(clock=lambda: 12.5)
        manager.add_audio("a", b"1234")
        assert list(manager.buffers["a"]) == [(b"1234", 12.5)]


class TestGetBufferedAudio:
    def test_chunks_in_order(self, manager: AudioBufferManager) -> None:
        for chunk in (b"one1", b"two2", b"3333"):
            manager.add_audio("a", chunk)
        assert manager.get_buffered_audio("a") == [b"one1", b"two2", b"3333"]
        assert manager.get_buffered_audio("a") == [b"one1", b"two2", b"3333"], "reading takes nothing out"

    def test_nonexistent_connection(self, manager: AudioBufferManager) -> None:
        assert manager.get_buffered_audio("nobody") == []


class TestClearBuffer:
    def test_removes_data(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", b"1234")
        manager.clear_buffer("a")
        assert "a" not in manager.buffers
        assert "a" not in manager.buffer_sizes

    def test_nonexistent_connection(self, manager: AudioBufferManager) -> None:
        manager.clear_buffer("nobody")
        assert manager.buffers == {}

    def test_overflows_of_a_cleared_connection_stay_counted(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(6))
        manager.add_audio("a", seconds(6))
        manager.clear_buffer("a")
        assert manager.overflow_count == 1


class TestBufferUtilization:
    def test_percentage(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(5))
        assert manager.get_buffer_utilization("a") == 50.0

    def test_empty_buffer(self, manager: AudioBufferManager) -> None:
        assert manager.get_buffer_utilization("nobody") == 0.0
        manager.add_audio("a", b"")
        assert manager.get_buffer_utilization("a") == 0.0

    def test_full_buffer(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(10))
        assert manager.get_buffer_utilization("a") == 100.0


class TestBufferDuration:
    def test_seconds(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(1.5))
        assert manager.get_buffer_duration("a") == 1.5

    def test_empty_buffer(self, manager: AudioBufferManager) -> None:
        assert manager.get_buffer_duration("nobody") == 0.0


class TestOverflowHandling:
    def test_drops_oldest(self, manager: AudioBufferManager) -> None:
        chunks = [bytes([n]) * 32_000 for n in range(12)]
        for chunk in chunks:
            manager.add_audio("a", chunk)
        assert manager.get_buffered_audio("a") == chunks[2:]

    def test_drops_no_more_than_it_must(self, manager: AudioBufferManager) -> None:
        for _ in range(10):
            manager.add_audio("a", seconds(1))
        manager.add_audio("a", seconds(0.5))
        assert manager.get_buffer_duration("a") == 9.5

    def test_maintains_the_limit(self, manager: AudioBufferManager) -> None:
        for _ in range(50):
            manager.add_audio("a", bytes(10_000))
            assert manager.buffer_sizes["a"] <= manager.max_buffer_bytes

    def test_chunk_larger_than_the_buffer_keeps_its_newest_part_at_a_whole_sample(self) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1)
        manager.add_audio("a", b"older audio!")
        samples = b"".join(n.to_bytes(2, "little") for n in range(16_010))
        assert manager.add_audio("a", samples) is False
        assert manager.get_buffered_audio("a") == [samples[20:]]
        counters = manager.get_counters("a")
        assert counters.dropped.bytes == 12 + 20
        assert counters.dropped.chunks == 1, "the cut chunk is still held"
        assert counters.overflows == manager.overflow_count == 1

    def test_odd_chunk_is_cut_where_its_samples_begin(self) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1)
        manager.add_audio("a", b"\1" * 32_001)
        assert manager.buffer_sizes["a"] == 31_999

    def test_chunk_of_another_codec_that_is_too_long_is_dropped(self) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1)
        assert manager.add_audio("a", b"packet", duration_seconds=0.4) is True
        assert manager.add_audio("a", b"packet of two seconds", duration_seconds=2) is False
        assert manager.get_buffered_audio("a") == []
        assert manager.get_counters("a").dropped == AudioAmount(2, 27, round(2.4 * FLICKS_PER_SECOND))


class TestCloudWatchMetrics:
    def test_overflow_with_client(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1, cloudwatch_client=client)
        manager.add_audio("a", seconds(1))
        assert client.calls == [], "no overflow, no call"
        manager.add_audio("a", seconds(0.1))
        assert client.calls == [("AudioRelay", [{"MetricName": "BufferOverflow", "Value": 1.0, "Unit": "Count"}])]

    def test_overflow_without_client(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(10))
        assert manager.add_audio("a", seconds(1)) is False

    def test_utilization_with_client(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(cloudwatch_client=client, namespace="Mine")
        manager.add_audio("a", seconds(2))
        manager.add_audio("b", seconds(4))
        manager.emit_utilization_metrics("event")
        dimensions = [{"Name": "SessionId", "Value": "event"}]
        expected = [
            {"MetricName": "AverageBufferUtilization", "Value": 30.0, "Unit": "Percent", "Dimensions": dimensions},
            {"MetricName": "MaxBufferUtilization", "Value": 40.0, "Unit": "Percent", "Dimensions": dimensions},
            {"MetricName": "ActiveBuffers", "Value": 2.0, "Unit": "Count", "Dimensions": dimensions},
        ]
        assert client.calls == [("Mine", expected)]

    def test_utilization_without_client(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(1))
        manager.emit_utilization_metrics()

    def test_no_buffers(self, client: RecordingClient) -> None:
        AudioBufferManager(cloudwatch_client=client).emit_utilization_metrics()
        assert client.calls == []

    def test_utilization_of_one_session_leaves_out_the_others(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(cloudwatch_client=client)
        manager.add_audio("a", seconds(2), "one")
        manager.add_audio("b", seconds(4), "two")
        manager.emit_utilization_metrics("one")
        assert [datum["Value"] for datum in client.data] == [20.0, 20.0, 1.0]
        manager.emit_utilization_metrics("three")
        assert len(client.calls) == 1, "a session without buffers has nothing to say"

    def test_utilization_of_each_session(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(cloudwatch_client=client)
        for name, held, session in (("a", 2, "one"), ("b", 4, "two"), ("c", 6, "two"), ("d", 8, None)):
            manager.add_audio(name, seconds(held), session)
        manager.emit_utilization_of_sessions()
        assert [datum["Value"] for datum in client.data] == [20.0, 20.0, 1.0, 50.0, 60.0, 2.0]
        assert [datum["Dimensions"][0]["Value"] for datum in client.data] == ["one"] * 3 + ["two"] * 3

    def test_client_that_raises_costs_no_audio(self) -> None:
        class Broken:
            def put_metric_data(self, **_: object) -> None:
                raise RuntimeError("throttled")

        manager = AudioBufferManager(max_buffer_seconds=1, cloudwatch_client=Broken())
        manager.add_audio("a", seconds(1))
        assert manager.add_audio("a", b"newest") is False
        assert manager.get_buffered_audio("a")[-1] == b"newest"
        assert manager.failed_metric_calls == 1


class TestEdgeCases:
    def test_zero_length_chunk(self, manager: AudioBufferManager) -> None:
        assert manager.add_audio("a", b"") is True
        assert manager.buffer_sizes["a"] == 0
        assert len(manager.buffers["a"]) == 0, "nothing is queued for nothing, or the queue had no bound"

    def test_multiple_connections(self, manager: AudioBufferManager) -> None:
        for name in ("a", "b", "c"):
            manager.add_audio(name, name.encode() * 2)
        assert len(manager.buffers) == 3
        assert manager.get_buffered_audio("b") == [b"bb"]
        manager.clear_buffer("b")
        assert set(manager.buffers) == {"a", "c"}

    def test_constants(self) -> None:
        assert AudioBufferManager.SAMPLE_RATE == 16_000
        assert AudioBufferManager.BYTES_PER_SAMPLE == 2
        assert AudioBufferManager.BYTES_PER_SECOND == 32_000


class TestTakeAudio:
    def test_takes_the_oldest_out(self, manager: AudioBufferManager) -> None:
        for n in range(5):
            manager.add_audio("a", bytes([n]) * 640)
        assert manager.take_audio("a", max_seconds=0.04) == [b"\0" * 640, b"\1" * 640]
        assert manager.get_buffer_duration("a") == pytest.approx(0.06)
        assert len(manager.take_audio("a")) == 3
        assert manager.take_audio("a") == []
        assert manager.get_counters("a").taken == AudioAmount(5, 3200, FLICKS_PER_SECOND // 10)

    def test_gives_a_chunk_even_when_it_is_longer_than_asked_for(self, manager: AudioBufferManager) -> None:
        manager.add_audio("a", seconds(1))
        assert len(manager.take_audio("a", max_seconds=0.1)) == 1

    def test_nonexistent_connection(self, manager: AudioBufferManager) -> None:
        assert manager.take_audio("nobody") == []
        assert manager.get_counters("nobody").accepted == AudioAmount()


class TestOpenBuffer:
    @pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 1), (48_000, 2)])
    def test_the_bound_is_a_duration_in_any_format(self, rate: int, channels: int) -> None:
        manager = AudioBufferManager(max_buffer_seconds=2)
        audio_format = AudioFormat(rate=rate, channels=channels)
        manager.open_buffer("a", audio_format=audio_format)
        chunk = bytes(audio_format.bytes_per_second // 10)
        for _ in range(20):
            assert manager.add_audio("a", chunk) is True
        assert manager.get_buffer_duration("a") == pytest.approx(2.0)
        assert manager.get_buffer_utilization("a") == pytest.approx(100.0)
        assert manager.add_audio("a", chunk) is False

    def test_bytes_are_bounded_when_they_say_nothing_about_time(self) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1)
        for _ in range(10):
            manager.add_audio("a", bytes(4_000), duration_seconds=0.001)
        assert manager.buffer_sizes["a"] == manager.max_buffer_bytes

    def test_a_bound_of_its_own(self, manager: AudioBufferManager) -> None:
        manager.open_buffer("a", max_buffer_seconds=0.5)
        manager.add_audio("a", seconds(1))
        assert manager.get_buffer_duration("a") == 0.5

    def test_twice_is_refused(self, manager: AudioBufferManager) -> None:
        manager.open_buffer("a")
        with pytest.raises(ValueError, match="has a buffer"):
            manager.open_buffer("a")

    def test_a_format_change_drops_nothing_within_the_duration(self, manager: AudioBufferManager) -> None:
        stereo, mono = AudioFormat(rate=48_000, channels=2), AudioFormat(rate=8_000)
        buffer = manager.open_buffer("a", audio_format=stereo)
        for _ in range(6):
            manager.add_audio("a", bytes(stereo.bytes_per_second))
        assert buffer.rebound(10.0, mono) is None
        for _ in range(6):
            manager.add_audio("a", bytes(mono.bytes_per_second))
        assert manager.get_buffer_duration("a") == 10.0
        assert buffer.counters.dropped.chunks == 2
        dropped = buffer.rebound(5.0, mono)
        assert dropped is not None
        assert (dropped.chunks, buffer.overflows) == (5, 3)
        buffer.take(5)
        buffer.rebound(10.0, mono)
        assert buffer.max_bytes == 10 * mono.bytes_per_second


class TestFanOut:
    def test_shares_one_chunk(self, manager: AudioBufferManager) -> None:
        buffers = [manager.open_buffer(name) for name in ("a", "b")]
        chunk = Chunk(bytes(640), 0.0, FLICKS_PER_SECOND // 50)
        assert manager.fan_out(chunk, buffers) == (0, AudioAmount())
        assert manager.buffers["a"][0] is manager.buffers["b"][0] is chunk

    def test_many_overflows_are_one_metric_call(self, client: RecordingClient) -> None:
        manager = AudioBufferManager(max_buffer_seconds=1, cloudwatch_client=client)
        buffers = [manager.open_buffer(name, session_id="event") for name in ("a", "b", "c")]
        for name in ("a", "b"):
            manager.add_audio(name, seconds(1))
        chunk = Chunk(bytes(640), 0.0, FLICKS_PER_SECOND // 50)
        overflowed, dropped = manager.fan_out(chunk, buffers, "event")
        assert overflowed == 2
        assert dropped == AudioAmount(2, 64_000, 2 * FLICKS_PER_SECOND)
        assert [datum["Value"] for datum in client.data] == [2.0]

    def test_a_cleared_connection_is_not_resurrected_by_a_late_frame(self, manager: AudioBufferManager) -> None:
        buffer = manager.open_buffer("a")
        manager.clear_buffer("a")
        assert manager.fan_out(Chunk(b"late", 0.0, 1), [buffer]) == (0, AudioAmount())
        assert manager.buffers == {}
        assert len(buffer.chunks) == buffer.held_bytes == 0
        assert buffer.rebound(1.0, AudioFormat(rate=8_000)) is None
        assert buffer.closed
        assert buffer.utilization_percent == 0.0


class TestDropBefore:
    def test_drops_what_is_too_old(self) -> None:
        now = 0.0
        manager = AudioBufferManager(clock=lambda: now)
        buffer = manager.open_buffer("a")
        for now in (1.0, 2.0, 3.0):  # noqa: B007 - the clock reads `now`
            manager.add_audio("a", bytes(320))
        assert buffer.drop_before(2.0) == AudioAmount(1, 320, FLICKS_PER_SECOND // 100)
        assert buffer.drop_before(2.0) is None
        assert len(buffer.chunks) == 2
        assert buffer.counters.overflows == 0, "old age is no overflow"


def test_views_read_like_dictionaries(manager: AudioBufferManager) -> None:
    manager.add_audio("a", b"1234")
    assert repr(manager.buffer_sizes) == "{'a': 4}"
    assert dict(manager.buffer_sizes) == {"a": 4}


def test_a_buffer_of_the_server_is_bounded_in_chunks_too() -> None:
    manager = AudioBufferManager(1)
    server, plain = manager.open_buffer("server", is_bounded_in_chunks=True), manager.open_buffer("plain")
    for _ in range(1000):
        manager.fan_out(Chunk(b"\0\0", 0.0, 44_100), (server, plain))
    assert (len(server.chunks), len(plain.chunks)) == (FRAMES_PER_SECOND, 1000)
    assert server.counters.dropped.chunks == 1000 - FRAMES_PER_SECOND
    assert server.utilization_percent == 100
    server.rebound(2, AudioFormat())
    assert server.utilization_percent == 50
