"""WAV files as crashed recorders, streams and odd programs leave them. The relay plays what every player plays."""

import contextlib
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.media import open_audio, open_pipe
from relay.vocabulary.errors import UserError

AUDIO = b"\1\2\3\4" * 4_000
SIZES = [0, 1, 7, 0x10, 36, 16_000, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF]


def chunk(name: bytes, body: bytes, size: int | None = None, *, padded: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (padded and len(body) % 2)


def fmt(tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, extra: bytes = b"") -> bytes:
    width = bits // 8
    block_bytes = channels * width
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block_bytes, block_bytes, bits) + extra)


def wav(*chunks: bytes, form: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return form + struct.pack("<I", len(body) if size is None else size) + body


EXTENSIBLE = fmt(0xFFFE, extra=struct.pack("<HHI", 22, 16, 4) + b"\1\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71")
DATA = chunk(b"data", AUDIO)
INFO = chunk(b"LIST", b"INFOIART" + struct.pack("<I", 3) + b"me\0")
HEALED = {
    "RIFF size of 0": wav(fmt(), DATA, size=0),
    "RIFF size too small": wav(fmt(), DATA, size=40),
    "RIFF size too large": wav(fmt(), DATA, size=0xFFFF_FFFF),
    "data size of 0": wav(fmt(), chunk(b"data", AUDIO, 0)),
    "data size unknown": wav(fmt(), chunk(b"data", AUDIO, 0xFFFF_FFFF)),
    "data size beyond the end": wav(fmt(), chunk(b"data", AUDIO, len(AUDIO) + 1_000)),
    "data size of sox": wav(fmt(), chunk(b"data", AUDIO, 0x7FFF_F000)),
    "all sizes of 0": wav(fmt(), chunk(b"data", AUDIO, 0), size=0),
    "chunks before": wav(
        chunk(b"JUNK", bytes(28)), chunk(b"bext", bytes(601)), fmt(), INFO, chunk(b"fact", b"abcd"), DATA
    ),
    "odd chunk that is not padded": wav(fmt(), chunk(b"note", b"odd", padded=False), DATA),
    "extensible": wav(EXTENSIBLE, DATA),
    "long format": wav(fmt(extra=bytes(2)), DATA),
    "RF64": wav(
        chunk(b"ds64", struct.pack("<QQQI", 0, len(AUDIO), 0, 0)),
        fmt(),
        chunk(b"data", AUDIO, 0xFFFF_FFFF),
        form=b"RF64",
    ),
    "BW64": wav(chunk(b"ds64", struct.pack("<QQQI", 0, len(AUDIO), 0, 0)), fmt(), DATA, form=b"BW64"),
    "half a sample behind": wav(fmt(), chunk(b"data", AUDIO + b"\5", 0xFFFF_FFFF, padded=False)),
}


@pytest.mark.parametrize("content", HEALED.values(), ids=HEALED.keys())
def test_wav_that_players_play_is_played(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    monkeypatch.setitem(sys.modules, "av", None)
    assert b"".join(open_audio(path).blocks()) == AUDIO
    with piped(content) as pipe:
        source = open_pipe(pipe)
        assert source.name == "standard input as WAV"
        assert b"".join(source.blocks()) == AUDIO


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[int]:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    yield reading
    os.close(reading)


def test_chunks_behind_the_audio_are_not_played(tmp_path: Path) -> None:
    content = wav(fmt(), DATA, INFO)
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert b"".join(open_audio(path).blocks()) == AUDIO
    with piped(content) as pipe:
        assert b"".join(open_pipe(pipe).blocks()) == AUDIO
    path.write_bytes(wav(fmt(), chunk(b"data", b""), INFO))
    with pytest.raises(UserError, match="has no audio: it is a WAV file without samples"):
        open_audio(path)


def test_what_is_missing_at_the_end_is_told(tmp_path: Path) -> None:
    content = wav(fmt(), DATA)[:-8_000]
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    remark = "is truncated: its header declares 0.50 s of audio, but it has 0.25 s."
    source = open_audio(path)
    assert b"".join(source.blocks()) == AUDIO[:-8_000]
    assert source.remark == f"{path} {remark}"
    with piped(content) as pipe:
        source = open_pipe(pipe)
        assert b"".join(source.blocks()) == AUDIO[:-8_000]
        assert source.remark == f"Standard input {remark}"


@pytest.mark.parametrize(("tag", "bits"), [(1, 8), (1, 24), (1, 32), (3, 32), (6, 8), (7, 8)])
def test_other_samples_are_decoded(tmp_path: Path, tag: int, bits: int) -> None:
    body = bytes(bits // 8 * 8_000)
    for size in (None, 0, 0xFFFF_FFFF, len(body) + 1_000):
        content = wav(INFO, fmt(tag, bits=bits), chunk(b"data", body, size))
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        assert len(b"".join(open_audio(path).blocks())) == 16_000
        with piped(content) as pipe:
            assert len(b"".join(open_pipe(pipe).blocks())) == 16_000


def outcome(content: bytes, path: Path) -> None:
    """Read `content` from a file and from a pipe. Only errors that are written for users may occur."""
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        source = open_audio(path)
        assert sum(map(len, source.blocks())) % source.audio_format.sample_bytes == 0
    with piped(content) as pipe, contextlib.suppress(UserError):
        source = open_pipe(pipe)
        assert sum(map(len, source.blocks())) % source.audio_format.sample_bytes == 0


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([fmt(), fmt(channels=2), fmt(bits=24), fmt(3, bits=32), EXTENSIBLE]),
    st.lists(
        st.tuples(st.integers(0, 90), st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from(SIZES))), max_size=4
    ),
    st.integers(0, 200),
)
def test_any_header_ends_in_audio_or_in_a_sentence(
    form: bytes, mutations: list[tuple[int, bytes | int]], cut_bytes: int
) -> None:
    content = bytearray(wav(INFO, form, chunk(b"data", bytes(range(256)) * 8)))
    for place, mutation in mutations:
        new = mutation if isinstance(mutation, bytes) else struct.pack("<I", mutation)
        content[place : place + len(new)] = new
    with tempfile.TemporaryDirectory() as directory:
        outcome(bytes(content[: len(content) - cut_bytes * 10]) or b"\0", Path(directory) / "a.wav")
