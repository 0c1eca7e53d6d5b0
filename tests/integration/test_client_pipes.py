"""Standard input and output as pipes of every kind: non-blocking, compressed, silent."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from relay.cli.output import show
from tests.support.client_commands import KEY, Settings, client, encode, noise, read_wav, ready
from tests.support.processes import relay_process

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings() -> AsyncIterator[Settings]:
    """Run a relay, and yield the settings of a client that may broadcast to it."""
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as process:
        yield {"RELAY_CLIENT_URL": process.url, "RELAY_BROADCAST_KEY": KEY}


async def test_pipes_that_do_not_block_are_waited_for(settings: Settings) -> None:
    # A second of 48 kHz stereo exceeds both pipes, so both ends must wait.
    audio = noise(48_000, 2)
    reading, writing = os.pipe()
    source, feeding = os.pipe()
    for descriptor in (writing, source):
        os.set_blocking(descriptor, False)
    async with client(settings, "listen", "unblocked", stdout=writing) as listener:
        await ready(listener)
        options = ("--rate", "48000", "--channels", "2", "--raw")
        async with client(settings, "broadcast", "unblocked", "-", *options, stdin=source) as broadcaster:
            await broadcaster.line(lambda line: line.startswith("broadcasting standard input as raw PCM"))
            with os.fdopen(feeding, "wb") as feed:
                await asyncio.to_thread(feed.write, audio)
            assert await broadcaster.wait() == 0, broadcaster.text
        assert (os.get_blocking(writing), os.get_blocking(source)) == (False, False)
        os.close(writing)
        os.close(source)
        with os.fdopen(reading, "rb") as output:
            assert await asyncio.to_thread(output.read) == audio
        assert await listener.wait() == 0, listener.text


async def test_a_live_stream_that_is_compressed_is_heard_before_it_ends(tmp_path: Path, settings: Settings) -> None:
    tone = (12_000 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)).astype(np.int16)
    content = encode(tmp_path / "a.mp3", "libmp3lame", tone).read_bytes()
    source, feeding = os.pipe()
    os.write(feeding, content)
    async with client(settings, "listen", "mp3", "-o", str(tmp_path / "out.wav")) as listener:
        await ready(listener)
        async with client(settings, "broadcast", "mp3", "-", stdin=source) as broadcaster:
            await broadcaster.line(lambda line: line.startswith("broadcasting standard input as MP3 (48000 Hz, mono)"))
            await listener.line(lambda line: line == "live")
            os.close(feeding)
            assert await broadcaster.wait() == 0, broadcaster.text
        assert await listener.wait() == 0
    os.close(source)
    heard = np.frombuffer(read_wav(tmp_path / "out.wav")[2], "<i2")
    assert len(heard) == pytest.approx(96_000, abs=4_800)
    assert np.argmax(np.abs(np.fft.rfft(heard[24_000:72_000]))) == pytest.approx(440, abs=2)


async def test_a_signal_while_nothing_comes_on_standard_input_is_no_error(settings: Settings) -> None:
    source, feeding = os.pipe()
    async with client(settings, "broadcast", "silent", "-", stdin=source) as broadcaster:
        await broadcaster.line(lambda line: line == "waiting for audio on standard input")
        assert await broadcaster.terminate() == 0
    os.close(source)
    os.close(feeding)


async def test_a_result_waits_for_a_reader_that_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "a line of a long table\n" * 20_000
    taken: list[str] = []
    with os.fdopen(reading) as file:
        reader = threading.Thread(target=lambda: taken.append(file.read()))
        with os.fdopen(writing, "w") as output:
            monkeypatch.setattr("sys.stdout", output)
            reader.start()
            show(text, nl=False)
            monkeypatch.undo()
        reader.join()
    assert taken == [text]
