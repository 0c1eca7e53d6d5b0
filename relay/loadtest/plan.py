"""The plan of a load test: who joins and leaves when, and when each frame is sent.

The main process has a `LoadPlan`. Each receiving process gets a `WorkerPlan` with its share of the visits.

Invariant: everything is planned before the test begins, and the same plan always results in the same connections.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from urllib.parse import urlencode

from relay.loadtest.target import Target
from relay.vocabulary.audio import Codec

RAMP_SHARE = 2 / 3
"""The share of a ramp's duration in which listeners join. After it, all have joined."""

STORM_SECONDS = 1.0
"""When the listeners of a storm join, after the audio began."""

CHURN_STAY_SECONDS = (5.0, 15.0)
"""The shortest and longest stay of a listener in the churn profile."""

_LEAST_STAY_SECONDS = 0.5
"""Shorter visits are omitted: they would be too short to measure."""


class Profile(StrEnum):
    """How listeners and the broadcaster behave."""

    STEADY = "steady"
    """All listeners join before the audio begins and stay."""

    RAMP = "ramp"
    """Listeners join evenly over the first two thirds of the audio."""

    STORM = "storm"
    """All listeners join at the same moment, a second after the audio began."""

    CHURN = "churn"
    """Each listener stays 5 to 15 s, then another one replaces it."""

    SLOW = "slow"
    """Some listeners stop reading for the whole test."""

    BURST = "burst"
    """The broadcaster sends a second of audio at once, every second."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The parameters of a load test.

    Attributes:
        url: The server's address, for people.
        listeners: Concurrent listeners, over all sessions.
        sessions: The number of broadcasters, each with its own session.
        duration_seconds: The length of the audio.
        fps: Frames per second from each broadcaster.
        frame_ms: The length of the audio in a frame.
        source_codec: The codec of the broadcasters.
        codec: The codec that listeners ask for. If it is another one, the relay converts the audio.
        packet_ms: How much audio a listener of Opus wants in a message.
        profile: How listeners and broadcasters behave.
        slow_percent: The share of listeners that do not read, with `Profile.SLOW`.
        late_ms: Frames later than this count as late.
        processes: The number of receiving processes.
        cpus: The CPUs that the generator may use. Receiving processes take turns. Empty means any CPU.
        nap_ms: How long a receiving process sleeps between two looks at its sockets; with 0, each socket wakes it.
        seed: The seed of the profile's random numbers.
    """

    url: str
    listeners: int = 100
    sessions: int = 1
    duration_seconds: float = 30.0
    fps: int = 50
    frame_ms: int = 20
    source_codec: Codec = Codec.PCM_S16LE
    codec: Codec = Codec.PCM_S16LE
    packet_ms: int = 0
    profile: Profile = Profile.STEADY
    slow_percent: float = 10.0
    late_ms: int = 200
    processes: int = 1
    cpus: tuple[int, ...] = ()
    nap_ms: float = 0.0
    seed: int = 1

    @property
    def is_converted(self) -> bool:
        """Whether listeners get another codec than the broadcasters send."""
        return self.codec is not self.source_codec

    @property
    def query(self) -> str:
        """The query with which a listener asks a relay for its codec and the length of its messages."""
        return urlencode({"codec": self.codec.value} | ({"packet_ms": self.packet_ms} if self.packet_ms else {}))


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection of one listener.

    Attributes:
        target: The index of its channel.
        join_at: Seconds after the audio begins; None joins before it begins.
        leave_at: Seconds after the audio begins; None stays until the session ends.
        reads: Whether it reads everything; otherwise it stops after its greeting.
    """

    target: int
    join_at: float | None = None
    leave_at: float | None = None
    reads: bool = True


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The plan of one receiving process.

    Attributes:
        targets: The channels.
        visits: The connections.
        joining_at_once: How many connections may wait for their greeting at a time.
        join_limit_seconds: How long all joins before the audio may take together. Then the rest have failed.
        cpu: The only CPU that it may use; None lets the system choose.
        nap_seconds: How long it sleeps between two looks at its sockets; with 0, each socket wakes it.
        encoded_frame_ms: The length of a broadcaster's frame, if the relay encodes the audio in frames of its own;
            otherwise None.
    """

    targets: list[Target]
    visits: list[Visit]
    joining_at_once: int = 64
    join_limit_seconds: float = 60.0
    cpu: int | None = None
    nap_seconds: float = 0.0
    encoded_frame_ms: int | None = None


def plan_visits(plan: LoadPlan) -> list[Visit]:
    """Plan all connections of a test, listener by listener, each listener's in order.

    Listeners are spread evenly over the sessions, which are the targets.
    """
    random = Random(plan.seed)  # noqa: S311 - no secret: the same seed must result in the same test
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
    """Plan consecutive visits until the audio is over. The audio begins in the middle of the first one."""
    join_at = None
    leave_at = random.uniform(0.0, random.uniform(*CHURN_STAY_SECONDS))
    while leave_at < duration_seconds - _LEAST_STAY_SECONDS:
        if leave_at - (join_at or 0.0) >= _LEAST_STAY_SECONDS:
            yield Visit(target, join_at, leave_at)
            join_at = leave_at
        leave_at += random.uniform(*CHURN_STAY_SECONDS)
    yield Visit(target, join_at)


def send_seconds(plan: LoadPlan, frame: int) -> float:
    """Return when a broadcaster sends a frame, in seconds after frame 0."""
    return float(frame // plan.fps) if plan.profile is Profile.BURST else frame / plan.fps


def frame_count(plan: LoadPlan) -> int:
    """Return how many frames a broadcaster sends, at least one."""
    return max(1, round(plan.duration_seconds * plan.fps))
