"""The relay as a program: settings become objects, objects become tasks, and signals end them.

Invariant: everything that starts here stops here, in reverse order: the socket, the tasks, the last metrics.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from relay.access.local_key import runtime_directory, stored_key
from relay.access.rules import Access
from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.cli.access import RelayKeys, choose_keys, read_rules
from relay.hub.drain import Drain
from relay.hub.hub import Hub
from relay.hub.lag import LagMeter
from relay.hub.operations import Operations
from relay.hub.rendition import OpusRenditions, Renditions
from relay.hub.transcoding import Transcoding
from relay.hub.vital_signs import VitalSigns
from relay.limits.addresses import TrustedProxies
from relay.limits.in_force import LimitsInForce
from relay.limits.seats import Seats
from relay.media.programme import ProgrammeSettings
from relay.media.transcoding import OpusEncoding
from relay.metrics.cloudwatch import CloudWatchSender
from relay.metrics.levels import NodeLevels
from relay.metrics.prometheus import Page, PrometheusMetrics
from relay.metrics.reporter import MetricsReporter
from relay.pages.files import Pages
from relay.pages.qr_codes import QrCodes
from relay.process.blocking import BlockingThread
from relay.process.clock_id import find_clock_id
from relay.process.garbage import Garbage
from relay.process.tasks import TaskRegistry
from relay.server.admission import Admission
from relay.server.door import Door
from relay.server.endings import Endings
from relay.server.operator_api import OperatorApi
from relay.server.ports import send_whole, serialize_binary
from relay.server.rechecks import Rechecks
from relay.server.server import RelayServer
from relay.server.shutdown import ShutdownPlan
from relay.server.tls import make_tls, renew_tls
from relay.settings.settings import CloudWatchSettings, OpusSettings, ServerSettings, Settings, StreamSettings
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.clock import relay_clock, wall_clock
from relay.vocabulary.containers import Container
from relay.vocabulary.errors import UserError
from relay.vocabulary.hosts import public_host, reachable_host
from relay.vocabulary.labels import Declaration

if TYPE_CHECKING:
    from relay.cli.nodes import ClusterNode

TRANSCODING_THREADS = max(1, min(4, (os.cpu_count() or 1) - 1))
"""Threads that encode and decode. They leave a core to the event loop, and four of them serve 400 channels."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A running relay.

    Attributes:
        hub: Its channels.
        url: Its address for a browser on this machine, without a slash at the end.
        keys: What broadcasters and operators may present in place of a token, as of the start.
        admission: Answers opening handshakes.
        rechecks: Checks open connections against the access rules again.
        limits: Limits for clients.
        door: Admits clients, and knows the trusted proxies.
        server: Listens, and has the TLS context for new connections.
        hosts: Addresses to listen on, as of the start.
        node_id: Its name as a node of the cluster; empty without a cluster.
        broken: Set when the relay no longer works, by a fault of its own that the log names. Stop it then.
    """

    hub: Hub
    url: str
    keys: RelayKeys
    admission: Admission
    rechecks: Rechecks
    limits: LimitsInForce
    door: Door
    server: RelayServer
    hosts: tuple[str, ...]
    node_id: str
    broken: asyncio.Event

    def replace(self, settings: Settings) -> int:
        """Apply the keys, limits, trusted proxies and certificate of other settings.

        Only clients that the new keys reject are disconnected. Keys that the relay made itself stay, as long as the
        settings have none.

        Returns:
            Number of connections that are being closed.

        Raises:
            ConfigurationError: The settings cannot be used here; nothing has changed.
        """
        rules = read_rules(settings, choose_keys(still_on(self.hosts, settings)).kept_from(self.keys))
        self.server.tls = renew_tls(self.server.tls, settings.server)
        self.limits.settings = settings.limits
        self.door.allow_connections()
        self.door.trusted = TrustedProxies(settings.server.trusted_proxies)
        self.admission.allowed_origins = settings.access.allowed_origins
        self.admission.token_in_query = settings.access.token_in_query
        return self.rechecks.replace(rules)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a relay that is a worker has from its supervisor.

    Attributes:
        sockets: The sockets on which it listens.
        keys: The keys that the supervisor made, and stored.
    """

    sockets: Sequence[socket.socket]
    keys: RelayKeys


@contextlib.asynccontextmanager
async def running_relay(settings: Settings, inherited: Inherited | None = None) -> AsyncIterator[RunningRelay]:
    """Run a relay within the context; `inherited` makes it a worker.

    Raises:
        ConfigurationError: The settings cannot be used here. The text says why and what to do.
    """
    keys = choose_keys(settings)
    if inherited is not None:
        keys = keys.kept_from(inherited.keys)
    access = Access(read_rules(settings, keys), wall_clock)
    tls = make_tls(settings.server)
    plan = ShutdownPlan.within(settings.server.shutdown_timeout_seconds, settings.server.shutdown_window_seconds)
    tasks = TaskRegistry()
    async with contextlib.AsyncExitStack() as stack:
        reporter = await _open_reporter(settings, plan, stack)
        stack.push_async_callback(tasks.close)
        manager = AudioBufferManager(
            settings.listener.max_buffer_seconds, reporter, namespace=settings.cloudwatch.namespace
        )
        limits = LimitsInForce(settings.limits)
        stack.callback(limits.tell)
        tasks.start(limits.run(), "limits")
        drain = Drain(relay_clock, serialize_binary)
        transcoding = _start_transcoding(settings, drain, tasks, stack)
        hub = Hub(
            manager,
            drain,
            clock=relay_clock,
            clock_id=find_clock_id(),
            serialize=serialize_binary,
            send=os.write if tls is None else send_whole,
            broadcast=settings.broadcast,
            listener=settings.listener,
            declared=[Declaration.read(text) for text in settings.channel.declared],
            limits=limits,
            transcoding=transcoding,
        )
        stack.callback(hub.broadcasting.close)
        tasks.start(drain.run(), "drain", is_vital=True)
        tasks.start(hub.run(), "housekeeping", is_vital=True)
        garbage = stack.enter_context(Garbage(hub.listening))
        tasks.start(garbage.run(), "garbage")
        lag = LagMeter(relay_clock, lambda: drain.busy_seconds)
        tasks.start(lag.run(), "lag", is_vital=True)
        endings = Endings()
        seats = Seats()
        operations = Operations(hub, relay_clock)
        node = await _join_cluster(settings, hub, seats, operations, stack)
        holders = () if node is None else node.holders
        signs = VitalSigns(hub, lag, relay_clock, (access, endings, limits, reporter, *holders))
        tasks.start(signs.run(), "vital signs")
        if reporter is not None:
            sample = await _make_sample(hub, signs, reporter, settings.cloudwatch, stack, node=node)
            tasks.start(reporter.run(sample), "metrics")
            # The last metrics include everything counted since the last sample.
            stack.callback(sample)
        rechecks = Rechecks(access)
        tasks.start(rechecks.run(), "rechecks of access", is_vital=True)
        stack.callback(rechecks.tell_refusals)
        admission = Admission(
            hub,
            Pages(),
            QrCodes(),
            access,
            limits,
            metrics=await _make_page(signs, node, stack, is_worker=inherited is not None)
            if settings.prometheus.enabled
            else None,
            allowed_origins=settings.access.allowed_origins,
            is_private=public_host(settings.server.host) is None,
            token_in_query=settings.access.token_in_query,
        )
        operators = OperatorApi(operations if node is None else node.operations, access)
        trusted = TrustedProxies(settings.server.trusted_proxies)
        door = Door(admission, operators, limits, lag, trusted, seats=seats)
        server = await stack.enter_async_context(
            RelayServer(
                hub,
                door,
                rechecks,
                limits,
                tasks,
                endings=endings,
                tls=tls,
                plan=plan,
                server=settings.server,
                listener=settings.listener,
                sockets=None if inherited is None else inherited.sockets,
            )
        )
        if inherited is None:
            store_keys(stack, server.port, keys)
        url = address_for_browsers(settings.server, server.port)
        yield RunningRelay(
            hub=hub,
            url=url,
            keys=keys,
            admission=admission,
            rechecks=rechecks,
            limits=limits,
            door=door,
            server=server,
            hosts=settings.server.host,
            node_id="" if node is None else node.bus.node_id,
            broken=tasks.broken,
        )


def _start_transcoding(
    settings: Settings, drain: Drain, tasks: TaskRegistry, stack: contextlib.AsyncExitStack
) -> Transcoding:
    """Start the threads that encode and decode, until `stack` ends."""
    renditions, programmes = _find_renditions(settings.opus), _find_programmes(settings.opus, settings.stream)
    transcoding = Transcoding(renditions, drain, relay_clock, programmes)
    _tell_missing(transcoding)
    for number in range(TRANSCODING_THREADS):
        thread = stack.enter_context(BlockingThread(f"transcoding {number}"))
        tasks.start(transcoding.run(thread), f"transcoding {number}", is_vital=True)
    return transcoding


async def _join_cluster(
    settings: Settings, hub: Hub, seats: Seats, operations: Operations, stack: contextlib.AsyncExitStack
) -> "ClusterNode | None":
    """Become a node of the cluster until `stack` ends. Without a cluster, none of its modules is imported."""
    if settings.cluster.url is None:
        return None
    from relay.cli.nodes import cluster_node  # noqa: PLC0415 - optional

    return await stack.enter_async_context(cluster_node(settings, hub, seats, operations))


def _find_renditions(settings: OpusSettings) -> Renditions:
    """Return the renditions that this machine can make, and log what is missing."""
    encoding = OpusEncoding(settings.bitrate, settings.complexity, settings.frame_ms) if settings.enabled else None
    renditions = OpusRenditions(encoding)
    try:
        # This rate needs a resampler, which is found now and not when the first listener comes.
        for source, wanted in (
            (AudioFormat(rate=44_100), Codec.OPUS),
            (AudioFormat(Codec.OPUS, 48_000), Codec.PCM_S16LE),
        ):
            renditions.make(source, wanted)
    except UserError as error:
        logger.warning("Opus is passed on, but neither encoded nor decoded", extra={"reason": str(error)})
    return renditions


def _find_programmes(opus: OpusSettings, stream: StreamSettings) -> ProgrammeSettings | None:
    encoding = OpusEncoding(opus.bitrate, opus.complexity, opus.frame_ms)
    return ProgrammeSettings(encoding, stream.mp3_bitrate) if stream.enabled else None


def _tell_missing(transcoding: Transcoding) -> None:
    """Log which HTTP streams this machine cannot make."""
    if not transcoding.makes_programmes:
        return
    for container in Container:
        if (missing := transcoding.find_missing(container)) is not None:
            extra = {"address": f"/stream/SESSION{container.ending}", "reason": missing}
            logger.warning("the relay cannot serve an HTTP stream", extra=extra)


def still_on(hosts: tuple[str, ...], settings: Settings) -> Settings:
    """Return new settings for a relay that keeps listening on these hosts until it is started again."""
    return settings.model_copy(update={"server": settings.server.model_copy(update={"host": hosts})})


def address_for_browsers(server: ServerSettings, port: int) -> str:
    """Return the address of a relay for a browser on this machine, without a slash at the end."""
    host = reachable_host(server.host)
    scheme = "http" if server.tls_certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def store_keys(stack: contextlib.AsyncExitStack, port: int, keys: RelayKeys) -> None:
    """Store the keys that the relay made, where commands of the same user find them, until `stack` ends."""
    try:
        for kind, key in keys.of_own_making.items():
            stack.enter_context(stored_key(runtime_directory(os.environ), kind, port, key))
    except OSError as error:
        reason = error.strerror or str(error)
        logger.warning("the relay could not store its keys for other commands", extra={"reason": reason})


async def _make_page(
    signs: VitalSigns, node: "ClusterNode | None", stack: contextlib.AsyncExitStack, *, is_worker: bool
) -> Page:
    """Return what makes the page of metrics. That of a worker has the figures of all workers that share its port."""
    metrics = PrometheusMetrics(signs.look, None if node is None else node.bus.node_id)
    if node is None or not is_worker:
        return metrics.page
    return (await node.share_page(metrics, stack)).page


async def _make_sample(
    hub: Hub,
    signs: VitalSigns,
    reporter: MetricsReporter,
    settings: CloudWatchSettings,
    stack: contextlib.AsyncExitStack,
    *,
    node: "ClusterNode | None",
) -> Callable[[], None]:
    """Return what sends CloudWatch the current measurements, and the counts since the last call."""
    if node is None:
        return partial(_sample, hub, signs, reporter.put_metric_data, settings)
    levels = NodeLevels(reporter.put_metric_data, node.bus.node_id)
    hub.manager.cloudwatch_client = levels
    of_cluster = await node.share_levels(levels, reporter.put_metric_data, settings.namespace, stack)

    def sample() -> None:
        _sample(hub, signs, levels.put_metric_data, settings)
        of_cluster.sample()

    return sample


def _sample(hub: Hub, signs: VitalSigns, put: Callable[..., None], settings: CloudWatchSettings) -> None:
    hub.manager.emit_utilization_metrics()
    if settings.session_dimension:
        hub.manager.emit_utilization_of_sessions()
    signs.emit(put, settings.namespace)


async def _open_reporter(
    settings: Settings, plan: ShutdownPlan, stack: contextlib.AsyncExitStack
) -> MetricsReporter | None:
    """Return the metrics reporter, if metrics are enabled; `stack` sends the last metrics after all else ended."""
    if not settings.cloudwatch.enabled:
        return None
    sender = await stack.enter_async_context(CloudWatchSender(settings.cloudwatch))
    reporter = MetricsReporter(sender, settings.cloudwatch)
    stack.push_async_callback(reporter.flush, plan.flush)
    return reporter
