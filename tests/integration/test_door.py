"""Admission: limits per place and address, failed attempts, slow and large handshakes, and a relay that is behind."""

import asyncio
import http.client
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from tests.support.live_session import applied_limits, broadcasting, check_accounts, listen_beside
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, environment, relay_process
from tests.support.wire_listener import closing

UPGRADE = (
    b"GET /v1/listen/ev1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


@asynccontextmanager
async def client(
    relay: RelayProcess, target: str, forwarded: str | None = None, protocols: Sequence[str] = ("relay.v1",)
) -> AsyncIterator[ClientConnection]:
    async with connect(
        relay.websocket_url + target,
        subprotocols=[Subprotocol(protocol) for protocol in protocols],
        additional_headers={} if forwarded is None else {"X-Forwarded-For": forwarded},
        compression=None,
        proxy=None,
    ) as connection:
        yield connection


async def refusal(relay: RelayProcess, target: str, forwarded: str | None = None) -> Response:
    with pytest.raises(InvalidStatus) as caught:
        async with client(relay, target, forwarded):
            raise AssertionError("it was let in")
    return caught.value.response


def said(response: Response) -> tuple[int, str]:
    assert 2 <= int(response.headers["Retry-After"]) <= 10
    return response.status_code, response.body.decode().strip()


def ready(relay: RelayProcess) -> tuple[int, str]:
    parts = urlsplit(relay.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    return response.status, response.read().decode().strip()


async def test_a_full_relay_refuses_listeners_and_those_inside_lose_nothing() -> None:
    async with relay_process(RELAY_LIMITS_MAX_CONNECTIONS="3") as relay:
        listeners = await listen_beside(relay, "ev1", 3)
        with closing(listeners):
            async with broadcasting(relay, "ev1") as broadcaster, asyncio.TaskGroup() as group:
                playing = group.create_task(broadcaster.play(1))
                for _ in range(20):
                    assert said(await refusal(relay, "/v1/listen/ev1")) == (
                        503,
                        "The relay is full; try again in a moment.",
                    )
                assert await asyncio.to_thread(ready, relay) == (503, "not ready: the relay is full")
                await playing
                await broadcaster.end()
                await check_accounts(listeners, broadcaster)
            assert all(listener.gaps == [] for listener in listeners)
        async with client(relay, "/v1/listen/ev1"):
            assert await asyncio.to_thread(ready, relay) == (200, "ready")
        assert await applied_limits(relay) == {"max_connections": 20}


async def test_a_session_has_so_many_listeners_and_broadcasters() -> None:
    settings = {"RELAY_LIMITS_MAX_LISTENERS_PER_SESSION": "1", "RELAY_LIMITS_MAX_BROADCASTERS_PER_SESSION": "1"}
    async with (
        relay_process(**settings) as relay,
        client(relay, "/v1/listen/ev1"),
        client(relay, "/v1/broadcast/ev1"),
        client(relay, "/v1/listen/ev2"),
    ):
        assert said(await refusal(relay, "/v1/listen/ev1/de")) == (503, "This session is full; try again in a moment.")
        status, sentence = said(await refusal(relay, "/v1/broadcast/ev1/de"))
        assert (status, sentence[:46]) == (503, "This session already has the most broadcasters")


async def test_an_address_has_so_many_connections_behind_a_proxy_or_not() -> None:
    async with (
        relay_process(RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS="2") as relay,
        client(relay, "/v1/listen/ev1", "198.51.100.7"),
        client(relay, "/v1/listen/ev1", "6.6.6.6, 198.51.100.7"),
        client(relay, "/v1/listen/ev1", "198.51.100.8"),
    ):
        status, sentence = said(await refusal(relay, "/v1/listen/ev1", "6.6.6.7, 198.51.100.7"))
        assert (status, sentence) == (
            429,
            "There are too many connections from your address; close some, then try again.",
        )
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(client(relay, "/v1/listen/ev1"))
    settings = {"RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS": "1", "RELAY_SERVER_TRUSTED_PROXIES": "[]"}
    async with relay_process(**settings) as relay, client(relay, "/v1/listen/ev1", "198.51.100.7"):
        assert (await refusal(relay, "/v1/listen/ev1", "198.51.100.8")).status_code == 429
        assert await applied_limits(relay) == {"max_connections_per_address": 1}


@pytest.mark.parametrize(
    ("trusted", "before"),
    [("loopback", 10), ("127.0.0.1", 12), ("[]", 1)],
    ids=["by default", "named", "nobody"],
)
async def test_who_forges_addresses_on_this_machine_is_limited_all_the_same(trusted: str, before: int) -> None:
    settings = {"RELAY_LIMITS_MAX_FAILURES_PER_MINUTE": "1", "RELAY_BROADCAST_KEY": "open-sesame"}
    if trusted != "loopback":
        settings["RELAY_SERVER_TRUSTED_PROXIES"] = trusted
    async with relay_process(**settings) as relay:
        guess, right = (["relay.v1", f"relay.token.{key}"] for key in ("close-sesame", "open-sesame"))
        told = 0
        try:
            while told < 12:
                async with client(relay, "/v1/broadcast/ev1", f"198.51.100.{told}", guess) as refused:
                    await refused.wait_closed()
                    assert refused.close_code == 4502
                told += 1
        except InvalidStatus as error:
            assert said(error.response)[0] == 429
        # At a minute boundary, the window can contain a few more.
        assert before <= told <= before + 1 or told == before == 12
        async with client(relay, "/v1/broadcast/ev2", "198.51.100.98", right) as broadcaster:
            assert "hello" in str(await broadcaster.recv())
        applied = await applied_limits(relay)
        named = [record["client"] for record in relay.log if record["event"] == "an address was refused"]
        assert (applied, named) == (
            ({}, []) if trusted == "127.0.0.1" else ({"max_failures_per_minute": 1}, ["127.0.0.1"])
        )


async def test_an_address_that_fails_too_often_is_asked_to_wait_and_no_other() -> None:
    async with relay_process(RELAY_LIMITS_MAX_FAILURES_PER_MINUTE="3", RELAY_BROADCAST_KEY="open-sesame") as relay:
        guess, right = (["relay.v1", f"relay.token.{key}"] for key in ("close-sesame", "open-sesame"))
        for _ in range(3):
            async with client(relay, "/v1/broadcast/ev1", "198.51.100.7", guess) as refused:
                await refused.wait_closed()
                assert refused.close_code == 4502
        for _ in range(2):
            status, sentence = said(await refusal(relay, "/v1/broadcast/ev1", "198.51.100.7"))
            assert (status, sentence[:35]) == (429, "Too many requests from your address")
        # Other clients behind the same address show a valid key, or need none.
        async with client(relay, "/v1/broadcast/ev2", "198.51.100.7", right) as broadcaster:
            assert "hello" in str(await broadcaster.recv())
        async with client(relay, "/v1/listen/ev2", "198.51.100.7") as listener:
            assert "hello" in str(await listener.recv())
        async with client(relay, "/v1/broadcast/ev1", "198.51.100.8", right) as broadcaster:
            assert "hello" in str(await broadcaster.recv())
        await relay.event("connection opened", client="198.51.100.8")
        await relay.terminate()
        await relay.event("an address was refused", client="198.51.100.7", reason="max_failures_per_minute", count=2)
        assert "sesame" not in relay.text


async def test_failures_take_no_joins_from_others_behind_the_same_address() -> None:
    limits = {"RELAY_LIMITS_MAX_FAILURES_PER_MINUTE": "3", "RELAY_LIMITS_MAX_JOINS_PER_SECOND_PER_ADDRESS": "1"}
    async with relay_process(RELAY_BROADCAST_KEY="open-sesame", **limits) as relay:
        for path in (b"/v1/broadcast/ev1", b"/stream/no%20name.wav"):
            guess = UPGRADE.replace(b"/v1/listen/ev1", path) + b"X-Forwarded-For: 198.51.100.7\r\n\r\n"
            answers = [(await say(relay, guess))[:13] for _ in range(30)]
            assert answers[-1] == b"HTTP/1.1 429 "
        async with client(relay, "/v1/broadcast/ev1", "198.51.100.7", ["relay.v1", "relay.token.open-sesame"]) as valid:
            assert "hello" in str(await valid.recv())
        await relay.terminate()
        await relay.event("an address was refused", client="198.51.100.7", reason="max_failures_per_minute")
        assert "max_joins_per_second" not in relay.text


async def test_a_handshake_that_is_too_slow_or_too_large_is_told_so() -> None:
    settings = {"RELAY_LIMITS_HANDSHAKE_TIMEOUT_SECONDS": "0.5", "RELAY_LIMITS_MAX_HANDSHAKE_BYTES": "5000"}
    async with relay_process(**settings) as relay:
        assert (await say(relay, b"GET /v1/lis")).startswith(b"HTTP/1.1 408 ")
        header = b"X-Cookie: " + b"x" * 2000 + b"\r\n"
        assert (await say(relay, UPGRADE + header * 3)).startswith(b"HTTP/1.1 431 ")
        assert (await say(relay, UPGRADE + header + b"\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await applied_limits(relay) == {"handshake_timeout_seconds": 1, "max_handshake_bytes": 1}
        refused = [line for line in relay.log if line["event"] == "an address was refused"]
        assert {(line["client"], line["reason"]) for line in refused} == {
            ("127.0.0.1", "handshake_timeout_seconds"),
            ("127.0.0.1", "max_handshake_bytes"),
        }


async def say(relay: RelayProcess, words: bytes) -> bytes:
    """Send bytes on a new connection, and return the first bytes that come back."""
    parts = urlsplit(relay.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(words)
        async with asyncio.timeout(20):
            return await reader.read(1000)
    finally:
        writer.close()


async def test_those_who_hold_the_door_open_go_first_when_there_are_too_many() -> None:
    async with relay_process(RELAY_LIMITS_MAX_PENDING_HANDSHAKES="20") as relay:
        parts = urlsplit(relay.url)
        silent = [socket.create_connection((parts.hostname, parts.port or 0), timeout=10) for _ in range(50)]
        try:
            async with client(relay, "/v1/listen/ev1") as listener:
                assert "hello" in str(await listener.recv())
            for sock in silent[:30]:
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
        finally:
            for sock in silent:
                sock.close()
        assert (await applied_limits(relay))["max_pending_handshakes"] >= 30


async def test_a_relay_that_is_late_refuses_new_listeners_until_it_is_not() -> None:
    async with relay_process(RELAY_LIMITS_MAX_LAG_MS="500") as relay:
        listeners = await listen_beside(relay, "ev1", 1)
        with closing(listeners):
            relay.signal(signal.SIGSTOP)
            await asyncio.sleep(3)
            relay.signal(signal.SIGCONT)
            async with asyncio.timeout(5):
                while (answer := await asyncio.to_thread(ready, relay)) == (200, "ready"):
                    pass
            assert answer[0] == 503
            assert answer[1].endswith(" ms late")
            assert said(await refusal(relay, "/v1/listen/ev1")) == (
                503,
                "The relay is too busy for more listeners; try again in a moment.",
            )
            async with broadcasting(relay, "ev1") as broadcaster:
                await broadcaster.play(0.2)
                async with asyncio.timeout(20):
                    while await asyncio.to_thread(ready, relay) != (200, "ready"):
                        pass
                listeners += await listen_beside(relay, "ev1", 1)
                await broadcaster.end()
                await listeners[0].until_ended()
                assert listeners[0].account() == broadcaster.published
        assert await applied_limits(relay) == {"max_lag_ms": 1}


@pytest.mark.parametrize(("soft", "hard", "warned"), [(256, 20_000, False), (256, 300, True)])
async def test_it_may_open_as_many_files_as_its_limits_need_or_says_so(soft: int, hard: int, *, warned: bool) -> None:
    shell = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec {sys.executable} -m relay serve --port {free_port()}"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", shell, env=environment({"RELAY_LOG_FORMAT": "json"}), stdout=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    lines = []
    async with asyncio.timeout(20):
        while "relay ready" not in (line := (await process.stderr.readline()).decode()):
            lines.append(line)
    allowed = open_files(process.pid)
    process.terminate()
    await process.communicate()
    assert allowed == ("300" if warned else "11256")
    assert any("the system allows fewer open files" in line for line in lines) is warned


async def test_limits_that_are_raised_while_it_runs_may_open_more_files(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[limits]\nmax_connections = 10\nmax_pending_handshakes = 10\n", encoding="utf-8")
    serve = f"{sys.executable} -m relay serve --port {free_port()} --config {file}"
    shell = f"ulimit -Sn 64 && ulimit -Hn 20000 && exec {serve}"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", shell, env=environment({"RELAY_LOG_FORMAT": "json"}), stdout=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while b"relay ready" not in await process.stderr.readline():
                pass
            assert open_files(process.pid) == "276"
            file.write_text("[limits]\nmax_connections = 700\n", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            while b"configuration reloaded" not in await process.stderr.readline():
                pass
        assert open_files(process.pid) == "1956"
    finally:
        process.terminate()
        await process.communicate()


def open_files(pid: int) -> str:
    """Return how many files a process may open."""
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    return next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
