"""The clients and a real relay through the faults of an event: cuts, restarts, take-overs, bursts and interruptions."""

import asyncio
import re
import signal
import sys
import wave
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from relay.client import (
    Audience,
    Audio,
    Backpressure,
    Broadcaster,
    Channels,
    Clear,
    Gap,
    Hello,
    Listener,
    Reconnect,
    Reconnected,
    Reconnecting,
    RelayError,
    broadcast,
    listen,
)
from relay.vocabulary.clock import relay_clock
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.ports import free_port
from tests.support.processes import Process, RelayProcess, environment, relay_process

pytestmark = pytest.mark.timed

KEY = "a-key-for-the-test"
ROOT = Path(__file__).parent.parent.parent
SECOND_BYTES = 32_000
FRAME_BYTES = 640


def noise(seconds: float, seed: int = 1) -> bytes:
    """Return audio in which no two samples are alike, so that a lost, repeated or swapped sample shows."""
    samples = round(seconds * SECOND_BYTES / 2)
    return np.random.default_rng(seed).integers(-32768, 32768, samples, np.int16).astype("<i2").tobytes()


def write_wav(path: Path, audio: bytes) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(audio)
    return path


def read_wav(path: Path) -> bytes:
    with wave.open(str(path)) as reader:
        return bytes(reader.readframes(reader.getnframes()))


def common_beginning(one: bytes, other: bytes) -> bytes:
    length = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    return one[:length]


@asynccontextmanager
async def command(url: str, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL) -> AsyncIterator[Process]:
    """Run `relay ARGUMENTS` as a client of a relay, and stop it when the block ends."""
    settings = {"RELAY_CLIENT_URL": url, "RELAY_BROADCAST_KEY": KEY}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relay", *arguments),
        stdin=stdin,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=PIPE,
        env=environment(settings),
    )
    process = Process(child)
    try:
        yield process
    finally:
        await process.kill()


@asynccontextmanager
async def a_relay(*arguments: str, **settings: str) -> AsyncIterator[RelayProcess]:
    async with relay_process(*arguments, RELAY_BROADCAST_KEY=KEY, **settings) as relay:
        yield relay


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def recorded(path: Path, byte_count: int) -> None:
    """Wait until a recording contains this much audio."""
    async with asyncio.timeout(30):
        while size(path) < byte_count:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.02)


def trying(line: str) -> bool:
    return "Trying again in " in line


async def test_a_recording_has_no_hole_after_a_cut_of_three_seconds(tmp_path: Path) -> None:
    # Four tries may follow the cut, and the last of them up to 11 s after it.
    kept = {"RELAY_LISTENER_HISTORY_SECONDS": "30", "RELAY_LISTENER_MAX_BUFFER_SECONDS": "30"}
    audio = noise(10)
    sent, heard = write_wav(tmp_path / "sent.wav", audio), tmp_path / "heard.wav"
    async with (
        a_relay(**kept) as relay,
        fault_proxy(relay.url) as proxy,
        command(proxy.url, "listen", "ev1", "-o", str(heard)) as listener,
    ):
        await listener.line(lambda line: line.startswith("listening to "))
        async with command(relay.url, "broadcast", "ev1", str(sent)) as broadcaster:
            await recorded(heard, SECOND_BYTES)
            proxy.cut()
            await listener.line(trying)
            await asyncio.sleep(3)
            proxy.mend()
            assert await broadcaster.wait(30) == 0
        assert await listener.wait() == 0
    assert read_wav(heard) == audio, listener.text
    assert "connected again, continuing where it stopped" in listener.lines
    assert listener.lines[-1] == "received 10.00 s of audio, lost 0.00 s in 0 gap(s), with 1 reconnect(s)"


async def test_a_live_broadcast_has_no_hole_after_the_broadcaster_was_cut_off(tmp_path: Path) -> None:
    audio = noise(5)
    sent, heard = write_wav(tmp_path / "sent.wav", audio), tmp_path / "heard.wav"
    async with (
        a_relay() as relay,
        fault_proxy(relay.url) as proxy,
        command(relay.url, "listen", "ev1", "-o", str(heard)) as listener,
    ):
        await listener.line(lambda line: line.startswith("listening to "))
        async with command(proxy.url, "broadcast", "ev1", str(sent)) as broadcaster:
            await recorded(heard, SECOND_BYTES)
            # Audio sent from here on is in transit when the connection breaks.
            await proxy.stall_for(0.5)
            proxy.stall()
            await asyncio.sleep(0.5)
            proxy.kill()
            proxy.flow()
            await broadcaster.line(lambda line: line == "connected again")
            assert await broadcaster.wait(30) == 0
        assert await listener.wait() == 0
    assert read_wav(heard) == audio
    assert listener.lines[-1].endswith("lost 0.00 s in 0 gap(s)"), "the numbers went on"


async def until_stuck(proxy: FaultProxy) -> None:
    """Wait until the connections through a proxy that reads nothing hold data and accept no more."""
    held, before = proxy.unread_bytes, -1
    async with asyncio.timeout(20):
        while held == 0 or held != before:
            await asyncio.sleep(0.3)
            before, held = held, proxy.unread_bytes


@pytest.mark.parametrize("seconds", [3, 20])
async def test_speech_at_full_speed_has_no_hole_after_the_broadcaster_was_cut_off(tmp_path: Path, seconds: int) -> None:
    """At the cut, the kernel's buffers hold all that remains of the shorter speech, but only part of the longer one."""
    audio, heard = noise(seconds), tmp_path / "heard.wav"
    path = tmp_path / "speech.pcm"
    path.write_bytes(audio)
    async with (
        a_relay(RELAY_BROADCAST_LEAD_SECONDS="10") as relay,
        fault_proxy(relay.url) as proxy,
        command(relay.url, "listen", "ev1", "-o", str(heard)) as listener,
    ):
        await listener.line(lambda line: line.startswith("listening to "))
        # The relay receives a small part of it.
        proxy.up.line_bytes, proxy.up.bytes_per_second = 16 * 1024, 60_000.0
        with path.open("rb") as pipe:
            arguments = ("broadcast", "ev1", "-", "--pace", "speech")
            async with command(proxy.url, *arguments, stdin=pipe.fileno()) as broadcaster:
                await recorded(heard, SECOND_BYTES)
                proxy.stall()
                await until_stuck(proxy)
                proxy.kill()
                proxy.up.bytes_per_second = None
                proxy.flow()
                await broadcaster.line(lambda line: line == "connected again")
                assert await broadcaster.wait(30) == 0
        assert await listener.wait() == 0
    assert read_wav(heard) == audio
    assert listener.lines[-1].endswith("lost 0.00 s in 0 gap(s)")


async def test_a_broadcaster_that_was_replaced_in_a_cut_sends_again_what_of_its_own_did_not_arrive() -> None:
    one, other = noise(4), noise(0.3, seed=2)
    async with (
        a_relay() as relay,
        fault_proxy(relay.url) as proxy,
        listen(relay.url, "ev1") as listener,
        broadcast(proxy.url, "ev1", pace="speech", token=KEY, reconnect=Reconnect(first_seconds=0.1)) as broadcaster,
        asyncio.timeout(30),
    ):
        await broadcaster.send(one[: 2 * SECOND_BYTES])
        received = await frames(listener, 8)
        proxy.stall()
        await broadcaster.send(one[2 * SECOND_BYTES : 3 * SECOND_BYTES])
        await until_sent(broadcaster)
        proxy.cut()
        async with broadcast(relay.url, "ev1", pace="speech", takeover=True, token=KEY) as stranger:
            await stranger.send(other)
        proxy.mend()
        proxy.flow()
        await broadcaster.send(one[3 * SECOND_BYTES :])
        await broadcaster.end()
        async for event in listener:
            assert not isinstance(event, Gap)
            if isinstance(event, Audio):
                received.append(event)
    assert b"".join(event.payload for event in received) == one[: 2 * SECOND_BYTES] + other + one[2 * SECOND_BYTES :]
    assert broadcaster.stats.sent.seconds == pytest.approx(4)


async def until_sent(broadcaster: Broadcaster) -> None:
    """Wait until a broadcaster's queue is empty."""
    while broadcaster.stats.queued_seconds:  # noqa: ASYNC110 - no event reports it
        await asyncio.sleep(0.01)


async def test_a_restart_of_the_relay_is_told_and_both_go_on(tmp_path: Path) -> None:
    audio = noise(1)
    sent, heard = write_wav(tmp_path / "sent.wav", audio), tmp_path / "heard.wav"
    here = ("--port", str(free_port()))
    async with a_relay(*here) as first, command(first.url, "listen", "ev1", "-o", str(heard)) as listener:
        await listener.line(lambda line: line.startswith("listening to "))
        async with command(first.url, "broadcast", "ev1", str(sent), "--loop") as broadcaster:
            await recorded(heard, SECOND_BYTES)
            await first.kill()
            await listener.line(trying)
            await broadcaster.line(trying)
            until_the_kill = size(heard)
            async with a_relay(*here):
                await listener.line(lambda line: line.startswith("audio may be missing here: the relay was restarted"))
                await recorded(heard, until_the_kill + SECOND_BYTES)
                assert await broadcaster.terminate() == 0
                assert await listener.wait() == 0
    received = read_wav(heard)
    before = common_beginning(received, audio * 60)
    assert len(before) >= SECOND_BYTES - 44
    assert received[len(before) :] in audio * 60
    assert re.search(r"and an unknown amount 1 time\(s\), with \d reconnect\(s\)$", listener.lines[-1])


async def test_a_broadcaster_takes_over_and_the_other_stops_with_a_sentence(tmp_path: Path) -> None:
    one, other = noise(1), noise(1.5, seed=2)
    first, second = write_wav(tmp_path / "one.wav", one), write_wav(tmp_path / "other.wav", other)
    heard = tmp_path / "heard.wav"
    async with (
        a_relay() as relay,
        command(relay.url, "listen", "ev1", "-o", str(heard)) as listener,
    ):
        await listener.line(lambda line: line.startswith("listening to "))
        async with command(relay.url, "broadcast", "ev1", str(first), "--loop") as replaced:
            await recorded(heard, SECOND_BYTES)
            async with command(relay.url, "broadcast", "ev1", str(second), "--takeover") as broadcaster:
                assert await replaced.wait() == 1
                assert await broadcaster.wait() == 0
        assert await listener.wait() == 0
    assert replaced.lines[-1].startswith("relay: ")
    assert "took over" in replaced.lines[-1]
    received = read_wav(heard)
    assert received.endswith(other)
    assert received.removesuffix(other) == (one * 30)[: len(received) - len(other)]
    assert [line for line in listener.lines if "gone" in line or "Trying" in line] == []


async def test_a_file_piped_at_full_speed_is_heard_whole(tmp_path: Path) -> None:
    audio, heard = noise(5), tmp_path / "heard.wav"
    path = tmp_path / "speech.pcm"
    path.write_bytes(audio)
    async with (
        a_relay() as relay,
        command(relay.url, "listen", "ev1", "-o", str(heard)) as listener,
    ):
        await listener.line(lambda line: line.startswith("listening to "))
        with path.open("rb") as pipe:
            async with command(relay.url, "broadcast", "ev1", "-", "--pace", "speech", stdin=pipe.fileno()) as process:
                await process.line(lambda line: line.startswith("broadcasting "))
                began = relay_clock()
                await process.line(lambda line: line == "sent 5.00 s of audio")
                assert relay_clock() - began < 4, "it was sent as fast as the relay took it, not in real time"
                assert await process.wait() == 0
        assert await listener.wait() == 0
    assert read_wav(heard) == audio


async def frames(listener: Listener, count: int) -> list[Audio]:
    """Take this many frames, and fail on any event that reports a loss."""
    found: list[Audio] = []
    async for event in listener:
        assert not isinstance(event, Gap | Reconnecting)
        if isinstance(event, Audio):
            found.append(event)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize(
    ("pace", "settings"),
    [("speech", {"RELAY_BROADCAST_QUEUE_SECONDS": "1"}), ("live", {"RELAY_BROADCAST_AHEAD_SECONDS": "1"})],
)
async def test_a_program_that_sends_without_pause_is_held_back_and_loses_nothing(
    pace: str, settings: Mapping[str, str]
) -> None:
    audio = noise(6)
    async with (
        a_relay(**settings) as relay,
        listen(relay.url, "ev1") as listener,
        broadcast(relay.url, "ev1", pace="live" if pace == "live" else "speech", token=KEY) as broadcaster,
    ):
        receiving = asyncio.ensure_future(frames(listener, 24))
        began = relay_clock()
        await broadcaster.send(audio)
        await broadcaster.end()
        assert relay_clock() - began > 1, "it was held back"
        received = await asyncio.wait_for(receiving, 20)
        events = [event async for event in broadcaster]
    assert b"".join(event.payload for event in received) == audio
    # In pace live, the sender keeps to real time on its own. The relay holds back only pace speech.
    assert (Backpressure(on=True) in events) == (pace == "speech")
    assert broadcaster.stats.sent.seconds == pytest.approx(6)
    if pace == "speech":
        steps_ms = [later.header.due_ms - earlier.header.due_ms for earlier, later in pairwise(received)]
        assert min(steps_ms) >= 249
        assert max(steps_ms[4:]) <= 251, "the sender was a second ahead, so that it was late is no excuse"


@pytest.mark.parametrize("queue_seconds", ["60", "20"])
async def test_clear_is_prompt_whatever_waits(queue_seconds: str) -> None:
    """With the shorter queue, the relay applies backpressure and does not read while it lasts."""
    async with (
        a_relay(RELAY_BROADCAST_QUEUE_SECONDS=queue_seconds) as relay,
        listen(relay.url, "ev1") as listener,
        broadcast(relay.url, "ev1", pace="speech", token=KEY) as broadcaster,
        asyncio.timeout(30),
    ):
        talking = asyncio.ensure_future(broadcaster.send(b"\1\0" * 16_000 * 60))
        await frames(listener, 8)
        while queue_seconds == "20" and not broadcaster.is_held_back:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.01)
        talking.cancel()
        await broadcaster.clear()
        cleared_at = relay_clock()
        await broadcaster.send(b"\2\0" * 1_600)
        async for event in listener:
            if isinstance(event, Clear):
                break
        assert relay_clock() - cleared_at < 2
        (after,) = await frames(listener, 1)
        assert after.payload == b"\2\0" * 1_600
        assert relay_clock() - cleared_at < 2
        await broadcaster.end()


async def test_a_broadcaster_learns_who_listens_and_people_learn_what_there_is() -> None:
    async with (
        a_relay() as relay,
        asyncio.timeout(20),
        broadcast(relay.url, "ev1", channel="de", name="Deutsch", lang="de", token=KEY) as german,
        broadcast(relay.url, "ev1", name="English", lang="en", token=KEY) as english,
        listen(relay.url, "ev1") as listener,
    ):
        labels = {entry.id: (entry.name, entry.lang) for entry in listener.channels}
        assert labels == {"de": ("Deutsch", "de"), "main": ("English", "en")}
        async for told in english:
            if isinstance(told, Audience) and told.listeners == 1:
                break
        await listener.switch("de")
        # The answer to the switch precedes all audio of the channel, so the listener misses audio sent before it.
        async for event in listener:
            if isinstance(event, Hello) and event.channel == "de":
                break
        assert str(listener.address) == "ev1/de"
        await listener.ping()
        await german.send(b"\3\0" * 320)
        (frame,) = await frames(listener, 1)
        assert frame.payload == b"\3\0" * 320
        # The relay and the test share this machine's clock.
        assert -5 < listener.age_ms(frame) < 5_000


async def test_a_library_listener_goes_on_behind_its_last_frame() -> None:
    async with (
        a_relay() as relay,
        fault_proxy(relay.url) as proxy,
        listen(proxy.url, "ev1") as listener,
        broadcast(relay.url, "ev1", token=KEY) as broadcaster,
        asyncio.timeout(20),
    ):
        for number in range(10):
            await broadcaster.send(bytes([number, 0]) * 320)
        before = await frames(listener, 10)
        proxy.kill()
        for number in range(10, 20):
            await broadcaster.send(bytes([number, 0]) * 320)
        after, others = [], []
        async for event in listener:
            if isinstance(event, Audio):
                after.append(event)
                if len(after) == 10:
                    break
            elif not isinstance(event, Channels):
                others.append(event)
    assert [event.payload[0] for event in before + after] == list(range(20))
    assert [type(event) for event in others] == [Reconnecting, Reconnected]


async def test_a_relay_that_shuts_down_is_no_end_for_its_clients(tmp_path: Path) -> None:
    heard, here = tmp_path / "heard.wav", ("--port", str(free_port()))
    async with a_relay(*here) as first, command(first.url, "listen", "ev1", "-o", str(heard)) as listener:
        await listener.line(lambda line: line.startswith("listening to "))
        assert await first.terminate() == 0
        await listener.line(trying)
        async with a_relay(*here):
            await listener.line(lambda line: line == "connected again")
            listener.signal(signal.SIGINT)
            assert await listener.wait() == 0


async def test_who_listens_where_nothing_is_said_learns_where_something_is(tmp_path: Path) -> None:
    recording = ("--duration", "0.1", "-o", str(tmp_path / "heard.wav"))
    async with (
        a_relay() as relay,
        broadcast(relay.url, "ev1", channel="de", name="Deutsch", token=KEY),
        broadcast(relay.url, "ev1", channel="fr", token=KEY),
        command(relay.url, "listen", "ev1", *recording) as lost,
        command(relay.url, "listen", "ev1", "--channel", "fr", *recording) as right,
    ):
        assert await lost.wait() == 0
        assert await right.wait() == 0
    assert lost.lines[1] == "the channels of ev1 are de (Deutsch), fr; choose one with --channel"
    assert "the channels of ev1" not in right.text


async def test_a_signal_while_there_is_no_connection_does_not_wait_for_one(tmp_path: Path) -> None:
    sent = write_wav(tmp_path / "sent.wav", noise(1))
    async with a_relay() as relay, command(relay.url, "broadcast", "ev1", str(sent), "--loop") as broadcaster:
        await broadcaster.line(lambda line: line.startswith("broadcasting "))
        await relay.kill()
        await broadcaster.line(trying)
        began = relay_clock()
        broadcaster.signal(signal.SIGINT)
        assert await broadcaster.wait() == 1
        assert relay_clock() - began < 5
    assert broadcaster.lines[-1] == f"relay: ev1/main was not ended, because there is no connection to {relay.url}."


def examples(document: str) -> list[str]:
    """Return the complete Python programs of a document: those that run something."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return [block for block in blocks if "asyncio.run(" in block]


@asynccontextmanager
async def program(text: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text, *arguments),
        stdin=PIPE,
        stdout=PIPE,
        env=environment({"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_examples_run_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The documentation's own test runs the one between them.
    listening, _, broadcasting = examples("docs/client.md")
    # This relay created its own key, and programs of the same user find it.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with (
        relay_process(RELAY_BROADCAST_OPEN="false") as relay,
        asyncio.timeout(30),
        program(listening, relay.url, "ev1") as listener,
        program(broadcasting, relay.url, "ev1") as broadcaster,
    ):
        assert listener.stdout is not None
        assert broadcaster.stdin is not None
        assert (await listener.stdout.readline()).startswith(b"Hello(")
        broadcaster.stdin.write(noise(0.5))
        broadcaster.stdin.close()
        assert await broadcaster.wait() == 0
        lines = (await listener.stdout.read()).decode().splitlines()
        assert await listener.wait() == 0
    assert lines.count("3200 bytes of audio") == 5
    assert lines[-1].startswith("StateChange(state=<ChannelState.ENDED")


async def test_an_old_key_is_not_kept_over_a_restart_of_a_relay_that_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    here = ("--port", str(free_port()))
    async with relay_process(*here, RELAY_BROADCAST_OPEN="false") as first, asyncio.timeout(60):
        async with broadcast(first.url, "ev1") as broadcaster:
            await first.kill()
            # Reports of the listener count may come first.
            while not isinstance(await anext(broadcaster), Reconnecting):
                pass
            async with relay_process(*here, RELAY_BROADCAST_OPEN="false") as second:
                async for event in broadcaster:
                    if isinstance(event, Reconnected):
                        break
                await second.event("broadcaster joined")
                await broadcaster.end()
        with pytest.raises(RelayError):
            await broadcaster.send(b"\0\0")
