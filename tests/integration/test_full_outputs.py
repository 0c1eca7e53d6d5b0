"""Standard output and standard error that accept nothing: a full disk, or a pipe without a reader."""

import asyncio
import os
import sys
import wave
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import environment, relay_process
from tests.support.tokens import SECRET


@pytest.fixture
def full() -> Iterator[int]:
    """Yield a device on which every write fails."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def unread() -> Iterator[int]:
    """Yield the writing end of a pipe whose reader has closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


async def run(stdout: int, stderr: int, *arguments: str, **settings: str) -> tuple[int | None, str]:
    """Run `relay ARGUMENTS`; return the exit code, and standard error if it is a pipe."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", *arguments, stdout=stdout, stderr=stderr, env=environment(settings)
    )
    async with asyncio.timeout(30):
        _, errors = await child.communicate()
    return child.returncode, (errors or b"").decode()


@pytest.mark.parametrize(
    "arguments",
    [("config",), ("config", "--format", "json"), ("token", "--role", "listen", "--session", "ev1")],
    ids=" ".join,
)
async def test_a_full_standard_output_is_one_sentence(full: int, arguments: tuple[str, ...]) -> None:
    code, errors = await run(full, PIPE, *arguments, RELAY_ACCESS_TOKEN_SECRET=SECRET)
    assert code == 2
    assert errors.splitlines()[-1] == "relay: Standard output cannot be written: No space left on device."
    assert "Traceback" not in errors


async def test_audio_goes_on_when_nobody_can_be_told_about_it(tmp_path: Path, full: int, unread: int) -> None:
    voice = tmp_path / "voice.wav"
    with wave.open(str(voice), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(b"\1\2" * 8_000)
    async with relay_process(RELAY_LOG_LEVEL="debug") as relay:
        url = {"RELAY_CLIENT_URL": relay.url}
        for session, stderr in (("full", full), ("unread", unread)):
            recording = tmp_path / f"{session}.wav"
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(run(DEVNULL, stderr, "listen", session, "-o", str(recording), **url))
                await relay.event("connection opened", role="listen", session=session)
                code, _ = await run(DEVNULL, stderr, "broadcast", session, str(voice), **url)
            assert (code, listening.result()[0]) == (0, 0)
            with wave.open(str(recording)) as reader:
                assert reader.getnframes() == 8_000
