"""The thread that runs blocking calls."""

import asyncio
import os
import threading

import pytest

from relay.process.blocking import BlockingThread


async def test_results_and_errors_come_back_in_order() -> None:
    with BlockingThread("test") as thread:
        results = await asyncio.gather(*(thread.call(pow, 2, exponent) for exponent in range(5)))
        assert results == [1, 2, 4, 8, 16]
        with pytest.raises(ZeroDivisionError):
            await thread.call(divmod, 1, 0)
        assert await thread.call(threading.current_thread) is not threading.current_thread()


async def test_the_loop_runs_while_a_call_blocks() -> None:
    reading, writing = os.pipe()
    with BlockingThread("test") as thread:
        read = asyncio.ensure_future(thread.call(os.read, reading, 10))
        await asyncio.sleep(0)
        assert not read.done()
        os.write(writing, b"now")
        assert await read == b"now"
    os.close(reading)
    os.close(writing)


async def test_leaving_does_not_wait_for_a_call_that_never_returns() -> None:
    reading, writing = os.pipe()
    async with asyncio.timeout(5):
        with BlockingThread("test") as thread:
            read = asyncio.ensure_future(thread.call(os.read, reading, 10))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read, 0.01)
    # The call ends now, when nobody waits for its result any more.
    os.close(writing)
    while any(found.name == "test" for found in threading.enumerate()):  # noqa: ASYNC110 - no event announces it
        await asyncio.sleep(0.01)
    os.close(reading)


async def test_a_call_that_was_given_up_before_its_turn_is_not_made() -> None:
    reading, writing = os.pipe()
    made: list[int] = []
    with BlockingThread("test") as thread:
        first = asyncio.ensure_future(thread.call(os.read, reading, 10))
        second = asyncio.ensure_future(thread.call(made.append, 2))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        os.write(writing, b"go")
        await first
        await thread.call(made.append, 3)
    os.close(reading)
    os.close(writing)
    assert made == [3]
