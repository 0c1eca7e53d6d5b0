"""Detects what a file or pipe holds, and chooses its reader."""

import stat
from pathlib import Path

from relay.media.decoded import DecodedFile, DecodedInput
from relay.media.ogg_opus import is_ogg_opus
from relay.media.opus_files import OpusFile, OpusInput
from relay.media.pipe import PcmInput, Pipe, look_at_beginning
from relay.media.signatures import HEAD_BYTES, TEXT, recognise
from relay.media.source import AudioSource
from relay.media.wav import WavFile, WavInput, enter_wav, fits, read_header, unreadable
from relay.vocabulary.audio import OPUS_RATES, AudioFormat
from relay.vocabulary.errors import UserError

_OPUS_HEAD_BYTES = 38
"""The beginning of Ogg Opus, up to its number of channels."""

_LOOK_SECONDS = 0.25
"""How long to look at a pipe that begins like no known format. Live audio waits this long, once."""


def open_audio(
    path: Path, rate: int | None = None, channels: int | None = None, *, keeps_opus: bool = False
) -> AudioSource:
    """Open a file by its format, reading only its beginning.

    Args:
        path: A regular file.
        rate: Convert to this sample rate, in Hz; None keeps the file's, or uses the next higher supported one.
        channels: Convert to 1 or 2 channels; None keeps the file's, and converts more than two to stereo.
        keeps_opus: Read the packets of Ogg Opus as they are. The rate is then what the relay decodes to.

    Raises:
        UserError: The file is missing, unreadable, empty or not audio, or it needs PyAV, which is not installed.
    """
    _check_readable(path)
    try:
        with path.open("rb") as file:
            if keeps_opus and _passes_through(file.read(_OPUS_HEAD_BYTES), rate, channels):
                return OpusFile(path, rate)
            file.seek(0)
            header = read_header(file)
        if header is not None and fits(header.audio_format, rate, channels):
            return WavFile(path, header.audio_format)
    except OSError as error:
        raise unreadable(path, error) from error
    return DecodedFile(path, rate, channels)


def open_pipe(
    descriptor: int, rate: int | None = None, channels: int | None = None, *, keeps_opus: bool = False
) -> AudioSource:
    """Open a pipe by its format, after waiting for its beginning. An unknown beginning means raw 16-bit PCM.

    Args:
        descriptor: Open for reading, blocking or not.
        rate: In Hz. Raw PCM has this rate, 16000 by default; anything else is converted to it.
        channels: 1 or 2. Raw PCM has this many, 1 by default; anything else is converted to them.
        keeps_opus: Read the packets of Ogg Opus as they are. The rate is then what the relay decodes to.

    Raises:
        UserError: The pipe cannot be read or holds nothing or text, or it needs PyAV, which is not installed.
    """
    pipe = Pipe(descriptor)
    found: str | None = None
    for head in look_at_beginning(pipe, HEAD_BYTES, _LOOK_SECONDS):
        found = recognise(head)
        if found is not None:
            break
    if found == TEXT:
        raise UserError(
            "Standard input begins with text, not audio. Perhaps the program before the pipe prints an error. If it is "
            "raw PCM, add --raw."
        )
    if found is None:
        audio_format = AudioFormat(rate=rate or 16_000, channels=channels or 1)
        return PcmInput(pipe, audio_format, "standard input as raw PCM")
    if keeps_opus and found == "Ogg" and _passes_through(_look_at_head(pipe), rate, channels):
        return OpusInput(pipe, rate)
    if found == "WAV" and (header := enter_wav(pipe, rate, channels)) is not None:
        return WavInput(pipe, header)
    return DecodedInput(pipe, found, rate, channels)


def _passes_through(beginning: bytes, rate: int | None, channels: int | None) -> bool:
    """Return whether this begins Ogg Opus that needs no conversion."""
    is_opus = is_ogg_opus(beginning) and len(beginning) == _OPUS_HEAD_BYTES
    return is_opus and rate in (None, *OPUS_RATES) and channels in (None, beginning[-1])


def _look_at_head(pipe: Pipe) -> bytes:
    """Wait until a pipe says whether it holds Opus."""
    seen = pipe.look(0, _OPUS_HEAD_BYTES)
    while len(more := pipe.look(len(seen), _OPUS_HEAD_BYTES)) > len(seen):
        seen = more
    return seen


def _check_readable(path: Path) -> None:
    try:
        # Check before opening: opening a named pipe would wait for its other end.
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a directory, not an audio file.")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file. To read audio from a pipe, give - as FILE.")
    if status.st_size == 0:
        raise UserError(f"{path} is empty; give a file with audio.")
