"""Tasks end with their registry."""

import asyncio

from relay.process.tasks import TaskRegistry


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed: list[str] = []
    has_begun = asyncio.Event()

    async def work() -> None:
        try:
            has_begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.append("as some libraries do")
        await asyncio.Event().wait()

    tasks = TaskRegistry()
    tasks.start(work(), "work")
    await has_begun.wait()
    await tasks.close()
    assert swallowed == ["as some libraries do"]
    assert len(tasks) == 0
