"""The relay stops whatever its clients do, and tells listeners when to come back."""

import asyncio
import http.client
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from relay.cli.app import running_relay
from relay.settings.settings import BroadcastSettings, ListenerSettings, ServerSettings, Settings
from tests.support.live_session import LOOPS, Broadcaster, broadcasting, check_accounts, listen_beside
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, few_at_once, relay_process, running
from tests.support.wire_listener import SMALL_BUFFER_BYTES, WireListener, closing, open_listener

pytestmark = pytest.mark.timed

AS_PROCESS_1 = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
"""A prefix that runs a command as process 1 of its own PID namespace, like a container."""

KEPT = {"RELAY_LISTENER_STALL_LIMIT_SECONDS": "never"}


@asynccontextmanager
async def stalled(relay: RelayProcess, count: int) -> AsyncIterator[tuple[Broadcaster, list[WireListener]]]:
    """Connect listeners that read nothing, and broadcast more than their sockets hold."""
    listeners = [
        await open_listener(relay.url, "/v1/listen/ev1", receive_buffer=SMALL_BUFFER_BYTES, is_reading=False)
        for _ in range(count)
    ]
    stereo = broadcasting(relay, "ev1", "?rate=48000&channels=2", frame_bytes=3840)
    with closing(listeners):
        async with stereo as broadcaster:
            await broadcaster.play(1)
            yield broadcaster, listeners


@pytest.mark.parametrize("loop", LOOPS)
async def test_it_ends_in_time_when_every_listener_is_stalled(loop: str) -> None:
    async with relay_process(RELAY_SERVER_LOOP=loop, RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="2", **KEPT) as relay:
        async with stalled(relay, 20):
            assert await relay.terminate() == 0
            assert await relay.stopping_seconds() < 4, "it waited until closes were given up"
        events = [record["event"] for record in relay.log]
        assert "clients that did not disconnect in time were cut off" in events
        assert events[-1] == "relay stopped"


async def test_everybody_is_told_when_to_come_back_and_the_broadcaster_goes_last() -> None:
    async with relay_process() as relay:
        listeners = await listen_beside(relay, "ev1", 100)
        source = connect(f"{relay.websocket_url}/v1/broadcast/ev1", subprotocols=["relay.v1"], proxy=None)  # type: ignore[list-item] # a NewType of str
        with closing(listeners):
            async with source as broadcaster:
                assert "hello" in str(await broadcaster.recv())
                relay.signal(signal.SIGTERM)
                told = []
                with pytest.raises(ConnectionClosedError):
                    while True:
                        told.append(str(await broadcaster.recv()))
                assert '"goaway"' in told[-1]
                assert broadcaster.close_code == 1012
            for listener in listeners:
                await listener.until_ended()
                assert listener.close_code == 1012
                assert listener.told[-1]["type"] == "goaway"
                assert all(message.get("state") != "source_lost" for message in listener.told)
        delays_ms = {listener.told[-1]["reconnect_after_ms"] for listener in listeners}
        assert len(delays_ms) >= 50
        assert min(delays_ms) >= 1000
        assert max(delays_ms) <= 2300
        assert await relay.wait() == 0


async def test_listeners_of_a_session_that_just_ended_are_told_so() -> None:
    """Listeners that are only asked to come back would wait for a session that is over."""
    async with relay_process() as relay:
        listeners = await listen_beside(relay, "ev1", 20)
        with closing(listeners):
            async with broadcasting(relay, "ev1", "?pace=speech") as broadcaster:
                await broadcaster.send(150)
                await broadcaster.end()
            relay.signal(signal.SIGTERM)
            await check_accounts(listeners, broadcaster)
            assert [listener.told[-1].get("state") for listener in listeners] == ["ended"] * len(listeners)
        assert await relay.wait() == 0


async def test_a_session_that_just_ended_loses_nothing_in_the_middle() -> None:
    """More audio waits than a listener's queue, the feed of an encoder, or a tap holds otherwise."""
    async with relay_process() as relay:
        listeners = await listen_beside(relay, "ev1", 2)
        opus = await open_listener(relay.url, "/v1/listen/ev1?codec=opus")
        with closing([*listeners, opus]):
            async with broadcasting(relay, "ev1", "?pace=speech") as broadcaster:
                await broadcaster.send(2000)
                await broadcaster.end()
            relay.signal(signal.SIGTERM)
            await check_accounts(listeners, broadcaster)
            assert [listener.gaps for listener in listeners] == [[], []]
            await opus.until_ended()
            assert opus.close_code == 1000
            assert [frame.seq for frame in opus.frames] == list(range(len(opus.frames)))
            # A busy machine may not encode 40 s in the time that there is. Then the end is missing.
            assert [gap["from_seq"] for gap in opus.gaps] in ([], [len(opus.frames)])
        assert await relay.wait() == 0
        assert not [record for record in relay.log if "too slow" in str(record["event"])]


async def test_it_is_not_ready_for_a_while_and_serves_those_inside() -> None:
    async with relay_process(RELAY_SERVER_SHUTDOWN_DELAY_SECONDS="5") as relay:
        listeners = await listen_beside(relay, "ev1", 1)
        with closing(listeners):
            async with broadcasting(relay, "ev1") as broadcaster:
                relay.signal(signal.SIGTERM)
                await relay.event("relay stopping")
                assert await asyncio.to_thread(ready, relay) == 503
                with pytest.raises(InvalidStatus) as caught:
                    async with connect(f"{relay.websocket_url}/v1/listen/ev1", proxy=None):
                        raise AssertionError("it was let in")
                assert caught.value.response.status_code == 503
                assert "Retry-After" in caught.value.response.headers
                await broadcaster.play(0.5)
                await listeners[0].until(lambda: len(listeners[0].frames) == broadcaster.published[-1])
        assert await relay.wait() == 0


def ready(relay: RelayProcess) -> int:
    parts = urlsplit(relay.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", "/readyz")
    return connection.getresponse().status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    async with relay_process(RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="60", **KEPT) as relay, stalled(relay, 1):
        relay.signal(number)
        await relay.event("relay stopping")
        relay.signal(number)
        assert await relay.wait(30) == -number
        assert "Traceback" not in relay.text


AT_A_MOMENT = """
import os, signal, sys


def watch(event, arguments):
    if f"{event} {arguments[0] if event == 'import' else ''}".strip() == MOMENTS[-1]:
        MOMENTS.pop()
        os.kill(os.getpid(), signal.SIGTERM)
        if not MOMENTS:
            MOMENTS.append("")


MOMENTS = [""] + os.environ["SIGNAL_AT"].split(",")
sys.addaudithook(watch)
"""


@pytest.mark.parametrize("is_first", [False, True], ids=["", "as process 1"])
async def test_a_signal_before_it_is_ready_ends_it_in_order(tmp_path: Path, is_first: bool) -> None:
    """Process 1 of a container has no default signal actions: without a handler, SIGTERM would have no effect."""
    (tmp_path / "sitecustomize.py").write_text(AT_A_MOMENT)
    moments = ("import click", "import pydantic", "import websockets", "import relay.process.stopping", "socket.bind")

    async def stop_at(moment: str) -> None:
        settings = {"PYTHONPATH": str(tmp_path), "SIGNAL_AT": moment, "RELAY_BROADCAST_OPEN": "true"}
        around = AS_PROCESS_1 if is_first else ()
        async with running("serve", "--port", str(free_port()), around=around, **settings) as relay:
            assert await relay.wait() == 0, moment
            assert "Traceback" not in relay.text
            assert "relay stopped" in relay.lines[-1]

    await few_at_once(map(stop_at, moments))


async def test_a_second_signal_before_it_is_ready_ends_process_1_at_once(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_A_MOMENT)
    settings = {"PYTHONPATH": str(tmp_path), "SIGNAL_AT": "import websockets,import pydantic"}
    async with running("serve", "--port", str(free_port()), around=AS_PROCESS_1, **settings) as relay:
        assert await relay.wait() == 128 + signal.SIGTERM
        assert relay.text == ""


async def test_a_command_that_is_process_1_has_the_ordinary_effect_of_a_signal(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_A_MOMENT)
    settings = {"PYTHONPATH": str(tmp_path), "SIGNAL_AT": "import pydantic"}
    async with running("listen", "ev1", around=AS_PROCESS_1, **settings) as command:
        assert await command.wait() == 128 + signal.SIGTERM
        assert command.text == ""


CRASH = """
from relay.hub.hub import Hub


def crash(hub):
    raise ZeroDivisionError("a fault of the relay")


Hub.keep_house = crash
"""


async def test_it_stops_in_order_when_it_does_not_work_any_more(tmp_path: Path) -> None:
    """A relay that cannot serve must exit. Its supervisor then restarts it, and its clients reconnect."""
    (tmp_path / "sitecustomize.py").write_text(CRASH)
    async with relay_process(PYTHONPATH=str(tmp_path)) as relay:
        assert await relay.wait() == 1
        (crash,) = [record for record in relay.log if record["level"] == "error"]
        assert (crash["event"], crash["task"]) == ("a background task crashed", "housekeeping")
        assert "ZeroDivisionError: a fault of the relay" in crash["exception"]
        assert any(line.startswith("relay: The relay stopped because of a bug") for line in relay.lines)


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    settings = Settings(
        server=ServerSettings(port=free_port(), shutdown_timeout_seconds=1),
        broadcast=BroadcastSettings(open=True),
        listener=ListenerSettings(stall_limit_seconds=None),
    )
    listeners = []
    async with running_relay(settings) as relay:
        for is_reading in (True, False):
            listener = await open_listener(relay.url, "/v1/listen/ev1", receive_buffer=4096, is_reading=is_reading)
            listeners.append(listener)
        silent = await asyncio.open_connection(*relay.url.removeprefix("http://").split(":"))
        assert len(asyncio.all_tasks() - before) >= 5
    with closing(listeners):
        assert {task.get_name() for task in asyncio.all_tasks() - before} == set()
    silent[1].close()
