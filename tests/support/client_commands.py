"""Helpers for tests of the client commands: processes, pipes and audio."""

import asyncio
import os
import sys
import wave
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.processes import Process, environment

KEY = "a-key-for-the-test"

Settings = Mapping[str, str]


@asynccontextmanager
async def client(
    settings: Settings, *arguments: str, stdin: int = DEVNULL, stdout: int = DEVNULL
) -> AsyncIterator[Process]:
    """Run `relay ARGUMENTS` with these file descriptors, and stop it when the block ends."""
    command = (sys.executable, "-m", "relay", *arguments)
    process = Process(
        await asyncio.create_subprocess_exec(
            *command, stdin=stdin, stdout=stdout, stderr=PIPE, env=environment(settings)
        )
    )
    try:
        yield process
    finally:
        await process.kill()


async def run(settings: Settings, *arguments: str, stdin: int = DEVNULL, stdout: int = DEVNULL) -> Process:
    """Run `relay ARGUMENTS` until it exits."""
    async with client(settings, *arguments, stdin=stdin, stdout=stdout) as process:
        await process.wait()
    return process


@contextmanager
def pipe_holding(content: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe that holds `content` (less than 64 KiB) and has no writer left."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    yield reading
    os.close(reading)


def noise(samples: int, channels: int = 1) -> bytes:
    """Return audio in which no two samples are alike, so that a lost, repeated or swapped sample shows."""
    return np.random.default_rng(samples).integers(-32768, 32768, samples * channels, np.int16).astype("<i2").tobytes()


def write_wav(path: Path, audio: bytes, rate: int = 16_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(audio)
    return path


def read_wav(path: Path) -> tuple[int, int, bytes]:
    with wave.open(str(path)) as reader:
        return reader.getframerate(), reader.getnchannels(), reader.readframes(reader.getnframes())


async def ready(listener: Process) -> None:
    await listener.line(lambda line: line.startswith("listening to "))


def encode(path: Path, codec: str, samples: Any) -> Path:
    """Encode 48 kHz mono with PyAV, in the container that the file name's suffix selects."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", 48_000, frame_size=stream.codec_context.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


async def refused(settings: Settings, *arguments: str, code: int, stdin: int = DEVNULL, stdout: int = DEVNULL) -> str:
    """Run a command that must fail, and return the last line of its error."""
    finished = await run(settings, *arguments, stdin=stdin, stdout=stdout)
    assert finished.returncode == code, finished.text
    assert "Traceback" not in finished.text
    assert finished.lines[-1].startswith("relay: ")
    return finished.lines[-1].removeprefix("relay: ")
