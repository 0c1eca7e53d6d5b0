"""The bounded buffers of all listeners, and their metrics.

Invariants: No buffer ever holds more than its bound. A metric never delays or breaks audio. Nothing blocks.

In the server, this object alone owns the listeners' queues: `fan_out` fills them and the drain task empties them. It is
not thread-safe; use it from one event loop.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from relay.audio.amounts import AudioAmount, BufferCounters
from relay.audio.listener_buffer import ListenerBuffer, bounds
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat, Chunk, Codec
from relay.vocabulary.clock import Clock, relay_clock

DEFAULT_NAMESPACE = "AudioRelay"
"""The default CloudWatch namespace."""

_Shown = TypeVar("_Shown")


class MetricClient(Protocol):
    """An object with CloudWatch's `put_metric_data` that returns at once, such as the relay's batching reporter.

    boto3's client has this method too, but waits for the network. Do not use it with live audio.
    """

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> object:  # noqa: N803 - CloudWatch's names
        """Accept metric data. Audio waits for this call, so it must not block."""
        ...


class _BufferView(Mapping[str, _Shown]):
    """A live view of one property of each buffer, by connection id."""

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
    """Audio buffers for each listener, bounded in duration. A full buffer drops its oldest audio.

    Attributes:
        max_buffer_seconds: The default bound of a buffer.
        max_buffer_bytes: The same in bytes of 16 kHz mono 16-bit audio.
        cloudwatch_client: Receives the metrics; None to send none.
        namespace: The CloudWatch namespace of the metrics.
        buffers: The queue of `(audio_chunk, timestamp)` for each connection id, oldest first; a read-only live view.
        buffer_sizes: The bytes in the queue for each connection id; a read-only live view.
        overflow_count: Overflows of all buffers so far, including closed ones.
        failed_metric_calls: Calls of the client that raised an exception. Their metrics are lost; the audio is not.
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
        """Create a manager without buffers.

        Args:
            max_buffer_seconds: The bound of each buffer, in seconds of audio.
            cloudwatch_client: Receives the metrics; None to send none.
            namespace: The CloudWatch namespace of the metrics.
            clock: Returns the timestamps of plain audio, in seconds.

        Raises:
            ValueError: The bound is not a positive duration, or is shorter than one sample.
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
        """Overflows of all buffers so far, including closed ones."""
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
        """Create the buffer of a new listener. `fan_out` and `add_audio` add audio to it.

        Args:
            connection_id: The name of the buffer. It must not be in use.
            session_id: The session of the audio, for metrics.
            audio_format: The format of its bytes; 16 kHz mono 16-bit by default.
            max_buffer_seconds: The bound of this buffer; the manager's by default.
            is_bounded_in_chunks: Whether it also holds at most 400 chunks for each second of its bound.

        Raises:
            ValueError: The connection has a buffer already, or the bound is not a positive duration, or is shorter than
                one sample.
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
        """Add audio for one connection. Create its buffer if it has none.

        PCM larger than the whole buffer keeps its newest part, cut at a whole sample.

        Args:
            connection_id: The name of the buffer.
            audio_chunk: Audio in the buffer's format: any number of bytes of PCM, or one Opus packet. An empty chunk is
                not queued.
            session_id: The session of the audio, for metrics.
            duration_seconds: The duration, for audio whose bytes say nothing about time. Such a chunk can't be cut, and
                neither can an Opus packet. If it is larger than the whole buffer, it is dropped.

        Returns:
            True if nothing was lost, False if audio was dropped.

        Raises:
            AudioFaultError: The buffer holds Opus, and the chunk is not one well-formed packet.
        """
        buffer = self._buffers.get(connection_id) or self.open_buffer(connection_id, session_id=session_id)
        if session_id is not None:
            buffer.session_id = session_id
        if not audio_chunk:
            return True
        overflows_before = buffer.overflows
        if duration_seconds is not None:
            duration = round(duration_seconds * FLICKS_PER_SECOND)
        elif buffer.audio_format.codec is Codec.PCM_S16LE:
            audio_chunk = self._cut_to_bound(buffer, audio_chunk)
            duration = buffer.audio_format.flicks(len(audio_chunk))
        else:
            duration = buffer.audio_format.measure(audio_chunk).flicks
        buffer.push(Chunk(audio_chunk, self._clock(), duration))
        if buffer.overflows == overflows_before:
            return True
        self._emit_overflow_metric(session_id)
        return False

    def fan_out(
        self, chunk: Chunk, buffers: Iterable[ListenerBuffer], session_id: str | None = None
    ) -> tuple[int, AudioAmount]:
        """Add one shared chunk to many buffers. This is the server's hot path. Closed buffers stay closed.

        It makes at most one metric call, however many buffers overflow.

        Args:
            chunk: The chunk, with its timestamp and duration.
            buffers: The buffers to add it to.
            session_id: The session of the audio, for metrics.

        Returns:
            How many buffers overflowed, and how much they dropped in total.
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
        """Return the audio held for a connection, oldest first, without removing it."""
        buffer = self._buffers.get(connection_id)
        return [] if buffer is None else [chunk[0] for chunk in buffer.chunks]

    def take_audio(self, connection_id: str, max_seconds: float | None = None) -> list[bytes]:
        """Remove and return audio to send now, oldest first.

        Args:
            connection_id: The name of the buffer. A buffer that does not exist holds nothing.
            max_seconds: The most audio to take, but always at least one chunk if there is one. None takes all.
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
        """Remove a connection and its audio. Its buffer accepts nothing more, even through other references."""
        buffer = self._buffers.pop(connection_id, None)
        if buffer is not None:
            self._closed_overflows += buffer.overflows
            buffer.close()

    def get_buffer_utilization(self, connection_id: str) -> float:
        """Return how full a connection's buffer is, from 0 to 100; 0 if it has none."""
        buffer = self._buffers.get(connection_id)
        return 0.0 if buffer is None else buffer.utilization_percent

    def get_buffer_duration(self, connection_id: str) -> float:
        """Return how many seconds of audio are held for a connection; 0 if it has no buffer."""
        buffer = self._buffers.get(connection_id)
        return 0.0 if buffer is None else buffer.held_flicks / FLICKS_PER_SECOND

    def get_counters(self, connection_id: str) -> BufferCounters:
        """Return what became of a connection's audio; all zero if it has no buffer."""
        buffer = self._buffers.get(connection_id)
        return BufferCounters() if buffer is None else buffer.counters

    def emit_utilization_metrics(self, session_id: str | None = None) -> None:
        """Send the average and maximum utilization of the buffers, and their number.

        Args:
            session_id: Limits the metrics to the buffers of this session and those without a session, and adds the
                session as a dimension. None includes all buffers and adds no dimension.
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
        """Send the same metrics for each session, with the session as a dimension. Omit buffers without a session."""
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
