"""The protocol, spoken to a real relay over real sockets."""

import asyncio
import contextlib
import http.client
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from relay.protocol.wire import HEADER_BYTES, Header
from tests.support.ports import free_port
from tests.support.processes import RelayProcess, relay_process, running

FRAME = b"\1\2" * 320
RELAY_V1 = [Subprotocol("relay.v1")]


@pytest.fixture
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process() as process:
        yield process


@asynccontextmanager
async def client(relay: RelayProcess, target: str, **options: Any) -> AsyncIterator[ClientConnection]:
    options.setdefault("subprotocols", RELAY_V1)
    async with connect(relay.websocket_url + target, compression=None, proxy=None, **options) as connection:
        yield connection


async def control(connection: ClientConnection) -> dict[str, Any]:
    """Return the next message, skipping channel lists; it must be a control message."""
    message = await next_message(connection)
    assert isinstance(message, str), "expected a control message, got audio"
    read: dict[str, Any] = json.loads(message)
    return read


async def next_message(connection: ClientConnection) -> str | bytes:
    """Return the next message, skipping channel lists."""
    async with asyncio.timeout(10):
        while isinstance(message := await connection.recv(), str) and '"type":"channels"' in message:
            pass
    return message


async def audio(connection: ClientConnection) -> tuple[Header, bytes]:
    """Return the next message, skipping channel lists; it must be audio."""
    message = await next_message(connection)
    assert isinstance(message, bytes), f"expected audio, got {message}"
    return Header.unpack(message), message[HEADER_BYTES:]


async def closing(connection: ClientConnection) -> tuple[int, str, list[dict[str, Any]]]:
    """Return the close code, the reason and the control messages before them."""
    told = []
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                message = await connection.recv()
                if isinstance(message, str):
                    told.append(json.loads(message))
    assert caught.value.rcvd is not None, "the connection was cut off without a close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason, told


async def test_audio_reaches_a_listener_in_order_with_its_header(relay: RelayProcess) -> None:
    async with client(relay, "/v1/listen/ev1") as listener:
        hello = await control(listener)
        assert (hello["type"], hello["state"], hello["format"]) == ("hello", "waiting", None)
        assert (hello["session"], hello["channel"], hello["protocol"]) == ("ev1", "main", "relay.v1")
        assert hello["buffer_ms"] == 10_000
        async with client(relay, "/v1/broadcast/ev1?rate=48000&channels=2") as broadcaster:
            greeting = await control(broadcaster)
            assert greeting["type"] == "hello"
            assert greeting["format"] == {"codec": "pcm_s16le", "rate": 48000, "channels": 2, "clock_rate": 48000}
            changed = await control(listener)
            assert (changed["type"], changed["epoch"]) == ("format", hello["epoch"])
            assert await control(listener) == {"type": "state", "state": "live", "pace": "live", "silence": None}
            for number in range(3):
                await broadcaster.send(bytes([number]) * 960 * 4)
            headers = []
            for number in range(3):
                header, payload = await audio(listener)
                assert payload == bytes([number]) * 960 * 4
                headers.append(header)
    assert [header.seq for header in headers] == [hello["next_seq"] + n for n in range(3)]
    assert [header.media_time for header in headers] == [0, 960, 1920]
    assert {header.epoch for header in headers} == {hello["epoch"]}
    assert 0 <= headers[0].due_ms - hello["clock_ms"] < 10_000


async def test_a_long_message_is_split_at_250_ms(relay: RelayProcess) -> None:
    async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
        message = bytes(range(256)) * 100
        await broadcaster.send(message)
        for expected in ("hello", "format", "state"):
            assert (await control(listener))["type"] == expected
        payloads = [(await audio(listener))[1] for _ in range(4)]
        assert [len(payload) for payload in payloads] == [8000, 8000, 8000, 1600]
        assert b"".join(payloads) == message


async def test_raw_framing_is_bare_audio_and_no_text(relay: RelayProcess) -> None:
    async with (
        client(relay, "/v1/listen/ev1", subprotocols=None) as listener,
        client(relay, "/v1/broadcast/ev1", subprotocols=None) as broadcaster,
    ):
        await listener.send('{"type":"ping"}')
        await broadcaster.send(FRAME)
        await broadcaster.send(FRAME[:100])
        async with asyncio.timeout(10):
            assert await listener.recv() == FRAME
            assert await listener.recv() == FRAME[:100]
        await broadcaster.send('{"type":"end"}')
        assert (await closing(listener))[0] == 1000
        assert await closing(broadcaster) == (1000, "The session ended.", [])


async def test_ping_is_answered_with_its_members_and_the_clock(relay: RelayProcess) -> None:
    async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
        for connection in (listener, broadcaster):
            hello = await control(connection)
            await connection.send('{"type":"a type of the future"}')
            await connection.send('{"type":"ping","id":7,"sent":"\\ud800"}')
            while (pong := await control(connection))["type"] != "pong":
                pass
            assert (pong["id"], pong["sent"]) == (7, "\ud800")
            assert pong["clock_ms"] >= hello["clock_ms"]


async def test_end_closes_everybody_and_the_session_may_start_again(relay: RelayProcess) -> None:
    async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
        await broadcaster.send(FRAME)
        await broadcaster.send('{"type":"end"}')
        code, reason, told = await closing(listener)
        assert (code, reason) == (1000, "The session ended.")
        types = [message["type"] for message in told if message["type"] != "channels"]
        assert types == ["hello", "format", "state", "state"]
        assert told[-1]["state"] == "ended"
        assert (await closing(broadcaster))[0] == 1000
    async with client(relay, "/v1/listen/ev1") as listener:
        assert (await control(listener))["state"] == "waiting"


async def test_a_broadcaster_that_returns_continues_the_numbering(relay: RelayProcess) -> None:
    async with client(relay, "/v1/listen/ev1") as listener:
        async with client(relay, "/v1/broadcast/ev1") as broadcaster:
            await broadcaster.send(FRAME)
            assert [(await control(listener))["type"] for _ in range(3)] == ["hello", "format", "state"]
            first, _ = await audio(listener)
        assert (await control(listener))["state"] == "source_lost"
        async with client(relay, "/v1/broadcast/ev1") as broadcaster:
            await broadcaster.send(FRAME)
            assert (await control(listener))["state"] == "live"
            second, _ = await audio(listener)
        assert (second.epoch, second.seq, second.media_time) == (first.epoch, first.seq + 1, 320)
        assert (await control(listener))["state"] == "source_lost"
        async with client(relay, "/v1/broadcast/ev1?rate=8000") as broadcaster:
            await broadcaster.send(FRAME)
            changed = await control(listener)
            assert (changed["type"], changed["epoch"]) == ("format", (first.epoch + 1) % 65536)
            assert (await control(listener))["state"] == "live"
            third, _ = await audio(listener)
        assert (third.epoch, third.seq, third.media_time) == (changed["epoch"], 0, 0)


async def test_the_grace_ends_in_waiting() -> None:
    async with relay_process(RELAY_BROADCAST_GRACE_SECONDS="0.2") as relay, client(relay, "/v1/listen/ev1") as listener:
        async with client(relay, "/v1/broadcast/ev1"):
            pass
        states: list[str] = []
        while len(states) < 3:
            message = await control(listener)
            if message["type"] == "state":
                states.append(message["state"])
        assert states == ["live", "source_lost", "waiting"]


class TestRefusals:
    """A `relay.v1` client finds the reason in the close; every other client finds it in an HTTP response."""

    @pytest.mark.parametrize(
        ("target", "code", "status", "says"),
        [
            ("/v1/listen/no%20way", 4504, 400, "The session id 'no%20way' must have"),
            ("/v1/listen/ev1?codec=mp3", 4504, 400, "codec must name one of pcm_s16le, opus, not 'mp3'"),
            ("/v1/broadcast/ev1?rate=12345", 4504, 400, "rate must be one of"),
            ("/v1/broadcast/busy", 4503, 409, "The channel busy/main already has a broadcaster"),
        ],
    )
    async def test_bad_requests(self, relay: RelayProcess, target: str, code: int, status: int, says: str) -> None:
        async with client(relay, "/v1/broadcast/busy") as first:
            await control(first)
            async with client(relay, target) as refused:
                got, reason, told = await closing(refused)
            assert got == code
            assert says in told[-1]["message"]
            assert (told[-1]["type"], told[-1]["code"]) == ("error", code)
            assert reason
            assert told[-1]["message"].startswith(reason)
            with pytest.raises(InvalidStatus) as caught:
                async with client(relay, target, subprotocols=None):
                    raise AssertionError("it was not refused")
            assert caught.value.response.status_code == status
            assert says.encode() in caught.value.response.body
            await first.send(FRAME)
            await first.send('{"type":"end"}')
            assert (await closing(first))[0] == 1000, "the broadcaster inside was disturbed"

    async def test_the_broadcast_key(self) -> None:
        async with relay_process(RELAY_BROADCAST_KEY="open-sesame") as relay:
            for options in ({}, {"additional_headers": {"Authorization": "Bearer close-sesame"}}):
                async with client(relay, "/v1/broadcast/ev1", **options) as refused:
                    code, _, told = await closing(refused)
                assert code == 4502
                assert "missing, wrong, expired or for something else" in told[-1]["message"]
                with pytest.raises(InvalidStatus) as caught:
                    async with client(relay, "/v1/broadcast/ev1", subprotocols=None, **options):
                        raise AssertionError("it was not refused")
                assert caught.value.response.status_code == 401
            tokens = [*RELAY_V1, Subprotocol("relay.token.open-sesame")]
            async with client(relay, "/v1/broadcast/ev1", subprotocols=tokens) as broadcaster:
                assert (await control(broadcaster))["type"] == "hello"
                assert broadcaster.subprotocol == "relay.v1"
            headers = {"Authorization": "Bearer open-sesame"}
            async with client(relay, "/v1/broadcast/ev2", additional_headers=headers) as broadcaster:
                assert (await control(broadcaster))["type"] == "hello"
            async with client(relay, "/v1/listen/ev1") as listener:
                assert (await control(listener))["type"] == "hello", "listening needs no key"
            assert "sesame" not in relay.text

    async def test_http(self, relay: RelayProcess) -> None:
        def ask(method: str, path: str) -> tuple[int, str]:
            host = urlsplit(relay.url).netloc
            with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
                connection.request(method, path)
                response = connection.getresponse()
                return response.status, response.read().decode()

        answers = [
            ("GET", "/healthz", 200, "ok"),
            ("GET", "/readyz", 200, "ready"),
            ("GET", "/nothing", 404, "/listen/SESSION"),
            ("GET", "/v1/listen/ev1", 426, "WebSocket"),
            ("POST", "/healthz", 405, "This address supports only GET"),
            ("GET", "/listen/no%20way", 400, "The session id"),
            ("GET", "/listen/ev1", 200, "<html"),
            ("GET", "/broadcast/ev1/de", 200, "<html"),
            ("GET", "/assets/player/wire.js", 200, "relay.v1"),
            ("GET", "/assets/../__init__.py", 404, "nothing at this address"),
        ]
        for method, path, status, says in answers:
            got, body = await asyncio.to_thread(ask, method, path)
            assert got == status, f"{method} {path}: {body}"
            assert says in body


class TestPeersThatMisbehave:
    async def test_odd_audio_is_told_four_times_and_closes_the_fifth(self, relay: RelayProcess) -> None:
        async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
            for _ in range(4):
                await broadcaster.send(FRAME + b"!")
                await broadcaster.send(FRAME)
            await broadcaster.send(FRAME + b"!")
            code, reason, told = await closing(broadcaster)
            assert code == 1008
            assert "641 bytes does not end at a whole sample" in reason
            assert [message["type"] for message in told] == ["hello", *["error"] * 5]
            for expected in ("hello", "format", "state"):
                assert (await control(listener))["type"] == expected
            for number in range(4):
                header, payload = await audio(listener)
                assert (header.seq, payload) == (number, FRAME), "the good audio was disturbed"
            assert (await control(listener))["state"] == "source_lost"

    @pytest.mark.parametrize("subprotocols", [RELAY_V1, None], ids=["relay.v1", "raw"])
    @pytest.mark.parametrize(
        ("sent", "says"),
        [
            (json.dumps({"event": "media", "media": {"payload": "fn5+" * 40}}), "This text message holds audio."),
            (json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 2000}), "This text message holds"),
            ("AAAA" * 200, "This text message holds audio."),
            ('{"type":"config","sample_rate":24000}', "Send the audio format in the address"),
            (b"RIFF\x24\0\0\0WAVEfmt " + FRAME, "This begins with a WAV header."),
        ],
        ids=["telephony", "speech", "base64", "config", "wav"],
    )
    async def test_audio_in_another_form_is_told_and_closes_the_fifth_time(
        self, relay: RelayProcess, sent: str | bytes, says: str, subprotocols: list[Subprotocol] | None
    ) -> None:
        async with (
            client(relay, "/v1/listen/ev1") as listener,
            client(relay, "/v1/broadcast/ev1", subprotocols=subprotocols) as broadcaster,
        ):
            for _ in range(4):
                await broadcaster.send(sent)
            await broadcaster.send(FRAME)
            await broadcaster.send(sent)
            code, reason, told = await closing(broadcaster)
            assert code == 1008
            assert reason.startswith(says)
            assert reason.endswith("."), "a sentence is whole in the close frame"
            if subprotocols:
                assert [message["message"] for message in told[1:]] == [reason] * 5
            for expected in ("hello", "format", "state"):
                assert (await control(listener))["type"] == expected
            assert (await audio(listener))[1] == FRAME, "and nothing else was heard"
            line = await relay.event(
                "a broadcaster sends audio that the relay cannot use", session="ev1", reason=reason
            )
            assert line["client"] == "127.0.0.1"
            assert sum(record["event"] == line["event"] for record in relay.log) == 1

    async def test_a_compressed_file_closes_at_once(self, relay: RelayProcess) -> None:
        async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
            await broadcaster.send(b"\x1aE\xdf\xa3" + FRAME)
            code, reason, _ = await closing(broadcaster)
            assert (code, reason[:13]) == (1008, "This is WebM.")
            for expected in ("hello", "format", "state"):
                assert (await control(listener))["type"] == expected
            assert (await control(listener))["state"] == "source_lost"

    @pytest.mark.parametrize(
        ("sent", "code", "says"),
        [
            (FRAME, 1008, "A listener must not send audio"),
            ("not JSON", 1008, "not valid JSON"),
            ('["ping"]', 1008, "must be a JSON object"),
            (json.dumps({"type": "ping", "id": "x" * 5000}), 1008, "more than the limit of 4096"),
            (b"x" * 300_000, 1009, "too big"),
        ],
    )
    async def test_listener(self, relay: RelayProcess, sent: str | bytes, code: int, says: str) -> None:
        async with (
            client(relay, "/v1/listen/ev1") as healthy,
            client(relay, "/v1/listen/ev1") as listener,
            client(relay, "/v1/broadcast/ev1") as broadcaster,
        ):
            await listener.send(sent)
            got, reason, _ = await closing(listener)
            assert got == code
            if code != 1009:
                assert says in reason
            await broadcaster.send(FRAME)
            await broadcaster.send('{"type":"end"}')
            assert (await closing(healthy))[0] == 1000

    async def test_broadcaster_message_too_big(self, relay: RelayProcess) -> None:
        async with client(relay, "/v1/broadcast/ev1") as broadcaster:
            await broadcaster.send(bytes(256 * 1024))
            await broadcaster.send(bytes(256 * 1024 + 2))
            assert (await closing(broadcaster))[0] == 1009

    async def test_no_traceback_for_what_peers_do(self, relay: RelayProcess) -> None:
        parts = urlsplit(relay.url)
        for garbage in (b"\0\1\2\3\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /v1/listen/\xff HTTP/1.1\r\n\r\n", b""):
            with socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as sock:
                sock.sendall(garbage)
        head = b"HTTP/1.1\r\nHost: x\r\n\r\n"
        for request in (b"GET /v1/listen/ev1 " + head, b"GET /nothing " + head, b"GET / " + head):
            for hasty in (b"\x81\x00", b""):
                with socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as sock:
                    sock.sendall(request + hasty)
                    with contextlib.suppress(ConnectionError):
                        while sock.recv(65536):
                            pass
        async with client(relay, "/v1/listen/ev1") as listener:
            await control(listener)
            await listener.send(b"audio")
            await closing(listener)
            listener.transport.abort()
        assert await relay.terminate() == 0
        assert "Traceback" not in relay.text


class TestStopping:
    async def test_sigterm_during_a_broadcast_closes_cleanly_and_exits_with_0(self, relay: RelayProcess) -> None:
        async with client(relay, "/v1/listen/ev1") as listener, client(relay, "/v1/broadcast/ev1") as broadcaster:
            await broadcaster.send(FRAME)
            await control(listener)
            relay.signal(signal.SIGTERM)
            for connection in (listener, broadcaster):
                code, reason, _ = await closing(connection)
                assert (code, reason) == (1012, "The relay is restarting.")
            assert await relay.wait() == 0
        events = [record["event"] for record in relay.log]
        assert "relay stopping" in events
        assert events[-1] == "relay stopped"

    async def test_a_client_that_does_not_answer_holds_nothing_up(self) -> None:
        async with relay_process(RELAY_SERVER_SHUTDOWN_TIMEOUT_SECONDS="0.5") as relay:
            parts = urlsplit(relay.url)
            with (
                socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as silent,
                socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as mute,
            ):
                silent.sendall(
                    b"GET /v1/listen/ev1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                assert silent.recv(1024).startswith(b"HTTP/1.1 101")
                mute.sendall(b"GET / HT")
                assert await relay.terminate() == 0
            assert await relay.stopping_seconds() < 4

    async def test_a_port_in_use_is_one_sentence(self, relay: RelayProcess) -> None:
        port = str(urlsplit(relay.url).port)
        async with running("serve", "--port", port) as second:
            assert await second.wait() == 2
            sentence = f"relay: The relay cannot listen on 127.0.0.1, port {port}: address already in use. "
            assert second.lines == [sentence + "Choose another port with --port, or another address in server.host."]

    async def test_a_public_address_without_a_key_is_one_sentence(self) -> None:
        async with running("serve", "--host", "0.0.0.0", "--port", str(free_port())) as process:  # noqa: S104 - the relay must refuse it
            assert await process.wait() == 2
            assert len(process.lines) == 1
            assert "RELAY_BROADCAST_KEY" in process.lines[0]


class TestHealth:
    async def test_well(self, relay: RelayProcess) -> None:
        async with running("health", RELAY_SERVER_PORT=str(urlsplit(relay.url).port)) as health:
            assert await health.wait() == 0

    async def test_nobody_there(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", free_port()))
            async with running("health", RELAY_SERVER_PORT=str(unused.getsockname()[1])) as health:
                assert await health.wait() == 1
                assert "No relay answers" in health.text
                assert len(health.lines) == 1
