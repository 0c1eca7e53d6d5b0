"""Metrics sent to a real HTTP endpoint and read back through CloudWatch's API, and the relay without an endpoint."""

import asyncio
import gzip
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.metrics import cloudwatch
from relay.metrics.cloudwatch import CloudWatchSender
from relay.metrics.metrics import MAX_DISTINCT_VALUES, MAX_REQUEST_VALUES, MergedDatum
from relay.metrics.reporter import MetricsReporter, SendError
from relay.settings.settings import CloudWatchSettings
from tests.support.cloudwatch import REGION, cloudwatch_endpoint, cloudwatch_reader

BUFFER_METRICS = ("ActiveBuffers", "AverageBufferUtilization", "BufferOverflow", "MaxBufferUtilization")
SECOND_BYTES = AudioBufferManager.BYTES_PER_SECOND


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with cloudwatch_endpoint() as url:
        yield url


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set fake credentials, ignore the machine's own, and keep botocore from the EC2 metadata address."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off retries within a request."""
    monkeypatch.setattr(cloudwatch, "MAX_ATTEMPTS", 1)


@pytest.fixture
def impatient(one_attempt: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow one short attempt per request. Only for endpoints that never answer, because a busy machine can be slow."""
    monkeypatch.setattr(cloudwatch, "READ_TIMEOUT_SECONDS", 0.2)


def settings(endpoint: str, namespace: str = "Test", **values: Any) -> CloudWatchSettings:
    quick = {"flush_interval_seconds": 0.02, "utilization_interval_seconds": 0.02, "region": REGION}
    return CloudWatchSettings(**quick | {"endpoint_url": endpoint, "namespace": namespace} | values)


def merged(name: str, values: list[float], counts: list[float] | None = None) -> MergedDatum:
    return {
        "MetricName": name,
        "Unit": "Count",
        "Dimensions": [],
        "Timestamp": datetime.now(UTC),
        "Values": values,
        "Counts": counts or [1.0] * len(values),
    }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no event covers several objects
            await asyncio.sleep(0.01)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("relay.")]


def reason(caplog: pytest.LogCaptureFixture) -> str:
    return next(str(record.__dict__["reason"]) for record in caplog.records if "reason" in record.__dict__)


@asynccontextmanager
async def running(reporter: MetricsReporter, sample: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    task = asyncio.ensure_future(reporter.run(sample))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


def fill(manager: AudioBufferManager, session: str, seconds: int) -> None:
    for _ in range(seconds):
        manager.add_audio(f"listener of {session}", bytes(SECOND_BYTES), session)


async def fill_two_sessions(endpoint: str, namespace: str, *, session_dimension: bool) -> None:
    chosen = settings(endpoint, namespace, session_dimension=session_dimension)
    async with CloudWatchSender(chosen) as sender:
        reporter = MetricsReporter(sender, chosen)
        manager = AudioBufferManager(max_buffer_seconds=10, cloudwatch_client=reporter)
        fill(manager, "ev1", 13)  # three seconds more than the buffer holds, one overflow each
        fill(manager, "ev2", 12)
        manager.clear_buffer("listener of ev2")
        fill(manager, "ev2", 5)
        manager.emit_utilization_metrics()
        manager.emit_utilization_metrics("ev2")
        await reporter.flush(10)


async def test_overflows_and_utilization_of_all_buffers_arrive(endpoint: str) -> None:
    await fill_two_sessions(endpoint, "All", session_dimension=False)
    async with cloudwatch_reader(endpoint) as told:
        assert await told.series("All") == {(name, "") for name in BUFFER_METRICS}
        found = {name: await told.statistics("All", name) for name in BUFFER_METRICS}
        assert found == {
            "ActiveBuffers": of(2, count=1, low=2, high=2),
            "AverageBufferUtilization": of(75, count=1, low=75, high=75),
            "BufferOverflow": of(5, count=5, low=1, high=1),
            "MaxBufferUtilization": of(100, count=1, low=100, high=100),
        }


async def test_sessions_have_series_of_their_own_beside_the_sum(endpoint: str) -> None:
    await fill_two_sessions(endpoint, "Sessions", session_dimension=True)
    async with cloudwatch_reader(endpoint) as told:
        assert await told.series("Sessions") == {
            ("BufferOverflow", "ev1"),
            *((name, session) for name in BUFFER_METRICS for session in ("", "ev2")),
        }
        assert await told.statistics("Sessions", "BufferOverflow", "ev1") == of(3, count=3, low=1, high=1)
        assert await told.statistics("Sessions", "BufferOverflow", "ev2") == of(2, count=2, low=1, high=1)
        # Without dimensions, moto adds up every series of the name: the sum, 5, and both sessions.
        assert await told.statistics("Sessions", "BufferOverflow") == of(5 + 3 + 2, count=10, low=1, high=1)
        average = "AverageBufferUtilization"
        assert await told.statistics("Sessions", average, "ev2") == of(50, count=1, low=50, high=50)
        assert await told.statistics("Sessions", average) == of(75 + 50, count=2, low=50, high=75)


def of(total: float, *, count: int, low: float, high: float) -> dict[str, float]:
    return {"Sum": total, "SampleCount": count, "Minimum": low, "Maximum": high}


async def test_nine_hundred_metrics_arrive(endpoint: str) -> None:
    chosen = settings(endpoint, "Many")
    async with CloudWatchSender(chosen) as sender:
        reporter = MetricsReporter(sender, chosen)
        for number in range(900):
            data = [{"MetricName": f"M{number:03}", "Value": number, "Unit": "Count"}]
            reporter.put_metric_data(Namespace="x", MetricData=data)
        await reporter.flush(20)
        assert reporter.measurements_held == 0
    async with cloudwatch_reader(endpoint) as told:
        assert await told.series("Many") == {(f"M{number:03}", "") for number in range(900)}
        assert (await told.statistics("Many", "M899"))["Sum"] == 899


async def test_one_request_of_nine_hundred_datums_is_taken(endpoint: str) -> None:
    async with CloudWatchSender(settings(endpoint)) as sender:
        await sender.send("OneRequest", [merged(f"M{number:03}", [1.0]) for number in range(900)])
    async with cloudwatch_reader(endpoint) as told:
        assert len(await told.series("OneRequest")) == 900


async def test_distributions_keep_count_sum_and_extremes(endpoint: str) -> None:
    chosen = settings(endpoint, "Distribution")
    values = [float(number % 200) for number in range(1000)]  # more distinct values than one datum holds
    async with CloudWatchSender(chosen) as sender:
        reporter = MetricsReporter(sender, chosen)
        for value in values:
            data = [{"MetricName": "Lag", "Value": value, "Unit": "Milliseconds"}]
            reporter.put_metric_data(Namespace="x", MetricData=data)
        await reporter.flush(20)
    async with cloudwatch_reader(endpoint) as told:
        assert await told.statistics("Distribution", "Lag") == of(sum(values), count=1000, low=0, high=199)


async def test_an_outage_loses_nothing_and_is_logged_once(
    endpoint: str, caplog: pytest.LogCaptureFixture, one_attempt: None
) -> None:
    caplog.set_level(logging.INFO)
    put = 0
    is_ticking = True

    def sample() -> None:
        nonlocal put
        if is_ticking:
            put += 1
            data = [{"MetricName": "Ticks", "Value": 1, "Unit": "Count"}]
            reporter.put_metric_data(Namespace="x", MetricData=data)

    async with Gate(endpoint) as gate, cloudwatch_reader(endpoint) as told:
        chosen = settings(gate.url, "Outage")

        async def all_arrived() -> None:
            async with asyncio.timeout(20):
                while (await told.statistics("Outage", "Ticks"))["Sum"] != put:  # noqa: ASYNC110 - CloudWatch has no event for it
                    await asyncio.sleep(0.05)

        async with CloudWatchSender(chosen) as sender:
            reporter = MetricsReporter(sender, chosen)
            async with running(reporter, sample):
                await until(lambda: gate.connections > 0 and put > 10)
                is_ticking = False
                await until(lambda: reporter.measurements_held == 0)
                await all_arrived()
                await gate.shut()

                is_ticking = True
                await until(lambda: len(messages(caplog)) == 1 and reporter.measurements_held > 20)
                await gate.open()
                await until(lambda: len(messages(caplog)) == 2)
                is_ticking = False
                await until(lambda: reporter.measurements_held == 0)
                await all_arrived()
    assert reporter.measurements_not_sent == 0
    assert messages(caplog) == ["metrics are not being sent", "metrics are being sent again"]
    assert reason(caplog).startswith(
        f'CloudWatch cannot be reached: Could not connect to the endpoint URL: "{gate.url}/"; '
    )


async def test_a_hanging_endpoint_delays_no_sample_and_no_end(
    caplog: pytest.LogCaptureFixture, impatient: None
) -> None:
    samples = 0

    def sample() -> None:
        nonlocal samples
        samples += 1

    async with Answering(lambda _head, _body: None) as hanging:
        chosen = settings(hanging.url)
        async with CloudWatchSender(chosen) as sender:
            reporter = MetricsReporter(sender, chosen)
            reporter.put_metric_data(Namespace="x", MetricData=[{"MetricName": "A", "Value": 1, "Unit": "Count"}])
            async with running(reporter, sample):
                await until(lambda: hanging.requests > 0)
                samples = 0
                await until(lambda: samples > 3)
                await until(lambda: len(messages(caplog)) > 0)
            await asyncio.wait_for(reporter.flush(0.1), 5)
            assert reporter.measurements_held == 1
    assert reason(caplog).startswith("CloudWatch cannot be reached: Read timeout on endpoint URL")


async def test_no_credentials_is_one_line_until_there_are_some(
    endpoint: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    chosen = settings(endpoint, "Credentials")
    samples = 0

    def sample() -> None:
        nonlocal samples
        samples += 1

    async with CloudWatchSender(chosen) as sender:
        reporter = MetricsReporter(sender, chosen)
        async with running(reporter, sample):
            await until(lambda: len(messages(caplog)) == 1)
            reporter.put_metric_data(Namespace="x", MetricData=[{"MetricName": "A", "Value": 1, "Unit": "Count"}])
            await until(lambda: samples > 10)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
            await until(lambda: len(messages(caplog)) == 2)
    assert messages(caplog) == ["metrics are not being sent", "metrics are being sent again"]
    assert reason(caplog).startswith("There are no usable AWS credentials (none were found): set ")
    async with cloudwatch_reader(endpoint) as told:
        assert (await told.statistics("Credentials", "A"))["Sum"] == 1


NO_CREDENTIALS = "There are no usable AWS credentials"


@pytest.mark.parametrize(
    ("unset", "environ", "region", "sentence"),
    [
        (["AWS_ACCESS_KEY_ID"], {}, REGION, f"{NO_CREDENTIALS} (none were found): set "),
        (["AWS_SECRET_ACCESS_KEY"], {}, REGION, f"{NO_CREDENTIALS} (Partial credentials found in env, missing: AWS_S"),
        ([], {"AWS_PROFILE": "nobody"}, REGION, f"{NO_CREDENTIALS} (The config profile (nobody) could not be found): "),
        ([], {}, None, "There is no AWS region: set cloudwatch.region, AWS_DEFAULT_REGION or "),
        ([], {}, "eu central", "CloudWatch cannot be reached: Provided region_name 'eu central' doesn't match"),
    ],
)
async def test_what_is_missing_is_said_before_anything_is_sent(
    unset: list[str], environ: dict[str, str], region: str | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in unset:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with CloudWatchSender(settings("http://127.0.0.1:9", region=region)) as sender:
        with pytest.raises(SendError) as caught:
            await sender.open()
    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(" set cloudwatch.enabled to false.")
    assert not caught.value.is_refusal


async def test_credentials_that_were_refused_are_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, one_attempt: None
) -> None:
    def answer(head: bytes, _body: bytes) -> bytes:
        return FORBIDDEN if b"Credential=wrong/" in head else SUCCESS

    async with Answering(answer) as server, CloudWatchSender(settings(server.url)) as sender:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
        with pytest.raises(SendError, match="CloudWatch answered AccessDenied: not you; check that the ") as caught:
            await sender.send("Test", [merged("A", [1.0])])
        assert not caught.value.is_refusal
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "right")
        await sender.send("Test", [merged("A", [1.0])])
        assert server.requests == 2


async def test_data_that_cloudwatch_refuses_is_a_refusal(endpoint: str) -> None:
    async with CloudWatchSender(settings(endpoint)) as sender:
        with pytest.raises(SendError, match="CloudWatch refused metric data: InvalidParameterValue: ") as caught:
            await sender.send("Test", [merged("A", [float("nan")])])
        assert caught.value.is_refusal
        with pytest.raises(SendError, match="Metric data does not have the form that CloudWatch needs: ") as caught:
            await sender.send("Test", [merged("", [1.0])])
        assert caught.value.is_refusal


async def test_an_answer_that_is_not_cloudwatchs_is_one_short_sentence(one_attempt: None) -> None:
    page = b"<html>\n" + b"<p>captive portal</p>\n" * 1000
    answers = iter([b"\xff\xfe", page])

    def answer(_head: bytes, _body: bytes) -> bytes:
        body = next(answers)
        return b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)

    async with Answering(answer) as server, CloudWatchSender(settings(server.url)) as sender:
        for _ in range(2):
            with pytest.raises(SendError) as caught:
                await sender.send("Test", [merged("A", [1.0])])
            assert len(str(caught.value)) < 1000
            assert "\n" not in str(caught.value)
            assert not caught.value.is_refusal


async def test_the_largest_request_is_compressed_and_far_below_the_limit() -> None:
    async with Answering(lambda _head, _body: SUCCESS) as server, CloudWatchSender(settings(server.url)) as sender:
        values = [number / 7 for number in range(MAX_DISTINCT_VALUES)]
        data = [merged("x" * 255, values) for _ in range(MAX_REQUEST_VALUES // MAX_DISTINCT_VALUES)]
        await sender.send("Test", data)
        assert b"content-encoding: gzip" in server.head.lower()
        assert len(server.body) < len(gzip.decompress(server.body)) < 1_000_000 / 5


async def test_cancelling_a_request_ends_it(impatient: None) -> None:
    async with Answering(lambda _head, _body: None) as hanging, CloudWatchSender(settings(hanging.url)) as sender:
        task = asyncio.ensure_future(sender.send("Test", [merged("A", [1.0])]))
        await until(lambda: hanging.requests > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, relay.metrics.cloudwatch; sys.exit('aiobotocore' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


SUCCESS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
)
_DENIED = b'{"__type": "AccessDenied", "message": "not you"}'
FORBIDDEN = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/x-amz-json-1.0\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_DENIED), _DENIED)
)


class LoopbackServer:
    """A TCP server for one test that keeps its port when it is shut and opened again."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=2**20)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
        await until(lambda: not self._writers)

    async def _serve(self, incoming: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self.converse(incoming, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def converse(self, incoming: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Gate(LoopbackServer):
    """Forwards everything to another endpoint while it is open."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._target = urlsplit(endpoint)

    async def converse(self, incoming: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, onwards = await asyncio.open_connection(self._target.hostname, self._target.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipe(incoming, onwards))
                tasks.create_task(pipe(answers, writer))
        except* ConnectionError:
            pass
        finally:
            onwards.close()


async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


class Answering(LoopbackServer):
    """Gives each request the answer that the test set; None means no answer."""

    def __init__(self, answer: Callable[[bytes, bytes], bytes | None]) -> None:
        super().__init__()
        self._answer = answer
        self.requests = 0
        self.head = b""
        self.body = b""

    async def converse(self, incoming: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = await incoming.readuntil(b"\r\n\r\n")
        length = next(line for line in self.head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        self.body = await incoming.readexactly(int(length.split(b":")[1]))
        self.requests += 1
        answer = self._answer(self.head, self.body)
        if answer is None:
            await incoming.read()
        else:
            writer.write(answer)
            await writer.drain()
