"""The relay's figures as an operator reads them: on `/metrics`, in the log, in CloudWatch."""

import asyncio
import json
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.client import broadcast
from relay.metrics.table import METRICS
from tests.support.operator import ask
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import closing, open_listener

pytestmark = pytest.mark.timed

FRAMES = 75
"""1.5 s of audio: still ahead of real time when the test reads the page, but not enough for backpressure."""


def fetch(relay: RelayProcess, path: str) -> tuple[int, str, str]:
    """Return status, content type and body of a page."""
    address = urlsplit(relay.url)
    connection = HTTPConnection(address.hostname or "", address.port or 0, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read().decode()
    finally:
        connection.close()


async def test_what_was_delivered_and_heard_is_read_from_metrics_and_the_log() -> None:
    async with relay_process(RELAY_PROMETHEUS_ENABLED="true") as relay:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            async with broadcast(relay.websocket_url, "ev1", reconnect=None) as broadcaster:
                for _ in range(FRAMES):
                    await broadcaster.send(bytes(640))
                await listener.until(lambda: len(listener.frames) == FRAMES)
                # 250 is the player's own total: 7 more than in its previous report.
                for underruns in (243, 250):
                    listener.send_text("stats", buffer_ms=80, underruns=underruns, playout_ms=130, jumps=0)
                listener.send_text("ping", id=1)
                await listener.until(lambda: any(message["type"] == "pong" for message in listener.told))
                status, content_type, body = await asyncio.to_thread(fetch, relay, "/metrics")
                report = await relay.event("listeners reported")
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
        if not sample.labels
    }
    assert (samples["relay_frames_in_total"], samples["relay_frames_delivered_total"]) == (FRAMES, FRAMES)
    assert (samples["relay_listeners"], samples["relay_broadcasters"], samples["relay_sessions"]) == (1, 1, 1)
    assert samples["relay_delivery_latency_seconds_count"] == FRAMES
    assert 0 < samples["relay_ingest_lead_seconds"] <= 1.5
    assert samples["relay_loop_lag_seconds_count"] > 0
    assert samples["relay_listener_underruns_total"] == 250
    assert samples["relay_listener_playout_seconds_sum"] == 0.26
    assert (report["session"], report["channel"], report["reports"], report["underruns"]) == ("ev1", "main", 2, 250)


async def test_each_count_is_on_the_page_and_grows() -> None:
    """This includes counts that seldom grow, such as failures to reach CloudWatch."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    settings = {
        "RELAY_CLOUDWATCH_ENABLED": "true",
        "RELAY_CLOUDWATCH_ENDPOINT_URL": endpoint,
        "AWS_REGION": "eu-central-1",
    }
    settings |= {
        "RELAY_PROMETHEUS_ENABLED": "true",
        "RELAY_ACCESS_SESSIONS": "ev1",
        "RELAY_BROADCAST_OPEN": "true",
    }
    async with relay_process(**settings) as relay:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            listener.send_text("of the future")
            listener.send_text("stats", buffer_ms="much")
            listener.send_text("ping", id=1)
            await listener.until(lambda: any(message["type"] == "pong" for message in listener.told))
        await relay.event("connection closed", code=1006)
        assert (await ask(relay.url, "GET", "/nothing")).status == 404
        assert (await ask(relay.url, "GET", "/", Content_Length="1")).status == 400
        assert (
            await ask(relay.url, "GET", "/v1/listen/closed", Upgrade="websocket", Connection="upgrade")
        ).status == 401
        body = (await ask(relay.url, "GET", "/metrics")).body
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert {metric.prometheus for metric in METRICS if metric.prometheus} <= set(families)
    counted = {
        (sample.name.removesuffix("_total"), *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    expected = [
        *[("relay_messages_ignored",), ("relay_listener_reports_malformed",), ("relay_closings", "1006", "listen")],
        *[("relay_http_responses", "404"), ("relay_http_responses", "401"), ("relay_http_responses", "101")],
        *[("relay_requests_unreadable", "body"), ("relay_refusals", "no such session")],
    ]
    assert {each: counted[each] for each in expected} == dict.fromkeys(expected, 1)


async def test_nobody_reads_metrics_that_were_not_asked_for() -> None:
    async with relay_process() as relay:
        status, _, body = await asyncio.to_thread(fetch, relay, "/metrics")
    assert status == 404
    assert "relay_" not in json.dumps(body)
