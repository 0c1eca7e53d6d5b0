"""Peers that exceed their budgets: the relay names the limit, and nobody else suffers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.typing import Subprotocol

from relay.server.intake import PIECE_BYTES
from tests.support.floods import FLOODERS, FLOODS, frames
from tests.support.live_session import (
    LOOPS,
    Broadcaster,
    Lateness,
    applied_limits,
    ask_repeatedly,
    broadcasting,
    check_accounts,
    check_prompt,
    check_untouched,
    listen_beside,
    resident_bytes,
)
from tests.support.processes import RelayProcess, relay_process
from tests.support.tries import best_of_three
from tests.support.wire_listener import WireListener, closing, is_reset, upgrade

pytestmark = pytest.mark.timed


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("flooder", FLOODERS)
@best_of_three
async def test_a_flood_from_one_who_reads_nothing_stops_nobody_else(
    loop: str, flooder: str, lateness: Lateness
) -> None:
    async with relay_process(RELAY_SERVER_LOOP=loop) as relay:
        took_ms, listeners, broadcaster = await flood_beside_listeners(relay, FLOODERS[flooder])
        check_prompt(took_ms, lateness)
        check_untouched(listeners, broadcaster, lateness)


async def flood_beside_listeners(
    relay: RelayProcess, flooder: str
) -> tuple[list[float], list[WireListener], Broadcaster]:
    """Send every flood beside listeners that read; return the answer times in ms, the listeners and the source."""
    listeners = await listen_beside(relay, "ev1", 10)
    with closing(listeners):
        resident_before = resident_bytes(relay)
        async with broadcasting(relay, "ev1") as broadcaster, asyncio.TaskGroup() as group:
            playing = group.create_task(broadcaster.play(3.2))
            asking = group.create_task(ask_repeatedly(listeners[0], 90))
            resident = [await send_flood(relay, flooder, flood, 0.4) for flood in FLOODS.values()]
            took_ms = await asking
            await playing
            await broadcaster.end()
            await check_accounts(listeners, broadcaster)
    assert max(resident) - resident_before <= 4e6, "what a peer does not read piles up"
    assert all(listener.gaps == [] for listener in listeners)
    return took_ms, listeners, broadcaster


async def send_flood(relay: RelayProcess, target: str, flood: bytes, seconds: float) -> int:
    """Connect, send as much as the relay accepts, read nothing, and return the relay's memory during the connection."""
    sock, _, _ = await upgrade(relay.url, target)
    with sock:
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                while True:
                    await asyncio.get_running_loop().sock_sendall(sock, flood)
                    # Even if the relay reads fast, this process must still read the answers to others.
                    await asyncio.sleep(0)
        return resident_bytes(relay)


@asynccontextmanager
async def client(relay: RelayProcess, target: str) -> AsyncIterator[ClientConnection]:
    address = relay.websocket_url + target
    async with connect(address, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None) as connection:
        yield connection


@pytest.mark.parametrize("target", ["/v1/listen/ev1", "/v1/broadcast/ev1"])
@pytest.mark.parametrize(
    ("flood", "limit"),
    [
        ("empty pings", "max_pings_per_second"),
        ("pongs", "max_pings_per_second"),
        ("texts", "max_texts_per_second"),
        ("fragments", "max_fragments_per_second"),
    ],
)
async def test_who_is_over_a_budget_is_told_which(target: str, flood: str, limit: str) -> None:
    setting = {f"RELAY_LIMITS_{limit.upper()}": "20"}
    async with relay_process(**setting) as relay, client(relay, target) as flooder:
        flooder.transport.write(FLOODS[flood][:2000])
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionClosed) as caught:
                while True:
                    await flooder.recv()
        assert caught.value.rcvd is not None, "it was cut off without a word"
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
            1008,
            f"This exceeds the relay's limit {limit} of 20.",
        )
        assert (await applied_limits(relay))[limit] == 1
        assert relay.log[-1]["event"] == "relay stopped"


async def test_a_budget_that_is_kept_costs_nothing() -> None:
    settings = {"RELAY_LIMITS_MAX_PINGS_PER_SECOND": "20", "RELAY_LIMITS_MAX_TEXTS_PER_SECOND": "20"}
    async with relay_process(**settings) as relay:
        (listener,) = await listen_beside(relay, "ev1", 1)
        with closing([listener]):
            # Half are pings and half are texts; the burst of each kind is 40.
            await ask_repeatedly(listener, 100)
            assert not listener.has_ended


async def test_a_broadcaster_over_its_rate_is_read_no_faster_and_loses_nothing() -> None:
    async with relay_process(RELAY_LIMITS_MAX_AUDIO_MESSAGES_PER_SECOND="50") as relay:
        listeners = await listen_beside(relay, "ev1", 1)
        with closing(listeners):
            loop = asyncio.get_running_loop()
            # With frames of one millisecond, all 400 are hardly ahead of real time.
            async with broadcasting(relay, "ev1", frame_bytes=32) as broadcaster:
                began = loop.time()
                broadcaster.send_together(400)
                await broadcaster.end()
                await check_accounts(listeners, broadcaster)
                # The five-second burst of 250 passes at once. The other 150 pass at the rate, except for the last read.
                assert loop.time() - began >= (150 - PIECE_BYTES / 38) / 50
            assert listeners[0].gaps == []
        assert (await applied_limits(relay))["max_audio_messages_per_second"] >= 1


async def test_who_reads_nothing_of_what_he_asks_for_is_cut_off_before_it_piles_up() -> None:
    settings = {"RELAY_LIMITS_MAX_PINGS_PER_SECOND": "never", "RELAY_LIMITS_MAX_UNREAD_BYTES": "65536"}
    async with relay_process(**settings) as relay:
        sock, _, _ = await upgrade(relay.url, "/v1/listen/ev1", 4096)
        with sock:
            async with asyncio.timeout(10):
                with pytest.raises(ConnectionError):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(sock, FLOODS["pings"])
        assert (await applied_limits(relay))["max_unread_bytes"] == 1


async def test_who_does_not_hang_up_after_the_last_word_is_cut_off() -> None:
    faults = {
        "too large": b"\x82\xff" + (1 << 40).to_bytes(8) + bytes(4),
        "no beginning": frames(Opcode.CONT, b"x", 1),
        "no UTF-8": frames(Opcode.TEXT, b"\xff", 1),
        "a listener's audio": frames(Opcode.BINARY, b"\1\2", 1),
        "a close": frames(Opcode.CLOSE, b"\x03\xe8", 1),
    }
    async with relay_process() as relay, asyncio.TaskGroup() as group:
        for fault in faults.values():
            group.create_task(check_cut_off(relay, fault))


async def check_cut_off(relay: RelayProcess, fault: bytes) -> None:
    sock, _, _ = await upgrade(relay.url, "/v1/listen/ev1")
    with sock:
        await asyncio.get_running_loop().sock_sendall(sock, fault)
        assert await is_reset(sock), fault
