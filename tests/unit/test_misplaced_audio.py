"""Audio in forms that other services accept and the relay does not."""

import base64
import io
import json
import time
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.misplaced_audio import check_is_no_file, read_broadcaster_text
from relay.vocabulary.audio import Codec
from relay.vocabulary.errors import AudioFaultError, PolicyError

BYTES = bytes(range(160))
AUDIO = base64.b64encode(BYTES).decode()

IN_TEXT = "This text message holds audio. Send its bytes as 16-bit PCM, in binary messages."
FORMAT = "Send the audio format in the address, not in a message: ?rate=16000&channels=1."


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"event": "media", "streamSid": "MZ18", "media": {"track": "inbound", "payload": AUDIO}}),
        json.dumps({"type": "input_audio_buffer.append", "audio": AUDIO}),
        json.dumps({"type": "audio", "audio": base64.urlsafe_b64encode(b"\xff" * 3000).decode()}),
        json.dumps({"type": "chunk", "data": f"data:audio/wav;base64,{AUDIO}"}),
        json.dumps({"type": "chunk", "data": base64.encodebytes(BYTES).decode()}),
        json.dumps({"type": "audio", "samples": list(range(-100, 100))}),
        json.dumps({"audio": [0.25, -0.5] * 30}, indent=1),
        json.dumps([0] * 160),
        AUDIO,
        base64.encodebytes(BYTES).decode(),
        base64.b64encode(bytes(64_000)).decode(),
    ],
)
def test_audio_in_a_text_message_is_recognized(text: str) -> None:
    with pytest.raises(AudioFaultError) as caught:
        read_broadcaster_text(text)
    assert str(caught.value) == IN_TEXT


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"config","sample_rate":24000}',
        '{"type":"start","format":{"encoding":"mulaw"}}',
        '{"type":"session.update","session":{"input_audio_format":"pcm16"}}',
        '{"config":{"sampleRateHertz":8000}}',
        '{"event":"start","start":{"mediaFormat":{"sampleRate":8000}}}',
    ],
)
def test_a_format_in_a_text_message_is_recognized(text: str) -> None:
    with pytest.raises(AudioFaultError) as caught:
        read_broadcaster_text(text)
    assert str(caught.value) == FORMAT


@pytest.mark.parametrize(
    "message",
    [
        {"type": "ping", "id": AUDIO, "encoding": list(range(100))},
        {"type": "clear", "config": 1},
        {"type": "end"},
        {"type": "of a later version", "id": "0b5f7a1e-8a5c-4b0e-9d6e-1f2f3a4b5c6d", "levels": [1, 2, 3]},
    ],
)
def test_what_is_no_audio_is_read(message: dict[str, object]) -> None:
    assert read_broadcaster_text(json.dumps(message)) == message


@pytest.mark.parametrize("text", ["hello", '{"event":"connected","protocol":"Call"}', "[]", "x " * 3000])
def test_what_is_no_message_is_told_where_audio_goes(text: str) -> None:
    with pytest.raises(PolicyError, match="Send audio in binary messages, its format in the address") as caught:
        read_broadcaster_text(text)
    assert not isinstance(caught.value, AudioFaultError)
    assert len(str(caught.value).encode()) <= 123, "a close frame holds no more"


@given(st.text())
def test_any_text_is_a_message_or_one_sentence(text: str) -> None:
    try:
        read_broadcaster_text(text)
    except PolicyError as error:
        assert len(str(error).encode()) <= 123


@pytest.mark.parametrize("part", ['"', "[", "1,", '"data:', "A", "A=", '"A', "[1,[", "\\", "1 "])
def test_the_longest_text_costs_little(part: str) -> None:
    def seconds(times: int) -> float:
        begin = time.process_time()
        with pytest.raises(PolicyError):
            read_broadcaster_text(part * times)
        return time.process_time() - begin

    times = 262_144 // len(part)
    # A quadratic cost would be 64 times as high.
    assert min(seconds(times) for _ in range(3)) < 24 * min(seconds(times // 8) for _ in range(3)) + 0.02


def test_a_wav_header_is_no_audio() -> None:
    whole = io.BytesIO()
    with wave.open(whole, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(24_000)
        writer.writeframes(BYTES)
    for is_first in (True, False):
        with pytest.raises(AudioFaultError) as caught:
            check_is_no_file(whole.getvalue(), Codec.PCM_S16LE, is_first=is_first)
        assert str(caught.value) == (
            "This begins with a WAV header. Send only the samples after it, and their rate in the address."
        )


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (b"OggS\0\2", "Ogg"),
        (b"\x1aE\xdf\xa3\x9f", "WebM"),
        (b"fLaC", "FLAC"),
        (b"ID3\4", "MP3"),
        (b"\0\0\0\x1cftypisom", "MP4"),
        (b"FORM\0\1\0\0AIFF", "AIFF"),
        (b"caff", "CAF"),
        (b".snd", "AU"),
    ],
)
def test_a_file_is_no_audio(begin: bytes, name: str) -> None:
    for codec, expected in ((Codec.PCM_S16LE, "16-bit PCM"), (Codec.OPUS, "one Opus packet in each message")):
        with pytest.raises(PolicyError, match=f"This is {name}. The relay takes {expected}") as caught:
            check_is_no_file(begin + BYTES, codec, is_first=True)
        assert not isinstance(caught.value, AudioFaultError), "what comes behind it would be noise"
        assert len(str(caught.value).encode()) <= 123
        check_is_no_file(begin + BYTES, codec, is_first=False)


def test_a_wav_file_is_no_opus() -> None:
    begin = b"RIFF\x24\0\0\x80WAVEfmt "
    with pytest.raises(PolicyError, match=r"This is WAV\. The relay takes one Opus packet in each message") as caught:
        check_is_no_file(begin, Codec.OPUS, is_first=True)
    assert len(str(caught.value).encode()) <= 123
    check_is_no_file(begin, Codec.OPUS, is_first=False)


@pytest.mark.parametrize("message", [b"", b"RI", b"RIFF", bytes(640), b"RIFF" * 160])
def test_audio_is_audio(message: bytes) -> None:
    check_is_no_file(message, Codec.PCM_S16LE, is_first=True)
