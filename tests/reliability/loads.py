"""How much load the tests of the promises make: little in CI, and by hand as much as two cores carry."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """One size of everything.

    Attributes:
        listeners: Of one session, of 50 frames a second each, in their own process.
        seconds: For which they listen.
        stalled_listeners: Who read nothing, all at once.
        bound_seconds: Of their buffers.
        half_speed_seconds: For which a network is too slow.
        storm_seconds: For which networks misbehave in all ways.
        takeovers: Broadcasters who want the same channel.
        soak_minutes: Of coming and going.
        is_alone: Whether the machine does nothing else, so that latencies mean something: a core for the relay, a core
            for the rest.
    """

    listeners: int
    seconds: int
    stalled_listeners: int
    bound_seconds: float
    half_speed_seconds: float
    storm_seconds: float
    takeovers: int
    soak_minutes: float
    is_alone: bool


BOUNDS = 60
"""Ten minutes of audio are sixty times the usual bound of 10 s; with a smaller bound it takes less time."""

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
        is_alone=True,
    ),
}
