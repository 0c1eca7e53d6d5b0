"""Two real relays on a real NATS server: operators, limits and metrics of the cluster."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.cloudwatch import REGION, cloudwatch_endpoint, cloudwatch_reader
from tests.support.live_session import broadcasting, listen_beside
from tests.support.nats import nats, relay_settings
from tests.support.operator import Reply, ask
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import closing, open_listener

KEY = "an-admin-key"
ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}
WAIT_SECONDS = 60.0
"""How long a test waits for what has to happen. It judges nothing."""


@asynccontextmanager
async def two_relays(directory: Path, **settings: str) -> AsyncIterator[list[RelayProcess]]:
    settings |= {"RELAY_ACCESS_ADMIN_KEY": KEY, "RELAY_BROADCAST_OPEN": "true"}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats(directory))
        relays = [
            await stack.enter_async_context(relay_process(**settings, **relay_settings(server.url, node=name)))
            for name in ("one", "two")
        ]
        yield relays


async def operate(relay: RelayProcess, method: str, path: str) -> Reply:
    return await ask(relay.url, method, f"/v1/sessions{path}", KEY)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that no event announces, such as that nodes know each other."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_an_operator_sees_and_ends_on_any_node_what_is_on_the_other(tmp_path: Path) -> None:
    async with two_relays(tmp_path) as (one, two), broadcasting(one, "ev1") as broadcaster:
        there = [await open_listener(two.url, "/v1/listen/ev1") for _ in range(2)]
        here = await open_listener(one.url, "/v1/listen/ev1")
        with closing([*there, here]):
            await broadcaster.send(10)
            for listener in (*there, here):
                await listener.until(lambda listener=listener: len(listener.frames) == 10)  # type: ignore[misc]
            for relay in (one, two):

                async def sees_all(relay: RelayProcess = relay) -> bool:
                    return bool((await operate(relay, "GET", "/ev1")).json["listeners"] == 3)

                await until(sees_all)
                shown = (await operate(relay, "GET", "/ev1")).json
                (channel,) = shown["channels"]
                assert (shown["silent_nodes"], shown["listeners"], channel["listeners"]) == ([], 3, 3)
                assert (channel["released_frames"], channel["delivered_frames"]) == (10, 30)
                assert channel["broadcaster"]["node"].startswith("one")
                nodes = sorted(each["node"][:3] for each in shown["worst_listeners"])
                assert nodes == ["one", "two", "two"]
            gone = there[0].hello["connection_id"]
            answer = (await operate(one, "DELETE", f"/ev1/connections/{gone}")).json
            assert (answer["disconnected"], answer["role"]) == (gone, "listen")
            await there[0].until_ended()
            assert there[0].close_code == 4501
            assert (await operate(two, "DELETE", "/ev1")).json == {
                "session": "ev1",
                "ended": ["main"],
                "silent_nodes": [],
            }
            for listener in (there[1], here):
                await listener.until_ended()
                assert (listener.close_code, len(listener.frames)) == (1000, 10)


async def test_a_relay_that_stops_while_nats_is_down_says_goodbye_to_its_listeners(tmp_path: Path) -> None:
    async with (
        nats(tmp_path) as server,
        relay_process(RELAY_BROADCAST_OPEN="true", **relay_settings(server.url)) as relay,
    ):
        # Channels that wait for their broadcasters. Another node would take them now, one after another.
        for number in range(4):
            async with broadcasting(relay, f"ev{number}"):
                pass
        listeners = await listen_beside(relay, "ev1", 3)
        with closing(listeners):
            await server.kill()

            async def is_refused() -> bool:
                url = f"{relay.websocket_url}/v1/broadcast/other"
                async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as broadcaster:
                    return bool(json.loads(await broadcaster.recv())["type"] == "error")

            await until(is_refused)
            assert await relay.terminate() == 0
            for listener in listeners:
                await listener.until_ended()
                assert listener.told[-1]["type"] == "goaway"
                assert listener.close_code == 1012


async def test_limits_count_the_clients_of_both_nodes(tmp_path: Path) -> None:
    settings = {"RELAY_LIMITS_MAX_LISTENERS_PER_SESSION": "3", "RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS": "2"}
    async with two_relays(tmp_path, **settings) as (one, two):
        with closing(await listen_beside(one, "ev1", 3)):
            await until(lambda: is_answered(two, "/v1/listen/ev1", 503))
            with closing(await listen_beside(two, "ev2", 1)):
                pass
        await until(lambda: is_answered(two, "/v1/listen/ev1", 101))
        async with client(one, "ev1"), client(one, "ev2"):
            await until(lambda: is_answered(two, "/v1/listen/ev3", 429))
            with closing(await listen_beside(two, "ev3", 1)):
                pass


def client(relay: RelayProcess, session: str) -> connect:
    """Connect a listener from another address."""
    return connect(f"{relay.websocket_url}/v1/listen/{session}", additional_headers=ELSEWHERE, proxy=None)


async def is_answered(relay: RelayProcess, path: str, status: int) -> bool:
    """Ask for a WebSocket, from another address, and leave. Return whether the relay answered with a status."""
    try:
        async with connect(f"{relay.websocket_url}{path}", additional_headers=ELSEWHERE, proxy=None):
            return status == HTTPStatus.SWITCHING_PROTOCOLS
    except InvalidStatus as error:
        return error.response.status_code == status


async def test_cloudwatch_has_the_levels_of_each_node_and_their_sum(tmp_path: Path) -> None:
    with cloudwatch_endpoint() as endpoint:
        settings = {
            "RELAY_CLOUDWATCH_ENABLED": "true",
            "RELAY_CLOUDWATCH_ENDPOINT_URL": endpoint,
            "RELAY_CLOUDWATCH_REGION": REGION,
            "RELAY_CLOUDWATCH_NAMESPACE": "Cluster",
            "RELAY_CLOUDWATCH_UTILIZATION_INTERVAL_SECONDS": "0.2",
            "RELAY_CLOUDWATCH_FLUSH_INTERVAL_SECONDS": "0.2",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        async with two_relays(tmp_path, **settings) as (one, two), cloudwatch_reader(endpoint) as reader:
            with closing([*await listen_beside(one, "ev1", 1), *await listen_beside(two, "ev1", 2)]):

                async def is_complete() -> bool:
                    nodes = [node[:3] for name, node in await reader.series("Cluster") if name == "Listeners"]
                    # Without a dimension, moto looks at all series of the name.
                    highest = (await reader.statistics("Cluster", "Listeners"))["Maximum"]
                    return (sorted(nodes), highest) == (["", "one", "two"], 3)

                await until(is_complete)
            series = await reader.series("Cluster")
            assert {node for name, node in series if name == "LoopLag"} == {""}
