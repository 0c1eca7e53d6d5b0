"""How much of each session a real NATS server keeps in its memory, and that no session takes the room of others."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from relay.cluster.entries import Audio, Entry, Held
from relay.cluster.nats_bus import NatsBus, open_bus
from relay.cluster.shares import SHARE
from relay.vocabulary.errors import ConfigurationError
from tests.support.live_session import broadcasting
from tests.support.nats import NatsServer, cluster_settings, nats, relay_settings, until
from tests.support.processes import RelayProcess, relay_process

STORE_BYTES = 40 * 1024 * 1024
MAX_AUDIO_BYTES = 16 * 1024 * 1024
SECOND = bytes(192_000)
"""A second of PCM at 48 kHz in stereo."""


@asynccontextmanager
async def small_server(directory: Path, store_bytes: int = STORE_BYTES) -> AsyncIterator[NatsServer]:
    jetstream = f'jetstream {{ store_dir: "{directory / "js"}", max_memory_store: {store_bytes} }}'
    async with nats(directory, jetstream, jetstream=False) as server:
        yield server


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[NatsBus]:
    """Connect a node that is alone."""
    async with open_bus(cluster_settings(server.url, max_audio_bytes=MAX_AUDIO_BYTES)) as bus:
        yield bus


@asynccontextmanager
async def two_relays(server: NatsServer) -> AsyncIterator[list[RelayProcess]]:
    async with AsyncExitStack() as stack:
        settings = relay_settings(server.url, max_audio_bytes=str(MAX_AUDIO_BYTES))
        yield [
            await stack.enter_async_context(relay_process(RELAY_BROADCAST_OPEN="true", **settings)) for _ in range(2)
        ]


@asynccontextmanager
async def speech(relay: RelayProcess, session: str) -> AsyncIterator[ClientConnection]:
    """Broadcast in pace `speech`. Nobody reads what the relay says."""
    async with connect(
        f"{relay.websocket_url}/v1/broadcast/{session}?pace=speech&rate=48000&channels=2",
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
        max_queue=None,
    ) as connection:
        assert json.loads(await connection.recv())["type"] == "hello"
        yield connection


async def kept(bus: NatsBus, kind: type, subject: str) -> list[Entry]:
    return [entry for data in await bus.fetch(subject) if isinstance((entry := Entry.unpack(data)).body, kind)]


async def test_one_session_takes_neither_the_room_of_the_records_nor_that_of_others(tmp_path: Path) -> None:
    async with (
        small_server(tmp_path) as server,
        two_relays(server) as (one, two),
        connected(server) as bus,
        broadcasting(one, "quiet") as quiet,
        speech(one, "loud") as loud,
    ):
        await quiet.send(20)
        for _ in range(2 * STORE_BYTES // (45 * len(SECOND)) + 1):
            for _ in range(45):
                await loud.send(SECOND)
            await loud.send('{"type":"clear"}')
        # The claims are granted, or this raises an error.
        async with broadcasting(one, "another"), broadcasting(two, "yet-another"):
            pass
        assert len(await kept(bus, Audio, "audio.quiet.main")) == 20


async def test_audio_that_a_broadcaster_clears_leaves_the_memory(tmp_path: Path) -> None:
    async with (
        small_server(tmp_path) as server,
        two_relays(server) as (one, _),
        connected(server) as bus,
        speech(one, "ev1") as source,
        asyncio.timeout(60),
    ):
        for _ in range(20):
            await source.send(SECOND)
        while not await kept(bus, Held, "held.ev1.main"):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.1)
        await source.send('{"type":"clear"}')
        while await kept(bus, Held, "held.ev1.main"):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.1)


async def test_a_session_that_sends_much_is_remembered_for_a_shorter_time(tmp_path: Path) -> None:
    async with small_server(tmp_path) as server, connected(server) as bus:
        few = [b"%d" % number for number in range(10)]
        for payload in few:
            bus.publish("audio.small.c", payload)
        sent = [number.to_bytes(4) * 25_000 for number in range(4 * MAX_AUDIO_BYTES // 100_000)]
        for payload in sent:
            await bus.publish_stored("audio.big.c", payload)
        found = await bus.fetch("audio.big.c")
        assert found == sent[-len(found) :]
        assert SHARE / 4 * MAX_AUDIO_BYTES < len(found) * 100_000 <= SHARE * MAX_AUDIO_BYTES
        assert await bus.fetch("audio.small.c") == few
        await bus.publish_stored("audio.small.c", b"last")
        assert await bus.fetch("audio.small.c") == [*few, b"last"]


async def test_what_only_waits_is_not_kept_beyond_the_share_and_counted(tmp_path: Path) -> None:
    async with small_server(tmp_path) as server, connected(server) as bus:
        bus.keep("held.small.c", b"small")
        count = 2 * MAX_AUDIO_BYTES // 100_000
        for _ in range(count):
            # The bus has no time to forget anything.
            bus.keep("held.big.c", bytes(100_000))
        bus.publish("audio.big.c", b"needed")
        await bus.publish_stored("audio.small.c", b"")
        found = await bus.fetch("held.big.c")
        assert bus.shares.not_kept_messages == count - len(found)
        assert 0 < len(found) * 100_000 <= SHARE * MAX_AUDIO_BYTES
        assert await bus.fetch("audio.big.c") == [b"needed"]
        assert await bus.fetch("held.small.c") == [b"small"]
        await until(lambda: bus.shares.find("big", 0.0).sent_bytes < 1000)
        bus.keep("held.big.c", b"again")
        await bus.publish_stored("audio.small.c", b"")
        assert (await bus.fetch("held.big.c"))[-1] == b"again"


async def test_a_message_takes_the_place_of_the_earlier_ones_of_its_subject(tmp_path: Path) -> None:
    async with small_server(tmp_path) as server, connected(server) as bus:
        for subject in ("held.s.c", "held.s.other"):
            bus.keep(subject, b"1")
            bus.keep(subject, b"2")
        bus.replace("held.s.c", b"3")
        bus.keep("held.s.c", b"4")
        await bus.publish_stored("audio.s.c", b"")
        assert await bus.fetch("held.s.c") == [b"3", b"4"]
        assert await bus.fetch("held.s.other") == [b"1", b"2"]


async def test_a_server_with_too_little_memory_is_refused_with_the_name_of_the_setting(tmp_path: Path) -> None:
    async with small_server(tmp_path, MAX_AUDIO_BYTES // 2) as server:
        with pytest.raises(ConfigurationError, match=f"cluster.max_audio_bytes = {MAX_AUDIO_BYTES}"):
            async with connected(server):
                pass
