"""How many machines carry an audience, and what they send, hold and cost.

All regions are alike, and each carries the same share of the listeners. Each region has spare machines. When that many
machines are down, the others carry the listeners within the same bounds.

Invariants: counts are rounded up. More listeners, channels, bytes or microseconds never result in fewer machines.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from relay.capacity.delivery import SEGMENT_BYTES, Delivery
from relay.capacity.figures import Figures
from relay.vocabulary.errors import UserError

MOST_LISTENERS = 10_000
"""The most listeners of one worker that docs/performance.md has figures for; also `limits.max_connections`."""

ENTRY_BYTES = 140
"""The most that a message on NATS contains beside audio: 68 bytes of numbers, its subject, and the protocol's line."""

HISTORY_SECONDS = 10
"""How much of each channel a worker keeps: `listener.history_seconds`."""

NATS_SECONDS = 80
"""How much of each channel NATS keeps: `listener.history_seconds`, `broadcast.queue_seconds`, and 10 s more."""

PORTS = 28_232
"""Connections from one address to one port of another: Linux's `net.ipv4.ip_local_port_range`."""

OTHER_FILES = 1_256
"""Files of a worker that are not listeners: `limits.max_pending_handshakes` and 256 more."""

NATS_SERVERS = 3
"""One of three may fail without stopping NATS: the other two are still a majority."""

LEAF_SERVERS = 2
"""One of the two leaf servers of a region may fail."""

_MILLION, _BILLION = 1e6, 1e9


class Bound(StrEnum):
    """The bounds of which the tightest decides how many machines are needed."""

    CPU = "CPU"
    NETWORK = "network"
    CONNECTIONS = "connections"
    JOINS = "joins"


@dataclass(frozen=True, slots=True)
class Demand:
    """The audience and the programme.

    Attributes:
        listeners: In all sessions and regions together.
        sessions: Sessions at the same time.
        channels: Live channels of each session.
        delivery: What each listener requests.
        source: What each broadcaster sends.
        storm_seconds: The time within which all listeners join, or join again.
    """

    listeners: int
    sessions: int
    channels: int
    delivery: Delivery
    source: Delivery
    storm_seconds: float

    @property
    def live_channels(self) -> int:
        """The channels of all sessions."""
        return self.sessions * self.channels

    @property
    def is_encoded(self) -> bool:
        """Whether the relay converts the audio of the broadcasters for the listeners."""
        return self.delivery.codec is not self.source.codec


@dataclass(frozen=True, slots=True)
class Machines:
    """What the operator has.

    Attributes:
        regions: Places with machines of their own. Each carries the same share of the listeners.
        cores: Cores of one machine. Each runs one worker.
        gbps: Gigabits per second that one machine may send.
        headroom_percent: The share of each core that stays free for joins and surprises.
        spare: Machines of each region that may be down at the same time.
    """

    regions: int
    cores: int
    gbps: float
    headroom_percent: float
    spare: int


@dataclass(frozen=True, slots=True)
class Prices:
    """What the operator pays, in any currency; None if unknown.

    Attributes:
        per_gb: The price of a gigabyte that leaves the machines.
        per_core_hour: The price of a core for an hour.
    """

    per_gb: float | None = None
    per_core_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The result, for all regions together unless a name says otherwise. Bits and bytes are decimal.

    Attributes:
        listeners: The audience.
        machines: All machines, including spare ones.
        workers_per_machine: Relay processes on each machine.
        decided_by: The bound that decides the number of machines.
        listeners_per_worker: The listeners of a worker while all machines are up.
        listeners_per_worker_at_failure: The same while as many machines are down as there are spare ones.
        cpu_percent_per_worker: The share of a core that a worker uses while all machines are up.
        cpu_percent_per_worker_at_failure: The same while as many machines are down as there are spare ones.
        out_gbps: What listeners receive.
        out_gbps_per_machine_at_failure: What one machine sends while others are down.
        in_gbps: The most that machines receive: acknowledgements of listeners, broadcasters, and NATS.
        out_gb_per_hour: Gigabytes that listeners receive.
        memory_gb_per_machine: The memory of the workers while machines are down, without the operating system.
        joins_per_second_per_worker: The joins when all listeners join while machines are down.
        join_cpu_percent_per_worker: The share of a core that these joins use.
        files_per_worker: Open files that a worker needs.
        proxy_addresses_per_machine: Addresses from which proxies must connect to one machine.
        nats_servers: Servers in the first region; 0 if one worker needs none.
        leaf_servers: Servers in the other regions.
        nats_in_mbps: What homes send to NATS.
        nats_out_mbps: What NATS sends to workers.
        nats_mbps_to_each_region: What the first region sends to each further one.
        nats_cores: Cores that the NATS servers use together.
        nats_memory_mb: What NATS keeps in memory, on each server that holds the stream.
        traffic_cost_per_hour: The cost of `out_gb_per_hour`; None without a price.
        machine_cost_per_hour: The cost of all cores; None without a price.
    """

    listeners: int
    machines: int
    workers_per_machine: int
    decided_by: Bound
    listeners_per_worker: int
    listeners_per_worker_at_failure: int
    cpu_percent_per_worker: float
    cpu_percent_per_worker_at_failure: float
    out_gbps: float
    out_gbps_per_machine_at_failure: float
    in_gbps: float
    out_gb_per_hour: float
    memory_gb_per_machine: float
    joins_per_second_per_worker: float
    join_cpu_percent_per_worker: float
    files_per_worker: int
    proxy_addresses_per_machine: int
    nats_servers: int
    leaf_servers: int
    nats_in_mbps: float
    nats_out_mbps: float
    nats_mbps_to_each_region: float
    nats_cores: float
    nats_memory_mb: float
    traffic_cost_per_hour: float | None
    machine_cost_per_hour: float | None


@dataclass(frozen=True, slots=True)
class _Load:
    """The CPU time that listeners and channels use, in microseconds per second."""

    each_listener: float
    each_channel: float
    channels: int

    def of(self, listeners: float) -> float:
        """Return the load of a worker. It takes in a channel only while it has a listener of that channel."""
        return listeners * self.each_listener + min(self.channels, listeners) * self.each_channel

    def listeners_within(self, available_us: float) -> int:
        """Return how many listeners fit, even if each of them hears another channel."""
        if available_us >= self.of(self.channels):
            return math.floor((available_us - self.channels * self.each_channel) / self.each_listener)
        return math.floor(available_us / (self.each_listener + self.each_channel))


def make_plan(demand: Demand, machines: Machines, figures: Figures, prices: Prices) -> Plan:
    """Compute what the audience needs.

    Raises:
        UserError: A worker or a machine cannot carry even one listener. The text says what to change.
    """
    load = _load(demand, figures)
    listeners = math.ceil(demand.listeners / machines.regions)
    needs = _needs(demand, machines, figures, load, listeners)
    bound = max(needs, key=lambda name: (needs[name][0], needs[name][1]))
    carrying = max(needed for needed, _ in needs.values())
    workers_per_machine = min(machines.cores, max(workers for _, workers in needs.values()))
    in_region = carrying + machines.spare
    per_worker = math.ceil(listeners / (in_region * workers_per_machine))
    at_failure = math.ceil(listeners / (carrying * workers_per_machine))
    workers = machines.regions * in_region * workers_per_machine
    joins = listeners / demand.storm_seconds / (carrying * workers_per_machine)
    per_machine_at_failure = math.ceil(listeners / carrying)
    received_bytes = demand.listeners * figures.listener_bytes.value
    channels_per_worker = min(demand.live_channels, per_worker)
    entry = demand.source.frame_bytes + ENTRY_BYTES + SEGMENT_BYTES
    entries_per_second = demand.live_channels * demand.source.frames_per_second
    taken_per_second = workers * channels_per_worker * demand.source.frames_per_second
    is_cluster = workers > 1
    acknowledged = demand.listeners * demand.delivery.segments_per_second * SEGMENT_BYTES
    broadcast = demand.live_channels * demand.source.wire_bytes_per_second
    nats_out = taken_per_second * entry * is_cluster
    kept = HISTORY_SECONDS * demand.live_channels
    history = kept * (demand.delivery.message_bytes_per_second + demand.source.message_bytes_per_second)
    memory_mb = figures.worker_mb.value + history / _MILLION + at_failure * figures.listener_kib.value * 1024 / _MILLION
    hourly = received_bytes * 3600 / _BILLION
    return Plan(
        listeners=demand.listeners,
        machines=machines.regions * in_region,
        workers_per_machine=workers_per_machine,
        decided_by=bound,
        listeners_per_worker=per_worker,
        listeners_per_worker_at_failure=at_failure,
        cpu_percent_per_worker=load.of(per_worker) / _MILLION * 100,
        cpu_percent_per_worker_at_failure=load.of(at_failure) / _MILLION * 100,
        out_gbps=received_bytes * 8 / _BILLION,
        out_gbps_per_machine_at_failure=per_machine_at_failure * figures.listener_bytes.value * 8 / _BILLION,
        in_gbps=(acknowledged + broadcast + nats_out) * 8 / _BILLION,
        out_gb_per_hour=hourly,
        memory_gb_per_machine=workers_per_machine * memory_mb / 1000,
        joins_per_second_per_worker=joins,
        join_cpu_percent_per_worker=joins * figures.join_us.value / _MILLION * 100,
        files_per_worker=at_failure + OTHER_FILES,
        proxy_addresses_per_machine=math.ceil(per_machine_at_failure / PORTS),
        nats_servers=_nats_servers(in_region, machines, is_cluster=is_cluster),
        leaf_servers=LEAF_SERVERS * (machines.regions - 1),
        nats_in_mbps=entries_per_second * entry * 8 / _MILLION * is_cluster,
        nats_out_mbps=nats_out * 8 / _MILLION,
        nats_mbps_to_each_region=entries_per_second * entry * 8 / _MILLION * (machines.regions > 1),
        nats_cores=taken_per_second * figures.nats_us.value / _MILLION * is_cluster,
        nats_memory_mb=NATS_SECONDS * entries_per_second * entry / _MILLION * is_cluster,
        traffic_cost_per_hour=None if prices.per_gb is None else hourly * prices.per_gb,
        machine_cost_per_hour=None
        if prices.per_core_hour is None
        else machines.regions * in_region * machines.cores * prices.per_core_hour,
    )


def _load(demand: Demand, figures: Figures) -> _Load:
    entered = demand.source.frames_per_second * figures.entry_us.value
    encoded = figures.encoder_us.value if demand.is_encoded else 0.0
    written = demand.delivery.writes_per_second * figures.write_us.value
    return _Load(written, entered + encoded, demand.live_channels)


def _needs(
    demand: Demand, machines: Machines, figures: Figures, load: _Load, listeners: int
) -> dict[Bound, tuple[int, int]]:
    """Return how many machines and workers each bound requires in a region, without spare ones."""
    available_us = (100 - machines.headroom_percent) / 100 * _MILLION
    by_cpu = load.listeners_within(available_us)
    if by_cpu < 1:
        raise UserError("A core does not carry a single listener of these channels; lower --headroom or --channels.")
    by_network = math.floor(machines.gbps * _BILLION / 8 / figures.listener_bytes.value)
    if by_network < 1:
        raise UserError("A machine's network does not carry a single listener; raise --gbps.")
    joins = machines.headroom_percent / 100 * _MILLION / figures.join_us.value
    joined = math.floor(joins * demand.storm_seconds)
    if joined < 1:
        raise UserError("A core has no time left for a single join; raise --headroom or --storm.")

    def of_workers(workers: int) -> tuple[int, int]:
        return math.ceil(workers / machines.cores), workers

    return {
        Bound.CPU: of_workers(math.ceil(listeners / by_cpu)),
        Bound.CONNECTIONS: of_workers(math.ceil(listeners / MOST_LISTENERS)),
        Bound.JOINS: of_workers(math.ceil(listeners / joined)),
        Bound.NETWORK: (math.ceil(listeners / by_network), 1),
    }


def _nats_servers(machines_in_region: int, machines: Machines, *, is_cluster: bool) -> int:
    if not is_cluster:
        return 0
    return NATS_SERVERS if machines_in_region * machines.regions > 1 else 1
