"""The fault proxy causes the faults that it promises, between plain sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.ports import free_port

pytestmark = pytest.mark.timed

SECONDS = 10.0
"""Longer than anything here takes on a busy machine."""

SHORT_SECONDS = 0.2
"""The wait for data that must not arrive. A broken proxy would forward it at once."""


class Connection:
    """Both ends of a connection through a proxy."""

    def __init__(self, client: socket.socket, target: socket.socket) -> None:
        self.client = client
        self.target = target
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            await self._loop.sock_sendall(self.client, data)

    async def answer(self, data: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            await self._loop.sock_sendall(self.target, data)

    async def arrives(self, size: int = 1024, seconds: float = SECONDS) -> bytes:
        """Read once at the target."""
        async with asyncio.timeout(seconds):
            return await self._loop.sock_recv(self.target, size)

    async def comes_back(self, size: int = 1024, seconds: float = SECONDS) -> bytes:
        """Read once at the client."""
        async with asyncio.timeout(seconds):
            return await self._loop.sock_recv(self.client, size)

    async def fill(self) -> int:
        """Send until the socket accepts no more, and return the number of bytes."""
        sent = 0
        try:
            while True:
                async with asyncio.timeout(SHORT_SECONDS):
                    await self._loop.sock_sendall(self.client, bytes(4096))
                sent += 4096
        except TimeoutError:
            return sent


class Bench:
    """A proxy, and a target that accepts connections."""

    def __init__(self, proxy: FaultProxy, listening: socket.socket) -> None:
        self.proxy = proxy
        self._listening = listening
        self._sockets: list[socket.socket] = []

    async def reach(self, seconds: float = SECONDS) -> socket.socket:
        """Connect to the proxy as a client that sends at once and buffers little."""
        sock = socket.socket()
        self._sockets.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        port = int(self.proxy.url.rpartition(":")[2])
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    async def connect(self) -> Connection:
        client = await self.reach()
        async with asyncio.timeout(SECONDS):
            target, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self._sockets.append(target)
        target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(client, target)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        listening.setblocking(False)
        async with fault_proxy(f"http://127.0.0.1:{listening.getsockname()[1]}") as proxy:
            opened = Bench(proxy, listening)
            try:
                yield opened
            finally:
                opened.close()


async def test_without_faults_everything_passes_both_ways_and_ends_in_order() -> None:
    async with bench() as at:
        one = await at.connect()
        await one.send(b"question")
        assert await one.arrives() == b"question"
        await one.answer(b"answer")
        assert await one.comes_back() == b"answer"
        one.target.close()
        assert await one.comes_back() == b""
        one.client.close()
        async with asyncio.timeout(SECONDS):
            await at.proxy.until_left()


async def test_a_megabyte_arrives_whole_and_in_order() -> None:
    sent = b"".join(number.to_bytes(4) for number in range(1 << 18))
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.jitter_seconds = 0.005
        at.proxy.up.slice_bytes = 1000
        sending = asyncio.ensure_future(one.send(sent))
        received = b""
        while len(received) < len(sent):
            received += await one.arrives(1 << 16)
        await sending
        assert received == sent


async def test_latency_holds_up_one_way_only() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.down.latency_seconds = 1.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        await one.answer(b"late")
        await one.send(b"prompt")
        assert await one.arrives() == b"prompt"
        assert loop.time() - began < 1.0
        assert await one.comes_back() == b"late"
        assert loop.time() - began >= 1.0


async def test_groups_arrive_together() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.group_seconds = 0.4
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.41 - loop.time() % 0.4)
        for _ in range(5):
            await one.send(b"x")
            await asyncio.sleep(0.01)
        sent_at = loop.time()
        received = b""
        while len(received) < 5:
            received += await one.arrives()
        assert sent_at // 0.4 + 1 == loop.time() // 0.4, "they did not come together at the next interval"


async def test_bandwidth_is_kept() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.bytes_per_second = 50_000
        loop = asyncio.get_running_loop()
        began = loop.time()
        sending = asyncio.ensure_future(one.send(bytes(25_000)))
        received = 0
        while received < 25_000:
            received += len(await one.arrives())
        await sending
        assert loop.time() - began >= 0.45


async def test_slices_are_of_the_size_that_was_asked_for() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.slice_bytes = 2
        await one.send(b"two by two")
        received = b""
        while len(received) < 10:
            received += await one.arrives()
        assert received == b"two by two"
        assert packets(one.target) == 5


async def test_a_stall_loses_nothing() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.stall()
        await one.send(b"one")
        with pytest.raises(TimeoutError):
            await one.arrives(seconds=SHORT_SECONDS)
        at.proxy.flow()
        assert await one.arrives() == b"one"


async def test_who_is_ignored_finds_a_closed_window() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.ignore()
        await one.send(b"unheard")
        with pytest.raises(TimeoutError):
            await one.arrives(seconds=SHORT_SECONDS)
        await one.fill()
        stuck = await one.fill()
        assert stuck == 0
        at.proxy.up.heed()
        assert await one.fill() > 0


async def test_a_full_line_stops_reading() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.line_bytes = 30_000
        at.proxy.up.stall()
        assert 30_000 <= await one.fill() <= 30_000 + 16_384 + 65_536


async def test_a_half_close_ends_one_way_behind_what_is_under_way() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.up.latency_seconds = SHORT_SECONDS
        await one.send(b"last")
        await asyncio.sleep(SHORT_SECONDS / 2)
        at.proxy.up.finish()
        assert await one.arrives() == b"last"
        assert await one.arrives() == b""
        await one.answer(b"still here")
        assert await one.comes_back() == b"still here"


async def test_a_kill_resets_both_sides_and_the_next_connection_is_good() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.kill()
        with pytest.raises(ConnectionResetError):
            await one.arrives()
        with pytest.raises(ConnectionResetError):
            await one.comes_back()
        two = await at.connect()
        await two.send(b"here")
        assert await two.arrives() == b"here"


async def test_a_reset_by_one_side_reaches_the_other() -> None:
    async with bench() as at:
        one = await at.connect()
        one.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        one.client.close()
        with pytest.raises(ConnectionResetError):
            await one.arrives()


async def test_a_cut_resets_new_connections_until_it_is_mended() -> None:
    async with bench() as at:
        at.proxy.cut()
        with pytest.raises(ConnectionResetError):
            client = await at.reach()
            async with asyncio.timeout(SECONDS):
                await asyncio.get_running_loop().sock_recv(client, 1)
        at.proxy.mend()
        two = await at.connect()
        await two.send(b"here")
        assert await two.arrives() == b"here"


async def test_a_black_hole_acknowledges_nothing_and_takes_nobody_until_it_is_gone() -> None:
    async with bench() as at:
        one = await at.connect()
        at.proxy.vanish()
        await one.send(b"into the void")
        assert unacknowledged(one.client) == 1
        with pytest.raises(TimeoutError):
            await at.reach(SHORT_SECONDS)
        with pytest.raises(TimeoutError):
            await one.arrives(seconds=SHORT_SECONDS)
        at.proxy.appear()
        assert await one.arrives() == b"into the void", "the kernel did not send it again"
        assert unacknowledged(one.client) == 0


def unacknowledged(sock: socket.socket) -> int:
    """Return how many packets of a socket are unacknowledged: `tcpi_unacked` of `linux/tcp.h`."""
    return tcp_information(sock, 24)


def packets(sock: socket.socket) -> int:
    """Return how many packets brought a socket's data: `tcpi_data_segs_in`."""
    return tcp_information(sock, 152)


def tcp_information(sock: socket.socket, at: int) -> int:
    """Read a u32 of tcp(7)'s TCP_INFO."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, at + 4)[at:], "little")
