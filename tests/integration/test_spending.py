"""Limits per address on costly but valid requests: other addresses are unaffected, and the log names the address."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.processes import RelayProcess, relay_process

GREEDY, OTHER = "192.0.2.1", "192.0.2.2"


def ask(relay: RelayProcess, target: str, address: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(urlsplit(relay.url).netloc, timeout=30)) as connection:
        connection.request("GET", target, headers={"X-Forwarded-For": address})
        response = connection.getresponse()
        body = response.read()
    if response.status in (429, 503):
        assert 2 <= int(response.headers["Retry-After"]) <= 10
    return response.status, body


@asynccontextmanager
async def client(relay: RelayProcess, address: str, target: str = "/v1/listen/ev1") -> AsyncIterator[ClientConnection]:
    async with connect(
        relay.websocket_url + target,
        subprotocols=[Subprotocol("relay.v1")],
        additional_headers={"X-Forwarded-For": address},
        compression=None,
        proxy=None,
    ) as connection:
        yield connection


async def until_told(connection: ClientConnection, message_type: str) -> None:
    async for message in connection:
        if isinstance(message, str) and json.loads(message)["type"] == message_type:
            return


async def named(relay: RelayProcess) -> dict[str, list[str]]:
    """Stop the relay, and return the addresses that the log names for each limit."""
    await relay.terminate()
    applied = [record for record in relay.log if record["event"] == "limits were applied"]
    refused = [record for record in relay.log if record["event"] == "an address was refused"]
    limits = {limit for record in applied for limit in record if limit.startswith("max_")}
    return {limit: [record["client"] for record in refused if record["reason"] == limit] for limit in limits}


async def test_codes_that_have_to_be_drawn_have_a_rate_and_kept_ones_do_not() -> None:
    async with relay_process(RELAY_LIMITS_MAX_COSTLY_REQUESTS_PER_SECOND_PER_ADDRESS="1") as relay:
        _, picture = await asyncio.to_thread(ask, relay, "/qr/listen/first.svg", GREEDY)
        statuses = [(await asyncio.to_thread(ask, relay, f"/qr/listen/s{n}.svg", GREEDY))[0] for n in range(30)]
        assert set(statuses) == {200, 429}
        assert await asyncio.to_thread(ask, relay, "/qr/listen/first.svg", GREEDY) == (200, picture)
        assert (await asyncio.to_thread(ask, relay, "/qr/listen/other.svg", OTHER))[0] == 200
        assert (await asyncio.to_thread(ask, relay, "/listen/ev1", GREEDY))[0] == 200, "pages have a rate of their own"
        assert await named(relay) == {"max_costly_requests_per_second_per_address": [GREEDY]}


async def test_pages_and_metrics_have_a_rate_and_health_does_not() -> None:
    limits = {
        "RELAY_LIMITS_MAX_REQUESTS_PER_SECOND_PER_ADDRESS": "1",
        "RELAY_LIMITS_MAX_COSTLY_REQUESTS_PER_SECOND": "1",
        "RELAY_PROMETHEUS_ENABLED": "true",
    }
    async with relay_process(**limits) as relay:
        metrics = [(await asyncio.to_thread(ask, relay, "/metrics", f"192.0.2.{n}"))[0] for n in range(10, 20)]
        assert metrics[0] == 200
        assert 503 in metrics, "all addresses together"
        pages = [(await asyncio.to_thread(ask, relay, "/", GREEDY))[0] for _ in range(40)]
        assert set(pages) == {200, 429}
        assert (await asyncio.to_thread(ask, relay, "/", OTHER))[0] == 200
        health = {(await asyncio.to_thread(ask, relay, "/healthz", GREEDY))[0] for _ in range(40)}
        assert health == {200}


async def test_joins_have_a_rate() -> None:
    async with relay_process(RELAY_LIMITS_MAX_JOINS_PER_SECOND_PER_ADDRESS="1") as relay, AsyncExitStack() as inside:
        with pytest.raises(InvalidStatus) as caught:
            for number in range(100):
                await inside.enter_async_context(client(relay, GREEDY, f"/v1/listen/ev{number}?burst_ms=10000"))
        assert number >= 10, "ten seconds' worth may come at once"
        assert caught.value.response.status_code == 429
        await inside.enter_async_context(client(relay, OTHER))
        assert await named(relay) == {"max_joins_per_second_per_address": [GREEDY]}


async def test_who_switches_too_often_is_told() -> None:
    async with relay_process() as relay, client(relay, GREEDY) as listener, client(relay, OTHER, "/v1/listen/ev1/de"):
        with pytest.raises(ConnectionClosed) as caught:
            for number in range(40):
                channel = ("de", "main")[number % 2]
                await listener.send(json.dumps({"type": "switch", "channel": channel}))
            async for _ in listener:
                pass
            await listener.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
            1008,
            "This exceeds the relay's limit max_switches_per_second of 5.",
        )


async def test_listeners_that_each_keep_within_their_budget_wait_for_that_of_their_address() -> None:
    limits = {
        "RELAY_LIMITS_MAX_CONTROL_MESSAGES_PER_SECOND_PER_ADDRESS": "20",
        "RELAY_LIMITS_MAX_SWITCHES_PER_SECOND_PER_ADDRESS": "1",
    }
    async with relay_process(**limits) as relay, AsyncExitStack() as inside:
        crowd = [await inside.enter_async_context(client(relay, GREEDY)) for _ in range(10)]
        other = await inside.enter_async_context(client(relay, OTHER))
        switched, are_ten = 0, asyncio.Event()

        async def talk(listener: ClientConnection) -> None:
            nonlocal switched
            for _ in range(5):
                await listener.send('{"type":"switch","channel":"main"}')
                await until_told(listener, "hello")
                switched += 1
                if switched == 10:
                    are_ten.set()

        async with asyncio.TaskGroup() as talking:
            talks = [talking.create_task(talk(listener)) for listener in crowd]
            await are_ten.wait()
            for _ in range(10):
                await other.send('{"type":"ping","id":1}')
                await until_told(other, "pong")
            assert switched < 50, "ten seconds' worth at once, then one a second"
            for each in talks:
                each.cancel()
        for listener in crowd[:5]:
            for _ in range(20):
                await listener.ping()
        await other.send('{"type":"ping","id":1}')
        await until_told(other, "pong")
        assert await named(relay) == {
            "max_switches_per_second_per_address": [GREEDY],
            "max_control_messages_per_second_per_address": [GREEDY],
        }
