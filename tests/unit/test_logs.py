"""What log lines look like, that no input can forge one, and that logging never blocks."""

import asyncio
import errno
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from relay.process.logs import MAX_ORDINARY, MAX_REPEATS, add_log_fields, configure_logging
from relay.settings.settings import LogSettings
from relay.vocabulary.names import ChannelAddress
from tests.support.ports import free_port

logger = logging.getLogger("relay.test")

Configure = Callable[..., "Log"]


class Log:
    """The lines logged since `configure_logging`."""

    def __init__(self, settings: LogSettings, **fields: object) -> None:
        self._stream = io.StringIO()
        configure_logging(settings, self._stream, **fields)

    @property
    def text(self) -> str:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return self._stream.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n") if self.text else []

    @property
    def members(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configure logging for one test, then restore it."""
    root = logging.getLogger()
    libraries = [
        logging.getLogger(name) for name in ("websockets", "aiobotocore", "botocore", "asyncio", "py.warnings")
    ]
    levels = [(each, each.level) for each in (root, *libraries)]
    before = list(root.handlers)
    yield lambda **values: Log(LogSettings(**values))
    logging.captureWarnings(capture=False)
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    for each, level in levels:
        each.setLevel(level)


def raised(error: Exception) -> Exception:
    """Return `error` with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


class Color(StrEnum):
    RED = "red"


def test_console_line_has_time_level_event_logger_and_fields(configure: Configure) -> None:
    log = configure(format="console")
    named = {"session": "ev1", "listeners": 3, "address": ChannelAddress("ev1"), "color": Color.RED}
    logger.info("broadcaster joined", extra=named)
    (line,) = log.lines
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[info +\] broadcaster joined +\[relay\.test\] "
        r"session='ev1' listeners=3 address='ev1/main' color='red'",
        line,
    )


def test_json_line_is_one_object(configure: Configure) -> None:
    log = configure(format="json")
    logger.warning("listener %s", "left", extra={"session": "ev1", "color": Color.RED, "lag": 1.5, "none": None})
    (member,) = log.members
    time = datetime.fromisoformat(member.pop("timestamp"))
    assert abs(datetime.now(UTC) - time) < timedelta(seconds=10)
    assert member == {
        "level": "warning",
        "event": "listener left",
        "logger": "relay.test",
        "session": "ev1",
        "color": "red",
        "lag": 1.5,
        "none": None,
    }


def test_each_line_has_the_fields_of_its_process_unless_it_has_its_own(configure: Configure) -> None:
    configure()  # restores everything afterwards
    log = Log(LogSettings(format="json"), worker=2)
    logger.warning("first")
    logger.warning("second", extra={"worker": 1})
    assert [members["worker"] for members in log.members] == [2, 1]


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "separator", ["\n", "\r", "\x1b[2K\x1b[1A", "\x85", "\u2028", "\x9b", "\u202e", "\x00", "\udcff"], ids=ascii
)
def test_no_input_forges_a_line(configure: Configure, log_format: str, separator: str) -> None:
    log = configure(format=log_format)
    forged = f"x{separator}2026-01-01T00:00:00.000000Z [info] forged"
    logger.info(
        "peer said %s",
        forged,
        extra={"name_of_peer": forged, "nested": {"list": [forged]}, "raw": forged.encode("utf-8", "ignore")},
    )
    assert len(log.lines) == 1
    assert log.lines[0].isprintable()
    assert log.lines[0].isascii()


def test_an_exception_cannot_forge_a_line_either(configure: Configure) -> None:
    log = configure(format="console")
    error = ValueError("x\n2026-01-01T00:00:00.000000Z [info] forged\x1b[31m")
    logger.error("it failed", exc_info=raised(error))
    assert log.lines[1] == "    Traceback (most recent call last):"
    assert log.lines[-1].endswith("[info] forged\\x1b[31m")
    assert all(line.startswith("    ") and line.isprintable() for line in log.lines[1:])


def test_json_exception_is_a_member(configure: Configure) -> None:
    log = configure(format="json")
    logger.error("it failed", exc_info=raised(ValueError("bad")))
    (member,) = log.members
    assert member["exception"].endswith("ValueError: bad")


def test_level_holds_and_libraries_are_one_level_above(configure: Configure) -> None:
    websockets, botocore = logging.getLogger("websockets.server"), logging.getLogger("botocore.auth")
    log = configure(format="json", level="info")
    logger.debug("hidden")
    websockets.info("hidden")
    websockets.warning("shown")
    log_debug = configure(format="json", level="debug")
    logger.debug("shown")
    websockets.debug("hidden: headers, and so keys")
    botocore.debug("hidden: signatures")
    websockets.info("shown")
    log_error = configure(format="json", level="error")
    websockets.warning("hidden")
    logger.error("shown")
    assert [[member["event"] for member in each.members] for each in (log, log_debug, log_error)] == [
        ["shown"],
        ["shown", "shown"],
        ["shown"],
    ]


def test_warnings_are_log_lines(configure: Configure) -> None:
    log = configure(format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", UserWarning, stacklevel=1)
    (member,) = log.members
    assert member["logger"] == "py.warnings"
    assert "old thing" in member["event"]


async def test_a_bad_client_leaves_no_trace_but_our_bug_does(configure: Configure) -> None:
    async def handler(connection: ServerConnection) -> None:
        if connection.request is not None and connection.request.path == "/bug":
            raise RuntimeError("our bug")
        await connection.recv()

    log = configure(format="console", level="info")
    async with serve(handler, "127.0.0.1", free_port()) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for request in (b"", b"\xff\xfe nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"G" * 20_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            writer.write_eof()
            await reader.read()
            writer.close()
        async with connect(f"ws://127.0.0.1:{port}/") as client:
            client.transport.abort()  # recv in the handler raises ConnectionClosedError
        async with connect(f"ws://127.0.0.1:{port}/bug") as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
    first, *others = log.lines
    assert "connection handler failed" in first
    assert others[-1] == "    RuntimeError: our bug"
    assert sum("Traceback" in line for line in others) == 1


async def test_a_process_out_of_files_says_so_in_one_line(configure: Configure) -> None:
    log = configure(format="console", level="info")
    problem = {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "Too many")}
    asyncio.get_running_loop().default_exception_handler(problem)
    (line,) = log.lines
    assert "[error" in line
    assert "socket.accept() out of system resource" in line
    asyncio.get_running_loop().default_exception_handler({"exception": OSError(errno.EIO, "another")})
    assert log.lines[-1] == "    OSError: [Errno 5] another"


CONFIGURE = """
import logging, sys
from relay.process.logs import MAX_REPEATS, add_log_fields, configure_logging
from relay.settings.settings import LogSettings
logger = logging.getLogger("relay.test")
configure_logging(LogSettings())
"""


def test_auto_is_json_away_from_a_terminal_and_the_end_of_the_process_flushes() -> None:
    code = CONFIGURE + "for number in range(1000): logger.info('line', extra={'number': number})\nsys.exit(3)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert result.returncode == 3
    assert [json.loads(line)["number"] for line in result.stderr.splitlines()] == list(range(1000))
    assert result.stdout == b""


@pytest.mark.parametrize(("environ", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_auto_is_console_on_a_terminal(environ: dict[str, str], *, colored: bool) -> None:
    ours, theirs = pty.openpty()
    code = CONFIGURE + "logger.info('hello', extra={'session': 'ev1'})"
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, env=clean | environ, timeout=30, check=True)
        line = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "hello" in line
    assert ("\x1b[" in line) == colored


def test_a_blocked_standard_error_delays_nothing_and_is_told_later() -> None:
    waiting, logged = 1000, 4000
    code = f"from relay.process import logs; logs.MAX_WAITING_LINES = {waiting}{CONFIGURE}"
    code += (
        f"for number in range({logged}): logger.info('line', extra={{'number': number}})\n"
        "print('done', flush=True)\n"
        "sys.stdin.readline()\n"
        "logger.info('last')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdout.readline() == b"done\n"  # standard error has not been read until now
        members: list[dict[str, Any]] = []
        while not members or "lines" not in members[-1]:
            members.append(json.loads(process.stderr.readline()))
        process.stdin.write(b"\n")
        process.stdin.flush()
        members += [json.loads(line) for line in process.stderr]
        watchdog.cancel()
        assert process.wait(30) == 0
    numbers = [member["number"] for member in members if "number" in member]
    told = [member["lines"] for member in members if "lines" in member]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= waiting
    assert len(numbers) + sum(told) == logged
    assert members[-1]["event"] == "last"


def test_a_blocked_standard_error_does_not_keep_the_process_alive() -> None:
    code = CONFIGURE + "for number in range(5000): logger.info('line')\nsys.exit(4)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(30) == 4
        finally:
            process.kill()


def test_a_closed_standard_error_breaks_nothing() -> None:
    code = CONFIGURE + "logger.info('line')\nsys.exit(5)"
    result = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], timeout=30, check=False)
    assert result.returncode == 5


def test_configuring_again_replaces(configure: Configure) -> None:
    first = configure(format="json")
    second = configure(format="json")
    logger.info("once")
    assert (len(first.lines), len(second.lines)) == (0, 1)


def test_a_traceback_that_a_peer_can_cause_is_written_once(configure: Configure) -> None:
    log = configure(format="json")
    for number in range(1000):
        logger.error("a bug in the relay ended a connection", exc_info=raised(RecursionError(f"of peer {number}")))
    logger.error("another failure", exc_info=raised(ValueError()))
    logger.error("a bug in the relay ended a connection", exc_info=raised(ValueError()))
    members = log.members
    assert [(each["event"], "exception" in each) for each in members] == [
        ("a bug in the relay ended a connection", True),
        ("another failure", True),
        ("a bug in the relay ended a connection", True),
        ("similar log lines were left out", False),
    ]
    assert (members[-1]["like"], members[-1]["lines"]) == ("a bug in the relay ended a connection", 999)


class Broken(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        raise RuntimeError(data)


async def test_a_traceback_from_the_event_loop_is_written_once_too(configure: Configure) -> None:
    log = configure(format="json")
    protocols: list[Broken] = []  # keeps them in memory, so that each has its own address

    def connect() -> Broken:
        protocols.append(Broken())
        return protocols[-1]

    async with await asyncio.get_running_loop().create_server(connect, "127.0.0.1", port := free_port()):
        for number in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"%d" % number)
            assert await reader.read() == b""
            writer.close()
    first, left_out = log.members
    assert first["exception"].endswith("RuntimeError: b'0'")
    assert first["event"].startswith(f"{left_out['like']}() call failed.")
    assert left_out["lines"] == 9


def test_lines_of_which_a_peer_can_cause_many_are_summarised(configure: Configure) -> None:
    log = configure(format="json")
    for number in range(1000):
        logger.warning("silent connection cut off", extra={"connection": number, "may_repeat": True})
        logger.warning("something that nobody can cause", extra={"number": number})
    counts = Counter(each["event"] for each in log.members)
    assert counts == {
        "silent connection cut off": MAX_REPEATS,
        "something that nobody can cause": 1000,
        "similar log lines were left out": 1,
    }
    assert log.members[-1]["lines"] == 1000 - MAX_REPEATS
    assert "may_repeat" not in log.text


def test_an_ordinary_life_has_room_for_an_event_with_many_channels_but_not_for_more(configure: Configure) -> None:
    log = configure(format="json")
    for number in range(1000):
        logger.info("broadcaster joined", extra={"channel": number, "is_ordinary": True})
        logger.debug("listener joined", extra={"is_ordinary": False})
    assert [each["event"] for each in log.members] == [
        *["broadcaster joined"] * MAX_ORDINARY,
        "similar log lines were left out",
    ]
    assert log.members[-1]["lines"] == 1000 - MAX_ORDINARY
    assert "is_ordinary" not in log.text


def test_in_a_cluster_each_line_has_the_node(configure: Configure) -> None:
    log = configure(format="json")
    logger.warning("before")
    add_log_fields(node="one")
    logger.warning("after", extra={"session": "ev1"})
    logger.warning("of another", extra={"node": "two"})
    for _ in range(MAX_REPEATS + 1):
        logger.warning("again", extra={"may_repeat": True})
    first, *lines = log.members
    assert "node" not in first
    assert [line["node"] for line in lines] == ["one", "two", *["one"] * (len(lines) - 2)]
    assert lines[-1]["event"] == "similar log lines were left out"
