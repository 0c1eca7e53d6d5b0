"""The batching reporter: accepts metric data at once, without delaying audio, and sends it in the background.

Invariants:
- `put_metric_data` neither waits nor raises nor uses the network. What is held is bounded (`MetricBatch`).
- A slow or failing sender delays only the next flush, because sampling has its own task.
- A failure is logged once when it begins and once when it is over. Unsent data is kept and sent later with its original
  timestamp. Dropped data is counted, and the count is sent as `MetricsNotSent`.
- Cancellation passes through. Data that was being sent is kept, so a later `flush` may send it twice.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from relay.metrics.metrics import MergedDatum, MetricBatch, MetricDatum, requests
from relay.settings.settings import CloudWatchSettings
from relay.vocabulary.errors import RelayError

logger = logging.getLogger(__name__)

WallClock = Callable[[], datetime]
"""Returns the present time, with its time zone."""


class SendError(RelayError):
    """Metric data did not get through. The text says why, and what the operator can do.

    Attributes:
        is_refusal: Whether the same data would fail again, so that it is given up.
    """

    def __init__(self, sentence: str, *, is_refusal: bool = False) -> None:
        super().__init__(sentence)
        self.is_refusal = is_refusal


class MetricSender(Protocol):
    """Sends metric data. One call of `send` is one request."""

    async def open(self) -> None:
        """Prepare without sending anything, so that missing prerequisites are known at the start.

        Raises:
            SendError: Something is missing; `send` tries again.
        """

    async def send(self, namespace: str, data: Sequence[MergedDatum]) -> None:
        """Send one request, of the size that `relay.metrics.metrics.requests` yields.

        Raises:
            SendError: None of it got through.
        """


def utc_now() -> datetime:
    """Return the wall clock's time in UTC."""
    return datetime.now(UTC)


class MetricsReporter:
    """The server's CloudWatch client: the `cloudwatch_client` of the AudioBufferManager, and the task that sends.

    Args:
        sender: Sends the requests.
        settings: Namespace, intervals, and whether sessions have their own series.
        wall_clock: Returns the timestamps of the data.
    """

    def __init__(self, sender: MetricSender, settings: CloudWatchSettings, *, wall_clock: WallClock = utc_now) -> None:
        self._sender = sender
        self._settings = settings
        self._wall_clock = wall_clock
        self._batch = MetricBatch(session_dimension=settings.session_dimension)
        self._sending = asyncio.Lock()
        self._is_failing = False
        self._lost_before_failing = 0
        self._saw_malformed = False

    @property
    def measurements_held(self) -> int:
        """Number of measurements that wait to be sent."""
        return self._batch.measurements_held

    @property
    def measurements_not_sent(self) -> int:
        """Number of measurements that were lost since the start."""
        return self._batch.measurements_not_sent

    def put_metric_data(self, *, Namespace: str, MetricData: Iterable[Mapping[str, Any]]) -> None:  # noqa: ARG002, N803 - the names and keywords are CloudWatch's
        """Accept metric data. `relay.metrics.metrics` describes the series in which each datum counts.

        Args:
            Namespace: Ignored: the settings have the operator's namespace.
            MetricData: Datums with `MetricName`, `Value`, `Unit` and, optionally, `Dimensions`. A malformed datum
                counts as not sent.
        """
        for datum in MetricData:
            try:
                self._batch.add(cast("MetricDatum", datum))
            except (KeyError, TypeError, ValueError):
                self._batch.lose(1)
                if not self._saw_malformed:
                    self._saw_malformed = True
                    logger.exception("a metric datum is malformed; further ones are only counted")

    async def run(self, sample: Callable[[], None]) -> None:
        """Sample and flush at their intervals until cancelled. Call `flush` afterwards.

        Args:
            sample: Puts data that is measured rather than counted, for example with
                `AudioBufferManager.emit_utilization_metrics`. Its exceptions are logged.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample_forever(sample), name="metrics: sample")
            tasks.create_task(self._flush_forever(), name="metrics: flush")

    async def flush(self, timeout_seconds: float) -> None:
        """Send what is held within `timeout_seconds`, at the end of the process. Log the rest as lost.

        Cancellation keeps what was not sent.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._flush()
        except TimeoutError:
            logger.warning("the last metrics could not be sent in time", extra={"timeout_seconds": timeout_seconds})
        if unsent := self.measurements_held:
            logger.warning("metrics were lost because the relay stopped", extra={"measurements": unsent})

    async def _sample_forever(self, sample: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(self._settings.utilization_interval_seconds)
            try:
                sample()
            except Exception:
                logger.exception("metrics could not be sampled")

    async def _flush_forever(self) -> None:
        if (failure := await self._attempt(self._sender.open())) is not None:
            self._note(failure)
        while True:
            await asyncio.sleep(self._settings.flush_interval_seconds)
            await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            waiting = deque(requests(self._batch.take(self._wall_clock())))
            if not waiting:
                return
            try:
                failure = await self._send(waiting)
            finally:
                self._batch.put_back([datum for request in waiting for datum in request])
            self._note(failure)

    async def _send(self, waiting: deque[list[MergedDatum]]) -> SendError | None:
        """Send the requests, remove the settled ones from `waiting`, and return the last failure."""
        last_failure = None
        while waiting:
            failure = await self._attempt(self._sender.send(self._settings.namespace, waiting[0]))
            if failure is not None:
                last_failure = failure
                if not failure.is_refusal:
                    break
                self._batch.give_up(waiting[0])
            waiting.popleft()
        return last_failure

    async def _attempt(self, call: Awaitable[None]) -> SendError | None:
        try:
            await call
        except SendError as error:
            return error
        except Exception as error:
            # A bug in the sender. This data may have triggered it, so it is not sent again.
            logger.exception("the metric sender crashed")
            return SendError(f"The metric sender crashed: {error!r}.", is_refusal=True)
        return None

    def _note(self, failure: SendError | None) -> None:
        """Log that sending began to fail, or that it works again."""
        if failure is not None and not self._is_failing:
            self._lost_before_failing = self.measurements_not_sent
            logger.warning(
                "metrics are not being sent",
                extra={"reason": str(failure), "measurements_held": self.measurements_held},
            )
        elif failure is None and self._is_failing:
            lost = self.measurements_not_sent - self._lost_before_failing
            logger.info("metrics are being sent again", extra={"measurements_lost": lost})
        self._is_failing = failure is not None
