"""What is asked of a load test, and what follows from it: who joins and leaves when, and when each frame is sent.

The main process has a `LoadPlan`; each receiving process gets a `WorkerPlan` with its share of the visits.

Invariant: everything is planned before the test begins, and the same plan always gives the same connections.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from relay.loadtest.target import Target

RAMP_SHARE = 2 / 3
"""The part of a ramp's duration over which listeners join; after it all are there."""

STORM_SECONDS = 1.0
"""When the listeners of a storm come, after the audio began."""

CHURN_STAY_SECONDS = (5.0, 15.0)
"""How long a listener of the churn profile stays, at least and at most."""

_LEAST_STAY_SECONDS = 0.5
"""A visit that would be shorter is not made: nothing could be measured in it."""


class Profile(StrEnum):
    """How listeners and the broadcaster behave."""

    STEADY = "steady"
    """All listeners join before the audio begins and stay."""

    RAMP = "ramp"
    """Listeners join evenly over the first two thirds of the audio."""

    STORM = "storm"
    """All listeners come in the same moment, a second after the audio began."""

    CHURN = "churn"
    """Each listener stays 5 to 15 s, then another one takes its place."""

    SLOW = "slow"
    """Some listeners stop reading for the whole test."""

    BURST = "burst"
    """The broadcaster sends a second of audio at once, every second."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is asked of a load test.

    Attributes:
        url: Of the server, for people.
        listeners: How many at a time, over all sessions.
        sessions: How many broadcasters, each with its own session.
        duration_seconds: How long the audio lasts.
        fps: Frames a second of each broadcaster.
        frame_ms: Audio in a frame, in milliseconds.
        profile: How they behave.
        slow_percent: The share of listeners that do not read, with `Profile.SLOW`.
        late_ms: Frames later than this are counted as late.
        processes: Receiving processes.
        cpus: The CPUs that the generator may run on, receiving processes taking turns; none is any.
        nap_ms: How long a receiving process sleeps between two looks at its sockets; 0 has each of them wake it.
        seed: Of the random numbers of the profile.
    """

    url: str
    listeners: int = 100
    sessions: int = 1
    duration_seconds: float = 30.0
    fps: int = 50
    frame_ms: int = 20
    profile: Profile = Profile.STEADY
    slow_percent: float = 10.0
    late_ms: int = 200
    processes: int = 1
    cpus: tuple[int, ...] = ()
    nap_ms: float = 0.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection of one listener.

    Attributes:
        target: Which channel it listens to, an index.
        join_at: Seconds after the audio begins; None: before it begins.
        leave_at: Likewise; None: when the session ends.
        reads: Whether it reads what it is sent; otherwise it stops after its greeting.
    """

    target: int
    join_at: float | None = None
    leave_at: float | None = None
    reads: bool = True


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What one receiving process does.

    Attributes:
        targets: The channels.
        visits: The connections.
        joining_at_once: How many connections may be under way to their greeting.
        join_limit_seconds: How long the joins before the audio may take together; later ones have failed.
        cpu: The one CPU that it may run on; None leaves that to the system.
        nap_seconds: How long it sleeps between two looks at its sockets; with 0 each of them wakes it.
    """

    targets: list[Target]
    visits: list[Visit]
    joining_at_once: int = 64
    join_limit_seconds: float = 60.0
    cpu: int | None = None
    nap_seconds: float = 0.0


def plan_visits(plan: LoadPlan) -> list[Visit]:
    """Plan all connections of a test: listener by listener, the connections of each in order.

    Its targets are the sessions; listeners are spread over them evenly.
    """
    random = Random(plan.seed)  # noqa: S311 - no secret: the same seed is to give the same test
    slow: set[int] = set()
    if plan.profile is Profile.SLOW:
        slow.update(random.sample(range(plan.listeners), max(1, round(plan.listeners * plan.slow_percent / 100))))
    visits: list[Visit] = []
    for listener in range(plan.listeners):
        target = listener % plan.sessions
        if plan.profile is Profile.CHURN:
            visits += _stays(target, plan.duration_seconds, random)
        elif plan.profile is Profile.STORM:
            visits.append(Visit(target, STORM_SECONDS))
        elif plan.profile is Profile.RAMP:
            visits.append(Visit(target, plan.duration_seconds * RAMP_SHARE * listener / plan.listeners))
        else:
            visits.append(Visit(target, reads=listener not in slow))
    return visits


def _stays(target: int, duration_seconds: float, random: Random) -> Iterator[Visit]:
    """Plan one visit after another until the audio is over; it begins somewhere in the middle of the first."""
    join_at = None
    leave_at = random.uniform(0.0, random.uniform(*CHURN_STAY_SECONDS))
    while leave_at < duration_seconds - _LEAST_STAY_SECONDS:
        if leave_at - (join_at or 0.0) >= _LEAST_STAY_SECONDS:
            yield Visit(target, join_at, leave_at)
            join_at = leave_at
        leave_at += random.uniform(*CHURN_STAY_SECONDS)
    yield Visit(target, join_at)


def send_seconds(plan: LoadPlan, frame: int) -> float:
    """Return when a broadcaster sends a frame, counted from 0, in seconds after its first one."""
    return float(frame // plan.fps) if plan.profile is Profile.BURST else frame / plan.fps


def frame_count(plan: LoadPlan) -> int:
    """Return how many frames a broadcaster sends, at least one."""
    return max(1, round(plan.duration_seconds * plan.fps))
