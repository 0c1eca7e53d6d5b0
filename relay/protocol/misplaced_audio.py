"""Recognize audio that a broadcaster sends in an unsupported form, and explain what is wrong.

Telephony and speech services carry audio as base64 in JSON, players as files, browsers as WebM. A relay that did not
recognize these would silently ignore them or send noise to every listener.

Every sentence here fits into a close frame, because a broadcaster without `relay.v1` reads nothing else.
"""

import re

from relay.protocol.json_messages import ControlMessage, decode
from relay.protocol.messages import FROM_BROADCASTER
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import AudioFaultError, PolicyError

_WHERE_AUDIO_GOES = "Audio goes in binary messages, its format in the address."

_AUDIO_AS_TEXT = re.compile(
    # Base64, in JSON or alone.
    r"""(?:^|")(?:data:[^",]{0,64},)?[A-Za-z0-9+/_\\\r\n-]{96,}+={0,2}(?:\s|\\[rn])*+(?:"|$)"""
    # Samples as numbers.
    r"|\[(?:\s*+-?[0-9][0-9.eE+-]*+\s*+,){32,}+"
)
"""96 characters of base64 are 5 ms of telephone audio. No id is that long."""

_FORMAT_AS_TEXT = re.compile(r'"(?:config\w*|encoding|sample_?rate\w*|\w*audio_?format|media_?format)"', re.IGNORECASE)

_OWN_TYPES = frozenset(kind.TYPE for kind in FROM_BROADCASTER)

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
"""The offset, magic bytes and name of each file format. Each is improbable in PCM and in Opus, and only the first
message is checked for them."""

_EXPECTED = {
    Codec.PCM_S16LE: "The relay takes 16-bit PCM",
    Codec.OPUS: "The relay takes one Opus packet in each message",
}


def read_broadcaster_text(text: str) -> ControlMessage:
    """Read a broadcaster's text message.

    Raises:
        AudioFaultError: It contains audio or a format.
        PolicyError: It is not a control message.
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


def check_is_no_file(message: bytes, codec: Codec, *, is_first: bool) -> None:
    """Check that a broadcaster's binary message is not part of a file.

    Raises:
        AudioFaultError: It begins with a WAV header where PCM is expected. PCM follows.
        PolicyError: It begins a file of another format. Audio that the relay cannot read follows.
    """
    is_wav = message.startswith((b"RIFF", b"RF64")) and message[8:12] == b"WAVE"
    if is_wav and codec is Codec.PCM_S16LE:
        raise AudioFaultError(
            "This begins with a WAV header. Send the samples behind it only, their rate in the address."
        )
    if not is_first:
        return
    for offset, mark, name in _FILES:
        if message.startswith(mark, offset):
            raise PolicyError(f"This is {name}. {_EXPECTED[codec]}; `relay broadcast` reads files and pipes.")
    if is_wav:
        raise PolicyError(f"This is WAV. {_EXPECTED[codec]}; codec=pcm_s16le takes its samples.")
