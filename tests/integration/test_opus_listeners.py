"""Listeners of a running relay receive one channel as PCM and as Opus, each exact, and switch between the two."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.media.libopus import OpusDecoder, OpusEncoder
from relay.protocol.messages import describe_format, read_format
from relay.protocol.wire import Audio, Header, unpack_audio
from relay.vocabulary.audio import AudioFormat, Codec
from tests.support.nats import nats, relay_settings
from tests.support.processes import RelayProcess, relay_process
from tests.support.tone import from_pcm, is_clean_tone, sine, to_pcm

RATE = 16_000
HERTZ = 1000
HANG_SECONDS = 60.0


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(RELAY_PROMETHEUS_ENABLED="true") as running:
        yield running


@asynccontextmanager
async def connected(relay: RelayProcess, path: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        f"{relay.websocket_url}/v1/{path}",
        subprotocols=[Subprotocol("relay.v1")],
        compression=None,
        proxy=None,
        max_queue=None,
    ) as connection:
        yield connection


class Listener:
    """The text messages that a listener received, and its frames with their format."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.told: list[dict[str, Any]] = []
        self.frames: list[tuple[AudioFormat, Audio]] = []
        self.messages: list[bytes] = []
        self.audio_format: AudioFormat | None = None

    @property
    def hello(self) -> dict[str, Any]:
        return self.told[0]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.told if each["type"] == kind]

    async def read(self) -> bool:
        """Read one message. Return whether there was one before the end."""
        try:
            async with asyncio.timeout(HANG_SECONDS):
                message = await self.connection.recv()
        except ConnectionClosed:
            return False
        if isinstance(message, bytes):
            assert self.audio_format is not None
            self.messages.append(message)
            self.frames += [(self.audio_format, each) for each in unpack_audio(message, self.audio_format)]
            return True
        told = json.loads(message)
        self.told.append(told)
        if told["type"] in {"hello", "format"}:
            self.audio_format = None if told["format"] is None else read_format(told["format"])
        return True

    async def read_all(self) -> None:
        while await self.read():
            pass
        assert self.connection.close_code == 1000

    async def read_until(self, kind: str) -> dict[str, Any]:
        count = len(self.of_type(kind))
        while len(self.of_type(kind)) == count:
            assert await self.read(), f"no {kind} before the end"
        return self.of_type(kind)[-1]

    async def say(self, **members: object) -> None:
        await self.connection.send(json.dumps(members))

    def check_account(self) -> None:
        """Check that no frame is missing or repeated."""
        assert not self.of_type("gap")
        seqs = [each.header.seq for _, each in self.frames]
        assert seqs == list(range(self.hello["next_seq"], self.hello["next_seq"] + len(seqs)))


@asynccontextmanager
async def listening(relay: RelayProcess, session: str, query: str) -> AsyncIterator[Listener]:
    async with connected(relay, f"listen/{session}?{query}") as connection:
        listener = Listener(connection)
        await listener.read()
        yield listener


@asynccontextmanager
async def broadcasting(
    relay: RelayProcess, session: str, query: str = "pace=speech"
) -> AsyncIterator[ClientConnection]:
    async with connected(relay, f"broadcast/{session}?{query}") as connection:
        await connection.recv()
        yield connection


def tone(seconds: float, rate: int = RATE) -> bytes:
    return to_pcm(sine(HERTZ, rate, seconds))


def pieces(audio: bytes, milliseconds: int, rate: int = RATE) -> list[bytes]:
    size = 2 * rate * milliseconds // 1000
    return [audio[start : start + size] for start in range(0, len(audio), size)]


async def send(source: ClientConnection, messages: Iterable[bytes]) -> None:
    for message in messages:
        await source.send(message)


async def end(source: ClientConnection) -> None:
    await source.send('{"type":"end"}')
    await source.wait_closed()


def decode(packets: Sequence[bytes], rate: int = RATE) -> bytes:
    decoder = OpusDecoder(rate, 1)
    return b"".join(decoder.decode(packet, rate // 50) for packet in packets)


async def test_pcm_and_opus_of_one_broadcaster_side_by_side(relay: RelayProcess) -> None:
    async with (
        listening(relay, "ev1", "codec=opus,pcm_s16le") as opus,
        listening(relay, "ev1", "") as plain,
        broadcasting(relay, "ev1") as source,
    ):
        sent = tone(1.5)
        await send(source, pieces(sent, 30))
        await end(source)
        await asyncio.gather(opus.read_all(), plain.read_all())
    assert b"".join(each.payload for _, each in plain.frames) == sent
    assert opus.of_type("format")[0]["format"] == describe_format(AudioFormat(Codec.OPUS, RATE))
    opus.check_account()
    plain.check_account()
    assert [each.header.media_time for _, each in opus.frames] == [
        (960 * seq - 312) % 2**32 for seq in range(len(opus.frames))
    ]
    assert len(opus.frames) == 76, "1.5 s, and one frame for what the encoder looked ahead"
    heard = from_pcm(decode([each.payload for _, each in opus.frames]))
    assert is_clean_tone(heard[RATE // 10 : RATE * 14 // 10], RATE, HERTZ)


async def test_opus_of_a_broadcaster_is_passed_on_untouched_and_decoded_for_others(relay: RelayProcess) -> None:
    encoder = OpusEncoder(24_000, 1, 24_000, 9)
    sent = [encoder.encode(piece) for piece in pieces(tone(1.5, 24_000), 20, 24_000)]
    async with (
        broadcasting(relay, "ev1", "codec=opus&rate=24000&pace=speech") as source,
        listening(relay, "ev1", "codec=pcm_s16le,opus") as plain,
        listening(relay, "ev1", "codec=opus") as opus,
    ):
        assert opus.hello["format"] == describe_format(AudioFormat(Codec.OPUS, 24_000))
        assert plain.hello["format"] == describe_format(AudioFormat(rate=24_000))
        await send(source, sent)
        await end(source)
        await asyncio.gather(opus.read_all(), plain.read_all())
    assert [each.payload for _, each in opus.frames] == sent
    for listener in (plain, opus):
        listener.check_account()
    heard = b"".join(each.payload for _, each in plain.frames)
    assert heard == decode(sent, 24_000)
    assert [each.header.due_ms for _, each in plain.frames] == [each.header.due_ms for _, each in opus.frames]


async def play(source: ClientConnection, audio: Sequence[bytes], seconds_each: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, message in enumerate(audio):
        await asyncio.sleep(began + number * seconds_each - loop.time())
        await source.send(message)


@pytest.mark.parametrize("source_codec", list(Codec))
async def test_a_listener_changes_back_and_forth_and_misses_nothing(relay: RelayProcess, source_codec: Codec) -> None:
    sent = pieces(tone(3.0), 20)
    if source_codec is Codec.OPUS:
        encoder = OpusEncoder(RATE, 1, 24_000, 9)
        sent = [encoder.encode(piece) for piece in sent]
    async with (
        broadcasting(relay, "ev1", f"codec={source_codec}&rate={RATE}") as source,
        listening(relay, "ev1", "codec=pcm_s16le") as listener,
    ):
        playing = asyncio.ensure_future(play(source, sent, 0.02))
        reached, begun = 0.0, False
        for number in range(6):
            while len(listener.of_type("hello")) < number + 1 or len(listener.frames) < 20 * (number + 1):
                count = len(listener.frames)
                is_greeted = len(listener.of_type("hello"))
                await listener.read()
                if len(listener.of_type("hello")) > is_greeted:
                    begun = False
                for audio_format, each in listener.frames[count:]:
                    clock_rate = audio_format.clock_rate
                    start = ((each.header.media_time + 2**31) % 2**32 - 2**31) / clock_rate
                    if begun or not reached:
                        assert not reached or start == pytest.approx(reached)
                    else:
                        assert start <= reached + 1e-9, "it begins with the frame that it is in, or before"
                    reached, begun = start + audio_format.measure(each.payload).ticks / clock_rate, True
            await listener.say(type="switch", codec="opus" if number % 2 == 0 else "pcm_s16le")
        await playing
        await end(source)
        await listener.read_all()
    codecs = [hello["format"]["codec"] for hello in listener.of_type("hello")]
    assert codecs == ["pcm_s16le", "opus"] * 3 + ["pcm_s16le"]
    assert not listener.of_type("gap")


async def test_a_listener_resumes_on_a_rendition_that_begins_with_it_and_another_gets_a_burst(
    relay: RelayProcess,
) -> None:
    async with broadcasting(relay, "ev1") as source:
        await send(source, pieces(tone(1.5), 100))
        async with listening(relay, "ev1", "burst_ms=5000") as plain:
            while len(plain.frames) < 15:
                await plain.read()
        epoch = plain.hello["epoch"]
        async with (
            listening(relay, "ev1", f"codec=opus&epoch={epoch}&after=9&after_codec=opus") as resumed,
            listening(relay, "ev1", "codec=opus&burst_ms=5000") as late,
            listening(relay, "ev1", f"codec=opus&epoch={epoch}&after=9") as other,
        ):
            assert (resumed.hello["resumed"], resumed.hello["next_seq"]) == (True, 10)
            assert not other.hello["resumed"]
            await end(source)
            await asyncio.gather(resumed.read_all(), late.read_all(), other.read_all())
        for listener in (resumed, late, other):
            listener.check_account()
        assert [each.header.seq for _, each in resumed.frames] == list(range(10, 76))
        heard = from_pcm(decode([each.payload for _, each in resumed.frames]))
        assert is_clean_tone(heard[RATE // 10 : RATE], RATE, HERTZ)


@pytest.mark.parametrize("packet_ms", [20, 60, 100])
async def test_packets_share_messages(relay: RelayProcess, packet_ms: int) -> None:
    async with (
        broadcasting(relay, "ev1") as source,
        listening(relay, "ev1", f"codec=opus&packet_ms={packet_ms}") as listener,
    ):
        assert listener.hello["packet_ms"] == packet_ms
        await send(source, pieces(tone(1.5), 20))
        await end(source)
        await listener.read_all()
    listener.check_account()
    assert len(listener.frames) == 76
    in_each = packet_ms // 20
    assert len(listener.messages) >= 76 // in_each
    assert any(Header.unpack(message).is_packed for message in listener.messages) == (in_each > 1)
    assert max(len(unpack_audio(each, AudioFormat(Codec.OPUS))) for each in listener.messages) == in_each


async def test_a_delivery_is_granted_without_a_reconnect(relay: RelayProcess) -> None:
    async with (
        broadcasting(relay, "ev1") as source,
        listening(relay, "ev1", "codec=opus") as listener,
    ):
        granted = []
        for wanted in ({"packet_ms": 60}, {"coalesce_ms": 40}, {"packet_ms": 5000, "coalesce_ms": 0}, {}):
            await send(source, pieces(tone(0.2), 20))
            await listener.say(type="delivery", **wanted)
            answer = await listener.read_until("delivery")
            granted.append((answer["coalesce_ms"], answer["packet_ms"]))
        await listener.say(type="delivery", packet_ms="sixty")
        assert (await listener.read_until("error"))["code"] == 4504
        await end(source)
        await listener.read_all()
    assert granted == [(0, 60), (40, 60), (0, 100), (0, 100)]
    listener.check_account()
    assert len(listener.frames) == 41


async def test_what_cannot_be_served_is_refused_with_what_can() -> None:
    async with relay_process(RELAY_OPUS_ENABLED="false") as relay:
        async with connected(relay, "listen/ev1?codec=opus") as refused:
            error = json.loads(await refused.recv())
            await refused.wait_closed()
        assert refused.close_code == 4504
        assert "serves this channel as pcm_s16le, not as opus" in error["message"]
        async with listening(relay, "ev1", "codec=opus,pcm_s16le") as plain:
            await plain.say(type="switch", codec="opus")
            assert (await plain.read_until("error"))["code"] == 4504
            async with broadcasting(relay, "ev1") as source:
                await source.send(tone(0.1))
                await end(source)
                await plain.read_all()
    assert b"".join(each.payload for _, each in plain.frames) == tone(0.1)


async def test_a_node_that_is_not_the_home_serves_codecs_switches_and_streams(tmp_path: Path) -> None:
    """Each node makes the renditions of its own listeners. Their frames have the same numbers on all nodes."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(nats(tmp_path))
        home, other = [await enter(relay_process(**relay_settings(server.url, node=name))) for name in ("one", "two")]
        english = await enter(broadcasting(home, "ev1/en", f"rate={RATE}"))
        german = await enter(broadcasting(home, "ev1/de", f"rate={RATE}"))
        speaking = [asyncio.ensure_future(play(each, pieces(tone(60), 20), 0.02)) for each in (english, german)]
        here = await enter(listening(home, "ev1/en", "codec=opus"))
        there = await enter(listening(other, "ev1/en", "codec=opus,pcm_s16le"))
        reading = asyncio.ensure_future(here.read_all())
        while len(there.frames) < 50:
            assert await there.read()
        first, last = there.frames[0][1].header.seq, there.frames[-1][1].header.seq
        while here.frames[-1][1].header.seq < last:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
        of_home = {each.header.seq: each.header for _, each in here.frames}
        alike = [each.header for _, each in there.frames if each.header.seq in of_home]
        assert last - max(first, min(of_home)) + 1 == len(alike) > 20
        for each in alike:
            assert (each.epoch, each.media_time) == (of_home[each.seq].epoch, of_home[each.seq].media_time)
        heard = decode([each.payload for _, each in there.frames])
        assert is_clean_tone(from_pcm(heard[RATE // 2 :]), RATE, HERTZ)
        for wanted in ({"channel": "de"}, {"codec": "pcm_s16le"}, {"codec": "opus"}):
            await there.say(type="switch", **wanted)
            hello = await there.read_until("hello")
            count = len(there.frames)
            while len(there.frames) < count + 25:
                assert await there.read()
            since = [each.header.seq for _, each in there.frames[count:]]
            assert since == list(range(hello["next_seq"], hello["next_seq"] + len(since)))
        told = [(each["channel"], each["format"]["codec"]) for each in there.of_type("hello")]
        assert told == [("en", "opus"), ("de", "opus"), ("de", "pcm_s16le"), ("de", "opus")]
        assert not there.of_type("gap")
        wav = await asyncio.to_thread(_read_stream, f"{other.url}/stream/ev1/de.wav", 44 + 4 * RATE)
        assert is_clean_tone(from_pcm(wav[-2 * RATE :]), RATE, HERTZ)
        for task in (*speaking, reading):
            task.cancel()


def _read_stream(url: str, size: int) -> bytes:
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as stream:  # noqa: S310 - the address of a relay
        data: bytes = stream.read(size)
    return data
