"""A relay whose limit of open files is lower than its limits need."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from tests.support.ports import free_port
from tests.support.processes import environment

FILES = 60
IDLE = 80


async def test_who_only_holds_a_place_open_keeps_nobody_out() -> None:
    shell = f"ulimit -n {FILES} && exec {sys.executable} -m relay serve --port {free_port()}"
    # The places are not free again because those who hold them ran out of time.
    settings = {"RELAY_LOG_FORMAT": "json", "RELAY_LIMITS_HANDSHAKE_TIMEOUT_SECONDS": "60"}
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", shell, env=environment(settings), stdout=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while (record := json.loads(await process.stderr.readline()))["event"] != "relay ready":
                pass
        port = urlsplit(record["url"]).port
        async with AsyncExitStack() as stack, asyncio.timeout(40):
            for _ in range(IDLE):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    finally:
        process.terminate()
        _, log = await process.communicate()
    assert b"Traceback" not in log
    assert b"max_pending_handshakes" in log
