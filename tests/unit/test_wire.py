"""The binary header against vectors that other implementations can also run, and the splitting of audio."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.wire import (
    HEADER_BYTES,
    MAX_FRAME_SECONDS,
    Audio,
    Header,
    pack_audio,
    serial_difference,
    split_audio,
    unpack_audio,
)
from relay.vocabulary.audio import CHANNEL_COUNTS, FLICKS_PER_SECOND, SAMPLE_RATES, AudioFormat, Codec
from relay.vocabulary.clock import wire_milliseconds
from relay.vocabulary.errors import AudioFaultError, PolicyError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "header.json").read_text())

OPUS = AudioFormat(Codec.OPUS, 48_000)

formats = st.builds(AudioFormat, rate=st.sampled_from(SAMPLE_RATES), channels=st.sampled_from(CHANNEL_COUNTS))


@pytest.mark.parametrize("vector", VECTORS["headers"], ids=lambda vector: str(vector["name"]))
def test_header_vectors(vector: dict[str, object]) -> None:
    fields = {name: vector[name] for name in ("epoch", "seq", "media_time", "due_ms")}
    header = Header(**fields)  # type: ignore[arg-type] # JSON gives integers
    assert header.pack().hex() == vector["hex"]
    assert Header.unpack(bytes.fromhex(str(vector["hex"])) + b"audio") == header


@given(st.integers(0), st.integers(0), st.integers(0), st.integers(0))
def test_every_field_wraps(epoch: int, seq: int, media_time: int, due_ms: int) -> None:
    packed = Header(epoch, seq, media_time, due_ms).pack()
    assert len(packed) == HEADER_BYTES
    assert Header.unpack(packed) == Header(epoch % 2**16, seq % 2**32, media_time % 2**32, due_ms % 2**32)


def test_unknown_flags_are_ignored() -> None:
    message = bytearray(Header(1, 2, 3, 4).pack())
    message[1] = 0xFE
    assert Header.unpack(bytes(message)) == Header(1, 2, 3, 4)
    message[1] = 0xFF
    assert Header.unpack(bytes(message)) == Header(1, 2, 3, 4, is_packed=True)


@pytest.mark.parametrize("vector", VECTORS["packed"], ids=lambda vector: str(vector["name"]))
def test_packed_vectors(vector: dict[str, Any]) -> None:
    message, frames = bytes.fromhex(vector["hex"]), vector["frames"]
    expected = [
        Audio(
            Header(vector["epoch"], frame["seq"], frame["media_time"], frame["due_ms"]), bytes.fromhex(frame["packet"])
        )
        for frame in frames
    ]
    assert unpack_audio(message, OPUS) == expected
    assert pack_audio(expected[0].header, [each.payload for each in expected]) == message


def test_a_message_that_is_not_packed_is_one_frame() -> None:
    header = Header(1, 2, 3, 4)
    assert unpack_audio(header.pack() + b"ab", AudioFormat()) == [Audio(header, b"ab")]


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_a_packed_message_ends_with_a_whole_packet(left: int) -> None:
    message = pack_audio(Header(1, 2, 3, 4), [b"\xf8\xff\xfe"] * 2)
    with pytest.raises(PolicyError, match="ends inside a packet"):
        unpack_audio(message[:-left], OPUS)


def test_packets_behind_a_malformed_one_have_no_place() -> None:
    with pytest.raises(AudioFaultError, match="no Opus packet"):
        unpack_audio(pack_audio(Header(1, 2, 3, 4), [b"", b"\xf8"]), OPUS)


def test_a_message_with_opus_is_one_packet() -> None:
    [piece] = split_audio(b"\x18\xff\xff", OPUS)
    assert (piece.audio, piece.ticks, piece.seconds) == (b"\x18\xff\xff", 2880, 0.06)
    assert split_audio(b"", OPUS) == []
    with pytest.raises(AudioFaultError, match="This is no Opus packet"):
        split_audio(b"\xfb\0", OPUS)


@pytest.mark.parametrize(("message", "says"), [(b"\1" * 15, "too few"), (b"\2" + bytes(15), "has version 2")])
def test_what_is_no_header_is_refused(message: bytes, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        Header.unpack(message)


@given(formats, st.integers(0, 200_000))
def test_frames_are_whole_samples_of_at_most_250_ms_and_lose_nothing(audio_format: AudioFormat, samples: int) -> None:
    message = bytes(samples * audio_format.sample_bytes)
    frames = split_audio(message, audio_format)
    assert b"".join(piece.audio for piece in frames) == message
    for piece in frames:
        assert len(piece.audio) == piece.ticks * audio_format.sample_bytes
        assert piece.flicks == audio_format.flicks(len(piece.audio))
        assert 0 < piece.flicks <= MAX_FRAME_SECONDS * FLICKS_PER_SECOND


def test_a_message_that_is_not_whole_samples_is_refused() -> None:
    with pytest.raises(PolicyError, match="641 bytes does not end at a whole sample"):
        split_audio(bytes(641), AudioFormat())
    with pytest.raises(PolicyError, match="multiple of 4"):
        split_audio(bytes(642), AudioFormat(channels=2))


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_a_sample_of_every_rate_is_whole_flicks(rate: int) -> None:
    assert FLICKS_PER_SECOND % rate == 0
    assert AudioFormat(rate=rate, channels=2).flicks(4) == FLICKS_PER_SECOND // rate


def test_the_relays_clock_wraps_at_32_bits_of_milliseconds() -> None:
    assert wire_milliseconds(1.2345) == 1234
    assert wire_milliseconds(2**32 / 1000 + 0.5) == 500


words = st.integers(0, 2**32 - 1)


@given(words, st.integers(-(2**31), 2**31 - 1))
def test_differences_of_numbers_that_wrap(right: int, difference: int) -> None:
    assert serial_difference((right + difference) % 2**32, right) == difference
    assert serial_difference(right + difference + 2**32, right) == difference, "of those that are not wrapped yet, too"


def test_a_difference_may_be_less_than_a_tick() -> None:
    assert serial_difference(1.5, 2**32 - 1) == 2.5
