"""The receiving processes, as the main process of a load test sees them.

Invariants: every process that was started has ended when the context is left; they are beyond the terminal's Ctrl-C,
which is for the main process to answer; one that ends by itself is an error of the test, told in one sentence.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from relay.loadtest.worker_messages import (
    REPORT_LINE,
    Report,
    WorkerPlan,
    finish_line,
    settle_line,
    start_line,
)
from relay.vocabulary.errors import RelayError

ANSWER_SECONDS = 30.0
"""How long a process may take to answer; one that does not is stuck."""

END_SECONDS = 5.0
"""How long a process may take to end."""

_MAX_LINE_BYTES = 8 * 1024 * 1024
_MODULE = "relay.loadtest.worker"


class WorkerPool:
    """Receiving processes that do the same at the same time; an async context manager.

    Every method raises `RelayError` when one of them ended or does not answer.
    """

    def __init__(self, plans: Sequence[WorkerPlan]) -> None:
        """Prepare one process for each plan."""
        self._plans = plans
        self._processes: list[Process] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start the processes; they begin to join at once."""
        async with AsyncExitStack() as stack:
            for _ in self._plans:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # or a file of the present folder could take the place of a module
                    "-m",
                    _MODULE,
                    stdin=PIPE,
                    stdout=PIPE,
                    limit=_MAX_LINE_BYTES,
                    start_new_session=True,
                )
                stack.push_async_callback(_end, process)
                self._processes.append(process)
            for process, plan in zip(self._processes, self._plans, strict=True):
                await _ask(process, plan.to_line())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        await self._stack.aclose()

    async def report(self) -> list[Report]:
        """Give what happened in each since its last report."""
        return await self._ask_all(REPORT_LINE, ANSWER_SECONDS)

    async def start(self, at_seconds: float) -> None:
        """Say when the audio begins."""
        for process in self._processes:
            await _ask(process, start_line(at_seconds))

    async def settle(self, published: list[int]) -> list[Report]:
        """Say how many frames each target's channel got, before their listeners are closed."""
        return await self._ask_all(settle_line(published), ANSWER_SECONDS)

    async def finish(self, wait_seconds: float) -> list[Report]:
        """Wait at most that long for what listeners are owed; gives the last reports."""
        return await self._ask_all(finish_line(wait_seconds), ANSWER_SECONDS + wait_seconds)

    async def _ask_all(self, question: bytes, seconds: float) -> list[Report]:
        for process in self._processes:
            await _ask(process, question)
        try:
            async with asyncio.timeout(seconds):
                return [await _read(process) for process in self._processes]
        except TimeoutError as error:
            raise RelayError(f"A receiving process did not answer within {seconds:g} s; this machine hangs.") from error


async def _ask(process: Process, question: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    try:
        process.stdin.write(question)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise await _ended(process) from error


async def _read(process: Process) -> Report:
    assert process.stdout is not None  # noqa: S101 - it was started with a pipe
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise await _ended(process)
    return Report.read(line)


async def _ended(process: Process) -> RelayError:
    code = await process.wait()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return RelayError(f"A receiving process ended by itself, with {how}; what it measured is lost.")


async def _end(process: Process) -> None:
    """Have a process end, which it does with its standard input; killed is only what hangs.

    Killing one that is just ending by itself would take its exit code from asyncio, which then complains.
    """
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    process.stdin.close()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
