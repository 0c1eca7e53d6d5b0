"""`relay broadcast`: sends a file or raw PCM from standard input to a channel, in real time."""

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from relay.adapters.media import AudioSource, RawInput, open_audio
from relay.adapters.websocket_client import BroadcasterConnection, connect_broadcaster
from relay.cli.client import (
    broadcast_credential,
    channel_option,
    first_error,
    format_name,
    load_client_settings,
    read_address,
    run,
    say,
    session_argument,
    url_option,
)
from relay.cli.options import config_option
from relay.cli.progress import BroadcastProgress
from relay.cli.stopping import until_stopped
from relay.core.pace import Pace, cut_frames
from relay.runtime.blocking import BlockingThread
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.clock import relay_clock
from relay.vocabulary.errors import UserError
from relay.vocabulary.names import ChannelAddress

_STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What to send where.

    Attributes:
        url: Of the relay.
        address: The channel.
        key: The token or broadcast key to show, if any.
        source: The audio.
        frame_ms: Length of a frame.
        loop: Begin again when the audio ends, for ever.
        keep: Leave without ending the session.
    """

    url: str
    address: ChannelAddress
    key: str | None
    source: AudioSource
    frame_ms: int = 20
    loop: bool = False
    keep: bool = False


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
    help="Length of a frame, in milliseconds.",
)
@click.option(
    "--rate",
    type=click.Choice(SAMPLE_RATES),
    help="Sample rate: of raw PCM from standard input (16000 when not said); a file is converted to it.",
)
@click.option(
    "--channels",
    type=click.Choice(CHANNEL_COUNTS),
    help="Channels: of raw PCM from standard input (1 when not said); a file is converted to them.",
)
@click.option("--loop", is_flag=True, help="Begin again when the file ends.")
@click.option("--keep", is_flag=True, help="Do not end the session: the channel waits for a broadcaster to return.")
def broadcast_command(
    *,
    session: str,
    file: str,
    channel: str,
    url: str | None,
    config_path: Path | None,
    frame_ms: int,
    rate: int | None,
    channels: int | None,
    loop: bool,
    keep: bool,
) -> None:
    """Send FILE to SESSION in real time; with - as FILE, raw 16-bit little-endian PCM from standard input.

    16-bit WAV is sent as it is; anything else that FFmpeg decodes needs the extra "media". The session ends with
    the audio. SIGINT (Ctrl-C) and SIGTERM end it early, in order, with exit code 0.

    A relay that asks for a token or a broadcast key gets the setting client.token or broadcast.key, best given as the
    environment variable RELAY_CLIENT_TOKEN or RELAY_BROADCAST_KEY: an option would show it in the list of processes. A
    relay on this machine that made its own key has left it where this command finds it.
    """
    settings = load_client_settings(config_path, url)
    address = read_address(session, channel)
    if file != _STANDARD_INPUT:
        source = open_audio(Path(file), rate, channels)
    elif loop:
        raise UserError("Standard input can be read only once; --loop needs a file.")
    else:
        source = RawInput(_standard_input(), AudioFormat(rate=rate or 16_000, channels=channels or 1))
    key = broadcast_credential(settings)
    run(broadcast(Broadcast(settings.client.url, address, key, source, frame_ms, loop, keep)))


async def broadcast(job: Broadcast) -> None:
    """Send all of the source in real time, then end the session; a signal to stop ends it early.

    Raises:
        UserError: No relay answers, or the source can not be read to its end; what was read was sent.
        RelayError: The relay refused, or the connection was lost.
    """
    source = job.source
    pace = Pace(source.audio_format)
    async with connect_broadcaster(job.url, job.address, source.audio_format, job.key) as connection:
        say(f"broadcasting {source.name} ({format_name(source.audio_format)}) to {job.address} at {job.url}")
        try:
            with first_error():
                problem = await _send_and_end(connection, job, pace)
        finally:
            damaged = f"; left out {source.damaged_packets} damaged piece(s) of it" if source.damaged_packets else ""
            say(f"sent {pace.sent_seconds:.2f} s of audio{damaged}")
    if problem is not None:
        raise problem


async def _send_and_end(connection: BroadcasterConnection, job: Broadcast, pace: Pace) -> UserError | None:
    """Send all and end the session in order; give what was wrong with the source."""
    problem: UserError | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connection.wait_closed(), name="wait_closed")
        try:
            with until_stopped():
                await _send(connection, job, pace)
        except UserError as error:
            problem = error
        # A source without any audio is a mistake that the session's listeners need not suffer from.
        await (connection.end() if pace.sent_seconds and not job.keep else connection.leave())
    return problem


async def _send(connection: BroadcasterConnection, job: Broadcast, pace: Pace) -> None:
    source = job.source
    audio_format = source.audio_format
    blocks = _repeat(source) if job.loop else source.blocks()
    frames = cut_frames(blocks, audio_format.rate * job.frame_ms // 1000 * audio_format.sample_bytes)
    with BlockingThread("source") as reader, BroadcastProgress(source.name, source.duration_seconds) as progress:
        while frame := await reader.call(next, frames, b""):
            await asyncio.sleep(pace.wait_seconds(relay_clock()))
            if not await connection.send_audio(frame):
                return
            pace.sent(len(frame))
            progress.update(pace.sent_seconds)
        # The session ends when its last frame is over, not when it begins.
        await asyncio.sleep(pace.wait_seconds(relay_clock()))


def _repeat(source: AudioSource) -> Iterator[bytes]:
    while True:
        yield from source.blocks()


def _standard_input() -> int:
    """Give the descriptor of standard input when audio can come from there."""
    if sys.stdin is None:
        raise UserError("Standard input is closed; pipe raw PCM into it.")
    descriptor = sys.stdin.fileno()
    if os.isatty(descriptor):
        raise UserError(
            "Standard input is a terminal; pipe raw PCM into it, for example "
            "`ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | relay broadcast SESSION -`."
        )
    return descriptor
