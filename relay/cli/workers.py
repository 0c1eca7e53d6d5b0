"""`relay serve --workers`: the supervisor and its workers, which are ordinary relays on the same sockets."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from relay.access.local_key import LocalKey
from relay.cli.access import RelayKeys, choose_keys, read_rules
from relay.cli.app import Inherited, address_for_browsers, running_relay, still_on, store_keys
from relay.cli.output import EXIT_FAILURE, EXIT_USER_ERROR, show_links
from relay.cli.reload import Reload, tell_not_reloaded
from relay.process.event_loop import loop_factory
from relay.process.logs import configure_logging, set_log_level
from relay.process.stopping import first_of, reload_signal, stop_signals
from relay.process.tasks import TaskRegistry
from relay.server.addresses import open_sockets
from relay.server.tls import make_tls
from relay.settings.configuration import KEYS
from relay.settings.settings import ClusterSettings, ServerSettings, Settings
from relay.supervisor.private_nats import private_nats
from relay.supervisor.supervisor import GRACE_SECONDS, Supervisor
from relay.supervisor.worker import SupervisedWorker
from relay.supervisor.worker_process import Outfit
from relay.vocabulary.errors import ConfigurationError, RelayError, UserError

GOODBYE_SECONDS = 5.0
"""How long the supervisor tries to tell the others that a worker has ended. They find out after 15 s without it."""

logger = logging.getLogger(__name__)


def serve_with_workers(settings: Settings, read: Callable[[], Settings], count: int) -> None:
    """Run a supervisor with `count` workers until a signal stops it. `read` returns the current settings.

    Raises:
        ConfigurationError: The settings cannot be used here.
    """
    with asyncio.Runner() as runner:
        runner.run(_supervise(settings, read, count))


async def _supervise(settings: Settings, read: Callable[[], Settings], count: int) -> None:
    supervisor: Supervisor | None = None

    def end_at_once(number: int) -> None:
        if supervisor is not None:
            supervisor.kill()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # the kernel has no default action for process 1

    with stop_signals(end_at_once) as asked:
        keys = _check(settings)
        async with contextlib.AsyncExitStack() as stack:
            sockets = open_sockets(settings.server.host, settings.server.port)
            port = int(sockets[0].getsockname()[1])
            environ, cluster = dict(os.environ), settings.cluster
            if cluster.url is None:
                nats_url = await stack.enter_async_context(private_nats(cluster.max_audio_bytes))
                environ[KEYS["cluster.url"].variable] = nats_url
                cluster = ClusterSettings.model_validate({**dict(cluster), "url": nats_url})
            store_keys(stack, port, keys)
            # Workers get the whole command line, so that all of them read the same configuration.
            outfit = Outfit([*sys.argv[1:], "--supervised"], environ, sockets)
            stop_seconds = _stop_seconds(settings.server)
            goodbye = partial(_say_goodbye, cluster)
            supervisor = Supervisor(outfit, keys.of_own_making, count, stop_seconds, goodbye)
            url = address_for_browsers(settings.server, port)

            def tell_ready() -> None:
                logger.info("relay ready", extra={"url": url, "workers": count})
                if LocalKey.BROADCAST in keys.made:
                    show_links(url, keys.broadcast_key)

            with reload_signal(lambda: _reload(read, settings.server.host, supervisor)):
                await supervisor.run(asked, tell_ready)
    logger.info("relay stopped")


async def _say_goodbye(cluster: ClusterSettings, node_id: str) -> None:
    """Tell the other workers, and the nodes of the cluster, that a worker has ended."""
    try:
        from relay.cluster.nats_memory import say_goodbye  # noqa: PLC0415 - optional

        async with asyncio.timeout(GOODBYE_SECONDS):
            await say_goodbye(cluster, node_id)
    except (RelayError, TimeoutError) as error:
        reason = str(error) or "It took too long."
        logger.warning("the others learn late that a worker ended", extra={"node": node_id, "reason": reason})


def _check(settings: Settings) -> RelayKeys:
    """Find mistakes before a worker does, and return the keys of the relay.

    Raises:
        ConfigurationError: The settings cannot be used here.
    """
    keys = choose_keys(settings)
    read_rules(settings, keys)
    make_tls(settings.server)
    loop_factory(settings.server.loop)
    return keys


def _reload(read: Callable[[], Settings], hosts: tuple[str, ...], supervisor: Supervisor) -> None:
    """Make all workers read the configuration again, if it can be used."""
    try:
        settings = still_on(hosts, read())
        _check(settings)
    except ConfigurationError as error:
        tell_not_reloaded(error)
        return
    set_log_level(settings.log)
    supervisor.reload()


def serve_as_worker(read: Callable[[], Settings]) -> None:
    """Serve as a worker: its supervisor is at the other end of standard input. `read` returns the current settings.

    Raises:
        UserError: No supervisor is there.
    """
    try:
        control = socket.socket(fileno=os.dup(0))
    except OSError as error:
        raise UserError("--supervised is for the workers that a relay starts by itself; use --workers.") from error
    worker = SupervisedWorker(control)
    try:
        settings = read()
        configure_logging(settings.log, worker=worker.assignment.number)
        worker.end_without_supervisor(_stop_seconds(settings.server) + GRACE_SECONDS)
        with asyncio.Runner(loop_factory=loop_factory(settings.server.loop)) as runner:
            is_broken = runner.run(_work(settings, read, worker))
    except UserError as error:
        worker.report_fault(str(error))
        sys.exit(EXIT_USER_ERROR)
    if is_broken:
        sys.exit(EXIT_FAILURE)


async def _work(settings: Settings, read: Callable[[], Settings], worker: SupervisedWorker) -> bool:
    """Run the relay of a worker. Return whether it ended because of an error of its own."""
    tasks = TaskRegistry()
    tasks.start(worker.beat(), "heartbeat")
    made = RelayKeys.made_elsewhere(worker.assignment.keys)
    try:
        # A service manager may signal every process. A second signal does nothing here: the supervisor kills workers.
        with stop_signals(lambda _: None) as asked:
            async with running_relay(settings, Inherited(worker.sockets(), made)) as relay:
                with reload_signal(Reload(relay, settings, read)):
                    logger.info("worker ready", extra={"pid": os.getpid()})
                    worker.report_ready(relay.node_id)
                    await first_of(asked, relay.broken)
    finally:
        await tasks.close()
    logger.info("worker stopped")
    return relay.broken.is_set()


def _stop_seconds(server: ServerSettings) -> float:
    """Return how long a relay may take to stop."""
    return server.shutdown_delay_seconds + server.shutdown_timeout_seconds
