"""An answer to an operator may take time: until then, the connection reads nothing more, and it can still end."""

import asyncio
import json
import socket
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import uvloop

from relay.access.grants import Grant, Reason, RefusedError, TokenRole
from relay.access.rules import Access, AccessRules, OperatorPermit
from relay.cluster.figures import GroupMetrics
from relay.cluster.operators import ClusterOperations
from relay.hub.lag import LagMeter
from relay.hub.operations import Json, Operations
from relay.hub.vital_signs import VitalSigns
from relay.limits.addresses import TrustedProxies
from relay.limits.seats import Seats
from relay.metrics.prometheus import Page, PrometheusMetrics
from relay.pages.files import Pages
from relay.pages.qr_codes import QrCodes
from relay.protocol.operator_requests import OperatorRequest
from relay.server.admission import Admission
from relay.server.door import Door
from relay.server.endings import Endings
from relay.server.http import HttpConnection
from relay.server.operator_api import OperatorApi, Performer
from relay.settings.settings import LimitSettings
from relay.vocabulary.clock import relay_clock, wall_clock
from tests.support.hub_bench import Bench
from tests.support.memory_bus import MemoryCluster
from tests.support.operator import ask
from tests.support.ports import free_port
from tests.support.processes import environment

KEY = "an-admin-key"
TOKEN = "a-token"  # noqa: S105
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def request(method: str, path: str = "", *, closes: bool = False) -> bytes:
    ends = "Connection: close\r\n" if closes else ""
    return f"{method} /v1/sessions{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{ends}\r\n".encode()


class SlowNodes:
    """A cluster that answers when the test says so.

    Attributes:
        asked: Set when somebody asked.
        go_on: Set by the test, so that the answer comes.
        done: What was done to its end.
    """

    def __init__(self, found: Json | Exception | None) -> None:
        self._found = found
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.done: list[OperatorRequest] = []

    async def perform(self, wanted: OperatorRequest, _permit: OperatorPermit, _operator: str) -> Json | None:
        self.asked.set()
        await self.go_on.wait()
        self.done.append(wanted)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


class _OneToken:
    """Knows one token, which is for the session ev1."""

    sources: frozenset[Hashable] = frozenset({"one token"})

    def verify(self, token: str) -> Grant:
        if token != TOKEN:
            raise RefusedError(Reason.SIGNATURE, "It is not that token.")
        return Grant(frozenset({TokenRole.ADMIN}), ("ev1",), ("*",), "one token")


class House:
    """A door with a listening socket, whose operators ask `performer`."""

    def __init__(self, performer: Performer, limits: LimitSettings, metrics: Page | None = None) -> None:
        self.bench = Bench(limits=limits)
        access = Access(AccessRules(admin_key=KEY, verifier=_OneToken()), wall_clock)
        admission = Admission(
            self.bench.hub,
            Pages(),
            QrCodes(),
            access,
            self.bench.limits,
            metrics=metrics,
            allowed_origins=(),
            is_private=True,
            token_in_query=False,
        )
        self.endings = Endings()
        self.door = Door(
            admission,
            OperatorApi(performer, access),
            self.bench.limits,
            LagMeter(relay_clock, lambda: 0.0),
            TrustedProxies(["loopback"]),
            seats=Seats(),
        )
        self.door.is_open = True
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["House"]:
        connect = partial(
            HttpConnection,
            self.door,
            _NoWebSockets(),
            self.endings,
            self.bench.limits,
            self.door,
            tasks=self.bench.tasks,
        )
        server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", self.port)
        try:
            async with asyncio.timeout(60):
                yield self
        finally:
            server.close()
            self.door.cut_off_pending()
            await self.bench.tasks.close()

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


class _NoWebSockets:
    def take_in(self, *_: object) -> asyncio.Protocol:
        raise AssertionError("nobody asks for a WebSocket")

    def take_in_stream(self, *_: object, **__: object) -> asyncio.Protocol:
        raise AssertionError("nobody asks for a stream")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.01)


async def read_answer(reader: StreamReader, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["Content-Length"])) if has_body else b""
    return int(first.split()[1]), headers, body


def run(
    loop: Callable[[], asyncio.AbstractEventLoop],
    work: Callable[[House, SlowNodes], Awaitable[None]],
    found: Json | Exception | None,
    limits: LimitSettings | None = None,
) -> None:
    """Run a test with a slow cluster on a kind of event loop."""

    async def main() -> None:
        nodes = SlowNodes(found)
        async with House(nodes, limits or LimitSettings()).open() as house:
            await work(house, nodes)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


FOUND: Json = {"sessions": [], "not_listed": 0, "silent_nodes": ["two"]}


@LOOPS
def test_an_answer_comes_when_it_is_ready_and_the_connection_stays_open(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        reader, writer = await house.connect()
        nodes.go_on.set()
        for method in ("GET", "HEAD", "GET"):
            writer.write(request(method))
            status, headers, body = await read_answer(reader, has_body=method == "GET")
            assert (status, headers["Cache-Control"]) == (200, "no-store")
            assert int(headers["Content-Length"]) == len(json.dumps(FOUND, separators=(",", ":")))
            assert "Connection" not in headers
            assert method == "HEAD" or json.loads(body) == FOUND
        writer.write(request("GET", closes=True))
        assert (await read_answer(reader))[0] == 200
        assert await reader.read() == b""
        writer.close()
        assert house.endings.answers == {200: 4}

    run(loop, work, FOUND)


@LOOPS
def test_requests_behind_it_wait_and_stay_in_order(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        reader, writer = await house.connect()
        writer.write(request("GET"))
        await nodes.asked.wait()
        writer.write(HEALTH)
        other_reader, other_writer = await house.connect()
        other_writer.write(HEALTH)
        assert (await read_answer(other_reader))[2] == b"ok\n", "others do not wait"
        nodes.go_on.set()
        assert json.loads((await read_answer(reader))[2]) == FOUND
        assert (await read_answer(reader))[2] == b"ok\n"
        writer.close()
        other_writer.close()
        reader, writer = await house.connect()
        writer.write(request("GET") + HEALTH)
        assert (await read_answer(reader))[1]["Connection"] == "close", "as for any answer with a request behind it"
        assert await reader.read() == b""
        writer.close()

    run(loop, work, FOUND)


@LOOPS
def test_what_a_client_sends_meanwhile_stays_in_its_network(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        with socket.create_connection(("127.0.0.1", house.port)) as flood:
            flood.sendall(request("GET"))
            await nodes.asked.wait()
            flood.setblocking(False)
            sent = idle = 0
            while idle < 20 and sent < 64 << 20:
                try:
                    sent += flood.send(bytes(1 << 16))
                    idle = 0
                except BlockingIOError:
                    idle += 1
                    await asyncio.sleep(0.01)
            assert sent < 64 << 20, "the relay read all of it"
            nodes.go_on.set()
            await asyncio.sleep(0)

    run(loop, work, FOUND)


@LOOPS
def test_a_client_that_sends_no_more_still_gets_its_answer(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        reader, writer = await house.connect()
        writer.write(request("GET"))
        writer.write_eof()
        await nodes.asked.wait()
        nodes.go_on.set()
        assert json.loads((await read_answer(reader))[2]) == FOUND
        assert await reader.read() == b""
        writer.close()

    run(loop, work, FOUND)


@LOOPS
def test_what_was_asked_for_is_done_even_if_the_client_leaves(
    loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        _, writer = await house.connect()
        writer.write(request("DELETE", "/ev1"))
        await nodes.asked.wait()
        writer.transport.abort()
        nodes.go_on.set()
        await until(lambda: house.door.is_deserted)
        assert [each.session for each in nodes.done] == ["ev1"]

    run(loop, work, {"session": "ev1", "ended": ["main"]})
    assert not [line for line in caplog.records if line.exc_info]


@LOOPS
def test_a_connection_that_waits_can_be_cut_off(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        reader, writer = await house.connect()
        writer.write(request("GET"))
        await nodes.asked.wait()
        house.door.cut_off_pending()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        nodes.go_on.set()
        await until(lambda: bool(nodes.done))
        assert house.door.is_deserted
        assert house.endings.answers == {}
        writer.close()

    run(loop, work, FOUND)


@LOOPS
def test_the_time_for_a_request_is_not_that_for_its_answer(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work(house: House, nodes: SlowNodes) -> None:
        reader, writer = await house.connect()
        writer.write(request("GET"))
        late_reader, late_writer = await house.connect()
        assert (await read_answer(late_reader))[0] == 408, "a request has its time"
        late_writer.close()
        nodes.go_on.set()
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run(loop, work, FOUND, LimitSettings(handshake_timeout_seconds=0.2))


@LOOPS
def test_a_bug_is_an_answer_and_nothing_found_is_a_refusal(
    loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(house: House, nodes: SlowNodes) -> None:
        nodes.go_on.set()
        assert (await ask(house.url, "GET", "/v1/sessions/ev1", KEY)).status == 401
        assert (await ask(house.url, "GET", "/v1/sessions/ev1", "another")).status == 401

    async def guessed(house: House, nodes: SlowNodes) -> None:
        nodes.go_on.set()
        found = [
            (await ask(house.url, "GET", f"/v1/sessions/{session}", TOKEN, X_Forwarded_For="192.0.2.1")).status
            for session in ("ev1", "ev1", "ev2", "ev2")
        ]
        assert found == [401, 401, 401, 429], "to ask for what is not permitted is a failure"

    async def failed(house: House, nodes: SlowNodes) -> None:
        nodes.go_on.set()
        reply = await ask(house.url, "GET", "/v1/sessions/ev1", KEY)
        assert (reply.status, reply.body) == (500, "The relay failed; try again.\n")

    run(loop, refused, None)
    run(loop, guessed, None, LimitSettings(max_failures_per_minute=1))
    assert not [line for line in caplog.records if line.exc_info]
    run(loop, failed, ZeroDivisionError())
    assert [line.getMessage() for line in caplog.records if line.exc_info] == ["a bug in the relay made a request fail"]


async def test_nodes_that_do_not_answer_within_a_second_are_named() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster(delay_seconds=0.01, expiry_seconds=60)
        buses = [await stack.enter_async_context(cluster.bus(name)) for name in ("one", "two", "three")]
        houses = []
        for bus in buses:
            bench = Bench()
            stack.push_async_callback(bench.tasks.close)
            bench.join(f"{bus.node_id}:1", channel=bus.node_id)
            operations = ClusterOperations(bus, Operations(bench.hub, bench.time))
            house = House(await stack.enter_async_context(operations), LimitSettings())
            houses.append(await stack.enter_async_context(house.open()))
        listed = (await ask(houses[0].url, "GET", "/v1/sessions", KEY)).json
        assert (listed["silent_nodes"], len(listed["sessions"][0]["channels"])) == ([], 3)
        buses[1].cut()
        listed = (await ask(houses[0].url, "GET", "/v1/sessions", KEY)).json
        assert (listed["silent_nodes"], len(listed["sessions"][0]["channels"])) == (["two"], 2)
        gone = await ask(houses[2].url, "DELETE", "/v1/sessions/ev1/two", KEY)
        assert (gone.status, gone.headers["retry-after"]) == (503, "2")
        assert gone.body == "These nodes of the cluster do not answer: two. Try again in a moment.\n"
        ended = (await ask(houses[2].url, "DELETE", "/v1/sessions/ev1/one", KEY)).json
        assert ended == {"session": "ev1", "ended": ["one"], "silent_nodes": ["two"]}
        code, table, told = await sessions_command(houses[0].url)
        assert (code, table.splitlines()[1].split()[:2]) == (0, ["ev1", "three"])
        assert told == "these nodes of the cluster did not answer: two\n"
        code, table, told = await sessions_command(houses[0].url, "show", "ev1")
        assert (table.splitlines()[-1].split()[0], table.splitlines()[-1].split()[-1]) == ("three:1", "three")
        assert told == "these nodes of the cluster did not answer: two\n"
        code, _, told = await sessions_command(houses[0].url, "end", "ev9")
        assert (code, "(HTTP 503): These nodes of the cluster do not answer: two." in told) == (2, True)


async def test_the_page_of_one_worker_has_the_figures_of_all() -> None:
    async with AsyncExitStack() as stack:
        cluster = MemoryCluster(delay_seconds=0.01)
        houses = []
        for name in ("one", "two"):
            bus = await stack.enter_async_context(cluster.bus(name))
            bench = Bench()
            stack.push_async_callback(bench.tasks.close)
            signs = VitalSigns(bench.hub, LagMeter(relay_clock, lambda: 0.0), relay_clock)
            metrics = GroupMetrics(bus, PrometheusMetrics(signs.look, name), "this machine")
            await stack.enter_async_context(metrics)
            house = House(SlowNodes(None), LimitSettings(), metrics.page)
            houses.append(await stack.enter_async_context(house.open()))
        pages = [await ask(house.url, "GET", "/metrics") for house in houses]
        for page in pages:
            assert (page.status, page.headers["cache-control"]) == (200, "no-store")
            assert page.headers["content-type"].startswith("text/plain; version=")
            assert 'relay_listeners{node="one"} 0.0\nrelay_listeners{node="two"} 0.0\n' in page.body
        head = await ask(houses[0].url, "HEAD", "/metrics")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(pages[0].body)), "")


async def sessions_command(url: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "sessions", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env=environment({"RELAY_CLIENT_URL": url.replace("http", "ws"), "RELAY_ACCESS_ADMIN_KEY": KEY}),
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()
