"""CloudWatch for tests: moto's HTTP server and a reader of its metrics."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from tests.support.ports import free_port

if TYPE_CHECKING:
    from types_aiobotocore_cloudwatch import CloudWatchClient

REGION = "eu-central-1"


@contextmanager
def cloudwatch_endpoint() -> Iterator[str]:
    """Serve CloudWatch on a free loopback port, and yield the URL."""
    server = ThreadedMotoServer("127.0.0.1", port=free_port(), verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


class CloudWatchReader:
    """Reads the metrics that CloudWatch received."""

    def __init__(self, client: "CloudWatchClient") -> None:
        self.client = client

    async def statistics(self, namespace: str, name: str, session: str | None = None) -> dict[str, float]:
        """Return Sum, SampleCount, Minimum and Maximum of a series over the last hours, or 0 for each without data."""
        now = datetime.now(UTC)
        answer = await self.client.get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[] if session is None else [{"Name": "SessionId", "Value": session}],
            StartTime=now - timedelta(hours=2),
            EndTime=now + timedelta(hours=2),
            Period=6 * 3600,
            Statistics=["Sum", "SampleCount", "Minimum", "Maximum"],
        )
        if not answer["Datapoints"]:
            return {"Sum": 0, "SampleCount": 0, "Minimum": 0, "Maximum": 0}
        (point,) = answer["Datapoints"]
        return {
            "Sum": point["Sum"],
            "SampleCount": point["SampleCount"],
            "Minimum": point["Minimum"],
            "Maximum": point["Maximum"],
        }

    async def series(self, namespace: str) -> set[tuple[str, str]]:
        """Return (name, session) of every series; the session is "" if the series has none."""
        pages = self.client.get_paginator("list_metrics").paginate(Namespace=namespace)
        return {
            (metric["MetricName"], "".join(dimension["Value"] for dimension in metric["Dimensions"]))
            async for page in pages
            for metric in page["Metrics"]
        }


@asynccontextmanager
async def cloudwatch_reader(endpoint: str) -> AsyncIterator[CloudWatchReader]:
    """Connect a reader to the endpoint, which accepts any credentials."""
    async with get_session().create_client(
        "cloudwatch",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",  # noqa: S106 - moto accepts any credentials
    ) as client:
        yield CloudWatchReader(client)
