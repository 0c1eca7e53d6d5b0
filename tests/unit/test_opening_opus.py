"""Which files and pipes pass through as Opus, and which are decoded."""

import fcntl
import os
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from relay.media import open_audio, open_pipe
from relay.vocabulary.audio import AudioFormat, Codec
from tests.support.audio_files import encode, tone


def demuxed(path: Path) -> list[bytes]:
    """The packets of a file as FFmpeg finds them."""
    with av.open(str(path)) as container:
        return [bytes(each) for each in container.demux(container.streams.audio[0]) if each.size]


@contextmanager
def dribbling(content: bytes) -> Iterator[int]:
    """A pipe whose first bytes come one by one."""
    reading, writing = os.pipe()

    def feed() -> None:
        for start in range(60):
            os.write(writing, content[start : start + 1])
            while fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) != bytes(4):
                os.sched_yield()
        os.write(writing, content[60:])
        os.close(writing)

    feeding = threading.Thread(target=feed)
    feeding.start()
    yield reading
    feeding.join()
    os.close(reading)


@pytest.mark.parametrize("channels", [1, 2])
def test_ogg_opus_passes_through_unless_other_channels_are_wanted(tmp_path: Path, channels: int) -> None:
    layout = "mono" if channels == 1 else "stereo"
    path = encode(tmp_path / "a.opus", "libopus", tone(48_000, channels), 48_000, layout)
    packets = demuxed(path)
    source = open_audio(path, keeps_opus=True)
    assert source.audio_format == AudioFormat(Codec.OPUS, 48_000, channels)
    assert list(source.blocks()) == packets == list(source.blocks())
    assert open_audio(path, 16_000, keeps_opus=True).audio_format == AudioFormat(Codec.OPUS, 16_000, channels)
    assert open_audio(path).audio_format == AudioFormat(rate=48_000, channels=channels)
    other = open_audio(path, channels=3 - channels, keeps_opus=True)
    assert other.audio_format == AudioFormat(rate=48_000, channels=3 - channels)
    # No packet is decoded to this rate.
    assert open_audio(path, 44_100, keeps_opus=True).audio_format == AudioFormat(rate=44_100, channels=channels)
    with dribbling(path.read_bytes()) as pipe:
        piped = open_pipe(pipe, keeps_opus=True)
        assert piped.audio_format == AudioFormat(Codec.OPUS, 48_000, channels)
        assert list(piped.blocks()) == packets
    with dribbling(path.read_bytes()) as pipe:
        piped = open_pipe(pipe, channels=3 - channels, keeps_opus=True)
        assert piped.audio_format == AudioFormat(rate=48_000, channels=3 - channels)
        assert b"".join(piped.blocks())


@pytest.mark.parametrize(("name", "codec"), [("a.flac", "flac"), ("a.wav", "pcm_s16le")])
def test_what_is_no_ogg_opus_is_decoded(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, codec, tone(16_000, 1), 16_000)
    assert open_audio(path, keeps_opus=True).audio_format == AudioFormat()
    with dribbling(path.read_bytes()) as pipe:
        assert open_pipe(pipe, keeps_opus=True).audio_format == AudioFormat()
        os.set_blocking(pipe, False)
        while True:
            try:
                if not os.read(pipe, 65_536):
                    break
            except BlockingIOError:
                continue


def test_less_than_a_head_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "short.opus"
    path.write_bytes(b"OggS" + bytes(30))
    with pytest.raises(Exception, match=r"cannot be read as audio|holds no audio"):
        open_audio(path, keeps_opus=True)
