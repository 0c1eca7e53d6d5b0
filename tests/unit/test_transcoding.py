"""Renditions in another codec: alignment by cross-correlation, the grid of frames, pauses, and damaged packets."""

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.media import libopus, resampling
from relay.media.libopus import OpusDecoder
from relay.media.opus_grid import LOOK_AHEAD, OpusGrid
from relay.media.transcoding import Encoded, OpusEncoding, OpusToPcm, PcmToOpus, make_transcoder
from relay.vocabulary.audio import OPUS_RATES, SAMPLE_RATES, AudioFormat, Codec, Frame, Place
from relay.vocabulary.errors import UserError
from tests.support.signals import SHIPPED_VOICE, Samples, read_wav, resample, to_frames, to_pcm

DUE = 1000.0
LOWEST_HZ = 1000
"""For speech, libopus cuts what is below a voice. That filter turns the phase of the lowest tones, not their time."""


def speech(rate: int, channels: int, seconds: float) -> Samples:
    """The shipped voice; in stereo, the second channel is another part of it."""
    whole, _ = read_wav(SHIPPED_VOICE.read_bytes())
    each = round(seconds * 16_000)
    parts = [resample(whole[at : at + each], 16_000, rate) for at in (4000, 4000 + 6 * 16_000)[:channels]]
    return np.stack(parts, axis=1)


def noise(rate: int, channels: int, seconds: float) -> Samples:
    """Noise of at most 3.5 kHz, which every codec and rate carries."""
    rng = np.random.default_rng(1)
    parts = [resample(rng.normal(0, 4000, round(seconds * 7000)), 7000, rate) for _ in range(channels)]
    return np.stack(parts, axis=1)


def encode(transcoder: PcmToOpus, frames: Iterator[Frame]) -> list[Encoded]:
    return [each for frame in frames for each in transcoder.take(frame)]


def decode(packets: Sequence[Encoded], channels: int) -> Samples:
    """Decode packets at 48 kHz."""
    decoder = OpusDecoder(48_000, channels)
    pcm = b"".join(decoder.decode(packet.audio, packet.ticks) for packet in packets)
    return np.frombuffer(pcm, "<i2").astype(np.float64).reshape(-1, channels)


def lag(heard: Samples, meant: Samples, reach: int = 4800) -> int:
    """By how many samples of 48 kHz `heard` is later than `meant`."""
    size = 1 << (len(heard) + len(meant)).bit_length()
    cross = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(meant, size))
    cross[: LOWEST_HZ * size // 48_000] = 0
    product = np.fft.irfft(cross, size)
    near = np.concatenate([product[-reach:], product[:reach]])
    return int(np.argmax(near)) - reach


@pytest.fixture(params=["speex", "pyav"])
def resampler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with each resampler."""
    resampling.load_speex.cache_clear()
    if request.param == "pyav":
        monkeypatch.setattr(resampling, "_NAMES", ())
    assert (resampling.load_speex() is None) is (request.param == "pyav")
    yield str(request.param)
    resampling.load_speex.cache_clear()


def check_alignment(rate: int, channels: int, sound: Callable[[int, int, float], Samples]) -> None:
    meant = sound(rate, channels, 3.0)
    audio_format = AudioFormat(rate=rate, channels=channels)
    transcoder = PcmToOpus(audio_format, OpusEncoding(bitrate=32_000))
    packets = encode(transcoder, to_frames(to_pcm(meant), audio_format, range(0, len(meant), rate // 50)))
    packets += transcoder.finish()
    assert [each.seq for each in packets] == list(range(len(packets)))
    assert [each.media_time for each in packets] == [960 * number - 312 for number in range(len(packets))]
    heard = decode(packets, channels)
    # SILK works at 16 kHz at most and places audio to the sample of that. CELT is exact.
    allowed = 48_000 // min(rate, 16_000)
    for channel in range(channels):
        late = lag(heard[:, channel], resample(meant[:, channel], rate, 48_000)) + packets[0].media_time
        assert abs(late) <= allowed, f"{late} ticks of 48 kHz"
    assert len(heard) + packets[0].media_time >= len(meant) * 48_000 / rate, "all of it can be heard"


@pytest.mark.parametrize("sound", [speech, noise])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [rate for rate in SAMPLE_RATES if rate in OPUS_RATES])
def test_opus_is_aligned_with_its_pcm(rate: int, channels: int, sound: Callable[[int, int, float], Samples]) -> None:
    check_alignment(rate, channels, sound)


@pytest.mark.usefixtures("resampler")
@pytest.mark.parametrize("sound", [speech, noise])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [rate for rate in SAMPLE_RATES if rate not in OPUS_RATES])
def test_opus_is_aligned_with_pcm_that_is_resampled(
    rate: int, channels: int, sound: Callable[[int, int, float], Samples]
) -> None:
    check_alignment(rate, channels, sound)


@pytest.mark.usefixtures("resampler")
@pytest.mark.parametrize("rate", [11_025, 44_100])
def test_a_resampler_keeps_a_tone_clean(rate: int) -> None:
    to_rate = 12_000 if rate == 11_025 else 48_000
    tone_hz = rate * 3 // 10
    tone = 16_000 * np.sin(2 * np.pi * tone_hz * np.arange(rate) / rate)
    made = np.frombuffer(resampling.make_resampler(rate, to_rate, 1).resample(to_pcm(tone[:, None])), "<i2")
    meant = 16_000 * np.sin(2 * np.pi * tone_hz * np.arange(len(made)) / to_rate)
    error = (made - meant)[200:]
    assert 10 * np.log10(np.mean(meant**2) / np.mean(error**2)) > 55
    assert len(made) > to_rate - to_rate // 50, "less than 20 ms are held back"


@pytest.mark.usefixtures("resampler")
@pytest.mark.parametrize("start", [1, 73, 146, 147, 20_000])
def test_a_resampled_source_may_begin_at_any_sample(start: int) -> None:
    audio_format = AudioFormat(rate=44_100, channels=2)
    tone = 8000 * np.sin(2 * np.pi * 3000 * np.arange(start, start + 44_100) / 44_100)
    transcoder = PcmToOpus(audio_format, OpusEncoding(bitrate=64_000))
    pcm = to_pcm(np.stack([tone, tone], axis=1))
    packets = encode(transcoder, to_frames(pcm, audio_format, [], start=start))
    heard = decode(packets, 2)[4800:38_400, 0]
    at = np.arange(len(heard)) + 4800 + packets[0].media_time
    phase = np.angle(np.sum(heard * np.exp(-2j * np.pi * 3000 * at / 48_000))) + np.pi / 2
    late = -phase / (2 * np.pi) * 48_000 / 3000
    assert abs(late) < 0.1, f"{late:.2f} samples of 48 kHz"


rates = st.sampled_from(SAMPLE_RATES)
lengths = st.sampled_from([20, 40, 60])


@settings(max_examples=30, deadline=None)
@given(rates, lengths, st.data())
def test_packets_do_not_depend_on_how_the_source_is_cut(rate: int, frame_ms: int, data: st.DataObject) -> None:
    audio_format = AudioFormat(rate=rate)
    pcm = to_pcm(noise(rate, 1, 0.4))
    cuts = data.draw(st.lists(st.integers(0, len(pcm) // 2), max_size=20))
    encoding = OpusEncoding(complexity=0, frame_ms=frame_ms)
    whole, cut = PcmToOpus(audio_format, encoding), PcmToOpus(audio_format, encoding)
    expected = encode(whole, to_frames(pcm, audio_format, [], due=DUE)) + whole.finish()
    found = encode(cut, to_frames(pcm, audio_format, cuts, due=DUE)) + cut.finish()
    assert [(each.seq, each.media_time, each.ticks) for each in found] == [
        (number, number * frame_ms * 48 - LOOK_AHEAD, frame_ms * 48) for number in range(len(expected))
    ]
    assert [each.audio for each in found] == [each.audio for each in expected]
    assert [each.due for each in found] == pytest.approx([DUE + each.media_time / 48_000 for each in found])


@settings(max_examples=30, deadline=None)
@given(rates, lengths, st.integers(0, 30_000))
def test_encoders_that_begin_at_different_places_number_alike(rate: int, frame_ms: int, late: int) -> None:
    audio_format = AudioFormat(rate=rate)
    pcm = to_pcm(noise(rate, 1, 0.3 + late / rate))
    encoding = OpusEncoding(complexity=0, frame_ms=frame_ms)
    early, late_one = PcmToOpus(audio_format, encoding), PcmToOpus(audio_format, encoding)
    frames = list(to_frames(pcm, audio_format, [late, late + rate // 10]))
    expected = encode(early, iter(frames)) + early.finish()
    behind = [frame for frame in frames if frame.start.media_time >= late]
    found = encode(late_one, iter(behind)) + late_one.finish()
    assert found[0].seq == OpusGrid(rate, frame_ms).first_from(late)
    assert [(each.seq, each.media_time) for each in found] == [
        (each.seq, each.media_time) for each in expected[found[0].seq :]
    ]
    assert [each.due for each in found] == pytest.approx([each.due for each in expected[found[0].seq :]])


@pytest.mark.usefixtures("resampler")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates, lengths, st.integers(0, 20_000), st.integers(1, 4000))
def test_what_a_source_sends_can_be_heard_to_its_end(rate: int, frame_ms: int, start: int, length: int) -> None:
    audio_format, grid = AudioFormat(rate=rate), OpusGrid(rate, frame_ms)
    transcoder = PcmToOpus(audio_format, OpusEncoding(complexity=0, frame_ms=frame_ms))
    found = encode(transcoder, to_frames(bytes(2 * length), audio_format, [length // 2], start)) + transcoder.finish()
    assert [each.seq for each in found] == [*range(grid.first_from(start), grid.last_before(start + length) + 1)]


@given(rates, lengths, st.integers(0, 2**40))
def test_the_grid_holds_every_moment_once(rate: int, frame_ms: int, sample: int) -> None:
    grid = OpusGrid(rate, frame_ms)
    first = grid.first_from(sample)
    assert (first - 1) * frame_ms * rate < sample * 1000 <= first * frame_ms * rate
    assert grid.first_sample(first) * 1000 <= first * frame_ms * rate < (grid.first_sample(first) + 1) * 1000
    last = grid.last_before(sample)
    # The last frame ends, as a listener hears it, at the sample or after it; the one before it does not.
    assert grid.media_time(last) * rate < sample * 48_000 <= grid.media_time(last + 1) * rate
    moment = sample * 48_000 // rate
    holding = grid.holding(moment)
    assert grid.media_time(holding) <= moment < grid.media_time(holding + 1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("stop_ms", [1000, 1003, 1013, 1014, 1019])
def test_a_source_that_pauses_loses_nothing_before_the_pause(rate: int, stop_ms: int) -> None:
    audio_format = AudioFormat(rate=rate)
    meant = speech(rate, 1, 2.5)
    stop = rate * stop_ms // 1000
    transcoder = PcmToOpus(audio_format, OpusEncoding(bitrate=64_000))
    before = (
        encode(transcoder, to_frames(to_pcm(meant[:stop]), audio_format, [rate // 3], due=DUE)) + transcoder.finish()
    )
    assert transcoder.finish() == [], "there is nothing more"
    end = before[-1].media_time + before[-1].ticks
    assert 0 <= end - stop * 48_000 / rate < 960, "the padding ends within the frame"
    after = encode(transcoder, to_frames(to_pcm(meant[stop:]), audio_format, [], start=stop, due=DUE + 60))
    after += transcoder.finish()
    packets = before + after
    assert [each.seq for each in packets] == list(range(len(packets)))
    first = after[0]
    assert first.due == pytest.approx(DUE + 60 + (first.media_time / 48_000) - stop / rate)
    assert all(later.due >= earlier.due + 0.02 - 1e-9 for earlier, later in pairwise(packets))
    heard = decode(packets, 1)[:, 0]
    expected = resample(meant[:, 0], rate, 48_000)
    # Each part is where it belongs; only what overlaps the padding is missing.
    for part in (slice(0, stop * 48_000 // rate), slice(first.media_time + 960, len(expected))):
        only = np.zeros_like(expected)
        only[part] = expected[part]
        assert abs(lag(heard, only) + packets[0].media_time) <= 3


def test_a_jump_in_the_source_begins_at_the_next_frame() -> None:
    audio_format = AudioFormat()
    transcoder = PcmToOpus(audio_format, OpusEncoding())
    [frame] = to_frames(bytes(2 * 480), audio_format, [])
    assert [each.seq for each in transcoder.take(frame)] == [0]
    [later] = to_frames(bytes(2 * 960), audio_format, [], start=1000, due=5.0)
    made = transcoder.take(later)
    assert [each.seq for each in made] == [4, 5]
    assert [each.due for each in made] == pytest.approx([5.0 + 280 / 16_000 - 0.0065, 5.0 + 600 / 16_000 - 0.0065])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OPUS_RATES)
def test_a_packet_becomes_one_frame_of_pcm(rate: int, channels: int) -> None:
    audio_format = AudioFormat(rate=rate, channels=channels)
    encoder = PcmToOpus(audio_format, OpusEncoding(frame_ms=60))
    meant = speech(rate, channels, 2.0)
    packets = encode(encoder, to_frames(to_pcm(meant), audio_format, []))
    source = encoder.audio_format
    decoder = make_transcoder(source, Codec.PCM_S16LE, OpusEncoding())
    assert decoder.audio_format == audio_format
    place, made = Place(0, 1, 7, 0), list[Encoded]()
    for packet in packets:
        end = Place(place.position + 1, 1, place.seq + 1, place.media_time + packet.ticks)
        frame = Frame(packet.audio, packet.due, source.measure(packet.audio).flicks, start=place, end=end, wire=b"")
        made += decoder.take(frame)
        place = end
    assert decoder.finish() == []
    step = rate * 60 // 1000
    assert [(each.seq, each.media_time, each.ticks, each.due) for each in made] == [
        (7 + number, number * step, step, packet.due) for number, packet in enumerate(packets)
    ]
    heard = np.frombuffer(b"".join(each.audio for each in made), "<i2").astype(np.float64).reshape(-1, channels)
    late = lag(resample(heard[:, 0], rate, 48_000), resample(meant[: len(heard), 0], rate, 48_000))
    assert abs(late - LOOK_AHEAD) <= 48_000 // min(rate, 16_000)


def test_a_damaged_packet_is_concealed_and_counted() -> None:
    decoder = OpusToPcm(AudioFormat(Codec.OPUS, 24_000, 2))
    frame = Frame(b"\xfb\0", 1.0, 0, start=Place(5, 1, 5, 4800), end=Place(6, 1, 6, 5760), wire=b"")
    [made] = decoder.take(frame)
    assert (made.seq, made.media_time, made.ticks, len(made.audio)) == (5, 2400, 480, 480 * 4)
    assert decoder.failures == 1


def test_a_source_needs_no_transcoder_to_its_own_codec() -> None:
    with pytest.raises(ValueError, match="needs no transcoder"):
        make_transcoder(AudioFormat(), Codec.PCM_S16LE, OpusEncoding())


@pytest.fixture
def _without_system_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module, load in ((libopus, libopus.load_libopus), (resampling, resampling.load_speex)):
        monkeypatch.setattr(module, "_NAMES", ())
        load.cache_clear()
    yield
    libopus.load_libopus.cache_clear()
    resampling.load_speex.cache_clear()


@pytest.mark.usefixtures("_without_system_libraries")
def test_pyav_has_all_that_opus_needs() -> None:
    audio_format = AudioFormat(rate=44_100)
    transcoder = make_transcoder(audio_format, Codec.OPUS, OpusEncoding())
    [frame] = to_frames(bytes(2 * 44_100), audio_format, [])
    assert len(transcoder.take(frame)) == 49


@pytest.mark.usefixtures("_without_system_libraries")
def test_without_libraries_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "files", lambda _: None)
    with pytest.raises(UserError, match=r"libopus0, or pip install 'audio-relay\[media\]'"):
        make_transcoder(AudioFormat(), Codec.OPUS, OpusEncoding())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"44100 Hz needs a resampler.*'audio-relay\[media\]'"):
        resampling.make_resampler(44_100, 48_000, 1)
