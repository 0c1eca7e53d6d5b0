"""Promise 11: a cluster keeps its promises when relays, NATS servers and the links between them fail.

Three relays, real NATS servers. `--load reference` runs the long versions, with three NATS servers.
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.protocol.json_messages import decode
from relay.vocabulary.audio import Pace
from tests.reliability.conftest import Figure
from tests.reliability.loads import Load
from tests.support.ears import NORMAL, Ear, Ledger, Mouth, check_ears, content_of, listening, told
from tests.support.relay_cluster import NOTICE_SECONDS, Node, RelayCluster, relay_cluster
from tests.support.tries import best_of_three, check_in_time

pytestmark = pytest.mark.timed

END_SECONDS = 30.0
"""The wait for the end of a channel; it does not judge speed."""

MONO_BYTES = 640

RIVALS = 12
FRAMES_EACH = 4

QUICK_STOP = {"RELAY_SERVER_SHUTDOWN_WINDOW_SECONDS": "1"}


class Programme:
    """A channel with one broadcaster and its listeners, spread over all relays.

    Attributes:
        ears: Its listeners.
        ledger: What it released.
        mouth: Its present broadcaster.
        mouths: All its broadcasters, in turn.
    """

    def __init__(self, cluster: RelayCluster, session: str, *, pace: Pace, frame_seconds: float = 0.02) -> None:
        self.cluster = cluster
        self.session = session
        self.ledger = Ledger()
        self.ears: list[Ear] = []
        self.mouths: list[Mouth] = []
        self._pace = pace
        self._frame_seconds = frame_seconds
        self._speaking: dict[Mouth, asyncio.Task[None]] = {}

    @property
    def mouth(self) -> Mouth:
        return self.mouths[-1]

    async def take_over(self, url: str | None = None) -> Mouth:
        """Let another broadcaster take the channel."""
        mouth = Mouth(len(self.mouths) + 1, pace=self._pace, frame_seconds=self._frame_seconds)
        is_first, before = not self.mouths, len(self._joins)
        self.mouths.append(mouth)
        speaking = mouth.speak(url or self.cluster.front.url, self.session, takeover=not is_first)
        self._speaking[mouth] = asyncio.get_running_loop().create_task(speaking)
        async with asyncio.timeout(END_SECONDS):
            await mouth.is_on.wait()
            while mouth.ended is None and len(self._joins) == before:  # noqa: ASYNC110 - several logs tell it
                await asyncio.sleep(0.01)
        return mouth

    @property
    def home(self) -> Node:
        """The relay where its broadcaster is."""
        return max(self._joins, key=lambda join: join[0])[1]

    @property
    def _joins(self) -> list[tuple[str, Node]]:
        """When a broadcaster came to which relay, by the logs of the present processes."""
        return [
            (str(line["timestamp"]), node)
            for node in self.cluster.nodes
            for line in node.process.log
            if line["event"] in ("broadcaster joined", "broadcaster replaced") and line["session"] == self.session
        ]

    @asynccontextmanager
    async def running(self, listeners: int, where: Callable[[int], Callable[[], str]]) -> AsyncIterator[None]:
        """Broadcast to listeners while the block runs. Then end the channel, and wait until all have heard it."""
        await self.take_over()
        self.ears = [
            Ear(self.ledger, f"/v1/listen/{self.session}", where(number), choice=random.Random(number))  # noqa: S311 - repeatable, not a secret
            for number in range(listeners)
        ]
        try:
            async with listening(self.ears) as tasks:
                await asyncio.sleep(0.5)
                yield
                self.mouth.stop()
                async with asyncio.timeout(END_SECONDS):
                    await self._speaking[self.mouth]
                assert self.mouth.ended is None, self.mouth.ended
                await asyncio.wait(tasks, timeout=END_SECONDS)
                left = [str(ear) for ear in self.ears if not ear.is_over]
                warnings = self.cluster.logged("warning", "error")
                assert not left, f"{len(left)} listeners did not hear the end: {left[:3]}; {warnings}"
        finally:
            for task in self._speaking.values():
                task.cancel()
            await asyncio.gather(*self._speaking.values(), return_exceptions=True)

    def check_all_heard(self) -> None:
        """Check that every frame of its only broadcaster was heard by every listener since it first joined."""
        numbers = self.ledger.numbers_of(1)
        assert numbers == list(range(numbers[0], self.mouth.sent))
        assert [ear.account.gap_frames for ear in self.ears] == [0] * len(self.ears)


def anywhere(cluster: RelayCluster) -> Callable[[int], Callable[[], str]]:
    """Let listeners go to any relay."""
    choice = random.Random(15)  # noqa: S311 - repeatable, not a secret
    return lambda _number: lambda: cluster.any_url(choice)


def at_their_place(cluster: RelayCluster) -> Callable[[int], Callable[[], str]]:
    """Spread listeners evenly over the relays."""
    return lambda number: lambda: cluster.nodes[number % len(cluster.nodes)].url


def servers(load: Load) -> int:
    return 3 if load.is_alone else 1


# 1 Faults


async def cause(fault: int, cluster: RelayCluster, programmes: Sequence[Programme], choice: random.Random) -> None:
    """Cause a fault, and let it pass: audio that only one relay has does not survive the end of that relay."""
    programme = choice.choice(programmes)
    match fault:
        case 0:
            node = choice.choice(cluster.nodes)
            node.cut()
            await asyncio.sleep(3)
            node.heal()
        case 1:
            await cluster.kill_nats()
            await asyncio.sleep(NOTICE_SECONDS)
            await cluster.start_nats()
        case 2:
            node = choice.choice(cluster.nodes)
            node.stop()
            await asyncio.sleep(choice.uniform(1, 3))
            node.go_on()
        case 3:
            home = programme.home
            await home.kill()
            await asyncio.sleep(2)
            await home.start()
        case _:
            await programme.take_over()
    await cluster.until_connected()


async def test_every_account_is_exact_through_faults_of_all_parts(load: Load, figure: Figure, tmp_path: Path) -> None:
    async with relay_cluster(tmp_path, servers=servers(load)) as cluster:
        loop = asyncio.get_running_loop()
        live = Programme(cluster, "live", pace=Pace.LIVE)
        speech = Programme(cluster, "speech", pace=Pace.SPEECH)
        count = load.cluster_listeners // 10
        choice = random.Random(load.cluster_listeners)  # noqa: S311 - repeatable, not a secret
        faults = 0
        async with live.running(count, anywhere(cluster)), speech.running(count, anywhere(cluster)):
            until = loop.time() + load.cluster_fault_seconds
            while loop.time() < until:
                await cause(faults % 5, cluster, (live, speech), choice)
                faults += 1
        for programme in (live, speech):
            check_ears(programme.ears, programme.ledger)
    figure(f"{faults} faults: live: {told(live.ears)}; speech: {told(speech.ears)}")


# 2 NATS


@best_of_three
async def test_a_dead_bus_loses_no_frame_and_claims_are_answered_at_once(
    load: Load, figure: Figure, tmp_path: Path
) -> None:
    bound = f"{load.bus_down_seconds:g}"
    bounds = {"RELAY_LISTENER_MAX_BUFFER_SECONDS": bound, "RELAY_LISTENER_HISTORY_SECONDS": bound}
    async with relay_cluster(tmp_path, servers=servers(load), settings=bounds) as cluster:
        loop = asyncio.get_running_loop()
        programme = Programme(cluster, "ev1", pace=Pace.LIVE)
        async with programme.running(9, at_their_place(cluster)):
            home = programme.home
            for ear in programme.ears:
                ear.longest_pause = 0.0
            await cluster.kill_nats()
            down_at = loop.time()
            await asyncio.sleep(1)
            refusals = [await claim(node, "ev2") for node in cluster.nodes]
            await asyncio.sleep(max(0.0, down_at + load.bus_down_seconds - loop.time()))
            local = [ear for number, ear in enumerate(programme.ears) if cluster.nodes[number % 3] is home]
            local_pause = max(ear.longest_pause for ear in local)
            await cluster.start_nats()
            up_at = loop.time()
            served = [await until_served(node, f"after-{number}") - up_at for number, node in enumerate(cluster.nodes)]
        programme.check_all_heard()
        check_ears(programme.ears, programme.ledger)
        for refusal in refusals:
            assert refusal.text == "The relay can't reach its cluster; try again in a few seconds."
        check_in_time(max(refusal.seconds for refusal in refusals) * 1000, 1000, "a refusal without the bus")
        check_in_time(max(served) * 1000, 5000, "a claim after the bus was back")
        check_in_time(local_pause * 1000, 500, "the longest pause beside the home")
    figure(
        f"NATS dead for {load.bus_down_seconds:g} s, bound {bound} s: {told(programme.ears)}; refused after "
        f"{max(refusal.seconds for refusal in refusals) * 1000:.0f} ms, served {max(served):.1f} s after its return"
    )


class Answer:
    """How a claim was answered.

    Attributes:
        text: The error's text; empty if it was granted.
        seconds: How long it took.
    """

    def __init__(self, text: str, seconds: float) -> None:
        self.text = text
        self.seconds = seconds


async def claim(node: Node, session: str) -> Answer:
    """Claim a channel at a relay, and end it if that works."""
    began = time.perf_counter()
    async with channel_of(node.url, session) as connection:
        message = decode(str(await connection.recv()))
        seconds = time.perf_counter() - began
        if message["type"] == "hello":
            await connection.send('{"type":"end"}')
            return Answer("", seconds)
    return Answer(str(message["message"]), seconds)


async def until_served(node: Node, session: str) -> float:
    """Claim a channel until it is granted. Return when."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(END_SECONDS):
        while (await claim(node, session)).text:  # noqa: ASYNC110 - it asks each time
            await asyncio.sleep(0.1)
    return loop.time()


def channel_of(url: str, session: str, query: str = "") -> connect:
    """Connect as a broadcaster."""
    address = f"{url.replace('http', 'ws', 1)}/v1/broadcast/{session}{query}"
    return connect(address, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None, max_queue=None)


# 3 A home that dies


@best_of_three
async def test_a_channel_goes_on_after_its_home_was_killed(load: Load, figure: Figure, tmp_path: Path) -> None:
    async with relay_cluster(tmp_path, servers=servers(load)) as cluster:
        loop = asyncio.get_running_loop()
        programme = Programme(cluster, "ev1", pace=Pace.LIVE, frame_seconds=0.1 if load.is_alone else 0.02)
        heard_again: list[float] = []
        back: list[float] = []
        async with programme.running(load.cluster_listeners // 5, anywhere(cluster)):
            for _ in range(load.home_kills):
                home, before = programme.home, len(programme.ledger.contents)
                was_there = [ear.is_there.is_set() for ear in programme.ears]
                await home.kill()
                killed_at = loop.time()
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.sleep(0.05)
                    before = len(programme.ledger.contents)
                    while len(programme.ledger.contents) == before:  # noqa: ASYNC110 - many listeners tell it
                        await asyncio.sleep(0.01)
                    heard_again.append(loop.time() - killed_at)
                    lost = [ear for ear in programme.ears if not ear.is_there.is_set()]
                    while sum(ear.is_there.is_set() for ear in lost) < 0.95 * len(lost):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    back.append(loop.time() - killed_at)
                assert all(was_there)
                await home.start()
                await asyncio.sleep(1)
        check_ears(programme.ears, programme.ledger)
        assert sum(ear.visits for ear in programme.ears) > len(programme.ears), "no home had listeners"
        assert len({epoch for epoch, _ in programme.ledger.contents}) == 1
        programme.check_all_heard()
        check_in_time(percentile_95(heard_again) * 1000, 3000, "the return of the sound")
        check_in_time(max(back) * 1000, 10_000, "the return of 95 % of the listeners")
    figure(
        f"{load.home_kills} homes killed: heard again after {statistics.median(heard_again):.2f} s, p95 "
        f"{percentile_95(heard_again):.2f} s; 95 % of the listeners back after at most {max(back):.1f} s; "
        f"{told(programme.ears)}"
    )


def percentile_95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]


# 4 Relays that stop in order


async def test_relays_that_restart_one_by_one_lose_nothing(load: Load, figure: Figure, tmp_path: Path) -> None:
    async with relay_cluster(tmp_path, servers=servers(load), settings=QUICK_STOP) as cluster:
        live = Programme(cluster, "live", pace=Pace.LIVE, frame_seconds=0.1)
        speech = Programme(cluster, "speech", pace=Pace.SPEECH, frame_seconds=0.1)
        count = load.cluster_listeners // 2
        async with live.running(count, anywhere(cluster)), speech.running(count, anywhere(cluster)):
            for node in cluster.nodes:
                assert await node.terminate() == 0
                await asyncio.sleep(1)
                await node.start()
                await asyncio.sleep(1)
        speech.check_all_heard()
        for programme in (live, speech):
            check_ears(programme.ears, programme.ledger)
        worst = max(ear.account.gap_frames for ear in live.ears) * 0.1
        assert max(ear.account.gaps for ear in live.ears) <= len(cluster.nodes)
        assert worst <= 0.5 * len(cluster.nodes)
        pause = max(ear.longest_pause for ear in live.ears)
    figure(f"three relays restarted: live: {told(live.ears)}, longest pause {pause:.2f} s; speech: {told(speech.ears)}")


# 5 Races


class Race:
    """Broadcasters that claim one channel at all relays.

    Attributes:
        wanted: How often one claimed it.
        closes: Their close codes.
    """

    def __init__(self, cluster: RelayCluster, most: int) -> None:
        self._cluster = cluster
        self._most = most
        self.wanted = 0
        self.closes: list[int | None] = []

    async def rival(self, choice: random.Random) -> None:
        """Claim the channel again and again, and send audio that names the sender while holding it."""
        while self.wanted < self._most:
            self.wanted += 1
            name = self.wanted
            query = "" if choice.random() < 0.1 else "?takeover=1"
            async with channel_of(self._cluster.any_url(choice), "ev1", query) as connection:
                try:
                    if decode(str(await connection.recv()))["type"] == "hello":
                        await self._speak(connection, name, choice)
                    await connection.wait_closed()
                except ConnectionClosed:
                    pass
            self.closes.append(connection.close_code)

    async def take_over(self, *, end: bool = False) -> None:
        """Take the channel over, and leave it."""
        async with channel_of(self._cluster.nodes[0].url, "ev1", "?takeover=1") as connection:
            await connection.recv()
            if end:
                await connection.send('{"type":"end"}')
                await connection.wait_closed()

    async def _speak(self, connection: ClientConnection, name: int, choice: random.Random) -> None:
        for number in range(FRAMES_EACH):
            await connection.send(content_of(name & 0xFF, name * FRAMES_EACH + number, MONO_BYTES))
            if choice.random() < 0.3:
                await asyncio.sleep(0)
        if choice.random() < 0.1:
            await connection.close()


async def test_one_broadcaster_at_a_time_over_all_relays(load: Load, figure: Figure, tmp_path: Path) -> None:
    async with relay_cluster(tmp_path, servers=servers(load)) as cluster:
        race = Race(cluster, load.cluster_claims)
        ledger = Ledger()
        ears = [
            Ear(ledger, "/v1/listen/ev1", node_url(node), choice=random.Random(number))  # noqa: S311 - repeatable
            for number, node in enumerate(cluster.nodes)
        ]
        async with listening(ears) as tasks, asyncio.TaskGroup() as group:
            rivals = [group.create_task(race.rival(random.Random(number))) for number in range(RIVALS)]  # noqa: S311 - repeatable
            while not all(rival.done() for rival in rivals):
                await asyncio.wait(rivals, timeout=1)
                if race.wanted >= load.cluster_claims:
                    await race.take_over()
            await race.take_over(end=True)
            async with asyncio.timeout(END_SECONDS):
                await asyncio.gather(*tasks)
        assert [ear.account.gap_frames for ear in ears] == [0, 0, 0]
        heard = [number for _, (_, number) in sorted(ledger.contents.items())]
        names = [name for name, _ in groupby(heard, lambda number: number // FRAMES_EACH)]
        assert len(set(names)) == len(names), "one who was replaced was heard again"
        for name, frames in groupby(heard, lambda number: number // FRAMES_EACH):
            numbers = [number - name * FRAMES_EACH for number in frames]
            assert numbers == list(range(len(numbers))), "it was not heard from its beginning, or not in order"
        for ear in ears:
            assert ear.account.unaccounted == 0
            assert not ear.lost_place
            assert not ear.faults, ear.faults[:5]
        assert not ledger.disputed
        assert set(race.closes) <= {NORMAL, 4500, 4503}, race.closes
        assert race.closes.count(4500) > load.cluster_claims // 8, "there were no races"
    figure(
        f"{load.cluster_claims} claims at three relays, {RIVALS} at a time; {len(names)} were heard, each in one piece"
    )


def node_url(node: Node) -> Callable[[], str]:
    return lambda: node.url


# 6 Partition


@best_of_three
async def test_a_home_that_was_cut_off_is_not_heard_behind_the_one_that_came_after(
    load: Load, figure: Figure, tmp_path: Path
) -> None:
    async with relay_cluster(tmp_path, servers=servers(load)) as cluster:
        loop = asyncio.get_running_loop()
        programme = Programme(cluster, "ev1", pace=Pace.LIVE)
        async with programme.running(12, at_their_place(cluster)):
            old, home = programme.mouth, programme.home
            home.cut()
            await asyncio.sleep(1)
            await programme.take_over(cluster.another(home).url)
            await asyncio.sleep(2)
            assert old.ended is None
            home.heal()
            healed_at = loop.time()
            async with asyncio.timeout(END_SECONDS):
                while old.ended is None:  # noqa: ASYNC110 - the client has no event for it
                    await asyncio.sleep(0.01)
            took = old.ended_at - healed_at
            await asyncio.sleep(2)
        check_ears(programme.ears, programme.ledger)
        assert all(ear.heard == [1, 2] for ear in programme.ears), [ear.heard for ear in programme.ears]
        check_in_time(took * 1000, 5000, "the close of the broadcaster who was replaced")
    figure(
        f"home cut off for 3 s and replaced: told {took:.1f} s after the healing; {told(programme.ears)}, "
        f"{len(programme.ledger.disputed)} numbers that both sides had"
    )


# 7 Returning to another relay


@best_of_three
async def test_a_listener_resumes_at_once_where_the_channel_never_was(
    load: Load, figure: Figure, tmp_path: Path
) -> None:
    async with relay_cluster(tmp_path, servers=servers(load)) as cluster:
        took: list[float] = []
        for number in range(5):
            programme = Programme(cluster, f"ev{number}", pace=Pace.LIVE)

            def beside_home(_number: int, programme: Programme = programme) -> Callable[[], str]:
                return lambda: programme.home.url

            async with programme.running(1, beside_home):
                await asyncio.sleep(1)
                (ear,) = programme.ears
                await ear.visit(cluster.another(programme.home).url)
                took.append(ear.hello_ms[-1])
                assert ear.resumed == ear.visits - 1 == 1
            programme.check_all_heard()
            check_ears(programme.ears, programme.ledger)
        check_in_time(min(took), 50, "the greeting at a relay that never had the channel")
    figure(
        f"resumed where the channel never was: greeted after {min(took):.0f} ms at best, "
        f"{statistics.median(took):.0f} ms in the middle"
    )
