"""SIGHUP reloads the configuration: new values apply, connections stay, and a mistake changes nothing."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.support.live_session import broadcasting, check_accounts, listen_beside
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import closing

CONFIGURATION = """
[broadcast]
key = "{key}"
[limits]
max_connections = {most}
[log]
level = "{level}"
[server]
shutdown_window_seconds = {window}
"""


def write(path: Path, key: str, most: int = 10, level: str = "info", window: float = 3.0) -> None:
    path.write_text(CONFIGURATION.format(key=key, most=most, level=level, window=window), encoding="utf-8")


async def code_of(relay: RelayProcess, key: str) -> int | None:
    """Try to broadcast to a new session; return the close code, or None if the relay accepts."""
    offered = [Subprotocol("relay.v1"), Subprotocol(f"relay.token.{key}")]
    async with connect(f"{relay.websocket_url}/v1/broadcast/other", subprotocols=offered, proxy=None) as connection:
        if "hello" in str(await connection.recv()):
            return None
        await connection.wait_closed()
        return connection.close_code


async def test_keys_limits_and_log_level_change_and_nobody_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    write(path, "first-key")
    async with relay_process("--config", str(path), RELAY_BROADCAST_OPEN="false") as relay:
        listeners = await listen_beside(relay, "ev1", 2)
        with closing(listeners):
            async with broadcasting(relay, "ev1", key="first-key") as broadcaster:
                await broadcaster.play(0.2)
                path.write_text(path.read_text(encoding="utf-8").replace("first-key", "k"), encoding="utf-8")
                relay.signal(signal.SIGHUP)
                told = await relay.event("the configuration was not reloaded; the previous one stays in force")
                assert (
                    told["faults"]
                    == f"broadcast.key (from {path}) must have 8 to 256 characters, only A-Z a-z 0-9 . _ ~ -."
                )
                assert await code_of(relay, "first-key") is None

                write(path, "first-key", most=2, level="debug", window=1.0)
                relay.signal(signal.SIGHUP)
                reloaded = await relay.event("configuration reloaded")
                assert reloaded["changed"] == ["limits.max_connections", "log.level"]
                assert reloaded["closing"] == 0
                later = await relay.event("these changed settings take effect only after a restart")
                assert later["settings"] == ["server.shutdown_window_seconds"]
                with pytest.raises(InvalidStatus) as caught:
                    await listen_elsewhere(relay)
                assert caught.value.response.status_code == 503
                await broadcaster.play(0.2)
                await broadcaster.end()
                await check_accounts(listeners, broadcaster)
        write(path, "second-key", level="debug")
        relay.signal(signal.SIGHUP)
        await relay.event("configuration reloaded", changed=["broadcast.key", "limits.max_connections"])
        assert [await code_of(relay, "first-key"), await code_of(relay, "second-key")] == [4502, None]
        assert any(record["level"] == "debug" for record in relay.log)
        # The window is what it was at the start again, so the second reload does not mention it.
        reports = [record for record in relay.log if record["event"].endswith("take effect only after a restart")]
        assert reports == [later]
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text
        assert "-key" not in relay.text


async def listen_elsewhere(relay: RelayProcess) -> None:
    async with connect(f"{relay.websocket_url}/v1/listen/ev2", proxy=None):
        raise AssertionError("it was let in")


HASTY = """
import logging, os, signal
from relay.cli.main import main

class Hasty(logging.Handler):
    def emit(self, record):
        if record.getMessage() == "relay ready":
            os.kill(os.getpid(), signal.SIGHUP)

logging.getLogger("relay.cli.serve").addHandler(Hasty())
main()
"""


async def test_a_signal_in_the_moment_in_which_the_relay_says_that_it_is_ready_is_obeyed() -> None:
    relay = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HASTY,
        "serve",
        "--port",
        str(free_port()),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert relay.stderr is not None
    async with asyncio.timeout(20):
        while b"configuration reloaded" not in (line := await relay.stderr.readline()):
            assert line, f"it ended with {await relay.wait()}"
        relay.terminate()
        assert await relay.wait() == 0
