"""Many simultaneous conversations with a running relay, beside a listener that must not be affected."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.fuzz.conversation import Conversation
from tests.support.live_session import broadcasting, check_accounts, listen_beside
from tests.support.processes import RelayProcess, relay_process
from tests.support.wire_listener import closing

AT_ONCE = 20
STAY_SECONDS = 0.5
"""How long a conversation waits for messages from the relay."""

SIGNS = ("Traceback", "bug in the relay", "crashed", "Exception in callback", "never retrieved")
"""Texts that the log contains only if the relay has a bug."""

SETTINGS = {
    "RELAY_LIMITS_MAX_FAILURES_PER_MINUTE": "never",
    "RELAY_LIMITS_MAX_CONNECTIONS_PER_ADDRESS": "never",
    "RELAY_LOG_LEVEL": "debug",
    "PYTHONASYNCIODEBUG": "1",
}


async def talk(relay: RelayProcess, conversation: Conversation) -> None:
    """Hold one conversation, and ignore how it ends."""
    loop = asyncio.get_running_loop()
    address = urlsplit(relay.url)
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(STAY_SECONDS * 4):
                await loop.sock_connect(sock, (address.hostname, address.port))
                for piece in conversation.pieces:
                    await loop.sock_sendall(sock, piece)
                    await asyncio.sleep(0)
        with suppress(OSError, TimeoutError):
            if conversation.ending == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif conversation.ending in ("half close", "stay"):
                if conversation.ending == "half close":
                    sock.shutdown(socket.SHUT_WR)
                async with asyncio.timeout(STAY_SECONDS):
                    while await loop.sock_recv(sock, 65_536):
                        pass


async def talk_all(relay: RelayProcess, numbers: Iterable[int], seconds: float) -> int:
    """Hold conversations for a time, and return how many."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    ahead: Iterator[int] = iter(numbers)
    count = 0

    async def one_after_another() -> None:
        nonlocal count
        while loop.time() < until and (number := next(ahead, None)) is not None:
            await talk(relay, Conversation(number))
            assert relay.returncode is None, f"conversation {number} or one beside it ended the relay:\n{relay.text}"
            count += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_another())
    return count


async def fuzz_relay(loop: str, numbers: Iterable[int], seconds: float) -> int:
    """Hold conversations with a relay on an event loop, and return how many.

    Raises:
        AssertionError: The relay exited, its log shows a bug, a healthy listener was affected, or a conversation left
            something behind.
    """
    async with relay_process(RELAY_SERVER_LOOP=loop, **SETTINGS) as relay:
        listeners = await listen_beside(relay, "ev1", 2)
        with closing(listeners):
            async with broadcasting(relay, "ev1") as broadcaster, asyncio.TaskGroup() as group:
                open_files = count_files(relay)
                talking = group.create_task(talk_all(relay, numbers, seconds))
                while not talking.done():
                    await broadcaster.play(0.2)
                await until_closed(relay, open_files)
                await broadcaster.end()
                await check_accounts(listeners, broadcaster)
            assert all(listener.gaps == [] for listener in listeners)
        assert await relay.terminate() == 0
    signs = [line for line in relay.lines if any(sign in line for sign in SIGNS)]
    assert not signs, f"{len(signs)} signs of a bug, the first: {signs[0]}"
    return talking.result()


def count_files(relay: RelayProcess) -> int:
    """Return how many files and sockets the relay has open."""
    return len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))


async def until_closed(relay: RelayProcess, open_files: int, seconds: float = 30.0) -> None:
    """Wait until the relay has at most this many files open."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while count_files(relay) > open_files:
        assert loop.time() < until, f"{count_files(relay) - open_files} descriptors are left"
        await asyncio.sleep(0.1)
