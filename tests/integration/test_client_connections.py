"""The clients against a scripted relay on real sockets, for behaviour that a real relay shows rarely or never."""

import asyncio
import os
import socket
import threading
import wave
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from relay import client
from relay.cli.broadcast import Broadcast, broadcast
from relay.cli.listen import FileSink, PcmSink, listen
from relay.client import broadcaster as client_broadcaster
from relay.client.transport import connection as client_connection
from relay.media import RawInput
from relay.media.wav_recorder import WavRecorder
from relay.process.blocking import BlockingThread
from relay.vocabulary.audio import AudioFormat, Codec
from relay.vocabulary.errors import (
    BadRequestError,
    ChannelBusyError,
    NotAllowedError,
    PolicyError,
    RelayError,
    UserError,
)
from relay.vocabulary.names import ChannelAddress
from tests.support.ports import free_port
from tests.support.scripted_relay import HELLO, MONO, STEREO, frame, say, scripted

ADDRESS = ChannelAddress("ev1", "english")


async def record(url: str, path: Path) -> None:
    async with asyncio.timeout(15):
        with WavRecorder(path) as recorder:
            sink = FileSink(recorder, Codec.PCM_S16LE)
            await listen(client.listen(url, "ev1", channel="english", reconnect=None), url, sink)


async def send(url: str, audio: bytes, *, keep: bool = False) -> None:
    """Broadcast raw PCM from a pipe."""
    reading, writing = os.pipe()
    os.write(writing, audio)
    os.close(writing)
    try:
        async with asyncio.timeout(15):
            await broadcast(Broadcast(url, ADDRESS, None, RawInput(reading, AudioFormat()), keep=keep))
    finally:
        os.close(reading)


def recorded(path: Path) -> tuple[int, int, bytes]:
    with wave.open(str(path)) as reader:
        return reader.getframerate(), reader.getnchannels(), reader.readframes(reader.getnframes())


async def test_gaps_are_told_and_counted_and_unknown_messages_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/listen/ev1/english"
        gap = {"type": "gap", "epoch": 1, "from_seq": 1, "to_seq": 64, "duration_ms": 1280, "reason": "overflow"}
        await say(connection, HELLO, {"type": "applause"}, frame(0, b"\1\2" * 8_000), gap, frame(65, b"\3\4" * 8_000))
        await say(connection, {**gap, "from_seq": 66, "to_seq": 66, "duration_ms": 20, "reason": "stale"})
        await say(connection, {"type": "state", "state": "ended"})

    async with scripted(script) as url:
        await record(url, tmp_path / "out.wav")
    # Lost audio becomes silence, so that the rest keeps its timing.
    heard = b"\1\2" * 8_000 + bytes(2 * 20_480) + b"\3\4" * 8_000 + bytes(2 * 320)
    assert recorded(tmp_path / "out.wav") == (16_000, 1, heard)
    assert capsys.readouterr().err.splitlines() == [
        f"listening to ev1/english at {url} (live)",
        "the audio is 16000 Hz, mono",
        "lost 1.28 s of audio (overflow)",
        "lost 0.02 s of audio (stale)",
        "the session ended",
        "received 1.00 s of audio, lost 1.30 s in 2 gap(s)",
    ]


async def test_what_the_broadcaster_took_back_takes_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(connection: ServerConnection) -> None:
        gap = {"type": "gap", "epoch": 1, "from_seq": 1, "to_seq": 5, "duration_ms": 100, "reason": "clear"}
        await say(connection, HELLO, frame(0, b"\1\2"), gap, {"type": "clear"}, frame(6, b"\3\4"))

    async with scripted(script) as url:
        await record(url, tmp_path / "out.wav")
    assert recorded(tmp_path / "out.wav") == (16_000, 1, b"\1\2\3\4")
    assert "the broadcaster discarded audio that was not heard yet" in capsys.readouterr().err


async def changing_format(connection: ServerConnection) -> None:
    await say(connection, {**HELLO, "state": "waiting", "format": None}, {"type": "format", "format": MONO, "epoch": 1})
    await say(connection, {"type": "state", "state": "live"}, frame(0, b"\1\2" * 16_000))
    await say(connection, {"type": "format", "format": STEREO, "epoch": 2}, frame(0, b"\3\4\5\6" * 48_000, 2))


async def test_a_recording_goes_on_in_a_next_file_when_the_format_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scripted(changing_format) as url:
        await record(url, tmp_path / "out.wav")
    assert recorded(tmp_path / "out.wav") == (16_000, 1, b"\1\2" * 16_000)
    assert recorded(tmp_path / "out-2.wav") == (48_000, 2, b"\3\4\5\6" * 48_000)
    assert capsys.readouterr().err.splitlines() == [
        f"listening to ev1/english at {url} (waiting for the broadcaster)",
        "the audio is 16000 Hz, mono",
        "live",
        "the audio is 48000 Hz, stereo",
        f"continuing in {tmp_path / 'out-2.wav'}",
        "received 2.00 s of audio, lost 0.00 s in 0 gap(s)",
    ]


async def test_raw_pcm_stops_when_the_format_changes(tmp_path: Path) -> None:
    path = tmp_path / "out.pcm"
    async with scripted(changing_format) as url:
        problem = "^The audio is now 48000 Hz, stereo, but raw PCM cannot tell this"
        with path.open("wb") as file, BlockingThread("test") as writer, pytest.raises(RelayError, match=problem):
            await listen(
                client.listen(url, "ev1", channel="english", reconnect=None), url, PcmSink(file.fileno(), writer)
            )
    assert path.read_bytes() == b"\1\2" * 16_000


async def test_a_player_that_stalls_leaves_the_connection_alive() -> None:
    answered = threading.Event()
    # A pipe holds 64 KiB and the relay sends 96 kB, so the write blocks until the player reads.
    reading, writing = os.pipe()

    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO, *(frame(seq, b"\1\2" * 4_000) for seq in range(12)))
        await (await connection.ping())
        answered.set()

    def play() -> tuple[bool, bytes]:
        in_time = answered.wait(5)
        heard = b""
        while len(heard) < 96_000:
            heard += os.read(reading, 65_536)
        return in_time, heard

    async with scripted(script) as url:
        with BlockingThread("test") as writer, BlockingThread("player") as player:
            playing = asyncio.ensure_future(player.call(play))
            async with asyncio.timeout(10):
                await listen(
                    client.listen(url, "ev1", channel="english", reconnect=None), url, PcmSink(writing, writer)
                )
                in_time, heard = await playing
    os.close(reading)
    os.close(writing)
    assert in_time, "the ping was answered while the write was blocked"
    assert heard == b"\1\2" * 48_000


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (4502, NotAllowedError),
        (4503, ChannelBusyError),
        (4504, BadRequestError),
        (1008, PolicyError),
        (4501, RelayError),
    ],
)
async def test_a_refusal_is_the_relays_own_sentence(tmp_path: Path, code: int, kind: type[RelayError]) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await say(connection, {"type": "error", "code": code, "message": "Not \x1b[2Jtoday."})
        await connection.close(code, "Not today.")

    async with scripted(refuse) as url:
        for attempt in (record(url, tmp_path / "out.wav"), send(url, b"\0\0")):
            with pytest.raises(RelayError) as refusal:
                await attempt
            assert type(refusal.value) is kind
            assert str(refusal.value) == "Not ?[2Jtoday.", "the text does not steer the terminal"
    assert recorded(tmp_path / "out.wav") == (16_000, 1, b"")


async def test_a_close_reason_does_when_there_was_no_error_message(tmp_path: Path) -> None:
    async def close(connection: ServerConnection) -> None:
        await say(connection, HELLO, {"type": "error", "code": 4504, "message": "Something earlier."})
        await connection.close(1012, "The relay is shutting down.")

    async with scripted(close) as url:
        with pytest.raises(RelayError, match=r"^The relay is shutting down\.$"):
            await record(url, tmp_path / "out.wav")


async def test_a_close_without_a_reason_has_its_code(tmp_path: Path) -> None:
    async def close(connection: ServerConnection) -> None:
        await connection.close(4999)

    async with scripted(close) as url:
        with pytest.raises(RelayError, match=rf"^{url} closed the connection with code 4999\.$"):
            await record(url, tmp_path / "out.wav")


async def test_a_lost_connection_is_told_and_the_recording_is_valid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def vanish(connection: ServerConnection) -> None:
        await say(connection, HELLO, frame(0, b"\1\2" * 320))
        # The pong shows that the client has received the audio before the ping.
        await (await connection.ping())
        connection.transport.abort()

    async with scripted(vanish) as url:
        with pytest.raises(RelayError, match=rf"^The connection to {url} was lost\.$"):
            await record(url, tmp_path / "out.wav")
        assert "received 0.02 s of audio, lost 0.00 s in 0 gap(s)" in capsys.readouterr().err
        with pytest.raises(RelayError, match="was lost"):
            await send(url, b"\0\0" * 32_000)
    assert recorded(tmp_path / "out.wav") == (16_000, 1, b"\1\2" * 320)


async def test_a_session_that_is_ended_at_the_relay_stops_the_broadcaster() -> None:
    async def end(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        await connection.recv()

    async with scripted(end) as url:
        with pytest.raises(RelayError, match=r"^The relay ended the broadcast to ev1/english\.$"):
            await send(url, b"\0\0" * 32_000)


async def test_an_end_that_is_not_confirmed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_broadcaster, "END_TIMEOUT_SECONDS", 0.1)

    async def ignore(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        async for _ in connection:
            pass

    async with scripted(ignore) as url:
        with pytest.raises(RelayError, match=rf"^The relay at {url} did not confirm the end of ev1/english in time"):
            await send(url, b"\0\0" * 320)


@pytest.mark.parametrize(("keep", "farewell"), [(False, "end"), (True, "pause")])
async def test_the_session_ends_with_the_audio_unless_it_is_kept(keep: bool, farewell: str) -> None:
    audio = b"\0\0" * 320
    got: list[str | bytes] = []

    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        async for message in connection:
            got.append(message)
            if isinstance(message, str):
                break

    async with scripted(script) as url:
        await send(url, audio, keep=keep)
    assert got == [audio, f'{{"type":"{farewell}"}}']


async def test_a_session_is_not_ended_by_a_source_without_audio() -> None:
    got: list[str | bytes] = []

    async def script(connection: ServerConnection) -> None:
        await say(connection, HELLO)
        got.extend([message async for message in connection])

    async with scripted(script) as url:
        with pytest.raises(UserError, match="Standard input ended without any audio"):
            await send(url, b"")
    assert got == []


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{**HELLO, "protocol": "relay.v2"}], "The relay speaks 'relay.v2', but this client speaks relay.v1;"),
        ([b"\0" * 100], "does not greet like a relay of this version"),
        ([["hello"]], "A control message must be a JSON object"),
    ],
)
async def test_what_does_not_greet_is_no_relay(tmp_path: Path, messages: list[Any], problem: str) -> None:
    async def script(connection: ServerConnection) -> None:
        await say(connection, *messages)
        await connection.wait_closed()

    async with scripted(script) as url:
        for attempt in (record(url, tmp_path / "out.wav"), send(url, b"\0\0")):
            with pytest.raises(UserError) as refusal:
                await attempt
            assert str(refusal.value).startswith(f"The server at {url} ")
            assert problem in str(refusal.value)


async def test_what_says_nothing_is_no_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "OPEN_TIMEOUT_SECONDS", 0.2)

    async def script(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with scripted(script) as url:
        with pytest.raises(UserError, match=rf"^The server at {url} accepted the connection but sent no greeting"):
            await record(url, tmp_path / "out.wav")


async def test_another_version_is_told(tmp_path: Path) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with scripted(script, subprotocols=None) as url:
        with pytest.raises(UserError, match=rf"^The server at {url} accepts WebSockets but does not speak relay\.v1"):
            await record(url, tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (HTTPStatus.NOT_FOUND, "The server at {url} answered HTTP 404, not like a relay; check the address."),
        (HTTPStatus.OK, "The server at {url} answered HTTP 200, not like a relay; check the address."),
        (HTTPStatus.SERVICE_UNAVAILABLE, "The relay at {url} is overloaded (HTTP 503); try again later."),
    ],
)
async def test_http_is_no_relay(tmp_path: Path, status: HTTPStatus, problem: str) -> None:
    async def script(connection: ServerConnection) -> None:
        raise AssertionError("nothing is upgraded")

    def answer(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(status, "no\n")

    async with scripted(script, process_request=answer) as url:
        with pytest.raises(UserError) as refusal:
            await record(url, tmp_path / "out.wav")
    assert str(refusal.value) == problem.format(url=url)


async def test_what_is_not_http_is_no_relay(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", free_port()) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UserError, match="did not answer like a relay"):
            await record(f"ws://127.0.0.1:{port}", tmp_path / "out.wav")
        with pytest.raises(
            UserError, match=rf"wss://127\.0\.0\.1:{port} (did not answer with TLS|broke the connection)"
        ):
            await record(f"wss://127.0.0.1:{port}", tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ws://127.0.0.1:{port}", "Nothing listens at ws://127.0.0.1:{port}. Start a relay there with `relay serve`"),
        (
            "http://localhost:{port}",
            "Nothing listens at http://localhost:{port}. Start a relay there with `relay serve`",
        ),
        ("ws://[fe80::1%nowhere]:1", "The host of ws://[fe80::1%nowhere]:1 is unknown ("),
        ("ws://127.0.0.1:99999", "ws://127.0.0.1:99999 is not the address of a relay"),
        ("ws://[half:1", "ws://[half:1 is not the address of a relay"),
    ],
)
async def test_an_address_without_anybody_is_one_sentence(tmp_path: Path, url: str, problem: str) -> None:
    with socket.socket() as free:
        # A bound socket that does not listen reserves the port for this test.
        free.bind(("127.0.0.1", free_port()))
        port = free.getsockname()[1]
        for attempt in (record(url.format(port=port), tmp_path / "out.wav"), send(url.format(port=port), b"\0\0")):
            with pytest.raises(UserError) as refusal:
                await attempt
            assert str(refusal.value).startswith(problem.format(port=port))


async def test_a_name_with_several_addresses_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))  # noqa: S104 - nobody can connect to a socket that does not listen
        port = free.getsockname()[1]
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        addresses = [(*kind, (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        with pytest.raises(UserError, match=rf"^Nothing listens at ws://relay\.test:{port}\. Start a relay there with"):
            await record(f"ws://relay.test:{port}", tmp_path / "out.wav")


async def test_audio_without_a_format_is_refused(tmp_path: Path) -> None:
    async def script(connection: ServerConnection) -> None:
        await say(connection, {**HELLO, "format": None}, frame(0, b"\0\0"))
        await connection.wait_closed()

    async with scripted(script) as url:
        with pytest.raises(RelayError, match=r"^The relay sent audio before its format\.$"):
            await record(url, tmp_path / "out.wav")
