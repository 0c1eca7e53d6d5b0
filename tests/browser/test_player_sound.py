"""The player over good and bad networks, judged by recordings of what it plays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from tests.browser.ear import Ear
from tests.browser.listening import Heard, judged, listening
from tests.support.processes import RelayProcess, relay_process
from tests.support.recording import Piece
from tests.support.ruler import TONE

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

Say = Callable[[str], None]

HARD = 0.01
"""Around missing sound, opposite phases may meet: a 1 ms crossfade breaks the tone by 0.006, a hard cut by 1."""


def assert_continuous(piece: Piece) -> None:
    """Fail unless the tone is unbroken and every moment of the ruler is heard once."""
    verdict = piece.verdict
    assert verdict.clicks == ()
    assert verdict.silences == ()
    path = piece.path
    assert path.jumps == []
    assert path.unknown_seconds == 0


def distance_from_target(heard: Heard, after: float) -> float:
    """Return by how many seconds the delay moved away from the target between the mark and `after` seconds later."""
    recording, mark = heard.recording, heard.mark
    before, then = recording.between(mark - 1, mark), recording.between(mark + after, mark + after + 0.5)
    target_rise: float = (recording.stats(then.end)["targetMs"] - recording.stats(mark)["targetMs"]) / 1000
    return then.delay() - before.delay() - target_rise


async def test_half_a_minute_over_a_good_network_is_played_as_it_was_sent(
    context: BrowserContext, relay: RelayProcess, say: Say
) -> None:
    async def listen_to(rate: int, frame_seconds: float) -> Heard:
        # The largest delay hides most delays of the machine.
        async with listening(context, relay, rate=rate, frame_seconds=frame_seconds, latency="stable") as here:
            return await here.hear(30.1)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark, heard.mark + 30)
        assert_continuous(piece)
        verdict = piece.verdict
        assert abs(verdict.worst_level_db()) < 0.5
        assert verdict.worst_pitch_error(TONE) < 0.5

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(judged(partial(listen_to, 48_000, 0.02), judge, say))
        tasks.create_task(judged(partial(listen_to, 16_000, 0.256), judge, say))


async def test_frames_that_arrive_five_at_a_time_never_run_out(
    context: BrowserContext, relay: RelayProcess, say: Say
) -> None:
    def five_at_a_time(ear: Ear) -> None:
        ear.faults.down.group_seconds = 0.1

    async def listen() -> Heard:
        async with listening(context, relay, prepare=five_at_a_time, latency="low") as here:
            return await here.hear(10.1)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark, heard.mark + 10)
        verdict = piece.verdict
        assert verdict.clicks == ()
        assert verdict.silences == ()
        assert piece.skips() == []
        assert piece.rise("underruns") == 0
        assert piece.rise("concealedMs") == 0

    await judged(listen, judge, say)


async def test_a_stall_of_300_ms_is_caught_up_without_a_jump(
    context: BrowserContext, relay: RelayProcess, say: Say
) -> None:
    async def listen() -> Heard:
        async with listening(context, relay) as here:
            await here.ear.faults.stall_for(0.3)
            return await here.hear(7)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark, heard.mark + 6.8)
        assert [click for click in piece.verdict.clicks if click.height > HARD] == []
        assert piece.skips() == []
        assert piece.rise("jumps") == 0
        assert abs(distance_from_target(heard, 0.3 + 6)) <= 0.060

    await judged(listen, judge, say)


async def test_a_stall_of_3_s_is_caught_up_by_one_jump(context: BrowserContext, relay: RelayProcess, say: Say) -> None:
    async def listen() -> Heard:
        async with listening(context, relay) as here:
            await here.ear.faults.stall_for(3)
            return await here.hear(7)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark, heard.mark + 6.8)
        assert [click for click in piece.verdict.clicks if click.height > HARD] == []
        assert len(piece.skips()) == 1
        assert piece.rise("jumps") == 1
        assert abs(distance_from_target(heard, 3 + 2)) <= 0.100

    await judged(listen, judge, say)


@pytest_asyncio.fixture(loop_scope="session")
async def forgetful_relay() -> AsyncIterator[RelayProcess]:
    """A relay that keeps at most half a second for a listener."""
    async with relay_process(RELAY_LISTENER_MAX_BUFFER_SECONDS="0.5") as process:
        yield process


async def test_what_the_relay_dropped_is_one_splice(
    context: BrowserContext, forgetful_relay: RelayProcess, say: Say
) -> None:
    """A path with 2.0 s of latency stops reading for a while and then shortens; the relay drops the audio between.

    The path holds more audio than the stall lasts, so the player never runs out.
    """

    def long_path(ear: Ear) -> None:
        ear.faults.down.latency_seconds = 2.0

    async def listen() -> Heard:
        async with listening(context, forgetful_relay, prepare=long_path) as here:
            await here.ear.faults.down.ignore_for(1.9)
            # The remaining delay, about 0.7 s, is well below the delay at which a player jumps.
            here.ear.faults.down.latency_seconds = 0.3
            return await here.hear(6)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark, heard.mark + 5.8)
        assert piece.rise("gapMs") == pytest.approx(1000, abs=300)
        verdict = piece.verdict
        assert verdict.clicks == ()
        assert [silence for silence in verdict.silences if silence.seconds > 0.010] == []
        assert len(piece.skips()) == 1

    await judged(listen, judge, say)


async def test_a_killed_socket_is_not_heard(context: BrowserContext, relay: RelayProcess, say: Say) -> None:
    async def listen() -> Heard:
        async with listening(context, relay, latency="stable") as here:
            return await here.hear_a_break(5)

    def judge(heard: Heard) -> None:
        piece = heard.recording.between(heard.mark - 1, heard.mark + 4.8)
        assert piece.rise("reconnects") == 1
        assert_continuous(piece)

    await judged(listen, judge, say)
