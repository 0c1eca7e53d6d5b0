"""The cluster of config/cluster, with the processes that the compose file starts: NATS servers, relays and nginx."""

import asyncio
import http.client
import json
import re
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.protocol.wire import HEADER_BYTES
from tests.support.deployment import ADMIN_KEY, BROADCAST_KEY, Deployment, deployment
from tests.support.markdown import ROOT, commands_tested_by
from tests.support.operator import ask

pytestmark = [pytest.mark.timed, pytest.mark.long]


def monitored(cluster: Deployment, server: str, path: str) -> Any:
    """Return what a NATS server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.local.port(server, 8222), timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def get(cluster: Deployment, path: str, method: str = "GET") -> int:
    """Send a request through nginx, and return the status."""
    connection = http.client.HTTPSConnection(cluster.site, context=cluster.context, timeout=30)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


@asynccontextmanager
async def listening(cluster: Deployment, session: str) -> AsyncIterator[ClientConnection]:
    address = f"wss://{cluster.site}/v1/listen/{session}"
    async with connect(
        address, ssl=cluster.context, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None
    ) as client:
        assert json.loads(await client.recv())["type"] == "hello"
        yield client


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that no event reports."""
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.05)


async def tried(cluster: Deployment, path: str) -> list[str]:
    """Return the relays to which nginx sent the request for a path, in order."""
    line = re.compile(rf'"\w+ {path}" \d+ \S+ \S+ (.+?) [\d, -]+$', re.MULTILINE)

    async def is_logged() -> bool:
        return line.search(cluster.access_log) is not None

    await until(is_logged)
    found = line.search(cluster.access_log)
    assert found
    return [cluster.relay_of(address) for address in found[1].split(", ")]


async def is_one_of_three(cluster: Deployment, server: str) -> bool:
    """Whether a NATS server is connected to the two others, and knows the leader of JetStream."""
    others = set(cluster.local.named("nats")) - {server}
    routes = (await asyncio.to_thread(monitored, cluster, server, "/routez"))["routes"]
    group = (await asyncio.to_thread(monitored, cluster, server, "/jsz")).get("meta_cluster", {})
    return (
        {route["remote_name"] for route in routes} == others
        and bool(group.get("leader"))
        and group["cluster_size"] == 3
    )


async def test_three_nats_servers_are_one_and_nginx_reaches_every_relay(tmp_path: Path) -> None:
    async with deployment(tmp_path) as cluster:
        for server in cluster.local.named("nats"):
            await until(partial(is_one_of_three, cluster, server))
        for path in ("/healthz", "/readyz", "/metrics"):
            assert await asyncio.to_thread(get, cluster, path) == 403

        # nginx gives a new connection to a relay that has the fewest.
        sessions = [f"ev{number}" for number in range(9)]
        async with AsyncExitStack() as stack:
            for session in sessions:
                await stack.enter_async_context(listening(cluster, session))
        chosen = [tuple(await tried(cluster, f"/v1/listen/{session}")) for session in sessions]
        assert Counter(chosen) == {(relay,): 3 for relay in cluster.relays}

        # A relay that is gone costs no request. It is asked again each time, and comes back by itself.
        gone = cluster.relays[0]
        await cluster.local.stop(gone, signal.SIGKILL)
        paths = [f"/listen/gone{number}" for number in range(9)]
        assert [await asyncio.to_thread(get, cluster, path) for path in paths] == [200] * 9
        attempts = [await tried(cluster, path) for path in paths]
        assert any(relays[0] == gone for relays in attempts), attempts
        assert all(relays[-1] != gone for relays in attempts), attempts

        # What is not a GET is sent once. A relay that answers says that it needs a credential.
        paths = [f"/v1/sessions/ev{number}" for number in range(9)]
        assert {await asyncio.to_thread(get, cluster, path, "DELETE") for path in paths} == {401, 502}
        assert [len(await tried(cluster, path)) for path in paths] == [1] * 9

        await cluster.local.start(gone)
        paths = [f"/listen/back{number}" for number in range(9)]
        assert [await asyncio.to_thread(get, cluster, path) for path in paths] == [200] * 9
        attempts = [await tried(cluster, path) for path in paths]
        assert {relays[0] for relays in attempts} == set(cluster.relays)
        assert [len(relays) for relays in attempts] == [1] * 9

        await asyncio.gather(*map(cluster.local.stop, cluster.relays))
        assert await asyncio.to_thread(get, cluster, "/listen/none") == 502


async def answer(cluster: Deployment, request: bytes) -> int:
    """Send a request through nginx exactly as written, and return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.local.port("nginx", 443), ssl=cluster.context)
    try:
        async with asyncio.timeout(30):
            writer.write(request)
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()


ATTACKS = (
    # A redirect that repeated this query would have a header too large for nginx: a failure of the relay in its eyes.
    (b"GET /listen/ev1/?" + b"q" * 6000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 308),
    # Bodies, which nginx keeps.
    (b"GET /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 200),
    (b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 405),
    (b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 405),
    (b"DELETE /v1/sessions/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 401),
    (b"POST /listen/ev1 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999, 413),
)


async def test_no_client_takes_a_relay_out_and_a_full_relay_leaves_listeners_to_the_others(tmp_path: Path) -> None:
    full = {"RELAY_LIMITS_MAX_CONNECTIONS": "1"}
    async with deployment(tmp_path, relay_1=full, relay_2=full) as cluster:
        for request, status in ATTACKS * 3:
            assert await answer(cluster, request) == status, request[:100]
        paths = [f"/listen/after{number}" for number in range(6)]
        assert [await asyncio.to_thread(get, cluster, path) for path in paths] == [200] * 6
        attempts = [await tried(cluster, path) for path in paths]
        assert {tuple(relays) for relays in attempts} == {(name,) for name in cluster.relays}

        async with AsyncExitStack() as stack:
            for _ in range(6):
                await stack.enter_async_context(listening(cluster, "ev1"))


FRAMES = [number.to_bytes(4, "big") * 160 for number in range(100)]
"""Frames of 20 ms, no two alike."""


@asynccontextmanager
async def listening_at(url: str, session: str) -> AsyncIterator[ClientConnection]:
    """Listen at one relay, without nginx."""
    address = f"{url.replace('http', 'ws', 1)}/v1/listen/{session}"
    async with connect(address, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None) as client:
        assert json.loads(await client.recv())["type"] == "hello"
        yield client


async def heard(client: ClientConnection) -> list[bytes]:
    """Return the audio that a listener receives until the relay closes the connection in order."""
    frames = list[bytes]()
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(60):
            while True:
                message = await client.recv()
                if isinstance(message, bytes):
                    frames.append(message[HEADER_BYTES:])
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1000
    return frames


async def test_what_one_relay_receives_through_nginx_is_heard_at_each(tmp_path: Path) -> None:
    async with deployment(tmp_path) as cluster, AsyncExitStack() as stack:
        listeners = [
            await stack.enter_async_context(listening_at(cluster.url(relay), "ev1")) for relay in cluster.relays
        ]
        listeners += [await stack.enter_async_context(listening(cluster, "ev1")) for _ in range(3)]
        broadcaster = await stack.enter_async_context(
            connect(
                f"wss://{cluster.site}/v1/broadcast/ev1",
                ssl=cluster.context,
                subprotocols=[Subprotocol("relay.v1")],
                additional_headers={"Authorization": f"Bearer {BROADCAST_KEY}"},
                compression=None,
                proxy=None,
            )
        )
        assert json.loads(await broadcaster.recv())["type"] == "hello"
        for frame in FRAMES:
            await broadcaster.send(frame)
        # Each relay answers for all of them.
        for relay in cluster.relays:

            async def lists_all(relay: str = relay) -> bool:
                answer = (await ask(cluster.url(relay), "GET", "/v1/sessions", ADMIN_KEY)).json
                channels = [channel for each in answer["sessions"] for channel in each["channels"]]
                return [(channel["state"], channel["listeners"]) for channel in channels] == [("live", 6)]

            await until(lists_all)
        await broadcaster.send('{"type":"end"}')
        assert await asyncio.gather(*map(heard, listeners)) == [FRAMES] * 6


async def test_the_command_of_the_guide_runs_the_cluster_until_ctrl_c() -> None:
    (command,) = commands_tested_by(__file__, "docs/guides/cluster.md")
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/python"
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(300):
            printed = b""
            while b"logs " not in printed:
                line = await process.stdout.readline()
                assert line, printed
                printed += line
            relays = re.findall(r"^relay-\d  (http:.+)$", printed.decode(), re.MULTILINE)
            assert len(relays) == 3
            for url in relays:
                assert (await asyncio.to_thread(urlopen, f"{url}/healthz")).status == 200
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
