"""The reason why each connection ended: in the log with the peer, on `/metrics`, and summarized for many."""

import asyncio
import itertools
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.frames import Close, Frame, Opcode
from websockets.typing import Subprotocol

from relay.process.logs import MAX_ORDINARY, MAX_REPEATS
from tests.support.live_session import broadcasting, on_both_loops
from tests.support.operator import ask
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import upgrade

PROMETHEUS = {"RELAY_PROMETHEUS_ENABLED": "true"}


def frame(opcode: Opcode, payload: bytes, *, mask: bool = True) -> bytes:
    return Frame(opcode, payload).serialize(mask=mask)


def closing_frame(code: int, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, Close(code, reason).serialize())


@dataclass(frozen=True, slots=True)
class Ending:
    """What a client sends, and the log line that must follow.

    Attributes:
        target: The path that the client connects to.
        sent: What the client sends before it leaves.
        told: Fields of the log line.
        level: The line's level.
        says: Part of the reason.
        place: The session and channel of the line.
    """

    target: str
    sent: bytes
    told: dict[str, Any]
    level: str
    says: str = ""
    place: tuple[str | None, str | None] = ("ev1", "main")


LISTEN, BROADCAST = "/v1/listen/ev1", "/v1/broadcast/ev1"
FAULT = "warning"

ENDINGS = {
    "a listener sends audio": Ending(
        LISTEN,
        frame(Opcode.BINARY, b"\1\2"),
        {"code": 1008, "by": "relay", "role": "listen"},
        FAULT,
        "must not send audio",
    ),
    "what is no message": Ending(
        BROADCAST,
        frame(Opcode.TEXT, b"[]"),
        {"code": 1008, "by": "relay", "role": "broadcast"},
        FAULT,
        "must be a JSON object",
    ),
    "no mask": Ending(
        BROADCAST,
        frame(Opcode.TEXT, b"{}", mask=False),
        {"code": 1002, "by": "relay", "role": "broadcast"},
        FAULT,
        "masking",
    ),
    "no UTF-8": Ending(
        LISTEN, frame(Opcode.TEXT, b"\xff"), {"code": 1007, "by": "relay", "role": "listen"}, FAULT, "invalid"
    ),
    "too large": Ending(
        f"{BROADCAST}/de",
        b"\x82\xff" + struct.pack("!Q", 300_000) + bytes(4),
        {"code": 1009, "by": "relay", "role": "broadcast"},
        FAULT,
        "300000 bytes",
        ("ev1", "de"),
    ),
    "over a limit": Ending(
        LISTEN,
        frame(Opcode.PING, b"") * 30,
        {"code": 1008, "by": "relay", "role": "listen"},
        FAULT,
        "max_pings_per_second of 5",
    ),
    "a bad request": Ending(
        f"{LISTEN}?buffer_ms=none",
        b"",
        {"code": 4504, "by": "relay", "role": "listen"},
        "info",
        "buffer_ms",
        (None, None),
    ),
    "not allowed": Ending(
        "/v1/listen/closed/de",
        b"",
        {"code": 4502, "by": "relay", "role": "listen"},
        "info",
        "Not allowed",
        ("closed", "de"),
    ),
    "a client that found a fault": Ending(
        LISTEN, closing_frame(1002, "no sense"), {"code": 1002, "by": "peer", "role": "listen"}, "info", "no sense"
    ),
    "a code of its own": Ending(
        LISTEN, closing_frame(3999, "bored\n\x1b[2J"), {"code": 3999, "by": "peer", "role": "listen"}, "info", "bored\n"
    ),
}
SETTINGS = {"RELAY_LIMITS_MAX_PINGS_PER_SECOND": "5", "RELAY_ACCESS_SESSIONS": "ev1", "RELAY_BROADCAST_OPEN": "true"}


async def test_the_log_says_why_who_and_where() -> None:
    async def scenario(relay: RelayProcess) -> None:
        for number, (name, ending) in enumerate(ENDINGS.items(), 1):
            await leave_by(relay, ending)
            line = await closing_line(relay, number)
            assert ending.told.items() <= line.items(), name
            assert ending.says in line["reason"], name
            assert (line["session"], line["channel"]) == ending.place, name
            assert (line["level"], line["client"]) == (ending.level, "127.0.0.1"), name
        lines = [line for line in relay.log if line["event"] == "connection closed"]
        assert len(lines) == len(ENDINGS), "one line for each"

    await on_both_loops(scenario, **SETTINGS)


async def closing_line(relay: RelayProcess, number: int) -> dict[str, Any]:
    """Wait until this many connections have ended, and return the log line of the last one."""
    seen = itertools.count(1)
    line = await relay.line(lambda line: '"connection closed"' in line and next(seen) == number)
    read: dict[str, Any] = json.loads(line)
    return read


async def leave_by(relay: RelayProcess, ending: Ending) -> None:
    """Connect, send, and wait until the connection has ended."""
    address = relay.websocket_url + ending.target
    async with connect(address, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None) as connection:
        if ending.sent:
            connection.transport.write(ending.sent)
        async with asyncio.timeout(10):
            await connection.wait_closed()


async def test_what_happens_to_a_network_is_told_and_who_leaves_is_not() -> None:
    async def scenario(relay: RelayProcess) -> None:
        await go(relay, lambda sock: sock.shutdown(socket.SHUT_WR))
        line = await relay.event("connection closed", session="ev1")
        assert (line["code"], line["by"], line["reason"]) == (
            1006,
            "network",
            "The connection ended without a close frame.",
        )
        await go(relay, reset)
        line = await relay.event("connection closed", reason="Connection reset by peer")
        assert (line["code"], line["by"], line["role"], line["level"]) == (1006, "network", "listen", "info")
        for code in (1000, 1001):
            await go(relay, send(closing_frame(code)))
        await go(relay, send(frame(Opcode.CLOSE, b"")))
        async with broadcasting(relay, "ev1") as broadcaster:
            await broadcaster.send(1)
            await broadcaster.end()
        assert await relay.terminate() == 0
        assert [line["code"] for line in relay.log if line["event"] == "connection closed"] == [1006, 1006]

    await on_both_loops(scenario)


async def go(relay: RelayProcess, leave: Callable[[socket.socket], object]) -> None:
    """Connect as a listener, leave, and read to the end."""
    sock, _, _ = await upgrade(relay.url, LISTEN)
    with sock:
        leave(sock)
        with suppress(OSError):  # the socket may be closed
            async with asyncio.timeout(10):
                while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                    pass


def send(data: bytes) -> Callable[[socket.socket], object]:
    return lambda sock: sock.send(data)


def reset(sock: socket.socket) -> None:
    """Make the kernel send a reset instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_a_broadcaster_that_is_replaced_or_does_what_it_must_not_is_told_once() -> None:
    async with relay_process() as relay, broadcasting(relay, "ev1") as first:
        async with broadcasting(relay, "ev1", "?takeover=1") as second:
            line = await relay.event("connection closed", connection=first.connection_id)
            assert (line["code"], line["reason"], line["level"]) == (4500, "Another broadcaster took over.", "info")
            second.send_together(1)
        line = await relay.event("channel waits for its broadcaster", connection=second.connection_id)
        assert relay.log[-1] == line, "it left, and only the channel is told of"


async def test_of_many_only_few_lines_are_written_and_metrics_have_them_all() -> None:
    fault, many = ENDINGS["a listener sends audio"], 4 * MAX_REPEATS
    async with relay_process(**PROMETHEUS) as relay:
        async with asyncio.TaskGroup() as group:
            for _ in range(many):
                group.create_task(leave_by(relay, fault))
        await leave_by(relay, ENDINGS["too large"])
        line = await relay.event("connection closed", code=1009)
        assert line["role"] == "broadcast", "what many do hides nobody else"
        page = (await ask(relay.url, "GET", "/metrics")).body
        closings = {
            (sample.labels["code"], sample.labels["role"]): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "relay_closings_total"
        }
        assert closings == {("1008", "listen"): many, ("1009", "broadcast"): 1}
        assert await relay.terminate() == 0
        written = sum(line["event"] == "connection closed" and line["code"] == 1008 for line in relay.log)
        left_out = [line for line in relay.log if line.get("of") == "1008 listen by relay"]
        assert MAX_REPEATS <= written < many
        assert written + sum(line["lines"] for line in left_out) == many
        assert {line["like"] for line in left_out} == {"connection closed"}


async def test_a_broadcaster_cannot_fill_the_log() -> None:
    many = 2 * MAX_ORDINARY
    limits = {"RELAY_LIMITS_MAX_TEXTS_PER_SECOND": "never", "RELAY_LIMITS_MAX_JOINS_PER_SECOND_PER_ADDRESS": "never"}
    async with relay_process(**limits) as relay:
        for number in range(many):
            target = f"{relay.url.replace('http', 'ws')}{BROADCAST}?rate=16000&takeover=1"
            async with connect(target, subprotocols=[Subprotocol("relay.v1")], compression=None, proxy=None) as source:
                await source.recv()
                if number == 0:
                    for _ in range(many):
                        await source.send('{"type": "clear"}')
                    await source.send('{"type": "ping", "id": 1}')
                    while json.loads(await source.recv(decode=True))["type"] != "pong":
                        pass
        assert await relay.terminate() == 0
    written = Counter(line["event"] for line in relay.log)
    left_out = {line["like"]: line["lines"] for line in relay.log if line["event"] == "similar log lines were left out"}
    for event in ("audio cleared", "connection opened"):
        assert (written[event], left_out[event]) == (MAX_ORDINARY, many - MAX_ORDINARY)
    assert max(written.values()) <= MAX_ORDINARY
