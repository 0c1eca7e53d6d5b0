"""`relay.client` sends and receives Opus: packet by packet, across cuts, and from one codec to another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from relay.client import (
    Audio,
    AudioFormat,
    Broadcaster,
    Codec,
    DeliveryChange,
    Hello,
    Listener,
    ListeningEvent,
    Reconnect,
    Reconnected,
    Reconnecting,
    broadcast,
    listen,
)
from relay.protocol.wire import serial_difference
from tests.support.client_commands import KEY
from tests.support.fault_proxy import fault_proxy
from tests.support.processes import RelayProcess, relay_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPUS = AudioFormat(Codec.OPUS, 16_000)
PACKETS = 60
SOON = Reconnect(first_seconds=0.1, max_seconds=0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as process:
        yield process


def packet(number: int) -> bytes:
    """Return a packet of 20 ms that contains its number."""
    return b"\xf8" + bytes([number]) * 40


async def send(broadcaster: Broadcaster, numbers: range) -> None:
    for number in numbers:
        await broadcaster.send(packet(number))


async def until(listener: Listener, count: int) -> tuple[list[Audio], list[ListeningEvent]]:
    """Read events until this much audio has arrived, and return the audio and the other events."""
    audio: list[Audio] = []
    others: list[ListeningEvent] = []
    async with asyncio.timeout(60):
        async for event in listener:
            if isinstance(event, Audio):
                audio.append(event)
                if len(audio) == count:
                    break
            else:
                others.append(event)
    return audio, others


@pytest.mark.parametrize("packet_ms", [0, 60])
async def test_a_listener_of_opus_resumes_behind_its_last_packet(relay: RelayProcess, packet_ms: int) -> None:
    session = f"resumed-{packet_ms}"
    async with (
        fault_proxy(relay.url) as proxy,
        broadcast(relay.url, session, audio_format=OPUS, token=KEY) as broadcaster,
        listen(proxy.url, session, codec="opus", packet_ms=packet_ms, reconnect=SOON) as listener,
    ):
        assert listener.hello.packet_ms == packet_ms
        sending = asyncio.ensure_future(send(broadcaster, range(PACKETS)))
        before, _ = await until(listener, PACKETS // 3)
        proxy.kill()
        after, others = await until(listener, PACKETS - len(before))
        await sending
        lost, back = (event for event in others if isinstance(event, Reconnecting | Reconnected))
        assert (type(lost), back) == (Reconnecting, Reconnected(resumed=True))
        heard = before + after
        assert [event.payload for event in heard] == [packet(number) for number in range(PACKETS)]
        assert [event.header.seq for event in heard] == list(range(PACKETS))
        assert [event.header.media_time for event in heard] == [960 * number for number in range(PACKETS)]
        assert listener.stats.received.seconds == pytest.approx(PACKETS * 0.02)


async def test_a_broadcaster_of_opus_sends_again_what_did_not_arrive(relay: RelayProcess) -> None:
    async with (
        fault_proxy(relay.url) as proxy,
        listen(relay.url, "again", codec="opus") as listener,
        broadcast(proxy.url, "again", audio_format=OPUS, token=KEY, dropping="never", reconnect=SOON) as broadcaster,
    ):
        sending = asyncio.ensure_future(send(broadcaster, range(PACKETS)))
        before, _ = await until(listener, PACKETS // 3)
        proxy.kill()
        after, _ = await until(listener, PACKETS - len(before))
        await sending
        assert [event.payload for event in before + after] == [packet(number) for number in range(PACKETS)]
        assert broadcaster.stats.reconnects == 1
        assert broadcaster.stats.sent.chunks == PACKETS
        assert broadcaster.stats.sent.seconds == pytest.approx(PACKETS * 0.02)


async def test_muted_it_sends_packets_of_silence_of_the_same_length(relay: RelayProcess) -> None:
    lengths = [b"\xf8", b"\xf0", b"\xe0", b"\xfb\x03"]  # 20, 10, 2.5 and 60 ms
    async with (
        broadcast(relay.url, "silent", audio_format=OPUS, token=KEY) as broadcaster,
        listen(relay.url, "silent", codec="opus") as listener,
    ):
        await broadcaster.mute(on=True)
        for head in lengths:
            await broadcaster.send(head + bytes(6))
        heard, _ = await until(listener, len(lengths))
    assert [OPUS.measure(event.payload).seconds for event in heard] == [0.02, 0.01, 0.0025, 0.06]
    assert all(b"\xff\xfe" in event.payload for event in heard)


@asynccontextmanager
async def playing(relay: RelayProcess, session: str, frame_bytes: int) -> AsyncIterator[None]:
    """Broadcast 16 kHz PCM in real time while the block runs."""

    async def play(broadcaster: Broadcaster) -> None:
        while True:
            await broadcaster.send(bytes(frame_bytes))

    async with broadcast(relay.url, session, token=KEY, dropping="never") as broadcaster:
        playing = asyncio.ensure_future(play(broadcaster))
        try:
            yield
        finally:
            playing.cancel()
            await asyncio.wait([playing])


def span(audio: Audio, audio_format: AudioFormat) -> tuple[float, float]:
    """Return when a frame begins and ends, in seconds of its epoch."""
    begins = serial_difference(audio.header.media_time, 0) / audio_format.clock_rate
    return begins, begins + audio_format.measure(audio.payload).seconds


async def test_another_codec_goes_on_with_the_moment_that_was_reached(relay: RelayProcess) -> None:
    # 25 ms is not a multiple of a packet.
    async with playing(relay, "switched", 800), listen(relay.url, "switched") as listener:
        codecs: list[Codec] = []
        for codec in (Codec.OPUS, Codec.PCM_S16LE, Codec.OPUS):
            heard, _ = await until(listener, 20)
            audio_format = listener.audio_format
            assert audio_format is not None
            codecs.append(audio_format.codec)
            await listener.switch(codec=codec)
            last = heard[-1]
            async with asyncio.timeout(30):
                async for event in listener:
                    if isinstance(event, Hello):
                        break
                    if isinstance(event, Audio):
                        last = event
            reached = span(last, audio_format)[1]
            (first,), _ = await until(listener, 1)
            assert listener.audio_format is not None
            assert listener.audio_format.codec == codec
            # It may begin earlier, but no audio may be missing.
            begins, _ = span(first, listener.audio_format)
            assert reached - 1 < begins <= reached
        assert codecs == [Codec.PCM_S16LE, Codec.OPUS, Codec.PCM_S16LE]
        assert listener.stats.gaps == 0


async def test_a_delivery_changes_without_a_loss(relay: RelayProcess) -> None:
    async with playing(relay, "delivery", 640), listen(relay.url, "delivery", codec="opus") as listener:
        heard, _ = await until(listener, 10)
        await listener.set_delivery(packet_ms=60, coalesce_ms=80)
        more, others = await until(listener, 30)
        (answer,) = (event for event in others if isinstance(event, DeliveryChange))
        assert answer == DeliveryChange(coalesce_ms=80, packet_ms=60)
        numbers = [event.header.seq for event in heard + more]
        assert numbers == list(range(numbers[0], numbers[0] + 40))
