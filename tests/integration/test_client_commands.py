"""`relay broadcast` and `relay listen` as a person runs them: with processes, pipes, signals and terminals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from tests.support.client_commands import (
    KEY,
    Settings,
    client,
    encode,
    noise,
    pipe_holding,
    read_wav,
    ready,
    refused,
    run,
    write_wav,
)
from tests.support.ports import free_port
from tests.support.processes import (
    STOP_SECONDS,
    RelayProcess,
    environment,
    few_at_once,
    relay_process,
    seconds_between,
)
from tests.support.wire_listener import closing, open_listener

pytestmark = [pytest.mark.timed, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[RelayProcess]:
    async with relay_process(RELAY_BROADCAST_KEY=KEY) as process:
        yield process


@pytest.fixture
def settings(relay: RelayProcess) -> Settings:
    """Return the settings of a client that may broadcast."""
    return {"RELAY_CLIENT_URL": relay.url, "RELAY_BROADCAST_KEY": KEY}


@pytest.mark.parametrize(
    ("rate", "channels", "samples"), [(48_000, 2, 48_123), (16_000, 1, 16_007), (11_025, 1, 9_999)]
)
async def test_a_file_is_received_sample_for_sample(
    tmp_path: Path, settings: Settings, rate: int, channels: int, samples: int
) -> None:
    sent = write_wav(tmp_path / "sent.wav", noise(samples, channels), rate, channels)
    session = f"exact-{rate}"
    async with client(settings, "listen", session, "-o", str(tmp_path / "received.wav")) as listener:
        await ready(listener)
        broadcaster = await run(settings, "broadcast", session, str(sent))
        assert await listener.wait() == 0
    assert broadcaster.returncode == 0
    assert read_wav(tmp_path / "received.wav") == read_wav(sent)
    sound = "stereo" if channels == 2 else "mono"
    url = settings["RELAY_CLIENT_URL"]
    assert broadcaster.lines == [
        f"broadcasting sent.wav ({rate} Hz, {sound}) to {session}/main at {url}",
        f"sent {samples / rate:.2f} s of audio",
    ]
    assert listener.lines == [
        f"listening to {session}/main at {url} (waiting for the broadcaster)",
        f"the audio is {rate} Hz, {sound}",
        "live",
        "the session ended",
        f"received {samples / rate:.2f} s of audio, lost 0.00 s in 0 gap(s)",
    ]


async def test_raw_pcm_goes_from_pipe_to_pipe(relay: RelayProcess, settings: Settings) -> None:
    audio = noise(12_000, 2)
    here = ("pipes", "--channel", "b", "--url", relay.websocket_url)
    reading, writing = os.pipe()
    output = asyncio.StreamReader()
    with os.fdopen(reading, "rb") as file:
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), file)
        # The client does not use a proxy to reach a relay on this machine.
        proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
        async with client(proxy, "listen", *here, stdout=writing) as listener:
            os.close(writing)
            await ready(listener)
            with pipe_holding(audio) as pipe:
                options = ("--rate", "24000", "--channels", "2", "--frame-ms", "50")
                broadcaster = await run(settings, "broadcast", *here, "-", *options, stdin=pipe)
            assert await listener.wait() == 0
            assert broadcaster.returncode == 0, broadcaster.text
            assert await output.read() == audio


async def test_half_a_sample_is_told_after_all_whole_ones_were_sent(tmp_path: Path, settings: Settings) -> None:
    audio = noise(5_000)
    path = tmp_path / "out.pcm"
    with path.open("wb") as file, pipe_holding(audio + b"\1") as pipe:
        async with client(settings, "listen", "odd", "-o", "-", stdout=file.fileno()) as listener:
            await ready(listener)
            broadcaster = await run(settings, "broadcast", "odd", "-", stdin=pipe)
            assert await listener.wait() == 0
    assert broadcaster.returncode == 2
    assert broadcaster.lines[-1].startswith("relay: Standard input ended in the middle of a sample: 10001 bytes")
    assert path.read_bytes() == audio


@pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.opus", "libopus")])
async def test_what_pyav_decodes_is_broadcast(tmp_path: Path, settings: Settings, name: str, codec: str) -> None:
    tone = (12_000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype(np.int16)
    path = encode(tmp_path / name, codec, tone)
    async with client(settings, "listen", name, "-o", str(tmp_path / "out.wav")) as listener:
        await ready(listener)
        assert (await run(settings, "broadcast", name, str(path))).returncode == 0
        assert await listener.wait() == 0
    rate, channels, received = read_wav(tmp_path / "out.wav")
    heard = np.frombuffer(received, "<i2")
    assert (rate, channels) == (48_000, 1)
    assert len(heard) == pytest.approx(48_000, abs=2_400)
    assert np.argmax(np.abs(np.fft.rfft(heard[:24_000]))) * 2 == pytest.approx(440, abs=2)
    if codec == "flac":
        assert np.array_equal(heard, tone)


async def test_a_broadcast_takes_as_long_as_its_audio(tmp_path: Path, relay: RelayProcess, settings: Settings) -> None:
    sent = write_wav(tmp_path / "sent.wav", noise(32_000))
    assert (await run(settings, "broadcast", "pace", str(sent))).returncode == 0
    joined = await relay.event("broadcaster joined", session="pace")
    ended = await relay.event("session ended", session="pace")
    assert 1.9 <= seconds_between(joined, ended) < 3.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_recording_in_order(tmp_path: Path, settings: Settings, number: signal.Signals) -> None:
    # The file is shorter than the broadcast, which loops until it receives a signal.
    audio = noise(8_000)
    sent = write_wav(tmp_path / "sent.wav", audio)
    session = f"stop-{number.name}"
    async with (
        client(settings, "listen", session, "-o", str(tmp_path / "one.wav")) as one,
        client(settings, "listen", session, "-o", str(tmp_path / "other.wav")) as other,
    ):
        await ready(one)
        await ready(other)
        async with client(settings, "broadcast", session, str(sent), "--loop") as broadcaster:
            await one.line(lambda line: line == "live")
            while (tmp_path / "one.wav").stat().st_size < 30_000:  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.02)
            one.signal(number)
            assert await one.wait() == 0
            broadcaster.signal(number)
            assert await broadcaster.wait() == 0
            assert broadcaster.lines[-1].startswith("sent ")
        assert await other.wait() == 0, "the broadcaster ended the session"
    assert one.lines[-1].startswith("received ")
    for name in ("one.wav", "other.wav"):
        received = read_wav(tmp_path / name)[2]
        assert len(received) > 29_000
        assert received == (audio * (len(received) // len(audio) + 1))[: len(received)]


async def test_a_session_that_is_kept_goes_on_with_the_next_broadcaster(tmp_path: Path, settings: Settings) -> None:
    audio = noise(3_200)
    sent = write_wav(tmp_path / "sent.wav", audio)
    async with client(settings, "listen", "kept", "-o", str(tmp_path / "received.wav")) as listener:
        await ready(listener)
        assert (await run(settings, "broadcast", "kept", str(sent), "--keep")).returncode == 0
        await listener.line(lambda line: line == "the broadcaster has paused, waiting for it to continue")
        assert (await run(settings, "broadcast", "kept", str(sent))).returncode == 0
        assert await listener.wait() == 0
    assert read_wav(tmp_path / "received.wav") == (16_000, 1, audio + audio)


async def test_listeners_are_told_the_title_of_the_session(
    tmp_path: Path, relay: RelayProcess, settings: Settings
) -> None:
    sent = write_wav(tmp_path / "sent.wav", noise(3_200))
    listener = await open_listener(relay.url, "/v1/listen/titled")
    with closing([listener]):
        titled = ("--session-name", " Town  hall", "--keep")
        assert (await run(settings, "broadcast", "titled", str(sent), *titled)).returncode == 0
        await listener.until(lambda: any(told.get("session_name") == "Town hall" for told in listener.told))


async def test_a_recording_stops_after_its_duration(tmp_path: Path, settings: Settings) -> None:
    finished = await run(settings, "listen", "nobody", "--duration", "0.2", "-o", str(tmp_path / "out.wav"))
    assert finished.returncode == 0
    assert finished.lines[-1] == "received 0.00 s of audio, lost 0.00 s in 0 gap(s)"
    assert read_wav(tmp_path / "out.wav") == (16_000, 1, b"")


async def test_a_relay_that_dies_ends_both_with_a_sentence_when_they_do_not_reconnect(tmp_path: Path) -> None:
    sent = write_wav(tmp_path / "sent.wav", noise(16_000))
    async with relay_process() as doomed:
        here = {"RELAY_CLIENT_URL": doomed.url}
        async with client(here, "listen", "ev1", "--no-reconnect", "-o", str(tmp_path / "out.wav")) as listener:
            await ready(listener)
            async with client(here, "broadcast", "ev1", str(sent), "--loop", "--no-reconnect") as broadcaster:
                await listener.line(lambda line: line == "live")
                await doomed.kill()
                assert await listener.wait() == 1
                assert await broadcaster.wait() == 1
    lost = f"relay: The connection to {doomed.url} was lost."
    assert listener.lines[-1] == lost
    assert listener.lines[-2].startswith("received ")
    assert broadcaster.lines[-1] == lost
    received = read_wav(tmp_path / "out.wav")[2]
    assert received == (noise(16_000) * 10)[: len(received)]


async def test_a_player_that_goes_away_is_no_error(tmp_path: Path, settings: Settings) -> None:
    reading, writing = os.pipe()
    async with client(settings, "listen", "unheard", stdout=writing) as listener:
        os.close(writing)
        await ready(listener)
        os.close(reading)
        sent = write_wav(tmp_path / "sent.wav", noise(3_200))
        assert (await run(settings, "broadcast", "unheard", str(sent))).returncode == 0
        assert await listener.wait() == 0
    assert listener.lines[-1].startswith("received ")


async def test_a_player_that_hangs_does_not_hold_up_the_end(tmp_path: Path, settings: Settings) -> None:
    reading, writing = os.pipe()
    async with client(settings, "listen", "stuck", stdout=writing) as listener:
        await ready(listener)
        # 96 kB at 96 kB/s. A pipe holds 64 KiB, so the listener blocks in a write when the broadcast ends.
        sent = write_wav(tmp_path / "sent.wav", noise(48_000), 48_000)
        assert (await run(settings, "broadcast", "stuck", str(sent), "--keep")).returncode == 0
        assert await listener.terminate() == 0
    os.close(reading)
    os.close(writing)
    assert listener.lines[-1].startswith("received ")


INTERRUPTED_WHILE_IT_IMPORTS = """
import os, runpy, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0] == "MODULE":
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
runpy.run_module("relay", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["click", "pydantic", "websockets"])
async def test_ctrl_c_while_it_starts_is_quiet(module: str) -> None:
    code = INTERRUPTED_WHILE_IT_IMPORTS.replace("MODULE", module)
    command = (sys.executable, "-c", code, "listen", "ev1", "--url", "ws://127.0.0.1:9", "--no-reconnect")
    finished = await asyncio.to_thread(subprocess.run, command, stdin=DEVNULL, capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (-signal.SIGINT, b"")


async def test_ctrl_c_while_connecting_is_quiet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        server.setblocking(False)
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        path = str(write_wav(tmp_path / "a.wav", b"\0\0"))
        async with client({}, "broadcast", "ev1", path, "--url", url) as process:
            connection, _ = await asyncio.get_running_loop().sock_accept(server)
            with connection:
                process.signal(signal.SIGINT)
                assert await process.wait() == -signal.SIGINT
    assert process.lines == []


INTERRUPTED_IN_A_CALLBACK = """
import os, runpy, signal
from websockets.asyncio import connection

assemble = connection.Assembler

def interrupt(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return assemble(*arguments, **options)

connection.Assembler = interrupt
runpy.run_module("relay", run_name="__main__", alter_sys=True)
"""


async def test_ctrl_c_in_a_callback_of_the_event_loop_is_quiet(tmp_path: Path, relay: RelayProcess) -> None:
    path = str(write_wav(tmp_path / "a.wav", b"\0\0"))
    command = (sys.executable, "-c", INTERRUPTED_IN_A_CALLBACK, "broadcast", "ev1", path, "--url", relay.url)
    finished = await asyncio.to_thread(subprocess.run, command, stdin=DEVNULL, capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (-signal.SIGINT, b"")


async def test_what_a_person_copies_from_a_browser_names_relay_session_and_channel(
    tmp_path: Path, relay: RelayProcess
) -> None:
    audio = noise(8_000)
    sent, heard = write_wav(tmp_path / "sent.wav", audio), tmp_path / "heard.wav"
    async with client(
        {}, "listen", f"{relay.url}/listen/pasted/de/?lang=fr#token=none-is-needed", "-o", str(heard)
    ) as one:
        await one.line(lambda line: line.startswith(f"listening to pasted/de at {relay.url} "))
        address = f"{relay.url}/broadcast/pasted/de#key={KEY}"
        assert (await run({}, "broadcast", address, str(sent))).returncode == 0
        assert await one.wait() == 0, one.text
    assert read_wav(heard) == (16_000, 1, audio)


async def test_an_address_that_can_not_be_meant_is_one_sentence(tmp_path: Path, relay: RelayProcess) -> None:
    heard = ("-o", str(tmp_path / "heard.wav"))
    page = f"{relay.url}/listen/ev1"
    twice = "SESSION is the address of a page, which also names the relay: leave out --url, or give the session's id."
    calls = {
        ("listen", f"{relay.url}/listen/?token=s3cret", *heard): (
            f"'{relay.url}/listen/' is neither the id of a session, such as ev1, nor the address of its page, "
            "such as https://relay.example.org/listen/ev1."
        ),
        ("listen", page, "--url", relay.url, *heard): twice,
        ("listen", f"{page}/de", "--channel", "fr", *heard): (
            "SESSION is the address of a page for the channel de: leave out --channel fr."
        ),
        ("sessions", "show", f"{page}/"): (
            f"SESSION must be the id of a session here: give ev1, and name the relay with --url {relay.url}."
        ),
    }
    assert await few_at_once(refused({}, *arguments, code=2) for arguments in calls) == list(calls.values())


async def test_a_second_broadcaster_and_a_wrong_key_are_refused(tmp_path: Path, settings: Settings) -> None:
    sent = str(write_wav(tmp_path / "sent.wav", noise(16_000)))
    async with client(settings, "broadcast", "busy", sent, "--loop") as broadcaster:
        await broadcaster.line(lambda line: line.startswith("broadcasting "))
        second = await refused(settings, "broadcast", "busy", sent, code=1)
        assert await broadcaster.terminate() == 0
    no_key = {"RELAY_CLIENT_URL": settings["RELAY_CLIENT_URL"]}
    without = await refused(no_key, "broadcast", "free", sent, code=1)
    wrong = await refused({**no_key, "RELAY_BROADCAST_KEY": "another-key"}, "broadcast", "free", sent, code=1)
    assert second == "The channel busy/main already has a broadcaster; replace it with --takeover."
    assert without.endswith(" Check RELAY_BROADCAST_KEY or RELAY_CLIENT_TOKEN.")
    assert without == wrong, "one answer for every reason"


async def test_input_that_can_not_be_used_is_one_sentence(tmp_path: Path, settings: Settings) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    good = str(write_wav(tmp_path / "good.wav", b"\0\0" * 100))
    with socket.socket() as free:
        free.bind(("127.0.0.1", free_port()))
        nobody = f"ws://127.0.0.1:{free.getsockname()[1]}"
        cases = {
            ("broadcast", "ev1", str(tmp_path / "none.wav")): "none.wav cannot be read: No such file or directory.",
            ("broadcast", "ev1", str(empty)): "empty.wav is empty; give a file with audio.",
            ("broadcast", "ev1", __file__): "cannot be read as audio",
            ("broadcast", "ev 1", good): "The session id 'ev 1' must have 1 to 64 of the characters",
            ("broadcast", "ev1", good, "--channel", "a/b"): "The channel id 'a/b' must have 1 to 64 of the characters",
            ("broadcast", "ev1", good, "--url", nobody): f"Nothing listens at {nobody}",
            ("broadcast", "ev1", "-", "--loop"): "standard input can be read only once",
            ("broadcast", "ev1", "-"): "Standard input ended without any audio.",
            ("listen", "..", "-o", str(tmp_path / "a.wav")): "The session id '..' must have",
            ("listen", "ev1", "-o", str(tmp_path)): "is not a regular file",
            ("listen", "ev1", "-o", str(tmp_path / "no" / "a.wav")): "cannot be written: No such file or directory.",
            ("listen", "ev1", "--url", nobody): f"Nothing listens at {nobody}",
            ("listen", "ev1", "--url", "relay.example.org"): "client.url",
        }
        sentences = await few_at_once([refused(settings, *arguments, code=2) for arguments in cases])
    for sentence, expected in zip(sentences, cases.values(), strict=True):
        assert expected in sentence


async def test_a_terminal_is_neither_a_source_nor_a_sink_of_audio(settings: Settings) -> None:
    controller, terminal = os.openpty()
    try:
        broadcaster = await refused(settings, "broadcast", "ev1", "-", code=2, stdin=terminal)
        listener = await refused(settings, "listen", "ev1", code=2, stdout=terminal)
    finally:
        os.close(terminal)
        os.close(controller)
    assert broadcaster.startswith("Standard input is a terminal; pipe audio into the command, for example `ffmpeg ")
    assert listener.startswith("Standard output is a terminal; write to a file with -o FILE.wav, or pipe")


async def test_a_terminal_shows_how_far_a_broadcast_is(tmp_path: Path, settings: Settings) -> None:
    sent = write_wav(tmp_path / "a [b].wav", noise(24_000))
    controller, terminal = os.openpty()
    shown = bytearray()
    loop = asyncio.get_running_loop()
    # Read as a terminal emulator does; otherwise the command would block once the terminal's buffer is full.
    loop.add_reader(controller, lambda: shown.extend(os.read(controller, 65_536)))
    command = (sys.executable, "-m", "relay", "broadcast", "shown", str(sent))
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stderr=terminal, env={**environment(settings), "TERM": "xterm", "COLUMNS": "100"}
        )
        async with asyncio.timeout(STOP_SECONDS):
            assert await process.wait() == 0
    finally:
        loop.remove_reader(controller)
        os.close(terminal)
        os.close(controller)
    text = shown.decode()
    assert text.startswith("broadcasting a [b].wav (16000 Hz, mono) to shown/main at ")
    assert "a [b].wav 0:01 sent to 0 listener(s)" in text
    assert "of 0:01" in text
    assert "sent 1.50 s of audio" in text
