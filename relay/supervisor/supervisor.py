"""Keeps a number of workers running behind the same sockets.

Invariants: A worker that ended is started again, unless the supervisor stops. The listening sockets stay open while a
worker is replaced, so no connection is refused. When `run` returns, no worker is left. If this process is killed, its
workers stop by themselves (`relay.supervisor.worker`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping

from relay.access.local_key import LocalKey
from relay.process.stopping import first_of
from relay.process.tasks import TaskRegistry
from relay.supervisor.backoff import Backoff
from relay.supervisor.control import Assignment
from relay.supervisor.worker_process import Outfit, WorkerProcess, describe_exit
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import ConfigurationError, RelayError

GRACE_SECONDS = 0.5
"""How much longer than `stop_seconds` a worker may take to stop, because its interpreter has to exit, too."""

ORDERLY = describe_exit(0)
"""How a worker ends that stopped by itself. It has said goodbye to the cluster."""

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs workers.

    Args:
        outfit: What the workers have in common.
        keys: The keys that the relay made for all workers.
        count: How many workers.
        stop_seconds: How long a worker may take to stop.
        say_goodbye: Tells the cluster that a node has ended, when its worker could not do so itself.
    """

    def __init__(
        self,
        outfit: Outfit,
        keys: Mapping[LocalKey, str],
        count: int,
        stop_seconds: float,
        say_goodbye: Callable[[str], Coroutine[object, object, None]],
    ) -> None:
        self._outfit = outfit
        self._keys = keys
        self._count = count
        self._stop_seconds = stop_seconds
        self._say_goodbye = say_goodbye
        self._tasks = TaskRegistry()
        self._workers: dict[int, WorkerProcess] = {}
        self._not_ready = set(range(1, count + 1))
        self._all_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._fault = ""

    async def run(self, asked: asyncio.Event, tell_ready: Callable[[], None]) -> None:
        """Run the workers until `asked` is set, and stop them. Call `tell_ready` when all serve clients.

        Raises:
            ConfigurationError: A worker could not start because of the configuration, before all were ready.
            RelayError: The supervisor itself failed; the log says why.
        """
        for number in range(1, self._count + 1):
            self._tasks.start(self._keep(number), f"worker {number}", is_vital=True)
        over = (asked, self._failed, self._tasks.broken)
        try:
            await first_of(self._all_ready, *over)
            if not any(event.is_set() for event in over):
                tell_ready()
                await first_of(*over)
        finally:
            await self._stop()
        if self._failed.is_set():
            raise ConfigurationError(self._fault)
        if self._tasks.broken.is_set():
            raise RelayError("The supervisor failed; the log has the traceback. Start the relay again.")

    def reload(self) -> None:
        """Make all workers read their configuration again."""
        for worker in self._workers.values():
            worker.reload()

    def kill(self) -> None:
        """End all workers at once, without an orderly stop."""
        for worker in self._workers.values():
            worker.kill()

    async def _keep(self, number: int) -> None:
        """Keep a worker with this number running."""
        assignment = Assignment(number, tuple(sock.fileno() for sock in self._outfit.sockets), self._keys)
        backoff = Backoff()
        while not self._stopping.is_set():
            started = relay_clock()
            try:
                how = await self._live(assignment)
            except OSError as error:
                how = error.strerror or str(error)
            if self._stopping.is_set() or self._failed.is_set():
                return
            lived = relay_clock() - started
            wait = backoff.wait_seconds(lived)
            logger.log(
                logging.INFO if how == ORDERLY else logging.ERROR,
                "a worker ended and is started again",
                extra={
                    "worker": number,
                    "ended_with": how,
                    "lived_seconds": round(lived, 1),
                    "wait_seconds": round(wait, 1),
                },
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    async def _live(self, assignment: Assignment) -> str:
        """Run one worker to its end, and return how it ended."""
        number = assignment.number
        worker = await WorkerProcess.start(self._outfit, assignment, lambda: self._note_ready(number))
        self._workers[number] = worker
        try:
            if self._stopping.is_set():
                worker.stop()
            how = await worker.until_ended()
        finally:
            del self._workers[number]
        if worker.node_id and how != ORDERLY and not self._stopping.is_set():
            self._tasks.start(self._say_goodbye(worker.node_id), f"goodbye of worker {number}")
        if worker.fault is None:
            return how
        if not self._all_ready.is_set():
            self._fault = worker.fault
            self._failed.set()
        return worker.fault

    def _note_ready(self, number: int) -> None:
        self._not_ready.discard(number)
        if not self._not_ready:
            self._all_ready.set()

    async def _stop(self) -> None:
        """Stop all workers at the same time. Kill those that take too long."""
        self._stopping.set()
        logger.info("relay stopping", extra={"workers": len(self._workers)})
        for sock in self._outfit.sockets:
            sock.close()
        for worker in self._workers.values():
            worker.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stop_seconds + GRACE_SECONDS):
                await self._tasks.join()
        if self._workers:
            logger.warning("workers that did not stop in time are killed", extra={"workers": sorted(self._workers)})
        self.kill()
        await self._tasks.join()
