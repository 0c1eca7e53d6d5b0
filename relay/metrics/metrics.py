"""Metric data on its way to CloudWatch: merged, bounded, and split into requests. Shapes are PutMetricData's.

The series of a datum:

- A datum without a session counts in its series.
- A datum of `SUMMED_METRICS` with a session counts in the series without the session, which is therefore the sum over
  all sessions. If `session_dimension` is on, it also counts in the session's own series.
- Any other datum with a session, such as a utilization, counts only in the session's own series, and only if
  `session_dimension` is on. In the series over all sessions, an average of one session would distort the average of
  all. Add a datum without a session for that series.

Invariants:
- Sum, SampleCount, minimum, maximum and percentiles of the data taken are exactly those of the data added.
- At most `max_datums` are held. Beyond that, the oldest is dropped. `measurements_not_sent` counts the losses, and the
  metric `MetricsNotSent` reports them with the next data that is sent.
- `add` is O(1), however much is held.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, NotRequired, TypedDict

Unit = Literal["Count", "Percent", "Milliseconds", "Seconds", "Bytes"]
"""CloudWatch units that the relay uses."""

SESSION_DIMENSION = "SessionId"
"""The dimension that names a session."""

SUMMED_METRICS = frozenset({"BufferOverflow"})
"""Metrics whose value over all sessions is the sum of the sessions' values. Any other needs its own datum."""

METRICS_NOT_SENT = "MetricsNotSent"
"""The metric that counts lost measurements: dropped for lack of room, refused, or not a number."""

MAX_DISTINCT_VALUES = 150
"""The most values in one datum; docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html"""

MAX_MAGNITUDE = 2.0**360
"""CloudWatch refuses larger values, NaN and infinity; same source."""

MAX_DATUMS = 5_000
"""The most datums held while CloudWatch can't be reached: hours of data of a small relay, at most about 60 MB."""

MAX_REQUEST_DATUMS = 100
MAX_REQUEST_VALUES = 1_500
"""The size of one request. CloudWatch accepts 1000 datums and 1 MB, but serializing those would block the event loop
for 50 ms or more, which listeners would hear. These limits block it for about 10 ms and give at most some 200 KB."""


class Dimension(TypedDict):
    """A name and a value that distinguish a series."""

    Name: str
    Value: str


class MetricDatum(TypedDict):
    """One measurement (`Value`), or several: `Counts[i]` of them had the value `Values[i]`."""

    MetricName: str
    Unit: Unit
    Value: NotRequired[float]
    Values: NotRequired[Sequence[float]]
    Counts: NotRequired[Sequence[float]]
    Dimensions: NotRequired[Sequence[Dimension]]


class MergedDatum(TypedDict):
    """Measurements of one series in the form that is sent: `Counts[i]` of them had the value `Values[i]`."""

    MetricName: str
    Unit: Unit
    Dimensions: list[Dimension]
    Timestamp: datetime
    Values: list[float]
    Counts: list[float]


_Series = tuple[str, Unit, tuple[tuple[str, str], ...]]
_Values = dict[float, int]


class MetricBatch:
    """Collects measurements between two flushes.

    Args:
        session_dimension: Whether sessions have their own series.
        max_datums: The most datums held, at least 1.

    Attributes:
        measurements_not_sent: How many measurements were lost since the start.
    """

    def __init__(self, *, session_dimension: bool, max_datums: int = MAX_DATUMS) -> None:
        self.measurements_not_sent = 0
        self._session_dimension = session_dimension
        self._max_datums = max_datums
        # From oldest to newest: put back, full, and still growing datums (the latter also oldest first).
        self._returned: deque[MergedDatum] = deque()
        self._full: deque[tuple[_Series, _Values]] = deque()
        self._growing: dict[_Series, _Values] = {}
        self._unreported = 0

    def __len__(self) -> int:
        return len(self._returned) + len(self._full) + len(self._growing)

    @property
    def measurements_held(self) -> int:
        """Number of measurements that wait to be sent."""
        collected = (*self._full, *self._growing.items())
        return sum(map(_measurements, self._returned)) + sum(sum(values.values()) for _, values in collected)

    def add(self, datum: MetricDatum) -> None:
        """Count a datum in its series by the module's rules, in O(1) for each of its values.

        A value that CloudWatch would refuse counts as not sent, because it would make a whole request fail.
        """
        values = datum["Values"] if "Values" in datum else [datum["Value"]]
        counts = datum["Counts"] if "Counts" in datum else [1] * len(values)
        dimensions = tuple((dimension["Name"], dimension["Value"]) for dimension in datum.get("Dimensions", ()))
        all_series = list(self._series(datum["MetricName"], datum["Unit"], dimensions))
        for number, occurred in zip(values, counts, strict=True):
            value, count = float(number), int(occurred)
            if not (math.isfinite(value) and abs(value) <= MAX_MAGNITUDE):
                self.lose(count)
                continue
            for series in all_series:
                self._count(series, value, count)

    def take(self, now: datetime) -> list[MergedDatum]:
        """Remove and return everything held, oldest first.

        Data added since the last `take` gets the timestamp `now`. Data that was put back keeps its own.
        """
        data = list(self._returned)
        data += [_merged(series, values, now) for series, values in (*self._full, *self._growing.items())]
        if self._unreported:
            data.append(_merged((METRICS_NOT_SENT, "Count", ()), {float(self._unreported): 1}, now))
        self._unreported = 0
        self._clear()
        return data

    def put_back(self, data: Sequence[MergedDatum]) -> None:
        """Hold data again that was taken and could not be sent, before everything added since."""
        self._unreported += _reported_losses(data)
        self._returned.extendleft(datum for datum in reversed(data) if datum["MetricName"] != METRICS_NOT_SENT)
        self._make_room()

    def give_up(self, data: Sequence[MergedDatum]) -> None:
        """Count data as lost that was taken and will never be sent."""
        self._unreported += _reported_losses(data)
        self.lose(sum(_measurements(datum) for datum in data if datum["MetricName"] != METRICS_NOT_SENT))

    def lose(self, measurements: int) -> None:
        """Count measurements that were lost before they could be added."""
        self.measurements_not_sent += measurements
        self._unreported += measurements

    def _clear(self) -> None:
        self._returned.clear()
        self._full.clear()
        self._growing.clear()

    def _series(self, name: str, unit: Unit, dimensions: tuple[tuple[str, str], ...]) -> Iterator[_Series]:
        without_session = tuple(dimension for dimension in dimensions if dimension[0] != SESSION_DIMENSION)
        names_session = without_session != dimensions
        if not names_session or name in SUMMED_METRICS:
            yield name, unit, without_session
        if names_session and self._session_dimension:
            yield name, unit, dimensions

    def _count(self, series: _Series, value: float, count: int) -> None:
        values = self._growing.get(series)
        if values is not None and len(values) == MAX_DISTINCT_VALUES and value not in values:
            self._full.append((series, self._growing.pop(series)))
            values = None
        if values is None:
            values = self._growing[series] = {}
            self._make_room()
        values[value] = values.get(value, 0) + count

    def _make_room(self) -> None:
        while len(self) > self._max_datums:
            if self._returned:
                self.lose(_measurements(self._returned.popleft()))
            elif self._full:
                self.lose(sum(self._full.popleft()[1].values()))
            else:
                self.lose(sum(self._growing.pop(next(iter(self._growing))).values()))


def requests(data: Iterable[MergedDatum]) -> Iterator[list[MergedDatum]]:
    """Split `data` into requests of at most `MAX_REQUEST_DATUMS` datums and `MAX_REQUEST_VALUES` values, in order."""
    request: list[MergedDatum] = []
    values = 0
    for datum in data:
        values += len(datum["Values"])
        if request and (len(request) == MAX_REQUEST_DATUMS or values > MAX_REQUEST_VALUES):
            yield request
            request, values = [], len(datum["Values"])
        request.append(datum)
    if request:
        yield request


def _merged(series: _Series, values: _Values, timestamp: datetime) -> MergedDatum:
    name, unit, dimensions = series
    return {
        "MetricName": name,
        "Unit": unit,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
        "Timestamp": timestamp,
        "Values": list(values),
        "Counts": [float(count) for count in values.values()],
    }


def _measurements(datum: MergedDatum) -> int:
    return int(sum(datum["Counts"]))


def _reported_losses(data: Iterable[MergedDatum]) -> int:
    return sum(int(datum["Values"][0]) for datum in data if datum["MetricName"] == METRICS_NOT_SENT)
