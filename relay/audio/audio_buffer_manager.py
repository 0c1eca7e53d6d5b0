"""All listeners' buffers, each bounded, and what the operator is told of them.

Invariants: no buffer ever holds more than its bound; a metric never delays or breaks audio; nothing blocks.
In the server this is the one owner of the listeners' queues: `fan_out` fills them, the drain task empties them.
It is not thread-safe: one event loop owns it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.audio.listener_buffer import ListenerBuffer, bounds
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Chunk
from relay.vocabulary.clock import Clock, relay_clock

DEFAULT_NAMESPACE = "AudioRelay"
"""The CloudWatch namespace when none is given."""

_Shown = TypeVar("_Shown")


class MetricClient(Protocol):
    """Anything with CloudWatch's `put_metric_data` that returns at once, such as the relay's batching reporter.

    boto3's client has the method, too, but waits for the network: do not use it where audio is live.
    """

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> object:  # noqa: N803 - CloudWatch's names
        """Take metric data. Audio waits for this call, so it must not block."""
        ...


class _BufferView(Mapping[str, _Shown]):
    """The buffers by connection id, each shown as one of its properties; always up to date."""

    def __init__(self, buffers: Mapping[str, ListenerBuffer], show: Callable[[ListenerBuffer], _Shown]) -> None:
        self._buffers = buffers
        self._show = show

    def __getitem__(self, connection_id: str) -> _Shown:
        return self._show(self._buffers[connection_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers)

    def __len__(self) -> int:
        return len(self._buffers)

    def __repr__(self) -> str:
        return repr(dict(self))


class AudioBufferManager:
    """Per-listener audio buffers with a bounded duration, dropping the oldest.

    Attributes:
        max_buffer_seconds: The bound of a buffer that asks for no other.
        max_buffer_bytes: The same in bytes of 16 kHz mono 16-bit audio.
        cloudwatch_client: Where metrics go; None for nowhere.
        namespace: The CloudWatch namespace of the metrics.
        buffers: connection id → its queue of `(audio_chunk, timestamp)`, oldest first; a live view, to be read.
        buffer_sizes: connection id → bytes in its queue; a live view.
        overflow_count: Overflows of all buffers so far, closed ones included.
        failed_metric_calls: Calls of the client that raised; those metrics are lost, the audio is not.
    """

    SAMPLE_RATE: Final = 16_000
    BYTES_PER_SAMPLE: Final = 2
    BYTES_PER_SECOND: Final = SAMPLE_RATE * BYTES_PER_SAMPLE

    def __init__(
        self,
        max_buffer_seconds: float = 10,
        cloudwatch_client: MetricClient | None = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = relay_clock,
    ) -> None:
        """Make a manager without buffers.

        Args:
            max_buffer_seconds: The bound of each buffer, in seconds of audio.
            cloudwatch_client: Where metrics go.
            namespace: The CloudWatch namespace of the metrics.
            clock: Gives the timestamps of plain audio, in seconds.

        Raises:
            ValueError: The bound is not a positive duration.
        """
        self.max_buffer_seconds = max_buffer_seconds
        self.max_buffer_bytes, _ = bounds(max_buffer_seconds, AudioFormat())
        self.cloudwatch_client = cloudwatch_client
        self.namespace = namespace
        self.failed_metric_calls = 0
        self._clock = clock
        self._buffers: dict[str, ListenerBuffer] = {}
        self._closed_overflows = 0
        self.buffers: Mapping[str, deque[Chunk]] = _BufferView(self._buffers, lambda buffer: buffer.chunks)
        self.buffer_sizes: Mapping[str, int] = _BufferView(self._buffers, lambda buffer: buffer.held_bytes)

    @property
    def overflow_count(self) -> int:
        """Overflows of all buffers so far, closed ones included."""
        return self._closed_overflows + sum(buffer.overflows for buffer in self._buffers.values())

    def open_buffer(
        self,
        connection_id: str,
        *,
        session_id: str | None = None,
        audio_format: AudioFormat | None = None,
        max_buffer_seconds: float | None = None,
        is_bounded_in_chunks: bool = False,
    ) -> ListenerBuffer:
        """Make the buffer of a new listener; audio reaches it by `fan_out`, or by `add_audio`.

        Args:
            connection_id: Names it; must not be open.
            session_id: Whose audio it is, for metrics.
            audio_format: What its bytes are; 16 kHz mono 16-bit when left out.
            max_buffer_seconds: A bound of its own; the manager's when left out.
            is_bounded_in_chunks: Whether it holds no more chunks than 400 for each second of its bound.

        Raises:
            ValueError: The connection has a buffer already, or the bound is not a positive duration.
        """
        if connection_id in self._buffers:
            raise ValueError(f"connection {connection_id!r} has a buffer already")
        seconds = self.max_buffer_seconds if max_buffer_seconds is None else max_buffer_seconds
        buffer = ListenerBuffer(
            seconds, audio_format or AudioFormat(), session_id, is_bounded_in_chunks=is_bounded_in_chunks
        )
        self._buffers[connection_id] = buffer
        return buffer

    def add_audio(
        self,
        connection_id: str,
        audio_chunk: bytes,
        session_id: str | None = None,
        *,
        duration_seconds: float | None = None,
    ) -> bool:
        """Add audio for one connection, making its buffer when it has none.

        A chunk that is larger than the whole buffer keeps its newest part, cut at a whole sample.

        Args:
            connection_id: Whose buffer.
            audio_chunk: Audio in the buffer's format; any bytes are taken. No bytes are no audio: nothing is
                queued for them.
            session_id: Whose audio it is, for metrics.
            duration_seconds: For a codec whose bytes say nothing about time. Such a chunk can't be cut: when
                it is larger than the whole buffer, it is dropped.

        Returns:
            True when nothing was lost, False when the oldest audio was dropped for it.
        """
        buffer = self._buffers.get(connection_id) or self.open_buffer(connection_id, session_id=session_id)
        if session_id is not None:
            buffer.session_id = session_id
        if not audio_chunk:
            return True
        overflows_before = buffer.overflows
        if duration_seconds is None:
            audio_chunk = self._cut_to_bound(buffer, audio_chunk)
            duration = buffer.audio_format.flicks(len(audio_chunk))
        else:
            duration = round(duration_seconds * FLICKS_PER_SECOND)
        buffer.push(Chunk(audio_chunk, self._clock(), duration))
        if buffer.overflows == overflows_before:
            return True
        self._emit_overflow_metric(session_id)
        return False

    def fan_out(
        self, chunk: Chunk, buffers: Iterable[ListenerBuffer], session_id: str | None = None
    ) -> tuple[int, AudioAmount]:
        """Add one shared chunk to many buffers; the server's hot path. Closed buffers stay closed.

        At most one metric call is made, however many buffers overflow.

        Returns:
            How many buffers overflowed, and how much they dropped together.
        """
        size, duration = len(chunk[0]), chunk.duration
        overflowed, dropped = 0, AudioAmount()
        for buffer in buffers:
            held_bytes = buffer.held_bytes + size
            held_flicks = buffer.held_flicks + duration
            if (
                held_bytes != size
                and held_flicks <= buffer.max_flicks
                and held_bytes <= buffer.max_bytes
                and len(buffer.chunks) < buffer.max_chunks
            ):
                buffer.chunks.append(chunk)
                buffer.held_bytes = held_bytes
                buffer.held_flicks = held_flicks
            elif (lost := buffer.push(chunk)) is not None:
                overflowed += 1
                dropped += lost
        if overflowed:
            self._emit_overflow_metric(session_id, overflowed)
        return overflowed, dropped

    def get_buffered_audio(self, connection_id: str) -> list[bytes]:
        """Give the audio that is held for a connection, oldest first, and leave it there."""
        buffer = self._buffers.get(connection_id)
        return [] if buffer is None else [chunk[0] for chunk in buffer.chunks]

    def take_audio(self, connection_id: str, max_seconds: float | None = None) -> list[bytes]:
        """Take audio out, oldest first, to be sent now.

        Args:
            connection_id: Whose buffer; one that does not exist holds nothing.
            max_seconds: How much at the most, but always a chunk when there is one; None takes all.
        """
        buffer = self._buffers.get(connection_id)
        if buffer is None or not buffer.chunks:
            return []
        count = len(buffer.chunks)
        if max_seconds is not None:
            count = buffer.count_within(round(max_seconds * FLICKS_PER_SECOND))
        audio = [chunk[0] for chunk in islice(buffer.chunks, count)]
        buffer.take(count)
        return audio

    def clear_buffer(self, connection_id: str) -> None:
        """Forget a connection and what is held for it; whoever still has its buffer can add nothing to it."""
        buffer = self._buffers.pop(connection_id, None)
        if buffer is not None:
            self._closed_overflows += buffer.overflows
            buffer.close()

    def get_buffer_utilization(self, connection_id: str) -> float:
        """Give how full a connection's buffer is, 0–100; 0 when it has none."""
        buffer = self._buffers.get(connection_id)
        return 0.0 if buffer is None else buffer.utilization_percent

    def get_buffer_duration(self, connection_id: str) -> float:
        """Give how many seconds of audio are held for a connection; 0 when it has no buffer."""
        buffer = self._buffers.get(connection_id)
        return 0.0 if buffer is None else buffer.held_flicks / FLICKS_PER_SECOND

    def get_counters(self, connection_id: str) -> BufferCounters:
        """Give what became of a connection's audio; nothing when it has no buffer."""
        buffer = self._buffers.get(connection_id)
        return BufferCounters() if buffer is None else buffer.counters

    def emit_utilization_metrics(self, session_id: str | None = None) -> None:
        """Send how full the buffers are: average, maximum, and how many there are.

        Args:
            session_id: Only the buffers of this session (and those that never named one), with the session as
                a dimension; None takes all buffers, without it.
        """
        if self.cloudwatch_client is None:
            return
        percents = [
            buffer.utilization_percent
            for buffer in self._buffers.values()
            if session_id is None or buffer.session_id in (None, session_id)
        ]
        if percents:
            self._put_utilization(session_id, percents)

    def emit_utilization_of_sessions(self) -> None:
        """Send the same for each session, with the session as a dimension; buffers that named none are left out."""
        if self.cloudwatch_client is None:
            return
        of_sessions: dict[str, list[float]] = {}
        for buffer in self._buffers.values():
            if buffer.session_id is not None:
                of_sessions.setdefault(buffer.session_id, []).append(buffer.utilization_percent)
        for session_id, percents in of_sessions.items():
            self._put_utilization(session_id, percents)

    def _cut_to_bound(self, buffer: ListenerBuffer, audio: bytes) -> bytes:
        sample_bytes = buffer.audio_format.sample_bytes
        excess = len(audio) - buffer.max_bytes
        if excess <= 0:
            return audio
        excess += -excess % sample_bytes
        newest = audio[excess:]
        flicks = buffer.audio_format.flicks
        buffer.cut(excess, flicks(len(audio)) - flicks(len(newest)))
        return newest

    def _put_utilization(self, session_id: str | None, percents: list[float]) -> None:
        self._put(
            session_id,
            ("AverageBufferUtilization", sum(percents) / len(percents), "Percent"),
            ("MaxBufferUtilization", max(percents), "Percent"),
            ("ActiveBuffers", len(percents), "Count"),
        )

    def _emit_overflow_metric(self, session_id: str | None, count: int = 1) -> None:
        self._put(session_id, ("BufferOverflow", count, "Count"))

    def _put(self, session_id: str | None, *metrics: tuple[str, float, str]) -> None:
        if self.cloudwatch_client is None:
            return
        data: list[dict[str, Any]] = [
            {"MetricName": name, "Value": float(value), "Unit": unit} for name, value, unit in metrics
        ]
        if session_id is not None:
            for datum in data:
                datum["Dimensions"] = [{"Name": "SessionId", "Value": session_id}]
        try:
            self.cloudwatch_client.put_metric_data(Namespace=self.namespace, MetricData=data)
        except Exception:  # noqa: BLE001 - whatever a metric client raises must not stop the audio
            self.failed_metric_calls += 1
