"""`relay listen`: receives a channel and writes it to a WAV file or to standard output."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import click

from relay import client
from relay.cli.client import (
    ConnectionTeller,
    channel_option,
    listen_credential,
    load_destination,
    reconnect_option,
    run,
    session_argument,
    url_option,
)
from relay.cli.options import FiniteRange, config_option
from relay.cli.output import say, write_whole
from relay.client import (
    Audio,
    AudioFormat,
    ChannelState,
    Clear,
    ErrorNotice,
    FormatChange,
    Gap,
    Hello,
    Listener,
    ListeningEvent,
    ReceptionStats,
    Reconnect,
    Reconnected,
    Reconnecting,
    RelayError,
    Silence,
    StateChange,
    UnknownLoss,
    UserError,
)
from relay.media.wav_recorder import WavRecorder
from relay.process.blocking import BlockingThread
from relay.process.stopping import until_stopped
from relay.vocabulary.text import printable

_STANDARD_OUTPUT = Path("-")

_STATES = {
    ChannelState.WAITING: "waiting for the broadcaster",
    ChannelState.LIVE: "live",
    ChannelState.SOURCE_LOST: "the broadcaster is disconnected, waiting for it to return",
    ChannelState.ENDED: "the session ended",
}

_SILENCES = {
    Silence.MUTED: "the broadcaster is muted",
    Silence.PAUSED: "the broadcaster has paused, waiting for it to continue",
}

_LOSSES = {
    "restart": "audio may be missing here: the relay was restarted or no longer has the channel's audio",
    "untold": "audio is missing here, and the relay did not say how much",
}


class Sink(Protocol):
    """A destination for received audio."""

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows."""

    async def write(self, audio: bytes) -> None:
        """Write whole samples."""


class WavSink(Sink):
    """Writes WAV files, and reports when the recording continues in another file."""

    def __init__(self, recorder: WavRecorder) -> None:
        self._recorder = recorder
        self._told = recorder.path

    def set_format(self, audio_format: AudioFormat) -> None:
        """Start another file if this one has another format."""
        self._recorder.set_format(audio_format)
        self._tell()

    async def write(self, audio: bytes) -> None:
        """Write to the file, which never blocks for long."""
        self._recorder.write(audio)
        self._tell()

    def _tell(self) -> None:
        if self._recorder.path != self._told:
            self._told = self._recorder.path
            say(f"continuing in {self._told}")


class PcmSink(Sink):
    """Writes raw PCM to standard output, at the pace of the player that reads it."""

    def __init__(self, descriptor: int, writer: BlockingThread) -> None:
        """The `writer` thread may block on the `descriptor`."""
        self._descriptor = descriptor
        self._writer = writer
        self._audio_format: AudioFormat | None = None

    def set_format(self, audio_format: AudioFormat) -> None:
        """Record the format.

        Raises:
            RelayError: The format changed, and raw PCM cannot inform the player.
        """
        if self._audio_format not in (None, audio_format):
            raise RelayError(
                f"The audio is now {audio_format}, but raw PCM cannot tell this to a player; "
                "start `relay listen` and the player again, or record with -o FILE.wav."
            )
        self._audio_format = audio_format

    async def write(self, audio: bytes) -> None:
        """Write all of the audio. Meanwhile, the connection stays alive, and more audio waits at the relay.

        Raises:
            BrokenPipeError: The player is gone.
            UserError: Standard output cannot be written for another reason.
        """
        await self._writer.call(self._write_all, audio)

    def _write_all(self, audio: bytes) -> None:
        try:
            write_whole(self._descriptor, audio)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"Standard output cannot be written: {error.strerror}.") from error


@click.command("listen")
@session_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="WAV file to write. An existing file is replaced when audio arrives. Without this option, or with -, raw PCM "
    "goes to standard output.",
)
@channel_option
@url_option
@config_option
@click.option(
    "--buffer-ms",
    type=click.IntRange(min=0),
    help="Maximum age of the audio that the relay sends, in milliseconds. By default, the most that it allows, to lose "
    "the least.",
)
@click.option("--burst-ms", type=click.IntRange(min=0), help="Begin with this much earlier audio, in milliseconds.")
@reconnect_option
@click.option(
    "--duration",
    metavar="SECONDS",
    type=FiniteRange(min=0, min_open=True),
    help="Stop after this time. By default, stop when the session ends.",
)
def listen_command(
    *,
    session: str,
    output: Path | None,
    channel: str,
    url: str | None,
    config_path: Path | None,
    buffer_ms: int | None,
    burst_ms: int | None,
    reconnect: Reconnect | None,
    duration: float | None,
) -> None:
    """Receive SESSION, and record it or pipe it into a player.

    SESSION is the id of a session, or the address of its page as a browser shows it. The command also
    waits for a session that has not begun.

    If this command is too slow, the relay drops the oldest audio. Standard error says how much, and the
    output continues after the gap. When the format changes, the recording continues in another file,
    NAME-2.wav. If the connection is lost, the command connects again and continues where it stopped, as
    long as the relay still has the audio.

    SIGINT (Ctrl-C) and SIGTERM stop it with exit code 0. The recording is valid however it ends.
    """
    settings, address = load_destination(config_path, url, session, channel)
    relay_url = settings.client.url
    listener = client.listen(
        relay_url,
        address.session,
        channel=address.channel,
        buffer_ms=buffer_ms,
        burst_ms=burst_ms,
        token=listen_credential(settings),
        reconnect=reconnect,
    )
    if output is None or output == _STANDARD_OUTPUT:
        descriptor = _standard_output()
        with BlockingThread("standard output") as writer, suppress(BrokenPipeError):
            run(listen(listener, relay_url, PcmSink(descriptor, writer), duration))
    else:
        with WavRecorder(output) as recorder:
            run(listen(listener, relay_url, WavSink(recorder), duration))


async def listen(listener: Listener, url: str, sink: Sink, duration_seconds: float | None = None) -> None:
    """Receive a channel until its session ends, a signal arrives, or the time is over.

    Raises:
        UserError: No relay answers, or the sink cannot be written.
        RelayError: The relay refused, or the connection was lost for good.
        BrokenPipeError: Nothing reads standard output any more.
    """
    with until_stopped() as stop:
        async with listener:
            say(f"listening to {listener.address} at {url} ({_state_words(listener.state, listener.silence)})")
            if others := _other_channels(listener):
                say(f"the channels of {listener.address.session} are {others}; choose one with --channel")
            if duration_seconds is not None:
                stop.after(duration_seconds)
            try:
                await _receive(listener, sink)
            finally:
                say(_summary(listener.stats))


def _other_channels(listener: Listener) -> str:
    """List the channels of the session if the chosen one does not exist; otherwise return an empty text."""
    if listener.address.channel in {entry.id for entry in listener.channels}:
        return ""
    return ", ".join(
        entry.id if entry.name == entry.id else f"{entry.id} ({printable(entry.name)})" for entry in listener.channels
    )


async def _receive(listener: Listener, sink: Sink) -> None:
    connection = ConnectionTeller()
    async for event in listener:
        match event:
            case Audio(payload=payload):
                await sink.write(payload)
            case Hello(audio_format=AudioFormat() as audio_format):
                sink.set_format(audio_format)
            case FormatChange(audio_format=audio_format):
                say(f"the audio is {audio_format}")
                sink.set_format(audio_format)
            case Reconnecting():
                connection.lost(event)
            case Reconnected(resumed=resumed):
                connection.back(", continuing where it stopped" if resumed else "")
            case ErrorNotice():
                connection.objects(event)
            case _ if (sentence := _sentence(event)) is not None:
                say(sentence)


def _sentence(event: ListeningEvent) -> str | None:
    """Return the message for an event that requires only a message; None if it requires none."""
    match event:
        case Gap():
            return f"lost {event.duration_ms / 1000:.2f} s of audio ({event.reason})"
        case UnknownLoss():
            return _LOSSES.get(event.reason, f"audio may be missing here ({event.reason})")
        case Clear():
            return "the broadcaster discarded audio that was not heard yet"
        case StateChange():
            return _state_words(event.state, event.silence)
        case _:
            return None


def _state_words(state: ChannelState, silence: Silence | None) -> str:
    return _STATES[state] if silence is None else _SILENCES[silence]


def _summary(stats: ReceptionStats) -> str:
    """Return the last line that the command prints."""
    parts = [
        f"received {stats.received.seconds:.2f} s of audio, lost {stats.lost_ms / 1000:.2f} s in {stats.gaps} gap(s)"
    ]
    if stats.unknown_losses:
        parts.append(f"and an unknown amount {stats.unknown_losses} time(s)")
    if stats.reconnects:
        parts.append(f"with {stats.reconnects} reconnect(s)")
    return ", ".join(parts)


def _standard_output() -> int:
    """Return the file descriptor of standard output.

    Raises:
        UserError: Standard output is closed or a terminal.
    """
    if sys.stdout is None:
        raise UserError("Standard output is closed; write to a file with -o FILE.wav.")
    descriptor = sys.stdout.fileno()
    if os.isatty(descriptor):
        raise UserError(
            "Standard output is a terminal; write to a file with -o FILE.wav, or pipe into a player, for example "
            "`relay listen SESSION | aplay -f S16_LE -r 16000 -c 1`."
        )
    return descriptor
