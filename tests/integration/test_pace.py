"""The programs through restarts, cuts, stalls and a take-over, each watched for a minute, all at the same time.

Every scenario has its own relay. A test compares when a frame is due (in pace live, when it reached the relay) with
when its audio became available. It judges pauses by their share of the minute: a sender that stops and goes spends most
of it in pauses, and a busy machine causes only a few.
"""

import asyncio
import fcntl
import os
import signal
import sys
import threading
import wave
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import pytest

from relay.client import Audio, Reconnect, listen
from relay.vocabulary.clock import relay_clock
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.ports import free_port
from tests.support.processes import Process, environment, relay_process

pytestmark = [pytest.mark.timed, pytest.mark.long]

WATCHED_SECONDS = 60.0
SETTLED_SECONDS = 4.0
LIVE_AGAIN_SECONDS = 3.0
FRAME_SECONDS = 0.02
FRAME_SAMPLES = 320
PIPE_BYTES = 1 << 20
LONG_PAUSE_SECONDS = 0.15 + FRAME_SECONDS
MOST_IN_PAUSES = 0.05
TRIES = 3
"""A sender that stops and goes does so on every try; a machine is rarely too busy on all of them."""

SOON = Reconnect(first_seconds=0.2, max_seconds=0.5)


def numbered(number: int) -> bytes:
    return number.to_bytes(4, "little") * (FRAME_SAMPLES // 2)


class NumberedPipe:
    """Writes numbered frames into a pipe, in real time or at once; after a delay, it writes all overdue frames at once.

    Attributes:
        reading: The end to read from.
        began: When the first frame began, by the relay's clock.
    """

    def __init__(self, *, is_live: bool = True) -> None:
        self.reading, self._writing = os.pipe()
        if is_live:
            # The writer of a live source does not wait for its reader.
            fcntl.fcntl(self._writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._is_live = is_live
        self.began = relay_clock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def start(self, backlog_seconds: float = 0.0) -> None:
        self.began = relay_clock() - backlog_seconds
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        os.close(self.reading)
        if self._thread.is_alive():
            self._thread.join(10)
        os.close(self._writing)

    def _write(self) -> None:
        number = 0
        with suppress(BrokenPipeError):
            while not self._is_over.is_set():
                if self._is_live:
                    sleep(max(0.0, self.began + (number + 1) * FRAME_SECONDS - relay_clock()))
                os.write(self._writing, numbered(number))
                number += 1


class Scenario:
    """A relay that may restart, a sender, and a listener that records every frame.

    Attributes:
        name: The name in failure messages.
        got: When each frame was due, and its number.
        over_at: When each fault was over: when the first frame after it was due.
        began: When a live source began; None if the source can wait.
        must_be_whole: Whether no frame may be missing.
    """

    def __init__(self, name: str, stack: AsyncExitStack) -> None:
        self.name = name
        self.got: list[tuple[float, int]] = []
        self.over_at = list[float]()
        self.began: float | None = None
        self.must_be_whole = False
        self.stack = stack
        self._here = ("--port", str(free_port()))
        self._relays = AsyncExitStack()
        self._news = asyncio.Event()

    async def start(self) -> None:
        self.relay = await self._relays.enter_async_context(relay_process(*self._here))
        self.stack.push_async_callback(self._relays.aclose)
        self.listening = asyncio.ensure_future(self._listen(self.relay.url))
        self.stack.callback(self.listening.cancel)

    async def restart(self) -> None:
        await self.relay.terminate()
        await asyncio.sleep(5)
        self.relay = await self._relays.enter_async_context(relay_process(*self._here))

    async def proxy(self) -> FaultProxy:
        return await self.stack.enter_async_context(fault_proxy(self.relay.url))

    async def pipe(self, url: str, backlog_seconds: float = 0.0) -> Process:
        """Send from a live pipe, in which so much audio waits at first."""
        pipe = NumberedPipe()
        self.stack.callback(pipe.close)
        sender = await self.send(url, "-", "--raw", stdin=pipe.reading)
        # Speech during the start of the program is not part of this test.
        pipe.start(backlog_seconds)
        self.began = pipe.began
        await self.heard(2)
        return sender

    async def file_pipe(self, url: str) -> Process:
        pipe = NumberedPipe(is_live=False)
        self.stack.callback(pipe.close)
        self.must_be_whole = True
        sender = await self.send(url, "-", "--raw", stdin=pipe.reading)
        pipe.start()
        await self.heard(2)
        return sender

    async def send(self, url: str, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL) -> Process:
        sender = await self.stack.enter_async_context(sending(url, *arguments, stdin=stdin))
        await sender.line(lambda line: line.startswith("broadcasting "))
        return sender

    @property
    def missing_seconds(self) -> float:
        """Return how many seconds are missing between the received frames."""
        return sum(later - earlier - 1 for (_, earlier), (_, later) in pairwise(self.got)) * FRAME_SECONDS

    async def heard(self, seconds: float) -> None:
        """Wait until this much more audio has arrived."""
        goal = len(self.got) + seconds / FRAME_SECONDS
        async with asyncio.timeout(60):
            while len(self.got) < goal:
                self._news.clear()
                await self._news.wait()

    async def note_over(self) -> None:
        """Wait for the first frame after a fault, from which time counts."""
        await self.heard(FRAME_SECONDS)
        self.over_at.append(self.got[-1][0])

    async def watch(self) -> None:
        """Watch the frames after the last fault."""
        if not self.over_at:
            await self.note_over()
        await asyncio.sleep(WATCHED_SECONDS)

    def judge(self) -> None:
        over_at = self.over_at[-1]
        settled = over_at + SETTLED_SECONDS
        times = [settled, *(due for due, _ in self.got if due >= settled)]
        pauses = [later - earlier for earlier, later in pairwise(times) if later - earlier > LONG_PAUSE_SECONDS]
        span = WATCHED_SECONDS - SETTLED_SECONDS
        assert times[-1] > over_at + WATCHED_SECONDS / 2, f"{self.name}: it stopped"
        assert sum(pauses) < MOST_IN_PAUSES * span, f"{self.name}: {sum(pauses):.1f} s in pauses, of {pauses[:9]}"
        if self.must_be_whole:
            assert not self.missing_seconds, f"{self.name}: {self.missing_seconds:.2f} s are missing"
        if self.began is not None:
            for over_at in self.over_at:
                lags = self.lags(over_at + LIVE_AGAIN_SECONDS)
                assert median(lags[: round(5 / FRAME_SECONDS)]) < 1, f"{self.name}: late by {lags[::50]}"
            assert median(lags) < 1, f"{self.name}: late by {lags[::50]}"

    def lags(self, after: float) -> list[float]:
        """Return how late each frame that was due after this moment reached the relay."""
        assert self.began is not None
        return [due - self.began - (number + 1) * FRAME_SECONDS for due, number in self.got if due >= after]

    async def _listen(self, url: str) -> None:
        async with listen(url, "ev1", reconnect=SOON) as listener:
            async for event in listener:
                if isinstance(event, Audio):
                    self.got.append((event.header.due_ms / 1000, int.from_bytes(event.payload[:4], "little")))
                    self._news.set()


@asynccontextmanager
async def sending(url: str, *arguments: str, stdin: int) -> AsyncIterator[Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "broadcast", "ev1", *arguments),
        stdin=stdin,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=PIPE,
        env=environment({"RELAY_CLIENT_URL": url}),
    )
    process = Process(child)
    try:
        yield process
    finally:
        await process.kill()


async def stop_for(process: Process, seconds: float) -> None:
    process.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    process.signal(signal.SIGCONT)


async def a_file_over_a_restart(scenario: Scenario, path: Path) -> None:
    await scenario.send(scenario.relay.url, str(path), "--loop")
    await scenario.heard(2)
    await scenario.restart()


async def a_pipe_over_a_restart(scenario: Scenario, _: Path) -> None:
    await scenario.pipe(scenario.relay.url)
    await scenario.restart()


async def a_cut(scenario: Scenario, _: Path) -> None:
    proxy = await scenario.proxy()
    await scenario.pipe(proxy.url)
    proxy.cut()
    await asyncio.sleep(7)
    proxy.mend()


async def a_stalled_network(scenario: Scenario, _: Path) -> None:
    proxy = await scenario.proxy()
    await scenario.pipe(proxy.url)
    await proxy.stall_for(6)


async def a_stopped_sender(scenario: Scenario, _: Path) -> None:
    sender = await scenario.pipe(scenario.relay.url)
    await stop_for(sender, 8)
    await scenario.note_over()
    await scenario.heard(10)
    # How much audio does not fit depends on how fast the backlog is read, but the relay must report all of it.
    async with asyncio.timeout(60):
        while abs(said_seconds(sender) - scenario.missing_seconds) >= FRAME_SECONDS:
            await scenario.heard(1)


async def a_stopped_sender_that_began_with_a_backlog(scenario: Scenario, _: Path) -> None:
    """More audio waits in the pipe than the sender's queue holds. It is live before the next fault, and after it."""
    sender = await scenario.pipe(scenario.relay.url, backlog_seconds=8)
    scenario.over_at.append(scenario.got[0][0])
    await scenario.heard(6)
    await stop_for(sender, 6)
    await scenario.note_over()


async def a_stopped_sender_of_a_file_in_a_pipe(scenario: Scenario, _: Path) -> None:
    sender = await scenario.file_pipe(scenario.relay.url)
    await stop_for(sender, 6)


def said_seconds(sender: Process) -> float:
    lines = (line for line in sender.lines if line.endswith("of audio that came too late to be live"))
    return sum(float(line.split()[1]) for line in lines)


async def a_stopped_relay(scenario: Scenario, _: Path) -> None:
    await scenario.pipe(scenario.relay.url)
    await stop_for(scenario.relay, 6)


async def a_take_over_that_is_taken_back(scenario: Scenario, _: Path) -> None:
    """Another broadcaster takes the channel during a cut; the first takes it back with the audio that it kept."""
    proxy = await scenario.proxy()
    await scenario.pipe(proxy.url)
    proxy.cut()
    silent = NumberedPipe()
    scenario.stack.callback(silent.close)
    async with sending(scenario.relay.url, "-", "--raw", "--takeover", stdin=silent.reading) as other:
        await other.line(lambda line: line.startswith("broadcasting "))
        await asyncio.sleep(3)
        proxy.mend()
        assert await other.wait() == 1


Happening = Callable[[Scenario, Path], Coroutine[Any, Any, None]]

SCENARIOS: tuple[Any, ...] = (
    a_file_over_a_restart,
    a_pipe_over_a_restart,
    a_cut,
    a_stalled_network,
    a_stopped_sender,
    a_stopped_sender_that_began_with_a_backlog,
    a_stopped_sender_of_a_file_in_a_pipe,
    a_stopped_relay,
    a_take_over_that_is_taken_back,
)


async def test_whatever_stood_still_audio_is_even_and_live_again(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(b"".join(map(numbered, range(1000))))

    async def play(happens: Happening) -> Scenario:
        async with AsyncExitStack() as stack:
            scenario = Scenario(happens.__name__, stack)
            await scenario.start()
            await happens(scenario, path)
            await scenario.watch()
        return scenario

    problems = list[AssertionError]()
    happenings: list[Happening] = list(SCENARIOS)
    for _ in range(TRIES):
        uneven = list[Happening]()
        for happens, scenario in zip(happenings, await asyncio.gather(*map(play, happenings)), strict=True):
            try:
                scenario.judge()
            except AssertionError as problem:
                uneven.append(happens)
                problems.append(problem)
        if not uneven:
            return
        happenings = uneven
    raise ExceptionGroup("uneven, or late, each time", problems)
