"""Opus packets, against vectors that another implementation can run too, and Opus as the format of a channel."""

import json
from pathlib import Path
from typing import Any

import pytest

from relay.audio.audio_buffer_manager import AudioBufferManager
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
