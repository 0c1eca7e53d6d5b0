"""Opus packets against vectors that other implementations can also run, and Opus as a channel's format."""

import contextlib
import json
from ctypes import c_int16, c_int32, c_void_p
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio.audio_buffer_manager import AudioBufferManager
from relay.media.libopus import OpusDecoder, load_libopus
from relay.vocabulary import opus_packet
from relay.vocabulary.audio import FLICKS_PER_SECOND, OPUS_RATES, AudioFormat, Codec
from relay.vocabulary.errors import AudioFaultError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "opus.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["well_formed"], ids=lambda vector: str(vector["name"]))
def test_a_packet_lasts_what_its_first_bytes_say(vector: dict[str, Any]) -> None:
    assert opus_packet.measure(bytes.fromhex(vector["hex"])) == vector["duration_ms"] * 48


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: str(vector["name"]))
def test_a_malformed_packet_is_refused_with_the_rule_that_it_breaks(vector: dict[str, Any]) -> None:
    with pytest.raises(AudioFaultError, match=rf"\(RFC 6716, {vector['rule']}\)\.$") as caught:
        opus_packet.measure(bytes.fromhex(vector["hex"]))
    assert len(str(caught.value).encode()) <= 123, "it fits into a close frame"


packets = st.builds(
    lambda configuration, code, rest: bytes([configuration << 3 | code]) + rest,
    st.integers(0, 31),
    st.integers(0, 7),
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda head, size: head + bytes(size), st.binary(max_size=8), st.integers(0, 4000)),
    ),
)


@settings(max_examples=2000)
@given(packets)
def test_libopus_takes_the_same_packets(packet: bytes) -> None:
    library, measured = load_libopus(), -1
    with contextlib.suppress(AudioFaultError):
        measured = opus_packet.measure(packet)
    frames, sizes = (c_void_p * 48)(), (c_int16 * 48)()
    found = library.opus_packet_parse(packet, c_int32(len(packet)), None, frames, sizes, None)
    ticks = library.opus_packet_get_nb_samples(packet, c_int32(len(packet)), c_int32(48_000)) if found > 0 else -1
    assert measured == ticks


@given(st.integers(1, 48), st.sampled_from([1, 2]))
def test_libopus_decodes_silence_as_silence(steps: int, channels: int) -> None:
    packet = opus_packet.silence(120 * steps, channels)
    assert OpusDecoder(48_000, channels).decode(packet, 120 * steps) == bytes(120 * steps * 2 * channels)


def test_a_packet_has_at_most_61440_bytes() -> None:
    padding = b"\xff" * 240
    packet = b"\xfb\x41" + padding + b"\0" + bytes(240 * 254)
    assert opus_packet.measure(packet) == 960
    longer = b"\xfb\x41" + padding + b"\xfe" + bytes(241 * 254)
    with pytest.raises(AudioFaultError, match="61457 bytes is longer than 61440 bytes"):
        opus_packet.measure(longer)


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_lasts_what_a_packet_can_last(channels: int) -> None:
    for ticks in range(120, 5760 + 1, 120):
        assert opus_packet.measure(opus_packet.silence(ticks, channels)) == ticks
    for ticks in (0, 60, 121, 5880):
        with pytest.raises(ValueError, match="cannot last"):
            opus_packet.silence(ticks, channels)


def test_opus_counts_48000_ticks_at_any_rate() -> None:
    assert str(AudioFormat(Codec.OPUS, 24_000, 2)) == "Opus, 24000 Hz, stereo"
    for rate in OPUS_RATES:
        audio_format = AudioFormat(Codec.OPUS, rate)
        assert audio_format.clock_rate == 48_000
        piece = audio_format.measure(b"\x18\xff")
        assert (piece.ticks, piece.flicks) == (2880, 60 * FLICKS_PER_SECOND // 1000)
        silent = audio_format.silence(piece)
        assert (silent.ticks, opus_packet.measure(silent.audio)) == (2880, 2880)
    with pytest.raises(ValueError, match="for opus, not 44100"):
        AudioFormat(Codec.OPUS, 44_100)


def test_a_buffer_bounds_opus_by_what_it_lasts() -> None:
    manager = AudioBufferManager()
    buffer = manager.open_buffer("a", audio_format=AudioFormat(Codec.OPUS, 48_000), max_buffer_seconds=0.1)
    assert [manager.add_audio("a", b"\xf8" + bytes(60)) for _ in range(6)] == [True] * 5 + [False]
    assert buffer.held_flicks == FLICKS_PER_SECOND // 10
    with pytest.raises(AudioFaultError):
        manager.add_audio("a", b"\xfb\0")


def test_a_buffer_drops_a_packet_that_is_larger_than_itself() -> None:
    manager = AudioBufferManager()
    buffer = manager.open_buffer("a", audio_format=AudioFormat(Codec.OPUS, 48_000), max_buffer_seconds=0.01)
    assert not manager.add_audio("a", b"\xf8\xff\xfe")
    assert (buffer.held_bytes, buffer.counters.dropped.bytes) == (0, 3)
