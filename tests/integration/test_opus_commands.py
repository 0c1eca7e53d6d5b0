"""`relay broadcast --codec opus` and `relay listen` to Ogg Opus, as a person runs them."""

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import pytest_asyncio

from relay.media.ogg_opus import OpusPackets
from relay.vocabulary.audio import AudioFormat, Codec
from tests.support.client_commands import KEY, Settings, client, encode, noise, read_wav, ready, refused, run, write_wav
from tests.support.processes import RelayProcess, few_at_once, relay_process
from tests.support.tone import sine, to_pcm

pytestmark = pytest.mark.asyncio(loop_scope="module")

TONE = 440


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as process:
        yield process


@pytest.fixture
def settings(relay: RelayProcess) -> Settings:
    return {"RELAY_CLIENT_URL": relay.url, "RELAY_BROADCAST_KEY": KEY}


def packets_in(data: bytes) -> list[bytes]:
    return list(OpusPackets(io.BytesIO(data)))


def decoded(path: Path) -> Any:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", 48_000)
        frames = [each for frame in container.decode(audio=0) for each in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def assert_tone(samples: Any, rate: int, seconds: float) -> None:
    assert len(samples) == pytest.approx(seconds * rate, abs=0.03 * rate)
    assert np.argmax(np.abs(np.fft.rfft(samples[rate // 2 : rate // 2 + rate]))) == pytest.approx(TONE, abs=1)


def opus_file(path: Path, seconds: int = 2) -> Path:
    return encode(path, "libopus", np.frombuffer(to_pcm(sine(TONE, 48_000, seconds)), np.int16))


async def test_a_file_of_opus_is_recorded_packet_by_packet(tmp_path: Path, settings: Settings) -> None:
    sent = opus_file(tmp_path / "sent.opus")
    packets = packets_in(sent.read_bytes())
    async with client(settings, "listen", "exact", "-o", str(tmp_path / "received.opus")) as listener:
        await ready(listener)
        broadcaster = await run(settings, "broadcast", "exact", str(sent), "--codec", "opus")
        assert await listener.wait() == 0, listener.text
    assert broadcaster.returncode == 0, broadcaster.text
    assert packets_in((tmp_path / "received.opus").read_bytes()) == packets
    seconds = f"{len(packets) / 50:.2f}"
    url = settings["RELAY_CLIENT_URL"]
    assert broadcaster.lines == [
        f"broadcasting sent.opus (Opus, 48000 Hz, mono) to exact/main at {url}",
        f"sent {seconds} s of audio",
    ]
    assert listener.lines[-1] == f"received {seconds} s of audio, lost 0.00 s in 0 gap(s)"


async def test_a_pipe_of_opus_goes_to_a_pipe_packet_by_packet(tmp_path: Path, settings: Settings) -> None:
    content = opus_file(tmp_path / "sent.opus", 1).read_bytes()
    reading, writing = os.pipe()
    source, feeding = os.pipe()
    async with client(settings, "listen", "pipes", "--codec", "opus", stdout=writing) as listener:
        os.close(writing)
        await ready(listener)
        async with client(settings, "broadcast", "pipes", "-", "--codec", "opus", stdin=source) as broadcaster:
            os.close(source)
            # The beginning arrives in pieces, and reveals the format only with the second.
            os.write(feeding, content[:10])
            await broadcaster.line(lambda line: line == "waiting for audio on standard input")
            os.write(feeding, content[10:])
            os.close(feeding)
            assert await broadcaster.wait() == 0, broadcaster.text
        with os.fdopen(reading, "rb") as output:
            received = await asyncio.to_thread(output.read)
        assert await listener.wait() == 0, listener.text
    assert packets_in(received) == packets_in(content)


@pytest.mark.parametrize("rate", [16_000, 44_100])
async def test_a_wav_file_is_encoded(tmp_path: Path, settings: Settings, rate: int) -> None:
    sent = write_wav(tmp_path / "sent.wav", to_pcm(sine(TONE, rate, 2)), rate)
    session = f"encoded-{rate}"
    options = ("--codec", "opus", "--bitrate", "32000", "--frame-ms", "40")
    async with client(settings, "listen", session, "-o", str(tmp_path / "out.opus")) as listener:
        await ready(listener)
        broadcaster = await run(settings, "broadcast", session, str(sent), *options)
        assert await listener.wait() == 0, listener.text
    assert broadcaster.returncode == 0, broadcaster.text
    packets = packets_in((tmp_path / "out.opus").read_bytes())
    assert {AudioFormat(Codec.OPUS, 48_000).measure(packet).seconds for packet in packets} == {0.04}
    assert sum(map(len, packets)) * 8 / 2 == pytest.approx(32_000, rel=0.25)
    assert_tone(decoded(tmp_path / "out.opus"), 48_000, 2.04)


async def test_a_listener_gets_the_codec_that_its_file_needs(tmp_path: Path, settings: Settings) -> None:
    pcm = to_pcm(sine(TONE, 16_000, 2))
    sent = write_wav(tmp_path / "sent.wav", pcm)
    opus = opus_file(tmp_path / "sent.opus")
    broadcasts = {"from-pcm": (str(sent),), "from-opus": (str(opus), "--codec", "opus", "--rate", "16000")}
    for session, arguments in broadcasts.items():
        files = [tmp_path / f"{session}.wav", tmp_path / f"{session}.ogg"]
        async with (
            client(settings, "listen", session, "-o", str(files[0])) as wav,
            client(settings, "listen", session, "-o", str(files[1])) as ogg,
        ):
            await ready(wav)
            await ready(ogg)
            assert (await run(settings, "broadcast", session, *arguments)).returncode == 0
            assert (await wav.wait(), await ogg.wait()) == (0, 0), wav.text + ogg.text
        rate, channels, received = read_wav(files[0])
        assert (rate, channels) == (16_000, 1)
        assert_tone(np.frombuffer(received, "<i2"), 16_000, 2)
        assert_tone(decoded(files[1]), 48_000, 2)
        if session == "from-pcm":
            assert received == pcm
        else:
            assert packets_in(files[1].read_bytes()) == packets_in(opus.read_bytes())


async def test_opus_that_can_not_be_meant_is_one_sentence(tmp_path: Path, settings: Settings) -> None:
    good = str(write_wav(tmp_path / "good.wav", noise(1600)))
    wav, opus = str(tmp_path / "a.wav"), str(tmp_path / "a.opus")
    calls = {
        ("broadcast", "ev1", good, "--bitrate", "24000"): "--bitrate is for Opus; add --codec opus.",
        ("broadcast", "ev1", good, "--codec", "opus", "--frame-ms", "25"): (
            "--frame-ms 25: with --codec opus, it is one of 5, 10, 20, 40, 60."
        ),
        ("listen", "ev1", "-o", wav, "--codec", "opus"): (
            f"--codec opus does not go into {wav}; choose another name, or leave --codec out."
        ),
        ("listen", "ev1", "-o", opus, "--codec", "pcm_s16le"): (
            f"--codec pcm_s16le does not go into {opus}; choose another name, or leave --codec out."
        ),
    }
    assert await few_at_once(refused(settings, *arguments, code=2) for arguments in calls) == list(calls.values())
