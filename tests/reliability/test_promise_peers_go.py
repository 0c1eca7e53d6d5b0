"""Promise 5: dead and stalled peers of every kind leave within 20 s, on both event loops, with and without TLS."""

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection

from relay.protocol.wire import Header
from tests.reliability.conftest import Figure
from tests.support.certificates import make_certificate
from tests.support.fault_proxy import FAULTS, FaultProxy, fault_proxy
from tests.support.live_session import LOOPS, broadcasting, greeted, on_both_loops
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import SMALL_BUFFER_BYTES, upgrade

pytestmark = pytest.mark.timed

GONE_SECONDS = 20.0
SLACK_SECONDS = 5.0
"""Allows for the relay's check interval and a busy machine."""


async def until_gone(network: FaultProxy) -> float:
    """Wait until the relay has no connection through a network, and return how many seconds that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while there := network.open_at_target:
        took = loop.time() - began
        assert took < GONE_SECONDS + SLACK_SECONDS, f"{there} connections are still there after {took:.0f} s"
        await asyncio.sleep(0.1)
    return loop.time() - began


async def play(broadcaster: ClientConnection, until: asyncio.Event) -> int:
    """Send frames in real time until the event is set, and return how many."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    while not until.is_set():
        await broadcaster.send(bytes(640))
        sent += 1
        await asyncio.sleep(began + sent * 0.02 - loop.time())
    await broadcaster.send('{"type":"end"}')
    return sent


async def listen(listener: ClientConnection) -> list[int]:
    """Return the numbers of all frames until the end."""
    return [Header.unpack(message).seq async for message in listener if isinstance(message, bytes)]


async def times_to_go(relay: RelayProcess, trusting: ssl.SSLContext | None) -> dict[str, float]:
    """Let networks fail beside a healthy listener, and return for each fault how long its peers took to leave."""
    async with AsyncExitStack() as stack:

        async def join(url: str, target: str) -> ClientConnection:
            return await stack.enter_async_context(greeted(url, target, trusting))

        broadcaster, healthy = await join(relay.url, "/v1/broadcast/ev1"), await join(relay.url, "/v1/listen/ev1")
        networks = {fault: await stack.enter_async_context(fault_proxy(relay.url)) for fault in FAULTS}
        for number, network in enumerate(networks.values()):
            for target in ("/v1/listen/ev1", "/v1/listen/quiet", f"/v1/broadcast/lost{number}"):
                await join(network.url, target)
            assert network.open_at_target == 3
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(play(broadcaster, done))
            listening = group.create_task(listen(healthy))
            try:
                for fault, network in networks.items():
                    FAULTS[fault](network)
                going = [until_gone(network) for network in networks.values()]
                times = dict(zip(FAULTS, await asyncio.gather(*going), strict=True))
            finally:
                done.set()
        assert listening.result() == list(range(playing.result())), "a healthy listener was disturbed"
    return times


async def test_dead_and_stalled_peers_go_within_twenty_seconds(figure: Figure, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = {
        "RELAY_SERVER_TLS_CERTIFICATE": str(certificate.certificate),
        "RELAY_SERVER_TLS_KEY": str(certificate.key),
    }
    async with AsyncExitStack() as stack:
        relays = [
            (await stack.enter_async_context(relay_process(RELAY_SERVER_LOOP=loop, **settings)), trusting)
            for loop in LOOPS
            for settings, trusting in (({}, None), (tls, certificate.trusting))
        ]
        times = await asyncio.gather(*(times_to_go(relay, trusting) for relay, trusting in relays))
        for relay, _ in relays:
            assert await relay.terminate() == 0
            assert "Traceback" not in relay.text
    worst = {fault: max(time[fault] for time in times) for fault in FAULTS}
    figure(
        "listeners, with audio and without, and broadcasters, on both event loops, with and without TLS: "
        + ", ".join(f"{fault} {seconds:.1f} s" for fault, seconds in worst.items())
    )


async def test_who_leaves_while_much_waits_for_him_leaves_no_error() -> None:
    async def scenario(relay: RelayProcess) -> None:
        sock, _, _ = await upgrade(relay.url, "/v1/listen/ev1", SMALL_BUFFER_BYTES)
        with sock:
            async with broadcasting(relay, "ev1", "?rate=48000&channels=2", frame_bytes=3840) as broadcaster:
                await broadcaster.play(1)
                sock.shutdown(socket.SHUT_WR)
                await broadcaster.play(0.5)
                async with asyncio.timeout(20):
                    while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                        pass
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text

    await on_both_loops(scenario)
