"""Audio that a broadcaster sends in a form that the relay does not take, recognized in order to tell it what is wrong.

Telephony and speech services carry audio as base64 in JSON, players as files, browsers as WebM. A relay that took
those for something else would ignore them in silence, or send noise to everybody.

Every sentence here fits into a close frame, which is all that a broadcaster without `relay.v1` reads.
"""

import re

from relay.core.messages import ControlMessage, decode
from relay.vocabulary.errors import AudioFaultError, PolicyError

_WHERE_AUDIO_GOES = "Audio goes in binary messages, its format in the address."

_AUDIO_AS_TEXT = re.compile(
    # Base64, in JSON or alone.
    r"""(?:^|")(?:data:[^",]{0,64},)?[A-Za-z0-9+/_\\\r\n-]{96,}+={0,2}(?:\s|\\[rn])*+(?:"|$)"""
    # Samples as numbers.
    r"|\[(?:\s*+-?[0-9][0-9.eE+-]*+\s*+,){32,}+"
)
"""Base64 of 96 characters is 5 ms of telephone audio; no id is as long."""

_FORMAT_AS_TEXT = re.compile(r'"(?:config\w*|encoding|sample_?rate\w*|\w*audio_?format|media_?format)"', re.IGNORECASE)

_OWN_TYPES = frozenset({"ping", "clear", "mute", "pause", "end"})

_FILES = (
    (0, b"OggS", "Ogg"),
    (0, b"\x1aE\xdf\xa3", "WebM"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (4, b"ftyp", "MP4"),
    (8, b"AIFF", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
)
"""Where in a file its format's mark stands. Each is improbable in PCM, and only the first message is looked at."""


def read_broadcaster_text(text: str) -> ControlMessage:
    """Read a broadcaster's text message, which must not be audio, nor say a format.

    Raises:
        AudioFaultError: It is one of those.
        PolicyError: It is no control message at all.
    """
    try:
        message = decode(text)
    except PolicyError as error:
        _refuse_audio(text)
        raise PolicyError(f"{error} {_WHERE_AUDIO_GOES}") from error
    if message["type"] not in _OWN_TYPES:
        _refuse_audio(text)
    return message


def _refuse_audio(text: str) -> None:
    if _AUDIO_AS_TEXT.search(text):
        raise AudioFaultError("This text message holds audio. Send the bytes of it, 16-bit PCM, in binary messages.")
    if _FORMAT_AS_TEXT.search(text):
        raise AudioFaultError("The relay takes no format in a message; say it in the address: ?rate=16000&channels=1.")


def check_is_pcm(message: bytes, *, is_first: bool) -> None:
    """Make sure that a broadcaster's binary message is not a part of a file.

    Raises:
        AudioFaultError: It begins with a WAV header, behind which are samples.
        PolicyError: It is compressed, or of another order; so is what comes behind it.
    """
    if message.startswith((b"RIFF", b"RF64")) and message[8:12] == b"WAVE":
        raise AudioFaultError(
            "This begins with a WAV header. Send the samples behind it only, their rate in the address."
        )
    if not is_first:
        return
    for offset, mark, name in _FILES:
        if message.startswith(mark, offset):
            raise PolicyError(f"This is {name}. The relay takes 16-bit PCM; `relay broadcast` decodes files and pipes.")
