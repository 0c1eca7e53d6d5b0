"""The relay's own figures: the fate of frames, who is connected, how late things are, and what listeners hear.

Invariants: Counters count where things happen; this module only adds them up. Reading them touches no audio and takes
constant time per channel. Listeners' lag is sampled every `SAMPLE_SECONDS`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from relay.hub.channel import Channel
from relay.hub.hub import Hub
from relay.hub.lag import LagMeter
from relay.metrics.distribution import Distribution
from relay.metrics.metrics import MetricDatum
from relay.metrics.table import Kind
from relay.metrics.vitals import Tally, Vitals
from relay.vocabulary.audio import Codec
from relay.vocabulary.clock import Clock
from relay.vocabulary.containers import Container
from relay.vocabulary.names import ChannelAddress

SAMPLE_SECONDS = 5.0
"""How often the lag of all listeners is measured. Each lagging listener takes a fraction of a microsecond."""

SAMPLES_FOR_A_SUMMARY = 2
"""Samples between two log entries of listeners' reports: ten seconds, as with overflows."""

MAX_TOLD_CHANNELS = 100
"""Channels that a summary of listeners' reports names, those with the most reports. No event has more languages."""

logger = logging.getLogger(__name__)


class VitalSigns:
    """Collects the figures of a hub; `run` is its task. `holders` have metrics of the table besides the hub's."""

    def __init__(self, hub: Hub, lag: LagMeter, clock: Clock, holders: Iterable[object] = ()) -> None:
        self._hub = hub
        self._holders = (hub, hub.manager, hub.overflows, hub.reports, hub.transcoding, *holders)
        self._lag = lag
        self._clock = clock
        self._listener_lag_ms = Distribution()
        self._emitted: dict[str, int] = {}
        self._emitted_distributions: dict[str, Distribution] = {}

    async def run(self) -> None:
        """Sample forever, and log listeners' reports."""
        samples = 0
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.sample()
            samples += 1
            if samples % SAMPLES_FOR_A_SUMMARY == 0:
                self.tell_reports()

    def sample(self) -> None:
        """Sample the lag of all listeners once."""
        now = self._clock()
        for channel in self._hub.directory:
            for group in channel.groups:
                group.note_lag(self._listener_lag_ms, now)

    def tell_reports(self) -> None:
        """Log what the listeners of each channel reported since the last time. Skip channels without reports.

        Without a broadcaster there is nothing to report, whatever a listener says.
        """
        told = [(channel, heard) for address, heard in self._hub.reports.take() if (channel := self._heard(address))]
        told.sort(key=lambda each: -len(each[1].buffer_ms))
        for channel, heard in told[:MAX_TOLD_CHANNELS]:
            place = {"session": channel.address.session, "channel": channel.address.channel}
            logger.info("listeners reported", extra={**place, **heard.fields()})
        if left_out := len(told[MAX_TOLD_CHANNELS:]):
            logger.info("listeners of more channels reported", extra={"channels": left_out})

    def _heard(self, address: ChannelAddress) -> Channel | None:
        """Return a channel if it has or had audio."""
        channel = self._hub.directory.find(address)
        return None if channel is None or channel.audio_format is None else channel

    def look(self) -> Vitals:
        """Return all current figures."""
        now = self._clock()
        frames = Tally()
        frames += self._hub.directory.forgotten
        leads: list[float] = []
        codec_listeners = Counter[Codec | Container]()
        for channel in self._hub.directory:
            frames += channel.tally
            for codec, stream in channel.streams.items():
                codec_listeners[codec] += stream.listener_count
            if channel.broadcaster is not None and channel.ingest is not None:
                leads.append(max(0.0, channel.ingest.lead_seconds(now)) * 1000)
        return Vitals(
            frames=frames,
            listeners=len(self._hub.listening),
            codec_listeners=codec_listeners,
            broadcasters=len(leads),
            sessions=sum(1 for _ in self._hub.directory.sessions),
            ingest_lead_ms=tuple(leads),
            loop_lag_ms=self._lag.every_ms,
            listener_lag_ms=self._listener_lag_ms,
            heard=self._hub.reports.everywhere,
            holders=self._holders,
        )

    def emit(self, put: Callable[..., object], namespace: str) -> None:
        """Pass what happened since the last time to `put`, CloudWatch's `put_metric_data`. Skip empty metrics."""
        put(Namespace=namespace, MetricData=list(self._news(self.look())))

    def _news(self, vitals: Vitals) -> Iterator[MetricDatum]:
        for metric, reading in vitals.readings():
            name = metric.cloudwatch
            if name is None or metric.is_sent_apart:
                continue
            if isinstance(reading, Distribution):
                before = self._emitted_distributions.get(name)
                news = reading if before is None else reading.since(before)
                self._emitted_distributions[name] = reading.copy()
                if pairs := list(news.values()):
                    values, occurred = zip(*pairs, strict=True)
                    yield {"MetricName": name, "Values": values, "Counts": occurred, "Unit": metric.unit}
            elif isinstance(reading, tuple):
                for level in reading:
                    yield {"MetricName": name, "Value": round(level), "Unit": metric.unit}
            elif isinstance(reading, int) and metric.kind is Kind.GAUGE:
                yield {"MetricName": name, "Value": reading, "Unit": metric.unit}
            elif isinstance(reading, int):
                if increase := reading - self._emitted.get(name, 0):
                    yield {"MetricName": name, "Value": increase, "Unit": metric.unit}
                self._emitted[name] = reading
