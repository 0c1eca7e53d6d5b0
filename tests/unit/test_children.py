"""Signals to real child processes."""

import asyncio
import signal
from asyncio.subprocess import create_subprocess_exec

from relay.process.children import signal_child


async def test_a_signal_that_meets_the_end_of_a_child_leaves_its_exit_code() -> None:
    for _ in range(20):
        child = await create_subprocess_exec("sh", "-c", "exit 3")
        while child.returncode is None:
            signal_child(child, signal.SIGCONT)
            await asyncio.sleep(0)
        assert child.returncode == 3


async def test_a_signal_arrives_and_one_to_a_child_that_has_ended_does_nothing() -> None:
    child = await create_subprocess_exec("sleep", "60")
    signal_child(child, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    signal_child(child, signal.SIGTERM)
