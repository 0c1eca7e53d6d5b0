"""The relay as a program: settings become objects, objects become tasks, signals end them.

Invariant: whatever is started here is stopped here, in the reverse order: the socket, the tasks, the last metrics.
"""

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from relay.adapters.cloudwatch import CloudWatchSender
from relay.adapters.pages import Pages
from relay.adapters.server.admission import Admission
from relay.adapters.server.connection import serialize_binary
from relay.adapters.server.server import RelayServer
from relay.core.audio_buffer_manager import AudioBufferManager
from relay.runtime.drain import Drain
from relay.runtime.hub import Hub
from relay.runtime.reporter import MetricsReporter
from relay.runtime.tasks import TaskRegistry
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import ConfigurationError
from relay.vocabulary.settings import Settings

LAST_FLUSH_SECONDS = 5.0
"""How long the last metrics may take when the relay stops; with the sockets' time it is less than a container waits."""


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A relay that serves.

    Attributes:
        hub: Its channels.
        url: Where a browser on this machine finds it, without a slash at the end.
    """

    hub: Hub
    url: str


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reachable_host(host: str) -> str:
    """Give the address by which this machine itself reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - looked up, not bound


def check_who_may_broadcast(settings: Settings) -> None:
    """Refuse a relay that anybody on the network could broadcast to.

    Raises:
        ConfigurationError: The address is not loopback and there is no broadcast key.
    """
    if settings.broadcast.key is None and not is_loopback(settings.server.host):
        raise ConfigurationError(
            f"server.host is {settings.server.host}, which others can reach, but there is no broadcast key, so anybody "
            "could broadcast. Set RELAY_BROADCAST_KEY (8 to 256 characters, for example from: openssl rand -hex 24), "
            "or listen on 127.0.0.1."
        )


@contextlib.asynccontextmanager
async def running_relay(settings: Settings) -> AsyncIterator[RunningRelay]:
    """Run a relay while the context lasts.

    Raises:
        ConfigurationError: The settings can not be used here; the text says why and what to do.
    """
    check_who_may_broadcast(settings)
    key = settings.broadcast.key
    tasks = TaskRegistry()
    async with contextlib.AsyncExitStack() as stack:
        reporter = await _open_reporter(settings, stack)
        stack.push_async_callback(tasks.close)
        manager = AudioBufferManager(
            settings.listener.max_buffer_seconds, reporter, namespace=settings.cloudwatch.namespace
        )
        drain = Drain(relay_clock, serialize_binary)
        hub = Hub(
            manager,
            drain,
            clock=relay_clock,
            serialize=serialize_binary,
            broadcast=settings.broadcast,
            listener=settings.listener,
        )
        tasks.start(drain.run(), "drain")
        tasks.start(hub.run(), "housekeeping")
        if reporter is not None:
            sample = partial(hub.emit_utilization, per_session=settings.cloudwatch.session_dimension)
            tasks.start(reporter.run(sample), "metrics")
        admission = Admission(hub, Pages(), None if key is None else key.get_secret_value())
        server = await stack.enter_async_context(
            RelayServer(hub, admission, tasks, server=settings.server, listener=settings.listener)
        )
        host = reachable_host(settings.server.host)
        yield RunningRelay(hub, f"http://{f'[{host}]' if ':' in host else host}:{server.port}")


async def _open_reporter(settings: Settings, stack: contextlib.AsyncExitStack) -> MetricsReporter | None:
    """Give the metrics' reporter, if metrics are asked for; `stack` sends the last ones when everything else ended."""
    if not settings.cloudwatch.enabled:
        return None
    sender = await stack.enter_async_context(CloudWatchSender(settings.cloudwatch))
    reporter = MetricsReporter(sender, settings.cloudwatch)
    stack.push_async_callback(reporter.flush, LAST_FLUSH_SECONDS)
    return reporter


async def until_asked_to_stop() -> None:
    """Wait for SIGTERM or SIGINT; a second one ends the process at once, as it would without this."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, asked.set)
    try:
        await asked.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
