"""`relay broadcast`: sends a file or standard input to a channel."""

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from relay import client
from relay.audio.pace import Schedule, cut_frames
from relay.cli.client import (
    ConnectionTeller,
    broadcast_credential,
    channel_option,
    first_error,
    load_destination,
    reconnect_option,
    run,
    session_argument,
    url_option,
)
from relay.cli.options import codec_option, config_option
from relay.cli.output import say
from relay.cli.progress import BroadcastProgress, SpeedTeller
from relay.client import (
    Audience,
    Broadcaster,
    CaughtUp,
    ChannelBusyError,
    Dropping,
    ErrorNotice,
    Pace,
    Reconnect,
    Reconnected,
    Reconnecting,
    RelayError,
)
from relay.media import AudioSource, RawInput, open_audio, open_pipe
from relay.media.encoded import PACKET_MS, EncodedSource
from relay.process.blocking import BlockingThread
from relay.process.stopping import until_stopped
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat, Codec
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import BadRequestError, UserError
from relay.vocabulary.labels import Label, tidy_name
from relay.vocabulary.names import ChannelAddress

_STANDARD_INPUT = "-"

OPUS_BITRATE = 24_000
"""Bits a second of Opus without `--bitrate`: speech without audible faults."""

_FILE_QUEUE_SECONDS = 1.0
"""How far a file is read ahead during an outage. After the outage, listeners hear what waits here that much later."""

_SILENT_SECONDS = 2.0
"""After this time without audio, the command says that it waits."""

_NEARLY_FULL = 0.8
"""Share of a live pipe's queue. Beyond it, reading from the pipe may soon stop, which hides the pipe's speed."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What to send, and where.

    Attributes:
        url: Address of the relay.
        address: The channel.
        token: The token or broadcast key, if any.
        source: The audio.
        pace: `live` sends in real time. `speech` sends as fast as the relay takes it; it is heard in real time.
        name: What people call the channel.
        lang: BCP 47 tag of the channel's language.
        session_name: What people call the session.
        takeover: Replace the channel's present broadcaster.
        frame_ms: Length of a frame.
        loop: Start again whenever the audio ends.
        keep: Pause the session at the end instead of ending it.
        reconnect: How to reconnect after the connection is lost; None never reconnects.
        is_file: Whether the source can wait. Otherwise it is a pipe, which may be live.
    """

    url: str
    address: ChannelAddress
    token: str | None
    source: AudioSource
    pace: Pace = Pace.LIVE
    name: str | None = None
    lang: str | None = None
    session_name: str | None = None
    takeover: bool = False
    frame_ms: int = 20
    loop: bool = False
    keep: bool = False
    reconnect: Reconnect | None = None
    is_file: bool = True

    @property
    def is_live_pipe(self) -> bool:
        """Whether late audio is dropped, unless the pipe turns out to be ahead of real time."""
        return self.pace is Pace.LIVE and not self.is_file


@click.command("broadcast")
@session_argument
@click.argument("file")
@channel_option
@url_option
@config_option
@click.option(
    "--frame-ms",
    type=click.IntRange(5, 250),
    default=20,
    show_default=True,
    help="Duration of a frame, in milliseconds. For Opus: 5, 10, 20, 40 or 60.",
)
@codec_option(
    "What to send. Opus has a tenth of the bit rate. With opus, an Ogg Opus file or pipe is sent as it is.",
)
@click.option(
    "--bitrate",
    metavar="BITS",
    type=click.IntRange(6_000, 510_000),
    help=f"Bits per second at which --codec opus encodes, {OPUS_BITRATE} by default.",
)
@click.option(
    "--rate",
    type=click.Choice(SAMPLE_RATES),
    help="Sample rate of raw PCM from standard input, 16000 by default. A file is converted to it.",
)
@click.option(
    "--channels",
    type=click.Choice(CHANNEL_COUNTS),
    help="Channels of raw PCM from standard input, 1 by default. A file is converted to them.",
)
@click.option(
    "--pace",
    type=click.Choice([pace.value for pace in Pace]),
    default=Pace.LIVE.value,
    show_default=True,
    help="live sends in real time, like a microphone. speech sends at once, and listeners hear all of it in real time.",
)
@click.option("--takeover", is_flag=True, help="Replace the present broadcaster of the channel.")
@click.option("--name", help="The name of the channel that people see, for example Deutsch.")
@click.option("--lang", help="The language of the channel as a BCP 47 tag, for example de.")
@click.option("--session-name", help="The title of the session that people see, for example 'Town hall'.")
@click.option("--raw", is_flag=True, help="Treat standard input as raw PCM, even if it begins like another format.")
@click.option("--loop", is_flag=True, help="Start again when the file ends.")
@click.option(
    "--keep", is_flag=True, help="Pause the session at the end instead of ending it. Listeners wait for a broadcaster."
)
@reconnect_option
def broadcast_command(
    *,
    session: str,
    file: str,
    channel: str,
    url: str | None,
    config_path: Path | None,
    frame_ms: int,
    codec: str,
    bitrate: int | None,
    rate: int | None,
    channels: int | None,
    pace: str,
    takeover: bool,
    name: str | None,
    lang: str | None,
    session_name: str | None,
    raw: bool,
    loop: bool,
    keep: bool,
    reconnect: Reconnect | None,
) -> None:
    """Send FILE, or standard input, to SESSION.

    SESSION is the id of a session, or the address of its page as a browser shows it. With - as FILE,
    the command sends what arrives on standard input.

    16-bit WAV is sent as it is. With --codec opus, Ogg Opus is sent as it is, and everything else is
    encoded. Other formats that FFmpeg decodes need the extra "media". If standard input does not begin
    like a known format, the command treats it as raw 16-bit little-endian PCM. With --raw, it does not
    check.

    When the audio ends, the session ends, too. With --keep, it pauses instead, and listeners wait.
    SIGINT (Ctrl-C) and SIGTERM do the same early, with exit code 0.

    If the connection is lost, the command connects again and takes its channel back. Meanwhile a file
    waits, and so does audio of pace speech. A pipe of pace live is live audio: up to 5 s of it wait and
    are sent afterwards, and beyond that the oldest audio is dropped. A pipe that delivers faster than
    real time loses nothing.

    If the relay asks for a broadcast key or a token, set RELAY_BROADCAST_KEY or RELAY_CLIENT_TOKEN. An
    option would show them in the list of processes. If a relay on this machine made its own key, the
    command finds the key by itself.
    """
    settings, address = load_destination(config_path, url, session, channel)
    try:
        Label(name, lang)
        if session_name is not None:
            tidy_name("session-name", session_name)
    except BadRequestError as error:
        raise UserError(f"--{error}") from error
    is_file = file != _STANDARD_INPUT
    if raw and is_file:
        raise UserError("--raw works only with standard input: redirect the file to it, and give - as FILE.")
    if loop and not is_file:
        raise UserError("--loop needs a file, because standard input can be read only once.")
    is_opus = codec == Codec.OPUS
    open_source: Callable[[], AudioSource]
    if is_file:
        open_source = partial(open_audio, Path(file), rate, channels, keeps_opus=is_opus)
    elif raw:
        open_source = partial(RawInput, _standard_input(), AudioFormat(rate=rate or 16_000, channels=channels or 1))
    else:
        open_source = partial(open_pipe, _standard_input(), rate, channels, keeps_opus=is_opus)
    if is_opus:
        open_source = _opus_opener(open_source, bitrate, frame_ms)
    elif bitrate is not None:
        raise UserError("--bitrate is for Opus; add --codec opus.")
    make_job = partial(
        Broadcast,
        url=settings.client.url,
        address=address,
        token=broadcast_credential(settings),
        pace=Pace(pace),
        name=name,
        lang=lang,
        session_name=session_name,
        takeover=takeover,
        frame_ms=frame_ms,
        loop=loop,
        keep=keep,
        reconnect=reconnect,
        is_file=is_file or stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode),
    )
    try:
        run(_open_and_broadcast(open_source, make_job), "RELAY_BROADCAST_KEY or RELAY_CLIENT_TOKEN")
    except ChannelBusyError as error:
        sentence = f"The channel {address} already has a broadcaster; replace it with --takeover."
        raise ChannelBusyError(sentence) from error


def _opus_opener(
    open_source: Callable[[], AudioSource], bitrate: int | None, packet_ms: int
) -> Callable[[], AudioSource]:
    """Return a function that opens the source, and encodes it unless it holds Opus packets.

    Raises:
        UserError: No packet has this length.
    """
    if packet_ms not in PACKET_MS:
        lengths = ", ".join(map(str, PACKET_MS))
        raise UserError(f"--frame-ms {packet_ms}: with --codec opus, it is one of {lengths}.")

    def open_as_opus() -> AudioSource:
        source = open_source()
        if source.audio_format.codec is Codec.OPUS:
            return source
        return EncodedSource(source, bitrate=bitrate or OPUS_BITRATE, packet_ms=packet_ms)

    return open_as_opus


async def _open_and_broadcast(open_source: Callable[[], AudioSource], make_job: Callable[..., Broadcast]) -> None:
    """Open the source, then send it. A pipe opens when its first audio arrives; a signal to stop ends the wait."""
    waiting = asyncio.get_running_loop().call_later(_SILENT_SECONDS, say, "waiting for audio on standard input")
    source: AudioSource | None = None
    try:
        with BlockingThread("opening") as opener, until_stopped():
            source = await opener.call(open_source)
    finally:
        waiting.cancel()
    if source is not None:
        await broadcast(make_job(source=source))


async def broadcast(job: Broadcast) -> None:
    """Send the whole source, then end the session. A signal to stop ends it early.

    Raises:
        UserError: No relay answers, or the source cannot be read to its end. Everything read before was sent.
        RelayError: The relay refused, the connection was lost for good, or a signal arrived without a connection.
    """
    source = job.source
    schedule = Schedule()
    broadcaster = client.broadcast(
        job.url,
        job.address.session,
        channel=job.address.channel,
        audio_format=source.audio_format,
        pace=job.pace,
        name=job.name,
        lang=job.lang,
        session_name=job.session_name,
        takeover=job.takeover,
        token=job.token,
        reconnect=job.reconnect,
        queue_seconds=_FILE_QUEUE_SECONDS if job.is_file and job.pace is Pace.LIVE else client.QUEUE_SECONDS,
        dropping=Dropping.LATE if job.is_live_pipe else Dropping.NEVER,
    )
    async with broadcaster:
        say(f"broadcasting {source.name} ({source.audio_format}) to {job.address} at {job.url}")
        try:
            with first_error():
                problem = await _send_and_end(broadcaster, job, schedule)
        finally:
            damaged = f"; skipped {source.damaged_packets} damaged piece(s)" if source.damaged_packets else ""
            dropped_seconds = broadcaster.stats.dropped.seconds
            dropped = f"; dropped {dropped_seconds:.2f} s" if dropped_seconds else ""
            say(f"sent {schedule.sent_seconds:.2f} s of audio{dropped}{damaged}")
            if source.remark is not None:
                say(source.remark)
    if problem is not None:
        raise problem


async def _send_and_end(broadcaster: Broadcaster, job: Broadcast, schedule: Schedule) -> UserError | None:
    """Send the whole source and end the session in order; return the error of the source, if any."""
    problem: UserError | None = None
    async with asyncio.TaskGroup() as tasks:
        speed = SpeedTeller(job.source.audio_format)
        telling = tasks.create_task(_tell_events(broadcaster, speed), name="events")
        try:
            with until_stopped() as stop:
                await _send(broadcaster, job, schedule, speed)
        except UserError as error:
            problem = error
        if stop.requested and not broadcaster.is_connected:
            # A person who stops the command does not want to wait for a relay that may not return.
            what = "paused" if job.keep else "ended"
            raise RelayError(f"{job.address} was not {what}, because there is no connection to {job.url}.")
        # A source without any audio is a mistake. The session continues for its listeners.
        if schedule.sent_seconds:
            await (broadcaster.pause() if job.keep else broadcaster.end())
        telling.cancel()
    return problem


async def _send(broadcaster: Broadcaster, job: Broadcast, schedule: Schedule, speed: SpeedTeller) -> None:
    source = job.source
    audio_format = source.audio_format
    frames = _repeat(source) if job.loop else source.blocks()
    if audio_format.codec is Codec.PCM_S16LE:
        frames = cut_frames(frames, audio_format.rate * job.frame_ms // 1000 * audio_format.sample_bytes)
    with BlockingThread("source") as reader, BroadcastProgress(source.name, source.duration_seconds) as progress:
        while frame := await reader.call(next, frames, b""):
            piece = audio_format.measure(frame)
            await _until_due(job, schedule)
            if job.is_live_pipe:
                is_held = broadcaster.stats.queued_seconds > client.QUEUE_SECONDS * _NEARLY_FULL
                speed.note(piece.seconds, relay_clock(), is_held=is_held)
            await broadcaster.send(piece.audio)
            schedule.sent(piece)
            audience = broadcaster.audience
            progress.update(schedule.sent_seconds, None if audience is None else audience.listeners)
        # The session ends at the end of its last frame, not at its beginning.
        await _until_due(job, schedule)


async def _until_due(job: Broadcast, schedule: Schedule) -> None:
    """Wait as a microphone would, for a file in pace `live`; the broadcaster and the relay pace all else."""
    if job.pace is Pace.LIVE and job.is_file:
        await asyncio.sleep(schedule.wait_seconds(relay_clock()))


async def _tell_events(broadcaster: Broadcaster, speed: SpeedTeller) -> None:
    """Report changes of the connection and lost audio to the person."""
    connection = ConnectionTeller()
    told_seconds = 0.0
    async for event in broadcaster:
        match event:
            case Reconnecting():
                connection.lost(event)
            case Reconnected():
                dropped_seconds = broadcaster.stats.dropped.seconds
                lost = f"; {dropped_seconds - told_seconds:.2f} s of audio were dropped meanwhile"
                connection.back(lost if dropped_seconds > told_seconds else "")
                told_seconds = dropped_seconds
            case CaughtUp() if broadcaster.stats.dropped.seconds > told_seconds:
                dropped_seconds = broadcaster.stats.dropped.seconds
                say(f"dropped {dropped_seconds - told_seconds:.2f} s of audio that came too late to be live")
                told_seconds = dropped_seconds
            case Audience():
                speed.note_relay(event.arrival_rate)
            case ErrorNotice():
                connection.objects(event)


def _repeat(source: AudioSource) -> Iterator[bytes]:
    while True:
        yield from source.blocks()


def _standard_input() -> int:
    """Return the file descriptor of standard input.

    Raises:
        UserError: Standard input is closed or a terminal.
    """
    if sys.stdin is None:
        raise UserError("Standard input is closed; pipe audio into the command.")
    descriptor = sys.stdin.fileno()
    if os.isatty(descriptor):
        raise UserError(
            "Standard input is a terminal; pipe audio into the command, for example "
            "`ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | relay broadcast SESSION - --raw`."
        )
    return descriptor
