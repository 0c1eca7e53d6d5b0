import asyncio
import os
import signal

from relay.process.stopping import stop_signals, until_stopped


async def test_signals_that_arrive_together_stop_once() -> None:
    """GNU timeout signals its child and the child's group, so two signals arrive before the first one is handled."""
    task = asyncio.current_task()
    assert task is not None
    with until_stopped() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    assert stop.requested
    assert task.cancelling() == 0


async def test_signals_of_two_kinds_that_arrive_together_ask_a_relay_to_stop_once() -> None:
    with stop_signals() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        await asked.wait()
