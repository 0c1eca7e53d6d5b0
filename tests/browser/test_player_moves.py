"""A player that moves between nodes of a cluster whose clocks differ."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.async_api import BrowserContext

from tests.browser.listening import Heard, judged, listening
from tests.support.other_clock import nodes_of
from tests.support.processes import RelayProcess

pytestmark = [pytest.mark.ear, pytest.mark.asyncio(loop_scope="session")]

Say = Callable[[str], None]

MOST_APART_SECONDS = 0.005
"""The most by which the delay after a move may differ from the delay before it."""

AFTER_SECONDS = 8


@pytest.mark.parametrize(("pace", "ahead_ms"), [("live", 300), ("speech", -300)])
async def test_a_move_to_a_node_whose_clock_differs_is_not_heard(
    context: BrowserContext, relay: RelayProcess, say: Say, pace: str, ahead_ms: int
) -> None:
    """The delay from mouth to ear stays the same. So does the delay that the player shows."""

    async def listen() -> Heard:
        async with (
            nodes_of(relay.url) as nodes,
            listening(context, relay, pace=pace, through=nodes.url, latency="stable", settled_seconds=8) as here,
        ):
            nodes.move(ahead_ms)
            return await here.hear_a_break(AFTER_SECONDS)

    def judge(heard: Heard) -> None:
        recording, mark = heard.recording, heard.mark
        whole = recording.between(mark - 2, mark + AFTER_SECONDS - 0.2)
        assert whole.rise("reconnects") == 1
        assert whole.verdict.clicks == ()
        assert whole.verdict.silences == ()
        assert [whole.rise(count) for count in ("underruns", "gaps", "jumps")] == [0, 0, 0]
        before = recording.between(mark - 2, mark).delay()
        apart = [whole.delay(mark + second) - before for second in np.arange(0.2, AFTER_SECONDS - 0.4, 0.2)]
        worst = max(apart, key=abs)
        say(f"{pace}, {ahead_ms:+} ms: off by at most {1000 * worst:+.2f} ms, at last {1000 * apart[-1]:+.2f} ms")
        assert abs(worst) <= MOST_APART_SECONDS
        shown = [stats["delayMs"] for stats in recording.of("stats") if whole.start < stats["at"] < whole.end]
        assert max(shown) - min(shown) < 100

    await judged(listen, judge, say)
