"""`relay loadtest` as a person runs it against a real relay, and its receiver against other kinds of servers."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.typing import Subprotocol

from relay.loadtest import processes
from relay.loadtest import receiver as receiver_module
from relay.loadtest.plan import LoadPlan, Profile, Visit, WorkerPlan, frame_count, plan_visits, send_seconds
from relay.loadtest.results import METRICS, LoadResult
from relay.loadtest.run import LoadRun
from relay.loadtest.target import Expect, Target, stamp
from relay.loadtest.worker import ReportNow
from relay.protocol.json_messages import decode, encode
from relay.protocol.messages import Ping
from relay.protocol.wire import HEADER_BYTES, WORD_MASK, Header
from relay.vocabulary.clock import relay_clock, wire_milliseconds
from relay.vocabulary.errors import RelayError
from tests.support.ports import free_port
from tests.support.processes import Process, RelayProcess, environment, relay_process

KEY = "a-key-for-the-test"
SECONDS = 2
LISTENERS = 30
END_SECONDS = 120.0
"""How long a load test may take to end, and audio to arrive."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(RELAY_BROADCAST_KEY=KEY, RELAY_LISTENER_MAX_BUFFER_SECONDS="1") as process:
        yield process


class LoadTest(Process):
    """A running `relay loadtest`.

    Attributes:
        table: Its standard output, once it has ended.
    """

    table = ""


@asynccontextmanager
async def starting(url: str, *arguments: str, **settings: str) -> AsyncIterator[LoadTest]:
    """Run `relay loadtest`, and stop it when the block ends."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "loadtest", "--url", url, *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment({"RELAY_BROADCAST_KEY": KEY, **settings}),
    )
    process = LoadTest(child)
    try:
        yield process
        assert child.stdout is not None
        async with asyncio.timeout(END_SECONDS):
            process.table = (await child.stdout.read()).decode()
        await process.wait()
    finally:
        await process.kill()


@dataclass(frozen=True)
class Finished:
    """The results of a load test."""

    code: int
    table: str
    errors: list[str]
    result: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.result["metrics"]
        return metrics


async def load_test(folder: Path, url: str, *arguments: str, **settings: str) -> Finished:
    """Run a load test until it exits."""
    path = folder / "result.json"
    async with starting(url, *arguments, "--json", str(path), **settings) as process:
        pass
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    assert process.returncode is not None
    assert "Traceback" not in process.text + process.table
    return Finished(process.returncode, process.table, process.lines, result)


async def audio_of(relay: RelayProcess, seconds: float) -> None:
    """Listen to the relay's first session until this much audio has arrived."""
    joined = await relay.event("broadcaster joined")
    url = f"{relay.websocket_url}/v1/listen/{joined['session']}"
    async with asyncio.timeout(END_SECONDS), connect(url) as listener:
        for _ in range(round(seconds * 50)):
            assert isinstance(await listener.recv(), bytes)


def options(**values: object) -> list[str]:
    chosen = {"listeners": LISTENERS, "duration": SECONDS, "processes": 1} | values
    return [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def check_sums(finished: Finished, frames: int = 50 * SECONDS) -> int:
    """Check that every published frame reached every present listener or was named by a gap, with none unaccounted for.

    Returns:
        The number of those frames. A machine that is busy for a second causes gaps.
    """
    metrics = finished.metrics
    assert list(metrics) == list(METRICS)
    assert metrics["published_frames"] == frames
    for name in ("unaccounted_frames", "undelivered_frames", "join_failures", "disconnects"):
        assert metrics[name] == 0, name
    assert finished.result["healthy"]["delivered"] == metrics["delivered_frames"]
    reached: int = metrics["delivered_frames"] + metrics["gap_frames"]
    return reached


CODECS = {
    "passed on": options(source_codec="opus", codec="opus"),
    "packed": options(source_codec="opus", codec="opus", packet_ms=60),
    "encoded": options(codec="opus", packet_ms=60, frame_ms=50, fps=20),
    "decoded": options(source_codec="opus"),
}
"""The formats that the broadcasters send and the listeners request."""

PROFILES = {
    "steady": options(sessions=3, processes=2),
    "ramp": options(duration=4),
    "storm": options(duration=4, nap_ms=1),
    "churn": options(duration=3),
    "slow": options(slow_percent=20, duration=3, frame_ms=100, fps=10),
    "burst": options(frame_ms=10, fps=40),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(relay: RelayProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Run each profile once, all at the same time, like several users of one relay."""

    async def run(profile: str) -> Finished:
        folder = tmp_path_factory.mktemp(profile)
        conditions = ("--fail-if", "p50_ms<0", "--fail-if", "joins==1")
        page = ("--html", str(folder / "page.html"))
        finished = await load_test(
            folder, relay.websocket_url, "--profile", profile, *PROFILES[profile], *page, *conditions
        )
        assert "<svg" in (folder / "page.html").read_text(encoding="utf-8")
        return finished

    return dict(zip(PROFILES, await asyncio.gather(*map(run, PROFILES)), strict=True))


@pytest.mark.parametrize("profile", PROFILES)
async def test_every_profile_ends_well_and_in_silence(finished: dict[str, Finished], profile: str) -> None:
    assert (finished[profile].code, finished[profile].errors) == (0, []), finished[profile].table
    assert finished[profile].table.startswith(f"{profile}: {LISTENERS} listeners of ")


async def test_steady(finished: dict[str, Finished]) -> None:
    steady = finished["steady"]
    metrics = steady.metrics
    assert check_sums(steady, 3 * 50 * SECONDS) == LISTENERS * 50 * SECONDS
    assert metrics["joins"] == LISTENERS
    assert metrics["frames_per_second"] == metrics["delivered_frames"] / SECONDS
    assert metrics["bytes_per_second"] == pytest.approx(metrics["frames_per_second"] * 660, rel=0.1)
    assert 0 <= metrics["p50_ms"] <= metrics["p99_ms"] <= metrics["max_ms"]
    assert metrics["p50_ms"] < 1000
    assert steady.result["closes"] == {"1000": LISTENERS}
    assert (steady.result["latency_from"], steady.result["clock_uncertainty_ms"]) == ("broadcaster", None)
    assert "(from the broadcaster)" in steady.table
    assert [use["name"] for use in steady.result["generator"]] == ["receiver 1", "receiver 2", "broadcaster"]
    assert 1 <= len(steady.result["seconds"]) <= SECONDS + 1, "a late report makes one too long, or one more"
    assert steady.result["conditions"] == [
        {"condition": "p50_ms<0", "value": metrics["p50_ms"], "holds": False},
        {"condition": "joins==1", "value": LISTENERS, "holds": False},
    ]
    for words in ("p99.9", f"{metrics['delivered_frames']:,} frames", "µs per delivery", "receiver 2"):
        assert words in steady.table


async def test_the_server_is_found_and_measured(finished: dict[str, Finished], relay: RelayProcess) -> None:
    for one in finished.values():
        assert one.result["server"]["name"].endswith(f"(process {relay.pid})")
        assert one.metrics["server_cpu_seconds"] > 0
        assert one.metrics["server_rss_peak_mb"] >= one.metrics["server_rss_before_mb"] > 10
        assert one.metrics["server_uss_peak_mb"] >= one.metrics["server_uss_before_mb"] > 10


async def test_ramp(finished: dict[str, Finished]) -> None:
    ramp = finished["ramp"]
    # They join during two thirds of the test. So each is present for two thirds of it on average, or less if late.
    assert 0.3 < check_sums(ramp, 200) / (LISTENERS * 200) < 0.8
    assert ramp.metrics["joins"] == LISTENERS
    connected = [second["connected"] for second in ramp.result["seconds"]]
    assert connected[0] < connected[-1] <= LISTENERS


async def test_storm(finished: dict[str, Finished]) -> None:
    storm = finished["storm"]
    check_sums(storm, 200)
    # They join after the first of four seconds.
    assert storm.metrics["joins"] == LISTENERS
    assert 0 < storm.metrics["delivered_frames"] <= LISTENERS * 150
    assert storm.result["plan"]["nap_ms"] == 1.0


async def test_churn(finished: dict[str, Finished]) -> None:
    churn = finished["churn"]
    check_sums(churn, 150)
    closes = churn.result["closes"]
    assert closes["1000"] == LISTENERS
    assert closes["left"] == churn.metrics["joins"] - LISTENERS > 0


async def test_slow(finished: dict[str, Finished]) -> None:
    slow = finished["slow"]
    assert check_sums(slow, 30) == 24 * 30
    accounts = slow.result["slow"]
    assert accounts["connections"] == 6
    assert accounts["gap_frames"] > 0
    assert accounts["delivered"] + accounts["gap_frames"] == 6 * 30
    assert "not reading" in slow.table


async def test_burst(finished: dict[str, Finished]) -> None:
    burst = finished["burst"]
    assert check_sums(burst, 80) == LISTENERS * 80
    assert burst.result["notes"] == ["40 frames/s of 10 ms are 40 % of real time; 100 % is like a live voice."]


@pytest.mark.parametrize("codecs", CODECS)
async def test_opus_is_accounted_for_however_it_comes(tmp_path: Path, relay: RelayProcess, codecs: str) -> None:
    finished = await load_test(tmp_path, relay.websocket_url, *CODECS[codecs])
    assert (finished.code, finished.errors) == (0, []), finished.table
    is_converted = codecs in ("encoded", "decoded")
    source_frames = 20 * SECONDS if codecs == "encoded" else 50 * SECONDS
    # An encoder looks 6.5 ms ahead, so the end of the audio needs one more packet.
    frames = 50 * SECONDS + (codecs == "encoded")
    assert check_sums(finished, source_frames) == LISTENERS * frames
    assert finished.result["latency_from"] == ("relay" if is_converted else "broadcaster")
    kilobits = finished.metrics["kbps_per_listener"]
    # 24 kb/s, plus 18 bytes of headers per message, plus 2 bytes per packet in a packed message.
    expected = {"passed on": 31.2, "packed": 27.2, "encoded": 27.2, "decoded": 263}[codecs]
    assert kilobits == pytest.approx(expected, rel=0.3 if codecs == "encoded" else 0.1)
    assert f"heard as {'pcm_s16le' if codecs == 'decoded' else 'opus'}" in " ".join(finished.table.split())


async def test_a_condition_that_holds_is_exit_code_1(tmp_path: Path, relay: RelayProcess) -> None:
    finished = await load_test(
        tmp_path, relay.websocket_url, *options(listeners=3, duration=1), "--fail-if", "joins<10", "--fail-if", "gaps>0"
    )
    assert finished.code == 1
    assert finished.errors == ["relay: --fail-if joins<10: joins is 3."]
    assert [condition["holds"] for condition in finished.result["conditions"]] == [True, False]


async def test_a_terminal_shows_how_far_it_is(relay: RelayProcess) -> None:
    controller, terminal = os.openpty()
    shown = bytearray()
    loop = asyncio.get_running_loop()
    # Read as a terminal emulator does; otherwise the command would block once the terminal's buffer is full.
    loop.add_reader(controller, lambda: shown.extend(os.read(controller, 65_536)))
    command = (sys.executable, "-m", "relay", "loadtest", "--url", relay.url, *options(duration=1))
    settings = {"RELAY_BROADCAST_KEY": KEY}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=DEVNULL,
            stderr=terminal,
            env={**environment(settings), "TERM": "xterm", "COLUMNS": "120"},
        )
        async with asyncio.timeout(END_SECONDS):
            assert await process.wait() == 0
    finally:
        loop.remove_reader(controller)
        os.close(terminal)
        os.close(controller)
    assert b"30 of 30 listeners" in shown
    assert b"1 of 1 s, 30 listeners, " in shown


async def test_a_signal_prints_what_was_measured(tmp_path: Path) -> None:
    async def interrupt(number: signal.Signals) -> None:
        path = tmp_path / number.name
        async with relay_process() as relay:
            arguments = (*options(duration=60), "--json", str(path))
            async with starting(relay.websocket_url, *arguments) as process:
                await audio_of(relay, 1)
                process.signal(number)
            ended = await relay.event("session ended")
        assert process.returncode == 0
        assert "The test ended early: it was stopped by a signal." in process.table
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["metrics"]["published_frames"] == ended["frames"] > 0
        assert result["metrics"]["delivered_frames"] == ended["frames"] * LISTENERS
        assert result["metrics"]["unaccounted_frames"] == 0

    await asyncio.gather(interrupt(signal.SIGINT), interrupt(signal.SIGTERM))


async def test_a_receiving_process_that_dies_is_reported() -> None:
    async with relay_process() as relay, starting(relay.websocket_url, *options(duration=60)) as process:
        await audio_of(relay, 0.5)
        (worker,) = psutil.Process(process.pid).children()
        worker.kill()
    assert (process.returncode, process.lines) == (1, [])
    assert "The test ended early: A receiving process ended early, with signal 9, and its measurements" in process.table


async def test_receiving_processes_end_with_the_main_process_and_not_by_ctrl_c() -> None:
    async with relay_process() as relay, starting(relay.websocket_url, *options(duration=60, processes=2)) as process:
        await audio_of(relay, 0.5)
        workers = psutil.Process(process.pid).children()
        assert [os.getsid(worker.pid) for worker in workers] == [worker.pid for worker in workers]
        process.signal(signal.SIGKILL)
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, END_SECONDS)
        assert (len(workers), alive) == (2, [])


def receiving_process() -> psutil.Process:
    """Return the only receiving process of a load test in this process."""
    (worker,) = (child for child in psutil.Process().children() if "relay.loadtest.worker" in child.cmdline()[-1])
    return worker


async def test_a_receiving_process_that_hangs_is_reported_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_SECONDS", 0.1)
    with pytest.raises(RelayError, match=r"A receiving process did not answer within 0\.1 s"):
        async with processes.running_workers([WorkerPlan([], [])]) as workers:
            assert [report.joining for report in await workers.ask(ReportNow())] == [0]
            worker = receiving_process()
            worker.suspend()
            monkeypatch.setattr(processes, "ANSWER_SECONDS", 0.1)
            await workers.ask(ReportNow())
    assert not worker.is_running()


async def test_a_relay_that_dies_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    async with relay_process() as relay:
        async with starting(relay.websocket_url, *options(duration=60), "--json", str(path)) as process:
            await audio_of(relay, 1)
            await relay.kill()
        url = relay.websocket_url
    assert process.returncode == 1
    assert process.lines == []
    assert f"The test ended early: The connection to {url} was lost." in process.table
    assert "30 were disconnected: 1006 (no close frame)" in process.table
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["metrics"]["delivered_frames"] > 0
    assert (result["metrics"]["disconnects"], result["metrics"]["unaccounted_frames"]) == (LISTENERS, 0)


async def test_mistakes_are_one_sentence_before_anything_begins(tmp_path: Path, relay: RelayProcess) -> None:
    url = relay.websocket_url
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", free_port()))
    dead = f"ws://127.0.0.1:{nobody.getsockname()[1]}"
    mistakes: list[tuple[list[str], Mapping[str, str], int, str]] = [
        (["--url", dead], {}, 2, f"Nothing listens at {dead}. Start a relay there with"),
        (["--fail-if", "p99>1"], {}, 2, "--fail-if 'p99>1': p99 is not measured; the nearest is p99_ms."),
        (
            ["--sessions", "5", "--listeners", "3"],
            {},
            2,
            "5 sessions need at least as many listeners, not 3; raise --listeners or lower --sessions.",
        ),
        (["--pin", "none"], {}, 2, "--pin none must be CPUs that this process may use: "),
        (["--html", str(tmp_path)], {}, 2, f"{tmp_path} cannot be written: it is a directory"),
        (["--json", str(tmp_path / "no" / "x")], {}, 2, "cannot be written"),
        (["--packet-ms", "60"], {}, 2, "--packet-ms is for listeners of Opus; add --codec opus."),
        (
            ["--source-codec", "opus", "--frame-ms", "7"],
            {},
            2,
            "--frame-ms 7: an Opus packet lasts a multiple of 5 ms, up to 120 ms.",
        ),
        (
            ["--duration", "1"],
            {"RELAY_BROADCAST_KEY": "another-key"},
            1,
            "Not allowed: the token or key is missing, wrong",
        ),
    ]

    async def run(arguments: list[str], settings: Mapping[str, str]) -> tuple[int | None, list[str], str]:
        async with starting(url, *arguments, **settings) as process:
            pass
        return process.returncode, process.lines, process.table

    with nobody:
        found = await asyncio.gather(*(run(arguments, settings) for arguments, settings, _, _ in mistakes))
    for (code, lines, table), (_, _, expected_code, sentence) in zip(found, mistakes, strict=True):
        assert (code, table) == (expected_code, ""), lines
        (line,) = lines
        assert line.startswith("relay: ")
        assert sentence in line


async def test_too_few_open_files_are_told_with_what_to_do() -> None:
    command = 'ulimit -n 100 && exec "$0" -m relay loadtest --listeners 200 --processes 1'
    child = await asyncio.create_subprocess_exec(
        *("sh", "-c", command, sys.executable), stdout=DEVNULL, stderr=PIPE, env=environment({})
    )
    _, errors = await child.communicate()
    assert child.returncode == 2
    assert errors.decode().startswith("relay: A process needs 264 open sockets, but may have only 100 (the hard limit")
    assert "--processes" in errors.decode()


async def test_a_server_that_takes_no_listeners_is_reported(tmp_path: Path) -> None:
    """A gate in front of the relay admits only the broadcaster."""
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as relay:
        port = int(relay.url.rsplit(":", 1)[1])

        async def gate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                request = await reader.readuntil(b"\r\n\r\n")
                if b"/v1/listen/" in request:
                    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nFull.")
                    writer.close()
                    return
                await pipe_to(port, request, reader, writer)

        async with await asyncio.start_server(quietly(gate), "127.0.0.1", free_port()) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            finished = await load_test(tmp_path, url, *options(listeners=7))
    assert finished.code == 1
    assert "The test ended early: No listener could join: HTTP 503 Full." in finished.table
    assert "7 could not join: HTTP 503 Full." in finished.table
    assert finished.metrics["join_failures"] == 7


def quietly(handle: Any) -> Any:
    """Ignore connections that the peer broke off or that the end of the test cancels."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()

    return handler


async def pipe_to(port: int, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward between a client and a local port, beginning with `first`, which the client already sent."""
    there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
    there_writer.write(first)

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(65_536):
            sink.write(piece)
            await sink.drain()
        sink.close()

    try:
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
    finally:
        there_writer.close()


def make_certificate(folder: Path) -> Path:
    """Create a self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(encoding)
    )
    return path


async def test_through_tls(tmp_path: Path, relay: RelayProcess) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    port = int(relay.url.rsplit(":", 1)[1])

    async def terminate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pipe_to(port, b"", reader, writer)

    async with await asyncio.start_server(quietly(terminate), "127.0.0.1", free_port(), ssl=context) as server:
        url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finished = await load_test(tmp_path, url, *options(duration=1), SSL_CERT_FILE=str(certificate))
    assert finished.code == 0, finished.table
    assert check_sums(finished, 50) == LISTENERS * 50


class AnotherServer:
    """Sends frames in the sender's format with `websockets.broadcast()`, as a baseline for benchmarks.

    Attributes:
        expect: The kind of frames that it sends.
        close_codes: The codes with which connections closed.
    """

    expect = Expect.STAMPED

    def __init__(self, plan: LoadPlan, lost: int | None = None) -> None:
        self.published = [0]
        self.close_codes: Counter[int | None] = Counter()
        self._connections: set[ServerConnection] = set()
        self._plan = plan
        self._lost = lost

    async def handle(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        await self.converse(connection)
        self._connections.remove(connection)
        self.close_codes[connection.close_code] += 1

    async def converse(self, connection: ServerConnection) -> None:
        await connection.wait_closed()

    def frame(self, seq: int) -> bytes:
        return stamp(seq, relay_clock(), bytes(640))

    def send(self, seq: int) -> None:
        broadcast(self._connections, self.frame(seq))

    def take_late_ms(self) -> float:
        return 0.0

    async def play(self, begins_at: float) -> None:
        for seq in range(frame_count(self._plan)):
            await asyncio.sleep(max(0.0, begins_at + send_seconds(self._plan, seq) - relay_clock()))
            if seq != self._lost:
                self.send(seq)
            self.published[0] = seq + 1

    async def end(self) -> None:
        pass


async def measure(
    server: AnotherServer, plan: LoadPlan, context: ssl.SSLContext | None = None, *, finish_seconds: float = 10.0
) -> LoadResult:
    """Measure a server that closes clients that do not answer its pings."""
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        ssl=context,
        compression=None,
        subprotocols=[Subprotocol("relay.v1")] if server.expect is Expect.RELAY_V1 else None,
        ping_interval=0.3,
        ping_timeout=3.0,
    ) as listening:
        port = listening.sockets[0].getsockname()[1]
        tls_name = None if context is None else "127.0.0.1"
        target = Target("127.0.0.1", port, "/", "another", tls_name=tls_name, expect=server.expect)
        return await LoadRun(plan, [target], server, finish_seconds=finish_seconds).run()


@pytest.mark.parametrize(
    ("lost", "delivered", "unaccounted", "undelivered"), [(None, 500, 0, 0), (20, 490, 10, 0), (49, 490, 0, 10)]
)
async def test_another_server_is_measured_by_the_same_instrument(
    lost: int | None, delivered: int, unaccounted: int, undelivered: int
) -> None:
    plan = LoadPlan("ws://another", listeners=10, duration_seconds=1.0)
    result = await measure(AnotherServer(plan, lost), plan, finish_seconds=0.5 if undelivered else 10.0)
    metrics = result.metrics()
    assert result.ended_early is None
    assert metrics["delivered_frames"] == delivered
    assert (metrics["unaccounted_frames"], metrics["undelivered_frames"]) == (unaccounted, undelivered)
    assert metrics["disconnects"] == 0
    assert dict(result.closes) == {"still open" if undelivered else "left": 10}
    assert metrics["p50_ms"] is not None
    assert 0 <= metrics["p50_ms"] < 500


async def test_who_leaves_says_so() -> None:
    plan = LoadPlan("ws://another", listeners=40, duration_seconds=2.0, profile=Profile.CHURN)
    server = AnotherServer(plan)
    result = await measure(server, plan)
    leaving = sum(visit.leave_at is not None for visit in plan_visits(plan))
    assert server.close_codes[1001] == leaving > 0
    assert result.metrics()["unaccounted_frames"] == 0


class Interrupted(AnotherServer):
    """A source that is interrupted by a signal. The receiving process dies before its last report."""

    async def play(self, begins_at: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await super().play(begins_at)

    async def end(self) -> None:
        receiving_process().kill()


async def test_a_receiving_process_that_dies_after_a_signal_is_reported() -> None:
    plan = LoadPlan("ws://another", listeners=3, duration_seconds=60.0)
    result = await measure(Interrupted(plan), plan)
    assert result.ended_early is not None
    assert result.ended_early.startswith("A receiving process ended early, with signal 9,")


class FarAwayRelay(AnotherServer):
    """A `relay.v1` server whose clock differs from ours, as on another machine, and whose audio is slightly old."""

    AGE_MS = 100
    expect = Expect.RELAY_V1

    @property
    def clock_ms(self) -> int:
        return wire_milliseconds(relay_clock() + 3_000_000.123)

    async def converse(self, connection: ServerConnection) -> None:
        members = {"connection_id": "c", "state": "live", "format": None, "epoch": 9, "next_seq": 0}
        await connection.send(encode("hello", protocol="relay.v1", **members, clock_ms=self.clock_ms))
        async for message in connection:
            assert isinstance(message, str)
            await connection.send(Ping.read(decode(message)).answer(self.clock_ms))

    def frame(self, seq: int) -> bytes:
        return Header(9, seq, 0, (self.clock_ms - self.AGE_MS) & WORD_MASK).pack() + bytes(640)

    async def end(self) -> None:
        for connection in list(self._connections):
            await connection.close()


async def test_the_clock_of_another_machine_is_compared_with_ours() -> None:
    """The receiver also answers the server's pings; otherwise the server would disconnect it."""
    plan = LoadPlan("ws://far-away", listeners=10, duration_seconds=4.0)
    result = await measure(FarAwayRelay(plan), plan)
    metrics = result.metrics()
    assert metrics["delivered_frames"] == 10 * 200
    assert result.clock_uncertainty_ms is not None
    assert result.clock_uncertainty_ms < 50
    assert result.latency_from == "relay"
    assert metrics["p50_ms"] is not None
    # The error is less than the fractional second of the clocks' difference, in both directions.
    assert FarAwayRelay.AGE_MS - 50 <= metrics["p50_ms"] <= FarAwayRelay.AGE_MS + 100
    assert metrics["disconnects"] == metrics["unaccounted_frames"] == 0


class TwoNodes(FarAwayRelay):
    """Two relays behind one address. Their clocks differ by 300 ms, and every other connection reaches the second."""

    AHEAD_MS = 300

    def __init__(self, plan: LoadPlan) -> None:
        super().__init__(plan)
        self._at_the_second: set[ServerConnection] = set()
        self._turn = 0

    async def converse(self, connection: ServerConnection) -> None:
        self._turn += 1
        ahead_ms = self.AHEAD_MS * (self._turn % 2)
        if ahead_ms:
            self._at_the_second.add(connection)
        members = {"connection_id": "c", "state": "live", "format": None, "epoch": 9, "next_seq": 0}
        clock = {"clock_ms": self.clock_ms + ahead_ms, "clock_id": f"ahead by {ahead_ms}"}
        await connection.send(encode("hello", protocol="relay.v1", **members, **clock))
        async for message in connection:
            assert isinstance(message, str)
            await connection.send(Ping.read(decode(message)).answer(self.clock_ms + ahead_ms))

    def send(self, seq: int) -> None:
        frame = self.frame(seq)
        header = Header.unpack(frame)
        ahead = replace(header, due_ms=header.due_ms + self.AHEAD_MS).pack() + frame[HEADER_BYTES:]
        broadcast(self._connections - self._at_the_second, frame)
        broadcast(self._connections & self._at_the_second, ahead)


async def test_each_node_of_a_cluster_has_its_own_clock() -> None:
    plan = LoadPlan("ws://two-nodes", listeners=10, duration_seconds=2.0)
    result = await measure(TwoNodes(plan), plan)
    metrics = result.metrics()
    assert metrics["delivered_frames"] == 10 * 100
    assert metrics["p50_ms"] is not None
    assert metrics["p90_ms"] is not None
    # With one clock for both, half of the frames would be 300 ms older or younger.
    assert FarAwayRelay.AGE_MS - 50 <= metrics["p50_ms"] <= metrics["p90_ms"] < FarAwayRelay.AGE_MS + 200
    assert metrics["max_ms"] is not None


class RudeRelay(FarAwayRelay):
    """Sends audio before its greeting."""

    async def converse(self, connection: ServerConnection) -> None:
        await connection.send(self.frame(0))
        await connection.wait_closed()


async def test_a_server_that_breaks_the_protocol_is_reported() -> None:
    plan = LoadPlan("ws://rude", listeners=3, duration_seconds=1.0)
    result = await measure(RudeRelay(plan), plan)
    assert dict(result.failures) == {"The relay sent audio before its greeting.": 3}
    assert result.ended_early == "No listener could join: The relay sent audio before its greeting."


async def test_a_certificate_that_nobody_vouches_for_is_reported(tmp_path: Path) -> None:
    plan = LoadPlan("wss://another", listeners=3, duration_seconds=1.0)
    server = AnotherServer(plan)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(make_certificate(tmp_path))
    result = await measure(server, plan, context)
    assert dict(result.failures) == {"the certificate is not trusted: self-signed certificate": 3}


async def test_a_server_that_never_greets_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "JOIN_SECONDS", 0.2)
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        silent.setblocking(False)
        target = Target("127.0.0.1", silent.getsockname()[1], "/", "silent")
        plan = WorkerPlan([target], [Visit(0)] * 3, joining_at_once=2, join_limit_seconds=0.1)
        receiver = receiver_module.Receiver(plan)
        receiver.watch(reading, receiver.stop)
        running = asyncio.create_task(asyncio.to_thread(receiver.run))  # noqa: TID251 - joined below
        async with asyncio.timeout(END_SECONDS):
            for sock in [(await loop.sock_accept(silent))[0] for _ in range(2)]:
                with sock:
                    while await loop.sock_recv(sock, 4096):
                        pass
        os.write(writing, b"stop")
        await running
        report = receiver.report()
        receiver.close()
    os.close(reading)
    os.close(writing)
    assert report.failures == {"no greeting within 0.2 s": 2, "not reached within 0.1 s": 1}
    assert (report.joining, report.connected) == (0, 0)


async def test_an_answer_that_arrives_together_with_the_end_of_the_test_is_ignored() -> None:
    is_held, may_go_on = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()

    def follow() -> None:
        if os.read(reading, 1) == b"h":
            is_held.set()
            may_go_on.wait(END_SECONDS)
        else:
            receiver.finish(1.0)

    with socket.create_server(("127.0.0.1", free_port())) as server:
        server.setblocking(False)
        target = Target("127.0.0.1", server.getsockname()[1], "/", "slow")
        receiver = receiver_module.Receiver(WorkerPlan([target], [Visit(0)]))
        receiver.watch(reading, follow)
        running = asyncio.create_task(asyncio.to_thread(receiver.run))  # noqa: TID251 - joined below
        sock, _ = await loop.sock_accept(server)
        with sock:
            await loop.sock_recv(sock, 4096)
            # While the receiver is held, both events become ready, the end first.
            os.write(writing, b"hf")
            await asyncio.to_thread(is_held.wait, END_SECONDS)
            sock.send(b"HTTP/1.1 101 Switching")
            may_go_on.set()
            await running
    report = receiver.report()
    receiver.close()
    os.close(reading)
    os.close(writing)
    assert report.failures == {"the test was over": 1}
