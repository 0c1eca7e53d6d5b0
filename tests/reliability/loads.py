"""The loads for tests of the promises: a small one for CI, and one that fills two cores."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """The sizes of one load.

    Attributes:
        listeners: Listeners of one session with 50 frames per second each, in a separate process.
        seconds: How long they listen.
        stalled_listeners: How many listeners read nothing, all at the same time.
        bound_seconds: The bound of the stalled listeners' buffers.
        half_speed_seconds: How long a network is too slow.
        storm_seconds: How long networks misbehave in all ways.
        takeovers: How many broadcasters claim the same channel.
        soak_minutes: How long clients come and go.
        cluster_listeners: Listeners of a cluster at a rolling restart. Other tests of a cluster have a share of them.
        cluster_fault_seconds: How long the parts of a cluster fail.
        cluster_claims: How often broadcasters claim one channel at all relays of a cluster.
        bus_down_seconds: How long NATS is dead.
        home_kills: How often the relay of a broadcaster is killed.
        is_alone: Whether the machine is otherwise idle, so that latencies are meaningful: one core for the relay,
            one for the rest.
    """

    listeners: int
    seconds: int
    stalled_listeners: int
    bound_seconds: float
    half_speed_seconds: float
    storm_seconds: float
    takeovers: int
    soak_minutes: float
    cluster_listeners: int
    cluster_fault_seconds: float
    cluster_claims: int
    bus_down_seconds: float
    home_kills: int
    is_alone: bool


BOUNDS = 60
"""Ten minutes of audio are sixty times the usual bound of 10 s; a smaller bound takes less time."""

LOADS = {
    "ci": Load(
        listeners=200,
        seconds=6,
        stalled_listeners=50,
        bound_seconds=0.2,
        half_speed_seconds=5,
        storm_seconds=6,
        takeovers=400,
        soak_minutes=1,
        cluster_listeners=60,
        cluster_fault_seconds=15,
        cluster_claims=100,
        bus_down_seconds=3,
        home_kills=2,
        is_alone=False,
    ),
    "reference": Load(
        listeners=2000,
        seconds=30,
        stalled_listeners=500,
        bound_seconds=10,
        half_speed_seconds=60,
        storm_seconds=120,
        takeovers=5000,
        soak_minutes=10,
        cluster_listeners=600,
        cluster_fault_seconds=120,
        cluster_claims=800,
        bus_down_seconds=10,
        home_kills=10,
        is_alone=True,
    ),
}
