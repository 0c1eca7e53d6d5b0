"""`relay listen`: receives a channel and writes it to a file or to standard output."""

import os
import secrets
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
from relay.cli.options import FiniteRange, codec_option, config_option
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
from relay.media.lost_time import LostTime
from relay.media.ogg_opus import OggOpusPages, OpusHead
from relay.media.opus_files import OpusRecorder
from relay.media.wav_recorder import WavRecorder
from relay.process.blocking import BlockingThread
from relay.process.stopping import until_stopped
from relay.vocabulary.audio import Codec
from relay.vocabulary.text import printable

_STANDARD_OUTPUT = Path("-")

_OGG_SUFFIXES = (".opus", ".ogg")

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

_WITHDRAWN = "clear"
"""The reason of a gap in audio that its broadcaster took back. Nobody hears it, so it takes no time."""


class Sink(Protocol):
    """A destination for received audio."""

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows."""

    async def write(self, audio: bytes) -> None:
        """Write whole samples, or one Opus packet."""

    def skip(self, seconds: float) -> None:
        """Leave out audio that was lost."""


class Recorder(Protocol):
    """Writes a recording.

    Attributes:
        path: The file being written.
    """

    path: Path

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the audio that follows."""

    def write(self, audio: bytes) -> None:
        """Append whole samples, or one Opus packet."""


class FileSink(Sink):
    """Records to files, and reports when the recording continues in another one. Lost audio becomes silence."""

    def __init__(self, recorder: Recorder, codec: Codec) -> None:
        """The files hold audio of the `codec`."""
        self._recorder = recorder
        self._codec = codec
        self._told = recorder.path
        self._audio_format: AudioFormat | None = None
        self._lost = LostTime()

    def set_format(self, audio_format: AudioFormat) -> None:
        """Record the format. The recorder decides whether it needs another file.

        Raises:
            UserError: The files hold another codec.
        """
        _check_codec(audio_format, self._codec)
        self._audio_format = audio_format
        self._recorder.set_format(audio_format)
        self._tell()

    async def write(self, audio: bytes) -> None:
        """Write to the file, which never blocks for long."""
        self._recorder.write(audio)
        self._tell()

    def skip(self, seconds: float) -> None:
        """Write silence, so that the recording keeps time."""
        if self._audio_format is not None:
            for silence in self._lost.silence(seconds, self._audio_format):
                self._recorder.write(silence)
            self._tell()

    def _tell(self) -> None:
        if self._recorder.path != self._told:
            self._told = self._recorder.path
            say(f"continuing in {self._told}")


class StandardOutput:
    """Writes without blocking the connection. More audio waits at the relay meanwhile."""

    def __init__(self, descriptor: int, writer: BlockingThread) -> None:
        self._descriptor = descriptor
        self._writer = writer

    async def write(self, data: bytes) -> None:
        """Write all of the data.

        Raises:
            BrokenPipeError: Its reader is gone.
            UserError: It cannot be written for another reason.
        """
        await self._writer.call(self._write_all, data)

    def _write_all(self, data: bytes) -> None:
        try:
            write_whole(self._descriptor, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"Standard output cannot be written: {error.strerror}.") from error


class PcmSink(Sink):
    """Writes raw PCM to standard output, at the pace of the player that reads it."""

    def __init__(self, descriptor: int, writer: BlockingThread) -> None:
        """The `writer` thread may block on the `descriptor`."""
        self._output = StandardOutput(descriptor, writer)
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
        await self._output.write(audio)

    def skip(self, seconds: float) -> None:
        """Write nothing: a player that fell behind is back in time."""


class OggSink(Sink):
    """Writes Ogg Opus to standard output, at the pace of the player that reads it."""

    def __init__(self, descriptor: int, writer: BlockingThread) -> None:
        """The `writer` thread may block on the `descriptor`."""
        self._output = StandardOutput(descriptor, writer)
        self._audio_format: AudioFormat | None = None
        self._pages: OggOpusPages | None = None

    def set_format(self, audio_format: AudioFormat) -> None:
        """Set the format of the packets that follow. Another number of channels begins another stream within Ogg.

        Raises:
            UserError: They are not Opus.
        """
        _check_codec(audio_format, Codec.OPUS)
        if self._audio_format is None or audio_format.channels != self._audio_format.channels:
            self._pages = None
        self._audio_format = audio_format

    async def write(self, audio: bytes) -> None:
        """Write a page with the packet.

        Raises:
            BrokenPipeError: The player is gone.
            UserError: Standard output cannot be written for another reason.
        """
        beginning = b""
        if self._pages is None:
            channels = 1 if self._audio_format is None else self._audio_format.channels
            self._pages = OggOpusPages(secrets.randbits(32), OpusHead(channels))
            beginning = self._pages.head()
        await self._output.write(beginning + self._pages.pack([audio]))

    def skip(self, seconds: float) -> None:
        """Write nothing: a player that fell behind is back in time."""


def _check_codec(audio_format: AudioFormat, codec: Codec) -> None:
    """Check that the relay sends what it was asked for. An older relay sends PCM in any case.

    Raises:
        UserError: It does not.
    """
    if audio_format.codec is not codec:
        raise UserError(f"The relay sends {audio_format.codec}, although {codec} was asked for; omit --codec.")


@click.command("listen")
@session_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write: Ogg Opus if its name ends in .opus or .ogg, otherwise WAV. An existing file is replaced when "
    "audio arrives. Without this option, or with -, the audio goes to standard output.",
)
@codec_option(
    "What to receive. The default is what the file needs, or raw PCM for standard output. With opus, standard "
    "output gets Ogg Opus.",
    default=None,
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
    codec: str | None,
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
    output continues after the gap. A recording has silence of the same length there. When the format
    changes, the recording continues in another file, NAME-2.wav. If the connection is lost, the command
    connects again and continues where it stopped, as long as the relay still has the audio.

    SIGINT (Ctrl-C) and SIGTERM stop it with exit code 0. The recording is valid however it ends.
    """
    settings, address = load_destination(config_path, url, session, channel)
    relay_url = settings.client.url
    received = _codec_for(output, codec)
    listener = client.listen(
        relay_url,
        address.session,
        channel=address.channel,
        codec=received,
        buffer_ms=buffer_ms,
        burst_ms=burst_ms,
        token=listen_credential(settings),
        reconnect=reconnect,
    )
    if output is None or output == _STANDARD_OUTPUT:
        descriptor = _standard_output()
        with BlockingThread("standard output") as writer, suppress(BrokenPipeError):
            sink = OggSink(descriptor, writer) if received is Codec.OPUS else PcmSink(descriptor, writer)
            run(listen(listener, relay_url, sink, duration))
    else:
        with OpusRecorder(output) if received is Codec.OPUS else WavRecorder(output) as recorder:
            run(listen(listener, relay_url, FileSink(recorder, received), duration))


def _codec_for(output: Path | None, codec: str | None) -> Codec:
    """Return the codec to receive.

    Raises:
        UserError: The name of the file says that it holds another one.
    """
    suffix = "" if output is None else output.suffix.lower()
    needed = Codec.OPUS if suffix in _OGG_SUFFIXES else Codec.PCM_S16LE if suffix == ".wav" else None
    if codec is None:
        return needed or Codec.PCM_S16LE
    if needed not in (None, codec):
        raise UserError(f"--codec {codec} does not go into {output}; choose another name, or leave --codec out.")
    return Codec(codec)


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
    told: AudioFormat | None = None
    async for event in listener:
        match event:
            case Audio(payload=payload):
                await sink.write(payload)
            case Hello(audio_format=AudioFormat() as audio_format) | FormatChange(audio_format=audio_format):
                if audio_format != told:
                    say(f"the audio is {audio_format}")
                told = audio_format
                sink.set_format(audio_format)
            case Reconnecting():
                connection.lost(event)
            case Reconnected(resumed=resumed):
                connection.back(", continuing where it stopped" if resumed else "")
            case ErrorNotice():
                connection.objects(event)
            case Gap(reason=reason, duration_ms=duration_ms) if reason != _WITHDRAWN:
                sink.skip(duration_ms / 1000)
                say(_lost(event))
            case _ if (sentence := _sentence(event)) is not None:
                say(sentence)


def _sentence(event: ListeningEvent) -> str | None:
    """Return the message for an event that requires only a message; None if it requires none."""
    match event:
        case Gap():
            return _lost(event)
        case UnknownLoss():
            return _LOSSES.get(event.reason, f"audio may be missing here ({event.reason})")
        case Clear():
            return "the broadcaster discarded audio that was not heard yet"
        case StateChange():
            return _state_words(event.state, event.silence)
        case _:
            return None


def _lost(gap: Gap) -> str:
    return f"lost {gap.duration_ms / 1000:.2f} s of audio ({gap.reason})"


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
