"""Connections to the relay's own TLS before the handshake completes: the limits of admission apply to them too."""

import asyncio
import contextlib
import gc
import random
import signal
import socket
import ssl
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.cli.app import RunningRelay, running_relay
from relay.limits.names import Limit
from relay.limits.tls_faults import TlsFault
from tests.support.certificates import Certificate, make_certificate
from tests.support.in_process import settings_with
from tests.support.live_session import LOOPS, applied_limits
from tests.support.processes import RelayProcess, relay_process

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n"
RACE_SECONDS = 2.5
STEPS = 4


def settings(certificate: Certificate, **more: str) -> dict[str, str]:
    paths = {
        "RELAY_SERVER_TLS_CERTIFICATE": str(certificate.certificate),
        "RELAY_SERVER_TLS_KEY": str(certificate.key),
    }
    return paths | more


@contextmanager
def idle(relay: RelayProcess, number: int, address: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Open connections that send nothing."""
    parts = urlsplit(relay.url)
    target = (parts.hostname or "", parts.port or 0)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(target, timeout=20, source_address=(address, 0)))
            for _ in range(number)
        ]


def is_cut_off(sock: socket.socket) -> bool:
    """Wait for the end of a connection; return false if data or nothing arrives."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def is_served(sock: socket.socket, certificate: Certificate) -> bool:
    """Complete the TLS handshake on a silent connection, and send a request."""
    try:
        with certificate.trusting.wrap_socket(sock, server_hostname="127.0.0.1") as secured:
            secured.sendall(REQUEST)
            return secured.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


@pytest.mark.parametrize("loop", LOOPS)
async def test_of_too_many_idle_ones_the_oldest_go_and_others_get_in(loop: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    more = {"RELAY_SERVER_LOOP": loop, "RELAY_LIMITS_MAX_PENDING_HANDSHAKES": "20"}
    async with relay_process(**settings(certificate, **more)) as relay:
        with idle(relay, 50) as sockets:
            assert await asyncio.to_thread(is_served, sockets[-1], certificate)
            assert await asyncio.to_thread(lambda: all(map(is_cut_off, sockets[:30])))
        assert await applied_limits(relay) == {"max_pending_handshakes": 30}
        assert await relay.event(
            "an address was refused", client="127.0.0.1", reason="max_pending_handshakes", count=30
        )


@pytest.mark.parametrize("by_tls", [True, False])
async def test_the_address_that_holds_most_loses_first(by_tls: bool, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    more = {"RELAY_LIMITS_MAX_PENDING_HANDSHAKES": "20", "RELAY_SERVER_TRUSTED_PROXIES": "[]"}
    async with relay_process(**(settings(certificate, **more) if by_tls else more)) as relay:
        with idle(relay, 5, "127.0.0.2") as slow, idle(relay, 50, "127.0.0.3") as holders:
            assert await asyncio.to_thread(lambda: all(map(is_cut_off, holders[:35])))
            for sock in slow:
                if by_tls:
                    assert await asyncio.to_thread(is_served, sock, certificate)
                else:
                    sock.sendall(REQUEST)
                    assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        assert await applied_limits(relay) == {"max_pending_handshakes": 35}


@pytest.mark.parametrize("loop", LOOPS)
async def test_an_idle_one_has_the_time_that_holds_now(loop: str, tmp_path: Path) -> None:
    certificate, file = make_certificate(tmp_path), tmp_path / "relay.toml"
    file.write_text("[limits]\nhandshake_timeout_seconds = 600.0\n", encoding="utf-8")
    async with relay_process("--config", str(file), **settings(certificate, RELAY_SERVER_LOOP=loop)) as relay:
        with idle(relay, 2) as (early, later):
            # The relay accepts connections in order, so it had both before the signal.
            assert await asyncio.to_thread(is_served, later, certificate)
            file.write_text("[limits]\nhandshake_timeout_seconds = 0.5\n", encoding="utf-8")
            relay.signal(signal.SIGHUP)
            await relay.event("configuration reloaded")
            with idle(relay, 3) as late:
                assert await asyncio.to_thread(lambda: all(map(is_cut_off, late)))
            assert await asyncio.to_thread(is_served, early, certificate)
        assert await applied_limits(relay) == {"handshake_timeout_seconds": 3}
        assert await relay.event("an address was refused", client="127.0.0.1", reason="handshake_timeout_seconds")


async def test_what_is_no_tls_is_cut_off_in_silence(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with relay_process(**settings(certificate)) as relay:
        for words in (REQUEST, bytes(100), b"\x16\x03\x01\xff\xff" + bytes(40_000)):
            with idle(relay, 1) as (sock,):
                sock.sendall(words)
                sock.setblocking(False)
                async with asyncio.timeout(20):
                    await until_cut_off(sock)
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text


def fail_in_every_way(relay: RelayProcess, certificate: Certificate, other: Certificate) -> None:
    """Fail the TLS handshake once for each reason but the last."""
    old, choosy, distrusting = certificate.trusting, certificate.trusting, other.trusting
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.maximum_version = old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    choosy.maximum_version = ssl.TLSVersion.TLSv1_2
    choosy.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    for context in (old, choosy, distrusting):
        with idle(relay, 1) as (sock,), pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_hostname="127.0.0.1")
    for words in (REQUEST, bytes(100)):
        with idle(relay, 1) as (sock,):
            sock.sendall(words)
            while not is_cut_off(sock):
                pass
    with idle(relay, 1):
        pass


def counted(relay: RelayProcess, certificate: Certificate) -> dict[str, float]:
    """Return the relay's count of failed handshakes by reason, from its metrics."""
    address = urlsplit(relay.url)
    connection = HTTPSConnection("127.0.0.1", address.port, context=certificate.trusting, timeout=20)
    try:
        connection.request("GET", "/metrics")
        families = text_string_to_metric_families(connection.getresponse().read().decode())
        (family,) = (each for each in families if each.name == "relay_tls_handshakes_failed")
        return {sample.labels["fault"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    finally:
        connection.close()


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_handshake_that_fails_is_counted_and_told_by_its_reason(loop: str, tmp_path: Path) -> None:
    certificate, other = make_certificate(tmp_path), make_certificate(tmp_path, "other")
    more = {"RELAY_SERVER_LOOP": loop, "RELAY_PROMETHEUS_ENABLED": "true"}
    more["RELAY_LIMITS_MAX_COSTLY_REQUESTS_PER_SECOND_PER_ADDRESS"] = "1000"
    async with relay_process(**settings(certificate, **more)) as relay:
        await asyncio.to_thread(fail_in_every_way, relay, certificate, other)
        expected = dict.fromkeys(set(TlsFault) - {TlsFault.TLS_OTHER}, 1)
        async with asyncio.timeout(20):
            # The relay notices the end of a connection shortly after the client closes it.
            while sum((found := await asyncio.to_thread(counted, relay, certificate)).values()) < len(expected):
                pass
        assert found == expected
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text
    told = Counter[str]()
    for record in relay.log:
        if record["event"] == "TLS handshakes failed":
            told.update({fault: record[fault] for fault in TlsFault if fault in record})
    assert told == {fault: 1 for fault in expected if fault is not TlsFault.TLS_LEFT}
    refused = [record["reason"] for record in relay.log if record["event"] == "an address was refused"]
    assert sorted(refused) == sorted(told)


def in_process(certificate: Certificate, most_pending: int = 1000, timeout_seconds: float = 10) -> dict[str, object]:
    return {
        "server.tls_certificate": str(certificate.certificate),
        "server.tls_key": str(certificate.key),
        "broadcast.open": True,
        "limits.max_pending_handshakes": most_pending,
        "limits.handshake_timeout_seconds": timeout_seconds,
    }


def port_of(relay: RunningRelay) -> int:
    return int(relay.url.rpartition(":")[2])


def handshakes() -> int:
    """Count the connection objects in memory, among them asyncio's SSLProtocol with its 256 KiB buffer."""
    return sum(
        type(each).__name__ in {"SSLProtocol", "TlsHandshake", "HttpConnection", "RelayConnection"}
        for each in gc.get_objects()
    )


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def client_hello(certificate: Certificate) -> tuple[ssl.SSLObject, ssl.MemoryBIO, bytes]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = certificate.trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with contextlib.suppress(ssl.SSLWantReadError):
        secured.do_handshake()
    return secured, incoming, outgoing.read()


async def attack(port: int, certificate: Certificate, chance: random.Random) -> None:
    """Open connections that begin or complete TLS, and end them in every way at every moment."""
    loop = asyncio.get_running_loop()
    end = loop.time() + RACE_SECONDS
    held: list[socket.socket | asyncio.StreamWriter] = []
    while loop.time() < end:
        hello = client_hello(certificate)[2]
        parts = chance.choice(([hello], [hello[:50]], [hello[:50], hello[50:]], [REQUEST], [], None))
        try:
            if parts is None:
                opening = asyncio.open_connection("127.0.0.1", port, ssl=certificate.trusting)
                held.append((await opening)[1])
            else:
                sock = socket.socket()
                sock.setblocking(False)
                held.append(sock)
                await loop.sock_connect(sock, ("127.0.0.1", port))
                for part in parts:
                    sock.send(part)
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
        except OSError:
            pass
        while len(held) > chance.randrange(20):
            let_go(held.pop(chance.randrange(len(held))), by_reset=chance.random() < 0.5)
    for each in held:
        let_go(each, by_reset=True)


def let_go(held: socket.socket | asyncio.StreamWriter, *, by_reset: bool) -> None:
    if isinstance(held, asyncio.StreamWriter):
        held.transport.abort() if by_reset else held.close()
        return
    if by_reset:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    held.close()


@pytest.mark.parametrize(
    ("most_pending", "timeout_seconds", "limit"),
    [(4, 10, Limit.PENDING_HANDSHAKES), (1000, 0.02, Limit.HANDSHAKE_SECONDS)],
)
async def test_evictions_resets_and_time_outs_leave_nothing_taken(
    most_pending: int, timeout_seconds: float, limit: Limit, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    options = in_process(certificate, most_pending, timeout_seconds)
    async with running_relay(settings_with(options)) as relay:
        before = open_files()
        seed = random.randrange(2**32)  # noqa: S311 - not a secret
        chances = [random.Random(seed + number) for number in range(4)]  # noqa: S311 - not a secret
        await asyncio.gather(*(attack(port_of(relay), certificate, chance) for chance in chances))
        assert relay.limits.counters[limit], "nothing raced"
        async with asyncio.timeout(30):
            while not relay.door.is_deserted or handshakes() or open_files() > before:
                await asyncio.sleep(0.05)
                gc.collect()


@pytest.mark.parametrize("ending", ["garbage", "end of the stream", "reset", "eviction", "time-out", "served"])
async def test_nothing_of_a_handshake_waits_for_the_collector(ending: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    options = in_process(certificate, 1, 1 if ending == "time-out" else 600)
    async with running_relay(settings_with(options)) as relay:
        hello = client_hello(certificate)[2]
        gc.collect()
        gc.disable()
        try:
            loop = asyncio.get_running_loop()
            sock = socket.create_connection(("127.0.0.1", port_of(relay)))
            sock.setblocking(False)
            await loop.sock_sendall(sock, bytes(100) if ending == "garbage" else hello)
            if ending != "garbage":
                await loop.sock_recv(sock, 100)
                assert handshakes()
            match ending:
                case "garbage":
                    await until_cut_off(sock)
                case "end of the stream":
                    sock.shutdown(socket.SHUT_WR)
                case "reset":
                    let_go(sock, by_reset=True)
                case "eviction":
                    with socket.create_connection(("127.0.0.1", port_of(relay))) as other:
                        await until_cut_off(sock)
                        let_go(other, by_reset=False)
                case "served":
                    let_go(sock, by_reset=False)
                    async with asyncio.timeout(20):
                        while not await asyncio.to_thread(asks, port_of(relay), certificate):
                            pass
            async with asyncio.timeout(20):
                while handshakes():  # noqa: ASYNC110 - no event shows that nothing refers to it any more
                    await asyncio.sleep(0.01)
            sock.close()
        finally:
            gc.enable()


async def until_cut_off(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(sock, 10_000):
            pass


def asks(port: int, certificate: Certificate) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        return is_served(sock, certificate)
