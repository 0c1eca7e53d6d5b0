"""`relay listen`: receives a channel and writes it to a WAV file or to standard output."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from relay.adapters.wav_recorder import WavRecorder
from relay.adapters.websocket_client import ListenerConnection, connect_listener
from relay.cli.client import (
    channel_option,
    format_name,
    load_client_settings,
    read_address,
    run,
    say,
    session_argument,
    url_option,
)
from relay.cli.options import config_option
from relay.cli.stopping import until_stopped
from relay.core.channel import ChannelState
from relay.core.listener_events import Audio, ErrorNotice, FormatChange, Gap, StateChange
from relay.runtime.blocking import BlockingThread
from relay.vocabulary.audio import FLICKS_PER_SECOND, AudioFormat
from relay.vocabulary.errors import RelayError, UserError
from relay.vocabulary.names import ChannelAddress

_STANDARD_OUTPUT = Path("-")

_STATES = {
    ChannelState.WAITING: "waiting for the broadcaster",
    ChannelState.LIVE: "live",
    ChannelState.SOURCE_LOST: "the broadcaster is gone, waiting for it to return",
    ChannelState.ENDED: "the session ended",
}


class Sink(Protocol):
    """Where received audio goes."""

    def set_format(self, audio_format: AudioFormat) -> None:
        """Take the audio that follows to be of this format."""

    async def write(self, audio: bytes) -> None:
        """Write whole samples."""


class WavSink(Sink):
    """Writes WAV, and tells the person when it goes on in another file."""

    def __init__(self, recorder: WavRecorder) -> None:
        """Take an open recorder."""
        self._recorder = recorder
        self._told = recorder.path

    def set_format(self, audio_format: AudioFormat) -> None:
        """Begin a next file when this one holds another format."""
        self._recorder.set_format(audio_format)
        self._tell()

    async def write(self, audio: bytes) -> None:
        """Write to the file, which does not block for long."""
        self._recorder.write(audio)
        self._tell()

    def _tell(self) -> None:
        if self._recorder.path != self._told:
            self._told = self._recorder.path
            say(f"continuing in {self._told}")


class PcmSink(Sink):
    """Writes raw PCM to standard output, at the pace of the player behind it."""

    def __init__(self, descriptor: int, writer: BlockingThread) -> None:
        """Take an open file descriptor, and the thread that may block on it."""
        self._descriptor = descriptor
        self._writer = writer
        self._audio_format: AudioFormat | None = None

    def set_format(self, audio_format: AudioFormat) -> None:
        """Note the format.

        Raises:
            RelayError: It is not the one so far, and raw PCM has no way to tell the player.
        """
        if self._audio_format not in (None, audio_format):
            raise RelayError(
                f"The audio is now {format_name(audio_format)}, and raw PCM can not say so to a player; "
                "start `relay listen` again, or record with -o FILE.wav."
            )
        self._audio_format = audio_format

    async def write(self, audio: bytes) -> None:
        """Write all of it; meanwhile the connection is kept alive, and more audio waits at the relay.

        Raises:
            BrokenPipeError: The player is gone.
            UserError: It can not be written for another reason.
        """
        await self._writer.call(self._write_all, audio)

    def _write_all(self, audio: bytes) -> None:
        left = memoryview(audio)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"Standard output can not be written: {error.strerror}.") from error


@dataclass(slots=True)
class Account:
    """What was received and what was not."""

    received_flicks: int = 0
    lost_ms: float = 0.0
    gaps: int = 0

    def __str__(self) -> str:
        """Give the last line of the command."""
        return (
            f"received {self.received_flicks / FLICKS_PER_SECOND:.2f} s of audio, "
            f"lost {self.lost_ms / 1000:.2f} s in {self.gaps} gap(s)"
        )


@click.command("listen")
@session_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="WAV file to write, overwriting one that is there; without it, or with -, raw PCM goes to standard output.",
)
@channel_option
@url_option
@config_option
@click.option(
    "--duration",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop this long after joining; without it, when the session ends.",
)
def listen_command(
    *,
    session: str,
    output: Path | None,
    channel: str,
    url: str | None,
    config_path: Path | None,
    duration: float | None,
) -> None:
    """Receive SESSION, which need not have begun, and record it or pipe it into a player.

    Audio that the relay dropped, because this end was too slow, is told on standard error and is not in the
    output. When the format changes, the recording goes on in a next file, NAME-2.wav.

    SIGINT (Ctrl-C) and SIGTERM stop it in order, with exit code 0; a recording is valid however it ends.
    """
    relay_url = load_client_settings(config_path, url).client.url
    address = read_address(session, channel)
    if output is None or output == _STANDARD_OUTPUT:
        descriptor = _standard_output()
        with BlockingThread("standard output") as writer, suppress(BrokenPipeError):
            run(listen(relay_url, address, PcmSink(descriptor, writer), duration))
    else:
        with WavRecorder(output) as recorder:
            run(listen(relay_url, address, WavSink(recorder), duration))


async def listen(url: str, address: ChannelAddress, sink: Sink, duration_seconds: float | None = None) -> None:
    """Receive a channel until its session ends, a signal arrives, or the time is over.

    Raises:
        UserError: No relay answers, or the sink can not be written.
        RelayError: The relay refused, or the connection was lost.
        BrokenPipeError: Nobody reads standard output any more.
    """
    with until_stopped() as stop:
        async with connect_listener(url, address) as connection:
            say(f"listening to {address} at {url} ({_STATES[connection.hello.state]})")
            if duration_seconds is not None:
                stop.after(duration_seconds)
            account = Account()
            try:
                await _receive(connection, sink, account)
            finally:
                say(str(account))


async def _receive(connection: ListenerConnection, sink: Sink, account: Account) -> None:
    audio_format = connection.hello.audio_format
    if audio_format is not None:
        sink.set_format(audio_format)
    async for event in connection:
        match event:
            case Audio(payload=payload):
                if audio_format is None:
                    raise RelayError("The relay sent audio without saying its format.")
                await sink.write(payload)
                account.received_flicks += audio_format.flicks(len(payload))
            case Gap():
                account.lost_ms += event.duration_ms
                account.gaps += 1
                say(f"lost {event.duration_ms / 1000:.2f} s of audio ({event.reason})")
            case FormatChange():
                audio_format = event.audio_format
                say(f"the audio is {format_name(audio_format)}")
                sink.set_format(audio_format)
            case StateChange():
                say(_STATES[event.state])
            case ErrorNotice():
                say(f"the relay says: {event.message}")
            case _:
                # A later greeting belongs to a switch of channels, which this client does not ask for.
                pass


def _standard_output() -> int:
    """Give the descriptor of standard output when audio can go there."""
    if sys.stdout is None:
        raise UserError("Standard output is closed; write to a file with -o FILE.wav.")
    descriptor = sys.stdout.fileno()
    if os.isatty(descriptor):
        raise UserError(
            "Standard output is a terminal; write to a file with -o FILE.wav, or pipe into a player, for example "
            "`relay listen SESSION | aplay -f S16_LE -r 16000 -c 1`."
        )
    return descriptor
