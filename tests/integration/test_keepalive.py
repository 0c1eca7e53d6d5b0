"""The relay notices peers that vanished, and keeps peers that are only slow."""

import asyncio

import pytest

from tests.support.fault_proxy import fault_proxy
from tests.support.live_session import broadcasting, check_accounts, listen_beside, on_both_loops
from tests.support.processes import RelayProcess
from tests.support.wire_listener import closing, open_listener

pytestmark = pytest.mark.timed

ASK_AFTER_SECONDS = 4
LIMIT_SECONDS = 2
STRICT_LIMIT_SECONDS = 5
"""The limit is longer than usual, because the answer waits behind a second of audio on a busy machine."""

LIMIT = {"RELAY_LISTENER_STALL_LIMIT_SECONDS": str(LIMIT_SECONDS)}


async def test_who_answers_no_ping_is_cut_off_and_who_does_is_kept() -> None:
    async def scenario(relay: RelayProcess) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answering, silent = await listen_beside(relay, "ev1", 2)
        with closing([answering, silent]):
            # A client that does not read cannot answer.
            silent.pause()
            cut_off = await relay.event("connection closed", seconds=30)
            assert cut_off["connection"] == silent.hello["connection_id"]
            assert cut_off["reason"].startswith("The client sent nothing for ")
            assert loop.time() - began >= ASK_AFTER_SECONDS + LIMIT_SECONDS - 0.5, "it was heard before it was greeted"
            assert not answering.has_ended

    await on_both_loops(scenario, **LIMIT)


async def test_a_broadcaster_that_is_far_ahead_is_not_read_and_not_given_up() -> None:
    async def scenario(relay: RelayProcess) -> None:
        listener = await open_listener(relay.url, "/v1/listen/ev1")
        with closing([listener]):
            async with broadcasting(relay, "ev1", "?rate=48000&channels=2", frame_bytes=3840) as broadcaster:
                loop = asyncio.get_running_loop()
                began = loop.time()
                await broadcaster.send(500)
                await broadcaster.end()
                held_seconds = loop.time() - began
                assert held_seconds > ASK_AFTER_SECONDS + LIMIT_SECONDS + 0.5, "the relay did not hold it back"
                await check_accounts([listener], broadcaster)
            assert listener.gaps == []
        assert all(record["event"] != "connection closed" for record in relay.log)

    await on_both_loops(scenario, **LIMIT)


@pytest.mark.parametrize("module", ["relay", "tests.support.strict_relay"])
async def test_who_reads_too_slowly_is_kept_though_its_socket_is_always_full(module: str) -> None:
    """The relay pings it once its socket takes data, so it stays connected even where that is no sign of life."""

    async def scenario(relay: RelayProcess) -> None:
        async with fault_proxy(relay.url) as network:
            network.down.line_bytes = 4096
            slow = await open_listener(network.url, "/v1/listen/ev1?buffer_ms=1000")
            with closing([slow]):
                async with broadcasting(relay, "ev1", "?rate=48000&channels=2", frame_bytes=3840) as broadcaster:
                    network.down.bytes_per_second = 96_000  # half of what is sent
                    await broadcaster.play(ASK_AFTER_SECONDS + STRICT_LIMIT_SECONDS + 3)
                    network.down.bytes_per_second = None
                    await broadcaster.end()
                    await check_accounts([slow], broadcaster)
                assert slow.gaps, "it was not too slow"

    await on_both_loops(scenario, module, RELAY_LISTENER_STALL_LIMIT_SECONDS=str(STRICT_LIMIT_SECONDS))
