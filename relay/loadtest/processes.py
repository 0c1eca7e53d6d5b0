"""The receiving processes, as seen from the main process of a load test.

Invariants: every started process has ended when the block is left; none gets the terminal's Ctrl-C, which the main
process handles; a process that ends by itself is an error of the test, reported in one sentence.
"""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection, Pipe

from relay.loadtest.account import Report
from relay.loadtest.plan import WorkerPlan
from relay.loadtest.worker import Finish, Question
from relay.process.children import signal_child
from relay.vocabulary.errors import RelayError

ANSWER_SECONDS = 30.0
"""How long a process may take to answer. After that it counts as stuck."""

END_SECONDS = 5.0
"""How long a process may take to end."""

_COMMAND = "from relay.loadtest.worker import main; main()"


class _Worker:
    """One receiving process and our end of its connection."""

    def __init__(self, process: Process, connection: "Connection[Question | WorkerPlan, Report]") -> None:
        self._process = process
        self._connection = connection

    async def send(self, message: Question | WorkerPlan) -> None:
        try:
            # A plan may be larger than the pipe. Then sending waits until the process has started.
            await asyncio.to_thread(self._connection.send, message)
        except ConnectionError as error:
            raise await self._ended() from error

    async def receive(self) -> Report:
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection.fileno())
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise await self._ended() from error

    async def end(self) -> None:
        """Close the connection, on which the process ends. Kill it only if it hangs."""
        self._connection.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            signal_child(self._process, signal.SIGKILL)
            await self._process.wait()

    async def _ended(self) -> RelayError:
        code = await self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RelayError(
            f"A receiving process ended early, with {how}, and its measurements are lost; run the test again."
        )


class Workers:
    """Receiving processes that get the same questions at the same time."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers

    async def ask(self, question: Question) -> list[Report]:
        """Ask all processes the same question, and return their reports in the order of their plans.

        Raises:
            RelayError: A process ended or does not answer.
        """
        seconds = ANSWER_SECONDS + (question.wait_seconds if isinstance(question, Finish) else 0)
        async with _answer_within(seconds):
            for worker in self._workers:
                await worker.send(question)
            return [await worker.receive() for worker in self._workers]


@asynccontextmanager
async def running_workers(plans: Sequence[WorkerPlan]) -> AsyncIterator[Workers]:
    """Run a receiving process for each plan. They join at once, and have ended when the block is left.

    Raises:
        RelayError: A process ended or does not accept its plan.
    """
    async with AsyncExitStack() as stack:
        workers = []
        for _ in plans:
            worker = await _start_worker()
            stack.push_async_callback(worker.end)
            workers.append(worker)
        async with _answer_within(ANSWER_SECONDS):
            for worker, plan in zip(workers, plans, strict=True):
                await worker.send(plan)
        yield Workers(workers)


@asynccontextmanager
async def _answer_within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RelayError(
            f"A receiving process did not answer within {seconds:g} s; this machine is overloaded."
        ) from error


async def _start_worker() -> _Worker:
    ours, theirs = Pipe()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # otherwise a file in the current folder could replace a module
            "-c",
            _COMMAND,
            stdin=theirs.fileno(),
            start_new_session=True,
        )
    return _Worker(process, ours)
