"""`relay serve --workers`: several processes behind one port, and what happens when one of them fails."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from tests.support.live_session import LOOPS, broadcasting, listen_beside
from tests.support.nats import nats
from tests.support.operator import ask
from tests.support.ports import free_port
from tests.support.process_tree import descendants, environment_of, is_running, stop, until_gone
from tests.support.processes import RelayProcess, relay_process, running, seconds_between
from tests.support.tries import best_of_three, check_in_time
from tests.support.wire_listener import WireListener, closing

PROBE_SECONDS = 60.0
"""How long a client waits for an answer. It judges nothing."""


@asynccontextmanager
async def two_workers(*arguments: str, **settings: str) -> AsyncIterator[RelayProcess]:
    async with relay_process("--workers", "2", *arguments, **settings) as relay:
        yield relay


async def worker_pid(relay: RelayProcess, number: int, *, life: int = 1) -> int:
    """Return the process of a worker, when it is ready for the first time, or for a later one."""

    def ready() -> list[int]:
        return [each["pid"] for each in relay.log if (each["event"], each.get("worker")) == ("worker ready", number)]

    await relay.line(lambda _: len(ready()) >= life)
    return ready()[life - 1]


async def sent_away(listeners: list[WireListener]) -> None:
    """Wait until the relay has asked all listeners to come back later, and let them go."""
    for listener in listeners:
        await listener.until(lambda listener=listener: listener.close_code is not None)  # type: ignore[misc]
        assert listener.close_code == 1012
        assert listener.told[-1]["type"] == "goaway"
        listener.close()


async def pids_of(relay: RelayProcess) -> list[int]:
    return [await worker_pid(relay, number) for number in (1, 2)]


def nats_pid(relay: RelayProcess) -> int:
    (pid,) = [pid for pid, command in descendants(relay.pid).items() if "nats-server -c" in command]
    return pid


def get(relay: RelayProcess, path: str = "/healthz") -> int:
    """Ask on a new connection; return the status, or raise what a client meets."""
    parts = urlsplit(relay.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


class Probes:
    """Clients that come one after another, each on a connection of its own.

    Attributes:
        results: Number of clients by what they met: a status or the name of an error.
        slowest_ms: The longest that one of them took.
    """

    def __init__(self, relay: RelayProcess) -> None:
        self._relay = relay
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self.results: Counter[str] = Counter()
        self.slowest_ms = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def answers(self, more: int) -> None:
        """Wait for more answers."""
        before = self.results["200"]
        async with self._news:
            await self._news.wait_for(lambda: self.results["200"] >= before + more)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                result = str(await asyncio.to_thread(get, self._relay))
            except OSError as error:
                result = type(error).__name__
            self.slowest_ms = max(self.slowest_ms, (loop.time() - began) * 1000)
            async with self._news:
                self.results[result] += 1
                self._news.notify_all()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("loop", LOOPS)
async def test_each_worker_serves_the_one_port_with_the_one_key(loop: str, tmp_path: Path) -> None:
    settings = {"RELAY_BROADCAST_OPEN": "false", "XDG_RUNTIME_DIR": str(tmp_path), "RELAY_SERVER_LOOP": loop}
    async with two_workers(RELAY_LOG_LEVEL="debug", **settings) as relay:
        ready = await relay.event("relay ready")
        assert ready["workers"] == 2
        assert "worker" not in ready
        key = (tmp_path / "relay" / f"broadcast-key-{urlsplit(relay.url).port}").read_text()
        for number, pid in enumerate(await pids_of(relay), 1):
            # The other one cannot answer now.
            await stop(pid)
            async with broadcasting(relay, f"ev{number}", key=key):
                opened = await relay.event("connection opened", session=f"ev{number}")
                assert opened["worker"] == 3 - number
            os.kill(pid, signal.SIGCONT)
        assert await relay.terminate() == 0
        assert sum("relay ready" in line for line in relay.lines) == 1
    assert list((tmp_path / "relay").iterdir()) == []


async def test_the_metrics_of_any_worker_are_those_of_all() -> None:
    async with two_workers(RELAY_PROMETHEUS_ENABLED="true") as relay:
        await pids_of(relay)
        listeners = await listen_beside(relay, "ev1", 8)
        with closing(listeners):
            page = ""
            async with asyncio.timeout(PROBE_SECONDS):
                while page.count("\nrelay_listeners{") != 2:
                    page = (await ask(relay.url, "GET", "/metrics")).body
            found = re.findall(r'^relay_listeners{node="(.+)"} (.+)$', page, re.MULTILINE)
            counts = {node: float(count) for node, count in found}
            assert sum(counts.values()) == 8
        lines = [each for each in relay.log if each["event"] == "worker ready"]
        assert {each["node"] for each in lines} == set(counts), "the log has the same names"
        assert await relay.terminate() == 0


@pytest.mark.timed
@best_of_three
async def test_killed_workers_are_back_soon_and_no_connection_is_refused() -> None:
    """Even when all are killed at once, connections wait for the next worker."""
    began = asyncio.get_running_loop().time()
    async with two_workers() as relay, Probes(relay) as probes:
        pids = await pids_of(relay)
        first_start_ms = (asyncio.get_running_loop().time() - began) * 1000
        await probes.answers(1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for number in (1, 2):
            ended = await relay.event("a worker ended and is started again", worker=number)
            assert ended["ended_with"] == "SIGKILL"
            assert ended["wait_seconds"] < 1
            back = await relay.event("worker ready", pid=await worker_pid(relay, number, life=2))
            # On a busy machine, a process takes longer to start.
            check_in_time(seconds_between(ended, back) * 1000, max(2000, first_start_ms), "the worker's return")
        await probes.answers(10)
        # The connection that a dead worker had accepted already is reset. That is the only fault a client meets.
        assert set(probes.results) <= {"200", "ConnectionResetError", "RemoteDisconnected"}
        assert probes.results.total() - probes.results["200"] <= 1


@pytest.mark.timed
@best_of_three
async def test_a_worker_that_hangs_is_replaced_and_new_clients_do_not_wait_for_it() -> None:
    async with two_workers() as relay:
        pid = await worker_pid(relay, 2)
        await stop(pid)
        async with Probes(relay) as probes:
            hangs = await relay.event("a worker hangs and is killed")
            assert hangs["worker"] == 2
            assert await worker_pid(relay, 2, life=2)
        assert set(probes.results) == {"200"}
        check_in_time(probes.slowest_ms, 5000, "the slowest answer")


@pytest.mark.timed
@best_of_three
async def test_speech_that_waits_in_a_worker_that_is_killed_is_heard_without_a_pause() -> None:
    async with two_workers() as relay:
        pids = await pids_of(relay)
        async with broadcasting(relay, "ev1", "?pace=speech") as source:
            home = pids[(await relay.event("broadcaster joined", session="ev1"))["worker"] - 1]
            # The other one has to take the listener.
            await stop(home)
            (listener,) = await listen_beside(relay, "ev1", 1)
            os.kill(home, signal.SIGCONT)
            with closing([listener]):
                await source.send(500)
                await source.end()
                # 2 s are released early. A worker takes no channels over in its first 5 s.
                await listener.until(lambda: len(listener.frames) >= 350)
                os.kill(home, signal.SIGKILL)
                await listener.until(lambda: listener.close_code is not None)
        assert listener.close_code == 1000
        assert [frame.number for frame in listener.frames] == list(range(500))
        due_ms = [frame.due_ms for frame in listener.frames]
        check_in_time(due_ms[-1] - due_ms[0], 499 * 20 + 100, "the speech")


async def test_a_worker_that_ends_without_its_cluster_costs_one_line(tmp_path: Path) -> None:
    async with nats(tmp_path) as server, two_workers(RELAY_CLUSTER_URL=server.url) as relay:
        pid = await worker_pid(relay, 1)
        await server.kill()
        os.kill(pid, signal.SIGKILL)
        late = await relay.event("the others learn late that a worker ended")
        assert late["node"] == (await relay.event("worker ready", worker=1))["node"]
        assert f"127.0.0.1:{urlsplit(server.url).port}" in late["reason"]


async def test_nothing_is_left_when_the_supervisor_is_killed_not_even_a_stopped_worker() -> None:
    async with two_workers(RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="30") as relay:
        left = descendants(relay.pid)
        pids = await pids_of(relay)
        assert {*pids, nats_pid(relay)} == set(left)
        listeners = await listen_beside(relay, "ev1", 4)
        with closing(listeners):
            await stop(pids[0])
            relay.signal(signal.SIGKILL)
            await asyncio.gather(sent_away(listeners), until_gone(left))


def files_in(folder: Path) -> set[Path]:
    return set(folder.iterdir())


async def test_the_next_relay_removes_the_files_of_one_that_was_killed(tmp_path: Path) -> None:
    place = {"TMPDIR": str(tmp_path)}
    async with two_workers(**place), two_workers(**place) as killed:
        left = descendants(killed.pid)
        before = files_in(tmp_path)
        assert len(before) == 2
        killed.signal(signal.SIGKILL)
        await until_gone(left)
        assert files_in(tmp_path) == before
        for path in before:
            # As if some time had passed.
            os.utime(path, (0, 0))
        async with two_workers(**place):
            after = files_in(tmp_path)
            assert len(before & after) == len(after - before) == 1
    assert not files_in(tmp_path)


HANG = """
import os, sys, time

if "--supervised" in sys.orig_argv:
    from relay.supervisor.worker import SupervisedWorker

    ready = SupervisedWorker.report_ready

    def report_and_hang(self, node_id):
        ready(self, node_id)
        time.sleep(600)

    SupervisedWorker.report_ready = report_and_hang
"""


async def test_a_worker_that_hangs_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANG)
    async with two_workers(PYTHONPATH=str(tmp_path), RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="1") as relay:
        left = descendants(relay.pid)
        relay.signal(signal.SIGKILL)
        await until_gone(left)


async def test_sigterm_to_all_processes_ends_them_in_order() -> None:
    """A service manager may send the signal to every process of the service."""
    async with two_workers(RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="30") as relay:
        left = descendants(relay.pid)
        listeners = await listen_beside(relay, "ev1", 10)
        with closing(listeners):
            for pid in (relay.pid, *await pids_of(relay)):
                os.kill(pid, signal.SIGTERM)
            await sent_away(listeners)
            assert await relay.wait() == 0
        assert not any(map(is_running, left))
        assert relay.log[-1]["event"] == "relay stopped"
        assert [record["event"] for record in relay.log if record["level"] in {"warning", "error"}] == []


async def test_a_worker_that_does_not_stop_in_time_is_killed() -> None:
    async with two_workers(RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="1") as relay:
        left = descendants(relay.pid)
        await stop(await worker_pid(relay, 1))
        assert await relay.terminate() == 0
        assert 1 in (await relay.event("workers that did not stop in time are killed"))["workers"]
        assert not any("a worker hangs" in line for line in relay.lines), "it was killed later, for another reason"
        assert not any(map(is_running, left))


async def test_a_second_signal_ends_all_at_once() -> None:
    async with two_workers(RELAY_SERVER_SHUTDOWN_DELAY_SECONDS="600") as relay:
        left = descendants(relay.pid)
        relay.signal(signal.SIGTERM)
        await relay.event("relay stopping", worker=1)
        await relay.event("relay stopping", worker=2)
        relay.signal(signal.SIGTERM)
        await until_gone(left)
        assert await relay.wait() == -signal.SIGTERM


async def test_signals_reach_all_workers_and_a_mistake_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text('[log]\nlevel = "info"\n')
    async with two_workers("--config", str(path)) as relay:
        # The one is found when the file is read, the other when the key is.
        for count, mistake in enumerate(('[log]\nlevel = "loud"\n', '[access]\ntoken_key_files = ["/nowhere"]\n'), 1):
            path.write_text(mistake)
            relay.signal(signal.SIGHUP)
            await relay.line(lambda _, count=count: len(refusals(relay)) >= count)  # type: ignore[misc]
        path.write_text('[log]\nlevel = "debug"\n[limits]\nmax_connections = 77\n')
        relay.signal(signal.SIGHUP)
        for number in (1, 2):
            reloaded = await relay.event("configuration reloaded", worker=number)
            assert reloaded["changed"] == ["limits.max_connections", "log.level"]
        listeners = await listen_beside(relay, "ev1", 10)
        with closing(listeners):
            relay.signal(signal.SIGTERM)
            await sent_away(listeners)
        assert await relay.wait() == 0
        assert ["worker" in refusal for refusal in refusals(relay)] == [False, False]


def refusals(relay: RelayProcess) -> list[dict[str, Any]]:
    sentence = "the configuration was not reloaded; the previous one stays in force"
    return [record for record in relay.log if record["event"] == sentence]


async def test_starts_of_a_failing_worker_are_further_and_further_apart() -> None:
    async with two_workers() as relay:
        for life, apart_seconds in enumerate((1, 2), 1):
            os.kill(await worker_pid(relay, 1, life=life), signal.SIGKILL)
            ended = (await failures(relay, life))[-1]
            assert ended["wait_seconds"] == pytest.approx(max(0, apart_seconds - ended["lived_seconds"]), abs=0.15)
        assert get(relay) == 200


async def failures(relay: RelayProcess, count: int) -> list[dict[str, Any]]:
    """Wait until workers have ended this many times, and return what the log has about it."""

    def ended() -> list[dict[str, Any]]:
        return [record for record in relay.log if record["event"] == "a worker ended and is started again"]

    await relay.line(lambda _: len(ended()) >= count)
    return ended()


IN_A_WORKER = """
import os, sys

if "--supervised" in sys.orig_argv:
    os.environ["RELAY_SERVER_PORT"] = "none"
"""


async def test_a_configuration_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    arguments = ("serve", "--workers", "2", "--port", str(free_port()))
    async with running(*arguments, RELAY_ACCESS_TOKEN_KEY_FILES="/nowhere.pem") as relay:  # noqa: S106 - a file
        assert await relay.wait() == 2
        assert len(relay.lines) == 1, relay.text
    (tmp_path / "sitecustomize.py").write_text(IN_A_WORKER)
    async with running("serve", "--workers", "2", PYTHONPATH=str(tmp_path), RELAY_LOG_LEVEL="warning") as relay:
        assert await relay.wait() == 2
        assert relay.lines == [
            'relay: server.port (from RELAY_SERVER_PORT) must be a whole number, not "none".',
        ]
    async with running("serve", "--workers", "0") as relay:
        assert await relay.wait() == 2
        assert relay.lines == [
            'relay: server.workers (from --workers) must be a whole number from 1 to 128, or "auto", not "0".'
        ]


async def test_a_configuration_that_breaks_later_keeps_nobody_from_listening(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text("")
    async with two_workers("--config", str(path)) as relay:
        pid = await worker_pid(relay, 1)
        path.write_text("[log]\nlevel = 3\n")
        os.kill(pid, signal.SIGKILL)
        ended = await relay.line(lambda line: "a worker ended" in line and "log.level" in line)
        assert json.loads(ended)["ended_with"].startswith(f"log.level (from {path})")
        assert get(relay) == 200
        path.write_text("")
        assert await worker_pid(relay, 1, life=2)


async def test_one_worker_is_the_plain_relay() -> None:
    async with relay_process("--workers", "1") as relay:
        assert descendants(relay.pid) == {}
        assert "workers" not in await relay.event("relay ready")


def greeting(port: int) -> dict[str, Any]:
    """Return what a NATS server tells a client first."""
    with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS) as connection:
        line = connection.makefile("rb").readline()
    fields: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    return fields


async def test_the_private_nats_server_is_private_and_comes_back_at_the_same_address() -> None:
    async with two_workers() as relay:
        pid = await worker_pid(relay, 1)
        url = urlsplit(environment_of(pid)["RELAY_CLUSTER_URL"])
        assert url.password is not None
        assert url.port is not None
        told = await asyncio.to_thread(greeting, url.port)
        assert told["auth_required"]
        assert told["jetstream"]
        configuration = Path(descendants(relay.pid)[nats_pid(relay)].split()[2])
        assert [path.stat().st_mode & 0o777 for path in (configuration, configuration.parent)] == [0o600, 0o700]
        secrets = [command for command in descendants(relay.pid).values() if url.password in command]
        assert secrets == []
        os.kill(nats_pid(relay), signal.SIGKILL)
        ended = await relay.event("the private nats-server ended and is started again")
        assert ended["ended_with"] == "SIGKILL"
        async with asyncio.timeout(PROBE_SECONDS):
            while True:
                with suppress(OSError, ValueError):
                    told_now = await asyncio.to_thread(greeting, url.port)
                    break
                await asyncio.sleep(0.05)
        assert told_now["server_id"] != told["server_id"]
        assert await relay.terminate() == 0
        assert not configuration.parent.exists()
        assert url.password not in relay.text


async def test_a_cluster_of_ones_own_needs_no_private_server() -> None:
    url = f"nats://relay:secret-of-nats@127.0.0.1:{free_port()}"
    async with running("serve", "--workers", "2", "--port", str(free_port()), RELAY_CLUSTER_URL=url) as relay:
        await relay.line(lambda line: "worker" in line)
        assert not any("nats-server" in command for command in descendants(relay.pid).values())
        await relay.terminate()
        assert "secret-of-nats" not in relay.text
