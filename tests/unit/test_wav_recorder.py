"""Recordings are real files and stay valid whatever happens."""

import resource
import wave
from pathlib import Path

import pytest

from relay.media.wav_recorder import WavRecorder
from relay.vocabulary.audio import CHANNEL_COUNTS, SAMPLE_RATES, AudioFormat
from relay.vocabulary.errors import UserError

MONO = AudioFormat()
STEREO = AudioFormat(rate=48_000, channels=2)


def read(path: Path) -> tuple[AudioFormat, bytes]:
    with wave.open(str(path)) as reader:
        assert reader.getsampwidth() == 2
        audio_format = AudioFormat(rate=reader.getframerate(), channels=reader.getnchannels())
        return audio_format, reader.readframes(reader.getnframes())


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("channels", CHANNEL_COUNTS)
def test_any_format_can_be_recorded(tmp_path: Path, rate: int, channels: int) -> None:
    audio_format = AudioFormat(rate=rate, channels=channels)
    with WavRecorder(tmp_path / "out.wav") as recorder:
        recorder.set_format(audio_format)
        recorder.write(b"\1\2\3\4")
        recorder.write(b"\5\6\7\x08" * 1000)
    assert read(tmp_path / "out.wav") == (audio_format, b"\1\2\3\4" + b"\5\6\7\x08" * 1000)


def test_the_file_is_valid_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    with WavRecorder(path) as recorder:
        assert read(path) == (MONO, b"")
        recorder.set_format(STEREO)
        assert read(path) == (STEREO, b"")
        recorder.write(b"\1\2\3\4" * 10_000)
        declared, audio = read(path)
        assert declared == STEREO
        assert audio == b"\1\2\3\4" * 10_000
    assert path.stat().st_size == 44 + 40_000


@pytest.mark.parametrize("audio_format", [MONO, STEREO])
def test_an_earlier_recording_stays_until_there_is_audio_in_its_place(
    tmp_path: Path, audio_format: AudioFormat
) -> None:
    path = tmp_path / "out.wav"
    earlier = b"an earlier recording, much longer than the header of a WAV file"
    path.write_bytes(earlier)
    with WavRecorder(path) as recorder:
        recorder.set_format(audio_format)
    assert path.read_bytes() == earlier
    with WavRecorder(path) as recorder:
        recorder.set_format(audio_format)
        recorder.write(b"\1\2\3\4")
        assert read(path) == (audio_format, b"\1\2\3\4")
    assert path.stat().st_size == 48


def test_another_format_goes_to_the_next_free_name(tmp_path: Path) -> None:
    taken = tmp_path / "out-2.wav"
    taken.write_bytes(b"somebody's work")
    with WavRecorder(tmp_path / "out.wav") as recorder:
        recorder.set_format(MONO)
        recorder.write(b"\1\2")
        recorder.set_format(STEREO)
        assert recorder.path == tmp_path / "out-3.wav"
        recorder.write(b"\3\4\5\6")
        recorder.set_format(STEREO)
        recorder.set_format(MONO)
        recorder.write(b"\7\x08")
    assert read(tmp_path / "out.wav") == (MONO, b"\1\2")
    assert read(tmp_path / "out-3.wav") == (STEREO, b"\3\4\5\6")
    assert read(tmp_path / "out-4.wav") == (MONO, b"\7\x08")
    assert taken.read_bytes() == b"somebody's work"


def test_more_than_a_header_can_declare_goes_to_the_next_file(tmp_path: Path) -> None:
    with WavRecorder(tmp_path / "out.wav", max_data_bytes=100) as recorder:
        for number in range(3):
            recorder.write(bytes([number]) * 50)
    assert read(tmp_path / "out.wav") == (MONO, b"\0" * 50 + b"\1" * 50)
    assert read(tmp_path / "out-2.wav") == (MONO, b"\2" * 50)


@pytest.mark.parametrize("is_name_too_long", [False, True])
def test_a_next_file_that_can_not_be_written_is_told(tmp_path: Path, is_name_too_long: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    # No name of a file has more than 255 bytes.
    path = folder / f"{'n' * 251 if is_name_too_long else 'out'}.wav"
    problem = "File name too long" if is_name_too_long else "No such file or directory"
    with (
        pytest.raises(UserError, match=rf"-2\.wav cannot be written: {problem}\.$"),
        WavRecorder(path, max_data_bytes=100) as recorder,
    ):
        recorder.write(b"\1\2" * 50)
        if not is_name_too_long:
            path.rename(tmp_path / "out.wav")
            folder.rmdir()
        recorder.write(b"\3\4" * 50)
    assert read(path if is_name_too_long else tmp_path / "out.wav") == (MONO, b"\1\2" * 50)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing/out.wav", "cannot be written: No such file or directory."),
        ("", "is not a regular file. Give the name of one, such as -o recording.wav."),
        ("n" * 300, "cannot be written: File name too long."),
    ],
)
def test_what_can_not_be_written_is_refused_at_once(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(UserError) as refusal:
        WavRecorder(tmp_path / name)
    assert str(refusal.value) == f"{tmp_path / name} {problem}"


def test_a_full_disk_is_told_and_what_fitted_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written: File too large"), WavRecorder(path) as recorder:
            while True:
                recorder.write(b"\1\2" * 20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    declared, audio = read(path)
    assert declared == MONO
    assert audio[:80_000] == b"\1\2" * 40_000
